//! The laws, on random histories: fixpoint (checked by every step), replay, restart, and what must always hold.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use racimo_common::id::{NodeId, ServiceId, TaskId};
use racimo_common::object::{Availability, Desired, Generic, TaskState};
use racimo_manager::orchestrator::{self, Agenda};
use racimo_manager::scheduler::{self, Waiting};
use racimo_manager::store::generic;
use racimo_manager::store::{FailureAction, Mode, Order, Service, Slot, Task, UpdateState};

use super::script;
use super::world::World;

const NODES: [&str; 4] = ["a", "b", "c", "d"];
/// What a board offers: all of it, and after something was changed.
const GENERIC: [&str; 3] = [
    "generic=gpio=4,modem=a,modem=b,pin=p1,pin=p2",
    "generic=gpio=2,modem=b,pin=p2",
    "generic=gpio=4,modem=2,pin=p1,pin=p3",
];
const SERVICES: [&str; 5] = ["web", "api", "log", "sum", "scan"];
/// How many times `sum` has to complete.
const COMPLETIONS: usize = 4;

/// One random event; false if it made no sense now.
fn disturb(world: &mut World, dice: &mut fastrand::Rng) -> bool {
    let node = NODES[dice.usize(..NODES.len())];
    let service = SERVICES[dice.usize(..SERVICES.len())];
    let known = world.view.state.service_named(service).is_some();
    let member = world.nodes.get(node).and_then(|id| world.view.state.node(*id)).cloned();
    let down = member.as_ref().is_some_and(|node| node.written_off.is_some());
    let job = matches!(service, "sum" | "scan");
    let line = match (dice.u8(..17), &member) {
        (0, Some(_)) if !down => format!("down {node}"),
        (1 | 2, Some(_)) if down => format!("up {node}"),
        (3, Some(_)) => format!("freeze {node}"),
        (4 | 5, Some(_)) => format!("thaw {node}"),
        (6, Some(_)) => format!("set {node} avail={}", ["active", "pause", "drain"][dice.usize(..3)]),
        (7, Some(_)) if dice.bool() => format!("set {node} label.zone={}", dice.u8(..2)),
        (7, Some(_)) => format!("set {node} {}", GENERIC[dice.usize(..GENERIC.len())]),
        (8, _) if !known && service == "log" => "service log global reserve-memory=50M generic=pin=1".to_owned(),
        (8, _) if !known && service == "api" => {
            "service api replicas=2 generic=gpio=2 generic=modem=1 attempts=3 window=30s spread=node.labels.zone"
                .to_owned()
        }
        (8, _) if !known && service == "sum" => {
            format!("service sum job={COMPLETIONS}/2 delay=2s reserve-memory=100M")
        }
        (8, _) if !known && service == "scan" => "service scan global-job constraint=node.labels.zone!=1".to_owned(),
        (8, _) if !known => "service web replicas=3 constraint=node.labels.zone!=1 reserve-memory=200M".to_owned(),
        (9 | 10, _) if known && job => {
            format!("update {service} image={} force={}", ["one", "done", "fail"][dice.usize(..3)], dice.u8(..3))
        }
        (9, _) if known && service != "log" => format!("update {service} replicas={}", dice.u8(..6)),
        (10, _) if known => format!("update {service} image={}", ["one", "two", "crash", "reject"][dice.usize(..4)]),
        (11, _) if known && dice.u8(..4) == 0 => format!("delete {service}"),
        (12 | 13, _) => {
            let running: Vec<_> = world.view.state.tasks().filter(|t| t.ended.is_none() && t.node.is_some()).collect();
            let Some(task) = running.get(dice.usize(..running.len().max(1))).map(|task| task.id) else { return false };
            let (state, code) = [(TaskState::Failed, 1), (TaskState::Complete, 0)][dice.usize(..2)];
            world.end(task, state, Some(code));
            return true;
        }
        (14, _) => "restart-manager".to_owned(),
        (15, _) => format!("wait {}s", dice.u8(1..30)),
        (16, _) if known => format!("rollback {service}"),
        _ => return false,
    };
    script::run(world, &line);
    true
}

fn check_invariants(world: &World) {
    let state = &world.view.state;
    for node in state.nodes() {
        let (used, has) = (state.reserved(node.id), node.capacity());
        assert!(used.memory <= has.memory && used.cpu <= has.cpu, "{} is promised twice", node.id);
    }
    for node in state.nodes() {
        let (mut count, mut names) = (0, BTreeSet::new());
        for task in state.tasks_on_node(node.id).filter(|task| task.ended.is_none()) {
            assert!(generic::answers(&task.generic, &task.spec.resources.generic), "{:?}", task.generic);
            for (kind, generic) in &task.generic {
                match generic {
                    Generic::Count(more) if kind == "gpio" => count += more,
                    Generic::Count(_) => {}
                    Generic::Named(all) => {
                        let twice = all.iter().find(|name| !names.insert((kind, *name)));
                        assert_eq!(twice, None, "two tasks on {} hold it", node.id);
                    }
                }
            }
        }
        // What it once had: tasks keep what they hold until they have stopped.
        assert!(count <= 4, "{} gave {count} gpio away", node.id);
    }
    for service in state.services() {
        let mut slots = std::collections::BTreeMap::new();
        let done = |task: &Task| service.spec.mode.is_job() && task.ended.is_some();
        let wanted = |task: &&Arc<Task>| task.desired <= Desired::Running && !done(task);
        for task in state.tasks_of_service(service.id).filter(wanted) {
            let count = slots.entry(task.slot).or_insert(0);
            *count += 1;
            let most = if world.config.order() == Order::StartFirst { 2 } else { 1 };
            assert!(*count <= most, "{}: {:?} has {count} tasks", service.spec.name, task.slot);
        }
        if let Mode::Replicated { replicas } = service.spec.mode {
            assert!(slots.len() as u64 <= replicas, "{}: too many tasks", service.spec.name);
        }
        if service.spec.mode.is_job() {
            check_job(world, service);
        }
        for history in slots.keys() {
            let kept = state.tasks_of_service(service.id).filter(|task| task.slot == *history && task.ended.is_some());
            assert!(kept.count() <= 7, "{}: history grows", service.spec.name);
        }
    }
}

fn is_complete(task: &Task) -> bool {
    task.ended.as_ref().is_some_and(|ended| ended.state == TaskState::Complete)
}

/// What completed so far, and which tasks there were then.
#[derive(Default)]
struct Record {
    done: BTreeSet<(ServiceId, u64, Slot)>,
    tasks: BTreeSet<TaskId>,
}

impl Record {
    /// A slot that completed gets no other task in its iteration.
    fn check(&mut self, world: &World) {
        let jobs = || world.view.state.tasks().filter(|task| task.iteration > 0);
        let place = |task: &Task| (task.service, task.iteration, task.slot);
        for task in jobs().filter(|task| !self.tasks.contains(&task.id)) {
            let again = self.done.contains(&place(task));
            assert!(!again, "{} runs again\n{}", world.name(task.id), world.trace.join("\n"));
        }
        self.tasks.extend(jobs().map(|task| task.id));
        self.done.extend(jobs().filter(|task| is_complete(task)).map(|task| place(task)));
    }
}

/// No more complete, and run at once, than is wanted.
fn check_job(world: &World, service: &Service) {
    let name = &service.spec.name;
    let tasks = world.view.state.tasks_of_service(service.id);
    let mine: Vec<_> = tasks.filter(|task| Some(task.iteration) == service.job.map(|job| job.iteration)).collect();
    let done: BTreeSet<Slot> = mine.iter().filter(|task| is_complete(task)).map(|task| task.slot).collect();
    if let Mode::ReplicatedJob { completions, concurrent_max } = service.spec.mode {
        assert!(done.len() as u64 <= completions, "{name}: completed too often");
        let runs = mine.iter().filter(|task| task.ended.is_none() && task.desired <= Desired::Running);
        let runs: BTreeSet<Slot> = runs.map(|task| task.slot).collect();
        assert!(runs.len() as u64 <= concurrent_max, "{name}: {} run at once", runs.len());
    }
}

/// A new leader with nothing but the store has nothing to add once everything is settled.
fn check_restart(world: &World) {
    let mut agenda = Agenda::all(&world.view);
    let mut ids = world.ids.clone();
    let plan = orchestrator::step(&world.view, &mut agenda, world.now, &mut ids);
    assert!(plan.changes.is_empty(), "a fresh leader decides otherwise: {:?}\n{:#?}", plan.changes, world.table(true));
    let plan = scheduler::step(&world.view, &Waiting::all(&world.view), world.now);
    assert!(plan.assigns.is_empty(), "a fresh scheduler decides otherwise: {:?}", plan.assigns);
}

fn run(seed: u64) -> World {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut world = World::new(seed);
    if dice.bool() {
        world.config.order = Some(Order::StartFirst);
    }
    world.config.parallelism = Some(dice.u64(..3));
    for node in NODES {
        script::run(&mut world, &format!("node {node} label.zone={} {}", dice.u8(..2), GENERIC[0]));
    }
    world.config.failure_action = [None, Some(FailureAction::Continue), Some(FailureAction::Rollback)][dice.usize(..3)];
    let mut record = Record::default();
    for _ in 0..80 {
        // Not every event comes to rest before the next.
        while !disturb(&mut world, &mut dice) {}
        if dice.bool() {
            world.decide();
        } else {
            world.settle();
            check_restart(&world);
        }
        check_invariants(&world);
        record.check(&world);
    }
    world
}

/// Everything works again: what is wanted must come about.
fn heal(world: &mut World) {
    world.frozen.clear();
    let nodes: Vec<NodeId> = world.nodes.values().copied().collect();
    for node in nodes {
        if world.view.state.node(node).unwrap().written_off.is_some() {
            world.up(node);
        }
        world.ready(node, true);
        let name = world.nodes.iter().find(|(_, id)| **id == node).map(|(name, _)| name.clone()).expect("a name");
        script::run(world, &format!("set {name} {}", GENERIC[0]));
        world.edit_node(node, |spec| {
            spec.availability = Availability::Active;
            spec.labels.insert("zone".to_owned(), "0".to_owned());
        });
    }
    for name in SERVICES {
        let Some(service) = world.view.state.service_named(name) else { continue };
        if service.spec.mode.is_job() {
            script::run(world, &format!("update {name} image=done force=77"));
        } else {
            script::run(world, &format!("update {name} image=good force=77 replicas=2"));
        }
    }
    world.wait(Duration::from_secs(300));
}

fn check_healed(world: &World) {
    for service in world.view.state.services() {
        let tasks: Vec<_> = world.view.state.tasks_of_service(service.id).collect();
        let runs = tasks
            .iter()
            .filter(|task| world.view.task_state(task) == TaskState::Running && task.revision == service.revision);
        let want = match service.spec.mode {
            Mode::Replicated { replicas } => replicas,
            Mode::Global => NODES.len() as u64,
            Mode::ReplicatedJob { .. } | Mode::GlobalJob => {
                check_job_healed(world, service, &tasks);
                continue;
            }
        };
        let table = world.table(false);
        assert_eq!(runs.count() as u64, want, "{}: {table:#?}", service.spec.name);
        assert_eq!(tasks.iter().filter(|task| task.ended.is_none()).count() as u64, want, "{table:#?}");
        let state = service.update.as_ref().map(|update| update.state);
        assert!(
            state.is_none_or(|state| matches!(state, UpdateState::Completed | UpdateState::RollbackCompleted)),
            "{state:?} {}: {:#?}\n{}",
            service.spec.name,
            world.table(true),
            world.trace.join("\n")
        );
    }
}

/// Every slot completed once in this iteration, nothing runs.
fn check_job_healed(world: &World, service: &Service, tasks: &[&Arc<Task>]) {
    let mine = tasks.iter().filter(|task| Some(task.iteration) == service.job.map(|job| job.iteration));
    let done = mine.filter(|task| is_complete(task)).count();
    let want = if service.spec.mode == Mode::GlobalJob { NODES.len() } else { COMPLETIONS };
    assert_eq!(done, want, "{}: {:#?}", service.spec.name, world.table(true));
    assert!(tasks.iter().all(|task| task.ended.is_some()), "{:#?}", world.table(true));
}

#[test]
fn laws_hold_on_random_histories() {
    let seeds: u64 = std::env::var("RACIMO_PROP_SEEDS").map_or(150, |text| text.parse().unwrap());
    for seed in 0..seeds {
        let result = std::panic::catch_unwind(|| {
            let mut world = run(seed);
            let tables = world.table(true);
            heal(&mut world);
            check_invariants(&world);
            check_restart(&world);
            check_healed(&world);
            if seed % 10 == 0 {
                assert_eq!(run(seed).table(true), tables, "the same seed gave another history");
            }
        });
        assert!(result.is_ok(), "seed {seed}");
    }
}
