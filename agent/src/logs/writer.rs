//! Keeps records in files of a bounded size, of which a bounded number stays.
//!
//! In: records, and when to write them. Out: bytes to a [`Disk`]. It never waits for room: what does not fit is dropped
//! and counted, and the count is written as soon as there is room again. Bytes that were written once are never
//! touched again, and a record never lies in two files.

use std::io;

use racimo_common::object::LogStream;
use racimo_common::time::Wall;

use super::record::Record;
use crate::limits::LOG_BUFFER_BYTES;

/// Where files are kept: a directory, or a test's memory.
pub trait Disk {
    /// A file that is open.
    type File;

    /// The numbers of the files there are.
    ///
    /// # Errors
    /// The directory cannot be read.
    fn numbers(&mut self) -> io::Result<Vec<u64>>;

    /// A new file.
    ///
    /// # Errors
    /// It cannot be made.
    fn create(&mut self, number: u64) -> io::Result<Self::File>;

    /// Writes some of the bytes at the file's end; how many.
    ///
    /// # Errors
    /// Nothing was written.
    fn write(&mut self, file: &mut Self::File, bytes: &[u8]) -> io::Result<usize>;

    /// Removes a file.
    ///
    /// # Errors
    /// It is still there.
    fn remove(&mut self, number: u64) -> io::Result<()>;
}

/// The log of one container.
pub struct Writer<D: Disk> {
    disk: D,
    size_max: u64,
    files_max: u64,
    /// The file that is written; none: the next record begins one.
    file: Option<D::File>,
    /// Its number, or that of the last one.
    number: Option<u64>,
    /// Bytes in it.
    size: u64,
    /// What is yet to be written to it: records, of which the first may have been written in part.
    waiting: Vec<u8>,
    lost: Lost,
    /// Every record has its own.
    last_at: Wall,
}

/// What did not fit.
#[derive(Debug, Default)]
struct Lost {
    /// Lines, and pieces of lines.
    lines: u64,
    bytes: u64,
    why: String,
}

impl<D: Disk> Writer<D> {
    /// Continues what is there with a new file.
    pub fn new(disk: D, size_max: u64, files_max: u32) -> Self {
        Self {
            disk,
            size_max,
            files_max: u64::from(files_max.max(1)),
            file: None,
            number: None,
            size: 0,
            waiting: Vec::new(),
            lost: Lost::default(),
            last_at: Wall::default(),
        }
    }

    /// Begins a file before there is anything to say, so that readers see that there is a log. A disk that does not
    /// want it is asked again with the first line.
    pub fn begin_now(&mut self) {
        if let Err(error) = self.begin() {
            self.lost.why = error.to_string();
        }
    }

    /// Whether a [`Writer::flush`] has something to do.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty() || self.lost.lines > 0
    }

    /// Takes a line or a piece of one. Writes only what waits already, and only if it must.
    pub fn push(&mut self, at: Wall, stream: LogStream, ends: bool, said: &[u8]) {
        // A full disk costs one try per flush, not one per line.
        if self.lost.lines == 0 {
            let record = Record { at: self.stamp(at), stream, ends, said };
            if self.room(record.size()) {
                return record.write(&mut self.waiting);
            }
        }
        self.lost.lines += 1;
        self.lost.bytes += said.len() as u64 + u64::from(ends);
    }

    /// A time that no other record has: readers go on after the last one they saw. A clock that is set back is
    /// followed.
    fn stamp(&mut self, at: Wall) -> Wall {
        const NEAR_NANOS: i64 = 1_000_000_000;
        let behind = self.last_at.nanos().saturating_sub(at.nanos());
        let at = if (0..NEAR_NANOS).contains(&behind) { Wall::from_nanos(self.last_at.nanos() + 1) } else { at };
        self.last_at = at;
        at
    }

    /// Makes room for a record; false: there is none.
    fn room(&mut self, record: usize) -> bool {
        let filled = self.size + self.waiting.len() as u64;
        if filled > 0 && filled + record as u64 > self.size_max {
            if !self.write_waiting() {
                return false;
            }
            (self.file, self.size) = (None, 0);
        }
        self.waiting.len() + record <= LOG_BUFFER_BYTES || self.write_waiting()
    }

    /// Writes what waits, and a word about what was lost; false: not everything.
    pub fn flush(&mut self, now: Wall) -> bool {
        if !self.write_waiting() {
            return false;
        }
        if self.lost.lines > 0 {
            let Lost { lines, bytes, why } = std::mem::take(&mut self.lost);
            let text = format!("[racimo: {lines} lines ({bytes} bytes) are missing here: {why}]");
            self.push(now, LogStream::Stderr, true, text.as_bytes());
            if self.lost.lines > 0 {
                // Still no room, not even for this.
                self.lost = Lost { lines, bytes, why };
                return false;
            }
        }
        self.write_waiting()
    }

    fn write_waiting(&mut self) -> bool {
        match self.try_write() {
            Ok(()) => true,
            Err(error) => {
                self.lost.why = error.to_string();
                false
            }
        }
    }

    fn try_write(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            if self.file.is_none() {
                self.begin()?;
            }
            let Some(file) = &mut self.file else { return Ok(()) };
            let written = match self.disk.write(file, &self.waiting) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.waiting.drain(..written);
            self.size += written as u64;
        }
        Ok(())
    }

    /// Begins the next file, and removes those that are too many.
    fn begin(&mut self) -> io::Result<()> {
        let mut numbers = self.disk.numbers()?;
        numbers.sort_unstable();
        let last = self.number.max(numbers.last().copied());
        let number = last.map_or(1, |last| last.saturating_add(1));
        let keep = usize::try_from(self.files_max - 1).unwrap_or(usize::MAX);
        // Before the new one is made: it may need the room.
        for old in &numbers[..numbers.len().saturating_sub(keep)] {
            self.disk.remove(*old)?;
        }
        self.file = Some(self.disk.create(number)?);
        (self.number, self.size) = (Some(number), 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Shared {
        files: BTreeMap<u64, Vec<u8>>,
        /// Bytes that still fit; files keep theirs after they are removed in no test that needs it.
        room: usize,
        writes: usize,
    }

    #[derive(Clone, Default)]
    struct Fake(Rc<RefCell<Shared>>);

    impl Fake {
        fn with_room(room: usize) -> Self {
            let fake = Self::default();
            fake.0.borrow_mut().room = room;
            fake
        }

        /// Every line of every file: its text, or `?` if it is no record.
        fn lines(&self) -> Vec<String> {
            let shared = self.0.borrow();
            let all: Vec<u8> = shared.files.values().flatten().copied().collect();
            let text = |line: &[u8]| match Record::read(line) {
                Some(record) => String::from_utf8_lossy(record.said).into_owned(),
                None => "?".to_owned(),
            };
            all.split_inclusive(|byte| *byte == b'\n').map(|line| text(&line[..line.len() - 1])).collect()
        }
    }

    impl Disk for Fake {
        type File = u64;

        fn numbers(&mut self) -> io::Result<Vec<u64>> {
            Ok(self.0.borrow().files.keys().copied().collect())
        }

        fn create(&mut self, number: u64) -> io::Result<u64> {
            let old = self.0.borrow_mut().files.insert(number, Vec::new());
            assert!(old.is_none(), "a file is written once");
            Ok(number)
        }

        fn write(&mut self, file: &mut u64, bytes: &[u8]) -> io::Result<usize> {
            let mut shared = self.0.borrow_mut();
            let fits = bytes.len().min(shared.room);
            if fits == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            shared.room -= fits;
            shared.writes += 1;
            // One that another process removed takes bytes all the same.
            if let Some(file) = shared.files.get_mut(file) {
                file.extend_from_slice(&bytes[..fits]);
            }
            Ok(fits)
        }

        fn remove(&mut self, number: u64) -> io::Result<()> {
            let mut shared = self.0.borrow_mut();
            let gone = shared.files.remove(&number).unwrap_or_default();
            shared.room = shared.room.saturating_add(gone.len());
            Ok(())
        }
    }

    fn say(writer: &mut Writer<Fake>, text: &str) {
        writer.push(Wall::from_nanos(1), LogStream::Stdout, true, text.as_bytes());
    }

    #[test]
    fn lines_wait_for_a_flush() {
        let disk = Fake::with_room(usize::MAX);
        let mut writer = Writer::new(disk.clone(), 1 << 20, 2);
        assert!(!writer.is_waiting());
        for text in ["a", "b", "c"] {
            say(&mut writer, text);
        }
        assert!(writer.is_waiting() && disk.lines().is_empty());
        assert!(writer.flush(Wall::default()) && !writer.is_waiting());
        assert_eq!(disk.lines(), ["a", "b", "c"]);
        assert_eq!(disk.0.borrow().writes, 1);
        // Times differ, though the clock said the same.
        let text = String::from_utf8(disk.0.borrow().files[&1].clone()).expect("text");
        let stamps: Vec<&str> = text.lines().map(|line| &line[20..30]).collect();
        assert_eq!(stamps, ["000000001Z", "000000002Z", "000000003Z"]);
    }

    #[test]
    fn a_full_file_is_followed_by_the_next_and_the_oldest_goes() {
        let disk = Fake::with_room(usize::MAX);
        let mut writer = Writer::new(disk.clone(), 1000, 2);
        for number in 0..100 {
            say(&mut writer, &format!("{number:0>65}"));
        }
        assert!(writer.flush(Wall::default()));
        let shared = disk.0.borrow();
        // Ten records of 100 bytes fit into a file.
        assert_eq!(shared.files.keys().copied().collect::<Vec<_>>(), [9, 10]);
        assert!(shared.files.values().all(|file| file.len() == 1000));
        drop(shared);
        let want: Vec<String> = (80..100).map(|number| format!("{number:0>65}")).collect();
        assert_eq!(disk.lines(), want);
    }

    #[test]
    fn a_new_process_begins_a_new_file() {
        let disk = Fake::with_room(usize::MAX);
        disk.0.borrow_mut().files.insert(7, b"torn".to_vec());
        let mut writer = Writer::new(disk.clone(), 1000, 2);
        say(&mut writer, "a");
        assert!(writer.flush(Wall::default()));
        assert_eq!(disk.0.borrow().files.keys().copied().collect::<Vec<_>>(), [7, 8]);
    }

    #[test]
    fn a_full_disk_costs_lines_and_says_so() {
        let disk = Fake::with_room(150);
        let mut writer = Writer::new(disk.clone(), 1 << 20, 2);
        let line = "x".repeat(65);
        for _ in 0..3 {
            say(&mut writer, &line);
        }
        // Half of the second record fits.
        assert!(!writer.flush(Wall::default()) && writer.is_waiting());
        // What waits for room is bounded, the rest is counted.
        for _ in 0..1000 {
            say(&mut writer, &line);
        }
        assert!(writer.waiting.len() <= LOG_BUFFER_BYTES && writer.lost.lines > 0);
        let lost = writer.lost.lines;
        disk.0.borrow_mut().room = usize::MAX;
        assert!(writer.flush(Wall::default()) && !writer.is_waiting());
        say(&mut writer, "again");
        assert!(writer.flush(Wall::default()));
        let lines = disk.lines();
        let kept = lines.iter().filter(|text| **text == line).count();
        assert_eq!(kept as u64 + lost, 1003);
        assert_eq!(lines.last().map(String::as_str), Some("again"));
        let bytes = lost * 66;
        let told = &lines[lines.len() - 2];
        assert!(told.starts_with(&format!("[racimo: {lost} lines ({bytes} bytes) are missing here: ")), "{told}");
        assert!(!lines.contains(&"?".to_owned()), "nothing is torn");
    }

    #[test]
    fn a_clock_that_is_set_back_is_followed() {
        let mut writer = Writer::new(Fake::with_room(usize::MAX), 1000, 2);
        let mut check = |at: i64, want: i64| assert_eq!(writer.stamp(Wall::from_nanos(at)).nanos(), want);
        check(5_000_000_000, 5_000_000_000);
        check(5_000_000_000, 5_000_000_001);
        check(4_500_000_000, 5_000_000_002);
        check(1_000_000_000, 1_000_000_000);
        check(9_000_000_000, 9_000_000_000);
    }

    proptest! {
        /// Whatever the disk does: no record is torn or in two files, and what is missing is counted.
        #[test]
        fn kept_or_counted(steps in proptest::collection::vec((0..200_usize, 0..3000_usize, any::<bool>()), 0..80)) {
            let disk = Fake::with_room(0);
            let mut writer = Writer::new(disk.clone(), 2000, 1_000_000);
            let mut said = 0_u64;
            for (length, room, flush) in steps {
                disk.0.borrow_mut().room = room;
                for _ in 0..20 {
                    say(&mut writer, &"y".repeat(length));
                    said += 1;
                }
                if flush {
                    writer.flush(Wall::default());
                }
            }
            disk.0.borrow_mut().room = usize::MAX;
            prop_assert!(writer.flush(Wall::default()));
            let lines = disk.lines();
            let told = lines.iter().filter_map(|text| text.strip_prefix("[racimo: ")?.split(' ').next()?.parse::<u64>().ok());
            let told: u64 = told.sum();
            let kept = lines.iter().filter(|text| !text.starts_with('[')).count() as u64;
            prop_assert_eq!(kept + told, said);
            prop_assert!(!lines.contains(&"?".to_owned()));
            let shared = disk.0.borrow();
            prop_assert!(shared.files.values().all(|file| file.len() <= 2000 && file.ends_with(b"\n")));
        }
    }
}
