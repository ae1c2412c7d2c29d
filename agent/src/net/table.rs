//! What the manager has told about the network, by key.
//!
//! In: [`Net`] messages. Out: the items, each whole; and what was there before of those that a message changed.

use std::collections::{BTreeMap, BTreeSet};

use racimo_common::id::{NetworkId, NodeId, ServiceId, TaskId};
use racimo_common::wire::{Net, NetNetwork, NetOwn, NetPeer, NetService};

use crate::limits;

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

/// Items as the kernel knows them, of those that have changed since; none: it knows nothing of the item.
#[derive(Debug, Default)]
pub struct Changes {
    /// Other boards.
    pub peers: BTreeMap<NodeId, Option<NetPeer>>,
    /// Networks.
    pub networks: BTreeMap<NetworkId, Option<NetNetwork>>,
    /// Services.
    pub services: BTreeMap<ServiceId, Option<NetService>>,
}

impl Changes {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty() && self.networks.is_empty() && self.services.is_empty()
    }
}

/// Puts an item in the place of the one with its key, and keeps the first that was there.
fn put<K: Ord + Copy, T: PartialEq>(
    items: &mut BTreeMap<K, T>,
    changes: &mut BTreeMap<K, Option<T>>,
    key: K,
    item: Option<T>,
) {
    if items.get(&key) == item.as_ref() {
        return;
    }
    let old = match item {
        Some(item) => items.insert(key, item),
        None => items.remove(&key),
    };
    changes.entry(key).or_insert(old);
}

impl Table {
    /// What is not about services.
    pub fn board(&self) -> Net {
        Net {
            own: self.own.clone(),
            peers: self.peers.values().cloned().collect(),
            networks: self.networks.values().cloned().collect(),
            ..Net::default()
        }
    }

    /// Whether this says something else of a board's own tasks.
    pub fn is_news_of(&self, node: NodeId, net: &Net) -> bool {
        let own = |service: &NetService| -> Vec<(TaskId, bool)> {
            let endpoints = service.endpoints.iter().filter(|endpoint| endpoint.node == node);
            endpoints.map(|endpoint| (endpoint.task, endpoint.active)).collect()
        };
        let known = |service: &NetService| self.services.get(&service.id).map(own).unwrap_or_default();
        net.services.iter().any(|service| own(service) != known(service))
    }

    /// Whether no whole is under way: else there may be things in it that are gone.
    pub fn is_whole(&self) -> bool {
        self.named.is_none()
    }

    /// A session starts: a whole that was under way does not end any more.
    pub fn session(&mut self) {
        self.named = None;
    }

    /// Leaves services out of a message that are not known yet if the agent uses so many bytes of heap that there is no
    /// room for more. `left_out`: those that are out, at most [`limits::LEFT_OUT_MAX`].
    pub fn fit(&self, net: &mut Net, heap: usize, left_out: &mut BTreeSet<ServiceId>) {
        net.services.retain(|service| {
            let fits = heap <= limits::HEAP_NET || self.services.contains_key(&service.id);
            if fits {
                left_out.remove(&service.id);
            } else if left_out.len() < limits::LEFT_OUT_MAX {
                left_out.insert(service.id);
            }
            fits
        });
        left_out.retain(|id| !net.services_gone.contains(id));
    }

    /// Takes a message; it takes effect at once. What a whole does not name goes with its last part.
    pub fn take(&mut self, net: Net) {
        self.take_into(net, &mut Changes::default());
    }

    /// As [`Table::take`], and notes what changed.
    pub fn take_into(&mut self, net: Net, changes: &mut Changes) {
        if net.complete {
            let named = self.named.get_or_insert_default();
            named.own |= net.own.is_some();
            named.peers.extend(net.peers.iter().map(|peer| peer.node));
            named.networks.extend(net.networks.iter().map(|network| network.id));
            named.services.extend(net.services.iter().map(|service| service.id));
        }
        if net.own.is_some() {
            self.own = net.own;
        }
        for peer in net.peers {
            put(&mut self.peers, &mut changes.peers, peer.node, Some(peer));
        }
        for network in net.networks {
            put(&mut self.networks, &mut changes.networks, network.id, Some(network));
        }
        for mut service in net.services {
            let known = self.services.get(&service.id);
            known.into_iter().for_each(|known| keep_known(&mut service, known));
            put(&mut self.services, &mut changes.services, service.id, Some(service));
        }
        let mut gone = (net.peers_gone, net.networks_gone, net.services_gone);
        if net.complete && net.last {
            let named = self.named.take().unwrap_or_default();
            self.own = self.own.take().filter(|_| named.own);
            gone.0.extend(self.peers.keys().filter(|id| !named.peers.contains(id)));
            gone.1.extend(self.networks.keys().filter(|id| !named.networks.contains(id)));
            gone.2.extend(self.services.keys().filter(|id| !named.services.contains(id)));
        }
        for id in gone.0 {
            put(&mut self.peers, &mut changes.peers, id, None);
        }
        for id in gone.1 {
            put(&mut self.networks, &mut changes.networks, id, None);
        }
        for id in gone.2 {
            put(&mut self.services, &mut changes.services, id, None);
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
    use racimo_common::id::RandomId;
    use racimo_common::wire::NetEndpoint;

    use super::*;

    fn service(endpoints: &[(u128, bool, bool)]) -> Net {
        let endpoint = |&(task, active, unsure): &(u128, bool, bool)| NetEndpoint {
            targets: Box::default(),
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
    fn services_find_room_or_are_left_out() {
        let mut left_out = BTreeSet::new();
        let mut other = |id, heap, table: &mut Table| {
            let mut net = service(&[(id, true, false)]);
            net.services[0].id = ServiceId::from_bits(id);
            table.fit(&mut net, heap, &mut left_out);
            table.take(net);
            (left_out.len(), table.services.len())
        };
        let mut table = Table::default();
        assert_eq!(other(1, limits::HEAP_NET, &mut table), (0, 1));
        assert_eq!(other(2, limits::HEAP_NET + 1, &mut table), (1, 1));
        assert_eq!(other(2, limits::HEAP_NET + 1, &mut table), (1, 1), "the same one");
        assert_eq!(other(3, limits::HEAP_NET + 1, &mut table), (2, 1));
        // Known ones change.
        assert_eq!(other(1, limits::HEAP_MAX, &mut table), (2, 1));
        assert_eq!(other(2, 0, &mut table), (1, 2));
        let mut gone = Net { services_gone: vec![ServiceId::from_bits(3)], ..Net::default() };
        table.fit(&mut gone, limits::HEAP_MAX, &mut left_out);
        assert!(left_out.is_empty());
        for id in 0..3000 {
            let mut net = service(&[(1, true, false)]);
            net.services[0].id = ServiceId::from_bits(100 + id);
            table.fit(&mut net, limits::HEAP_MAX, &mut left_out);
        }
        assert_eq!(left_out.len(), limits::LEFT_OUT_MAX);
    }

    #[test]
    fn news_of_a_boards_own_tasks() {
        let mut table = Table::default();
        let (own, other) = (NodeId::from_bits(1), NodeId::from_bits(2));
        let first = service(&[(1, false, false)]);
        assert!(table.is_news_of(own, &first) && !table.is_news_of(other, &first));
        table.take(first.clone());
        assert!(!table.is_news_of(own, &first));
        assert!(table.is_news_of(own, &service(&[(1, true, false)])) && table.is_news_of(own, &service(&[])));
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
