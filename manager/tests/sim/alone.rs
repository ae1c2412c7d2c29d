//! The manager is away and every board loses its power: tasks go on by themselves, and the manager adopts them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use racimo_common::id::TaskId;
use racimo_common::object::{ContainerSpec, TaskState};
use racimo_manager::store::{Change, Mode, RestartPolicy, ServiceSpec, TaskSpec};

use crate::faults::{Fault, OPEN};
use crate::manager::Waiter;
use crate::net::Ways;
use crate::runtime::Process;
use crate::settle;
use crate::sim::{Bug, Happening};
use crate::world::World;

/// Restarts come soon, so that they need not be waited for.
const DELAY: Duration = Duration::from_secs(1);
/// Boots, the wait for a manager, and the start of everything.
const ALONE: Duration = Duration::from_secs(60);
const SETTLE: Duration = Duration::from_secs(120);

/// Runs the story once; what went wrong.
pub(crate) fn run(seed: u64) -> Result<(), String> {
    let boards = 2 + usize::try_from(seed % 4).unwrap_or(0);
    story(World::new(seed, None, boards), tell)
}

/// A cluster in which nothing breaks but what is told.
fn story(mut world: World, tell: fn(&mut World) -> Result<(), String>) -> Result<(), String> {
    world.sim.calm = true;
    world.start_manager();
    world.found();
    world.until(Duration::from_secs(10));
    let told = tell(&mut world);
    let failure = world.sim.failure.take().or(told.err());
    failure.map_or(Ok(()), |failure| Err(format!("{}{failure}", world.sim.tail())))
}

fn tell(world: &mut World) -> Result<(), String> {
    for (name, mode, lease) in [
        ("web", Mode::Replicated { replicas: 5 }, None),
        ("all", Mode::Global, None),
        ("one", Mode::Replicated { replicas: 2 }, Some(Duration::from_secs(10))),
    ] {
        create(world, name, mode, lease)?;
    }
    settles(world)?;
    let before = running(world);
    let fenced = fenced(world);
    let kept: BTreeMap<_, _> =
        before.iter().filter(|(task, _)| !fenced.contains(task)).map(|(k, v)| (*k, *v)).collect();

    let silent = world.sim.rng.bool();
    world.fault(Fault::KillManager { silent });
    for board in 0..world.boards.len() {
        world.fault(Fault::PowerOff { board });
        world.sim.within(100..20_000, Happening::Fault(Fault::PowerOn { board }));
    }
    world.until(ALONE);
    if running(world) != kept {
        return Err(format!("without a manager {:?} run, not {kept:?}", running(world)));
    }
    // One crashes, and is started again.
    let crashed = kept.iter().nth(world.sim.rng.usize(..kept.len())).map(|(task, board)| (*task, *board));
    let (task, board) = crashed.ok_or("nothing runs")?;
    let pid = world.boards[board].runtime.pid(task).ok_or("it has no process")?;
    world.sim.within(0..1, Happening::Exit { board, task, pid, status: 1, own: false });
    world.until(Duration::from_secs(10));
    if running(world) != kept || world.boards[board].runtime.pid(task) == Some(pid) {
        return Err(format!("{task} was not started again"));
    }

    world.start_manager();
    settles(world)?;
    let after = running(world);
    let manager = world.manager.as_ref().ok_or("there is no manager")?;
    for (task, board) in &kept {
        if after.get(task) != Some(board) {
            return Err(format!("{task} does not run on board {board} any more"));
        }
        let state = manager.view.state_of(*task);
        if state != Some(TaskState::Running) {
            return Err(format!("{task} is {state:?} to the manager"));
        }
        let same_slot = |other: &&TaskId| {
            let place = |id: TaskId| manager.view.state.task(id).map(|task| (task.service, task.slot));
            place(**other) == place(*task)
        };
        let all: Vec<TaskId> = manager.view.state.tasks().map(|task| task.id).collect();
        if all.iter().filter(same_slot).count() != 1 {
            return Err(format!("{task} was replaced"));
        }
    }
    let told = manager.view.seen.task(task).map(|status| status.message.clone()).unwrap_or_default();
    if told != "started (restarted 2 times while the manager was away)" {
        return Err(format!("{task} says {told:?}"));
    }
    Ok(())
}

/// A board with a fenced task is cut off for several leases: the task runs elsewhere, and never on both.
pub(crate) fn cut_off(seed: u64, bug: Option<Bug>) -> Result<(), String> {
    story(World::new(seed, bug, 3), tell_of_cut)
}

fn tell_of_cut(world: &mut World) -> Result<(), String> {
    let lease = Duration::from_secs(world.sim.rng.u64(10..120));
    create(world, "one", Mode::Replicated { replicas: 1 }, Some(lease))?;
    settles(world)?;
    let (task, board) = running(world).pop_first().ok_or("nothing runs")?;
    let away = world.sim.rng.u8(..3);
    if away == 0 {
        world.fault(Fault::ContainerdAway { board });
    }
    let down = world.sim.rng.bool();
    world.fault(Fault::Ways { board, ways: Ways { up: false, down } });
    if away == 1 {
        world.until(lease.mul_f64(0.9));
        world.fault(Fault::KillAgent { board });
        world.fault(Fault::StartAgent { board });
    }
    world.until(lease * 3 + Duration::from_secs(30));
    let others: Vec<_> = running(world).into_iter().filter(|(other, on)| *other != task && *on != board).collect();
    if others.len() != 1 {
        return Err(format!("{others:?} run in its place"));
    }
    world.fault(Fault::Ways { board, ways: OPEN });
    world.fault(Fault::ContainerdBack { board });
    settles(world)
}

fn create(world: &mut World, name: &str, mode: Mode, lease: Option<Duration>) -> Result<(), String> {
    let container = ContainerSpec { image: "good:1".to_owned(), ..ContainerSpec::default() };
    let restart = RestartPolicy { delay: Some(DELAY), ..RestartPolicy::default() };
    let mut task = TaskSpec { container, restart, ..TaskSpec::default() };
    task.offline.lease = lease;
    let (update, rollback, labels) = (None, None, BTreeMap::new());
    let spec =
        ServiceSpec { name: name.to_owned(), labels, task: task.into(), mode, update, rollback, credentials: None };
    let service = world.ids.draw();
    let Some(manager) = &mut world.manager else { return Err("there is no manager".to_owned()) };
    manager.commit(&mut world.sim, vec![Change::ServiceCreate { service, spec: spec.into() }], Waiter::User);
    Ok(())
}

fn settles(world: &mut World) -> Result<(), String> {
    let mut left = SETTLE;
    loop {
        world.until(Duration::from_secs(1));
        left = left.saturating_sub(Duration::from_secs(1));
        match settle::misses(world) {
            None => return Ok(()),
            Some(missing) if left.is_zero() => return Err(format!("it has not settled: {missing}")),
            Some(_) => {}
        }
    }
}

/// What runs, and on which board.
fn running(world: &World) -> BTreeMap<TaskId, usize> {
    let on = |board: &crate::agent::Board| {
        let runs = |process| matches!(process, Process::Running { .. });
        let tasks = board.runtime.containers.iter().filter(move |(_, container)| runs(container.process));
        tasks.map(|(task, _)| (*task, board.index)).collect::<Vec<_>>()
    };
    world.boards.iter().flat_map(on).collect()
}

fn fenced(world: &World) -> BTreeSet<TaskId> {
    let containers = world.boards.iter().flat_map(|board| &board.runtime.containers);
    containers.filter(|(_, container)| container.lease.is_some()).map(|(task, _)| *task).collect()
}
