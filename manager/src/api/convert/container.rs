//! The parts of a container beside its mounts: health check, limits, name service, confinement. Both ways.

use std::collections::HashMap;
use std::time::Duration;

use bollard_stubs::models::{
    HealthConfig as HealthModel, ResourcesUlimits, TaskSpecContainerSpecDnsConfig, TaskSpecContainerSpecPrivileges,
    TaskSpecContainerSpecPrivilegesSeccomp, TaskSpecContainerSpecPrivilegesSeccompModeEnum as SeccompMode,
    TaskSpecLogDriver,
};
use racimo_common::capability;
use racimo_common::object::{DnsConfig, HealthConfig, Privileges, Ulimit};
use serde_json::{Value, json};

use super::{nanos, some, some_map};
use crate::api::error::ApiError;
use crate::api::fields::Fields;
use crate::api::validate;
use crate::store::LogDriver;

/// Reads a health check; zero is "as the image says", as in Docker.
pub fn health(mut fields: Fields<'_>) -> Result<HealthConfig, ApiError> {
    let mut span = |key: &'static str| {
        let nanos = fields.int(key)?.unwrap_or_default();
        validate::health_span(key, nanos).map_err(ApiError::invalid)
    };
    let (interval, timeout) = (span("Interval")?, span("Timeout")?);
    let (start_period, start_interval) = (span("StartPeriod")?, span("StartInterval")?);
    let retries = validate::health_retries(fields.int("Retries")?.unwrap_or_default()).map_err(ApiError::invalid)?;
    let test = fields.texts("Test")?;
    fields.done()?;
    Ok(HealthConfig { test, interval, timeout, start_period, start_interval, retries })
}

/// A health check as Docker shows it.
pub fn health_model(health: &HealthConfig) -> HealthModel {
    let span = |span: Option<Duration>| span.map(nanos);
    HealthModel {
        test: some(&health.test),
        interval: span(health.interval),
        timeout: span(health.timeout),
        retries: health.retries.map(i64::from),
        start_period: span(health.start_period),
        start_interval: span(health.start_interval),
    }
}

/// Reads the resource limits of processes.
pub fn ulimits(items: &[(String, &Value)]) -> Result<Vec<Ulimit>, ApiError> {
    let read = |(path, value): &(String, &Value)| {
        let mut fields = Fields::of(path, value)?;
        let limit = Ulimit {
            name: fields.text("Name")?.unwrap_or_default(),
            soft: fields.int("Soft")?.unwrap_or_default(),
            hard: fields.int("Hard")?.unwrap_or_default(),
        };
        fields.done()?;
        Ok(limit)
    };
    items.iter().map(read).collect()
}

/// The resource limits of processes as Docker shows them.
pub fn ulimit_models(limits: &[Ulimit]) -> Option<Vec<ResourcesUlimits>> {
    let model = |limit: &Ulimit| ResourcesUlimits {
        name: Some(limit.name.clone()),
        soft: Some(limit.soft),
        hard: Some(limit.hard),
    };
    (!limits.is_empty()).then(|| limits.iter().map(model).collect())
}

/// Capabilities in the kernel's spelling: the docker CLI sends them so, others needn't.
pub fn capabilities(names: Vec<String>) -> Vec<String> {
    names.iter().map(|name| capability::normalize(name)).collect()
}

/// Reads what goes into `/etc/resolv.conf`.
pub fn dns(mut fields: Fields<'_>) -> Result<DnsConfig, ApiError> {
    let dns = DnsConfig {
        servers: fields.texts("Nameservers")?,
        search: fields.texts("Search")?,
        options: fields.texts("Options")?,
    };
    fields.done()?;
    Ok(dns)
}

/// What goes into `/etc/resolv.conf` as Docker shows it.
pub fn dns_model(dns: &DnsConfig) -> TaskSpecContainerSpecDnsConfig {
    TaskSpecContainerSpecDnsConfig {
        nameservers: some(&dns.servers),
        search: some(&dns.search),
        options: some(&dns.options),
    }
}

/// Reads the further confinement. Profiles of one's own, SELinux and Windows' credentials are refused by name.
pub fn privileges(mut fields: Fields<'_>) -> Result<Privileges, ApiError> {
    let mut seccomp = fields.object("Seccomp")?;
    let mode = seccomp.path("Mode");
    let seccomp_unconfined = match seccomp.text("Mode")?.as_deref() {
        None | Some("default") => false,
        Some("unconfined") => true,
        Some("custom") => {
            return Err(ApiError::bad_request(format!(
                "invalid argument: {mode}: a seccomp profile of one's own is not supported yet: \
                 expected default or unconfined"
            )));
        }
        Some(other) => {
            return Err(ApiError::bad_request(format!(
                "invalid argument: {mode} {other:?}: expected default or unconfined"
            )));
        }
    };
    seccomp.done()?;
    let mut apparmor = fields.object("AppArmor")?;
    apparmor.only("Mode", &[json!("default")])?;
    apparmor.done()?;
    let privileges = Privileges { no_new_privileges: fields.flag("NoNewPrivileges")?, seccomp_unconfined };
    fields.done()?;
    Ok(privileges)
}

/// The further confinement as Docker shows it; none if there is nothing to say.
pub fn privileges_model(privileges: Privileges) -> Option<TaskSpecContainerSpecPrivileges> {
    (privileges != Privileges::default()).then(|| TaskSpecContainerSpecPrivileges {
        seccomp: privileges
            .seccomp_unconfined
            .then_some(TaskSpecContainerSpecPrivilegesSeccomp { mode: Some(SeccompMode::UNCONFINED), profile: None }),
        no_new_privileges: privileges.no_new_privileges.then_some(true),
        ..TaskSpecContainerSpecPrivileges::default()
    })
}

/// Reads where a task's output goes; a driver without name and options is none.
pub fn log_driver(mut fields: Fields<'_>) -> Result<Option<LogDriver>, ApiError> {
    let driver = LogDriver { name: fields.text("Name")?.unwrap_or_default(), options: fields.labels("Options")? };
    fields.done()?;
    Ok(Some(driver).filter(|driver| *driver != LogDriver::default()))
}

/// Where a task's output goes as Docker shows it.
pub fn log_driver_model(driver: &LogDriver) -> TaskSpecLogDriver {
    let options: Option<HashMap<_, _>> = some_map(&driver.options);
    TaskSpecLogDriver { name: Some(driver.name.clone()).filter(|name| !name.is_empty()), options }
}
