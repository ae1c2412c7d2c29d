use std::time::{Duration, Instant};

use racimo_common::limits::FRAME_FROM_AGENT_MAX;
use racimo_common::object::{BoardHealth, Desired, FileRef, NodeDescription, TaskState};
use racimo_common::wire::{BoardId, Hello, Join, RefusedCode, ToAgent, ToManager};

use super::board::{Board, hello, report};
use super::{Manager, within};
use crate::dispatcher::session::End;
use crate::limits::SETS_OPEN_MAX;
use crate::store::testing::*;
use crate::store::{Change, ClusterSpec, DependencyKind, NewDependency, NodeStatus};
use crate::vault::Owner;

/// Node 1 with task 1, which shall run.
fn manager() -> Manager {
    let manager = Manager::new(vec![new_node(1), new_node(2), new_service(1, spec("web", "nginx", 40))]);
    let revision = manager.view().state.service(service(1)).expect("a service").revision;
    manager.commit(create(new_task(1, 1, revision)));
    manager.commit(assign(1, 1));
    manager
}

#[test]
fn from_hello_to_bye() {
    let manager = manager();
    let (mut board, welcome, set) = Board::open(&manager, 1);
    assert_eq!((welcome.version, welcome.heartbeat_ms, welcome.node), (1, 1000, node(1)));
    assert_eq!(welcome.managers, ["m:2377"]);
    let state = manager.view().state;
    assert_eq!(
        state.node(node(1)).map(|n| (n.description.hostname.clone(), n.addr.clone())),
        Some(("board".into(), "192.0.2.9".into()))
    );
    assert!(set.last && set.from == 0 && set.to == state.index());
    assert_eq!(
        set.tasks.iter().map(|t| (t.task, t.desired, t.work.is_some())).collect::<Vec<_>>(),
        [(task(1), Desired::Running, true)]
    );
    assert!(!manager.view().is_ready(node(1)), "ready before its report");

    board.say_status(true, true, set.to, vec![report(1, TaskState::Accepted)]);
    manager.until(|view| view.is_ready(node(1)) && view.state_of(task(1)) == Some(TaskState::Accepted));
    board.say_status(false, false, set.to, vec![report(1, TaskState::Running)]);
    manager.until(|view| view.state_of(task(1)) == Some(TaskState::Running));
    board.settle(5);

    let committed = manager.commit(desire(1, Desired::Shutdown));
    let change = board.hear_assign();
    assert_eq!((change.complete, change.from, change.to), (false, set.to, committed));
    assert_eq!((change.tasks[0].desired, change.tasks[0].work.is_none()), (Desired::Shutdown, true));
    // Nothing of the others' concern comes by.
    manager.commit(new_node(3));
    board.settle(6);

    board.say_status(false, false, change.to, vec![report(1, TaskState::Failed)]);
    let gone = board.hear_assign();
    assert_eq!((gone.from, &gone.removed[..], gone.tasks.len()), (change.to, &[task(1)][..], 0));
    let ended = manager.view().state.task(task(1)).and_then(|t| t.ended.clone()).expect("an end");
    assert_eq!((ended.state, ended.exit_code, ended.err), (TaskState::Shutdown, Some(3), None));

    let description = NodeDescription { hostname: "renamed".to_owned(), ..NodeDescription::default() };
    board.say(&ToManager::Describe(description));
    manager.until(|view| view.state.node(node(1)).is_some_and(|n| n.description.hostname == "renamed"));
    board.say(&ToManager::Bye { leaving: true });
    manager.until(|view| view.state.node(node(1)).is_some_and(|n| n.written_off.is_some()));
    assert!(matches!(board.hang_up(), End::Bye { leaving: true }));
}

#[test]
fn how_a_board_is_is_kept_in_memory_until_its_next_session() {
    let manager = manager();
    let temperature = || manager.view().seen.health(node(1)).map(|health| health.temperature);
    // Nobody is woken by it.
    let until = |want: Option<Option<i16>>| {
        let late = Instant::now() + Duration::from_secs(15);
        while temperature() != want {
            assert!(Instant::now() < late, "{:?}", temperature());
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let open = || {
        let mut board = Board::connect(&manager, 1);
        board.say(&hello((1, 2)));
        let ToAgent::Welcome(welcome) = board.hear() else { panic!("no Welcome") };
        assert_eq!(welcome.version, 2);
        board.hear_net();
        (board.hear_assign(), board)
    };
    let say = |board: &mut Board, degrees| {
        board.say(&ToManager::Health(BoardHealth { temperature: Some(degrees), ..BoardHealth::default() }));
    };
    let (set, mut board) = open();
    say(&mut board, 61);
    until(Some(Some(61)));
    let index = manager.view().state.index();
    // Too soon: passed over. What comes after it has been heard.
    say(&mut board, 99);
    board.say_status(true, true, set.to, vec![report(1, TaskState::Running)]);
    manager.until(|view| view.is_ready(node(1)));
    assert_eq!((temperature(), manager.view().state.index()), (Some(Some(61)), index), "nothing is stored");
    drop(board);
    let (_, mut board) = open();
    // The new session has not said.
    until(None);
    say(&mut board, 50);
    until(Some(Some(50)));
    manager.commit(Change::NodeRemove { node: node(1) });
    until(None);
}

/// What the manager says to `first` as the first message of node `number`.
#[track_caller]
fn check_refused(number: u128, messages: &[ToManager], want: RefusedCode, words: &str) {
    let manager = manager();
    let mut board = Board::connect(&manager, number);
    messages.iter().for_each(|message| board.say(message));
    let (code, reason) = board.hear_refusal();
    assert_eq!(code, want);
    assert!(reason.contains(words), "{reason}");
    assert!(matches!(board.hang_up(), End::Refused(_)));
}

#[test]
fn wrong_openings_are_refused() {
    use RefusedCode::*;
    let join = || ToManager::Join(Join { versions: (1, 1), token: "t".into(), csr: vec![1], hostname: "h".into() });
    check_refused(1, &[ToManager::Heartbeat(1)], Protocol, "starts with Hello");
    check_refused(1, &[ToManager::Bye { leaving: true }], Protocol, "starts with Hello");
    check_refused(1, &[join()], Protocol, "starts with Hello");
    check_refused(1, &[hello((3, 7))], Version, "speaks 3 to 7, the manager 1 to 2");
    check_refused(1, &[hello((0, 0))], Version, "speaks 0 to 0");
    check_refused(1, &[hello((3, 1))], Version, "no common");
    check_refused(9, &[hello((1, 1))], NotMember, "join it again");
    check_refused(1, &[hello((1, 1)), hello((1, 1))], Protocol, "no place inside");
    check_refused(1, &[hello((0, 9)), join()], Protocol, "no place inside");
    let health = ToManager::Health(BoardHealth::default());
    check_refused(1, &[hello((1, 1)), health], Protocol, "no place in a session of version 1");
}

/// Bytes, at the start or inside a session, that end it without a word; nothing else happens.
#[track_caller]
fn check_garbage(bytes: &[u8], hang_up: bool) {
    for inside in [false, true] {
        let manager = manager();
        let mut board = if inside { Board::open(&manager, 1).0 } else { Board::connect(&manager, 1) };
        board.say_bytes(bytes);
        let end = if hang_up {
            board.hang_up()
        } else {
            while board.hear_any().is_some() {}
            within(board.session)
        };
        assert!(matches!(end, End::Frame(_)), "{end:?}");
        assert!(!manager.view().is_ready(node(1)));
        // The manager serves on.
        Board::open(&manager, 1);
    }
}

#[test]
fn garbage_ends_only_its_session() {
    check_garbage(&[0, 0, 0, 0], false);
    check_garbage(&[0, 0, 0, 3, 0xc1, 0xc1, 0xc1], false);
    check_garbage(&[0xff; 64], false);
    let long = u32::try_from(FRAME_FROM_AGENT_MAX + 1).expect("fits").to_be_bytes();
    check_garbage(&long, false);
    check_garbage(&[0, 0, 0, 9, 1], true);
    // The right map with a second message hidden behind it.
    check_garbage(b"\0\0\0\x0d\x81\xa9Heartbeat\x01\xc0", false);
}

#[test]
fn closing_is_no_fault() {
    let manager = manager();
    assert!(matches!(Board::connect(&manager, 1).hang_up(), End::Closed));
    assert!(matches!(Board::open(&manager, 1).0.hang_up(), End::Closed));
}

#[test]
fn a_newer_session_takes_over() {
    let manager = manager();
    let (mut old, ..) = Board::open(&manager, 1);
    let (mut new, _, set) = Board::open(&manager, 1);
    assert_eq!(old.hear_refusal().0, RefusedCode::Replaced);
    assert!(matches!(old.hang_up(), End::Refused(_)));
    // The end of the old one says nothing about the node.
    new.say_status(true, true, set.to, vec![report(1, TaskState::Running)]);
    manager.until(|view| view.is_ready(node(1)));
    std::thread::sleep(Duration::from_millis(2500));
    new.settle(1);
    assert!(!manager.is_down(node(1)));
}

/// What it says of itself and which board it is are two commits.
#[test]
fn a_disk_that_stalls_while_a_session_opens_writes_nobody_off() {
    let manager = Manager::new(vec![new_node(1)]);
    manager.disk.stall_syncs(Duration::from_millis(2500));
    let mut board = Board::connect(&manager, 1);
    let ToManager::Hello(hello) = hello((1, 1)) else { panic!("no Hello") };
    let serial = BoardId { serial: Some([1; 32]), machine: None };
    board.say(&ToManager::Hello(Hello { board: serial, ..hello }));
    let begun = Instant::now();
    let heard = board.hear();
    assert!(matches!(heard, ToAgent::Welcome(_)), "{heard:?}");
    assert!(begun.elapsed() > Duration::from_millis(4500), "{:?}: nothing stalled", begun.elapsed());
    manager.disk.stall_syncs(Duration::ZERO);
    // It has a slow start itself.
    std::thread::sleep(Duration::from_millis(4500));
    board.settle(1);
    assert!(!manager.is_down(node(1)));
    // From then on its silence counts.
    manager.until(|view| view.state.node(node(1)).is_some_and(|node| node.written_off.is_some()));
}

/// The hub itself waits for the disk, and the first it reads then is not what node 1 said meanwhile.
#[test]
fn a_disk_that_stalls_a_write_off_writes_off_nobody_else() {
    let manager = Manager::new(vec![new_node(1), new_node(2), new_node(3)]);
    let (mut board, _, set) = Board::open(&manager, 1);
    board.say_status(true, true, set.to, Vec::new());
    let (mut silent, _, set) = Board::open(&manager, 2);
    silent.say_status(true, true, set.to, Vec::new());
    manager.until(|view| view.is_ready(node(1)) && view.is_ready(node(2)));
    // Longer than node 1 may be silent.
    manager.disk.stall_syncs(Duration::from_secs(6));
    let beat = |board: &mut Board, number| {
        board.settle(number);
        std::thread::sleep(Duration::from_millis(200));
    };
    let begun = Instant::now();
    for number in 0.. {
        // It is told before it is written off.
        if silent.session.is_finished() {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "node 2 is not missed");
        beat(&mut board, number);
    }
    assert!(!manager.is_down(node(2)), "nothing stalled");
    let mut third = Board::connect(&manager, 3);
    third.say(&hello((1, 1)));
    // It comes first.
    std::thread::sleep(Duration::from_millis(200));
    // What is under way stalls on; nothing after it does.
    manager.disk.stall_syncs(Duration::ZERO);
    for number in 1000.. {
        beat(&mut board, number);
        if manager.is_down(node(2)) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "node 2 is not written off");
    }
    let heard = third.hear();
    assert!(matches!(heard, ToAgent::Welcome(_)), "{heard:?}");
    (2000..2005).for_each(|number| beat(&mut board, number));
    assert!(!manager.is_down(node(1)));
}

#[test]
fn a_new_heartbeat_period_begins_with_a_new_session() {
    let manager = manager();
    let heartbeat = |seconds| {
        let cluster = manager.view().state.cluster().expect("a cluster").clone();
        let spec = ClusterSpec { heartbeat: Some(Duration::from_secs(seconds)), ..cluster.spec.clone() };
        let version = cluster.meta.version;
        manager.commit(Change::ClusterUpdate { version, spec, worker_secret: None, manager_secret: None });
    };
    heartbeat(30);
    let (mut slow, welcome, set) = Board::open(&manager, 1);
    assert_eq!(welcome.heartbeat_ms, 30_000);
    slow.say_status(true, true, set.to, Vec::new());
    manager.until(|view| view.is_ready(node(1)));
    heartbeat(1);
    let (code, words) = slow.hear_refusal();
    assert_eq!(code, RefusedCode::Busy);
    assert!(words.contains("heartbeat period changed"), "{words}");
    // It had promised a sign of life every 30 s only: it is not judged by the new period before it knows of it.
    std::thread::sleep(Duration::from_millis(4500));
    assert!(!manager.is_down(node(1)));
    let (mut quick, welcome, _) = Board::open(&manager, 1);
    assert_eq!(welcome.heartbeat_ms, 1000);
    quick.settle(1);
}

#[test]
fn only_a_whole_report_at_the_right_index_readmits() {
    let manager = manager();
    manager.commit(write_off(1));
    let (mut board, _, set) = Board::open(&manager, 1);
    let at = set.to;
    use TaskState::{Accepted, Preparing, Running};
    let partial = [(true, true, at - 1, Accepted), (false, true, at, Preparing), (true, false, at, Running)];
    for (complete, last, index, state) in partial {
        board.say_status(complete, last, index, vec![report(1, state)]);
        manager.until(|view| view.state_of(task(1)) == Some(state));
        assert!(manager.is_down(node(1)), "{complete} {last} {index}");
    }
    board.say_status(true, true, at, Vec::new());
    manager.until(|view| view.is_ready(node(1)));
    assert!(!manager.is_down(node(1)));
}

#[test]
fn silence_and_a_lost_connection_write_a_node_off() {
    let manager = manager();
    let (mut board, _, set) = Board::open(&manager, 1);
    board.say_status(true, true, set.to, Vec::new());
    let (mut second, _, set) = Board::open(&manager, 2);
    second.say_status(true, true, set.to, Vec::new());
    manager.until(|view| view.is_ready(node(1)) && view.is_ready(node(2)));
    let begun = Instant::now();
    second.hang_up();
    let (code, reason) = board.hear_refusal();
    assert_eq!(code, RefusedCode::Busy);
    assert!(reason.contains("not heard"), "{reason}");
    let silent = begun.elapsed();
    assert!((Duration::from_millis(2900)..Duration::from_millis(6000)).contains(&silent), "{silent:?}");
    manager.until(|view| {
        let node = view.state.node(node(1)).expect("a node");
        node.written_off.as_ref().is_some_and(|w| w.reason == "heartbeat failure")
            && view.node_status(node) == NodeStatus::Down
    });
    manager.until(|view| view.state.node(node(2)).is_some_and(|n| n.written_off.is_some()));
    let closed = begun.elapsed();
    assert!((Duration::from_millis(5900)..Duration::from_millis(7900)).contains(&closed), "{closed:?}");
}

#[test]
fn a_stall_of_the_manager_s_disk_writes_no_node_off() {
    let manager = manager();
    let (mut board, _, set) = Board::open(&manager, 1);
    board.say_status(true, true, set.to, Vec::new());
    manager.until(|view| view.is_ready(node(1)));
    manager.disk.stall_syncs(Duration::from_secs(4));
    board.say_status(false, false, set.to, vec![report(1, TaskState::Failed)]);
    for number in 1..=10 {
        board.settle(number);
        std::thread::sleep(Duration::from_millis(500));
    }
    manager.disk.stall_syncs(Duration::ZERO);
    manager.until(|view| view.state_of(task(1)) == Some(TaskState::Failed));
    assert!(!manager.is_down(node(1)) && manager.view().is_ready(node(1)));
}

#[test]
fn a_removed_node_is_told() {
    let manager = manager();
    let (mut board, ..) = Board::open(&manager, 1);
    manager.commit(Change::NodeRemove { node: node(1) });
    assert_eq!(board.hear_refusal().0, RefusedCode::NotMember);
}

#[test]
fn a_node_that_has_just_joined_may_open_its_session() {
    let manager = manager();
    for number in 3..40 {
        manager.commit(new_node(number));
        Board::open(&manager, number);
    }
}

#[test]
fn reports_that_do_not_fit_do_no_harm() {
    let manager = manager();
    let (mut board, _, set) = Board::open(&manager, 2);
    // Another node's task, one nobody knows, an end told twice.
    let foreign = vec![report(1, TaskState::Failed), report(9, TaskState::Failed)];
    board.say_status(true, true, set.to, foreign);
    manager.until(|view| view.is_ready(node(2)));
    assert!(manager.view().state.task(task(1)).is_some_and(|t| t.ended.is_none()));
    let (mut board, _, set) = Board::open(&manager, 1);
    board.say_status(true, true, set.to, vec![report(1, TaskState::Failed), report(1, TaskState::Complete)]);
    manager.until(|view| view.state_of(task(1)) == Some(TaskState::Failed));
    assert_eq!(board.hear_assign().removed, [task(1)]);
    // The end again, after it is known.
    board.say_status(false, false, set.to, vec![report(1, TaskState::Failed)]);
    board.settle(1);
}

#[test]
fn contents_are_opened_for_a_few_boards_at_a_time() {
    let manager = manager();
    let id = dependency(8);
    let body = crate::vault::testing().seal(Owner::Dependency(DependencyKind::Secret, id), b"x").expect("sealed");
    let kind = DependencyKind::Secret;
    let labels = Default::default();
    let new = NewDependency { id, kind, name: "key".into(), labels, template: false, body };
    manager.commit(Change::DependencyCreate(Box::new(new)));
    let mut keen = (*spec("keen", "nginx", 0)).clone();
    let mut task_spec = (*keen.task).clone();
    let file = FileRef { id, name: "key".into(), target: "key".into(), uid: 0, gid: 0, mode: 0o400 };
    task_spec.container.secrets = vec![file];
    keen.task = task_spec.into();
    manager.commit(new_service(2, keen.into()));
    let revision = manager.view().state.service(service(2)).expect("a service").revision;
    manager.commit(create(new_task(2, 2, revision)));
    manager.commit(assign(2, 2));

    let turns: Vec<_> = (0..SETS_OPEN_MAX).map(|_| manager.context.sets.try_acquire().expect("a turn")).collect();
    let mut waits = Board::connect(&manager, 2);
    waits.say(&hello((1, 1)));
    assert!(matches!(waits.hear(), ToAgent::Welcome(_)));
    // It is heard, and others that need no contents go on.
    for number in 1..4 {
        waits.say(&ToManager::Heartbeat(number));
        assert_eq!(waits.hear(), ToAgent::Pong(number));
    }
    Board::open(&manager, 1);
    drop(turns);
    let set = waits.hear_assign();
    assert!(set.complete && set.bodies.len() == 1, "{set:?}");
    assert_eq!(waits.hear_assign().tasks.len(), 1);
    waits.settle(9);
    assert_eq!(
        (0..SETS_OPEN_MAX).map_while(|_| manager.context.sets.try_acquire()).collect::<Vec<_>>().len(),
        SETS_OPEN_MAX
    );
}
