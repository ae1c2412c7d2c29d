use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use fastrand::Rng;
use racimo_common::time::Mono;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(millis: u64) -> Mono {
    Mono::from_nanos(millis * 1_000_000)
}

fn source(number: u32) -> Source {
    Source::of(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number)))
}

fn small() -> Limits {
    Limits {
        connections: 20,
        half_open: 8,
        reserve: 3,
        grace: 3 * SECOND,
        source: Rate::per_second(10, 1),
        known_times: 4,
        strangers: Rate::per_second(30, 10),
        failure_cost: 4,
        sources: 16,
        member_connections: 2,
        member: Rate::per_second(4, 1),
    }
}

#[track_caller]
fn enter(gate: &mut Gate<u32>, number: u32, is_known: bool, now: Mono) -> Entered {
    gate.knock(source(number), is_known, now).expect("it comes in")
}

#[test]
fn the_address_that_holds_most_gives_way() {
    let mut gate = Gate::new(small());
    let flood: Vec<Id> = (0..5).map(|_| enter(&mut gate, 1, false, at(0)).id).collect();
    // Its own kind of room is full: nothing of it goes before its time.
    assert_eq!(gate.knock(source(1), false, at(100)), Err(Turned::Crowded));
    let other = enter(&mut gate, 2, false, at(100));
    assert_eq!(other.out, Some(flood[0]));
    assert_eq!(gate.member(flood[0], 9, at(100)), Err(Turned::Out), "it has lost its place");
    assert_eq!(enter(&mut gate, 3, false, at(100)).out, Some(flood[1]));
    // The flood holds three, each of the others one; a second of theirs still comes in, a third does not.
    assert_eq!(enter(&mut gate, 2, false, at(100)).out, Some(flood[2]));
    assert_eq!(gate.knock(source(2), false, at(100)), Err(Turned::Crowded));
    assert_eq!(gate.knock(source(3), false, at(100)), Err(Turned::Crowded), "equals leave each other alone");
    // After the grace one's own goes first.
    assert_eq!(enter(&mut gate, 2, false, at(3100)).out, Some(other.id));
    assert_eq!(gate.count(), (9, 5));
    gate.left(flood[0], at(3100));
    assert_eq!(gate.count(), (8, 5));
}

#[test]
fn known_addresses_have_room_of_their_own() {
    let mut gate = Gate::new(small());
    let strangers: Vec<Id> = (0..5).map(|number| enter(&mut gate, number, false, at(0)).id).collect();
    assert_eq!(gate.knock(source(9), false, at(0)), Err(Turned::Crowded));
    for number in 100..103 {
        assert_eq!(enter(&mut gate, number, true, at(1)).out, None, "the reserve");
    }
    // Then strangers go, the oldest first, until known ones hold everything.
    let out: Vec<_> = (103..108).map(|number| enter(&mut gate, number, true, at(2)).out).collect();
    assert_eq!(out, strangers.iter().copied().map(Some).collect::<Vec<_>>());
    assert_eq!(gate.knock(source(108), true, at(3)), Err(Turned::Crowded));
    assert_eq!(gate.knock(source(9), false, at(9000)), Err(Turned::Crowded), "strangers never displace known ones");
    assert_eq!(gate.count(), (13, 8));
}

#[test]
fn only_connections_that_lead_to_nothing_cost() {
    let mut gate = Gate::new(small());
    // A hundred members behind one address.
    for member in 0..100 {
        let id = enter(&mut gate, 1, false, at(0)).id;
        assert_eq!(gate.member(id, member, at(0)), Ok(()));
        gate.left(id, at(0));
    }
    for _ in 0..20 {
        let id = enter(&mut gate, 1, false, at(0)).id;
        gate.joined(id);
        gate.left(id, at(0));
    }
    for _ in 0..10 {
        let id = enter(&mut gate, 1, false, at(0)).id;
        gate.left(id, at(0));
    }
    assert_eq!(gate.knock(source(1), false, at(0)), Err(Turned::Often));
    assert_eq!(gate.knock(source(1), false, at(999)), Err(Turned::Often));
    let id = enter(&mut gate, 1, false, at(1000)).id;
    gate.left(id, at(1000));
    // A wrong token costs four: two are all of ten that fit.
    for _ in 0..2 {
        let id = enter(&mut gate, 2, false, at(1000)).id;
        gate.failed(id, at(1000));
        gate.left(id, at(1000));
    }
    for _ in 0..2 {
        let id = enter(&mut gate, 2, false, at(1000)).id;
        gate.left(id, at(1000));
    }
    assert_eq!(gate.knock(source(2), false, at(1000)), Err(Turned::Often));
    assert_eq!(gate.count(), (0, 0));
}

#[test]
fn a_process_with_few_files_takes_fewer_connections() {
    let check = |files: usize, want: usize| assert_eq!(Limits::agents(files).connections, want, "{files} files");
    check(usize::MAX, limits::CONNECTIONS_MAX);
    check(4096, 4096 - files::API_FILES - limits::FILES_RESERVE);
    check(64, 1);
}

#[test]
fn members_have_limits_too() {
    let mut gate = Gate::new(small());
    let open: Vec<Id> = (0..2)
        .map(|_| {
            let id = enter(&mut gate, 1, true, at(0)).id;
            assert_eq!(gate.member(id, 7, at(0)), Ok(()));
            id
        })
        .collect();
    let third = enter(&mut gate, 1, true, at(0)).id;
    assert_eq!(gate.member(third, 7, at(0)), Err(Turned::MemberMany));
    assert_eq!(gate.member(third, 8, at(0)), Ok(()), "another's room is its own");
    for id in open {
        gate.left(id, at(0));
    }
    for _ in 0..2 {
        let id = enter(&mut gate, 1, true, at(0)).id;
        assert_eq!(gate.member(id, 7, at(0)), Ok(()));
        gate.left(id, at(0));
    }
    let id = enter(&mut gate, 1, true, at(0)).id;
    assert_eq!(gate.member(id, 7, at(0)), Err(Turned::MemberOften));
    assert_eq!(gate.member(id, 7, at(1000)), Ok(()));
    assert_eq!(gate.count(), (2, 0));
}

#[test]
fn everything_is_bounded() {
    let mut gate = Gate::<u32>::new(small());
    let mut rng = Rng::with_seed(5);
    let mut inside = Vec::new();
    for step in 0..20_000_u64 {
        let now = at(step * 20);
        let number = rng.u32(0..200);
        match gate.knock(source(number), number > 150, now) {
            Ok(entered) => {
                inside.push(entered.id);
                if let Some(out) = entered.out {
                    gate.left(out, now);
                    inside.retain(|id| *id != out);
                }
            }
            Err(turned) => assert!(turned != Turned::Out),
        }
        if !inside.is_empty() {
            let id = inside[rng.usize(0..inside.len())];
            match rng.u8(0..8) {
                0 => drop(gate.member(id, rng.u32(0..50), now)),
                1 => gate.failed(id, now),
                2 => gate.joined(id),
                3..5 => {
                    gate.left(id, now);
                    inside.retain(|one| *one != id);
                }
                _ => {}
            }
        }
        let (all, half) = gate.count();
        assert!(all <= 20 && half <= 8 && gate.half_unknown <= 5 && all == inside.len());
        assert_eq!(half, gate.holders.values().map(BTreeSet::len).sum::<usize>());
        assert!(gate.sources.len() <= 16 && gate.members.len() <= 21, "{} members", gate.members.len());
    }
}

/// Who dials in [`storm`].
struct Boards {
    count: u32,
    /// Whether all come from one address (a router's), or each from its own.
    one_address: bool,
    /// Whether the manager knows the address.
    are_known: bool,
}

/// Connections that say nothing, from so many addresses, so many a second.
struct Flood {
    addresses: u32,
    per_second: u32,
}

/// A whole cluster dials a manager that does so many handshakes a second, with the agent's pauses; how long until all
/// are inside.
fn storm(boards: &Boards, flood: &Flood, handshakes_per_second: u32) -> Duration {
    const STEP: u64 = 5;
    const ROUND_TRIP: u64 = 40;
    let mut gate = Gate::<u32>::new(Limits::agents(usize::MAX));
    let mut rng = Rng::with_seed(7);
    // When each dials next, and how long it pauses after that.
    let mut dials: BTreeMap<u32, (u64, u64)> =
        (0..boards.count).map(|board| (board, (rng.u64(0..1000), 100))).collect();
    // Handshakes under way: board, when it can begin, work left.
    let mut under_way: BTreeMap<Id, (u32, u64, f64)> = BTreeMap::new();
    let mut idle: BTreeMap<Id, u64> = BTreeMap::new();
    let mut inside = 0;
    for step in 0.. {
        let millis = step * STEP;
        let now = at(millis);
        assert!(millis < 300_000, "{inside} of {} boards came in", boards.count);
        let mut out = Vec::new();
        for _ in 0..u64::from(flood.per_second) * STEP / 1000 {
            let from = source(1_000_000 + rng.u32(0..flood.addresses.max(1)));
            if let Ok(entered) = gate.knock(from, false, now) {
                idle.insert(entered.id, millis);
                out.extend(entered.out);
            }
        }
        let due: Vec<u32> = dials.iter().filter(|(_, (when, _))| *when <= millis).map(|(board, _)| *board).collect();
        for board in due {
            let from = source(if boards.one_address { 0 } else { board });
            match gate.knock(from, boards.are_known, now) {
                Ok(entered) => {
                    dials.remove(&board);
                    under_way.insert(entered.id, (board, millis + ROUND_TRIP, 1.0));
                    out.extend(entered.out);
                }
                Err(_) => again(&mut dials, board, millis, &mut rng),
            }
        }
        for id in out {
            gate.left(id, now);
            idle.remove(&id);
            if let Some((board, ..)) = under_way.remove(&id) {
                again(&mut dials, board, millis, &mut rng);
            }
        }
        for id in idle.iter().filter(|(_, since)| millis - **since > 10_000).map(|(id, _)| *id).collect::<Vec<_>>() {
            gate.left(id, now);
            idle.remove(&id);
        }
        let active = under_way.values().filter(|(_, begins, _)| *begins <= millis).count();
        let share = f64::from(handshakes_per_second) * f64::from(u32::try_from(STEP).unwrap())
            / 1000.0
            / f64::from(u32::try_from(active.max(1)).unwrap());
        let mut done = Vec::new();
        for (id, (_, begins, left)) in &mut under_way {
            if *begins <= millis {
                *left -= share;
                if *left <= 0.0 {
                    done.push(*id);
                }
            }
        }
        for id in done {
            let (board, ..) = under_way.remove(&id).expect("under way");
            assert_eq!(gate.member(id, board, now), Ok(()));
            inside += 1;
        }
        if inside == boards.count {
            return Duration::from_millis(millis);
        }
    }
    unreachable!()
}

/// The agent's pause before it dials again: it doubles, and is drawn from its upper half.
fn again(dials: &mut BTreeMap<u32, (u64, u64)>, board: u32, millis: u64, rng: &mut Rng) {
    let (_, pause) = dials.get(&board).copied().unwrap_or((0, 100));
    dials.insert(board, (millis + rng.u64(pause / 2..=pause), (pause * 2).min(8000)));
}

#[test]
fn a_cluster_comes_back_from_a_power_cut() {
    let quiet = Flood { addresses: 0, per_second: 0 };
    for (one_address, are_known) in [(true, true), (true, false), (false, true), (false, false)] {
        let boards = Boards { count: 2000, one_address, are_known };
        // 2,000 handshakes take 10 s of such a manager's time: no board may be written off (20 s).
        let took = storm(&boards, &quiet, 200);
        assert!(took < 18 * SECOND, "one address: {one_address}, known: {are_known}: {took:?}");
    }
}

#[test]
fn floods_do_not_keep_boards_out() {
    let one = Flood { addresses: 1, per_second: 2000 };
    let many = Flood { addresses: 5000, per_second: 2000 };
    let behind_one = Boards { count: 500, one_address: true, are_known: true };
    let known = Boards { count: 500, one_address: false, are_known: true };
    let unknown = Boards { count: 500, one_address: false, are_known: false };
    for (boards, flood, within) in
        [(&behind_one, &one, 8), (&known, &one, 8), (&unknown, &one, 8), (&behind_one, &many, 8), (&known, &many, 8)]
    {
        let took = storm(boards, flood, 200);
        assert!(took < SECOND * within, "{took:?}");
    }
}
