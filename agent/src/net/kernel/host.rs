//! The board's own namespace: the mesh's device, the way to other boards, tasks' gateway legs, published ports.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use racimo_common::net::{MESH_VNI, Subnet, mac};
use racimo_common::wire::NetOwn;

use super::rules::{self, Transaction};
use super::{Fault, doing};
use crate::net::netlink::conntrack::Conntrack;
use crate::net::netlink::nft::Nft;
use crate::net::netlink::route::{
    Address, Change, Fdb, Link, LinkKind, MAIN, Neighbour, NewKind, NewLink, OURS, Place, Route, RouteEntry, Rule,
    Target, Vxlan,
};
use crate::net::ns::{Namespace, Parameter};
use crate::net::plan::board::Board;
use crate::net::plan::rule::Backends;
use crate::net::plan::task::{Leg, is_leg};
use crate::net::plan::{MESH_LINK, ORIGIN, Peer, Published};

/// Place of the rules that lead answers back to the board their clients came to.
const RULE_PRIORITY: u32 = 2000;

/// The board's own namespace.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) namespace: Namespace,
    pub(super) route: Route,
    pub(super) nft: Nft,
    pub(super) conntrack: Conntrack,
    /// The mesh's device, once it is there.
    pub(super) mesh: Option<u32>,
    /// Whether the table had to be made anew.
    pub(super) emptied: bool,
}

impl Host {
    pub(super) fn open() -> Result<Self, Fault> {
        let what = "open the kernel's network";
        Ok(Self {
            namespace: Namespace::own().map_err(doing(what))?,
            route: Route::open().map_err(doing(what))?,
            nft: Nft::open().map_err(doing(what))?,
            conntrack: Conntrack::open().map_err(doing(what))?,
            mesh: None,
            emptied: false,
        })
    }

    /// The board's own device and rules.
    pub(super) fn board(&mut self, board: Option<&Board>) -> Result<(), Fault> {
        let Some(board) = board else { return self.clear() };
        let own = &board.own;
        self.parameters(&[
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv4/conf/all/send_redirects", "0"),
            ("net/ipv4/conf/default/send_redirects", "0"),
        ])?;
        let mesh = self.mesh_device(own)?;
        self.mesh = Some(mesh);
        // Answers come by another way than where clients' addresses seem to be.
        let rp_filter = if board.keeps_source { "2" } else { "0" };
        self.parameters(&[
            ("net/ipv4/conf/rc-mesh/route_localnet", "1"),
            ("net/ipv4/conf/rc-mesh/send_redirects", "0"),
            ("net/ipv4/conf/rc-mesh/rp_filter", rp_filter),
        ])?;
        let no_ipv6 = Parameter { path: "net/ipv6/conf/rc-mesh/disable_ipv6", value: "1", optional: true };
        self.namespace.set(&[no_ipv6]).map_err(doing("set the kernel's parameters"))?;
        // It stands for all tasks that are not there.
        self.route.replace_route(&blackhole(own.subnet));
        self.route.run().map_err(doing("close the board's part of the mesh"))?;
        self.emptied |= rules::board(&mut self.nft, board)?;
        Ok(())
    }

    fn parameters(&self, parameters: &[(&str, &str)]) -> Result<(), Fault> {
        let parameters: Vec<Parameter<'_>> =
            parameters.iter().map(|&(path, value)| Parameter { path, value, optional: false }).collect();
        self.namespace.set(&parameters).map_err(doing("set the kernel's parameters"))
    }

    /// Makes sure of the mesh's device, with its address; answers its index.
    fn mesh_device(&mut self, own: &NetOwn) -> Result<u32, Fault> {
        let what = "make the mesh's device";
        let gateway = own.gateway();
        let wanted = Vxlan { vni: MESH_VNI, port: own.vxlan_port, local: own.address.0, proxy: false };
        let found = self.route.link(MESH_LINK).map_err(doing(what))?;
        if let Some(link) = found {
            let is_same =
                matches!(link.kind, LinkKind::Vxlan(is, false) if Vxlan { local: wanted.local, ..is } == wanted);
            if is_same && link.mac == Some(mac(gateway)) {
                self.steady_mesh(&link, own, wanted)?;
                return Ok(link.index);
            }
            self.route.delete_link(link.index);
        }
        self.route.add_link(&NewLink {
            name: MESH_LINK,
            mac: Some(mac(gateway)),
            mtu: own.mtu.into(),
            up: None,
            master: None,
            kind: NewKind::Vxlan(wanted),
        });
        self.route.run().map_err(doing(what))?;
        let link = self.route.link(MESH_LINK).map_err(doing(what))?.ok_or_else(|| Fault::gone(MESH_LINK))?;
        self.route.replace_address(Address { link: link.index, address: gateway, prefix: 32 });
        self.route.change_link(link.index, &Change::UP);
        self.route.run().map_err(doing(what))?;
        Ok(link.index)
    }

    /// What may change while the mesh's device stays.
    fn steady_mesh(&mut self, link: &Link, own: &NetOwn, wanted: Vxlan) -> Result<(), Fault> {
        let is_here = matches!(link.kind, LinkKind::Vxlan(is, _) if is.local == wanted.local);
        let change = Change {
            up: Some(true),
            mtu: (link.mtu != u32::from(own.mtu)).then_some(own.mtu.into()),
            vxlan_local: (!is_here).then_some(wanted.local),
            ..Change::default()
        };
        self.route.change_link(link.index, &change);
        self.route.replace_address(Address { link: link.index, address: own.gateway(), prefix: 32 });
        self.route.run().map_err(doing("change the mesh's device"))
    }

    /// The board has no part in a mesh any more.
    fn clear(&mut self) -> Result<(), Fault> {
        self.mesh = None;
        self.route.delete_link_named(MESH_LINK);
        let ours = |route: &RouteEntry| route.protocol == OURS;
        for route in self.route.routes(ours).map_err(doing("list routes"))? {
            self.route.delete_route(&route);
        }
        for rule in self.our_rules()? {
            self.route.delete_rule(&rule);
        }
        self.route.run().map_err(doing("remove the mesh's device"))?;
        rules::clear(&mut self.nft)
    }

    pub(super) fn our_rules(&mut self) -> Result<Vec<Rule>, Fault> {
        let rules = self.route.rules().map_err(doing("list routing rules"))?;
        Ok(rules.into_iter().filter(|rule| rule.protocol == OURS).collect())
    }

    fn mesh(&self) -> Result<u32, Fault> {
        self.mesh.ok_or_else(|| Fault::gone(MESH_LINK))
    }

    /// Another board is here, or elsewhere than before.
    pub(super) fn peer(&mut self, peer: &Peer, keeps_source: bool) -> Result<(), Fault> {
        let link = self.mesh()?;
        let gateway = peer.gateway();
        self.route.replace_neighbour(Neighbour { link, address: gateway, mac: mac(gateway) });
        self.route.replace_route(&way(link, peer));
        self.route.replace_fdb(Fdb { link, mac: mac(gateway), place: Place::Peer(peer.address) });
        let (rule, route) = way_back(link, peer);
        if keeps_source {
            self.route.replace_route(&route);
            self.route.add_rule(&rule);
        } else {
            self.route.delete_rule(&rule);
            self.route.delete_route(&route);
        }
        self.route.run().map_err(doing("tell the way to a board"))?;
        rules::peer(&mut self.nft, peer, keeps_source)
    }

    /// Another board is gone; `address`: no other one has its address.
    pub(super) fn peer_gone(&mut self, peer: &Peer, address: bool) -> Result<(), Fault> {
        rules::peer_gone(&mut self.nft, peer, address)?;
        let link = self.mesh()?;
        let (rule, route) = way_back(link, peer);
        self.route.delete_rule(&rule);
        self.route.delete_route(&route);
        self.route.delete_route(&way(link, peer));
        self.route.delete_fdb(Fdb { link, mac: mac(peer.gateway()), place: Place::Peer(peer.address) });
        self.route.delete_neighbour(link, peer.gateway());
        self.route.run().map_err(doing("forget the way to a board"))
    }

    /// Makes sure of a task's leg, up to its end in the task's namespace.
    pub(super) fn leg(&mut self, name: &str, leg: &Leg, inside: &Namespace) -> Result<(), Fault> {
        let what = "make the task's way out";
        if self.route.link(name).map_err(doing(what))?.is_none() {
            self.route.add_link(&NewLink {
                name,
                mac: Some(mac(leg.gateway)),
                mtu: leg.mtu.into(),
                up: None,
                master: None,
                kind: NewKind::Veth { peer: "eth0", mac: Some(mac(leg.address)), namespace: Some(inside) },
            });
            self.route.run().map_err(doing(what))?;
        }
        let link = self.route.link(name).map_err(doing(what))?.ok_or_else(|| Fault::gone(name))?.index;
        let path = |parameter: &str| format!("net/ipv4/conf/{name}/{parameter}");
        self.parameters(&[(&path("route_localnet"), "1"), (&path("rp_filter"), "0")])?;
        let no_ipv6 = format!("net/ipv6/conf/{name}/disable_ipv6");
        let parameter = Parameter { path: &no_ipv6, value: "1", optional: true };
        self.namespace.set(&[parameter]).map_err(doing(what))?;
        self.route.change_link(link, &Change::UP);
        self.route.replace_route(&RouteEntry {
            table: MAIN,
            to: Subnet::of(leg.address, 32),
            target: Target::Link { link, via: None, onlink: false },
            source: Some(leg.gateway),
            protocol: OURS,
        });
        self.route.run().map_err(doing(what))
    }

    /// Removes a task's leg, if it is there.
    pub(super) fn leg_gone(&mut self, name: &str) -> Result<(), Fault> {
        self.route.delete_link_named(name);
        self.route.run().map_err(doing("remove the task's way out"))
    }

    pub(super) fn publish(&mut self, ports: &[(Published, Option<Backends>)]) -> Result<(), Fault> {
        let mut transaction = Transaction::new();
        for (port, to) in ports {
            transaction.publish(*port, to.as_ref());
        }
        transaction.run(&mut self.nft)
    }

    /// Removes what nothing wants any more; the rest has been told before.
    pub(super) fn sweep(
        &mut self,
        board: &Board,
        legs: &BTreeSet<String>,
        peers: &[Peer],
        published: &BTreeSet<Published>,
    ) -> Result<(), Fault> {
        let (own, mesh) = (&board.own, self.mesh()?);
        for link in self.route.links().map_err(doing("list links"))? {
            let is_leg = link.kind == LinkKind::Veth && is_leg(&link.name) && !legs.contains(&*link.name);
            // One that was made and never got to its place.
            let is_lost = link.name.starts_with("rcv") && matches!(link.kind, LinkKind::Vxlan(..));
            if is_leg || is_lost {
                self.route.delete_link(link.index);
            }
        }
        let gateways: BTreeSet<Ipv4Addr> = peers.iter().map(Peer::gateway).collect();
        for address in self.route.addresses().map_err(doing("list addresses"))? {
            if address.link == mesh && address.address != own.gateway() {
                self.route.delete_address(address);
            }
        }
        for entry in self.route.neighbours(Some(mesh)).map_err(doing("list neighbours"))? {
            if !gateways.contains(&entry.address) {
                self.route.delete_neighbour(mesh, entry.address);
            }
        }
        let macs: BTreeSet<[u8; 6]> = gateways.iter().map(|gateway| mac(*gateway)).collect();
        for entry in self.route.fdb(mesh).map_err(doing("list the mesh's entries"))? {
            if !macs.contains(&entry.mac) {
                self.route.delete_fdb(entry);
            }
        }
        let mut routes: BTreeSet<RouteEntry> = peers.iter().map(|peer| way(mesh, peer)).collect();
        routes.insert(blackhole(own.subnet));
        let back: Vec<(Rule, RouteEntry)> =
            peers.iter().filter(|_| board.keeps_source).map(|peer| way_back(mesh, peer)).collect();
        routes.extend(back.iter().map(|(_, route)| *route));
        let ours = |route: &RouteEntry| route.protocol == OURS && route.source.is_none();
        for route in self.route.routes(ours).map_err(doing("list routes"))? {
            if !routes.iter().any(|wanted| (wanted.table, wanted.to) == (route.table, route.to)) {
                self.route.delete_route(&route);
            }
        }
        for rule in self.our_rules()? {
            if !back.iter().any(|(wanted, _)| (wanted.mark, wanted.table) == (rule.mark, rule.table)) {
                self.route.delete_rule(&rule);
            }
        }
        self.route.run().map_err(doing("remove what is not wanted any more"))?;
        rules::sweep_board(&mut self.nft, board, peers, published)
    }
}

fn blackhole(subnet: Subnet) -> RouteEntry {
    RouteEntry { table: MAIN, to: subnet, target: Target::Blackhole, source: None, protocol: OURS }
}

/// How packets get to a board's part of the mesh.
fn way(link: u32, peer: &Peer) -> RouteEntry {
    let target = Target::Link { link, via: Some(peer.gateway()), onlink: true };
    RouteEntry { table: MAIN, to: peer.subnet, target, source: None, protocol: OURS }
}

/// How answers get back to the board that a client came to.
fn way_back(link: u32, peer: &Peer) -> (Rule, RouteEntry) {
    let table = peer.origin.max(ORIGIN);
    let target = Target::Link { link, via: Some(peer.gateway()), onlink: true };
    let to = Subnet::of(Ipv4Addr::UNSPECIFIED, 0);
    (
        Rule { priority: RULE_PRIORITY, mark: peer.origin, table, protocol: OURS },
        RouteEntry { table, to, target, source: None, protocol: OURS },
    )
}
