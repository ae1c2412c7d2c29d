//! `pi-mgr access`: what is sent, written and said.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::fake::{Reply, Request, pi_mgr};

fn made(hosts: &[&str]) -> String {
    let (certificate, ca) = ("the certificate\n", "the root\n");
    let (role, until) = ("read-only", "2027-11-21T00:00:00Z");
    json!({ "Name": "ann", "Role": role, "ExpiresAt": until, "Certificate": certificate, "CA": ca, "Hosts": hosts })
        .to_string()
}

fn manager(hosts: &'static [&'static str]) -> impl FnMut(Request) -> Reply + Send + 'static {
    move |request| match request.line.as_str() {
        "GET /info" => Some((200, json!({ "Swarm": { "NodeAddr": "10.0.0.1" } }).to_string())),
        "POST /racimo/access" => {
            let csr = request.body["CSR"].as_str().unwrap_or_default();
            assert!(csr.starts_with("-----BEGIN CERTIFICATE REQUEST-----") && !csr.contains("PRIVATE"));
            assert_eq!(
                (&request.body["Role"], &request.body["Validity"]),
                (&json!("read-only"), &json!(7_776_000_000_000_000_i64))
            );
            Some((201, made(hosts)))
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_directory_is_written_and_explained() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().join("new/ann");
    let path = out.display().to_string();
    let line = ["access", "create", "--read-only", "--expires", "90d", "--out", &path, "ann"];
    let done = pi_mgr(&line, 0, manager(&["tcp://10.0.0.1:2376"]));
    assert!(done.result.is_ok() && done.stderr.is_empty(), "{:?} {}", done.result, done.stderr);
    for part in [
        "Access ann (read-only) is good until 2027",
        &format!("pi-mgr --context {path} node ls"),
        &format!("export DOCKER_HOST=tcp://10.0.0.1:2376 DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH={path}\n"),
        &format!("docker context create ann --docker host=tcp://10.0.0.1:2376,ca={path}/ca.pem,"),
    ] {
        assert!(done.stdout.contains(part), "{part} not in {}", done.stdout);
    }
    let read = |name: &str| fs::read_to_string(out.join(name)).expect(name);
    assert_eq!((read("ca.pem"), read("cert.pem")), ("the root\n".into(), "the certificate\n".into()));
    assert_eq!(read("host"), "tcp://10.0.0.1:2376\n");
    assert!(read("key.pem").starts_with("-----BEGIN PRIVATE KEY-----"));
    let mode = |path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(out.clone()), mode(out.join("key.pem"))), (0o700, 0o600));
    // What is there is left alone.
    let again = pi_mgr(&line, 0, |request| panic!("{}", request.line));
    assert!(again.result.is_err_and(|error| {
        error.to_string().ends_with("is there already: remove it, or name another directory with --out")
    }));
    assert!(out.join("key.pem").exists());
}

#[test]
fn a_manager_that_is_not_reached_from_afar_is_told_of() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ann").display().to_string();
    let line = ["access", "create", "-q", "--read-only", "--expires", "2160h", "--out", &path, "ann"];
    let done = pi_mgr(&line, 0, manager(&[]));
    assert_eq!(done.stdout, format!("{path}\n"));
    assert!(done.stderr.contains("--api tcp://0.0.0.0:2376"), "{}", done.stderr);
    assert_eq!(fs::read_to_string(dir.path().join("ann/host")).expect("there"), "tcp://10.0.0.1:2376\n");
}

#[test]
fn nothing_of_a_refused_access_stays() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ann").display().to_string();
    let refuse = |request: Request| match request.line.as_str() {
        "GET /info" => Some((200, "{}".to_owned())),
        _ => Some((409, json!({ "message": "access ann already exists" }).to_string())),
    };
    let done = pi_mgr(&["access", "create", "--out", &path, "ann"], 0, refuse);
    assert_eq!(
        done.result.map_err(|error| error.to_string()),
        Err("access ann already exists: `pi-mgr access revoke ann` first, or choose another name".to_owned())
    );
    assert!(fs::read_dir(dir.path()).expect("there").next().is_none());
    for name in ["../x", ".x"] {
        let done = pi_mgr(&["access", "create", name], 0, |request| panic!("{}", request.line));
        assert!(done.result.is_err_and(|error| error.to_string().contains("is no name")));
    }
}

#[test]
fn accesses_are_listed_and_revoked() {
    let list = json!([
        { "Name": "ann", "Role": "admin", "CreatedAt": "1970-01-01T00:00:00Z", "ExpiresAt": "1971-01-01T00:00:00Z" },
        { "Name": "old", "Role": "read-only", "CreatedAt": "1970-01-01T00:00:00Z", "ExpiresAt": "1970-01-01T00:30:00Z" },
    ]);
    let ask = |args: &[&str], list: Value| {
        let done = pi_mgr(args, 3_600_000, move |request| match request.line.as_str() {
            "GET /racimo/access" => Some((200, list.to_string())),
            "DELETE /racimo/access/ann" => Some((204, String::new())),
            "GET /racimo/audit" => {
                assert_eq!(request.query["lines"], "2");
                Some((200, "a\tb\nc\td\n".to_owned()))
            }
            other => panic!("{other}"),
        });
        assert!(done.result.is_ok(), "{:?}", done.result);
        done.stdout
    };
    let table = ask(&["access", "ls"], list.clone());
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["NAME", "ROLE", "CREATED", "EXPIRES"]);
    assert!(words[1].starts_with(&["ann", "admin"]) && words[2].last() == Some(&"Expired"), "{table}");
    assert_eq!(ask(&["access", "ls", "-q"], list.clone()), "ann\nold\n");
    let json = ask(&["access", "ls", "--format", "json"], list.clone());
    assert!(json.lines().next().is_some_and(|line| line.contains(r#""Role":"admin""#)), "{json}");
    assert_eq!(ask(&["access", "revoke", "ann"], list.clone()), "ann\n");
    assert_eq!(ask(&["access", "log", "-n", "2"], list), "a\tb\nc\td\n");
}
