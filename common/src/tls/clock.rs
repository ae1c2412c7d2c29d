//! The time that certificates are judged against.
//!
//! Boards have no clock chip and boot in 1970, so validity is judged against the latest of: the system clock, the
//! build date, and the last time a manager is known to have signed something.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_rustls::rustls::pki_types::UnixTime;
use futures_rustls::rustls::time_provider::TimeProvider;

use crate::time::Wall;

/// When this program was built (`SOURCE_DATE_EPOCH` if that was set): no certificate that we judge is older.
pub const BUILT: Wall = Wall::from_nanos(seconds(env!("RACIMO_BUILD_EPOCH")) * 1_000_000_000);

/// A clock that never shows a time before its floor.
#[derive(Debug, Clone, Copy)]
pub struct TrustClock {
    floor: Wall,
}

impl TrustClock {
    /// A clock that shows at least the build date and `last_signed`.
    pub fn new(last_signed: Wall) -> Self {
        Self { floor: last_signed.max(BUILT) }
    }

    /// What it shows when the system clock shows `system`.
    pub fn at(&self, system: Wall) -> Wall {
        system.max(self.floor)
    }
}

impl TimeProvider for TrustClock {
    fn current_time(&self) -> Option<UnixTime> {
        let system = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let now = self.at(Wall::default() + system);
        Some(UnixTime::since_unix_epoch(now.since(Wall::default())))
    }
}

/// Reads what the build script wrote.
const fn seconds(text: &str) -> i64 {
    let bytes = text.as_bytes();
    let mut value = 0i64;
    let mut i = 0;
    while i < bytes.len() {
        assert!(bytes[i].is_ascii_digit(), "RACIMO_BUILD_EPOCH: seconds since 1970");
        value = value * 10 + (bytes[i] - b'0') as i64;
        i += 1;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_latest_of_the_three() {
        let later = BUILT + Duration::from_secs(1000);
        let earlier = BUILT - Duration::from_secs(1000);
        for (signed, system, want) in [
            (Wall::default(), Wall::default(), BUILT),
            (earlier, earlier, BUILT),
            (later, Wall::default(), later),
            (earlier, later, later),
        ] {
            assert_eq!(TrustClock::new(signed).at(system), want);
        }
        // 2025: the constant was really filled in.
        assert!(BUILT > Wall::from_nanos(1_735_689_600_000_000_000));
    }
}
