//! Reads a task's log, part by part, while it may be written.
//!
//! A place in a log is a file's number and an offset. A file that has a successor is complete; what stands after its
//! last newline was torn off by a crash. Damaged lines are passed over. Memory: one block, whatever the log's size.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use racimo_common::object::{LogAsk, LogEntry, LogStream};
use rustix::fs::{FlockOperation, flock};

use super::file_name;
use super::process::numbers;
use super::record::{HEAD_BYTES, Record};
use crate::limits::{LOG_BLOCK_BYTES, LOG_PIECE_BYTES_MAX};

/// Somebody's place in a log.
#[derive(Debug)]
pub struct Cursor {
    dir: PathBuf,
    ask: LogAsk,
    place: Option<Place>,
    /// The file of that place. It is kept open, so that its rest can be read after it was removed.
    file: Option<File>,
    /// A damaged line that is longer than a block is passed over.
    skips: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    number: u64,
    offset: u64,
}

/// What a step brought.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// In order; what nobody asked for is left out.
    pub entries: Vec<LogEntry>,
    /// What is left.
    pub rest: Rest,
}

/// What is left of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Perhaps more: step again.
    More,
    /// Nothing now.
    Nothing,
    /// Nothing that was asked for will come.
    Over,
}

impl Cursor {
    /// At the beginning of what is asked for. Reads nothing yet.
    pub fn new(dir: PathBuf, ask: LogAsk) -> Self {
        Self { dir, ask, place: None, file: None, skips: false }
    }

    /// Whether later lines are wanted too.
    pub fn follows(&self) -> bool {
        self.ask.follow
    }

    /// Reads on, at most a block.
    ///
    /// # Errors
    /// The disk's.
    pub fn step(&mut self) -> io::Result<Step> {
        let place = match self.place {
            Some(place) => place,
            None => begin(&self.dir, &self.ask)?,
        };
        self.place = Some(place);
        if self.file.is_none() && !self.open_next(place.number)? {
            return Ok(Step { entries: Vec::new(), rest: Rest::Nothing });
        }
        if let Some(step) = self.block()? {
            return Ok(step);
        }
        let Some(place) = self.place else { return Ok(Step { entries: Vec::new(), rest: Rest::More }) };
        let has_next = numbers_of(&self.dir)?.iter().any(|number| *number > place.number);
        if !has_next {
            return Ok(Step { entries: Vec::new(), rest: Rest::Nothing });
        }
        // It is complete now, but may not have been when we looked.
        if let Some(step) = self.block()? {
            return Ok(step);
        }
        self.file = None;
        self.place = Some(Place { number: place.number.saturating_add(1), offset: 0 });
        Ok(Step { entries: Vec::new(), rest: Rest::More })
    }

    /// Whether whoever writes the log is gone: nothing more will come.
    pub fn is_abandoned(&self) -> bool {
        // The lock is there before the first file is.
        if numbers_of(&self.dir).is_ok_and(|numbers| numbers.is_empty()) {
            return false;
        }
        let Ok(dir) = File::open(&self.dir) else { return true };
        flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok()
    }

    /// Opens the first file from `number` on; false: there is none.
    fn open_next(&mut self, number: u64) -> io::Result<bool> {
        let mut later: Vec<u64> = numbers_of(&self.dir)?.into_iter().filter(|other| *other >= number).collect();
        later.sort_unstable();
        for other in later {
            match File::open(self.dir.join(file_name(other))) {
                Ok(file) => {
                    if other != number {
                        self.place = Some(Place { number: other, offset: 0 });
                    }
                    (self.file, self.skips) = (Some(file), false);
                    return Ok(true);
                }
                // It became too old a moment ago.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Reads a block's whole lines; none: there is no whole line.
    fn block(&mut self) -> io::Result<Option<Step>> {
        let (Some(place), Some(file)) = (&mut self.place, &self.file) else { return Ok(None) };
        let mut block = vec![0; LOG_BLOCK_BYTES];
        let count = read_at(file, &mut block, place.offset)?;
        let block = &block[..count];
        let Some(end) = block.iter().rposition(|byte| *byte == b'\n') else {
            if count < LOG_BLOCK_BYTES {
                return Ok(None);
            }
            place.offset += count as u64;
            self.skips = true;
            return Ok(Some(Step { entries: Vec::new(), rest: Rest::More }));
        };
        place.offset += end as u64 + 1;
        let mut step = Step { entries: Vec::new(), rest: Rest::More };
        for line in block[..end].split(|byte| *byte == b'\n') {
            if std::mem::take(&mut self.skips) {
                continue;
            }
            let Some(record) = Record::read(line) else { continue };
            if self.ask.until.is_some_and(|until| record.at >= until) {
                step.rest = Rest::Over;
                return Ok(Some(step));
            }
            if wants(&self.ask, &record) {
                step.entries.push(record.entry());
            }
        }
        Ok(Some(step))
    }
}

fn wants(ask: &LogAsk, record: &Record<'_>) -> bool {
    let stream = match record.stream {
        LogStream::Stdout => ask.stdout,
        LogStream::Stderr => ask.stderr,
    };
    stream && ask.since.is_none_or(|since| record.at >= since) && ask.until.is_none_or(|until| record.at < until)
}

/// No directory: no files.
fn numbers_of(dir: &Path) -> io::Result<Vec<u64>> {
    match numbers(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Where the log begins for this reader.
fn begin(dir: &Path, ask: &LogAsk) -> io::Result<Place> {
    let start = Place { number: 0, offset: 0 };
    let Some(lines) = ask.tail else { return Ok(start) };
    let mut numbers = numbers_of(dir)?;
    numbers.sort_unstable();
    let mut tail = Tail { ask, left: lines, ends: [false; 2] };
    for number in numbers.into_iter().rev() {
        let file = match File::open(dir.join(file_name(number))) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        };
        if let Some(offset) = tail.search(&file)? {
            return Ok(Place { number, offset });
        }
    }
    Ok(start)
}

/// Counts lines from the end.
struct Tail<'a> {
    ask: &'a LogAsk,
    left: u64,
    /// Of each output: whether the end of the line that a piece belongs to was seen.
    ends: [bool; 2],
}

impl Tail<'_> {
    /// The offset after which the lines that are left begin; none: all of the file belongs to them.
    fn search(&mut self, file: &File) -> io::Result<Option<u64>> {
        let longest = 2 * (HEAD_BYTES + LOG_PIECE_BYTES_MAX);
        let mut at = file.metadata()?.len();
        // What stands after the last newline is no line.
        let mut line_end: Option<u64> = None;
        let mut carried: Vec<u8> = Vec::new();
        while at > 0 {
            let size = at.min(LOG_BLOCK_BYTES as u64);
            at -= size;
            let mut block = vec![0; usize::try_from(size).unwrap_or(LOG_BLOCK_BYTES)];
            let count = read_at(file, &mut block, at)?;
            block.truncate(count);
            block.append(&mut carried);
            let mut end = block.len();
            while let Some(newline) = block[..end].iter().rposition(|byte| *byte == b'\n') {
                let before = line_end.replace(at + newline as u64);
                if let Some(line_end) = before.filter(|_| self.is_before(&block[newline + 1..end])) {
                    return Ok(Some(line_end + 1));
                }
                end = newline;
            }
            block.truncate(end);
            // Longer than any line: damage.
            block.truncate(longest);
            carried = block;
        }
        Ok(line_end.filter(|_| self.is_before(&carried)).map(|line_end| line_end + 1))
    }

    /// Takes the next line towards the beginning: whether it does not belong to those that are wanted any more.
    fn is_before(&mut self, line: &[u8]) -> bool {
        let Some(record) = Record::read(line) else { return false };
        if self.ask.since.is_some_and(|since| record.at < since) {
            return true;
        }
        if !wants(self.ask, &record) {
            return false;
        }
        let ends = &mut self.ends[usize::from(record.stream == LogStream::Stderr)];
        let is_piece = !record.ends && std::mem::replace(ends, true);
        if is_piece {
            return false;
        }
        *ends = true;
        if self.left == 0 {
            return true;
        }
        self.left -= 1;
        false
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use racimo_common::time::Wall;

    use super::*;

    const ALL: LogAsk = LogAsk { follow: false, tail: None, since: None, until: None, stdout: true, stderr: true };

    fn line(at: i64, text: &str) -> Vec<u8> {
        let (stream, said) = match text.strip_prefix("!") {
            Some(said) => (LogStream::Stderr, said),
            None => (LogStream::Stdout, text),
        };
        let (said, ends) = said.strip_suffix('+').map_or((said, true), |said| (said, false));
        let mut bytes = Vec::new();
        Record { at: Wall::from_nanos(at), stream, ends, said: said.as_bytes() }.write(&mut bytes);
        bytes
    }

    /// A directory with these files, from number 1; a `~` at a text's end: without its last bytes.
    fn log(files: &[&[&str]]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        let mut at = 0;
        for (number, texts) in files.iter().enumerate() {
            let mut bytes = Vec::new();
            for text in *texts {
                at += 1;
                match text.strip_suffix('~') {
                    Some(text) => bytes.extend_from_slice(&line(at, text)[..20]),
                    None => bytes.extend_from_slice(&line(at, text)),
                }
            }
            fs::write(dir.path().join(file_name(number as u64 + 1)), bytes).expect("a file");
        }
        dir
    }

    fn read(cursor: &mut Cursor) -> Vec<String> {
        let mut texts = Vec::new();
        for _ in 0..10_000 {
            let step = cursor.step().expect("a disk");
            texts.extend(step.entries.iter().map(|entry| {
                let mark = if entry.stream == LogStream::Stderr { "!" } else { "" };
                let said = String::from_utf8_lossy(&entry.line);
                format!("{mark}{}", said.strip_suffix('\n').map_or(format!("{said}+"), str::to_owned))
            }));
            if step.rest != Rest::More {
                return texts;
            }
        }
        panic!("it does not end: {texts:?}");
    }

    #[track_caller]
    fn check(files: &[&[&str]], ask: LogAsk, want: &[&str]) {
        let dir = log(files);
        assert_eq!(read(&mut Cursor::new(dir.path().to_owned(), ask)), want);
    }

    #[test]
    fn all_of_it() {
        check(&[], ALL, &[]);
        check(&[&["a", "!b", "c+"]], ALL, &["a", "!b", "c+"]);
        check(&[&["a"], &[], &["b"]], ALL, &["a", "b"]);
        check(&[&["a", "b", "!c"]], LogAsk { stdout: false, ..ALL }, &["!c"]);
        check(&[&["a", "b", "!c"]], LogAsk { stderr: false, ..ALL }, &["a", "b"]);
    }

    #[test]
    fn damage_costs_its_own_lines() {
        // Torn, then continued by a new process in the next file.
        check(&[&["a", "b~"], &["c"]], ALL, &["a", "c"]);
        check(&[&["a", "b~"]], ALL, &["a"]);
        // Torn, and written on in the same file: the line after it is lost with it.
        check(&[&["a", "b~", "c", "d"]], ALL, &["a", "d"]);
        let dir = log(&[&["a"], &["b"]]);
        let mut file = vec![b'x'; 3 * LOG_BLOCK_BYTES + 5];
        file.extend_from_slice(b"\n");
        file.extend_from_slice(&line(9, "after"));
        file.extend_from_slice(&[0; 4096]);
        fs::write(dir.path().join(file_name(1)), file).expect("a file");
        fs::write(dir.path().join("other"), "x").expect("a file");
        assert_eq!(read(&mut Cursor::new(dir.path().to_owned(), ALL)), ["after", "b"]);
        let tail = LogAsk { tail: Some(2), ..ALL };
        assert_eq!(read(&mut Cursor::new(dir.path().to_owned(), tail)), ["after", "b"]);
    }

    #[test]
    fn the_last_lines() {
        let files: &[&[&str]] = &[&["a", "b", "!c"], &["d", "!e", "f+"]];
        let tail = |lines| LogAsk { tail: Some(lines), ..ALL };
        check(files, tail(0), &[]);
        check(files, tail(1), &["f+"]);
        check(files, tail(2), &["!e", "f+"]);
        check(files, tail(4), &["!c", "d", "!e", "f+"]);
        check(files, tail(6), &["a", "b", "!c", "d", "!e", "f+"]);
        check(files, tail(u64::MAX), &["a", "b", "!c", "d", "!e", "f+"]);
        check(files, LogAsk { stdout: false, ..tail(2) }, &["!c", "!e"]);
        check(files, LogAsk { stderr: false, ..tail(2) }, &["d", "f+"]);
        // Pieces of one line are one line.
        check(&[&["x", "a+", "b+", "c", "y"]], tail(2), &["a+", "b+", "c", "y"]);
        check(&[&["x", "a+", "b"], &["c~"]], tail(1), &["a+", "b"]);
        check(&[], tail(3), &[]);
    }

    #[test]
    fn the_last_lines_of_a_long_log() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut bytes = Vec::new();
        for number in 0..5000 {
            bytes.extend_from_slice(&line(number, &format!("{number} {}", "x".repeat((number % 97) as usize * 80))));
        }
        fs::write(dir.path().join(file_name(1)), bytes).expect("a file");
        for lines in [1, 7, 500, 4999] {
            let ask = LogAsk { tail: Some(lines), ..ALL };
            let texts = read(&mut Cursor::new(dir.path().to_owned(), ask));
            assert_eq!(texts.len() as u64, lines);
            assert!(texts[0].starts_with(&format!("{} ", 5000 - lines)), "{}", texts[0]);
        }
    }

    #[test]
    fn from_when_until_when() {
        let files: &[&[&str]] = &[&["a", "b", "c"], &["d", "e", "f"]];
        let at = |nanos| Some(Wall::from_nanos(nanos));
        check(files, LogAsk { since: at(3), ..ALL }, &["c", "d", "e", "f"]);
        check(files, LogAsk { until: at(3), ..ALL }, &["a", "b"]);
        check(files, LogAsk { since: at(2), until: at(5), ..ALL }, &["b", "c", "d"]);
        check(files, LogAsk { since: at(9), ..ALL }, &[]);
        check(files, LogAsk { since: at(5), tail: Some(4), ..ALL }, &["e", "f"]);
        check(files, LogAsk { until: at(5), tail: Some(2), ..ALL }, &["c", "d"]);
    }

    #[test]
    fn a_reader_keeps_its_place_while_files_come_and_go() {
        let dir = log(&[&["a", "b"], &["c"]]);
        let mut cursor = Cursor::new(dir.path().to_owned(), ALL);
        assert_eq!(read(&mut cursor), ["a", "b", "c"]);
        let path = |number| dir.path().join(file_name(number));
        let append = |number, bytes: &[u8]| {
            let old = fs::read(path(number)).unwrap_or_default();
            // In place, as the log process does it.
            use std::io::Write;
            let file = fs::OpenOptions::new().append(true).create(true).open(path(number));
            file.and_then(|mut file| file.write_all(bytes)).expect("a file");
            old.len()
        };
        let half = line(7, "d");
        append(2, &half[..10]);
        assert_eq!(read(&mut cursor), [""; 0]);
        append(2, &half[10..]);
        append(3, &line(8, "e"));
        // Removed while it was read: its rest is still there.
        fs::remove_file(path(1)).expect("a file");
        fs::remove_file(path(2)).expect("a file");
        assert_eq!(read(&mut cursor), ["d", "e"]);
        append(9, &line(9, "f"));
        assert_eq!(read(&mut cursor), ["f"]);
    }

    #[test]
    fn a_log_without_a_writer_is_abandoned() {
        let dir = log(&[&["a"]]);
        let cursor = Cursor::new(dir.path().to_owned(), ALL);
        assert!(cursor.is_abandoned());
        let writer = File::open(dir.path()).expect("a directory");
        flock(&writer, FlockOperation::LockShared).expect("a lock");
        assert!(!cursor.is_abandoned());
        drop(writer);
        assert!(cursor.is_abandoned());
        // It is yet to come.
        assert!(!Cursor::new(dir.path().join("later"), ALL).is_abandoned());
    }

    proptest! {
        #[test]
        fn any_file_is_fine(
            files in proptest::collection::vec(proptest::collection::vec(prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..200),
                Just(line(5, "good")),
                Just(b"\n".to_vec()),
                Just(vec![0; LOG_BLOCK_BYTES]),
            ], 0..6), 0..3),
            tail in proptest::option::of(0..6_u64),
        ) {
            let dir = tempfile::tempdir().expect("a directory");
            for (number, parts) in files.iter().enumerate() {
                fs::write(dir.path().join(file_name(number as u64)), parts.concat()).expect("a file");
            }
            let texts = read(&mut Cursor::new(dir.path().to_owned(), LogAsk { tail, ..ALL }));
            prop_assert!(tail.is_none_or(|tail| texts.len() as u64 <= tail));
        }

        /// The last lines are the last of all lines.
        #[test]
        fn the_end_of_all(texts in proptest::collection::vec("[a-z]{0,3}[+]?|![a-z]{1,3}", 0..40), tail in 0..12_u64) {
            let files: Vec<Vec<&str>> = texts.chunks(7).map(|part| part.iter().map(String::as_str).collect()).collect();
            let files: Vec<&[&str]> = files.iter().map(Vec::as_slice).collect();
            let dir = log(&files);
            let all = read(&mut Cursor::new(dir.path().to_owned(), ALL));
            let last = read(&mut Cursor::new(dir.path().to_owned(), LogAsk { tail: Some(tail), ..ALL }));
            prop_assert!(all.ends_with(&last));
            let ended = |texts: &[String]| texts.iter().filter(|text| !text.ends_with('+')).count() as u64;
            prop_assert!(ended(&last) <= tail && (ended(&last) + 2 >= tail || last.len() == all.len()));
        }
    }
}
