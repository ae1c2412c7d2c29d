//! What the kernel shall be like: pure.
//!
//! In: the [`Table`], the board's tasks with their addresses, and which items changed since the kernel was told.
//! Out: [`Op`]s in an order in which no packet is lost, in portions that do not hold up the agent.
//!
//! One service's change touches only that service's chains, in the board's namespace and in those of tasks that are
//! on its networks.

pub mod board;
mod change;
pub mod coming;
pub mod missing;
pub mod rule;
mod service;
pub mod task;
#[cfg(test)]
mod tests;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use racimo_common::id::{NetworkId, NodeId, ServiceId, TaskId};
use racimo_common::net::Subnet;
use racimo_common::object::{HostPort, Protocol};
use racimo_common::wire::{NetNetwork, NetOwn, NetPeer, TaskNet, encryption_address, gateway};

use serde::{Deserialize, Serialize};

use super::table::{Changes, Table};
use crate::limits;
use crate::net::netlink::conntrack::Which;
use board::{Board, place};
use change::Change;
use rule::Backends;
pub use service::targets;
use service::{backends, members, virtuals};
use task::Overlay;

/// The table of all our rules, in each namespace.
pub const TABLE: &str = "racimo";
/// The mesh between boards.
pub const MESH_LINK: &str = "rc-mesh";
/// How the names of the board's ends of tasks' gateway legs begin.
pub const LEG_PREFIX: &str = "rg-";
/// The encryption between boards.
pub const ENCRYPTION_LINK: &str = "rc-wg";
/// Marks and routing tables of boards that clients came to: this and the board's place in the mesh.
pub const ORIGIN: u32 = 0x5200_0000;

/// A published port.
pub type Published = (Protocol, u16);

/// A task that is on the network of this board.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attached {
    /// Its addresses.
    pub net: TaskNet,
    /// The ports it has on the board, none of them 0.
    pub ports: Vec<HostPort>,
    /// Its host name.
    pub hostname: String,
    /// `web.1`.
    pub slot_name: String,
    /// The numbers of its networks.
    pub vnis: Vec<u32>,
    /// Its service's own name servers.
    pub servers: Vec<IpAddr>,
}

/// Everything that is known.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// What the manager told.
    pub table: &'a Table,
    /// The tasks that are here.
    pub tasks: &'a BTreeMap<TaskId, Attached>,
}

/// Where connections are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The board's namespace.
    Board,
    /// A task's.
    Task(TaskId),
}

/// Another board, as the kernel must know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its part of the mesh.
    pub subnet: Subnet,
    /// Its address among the boards.
    pub address: Ipv4Addr,
    /// The mark of clients that came to it.
    pub origin: u32,
}

impl Peer {
    fn new(peer: &NetPeer, own: &NetOwn) -> Self {
        Self { subnet: peer.subnet, address: peer.address.0, origin: ORIGIN | number(own, peer.subnet) }
    }

    /// Its gateway.
    pub fn gateway(&self) -> Ipv4Addr {
        gateway(self.subnet)
    }
}

/// One thing to do. Each may be done twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// The board's own device and rules; none: it has no part in a mesh.
    Board(Option<Board>),
    /// The board itself had this address, which none has now.
    Left(Ipv4Addr),
    /// Another board is here, or elsewhere than before.
    Peer {
        /// It.
        peer: Peer,
        /// Whether clients' addresses are kept.
        keeps_source: bool,
    },
    /// It is gone.
    PeerGone {
        /// It.
        peer: Peer,
        /// Whether no other board has its address.
        address: bool,
    },
    /// A network that tasks of this board are on.
    Overlay(Overlay),
    /// No task is on it any more.
    OverlayGone(u32),
    /// A task on another board is behind this address; none: on none.
    Remote {
        /// The network's number.
        vni: u32,
        /// The task's address.
        address: Ipv4Addr,
        /// The other board's.
        board: Option<Ipv4Addr>,
    },
    /// A published port stands for these; none: it is not published any more.
    Publish {
        /// The port.
        port: Published,
        /// What it stands for.
        to: Option<Backends>,
    },
    /// A virtual address in a task's namespace; none: it is gone.
    Virtual {
        /// The task.
        task: TaskId,
        /// The address.
        address: Ipv4Addr,
        /// What it stands for.
        to: Option<Rc<Backends>>,
    },
    /// Connections to a task that takes no more are forgotten.
    Forget {
        /// Where.
        place: Place,
        /// Whose.
        addresses: Vec<Ipv4Addr>,
        /// Which of them.
        which: Which,
    },
}

/// What is to be done, remembered between portions.
#[derive(Debug, Default)]
pub struct Plan {
    /// The board as the kernel knows it.
    board: Option<Option<Board>>,
    /// What changed.
    pub changes: Changes,
    /// Of these services everything is to be told, not only what changed.
    anew: BTreeSet<ServiceId>,
    /// Ports to be told of; all of a service with many are no portion.
    ports: BTreeSet<Published>,
    /// What comes after them.
    late: Vec<Op>,
    /// Tasks that left the balance, since it was asked for them.
    left: Left,
    /// Those that left it a while ago; some at a time.
    overdue: Left,
}

/// Tasks that left the balance of their services.
pub type Left = Vec<(ServiceId, TaskId)>;

impl Plan {
    /// The kernel's state is not known: everything is told anew. Afterwards, what else is there must go.
    pub fn forget(&mut self, table: &Table) {
        self.board = None;
        self.changes.peers = table.peers.keys().map(|id| (*id, None)).collect();
        self.changes.networks = table.networks.keys().map(|id| (*id, None)).collect();
        table.services.keys().for_each(|id| self.tell_anew(*id));
    }

    /// Everything of a service is to be told. What it was stays known: connections of its last tasks are to be forgotten.
    pub fn tell_anew(&mut self, service: ServiceId) {
        self.changes.services.entry(service).or_insert(None);
        self.anew.insert(service);
    }

    /// The tasks that have left the balance since this was asked last. When a while has passed, and what is on its way
    /// to them was answered, they are to be [given back](Self::overdue).
    pub fn take_left(&mut self) -> Left {
        std::mem::take(&mut self.left)
    }

    /// These left the balance a while ago: if they are still out of it, connections to them that nobody has answered by
    /// now are forgotten.
    pub fn overdue(&mut self, left: Left) {
        self.overdue.extend(left);
    }

    /// The next portion; none: nothing is left.
    pub fn next(&mut self, view: View<'_>) -> Option<Vec<Op>> {
        let mut ops = Vec::new();
        self.board(view, &mut ops);
        let Some(own) = &view.table.own else {
            // Nothing can be without the board's own part.
            *self = Self { board: self.board.take(), ..Self::default() };
            return (!ops.is_empty()).then_some(ops);
        };
        let keeps_source = view.keeps_source();
        for (id, old) in std::mem::take(&mut self.changes.peers) {
            view.peer(own, id, old, keeps_source, &mut ops);
        }
        for (id, old) in std::mem::take(&mut self.changes.networks) {
            view.network(id, old, &mut ops);
        }
        while self.late.is_empty() && !self.overdue.is_empty() {
            let rest = self.overdue.len().saturating_sub(limits::NET_PORTION);
            view.forget_unanswered(&self.overdue.split_off(rest), &mut self.late);
        }
        if self.overdue.is_empty() {
            self.overdue = Left::new();
        }
        let first = ops.len();
        let mut weight = first;
        loop {
            while weight < limits::NET_PORTION {
                let Some(port) = self.ports.pop_first() else { break };
                let to = view.published(port);
                weight += 1 + to.as_ref().map_or(0, |to| to.to.len());
                ops.push(Op::Publish { port, to });
            }
            if self.ports.is_empty() {
                // Tasks share what an address stands for.
                weight += self.late.len() / 8 + self.late.iter().map(Op::weight).max().unwrap_or_default();
                ops.append(&mut self.late);
            }
            if weight >= limits::NET_PORTION {
                break;
            }
            let Some((id, old)) = self.changes.services.pop_first() else { break };
            let anew = self.anew.remove(&id);
            let change = Change { old: old.as_ref(), new: view.table.services.get(&id), anew };
            self.ports.extend(change.ports());
            view.service(change, &mut self.late, &mut self.left);
            weight += 1;
        }
        // What is alike is one transaction; all else stays in order.
        ops[first..].sort_by_key(Op::turn);
        let is_done =
            self.changes.is_empty() && self.ports.is_empty() && self.late.is_empty() && self.overdue.is_empty();
        if ops.is_empty() && is_done { None } else { Some(ops) }
    }

    /// The board's own part.
    fn board(&mut self, view: View<'_>, ops: &mut Vec<Op>) {
        let wanted = view.board();
        if self.board.as_ref() == Some(&wanted) {
            return;
        }
        let old = self.board.take().flatten();
        ops.push(Op::Board(wanted.clone()));
        if let Some(new) = &wanted {
            let left = old.as_ref().map(|old| old.own.address).filter(|left| *left != new.own.address);
            let left = left.filter(|left| view.table.peers.values().all(|peer| peer.address != *left));
            ops.extend(left.map(|address| Op::Left(address.0)));
            let is_same = old.as_ref().is_some_and(|old| place(&old.own) == place(&new.own));
            // With another device everything that hung on it is to be told again.
            if !is_same {
                for (id, service) in &view.table.services {
                    if !service.ports.is_empty() || !service.networks.is_empty() {
                        self.tell_anew(*id);
                    }
                }
            }
            let told = is_same && old.as_ref().is_some_and(|old| old.keeps_source == new.keeps_source);
            for (id, peer) in view.table.peers.iter().filter(|_| !told) {
                if is_same {
                    ops.push(Op::Peer { peer: Peer::new(peer, &new.own), keeps_source: new.keeps_source });
                } else {
                    self.changes.peers.insert(*id, None);
                }
            }
            for network in view.local_networks() {
                ops.push(Op::Overlay(Overlay::new(network, &new.own)));
            }
            for (port, to) in view.host_ports() {
                ops.push(Op::Publish { port, to: Some(to) });
            }
        }
        self.board = Some(wanted);
    }
}

impl<'a> View<'a> {
    /// The board's own part.
    fn board(self) -> Option<Board> {
        let own = self.table.own.clone()?;
        let encrypts = self.local_networks().any(|network| network.encrypted);
        Some(Board { own, keeps_source: self.keeps_source(), encrypts })
    }

    fn keeps_source(self) -> bool {
        self.table.services.values().any(|service| service.keep_source && !service.ports.is_empty())
    }

    /// Tasks on a network.
    fn on(self, network: NetworkId) -> impl Iterator<Item = TaskId> + 'a {
        let is_on = move |task: &Attached| task.net.networks.iter().any(|(id, _)| *id == network);
        self.tasks.iter().filter(move |(_, task)| is_on(task)).map(|(id, _)| *id)
    }

    /// Networks that tasks of this board are on.
    pub fn local_networks(self) -> impl Iterator<Item = &'a NetNetwork> {
        let ids: BTreeSet<NetworkId> =
            self.tasks.values().flat_map(|task| task.net.networks.iter().map(|(id, _)| *id)).collect();
        ids.into_iter().filter_map(move |id| self.table.networks.get(&id))
    }

    /// Ports of single tasks.
    fn host_ports(self) -> impl Iterator<Item = (Published, Backends)> + 'a {
        self.tasks.values().flat_map(|task| {
            task.ports.iter().filter_map(|port| {
                let to = vec![(task.net.mesh?.0, Some(port.target))];
                let to = Backends { to, protocol: Some(port.protocol), keeps_source: false };
                Some(((port.protocol, port.published), to))
            })
        })
    }

    /// What a port stands for; none: nothing publishes it.
    pub fn published(self, port: Published) -> Option<Backends> {
        // A task has its port for itself, also if a service got the same one later.
        let of_task = self.host_ports().find(|(known, _)| *known == port).map(|(_, to)| to);
        of_task.or_else(|| self.table.services.values().find_map(|service| backends(service, port)))
    }

    /// All ports that are published.
    pub fn all_published(self) -> BTreeSet<Published> {
        let services = self.table.services.values().flat_map(|service| &service.ports);
        let services = services.map(|port| (port.protocol, port.published));
        services.chain(self.host_ports().map(|(port, _)| port)).collect()
    }

    /// The virtual addresses that a task can use, with what they stand for.
    pub fn virtuals(self, net: &TaskNet) -> impl Iterator<Item = (Ipv4Addr, Backends)> {
        self.table
            .services
            .values()
            .flat_map(|service| net.networks.iter().filter_map(|(id, _)| virtuals(service, *id)))
    }

    /// The other boards' tasks on a network, with their boards.
    pub fn remotes(self, network: &NetNetwork) -> impl Iterator<Item = (Ipv4Addr, Ipv4Addr)> {
        self.table.services.values().flat_map(move |service| {
            members(service, network.id).filter_map(move |(node, address)| Some((address, self.vtep(network, node)?)))
        })
    }

    /// Where packets of a network go that are for tasks on this board; none: it is this one, or one that is not known
    /// or not fit.
    fn vtep(self, network: &NetNetwork, node: NodeId) -> Option<Ipv4Addr> {
        let peer = self.table.peers.get(&node)?;
        if !network.encrypted {
            return Some(peer.address.0);
        }
        peer.key.is_some().then(|| encryption_address(peer.subnet))
    }
}

impl Op {
    /// How much there is to tell.
    fn weight(&self) -> usize {
        match self {
            Self::Virtual { to: Some(to), .. } => 1 + to.to.len(),
            Self::Virtual { to: None, .. }
            | Self::Board(_)
            | Self::Left(_)
            | Self::Peer { .. }
            | Self::PeerGone { .. }
            | Self::Overlay(_)
            | Self::OverlayGone(_)
            | Self::Remote { .. }
            | Self::Publish { .. }
            | Self::Forget { .. } => 1,
        }
    }

    /// Its place among those of services.
    fn turn(&self) -> (u8, Option<TaskId>) {
        match self {
            Self::Publish { .. } => (0, None),
            Self::Virtual { task, .. } => (1, Some(*task)),
            Self::Forget { .. } => (3, None),
            Self::Board(_)
            | Self::Left(_)
            | Self::Peer { .. }
            | Self::PeerGone { .. }
            | Self::Overlay(_)
            | Self::OverlayGone(_)
            | Self::Remote { .. } => (2, None),
        }
    }
}

/// A board's number among those of the mesh.
fn number(own: &NetOwn, subnet: Subnet) -> u32 {
    let apart = u32::from(subnet.address()).wrapping_sub(u32::from(own.mesh.address()));
    apart.checked_shr(u32::from(32 - subnet.prefix())).unwrap_or(0) & 0x00ff_ffff
}
