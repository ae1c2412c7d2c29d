//! Autolock as clients see it. The words are Docker's (recordings 020 to 025, 345 to 351).

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::control::ControlStatus;
use super::testing::{GOOD_KEY, Lab, TIRED_KEY};
use crate::store::Change;
use crate::vault::unlock::UnlockKey;

const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it.";

#[track_caller]
fn said(answer: (u16, Value), status: u16, want: &str) {
    assert_eq!((answer.0, answer.1["message"].as_str()), (status, Some(want)));
}

impl Lab {
    fn shut(&self) {
        *self.status.lock().expect("lock") = ControlStatus::Locked { addr: "10.0.0.1".to_owned() };
    }

    /// Sends the cluster's settings back, with autolock so; the flags go into the query.
    fn autolock(&self, on: bool, flags: &str) -> (u16, Value) {
        let (_, cluster) = self.get("/swarm");
        let mut spec = cluster["Spec"].clone();
        spec["EncryptionConfig"]["AutoLockManagers"] = json!(on);
        self.post(&format!("/swarm/update?version={}{flags}", cluster["Version"]["Index"]), &spec.to_string())
    }

    fn unlock_key(&self) -> String {
        let (status, answer) = self.get("/swarm/unlockkey");
        assert_eq!(status, 200, "{answer}");
        answer["UnlockKey"].as_str().expect("a text").to_owned()
    }
}

#[test]
fn the_unlock_key_comes_changes_and_goes() {
    let lab = Lab::active();
    let files = || lab.relocked.load(Ordering::Relaxed);
    assert_eq!(lab.unlock_key(), "");
    said(lab.autolock(false, "&rotateManagerUnlockKey=true"), 400, "cannot rotate because autolock is not turned on");
    assert_eq!((lab.autolock(false, ""), files()), ((200, Value::Null), 0));
    assert_eq!((lab.autolock(true, ""), files()), ((200, Value::Null), 1));
    // What opened the manager before does so until the key was asked for; that gets in no update's way.
    let before = || {
        let view = lab.store.view();
        let cluster = view.state.cluster().expect("a cluster");
        (cluster.trust.unlock_before.is_some(), cluster.meta.version)
    };
    let (is_open, version) = before();
    let first = lab.unlock_key();
    assert_eq!((is_open, before()), (true, (false, version)));
    assert!(first.starts_with("SWMKEY-1-") && first.len() == GOOD_KEY.len(), "{first}");
    assert_eq!(lab.get("/swarm").1["Spec"]["EncryptionConfig"]["AutoLockManagers"], json!(true));
    // Other settings leave it alone.
    assert_eq!((lab.autolock(true, ""), lab.unlock_key() == first, files()), ((200, Value::Null), true, 1));
    assert_eq!((lab.autolock(true, "&rotateManagerUnlockKey=true"), files()), ((200, Value::Null), 2));
    assert!(before().0);
    assert!(![String::new(), first].contains(&lab.unlock_key()) && !before().0);
    said(lab.post("/swarm/unlock", &json!({ "UnlockKey": GOOD_KEY }).to_string()), 409, "swarm is not locked");
    assert_eq!((lab.autolock(false, ""), lab.unlock_key(), files()), ((200, Value::Null), String::new(), 3));
    assert_eq!(lab.get("/swarm").1["Spec"]["EncryptionConfig"]["AutoLockManagers"], json!(false));
}

/// Two people at once: nobody is shown a key that opens nothing.
#[test]
fn a_key_that_was_replaced_meanwhile_is_not_shown() {
    let lab = Lab::active();
    assert_eq!(lab.autolock(true, "").0, 200);
    let vault = crate::vault::testing();
    let other = UnlockKey::parse(GOOD_KEY).expect("a key").seal(&vault).expect("sealed");
    for change in [Change::UnlockKeyDrawn(other), Change::UnlockKey(None)] {
        lab.meanwhile.lock().expect("lock").push(change);
        said(lab.get("/swarm/unlockkey"), 503, "the unlock key was replaced meanwhile: ask again");
        assert!([GOOD_KEY, ""].contains(&&*lab.unlock_key()));
        assert_eq!((lab.autolock(false, "").0, lab.autolock(true, "").0), (200, 200));
    }
}

#[test]
fn a_cluster_is_made_with_it() {
    for body in [
        json!({ "AutoLockManagers": true }),
        json!({ "Spec": { "EncryptionConfig": { "AutoLockManagers": true } } }),
        json!({ "AutoLockManagers": true, "Spec": { "EncryptionConfig": { "AutoLockManagers": true } } }),
    ] {
        let lab = Lab::new();
        assert_eq!(lab.post("/swarm/init", &body.to_string()).0, 200);
        assert_eq!(lab.unlock_key(), GOOD_KEY);
    }
}

#[test]
fn while_it_is_locked() {
    let lab = Lab::active();
    assert_eq!(lab.autolock(true, "").0, 200);
    lab.shut();
    let (_, info) = lab.get("/info");
    let swarm = json!({
        "NodeID": "", "NodeAddr": "10.0.0.1", "LocalNodeState": "locked", "ControlAvailable": false, "Error": LOCKED,
    });
    for (key, want) in swarm.as_object().expect("an object") {
        assert_eq!(&info["Swarm"][key], want, "{key}");
    }
    assert_eq!((lab.get("/_ping").0, lab.get("/version").0), (200, 200));
    for (method, path) in [
        ("GET", "/swarm"),
        ("POST", "/swarm/update?version=1"),
        ("GET", "/swarm/unlockkey"),
        ("GET", "/nodes"),
        ("GET", "/services"),
        ("POST", "/services/create"),
        ("DELETE", "/services/x"),
        ("GET", "/secrets"),
        ("GET", "/events"),
        ("GET", "/containers/json"),
    ] {
        said(lab.ask(method, path, "{}"), 503, LOCKED);
    }
    said(lab.get("/nosuch"), 404, "page not found");
    for path in ["/swarm/init", "/swarm/join"] {
        let (status, answer) = lab.post(path, "{}");
        assert!(status == 503 && answer["message"].as_str().expect("why").contains("already part of a swarm"));
    }
    let leave = "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.";
    said(lab.post("/swarm/leave", ""), 503, leave);

    let unlock = |key: &str| lab.post("/swarm/unlock", &json!({ "UnlockKey": key }).to_string());
    said(unlock("foo"), 400, "invalid key string");
    said(lab.post("/swarm/unlock", "{}"), 400, "invalid key string");
    said(lab.post("/swarm/unlock", r#"{"Key":"x"}"#), 400, "invalid argument: Key is not supported yet");
    let wrong = GOOD_KEY.replace("W9K", "W8K");
    said(unlock(&wrong), 401, "swarm could not be unlocked: invalid key provided");
    said(unlock(TIRED_KEY), 429, "too many wrong unlock keys were tried: try again in 2 s");
    assert_eq!(lab.get("/info").1["Swarm"]["LocalNodeState"], "locked");
    assert_eq!(unlock(GOOD_KEY), (200, Value::Null));
    assert_eq!((lab.get("/nodes").0, lab.get("/info").1["Swarm"]["LocalNodeState"].clone()), (200, json!("active")));

    lab.shut();
    assert_eq!(lab.post("/swarm/leave?force=1", "").0, 200);
    assert_eq!(lab.get("/info").1["Swarm"]["LocalNodeState"], "inactive");
}
