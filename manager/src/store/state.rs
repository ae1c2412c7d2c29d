//! The state: persistent maps, so that a snapshot is a clone.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use racimo_common::id::{DependencyId, NetworkId, NodeId, RandomId, ServiceId, TaskId};
use racimo_common::object::{Generics, Reservations};
use serde::{Deserialize, Serialize};

use super::generic;
use super::object::{
    Cluster, Dependency, DependencyKind, Network, Node, NodeFailures, Service, Slot, SlotHistory, Task, TaskSpec,
};
use super::trust::Access;
use crate::allocator::{Cursors, Holder, Ledger, Usage, address_of, needs_mesh};

/// Everything that is decided. Pure data; `super::apply` is the only writer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    pub(super) index: u64,
    /// The first entry of the log that this version could not read, and why.
    pub(super) unread: Option<(u64, String)>,
    pub(super) cluster: Option<Arc<Cluster>>,
    pub(super) nodes: OrdMap<NodeId, Arc<Node>>,
    pub(super) networks: OrdMap<NetworkId, Arc<Network>>,
    pub(super) services: OrdMap<ServiceId, Arc<Service>>,
    pub(super) tasks: OrdMap<TaskId, Arc<Task>>,
    pub(super) slots: OrdMap<(ServiceId, Slot), Arc<SlotHistory>>,
    pub(super) failures: OrdMap<(ServiceId, NodeId), Arc<NodeFailures>>,
    pub(super) dependencies: OrdMap<DependencyId, Arc<Dependency>>,
    pub(super) accesses: OrdMap<String, Arc<Access>>,
    // Indexes: rebuilt on load, never stored.
    pub(super) by_service: OrdSet<(ServiceId, TaskId)>,
    pub(super) by_node: OrdSet<(NodeId, TaskId)>,
    pub(super) by_name: OrdMap<String, ServiceId>,
    pub(super) dependency_names: OrdMap<(DependencyKind, String), DependencyId>,
    /// What the network has given out; only where its searches go on is stored.
    pub(super) ledger: Ledger,
}

impl State {
    /// Index of the last command that took effect.
    pub fn index(&self) -> u64 {
        self.index
    }
    /// The first entry of the log that this version could not read, and why; then the state is not to be used.
    pub fn unread(&self) -> Option<&(u64, String)> {
        self.unread.as_ref()
    }
    /// The cluster, if there is one.
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref()
    }
    /// One node.
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }
    /// One network.
    pub fn network(&self, id: NetworkId) -> Option<&Arc<Network>> {
        self.networks.get(&id)
    }
    /// The network with this name. There are few: they are looked through.
    pub fn network_named(&self, name: &str) -> Option<&Arc<Network>> {
        self.networks.values().find(|network| network.spec.name == name)
    }
    /// One service.
    pub fn service(&self, id: ServiceId) -> Option<&Arc<Service>> {
        self.services.get(&id)
    }
    /// One task.
    pub fn task(&self, id: TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(&id)
    }
    /// The service with this name, compared without case.
    pub fn service_named(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.get(self.by_name.get(&name.to_lowercase())?)
    }
    /// One secret or config.
    pub fn dependency(&self, id: DependencyId) -> Option<&Arc<Dependency>> {
        self.dependencies.get(&id)
    }
    /// The secret or config with this name, compared without case.
    pub fn dependency_named(&self, kind: DependencyKind, name: &str) -> Option<&Arc<Dependency>> {
        self.dependencies.get(self.dependency_names.get(&(kind, name.to_lowercase()))?)
    }
    /// All secrets and configs by id.
    pub fn dependencies(&self) -> impl Iterator<Item = &Arc<Dependency>> {
        self.dependencies.values()
    }
    /// Who may use the API from afar, by name.
    pub fn access(&self, name: &str) -> Option<&Arc<Access>> {
        self.accesses.get(name)
    }
    /// All who may use the API from afar, by name.
    pub fn accesses(&self) -> impl Iterator<Item = &Arc<Access>> {
        self.accesses.values()
    }
    /// All nodes by id.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }
    /// All networks by id.
    pub fn networks(&self) -> impl Iterator<Item = &Arc<Network>> {
        self.networks.values()
    }
    /// All services by id.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }
    /// The mesh between the boards, if there is one.
    pub fn ingress(&self) -> Option<&Arc<Network>> {
        self.networks.get(&self.ledger.mesh()?)
    }
    /// What is wrong with a node that came, or moved, to an address within the subnet of a network that was there
    /// first: tasks on that network do not reach it. None: nothing.
    pub fn hidden_by(&self, node: &Node) -> Option<String> {
        let addresses = [address_of(&node.addr), node.description.data_address];
        addresses.into_iter().flatten().find_map(|address| {
            let network = self.networks.values().find(|network| network.subnet.contains(address))?;
            let (name, subnet) = (&network.spec.name, network.subnet);
            Some(format!("its address {address} is within the subnet of network {name} ({subnet})"))
        })
    }
    /// How many addresses of a network, or of a node's part of the mesh, are given; none: there is no such thing.
    pub fn addresses(&self, holder: Holder) -> Option<Usage> {
        self.ledger.usage(holder)
    }
    /// Whether tasks of this spec have an address in their board's part of the mesh.
    pub fn needs_mesh(&self, spec: &TaskSpec) -> bool {
        needs_mesh(spec, |id| self.networks.get(&id).is_some_and(|network| network.spec.internal))
    }
    /// All tasks by id.
    pub fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.values()
    }
    /// How many tasks there are.
    pub fn task_count(&self) -> usize {
        self.tasks.len()
    }
    /// The tasks of a service (ended ones too), by id.
    pub fn tasks_of_service(&self, service: ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        let all = (service, TaskId::from_bits(0))..=(service, TaskId::from_bits(u128::MAX));
        self.by_service.range(all).filter_map(|(_, task)| self.tasks.get(task))
    }
    /// The tasks on a node (ended ones too), by id.
    pub fn tasks_on_node(&self, node: NodeId) -> impl Iterator<Item = &Arc<Task>> {
        let all = (node, TaskId::from_bits(0))..=(node, TaskId::from_bits(u128::MAX));
        self.by_node.range(all).filter_map(|(_, task)| self.tasks.get(task))
    }
    /// What the node's tasks reserve; a task holds its reservation until it ended.
    pub fn reserved(&self, node: NodeId) -> Reservations {
        self.tasks_on_node(node).filter(|task| task.ended.is_none()).fold(Reservations::default(), |sum, task| {
            let more = task.spec.resources.reservations;
            Reservations { cpu: sum.cpu + more.cpu, memory: sum.memory + more.memory }
        })
    }
    /// The generic resources of a node that none of its tasks holds; a task holds its own until it ended.
    pub fn free_generic(&self, node: &Node) -> Generics {
        let held = self.tasks_on_node(node.id).filter(|task| task.ended.is_none()).map(|task| &task.generic);
        generic::free(&node.description.generic, held)
    }
    /// Restarts of a slot.
    pub fn slot_history(&self, service: ServiceId, slot: Slot) -> Option<&Arc<SlotHistory>> {
        self.slots.get(&(service, slot))
    }
    /// Restarts of a service, by slot.
    pub fn slots_of_service(&self, service: ServiceId) -> impl Iterator<Item = (Slot, &Arc<SlotHistory>)> {
        // Replicas come before nodes ([`Slot`]'s order).
        let all = (service, Slot::Replica(0))..=(service, Slot::Node(NodeId::from_bits(u128::MAX)));
        self.slots.range(all).map(|((_, slot), history)| (*slot, history))
    }
    /// Failures of a service on a node.
    pub fn node_failures(&self, service: ServiceId, node: NodeId) -> Option<&Arc<NodeFailures>> {
        self.failures.get(&(service, node))
    }

    /// Failures of a service, by node.
    pub fn failures_of_service(&self, service: ServiceId) -> impl Iterator<Item = (NodeId, &Arc<NodeFailures>)> {
        let all = (service, NodeId::from_bits(0))..=(service, NodeId::from_bits(u128::MAX));
        self.failures.range(all).map(|((_, node), failures)| (*node, failures))
    }

    /// As stored in a snapshot: tasks name their spec by its place in a list, so that it is stored once.
    pub(super) fn to_stored(&self) -> Stored {
        let mut specs: Vec<Arc<TaskSpec>> = Vec::new();
        let mut places: BTreeMap<*const TaskSpec, usize> = BTreeMap::new();
        let tasks = self.tasks.values().map(|task| {
            let place = *places.entry(Arc::as_ptr(&task.spec)).or_insert_with(|| {
                specs.push(task.spec.clone());
                specs.len() - 1
            });
            (place, task.clone())
        });
        let tasks = tasks.collect();
        Stored {
            index: self.index,
            cluster: self.cluster.as_deref().cloned(),
            nodes: self.nodes.values().cloned().collect(),
            networks: self.networks.values().cloned().collect(),
            services: self.services.values().cloned().collect(),
            specs,
            tasks,
            slots: self.slots.iter().map(|(k, v)| (*k, v.clone())).collect(),
            failures: self.failures.iter().map(|(k, v)| (*k, v.clone())).collect(),
            dependencies: self.dependencies.values().cloned().collect(),
            accesses: self.accesses.values().cloned().collect(),
            cursors: self.ledger.cursors(),
        }
    }

    /// Rebuilds the indexes. `None`: a task names a spec that is not there.
    pub(super) fn from_stored(stored: Stored) -> Option<Self> {
        let mut state = State {
            index: stored.index,
            cluster: stored.cluster.map(Arc::new),
            nodes: stored.nodes.into_iter().map(|n| (n.id, n)).collect(),
            networks: stored.networks.into_iter().map(|n| (n.id, n)).collect(),
            services: stored.services.into_iter().map(|s| (s.id, s)).collect(),
            slots: stored.slots.into_iter().collect(),
            failures: stored.failures.into_iter().collect(),
            dependencies: stored.dependencies.into_iter().map(|d| (d.id, d)).collect(),
            accesses: stored.accesses.into_iter().map(|a| (a.name.clone(), a)).collect(),
            ..State::default()
        };
        for dependency in state.dependencies.values() {
            let key = (dependency.kind, dependency.name.to_lowercase());
            state.dependency_names.insert(key, dependency.id);
        }
        for service in state.services.values() {
            state.by_name.insert(service.spec.name.to_lowercase(), service.id);
        }
        for (place, task) in stored.tasks {
            let mut task = Arc::unwrap_or_clone(task);
            task.spec = stored.specs.get(place)?.clone();
            state.by_service.insert((task.service, task.id));
            if let Some(node) = task.node {
                state.by_node.insert((node, task.id));
            }
            state.tasks.insert(task.id, Arc::new(task));
        }
        state.rebuild_ledger(&stored.cursors);
        Some(state)
    }

    /// What is given out, from those who have it.
    fn rebuild_ledger(&mut self, cursors: &Cursors) {
        let mut ledger = Ledger::default();
        self.networks.values().for_each(|network| ledger.open_network(network));
        for (node, part) in self.nodes.values().filter_map(|node| Some((node.id, node.mesh?))) {
            ledger.open_part(node, part);
        }
        for service in self.services.values() {
            for endpoint in [Some(&service.endpoint), service.held.as_ref()].into_iter().flatten() {
                ledger.note_endpoint(service.id, endpoint);
            }
        }
        for task in self.tasks.values().filter(|task| task.ended.is_none()) {
            let Some(node) = task.node else { continue };
            ledger.note_task(node, &task.addresses);
        }
        ledger.resume(cursors);
        self.ledger = ledger;
    }
}

/// A snapshot's content.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stored {
    index: u64,
    cluster: Option<Cluster>,
    nodes: Vec<Arc<Node>>,
    #[serde(default)]
    networks: Vec<Arc<Network>>,
    services: Vec<Arc<Service>>,
    specs: Vec<Arc<TaskSpec>>,
    /// Each with its spec's place in `specs`.
    tasks: Vec<(usize, Arc<Task>)>,
    slots: Vec<((ServiceId, Slot), Arc<SlotHistory>)>,
    failures: Vec<((ServiceId, NodeId), Arc<NodeFailures>)>,
    #[serde(default)]
    dependencies: Vec<Arc<Dependency>>,
    #[serde(default)]
    accesses: Vec<Arc<Access>>,
    #[serde(default)]
    cursors: Cursors,
}

#[cfg(test)]
impl Stored {
    /// As a damaged snapshot might have it.
    pub(super) fn forget_specs(&mut self) {
        self.specs.clear();
    }
}
