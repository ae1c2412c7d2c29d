//! Is everything as wanted, and does everybody know?

use std::collections::BTreeSet;

use racimo_agent::net::table::Table;
use racimo_common::id::{IdSource, NodeId, TaskId};
use racimo_common::object::{Desired, TaskState};
use racimo_common::wire::NetEndpoint;
use racimo_manager::dispatcher::directory::Directory;
use racimo_manager::dispatcher::net;
use racimo_manager::orchestrator::{self, Agenda};
use racimo_manager::scheduler::{self, Waiting, constraint};
use racimo_manager::store::{Command, Mode, Service, Slot, Task, UpdateState, View};

use crate::agent::Board;
use crate::model;
use crate::runtime::Process;
use crate::world::World;

/// What is not as it should be; `None`: nothing.
pub(crate) fn misses(world: &World) -> Option<String> {
    let Some(manager) = &world.manager else { return Some("there is no manager".to_owned()) };
    let view = &manager.view;
    let nodes: Vec<_> = view.state.nodes().collect();
    if let Some(node) = nodes.iter().find(|node| !view.is_ready(node.id)) {
        return Some(format!("node {} is {}", node.id, view.node_status(node).name()));
    }
    if nodes.len() != world.boards.len() {
        return Some(format!("{} nodes, {} boards", nodes.len(), world.boards.len()));
    }
    if let Some(missing) = view.state.services().find_map(|service| service_misses(view, service)) {
        return Some(missing);
    }
    boards_miss(world, view).or_else(|| plans_miss(world, view))
}

/// Whether a task of the service found no room on any node; it says why.
fn waits(view: &View, task: &Task) -> bool {
    let reason = view.seen.task(task.id).and_then(|status| status.err.as_ref());
    task.node.is_none() && reason.is_some_and(|reason| !reason.is_empty())
}

/// Whether an update of the service cannot go on before there is room.
fn is_stuck(view: &View, service: &Service) -> bool {
    view.state.tasks_of_service(service.id).any(|task| task.desired <= Desired::Running && waits(view, task))
}

fn service_misses(view: &View, service: &Service) -> Option<String> {
    let name = &service.spec.name;
    let stuck = is_stuck(view, service);
    let at_rest = |state| matches!(state, UpdateState::Completed | UpdateState::RollbackCompleted);
    if !stuck && service.update.as_ref().is_some_and(|update| !at_rest(update.state)) {
        return Some(format!("{name} is still updating"));
    }
    if service.spec.mode.is_job() {
        return if stuck { None } else { job_misses(view, service) };
    }
    let live = view.state.tasks_of_service(service.id).filter(|task| task.desired <= Desired::Running);
    let live: Vec<_> = live.collect();
    if let Mode::Replicated { replicas } = service.spec.mode
        && live.len() as u64 != replicas
        && !stuck
    {
        return Some(format!("{name} has {} tasks, {replicas} are wanted", live.len()));
    }
    let slots: BTreeSet<_> = live.iter().map(|task| task.slot).collect();
    if slots.len() != live.len() && !stuck {
        return Some(format!("{name} has two tasks in one slot"));
    }
    live.iter().find_map(|task| {
        let state = view.task_state(task);
        if !stuck && orchestrator::is_dirty(view, service, task) {
            Some(format!("task {} of {name} is not of its spec", task.id))
        } else if task.desired != Desired::Running && !stuck {
            Some(format!("task {} of {name} is held back", task.id))
        } else if state != TaskState::Running && !waits(view, task) {
            Some(format!("task {} of {name} is {state}", task.id))
        } else {
            None
        }
    })
}

/// Every slot of a job completed once.
fn job_misses(view: &View, service: &Service) -> Option<String> {
    let name = &service.spec.name;
    let tasks: Vec<_> = view.state.tasks_of_service(service.id).collect();
    if let Some(task) = tasks.iter().find(|task| task.ended.is_none()) {
        return Some(format!("task {} of {name} has not completed", task.id));
    }
    let done = tasks.iter().filter(|task| model::is_complete(task) && task.revision == service.revision);
    let slots: Vec<_> = done.map(|task| task.slot).collect();
    let distinct: BTreeSet<_> = slots.iter().copied().collect();
    let constraints = constraint::parse_all(&service.spec.task.placement.constraints).unwrap_or_default();
    let fits = view.state.nodes().filter(|node| constraint::matches_all(&constraints, node));
    let missing = match service.spec.mode {
        Mode::ReplicatedJob { completions, .. } => distinct.len() as u64 != completions,
        // A node that no longer fits may have completed it before.
        Mode::Replicated { .. } | Mode::Global | Mode::GlobalJob => {
            fits.into_iter().any(|node| !distinct.contains(&Slot::Node(node.id)))
        }
    };
    (missing || distinct.len() != slots.len()).then(|| format!("{name} completed in {slots:?}"))
}

/// Every board runs what it shall, and holds nothing else.
fn boards_miss(world: &World, view: &View) -> Option<String> {
    for board in &world.boards {
        let Some(node) = board.node else { return Some(format!("board {} is no member", board.index)) };
        let wanted: BTreeSet<TaskId> =
            view.state.tasks_on_node(node).filter(|task| task.ended.is_none()).map(|task| task.id).collect();
        let held: BTreeSet<TaskId> = board.runtime.containers.keys().copied().collect();
        if let Some(stray) = held.difference(&wanted).next() {
            return Some(format!("board {} holds a container of {stray}", board.index));
        }
        let runs = |task: &&TaskId| {
            matches!(board.runtime.containers.get(task).map(|c| c.process), Some(Process::Running { .. }))
        };
        if let Some(task) = wanted.iter().find(|task| !runs(task)) {
            return Some(format!("board {} does not run {task}", board.index));
        }
        if let Some(wrong) = network_misses(board, view, node) {
            return Some(format!("board {}: {wrong}", board.index));
        }
    }
    None
}

/// Every board knows of the network what the manager would tell it now, and only tasks that run take connections.
fn network_misses(board: &Board, view: &View, node: NodeId) -> Option<String> {
    let told = board.agent.as_ref().map(|agent| &agent.table)?;
    let mut wanted = Table::default();
    net::complete(&Directory::new(view), view, node).0.for_each(|part| wanted.take(part));
    let parts =
        |table: &Table| (table.own.clone(), table.peers.clone(), table.networks.clone(), table.services.clone());
    if parts(told) != parts(&wanted) {
        return Some(format!("it was told {told:?} of the network, not {wanted:?}"));
    }
    let active = told.services.values().flat_map(|service| &service.endpoints).filter(|end| end.active);
    let runs = |end: &&NetEndpoint| view.state_of(end.task) == Some(TaskState::Running);
    let idle = active.filter(|end| end.unsure || !runs(end)).map(|end| end.task).next();
    idle.map(|task| format!("connections go to {task}, which does not run"))
}

/// Nothing is left to decide.
fn plans_miss(world: &World, view: &View) -> Option<String> {
    let now = world.manager.as_ref().map(|manager| manager.clock(&world.sim))?;
    let plan = orchestrator::step(view, &mut Agenda::all(view), now, &mut IdSource::seeded(1));
    // A new leader looks at every node, and evicts from it what an update that cannot go on has left there.
    let stuck = view.state.services().any(|service| is_stuck(view, service));
    if !plan.changes.is_empty() && !stuck {
        let command = Command { at: now.wall, changes: plan.changes };
        return Some(format!("the orchestrator still wants {}", model::brief(&command)));
    }
    let plan = scheduler::step(view, &Waiting::all(view), now);
    plan.assigns.first().map(|change| format!("the scheduler still wants {change:?}"))
}
