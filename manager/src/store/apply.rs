//! The one writer of [`State`]: validates a command, then applies all of it or nothing.
//!
//! In: the state, an index, a [`Command`]. Out: the next state and its [`Event`]s, or a [`Refusal`].
//! No clock, chance or IO: the same log gives the same state everywhere.

use std::sync::Arc;

use racimo_common::id::{NodeId, ServiceId, TaskId};
use racimo_common::object::{Availability, Desired, Generics, TaskState};
use racimo_common::time::Wall;

use super::change::{Change, Command, NewTask, Refusal, RollbackBy};
use super::event::Event;
use super::generic;
use super::object::{
    Addresses, Cluster, Ended, Gate, INGRESS, JobStatus, Meta, NetworkSpec, Node, NodeFailures, RestartPolicy, Service,
    ServiceSpec, Slot, SlotHistory, Task, UpdateState, UpdateStatus, WrittenOff,
};
use super::state::State;
use super::trust::Trust;
use crate::limits;

impl State {
    /// The state after `command`, which gets `index`, and what changed; or why not.
    pub fn apply(&self, index: u64, command: &Command) -> Result<(State, Vec<Event>), Refusal> {
        let mut next = self.clone();
        next.index = index;
        let mut step = Step { state: next, at: command.at, events: Vec::new() };
        for change in &command.changes {
            step.change(change)?;
        }
        Ok((step.state, step.events))
    }
}

pub(super) struct Step {
    pub(super) state: State,
    pub(super) at: Wall,
    pub(super) events: Vec<Event>,
}

pub(super) fn not_found(kind: &'static str, id: impl ToString) -> Refusal {
    Refusal::NotFound { kind, id: id.to_string() }
}

impl Step {
    pub(super) fn new_meta(&self) -> Meta {
        Meta { version: self.state.index, created: self.at, updated: self.at }
    }

    pub(super) fn touch(&self, meta: Meta) -> Meta {
        Meta { version: self.state.index, created: meta.created, updated: self.at }
    }

    pub(super) fn node(&self, id: NodeId) -> Result<Arc<Node>, Refusal> {
        self.state.nodes.get(&id).cloned().ok_or_else(|| not_found("node", id))
    }

    fn service(&self, id: ServiceId) -> Result<Arc<Service>, Refusal> {
        self.state.services.get(&id).cloned().ok_or_else(|| not_found("service", id))
    }

    fn task(&self, id: TaskId) -> Result<Arc<Task>, Refusal> {
        self.state.tasks.get(&id).cloned().ok_or_else(|| not_found("task", id))
    }

    pub(super) fn put_node(&mut self, mut node: Node) {
        node.meta = self.touch(node.meta);
        let (id, node) = (node.id, Arc::new(node));
        let old = self.state.nodes.insert(id, node.clone());
        self.events.push(Event::Node { id, old, new: Some(node) });
    }

    fn put_service(&mut self, mut service: Service) {
        service.meta = self.touch(service.meta);
        let (id, service) = (service.id, Arc::new(service));
        let old = self.state.services.insert(id, service.clone());
        self.events.push(Event::Service { id, old, new: Some(service) });
    }

    fn put_task(&mut self, mut task: Task) {
        task.meta = self.touch(task.meta);
        let (id, task) = (task.id, Arc::new(task));
        self.state.by_service.insert((task.service, id));
        if let Some(node) = task.node {
            self.state.by_node.insert((node, id));
        }
        let old = self.state.tasks.insert(id, task.clone());
        self.events.push(Event::Task { id, old, new: Some(task) });
    }

    fn drop_task(&mut self, task: &Arc<Task>) {
        self.state.tasks.remove(&task.id);
        self.state.by_service.remove(&(task.service, task.id));
        if let Some(node) = task.node {
            self.state.by_node.remove(&(node, task.id));
        }
        self.events.push(Event::Task { id: task.id, old: Some(task.clone()), new: None });
    }

    fn change(&mut self, change: &Change) -> Result<(), Refusal> {
        match change {
            Change::ClusterCreate(new) => {
                if self.state.cluster.is_some() {
                    return Err(Refusal::ClusterExists);
                }
                self.state.cluster = Some(Arc::new(Cluster {
                    id: new.id,
                    meta: self.new_meta(),
                    spec: new.spec.clone(),
                    root_pem: new.root_pem.clone(),
                    worker_secret: new.worker_secret.clone(),
                    manager_secret: new.manager_secret.clone(),
                    managers: new.managers.clone(),
                    net: new.net.clone(),
                    key_epoch: 0,
                    keys_rotated: self.at,
                    trust: Trust { key: new.key.clone(), ..Trust::default() },
                }));
                self.events.push(Event::Cluster);
                let ingress = NetworkSpec { name: INGRESS.to_owned(), ingress: true, ..NetworkSpec::default() };
                self.network_create(new.ingress, &ingress)
            }
            Change::ClusterUpdate { version, spec, worker_secret, manager_secret } => self.edit_cluster(|cluster| {
                if cluster.meta.version != *version {
                    return Err(Refusal::OutOfSequence);
                }
                cluster.spec = spec.clone();
                let changed = [worker_secret, manager_secret];
                for (secret, changed) in
                    [&mut cluster.worker_secret, &mut cluster.manager_secret].into_iter().zip(changed)
                {
                    if let Some(changed) = changed {
                        secret.clone_from(changed);
                    }
                }
                Ok(())
            }),
            Change::ClusterManagers(managers) => self.edit_cluster(|cluster| {
                cluster.managers.clone_from(managers);
                Ok(())
            }),
            Change::KeysTurn { epoch } => {
                let at = self.at;
                self.edit_cluster(|cluster| {
                    if cluster.key_epoch.checked_add(1) != Some(*epoch) {
                        return Err(Refusal::OutOfSequence);
                    }
                    (cluster.key_epoch, cluster.keys_rotated) = (*epoch, at);
                    Ok(())
                })
            }
            Change::RootKey(key) => self.root_key(key),
            Change::Signed(at) => self.signed(*at),
            Change::RotationBegin(rotation) => self.rotation_begin(rotation),
            Change::RotationReplace { rotation, cross_pem } => self.rotation_replace(rotation, cross_pem),
            Change::RotationFinish { tokens } => self.rotation_finish(tokens),
            Change::UnlockKey(key) => self.unlock_key(key.as_ref()),
            Change::UnlockKeyDrawn(key) => self.unlock_key_drawn(key),
            Change::UnlockKeyShown(key) => self.unlock_key_shown(key),
            Change::AccessCreate(access) => self.access_create(access),
            Change::AccessRemove { name } => self.access_remove(name),
            Change::ClusterLeave => self.leave(),
            Change::NodeCreate(new) => {
                if self.state.nodes.contains_key(&new.id) {
                    return Err(Refusal::NameTaken { kind: "node", name: new.id.to_string() });
                }
                // A node is its key: two boards that join with one would be one node twice.
                let same_key = |node: &&Arc<Node>| new.key_digest.is_some() && node.key_digest == new.key_digest;
                if let Some(twin) = self.state.nodes.values().find(same_key) {
                    return Err(Refusal::NameTaken { kind: "node", name: twin.id.to_string() });
                }
                let mesh = self.state.ledger.take_part(new.id);
                self.put_node(Node {
                    id: new.id,
                    meta: self.new_meta(),
                    spec: new.spec.clone(),
                    role: new.role,
                    key_digest: new.key_digest,
                    description: new.description.clone(),
                    addr: new.addr.clone(),
                    mesh,
                    written_off: None,
                    trust: None,
                    board: None,
                });
                Ok(())
            }
            Change::NodeUpdate { node, version, spec } => {
                let node = self.node(*node)?;
                if node.meta.version != *version {
                    return Err(Refusal::OutOfSequence);
                }
                self.put_node(Node { spec: spec.clone(), ..Arc::unwrap_or_clone(node) });
                Ok(())
            }
            Change::NodeDescribe { node, description, addr } => {
                let node = Arc::unwrap_or_clone(self.node(*node)?);
                self.put_node(Node { description: description.clone(), addr: addr.clone(), ..node });
                Ok(())
            }
            Change::NodeWriteOff { node, written_off } => {
                let node = Arc::unwrap_or_clone(self.node(*node)?);
                let written_off = Some(WrittenOff { at: self.at, ..written_off.clone() });
                self.put_node(Node { written_off, ..node });
                Ok(())
            }
            Change::NodeReadmit { node } => {
                let node = Arc::unwrap_or_clone(self.node(*node)?);
                self.put_node(Node { written_off: None, ..node });
                Ok(())
            }
            Change::NodeTrust { node, trust } => self.node_trust(*node, trust),
            Change::NodeBoard { node, board } => {
                let node = Arc::unwrap_or_clone(self.node(*node)?);
                self.put_node(Node { board: Some(*board), ..node });
                Ok(())
            }
            Change::NodeRemove { node } => self.node_remove(*node),
            Change::NetworkCreate { network, spec } => self.network_create(*network, spec),
            Change::NetworkRemove { network } => self.network_remove(*network),
            Change::ServiceCreate { service, spec } => self.service_create(*service, spec),
            Change::ServiceUpdate { service, version, spec } => self.service_update(*service, *version, spec),
            Change::ServiceRollback { service, by } => self.service_rollback(*service, *by),
            Change::ServiceProgress { service, revision, update } => {
                let service = Arc::unwrap_or_clone(self.service(*service)?);
                if service.revision != *revision {
                    return Err(Refusal::OutOfSequence);
                }
                let goes_on = update.state == UpdateState::Updating;
                let service = if goes_on { service } else { self.settle(service) };
                self.put_service(Service { update: Some(update.clone()), ..service });
                Ok(())
            }
            Change::ServiceSettle { service, revision } => {
                let service = Arc::unwrap_or_clone(self.service(*service)?);
                if service.revision != *revision {
                    return Err(Refusal::OutOfSequence);
                }
                let service = self.settle(service);
                self.put_service(service);
                Ok(())
            }
            Change::ServiceRemove { service } => self.service_remove(*service),
            Change::DependencyCreate(new) => self.dependency_create(new),
            Change::DependencyLabel { dependency, version, labels } => {
                self.dependency_label(*dependency, *version, labels)
            }
            Change::DependencyRemove { dependency } => self.dependency_remove(*dependency),
            Change::TaskCreate(new) => self.task_create(new),
            Change::TaskDesire { task, desired } => self.task_desire(*task, *desired),
            Change::TaskGate { task, gate } => {
                let task = Arc::unwrap_or_clone(self.task(*task)?);
                if task.gate.is_none() || task.desired != Desired::Ready {
                    return Err(Refusal::TaskMoved(task.id, "it is not waiting any more"));
                }
                self.put_task(Task { gate: Some(Gate { ..*gate }), ..task });
                Ok(())
            }
            Change::TaskAssign { task, node, generic } => self.task_assign(*task, *node, generic),
            Change::TaskEnd { task, ended } => self.task_end(*task, ended),
            Change::TaskRemove { task } => self.task_remove(*task),
        }
    }

    pub(super) fn edit_cluster(
        &mut self,
        edit: impl FnOnce(&mut Cluster) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut cluster = self.state.cluster.as_deref().cloned().ok_or(Refusal::NoCluster)?;
        edit(&mut cluster)?;
        cluster.meta = self.touch(cluster.meta);
        self.state.cluster = Some(Arc::new(cluster));
        self.events.push(Event::Cluster);
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Refusal> {
        if self.state.cluster.is_none() {
            return Err(Refusal::NoCluster);
        }
        let empty = State { index: self.state.index, ..State::default() };
        let left = std::mem::replace(&mut self.state, empty);
        self.events.push(Event::Cluster);
        let tasks = left.tasks.into_iter().map(|(id, task)| Event::Task { id, old: Some(task), new: None });
        self.events.extend(tasks);
        let services =
            left.services.into_iter().map(|(id, service)| Event::Service { id, old: Some(service), new: None });
        self.events.extend(services);
        let networks =
            left.networks.into_iter().map(|(id, network)| Event::Network { id, old: Some(network), new: None });
        self.events.extend(networks);
        let dependencies =
            left.dependencies.into_iter().map(|(id, old)| Event::Dependency { id, old: Some(old), new: None });
        self.events.extend(dependencies);
        self.events.extend(left.nodes.into_iter().map(|(id, node)| Event::Node { id, old: Some(node), new: None }));
        Ok(())
    }

    fn node_remove(&mut self, id: NodeId) -> Result<(), Refusal> {
        let node = self.node(id)?;
        let orphans: Vec<Arc<Task>> = self.state.tasks_on_node(id).cloned().collect();
        for task in orphans.iter().filter(|task| task.ended.is_none()) {
            let ended = Ended {
                state: TaskState::Orphaned,
                at: self.at,
                message: "node removed".to_owned(),
                err: None,
                container: None,
                exit_code: None,
            };
            self.task_end(task.id, &ended)?;
        }
        let stale: Vec<_> = self.state.failures.keys().filter(|(_, node)| *node == id).copied().collect();
        for key in stale {
            self.state.failures.remove(&key);
        }
        let stale: Vec<_> = self.state.slots.keys().filter(|(_, slot)| *slot == Slot::Node(id)).copied().collect();
        for key in stale {
            self.state.slots.remove(&key);
        }
        let part = node.mesh;
        self.state.nodes.remove(&id);
        self.events.push(Event::Node { id, old: Some(node), new: None });
        if let Some(part) = part {
            self.state.ledger.close_part(id, part);
            self.give_parts();
        }
        Ok(())
    }

    fn service_create(&mut self, id: ServiceId, spec: &Arc<ServiceSpec>) -> Result<(), Refusal> {
        let key = spec.name.to_lowercase();
        if self.state.by_name.contains_key(&key) {
            return Err(Refusal::NameTaken { kind: "service", name: spec.name.clone() });
        }
        if self.state.services.contains_key(&id) {
            return Err(Refusal::NameTaken { kind: "service", name: id.to_string() });
        }
        self.networks_exist(&spec.task.networks)?;
        self.check_dependencies(&spec.task.container)?;
        let endpoint = self.give_endpoint(id, &spec.task, &[], None)?;
        self.state.by_name.insert(key, id);
        let (meta, revision) = (self.new_meta(), self.state.index);
        let job = self.new_iteration(spec);
        self.put_service(Service {
            id,
            meta,
            spec: spec.clone(),
            previous: None,
            revision,
            update: None,
            job,
            endpoint,
            held: None,
        });
        Ok(())
    }

    fn service_update(&mut self, id: ServiceId, version: u64, spec: &Arc<ServiceSpec>) -> Result<(), Refusal> {
        let old = Arc::unwrap_or_clone(self.service(id)?);
        if old.meta.version != version {
            return Err(Refusal::OutOfSequence);
        }
        if old.spec.name != spec.name {
            return Err(Refusal::Immutable("renaming services is not supported"));
        }
        if std::mem::discriminant(&old.spec.mode) != std::mem::discriminant(&spec.mode) {
            return Err(Refusal::Immutable("service mode change is not allowed"));
        }
        self.check_dependencies(&spec.task.container)?;
        if old.spec.task.networks != spec.task.networks {
            self.networks_exist(&spec.task.networks)?;
        }
        // Any write ends a pause and forgets an old update: what is still to do starts a new one (reference §5).
        let hold = self.may_go_back(&old, spec).then(|| old.endpoint.clone());
        let earlier = [Some(&old.endpoint), old.held.as_ref()];
        let endpoint = self.give_endpoint(id, &spec.task, &earlier, hold.as_ref())?;
        let service = Service { previous: Some(old.spec.clone()), update: None, endpoint, held: hold, ..old };
        self.put_spec(service, spec);
        Ok(())
    }

    fn service_rollback(&mut self, id: ServiceId, by: RollbackBy) -> Result<(), Refusal> {
        let old = Arc::unwrap_or_clone(self.service(id)?);
        let current = match by {
            RollbackBy::User { version } => old.meta.version == version,
            RollbackBy::Updater { revision, .. } => old.revision == revision,
        };
        if !current {
            return Err(Refusal::OutOfSequence);
        }
        let spec = old.previous.clone().ok_or(Refusal::NoPrevious(id))?;
        // While an update runs it holds the networks of the spec before: the updater can always go back.
        if let RollbackBy::User { .. } = by {
            self.networks_exist(&spec.task.networks)?;
            self.check_dependencies(&spec.task.container)?;
        }
        // A rollback by the updater goes on with the update's time; one by a user begins anew (SwarmKit).
        let (previous, started, message) = match by {
            RollbackBy::User { .. } => (Some(old.spec.clone()), self.at, "manually requested rollback".to_owned()),
            RollbackBy::Updater { task, .. } => {
                let message = format!("update rolled back due to failure or early termination of task {task}");
                (None, old.update.as_ref().map_or(self.at, |update| update.started), message)
            }
        };
        let update =
            UpdateStatus { state: UpdateState::RollbackStarted, started, completed: None, message, failures: 0 };
        // A job has no update: its new iteration says it all.
        let update = (!spec.mode.is_job()).then_some(update);
        // It is not gone back from: nothing is held for the spec that it leaves.
        let earlier = [old.held.as_ref(), Some(&old.endpoint)];
        let endpoint = self.give_endpoint(id, &spec.task, &earlier, None)?;
        self.put_spec(Service { previous, update, endpoint, held: None, ..old }, &spec);
        Ok(())
    }

    /// Gives the service its new spec: a new revision if tasks have to be replaced. A job's every spec is a new
    /// iteration, and a revision: its restarts are counted anew.
    fn put_spec(&mut self, service: Service, spec: &Arc<ServiceSpec>) {
        let same_task = service.spec.task == spec.task;
        // An unchanged task spec keeps its one allocation, which all tasks share.
        let spec = if same_task {
            Arc::new(ServiceSpec { task: service.spec.task.clone(), ..(**spec).clone() })
        } else {
            spec.clone()
        };
        let same_revision = same_task && !spec.mode.is_job();
        let revision = if same_revision { service.revision } else { self.state.index };
        let job = self.new_iteration(&spec);
        self.put_service(Service { spec, revision, job, ..service });
    }

    /// Every spec of a job runs it anew.
    fn new_iteration(&self, spec: &ServiceSpec) -> Option<JobStatus> {
        spec.mode.is_job().then_some(JobStatus { iteration: self.state.index, started: self.at })
    }

    fn service_remove(&mut self, id: ServiceId) -> Result<(), Refusal> {
        let service = self.service(id)?;
        let tasks: Vec<Arc<Task>> = self.state.tasks_of_service(id).cloned().collect();
        for task in tasks {
            if task.ended.is_some() || task.node.is_none() {
                self.drop_task(&task);
            } else {
                self.put_task(Task { desired: Desired::Remove, gate: None, ..Arc::unwrap_or_clone(task) });
            }
        }
        let slots: Vec<Slot> = self.state.slots_of_service(id).map(|(slot, _)| slot).collect();
        for slot in slots {
            self.state.slots.remove(&(id, slot));
        }
        let failures: Vec<NodeId> = self.state.failures_of_service(id).map(|(node, _)| node).collect();
        for node in failures {
            self.state.failures.remove(&(id, node));
        }
        self.state.by_name.remove(&service.spec.name.to_lowercase());
        for endpoint in [Some(&service.endpoint), service.held.as_ref()].into_iter().flatten() {
            self.state.ledger.give_back_endpoint(id, endpoint);
        }
        self.state.services.remove(&id);
        self.events.push(Event::Service { id, old: Some(service), new: None });
        Ok(())
    }

    fn task_create(&mut self, new: &NewTask) -> Result<(), Refusal> {
        let service = self.service(new.service)?;
        if service.revision != new.revision {
            return Err(Refusal::OutOfSequence);
        }
        if self.state.tasks.contains_key(&new.id) {
            return Err(Refusal::TaskMoved(new.id, "the id is taken"));
        }
        if new.desired > Desired::Running {
            return Err(Refusal::TaskMoved(new.id, "a new task must be wanted"));
        }
        let addresses = match new.node {
            Some(node) => self.give_addresses(new.id, &service.spec.task, &*self.node(node)?)?,
            None => Addresses::default(),
        };
        if new.restart_of.is_some() {
            self.count_restart(new, &service.spec.task.restart);
        }
        self.put_task(Task {
            id: new.id,
            meta: self.new_meta(),
            service: new.service,
            service_name: service.spec.name.as_str().into(),
            slot: new.slot,
            spec: service.spec.task.clone(),
            revision: new.revision,
            iteration: service.job.map_or(0, |job| job.iteration),
            generic: Generics::new(),
            desired: new.desired,
            gate: new.gate.filter(|_| new.desired == Desired::Ready),
            node: new.node,
            addresses,
            ended: None,
        });
        Ok(())
    }

    fn count_restart(&mut self, new: &NewTask, policy: &RestartPolicy) {
        let key = (new.service, new.slot);
        let mut history = self.state.slots.get(&key).map(|h| (**h).clone()).unwrap_or_default();
        if history.revision != new.revision {
            history = SlotHistory { revision: new.revision, ..SlotHistory::default() };
        }
        history.restarts += 1;
        let most = match (policy.attempts_max(), policy.window()) {
            (Some(most), Some(_)) => usize::try_from(most).unwrap_or(usize::MAX).min(limits::RESTART_TIMES_MAX),
            (Some(_) | None, Some(_) | None) => 1,
        };
        push_bounded(&mut history.times, self.at, most);
        self.state.slots.insert(key, Arc::new(history));
    }

    fn task_desire(&mut self, id: TaskId, desired: Desired) -> Result<(), Refusal> {
        let task = Arc::unwrap_or_clone(self.task(id)?);
        if desired < task.desired {
            return Err(Refusal::TaskMoved(id, "its desired state does not go back"));
        }
        if desired == Desired::Remove && (task.ended.is_some() || task.node.is_none()) {
            self.drop_task(&Arc::new(task));
            return Ok(());
        }
        let gate = if desired == Desired::Ready { task.gate } else { None };
        // No agent will report its end. (Judged here, because the scheduler may have assigned it meanwhile.)
        let never_ran = desired == Desired::Shutdown && task.node.is_none() && task.ended.is_none();
        let ended = if never_ran { Some(self.shut_down()) } else { task.ended };
        self.put_task(Task { desired, gate, ended, ..task });
        Ok(())
    }

    fn shut_down(&self) -> Ended {
        let (state, message) = (TaskState::Shutdown, "shutdown".to_owned());
        Ended { state, at: self.at, message, err: None, container: None, exit_code: None }
    }

    fn task_assign(&mut self, id: TaskId, node_id: NodeId, granted: &Generics) -> Result<(), Refusal> {
        let task = Arc::unwrap_or_clone(self.task(id)?);
        if task.ended.is_some() || task.desired > Desired::Running {
            return Err(Refusal::TaskMoved(id, "it is not wanted any more"));
        }
        if task.node.is_some_and(|n| n != node_id) {
            return Err(Refusal::TaskMoved(id, "it has a node already"));
        }
        let node = self.node(node_id)?;
        if node.written_off.is_some() {
            return Err(Refusal::NodeUnfit(node_id, "it is down"));
        }
        if node.spec.availability != Availability::Active {
            return Err(Refusal::NodeUnfit(node_id, "it takes no new tasks"));
        }
        if task.node.is_none() {
            let (used, want, has) = (self.state.reserved(node_id), task.spec.resources.reservations, node.capacity());
            if used.cpu + want.cpu > has.cpu && !want.cpu.is_zero()
                || used.memory + want.memory > has.memory && !want.memory.is_zero()
            {
                return Err(Refusal::NodeUnfit(node_id, "its resources are taken"));
            }
            if !generic::answers(granted, &task.spec.resources.generic) {
                return Err(Refusal::TaskMoved(id, "its generic resources are not those it asks for"));
            }
            if !generic::take(&mut self.state.free_generic(&node), granted) {
                return Err(Refusal::NodeUnfit(node_id, "its generic resources are taken"));
            }
            let addresses = self.give_addresses(id, &task.spec, &node)?;
            self.put_task(Task { node: Some(node_id), generic: granted.clone(), addresses, ..task });
        }
        Ok(())
    }

    fn task_end(&mut self, id: TaskId, ended: &Ended) -> Result<(), Refusal> {
        let task = self.task(id)?;
        if task.ended.is_some() {
            return Err(Refusal::TaskMoved(id, "it has ended already"));
        }
        if !ended.state.is_terminal() {
            return Err(Refusal::TaskMoved(id, "that is not an end"));
        }
        if let (TaskState::Failed | TaskState::Rejected, Some(node)) = (ended.state, task.node) {
            self.count_failure(&task, node);
        }
        if let Some(node) = task.node {
            self.state.ledger.give_back_task(node, &task.addresses);
        }
        let ended = Ended { at: self.at, ..ended.clone() };
        let forget = task.desired == Desired::Remove;
        // The gate stays: a task that fails while it waits is not replaced before its delay has passed.
        let task = Task { ended: Some(ended), ..Arc::unwrap_or_clone(task) };
        self.put_task(task);
        if forget {
            let task = self.task(id)?;
            self.drop_task(&task);
        }
        Ok(())
    }

    fn count_failure(&mut self, task: &Task, node: NodeId) {
        if !self.state.services.contains_key(&task.service) {
            return;
        }
        let key = (task.service, node);
        let mut failures = self.state.failures.get(&key).map(|f| (**f).clone()).unwrap_or_default();
        if failures.revision != task.revision {
            failures = NodeFailures { revision: task.revision, ..NodeFailures::default() };
        }
        push_bounded(&mut failures.times, self.at, limits::FAILURE_TIMES_MAX);
        self.state.failures.insert(key, Arc::new(failures));
    }

    fn task_remove(&mut self, id: TaskId) -> Result<(), Refusal> {
        let task = self.task(id)?;
        let unassigned_unwanted = task.node.is_none() && task.desired > Desired::Running;
        if task.ended.is_none() && !unassigned_unwanted {
            return Err(Refusal::TaskMoved(id, "it has not ended"));
        }
        self.drop_task(&task);
        Ok(())
    }
}

fn push_bounded(times: &mut Vec<Wall>, at: Wall, most: usize) {
    times.push(at);
    times.drain(..times.len().saturating_sub(most));
}
