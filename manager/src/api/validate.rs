//! What a service may be. Pure.
//!
//! SwarmKit's rules and words (`controlapi`, reference page `swarm-behaviour.md` §13), and ours where they let
//! through what could never run: a limit below a reservation, an image for nobody, a task too large to send.

mod endpoint;
pub mod offline;
mod options;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use racimo_common::id::{NodeId, RandomId, ServiceId, TaskId};
use racimo_common::limits::{
    ENDED_LOGS_MAX, FRAME_TO_AGENT_MAX, GENERIC_NAME_BYTES_MAX, GENERIC_NAMES_MAX, SERVICE_PORTS_MAX,
};
use racimo_common::object::{
    ContainerSpec, Desired, HostPort, ISOLATE_SHIM_LABEL, MountKind, Port, PortMode, Resources,
};
use racimo_common::registry::Reference;
use racimo_common::signal;
use racimo_common::units::{Bytes, NanoCpus};
use racimo_common::wire::frame;
use racimo_common::wire::{Assign, Assignment, Offline, Restart, TaskNet, ToAgent, Work};

use self::endpoint::ALIAS_CHARS_MAX;
pub use self::options::{InvalidOption, health_retries, health_span, oom_score};
use crate::dispatcher::work;
use crate::limits;
use crate::log_driver::{self, BadLogDriver};
use crate::scheduler::constraint;
use crate::store::{DependencyKind, KEEP_SOURCE_LABEL, Mode, Placement, RestartPolicy, ServiceSpec, TaskSpec};
use crate::template::{self, Facts};

/// Least CPU time a limit or reservation may name: a thousandth of a CPU.
pub const CPU_MIN: NanoCpus = NanoCpus::new(1_000_000);
/// Least memory a limit or reservation may name.
pub const MEMORY_MIN: Bytes = Bytes::mib(4);
const NAME_CHARS_MAX: usize = 63;
/// Takes most bytes to send.
const OFFLINE_LONGEST: Restart =
    Restart { completed: true, delay_ms: u32::MAX, attempts: Some(u32::MAX), window_ms: Some(u32::MAX) };

/// Why a service is refused. The words are SwarmKit's where it has some.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Invalid {
    #[error("meta: name must be provided")]
    NameMissing,
    #[error("name must be valid as a DNS name component")]
    NameCharacters,
    #[error("name must be {NAME_CHARS_MAX} characters or fewer")]
    NameLong,
    #[error("invalid cpu value {0}: Must be at least {CPU_MIN}")]
    Cpu(String),
    #[error("invalid memory value {0}: Must be at least 4MiB")]
    Memory(i64),
    #[error("pids limit cannot be negative")]
    Pids,
    #[error("the {what} limit ({limit}) is below the reservation ({reservation})")]
    LimitBelowReservation { what: &'static str, limit: String, reservation: String },
    #[error("{0} cannot be negative")]
    Negative(&'static str),
    #[error("Number of replicas must be non-negative")]
    Replicas,
    #[error("{0} replicas are more than the {max} a service may have", max = limits::REPLICAS_MAX)]
    ReplicasMax(u64),
    #[error("Maximum concurrent jobs must not be negative")]
    JobConcurrent,
    #[error("Total completed jobs must not be negative")]
    JobCompletions,
    #[error("Jobs may not have an update config")]
    JobUpdate,
    #[error("TaskSpec: {0}-maxfailureratio cannot be less than 0 or bigger than 1")]
    FailureRatio(&'static str),
    #[error(transparent)]
    Option(#[from] InvalidOption),
    #[error("TaskTemplate.LogDriver: {0}")]
    LogDriver(#[from] BadLogDriver),
    #[error("ContainerSpec: image reference must be provided")]
    ImageMissing,
    #[error("ContainerSpec: {0:?} is not a valid repository/tag")]
    Image(String),
    #[error("ContainerSpec: duplicate mount point: {0}")]
    MountTwice(String),
    #[error("{kind} references '{first}' and '{second}' have a conflicting target: '{target}'")]
    FileTwice { kind: &'static str, first: String, second: String, target: String },
    #[error("malformed file {kind} reference, invalid target file name provided: {target:?}")]
    FileTarget { kind: &'static str, target: String },
    #[error("invalid mount target, must be an absolute path: {0:?}")]
    MountTarget(String),
    #[error("invalid bind mount source, must be an absolute path: {0:?}")]
    MountSource(String),
    #[error(
        "invalid volume name {0:?}: expected 2 to 255 characters of [a-zA-Z0-9][a-zA-Z0-9_.-]; \
         for a directory of the board use a mount of type bind with an absolute path"
    )]
    VolumeName(String),
    #[error("ContainerSpec.Env: {0:?} is not KEY or KEY=value")]
    Env(String),
    #[error("ContainerSpec.{0} must not contain a NUL character")]
    Nul(&'static str),
    #[error("ContainerSpec.Hostname: {0:?} is not a host name")]
    Hostname(String),
    #[error("ContainerSpec.Dir: the working directory {0:?} must be an absolute path")]
    Dir(String),
    #[error("ContainerSpec.StopSignal: {0:?} is not a signal's name or number")]
    StopSignal(String),
    #[error(
        "a restart window with {0} attempts is not possible: with a window, at most {max}",
        max = limits::RESTART_TIMES_MAX
    )]
    RestartAttempts(u64),
    #[error("{0}")]
    Template(String),
    #[error("Placement.Preferences: {0:?} is not node.labels.KEY or engine.labels.KEY")]
    Preference(String),
    #[error("Placement.Constraints: {0}")]
    Constraint(String),
    #[error("{0} networks are more than the {max} a service may be attached to", max = limits::SERVICE_NETWORKS_MAX)]
    NetworksMax(usize),
    #[error("EndpointSpec: port published with ingress mode can't be used with dnsrr mode")]
    PortDnsrr,
    #[error("EndpointSpec: duplicate published ports provided")]
    PortTwice,
    #[error("EndpointSpec: a port without TargetPort: expected 1 to 65535")]
    PortTarget,
    #[error("EndpointSpec: {0} ports are more than the {SERVICE_PORTS_MAX} a service may publish")]
    PortsMax(usize),
    #[error("EndpointSpec: ports cannot be published by a service on the network {0}: {1}")]
    PortNetwork(&'static str, &'static str),
    #[error("label {0}: {1:?} is not true or false")]
    SwitchLabel(&'static str, String),
    #[error(transparent)]
    Offline(#[from] offline::BadOffline),
    #[error("{0} secrets and configs are more than the {max} a service may refer to", max = limits::SERVICE_FILES_MAX)]
    FilesMax(usize),
    #[error("{0} aliases on one network are more than the {max} a service may have", max = limits::ALIASES_MAX)]
    AliasesMax(usize),
    #[error("aliases of {0} bytes on all networks are more than the {max} a service may have", max = limits::ALIASES_BYTES_MAX)]
    AliasesBytes(usize),
    #[error("Networks.Aliases: {0:?} is not a name of 1 to {ALIAS_CHARS_MAX} printable characters without blanks")]
    Alias(String),
    #[error("a task of this service takes more than {FRAME_TO_AGENT_MAX} bytes to send to a board: make it smaller")]
    TaskSize,
}

/// Checks a service that was read without fault.
///
/// # Errors
/// The first rule it breaks.
pub fn service(spec: &ServiceSpec) -> Result<(), Invalid> {
    name(&spec.name)?;
    mode(spec)?;
    container(&filled(spec)?)?;
    resources(&spec.task.resources)?;
    endpoint::networks(&spec.task.networks)?;
    endpoint::endpoint(&spec.task)?;
    switch(&spec.labels, KEEP_SOURCE_LABEL)?;
    switch(&spec.labels, ISOLATE_SHIM_LABEL)?;
    switch(&spec.task.container.labels, ISOLATE_SHIM_LABEL)?;
    restart(&spec.task.restart)?;
    placement(&spec.task.placement)?;
    log_driver::config(spec.task.log.as_ref())?;
    size(&spec.name, &spec.task)
}

/// A label that is `true` or `false`, if it is there.
fn switch(labels: &BTreeMap<String, String>, label: &'static str) -> Result<(), Invalid> {
    match labels.get(label).map(String::as_str) {
        None | Some("true" | "false") => Ok(()),
        Some(other) => Err(Invalid::SwitchLabel(label, other.to_owned())),
    }
}

fn mode(spec: &ServiceSpec) -> Result<(), Invalid> {
    let most = match spec.mode {
        Mode::Replicated { replicas } => replicas,
        Mode::ReplicatedJob { concurrent_max, completions } => concurrent_max.max(completions),
        Mode::Global | Mode::GlobalJob => 0,
    };
    if most > limits::REPLICAS_MAX {
        return Err(Invalid::ReplicasMax(most));
    }
    if spec.mode.is_job() && spec.update.is_some() { Err(Invalid::JobUpdate) } else { Ok(()) }
}

/// A span of time in nanoseconds; zero is a value of its own.
pub fn span(nanos: i64, what: &'static str) -> Result<Duration, Invalid> {
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| Invalid::Negative(what))
}

/// A name of a service or network: letters, digits, and inside it `-` and `_`.
///
/// # Errors
/// What is wrong with it.
pub fn name(name: &str) -> Result<(), Invalid> {
    if name.is_empty() {
        return Err(Invalid::NameMissing);
    }
    if !is_name_of(name, "-_") {
        return Err(Invalid::NameCharacters);
    }
    if name.len() > NAME_CHARS_MAX { Err(Invalid::NameLong) } else { Ok(()) }
}

/// Whether a text has only letters, digits and these further characters, which are not at its ends.
pub fn is_name_of(text: &str, further: &str) -> bool {
    let ends_fit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner_fits = text.chars().all(|c| c.is_ascii_alphanumeric() || further.contains(c));
    inner_fits && ends_fit(text.chars().next()) && ends_fit(text.chars().next_back())
}

/// CPU time of a limit or reservation; 0 is none.
pub fn cpu(nanos: i64) -> Result<Option<NanoCpus>, Invalid> {
    let bad = || {
        let (sign, size) = (if nanos < 0 { "-" } else { "" }, NanoCpus::new(nanos.unsigned_abs()));
        Invalid::Cpu(format!("{sign}{size}"))
    };
    if nanos == 0 {
        return Ok(None);
    }
    u64::try_from(nanos).ok().map(NanoCpus::new).filter(|cpu| *cpu >= CPU_MIN).map(Some).ok_or_else(bad)
}

/// Memory of a limit or reservation; 0 is none.
pub fn memory(bytes: i64) -> Result<Option<Bytes>, Invalid> {
    if bytes == 0 {
        return Ok(None);
    }
    let memory = u64::try_from(bytes).ok().map(Bytes::new).filter(|memory| *memory >= MEMORY_MIN);
    memory.map(Some).ok_or(Invalid::Memory(bytes))
}

fn resources(resources: &Resources) -> Result<(), Invalid> {
    let (limits, reserved) = (&resources.limits, &resources.reservations);
    if let Some(limit) = limits.cpu.filter(|limit| *limit < reserved.cpu) {
        let (limit, reservation) = (limit.to_string(), reserved.cpu.to_string());
        return Err(Invalid::LimitBelowReservation { what: "CPU", limit, reservation });
    }
    if let Some(limit) = limits.memory.filter(|limit| *limit < reserved.memory) {
        let (limit, reservation) = (limit.to_string(), reserved.memory.to_string());
        return Err(Invalid::LimitBelowReservation { what: "memory", limit, reservation });
    }
    Ok(())
}

fn restart(policy: &RestartPolicy) -> Result<(), Invalid> {
    match (policy.attempts_max(), policy.window()) {
        (Some(attempts), Some(_)) if attempts > limits::RESTART_TIMES_MAX as u64 => {
            Err(Invalid::RestartAttempts(attempts))
        }
        (Some(_) | None, Some(_) | None) => Ok(()),
    }
}

fn placement(placement: &Placement) -> Result<(), Invalid> {
    constraint::parse_all(&placement.constraints).map_err(|error| Invalid::Constraint(error.to_string()))?;
    let is_label = |text: &str| {
        ["node.labels.", "engine.labels."].iter().any(|p| text.strip_prefix(p).is_some_and(|rest| !rest.is_empty()))
    };
    match placement.preferences.iter().find(|text| !is_label(text)) {
        Some(text) => Err(Invalid::Preference(text.clone())),
        None => Ok(()),
    }
}

fn container(spec: &ContainerSpec) -> Result<(), Invalid> {
    if spec.image.is_empty() {
        return Err(Invalid::ImageMissing);
    }
    spec.image.parse::<Reference>().map_err(|_| Invalid::Image(spec.image.clone()))?;
    for (field, texts) in [("Command", &spec.command), ("Args", &spec.args), ("Env", &spec.env)] {
        if texts.iter().any(|text| text.contains('\0')) {
            return Err(Invalid::Nul(field));
        }
    }
    if let Some(entry) = spec.env.iter().find(|entry| entry.is_empty() || entry.starts_with('=')) {
        return Err(Invalid::Env(entry.clone()));
    }
    if let Some(hostname) = spec.hostname.as_ref().filter(|hostname| !is_hostname(hostname)) {
        return Err(Invalid::Hostname(hostname.clone()));
    }
    if let Some(dir) = spec.dir.as_ref().filter(|dir| !dir.starts_with('/') || dir.contains('\0')) {
        return Err(Invalid::Dir(dir.clone()));
    }
    if spec.user.as_ref().is_some_and(|user| user.contains('\0')) {
        return Err(Invalid::Nul("User"));
    }
    if let Some(signal) = spec.stop_signal.as_ref().filter(|signal| signal::parse(signal).is_err()) {
        return Err(Invalid::StopSignal(signal.clone()));
    }
    options::container(spec)?;
    mounts(spec)?;
    files(spec)
}

/// Secrets and configs: each in a place of its own. SwarmKit's words.
fn files(spec: &ContainerSpec) -> Result<(), Invalid> {
    let count = spec.secrets.len() + spec.configs.len();
    if count > limits::SERVICE_FILES_MAX {
        return Err(Invalid::FilesMax(count));
    }
    let mut places = BTreeMap::new();
    for (kind, file) in DependencyKind::ALL.into_iter().flat_map(|kind| kind.of(spec).iter().map(move |f| (kind, f))) {
        let target = file.target.clone();
        let Some(place) = kind.place(&target) else { return Err(Invalid::FileTarget { kind: kind.name(), target }) };
        if spec.mounts.iter().any(|mount| mount.target.trim_end_matches('/') == place) {
            return Err(Invalid::MountTwice(place));
        }
        if let Some(first) = places.insert(place, file.name.clone()) {
            return Err(Invalid::FileTwice { kind: kind.name(), first, second: file.name.clone(), target });
        }
    }
    Ok(())
}

/// With its templates filled in for a task that could be, as SwarmKit checks it.
fn filled(spec: &ServiceSpec) -> Result<ContainerSpec, Invalid> {
    let id = NodeId::from_bits(u128::MAX).to_string();
    let facts = Facts {
        service_id: id.clone(),
        service_name: spec.name.clone(),
        service_labels: spec.labels.clone(),
        node_hostname: "board".to_owned(),
        architecture: "aarch64".to_owned(),
        os: "linux".to_owned(),
        task_name: format!("{}.1.{id}", spec.name),
        task_slot: "1".to_owned(),
        task_id: id.clone(),
        node_id: id,
    };
    let mut container = spec.task.container.clone();
    template::container(&mut container, &facts).map_err(Invalid::Template)?;
    Ok(container)
}

/// Whether a text is a host name.
pub fn is_hostname(name: &str) -> bool {
    let is_label = |label: &str| options::is_label(label) && !label.starts_with('-') && !label.ends_with('-');
    // The kernel's limit.
    name.len() <= 64 && name.split('.').all(is_label)
}

fn mounts(spec: &ContainerSpec) -> Result<(), Invalid> {
    let mut targets = BTreeSet::new();
    for mount in &spec.mounts {
        let target = mount.target.trim_end_matches('/');
        if !mount.target.starts_with('/') || target.is_empty() || mount.target.contains('\0') {
            return Err(Invalid::MountTarget(mount.target.clone()));
        }
        if !targets.insert(target) {
            return Err(Invalid::MountTwice(mount.target.clone()));
        }
        match &mount.kind {
            MountKind::Bind { source, .. } if !source.starts_with('/') || source.contains('\0') => {
                return Err(Invalid::MountSource(source.clone()));
            }
            MountKind::Volume { source: Some(name), .. } if !is_volume_name(name) => {
                return Err(Invalid::VolumeName(name.clone()));
            }
            MountKind::Bind { .. } | MountKind::Volume { .. } | MountKind::Tmpfs { .. } => {}
        }
    }
    Ok(())
}

fn is_volume_name(name: &str) -> bool {
    // Docker asks for two characters at least, and so does the agent.
    (2..=255).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// Whether the largest message one of its tasks can make fits into a frame.
fn size(name: &str, task: &TaskSpec) -> Result<(), Invalid> {
    let largest = u128::MAX;
    let mut container = task.container.clone();
    // What the task will be granted, at its longest.
    container.env.extend(task.resources.generic.iter().map(|(kind, count)| {
        let names = usize::try_from(*count).unwrap_or(GENERIC_NAMES_MAX).min(GENERIC_NAMES_MAX);
        format!("DOCKER_RESOURCE_{kind}={}", "x".repeat(names * (GENERIC_NAME_BYTES_MAX + 1)))
    }));
    let work = Work {
        service: ServiceId::from_bits(largest),
        service_name: name.to_owned(),
        slot_name: format!("{name}.{}", NodeId::from_bits(largest)),
        container: ContainerSpec { secrets: Vec::new(), configs: Vec::new(), ..container },
        resources: task.resources.clone(),
        log: log_driver::config(task.log.as_ref()).unwrap_or_default(),
        net: Some(net(task)),
        files: work::files(&task.container, TaskId::from_bits(largest), |_| true),
        credentials: None,
        fault: None,
        offline: Offline { restart: Some(OFFLINE_LONGEST), secrets: true, lease_ms: Some(u32::MAX) },
    };
    let assignment =
        Assignment { task: TaskId::from_bits(largest), desired: Desired::Shutdown, work: Some(Box::new(work)) };
    let message = ToAgent::Assign(Assign {
        complete: true,
        from: u64::MAX,
        to: u64::MAX,
        last: true,
        bodies: Vec::new(),
        tasks: vec![assignment],
        removed: Vec::new(),
        logs: Some(vec![TaskId::from_bits(largest); ENDED_LOGS_MAX]),
    });
    // Credentials may come with any update; what the dispatcher keeps free is free here too.
    let most = FRAME_TO_AGENT_MAX - limits::CREDENTIALS_BYTES_MAX - 2 * work::MARGIN;
    frame::encode(&message, most).map(drop).map_err(|_| Invalid::TaskSize)
}

/// The largest that a task's share of the network can be.
fn net(task: &TaskSpec) -> TaskNet {
    let largest = Ipv4Addr::BROADCAST.into();
    let ports = task.endpoint.ports.iter().filter(|port| port.mode == PortMode::Host);
    let port = |port: &Port| HostPort { protocol: port.protocol, published: u16::MAX, target: port.target };
    TaskNet {
        mesh: Some(largest),
        networks: task.networks.iter().map(|attachment| (attachment.network, largest)).collect(),
        ports: ports.map(port).collect(),
        balanced: true,
    }
}
