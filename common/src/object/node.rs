//! A board as it describes itself, and what the cluster wants of it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::generic::Generics;
use super::network::WireguardKey;
use crate::registry::Platform;
use crate::units::{Bytes, NanoCpus};

/// What a node may do in the cluster; the OU of its certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Runs tasks.
    #[default]
    Worker,
    /// Keeps the cluster's state; runs tasks if it has an agent.
    Manager,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Worker => "worker",
            Self::Manager => "manager",
        })
    }
}

/// Whether a node takes tasks. Written by users.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Availability {
    /// Takes tasks.
    #[default]
    Active,
    /// Keeps what it has, takes nothing new.
    Pause,
    /// Is emptied.
    Drain,
}

impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Pause => "pause",
            Self::Drain => "drain",
        })
    }
}

/// A board's description of itself. Written by its agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeDescription {
    /// Its host name.
    pub hostname: String,
    /// What its userland can run, best first; never derived from `uname -m`.
    pub platforms: Vec<Platform>,
    /// The kernel's machine name (`aarch64`), for `node.platform.arch` in its second spelling.
    pub machine: String,
    /// CPU time it has.
    pub cpus: NanoCpus,
    /// Memory the kernel has; the manager keeps a reserve of it free.
    pub memory: Bytes,
    /// Kernel release.
    pub kernel: String,
    /// Operating system, in words.
    pub os: String,
    /// Version of the agent.
    pub agent_version: String,
    /// Version of containerd; empty while containerd is away.
    pub containerd_version: String,
    /// Engine labels: from `--label`, and `io.racimo.…` (model, hashed serial).
    pub labels: BTreeMap<String, String>,
    /// Most tasks it can hold at once.
    pub tasks_max: u32,
    /// Generic resources it offers, from its configuration.
    pub generic: Generics,
    /// The address by which other boards reach it, if it was told one; else the one its session comes from.
    pub data_address: Option<std::net::Ipv4Addr>,
    /// Its key for encrypted networks; none: it cannot encrypt, or has made no key yet.
    pub wireguard_key: Option<WireguardKey>,
    /// The rotation that the key belongs to.
    pub key_epoch: u32,
    /// Why it cannot give tasks a network (a kernel module is missing), with the way to mend it; none: it can.
    pub no_network: Option<String>,
    /// Why it cannot encrypt networks; none: it can.
    pub no_encryption: Option<String>,
    /// Why it cannot enforce limits on memory, with the way to mend it; none: it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_memory_limits: Option<String>,
    /// The same of limits on CPU time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_cpu_limits: Option<String>,
    /// The same of limits on the number of processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_pids_limits: Option<String>,
    /// What is wrong with it, one sentence each, with the way to mend it.
    pub degraded: Vec<String>,
}
