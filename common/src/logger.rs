//! Log lines on standard error, as systemd reads them: `<6>message`, or with a level's name on a terminal.

use std::io::{IsTerminal, Write};

use log::{Level, LevelFilter, Log, Metadata, Record};

struct Lines {
    terminal: bool,
}

static TERMINAL: Lines = Lines { terminal: true };
static JOURNAL: Lines = Lines { terminal: false };

/// Starts logging; a second call only changes the level.
pub fn start(level: LevelFilter) {
    let lines = if std::io::stderr().is_terminal() { &TERMINAL } else { &JOURNAL };
    // Set already: somebody called twice.
    let _ = log::set_logger(lines);
    log::set_max_level(level);
}

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries only when something is wrong.
        metadata.target().starts_with("racimo")
            || metadata.target().starts_with("pi_")
            || metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // Priorities of syslog(3), which systemd reads.
        let (priority, name) = match record.level() {
            Level::Error => (3, "error"),
            Level::Warn => (4, "warning"),
            Level::Info => (6, "info"),
            Level::Debug | Level::Trace => (7, "debug"),
        };
        // A line must not look like two, whatever a peer sent us.
        let text = record.args().to_string().replace(|c: char| c.is_control(), " ");
        let line = if self.terminal { format!("{name}: {text}\n") } else { format!("<{priority}>{text}\n") };
        // Nobody reads: nothing to be done about it.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}
