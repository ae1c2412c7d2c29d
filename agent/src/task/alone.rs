//! A task without its manager: it is started again by its service's restart policy, or stops when its lease is over.
//!
//! ```text
//! ended, and no manager was told ─ policy allows ─ delay ─▶ made anew under the same id
//! heard ─ lease, less the time it takes to stop ─▶ asked to stop ─ the rest of it ─▶ killed, by the agent itself
//! ```

use std::rc::Rc;
use std::time::Duration;

use racimo_common::object::{Desired, TaskState};
use racimo_common::time::{Mono, Now};
use racimo_common::wire::Work;

use super::{Phase, Task};
use crate::limits;

impl Task {
    /// There is no manager, and the journal says that it shall run.
    pub fn recall(&mut self, work: Rc<Work>, now: Now) {
        if self.work.is_some() || self.wanted.is_none_or(|desired| desired > Desired::Running) {
            return;
        }
        self.wanted = Some(Desired::Running);
        // What the board lost with its power is made anew at once; of what ended while the agent was away its policy
        // decides.
        let is_lost = self.phase == Phase::Ended && self.report.container.is_none();
        self.again = (is_lost && !self.is_settled).then_some(now.mono);
        self.takes(work, now.mono);
        self.is_recalled = true;
    }

    /// A session opened: the manager decides again what follows an end.
    pub fn session(&mut self) {
        self.again = None;
    }

    /// A manager was heard.
    pub fn heard(&mut self, at: Mono) {
        if let Some((lease, until)) = &mut self.lease {
            *until = (*until).max(at + *lease);
        }
    }

    /// Without a manager: is it to be started again, and when?
    pub fn stands_alone(&mut self, now: Mono) {
        let is_over = self.phase == Phase::Ended && self.again.is_none() && !self.is_settled;
        let restart = self.work.as_ref().and_then(|work| work.offline.restart);
        let Some(restart) = restart.filter(|_| is_over && self.wanted == Some(Desired::Running)) else { return };
        let state = self.report.state;
        let may = matches!(state, TaskState::Failed | TaskState::Rejected)
            || state == TaskState::Complete && restart.completed;
        let span = |ms: u32| Duration::from_millis(ms.into());
        if restart.window_ms.is_some_and(|window| now.since(self.burst.1) > span(window)) {
            self.burst.0 = 0;
        }
        if may && restart.attempts.is_none_or(|most| self.burst.0 < most) {
            self.again = Some(now + span(restart.delay_ms));
        } else {
            // Once for each end: the window that passes meanwhile gives no new attempts.
            self.is_settled = true;
        }
    }

    /// What the board is to start by itself when it boots without its manager.
    pub fn is_kept(&self) -> Option<&Rc<Work>> {
        let is_over = self.phase == Phase::Ended && self.again.is_none();
        let wanted = self.wanted == Some(Desired::Running) && !is_over && self.sick.is_none();
        self.work.as_ref().filter(|work| wanted && work.offline.restart.is_some() && work.fault.is_none())
    }

    /// Ends what has run on for as long as it may without a manager: by the end of its lease it is killed.
    pub fn fence(&mut self, now: Mono) {
        let Some((lease, until)) = self.lease else { return };
        let early = self.grace.min(lease / 4);
        self.is_cut = until <= now + early;
        if !self.is_cut {
            return;
        }
        match &mut self.phase {
            Phase::Running { .. } | Phase::Leaving { .. } if self.sick.is_none() => {
                self.grace = early;
                self.sick = Some(format!("no manager was heard for {} s", lease.as_secs()));
            }
            Phase::Stopping { kill_at, kills: 0, .. } => *kill_at = (*kill_at).min(until),
            Phase::New
            | Phase::Made
            | Phase::Running { .. }
            | Phase::Leaving { .. }
            | Phase::Stopping { .. }
            | Phase::Ended
            | Phase::Again => {}
        }
    }

    /// Whether it is to be killed now, beside the operation in flight: its lease is over, whether containerd answers or
    /// not. Asked again until its end is heard.
    pub fn strikes(&mut self, now: Mono) -> bool {
        let is_due = self.is_cut && self.fenced_at().is_some_and(|at| at <= now);
        if is_due {
            self.strike_at = now + limits::RETRY_AFTER;
        }
        is_due
    }

    /// When its lease asks for something, unless a manager is heard before; none: nothing of it runs, or it has no lease.
    pub fn fenced_at(&self) -> Option<Mono> {
        let (lease, until) = self.lease.filter(|_| self.may_run())?;
        if self.is_cut {
            return Some(until.max(self.strike_at));
        }
        // `fence` counts the same span from the other side.
        Some(until - self.grace.min(lease / 4))
    }
}

#[cfg(test)]
mod tests {
    use racimo_common::id::{RandomId, TaskId};
    use racimo_common::wire::{Assign, Assignment, Offline, Restart};

    use crate::board::{Board, Order};
    use crate::task::{Done, Found, Op};
    use crate::task_tests::work;

    use super::*;

    const RESTART: Restart = Restart { completed: true, delay_ms: 5000, attempts: None, window_ms: None };

    fn id(number: u128) -> TaskId {
        TaskId::from_bits(number)
    }

    fn at(ms: u64) -> Now {
        Now { mono: Mono::from_nanos(ms * 1_000_000), ..Now::default() }
    }

    fn runs(offline: Offline) -> Rc<Work> {
        Rc::new(Work { offline, ..work(Duration::from_secs(2)) })
    }

    fn restarts(restart: Restart) -> Rc<Work> {
        runs(Offline { restart: Some(restart), ..Offline::default() })
    }

    fn whole(tasks: &[(u128, Desired, &Rc<Work>)], to: u64) -> Assign {
        let assignment = |(number, desired, work): &(u128, Desired, &Rc<Work>)| Assignment {
            task: id(*number),
            desired: *desired,
            work: Some(Box::new(Work::clone(work))),
        };
        let tasks = tasks.iter().map(assignment).collect();
        Assign { complete: true, to, last: true, tasks, ..Assign::default() }
    }

    /// Carries out everything that is due; the operations, in order.
    fn settle(board: &mut Board, now: Now) -> Vec<Op> {
        let mut ops = Vec::new();
        loop {
            let orders = board.orders(now);
            if orders.is_empty() {
                return ops;
            }
            for order in orders {
                match order {
                    Order::Begin(task, op) => {
                        ops.push(op);
                        board.done(task, Done::Ok((op == Op::Start).then_some(7)), now);
                        if matches!(op, Op::Signal(_)) {
                            board.exited(task, 143, false, now);
                        }
                    }
                    Order::Cancel(task) => board.done(task, Done::Cancelled, now),
                    Order::Kill(task) => board.exited(task, 137, false, now),
                }
            }
        }
    }

    const AGAIN: [Op; 3] = [Op::Delete, Op::Prepare, Op::Start];

    /// A board whose one task runs, at 0 s.
    fn board(work: &Rc<Work>) -> Board {
        let mut board = Board::new(8);
        board.adopt(&[], at(0));
        board.assign(whole(&[(1, Desired::Running, work)], 5), at(0)).expect("a set");
        board.heard(at(0).mono);
        assert_eq!(settle(&mut board, at(0)), [Op::Prepare, Op::Start]);
        board.reports();
        board
    }

    fn state(board: &Board) -> (TaskState, u32) {
        let report = board.task(id(1)).expect("held").report();
        (report.state, report.restarts)
    }

    #[test]
    fn a_crashed_task_is_started_again_under_its_id() {
        let mut board = board(&restarts(RESTART));
        board.closed();
        board.exited(id(1), 1, false, at(1000));
        assert_eq!(settle(&mut board, at(1000)), []);
        assert_eq!(board.wake_at(), Some(at(6000).mono));
        assert_eq!((state(&board), board.kept().len()), ((TaskState::Failed, 0), 1));
        assert_eq!(settle(&mut board, at(5999)), []);
        assert_eq!(settle(&mut board, at(6000)), AGAIN);
        assert_eq!(state(&board), (TaskState::Running, 1));
        // Also after it ended well, as the policy says.
        board.exited(id(1), 0, false, at(7000));
        settle(&mut board, at(7000));
        assert_eq!(settle(&mut board, at(12_000)), AGAIN);
        // The manager is back: one report, of a task that runs.
        board.session();
        board.assign(whole(&[(1, Desired::Running, &restarts(RESTART))], 9), at(13_000)).expect("a set");
        let report = board.full_report();
        assert_eq!(
            (report[0].state, report[0].restarts, settle(&mut board, at(13_000))),
            (TaskState::Running, 2, vec![])
        );
    }

    #[test]
    fn with_a_manager_it_decides() {
        // It ends while the manager is there.
        let mut told = board(&restarts(RESTART));
        told.exited(id(1), 1, false, at(1000));
        assert_eq!(told.reports().len(), 1);
        told.closed();
        assert_eq!(settle(&mut told, at(60_000)), []);
        assert_eq!((told.wake_at(), told.kept().len()), (None, 0));
        // The manager comes back before the delay is over.
        let mut early = board(&restarts(RESTART));
        early.closed();
        early.exited(id(1), 1, false, at(1000));
        settle(&mut early, at(1000));
        early.session();
        assert_eq!(settle(&mut early, at(60_000)), []);
        early.assign(whole(&[(1, Desired::Running, &restarts(RESTART))], 9), at(60_000)).expect("a set");
        assert_eq!(early.full_report()[0].state, TaskState::Failed);
        assert_eq!(settle(&mut early, at(61_000)), []);
    }

    #[track_caller]
    fn check_policy(offline: Offline, status: u32, again: bool) {
        let mut board = board(&runs(offline));
        board.closed();
        board.exited(id(1), status, false, at(1000));
        settle(&mut board, at(1000));
        assert_eq!(settle(&mut board, at(60_000)) == AGAIN, again, "{offline:?} after {status}");
        assert_eq!(board.kept().len(), usize::from(again));
    }

    #[test]
    fn the_policy_says_after_what() {
        let on_failure = Restart { completed: false, ..RESTART };
        let with = |restart| Offline { restart: Some(restart), ..Offline::default() };
        check_policy(with(RESTART), 0, true);
        check_policy(with(on_failure), 0, false);
        check_policy(with(on_failure), 3, true);
        check_policy(with(Restart { attempts: Some(0), ..RESTART }), 3, false);
        check_policy(Offline::default(), 3, false);
    }

    #[test]
    fn attempts_are_counted() {
        let mut few = board(&restarts(Restart { attempts: Some(2), window_ms: Some(60_000), ..RESTART }));
        few.closed();
        let mut crash = |ms: u64| {
            few.exited(id(1), 1, false, at(ms));
            settle(&mut few, at(ms));
            settle(&mut few, at(ms + 5000)).len()
        };
        assert_eq!([crash(0), crash(10_000)], [3, 3]);
        // The third within the window: it stays failed, as if a manager had decided it.
        assert_eq!(crash(20_000), 0);
        assert_eq!((state(&few), few.wake_at()), ((TaskState::Failed, 2), None));
        // Also when the window is over.
        assert_eq!(settle(&mut few, at(200_000)), []);
        few.session();
        few.closed();
        assert_eq!((settle(&mut few, at(300_000)), few.kept().len()), (vec![], 0));
        let mut rare = board(&restarts(Restart { attempts: Some(1), window_ms: Some(60_000), ..RESTART }));
        rare.closed();
        for ms in [0, 70_000, 140_000] {
            rare.exited(id(1), 1, false, at(ms));
            settle(&mut rare, at(ms));
            assert_eq!(settle(&mut rare, at(ms + 5000)), AGAIN);
        }
    }

    #[test]
    fn a_board_that_boots_without_its_manager_goes_by_what_it_was_told() {
        let mut board = Board::new(3);
        // Lost with the power; run on (only the agent was restarted); made and never started; ended before the agent
        // was; unknown to the journal.
        let found = |number, found| (id(number), found, None);
        let containers = [
            found(1, Found::Lost),
            found(2, Found::Running { pid: 4, health: None, lease: None }),
            found(3, Found::Ended { status: 1, oom: false }),
        ];
        board.adopt(&containers, at(0));
        assert_eq!(settle(&mut board, at(0)), []);
        let work = restarts(RESTART);
        let begun = board.recall((1..6).map(|number| (id(number), work.clone())).collect(), at(15_000));
        assert_eq!(begun, 1, "the board is full, and what ended waits for its delay");
        assert_eq!(settle(&mut board, at(15_000)), AGAIN);
        assert_eq!(state(&board), (TaskState::Running, 1));
        // What ended while the agent was away is its policy's, as no manager was told.
        assert_eq!((settle(&mut board, at(19_999)), board.kept().len()), (vec![], 3));
        assert_eq!(settle(&mut board, at(20_000)), AGAIN);
        assert_eq!(settle(&mut board, at(90_000)), []);
        // What the manager says counts: its own description of the task too.
        board.session();
        let other = Rc::new(Work { slot_name: "web.9".into(), ..Work::clone(&work) });
        board.assign(whole(&[(1, Desired::Running, &other)], 9), at(91_000)).expect("a set");
        assert_eq!(board.task(id(1)).and_then(Task::work).map(|work| work.slot_name.as_str()), Some("web.9"));
        assert_eq!(settle(&mut board, at(91_000)).len(), 4, "the others stop and go");
    }

    #[test]
    fn what_is_not_wanted_is_never_started_again() {
        let mut board = board(&restarts(RESTART));
        board.closed();
        board.exited(id(1), 1, false, at(0));
        settle(&mut board, at(0));
        board.forget_all();
        assert_eq!(settle(&mut board, at(60_000)), [Op::Delete]);
        assert_eq!(board.tasks().count(), 0);
    }

    fn leased() -> Rc<Work> {
        runs(Offline { lease_ms: Some(20_000), ..Offline::default() })
    }

    #[test]
    fn a_fenced_task_is_stopped_by_the_end_of_its_lease() {
        let mut fenced = board(&leased());
        fenced.heard(at(5000).mono);
        // 2 s of grace before the end, at 25 s.
        assert_eq!((fenced.wake_at(), settle(&mut fenced, at(22_999))), (Some(at(23_000).mono), vec![]));
        let orders = fenced.orders(at(23_000));
        assert_eq!(orders, [Order::Begin(id(1), Op::Signal(None))]);
        fenced.done(id(1), Done::Ok(None), at(23_100));
        assert_eq!(fenced.wake_at(), Some(at(25_000).mono));
        let kills = [Order::Kill(id(1)), Order::Begin(id(1), Op::Signal(Some(9)))];
        assert_eq!(fenced.orders(at(25_000)), kills);
        // One that lives on is not killed again and again.
        fenced.done(id(1), Done::Ok(None), at(25_100));
        assert_eq!(fenced.orders(at(25_100)), []);
        assert!(fenced.wake_at() > Some(at(25_100).mono));
        fenced.exited(id(1), 143, false, at(25_200));
        let report = fenced.task(id(1)).expect("held").report();
        let why = "task: non-zero exit (143): no manager was heard for 20 s";
        assert_eq!((report.state, report.err.as_deref()), (TaskState::Failed, Some(why)));
        assert_eq!((settle(&mut fenced, at(99_000)), fenced.kept().len()), (vec![], 0));
    }

    #[test]
    fn a_fenced_task_that_hears_its_manager_runs_on() {
        let mut board = board(&leased());
        for second in 1..100 {
            assert_eq!(settle(&mut board, at(second * 1000)), []);
            board.heard(at(second * 1000).mono);
        }
    }

    #[test]
    fn a_fenced_task_does_not_start_when_its_lease_is_over() {
        let mut board = Board::new(8);
        board.adopt(&[], at(0));
        board.assign(whole(&[(1, Desired::Running, &leased())], 5), at(0)).expect("a set");
        board.heard(at(0).mono);
        assert_eq!(board.orders(at(0)).len(), 1);
        board.closed();
        // The image came late.
        board.done(id(1), Done::Ok(None), at(30_000));
        assert_eq!((settle(&mut board, at(30_000)), board.wake_at()), (vec![], None));
        board.heard(at(31_000).mono);
        assert_eq!(settle(&mut board, at(31_000)), [Op::Start]);
    }

    #[test]
    fn a_fenced_task_ends_with_its_lease_while_containerd_is_away() {
        let mut fenced = board(&leased());
        // 2 s of grace before the end, at 20 s; every call fails.
        let (mut kills, mut asked) = (Vec::new(), 0);
        for ms in (18_000..24_000).step_by(100) {
            for order in fenced.orders(at(ms)) {
                match order {
                    Order::Kill(task) => kills.push((task, ms)),
                    Order::Begin(task, Op::Signal(signal)) => {
                        asked += u32::from(signal.is_none());
                        fenced.done(task, Done::Again("containerd is away".to_owned()), at(ms));
                    }
                    Order::Begin(..) | Order::Cancel(_) => panic!("{order:?}"),
                }
            }
        }
        let want = [20_000, 21_000, 22_000, 23_000].map(|ms| (id(1), ms));
        assert_eq!((kills.as_slice(), asked), (&want[..], 1));
        fenced.exited(id(1), 137, false, at(24_000));
        assert_eq!((state(&fenced).0, fenced.wake_at()), (TaskState::Failed, None));
    }

    #[test]
    fn a_fenced_task_ends_with_its_lease_while_containerd_hangs() {
        // The signal, or the start, never answers.
        let mut fenced = board(&leased());
        assert_eq!(fenced.orders(at(18_000)), [Order::Begin(id(1), Op::Signal(None))]);
        let mut starts = Board::new(8);
        starts.adopt(&[], at(0));
        starts.assign(whole(&[(1, Desired::Running, &leased())], 5), at(0)).expect("a set");
        starts.heard(at(0).mono);
        assert_eq!(starts.orders(at(0)).len(), 1);
        starts.done(id(1), Done::Ok(None), at(0));
        assert_eq!(starts.orders(at(0)), [Order::Begin(id(1), Op::Start)]);
        assert_eq!((starts.orders(at(18_000)), starts.wake_at()), (vec![], Some(at(20_000).mono)));
        for mut board in [fenced, starts] {
            assert_eq!((board.orders(at(19_999)), board.wake_at()), (vec![], Some(at(20_000).mono)));
            assert_eq!(board.orders(at(20_000)), [Order::Kill(id(1))]);
            assert_eq!((board.orders(at(20_000)), board.wake_at()), (vec![], Some(at(21_000).mono)));
        }
    }

    #[test]
    fn a_fenced_task_that_stops_slowly_ends_with_its_lease() {
        let slow = Rc::new(Work { offline: leased().offline, ..work(Duration::from_secs(3600)) });
        let mut board = board(&slow);
        board.assign(whole(&[(1, Desired::Shutdown, &slow)], 6), at(1000)).expect("a set");
        assert_eq!(board.orders(at(1000)), [Order::Begin(id(1), Op::Signal(None))]);
        board.done(id(1), Done::Ok(None), at(1000));
        assert_eq!((board.orders(at(1000)), board.wake_at()), (vec![], Some(at(15_000).mono)));
        assert_eq!((board.orders(at(15_000)), board.wake_at()), (vec![], Some(at(20_000).mono)));
        assert_eq!(board.orders(at(20_000)), [Order::Kill(id(1)), Order::Begin(id(1), Op::Signal(Some(9)))]);
    }

    /// An agent starts again, and finds a task that runs; `heard`: what the one before left. When it is killed.
    #[track_caller]
    fn check_start(heard: Option<Duration>, killed: u64) {
        let mut board = Board::new(8);
        let running = Found::Running { pid: 4, health: None, lease: Some(Duration::from_secs(20)) };
        board.remembers(heard);
        board.adopt(&[(id(1), running, Some(Duration::from_secs(1)))], at(100));
        let kills = |board: &mut Board, ms| board.orders(at(ms)).contains(&Order::Kill(id(1)));
        assert!(killed == 100 || !kills(&mut board, killed - 1), "{heard:?}");
        assert!(kills(&mut board, killed), "{heard:?}");
    }

    #[test]
    fn a_lease_does_not_begin_anew_with_the_agent() {
        check_start(Some(Duration::ZERO), 20_000);
        check_start(Some(Duration::from_secs(12)), 8000);
        check_start(Some(Duration::from_secs(90)), 100);
        // Nothing is known: little.
        check_start(None, 2600);
    }
}
