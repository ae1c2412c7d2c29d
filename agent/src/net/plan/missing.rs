//! What is not there any more of what the kernel was told: other programs of the board remove it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use racimo_common::id::TaskId;
use racimo_common::net::Subnet;

use super::{MESH_LINK, Peer, Published, TABLE, View, task};
use crate::limits;

/// What the kernel has of ours, as far as it is looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Whether the board forwards packets.
    pub forwards: bool,
    /// The links that are at work in the board's namespace.
    pub links: BTreeSet<Box<str>>,
    /// Those in the namespace of the overlay networks.
    pub overlays: BTreeSet<Box<str>>,
    /// The addresses of the mesh's device.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// Destinations in the main routing table.
    pub routes: BTreeSet<Subnet>,
    /// Neighbours on the mesh's device.
    pub neighbours: BTreeSet<Ipv4Addr>,
    /// Marks of boards that clients came to, which have both a rule and a route.
    pub origins: BTreeSet<u32>,
    /// The chains that the kernel calls, with how many rules each has.
    pub chains: BTreeMap<Box<str>, u32>,
    /// Published ports that are looked up and have rules.
    pub published: BTreeSet<Published>,
}

impl View<'_> {
    /// What is missing, in words. `made`: whether the kernel was told of a task; `held`: whether a port is ours.
    pub fn missing(
        self,
        found: &Found,
        made: impl Fn(TaskId) -> bool,
        held: impl Fn(Published) -> bool,
    ) -> Vec<String> {
        let mut missing = Vec::new();
        let Some(board) = self.board() else { return missing };
        let own = &board.own;
        let mut check = |is_there: bool, what: &dyn Fn() -> String| {
            if !is_there {
                missing.push(what());
            }
        };
        check(found.forwards, &|| "net.ipv4.ip_forward".to_owned());
        if found.links.contains(MESH_LINK) {
            check(found.addresses.contains(&own.gateway()), &|| format!("the address of {MESH_LINK}"));
        } else {
            check(false, &|| MESH_LINK.to_owned());
        }
        check(found.routes.contains(&own.subnet), &|| format!("the route of {}", own.subnet));
        for peer in self.table.peers.values().map(|peer| Peer::new(peer, own)) {
            let is_there = found.routes.contains(&peer.subnet) && found.neighbours.contains(&peer.gateway());
            let leads_back = !board.keeps_source || found.origins.contains(&peer.origin);
            check(is_there && leads_back, &|| format!("the way to {}", peer.subnet));
        }
        let mut vnis = BTreeSet::new();
        for (id, attached) in self.tasks.iter().filter(|(id, _)| made(**id)) {
            if let Some(address) = attached.net.mesh {
                let link = task::link(*id, 0);
                let is_there = found.links.contains(&*link) && found.routes.contains(&Subnet::of(address.0, 32));
                check(is_there, &|| link.clone());
            }
            for place in 1..=attached.net.networks.len() {
                let link = task::link(*id, place);
                check(found.overlays.contains(&*link), &|| link.clone());
            }
            vnis.extend(&attached.vnis);
        }
        for link in vnis.into_iter().flat_map(|vni| [task::bridge(vni), task::vxlan(vni)]) {
            check(found.overlays.contains(&*link), &|| link.clone());
        }
        if found.chains.is_empty() {
            check(false, &|| format!("table ip {TABLE}"));
            return missing;
        }
        for chain in board.chains() {
            let rules = found.chains.get(chain.name).and_then(|rules| usize::try_from(*rules).ok());
            check(rules >= Some(chain.rules.len()), &|| format!("rules of table ip {TABLE}, chain {}", chain.name));
        }
        for port in self.all_published().into_iter().filter(|port| held(*port)) {
            check(found.published.contains(&port), &|| format!("rules of port {}/{}", port.1, port.0));
        }
        missing
    }
}

/// Some of it by name, the rest counted.
pub fn summary(missing: &[String]) -> String {
    let named = missing.len().min(limits::DEGRADED_FAULTS_MAX);
    let mut text = missing[..named].join(", ");
    if missing.len() > named {
        text += &format!(" and {} more", missing.len() - named);
    }
    text
}
