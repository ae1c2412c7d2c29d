//! Has the service converged? One judgement per poll.
//!
//! In: the service, its tasks that match its current specification, the nodes, the time since the
//! start. Out: a `Frame` to show and a `Verdict`. The rules are those of Docker's progress display.
//!
//! ```text
//! Wait (tasks come up) ─▶ Wait (verify for the monitor time) ─▶ Converged
//!   ▲                        │ a task fails
//!   └────────────────────────┘
//! update paused, rollback paused ─▶ Failed
//! ```
//! Jobs are judged in [`super::job`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::super::format::human;
use super::super::json::Peek;
use super::super::limits;
use super::job::JobProgress;

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
    /// All tasks run and stayed up.
    Converged,
    /// The manager stopped trying; the text is for the user.
    Failed(String),
}

/// What to show after one poll.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The rollback's reason, when one runs or ran.
    pub(crate) rollback: Option<String>,
    /// "overall progress: …".
    pub(crate) overall: String,
    /// "active tasks: …", of a job.
    pub(crate) active: Option<String>,
    /// One entry per task, none when there are too many.
    pub(crate) slots: Vec<Slot>,
    /// "verify: …", once all tasks run.
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
    /// A job's task that is done.
    Complete,
}

/// The states that a task passes on its way up, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TaskState {
    New,
    Allocated,
    Pending,
    Assigned,
    Accepted,
    Preparing,
    Ready,
    Starting,
    Running,
    /// Any state behind running.
    Over,
}

impl TaskState {
    /// Steps from new to running.
    pub(crate) const STEPS: usize = TaskState::Running as usize + 1;

    fn parse(text: &str) -> TaskState {
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
            TaskState::Over => "stopped",
        }
    }
}

/// Memory between polls.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    converged_at: Option<Duration>,
    rollback: Option<String>,
    /// Slot number → place in the display, in order of appearance.
    places: BTreeMap<i64, usize>,
    job: JobProgress,
}

impl Progress {
    /// Judges one poll.
    pub(crate) fn step(&mut self, poll: &Poll<'_>) -> (Frame, Verdict) {
        let service = poll.service;
        if service.has("/Spec/Mode/ReplicatedJob") {
            return self.job.replicated(poll);
        }
        if service.has("/Spec/Mode/GlobalJob") {
            return self.job.global(poll);
        }
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
        let left = (since + monitor(poll.service)).saturating_sub(poll.now);
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
        let mut frame = Frame { overall: overall(running, replicas, rolling_back), ..Frame::default() };
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
                    line.status = status(task);
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
        return (Frame { overall, ..Frame::default() }, false);
    }
    let total = tasks.len() as u64;
    let running = tasks.values().filter(|task| is_running(task)).count() as u64;
    let mut frame = Frame { overall: overall(running, total, rolling_back), ..Frame::default() };
    if total <= limits::PROGRESS_BARS_MAX {
        frame.slots =
            tasks.iter().map(|(node, task)| Slot { label: human::short_id(node), status: status(task) }).collect();
    }
    (frame, running == total)
}

/// The task that counts for each key: not on a dead node, the one that is meant to live longest;
/// among equals the one that is furthest.
fn newest<'a, K: Ord>(poll: &Poll<'a>, key: impl Fn(&Value) -> Option<K>) -> BTreeMap<K, &'a Value> {
    let dead: BTreeSet<&str> =
        poll.nodes.iter().filter(|node| node.text("/Status/State") == "down").map(|node| node.text("/ID")).collect();
    let rank = |task: &Value| {
        let wanted = TaskState::parse(task.text("/DesiredState"));
        let is = TaskState::parse(task.text("/Status/State"));
        (std::cmp::Reverse(wanted), is)
    };
    let mut best: BTreeMap<K, &Value> = BTreeMap::new();
    for task in poll.tasks {
        if dead.contains(task.text("/NodeID")) {
            continue;
        }
        let Some(key) = key(task) else { continue };
        best.entry(key)
            .and_modify(|old| {
                if rank(task) > rank(old) {
                    *old = task
                }
            })
            .or_insert(task);
    }
    best
}

fn is_running(task: &Value) -> bool {
    TaskState::parse(task.text("/DesiredState")) != TaskState::Over && task.text("/Status/State") == "running"
}

pub(super) fn status(task: &Value) -> SlotStatus {
    let trouble = task.text("/Status/Err");
    let state = TaskState::parse(task.text("/Status/State"));
    if !trouble.is_empty() {
        SlotStatus::Trouble(trouble.replace(['\n', '\r', '\t'], " "))
    } else if state == TaskState::Over {
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

fn monitor(service: &Value) -> Duration {
    let nanos = service.int("/Spec/UpdateConfig/Monitor").and_then(|n| u64::try_from(n).ok());
    nanos.filter(|n| *n > 0).map_or(limits::MONITOR_DEFAULT, Duration::from_nanos)
}

fn name(service: &Value) -> &str {
    match service.text("/Spec/Name") {
        "" => service.text("/ID"),
        name => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(mode: Value, update: Value) -> Value {
        json!({"ID": "sid", "Spec": {"Name": "web", "Mode": mode, "UpdateConfig": {"Monitor": 1_000_000_000}},
               "UpdateStatus": update})
    }

    fn task(slot: i64, state: &str) -> Value {
        json!({"Slot": slot, "NodeID": format!("node{slot}"), "DesiredState": "running", "Status": {"State": state}})
    }

    fn with(mut task: Value, pointer: &str, value: &str) -> Value {
        *task.pointer_mut(pointer).expect("a field of the task") = value.into();
        task
    }

    fn text(frame: &Frame) -> String {
        super::super::paint::lines(frame, false).join("|")
    }

    #[track_caller]
    fn check(state: &mut Progress, service: &Value, tasks: &[Value], ms: u64, want: (&str, Verdict)) {
        let nodes = [json!({"ID": "node9", "Status": {"State": "down"}})];
        let (frame, verdict) = state.step(&Poll { service, tasks, nodes: &nodes, now: Duration::from_millis(ms) });
        assert_eq!((text(&frame).as_str(), verdict), (want.0, want.1));
    }

    #[test]
    fn replicas_come_up_and_are_verified() {
        let web = service(json!({"Replicated": {"Replicas": 2}}), Value::Null);
        let p = &mut Progress::default();
        let waiting = Verdict::Wait;
        check(p, &web, &[], 0, ("overall progress: 0 out of 2 tasks|1/2: |2/2: ", waiting.clone()));
        let tasks = [task(2, "preparing"), task(1, "running")];
        check(
            p,
            &web,
            &tasks,
            200,
            ("overall progress: 1 out of 2 tasks|1/2: running|2/2: preparing", waiting.clone()),
        );
        let tasks = [task(2, "running"), task(1, "running")];
        let verify = "overall progress: 2 out of 2 tasks|1/2: running|2/2: running|verify: ";
        check(
            p,
            &web,
            &tasks,
            400,
            (&format!("{verify}Waiting 1 seconds to verify that tasks are stable..."), waiting.clone()),
        );
        let one = [task(1, "running"), with(task(2, "failed"), "/DesiredState", "shutdown")];
        check(
            p,
            &web,
            &one,
            800,
            ("overall progress: 1 out of 2 tasks|1/2: running|2/2: |verify: Detected task failure", waiting),
        );
        check(
            p,
            &web,
            &tasks,
            1000,
            (&format!("{verify}Waiting 1 seconds to verify that tasks are stable..."), Verdict::Wait),
        );
        check(p, &web, &tasks, 2000, (&format!("{verify}Service web converged"), Verdict::Converged));
    }

    #[test]
    fn the_wanted_task_of_a_slot_counts() {
        let web = service(json!({"Replicated": {"Replicas": 1}}), Value::Null);
        let old = with(task(1, "running"), "/DesiredState", "shutdown");
        let lost = with(task(1, "running"), "/NodeID", "node9");
        for tasks in [[old.clone(), lost.clone(), task(1, "starting")], [task(1, "starting"), lost, old]] {
            check(
                &mut Progress::default(),
                &web,
                &tasks,
                0,
                ("overall progress: 0 out of 1 tasks|1/1: starting", Verdict::Wait),
            );
        }
    }

    #[test]
    fn an_unplaceable_task_says_why() {
        let web = service(json!({"Replicated": {"Replicas": 1}}), Value::Null);
        let mut stuck = task(1, "pending");
        stuck["Status"]["Err"] = "no suitable node\n(not ready on 1 node)".into();
        let want = "overall progress: 0 out of 1 tasks|1/1: no suitable node (not ready on 1 node)";
        check(&mut Progress::default(), &web, &[stuck], 0, (want, Verdict::Wait));
    }

    #[test]
    fn many_replicas_show_only_the_sum() {
        let web = service(json!({"Replicated": {"Replicas": 21}}), Value::Null);
        check(
            &mut Progress::default(),
            &web,
            &[task(1, "running")],
            0,
            ("overall progress: 1 out of 21 tasks", Verdict::Wait),
        );
        let none = service(json!({"Replicated": {"Replicas": 0}}), Value::Null);
        let want = "overall progress: 0 out of 0 tasks|verify: Waiting 1 seconds to verify that tasks are stable...";
        check(&mut Progress::default(), &none, &[], 0, (want, Verdict::Wait));
    }

    #[test]
    fn a_slot_beyond_the_replicas_finds_a_free_line() {
        let web = service(json!({"Replicated": {"Replicas": 2}}), Value::Null);
        let p = &mut Progress::default();
        check(
            p,
            &web,
            &[task(7, "running"), task(3, "new")],
            0,
            ("overall progress: 1 out of 2 tasks|1/2: new|2/2: running", Verdict::Wait),
        );
        check(
            p,
            &web,
            &[task(7, "running"), task(1, "new")],
            0,
            ("overall progress: 1 out of 2 tasks|1/2: new|2/2: running", Verdict::Wait),
        );
    }

    #[test]
    fn global_services_have_a_line_per_node() {
        let all = service(json!({"Global": {}}), Value::Null);
        let p = &mut Progress::default();
        check(p, &all, &[], 0, ("overall progress: waiting for new tasks", Verdict::Wait));
        check(
            p,
            &all,
            &[task(1, "running"), task(2, "ready")],
            0,
            ("overall progress: 1 out of 2 tasks|node1: running|node2: ready", Verdict::Wait),
        );
    }

    #[test]
    fn the_updater_has_the_last_word() {
        let mode = json!({"Replicated": {"Replicas": 1}});
        let state = |state: &str| service(mode.clone(), json!({"State": state, "Message": "because"}));
        let p = &mut Progress::default();
        check(p, &state("paused"), &[], 0, ("", Verdict::Failed("service update paused: because".to_owned())));
        check(
            p,
            &state("rollback_paused"),
            &[],
            0,
            ("", Verdict::Failed("service rollback paused: because".to_owned())),
        );
        let back = "rollback: because|overall progress: rolling back update: 0 out of 1 tasks|1/1: ";
        check(p, &state("rollback_started"), &[], 0, (back, Verdict::Wait));
        check(
            p,
            &state("rollback_completed"),
            &[],
            0,
            ("rollback: because|overall progress: 0 out of 1 tasks|1/1: ", Verdict::Wait),
        );
        check(p, &state("completed"), &[], 0, ("", Verdict::Converged));
        let job = service(json!({"Sideways": {}}), Value::Null);
        let text = "this service mode has no progress display; use --detach".to_owned();
        check(p, &job, &[], 0, ("", Verdict::Failed(text)));
    }
}
