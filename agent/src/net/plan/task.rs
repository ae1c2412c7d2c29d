//! What a task gets: its links, addresses and routes, and the rules of its own network namespace.

use std::net::Ipv4Addr;

use racimo_common::id::{NetworkId, TaskId};
use racimo_common::net::{Subnet, VXLAN_ENCRYPTED_PORT};
use racimo_common::object::Protocol;
use racimo_common::wire::{NetNetwork, NetOwn, TaskNet, encryption_address};

use super::View;
use super::rule::{At, Base, Hook, Step};
use crate::net::dns;
use crate::net::netlink::nft::DSTNAT;

/// Why a task cannot have its network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotYet {
    /// The manager has not said what the board's part of the mesh is.
    #[error("this board has no place in the mesh yet")]
    Mesh,
    /// The manager has not told of the network.
    #[error("network {0} is not known on this board yet")]
    Network(NetworkId),
}

/// A task's way out of its board and to published ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leg {
    /// Its address.
    pub address: Ipv4Addr,
    /// The board's.
    pub gateway: Ipv4Addr,
    /// Bytes of a packet.
    pub mtu: u16,
}

/// An overlay network on this board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlay {
    /// Its number.
    pub vni: u32,
    /// Its subnet.
    pub subnet: Subnet,
    /// The address that its packets travel from.
    pub local: Ipv4Addr,
    /// The UDP port they travel to.
    pub port: u16,
    /// Bytes of a packet.
    pub mtu: u16,
}

impl Overlay {
    /// The network on a board with this place in the mesh.
    pub fn new(network: &NetNetwork, own: &NetOwn) -> Self {
        let (local, port) = if network.encrypted {
            (encryption_address(own.subnet), VXLAN_ENCRYPTED_PORT)
        } else {
            (own.address.0, own.vxlan_port)
        };
        Self { vni: network.vni, subnet: network.subnet, local, port, mtu: network.mtu }
    }

    /// The name of its bridge.
    pub fn bridge(&self) -> String {
        bridge(self.vni)
    }

    /// The name of its VXLAN.
    pub fn vxlan(&self) -> String {
        vxlan(self.vni)
    }
}

/// The name of a network's bridge.
pub fn bridge(vni: u32) -> String {
    format!("rcb{vni}")
}

/// The name of a network's VXLAN.
pub fn vxlan(vni: u32) -> String {
    format!("rcv{vni}")
}

/// Everything of a task's network but the addresses that move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attach {
    /// The task.
    pub task: TaskId,
    /// Its way out; none: it has only its networks.
    pub leg: Option<Leg>,
    /// Its networks with its address in each: `eth1` and so on.
    pub networks: Vec<(Overlay, Ipv4Addr)>,
}

impl Attach {
    /// What the task gets.
    ///
    /// # Errors
    /// The manager has not told everything yet.
    pub fn new(view: View<'_>, task: TaskId, net: &TaskNet) -> Result<Self, NotYet> {
        let own = view.table.own.as_ref().ok_or(NotYet::Mesh)?;
        let leg = net.mesh.map(|address| Leg { address: address.0, gateway: own.gateway(), mtu: own.mtu });
        let networks = net.networks.iter().map(|(id, address)| {
            let network = view.table.networks.get(id).ok_or(NotYet::Network(*id))?;
            Ok((Overlay::new(network, own), address.0))
        });
        Ok(Self { task, leg, networks: networks.collect::<Result<_, _>>()? })
    }

    /// The rules of its namespace. All of them cost something for each connection, so there are no others.
    pub fn chains(&self) -> Vec<Base> {
        let vips = || (!self.networks.is_empty()).then(|| vec![Step::Virtual]);
        let mut output = Vec::from_iter(vips());
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            let to = Step::To(Subnet::of(dns::SERVER, 32));
            output.push(vec![to, Step::Port(protocol, 53), Step::Dnat(dns::SERVER, Some(dns::PORT))]);
        }
        let hook = |hook| Hook { kind: "nat", hook, priority: DSTNAT };
        let mut chains = vec![Base { name: "output", hook: hook(At::Output), rules: output }];
        // For what a container passes on for others: containers inside it.
        chains.extend(vips().map(|rule| Base { name: "prerouting", hook: hook(At::Prerouting), rules: vec![rule] }));
        chains
    }
}

/// The name of the board's end of a task's leg; `place` 0 is the way out, others its networks. At most 15 bytes.
pub fn link(task: TaskId, place: usize) -> String {
    let task = task.to_string();
    match place {
        0 => format!("{}{}", super::LEG_PREFIX, &task[..12]),
        // A board has far fewer networks than this has names.
        place => format!("v{place:02}-{}", &task[..11]),
    }
}

/// Whether a task's way out may have this name; others may have links whose names begin so.
pub fn is_leg(name: &str) -> bool {
    let task = name.strip_prefix(super::LEG_PREFIX);
    task.is_some_and(|task| task.len() == 12 && task.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()))
}
