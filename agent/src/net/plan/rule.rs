//! Rules of nf_tables as data: only the shapes that the plans need. As text they are in nft's language.

use std::fmt;
use std::net::Ipv4Addr;

use racimo_common::net::Subnet;
use racimo_common::object::Protocol;

/// The connection mark of flows whose client's address is kept.
pub const KEPT_MARK: u32 = 0x5300_0000;

/// Devices that rules name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The board's end of every task's gateway leg.
    Legs,
    /// The mesh between boards.
    Mesh,
    /// The encryption between boards.
    Encryption,
}

impl Device {
    /// Its name, or how all their names begin.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Legs => super::LEG_PREFIX,
            Self::Mesh => super::MESH_LINK,
            Self::Encryption => super::ENCRYPTION_LINK,
        }
    }

    /// Whether the name is how names begin.
    pub const fn is_prefix(self) -> bool {
        matches!(self, Self::Legs)
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}{}\"", self.name(), if self.is_prefix() { "*" } else { "" })
    }
}

/// One step of a rule: a condition, or what is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It came in by the device.
    In(Device),
    /// It did not.
    NotIn(Device),
    /// It goes out by the device.
    Out(Device),
    /// It does not.
    NotOut(Device),
    /// Its source is in the subnet.
    From(Subnet),
    /// It is not.
    NotFrom(Subnet),
    /// Its destination is in the subnet.
    To(Subnet),
    /// Its source is another board's address.
    FromPeer,
    /// It is not.
    NotFromPeer,
    /// Its destination is an address of the board.
    Local,
    /// It is of this protocol.
    Protocol(Protocol),
    /// It goes to this port.
    Port(Protocol, u16),
    /// Its destination was changed.
    Dnatted,
    /// It belongs to a connection that there is, or is about one.
    Established,
    /// It begins a connection.
    New,
    /// It is an answer.
    Reply,
    /// Whether its connection has this mark.
    Marked(u32, bool),
    /// One in so many, by chance.
    OneIn(u32),
    /// Go to the chain of the published port.
    Published,
    /// Go to the chain of the virtual address.
    Virtual,
    /// Change the destination.
    Dnat(Ipv4Addr, Option<u16>),
    /// Change the source.
    Snat(Ipv4Addr),
    /// Change the source to the address of the device it goes out by.
    Masquerade,
    /// Mark its connection.
    Mark(u32),
    /// Mark its connection with the board that it came from.
    MarkOrigin,
    /// Give the packet its connection's mark.
    Restore,
    /// Take the packet's mark.
    Unmark,
    /// It belongs to no connection.
    Untrack,
    /// Let it pass.
    Accept,
    /// Make it vanish.
    Drop,
    /// Refuse it: with a reset, as TCP does.
    Reset,
    /// Refuse it: port unreachable.
    Unreachable,
}

/// A rule: every condition must hold for what comes after it.
pub type Rule = Vec<Step>;

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(device) => write!(f, "iifname {device}"),
            Self::NotIn(device) => write!(f, "iifname != {device}"),
            Self::Out(device) => write!(f, "oifname {device}"),
            Self::NotOut(device) => write!(f, "oifname != {device}"),
            Self::From(subnet) => write!(f, "ip saddr {subnet}"),
            Self::NotFrom(subnet) => write!(f, "ip saddr != {subnet}"),
            Self::To(subnet) => write!(f, "ip daddr {subnet}"),
            Self::FromPeer => f.write_str("ip saddr @peers"),
            Self::NotFromPeer => f.write_str("ip saddr != @peers"),
            Self::Local => f.write_str("fib daddr type local"),
            Self::Protocol(protocol) => write!(f, "meta l4proto {protocol}"),
            Self::Port(protocol, port) => write!(f, "{protocol} dport {port}"),
            Self::Dnatted => f.write_str("ct status dnat"),
            Self::Established => f.write_str("ct state established,related"),
            Self::New => f.write_str("ct state new"),
            Self::Reply => f.write_str("ct direction reply"),
            Self::Marked(mark, true) => write!(f, "ct mark {mark:#x}"),
            Self::Marked(mark, false) => write!(f, "ct mark != {mark:#x}"),
            Self::OneIn(count) => write!(f, "numgen random mod {count} 0"),
            Self::Published => f.write_str("meta l4proto . th dport vmap @pub"),
            Self::Virtual => f.write_str("ip daddr vmap @vips"),
            Self::Dnat(address, Some(port)) => write!(f, "dnat to {address}:{port}"),
            Self::Dnat(address, None) => write!(f, "dnat to {address}"),
            Self::Snat(address) => write!(f, "snat to {address}"),
            Self::Masquerade => f.write_str("masquerade"),
            Self::Mark(mark) => write!(f, "ct mark set {mark:#x}"),
            Self::MarkOrigin => f.write_str("ct mark set ether saddr map @origin"),
            Self::Restore => f.write_str("meta mark set ct mark"),
            Self::Unmark => f.write_str("meta mark set 0"),
            Self::Untrack => f.write_str("notrack"),
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Reset => f.write_str("reject with tcp reset"),
            Self::Unreachable => f.write_str("reject with icmp type port-unreachable"),
        }
    }
}

/// The rule as nft has it.
pub fn text(rule: &[Step]) -> String {
    rule.iter().map(Step::to_string).collect::<Vec<_>>().join(" ")
}

/// Where a chain is hooked into the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook {
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// `prerouting`, `forward`, `output` or `postrouting`.
    pub hook: At,
    /// Its place among others.
    pub priority: i32,
}

/// Hooks of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Before a way is looked for.
    Prerouting,
    /// On its way through.
    Forward,
    /// Made by the board itself.
    Output,
    /// Before it leaves.
    Postrouting,
}

impl At {
    /// The kernel's number.
    pub const fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        }
    }
}

/// A chain that the kernel calls, with its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// Its name.
    pub name: &'static str,
    /// Where it is called.
    pub hook: Hook,
    /// Its rules.
    pub rules: Vec<Rule>,
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hook { kind, hook, priority } = self.hook;
        writeln!(f, "chain {} {{", self.name)?;
        writeln!(f, "  type {kind} hook {} priority {priority}; policy accept;", hook.name())?;
        for rule in &self.rules {
            writeln!(f, "  {}", text(rule))?;
        }
        writeln!(f, "}}")
    }
}

/// What a published port or a virtual address stands for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backends {
    /// Tasks that take new connections: address, and the port if it changes. None of them: refused.
    pub to: Vec<(Ipv4Addr, Option<u16>)>,
    /// The protocol, if it is one port's.
    pub protocol: Option<Protocol>,
    /// Whether the client's address is kept.
    pub keeps_source: bool,
}

impl Backends {
    /// The rules: each backend gets its even share, and the last one all that is left, so that nothing falls through
    /// while the list is replaced.
    pub fn rules(&self) -> Vec<Rule> {
        let mut rules = Vec::with_capacity(self.to.len() + 1);
        if self.to.is_empty() {
            if self.protocol.is_none_or(|protocol| protocol == Protocol::Tcp) {
                rules.push(vec![Step::Protocol(Protocol::Tcp), Step::Reset]);
            }
            if self.protocol != Some(Protocol::Tcp) {
                rules.push(vec![Step::Unreachable]);
            }
            return rules;
        }
        if self.keeps_source {
            rules.push(vec![Step::Mark(KEPT_MARK)]);
        }
        let count = self.to.len();
        for (place, &(address, port)) in self.to.iter().enumerate() {
            let mut rule = Vec::with_capacity(3);
            // A port can be changed only where there are ports.
            rule.extend(self.protocol.map(Step::Protocol));
            if place + 1 < count {
                rule.push(Step::OneIn(u32::try_from(count - place).unwrap_or(u32::MAX)));
            }
            rule.push(Step::Dnat(address, port));
            rules.push(rule);
        }
        rules
    }
}
