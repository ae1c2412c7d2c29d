//! What the store holds: cluster, nodes, services, tasks.
//!
//! Each field's doc names its writer where it is not the user. Stored times are stamped by the leader.

mod network;
mod service;
mod task;

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use racimo_common::id::{ClusterId, DependencyId, NodeId};
use racimo_common::net::Subnet;
use racimo_common::object::{Availability, NodeDescription, Reservations, Role};
use racimo_common::time::Wall;
use racimo_common::units::Bytes;
use racimo_common::wire::BoardId;
use serde::{Deserialize, Serialize};

pub use self::network::{
    ADDRESS_POOL_DEFAULT, Addresses, Attachment, ClusterNet, Endpoint, INGRESS, KEEP_SOURCE_LABEL, MESH_SUBNET_DEFAULT,
    Network, NetworkSpec,
};
pub use self::service::{
    FailureAction, JobStatus, Mode, Order, Ratio, Service, ServiceSpec, UpdateConfig, UpdateState, UpdateStatus,
};
pub use self::task::{
    Ended, Gate, LogDriver, NodeFailures, OfflineSpec, Placement, RestartCondition, RestartPolicy, Slot, SlotHistory,
    Task, TaskSpec,
};
use super::trust::{NodeTrust, TokenSecret, Trust};
use crate::allocator::address_of;
use crate::limits;

/// When an object was made and last changed, and its version for optimistic updates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Store index of the last change; the `Version.Index` of Docker's API.
    pub version: u64,
    /// When it was made.
    pub created: Wall,
    /// When it was last changed.
    pub updated: Wall,
}

/// The cluster: there is one, or none before `init`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its id; the organisation in its certificates.
    pub id: ClusterId,
    /// Times and version.
    pub meta: Meta,
    /// What users may change.
    pub spec: ClusterSpec,
    /// The root certificate, PEM.
    pub root_pem: String,
    /// Secret part of the worker token.
    pub worker_secret: TokenSecret,
    /// Secret part of the manager token.
    pub manager_secret: TokenSecret,
    /// Addresses (`host:port`) agents may dial; the first is the advertised one.
    pub managers: Vec<String>,
    /// Where subnets and ports of networks come from. Written at `init`.
    #[serde(default)]
    pub net: ClusterNet,
    /// Counts the rotations of the keys of encrypted networks. Written by the dispatcher's clock.
    #[serde(default)]
    pub key_epoch: u32,
    /// When the keys were last rotated.
    #[serde(default)]
    pub keys_rotated: Wall,
    /// How its certificates are signed. Written by the certificate authority.
    #[serde(default)]
    pub trust: Trust,
}

impl fmt::Debug for Cluster {
    /// Without the token secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("id", &self.id).field("spec", &self.spec).finish_non_exhaustive()
    }
}

/// Tasks kept per slot, the live one included, if the cluster's spec does not say (SwarmKit's default).
pub const TASK_HISTORY_DEFAULT: i64 = 5;
/// Heartbeat period if the cluster's spec does not say.
pub const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(1);
/// Validity of node certificates if the cluster's spec does not say.
pub const CERT_EXPIRY_DEFAULT: Duration = Duration::from_secs(90 * 24 * 3600);

/// Settings of the cluster. `None`: the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterSpec {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Tasks kept per slot; negative: all.
    pub task_history: Option<i64>,
    /// How often agents send a heartbeat.
    pub heartbeat: Option<Duration>,
    /// Validity of new node certificates.
    pub cert_expiry: Option<Duration>,
    /// Whether the manager asks for the unlock key after a start.
    pub autolock: bool,
}

impl ClusterSpec {
    /// Tasks kept per slot, the live one included; negative: all.
    pub fn task_history(&self) -> i64 {
        self.task_history.unwrap_or(TASK_HISTORY_DEFAULT)
    }
    /// How often agents send a heartbeat.
    pub fn heartbeat(&self) -> Duration {
        self.heartbeat.unwrap_or(HEARTBEAT_DEFAULT)
    }
    /// Validity of new node certificates.
    pub fn cert_expiry(&self) -> Duration {
        self.cert_expiry.unwrap_or(CERT_EXPIRY_DEFAULT)
    }
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its id: the CN of its certificate.
    pub id: NodeId,
    /// Times and version.
    pub meta: Meta,
    /// What users may change.
    pub spec: NodeSpec,
    /// What its certificate says. Written at join.
    pub role: Role,
    /// SHA-256 of its public key: a node is its key, not its address. Written at join; none for the manager's own.
    pub key_digest: Option<[u8; 32]>,
    /// The board's own description. Written by the dispatcher, when it differs.
    pub description: Arc<NodeDescription>,
    /// The address its last session came from. Written by the dispatcher, when it differs.
    pub addr: String,
    /// Its part of the mesh: addresses of its gateway and its tasks. Written by the store while there is a mesh.
    #[serde(default)]
    pub mesh: Option<Subnet>,
    /// Set while the node counts as down: its tasks are replaced. Written by the dispatcher's liveness;
    /// cleared only by a clean report of the node.
    pub written_off: Option<WrittenOff>,
    /// What it shows and trusts; none: it has not said so yet. Written by the dispatcher, when it differs.
    #[serde(default)]
    pub trust: Option<NodeTrust>,
    /// Which board its key is on; none: it has not said so yet. Written by the dispatcher, when it differs.
    #[serde(default)]
    pub board: Option<BoardId>,
}

impl Node {
    /// What people call it: the name it was given, else its host name.
    pub fn name(&self) -> &str {
        self.spec.name.as_deref().unwrap_or(&self.description.hostname)
    }

    /// Whether there is an agent to run tasks: a manager's own board may have none.
    pub fn has_agent(&self) -> bool {
        self.role == Role::Worker || self.description.tasks_max > 0
    }

    /// The IPv4 address by which other boards reach it: the one its agent was told, else the one its session comes
    /// from. None: that is an IPv6 one, so it can have no part of the mesh and no overlay network.
    pub fn data_address(&self) -> Option<Ipv4Addr> {
        let seen = || address_of(&self.addr);
        let address = self.description.data_address.or_else(seen)?;
        (!address.is_unspecified() && !address.is_multicast() && !address.is_broadcast()).then_some(address)
    }

    /// What tasks may reserve: what the kernel has, less the system's reserve.
    pub fn capacity(&self) -> Reservations {
        Reservations {
            cpu: self.description.cpus,
            memory: self.description.memory.saturating_sub(system_reserve(self.description.memory)),
        }
    }
}

/// Memory kept free for the system: the larger of 64 MiB and 10 % (DESIGN §2, "System reserve").
pub fn system_reserve(total: Bytes) -> Bytes {
    Bytes::mib(64).max(Bytes::new(total.get() / 10))
}

/// A node that counts as down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenOff {
    /// Since when.
    pub at: Wall,
    /// Why, for `node inspect` (`heartbeat failure`).
    pub reason: String,
}

/// What users may change about a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    /// A name for it, beside its host name.
    pub name: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it takes tasks.
    pub availability: Availability,
}

/// Bytes that only the vault's key opens. Never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(pub Arc<serde_bytes::ByteBuf>);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

/// A secret or a config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// Its id.
    pub id: DependencyId,
    /// Which of the two.
    pub kind: DependencyKind,
    /// Times and version.
    pub meta: Meta,
    /// Unique among its kind, compared without case.
    pub name: String,
    /// Labels: all that can be changed.
    pub labels: BTreeMap<String, String>,
    /// Whether its content is a template, filled in for each task.
    pub template: bool,
    /// Its content.
    pub body: Sealed,
}

/// What tasks depend on beside their image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DependencyKind {
    /// Content that the API never gives back.
    Secret,
    /// Content that it does.
    Config,
}

impl DependencyKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Secret, Self::Config];

    /// `secret` or `config`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Config => "config",
        }
    }

    /// Bytes that its content may have.
    pub const fn bytes_max(self) -> usize {
        match self {
            Self::Secret => limits::SECRET_BYTES_MAX,
            Self::Config => limits::CONFIG_BYTES_MAX,
        }
    }
}
