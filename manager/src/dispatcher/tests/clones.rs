//! Two boards with one key, and boards that only look so.

use std::time::{Duration, Instant};

use racimo_common::object::{NodeDescription, WireguardKey};
use racimo_common::wire::{BoardId, Hello, RefusedCode, ToAgent, ToManager, Trusts};

use super::Manager;
use super::board::Board;
use crate::dispatcher::session::End;
use crate::store::testing::*;
use crate::store::{Change, Node};

const NOWHERE: BoardId = BoardId { serial: None, machine: None };

fn board(serial: u8) -> BoardId {
    BoardId { serial: Some([serial; 32]), machine: Some([9; 32]) }
}

fn hello(boot: u64, board: BoardId, hostname: &str) -> ToManager {
    let description = NodeDescription { hostname: hostname.to_owned(), ..NodeDescription::default() };
    ToManager::Hello(Hello { versions: (1, 1), boot, description, trusts: Trusts::default(), board })
}

fn asks(manager: &Manager, boot: u64, board: BoardId, hostname: &str) -> Board {
    let mut asker = Board::connect(manager, 1);
    asker.say(&hello(boot, board, hostname));
    asker
}

/// It is let in, and reports that it has nothing.
#[track_caller]
fn enters(manager: &Manager, mut asker: Board) -> Board {
    let message = asker.hear();
    assert!(matches!(message, ToAgent::Welcome(_)), "{message:?}");
    let set = asker.hear_assign();
    asker.say_status(true, true, set.to, Vec::new());
    manager.until(|view| view.is_ready(node(1)));
    asker
}

#[track_caller]
fn is_refused(asker: Board, want: RefusedCode, words: &str) {
    let mut asker = asker;
    let (code, reason) = asker.hear_refusal();
    assert_eq!(code, want, "{reason}");
    assert!(reason.contains(words), "{reason}");
    assert!(matches!(asker.hang_up(), End::Refused(_)));
}

fn stored(manager: &Manager) -> Node {
    (**manager.view().state.node(node(1)).expect("a node")).clone()
}

/// Heartbeats for so long.
fn beat(board: &mut Board, span: Duration) {
    let begun = Instant::now();
    for number in 1.. {
        board.settle(number);
        if begun.elapsed() >= span {
            return;
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn the_second_of_two_boards_with_one_key_is_refused() {
    let manager = Manager::new(vec![new_node(1)]);
    let mut first = enters(&manager, asks(&manager, 1, board(1), "first"));
    let before = stored(&manager);
    assert_eq!(before.board, Some(board(1)));
    for _ in 0..2 {
        let second = asks(&manager, 2, board(2), "second");
        beat(&mut first, Duration::from_millis(2300));
        is_refused(second, RefusedCode::Clone, "pi-agent reset-identity");
    }
    // The first did not notice, and nothing of it was replaced.
    first.settle(9);
    assert_eq!(stored(&manager), before);
    assert!(manager.view().is_ready(node(1)));
    // It may reconnect, and the second cannot slip in between.
    first.hang_up();
    is_refused(asks(&manager, 2, board(2), "second"), RefusedCode::Busy, "may come back first");
    let mut first = enters(&manager, asks(&manager, 1, board(1), "first"));
    first.settle(1);
    assert_eq!(stored(&manager), before);
}

#[test]
fn two_on_boards_that_look_alike_are_told_apart_too() {
    let manager = Manager::new(vec![new_node(1)]);
    let mut first = enters(&manager, asks(&manager, 1, NOWHERE, "board"));
    let second = asks(&manager, 2, NOWHERE, "board");
    beat(&mut first, Duration::from_millis(2300));
    is_refused(second, RefusedCode::Clone, "card is a copy");
    first.hang_up();
    is_refused(asks(&manager, 2, NOWHERE, "board"), RefusedCode::Busy, "may come back first");
    assert_eq!(stored(&manager).board, None);
}

#[test]
fn an_agent_that_restarts_comes_in_at_once() {
    let manager = Manager::new(vec![new_node(1)]);
    enters(&manager, asks(&manager, 1, board(1), "board")).hang_up();
    let begun = Instant::now();
    enters(&manager, asks(&manager, 2, board(1), "board")).hang_up();
    // While the second waits the first goes.
    let third = enters(&manager, asks(&manager, 3, board(1), "board"));
    let fourth = asks(&manager, 4, board(1), "board");
    third.hang_up();
    enters(&manager, fourth);
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    assert!(!manager.is_down(node(1)));
}

#[test]
fn a_board_that_lost_power_comes_back_although_its_connection_hangs() {
    let manager = Manager::new(vec![new_node(1)]);
    let mut hangs = enters(&manager, asks(&manager, 1, board(1), "board"));
    let begun = Instant::now();
    let back = enters(&manager, asks(&manager, 2, board(1), "board"));
    assert!((2500..4500).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    assert_eq!(hangs.hear_refusal().0, RefusedCode::Replaced);
    // It was there all the time.
    assert!(!manager.is_down(node(1)));
    back.hang_up();
}

#[test]
fn a_card_that_was_moved_is_taken_once_the_first_board_is_gone() {
    let manager = Manager::new(vec![new_node(1)]);
    enters(&manager, asks(&manager, 1, board(1), "old")).hang_up();
    is_refused(asks(&manager, 2, board(2), "new"), RefusedCode::Busy, "may come back first");
    assert_eq!(stored(&manager).board, Some(board(1)));
    manager.until(|view| view.state.node(node(1)).is_some_and(|node| node.written_off.is_some()));
    let mut moved = enters(&manager, asks(&manager, 2, board(2), "new"));
    assert_eq!(stored(&manager).board, Some(board(2)));
    assert_eq!(stored(&manager).description.hostname, "new");
    // Now the old one is the second.
    let old = asks(&manager, 1, board(1), "old");
    beat(&mut moved, Duration::from_millis(2300));
    is_refused(old, RefusedCode::Clone, "reset-identity");
}

#[test]
fn a_copy_that_was_refused_does_not_take_over_while_the_first_reboots() {
    let manager = Manager::new(vec![new_node(1)]);
    let mut first = enters(&manager, asks(&manager, 1, board(1), "first"));
    let second = asks(&manager, 2, board(2), "second");
    beat(&mut first, Duration::from_millis(2300));
    is_refused(second, RefusedCode::Clone, "reset-identity");
    // The first falls silent while the second asks again.
    let second = asks(&manager, 2, board(2), "second");
    manager.until(|view| view.state.node(node(1)).is_some_and(|node| node.written_off.is_some()));
    is_refused(second, RefusedCode::Busy, "may come back first");
    is_refused(asks(&manager, 2, board(2), "second"), RefusedCode::Busy, "may come back first");
    // It was rebooted.
    enters(&manager, asks(&manager, 3, board(1), "first"));
    drop(first);
}

#[test]
fn of_two_that_wait_the_board_that_is_known_is_the_node() {
    let manager = Manager::new(vec![new_node(1)]);
    let mut hangs = enters(&manager, asks(&manager, 1, board(1), "first"));
    let mut back = asks(&manager, 2, board(1), "first");
    // Whichever of the two the manager hears first.
    std::thread::sleep(Duration::from_millis(100));
    is_refused(asks(&manager, 3, board(2), "copy"), RefusedCode::Busy, "asks, too");
    back = enters(&manager, back);
    assert_eq!(hangs.hear_refusal().0, RefusedCode::Replaced);
    // The other way round.
    let copy = asks(&manager, 3, board(2), "copy");
    std::thread::sleep(Duration::from_millis(100));
    let again = asks(&manager, 4, board(1), "first");
    is_refused(copy, RefusedCode::Busy, "asks, too");
    enters(&manager, again);
    assert_eq!(back.hear_refusal().0, RefusedCode::Replaced);
}

#[test]
fn two_copies_are_both_told_that_they_are_copies() {
    let manager = Manager::new(vec![new_node(1)]);
    let mut first = enters(&manager, asks(&manager, 1, board(1), "first"));
    let mut told = [false; 2];
    let begun = Instant::now();
    let mut copies = [2, 3].map(|boot| asks(&manager, boot, NOWHERE, "copy"));
    for number in 1.. {
        for (at, boot) in [(0, 2), (1, 3)] {
            // The one that asks takes the place of the one that waits.
            let again = asks(&manager, boot, NOWHERE, "copy");
            let code = std::mem::replace(&mut copies[at], again).hear_refusal().0;
            told[at] |= code == RefusedCode::Clone;
            std::thread::sleep(Duration::from_millis(100));
        }
        first.settle(number);
        if told == [true; 2] {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{told:?}");
    }
}

#[test]
fn after_a_restart_of_the_manager_the_board_it_knows_comes_first() {
    let manager = Manager::new(vec![new_node(1)]);
    enters(&manager, asks(&manager, 1, board(1), "first"));
    let disk = manager.disk.clone();
    drop(manager);
    let manager = Manager::on(disk);
    is_refused(asks(&manager, 2, board(2), "second"), RefusedCode::Busy, "may come back first");
    let mut first = enters(&manager, asks(&manager, 1, board(1), "first"));
    let second = asks(&manager, 2, board(2), "second");
    beat(&mut first, Duration::from_millis(2300));
    is_refused(second, RefusedCode::Clone, "reset-identity");
}

#[test]
fn who_waits_is_told_when_the_node_is_removed() {
    let manager = Manager::new(vec![new_node(1)]);
    let mut first = enters(&manager, asks(&manager, 1, board(1), "first"));
    let second = asks(&manager, 2, board(2), "second");
    first.settle(1);
    manager.commit(Change::NodeRemove { node: node(1) });
    assert_eq!(first.hear_refusal().0, RefusedCode::NotMember);
    is_refused(second, RefusedCode::NotMember, "join it again");
    is_refused(asks(&manager, 1, board(1), "first"), RefusedCode::NotMember, "was it removed?");
}

#[test]
fn a_removed_board_is_nobody_s_peer_any_more() {
    let manager = Manager::new(vec![new_node(1), new_node(2)]);
    let mut other = Board::open(&manager, 2).0;
    let mut removed = Board::connect(&manager, 1);
    let key: WireguardKey = [5; 32].into();
    let description = NodeDescription { wireguard_key: Some(key), ..NodeDescription::default() };
    let (boot, trusts, versions) = (1, Trusts::default(), (1, 1));
    removed.say(&ToManager::Hello(Hello { versions, boot, description, trusts, board: board(1) }));
    let mut removed = enters(&manager, removed);
    while other.table.peers.get(&node(1)).is_none_or(|peer| peer.key != Some(key)) {
        other.hear_net();
    }
    let begun = Instant::now();
    manager.commit(Change::NodeRemove { node: node(1) });
    while other.table.peers.contains_key(&node(1)) {
        other.hear_net();
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(removed.hear_refusal().0, RefusedCode::NotMember);
}
