//! Where a command writes, how wide that is, and what time it is.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use futures_lite::{StreamExt, future};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use time::OffsetDateTime;
use zeroize::Zeroizing;

/// More than anybody types to say yes or no.
const ANSWER_BYTES_MAX: u64 = 64;
/// More than any key or passphrase has.
const SECRET_BYTES_MAX: usize = 4096;
/// What a shell expects of a process that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// The outside of a command except for the network. Tests put buffers and a fixed clock in.
pub(crate) struct Console {
    /// What the user types.
    pub(crate) input: Box<dyn BufRead>,
    /// Whether it is typed on a terminal.
    pub(crate) is_typed: bool,
    /// Results.
    pub(crate) out: Box<dyn Write>,
    /// Whether `out` is a terminal.
    pub(crate) is_shown: bool,
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
            is_typed: io::stdin().is_terminal(),
            out: Box::new(io::stdout()),
            is_shown: terminal,
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

    /// Asks for a line that nobody shall see: no echo on a terminal, no question elsewhere.
    pub(crate) fn secret(&mut self, question: &str) -> io::Result<Zeroizing<String>> {
        let silent = if self.is_typed {
            write!(self.err, "{question}")?;
            self.err.flush()?;
            Some(Silent::begin()?)
        } else {
            None
        };
        // Its room is taken at once, so that no copy stays behind when it grows.
        let mut line = Zeroizing::new(String::with_capacity(SECRET_BYTES_MAX));
        let read = self.input.by_ref().take(SECRET_BYTES_MAX as u64).read_line(&mut line);
        if silent.is_some() {
            drop(silent);
            writeln!(self.err)?;
        }
        read.map(|_| line)
    }

    /// The wall clock's time.
    pub(crate) fn now(&self) -> OffsetDateTime {
        (self.clock)()
    }
}

/// While it lives the terminal of standard input does not show what is typed.
struct Silent(Termios);

impl Silent {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &quiet)?;
        // Ctrl-C ends the process without a word: then this puts it right. The thread ends with the process.
        let again = before.clone();
        if let Ok(mut signals) = async_signal::Signals::new([async_signal::Signal::Int]) {
            std::thread::spawn(move || {
                if future::block_on(signals.next()).is_some() {
                    let _ = tcsetattr(io::stdin(), OptionalActions::Now, &again);
                    std::process::exit(INTERRUPTED);
                }
            });
        }
        Ok(Self(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // There is no terminal any more: nothing is left to put right.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
