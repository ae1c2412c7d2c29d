//! Handlers against the real store, without a network.

use proptest::prelude::*;
use racimo_common::id::IdSource;
use serde_json::{Value, json};

use super::testing::Lab;

const WEB: &str = r#"{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"busybox:latest"}},"Mode":{"Replicated":{"Replicas":3}}}"#;

fn message(value: &Value) -> &str {
    value["message"].as_str().unwrap_or_default()
}

#[track_caller]
fn check(answer: (u16, Value), status: u16, want: &str) {
    assert!(answer.0 == status && message(&answer.1).contains(want), "{answer:?} instead of {status} {want:?}");
}

fn ids(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|item| item["ID"].as_str().expect("an ID")).collect()
}

#[test]
fn without_a_cluster() {
    let lab = Lab::new();
    let not = "This node is not a swarm manager. Use \"docker swarm init\"";
    for path in [
        "/swarm",
        "/nodes",
        "/services",
        "/tasks",
        "/nodes/x",
        "/services/x",
        "/tasks/x",
        "/secrets",
        "/configs/x",
        "/swarm/unlockkey",
    ] {
        check(lab.get(path), 503, not);
    }
    check(lab.post("/services/create", WEB), 503, not);
    check(lab.post("/swarm/update?version=1", "{}"), 503, not);
    check(lab.post("/swarm/leave", ""), 503, "This node is not part of a swarm");
    check(lab.post("/swarm/join", "{}"), 501, "pi-agent join");
    assert_eq!(lab.get("/_ping"), (200, json!("OK")));
    let (status, info) = lab.get("/v1.47/info");
    assert_eq!((status, &info["Swarm"]["LocalNodeState"]), (200, &json!("inactive")));
    for (path, want) in [("/containers/json", json!([])), ("/images/json", json!([])), ("/plugins", json!([]))] {
        assert_eq!(lab.get(path), (200, want));
    }
    assert_eq!(lab.get("/volumes"), (200, json!({ "Volumes": [], "Warnings": null })));
    check(lab.get("/containers/x/json"), 404, "No such container: x");
    check(lab.get("/networks/x"), 404, "network x not found");
    check(lab.get("/nosuch"), 404, "page not found");
}

#[test]
fn a_cluster() {
    let lab = Lab::active();
    check(lab.post("/swarm/init", "{}"), 503, "already part of a swarm");
    check(lab.post("/swarm/join", "{}"), 503, "already part of a swarm");
    check(lab.post("/swarm/leave", ""), 503, "Removing the last manager erases");
    check(lab.post("/swarm/unlock", "{}"), 409, "not locked");
    let (_, before) = lab.get("/swarm");
    let worker = before["JoinTokens"]["Worker"].as_str().expect("a token");
    let token = racimo_common::token::JoinToken::parse(worker).expect("a token");
    assert_eq!(Some(*token.root_digest()), super::convert::tls::root_digest(super::testing::ROOT));
    let version = &before["Version"]["Index"];
    // What was read can be sent back.
    let spec = before["Spec"].to_string();
    assert_eq!(lab.post(&format!("/swarm/update?version={version}&rotateWorkerToken=true"), &spec).0, 200);
    let (_, after) = lab.get("/swarm");
    assert_ne!(after["JoinTokens"]["Worker"], before["JoinTokens"]["Worker"]);
    assert_eq!(after["JoinTokens"]["Manager"], before["JoinTokens"]["Manager"]);
    assert_eq!(after["Spec"], before["Spec"]);
    check(lab.post(&format!("/swarm/update?version={version}"), &spec), 500, "update out of sequence");
    check(lab.post("/swarm/update", &spec), 400, "invalid swarm version ''");
    assert_eq!(lab.post("/swarm/leave?force=1", "").0, 200);
    check(lab.post("/swarm/leave", ""), 503, "not part of a swarm");
}

#[track_caller]
fn check_init(body: &str, want: &str) {
    check(Lab::new().post("/swarm/init", body), 400, want);
}

#[test]
fn init_options() {
    check_init(r#"{"AutoLockManagers":true}"#, "AutoLockManagers is not supported yet");
    check_init(r#"{"ForceNewCluster":true}"#, "ForceNewCluster is not supported yet");
    check_init(r#"{"DefaultAddrPool":["10.0.0.0/8"]}"#, "DefaultAddrPool is not supported yet");
    check_init(
        r#"{"Spec":{"EncryptionConfig":{"AutoLockManagers":true}}}"#,
        "Spec.EncryptionConfig.AutoLockManagers is not",
    );
    check_init(
        r#"{"Spec":{"CAConfig":{"ExternalCAs":[{"URL":"x"}]}}}"#,
        "Spec.CAConfig.ExternalCAs is not supported yet",
    );
    check_init(r#"{"Spec":{"CAConfig":{"NodeCertExpiry":1}}}"#, "minimum certificate expiry");
    check_init(r#"{"Spec":{"Dispatcher":{"HeartbeatPeriod":1}}}"#, "heartbeat period");
    check_init(r#"{"Spec":{"Raft":{"SnapshotInterval":5}}}"#, "Spec.Raft.SnapshotInterval is not supported yet");
    check_init(r#"{"Availability":"x"}"#, "invalid Availability");
    check_init("{bad", "invalid character 'b'");
}

#[test]
fn nodes() {
    let lab = Lab::active();
    let (board, twin) = (lab.join(1, "pi1"), lab.join(2, "pi2"));
    let (_, list) = lab.get("/nodes");
    assert_eq!(list.as_array().expect("list").len(), 3);
    let (_, node) = lab.get("/nodes/pi1");
    assert_eq!(node["ID"], json!(board.to_string()));
    assert_eq!(node["Status"], json!({ "State": "ready", "Addr": "10.0.0.9" }));
    assert_eq!(node["Spec"], json!({ "Labels": {}, "Role": "worker", "Availability": "active" }));
    assert_eq!(node.get("ManagerStatus"), None);
    let (_, own) = lab.get("/nodes/node0");
    assert_eq!(own["ManagerStatus"], json!({ "Leader": true, "Reachability": "reachable", "Addr": "127.0.0.1:2377" }));
    check(lab.get("/nodes/nosuchnode"), 404, "node nosuchnode not found");

    let filtered = |filters: &str| {
        let (status, list) = lab.get(&format!("/nodes?filters={filters}"));
        assert_eq!(status, 200, "{filters}: {list}");
        list.as_array().expect("list").len()
    };
    assert_eq!(filtered(r#"{"role":{"worker":true}}"#), 2);
    assert_eq!(filtered(r#"{"role":["manager"]}"#), 1);
    assert_eq!(filtered(r#"{"name":["pi"]}"#), 2);
    assert_eq!(filtered(r#"{"membership":["accepted"]}"#), 3);
    assert_eq!(filtered(r#"{"membership":["pending"]}"#), 0);
    assert_eq!(filtered(&format!(r#"{{"id":["{}"]}}"#, &board.to_string()[..8])), 1);
    check(lab.get(r#"/nodes?filters={"foo":["x"]}"#), 400, "Invalid filter 'foo'");
    check(lab.get(r#"/nodes?filters={"role":["x"]}"#), 400, "Invalid filter 'role=x'");

    let update = |version: &Value, body: &str| lab.post(&format!("/nodes/pi1/update?version={version}"), body);
    let version = &node["Version"]["Index"];
    let drain = r#"{"Labels":{"zone":"a"},"Role":"worker","Availability":"drain"}"#;
    assert_eq!(update(version, drain), (200, Value::Null));
    check(update(version, drain), 500, "rpc error: code = Unknown desc = update out of sequence");
    let (_, node) = lab.get("/nodes/pi1");
    assert_eq!(node["Spec"]["Availability"], json!("drain"));
    assert_eq!(filtered(r#"{"node.label":["zone=a"]}"#), 1);
    let version = &node["Version"]["Index"];
    check(update(version, r#"{"Role":"manager","Availability":"active"}"#), 400, "promoting a node is not supported");
    check(update(version, r#"{"Role":"worker","Availability":"x"}"#), 400, "invalid Availability");
    check(update(version, r#"{"Role":"worker","Availability":"active","X":1}"#), 400, "X is not supported yet");
    let demote = r#"{"Role":"worker","Availability":"active"}"#;
    let own_version = &own["Version"]["Index"];
    check(
        lab.post(&format!("/nodes/node0/update?version={own_version}"), demote),
        400,
        "attempting to demote the last manager",
    );

    check(lab.ask("DELETE", "/nodes/node0", ""), 400, "It must be demoted to worker before removal");
    check(lab.ask("DELETE", "/nodes/pi1", ""), 400, &format!("FailedPrecondition desc = node {board} is not down"));
    assert_eq!(lab.ask("DELETE", "/nodes/pi1?force=1", ""), (200, Value::Null));
    check(lab.get(&format!("/nodes/{board}")), 404, "not found");
    assert_eq!(lab.get(&format!("/nodes/{twin}")).0, 200);
}

#[test]
fn ambiguous_names() {
    let lab = Lab::active();
    let boards = [lab.join(1, "same"), lab.join(2, "same")];
    check(lab.get("/nodes/same"), 400, "node same is ambiguous (2 matches found)");
    for board in boards {
        assert_eq!(lab.get(&format!("/nodes/{board}")).0, 200);
    }
    for number in 0..40 {
        let body = WEB.replace("\"web\"", &format!("\"web{number}\""));
        assert_eq!(lab.post("/services/create", &body).0, 201);
    }
    // 40 ids and 36 first characters: one is taken twice.
    let answers: Vec<_> =
        "0123456789abcdefghijklmnopqrstuvwxyz".chars().map(|c| lab.get(&format!("/services/{c}"))).collect();
    assert!(answers.iter().any(|(status, value)| *status == 400 && message(value).contains("is ambiguous")));
}

#[test]
fn services() {
    let lab = Lab::active();
    let (status, created) = lab.post("/services/create", WEB);
    assert_eq!(status, 201);
    let id = created["ID"].as_str().expect("id").to_owned();
    check(
        lab.post("/services/create", WEB),
        409,
        "AlreadyExists desc = name conflicts with an existing object: service web already exists",
    );
    let (_, service) = lab.get("/services/web");
    assert_eq!(service["ID"], json!(id));
    assert_eq!(lab.get(&format!("/services/{}", &id[..10])).1, service);
    check(lab.get("/services/nosuch"), 404, "service nosuch not found");
    assert_eq!(service["Spec"]["RollbackConfig"], Value::Null);
    let (_, full) = lab.get("/services/web?insertDefaults=true");
    assert_eq!(full["Spec"]["RollbackConfig"]["Order"], json!("stop-first"));
    assert_eq!(full["Spec"]["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"], json!(10_000_000_000_u64));
    assert_eq!(
        full["Spec"]["TaskTemplate"]["RestartPolicy"],
        json!({"Condition":"any","Delay":5_000_000_000_u64,"MaxAttempts":0})
    );

    let (_, list) = lab.get("/services?status=true");
    assert_eq!(list[0]["ServiceStatus"], json!({"RunningTasks":0,"DesiredTasks":3,"CompletedTasks":0}));
    lab.run_tasks(&mut IdSource::seeded(3));
    let (_, list) = lab.get("/services?status=true");
    assert_eq!(list[0]["ServiceStatus"], json!({"RunningTasks":3,"DesiredTasks":3,"CompletedTasks":0}));
    let count = |filters: &str| lab.get(&format!("/services?filters={filters}")).1.as_array().expect("list").len();
    for (filters, want) in [
        (r#"{"name":["we"]}"#, 1),
        (r#"{"name":["eb"]}"#, 0),
        (r#"{"mode":["replicated"]}"#, 1),
        (r#"{"mode":["global"]}"#, 0),
        (r#"{"label":["x"]}"#, 0),
        (r#"{"runtime":["container"]}"#, 1),
    ] {
        assert_eq!(count(filters), want, "{filters}");
    }
    check(lab.get(r#"/services?filters={"mode":["x"]}"#), 400, "Invalid filter");

    // docker-py writes modes in lower case; Docker names what its client did not.
    let (_, unnamed) =
        lab.post("/services/create", r#"{"TaskTemplate":{"ContainerSpec":{"Image":"busybox"}},"Mode":{"global":{}}}"#);
    let (_, unnamed) = lab.get(&format!("/services/{}", unnamed["ID"].as_str().expect("id")));
    assert_eq!(unnamed["Spec"]["Mode"], json!({"Global":{}}));
    assert!(unnamed["Spec"]["Name"].as_str().is_some_and(|name| name.contains('_')), "{unnamed}");

    let version = service["Version"]["Index"].clone();
    let scale = WEB.replace('3', "5");
    let update = |query: &str, body: &str| lab.post(&format!("/services/web/update?{query}"), body);
    check(update("", "{}"), 400, r#"invalid service version '': strconv.ParseUint: parsing "": invalid syntax"#);
    check(update("version=1", &scale), 500, "rpc error: code = Unknown desc = update out of sequence");
    check(update(&format!("version={version}&rollback=previous"), &scale), 400, "does not have a previous spec");
    assert_eq!(update(&format!("version={version}&registryAuthFrom=spec"), &scale), (200, json!({"Warnings":null})));
    let (_, service) = lab.get("/services/web");
    assert_eq!(service["Spec"]["Mode"], json!({"Replicated":{"Replicas":5}}));
    assert_eq!(service["PreviousSpec"]["Mode"], json!({"Replicated":{"Replicas":3}}));
    let version = service["Version"]["Index"].clone();
    check(update(&format!("version={version}&rollback=previous"), &scale), 501, "rollback is not supported yet");
    let renamed = scale.replace("\"web\"", "\"web2\"");
    check(
        update(&format!("version={version}"), &renamed),
        501,
        "Unimplemented desc = renaming services is not supported",
    );
    let global = WEB.replace(r#""Replicated":{"Replicas":3}"#, r#""Global":{}"#);
    check(update(&format!("version={version}"), &global), 501, "service mode change is not allowed");
    check(lab.get("/services/web/logs"), 501, "logs");
    assert_eq!(lab.ask("DELETE", "/services/web", ""), (200, Value::Null));
    check(lab.ask("DELETE", "/services/web", ""), 404, "service web not found");
}

#[test]
fn tasks() {
    let lab = Lab::active();
    lab.post("/services/create", &WEB.replace("\"TaskTemplate\"", r#""Labels":{"stack":"s"},"TaskTemplate""#));
    lab.run_tasks(&mut IdSource::seeded(3));
    let count = |filters: &str| {
        let (status, list) = lab.get(&format!("/tasks?filters={filters}"));
        assert_eq!(status, 200, "{filters}: {list}");
        list.as_array().expect("list").len()
    };
    assert_eq!(count(r#"{"service":{"web":true},"_up-to-date":{"true":true}}"#), 3);
    assert_eq!(count(r#"{"_up-to-date":["false"]}"#), 0);
    assert_eq!(count(r#"{"node":["node0"],"desired-state":["running"]}"#), 3);
    assert_eq!(count(r#"{"desired-state":["shutdown","ready"]}"#), 0);
    assert_eq!(count(r#"{"name":["web.2"]}"#), 1);
    assert_eq!(count(r#"{"label":["stack=s"]}"#), 3);
    assert_eq!(count(r#"{"label":["stack=t"]}"#), 0);
    check(lab.get(r#"/tasks?filters={"service":["nosuch"]}"#), 404, "service nosuch not found");
    check(lab.get(r#"/tasks?filters={"node":["nosuch"]}"#), 404, "node nosuch not found");
    check(lab.get(r#"/tasks?filters={"desired-state":["x"]}"#), 400, "Invalid filter");
    // Ids of objects that are gone match nothing.
    assert_eq!(count(r#"{"service":["0000000000000000000000001"]}"#), 0);
    let (_, list) = lab.get("/tasks");
    let id = ids(&list)[0].to_owned();
    let (_, task) = lab.get(&format!("/tasks/{id}"));
    assert_eq!(task["Status"]["State"], json!("running"));
    assert_eq!(task["Status"]["ContainerStatus"], json!({"ContainerID":format!("c-{id}"),"PID":7,"ExitCode":0}));
    assert_eq!(task["DesiredState"], json!("running"));
    check(lab.get("/tasks/nosuch"), 404, "task nosuch not found");
    // A new spec makes all of them outdated.
    let (_, service) = lab.get("/services/web");
    let mut spec = service["Spec"].clone();
    spec["TaskTemplate"]["ForceUpdate"] = json!(1);
    let version = &service["Version"]["Index"];
    assert_eq!(lab.post(&format!("/services/web/update?version={version}"), &spec.to_string()).0, 200);
    assert_eq!(count(r#"{"service":["web"],"_up-to-date":["true"]}"#), 0);
}

#[test]
fn registries_and_their_credentials() {
    let lab = Lab::active();
    check(lab.get("/distribution/UPPER%20CASE/json"), 400, "repository name (library/UPPER CASE) must be lowercase");
    // Nobody listens there.
    check(lab.get("/distribution/127.0.0.1:1/a/json"), 500, "cannot reach registry 127.0.0.1:1");
    let create = |auth: &str| lab.ask_with("POST", "/services/create", WEB, Some(auth));
    // {"username":"u","password":"p"}
    check(create("eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InAifQ=="), 400, "--with-registry-auth) is not supported yet");
    check(create("?"), 400, "X-Registry-Auth is not base64url");
    // {}, from a client that is not logged in.
    assert_eq!(create("e30=").0, 201);
}

#[test]
fn networks() {
    let lab = Lab::active();
    let (_, list) = lab.get("/networks");
    assert_eq!(list.as_array().expect("list").len(), 2);
    let (_, host) = lab.get("/networks/host?scope=swarm");
    let id = host["Id"].as_str().expect("id");
    assert_eq!(lab.get(&format!("/networks/{id}")).1, host);
    let on =
        |target: &str| WEB.replace("}},\"Mode\"", &format!("}},\"Networks\":[{{\"Target\":\"{target}\"}}]}},\"Mode\""));
    assert_eq!(lab.post("/services/create", &on(id)).0, 201, "{}", on(id));
    let (_, service) = lab.get("/services/web");
    assert_eq!(service["Spec"]["TaskTemplate"]["Networks"], json!([{ "Target": id }]));
    check(lab.post("/services/create", &on("ovl1")), 404, "network ovl1 not found");
}

#[test]
fn events() {
    let lab = Lab::active();
    let (view, feed) = lab.store.watch();
    lab.post("/services/create", WEB);
    let (_, service) = lab.get("/services/web");
    let mut spec = service["Spec"].clone();
    spec["Mode"]["Replicated"]["Replicas"] = json!(4);
    lab.post(&format!("/services/web/update?version={}", service["Version"]["Index"]), &spec.to_string());
    let (_, node) = lab.get("/nodes/node0");
    let update = format!("/nodes/node0/update?version={}", node["Version"]["Index"]);
    lab.post(&update, r#"{"Role":"manager","Availability":"drain"}"#);
    let own = node["ID"].as_str().expect("id").parse().expect("id");
    lab.see_node(own, false);
    lab.ask("DELETE", "/services/web", "");
    let follow = async {
        let now = lab.context.now();
        futures_lite::FutureExt::or(lab.context.hub.follow(view, feed, || now), async {
            smol::Timer::after(std::time::Duration::from_millis(200)).await;
        })
        .await;
    };
    smol::block_on(follow);
    let lines = |query: &str| -> Vec<String> {
        let kept = lab.context.hub.subscribe().0;
        let filters = super::filter::Filters::parse(query, super::event::FILTERS).expect("filters");
        kept.iter()
            .filter(|m| super::event::matches(&filters, m))
            .map(|m| format!("{} {} {:?}", m.kind.name(), m.action, m.attributes))
            .collect()
    };
    assert_eq!(
        lines(""),
        [
            r#"service create {"name": "web"}"#,
            r#"service update {"name": "web", "replicas.new": "4", "replicas.old": "3"}"#,
            // Two changes of one node that were read at once: the view is the later one's.
            r#"node update {"availability.new": "drain", "availability.old": "active", "name": "node0", "state.new": "unknown", "state.old": "ready"}"#,
            r#"service remove {"name": "web"}"#,
        ]
    );
    assert_eq!(lines(r#"{"type":["node"]}"#).len(), 1);
    assert_eq!(lines(r#"{"event":["update"],"scope":["swarm"]}"#).len(), 2);
    assert_eq!(lines(r#"{"service":["web"]}"#).len(), 3);
    assert_eq!(lines(r#"{"container":["x"]}"#).len(), 0);
    assert_eq!(lines(r#"{"scope":["local"]}"#).len(), 0);
    check(lab.get(r#"/events?filters={"foo":["x"]}"#), 400, "Invalid filter 'foo'");
    check(lab.get("/events?since=x"), 400, "invalid since");
    // Past events only.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let until = lab.context.now().nanos() / 1_000_000_000;
    let (status, text) = lab.get(&format!("/events?since=1&until={until}"));
    let text = text.as_str().expect("lines");
    assert_eq!((status, text.lines().count()), (200, 4));
    let first: Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    assert_eq!(
        (&first["Type"], &first["scope"], &first["Action"]),
        (&json!("service"), &json!("swarm"), &json!("create"))
    );
}

/// A body with one more field; the field's place and value.
fn with(path: &str, value: Value) -> String {
    let mut body: Value = serde_json::from_str(WEB).expect("JSON");
    let mut place = &mut body;
    for part in path.split('.') {
        place = &mut place[part];
    }
    *place = value;
    body.to_string()
}

#[track_caller]
fn check_option(lab: &Lab, path: &str, value: Value, want: Option<&str>) {
    let answer = lab.post("/services/create", &with(path, value.clone()));
    match want {
        None => {
            assert_eq!(answer.0, 201, "{path} = {value}: {}", answer.1);
            lab.ask("DELETE", "/services/web", "");
        }
        Some(want) => check(answer, 400, want),
    }
}

#[test]
fn what_is_not_implemented_is_refused() {
    let lab = Lab::active();
    let c = "TaskTemplate.ContainerSpec";
    let unsupported = [
        ("Healthcheck", json!({"Test":["CMD-SHELL","true"]}), ".Test"),
        ("Hosts", json!(["1.2.3.4 a"]), ""),
        ("DNSConfig", json!({"Nameservers":["1.1.1.1"]}), ".Nameservers"),
        ("Secrets", json!([{"SecretID":"x"}]), ""),
        ("Configs", json!([{"ConfigID":"x"}]), ""),
        ("Sysctls", json!({"a":"b"}), ".a"),
        ("CapabilityAdd", json!(["CAP_NET_ADMIN"]), ""),
        ("CapabilityDrop", json!(["CAP_MKNOD"]), ""),
        ("Ulimits", json!([{"Name":"nofile"}]), ""),
        ("Init", json!(true), ""),
        ("ReadOnly", json!(true), ""),
        ("TTY", json!(true), ""),
        ("OpenStdin", json!(true), ""),
        ("Groups", json!(["a"]), ""),
        ("Privileges", json!({"NoNewPrivileges":true}), ".NoNewPrivileges"),
        ("OomScoreAdj", json!(100), ""),
        ("Isolation", json!("hyperv"), ""),
        ("NoSuchField", json!(1), ""),
    ];
    for (field, value, tail) in unsupported {
        let path = format!("{c}.{field}");
        check_option(&lab, &path, value, Some(&format!("invalid argument: {path}{tail} is not supported yet")));
    }
    let elsewhere = [
        ("TaskTemplate.LogDriver", json!({"Name":"json-file"}), "TaskTemplate.LogDriver.Name is not supported"),
        ("TaskTemplate.Runtime", json!("plugin"), "TaskTemplate.Runtime is not supported"),
        (
            "TaskTemplate.Resources",
            json!({"Reservations":{"GenericResources":[{}]}}),
            "TaskTemplate.Resources.Reservations.GenericResources is",
        ),
        ("EndpointSpec", json!({"Mode":"dnsrr"}), "EndpointSpec.Mode is not supported"),
        ("EndpointSpec", json!({"Ports":[{"TargetPort":80}]}), "published ports are not supported yet"),
        ("Mode", json!({"ReplicatedJob":{}}), "Mode.ReplicatedJob is not supported"),
        ("Mode", json!({"GlobalJob":{}}), "Mode.GlobalJob is not supported"),
        ("Mode", json!({"Global":{},"Replicated":{}}), "must specify only one service mode"),
        ("Mode", json!({"Replicated":{"Replicas":-1}}), "Number of replicas must be non-negative"),
        ("UpdateConfig", json!({"Parallelism":2}), "UpdateConfig.Parallelism is not supported yet with another value"),
        ("UpdateConfig", json!({"Parallelism":1,"Order":"start-first"}), "UpdateConfig.Order is not supported"),
        ("UpdateConfig", json!({"MaxFailureRatio":0.2}), "UpdateConfig.MaxFailureRatio is not supported"),
        ("RollbackConfig", json!({"FailureAction":"continue"}), "RollbackConfig.FailureAction is not supported"),
        ("RollbackConfig", json!({"Delay":1}), "RollbackConfig.Delay is not supported"),
        ("Networks", json!([{"Target":"host"},{"Target":"none"}]), "more than one network"),
        ("Networks", json!([{"Target":"host","Aliases":["a"]}]), "Networks[0].Aliases is not supported yet"),
        ("TaskTemplate.RestartPolicy", json!({"Condition":"x"}), "invalid RestartCondition"),
        ("TaskTemplate.RestartPolicy", json!({"Delay":-1}), "restart-delay cannot be negative"),
        (
            "TaskTemplate.Resources",
            json!({"Limits":{"MemoryBytes":1024}}),
            "invalid memory value 1024: Must be at least 4MiB",
        ),
        ("TaskTemplate.Resources", json!({"Limits":{"NanoCPUs":1}}), "Must be at least 0.001"),
        ("TaskTemplate.Placement", json!({"Constraints":["a=b"]}), "Placement.Constraints"),
        ("TaskTemplate", json!({}), "mismatched Runtime and *Spec fields"),
        ("TaskTemplate", json!({"PluginSpec":{"Name":"x"}}), "TaskTemplate.PluginSpec.Name is not supported"),
        ("Name", json!("bad_name!"), "name must be valid as a DNS name component"),
        ("Name", json!(5), "Name must be a string"),
    ];
    for (path, value, want) in elsewhere {
        check_option(&lab, path, value, Some(want));
    }
    let mounts = [
        (
            json!({"Type":"bind","Source":"/a","Target":"/b","BindOptions":{"CreateMountpoint":true}}),
            "Mounts[0].BindOptions.CreateMountpoint is not",
        ),
        (
            json!({"Type":"volume","Target":"/b","VolumeOptions":{"DriverConfig":{"Name":"nfs"}}}),
            "VolumeOptions.DriverConfig.Name is not",
        ),
        (
            json!({"Type":"volume","Target":"/b","VolumeOptions":{"DriverConfig":{"Options":{"o":"x"}}}}),
            "DriverConfig.Options.o is not",
        ),
        (json!({"Type":"tmpfs","Target":"/b","Source":"/c"}), "Source must be empty"),
        (json!({"Type":"tmpfs","Target":"/b","TmpfsOptions":{"Mode":99999}}), "is no file mode"),
        (json!({"Type":"bind","Target":"/b"}), "Source is required"),
        (json!({"Type":"npipe","Target":"/b"}), "expected bind, volume or tmpfs"),
        (json!({"Target":"/b"}), "Type is required"),
        (json!({"Type":"bind","Source":"a","Target":"/b"}), "invalid bind mount source"),
    ];
    for (mount, want) in mounts {
        check_option(&lab, "TaskTemplate.ContainerSpec.Mounts", json!([mount]), Some(want));
    }
}

#[test]
fn what_says_nothing_new_is_taken() {
    let lab = Lab::active();
    let fine = [
        ("TaskTemplate.ContainerSpec.DNSConfig", json!({})),
        ("TaskTemplate.ContainerSpec.Init", json!(false)),
        ("TaskTemplate.ContainerSpec.Isolation", json!("default")),
        (
            "TaskTemplate.ContainerSpec.Privileges",
            json!({"CredentialSpec":null,"SELinuxContext":null,"NoNewPrivileges":false}),
        ),
        ("TaskTemplate.ForceUpdate", json!(0)),
        ("TaskTemplate.Runtime", json!("container")),
        ("TaskTemplate.LogDriver", Value::Null),
        ("EndpointSpec", json!({"Mode":"vip"})),
        ("EndpointSpec", json!({})),
        ("Networks", Value::Null),
        ("Mode", json!({"Replicated":{}})),
        ("Mode", json!({"Global":{}})),
        ("Mode", Value::Null),
        (
            "UpdateConfig",
            json!({"Parallelism":1,"FailureAction":"pause","Monitor":5_000_000_000_u64,"MaxFailureRatio":0,"Order":"stop-first"}),
        ),
        (
            "RollbackConfig",
            json!({"Parallelism":1,"FailureAction":"pause","Monitor":5_000_000_000_u64,"MaxFailureRatio":0,"Order":"stop-first"}),
        ),
    ];
    for (path, value) in fine {
        check_option(&lab, path, value, None);
    }
}

/// Every supported option comes back as it was given.
#[test]
fn a_full_specification_survives() {
    let lab = Lab::active();
    let spec = json!({
        "Name": "full",
        "Labels": {"l1": "v1"},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "127.0.0.1:5000/bb:1",
                "Labels": {"cl": "cv"},
                "Command": ["sh"],
                "Args": ["-c", "true"],
                "Hostname": "h",
                "Env": ["A=1", "B"],
                "Dir": "/tmp",
                "User": "root",
                "Mounts": [
                    {"Target": "/data", "Source": "vol1", "Type": "volume", "VolumeOptions": {"NoCopy": true, "Labels": {"a": "b"}}},
                    {"Target": "/anon", "Type": "volume"},
                    {"Target": "/t", "Type": "tmpfs", "TmpfsOptions": {"SizeBytes": 1_048_576, "Mode": 0o700}},
                    {"Target": "/hosttmp", "Source": "/tmp", "Type": "bind", "ReadOnly": true, "BindOptions": {"Propagation": "rslave", "NonRecursive": true}},
                ],
                "StopSignal": "SIGINT",
                "StopGracePeriod": 3_000_000_000_u64,
                "DNSConfig": {},
                "Isolation": "default",
                "Init": false,
            },
            "Resources": {
                "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 67_108_864, "Pids": 50},
                "Reservations": {"NanoCPUs": 100_000_000, "MemoryBytes": 16_777_216},
            },
            "RestartPolicy": {"Condition": "on-failure", "Delay": 2_000_000_000_u64, "MaxAttempts": 3, "Window": 10_000_000_000_u64},
            "Placement": {
                "Constraints": ["node.role==manager"],
                "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}],
                "MaxReplicas": 5,
                "Platforms": [{"Architecture": "amd64", "OS": "linux"}],
            },
            "Networks": [{"Target": "racimo0network0host000000"}],
            "ForceUpdate": 2,
            "Runtime": "container",
        },
        "Mode": {"Replicated": {"Replicas": 2}},
        "EndpointSpec": {"Mode": "vip"},
    });
    let (status, answer) = lab.post("/services/create", &spec.to_string());
    assert_eq!(status, 201, "{answer}");
    assert_eq!(lab.get("/services/full").1["Spec"], spec);
    // And can be sent back, with all defaults filled in, without changing a task.
    let (_, service) = lab.get("/services/full?insertDefaults=true");
    let update = format!("/services/full/update?version={}", service["Version"]["Index"]);
    assert_eq!(lab.post(&update, &service["Spec"].to_string()).0, 200);
    let view = lab.store.view();
    let service = view.state.services().next().expect("a service");
    assert!(service.revision < service.meta.version, "the tasks would be replaced");
}

fn any_json() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        "[A-Z][a-z]{0,6}",
        prop::sample::select(vec![
            "Name",
            "Labels",
            "TaskTemplate",
            "ContainerSpec",
            "Image",
            "Mounts",
            "Type",
            "Target",
            "Source",
            "Mode",
            "Replicated",
            "Replicas",
            "Global",
            "Resources",
            "Limits",
            "NanoCPUs",
            "MemoryBytes",
            "RestartPolicy",
            "Delay",
            "Placement",
            "Constraints",
            "Preferences",
            "Spread",
            "UpdateConfig",
            "Parallelism",
            "MaxFailureRatio",
            "Spec",
            "EndpointSpec",
            "Networks",
            "Env",
            "StopGracePeriod",
            "Role",
            "Availability",
            "Raft",
            "CAConfig",
            "Platforms",
        ])
        .prop_map(str::to_owned),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        Just(json!("busybox")),
        Just(json!("bind")),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn bodies_never_panic(body in any_json(), bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = super::convert::service_in::service(&body, String::new);
        let _ = super::convert::swarm::init(&body);
        let _ = super::fields::parse(&bytes);
        let _ = super::filter::Filters::parse(&body.to_string(), &["Name", "Labels"]);
    }

    /// A body that is nearly right, with one place replaced by anything.
    #[test]
    fn wrong_places_never_panic(place in 0usize..14, value in any_json()) {
        let places = [
            "Name", "Labels", "TaskTemplate", "TaskTemplate.ContainerSpec", "TaskTemplate.ContainerSpec.Image",
            "TaskTemplate.ContainerSpec.Mounts", "TaskTemplate.ContainerSpec.Env", "TaskTemplate.Resources",
            "TaskTemplate.RestartPolicy", "TaskTemplate.Placement", "TaskTemplate.Networks", "Mode", "UpdateConfig",
            "EndpointSpec",
        ];
        let body: Value = serde_json::from_str(&with(places[place], value)).expect("JSON");
        if let Ok(spec) = super::convert::service_in::service(&body, String::new) {
            // What is taken can be shown, and taken again as it is shown.
            let shown = super::convert::json(&super::convert::service_out::task(&spec.task, true));
            let mut again = body;
            again["TaskTemplate"] = shown;
            prop_assert!(super::convert::service_in::service(&again, String::new).is_ok());
        }
    }

    #[test]
    fn paths_never_panic(path in "(/[a-z{}*%0-9.]{0,9}){0,5}", query in "\\PC{0,30}") {
        let _ = super::route::find(&hyper::Method::GET, &path);
        let _ = super::request::query(&query);
    }
}
