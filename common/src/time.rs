//! Time as arguments: [`Mono`] for waiting, [`Wall`] for stamps, [`Now`] for both.
//!
//! Cores never read a clock. `Mono` never leaves the process; `Wall` is what is stored and sent,
//! and may be wrong on a board without a clock chip.

use std::ops::{Add, Sub};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Nanoseconds since the process's own starting point; only differences mean anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(u64);

/// Nanoseconds since 1970-01-01 UTC, by somebody's clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Wall(i64);

/// One reading of both clocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// For waiting.
    pub mono: Mono,
    /// For stamps.
    pub wall: Wall,
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

impl Mono {
    /// The instant this many nanoseconds after the starting point.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }
    /// Nanoseconds after the starting point.
    pub const fn nanos(self) -> u64 {
        self.0
    }
    /// How long after `earlier`; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Mono {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }
}

impl Wall {
    /// The stamp this many nanoseconds after 1970.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }
    /// Nanoseconds since 1970.
    pub const fn nanos(self) -> i64 {
        self.0
    }
    /// How long after `earlier`; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Add<Duration> for Wall {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Wall {
    type Output = Self;
    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)))
    }
}

/// The machine's clocks; shells read it, cores get its readings.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock whose [`Mono`] starts now.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Both clocks, now.
    pub fn now(&self) -> Now {
        let wall = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => Wall::default() + after,
            Err(before) => Wall::default() - before.duration(),
        };
        Now { mono: Mono(nanos(self.start.elapsed())), wall }
    }

    /// The instant of a [`Mono`] of this clock, for timers.
    pub fn instant(&self, at: Mono) -> Instant {
        self.start + Duration::from_nanos(at.0)
    }
}
