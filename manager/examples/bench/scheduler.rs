//! The scheduler's core: 10,000 tasks onto 1,000 nodes, and what a task costs the manager in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use racimo_agent::alloc;
use racimo_common::id::{IdSource, NetworkId, NodeId, ServiceId};
use racimo_common::net::Subnet;
use racimo_common::object::{
    ContainerSpec, ContainerStatus, Desired, NodeDescription, Reservations, Resources, Role, TaskReport, TaskState,
};
use racimo_common::registry::Platform;
use racimo_common::time::{Mono, Now, Wall};
use racimo_common::units::{Bytes, NanoCpus};
use racimo_manager::scheduler::{Waiting, step};
use racimo_manager::store::{
    Change, Command, Mode, NetworkSpec, NewCluster, NewNode, NewTask, NodeSpec, Observation, Placement, SeenNode,
    ServiceSpec, Slot, TaskSpec, View,
};

use super::table::{Amount, Table, as_f64};

const NODES: u32 = 1000;
const TASKS: u32 = 10_000;
/// Few large services, and many small ones, each of which is a group of its own to the scheduler.
const SERVICES: [u32; 3] = [1, 20, 1000];
const RUNS: usize = 5;
const PLACEMENTS_PER_SECOND_MIN: f64 = 50_000.0;

/// Adds placements per second and bytes per task.
pub(crate) fn measure(table: &mut Table) -> Result<()> {
    SERVICES.into_iter().try_for_each(|services| measure_with(services, table))
}

fn measure_with(services: u32, table: &mut Table) -> Result<()> {
    let mut ids = IdSource::seeded(1);
    let mut world = World::with_nodes(&mut ids)?;
    world.create_services(services, &mut ids)?;
    let before = alloc::used();
    world.create_tasks(TASKS / services, &mut ids)?;
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        let mut copy = World { view: world.view.clone(), now: world.now };
        runs.push(copy.place()?);
    }
    runs.sort_by_key(|run| run.decide);
    let median = &runs[RUNS / 2];
    let rate = |span: Duration| as_f64(u64::from(TASKS)) / span.as_secs_f64();
    let what = format!("{TASKS} tasks of {services} services onto {NODES} nodes");
    let way = format!("constraints, spread preferences, reservations; `scheduler::step`, one core, median of {RUNS}");
    let (decide, least) = (Amount::per_second(rate(median.decide)), Amount::per_second(PLACEMENTS_PER_SECOND_MIN));
    table.add_at_least(format!("scheduler, {what}: decided"), decide, least, &way);
    table.add(
        format!("scheduler, {what}: decided and applied"),
        Amount::per_second(rate(median.decide + median.apply)).to_string(),
        "the same with `State::apply`, without the disk",
    );
    world.place()?;
    world.report_running();
    let heap = alloc::used().saturating_sub(before);
    table.add(
        format!("manager memory per task ({services} services)"),
        format!("{} bytes", heap / world.view.state.task_count().max(1)),
        "heap after less before the tasks were made, placed and reported as running, in one `View`",
    );
    Ok(())
}

struct World {
    view: View,
    now: Now,
}

struct Run {
    decide: Duration,
    apply: Duration,
}

impl World {
    fn with_nodes(ids: &mut IdSource) -> Result<Self> {
        let wall = Wall::from_nanos(1_700_000_000_000_000_000);
        let mut world = Self { view: View::default(), now: Now { mono: Mono::from_nanos(1), wall } };
        // So many nodes need a larger mesh than the default.
        let ingress: NetworkId = ids.draw();
        let mesh = NetworkSpec {
            name: "mesh".to_owned(),
            ingress: true,
            subnet: Some(Subnet::of([172, 16, 0, 0].into(), 12)),
            ..NetworkSpec::default()
        };
        world.apply(vec![
            Change::ClusterCreate(Box::new(NewCluster::bare(ids.draw(), ingress))),
            Change::NetworkRemove { network: ingress },
            Change::NetworkCreate { network: ids.draw(), spec: mesh },
        ])?;
        for number in 0..NODES {
            let node: NodeId = ids.draw();
            world.apply(vec![Change::NodeCreate(Box::new(new_node(node, number)))])?;
            let seen = SeenNode { ready: true, at: wall };
            let state = &world.view.state;
            world.view.seen.observe(state, Observation::Node { node, seen });
        }
        Ok(world)
    }

    fn apply(&mut self, changes: Vec<Change>) -> Result<Vec<racimo_manager::store::Event>> {
        let command = Command { at: self.now.wall, changes };
        let (state, events) = self.view.state.apply(self.view.version() + 1, &command)?;
        self.view.state = state;
        self.view.seen.follow(&events);
        Ok(events)
    }

    fn create_services(&mut self, count: u32, ids: &mut IdSource) -> Result<()> {
        for number in 0..count {
            let spec = Arc::new(service_spec(number));
            self.apply(vec![Change::ServiceCreate { service: ids.draw(), spec }])?;
        }
        Ok(())
    }

    fn create_tasks(&mut self, replicas: u32, ids: &mut IdSource) -> Result<()> {
        let services: Vec<(ServiceId, u64)> = self.view.state.services().map(|s| (s.id, s.revision)).collect();
        for (service, revision) in services {
            let tasks = (1..=replicas).map(|slot| NewTask {
                id: ids.draw(),
                service,
                revision,
                slot: Slot::Replica(slot),
                desired: Desired::Running,
                gate: None,
                restart_of: None,
                node: None,
            });
            let changes = tasks.map(|task| Change::TaskCreate(Box::new(task))).collect();
            self.apply(changes)?;
        }
        Ok(())
    }

    /// Places everything, as the scheduler's shell does it.
    fn place(&mut self) -> Result<Run> {
        let mut placed = 0;
        let mut run = Run { decide: Duration::ZERO, apply: Duration::ZERO };
        loop {
            let begin = Instant::now();
            let waiting = Waiting::all(&self.view);
            let plan = step(&self.view, &waiting, self.now);
            run.decide += begin.elapsed();
            ensure!(plan.waits.is_empty(), "the bench's nodes have room for every task: {:?}", plan.waits.first());
            placed += u32::try_from(plan.assigns.len())?;
            let begin = Instant::now();
            drop(self.apply(plan.assigns)?);
            run.apply += begin.elapsed();
            if !plan.more {
                break;
            }
        }
        ensure!(placed == TASKS, "only {placed} tasks were placed");
        Ok(run)
    }

    fn report_running(&mut self) {
        let tasks: Vec<_> = self.view.state.tasks().cloned().collect();
        for task in tasks {
            let Some(node) = task.node else { continue };
            let report = TaskReport {
                unhealthy: false,
                restarts: 0,
                ports: Vec::new(),
                task: task.id,
                state: TaskState::Running,
                at: self.now.wall,
                message: "started".to_owned(),
                err: None,
                container: Some(ContainerStatus { id: task.id.to_string(), pid: 4711, exit_code: None }),
            };
            self.view.seen.observe(&self.view.state, Observation::Task { node, report });
        }
    }
}

fn labels(pairs: &[(&str, String)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

fn new_node(id: NodeId, number: u32) -> NewNode {
    let disk = if number % 2 == 0 { "ssd" } else { "card" };
    let pairs =
        [("zone", format!("z{}", number % 10)), ("rack", format!("r{}", number % 50)), ("disk", disk.to_owned())];
    // A node is its key: each has its own.
    let mut key_digest = [7; 32];
    key_digest[..4].copy_from_slice(&number.to_be_bytes());
    NewNode {
        id,
        role: Role::Worker,
        spec: NodeSpec { labels: labels(&pairs), ..NodeSpec::default() },
        description: Arc::new(NodeDescription {
            hostname: format!("board{number}"),
            platforms: vec![Platform::new("linux", "arm64", ""), Platform::new("linux", "arm", "v7")],
            machine: "aarch64".to_owned(),
            cpus: NanoCpus::new(4_000_000_000),
            memory: Bytes::mib(1024),
            kernel: "6.6.31+rpt-rpi-v8".to_owned(),
            os: "Debian GNU/Linux 12 (bookworm)".to_owned(),
            tasks_max: 128,
            ..NodeDescription::default()
        }),
        addr: format!("10.0.{}.{}", number / 250, number % 250),
        key_digest: Some(key_digest),
    }
}

fn service_spec(number: u32) -> ServiceSpec {
    let constraints: &[&str] = match number % 4 {
        0 => &["node.labels.zone != z0"],
        1 => &["node.platform.arch == aarch64", "node.labels.rack != r7"],
        2 => &["node.labels.disk == ssd"],
        _ => &[],
    };
    let preferences: &[&str] = match number % 3 {
        0 => &["node.labels.zone"],
        1 => &["node.labels.zone", "node.labels.rack"],
        _ => &[],
    };
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let task = TaskSpec {
        container: ContainerSpec {
            image: format!("registry.example:5000/service{number}:1"),
            ..ContainerSpec::default()
        },
        resources: Resources {
            reservations: Reservations { cpu: NanoCpus::new(100_000_000), memory: Bytes::mib(32) },
            ..Resources::default()
        },
        placement: Placement {
            constraints: owned(constraints),
            preferences: owned(preferences),
            platforms: vec![Platform::new("linux", "arm64", "")],
            ..Placement::default()
        },
        ..TaskSpec::default()
    };
    ServiceSpec {
        name: format!("service{number}"),
        labels: BTreeMap::new(),
        task: Arc::new(task),
        mode: Mode::Replicated { replicas: u64::from(TASKS) },
        update: None,
        rollback: None,
        credentials: None,
    }
}
