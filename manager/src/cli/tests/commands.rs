//! Commands that do more than one thing, and what happens when the world does not play along.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::super::client::Client;
use super::super::console::Console;
use super::super::error::CliError;
use super::super::target::Target;
use super::super::{completion, finish};
use super::fake::{Reply, Request, pi_mgr, pi_mgr_typing, with_client};

fn ok(body: Value) -> Reply {
    Some((200, body.to_string()))
}

fn refuse(status: u16, message: &str) -> Reply {
    Some((status, json!({"message": message}).to_string()))
}

/// Panics, with the request, when a test's manager is asked something unforeseen.
fn unforeseen(request: &Request) -> Reply {
    refuse(599, &format!("unforeseen: {} {} {}", request.line, request.query, request.body))
}

#[test]
fn events_that_the_manager_ends_are_a_failure() {
    let run = |args: &[&str], version: (u16, Value)| {
        let done = pi_mgr(args, 0, move |request| match request.line.as_str() {
            "GET /events" => Some((200, "{}\n".to_owned())),
            "GET /version" => Some((version.0, version.1.to_string())),
            line => panic!("unforeseen: {line}"),
        });
        done.result.map_err(|error| error.to_string())
    };
    let revoked = (403, json!({"message": "access ann was revoked"}));
    assert_eq!(run(&["events"], revoked.clone()), Err("access ann was revoked".to_owned()));
    assert!(run(&["events"], (200, json!({}))).is_err_and(|why| why.starts_with("the manager ended the stream")));
    assert_eq!(run(&["events", "--until", "1s"], revoked), Ok(()));
}

/// The manager of before, which stopped, or the connection, which broke: it is asked again, and says what it can.
#[test]
fn events_that_break_off_before_their_time_are_a_failure() {
    use std::io::{Read, Write};
    let run = |end: &'static str, later: &'static str| {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        std::thread::spawn(move || {
            let begun = format!("200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{{}}\n\r\n{end}");
            for answer in [&*begun, later] {
                let (mut stream, _) = listener.accept().expect("a client");
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(format!("HTTP/1.1 {answer}").as_bytes());
            }
        });
        let client = Client::new(Target::Unix(path));
        with_client(&["events", "--until", "2100-01-01T00:00:00Z"], 0, client).result.map_err(|e| e.to_string())
    };
    let there = "200 OK\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(run("0\r\n\r\n", there), Ok(()));
    let broken = run("", there).expect_err("it broke off");
    assert!(broken.starts_with("lost the connection to the manager at unix://"), "{broken}");
    // What it says is the better reason.
    let revoked = "403 Forbidden\r\nContent-Length: 36\r\n\r\n{\"message\":\"access ann was revoked\"}";
    assert_eq!(run("", revoked), Err("access ann was revoked".to_owned()));
}

#[test]
fn passphrases_that_do_not_come_are_named() {
    for (typed, want) in [("", "no passphrase came"), ("correct horse battery\n", "has the passphrase once")] {
        let folder = tempfile::tempdir().expect("a directory");
        let file = folder.path().join("b").display().to_string();
        let done = pi_mgr_typing(typed, &["backup", "--encrypt", &file], 0, |request| panic!("{}", request.line));
        let why = done.result.expect_err("refused").to_string();
        assert!(why.contains(want) && why.contains("--passphrase-file"), "{why}");
    }
}

#[test]
fn create_pins_the_digest_and_the_platforms() {
    let outcome =
        pi_mgr(&["service", "create", "-d", "--name", "web", "r:5000/web"], 0, |request| match request.line.as_str() {
            "GET /distribution/r:5000/web:latest/json" => ok(json!({
                "Descriptor": {"digest": "sha256:ab"},
                "Platforms": [{"architecture": "arm", "os": "linux", "variant": "v7"},
                              {"architecture": "arm", "os": "linux", "variant": "v6"},
                              {"architecture": "arm64", "os": "linux"}]})),
            "POST /services/create" => {
                let task = &request.body["TaskTemplate"];
                assert_eq!(task["ContainerSpec"]["Image"], "r:5000/web:latest@sha256:ab");
                let want = json!([{"Architecture": "arm", "OS": "linux"}, {"Architecture": "arm64", "OS": "linux"}]);
                assert_eq!(task["Placement"]["Platforms"], want);
                ok(json!({"ID": "id1"}))
            }
            _ => unforeseen(&request),
        });
    outcome.result.expect("a service");
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("id1\n", ""));
}

#[test]
fn create_warns_when_the_registry_does_not_answer() {
    let outcome = pi_mgr(&["service", "create", "-d", "web"], 0, |request| match request.line.as_str() {
        "GET /distribution/web:latest/json" => refuse(500, "registry unreachable"),
        "POST /services/create" => {
            assert_eq!(request.body["TaskTemplate"]["ContainerSpec"]["Image"], "web:latest");
            ok(json!({"ID": "id1", "Warning": "low disk"}))
        }
        _ => unforeseen(&request),
    });
    outcome.result.expect("a service");
    assert!(outcome.stderr.starts_with("image web:latest could not be accessed on a registry to record\nits digest."));
    assert!(outcome.stderr.ends_with("versions of the image.\n\nlow disk\n"));
}

#[test]
fn create_ends_with_the_managers_verdict() {
    let mut polls = 0;
    let outcome =
        pi_mgr(&["service", "create", "--no-resolve-image", "web"], 0, move |request| match request.line.as_str() {
            "POST /services/create" => ok(json!({"ID": "id1"})),
            "GET /services/id1" => {
                polls += 1;
                let state = if polls < 3 { "updating" } else { "paused" };
                ok(json!({"ID": "id1", "Spec": {"Mode": {"Replicated": {"Replicas": 1}}},
                          "UpdateStatus": {"State": state, "Message": "task t1 failed"}}))
            }
            "GET /tasks" => {
                assert_eq!(request.query["filters"], json!({"_up-to-date": {"true": true}, "service": {"id1": true}}));
                ok(json!([{"ID": "t1", "Slot": 1, "DesiredState": "running",
                           "Status": {"State": "pending", "Err": "no suitable node"}}]))
            }
            "GET /nodes" => ok(json!([])),
            _ => unforeseen(&request),
        });
    let error = outcome.result.expect_err("a paused update");
    assert_eq!(error.to_string(), "service update paused: task t1 failed");
    assert_eq!(outcome.stdout, "id1\noverall progress: 0 out of 1 tasks\n1/1: no suitable node\n");
}

#[test]
fn rm_waits_until_the_tasks_are_gone() {
    let mut polls = 0;
    let outcome = pi_mgr(&["service", "rm", "web", "nope"], 0, move |request| match request.line.as_str() {
        "GET /services/web" => ok(json!({"ID": "id1", "Spec": {"Name": "web"}})),
        "GET /services/nope" => refuse(404, "service nope not found"),
        "DELETE /services/id1" => Some((200, String::new())),
        "GET /tasks" => {
            assert_eq!(request.query["filters"], json!({"name": {"web": true}}));
            polls += 1;
            let state = if polls < 3 { "running" } else { "shutdown" };
            ok(json!([{"ServiceID": "id1", "Status": {"State": state}},
                      {"ServiceID": "another", "Status": {"State": "running"}}]))
        }
        _ => unforeseen(&request),
    });
    assert_eq!(outcome.result.expect_err("one is unknown").to_string(), "service nope not found");
    assert_eq!(outcome.stdout, "web\nweb: waiting for 1 task to stop\nweb: all tasks are gone\n");
}

#[test]
fn init_prints_the_line_for_a_board() {
    let outcome = pi_mgr(&["init", "--advertise-addr", "10.0.0.1", "--task-history-limit", "3"], 0, |request| {
        match request.line.as_str() {
            "POST /swarm/init" => {
                assert_eq!(request.body["AdvertiseAddr"], "10.0.0.1");
                assert_eq!(request.body["Spec"]["Orchestration"], json!({"TaskHistoryRetentionLimit": 3}));
                Some((200, "\"n1\"".to_owned()))
            }
            "GET /swarm" => ok(json!({"JoinTokens": {"Worker": "SWMTKN-1-x"}})),
            "GET /nodes/n1" => ok(json!({"ManagerStatus": {"Addr": "10.0.0.1:2377"}})),
            "GET /info" => ok(json!({"Warnings": ["WARNING: boards are told"]})),
            _ => unforeseen(&request),
        }
    });
    outcome.result.expect("a cluster");
    assert!(outcome.stdout.contains("\n    pi-agent join --token SWMTKN-1-x 10.0.0.1:2377\n"), "{}", outcome.stdout);
    assert_eq!(outcome.stderr, "WARNING: boards are told\n");
}

#[test]
fn a_stalled_manager_is_left() {
    let outcome = pi_mgr(&["node", "ls"], 0, |_| None);
    let text = outcome.result.expect_err("no answer").to_string();
    assert!(text.starts_with("no answer from the manager at unix://") && text.contains("within 2 s"), "{text}");
}

#[test]
fn an_absent_manager_is_named() {
    let client = Client::new(Target::Unix("/nonexistent/s".into())).with_answer_time_max(Duration::from_secs(2));
    let text = with_client(&["info"], 0, client).result.expect_err("no socket").to_string();
    assert!(text.starts_with("cannot connect to the manager at unix:///nonexistent/s: "), "{text}");
    assert!(text.ends_with("Is `pi-mgr serve` running there?"), "{text}");
}

#[test]
fn strange_answers_are_errors() {
    for body in ["<html>", "{\"ID\":", "\u{0}"] {
        let outcome = pi_mgr(&["info"], 0, move |_| Some((200, body.to_owned())));
        let text = outcome.result.expect_err("no JSON").to_string();
        assert!(text.starts_with("unexpected answer from the manager to GET /info: "), "{text}");
    }
    // JSON of another shape reads as empty.
    pi_mgr(&["node", "ls"], 0, |_| Some((200, "[1, {\"ID\": []}]".to_owned()))).result.expect("a poor list");
}

struct ClosedPipe;

impl Write for ClosedPipe {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let mut console = Console::system();
    console.out = Box::new(ClosedPipe);
    console.err = Box::new(ClosedPipe);
    let result = completion(super::super::Shell::Bash, &mut console);
    let code = |result, console: &mut Console| format!("{:?}", finish(result, console));
    assert_eq!(code(result, &mut console), format!("{:?}", std::process::ExitCode::SUCCESS));
    let failure = Err(CliError::Refused("x".to_owned()));
    assert_eq!(code(failure, &mut console), format!("{:?}", std::process::ExitCode::FAILURE));
    let wrong = Err(CliError::Usage("x".to_owned()));
    assert_eq!(code(wrong, &mut console), format!("{:?}", std::process::ExitCode::from(2)));
}

/// What clap does not see ends as what it does.
#[test]
fn a_wrong_command_line_ends_with_2_and_all_else_with_1() {
    for (line, code, words) in [
        ("update", 2, "nothing to change"),
        ("join-token --toml manager", 2, "--toml is for boards"),
        ("events --since never", 2, "--since: \"never\" is not a time"),
        ("node ls --format {{", 2, "template: "),
        ("node ls --format {{.Bogus}}", 1, "no field .Bogus"),
        ("service create --no-healthcheck --health-cmd true i", 2, "conflicts with --health-*"),
        ("service create --mode global --replicas 2 i", 2, "can only be used with"),
        ("service create --log-opt a=b i", 2, "--log-opt needs --log-driver"),
        ("service create -e =x i", 2, "has no name"),
        ("service create --env-file /nonexistent i", 1, "cannot read /nonexistent"),
        ("service update --rollback --force web", 2, "may not be combined with --rollback"),
        ("service ps web", 1, "no such service: web"),
        ("node update --label-rm a n1", 1, "key a doesn't exist"),
        ("secret create s /nonexistent", 1, "cannot read secret content from /nonexistent"),
        ("network create --gateway 10.1.0.1 n", 2, "subnet"),
        ("stack deploy -c /nonexistent web", 1, "cannot read /nonexistent"),
        ("access create --host a/b:c ann", 2, "names no host"),
    ] {
        let words_of = line.split(' ').collect::<Vec<_>>();
        let outcome = pi_mgr(&words_of, 0, |request| match request.line.as_str() {
            "GET /nodes" => ok(json!([{"ID": "n1"}])),
            "GET /nodes/n1" => ok(json!({"ID": "n1", "Version": {"Index": 1}, "Spec": {"Labels": {}}})),
            "GET /services" => ok(json!([])),
            "GET /swarm" => ok(json!({"ID": "c"})),
            "GET /info" => ok(json!({"Swarm": {"NodeID": "n1"}})),
            _ => unforeseen(&request),
        });
        let error = outcome.result.expect_err(line);
        assert!(error.to_string().contains(words), "{line}: {error}");
        assert_eq!(error.exit_code(), code, "{line}: {error}");
    }
}

#[test]
fn secrets_and_configs_read_as_docker_s() {
    // Recordings 045, 048, 053 and 056.
    let secret = json!({"ID": "kwpny6pu8a4ykl1bous8bzspe", "Version": {"Index": 29},
        "CreatedAt": "2026-11-20T11:13:58.772413128Z", "UpdatedAt": "2026-11-20T11:13:58.772413128Z",
        "Spec": {"Name": "sec1", "Labels": {"a": "b"}}});
    let config = json!({"ID": "7bxxpbqfs46m2as0jkbqg9dt1", "Version": {"Index": 27},
        "CreatedAt": "2026-11-20T11:13:58.580160084Z", "UpdatedAt": "2026-11-20T11:13:58.580160084Z",
        "Spec": {"Name": "cfg1", "Labels": {"a": "b"}, "Data": "aGVsbG8K"}});
    let ask = move |request: Request| match request.line.as_str() {
        "GET /secrets" => ok(json!([secret])),
        "GET /configs" => ok(json!([config])),
        "GET /secrets/sec1" => ok(secret.clone()),
        "GET /configs/cfg1" => ok(config.clone()),
        "DELETE /secrets/sec1" => Some((204, String::new())),
        "DELETE /secrets/nosuch" => refuse(404, "secret nosuch not found"),
        _ => unforeseen(&request),
    };
    let now = 1_795_173_239_000;
    let check = |args: &[&str], want: &str| {
        let outcome = pi_mgr(args, now, ask.clone());
        assert_eq!((outcome.stdout.as_str(), outcome.result.is_ok()), (want, true), "{args:?}");
    };
    check(
        &["secret", "ls"],
        "ID                          NAME      DRIVER    CREATED                  UPDATED\n\
         kwpny6pu8a4ykl1bous8bzspe   sec1                Less than a second ago   Less than a second ago\n",
    );
    check(
        &["config", "ls"],
        "ID                          NAME      CREATED                  UPDATED\n\
         7bxxpbqfs46m2as0jkbqg9dt1   cfg1      Less than a second ago   Less than a second ago\n",
    );
    check(&["secret", "ls", "-q"], "kwpny6pu8a4ykl1bous8bzspe\n");
    check(&["config", "ls", "--format", "{{.Name}} {{.Labels}}"], "cfg1 a=b\n");
    check(
        &["secret", "inspect", "--pretty", "sec1"],
        "ID:              kwpny6pu8a4ykl1bous8bzspe\nName:              sec1\nLabels:\n - a=b\n\
         Driver:            \nCreated at:        2026-11-20 11:13:58.772413128 +0000 utc\n\
         Updated at:        2026-11-20 11:13:58.772413128 +0000 utc\n",
    );
    check(
        &["config", "inspect", "--pretty", "cfg1"],
        "ID:\t\t\t7bxxpbqfs46m2as0jkbqg9dt1\nName:\t\t\tcfg1\nLabels:\n - a=b\n\
         Created at:            \t2026-11-20 11:13:58.580160084 +0000 utc\n\
         Updated at:            \t2026-11-20 11:13:58.580160084 +0000 utc\nData:\nhello\n\n",
    );
    let outcome = pi_mgr(&["secret", "rm", "nosuch", "sec1"], 0, ask.clone());
    assert_eq!(outcome.stdout, "sec1\n");
    assert_eq!(outcome.result.expect_err("one is missing").to_string(), "secret nosuch not found");
}

#[test]
fn a_secret_is_made_of_a_file() {
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("file");
    std::fs::write(&file, "s3cret\n").expect("written");
    let file = file.to_str().expect("a path");
    let args = ["secret", "create", "-l", "a=b", "--template-driver", "golang", "sec1", file];
    let outcome = pi_mgr(&args, 0, |request| {
        assert_eq!(request.line, "POST /secrets/create");
        let want =
            json!({"Name": "sec1", "Labels": {"a": "b"}, "Data": "czNjcmV0Cg==", "Templating": {"Name": "golang"}});
        assert_eq!(request.body, want);
        Some((201, json!({"ID": "id1"}).to_string()))
    });
    assert_eq!((outcome.stdout.as_str(), outcome.result.is_ok()), ("id1\n", true));
    std::fs::write(file, "").expect("written");
    let outcome = pi_mgr(&["config", "create", "c", file], 0, |request| unforeseen(&request));
    let error = outcome.result.expect_err("it is empty").to_string();
    assert!(error.contains("config data must be larger than 0 and less than 1024000 bytes"), "{error}");
}

fn with_root(under_way: bool, root: &str) -> Value {
    json!({"Version": {"Index": 9}, "Spec": {"CAConfig": {"NodeCertExpiry": 5, "ForceRotate": 3}},
           "RootRotationInProgress": under_way,
           "TLSInfo": {"TrustRoot": root, "CertIssuerSubject": "s", "CertIssuerPublicKey": "k"}})
}

#[test]
fn the_root_is_shown_and_rotated() {
    let outcome = pi_mgr(&["ca"], 0, |request| match request.line.as_str() {
        "GET /swarm" => ok(with_root(false, "PEM\n")),
        _ => unforeseen(&request),
    });
    outcome.result.expect("a root");
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("PEM\n", ""));

    let outcome = pi_mgr(&["ca"], 0, |request| match request.line.as_str() {
        "GET /swarm" => ok(with_root(true, "PEM\n")),
        "GET /nodes" => ok(json!([{"Description": {"Hostname": "pi3"}, "Status": {"State": "ready"}}])),
        _ => unforeseen(&request),
    });
    outcome.result.expect("a root");
    assert_eq!(outcome.stdout, "PEM\n");
    assert!(outcome.stderr.contains("it waits for pi3. If that lasts"), "{}", outcome.stderr);

    let mut polls = 0;
    let outcome = pi_mgr(&["ca", "--rotate", "--cert-expiry", "2h"], 0, move |request| match request.line.as_str() {
        "GET /swarm" => {
            polls += 1;
            ok(with_root(polls == 2, if polls < 3 { "old" } else { "new\n" }))
        }
        "POST /swarm/update" => {
            assert_eq!(request.body["CAConfig"], json!({"NodeCertExpiry": 7_200_000_000_000_i64, "ForceRotate": 4}));
            assert_eq!(request.query["version"], "9");
            ok(Value::Null)
        }
        "GET /nodes" => ok(json!([
            {"Description": {"TLSInfo": with_root(false, "new\n")["TLSInfo"]}, "Status": {"State": "ready"}},
            {"Description": {"Hostname": "off"}, "Status": {"State": "down"}}])),
        _ => unforeseen(&request),
    });
    outcome.result.expect("a rotation");
    let want = "rotated TLS certificates: 1/1 nodes\nrotated CA  certificates: 0/1 nodes\n\
                down, renewed when they come back: off\nrotated CA  certificates: 1/1 nodes\nnew\n";
    assert_eq!(outcome.stdout, want);
    assert_eq!(outcome.stderr, "The join tokens are new, too: see `pi-mgr join-token worker`.\n");
}

#[test]
fn join_tokens_as_a_file_for_cards() {
    let run = |line: &[&str]| {
        pi_mgr(line, 0, |request| match request.line.as_str() {
            "GET /swarm" => ok(json!({"JoinTokens": {"Worker": "SWMTKN-1-a-b", "Manager": "m"}, "Spec": {}})),
            "POST /swarm/update" => ok(Value::Null),
            "GET /info" => ok(json!({"Swarm": {"NodeID": "n1"}})),
            "GET /nodes/n1" => ok(json!({"ManagerStatus": {"Addr": "192.168.1.10:2377"}})),
            _ => unforeseen(&request),
        })
    };
    let want = "\nmanager = \"192.168.1.10:2377\"\ntoken = \"SWMTKN-1-a-b\"\n";
    let outcome = run(&["join-token", "--toml", "worker"]);
    outcome.result.expect("a file");
    assert!(outcome.stdout.starts_with("# ") && outcome.stdout.contains(want), "{}", outcome.stdout);
    // Beside the file there is nothing on standard output: that goes to the card.
    let rotated = run(&["join-token", "--rotate", "--toml", "worker"]);
    assert_eq!(rotated.stdout, outcome.stdout);
    assert_eq!(rotated.stderr, "Successfully rotated worker join token.\n");
    assert!(matches!(run(&["join-token", "--toml", "manager"]).result, Err(CliError::Usage(_))));
}

#[test]
fn a_root_of_ones_own_is_read_from_files() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).display().to_string();
    for (name, text) in [("root", "ROOT".to_owned()), ("key", "KEY".to_owned()), ("large", "x".repeat(40_000))] {
        std::fs::write(path(name), text).expect("written");
    }
    let run = |root: &str, key: &str| {
        let line = ["ca", "--rotate", "-d", "--ca-cert", &path(root), "--ca-key", &path(key)];
        pi_mgr(&line, 0, |request| match request.line.as_str() {
            "GET /swarm" => ok(with_root(false, "old")),
            "POST /swarm/update" => {
                let want =
                    json!({"NodeCertExpiry": 5, "ForceRotate": 3, "SigningCACert": "ROOT", "SigningCAKey": "KEY"});
                assert_eq!(request.body["CAConfig"], want);
                ok(Value::Null)
            }
            _ => unforeseen(&request),
        })
    };
    let outcome = run("root", "key");
    outcome.result.expect("it is sent");
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", ""));
    for (root, key, words) in [("none", "key", "none: No such file"), ("root", "large", "large: it is too large")] {
        let error = run(root, key).result.expect_err(words).to_string();
        assert!(error.starts_with("cannot read ") && error.contains(words), "{error}");
    }
    for line in [
        &["ca", "--ca-cert", "f", "--ca-key", "f"][..],
        &["ca", "--rotate", "--ca-cert", "f"],
        &["ca", "--rotate", "--ca-key", "f"],
        &["ca", "--cert-expiry", "2h"],
        &["ca", "--quiet"],
        &["ca", "--detach"],
    ] {
        let words = std::iter::once("pi-mgr").chain(line.iter().copied());
        assert!(<super::super::Cli as clap::Parser>::try_parse_from(words).is_err(), "{line:?}");
    }
    let words = ["pi-mgr", "ca", "--rotate", "--external-ca", "protocol=cfssl,url=https://x"];
    let error = <super::super::Cli as clap::Parser>::try_parse_from(words).expect_err("refused").to_string();
    assert!(error.contains("the manager signs the certificates of its boards itself"), "{error}");
}

#[test]
fn nodes_say_how_they_are() {
    let node = |id: &str, health: Option<&str>| {
        let labels = health.map_or(json!({}), |health| {
            json!({
                "io.racimo.health": health, "io.racimo.temperature": "84", "io.racimo.disk-free": "1048576000",
                "io.racimo.model": "Raspberry Pi 4 Model B Rev 1.4", "io.racimo.serial": "cafe", "disk": "ssd",
            })
        });
        let engine = json!({"EngineVersion": "1", "Labels": labels});
        json!({"ID": id, "Description": {"Hostname": id, "Engine": engine}, "Status": {"State": "ready"},
               "Spec": {"Availability": "active"}})
    };
    let boards = json!([node("a", Some("hot, was throttled")), node("b", Some("unknown")), node("c", Some("ok"))]);
    let dockers = json!([node("a", None)]);
    let list = |args: &[&str], nodes: &Value| {
        let nodes = nodes.clone();
        let outcome = pi_mgr(&[&["node", "ls"], args].concat(), 0, move |request| match request.line.as_str() {
            "GET /nodes" => ok(nodes.clone()),
            "GET /info" => ok(json!({})),
            _ => unforeseen(&request),
        });
        outcome.result.expect("a list");
        outcome.stdout
    };
    let table = list(&[], &boards);
    let last = |line: &str| line.rsplit("   ").next().unwrap_or_default().trim().to_owned();
    assert_eq!(table.lines().map(last).collect::<Vec<_>>(), ["HEALTH", "hot, was throttled", "-", "ok"], "{table}");
    assert!(!list(&[], &dockers).contains("HEALTH"));
    assert_eq!(list(&["--format", "{{.Hostname}}={{.Health}}"], &boards), "a=hot, was throttled\nb=-\nc=ok\n");

    let page = |node: Value| {
        let outcome = pi_mgr(&["node", "inspect", "--pretty", "a"], 0, move |_| ok(node.clone()));
        outcome.result.expect("a node");
        outcome.stdout
    };
    let text = page(node("a", Some("hot")));
    for line in [
        "Board:",
        " Health:               hot",
        " Model:                Raspberry Pi 4 Model B Rev 1.4",
        " Temperature:          84 °C",
        " Disk free:            1000MiB",
        "Engine Labels:",
        " - disk=ssd",
        " - io.racimo.serial=cafe",
    ] {
        assert!(text.lines().any(|found| found == line), "{line:?} is not in\n{text}");
    }
    assert!(!text.contains("io.racimo.model") && !page(node("a", None)).contains("Board:"), "{text}");
}
