//! What a container may see and use: the OCI runtime specification of a task.
//!
//! In: the service's [`ContainerSpec`], the image's [`RunConfig`], limits, and what the shell found
//! out ([`Facts`]). Out: the specification as JSON. Same inputs, same bytes. The defaults are
//! Docker's, so that images find what they are used to.

use std::path::Path;

use racimo_common::{
    id::TaskId,
    object::{ContainerSpec, NetworkMode, Resources},
    signal::{self, BadSignal},
};
use serde_json::{Map, Value, json};

use super::{
    cgroup::{Asked, Cgroups, Degraded},
    image::RunConfig,
    mount::{Bound, bind_mount, root_propagation},
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

/// Docker's default capabilities.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];
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
}

/// The container's host name: what the service says, or the board's on the board's network, or
/// the start of the task's id.
pub fn hostname(spec: &ContainerSpec, task: TaskId, board: &str) -> String {
    match (&spec.hostname, spec.network) {
        (Some(name), _) if !name.is_empty() => name.clone(),
        (_, NetworkMode::Host) => board.to_owned(),
        (_, NetworkMode::None | NetworkMode::Unset) => task.to_string()[..HOSTNAME_CHARS].to_owned(),
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
    let args = args(spec, run)?;
    facts.cgroups.check(asked(resources))?;
    let mut linux = json!({
        "cgroupsPath": format!("/racimo/{}", facts.task),
        "namespaces": namespaces(spec.network, facts.cgroups),
        "resources": limits(resources, facts.cgroups),
        "maskedPaths": MASKED,
        "readonlyPaths": READ_ONLY,
    });
    if let Some(propagation) = root_propagation(facts.mounts) {
        linux["rootfsPropagation"] = propagation.into();
    }
    if spec.network != NetworkMode::Host {
        // As in Docker: low ports and ping need no privilege in a network of one's own.
        linux["sysctl"] = json!({
            "net.ipv4.ip_unprivileged_port_start": "0",
            "net.ipv4.ping_group_range": "0 2147483647",
        });
    }
    let root = facts.user.uid == 0;
    let capabilities = if root {
        json!({"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES})
    } else {
        json!({"bounding": CAPABILITIES})
    };
    let document = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": facts.user.uid, "gid": facts.user.gid, "additionalGids": facts.user.groups},
            "args": args,
            "env": env(spec, run, facts.hostname),
            "cwd": cwd(spec, run),
            "capabilities": capabilities,
            "noNewPrivileges": false,
            // Otherwise the shim's is inherited, and the kernel would spare the container.
            "oomScoreAdj": 0,
        },
        "root": {"path": "rootfs"},
        "hostname": facts.hostname,
        "mounts": mounts(facts),
        "annotations": {GROUP_ANNOTATION: facts.group},
        "linux": linux,
    });
    Ok(document.to_string().into_bytes())
}

/// The service's command replaces the image's entrypoint and drops its command; the service's
/// arguments replace the image's command.
fn args(spec: &ContainerSpec, run: &RunConfig) -> Result<Vec<String>, BadSpec> {
    let image = |part: &Option<Vec<String>>| part.clone().unwrap_or_default();
    let mut args = if spec.command.is_empty() { image(&run.entrypoint) } else { spec.command.clone() };
    if !spec.args.is_empty() || !spec.command.is_empty() {
        args.extend_from_slice(&spec.args);
    } else {
        args.extend(image(&run.cmd));
    }
    let runs_something = args.first().is_some_and(|program| !program.is_empty());
    if runs_something { Ok(args) } else { Err(BadSpec::NoCommand) }
}

/// Docker's defaults, the image's variables, then the service's; a later value replaces an
/// earlier one in its place, a bare name removes it.
fn env(spec: &ContainerSpec, run: &RunConfig, hostname: &str) -> Vec<String> {
    let mut env = vec![PATH_DEFAULT.to_owned(), format!("HOSTNAME={hostname}")];
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

fn namespaces(network: NetworkMode, cgroups: &Cgroups) -> Value {
    let mut kinds = vec!["pid", "ipc", "uts", "mount"];
    if network != NetworkMode::Host {
        kinds.push("network");
    }
    if cgroups.version == super::cgroup::Version::V2 {
        kinds.push("cgroup");
    }
    kinds.into_iter().map(|kind| json!({"type": kind})).collect()
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

/// Docker's mounts, then the service's; a service's mount takes the place of a default one.
fn mounts(facts: &Facts<'_>) -> Vec<Value> {
    let system = |target: &str, kind: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": kind, "options": options});
    let file = |name: &str| bind_mount(&format!("/etc/{name}"), &facts.files.join(name), &["rbind", "rprivate", "rw"]);
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
    mounts
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
