//! Where a command writes, how wide that is, and what time it is.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use time::OffsetDateTime;

/// More than anybody types to say yes or no.
const ANSWER_BYTES_MAX: u64 = 64;

/// The outside of a command except for the network. Tests put buffers and a fixed clock in.
pub(crate) struct Console {
    /// What the user types.
    pub(crate) input: Box<dyn BufRead>,
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
            // Locked only while it is read: commands read it themselves.
            input: Box::new(io::BufReader::new(io::stdin())),
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

    /// Asks; only y and yes are a yes.
    pub(crate) fn confirm(&mut self, question: &str) -> io::Result<bool> {
        write!(self.out, "{question} [y/N] ")?;
        self.out.flush()?;
        let mut line = String::new();
        self.input.by_ref().take(ANSWER_BYTES_MAX).read_line(&mut line)?;
        Ok(matches!(line.trim(), "y" | "Y" | "yes" | "Yes"))
    }

    /// The wall clock's time.
    pub(crate) fn now(&self) -> OffsetDateTime {
        (self.clock)()
    }
}
