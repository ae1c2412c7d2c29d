//! Docker's JSON ⇄ our objects. Pure.
//!
//! ```text
//! body ─▶ Fields ─▶ service_in, spec_in ─▶ domain      what nobody reads is refused
//! domain ─▶ service_out, task, node, swarm ─▶ bollard's models ─▶ JSON
//! ```
//! Requests are not read into the models: see [`super::fields`] for why.

mod board;
pub mod container;
pub mod dependency;
pub mod endpoint;
pub mod generic;
pub mod mount;
pub mod network;
pub mod network_use;
pub mod node;
pub mod service_in;
pub mod service_out;
pub mod swarm;
pub mod task;
pub mod tls;
pub mod update_config;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard_stubs::models::ObjectVersion;
use racimo_common::time::Wall;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// `2026-11-20T11:15:31.466152653Z`.
pub fn time(at: Wall) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.nanos()))
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        // An `i64` of nanoseconds ends in the year 2262: it always fits.
        .unwrap_or_else(|| "0001-01-01T00:00:00Z".to_owned())
}

/// `{"Index": …}`.
pub fn version(index: u64) -> Option<ObjectVersion> {
    Some(ObjectVersion { index: Some(index) })
}

/// Nanoseconds, as Docker writes spans of time.
pub fn nanos(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

fn map(labels: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    Some(labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect())
}

/// `None` for an empty map: some fields are left out then.
fn some_map(labels: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    map(labels).filter(|m| !m.is_empty())
}

fn some<T: Clone>(items: &[T]) -> Option<Vec<T>> {
    (!items.is_empty()).then(|| items.to_vec())
}

/// A model as JSON, with maps in order, so that the same object always gives the same bytes.
///
/// Docker writes `Healthcheck`; the models, after the API's description, `HealthCheck`.
pub fn json(model: &impl Serialize) -> Value {
    // Models are structs of strings and numbers: they always serialise.
    let mut value = serde_json::to_value(model).unwrap_or_default();
    sort_maps(&mut value);
    value
}

/// The models' field and the name Docker gives it.
const HEALTH_CHECK: (&str, &str) = ("HealthCheck", "Healthcheck");
/// Fields whose own fields are the user's.
const MAPS: [&str; 5] = ["Attributes", "Details", "Labels", "Options", "Sysctls"];

fn sort_maps(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, inner) in fields.iter_mut() {
                if let (Value::Object(map), true) = (&mut *inner, MAPS.contains(&key.as_str())) {
                    map.sort_keys();
                } else {
                    sort_maps(inner);
                }
            }
            if let Some(health) = fields.remove(HEALTH_CHECK.0) {
                fields.insert(HEALTH_CHECK.1.to_owned(), health);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(sort_maps),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_docker_s() {
        assert_eq!(time(Wall::from_nanos(1_795_173_331_466_152_653)), "2026-11-20T11:15:31.466152653Z");
        assert_eq!(time(Wall::default()), "1970-01-01T00:00:00Z");
        assert_eq!(time(Wall::from_nanos(1_500_000_000)), "1970-01-01T00:00:01.5Z");
        for extreme in [i64::MIN, i64::MAX] {
            assert!(time(Wall::from_nanos(extreme)).ends_with('Z'));
        }
    }
}
