//! A container's health: when it is checked, and what the results mean (Docker's health checks).
//!
//! In: the [`Check`], results, `Mono`. Out: when the next check is due, and the [`State`].
//!
//! ```text
//! Starting ─ a check passes ─▶ Healthy ─┐
//!    │  └─ fails in the start period: │  └─ `retries` failures in a row ─▶ Unhealthy
//!    │     does not count             └─ a check passes: the row is over
//!    └─ `retries` failures in a row ─▶ Unhealthy
//! ```
//! The first check comes one interval after the start, each other one an interval after the one before ended.
//! What a check runs is kept with the container; this module never sees it.

use std::time::Duration;

use racimo_common::object::HealthConfig;
use racimo_common::time::Mono;
use serde::{Deserialize, Serialize};

use crate::limits;

const INTERVAL_DEFAULT: Duration = Duration::from_secs(30);
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
const START_INTERVAL_DEFAULT: Duration = Duration::from_secs(5);
const RETRIES_DEFAULT: u32 = 3;

/// How often a container's health is checked and how patient we are; every default filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Between the end of a check and the next one.
    pub interval: Duration,
    /// A check that takes longer has failed.
    pub timeout: Duration,
    /// After the start, failures do not count for this long.
    pub start_period: Duration,
    /// The interval until then, or until the first check that passes.
    pub start_interval: Duration,
    /// Failures in a row that make it unhealthy.
    pub retries: u32,
}

/// What a container runs to check its health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Program and arguments.
    pub args: Vec<String>,
    /// When.
    pub check: Check,
}

/// What is known of the health of a container that was found on the board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watch {
    /// How it is checked.
    pub check: Check,
    /// Whether a check has passed since it was started.
    pub was_healthy: bool,
}

/// The health of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No check has passed yet.
    Starting,
    /// The last check passed, or too few have failed since.
    Healthy,
    /// Too many checks in a row have failed: the container shall go.
    Unhealthy,
}

/// One container's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    check: Check,
    state: State,
    /// When the start period is over.
    started_by: Mono,
    failures: u32,
    /// When the check under way began; none: none is.
    began: Option<Mono>,
    /// When the next check is due.
    due: Mono,
}

impl Health {
    /// A container starts now, or (`was_healthy`) was found running and is known to have been healthy.
    pub fn begin(check: Check, was_healthy: bool, now: Mono) -> Self {
        let state = if was_healthy { State::Healthy } else { State::Starting };
        let started_by = now + check.start_period;
        let mut health = Self { check, state, started_by, failures: 0, began: None, due: now };
        health.due = now + health.interval(now);
        health
    }

    /// Its health.
    pub fn state(&self) -> State {
        self.state
    }

    /// When the next check is due; none while one is under way, or once it is unhealthy.
    pub fn due(&self) -> Option<Mono> {
        (self.began.is_none() && self.state != State::Unhealthy).then_some(self.due)
    }

    /// A check begins.
    pub fn begins(&mut self, now: Mono) {
        self.began = Some(now);
    }

    /// The check under way could not be made, for the board's sake: it counts as nothing, and is due again at once.
    pub fn undone(&mut self, now: Mono) {
        self.began = None;
        self.due = now;
    }

    /// The check under way passed or failed.
    pub fn checked(&mut self, passed: bool, now: Mono) {
        let began = self.began.take().unwrap_or(now);
        if passed {
            self.failures = 0;
            if self.state == State::Starting {
                self.state = State::Healthy;
            }
        } else if self.state != State::Starting || began >= self.started_by {
            self.failures += 1;
            if self.failures >= self.check.retries {
                self.state = State::Unhealthy;
            }
        }
        self.due = now + self.interval(now);
    }

    fn interval(&self, now: Mono) -> Duration {
        let starts = self.state == State::Starting && now < self.started_by;
        let interval = if starts { self.check.start_interval } else { self.check.interval };
        interval.max(limits::PROBE_PAUSE_MIN)
    }
}

/// What is run to check the health of a container, merged as Docker merges it: what the service does not say is the
/// image's. `shell`: the image's, for a command line. None: its health is not checked.
pub fn probe(service: Option<&HealthConfig>, image: Option<&HealthConfig>, shell: &[String]) -> Option<Probe> {
    let none = HealthConfig::default();
    let (service, image) = (service.unwrap_or(&none), image.unwrap_or(&none));
    let test = if service.test.is_empty() { &image.test } else { &service.test };
    let (kind, rest) = test.split_first()?;
    let args = match kind.as_str() {
        "CMD" => rest.to_vec(),
        "CMD-SHELL" if shell.is_empty() => {
            ["/bin/sh", "-c"].into_iter().map(str::to_owned).chain(rest.iter().cloned()).collect()
        }
        "CMD-SHELL" => shell.iter().chain(rest).cloned().collect(),
        "NONE" => return None,
        other => {
            log::warn!("unknown health check type {other:?} (expected CMD): the container's health is not checked");
            return None;
        }
    };
    // Zero is "not given", as in Docker.
    let given = |get: fn(&HealthConfig) -> Option<Duration>, default: Duration| {
        let some = |config| get(config).filter(|span| !span.is_zero());
        some(service).or_else(|| some(image)).unwrap_or(default)
    };
    let retries = |config: &HealthConfig| config.retries.filter(|retries| *retries > 0);
    let check = Check {
        interval: given(|config| config.interval, INTERVAL_DEFAULT),
        timeout: given(|config| config.timeout, TIMEOUT_DEFAULT),
        start_period: given(|config| config.start_period, Duration::ZERO),
        start_interval: given(|config| config.start_interval, START_INTERVAL_DEFAULT),
        retries: retries(service).or_else(|| retries(image)).unwrap_or(RETRIES_DEFAULT),
    };
    Some(Probe { args, check })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn at(secs: u64) -> Mono {
        Mono::default() + Duration::from_secs(secs)
    }

    const CHECK: Check =
        Check { interval: secs(30), timeout: secs(30), start_period: secs(0), start_interval: secs(5), retries: 3 };

    /// Checks that begin when they are due, take so many seconds, and pass (`+`) or fail (`-`) or cannot be made
    /// (`?`); then after each: when the next is due, and the state.
    #[track_caller]
    fn check(check: Check, was_healthy: bool, results: &str, takes: u64, want: &[(Option<u64>, State)]) {
        let mut health = Health::begin(check, was_healthy, at(100));
        let secs = |health: &Health| health.due().map(|due| due.since(at(100)).as_secs());
        let mut seen = vec![(secs(&health), health.state())];
        for result in results.chars() {
            let due = health.due().expect("it is not over");
            health.begins(due);
            assert_eq!(health.due(), None, "one at a time");
            let end = due + Duration::from_secs(takes);
            match result {
                '?' => health.undone(end),
                result => health.checked(result == '+', end),
            }
            seen.push((secs(&health), health.state()));
        }
        assert_eq!(seen, want);
    }

    use State::{Healthy, Starting, Unhealthy};

    #[test]
    fn a_row_of_failures_makes_it_unhealthy() {
        check(CHECK, false, "+", 2, &[(Some(30), Starting), (Some(62), Healthy)]);
        let row = [(Some(30), Starting), (Some(60), Starting), (Some(90), Starting), (None, Unhealthy)];
        check(CHECK, false, "---", 0, &row);
        let broken_row = [
            (Some(30), Starting),
            (Some(60), Healthy),
            (Some(90), Healthy),
            (Some(120), Healthy),
            (Some(150), Healthy),
            (Some(180), Healthy),
            (Some(210), Healthy),
            (None, Unhealthy),
        ];
        check(CHECK, false, "+--+---", 0, &broken_row);
        check(Check { retries: 1, ..CHECK }, false, "-", 0, &[(Some(30), Starting), (None, Unhealthy)]);
    }

    #[test]
    fn failures_in_the_start_period_do_not_count() {
        let slow = Check { start_period: secs(12), retries: 1, ..CHECK };
        // The third begins after the start period; between them the start interval.
        let failing = [(Some(5), Starting), (Some(10), Starting), (Some(15), Starting), (None, Unhealthy)];
        check(slow, false, "---", 0, &failing);
        // One that began in the start period does not count, whenever it ends.
        check(slow, false, "--", 8, &[(Some(5), Starting), (Some(43), Starting), (None, Unhealthy)]);
        // A pass ends it: from then on failures count, at the normal interval.
        check(slow, false, "+-", 0, &[(Some(5), Starting), (Some(35), Healthy), (None, Unhealthy)]);
        check(
            slow,
            false,
            "-+-",
            0,
            &[(Some(5), Starting), (Some(10), Starting), (Some(40), Healthy), (None, Unhealthy)],
        );
    }

    #[test]
    fn what_was_healthy_has_no_start_period() {
        let slow = Check { start_period: secs(100), retries: 2, ..CHECK };
        check(slow, true, "--", 0, &[(Some(30), Healthy), (Some(60), Healthy), (None, Unhealthy)]);
    }

    #[test]
    fn a_check_that_could_not_be_made_counts_as_nothing() {
        let twice = Check { retries: 2, ..CHECK };
        check(
            twice,
            false,
            "-??-",
            1,
            &[
                (Some(30), Starting),
                (Some(61), Starting),
                (Some(62), Starting),
                (Some(63), Starting),
                (None, Unhealthy),
            ],
        );
    }

    #[test]
    fn checks_leave_the_board_time_to_breathe() {
        let mut health = Health::begin(Check { interval: Duration::from_nanos(1), ..CHECK }, false, at(0));
        health.begins(at(1));
        health.checked(true, at(1));
        assert_eq!(health.due(), Some(at(1) + limits::PROBE_PAUSE_MIN));
    }

    fn config(test: &[&str], interval: Option<u64>, retries: Option<u32>) -> HealthConfig {
        let test = test.iter().map(|&word| word.to_owned()).collect();
        HealthConfig { test, interval: interval.map(secs), retries, ..HealthConfig::default() }
    }

    #[track_caller]
    fn check_probe(
        service: Option<HealthConfig>,
        image: Option<HealthConfig>,
        shell: &[&str],
        want: Option<(&[&str], u64, u32)>,
    ) {
        let shell: Vec<String> = shell.iter().map(|&word| word.to_owned()).collect();
        let got = probe(service.as_ref(), image.as_ref(), &shell);
        let got = got.map(|probe| (probe.args, probe.check.interval.as_secs(), probe.check.retries));
        let want = want.map(|(args, interval, retries)| {
            (args.iter().map(|&word| word.to_owned()).collect::<Vec<_>>(), interval, retries)
        });
        assert_eq!(got, want);
    }

    #[test]
    fn the_service_is_merged_with_the_image() {
        check_probe(None, None, &[], None);
        check_probe(None, Some(config(&["CMD", "a", "b"], None, None)), &[], Some((&["a", "b"], 30, 3)));
        check_probe(None, Some(config(&["NONE"], None, None)), &[], None);
        let image = || Some(config(&["CMD-SHELL", "x | y"], Some(7), Some(5)));
        check_probe(None, image(), &[], Some((&["/bin/sh", "-c", "x | y"], 7, 5)));
        check_probe(None, image(), &["/bin/ash", "-ec"], Some((&["/bin/ash", "-ec", "x | y"], 7, 5)));
        // The service's times with the image's test, and the other way round.
        check_probe(Some(config(&[], Some(9), None)), image(), &["s"], Some((&["s", "x | y"], 9, 5)));
        check_probe(Some(config(&["CMD", "z"], None, Some(1))), image(), &[], Some((&["z"], 7, 1)));
        // Zero is not given.
        check_probe(Some(config(&[], Some(0), Some(0))), image(), &["s"], Some((&["s", "x | y"], 7, 5)));
        check_probe(Some(config(&["NONE"], None, None)), image(), &[], None);
        check_probe(Some(config(&[], Some(9), None)), None, &[], None);
        check_probe(Some(config(&["curl"], None, None)), image(), &[], None);
    }
}
