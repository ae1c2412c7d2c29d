//! Has the service converged? One judgement per poll.
//!
//! In: the service, its tasks that match its current specification, the nodes, the time since the
//! start. Out: a `Frame` to show and a `Verdict`. The rules are those of Docker's progress display.
//!
//! ```text
//! Wait (tasks come up) ─▶ Wait (verify for the monitor time) ─▶ Converged
//!   ▲                        │ a task fails
//!   └────────────────────────┘
//! Wait (tasks of a job complete) ─▶ Converged
//! update paused, rollback paused ─▶ Failed
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::super::format::human;
use super::super::json::Peek;
use super::super::limits;
use super::super::ours::ours;
use super::job;

/// What one poll saw.
pub(crate) struct Poll<'a> {
    /// The service.
    pub(crate) service: &'a Value,
    /// Its tasks that match its current specification.
    pub(crate) tasks: &'a [Value],
    /// All nodes.
    pub(crate) nodes: &'a [Value],
    /// Time since the start of the display.
    pub(crate) now: Duration,
}

/// How to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Poll again.
    Wait,
    /// All tasks run and stayed up, or a job is complete.
    Converged,
    /// The manager stopped trying; the text is for the user.
    Failed(String),
}

/// What to show after one poll.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The rollback's reason, when one runs or ran.
    pub(crate) rollback: Option<String>,
    /// "overall progress: …"; of a job, its progress and its active tasks.
    pub(crate) overall: Vec<String>,
    /// One entry per task, none when there are too many.
    pub(crate) slots: Vec<Slot>,
    /// The state that fills a bar.
    pub(crate) goal: TaskState,
    /// "verify: …", once all tasks run; "job complete".
    pub(crate) verify: Option<String>,
}

/// The line of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// "1/3", or a node's id.
    pub(crate) label: String,
    /// What stands behind it.
    pub(crate) status: SlotStatus,
}

/// How far one task is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SlotStatus {
    /// Nothing known yet.
    Unknown,
    /// The error that the manager or the board reported.
    Trouble(String),
    /// Somewhere on the way to running.
    Step(TaskState),
}

/// The states that a task passes on its way up, and what follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TaskState {
    New,
    Allocated,
    Pending,
    Assigned,
    Accepted,
    Preparing,
    Ready,
    Starting,
    #[default]
    Running,
    /// What the tasks of a job reach.
    Complete,
    /// Any other state behind running.
    Over,
}

impl TaskState {
    pub(super) fn parse(text: &str) -> TaskState {
        match text {
            "new" => TaskState::New,
            "allocated" => TaskState::Allocated,
            "pending" => TaskState::Pending,
            "assigned" => TaskState::Assigned,
            "accepted" => TaskState::Accepted,
            "preparing" => TaskState::Preparing,
            "ready" => TaskState::Ready,
            "starting" => TaskState::Starting,
            "running" => TaskState::Running,
            "complete" => TaskState::Complete,
            _ => TaskState::Over,
        }
    }

    /// The API's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            TaskState::New => "new",
            TaskState::Allocated => "allocated",
            TaskState::Pending => "pending",
            TaskState::Assigned => "assigned",
            TaskState::Accepted => "accepted",
            TaskState::Preparing => "preparing",
            TaskState::Ready => "ready",
            TaskState::Starting => "starting",
            TaskState::Running => "running",
            TaskState::Complete => "complete",
            TaskState::Over => "stopped",
        }
    }
}

/// Memory between polls.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    converged_at: Option<Duration>,
    /// The last monitor time that a specification named; a rollback may name none.
    monitor: Option<Duration>,
    rollback: Option<String>,
    /// Slot number → place in the display, in order of appearance.
    places: BTreeMap<i64, usize>,
    /// The boards that a global job began on; those that join later are not waited for.
    job_nodes: BTreeSet<String>,
}

impl Progress {
    /// All tasks ran at the last poll; nothing is left but the proof that they stay up.
    pub(crate) fn is_verifying(&self) -> bool {
        self.converged_at.is_some()
    }

    /// Judges one poll.
    pub(crate) fn step(&mut self, poll: &Poll<'_>) -> (Frame, Verdict) {
        let service = poll.service;
        self.monitor = monitor(service).or(self.monitor);
        let message = service.text("/UpdateStatus/Message");
        let mut rolling_back = false;
        match service.text("/UpdateStatus/State") {
            "completed" if self.converged_at.is_none() => return (Frame::default(), Verdict::Converged),
            "paused" => return failed("service update paused", message),
            "rollback_paused" => return failed("service rollback paused", message),
            "rollback_started" => {
                rolling_back = true;
                self.rollback = Some(message.to_owned());
            }
            "rollback_completed" => self.rollback = Some(message.to_owned()),
            _ => {}
        }
        let (mut frame, running) = if service.has("/Spec/Mode/Replicated") {
            self.replicated(poll, rolling_back)
        } else if service.has("/Spec/Mode/Global") {
            global(poll, rolling_back)
        } else if service.has("/Spec/Mode/ReplicatedJob") {
            return finish(job::replicated(poll));
        } else if service.has("/Spec/Mode/GlobalJob") {
            return finish(job::global(poll, &mut self.job_nodes));
        } else {
            let text = "this service mode has no progress display; use --detach".to_owned();
            return (Frame::default(), Verdict::Failed(text));
        };
        frame.rollback = self.rollback.clone().filter(|text| !text.is_empty());
        let verdict = self.verify(&mut frame, poll, running);
        (frame, verdict)
    }

    /// Counts the monitor time down once everything runs.
    fn verify(&mut self, frame: &mut Frame, poll: &Poll<'_>, running: bool) -> Verdict {
        if !running {
            if self.converged_at.take().is_some() {
                frame.verify = Some("verify: Detected task failure".to_owned());
            }
            return Verdict::Wait;
        }
        let since = *self.converged_at.get_or_insert(poll.now);
        let left = (since + self.monitor.unwrap_or(limits::MONITOR_DEFAULT)).saturating_sub(poll.now);
        if left.is_zero() {
            frame.verify = Some(format!("verify: Service {} converged", name(poll.service)));
            return Verdict::Converged;
        }
        let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        frame.verify = Some(format!("verify: Waiting {seconds} seconds to verify that tasks are stable..."));
        Verdict::Wait
    }

    fn replicated(&mut self, poll: &Poll<'_>, rolling_back: bool) -> (Frame, bool) {
        let replicas = poll.service.int("/Spec/Mode/Replicated/Replicas").unwrap_or(1).max(0).unsigned_abs();
        let tasks = newest(poll, |task| task.int("/Slot"));
        let running = tasks.values().filter(|task| is_running(task)).count() as u64;
        let mut frame = Frame { overall: vec![overall(running, replicas, rolling_back)], ..Frame::default() };
        if replicas <= limits::PROGRESS_BARS_MAX {
            let digits = replicas.to_string().len();
            frame.slots = (1..=replicas)
                .map(|n| Slot { label: format!("{n:digits$}/{replicas}"), status: SlotStatus::Unknown })
                .collect();
            self.places.retain(|slot, _| tasks.contains_key(slot));
            for (slot, task) in &tasks {
                let place = match self.places.get(slot) {
                    Some(place) => *place,
                    None => {
                        let taken: BTreeSet<usize> = self.places.values().copied().collect();
                        let free = (0..).find(|n| !taken.contains(n)).expect("there is always a next number");
                        self.places.insert(*slot, free);
                        free
                    }
                };
                if let Some(line) = frame.slots.get_mut(place) {
                    line.status = status(task, TaskState::Running);
                }
            }
        }
        (frame, running == replicas)
    }
}

fn global(poll: &Poll<'_>, rolling_back: bool) -> (Frame, bool) {
    let tasks = newest(poll, |task| Some(task.text("/NodeID").to_owned()).filter(|id| !id.is_empty()));
    if tasks.is_empty() {
        let overall = "overall progress: waiting for new tasks".to_owned();
        return (Frame { overall: vec![overall], ..Frame::default() }, false);
    }
    let total = tasks.len() as u64;
    let running = tasks.values().filter(|task| is_running(task)).count() as u64;
    let mut frame = Frame { overall: vec![overall(running, total, rolling_back)], ..Frame::default() };
    if total <= limits::PROGRESS_BARS_MAX {
        frame.slots = tasks
            .iter()
            .map(|(node, task)| Slot { label: human::short_id(node), status: status(task, TaskState::Running) })
            .collect();
    }
    (frame, running == total)
}

/// The task that counts for each key: not on a dead node, the one that is meant to live longest;
/// among equals the one that has gone least far, since it is the newer one.
fn newest<'a, K: Ord>(poll: &Poll<'a>, key: impl Fn(&Value) -> Option<K>) -> BTreeMap<K, &'a Value> {
    let dead: BTreeSet<&str> =
        poll.nodes.iter().filter(|node| node.text("/Status/State") == "down").map(|node| node.text("/ID")).collect();
    let rank = |task: &Value| {
        let wanted = TaskState::parse(task.text("/DesiredState"));
        let is = TaskState::parse(task.text("/Status/State"));
        (wanted, is)
    };
    let mut best: BTreeMap<K, &Value> = BTreeMap::new();
    for task in poll.tasks {
        if dead.contains(task.text("/NodeID")) {
            continue;
        }
        let Some(key) = key(task) else { continue };
        best.entry(key)
            .and_modify(|old| {
                if rank(task) < rank(old) {
                    *old = task
                }
            })
            .or_insert(task);
    }
    best
}

/// A job needs no proof: what is complete stays so.
fn finish((mut frame, complete): (Frame, bool)) -> (Frame, Verdict) {
    if !complete {
        return (frame, Verdict::Wait);
    }
    frame.verify = Some("job complete".to_owned());
    (frame, Verdict::Converged)
}

fn is_running(task: &Value) -> bool {
    TaskState::parse(task.text("/DesiredState")) <= TaskState::Running && task.text("/Status/State") == "running"
}

pub(super) fn status(task: &Value, goal: TaskState) -> SlotStatus {
    let trouble = task.text("/Status/Err");
    let state = TaskState::parse(task.text("/Status/State"));
    if !trouble.is_empty() {
        SlotStatus::Trouble(ours(trouble).replace(['\n', '\r', '\t'], " "))
    } else if state > goal {
        SlotStatus::Unknown
    } else {
        SlotStatus::Step(state)
    }
}

fn overall(running: u64, total: u64, rolling_back: bool) -> String {
    let what = if rolling_back { "rolling back update: " } else { "" };
    format!("overall progress: {what}{running} out of {total} tasks")
}

fn failed(what: &str, message: &str) -> (Frame, Verdict) {
    (Frame::default(), Verdict::Failed(format!("{what}: {message}")))
}

fn monitor(service: &Value) -> Option<Duration> {
    let nanos = service.int("/Spec/UpdateConfig/Monitor").and_then(|n| u64::try_from(n).ok());
    nanos.filter(|n| *n > 0).map(Duration::from_nanos)
}

fn name(service: &Value) -> &str {
    match service.text("/Spec/Name") {
        "" => service.text("/ID"),
        name => name,
    }
}
