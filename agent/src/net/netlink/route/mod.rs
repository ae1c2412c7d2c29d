//! rtnetlink: links, addresses, routes, neighbours and rules of one network namespace.
//!
//! Changes are queued and sent together with [`Route::run`]; each stands for itself. What replaces can be repeated,
//! what deletes is content when there is nothing. Listings (`list.rs`) send what is queued first.

mod link;
mod list;

use std::net::Ipv4Addr;

use racimo_common::net::Subnet;

pub use link::{Change, Link, LinkKind, Mac, NewKind, NewLink, PortFlags, Vxlan};

use super::message::{Batch, CREATE, EXCLUSIVE, REPLACE, Tolerate};
use super::socket::{Protocol, Socket};
use super::{Error, route::link::link_header};
use crate::limits::NETLINK_PART;
use crate::net::ns::Namespace;

/// Says in routes and rules that they are ours.
pub const OURS: u8 = 82;
/// The table of routes without another.
pub const MAIN: u32 = 254;
/// The loopback device's index in every network namespace.
pub const LOOPBACK: u32 = 1;

pub(super) const NEW_LINK: u16 = 16;
pub(super) const DEL_LINK: u16 = 17;
pub(super) const GET_LINK: u16 = 18;
pub(super) const SET_LINK: u16 = 19;
const NEW_ADDRESS: u16 = 20;
const DEL_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const DEL_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
const NEW_NEIGHBOUR: u16 = 28;
const DEL_NEIGHBOUR: u16 = 29;
const GET_NEIGHBOUR: u16 = 30;
const NEW_RULE: u16 = 32;
const DEL_RULE: u16 = 33;
const GET_RULE: u16 = 34;

/// `AF_INET`, in a byte.
pub(super) const INET: u8 = 2;
/// `AF_BRIDGE`, in a byte.
pub(super) const BRIDGE: u8 = 7;

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The link's index.
    pub link: u32,
    /// The address.
    pub address: Ipv4Addr,
    /// The length of its subnet's mask.
    pub prefix: u8,
}

/// Where packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Out of a link.
    Link {
        /// The link's index.
        link: u32,
        /// The next router; none: the destination is on the link.
        via: Option<Ipv4Addr>,
        /// Whether the router is on the link although no address says so.
        onlink: bool,
    },
    /// Nowhere.
    Blackhole,
    /// Anything else; only listed.
    Other,
}

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteEntry {
    /// The table it is in.
    pub table: u32,
    /// For which destinations.
    pub to: Subnet,
    /// Where they go.
    pub target: Target,
    /// The address that packets from here have, unless they have one.
    pub source: Option<Ipv4Addr>,
    /// Who made it: [`OURS`].
    pub protocol: u8,
}

/// Where a hardware address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Behind a port of a bridge; the bridge's entry.
    Port,
    /// Behind the VXLAN's peer with this address.
    Peer(Ipv4Addr),
}

/// An entry of a forwarding table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fdb {
    /// The index of the VXLAN or the bridge's port.
    pub link: u32,
    /// The hardware address.
    pub mac: Mac,
    /// Where it is.
    pub place: Place,
}

/// The hardware address of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// The link's index.
    pub link: u32,
    /// The neighbour's address.
    pub address: Ipv4Addr,
    /// Its hardware address.
    pub mac: Mac,
}

/// Packets with this mark go by this table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Its place among the rules, 0 first.
    pub priority: u32,
    /// The mark.
    pub mark: u32,
    /// The table.
    pub table: u32,
    /// Who made it: [`OURS`].
    pub protocol: u8,
}

/// The links, addresses and routes of one network namespace.
#[derive(Debug)]
pub struct Route {
    socket: Socket,
    batch: Batch,
    /// The first failure of messages that were sent before [`Self::run`], because they were many.
    early: Result<(), Error>,
}

impl Route {
    /// Those of the calling thread's namespace.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open(Protocol::Route)?, batch: Batch::new(), early: Ok(()) })
    }

    /// Those of another namespace.
    pub fn open_in(namespace: &Namespace) -> Result<Self, Error> {
        Ok(Self { socket: Socket::open_in(namespace, Protocol::Route)?, batch: Batch::new(), early: Ok(()) })
    }

    /// Has all done that is queued, in order; the queue is empty then. A refused change does not keep the others from
    /// being done; the first refusal is the result.
    pub fn run(&mut self) -> Result<(), Error> {
        let done = self.socket.run_each(&mut self.batch);
        self.batch.clear();
        std::mem::replace(&mut self.early, Ok(())).and(done)
    }

    /// Makes a link; refused if there is one of this name. A namespace that it names must be open until this is sent.
    pub fn add_link(&mut self, link: &NewLink<'_>) {
        link.write(self.begin(NEW_LINK, CREATE | EXCLUSIVE, Tolerate::Nothing, &link_header(0, link.up)));
    }

    /// Changes a link. A namespace that it names must be open until this is sent.
    pub fn change_link(&mut self, index: u32, change: &Change<'_>) {
        change.write(self.begin(NEW_LINK, 0, Tolerate::Nothing, &change.header(index)));
    }

    /// Deletes a link, if it is there; a veth goes with its other end.
    pub fn delete_link(&mut self, index: u32) {
        self.begin(DEL_LINK, 0, Tolerate::Missing, &link_header(index, None));
    }

    /// Deletes the link of this name, if it is there.
    pub fn delete_link_named(&mut self, name: &str) {
        self.begin(DEL_LINK, 0, Tolerate::Missing, &link_header(0, None)).text(link::NAME, name);
    }

    /// Sets what a bridge does on one of its ports.
    pub fn set_port(&mut self, index: u32, flags: PortFlags) {
        let mut header = link_header(index, None);
        header[0] = BRIDGE;
        flags.write(self.begin(SET_LINK, 0, Tolerate::Nothing, &header));
    }

    /// Gives a link an address, unless it has it.
    pub fn replace_address(&mut self, address: Address) {
        self.address(NEW_ADDRESS, CREATE | REPLACE, Tolerate::Nothing, address);
    }

    /// Takes an address from a link, if it has it.
    pub fn delete_address(&mut self, address: Address) {
        self.address(DEL_ADDRESS, 0, Tolerate::Missing, address);
    }

    fn address(&mut self, kind: u16, flags: u16, tolerate: Tolerate, address: Address) {
        let mut header = [INET, address.prefix, 0, 0, 0, 0, 0, 0];
        header[4..].copy_from_slice(&address.link.to_ne_bytes());
        self.begin(kind, flags, tolerate, &header).ip(2, address.address).ip(1, address.address);
    }

    /// Adds a route; one with the same destination in the same table is replaced.
    pub fn replace_route(&mut self, route: &RouteEntry) {
        self.route(NEW_ROUTE, CREATE | REPLACE, Tolerate::Nothing, route);
    }

    /// Deletes a route, if it is there.
    pub fn delete_route(&mut self, route: &RouteEntry) {
        self.route(DEL_ROUTE, 0, Tolerate::Missing, route);
    }

    fn route(&mut self, kind: u16, flags: u16, tolerate: Tolerate, route: &RouteEntry) {
        const UNIVERSE: u8 = 0;
        const ON_LINK: u8 = 253;
        const NOWHERE: u8 = 255;
        let (scope, action, onlink) = match route.target {
            Target::Link { via: None, .. } => (ON_LINK, libc::RTN_UNICAST, false),
            Target::Link { onlink, .. } => (UNIVERSE, libc::RTN_UNICAST, onlink),
            Target::Blackhole => (UNIVERSE, libc::RTN_BLACKHOLE, false),
            // Any kind, when one is deleted.
            Target::Other => (NOWHERE, libc::RTN_UNSPEC, false),
        };
        let mut header = [INET, route.to.prefix(), 0, 0, 0, route.protocol, scope, action, 0, 0, 0, 0];
        if onlink {
            header[8..].copy_from_slice(&ONLINK_FLAG.to_ne_bytes());
        }
        let message = self.begin(kind, flags, tolerate, &header).u32(libc::RTA_TABLE, route.table);
        if route.to.prefix() > 0 {
            message.ip(libc::RTA_DST, route.to.address());
        }
        if let Target::Link { link, via, .. } = route.target {
            message.u32(libc::RTA_OIF, link);
            if let Some(via) = via {
                message.ip(libc::RTA_GATEWAY, via);
            }
        }
        if let Some(source) = route.source {
            message.ip(libc::RTA_PREFSRC, source);
        }
    }

    /// Tells a neighbour's hardware address, for ever; an entry that was there is replaced.
    pub fn replace_neighbour(&mut self, neighbour: Neighbour) {
        let header = neighbour_header(INET, neighbour.link, libc::NUD_PERMANENT, 0);
        let message = self.begin(NEW_NEIGHBOUR, CREATE | REPLACE, Tolerate::Nothing, &header);
        message.ip(libc::NDA_DST, neighbour.address).attribute(libc::NDA_LLADDR, &neighbour.mac);
    }

    /// Forgets a neighbour, if it is there.
    pub fn delete_neighbour(&mut self, link: u32, address: Ipv4Addr) {
        let header = neighbour_header(INET, link, 0, 0);
        self.begin(DEL_NEIGHBOUR, 0, Tolerate::Missing, &header).ip(libc::NDA_DST, address);
    }

    /// Tells where a hardware address is, for ever; an entry that was there is replaced.
    pub fn replace_fdb(&mut self, entry: Fdb) {
        let header = match entry.place {
            Place::Port => neighbour_header(BRIDGE, entry.link, libc::NUD_NOARP, libc::NTF_MASTER),
            Place::Peer(_) => neighbour_header(BRIDGE, entry.link, libc::NUD_PERMANENT, libc::NTF_SELF),
        };
        let message = self.begin(NEW_NEIGHBOUR, CREATE | REPLACE, Tolerate::Nothing, &header);
        message.attribute(libc::NDA_LLADDR, &entry.mac);
        if let Place::Peer(address) = entry.place {
            message.ip(libc::NDA_DST, address);
        }
    }

    /// Forgets where a hardware address is, if it was known.
    pub fn delete_fdb(&mut self, entry: Fdb) {
        let flags = if entry.place == Place::Port { libc::NTF_MASTER } else { libc::NTF_SELF };
        let header = neighbour_header(BRIDGE, entry.link, 0, flags);
        self.begin(DEL_NEIGHBOUR, 0, Tolerate::Missing, &header).attribute(libc::NDA_LLADDR, &entry.mac);
    }

    /// Adds a rule, unless it is there.
    pub fn add_rule(&mut self, rule: &Rule) {
        self.rule(NEW_RULE, CREATE | EXCLUSIVE, Tolerate::Existing, rule);
    }

    /// Deletes a rule, if it is there.
    pub fn delete_rule(&mut self, rule: &Rule) {
        self.rule(DEL_RULE, 0, Tolerate::Missing, rule);
    }

    fn rule(&mut self, kind: u16, flags: u16, tolerate: Tolerate, rule: &Rule) {
        const TO_TABLE: u8 = 1;
        let header = [INET, 0, 0, 0, 0, 0, 0, TO_TABLE, 0, 0, 0, 0];
        let message = self.begin(kind, flags, tolerate, &header);
        message.u32(FRA_PRIORITY, rule.priority).u32(FRA_FWMARK, rule.mark).u32(FRA_FWMASK, u32::MAX);
        message.u32(FRA_TABLE, rule.table).u8(FRA_PROTOCOL, rule.protocol);
    }

    /// Queues a message; a long queue is sent, so that it stays small.
    fn begin(&mut self, kind: u16, flags: u16, tolerate: Tolerate, header: &[u8]) -> &mut Batch {
        if self.batch.len() >= NETLINK_PART {
            self.early = self.run();
        }
        self.batch.begin(kind, flags, tolerate, header)
    }
}

/// `RTNH_F_ONLINK`.
const ONLINK_FLAG: u32 = 4;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_PROTOCOL: u16 = 21;

fn neighbour_header(family: u8, link: u32, state: u16, flags: u8) -> [u8; 12] {
    let mut header = [0; 12];
    header[0] = family;
    header[4..8].copy_from_slice(&link.to_ne_bytes());
    header[8..10].copy_from_slice(&state.to_ne_bytes());
    header[10] = flags;
    header
}
