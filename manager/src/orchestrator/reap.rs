//! How much of a slot's history is kept (reference §2, "Retention").
//!
//! Unlike in Swarm, a job's slots have no more history than others, beside what this iteration completed.

use std::sync::Arc;

use racimo_common::id::ServiceId;
use racimo_common::object::Desired;

use super::draft::Draft;
use super::job;
use super::place::{Place, places};
use crate::store::{Change, Mode, Service, Slot, Task, UpdateState};

/// Forgets the oldest tasks of slots that have more than they may.
pub(super) fn prune(draft: &mut Draft<'_>, service: &Service) {
    let keep = match service.spec.task.restart.attempts_max() {
        Some(attempts) => Some(attempts.saturating_add(1)),
        None => {
            let history = draft.view.state.cluster().map(|cluster| cluster.spec.task_history());
            u64::try_from(history.unwrap_or(crate::store::object::TASK_HISTORY_DEFAULT)).ok()
        }
    };
    // Negative: everything is kept.
    let Some(keep) = keep.map(|keep| usize::try_from(keep).unwrap_or(usize::MAX)) else { return };
    for (slot, place) in places(&draft.view, service.id) {
        let count = place.live.len() + place.retired.len();
        let old: Vec<Arc<Task>> = if service.spec.mode.is_job() {
            forgettable_of_job(service, slot, place, keep)
        } else {
            let spared = spared(service, &place);
            let old = place.retired.iter().filter(|task| is_over(task) && !spared.contains(&Some(task.id)));
            old.take(count.saturating_sub(keep)).cloned().collect()
        };
        for task in old {
            draft.push(vec![Change::TaskRemove { task: task.id }]);
        }
    }
}

/// What may go of a job's slot: the oldest beyond `keep`, and everything of a slot that the job no longer has. What
/// completed in this iteration stays, and so does the failure for which a slot was given up: they are the record.
fn forgettable_of_job(service: &Service, slot: Slot, place: Place, keep: usize) -> Vec<Arc<Task>> {
    let exists = match (service.spec.mode, slot) {
        (Mode::ReplicatedJob { completions, .. }, Slot::Replica(number)) => u64::from(number) < completions,
        (_, _) => true,
    };
    let mut tasks: Vec<Arc<Task>> = place.retired.into_iter().chain(place.live).collect();
    tasks.sort_by_key(|task| (task.iteration, task.meta.created, task.meta.version, task.id));
    let mine = |task: &&Arc<Task>| !job::is_stale(service, task);
    let last = tasks.iter().rev().find(mine).map(|task| task.id);
    let spared = |task: &Arc<Task>| mine(&task) && (job::is_done(task) || Some(task.id) == last);
    let excess = if exists { tasks.len().saturating_sub(keep) } else { tasks.len() };
    // One that ended and waits for its replacement is still wanted: the supervisor has not seen it.
    let over = |task: &Arc<Task>| is_over(task) && (task.desired > Desired::Running || job::is_done(task));
    tasks.into_iter().filter(|task| over(task) && !spared(task)).take(excess).collect()
}

/// Tasks of a service that is gone: what stopped goes now, the rest when it has.
pub(super) fn gone(draft: &mut Draft<'_>, service: ServiceId) {
    let left = draft.view.state.tasks_of_service(service).filter(|task| task.desired < Desired::Remove);
    let left: Vec<_> = left.map(|task| task.id).collect();
    for task in left {
        draft.push(vec![Change::TaskDesire { task, desired: Desired::Remove }]);
    }
}

fn is_over(task: &Task) -> bool {
    task.ended.is_some() || task.node.is_none()
}

/// What has to stay although it is old: the last task of a slot without a wanted one says whether the slot is filled;
/// during an update, one of an older revision says that the updater has been here.
fn spared(service: &Service, place: &Place) -> [Option<racimo_common::id::TaskId>; 2] {
    let last = place.retired.last().filter(|_| place.live.is_empty());
    let updating = service.update.as_ref().is_some_and(|update| match update.state {
        UpdateState::Updating | UpdateState::RollbackStarted => true,
        UpdateState::Paused | UpdateState::Completed | UpdateState::RollbackPaused | UpdateState::RollbackCompleted => {
            false
        }
    });
    let older = place.retired.iter().rev().find(|task| updating && task.revision < service.revision);
    [last.map(|task| task.id), older.map(|task| task.id)]
}
