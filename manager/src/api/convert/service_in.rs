//! A service's specification as clients send it ─▶ ours.
//!
//! What we don't implement is refused by name; what only repeats our defaults is taken.

use std::sync::Arc;
use std::time::Duration;

use racimo_common::object::{ContainerSpec, EndpointSpec, FileRef, Limits, NetworkMode, Reservations, Resources};
use racimo_common::registry::Platform;
use serde_json::{Value, json};

use super::update_config::{self, Which};
use super::{container, dependency, endpoint, generic, mount};
use crate::api::error::ApiError;
use crate::api::fields::Fields;
use crate::api::find;
use crate::api::network::Predefined;
use crate::api::validate::{self, Invalid};
use crate::store::{
    Attachment, ClusterSpec, DependencyKind, Mode, OfflineSpec, Placement, RestartCondition, RestartPolicy,
    ServiceSpec, State, TaskSpec, UpdateConfig,
};

/// Reads and checks a service's specification; `unnamed` names one that has no name.
///
/// # Errors
/// 400 that names the field.
pub fn service(state: &State, body: &Value, unnamed: impl FnOnce() -> String) -> Result<ServiceSpec, ApiError> {
    let mut fields = Fields::of("", body)?;
    if !fields.has("TaskTemplate") {
        return Err(ApiError::bad_request("mismatched Runtime and *Spec fields"));
    }
    let name = fields.text("Name")?.unwrap_or_else(unnamed);
    let labels = fields.labels("Labels")?;
    let mut template = fields.object("TaskTemplate")?;
    // The older place for networks, and the newer one.
    let mut targets = targets(&mut fields)?;
    targets.extend(self::targets(&mut template)?);
    let (network, networks) = networks(state, targets)?;
    let endpoint = endpoint::read(fields.object("EndpointSpec")?)?;
    let offline = validate::offline::read(&labels).map_err(ApiError::invalid)?;
    let task = Arc::new(TaskSpec { networks, endpoint, offline, ..task(template, network)? });
    let mode = mode(fields.object("Mode")?)?;
    let update = update_config(&mut fields, "UpdateConfig", Which::Update)?;
    let rollback = update_config(&mut fields, "RollbackConfig", Which::Rollback)?;
    fields.done()?;
    let spec = ServiceSpec { name, labels, task, mode, update, rollback, credentials: None };
    validate::service(&spec).map_err(ApiError::invalid)?;
    let heartbeat = state.cluster().map_or_else(ClusterSpec::default, |cluster| cluster.spec.clone()).heartbeat();
    validate::offline::check(&spec, heartbeat).map_err(ApiError::invalid)?;
    Ok(spec)
}

fn task(mut fields: Fields<'_>, network: NetworkMode) -> Result<TaskSpec, ApiError> {
    fields.only("Runtime", &[json!("container")])?;
    if !fields.has("ContainerSpec") {
        fields.done()?;
        return Err(ApiError::bad_request("mismatched Runtime and *Spec fields"));
    }
    let container = container_spec(fields.object("ContainerSpec")?, network)?;
    let resources = resources(fields.object("Resources")?)?;
    let restart = restart(fields.object("RestartPolicy")?)?;
    let placement = placement(fields.object("Placement")?)?;
    let log = container::log_driver(fields.object("LogDriver")?)?;
    let force_update = fields.count("ForceUpdate")?.unwrap_or_default();
    fields.done()?;
    Ok(TaskSpec {
        container,
        resources,
        restart,
        placement,
        log,
        networks: Vec::new(),
        endpoint: EndpointSpec::default(),
        force_update,
        offline: OfflineSpec::default(),
    })
}

fn container_spec(mut fields: Fields<'_>, network: NetworkMode) -> Result<ContainerSpec, ApiError> {
    fields.only("Isolation", &[json!("default")])?;
    let mounts =
        fields.list("Mounts")?.iter().map(|(path, value)| mount::read(path, value)).collect::<Result<_, _>>()?;
    let health = fields.has("Healthcheck").then(|| fields.object("Healthcheck")).transpose()?;
    let spec = ContainerSpec {
        image: fields.text("Image")?.unwrap_or_default(),
        command: fields.texts("Command")?,
        args: fields.texts("Args")?,
        env: fields.texts("Env")?,
        labels: fields.labels("Labels")?,
        hostname: fields.text("Hostname")?,
        user: fields.text("User")?,
        dir: fields.text("Dir")?,
        mounts,
        stop_signal: fields.text("StopSignal")?,
        stop_grace: span(&mut fields, "StopGracePeriod", "ContainerSpec: stop-grace-period")?,
        network,
        health: health.map(container::health).transpose()?,
        init: fields.has("Init").then(|| fields.flag("Init")).transpose()?,
        tty: fields.flag("TTY")?,
        open_stdin: fields.flag("OpenStdin")?,
        read_only: fields.flag("ReadOnly")?,
        groups: fields.texts("Groups")?,
        cap_add: container::capabilities(fields.texts("CapabilityAdd")?),
        cap_drop: container::capabilities(fields.texts("CapabilityDrop")?),
        ulimits: container::ulimits(&fields.list("Ulimits")?)?,
        sysctls: fields.labels("Sysctls")?,
        dns: container::dns(fields.object("DNSConfig")?)?,
        hosts: fields.texts("Hosts")?,
        oom_score_adj: validate::oom_score(fields.int("OomScoreAdj")?.unwrap_or_default())
            .map_err(ApiError::invalid)?,
        privileges: container::privileges(fields.object("Privileges")?)?,
        secrets: references(DependencyKind::Secret, &mut fields, "Secrets")?,
        configs: references(DependencyKind::Config, &mut fields, "Configs")?,
    };
    fields.done()?;
    Ok(spec)
}

fn references(kind: DependencyKind, fields: &mut Fields<'_>, key: &str) -> Result<Vec<FileRef>, ApiError> {
    fields.list(key)?.iter().map(|(path, value)| dependency::read_reference(kind, path, value)).collect()
}

/// Nanoseconds; zero is a value of its own.
fn span(fields: &mut Fields<'_>, key: &str, what: &'static str) -> Result<Option<Duration>, ApiError> {
    let nanos = fields.int(key)?;
    nanos.map(|nanos| validate::span(nanos, what).map_err(ApiError::invalid)).transpose()
}

fn resources(mut fields: Fields<'_>) -> Result<Resources, ApiError> {
    let mut limits = fields.object("Limits")?;
    let mut reserved = fields.object("Reservations")?;
    fields.done()?;
    let resources = Resources {
        limits: Limits {
            cpu: validate::cpu(limits.int("NanoCPUs")?.unwrap_or_default()).map_err(ApiError::invalid)?,
            memory: validate::memory(limits.int("MemoryBytes")?.unwrap_or_default()).map_err(ApiError::invalid)?,
            pids: pids(limits.int("Pids")?)?,
        },
        reservations: Reservations {
            cpu: validate::cpu(reserved.int("NanoCPUs")?.unwrap_or_default())
                .map_err(ApiError::invalid)?
                .unwrap_or_default(),
            memory: validate::memory(reserved.int("MemoryBytes")?.unwrap_or_default())
                .map_err(ApiError::invalid)?
                .unwrap_or_default(),
        },
        generic: generic::read(&mut reserved)?,
    };
    limits.done()?;
    reserved.done()?;
    Ok(resources)
}

/// Docker means "no limit" by 0 and by -1.
fn pids(number: Option<i64>) -> Result<Option<u64>, ApiError> {
    match number {
        None | Some(0 | -1) => Ok(None),
        Some(number) => u64::try_from(number).map(Some).map_err(|_| ApiError::invalid(Invalid::Pids)),
    }
}

fn restart(mut fields: Fields<'_>) -> Result<RestartPolicy, ApiError> {
    let condition = match fields.text("Condition")?.as_deref() {
        None => None,
        Some("none") => Some(RestartCondition::None),
        Some("on-failure") => Some(RestartCondition::OnFailure),
        Some("any") => Some(RestartCondition::Any),
        Some(other) => {
            return Err(ApiError::bad_request(format!(
                "invalid RestartCondition: {other:?}: expected none, on-failure or any"
            )));
        }
    };
    let policy = RestartPolicy {
        condition,
        delay: span(&mut fields, "Delay", "TaskSpec: restart-delay")?,
        attempts_max: fields.count("MaxAttempts")?,
        window: span(&mut fields, "Window", "TaskSpec: restart-window")?,
    };
    fields.done()?;
    Ok(policy)
}

fn placement(mut fields: Fields<'_>) -> Result<Placement, ApiError> {
    let mut preferences = Vec::new();
    for (path, value) in fields.list("Preferences")? {
        let mut preference = Fields::of(&path, value)?;
        let mut spread = preference.object("Spread")?;
        preferences.push(spread.text("SpreadDescriptor")?.unwrap_or_default());
        spread.done()?;
        preference.done()?;
    }
    let mut platforms = Vec::new();
    for (path, value) in fields.list("Platforms")? {
        let mut platform = Fields::of(&path, value)?;
        platforms.push(Platform {
            os: platform.text("OS")?.unwrap_or_default(),
            architecture: platform.text("Architecture")?.unwrap_or_default(),
            variant: String::new(),
        });
        platform.done()?;
    }
    let placement = Placement {
        constraints: fields.texts("Constraints")?,
        preferences,
        replicas_max: fields.count("MaxReplicas")?.unwrap_or_default(),
        platforms,
    };
    fields.done()?;
    Ok(placement)
}

/// Replicas are 1 if nothing is said, a job runs one task at once and as often as that, as in Docker.
fn mode(mut fields: Fields<'_>) -> Result<Mode, ApiError> {
    let named: Vec<&str> =
        ["Replicated", "Global", "ReplicatedJob", "GlobalJob"].into_iter().filter(|mode| fields.has(mode)).collect();
    let mode = match named[..] {
        [_, _, ..] => return Err(ApiError::bad_request("must specify only one service mode")),
        ["Global"] => {
            fields.object("Global")?.done()?;
            Mode::Global
        }
        ["GlobalJob"] => {
            fields.object("GlobalJob")?.done()?;
            Mode::GlobalJob
        }
        ["ReplicatedJob"] => {
            let mut job = fields.object("ReplicatedJob")?;
            let number = |number: i64, what| u64::try_from(number).map_err(|_| ApiError::invalid(what));
            let concurrent_max = number(job.int("MaxConcurrent")?.unwrap_or(1), Invalid::JobConcurrent)?;
            let completions = match job.int("TotalCompletions")? {
                Some(completions) => number(completions, Invalid::JobCompletions)?,
                None => concurrent_max,
            };
            job.done()?;
            Mode::ReplicatedJob { concurrent_max, completions }
        }
        _ => {
            let mut replicated = fields.object("Replicated")?;
            let replicas = replicated.int("Replicas")?.unwrap_or(1);
            replicated.done()?;
            Mode::Replicated { replicas: u64::try_from(replicas).map_err(|_| ApiError::invalid(Invalid::Replicas))? }
        }
    };
    fields.done()?;
    Ok(mode)
}

/// None if it is not there: nothing is stored then.
fn update_config(fields: &mut Fields<'_>, key: &str, which: Which) -> Result<Option<UpdateConfig>, ApiError> {
    if !fields.has(key) {
        return Ok(None);
    }
    update_config::read(fields.object(key)?, which).map(Some)
}

/// What `Networks` asks for.
struct Target {
    path: String,
    /// A name or an id.
    name: String,
    aliases: Vec<String>,
}

fn targets(fields: &mut Fields<'_>) -> Result<Vec<Target>, ApiError> {
    let mut targets = Vec::new();
    for (path, value) in fields.list("Networks")? {
        let mut network = Fields::of(&path, value)?;
        let name = network.text("Target")?.unwrap_or_default();
        let aliases = network.texts("Aliases")?;
        if let Some(option) = network.labels("DriverOpts")?.keys().next() {
            return Err(network.refuse(&format!("DriverOpts.{option}")));
        }
        network.done()?;
        targets.push(Target { path, name, aliases });
    }
    Ok(targets)
}

/// A predefined network alone, or overlays.
fn networks(state: &State, targets: Vec<Target>) -> Result<(NetworkMode, Vec<Attachment>), ApiError> {
    let bad = |path: &str, why: String| Err(ApiError::bad_request(format!("invalid argument: {path}: {why}")));
    let (mut mode, mut attachments) = (NetworkMode::Unset, Vec::<Attachment>::new());
    let alone = targets.len() == 1;
    for Target { path, name, aliases } in targets {
        if let Some(network) = Predefined::find(&name) {
            if !alone {
                return bad(&path, format!("the {} network goes with no other network", network.name()));
            }
            if !aliases.is_empty() {
                return bad(&path, format!("the {} network has no aliases", network.name()));
            }
            mode = network.mode();
            continue;
        }
        let network = find::network(state, &name)?.id;
        if attachments.iter().any(|other| other.network == network) {
            return bad(&path, format!("network {name} is named twice"));
        }
        attachments.push(Attachment { network, aliases });
    }
    Ok((mode, attachments))
}
