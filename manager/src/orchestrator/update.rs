//! The updater: replaces the tasks of a service whose spec changed, a few slots at a time (reference §5).
//!
//! ```text
//! slot: dirty ─ a worker is free ─▶ old Shutdown, new Ready ─▶ new Running ─ delay ─▶ done   (stop-first)
//!                                └▶ new Running ─ runs ─▶ old Shutdown ─ delay ─▶ done       (start-first)
//! service: Updating ─ all done, one monitor period passed ─▶ Completed
//!             └─ failures / slots > ratio ─▶ Paused (until the next spec)
//!                                         └▶ RollbackStarted (the spec before, by its rollback settings)
//!         RollbackStarted ─ as above ─▶ RollbackCompleted
//!             └─ failures / slots > ratio ─▶ RollbackPaused: a rollback is never rolled back
//! ```
//! There are no workers: a slot is busy while its new task has not run for the delay. That is read off the store, so
//! that a new leader goes on where the old one was.

use std::sync::Arc;
use std::time::Duration;

use racimo_common::object::{Desired, TaskState};

use super::draft::{Draft, retire};
use super::place::{Filled, Place, places};
use super::restart;
use crate::scheduler::constraint;
use crate::store::{
    Change, FailureAction, Gate, Order, Placement, RollbackBy, Service, Task, TaskSpec, UpdateConfig, UpdateState,
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
    /// It is replacing the task; look again after this at the latest.
    Busy(Option<Duration>),
    /// It replaced the task, and was done so long ago.
    Done(Duration),
    /// One clean task is enough: the others go.
    Keep(Arc<Task>),
    /// A start-first replacement, made by the restart supervisor, has to run first.
    Waits,
    /// Every task is of an old spec.
    Replace,
}

/// A task that this manager has not seen alive, since it was not there, failed early if it is younger than this:
/// longer than a board takes to bring an image and a manager to come back.
const UNSEEN_MAX: Duration = Duration::from_secs(600);

/// Remembers since when tasks of a service under update run.
pub(super) fn note_running(draft: &mut Draft<'_>, service: &Service) {
    if service.update.is_none() {
        return;
    }
    let tasks = draft.view.state.tasks_of_service(service.id);
    let tasks: Vec<Arc<Task>> = tasks.filter(|task| task.revision == service.revision).cloned().collect();
    for task in tasks.iter().filter(|task| task.ended.is_none() && task.desired <= Desired::Running) {
        let status = draft.view.seen.task(task.id);
        if draft.view.task_state(task) == TaskState::Running {
            // By the board's clock, but not before it was told to.
            let told = draft.now.wall.since(task.meta.updated);
            let before = status.map_or(Duration::ZERO, |status| draft.now.wall.since(status.at).min(told));
            draft.agenda.runs(task.id, draft.now, before);
        } else if status.is_some() || task.desired == Desired::Ready {
            // Otherwise a new manager found it in the store, and its board has not reported yet.
            draft.agenda.comes(task.id);
        }
    }
}

/// How the service is updated now.
fn config(service: &Service) -> UpdateConfig {
    let rolls_back = service.update.as_ref().is_some_and(|update| match update.state {
        UpdateState::RollbackStarted | UpdateState::RollbackPaused => true,
        UpdateState::Updating | UpdateState::Paused | UpdateState::Completed | UpdateState::RollbackCompleted => false,
    });
    if rolls_back { service.spec.rollback } else { service.spec.update }.unwrap_or_default()
}

/// Goes on with, begins or completes an update of these slots.
pub(super) fn step(draft: &mut Draft<'_>, service: &Arc<Service>, slots: &[Filled]) {
    let config = &config(service);
    let state = service.update.as_ref().map(|update| update.state);
    let active = match state {
        Some(UpdateState::Paused | UpdateState::RollbackPaused) => return,
        Some(UpdateState::Updating | UpdateState::RollbackStarted) => true,
        Some(UpdateState::Completed | UpdateState::RollbackCompleted) | None => false,
    };
    let works: Vec<Work> = slots.iter().map(|fill| judge(draft, service, fill, config)).collect();
    let dirty = slots.iter().zip(&works).any(|(fill, work)| fill.tasks.len() > 1 || matches!(work, Work::Replace));
    if !dirty && !active {
        // A slot that is not to be filled now may still have an old task, on a paused node.
        let old = |task: &Arc<Task>| {
            task.ended.is_none() && task.desired <= Desired::Running && is_dirty(&draft.view, service, task)
        };
        if service.held.is_some() && !draft.view.state.tasks_of_service(service.id).any(old) {
            draft.push(vec![Change::ServiceSettle { service: service.id, revision: service.revision }]);
        }
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
    let (mut open, mut done): (bool, Option<Duration>) = (false, None);
    for (fill, work) in slots.iter().zip(works) {
        match work {
            Work::None | Work::Waits => {}
            Work::Busy(left) => {
                open = true;
                left.into_iter().for_each(|left| draft.wake_at(draft.now.mono + left));
            }
            Work::Done(ago) => done = Some(done.map_or(ago, |done| done.min(ago))),
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
    if !open && active {
        complete(draft, service, done, config);
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
    let ran = draft.agenda.ran(clean.id, draft.now).flatten().filter(|_| runs);
    match ran.map(|ran| ran.checked_sub(config.delay()).ok_or(config.delay().saturating_sub(ran))) {
        None => Work::Busy(None),
        Some(Err(left)) => Work::Busy(Some(left)),
        Some(Ok(ago)) => Work::Done(ago),
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

/// Completed, once the last task has been watched for one more period. It was `done` so long ago.
fn complete(draft: &mut Draft<'_>, service: &Service, done: Option<Duration>, config: &UpdateConfig) {
    let Some(update) = service.update.clone() else { return };
    let second = Duration::from_secs(1);
    let monitor = if config.delay() >= config.monitor() { config.delay() + second } else { config.monitor() };
    if let Some(left) = done.and_then(|ago| monitor.checked_sub(ago)).filter(|left| !left.is_zero()) {
        draft.wake_at(draft.now.mono + left);
        return;
    }
    let (state, message) = match update.state {
        UpdateState::RollbackStarted => (UpdateState::RollbackCompleted, "rollback completed"),
        UpdateState::Updating
        | UpdateState::Paused
        | UpdateState::Completed
        | UpdateState::RollbackPaused
        | UpdateState::RollbackCompleted => (UpdateState::Completed, "update completed"),
    };
    let update = UpdateStatus { state, completed: Some(draft.now.wall), message: message.to_owned(), ..update };
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

/// What to do about a failure of one of the updater's tasks, if it is one: it ended before it ran, or soon after.
///
/// Called once per task, when the restart supervisor retires it in the same transaction. A rollback changes the
/// service's revision.
pub(super) fn count_failure(draft: &Draft<'_>, service: &Service, task: &Task) -> Option<Change> {
    let config = &config(service);
    let update = service.update.clone()?;
    let rolls_back = match (update.state, config.failure_action()) {
        (UpdateState::Updating, FailureAction::Pause | FailureAction::Rollback) => false,
        (UpdateState::RollbackStarted, FailureAction::Pause | FailureAction::Rollback) => true,
        (_, _) => return None,
    };
    task.ended.as_ref()?;
    let places = places(&draft.view, service.id);
    let was_dirty = |place: &Place| place.was_dirty(&draft.view, service);
    let early = match draft.agenda.ran(task.id, draft.now) {
        Some(ran) => ran.is_none_or(|ran| ran <= config.monitor()),
        None => draft.now.wall.since(task.meta.created) <= UNSEEN_MAX,
    };
    if !early || !is_updaters(&draft.view, service, task, places.get(&task.slot).is_some_and(was_dirty)) {
        return None;
    }
    let slots = places.values().filter(|place| was_dirty(place)).count();
    let failures = update.failures + 1;
    let share = f64::from(failures) / f64::from(u32::try_from(slots).unwrap_or(u32::MAX).max(1));
    let (id, revision) = (service.id, service.revision);
    if share <= config.failure_ratio().get() {
        let update = UpdateStatus { failures, ..update };
        return Some(Change::ServiceProgress { service: id, revision, update });
    }
    if !rolls_back && config.failure_action() == FailureAction::Rollback && service.previous.is_some() {
        return Some(Change::ServiceRollback { service: id, by: RollbackBy::Updater { revision, task: task.id } });
    }
    let (state, what) = match rolls_back {
        true => (UpdateState::RollbackPaused, "rollback"),
        false => (UpdateState::Paused, "update"),
    };
    let message = format!("{what} paused due to failure or early termination of task {}", task.id);
    let update = UpdateStatus { state, message, failures, ..update };
    Some(Change::ServiceProgress { service: id, revision, update })
}
