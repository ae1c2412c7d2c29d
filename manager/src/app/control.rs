//! The manager around its store: what the API asks of it, and what its parts share.
//!
//! ```text
//! init ────────────────┐
//! start ─▶ resume ─────┴─▶ running ─ leave ─▶ in no cluster
//! ```

mod init;
mod leave;
mod resume;
mod running;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use racimo_common::error::chain;
use racimo_common::id::NodeId;
use racimo_common::time::{Clock, Now};
use smol::lock::{Semaphore, SemaphoreGuardArc};
use zeroize::Zeroizing;

use self::running::Running;
use super::address::Machine;
use super::fault::Fault;
use super::lock::Lock;
use super::moves;
use crate::api::control::{Control, ControlError, ControlStatus, InitRequest, MadeBackup, Reply};
use crate::config::Config;
use crate::dispatcher::broker::Broker;
use crate::gate::notes::Notes;
use crate::limits;
use crate::store::{Sealed, Store};
use crate::vault::Vault;

/// The manager around the store: a handle, cheap to clone.
#[derive(Clone)]
pub(super) struct Manager(Arc<Inner>);

struct Inner {
    store: Store,
    clock: Clock,
    data: PathBuf,
    agent_socket: Option<PathBuf>,
    /// What boards shall dial, by the configuration.
    advertise: Option<String>,
    announce: bool,
    vault: Vault,
    logs: Broker,
    notes: Notes,
    lock: Lock,
    key_fault: Fault,
    running: Mutex<Option<Running>>,
    /// Tells this board's agent that the cluster was left.
    dismissing: Mutex<Option<smol::Task<()>>>,
    /// Why the cluster that the store holds is not served.
    fault: Fault,
    /// One at a time makes, leaves, takes up or locks a cluster, or writes its key file.
    turn: Arc<smol::lock::Mutex<()>>,
    /// How many backups may be made or sent.
    backups: Arc<Semaphore>,
}

pub(super) fn failed(what: &str, error: &dyn std::error::Error) -> ControlError {
    ControlError::Failed(format!("{what}: {}", chain(error)))
}

impl Manager {
    pub(super) fn new(store: Store, clock: Clock, vault: Vault, config: &Config) -> Self {
        Self(Arc::new(Inner {
            store,
            clock,
            data: config.data.clone(),
            agent_socket: config.agent_socket.clone(),
            advertise: config.advertise.clone(),
            announce: config.announce,
            logs: Broker::default(),
            notes: Notes::new(clock),
            vault,
            lock: Lock::default(),
            key_fault: Fault::default(),
            running: Mutex::new(None),
            dismissing: Mutex::new(None),
            fault: Fault::default(),
            turn: Arc::default(),
            backups: Arc::new(Semaphore::new(limits::BACKUPS_MAX)),
        }))
    }

    /// The right to make a backup, if it is free.
    pub(super) fn backup_turn(&self) -> Option<SemaphoreGuardArc> {
        self.0.backups.try_acquire_arc()
    }

    /// Where the boards' sessions meet readers of logs.
    pub(super) fn logs(&self) -> Broker {
        self.0.logs.clone()
    }

    /// Log lines that peers cause.
    pub(super) fn notes(&self) -> Notes {
        self.0.notes.clone()
    }

    pub(super) fn store(&self) -> &Store {
        &self.0.store
    }

    pub(super) fn vault(&self) -> &Vault {
        &self.0.vault
    }

    pub(super) fn data(&self) -> &Path {
        &self.0.data
    }

    pub(super) fn lock(&self) -> &Lock {
        &self.0.lock
    }

    /// Why the key file cannot be written.
    pub(super) fn key_fault(&self) -> &Fault {
        &self.0.key_fault
    }

    pub(super) fn now(&self) -> Now {
        self.0.clock.now()
    }

    /// The right to make, leave, take up or lock a cluster, and to write its key file.
    pub(super) async fn turn(&self) -> smol::lock::MutexGuard<'_, ()> {
        self.0.turn.lock().await
    }

    /// Does `work` once the manager is not locked.
    pub(super) fn unlocked(&self, work: impl Future<Output = ()> + Send + 'static) -> smol::Task<()> {
        let manager = self.clone();
        smol::spawn(async move {
            manager.lock().opened().await;
            work.await;
        })
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dismissing(&self) -> MutexGuard<'_, Option<smol::Task<()>>> {
        self.0.dismissing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the cluster that the store holds is not served.
    fn fault(&self) -> &Fault {
        &self.0.fault
    }

    /// Without the port.
    fn advertised(&self) -> String {
        let view = self.0.store.view();
        let first = view.state.cluster().and_then(|cluster| cluster.managers.first().cloned()).unwrap_or_default();
        first.parse::<SocketAddr>().map_or(first, |address| address.ip().to_string())
    }
}

#[cfg(test)]
impl Manager {
    /// As the end of the process would.
    pub(super) async fn stop_for_test(self) {
        let running = self.running().take();
        if let Some(running) = running {
            running.stop().await;
        }
    }
}

impl Control for Manager {
    fn status(&self) -> ControlStatus {
        match &*self.running() {
            Some(Running { node, shown, .. }) => ControlStatus::Active { node: *node, addr: shown.address() },
            None if self.lock().is_shut() => ControlStatus::Locked { addr: self.advertised() },
            None => match self.fault().now() {
                Some(why) => ControlStatus::Failing { addr: self.advertised(), why },
                None => ControlStatus::Inactive,
            },
        }
    }

    fn warnings(&self) -> Vec<String> {
        let mut all = self.running().as_ref().map(|running| running.shown.warnings()).unwrap_or_default();
        all.extend(self.lock_warnings());
        all
    }

    fn init(&self, request: InitRequest) -> Reply<Result<NodeId, ControlError>> {
        Box::pin(self.clone().init(request))
    }

    fn leave(&self) -> Reply<Result<(), ControlError>> {
        Box::pin(self.clone().leave())
    }

    fn unlock(&self, key: Zeroizing<String>) -> Reply<Result<(), ControlError>> {
        Box::pin(self.clone().unlock(key))
    }

    fn relock(&self) -> Reply<Result<(), ControlError>> {
        Box::pin(self.clone().relock())
    }

    fn unlock_key_shown(&self, key: Sealed) -> Reply<Result<(), ControlError>> {
        Box::pin(self.clone().shown(key))
    }

    fn backup(&self) -> Reply<Result<MadeBackup, ControlError>> {
        Box::pin(self.clone().backup())
    }
}

pub(super) fn no_random() -> ControlError {
    ControlError::Failed("the system's random source does not work".to_owned())
}

fn machine() -> Result<Machine, ControlError> {
    moves::machine().map_err(|error| failed("list network interfaces", &error))
}
