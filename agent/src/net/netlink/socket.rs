//! A blocking netlink socket: requests, acknowledgements, listings.
//!
//! ```text
//! send ─▶ the kernel works ─▶ answers wait ─▶ read until that of the last message
//!                                 └─ some were lost ─▶ read what is left, then Overrun
//! ```

use std::os::fd::{AsFd, OwnedFd};

use super::Error;
use super::message::{ACK, Batch, Message, Messages, Tolerate, number, u32_at};
use crate::limits::{
    NETLINK_ANSWER, NETLINK_ANSWER_MAX, NETLINK_BATCH_MAX, NETLINK_CHUNK, NETLINK_EXPLANATION_MAX, NETLINK_LIST_MAX,
    NETLINK_LIST_TRIES, NETLINK_WAITING,
};
use crate::net::ns::Namespace;
use crate::sys::net::{Received, netlink_socket, receive, send};

/// `NLMSG_ERROR`: a refusal, or an acknowledgement.
const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a listing.
const DONE: u16 = 3;
/// `NLM_F_DUMP_INTR`: the listing is not of one moment.
const INTERRUPTED: u16 = 0x10;
/// `NLM_F_ACK_TLVS`: attributes follow.
const EXPLAINED: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`.
const EXPLANATION: u16 = 1;
/// Bytes of an acknowledgement with all that explains it.
const ACKNOWLEDGEMENT: usize = 2048;

/// Which part of the kernel a socket talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes, neighbours.
    Route,
    /// nf_tables and connection tracking.
    Netfilter,
    /// Families with names.
    Generic,
}

/// A socket in the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    /// Whether answers to an earlier request may still come.
    dirty: bool,
}

impl Socket {
    /// A socket in the network namespace of the calling thread.
    pub fn open(protocol: Protocol) -> Result<Self, Error> {
        let protocol = match protocol {
            Protocol::Route => libc::NETLINK_ROUTE,
            Protocol::Netfilter => libc::NETLINK_NETFILTER,
            Protocol::Generic => libc::NETLINK_GENERIC,
        };
        // What is in flight counts with the kernel's own bookkeeping.
        let fd = netlink_socket(protocol, 2 * NETLINK_BATCH_MAX, NETLINK_WAITING, NETLINK_ANSWER_MAX)?;
        Ok(Self { fd, dirty: false })
    }

    /// A socket in another network namespace.
    pub fn open_in(namespace: &Namespace, protocol: Protocol) -> Result<Self, Error> {
        namespace.run(|| Self::open(protocol))?
    }

    /// Has each message of the batch done by itself, in order. A message that is refused does not keep the others from
    /// being done; the first refusal is the result.
    pub fn run_each(&mut self, batch: &mut Batch) -> Result<(), Error> {
        if !batch.is_whole() {
            return Err(Error::TooLarge);
        }
        let mut result = Ok(());
        let mut start = 0;
        while start < batch.len() {
            let (end, last) = chunk(batch.bytes(), start);
            let flags = last + 6;
            if let Some(low) = batch.bytes_mut().get_mut(flags..flags + 2) {
                low.copy_from_slice(&(u16::from_ne_bytes([low[0], low[1]]) | ACK).to_ne_bytes());
            }
            let part = &batch.bytes()[start..end];
            let sequence = u32_at(batch.bytes(), last + 8).unwrap_or_default();
            match self.exchange(part, sequence, false) {
                Err(refused @ Error::Refused { .. }) => result = result.and(Err(refused)),
                other => other?,
            }
            start = end;
        }
        result
    }

    /// Sends the batch as one piece, which the kernel does whole or not at all. Only the message with this sequence
    /// number asks for an acknowledgement.
    pub(super) fn run_whole(&mut self, batch: &Batch, last: u32) -> Result<(), Error> {
        if !batch.is_whole() {
            return Err(Error::TooLarge);
        }
        self.exchange(batch.bytes(), last, true)
    }

    fn exchange(&mut self, bytes: &[u8], last: u32, whole: bool) -> Result<(), Error> {
        self.drain();
        self.dirty = true;
        send(self.fd.as_fd(), bytes)?;
        let mut buffer = [0; ACKNOWLEDGEMENT];
        let mut refused = None;
        let mut lost = false;
        loop {
            // After a loss, or in a transaction that failed, the last answer may never come; all others are here.
            let wait = !lost && (refused.is_none() || !whole);
            let count = match receive(self.fd.as_fd(), &mut buffer, wait)? {
                Received::Bytes(count) => count,
                Received::Lost => {
                    lost = true;
                    continue;
                }
                Received::Nothing if wait => return Err(Error::Silent),
                Received::Nothing => return Err(refused.unwrap_or(Error::Overrun)),
                Received::Cut => return Err(Error::Malformed),
            };
            for answer in Messages(&buffer[..count]).filter(|answer| answer.kind == ERROR) {
                let errno = errno(&answer)?;
                if errno != 0 && !Tolerate::allows(answer.sequence, errno) {
                    refused.get_or_insert_with(|| refusal(&answer, errno, bytes));
                }
                if answer.sequence == last {
                    self.dirty = lost || refused.is_some();
                    return match refused {
                        Some(refused) => Err(refused),
                        None if lost => Err(Error::Overrun),
                        None => Ok(()),
                    };
                }
            }
        }
    }

    /// What `read` makes of each message that the request is answered with, all of one moment.
    pub fn list<T, E: IntoIterator<Item = T>>(
        &mut self,
        request: &Batch,
        mut read: impl FnMut(&Message<'_>) -> E,
    ) -> Result<Vec<T>, Error> {
        for _ in 0..NETLINK_LIST_TRIES {
            let mut entries = Vec::new();
            let mut all = true;
            let steady = self.stream(request, &mut |message| {
                for entry in read(message) {
                    all &= entries.len() < NETLINK_LIST_MAX;
                    if all {
                        entries.push(entry);
                    }
                }
            })?;
            match (steady, all) {
                (_, false) => return Err(Error::TooMany),
                (true, true) => return Ok(entries),
                (false, true) => {}
            }
        }
        Err(Error::Unsteady)
    }

    /// Calls `each` with every entry of the answer to a request of one message; holds one piece at a time. Says
    /// whether the entries are of one moment.
    pub(super) fn stream(&mut self, request: &Batch, each: &mut dyn FnMut(&Message<'_>)) -> Result<bool, Error> {
        if !request.is_whole() {
            return Err(Error::TooLarge);
        }
        self.drain();
        self.dirty = true;
        send(self.fd.as_fd(), request.bytes())?;
        let mut buffer = vec![0; NETLINK_ANSWER];
        let result = self.answers(request, &mut buffer, each);
        // A device's private key may be in it.
        buffer.fill(0);
        std::hint::black_box(&mut buffer);
        result
    }

    fn answers(
        &mut self,
        request: &Batch,
        buffer: &mut [u8],
        each: &mut dyn FnMut(&Message<'_>),
    ) -> Result<bool, Error> {
        let mut steady = true;
        loop {
            let count = match receive(self.fd.as_fd(), buffer, true)? {
                Received::Bytes(count) => count,
                Received::Lost => {
                    steady = false;
                    continue;
                }
                Received::Nothing => return Err(Error::Silent),
                Received::Cut => return Err(Error::Malformed),
            };
            for message in Messages(&buffer[..count]) {
                steady &= message.flags & INTERRUPTED == 0;
                if !matches!(message.kind, ERROR | DONE) {
                    each(&message);
                    continue;
                }
                self.dirty = false;
                return match errno(&message)? {
                    0 => Ok(steady),
                    errno => Err(refusal(&message, errno, request.bytes())),
                };
            }
        }
    }

    /// Throws away what is left of an exchange that was not read to its end.
    fn drain(&mut self) {
        if !self.dirty {
            return;
        }
        let mut buffer = vec![0; NETLINK_ANSWER];
        while let Ok(Received::Bytes(_) | Received::Cut | Received::Lost) = receive(self.fd.as_fd(), &mut buffer, false)
        {
        }
        self.dirty = false;
    }
}

/// The end of the chunk that begins here, and where its last message starts.
fn chunk(bytes: &[u8], start: usize) -> (usize, usize) {
    let (mut end, mut last) = (start, start);
    while let Some(length) = u32_at(bytes, end).and_then(|length| usize::try_from(length).ok()) {
        if length < 16 || end > start && end + length - start > NETLINK_CHUNK {
            break;
        }
        last = end;
        end += length.next_multiple_of(4);
    }
    if end == start { (bytes.len(), start) } else { (end.min(bytes.len()), last) }
}

/// The error number in an answer; 0: none.
fn errno(answer: &Message<'_>) -> Result<i32, Error> {
    let code = i32::from_ne_bytes(*answer.body.first_chunk().ok_or(Error::Malformed)?);
    Ok(code.checked_neg().unwrap_or(i32::MAX).max(0))
}

fn refusal(answer: &Message<'_>, errno: i32, sent: &[u8]) -> Error {
    // Behind the error stands the header of what was sent; the end of a listing has none.
    let header = if answer.kind == ERROR { 20 } else { 4 };
    let explanation = if answer.flags & EXPLAINED == 0 {
        ""
    } else {
        answer.attributes(header).get(EXPLANATION).map(|text| text.text()).unwrap_or_default()
    };
    let end = (0..=explanation.len().min(NETLINK_EXPLANATION_MAX)).rev().find(|end| explanation.is_char_boundary(*end));
    let message = Messages(sent).find(|message| message.sequence == answer.sequence);
    Error::Refused {
        doing: message.map_or("do as asked", |message| doing(message.kind)),
        number: number(answer.sequence),
        errno,
        explanation: explanation[..end.unwrap_or(0)].into(),
    }
}

/// What a message of this kind asks for.
fn doing(kind: u16) -> &'static str {
    match kind {
        16 | 19 => "make or change a link",
        17 => "delete a link",
        18 => "list links",
        20 => "add an address",
        21 => "delete an address",
        22 => "list addresses",
        24 => "add a route",
        25 => "delete a route",
        26 => "list routes",
        28 => "add a neighbour",
        29 => "delete a neighbour",
        30 => "list neighbours",
        32 => "add a routing rule",
        33 => "delete a routing rule",
        34 => "list routing rules",
        0x101 => "list connections",
        0x102 => "delete a connection",
        0xa00 => "add a table",
        0xa01 => "list tables",
        0xa02 => "delete a table",
        0xa03 => "add a chain",
        0xa04 => "list chains",
        0xa05 => "delete a chain",
        0xa06 => "add a rule",
        0xa08 => "flush a chain",
        0xa09 => "add a set",
        0xa0c => "add elements to a set",
        0xa0d => "list elements of a set",
        0xa0e => "delete elements of a set",
        _ => "do as asked",
    }
}
