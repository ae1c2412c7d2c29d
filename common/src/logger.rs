//! Log lines on standard error, as systemd reads them: `<6>message`, or with a level's name on a terminal.
//!
//! The time of a line is the journal's. A board has no clock chip, so it may be a guess; then the line begins with a mark.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::time::{Clock, Wall};
use crate::tls::BUILT;

struct Lines {
    terminal: bool,
}

static TERMINAL: Lines = Lines { terminal: true };
static JOURNAL: Lines = Lines { terminal: false };

/// systemd-timesyncd's directory, and the file in it that is there once the clock was set from the network. Where
/// another program sets the clock, only a clock before the build date is known to be wrong.
const TIMESYNC: &str = "/run/systemd/timesync";
const SYNCHRONIZED: &str = "synchronized";
/// Whether it was there: then it is not looked for any more.
static IS_SET: AtomicBool = AtomicBool::new(false);

/// Whether somebody set the clock, or nobody says that he will.
fn is_set(timesync: &Path) -> bool {
    timesync.join(SYNCHRONIZED).exists() || !timesync.exists()
}

/// What a line begins with whose time is a guess.
fn mark(clock: Wall, is_set: bool) -> &'static str {
    match (clock < BUILT, is_set) {
        (true, _) => "[clock not set] ",
        (false, false) => "[clock not synchronized] ",
        (false, true) => "",
    }
}

fn mark_now() -> &'static str {
    let set = IS_SET.load(Ordering::Relaxed) || is_set(Path::new(TIMESYNC));
    IS_SET.store(set, Ordering::Relaxed);
    mark(Clock::start().now().wall, set)
}

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
        let mark = mark_now();
        let line =
            if self.terminal { format!("{name}: {mark}{text}\n") } else { format!("<{priority}>{mark}{text}\n") };
        // Nobody reads: nothing to be done about it.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_that_are_guesses_are_marked() {
        assert_eq!(mark(Wall::default(), false), "[clock not set] ");
        assert_eq!(mark(BUILT - Duration::from_secs(1), true), "[clock not set] ");
        assert_eq!(mark(BUILT, false), "[clock not synchronized] ");
        assert_eq!(mark(BUILT, true), "");
    }

    #[test]
    fn who_sets_the_clock_says_so() {
        let timesync = std::env::temp_dir().join(format!("racimo-timesync-{}", std::process::id()));
        assert!(is_set(&timesync), "another program may set it");
        std::fs::create_dir(&timesync).expect("a directory");
        assert!(!is_set(&timesync));
        std::fs::write(timesync.join(SYNCHRONIZED), "").expect("a file");
        assert!(is_set(&timesync));
        std::fs::remove_dir_all(&timesync).expect("our own");
    }
}
