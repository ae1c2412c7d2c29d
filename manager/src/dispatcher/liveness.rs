//! Is a node still there?
//!
//! In: when it was heard, how regular its heartbeats are, `Mono`. Out: a [`Verdict`]. Keeps nothing but the link's record.
//!
//! ```text
//! Alive ─ a window learnt from the link's jitter passes ─▶ Suspect ─ 3..10 s of silence ─▶ Down
//!   └─ connection closed ─ 6 s, or 3 heartbeats ─▶ Down          └─ orderly leave ─▶ Down at once
//! ```
//! While a session opens the manager may wait for its own disk, which is nobody's silence; once the board was let in it
//! has as long for its first word as after a start of the manager.
//!
//! The bounds keep a 1.3 s Wi-Fi power-save stall from flapping anything (DESIGN §2, "Liveness").

use std::time::Duration;

use racimo_common::time::Mono;

use crate::limits::MOVED_GRACE;

/// Least silence that writes a node off, at the default heartbeat of 1 s.
pub const SILENCE_MIN: Duration = Duration::from_secs(3);
/// Most silence a node is granted, at the default heartbeat of 1 s.
pub const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long a node may take to come back after its connection closed, at the default heartbeat of 1 s: its agent may be
/// restarting, on a slow board with another version of its package. Three periods if that is longer, as with silence:
/// who grants slow boards more of it grants it here too.
pub const RECONNECT_GRACE: Duration = Duration::from_secs(6);
/// How long a new leader waits for a node before it writes it off.
pub const START_GRACE: Duration = Duration::from_secs(20);

/// What to think of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is amiss; judge again then.
    Alive(Mono),
    /// A heartbeat is overdue; judge again then.
    Suspect(Mono),
    /// It is gone.
    Down(Cause),
}

/// Why a node is written off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Silence.
    Heartbeat,
    /// Its connection closed and it did not come back.
    Closed,
    /// It said that it leaves.
    Left,
    /// It has not been heard of since the manager started.
    NeverSeen,
}

impl Cause {
    /// The reason as `node inspect` shows it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Heartbeat => "heartbeat failure",
            Self::Closed => "connection closed",
            Self::Left => "node left",
            Self::NeverSeen => "not heard of since the manager started",
        }
    }
}

/// The record of one node's link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    state: LinkState,
    /// Smoothed time between two signs of life, and how far it strays, nanoseconds (RFC 6298's estimator).
    gap: Option<(u64, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkState {
    Expected {
        since: Mono,
        grace: Duration,
    },
    /// A session opens, and its board waits for the manager.
    Opening,
    /// Its board was let in, and has said nothing yet.
    Welcomed {
        at: Mono,
    },
    Open {
        heard: Mono,
    },
    /// Open, but the way to us may be cut: our address changed.
    Lost {
        at: Mono,
    },
    Closed {
        at: Mono,
    },
    Left,
}

impl Link {
    /// A node the leader knows of but has not heard.
    pub fn expected(now: Mono) -> Self {
        Self { state: LinkState::Expected { since: now, grace: START_GRACE }, gap: None }
    }

    /// A session opens: until its board hears so, the silence is the manager's.
    pub fn opens(&mut self) {
        self.state = LinkState::Opening;
    }

    /// Its board was let in.
    pub fn welcomed(&mut self, now: Mono) {
        if self.state == LinkState::Opening {
            self.state = LinkState::Welcomed { at: now };
        }
    }

    /// The manager is not where it was: the node's silence is no sign until it had time to find it.
    pub fn lost(&mut self, now: Mono) {
        match self.state {
            LinkState::Left => {}
            LinkState::Expected { .. } => self.state = LinkState::Expected { since: now, grace: MOVED_GRACE },
            LinkState::Opening
            | LinkState::Welcomed { .. }
            | LinkState::Open { .. }
            | LinkState::Lost { .. }
            | LinkState::Closed { .. } => self.state = LinkState::Lost { at: now },
        }
    }

    /// The node was heard; whether that is judged sooner than its silence was before, as it had more time until now.
    pub fn heard(&mut self, now: Mono) -> bool {
        if matches!(self.state, LinkState::Opening | LinkState::Welcomed { .. } | LinkState::Lost { .. }) {
            self.state = LinkState::Open { heard: now };
            return true;
        }
        if let LinkState::Open { heard } = self.state {
            let sample = u64::try_from(now.since(heard).as_nanos()).unwrap_or(u64::MAX);
            self.gap = Some(match self.gap {
                None => (sample, sample / 2),
                Some((mean, dev)) => (mean / 8 * 7 + sample / 8, dev / 4 * 3 + sample.abs_diff(mean) / 4),
            });
            self.state = LinkState::Open { heard: now };
        }
        false
    }

    /// The session ended without a word.
    pub fn closed(&mut self, now: Mono) {
        if matches!(self.state, LinkState::Opening | LinkState::Welcomed { .. } | LinkState::Open { .. }) {
            self.state = LinkState::Closed { at: now };
        }
    }

    /// The node leaves the cluster.
    pub fn left(&mut self) {
        self.state = LinkState::Left;
    }

    /// The manager itself stood still for `span`: that silence is not the node's.
    pub fn forgive(&mut self, span: Duration, now: Mono) {
        match &mut self.state {
            LinkState::Expected { since: at, .. }
            | LinkState::Welcomed { at }
            | LinkState::Open { heard: at }
            | LinkState::Lost { at }
            | LinkState::Closed { at } => {
                *at = (*at + span).min(now);
            }
            LinkState::Opening | LinkState::Left => {}
        }
    }

    #[cfg(test)]
    fn is_open(&self) -> bool {
        match self.state {
            LinkState::Opening | LinkState::Welcomed { .. } | LinkState::Open { .. } | LinkState::Lost { .. } => true,
            LinkState::Expected { .. } | LinkState::Closed { .. } | LinkState::Left => false,
        }
    }

    /// Whether a session was ever open.
    pub fn was_open(&self) -> bool {
        !matches!(self.state, LinkState::Expected { .. })
    }

    /// Judges the node. `period`: the heartbeat it was told.
    pub fn judge(&self, period: Duration, now: Mono) -> Verdict {
        let until = |deadline: Mono, cause: Cause| {
            if deadline <= now { Verdict::Down(cause) } else { Verdict::Alive(deadline) }
        };
        match self.state {
            LinkState::Left => Verdict::Down(Cause::Left),
            LinkState::Opening => Verdict::Alive(now + START_GRACE),
            LinkState::Welcomed { at } => until(at + START_GRACE.max(period * 6), Cause::Heartbeat),
            LinkState::Expected { since, grace } => until(since + grace.max(period * 6), Cause::NeverSeen),
            LinkState::Closed { at } => until(at + RECONNECT_GRACE.max(period * 3), Cause::Closed),
            LinkState::Lost { at } => until(at + MOVED_GRACE.max(period * 6), Cause::Heartbeat),
            LinkState::Open { heard } => {
                let (least, most) = (SILENCE_MIN.max(period * 3), SILENCE_MAX.max(period * 4));
                let (mean, dev) = self.gap.unwrap_or_default();
                let window = Duration::from_nanos(mean.saturating_add(dev.saturating_mul(4))).max(period * 2);
                let suspect = heard + window.min(least);
                let dead = heard + (window * 2).clamp(least, most);
                if dead <= now {
                    Verdict::Down(Cause::Heartbeat)
                } else if suspect <= now {
                    Verdict::Suspect(dead)
                } else {
                    Verdict::Alive(suspect)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(ms: u64) -> Mono {
        Mono::from_nanos(ms * 1_000_000)
    }

    /// A link whose board said its first word then.
    fn open(ms: u64) -> Link {
        let mut link = Link::expected(at(0));
        link.opens();
        link.heard(at(ms));
        link
    }

    #[test]
    fn while_a_session_opens_nobody_is_silent() {
        let mut link = Link::expected(at(0));
        link.opens();
        assert!(link.is_open() && link.was_open());
        assert_eq!(link.judge(SECOND, at(600_000)), Verdict::Alive(at(620_000)), "the manager's disk stalls");
        link.welcomed(at(600_000));
        assert_eq!(link.judge(SECOND, at(619_999)), Verdict::Alive(at(620_000)));
        assert_eq!(link.judge(SECOND, at(620_000)), Verdict::Down(Cause::Heartbeat));
        assert_eq!(link.judge(10 * SECOND, at(620_000)), Verdict::Alive(at(660_000)));
        assert!(link.heard(at(601_000)), "to be judged sooner");
        assert!(!link.clone().heard(at(602_000)));
        assert_eq!(link.judge(SECOND, at(606_000)), Verdict::Down(Cause::Heartbeat));
        // What is said late does not go back.
        link.welcomed(at(603_000));
        assert_eq!(link.judge(SECOND, at(606_000)), Verdict::Down(Cause::Heartbeat));
        for closes_before in [true, false] {
            link.opens();
            if !closes_before {
                link.welcomed(at(610_000));
            }
            link.closed(at(611_000));
            link.welcomed(at(612_000));
            assert_eq!(link.judge(SECOND, at(617_000)), Verdict::Down(Cause::Closed));
        }
    }

    /// Hears the link at these milliseconds, then finds the first millisecond at which it is down.
    #[track_caller]
    fn check(heard_ms: &[u64], down_after_ms: std::ops::RangeInclusive<u64>) {
        let mut link = open(heard_ms[0]);
        for &ms in &heard_ms[1..] {
            assert!(!matches!(link.judge(SECOND, at(ms)), Verdict::Down(_)), "down before it was heard at {ms} ms");
            link.heard(at(ms));
        }
        let last = *heard_ms.last().expect("heard once");
        let down = (last..last + 60_000).find(|&ms| matches!(link.judge(SECOND, at(ms)), Verdict::Down(_)));
        let silence = down.expect("it goes down at last") - last;
        assert!(down_after_ms.contains(&silence), "down after {silence} ms, wanted {down_after_ms:?}");
    }

    #[test]
    fn a_regular_link_is_judged_fast() {
        check(&(0..60).map(|i| i * 1000).collect::<Vec<_>>(), 3000..=4000);
        check(&[0], 3000..=4000);
    }

    #[test]
    fn a_wifi_that_stalls_is_granted_more() {
        let stalls: Vec<u64> = (0..60).map(|i| i * 1000 + if i % 5 == 0 { 1300 } else { 0 }).collect();
        check(&stalls, 3000..=10_000);
        let worse: Vec<u64> = (0..20)
            .scan(0, |t, i| {
                *t += if i % 2 == 0 { 200 } else { 2800 };
                Some(*t)
            })
            .collect();
        check(&worse, 5000..=10_000);
    }

    #[test]
    fn a_manager_that_stood_still_blames_nobody() {
        let mut link = Link::expected(at(0));
        link.forgive(10 * SECOND, at(15_000));
        assert_eq!(link.judge(SECOND, at(15_000)), Verdict::Alive(at(30_000)));
        link.opens();
        link.forgive(5 * SECOND, at(15_500));
        link.heard(at(16_000));
        link.forgive(5 * SECOND, at(22_000));
        assert_eq!(link.judge(SECOND, at(22_000)), Verdict::Alive(at(23_000)));
        assert_eq!(link.judge(SECOND, at(25_000)), Verdict::Down(Cause::Heartbeat));
        // What came meanwhile is not forgiven beyond now.
        link.heard(at(26_000));
        link.forgive(9 * SECOND, at(27_000));
        assert_eq!(link.judge(SECOND, at(36_999)), Verdict::Suspect(at(37_000)));
        link.closed(at(40_000));
        link.forgive(3 * SECOND, at(44_000));
        assert_eq!(link.judge(SECOND, at(44_000)), Verdict::Alive(at(49_000)));
    }

    #[test]
    fn a_manager_that_moved_is_looked_for() {
        let mut link = Link::expected(at(0));
        link.lost(at(1000));
        assert_eq!(link.judge(SECOND, at(60_999)), Verdict::Alive(at(61_000)), "the manager was restored elsewhere");
        assert_eq!(link.judge(SECOND, at(61_000)), Verdict::Down(Cause::NeverSeen));
        assert!(!link.was_open());
        link.opens();
        link.heard(at(20_000));
        link.lost(at(22_000));
        assert!(link.is_open());
        assert_eq!(link.judge(SECOND, at(81_999)), Verdict::Alive(at(82_000)));
        assert_eq!(link.judge(SECOND, at(82_000)), Verdict::Down(Cause::Heartbeat));
        // It was another address that it had dialled.
        link.heard(at(23_000));
        assert_eq!(link.judge(SECOND, at(33_000)), Verdict::Down(Cause::Heartbeat));
        link.closed(at(33_000));
        link.lost(at(34_000));
        assert_eq!(link.judge(SECOND, at(60_000)), Verdict::Alive(at(94_000)));
        link.left();
        link.lost(at(61_000));
        assert_eq!(link.judge(SECOND, at(61_000)), Verdict::Down(Cause::Left));
    }

    #[test]
    fn closing_leaving_and_waiting() {
        let mut link = Link::expected(at(0));
        assert_eq!(link.judge(SECOND, at(19_999)), Verdict::Alive(at(20_000)));
        assert_eq!(link.judge(SECOND, at(20_000)), Verdict::Down(Cause::NeverSeen));
        link.opens();
        link.heard(at(5000));
        link.closed(at(6000));
        assert_eq!(link.judge(SECOND, at(11_999)), Verdict::Alive(at(12_000)));
        assert_eq!(link.judge(SECOND, at(12_000)), Verdict::Down(Cause::Closed));
        assert_eq!(link.judge(15 * SECOND, at(12_000)), Verdict::Alive(at(51_000)));
        assert_eq!(link.judge(15 * SECOND, at(51_000)), Verdict::Down(Cause::Closed));
        link.opens();
        assert!(link.is_open());
        link.left();
        assert_eq!(link.judge(SECOND, at(7000)), Verdict::Down(Cause::Left));
    }
}
