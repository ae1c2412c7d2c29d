//! What is on the board besides what its tasks do: containers of before, their logs and networks.

use std::collections::BTreeSet;

use racimo_common::id::TaskId;

use super::operations::Containers;
use super::{App, Input};
use crate::logs;

impl App {
    pub(super) fn list(&mut self) {
        let (tools, inputs, before) = (self.tools.clone(), self.inputs.clone(), self.board.running());
        // Nothing is being made before the first listing.
        let first = !self.board.is_listed();
        let listing = async move {
            let containers = tools.list(first).await;
            // The loop may be gone.
            let _ = inputs.send(Input::Listed { before, containers }).await;
        };
        self.listing = Some(self.executor.spawn(listing));
    }

    /// Removes logs that nobody asks for any more: finds what there is, and decides when it has been found, as a task
    /// that comes meanwhile has none yet.
    pub(super) fn look_at_logs(&mut self) {
        if !self.looks_at_logs || self.logs.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        self.looks_at_logs = false;
        let (data, inputs) = (self.config.data.clone(), self.inputs.clone());
        self.logs = Some(self.executor.spawn(async move {
            let found = logs::keep::find(data).await;
            // The loop may be gone.
            let _ = inputs.send(Input::Logs(found)).await;
        }));
    }

    /// What a task has of the board's ports is reported.
    pub(super) fn has_ports(&mut self, task: TaskId) {
        if self.tools.network.has(task) {
            self.board.has_ports(task, self.tools.network.ports(task));
        }
    }

    /// The board's containers are known: other tasks' networks go, and those that are here have the ports they had.
    pub(super) fn tidy_network(&mut self, containers: &Containers) {
        let here: BTreeSet<TaskId> = containers.iter().map(|(task, ..)| *task).collect();
        here.iter().for_each(|task| self.has_ports(*task));
        let network = self.tools.network.clone();
        self.tidying = Some(self.executor.spawn(async move { network.keep(&here).await }));
    }

    /// A task that ended needs no network: its addresses and ports are for others.
    pub(super) fn leave_network(&mut self) {
        self.ending.retain(|_, ending| !ending.is_finished());
        let ended = self.board.tasks().filter(|task| task.has_ended() && self.tools.network.has(task.id));
        let ended: Vec<TaskId> = ended.map(|task| task.id).filter(|task| !self.ending.contains_key(task)).collect();
        for task in ended {
            let network = self.tools.network.clone();
            self.ending.insert(task, self.executor.spawn(async move { network.detach(task).await }));
        }
    }
}
