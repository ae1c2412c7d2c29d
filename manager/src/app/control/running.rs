//! What runs while there is a cluster: agents are served, the certificate is kept, addresses are watched.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use racimo_common::id::NodeId;
use smol::Async;

use super::super::keep::Own;
use super::super::moves::{Moves, Shown};
use super::super::{key_file, trust};
use super::{Manager, failed};
use crate::announce::{self, Service};
use crate::api::control::ControlError;
use crate::api::host::Host;
use crate::dispatcher::serve::{Dispatcher, Parts};
use crate::store::{Observation, SeenNode};

/// How long the last words on the local network may take.
const FAREWELL_WITHIN: Duration = Duration::from_secs(1);

/// What runs while there is a cluster.
pub(super) struct Running {
    pub(super) node: NodeId,
    pub(super) shown: Shown,
    pub(super) dispatcher: Dispatcher,
    moves: smol::Task<()>,
    announcing: Option<smol::Task<()>>,
    /// Renews the manager's certificate.
    keeping: smol::Task<()>,
}

impl Running {
    /// When it returns, nothing listens any more.
    pub(super) async fn stop(self) {
        let announcing = Self::fall_silent(self.moves, self.announcing);
        announcing.await;
        // It writes the file of the vault's key.
        self.keeping.cancel().await;
        self.dispatcher.stop().await;
    }

    /// Says on the local network that the manager is gone.
    async fn fall_silent(moves: smol::Task<()>, announcing: Option<smol::Task<()>>) {
        // With it goes what keeps the announcements going.
        moves.cancel().await;
        let said = async {
            if let Some(announcing) = announcing {
                announcing.await;
            }
        };
        let late = async {
            smol::Timer::after(FAREWELL_WITHIN).await;
        };
        smol::future::or(said, late).await;
    }
}

impl Manager {
    pub(super) async fn start(
        &self,
        own: &Own,
        listener: Async<TcpListener>,
        listens: SocketAddr,
        shown: Shown,
    ) -> Result<(), ControlError> {
        let now = self.0.clock.now().wall;
        let view = self.0.store.view();
        let (store, clock, vault) = (self.0.store.clone(), self.0.clock, self.0.vault.clone());
        let authority = trust::first(&vault, &store, clock, own.node).await?;
        let (data, turn) = (self.0.data.clone(), self.0.turn.clone());
        let (fault, last) = (self.key_fault().clone(), key_file::Last::default());
        let key_file = key_file::Guard { store: store.clone(), vault: vault.clone(), data, turn, fault, last };
        let keeper = trust::Keeper { store, clock, vault, own: own.node, authority: authority.clone(), key_file };
        // Without an agent the manager is a node that works but takes no tasks.
        if view.state.node(own.node).is_some_and(|node| node.description.tasks_max == 0) {
            let seen = SeenNode { ready: true, at: now };
            self.0.store.observe(vec![Observation::Node { node: own.node, seen }]).await;
        }
        // One cluster's end is said until there is another.
        *self.dismissing() = None;
        let local = match &self.0.agent_socket {
            Some(path) => Some(local_socket(path).map_err(|error| failed("listen for this board's agent", &error))?),
            None => None,
        };
        let parts = Parts {
            store: self.0.store.clone(),
            clock: self.0.clock,
            authority,
            vault: self.0.vault.clone(),
            own: own.node,
            logs: self.0.logs.clone(),
            notes: self.0.notes.clone(),
        };
        let port = listener.get_ref().local_addr().map_or(listens.port(), |address| address.port());
        let dispatcher = Dispatcher::start(parts, listener, local);
        log::info!("agents are served on {listens}");
        let announcing = self.0.announce.then(|| {
            let service = Service::new(&Host::read().name, own.cluster, port);
            log::info!("announced on the local network as {}", service.host());
            announce::serve::start(service)
        });
        let (announce, announcing) = announcing.unzip();
        let moves = Moves {
            store: self.0.store.clone(),
            clock: self.0.clock,
            data: self.0.data.clone(),
            own: own.clone(),
            said: self.0.advertise.clone().or_else(|| own.advertise.clone()),
            listens,
            listening: dispatcher.listening(),
            announcing: announce,
            shown: shown.clone(),
        };
        let moves = smol::spawn(moves.run());
        let keeping = smol::spawn(keeper.run());
        *self.running() = Some(Running { node: own.node, shown, dispatcher, moves, announcing, keeping });
        Ok(())
    }

    /// Says on the local network that the manager stops, and ends its sessions.
    pub(in super::super) async fn farewell(&self) {
        let running = self.running().take();
        if let Some(running) = running {
            Running::fall_silent(running.moves, running.announcing).await;
        }
    }
}

pub(super) fn bind(address: SocketAddr) -> Result<Async<TcpListener>, ControlError> {
    Async::<TcpListener>::bind(address).map_err(|error| cannot_listen(address, &error))
}

pub(super) fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> ControlError {
    ControlError::Invalid(format!("listen on {address}: {error}"))
}

/// A socket that only root may use: its permissions stand for a certificate. It is beside the API's, so its directory is
/// there.
pub(super) fn local_socket(path: &std::path::Path) -> std::io::Result<Async<UnixListener>> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Async::new(listener)
}
