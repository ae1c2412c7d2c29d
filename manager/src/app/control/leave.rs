//! Leaving the cluster: nothing runs and no key is left.

use super::super::keep;
use super::{Manager, failed};
use crate::api::control::ControlError;
use crate::store::Change;

impl Manager {
    pub(super) async fn leave(self) -> Result<(), ControlError> {
        let _turn = self.0.turn.lock().await;
        if self.0.store.view().state.cluster().is_none() {
            return Err(ControlError::NotIn);
        }
        let now = self.0.clock.now().wall;
        let left = self.0.store.commit(now, vec![Change::ClusterLeave]).await;
        left.map_err(|error| failed("leave the cluster", &error))?;
        let running = self.running().take();
        if let Some(running) = running {
            // A new cluster may want the port at once.
            running.stop().await;
        }
        if let Some(path) = &self.0.agent_socket {
            // Nobody listens there any more.
            let _ = std::fs::remove_file(path);
        }
        self.0.vault.lock();
        self.lock().open();
        self.set_fault(None);
        keep::erase(&self.0.data).map_err(|error| failed("erase the cluster's keys", &error))?;
        log::warn!("left the cluster and erased its state");
        Ok(())
    }

    /// At a start without a cluster: the power may have gone after it was left and before its keys were erased.
    ///
    /// A store that never had a cluster says nothing about keys beside it: they may be those of a store that was moved
    /// away, and without them that is lost.
    pub(in super::super) fn erase_left(&self) {
        let view = self.store().view();
        if view.state.cluster().is_some() {
            return;
        }
        if view.state.index() == 0 {
            let key = keep::vault_path(self.data());
            if key.exists() {
                log::warn!(
                    "{} is the key of a store that is not here: move it away together with its store, or put that store \
                     back; `pi-mgr init` replaces the key",
                    key.display()
                );
            }
            return;
        }
        match keep::erase(self.data()) {
            Ok(false) => {}
            Ok(true) => log::warn!("the keys of the cluster that was left were still there; they are erased now"),
            Err(error) => log::error!("erase the keys of the cluster that was left: {error}"),
        }
    }
}
