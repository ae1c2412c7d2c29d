//! Overlay networks ⇄ Docker's JSON.

use std::collections::BTreeMap;

use bollard_stubs::models::{ConfigReference, Ipam, Network as NetworkModel};
use racimo_common::id::NetworkId;
use racimo_common::time::Wall;
use serde_json::{Map, Value, json};

use super::{map, time};
use crate::api::error::ApiError;
use crate::api::fields::Fields;
use crate::api::networks::not_permitted;
use crate::api::validate;
use crate::store::{Network, NetworkSpec, View};

/// The driver of networks that services use.
const DRIVER: &str = "overlay";
/// Docker's own networks, and names it keeps for itself.
const PREDEFINED: [&str; 4] = ["bridge", "default", "host", "none"];
const RESERVED: [&str; 2] = ["docker_gwbridge", "ingress"];

/// Reads and checks what `POST /networks/create` sends.
///
/// # Errors
/// 400 that names the field; 403 for a predefined network.
pub fn spec(body: &Value) -> Result<NetworkSpec, ApiError> {
    let mut fields = Fields::of("", body)?;
    let name = fields.text("Name")?.unwrap_or_default();
    if PREDEFINED.contains(&name.as_str()) {
        return Err(not_permitted(&name));
    }
    if RESERVED.contains(&name.as_str()) {
        return Err(ApiError::bad_request(format!("invalid argument: Name: {name} is reserved")));
    }
    validate::name(&name).map_err(ApiError::invalid)?;
    let driver = fields.text("Driver")?.unwrap_or_else(|| "bridge".to_owned());
    if driver != "overlay" {
        return Err(ApiError::bad_request(format!(
            "invalid argument: Driver: networks of driver {driver} are not supported, only overlay"
        )));
    }
    // Names are unique whether a client asks for it or not.
    fields.flag("CheckDuplicate")?;
    if let Some(scope) = fields.text("Scope")?.filter(|scope| scope != "swarm") {
        return Err(ApiError::bad_request(format!("invalid argument: Scope: overlay networks are not {scope}")));
    }
    if fields.has("EnableIPv4") && !fields.flag("EnableIPv4")? {
        return Err(fields.refuse("EnableIPv4: false"));
    }
    let mut ipam = fields.object("IPAM")?;
    ipam.only("Driver", &[json!("default")])?;
    no_options(&mut ipam)?;
    ipam.done()?;
    no_options(&mut fields)?;
    let labels = fields.labels("Labels")?;
    fields.done()?;
    Ok(NetworkSpec { name, labels, ..NetworkSpec::default() })
}

/// An option counts as set even if its value is empty: `encrypted` has none.
fn no_options(fields: &mut Fields<'_>) -> Result<(), ApiError> {
    match fields.labels("Options")?.keys().next() {
        Some(option) => Err(fields.refuse(&format!("Options.{option}"))),
        None => Ok(()),
    }
}

/// A network as `GET /networks/{id}` shows it.
pub fn network(network: &Network) -> Value {
    let (spec, created) = (&network.spec, network.meta.created);
    model(&spec.name, network.id.to_string(), created, "overlay", &spec.labels)
}

/// A network's JSON; the rest is the same for all there are.
pub fn model(name: &str, id: String, created: Wall, driver: &str, labels: &BTreeMap<String, String>) -> Value {
    super::json(&NetworkModel {
        name: Some(name.to_owned()),
        id: Some(id),
        created: Some(time(created)),
        scope: Some("swarm".to_owned()),
        driver: Some(driver.to_owned()),
        enable_ipv4: Some(true),
        enable_ipv6: Some(false),
        ipam: Some(Ipam { driver: Some("default".to_owned()), config: Some(Vec::new()), options: None }),
        internal: Some(false),
        attachable: Some(false),
        ingress: Some(false),
        config_from: Some(ConfigReference { network: Some(String::new()) }),
        config_only: Some(false),
        containers: Some(Default::default()),
        options: Some(Default::default()),
        labels: map(labels),
        peers: None,
    })
}

/// A network as tasks show it: SwarmKit's object.
pub fn object(network: &Network) -> Value {
    let Network { id, meta, spec, subnet, gateway, .. } = network;
    let config = || {
        let mut config = json!({ "Subnet": subnet.to_string() });
        put(&mut config, "Range", spec.range.map(|range| range.to_string().into()));
        put(&mut config, "Gateway", Some(gateway.to_string().into()));
        config
    };
    let ipam = || json!({ "Driver": { "Name": "default" }, "Configs": [config()] });
    let set = |flag: bool| flag.then_some(Value::Bool(true));
    let mut shown = json!({ "Name": spec.name, "Labels": spec.labels, "DriverConfiguration": { "Name": DRIVER } });
    put(&mut shown, "Internal", set(spec.internal));
    put(&mut shown, "Ingress", set(spec.ingress));
    put(&mut shown, "IPAMOptions", spec.subnet.map(|_| ipam()));
    put(&mut shown, "Scope", Some("swarm".into()));
    json!({
        "ID": id.to_string(),
        "Version": { "Index": meta.version },
        "CreatedAt": time(meta.created),
        "UpdatedAt": time(meta.updated),
        "Spec": shown,
        "DriverState": { "Name": DRIVER, "Options": options(network) },
        "IPAMOptions": ipam(),
    })
}

/// What the driver made of it, and what it was asked for.
fn options(network: &Network) -> Value {
    let mut options = json!({ "com.docker.network.driver.overlay.vxlanid_list": network.vni.to_string() });
    put(&mut options, "encrypted", network.spec.encrypted.then(|| "".into()));
    put(&mut options, "com.docker.network.driver.mtu", network.spec.mtu.map(|mtu| mtu.to_string().into()));
    options
}

fn put(object: &mut Value, key: &str, value: Option<Value>) {
    if let (Value::Object(fields), Some(value)) = (object, value) {
        fields.insert(key.to_owned(), value);
    }
}

/// The services on a network and their tasks that are up, as `verbose` shows them. None has an address yet.
pub fn services(view: &View, network: NetworkId) -> Value {
    let mut services = Map::new();
    for service in view.state.services() {
        if !service.spec.task.networks.iter().any(|attachment| attachment.network == network) {
            continue;
        }
        let tasks = view.state.tasks_of_service(service.id).filter(|task| {
            let is_on = task.spec.networks.iter().any(|attachment| attachment.network == network);
            is_on && view.task_state(task) == racimo_common::object::TaskState::Running
        });
        let tasks: Vec<Value> = tasks
            .map(|task| json!({ "Name": task.name(), "EndpointID": "", "EndpointIP": "", "Info": null }))
            .collect();
        let shown = json!({ "VIP": "", "Ports": [], "LocalLBIndex": 0, "Tasks": tasks });
        services.insert(service.spec.name.clone(), shown);
    }
    services.into()
}
