//! What a container says: where it is kept, and how it is asked for.

use serde::{Deserialize, Serialize};

use crate::time::Wall;
use crate::units::Bytes;

/// Where a container's output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogConfig {
    /// Nowhere.
    None,
    /// Into files on the board.
    Files {
        /// Bytes of one file; then the next is begun.
        size_max: Bytes,
        /// Files kept; then the oldest goes.
        files_max: u32,
    },
}

impl Default for LogConfig {
    /// 10 MiB in two files: what a small card bears.
    fn default() -> Self {
        Self::Files { size_max: Bytes::mib(5), files_max: 2 }
    }
}

/// Which of a container's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a reader wants of a task's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogAsk {
    /// Whether what is said later is wanted too.
    pub follow: bool,
    /// Only so many of the last lines there are; none: all.
    pub tail: Option<u64>,
    /// Only what was said at or after this time.
    pub since: Option<Wall>,
    /// Only what was said before this time.
    pub until: Option<Wall>,
    /// Whether standard output is wanted.
    pub stdout: bool,
    /// Whether standard error is wanted.
    pub stderr: bool,
}

/// One line (or a piece of a long one) that a container said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// When, by the board's clock.
    pub at: Wall,
    /// Where.
    pub stream: LogStream,
    /// The bytes, with the newline if there was one.
    #[serde(with = "serde_bytes")]
    pub line: Vec<u8>,
}
