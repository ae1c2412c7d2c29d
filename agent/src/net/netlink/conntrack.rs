//! Connection tracking: forgetting connections that lead to a task which takes none any more.
//!
//! A connection whose destination was changed keeps that for as long as it lives, and datagrams from one port are a
//! connection until half a minute passes without any. Once it is forgotten, its next packet is looked at anew: a
//! datagram reaches another task, and of a TCP connection another task says at once that it does not know it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::Error;
use super::message::{Attributes, Batch, DUMP, Message, Tolerate};
use super::socket::{Protocol, Socket};
use crate::limits::NETLINK_CHUNK;
use crate::net::ns::Namespace;

/// `NFNL_SUBSYS_CTNETLINK`, in the upper byte of a message's kind.
const CONNTRACK: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
/// `struct nfgenmsg` of IPv4.
const HEADER: [u8; 4] = [2, 0, 0, 0];
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const FILTER: u16 = 25;
const FILTER_ORIGINAL: u16 = 1;
const FILTER_REPLY: u16 = 2;
const FILTER_SOURCE: u32 = 1;
const TUPLE_ADDRESSES: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const SOURCE: u16 = 1;
const PROTOCOL_NUMBER: u16 = 1;
const UDP: u8 = 17;
const STATUS: u16 = 3;
/// `IPS_SEEN_REPLY`: the other side has answered.
const ANSWERED: u32 = 1 << 1;

/// Which connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All: the task is gone.
    All,
    /// Only what would still lead new ones there: the task takes none. Datagrams, which do not end by themselves, and
    /// connections that nobody has answered: a client that comes round to its port would meet a dead task again.
    Datagrams,
}

/// Connection tracking in one network namespace. Entries are deleted while they are listed, through another socket, so
/// that they need not be remembered.
#[derive(Debug)]
pub struct Conntrack {
    listing: Socket,
    deleting: Socket,
}

impl Conntrack {
    /// Of the calling thread's namespace.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { listing: Socket::open(Protocol::Netfilter)?, deleting: Socket::open(Protocol::Netfilter)? })
    }

    /// Of another namespace.
    pub fn open_in(namespace: &Namespace) -> Result<Self, Error> {
        namespace.run(Self::open)?
    }

    /// Forgets connections whose answers come from one of these addresses: whatever address the client asked for. Says
    /// how many.
    pub fn forget(&mut self, addresses: &BTreeSet<Ipv4Addr>, which: Which) -> Result<usize, Error> {
        let Some(first) = addresses.first() else { return Ok(0) };
        let mut request = Batch::new();
        request.begin(CONNTRACK << 8 | GET, DUMP, Tolerate::Nothing, &HEADER);
        if addresses.len() == 1 {
            // Since Linux 5.8 the others are not even listed; before, this is not looked at.
            request.nest(REPLY, |reply| {
                reply.nest(TUPLE_ADDRESSES, |addresses| {
                    addresses.ip(SOURCE, *first);
                });
            });
            request.nest(FILTER, |filter| {
                filter.u32(FILTER_ORIGINAL, 0).u32(FILTER_REPLY, FILTER_SOURCE);
            });
        }
        let mut batch = Batch::new();
        let mut deleted = 0;
        let mut result = Ok(());
        let deleting = &mut self.deleting;
        // A listing that was disturbed, by ourselves too, may leave some out. What comes meanwhile does not matter: new
        // connections do not lead there.
        let mut rounds = 0..crate::limits::NETLINK_LIST_TRIES;
        while rounds.next().is_some() {
            let before = deleted;
            let steady = self.listing.stream(&request, &mut |message| {
                let Some((original, id)) = found(message, addresses, which) else { return };
                deleted += 1;
                let entry = batch.begin(CONNTRACK << 8 | DELETE, 0, Tolerate::Missing, &HEADER);
                entry.attribute(ORIGINAL | NESTED, original).attribute(ID, id);
                if batch.len() >= NETLINK_CHUNK {
                    let done = deleting.run_each(&mut batch);
                    batch.clear();
                    result = std::mem::replace(&mut result, Ok(())).and(done);
                }
            })?;
            let done = deleting.run_each(&mut batch);
            batch.clear();
            result = std::mem::replace(&mut result, Ok(())).and(done);
            if result.is_err() || steady && deleted == before {
                break;
            }
        }
        result.map(|()| deleted)
    }
}

/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

/// The entry's first tuple and its number, if it is one of those.
fn found<'a>(message: &Message<'a>, addresses: &BTreeSet<Ipv4Addr>, which: Which) -> Option<(&'a [u8], &'a [u8])> {
    let attributes = message.attributes(HEADER.len());
    let reply: Attributes<'_> = attributes.get(REPLY)?.nested();
    let source = reply.get(TUPLE_ADDRESSES)?.nested().get(SOURCE)?.ip()?;
    let protocol = reply.get(TUPLE_PROTOCOL)?.nested().get(PROTOCOL_NUMBER)?.value;
    let status = attributes.get(STATUS).and_then(|status| Some(u32::from_be_bytes(status.value.try_into().ok()?)));
    let is_answered = status.is_none_or(|status| status & ANSWERED != 0);
    let wanted = addresses.contains(&source) && (which == Which::All || protocol == [UDP] || !is_answered);
    wanted.then_some((attributes.get(ORIGINAL)?.value, attributes.get(ID)?.value))
}
