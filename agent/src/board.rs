//! The board: every task it holds, as one pure state machine.
//!
//! In: assignments, results of operations, exits, listings, `Now`. Out: operations to start and to give up,
//! reports to send. Assignments are merged by generation: a complete set always wins, a change must apply to
//! the index the board is at, and the index never goes back.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use heapless::Vec as Table;
use racimo_common::id::TaskId;
use racimo_common::object::{HostPort, TaskReport, TaskState};
use racimo_common::time::{Mono, Now};
use racimo_common::wire::{Assign, Assignment, BodyKey, Work};

use crate::images::Wanted;
use crate::limits::{self, TASKS_MAX};
use crate::task::{Done, Found, Op, Task};
use crate::weight;

/// What the shell shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Start an operation; tell [`Board::done`] how it went.
    Begin(TaskId, Op),
    /// Give up the operation in flight.
    Cancel(TaskId),
    /// Kill its processes at once, whatever operation is in flight: its lease is over.
    Kill(TaskId),
}

/// Why the session must be opened anew.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Gap {
    /// A change does not apply to what the board has.
    #[error("the change applies to index {from}, the board is at {at}")]
    Index {
        /// What the change applies to.
        from: u64,
        /// Where the board is.
        at: u64,
    },
    /// A change names a task the board should know and does not.
    #[error("the change names task {0}, which this board does not hold")]
    Unknown(TaskId),
    /// More parts than any honest set has.
    #[error("the set does not end")]
    Endless,
}

/// Every task this board holds.
#[derive(Debug, Default)]
pub struct Board {
    /// Each in a place of its own, so that the table is small: it is part of the main loop's future, which is moved
    /// about on the stack when the agent starts, and what the stack once took stays with the agent.
    tasks: Table<Box<Task>, TASKS_MAX>,
    /// The store index of the last assignment that took effect in this session.
    index: u64,
    /// Parts of a set that has not ended yet.
    parts: Option<Assign>,
    /// Tasks that found no room, to be reported.
    turned_away: Vec<TaskReport>,
    /// Their secrets and configs: the manager counts on them until it knows.
    turned_bodies: Vec<(TaskId, BodyKey)>,
    /// Whether one of those has not been sent yet.
    turned_dirty: bool,
    /// Most tasks that are held at once.
    most: usize,
    /// Bytes of heap that the agent used when it was last told.
    heap: usize,
    /// Exits heard before the listing that names their containers: it may be older than they are.
    early: Vec<(TaskId, u32, bool)>,
    /// Whether the board's containers were listed since the agent started; nothing is done before that.
    listed: bool,
    /// Ended tasks whose logs are kept; none: no set has told.
    logs: Option<Vec<TaskId>>,
    /// Whether there is no manager: the board starts tasks again by itself.
    alone: bool,
    /// When a manager was last heard in a session that had brought its set.
    heard: Mono,
    /// How long before this agent's start the one before heard the manager, if that is known.
    before: Option<Duration>,
    /// Whether a task is not kept any more because the manager said so.
    dropped: bool,
}

impl Board {
    /// An empty board that holds at most `most` tasks (at most [`TASKS_MAX`]).
    pub fn new(most: usize) -> Self {
        Self { most: most.min(TASKS_MAX), ..Self::default() }
    }

    /// Where the set is; reports carry it.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The tasks, in no particular order.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.iter().map(Box::as_ref)
    }

    fn get(&mut self, id: TaskId) -> Option<&mut Task> {
        self.tasks.iter_mut().map(Box::as_mut).find(|task| task.id == id)
    }

    /// A task the board holds.
    pub fn task(&self, id: TaskId) -> Option<&Task> {
        self.tasks().find(|task| task.id == id)
    }

    /// The agent uses so many bytes of heap: above [`limits::HEAP_SOFT`] no new task is taken.
    pub fn uses(&mut self, heap: usize) {
        self.heap = heap;
    }

    /// A session starts: the next set is complete.
    pub fn session(&mut self) {
        self.parts = None;
        self.index = 0;
        self.turned_away.clear();
        self.turned_bodies.clear();
        self.alone = false;
        self.tasks.iter_mut().for_each(|task| task.session());
    }

    /// The session ended: until the next one the board looks after its tasks itself.
    pub fn closed(&mut self) {
        self.alone = true;
    }

    /// The agent before this one heard the manager so long before this one's start.
    pub fn remembers(&mut self, before: Option<Duration>) {
        self.before = before;
    }

    /// When the manager was heard last, if a task with a lease is here: what an agent after this one has to know.
    pub fn heard_for_fenced(&self) -> Option<Mono> {
        self.tasks().any(|task| task.fenced_at().is_some()).then_some(self.heard)
    }

    /// Whether the manager took away, since the last call, what the board would begin by itself.
    pub fn takes_dropped(&mut self) -> bool {
        std::mem::take(&mut self.dropped)
    }

    /// A manager was heard in a session that had brought its set.
    pub fn heard(&mut self, at: Mono) {
        self.heard = self.heard.max(at);
        self.tasks.iter_mut().for_each(|task| task.heard(at));
    }

    /// No manager is there, and the board goes by what it was told before. Returns how many tasks it begins with.
    pub fn recall(&mut self, kept: Vec<(TaskId, Rc<Work>)>, now: Now) -> usize {
        self.alone = true;
        let mut begun = 0;
        for (id, work) in kept {
            if self.task(id).is_none() && self.tasks.len() < self.most {
                // The table has as much room as the board may hold.
                let _ = self.tasks.push(Box::new(Task::found(id, Found::Made, None, None, now)));
            }
            let Some(task) = self.get(id) else { continue };
            task.recall(work, now);
            begun += usize::from(!task.has_process() && task.wake_at().is_some());
        }
        begun
    }

    /// What the board is to start by itself when it boots without its manager, by id.
    pub fn kept(&self) -> Vec<(TaskId, Rc<Work>)> {
        let mut kept: Vec<_> = self.tasks().filter_map(|task| Some((task.id, task.is_kept()?.clone()))).collect();
        kept.sort_unstable_by_key(|(id, _)| *id);
        kept
    }

    /// Takes one part of a set; true once a whole set took effect.
    ///
    /// # Errors
    /// The session must be opened anew; nothing changed.
    pub fn assign(&mut self, mut part: Assign, now: Now) -> Result<bool, Gap> {
        self.admit(&mut part, now);
        let mut set = match self.parts.take() {
            None => part,
            Some(mut set) => {
                set.tasks.extend(part.tasks);
                set.removed.extend(part.removed);
                set.logs = set.logs.or(part.logs);
                set.last = part.last;
                set
            }
        };
        let logs = set.logs.as_ref().map_or(0, Vec::len);
        if [set.tasks.len(), set.removed.len(), logs].iter().any(|length| *length > limits::SET_TASKS_MAX) {
            return Err(Gap::Endless);
        }
        if !set.last {
            self.parts = Some(set);
            return Ok(false);
        }
        if !set.complete {
            if set.from != self.index {
                return Err(Gap::Index { from: set.from, at: self.index });
            }
            let unknown = set.tasks.iter().find(|a| a.work.is_none() && self.task(a.task).is_none());
            // One that found no room is not held; its end is on its way to the manager.
            if let Some(unknown) = unknown.filter(|a| !self.turned_away.iter().any(|r| r.task == a.task)) {
                return Err(Gap::Unknown(unknown.task));
            }
        }
        if set.to < self.index {
            return Err(Gap::Index { from: set.to, at: self.index });
        }
        if let Some(logs) = set.logs.take() {
            self.logs = Some(logs);
        }
        let complete = set.complete;
        let kept: Vec<TaskId> = self.tasks().filter(|task| task.is_kept().is_some()).map(|task| task.id).collect();
        if complete {
            for task in &mut self.tasks {
                if !set.tasks.iter().any(|a| a.task == task.id) {
                    task.unwant();
                }
            }
        }
        for removed in std::mem::take(&mut set.removed) {
            self.turned_away.retain(|report| report.task != removed);
            self.turned_bodies.retain(|(task, _)| *task != removed);
            if let Some(task) = self.get(removed) {
                task.unwant();
            }
        }
        self.index = set.to;
        for assignment in set.tasks {
            self.take(assignment, now);
        }
        self.dropped |= kept.iter().any(|id| self.task(*id).is_none_or(|task| task.is_kept().is_none()));
        self.sweep();
        Ok(complete)
    }

    /// Lets go of descriptions that the board has already, and of those it has no memory for: not when the set takes
    /// effect but now, because a set may be larger than the heap.
    fn admit(&mut self, part: &mut Assign, now: Now) {
        let collected = self.parts.iter().flat_map(|set| &set.tasks).filter_map(|a| a.work.as_deref());
        let mut held: usize = collected.map(weight::of).chain(self.tasks().map(Task::weight)).sum();
        for assignment in &mut part.tasks {
            let Some(work) = &assignment.work else { continue };
            let known = self.task(assignment.task);
            let has_begun = known.is_some_and(Task::has_begun);
            if known.is_some_and(|task| !task.lacks_work()) {
                assignment.work = None;
                continue;
            }
            // It takes the place of what the journal said.
            held -= known.map_or(0, Task::weight).min(held);
            let weight = weight::of(work);
            // What runs already is no new work.
            let is_short = self.heap > limits::HEAP_SOFT && !has_begun;
            if !is_short && held + weight <= limits::HELD_BYTES_MAX {
                held += weight;
                continue;
            }
            let bodies: Vec<BodyKey> = work.files.iter().map(|file| file.body).collect();
            assignment.work = None;
            if has_begun {
                // The manager counts on what it has sent for it.
                self.turned_bodies.retain(|(task, _)| *task != assignment.task);
                self.turned_bodies.extend(bodies.into_iter().map(|body| (assignment.task, body)));
            } else {
                let kib = |bytes: usize| bytes.div_ceil(1 << 10);
                let reason = if is_short {
                    format!(
                        "this board's agent is short of memory: it uses {} KiB of its {} KiB, and takes no new tasks \
                         above {} KiB",
                        kib(self.heap),
                        kib(limits::HEAP_MAX),
                        kib(limits::HEAP_SOFT)
                    )
                } else {
                    format!(
                        "this board holds at most {} KiB of task descriptions (environment, labels, arguments) at \
                         once: it holds {} KiB, and this one has {} KiB",
                        kib(limits::HELD_BYTES_MAX),
                        held >> 10,
                        kib(weight)
                    )
                };
                self.turn_away(assignment.task, bodies, reason, now);
            }
        }
    }

    fn take(&mut self, assignment: Assignment, now: Now) {
        let Assignment { task: id, desired, work } = assignment;
        let work = work.map(Rc::from);
        let heard = self.heard;
        if let Some(task) = self.get(id) {
            task.want(desired, work, heard);
            return;
        }
        let Some(work) = work else { return };
        let bodies: Vec<BodyKey> = work.files.iter().map(|file| file.body).collect();
        let reason = if self.tasks.len() >= self.most {
            Some(format!("this board holds at most {} tasks at once", self.most))
        } else {
            let task = Task::assigned(id, desired, work, Now { mono: heard, ..now });
            self.tasks.push(Box::new(task)).err().map(|_| "this board's task table is full".to_owned())
        };
        if let Some(reason) = reason {
            self.turn_away(id, bodies, reason, now);
        }
    }

    fn turn_away(&mut self, id: TaskId, bodies: Vec<BodyKey>, reason: String, now: Now) {
        let known = self.turned_away.iter().any(|report| report.task == id);
        if known || self.turned_away.len() >= limits::SET_TASKS_MAX {
            return;
        }
        self.turned_dirty = true;
        self.turned_bodies.extend(bodies.into_iter().map(|body| (id, body)));
        self.turned_away.push(TaskReport {
            unhealthy: false,
            restarts: 0,
            task: id,
            state: TaskState::Rejected,
            at: now.wall,
            message: "rejected".to_owned(),
            err: Some(reason),
            container: None,
            ports: Vec::new(),
        });
    }

    /// The contents that tasks of the set name, once a whole set took effect; all others can be forgotten.
    pub fn named_bodies(&self) -> Option<BTreeSet<BodyKey>> {
        if self.parts.is_some() {
            return None;
        }
        let held = self.tasks().filter(|task| !task.is_unwanted()).filter_map(Task::work);
        let held = held.flat_map(|work| work.files.iter().map(|file| file.body));
        Some(held.chain(self.turned_bodies.iter().map(|(_, body)| *body)).collect())
    }

    /// The images that its tasks need.
    pub fn wanted_images(&self) -> Wanted {
        Wanted::of(self.tasks().filter(|task| !task.is_unwanted()).filter_map(|task| task.work().map(Rc::as_ref)))
    }

    /// The containers found when the agent started. Returns those that found no room: remove them.
    pub fn adopt(&mut self, containers: &[(TaskId, Found, Option<Duration>)], now: Now) -> Vec<TaskId> {
        self.listed = true;
        let before = self.before;
        let mut without_room = Vec::new();
        for &(id, found, grace) in containers {
            if let Some(task) = self.get(id) {
                task.adopt(found, before, now);
            } else if self.tasks.push(Box::new(Task::found(id, found, grace, before, now))).is_err() {
                without_room.push(id);
            }
        }
        for (id, status, oom) in std::mem::take(&mut self.early) {
            self.exited(id, status, oom, now);
        }
        // A set that came first has decided about the others already.
        if self.index > 0 {
            for task in self.tasks.iter_mut().filter(|task| task.work().is_none()) {
                task.unwant();
            }
        }
        without_room
    }

    /// Whether the board's containers are known.
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// The tasks whose process should be there.
    pub fn running(&self) -> Vec<TaskId> {
        self.tasks.iter().filter(|task| task.has_process()).map(|task| task.id).collect()
    }

    /// A listing after events may have been lost. `before`: what [`Board::running`] said when it was begun.
    pub fn listed(&mut self, before: &[TaskId], listing: &[(TaskId, Found, Option<Duration>)], now: Now) {
        for task in self.tasks.iter_mut().filter(|task| before.contains(&task.id)) {
            match listing.iter().find(|(id, ..)| *id == task.id) {
                Some((_, Found::Ended { status, oom }, _)) => task.exited(*status, *oom, now.wall),
                Some((_, Found::Running { .. }, _)) => {}
                Some((_, Found::Made | Found::Lost, _)) | None => task.vanished(now.wall),
            }
        }
        self.sweep();
    }

    /// Which of these logs nobody asks for any more: their tasks are neither held nor in the manager's history.
    pub fn doomed_logs(&self, logs: Vec<TaskId>) -> Vec<TaskId> {
        let Some(kept) = &self.logs else { return Vec::new() };
        let is_doomed = |id: &TaskId| !kept.contains(id) && self.task(*id).is_none();
        if self.listed { logs.into_iter().filter(is_doomed).collect() } else { Vec::new() }
    }

    /// The board is no member any more: every task shall go.
    pub fn forget_all(&mut self) {
        self.logs = Some(Vec::new());
        self.tasks.iter_mut().for_each(|task| task.unwant());
        self.turned_away.clear();
        self.turned_bodies.clear();
    }

    /// An operation is over.
    pub fn done(&mut self, id: TaskId, done: Done, now: Now) {
        if let Some(task) = self.get(id) {
            task.done(done, now);
        }
        self.sweep();
    }

    /// A task has these ports on the board.
    pub fn has_ports(&mut self, id: TaskId, ports: Vec<HostPort>) {
        if let Some(task) = self.get(id) {
            task.has_ports(ports);
        }
    }

    /// A container ended.
    pub fn exited(&mut self, id: TaskId, status: u32, oom: bool, now: Now) {
        if !self.listed {
            // A container ends once, so that more than the board holds are none of ours.
            if self.early.len() < TASKS_MAX {
                self.early.push((id, status, oom));
            }
        } else if let Some(task) = self.get(id) {
            task.exited(status, oom, now.wall);
        }
    }

    fn sweep(&mut self) {
        self.tasks.retain(|task| !task.is_gone());
    }

    /// Everything that is due now.
    pub fn orders(&mut self, now: Now) -> Vec<Order> {
        let mut orders = Vec::new();
        if !self.listed {
            return orders;
        }
        for task in &mut self.tasks {
            task.fence(now.mono);
            if self.alone {
                task.stands_alone(now.mono);
            }
            if task.strikes(now.mono) {
                orders.push(Order::Kill(task.id));
            }
            if task.cancels() {
                orders.push(Order::Cancel(task.id));
            } else if let Some(op) = task.next(now) {
                orders.push(Order::Begin(task.id, op));
            }
        }
        self.sweep();
        orders
    }

    /// When to ask for orders again if nothing happens; a time that has passed: at once.
    pub fn wake_at(&self) -> Option<Mono> {
        self.tasks().filter_map(Task::wake_at).min().filter(|_| self.listed)
    }

    /// Changes when [`kept`](Self::kept) does, as ids are random; 0: nothing is kept.
    pub fn mark(&self) -> u128 {
        let kept = self.tasks().filter(|task| task.is_kept().is_some());
        kept.map(|task| task.id.bits()).fold(0, |mark, bits| mark ^ bits)
    }

    /// Whether a task still runs that the manager does not know of. What it reserves is free in the manager's books,
    /// so the board must not count as ready before it has ended.
    pub fn has_strays(&self) -> bool {
        self.tasks.iter().any(|task| task.is_unwanted() && task.may_run())
    }

    /// Reports of tasks the manager knows that were not sent yet; they count as sent.
    pub fn reports(&mut self) -> Vec<TaskReport> {
        let known = self.tasks.iter_mut().filter(|task| !task.is_unwanted());
        let mut reports: Vec<TaskReport> = known.filter_map(|task| task.take_report()).collect();
        if std::mem::take(&mut self.turned_dirty) {
            reports.extend(self.turned_away.iter().cloned());
        }
        reports
    }

    /// A report of every task the manager knows; they count as sent.
    pub fn full_report(&mut self) -> Vec<TaskReport> {
        let mut reports = Vec::new();
        for task in &mut self.tasks {
            let report = task.take_report().unwrap_or_else(|| task.report().clone());
            if !task.is_unwanted() {
                reports.push(report);
            }
        }
        self.turned_dirty = false;
        reports.extend(self.turned_away.iter().cloned());
        reports
    }
}
