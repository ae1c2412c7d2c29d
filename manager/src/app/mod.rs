//! The daemon: everything behind `pi-mgr serve`.
//!
//! Opens the store, starts the stages and the API, and – once there is a cluster – the dispatcher.

mod address;
mod backup;
mod control;
mod fault;
mod keep;
mod key_file;
mod lock;
mod moves;
#[cfg(test)]
mod power_tests;
pub mod restore;
#[cfg(test)]
mod testing;
mod trust;

use std::path::Path;
use std::sync::Arc;

use futures_lite::StreamExt;
use racimo_common::id::IdSource;
use racimo_common::logger;
use racimo_common::registry::Registry;
use racimo_common::time::Clock;
use ring::rand::{SecureRandom, SystemRandom};

use crate::api::audit::Audit;
use crate::api::host::Host;
use crate::api::listen::{ListenError, Listener};
use crate::api::system::absent_text;
use crate::api::{self, serve};
use crate::cli::ServeArgs;
use crate::config::{self, Config};
use crate::store::Store;
use crate::store::log::RealDisk;
use crate::vault::Vault;
use crate::{allocator, ca, orchestrator, scheduler, tcp};
use control::Manager;

/// Why the manager did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration has faults.
    #[error("{0}")]
    Config(String),
    /// The data directory cannot be used.
    #[error("open the data directory {path}")]
    Data {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The store does not open.
    #[error("open the store in {path}")]
    Store {
        /// Where.
        path: String,
        /// Why.
        source: crate::store::log::OpenError,
    },
    /// The API cannot be served.
    #[error("serve the API")]
    Api(#[source] ListenError),
    /// The random source does not work.
    #[error("the system's random source does not work")]
    Random,
    /// Signals cannot be caught.
    #[error("catch signals")]
    Signals(#[source] std::io::Error),
    /// The store's disk failed while running.
    #[error("the store's disk failed; see the log")]
    StoreFailed,
}

/// Runs the manager until it is told to stop.
///
/// # Errors
/// What keeps it from running.
pub fn serve(args: ServeArgs) -> Result<(), ServeError> {
    let config = Config::resolve(args).map_err(ServeError::Config)?;
    logger::start(config.log_level);
    crate::gate::files::allow();
    smol::block_on(run(config))
}

fn seed() -> Result<u64, ServeError> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| ServeError::Random)?;
    Ok(u64::from_be_bytes(bytes))
}

async fn run(config: Config) -> Result<(), ServeError> {
    let clock = Clock::start();
    let directory = config.data.join("store");
    let data = |source| ServeError::Data { path: config.data.display().to_string(), source };
    racimo_common::durable::make_dir(&config.data).map_err(data)?;
    // Sockets may be in it.
    for address in &config.api {
        address.prepare(Path::new(config::RUN)).map_err(ServeError::Api)?;
    }
    let disk = RealDisk::new(&directory).map_err(data)?;
    for path in keep::close(&config.data).map_err(data)? {
        log::warn!("{} could be read by others: it is the manager's alone now", path.display());
    }
    let store = Store::open(disk, seed()?)
        .map_err(|source| ServeError::Store { path: directory.display().to_string(), source })?;
    let vault = Vault::default();
    let manager = Manager::new(store.clone(), clock, vault.clone(), &config);
    if store.view().state.cluster().is_none() {
        log::info!("this manager is in no cluster yet: run `pi-mgr init`");
    }
    manager.erase_left();
    manager.dismiss_agent();
    let _resuming = (!manager.resume().await).then(|| smol::spawn(manager.clone().resume_later()));
    let _notes = smol::spawn(manager.notes().run());
    // A locked manager does not hear its boards: it must decide nothing about them.
    let _orchestrator = manager.unlocked(orchestrator::run(store.clone(), clock, IdSource::seeded(seed()?)));
    let _scheduler = manager.unlocked(scheduler::run(store.clone(), clock));
    let _keys = manager.unlocked(allocator::keys::run(store.clone(), clock));
    let _rotation = manager.unlocked(ca::run::run(store.clone(), clock, vault.clone()));
    let mut listeners = Vec::new();
    for address in &config.api {
        listeners.push(Listener::open(address, Some(&config.socket_group)).map_err(ServeError::Api)?);
        log::info!("API on {address}");
        if let Some(at) = listeners.last().and_then(Listener::remote_address).filter(|at| tcp::is_absent(at.ip())) {
            log::warn!("{}", absent_text(at));
        }
    }
    let context = api::Context::new(
        store.clone(),
        Arc::new(manager.clone()),
        Registry::new(config.registry.clone()),
        Host::read(),
        clock,
        IdSource::seeded(seed()?),
        vault,
    )
    .with_logs(manager.logs())
    .with_notes(manager.notes())
    .with_remote(listeners.iter().filter_map(Listener::remote_address).collect())
    .with_audit(Audit::open(keep::place(&config.data)));
    let mut signals = async_signal::Signals::new([async_signal::Signal::Term, async_signal::Signal::Int])
        .map_err(ServeError::Signals)?;
    let mut failed = false;
    let stop = async {
        let asked = async {
            signals.next().await;
            log::info!("asked to stop");
            false
        };
        let broken = async {
            store.stopped().await;
            true
        };
        failed = smol::future::or(asked, broken).await;
    };
    serve::serve(Arc::new(context), listeners, stop).await;
    manager.farewell().await;
    if failed { Err(ServeError::StoreFailed) } else { Ok(()) }
}
