//! How fast a session may talk: faster ones wait, and so does what they send.
//!
//! In: the length of each message, the time. Out: how long to wait before the next is read. Then the kernel's buffers
//! fill, and the board's own sending stops.

use std::time::Duration;

use racimo_common::time::Mono;

use crate::gate::{Bucket, Rate};
use crate::limits::{
    SESSION_BYTES_BURST, SESSION_BYTES_PER_SECOND, SESSION_MESSAGES_BURST, SESSION_MESSAGES_PER_SECOND,
};

const MESSAGES: Rate = Rate::per_second(SESSION_MESSAGES_BURST, SESSION_MESSAGES_PER_SECOND);
/// In units of [`UNIT`] bytes.
const BYTES: Rate = Rate::per_second(SESSION_BYTES_BURST / UNIT, SESSION_BYTES_PER_SECOND / UNIT);
const UNIT: u32 = 64;

/// What a session has said lately.
#[derive(Debug, Default)]
pub(super) struct Pace {
    messages: Bucket,
    bytes: Bucket,
}

impl Pace {
    /// A message of so many bytes came: how long to wait before the next.
    pub(super) fn judge(&mut self, bytes: usize, now: Mono) -> Duration {
        let units = u32::try_from(bytes).unwrap_or(u32::MAX).div_ceil(UNIT);
        self.messages.charge(MESSAGES, 1, now).max(self.bytes.charge(BYTES, units, now))
    }
}

#[cfg(test)]
mod tests {
    use racimo_common::limits::FRAME_FROM_AGENT_MAX;

    use super::*;

    /// How many messages of this length a session gets through in ten seconds.
    fn count(bytes: usize) -> u32 {
        let (mut pace, mut now, mut count) = (Pace::default(), Mono::default(), 0);
        while now < Mono::default() + Duration::from_secs(10) {
            now = now + pace.judge(bytes, now);
            count += 1;
        }
        count
    }

    #[test]
    fn floods_wait() {
        let small = SESSION_MESSAGES_BURST + 10 * SESSION_MESSAGES_PER_SECOND;
        assert!((small..small + 3).contains(&count(20)), "{}", count(20));
        let large =
            (SESSION_BYTES_BURST + 10 * SESSION_BYTES_PER_SECOND) / u32::try_from(FRAME_FROM_AGENT_MAX).unwrap();
        assert!((large - 1..large + 3).contains(&count(FRAME_FROM_AGENT_MAX)), "{}", count(FRAME_FROM_AGENT_MAX));
    }

    #[test]
    fn heartbeats_and_full_reports_do_not() {
        let mut pace = Pace::default();
        let mut now = Mono::default();
        // A full report in a few large messages, then the shortest heartbeat, and reports all the time.
        for _ in 0..8 {
            assert_eq!(pace.judge(FRAME_FROM_AGENT_MAX, now), Duration::ZERO);
        }
        for _ in 0..10_000 {
            assert_eq!(pace.judge(12, now), Duration::ZERO);
            assert_eq!(pace.judge(3000, now), Duration::ZERO);
            now = now + Duration::from_millis(100);
        }
    }
}
