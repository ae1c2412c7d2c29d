//! Handlers against the real store, without a network.

mod any;
mod options;
mod services;

use serde_json::{Value, json};

use super::testing::Lab;
use crate::limits::CREDENTIALS_BYTES_MAX;
use crate::vault::Owner;

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

#[test]
fn heartbeats_are_not_rarer_than_leases_allow() {
    let lab = Lab::active();
    let update = |ms: u64| {
        let (_, mut swarm) = lab.get("/swarm");
        swarm["Spec"]["Dispatcher"]["HeartbeatPeriod"] = json!(ms * 1_000_000);
        lab.post(&format!("/swarm/update?version={}", swarm["Version"]["Index"]), &swarm["Spec"].to_string())
    };
    assert_eq!(update(5000).0, 200);
    let leased = r#""Labels":{"io.racimo.on-partition":"stop","io.racimo.lease":"10s"},"TaskTemplate""#;
    let leased = WEB.replace("\"TaskTemplate\"", leased);
    check(lab.post("/services/create", &leased), 400, "shorter than 4 of the cluster's heartbeat periods (5s)");
    assert_eq!(update(2500).0, 200);
    assert_eq!(lab.post("/services/create", &leased).0, 201);
    check(update(2501), 400, "a heartbeat period of 2.501s is too long for service web");
    assert_eq!(update(2400).0, 200);
}

#[track_caller]
fn check_init(body: &str, want: &str) {
    check(Lab::new().post("/swarm/init", body), 400, want);
}

#[test]
fn init_options() {
    check_init(r#"{"ForceNewCluster":true}"#, "ForceNewCluster is not supported yet");
    check_init(r#"{"DefaultAddrPool":["10.0.0.0"]}"#, "invalid base pool 10.0.0.0: invalid subnet");
    check_init(r#"{"DefaultAddrPool":["127.0.0.0/8"]}"#, "reserved for special uses");
    check_init(r#"{"DefaultAddrPool":["10.0.0.0/8","10.9.0.0/16"]}"#, "invalid base pool 10.9.0.0/16: it overlaps");
    check_init(
        r#"{"DefaultAddrPool":["10.0.0.0/16"],"SubnetSize":15}"#,
        "invalid CIDR: \"10.0.0.0/16\". Subnet size is too small for pool: 15",
    );
    check_init(r#"{"SubnetSize":7}"#, "Subnet size is too small for pool: 7");
    check_init(r#"{"SubnetSize":30}"#, "subnet size is out of range: 30");
    for port in ["1023", "49152", "70000"] {
        let body = format!("{{\"DataPathPort\":{port}}}");
        check_init(&body, "Datapath port number is not in valid range (1024-49151)");
    }
    check_init(r#"{"DataPathPort":4790}"#, "is the one of encrypted networks");
    check_init(r#"{"Spec":{"EncryptionConfig":{"AutoLockManagers":1}}}"#, "must be true or false");
    check_init(
        r#"{"Spec":{"CAConfig":{"ExternalCAs":[{"URL":"x"}]}}}"#,
        "Spec.CAConfig.ExternalCAs: external certificate authorities are not supported",
    );
    check_init(r#"{"Spec":{"CAConfig":{"ForceRotate":1}}}"#, "a cluster begins with a root of its own");
    check_init(
        r#"{"Spec":{"CAConfig":{"SigningCACert":"x","SigningCAKey":"y"}}}"#,
        "a cluster begins with a root of its own",
    );
    check_init(r#"{"Spec":{"CAConfig":{"NodeCertExpiry":1}}}"#, "minimum certificate expiry");
    check_init(r#"{"Spec":{"Dispatcher":{"HeartbeatPeriod":1}}}"#, "heartbeat period");
    check_init(r#"{"Spec":{"Raft":{"SnapshotInterval":5}}}"#, "Spec.Raft.SnapshotInterval is not supported yet");
    check_init(r#"{"Availability":"x"}"#, "invalid Availability");
    check_init("{bad", "invalid character 'b'");
}

#[test]
fn a_node_without_a_part_of_the_mesh_says_so() {
    let lab = Lab::active();
    assert_eq!(lab.ask("DELETE", "/networks/ingress", "").0, 204);
    let ipam = json!({"Config": [{"Subnet": "10.44.0.0/24"}]});
    let mesh = json!({"Name": "mesh", "Driver": "overlay", "Ingress": true, "IPAM": ipam});
    assert_eq!(lab.post("/networks/create", &mesh.to_string()).0, 201);
    // The manager's own node has the only part.
    lab.join(1, "pi1");
    let message = |name: &str| lab.get(&format!("/nodes/{name}")).1["Status"]["Message"].clone();
    assert_eq!((message("pi1"), message("node0")), (json!("the mesh has no part left for it"), json!(null)));
}

#[test]
fn a_node_says_what_is_wrong_with_its_address() {
    let lab = Lab::active();
    let board = lab.join(1, "pi1");
    let ipam = json!({"Config": [{"Subnet": "10.44.0.0/24"}]});
    assert_eq!(
        lab.post("/networks/create", &json!({"Name": "db", "Driver": "overlay", "IPAM": ipam}).to_string()).0,
        201
    );
    let describe = |address: Option<&str>, addr: &str, no_network: Option<&str>| {
        let mut description = (*lab.store.view().state.node(board).expect("pi1").description).clone();
        description.data_address = address.map(|address| address.parse().expect("an address"));
        description.no_network = no_network.map(str::to_owned);
        let description = description.into();
        lab.commit(crate::store::Change::NodeDescribe { node: board, description, addr: addr.to_owned() });
        let (_, node) = lab.get("/nodes/pi1");
        let plugins = node["Description"]["Engine"]["Plugins"].as_array().expect("a list").clone();
        let networks = plugins.iter().filter(|plugin| plugin["Type"] == "Network");
        let names: Vec<String> = networks.map(|plugin| plugin["Name"].as_str().expect("a name").to_owned()).collect();
        (node["Status"]["Message"].clone(), names.join(" "))
    };
    let all = "bridge host null overlay".to_owned();
    assert_eq!(describe(None, "192.0.2.9", None), (json!(null), all.clone()));
    let hidden = "its address 10.44.0.9 is within the subnet of network db (10.44.0.0/24)";
    assert_eq!(describe(Some("10.44.0.9"), "192.0.2.9", None), (json!(hidden), all.clone()));
    let hidden = "its address 10.200.7.9 is within the subnet of network ingress (10.200.0.0/16)";
    assert_eq!(describe(None, "10.200.7.9", None), (json!(hidden), all.clone()));
    let none = "no IPv4 address among the boards (`pi-agent run --data-path-addr` gives one)";
    assert_eq!(describe(None, "fd00::9", None), (json!(none), all));
    assert_eq!(describe(None, "192.0.2.9", Some("no vxlan")).1, "host null");
}

#[test]
fn nodes_say_how_they_are() {
    use racimo_common::object::BoardHealth;

    use racimo_common::time::Wall;

    use crate::store::{Observation, SeenNode};
    let lab = Lab::active();
    let (board, _) = (lab.join(1, "pi1"), lab.join(2, "pi2"));
    let label = |node: &str, name: &str| {
        lab.get(&format!("/nodes/{node}")).1["Description"]["Engine"]["Labels"][format!("io.racimo.{name}")].clone()
    };
    assert_eq!((label("pi1", "health"), label("pi1", "temperature")), (json!("unknown"), json!(null)));
    let health = BoardHealth { temperature: Some(84), throttled: Some(0x5_0000), ..BoardHealth::default() };
    // It makes no event; what comes after it does.
    smol::block_on(lab.store.observe(vec![Observation::Health { node: board, health: Some(health.into()) }]));
    let seen = SeenNode { ready: true, at: Wall::from_nanos(1) };
    lab.observe(Observation::Node { node: board, seen });
    assert_eq!(label("pi1", "health"), "hot, had undervoltage, was throttled");
    assert_eq!((label("pi1", "temperature"), label("pi1", "undervoltage")), (json!("84"), json!("since boot")));
    assert_eq!(label("pi2", "health"), "unknown");
    // It is an observation: no filter and no constraint sees it.
    assert_eq!(lab.get(r#"/nodes?filters={"label":["io.racimo.temperature"]}"#).1, json!([]));
    // What a board said before it went away says nothing about it.
    let written_off = crate::store::WrittenOff { at: Default::default(), reason: "cut".into() };
    lab.commit(crate::store::Change::NodeWriteOff { node: board, written_off });
    assert_eq!((label("pi1", "health"), label("pi1", "temperature")), (json!("unknown"), json!(null)));

    let mut description = (*lab.store.view().state.node(board).expect("pi1").description).clone();
    description.no_memory_limits = Some("the memory controller is off".to_owned());
    let (description, addr) = (description.into(), "192.0.2.9".to_owned());
    lab.commit(crate::store::Change::NodeDescribe { node: board, description, addr });
    assert_eq!(label("pi1", "health"), "unknown");
    assert_eq!(label("pi1", "no-memory-limits"), "the memory controller is off");
    lab.commit(crate::store::Change::NodeReadmit { node: board });
    lab.see_node(board, true);
    assert_eq!(label("pi1", "health"), "degraded, hot, had undervoltage, was throttled");
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
fn a_node_is_not_removed_while_a_fence_holds_a_task_of_it() {
    use racimo_common::id::{IdSource, TaskId};
    use racimo_common::object::Desired;
    use racimo_common::time::{Mono, Now, Wall};

    use crate::orchestrator::held_by_fence;
    use crate::store::{Change, Gate, NewTask, NodeLink, Observation, Slot, WrittenOff};
    let lab = Lab::active();
    let boards = [lab.join(1, "pi1"), lab.join(2, "pi2")];
    let leased = r#""Labels":{"io.racimo.on-partition":"stop","io.racimo.lease":"1h"},"TaskTemplate""#;
    assert_eq!(lab.post("/services/create", &WEB.replace("\"TaskTemplate\"", leased)).0, 201);
    let service = lab.store.view().state.services().next().expect("a service").clone();
    let mut ids = IdSource::seeded(5);
    let mut assign = |desired, node| {
        let id: TaskId = ids.draw();
        let gate = (desired == Desired::Ready).then_some(Gate { not_before: Wall::default(), after: None });
        let (slot, revision) = (Slot::Replica(1), service.revision);
        let new = NewTask { id, service: service.id, revision, slot, desired, gate, restart_of: None, node: None };
        lab.commit(Change::TaskCreate(Box::new(new)));
        lab.commit(Change::TaskAssign { task: id, node, generic: Default::default() });
        id
    };
    let old = assign(Desired::Running, boards[0]);
    let next = assign(Desired::Ready, boards[1]);
    for node in boards {
        lab.observe(Observation::Link { node, link: NodeLink::Lost(Mono::default()) });
        lab.commit(Change::NodeWriteOff {
            node,
            written_off: WrittenOff { at: Wall::default(), reason: "cut".into() },
        });
    }
    let (status, answer) = lab.ask("DELETE", "/nodes/pi1", "");
    let said = message(&answer);
    let left = said.split_once(&format!("yet: task {old} has surely stopped there in ")).expect("the reason").1;
    let left: u64 = left.split_once(" s; --force").expect("the time").0.parse().expect("seconds");
    assert!(status == 400 && (3000..=3610).contains(&left), "{status} {said}");

    // `service ps` says why until it may start.
    let view = lab.store.view();
    let task = view.state.task(next).expect("stored");
    let reason = |second: u64| {
        held_by_fence(&view, task, Now { mono: Mono::from_nanos(second * 1_000_000_000), ..Now::default() })
    };
    assert!(reason(3609).is_some_and(|why| why.contains("stops it by itself within 3610 s")));
    assert_eq!((reason(3610), reason(10_000)), (None, None));
    assert_eq!(lab.ask("DELETE", "/nodes/pi1?force=1", ""), (200, Value::Null));
}

#[test]
fn ambiguous_names() {
    let lab = Lab::active();
    let boards = [lab.join(1, "same"), lab.join(2, "same")];
    let mut ids = boards.each_ref().map(ToString::to_string);
    ids.sort();
    let text = format!("node same is ambiguous (2 matches found): name it by its id, {}, {}", ids[0], ids[1]);
    check(lab.get("/nodes/same"), 400, &text);
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
fn registries_and_their_credentials() {
    let lab = Lab::active();
    check(lab.get("/distribution/UPPER%20CASE/json"), 400, "repository name (library/UPPER CASE) must be lowercase");
    // Nobody listens there.
    check(lab.get("/distribution/127.0.0.1:1/a/json"), 500, "cannot reach registry 127.0.0.1:1");
    let create = |auth: &str| lab.ask_with("POST", "/services/create", WEB, Some(auth));
    // {"username":"u","password":"p"}
    check(create("?"), 400, "X-Registry-Auth is not base64url");
    // {}, from a client that is not logged in.
    assert_eq!(create("e30=").0, 201);
    let stored = || {
        let view = lab.store.view();
        let service = view.state.service_named("web").expect("a service").clone();
        let open = |sealed| lab.context.vault.open(Owner::Credentials(service.id), sealed).expect("it opens").to_vec();
        service.spec.credentials.as_ref().map(open).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    assert_eq!(stored(), None);
    let update = |query: &str, auth: Option<&str>| {
        let (_, service) = lab.get("/services/web");
        let target = format!("/services/web/update?version={}{query}", service["Version"]["Index"]);
        let answer = lab.ask_with("POST", &target, &service["Spec"].to_string(), auth);
        assert!(!lab.get("/services/web").1.to_string().contains("secr3t"), "it is given back");
        answer
    };
    // {"username":"u","password":"secr3t"}
    let secret = "eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InNlY3IzdCJ9";
    check(update("&registryAuthFrom=x", None), 400, "unsupported registryAuthFrom value");
    assert_eq!(update("", Some(secret)).0, 200);
    assert!(stored().is_some_and(|text| text.contains("secr3t")));
    // An update without credentials keeps them; so does a client that is not logged in.
    assert_eq!(update("&registryAuthFrom=spec", Some("e30=")).0, 200);
    assert!(stored().is_some_and(|text| text.contains("secr3t")));
    // {"identitytoken":"tok"}
    assert_eq!(update("", Some("eyJpZGVudGl0eXRva2VuIjoidG9rIn0=")).0, 200);
    assert!(stored().is_some_and(|text| text.contains("tok") && !text.contains("secr3t")));
    assert_eq!(update("&registryAuthFrom=previous-spec", None).0, 200);
    assert!(stored().is_some_and(|text| text.contains("secr3t")));
    let long = format!("{{\"identitytoken\":\"{}\"}}", "x".repeat(CREDENTIALS_BYTES_MAX));
    let long = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE, long);
    check(update("", Some(&long)), 400, "X-Registry-Auth holds more than 16384 bytes");
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
