//! What a change of another board, a network or a service makes to be done.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::rc::Rc;

use racimo_common::id::{NetworkId, NodeId, ServiceId, TaskId};
use racimo_common::wire::{NetEndpoint, NetNetwork, NetOwn, NetPeer, NetService};

use super::rule::Backends;
use super::service::{backends, members, virtuals};
use super::task::Overlay;
use super::{Op, Peer, Place, Published, View};
use crate::net::netlink::conntrack::Which;

/// A service that changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change<'a> {
    pub(super) old: Option<&'a NetService>,
    pub(super) new: Option<&'a NetService>,
    /// Whether what did not change is to be told, too.
    pub(super) anew: bool,
}

impl<'a> Change<'a> {
    /// The ports whose tasks are others now.
    pub(super) fn ports(self) -> impl Iterator<Item = Published> + 'a {
        let both = self.old.into_iter().chain(self.new);
        let ports: BTreeSet<Published> =
            both.flat_map(|service| &service.ports).map(|port| (port.protocol, port.published)).collect();
        ports.into_iter().filter(move |port| {
            let of = |service: Option<&NetService>| service.and_then(|service| backends(service, *port));
            self.anew || of(self.old) != of(self.new)
        })
    }
}

fn endpoint(service: Option<&NetService>, task: TaskId) -> Option<&NetEndpoint> {
    service?.endpoints.iter().find(|endpoint| endpoint.task == task)
}

/// Connections to be forgotten, by where and which.
type Found = BTreeMap<(Place, Which), Vec<Ipv4Addr>>;

impl View<'_> {
    pub(super) fn peer(self, own: &NetOwn, id: NodeId, old: Option<NetPeer>, keeps_source: bool, ops: &mut Vec<Op>) {
        let new = self.table.peers.get(&id);
        let changed = |old: &NetPeer| new.is_none_or(|new| (new.subnet, new.address) != (old.subnet, old.address));
        if let Some(old) = old.as_ref().filter(|old| changed(old)) {
            let others = self.table.peers.values().map(|peer| peer.address).chain([own.address]);
            let address = !others.into_iter().any(|address| address == old.address);
            ops.push(Op::PeerGone { peer: Peer::new(old, own), address });
            // Another one may have its part by now, and have been told of before.
            let heirs = self.table.peers.values().filter(|peer| peer.node != id && peer.subnet == old.subnet);
            ops.extend(heirs.map(|peer| Op::Peer { peer: Peer::new(peer, own), keeps_source }));
        }
        if let Some(new) = new.filter(|_| old.as_ref().is_none_or(changed)) {
            ops.push(Op::Peer { peer: Peer::new(new, own), keeps_source });
        }
        // Its tasks are reached by its address.
        for network in self.local_networks() {
            let theirs = self.table.services.values().flat_map(|service| members(service, network.id));
            for (_, address) in theirs.filter(|(node, _)| *node == id) {
                ops.push(Op::Remote { vni: network.vni, address, board: self.vtep(network, id) });
            }
        }
    }

    pub(super) fn network(self, id: NetworkId, old: Option<NetNetwork>, ops: &mut Vec<Op>) {
        // One that is made anew has another number.
        let gone = old.map(|old| old.vni).filter(|vni| self.table.networks.get(&id).is_none_or(|new| new.vni != *vni));
        ops.extend(gone.filter(|vni| !self.tasks.values().any(|task| task.vnis.contains(vni))).map(Op::OverlayGone));
        let (Some(own), Some(network)) = (&self.table.own, self.table.networks.get(&id)) else { return };
        if self.on(id).next().is_some() {
            ops.push(Op::Overlay(Overlay::new(network, own)));
        }
    }

    /// All but its ports.
    pub(super) fn service(self, change: Change<'_>, ops: &mut Vec<Op>, left: &mut Vec<(ServiceId, TaskId)>) {
        let Change { old, new, .. } = change;
        let both = || old.into_iter().chain(new);
        let networks: BTreeSet<NetworkId> =
            both().flat_map(|service| &service.networks).map(|attachment| attachment.network).collect();
        for id in networks {
            if self.on(id).next().is_none() {
                continue;
            }
            self.virtual_address(id, change, ops);
            if let Some(network) = self.table.networks.get(&id) {
                self.remote(network, change, ops);
            }
        }
        self.forget(old, new, ops, left);
    }

    fn virtual_address(self, id: NetworkId, change: Change<'_>, ops: &mut Vec<Op>) {
        let of = |service: Option<&NetService>| service.and_then(|service| virtuals(service, id));
        let (old, new) = (of(change.old), of(change.new));
        if old == new && !change.anew {
            return;
        }
        let address_of = |found: &Option<(Ipv4Addr, Backends)>| found.as_ref().map(|(address, _)| *address);
        let gone = address_of(&old).filter(|address| Some(*address) != address_of(&new));
        // Another service may have it by now.
        let taken = |address: Ipv4Addr| {
            self.table.services.values().filter_map(|service| virtuals(service, id)).find(|(a, _)| *a == address)
        };
        let found = [gone.map(|address| (address, taken(address).map(|(_, to)| to))), new.map(|(a, to)| (a, Some(to)))];
        for (address, to) in found.into_iter().flatten() {
            let to = to.map(Rc::new);
            ops.extend(self.on(id).map(|task| Op::Virtual { task, address, to: to.clone() }));
        }
    }

    fn remote(self, network: &NetNetwork, change: Change<'_>, ops: &mut Vec<Op>) {
        let of = |service: Option<&NetService>| -> BTreeMap<Ipv4Addr, NodeId> {
            service.into_iter().flat_map(|service| members(service, network.id)).map(|(node, a)| (a, node)).collect()
        };
        let (old, new) = (of(change.old), of(change.new));
        let vni = network.vni;
        let gone: BTreeSet<Ipv4Addr> = old.keys().filter(|address| !new.contains_key(address)).copied().collect();
        if !gone.is_empty() {
            // Another service's task may have the address by now.
            let taken: BTreeMap<Ipv4Addr, Ipv4Addr> =
                self.remotes(network).filter(|(address, _)| gone.contains(address)).collect();
            let now = |address: Ipv4Addr| Op::Remote { vni, address, board: taken.get(&address).copied() };
            ops.extend(gone.into_iter().map(now));
        }
        for (&address, node) in new.iter().filter(|(address, node)| change.anew || old.get(address) != Some(node)) {
            let board = self.vtep(network, *node);
            if board.is_some() || old.contains_key(&address) {
                ops.push(Op::Remote { vni, address, board });
            }
        }
    }

    /// Connections of tasks that are no more, and datagrams of those that take no more and are still there: `left`.
    fn forget(
        self,
        old: Option<&NetService>,
        new: Option<&NetService>,
        ops: &mut Vec<Op>,
        left: &mut Vec<(ServiceId, TaskId)>,
    ) {
        let Some(old) = old else { return };
        let mut found = Found::new();
        for gone in &old.endpoints {
            match endpoint(new, gone.task) {
                None => self.remembered(old, gone, Which::All, &mut found),
                Some(now) if gone.active && !now.active => {
                    self.remembered(old, gone, Which::Datagrams, &mut found);
                    left.push((old.id, gone.task));
                }
                Some(_) => {}
            }
        }
        forget(found, ops);
    }

    /// Connections that nobody has answered, to tasks that are still out of the balance.
    pub(super) fn forget_unanswered(self, left: &[(ServiceId, TaskId)], ops: &mut Vec<Op>) {
        let mut found = Found::new();
        for (id, task) in left {
            let Some(service) = self.table.services.get(id) else { continue };
            if let Some(endpoint) = endpoint(Some(service), *task).filter(|endpoint| !endpoint.active) {
                self.remembered(service, endpoint, Which::Unanswered, &mut found);
            }
        }
        forget(found, ops);
    }

    /// Where connections to a task are remembered, and by which of its addresses.
    fn remembered(self, service: &NetService, endpoint: &NetEndpoint, which: Which, found: &mut Found) {
        if let Some(address) = endpoint.mesh.filter(|_| !service.ports.is_empty()) {
            found.entry((Place::Board, which)).or_default().push(address.0);
        }
        for (attachment, address) in service.networks.iter().zip(&endpoint.addresses) {
            if address.0.is_unspecified() {
                continue;
            }
            for task in self.on(attachment.network) {
                found.entry((Place::Task(task), which)).or_default().push(address.0);
            }
        }
    }
}

fn forget(found: Found, ops: &mut Vec<Op>) {
    let op = |((place, which), addresses)| Op::Forget { place, addresses, which };
    ops.extend(found.into_iter().map(op));
}
