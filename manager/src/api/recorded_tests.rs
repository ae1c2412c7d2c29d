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

pub(super) fn recorded() -> Value {
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
pub(super) fn check(name: &str, ours: &Value, differences: &[&str]) {
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

#[test]
fn jobs_and_rollbacks_have_docker_s_shape() {
    let lab = Lab::active();
    let mut ids = IdSource::seeded(1);
    let job = r#""ReplicatedJob":{"MaxConcurrent":2,"TotalCompletions":3}"#;
    let config = r#","UpdateConfig":{"Parallelism":1,"FailureAction":"pause","Monitor":5000000000,"MaxFailureRatio":0,"Order":"stop-first"}"#;
    assert!(WEB.contains(config));
    let body = WEB.replace(config, "").replace(r#""Replicated":{"Replicas":3}"#, job);
    assert_eq!(lab.post("/services/create", &body).0, 201);
    lab.run_tasks(&mut ids);
    // Docker's iterations are counted from 0, which is left out; ours are indexes of the store.
    let iteration = "+JobStatus.JobIteration.Index";
    check("service job", &lab.get("/services/web1").1, &[iteration]);
    check("services status job", &lab.get("/services?status=true").1[0], &[iteration]);
    check("task job", &lab.get("/tasks").1[0], &["+JobIteration.Index"]);
    lab.ask("DELETE", "/services/web1", "");
    assert_eq!(lab.post("/services/create", &body.replace(job, r#""GlobalJob":{}"#)).0, 201);
    check("services status global job", &lab.get("/services?status=true").1[0], &[iteration]);

    let lab = Lab::active();
    assert_eq!(lab.post("/services/create", WEB).0, 201);
    for query in ["", "&rollback=previous"] {
        let (_, service) = lab.get("/services/web1");
        let update = format!("/services/web1/update?version={}{query}", service["Version"]["Index"]);
        assert_eq!(lab.post(&update, &WEB.replace("1000", "2000")).0, 200);
    }
    // It was the updater's rollback there, after which there is no previous specification.
    check("service rolled back", &lab.get("/services/web1?insertDefaults=true").1, &["+PreviousSpec"]);
}

/// What docker created in the recordings comes back as it was sent; what a daemon adds to it is added here.
#[test]
fn recorded_bodies_come_back_as_they_were_sent() {
    let mut taken = 0;
    for entry in recorded()["bodies"].as_array().expect("a list") {
        let lab = Lab::active();
        let (status, answer) = lab.post("/services/create", &entry["body"].to_string());
        if status != 201 {
            continue;
        }
        taken += 1;
        let id = answer["ID"].as_str().expect("an id");
        let mut want = entry["body"].clone();
        added_by_the_daemon(&mut want);
        assert_eq!(plain(&lab.get(&format!("/services/{id}")).1["Spec"]), plain(&want), "{}", entry["from"]);
    }
    assert!(taken > 20, "{taken}");
}

/// As recordings 101, 114 and 201 show by what is sent and what is read later.
fn added_by_the_daemon(spec: &mut Value) {
    let container = &mut spec["TaskTemplate"]["ContainerSpec"];
    container["Isolation"] = "default".into();
    if container["DNSConfig"].is_null() {
        container["DNSConfig"] = serde_json::json!({});
    }
    spec["TaskTemplate"]["Runtime"] = "container".into();
    match spec["Mode"].as_object_mut().and_then(|mode| mode.iter_mut().next()) {
        Some((name, mode)) if name == "Replicated" && mode["Replicas"].is_null() => mode["Replicas"] = 1.into(),
        Some(_) | None => {}
    }
}

/// Without the difference between 0 and 0.0, and what is null or empty.
pub(super) fn plain(value: &Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().map_or(Value::Null, Value::from),
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Object(fields) => {
            fields.iter().filter(|(_, v)| !v.is_null()).map(|(key, v)| (key.clone(), plain(v))).collect()
        }
        Value::Null | Value::Bool(_) | Value::String(_) => value.clone(),
    }
}

/// Recording 112 names everything at once: with the lab's own network, secret and config in it, and
/// without a template, it is taken, and shown as in 127.
#[test]
fn everything_at_once_comes_back() {
    let lab = Lab::active();
    let created = |target: &str, body: &str| {
        let (status, answer) = lab.post(target, body);
        assert_eq!(status, 201, "{target}: {answer}");
        answer["ID"].as_str().or(answer["Id"].as_str()).expect("an id").to_owned()
    };
    let secret = created("/secrets/create", r#"{"Name":"sec1","Data":"aGk="}"#);
    let config = created("/configs/create", r#"{"Name":"cfg1","Data":"aGk="}"#);
    let network = created("/networks/create", r#"{"Name":"ovl1","Driver":"overlay"}"#);
    let recorded = recorded();
    let bodies = recorded["bodies"].as_array().expect("a list");
    let body = &bodies.iter().find(|entry| entry["from"] == "112-service-create-everything").expect("it")["body"];
    let ours = |value: &Value| {
        let text = value.to_string().replace("kwpny6pu8a4ykl1bous8bzspe", &secret);
        let text = text.replace("7bxxpbqfs46m2as0jkbqg9dt1", &config).replace("0bhiooexekl15x7mm0zjsamd7", &network);
        serde_json::from_str::<Value>(&text.replace("h-{{.Task.Slot}}", "h")).expect("JSON")
    };
    let (status, answer) = lab.post("/services/create", &ours(body).to_string());
    assert_eq!(status, 201, "{answer}");
    let (_, shown) = lab.get("/services/full?insertDefaults=true");
    assert_eq!(plain(&shown["Spec"]), plain(&ours(&recorded["shapes"]["service everything"]["Spec"])));
}

/// What becomes of every change of the cluster that docker sent in the recordings: taken, or refused by name.
#[test]
fn recorded_cluster_changes_are_taken_or_refused_by_name() {
    let mut said = Vec::new();
    for entry in recorded()["swarm"].as_array().expect("a list") {
        let lab = Lab::rooted();
        let (_, cluster) = lab.get("/swarm");
        let flags: String = entry["query"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|f| format!("&{}=true", f.as_str().expect("a flag")))
            .collect();
        let target = format!("/swarm/update?version={}{flags}", cluster["Version"]["Index"]);
        let (status, answer) = lab.post(&target, &entry["body"].to_string());
        let outcome = answer["message"].as_str().unwrap_or("taken").to_owned();
        assert_eq!(status == 200, outcome == "taken", "{entry}: {status}");
        if status == 200 {
            assert_eq!(plain(&lab.get("/swarm").1["Spec"]), plain(&entry["body"]), "{}", entry["from"]);
        }
        said.push(format!("{} {outcome}", entry["from"].as_str().unwrap_or_default()));
    }
    assert_eq!(
        said,
        [
            "016-swarm-join-token-rotate taken".to_owned(),
            "017-swarm-update taken".to_owned(),
            "019-swarm-ca-rotate taken".to_owned(),
            "021-swarm-update-autolock taken".to_owned(),
            "023-swarm-unlock-key-rotate taken".to_owned(),
            "025-swarm-update-autolock-off taken".to_owned(),
        ],
    );
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
