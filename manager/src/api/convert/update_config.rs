//! How a service is updated and rolled back, both ways.
//!
//! As Docker has it: an object that is there says everything (an absent `Parallelism` is 0: all at once), one that
//! is absent nothing at all.

use bollard_stubs::models::{
    ServiceSpecRollbackConfig, ServiceSpecRollbackConfigFailureActionEnum as RollbackAction,
    ServiceSpecRollbackConfigOrderEnum as RollbackOrder, ServiceSpecUpdateConfig,
    ServiceSpecUpdateConfigFailureActionEnum as UpdateAction, ServiceSpecUpdateConfigOrderEnum as UpdateOrder,
};

use super::nanos;
use crate::api::error::ApiError;
use crate::api::fields::Fields;
use crate::api::validate::{self, Invalid};
use crate::store::{FailureAction, Order, Ratio, UpdateConfig};

/// Which of the two it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// `UpdateConfig`.
    Update,
    /// `RollbackConfig`.
    Rollback,
}

impl Which {
    /// `update` or `rollback`, for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Update => "update",
            Self::Rollback => "rollback",
        }
    }
}

/// Reads one that is there.
///
/// # Errors
/// 400 in Docker's words.
pub fn read(mut fields: Fields<'_>, which: Which) -> Result<UpdateConfig, ApiError> {
    let name = which.name();
    let failure_action = match fields.text("FailureAction")?.as_deref() {
        None | Some("pause") => FailureAction::Pause,
        Some("continue") => FailureAction::Continue,
        Some("rollback") if which == Which::Update => FailureAction::Rollback,
        Some("rollback") => {
            return Err(ApiError::bad_request(
                "RollbackConfig.FailureAction: a rollback cannot be rolled back: expected pause or continue",
            ));
        }
        Some(other) => {
            return Err(ApiError::bad_request(format!("unrecognized {name} failure action {other}")));
        }
    };
    let order = match fields.text("Order")?.as_deref() {
        None | Some("stop-first") => Order::StopFirst,
        Some("start-first") => Order::StartFirst,
        Some(other) => return Err(ApiError::bad_request(format!("unrecognized {name} order {other}"))),
    };
    let parallelism = fields.count("Parallelism")?.unwrap_or_default();
    let mut span = |key, negative| {
        let nanos = fields.int(key)?.filter(|nanos| *nanos != 0);
        nanos.map(|nanos| validate::span(nanos, negative).map_err(ApiError::invalid)).transpose()
    };
    let (delay, monitor) = match which {
        Which::Update => (span("Delay", "TaskSpec: update-delay")?, span("Monitor", "TaskSpec: update-monitor")?),
        Which::Rollback => (span("Delay", "TaskSpec: rollback-delay")?, span("Monitor", "TaskSpec: rollback-monitor")?),
    };
    let ratio = fields.float("MaxFailureRatio")?.unwrap_or_default();
    let ratio = Ratio::new(ratio).ok_or_else(|| ApiError::invalid(Invalid::FailureRatio(name)))?;
    fields.done()?;
    Ok(UpdateConfig {
        parallelism: Some(parallelism),
        delay,
        monitor,
        failure_action: Some(failure_action),
        failure_ratio: Some(ratio),
        order: Some(order),
    })
}

/// As Docker shows `UpdateConfig`.
pub fn update_model(config: &UpdateConfig, defaults: bool) -> ServiceSpecUpdateConfig {
    let plain = plain(config, defaults);
    ServiceSpecUpdateConfig {
        parallelism: plain.parallelism,
        delay: plain.delay,
        failure_action: Some(match config.failure_action() {
            FailureAction::Pause => UpdateAction::PAUSE,
            FailureAction::Continue => UpdateAction::CONTINUE,
            FailureAction::Rollback => UpdateAction::ROLLBACK,
        }),
        monitor: plain.monitor,
        max_failure_ratio: plain.ratio,
        order: Some(match config.order() {
            Order::StopFirst => UpdateOrder::STOP_FIRST,
            Order::StartFirst => UpdateOrder::START_FIRST,
        }),
    }
}

/// As Docker shows `RollbackConfig`.
pub fn rollback_model(config: &UpdateConfig, defaults: bool) -> ServiceSpecRollbackConfig {
    let plain = plain(config, defaults);
    ServiceSpecRollbackConfig {
        parallelism: plain.parallelism,
        delay: plain.delay,
        failure_action: Some(match config.failure_action() {
            // A rollback that fails pauses, whatever its configuration says.
            FailureAction::Pause | FailureAction::Rollback => RollbackAction::PAUSE,
            FailureAction::Continue => RollbackAction::CONTINUE,
        }),
        monitor: plain.monitor,
        max_failure_ratio: plain.ratio,
        order: Some(match config.order() {
            Order::StopFirst => RollbackOrder::STOP_FIRST,
            Order::StartFirst => RollbackOrder::START_FIRST,
        }),
    }
}

/// The fields that both models have in the same types.
struct Plain {
    parallelism: Option<i64>,
    delay: Option<i64>,
    monitor: Option<i64>,
    ratio: Option<f64>,
}

fn plain(config: &UpdateConfig, defaults: bool) -> Plain {
    let monitor = if defaults { Some(config.monitor()) } else { config.monitor };
    Plain {
        parallelism: Some(i64::try_from(config.parallelism()).unwrap_or(i64::MAX)),
        delay: config.delay.filter(|delay| !delay.is_zero()).map(nanos),
        monitor: monitor.map(nanos),
        ratio: Some(config.failure_ratio().get()),
    }
}
