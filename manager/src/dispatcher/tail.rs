//! A reader's logs, as a stream: the shell around [`Merge`].

use std::collections::{BTreeMap, VecDeque};

use async_channel::{Receiver, Sender};
use futures_lite::future::or;
use racimo_common::id::TaskId;
use racimo_common::object::{LogEntry, LogStream};
use racimo_common::time::{Clock, Wall};

use super::broker::{Broker, NotOpen, Reader, Reading, Said, What};
use super::merge::{Merge, Source};
use crate::limits;
use crate::store::{Feed, Store};

/// Logs of several tasks as one stream. Dropping it closes every reading.
pub struct Tail {
    broker: Broker,
    store: Store,
    clock: Clock,
    merge: Merge,
    /// Only who follows looks for new tasks.
    feed: Option<Feed>,
    readings: BTreeMap<TaskId, Reading>,
    to: Sender<Said>,
    heard: Receiver<Said>,
    ready: VecDeque<Told>,
    /// Whose lines were given out: there is room for more once the next ones are asked for.
    owed: Option<TaskId>,
    looks: bool,
    /// Whether a follower was told that there is no room for all.
    told_busy: bool,
    is_over: bool,
    _reader: Reader,
}

/// How many tasks the word about missing room names.
const LEFT_OUT_NAMED: usize = 8;

/// What a reader is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// Lines of a task, in order.
    Lines(Source, Vec<LogEntry>),
    /// The stream ends, and this is missing.
    Missing(Vec<String>),
}

/// What happened.
enum News {
    Said(Said),
    Look,
    Over,
}

impl Tail {
    /// Opens nothing yet: [`Tail::next`].
    pub fn new(broker: Broker, store: Store, clock: Clock, merge: Merge, reader: Reader) -> Self {
        let feed = merge.ask().follow.then(|| store.watch().1);
        // Bounded by what each reading may send.
        let (to, heard) = async_channel::unbounded();
        Self {
            broker,
            store,
            clock,
            merge,
            feed,
            readings: BTreeMap::new(),
            to,
            heard,
            ready: VecDeque::new(),
            owed: None,
            looks: true,
            told_busy: false,
            is_over: false,
            _reader: reader,
        }
    }

    /// What comes next; none: it is over.
    pub async fn next(&mut self) -> Option<Told> {
        if let Some(reading) = self.owed.take().and_then(|task| self.readings.get(&task)) {
            reading.more();
        }
        loop {
            if let Some(told) = self.ready.pop_front() {
                return Some(told);
            }
            if self.is_over {
                return None;
            }
            if std::mem::take(&mut self.looks) {
                self.look();
                continue;
            }
            if self.merge.is_over() {
                self.end();
                continue;
            }
            match self.news().await {
                News::Said(said) => self.hear(said),
                News::Look => self.looks = true,
                News::Over => self.end(),
            }
        }
    }

    fn end(&mut self) {
        self.is_over = true;
        self.readings.clear();
        let missing = self.merge.missing();
        // Who follows was told as it happened.
        if !missing.is_empty() && !self.merge.ask().follow {
            self.ready.push_back(Told::Missing(missing));
        }
    }

    async fn news(&mut self) -> News {
        let now = self.clock.now();
        let again = self.merge.waits().then(|| now.mono + limits::LOG_AGAIN_EVERY);
        let wake = [again, self.merge.wake_at()].into_iter().flatten().min();
        let until = self.merge.ask().until.filter(|_| self.merge.ask().follow);
        let said = async {
            match self.heard.recv().await {
                Ok(said) => News::Said(said),
                // Cannot be: this holds a sender.
                Err(_) => News::Over,
            }
        };
        let changed = async {
            match &mut self.feed {
                None => std::future::pending().await,
                Some(feed) => match feed.next().await {
                    Some(_) => News::Look,
                    None => News::Over,
                },
            }
        };
        let timer = async {
            match wake {
                Some(at) => smol::Timer::at(self.clock.instant(at)).await,
                None => std::future::pending().await,
            };
            News::Look
        };
        let over = async {
            match until {
                Some(until) => smol::Timer::after(until.since(now.wall)).await,
                None => std::future::pending().await,
            };
            News::Over
        };
        or(said, or(changed, or(timer, over))).await
    }

    fn look(&mut self) {
        let now = self.clock.now();
        let view = self.store.view();
        for task in self.merge.look(&view.state, now.mono) {
            self.readings.remove(&task);
        }
        let follow = self.merge.ask().follow;
        let mut left_out = Vec::new();
        for wanted in self.merge.wanted() {
            if !follow && self.merge.open() >= limits::LOG_READINGS_OPEN {
                return;
            }
            match self.broker.open(wanted.node, wanted.task, wanted.ask, follow, &self.to) {
                Ok(reading) => {
                    self.readings.insert(wanted.task, reading);
                    self.merge.opened(wanted.task);
                }
                Err(NotOpen::Away) => self.away(wanted.task, now.wall),
                // Others must end first: it is tried again.
                Err(NotOpen::Busy) => {
                    left_out.push(wanted.task);
                    self.merge.busy(wanted.task, now.mono);
                }
            }
        }
        if follow {
            self.left_out(&left_out, now.wall);
        }
    }

    /// Tells a follower once that it does not hear everything.
    fn left_out(&mut self, tasks: &[TaskId], now: Wall) {
        let Some(source) = tasks.first().and_then(|task| self.merge.source(*task)) else { return };
        if std::mem::replace(&mut self.told_busy, true) {
            return;
        }
        let mut names: Vec<String> = tasks.iter().take(LEFT_OUT_NAMED).map(ToString::to_string).collect();
        if tasks.len() > names.len() {
            names.push(format!("{} more", tasks.len() - names.len()));
        }
        let names = names.join(", ");
        self.warn(source, now, &format!("too many logs are followed at once, these wait until others end: {names}"));
    }

    fn warn(&mut self, source: Source, at: Wall, what: &str) {
        let line = format!("warning: incomplete log stream: {what}\n").into_bytes();
        let line = LogEntry { at, stream: LogStream::Stderr, line };
        self.ready.push_back(Told::Lines(source, vec![line]));
    }

    fn away(&mut self, task: TaskId, now: Wall) {
        let Some(source) = self.merge.source(task) else { return };
        let view = self.store.view();
        let Some(node) = view.state.node(source.node) else {
            if self.merge.removed(task) {
                self.warn(source, now, &format!("node {} was removed from the cluster", source.node));
            }
            return;
        };
        let name = node.name().to_owned();
        if self.merge.away(task, &name) {
            self.warn(source, now, &format!("node {name} is not available"));
        }
    }

    fn hear(&mut self, said: Said) {
        let Said { task, reading, what } = said;
        // Of one that was closed and perhaps opened again, from the last line that was given out.
        if self.readings.get(&task).is_none_or(|open| open.id() != reading) {
            return;
        }
        let given = match what {
            What::Lines(lines) => {
                self.owed = Some(task);
                self.merge.lines(task, lines)
            }
            What::End(end) => {
                self.readings.remove(&task);
                self.looks = true;
                self.merge.ended(task, end)
            }
            What::Lost => {
                self.readings.remove(&task);
                self.looks = true;
                return self.away(task, self.clock.now().wall);
            }
        };
        match given.filter(|(_, lines)| !lines.is_empty()) {
            Some((source, lines)) => self.ready.push_back(Told::Lines(source, lines)),
            // Nothing to give out: there is room at once.
            None => {
                if let Some(reading) = self.owed.take().and_then(|task| self.readings.get(&task)) {
                    reading.more();
                }
            }
        }
    }
}
