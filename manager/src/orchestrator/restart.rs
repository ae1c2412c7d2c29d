//! The restart supervisor: may a task that ended or lost its node be replaced, and when does the replacement start?
//!
//! ```text
//! old: ended, or its node is down, drained or removed ─▶ desired Shutdown
//!   └─ policy allows ─▶ replacement at once, desired Ready, Gate{not_before: now + delay, after: old}
//!                         └─ delay passed, old stopped (1 min at most) ─▶ desired Running
//! ```
//! Rules: reference `swarm-behaviour.md` §4. Attempts are counted by the store (`SlotHistory`).

use std::sync::Arc;
use std::time::Duration;

use racimo_common::id::TaskId;
use racimo_common::object::{Availability, Desired, TaskState};
use racimo_common::time::{Now, Wall};

use super::draft::{Draft, retire};
use super::{job, update};
use crate::store::{Change, Gate, RestartCondition, Service, Slot, Task, View};

/// How long a replacement waits for the old task to stop.
pub(super) const OLD_TASK_WAIT: Duration = Duration::from_secs(60);

/// Whether the policy of a task that ended, or is to be moved, allows a replacement.
pub(super) fn may_restart(view: &View, task: &Task, now: Now) -> bool {
    let policy = &task.spec.restart;
    let allowed = match policy.condition() {
        // A job's task that completed is done, whatever its policy.
        RestartCondition::Any => task.iteration == 0 || view.task_state(task) != TaskState::Complete,
        RestartCondition::OnFailure => view.task_state(task) != TaskState::Complete,
        RestartCondition::None => false,
    };
    let Some(most) = policy.attempts_max().filter(|_| allowed) else { return allowed };
    let Some(history) = view.state.slot_history(task.service, task.slot) else { return true };
    if history.revision != task.revision {
        return true;
    }
    let Some(window) = policy.window() else { return history.restarts < most };
    // A task that still stops was last touched when it was retired: the answer does not change while it does.
    let retired = if task.desired > Desired::Running { task.meta.updated } else { now.wall };
    let failed = task.ended.as_ref().map_or(retired, |ended| ended.at);
    let within = |at: Wall| at >= failed - window && at <= failed;
    let count = history.times.iter().filter(|at| within(**at)).count();
    u64::try_from(count).is_ok_and(|count| count < most)
}

/// Releases tasks whose gate is open, and re-stamps gates from the future.
pub(super) fn release(draft: &mut Draft<'_>, service: &Service) {
    let waiting = |task: &&Arc<Task>| task.desired == Desired::Ready && task.ended.is_none();
    let tasks: Vec<_> = draft.view.state.tasks_of_service(service.id).filter(waiting).cloned().collect();
    for task in tasks {
        if !waits(draft, &task) {
            draft.push(vec![Change::TaskDesire { task: task.id, desired: Desired::Running }]);
        }
    }
}

/// Whether the task's gate is closed; then the draft wakes when it opens.
fn waits(draft: &mut Draft<'_>, task: &Task) -> bool {
    let Some(gate) = task.gate else { return false };
    let now = draft.now.wall;
    let old = gate.after.and_then(|old| draft.task(old)).cloned();
    // Further away than any delay explains: the clock went back. Stamped anew once, never waited for.
    let delay = old.as_ref().map_or(Duration::ZERO, |old| old.spec.restart.delay()).max(task.spec.restart.delay());
    if gate.not_before > now + delay + OLD_TASK_WAIT {
        let gate = Gate { not_before: now + delay, ..gate };
        draft.push(vec![Change::TaskGate { task: task.id, gate }]);
        draft.wake_at_wall(gate.not_before);
        return true;
    }
    if gate.not_before > now {
        draft.wake_at_wall(gate.not_before);
        return true;
    }
    let last = gate.not_before.max(task.meta.created.min(gate.not_before) + OLD_TASK_WAIT);
    let stops = || {
        old.is_some_and(|old| !draft.has_stopped(&old))
            || gate.after.is_some() && draft.still_stops(task.service, task.slot, Some(task.id)).is_some()
    };
    if last > now && stops() {
        draft.wake_at_wall(last);
        // A fence may open before.
        draft.is_fenced(task);
        return true;
    }
    draft.is_fenced(task)
}

/// Puts every task of the service that ended, or that `lost` names as lost, through the supervisor. Returns the
/// service as it is then: a failure may have rolled it back.
pub(super) fn sweep(
    draft: &mut Draft<'_>,
    service: &Arc<Service>,
    lost: impl FnMut(&View, &Task) -> bool,
) -> Arc<Service> {
    sweep_but(draft, service, &[], lost)
}

/// The same, but for `held` tasks (by id).
pub(super) fn sweep_but(
    draft: &mut Draft<'_>,
    service: &Arc<Service>,
    held: &[TaskId],
    mut lost: impl FnMut(&View, &Task) -> bool,
) -> Arc<Service> {
    let mut service = service.clone();
    let wanted = |task: &&Arc<Task>| {
        task.desired <= Desired::Running && !job::is_done(task) && held.binary_search(&task.id).is_err()
    };
    let tasks: Vec<_> = draft.view.state.tasks_of_service(service.id).filter(wanted).cloned().collect();
    for task in tasks {
        if (task.ended.is_some() || lost(&draft.view, &task))
            && !(task.desired == Desired::Ready && waits(draft, &task))
        {
            let after = Gate { not_before: draft.now.wall, after: Some(task.id) };
            replace(draft, &service, &task, after);
            if let Some(fresh) = draft.view.state.service(service.id) {
                service = fresh.clone();
            }
        }
    }
    service
}

/// Evicts a task from a node that it no longer fits. A task that still waits hands its gate on.
pub(super) fn evict(draft: &mut Draft<'_>, service: &Service, task: &Task) -> bool {
    let now = draft.now.wall;
    let after = match task.gate {
        Some(gate) if task.desired == Desired::Ready => Gate { not_before: gate.not_before.max(now), ..gate },
        Some(_) | None => Gate { not_before: now, after: Some(task.id) },
    };
    replace(draft, service, task, after)
}

/// The old task goes; its replacement comes if the policy allows it, a delay after `gate`.
fn replace(draft: &mut Draft<'_>, service: &Service, old: &Task, gate: Gate) -> bool {
    if job::is_stale(service, old) {
        return draft.push(vec![Change::TaskDesire { task: old.id, desired: Desired::Remove }]);
    }
    let mut group: Vec<Change> = update::count_failure(draft, service, old).into_iter().collect();
    group.push(retire(old));
    if matches!(group.first(), Some(Change::ServiceRollback { .. })) {
        return draft.push(group) && follow_rollback(draft, service, old);
    }
    if may_restart(&draft.view, old, draft.now) {
        let drained =
            |node| draft.view.state.node(node).is_some_and(|node| node.spec.availability == Availability::Drain);
        let delay = if old.node.is_some_and(drained) { Duration::ZERO } else { old.spec.restart.delay() };
        let gate = Gate { not_before: gate.not_before + delay, ..gate };
        let stopped = gate.after.and_then(|old| draft.task(old)).is_none_or(|old| draft.has_stopped(old))
            && draft.still_stops(service.id, old.slot, Some(old.id)).is_none();
        let open = gate.not_before <= draft.now.wall && stopped;
        let new = draft.new_task(service, old.slot, (!open).then_some(gate), Some(old.id));
        group.push(new);
    }
    draft.push(group)
}

/// What takes the place of the task for whose failure the service was rolled back: no restart, but the rollback's first.
fn follow_rollback(draft: &mut Draft<'_>, service: &Service, failed: &Task) -> bool {
    let Some(service) = draft.view.state.service(service.id).cloned() else { return false };
    // With start-first the task of the spec before serves on.
    let serves = |task: &Arc<Task>| task.slot == failed.slot && task.desired <= Desired::Running;
    if draft.view.state.tasks_of_service(service.id).any(serves) {
        return true;
    }
    let old = draft.still_stops(service.id, failed.slot, Some(failed.id));
    let gate = old.map(|old| Gate { not_before: draft.now.wall, after: Some(old) });
    let new = draft.new_task(&service, failed.slot, gate, None);
    draft.push(vec![new])
}

/// Whether the slot was restarted under its service's current revision: its task is not the updater's then.
pub(super) fn was_restarted(view: &View, service: &Service, slot: Slot) -> bool {
    let history = view.state.slot_history(service.id, slot);
    history.is_some_and(|history| history.revision == service.revision && history.restarts > 0)
}
