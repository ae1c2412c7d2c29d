//! Log lines that peers and clients cause: one per cause and minute, and the sums of what was left out.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use log::Level;
use racimo_common::id::NodeId;
use racimo_common::quiet::{QUIET_FOR, Quiet};
use racimo_common::time::Clock;

use super::Source;
use crate::limits::{NOTE_BYTES_MAX, NOTES_MAX};

/// Who caused a line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Somebody at this address.
    Source(Source),
    /// A member.
    Node(NodeId),
    /// Everybody together.
    All,
}

impl From<Source> for Cause {
    fn from(source: Source) -> Self {
        Self::Source(source)
    }
}

impl From<NodeId> for Cause {
    fn from(node: NodeId) -> Self {
        Self::Node(node)
    }
}

/// See the module; clones are the same.
#[derive(Debug, Clone)]
pub struct Notes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    said: Mutex<Said>,
}

#[derive(Debug)]
struct Said {
    quiet: Quiet<(Cause, &'static str)>,
    /// What was left out in this minute, by reason.
    left_out: BTreeMap<&'static str, u64>,
}

impl Notes {
    /// Nothing was said yet.
    pub fn new(clock: Clock) -> Self {
        let said = Said { quiet: Quiet::new(NOTES_MAX), left_out: BTreeMap::new() };
        Self(Arc::new(Inner { clock, said: Mutex::new(said) }))
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        self.0.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line, unless one was logged for this `cause` and `reason` within the last minute. `reason` is one of a few.
    pub fn say(&self, level: Level, cause: impl Into<Cause>, reason: &'static str, text: impl fmt::Display) {
        let now = self.0.clock.now().mono;
        let mut said = self.lock();
        let verdict = said.quiet.judge((cause.into(), reason), now);
        if verdict.is_none() {
            *said.left_out.entry(reason).or_default() += 1;
        }
        drop(said);
        let text = || {
            // It may quote what a peer sent.
            let mut text = text.to_string();
            let end = (0..=NOTE_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at));
            text.truncate(end.unwrap_or_default());
            text
        };
        match verdict {
            Some(0) => log::log!(level, "{}", text()),
            Some(more) => log::log!(level, "{} (and {more} times more since the last such line)", text()),
            None => {}
        }
    }

    /// What was left out since the last call: `812 × bad frame, 3 × wrong token`.
    pub fn sums(&self) -> Option<String> {
        let left_out = std::mem::take(&mut self.lock().left_out);
        let sums: Vec<_> = left_out.iter().map(|(reason, count)| format!("{count} × {reason}")).collect();
        (!sums.is_empty()).then(|| sums.join(", "))
    }

    /// Logs the sums of each minute in which something was left out.
    pub async fn run(self) {
        loop {
            smol::Timer::after(QUIET_FOR).await;
            if let Some(sums) = self.sums() {
                log::warn!("peers caused more lines than are logged, in the last minute: {sums}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_counted() {
        let notes = Notes::new(Clock::start());
        let source = Source::of([192, 0, 2, 1].into());
        for _ in 0..5 {
            notes.say(Level::Warn, source, "bad frame", "x");
        }
        notes.say(Level::Warn, source, "wrong token", "x");
        notes.say(Level::Warn, Cause::All, "bad frame", "x");
        assert_eq!(notes.sums().as_deref(), Some("4 × bad frame"));
        assert_eq!(notes.sums(), None);
        // As many causes as there may be, and one more.
        for number in 0..NOTES_MAX as u64 {
            notes.say(Level::Info, Source::V6(number), "bad frame", "x");
        }
        assert_eq!(notes.sums().as_deref(), Some("3 × bad frame"));
    }
}
