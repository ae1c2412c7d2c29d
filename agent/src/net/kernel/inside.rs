//! A task's own namespace: its ends of the links, and its rules.

use std::net::Ipv4Addr;

use racimo_common::net::Subnet;

use super::rules::{self, Transaction};
use super::{Fault, doing};
use crate::net::netlink::nft::Nft;
use crate::net::netlink::route::{Address, Change, LOOPBACK, MAIN, OURS, Route, RouteEntry, Target};
use crate::net::ns::{Namespace, Parameter};
use crate::net::plan::rule::Backends;
use crate::net::plan::task::{Attach, Leg};

/// A task's own namespace. Its socket keeps it alive: drop this before the namespace is removed.
#[derive(Debug)]
pub(super) struct Inside {
    pub(super) nft: Nft,
}

/// The name of a task's end of its link: its way out is `eth0`, its networks come after it.
pub(super) fn end(place: usize) -> String {
    format!("eth{place}")
}

/// Before there are links: they would draw IPv6 addresses.
pub(super) fn prepare(namespace: &Namespace) -> Result<(), Fault> {
    // Its loopback device keeps ::1.
    let parameter = Parameter { path: "net/ipv6/conf/default/disable_ipv6", value: "1", optional: true };
    namespace.set(&[parameter]).map_err(doing("set the parameters of the task's namespace"))
}

/// Addresses and routes; the links are there.
pub(super) fn links(namespace: &Namespace, attach: &Attach) -> Result<(), Fault> {
    let what = "give the task its addresses";
    let mut route = Route::open_in(namespace).map_err(doing(what))?;
    route.change_link(LOOPBACK, &Change::UP);
    let all = route.links().map_err(doing(what))?;
    let index = |name: &str| {
        let link = all.iter().find(|link| *link.name == *name);
        link.map(|link| link.index).ok_or_else(|| Fault::gone(name))
    };
    let up = |route: &mut Route, place: usize, address: Ipv4Addr, prefix: u8| -> Result<u32, Fault> {
        let link = index(&end(place))?;
        route.replace_address(Address { link, address, prefix });
        route.change_link(link, &Change::UP);
        Ok(link)
    };
    if let Some(Leg { address, gateway, mtu: _ }) = attach.leg {
        let link = up(&mut route, 0, address, 32)?;
        let entry = |to, via| RouteEntry {
            table: MAIN,
            to,
            target: Target::Link { link, via, onlink: false },
            source: None,
            protocol: OURS,
        };
        route.replace_route(&entry(Subnet::of(gateway, 32), None));
        route.replace_route(&entry(Subnet::of(Ipv4Addr::UNSPECIFIED, 0), Some(gateway)));
    }
    for (place, (overlay, address)) in attach.networks.iter().enumerate() {
        up(&mut route, place + 1, *address, overlay.subnet.prefix())?;
    }
    route.run().map_err(doing(what))
}

impl Inside {
    pub(super) fn open(namespace: &Namespace) -> Result<Self, Fault> {
        Ok(Self { nft: Nft::open_in(namespace).map_err(doing("open the task's namespace"))? })
    }

    /// The chains that the kernel calls.
    pub(super) fn chains(&mut self, attach: &Attach) -> Result<(), Fault> {
        rules::task(&mut self.nft, attach)
    }

    pub(super) fn virtuals<'a>(
        &mut self,
        virtuals: impl Iterator<Item = (Ipv4Addr, Option<&'a Backends>)>,
    ) -> Result<(), Fault> {
        let mut transaction = Transaction::new();
        for (address, to) in virtuals {
            transaction.virtual_address(address, to);
        }
        transaction.run(&mut self.nft)
    }
}
