//! A plan in the making: each group of changes takes effect on the draft's own view at once.

use std::sync::Arc;

use racimo_common::id::{IdSource, NodeId, ServiceId, TaskId};
use racimo_common::object::{Desired, TaskState};
use racimo_common::time::{Mono, Now, Wall};

use super::agenda::Agenda;
use super::fence;
use crate::limits::ORCHESTRATOR_PLAN_MAX;
use crate::store::{Change, Command, Ended, Gate, NewTask, Observation, Service, Slot, Task, View};

/// A plan in the making.
pub(super) struct Draft<'a> {
    /// What is true once everything so far is committed.
    pub(super) view: View,
    pub(super) now: Now,
    pub(super) agenda: &'a mut Agenda,
    ids: &'a mut IdSource,
    index: u64,
    changes: Vec<Change>,
    observations: Vec<Observation>,
    /// When the object that is looked at has to be looked at again.
    wake: Option<Mono>,
    /// The plan is as large as it may be: the rest is due at once.
    full: bool,
}

impl<'a> Draft<'a> {
    pub(super) fn new(view: &View, now: Now, ids: &'a mut IdSource, agenda: &'a mut Agenda) -> Self {
        let index = view.version() + 1;
        let (changes, observations) = (Vec::new(), Vec::new());
        Self { view: view.clone(), now, agenda, ids, index, changes, observations, wake: None, full: false }
    }

    /// Adds changes that belong together. False: the plan is full, nothing was added.
    pub(super) fn push(&mut self, group: Vec<Change>) -> bool {
        if self.full || self.changes.len() + group.len() > ORCHESTRATOR_PLAN_MAX {
            self.full = true;
            return false;
        }
        let command = Command { at: self.now.wall, changes: group };
        match self.view.state.apply(self.index, &command) {
            Ok((state, _)) => {
                self.view.state = state;
                self.changes.extend(command.changes);
                true
            }
            Err(refusal) => {
                // A bug of ours: leaving the group out keeps everything else going.
                debug_assert!(false, "the orchestrator planned what the store refuses: {refusal}");
                false
            }
        }
    }

    pub(super) fn observe(&mut self, observation: Observation) {
        self.observations.push(observation);
    }

    /// How many changes there are so far.
    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Looks at the current object again at this time.
    pub(super) fn wake_at(&mut self, at: Mono) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// The same by the leader's clock.
    pub(super) fn wake_at_wall(&mut self, at: Wall) {
        self.wake_at(self.now.mono + at.since(self.now.wall));
    }

    pub(super) fn end_node(&mut self, node: NodeId) {
        let wake = self.take_wake();
        self.agenda.set_node(node, wake);
    }

    pub(super) fn end_service(&mut self, service: ServiceId) {
        let wake = self.take_wake();
        self.agenda.set_service(service, wake);
    }

    fn take_wake(&mut self) -> Option<Mono> {
        let wake = self.wake.take();
        if self.full { Some(self.now.mono) } else { wake }
    }

    pub(super) fn finish(self) -> (Vec<Change>, Vec<Observation>) {
        (self.changes, self.observations)
    }

    /// A new task of the service's current revision. With a gate it waits at `Ready`.
    pub(super) fn new_task(
        &mut self,
        service: &Service,
        slot: Slot,
        gate: Option<Gate>,
        restart_of: Option<TaskId>,
    ) -> Change {
        // Whoever makes it: the slot's last task may run where nobody hears of it.
        let fence = fence::of_slot(&self.view, service.id, slot, None, self.now);
        let gate = gate.or_else(|| fence.map(|_| Gate { not_before: self.now.wall, after: None }));
        let desired = if gate.is_some() { Desired::Ready } else { Desired::Running };
        let (id, revision) = (self.ids.draw(), service.revision);
        // A global task's node is its slot; the scheduler assigns it once the node has room.
        let new = NewTask { id, service: service.id, revision, slot, desired, gate, restart_of, node: None };
        Change::TaskCreate(Box::new(new))
    }

    /// Whether nothing of the task can run (any more): it ended, never got a node, or its node is lost.
    pub(super) fn has_stopped(&self, task: &Task) -> bool {
        let lost = |node| self.view.state.node(node).is_none_or(|node| node.written_off.is_some());
        let held = || fence::holds(&self.view, task, self.now).is_some();
        task.ended.is_some() || task.node.is_none_or(lost) && !held()
    }

    /// Whether a fence keeps the task from being started; wakes when it does not any more.
    pub(super) fn is_fenced(&mut self, task: &Task) -> bool {
        let Some(fence) = fence::of_slot(&self.view, task.service, task.slot, Some(task.id), self.now) else {
            return false;
        };
        fence.until.into_iter().for_each(|at| self.wake_at(at));
        true
    }

    /// A task of the slot other than `except` that was asked to stop and has not: whoever follows waits for it too,
    /// even if a task in between never ran.
    pub(super) fn still_stops(&self, service: ServiceId, slot: Slot, except: Option<TaskId>) -> Option<TaskId> {
        let tasks =
            self.view.state.tasks_of_service(service).filter(|task| task.slot == slot && Some(task.id) != except);
        let mut stopping = tasks.filter(|task| task.desired == Desired::Shutdown && !self.has_stopped(task));
        stopping.next().map(|task| task.id)
    }

    /// The task if it is still known.
    pub(super) fn task(&self, id: TaskId) -> Option<&Arc<Task>> {
        self.view.state.task(id)
    }
}

/// The task is not wanted any more. One that never got a node ends with it.
pub(super) fn retire(task: &Task) -> Change {
    Change::TaskDesire { task: task.id, desired: Desired::Shutdown }
}

/// An end that the manager decides on.
pub(super) fn ended(state: TaskState, message: &str, now: Now) -> Ended {
    Ended { state, at: now.wall, message: message.to_owned(), err: None, container: None, exit_code: None }
}
