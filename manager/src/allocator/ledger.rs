//! What is given out, over all networks, nodes and services.

use std::net::Ipv4Addr;

use imbl::OrdMap;
use racimo_common::id::{NetworkId, NodeId, ServiceId};
use racimo_common::net::{MESH_VNI, Subnet, VNI_MAX};
use serde::{Deserialize, Serialize};

use super::pool::{Pool, Usage};
use super::port::Ports;
use super::subnet::MESH_PART_PREFIX;
use crate::store::{Addresses, Endpoint, Network, NetworkSpec};

/// Whose addresses they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Holder {
    /// An overlay network's: of its services and tasks.
    Network(NetworkId),
    /// A node's part of the mesh: of its tasks.
    Node(NodeId),
}

/// What is given out.
#[derive(Debug, Clone, PartialEq)]
pub struct Ledger {
    vnis: Pool,
    /// The mesh and its parts, by their places; none: there is no mesh.
    mesh: Option<(NetworkId, Subnet, Ipv4Addr, Pool)>,
    addresses: OrdMap<Holder, Pool>,
    /// Published ports.
    pub ports: Ports,
}

impl Default for Ledger {
    fn default() -> Self {
        let vnis = Pool::new(MESH_VNI + 1, VNI_MAX);
        Self { vnis, mesh: None, addresses: OrdMap::new(), ports: Ports::default() }
    }
}

/// Where each search goes on, as it is stored: what came back last shall not be given first after a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cursors {
    vni: u32,
    part: u32,
    port: u16,
    addresses: Vec<(Holder, u32)>,
}

impl Ledger {
    /// Where each search goes on.
    pub fn cursors(&self) -> Cursors {
        Cursors {
            vni: self.vnis.cursor(),
            part: self.mesh.as_ref().map_or(0, |(.., parts)| parts.cursor()),
            port: self.ports.cursor(),
            addresses: self.addresses.iter().map(|(holder, pool)| (*holder, pool.cursor())).collect(),
        }
    }

    /// Goes on where a stored state left off.
    pub fn resume(&mut self, cursors: &Cursors) {
        self.vnis.resume(cursors.vni);
        if let Some((.., parts)) = &mut self.mesh {
            parts.resume(cursors.part);
        }
        self.ports.resume(cursors.port);
        for (holder, cursor) in &cursors.addresses {
            if let Some(pool) = self.addresses.get_mut(holder) {
                pool.resume(*cursor);
            }
        }
    }

    /// Goes on far from where each search is: a manager that is lost may have given what comes next, and boards may
    /// still be taking it down.
    pub fn leap(&mut self) {
        self.vnis.leap();
        if let Some((.., parts)) = &mut self.mesh {
            parts.leap();
        }
        self.ports.leap();
        let holders: Vec<Holder> = self.addresses.keys().copied().collect();
        for holder in holders {
            if let Some(pool) = self.addresses.get_mut(&holder) {
                pool.leap();
            }
        }
    }

    /// A VXLAN network identifier for a new overlay; none: all are taken.
    pub fn take_vni(&mut self) -> Option<u32> {
        self.vnis.take()
    }

    /// Opens the books of a network.
    pub fn open_network(&mut self, network: &Network) {
        self.vnis.note(network.vni);
        if network.spec.ingress {
            let parts = network.subnet.size() >> (32 - MESH_PART_PREFIX);
            let last = u32::try_from(parts).unwrap_or(u32::MAX).saturating_sub(1);
            self.mesh = Some((network.id, network.subnet, network.gateway, Pool::new(0, last)));
        } else {
            let pool = pool_of(&network.spec, network.subnet, network.gateway);
            self.addresses.insert(Holder::Network(network.id), pool);
        }
    }

    /// Closes the books of a network; its nodes' parts must have been closed.
    pub fn close_network(&mut self, network: &Network) {
        self.vnis.give_back(network.vni);
        if network.spec.ingress {
            self.mesh = None;
        } else {
            self.addresses.remove(&Holder::Network(network.id));
        }
    }

    /// The mesh, if there is one.
    pub fn mesh(&self) -> Option<NetworkId> {
        self.mesh.as_ref().map(|(id, ..)| *id)
    }

    /// A part of the mesh for a node; none: there is no mesh, or no part is left.
    pub fn take_part(&mut self, node: NodeId) -> Option<Subnet> {
        let (_, subnet, _, parts) = self.mesh.as_mut()?;
        let part = subnet.part(MESH_PART_PREFIX, parts.take()?.into())?;
        self.open_part(node, part);
        Some(part)
    }

    /// Opens the books of a node's part of the mesh.
    pub fn open_part(&mut self, node: NodeId, part: Subnet) {
        let Some((_, subnet, gateway, parts)) = self.mesh.as_mut() else { return };
        parts.note(place(*subnet, part));
        // Its first address is the gateway of the node.
        let (first, last) = (u32::from(part.address()) + 2, u32::from(part.broadcast()) - 1);
        let mut pool = Pool::new(first, last);
        pool.set_aside((*gateway).into());
        self.addresses.insert(Holder::Node(node), pool);
    }

    /// A node's part of the mesh comes back.
    pub fn close_part(&mut self, node: NodeId, part: Subnet) {
        if let Some((_, subnet, _, parts)) = self.mesh.as_mut() {
            parts.give_back(place(*subnet, part));
        }
        self.addresses.remove(&Holder::Node(node));
    }

    /// The next free address; none: all are given, or the holder has none.
    pub fn take(&mut self, holder: Holder) -> Option<Ipv4Addr> {
        self.addresses.get_mut(&holder)?.take().map(Ipv4Addr::from)
    }

    /// Notes that an address is given.
    pub fn note(&mut self, holder: Holder, address: Ipv4Addr) {
        if let Some(pool) = self.addresses.get_mut(&holder) {
            pool.note(address.into());
        }
    }

    /// An address comes back; none knows it if its network is gone.
    pub fn give_back(&mut self, holder: Holder, address: Ipv4Addr) {
        if let Some(pool) = self.addresses.get_mut(&holder) {
            pool.give_back(address.into());
        }
    }

    /// Notes what a service has.
    pub fn note_endpoint(&mut self, service: ServiceId, endpoint: &Endpoint) {
        self.ports.note(service, &endpoint.ports);
        endpoint.vips.iter().for_each(|(network, vip)| self.note(Holder::Network(*network), *vip));
    }

    /// What a service had comes back.
    pub fn give_back_endpoint(&mut self, service: ServiceId, endpoint: &Endpoint) {
        self.ports.give_back(service, &endpoint.ports);
        endpoint.vips.iter().for_each(|(network, vip)| self.give_back(Holder::Network(*network), *vip));
    }

    /// Notes the addresses of a task.
    pub fn note_task(&mut self, node: NodeId, addresses: &Addresses) {
        addresses.mesh.into_iter().for_each(|address| self.note(Holder::Node(node), address));
        addresses.networks.iter().for_each(|(network, address)| self.note(Holder::Network(*network), *address));
    }

    /// The addresses of a task come back.
    pub fn give_back_task(&mut self, node: NodeId, addresses: &Addresses) {
        addresses.mesh.into_iter().for_each(|address| self.give_back(Holder::Node(node), address));
        addresses.networks.iter().for_each(|(network, address)| self.give_back(Holder::Network(*network), *address));
    }

    /// How many addresses are given.
    pub fn usage(&self, holder: Holder) -> Option<Usage> {
        self.addresses.get(&holder).map(Pool::usage)
    }
}

fn place(mesh: Subnet, part: Subnet) -> u32 {
    u32::from(part.address()).saturating_sub(mesh.address().into()) >> (32 - MESH_PART_PREFIX)
}

/// Addresses that services and tasks may get: the range's, but not the subnet's first, last, gateway and reserved ones.
fn pool_of(spec: &NetworkSpec, subnet: Subnet, gateway: Ipv4Addr) -> Pool {
    let range = spec.range.unwrap_or(subnet);
    let first = u32::from(range.address()).max(u32::from(subnet.address()) + 1);
    let last = u32::from(range.broadcast()).min(u32::from(subnet.broadcast()) - 1);
    let mut pool = Pool::new(first, last);
    pool.set_aside(gateway.into());
    spec.reserved.values().for_each(|address| pool.set_aside((*address).into()));
    pool
}
