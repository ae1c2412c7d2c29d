//! What a board shall hold, and how to tell it.
//!
//! In: the view, a node, what it was sent. Out: the [`Assign`] messages that bring it up to date.
//! A board holds every task assigned to it until the store has its end; so each of them gets a report.

use std::collections::BTreeMap;

use racimo_common::id::{NodeId, TaskId};
use racimo_common::limits::{ENDED_LOGS_MAX, FRAME_TO_AGENT_MAX};
use racimo_common::object::{Desired, generic_variables};
use racimo_common::wire::{Assign, Assignment, Work, frame};

use crate::log_driver;
use crate::store::{Slot, Task, View};

/// What a board was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sent {
    /// Each task with the desired state it knows.
    pub tasks: BTreeMap<TaskId, Desired>,
    /// The ended tasks whose logs it keeps.
    pub logs: Vec<TaskId>,
}

/// Room kept in a frame for the message around the assignments, bytes.
const MARGIN: usize = 1024 + ENDED_LOGS_MAX * 20;

/// The whole set, in parts that fit a frame; and the record of it.
pub fn complete(view: &View, node: NodeId) -> (Vec<Assign>, Sent) {
    let mut sent = Sent { tasks: BTreeMap::new(), logs: logs(view, node) };
    let tasks = held(view, node).map(|task| {
        sent.tasks.insert(task.id, task.desired);
        assignment(task, true)
    });
    let tasks: Vec<Assignment> = tasks.collect();
    let logs = Some(sent.logs.clone());
    let whole = Assign { complete: true, from: 0, to: view.version(), logs, ..Assign::default() };
    (split(whole, tasks, Vec::new()), sent)
}

/// What changed since `sent` was recorded at index `from`; empty if nothing did. Updates `sent`.
pub fn delta(view: &View, node: NodeId, sent: &mut Sent, from: u64) -> Vec<Assign> {
    let mut tasks = Vec::new();
    let mut gone = sent.tasks.clone();
    for task in held(view, node) {
        gone.remove(&task.id);
        match sent.tasks.insert(task.id, task.desired) {
            Some(desired) if desired == task.desired => {}
            known => tasks.push(assignment(task, known.is_none())),
        }
    }
    let removed: Vec<TaskId> = gone.into_keys().collect();
    for task in &removed {
        sent.tasks.remove(task);
    }
    let logs = Some(logs(view, node)).filter(|logs| *logs != sent.logs);
    if tasks.is_empty() && removed.is_empty() && logs.is_none() {
        return Vec::new();
    }
    if let Some(logs) = &logs {
        sent.logs.clone_from(logs);
    }
    split(Assign { complete: false, from, to: view.version(), logs, ..Assign::default() }, tasks, removed)
}

/// The ended tasks that are still in the history: somebody may ask what they said.
fn logs(view: &View, node: NodeId) -> Vec<TaskId> {
    let mut ended: Vec<_> =
        view.state.tasks_on_node(node).filter_map(|task| Some((task.ended.as_ref()?.at, task.id))).collect();
    ended.sort_unstable();
    ended.drain(..ended.len().saturating_sub(ENDED_LOGS_MAX));
    let mut logs: Vec<TaskId> = ended.into_iter().map(|(_, task)| task).collect();
    logs.sort_unstable();
    logs
}

fn held(view: &View, node: NodeId) -> impl Iterator<Item = &Task> {
    view.state.tasks_on_node(node).map(|task| &**task).filter(|task| task.ended.is_none())
}

/// The task as it goes over the wire; `with_work` on first mention.
pub fn assignment(task: &Task, with_work: bool) -> Assignment {
    Assignment { task: task.id, desired: task.desired, work: with_work.then(|| Box::new(work(task))) }
}

fn work(task: &Task) -> Work {
    let mut container = task.spec.container.clone();
    // Last, so that nothing the service says takes their place.
    container.env.extend(generic_variables(&task.generic));
    Work {
        service: task.service,
        service_name: task.service_name.to_string(),
        slot_name: slot_name(task),
        container,
        resources: task.spec.resources.clone(),
        // Checked when the service was stored.
        log: log_driver::config(task.spec.log.as_ref()).unwrap_or_default(),
        files: Vec::new(),
        credentials: None,
    }
}

/// `web.1`, or `web.<node id>` for a global service.
pub fn slot_name(task: &Task) -> String {
    match task.slot {
        Slot::Replica(number) => format!("{}.{number}", task.service_name),
        Slot::Node(node) => format!("{}.{node}", task.service_name),
    }
}

fn split(mut part: Assign, tasks: Vec<Assignment>, removed: Vec<TaskId>) -> Vec<Assign> {
    let blank = Assign { complete: part.complete, from: part.from, to: part.to, ..Assign::default() };
    let mut parts = Vec::new();
    let mut room = FRAME_TO_AGENT_MAX - MARGIN;
    let size = |bytes: usize, part: &mut Assign, parts: &mut Vec<Assign>, room: &mut usize| {
        if bytes > *room && !(part.tasks.is_empty() && part.removed.is_empty()) {
            parts.push(std::mem::replace(part, blank.clone()));
            *room = FRAME_TO_AGENT_MAX - MARGIN;
        }
        *room -= bytes.min(*room);
    };
    for task in tasks {
        // The API refuses a spec that would not fit a frame, so this cannot fail for stored tasks.
        let bytes = frame::encode(&task, FRAME_TO_AGENT_MAX).map_or(FRAME_TO_AGENT_MAX, |bytes| bytes.len());
        size(bytes, &mut part, &mut parts, &mut room);
        part.tasks.push(task);
    }
    for task in removed {
        size(18, &mut part, &mut parts, &mut room);
        part.removed.push(task);
    }
    part.last = true;
    parts.push(part);
    parts
}
