//! The log process: `pi-agent log ORDER`, started by containerd's shim for one container.
//!
//! Descriptor 3 is the container's standard output, 4 its standard error; closing 5 says that we are ready. It ends
//! when both outputs have ended, which is when the container's process is deleted, or soon after SIGTERM. It never
//! fails: a container whose log cannot be kept runs all the same. There may be a hundred of these on a board, so it
//! starts nothing that it does not need: no runtime, no thread, no logger.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use racimo_common::object::LogStream;
use racimo_common::time::Clock;
use rustix::fs::{FlockOperation, flock};

use super::lines::Lines;
use super::writer::{Disk, Writer};
use super::{file_name, number};
use crate::limits;
use crate::sys;

/// What a log process is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Where the log goes; made if it is missing.
    pub dir: PathBuf,
    /// Bytes of one file.
    pub size_max: u64,
    /// Files that are kept.
    pub files_max: u32,
}

impl Order {
    /// `5242880,2,/var/lib/racimo/agent/logs/…`.
    pub fn argument(&self) -> OsString {
        let mut bytes = format!("{},{},", self.size_max, self.files_max).into_bytes();
        bytes.extend_from_slice(self.dir.as_os_str().as_bytes());
        OsString::from_vec(bytes)
    }

    /// Undoes [`Order::argument`].
    pub fn parse(argument: &OsStr) -> Option<Self> {
        let mut parts = argument.as_bytes().splitn(3, |byte| *byte == b',');
        let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse::<u64>().ok();
        let (size_max, files_max) = (number()?, number()?.try_into().ok()?);
        let dir = PathBuf::from(OsStr::from_bytes(parts.next()?));
        dir.is_absolute().then_some(Self { dir, size_max, files_max })
    }
}

/// Runs until the container's output has ended; `argument`: the order.
pub fn run(argument: Option<&OsStr>) -> Result<(), &'static str> {
    let order = argument.and_then(Order::parse).ok_or("log: this mode is for containerd's shim")?;
    sys::catch_termination();
    let outputs = [sys::inherited(3), sys::inherited(4)];
    let directory = Directory { path: order.dir, lock: None };
    let mut writer = Writer::new(directory, order.size_max, order.files_max);
    writer.begin_now();
    // The container may start.
    drop(sys::inherited(5));
    copy(outputs, &mut writer);
    Ok(())
}

/// One output while it is open.
struct Output {
    file: File,
    stream: LogStream,
    lines: Lines,
}

fn copy(outputs: [Option<File>; 2], writer: &mut Writer<impl Disk>) {
    let clock = Clock::start();
    let streams = [LogStream::Stdout, LogStream::Stderr];
    let mut outputs: Vec<Output> = outputs
        .into_iter()
        .zip(streams)
        .filter_map(|(file, stream)| Some(Output { file: file?, stream, lines: Lines::default() }))
        .collect();
    let mut bytes = [0; 4096];
    let mut flushed: Option<Instant> = None;
    let mut end_by: Option<Instant> = None;
    while !outputs.is_empty() && end_by.is_none_or(|by| Instant::now() < by) {
        let now = Instant::now();
        let flush_at = flushed.filter(|_| writer.is_waiting()).map(|at| at + limits::LOG_FLUSH_EVERY);
        let until = [flush_at, end_by].into_iter().flatten().min();
        let files: Vec<&File> = outputs.iter().map(|output| &output.file).collect();
        let woken = sys::wait_readable(&files, until.map(|at| at.saturating_duration_since(now)));
        if woken.terminated {
            end_by.get_or_insert_with(|| Instant::now() + limits::LOG_END_MAX);
        }
        outputs = outputs
            .into_iter()
            .zip(woken.readable)
            .filter_map(|(mut output, readable)| {
                let is_open = !readable || take(&mut output, &mut bytes, writer, &clock);
                is_open.then_some(output)
            })
            .collect();
        // The first line after a pause is written at once, further ones together.
        let due = flushed.is_none_or(|at| at.elapsed() >= limits::LOG_FLUSH_EVERY);
        if writer.is_waiting() && due {
            writer.flush(clock.now().wall);
            flushed = Some(Instant::now());
        }
    }
    for output in &mut outputs {
        finish(output, writer, &clock);
    }
    writer.flush(clock.now().wall);
}

/// Reads what is there; false: the output has ended.
fn take(output: &mut Output, bytes: &mut [u8], writer: &mut Writer<impl Disk>, clock: &Clock) -> bool {
    let count = match (&output.file).read(bytes) {
        Ok(count) if count > 0 => count,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
        // The end, or a terminal that is gone.
        Ok(_) | Err(_) => {
            finish(output, writer, clock);
            return false;
        }
    };
    let at = clock.now().wall;
    let stream = output.stream;
    output.lines.take(&bytes[..count], |said, ends| writer.push(at, stream, ends, said));
    true
}

fn finish(output: &mut Output, writer: &mut Writer<impl Disk>, clock: &Clock) {
    let (at, stream) = (clock.now().wall, output.stream);
    output.lines.end(|said, ends| writer.push(at, stream, ends, said));
}

/// The task's directory.
struct Directory {
    path: PathBuf,
    /// Held while this process lives: so readers know that more may come.
    lock: Option<File>,
}

impl Disk for Directory {
    type File = File;

    fn numbers(&mut self) -> io::Result<Vec<u64>> {
        if self.lock.is_none() {
            self.lock = Some(lock(&self.path)?);
        }
        numbers(&self.path)
    }

    fn create(&mut self, number: u64) -> io::Result<File> {
        let path = self.path.join(file_name(number));
        OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)
    }

    fn write(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<usize> {
        file.write(bytes)
    }

    fn remove(&mut self, number: u64) -> io::Result<()> {
        match fs::remove_file(self.path.join(file_name(number))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn lock(path: &Path) -> io::Result<File> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let directory = File::open(path)?;
    // Somebody who looks whether it is held holds it himself for that moment.
    flock(&directory, FlockOperation::LockShared)?;
    Ok(directory)
}

/// The numbers of a log's files, in no particular order.
///
/// # Errors
/// The directory cannot be read.
pub fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        numbers.extend(number(&entry?.file_name()));
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_come_back() {
        let order = Order { dir: "/data/a,b/ü".into(), size_max: 5 << 20, files_max: 2 };
        assert_eq!(order.argument(), "5242880,2,/data/a,b/ü");
        assert_eq!(Order::parse(&order.argument()), Some(order));
        for bad in ["", "1", "1,2", "1,2,", "1,2,relative", "x,2,/d", "1,99999999999,/d", "-1,2,/d"] {
            assert_eq!(Order::parse(bad.as_ref()), None, "{bad}");
        }
    }

    #[test]
    fn both_outputs_are_kept_until_they_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("deep/task");
        let pipe = |text: &str| {
            let (reader, mut writer) = io::pipe().expect("a pipe");
            writer.write_all(text.as_bytes()).expect("room in the pipe");
            Some(File::from(std::os::fd::OwnedFd::from(reader)))
        };
        let mut writer = Writer::new(Directory { path: path.clone(), lock: None }, 1 << 20, 2);
        copy([pipe("one\ntwo"), pipe("bad\n")], &mut writer);
        let text = fs::read_to_string(path.join("00000001.log")).expect("a log");
        let mut said: Vec<&str> = text.lines().map(|line| &line[30..]).collect();
        said.sort_unstable();
        assert_eq!(said, [" e  bad", " o  one", " o+ two"]);
    }
}
