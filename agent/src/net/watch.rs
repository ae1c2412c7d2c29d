//! Other programs of the board remove what is ours: `nft flush ruleset`, `ip link del`, a network manager. So what was
//! told is looked for every so often, and if something is missing, everything is told anew.

use super::Network;
use super::plan::View;
use super::plan::missing::summary;

impl Network {
    /// Looks whether what was told is still there. If not, [`drive`](Network::drive) tells everything anew; true: it will.
    pub async fn look(&self) -> bool {
        let inner = &self.0;
        // Before it is all told, and after a failure, that is done anyway.
        let is_settled = || !inner.anew.get() && inner.faults.borrow().is_empty() && inner.table.borrow().own.is_some();
        if !is_settled() {
            return false;
        }
        let Ok(mut kernel) = self.kernel().await else { return false };
        let Some(kernel) = kernel.as_mut() else { return false };
        // What changed meanwhile; from then on nothing comes between.
        self.tell(kernel).await;
        if !is_settled() {
            return false;
        }
        let found = match kernel.look() {
            Ok(found) => found,
            Err(fault) => {
                log::warn!("network: look what is there: {}", fault.reason());
                return false;
            }
        };
        let missing = {
            let (table, tasks) = (inner.table.borrow(), inner.tasks.borrow());
            let view = View { table: &table, tasks: &tasks };
            view.missing(&found, |task| kernel.is_made(task), |port| inner.ports.is_held(port))
        };
        let summary = summary(&missing);
        // What is removed again and again is told once.
        if !missing.is_empty() && *inner.missing.borrow() != summary {
            log::warn!("network: another program removed {summary}: everything is told to the kernel anew");
        }
        *inner.missing.borrow_mut() = summary;
        if missing.is_empty() {
            return false;
        }
        inner.anew.set(true);
        self.wake();
        true
    }
}
