//! What a board is told about the network: itself, the other boards, overlay networks, services.
//!
//! Each item is whole: a newer one takes the place of the older one with the same key. A task's own addresses come
//! with its [`Work`](super::Work), after every item that it needs.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{NetworkId, NodeId, ServiceId, TaskId};
use crate::net::Subnet;
use crate::object::{HostPort, Protocol, WireguardKey};

/// An IPv4 address that takes 5 bytes on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ip(pub Ipv4Addr);

impl fmt::Debug for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl From<Ipv4Addr> for Ip {
    fn from(address: Ipv4Addr) -> Self {
        Self(address)
    }
}

impl Serialize for Ip {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u32(self.0.into())
    }
}

impl<'de> Deserialize<'de> for Ip {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        u32::deserialize(d).map(|bits| Self(bits.into()))
    }
}

/// News about the network: the whole of it in parts, or changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Net {
    /// Whether this belongs to the whole: what no part of it names is gone once the last one arrived. The first
    /// messages of a session do; each is small enough for a board's heap and takes effect at once.
    pub complete: bool,
    /// Whether this is the last part of the whole.
    pub last: bool,
    /// The board itself, if that changed; it is in the first part of the whole, unless the cluster has no mesh.
    pub own: Option<NetOwn>,
    /// Other boards.
    pub peers: Vec<NetPeer>,
    /// Boards that are no members any more.
    pub peers_gone: Vec<NodeId>,
    /// Overlay networks that tasks of this board are on.
    pub networks: Vec<NetNetwork>,
    /// Networks that no task of this board is on any more.
    pub networks_gone: Vec<NetworkId>,
    /// Services that publish ports in the mesh, or are on one of the networks.
    pub services: Vec<NetService>,
    /// Services that do neither any more.
    pub services_gone: Vec<ServiceId>,
}

/// The board's place in the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetOwn {
    /// All of the mesh.
    pub mesh: Subnet,
    /// The board's part of it: the first address is its gateway's, the others its tasks'.
    pub subnet: Subnet,
    /// The board's address among the boards.
    pub address: Ip,
    /// UDP port of the VXLANs.
    pub vxlan_port: u16,
    /// Bytes of a packet in the mesh.
    pub mtu: u16,
    /// Counts the rotations of the encryption's keys: a board that has an older key makes a new one and describes
    /// itself anew.
    pub key_epoch: u32,
}

impl NetOwn {
    /// The board's gateway.
    pub fn gateway(&self) -> Ipv4Addr {
        gateway(self.subnet)
    }
}

/// The gateway of a board with this part of the mesh.
pub fn gateway(subnet: Subnet) -> Ipv4Addr {
    subnet.nth(1).unwrap_or(subnet.address())
}

/// The address inside the encryption of a board with this part of the mesh: no task's, no gateway's.
pub fn encryption_address(subnet: Subnet) -> Ipv4Addr {
    subnet.address()
}

/// Another board.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetPeer {
    /// Its id.
    pub node: NodeId,
    /// Its part of the mesh.
    pub subnet: Subnet,
    /// Its address among the boards.
    pub address: Ip,
    /// Its key, if it can encrypt.
    #[serde(default)]
    pub key: Option<WireguardKey>,
}

/// An overlay network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetNetwork {
    /// Its id.
    pub id: NetworkId,
    /// Its name: `db.backend` is the service `db` there.
    pub name: String,
    /// Its VXLAN network identifier.
    pub vni: u32,
    /// Its subnet.
    pub subnet: Subnet,
    /// Whether its tasks reach nothing else through it: a task with internal networks only has no gateway.
    pub internal: bool,
    /// Whether traffic between boards is encrypted.
    pub encrypted: bool,
    /// Bytes of a packet in it.
    pub mtu: u16,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetService {
    /// Its id.
    pub id: ServiceId,
    /// Its name; empty: it was removed, and only its last tasks are left, which no name stands for.
    pub name: String,
    /// Ports it publishes in the mesh.
    pub ports: Vec<NetPort>,
    /// Whether tasks see the addresses of clients that come through the mesh.
    pub keep_source: bool,
    /// Networks it is on, of all those that its tasks are on.
    pub networks: Vec<NetAttachment>,
    /// Its tasks that have addresses.
    pub endpoints: Vec<NetEndpoint>,
}

/// A port that answers on every board.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NetPort {
    /// Its protocol.
    pub protocol: Protocol,
    /// The port on every board.
    pub published: u16,
    /// The port of the tasks.
    pub target: u16,
}

/// A network that a service is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetAttachment {
    /// The network.
    pub network: NetworkId,
    /// The address that stands for all its tasks; none: its name stands for the tasks' addresses.
    pub vip: Option<Ip>,
    /// Further names of the service there.
    pub aliases: Vec<String>,
}

/// A task with its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetEndpoint {
    /// The task: also its container's id, the start of which is its host name unless its service has another.
    pub task: TaskId,
    /// The host name that its service gives it, templates filled in; none: the start of its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Box<str>>,
    /// Its slot; none: it is the one of its node. `web.1`, `web.<node id>`.
    pub slot: Option<u32>,
    /// Its board.
    pub node: NodeId,
    /// Its address in the mesh.
    pub mesh: Option<Ip>,
    /// Its address on each of the service's networks, in their order; 0.0.0.0: it is not on that one.
    pub addresses: Vec<Ip>,
    /// Whether it takes new connections: it runs, is healthy, shall run, and its board is there.
    pub active: bool,
    /// Where it is not like the service's `ports`, being older: a place in them, and its own port there; 0: none.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub targets: Box<[(u8, u16)]>,
    /// The manager has not heard of its board since it started: `active` is a guess, and who has heard of the task
    /// before knows better.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsure: bool,
}

impl NetEndpoint {
    /// The task's port for the one at this place of its service's `ports`; none: it does not have that one.
    pub fn target(&self, place: usize, port: &NetPort) -> Option<u16> {
        match self.targets.iter().find(|(at, _)| usize::from(*at) == place) {
            Some((_, own)) => (*own != 0).then_some(*own),
            None => Some(port.target),
        }
    }
}

/// What a task gets of the network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskNet {
    /// Its address in the board's part of the mesh; none: it reaches nothing outside its networks.
    pub mesh: Option<Ip>,
    /// Its overlay networks: `eth1` and so on, in this order.
    pub networks: Vec<(NetworkId, Ip)>,
    /// Ports it publishes on its board.
    pub ports: Vec<HostPort>,
    /// Whether its service publishes ports or has virtual addresses: then it leaves the balance before it is stopped.
    pub balanced: bool,
}
