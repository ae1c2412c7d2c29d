//! Our answers beside those of Docker 20.10, as recorded through the docker CLI 28.2 (`recorded.json`).
//!
//! Shapes: which fields an answer has, and of what type. Every difference is listed here, with its reason.

use std::collections::BTreeSet;
use std::fmt::Write;

use racimo_common::id::IdSource;
use racimo_common::time::Wall;
use serde_json::Value;

use super::testing::Lab;
use crate::store::{Change, NetworkSpec};

fn recorded() -> Value {
    serde_json::from_str(include_str!("../../tests/golden/api/recorded.json")).expect("JSON")
}

/// `Spec.Labels {}`, `Slot number`, …; maps of the user's own keys are not looked into.
fn shape(path: &str, value: &Value, into: &mut BTreeSet<String>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "[]",
        Value::Object(_) => "{}",
    };
    into.insert(format!("{path} {kind}"));
    match value {
        Value::Array(items) => items.iter().for_each(|item| shape(&format!("{path}[]"), item, into)),
        Value::Object(fields) if !path.ends_with("Labels") && !path.ends_with("Attributes") => {
            for (key, inner) in fields {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                shape(&path, inner, into);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {}
    }
}

/// `-` is what only Docker says, `+` what only we say.
#[track_caller]
fn check(name: &str, ours: &Value, differences: &[&str]) {
    let theirs = &recorded()["shapes"][name];
    let (mut a, mut b) = (BTreeSet::new(), BTreeSet::new());
    shape("", theirs, &mut a);
    shape("", ours, &mut b);
    let found: Vec<String> =
        a.difference(&b).map(|p| format!("-{p}")).chain(b.difference(&a).map(|p| format!("+{p}"))).collect();
    // A difference may stand for everything below it.
    let is_known = |found: &str| differences.iter().any(|known| found.starts_with(known));
    let unknown: Vec<&String> = found.iter().filter(|f| !is_known(f)).collect();
    assert!(unknown.is_empty(), "{name}: {unknown:#?}");
    for known in differences {
        assert!(found.iter().any(|f| f.starts_with(known)), "{name}: {known} is no difference any more");
    }
}

/// Nothing runs on the manager's own engine, so there is nothing to say about it.
const INFO: &[&str] = &[
    "-ContainerdCommit",
    "-CgroupVersion",
    "-DefaultRuntime",
    "-DockerRootDir",
    "-DriverStatus[]",
    "-GenericResources",
    "-HttpProxy",
    "-HttpsProxy",
    "-InitBinary",
    "-InitCommit",
    "-Isolation",
    "-NFd",
    "-NGoroutines",
    "-NoProxy",
    "-OSVersion",
    "-Plugins.Authorization",
    "-Plugins.Log[]",
    "-RegistryConfig",
    "-RuncCommit",
    "-Runtimes",
    "-SecurityOptions[]",
    // Gone from the API since 1.42 and 1.45.
    "-KernelMemory",
    // An empty list instead of null: clients count it.
    "-Warnings null",
    "+Warnings []",
];

/// The board's facts, as engine labels.
const NODE: &[&str] = &["+Description.Engine.Labels {}"];

const WEB: &str = r#"{"Name":"web1","Labels":{},"TaskTemplate":{"ContainerSpec":{"Image":"127.0.0.1:5000/bb:1","Args":["sleep","1000"],"Init":false,"DNSConfig":{}},"Resources":{"Limits":{},"Reservations":{}},"Placement":{"Platforms":[{"Architecture":"amd64","OS":"linux"}]},"ForceUpdate":0},"Mode":{"Replicated":{"Replicas":3}},"UpdateConfig":{"Parallelism":1,"FailureAction":"pause","Monitor":5000000000,"MaxFailureRatio":0,"Order":"stop-first"},"EndpointSpec":{"Mode":"vip"}}"#;

#[test]
fn answers_have_docker_s_shape() {
    let lab = Lab::new();
    check("version", &lab.get("/version").1, &[]);
    let null_managers = "-Swarm.RemoteManagers null";
    check("info inactive", &lab.get("/info").1, &[INFO, &[null_managers]].concat());
    let lab = Lab::active();
    let pool = "-Swarm.Cluster.DefaultAddrPool null";
    check("info active", &lab.get("/info").1, &[INFO, &[pool]].concat());
    check("swarm", &lab.get("/swarm").1, &[]);
    check("node", &lab.get("/nodes/node0").1, NODE);

    assert_eq!(lab.post("/services/create", WEB).0, 201);
    check("service", &lab.get("/services/web1").1, &[]);
    check("service defaults", &lab.get("/services/web1?insertDefaults=true").1, &[]);
    check("services status", &lab.get("/services?status=true").1[0], &[]);
    lab.run_tasks(&mut IdSource::seeded(1));
    check("task running", &lab.get("/tasks").1[0], &[]);
    check("event", &event(&lab), &[]);
}

/// The line of a service's update.
fn event(lab: &Lab) -> Value {
    let (view, feed) = lab.store.watch();
    let (_, service) = lab.get("/services/web1");
    let update = format!("/services/web1/update?version={}", service["Version"]["Index"]);
    assert_eq!(lab.post(&update, &WEB.replace("\"Replicas\":3", "\"Replicas\":4")).0, 200);
    let hub = &lab.context.hub;
    smol::block_on(futures_lite::FutureExt::or(hub.follow(view, feed, || lab.context.now()), async {
        while hub.subscribe().0.is_empty() {
            futures_lite::future::yield_now().await;
        }
    }));
    let until = lab.context.now().nanos() / 1_000_000_000 + 1;
    // The last second must be over, or the stream would wait for it.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let (_, line) = lab.get(&format!("/events?since=1&until={until}"));
    line
}

#[test]
fn other_tasks_and_services_have_docker_s_shape() {
    let lab = Lab::active();
    let (status, answer) =
        lab.post("/services/create", &WEB.replace(r#""Replicated":{"Replicas":3}"#, r#""Global":{}"#));
    assert_eq!(status, 201, "{answer}");
    lab.run_tasks(&mut IdSource::seeded(1));
    check("task global", &lab.get("/tasks").1[0], &[]);
    let lab = Lab::active();
    lab.post(
        "/services/create",
        &WEB.replace(r#""Placement":{"#, r#""Placement":{"Constraints":["node.labels.x==y"],"#),
    );
    lab.waiting_task("no suitable node (scheduling constraints not satisfied on 1 node)");
    check("task pending", &lab.get("/tasks").1[0], &[]);
}

#[test]
fn errors_are_docker_s() {
    for error in recorded()["errors"].as_array().expect("a list") {
        let text = |key: &str| error[key].as_str().unwrap_or_default();
        let lab = if matches!(text("from"), "003" | "004" | "005") { Lab::new() } else { Lab::active() };
        assert!(text("from") <= "005" || lab.post("/services/create", WEB).0 == 201);
        // Services of the recording.
        let target = text("target").replace("/logger/", "/web1/");
        let body = match error["body"].as_str() {
            Some(text) => text.to_owned(),
            None if error["body"].is_null() => String::new(),
            None => error["body"].to_string(),
        };
        let (status, answer) = lab.ask(text("method"), &target, &body);
        assert_eq!(
            (u64::from(status), &answer["message"]),
            (error["status"].as_u64().expect("a status"), &error["message"]),
            "{error}"
        );
    }
}

/// The networks that a body names, by name or by id, as they were there when it was recorded.
fn make_networks(lab: &Lab, targets: &Value) {
    for target in targets.as_array().into_iter().flatten().filter_map(|network| network["Target"].as_str()) {
        let network = target.parse().unwrap_or_else(|_| IdSource::seeded(target.len() as u64).draw());
        let spec = NetworkSpec { name: target.to_owned(), ..NetworkSpec::default() };
        let change = Change::NetworkCreate { network, spec };
        smol::block_on(lab.store.commit(Wall::default(), vec![change])).expect("a network");
    }
}

/// What becomes of every body that docker sent in the recordings: taken, or refused by name.
#[test]
fn recorded_bodies_are_taken_or_refused_by_name() {
    let mut table = String::new();
    for entry in recorded()["bodies"].as_array().expect("a list") {
        let lab = Lab::active();
        make_networks(&lab, &entry["body"]["TaskTemplate"]["Networks"]);
        let (status, answer) = lab.post("/services/create", &entry["body"].to_string());
        let outcome = answer["message"].as_str().unwrap_or("taken");
        assert!(matches!(status, 201 | 400 | 404), "{entry}: {status}");
        writeln!(table, "{:44} {outcome}", entry["from"].as_str().unwrap_or_default()).expect("writes");
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/api/bodies.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &table).expect("writes");
    }
    assert_eq!(table, std::fs::read_to_string(path).expect("reads"), "UPDATE_GOLDEN=1 writes it anew");
}
