//! What a container may see and use: the OCI runtime specification of a task.
//!
//! In: the service's [`ContainerSpec`], the image's [`RunConfig`], limits, and what the shell found
//! out ([`Facts`]). Out: the specification as JSON. Same inputs, same bytes. The defaults are
//! Docker's, so that images find what they are used to.

use std::{collections::BTreeMap, path::Path};

use racimo_common::{
    id::TaskId,
    object::{ContainerSpec, NetworkMode, Resources},
    signal::{self, BadSignal},
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    capability::{self, BadCapability},
    cgroup::{Asked, Cgroups, Degraded},
    confine::{Confinement, NoRuntime},
    image::RunConfig,
    init::{self, NoInit},
    kernel::{self, BadSetting},
    mount::{Bound, bind_mount, root_propagation},
    seccomp::{self, Seccomp},
    user::User,
};

/// The annotation by which containers share a shim.
const GROUP_ANNOTATION: &str = "io.containerd.runc.v2.group";
const PATH_DEFAULT: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Microseconds in which the CPU quota may be used up; the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;
/// The kernel's smallest quota.
const CPU_QUOTA_US_MIN: u64 = 1_000;
/// CPU shares of one whole CPU, and the kernel's smallest value.
const CPU_SHARES: u64 = 1024;
const CPU_SHARES_MIN: u64 = 2;
/// Characters of the task's id in the default host name.
const HOSTNAME_CHARS: usize = 12;

/// Places in `/proc` and `/sys` that tell too much about the board.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// Places in `/proc` that change the board when written.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Character devices every container may use: null, zero, full, random, urandom, tty, console,
/// ptmx, and the pseudo terminals.
const DEVICES: [(u32, Option<u32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// What the shell found out before a specification can be written.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The task; also the id of its container.
    pub task: TaskId,
    /// The network namespace that was made for it; none: it gets a new one, unless it is on the board's network.
    pub netns: Option<&'a Path>,
    /// The user, resolved with the image's files.
    pub user: &'a User,
    /// The mounts, with their sources.
    pub mounts: &'a [Bound],
    /// Directory that has `hostname`, `hosts` and `resolv.conf` for this task.
    pub files: &'a Path,
    /// The container's host name, see [`hostname`].
    pub hostname: &'a str,
    /// Containers of the same group share a shim.
    pub group: &'a str,
    /// What the board can enforce.
    pub cgroups: &'a Cgroups,
    /// What the board can confine with.
    pub confine: &'a Confinement,
    /// The board's init program, if the service asks for one.
    pub init: Option<&'a Path>,
    /// The architecture of the board's programs, as Rust names it.
    pub architecture: &'a str,
}

/// Why a task has no specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSpec {
    /// Neither the service nor the image says what to run.
    #[error("no command specified: the image has none and the service gives none")]
    NoCommand,
    /// A limit that would not hold.
    #[error(transparent)]
    Limit(#[from] Degraded),
    /// A capability that it cannot have.
    #[error(transparent)]
    Capability(#[from] BadCapability),
    /// Something the kernel cannot be set to for a container.
    #[error(transparent)]
    Setting(#[from] BadSetting),
    /// There is nothing to start it with.
    #[error(transparent)]
    Runtime(#[from] NoRuntime),
    /// It asks for an init process that this board does not have.
    #[error(transparent)]
    Init(#[from] NoInit),
}

/// The whole specification. The parts that are large are written as they stand.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "ociVersion")]
    oci_version: &'static str,
    process: Value,
    root: Value,
    hostname: &'a str,
    mounts: Vec<Value>,
    annotations: BTreeMap<&'static str, &'a str>,
    linux: Linux,
}

#[derive(Serialize)]
struct Linux {
    #[serde(rename = "cgroupsPath")]
    cgroups_path: String,
    namespaces: Value,
    resources: Value,
    #[serde(rename = "maskedPaths")]
    masked_paths: &'static [&'static str],
    #[serde(rename = "readonlyPaths")]
    readonly_paths: &'static [&'static str],
    #[serde(rename = "rootfsPropagation", skip_serializing_if = "Option::is_none")]
    rootfs_propagation: Option<&'static str>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    sysctl: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seccomp: Option<Seccomp>,
}

/// The container's host name: what the service says, or the board's on the board's network, or
/// the start of the task's id.
pub fn hostname(spec: &ContainerSpec, task: TaskId, board: &str) -> String {
    match (&spec.hostname, spec.network) {
        (Some(name), _) if !name.is_empty() => name.clone(),
        (_, NetworkMode::Host) => board.to_owned(),
        (_, NetworkMode::None | NetworkMode::Unset | NetworkMode::Bridge) => {
            task.to_string()[..HOSTNAME_CHARS].to_owned()
        }
    }
}

/// The user the container runs as, unresolved: the service's or the image's.
pub fn user_text<'a>(spec: &'a ContainerSpec, run: &'a RunConfig) -> &'a str {
    given(&spec.user).or(given(&run.user)).unwrap_or_default()
}

/// The signal that asks the container to stop: the service's, the image's, or SIGTERM.
pub fn stop_signal(spec: &ContainerSpec, run: &RunConfig) -> Result<u32, BadSignal> {
    given(&spec.stop_signal).or(given(&run.stop_signal)).map_or(Ok(signal::SIGTERM), signal::parse)
}

fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

/// Writes the specification.
pub fn build(
    spec: &ContainerSpec,
    run: &RunConfig,
    resources: &Resources,
    facts: &Facts<'_>,
) -> Result<Vec<u8>, BadSpec> {
    let args = args(spec, run, facts.init)?;
    facts.cgroups.check(asked(resources))?;
    let capabilities = capability::decide(&spec.cap_add, &spec.cap_drop, facts.confine.capabilities)?;
    let is_filtered = facts.confine.no_seccomp.is_none() && !spec.privileges.seccomp_unconfined;
    let linux = Linux {
        cgroups_path: format!("/racimo/{}", facts.task),
        namespaces: namespaces(spec.network, facts.netns, facts.cgroups),
        resources: limits(resources, facts.cgroups),
        masked_paths: &MASKED,
        readonly_paths: &READ_ONLY,
        rootfs_propagation: root_propagation(facts.mounts),
        sysctl: kernel::sysctls(&spec.sysctls, spec.network)?,
        seccomp: is_filtered.then(|| seccomp::policy(&capabilities, facts.architecture)),
    };
    let granted = if facts.user.uid == 0 {
        json!({"bounding": capabilities, "effective": capabilities, "permitted": capabilities})
    } else {
        // As execve(2) does it for who is not root.
        json!({"bounding": capabilities})
    };
    let mut process = json!({
        "user": {"uid": facts.user.uid, "gid": facts.user.gid, "additionalGids": groups(facts.user)},
        "args": args,
        "env": env(spec, run, facts.hostname),
        "cwd": cwd(spec, run),
        "capabilities": granted,
        "noNewPrivileges": spec.privileges.no_new_privileges,
        // Otherwise the shim's is inherited, and the kernel would spare the container.
        "oomScoreAdj": kernel::oom_score_adj(spec.oom_score_adj)?,
    });
    if spec.tty {
        process["terminal"] = true.into();
    }
    let rlimits = kernel::limits(&spec.ulimits)?;
    if !rlimits.is_empty() {
        process["rlimits"] = rlimits.into();
    }
    let mut root = json!({"path": "rootfs"});
    if spec.read_only {
        root["readonly"] = true.into();
    }
    let document = Document {
        oci_version: "1.0.2",
        process,
        root,
        hostname: facts.hostname,
        mounts: mounts(spec, facts),
        annotations: BTreeMap::from([(GROUP_ANNOTATION, facts.group)]),
        linux,
    };
    Ok(serde_json::to_vec(&document).expect("maps have text for keys, and writing to memory does not fail"))
}

/// Checks what can be checked without the image: the board has it, and the kernel would take it.
pub fn check(
    spec: &ContainerSpec,
    resources: &Resources,
    cgroups: &Cgroups,
    confine: &Confinement,
) -> Result<(), BadSpec> {
    confine.no_runtime.clone().map_or(Ok(()), Err)?;
    cgroups.check(asked(resources))?;
    capability::decide(&spec.cap_add, &spec.cap_drop, confine.capabilities)?;
    kernel::sysctls(&spec.sysctls, spec.network)?;
    kernel::limits(&spec.ulimits)?;
    kernel::oom_score_adj(spec.oom_score_adj)?;
    Ok(())
}

/// The primary group is among them, as in Docker: a process that gives it up must not gain by it.
fn groups(user: &User) -> Vec<u32> {
    let others = user.groups.iter().filter(|group| **group != user.gid);
    std::iter::once(&user.gid).chain(others).copied().collect()
}

/// The service's command replaces the image's entrypoint and drops its command; the service's
/// arguments replace the image's command.
fn args(spec: &ContainerSpec, run: &RunConfig, init: Option<&Path>) -> Result<Vec<String>, BadSpec> {
    let image = |part: &Option<Vec<String>>| part.clone().unwrap_or_default();
    let mut args = if spec.command.is_empty() { image(&run.entrypoint) } else { spec.command.clone() };
    if !spec.args.is_empty() || !spec.command.is_empty() {
        args.extend_from_slice(&spec.args);
    } else {
        args.extend(image(&run.cmd));
    }
    if args.first().is_none_or(String::is_empty) {
        return Err(BadSpec::NoCommand);
    }
    if init.is_some() {
        args.splice(0..0, [init::TARGET, "--"].map(str::to_owned));
    }
    Ok(args)
}

/// Docker's defaults, the image's variables, then the service's; a later value replaces an
/// earlier one in its place, a bare name removes it.
fn env(spec: &ContainerSpec, run: &RunConfig, hostname: &str) -> Vec<String> {
    let mut env = vec![PATH_DEFAULT.to_owned(), format!("HOSTNAME={hostname}")];
    env.extend(spec.tty.then(|| "TERM=xterm".to_owned()));
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    for variable in run.env.iter().flatten().chain(&spec.env) {
        let present = env.iter().position(|known| name(known) == name(variable));
        match (present, variable.contains('=')) {
            (Some(at), true) => env[at] = variable.clone(),
            (Some(at), false) => drop(env.remove(at)),
            (None, true) => env.push(variable.clone()),
            (None, false) => {}
        }
    }
    env
}

/// Always absolute: a relative one counts from the root.
fn cwd(spec: &ContainerSpec, run: &RunConfig) -> String {
    let dir = given(&spec.dir).or(given(&run.working_dir)).unwrap_or("/");
    if dir.starts_with('/') { dir.to_owned() } else { format!("/{dir}") }
}

fn namespaces(network: NetworkMode, netns: Option<&Path>, cgroups: &Cgroups) -> Value {
    let mut all: Vec<Value> = ["pid", "ipc", "uts", "mount"].map(|kind| json!({"type": kind})).into();
    match (network, netns) {
        (NetworkMode::Host, _) => {}
        (_, Some(path)) => all.push(json!({"type": "network", "path": path})),
        (_, None) => all.push(json!({"type": "network"})),
    }
    if cgroups.version == super::cgroup::Version::V2 {
        all.push(json!({"type": "cgroup"}));
    }
    all.into()
}

/// Which limits must hold. Reservations are promises of the scheduler; a board that cannot also
/// tell its kernel about them still keeps them.
pub fn asked(resources: &Resources) -> Asked {
    let limits = &resources.limits;
    Asked {
        memory: limits.memory.is_some_and(|memory| !memory.is_zero()),
        cpu: limits.cpu.is_some_and(|cpu| !cpu.is_zero()),
        pids: limits.pids.is_some_and(|pids| pids > 0),
    }
}

fn limits(resources: &Resources, cgroups: &Cgroups) -> Value {
    let asked = asked(resources);
    let (limits, reserved) = (&resources.limits, &resources.reservations);
    let mut devices = vec![json!({"allow": false, "access": "rwm"})];
    devices.extend(DEVICES.iter().map(|(major, minor)| {
        let mut rule = json!({"allow": true, "type": "c", "major": major, "access": "rwm"});
        if let Some(minor) = minor {
            rule["minor"] = (*minor).into();
        }
        rule
    }));
    // Any node may be made, but not opened: package managers unpack device files.
    devices.extend(["c", "b"].map(|kind| json!({"allow": true, "type": kind, "access": "m"})));

    let mut memory = Map::new();
    if let Some(limit) = limits.memory.filter(|_| asked.memory) {
        memory.insert("limit".into(), limit.to_i64().into());
        if cgroups.swap {
            // Memory and swap together, as in Docker: without it a leak would fill the swap.
            memory.insert("swap".into(), limit.to_i64().saturating_mul(2).into());
        }
    }
    if !reserved.memory.is_zero() && cgroups.memory {
        memory.insert("reservation".into(), reserved.memory.to_i64().into());
    }
    let mut cpu = Map::new();
    if let Some(limit) = limits.cpu.filter(|_| asked.cpu) {
        let quota = limit.get() / (1_000_000_000 / CPU_PERIOD_US);
        cpu.insert("quota".into(), quota.max(CPU_QUOTA_US_MIN).into());
        cpu.insert("period".into(), CPU_PERIOD_US.into());
    }
    if !reserved.cpu.is_zero() && cgroups.cpu {
        let shares = u128::from(reserved.cpu.get()) * u128::from(CPU_SHARES) / 1_000_000_000;
        let shares = u64::try_from(shares).unwrap_or(u64::MAX).clamp(CPU_SHARES_MIN, CPU_SHARES * 256);
        cpu.insert("shares".into(), shares.into());
    }
    let mut out = json!({"devices": devices});
    for (name, values) in [("memory", memory), ("cpu", cpu)] {
        if !values.is_empty() {
            out[name] = Value::Object(values);
        }
    }
    if let Some(pids) = limits.pids.filter(|_| asked.pids) {
        out["pids"] = json!({"limit": i64::try_from(pids).unwrap_or(i64::MAX)});
    }
    out
}

/// Docker's mounts, then the service's; a service's mount takes the place of a default one. With a read-only root the
/// files of `/etc` cannot be written either.
fn mounts(spec: &ContainerSpec, facts: &Facts<'_>) -> Vec<Value> {
    let system = |target: &str, kind: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": kind, "options": options});
    let access = if spec.read_only { "ro" } else { "rw" };
    let file =
        |name: &str| bind_mount(&format!("/etc/{name}"), &facts.files.join(name), &["rbind", "rprivate", access]);
    let mut mounts = vec![
        system("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        system("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        system("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        system("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        system("/sys/fs/cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
        system("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        system("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        file("resolv.conf"),
        file("hostname"),
        file("hosts"),
    ];
    mounts.retain(|mount| !facts.mounts.iter().any(|bound| mount["destination"] == bound.target.as_str()));
    mounts.extend(facts.mounts.iter().map(Bound::to_oci));
    // Last: what a service mounts there must not take its place.
    mounts.extend(facts.init.map(|init| bind_mount(init::TARGET, init, &["bind", "ro"])));
    mounts
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
