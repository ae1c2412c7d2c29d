//! Networks, and what services and tasks have of them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use racimo_common::id::NetworkId;
use racimo_common::net::{Subnet, VXLAN_PORT};
use racimo_common::object::Port;
use serde::{Deserialize, Serialize};

use super::Meta;

/// Where subnets of networks come from if `init` does not say, and the length of their masks (Docker's).
pub const ADDRESS_POOL_DEFAULT: (Ipv4Addr, u8, u8) = (Ipv4Addr::new(10, 0, 0, 0), 8, 24);
/// The subnet of the mesh between boards (the network `ingress`) unless it is made anew with another one.
pub const MESH_SUBNET_DEFAULT: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 200, 0, 0), 16);

/// Name of the mesh that a new cluster has.
pub const INGRESS: &str = "ingress";

/// What `init` decided about networks; it cannot be changed later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterNet {
    /// Where the subnets of networks come from that name none.
    pub pools: Vec<Subnet>,
    /// The length of their masks.
    pub mask: u8,
    /// UDP port of the VXLANs.
    pub vxlan_port: u16,
}

impl Default for ClusterNet {
    fn default() -> Self {
        let (address, prefix, mask) = ADDRESS_POOL_DEFAULT;
        Self { pools: vec![Subnet::of(address, prefix)], mask, vxlan_port: VXLAN_PORT }
    }
}

/// An overlay network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its id.
    pub id: NetworkId,
    /// Times and version.
    pub meta: Meta,
    /// What users want.
    pub spec: NetworkSpec,
    /// Its VXLAN network identifier. Written by the store.
    pub vni: u32,
    /// Its subnet. Written by the store.
    pub subnet: Subnet,
    /// The address that users see as its gateway; no task and no service has it. Written by the store.
    pub gateway: Ipv4Addr,
}

/// What users want of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkSpec {
    /// Unique name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Its subnet; none: one of the cluster's pools.
    pub subnet: Option<Subnet>,
    /// Its gateway; none: the first address.
    pub gateway: Option<Ipv4Addr>,
    /// Where tasks and services get their addresses; none: all of the subnet.
    pub range: Option<Subnet>,
    /// Addresses that stay free, by name.
    pub reserved: BTreeMap<String, Ipv4Addr>,
    /// Whether its tasks reach nothing else through it.
    pub internal: bool,
    /// Whether containers outside of services might join it. There are none here, so that it is only shown.
    pub attachable: bool,
    /// Whether it is the mesh between boards. There is one at most.
    pub ingress: bool,
    /// Whether traffic between boards is encrypted.
    pub encrypted: bool,
    /// Bytes of a packet in it; none: what fits a link of 1500 bytes.
    pub mtu: Option<u16>,
}

/// A network that a service's tasks are attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The network.
    pub network: NetworkId,
    /// Further names of the service there.
    pub aliases: Vec<String>,
}

/// What a service was given of the network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its ports, in the order of its spec, each with its number; 0 only for a host's port that each board chooses.
    pub ports: Vec<Port>,
    /// A virtual address on each of its networks, unless its name stands for its tasks' addresses.
    pub vips: Vec<(NetworkId, Ipv4Addr)>,
}

/// The label of a service whose tasks see the addresses of clients that come through the mesh, if it is `true`.
pub const KEEP_SOURCE_LABEL: &str = "io.racimo.mesh.keep-source";

/// The addresses of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// In its board's part of the mesh: for ports published there, and for the way out.
    pub mesh: Option<Ipv4Addr>,
    /// On each of its overlay networks, in the order of its spec.
    pub networks: Vec<(NetworkId, Ipv4Addr)>,
}
