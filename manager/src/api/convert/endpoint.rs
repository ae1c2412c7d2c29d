//! How services are reached, both ways: published ports, virtual addresses, what tasks have of networks.

use bollard_stubs::models::{
    EndpointPortConfig, EndpointPortConfigProtocolEnum, EndpointPortConfigPublishModeEnum,
    EndpointSpec as EndpointModel, EndpointSpecModeEnum, PortStatus, ServiceEndpoint, ServiceEndpointVirtualIps,
};
use racimo_common::object::{EndpointMode, EndpointSpec, HostPort, Port, PortMode, Protocol};
use serde_json::{Value, json};

use super::network;
use crate::api::error::ApiError;
use crate::api::fields::Fields;
use crate::store::{Service, State, Task};

/// Reads an `EndpointSpec`; [`crate::api::validate`] judges it.
///
/// # Errors
/// 400 that names the field.
pub fn read(mut fields: Fields<'_>) -> Result<EndpointSpec, ApiError> {
    let mode = match fields.text("Mode")?.as_deref() {
        None | Some("vip") => EndpointMode::Vip,
        Some("dnsrr") => EndpointMode::Dnsrr,
        Some(other) => return Err(invalid(&fields.path("Mode"), format_args!("{other:?} is not vip or dnsrr"))),
    };
    let ports = fields.list("Ports")?.into_iter().map(|(path, value)| port(&path, value)).collect::<Result<_, _>>()?;
    fields.done()?;
    Ok(EndpointSpec { mode, ports })
}

/// As in Docker, names of protocols and modes are found in any case.
fn port(path: &str, value: &Value) -> Result<Port, ApiError> {
    let mut fields = Fields::of(path, value)?;
    let name = fields.text("Name")?;
    let protocol = match fields.text("Protocol")? {
        None => Protocol::default(),
        Some(text) => Protocol::named(&text.to_ascii_lowercase())
            .ok_or_else(|| invalid(&fields.path("Protocol"), format_args!("{text:?} is not tcp, udp or sctp")))?,
    };
    let mode = match fields.text("PublishMode")? {
        None => PortMode::default(),
        Some(text) => [PortMode::Ingress, PortMode::Host]
            .into_iter()
            .find(|mode| mode.name().eq_ignore_ascii_case(&text))
            .ok_or_else(|| invalid(&fields.path("PublishMode"), format_args!("{text:?} is not ingress or host")))?,
    };
    let target = number(&mut fields, "TargetPort", "1 to 65535")?;
    let published = number(&mut fields, "PublishedPort", "1 to 65535, or 0 for any")?;
    fields.done()?;
    Ok(Port { name, protocol, target, published, mode })
}

fn number(fields: &mut Fields<'_>, key: &str, want: &str) -> Result<u16, ApiError> {
    let (path, number) = (fields.path(key), fields.int(key)?.unwrap_or_default());
    u16::try_from(number).map_err(|_| invalid(&path, format_args!("{number} is not a port: expected {want}")))
}

fn invalid(path: &str, why: std::fmt::Arguments<'_>) -> ApiError {
    ApiError::bad_request(format!("invalid argument: {path}: {why}"))
}

/// What a user wants of a service's ports and names.
pub fn spec_model(spec: &EndpointSpec) -> EndpointModel {
    EndpointModel {
        mode: Some(match spec.mode {
            EndpointMode::Vip => EndpointSpecModeEnum::VIP,
            EndpointMode::Dnsrr => EndpointSpecModeEnum::DNSRR,
        }),
        ports: models(&spec.ports),
    }
}

fn models(ports: &[Port]) -> Option<Vec<EndpointPortConfig>> {
    (!ports.is_empty()).then(|| ports.iter().map(port_model).collect())
}

/// Numbers that are 0 are left out, as in Docker: `docker service update` sends back what it read.
fn port_model(port: &Port) -> EndpointPortConfig {
    let number = |port: u16| (port > 0).then(|| i64::from(port));
    EndpointPortConfig {
        name: port.name.clone(),
        protocol: Some(match port.protocol {
            Protocol::Tcp => EndpointPortConfigProtocolEnum::TCP,
            Protocol::Udp => EndpointPortConfigProtocolEnum::UDP,
            Protocol::Sctp => EndpointPortConfigProtocolEnum::SCTP,
        }),
        target_port: number(port.target),
        published_port: number(port.published),
        publish_mode: Some(match port.mode {
            PortMode::Ingress => EndpointPortConfigPublishModeEnum::INGRESS,
            PortMode::Host => EndpointPortConfigPublishModeEnum::HOST,
        }),
    }
}

/// What a service was given. As in Docker, the specification is repeated there once something was.
pub fn of_service(state: &State, service: &Service) -> ServiceEndpoint {
    let given = &service.endpoint;
    let is_empty = given.ports.is_empty() && given.vips.is_empty();
    let spec = if is_empty { EndpointModel::default() } else { spec_model(&service.spec.task.endpoint) };
    let vips = given.vips.iter().filter_map(|(id, address)| {
        let network = state.network(*id)?;
        Some(ServiceEndpointVirtualIps {
            network_id: Some(id.to_string()),
            addr: Some(format!("{address}/{}", network.subnet.prefix())),
        })
    });
    ServiceEndpoint {
        spec: Some(spec),
        ports: models(&given.ports),
        virtual_ips: Some(vips.collect()).filter(|vips: &Vec<_>| !vips.is_empty()),
    }
}

/// The ports that a task has of its board.
pub fn of_board(ports: &[HostPort]) -> PortStatus {
    let ports = ports.iter().map(|port| {
        let HostPort { protocol, published, target } = *port;
        port_model(&Port { name: None, protocol, target, published, mode: PortMode::Host })
    });
    PortStatus { ports: Some(ports.collect()).filter(|ports: &Vec<_>| !ports.is_empty()) }
}

/// The networks that a task has addresses on. Its address in the mesh is told if it is reached there, by a port
/// published on every board: as a way out alone it is nobody's business.
pub fn attachments(state: &State, task: &Task) -> Vec<Value> {
    let show = |network: &_, address, prefix: u8| json!({ "Network": network::object(network), "Addresses": [format!("{address}/{prefix}")] });
    let overlays = task.addresses.networks.iter().filter_map(|(id, address)| {
        let network = state.network(*id)?;
        Some(show(network, *address, network.subnet.prefix()))
    });
    let is_published = task.spec.endpoint.ports.iter().any(|port| port.mode == PortMode::Ingress);
    let mesh = task.addresses.mesh.filter(|_| is_published).and_then(|address| {
        let network = state.networks().find(|network| network.spec.ingress)?;
        Some(show(network, address, network.subnet.prefix()))
    });
    overlays.chain(mesh).collect()
}
