//! Overlay networks ⇄ Docker's JSON: what is asked for, and what there is. Who is on them: [`super::network_use`].

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use bollard_stubs::models::{ConfigReference, Ipam, IpamConfig, Network as NetworkModel};
use racimo_common::net::Subnet;
use racimo_common::time::Wall;
use serde_json::{Value, json};

use super::{map, time};
use crate::api::error::{ApiError, Code};
use crate::api::fields::Fields;
use crate::api::networks::not_permitted;
use crate::api::validate;
use crate::store::{Network, NetworkSpec};

/// The driver of networks that services use.
const DRIVER: &str = "overlay";
/// Docker's own networks, and names it keeps for itself.
const PREDEFINED: [&str; 4] = ["bridge", "default", "host", "none"];
/// Options of the driver.
const ENCRYPTED: &str = "encrypted";
const MTU: &str = "com.docker.network.driver.mtu";
const VNI: &str = "com.docker.network.driver.overlay.vxlanid_list";
/// Bytes of a packet that a network may be told to have: from what every host must take, to what no link exceeds.
const MTU_RANGE: std::ops::RangeInclusive<u16> = 576..=9000;
const ONLY_IPV4: &str = "networks have IPv4 addresses only";

/// Reads what `POST /networks/create` sends; whether its subnet can be had, and what is in it, the store judges.
///
/// # Errors
/// 400 that names the field; 403 for a predefined network.
pub fn spec(body: &Value) -> Result<NetworkSpec, ApiError> {
    let mut fields = Fields::of("", body)?;
    let name = fields.text("Name")?.unwrap_or_default();
    if PREDEFINED.contains(&name.as_str()) {
        return Err(not_permitted(&name));
    }
    let ingress = fields.flag("Ingress")?;
    if name == "docker_gwbridge" || name == "ingress" && !ingress {
        return Err(invalid("Name", format_args!("{name} is reserved")));
    }
    validate::name(&name).map_err(ApiError::invalid)?;
    let driver = fields.text("Driver")?.unwrap_or_else(|| "bridge".to_owned());
    if driver != DRIVER {
        let why = format_args!("networks of driver {driver} are not supported, only {DRIVER}");
        return Err(invalid("Driver", why));
    }
    // Names are unique whether a client asks for it or not.
    fields.flag("CheckDuplicate")?;
    if let Some(scope) = fields.text("Scope")?.filter(|scope| scope != "swarm") {
        return Err(invalid("Scope", format_args!("overlay networks are not {scope}")));
    }
    if fields.has("EnableIPv4") && !fields.flag("EnableIPv4")? {
        return Err(invalid("EnableIPv4", format_args!("{ONLY_IPV4}")));
    }
    if fields.flag("EnableIPv6")? {
        return Err(invalid("EnableIPv6", format_args!("{ONLY_IPV4}")));
    }
    let attachable = fields.flag("Attachable")?;
    if ingress && attachable {
        return Err(ApiError::rpc(Code::Unimplemented, "ingress network cannot be attachable"));
    }
    let asked = ipam(fields.object("IPAM")?)?;
    let spec = NetworkSpec {
        name,
        labels: fields.labels("Labels")?,
        internal: fields.flag("Internal")?,
        attachable,
        ingress,
        ..options(&mut fields, asked)?
    };
    fields.done()?;
    Ok(spec)
}

/// The subnet and what is in it.
fn ipam(mut fields: Fields<'_>) -> Result<NetworkSpec, ApiError> {
    fields.only("Driver", &[json!("default")])?;
    if let Some(option) = fields.labels("Options")?.keys().next() {
        return Err(fields.refuse(&format!("Options.{option}")));
    }
    let configs = fields.list("Config")?;
    fields.done()?;
    if let [_, (path, _), ..] = &configs[..] {
        return Err(invalid(path, format_args!("a network has one subnet")));
    }
    let Some((path, value)) = configs.first() else { return Ok(NetworkSpec::default()) };
    let mut config = Fields::of(path, value)?;
    let subnet: Option<Subnet> = part(&mut config, "Subnet")?;
    let spec = NetworkSpec {
        subnet: Some(subnet.ok_or_else(|| invalid(&config.path("Subnet"), format_args!("a subnet is needed here")))?),
        gateway: part(&mut config, "Gateway")?,
        range: part(&mut config, "IPRange")?,
        reserved: reserved(&mut config)?,
        ..NetworkSpec::default()
    };
    config.done()?;
    Ok(spec)
}

fn reserved(config: &mut Fields<'_>) -> Result<BTreeMap<String, Ipv4Addr>, ApiError> {
    let path = config.path("AuxiliaryAddresses");
    let named = config.labels("AuxiliaryAddresses")?;
    named.into_iter().map(|(name, text)| Ok((name.clone(), address(&format!("{path}.{name}"), &text)?))).collect()
}

/// A subnet or an address.
fn part<T: FromStr<Err: std::fmt::Display>>(config: &mut Fields<'_>, key: &str) -> Result<Option<T>, ApiError> {
    let path = config.path(key);
    config.text(key)?.map(|text| address(&path, &text)).transpose()
}

fn address<T: FromStr<Err: std::fmt::Display>>(path: &str, text: &str) -> Result<T, ApiError> {
    let host = text.split('/').next().unwrap_or_default();
    if host.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()) {
        return Err(invalid(path, format_args!("{text} is IPv6: {ONLY_IPV4}")));
    }
    text.parse().map_err(|error| invalid(path, format_args!("{text:?}: {error}")))
}

/// An option counts as set even if its value is empty: `encrypted` has none.
fn options(fields: &mut Fields<'_>, mut spec: NetworkSpec) -> Result<NetworkSpec, ApiError> {
    for (option, value) in fields.labels("Options")? {
        let path = format!("Options.{option}");
        match option.as_str() {
            ENCRYPTED => match value.as_str() {
                "" | "true" => spec.encrypted = true,
                // It would be encrypted with Docker, where only the option's being there counts.
                other => return Err(invalid(&path, format_args!("{other:?} is neither empty nor true"))),
            },
            MTU => {
                let mtu = value.parse().ok().filter(|mtu| MTU_RANGE.contains(mtu));
                let (least, most) = MTU_RANGE.into_inner();
                let why = format_args!("{value:?} is not a number from {least} to {most}");
                spec.mtu = Some(mtu.ok_or_else(|| invalid(&path, why))?);
            }
            _ => return Err(fields.refuse(&path)),
        }
    }
    Ok(spec)
}

fn invalid(path: &str, why: std::fmt::Arguments<'_>) -> ApiError {
    ApiError::bad_request(format!("invalid argument: {path}: {why}"))
}

/// A network as `GET /networks/{id}` shows it.
pub fn network(network: &Network) -> Value {
    let Network { id, meta, spec, .. } = network;
    super::json(&NetworkModel {
        ipam: Some(Ipam { config: Some(vec![config(network)]), ..ipam_model() }),
        internal: Some(spec.internal),
        attachable: Some(spec.attachable),
        ingress: Some(spec.ingress),
        options: Some(driver_options(network).into_iter().collect()),
        labels: map(&spec.labels),
        ..model(&spec.name, id.to_string(), meta.created, DRIVER)
    })
}

/// A network of every board, by its driver.
pub fn predefined(name: &str, id: &str, driver: &str) -> Value {
    super::json(&model(name, id.to_owned(), Wall::default(), driver))
}

fn model(name: &str, id: String, created: Wall, driver: &str) -> NetworkModel {
    NetworkModel {
        name: Some(name.to_owned()),
        id: Some(id),
        created: Some(time(created)),
        scope: Some("swarm".to_owned()),
        driver: Some(driver.to_owned()),
        enable_ipv4: Some(true),
        enable_ipv6: Some(false),
        ipam: Some(ipam_model()),
        internal: Some(false),
        attachable: Some(false),
        ingress: Some(false),
        config_from: Some(ConfigReference { network: Some(String::new()) }),
        config_only: Some(false),
        containers: Some(HashMap::new()),
        options: Some(HashMap::new()),
        labels: Some(HashMap::new()),
        peers: None,
    }
}

fn ipam_model() -> Ipam {
    Ipam { driver: Some("default".to_owned()), config: Some(Vec::new()), options: None }
}

/// The subnet it has, whether it was asked for or not.
fn config(network: &Network) -> IpamConfig {
    let Network { spec, subnet, gateway, .. } = network;
    let reserved = spec.reserved.iter().map(|(name, address)| (name.clone(), address.to_string()));
    IpamConfig {
        subnet: Some(subnet.to_string()),
        ip_range: spec.range.map(|range| range.to_string()),
        gateway: Some(gateway.to_string()),
        auxiliary_addresses: Some(reserved.collect()).filter(|all: &HashMap<_, _>| !all.is_empty()),
    }
}

/// What the driver was asked for.
fn asked_options(spec: &NetworkSpec) -> BTreeMap<String, String> {
    let encrypted = spec.encrypted.then(|| (ENCRYPTED.to_owned(), String::new()));
    let mtu = spec.mtu.map(|mtu| (MTU.to_owned(), mtu.to_string()));
    encrypted.into_iter().chain(mtu).collect()
}

/// What the driver was asked for, and what it made of it.
fn driver_options(network: &Network) -> BTreeMap<String, String> {
    let mut options = asked_options(&network.spec);
    options.insert(VNI.to_owned(), network.vni.to_string());
    options
}

/// A network as tasks show it: SwarmKit's object.
pub fn object(network: &Network) -> Value {
    let Network { id, meta, spec, subnet, gateway, .. } = network;
    let ipam = || {
        let mut config = json!({ "Subnet": subnet.to_string(), "Gateway": gateway.to_string() });
        put(&mut config, "Range", spec.range.map(|range| range.to_string().into()));
        json!({ "Driver": { "Name": "default" }, "Configs": [config] })
    };
    let asked = asked_options(spec);
    let mut driver = json!({ "Name": DRIVER });
    put(&mut driver, "Options", (!asked.is_empty()).then(|| json!(asked)));
    let mut shown = json!({ "Name": spec.name, "Labels": spec.labels, "DriverConfiguration": driver });
    for (key, is) in [("Internal", spec.internal), ("Attachable", spec.attachable), ("Ingress", spec.ingress)] {
        put(&mut shown, key, is.then_some(Value::Bool(true)));
    }
    put(&mut shown, "IPAMOptions", spec.subnet.map(|_| ipam()));
    put(&mut shown, "Scope", Some("swarm".into()));
    json!({
        "ID": id.to_string(),
        "Version": { "Index": meta.version },
        "CreatedAt": time(meta.created),
        "UpdatedAt": time(meta.updated),
        "Spec": shown,
        "DriverState": { "Name": DRIVER, "Options": driver_options(network) },
        "IPAMOptions": ipam(),
    })
}

fn put(object: &mut Value, key: &str, value: Option<Value>) {
    if let (Value::Object(fields), Some(value)) = (object, value) {
        fields.insert(key.to_owned(), value);
    }
}
