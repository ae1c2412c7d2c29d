//! What has to hold, after every event.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use racimo_common::id::{NodeId, ServiceId, TaskId};
use racimo_common::object::{Desired, Reservations, TaskState};
use racimo_common::time::Mono;
use racimo_manager::scheduler::constraint;
use racimo_manager::store::log::Machine;
use racimo_manager::store::{
    Change, Command, Event, Mode, NodeStatus, Order, Service, Slot, State, Task, UpdateState, View,
};

use crate::agent::Board;
use crate::runtime::Process;

/// How long a replacement waits for the task before it (`orchestrator::restart`).
const OLD_TASK_WAIT: Duration = Duration::from_secs(60);

/// What happened so far, as far as an invariant needs it.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// The state of the last acknowledged command.
    pub(crate) state: State,
    /// States that the log may hold beyond that: commands that were under way.
    under_way: Vec<State>,
    /// Where some committed state wanted each task to run.
    may_run: BTreeSet<(TaskId, NodeId)>,
    /// Since when tasks are to stop.
    stopping: BTreeMap<TaskId, Mono>,
    /// The highest state observed of each task since its board's session opened.
    observed: BTreeMap<TaskId, TaskState>,
    pub(crate) starts: u64,
    /// Boards that went by their journals.
    pub(crate) recalls: u64,
    pub(crate) recoveries: u64,
    /// Updates that the updater rolled back.
    pub(crate) rollbacks: u64,
    /// Jobs' tasks that completed.
    pub(crate) completions: u64,
    /// The manager's clock jumps: what waits for a time does not wait long enough.
    pub(crate) clock_jumps: bool,
}

impl Model {
    /// A command goes to the log.
    pub(crate) fn logged(&mut self, state: &State) {
        self.under_way.push(state.clone());
    }

    /// Everything up to this state is acknowledged.
    pub(crate) fn acknowledged(&mut self, state: &State) {
        self.under_way.clear();
        self.state = state.clone();
    }

    /// What a restart found on the disk.
    pub(crate) fn recovered(&mut self, found: &State) -> Option<String> {
        self.recoveries += 1;
        if *found != self.state && !self.under_way.contains(found) {
            return Some(format!("the log is at index {}, acknowledged was {}", found.index(), self.state.index()));
        }
        self.acknowledged(found);
        self.observed.clear();
        for task in found.tasks() {
            self.note(task);
        }
        let mut copy = State::default();
        match copy.restore(&found.snapshot()) {
            Ok(()) if copy == *found => None,
            Ok(()) => Some("a restored snapshot is not the state it was made from".to_owned()),
            Err(error) => Some(format!("a snapshot cannot be restored: {error}")),
        }
    }

    fn note(&mut self, task: &Task) {
        if let (Desired::Running, Some(node)) = (task.desired, task.node) {
            self.may_run.insert((task.id, node));
        }
    }

    /// The manager published a view.
    pub(crate) fn published(&mut self, before: &View, view: &View, events: &[Event], now: Mono) -> Option<String> {
        for event in events {
            match event {
                Event::Task { id, old, new } => {
                    if let (Some(old), Some(new)) = (old, new) {
                        if new.desired < old.desired {
                            return Some(format!("task {id}: desired goes back to {}", new.desired));
                        }
                        if old.node.is_some() && old.node != new.node {
                            return Some(format!("task {id} changes its node"));
                        }
                        if old.ended.is_some() && old.ended != new.ended {
                            return Some(format!("task {id} ends twice"));
                        }
                        if old.desired <= Desired::Running && new.desired > Desired::Running {
                            self.stopping.insert(*id, now);
                        }
                    }
                    if let Some(wrong) = new.as_ref().and_then(|task| job_is_wrong(before, view, task)) {
                        return Some(wrong);
                    }
                    match new {
                        Some(task) => self.note(task),
                        None => {
                            self.stopping.remove(id);
                            self.observed.remove(id);
                        }
                    }
                    let completes = |task: &Arc<Task>| task.iteration > 0 && is_complete(task);
                    let news = new.as_ref().is_some_and(completes) && !old.as_ref().is_some_and(completes);
                    self.completions += u64::from(news);
                    let node = new.as_ref().and_then(|task| view.state.node(task.node?));
                    if let Some(node) = node.filter(|node| exceeds(view.state.reserved(node.id), node.capacity())) {
                        return Some(format!("node {}: more is reserved than it has", node.id));
                    }
                }
                Event::Service { old: Some(old), new: Some(new), .. } => {
                    if let Some(wrong) = rollback_is_wrong(old, new) {
                        return Some(wrong);
                    }
                    self.rollbacks += u64::from(began_rollback(old, new));
                }
                Event::Cluster
                | Event::Node { .. }
                | Event::Service { .. }
                | Event::Network { .. }
                | Event::Dependency { .. }
                | Event::NodeSeen(_) => {}
                Event::TaskSeen { .. } => {}
            }
        }
        for event in events {
            let (Event::Task { id, .. } | Event::TaskSeen { id, .. }) = event else { continue };
            let Some(state) = view.state_of(*id) else { continue };
            let highest = self.observed.entry(*id).or_insert(state);
            if state < *highest {
                return Some(format!("task {id}: its observed state goes back from {highest} to {state}"));
            }
            *highest = state;
        }
        (view.version() < before.version()).then(|| "the index goes back".to_owned())
    }

    /// A board says in a new session how its tasks are: without one it may have begun to start some again.
    pub(crate) fn hears_anew(&mut self, view: &View, node: NodeId) {
        for task in view.state.tasks_on_node(node) {
            self.observed.remove(&task.id);
        }
    }

    /// A board with this identity starts a task.
    pub(crate) fn starts(&mut self, task: TaskId, node: Option<NodeId>) -> Option<String> {
        self.starts += 1;
        let allowed = node.is_some_and(|node| self.may_run.contains(&(task, node)));
        (!allowed).then(|| "no committed state wanted it to run there".to_owned())
    }

    /// What runs on the boards fits what is decided.
    pub(crate) fn running(&self, boards: &[Board], now: Mono) -> Option<String> {
        let mut slots: BTreeMap<(ServiceId, Slot), TaskId> = BTreeMap::new();
        let mut fenced: BTreeMap<(ServiceId, Slot), TaskId> = BTreeMap::new();
        for board in boards {
            let mut used = Reservations::default();
            for (&id, container) in &board.runtime.containers {
                let Process::Running { .. } = container.process else { continue };
                used.cpu = used.cpu + container.reserves.cpu;
                used.memory = used.memory + container.reserves.memory;
                let Some(task) = self.state.task(id).filter(|task| task.node == board.node) else { continue };
                let Some(node) = board.node.and_then(|node| self.state.node(node)) else { continue };
                // Whatever else may be excused: not where a task asked for it.
                let other = container.lease.and_then(|_| fenced.insert((task.service, task.slot), id));
                if let Some(other) = other {
                    return Some(format!("tasks {id} and {other} of one fenced slot run at once"));
                }
                // A journal may be a moment old: what ended just before the power went is begun again until the
                // manager is heard.
                if board.agent.as_ref().is_some_and(|agent| agent.is_on_its_own) {
                    continue;
                }
                if task.ended.as_ref().is_some_and(|ended| ended.state != TaskState::Orphaned) {
                    return Some(format!("board {}: task {id} counts as ended and runs", board.index));
                }
                let late = self.stopping.get(&id).is_some_and(|since| now.since(*since) >= OLD_TASK_WAIT);
                let overlaps = self.state.service(task.service).is_some_and(|service| starts_first(service));
                let excused = late || self.clock_jumps || overlaps;
                if node.written_off.is_some() || task.desired == Desired::Remove || excused {
                    continue;
                }
                if let Some(other) = slots.insert((task.service, task.slot), id) {
                    return Some(format!("tasks {id} and {other} of one slot run at once"));
                }
            }
            let has = board.description.clone();
            let memory = has.memory.saturating_sub(racimo_manager::store::object::system_reserve(has.memory));
            if exceeds(used, Reservations { cpu: has.cpus, memory }) {
                return Some(format!("board {}: what runs reserves more than it has", board.index));
            }
        }
        None
    }
}

/// Whether old and new task may run at once while the service is updated or rolled back.
fn starts_first(service: &Service) -> bool {
    let configs = [service.spec.update, service.spec.rollback];
    configs.into_iter().flatten().any(|config| config.order() == Order::StartFirst)
}

pub(crate) fn is_complete(task: &Task) -> bool {
    task.ended.as_ref().is_some_and(|ended| ended.state == TaskState::Complete)
}

/// Whether a slot runs again that had completed in this iteration, or more complete than is wanted.
fn job_is_wrong(before: &View, view: &View, task: &Task) -> Option<String> {
    let service = view.state.service(task.service)?;
    if service.job?.iteration != task.iteration {
        return None;
    }
    let done = |view: &View| -> BTreeSet<Slot> {
        let tasks = view.state.tasks_of_service(task.service);
        tasks.filter(|other| other.iteration == task.iteration && is_complete(other)).map(|task| task.slot).collect()
    };
    if before.state.task(task.id).is_none() && done(before).contains(&task.slot) {
        return Some(format!("task {}: {:?} of a job has completed before", task.id, task.slot));
    }
    match service.spec.mode {
        Mode::ReplicatedJob { completions, .. } if done(view).len() as u64 > completions => {
            Some(format!("{}: more slots completed than {completions}", service.spec.name))
        }
        Mode::Replicated { .. } | Mode::Global | Mode::ReplicatedJob { .. } | Mode::GlobalJob => None,
    }
}

fn began_rollback(old: &Service, new: &Service) -> bool {
    let rolls = |service: &Service| {
        service.update.as_ref().is_some_and(|update| {
            update.state == UpdateState::RollbackStarted && update.message.starts_with("update rolled back")
        })
    };
    rolls(new) && !rolls(old)
}

/// Whether a rollback is to another spec than the previous one, or follows upon a rollback.
fn rollback_is_wrong(old: &Service, new: &Service) -> Option<String> {
    if !began_rollback(old, new) {
        return None;
    }
    let back = old.previous.as_ref() == Some(&new.spec) && new.previous.is_none();
    let from = old.update.as_ref().map(|update| update.state);
    (!back || from != Some(UpdateState::Updating)).then(|| format!("{} is rolled back from {from:?}", new.spec.name))
}

fn exceeds(used: Reservations, has: Reservations) -> bool {
    used.cpu > has.cpu || used.memory > has.memory
}

/// Whether a plan of the scheduler puts a task where it may not be, by the view it was made from.
pub(crate) fn plan_is_wrong(view: &View, assigns: &[Change]) -> Option<String> {
    let mut counts: BTreeMap<(ServiceId, NodeId), u64> = BTreeMap::new();
    for change in assigns {
        let Change::TaskAssign { task: id, node, .. } = change else {
            return Some(format!("{change:?} is no assignment"));
        };
        let (Some(task), Some(node)) = (view.state.task(*id), view.state.node(*node)) else {
            return Some(format!("{change:?} names what is not there"));
        };
        let placement = &task.spec.placement;
        let fits = constraint::parse_all(&placement.constraints);
        if !fits.is_ok_and(|constraints| constraint::matches_all(&constraints, node)) {
            return Some(format!("task {id} may not be on node {}", node.id));
        }
        if view.node_status(node) != NodeStatus::Ready {
            return Some(format!("node {} is not ready", node.id));
        }
        let here = counts.entry((task.service, node.id)).or_insert_with(|| {
            let active = |task: &&Arc<Task>| {
                task.node == Some(node.id) && task.ended.is_none() && task.desired <= Desired::Running
            };
            view.state.tasks_of_service(task.service).filter(active).count() as u64
        });
        *here += 1;
        if placement.replicas_max > 0 && *here > placement.replicas_max {
            let (node, most) = (node.id, placement.replicas_max);
            return Some(format!("node {node} gets {here} tasks of {}, at most {most} may be there", task.service));
        }
    }
    None
}

/// A command in a few words.
pub(crate) fn brief(command: &Command) -> String {
    let brief = |change: &Change| match change {
        Change::ClusterCreate(_) => "cluster".to_owned(),
        Change::ClusterUpdate { .. }
        | Change::ClusterManagers(_)
        | Change::Signed(_)
        | Change::KeysTurn { .. }
        | Change::RootKey(_)
        | Change::RotationBegin(_)
        | Change::RotationReplace { .. }
        | Change::RotationFinish { .. }
        | Change::UnlockKey(_)
        | Change::UnlockKeyDrawn(_)
        | Change::UnlockKeyShown(_)
        | Change::ClusterLeave => "cluster update".to_owned(),
        Change::AccessCreate(access) => format!("access {}", access.name),
        Change::AccessRemove { name } => format!("revoke {name}"),
        Change::NodeTrust { node, .. } => format!("trust of {node}"),
        Change::NodeBoard { node, .. } => format!("board of {node}"),
        Change::NodeCreate(new) => format!("node {}", new.id),
        Change::NodeUpdate { node, spec, .. } => format!("node {node} {} {:?}", spec.availability, spec.labels),
        Change::NodeDescribe { node, .. } => format!("describe {node}"),
        Change::NodeWriteOff { node, .. } => format!("write off {node}"),
        Change::NodeReadmit { node } => format!("readmit {node}"),
        Change::NodeRemove { node } => format!("remove node {node}"),
        Change::NetworkCreate { network, spec } => format!("network {network} {}", spec.name),
        Change::NetworkRemove { network } => format!("remove network {network}"),
        Change::ServiceCreate { service, spec } => format!("service {service} {} {:?}", spec.name, spec.mode),
        Change::ServiceUpdate { service, spec, .. } => {
            format!("update {service} {:?} {}", spec.mode, spec.task.container.image)
        }
        Change::ServiceRollback { service, by } => format!("roll back {service}: {by:?}"),
        Change::ServiceProgress { service, update, .. } => format!("progress {service} {}", update.message),
        Change::ServiceSettle { service, .. } => format!("settle {service}"),
        Change::ServiceRemove { service } => format!("remove {service}"),
        Change::DependencyCreate(new) => format!("{} {} {}", new.kind.name(), new.id, new.name),
        Change::DependencyLabel { dependency, labels, .. } => format!("label {dependency} {labels:?}"),
        Change::DependencyRemove { dependency } => format!("remove {dependency}"),
        Change::TaskCreate(new) => {
            let gate = new.gate.and_then(|gate| gate.after).map_or(String::new(), |task| format!(" after {task}"));
            format!("task {} {:?} of {} {}{gate}", new.id, new.slot, new.service, new.desired)
        }
        Change::TaskDesire { task, desired } => format!("{task} {desired}"),
        Change::TaskGate { task, .. } => format!("gate {task}"),
        Change::TaskAssign { task, node, .. } => format!("{task} -> {node}"),
        Change::TaskEnd { task, ended } => format!("{task} ended {}", ended.state),
        Change::TaskRemove { task } => format!("forget {task}"),
    };
    command.changes.iter().map(brief).collect::<Vec<_>>().join(", ")
}
