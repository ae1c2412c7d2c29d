//! Fenced slots: the next task starts only when the one before has surely stopped.
//!
//! In: the view, a slot, `Mono`. Out: which of its tasks may still run, and until when at most. Keeps nothing.
//!
//! ```text
//! board hears the manager ─ it is cut off ─ lease ─▶ it has stopped the task
//! manager hears the board ─ the session ends ─ lease and a margin ─▶ the next one may start
//! ```
//! The board's lease begins when it sent what the manager answered last, so before the manager's time.

use std::cmp::Reverse;
use std::sync::Arc;

use racimo_common::id::{NodeId, ServiceId, TaskId};
use racimo_common::object::Desired;
use racimo_common::time::{Mono, Now};

use crate::limits::FENCE_MARGIN;
use crate::store::{NodeLink, Slot, Task, View};

/// A task of a fenced slot that may still run.
pub(super) struct Fence {
    task: Arc<Task>,
    /// When it cannot run any more; none: it is heard of, or will be.
    pub(super) until: Option<Mono>,
}

/// Whether the task has a lease and may still run: until when, at most.
pub(super) fn holds(view: &View, task: &Task, now: Now) -> Option<Option<Mono>> {
    let lease = task.spec.offline.lease.filter(|_| task.ended.is_none())?;
    let node = task.node.and_then(|node| view.state.node(node))?;
    let lost = match view.seen.link(node.id) {
        Some(NodeLink::Lost(at)) if node.written_off.is_some() => at,
        Some(NodeLink::Lost(_) | NodeLink::Open) | None => return Some(None),
    };
    let until = lost + lease + FENCE_MARGIN;
    (now.mono < until).then_some(Some(until))
}

/// What keeps a task of this slot from being started, other than `except`.
pub(super) fn of_slot(view: &View, service: ServiceId, slot: Slot, except: Option<TaskId>, now: Now) -> Option<Fence> {
    // One that only prepares has never run.
    let tasks = view
        .state
        .tasks_of_service(service)
        .filter(|task| task.slot == slot && Some(task.id) != except && task.desired != Desired::Ready);
    let mut fences = tasks.filter_map(|task| Some(Fence { task: task.clone(), until: holds(view, task, now)? }));
    fences.next()
}

/// Why this node is not removed without force: a task with a lease may still run there, and would not be waited for.
pub fn keeps_node(view: &View, node: NodeId, now: Now) -> Option<String> {
    let held = view.state.tasks_on_node(node).filter_map(|task| Some((task.id, holds(view, task, now)?)));
    // What is not known lasts longest.
    let (task, until) = held.min_by_key(|(_, until)| Reverse((until.is_none(), *until)))?;
    Some(match until {
        Some(until) => {
            let left = until.since(now.mono).as_millis().div_ceil(1000);
            format!("task {task} has surely stopped there in {left} s")
        }
        None => format!("task {task} may still run there"),
    })
}

/// Why a task that is ready does not start, for `service ps`; none: no fence holds it.
pub fn reason(view: &View, task: &Task, now: Now) -> Option<String> {
    if task.desired != Desired::Ready || task.ended.is_some() || task.gate.is_none() {
        return None;
    }
    let fence = of_slot(view, task.service, task.slot, Some(task.id), now)?;
    let (old, node) = (fence.task.id, fence.task.node.and_then(|node| view.state.node(node))?);
    let lease = fence.task.spec.offline.lease.unwrap_or_default();
    let node_name = &node.description.hostname;
    Some(match node.written_off {
        Some(_) => format!(
            "waits until task {old} has surely stopped: node {node_name} is unreachable, and stops it by itself within \
             {} s",
            (lease + FENCE_MARGIN).as_secs()
        ),
        None => format!("waits until task {old} on node {node_name} has stopped"),
    })
}
