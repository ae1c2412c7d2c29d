//! A small cluster in memory: the real state and cores, virtual time, agents that do what they are told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use racimo_common::id::{ClusterId, IdSource, NetworkId, NodeId, RandomId, ServiceId, TaskId};
use racimo_common::object::{Desired, NodeDescription, Role, TaskReport, TaskState, generic_variables};
use racimo_common::time::{Mono, Now, Wall};
use racimo_manager::orchestrator::{self, Agenda};
use racimo_manager::scheduler::{self, Waiting};
use racimo_manager::store::{
    Change, Command, Ended, Event, NewCluster, NewNode, NodeLink, NodeSpec, Observation, RollbackBy, SeenNode,
    ServiceSpec, Slot, Task, UpdateConfig, View, WrittenOff,
};

/// The cluster.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) view: View,
    pub(crate) agenda: Agenda,
    pub(crate) waiting: Waiting,
    pub(crate) now: Now,
    pub(crate) ids: IdSource,
    /// How services that are written from now on are updated.
    pub(crate) config: UpdateConfig,
    /// How they are rolled back.
    pub(crate) rollback: UpdateConfig,
    pub(crate) nodes: BTreeMap<String, NodeId>,
    /// Agents that do nothing for now.
    pub(crate) frozen: BTreeSet<NodeId>,
    /// What was decided, in words.
    pub(crate) trace: Vec<String>,
    names: BTreeMap<TaskId, String>,
    attempts: BTreeMap<(ServiceId, Slot), u32>,
    /// Since when the boards' tasks are in their state: they say it again to a new manager.
    since: BTreeMap<(TaskId, TaskState), Wall>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let wall = Wall::from_nanos(1_700_000_000_000_000_000);
        let mut world = Self {
            view: View::default(),
            agenda: Agenda::default(),
            waiting: Waiting::default(),
            now: Now { mono: Mono::from_nanos(0), wall },
            ids: IdSource::seeded(seed),
            config: UpdateConfig::default(),
            rollback: UpdateConfig::default(),
            nodes: BTreeMap::new(),
            frozen: BTreeSet::new(),
            trace: Vec::new(),
            names: BTreeMap::new(),
            attempts: BTreeMap::new(),
            since: BTreeMap::new(),
        };
        let cluster = NewCluster::bare(ClusterId::from_bits(1), NetworkId::from_bits(1));
        world.apply(vec![Change::ClusterCreate(Box::new(cluster))]);
        world
    }

    /// Commits changes that must be accepted.
    #[track_caller]
    pub(crate) fn apply(&mut self, changes: Vec<Change>) {
        let index = self.view.version() + 1;
        let command = Command { at: self.now.wall, changes };
        let (state, events) = self.view.state.apply(index, &command).unwrap_or_else(|refusal| panic!("{refusal}"));
        self.view.state = state;
        self.view.seen.follow(&events);
        self.take(&events);
    }

    pub(crate) fn observe(&mut self, observation: Observation) {
        let event = self.view.seen.observe(&self.view.state, observation);
        self.take(event.as_slice());
    }

    fn take(&mut self, events: &[Event]) {
        for event in events {
            self.agenda.take(event, &self.view);
            self.waiting.take(event);
        }
    }

    pub(crate) fn add_node(&mut self, name: &str, spec: NodeSpec, role: Role, about: NodeDescription, addr: &str) {
        let id = NodeId::from_bits(self.nodes.len() as u128 + 1);
        self.nodes.insert(name.to_owned(), id);
        let description = Arc::new(about);
        let new = NewNode { id, role, key_digest: None, spec, description, addr: addr.to_owned() };
        self.apply(vec![Change::NodeCreate(Box::new(new))]);
        self.ready(id, true);
    }

    pub(crate) fn ready(&mut self, node: NodeId, ready: bool) {
        let link = if ready { NodeLink::Open } else { NodeLink::Lost(self.now.mono) };
        self.observe(Observation::Link { node, link });
        self.observe(Observation::Node { node, seen: SeenNode { ready, at: self.now.wall } });
    }

    /// The node is silent and written off.
    pub(crate) fn down(&mut self, node: NodeId) {
        self.ready(node, false);
        let written_off = WrittenOff { at: self.now.wall, reason: "heartbeat failure".to_owned() };
        self.apply(vec![Change::NodeWriteOff { node, written_off }]);
    }

    /// The node is back: a clean report, which ends what it was told to stop.
    pub(crate) fn up(&mut self, node: NodeId) {
        self.apply(vec![Change::NodeReadmit { node }]);
        self.ready(node, true);
    }

    pub(crate) fn add_service(&mut self, spec: ServiceSpec) -> ServiceId {
        let service = self.ids.draw();
        let settings = (!spec.mode.is_job()).then_some((self.config, self.rollback));
        let (update, rollback) = settings.unzip();
        let spec = ServiceSpec { update, rollback, ..spec };
        self.apply(vec![Change::ServiceCreate { service, spec: Arc::new(spec) }]);
        service
    }

    pub(crate) fn edit_service(&mut self, name: &str, edit: impl FnOnce(&mut ServiceSpec)) {
        let service = self.view.state.service_named(name).unwrap().clone();
        let mut spec = (*service.spec).clone();
        if !spec.mode.is_job() {
            (spec.update, spec.rollback) = (Some(self.config), Some(self.rollback));
        }
        edit(&mut spec);
        let change = Change::ServiceUpdate { service: service.id, version: service.meta.version, spec: Arc::new(spec) };
        self.apply(vec![change]);
    }

    /// The user wants the previous spec back; the refusal, if there is one.
    pub(crate) fn roll_back(&mut self, name: &str) -> Option<String> {
        let service = self.view.state.service_named(name).unwrap().clone();
        let by = RollbackBy::User { version: service.meta.version };
        let change = Change::ServiceRollback { service: service.id, by };
        let command = Command { at: self.now.wall, changes: vec![change.clone()] };
        if let Err(refusal) = self.view.state.apply(self.view.version() + 1, &command) {
            return Some(refusal.to_string().replace(&service.id.to_string(), name));
        }
        self.apply(vec![change]);
        None
    }

    pub(crate) fn edit_node(&mut self, node: NodeId, edit: impl FnOnce(&mut NodeSpec)) {
        let old = self.view.state.node(node).unwrap().clone();
        let mut spec = old.spec.clone();
        edit(&mut spec);
        self.apply(vec![Change::NodeUpdate { node, version: old.meta.version, spec }]);
    }

    /// The manager was killed and starts with what is stored; agents report anew.
    pub(crate) fn restart_manager(&mut self) {
        self.view.seen = racimo_manager::store::Seen::default();
        self.agenda = Agenda::all(&self.view);
        self.waiting = Waiting::all(&self.view);
        let all: Vec<NodeId> = self.view.state.nodes().map(|node| node.id).collect();
        for node in all {
            self.observe(Observation::Link { node, link: NodeLink::Lost(self.now.mono) });
        }
        let nodes = self.view.state.nodes().filter(|node| node.written_off.is_none()).map(|node| node.id);
        let present: Vec<_> = nodes.filter(|node| !self.frozen.contains(node)).collect();
        present.into_iter().for_each(|node| self.ready(node, true));
    }

    pub(crate) fn end(&mut self, task: TaskId, state: TaskState, exit_code: Option<i32>) {
        let ended =
            Ended { state, at: self.now.wall, message: state.name().to_owned(), err: None, container: None, exit_code };
        self.apply(vec![Change::TaskEnd { task, ended }]);
    }

    /// Steps the cores and the agents until nothing happens any more.
    pub(crate) fn settle(&mut self) {
        for _ in 0..500 {
            if !self.decide() && !self.obey() {
                return;
            }
        }
        panic!("no rest after 500 rounds:\n{}", self.trace.join("\n"));
    }

    /// One step of each core; checks the fixpoint law. Whether anything was decided.
    pub(crate) fn decide(&mut self) -> bool {
        let plan = orchestrator::step(&self.view, &mut self.agenda, self.now, &mut self.ids);
        let full = plan.wake_at.is_some_and(|at| at <= self.now.mono);
        self.agenda.done();
        let mut decided = !plan.changes.is_empty();
        self.tell(&plan.changes);
        if decided {
            self.apply(plan.changes);
            let mut ids = self.ids.clone();
            let again = orchestrator::step(&self.view, &mut self.agenda, self.now, &mut ids);
            assert!(full || again.changes.is_empty(), "not a fixpoint: {:?}\n{}", again.changes, self.trace.join("\n"));
        }
        plan.observations.into_iter().for_each(|observation| self.observe(observation));
        let plan = scheduler::step(&self.view, &self.waiting, self.now);
        decided |= !plan.assigns.is_empty() || !plan.waits.is_empty();
        self.tell(&plan.assigns);
        if !plan.assigns.is_empty() {
            self.apply(plan.assigns);
        }
        for observation in plan.waits {
            if let Observation::Waits { task, reason, .. } = &observation {
                let reason = reason.clone().unwrap_or_default();
                self.trace.push(format!("{} waits: {reason}", self.name(*task)));
            }
            self.observe(observation);
        }
        if decided {
            let again = scheduler::step(&self.view, &self.waiting, self.now);
            assert!(again.assigns.is_empty() && again.waits.is_empty(), "not a fixpoint: {again:?}");
        }
        decided
    }

    /// Every agent does what it is told; what it does depends on the image's name.
    fn obey(&mut self) -> bool {
        let ready = |view: &View, node: NodeId| view.is_ready(node);
        let nodes: Vec<_> = self.nodes.values().copied().collect();
        let mut acted = false;
        for node in nodes {
            if self.frozen.contains(&node) || !ready(&self.view, node) {
                continue;
            }
            let tasks: Vec<Arc<Task>> = self.view.state.tasks_on_node(node).cloned().collect();
            for task in tasks.iter().filter(|task| task.ended.is_none()) {
                acted |= self.obey_one(node, task);
            }
        }
        acted
    }

    fn obey_one(&mut self, node: NodeId, task: &Task) -> bool {
        let state = self.view.task_state(task);
        let image = task.spec.container.image.as_str();
        let goal = match (task.desired, image) {
            (Desired::Shutdown | Desired::Remove, _) => TaskState::Shutdown,
            (Desired::Ready | Desired::Running, "reject") => TaskState::Rejected,
            (Desired::Ready, _) => TaskState::Ready,
            (Desired::Running, "crash") => TaskState::Failed,
            (Desired::Running, "done") if state == TaskState::Running => TaskState::Complete,
            (Desired::Running, "fail") if state == TaskState::Running => TaskState::Failed,
            (Desired::Running, "stuck") => TaskState::Starting,
            (Desired::Running, _) => TaskState::Running,
        };
        if goal.is_terminal() {
            self.end(task.id, goal, None);
        } else if state < goal {
            let at = *self.since.entry((task.id, goal)).or_insert(self.now.wall);
            let message = goal.name().to_owned();
            let report = TaskReport {
                unhealthy: false,
                restarts: 0,
                ports: Vec::new(),
                task: task.id,
                state: goal,
                at,
                message,
                err: None,
                container: None,
            };
            self.observe(Observation::Task { node, report });
        } else {
            return false;
        }
        true
    }

    /// Lets time pass; the cores run whenever they asked to.
    pub(crate) fn wait(&mut self, span: Duration) {
        self.settle();
        let (start, end) = (self.now.mono, self.now.mono + span);
        loop {
            let next = self.agenda.next_due().map_or(end, |due| due.min(end)).max(self.now.mono);
            let step = next.since(self.now.mono);
            self.now = Now { mono: next, wall: self.now.wall + step };
            let before = self.trace.len();
            self.settle();
            if self.trace.len() > before {
                self.trace.insert(before, format!("@{:?}", self.now.mono.since(start)));
            }
            if next == end {
                return;
            }
        }
    }

    /// The name of a task: `web.1`, and `web.1#2` for its slot's second.
    pub(crate) fn name(&self, task: TaskId) -> String {
        self.names.get(&task).cloned().unwrap_or_else(|| task.to_string())
    }

    pub(crate) fn node_name(&self, node: NodeId) -> String {
        self.nodes.iter().find(|(_, id)| **id == node).map_or_else(|| node.to_string(), |(name, _)| name.clone())
    }

    fn christen(&mut self, task: TaskId, service: ServiceId, slot: Slot) {
        let attempt = self.attempts.entry((service, slot)).or_default();
        *attempt += 1;
        let attempt = if *attempt == 1 { String::new() } else { format!("#{attempt}") };
        let service = self.view.state.service(service).map_or_else(String::new, |s| s.spec.name.clone());
        let slot = match slot {
            Slot::Replica(number) => number.to_string(),
            Slot::Node(node) => self.node_name(node),
        };
        self.names.insert(task, format!("{service}.{slot}{attempt}"));
    }

    fn tell(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::TaskCreate(new) = change {
                self.christen(new.id, new.service, new.slot);
            }
        }
        let lines: Vec<String> = changes.iter().map(|change| self.words(change)).collect();
        self.trace.extend(lines);
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "what the cores seldom or never plan is shown as it is")]
    fn words(&self, change: &Change) -> String {
        match change {
            Change::TaskCreate(new) => match new.gate {
                None => format!("+ {} {}", self.name(new.id), new.desired),
                Some(gate) => {
                    let after = gate.after.map_or(String::new(), |old| format!(" after {}", self.name(old)));
                    let delay = gate.not_before.since(self.now.wall);
                    format!("+ {} {} in {delay:?}{after}", self.name(new.id), new.desired)
                }
            },
            Change::TaskAssign { task, node, generic } => {
                let granted = generic_variables(generic).join(" ").replace("DOCKER_RESOURCE_", "");
                format!("{} -> {} {granted}", self.name(*task), self.node_name(*node)).trim_end().to_owned()
            }
            Change::TaskDesire { task, desired } => format!("{} {desired}", self.name(*task)),
            Change::TaskGate { task, gate } => {
                format!("{} opens in {:?}", self.name(*task), gate.not_before.since(self.now.wall))
            }
            Change::TaskEnd { task, ended } => {
                format!("{} ends: {} ({})", self.name(*task), ended.state, ended.message)
            }
            Change::TaskRemove { task } => format!("- {}", self.name(*task)),
            Change::ServiceProgress { service, update, .. } => {
                let name = self.view.state.service(*service).map_or("?", |service| &service.spec.name);
                format!("{name}: {:?}, {}", update.state, self.plain(&update.message))
            }
            Change::ServiceSettle { service, .. } => {
                let name = self.view.state.service(*service).map_or("?", |service| &service.spec.name);
                format!("{name}: nothing to update, it will not go back")
            }
            Change::ServiceRollback { service, by: RollbackBy::Updater { task, .. } } => {
                let name = self.view.state.service(*service).map_or("?", |service| &service.spec.name);
                format!("{name}: rolled back for {}", self.name(*task))
            }
            other => format!("{other:?}"),
        }
    }

    /// Tasks by their names.
    fn plain(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (id, name)| text.replace(&id.to_string(), name))
    }

    /// What is known of a service beside its tasks.
    pub(crate) fn service_line(&self, name: &str) -> String {
        let service = self.view.state.service_named(name).unwrap();
        let image = |spec: &ServiceSpec| format!("{} {:?}", spec.task.container.image, spec.mode);
        let previous = service.previous.as_ref().map_or_else(|| "nothing".to_owned(), |spec| image(spec));
        let update = service.update.as_ref();
        let update =
            update.map_or_else(|| "no update".to_owned(), |u| format!("{:?}, {}", u.state, self.plain(&u.message)));
        format!("{name}: {} before {previous}; {update}", image(&service.spec))
    }

    /// One line per task that has not ended: name, desired, observed, node.
    pub(crate) fn table(&self, all: bool) -> Vec<String> {
        let tasks = self.view.state.tasks().filter(|task| all || task.ended.is_none());
        let mut lines: Vec<String> = tasks
            .map(|task| {
                let node = task.node.map_or_else(|| "-".to_owned(), |node| self.node_name(node));
                let status = self.view.task_status(task);
                let err = status.err.map_or_else(String::new, |err| format!(" ({err})"));
                format!("{} wanted {} is {} on {node}{err}", self.name(task.id), task.desired, status.state)
            })
            .collect();
        lines.sort();
        lines
    }
}
