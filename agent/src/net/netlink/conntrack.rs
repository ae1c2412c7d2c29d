//! Connection tracking: forgetting connections that lead to a task which takes none any more.
//!
//! A connection whose destination was changed keeps that for as long as it lives, and datagrams from one port are a
//! connection until half a minute passes without any. Once it is forgotten, its next packet is looked at anew: a
//! datagram reaches another task, and of a TCP connection another task says at once that it does not know it.
//!
//! The kernel cannot be asked to forget an entry only if it is still as it was listed: a connection whose answer is on
//! its way may be made by then, and would be torn. So only what nobody has answered for a while counts as unanswered.

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    /// All: the task is gone.
    All,
    /// Only datagrams, which do not end by themselves: the task takes no new ones.
    Datagrams,
    /// Only connections that nobody has answered: a client that asks again, or comes round to its port, would meet a
    /// task that has stopped or is dead. To be asked for when the task has taken none for a while (see above).
    Unanswered,
}

impl Which {
    fn has(self, is_datagram: bool, is_answered: bool) -> bool {
        match self {
            Self::All => true,
            Self::Datagrams => is_datagram,
            Self::Unanswered => !is_datagram && !is_answered,
        }
    }
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
                let Some((reply, id)) = found(message, addresses, which) else { return };
                deleted += 1;
                let entry = batch.begin(CONNTRACK << 8 | DELETE, 0, Tolerate::Missing, &HEADER);
                entry.attribute(REPLY | NESTED, reply).attribute(ID, id);
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

/// The entry's answers and its number, if it is one of those. What the client asked for does not tell it from the
/// client's next connection, from the same port to another task, nor does the number, which is the same if that entry
/// has the old one's memory: the answers come from the task.
fn found<'a>(message: &Message<'a>, addresses: &BTreeSet<Ipv4Addr>, which: Which) -> Option<(&'a [u8], &'a [u8])> {
    let attributes = message.attributes(HEADER.len());
    let answers = attributes.get(REPLY)?;
    let reply: Attributes<'_> = answers.nested();
    let source = reply.get(TUPLE_ADDRESSES)?.nested().get(SOURCE)?.ip()?;
    let protocol = reply.get(TUPLE_PROTOCOL)?.nested().get(PROTOCOL_NUMBER)?.value;
    let status = attributes.get(STATUS).and_then(|status| Some(u32::from_be_bytes(status.value.try_into().ok()?)));
    let is_answered = status.is_none_or(|status| status & ANSWERED != 0);
    let wanted = addresses.contains(&source) && which.has(protocol == [UDP], is_answered);
    wanted.then_some((answers.value, attributes.get(ID)?.value))
}

#[cfg(test)]
mod tests {
    use super::super::message::Messages;
    use super::*;

    const TASK: Ipv4Addr = Ipv4Addr::new(10, 200, 1, 2);
    const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

    /// An entry as the kernel lists it: the client's port leads to the task.
    fn entry(protocol: u8, status: u32) -> Batch {
        let mut batch = Batch::new();
        let message = batch.begin(CONNTRACK << 8, 0, Tolerate::Nothing, &HEADER);
        for (tuple, source) in [(1, CLIENT), (REPLY, TASK)] {
            message.nest(tuple, |tuple| {
                tuple.nest(TUPLE_ADDRESSES, |addresses| {
                    addresses.ip(SOURCE, source);
                });
                tuple.nest(TUPLE_PROTOCOL, |number| {
                    number.u8(PROTOCOL_NUMBER, protocol);
                });
            });
        }
        message.be32(STATUS, status).be32(ID, 7);
        batch
    }

    /// Its number alone does not keep the client's next connection, to another task, from being torn.
    #[test]
    fn an_entry_is_named_by_the_answers_to_it() {
        let entry = entry(6, ANSWERED);
        let message = Messages(entry.bytes()).next().unwrap();
        let (answers, id) = found(&message, &BTreeSet::from([TASK]), Which::All).unwrap();
        let source =
            Attributes(answers).get(TUPLE_ADDRESSES).and_then(|addresses| addresses.nested().get(SOURCE)?.ip());
        assert_eq!((source, id), (Some(TASK), &[0, 0, 0, 7][..]));
        assert!(found(&message, &BTreeSet::from([CLIENT]), Which::All).is_none());
    }

    #[test]
    fn which_entries_are_forgotten() {
        let is_found = |protocol, status, which| {
            let entry = entry(protocol, status);
            let message = Messages(entry.bytes()).next().unwrap();
            found(&message, &BTreeSet::from([TASK]), which).is_some()
        };
        for (protocol, status, wanted) in [
            (UDP, 0, [true, true, false]),
            (UDP, ANSWERED, [true, true, false]),
            (6, 0, [true, false, true]),
            (6, ANSWERED, [true, false, false]),
            (132, 0, [true, false, true]),
        ] {
            let found =
                [Which::All, Which::Datagrams, Which::Unanswered].map(|which| is_found(protocol, status, which));
            assert_eq!(found, wanted, "protocol {protocol}, status {status}");
        }
    }
}
