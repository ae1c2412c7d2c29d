//! The board's overlay networks, in a namespace of their own: firewalls, bridges' settings and network managers of the
//! board do not get there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use racimo_common::net::mac;

use super::{Fault, doing};
use crate::net::netlink::route::{
    Change, Fdb, LOOPBACK, Link, LinkKind, Neighbour, NewKind, NewLink, Place, PortFlags, Route, Vxlan,
};
use crate::net::ns::{Namespace, Namespaces, Parameter};
use crate::net::plan::task::{Overlay, bridge, vxlan};

/// The namespace's name.
pub(super) const NAME: &str = "racimo";

/// A task's port: nothing is learnt, nothing unknown is sent there.
const TASK_PORT: PortFlags = PortFlags { learning: false, flood: false, multicast: true, broadcast: true };
/// The way to other boards: what is unknown goes there and ends there, as it has no default.
const VXLAN_PORT: PortFlags = PortFlags { learning: false, flood: true, multicast: false, broadcast: true };

/// The namespace of the overlay networks.
#[derive(Debug)]
pub(super) struct Overlays {
    namespace: Namespace,
    pub(super) route: Route,
    /// Indices of bridges and VXLANs, by the network's number.
    links: BTreeMap<u32, (u32, u32)>,
}

impl Overlays {
    /// Opens the namespace, which is made if it is not there.
    pub(super) fn open(namespaces: &Namespaces) -> Result<Self, Fault> {
        let what = "make the namespace of networks";
        let namespace = namespaces.make(NAME).map_err(doing(what))?;
        let optional = |path, value| Parameter { path, value, optional: true };
        let parameters = [
            optional("net/bridge/bridge-nf-call-iptables", "0"),
            optional("net/bridge/bridge-nf-call-ip6tables", "0"),
            optional("net/bridge/bridge-nf-call-arptables", "0"),
            optional("net/ipv6/conf/all/disable_ipv6", "1"),
            optional("net/ipv6/conf/default/disable_ipv6", "1"),
        ];
        namespace.set(&parameters).map_err(doing(what))?;
        let mut route = Route::open_in(&namespace).map_err(doing(what))?;
        route.change_link(LOOPBACK, &Change::UP);
        route.run().map_err(doing(what))?;
        Ok(Self { namespace, route, links: BTreeMap::new() })
    }

    /// Makes sure of a network. `host`: where its VXLAN's socket is.
    pub(super) fn overlay(&mut self, overlay: &Overlay, host: &mut Route) -> Result<(), Fault> {
        let what = "make the network";
        let bridge = self.bridge(overlay)?;
        let name = overlay.vxlan();
        let wanted = Vxlan { vni: overlay.vni, port: overlay.port, local: overlay.local, proxy: true };
        let found = self.route.link(&name).map_err(doing(what))?;
        let vxlan = match found {
            Some(link) if is_like(&link, wanted) => {
                let is_here = matches!(link.kind, LinkKind::Vxlan(is, _) if is.local == wanted.local);
                let change = Change {
                    mtu: (link.mtu != u32::from(overlay.mtu)).then_some(overlay.mtu.into()),
                    vxlan_local: (!is_here).then_some(wanted.local),
                    ..Change::default()
                };
                self.route.change_link(link.index, &change);
                link
            }
            other => {
                if let Some(other) = other {
                    self.route.delete_link(other.index);
                    self.route.run().map_err(doing(what))?;
                }
                self.new_vxlan(&name, overlay.mtu, wanted, host)?
            }
        };
        if vxlan.master != Some(bridge) || !vxlan.up {
            let change = Change { up: Some(true), master: Some(bridge), ..Change::default() };
            self.route.change_link(vxlan.index, &change);
        }
        self.route.set_port(vxlan.index, VXLAN_PORT);
        self.route.run().map_err(doing(what))?;
        self.links.insert(overlay.vni, (bridge, vxlan.index));
        Ok(())
    }

    fn bridge(&mut self, overlay: &Overlay) -> Result<u32, Fault> {
        let what = "make the network's bridge";
        let name = overlay.bridge();
        if let Some(link) = self.route.link(&name).map_err(doing(what))? {
            if !link.up {
                self.route.change_link(link.index, &Change::UP);
            }
            return Ok(link.index);
        }
        self.route.add_link(&NewLink {
            name: &name,
            mac: None,
            mtu: overlay.mtu.into(),
            up: Some(true),
            master: None,
            kind: NewKind::Bridge,
        });
        self.route.run().map_err(doing(what))?;
        Ok(self.route.link(&name).map_err(doing(what))?.ok_or_else(|| Fault::gone(&name))?.index)
    }

    /// Made where the board's addresses are, and moved: its socket stays there.
    fn new_vxlan(&mut self, name: &str, mtu: u16, wanted: Vxlan, host: &mut Route) -> Result<Link, Fault> {
        let what = "make the network's VXLAN";
        // One that never got here.
        host.delete_link_named(name);
        host.add_link(&NewLink {
            name,
            mac: None,
            mtu: mtu.into(),
            up: None,
            master: None,
            kind: NewKind::Vxlan(wanted),
        });
        host.run().map_err(doing(what))?;
        let link = host.link(name).map_err(doing(what))?.ok_or_else(|| Fault::gone(name))?;
        host.change_link(link.index, &Change { namespace: Some(&self.namespace), ..Change::default() });
        host.run().map_err(doing(what))?;
        self.route.link(name).map_err(doing(what))?.ok_or_else(|| Fault::gone(name))
    }

    /// Removes a network; true: it was the last one.
    pub(super) fn overlay_gone(&mut self, vni: u32) -> Result<bool, Fault> {
        self.links.remove(&vni);
        self.route.delete_link_named(&vxlan(vni));
        self.route.delete_link_named(&bridge(vni));
        self.route.run().map_err(doing("remove the network"))?;
        Ok(self.links.is_empty())
    }

    /// Says behind which boards tasks are; none: behind none any more.
    pub(super) fn remotes(&mut self, remotes: &[(u32, Ipv4Addr, Option<Ipv4Addr>)]) -> Result<(), Fault> {
        for &(vni, address, board) in remotes {
            let Some(&(_, link)) = self.links.get(&vni) else { continue };
            match board {
                Some(board) => {
                    self.route.replace_neighbour(Neighbour { link, address, mac: mac(address) });
                    self.route.replace_fdb(Fdb { link, mac: mac(address), place: Place::Peer(board) });
                }
                None => {
                    self.route.delete_fdb(Fdb { link, mac: mac(address), place: Place::Peer(address) });
                    self.route.delete_neighbour(link, address);
                }
            }
        }
        self.route.run().map_err(doing("tell where tasks of a network are"))
    }

    /// Makes sure of a task's link to a network, up to its end in the task's namespace.
    pub(super) fn join(
        &mut self,
        name: &str,
        overlay: &Overlay,
        address: Ipv4Addr,
        end: &str,
        inside: &Namespace,
    ) -> Result<(), Fault> {
        let what = "join the network";
        let &(bridge, _) = self.links.get(&overlay.vni).ok_or_else(|| Fault::gone(&overlay.bridge()))?;
        if self.route.link(name).map_err(doing(what))?.is_none() {
            self.route.add_link(&NewLink {
                name,
                mac: None,
                mtu: overlay.mtu.into(),
                up: None,
                master: Some(bridge),
                kind: NewKind::Veth { peer: end, mac: Some(mac(address)), namespace: Some(inside) },
            });
            self.route.run().map_err(doing(what))?;
        }
        let link = self.route.link(name).map_err(doing(what))?.ok_or_else(|| Fault::gone(name))?.index;
        self.route.change_link(link, &Change { up: Some(true), master: Some(bridge), ..Change::default() });
        self.route.set_port(link, TASK_PORT);
        self.route.replace_fdb(Fdb { link, mac: mac(address), place: Place::Port });
        self.route.run().map_err(doing(what))
    }

    /// Removes a task's links to networks.
    pub(super) fn leave(&mut self, names: &[String]) -> Result<(), Fault> {
        for name in names {
            self.route.delete_link_named(name);
        }
        self.route.run().map_err(doing("leave the networks"))
    }

    /// Removes what nothing wants any more: links, and tasks of networks.
    pub(super) fn sweep(
        &mut self,
        links: &BTreeSet<String>,
        remotes: &BTreeMap<u32, BTreeSet<Ipv4Addr>>,
    ) -> Result<(), Fault> {
        for link in self.route.links().map_err(doing("list links"))? {
            let is_ours = matches!(link.kind, LinkKind::Bridge | LinkKind::Vxlan(..) | LinkKind::Veth);
            if is_ours && !links.contains(&*link.name) {
                self.route.delete_link(link.index);
            }
        }
        self.links.retain(|vni, _| remotes.contains_key(vni));
        let none = BTreeSet::new();
        for (vni, &(_, link)) in &self.links {
            let wanted = remotes.get(vni).unwrap_or(&none);
            let macs: BTreeSet<[u8; 6]> = wanted.iter().map(|address| mac(*address)).collect();
            for entry in self.route.neighbours(Some(link)).map_err(doing("list neighbours"))? {
                if !wanted.contains(&entry.address) {
                    self.route.delete_neighbour(link, entry.address);
                }
            }
            for entry in self.route.fdb(link).map_err(doing("list a network's entries"))? {
                if entry.place != Place::Port && !macs.contains(&entry.mac) {
                    self.route.delete_fdb(entry);
                }
            }
        }
        self.route.run().map_err(doing("remove what is not wanted any more"))
    }
}

fn is_like(link: &Link, wanted: Vxlan) -> bool {
    matches!(link.kind, LinkKind::Vxlan(is, false) if Vxlan { local: wanted.local, ..is } == wanted)
}
