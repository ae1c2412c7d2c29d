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
        for mut service in net.services {
            let known = self.services.get(&service.id);
            known.into_iter().for_each(|known| keep_known(&mut service, known));
            self.services.insert(service.id, service);
        }
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

/// What the manager is not sure of stays as it was told before.
fn keep_known(service: &mut NetService, known: &NetService) {
    for endpoint in service.endpoints.iter_mut().filter(|endpoint| endpoint.unsure) {
        if let Some(before) = known.endpoints.iter().find(|before| before.task == endpoint.task) {
            endpoint.active = before.active;
        }
    }
}

#[cfg(test)]
mod tests {
    use racimo_common::id::{RandomId, TaskId};
    use racimo_common::wire::NetEndpoint;

    use super::*;

    fn service(endpoints: &[(u128, bool, bool)]) -> Net {
        let endpoint = |&(task, active, unsure): &(u128, bool, bool)| NetEndpoint {
            task: TaskId::from_bits(task),
            slot: None,
            hostname: None,
            node: NodeId::from_bits(1),
            mesh: None,
            addresses: Vec::new(),
            active,
            unsure,
        };
        let service = NetService {
            id: ServiceId::from_bits(1),
            name: "web".into(),
            ports: Vec::new(),
            keep_source: false,
            networks: Vec::new(),
            endpoints: endpoints.iter().map(endpoint).collect(),
        };
        Net { services: vec![service], ..Net::default() }
    }

    #[test]
    fn a_manager_that_has_just_started_changes_nothing_it_does_not_know() {
        let mut table = Table::default();
        table.take(service(&[(1, true, false), (2, false, false)]));
        table.take(service(&[(1, true, true), (2, true, true), (3, true, true), (4, false, false)]));
        let active = |table: &Table| {
            table.services[&ServiceId::from_bits(1)].endpoints.iter().map(|e| e.active).collect::<Vec<_>>()
        };
        assert_eq!(active(&table), [true, false, true, false]);
        table.take(service(&[(1, false, false), (2, true, false)]));
        assert_eq!(active(&table), [false, true]);
    }
}
