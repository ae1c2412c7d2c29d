//! The names that a task sees: what is told about its networks, and itself.
//!
//! In: the [`Table`], the task's [`Own`], a name in lower case and a type. Out: what is [`Found`]. Keeps nothing.
//!
//! On each of the task's networks, in their order; the first that knows the name answers. A name without a network is
//! looked up before `name.network`.
//!
//! | name | what |
//! |---|---|
//! | service, alias | its virtual address; without one the addresses of its active tasks. Several services: all of theirs |
//! | `tasks.` service or alias | the addresses of its active tasks |
//! | `web.1`, `web.1.<task id>`, host name, task id or its first 12 characters | the address of that task |

use std::net::Ipv4Addr;

use racimo_common::id::{ID_CHARS, NetworkId, TaskId};
use racimo_common::wire::{NetEndpoint, NetService, TaskNet};

use super::message;
use crate::net::table::Table;

/// Characters of a task's id that are its host name.
const SHORT_CHARS: usize = 12;

/// The task that asks.
#[derive(Debug, Clone)]
pub struct Own {
    /// Its id.
    pub task: TaskId,
    /// Its addresses.
    pub net: TaskNet,
    /// Its host name.
    pub hostname: String,
    /// `web.1`.
    pub slot_name: String,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Addresses, in no order.
    Addresses(Vec<Ipv4Addr>),
    /// An address's name.
    Name(String),
    /// The name is there, without records of this type. It must not be said to be unknown: musl gives up the other
    /// types then.
    Empty,
    /// There is no such name, and nobody else is to be asked: it never leaves the cluster.
    Unknown,
    /// Not ours.
    Elsewhere,
}

/// Looks a name of `labels` labels up. It is in lower case.
pub fn find(table: &Table, own: &Own, name: &str, labels: usize, kind: u16) -> Found {
    // The root: a service that was removed has no name either, only its last tasks have addresses.
    if labels == 0 {
        return Found::Elsewhere;
    }
    if let Some(addresses) = addresses(table, own, name) {
        return match kind {
            message::A | message::ANY if !addresses.is_empty() => Found::Addresses(addresses),
            _ => Found::Empty,
        };
    }
    match (message::reverse(name), labels, kind) {
        (Some(address), _, _) => name_of(table, own, address, kind),
        // Whoever checks signatures asks for top domains.
        (None, 1, message::NS | message::SOA | message::DS | message::DNSKEY) => Found::Elsewhere,
        (None, 1, _) => Found::Unknown,
        (None, _, _) => Found::Elsewhere,
    }
}

/// The addresses of a name; none: it is not ours.
fn addresses(table: &Table, own: &Own, name: &str) -> Option<Vec<Ipv4Addr>> {
    let networks = || own.net.networks.iter().map(|(network, _)| *network);
    if let Some(found) = networks().find_map(|network| on_network(table, network, name)) {
        return Some(found);
    }
    if is_own(own, name) {
        let first = own.net.networks.first().map(|(_, address)| *address).or(own.net.mesh);
        return Some(first.iter().map(|address| address.0).collect());
    }
    // Names and networks may have dots: the shortest network first, as in Docker.
    for (dot, _) in name.rmatch_indices('.') {
        let (front, network_name) = (&name[..dot], &name[dot + 1..]);
        let is_named = |id: &NetworkId| {
            table.networks.get(id).is_some_and(|network| network.name.eq_ignore_ascii_case(network_name))
        };
        for network in networks().filter(is_named) {
            if let Some(found) = on_network(table, network, front) {
                return Some(found);
            }
            if is_own(own, front) {
                let here = own.net.networks.iter().find(|(id, _)| *id == network);
                return here.map(|(_, address)| vec![address.0]);
            }
        }
    }
    None
}

/// The addresses of a name on a network; none: it is unknown there.
fn on_network(table: &Table, network: NetworkId, name: &str) -> Option<Vec<Ipv4Addr>> {
    let (mut found, mut is_known) = (Vec::new(), false);
    for (service, place) in services_on(table, network) {
        let attachment = &service.networks[place];
        let is_named = |name: &str| {
            service.name.eq_ignore_ascii_case(name)
                || attachment.aliases.iter().any(|alias| alias.eq_ignore_ascii_case(name))
        };
        let is_service = is_named(name);
        if !is_service && !name.strip_prefix("tasks.").is_some_and(is_named) {
            continue;
        }
        is_known = true;
        match attachment.vip {
            Some(vip) if is_service => found.push(vip.0),
            _ => found.extend(active(service).filter_map(|endpoint| address_of(endpoint, place))),
        }
    }
    if is_known {
        return Some(found);
    }
    task_on_network(table, network, name)
}

/// The addresses of the task of this name. Of several with the same host name those that are active: another may be
/// the one that it replaces.
fn task_on_network(table: &Table, network: NetworkId, name: &str) -> Option<Vec<Ipv4Addr>> {
    let (mut found, mut others) = (Vec::new(), Vec::new());
    for (service, place) in services_on(table, network) {
        let slot = strip_name(name, &service.name);
        let is_named = |endpoint: &NetEndpoint| {
            slot.is_some_and(|slot| is_slot(endpoint, slot))
                || is_id(endpoint.task, name)
                || endpoint.hostname.as_deref().is_some_and(|hostname| hostname.eq_ignore_ascii_case(name))
        };
        for endpoint in service.endpoints.iter().filter(|endpoint| is_named(endpoint)) {
            let list = if endpoint.active { &mut found } else { &mut others };
            list.extend(address_of(endpoint, place));
        }
    }
    let found = if found.is_empty() { others } else { found };
    (!found.is_empty()).then_some(found)
}

/// What an address is called: `web.network` for a service's, `web.1.<task id>.network` for a task's.
fn name_of(table: &Table, own: &Own, address: Ipv4Addr, kind: u16) -> Found {
    let found =
        |name: String| if matches!(kind, message::PTR | message::ANY) { Found::Name(name) } else { Found::Empty };
    for (id, own_address) in &own.net.networks {
        let Some(network) = table.networks.get(id).filter(|network| network.subnet.contains(address)) else { continue };
        for (service, place) in services_on(table, *id) {
            if service.networks[place].vip.is_some_and(|vip| vip.0 == address) {
                return found(format!("{}.{}", service.name, network.name));
            }
            let is_it = |endpoint: &&NetEndpoint| address_of(endpoint, place) == Some(address);
            if let Some(endpoint) = service.endpoints.iter().find(is_it) {
                return found(format!("{}{}.{}", slot_prefix(service, endpoint), endpoint.task, network.name));
            }
        }
        if own_address.0 == address {
            return found(format!("{}.{}.{}", own.slot_name, own.task, network.name));
        }
        return Found::Unknown;
    }
    if own.net.mesh.is_some_and(|mesh| mesh.0 == address) {
        return found(format!("{}.{}", own.slot_name, own.task));
    }
    // The addresses of other tasks in the mesh are nobody's business.
    match &table.own {
        Some(board) if board.mesh.contains(address) => Found::Unknown,
        _ => Found::Elsewhere,
    }
}

/// The services on a network, and which of their networks it is.
fn services_on(table: &Table, network: NetworkId) -> impl Iterator<Item = (&NetService, usize)> {
    table.services.values().filter_map(move |service| {
        let place = service.networks.iter().position(|attachment| attachment.network == network)?;
        Some((service, place))
    })
}

fn active(service: &NetService) -> impl Iterator<Item = &NetEndpoint> {
    service.endpoints.iter().filter(|endpoint| endpoint.active)
}

fn address_of(endpoint: &NetEndpoint, place: usize) -> Option<Ipv4Addr> {
    endpoint.addresses.get(place).map(|address| address.0).filter(|address| !address.is_unspecified())
}

/// What follows `first` and a dot.
fn strip_name<'a>(name: &'a str, first: &str) -> Option<&'a str> {
    let (front, rest) = (name.get(..first.len())?, name.get(first.len()..)?);
    (!first.is_empty() && front.eq_ignore_ascii_case(first)).then(|| rest.strip_prefix('.')).flatten()
}

/// `web.1.`; nothing for a service that was removed.
fn slot_prefix(service: &NetService, endpoint: &NetEndpoint) -> String {
    match (service.name.as_str(), endpoint.slot) {
        ("", _) => String::new(),
        (name, Some(slot)) => format!("{name}.{slot}."),
        (name, None) => format!("{name}.{}.", endpoint.node),
    }
}

/// Whether `text` is the endpoint's slot, or that and its task's id.
fn is_slot(endpoint: &NetEndpoint, text: &str) -> bool {
    let slot = match endpoint.slot {
        Some(slot) => slot.to_string(),
        None => endpoint.node.to_string(),
    };
    match text.strip_prefix(slot.as_str()) {
        Some("") => true,
        Some(rest) => rest.strip_prefix('.').is_some_and(|id| id.len() == ID_CHARS && is_id(endpoint.task, id)),
        None => false,
    }
}

fn is_id(task: TaskId, name: &str) -> bool {
    matches!(name.len(), SHORT_CHARS | ID_CHARS)
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && task.to_string().starts_with(name)
}

/// Whether it is the asking task's own name: it may ask before the manager has told of it.
fn is_own(own: &Own, name: &str) -> bool {
    let is_named = |text: &str| text.eq_ignore_ascii_case(name);
    is_named(&own.hostname)
        || is_named(&own.slot_name)
        || is_id(own.task, name)
        || strip_name(name, &own.slot_name).is_some_and(|id| id.len() == ID_CHARS && is_id(own.task, id))
}
