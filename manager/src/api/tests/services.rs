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
    check(update(&format!("version={version}&rollback=next"), &scale), 400, "unrecognized rollback option next");
    let renamed = scale.replace("\"web\"", "\"web2\"");
    check(
        update(&format!("version={version}"), &renamed),
        501,
        "Unimplemented desc = renaming services is not supported",
    );
    let global = WEB.replace(r#""Replicated":{"Replicas":3}"#, r#""Global":{}"#);
    check(update(&format!("version={version}"), &global), 501, "service mode change is not allowed");
    check(lab.get("/services/web/logs"), 400, "you must choose at least one stream");
    check(lab.get("/services/nosuch/logs?stdout=1"), 404, "service nosuch not found");
    check(lab.get("/tasks/nosuch/logs?stdout=1"), 404, "task nosuch not found");
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

/// Spec and previous spec change places; the body of a rollback says nothing.
#[test]
fn rollbacks() {
    let lab = Lab::active();
    lab.post("/services/create", WEB);
    let ask = |version: &Value, query: &str, body: &str| {
        lab.post(&format!("/services/web/update?version={version}{query}"), body)
    };
    let (_, first) = lab.get("/services/web");
    check(ask(&first["Version"]["Index"], "&rollback=previous", "{}"), 400, "does not have a previous spec");
    let changed = WEB.replace("busybox:latest", "busybox:1");
    assert_eq!(ask(&first["Version"]["Index"], "&rollback=none", &changed).0, 200);
    let (_, second) = lab.get("/services/web");
    check(ask(&first["Version"]["Index"], "&rollback=previous", ""), 500, "update out of sequence");
    assert_eq!(ask(&second["Version"]["Index"], "&rollback=previous", ""), (200, json!({"Warnings":null})));
    let (_, third) = lab.get("/services/web");
    assert_eq!((&third["Spec"], &third["PreviousSpec"]), (&first["Spec"], &second["Spec"]));
    let status = &third["UpdateStatus"];
    assert_eq!(
        (&status["State"], &status["Message"]),
        (&json!("rollback_started"), &json!("manually requested rollback"))
    );
    assert_eq!(ask(&third["Version"]["Index"], "&rollback=previous&registryAuthFrom=spec", &changed).0, 200);
    assert_eq!(lab.get("/services/web").1["Spec"], second["Spec"]);
}

#[test]
fn jobs() {
    let lab = Lab::active();
    let job = r#"{"ReplicatedJob":{"MaxConcurrent":2,"TotalCompletions":3}}"#;
    let body = WEB.replace(r#"{"Replicated":{"Replicas":3}}"#, job);
    assert_eq!(lab.post("/services/create", &body).0, 201);
    let mut ids = IdSource::seeded(3);
    lab.run_tasks(&mut ids);
    let (_, service) = lab.get("/services/web");
    let iteration = service["JobStatus"]["JobIteration"].clone();
    assert!(iteration["Index"].as_u64().is_some_and(|index| index > 0), "{service}");
    assert!(service["JobStatus"]["LastExecution"].as_str().is_some_and(|at| at.ends_with('Z')), "{service}");
    let tasks = |filters: &str| lab.get(&format!("/tasks?filters={filters}")).1;
    let count = |filters: &str| tasks(filters).as_array().expect("a list").len();
    let task = tasks("{}")[0].clone();
    assert_eq!((&task["JobIteration"], &task["DesiredState"]), (&iteration, &json!("complete")));
    assert_eq!(count(r#"{"desired-state":["complete"]}"#), 2);
    assert_eq!(count(r#"{"desired-state":["running"]}"#), 0);
    let status = || lab.get("/services?status=true").1[0]["ServiceStatus"].clone();
    assert_eq!(status(), json!({"RunningTasks":2,"DesiredTasks":2,"CompletedTasks":0}));
    lab.end_task(task["ID"].as_str().expect("an id"));
    assert_eq!(status(), json!({"RunningTasks":1,"DesiredTasks":2,"CompletedTasks":1}));
    // A new iteration: what the old one did counts no more.
    let update = format!("/services/web/update?version={}", service["Version"]["Index"]);
    assert_eq!(lab.post(&update, &body).0, 200);
    assert_eq!(count(r#"{"_up-to-date":["true"]}"#), 0);
    assert_eq!(status(), json!({"RunningTasks":0,"DesiredTasks":2,"CompletedTasks":0}));
    let (_, service) = lab.get("/services/web");
    assert_ne!(service["JobStatus"]["JobIteration"], iteration);
    let update = format!("/services/web/update?version={}", service["Version"]["Index"]);
    check(lab.post(&update, WEB), 501, "service mode change is not allowed");
    // Tasks of services that run on say nothing of iterations.
    assert_eq!(lab.ask("DELETE", "/services/web", "").0, 200);
    lab.post("/services/create", WEB);
    let (_, service) = lab.get("/services/web");
    assert_eq!(service.get("JobStatus"), None);
    lab.run_tasks(&mut ids);
    let tasks = tasks(r#"{"service":["web"]}"#);
    assert_eq!((tasks[0].get("JobIteration"), &tasks[0]["DesiredState"]), (None, &json!("running")));
}
