//! Members that do more than they should: what it costs the manager is bounded.

use std::time::{Duration, Instant};

use racimo_common::object::{NodeDescription, TaskState};
use racimo_common::wire::{LogsPart, RefusedCode, Status, ToManager};

use super::board::{Board, hello, report};
use super::{Manager, within};
use crate::dispatcher::session::End;
use crate::limits;
use crate::store::testing::*;

/// Node 1 with task 1, node 2 with task 2.
fn manager() -> Manager {
    let manager = Manager::new(vec![new_node(1), new_node(2), new_service(1, spec("web", "nginx", 40))]);
    let revision = manager.view().state.service(service(1)).expect("a service").revision;
    for number in [1, 2] {
        manager.commit(create(new_task(number, 1, revision)));
        manager.commit(assign(number, number));
    }
    manager
}

fn describe(number: u32) -> NodeDescription {
    NodeDescription { hostname: format!("board{number}"), ..NodeDescription::default() }
}

fn hello_as(number: u32) -> ToManager {
    let ToManager::Hello(mut hello) = hello((1, 1)) else { unreachable!("a Hello") };
    hello.description = describe(number);
    ToManager::Hello(hello)
}

#[test]
fn descriptions_are_written_so_often_only() {
    let manager = manager();
    let (mut board, ..) = Board::open(&manager, 1);
    let before = manager.view().version();
    let floods = limits::NODE_WRITES_BURST * 8;
    for number in 0..floods {
        board.say(&ToManager::Describe(describe(number)));
    }
    board.settle(1);
    let other = manager.view().state.node(node(2)).expect("a node").clone();
    manager.until(|view| view.version() >= before + u64::from(limits::NODE_WRITES_BURST) - 2);
    board.settle(2);
    let written = manager.view().version() - before;
    assert!(written <= u64::from(limits::NODE_WRITES_BURST), "{written} writes");
    // A new session does not give it more, and another board has its own share.
    drop(board);
    let mut again = Board::connect(&manager, 1);
    again.say(&hello_as(floods + 1));
    let (code, reason) = again.hear_refusal();
    assert!(code == RefusedCode::Busy && reason.contains("too often"), "{code:?} {reason}");
    let (mut board, ..) = Board::open(&manager, 2);
    board.say(&ToManager::Describe(describe(1)));
    manager.until(|view| view.state.node(node(2)).is_some_and(|node| node.description != other.description));
}

#[test]
fn a_board_that_goes_and_comes_stays_down_at_last() {
    let manager = manager();
    let mut rounds = 0;
    loop {
        let (mut board, _, set) = Board::open(&manager, 1);
        board.say_status(true, true, set.to, Vec::new());
        board.settle(1);
        if manager.is_down(node(1)) {
            // It may be clean a moment later; once its share is used up it is not.
            let begun = Instant::now();
            while manager.is_down(node(1)) && begun.elapsed() < Duration::from_secs(2) {
                std::thread::sleep(Duration::from_millis(20));
            }
            if manager.is_down(node(1)) {
                break;
            }
        }
        board.say(&ToManager::Bye { leaving: true });
        within(board.session);
        manager.until(|view| view.state.node(node(1)).is_some_and(|node| node.written_off.is_some()));
        rounds += 1;
        assert!(rounds <= limits::NODE_WRITES_BURST, "it comes back for ever");
    }
    assert!(rounds >= limits::NODE_WRITES_BURST / 2, "only {rounds} rounds");
}

#[test]
fn floods_of_reports_are_slowed_down() {
    let manager = manager();
    let (board, ..) = Board::open(&manager, 1);
    let (mut other, ..) = Board::open(&manager, 2);
    let version = manager.view().version();
    // Foreign, unknown and own tasks, as fast as they are taken.
    let status = |number: u128| {
        ToManager::Status(Status {
            complete: false,
            last: false,
            index: 0,
            tasks: vec![report(number, TaskState::Running)],
        })
    };
    let begun = Instant::now();
    let flooding = std::thread::spawn(move || {
        let mut board = board;
        let mut sent = 0;
        while begun.elapsed() < Duration::from_secs(5) {
            let said = board.try_say(&status(1 + sent % 3));
            if !said {
                break;
            }
            sent += 1;
        }
        (board, sent)
    });
    for number in 1..10 {
        other.settle(number);
        std::thread::sleep(Duration::from_millis(400));
    }
    let (board, sent) = flooding.join().expect("no panic");
    // What was read, and what the socket between them holds.
    let most = limits::SESSION_MESSAGES_BURST + 7 * limits::SESSION_MESSAGES_PER_SECOND + 4000;
    assert!(sent < u128::from(most), "{sent} messages were taken in five seconds");
    assert!(manager.view().state.task(task(2)).is_some_and(|task| task.ended.is_none()));
    assert_eq!(manager.view().version(), version, "nothing was written");
    drop(board);
}

#[test]
fn parts_of_logs_that_nobody_asked_for_change_nothing() {
    let manager = manager();
    let (mut board, ..) = Board::open(&manager, 1);
    for reading in 0..200 {
        board.say(&ToManager::Logs(LogsPart { reading, entries: Vec::new(), end: None }));
    }
    board.settle(1);
    assert_eq!(manager.context.logs.readings(), 0);
}

#[test]
fn a_board_that_takes_nothing_ends() {
    let manager = manager();
    let (mut board, _, set) = Board::open(&manager, 1);
    board.say_status(true, true, set.to, Vec::new());
    manager.until(|view| view.is_ready(node(1)));
    // It says much that wants an answer, and reads none: at last nothing of it is heard any more.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(12) && board.try_say(&ToManager::Heartbeat(7)) {}
    let end = within(board.session);
    assert!(matches!(end, End::Refused(_) | End::Stuck(_)), "{end:?}");
    Board::open(&manager, 1);
}
