//! Readers of logs and an agent moved by hand.

use racimo_common::object::{LogAsk, LogEntry, LogStream, TaskState};
use racimo_common::time::Wall;
use racimo_common::wire::{LogsEnd, LogsOpen, LogsPart, RefusedCode, ToAgent, ToManager};

use super::board::Board;
use super::{Manager, within};
use crate::dispatcher::merge::{Merge, Subject};
use crate::dispatcher::tail::{Tail, Told};
use crate::limits::LOG_WINDOW;
use crate::store::Change;
use crate::store::testing::*;

const ASK: LogAsk = LogAsk { follow: true, tail: Some(9), since: None, until: None, stdout: true, stderr: true };

/// Nodes 1 and 2; task 1 runs on node 1.
fn manager() -> Manager {
    let manager = Manager::new(vec![new_node(1), new_node(2), new_service(1, spec("web", "nginx", 0))]);
    let revision = manager.view().state.service(service(1)).expect("a service").revision;
    manager.commit(create(new_task(1, 1, revision)));
    manager.commit(assign(1, 1));
    manager
}

fn tail(manager: &Manager, ask: LogAsk) -> Tail {
    let context = &manager.context;
    let reader = context.logs.reader().expect("room");
    let merge = Merge::new(Subject::Service(service(1)), ask);
    Tail::new(context.logs.clone(), context.store.clone(), context.clock, merge, reader)
}

fn part(reading: u64, at: i64, end: Option<LogsEnd>) -> ToManager {
    let line = format!("line {at}\n").into_bytes();
    let entries = vec![LogEntry { at: Wall::from_nanos(at), stream: LogStream::Stdout, line }];
    ToManager::Logs(LogsPart { reading, entries, end })
}

/// The next lines.
#[track_caller]
fn lines(tail: &mut Tail) -> Vec<String> {
    match within(tail.next()) {
        Some(Told::Lines(_, lines)) => {
            lines.into_iter().map(|entry| String::from_utf8(entry.line).expect("text")).collect()
        }
        other => panic!("no lines: {other:?}"),
    }
}

/// What the board is asked, beside its set.
#[track_caller]
fn asked(board: &mut Board) -> ToAgent {
    loop {
        let message = board.hear();
        if !matches!(message, ToAgent::Assign(_)) {
            return message;
        }
    }
}

#[track_caller]
fn opened(board: &mut Board) -> LogsOpen {
    let asked = asked(board);
    let ToAgent::LogsOpen(open) = asked else { panic!("{asked:?}") };
    open
}

/// Reads on in the background, so that the board is asked.
fn reading(mut tail: Tail) -> smol::Task<(Tail, Option<Told>)> {
    smol::spawn(async move {
        let told = tail.next().await;
        (tail, told)
    })
}

#[test]
fn who_follows_goes_on_in_the_boards_next_session_and_with_new_tasks() {
    let manager = manager();
    let (mut board, ..) = Board::open(&manager, 1);
    let read = reading(tail(&manager, ASK));
    let open = opened(&mut board);
    assert_eq!((open.task, open.ask, open.parts), (task(1), ASK, LOG_WINDOW));
    board.say(&part(open.reading, 7, None));
    let (mut tail, told) = within(read);
    assert!(matches!(told, Some(Told::Lines(source, _)) if source.node == node(1) && source.service == service(1)));
    // The next lines are asked for: there is room again.
    let read = reading(tail);
    assert_eq!(asked(&mut board), ToAgent::LogsMore { reading: open.reading, parts: 1 });
    board.hang_up();
    (tail, _) = within(read);
    let read = reading(tail);
    let (mut board, ..) = Board::open(&manager, 1);
    let again = opened(&mut board);
    assert_eq!((again.ask.since, again.ask.tail), (Some(Wall::from_nanos(8)), None));
    board.say(&part(again.reading, 8, None));
    (tail, _) = within(read);

    let revision = manager.view().state.service(service(1)).expect("a service").revision;
    manager.commit(create(new_task(2, 1, revision)));
    manager.commit(assign(2, 2));
    let (mut other, ..) = Board::open(&manager, 2);
    let read = reading(tail);
    let open = opened(&mut other);
    assert_eq!((open.task, open.ask), (task(2), ASK));
    other.say(&part(open.reading, 9, None));
    (tail, _) = within(read);
    // Who goes away closes what is open.
    drop(tail);
    assert_eq!(asked(&mut other), ToAgent::LogsClose { reading: open.reading });
    assert_eq!((manager.context.logs.readers(), manager.context.logs.readings()), (0, 0));
    // What is still under way is nobody's, and no harm.
    other.say(&part(open.reading, 10, None));
    assert_eq!(asked(&mut other), ToAgent::LogsClose { reading: open.reading });
    other.settle(1);
}

#[test]
fn a_board_that_is_away_is_told_at_the_end() {
    let manager = manager();
    let mut tail = tail(&manager, LogAsk { follow: false, ..ASK });
    assert_eq!(within(tail.next()), Some(Told::Missing(vec!["node board1 is not available".into()])));
    assert_eq!(within(tail.next()), None);
    // Who follows is told at once, by a line.
    let mut tail = self::tail(&manager, ASK);
    assert_eq!(lines(&mut tail), ["warning: incomplete log stream: node board1 is not available\n"]);
}

#[test]
fn a_board_that_was_removed_is_not_waited_for() {
    let manager = manager();
    manager.commit(end(1, TaskState::Failed));
    manager.commit(Change::NodeRemove { node: node(1) });
    let logs = &manager.context.logs;
    let merge = Merge::new(Subject::Task(task(1)), ASK);
    let (store, clock) = (manager.context.store.clone(), manager.context.clock);
    let mut tail = Tail::new(logs.clone(), store, clock, merge, logs.reader().expect("room"));
    let warning = format!("warning: incomplete log stream: node {} was removed from the cluster\n", node(1));
    assert_eq!(lines(&mut tail), [warning]);
    assert_eq!(within(tail.next()), None);
}

#[test]
fn who_follows_leaves_room_and_is_told_what_is_left_out() {
    let manager = manager();
    let revision = manager.view().state.service(service(1)).expect("a service").revision;
    for number in 2..70 {
        manager.commit(create(new_task(number, 1, revision)));
        manager.commit(assign(number, 1));
    }
    let (_board, ..) = Board::open(&manager, 1);
    let mut follower = tail(&manager, ASK);
    let told = lines(&mut follower);
    assert!(told[0].contains("too many logs are followed at once"), "{told:?}");
    let most = racimo_common::limits::LOG_READINGS_MAX;
    assert_eq!(manager.context.logs.readings(), most / 2);
    // A second one is told as well; who ends has room.
    assert_eq!(lines(&mut tail(&manager, ASK)).len(), 1);
    let _read = reading(tail(&manager, LogAsk { follow: false, ..ASK }));
    within(async {
        while manager.context.logs.readings() == most / 2 {
            smol::Timer::after(std::time::Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn a_board_that_sends_more_than_it_may_is_refused() {
    let manager = manager();
    let (mut board, ..) = Board::open(&manager, 1);
    let _read = reading(tail(&manager, LogAsk { follow: false, ..ASK }));
    let open = opened(&mut board);
    // Nobody takes more than the first: the reader waits to be asked again.
    for at in 0..=i64::from(LOG_WINDOW) {
        board.say(&part(open.reading, at, None));
    }
    let (code, reason) = board.hear_refusal();
    assert_eq!(code, RefusedCode::Protocol);
    assert!(reason.contains("more of a log"), "{reason}");
}
