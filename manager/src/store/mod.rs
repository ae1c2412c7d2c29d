//! The store: the one place where the manager's stages meet.
//!
//! ```text
//! Change ─▶ Command ─▶ log (raft, WAL) ─▶ State::apply ─▶ Event ─▶ every Feed
//! Observation ─────────────────────────▶ Seen::observe ─▶ Event ─▶ every Feed
//! ```
//! Decisions are persisted, observations are not. A [`View`] is both at one moment.

#[cfg(test)]
mod allocation_tests;
mod apply;
mod apply_endpoint;
mod apply_network;
#[cfg(test)]
mod apply_tests;
mod apply_trust;
pub mod change;
mod dependency;
pub mod event;
pub mod generic;
pub mod log;
pub mod object;
mod owner;
#[cfg(test)]
mod owner_tests;
pub mod restored;
pub mod seen;
#[cfg(test)]
mod seen_tests;
mod state;
#[cfg(test)]
mod state_tests;
#[cfg(test)]
pub(crate) mod testing;
pub mod trust;
mod view;
mod wake;

pub use change::{Change, Command, NewCluster, NewDependency, NewNode, NewTask, Refusal, RollbackBy};
pub use event::Event;
pub use object::{
    ADDRESS_POOL_DEFAULT, Addresses, Attachment, Cluster, ClusterNet, ClusterSpec, Dependency, DependencyKind, Ended,
    Endpoint, FailureAction, Gate, INGRESS, JobStatus, KEEP_SOURCE_LABEL, LogDriver, MESH_SUBNET_DEFAULT, Meta, Mode,
    Network, NetworkSpec, Node, NodeFailures, NodeSpec, OfflineSpec, Order, Placement, Ratio, RestartCondition,
    RestartPolicy, Sealed, Service, ServiceSpec, Slot, SlotHistory, Task, TaskSpec, UpdateConfig, UpdateState,
    UpdateStatus, WrittenOff,
};
pub use owner::{Batch, CommitError, Feed, Store};
pub use seen::{NodeLink, Observation, Seen, SeenNode, TaskStatus};
pub use state::State;
pub use trust::{Access, AccessRole, NodeTrust, Retired, Rotation, TokenSecret, Trust, UnlockBefore};
pub use view::{NodeStatus, View};
pub use wake::Wake;
