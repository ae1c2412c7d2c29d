//! How much of a slot's history is kept (reference §2, "Retention").

use racimo_common::id::ServiceId;
use racimo_common::object::Desired;

use super::draft::Draft;
use super::place::{Place, places};
use crate::store::{Change, Service, Task, UpdateState};

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
    for place in places(&draft.view, service.id).into_values() {
        let excess = (place.live.len() + place.retired.len()).saturating_sub(keep);
        let spared = spared(service, &place);
        let old = place.retired.iter().filter(|task| is_over(task) && !spared.contains(&Some(task.id)));
        for task in old.take(excess) {
            draft.push(vec![Change::TaskRemove { task: task.id }]);
        }
    }
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
