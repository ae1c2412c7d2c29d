//! The manager's process: the real log on a fake disk, the real cores, and shells that do what the daemon's do.
//!
//! Here: the store's owner; [`crate::stages`]: the orchestrator's and the scheduler's loops; [`crate::hub`],
//! [`crate::session`]: the dispatcher's.

use std::collections::{BTreeMap, VecDeque};

use racimo_common::id::{IdSource, NodeId};
use racimo_common::time::{Mono, Now};
use racimo_manager::dispatcher::directory::Directory;
use racimo_manager::store::log::{Log, OpenError, Sizes, fake};
use racimo_manager::store::{Batch, Change, Command, CommitError, Event, Observation, Seen, State, View};

use crate::hub::Hub;
use crate::model;
use crate::session::Session;
use crate::sim::{Bug, Happening, Sim};
use crate::stages::{Orchestrator, Scheduler};

/// A small log, so that snapshots and new segments are made all the time.
const SIZES: Sizes = Sizes { segment: 128 << 10, batch_max: 96 << 10, reserve: 4 << 10, snapshot_after: 48 << 10 };
/// Bytes of commands in one round.
const ROUND_BYTES: usize = 32 << 10;
/// Batches that wait for a watcher; then it is told to look at everything.
const BATCHES_MAX: usize = 32;

/// Who waits for the store's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiter {
    Orchestrator,
    Scheduler,
    Hub,
    Session(u64),
    User,
    /// A board that joins.
    Join(usize, NodeId),
    Nobody,
}

/// Who follows what is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Watcher {
    Orchestrator,
    Scheduler,
    Hub,
    /// What makes the network's directory, for all sessions.
    Directory,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Orchestrator,
    Scheduler,
    Hub,
}

enum Request {
    Commit { command: Command, to: Waiter },
    Observe(Vec<Observation>),
}

enum Work {
    Decided(Vec<Event>, Box<State>),
    Observed(Vec<Observation>),
}

/// The disk failed or the power went: the process is gone.
pub(crate) struct Crash;

pub(crate) struct Manager {
    pub(crate) epoch: u64,
    log: Log<fake::Disk, State>,
    /// What is published.
    pub(crate) view: View,
    queue: VecDeque<Request>,
    round_due: bool,
    pub(crate) feeds: BTreeMap<Watcher, Vec<(Mono, Batch)>>,
    pub(crate) orchestrator: Orchestrator,
    pub(crate) scheduler: Scheduler,
    pub(crate) hub: Hub,
    /// What sessions see: a view, and the directory made from it.
    pub(crate) look: (View, Directory),
    pub(crate) sessions: BTreeMap<u64, Session>,
    pub(crate) next_session: u64,
    pub(crate) ids: IdSource,
    clock_off: i64,
    /// With [`Bug::AckBeforeSync`]: what the disk still lacks.
    late: Vec<Vec<u8>>,
}

impl Manager {
    /// Starts on what is on the disk; what was acknowledged has to be there.
    pub(crate) fn start(sim: &mut Sim, disk: &fake::Disk, epoch: u64, clock_off: i64) -> Result<Self, Crash> {
        let seed = sim.rng.u64(..);
        let log = match Log::open_with(disk.clone(), State::default(), seed, SIZES) {
            Ok(log) => log,
            // The disk fails right at the start.
            Err(OpenError::Io { .. }) => return Err(Crash),
            Err(error) => {
                sim.fail(format_args!("the log cannot be opened: {error}"));
                return Err(Crash);
            }
        };
        let view = View { state: log.machine().clone(), seen: Seen::default() };
        sim.note(format_args!("manager starts at index {}, life {epoch}", view.version()));
        if let Some(wrong) = sim.model.recovered(&view.state) {
            sim.fail(format_args!("after a restart {wrong}"));
        }
        let (orchestrator, scheduler) = (Orchestrator::new(&view), Scheduler::new(&view, sim.now));
        let watchers = [Watcher::Orchestrator, Watcher::Scheduler, Watcher::Hub, Watcher::Directory];
        let look = (view.clone(), Directory::new(&view));
        let mut manager = Self {
            epoch,
            log,
            view,
            queue: VecDeque::new(),
            round_due: false,
            feeds: watchers.map(|to| (to, Vec::new())).into(),
            orchestrator,
            scheduler,
            hub: Hub::default(),
            look,
            sessions: BTreeMap::new(),
            next_session: 1,
            ids: IdSource::seeded(sim.rng.u64(..)),
            clock_off,
            late: Vec::new(),
        };
        manager.hub_starts(sim);
        manager.orchestrate(sim);
        manager.schedule(sim);
        Ok(manager)
    }

    pub(crate) fn clock(&self, sim: &Sim) -> Now {
        sim.clock(self.clock_off)
    }

    // ---- the store's owner

    pub(crate) fn commit(&mut self, sim: &mut Sim, changes: Vec<Change>, to: Waiter) {
        let command = Command { at: self.clock(sim).wall, changes };
        self.request(sim, Request::Commit { command, to });
    }

    pub(crate) fn observe(&mut self, sim: &mut Sim, observations: Vec<Observation>) {
        self.request(sim, Request::Observe(observations));
    }

    fn request(&mut self, sim: &mut Sim, request: Request) {
        self.queue.push_back(request);
        if !self.round_due {
            self.round_due = true;
            let sync = sim.knobs.sync.clone();
            sim.within(sync, Happening::Store { epoch: self.epoch });
        }
    }

    fn answer(&self, sim: &mut Sim, to: Waiter, result: Result<u64, CommitError>) {
        sim.within(0..2, Happening::Reply { epoch: self.epoch, to, result });
    }

    /// One round of `store::owner`.
    pub(crate) fn store(&mut self, sim: &mut Sim) -> Result<(), Crash> {
        self.round_due = false;
        let mut state = self.view.state.clone();
        let (mut commands, mut replies, mut works, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let most = sim.rng.usize(1..20);
        while works.len() < most && bytes < ROUND_BYTES {
            match self.queue.pop_front() {
                None => break,
                Some(Request::Observe(observations)) => works.push(Work::Observed(observations)),
                Some(Request::Commit { command, to }) => {
                    let index = self.log.index() + 1 + (self.late.len() + commands.len()) as u64;
                    match state.apply(index, &command) {
                        Ok((next, events)) => {
                            sim.note(format_args!("commit {index} by {to:?}: {}", model::brief(&command)));
                            let encoded = rmp_serde::to_vec_named(&command).expect("a command is plain data");
                            bytes += encoded.len();
                            commands.push(encoded);
                            state = next.clone();
                            sim.model.logged(&next);
                            works.push(Work::Decided(events, Box::new(next)));
                            replies.push((to, index));
                        }
                        Err(refusal) => {
                            sim.note(format_args!("refused to {to:?}: {refusal}"));
                            self.answer(sim, to, Err(refusal.into()));
                        }
                    }
                }
            }
        }
        let hold = sim.has(Bug::AckBeforeSync);
        let batch = if hold { std::mem::replace(&mut self.late, commands) } else { commands };
        if !batch.is_empty() && self.log.commit(&batch).is_err() {
            return Err(Crash);
        }
        if !hold && *self.log.machine() != state && !replies.is_empty() {
            sim.fail(format_args!("the log's state is not the published one"));
        }
        sim.model.acknowledged(&state);
        let before = self.view.clone();
        let mut events = Vec::new();
        for work in works {
            match work {
                Work::Decided(happened, state) => {
                    self.view.state = *state;
                    self.view.seen.follow(&happened);
                    events.extend(happened);
                }
                Work::Observed(observations) => {
                    let view = &mut self.view;
                    events.extend(observations.into_iter().filter_map(|o| view.seen.observe(&view.state, o)));
                }
            }
        }
        if let Some(wrong) = sim.model.published(&before, &self.view, &events, sim.now) {
            sim.fail(format_args!("{wrong}"));
        }
        self.publish(sim, &events);
        for (to, index) in replies {
            self.answer(sim, to, Ok(index));
        }
        if !self.queue.is_empty() {
            self.round_due = true;
            let sync = sim.knobs.sync.clone();
            sim.within(sync, Happening::Store { epoch: self.epoch });
        }
        Ok(())
    }

    fn publish(&mut self, sim: &mut Sim, events: &[Event]) {
        if events.is_empty() {
            return;
        }
        for (&to, feed) in &mut self.feeds {
            // A watcher that falls behind loses events.
            let resync = feed.len() >= BATCHES_MAX || !sim.calm && sim.rng.u8(..) == 0;
            if resync {
                feed.clear();
            }
            let events = if resync { Vec::new() } else { events.to_vec() };
            let batch = Batch { view: self.view.clone(), events, resync };
            // A busy machine lets a thread wait.
            let late = if sim.knobs.is_busy && sim.chance(20) { 20..300 } else { 0..3 };
            let at = (sim.now + sim.span(late)).max(feed.last().map_or(sim.now, |(at, _)| *at));
            feed.push((at, batch));
            sim.at(at, Happening::Feed { epoch: self.epoch, to });
        }
    }

    /// Takes all that waits in a feed, as one.
    pub(crate) fn drain(&mut self, now: Mono, of: Watcher) -> Option<Batch> {
        let feed = self.feeds.get_mut(&of)?;
        let count = feed.iter().take_while(|(at, _)| *at <= now).count();
        let mut waiting = feed.drain(..count).map(|(_, batch)| batch);
        let mut batch = waiting.next()?;
        for more in waiting {
            batch.view = more.view;
            batch.events.extend(more.events);
            batch.resync |= more.resync;
        }
        Some(batch)
    }

    // ---- who waits

    pub(crate) fn reply(&mut self, sim: &mut Sim, to: Waiter, result: Result<u64, CommitError>) {
        match to {
            Waiter::Orchestrator => self.orchestrator_committed(sim, result),
            Waiter::Scheduler => self.scheduler_committed(sim, result),
            Waiter::Hub => self.hub_committed(sim, result),
            Waiter::Session(session) => self.session_committed(sim, session, result),
            Waiter::Join(board, node) => {
                if result.is_ok() {
                    sim.within(1..50, Happening::Rejoin { board, node });
                }
            }
            Waiter::User | Waiter::Nobody => {}
        }
    }

    pub(crate) fn feed(&mut self, sim: &mut Sim, to: Watcher) {
        match to {
            Watcher::Orchestrator => self.orchestrator_wakes(sim),
            Watcher::Scheduler => self.scheduler_wakes(sim),
            Watcher::Hub => self.hub_drive(sim),
            Watcher::Directory => self.directory_wakes(sim),
        }
    }

    pub(crate) fn stage(&mut self, sim: &mut Sim, stage: Stage) {
        let now = Some(sim.now);
        match stage {
            Stage::Orchestrator if self.orchestrator.timer == now => {
                self.orchestrator.timer = None;
                self.orchestrate(sim);
            }
            Stage::Scheduler if self.scheduler.timer == now => {
                self.scheduler.timer = None;
                self.schedule_now(sim);
            }
            Stage::Hub if self.hub.timer == now => {
                self.hub.timer = None;
                self.hub_looks(sim);
            }
            Stage::Orchestrator | Stage::Scheduler | Stage::Hub => {}
        }
    }
}
