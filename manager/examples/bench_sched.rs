//! How fast the scheduler places: 10,000 tasks onto 1,000 nodes with constraints and preferences.
//!
//! `cargo run --release -p racimo-manager --example bench_sched`

use std::sync::Arc;
use std::time::{Duration, Instant};

use racimo_common::id::{NodeId, RandomId, ServiceId, TaskId};
use racimo_common::object::{Desired, NodeDescription, Reservations, Resources, Role};
use racimo_common::registry::Platform;
use racimo_common::time::{Mono, Now, Wall};
use racimo_common::units::{Bytes, NanoCpus};
use racimo_manager::scheduler::{self, Waiting};
use racimo_manager::store::{
    Change, Command, Mode, NewNode, NewTask, NodeSpec, Observation, Placement, SeenNode, ServiceSpec, Slot, TaskSpec,
    View,
};

const NODES: u128 = 1_000;
const TASKS: u32 = 10_000;
const ROUNDS: u32 = 5;

fn main() {
    for services in [1, 10, 100, 1_000] {
        let view = cluster(services);
        let (mut best, mut apply) = (Duration::MAX, Duration::MAX);
        for _ in 0..ROUNDS {
            let (place, commit) = place_all(view.clone());
            (best, apply) = (best.min(place), apply.min(commit));
        }
        let rate = f64::from(TASKS) / best.as_secs_f64();
        println!(
            "{TASKS} tasks of {services} services onto {NODES} nodes: {rate:.0} placements/s (best of {ROUNDS}, {best:.1?}; \
             applying them to the state: {apply:.1?})"
        );
    }
}

/// Steps until everything is placed: time in the scheduler, time in the state.
fn place_all(mut view: View) -> (Duration, Duration) {
    let (mut planning, mut applying, mut placed) = (Duration::ZERO, Duration::ZERO, 0);
    let mut waiting = Waiting::all(&view);
    while !waiting.is_empty() {
        let start = Instant::now();
        let plan = scheduler::step(&view, &waiting, now());
        planning += start.elapsed();
        assert!(!plan.assigns.is_empty(), "{} tasks find no room: {:?}", waiting.len(), plan.waits.first());
        placed += plan.assigns.len();
        let start = Instant::now();
        for event in apply(&mut view, plan.assigns) {
            waiting.take(&event);
        }
        applying += start.elapsed();
    }
    assert_eq!(placed, TASKS as usize);
    (planning, applying)
}

fn now() -> Now {
    Now { mono: Mono::default(), wall: Wall::from_nanos(1_700_000_000_000_000_000) }
}

fn apply(view: &mut View, changes: Vec<Change>) -> Vec<racimo_manager::store::Event> {
    let command = Command { at: now().wall, changes };
    let (state, events) = view.state.apply(view.version() + 1, &command).expect("the plan fits the state");
    view.state = state;
    events
}

fn cluster(services: u32) -> View {
    let mut view = View::default();
    let nodes = (1..=NODES).map(|number| {
        let labels = [("zone", number % 4), ("rack", number % 20), ("disk", u128::from(number % 10 == 0))];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_string())).into();
        let description = NodeDescription {
            cpus: NanoCpus::new(8_000_000_000),
            memory: Bytes::mib(8192),
            platforms: vec![platform()],
            tasks_max: 64,
            ..NodeDescription::default()
        };
        Change::NodeCreate(Box::new(NewNode {
            id: NodeId::from_bits(number),
            role: Role::Worker,
            key_digest: None,
            spec: NodeSpec { labels, ..NodeSpec::default() },
            description: Arc::new(description),
            addr: String::new(),
        }))
    });
    let nodes = nodes.collect();
    apply(&mut view, nodes);
    for number in 1..=NODES {
        let seen = SeenNode { ready: true, at: Wall::default() };
        view.seen.observe(&view.state, Observation::Node { node: NodeId::from_bits(number), seen });
    }
    let replicas = TASKS / services;
    for number in 1..=services {
        let service = ServiceId::from_bits(u128::from(number));
        let spec = ServiceSpec {
            name: format!("s{number}"),
            labels: std::collections::BTreeMap::new(),
            task: Arc::new(task_spec(number)),
            mode: Mode::Replicated { replicas: u64::from(replicas) },
        };
        apply(&mut view, vec![Change::ServiceCreate { service, spec: Arc::new(spec) }]);
        let revision = view.version();
        let tasks = (1..=replicas).map(|slot| {
            Change::TaskCreate(Box::new(NewTask {
                id: TaskId::from_bits(u128::from(number) << 32 | u128::from(slot)),
                service,
                revision,
                slot: Slot::Replica(slot),
                desired: Desired::Running,
                gate: None,
                restart_of: None,
                node: None,
            }))
        });
        let tasks = tasks.collect();
        apply(&mut view, tasks);
    }
    view
}

fn task_spec(number: u32) -> TaskSpec {
    let reservations = Reservations { cpu: NanoCpus::new(100_000_000), memory: Bytes::mib(64) };
    let placement = Placement {
        constraints: vec!["node.labels.disk==0".to_owned(), format!("node.labels.zone!={}", number % 4)],
        preferences: vec!["node.labels.zone".to_owned(), "node.labels.rack".to_owned()],
        replicas_max: 0,
        platforms: vec![platform()],
    };
    TaskSpec { resources: Resources { reservations, ..Resources::default() }, placement, ..TaskSpec::default() }
}

fn platform() -> Platform {
    Platform { os: "linux".to_owned(), architecture: "arm64".to_owned(), variant: "v8".to_owned() }
}
