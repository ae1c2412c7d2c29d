//! Mistakes and what is not implemented: each a clear error, and nothing changed.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::cluster::get;
use crate::lab::Lab;
use crate::lab::guard::Guard;
use crate::lab::http::{Target, request};
use crate::support::{all, busybox, create, docker, inspect};

#[test]
#[ignore = "needs root"]
fn mistakes_are_named_and_change_nothing() -> Result<()> {
    let lab = Guard::cluster(1)?;
    create(&lab, "taken", &["--replicas", "0"], &["true"])?;
    create(&lab, "each", &["--mode", "global", "--constraint", "node.id==none"], &["true"])?;
    let manager = lab.manager().process();
    let before = state(&lab)?;
    all(
        &lab,
        &[
            ("options that are not implemented", not_implemented),
            ("wrong values", wrong_values),
            ("commands", commands),
            ("bodies", bodies),
            ("updates", updates),
            ("queries", queries),
            ("broken requests", broken_requests),
        ],
    );
    assert_eq!(state(&lab)?, before, "nothing changed");
    assert_eq!(lab.manager().process(), manager, "the manager ran on");
    let log = std::fs::read_to_string(lab.manager().log())?;
    assert!(!log.contains("panicked"), "{log}");
    Ok(())
}

fn state(lab: &Lab) -> Result<[Value; 3]> {
    let mut swarm = get(lab, "/swarm")?;
    let mut nodes = get(lab, "/nodes")?;
    for node in nodes.as_array_mut().into_iter().flatten().chain([&mut swarm]) {
        // A board's own description may move.
        *node = json!([node["ID"], node["Spec"], node["JoinTokens"]]);
    }
    Ok([swarm, nodes, get(lab, "/services")?])
}

/// `docker service create` with an option must say this.
fn check_create(lab: &Lab, cases: &[(&str, &str)]) -> Result<()> {
    for (option, wanted) in cases {
        let (key, value) = option.split_once(' ').unwrap_or((option, ""));
        let option: Vec<&str> = [key, value].into_iter().filter(|word| !word.is_empty()).collect();
        let image = busybox(lab);
        let (code, said) =
            docker(lab, &[&["service", "create", "-d"], &option[..], &[&image, "true"]].concat())?.bad()?;
        assert!(said.contains(wanted), "{option:?}: expected {wanted:?}, not {said:?}");
        assert_eq!(code, 1, "{option:?}");
    }
    Ok(())
}

fn not_implemented(lab: &Lab) -> Result<()> {
    check_create(
        lab,
        &[
            ("--secret s", "secret not found: s"),
            ("--config c", "config not found: c"),
            ("--network ovl", "network ovl not found"),
            ("--network name=host,alias=x", "Networks[0]: the host network has no aliases"),
            ("--mount type=volume,source=data,target=/x,volume-driver=nfs", "VolumeOptions.DriverConfig.Name"),
            ("--mount type=npipe,source=a,target=/x", "Mounts[0].Type \"npipe\" is not supported"),
            ("--isolation hyperv", "ContainerSpec.Isolation is not supported yet"),
        ],
    )
}

fn wrong_values(lab: &Lab) -> Result<()> {
    check_create(
        lab,
        &[
            ("--name taken", "name conflicts with an existing object: service taken already exists"),
            ("--name TAKEN", "name conflicts with an existing object"),
            ("--name a.b", "name must be valid as a DNS name component"),
            ("--constraint x", "Placement.Constraints: constraint expected one operator from ==, !=: \"x\""),
            ("--constraint node.labels.a=b", "Placement.Constraints"),
            ("--placement-pref spread=foo", "Placement.Preferences: \"foo\""),
            ("--limit-memory 1M", "invalid memory value 1048576: Must be at least 4MiB"),
            ("--limit-cpu 0.0001", "invalid cpu value 0.0001"),
            ("--limit-pids -5", "pids limit cannot be negative"),
            ("--replicas 100000000", "are more than the 100000 a service may have"),
            ("--mount type=bind,source=rel,target=/x", "invalid bind mount source, must be an absolute path: \"rel\""),
            ("--mount type=bind,source=/etc,target=rel", "invalid mount target, must be an absolute path: \"rel\""),
            ("--mount type=volume,source=a/b,target=/x", "invalid volume name \"a/b\""),
            ("--mount type=volume,source=a,target=/x", "invalid volume name \"a\""),
            ("--stop-signal SIGFOO", "ContainerSpec.StopSignal: \"SIGFOO\" is not a signal"),
            ("--workdir rel", "ContainerSpec.Dir: the working directory \"rel\" must be an absolute path"),
            ("--health-interval 1us", "Interval in HealthConfig cannot be less than 1ms"),
            ("--health-retries -1", "Retries in HealthConfig cannot be negative"),
            ("--update-order sideways", "unrecognized update order sideways"),
            ("--update-failure-action panic", "unrecognized update failure action panic"),
            ("--update-max-failure-ratio 1.5", "update-maxfailureratio cannot be less than 0 or bigger than 1"),
            ("--update-delay -3s", "update-delay cannot be negative"),
            ("--rollback-failure-action rollback", "a rollback cannot be rolled back"),
            ("--rollback-order sideways", "unrecognized rollback order sideways"),
            ("--log-driver syslog", "log driver \"syslog\" is not supported"),
            ("--cap-add FLY", "invalid CapAdd: unknown capability: \"CAP_FLY\""),
            ("--cap-drop FLY", "invalid CapDrop: unknown capability: \"CAP_FLY\""),
            ("--sysctl vm.swappiness=3", "sysctl 'vm.swappiness' is not allowed"),
            ("--group a:b", "ContainerSpec.Groups: \"a:b\""),
            ("--oom-score-adj 2000", "range for oom score adj is [-1000, 1000]"),
            ("--env A={{.Nope}}", "there is no field .Nope here"),
            ("--hostname a..b", "ContainerSpec.Hostname: \"a..b\" is not a host name"),
        ],
    )?;
    for (options, wanted) in [
        (["--limit-memory=16M", "--reserve-memory=32M"], "the memory limit (16MiB) is below the reservation (32MiB)"),
        (["--limit-cpu=0.5", "--reserve-cpu=1"], "the CPU limit (0.5) is below the reservation (1)"),
        (["--network=host", "--network=none"], "network goes with no other network"),
        (["--restart-window=1s", "--restart-max-attempts=9999"], "with a window, at most 1000"),
        (["--mount=type=tmpfs,target=/x", "--mount=type=tmpfs,target=/x"], "duplicate mount point: /x"),
    ] {
        let image = busybox(lab);
        let (_, said) = docker(lab, &[&["service", "create", "-d"], &options[..], &[&image]].concat())?.bad()?;
        assert!(said.contains(wanted), "{options:?}: expected {wanted:?}, not {said:?}");
    }
    Ok(())
}

fn commands(lab: &Lab) -> Result<()> {
    for (line, wanted) in [
        ("service create -d NOT/VALID", "ContainerSpec: \"NOT/VALID\" is not a valid repository/tag"),
        ("service update -d taken --publish-add 80 --endpoint-mode dnsrr", "can't be used with dnsrr mode"),
        ("service update -d taken --update-order sideways", "unrecognized update order sideways"),
        ("service update -d taken --limit-memory 1M", "Must be at least 4MiB"),
        ("service update -d nosuch --replicas 3", "service nosuch not found"),
        ("service scale -d each=2", "scale can only be used with replicated"),
        ("service rm nosuch", "service nosuch not found"),
        ("service inspect nosuch", "no such service: nosuch"),
        ("service ps nosuch", "no such service: nosuch"),
        ("service ls --filter bogus=1", "Invalid filter 'bogus'"),
        ("service rollback taken", "does not have a previous spec"),
        ("service update -d taken --rollback --image busybox", "other flags may not be combined with --rollback"),
        ("service update -d each --replicas 3", "replicas can only be used with replicated mode"),
        ("node inspect nosuch", "node nosuch not found"),
        ("node rm nosuch", "node nosuch not found"),
        ("node rm board1", "is not down and can't be removed"),
        ("node ls --filter bogus=1", "Invalid filter 'bogus'"),
        ("node update --availability bogus board1", "expected active, pause or drain"),
        ("node promote board1", "promoting a node is not supported yet"),
        ("swarm init", "already part of a swarm"),
        ("swarm leave", "Removing the last manager erases all current state"),
        ("swarm unlock", "swarm is not locked"),
        ("swarm unlock-key", "no unlock key is set"),
        (
            "swarm update --external-ca protocol=cfssl,url=https://x",
            "external certificate authorities are not supported",
        ),
        ("swarm update --snapshot-interval 5", "Raft.SnapshotInterval is not supported yet"),
        ("swarm update --dispatcher-heartbeat 1ms", "the heartbeat period must be from 100ms to 60s"),
        ("swarm update --dispatcher-heartbeat 2m", "the heartbeat period must be from 100ms to 60s"),
        ("swarm update --cert-expiry 30m", "minimum certificate expiry time is"),
        ("secret create bad!name /etc/hostname", "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed"),
        ("config create bad!name /etc/hostname", "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed"),
        ("secret inspect nosuch", "secret nosuch not found"),
        ("config rm nosuch", "config nosuch not found"),
        ("network rm nosuch", "network nosuch not found"),
        ("run busybox", "create a service"),
        ("exec a b", "No such container"),
    ] {
        let (_, said) = docker(lab, &line.split(' ').collect::<Vec<_>>())?.bad()?;
        assert!(said.contains(wanted), "docker {line}: expected {wanted:?}, not {said:?}");
    }
    Ok(())
}

fn check_api(lab: &Lab, method: &str, path: &str, body: &[u8], status: u16, wanted: &str) -> Result<()> {
    let target = Target::Unix(lab.manager().socket());
    let answer = request(&target, method, path, "application/json", body)?;
    let what = format!("{method} {path} {}", String::from_utf8_lossy(body.get(..200).unwrap_or(body)));
    assert_eq!(answer.status, status, "{what}: {}", answer.text());
    let message = answer.json()?["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains(wanted), "{what}: expected {wanted:?}, not {message:?}");
    Ok(())
}

fn bodies(lab: &Lab) -> Result<()> {
    let service =
        |task: &str| format!(r#"{{"Name":"x","TaskTemplate":{{"ContainerSpec":{{"Image":"busybox"}},{task}}}}}"#);
    let container =
        |rest: &str| format!(r#"{{"Name":"x","TaskTemplate":{{"ContainerSpec":{{"Image":"busybox",{rest}}}}}}}"#);
    let cases: Vec<(String, &str)> = vec![
        ("{".into(), "unexpected EOF"),
        (String::new(), "EOF"),
        ("[]".into(), "the body must be an object, not a list"),
        ("\"x\"".into(), "the body must be an object, not a string"),
        ("{}".into(), "mismatched Runtime and *Spec fields"),
        ("[".repeat(100_000), "recursion limit exceeded"),
        ("\u{fffd}\u{0}".repeat(1000), "invalid JSON"),
        (container(r#""Bogus":1"#), "TaskTemplate.ContainerSpec.Bogus is not supported yet"),
        (container(r#""Args":"a""#), "TaskTemplate.ContainerSpec.Args must be a list, not a string"),
        (container(r#""Env":["=x"]"#), "ContainerSpec.Env"),
        (service(r#""RestartPolicy":{"Condition":"sometimes"}"#), "RestartCondition: \"sometimes\""),
        (service(r#""RestartPolicy":{"Delay":-1}"#), "restart-delay cannot be negative"),
        (service(r#""Resources":{"Limits":{"MemoryBytes":1e30}}"#), "Limits.MemoryBytes must be a whole number"),
        (container(r#""Healthcheck":{"Test":["true"]}"#), "unknown health check type \"true\""),
        (container(r#""Privileges":{"Seccomp":{"Mode":"custom"}}"#), "a seccomp profile of one's own is not supported"),
        (
            container(r#""Privileges":{"SELinuxContext":{"Disable":true}}"#),
            "SELinuxContext.Disable is not supported yet",
        ),
        (container(r#""Ulimits":[{"Name":"nofile","Soft":2,"Hard":1}]"#), "less than or equal to hard limit: 2 > 1"),
        (container(r#""Hosts":["db"]"#), "ContainerSpec.Hosts: \"db\""),
        (container(r#""DNSConfig":{"Nameservers":["x"]}"#), "ContainerSpec.DNSConfig: x is not an ip address"),
        (service(r#""LogDriver":{"Name":"syslog"}"#), "log driver \"syslog\" is not supported"),
        (service(r#""LogDriver":{"Name":"local","Options":{"tag":"x"}}"#), "log option \"tag\" is not supported"),
        (
            r#"{"Name":"x","TaskTemplate":{"ContainerSpec":{"Image":"b"}},"Mode":{"GlobalJob":{}},"UpdateConfig":{}}"#
                .into(),
            "Jobs may not have an update config",
        ),
        (
            r#"{"Name":"x","TaskTemplate":{"ContainerSpec":{"Image":"b"}},"RollbackConfig":{"MaxFailureRatio":2}}"#
                .into(),
            "rollback-maxfailureratio cannot be less than 0 or bigger than 1",
        ),
        (
            r#"{"Name":"x","TaskTemplate":{"ContainerSpec":{"Image":"b"}},"Mode":{"Replicated":{},"Global":{}}}"#
                .into(),
            "only one service mode",
        ),
        (
            r#"{"Name":"x","TaskTemplate":{"ContainerSpec":{"Image":"b"}},"Mode":{"Replicated":{"Replicas":-1}}}"#
                .into(),
            "Number of replicas must be non-negative",
        ),
    ];
    for (body, wanted) in cases {
        check_api(lab, "POST", "/services/create", body.as_bytes(), 400, wanted)?;
    }
    let mut stream = UnixStream::connect(lab.manager().socket())?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(stream, "POST /services/create HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", 3 << 20)?;
    let mut answer = [0; 1024];
    let length = stream.read(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("larger than"), "{answer}");
    Ok(())
}

fn updates(lab: &Lab) -> Result<()> {
    let service = inspect(lab, "taken")?;
    let (spec, version) = (service["Spec"].to_string(), service["Version"]["Index"].to_string());
    let renamed = spec.replace("\"taken\"", "\"other\"");
    let mode = spec.replace(r#"{"Replicated":{"Replicas":0}}"#, r#"{"Global":{}}"#);
    let current = format!("/services/taken/update?version={version}");
    for (path, body, status, wanted) in [
        ("/services/taken/update", &spec, 400, "invalid service version ''"),
        ("/services/taken/update?version=abc", &spec, 400, "invalid service version 'abc'"),
        ("/services/taken/update?version=1", &spec, 500, "update out of sequence"),
        ("/services/taken/update?version=99999999", &spec, 500, "update out of sequence"),
        ("/services/nosuch/update?version=1", &spec, 404, "service nosuch not found"),
        (&format!("{current}&rollback=previous"), &spec, 400, "does not have a previous spec"),
        (&format!("{current}&rollback=next"), &spec, 400, "unrecognized rollback option next"),
        (&current, &renamed, 501, "renaming services is not supported"),
        (&current, &mode, 501, "service mode change is not allowed"),
    ] {
        check_api(lab, "POST", path, body.as_bytes(), status, wanted)?;
    }
    let node = br#"{"Role":"worker","Availability":"active"}"#;
    check_api(lab, "POST", "/nodes/board1/update?version=1", node, 500, "update out of sequence")?;
    check_api(lab, "POST", "/nodes/board1/update", node, 400, "invalid node version ''")?;
    check_api(lab, "POST", "/swarm/update?version=1", b"{}", 500, "update out of sequence")
}

fn queries(lab: &Lab) -> Result<()> {
    for (path, status, wanted) in [
        ("/services?filters=xx", 400, "invalid filters"),
        ("/services?filters=%7B%22bogus%22:%5B%22g%22%5D%7D", 400, "Invalid filter 'bogus'"),
        ("/tasks?filters=%7B%22desired-state%22:%5B%22bogus%22%5D%7D", 400, "Invalid filter"),
        ("/services/nosuch", 404, "service nosuch not found"),
        ("/tasks/nosuch", 404, "task nosuch not found"),
        ("/v1.99/nodes", 400, "client version 1.99 is too new"),
        ("/v1.12/nodes", 400, "client version 1.12 is too old"),
        ("/nosuch", 404, "page not found"),
    ] {
        check_api(lab, "GET", path, b"", status, wanted)?;
    }
    // Traefik asks for the oldest version, scripts for none.
    for path in ["/v1.24/services", "/services", "/v1.44/nodes", "/v1.24/tasks"] {
        assert!(get(lab, path)?.is_array(), "{path}");
    }
    // docker-py's filters are lists, the CLI's are sets.
    for filter in ["%7B%22name%22:%5B%22taken%22%5D%7D", "%7B%22name%22:%7B%22taken%22:true%7D%7D"] {
        let found = get(lab, &format!("/services?filters={filter}"))?;
        assert_eq!(found.as_array().map(Vec::len), Some(1), "{filter}");
    }
    Ok(())
}

fn broken_requests(lab: &Lab) -> Result<()> {
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    for bytes in
        ["garbage\r\n\r\n", "POST /services/create HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", &long, "\0\0\0"]
    {
        let mut stream = UnixStream::connect(lab.manager().socket())?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        // It may hang up before it has read everything.
        let _ = stream.write_all(bytes.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    Ok(())
}
