//! Taking a cluster up after a start, and again until it works.

use std::sync::Arc;
use std::time::Duration;

use super::super::moves::Shown;
use super::super::{address, keep};
use super::running::cannot_listen;
use super::{Manager, failed, machine};
use crate::api::control::ControlError;
use crate::ca::{Ca, JoinTokens, kept};
use crate::store::{Change, Cluster, State};
use crate::tcp;

/// How long to wait before a cluster that could not be resumed is tried again.
const RESUME_AGAIN: Duration = Duration::from_secs(5);

impl Manager {
    /// Takes up the cluster that the store holds, if it holds one. What is wrong is logged; whether all is well.
    pub(in super::super) async fn resume(&self) -> bool {
        let _turn = self.0.turn.lock().await;
        let view = self.0.store.view();
        let Some(cluster) = view.state.cluster().filter(|_| self.running().is_none()) else { return true };
        let before = self.fault().now();
        match self.take_up(&view.state, cluster).await {
            Ok(true) => log::info!("resumed cluster {}", cluster.id),
            // It was said when it was found.
            Ok(false) => {}
            Err(_) if self.fault().now() == before => {}
            Err(error) => log::error!(
                "the cluster cannot be resumed, agents are not served: {error}; it is tried again every {RESUME_AGAIN:?}"
            ),
        }
        self.running().is_some()
    }

    /// Opens what is sealed and serves agents. False: the manager is locked.
    pub(in super::super) async fn take_up(&self, state: &State, cluster: &Arc<Cluster>) -> Result<bool, ControlError> {
        let taken = self.serve_again(state, cluster).await;
        self.fault().set(taken.as_ref().err().map(ToString::to_string));
        taken
    }

    async fn serve_again(&self, state: &State, cluster: &Arc<Cluster>) -> Result<bool, ControlError> {
        let own = keep::load_own(&self.0.data).map_err(|error| failed("read the manager's own files", &error))?;
        if own.cluster != cluster.id {
            let text = format!("the manager's own files are of cluster {}, the store of {}", own.cluster, cluster.id);
            return Err(ControlError::Failed(text));
        }
        if !self.open_vault(state)? {
            return Ok(false);
        }
        self.bring_over(cluster).await?;
        self.catch_up_key_file().await?;
        let listen = address::listen(&own.listen, &machine()?).map_err(ControlError::Invalid)?;
        // When a board boots, its address may come later than its manager.
        let listener = tcp::listen(listen).map_err(|error| cannot_listen(listen, &error))?;
        let shown = state.node(own.node).map(|node| node.addr.clone()).unwrap_or_default();
        self.start(&own, listener, listen, Shown::new(shown, None)).await.map(|()| true)
    }

    /// Brings what older versions kept elsewhere, or as it is, sealed into the store.
    async fn bring_over(&self, cluster: &Arc<Cluster>) -> Result<(), ControlError> {
        let vault = &self.0.vault;
        let mut changes = Vec::new();
        if cluster.worker_secret.is_plain() || cluster.manager_secret.is_plain() {
            // The root's digest is no part of what is stored.
            let tokens = JoinTokens::open(vault, Default::default(), cluster).and_then(|tokens| tokens.seal(vault));
            let [worker, manager] = tokens.map_err(|error| failed("seal the join tokens", &error))?;
            changes.push(Change::ClusterUpdate {
                version: cluster.meta.version,
                spec: cluster.spec.clone(),
                worker_secret: Some(worker),
                manager_secret: Some(manager),
            });
        }
        if cluster.trust.key.is_none() {
            let read = keep::load_old_key(&self.0.data).map_err(|error| failed("read the root's key", &error))?;
            let key = read.ok_or_else(|| {
                let path = keep::old_key_path(&self.0.data);
                ControlError::Failed(format!("the root's key is neither in the store nor in {}", path.display()))
            })?;
            let ca = Ca::load(cluster.id, &cluster.root_pem, &key).map_err(|error| failed("load the root", &error))?;
            let sealed = kept::seal_key(vault, &ca).map_err(|error| failed("seal the root's key", &error))?;
            changes.push(Change::RootKey(sealed));
        }
        let brought = !changes.is_empty();
        let stored = self.0.store.commit(self.0.clock.now().wall, changes).await;
        stored.map_err(|error| failed("bring the root's key and the join tokens into the store", &error))?;
        // Also when the power went between the two.
        let erased = keep::erase_old_key(&self.0.data).map_err(|error| failed("erase the root's key", &error))?;
        if brought || erased {
            log::info!("the root's key and the join tokens are sealed in the store now");
        }
        Ok(())
    }

    /// Goes on trying: an interface that is to be listened on may get its address later. The API serves on meanwhile.
    pub(in super::super) async fn resume_later(self) {
        loop {
            self.lock().opened().await;
            smol::Timer::after(RESUME_AGAIN).await;
            if self.resume().await {
                return;
            }
        }
    }
}
