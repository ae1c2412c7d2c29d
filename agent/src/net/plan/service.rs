//! What a service's ports and addresses stand for.

use std::net::Ipv4Addr;

use racimo_common::id::{NetworkId, NodeId};
use racimo_common::wire::{Ip, NetPort, NetService};

use super::Published;
use super::rule::Backends;

/// What a service's port stands for; none: it does not publish it.
pub(super) fn backends(service: &NetService, (protocol, published): Published) -> Option<Backends> {
    let is_it = |port: &NetPort| (port.protocol, port.published) == (protocol, published);
    let (place, port) = service.ports.iter().enumerate().find(|(_, port)| is_it(port))?;
    let to = targets(service, place, port).map(|(address, target)| (address, Some(target))).collect();
    Some(Backends { to, protocol: Some(protocol), keeps_source: service.keep_source })
}

/// The tasks that get the connections to a service's port: their addresses in the mesh, and their own ports.
pub fn targets(service: &NetService, place: usize, port: &NetPort) -> impl Iterator<Item = (Ipv4Addr, u16)> {
    let active = service.endpoints.iter().filter(|endpoint| endpoint.active);
    active.filter_map(move |endpoint| Some((endpoint.mesh?.0, endpoint.target(place, port)?)))
}

/// A service's virtual address in a network, with what it stands for.
pub(super) fn virtuals(service: &NetService, network: NetworkId) -> Option<(Ipv4Addr, Backends)> {
    let at = service.networks.iter().position(|attachment| attachment.network == network)?;
    let address = service.networks[at].vip?.0;
    let active = service.endpoints.iter().filter(|endpoint| endpoint.active);
    let to = active.filter_map(|endpoint| Some((address_at(&endpoint.addresses, at)?, None))).collect();
    Some((address, Backends { to, protocol: None, keeps_source: false }))
}

/// The tasks of a service that are on a network: boards and addresses.
pub(super) fn members(service: &NetService, network: NetworkId) -> impl Iterator<Item = (NodeId, Ipv4Addr)> {
    let at = service.networks.iter().position(|attachment| attachment.network == network);
    let endpoints = at.map(|_| &service.endpoints).into_iter().flatten();
    endpoints.filter_map(move |endpoint| Some((endpoint.node, address_at(&endpoint.addresses, at?)?)))
}

fn address_at(addresses: &[Ip], at: usize) -> Option<Ipv4Addr> {
    addresses.get(at).map(|address| address.0).filter(|address| !address.is_unspecified())
}
