//! Every flag of `service create` and `service update`, as Docker's command line (28.2.2, API 1.47) takes it:
//! the same requests and bodies. `record.py` beside the files asks docker again.
//!
//! A case with `ours` is one where we differ on purpose: a text is in our refusal, an object is what
//! we change instead. Docker keeps no order in some lists; they are compared as sets.

use std::sync::{Arc, Mutex};

use clap::Parser;
use serde_json::{Value, json};

use super::super::Cli;
use super::super::json::{Peek, set, unset};
use super::fake::{Request, pi_mgr};

/// What the manager was asked for and told.
#[derive(Default)]
struct Heard {
    asks: Vec<Value>,
    posted: Option<(Value, Value)>,
}

fn answer(golden: &Value, base: &Value, heard: &Mutex<Heard>, request: Request) -> Option<(u16, String)> {
    let mut heard = heard.lock().expect("no panic holds it");
    let body = match request.line.as_str() {
        "GET /secrets" | "GET /configs" => {
            let kind = request.line.trim_start_matches("GET /").to_owned();
            let named = |object: &&Value| request.query["filters"]["name"].get(object.text("/Spec/Name")).is_some();
            let found: Vec<&Value> = golden.list(&format!("/{kind}")).iter().filter(named).collect();
            let found = json!(found);
            heard.asks.push(json!([kind, request.query["filters"]]));
            found
        }
        line if line.starts_with("GET /networks/") => {
            let path = line.trim_start_matches("GET /");
            heard.asks.push(json!([path, request.query]));
            let name = path.trim_start_matches("networks/");
            let named = |network: &&Value| network.text("/Name") == name || network.text("/Id") == name;
            match golden.list("/networks").iter().find(named) {
                Some(network) => network.clone(),
                None => return Some((404, json!({"message": format!("network {name} not found")}).to_string())),
            }
        }
        "GET /services/web" => json!({"ID": "sid", "Version": {"Index": 7}, "Spec": base}),
        "POST /services/create" | "POST /networks/create" | "POST /swarm/init" | "POST /services/sid/update" => {
            heard.posted = Some((request.body, request.query));
            json!({"ID": "sid"})
        }
        // What `init` prints.
        "GET /swarm" | "GET /nodes/" | "GET /info" => json!({}),
        "GET /swarm/unlockkey" => json!({"UnlockKey": "SWMKEY-1-x"}),
        line => panic!("unforeseen: {line}"),
    };
    Some((200, body.to_string()))
}

fn normal(mut spec: Value) -> Value {
    for key in ["Env", "Mounts", "Secrets", "Configs"] {
        if let Some(Value::Array(items)) = spec.pointer_mut(&format!("/TaskTemplate/ContainerSpec/{key}")) {
            items.sort_by_key(Value::to_string);
        }
    }
    for list in ["/EndpointSpec/Ports", "/IPAM/Config"] {
        if let Some(Value::Array(items)) = spec.pointer_mut(list) {
            items.sort_by_key(Value::to_string);
        }
    }
    spec
}

/// Runs one case; what we posted and its query, or why we refused.
fn run(golden: &Value, case: &Value, base: &Value, line: &[&str]) -> Result<(Value, Value), String> {
    if let Err(error) = Cli::try_parse_from(std::iter::once("pi-mgr").chain(line.iter().copied())) {
        return Err(error.to_string());
    }
    let heard = Arc::new(Mutex::new(Heard::default()));
    let (golden, base, shared) = (golden.clone(), base.clone(), heard.clone());
    let outcome = pi_mgr(line, 0, move |request| answer(&golden, &base, &shared, request));
    let mut heard = heard.lock().expect("no panic holds it");
    if let Err(error) = outcome.result {
        assert!(heard.posted.is_none(), "{line:?} was refused after it was sent");
        return Err(error.to_string());
    }
    // Docker keeps no order in what it removes.
    let sorted = |list: &[Value]| {
        let mut list = list.to_vec();
        list.sort_by_key(Value::to_string);
        list
    };
    assert_eq!(sorted(&heard.asks), sorted(case.list("/asks")), "{line:?}");
    Ok(heard.posted.take().expect("a request"))
}

fn line<'a>(head: &[&'a str], case: &'a Value, last: &'a str) -> Vec<&'a str> {
    let args = case.list("/args").iter().filter_map(Value::as_str);
    head.iter().copied().chain(args).chain(std::iter::once(last)).collect()
}

/// Compares; the text of a difference, if there is one.
fn judge(got: Result<(Value, Value), String>, want: Option<Value>, case: &Value) -> Option<String> {
    match (got, &case["ours"]) {
        (Err(error), Value::String(text)) => (!error.contains(text.as_str())).then_some(error),
        (Err(error), _) if want.is_some() => Some(format!("refused: {error}")),
        // Where we have no words of our own, the refusal is what counts; its words are tested elsewhere.
        (Err(_), _) => None,
        (Ok((got, query)), _) => match want {
            None => Some(format!("sent {got}, but it was to be refused")),
            Some(want) if normal(got.clone()) != normal(want.clone()) => Some(format!("sent {got}\nnot  {want}")),
            Some(_) => {
                let wanted = case.get("query").filter(|wanted| wanted["rollback"] != query["rollback"]);
                wanted.map(|wanted| format!("asked {query}, not {wanted}"))
            }
        },
    }
}

fn changed(base: &Value, changes: &Value) -> Value {
    let mut spec = base.clone();
    for (pointer, value) in changes.entries("") {
        let path: Vec<String> = pointer.split('/').skip(1).map(|key| key.replace("~1", "/")).collect();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        if value.is_null() {
            unset(&mut spec, &path);
        } else {
            set(&mut spec, &path, value.clone());
        }
    }
    spec
}

#[test]
fn create_sends_what_docker_sends() {
    let golden: Value =
        serde_json::from_str(include_str!("../../../tests/golden/cli/create-flags.json")).expect("JSON");
    let mut wrong = Vec::new();
    for case in golden.list("/cases") {
        let line = line(&["service", "create", "-d", "--no-resolve-image"], case, "busybox:1");
        let want = if case["ours"].is_string() { None } else { case.get("body").cloned() };
        let got = run(&golden, case, &Value::Null, &line);
        wrong.extend(judge(got, want, case).map(|why| format!("{}: {why}", line.join(" "))));
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn update_sends_what_docker_sends() {
    let golden: Value =
        serde_json::from_str(include_str!("../../../tests/golden/cli/update-flags.json")).expect("JSON");
    let mut wrong = Vec::new();
    for case in golden.list("/cases") {
        let rollback = case.list("/args").contains(&json!("--rollback"));
        let head: &[&str] =
            if rollback { &["service", "update", "-d"] } else { &["service", "update", "-d", "--no-resolve-image"] };
        let line = line(head, case, "web");
        let base = &golden["bases"][case.text("/base")];
        let changes = if case["ours"].is_object() { case.get("ours") } else { case.get("changes") };
        let want = changes.filter(|_| !case["ours"].is_string()).map(|changes| changed(base, changes));
        let got = run(&golden, case, base, &line);
        wrong.extend(judge(got, want, case).map(|why| format!("{} ({}): {why}", line.join(" "), case.text("/base"))));
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn networks_are_made_as_docker_makes_them() {
    check(include_str!("../../../tests/golden/cli/network-flags.json"), &["network", "create"]);
}

#[test]
fn a_cluster_is_made_as_docker_makes_it() {
    check(include_str!("../../../tests/golden/cli/init-flags.json"), &["init"]);
}

#[track_caller]
fn check(golden: &str, head: &[&str]) {
    let golden: Value = serde_json::from_str(golden).expect("JSON");
    let mut wrong = Vec::new();
    for case in golden.list("/cases") {
        let args = case.list("/args").iter().filter_map(Value::as_str);
        let line: Vec<&str> = head.iter().copied().chain(args).collect();
        let want = if case["ours"].is_string() { None } else { case.get("body").cloned() };
        let got = run(&golden, case, &Value::Null, &line);
        wrong.extend(judge(got, want, case).map(|why| format!("{}: {why}", line.join(" "))));
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
