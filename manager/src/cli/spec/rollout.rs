//! How a service is updated and rolled back: `--update-*` and `--rollback-*`.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::super::error::CliError;
use super::super::json::{Peek, object};
use super::super::parse::{self, Nanos};

/// What an update does when too many tasks fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailureAction {
    /// Stop and wait for the next change
    Pause,
    /// Go on
    Continue,
    /// Go back to the previous specification
    Rollback,
}

impl FailureAction {
    fn name(self) -> &'static str {
        match self {
            FailureAction::Pause => "pause",
            FailureAction::Continue => "continue",
            FailureAction::Rollback => "rollback",
        }
    }
}

/// What a rollback does when too many tasks fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RollbackFailureAction {
    /// Stop and wait for the next change
    Pause,
    /// Go on
    Continue,
}

impl RollbackFailureAction {
    fn name(self) -> &'static str {
        match self {
            RollbackFailureAction::Pause => "pause",
            RollbackFailureAction::Continue => "continue",
        }
    }
}

/// Which of the old and the new task goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// The new task runs before the old one stops
    StartFirst,
    /// The old task stops before the new one starts
    StopFirst,
}

impl Order {
    fn name(self) -> &'static str {
        match self {
            Order::StartFirst => "start-first",
            Order::StopFirst => "stop-first",
        }
    }
}

/// Flags of both commands.
#[derive(Args, Debug, Default, PartialEq)]
pub(crate) struct RolloutFlags {
    /// Tasks that are updated at a time (0: all at once) [default: 1]
    #[arg(long, value_name = "NUMBER", value_parser = parse::uint)]
    pub(crate) update_parallelism: Option<u64>,
    /// Pause between two updated groups of tasks [default: 0s]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = parse::duration)]
    pub(crate) update_delay: Option<Nanos>,
    /// How long each updated task is watched for failure [default: 5s]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = parse::duration)]
    pub(crate) update_monitor: Option<Nanos>,
    /// What to do when an update fails [default: pause]
    #[arg(long, value_name = "ACTION")]
    pub(crate) update_failure_action: Option<FailureAction>,
    /// Share of tasks that may fail during an update [default: 0]
    #[arg(long, value_name = "RATIO", value_parser = ratio)]
    pub(crate) update_max_failure_ratio: Option<f64>,
    /// Order of an update [default: stop-first]
    #[arg(long, value_name = "ORDER")]
    pub(crate) update_order: Option<Order>,
    /// Tasks that are rolled back at a time (0: all at once) [default: 1]
    #[arg(long, value_name = "NUMBER", value_parser = parse::uint)]
    pub(crate) rollback_parallelism: Option<u64>,
    /// Pause between two rolled back groups of tasks [default: 0s]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = parse::duration)]
    pub(crate) rollback_delay: Option<Nanos>,
    /// How long each rolled back task is watched for failure [default: 5s]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = parse::duration)]
    pub(crate) rollback_monitor: Option<Nanos>,
    /// What to do when a rollback fails [default: pause]
    #[arg(long, value_name = "ACTION")]
    pub(crate) rollback_failure_action: Option<RollbackFailureAction>,
    /// Share of tasks that may fail during a rollback [default: 0]
    #[arg(long, value_name = "RATIO", value_parser = ratio)]
    pub(crate) rollback_max_failure_ratio: Option<f64>,
    /// Order of a rollback [default: stop-first]
    #[arg(long, value_name = "ORDER")]
    pub(crate) rollback_order: Option<Order>,
}

/// What one of the two configurations is told.
struct Given {
    parallelism: Option<u64>,
    delay: Option<Nanos>,
    monitor: Option<Nanos>,
    failure_action: Option<&'static str>,
    max_failure_ratio: Option<f64>,
    order: Option<&'static str>,
}

impl RolloutFlags {
    /// Changes `spec` where a flag is given. Jobs have no updates.
    pub(super) fn apply(&self, spec: &mut Value) -> Result<(), CliError> {
        let update = Given {
            parallelism: self.update_parallelism,
            delay: self.update_delay,
            monitor: self.update_monitor,
            failure_action: self.update_failure_action.map(FailureAction::name),
            max_failure_ratio: self.update_max_failure_ratio,
            order: self.update_order.map(Order::name),
        };
        let rollback = Given {
            parallelism: self.rollback_parallelism,
            delay: self.rollback_delay,
            monitor: self.rollback_monitor,
            failure_action: self.rollback_failure_action.map(RollbackFailureAction::name),
            max_failure_ratio: self.rollback_max_failure_ratio,
            order: self.rollback_order.map(Order::name),
        };
        let is_job = spec.has("/Mode/ReplicatedJob") || spec.has("/Mode/GlobalJob");
        for (key, given) in [("UpdateConfig", update), ("RollbackConfig", rollback)] {
            if given.is_empty() {
                continue;
            }
            if is_job {
                let text = "update and rollback configuration is not supported for jobs";
                return Err(CliError::Usage(text.to_owned()));
            }
            given.apply(object(spec, &[key]));
        }
        Ok(())
    }
}

impl Given {
    fn is_empty(&self) -> bool {
        self.parallelism.is_none()
            && self.delay.is_none()
            && self.monitor.is_none()
            && self.failure_action.is_none()
            && self.max_failure_ratio.is_none()
            && self.order.is_none()
    }

    /// A configuration that says one thing says all; the API reads an absent number as 0.
    fn apply(&self, config: &mut Map<String, Value>) {
        if config.is_empty() {
            let Value::Object(defaults) = json!({
                "Parallelism": 1, "FailureAction": "pause", "Monitor": 5_000_000_000_i64,
                "MaxFailureRatio": 0, "Order": "stop-first",
            }) else {
                return;
            };
            *config = defaults;
        }
        let mut put = |key: &str, value: Value| config.insert(key.to_owned(), value);
        if let Some(parallelism) = self.parallelism {
            put("Parallelism", parallelism.into());
        }
        if let Some(action) = self.failure_action {
            put("FailureAction", action.into());
        }
        if let Some(ratio) = self.max_failure_ratio {
            put("MaxFailureRatio", number(ratio));
        }
        if let Some(order) = self.order {
            put("Order", order.into());
        }
        for (key, given) in [("Delay", self.delay), ("Monitor", self.monitor)] {
            match given {
                Some(Nanos(0)) => {
                    config.shift_remove(key);
                }
                Some(Nanos(nanos)) => {
                    config.insert(key.to_owned(), nanos.into());
                }
                None => {}
            }
        }
    }
}

/// 0 and 1 without a point, as Docker writes them.
fn number(ratio: f64) -> Value {
    match ratio {
        0.0 => json!(0),
        1.0 => json!(1),
        other => json!(other),
    }
}

/// A share between 0 and 1.
fn ratio(text: &str) -> Result<f64, String> {
    let ratio: Option<f64> = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| format!("\"{text}\" is not a share between 0 and 1; expected for example 0.2"))
}
