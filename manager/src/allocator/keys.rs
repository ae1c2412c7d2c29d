//! When the keys of encrypted networks are turned: every twelve hours while there is such a network.
//!
//! In: the cluster's last rotation and the time. Out: the next [`Change::KeysTurn`], or when to look again. Boards
//! make their keys themselves; the manager only counts (`key_epoch`), and a board that has an older key makes a new
//! one.
//!
//! Time that passes while the manager runs is told by the clock that only goes forward; the stored stamp counts once,
//! at its start. So a wall clock that jumps (boards boot without one) turns the keys once at most.

use std::time::Duration;

use racimo_common::time::{Clock, Mono, Now, Wall};

use crate::store::{Change, CommitError, State, Store, Wake};

/// How long keys are used.
pub const KEYS_TURN_AFTER: Duration = Duration::from_secs(12 * 3600);
/// How long after its start a manager leaves the keys alone: boards come back first, and clocks are set.
const SETTLE: Duration = Duration::from_secs(600);
/// How long to wait after the store refused to write.
const RETRY: Duration = Duration::from_secs(60);

/// What is to be done about the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is encrypted.
    Rest,
    /// Look again then.
    Wait(Mono),
    /// Turn them: this is the next epoch.
    Turn(u32),
}

/// What a running manager remembers: the last rotation it saw, and when the next is due.
#[derive(Debug, Default)]
pub struct Watch {
    seen: Option<(u32, Wall, Mono)>,
}

impl Watch {
    /// What is to be done now.
    pub fn judge(&mut self, state: &State, now: Now) -> Verdict {
        let encrypted = state.networks().any(|network| network.spec.encrypted);
        let Some(cluster) = state.cluster().filter(|_| encrypted) else { return Verdict::Rest };
        let (epoch, rotated) = (cluster.key_epoch, cluster.keys_rotated);
        let due = match self.seen {
            Some((seen, at, due)) if (seen, at) == (epoch, rotated) => due,
            Some(_) => now.mono + KEYS_TURN_AFTER,
            // A stamp from the future is as new as can be.
            None => now.mono + KEYS_TURN_AFTER.saturating_sub(now.wall.since(rotated)).max(SETTLE),
        };
        self.seen = Some((epoch, rotated, due));
        match epoch.checked_add(1) {
            Some(next) if due <= now.mono => Verdict::Turn(next),
            Some(_) => Verdict::Wait(due),
            None => Verdict::Rest,
        }
    }
}

/// Turns the keys until the store stops.
pub async fn run(store: Store, clock: Clock) {
    let (mut view, mut feed) = store.watch();
    let (mut watch, mut not_before) = (Watch::default(), None);
    loop {
        let now = clock.now();
        let due = match watch.judge(&view.state, now) {
            Verdict::Rest => None,
            Verdict::Wait(due) => Some(due),
            Verdict::Turn(epoch) if not_before.is_none_or(|time| time <= now.mono) => {
                not_before = Some(now.mono + RETRY);
                match store.commit(now.wall, vec![Change::KeysTurn { epoch }]).await {
                    Ok(_) => log::info!("the keys of encrypted networks are turned (epoch {epoch})"),
                    Err(CommitError::Stopped) => return,
                    Err(error @ (CommitError::Refused(_) | CommitError::Full | CommitError::TooLarge)) => {
                        log::warn!("turn the keys of encrypted networks: {error}; next try in {RETRY:?}");
                    }
                }
                not_before
            }
            Verdict::Turn(_) => not_before,
        };
        match feed.next_until(&clock, due).await {
            Wake::Batch(batch) => view = batch.view,
            Wake::Time => {}
            Wake::Stopped => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{applied, network, new_cluster};
    use crate::store::{Command, NetworkSpec};

    const HOUR: u64 = 3600;

    fn now(mono_hours: u64, wall_hours: u64) -> Now {
        let nanos = i64::try_from(wall_hours * HOUR * 1_000_000_000).expect("small");
        Now { mono: Mono::default() + Duration::from_secs(mono_hours * HOUR), wall: Wall::from_nanos(nanos) }
    }

    fn at(state: &State, now: Now, change: Change) -> State {
        let command = Command { at: now.wall, changes: vec![change] };
        state.apply(state.index() + 1, &command).expect("it is allowed").0
    }

    fn encrypted(number: u128) -> Change {
        let spec = NetworkSpec { name: format!("net{number}"), encrypted: true, ..NetworkSpec::default() };
        Change::NetworkCreate { network: network(number), spec }
    }

    #[test]
    fn keys_are_turned_every_twelve_hours_while_something_is_encrypted() {
        let mut watch = Watch::default();
        let bare = applied(&State::default(), vec![new_cluster()]);
        assert_eq!(watch.judge(&bare, now(0, 1000)), Verdict::Rest);
        // The cluster is old, its first encrypted network is not.
        let state = at(&bare, now(5, 1005), encrypted(1));
        let due = now(17, 0).mono;
        assert_eq!(watch.judge(&state, now(5, 1005)), Verdict::Wait(due));
        let state = at(&state, now(6, 1006), encrypted(2));
        // The wall clock jumps back and forth: nothing happens before its time.
        assert_eq!(watch.judge(&state, now(6, 9_000)), Verdict::Wait(due));
        assert_eq!(watch.judge(&state, now(7, 1)), Verdict::Wait(due));
        assert_eq!(watch.judge(&state, now(17, 1)), Verdict::Turn(1));
        assert_eq!(watch.judge(&state, now(17, 1)), Verdict::Turn(1), "until it is done");
        let state = at(&state, now(17, 1), Change::KeysTurn { epoch: 1 });
        assert_eq!(watch.judge(&state, now(17, 1)), Verdict::Wait(now(29, 0).mono));
        // Only the next epoch is taken.
        for epoch in [0, 1, 3] {
            let command = Command { at: Wall::default(), changes: vec![Change::KeysTurn { epoch }] };
            assert!(state.apply(state.index() + 1, &command).is_err());
        }
    }

    #[track_caller]
    fn check_start(rotated: u64, started: u64, want_minutes: u64) {
        let state = applied(&State::default(), vec![new_cluster()]);
        let state = at(&state, now(0, rotated), encrypted(1));
        let due = Mono::default() + Duration::from_secs(want_minutes * 60);
        assert_eq!(Watch::default().judge(&state, now(0, started)), Verdict::Wait(due));
    }

    #[test]
    fn a_start_takes_the_stored_stamp_up_once() {
        check_start(1000, 1002, 600);
        check_start(1000, 1012, 10);
        check_start(1000, 5000, 10);
        // The manager's clock is not set yet, or the stamp is from the future.
        check_start(1000, 0, 720);
    }
}
