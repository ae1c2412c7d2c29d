//! Readings of logs that the manager asked for in this session.
//!
//! ```text
//! link ─ open, more, close ─▶ Desk ─ one step at a time, on another thread ─▶ part ─▶ link
//! ```
//! A reading sends only as many parts as its reader has room for. One part is under way at a time, over all readings,
//! and only when the link has nothing better to send: heartbeats and reports never wait for more than one part.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use async_channel::{Receiver, Sender};
use racimo_common::object::LogEntry;
use racimo_common::wire::{LogsEnd, LogsOpen, LogsPart, ToManager};
use smol::Timer;

use super::dir;
use super::read::{Cursor, Rest, Step};
use crate::limits;

/// The readings of one session.
pub struct Desk {
    data: PathBuf,
    readings: RefCell<BTreeMap<u64, Reading>>,
    news: (Sender<()>, Receiver<()>),
    /// When followed logs are looked at again.
    look_at: Cell<Instant>,
}

struct Reading {
    /// None while a step is under way, and once there is an end to tell.
    cursor: Option<Cursor>,
    /// How many parts may be sent.
    room: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    /// There may be something to read.
    Busy,
    /// Everything was read; more may come.
    Idle,
    /// Whoever wrote it is gone: what is there now is the rest.
    Last,
    /// To be told as soon as there is room.
    Ends(LogsEnd),
}

/// What to do next.
enum Turn {
    Step(u64, Cursor),
    End(u64, LogsEnd),
    /// Look again soon (true) or when there is news.
    Wait(bool),
}

impl Desk {
    /// Nobody reads yet; `data`: the agent's directory.
    pub fn new(data: PathBuf) -> Self {
        Self { data, readings: RefCell::default(), news: async_channel::bounded(1), look_at: Cell::new(Instant::now()) }
    }

    fn wake(&self) {
        // Full: it will look anyway.
        let _ = self.news.0.try_send(());
    }

    /// The manager wants a log.
    pub fn open(&self, open: LogsOpen) {
        let mut readings = self.readings.borrow_mut();
        let count = readings.len();
        // Refusals take room too. A manager that floods a board gets no answer any more.
        if count >= 2 * limits::LOG_READINGS_MAX {
            return;
        }
        let most = limits::LOG_READINGS_MAX;
        let reading = if count >= most {
            let reason = format!("this board serves at most {most} readings of logs at once");
            Reading { cursor: None, room: open.parts, state: State::Ends(LogsEnd::Failed(reason)) }
        } else {
            let cursor = Cursor::new(dir(&self.data, open.task), open.ask);
            Reading { cursor: Some(cursor), room: open.parts, state: State::Busy }
        };
        readings.entry(open.reading).or_insert(reading);
        drop(readings);
        self.wake();
    }

    /// A reader has room for more parts.
    pub fn more(&self, reading: u64, parts: u32) {
        if let Some(reading) = self.readings.borrow_mut().get_mut(&reading) {
            reading.room = reading.room.saturating_add(parts);
        }
        self.wake();
    }

    /// A reader went away.
    pub fn close(&self, reading: u64) {
        self.readings.borrow_mut().remove(&reading);
    }

    /// Sends parts for ever, or until nobody takes them.
    pub async fn serve(&self, out: Sender<ToManager>) {
        let mut last = 0;
        loop {
            // Also while another one has much to send.
            self.look(Instant::now());
            match self.turn(last) {
                Turn::Step(id, cursor) => {
                    last = id;
                    if !self.step(id, cursor, &out).await {
                        return;
                    }
                }
                Turn::End(id, end) => {
                    last = id;
                    self.close(id);
                    let part = LogsPart { reading: id, entries: Vec::new(), end: Some(end) };
                    if out.send(ToManager::Logs(part)).await.is_err() {
                        return;
                    }
                }
                Turn::Wait(soon) => self.wait(soon).await,
            }
        }
    }

    /// Whose turn it is: in a circle, beginning after `last`.
    fn turn(&self, last: u64) -> Turn {
        let mut readings = self.readings.borrow_mut();
        let ids: Vec<u64> =
            readings.range(last.saturating_add(1)..).chain(readings.range(..=last)).map(|(id, _)| *id).collect();
        let mut soon = false;
        for id in ids {
            let Some(reading) = readings.get_mut(&id).filter(|reading| reading.room > 0) else { continue };
            match &reading.state {
                State::Ends(end) => return Turn::End(id, end.clone()),
                State::Busy | State::Last => {
                    if let Some(cursor) = reading.cursor.take() {
                        return Turn::Step(id, cursor);
                    }
                }
                State::Idle => soon = true,
            }
        }
        Turn::Wait(soon)
    }

    async fn wait(&self, soon: bool) {
        let news = async {
            // Never closed: this holds both ends.
            let _ = self.news.1.recv().await;
        };
        let look = async {
            if soon {
                Timer::at(self.look_at.get()).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        smol::future::or(news, look).await;
    }

    /// Has followed logs read again, if it is time.
    fn look(&self, now: Instant) {
        if now < self.look_at.get() {
            return;
        }
        self.look_at.set(now + limits::LOG_FOLLOW_EVERY);
        for reading in self.readings.borrow_mut().values_mut() {
            if matches!(reading.state, State::Idle) {
                reading.state = State::Busy;
            }
        }
    }

    /// One step of a reading; false: nobody takes parts any more.
    async fn step(&self, id: u64, mut cursor: Cursor, out: &Sender<ToManager>) -> bool {
        let stepped = smol::unblock(move || {
            let step = cursor.step();
            let is_idle = matches!(step, Ok(Step { rest: Rest::Nothing, .. }));
            let is_abandoned = is_idle && cursor.follows() && cursor.is_abandoned();
            (cursor, step, is_abandoned)
        });
        let (cursor, step, is_abandoned) = stepped.await;
        let entries = self.stepped(id, cursor, step, is_abandoned);
        if entries.is_empty() {
            return true;
        }
        out.send(ToManager::Logs(LogsPart { reading: id, entries, end: None })).await.is_ok()
    }

    /// A step was made: what it brought, which takes the room of a part.
    fn stepped(&self, id: u64, cursor: Cursor, step: io::Result<Step>, is_abandoned: bool) -> Vec<LogEntry> {
        let mut readings = self.readings.borrow_mut();
        // It may have been closed meanwhile.
        let Some(reading) = readings.get_mut(&id) else { return Vec::new() };
        let was_last = matches!(reading.state, State::Last);
        let follows = cursor.follows();
        reading.cursor = Some(cursor);
        match step {
            Ok(Step { entries, rest }) => {
                reading.state = match rest {
                    Rest::More if was_last => State::Last,
                    Rest::More => State::Busy,
                    Rest::Over => State::Ends(LogsEnd::Complete),
                    Rest::Nothing if was_last || !follows => State::Ends(LogsEnd::Complete),
                    // The last lines may have been written since.
                    Rest::Nothing if is_abandoned => State::Last,
                    Rest::Nothing => State::Idle,
                };
                reading.room -= u32::from(!entries.is_empty());
                entries
            }
            Err(error) => {
                log::warn!("read a log: {error}");
                reading.state = State::Ends(LogsEnd::Failed(format!("the board cannot read it: {error}")));
                Vec::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::time::Duration;

    use racimo_common::id::{RandomId, TaskId};
    use racimo_common::object::{LogAsk, LogStream};
    use racimo_common::time::Wall;

    use super::*;
    use crate::logs::file_name;
    use crate::logs::record::Record;

    const ALL: LogAsk = LogAsk { follow: false, tail: None, since: None, until: None, stdout: true, stderr: true };

    fn write(desk: &Desk, task: TaskId, lines: std::ops::Range<usize>) {
        let dir = dir(&desk.data, task);
        fs::create_dir_all(&dir).expect("a directory");
        let mut bytes = Vec::new();
        for line in lines {
            let said = format!("line {line}");
            let at = Wall::from_nanos(i64::try_from(line).expect("small"));
            Record { at, stream: LogStream::Stdout, ends: true, said: said.as_bytes() }.write(&mut bytes);
        }
        let file = fs::OpenOptions::new().append(true).create(true).open(dir.join(file_name(1)));
        file.and_then(|mut file| file.write_all(&bytes)).expect("a file");
    }

    fn open(reading: u64, task: TaskId, ask: LogAsk, parts: u32) -> LogsOpen {
        LogsOpen { reading, task, ask, parts }
    }

    fn on_a_desk(test: impl AsyncFnOnce(&Desk, &Receiver<ToManager>)) {
        let data = tempfile::tempdir().expect("a directory");
        let desk = Desk::new(data.path().to_owned());
        let (out, parts) = async_channel::bounded(1);
        let late = async {
            Timer::after(Duration::from_secs(30)).await;
            panic!("nothing comes");
        };
        let serve = smol::future::or(desk.serve(out), late);
        smol::block_on(smol::future::or(test(&desk, &parts), serve));
    }

    async fn next(parts: &Receiver<ToManager>) -> LogsPart {
        match parts.recv().await {
            Ok(ToManager::Logs(part)) => part,
            other => panic!("no part: {other:?}"),
        }
    }

    async fn quiet(parts: &Receiver<ToManager>) {
        Timer::after(2 * limits::LOG_FOLLOW_EVERY).await;
        assert!(parts.is_empty());
    }

    #[test]
    fn no_more_parts_than_there_is_room_for() {
        on_a_desk(async |desk, parts| {
            let task = TaskId::from_bits(1);
            write(desk, task, 0..2000);
            desk.open(open(7, task, ALL, 1));
            let first = next(parts).await;
            assert_eq!((first.reading, &*first.entries[0].line), (7, &b"line 0\n"[..]));
            quiet(parts).await;
            let mut lines = first.entries.len();
            loop {
                desk.more(7, 1);
                let part = next(parts).await;
                lines += part.entries.len();
                if let Some(end) = part.end {
                    assert_eq!(end, LogsEnd::Complete);
                    break;
                }
            }
            assert_eq!(lines, 2000);
            // It is over: nothing more, whatever is asked.
            desk.more(7, 9);
            quiet(parts).await;
            // No log at all.
            desk.open(open(8, TaskId::from_bits(2), ALL, 1));
            assert_eq!(next(parts).await, LogsPart { reading: 8, entries: Vec::new(), end: Some(LogsEnd::Complete) });
        });
    }

    #[test]
    fn a_log_is_followed_until_its_writer_is_gone() {
        on_a_desk(async |desk, parts| {
            let task = TaskId::from_bits(1);
            desk.open(open(1, task, LogAsk { follow: true, ..ALL }, 100));
            quiet(parts).await;
            let directory = dir(&desk.data, task);
            fs::create_dir_all(&directory).expect("a directory");
            let writer = fs::File::open(&directory).expect("a directory");
            rustix::fs::flock(&writer, rustix::fs::FlockOperation::LockShared).expect("a lock");
            write(desk, task, 0..1);
            assert_eq!(next(parts).await.entries.len(), 1);
            write(desk, task, 1..3);
            assert_eq!(next(parts).await.entries.len(), 2);
            quiet(parts).await;
            write(desk, task, 3..4);
            drop(writer);
            assert_eq!(next(parts).await.entries.len(), 1);
            assert_eq!(next(parts).await.end, Some(LogsEnd::Complete));
        });
    }

    #[test]
    fn a_log_is_followed_beside_one_that_is_read_for_ever() {
        on_a_desk(async |desk, parts| {
            let (followed, read) = (TaskId::from_bits(1), TaskId::from_bits(2));
            let directory = dir(&desk.data, followed);
            fs::create_dir_all(&directory).expect("a directory");
            let writer = fs::File::open(&directory).expect("a directory");
            rustix::fs::flock(&writer, rustix::fs::FlockOperation::LockShared).expect("a lock");
            desk.open(open(1, followed, LogAsk { follow: true, ..ALL }, 100));
            quiet(parts).await;
            write(desk, followed, 0..1);
            write(desk, read, 0..2000);
            // Somebody asks for the same long log again and again.
            let mut reading = 2;
            desk.open(open(reading, read, ALL, u32::MAX));
            loop {
                let part = next(parts).await;
                if part.reading == 1 {
                    return;
                }
                if part.end.is_some() {
                    reading += 1;
                    desk.open(open(reading, read, ALL, u32::MAX));
                }
            }
        });
    }

    #[test]
    fn readings_take_turns_and_are_limited() {
        on_a_desk(async |desk, parts| {
            let most = limits::LOG_READINGS_MAX as u64;
            let task = TaskId::from_bits(1);
            write(desk, task, 0..2000);
            for reading in 0..3 * most {
                desk.open(open(reading, task, LogAsk { follow: true, ..ALL }, 1));
            }
            let mut first: Vec<u64> = Vec::new();
            let mut refused = 0;
            for _ in 0..2 * most {
                let part = next(parts).await;
                match part.end {
                    Some(LogsEnd::Failed(reason)) => {
                        assert!(reason.contains("at most 128"), "{reason}");
                        refused += 1;
                    }
                    other => {
                        assert_eq!(other, None);
                        first.push(part.reading);
                    }
                }
            }
            first.sort_unstable();
            assert_eq!((first, refused), ((0..most).collect(), most));
            for reading in 0..most {
                desk.close(reading);
            }
            desk.open(open(1000, task, ALL, 1));
            assert_eq!(next(parts).await.reading, 1000);
        });
    }
}
