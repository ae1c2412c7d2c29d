//! What every part of the simulation shares: virtual time, the queue of what happens next, chance, the trace.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Arguments;
use std::ops::Range;
use std::time::Duration;

use racimo_common::id::{NodeId, TaskId};
use racimo_common::time::{Mono, Now, Wall};
use racimo_common::wire::Refused;
use racimo_manager::store::CommitError;

use crate::agent::{Input, LinkStep};
use crate::faults::Fault;
use crate::manager::{Stage, Waiter, Watcher};
use crate::model::Model;
use crate::net::{ConnId, Net};
use crate::runtime::Effect;

/// Lines of the trace that a failure shows.
const TAIL: usize = 80;

/// A bug that the simulation plants into its own shells, to prove that it would be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A written-off node is readmitted when it opens a session.
    ReadmitAtHello,
    /// A task counts as ended as soon as its board was told to stop it.
    EndWhenTold,
    /// An agent takes what an old session still says, whatever index it applies to.
    StaleSession,
    /// The dispatcher does not tell boards which tasks to forget.
    NoRemoved,
    /// On a reconnect the agent only reports what changed since.
    ReportDropped,
    /// The orchestrator decides on views older than its own last write.
    OldView,
    /// The orchestrator forgets what it had to do although the store refused it.
    DoneTooEarly,
    /// The store acknowledges before the disk has it.
    AckBeforeSync,
    /// Agents do not know when they last heard the manager. Faults seldom last as long as leases: it has its own story.
    NoLease,
    /// The dispatcher forgets to tell a board of a change of the network now and then.
    NetUntold,
}

impl Bug {
    pub(crate) const COMMON: [Self; 6] = [
        Self::ReadmitAtHello,
        Self::EndWhenTold,
        Self::NoRemoved,
        Self::ReportDropped,
        Self::AckBeforeSync,
        Self::NetUntold,
    ];
    pub(crate) const RARE: [Self; 3] = [Self::StaleSession, Self::OldView, Self::DoneTooEarly];
}

/// Something that happens at a time. What belongs to a process names its life (`epoch`, `boot`) and is void after it.
#[derive(Debug)]
pub(crate) enum Happening {
    /// The store takes its requests.
    Store { epoch: u64 },
    /// The store answers.
    Reply { epoch: u64, to: Waiter, result: Result<u64, CommitError> },
    /// A watcher looks at its feed.
    Feed { epoch: u64, to: Watcher },
    /// A stage's timer.
    Stage { epoch: u64, stage: Stage },
    /// A session's assigner looks what there is to tell its board.
    Assigner { epoch: u64, session: u64 },
    /// The hub lets an agent have its session.
    Enter { epoch: u64, session: u64 },
    /// The hub ends a session.
    End { epoch: u64, session: u64, refused: Refused },
    /// The oldest message of an agent arrives.
    Up(ConnId),
    /// The oldest message to an agent arrives.
    Down(ConnId),
    /// The agent's link goes on.
    Link { board: usize, boot: u64, turn: u64, step: LinkStep },
    /// The agent's main loop gets an input.
    Agent { board: usize, boot: u64, input: Input },
    /// An operation takes effect in the runtime.
    Effect { board: usize, boot: u64, effect: Effect },
    /// A process ends.
    Exit { board: usize, task: TaskId, pid: u32, status: u32, own: bool },
    /// Something breaks or is mended.
    Fault(Fault),
    /// The user does something.
    User,
    /// A board is let in under a new identity.
    Rejoin { board: usize, node: NodeId },
}

/// How this seed's world behaves.
#[derive(Debug, Clone)]
pub(crate) struct Knobs {
    /// Usual delay of a message, milliseconds.
    pub(crate) latency: Range<u64>,
    /// Usual time for a commit, milliseconds.
    pub(crate) sync: Range<u64>,
    /// Time between two faults, milliseconds.
    pub(crate) fault_every: Range<u64>,
    /// Time between two acts of the user, milliseconds.
    pub(crate) user_every: Range<u64>,
    /// How long things go wrong.
    pub(crate) trouble: Duration,
    /// Whether the manager's clock jumps when it restarts.
    pub(crate) clock_jumps: bool,
    /// Whether the manager's stages see what is published late.
    pub(crate) is_busy: bool,
}

pub(crate) struct Sim {
    pub(crate) now: Mono,
    seq: u64,
    queue: BTreeMap<(Mono, u64), Happening>,
    pub(crate) rng: fastrand::Rng,
    pub(crate) knobs: Knobs,
    pub(crate) bug: Option<Bug>,
    pub(crate) net: Net,
    pub(crate) model: Model,
    /// The healing phase: nothing breaks any more.
    pub(crate) calm: bool,
    /// The first invariant that did not hold.
    pub(crate) failure: Option<String>,
    hash: u64,
    tail: VecDeque<String>,
    loud: bool,
}

impl Sim {
    pub(crate) fn new(seed: u64, bug: Option<Bug>, boards: usize) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let knobs = Knobs {
            latency: if rng.u8(..4) == 0 { 5..120 } else { 0..8 },
            sync: if rng.u8(..4) == 0 { 10..250 } else { 1..8 },
            fault_every: if rng.u8(..2) == 0 { 300..3000 } else { 1000..12_000 },
            user_every: if rng.u8(..2) == 0 { 300..4000 } else { 2000..15_000 },
            trouble: Duration::from_secs(rng.u64(40..100)),
            clock_jumps: rng.u8(..5) == 0,
            is_busy: rng.u8(..4) == 0,
        };
        let mut model = Model::default();
        model.clock_jumps = knobs.clock_jumps;
        Self {
            now: Mono::from_nanos(1_000_000_000),
            seq: 0,
            queue: BTreeMap::new(),
            rng,
            knobs,
            bug,
            net: Net::new(boards),
            model,
            calm: false,
            failure: None,
            hash: 0xcbf2_9ce4_8422_2325,
            tail: VecDeque::new(),
            loud: std::env::var_os("RACIMO_SIM_TRACE").is_some(),
        }
    }

    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    pub(crate) fn at(&mut self, at: Mono, what: Happening) {
        self.seq += 1;
        self.queue.insert((at.max(self.now), self.seq), what);
    }

    pub(crate) fn after(&mut self, span: Duration, what: Happening) {
        self.at(self.now + span, what);
    }

    /// After some milliseconds of this range.
    pub(crate) fn within(&mut self, ms: Range<u64>, what: Happening) {
        let span = self.span(ms);
        self.after(span, what);
    }

    /// The next thing that happens before `end`; time moves on to it.
    pub(crate) fn next(&mut self, end: Mono) -> Option<Happening> {
        if self.queue.first_key_value().is_none_or(|((at, _), _)| *at > end) {
            self.now = end;
            return None;
        }
        let ((at, _), what) = self.queue.pop_first()?;
        self.now = at;
        Some(what)
    }

    /// A span of some milliseconds of this range.
    pub(crate) fn span(&mut self, ms: Range<u64>) -> Duration {
        Duration::from_micros(self.rng.u64(ms.start * 1000..ms.end.max(ms.start + 1) * 1000))
    }

    pub(crate) fn chance(&mut self, percent: u8) -> bool {
        self.rng.u8(..100) < percent
    }

    /// How long a message travels.
    pub(crate) fn latency(&mut self) -> Duration {
        let usual = self.knobs.latency.clone();
        if !self.calm && self.chance(1) { self.span(100..1500) } else { self.span(usual) }
    }

    /// Both clocks of a machine whose wall clock is off by `offset` seconds.
    pub(crate) fn clock(&self, offset: i64) -> Now {
        let wall = i64::try_from(self.now.nanos()).unwrap_or(i64::MAX) + (1_700_000_000 + offset) * 1_000_000_000;
        Now { mono: self.now, wall: Wall::from_nanos(wall) }
    }

    /// One line of the trace.
    pub(crate) fn note(&mut self, line: Arguments<'_>) {
        let line = format!("{:>12} {line}", self.now.nanos() / 1000);
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.loud {
            eprintln!("{line}");
        }
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    /// An invariant does not hold.
    pub(crate) fn fail(&mut self, what: Arguments<'_>) {
        if self.failure.is_none() {
            self.failure = Some(format!("at {} ms: {what}", self.now.nanos() / 1_000_000));
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn tail(&self) -> String {
        self.tail.iter().map(|line| format!("{line}\n")).collect()
    }
}
