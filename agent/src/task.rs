//! One task's life on this board: at most one operation at a time, each of which may run twice.
//!
//! In: what is wanted, what was observed, `Mono`. Out: the next [`Op`], if any.
//!
//! ```text
//! New ─Prepare▶ Made ─Start▶ Running ─ exits ─▶ Ended(Complete | Failed)
//!  │              │            ├─ not wanted: Signal, then Kill at the deadline ─▶ Ended(Shutdown)
//!  │              │            │    (one that takes connections leaves the balance first, and waits)
//!  │              │            └─ Probe says it is unhealthy: likewise ─▶ Ended(Failed)
//!  │              └─ not wanted ─▶ Ended(Shutdown)
//!  └─ not wanted ─▶ Ended(Shutdown)          an error: before Start Ended(Rejected), from it on Ended(Failed)
//! With a health check, Running is reported as `Starting` until the first check passes.
//! Found on the board after a restart: one that runs or ended is taken up, one that was never started is New, one that
//! was lost is Ended(Failed).
//! Ended stays, container and all, until the manager knows of it and forgets the task: then Delete.
//! Without a manager: Ended ─ its service's restart policy ─▶ Again ─Delete▶ New, under the same id.
//! With a lease: when no manager was heard for so long, Running ends like one that is unhealthy, and Made waits. What is
//! there when the lease is over is killed beside any operation (`alone`).
//! ```

mod alone;
mod outcome;

use std::rc::Rc;
use std::time::Duration;

use racimo_common::id::TaskId;
use racimo_common::object::{Desired, HostPort, STOP_GRACE_DEFAULT, TaskReport, TaskState};
use racimo_common::signal;
use racimo_common::time::{Mono, Now, Wall};
use racimo_common::wire::Work;

use crate::health::{Check, Health, Watch};
use crate::{limits, weight};

/// Something to be done with a task's container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Get the image, make the container.
    Prepare,
    /// Start it.
    Start,
    /// Check its health.
    Probe,
    /// Send it a signal; none: the one its image or spec asks for.
    Signal(Option<u32>),
    /// Remove it and everything of it.
    Delete,
}

/// How an operation went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// It is done; the process id after `Start`.
    Ok(Option<u32>),
    /// The container is made, and its health is to be checked.
    Made(Check),
    /// It was given up because [`Task::cancels`] said so.
    Cancelled,
    /// The board's fault (containerd away): try again.
    Again(String),
    /// The task's fault: it ends. After `Probe`: the check failed.
    Failed(String),
}

/// Where a task is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    New,
    Made,
    Running {
        pid: u32,
    },
    /// It shall stop, and takes no new connections any more; it is told at this time.
    Leaving {
        pid: u32,
        until: Mono,
    },
    Stopping {
        pid: u32,
        kill_at: Mono,
        kills: u32,
    },
    Ended,
    /// It ended, and the board makes it anew by itself: first what is left of it goes.
    Again,
}

/// A task that this board holds.
#[derive(Debug, Clone)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// What is wanted; none: the manager does not know the task (any more), it shall go.
    wanted: Option<Desired>,
    /// What it runs; none while it was only found on the board.
    work: Option<Rc<Work>>,
    /// How long it may take to stop.
    grace: Duration,
    phase: Phase,
    /// The operation in flight.
    busy: Option<Op>,
    /// No new operation before this time.
    not_before: Mono,
    /// How its health is to be checked once it runs.
    check: Option<Check>,
    /// Its health while it runs, if that is checked.
    health: Option<Health>,
    /// Why it is unhealthy and has to go.
    sick: Option<String>,
    /// Whether a container may exist.
    container: bool,
    /// How long it runs on without a manager, if there is an end to it; and until when.
    lease: Option<(Duration, Mono)>,
    /// Whether that time is over, or so nearly that it has to stop now.
    is_cut: bool,
    /// When it is killed (again) if its lease is over then.
    strike_at: Mono,
    /// When the board starts it again by itself.
    again: Option<Mono>,
    /// Restarts by the board that count, and since when.
    burst: (u32, Mono),
    /// Whether the board makes it anew: it counts as restarted once it runs.
    is_again: bool,
    /// Whether its work is from the journal, which lacks credentials: the manager's takes its place.
    is_recalled: bool,
    /// Whether a manager may know its end, or its policy is used up: then only the manager decides what follows.
    is_settled: bool,
    /// The last report.
    report: TaskReport,
    /// Whether the manager has not been sent it.
    dirty: bool,
}

/// A container found on the board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It was never started.
    Made,
    /// It was started once, or made before the board was, and nothing runs in it.
    Lost,
    /// It runs.
    Running {
        /// Its first process.
        pid: u32,
        /// How its health is checked, if it is.
        health: Option<Watch>,
        /// How long it runs on without a manager; none: for ever.
        lease: Option<Duration>,
    },
    /// It ended.
    Ended {
        /// Exit code.
        status: u32,
        /// Whether its memory limit ended it.
        oom: bool,
    },
}

impl Task {
    /// A task the manager assigned.
    pub fn assigned(id: TaskId, desired: Desired, work: Rc<Work>, now: Now) -> Self {
        let mut task = Self::blank(id, TaskState::Accepted, "accepted", now.wall);
        task.takes(work, now.mono);
        task.wanted = Some(desired);
        task
    }

    fn takes(&mut self, work: Rc<Work>, heard: Mono) {
        self.grace = work.container.stop_grace();
        let until = self.lease.map(|(_, until)| until);
        self.lease = work.offline.lease().map(|lease| (lease, until.unwrap_or(heard + lease)));
        self.work = Some(work);
    }

    /// A task whose container was found on the board; `grace` as kept with the container. `heard`: see
    /// [`adopt`](Self::adopt).
    pub fn found(id: TaskId, found: Found, grace: Option<Duration>, heard: Option<Duration>, now: Now) -> Self {
        let mut task = Self::blank(id, TaskState::Accepted, "found on the board", now.wall);
        task.container = true;
        task.grace = grace.unwrap_or(STOP_GRACE_DEFAULT);
        // Its assignment has not been heard yet: run on, but start nothing.
        task.wanted = Some(if found == Found::Made { Desired::Ready } else { Desired::Running });
        task.adopt(found, heard, now);
        task
    }

    /// Its container was found on the board. `heard`: how long before this agent's start the one before heard the
    /// manager, if that is known.
    pub fn adopt(&mut self, found: Found, heard: Option<Duration>, now: Now) {
        if self.phase != Phase::New || self.busy.is_some() {
            return;
        }
        self.container = true;
        match found {
            Found::Running { pid, health, lease } => {
                let until = |lease: Duration| match heard {
                    Some(before) => Mono::default() + lease.saturating_sub(before),
                    None => now.mono + lease / limits::UNKNOWN_LEASE_PART,
                };
                self.lease = self.lease.or(lease.map(|lease| (lease, until(lease))));
                self.check = health.map(|watch| watch.check);
                self.runs(pid, health.is_some_and(|watch| watch.was_healthy), now);
            }
            // If the agent before this one told the manager, the journal does not have it, and it is not begun again.
            Found::Ended { status, oom } => self.exited(status, oom, now.wall),
            // An agent died before it started it. Made sure of again when the task's work is known, it starts if it is
            // still wanted.
            Found::Made => {}
            Found::Lost => {
                let err = "the container was lost: the board was restarted or lost power".to_owned();
                self.ends(TaskState::Failed, "failed", Some(err), now.wall);
            }
        }
    }

    /// Whether its process should be there.
    pub fn has_process(&self) -> bool {
        matches!(self.phase, Phase::Running { .. } | Phase::Leaving { .. } | Phase::Stopping { .. })
    }

    /// Whether a process may be there, or be about to be.
    pub fn may_run(&self) -> bool {
        self.has_process() || self.busy == Some(Op::Start)
    }

    fn blank(id: TaskId, state: TaskState, message: &str, at: Wall) -> Self {
        Self {
            id,
            wanted: None,
            work: None,
            grace: STOP_GRACE_DEFAULT,
            phase: Phase::New,
            busy: None,
            not_before: Mono::default(),
            check: None,
            health: None,
            sick: None,
            container: false,
            lease: None,
            is_cut: false,
            strike_at: Mono::default(),
            again: None,
            burst: (0, Mono::default()),
            is_again: false,
            is_recalled: false,
            is_settled: false,
            report: TaskReport {
                unhealthy: false,
                restarts: 0,
                task: id,
                state,
                at,
                message: message.to_owned(),
                err: None,
                container: None,
                ports: Vec::new(),
            },
            dirty: true,
        }
    }

    /// What it runs; none while it was only found on the board.
    pub fn work(&self) -> Option<&Rc<Work>> {
        self.work.as_ref()
    }

    /// Whether it can do without its description: its container was started already.
    pub fn has_begun(&self) -> bool {
        self.phase != Phase::New
    }

    /// Bytes of heap that its description takes.
    pub fn weight(&self) -> usize {
        self.work.as_deref().map_or(0, weight::of)
    }

    /// The last report.
    pub fn report(&self) -> &TaskReport {
        &self.report
    }

    /// Whether the manager does not know the task (any more).
    pub fn is_unwanted(&self) -> bool {
        self.wanted.is_none()
    }

    /// The report, if it has not been sent; it counts as sent then.
    pub fn take_report(&mut self) -> Option<TaskReport> {
        self.is_settled |= self.phase == Phase::Ended;
        std::mem::take(&mut self.dirty).then(|| self.report.clone())
    }

    /// The manager wants this; it only grows. `work` comes with the first mention in a session.
    pub fn want(&mut self, desired: Desired, work: Option<Rc<Work>>, heard: Mono) {
        self.again = None;
        // It may have moved on while the manager did not know it.
        self.dirty |= self.wanted.is_none();
        self.wanted = Some(self.wanted.map_or(desired, |known| known.max(desired)));
        if let Some(work) = work.filter(|_| self.lacks_work()) {
            self.takes(work, heard);
            self.is_recalled = false;
        }
    }

    /// Whether the manager's description of it is not here.
    pub fn lacks_work(&self) -> bool {
        self.work.is_none() || self.is_recalled
    }

    /// The manager does not know the task: it shall go, container and all.
    pub fn unwant(&mut self) {
        (self.wanted, self.again) = (None, None);
    }

    fn stops(&self) -> bool {
        self.wanted.is_none_or(|desired| desired >= Desired::Shutdown)
    }

    /// Whether its process shall end.
    fn goes(&self) -> bool {
        self.stops() || self.sick.is_some()
    }

    /// The next operation, if one is due and none is in flight. It counts as in flight then.
    pub fn next(&mut self, now: Now) -> Option<Op> {
        if self.busy.is_some() || now.mono < self.not_before {
            return None;
        }
        let op = self.decide(now)?;
        self.busy = Some(op);
        Some(op)
    }

    fn decide(&mut self, now: Now) -> Option<Op> {
        match self.phase {
            Phase::New | Phase::Made | Phase::Again if self.stops() => {
                self.ends(TaskState::Shutdown, "shutdown", None, now.wall);
                self.decide(now)
            }
            Phase::New => {
                self.work.as_ref()?;
                self.container = true;
                self.begins(TaskState::Preparing, "preparing", now.wall);
                Some(Op::Prepare)
            }
            Phase::Again if self.container => Some(Op::Delete),
            Phase::Again => {
                self.phase = Phase::New;
                self.decide(now)
            }
            Phase::Made if self.wanted == Some(Desired::Running) && !self.is_cut => {
                self.begins(TaskState::Starting, "starting", now.wall);
                Some(Op::Start)
            }
            Phase::Made => None,
            Phase::Running { pid } if self.goes() && self.is_balanced() && !self.is_cut => {
                self.phase = Phase::Leaving { pid, until: now.mono + limits::LEAVE_BALANCE };
                None
            }
            Phase::Leaving { until, .. } if now.mono < until && !self.is_cut => None,
            Phase::Leaving { pid, .. } => self.begins_to_stop(pid, now),
            Phase::Running { pid } if self.goes() => self.begins_to_stop(pid, now),
            Phase::Running { .. } => {
                let health = self.health.as_mut()?;
                health.due().filter(|due| *due <= now.mono)?;
                health.begins(now.mono);
                Some(Op::Probe)
            }
            Phase::Stopping { pid, kill_at, kills } if kill_at <= now.mono => {
                // A process stuck in the kernel is killed again, less and less often.
                let pause = limits::KILL_AGAIN_AFTER * 2u32.saturating_pow(kills.min(5));
                self.phase = Phase::Stopping { pid, kill_at: now.mono + pause, kills: kills + 1 };
                Some(Op::Signal(Some(signal::SIGKILL)))
            }
            Phase::Stopping { .. } => None,
            Phase::Ended if self.wanted.is_none() && self.container => Some(Op::Delete),
            Phase::Ended => {
                self.again.take_if(|at| *at <= now.mono)?;
                self.burst = (self.burst.0.saturating_add(1), if self.burst.0 == 0 { now.mono } else { self.burst.1 });
                (self.phase, self.is_again) = (Phase::Again, true);
                self.report.container = None;
                self.says(TaskState::Preparing, "preparing", now.wall);
                self.decide(now)
            }
        }
    }

    /// Its grace counts from the signal: see [`Task::was_told`].
    fn begins_to_stop(&mut self, pid: u32, now: Now) -> Option<Op> {
        self.phase = Phase::Stopping { pid, kill_at: now.mono + self.grace, kills: 0 };
        if self.grace.is_zero() { self.decide(now) } else { Some(Op::Signal(None)) }
    }

    /// Whether boards send it new connections until they hear that it shall stop, or is not healthy.
    fn is_balanced(&self) -> bool {
        let net = self.work.as_ref().and_then(|work| work.net.as_ref());
        // One that is forgotten is in nobody's balance; one that starts was never in it.
        let is_in = self.wanted.is_some() && self.report.state == TaskState::Running;
        is_in && net.is_some_and(|net| net.balanced)
    }

    /// The ports it has on the board.
    pub fn has_ports(&mut self, ports: Vec<HostPort>) {
        self.dirty |= self.report.ports != ports;
        self.report.ports = ports;
    }

    /// Whether it ended.
    pub fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Whether the operation in flight shall be given up: a pull for a task that is not wanted any more, a health
    /// check of one that shall stop or has ended.
    pub fn cancels(&self) -> bool {
        match self.busy {
            Some(Op::Prepare) => self.stops(),
            Some(Op::Probe) => self.goes() || self.phase == Phase::Ended,
            Some(Op::Start | Op::Signal(_) | Op::Delete) | None => false,
        }
    }

    /// When there is something to do if nothing happens before.
    pub fn wake_at(&self) -> Option<Mono> {
        [self.next_at(), self.fenced_at()].into_iter().flatten().min()
    }

    /// When [`Task::next`] has something to do. None while an operation is in flight: its end wakes.
    fn next_at(&self) -> Option<Mono> {
        if self.busy.is_some() {
            return None;
        }
        let is_due = match self.phase {
            Phase::New => self.stops() || self.work.is_some(),
            Phase::Made => self.stops() || self.wanted == Some(Desired::Running) && !self.is_cut,
            Phase::Again => true,
            Phase::Leaving { until, .. } => return Some(until.max(self.not_before)),
            Phase::Running { .. } if self.goes() => true,
            Phase::Running { .. } => {
                return self.health.as_ref().and_then(Health::due).map(|due| due.max(self.not_before));
            }
            Phase::Stopping { kill_at, .. } => return Some(kill_at.max(self.not_before)),
            Phase::Ended if self.wanted.is_some() => return self.again.map(|at| at.max(self.not_before)),
            Phase::Ended => self.container,
        };
        is_due.then_some(self.not_before)
    }

    /// Whether it was killed and did not end in time: perhaps its end was missed.
    pub fn is_stuck(&self) -> bool {
        matches!(self.phase, Phase::Stopping { kills: 2.., .. })
    }

    /// Whether nothing of it is left and nobody asks for it.
    pub fn is_gone(&self) -> bool {
        self.wanted.is_none() && self.phase == Phase::Ended && !self.container && self.busy.is_none()
    }

    /// As [`Task::says`], but an operation that is tried again is no news: the report keeps the reason.
    fn begins(&mut self, state: TaskState, message: &str, at: Wall) {
        if self.report.state != state {
            self.says(state, message, at);
        }
    }

    fn says(&mut self, state: TaskState, message: &str, at: Wall) {
        self.report.state = state;
        message.clone_into(&mut self.report.message);
        self.report.err = None;
        self.report.at = at;
        self.dirty = true;
    }
}

#[cfg(test)]
mod tests {
    use racimo_common::id::RandomId;

    use super::*;

    fn at(ms: u64) -> Now {
        Now { mono: Mono::default() + Duration::from_millis(ms), ..Now::default() }
    }

    /// A running task that is told to stop at 0 s.
    fn stopping(grace: Duration) -> Task {
        let mut task = Task::found(
            TaskId::from_bits(1),
            Found::Running { pid: 7, health: None, lease: None },
            Some(grace),
            None,
            at(0),
        );
        task.unwant();
        task
    }

    /// The loop runs at once as often as the answer is not in the future, so it must be unless there is work.
    #[track_caller]
    fn check_wake(task: &mut Task, now: Now, want: Option<Now>) {
        assert_eq!(task.next(now), None);
        assert_eq!(task.wake_at(), want.map(|now| now.mono), "at {now:?}: {task:?}");
    }

    #[test]
    fn a_task_that_stops_is_looked_at_when_there_is_something_to_do() {
        let mut task = stopping(Duration::from_millis(300));
        assert_eq!(task.next(at(0)), Some(Op::Signal(None)));
        // The deadline passes while the signal is on its way.
        check_wake(&mut task, at(400), None);
        task.done(Done::Failed("no".to_owned()), at(500));
        let retry = at(500 + u64::try_from(limits::RETRY_AFTER.as_millis()).unwrap());
        check_wake(&mut task, at(510), Some(retry));
        assert_eq!(task.next(retry), Some(Op::Signal(Some(signal::SIGKILL))));
    }

    #[test]
    fn no_grace_is_killed_at_once() {
        let mut task = stopping(Duration::ZERO);
        assert_eq!(task.next(at(0)), Some(Op::Signal(Some(signal::SIGKILL))));
        check_wake(&mut task, at(0), None);
        task.exited(137, false, at(1).wall);
        task.done(Done::Ok(None), at(1));
        assert_eq!(task.report().state, TaskState::Shutdown);
    }
}
