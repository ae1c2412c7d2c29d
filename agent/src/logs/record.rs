//! One line of a log file. Pure.
//!
//! ```text
//! 2026-11-20T11:16:17.387509526Z o  said\n      a line of standard output
//! 2026-11-20T11:16:17.387509526Z e  said\n      of standard error
//! 2026-11-20T11:16:17.387509526Z o+ said\n      a piece: the line goes on, or the program never ended it
//! └──────────── 30 ────────────┘ └2┘ bytes without a newline
//! ```
//! Nothing in a line can look like the next one, so what a crash or a bad card has damaged costs its own lines only.

use racimo_common::object::{LogEntry, LogStream};
use racimo_common::time::{STAMP_BYTES, Wall};

/// Bytes before what was said.
pub const HEAD_BYTES: usize = STAMP_BYTES + 4;

/// A line of a log file, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// When it was said.
    pub at: Wall,
    /// Where.
    pub stream: LogStream,
    /// Whether a newline followed in what was said.
    pub ends: bool,
    /// What was said, without the newline.
    pub said: &'a [u8],
}

impl<'a> Record<'a> {
    /// Bytes it takes in a file.
    pub fn size(&self) -> usize {
        HEAD_BYTES + self.said.len() + 1
    }

    /// Writes it, newline and all. `said` must have none.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.at.rfc3339());
        out.extend_from_slice(match (self.stream, self.ends) {
            (LogStream::Stdout, true) => b" o  ",
            (LogStream::Stdout, false) => b" o+ ",
            (LogStream::Stderr, true) => b" e  ",
            (LogStream::Stderr, false) => b" e+ ",
        });
        out.extend_from_slice(self.said);
        out.push(b'\n');
    }

    /// Reads a line without its newline; none if it is damaged.
    pub fn read(line: &'a [u8]) -> Option<Self> {
        let (head, said) = line.split_at_checked(HEAD_BYTES)?;
        let (stamp, marks) = head.split_at_checked(STAMP_BYTES)?;
        let (stream, ends) = match marks {
            b" o  " => (LogStream::Stdout, true),
            b" o+ " => (LogStream::Stdout, false),
            b" e  " => (LogStream::Stderr, true),
            b" e+ " => (LogStream::Stderr, false),
            _ => return None,
        };
        Some(Self { at: Wall::from_rfc3339(stamp)?, stream, ends, said })
    }

    /// As it goes to a reader.
    pub fn entry(&self) -> LogEntry {
        let mut line = Vec::with_capacity(self.said.len() + 1);
        line.extend_from_slice(self.said);
        if self.ends {
            line.push(b'\n');
        }
        LogEntry { at: self.at, stream: self.stream, line }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(stream: LogStream, ends: bool, said: &[u8], want: &[u8]) {
        let record = Record { at: Wall::from_nanos(1_795_173_377_387_509_526), stream, ends, said };
        let mut bytes = Vec::new();
        record.write(&mut bytes);
        assert_eq!((&*bytes, bytes.len()), (want, record.size()));
        assert_eq!(Record::read(&bytes[..bytes.len() - 1]), Some(record));
    }

    #[test]
    fn lines() {
        check(LogStream::Stdout, true, b"a b", b"2026-11-20T11:16:17.387509526Z o  a b\n");
        check(LogStream::Stderr, true, b"", b"2026-11-20T11:16:17.387509526Z e  \n");
        check(LogStream::Stdout, false, b"\xff\0", b"2026-11-20T11:16:17.387509526Z o+ \xff\0\n");
        check(LogStream::Stderr, false, b"x", b"2026-11-20T11:16:17.387509526Z e+ x\n");
    }

    #[test]
    fn damage() {
        for line in [
            &b""[..],
            b"2026-11-20T11:16:17.387509526Z o ",
            b"2026-11-20T11:16:17.387509526Z x  said",
            b"2026-11-20T11:16:17.387509526Zo   said",
            b"026-11-20T11:16:17.387509526Z o  said",
            b"said",
            &[0; 200],
        ] {
            assert_eq!(Record::read(line), None, "{}", String::from_utf8_lossy(line));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_fine(bytes in proptest::collection::vec(any::<u8>(), 0..80), cut in 0..40_usize) {
            let _ = Record::read(&bytes);
            let mut line = b"2026-11-20T11:16:17.387509526Z o  said".to_vec();
            line.splice(..cut.min(line.len()), bytes);
            let _ = Record::read(&line);
        }
    }
}
