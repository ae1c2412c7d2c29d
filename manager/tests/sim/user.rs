//! What users do: services come, change and go; nodes are drained, paused, labelled, removed and let in again.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use racimo_common::id::{IdSource, NodeId};
use racimo_common::object::{
    Availability, ContainerSpec, EndpointMode, HealthConfig, NodeDescription, Port, Reservations, Resources, Role,
};
use racimo_common::units::{Bytes, NanoCpus};
use racimo_manager::store::{
    Attachment, Change, FailureAction, Mode, NetworkSpec, NewNode, NodeSpec, Order, Placement, Ratio, RestartCondition,
    RestartPolicy, RollbackBy, Service, ServiceSpec, TaskSpec, UpdateConfig, UpdateState, View,
};

use crate::manager::{Manager, Waiter};
use crate::sim::{Happening, Sim};
use crate::world::World;

/// Services at once.
const SERVICES_MAX: usize = 5;
/// Networks at once, beside the mesh.
const NETWORKS_MAX: usize = 3;

/// A board like those of a shelf full of them.
pub(crate) fn describe(sim: &mut Sim, index: usize) -> NodeDescription {
    NodeDescription {
        hostname: format!("board{index}"),
        cpus: NanoCpus::new(sim.rng.u64(2..5) * 1_000_000_000),
        memory: Bytes::mib(sim.rng.u64(1..4) * 256 + 256),
        tasks_max: 128,
        data_address: Some(Ipv4Addr::new(192, 0, 2, u8::try_from(index + 1).unwrap_or(u8::MAX))),
        ..NodeDescription::default()
    }
}

fn labels(sim: &mut Sim) -> BTreeMap<String, String> {
    let zone = ["a", "b", "c"][sim.rng.usize(..3)];
    [("zone".to_owned(), zone.to_owned())].into()
}

fn image(sim: &mut Sim, job: bool) -> String {
    let kind = match sim.rng.u8(..20) {
        0..14 if job => "batch",
        0..12 => "good",
        12..16 => "flaky",
        16..18 => "job",
        _ => "bad",
    };
    format!("{kind}:{}", sim.rng.u8(..4))
}

/// Published ports, and some of the networks there are.
fn networks(sim: &mut Sim, view: &View, spec: &mut TaskSpec) {
    for network in view.state.networks().filter(|network| !network.spec.ingress) {
        if sim.chance(40) {
            spec.networks.push(Attachment { network: network.id, aliases: Vec::new() });
        }
    }
    spec.endpoint.mode = if sim.chance(30) { EndpointMode::Dnsrr } else { EndpointMode::Vip };
    if spec.endpoint.mode == EndpointMode::Vip && sim.chance(50) {
        let published = [0, 80, 81, 82][sim.rng.usize(..4)];
        spec.endpoint.ports = vec![Port { published, target: 8080, ..Port::default() }];
    }
}

fn task(sim: &mut Sim, view: &View, job: bool) -> TaskSpec {
    let some = |sim: &mut Sim, percent| sim.chance(percent);
    let mut spec = TaskSpec {
        container: ContainerSpec {
            image: image(sim, job),
            stop_grace: some(sim, 70).then(|| sim.span(0..4000)),
            ..ContainerSpec::default()
        },
        resources: Resources {
            reservations: Reservations {
                cpu: NanoCpus::new([0, 250_000_000, 500_000_000, 1_000_000_000][sim.rng.usize(..4)]),
                memory: Bytes::mib([0, 64, 128][sim.rng.usize(..3)]),
            },
            ..Resources::default()
        },
        restart: RestartPolicy { delay: Some(sim.span(0..5000)), ..RestartPolicy::default() },
        ..TaskSpec::default()
    };
    if some(sim, 15) {
        spec.restart.attempts_max = Some(sim.rng.u64(1..4));
        spec.restart.window = some(sim, 50).then(|| sim.span(1000..60_000));
    }
    if some(sim, 25) {
        spec.container.health = Some(HealthConfig {
            test: vec!["CMD".to_owned(), "true".to_owned()],
            interval: Some(sim.span(500..4000)),
            retries: Some(sim.rng.u32(1..4)),
            ..HealthConfig::default()
        });
    }
    if some(sim, 15) {
        spec.restart.condition = Some(RestartCondition::OnFailure);
    }
    if some(sim, 25) {
        spec.offline.lease = Some(sim.span(10_000..40_000));
    }
    spec.placement = placement(sim);
    networks(sim, view, &mut spec);
    spec
}

fn mode(sim: &mut Sim) -> Mode {
    match sim.rng.u8(..100) {
        0..20 => Mode::Global,
        20..35 => Mode::ReplicatedJob { concurrent_max: sim.rng.u64(1..4), completions: sim.rng.u64(1..7) },
        35..45 => Mode::GlobalJob,
        _ => Mode::Replicated { replicas: sim.rng.u64(1..6) },
    }
}

/// How a service is updated, or rolled back. It keeps that for life.
fn update(sim: &mut Sim) -> Option<UpdateConfig> {
    sim.chance(60).then(|| UpdateConfig {
        parallelism: sim.chance(50).then(|| sim.rng.u64(0..4)),
        delay: sim.chance(30).then(|| sim.span(0..3000)),
        monitor: sim.chance(50).then(|| sim.span(0..20_000)),
        failure_action: Some(match sim.rng.u8(..10) {
            0..6 => FailureAction::Rollback,
            6..8 => FailureAction::Continue,
            _ => FailureAction::Pause,
        }),
        failure_ratio: sim.chance(30).then(|| Ratio::new(0.3)).flatten(),
        order: sim.chance(15).then_some(Order::StartFirst),
    })
}

fn placement(sim: &mut Sim) -> Placement {
    let constraints = match sim.rng.u8(..10) {
        0 => vec!["node.labels.zone==a".to_owned()],
        1 => vec!["node.labels.zone!=b".to_owned()],
        2 => vec!["node.hostname!=board1".to_owned()],
        _ => Vec::new(),
    };
    let preferences = if sim.chance(30) { vec!["node.labels.zone".to_owned()] } else { Vec::new() };
    let replicas_max = if sim.chance(20) { sim.rng.u64(1..3) } else { 0 };
    Placement { constraints, preferences, replicas_max, ..Placement::default() }
}

/// A board is let in.
pub(crate) fn new_node(sim: &mut Sim, ids: &mut IdSource, description: &Arc<NodeDescription>) -> NewNode {
    NewNode {
        id: ids.draw(),
        role: Role::Worker,
        spec: NodeSpec { labels: labels(sim), ..NodeSpec::default() },
        description: description.clone(),
        addr: "board".to_owned(),
        key_digest: None,
    }
}

fn pick<T: Clone>(sim: &mut Sim, all: impl Iterator<Item = T>) -> Option<T> {
    let all: Vec<T> = all.collect();
    if all.is_empty() { None } else { Some(all[sim.rng.usize(..all.len())].clone()) }
}

impl World {
    /// One act of the user.
    pub(crate) fn user(&mut self) {
        if self.sim.calm {
            return;
        }
        let every = self.sim.knobs.user_every.clone();
        self.sim.within(every, Happening::User);
        let Some(manager) = &mut self.manager else { return };
        let view = manager.view.clone();
        let sim = &mut self.sim;
        let change = match sim.rng.u8(..100) {
            0..5 => network_act(sim, &mut self.ids, &view),
            5..55 => service_act(sim, &mut self.ids, &view),
            55..90 => node_act(sim, &view),
            _ => {
                let node = pick(sim, view.state.nodes().map(|node| node.id));
                node.map(|node| Change::NodeRemove { node })
            }
        };
        if let Some(change) = change {
            manager.commit(sim, vec![change], Waiter::User);
        }
        // A board whose node was removed is let in again after a while.
        for board in &self.boards {
            let member = board.node.is_some_and(|node| view.state.node(node).is_some());
            if !member && board.powered && sim.chance(40) {
                let new = new_node(sim, &mut self.ids, &board.description);
                let to = Waiter::Join(board.index, new.id);
                manager.commit(sim, vec![Change::NodeCreate(Box::new(new))], to);
            }
        }
    }

    /// What a user does once everything works again: every node active, every service with an image that runs.
    pub(crate) fn user_heals(&mut self) {
        let Some(manager) = &mut self.manager else { return };
        let view = manager.view.clone();
        let sim = &mut self.sim;
        for board in &self.boards {
            if board.node.is_none_or(|node| view.state.node(node).is_none()) {
                let new = new_node(sim, &mut self.ids, &board.description);
                let to = Waiter::Join(board.index, new.id);
                manager.commit(sim, vec![Change::NodeCreate(Box::new(new))], to);
            }
        }
        for node in view.state.nodes() {
            let mine = self.boards.iter().any(|board| board.node == Some(node.id));
            if !mine {
                manager.commit(sim, vec![Change::NodeRemove { node: node.id }], Waiter::User);
            } else if node.spec.availability != Availability::Active {
                let spec = NodeSpec { availability: Availability::Active, ..node.spec.clone() };
                update_node(manager, sim, node.id, node.meta.version, spec);
            }
        }
        for service in view.state.services() {
            heal_service(manager, sim, service);
        }
    }
}

fn update_node(manager: &mut Manager, sim: &mut Sim, node: NodeId, version: u64, spec: NodeSpec) {
    manager.commit(sim, vec![Change::NodeUpdate { node, version, spec }], Waiter::User);
}

/// A service that cannot settle by itself gets a spec with which it can.
fn heal_service(manager: &mut Manager, sim: &mut Sim, service: &Service) {
    let task = &service.spec.task;
    let paused = service
        .update
        .as_ref()
        .is_some_and(|update| matches!(update.state, UpdateState::Paused | UpdateState::RollbackPaused));
    let kind = if service.spec.mode.is_job() { "batch" } else { "good" };
    let good = task.container.image.starts_with(kind);
    let limited = task.restart.attempts_max.is_some() || task.restart.condition.is_some();
    if good && !limited && !paused {
        return;
    }
    let mut spec = (**task).clone();
    spec.container.image = format!("{kind}:9");
    spec.restart.attempts_max = None;
    spec.restart.condition = None;
    spec.force_update += 1;
    let spec = ServiceSpec { task: spec.into(), ..(*service.spec).clone() };
    let change = Change::ServiceUpdate { service: service.id, version: service.meta.version, spec: spec.into() };
    manager.commit(sim, vec![change], Waiter::User);
}

fn service_act(sim: &mut Sim, ids: &mut IdSource, view: &View) -> Option<Change> {
    let count = view.state.services().count();
    let act = sim.rng.u8(..11);
    if count == 0 || count < SERVICES_MAX && act < 3 {
        let name = (0..).map(|n| format!("s{n}")).find(|name| view.state.service_named(name).is_none())?;
        let mode = mode(sim);
        let (update, rollback) = if mode.is_job() { (None, None) } else { (update(sim), update(sim)) };
        let mut task = task(sim, view, mode.is_job());
        task.offline.lease.take_if(|_| starts_first([update, rollback]));
        let spec =
            ServiceSpec { name, labels: BTreeMap::new(), task: task.into(), mode, update, rollback, credentials: None };
        return Some(Change::ServiceCreate { service: ids.draw(), spec: spec.into() });
    }
    let service = pick(sim, view.state.services().cloned())?;
    if act == 9 {
        return Some(Change::ServiceRemove { service: service.id });
    }
    if act == 10 && service.previous.is_some() {
        let by = RollbackBy::User { version: service.meta.version };
        return Some(Change::ServiceRollback { service: service.id, by });
    }
    let job = service.spec.mode.is_job();
    let mut spec = (*service.spec).clone();
    let mut inner = (*spec.task).clone();
    match (sim.rng.u8(..8), &mut spec.mode) {
        (0..3, Mode::Replicated { replicas }) => *replicas = sim.rng.u64(0..7),
        (0..4, _) => inner.container.image = image(sim, job),
        (4, _) => inner.container.env = vec![format!("N={}", sim.rng.u8(..))],
        (5, _) => inner.placement = placement(sim),
        (6, _) => inner = task(sim, view, job),
        _ => inner.force_update += 1,
    }
    inner.offline.lease.take_if(|_| starts_first([spec.update, spec.rollback]));
    spec.task = inner.into();
    Some(Change::ServiceUpdate { service: service.id, version: service.meta.version, spec: spec.into() })
}

/// Two tasks of a slot run at once then, so the API refuses a lease.
fn starts_first(configs: [Option<UpdateConfig>; 2]) -> bool {
    configs.into_iter().flatten().any(|config| config.order() == Order::StartFirst)
}

fn network_act(sim: &mut Sim, ids: &mut IdSource, view: &View) -> Option<Change> {
    if view.state.networks().count() <= NETWORKS_MAX {
        let name = (0..).map(|n| format!("n{n}")).find(|name| view.state.network_named(name).is_none())?;
        let spec = NetworkSpec { name, internal: sim.chance(30), ..NetworkSpec::default() };
        return Some(Change::NetworkCreate { network: ids.draw(), spec });
    }
    // Refused while it is used. The mesh stays: without it nothing would settle.
    let overlays = view.state.networks().filter(|network| !network.spec.ingress);
    pick(sim, overlays.map(|network| network.id)).map(|network| Change::NetworkRemove { network })
}

fn node_act(sim: &mut Sim, view: &View) -> Option<Change> {
    let node = pick(sim, view.state.nodes().cloned())?;
    let mut spec = node.spec.clone();
    match sim.rng.u8(..10) {
        0..2 => spec.labels = labels(sim),
        2..5 => spec.availability = Availability::Drain,
        5 => spec.availability = Availability::Pause,
        _ => spec.availability = Availability::Active,
    }
    (spec != node.spec).then(|| Change::NodeUpdate { node: node.id, version: node.meta.version, spec })
}

/// The user comes for the first time.
pub(crate) fn begin(sim: &mut Sim) {
    sim.after(Duration::from_millis(500), Happening::User);
}
