//! The networks that exist without being made: `bridge`, `host` and `none`.

use racimo_common::object::NetworkMode;
use serde_json::Value;

use super::convert;

/// A network of every board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Predefined {
    /// A way out, and nothing else.
    Bridge,
    /// The board's own network.
    Host,
    /// Loopback only.
    None,
}

impl Predefined {
    /// All of them, by name.
    pub const ALL: [Self; 3] = [Self::Bridge, Self::Host, Self::None];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::None => "none",
        }
    }

    /// Its id: the same in every cluster, because clients send back what they resolved.
    pub fn id(self) -> &'static str {
        match self {
            Self::Bridge => "racimo0network0bridge0000",
            Self::Host => "racimo0network0host000000",
            Self::None => "racimo0network0none000000",
        }
    }

    /// What a container gets.
    pub fn mode(self) -> NetworkMode {
        match self {
            Self::Bridge => NetworkMode::Bridge,
            Self::Host => NetworkMode::Host,
            Self::None => NetworkMode::None,
        }
    }

    /// The network of a container that asked for one.
    pub fn of(mode: NetworkMode) -> Option<Self> {
        match mode {
            NetworkMode::Unset => None,
            NetworkMode::None => Some(Self::None),
            NetworkMode::Bridge => Some(Self::Bridge),
            NetworkMode::Host => Some(Self::Host),
        }
    }

    /// By name or id.
    pub fn find(name_or_id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|n| n.name() == name_or_id || n.id() == name_or_id)
    }

    /// As `GET /networks/{id}` shows it.
    pub fn json(self) -> Value {
        convert::network::predefined(self.name(), self.id(), self.driver())
    }

    /// The driver's name in Docker.
    pub fn driver(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::None => "null",
        }
    }
}
