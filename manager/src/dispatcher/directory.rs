//! What boards are told about the network, made once for all of them.
//!
//! In: the view, and the events that say where to look. Out: items by key, each behind an [`Arc`] that stays the same
//! as long as the item does, and the keys of the latest changes. A clone costs a few counters; so each session keeps
//! the directory it told its board last, and compares pointers under the keys that changed since ([`super::net`]).

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use imbl::{OrdMap, Vector};
use racimo_common::id::{NetworkId, NodeId, ServiceId};
use racimo_common::limits::FRAME_TO_AGENT_MAX;
use racimo_common::net::{MTU, MTU_ENCRYPTED, Subnet};
use racimo_common::object::{Desired, Port, PortMode, TaskState};
use racimo_common::wire::{NetAttachment, NetEndpoint, NetNetwork, NetOwn, NetPeer, NetPort, NetService};

use super::work;
use crate::limits::{ENDPOINTS_MAX, NET_NEWS_MAX, TOLD_NETWORKS_MAX};
use crate::store::{Event, KEEP_SOURCE_LABEL, Network, Node, Service, Slot, Task, View};

/// All items.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    mesh: Option<Mesh>,
    nodes: OrdMap<NodeId, Arc<NetPeer>>,
    networks: OrdMap<NetworkId, Arc<NetNetwork>>,
    services: OrdMap<ServiceId, Entry>,
    /// What the latest changes were about, the newest last.
    news: Vector<Key>,
    /// How many changes there have been.
    count: u64,
}

/// What a change was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The mesh itself.
    Mesh,
    /// A node's place in it.
    Node(NodeId),
    /// An overlay network.
    Network(NetworkId),
    /// A service.
    Service(ServiceId),
    /// Which tasks are on a board, and what is wanted of them.
    Board(NodeId),
}

/// The mesh between the boards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mesh {
    subnet: Subnet,
    vxlan_port: u16,
    mtu: u16,
    key_epoch: u32,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// All of it.
    pub whole: Arc<NetService>,
    /// What a board needs that is on none of its networks: its ports, and tasks that have or had connections. None:
    /// nothing.
    pub mesh: Option<Arc<NetService>>,
    /// How many of its tasks there was no room for.
    pub left_out: usize,
    /// How many of its networks are not told.
    pub networks_left_out: usize,
}

impl Directory {
    /// Of all that is there.
    pub fn new(view: &View) -> Self {
        let mut directory = Self::default();
        directory.look_at_all(view);
        directory
    }

    /// Takes what changed; the view is as new as the events or newer. Which boards this concerns: none means all.
    pub fn follow(&mut self, view: &View, events: &[Event]) -> Option<BTreeSet<NodeId>> {
        let mut keys = BTreeSet::new();
        for event in events {
            concerns(view, event, &mut keys);
        }
        let mut boards = Some(BTreeSet::new());
        for key in keys {
            if !self.look(view, key) {
                continue;
            }
            self.tell(key);
            match (key, &mut boards) {
                (Key::Board(node), Some(boards)) => drop(boards.insert(node)),
                (Key::Board(_), None) => {}
                (Key::Mesh | Key::Node(_) | Key::Network(_) | Key::Service(_), _) => boards = None,
            }
        }
        boards
    }

    /// Looks at everything: events were lost.
    pub fn look_at_all(&mut self, view: &View) {
        let state = &view.state;
        let mut keys: BTreeSet<Key> = [Key::Mesh].into();
        keys.extend(self.nodes.keys().copied().chain(state.nodes().map(|node| node.id)).map(Key::Node));
        keys.extend(self.networks.keys().copied().chain(state.networks().map(|network| network.id)).map(Key::Network));
        let services = state.services().map(|service| service.id).chain(state.tasks().map(|task| task.service));
        keys.extend(self.services.keys().copied().chain(services).map(Key::Service));
        for key in keys {
            self.look(view, key);
        }
        // Nobody can tell from the news what there was: everybody compares everything.
        self.news.clear();
        self.count += 1;
    }

    /// How many changes there have been.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What changed since there had been `count` changes; none: too much to say.
    pub fn since(&self, count: u64) -> Option<impl Iterator<Item = Key> + '_> {
        let missed = usize::try_from(self.count.saturating_sub(count)).ok()?;
        let skipped = self.news.len().checked_sub(missed)?;
        Some(self.news.iter().skip(skipped).copied())
    }

    /// The board's own place in the mesh.
    pub fn own(&self, node: NodeId) -> Option<NetOwn> {
        let Mesh { subnet: mesh, vxlan_port, mtu, key_epoch } = self.mesh?;
        let NetPeer { subnet, address, .. } = **self.nodes.get(&node)?;
        Some(NetOwn { mesh, subnet, address, vxlan_port, mtu, key_epoch })
    }

    /// Boards that have a place in the mesh.
    pub fn nodes(&self) -> &OrdMap<NodeId, Arc<NetPeer>> {
        &self.nodes
    }

    /// Overlay networks.
    pub fn networks(&self) -> &OrdMap<NetworkId, Arc<NetNetwork>> {
        &self.networks
    }

    /// Services that publish ports or are on overlay networks.
    pub fn services(&self) -> &OrdMap<ServiceId, Entry> {
        &self.services
    }

    fn tell(&mut self, key: Key) {
        if self.news.len() >= NET_NEWS_MAX {
            self.news.pop_front();
        }
        self.news.push_back(key);
        self.count += 1;
    }

    /// Makes one item anew; whether it changed.
    fn look(&mut self, view: &View, key: Key) -> bool {
        let state = &view.state;
        match key {
            Key::Mesh => {
                let new = mesh(view);
                std::mem::replace(&mut self.mesh, new) != new
            }
            Key::Node(id) => put(&mut self.nodes, id, state.node(id).and_then(|node| peer(node)).map(Arc::new)),
            Key::Network(id) => {
                let new = state.network(id).filter(|network| !network.spec.ingress);
                put(&mut self.networks, id, new.map(|network| Arc::new(overlay(network))))
            }
            Key::Service(id) => {
                let old = self.services.get(&id);
                let mut new = entry(view, id, old);
                if let (Some(new), Some(old)) = (&mut new, old) {
                    // What is the same stays the same.
                    keep(&mut new.whole, &old.whole);
                    if let (Some(new), Some(old)) = (&mut new.mesh, &old.mesh) {
                        keep(new, old);
                    }
                }
                put(&mut self.services, id, new)
            }
            Key::Board(_) => true,
        }
    }
}

fn keep<T: PartialEq>(new: &mut Arc<T>, old: &Arc<T>) {
    if **new == **old {
        *new = old.clone();
    }
}

fn put<K: Ord + Clone, V: PartialEq + Clone>(map: &mut OrdMap<K, V>, key: K, new: Option<V>) -> bool {
    if map.get(&key) == new.as_ref() {
        return false;
    }
    match new {
        Some(new) => drop(map.insert(key, new)),
        None => drop(map.remove(&key)),
    }
    true
}

/// What an event makes worth looking at.
fn concerns(view: &View, event: &Event, keys: &mut BTreeSet<Key>) {
    match event {
        Event::Cluster => drop(keys.insert(Key::Mesh)),
        Event::Node { id, old, new } => {
            keys.insert(Key::Node(*id));
            let is_there = |node: &Option<Arc<Node>>| node.as_ref().is_some_and(|node| node.written_off.is_none());
            if is_there(old) != is_there(new) {
                services_on(view, *id, keys);
            }
        }
        Event::Network { id, .. } => {
            keys.insert(Key::Network(*id));
            keys.insert(Key::Mesh);
        }
        Event::Service { id, .. } => drop(keys.insert(Key::Service(*id))),
        Event::Task { old, new, .. } => {
            for task in [old, new].into_iter().flatten() {
                keys.insert(Key::Service(task.service));
                keys.extend(task.node.map(Key::Board));
            }
        }
        Event::TaskSeen { service, .. } => drop(keys.insert(Key::Service(*service))),
        // Its first report makes sure what was guessed of its tasks.
        Event::NodeSeen(node) => services_on(view, *node, keys),
        Event::Dependency { .. } => {}
    }
}

fn services_on(view: &View, node: NodeId, keys: &mut BTreeSet<Key>) {
    let live = view.state.tasks_on_node(node).filter(|task| task.ended.is_none());
    keys.extend(live.map(|task| Key::Service(task.service)));
}

fn mesh(view: &View) -> Option<Mesh> {
    let cluster = view.state.cluster()?;
    let network = view.state.networks().find(|network| network.spec.ingress)?;
    Some(Mesh {
        subnet: network.subnet,
        vxlan_port: cluster.net.vxlan_port,
        mtu: mtu(network),
        key_epoch: cluster.key_epoch,
    })
}

fn mtu(network: &Network) -> u16 {
    network.spec.mtu.unwrap_or(if network.spec.encrypted { MTU_ENCRYPTED } else { MTU })
}

/// A node that was written off stays: what still runs there may have connections, and it may come back.
fn peer(node: &Node) -> Option<NetPeer> {
    let (subnet, address) = (node.mesh?, node.data_address()?);
    Some(NetPeer { node: node.id, subnet, address: address.into(), key: node.description.wireguard_key })
}

fn overlay(network: &Network) -> NetNetwork {
    NetNetwork {
        id: network.id,
        name: network.spec.name.clone(),
        vni: network.vni,
        subnet: network.subnet,
        internal: network.spec.internal,
        encrypted: network.spec.encrypted,
        mtu: mtu(network),
    }
}

/// A service as long as it or one of its tasks with addresses is there. A removed one has no ports, names and virtual
/// addresses any more; but connections to its last tasks go on, so boards still need the way to them.
fn entry(view: &View, id: ServiceId, old: Option<&Entry>) -> Option<Entry> {
    let service = view.state.service(id);
    let live = view.state.tasks_of_service(id).filter(|task| task.ended.is_none() && has_address(task));
    let (tasks, nodes): (Vec<&Task>, Vec<NodeId>) = live.filter_map(|task| Some((&**task, task.node?))).unzip();
    let (networks, networks_left_out) = attachments(service.map(|service| &**service), &tasks);
    let ports = service.map(|service| ports(service)).unwrap_or_default();
    // Boards without its networks know a service as long as one of its tasks was published.
    let is_meshed = !ports.is_empty() || tasks.iter().any(|task| publishes(task));
    if networks.is_empty() && !is_meshed {
        return None;
    }
    let name = service.map(|service| service.spec.name.clone()).unwrap_or_default();
    let keep_source = service.and_then(|service| service.spec.labels.get(KEEP_SOURCE_LABEL));
    let keep_source = keep_source.is_some_and(|value| value == "true");
    let known = old.map(|old| &old.whole.endpoints[..]).unwrap_or_default();
    let endpoints: Vec<NetEndpoint> =
        tasks.iter().zip(nodes).map(|(task, node)| endpoint(view, (task, node), (&networks, &ports), known)).collect();
    let mut whole = NetService { id, name, ports, keep_source, networks, endpoints };
    let mut mesh = is_meshed.then(|| {
        let had_connections =
            |task: &Task| view.task_state(task) >= TaskState::Running || task.desired > Desired::Running;
        let concerns = |(task, end): &(&&Task, &NetEndpoint)| end.active || had_connections(task);
        let bare =
            |(_, end): (&&Task, &NetEndpoint)| NetEndpoint { hostname: None, addresses: Vec::new(), ..end.clone() };
        let endpoints = tasks.iter().zip(&whole.endpoints).filter(concerns).map(bare).collect();
        NetService { networks: Vec::new(), endpoints, name: whole.name.clone(), ports: whole.ports.clone(), ..whole }
    });
    if !is_meshed {
        whole.endpoints.iter_mut().for_each(|end| end.mesh = None);
    }
    let left_out = bounded(&mut whole).max(mesh.as_mut().map_or(0, bounded));
    Some(Entry { whole: Arc::new(whole), mesh: mesh.map(Arc::new), left_out, networks_left_out })
}

fn has_address(task: &Task) -> bool {
    task.addresses.mesh.is_some() || !task.addresses.networks.is_empty()
}

/// Whether the task was made to answer on ports of all boards.
pub(super) fn publishes(task: &Task) -> bool {
    task.spec.endpoint.ports.iter().any(|port| port.mode == PortMode::Ingress)
}

fn ports(service: &Service) -> Vec<NetPort> {
    let ports = service.endpoint.ports.iter().filter(|port| port.mode == PortMode::Ingress && port.published != 0);
    let port = ports.map(|port| NetPort { protocol: port.protocol, published: port.published, target: port.target });
    port.collect()
}

/// The service's networks; after them those that only older tasks of it are on. And how many there is no room for.
fn attachments(service: Option<&Service>, tasks: &[&Task]) -> (Vec<NetAttachment>, usize) {
    let vip = |network| {
        let vips = &service?.endpoint.vips;
        vips.iter().find(|(id, _)| *id == network).map(|(_, vip)| (*vip).into())
    };
    let wanted = service.map(|service| &service.spec.task.networks[..]).unwrap_or_default();
    let mut networks: Vec<NetAttachment> = Vec::new();
    for attachment in wanted {
        let (network, aliases) = (attachment.network, attachment.aliases.clone());
        networks.push(NetAttachment { network, vip: vip(network), aliases });
    }
    let older: BTreeSet<NetworkId> =
        tasks.iter().flat_map(|task| &task.addresses.networks).map(|(network, _)| *network).collect();
    for network in older {
        if !wanted.iter().any(|attachment| attachment.network == network) {
            networks.push(NetAttachment { network, vip: None, aliases: Vec::new() });
        }
    }
    let left_out = networks.len().saturating_sub(TOLD_NETWORKS_MAX);
    networks.truncate(TOLD_NETWORKS_MAX);
    (networks, left_out)
}

/// `known`: as it was told before. A container keeps the host name it was made with.
fn endpoint(
    view: &View,
    (task, node): (&Task, NodeId),
    (networks, ports): (&[NetAttachment], &[NetPort]),
    known: &[NetEndpoint],
) -> NetEndpoint {
    let on = |network: NetworkId| task.addresses.networks.iter().find(|(id, _)| *id == network);
    let address = |at: &NetAttachment| on(at.network).map_or(Ipv4Addr::UNSPECIFIED, |(_, address)| *address).into();
    let (active, unsure) = standing(view, task, node);
    let hostname = match known.binary_search_by_key(&task.id, |end| end.task) {
        _ if networks.is_empty() => None,
        Ok(place) => known.get(place).and_then(|end| end.hostname.clone()),
        Err(_) => work::hostname(view, task).map(String::into_boxed_str),
    };
    NetEndpoint {
        task: task.id,
        hostname,
        slot: match task.slot {
            Slot::Replica(number) => Some(number),
            Slot::Node(_) => None,
        },
        node,
        mesh: task.addresses.mesh.map(Into::into),
        addresses: networks.iter().map(address).collect(),
        active,
        targets: targets(task, ports),
        unsure,
    }
}

/// What the task has instead of its service's ports: an update that adds or changes one reaches it last.
fn targets(task: &Task, ports: &[NetPort]) -> Box<[(u8, u16)]> {
    let differs = |(place, port): (usize, &NetPort)| {
        let own = || task.spec.endpoint.ports.iter().filter(|own| own.protocol == port.protocol);
        let is_it = |own: &&Port| own.mode == PortMode::Ingress && own.published == port.published;
        if own().any(|own| own.target == port.target) {
            return None;
        }
        Some((u8::try_from(place).ok()?, own().find(is_it).map_or(0, |own| own.target)))
    };
    ports.iter().enumerate().filter_map(differs).collect()
}

/// Whether the task takes new connections, and whether that is a guess: a manager that has just started has not heard
/// of every board yet, and their tasks shall not leave the balance because of it.
fn standing(view: &View, task: &Task, node: NodeId) -> (bool, bool) {
    let node = view.state.node(node).filter(|node| node.written_off.is_none());
    match node {
        Some(node) if task.desired == Desired::Running => {
            let unsure = view.seen.task(task.id).is_none() && view.seen.node(node.id).is_none();
            (unsure || takes_connections(view, task), unsure)
        }
        Some(_) | None => (false, false),
    }
}

fn takes_connections(view: &View, task: &Task) -> bool {
    let unhealthy = view.seen.task(task.id).is_some_and(|status| status.unhealthy);
    view.task_state(task) == TaskState::Running && !unhealthy
}

/// Leaves out what fits no message, first of all tasks that take no connections; how many.
fn bounded(service: &mut NetService) -> usize {
    let all = service.endpoints.len();
    let mut room = FRAME_TO_AGENT_MAX.saturating_sub(fixed_bytes(service) + MARGIN);
    let most: usize = service.endpoints.iter().map(endpoint_bytes).sum();
    if all <= ENDPOINTS_MAX && most <= room {
        return 0;
    }
    let mut count = 0;
    let mut stays = vec![false; all];
    let (active, others): (Vec<usize>, Vec<usize>) = (0..all).partition(|place| service.endpoints[*place].active);
    for place in active.into_iter().chain(others) {
        let bytes = endpoint_bytes(&service.endpoints[place]);
        if count == ENDPOINTS_MAX || bytes > room {
            break;
        }
        (count, room) = (count + 1, room - bytes);
        stays[place] = true;
    }
    let mut stays = stays.into_iter();
    service.endpoints.retain(|_| stays.next().unwrap_or_default());
    all - count
}

/// Bytes of a message around its items, at most.
pub(super) const MARGIN: usize = 512;

/// Bytes of an endpoint on the wire, at most, without what differs in length.
const ENDPOINT_BYTES: usize = 128;

/// Bytes of an endpoint on the wire, at most.
fn endpoint_bytes(end: &NetEndpoint) -> usize {
    let targets = if end.targets.is_empty() { 0 } else { 16 + end.targets.len() * 6 };
    ENDPOINT_BYTES + end.addresses.len() * 5 + end.hostname.as_ref().map_or(0, |name| name.len()) + targets
}

/// Bytes of a service on the wire, at most, without its endpoints.
fn fixed_bytes(service: &NetService) -> usize {
    let aliases = |at: &NetAttachment| at.aliases.iter().map(|alias| alias.len() + 5).sum::<usize>();
    let networks: usize = service.networks.iter().map(|at| 64 + aliases(at)).sum();
    256 + service.name.len() + service.ports.len() * 48 + networks
}

/// Bytes of a service on the wire, at most.
pub(super) fn bytes(service: &NetService) -> usize {
    fixed_bytes(service) + service.endpoints.iter().map(endpoint_bytes).sum::<usize>()
}
