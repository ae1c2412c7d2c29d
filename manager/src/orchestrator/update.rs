//! The updater: replaces the tasks of a service whose spec changed, a few slots at a time (reference §5).
//!
//! ```text
//! slot: dirty ─ a worker is free ─▶ old Shutdown, new Ready ─▶ new Running ─ delay ─▶ done   (stop-first)
//!                                └▶ new Running ─ runs ─▶ old Shutdown ─ delay ─▶ done       (start-first)
//! service: Updating ─ all done, one monitor period passed ─▶ Completed
//!             └─ failures / slots > ratio ─▶ Paused (until the next spec)
//! ```
//! There are no workers: a slot is busy while its new task has not run for the delay. That is read off the store, so
//! that a new leader goes on where the old one was.

use std::sync::Arc;
use std::time::Duration;

use racimo_common::object::{Desired, TaskState};
use racimo_common::time::Mono;

use super::draft::{Draft, retire};
use super::place::{Filled, places};
use super::restart;
use crate::scheduler::constraint;
use crate::store::{
    Change, FailureAction, Gate, Order, Placement, Service, Slot, Task, TaskSpec, UpdateConfig, UpdateState,
    UpdateStatus, View,
};

/// Whether the task does not run what its service wants.
///
/// A task whose node still fits is clean if nothing but the placement changed.
pub fn is_dirty(view: &View, service: &Service, task: &Task) -> bool {
    let want = &service.spec.task;
    if task.revision == service.revision || Arc::ptr_eq(want, &task.spec) || **want == *task.spec {
        return false;
    }
    let moved = TaskSpec { placement: Placement::default(), ..(**want).clone() }
        == TaskSpec { placement: Placement::default(), ..(*task.spec).clone() };
    let fits = || {
        let node = view.state.node(task.node?)?;
        let constraints = constraint::parse_all(&want.placement.constraints).ok()?;
        Some(constraint::matches_all(&constraints, node))
    };
    !(moved && fits() == Some(true))
}

/// What the updater has to do in a slot.
enum Work {
    /// Nothing.
    None,
    /// It is replacing the task; look again then at the latest.
    Busy(Option<Mono>),
    /// It replaced the task; done since then.
    Done(Mono),
    /// One clean task is enough: the others go.
    Keep(Arc<Task>),
    /// A start-first replacement, made by the restart supervisor, has to run first.
    Waits,
    /// Every task is of an old spec.
    Replace,
}

/// Remembers since when tasks of a service under update run.
pub(super) fn note_running(draft: &mut Draft<'_>, service: &Service) {
    if service.update.is_none() {
        return;
    }
    let tasks = draft.view.state.tasks_of_service(service.id);
    let runs =
        |task: &&Arc<Task>| task.revision == service.revision && draft.view.task_state(task) == TaskState::Running;
    let running: Vec<_> = tasks.filter(runs).map(|task| task.id).collect();
    for task in running {
        draft.agenda.note_running(task, draft.now);
    }
}

/// Goes on with, begins or completes an update of these slots.
pub(super) fn step(draft: &mut Draft<'_>, service: &Arc<Service>, slots: &[Filled]) {
    let config = &service.spec.update.unwrap_or_default();
    let state = service.update.as_ref().map(|update| update.state);
    if state == Some(UpdateState::Paused) {
        return;
    }
    let works: Vec<Work> = slots.iter().map(|fill| judge(draft, service, fill, config)).collect();
    let dirty = slots.iter().zip(&works).any(|(fill, work)| fill.tasks.len() > 1 || matches!(work, Work::Replace));
    if !dirty && state != Some(UpdateState::Updating) {
        return;
    }
    if state.is_none() && !begin(draft, service) {
        return;
    }
    let most = if config.parallelism() == 0 {
        usize::MAX
    } else {
        usize::try_from(config.parallelism()).unwrap_or(usize::MAX)
    };
    let mut busy = works.iter().filter(|work| matches!(work, Work::Busy(_))).count();
    let (mut open, mut done_at) = (false, None);
    for (fill, work) in slots.iter().zip(works) {
        match work {
            Work::None | Work::Waits => {}
            Work::Busy(until) => {
                open = true;
                until.into_iter().for_each(|until| draft.wake_at(until));
            }
            Work::Done(at) => done_at = done_at.max(Some(at)),
            Work::Keep(clean) => {
                open = true;
                keep(draft, fill, &clean);
            }
            Work::Replace => {
                open = true;
                if busy < most {
                    busy += 1;
                    replace(draft, service, fill, config.order());
                }
            }
        }
    }
    if !open && state == Some(UpdateState::Updating) {
        complete(draft, service, done_at, config);
    }
}

fn judge(draft: &Draft<'_>, service: &Service, fill: &Filled, config: &UpdateConfig) -> Work {
    let clean = fill.tasks.iter().filter(|task| !is_dirty(&draft.view, service, task));
    // One that is to run comes before one that still waits.
    let Some(clean) = clean.max_by_key(|task| (task.desired == Desired::Running, std::cmp::Reverse(task.id))) else {
        return if fill.spent { Work::None } else { Work::Replace };
    };
    let coming = clean.desired <= Desired::Running && is_updaters(&draft.view, service, clean, fill.older);
    let runs = draft.view.task_state(clean) == TaskState::Running;
    if fill.tasks.len() > 1 {
        return match config.order() {
            Order::StopFirst => Work::Keep(clean.clone()),
            Order::StartFirst if runs => Work::Keep(clean.clone()),
            Order::StartFirst if coming => Work::Busy(None),
            Order::StartFirst => Work::Waits,
        };
    }
    if !coming {
        return Work::None;
    }
    match draft.agenda.running_since(clean.id).filter(|_| runs) {
        None => Work::Busy(None),
        Some(since) if since + config.delay() > draft.now.mono => Work::Busy(Some(since + config.delay())),
        Some(since) => Work::Done(since + config.delay()),
    }
}

/// Whether the updater made the task: its slot held an older one, and no restart has replaced it since.
fn is_updaters(view: &View, service: &Service, task: &Task, older: bool) -> bool {
    older && task.revision == service.revision && !restart::was_restarted(view, service, task.slot)
}

fn begin(draft: &mut Draft<'_>, service: &Service) -> bool {
    let update = UpdateStatus {
        state: UpdateState::Updating,
        started: draft.now.wall,
        completed: None,
        message: "update in progress".to_owned(),
        failures: 0,
    };
    draft.push(vec![Change::ServiceProgress { service: service.id, revision: service.revision, update }])
}

/// Completed, once the last task has been watched for one more period.
fn complete(draft: &mut Draft<'_>, service: &Service, done_at: Option<Mono>, config: &UpdateConfig) {
    let Some(update) = service.update.clone() else { return };
    let second = Duration::from_secs(1);
    let monitor = if config.delay() >= config.monitor() { config.delay() + second } else { config.monitor() };
    if let Some(end) = done_at.map(|at| at + monitor).filter(|end| *end > draft.now.mono) {
        draft.wake_at(end);
        return;
    }
    let update = UpdateStatus {
        state: UpdateState::Completed,
        completed: Some(draft.now.wall),
        message: "update completed".to_owned(),
        ..update
    };
    draft.push(vec![Change::ServiceProgress { service: service.id, revision: service.revision, update }]);
}

/// One clean task stays; it waits for the others to stop if it does not run yet.
fn keep(draft: &mut Draft<'_>, fill: &Filled, clean: &Task) {
    let others: Vec<_> = fill.tasks.iter().filter(|task| task.id != clean.id).collect();
    let mut group: Vec<Change> = others.iter().map(|task| retire(task)).collect();
    let old = others.iter().find(|task| !draft.has_stopped(task));
    if let (Desired::Ready, Some(gate), Some(old)) = (clean.desired, clean.gate, old) {
        group.push(Change::TaskGate { task: clean.id, gate: Gate { after: Some(old.id), ..gate } });
    }
    draft.push(group);
}

/// A new task for the slot, and the end of the old ones unless the new one goes first.
fn replace(draft: &mut Draft<'_>, service: &Service, fill: &Filled, order: Order) {
    let live = fill.tasks.iter().filter(|task| task.desired <= Desired::Running);
    let mut group = Vec::new();
    let mut gate = None;
    match order {
        Order::StopFirst => {
            for task in live {
                group.push(retire(task));
                if !draft.has_stopped(task) {
                    gate = Some(task.id);
                }
            }
            gate = gate.or_else(|| draft.still_stops(service.id, fill.slot, None));
        }
        Order::StartFirst => {
            // One old task serves on, best one that runs; a superseded update may have left more.
            let serves = |task: &&Arc<Task>| draft.view.task_state(task) == TaskState::Running;
            let kept = live.clone().find(serves).or_else(|| live.clone().next()).map(|task| task.id);
            group.extend(live.filter(|task| Some(task.id) != kept).map(|task| retire(task)));
        }
    }
    let gate = gate.map(|old| Gate { not_before: draft.now.wall, after: Some(old) });
    let new = draft.new_task(service, fill.slot, gate, None);
    group.push(new);
    draft.push(group);
}

/// The progress after a failure of one of the updater's tasks, if it is one: it ended before it ran, or soon after.
///
/// Called once per task, when the restart supervisor retires it in the same transaction.
pub(super) fn count_failure(draft: &Draft<'_>, service: &Service, task: &Task) -> Option<Change> {
    let config = &service.spec.update.unwrap_or_default();
    let update = draft.view.state.service(service.id)?.update.clone()?;
    match (update.state, config.failure_action()) {
        (UpdateState::Updating, FailureAction::Pause) => {}
        (_, _) => return None,
    }
    task.ended.as_ref()?;
    let places = places(&draft.view, service.id);
    let older = |slot: &Slot| {
        places
            .get(slot)
            .is_some_and(|place| place.live.iter().chain(&place.retired).any(|task| task.revision < service.revision))
    };
    let ran = draft.agenda.running_since(task.id).map(|since| draft.now.mono.since(since));
    if !is_updaters(&draft.view, service, task, older(&task.slot)) || ran.is_some_and(|ran| ran > config.monitor()) {
        return None;
    }
    let slots = places.keys().filter(|slot| older(slot)).count();
    let failures = update.failures + 1;
    let tripped =
        f64::from(failures) / f64::from(u32::try_from(slots).unwrap_or(u32::MAX).max(1)) > config.failure_ratio().get();
    let update = if tripped {
        let message = format!("update paused due to failure or early termination of task {}", task.id);
        UpdateStatus { state: UpdateState::Paused, message, failures, ..update }
    } else {
        UpdateStatus { failures, ..update }
    };
    Some(Change::ServiceProgress { service: service.id, revision: service.revision, update })
}
