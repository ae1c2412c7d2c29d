//! The scheduler: chooses a node for every task that waits for one.
//!
//! ```text
//! waiting tasks ─▶ groups (service, revision) ─▶ filter ─▶ rank ─▶ place ─▶ TaskAssign | why it waits
//! ```
//! [`step`] is pure; [`run()`] is its shell. A node's room is counted once per step and kept up to date as tasks
//! are placed, so that one task costs O(log nodes).

pub mod constraint;
mod filter;
mod place;
mod rank;
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use racimo_common::id::{NetworkId, NodeId, ServiceId, TaskId};
use racimo_common::object::{Availability, Desired, Generics};
use racimo_common::time::Now;

use crate::allocator::{Holder, Usage};
use crate::limits::SCHEDULER_PLAN_MAX;
use crate::store::{Attachment, Change, Event, NodeStatus, Observation, Refusal, Service, Slot, Task, View};

pub use run::run;

use filter::{Ask, Refusals, Room};

/// Tasks that wait for a node.
#[derive(Debug, Clone, Default)]
pub struct Waiting {
    tasks: BTreeSet<TaskId>,
}

impl Waiting {
    /// Every task that waits.
    pub fn all(view: &View) -> Self {
        Self { tasks: view.state.tasks().filter(|task| waits(task)).map(|task| task.id).collect() }
    }

    /// Follows the state. True: the event may change what can be placed.
    pub fn take(&mut self, event: &Event) -> bool {
        match event {
            Event::Task { id, old, new } => {
                let waits = new.as_ref().is_some_and(|task| waits(task));
                let waited = if waits { !self.tasks.insert(*id) } else { self.tasks.remove(id) };
                let on_node = |task: &Option<Arc<Task>>| {
                    task.as_ref().is_some_and(|task| task.node.is_some() && task.ended.is_none())
                };
                waits && !waited || on_node(old) && !on_node(new)
            }
            Event::Node { .. } | Event::NodeSeen(_) | Event::Network { .. } => true,
            // Virtual addresses came back.
            Event::Service { old, new, .. } => {
                let kept: Vec<_> = new.iter().flat_map(|service| vips(service)).collect();
                old.iter().flat_map(|service| vips(service)).any(|vip| !kept.contains(&vip))
            }
            Event::Cluster | Event::Dependency { .. } | Event::TaskSeen { .. } => false,
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// How many tasks wait.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }
}

/// What a service has of networks, by network.
fn vips(service: &Service) -> impl Iterator<Item = (NetworkId, Ipv4Addr)> {
    let endpoints = [Some(&service.endpoint), service.held.as_ref()].into_iter().flatten();
    endpoints.flat_map(|endpoint| &endpoint.vips).copied()
}

fn waits(task: &Task) -> bool {
    task.node.is_none() && task.ended.is_none() && task.desired <= Desired::Running
}

/// Why tasks wait that have any network: the mesh carries them all.
pub(crate) const NO_INGRESS: &str =
    "there is no ingress network: make one with `docker network create --driver overlay --ingress ingress`";

/// What the scheduler wants done.
#[derive(Debug, Default)]
pub struct Plan {
    /// Assignments; one transaction.
    pub assigns: Vec<Change>,
    /// Why tasks still wait, where that is news.
    pub waits: Vec<Observation>,
    /// There is more to place than fits into one plan: step again after the commit.
    pub more: bool,
}

/// Whether a node that may take tasks has not been heard of since the manager started.
pub fn awaits_nodes(view: &View) -> bool {
    let mut takers = view.state.nodes().filter(|node| node.has_agent());
    takers.any(|node| node.spec.availability == Availability::Active && view.node_status(node) == NodeStatus::Unknown)
}

/// Places what waits, as far as there is room. Same inputs, same plan.
pub fn step(view: &View, waiting: &Waiting, now: Now) -> Plan {
    let mut plan = Plan::default();
    let mut preassigned: Vec<Arc<Task>> = Vec::new();
    let mut groups: BTreeMap<(ServiceId, u64), Vec<Arc<Task>>> = BTreeMap::new();
    for task in waiting.tasks.iter().filter_map(|id| view.state.task(*id)).filter(|task| waits(task)) {
        match task.slot {
            Slot::Node(_) => preassigned.push(task.clone()),
            Slot::Replica(_) => groups.entry((task.service, task.revision)).or_default().push(task.clone()),
        }
    }
    if preassigned.is_empty() && groups.is_empty() {
        return plan;
    }
    preassigned.sort_by_key(|task| (task.service, task.slot, task.id));
    let mut hall = Hall::new(view);
    // Tasks without room, by group: why is said when everything is placed, so that it holds.
    let mut left: Vec<&[Arc<Task>]> = Vec::new();
    for task in &preassigned {
        if let Slot::Node(node) = task.slot {
            if !hall.validate(view, task, node, &mut plan) {
                left.push(std::slice::from_ref(task));
            }
        }
    }
    groups.values_mut().for_each(|tasks| tasks.sort_by_key(|task| (task.slot, task.id)));
    for tasks in groups.values() {
        let placed = hall.place_group(view, tasks, now, &mut plan);
        left.push(&tasks[placed..]);
    }
    if !plan.more {
        for tasks in left {
            hall.explain(view, tasks, now, &mut plan);
        }
    }
    plan
}

/// All nodes and their room, by id.
struct Hall {
    rooms: Vec<Room>,
    /// Which rooms satisfy a list of constraints: services often share one.
    fits: BTreeMap<Vec<String>, Arc<[bool]>>,
    /// Wanted tasks of a service in each room, those of this plan included.
    counts: BTreeMap<ServiceId, Vec<u32>>,
    /// Addresses of overlay networks that this plan leaves free.
    addresses: BTreeMap<NetworkId, u64>,
}

impl Hall {
    fn new(view: &View) -> Self {
        let rooms = view.state.nodes().map(|node| Room::new(view, node)).collect();
        Self { rooms, fits: BTreeMap::new(), counts: BTreeMap::new(), addresses: BTreeMap::new() }
    }

    fn index(&self, node: NodeId) -> Option<usize> {
        self.rooms.binary_search_by_key(&node, |room| room.node.id).ok()
    }

    fn fits(&mut self, constraints: &[String]) -> Arc<[bool]> {
        if let Some(known) = self.fits.get(constraints) {
            return known.clone();
        }
        // Constraints were checked by the API; one that cannot be read fits nowhere.
        let parsed = constraint::parse_all(constraints);
        let fit = |room: &Room| parsed.as_ref().is_ok_and(|parsed| constraint::matches_all(parsed, &room.node));
        let fits: Arc<[bool]> = self.rooms.iter().map(fit).collect();
        self.fits.insert(constraints.to_vec(), fits.clone());
        fits
    }

    /// Wanted tasks of a service in each room; whoever places one puts them back with it.
    fn take_counts(&mut self, view: &View, service: ServiceId) -> Vec<u32> {
        self.counts.remove(&service).unwrap_or_else(|| {
            let mut counts = vec![0; self.rooms.len()];
            for task in view.state.tasks_of_service(service).filter(|task| counts_as_active(task)) {
                if let Some(index) = task.node.and_then(|node| self.index(node)) {
                    counts[index] += 1;
                }
            }
            counts
        })
    }

    /// Takes an address on each of these networks; takes none if one of them has none left.
    fn take_addresses(&mut self, view: &View, networks: &[Attachment]) -> bool {
        let mut left = Vec::new();
        for id in networks.iter().map(|attachment| attachment.network) {
            let known = || view.state.addresses(Holder::Network(id)).map_or(0, Usage::free);
            let free = left.iter().rev().find(|(other, _)| *other == id).map(|(_, free)| *free);
            let free: u64 = free.unwrap_or_else(|| self.addresses.get(&id).copied().unwrap_or_else(known));
            let Some(free) = free.checked_sub(1) else { return false };
            left.push((id, free));
        }
        self.addresses.extend(left);
        true
    }

    /// Gives back what [`Self::take_addresses`] took.
    fn leave_addresses(&mut self, networks: &[Attachment]) {
        for attachment in networks {
            self.addresses.entry(attachment.network).and_modify(|free| *free += 1);
        }
    }

    /// Why no node could have the task: an overlay network that is full, or no mesh.
    fn no_network(&self, view: &View, ask: &Ask<'_>) -> Option<String> {
        if ask.any_network() && view.state.ingress().is_none() {
            return Some(NO_INGRESS.to_owned());
        }
        ask.networks.iter().find_map(|attachment| {
            let id = attachment.network;
            let usage = view.state.addresses(Holder::Network(id))?;
            let free = self.addresses.get(&id).copied().unwrap_or(usage.free());
            let network = view.state.network(id).filter(|_| free == 0)?;
            let usage = Usage { used: usage.all, ..usage };
            let refusal = Refusal::NoAddress { name: network.spec.name.clone(), subnet: network.subnet, usage };
            Some(refusal.to_string())
        })
    }

    /// A task of a global service: its node is chosen, only its fitness is judged. Whether it has its place.
    fn validate(&mut self, view: &View, task: &Arc<Task>, node: NodeId, plan: &mut Plan) -> bool {
        let ask = Ask::of(&view.state, &task.spec);
        let Some(index) = self.index(node) else { return false };
        if plan.is_full() {
            return false;
        }
        let fits = self.fits(&task.spec.placement.constraints);
        let mut counts = self.take_counts(view, task.service);
        let fits = ask.judge(&self.rooms[index], fits[index], counts[index]).is_ok();
        let open = fits && self.take_addresses(view, ask.networks);
        if open {
            let generic = self.rooms[index].take(&ask);
            counts[index] += 1;
            plan.assigns.push(Change::TaskAssign { task: task.id, node, generic });
        }
        self.counts.insert(task.service, counts);
        open
    }

    /// Places equal tasks; how many found room.
    fn place_group(&mut self, view: &View, tasks: &[Arc<Task>], now: Now, plan: &mut Plan) -> usize {
        let Some(first) = tasks.first() else { return 0 };
        let ask = Ask::of(&view.state, &first.spec);
        let fits = self.fits(&first.spec.placement.constraints);
        let mut counts = self.take_counts(view, first.service);
        let failures = rank::failures(view, first, now, self.rooms.len(), |node| self.index(node));
        let mut tree = place::Tree::new(&self.rooms, &first.spec.placement.preferences, &counts, |index| {
            let room = &self.rooms[index];
            let rank = rank::Rank { failures: failures[index], service: counts[index], total: room.active };
            ask.judge(room, fits[index], counts[index]).is_ok().then_some(rank)
        });
        let mut placed = 0;
        for task in tasks {
            if plan.is_full() {
                break;
            }
            if !self.take_addresses(view, ask.networks) {
                break;
            }
            let rooms = &mut self.rooms;
            let mut generic = Generics::new();
            let chosen = tree.place(|index| {
                let open = ask.judge(&rooms[index], fits[index], counts[index]).is_ok();
                if open {
                    generic = rooms[index].take(&ask);
                    counts[index] += 1;
                }
                open
            });
            let Some(index) = chosen else {
                self.leave_addresses(ask.networks);
                break;
            };
            plan.assigns.push(Change::TaskAssign { task: task.id, node: self.rooms[index].node.id, generic });
            placed += 1;
        }
        self.counts.insert(first.service, counts);
        placed
    }

    /// Says why tasks of a group still wait, where that is news.
    fn explain(&mut self, view: &View, tasks: &[Arc<Task>], now: Now, plan: &mut Plan) {
        let Some(first) = tasks.first() else { return };
        let ask = Ask::of(&view.state, &first.spec);
        let fits = self.fits(&first.spec.placement.constraints);
        let only = match first.slot {
            Slot::Node(node) => match self.index(node) {
                Some(index) => Some(index),
                None => return,
            },
            Slot::Replica(_) => None,
        };
        let counts = self.take_counts(view, first.service);
        let mut refusals = Refusals::default();
        for (index, room) in self.rooms.iter().enumerate().filter(|(index, _)| only.is_none_or(|only| only == *index)) {
            if let Err(refusal) = ask.judge(room, fits[index], counts[index]) {
                refusals.add(refusal, &room.node);
            }
        }
        let text = self.no_network(view, &ask).unwrap_or_else(|| refusals.text(&first.spec));
        let reason = match first.slot {
            Slot::Node(_) => text,
            Slot::Replica(_) if text.is_empty() => "no suitable node".to_owned(),
            Slot::Replica(_) => format!("no suitable node ({text})"),
        };
        for task in tasks {
            let known = view.seen.task(task.id).and_then(|status| status.err.as_ref());
            if known != Some(&reason) {
                let reason = Some(reason.clone());
                plan.waits.push(Observation::Waits { task: task.id, at: now.wall, reason });
            }
        }
    }
}

/// Whether the task counts for ranking and `replicas_max`: it is wanted and has not ended.
fn counts_as_active(task: &Task) -> bool {
    task.desired <= Desired::Running && task.ended.is_none()
}

impl Plan {
    /// Whether no more assignments fit in; then there is more to do.
    fn is_full(&mut self) -> bool {
        self.more |= self.assigns.len() >= SCHEDULER_PLAN_MAX;
        self.more
    }
}

#[cfg(test)]
mod tests {
    use racimo_common::id::IdSource;
    use racimo_common::object::Role;
    use racimo_common::time::Wall;

    use super::*;
    use crate::store::testing::{applied, network, new_cluster, new_service, service, spec};
    use crate::store::{Command, Endpoint, NewNode, NodeSpec, SeenNode, State, WrittenOff};

    /// A node of `role` with this availability; ready, written off, or neither.
    type Case = (Role, Availability, NodeStatus);

    #[track_caller]
    fn check_awaits(nodes: &[Case], want: bool) {
        let mut ids = IdSource::seeded(1);
        let mut view = View::default();
        for (role, availability, status) in nodes {
            let id = ids.draw();
            let new = NewNode {
                id,
                role: *role,
                spec: NodeSpec { availability: *availability, ..NodeSpec::default() },
                description: Arc::default(),
                addr: String::new(),
                key_digest: None,
            };
            let mut changes = vec![Change::NodeCreate(Box::new(new))];
            if *status == NodeStatus::Down {
                let written_off = WrittenOff { at: Wall::default(), reason: "cut".to_owned() };
                changes.push(Change::NodeWriteOff { node: id, written_off });
            }
            let command = Command { at: Wall::default(), changes };
            (view.state, _) = view.state.apply(view.version() + 1, &command).expect("applies");
            if *status == NodeStatus::Ready {
                let seen = SeenNode { ready: true, at: Wall::default() };
                view.seen.observe(&view.state, Observation::Node { node: id, seen });
            }
        }
        assert_eq!(awaits_nodes(&view), want, "{nodes:?}");
    }

    #[test]
    fn a_virtual_address_that_comes_back_wakes_the_waiting() {
        let (a, b) = (network(1), network(2));
        let state = applied(&State::default(), vec![new_cluster(), new_service(1, spec("web", "nginx", 1))]);
        let bare = state.service(service(1)).expect("web");
        let with = |vips: &[(NetworkId, u8)], held: Option<&[(NetworkId, u8)]>| {
            let endpoint = |vips: &[(NetworkId, u8)]| {
                let address = |number| Ipv4Addr::new(10, 0, 0, number);
                let vips = vips.iter().map(|(network, number)| (*network, address(*number))).collect();
                Endpoint { ports: Vec::new(), vips }
            };
            Some(Arc::new(Service { endpoint: endpoint(vips), held: held.map(endpoint), ..(**bare).clone() }))
        };
        #[track_caller]
        fn check(old: Option<Arc<Service>>, new: Option<Arc<Service>>, want: bool) {
            let event = Event::Service { id: service(1), old: old.clone(), new: new.clone() };
            assert_eq!(Waiting::default().take(&event), want, "{old:?} {new:?}");
        }
        check(None, with(&[(a, 2)], None), false);
        check(with(&[(a, 2)], None), with(&[(a, 2), (b, 2)], None), false);
        check(with(&[(a, 2)], None), None, true);
        check(with(&[(a, 2), (b, 2)], None), with(&[(b, 2)], None), true);
        // As many as before, but not the same.
        check(with(&[(a, 2)], None), with(&[(b, 2)], None), true);
        check(with(&[(a, 2)], None), with(&[(b, 2)], Some(&[(a, 2)])), false);
        check(with(&[(b, 2)], Some(&[(a, 2)])), with(&[(b, 2)], None), true);
        check(with(&[(b, 2)], Some(&[(a, 2)])), with(&[(a, 2)], None), true);
    }

    #[test]
    fn nodes_that_may_still_come_are_awaited() {
        use Availability::{Active, Drain, Pause};
        use NodeStatus::{Down, Ready, Unknown};
        use Role::{Manager, Worker};
        check_awaits(&[], false);
        check_awaits(&[(Worker, Active, Ready), (Worker, Active, Unknown)], true);
        check_awaits(&[(Worker, Active, Ready), (Worker, Active, Down)], false);
        check_awaits(&[(Worker, Drain, Unknown), (Worker, Pause, Unknown)], false);
        // It has no agent that could be heard.
        check_awaits(&[(Worker, Active, Ready), (Manager, Active, Unknown)], false);
    }
}
