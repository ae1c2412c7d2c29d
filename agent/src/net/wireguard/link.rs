//! The device itself: made with the first encrypted network of the board, removed with the last.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use racimo_common::net::Subnet;
use racimo_common::wire::NetOwn;

use super::{Key, LINK, Peers, apply, inside};
use crate::net::netlink::Error;
use crate::net::netlink::route::{Address, Change, LinkKind, MAIN, NewKind, NewLink, Route, RouteEntry, Target};

/// Bytes of a packet in it on a link of 1500 bytes.
const MTU: u32 = 1420;
/// Says in routes that they are the encryption's: they go with its device.
const OURS: u8 = 83;

/// Makes sure of the device with its key, its peers, its address and the routes to theirs.
///
/// # Errors
/// The kernel has no WireGuard, or refuses.
pub fn ensure(own: &NetOwn, key: &Key, peers: &Peers) -> Result<(), Error> {
    let mut route = Route::open()?;
    let present = route.link(LINK)?;
    if present.as_ref().is_some_and(|link| link.kind != LinkKind::Wireguard) {
        route.delete_link_named(LINK);
    }
    if !present.is_some_and(|link| link.kind == LinkKind::Wireguard) {
        route.add_link(&NewLink { name: LINK, mac: None, mtu: MTU, up: None, master: None, kind: NewKind::Wireguard });
        route.run()?;
    }
    let Some(link) = route.link(LINK)? else { return Err(Error::NoFamily("wireguard")) };
    apply(key, peers)?;
    let address = Address { link: link.index, address: inside(own), prefix: 32 };
    for old in route.addresses()?.into_iter().filter(|old| old.link == link.index && *old != address) {
        route.delete_address(old);
    }
    route.replace_address(address);
    route.change_link(link.index, &Change::UP);
    route.run()?;
    let there: BTreeSet<RouteEntry> = route.routes(|route| route.protocol == OURS)?.into_iter().collect();
    let wanted: BTreeSet<RouteEntry> =
        peers.values().map(|peer| to(peer.inside, link.index, address.address)).collect();
    there.difference(&wanted).for_each(|old| route.delete_route(old));
    wanted.difference(&there).for_each(|new| route.replace_route(new));
    route.run()
}

/// Another board's address inside is on the device.
fn to(address: Ipv4Addr, link: u32, own: Ipv4Addr) -> RouteEntry {
    RouteEntry {
        table: MAIN,
        to: Subnet::of(address, 32),
        target: Target::Link { link, via: None, onlink: false },
        source: Some(own),
        protocol: OURS,
    }
}

/// Removes it, if it is there, with its routes.
///
/// # Errors
/// The kernel refuses.
pub fn remove() -> Result<(), Error> {
    let mut route = Route::open()?;
    route.delete_link_named(LINK);
    route.run()
}
