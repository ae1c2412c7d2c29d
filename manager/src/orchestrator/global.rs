//! Global services: one task on every node that is not drained or down and satisfies the constraints (reference §3).
//!
//! A paused node keeps its task, but gets nothing new: a task that fails there is only shut down.

use std::sync::Arc;

use racimo_common::id::NodeId;
use racimo_common::object::{Availability, Desired};

use super::draft::{Draft, retire};
use super::place::{Filled, Place, places};
use super::restart;
use crate::scheduler::constraint::{self, Constraint};
use crate::store::{Change, Gate, Service, Slot, Task, View};

/// What a node means for the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// Runs a task.
    Wanted,
    /// Keeps what it has.
    Frozen,
    /// Runs none.
    Unwanted,
    /// Is no member any more.
    Gone,
}

/// Restarts, adds and stops tasks. Returns the slots that the updater may work on.
pub(super) fn step(draft: &mut Draft<'_>, service: &Arc<Service>) -> Vec<Filled> {
    let nodes = Nodes::of(service);
    for (slot, place) in places(&draft.view, service.id) {
        let Slot::Node(node) = slot else { continue };
        match nodes.fit(&draft.view, node) {
            Fit::Wanted => {}
            Fit::Frozen => shut(draft, &place, |task| task.ended.is_some()),
            Fit::Unwanted => shut(draft, &place, |_| true),
            Fit::Gone => forget(draft, &place),
        }
    }
    let service = &restart::sweep(draft, service, |_, _| false);
    let mut places = places(&draft.view, service.id);
    let mut filled = Vec::new();
    for node in Nodes::of(service).wanted(&draft.view) {
        let slot = Slot::Node(node);
        let place = places.remove(&slot).unwrap_or_default();
        match place.filled(&draft.view, slot, service, draft.now) {
            Some(fill) => filled.push(fill),
            None => {
                // The task that stopped here, if it still stops, holds on to its ports and volumes.
                let old = place.retired.iter().rev().find(|task| !draft.has_stopped(task));
                let gate = old.map(|old| Gate { not_before: draft.now.wall, after: Some(old.id) });
                let new = draft.new_task(service, slot, gate, None);
                draft.push(vec![new]);
            }
        }
    }
    filled
}

/// Which nodes a global service or job wants.
pub(super) struct Nodes {
    constraints: Option<Vec<Constraint>>,
}

impl Nodes {
    /// As the service's spec says. Constraints were checked by the API; one that cannot be read fits nowhere.
    pub(super) fn of(service: &Service) -> Self {
        Self { constraints: constraint::parse_all(&service.spec.task.placement.constraints).ok() }
    }

    /// What the node means for the service.
    pub(super) fn fit(&self, view: &View, id: NodeId) -> Fit {
        let Some(node) = view.state.node(id) else { return Fit::Gone };
        let usable = node.written_off.is_none() && node.has_agent();
        if !usable || !self.constraints.as_ref().is_some_and(|all| constraint::matches_all(all, node)) {
            return Fit::Unwanted;
        }
        match node.spec.availability {
            Availability::Active => Fit::Wanted,
            Availability::Pause => Fit::Frozen,
            Availability::Drain => Fit::Unwanted,
        }
    }

    /// The nodes that shall run a task.
    pub(super) fn wanted(&self, view: &View) -> Vec<NodeId> {
        let nodes = view.state.nodes().map(|node| node.id);
        nodes.filter(|id| self.fit(view, *id) == Fit::Wanted).collect()
    }
}

fn shut(draft: &mut Draft<'_>, place: &Place, which: impl Fn(&Task) -> bool) {
    for task in place.live.iter().filter(|task| which(task)) {
        draft.push(vec![retire(task)]);
    }
}

/// The node was removed: its tasks have ended and are forgotten.
fn forget(draft: &mut Draft<'_>, place: &Place) {
    for task in place.live.iter().chain(&place.retired).filter(|task| task.desired < Desired::Remove) {
        draft.push(vec![Change::TaskDesire { task: task.id, desired: Desired::Remove }]);
    }
}
