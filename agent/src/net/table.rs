//! What the manager has told about the network, by key.
//!
//! In: [`Net`] messages. Out: the items, each whole; and which of them a message changed.

use std::collections::{BTreeMap, BTreeSet};

use racimo_common::id::{NetworkId, NodeId, ServiceId};
use racimo_common::wire::{Net, NetNetwork, NetOwn, NetPeer, NetService};

/// All items.
#[derive(Debug, Default)]
pub struct Table {
    /// The board itself; none: the cluster has no mesh, or has not told yet.
    pub own: Option<NetOwn>,
    /// The other boards.
    pub peers: BTreeMap<NodeId, NetPeer>,
    /// Overlay networks with tasks on this board.
    pub networks: BTreeMap<NetworkId, NetNetwork>,
    /// Services that concern it.
    pub services: BTreeMap<ServiceId, NetService>,
    /// What parts of a whole that has not ended yet named.
    named: Option<Named>,
}

#[derive(Debug, Default)]
struct Named {
    own: bool,
    peers: BTreeSet<NodeId>,
    networks: BTreeSet<NetworkId>,
    services: BTreeSet<ServiceId>,
}

impl Table {
    /// A session starts: a whole that was under way does not end any more.
    pub fn session(&mut self) {
        self.named = None;
    }

    /// Takes a message; it takes effect at once. What a whole does not name goes with its last part.
    pub fn take(&mut self, net: Net) {
        if net.complete {
            let named = self.named.get_or_insert_default();
            named.own |= net.own.is_some();
            named.peers.extend(net.peers.iter().map(|peer| peer.node));
            named.networks.extend(net.networks.iter().map(|network| network.id));
            named.services.extend(net.services.iter().map(|service| service.id));
        }
        self.own = net.own.or(self.own.take());
        self.peers.extend(net.peers.into_iter().map(|peer| (peer.node, peer)));
        self.networks.extend(net.networks.into_iter().map(|network| (network.id, network)));
        self.services.extend(net.services.into_iter().map(|service| (service.id, service)));
        self.peers.retain(|id, _| !net.peers_gone.contains(id));
        self.networks.retain(|id, _| !net.networks_gone.contains(id));
        self.services.retain(|id, _| !net.services_gone.contains(id));
        if net.complete && net.last {
            let named = self.named.take().unwrap_or_default();
            self.own = self.own.take().filter(|_| named.own);
            self.peers.retain(|id, _| named.peers.contains(id));
            self.networks.retain(|id, _| named.networks.contains(id));
            self.services.retain(|id, _| named.services.contains(id));
        }
    }
}
