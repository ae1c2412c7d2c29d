//! One reader's logs: which tasks, from which boards, from where on; what is missing. Pure.
//!
//! ```text
//! Waits ─ its board is there: open ─▶ Open ─ end ─▶ Done
//!   ▲                                  │
//!   └─ its board went away (follow) ───┘
//! ```

use std::collections::{BTreeMap, BTreeSet};

use racimo_common::id::{NodeId, ServiceId, TaskId};
use racimo_common::object::{Desired, LogAsk, LogConfig, LogEntry, LogStream};
use racimo_common::time::{Mono, Wall};
use racimo_common::wire::LogsEnd;

use crate::limits::{LOG_LAST_WORDS_WITHIN, LOG_LINE_BYTES_MAX, LOG_ROOM_WITHIN};
use crate::log_driver;
use crate::store::{State, Task};

/// Whose logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Of all tasks of a service.
    Service(ServiceId),
    /// Of one task.
    Task(TaskId),
}

/// A reader's logs.
#[derive(Debug)]
pub struct Merge {
    subject: Subject,
    ask: LogAsk,
    tasks: BTreeMap<TaskId, Entry>,
    /// Whether there is anything left to read from.
    exists: bool,
    /// Since when there is no room for any of the logs.
    busy: Option<Mono>,
}

#[derive(Debug)]
struct Entry {
    service: ServiceId,
    node: Option<NodeId>,
    phase: Phase,
    /// The last line that was given out.
    last: Option<Wall>,
    /// Whether the task has ended, and until when its last words are waited for.
    ended: Option<Mono>,
    /// Lines that have not ended: of standard output, of standard error.
    pieces: [Option<LogEntry>; 2],
    /// Whether its reader was told that it is missing.
    told: bool,
    /// What is missing.
    missing: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waits,
    Open,
    Done,
}

/// A log to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The task.
    pub task: TaskId,
    /// Its board.
    pub node: NodeId,
    /// What of it.
    pub ask: LogAsk,
}

/// Where lines come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// The task.
    pub task: TaskId,
    /// Its board.
    pub node: NodeId,
    /// Its service.
    pub service: ServiceId,
}

impl Merge {
    /// Nothing is known yet: [`Merge::look`].
    pub fn new(subject: Subject, ask: LogAsk) -> Self {
        Self { subject, ask, tasks: BTreeMap::new(), exists: true, busy: None }
    }

    /// What is wanted.
    pub fn ask(&self) -> &LogAsk {
        &self.ask
    }

    /// Takes up the tasks there are. Answers those whose readings are of no use any more: close them.
    pub fn look(&mut self, state: &State, now: Mono) -> Vec<TaskId> {
        let tasks: Vec<&Task> = match self.subject {
            Subject::Service(service) => {
                self.exists = state.service(service).is_some();
                state.tasks_of_service(service).map(|task| &**task).collect()
            }
            Subject::Task(task) => state.task(task).map(|task| &**task).into_iter().collect(),
        };
        if matches!(self.subject, Subject::Task(_)) {
            self.exists = tasks.iter().any(|task| task.ended.is_none());
        }
        let known: BTreeSet<TaskId> = tasks.iter().map(|task| task.id).collect();
        for task in tasks {
            self.take(task, now);
        }
        let mut closed = Vec::new();
        for (id, entry) in &mut self.tasks {
            let is_gone = !known.contains(id);
            // It may never have said anything: then its board waits for a log that does not come.
            let is_late = entry.phase == Phase::Open && entry.ended.is_some_and(|by| by <= now);
            if entry.phase != Phase::Done && is_gone {
                entry.phase = Phase::Done;
                closed.push(*id);
            } else if self.ask.follow && is_late && entry.ended != Some(Mono::default()) {
                // What it has now is all.
                (entry.phase, entry.ended) = (Phase::Waits, Some(Mono::default()));
                closed.push(*id);
            }
        }
        if self.ask.follow {
            // Who reads for months must not remember every task there was.
            self.tasks.retain(|id, entry| entry.phase != Phase::Done || known.contains(id));
        }
        closed
    }

    fn take(&mut self, task: &Task, now: Mono) {
        let is_new = !self.tasks.contains_key(&task.id);
        let entry = self.tasks.entry(task.id).or_insert_with(|| Entry {
            service: task.service,
            node: task.node,
            phase: Phase::Waits,
            last: None,
            ended: None,
            pieces: [None, None],
            told: false,
            missing: None,
        });
        entry.node = task.node;
        if task.ended.is_some() && entry.ended.is_none() {
            // One that had ended before is read as it is.
            entry.ended = Some(if is_new { Mono::default() } else { now + LOG_LAST_WORDS_WITHIN });
        }
        if entry.phase == Phase::Waits && log_driver::config(task.spec.log.as_ref()) == Ok(LogConfig::None) {
            entry.phase = Phase::Done;
            entry.missing = Some(format!("the log driver of task {} is none: its output is not kept", task.id));
        }
        if entry.node.is_none() && (task.ended.is_some() || task.desired > Desired::Running) {
            // It never ran and never will.
            entry.phase = Phase::Done;
        }
    }

    /// When [`Merge::look`] has something to do if nothing happens first.
    pub fn wake_at(&self) -> Option<Mono> {
        let open = self.tasks.values().filter(|entry| entry.phase == Phase::Open);
        open.filter_map(|entry| entry.ended).filter(|by| *by != Mono::default() && self.ask.follow).min()
    }

    /// The logs to open now.
    pub fn wanted(&self) -> Vec<Wanted> {
        let waits = self.tasks.iter().filter(|(_, entry)| entry.phase == Phase::Waits);
        waits
            .filter_map(|(task, entry)| Some(Wanted { task: *task, node: entry.node?, ask: self.ask_of(entry) }))
            .collect()
    }

    fn ask_of(&self, entry: &Entry) -> LogAsk {
        let mut ask = self.ask;
        if let Some(last) = entry.last {
            // No line twice.
            ask.since = Some(Wall::from_nanos(last.nanos().saturating_add(1)));
            ask.tail = None;
        }
        ask.follow &= entry.ended != Some(Mono::default());
        ask
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.tasks.values().filter(|entry| entry.phase == Phase::Open).count()
    }

    /// Whether somebody waits for a board that is away, or for room.
    pub fn waits(&self) -> bool {
        self.tasks.values().any(|entry| entry.phase == Phase::Waits && entry.node.is_some())
    }

    /// It was opened.
    pub fn opened(&mut self, task: TaskId) {
        self.busy = None;
        if let Some(entry) = self.tasks.get_mut(&task) {
            (entry.phase, entry.told) = (Phase::Open, false);
        }
    }

    /// There is no room to read it. Who follows waits; anybody else does so only for [`LOG_ROOM_WITHIN`], unless the
    /// room is taken up by itself.
    pub fn busy(&mut self, task: TaskId, now: Mono) {
        if self.ask.follow || self.open() > 0 {
            return;
        }
        let since = *self.busy.get_or_insert(now);
        if let Some(entry) = self.tasks.get_mut(&task).filter(|_| since + LOG_ROOM_WITHIN <= now) {
            entry.phase = Phase::Done;
            entry.missing = Some(format!("task {task}: too many logs are read at once"));
        }
    }

    /// Its board is no member any more: nothing comes. True: a follower is to be told, once per board.
    pub fn removed(&mut self, task: TaskId) -> bool {
        let Some(entry) = self.tasks.get_mut(&task) else { return false };
        let Some(node) = entry.node else { return false };
        let missing = Some(format!("node {node} was removed from the cluster"));
        (entry.phase, entry.missing) = (Phase::Done, missing.clone());
        self.ask.follow && self.tasks.values().filter(|entry| entry.missing == missing).count() == 1
    }

    /// Its board is away. True: a follower is to be told, once per board and absence.
    pub fn away(&mut self, task: TaskId, name: &str) -> bool {
        let follow = self.ask.follow;
        let Some(entry) = self.tasks.get_mut(&task) else { return false };
        if !follow {
            entry.phase = Phase::Done;
            entry.missing = Some(format!("node {name} is not available"));
            return false;
        }
        let node = entry.node;
        let is_told = self.tasks.values().any(|entry| entry.node == node && entry.told);
        if let Some(entry) = self.tasks.get_mut(&task) {
            (entry.phase, entry.told) = (Phase::Waits, true);
        }
        !is_told
    }

    /// Takes lines: those that are whole.
    pub fn lines(&mut self, task: TaskId, entries: Vec<LogEntry>) -> Option<(Source, Vec<LogEntry>)> {
        let entry = self.tasks.get_mut(&task)?;
        let mut whole = Vec::with_capacity(entries.len());
        for new in entries {
            entry.last = entry.last.max(Some(new.at));
            let held = &mut entry.pieces[usize::from(new.stream == LogStream::Stderr)];
            let line = match held.take() {
                Some(mut line) => {
                    line.line.extend_from_slice(&new.line);
                    line
                }
                None => new,
            };
            if line.line.ends_with(b"\n") || line.line.len() >= LOG_LINE_BYTES_MAX {
                whole.push(line);
            } else {
                *held = Some(line);
            }
        }
        Some((entry.source(task)?, whole))
    }

    /// The board has said everything, or why it cannot. Answers the lines that nobody ended.
    pub fn ended(&mut self, task: TaskId, end: LogsEnd) -> Option<(Source, Vec<LogEntry>)> {
        let entry = self.tasks.get_mut(&task)?;
        entry.phase = Phase::Done;
        entry.missing = match end {
            LogsEnd::Complete => None,
            LogsEnd::Failed(why) => Some(format!("task {task}: {why}")),
        };
        let rest: Vec<LogEntry> = entry.pieces.iter_mut().filter_map(Option::take).collect();
        Some((entry.source(task)?, rest))
    }

    /// Whether nothing more can come.
    pub fn is_over(&self) -> bool {
        let done =
            self.tasks.values().all(|entry| entry.phase == Phase::Done || !self.ask.follow && entry.node.is_none());
        done && !(self.ask.follow && self.exists)
    }

    /// What is missing, each reason once.
    pub fn missing(&self) -> Vec<String> {
        let mut reasons: BTreeSet<String> = self.tasks.values().filter_map(|entry| entry.missing.clone()).collect();
        let pending = self.tasks.iter().filter(|(_, entry)| entry.node.is_none() && entry.phase == Phase::Waits);
        reasons.extend(pending.map(|(task, _)| format!("task {task} has not been scheduled")));
        reasons.into_iter().collect()
    }

    /// Where a task's lines come from.
    pub fn source(&self, task: TaskId) -> Option<Source> {
        self.tasks.get(&task)?.source(task)
    }
}

impl Entry {
    fn source(&self, task: TaskId) -> Option<Source> {
        Some(Source { task, node: self.node?, service: self.service })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use racimo_common::object::TaskState;

    use super::*;
    use crate::store::testing::*;
    use crate::store::{Change, LogDriver};

    const ALL: LogAsk = LogAsk { follow: false, tail: None, since: None, until: None, stdout: true, stderr: true };
    const FOLLOW: LogAsk = LogAsk { follow: true, ..ALL };

    fn at(seconds: u64) -> Mono {
        Mono::default() + Duration::from_secs(seconds + 1)
    }

    fn say(at: i64, text: &str) -> LogEntry {
        LogEntry { at: Wall::from_nanos(at), stream: LogStream::Stdout, line: text.into() }
    }

    fn texts(given: Option<(Source, Vec<LogEntry>)>) -> Vec<String> {
        let given = given.map(|(_, lines)| lines).unwrap_or_default();
        given.into_iter().map(|entry| String::from_utf8(entry.line).expect("text")).collect()
    }

    fn wanted(merge: &Merge) -> Vec<(u128, Option<i64>, bool)> {
        let all = merge.wanted();
        all.iter().map(|want| (want.task.bits(), want.ask.since.map(Wall::nanos), want.ask.follow)).collect()
    }

    /// Service 1 with tasks: 1 waits for a node, 2 runs on node 1, 3 has ended there.
    fn merge(ask: LogAsk) -> (Merge, State) {
        let state = base();
        let mut merge = Merge::new(Subject::Service(service(1)), ask);
        assert_eq!(merge.look(&state, at(0)), []);
        (merge, state)
    }

    #[test]
    fn everything_once() {
        let (mut merge, _) = merge(ALL);
        assert_eq!(wanted(&merge), [(2, None, false), (3, None, false)]);
        merge.opened(task(2));
        assert_eq!(texts(merge.lines(task(2), vec![say(1, "a\n"), say(2, "b")])), ["a\n"]);
        assert_eq!(texts(merge.lines(task(2), vec![say(3, "c\n"), say(4, "d")])), ["bc\n"]);
        assert_eq!(texts(merge.ended(task(2), LogsEnd::Complete)), ["d"]);
        assert!(!merge.is_over() && !merge.away(task(3), "board1"));
        assert!(merge.is_over());
        let reasons = merge.missing();
        assert_eq!(reasons.len(), 2, "{reasons:?}");
        assert_eq!(reasons[0], "node board1 is not available");
        assert!(reasons[1].ends_with("has not been scheduled"), "{reasons:?}");
    }

    #[test]
    fn a_board_that_comes_back_goes_on_where_it_was() {
        let (mut merge, state) = merge(LogAsk { tail: Some(5), ..FOLLOW });
        // What has ended is not followed.
        assert_eq!(wanted(&merge), [(2, None, true), (3, None, false)]);
        merge.opened(task(2));
        merge.opened(task(3));
        merge.lines(task(2), vec![say(7, "a\n")]);
        assert!(merge.away(task(2), "board1"), "to be told");
        assert!(!merge.away(task(3), "board1"), "it was told");
        assert_eq!(wanted(&merge), [(2, Some(8), true), (3, None, false)]);
        assert_eq!(merge.wanted()[0].ask.tail, None);
        merge.opened(task(2));
        merge.ended(task(3), LogsEnd::Complete);
        assert_eq!(merge.look(&state, at(0)), []);
        assert!(!merge.is_over() && merge.missing().len() == 1);
    }

    #[test]
    fn tasks_come_and_go_while_they_are_followed() {
        let (mut merge, state) = merge(FOLLOW);
        merge.opened(task(2));
        merge.ended(task(3), LogsEnd::Complete);
        let state = applied(&state, vec![assign(1, 2), end(2, TaskState::Complete)]);
        assert_eq!(merge.look(&state, at(0)), []);
        assert_eq!((wanted(&merge), merge.wake_at()), (vec![(1, None, true)], Some(at(5))));
        // Its last words did not come: what there is counts.
        assert_eq!(merge.look(&state, at(5)), [task(2)]);
        assert_eq!(wanted(&merge), [(1, None, true), (2, None, false)]);
        merge.opened(task(2));
        assert_eq!((merge.look(&state, at(9)), merge.wake_at()), (Vec::new(), None));
        merge.ended(task(2), LogsEnd::Complete);
        merge.opened(task(1));
        let state = applied(&state, vec![Change::TaskRemove { task: task(2) }]);
        assert_eq!(merge.look(&state, at(9)), []);
        assert!(!merge.is_over());
        let state = applied(&state, vec![Change::ServiceRemove { service: service(1) }]);
        merge.look(&state, at(9));
        merge.ended(task(1), LogsEnd::Complete);
        assert!(merge.is_over());
    }

    #[test]
    fn who_follows_forgets_tasks_that_are_gone() {
        let (mut merge, state) = merge(FOLLOW);
        merge.opened(task(3));
        merge.ended(task(3), LogsEnd::Complete);
        assert_eq!((merge.look(&state, at(1)), merge.tasks.len()), (Vec::new(), 3), "it is not read again");
        merge.opened(task(2));
        let state = applied(&state, vec![end(2, TaskState::Complete)]);
        let remove = |number| Change::TaskRemove { task: task(number) };
        let state = applied(&state, vec![remove(2), remove(3)]);
        assert_eq!(merge.look(&state, at(2)), [task(2)]);
        assert_eq!(merge.tasks.keys().copied().collect::<Vec<_>>(), [task(1)]);
    }

    #[test]
    fn who_does_not_follow_waits_only_so_long_for_room() {
        let (mut merge, _) = merge(ALL);
        merge.opened(task(2));
        // Its own readings end first.
        merge.busy(task(3), at(0));
        merge.busy(task(3), at(100));
        merge.ended(task(2), LogsEnd::Complete);
        merge.busy(task(3), at(100));
        merge.busy(task(3), at(109));
        assert_eq!((wanted(&merge), merge.is_over()), (vec![(3, None, false)], false));
        merge.busy(task(3), at(110));
        assert!(merge.is_over());
        assert!(merge.missing()[1].ends_with(": too many logs are read at once"), "{:?}", merge.missing());
        let (mut merge, _) = self::merge(FOLLOW);
        merge.busy(task(3), at(0));
        merge.busy(task(3), at(100));
        assert_eq!(wanted(&merge).len(), 2);
    }

    #[test]
    fn a_board_that_was_removed_says_nothing_more() {
        let (mut merge, _) = merge(FOLLOW);
        assert!(merge.removed(task(2)), "to be told");
        assert!(!merge.removed(task(3)), "it was told");
        assert_eq!((wanted(&merge), merge.waits()), (Vec::new(), false));
    }

    #[test]
    fn one_task() {
        let state = base();
        let mut merge = Merge::new(Subject::Task(task(2)), FOLLOW);
        merge.look(&state, at(0));
        assert_eq!(wanted(&merge), [(2, None, true)]);
        merge.opened(task(2));
        let state = applied(&state, vec![end(2, TaskState::Failed)]);
        merge.look(&state, at(0));
        assert!(!merge.is_over());
        merge.ended(task(2), LogsEnd::Failed("it is damaged".into()));
        assert!(merge.is_over() && merge.missing()[0].contains("it is damaged"));
    }

    #[test]
    fn what_is_not_kept_is_told() {
        let mut silent = (*spec("silent", "nginx", 1)).clone();
        let mut task_spec = (*silent.task).clone();
        task_spec.log = Some(LogDriver { name: "none".into(), ..LogDriver::default() });
        silent.task = task_spec.into();
        let changes = vec![new_cluster(), new_node(1), new_service(1, Arc::new(silent))];
        let state = applied(&State::default(), changes);
        let state = applied(&state, vec![create(new_task(1, 1, 3)), assign(1, 1)]);
        let mut merge = Merge::new(Subject::Service(service(1)), ALL);
        merge.look(&state, at(0));
        assert!(merge.is_over() && merge.wanted().is_empty());
        assert!(merge.missing()[0].contains("is none"), "{:?}", merge.missing());
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let (mut merge, _) = merge(ALL);
        let piece = "x".repeat(8 << 10);
        let mut given = 0;
        for number in 0..100 {
            for text in texts(merge.lines(task(2), vec![say(number, &piece)])) {
                assert!(text.len() < LOG_LINE_BYTES_MAX + (16 << 10));
                given += text.len();
            }
        }
        let rest: usize = texts(merge.ended(task(2), LogsEnd::Complete)).iter().map(String::len).sum();
        assert_eq!(given + rest, 100 * piece.len());
    }
}
