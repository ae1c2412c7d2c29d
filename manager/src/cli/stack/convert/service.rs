//! A service ─▶ the body of `/services/create`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::compose::node::{Data, Fault, Node, join};
use super::{Body, IMAGE, PREDEFINED, dict, labels, mount, name_of, scoped};
use crate::cli::parse;

/// The specification of the service that the file calls `key`.
pub(super) fn body(stack: &str, key: &str, service: &Node, file: &Node) -> Result<Value, Fault> {
    let path = join("services", key);
    let image = service.text("image");
    if image.is_empty() {
        return Err(service.fault(&join(&path, "image"), "an image is needed: stacks build none"));
    }
    let nothing = Node::new(&service.at, Data::Map(Vec::new()));
    let deploy = service.get("deploy").unwrap_or(&nothing);
    let deploy_path = join(&path, "deploy");
    let mut service_labels = labels(stack, Some(deploy));
    service_labels[IMAGE] = image.into();
    let mut task = Body::default();
    task.set("ContainerSpec", container(stack, service, file, &path)?);
    task.set("Resources", resources(deploy.get("resources").unwrap_or(&nothing), &join(&deploy_path, "resources"))?);
    if let Some(policy) = deploy.get("restart_policy") {
        task.set("RestartPolicy", restart(policy, &join(&deploy_path, "restart_policy"))?);
    } else if let Some(word) = service.get("restart") {
        if let Some(policy) = restart_word(word, &join(&path, "restart"))? {
            task.set("RestartPolicy", policy);
        }
    }
    task.set("Placement", placement(deploy.get("placement").unwrap_or(&nothing), &deploy_path)?);
    task.set("Networks", networks(stack, key, service, file, &path)?);
    if let Some(logging) = service.get("logging") {
        let driver =
            Body::default().put("Name", logging.text("driver")).put("Options", dict(Some(logging), "options")).take();
        task.set("LogDriver", driver);
    }
    task.set("ForceUpdate", 0);
    let mut body = Body::default();
    body.set("Name", scoped(stack, key)).set("Labels", service_labels).set("TaskTemplate", task.take());
    body.set("Mode", mode(deploy, &deploy_path)?);
    for (name, field) in [("update_config", "UpdateConfig"), ("rollback_config", "RollbackConfig")] {
        if let Some(config) = deploy.get(name) {
            body.set(field, update(config, &join(&deploy_path, name))?);
        }
    }
    body.set("EndpointSpec", endpoint(deploy, service, &path)?);
    Ok(body.take())
}

fn container(stack: &str, service: &Node, file: &Node, path: &str) -> Result<Value, Fault> {
    let text = |key: &str| service.text(key).to_owned();
    let (add, drop) = capabilities(&service.texts("cap_add"), &service.texts("cap_drop"));
    let env = service.get("environment").map(Node::entries).unwrap_or_default().iter();
    let mut env: Vec<String> = env
        .map(|entry| match entry.value.as_text() {
            Some(value) => format!("{}={value}", entry.key),
            None => entry.key.clone(),
        })
        .collect();
    env.sort();
    let hosts: Vec<String> = service
        .texts("extra_hosts")
        .iter()
        .filter_map(|line| line.split_once(':').map(|(name, address)| format!("{address} {name}")))
        .collect();
    let mut body = Body::default();
    body.put("Image", text("image"))
        .set("Labels", labels(stack, Some(service)))
        .put("Command", service.texts("entrypoint"))
        .put("Args", service.texts("command"))
        .put("Hostname", text("hostname"))
        .put("Env", env)
        .put("Dir", text("working_dir"))
        .put("User", text("user"))
        .put("Groups", service.texts("group_add"))
        .set("Privileges", json!({ "CredentialSpec": null, "SELinuxContext": null, "NoNewPrivileges": false }))
        .put("StopSignal", text("stop_signal"))
        .put("TTY", service.flag("tty"))
        .put("OpenStdin", service.flag("stdin_open"))
        .put("ReadOnly", service.flag("read_only"))
        .put("Mounts", mount::all(stack, service, file, path)?)
        .put("Hosts", hosts)
        .put("Isolation", text("isolation"))
        .put("Sysctls", dict(Some(service), "sysctls"))
        .put("CapabilityAdd", add)
        .put("CapabilityDrop", drop)
        .put("Ulimits", ulimits(service))
        .put("OomScoreAdj", service.int("oom_score_adj").unwrap_or_default());
    if service.get("init").is_some() {
        body.set("Init", service.flag("init"));
    }
    if service.get("stop_grace_period").is_some() {
        body.set("StopGracePeriod", nanos(service, "stop_grace_period"));
    }
    if let Some(check) = service.get("healthcheck") {
        body.set("Healthcheck", health(check, &join(path, "healthcheck"))?);
    }
    let mut dns = Body::default();
    dns.put("Nameservers", service.texts("dns")).put("Search", service.texts("dns_search"));
    body.put("DNSConfig", dns.take());
    body.put("Secrets", references(stack, service, file, path, "secrets", "SecretName")?);
    body.put("Configs", references(stack, service, file, path, "configs", "ConfigName")?);
    Ok(body.take())
}

/// A duration of the long form.
fn nanos(node: &Node, key: &str) -> i64 {
    parse::duration(node.text(key)).map(|nanos| nanos.0).unwrap_or_default()
}

/// Docker's names, without what is both added and dropped; `ALL` stands for every other one.
fn capabilities(add: &[String], drop: &[String]) -> (Vec<String>, Vec<String>) {
    let set = |list: &[String]| -> BTreeSet<String> {
        let name = |text: &String| {
            let text = text.trim().to_uppercase();
            if text == "ALL" || text.starts_with("CAP_") { text } else { format!("CAP_{text}") }
        };
        let names: BTreeSet<String> = list.iter().map(name).collect();
        if names.contains("ALL") { ["ALL".to_owned()].into() } else { names }
    };
    let (add, drop) = (set(add), set(drop));
    let drop = drop.into_iter().filter(|name| !add.contains(name)).collect();
    (add.into_iter().collect(), drop)
}

fn ulimits(service: &Node) -> Vec<Value> {
    let one = |entry: &super::super::compose::node::Entry| {
        let (soft, hard) = match entry.value.data {
            Data::Int(both) => (both, both),
            _ => (entry.value.int("soft").unwrap_or_default(), entry.value.int("hard").unwrap_or_default()),
        };
        json!({ "Name": entry.key, "Hard": hard, "Soft": soft })
    };
    service.get("ulimits").map(Node::entries).unwrap_or_default().iter().map(one).collect()
}

fn health(check: &Node, path: &str) -> Result<Value, Fault> {
    let test = check.texts("test");
    if check.flag("disable") {
        if !test.is_empty() {
            return Err(check.fault(path, "test and disable can't be set at the same time"));
        }
        return Ok(json!({ "Test": ["NONE"] }));
    }
    let retries = count(check, "retries", path)?.unwrap_or_default();
    Ok(Body::default()
        .put("Test", test)
        .put("Interval", nanos(check, "interval"))
        .put("Timeout", nanos(check, "timeout"))
        .put("StartPeriod", nanos(check, "start_period"))
        .put("StartInterval", nanos(check, "start_interval"))
        .put("Retries", retries)
        .take())
}

/// A number that is not negative.
fn count(node: &Node, key: &str, path: &str) -> Result<Option<u64>, Fault> {
    let Some(number) = node.int(key) else { return Ok(None) };
    let negative = |_| node.get(key).unwrap_or(node).fault(&join(path, key), "a number from 0 is expected");
    u64::try_from(number).map(Some).map_err(negative)
}

/// Secrets or configs of a service by name; `name_field` says which.
fn references(
    stack: &str,
    service: &Node,
    file: &Node,
    path: &str,
    section: &str,
    name_field: &str,
) -> Result<Vec<Value>, Fault> {
    let mut found = Vec::new();
    for (i, reference) in service.get(section).map(Node::items).unwrap_or_default().iter().enumerate() {
        let source = reference.text("source");
        let Some(object) = file.get(section).and_then(|objects| objects.get(source)) else {
            let what = format!("undefined {} {source:?}", section.trim_end_matches('s'));
            return Err(reference.fault(&format!("{path}.{section}[{i}]"), what));
        };
        let or = |key: &str, default: &str| match reference.text(key) {
            "" => default.to_owned(),
            text => text.to_owned(),
        };
        let target = or("target", source);
        let mode = reference.int("mode").unwrap_or(0o444);
        let mut body = Body::default();
        let file = json!({ "Name": target, "UID": or("uid", "0"), "GID": or("gid", "0"), "Mode": mode });
        body.set("File", file).set(name_field, name_of(stack, source, Some(object)));
        found.push(body.take());
    }
    found.sort_by(|a, b| a[name_field].as_str().cmp(&b[name_field].as_str()));
    Ok(found)
}

fn cpus(node: &Node, path: &str) -> Result<i64, Fault> {
    match node.get("cpus") {
        None => Ok(0),
        Some(cpus) => parse::nano_cpus(node.text("cpus")).map_err(|why| cpus.fault(&join(path, "cpus"), why)),
    }
}

fn resources(node: &Node, path: &str) -> Result<Value, Fault> {
    let bytes = |node: &Node| node.text("memory").parse().unwrap_or(0_i64);
    let mut body = Body::default();
    if let Some(limits) = node.get("limits") {
        let mut limit = Body::default();
        limit.put("NanoCPUs", cpus(limits, &join(path, "limits"))?).put("MemoryBytes", bytes(limits));
        limit.put("Pids", limits.int("pids").unwrap_or_default());
        body.set("Limits", limit.take());
    }
    if let Some(reserved) = node.get("reservations") {
        let one = |generic: &Node| match generic.get("discrete_resource_spec") {
            Some(spec) => {
                json!({ "DiscreteResourceSpec": Body::default().put("Kind", spec.text("kind"))
                    .put("Value", spec.int("value").unwrap_or_default()).take() })
            }
            None => json!({}),
        };
        let generic: Vec<Value> =
            reserved.get("generic_resources").map(Node::items).unwrap_or_default().iter().map(one).collect();
        let mut reservation = Body::default();
        reservation.put("NanoCPUs", cpus(reserved, &join(path, "reservations"))?);
        reservation.put("MemoryBytes", bytes(reserved)).put("GenericResources", generic);
        body.set("Reservations", reservation.take());
    }
    Ok(body.take())
}

fn one_of(node: &Node, key: &str, path: &str, known: &[&str]) -> Result<String, Fault> {
    let text = node.text(key);
    if text.is_empty() || known.contains(&text) {
        return Ok(text.to_owned());
    }
    let what = format!("{text:?} is not one of {}", known.join(", "));
    Err(node.get(key).unwrap_or(node).fault(&join(path, key), what))
}

fn restart(policy: &Node, path: &str) -> Result<Value, Fault> {
    let mut body = Body::default();
    body.put("Condition", one_of(policy, "condition", path, &["none", "on-failure", "any"])?);
    for (key, field) in [("delay", "Delay"), ("window", "Window")] {
        if policy.get(key).is_some() {
            body.set(field, nanos(policy, key));
        }
    }
    if let Some(attempts) = count(policy, "max_attempts", path)? {
        body.set("MaxAttempts", attempts);
    }
    Ok(body.take())
}

/// `restart: always` and its like, where there is no `deploy.restart_policy`.
fn restart_word(word: &Node, path: &str) -> Result<Option<Value>, Fault> {
    let text = word.as_text().unwrap_or_default();
    let (name, attempts) = match text.split_once(':') {
        Some((name, attempts)) => match attempts.parse::<u64>() {
            Ok(attempts) => (name, Some(attempts).filter(|n| *n > 0)),
            Err(_) => return Err(word.fault(path, format!("{attempts:?} is not a number of attempts"))),
        },
        None => (text, None),
    };
    let condition = match (name, attempts) {
        ("no" | "", None) => return Ok(None),
        ("always" | "unless-stopped", None) => "any",
        ("on-failure", _) => "on-failure",
        _ => {
            let what = format!("{text:?} is not one of no, always, unless-stopped, on-failure, on-failure:ATTEMPTS");
            return Err(word.fault(path, what));
        }
    };
    let mut body = Body::default();
    body.set("Condition", condition);
    if let Some(attempts) = attempts {
        body.set("MaxAttempts", attempts);
    }
    Ok(Some(body.take()))
}

fn placement(node: &Node, deploy_path: &str) -> Result<Value, Fault> {
    let preferences = node.get("preferences").map(Node::items).unwrap_or_default().iter();
    let preferences: Vec<Value> =
        preferences.map(|p| json!({ "Spread": { "SpreadDescriptor": p.text("spread") } })).collect();
    let most = count(node, "max_replicas_per_node", &join(deploy_path, "placement"))?.unwrap_or_default();
    let mut body = Body::default();
    body.put("Constraints", node.texts("constraints")).put("Preferences", preferences).put("MaxReplicas", most);
    Ok(body.take())
}

fn networks(stack: &str, key: &str, service: &Node, file: &Node, path: &str) -> Result<Vec<Value>, Fault> {
    let nothing = Node::new(&service.at, Data::Map(Vec::new()));
    let mut wanted: Vec<(&str, &Node)> = service
        .get("networks")
        .map(Node::entries)
        .unwrap_or_default()
        .iter()
        .map(|entry| (entry.key.as_str(), &entry.value))
        .collect();
    if wanted.is_empty() {
        wanted.push(("default", &nothing));
    }
    let mut attached = Vec::new();
    for (name, attachment) in wanted {
        let network = file.get("networks").and_then(|networks| networks.get(name));
        if network.is_none() && name != "default" {
            let path = format!("{path}.networks.{name}");
            return Err(attachment.fault(&path, format!("undefined network {name:?}")));
        }
        let target = name_of(stack, name, network);
        let mut aliases = attachment.texts("aliases");
        // Only networks that users make have names to look up.
        if !PREDEFINED.contains(&target.as_str()) {
            aliases.push(key.to_owned());
        }
        let mut body = Body::default();
        body.put("Target", target).put("Aliases", aliases).put("DriverOpts", dict(Some(attachment), "driver_opts"));
        attached.push(body.take());
    }
    attached.sort_by(|a, b| a["Target"].as_str().cmp(&b["Target"].as_str()));
    Ok(attached)
}

fn mode(deploy: &Node, path: &str) -> Result<Value, Fault> {
    let modes = ["replicated", "global", "replicated-job", "global-job"];
    let mode = one_of(deploy, "mode", path, &modes)?;
    let replicas = count(deploy, "replicas", path)?;
    let only = |what: Value| match replicas {
        None => Ok(what),
        Some(_) => {
            let why = "replicas can only be used with replicated or replicated-job mode";
            Err(deploy.get("replicas").unwrap_or(deploy).fault(&join(path, "replicas"), why))
        }
    };
    match mode.as_str() {
        "global" => only(json!({ "Global": {} })),
        "global-job" => only(json!({ "GlobalJob": {} })),
        "replicated-job" => Ok(match replicas {
            Some(count) => json!({ "ReplicatedJob": { "MaxConcurrent": count, "TotalCompletions": count } }),
            None => json!({ "ReplicatedJob": {} }),
        }),
        _ => Ok(match replicas {
            Some(count) => json!({ "Replicated": { "Replicas": count } }),
            None => json!({ "Replicated": {} }),
        }),
    }
}

fn update(config: &Node, path: &str) -> Result<Value, Fault> {
    let ratio = match config.get("max_failure_ratio").map(|node| &node.data) {
        Some(Data::Float(ratio)) => *ratio,
        _ => 0.0,
    };
    let ratio = if ratio == 0.0 { json!(0) } else { json!(ratio) };
    let mut body = Body::default();
    body.set("Parallelism", count(config, "parallelism", path)?.unwrap_or(1));
    body.put("Delay", nanos(config, "delay"));
    body.put("FailureAction", one_of(config, "failure_action", path, &["pause", "continue", "rollback"])?);
    body.put("Monitor", nanos(config, "monitor"));
    body.set("MaxFailureRatio", ratio);
    body.set("Order", one_of(config, "order", path, &["start-first", "stop-first"])?);
    Ok(body.take())
}

fn endpoint(deploy: &Node, service: &Node, path: &str) -> Result<Value, Fault> {
    let mode = deploy.text("endpoint_mode").to_lowercase();
    if !["", "vip", "dnsrr"].contains(&mode.as_str()) {
        let what = format!("{mode:?} is not one of vip, dnsrr");
        let path = join(&join(path, "deploy"), "endpoint_mode");
        return Err(deploy.get("endpoint_mode").unwrap_or(deploy).fault(&path, what));
    }
    let mut ports = Vec::new();
    for (i, port) in service.get("ports").map(Node::items).unwrap_or_default().iter().enumerate() {
        let path = format!("{path}.ports[{i}]");
        for key in ["target", "published"] {
            if port.int(key).is_some_and(|number| !(1..=65535).contains(&number)) {
                return Err(port.fault(&join(&path, key), "expected a port from 1 to 65535"));
            }
        }
        one_of(port, "protocol", &path, &["tcp", "udp", "sctp"])?;
        one_of(port, "mode", &path, &["ingress", "host"])?;
        if port.get("target").is_none() {
            return Err(port.fault(&join(&path, "target"), "the port of the container is missing"));
        }
        if mode == "dnsrr" && port.text("mode") != "host" {
            return Err(port.fault(&path, "port published with ingress mode can't be used with dnsrr mode"));
        }
        let mut body = Body::default();
        body.put("Protocol", port.text("protocol")).put("TargetPort", port.int("target").unwrap_or_default());
        body.put("PublishedPort", port.int("published").unwrap_or_default()).put("PublishMode", port.text("mode"));
        ports.push(body.take());
    }
    ports.sort_by_key(|port| port["PublishedPort"].as_i64().unwrap_or_default());
    Ok(Body::default().put("Mode", mode).put("Ports", ports).take())
}
