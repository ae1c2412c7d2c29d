//! How far is a job? The rules are those of Docker's progress display.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::format::human;
use super::super::json::Peek;
use super::super::limits;
use super::state::{Frame, Poll, Slot, SlotStatus, Verdict, status};

/// Memory between polls.
#[derive(Debug, Default)]
pub(super) struct JobProgress {
    /// The nodes of a global job when it began: those that come later don't count.
    nodes: Option<BTreeSet<String>>,
}

impl JobProgress {
    /// Judges one poll of a replicated job.
    pub(super) fn replicated(&self, poll: &Poll<'_>) -> (Frame, Verdict) {
        let number =
            |key: &str| poll.service.int(&format!("/Spec/Mode/ReplicatedJob/{key}")).unwrap_or(1).max(0).unsigned_abs();
        let (most, total) = (number("MaxConcurrent"), number("TotalCompletions"));
        // Docker leaves out the slot of the first task.
        let tasks = current(poll, |task| Some(task.int("/Slot").unwrap_or(0)));
        let completed = tasks.values().filter(|task| is_complete(task)).count() as u64;
        let active = tasks.len() as u64 - completed;
        let mut frame = frame(completed, total);
        frame.active =
            Some(format!("active tasks: {active} out of {} tasks", most.min(total.saturating_sub(completed))));
        if total <= limits::PROGRESS_BARS_MAX {
            let digits = total.to_string().len();
            let slot = |n: u64| Slot {
                label: format!("{:digits$}/{total}", n + 1),
                status: i64::try_from(n)
                    .ok()
                    .and_then(|n| tasks.get(&n))
                    .map_or(SlotStatus::Unknown, |t| job_status(t)),
            };
            frame.slots = (0..total).map(slot).collect();
        }
        verdict(frame, completed == total)
    }

    /// Judges one poll of a global job.
    pub(super) fn global(&mut self, poll: &Poll<'_>) -> (Frame, Verdict) {
        let tasks = current(poll, |task| Some(task.text("/NodeID").to_owned()).filter(|id| !id.is_empty()));
        let has_nodes = poll.nodes.iter().any(|node| node.text("/Status/State") == "ready");
        if self.nodes.is_none() && tasks.is_empty() && has_nodes {
            let overall = "job progress: waiting for tasks".to_owned();
            return (Frame { overall, ..Frame::default() }, Verdict::Wait);
        }
        let nodes = self.nodes.get_or_insert_with(|| tasks.keys().cloned().collect());
        let total = nodes.len() as u64;
        let counted: BTreeMap<&String, &&Value> = tasks.iter().filter(|(node, _)| nodes.contains(*node)).collect();
        let completed = counted.values().filter(|task| is_complete(task)).count() as u64;
        let mut frame = frame(completed, total);
        if total <= limits::PROGRESS_BARS_MAX {
            let slot =
                |(node, task): (&&String, &&&Value)| Slot { label: human::short_id(node), status: job_status(task) };
            frame.slots = counted.iter().map(slot).collect();
        }
        verdict(frame, completed == total)
    }
}

/// Of each slot, the task of this iteration that has the longest way to go.
fn current<'a, K: Ord>(poll: &Poll<'a>, key: impl Fn(&Value) -> Option<K>) -> BTreeMap<K, &'a Value> {
    let iteration = poll.service.int("/JobStatus/JobIteration/Index").unwrap_or(0);
    let is_current =
        |task: &&Value| task.has("/JobIteration") && task.int("/JobIteration/Index").unwrap_or(0) == iteration;
    let mut slots: BTreeMap<K, &Value> = BTreeMap::new();
    for task in poll.tasks.iter().filter(is_current) {
        let Some(key) = key(task) else { continue };
        slots
            .entry(key)
            .and_modify(|old| {
                if rank(task) < rank(old) {
                    *old = task;
                }
            })
            .or_insert(task);
    }
    slots
}

/// Where a task is on its way to completion; what failed is further than what completed, as in Docker.
fn rank(task: &Value) -> usize {
    let order = [
        "new",
        "allocated",
        "pending",
        "assigned",
        "accepted",
        "preparing",
        "ready",
        "starting",
        "running",
        "complete",
    ];
    order.iter().position(|state| *state == task.text("/Status/State")).unwrap_or(order.len())
}

fn is_complete(task: &Value) -> bool {
    task.text("/Status/State") == "complete"
}

fn job_status(task: &Value) -> SlotStatus {
    if is_complete(task) { SlotStatus::Complete } else { status(task) }
}

fn frame(completed: u64, total: u64) -> Frame {
    let digits = total.to_string().len();
    Frame { overall: format!("job progress: {completed:digits$} out of {total} complete"), ..Frame::default() }
}

fn verdict(frame: Frame, done: bool) -> (Frame, Verdict) {
    if !done {
        return (frame, Verdict::Wait);
    }
    (Frame { verify: Some("job complete".to_owned()), ..frame }, Verdict::Converged)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn service(mode: Value) -> Value {
        json!({"ID": "sid", "Spec": {"Name": "job", "Mode": mode}, "JobStatus": {"JobIteration": {"Index": 7}}})
    }

    fn task(slot: i64, state: &str, iteration: i64) -> Value {
        json!({"Slot": slot, "NodeID": format!("node{slot}"), "DesiredState": "complete", "Status": {"State": state},
               "JobIteration": {"Index": iteration}})
    }

    #[track_caller]
    fn check(job: &mut JobProgress, service: &Value, tasks: &[Value], want: (&str, Verdict)) {
        let nodes = [json!({"ID": "node1", "Status": {"State": "ready"}})];
        let poll = Poll { service, tasks, nodes: &nodes, now: Duration::ZERO };
        let (frame, verdict) =
            if service.has("/Spec/Mode/GlobalJob") { job.global(&poll) } else { job.replicated(&poll) };
        assert_eq!((super::super::paint::lines(&frame, false).join("|").as_str(), verdict), (want.0, want.1));
    }

    #[test]
    fn replicated_jobs_count_their_completions() {
        let job = service(json!({"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 3}}));
        let p = &mut JobProgress::default();
        let begin = "job progress: 0 out of 3 complete|active tasks: 0 out of 2 tasks|1/3: |2/3: |3/3: ";
        check(p, &job, &[], (begin, Verdict::Wait));
        // Docker says nothing of the slot of the first task; a task of another iteration does not count.
        let mut first = task(0, "complete", 7);
        first.as_object_mut().expect("an object").remove("Slot");
        let tasks = [first.clone(), task(1, "running", 7), task(2, "complete", 6)];
        let half = "job progress: 1 out of 3 complete|active tasks: 1 out of 2 tasks|1/3: complete|2/3: running|3/3: ";
        check(p, &job, &tasks, (half, Verdict::Wait));
        // A failed task was replaced.
        let tasks = [first, task(1, "failed", 7), task(1, "complete", 7), task(2, "complete", 7)];
        let end = "job progress: 3 out of 3 complete|active tasks: 0 out of 0 tasks|\
                   1/3: complete|2/3: complete|3/3: complete|job complete";
        check(p, &job, &tasks, (end, Verdict::Converged));
        let none = service(json!({"ReplicatedJob": {"MaxConcurrent": 0, "TotalCompletions": 0}}));
        let end = "job progress: 0 out of 0 complete|active tasks: 0 out of 0 tasks|job complete";
        check(p, &none, &[], (end, Verdict::Converged));
    }

    #[test]
    fn global_jobs_count_the_nodes_of_the_start() {
        let job = service(json!({"GlobalJob": {}}));
        let p = &mut JobProgress::default();
        check(p, &job, &[], ("job progress: waiting for tasks", Verdict::Wait));
        let tasks = [task(1, "complete", 7), task(2, "starting", 7)];
        let half = "job progress: 1 out of 2 complete|node1: complete|node2: starting";
        check(p, &job, &tasks, (half, Verdict::Wait));
        let tasks = [task(1, "complete", 7), task(2, "complete", 7), task(3, "running", 7)];
        let end = "job progress: 2 out of 2 complete|node1: complete|node2: complete|job complete";
        check(p, &job, &tasks, (end, Verdict::Converged));
    }
}
