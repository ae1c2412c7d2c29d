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
}
