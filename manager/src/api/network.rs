//! The two networks that exist without being made: `host` and `none`.

use bollard_stubs::models::{ConfigReference, Ipam, Network};
use racimo_common::object::NetworkMode;
use serde_json::Value;

use super::convert;

/// A network of every board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Predefined {
    /// The board's own network.
    Host,
    /// Loopback only.
    None,
}

impl Predefined {
    /// All of them, by name.
    pub const ALL: [Self; 2] = [Self::Host, Self::None];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::None => "none",
        }
    }

    /// Its id: the same in every cluster, because clients send back what they resolved.
    pub fn id(self) -> &'static str {
        match self {
            Self::Host => "racimo0network0host000000",
            Self::None => "racimo0network0none000000",
        }
    }

    /// What a container gets.
    pub fn mode(self) -> NetworkMode {
        match self {
            Self::Host => NetworkMode::Host,
            Self::None => NetworkMode::None,
        }
    }

    /// The network of a container that asked for one.
    pub fn of(mode: NetworkMode) -> Option<Self> {
        match mode {
            NetworkMode::Unset => None,
            NetworkMode::None => Some(Self::None),
            NetworkMode::Host => Some(Self::Host),
        }
    }

    /// By name or id.
    pub fn find(name_or_id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|n| n.name() == name_or_id || n.id() == name_or_id)
    }

    /// As `GET /networks/{id}` shows it.
    pub fn json(self) -> Value {
        convert::json(&Network {
            name: Some(self.name().to_owned()),
            id: Some(self.id().to_owned()),
            created: Some(convert::time(racimo_common::time::Wall::default())),
            scope: Some("swarm".to_owned()),
            driver: Some(self.driver().to_owned()),
            enable_ipv4: Some(true),
            enable_ipv6: Some(false),
            ipam: Some(Ipam { driver: Some("default".to_owned()), config: Some(Vec::new()), options: None }),
            internal: Some(false),
            attachable: Some(false),
            ingress: Some(false),
            config_from: Some(ConfigReference { network: Some(String::new()) }),
            config_only: Some(false),
            containers: Some(Default::default()),
            options: Some(Default::default()),
            labels: Some(Default::default()),
            peers: None,
        })
    }

    /// The driver's name in Docker.
    pub fn driver(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::None => "null",
        }
    }
}
