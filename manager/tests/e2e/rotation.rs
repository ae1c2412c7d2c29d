//! Another root while everything runs: no task is touched, no session ends, boards that were off come back.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cluster::{Running, SOON, create, get, node_id, picture, settle, sleeper, wait, wait_board};
use crate::lab::board::Verb;
use crate::lab::guard::Guard;
use crate::lab::process::run;
use crate::lab::{Lab, manager};
use crate::support::{docker, has, pi_mgr};
use crate::trust::join;

#[test]
#[ignore = "needs root"]
fn another_root_touches_no_task_and_leaves_no_board_behind() -> Result<()> {
    let lab = Guard::cluster(3)?;
    create(&lab, &sleeper(&lab, "web", 4))?;
    let tasks = settle(&lab, &[("web", 4)]);
    docker_shows_it_to_the_end(&lab, &tasks)?;
    tokens_are_new(&lab)?;
    lab.board(3)?.act(Verb::PowerOff)?;
    wait_board(&lab, 3, "down", SOON);
    a_root_of_ones_own(&lab)?;
    a_killed_manager_goes_on(&lab)?;
    a_board_comes_back_after_two(&lab)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn root(lab: &Lab) -> Result<String> {
    Ok(text(&get(lab, "/swarm")?["TLSInfo"]["TrustRoot"]))
}

/// How often each board's agent opened a session.
fn sessions(lab: &Lab) -> Result<Vec<usize>> {
    let count = |log: &std::path::Path| Ok(fs::read_to_string(log)?.matches("heartbeat every").count());
    lab.boards().iter().map(|board| count(&board.agent_log())).collect()
}

/// Whether every node shows and trusts what the cluster does.
fn is_everybody_new(lab: &Lab) -> Result<bool> {
    let cluster = get(lab, "/swarm")?;
    let nodes = get(lab, "/nodes")?;
    let all = nodes.as_array().context("a list")?;
    Ok(cluster["RootRotationInProgress"] == false
        && all.iter().all(|node| node["Description"]["TLSInfo"] == cluster["TLSInfo"]))
}

fn docker_shows_it_to_the_end(lab: &Lab, tasks: &Running) -> Result<()> {
    let (before, sessions_before) = (root(lab)?, sessions(lab)?);
    let shown = docker(lab, &["swarm", "ca"])?.good()?;
    assert_eq!(shown.trim(), before.trim());
    let said = docker(lab, &["swarm", "ca", "--rotate"])?.good()?;
    let after = root(lab)?;
    assert_ne!(after, before);
    has(&said, "rotated TLS certificates");
    has(&said, after.trim());
    assert!(is_everybody_new(lab)?, "docker waited for everybody\n{}", picture(lab));
    let states = docker(lab, &["node", "ls", "--format", "{{.TLSStatus}}"])?.good()?;
    assert_eq!(states.lines().collect::<BTreeSet<_>>(), BTreeSet::from(["Ready"]));
    assert_eq!(&settle(lab, &[("web", 4)]), tasks, "no task was touched");
    assert_eq!(sessions(lab)?, sessions_before, "no session ended");
    Ok(())
}

/// Boards do not join with what was before; one that joined is no burden once it is removed.
fn tokens_are_new(lab: &Lab) -> Result<()> {
    let old = lab.manager().worker_token()?;
    pi_mgr(lab, &["ca", "--rotate", "--quiet"])?.good()?;
    let data = lab.directory.join("newcomer");
    let (joined, said) = join(lab, &old, &data)?;
    assert!(!joined, "the old token lets nobody in");
    has(&said, "the token is of another cluster or older than its root certificate");
    let (joined, said) = join(lab, &lab.manager().worker_token()?, &data)?;
    ensure!(joined, "{said}");
    // The same root, another token.
    let before = (root(lab)?, lab.manager().worker_token()?);
    docker(lab, &["swarm", "join-token", "--rotate", "worker"])?.good()?;
    assert_eq!(root(lab)?, before.0);
    let (joined, said) = join(lab, &before.1, &lab.directory.join("late"))?;
    assert!(!joined, "the old token lets nobody in");
    has(&said, "A valid join token is necessary to join this cluster");
    let nodes = get(lab, "/nodes")?;
    let known: Vec<String> = (1..=3).map(|board| node_id(lab, board)).collect::<Result<_>>()?;
    let mut strangers = nodes.as_array().context("a list")?.iter().filter(|node| node["ManagerStatus"].is_null());
    let newcomer = strangers.find(|node| !known.contains(&text(&node["ID"]))).context("the newcomer")?;
    docker(lab, &["node", "rm", "--force", &text(&newcomer["ID"])])?.good().map(drop)
}

fn a_root_of_ones_own(lab: &Lab) -> Result<()> {
    let file = |name: &str| lab.directory.join(name).display().to_string();
    let (key, certificate) = (file("own.key"), file("own.pem"));
    run(&["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &key])?;
    run(&[
        "openssl",
        "req",
        "-x509",
        "-key",
        &key,
        "-subj",
        "/O=Home/CN=boards",
        "-days",
        "7300",
        "-out",
        &certificate,
    ])?;
    let said = pi_mgr(lab, &["ca", "--rotate", "--ca-cert", &certificate, "--ca-key", &key])?.good()?;
    has(&said, "rotated TLS certificates: 3/3 nodes");
    has(&said, "down, renewed when they come back: board3");
    let own = fs::read_to_string(&certificate)?;
    assert_eq!(root(lab)?.trim(), own.trim());
    has(&said, own.trim());
    let secret = fs::read_to_string(&key)?;
    let secret = secret.lines().nth(1).context("a key")?;
    for said in [get(lab, "/swarm")?.to_string(), fs::read_to_string(lab.manager().log())?] {
        assert!(!said.contains(secret) && !said.contains("PRIVATE"), "{said}");
    }
    // Signed by another, and not a root of the cluster.
    let (_, said) = docker(lab, &["swarm", "ca", "--rotate", "--ca-cert", &certificate, "--ca-key", &key])?.bad()?;
    has(&said, "the CA certificate is the cluster's root certificate already");
    Ok(())
}

/// A board that says nothing for a while holds the rotation up; the manager dies meanwhile.
fn a_killed_manager_goes_on(lab: &Lab) -> Result<()> {
    let before = root(lab)?;
    let board = lab.board(2)?;
    board.act(Verb::Freeze)?;
    docker(lab, &["swarm", "ca", "--rotate", "--detach"])?.good()?;
    lab.manager().act(manager::Verb::Kill)?;
    lab.manager().act(manager::Verb::Start)?;
    let cluster = get(lab, "/swarm")?;
    assert_eq!(cluster["RootRotationInProgress"], true);
    assert_eq!(cluster["TLSInfo"]["TrustRoot"], before.as_str());
    let said = pi_mgr(lab, &["ca"])?;
    has(&said.err, "A root rotation is under way; it waits for");
    has(&said.err, "board2");
    // Another one takes its place: boards that have a certificate already renew again.
    let issuer = |cluster: &Value| cluster["TLSInfo"]["CertIssuerPublicKey"].clone();
    docker(lab, &["swarm", "ca", "--rotate", "--detach"])?.good()?;
    assert_ne!(issuer(&get(lab, "/swarm")?), issuer(&cluster));
    board.act(Verb::Thaw)?;
    wait(lab, "the rotation to end", SOON, || Ok((root(lab)? != before).then_some(())));
    assert_ne!(issuer(&get(lab, "/swarm")?), issuer(&cluster), "the last one counts");
    Ok(())
}

fn a_board_comes_back_after_two(lab: &Lab) -> Result<()> {
    lab.board(3)?.act(Verb::PowerOn)?;
    wait(lab, "everybody to trust the new root alone", SOON, || Ok(is_everybody_new(lab)?.then_some(())));
    wait_board(lab, 3, "ready", SOON);
    settle(lab, &[("web", 4)]);
    Ok(())
}
