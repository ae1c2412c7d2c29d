//! How services are reached: published ports and what stands for their tasks in a network.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A protocol that ports belong to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// The default.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
    /// Streams of messages.
    Sctp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// `tcp`, `udp` or `sctp`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// The number in an IP header.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where a published port answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PortMode {
    /// On every board, for all tasks.
    #[default]
    Ingress,
    /// On the board of each task, for that task.
    Host,
}

impl PortMode {
    /// `ingress` or `host`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Host => "host",
        }
    }
}

/// A port that a service publishes.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Port {
    /// A name for it; it means nothing here.
    pub name: Option<String>,
    /// Its protocol.
    pub protocol: Protocol,
    /// The port inside the container.
    pub target: u16,
    /// The port outside; 0: any that is free.
    pub published: u16,
    /// Where it answers.
    pub mode: PortMode,
}

/// What a service's name stands for in a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndpointMode {
    /// A virtual address, which stands for all tasks.
    #[default]
    Vip,
    /// The addresses of its tasks.
    Dnsrr,
}

/// How a service is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointSpec {
    /// What its name stands for.
    pub mode: EndpointMode,
    /// Ports it publishes.
    pub ports: Vec<Port>,
}

/// A port of a task on its board. On the wire: the protocol's number and the two ports, 9 bytes at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "(u8, u16, u16)", try_from = "(u8, u16, u16)")]
pub struct HostPort {
    /// Its protocol.
    pub protocol: Protocol,
    /// The board's port; 0 where it is asked for: any that is free.
    pub published: u16,
    /// The task's port.
    pub target: u16,
}

impl From<HostPort> for (u8, u16, u16) {
    fn from(port: HostPort) -> Self {
        (port.protocol.number(), port.published, port.target)
    }
}

/// A number that is no protocol's with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not the number of tcp, udp or sctp")]
pub struct BadProtocol(u8);

impl TryFrom<(u8, u16, u16)> for HostPort {
    type Error = BadProtocol;
    fn try_from((number, published, target): (u8, u16, u16)) -> Result<Self, BadProtocol> {
        let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.number() == number);
        Ok(Self { protocol: protocol.ok_or(BadProtocol(number))?, published, target })
    }
}

/// A public key of the encryption between boards.
pub type WireguardKey = serde_bytes::ByteArray<32>;
