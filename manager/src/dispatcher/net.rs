//! What a board is told about the network.
//!
//! In: the [`Directory`], the view it was made from, a node, what its board was told. Out: the [`Net`] messages that
//! bring it up to date, each small enough for a board. A board hears of all other boards, of the networks its tasks
//! are on, and of services that publish ports in the mesh or are on those networks; of the latter only what belongs
//! to those networks.

use std::collections::BTreeSet;
use std::sync::Arc;

use racimo_common::id::{NetworkId, NodeId, ServiceId};
use racimo_common::wire::{Net, NetEndpoint, NetNetwork, NetPeer, NetService};

use super::directory::{self, Directory, Entry, Key};
use crate::limits::NET_PART_BYTES;
use crate::store::View;

/// What a board was told: this directory, as seen by a board with tasks on these networks.
#[derive(Debug, Clone, Default)]
pub struct Told {
    directory: Directory,
    networks: BTreeSet<NetworkId>,
}

/// Messages, made one by one as they are sent; the items are shared with the directory.
#[derive(Debug)]
pub struct Parts {
    is_whole: bool,
    own: Option<racimo_common::wire::NetOwn>,
    items: std::vec::IntoIter<Item>,
    is_done: bool,
}

#[derive(Debug, Clone)]
enum Item {
    PeerGone(NodeId),
    NetworkGone(NetworkId),
    ServiceGone(ServiceId),
    Peer(Arc<NetPeer>),
    Network(Arc<NetNetwork>),
    Service(Shape),
}

/// A service as a board needs it.
#[derive(Debug, Clone)]
enum Shape {
    /// As it is in the directory.
    As(Arc<NetService>),
    /// Only these of its networks, by their places.
    On(Arc<NetService>, u64),
}

impl Shape {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::As(one), Self::As(other)) => Arc::ptr_eq(one, other),
            (Self::On(one, places), Self::On(other, others)) => Arc::ptr_eq(one, other) && places == others,
            (Self::As(_), Self::On(..)) | (Self::On(..), Self::As(_)) => false,
        }
    }

    fn service(&self) -> &NetService {
        match self {
            Self::As(service) | Self::On(service, _) => service,
        }
    }

    fn make(&self) -> NetService {
        let (service, places) = match self {
            Self::As(service) => return (**service).clone(),
            Self::On(service, places) => (service, *places),
        };
        let endpoint =
            |end: &NetEndpoint| NetEndpoint { addresses: at(&end.addresses, places).collect(), ..end.clone() };
        // One that is on none of these networks and has no address in the mesh is nothing to the board.
        let concerns = |end: &NetEndpoint| end.mesh.is_some() || end.addresses.iter().any(|ip| !ip.0.is_unspecified());
        NetService {
            networks: at(&service.networks, places).collect(),
            endpoints: service.endpoints.iter().map(endpoint).filter(concerns).collect(),
            name: service.name.clone(),
            ports: service.ports.clone(),
            ..**service
        }
    }
}

fn at<T: Clone>(items: &[T], places: u64) -> impl Iterator<Item = T> {
    items.iter().enumerate().filter(move |(place, _)| places & (1 << place) != 0).map(|(_, item)| item.clone())
}

/// What of a service concerns a board with tasks on these networks.
fn shape(entry: &Entry, networks: &BTreeSet<NetworkId>) -> Option<Shape> {
    let all = &entry.whole.networks;
    let places: u64 =
        all.iter().enumerate().filter(|(_, at)| networks.contains(&at.network)).map(|(place, _)| 1 << place).sum();
    match places.count_ones() as usize {
        0 => entry.mesh.clone().map(Shape::As),
        count if count == all.len() => Some(Shape::As(entry.whole.clone())),
        _ => Some(Shape::On(entry.whole.clone(), places)),
    }
}

/// Networks of the tasks that the board holds.
fn local(view: &View, node: NodeId) -> BTreeSet<NetworkId> {
    let held = view.state.tasks_on_node(node).filter(|task| task.ended.is_none());
    held.flat_map(|task| &task.addresses.networks).map(|(network, _)| *network).collect()
}

/// Everything, and the record of it.
pub fn complete(directory: &Directory, view: &View, node: NodeId) -> (Parts, Told) {
    let told = Told { directory: directory.clone(), networks: local(view, node) };
    let peers = directory.nodes().iter().filter(|(id, _)| **id != node).map(|(_, peer)| Item::Peer(peer.clone()));
    let networks = told.networks.iter().filter_map(|id| directory.networks().get(id).cloned()).map(Item::Network);
    let services = directory.services().values().filter_map(|entry| shape(entry, &told.networks)).map(Item::Service);
    let items: Vec<Item> = peers.chain(networks).chain(services).collect();
    (Parts { is_whole: true, own: directory.own(node), items: items.into_iter(), is_done: false }, told)
}

/// What changed since `told` was recorded, which it updates; and whether the board's tasks are to be looked at.
pub fn delta(directory: &Directory, view: &View, node: NodeId, told: &mut Told) -> (Parts, bool) {
    let old = std::mem::replace(&mut told.directory, directory.clone());
    let news: Option<BTreeSet<Key>> = directory.since(old.count()).map(Iterator::collect);
    let touched = news.as_ref().is_none_or(|news| news.contains(&Key::Board(node)));
    let networks = if touched { local(view, node) } else { told.networks.clone() };
    let moved = networks != told.networks;
    let before = std::mem::replace(&mut told.networks, networks);
    let (own, own_before) = (directory.own(node), old.own(node));
    if own.is_none() && own_before.is_some() {
        // Only the whole can say that there is none.
        let (parts, _) = complete(directory, view, node);
        return (parts, touched);
    }
    let own = own.filter(|own| own_before.as_ref() != Some(own));
    let (mut peers, mut networks, mut services) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for key in news.iter().flatten() {
        match *key {
            Key::Mesh | Key::Board(_) => {}
            Key::Node(id) => drop(peers.insert(id)),
            Key::Network(id) => drop(networks.insert(id)),
            Key::Service(id) => drop(services.insert(id)),
        }
    }
    if news.is_none() {
        peers.extend(old.nodes().keys().chain(directory.nodes().keys()));
        networks.extend(old.networks().keys().chain(directory.networks().keys()));
    }
    if news.is_none() || moved {
        networks.extend(before.iter().chain(&told.networks));
        services.extend(old.services().keys().chain(directory.services().keys()));
    }
    let mut gone = Vec::new();
    let mut items = Vec::new();
    for id in peers.into_iter().filter(|id| *id != node) {
        match (old.nodes().get(&id), directory.nodes().get(&id)) {
            (Some(old), Some(new)) if Arc::ptr_eq(old, new) => {}
            (_, Some(new)) => items.push(Item::Peer(new.clone())),
            (Some(_), None) => gone.push(Item::PeerGone(id)),
            (None, None) => {}
        }
    }
    for id in networks {
        let old = old.networks().get(&id).filter(|_| before.contains(&id));
        let new = directory.networks().get(&id).filter(|_| told.networks.contains(&id));
        match (old, new) {
            (Some(old), Some(new)) if Arc::ptr_eq(old, new) => {}
            (_, Some(new)) => items.push(Item::Network(new.clone())),
            (Some(_), None) => gone.push(Item::NetworkGone(id)),
            (None, None) => {}
        }
    }
    for id in services {
        let old = old.services().get(&id).and_then(|entry| shape(entry, &before));
        let new = directory.services().get(&id).and_then(|entry| shape(entry, &told.networks));
        match (old, new) {
            (Some(old), Some(new)) if old.is_same(&new) => {}
            (_, Some(new)) => items.push(Item::Service(new)),
            (Some(_), None) => gone.push(Item::ServiceGone(id)),
            (None, None) => {}
        }
    }
    // What is gone may have left its address to something that came.
    gone.extend(items);
    let is_done = own.is_none() && gone.is_empty();
    (Parts { is_whole: false, own, items: gone.into_iter(), is_done }, touched)
}

impl Iterator for Parts {
    type Item = Net;

    fn next(&mut self) -> Option<Net> {
        if self.is_done {
            return None;
        }
        let mut net = Net { complete: self.is_whole, own: self.own.take(), ..Net::default() };
        let mut room = NET_PART_BYTES;
        while let Some(item) = self.items.as_slice().first() {
            let bytes = item.bytes();
            if bytes > room && room < NET_PART_BYTES {
                return Some(net);
            }
            room = room.saturating_sub(bytes);
            self.items.next().into_iter().for_each(|item| item.put(&mut net));
        }
        self.is_done = true;
        net.last = self.is_whole;
        Some(net)
    }
}

impl Item {
    /// Bytes on the wire, at most.
    fn bytes(&self) -> usize {
        match self {
            Self::PeerGone(_) | Self::NetworkGone(_) | Self::ServiceGone(_) => 18,
            Self::Peer(_) => 128,
            Self::Network(network) => 160 + network.name.len(),
            Self::Service(shape) => directory::bytes(shape.service()),
        }
    }

    fn put(self, net: &mut Net) {
        match self {
            Self::PeerGone(id) => net.peers_gone.push(id),
            Self::NetworkGone(id) => net.networks_gone.push(id),
            Self::ServiceGone(id) => net.services_gone.push(id),
            Self::Peer(peer) => net.peers.push((*peer).clone()),
            Self::Network(network) => net.networks.push((*network).clone()),
            Self::Service(shape) => net.services.push(shape.make()),
        }
    }
}
