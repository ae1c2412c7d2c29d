//! nf_tables: transactions, and what there is.
//!
//! A [`Transaction`] is done whole or not at all, and packets see it all at once. What it adds it does not mind finding
//! there already; what it deletes must be there.

mod list;
mod rule;

use std::net::Ipv4Addr;

use racimo_common::object::Protocol;

pub use rule::{ESTABLISHED, NEW, RELATED, Rule};

use super::Error;
use super::message::{ACK, APPEND, Batch, CREATE, Tolerate};
use super::route::Mac;
use super::socket::{Protocol as Family, Socket};
use crate::limits::{NFT_ELEMENTS_PER_MESSAGE, NFT_LISTED_ENDPOINTS};
use crate::net::ns::Namespace;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NFNL_SUBSYS_NFTABLES`, in the upper byte of a message's kind.
const NFTABLES: u16 = 10;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DEL_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const DEL_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const DEL_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const NEW_ELEMENTS: u16 = 12;
const GET_ELEMENTS: u16 = 13;
const DEL_ELEMENTS: u16 = 14;

/// `struct nfgenmsg` of IPv4.
const HEADER: [u8; 4] = [2, 0, 0, 0];
/// The kind of a nested attribute of a list.
const LIST_ITEM: u16 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
/// `NFT_GOTO`.
const GOTO: u32 = 0_u32.wrapping_sub(4);

/// Where a base chain is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before it is decided where a packet goes.
    Prerouting,
    /// What is for this namespace.
    Input,
    /// What goes through.
    Forward,
    /// What is from this namespace.
    Output,
    /// Before a packet leaves.
    Postrouting,
}

/// A chain that the kernel calls; it accepts what its rules do not decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// Whether it changes addresses; else it only judges and marks.
    pub nat: bool,
    /// Where it is called.
    pub hook: Hook,
    /// When, among others: small ones first.
    pub priority: i32,
}

/// Before connections are looked up.
pub const RAW: i32 = -300;
/// After that, before addresses are changed.
pub const MANGLE: i32 = -150;
/// Where destinations are changed.
pub const DSTNAT: i32 = -100;
/// Where packets are judged.
pub const FILTER: i32 = 0;
/// Where sources are changed.
pub const SRCNAT: i32 = 100;

/// What a set holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetKind {
    /// Addresses.
    Addresses,
    /// For addresses, where to go.
    AddressVerdicts,
    /// For protocols and ports, where to go.
    PortVerdicts,
    /// For hardware addresses, a mark.
    MacMarks,
}

const TYPE_ADDRESS: u32 = 7;
const TYPE_MAC: u32 = 9;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_SERVICE: u32 = 13;
const TYPE_MARK: u32 = 19;
const TYPE_INTEGER: u32 = 4;
const TYPE_VERDICT: u32 = 0xffff_ff00;
/// How `nft` numbers a type that is one after another: the kernel only keeps it.
const fn concatenated(first: u32, second: u32) -> u32 {
    first << 6 | second
}

const SET_ANONYMOUS: u32 = 1;
const SET_CONSTANT: u32 = 2;
const SET_MAP: u32 = 8;
const SET_USERDATA: u16 = 13;
/// Which order of bytes keys (0) or values (1) of a set have: 4 bytes, the machine's. The kernel only keeps it, and
/// `nft` shows numbers by it.
const fn machine_order(part: u8) -> [u8; 6] {
    let [a, b, c, d] = 1_u32.to_ne_bytes();
    [part, 4, a, b, c, d]
}

/// What is looked up in a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// An address.
    Address(Ipv4Addr),
    /// A protocol's number and a port.
    Port(u8, u16),
    /// A hardware address.
    Mac(Mac),
}

impl Key {
    /// A port of this protocol.
    pub fn port(protocol: Protocol, port: u16) -> Self {
        Self::Port(protocol.number(), port)
    }

    /// Padded to registers of 4 bytes each, where there are two.
    fn write(self, message: &mut Batch) {
        match self {
            Self::Address(address) => message.ip(DATA_VALUE, address),
            Self::Port(protocol, port) => {
                let [high, low] = port.to_be_bytes();
                message.attribute(DATA_VALUE, &[protocol, 0, 0, 0, high, low, 0, 0])
            }
            Self::Mac(mac) => message.attribute(DATA_VALUE, &mac),
        };
    }

    fn read(kind: SetKind, value: &[u8]) -> Option<Self> {
        match (kind, value) {
            (SetKind::Addresses | SetKind::AddressVerdicts, &[a, b, c, d]) => {
                Some(Self::Address(Ipv4Addr::new(a, b, c, d)))
            }
            (SetKind::PortVerdicts, &[protocol, _, _, _, high, low, ..]) => {
                Some(Self::Port(protocol, u16::from_be_bytes([high, low])))
            }
            (SetKind::MacMarks, value) => value.first_chunk().copied().map(Self::Mac),
            _ => None,
        }
    }
}

/// What is found in a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Nothing: it is only a set.
    Present,
    /// Go on in this chain.
    Goto(&'a str),
    /// A mark.
    Mark(u32),
}

/// Changes to one table that are done together.
#[derive(Debug)]
pub struct Transaction<'a> {
    batch: Batch,
    table: &'a str,
    /// How many maps without a name were made.
    maps: u32,
}

impl<'a> Transaction<'a> {
    /// Nothing yet, for the IPv4 table of this name.
    pub fn new(table: &'a str) -> Self {
        let mut batch = Batch::new();
        batch.begin(BATCH_BEGIN, 0, Tolerate::Nothing, &[0, 0, 0, 10]);
        Self { batch, table, maps: 0 }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.batch.count() == 1
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Its bytes as they are sent, and the number of the message that is acknowledged.
    pub fn finish(mut self) -> (Batch, u32) {
        let last = self.batch.count();
        self.batch.flag_last(ACK);
        self.batch.begin(BATCH_END, 0, Tolerate::Nothing, &[0, 0, 0, 10]);
        (self.batch, last)
    }

    fn begin(&mut self, kind: u16, flags: u16) -> &mut Batch {
        let table = self.table;
        self.batch.begin(NFTABLES << 8 | kind, flags, Tolerate::Nothing, &HEADER).text(1, table)
    }

    /// Makes the table, unless it is there.
    pub fn add_table(&mut self) {
        self.begin(NEW_TABLE, CREATE);
    }

    /// Deletes the table with all that is in it.
    pub fn delete_table(&mut self) {
        self.begin(DEL_TABLE, 0);
    }

    /// Makes a chain that only rules and maps name, unless it is there.
    pub fn add_chain(&mut self, name: &str) {
        self.begin(NEW_CHAIN, CREATE).text(3, name);
    }

    /// Makes a chain that the kernel calls, unless it is there.
    pub fn add_base_chain(&mut self, name: &str, base: Base) {
        const ACCEPT: u32 = 1;
        let hook = match base.hook {
            Hook::Prerouting => 0,
            Hook::Input => 1,
            Hook::Forward => 2,
            Hook::Output => 3,
            Hook::Postrouting => 4,
        };
        let kind = if base.nat { "nat" } else { "filter" };
        let chain = self.begin(NEW_CHAIN, CREATE).text(3, name);
        chain.nest(4, |at| {
            at.be32(1, hook).attribute(2, &base.priority.to_be_bytes());
        });
        chain.be32(5, ACCEPT).text(7, kind);
    }

    /// Deletes a chain that has no rules and that nothing names.
    pub fn delete_chain(&mut self, name: &str) {
        self.begin(DEL_CHAIN, 0).text(3, name);
    }

    /// Deletes all rules of a chain.
    pub fn flush_chain(&mut self, name: &str) {
        self.begin(DEL_RULE, 0).text(2, name);
    }

    /// Makes a set, unless it is there.
    pub fn add_set(&mut self, name: &str, kind: SetKind) {
        let id = self.batch.count();
        let (key, length, data) = match kind {
            SetKind::Addresses => (TYPE_ADDRESS, 4, None),
            SetKind::AddressVerdicts => (TYPE_ADDRESS, 4, Some(TYPE_VERDICT)),
            SetKind::PortVerdicts => (concatenated(TYPE_PROTOCOL, TYPE_SERVICE), 8, Some(TYPE_VERDICT)),
            SetKind::MacMarks => (TYPE_MAC, 6, Some(TYPE_MARK)),
        };
        let set = self.begin(NEW_SET, CREATE).text(2, name);
        set.be32(3, if data.is_some() { SET_MAP } else { 0 }).be32(4, key).be32(5, length);
        if let Some(data) = data {
            set.be32(6, data);
        }
        if data == Some(TYPE_MARK) {
            set.be32(7, 4).attribute(SET_USERDATA, &machine_order(1));
        }
        set.be32(10, id);
    }

    /// Adds elements to a set; one that is there must have the same value.
    pub fn add_elements<'v>(&mut self, set: &str, elements: impl IntoIterator<Item = (Key, Value<'v>)>) {
        let mut elements = elements.into_iter().peekable();
        while elements.peek().is_some() {
            self.begin(NEW_ELEMENTS, CREATE).text(2, set).nest(3, |list| {
                for (key, value) in elements.by_ref().take(NFT_ELEMENTS_PER_MESSAGE) {
                    list.nest(LIST_ITEM, |item| {
                        item.nest(1, |data| key.write(data));
                        match value {
                            Value::Present => item,
                            Value::Goto(chain) => item.nest(2, |data| {
                                data.nest(DATA_VERDICT, |verdict| {
                                    verdict.be32(VERDICT_CODE, GOTO).text(VERDICT_CHAIN, chain);
                                });
                            }),
                            Value::Mark(mark) => item.nest(2, |data| {
                                data.u32(DATA_VALUE, mark);
                            }),
                        };
                    });
                }
            });
        }
    }

    /// Deletes elements of a set; they must be there.
    pub fn delete_elements(&mut self, set: &str, keys: impl IntoIterator<Item = Key>) {
        let mut keys = keys.into_iter().peekable();
        while keys.peek().is_some() {
            self.begin(DEL_ELEMENTS, 0).text(2, set).nest(3, |list| {
                for key in keys.by_ref().take(NFT_ELEMENTS_PER_MESSAGE) {
                    list.nest(LIST_ITEM, |item| {
                        item.nest(1, |data| key.write(data));
                    });
                }
            });
        }
    }

    /// Deletes all elements of a set.
    pub fn flush_set(&mut self, set: &str) {
        self.begin(DEL_ELEMENTS, 0).text(2, set);
    }

    /// Appends a rule to a chain: what `fill` writes.
    pub fn rule(&mut self, chain: &str, fill: impl FnOnce(&mut Rule<'_>)) {
        self.begin(NEW_RULE, CREATE | APPEND).text(2, chain).nest(4, |message| fill(&mut Rule::new(message)));
    }

    /// Makes the rules of a chain so that new connections go evenly to these endpoints; `fill` writes what each rule
    /// begins with. There must be one at least.
    ///
    /// While the list is replaced, a packet may still meet the old rules after their map is gone, or draw a number
    /// anew. So the last rule takes whatever comes to it.
    pub fn balance(&mut self, chain: &str, endpoints: &[(Ipv4Addr, Option<u16>)], fill: impl Fn(&mut Rule<'_>)) {
        let count = u32::try_from(endpoints.len()).unwrap_or(u32::MAX);
        if endpoints.len() > NFT_LISTED_ENDPOINTS {
            let ports = endpoints.iter().all(|(_, port)| port.is_some());
            let map = self.endpoint_map(endpoints, ports);
            self.rule(chain, |rule| {
                fill(rule);
                rule.dnat_by_chance(count, map, ports);
            });
        } else {
            for (left, (address, port)) in (2..=count).rev().zip(endpoints) {
                self.rule(chain, |rule| {
                    fill(rule);
                    rule.one_in(left).dnat(*address, *port);
                });
            }
        }
        if let Some((address, port)) = endpoints.last() {
            self.rule(chain, |rule| {
                fill(rule);
                rule.dnat(*address, *port);
            });
        }
    }

    /// A map from numbers to endpoints that goes with the rule that names it; says its number.
    fn endpoint_map(&mut self, endpoints: &[(Ipv4Addr, Option<u16>)], ports: bool) -> u32 {
        self.maps += 1;
        let id = self.maps;
        let (data, length) = if ports { (concatenated(TYPE_ADDRESS, TYPE_SERVICE), 8) } else { (TYPE_ADDRESS, 4) };
        let count = u32::try_from(endpoints.len()).unwrap_or(u32::MAX);
        let set = self.begin(NEW_SET, CREATE).text(2, ANONYMOUS_MAP);
        set.be32(3, SET_ANONYMOUS | SET_CONSTANT | SET_MAP).be32(4, TYPE_INTEGER).be32(5, 4);
        set.be32(6, data).be32(7, length).nest(9, |about| {
            about.be32(1, count);
        });
        set.be32(10, id).attribute(SET_USERDATA, &machine_order(0));
        for (part, some) in endpoints.chunks(NFT_ELEMENTS_PER_MESSAGE).enumerate() {
            let first = u32::try_from(part * NFT_ELEMENTS_PER_MESSAGE).unwrap_or(u32::MAX);
            self.begin(NEW_ELEMENTS, CREATE).text(2, ANONYMOUS_MAP).be32(4, id).nest(3, |list| {
                for (number, (address, port)) in (first..).zip(some) {
                    list.nest(LIST_ITEM, |item| {
                        item.nest(1, |data| {
                            data.u32(DATA_VALUE, number);
                        });
                        let [a, b, c, d] = address.octets();
                        let [high, low] = port.unwrap_or_default().to_be_bytes();
                        let value = [a, b, c, d, high, low, 0, 0];
                        item.nest(2, |data| {
                            data.attribute(DATA_VALUE, if ports { &value } else { &value[..4] });
                        });
                    });
                }
            });
        }
        id
    }
}

/// The kernel puts a number in the place of `%d`.
const ANONYMOUS_MAP: &str = "__map%d";

/// nf_tables in one network namespace.
#[derive(Debug)]
pub struct Nft {
    socket: Socket,
}

impl Nft {
    /// Of the calling thread's namespace.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open(Family::Netfilter)? })
    }

    /// Of another namespace.
    pub fn open_in(namespace: &Namespace) -> Result<Self, Error> {
        Ok(Self { socket: Socket::open_in(namespace, Family::Netfilter)? })
    }

    /// Has the transaction done.
    pub fn run(&mut self, transaction: Transaction<'_>) -> Result<(), Error> {
        if transaction.is_empty() {
            return Ok(());
        }
        let (batch, last) = transaction.finish();
        self.socket.run_whole(&batch, last)
    }
}
