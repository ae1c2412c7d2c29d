//! A token bucket: so many at once, then so many a second.
//!
//! In: the [`Rate`], the time. Keeps one instant: when the bucket would be full again.

use std::time::Duration;

use racimo_common::time::Mono;

/// How much is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// At once, after a pause.
    pub burst: u32,
    /// How long until one more is allowed.
    pub every: Duration,
}

impl Rate {
    /// So many at once, then so many a second (at least one).
    pub const fn per_second(burst: u32, second: u32) -> Self {
        let second = if second == 0 { 1 } else { second };
        Self { burst, every: Duration::from_nanos(1_000_000_000 / second as u64) }
    }

    /// The same `times` over.
    pub const fn times(self, times: u32) -> Self {
        let parts = if times == 0 { 1 } else { times };
        let every = match self.every.checked_div(parts) {
            Some(every) => every,
            None => self.every,
        };
        Self { burst: self.burst.saturating_mul(times), every }
    }

    fn span(self, count: u32) -> Duration {
        self.every.saturating_mul(count)
    }
}

/// What was taken of a [`Rate`]; a new one is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bucket {
    /// When it is full again.
    full_at: Mono,
}

impl Bucket {
    /// Takes `count`, which is at most the burst; `Err`: nothing was taken, and how long until it can be.
    ///
    /// # Errors
    /// There is not enough in it.
    pub fn take(&mut self, rate: Rate, count: u32, now: Mono) -> Result<(), Duration> {
        let full_at = self.full_at.max(now) + rate.span(count);
        let over = full_at.since(now).saturating_sub(rate.span(rate.burst));
        if over > Duration::ZERO {
            return Err(over);
        }
        self.full_at = full_at;
        Ok(())
    }

    /// Takes `count` in any case, and may leave debt; how long until the debt is paid.
    pub fn charge(&mut self, rate: Rate, count: u32, now: Mono) -> Duration {
        self.full_at = self.full_at.max(now) + rate.span(count);
        self.full_at.since(now).saturating_sub(rate.span(rate.burst))
    }

    /// Takes `count`, or what there is.
    pub fn drain(&mut self, rate: Rate, count: u32, now: Mono) {
        let empty = now + rate.span(rate.burst);
        self.full_at = (self.full_at.max(now) + rate.span(count)).min(empty.max(self.full_at));
    }

    /// Gives back what was taken.
    pub fn refund(&mut self, rate: Rate, count: u32) {
        self.full_at = self.full_at - rate.span(count);
    }

    /// Whether nothing is missing.
    pub fn is_full(self, now: Mono) -> bool {
        self.full_at <= now
    }

    /// When nothing is missing any more.
    pub fn full_at(self) -> Mono {
        self.full_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Mono {
        Mono::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_burst_then_a_rate() {
        let rate = Rate::per_second(5, 10);
        let mut bucket = Bucket::default();
        for _ in 0..5 {
            assert_eq!(bucket.take(rate, 1, at(1000)), Ok(()));
        }
        assert_eq!(bucket.take(rate, 1, at(1000)), Err(Duration::from_millis(100)));
        assert_eq!(bucket.take(rate, 2, at(1000)), Err(Duration::from_millis(200)));
        assert_eq!(bucket.take(rate, 1, at(1100)), Ok(()));
        assert!(!bucket.is_full(at(1599)) && bucket.is_full(at(1600)));
        assert_eq!(bucket.take(rate, 5, at(9000)), Ok(()), "a pause fills it, and no further");
        assert_eq!(bucket.take(rate, 1, at(9000)), Err(Duration::from_millis(100)));
        bucket.refund(rate, 3);
        assert_eq!(bucket.take(rate, 3, at(9000)), Ok(()));
        assert_eq!(bucket.charge(rate, 5, at(9000)), Duration::from_millis(500));
        assert_eq!(bucket.take(rate, 1, at(9500)), Err(Duration::from_millis(100)));
    }

    #[test]
    fn as_much_as_there_is() {
        let rate = Rate::per_second(5, 10);
        let mut bucket = Bucket::default();
        bucket.drain(rate, 3, at(1000));
        assert_eq!(bucket.take(rate, 3, at(1000)), Err(Duration::from_millis(100)));
        bucket.drain(rate, 3, at(1000));
        assert_eq!(bucket.take(rate, 1, at(1000)), Err(Duration::from_millis(100)));
        let debt = bucket.charge(rate, 2, at(1000));
        bucket.drain(rate, 1, at(1000));
        assert_eq!(bucket.charge(rate, 0, at(1000)), debt, "a debt stays what it is");
    }

    #[test]
    fn odd_rates() {
        let rate = Rate::per_second(4, 0).times(2);
        assert_eq!(rate, Rate { burst: 8, every: Duration::from_millis(500) });
        let mut bucket = Bucket::default();
        bucket.refund(rate, u32::MAX);
        assert_eq!(bucket.take(rate, 9, at(0)), Err(Duration::from_millis(500)), "more than the burst never fits");
        assert!(bucket.charge(rate, u32::MAX, at(0)) > Duration::ZERO);
    }
}
