//! Services and their tasks.

use racimo_common::id::IdSource;
use serde_json::{Value, json};

use super::super::testing::Lab;
use super::{WEB, check, ids};

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
