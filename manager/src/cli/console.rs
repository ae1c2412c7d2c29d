//! Where a command writes, how wide that is, and what time it is.

use std::io::{self, IsTerminal, Write};

use time::OffsetDateTime;

/// The outside of a command except for the network. Tests put buffers and a fixed clock in.
pub(crate) struct Console {
    /// Results.
    pub(crate) out: Box<dyn Write>,
    /// Warnings.
    pub(crate) err: Box<dyn Write>,
    /// Width of the terminal that `out` is; `None` when it is a file or a pipe.
    pub(crate) columns: Option<usize>,
    /// The wall clock.
    pub(crate) clock: Box<dyn Fn() -> OffsetDateTime>,
    /// An environment variable of the caller.
    pub(crate) env: fn(&str) -> Option<String>,
}

impl Console {
    /// The process's own.
    pub(crate) fn system() -> Console {
        let terminal = io::stdout().is_terminal();
        let columns = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        Console {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            columns: columns.filter(|width| terminal && *width > 0),
            clock: Box::new(OffsetDateTime::now_utc),
            env: |key| std::env::var(key).ok(),
        }
    }

    /// Writes one line of results.
    pub(crate) fn say(&mut self, line: impl AsRef<str>) -> io::Result<()> {
        writeln!(self.out, "{}", line.as_ref())
    }

    /// Writes one line of warning.
    pub(crate) fn warn(&mut self, line: impl AsRef<str>) -> io::Result<()> {
        writeln!(self.err, "{}", line.as_ref())
    }

    /// The wall clock's time.
    pub(crate) fn now(&self) -> OffsetDateTime {
        (self.clock)()
    }
}
