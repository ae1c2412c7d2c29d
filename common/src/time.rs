//! Time as arguments: [`Mono`] for waiting, [`Wall`] for stamps, [`Now`] for both.
//!
//! Cores never read a clock. `Mono` never leaves the process; `Wall` is what is stored and sent,
//! and may be wrong on a board without a clock chip.

use std::ops::{Add, Range, Sub};
use std::time::{Duration, Instant};

#[cfg(target_pointer_width = "32")]
use rustix::time::{ClockId, clock_gettime};
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

impl Sub<Duration> for Mono {
    type Output = Self;
    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(span)))
    }
}

impl Wall {
    /// The stamp this many nanoseconds after 1970.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }
    /// What the system's clock shows. `SystemTime::now` panics from 2038 on where seconds have 32 bits: on ARMv7.
    #[cfg(target_pointer_width = "32")]
    pub fn system() -> Self {
        let shown = clock_gettime(ClockId::Realtime);
        Self(shown.tv_sec.saturating_mul(1_000_000_000).saturating_add(shown.tv_nsec))
    }
    /// What the system's clock shows. By the C library, so that tests can shift it (libfaketime).
    #[cfg(not(target_pointer_width = "32"))]
    pub fn system() -> Self {
        let nanos = |span: Duration| i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
        match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => Self(nanos(since)),
            Err(before) => Self(nanos(before.duration()).saturating_neg()),
        }
    }
    /// Nanoseconds since 1970.
    pub const fn nanos(self) -> i64 {
        self.0
    }
    /// How long after `earlier`; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// `2026-11-20T11:16:17.387509526Z`: always as long as that, so that texts sort as times do.
    pub fn rfc3339(self) -> [u8; STAMP_BYTES] {
        let (days, nanos) = (self.0.div_euclid(DAY_NANOS), self.0.rem_euclid(DAY_NANOS));
        let (year, month, day) = date(days);
        let seconds = nanos / 1_000_000_000;
        let mut text = *b"0000-00-00T00:00:00.000000000Z";
        let fields = [
            (0..4, year),
            (5..7, month),
            (8..10, day),
            (11..13, seconds / 3600),
            (14..16, seconds / 60 % 60),
            (17..19, seconds % 60),
            (20..29, nanos % 1_000_000_000),
        ];
        for (place, mut number) in fields {
            for digit in text[place].iter_mut().rev() {
                *digit += u8::try_from(number % 10).unwrap_or(0);
                number /= 10;
            }
        }
        text
    }

    /// Undoes [`Wall::rfc3339`]; none for any other text, and for a date that does not exist.
    pub fn from_rfc3339(text: &[u8]) -> Option<Self> {
        let text: &[u8; STAMP_BYTES] = text.try_into().ok()?;
        let number = |place: Range<usize>| {
            text[place]
                .iter()
                .try_fold(0_i64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
        };
        let days = days(number(0..4)?, number(5..7)?, number(8..10)?);
        let seconds = number(11..13)? * 3600 + number(14..16)? * 60 + number(17..19)?;
        // The first day there is begins before the first stamp.
        let nanos = i128::from(days) * i128::from(DAY_NANOS) + i128::from(seconds * 1_000_000_000 + number(20..29)?);
        let nanos = i64::try_from(nanos).ok()?;
        // Punctuation, months and hours are right if it would be written the same way.
        Some(Self(nanos)).filter(|stamp| stamp.rfc3339() == *text)
    }
}

/// Bytes of a stamp in words.
pub const STAMP_BYTES: usize = 30;
const DAY_NANOS: i64 = 86_400 * 1_000_000_000;

/// Year, month and day of a number of days since 1970. From "chrono-Compatible Low-Level Date Algorithms" (Howard
/// Hinnant): a year begins in March there, so that the leap day is its last.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day = days.rem_euclid(146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// Undoes [`date`].
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let month = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
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
        Now { mono: Mono(nanos(self.start.elapsed())), wall: Wall::system() }
    }

    /// The instant of a [`Mono`] of this clock, for timers.
    pub fn instant(&self, at: Mono) -> Instant {
        self.start + Duration::from_nanos(at.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_systems_clock() {
        let since_1970 = || {
            let shown = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            Wall::default() + shown.expect("this machine's clock is after 1970")
        };
        let (before, shown, after) = (since_1970(), Wall::system(), since_1970());
        assert!(before <= shown && shown <= after, "{before:?} {shown:?} {after:?}");
    }

    #[track_caller]
    fn check(nanos: i64, text: &str) {
        assert_eq!(std::str::from_utf8(&Wall::from_nanos(nanos).rfc3339()), Ok(text));
        assert_eq!(Wall::from_rfc3339(text.as_bytes()), Some(Wall::from_nanos(nanos)));
    }

    #[test]
    fn stamps_in_words() {
        check(0, "1970-01-01T00:00:00.000000000Z");
        check(-1, "1969-12-31T23:59:59.999999999Z");
        check(1_795_173_377_387_509_526, "2026-11-20T11:16:17.387509526Z");
        check(951_782_400_000_000_001, "2000-02-29T00:00:00.000000001Z");
        check(i64::MAX, "2262-04-11T23:47:16.854775807Z");
        check(i64::MIN, "1677-09-21T00:12:43.145224192Z");
        for bad in [
            "",
            "2026-11-20T11:16:17Z",
            "2026-13-20T11:16:17.387509526Z",
            "2026-02-29T11:16:17.387509526Z",
            "2026-11-20T24:16:17.387509526Z",
            "2026-11-20 11:16:17.387509526Z",
            "2026-11-20T11:16:17.38750952+Z",
            "9999-11-20T11:16:17.387509526Z",
        ] {
            assert_eq!(Wall::from_rfc3339(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn stamps_come_back(nanos in any::<i64>()) {
            let stamp = Wall::from_nanos(nanos);
            prop_assert_eq!(Wall::from_rfc3339(&stamp.rfc3339()), Some(stamp));
        }

        #[test]
        fn any_text_is_fine(text in proptest::collection::vec(any::<u8>(), STAMP_BYTES)) {
            let _ = Wall::from_rfc3339(&text);
        }
    }
}
