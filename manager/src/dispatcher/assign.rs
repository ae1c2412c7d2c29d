//! What a board shall hold, and how to tell it.
//!
//! In: the view, the vault, a node, what it was sent. Out: the [`Assign`] messages that bring it up to date.
//! A board holds every task assigned to it until the store has its end; so each of them gets a report.
//!
//! Contents of secrets and configs go only to boards with a task that names them and shall run, before the task. A
//! board keeps one as long as a task that it was sent names it; so it is sent again only when none did.

use std::collections::{BTreeMap, BTreeSet};

use racimo_common::id::{NodeId, TaskId};
use racimo_common::limits::{BODIES_MAX, BODY_PART_BYTES_MAX, ENDED_LOGS_MAX, FRAME_TO_AGENT_MAX};
use racimo_common::object::Desired;
use racimo_common::wire::{Assign, Assignment, BodyKey, BodyPart, frame};

use super::work::{self, MARGIN};
use crate::store::{Task, View};
use crate::vault::{Plain, Vault};

/// What a board was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sent {
    tasks: BTreeMap<TaskId, Known>,
    /// Contents that it has: sent, and named by one of the tasks ever since.
    bodies: BTreeSet<BodyKey>,
    /// The ended tasks whose logs it keeps.
    logs: Vec<TaskId>,
}

/// What it was sent of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    desired: Desired,
    files: Vec<BodyKey>,
}

impl Sent {
    /// How many tasks it was sent.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether it was sent none.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The tasks with the desired state it knows.
    pub fn tasks(&self) -> impl Iterator<Item = (TaskId, Desired)> {
        self.tasks.iter().map(|(task, known)| (*task, known.desired))
    }

    /// As if tasks without files had been sent.
    pub fn of(tasks: impl IntoIterator<Item = (TaskId, Desired)>, logs: Vec<TaskId>) -> Self {
        let known = |(task, desired)| (task, Known { desired, files: Vec::new() });
        Self { tasks: tasks.into_iter().map(known).collect(), bodies: BTreeSet::new(), logs }
    }
}

/// Whether a task that the board was not sent yet brings contents.
pub fn opens(view: &View, node: NodeId, sent: &Sent) -> bool {
    held(view, node)
        .filter(|task| task.desired <= Desired::Running && !sent.tasks.contains_key(&task.id))
        .any(|task| work::references(&task.spec.container).next().is_some())
}

/// The whole set, in parts that fit a frame; and the record of it.
pub fn complete(view: &View, vault: &Vault, node: NodeId) -> (Vec<Assign>, Sent) {
    let mut sent = Sent { logs: logs(view, node), ..Sent::default() };
    let (mut bodies, mut there) = (Vec::new(), BTreeSet::new());
    let tasks: Vec<Assignment> =
        held(view, node).map(|task| first(view, vault, task, &mut sent, &mut there, &mut bodies)).collect();
    let logs = Some(sent.logs.clone());
    let whole = Assign { complete: true, from: 0, to: view.version(), logs, ..Assign::default() };
    (split(whole, bodies, tasks, Vec::new()), sent)
}

/// What changed since `sent` was recorded at index `from`; empty if nothing did. Updates `sent`.
pub fn delta(view: &View, vault: &Vault, node: NodeId, sent: &mut Sent, from: u64) -> Vec<Assign> {
    let (mut tasks, mut bodies) = (Vec::new(), Vec::new());
    let mut gone: BTreeSet<TaskId> = sent.tasks.keys().copied().collect();
    // What the board has once this is done.
    let stay = held(view, node).filter_map(|task| sent.tasks.get(&task.id));
    let mut there: BTreeSet<BodyKey> =
        stay.flat_map(|known| &known.files).filter(|body| sent.bodies.contains(body)).copied().collect();
    for task in held(view, node) {
        gone.remove(&task.id);
        match sent.tasks.get_mut(&task.id) {
            Some(known) if known.desired == task.desired => {}
            Some(known) => {
                known.desired = task.desired;
                tasks.push(Assignment { task: task.id, desired: task.desired, work: None });
            }
            None => tasks.push(first(view, vault, task, sent, &mut there, &mut bodies)),
        }
    }
    let removed: Vec<TaskId> = gone.into_iter().collect();
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
    let named: BTreeSet<BodyKey> = sent.tasks.values().flat_map(|known| known.files.iter().copied()).collect();
    sent.bodies.retain(|body| named.contains(body));
    split(Assign { complete: false, from, to: view.version(), logs, ..Assign::default() }, bodies, tasks, removed)
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

/// The first mention of a task: with its work, and the contents that the board lacks. `there`: all that it will have.
fn first(
    view: &View,
    vault: &Vault,
    task: &Task,
    sent: &mut Sent,
    there: &mut BTreeSet<BodyKey>,
    bodies: &mut Vec<BodyPart>,
) -> Assignment {
    let mut made = work::work(view, vault, task);
    let mut fresh: BTreeMap<BodyKey, Plain> = BTreeMap::new();
    // One that shall stop starts no more: it needs none.
    let starts = task.desired <= Desired::Running;
    let more: BTreeSet<BodyKey> =
        made.files.iter().map(|file| file.body).filter(|body| !there.contains(body)).collect();
    if starts && there.len() + more.len() > BODIES_MAX {
        work::refuse(&mut made, format!("its board holds at most {BODIES_MAX} secrets and configs"));
    }
    if starts && made.fault.is_none() {
        for (reference, file) in work::references(&task.spec.container).zip(&made.files) {
            if sent.bodies.contains(&file.body) || fresh.contains_key(&file.body) {
                continue;
            }
            match work::body(view, vault, task, reference, &made.container.env) {
                Ok(plain) => drop(fresh.insert(file.body, plain)),
                Err(reason) => {
                    work::refuse(&mut made, reason);
                    break;
                }
            }
        }
    }
    let mut assignment = Assignment { task: task.id, desired: task.desired, work: Some(Box::new(made)) };
    work::bounded(&mut assignment);
    let files: Vec<BodyKey> = assignment.work.iter().flat_map(|work| &work.files).map(|file| file.body).collect();
    if starts {
        there.extend(&files);
    }
    for (key, plain) in fresh.into_iter().filter(|(key, _)| files.contains(key)) {
        sent.bodies.insert(key);
        bodies.extend(body_parts(key, &plain));
    }
    sent.tasks.insert(task.id, Known { desired: task.desired, files });
    assignment
}

/// A content in parts of at most [`BODY_PART_BYTES_MAX`].
fn body_parts(key: BodyKey, plain: &[u8]) -> Vec<BodyPart> {
    // Limits keep a body far below 4 GiB.
    let number = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let part = |offset: usize, bytes: &[u8]| BodyPart {
        key,
        total: number(plain.len()),
        offset: number(offset),
        bytes: bytes.to_vec(),
    };
    if plain.is_empty() {
        return vec![part(0, plain)];
    }
    plain.chunks(BODY_PART_BYTES_MAX).enumerate().map(|(n, bytes)| part(n * BODY_PART_BYTES_MAX, bytes)).collect()
}

fn split(mut part: Assign, bodies: Vec<BodyPart>, tasks: Vec<Assignment>, removed: Vec<TaskId>) -> Vec<Assign> {
    let blank = Assign { complete: part.complete, from: part.from, to: part.to, ..Assign::default() };
    let mut parts = Vec::new();
    let mut held = 0;
    for body in bodies {
        // What stands around the bytes.
        let bytes = body.bytes.len() + 128;
        if held > 0 && held + bytes > BODY_PART_BYTES_MAX {
            parts.push(std::mem::replace(&mut part, blank.clone()));
            held = 0;
        }
        held += bytes;
        part.bodies.push(body);
    }
    if held > 0 {
        parts.push(std::mem::replace(&mut part, blank.clone()));
    }
    let mut room = FRAME_TO_AGENT_MAX - MARGIN;
    let size = |bytes: usize, part: &mut Assign, parts: &mut Vec<Assign>, room: &mut usize| {
        if bytes > *room && !(part.tasks.is_empty() && part.removed.is_empty()) {
            parts.push(std::mem::replace(part, blank.clone()));
            *room = FRAME_TO_AGENT_MAX - MARGIN;
        }
        *room -= bytes.min(*room);
    };
    for task in tasks {
        // What does not fit a frame was refused, so this cannot fail.
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
