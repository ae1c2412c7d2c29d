//! When the manager was heard last, kept for the agent after this one: leases do not begin anew with it.
//!
//! ```text
//! <run>/heard    the kernel's boot id, and nanoseconds since it booted; 0: not heard since
//! ```
//! It is in memory (a tmpfs), and written only while a task with a lease is here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use racimo_common::time::Mono;
use rustix::time::{ClockId, clock_gettime};

use crate::limits;

/// What is kept.
pub(super) struct Memory {
    path: PathBuf,
    boot: String,
    /// Nanoseconds since the kernel booted, when this agent started.
    start: u64,
    /// What was found: how long before that the manager was heard.
    before: Option<Duration>,
    /// What was written last, and when.
    last: Option<(Mono, Mono)>,
}

impl Memory {
    /// What the agent before this one left. `boot`: the kernel's boot id; `start`: when this agent started.
    pub(super) fn read(run: &Path, boot: &str, start: u64) -> Self {
        let path = run.join("heard");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let heard = text.trim().split_once(' ').filter(|(of, _)| *of == boot && !boot.is_empty());
        let heard: Option<u64> = heard.and_then(|(_, nanos)| nanos.parse().ok());
        let before = heard.map(|heard| Duration::from_nanos(start.saturating_sub(heard)));
        Self { path, boot: boot.to_owned(), start, before, last: None }
    }

    /// How long before this agent's start the manager was heard; none: nobody knows.
    pub(super) fn before(&self) -> Option<Duration> {
        self.before
    }

    /// The manager was heard at this time, by this agent's clock; at its zero: not yet.
    pub(super) fn keep(&mut self, heard: Mono, now: Mono) {
        let is_known = match self.last {
            Some((known, at)) => known == heard || now.since(at) < limits::HEARD_EVERY,
            None => heard == Mono::default() && self.before.is_some(),
        };
        if is_known {
            return;
        }
        self.last = Some((heard, now));
        let nanos = if heard == Mono::default() { 0 } else { self.start.saturating_add(heard.nanos()) };
        if let Err(error) = self.write(nanos) {
            log::warn!("{}: {error}: the next agent stops tasks with a lease early", self.path.display());
        }
    }

    fn write(&self, nanos: u64) -> io::Result<()> {
        let new = self.path.with_extension("new");
        fs::write(&new, format!("{} {nanos}\n", self.boot))?;
        fs::rename(&new, &self.path)
    }
}

/// Nanoseconds since the kernel booted, when the clock of this agent was at zero; `now`: what it shows.
pub(super) fn start(now: Mono) -> u64 {
    let shown = clock_gettime(ClockId::Boottime);
    let nanos = shown.tv_sec.saturating_mul(1_000_000_000).saturating_add(shown.tv_nsec);
    u64::try_from(nanos).unwrap_or(0).saturating_sub(now.nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(second: u64) -> Mono {
        Mono::from_nanos(second * SECOND)
    }

    #[test]
    fn the_next_agent_knows_when_the_manager_was_heard() {
        let run = tempfile::tempdir().unwrap();
        let read = |boot: &str, second: u64| Memory::read(run.path(), boot, second * SECOND);
        let mut first = read("a", 100);
        assert_eq!(first.before(), None);
        // Heard 7 s after its start, at 107 s; what comes at once is not written.
        first.keep(at(7), at(8));
        first.keep(at(9), at(9));
        assert_eq!(read("a", 120).before(), Some(Duration::from_secs(13)));
        first.keep(at(11), at(12));
        assert_eq!(read("a", 120).before(), Some(Duration::from_secs(9)));
        assert_eq!(read("b", 5).before(), None, "another boot");
        // One that has not heard it leaves what is known.
        let mut second = read("a", 120);
        second.keep(at(0), at(1));
        assert_eq!(read("a", 130).before(), Some(Duration::from_secs(19)));
    }

    #[test]
    fn what_nobody_knows_is_said_once() {
        let run = tempfile::tempdir().unwrap();
        let mut first = Memory::read(run.path(), "a", 100 * SECOND);
        first.keep(at(0), at(1));
        assert_eq!(Memory::read(run.path(), "a", 200 * SECOND).before(), Some(Duration::from_secs(200)));
        fs::write(run.path().join("heard"), "a x").unwrap();
        assert_eq!(Memory::read(run.path(), "a", 200 * SECOND).before(), None);
    }

    #[test]
    fn the_clock_is_the_kernels() {
        let (zero, later) = (start(Mono::default()), start(at(1)));
        assert!(zero >= later && later + 2 * SECOND > zero, "{zero} {later}");
    }
}
