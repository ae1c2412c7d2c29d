//! Leaving the cluster: nothing runs and no key is left.
//!
//! ```text
//! sessions end ─▶ ClusterLeave ─▶ this board's agent is told when it asks ─▶ keys are erased
//! ```

use racimo_common::id::ClusterId;

use super::super::keep;
use super::running::local_socket;
use super::{Manager, failed};
use crate::api::control::ControlError;
use crate::dispatcher::serve;
use crate::store::Change;

impl Manager {
    pub(super) async fn leave(self) -> Result<(), ControlError> {
        let _turn = self.0.turn.lock().await;
        let view = self.0.store.view();
        let cluster = view.state.cluster().ok_or(ControlError::NotIn)?;
        let running = self.running().take();
        if let Some(running) = running {
            // Before the cluster's end, which would be that of every task: as in Docker, other boards go on. And a new
            // cluster may want the port at once.
            running.stop().await;
        }
        if let Err(error) = self.store_leave(cluster.id).await {
            if let Err(error) = self.take_up(&view.state, cluster).await {
                log::error!("the cluster that was not left cannot be resumed yet: {error}");
                // It tries until it can, or the process ends.
                smol::spawn(self.clone().resume_later()).detach();
            }
            return Err(error);
        }
        self.dismiss_agent();
        self.0.vault.lock();
        self.lock().open();
        self.fault().set(None);
        self.key_fault().set(None);
        keep::erase(&self.0.data).map_err(|error| failed("erase the cluster's keys", &error))?;
        log::warn!("left the cluster and erased its state");
        Ok(())
    }

    /// Has this board's agent told that there is no cluster any more, if there was one.
    ///
    /// A store that never had one may be a new one in the place of one that is lost, or moved: what runs goes on.
    pub(in super::super) fn dismiss_agent(&self) {
        let view = self.store().view();
        let Some(path) = self.0.agent_socket.as_ref().filter(|_| view.state.cluster().is_none()) else { return };
        if view.state.index() == 0 {
            return;
        }
        match local_socket(path) {
            Ok(listener) => *self.dismissing() = Some(smol::spawn(serve::dismiss(listener, self.notes()))),
            Err(error) => log::warn!("this board's agent cannot be told that there is no cluster any more: {error}"),
        }
    }

    /// Stores that the cluster is left, and first, durably, that its keys are to be erased then.
    pub(super) async fn store_leave(&self, cluster: ClusterId) -> Result<(), ControlError> {
        keep::store_left(self.data(), cluster).map_err(|error| failed("keep which cluster is left", &error))?;
        let left = self.store().commit(self.now().wall, vec![Change::ClusterLeave]).await;
        left.map(drop).map_err(|error| {
            self.is_not_left();
            failed("leave the cluster", &error)
        })
    }

    fn is_not_left(&self) {
        if let Err(error) = keep::forget_left(self.data()) {
            log::error!("the cluster was not left, and that it was to be cannot be erased: {error}");
        }
    }

    /// At a start: the power may have gone while a cluster was left, before its keys were erased.
    ///
    /// Keys that nobody said were to be erased may be those of a store that was moved away, and without them that is
    /// lost.
    pub(in super::super) fn erase_left(&self) {
        let view = self.store().view();
        if view.state.cluster().is_some() {
            self.is_not_left();
            return;
        }
        let erased = match keep::is_left(self.data()) {
            Ok(true) if view.state.index() > 0 => keep::erase(self.data()),
            Ok(_) => {
                let key = keep::vault_path(self.data());
                if key.exists() {
                    log::warn!(
                        "{} is the key of a store that is not here: move it away together with its store, or put that \
                         store back; `pi-mgr init` replaces the key",
                        key.display()
                    );
                }
                return;
            }
            Err(error) => Err(error),
        };
        match erased {
            Ok(false) => {}
            Ok(true) => log::warn!("the keys of the cluster that was left were still there; they are erased now"),
            Err(error) => log::error!("erase the keys of the cluster that was left: {error}"),
        }
    }
}
