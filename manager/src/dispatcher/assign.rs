//! What a board shall hold, and how to tell it.
//!
//! In: the view, a node, what it was sent. Out: the [`Assign`] messages that bring it up to date.
//! A board holds every task assigned to it until the store has its end; so each of them gets a report.

use std::collections::BTreeMap;

use racimo_common::id::{NodeId, TaskId};
use racimo_common::limits::FRAME_TO_AGENT_MAX;
use racimo_common::object::Desired;
use racimo_common::wire::{Assign, Assignment, Work, frame};

use crate::log_driver;
use crate::store::{Slot, Task, View};

/// What a board was sent: each task with the desired state it knows.
pub type Sent = BTreeMap<TaskId, Desired>;

/// Room kept in a frame for the message around the assignments, bytes.
const MARGIN: usize = 1024;

/// The whole set, in parts that fit a frame; and the record of it.
pub fn complete(view: &View, node: NodeId) -> (Vec<Assign>, Sent) {
    let mut sent = Sent::new();
    let tasks = held(view, node).map(|task| {
        sent.insert(task.id, task.desired);
        assignment(task, true)
    });
    let tasks: Vec<Assignment> = tasks.collect();
    let whole = Assign { complete: true, from: 0, to: view.version(), ..Assign::default() };
    (split(whole, tasks, Vec::new()), sent)
}

/// What changed since `sent` was recorded at index `from`; empty if nothing did. Updates `sent`.
pub fn delta(view: &View, node: NodeId, sent: &mut Sent, from: u64) -> Vec<Assign> {
    let mut tasks = Vec::new();
    let mut gone = sent.clone();
    for task in held(view, node) {
        gone.remove(&task.id);
        match sent.insert(task.id, task.desired) {
            Some(desired) if desired == task.desired => {}
            known => tasks.push(assignment(task, known.is_none())),
        }
    }
    let removed: Vec<TaskId> = gone.into_keys().collect();
    for task in &removed {
        sent.remove(task);
    }
    if tasks.is_empty() && removed.is_empty() {
        return Vec::new();
    }
    split(Assign { complete: false, from, to: view.version(), ..Assign::default() }, tasks, removed)
}

fn held(view: &View, node: NodeId) -> impl Iterator<Item = &Task> {
    view.state.tasks_on_node(node).map(|task| &**task).filter(|task| task.ended.is_none())
}

/// The task as it goes over the wire; `with_work` on first mention.
pub fn assignment(task: &Task, with_work: bool) -> Assignment {
    Assignment { task: task.id, desired: task.desired, work: with_work.then(|| Box::new(work(task))) }
}

fn work(task: &Task) -> Work {
    Work {
        service: task.service,
        service_name: task.service_name.to_string(),
        slot_name: slot_name(task),
        container: task.spec.container.clone(),
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
