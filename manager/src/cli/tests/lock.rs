//! `unlock`, `unlock-key`, `init --autolock`, `update --autolock`.

use std::sync::{Arc, Mutex};

use clap::Parser;
use serde_json::{Value, json};

use super::super::Cli;
use super::fake::{Outcome, Request, pi_mgr_typing};

const KEY: &str = "SWMKEY-1-W9Kqj0GqPF9YCLtl4NbMhhwvl3RM4A/o8we31P26bhs";

fn ok(body: &Value) -> Option<(u16, String)> {
    Some((200, body.to_string()))
}

/// Runs a command against a manager in this state; what it did, and what was posted.
fn run(typed: &str, args: &[&str], state: &str, locks: bool) -> (Outcome, Vec<(String, Value, Value)>) {
    let posted = Arc::new(Mutex::new(Vec::new()));
    let (shared, state) = (posted.clone(), state.to_owned());
    let outcome = pi_mgr_typing(typed, args, 0, move |request: Request| match request.line.as_str() {
        "GET /info" => ok(&json!({"Swarm": {"LocalNodeState": state}})),
        "GET /swarm" => {
            let spec = json!({"EncryptionConfig": {"AutoLockManagers": locks}});
            ok(&json!({"Version": {"Index": 7}, "Spec": spec, "JoinTokens": {"Worker": "SWMTKN-1-x"}}))
        }
        "GET /swarm/unlockkey" => {
            let posts = shared.lock().expect("no panic holds it");
            let switched = posts.iter().any(|(_, body, _): &(String, Value, Value)| {
                body.pointer("/EncryptionConfig/AutoLockManagers") == Some(&json!(true))
                    || body["AutoLockManagers"] == true
            });
            ok(&json!({"UnlockKey": if locks || switched { KEY } else { "" }}))
        }
        "GET /nodes/n1" => ok(&json!({"ManagerStatus": {"Addr": "10.0.0.1:2377"}})),
        line if line.starts_with("POST ") => {
            let post = (line.to_owned(), request.body, request.query);
            shared.lock().expect("no panic holds it").push(post);
            ok(&json!("n1"))
        }
        line => panic!("unforeseen: {line}"),
    });
    let posted = posted.lock().expect("no panic holds it").clone();
    (outcome, posted)
}

#[test]
fn the_key_is_read_and_sent_and_not_shown() {
    let (outcome, posted) = run(&format!("  {KEY} \nmore\n"), &["unlock"], "locked", true);
    outcome.result.expect("it is unlocked");
    assert_eq!(posted, [("POST /swarm/unlock".to_owned(), json!({"UnlockKey": KEY}), json!({}))]);
    assert!(outcome.stdout.is_empty() && outcome.stderr.is_empty(), "{}{}", outcome.stdout, outcome.stderr);
}

#[test]
fn what_is_not_locked_is_not_unlocked() {
    for (state, why) in [("active", "the manager is not locked"), ("inactive", "this manager is in no cluster")] {
        let (outcome, posted) = run(KEY, &["unlock"], state, true);
        assert_eq!(outcome.result.expect_err("it is not locked").to_string(), why);
        assert!(posted.is_empty());
    }
    // A key has no place on the command line, where others see it.
    assert!(Cli::try_parse_from(["pi-mgr", "unlock", KEY]).is_err());
}

#[test]
fn the_key_is_shown_and_replaced() {
    let (outcome, posted) = run("", &["unlock-key", "-q"], "active", true);
    assert_eq!((outcome.stdout, posted.len()), (format!("{KEY}\n"), 0));
    let (outcome, _) = run("", &["unlock-key"], "active", true);
    assert!(outcome.stdout.contains(&format!("run `pi-mgr unlock` and type this key:\n\n    {KEY}\n")));
    let (outcome, _) = run("", &["unlock-key"], "active", false);
    assert_eq!(outcome.result.expect_err("there is none").to_string(), "no unlock key is set");

    let (outcome, posted) = run("", &["unlock-key", "--rotate"], "active", true);
    assert!(outcome.stdout.starts_with("Successfully rotated manager unlock key.\n\n") && outcome.stdout.contains(KEY));
    let [(line, _, query)] = &posted[..] else { panic!("{posted:?}") };
    assert_eq!(
        (&**line, &query["rotateManagerUnlockKey"], &query["version"]),
        ("POST /swarm/update", &json!("true"), &json!("7"))
    );
    let (outcome, posted) = run("", &["unlock-key", "--rotate"], "active", false);
    let why = outcome.result.expect_err("it is off").to_string();
    assert_eq!((&*why, posted.len()), ("cannot rotate because autolock is not turned on", 0));
}

#[test]
fn autolock_is_switched() {
    for (flag, before, on, shows) in [
        ("--autolock", false, true, true),
        ("--autolock=true", true, true, false),
        ("--autolock=false", true, false, false),
    ] {
        let (outcome, posted) = run("", &["update", flag], "active", before);
        outcome.result.expect(flag);
        assert_eq!(posted[0].1["EncryptionConfig"]["AutoLockManagers"], on, "{flag}");
        assert!(outcome.stdout.starts_with("Cluster updated.\n"));
        assert_eq!(outcome.stdout.contains(KEY), shows, "{flag}: {}", outcome.stdout);
    }
    let (outcome, posted) = run("", &["init", "--autolock"], "inactive", false);
    outcome.result.expect("a cluster");
    let body = &posted[0].1;
    assert_eq!(
        (&body["AutoLockManagers"], &body["Spec"]["EncryptionConfig"]["AutoLockManagers"]),
        (&json!(true), &json!(true))
    );
    assert!(outcome.stdout.contains("pi-agent join --token SWMTKN-1-x") && outcome.stdout.contains(KEY));
    let (outcome, _) = run("", &["init"], "inactive", false);
    assert!(!outcome.stdout.contains("unlock"), "{}", outcome.stdout);
}
