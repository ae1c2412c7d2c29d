//! Announced addresses: which to try, which to leave alone for a while.
//!
//! In: what was announced, how tries ended, the time. Out: at most [`HINTS_PER_ROUND`] addresses a round, drawn by lot, so
//! that nobody's announcements crowd out the manager's for long. One that led to somebody else rests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use crate::limits::{HINT_PAUSE, HINT_REST, HINTS_KEPT_MAX, HINTS_PER_ROUND};

/// What is known of announced addresses.
#[derive(Debug, Default)]
pub struct Hints {
    failed: BTreeMap<SocketAddr, Failed>,
}

#[derive(Debug)]
struct Failed {
    /// Not to be tried before this.
    until: Instant,
    /// Not to be told of before this.
    silent_until: Instant,
}

impl Hints {
    /// Which of those that were found to try now; `known` are dialled anyway.
    pub fn pick(
        &self,
        mut found: Vec<SocketAddr>,
        known: &[String],
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Vec<SocketAddr> {
        found.retain(|address| {
            let rests = self.failed.get(address).is_some_and(|failed| now < failed.until);
            !rests && !known.contains(&address.to_string())
        });
        rng.shuffle(&mut found);
        found.truncate(HINTS_PER_ROUND);
        found
    }

    /// A try came to nothing; whether to tell of it. `passing`: it may be the manager all the same.
    pub fn failed(&mut self, address: SocketAddr, passing: bool, now: Instant) -> bool {
        let until = now + if passing { HINT_PAUSE } else { HINT_REST };
        if let Some(failed) = self.failed.get_mut(&address) {
            failed.until = until;
            let tell = now >= failed.silent_until;
            if tell {
                failed.silent_until = now + HINT_REST;
            }
            return tell;
        }
        if self.failed.len() >= HINTS_KEPT_MAX {
            let soonest = self.failed.iter().min_by_key(|(_, failed)| failed.silent_until).map(|(address, _)| *address);
            soonest.and_then(|address| self.failed.remove(&address));
        }
        self.failed.insert(address, Failed { until, silent_until: now + HINT_REST });
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn address(last: u16) -> SocketAddr {
        let [high, low] = last.to_be_bytes();
        ([10, 0, high, low], 2377).into()
    }

    #[test]
    fn who_is_somebody_else_rests() {
        let (mut hints, now, mut rng) = (Hints::default(), Instant::now(), fastrand::Rng::with_seed(1));
        let mut pick = |hints: &Hints, after: u64| {
            let mut picked = hints.pick(
                vec![address(1), address(2), address(3)],
                &[address(3).to_string()],
                now + s(after),
                &mut rng,
            );
            picked.sort();
            picked
        };
        assert_eq!(pick(&hints, 0), [address(1), address(2)]);
        assert!(hints.failed(address(1), false, now), "told once");
        assert!(!hints.failed(address(1), false, now + s(59)), "and not again within a minute");
        assert!(hints.failed(address(2), true, now));
        assert_eq!(pick(&hints, 1), []);
        assert_eq!(pick(&hints, 10), [address(2)]);
        assert_eq!(pick(&hints, 120), [address(1), address(2)]);
        assert!(hints.failed(address(1), false, now + s(120)));
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Two hundred impostors: the real one is tried, and little is remembered.
    #[test]
    fn a_flood_does_not_hide_the_manager() {
        let (mut hints, now, mut rng) = (Hints::default(), Instant::now(), fastrand::Rng::with_seed(1));
        let all: Vec<SocketAddr> = (0..16).map(address).collect();
        let manager = address(7);
        let mut rounds = 0;
        loop {
            let picked = hints.pick(all.clone(), &[], now + s(rounds), &mut rng);
            assert!(picked.len() <= HINTS_PER_ROUND);
            if picked.contains(&manager) {
                break;
            }
            rounds += 1;
            picked.into_iter().for_each(|address| assert!(hints.failed(address, false, now + s(rounds)), "once"));
        }
        assert!(rounds <= 16 / u64::try_from(HINTS_PER_ROUND).unwrap(), "{rounds}");
        (0..1000).for_each(|n| assert!(hints.failed(address(n + 100), false, now)));
        assert_eq!(hints.failed.len(), HINTS_KEPT_MAX);
    }
}
