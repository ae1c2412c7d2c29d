//! What the API asks of the manager around it: making a cluster, leaving it, unlocking it.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use racimo_common::id::NodeId;
use racimo_common::object::Availability;
use smol::lock::SemaphoreGuardArc;
use zeroize::Zeroizing;

use crate::store::{ClusterNet, ClusterSpec, Sealed};

/// An answer that is on its way.
pub type Reply<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A request to make a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitRequest {
    /// Where to listen for agents, `address[:port]`, as given or Docker's default.
    pub listen: String,
    /// What agents shall dial: an address, an interface or a name, `[:port]`; none: find out.
    pub advertise: Option<String>,
    /// Whether this machine's own node takes tasks.
    pub availability: Availability,
    /// The cluster's settings.
    pub spec: ClusterSpec,
    /// Where subnets and ports of networks come from.
    pub net: ClusterNet,
}

/// Whether this manager is in a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlStatus {
    /// In none.
    Inactive,
    /// In one.
    Active {
        /// The manager's own node.
        node: NodeId,
        /// The address it advertises, without the port.
        addr: String,
    },
    /// In one, but it cannot be served; it is tried again.
    Failing {
        /// The address it advertises, without the port.
        addr: String,
        /// Why, for the user.
        why: String,
    },
    /// In one, but the unlock key is needed first.
    Locked {
        /// The address it advertises, without the port.
        addr: String,
    },
}

/// Why a cluster was not made or left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// There is a cluster already.
    #[error("the manager is in a cluster already")]
    AlreadyIn,
    /// There is none.
    #[error("the manager is in no cluster")]
    NotIn,
    /// There is nothing to unlock.
    #[error("the manager is not locked")]
    NotLocked,
    /// Not the unlock key.
    #[error("not the unlock key")]
    WrongKey,
    /// Too many keys were tried; again after so long.
    #[error("too many unlock keys were tried")]
    TooManyTries(Duration),
    /// Others are at it; it can be tried again. For the user.
    #[error("{0}")]
    Busy(&'static str),
    /// The request names something that cannot be (an address that is not this machine's). For the user.
    #[error("{0}")]
    Invalid(String),
    /// It should have worked. For the user.
    #[error("{0}")]
    Failed(String),
}

/// A backup on its way to whoever asked for it.
pub struct MadeBackup {
    /// The file.
    pub bytes: Vec<u8>,
    /// As long as it lives no other one is made.
    pub turn: Option<SemaphoreGuardArc>,
}

/// The manager as the API sees it.
pub trait Control: Send + Sync {
    /// Whether it is in a cluster. Cheap: asked for with every request.
    fn status(&self) -> ControlStatus;

    /// What a person should know about it, in whole sentences.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Makes a cluster; the id of the manager's own node, which is in the store by then.
    fn init(&self, request: InitRequest) -> Reply<Result<NodeId, ControlError>>;

    /// Leaves the cluster and erases its state. Only called when the user insists.
    fn leave(&self) -> Reply<Result<(), ControlError>>;

    /// Unlocks the manager with the text of its unlock key and takes the cluster up.
    fn unlock(&self, key: Zeroizing<String>) -> Reply<Result<(), ControlError>>;

    /// The unlock key in the store is another one, or gone: done when the next start knows it.
    fn relock(&self) -> Reply<Result<(), ControlError>>;

    /// The unlock key, as the store has it, is about to be shown: done when what opened the manager before it opens it
    /// no more.
    fn unlock_key_shown(&self, key: Sealed) -> Reply<Result<(), ControlError>>;

    /// All that brings the manager back, as a file.
    fn backup(&self) -> Reply<Result<MadeBackup, ControlError>>;
}
