//! The time that certificates are judged against.
//!
//! Boards have no clock chip: they boot in 1970, or wherever their last shutdown left them. So an agent never asks its
//! system clock: it judges at a floor, the latest of the build date, the begin of its own certificate and the last time
//! that it heard a manager to have signed at. The floor only rises.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use futures_rustls::rustls::pki_types::UnixTime;
use futures_rustls::rustls::time_provider::TimeProvider;

use crate::time::Wall;

/// When this program was built (`SOURCE_DATE_EPOCH` if that was set): no certificate that we judge is older.
pub const BUILT: Wall = Wall::from_nanos(seconds(env!("RACIMO_BUILD_EPOCH")) * 1_000_000_000);

/// A clock that never shows a time before its floor. Clones share the floor.
#[derive(Debug, Clone)]
pub struct TrustClock {
    floor: Arc<AtomicI64>,
    follows_system: bool,
}

impl TrustClock {
    /// A clock that stands at the build date or at `floor`, whichever is later, until it is raised.
    pub fn standing(floor: Wall) -> Self {
        Self { floor: Arc::new(AtomicI64::new(floor.max(BUILT).nanos())), follows_system: false }
    }

    /// A clock that shows the system's time, but none before the build date or `floor`.
    pub fn system(floor: Wall) -> Self {
        Self { follows_system: true, ..Self::standing(floor) }
    }

    /// Never shows a time before `to` any more.
    pub fn raise(&self, to: Wall) {
        self.floor.fetch_max(to.nanos(), Ordering::Relaxed);
    }

    /// What it shows when the system clock shows `system`.
    pub fn at(&self, system: Wall) -> Wall {
        let floor = Wall::from_nanos(self.floor.load(Ordering::Relaxed));
        if self.follows_system { system.max(floor) } else { floor }
    }
}

impl TimeProvider for TrustClock {
    fn current_time(&self) -> Option<UnixTime> {
        let now = self.at(Wall::system());
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
    use std::time::Duration;

    use super::*;

    #[test]
    fn shows_the_latest_of_what_counts() {
        let later = BUILT + Duration::from_secs(1000);
        let earlier = BUILT - Duration::from_secs(1000);
        for (floor, system, with_system, without) in [
            (Wall::default(), Wall::default(), BUILT, BUILT),
            (earlier, earlier, BUILT, BUILT),
            (later, Wall::default(), later, later),
            (earlier, later, later, BUILT),
        ] {
            assert_eq!(TrustClock::system(floor).at(system), with_system);
            assert_eq!(TrustClock::standing(floor).at(system), without);
        }
        // 2025: the constant was really filled in.
        assert!(BUILT > Wall::from_nanos(1_735_689_600_000_000_000));
    }

    #[test]
    fn the_floor_only_rises() {
        let later = BUILT + Duration::from_secs(1000);
        let (clock, system) = (TrustClock::standing(BUILT), Wall::default());
        let shared = clock.clone();
        shared.raise(later);
        shared.raise(BUILT);
        assert_eq!(clock.at(system), later);
    }
}
