//! What sessions tell boards of the network, and when.

use std::time::{Duration, Instant};

use racimo_common::object::{Desired, EndpointSpec, NodeDescription, Port, PortMode, TaskState};
use racimo_common::wire::{ToAgent, ToManager};

use super::Manager;
use super::board::{Board, report};
use crate::store::testing::*;
use crate::store::{Change, DependencyKind, NewDependency, ServiceSpec, TaskSpec};
use crate::vault::Owner;

/// Nodes 1 and 2; service 1 publishes a port and is on network 1; its task 1 is on node 1.
fn manager() -> Manager {
    let port = Port { published: 80, target: 8080, mode: PortMode::Ingress, ..Port::default() };
    let web = attached(&spec("web", "nginx", 0), &[1]);
    let endpoint = EndpointSpec { ports: vec![port], ..EndpointSpec::default() };
    let task = TaskSpec { endpoint, ..(*web.task).clone() };
    let web = ServiceSpec { task: task.into(), ..(*web).clone() };
    let changes = vec![new_node(1), new_node(2), new_network(1, "front"), new_service(1, web.into())];
    let manager = Manager::new(changes);
    start(&manager, 1, 1);
    manager
}

fn start(manager: &Manager, number: u128, on: u128) {
    let revision = manager.view().state.service(service(1)).expect("a service").revision;
    manager.commit(create(new_task(number, 1, revision)));
    manager.commit(assign(number, on));
}

/// A board that has reported.
fn ready(manager: &Manager, number: u128, tasks: &[u128]) -> Board {
    let (mut board, _, set) = Board::open(manager, number);
    let reports = tasks.iter().map(|task| report(*task, TaskState::Running)).collect();
    board.say_status(true, true, set.to, reports);
    manager.until(|view| view.is_ready(node(number)));
    board
}

/// Hears about the network until this holds.
#[track_caller]
fn until(board: &mut Board, what: &str, holds: impl Fn(&Board) -> bool) {
    let begun = Instant::now();
    while !holds(board) {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}: {:?}", board.table);
        board.hear_net();
    }
}

fn active(board: &Board) -> Vec<u128> {
    let ends = board.table.services.get(&service(1)).into_iter().flat_map(|service| &service.endpoints);
    ends.filter(|end| end.active).map(|end| end.task.bits()).collect()
}

#[test]
fn a_task_s_life_in_the_balance() {
    let manager = manager();
    let (mut one, mut two) = (ready(&manager, 1, &[]), ready(&manager, 2, &[]));
    one.say_status(false, false, manager.view().version(), vec![report(1, TaskState::Starting)]);
    one.settle(1);
    // It is known, and takes no connections yet.
    until(&mut two, "the service", |board| board.table.services.contains_key(&service(1)));
    assert_eq!(active(&two), []);
    // Healthy: both hear it.
    one.say_status(false, false, manager.view().version(), vec![report(1, TaskState::Running)]);
    until(&mut one, "in", |board| active(board) == [1]);
    until(&mut two, "in", |board| active(board) == [1]);
    // Node 2 is on none of the networks.
    assert!(two.table.networks.is_empty() && two.table.services[&service(1)].networks.is_empty());
    assert_eq!(one.table.networks.len(), 1);
    // It shall stop: its board knows that it has left before it hears of it.
    manager.commit(desire(1, Desired::Shutdown));
    one.hear_net();
    assert_eq!(active(&one), []);
    assert_eq!(one.hear_assign().tasks[0].desired, Desired::Shutdown);
    until(&mut two, "out", |board| active(board).is_empty());
    // It is over: nothing is left of it anywhere, and its network leaves the board.
    one.say_status(false, false, manager.view().version(), vec![report(1, TaskState::Failed)]);
    until(&mut one, "no network", |board| board.table.networks.is_empty());
    assert_eq!(one.hear_assign().removed, [task(1)]);
    until(&mut two, "nothing left", |board| board.table.services[&service(1)].endpoints.is_empty());
    // A task comes to a board: its network is there before it.
    start(&manager, 2, 2);
    let set = two.hear_assign();
    assert_eq!((set.tasks[0].task, two.table.networks.len()), (task(2), 1));
    let net = set.tasks[0].work.as_ref().and_then(|work| work.net.clone()).expect("a place");
    assert!(net.balanced && net.mesh.is_some() && net.networks[0].0 == network(1));
}

#[test]
fn a_board_that_is_written_off_leaves_with_its_tasks() {
    let manager = manager();
    let (one, mut two) = (ready(&manager, 1, &[1]), ready(&manager, 2, &[]));
    until(&mut two, "in", |board| active(board) == [1]);
    one.hang_up();
    for number in 0.. {
        if manager.is_down(node(1)) {
            break;
        }
        // It is there meanwhile.
        two.settle(number);
        std::thread::sleep(Duration::from_millis(200));
    }
    until(&mut two, "out", |board| active(board).is_empty());
    let _back = ready(&manager, 1, &[1]);
    assert!(!manager.is_down(node(1)));
    until(&mut two, "in again", |board| active(board) == [1]);
}

#[test]
fn a_board_that_changes_its_address_is_found_again() {
    let manager = manager();
    let (mut one, mut two) = (ready(&manager, 1, &[]), ready(&manager, 2, &[]));
    let address = |board: &Board, of: u128| board.table.peers.get(&node(of)).map(|peer| peer.address.0.to_string());
    // Where sessions come from in this test.
    until(&mut two, "as seen", |board| address(board, 1).as_deref() == Some("192.0.2.9"));
    let told = |address: &str| {
        let data_address = Some(address.parse().expect("an address"));
        ToManager::Describe(NodeDescription { hostname: "board".into(), data_address, ..NodeDescription::default() })
    };
    one.say(&told("198.51.100.7"));
    until(&mut two, "as told", |board| address(board, 1).as_deref() == Some("198.51.100.7"));
    until(&mut one, "its own", |board| {
        board.table.own.as_ref().is_some_and(|own| own.address.0.to_string() == "198.51.100.7")
    });
    // The node's address for users is the one it is seen at.
    assert_eq!(manager.view().state.node(node(1)).map(|node| node.addr.clone()), Some("192.0.2.9".into()));
}

#[test]
fn a_manager_that_starts_takes_nobody_out_of_the_balance() {
    let manager = manager();
    let (_one, mut two) = (ready(&manager, 1, &[1]), ready(&manager, 2, &[]));
    until(&mut two, "in", |board| active(board) == [1]);
    let table = std::mem::take(&mut two.table);
    // A manager that has observed nothing yet: board 2 is the first to come back.
    let again = Manager::on(manager.disk.clone());
    let (mut two, ..) = Board::open_with(&again, 2, table);
    assert_eq!(active(&two), [1]);
    assert!(two.table.services[&service(1)].endpoints[0].unsure);
    // Board 1 has lost it meanwhile, and says so.
    let _one = ready(&again, 1, &[]);
    until(&mut two, "out", |board| active(board).is_empty());
}

#[test]
fn the_balance_does_not_wait_for_contents() {
    let manager = manager();
    let (mut one, mut two) = (ready(&manager, 1, &[1]), ready(&manager, 2, &[]));
    until(&mut two, "in", |board| active(board) == [1]);
    // All turns to open contents are taken, and a task with a secret comes to board 2.
    let turns: Vec<_> = std::iter::from_fn(|| manager.context.sets.try_acquire()).collect();
    let body = crate::vault::testing().seal(Owner::Dependency(DependencyKind::Secret, dependency(8)), b"x");
    let (id, kind, body) = (dependency(8), DependencyKind::Secret, body.expect("sealed"));
    let new = NewDependency { id, kind, name: "key".into(), labels: Default::default(), template: false, body };
    manager.commit(Change::DependencyCreate(Box::new(new)));
    manager.commit(new_service(2, with_secrets(&spec("keen", "x", 0), &[(8, "key")])));
    let revision = manager.view().state.service(service(2)).expect("a service").revision;
    manager.commit(create(new_task(2, 2, revision)));
    manager.commit(assign(2, 2));
    two.settle(1);
    manager.commit(desire(1, Desired::Shutdown));
    until(&mut two, "out", |board| active(board).is_empty());
    drop(turns);
    assert_eq!(two.hear_assign().bodies.len(), 1);
    one.settle(1);
}

#[test]
fn a_change_is_told_at_once() {
    let manager = manager();
    let (mut one, mut two) = (ready(&manager, 1, &[1]), ready(&manager, 2, &[]));
    until(&mut two, "in", |board| active(board) == [1]);
    one.settle(1);
    // Two commits, each with its events; no pause before the first word. A machine that is busy may take longer, but not
    // each time.
    let at_once = (10..60).any(|number| {
        std::thread::sleep(Duration::from_millis(30));
        let begun = Instant::now();
        start(&manager, number, 1);
        one.hear_assign();
        begun.elapsed() < Duration::from_millis(10)
    });
    assert!(at_once, "each change waited");
    two.settle(1);
}

#[test]
fn boards_are_told_where_else_the_manager_is() {
    let manager = manager();
    let mut board = ready(&manager, 1, &[]);
    let managers = vec!["pi.local:2377".to_owned(), "10.0.0.2:2377".to_owned()];
    manager.commit(Change::ClusterManagers(managers.clone()));
    assert_eq!(board.hear(), ToAgent::Managers(managers.clone()));
    // Once, and not to who was welcomed with it.
    let (mut other, welcome, _) = Board::open(&manager, 2);
    assert_eq!(welcome.managers, managers);
    for board in [&mut board, &mut other] {
        board.say(&ToManager::Heartbeat(9));
        assert_eq!(board.hear(), ToAgent::Pong(9));
    }
}
