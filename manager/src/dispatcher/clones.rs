//! Is it the board we know, or another one with a copy of its card?
//!
//! In: what is known of a node's agents ([`Record`]), who says `Hello`, `Mono`. Out: a [`Verdict`]. Keeps nothing but the
//! record.
//!
//! Each agent draws a number when it starts (`boot`). The same number again is the same agent: it reconnects. Another
//! one is an agent that was restarted, or a second one with the same key. They differ in one thing: of a restarted agent
//! the one before is never heard again.
//!
//! ```text
//! Hello ─ of the last session's agent ─▶ Enter
//! Hello ─ whose board is another one, or that was refused or replaced before,
//!         while the last session's agent may be about to reconnect ─▶ Later
//! Hello ─ that was refused or replaced before, while the last session's board may be starting again ─▶ Later
//! Hello ─ any other ─ nobody is in session ─▶ Enter
//!   └─ somebody is ─▶ Wait ─ its session closes, or is silent until it counts as down ─▶ Enter
//!                      └─ it is heard meanwhile, and still there 1 s and 2 heartbeats later ─▶ Clone
//! ```
//! A board with the serial number of the last session's is that board, as a card takes none along: whatever it was taken
//! for before, it waits for nobody's start.

use std::time::Duration;

use racimo_common::time::Mono;
use racimo_common::wire::BoardId;

use crate::limits::{BOOTS_MAX, COPY_KEPT_OUT};

/// Heartbeats of the first agent that the second one waits for.
const HEARTBEATS: u32 = 2;
/// How long the first agent must still be there after it was heard, or a heartbeat if that is shorter: of one that has
/// ended its last words may be read late, and then its end.
const STILL_THERE: Duration = Duration::from_secs(1);

/// What to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the node: its session replaces any other.
    Enter,
    /// Judge again then, or when the session is heard or ends.
    Wait(Option<Mono>),
    /// The board of before may come back first: let it try again.
    Later,
    /// There are two boards with this key, and this is the second.
    Clone,
}

/// How the manager stands with the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// A session is open.
    Open,
    /// The last session ended; the node is not down yet.
    Closed,
    /// The manager started, and has not heard of it yet; the node is not down yet.
    Expected,
    /// Its tasks were replaced.
    Down,
}

/// Who says `Hello`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// Its agent's number.
    pub boot: u64,
    /// Its board.
    pub board: BoardId,
}

/// What is remembered of the agents of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The agent of the last session.
    boot: Option<u64>,
    /// When that was there last.
    seen: Mono,
    /// Agents that were replaced or refused, the oldest first.
    others: Vec<u64>,
    /// Other agents that wait, or waited a moment ago, the first one first.
    asking: Vec<Asking>,
}

/// Another agent that wants the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asking {
    boot: u64,
    since: Mono,
    /// When the session's agent was heard first meanwhile.
    heard: Option<Mono>,
}

impl Record {
    /// Judges who says `Hello`. `known`: the node's board, as stored. `heartbeat`: what the session's agent was told.
    pub fn judge(
        &mut self,
        asker: Asker,
        known: Option<BoardId>,
        standing: Standing,
        heartbeat: Duration,
        now: Mono,
    ) -> Verdict {
        let Asker { boot, board } = asker;
        match standing {
            _ if self.boot == Some(boot) => Verdict::Enter,
            Standing::Down if self.is_kept_out(asker, known, now) => Verdict::Later,
            Standing::Down => Verdict::Enter,
            Standing::Closed if self.others.contains(&boot) || is_other(known, board) => Verdict::Later,
            Standing::Expected if is_other(known, board) => Verdict::Later,
            Standing::Closed | Standing::Expected => Verdict::Enter,
            Standing::Open => {
                let asking = self.asks(boot, now);
                let still_there = asking.heard.map(|heard| heard + heartbeat.min(STILL_THERE));
                let due = still_there.into_iter().fold(asking.since + heartbeat * HEARTBEATS, Mono::max);
                if now < due {
                    return Verdict::Wait(Some(due));
                }
                if still_there.is_none() {
                    return Verdict::Wait(None);
                }
                self.asking.retain(|asking| asking.boot != boot);
                self.remember(boot);
                Verdict::Clone
            }
        }
    }

    /// Since when this agent asks, and what came meanwhile.
    fn asks(&mut self, boot: u64, now: Mono) -> Asking {
        if let Some(asking) = self.asking.iter().find(|asking| asking.boot == boot) {
            return *asking;
        }
        let new = Asking { boot, since: now, heard: None };
        push(&mut self.asking, new);
        new
    }

    /// Whether an agent was refused or replaced, and the one of the last session may just be starting again: one board
    /// alone is never kept out, as the agents it had before are gone; nor is the board of the last session, also if it was
    /// taken for a copy. `known`: the node's board, as stored.
    pub fn is_kept_out(&self, asker: Asker, known: Option<BoardId>, now: Mono) -> bool {
        let Asker { boot, board } = asker;
        let is_it = known.and_then(|known| known.serial).is_some_and(|serial| board.serial == Some(serial));
        !is_it && self.boot != Some(boot) && self.others.contains(&boot) && now < self.seen + COPY_KEPT_OUT
    }

    /// Whether the one that waits is rather the node than the one that asks now. `known`: the node's board, as stored.
    pub fn prefers(&self, waits: Asker, asks: Asker, known: Option<BoardId>) -> bool {
        let rank = |asker: Asker| {
            let Asker { boot, board } = asker;
            (self.boot == Some(boot), !self.others.contains(&boot), !is_other(known, board))
        };
        rank(waits) > rank(asks)
    }

    /// The session's agent was heard. What it said before the other one came may only be read now, so the first half
    /// of a heartbeat does not count. True: it is the first word since another one asked, who is due at another time now.
    pub fn heard(&mut self, heartbeat: Duration, now: Mono) -> bool {
        self.seen = now;
        let counts = |asking: &&mut Asking| asking.heard.is_none() && asking.since + heartbeat / 2 <= now;
        let mut is_first = false;
        for asking in self.asking.iter_mut().filter(counts) {
            asking.heard = Some(now);
            is_first = true;
        }
        is_first
    }

    /// The manager itself stood still: what was heard since is no sign, and the wait begins anew.
    pub fn forgive(&mut self, now: Mono) {
        for asking in &mut self.asking {
            (asking.since, asking.heard) = (now, None);
        }
    }

    /// A session opened.
    pub fn opened(&mut self, boot: u64, now: Mono) {
        self.seen = now;
        if let Some(before) = self.boot.replace(boot).filter(|before| *before != boot) {
            self.remember(before);
        }
        self.others.retain(|other| *other != boot);
        self.asking.clear();
    }

    fn remember(&mut self, boot: u64) {
        self.others.retain(|other| *other != boot);
        push(&mut self.others, boot);
    }
}

/// The oldest makes room.
fn push<T>(all: &mut Vec<T>, new: T) {
    if all.len() >= BOOTS_MAX {
        all.remove(0);
    }
    all.push(new);
}

/// Whether a node's key is on another board than before, as far as boards can be told apart: by their serial numbers;
/// a card brings its machine-id along.
pub fn is_other(known: Option<BoardId>, board: BoardId) -> bool {
    let Some(known) = known else { return false };
    match (known.serial, board.serial) {
        (Some(one), Some(other)) => one != other,
        (Some(_) | None, None) | (None, Some(_)) => {
            known.machine.zip(board.machine).is_some_and(|(one, other)| one != other)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    /// The agent in session.
    const FIRST: u64 = 1;
    const OTHER: u64 = 2;

    fn at(ms: u64) -> Mono {
        Mono::from_nanos(ms * 1_000_000)
    }

    fn board(serial: Option<u8>, machine: Option<u8>) -> BoardId {
        BoardId { serial: serial.map(|byte| [byte; 32]), machine: machine.map(|byte| [byte; 32]) }
    }

    /// A node whose session has this agent, after others.
    fn record(boots: &[u64]) -> Record {
        let mut record = Record::default();
        boots.iter().for_each(|boot| record.opened(*boot, at(0)));
        record
    }

    fn ask(record: &mut Record, boot: u64, standing: Standing, ms: u64) -> Verdict {
        record.judge(Asker { boot, board: BoardId::default() }, None, standing, SECOND, at(ms))
    }

    #[test]
    fn one_board_is_never_taken_for_two() {
        use Standing::*;
        for standing in [Open, Closed, Expected, Down] {
            // It reconnects, after a stall or from another address.
            assert_eq!(ask(&mut record(&[FIRST]), FIRST, standing, 0), Verdict::Enter, "{standing:?}");
            assert_eq!(ask(&mut record(&[7, FIRST]), FIRST, standing, 0), Verdict::Enter, "{standing:?}");
        }
        for standing in [Closed, Expected, Down] {
            // Its agent was restarted, or the manager.
            assert_eq!(ask(&mut record(&[FIRST]), OTHER, standing, 0), Verdict::Enter, "{standing:?}");
            assert_eq!(ask(&mut Record::default(), OTHER, standing, 0), Verdict::Enter, "{standing:?}");
        }
        // It was restarted, and the connection of before hangs: whatever was on its way is heard at once, then nothing.
        let mut record = record(&[FIRST]);
        assert_eq!(ask(&mut record, OTHER, Open, 1000), Verdict::Wait(Some(at(3000))));
        record.heard(SECOND, at(1000));
        record.heard(SECOND, at(1499));
        for ms in [3000, 4000, 9000] {
            assert_eq!(ask(&mut record, OTHER, Open, ms), Verdict::Wait(None));
        }
        assert_eq!(ask(&mut record.clone(), OTHER, Down, 9000), Verdict::Enter);
        assert_eq!(ask(&mut record, OTHER, Closed, 9000), Verdict::Enter);
        // It had said more, and its end is heard too.
        let mut record = self::record(&[FIRST]);
        assert_eq!(ask(&mut record, OTHER, Open, 0), Verdict::Wait(Some(at(2000))));
        record.heard(SECOND, at(1900));
        assert_eq!(ask(&mut record, OTHER, Closed, 1901), Verdict::Enter);
        // The manager was busy, and reads its last words and its end late.
        for read in [1900, 2500] {
            let mut record = self::record(&[FIRST]);
            assert_eq!(ask(&mut record, OTHER, Open, 0), Verdict::Wait(Some(at(2000))));
            assert!(record.heard(SECOND, at(read)));
            assert_eq!(ask(&mut record, OTHER, Open, 2500), Verdict::Wait(Some(at(read + 1000))));
            assert_eq!(ask(&mut record, OTHER, Closed, 2501), Verdict::Enter);
        }
    }

    #[test]
    fn the_board_that_is_known_is_not_kept_out() {
        let (this, that, none) = (board(Some(1), Some(9)), board(Some(2), Some(9)), board(None, Some(9)));
        let check = |known, on, want| {
            let (mut record, asker) = (record(&[FIRST]), Asker { boot: OTHER, board: on });
            record.remember(OTHER);
            assert_eq!(record.is_kept_out(asker, known, at(1)), want, "{known:?} {on:?}");
            let verdict = record.judge(asker, known, Standing::Down, SECOND, at(1));
            assert_eq!(verdict, if want { Verdict::Later } else { Verdict::Enter }, "{known:?} {on:?}");
        };
        check(Some(this), this, false);
        check(Some(this), that, true);
        check(Some(this), none, true);
        check(Some(none), none, true);
        check(Some(none), this, true);
        check(None, this, true);
    }

    #[test]
    fn the_second_of_two_is_refused() {
        use Standing::*;
        let mut record = record(&[FIRST]);
        assert_eq!(ask(&mut record, OTHER, Open, 0), Verdict::Wait(Some(at(2000))));
        record.heard(SECOND, at(800));
        assert_eq!(ask(&mut record, OTHER, Open, 1999), Verdict::Wait(Some(at(2000))));
        assert_eq!(ask(&mut record, OTHER, Open, 2000), Verdict::Clone);
        // Each time it comes back it is judged anew.
        assert_eq!(ask(&mut record, OTHER, Open, 9000), Verdict::Wait(Some(at(11_000))));
        assert_eq!(ask(&mut record, OTHER, Open, 11_000), Verdict::Wait(None));
        assert!(record.heard(SECOND, at(11_500)));
        assert_eq!(ask(&mut record, OTHER, Open, 11_500), Verdict::Wait(Some(at(12_500))));
        // Its first word counts.
        assert!(!record.heard(SECOND, at(12_000)));
        assert_eq!(ask(&mut record, OTHER, Open, 12_500), Verdict::Clone);
        // While the first reconnects or starts again it stays out; only when that one is gone for good it takes its place.
        assert_eq!(ask(&mut record, OTHER, Closed, 12_600), Verdict::Later);
        assert_eq!(ask(&mut record, FIRST, Closed, 12_600), Verdict::Enter);
        assert_eq!(ask(&mut record, OTHER, Down, 12_600), Verdict::Later);
        assert_eq!(ask(&mut record.clone(), 3, Down, 12_600), Verdict::Enter, "the first after a restart");
        let given_up = 12_000 + u64::try_from(COPY_KEPT_OUT.as_millis()).expect("short");
        assert_eq!(ask(&mut record, OTHER, Down, given_up - 1), Verdict::Later);
        let nowhere = |boot| Asker { boot, board: BoardId::default() };
        assert!(record.is_kept_out(nowhere(OTHER), None, at(given_up - 1)));
        assert!(!record.is_kept_out(nowhere(FIRST), None, at(12_600)));
        assert_eq!(ask(&mut record, OTHER, Down, given_up), Verdict::Enter);
        record.opened(OTHER, at(12_700));
        // And then the first is the second.
        assert_eq!(ask(&mut record, FIRST, Closed, 13_000), Verdict::Later);
        assert_eq!(ask(&mut record, FIRST, Open, 13_000), Verdict::Wait(Some(at(15_000))));
        record.heard(SECOND, at(14_000));
        assert_eq!(ask(&mut record, FIRST, Open, 15_000), Verdict::Clone);
        assert_eq!(ask(&mut record, OTHER, Open, 15_000), Verdict::Enter);
    }

    #[test]
    fn a_manager_that_stood_still_has_heard_nothing() {
        let mut record = record(&[FIRST]);
        ask(&mut record, OTHER, Standing::Open, 0);
        record.forgive(at(8000));
        record.heard(SECOND, at(8001));
        assert_eq!(ask(&mut record, OTHER, Standing::Open, 8001), Verdict::Wait(Some(at(10_000))));
        assert_eq!(ask(&mut record, OTHER, Standing::Open, 10_000), Verdict::Wait(None));
    }

    #[test]
    fn each_of_several_is_judged_by_what_came_while_it_asked() {
        let mut record = record(&[FIRST]);
        ask(&mut record, OTHER, Standing::Open, 0);
        record.heard(SECOND, at(1000));
        assert_eq!(ask(&mut record, 3, Standing::Open, 2000), Verdict::Wait(Some(at(4000))));
        assert_eq!(ask(&mut record, OTHER, Standing::Open, 2000), Verdict::Clone);
        assert_eq!(ask(&mut record, 3, Standing::Open, 4000), Verdict::Wait(None));
        record.heard(SECOND, at(4001));
        assert_eq!(ask(&mut record, 3, Standing::Open, 4001), Verdict::Wait(Some(at(5001))));
        assert_eq!(ask(&mut record, 3, Standing::Open, 5001), Verdict::Clone);
        // At the longest heartbeat none can be kept waiting for two of them: they take turns.
        let (mut record, minute) = (self::record(&[FIRST]), 60 * SECOND);
        for seconds in (0..119).step_by(7) {
            let boot = 10 + seconds / 7 % 3;
            let asker = Asker { boot, board: BoardId::default() };
            let verdict = record.judge(asker, None, Standing::Open, minute, at(seconds * 1000));
            assert!(matches!(verdict, Verdict::Wait(Some(_))), "{verdict:?} after {seconds} s");
        }
        record.heard(minute, at(120_000));
        for boot in 10..13 {
            let asker = Asker { boot, board: BoardId::default() };
            assert_eq!(record.judge(asker, None, Standing::Open, minute, at(135_000)), Verdict::Clone);
        }
    }

    #[test]
    fn of_two_that_ask_the_likelier_one_waits() {
        let (this, that) = (board(Some(1), Some(9)), board(Some(2), Some(9)));
        let mut record = record(&[7, FIRST]);
        record.remember(8);
        let check = |(one, on): (u64, BoardId), (two, there): (u64, BoardId), want: bool| {
            let (waits, asks) = (Asker { boot: one, board: on }, Asker { boot: two, board: there });
            assert_eq!(record.prefers(waits, asks, Some(this)), want, "{one} {two}");
        };
        check((2, this), (3, that), true);
        check((3, that), (2, this), false);
        check((2, this), (3, this), false);
        check((2, that), (8, this), true);
        check((8, this), (2, that), false);
        check((2, this), (FIRST, that), false);
    }

    #[test]
    fn another_board_waits_until_the_first_is_down() {
        use Standing::*;
        let asks = |known, asker, standing| {
            record(&[FIRST]).judge(Asker { boot: OTHER, board: asker }, known, standing, SECOND, at(0))
        };
        let (this, that) = (board(Some(1), Some(9)), board(Some(2), Some(9)));
        for standing in [Closed, Expected] {
            assert_eq!(asks(Some(this), that, standing), Verdict::Later);
            assert_eq!(asks(Some(this), this, standing), Verdict::Enter);
            assert_eq!(asks(None, that, standing), Verdict::Enter);
        }
        assert_eq!(asks(Some(this), that, Down), Verdict::Enter, "a card that was moved");
        assert_eq!(asks(Some(this), that, Open), Verdict::Wait(Some(at(2000))));
    }

    #[test]
    fn boards_are_told_apart_as_far_as_they_can_be() {
        let check = |known: BoardId, board: BoardId, want| assert_eq!(is_other(Some(known), board), want, "{known:?}");
        check(board(Some(1), Some(1)), board(Some(2), Some(1)), true);
        check(board(Some(1), Some(1)), board(Some(1), Some(2)), false);
        check(board(None, Some(1)), board(Some(1), Some(1)), false);
        check(board(None, Some(1)), board(None, Some(2)), true);
        check(board(None, None), board(Some(1), Some(2)), false);
        check(BoardId::default(), BoardId::default(), false);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut record = Record::default();
        (0..1000).for_each(|boot| record.opened(boot, at(0)));
        for boot in 2000..3000 {
            ask(&mut record, boot, Standing::Open, 0);
        }
        assert_eq!((record.others.len(), record.asking.len()), (BOOTS_MAX, BOOTS_MAX));
        assert_eq!(ask(&mut record, 998, Standing::Closed, 0), Verdict::Later);
        assert_eq!(ask(&mut record, 3, Standing::Closed, 0), Verdict::Enter);
    }
}
