//! How far a job is: tasks that have completed, tasks that are under way. Pure.
//!
//! Only tasks of the job's current iteration count: each change of the service starts it anew.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::json::Peek;
use super::super::limits;
use super::state::{Frame, Poll, Slot, SlotStatus, TaskState, status};

/// A replicated job; whether it is complete.
pub(super) fn replicated(poll: &Poll<'_>) -> (Frame, bool) {
    let count = |key: &str| {
        let number = poll.service.int(&format!("/Spec/Mode/ReplicatedJob/{key}"));
        number.unwrap_or(1).max(0).unsigned_abs()
    };
    let total = count("TotalCompletions");
    let tasks = newest(poll, |task| Some(task.int("/Slot").unwrap_or(0)));
    let states = || tasks.values().map(|task| TaskState::parse(task.text("/Status/State")));
    let complete = states().filter(|state| *state == TaskState::Complete).count() as u64;
    let active = states().filter(|state| *state < TaskState::Complete).count();
    let (digits, most) = (total.to_string().len(), count("MaxConcurrent"));
    let wanted = total.saturating_sub(complete).min(most);
    let width = most.to_string().len();
    let overall = vec![
        format!("job progress: {complete:digits$} out of {total} complete"),
        format!("active tasks: {active:width$} out of {wanted:width$} tasks"),
    ];
    let mut frame = Frame { overall, goal: TaskState::Complete, ..Frame::default() };
    if total <= limits::PROGRESS_BARS_MAX {
        // Slots of a job count from 0.
        let line = |n: u64| Slot {
            label: format!("{n:digits$}/{total}"),
            status: i64::try_from(n - 1).ok().and_then(|slot| tasks.get(&slot)).map_or(SlotStatus::Unknown, see),
        };
        frame.slots = (1..=total).map(line).collect();
    }
    (frame, complete >= total)
}

/// A global job; whether it is complete on the boards that it began on.
pub(super) fn global(poll: &Poll<'_>, nodes: &mut BTreeSet<String>) -> (Frame, bool) {
    let tasks = newest(poll, |task| Some(task.text("/NodeID").to_owned()).filter(|id| !id.is_empty()));
    if nodes.is_empty() {
        // Without a board there is nothing to do.
        let has_nodes = poll.nodes.iter().any(|node| node.text("/Status/State") != "down");
        if tasks.is_empty() && has_nodes {
            let overall = vec!["job progress: waiting for tasks".to_owned()];
            return (Frame { overall, goal: TaskState::Complete, ..Frame::default() }, false);
        }
        nodes.extend(tasks.keys().cloned());
    }
    let total = nodes.len();
    let is_complete = |task: &&&Value| task.text("/Status/State") == "complete";
    let complete = nodes.iter().filter_map(|node| tasks.get(node)).filter(is_complete).count();
    let digits = total.to_string().len();
    let overall = vec![format!("job progress: {complete:digits$} out of {total} complete")];
    let mut frame = Frame { overall, goal: TaskState::Complete, ..Frame::default() };
    if total as u64 <= limits::PROGRESS_BARS_MAX {
        let line =
            |node: &String| Slot { label: node.clone(), status: tasks.get(node).map_or(SlotStatus::Unknown, see) };
        frame.slots = nodes.iter().map(line).collect();
    }
    (frame, complete >= total)
}

fn see(task: &&Value) -> SlotStatus {
    status(task, TaskState::Complete)
}

/// The task of the current iteration that counts for each key: the one that has gone least far, since
/// what replaces a failed task begins anew.
fn newest<'a, K: Ord>(poll: &Poll<'a>, key: impl Fn(&Value) -> Option<K>) -> BTreeMap<K, &'a Value> {
    let iteration = poll.service.int("/JobStatus/JobIteration/Index").unwrap_or(0);
    let state = |task: &Value| TaskState::parse(task.text("/Status/State"));
    let mut best: BTreeMap<K, &Value> = BTreeMap::new();
    for task in poll.tasks {
        if task.int("/JobIteration/Index").unwrap_or(0) != iteration {
            continue;
        }
        let Some(key) = key(task) else { continue };
        best.entry(key)
            .and_modify(|old| {
                if state(task) < state(old) {
                    *old = task;
                }
            })
            .or_insert(task);
    }
    best
}
