//! The board as the manager and containerd move it.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use racimo_common::id::{DependencyId, RandomId, TaskId};
use racimo_common::object::{Desired, TaskState};
use racimo_common::time::{Mono, Now, Wall};
use racimo_common::wire::{Assign, Assignment, BodyKey, File};

use crate::board::{Board, Gap, Order};
use crate::limits::{self, SET_TASKS_MAX, TASKS_MAX};
use crate::task::{Done, Found, Op};
use crate::task_tests::work;

fn id(number: u128) -> TaskId {
    TaskId::from_bits(number)
}

fn now(ms: u64) -> Now {
    Now { mono: Mono::default() + Duration::from_millis(ms), wall: Wall::default() + Duration::from_millis(ms) }
}

fn to_run(number: u128) -> Assignment {
    let work = Some(Box::new(work(Duration::from_secs(2))));
    Assignment { task: id(number), desired: Desired::Running, work }
}

fn moved(number: u128, desired: Desired) -> Assignment {
    Assignment { task: id(number), desired, work: None }
}

fn whole(to: u64, tasks: Vec<Assignment>) -> Assign {
    Assign { complete: true, to, last: true, tasks, ..Assign::default() }
}

fn change(from: u64, to: u64, tasks: Vec<Assignment>, removed: Vec<TaskId>) -> Assign {
    Assign { complete: false, from, to, last: true, tasks, removed, ..Assign::default() }
}

/// A board whose containers are listed: there were none.
fn listed(most: usize) -> Board {
    let mut board = Board::new(most);
    assert!(board.adopt(&[], now(0)).is_empty());
    board
}

fn held(board: &Board) -> Vec<u128> {
    let mut held: Vec<u128> = board.tasks().map(|task| task.id.bits()).collect();
    held.sort_unstable();
    held
}

fn states(board: &Board) -> BTreeMap<u128, TaskState> {
    board.tasks().map(|task| (task.id.bits(), task.report().state)).collect()
}

/// Does every order at once, with success.
fn work_off(board: &mut Board, ms: u64) {
    loop {
        let orders = board.orders(now(ms));
        if orders.is_empty() {
            return;
        }
        for order in orders {
            match order {
                Order::Begin(task, Op::Signal(_)) => {
                    board.done(task, Done::Ok(None), now(ms));
                    board.exited(task, 143, false, now(ms));
                }
                Order::Begin(task, _) => board.done(task, Done::Ok(Some(5)), now(ms)),
                Order::Cancel(task) => board.done(task, Done::Cancelled, now(ms)),
                Order::Kill(_) => {}
            }
        }
    }
}

#[test]
fn sets_take_effect_when_they_are_whole() {
    let mut board = listed(TASKS_MAX);
    let part = |number, last| Assign { last, ..whole(7, vec![to_run(number)]) };
    assert_eq!(board.assign(part(1, false), now(0)), Ok(false));
    assert_eq!((held(&board), board.index()), (vec![], 0));
    assert_eq!(board.assign(part(2, true), now(0)), Ok(true));
    assert_eq!((held(&board), board.index()), (vec![1, 2], 7));
    // A change in parts.
    let first = Assign { last: false, ..change(7, 9, vec![to_run(3)], vec![]) };
    assert_eq!(board.assign(first, now(0)), Ok(false));
    assert_eq!(board.assign(change(7, 9, vec![], vec![id(1)]), now(0)), Ok(false));
    work_off(&mut board, 0);
    assert_eq!((held(&board), board.index()), (vec![2, 3], 9));
    // A new session forgets the parts of the old.
    let first = Assign { last: false, ..whole(9, vec![to_run(8)]) };
    assert_eq!(board.assign(first, now(0)), Ok(false));
    board.session();
    assert_eq!(board.assign(whole(10, vec![to_run(2)]), now(0)), Ok(true));
    work_off(&mut board, 0);
    assert_eq!(held(&board), [2]);
}

#[test]
fn changes_that_do_not_apply_are_gaps() {
    #[track_caller]
    fn check(set: Assign, want: Result<bool, Gap>) {
        let mut board = listed(TASKS_MAX);
        board.assign(whole(7, vec![to_run(1)]), now(0)).expect("a set");
        let gap = want.is_err();
        assert_eq!(board.assign(set, now(0)), want);
        assert!(!gap || (held(&board), board.index()) == (vec![1], 7), "a gap changed something");
    }
    check(change(7, 9, vec![moved(1, Desired::Shutdown)], vec![]), Ok(false));
    check(change(6, 9, vec![], vec![]), Err(Gap::Index { from: 6, at: 7 }));
    check(change(8, 9, vec![to_run(2)], vec![]), Err(Gap::Index { from: 8, at: 7 }));
    check(change(7, 8, vec![to_run(2), moved(3, Desired::Shutdown)], vec![]), Err(Gap::Unknown(id(3))));
    // The index never goes back within a session.
    check(change(7, 6, vec![], vec![]), Err(Gap::Index { from: 6, at: 7 }));
    check(whole(6, vec![]), Err(Gap::Index { from: 6, at: 7 }));
    check(whole(7, vec![]), Ok(true));
    let many = (0..=SET_TASKS_MAX as u128).map(to_run).collect();
    check(whole(9, many), Err(Gap::Endless));
    let many = (0..=SET_TASKS_MAX as u128).map(id).collect();
    check(change(7, 9, vec![], many), Err(Gap::Endless));
    // What it does not hold it forgets with ease.
    check(change(7, 9, vec![], vec![id(99)]), Ok(false));
}

#[test]
fn parts_without_end_are_given_up() {
    let mut board = listed(TASKS_MAX);
    let part = || Assign { last: false, ..whole(7, (0..100).map(to_run).collect()) };
    let gap = (0..100).find_map(|_| board.assign(part(), now(0)).err());
    assert_eq!(gap, Some(Gap::Endless));
}

#[test]
fn a_whole_set_wins() {
    let mut board = listed(TASKS_MAX);
    board.assign(whole(7, vec![to_run(1), to_run(2)]), now(0)).expect("a set");
    work_off(&mut board, 0);
    assert_eq!(board.running(), [id(1), id(2)]);
    board.session();
    board.assign(whole(9, vec![to_run(2), to_run(3)]), now(1)).expect("a set");
    assert_eq!(board.full_report().iter().map(|r| r.task).collect::<Vec<_>>(), [id(2), id(3)], "1 is unwanted");
    work_off(&mut board, 1);
    assert_eq!(states(&board), [(2, TaskState::Running), (3, TaskState::Running)].into());
}

#[test]
fn an_end_is_kept_until_the_manager_forgets_it() {
    let mut board = listed(TASKS_MAX);
    board.assign(whole(7, vec![to_run(1)]), now(0)).expect("a set");
    work_off(&mut board, 0);
    board.reports();
    board.exited(id(1), 0, false, now(1));
    assert_eq!(board.reports().iter().map(|r| r.state).collect::<Vec<_>>(), [TaskState::Complete]);
    assert!(board.reports().is_empty());
    assert!(board.orders(now(2)).is_empty());
    // The report got lost with the session: told again.
    board.session();
    board.assign(whole(7, vec![to_run(1)]), now(3)).expect("a set");
    assert_eq!(board.full_report().iter().map(|r| r.state).collect::<Vec<_>>(), [TaskState::Complete]);
    board.assign(change(7, 8, vec![], vec![id(1)]), now(4)).expect("a change");
    assert_eq!(board.orders(now(4)), [Order::Begin(id(1), Op::Delete)]);
    board.done(id(1), Done::Ok(None), now(5));
    assert_eq!(held(&board), []);
}

#[test]
fn a_full_board_turns_tasks_away() {
    let mut board = listed(2);
    board.assign(whole(7, (1..=4).map(to_run).collect()), now(0)).expect("a set");
    assert_eq!(held(&board), [1, 2]);
    let rejected = |reports: Vec<racimo_common::object::TaskReport>| -> Vec<u128> {
        reports.iter().filter(|r| r.state == TaskState::Rejected).map(|r| r.task.bits()).collect()
    };
    let report = board.full_report();
    assert!(report.iter().any(|r| r.err.as_deref() == Some("this board holds at most 2 tasks at once")));
    assert_eq!(rejected(report), [3, 4]);
    assert!(board.reports().is_empty());
    // The manager moves one that was turned away, and forgets it then.
    board.assign(change(7, 8, vec![moved(3, Desired::Shutdown)], vec![id(4)]), now(1)).expect("a change");
    assert_eq!(rejected(board.full_report()), [3]);
    board.assign(change(8, 9, vec![to_run(5)], vec![id(3)]), now(1)).expect("a change");
    assert_eq!(rejected(board.reports()), [5]);
    // Room again.
    board.assign(change(9, 10, vec![], vec![id(1), id(5)]), now(1)).expect("a change");
    work_off(&mut board, 1);
    board.assign(change(10, 11, vec![to_run(6)], vec![]), now(1)).expect("a change");
    assert_eq!((held(&board), rejected(board.full_report())), (vec![2, 6], vec![]));
}

/// An assignment whose description takes about so many KiB.
fn heavy(number: u128, kib: usize) -> Assignment {
    let mut work = work(Duration::from_secs(2));
    work.container.env = (0..kib).map(|at| format!("VARIABLE_{at}={}", "x".repeat(900))).collect();
    Assignment { work: Some(Box::new(work)), ..to_run(number) }
}

#[test]
fn a_board_without_memory_turns_tasks_away() {
    let mut board = listed(TASKS_MAX);
    let kib = limits::HELD_BYTES_MAX >> 10;
    // Parts count as they come, before any takes effect.
    for number in 1..=4 {
        let part = Assign { last: number == 4, ..whole(7, vec![heavy(number, kib * 2 / 7)]) };
        board.assign(part, now(0)).expect("a part");
    }
    assert_eq!(held(&board), [1, 2, 3]);
    let report = board.full_report();
    let rejected: Vec<_> = report.iter().filter(|r| r.state == TaskState::Rejected).collect();
    assert_eq!(rejected.iter().map(|r| r.task.bits()).collect::<Vec<_>>(), [4]);
    let reason = rejected[0].err.as_deref().expect("a reason");
    assert!(reason.starts_with("this board holds at most 1024 KiB of task descriptions"), "{reason}");
    // What it has already does not count twice, and small ones still fit.
    board.session();
    let again = [1, 2, 3].map(|number| heavy(number, kib * 2 / 7)).into_iter().chain([to_run(5)]).collect();
    board.assign(whole(8, again), now(1)).expect("a set");
    assert_eq!(held(&board), [1, 2, 3, 5]);
    assert!(board.full_report().iter().all(|r| r.state != TaskState::Rejected));
    // Room again.
    board.assign(change(8, 9, vec![], vec![id(1)]), now(2)).expect("a change");
    work_off(&mut board, 2);
    board.assign(change(9, 10, vec![heavy(6, kib * 2 / 7)], vec![]), now(3)).expect("a change");
    assert_eq!(held(&board), [2, 3, 5, 6]);
    assert!(board.full_report().iter().all(|r| r.state != TaskState::Rejected));
}

#[test]
fn an_agent_short_of_memory_takes_no_new_tasks() {
    let mut board = Board::new(TASKS_MAX);
    board.adopt(&[(id(1), Found::Running { pid: 5, health: None, lease: None }, None)], now(0));
    board.uses(limits::HEAP_SOFT);
    board.assign(whole(7, vec![to_run(1), to_run(2)]), now(0)).expect("a set");
    board.uses(limits::HEAP_SOFT + 1);
    board.session();
    board.assign(whole(8, vec![to_run(1), to_run(2), to_run(3)]), now(1)).expect("a set");
    assert_eq!(held(&board), [1, 2]);
    let report = board.full_report();
    let rejected: Vec<_> = report.iter().filter(|r| r.state == TaskState::Rejected).collect();
    assert_eq!(rejected.iter().map(|r| r.task.bits()).collect::<Vec<_>>(), [3]);
    let reason = "this board's agent is short of memory: it uses 3073 KiB of its 4096 KiB, and takes no new tasks above \
                  3072 KiB";
    assert_eq!(rejected[0].err.as_deref(), Some(reason));
    // What runs is described whatever there is: its network hangs on it.
    let mut board = Board::new(TASKS_MAX);
    board.adopt(&[(id(1), Found::Running { pid: 5, health: None, lease: None }, None)], now(0));
    board.uses(limits::HEAP_MAX);
    board.assign(whole(7, vec![to_run(1), to_run(2)]), now(0)).expect("a set");
    assert_eq!(held(&board), [1]);
    assert!(board.task(id(1)).is_some_and(|task| task.work().is_some()));
    // Room again.
    board.uses(0);
    board.assign(change(7, 8, vec![to_run(4)], vec![]), now(2)).expect("a change");
    assert_eq!(held(&board), [1, 4]);
}

#[test]
fn a_container_that_runs_needs_no_memory() {
    let mut board = Board::new(TASKS_MAX);
    board.adopt(&[(id(1), Found::Running { pid: 5, health: None, lease: None }, None)], now(0));
    let mut large = heavy(1, limits::HELD_BYTES_MAX >> 10);
    let body = BodyKey { id: DependencyId::from_bits(5), task: None };
    let file = File { body, target: "/a".into(), uid: 0, gid: 0, mode: 0 };
    large.work.as_mut().expect("work").files.push(file);
    for _ in 0..2 {
        board.assign(whole(7, vec![large.clone()]), now(0)).expect("a set");
        // The manager takes it that what it names is here.
        assert_eq!(board.named_bodies(), Some([body].into()));
        board.session();
    }
    board.assign(whole(7, vec![large]), now(0)).expect("a set");
    assert_eq!(states(&board), [(1, TaskState::Running)].into());
    assert!(board.full_report().iter().all(|r| r.state == TaskState::Running));
}

#[test]
fn nothing_begins_before_the_containers_are_listed() {
    let found = |number, found| (id(number), found, None);
    // Assignments first, then the listing.
    let mut board = Board::new(TASKS_MAX);
    board.assign(whole(7, vec![to_run(1), to_run(2), to_run(3)]), now(0)).expect("a set");
    assert!(board.orders(now(0)).is_empty() && !board.is_listed());
    let listing = [
        found(1, Found::Running { pid: 4, health: None, lease: None }),
        found(2, Found::Ended { status: 1, oom: false }),
        found(9, Found::Running { pid: 5, health: None, lease: None }),
    ];
    assert!(board.adopt(&listing, now(1)).is_empty());
    assert_eq!(board.orders(now(1)), [Order::Begin(id(3), Op::Prepare), Order::Begin(id(9), Op::Signal(None))]);
    assert_eq!((states(&board)[&1], states(&board)[&2]), (TaskState::Running, TaskState::Failed));
    // The listing first: everything runs on until the set is there.
    let mut board = Board::new(TASKS_MAX);
    assert!(board.adopt(&listing, now(1)).is_empty());
    assert!(board.orders(now(1)).is_empty());
    board.assign(whole(7, vec![to_run(1)]), now(2)).expect("a set");
    let mut orders = board.orders(now(2));
    orders.sort_by_key(|order| format!("{order:?}"));
    assert_eq!(orders, [Order::Begin(id(2), Op::Delete), Order::Begin(id(9), Op::Signal(None))]);
    // More containers than the table holds.
    let many: Vec<_> =
        (0..TASKS_MAX as u128 + 2).map(|n| found(n, Found::Running { pid: 1, health: None, lease: None })).collect();
    assert_eq!(Board::new(TASKS_MAX).adopt(&many, now(0)).len(), 2);
}

#[test]
fn an_exit_that_overtakes_the_first_listing_counts() {
    let listing = [(id(1), Found::Running { pid: 4, health: None, lease: None }, None)];
    for assigned_first in [false, true] {
        let mut board = Board::new(TASKS_MAX);
        if assigned_first {
            board.assign(whole(7, vec![to_run(1)]), now(0)).expect("a set");
        }
        board.exited(id(1), 0, false, now(1));
        board.adopt(&listing, now(2));
        assert_eq!(states(&board)[&1], TaskState::Complete);
        assert!(board.running().is_empty());
        // Its container is there and goes with it.
        board.assign(whole(8, vec![]), now(3)).expect("a set");
        assert_eq!(board.orders(now(3)), [Order::Begin(id(1), Op::Delete)]);
    }
}

#[test]
fn a_task_the_manager_does_not_know_is_a_stray_until_it_ended_and_is_not_reported() {
    let mut board = Board::new(TASKS_MAX);
    let running = |number| (id(number), Found::Running { pid: 4, health: None, lease: None }, None);
    board.adopt(&[running(1), running(2)], now(0));
    board.assign(whole(7, vec![to_run(2)]), now(0)).expect("a set");
    assert!(board.has_strays());
    assert_eq!(board.orders(now(0)), [Order::Begin(id(1), Op::Signal(None))]);
    let reported = |board: &mut Board| board.reports().iter().map(|report| report.task).collect::<Vec<_>>();
    assert_eq!(reported(&mut board), [id(2)]);
    board.exited(id(1), 0, false, now(1));
    assert!(!board.has_strays());
    assert_eq!(reported(&mut board), []);
    board.done(id(1), Done::Ok(None), now(1));
    assert_eq!(board.orders(now(1)), [Order::Begin(id(1), Op::Delete)]);
}

#[test]
fn a_later_listing_finds_what_events_did_not_tell() {
    let mut board = listed(TASKS_MAX);
    board.assign(whole(7, (1..=5).map(to_run).collect()), now(0)).expect("a set");
    work_off(&mut board, 0);
    let before = board.running();
    // 5 ends and 6 starts while the listing is made.
    board.exited(id(5), 0, false, now(1));
    board.assign(change(7, 8, vec![to_run(6)], vec![]), now(1)).expect("a change");
    work_off(&mut board, 1);
    let listing = [
        (id(1), Found::Running { pid: 5, health: None, lease: None }, None),
        (id(2), Found::Ended { status: 3, oom: false }, None),
        (id(3), Found::Lost, None),
        (id(5), Found::Running { pid: 5, health: None, lease: None }, None),
    ];
    board.listed(&before, &listing, now(2));
    use TaskState::*;
    assert_eq!(
        states(&board),
        [(1, Running), (2, Failed), (3, Failed), (4, Failed), (5, Complete), (6, Running)].into()
    );
}

#[test]
fn a_board_that_is_removed_forgets_everything() {
    let mut board = listed(2);
    board.assign(whole(7, vec![to_run(1), to_run(2), to_run(3)]), now(0)).expect("a set");
    work_off(&mut board, 0);
    board.forget_all();
    assert!(board.full_report().is_empty());
    work_off(&mut board, 1);
    assert!(held(&board).is_empty());
}

/// Random inputs, as an honest shell may bring them and the world may order them.
fn run(seed: u64) {
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut board = Board::new(chance.usize(1..8));
    let mut in_flight: BTreeMap<TaskId, Op> = BTreeMap::new();
    let mut told: BTreeMap<TaskId, TaskState> = BTreeMap::new();
    let (mut ms, mut index, mut before) = (0, 0, Vec::new());
    for _ in 0..300 {
        ms += chance.u64(0..3000);
        let number = u128::from(chance.u64(0..10));
        let found = [
            Found::Made,
            Found::Lost,
            Found::Running { pid: 3, health: None, lease: None },
            Found::Ended { status: chance.u32(0..2), oom: chance.bool() },
        ][chance.usize(0..4)];
        let desired = [Desired::Ready, Desired::Running, Desired::Shutdown, Desired::Remove][chance.usize(0..4)];
        match chance.u8(0..16) {
            0 => {
                board.session();
                index += 1;
                let tasks = (0..10).filter(|_| chance.bool()).map(to_run).collect();
                assert_eq!(board.assign(whole(index, tasks), now(ms)), Ok(true));
            }
            1..=4 => {
                let from = if chance.u8(0..8) == 0 { chance.u64(0..9) } else { index };
                let task = if chance.bool() { to_run(number) } else { moved(number, desired) };
                let removed = (0..10).filter(|_| chance.u8(0..8) == 0).map(id).collect();
                let last = chance.u8(0..5) > 0;
                let set = Assign { last, ..change(from, index + 1, vec![Assignment { desired, ..task }], removed) };
                match board.assign(set, now(ms)) {
                    Ok(_) => index = board.index().max(index),
                    Err(_) => board.session(),
                }
            }
            5 if !board.is_listed() => drop(board.adopt(&[(id(number), found, None)], now(ms))),
            6 => before = board.running(),
            7 => board.listed(&before, &[(id(number), found, None)], now(ms)),
            8 => board.exited(id(number), chance.u32(..), chance.bool(), now(ms)),
            9 if chance.u8(0..8) == 0 => board.forget_all(),
            _ => {
                if let Some(&task) = in_flight.keys().nth(chance.usize(0..4)) {
                    let done = match chance.u8(0..6) {
                        0 => Done::Again("away".to_owned()),
                        1 => Done::Failed("no".to_owned()),
                        _ => Done::Ok(chance.bool().then_some(9)),
                    };
                    in_flight.remove(&task);
                    board.done(task, done, now(ms));
                }
            }
        }
        // As the shell does it: again for as long as the board wants to be woken at once.
        for round in 0.. {
            let is_due = board.wake_at().is_some_and(|at| at <= now(ms).mono);
            if round > 0 && !is_due {
                break;
            }
            assert!(round < 3, "a shell that wakes up for nothing spins");
            for order in board.orders(now(ms)) {
                match order {
                    Order::Begin(task, op) => {
                        let other = in_flight.insert(task, op);
                        assert_eq!(other, None, "{op:?} begins beside it");
                        assert!(board.is_listed() && is_due);
                    }
                    Order::Cancel(task) => {
                        assert_eq!(in_flight.remove(&task), Some(Op::Prepare));
                        board.done(task, Done::Cancelled, now(ms));
                    }
                    Order::Kill(task) => panic!("{task} has no lease"),
                }
            }
        }
        assert!(board.orders(now(ms)).is_empty(), "it wants no wake-up but has something to do");
        assert!(in_flight.keys().all(|task| board.task(*task).is_some()), "a task went while it was worked on");
        told.retain(|task, _| board.task(*task).is_some());
        for task in board.tasks() {
            let state = task.report().state;
            let known = told.insert(task.id, state).unwrap_or(state);
            assert!(known <= state && (known == state || !known.is_terminal()), "{known} became {state}");
        }
        if chance.bool() {
            board.reports();
        } else {
            board.full_report();
        }
    }
}

proptest! {
    #[test]
    fn any_order_of_inputs(seed in any::<u64>()) {
        run(seed);
    }
}

#[test]
fn logs_stay_as_long_as_the_manager_knows_their_tasks() {
    let mut board = Board::new(8);
    let all = || vec![id(1), id(2), id(3), id(4)];
    board.adopt(&[(id(4), Found::Running { pid: 4, health: None, lease: None }, None)], now(0));
    assert_eq!(board.doomed_logs(all()), [], "nobody has told yet");
    let set = |complete, from, to, logs: Option<Vec<TaskId>>| Assign {
        complete,
        from,
        to,
        last: true,
        logs,
        ..Assign::default()
    };
    board.assign(set(true, 0, 5, Some(vec![id(1), id(2)])), now(0)).expect("a set");
    // Task 4 is not wanted, but it is still there.
    assert_eq!(board.doomed_logs(all()), [id(3)]);
    board.assign(set(false, 5, 6, None), now(0)).expect("a change");
    assert_eq!(board.doomed_logs(all()), [id(3)]);
    board.assign(set(false, 6, 7, Some(vec![id(2)])), now(0)).expect("a change");
    assert_eq!(board.doomed_logs(all()), [id(1), id(3)]);
    let many = (0..=SET_TASKS_MAX as u128).map(id).collect();
    assert_eq!(board.assign(set(false, 7, 8, Some(many)), now(0)), Err(Gap::Endless));
    board.forget_all();
    assert_eq!(board.doomed_logs(all()), [id(1), id(2), id(3)]);
}

/// It is part of the main loop's future, which is moved about on the stack: with 57 KiB here the agent's stack once
/// grew to 2.6 MiB, and stayed so.
#[test]
fn a_board_is_small_where_it_is_moved() {
    assert!(std::mem::size_of::<Board>() <= 2048, "{}", std::mem::size_of::<Board>());
}
