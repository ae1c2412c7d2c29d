//! Jobs: each slot runs until its task completes, once per iteration (reference §3).
//!
//! ```text
//! slot: free ─▶ task ─ completes ─▶ done, for this iteration
//!                └─ fails, or loses its node ─▶ restart supervisor ─▶ task
//!                                                └─ may not be restarted ─▶ given up
//! ```
//! A replicated job has slots 0..N-1, a global one a slot per node. A new spec begins a new iteration: tasks of older
//! ones that still run are removed. What completed stays in the store, as the record of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use racimo_common::id::TaskId;
use racimo_common::object::{Desired, TaskState};

use super::draft::{Draft, retire};
use super::global::{Fit, Nodes};
use super::place::places;
use super::{replicated, restart};
use crate::store::{Change, Gate, Mode, Service, Slot, Task};

/// Whether the task is a job's, and completed.
pub(super) fn is_done(task: &Task) -> bool {
    task.iteration > 0 && task.ended.as_ref().is_some_and(|ended| ended.state == TaskState::Complete)
}

/// Whether the task belongs to an older iteration of its job.
pub(super) fn is_stale(service: &Service, task: &Task) -> bool {
    service.job.is_some_and(|job| job.iteration != task.iteration)
}

/// Ends what is of older iterations, restarts what failed, and fills free slots.
pub(super) fn step(draft: &mut Draft<'_>, service: &Arc<Service>) {
    tidy(draft, service);
    restart::release(draft, service);
    match service.spec.mode {
        Mode::ReplicatedJob { concurrent_max, completions } => {
            restart::sweep(draft, service, replicated::lost);
            let slots = (0..u32::try_from(completions).unwrap_or(u32::MAX)).map(Slot::Replica);
            fill(draft, service, slots, concurrent_max);
        }
        Mode::GlobalJob => {
            let nodes = Nodes::of(service);
            leave(draft, service, &nodes);
            // A task that failed on a paused node waits until the node is active again.
            let frozen = |slot| matches!(slot, Slot::Node(node) if nodes.fit(&draft.view, node) == Fit::Frozen);
            let held: Vec<TaskId> = draft
                .view
                .state
                .tasks_of_service(service.id)
                .filter(|task| frozen(task.slot))
                .map(|task| task.id)
                .collect();
            restart::sweep_but(draft, service, &held, |_, _| false);
            let slots = nodes.wanted(&draft.view).into_iter().map(Slot::Node);
            fill(draft, service, slots, u64::MAX);
        }
        Mode::Replicated { .. } | Mode::Global => {}
    }
}

/// Removes what still runs of older iterations, and what runs in a slot that is done: the board of a task that was
/// replaced came back and had completed it. Of two that completed one is enough.
fn tidy(draft: &mut Draft<'_>, service: &Service) {
    let tasks: Vec<Arc<Task>> = draft.view.state.tasks_of_service(service.id).cloned().collect();
    let mut done: BTreeMap<Slot, TaskId> = BTreeMap::new();
    for task in tasks.iter().filter(|task| !is_stale(service, task) && is_done(task)) {
        match done.get(&task.slot) {
            None => drop(done.insert(task.slot, task.id)),
            Some(_) => drop(draft.push(vec![Change::TaskRemove { task: task.id }])),
        }
    }
    for task in tasks.iter().filter(|task| task.ended.is_none() && task.desired < Desired::Remove) {
        if is_stale(service, task) || done.contains_key(&task.slot) {
            draft.push(vec![Change::TaskDesire { task: task.id, desired: Desired::Remove }]);
        }
    }
    // A replacement that failed before it could be removed.
    for task in tasks.iter().filter(|task| task.ended.is_some() && task.desired <= Desired::Running) {
        if !is_stale(service, task) && !is_done(task) && done.contains_key(&task.slot) {
            draft.push(vec![retire(task)]);
        }
    }
}

/// Tasks on nodes that the job does not want (any more) are shut down; those of removed nodes are forgotten.
fn leave(draft: &mut Draft<'_>, service: &Service, nodes: &Nodes) {
    let tasks: Vec<Arc<Task>> = draft.view.state.tasks_of_service(service.id).cloned().collect();
    for task in tasks {
        let Slot::Node(node) = task.slot else { continue };
        match nodes.fit(&draft.view, node) {
            Fit::Wanted | Fit::Frozen => {}
            Fit::Unwanted if task.desired <= Desired::Running && !is_done(&task) => {
                draft.push(vec![retire(&task)]);
            }
            Fit::Gone if task.desired < Desired::Remove => {
                draft.push(vec![Change::TaskDesire { task: task.id, desired: Desired::Remove }]);
            }
            Fit::Unwanted | Fit::Gone => {}
        }
    }
}

/// New tasks for slots that are neither done nor given up nor have one, as long as fewer than `most` run.
fn fill(draft: &mut Draft<'_>, service: &Service, slots: impl Iterator<Item = Slot>, most: u64) {
    let places = places(&draft.view, service.id);
    let live = |slot: &Slot| places.get(slot).map_or(&[][..], |place| &place.live);
    let runs = |task: &Arc<Task>| !is_stale(service, task) && !is_done(task);
    let running = places.keys().filter(|slot| live(slot).iter().any(runs)).count();
    let mut room = most.saturating_sub(running as u64);
    for slot in slots {
        if room == 0 {
            return;
        }
        let retired = places.get(&slot).map_or(&[][..], |place| &place.retired);
        let mine = |task: &&Arc<Task>| !is_stale(service, task);
        // The newest that ran here says whether the slot is given up; what is to be removed says nothing.
        let last = retired.iter().rev().filter(mine).find(|task| task.desired != Desired::Remove);
        let done = live(&slot).iter().chain(retired).any(|task| mine(&task) && is_done(task));
        let spent = last.is_some_and(|last| !restart::may_restart(&draft.view, last, draft.now));
        if done || spent || live(&slot).iter().any(runs) {
            continue;
        }
        // What still stops here, also of an older iteration, goes first.
        let old = retired.iter().rev().find(|task| !draft.has_stopped(task));
        let gate = old.map(|old| Gate { not_before: draft.now.wall, after: Some(old.id) });
        let new = draft.new_task(service, slot, gate, None);
        if !draft.push(vec![new]) {
            return;
        }
        room -= 1;
    }
}
