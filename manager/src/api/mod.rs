//! Docker's Engine API: its swarm surface, over HTTP on unix sockets, loopback TCP, and TLS.
//!
//! ```text
//! serve ─ bytes ─▶ guard (who, route, audit) ─ Request ─▶ swarm, node, service, … ─ Answer ─▶ serve
//!                                        │ fields, filter, find, convert, validate: pure
//!                                        ▼
//!                                 STORE (view, commit), Control (init, leave), Registry
//! ```
//! Facts: `docs/` and the recordings of Docker 20.10 and of CLI 28.2. Rules of this stage:
//! an option that is not implemented is refused by name, never ignored ([`fields`]); an empty list is answered
//! only where there can be none; what is stored comes from [`convert`], what may be stored from [`validate`].

pub mod access;
pub mod answer;
pub mod audit;
mod backup;
pub mod control;
pub mod convert;
mod credentials;
pub mod dependency;
pub mod distribution;
pub mod error;
pub mod event;
pub mod fields;
pub mod filter;
pub mod find;
mod guard;
pub mod host;
pub mod listen;
pub mod logs;
mod moment;
pub mod name;
pub mod network;
pub mod networks;
pub mod node;
mod patient;
mod remote;
pub mod request;
mod rotation;
pub mod route;
pub mod serve;
pub mod service;
mod streams;
pub mod swarm;
pub mod system;
pub mod task;
pub mod validate;
pub mod who;

#[cfg(test)]
mod dependency_tests;
#[cfg(test)]
mod docker_network_tests;
#[cfg(test)]
mod docker_tests;
#[cfg(test)]
mod lock_tests;
#[cfg(test)]
mod network_tests;
#[cfg(test)]
mod port_tests;
#[cfg(test)]
mod recorded_network_tests;
#[cfg(test)]
mod recorded_tests;
#[cfg(test)]
mod remote_tests;
#[cfg(test)]
mod rotation_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod traefik_tests;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use racimo_common::id::{IdSource, NodeId, RandomId};
use racimo_common::registry::Registry;
use racimo_common::time::{Clock, Wall};

use self::audit::Audit;
use self::control::{Control, ControlStatus};
use self::error::ApiError;
use self::event::Hub;
use self::host::Host;
use crate::dispatcher::broker::Broker;
use crate::gate::notes::Notes;
use crate::store::{Change, Store, View};
use crate::vault::Vault;

/// The newest version of Docker's API we speak.
pub const API_VERSION: &str = "1.47";
/// The oldest.
pub const API_VERSION_MIN: &str = "1.24";
const SERVER: &str = concat!("Racimo/", env!("CARGO_PKG_VERSION"), " (linux)");

/// What handlers work with.
pub struct Context {
    store: Store,
    control: Arc<dyn Control>,
    registry: Registry,
    hub: Arc<Hub>,
    host: Host,
    clock: Clock,
    ids: Mutex<IdSource>,
    logs: Broker,
    vault: Vault,
    audit: Audit,
    /// Changes of accesses.
    changes: Arc<guard::Changes>,
    /// Answers to accesses that go on.
    streams: streams::Streams,
    /// Where clients with certificates are served.
    remote: Vec<SocketAddr>,
    /// Log lines that clients cause.
    notes: Notes,
}

impl Context {
    /// `ids` draws the ids of new objects; `vault` seals what is secret about them.
    pub fn new(
        store: Store,
        control: Arc<dyn Control>,
        registry: Registry,
        host: Host,
        clock: Clock,
        ids: IdSource,
        vault: Vault,
    ) -> Self {
        Self {
            store,
            control,
            registry,
            hub: Arc::new(Hub::default()),
            host,
            notes: Notes::new(clock),
            clock,
            ids: Mutex::new(ids),
            logs: Broker::default(),
            vault,
            audit: Audit::off(),
            changes: Arc::default(),
            streams: streams::Streams::default(),
            remote: Vec::new(),
        }
    }

    /// With the log lines of the whole manager.
    #[must_use]
    pub fn with_notes(mut self, notes: Notes) -> Self {
        self.notes = notes;
        self
    }

    /// With the boards' sessions, so that there are logs to read.
    #[must_use]
    pub fn with_logs(mut self, logs: Broker) -> Self {
        self.logs = logs;
        self
    }

    /// With a file of who changed what.
    #[must_use]
    pub fn with_audit(mut self, audit: Audit) -> Self {
        self.audit = audit;
        self
    }

    /// With the addresses where clients with certificates are served.
    #[must_use]
    pub fn with_remote(mut self, remote: Vec<SocketAddr>) -> Self {
        self.remote = remote;
        self
    }

    /// Whether a request may be handled at all: while the manager is locked, few may.
    ///
    /// # Errors
    /// 503.
    fn admit(&self, path: &str) -> Result<(), ApiError> {
        match self.control.status() {
            ControlStatus::Locked { .. } if !route::works_locked(path) => Err(ApiError::unavailable(swarm::LOCKED)),
            ControlStatus::Active { .. }
            | ControlStatus::Inactive
            | ControlStatus::Failing { .. }
            | ControlStatus::Locked { .. } => Ok(()),
        }
    }

    /// The state, if there is a cluster.
    ///
    /// # Errors
    /// 503.
    fn cluster_view(&self) -> Result<View, ApiError> {
        let view = self.store.view();
        if view.state.cluster().is_none() {
            return Err(ApiError::unavailable(swarm::NOT_A_MANAGER));
        }
        Ok(view)
    }

    /// The manager's own node.
    fn own_node(&self) -> Option<NodeId> {
        match self.control.status() {
            ControlStatus::Active { node, .. } => Some(node),
            ControlStatus::Inactive | ControlStatus::Failing { .. } | ControlStatus::Locked { .. } => None,
        }
    }

    fn draw_id<T: RandomId>(&self) -> T {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).draw()
    }

    fn now(&self) -> Wall {
        self.clock.now().wall
    }

    async fn commit(&self, change: Change) -> Result<u64, ApiError> {
        self.commit_all(vec![change]).await
    }

    /// All of them, or none.
    async fn commit_all(&self, changes: Vec<Change>) -> Result<u64, ApiError> {
        Ok(self.store.commit(self.now(), changes).await?)
    }
}
