//! Do the tasks on a node still fit it? And is a lost node lost for good? (reference §3)
//!
//! A task that no longer fits is asked to stop (desired `Shutdown`) and replaced. It is not ended here, although
//! SwarmKit rejects it at once: only its agent knows when it has stopped, and until then its reservation stays taken.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use racimo_common::id::NodeId;
use racimo_common::object::{Availability, Desired, TaskState};

use super::draft::{Draft, ended};
use super::{fence, restart};
use crate::scheduler::constraint;
use crate::store::generic;
use crate::store::{Change, Mode, Node, Observation, Task, WrittenOff};

/// Tasks on a node that is down this long are given up.
const ORPHAN_AFTER: Duration = Duration::from_secs(24 * 3600);
/// A stamp this far in the future is from a wrong clock.
const CLOCK_SLACK: Duration = Duration::from_secs(60);

/// Looks at one node's tasks.
pub(super) fn step(draft: &mut Draft<'_>, id: NodeId) {
    let Some(node) = draft.view.state.node(id).cloned() else { return };
    match &node.written_off {
        Some(written_off) => orphan(draft, &node, written_off),
        None if node.spec.availability == Availability::Active => enforce(draft, &node),
        None => {}
    }
}

fn enforce(draft: &mut Draft<'_>, node: &Node) {
    let wanted = |task: &&Arc<Task>| task.desired <= Desired::Running && task.ended.is_none();
    let mut tasks: Vec<_> = draft.view.state.tasks_on_node(node.id).filter(wanted).cloned().collect();
    tasks.sort_by_key(|task| (task.meta.created, task.id));
    let mut parsed = BTreeMap::new();
    let mut free = node.capacity();
    let mut generic = node.description.generic.clone();
    for task in tasks {
        let Some(service) = draft.view.state.service(task.service).cloned() else { continue };
        // The service's current constraints, not those the task was made with.
        let constraints =
            parsed.entry(service.id).or_insert_with(|| constraint::parse_all(&service.spec.task.placement.constraints));
        let fits = constraints.as_ref().is_ok_and(|all| constraint::matches_all(all, node));
        let want = task.spec.resources.reservations;
        if !fits && matches!(service.spec.mode, Mode::Global | Mode::GlobalJob) {
            // The global orchestrator shuts it down without a replacement.
            continue;
        }
        let has_room = want.cpu <= free.cpu && want.memory <= free.memory;
        // What it holds may be gone: a device was unplugged and the board's configuration changed.
        // Taken from a copy: an evicted task leaves its share to those after it.
        let mut rest = generic.clone();
        if fits && has_room && generic::take(&mut rest, &task.generic) {
            generic = rest;
            free.cpu = free.cpu - want.cpu;
            free.memory = free.memory - want.memory;
        } else if restart::evict(draft, &service, &task) {
            explain(draft, &task);
        }
    }
}

/// Shows the reason until the agent's next report.
fn explain(draft: &mut Draft<'_>, task: &Task) {
    draft.observe(Observation::Evicted {
        task: task.id,
        at: draft.now.wall,
        message: "task rejected by constraint enforcer".to_owned(),
        err: "assigned node no longer meets constraints".to_owned(),
    });
}

fn orphan(draft: &mut Draft<'_>, node: &Node, written_off: &WrittenOff) {
    let tasks: Vec<_> = draft.view.state.tasks_on_node(node.id).filter(|task| task.ended.is_none()).cloned().collect();
    if tasks.is_empty() {
        return;
    }
    let now = draft.now;
    let mut due = written_off.at + ORPHAN_AFTER;
    if written_off.at > now.wall + CLOCK_SLACK {
        // The store stamps it with the leader's clock of now.
        draft.push(vec![Change::NodeWriteOff { node: node.id, written_off: written_off.clone() }]);
        due = now.wall + ORPHAN_AFTER;
    }
    if due > now.wall {
        draft.wake_at_wall(due);
        return;
    }
    for task in tasks {
        if let Some(until) = fence::holds(&draft.view, &task, now) {
            // The manager has just started: not before it has surely stopped.
            until.into_iter().for_each(|at| draft.wake_at(at));
            continue;
        }
        let ended = ended(TaskState::Orphaned, "its node has been down for 24 hours", now);
        draft.push(vec![Change::TaskEnd { task: task.id, ended }]);
    }
}
