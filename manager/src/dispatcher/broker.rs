//! Brings readers of logs together with the boards' sessions.
//!
//! ```text
//! reader ─ open ─▶ Broker ─ LogsOpen, LogsMore, LogsClose ─▶ session ─▶ board
//!    ▲──── Said ─────┘ ◀───────────── Logs ──────────────────────┘
//! ```
//! A board never sends more parts than its reader has room for, so a reader that stands still holds up nobody and
//! costs [`LOG_WINDOW`] parts a reading; a board that sends more breaks the protocol.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_channel::{Receiver, Sender};
use racimo_common::id::{NodeId, TaskId};
use racimo_common::limits::LOG_READINGS_MAX;
use racimo_common::object::{LogAsk, LogEntry};
use racimo_common::wire::{LogsEnd, LogsOpen, LogsPart, ToAgent};

use super::hub::SessionId;
use crate::limits::{LOG_ASKS_MAX, LOG_READERS_MAX, LOG_READINGS_ALL_MAX, LOG_WINDOW};

/// Where readers and sessions meet; clones are the same.
#[derive(Clone, Default)]
pub struct Broker(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    sessions: BTreeMap<NodeId, Session>,
    readers: usize,
    readings: usize,
    /// How many of the readings belong to readers that follow.
    following: usize,
    last: u64,
}

struct Session {
    id: SessionId,
    asks: Sender<ToAgent>,
    readings: BTreeMap<u64, Open>,
}

struct Open {
    id: u64,
    task: TaskId,
    to: Sender<Said>,
    room: u32,
    follows: bool,
}

/// What a reader hears of a task.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    /// The task.
    pub task: TaskId,
    /// [`Reading::id`]: words of a reading that was closed may still be under way.
    pub reading: u64,
    /// What.
    pub what: What,
}

/// What a reader hears.
#[derive(Debug, PartialEq, Eq)]
pub enum What {
    /// Lines, in order. Say [`Reading::more`] once they are dealt with.
    Lines(Vec<LogEntry>),
    /// Nothing more will come.
    End(LogsEnd),
    /// The board's session ended.
    Lost,
}

/// Why a reading was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotOpen {
    /// The board has no session.
    Away,
    /// Too many logs are read already.
    Busy,
}

impl Broker {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session of a board: what is to be sent to it, until the [`Attached`] is dropped.
    pub(super) fn attach(&self, node: NodeId, id: SessionId) -> (Attached, Receiver<ToAgent>) {
        // Bounded by `ask`: a bounded channel would take its memory at once, for each of thousands of boards.
        let (asks, queue) = async_channel::unbounded();
        let mut inner = self.lock();
        let session = Session { id, asks, readings: BTreeMap::new() };
        if let Some(old) = inner.sessions.insert(node, session) {
            inner.end(old);
        }
        drop(inner);
        (Attached { broker: self.clone(), node, id }, queue)
    }

    /// Counts a reader for as long as the answer lives; none: there are too many.
    pub fn reader(&self) -> Option<Reader> {
        let mut inner = self.lock();
        if inner.readers >= LOG_READERS_MAX {
            return None;
        }
        inner.readers += 1;
        drop(inner);
        Some(Reader(self.clone()))
    }

    /// How many readers there are.
    pub fn readers(&self) -> usize {
        self.lock().readers
    }

    /// How many readings are open.
    pub fn readings(&self) -> usize {
        self.lock().readings
    }

    /// Whether the board has a session.
    pub fn is_attached(&self, node: NodeId) -> bool {
        self.lock().sessions.contains_key(&node)
    }

    /// Asks a board for a task's log; what it says goes to `to`, at most [`LOG_WINDOW`] parts and an end that were not
    /// dealt with. `follows`: whether its reader may stay for ever; such readers get only half of the room.
    ///
    /// # Errors
    /// The board is away, or there is no room.
    pub fn open(
        &self,
        node: NodeId,
        task: TaskId,
        ask: LogAsk,
        follows: bool,
        to: &Sender<Said>,
    ) -> Result<Reading, NotOpen> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let Some(session) = inner.sessions.get_mut(&node) else { return Err(NotOpen::Away) };
        let is_full = inner.readings >= LOG_READINGS_ALL_MAX || session.readings.len() >= LOG_READINGS_MAX;
        let is_half = inner.following >= LOG_READINGS_ALL_MAX / 2 || session.following() >= LOG_READINGS_MAX / 2;
        if is_full || follows && is_half {
            return Err(NotOpen::Busy);
        }
        let reading = inner.last + 1;
        if !session.ask(ToAgent::LogsOpen(LogsOpen { reading, task, ask, parts: LOG_WINDOW })) {
            return Err(NotOpen::Busy);
        }
        session.readings.insert(reading, Open { id: reading, task, to: to.clone(), room: LOG_WINDOW, follows });
        inner.following += usize::from(follows);
        (inner.last, inner.readings) = (reading, inner.readings + 1);
        Ok(Reading { broker: self.clone(), node, session: session.id, id: reading })
    }
}

impl Inner {
    fn end(&mut self, session: Session) {
        self.readings -= session.readings.len();
        self.following -= session.following();
        for open in session.readings.into_values() {
            open.say(What::Lost);
        }
    }

    fn current(&mut self, node: NodeId, session: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(&node).filter(|open| open.id == session)
    }
}

impl Session {
    fn following(&self) -> usize {
        self.readings.values().filter(|open| open.follows).count()
    }

    /// False: too much waits to be sent to this board already.
    fn ask(&self, message: ToAgent) -> bool {
        self.asks.len() < LOG_ASKS_MAX && self.asks.try_send(message).is_ok()
    }
}

impl Open {
    fn say(&self, what: What) {
        // The reader may be gone.
        let _ = self.to.try_send(Said { task: self.task, reading: self.id, what });
    }
}

/// A session's side.
pub(super) struct Attached {
    broker: Broker,
    node: NodeId,
    id: SessionId,
}

impl Attached {
    /// Whether the reading is open and has room for a part.
    pub(super) fn expects(&self, reading: u64) -> bool {
        let mut inner = self.broker.lock();
        let session = inner.current(self.node, self.id);
        session.and_then(|session| session.readings.get(&reading)).is_some_and(|open| open.room > 0)
    }

    /// Takes a part from the board.
    ///
    /// # Errors
    /// The board broke the protocol.
    pub(super) fn part(&self, part: LogsPart) -> Result<(), &'static str> {
        let mut guard = self.broker.lock();
        let inner = &mut *guard;
        let Some(session) = inner.sessions.get_mut(&self.node).filter(|session| session.id == self.id) else {
            return Ok(());
        };
        let Some(open) = session.readings.get_mut(&part.reading) else {
            // Closed a moment ago; or the word did not get through.
            if part.end.is_none() {
                session.ask(ToAgent::LogsClose { reading: part.reading });
            }
            return Ok(());
        };
        let Some(room) = open.room.checked_sub(1) else {
            return Err("it sent more of a log than was asked for");
        };
        open.room = room;
        if !part.entries.is_empty() {
            open.say(What::Lines(part.entries));
        }
        if let Some(end) = part.end {
            open.say(What::End(end));
            inner.following -= usize::from(open.follows);
            session.readings.remove(&part.reading);
            inner.readings -= 1;
        }
        Ok(())
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut inner = self.broker.lock();
        if inner.current(self.node, self.id).is_some() {
            if let Some(session) = inner.sessions.remove(&self.node) {
                inner.end(session);
            }
        }
    }
}

/// A reader that counts.
pub struct Reader(Broker);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.lock().readers -= 1;
    }
}

/// A reading that is open; dropping it closes it.
pub struct Reading {
    broker: Broker,
    node: NodeId,
    session: SessionId,
    id: u64,
}

impl Reading {
    /// No other reading has it.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// A part was dealt with: there is room for another.
    pub fn more(&self) {
        let mut inner = self.broker.lock();
        let Some(session) = inner.current(self.node, self.session) else { return };
        let Some(open) = session.readings.get_mut(&self.id) else { return };
        open.room += 1;
        // No room in the queue: the connection hangs, and its session ends soon.
        session.ask(ToAgent::LogsMore { reading: self.id, parts: 1 });
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut guard = self.broker.lock();
        let inner = &mut *guard;
        let Some(session) = inner.sessions.get_mut(&self.node).filter(|open| open.id == self.session) else { return };
        if let Some(open) = session.readings.remove(&self.id) {
            inner.readings -= 1;
            inner.following -= usize::from(open.follows);
            session.ask(ToAgent::LogsClose { reading: self.id });
        }
    }
}

#[cfg(test)]
mod tests {
    use racimo_common::id::RandomId;
    use racimo_common::object::LogStream;
    use racimo_common::time::Wall;

    use super::*;

    const ASK: LogAsk = LogAsk { follow: true, tail: None, since: None, until: None, stdout: true, stderr: true };

    fn node(number: u128) -> NodeId {
        NodeId::from_bits(number)
    }

    fn task(number: u128) -> TaskId {
        TaskId::from_bits(number)
    }

    /// Task 5's log on node 1, which is there.
    #[track_caller]
    fn open(broker: &Broker, to: &Sender<Said>) -> Reading {
        match broker.open(node(1), task(5), ASK, true, to) {
            Ok(reading) => reading,
            Err(why) => panic!("{why:?}"),
        }
    }

    fn part(reading: u64, end: Option<LogsEnd>) -> LogsPart {
        let entry = LogEntry { at: Wall::default(), stream: LogStream::Stdout, line: b"x\n".to_vec() };
        LogsPart { reading, entries: vec![entry], end }
    }

    #[test]
    fn a_reading_from_open_to_end() {
        let broker = Broker::default();
        let (to, heard) = async_channel::unbounded();
        assert!(matches!(broker.open(node(1), task(5), ASK, true, &to), Err(NotOpen::Away)));
        let (session, asks) = broker.attach(node(1), 1);
        let reading = open(&broker, &to);
        let open = LogsOpen { reading: 1, task: task(5), ask: ASK, parts: LOG_WINDOW };
        assert_eq!(asks.try_recv(), Ok(ToAgent::LogsOpen(open)));
        for _ in 0..LOG_WINDOW {
            assert_eq!(session.part(part(1, None)), Ok(()));
        }
        assert!(session.part(part(1, None)).is_err(), "there is no room");
        reading.more();
        assert_eq!(asks.try_recv(), Ok(ToAgent::LogsMore { reading: 1, parts: 1 }));
        assert_eq!(session.part(part(1, Some(LogsEnd::Complete))), Ok(()));
        assert_eq!((u32::try_from(heard.len()), broker.readings()), (Ok(LOG_WINDOW + 2), 0));
        // It is over: no word is needed.
        drop(reading);
        assert!(asks.is_empty());
    }

    #[test]
    fn a_reader_that_goes_away_closes() {
        let broker = Broker::default();
        let (to, heard) = async_channel::unbounded();
        let (session, asks) = broker.attach(node(1), 1);
        drop(broker.open(node(1), task(5), ASK, true, &to));
        assert!(matches!(asks.try_recv(), Ok(ToAgent::LogsOpen(_))));
        assert_eq!(asks.try_recv(), Ok(ToAgent::LogsClose { reading: 1 }));
        // What was under way is dropped.
        assert_eq!(session.part(part(1, None)), Ok(()));
        assert_eq!((asks.try_recv(), heard.len()), (Ok(ToAgent::LogsClose { reading: 1 }), 0));
    }

    #[test]
    fn a_session_that_ends_is_told() {
        let broker = Broker::default();
        let (to, heard) = async_channel::unbounded();
        let (old, _asks) = broker.attach(node(1), 1);
        let reading = open(&broker, &to);
        let (_new, asks) = broker.attach(node(1), 2);
        assert_eq!(heard.try_recv(), Ok(Said { task: task(5), reading: 1, what: What::Lost }));
        // The old session's words and end mean nothing any more.
        assert_eq!(old.part(part(1, None)), Ok(()));
        drop(old);
        drop(reading);
        assert!(broker.is_attached(node(1)) && asks.is_empty() && heard.is_empty());
        assert_eq!(broker.readings(), 0);
    }

    #[test]
    fn there_are_not_too_many() {
        let broker = Broker::default();
        let readers: Vec<_> = (0..LOG_READERS_MAX).map(|_| broker.reader().expect("room")).collect();
        assert!(broker.reader().is_none());
        drop(readers);
        assert!(broker.reader().is_some());
        let (to, _heard) = async_channel::unbounded();
        let sessions: Vec<_> = (0..9).map(|number| broker.attach(node(number), 1)).collect();
        let mut open = Vec::new();
        // Who follows leaves half of the room, of each board and in all, to readers that end.
        let mut fill = |follows: bool| -> Vec<usize> {
            let some = (0..9).map(|number| {
                let some = (0..200).map_while(|_| broker.open(node(number), task(1), ASK, follows, &to).ok());
                let before = open.len();
                open.extend(some);
                open.len() - before
            });
            some.collect()
        };
        assert_eq!(fill(true), [64, 64, 64, 64, 0, 0, 0, 0, 0]);
        assert_eq!(fill(false), [64, 64, 64, 64, 0, 0, 0, 0, 0]);
        assert_eq!((open.len(), broker.readings()), (LOG_READINGS_ALL_MAX, LOG_READINGS_ALL_MAX));
        // One that ends makes room for one of its kind.
        open.remove(0);
        open.pop();
        assert!(broker.open(node(0), task(1), ASK, true, &to).is_ok());
        drop(sessions);
        assert_eq!((broker.readings(), broker.lock().following), (0, 0));
    }
}
