//! What runs in a task: image, command, environment, mounts.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::Bytes;

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
}

impl ContainerSpec {
    /// How long it may take to stop.
    pub fn stop_grace(&self) -> Duration {
        self.stop_grace.unwrap_or(STOP_GRACE_DEFAULT)
    }
}

/// The network a container sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// Nothing was asked for. Until overlay networks exist this is the same as `None`: a namespace of its own
    /// with a loopback device only.
    #[default]
    Unset,
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
