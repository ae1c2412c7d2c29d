//! Rules: conditions from left to right, then what is done. A condition that does not hold ends the rule.
//!
//! An expression loads a value into a register, compares a register or acts. Registers have 4 bytes; longer values
//! take the next ones too.

use std::net::Ipv4Addr;

use racimo_common::net::Subnet;
use racimo_common::object::Protocol;

use super::{ANONYMOUS_MAP, DATA_VALUE, DATA_VERDICT, LIST_ITEM, VERDICT_CODE};
use crate::net::netlink::message::Batch;

const VERDICT: u32 = 0;
const FIRST: u32 = 8;
const SECOND: u32 = 9;
const THIRD: u32 = 10;

const DROP: u32 = 0;
const ACCEPT: u32 = 1;

const META_MARK: u32 = 3;
const META_IN: u32 = 6;
const META_OUT: u32 = 7;
const META_IN_TYPE: u32 = 8;
const META_PROTOCOL: u32 = 16;
const CT_STATE: u32 = 0;
const CT_DIRECTION: u32 = 1;
const CT_STATUS: u32 = 2;
const CT_MARK: u32 = 3;
const LINK_HEADER: u32 = 0;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;

/// State of a connection: an answer was seen.
pub const ESTABLISHED: u32 = 2;
/// State of a connection: it belongs to another one, as errors do.
pub const RELATED: u32 = 4;
/// State of a connection: it begins.
pub const NEW: u32 = 8;

/// A rule that is being written.
#[derive(Debug)]
pub struct Rule<'m> {
    message: &'m mut Batch,
}

impl<'m> Rule<'m> {
    pub(super) fn new(message: &'m mut Batch) -> Self {
        Self { message }
    }

    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Batch)) -> &mut Self {
        self.message.nest(LIST_ITEM, |message| {
            message.text(1, name).nest(2, fill);
        });
        self
    }

    fn meta(&mut self, key: u32, register: u32) -> &mut Self {
        self.expression("meta", |message| {
            message.be32(1, register).be32(2, key);
        })
    }

    fn ct(&mut self, key: u32) -> &mut Self {
        self.expression("ct", |message| {
            message.be32(1, FIRST).be32(2, key);
        })
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32, register: u32) -> &mut Self {
        self.expression("payload", |message| {
            message.be32(1, register).be32(2, base).be32(3, offset).be32(4, length);
        })
    }

    fn compare(&mut self, equal: bool, value: &[u8]) -> &mut Self {
        self.expression("cmp", |message| {
            message.be32(1, FIRST).be32(2, u32::from(!equal)).nest(3, |data| {
                data.attribute(DATA_VALUE, value);
            });
        })
    }

    fn mask(&mut self, mask: [u8; 4]) -> &mut Self {
        self.expression("bitwise", |message| {
            message.be32(1, FIRST).be32(2, FIRST).be32(3, 4);
            for (kind, value) in [(4, mask), (5, [0; 4])] {
                message.nest(kind, |data| {
                    data.attribute(DATA_VALUE, &value);
                });
            }
        })
    }

    fn look_up(&mut self, set: &str, to: Option<u32>) -> &mut Self {
        self.expression("lookup", |message| {
            message.text(1, set).be32(2, FIRST);
            if let Some(to) = to {
                message.be32(3, to);
            }
        })
    }

    fn load(&mut self, register: u32, value: &[u8]) -> &mut Self {
        self.expression("immediate", |message| {
            message.be32(1, register).nest(2, |data| {
                data.attribute(DATA_VALUE, value);
            });
        })
    }

    fn verdict(&mut self, code: u32) -> &mut Self {
        self.expression("immediate", |message| {
            message.be32(1, VERDICT).nest(2, |data| {
                data.nest(DATA_VERDICT, |verdict| {
                    verdict.be32(VERDICT_CODE, code);
                });
            });
        })
    }

    fn name(&mut self, key: u32, name: &str, equal: bool) -> &mut Self {
        self.meta(key, FIRST);
        match name.strip_suffix('*') {
            // Only the first bytes are compared.
            Some(start) => self.compare(equal, start.as_bytes()),
            None => {
                let mut padded = [0; 16];
                let length = name.len().min(15);
                padded[..length].copy_from_slice(&name.as_bytes()[..length]);
                self.compare(equal, &padded)
            }
        }
    }

    fn subnet(&mut self, offset: u32, subnet: Subnet, equal: bool) -> &mut Self {
        let octets = subnet.address().octets();
        let bytes = usize::from(subnet.prefix() / 8);
        if subnet.prefix() == 0 && equal {
            return self;
        }
        if subnet.prefix() % 8 == 0 && bytes > 0 {
            let length = u32::from(subnet.prefix() / 8);
            return self.payload(NETWORK_HEADER, offset, length, FIRST).compare(equal, &octets[..bytes]);
        }
        let mask = u32::MAX.checked_shl(32 - u32::from(subnet.prefix())).unwrap_or(0);
        self.payload(NETWORK_HEADER, offset, 4, FIRST).mask(mask.to_be_bytes()).compare(equal, &octets)
    }

    /// Whether it came in by the device of this name, or not; with a `*` at the end: of a name that begins so.
    pub fn iifname(&mut self, name: &str, equal: bool) -> &mut Self {
        self.name(META_IN, name, equal)
    }

    /// Whether it goes out by the device of this name, or not; with a `*` at the end: of a name that begins so.
    pub fn oifname(&mut self, name: &str, equal: bool) -> &mut Self {
        self.name(META_OUT, name, equal)
    }

    /// Whether its source is in the subnet, or not.
    pub fn saddr(&mut self, subnet: Subnet, equal: bool) -> &mut Self {
        self.subnet(SOURCE, subnet, equal)
    }

    /// Whether its destination is in the subnet, or not.
    pub fn daddr(&mut self, subnet: Subnet, equal: bool) -> &mut Self {
        self.subnet(DESTINATION, subnet, equal)
    }

    /// Whether its source is in a set of addresses, or not.
    pub fn saddr_in(&mut self, set: &str, equal: bool) -> &mut Self {
        const INVERTED: u32 = 1;
        self.payload(NETWORK_HEADER, SOURCE, 4, FIRST).expression("lookup", |message| {
            message.text(1, set).be32(2, FIRST);
            if !equal {
                message.be32(5, INVERTED);
            }
        })
    }

    /// Whether its destination is an address of this namespace.
    pub fn daddr_is_local(&mut self) -> &mut Self {
        const DESTINATION_ADDRESS: u32 = 2;
        const ADDRESS_TYPE: u32 = 3;
        self.expression("fib", |message| {
            message.be32(1, FIRST).be32(2, ADDRESS_TYPE).be32(3, DESTINATION_ADDRESS);
        })
        .compare(true, &u32::from(libc::RTN_LOCAL).to_ne_bytes())
    }

    /// Whether it is of this protocol.
    pub fn protocol(&mut self, protocol: Protocol) -> &mut Self {
        self.meta(META_PROTOCOL, FIRST).compare(true, &[protocol.number()])
    }

    /// Whether it goes to this port.
    pub fn dport(&mut self, protocol: Protocol, port: u16) -> &mut Self {
        self.protocol(protocol).payload(TRANSPORT_HEADER, 2, 2, FIRST).compare(true, &port.to_be_bytes())
    }

    /// Whether its connection is in one of the states: [`ESTABLISHED`] and others.
    pub fn ct_state(&mut self, states: u32) -> &mut Self {
        self.ct(CT_STATE).mask(states.to_ne_bytes()).compare(false, &[0; 4])
    }

    /// Whether its connection's destination was changed.
    pub fn ct_is_dnat(&mut self) -> &mut Self {
        const DNAT_DONE: u32 = 32;
        self.ct(CT_STATUS).mask(DNAT_DONE.to_ne_bytes()).compare(false, &[0; 4])
    }

    /// Whether it is an answer in its connection.
    pub fn ct_is_reply(&mut self) -> &mut Self {
        self.ct(CT_DIRECTION).compare(true, &[1])
    }

    /// Whether its connection has this mark, or not.
    pub fn ct_mark(&mut self, mark: u32, equal: bool) -> &mut Self {
        self.ct(CT_MARK).compare(equal, &mark.to_ne_bytes())
    }

    /// Whether it is the one of so many, by chance.
    pub fn one_in(&mut self, count: u32) -> &mut Self {
        self.chance(count).compare(true, &[0; 4])
    }

    fn chance(&mut self, count: u32) -> &mut Self {
        const RANDOM: u32 = 1;
        self.expression("numgen", |message| {
            message.be32(1, FIRST).be32(2, count.max(1)).be32(3, RANDOM).be32(4, 0);
        })
    }

    /// Goes where the map says for its protocol and destination's port.
    pub fn port_verdict(&mut self, map: &str) -> &mut Self {
        self.meta(META_PROTOCOL, FIRST).payload(TRANSPORT_HEADER, 2, 2, SECOND).look_up(map, Some(VERDICT))
    }

    /// Goes where the map says for its destination.
    pub fn daddr_verdict(&mut self, map: &str) -> &mut Self {
        self.payload(NETWORK_HEADER, DESTINATION, 4, FIRST).look_up(map, Some(VERDICT))
    }

    /// Changes the destination of its connection.
    pub fn dnat(&mut self, address: Ipv4Addr, port: Option<u16>) -> &mut Self {
        self.load(FIRST, &address.octets());
        if let Some(port) = port {
            self.load(SECOND, &port.to_be_bytes());
        }
        self.nat(1, FIRST, port.map(|_| SECOND))
    }

    /// Changes the destination of its connection to one of so many from the map without a name.
    pub(super) fn dnat_by_chance(&mut self, count: u32, map: u32, ports: bool) -> &mut Self {
        self.chance(count).expression("lookup", |message| {
            message.text(1, ANONYMOUS_MAP).be32(2, FIRST).be32(3, SECOND).be32(4, map);
        });
        self.nat(1, SECOND, ports.then_some(THIRD))
    }

    /// Changes the source of its connection.
    pub fn snat(&mut self, address: Ipv4Addr) -> &mut Self {
        self.load(FIRST, &address.octets()).nat(0, FIRST, None)
    }

    fn nat(&mut self, kind: u32, address: u32, port: Option<u32>) -> &mut Self {
        const IPV4: u32 = 2;
        self.expression("nat", |message| {
            message.be32(1, kind).be32(2, IPV4).be32(3, address);
            if let Some(port) = port {
                message.be32(5, port);
            }
        })
    }

    /// Changes the source of its connection to the address of the device it goes out by.
    pub fn masquerade(&mut self) -> &mut Self {
        self.expression("masq", |_| {})
    }

    /// Marks its connection.
    pub fn set_ct_mark(&mut self, mark: u32) -> &mut Self {
        self.load(FIRST, &mark.to_ne_bytes()).store_ct_mark()
    }

    /// Marks its connection with what the map has for the hardware address that it came from; without that: nothing.
    pub fn set_ct_mark_by_mac(&mut self, map: &str) -> &mut Self {
        const ETHERNET: u16 = 1;
        self.meta(META_IN_TYPE, FIRST).compare(true, &ETHERNET.to_ne_bytes());
        self.payload(LINK_HEADER, 6, 6, FIRST).look_up(map, Some(FIRST)).store_ct_mark()
    }

    fn store_ct_mark(&mut self) -> &mut Self {
        self.expression("ct", |message| {
            message.be32(2, CT_MARK).be32(4, FIRST);
        })
    }

    /// Marks it with its connection's mark.
    pub fn set_mark_of_ct(&mut self) -> &mut Self {
        self.ct(CT_MARK).store_mark()
    }

    /// Marks it.
    pub fn set_mark(&mut self, mark: u32) -> &mut Self {
        self.load(FIRST, &mark.to_ne_bytes()).store_mark()
    }

    fn store_mark(&mut self) -> &mut Self {
        self.expression("meta", |message| {
            message.be32(2, META_MARK).be32(3, FIRST);
        })
    }

    /// It is looked up in no connection; before connections are.
    pub fn untrack(&mut self) -> &mut Self {
        self.expression("notrack", |_| {})
    }

    /// Lets it pass this chain's hook.
    pub fn accept(&mut self) -> &mut Self {
        self.verdict(ACCEPT)
    }

    /// Makes it vanish.
    pub fn drop(&mut self) -> &mut Self {
        self.verdict(DROP)
    }

    /// Refuses a TCP connection.
    pub fn reject_with_reset(&mut self) -> &mut Self {
        const RESET: u32 = 1;
        self.expression("reject", |message| {
            message.be32(1, RESET);
        })
    }

    /// Refuses it: nobody has the port.
    pub fn reject_port_unreachable(&mut self) -> &mut Self {
        const UNREACHABLE: u32 = 0;
        const PORT: u8 = 3;
        self.expression("reject", |message| {
            message.be32(1, UNREACHABLE).u8(2, PORT);
        })
    }
}
