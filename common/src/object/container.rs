//! What runs in a task: image, command, environment, mounts.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::DependencyId;
use crate::units::Bytes;

/// The label, of a service or of its containers, whose tasks have a shim each, if it is `true`.
pub const ISOLATE_SHIM_LABEL: &str = "io.racimo.isolate-shim";

/// How long a container may take to stop before it is killed, if its spec does not say.
pub const STOP_GRACE_DEFAULT: Duration = Duration::from_secs(10);

/// The container of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Image reference as the user (or the digest resolution) wrote it.
    pub image: String,
    /// Replaces the image's entrypoint and drops its command; empty: the image's.
    pub command: Vec<String>,
    /// Replaces the image's command; empty: the image's.
    pub args: Vec<String>,
    /// `KEY=value`, or `KEY` alone to remove one of the image's.
    pub env: Vec<String>,
    /// Container labels.
    pub labels: BTreeMap<String, String>,
    /// Host name inside; none: the first 12 characters of the task's id.
    pub hostname: Option<String>,
    /// `user[:group]`, names or numbers; none: the image's.
    pub user: Option<String>,
    /// Working directory; none: the image's.
    pub dir: Option<String>,
    /// What is mounted.
    pub mounts: Vec<Mount>,
    /// Name (`SIGINT`, `INT`) or number of the signal that asks it to stop; none: the image's, or SIGTERM.
    pub stop_signal: Option<String>,
    /// How long it may take to stop; none: [`STOP_GRACE_DEFAULT`].
    pub stop_grace: Option<Duration>,
    /// The network namespace it gets.
    pub network: NetworkMode,
    /// How its health is looked after; none: as the image says.
    pub health: Option<HealthConfig>,
    /// Whether a small init process runs as its first process; none: no.
    pub init: Option<bool>,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Whether its standard input stays open (nobody can write to it).
    pub open_stdin: bool,
    /// Whether its root file system cannot be written.
    pub read_only: bool,
    /// Supplementary groups, names or numbers.
    pub groups: Vec<String>,
    /// Capabilities beyond the default ones: `CAP_NET_ADMIN`, or `ALL`.
    pub cap_add: Vec<String>,
    /// Default capabilities it does without.
    pub cap_drop: Vec<String>,
    /// Resource limits of its processes.
    pub ulimits: Vec<Ulimit>,
    /// Kernel settings of its own namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Its `/etc/resolv.conf`; what is empty is the board's.
    pub dns: DnsConfig,
    /// Further lines of `/etc/hosts`, as hosts(5) has them: `10.0.0.1 db db.lan`.
    pub hosts: Vec<String>,
    /// Bias of the kernel's choice of whom to kill when memory is short, -1000 to 1000; none: 0.
    pub oom_score_adj: Option<i32>,
    /// Further confinement.
    pub privileges: Privileges,
    /// Secrets it can read.
    pub secrets: Vec<FileRef>,
    /// Configs it can read.
    pub configs: Vec<FileRef>,
}

impl ContainerSpec {
    /// How long it may take to stop.
    pub fn stop_grace(&self) -> Duration {
        self.stop_grace.unwrap_or(STOP_GRACE_DEFAULT)
    }
}

/// How a container's health is looked after. `None`: as the image says, else the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthConfig {
    /// `["CMD", program, argument…]`, `["CMD-SHELL", line]`, or `["NONE"]` to switch the image's check off; empty:
    /// the image's.
    pub test: Vec<String>,
    /// Time between two checks (30 s).
    pub interval: Option<Duration>,
    /// Time a check may take; longer: it failed (30 s).
    pub timeout: Option<Duration>,
    /// Time after the start in which failures do not count (0).
    pub start_period: Option<Duration>,
    /// Time between two checks in the start period (5 s).
    pub start_interval: Option<Duration>,
    /// Failures in a row that make it unhealthy (3).
    pub retries: Option<u32>,
}

/// A resource limit as setrlimit(2) knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Lower-case name without `RLIMIT_`: `nofile`.
    pub name: String,
    /// Soft limit; -1: none.
    pub soft: i64,
    /// Hard limit; -1: none.
    pub hard: i64,
}

impl Ulimit {
    /// What setrlimit(2) knows on Linux.
    pub const NAMES: [&str; 15] = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
}

/// What goes into `/etc/resolv.conf`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsConfig {
    /// Addresses of name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub search: Vec<String>,
    /// Options of resolv.conf(5): `ndots:2`.
    pub options: Vec<String>,
}

/// Confinement beyond capabilities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Privileges {
    /// Whether it can never gain privileges (set-user-id programs).
    pub no_new_privileges: bool,
    /// Whether it may make every system call its capabilities allow, instead of those of Docker's default policy.
    pub seccomp_unconfined: bool,
}

/// A secret or config that a container can read as a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRef {
    /// The secret or config.
    pub id: DependencyId,
    /// Its name when the spec was written.
    pub name: String,
    /// Where the file is: a secret's is relative to `/run/secrets`, a config's to `/`, unless absolute.
    pub target: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// The network a container sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// Nothing was asked for: a namespace of its own from which it reaches the world, and its overlay networks.
    #[default]
    Unset,
    /// The same without overlay networks, asked for by Docker's name `bridge`.
    Bridge,
    /// A namespace of its own with a loopback device only.
    None,
    /// The board's own network.
    Host,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside the container.
    pub target: String,
    /// Whether the container may not write to it.
    pub read_only: bool,
    /// Where it comes from.
    pub kind: MountKind,
}

/// Where a mount comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A directory or file of the board; it must exist.
    Bind {
        /// Absolute path on the board.
        source: String,
        /// Further options.
        options: BindOptions,
    },
    /// A named directory that the agent keeps; made when missing.
    Volume {
        /// The volume's name; none: an anonymous volume that goes with the task.
        source: Option<String>,
        /// Further options.
        options: VolumeOptions,
    },
    /// Memory.
    Tmpfs {
        /// Further options.
        options: TmpfsOptions,
    },
}

/// Options of a bind mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BindOptions {
    /// How mounts made later below it spread; none: `rprivate`.
    pub propagation: Option<Propagation>,
    /// Whether mounts below the source are left out.
    pub non_recursive: bool,
}

/// How mounts made later below a bind mount spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the mount flags' own")]
pub enum Propagation {
    Private,
    Rprivate,
    Shared,
    Rshared,
    Slave,
    Rslave,
}

/// Options of a named volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeOptions {
    /// Whether an empty volume is *not* filled with what the image has at the target.
    pub no_copy: bool,
    /// Labels of the volume.
    pub labels: BTreeMap<String, String>,
}

/// Options of a memory mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TmpfsOptions {
    /// Most it may hold; none: the kernel's default (half the memory).
    pub size: Option<Bytes>,
    /// Permission bits; none: 1777.
    pub mode: Option<u32>,
}
