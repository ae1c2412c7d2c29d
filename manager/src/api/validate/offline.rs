//! Labels of a service that say what boards do with its tasks while they hear no manager.
//!
//! ```text
//! io.racimo.on-partition=run|stop    default: run
//! io.racimo.lease=30s                with stop: how long tasks run on without a manager
//! io.racimo.offline-secrets=false    contents of secrets and configs are never on a board's disk
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use crate::limits::{LEASE_DEFAULT, LEASE_MAX, LEASE_MIN};
use crate::store::{OfflineSpec, Order, ServiceSpec, State};

/// What becomes of tasks on a board that hears no manager.
const ON_PARTITION: &str = "io.racimo.on-partition";
/// How long they run on.
const LEASE: &str = "io.racimo.lease";
/// Whether contents of secrets and configs may be on boards' disks.
const SECRETS: &str = "io.racimo.offline-secrets";

/// Heartbeat periods that a lease has at least: some may be lost before a task stops for it.
const PERIODS: u32 = 4;

/// What is wrong with such a label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadOffline {
    /// It has another value than it may have.
    #[error("label {0}: {1:?} is not {2}")]
    Value(&'static str, String, &'static str),
    /// Tasks that run on have no lease.
    #[error("label {LEASE} needs the label {ON_PARTITION}=stop")]
    Alone,
    /// No lease that can be kept.
    #[error("label {LEASE}: {0:?} is not a time from {LEASE_MIN:?} to {max} s, as in 30s, 5m or 1h", max = LEASE_MAX.as_secs())]
    Lease(String),
    /// Two tasks of a slot would run at once.
    #[error("label {ON_PARTITION}=stop: the update order start-first would run two tasks of a slot at once")]
    StartFirst,
    /// Heartbeats are too rare for it.
    #[error("label {LEASE}: {0:?} is shorter than 4 of the cluster's heartbeat periods ({1:?})")]
    Heartbeat(Duration, Duration),
    /// A service has a lease that is too short for such heartbeats.
    #[error(
        "a heartbeat period of {1:?} is too long for service {0}: its tasks stop when no manager was heard for {2:?} \
         (label {LEASE}), which must be 4 heartbeat periods at least"
    )]
    Period(String, Duration, Duration),
}

/// What the labels say.
///
/// # Errors
/// The first that is malformed, or makes no sense without another.
pub fn read(labels: &BTreeMap<String, String>) -> Result<OfflineSpec, BadOffline> {
    let value = |key: &str| labels.get(key).map(String::as_str);
    let bad = |key, other: &str, expected| Err(BadOffline::Value(key, other.to_owned(), expected));
    let lacks_secrets = match value(SECRETS) {
        None | Some("true") => false,
        Some("false") => true,
        Some(other) => return bad(SECRETS, other, "true or false"),
    };
    let stops = match value(ON_PARTITION) {
        None | Some("run") => false,
        Some("stop") => true,
        Some(other) => return bad(ON_PARTITION, other, "run or stop"),
    };
    let lease = match value(LEASE) {
        Some(_) if !stops => return Err(BadOffline::Alone),
        Some(text) => Some(span(text).ok_or_else(|| BadOffline::Lease(text.to_owned()))?),
        None => stops.then_some(LEASE_DEFAULT),
    };
    Ok(OfflineSpec { lacks_secrets, lease })
}

/// Whether a service with a lease can keep it.
///
/// # Errors
/// Why not.
pub fn check(spec: &ServiceSpec, heartbeat: Duration) -> Result<(), BadOffline> {
    let Some(lease) = spec.task.offline.lease else { return Ok(()) };
    if lease < heartbeat * PERIODS {
        return Err(BadOffline::Heartbeat(lease, heartbeat));
    }
    let starts_first = [spec.update, spec.rollback].into_iter().flatten().any(|c| c.order() == Order::StartFirst);
    if starts_first { Err(BadOffline::StartFirst) } else { Ok(()) }
}

/// Whether boards that speak so rarely can keep every service's lease, also the one that a rollback brings back.
///
/// # Errors
/// Of the first service that is in the way.
pub fn check_heartbeat(state: &State, heartbeat: Duration) -> Result<(), BadOffline> {
    for service in state.services() {
        let specs = [Some(&service.spec), service.previous.as_ref()];
        let lease = specs.into_iter().flatten().filter_map(|spec| spec.task.offline.lease).min();
        if let Some(lease) = lease.filter(|lease| *lease < heartbeat * PERIODS) {
            return Err(BadOffline::Period(service.spec.name.clone(), heartbeat, lease));
        }
    }
    Ok(())
}

fn span(text: &str) -> Option<Duration> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(at);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    let span = Duration::from_secs(number.parse::<u64>().ok()?.checked_mul(seconds)?);
    (LEASE_MIN..=LEASE_MAX).contains(&span).then_some(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_labels(labels: &[(&str, &str)], want: Result<(bool, Option<u64>), &str>) {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let got = read(&labels).map(|spec| (spec.lacks_secrets, spec.lease.map(|lease| lease.as_secs())));
        match want {
            Ok(want) => assert_eq!(got, Ok(want)),
            Err(words) => {
                let text = got.expect_err("refused").to_string();
                assert!(text.contains(words), "{text}");
            }
        }
    }

    #[test]
    fn labels() {
        check_labels(&[], Ok((false, None)));
        check_labels(&[(SECRETS, "true"), (ON_PARTITION, "run")], Ok((false, None)));
        check_labels(&[(SECRETS, "false")], Ok((true, None)));
        check_labels(&[(SECRETS, "no")], Err("label io.racimo.offline-secrets: \"no\" is not true or false"));
        check_labels(&[(SECRETS, "")], Err("is not true or false"));
        check_labels(&[(ON_PARTITION, "stop")], Ok((false, Some(30))));
        check_labels(&[(ON_PARTITION, "halt")], Err("\"halt\" is not run or stop"));
        check_labels(&[(LEASE, "30s")], Err("needs the label io.racimo.on-partition=stop"));
        check_labels(&[(LEASE, "30s"), (ON_PARTITION, "run")], Err("needs the label"));
        for (text, seconds) in [("10s", 10), ("90s", 90), ("5m", 300), ("1h", 3600)] {
            check_labels(&[(LEASE, text), (ON_PARTITION, "stop")], Ok((false, Some(seconds))));
        }
        for text in ["", "30", "9s", "0s", "-10s", "61m", "1d", "10.5s", "10 s", "99999999999999999999s", "s", "30sec"]
        {
            check_labels(&[(LEASE, text), (ON_PARTITION, "stop")], Err("from 10s to 3600 s"));
        }
    }
}
