//! `stack` and `network` commands: what they ask, in which order, and what they say.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::fake::{Outcome, Reply, Request, pi_mgr};

const STACK: &str = "services:
  web:
    image: web:1
    secrets: [key]
    networks: [front]
    deploy: {labels: {a: b}}
  api: {image: api:1}
networks: {front: }
secrets: {key: {content: s3cret}}
configs: {conf: {content: c}}
";

/// Writes a compose file; the folder is gone with the value.
fn file(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("stack.yml");
    std::fs::write(&path, text).expect("writes");
    let path = path.to_string_lossy().into_owned();
    (folder, path)
}

/// Runs a command against a manager with these objects; what was asked, without pings.
fn against(args: &[&str], objects: Value) -> (Outcome, Vec<(String, Value)>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let outcome = pi_mgr(args, 0, move |request| {
        seen.lock().expect("lock").push((request.line.clone(), request.body.clone()));
        answer(&request, &objects)
    });
    let asked = std::mem::take(&mut *asked.lock().expect("lock"));
    (outcome, asked)
}

fn answer(request: &Request, objects: &Value) -> Reply {
    let (method, path) = request.line.split_once(' ').expect("a request line");
    let reply = |status, body: Value| Some((status, body.to_string()));
    let section = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    let list = objects[section].as_array().cloned().unwrap_or_default();
    let rest = path.strip_prefix(&format!("/{section}")).unwrap_or_default().trim_start_matches('/');
    match (method, rest) {
        ("GET", "") => {
            let names = request.query["filters"]["name"].as_object().cloned();
            let named = |object: &Value| {
                names.as_ref().is_none_or(|n| n.contains_key(object["Spec"]["Name"].as_str().unwrap_or_default()))
            };
            reply(200, list.into_iter().filter(named).collect())
        }
        ("GET", name) => match list.into_iter().find(|o| o["Spec"]["Name"] == name || o["ID"] == name) {
            Some(object) => reply(200, object),
            None => reply(404, json!({"message": format!("{section} {name} not found")})),
        },
        ("DELETE", _) => Some((204, String::new())),
        ("POST", "create") => reply(201, json!({"ID": "new", "Id": "new"})),
        ("POST", _) => reply(200, json!({"Warnings": null})),
        _ => reply(599, json!({"message": "unforeseen"})),
    }
}

fn lines(asked: &[(String, Value)]) -> Vec<String> {
    let named = |(line, body): &(String, Value)| format!("{line} {}", body["Name"].as_str().unwrap_or_default());
    asked.iter().map(|one| named(one).trim().to_owned()).collect()
}

fn secret() -> Value {
    json!({"ID": "sid", "Version": {"Index": 5}, "Spec": {"Name": "st_key"}})
}

#[test]
fn deploy_makes_everything_in_docker_s_order() {
    let (_folder, path) = file(STACK);
    // The secret is there: it is updated, and its id goes into the service.
    let objects = json!({"secrets": [secret()]});
    let (outcome, asked) = against(&["stack", "deploy", "-d", "--resolve-image", "never", "-c", &path, "st"], objects);
    outcome.result.expect("a stack");
    assert_eq!(
        outcome.stdout,
        "Creating network st_default\nCreating network st_front\nCreating config st_conf\nCreating service st_api\n\
         Creating service st_web\n"
    );
    assert_eq!(
        lines(&asked),
        [
            "GET /networks",
            "POST /networks/create st_default",
            "POST /networks/create st_front",
            "GET /secrets/st_key",
            "POST /secrets/sid/update st_key",
            "GET /configs/st_conf",
            "POST /configs/create st_conf",
            "GET /secrets",
            "GET /services",
            "POST /services/create st_api",
            "POST /services/create st_web",
        ]
    );
    let web = &asked[10].1["TaskTemplate"]["ContainerSpec"];
    assert_eq!(web["Secrets"][0]["SecretID"], "sid");
    assert_eq!(web["Image"], "web:1");
    assert!(asked[9].1["TaskTemplate"]["ContainerSpec"].get("Secrets").is_none(), "nothing empty is added");
}

#[test]
fn deploy_again_updates_and_prunes() {
    let (_folder, path) = file(STACK);
    let service = |id: &str, name: &str, image: &str| {
        json!({"ID": id, "Version": {"Index": 7}, "Spec": {"Name": name, "Labels": {"com.docker.stack.image": image},
            "TaskTemplate": {"ForceUpdate": 3, "ContainerSpec": {"Image": format!("{image}@sha256:ab")},
                "Placement": {"Platforms": [{"OS": "linux"}]}}}})
    };
    let objects = json!({
        "networks": [{"Name": "st_front"}, {"Name": "st_default"}],
        "secrets": [secret()],
        "services": [service("s1", "st_web", "web:1"), service("s2", "st_api", "api:0"), service("s3", "st_old", "old")],
    });
    let args = ["stack", "deploy", "-d", "--prune", "--resolve-image", "changed", "-c", &path, "st"];
    let (outcome, asked) = against(&args, objects);
    outcome.result.expect("a stack");
    assert_eq!(
        outcome.stdout,
        "Removing service st_old\nCreating config st_conf\nUpdating service st_api (id: s2)\n\
         Updating service st_web (id: s1)\n"
    );
    let lines = lines(&asked);
    assert!(lines.contains(&"DELETE /services/s3".to_owned()) && !lines.iter().any(|l| l.contains("networks/create")));
    // Only the image that changed is asked for.
    let distribution: Vec<&String> = lines.iter().filter(|line| line.contains("/distribution/")).collect();
    assert_eq!(distribution, ["GET /distribution/api:1/json"]);
    let web = &asked.iter().find(|(line, _)| line == "POST /services/s1/update").expect("an update").1;
    assert_eq!(web["TaskTemplate"]["ContainerSpec"]["Image"], "web:1@sha256:ab");
    assert_eq!(web["TaskTemplate"]["Placement"]["Platforms"], json!([{"OS": "linux"}]));
    assert_eq!(web["TaskTemplate"]["ForceUpdate"], 3);
}

#[test]
fn what_is_missing_stops_a_deployment_before_services_are_touched() {
    let external = "services: {a: {image: i, networks: [n], secrets: [s]}}\nnetworks: {n: {external: true}}\n\
                    secrets: {s: {external: true}}\n";
    let (_folder, path) = file(external);
    let args = ["stack", "deploy", "-d", "-c", &path, "st"];
    let (outcome, _) = against(&args, json!({}));
    let said = outcome.result.expect_err("no network").to_string();
    assert!(
        said.contains("stack.yml:2: networks.n: network \"n\" is declared as external, but could not be"),
        "{said}"
    );
    let (outcome, asked) = against(&args, json!({"networks": [{"ID": "n", "Spec": {"Name": "n"}}]}));
    assert_eq!(outcome.result.expect_err("no secret").to_string(), "service st_a: secret not found: s");
    assert!(!lines(&asked).iter().any(|line| line.starts_with("POST /services")));
    let (_folder, path) = file("services: {a: {image: i, foo: 1}}");
    let (outcome, asked) = against(&["stack", "deploy", "-c", &path, "st"], json!({}));
    let said = outcome.result.expect_err("a mistake").to_string();
    assert!(said.ends_with("stack.yml:1: services.a.foo: there is no such option") && asked.is_empty(), "{said}");
    let (outcome, _) = against(&["stack", "deploy", "-c", "/nonexistent.yml", "st"], json!({}));
    assert!(outcome.result.expect_err("no file").to_string().starts_with("cannot read /nonexistent.yml: "));
}

#[test]
fn a_refusal_names_what_was_refused() {
    let (_folder, path) = file("services: {a: {image: i}}");
    let outcome = pi_mgr(&["stack", "deploy", "-d", "-c", &path, "st"], 0, |request| match request.line.as_str() {
        "POST /services/create" => Some((400, json!({"message": "no ports"}).to_string())),
        "GET /networks" | "GET /services" => Some((200, "[]".to_owned())),
        _ => Some((201, "{\"Warning\": \"slow\"}".to_owned())),
    });
    assert_eq!(outcome.result.expect_err("refused").to_string(), "failed to create service st_a: no ports");
    assert!(outcome.stderr.contains("slow\n"));
}

#[test]
fn ignored_options_are_named() {
    let (_folder, path) = file("services: {a: {image: i, build: ., privileged: true, container_name: x}}");
    let (outcome, _) = against(&["stack", "config", "-c", &path], json!({}));
    outcome.result.expect("a stack");
    assert_eq!(outcome.stdout, "services:\n  a:\n    image: i\n");
    assert_eq!(
        outcome.stderr,
        "Ignoring unsupported options: build, privileged\n\nIgnoring deprecated options:\n\n\
         container_name: Setting the container name is not supported.\n\n"
    );
    let (_folder, path) = file("services: {a: {image: 'i:$TAG'}}");
    let (outcome, _) = against(&["stack", "config", "--skip-interpolation", "-c", &path], json!({}));
    assert_eq!(outcome.stdout, "services:\n  a:\n    image: i:$TAG\n");
}

#[test]
fn rm_takes_services_first_and_networks_last() {
    let object = |name: &str| json!([{"ID": format!("id-{name}"), "Spec": {"Name": name}}]);
    let objects = json!({"services": object("st_a"), "secrets": object("st_s"), "configs": object("st_c"),
        "networks": [{"Id": "net", "Name": "st_default"}]});
    let (outcome, asked) = against(&["stack", "rm", "-d", "st"], objects);
    outcome.result.expect("removed");
    assert_eq!(
        outcome.stdout,
        "Removing service st_a\nRemoving secret st_s\nRemoving config st_c\nRemoving network st_default\n"
    );
    let deletes: Vec<String> = lines(&asked).into_iter().filter(|line| line.starts_with("DELETE")).collect();
    assert_eq!(
        deletes,
        ["DELETE /services/id-st_a", "DELETE /secrets/id-st_s", "DELETE /configs/id-st_c", "DELETE /networks/net"]
    );
    let (outcome, _) = against(&["stack", "rm", "nosuch"], json!({}));
    outcome.result.expect("nothing is no failure");
    assert_eq!(outcome.stderr, "Nothing found in stack: nosuch\n");
}

#[test]
fn lists() {
    let service = |stack: &str, name: &str| {
        json!({"ID": name, "Spec": {"Name": name, "Labels": {"com.docker.stack.namespace": stack},
            "TaskTemplate": {"ContainerSpec": {"Image": "i"}}, "Mode": {"Replicated": {"Replicas": 1}}}})
    };
    let objects = json!({"services": [service("b", "b_x"), service("a", "a_x"), service("b", "b_y")]});
    let (outcome, _) = against(&["stack", "ls"], objects.clone());
    outcome.result.expect("a list");
    assert_eq!(outcome.stdout, "NAME      SERVICES\na         1\nb         2\n");
    let (outcome, _) = against(&["stack", "services", "--format", "{{.Name}}", "b"], objects);
    assert_eq!(outcome.stdout, "a_x\nb_x\nb_y\n", "the manager filters");
    let (outcome, _) = against(&["stack", "services", "b"], json!({}));
    assert_eq!(outcome.stderr, "Nothing found in stack: b\n");
    let (outcome, _) = against(&["stack", "ps", "b"], json!({}));
    assert_eq!(outcome.result.expect_err("nothing").to_string(), "nothing found in stack: b");
}

#[test]
fn networks() {
    let network = json!({"Id": "n1", "ID": "n1", "Name": "front", "Driver": "overlay", "Scope": "swarm",
        "Spec": {"Name": "front"}, "Labels": {"a": "b"}});
    let objects = json!({"networks": [network], "services": [{"ID": "s1", "Version": {"Index": 2},
        "Spec": {"Name": "web", "TaskTemplate": {"ContainerSpec": {}, "Networks": [{"Target": "n1"}]}}}]});
    let (outcome, asked) = against(&["network", "create", "--label", "a=b", "front"], json!({}));
    outcome.result.expect("a network");
    assert_eq!(outcome.stdout, "new\n");
    assert_eq!(asked[0].1["Labels"], json!({"a": "b"}));
    let (outcome, _) = against(&["network", "ls", "--format", "{{.Name}} {{.Labels}}"], objects.clone());
    assert_eq!(outcome.stdout, "front a=b\n");
    let (outcome, _) = against(&["network", "rm", "front"], objects.clone());
    assert_eq!(outcome.stdout, "front\n");
    // Names become ids, because that is what specifications hold.
    let (outcome, asked) = against(&["service", "update", "-d", "--network-rm", "front", "s1"], objects.clone());
    outcome.result.expect("detached");
    let update = &asked.last().expect("an update").1;
    assert!(update["TaskTemplate"].get("Networks").is_none(), "{update}");
    let args = ["service", "update", "-d", "--network-add", "name=front,alias=x", "s1"];
    let (outcome, _) = against(&args, objects);
    let said = outcome.result.expect_err("attached already").to_string();
    assert_eq!(said, "service is already attached to network front");
}
