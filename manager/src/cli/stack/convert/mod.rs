//! A stack in the long form ─▶ the bodies that Docker's command line sends for the same files. Pure.

mod mount;
mod service;

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use racimo_common::net::Subnet;
use serde_json::{Map, Value, json};

use super::compose::World;
use super::compose::node::{Fault, Node, join};
use crate::cli::limits::COMPOSE_BODY_MAX;

/// Label of everything that belongs to a stack.
pub(super) const NAMESPACE: &str = "com.docker.stack.namespace";
/// Label of a service: its image as the file names it.
pub(super) const IMAGE: &str = "com.docker.stack.image";

/// Networks that are there without being made.
const PREDEFINED: [&str; 4] = ["bridge", "default", "host", "none"];

/// What a stack is made of, each in the order in which it is made.
#[derive(Debug, Default)]
pub(super) struct Stack {
    /// Bodies for `/networks/create`.
    pub(super) networks: Vec<Value>,
    /// Networks that must be there, where they are asked for.
    pub(super) external_networks: Vec<(String, Fault)>,
    /// Bodies for `/secrets/create`.
    pub(super) secrets: Vec<Value>,
    /// Bodies for `/configs/create`.
    pub(super) configs: Vec<Value>,
    /// Bodies for `/services/create`; secrets and configs still without ids.
    pub(super) services: Vec<Value>,
}

/// An object that leaves out what is empty, as Go does it.
#[derive(Default)]
struct Body(Map<String, Value>);

impl Body {
    /// Sets a field unless the value is null, "", 0, false, or an empty list or object.
    fn put(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        let value = value.into();
        let empty = match &value {
            Value::Null => true,
            Value::Bool(flag) => !flag,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
        };
        if empty { self } else { self.set(key, value) }
    }

    /// Sets a field.
    fn set(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    fn take(&mut self) -> Value {
        Value::Object(std::mem::take(&mut self.0))
    }
}

/// `stack_name`.
pub(super) fn scoped(stack: &str, name: &str) -> String {
    format!("{stack}_{name}")
}

/// The name of an object: its own, or that of its key in the stack.
fn name_of(stack: &str, key: &str, object: Option<&Node>) -> String {
    let own = object.map(|object| object.text("name")).filter(|name| !name.is_empty());
    own.map_or_else(|| scoped(stack, key), str::to_owned)
}

/// A mapping's labels with the stack's.
fn labels(stack: &str, object: Option<&Node>) -> Value {
    let mut labels = dict(object, "labels");
    labels.insert(NAMESPACE.to_owned(), stack.into());
    labels.sort_keys();
    labels.into()
}

fn dict(object: Option<&Node>, key: &str) -> Map<String, Value> {
    object.map(|object| object.pairs(key)).unwrap_or_default().into_iter().map(|(k, v)| (k, v.into())).collect()
}

/// The bodies for a stack of this name.
///
/// # Errors
/// The first thing that cannot be, with file, line and key.
pub(super) fn stack(name: &str, file: &Node, world: &World<'_>) -> Result<Stack, Fault> {
    let services = file.get("services");
    let entries = services.map(Node::entries).unwrap_or_default();
    if entries.is_empty() {
        return Err(services.unwrap_or(file).fault("services", "a stack needs at least one service"));
    }
    let mut stack = Stack::default();
    networks(name, file, &mut stack)?;
    for (section, bodies) in [("secrets", &mut stack.secrets), ("configs", &mut stack.configs)] {
        for entry in file.get(section).map(Node::entries).unwrap_or_default() {
            if !entry.value.flag("external") {
                bodies.push(file_object(name, section, &entry.key, &entry.value, world)?);
            }
        }
    }
    for entry in entries {
        stack.services.push(service::body(name, &entry.key, &entry.value, file)?);
    }
    Ok(stack)
}

/// The networks that services use; one that none uses is not made.
fn networks(stack: &str, file: &Node, into: &mut Stack) -> Result<(), Fault> {
    let mut used: BTreeSet<String> = BTreeSet::new();
    for service in file.get("services").map(Node::entries).unwrap_or_default() {
        let own = service.value.get("networks").map(Node::entries).unwrap_or_default();
        used.extend(own.iter().map(|entry| entry.key.clone()));
        if own.is_empty() {
            used.insert("default".to_owned());
        }
    }
    for key in used {
        let network = file.get("networks").and_then(|networks| networks.get(&key));
        let name = name_of(stack, &key, network);
        let Some(network) = network else {
            // Whoever uses one that is not defined is told so with the service.
            if key == "default" {
                into.networks.push(network_body(stack, &key, &name, None)?);
            }
            continue;
        };
        if network.flag("external") {
            if !PREDEFINED.contains(&name.as_str()) {
                let what = format!(
                    "network {name:?} is declared as external, but could not be found. You need to create a \
                     swarm-scoped network before the stack is deployed"
                );
                into.external_networks.push((name, network.fault(&join("networks", &key), what)));
            }
            continue;
        }
        into.networks.push(network_body(stack, &key, &name, Some(network))?);
    }
    Ok(())
}

fn network_body(stack: &str, key: &str, name: &str, network: Option<&Node>) -> Result<Value, Fault> {
    let text = |key: &str| network.map(|n| n.text(key)).unwrap_or_default();
    let flag = |key: &str| network.is_some_and(|n| n.flag(key));
    let driver = Some(text("driver")).filter(|driver| !driver.is_empty()).unwrap_or("overlay");
    let mut ipam = Value::Null;
    if let Some(given) = network.and_then(|n| n.get("ipam")).filter(|ipam| !ipam.entries().is_empty()) {
        let mut pools = Vec::new();
        for (i, pool) in given.get("config").map(Node::items).unwrap_or_default().iter().enumerate() {
            let text = pool.text("subnet");
            if let Err(why) = text.parse::<Subnet>() {
                let path = format!("networks.{key}.ipam.config[{i}].subnet");
                return Err(pool.get("subnet").unwrap_or(pool).fault(&path, why.to_string()));
            }
            pools.push(json!({ "Subnet": text }));
        }
        ipam = json!({ "Driver": given.text("driver"), "Options": null, "Config": pools });
    }
    let options = Some(dict(network, "driver_opts")).filter(|options| !options.is_empty());
    Ok(json!({
        "Name": name,
        "Driver": driver,
        "Scope": "",
        "IPAM": ipam,
        "Internal": flag("internal"),
        "Attachable": flag("attachable"),
        "Ingress": false,
        "ConfigOnly": false,
        "ConfigFrom": null,
        "Options": options,
        "Labels": labels(stack, network),
    }))
}

/// A secret or config with its content.
fn file_object(stack: &str, section: &str, key: &str, object: &Node, world: &World<'_>) -> Result<Value, Fault> {
    let path = join(section, key);
    let data = match (object.get("file"), object.get("content"), object.get("environment")) {
        (Some(file), _, _) => {
            let name = file.as_text().unwrap_or_default();
            let read = (world.read)(std::path::Path::new(name));
            read.map_err(|error| file.fault(&join(&path, "file"), format!("cannot read {name}: {error}")))?
        }
        (None, Some(content), _) => content.as_text().unwrap_or_default().as_bytes().to_vec(),
        (None, None, Some(variable)) => {
            let name = variable.as_text().unwrap_or_default();
            let missing = || variable.fault(&join(&path, "environment"), format!("the variable {name} is not set"));
            (world.env)(name).ok_or_else(missing)?.into_bytes()
        }
        (None, None, None) => Vec::new(),
    };
    if data.len() > COMPOSE_BODY_MAX {
        return Err(object.fault(&path, format!("it has {} bytes, more than {COMPOSE_BODY_MAX}", data.len())));
    }
    let mut body = Body::default();
    body.set("Name", name_of(stack, key, Some(object))).set("Labels", labels(stack, Some(object)));
    body.put("Data", STANDARD.encode(data));
    if !object.text("template_driver").is_empty() {
        body.set("Templating", json!({ "Name": object.text("template_driver") }));
    }
    Ok(body.take())
}
