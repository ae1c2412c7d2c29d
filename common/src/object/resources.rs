//! What a task may use and what is kept free for it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::units::{Bytes, NanoCpus};

/// Limits and reservations of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// What it may use at most.
    pub limits: Limits,
    /// What a board must have free to get it.
    pub reservations: Reservations,
    /// How many of each kind of generic resource a board must have free for it: `gpio` -> 2.
    pub generic: BTreeMap<String, u64>,
}

/// What a task may use at most; none: no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// CPU time.
    pub cpu: Option<NanoCpus>,
    /// Memory.
    pub memory: Option<Bytes>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// What a board must have free for a task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reservations {
    /// CPU time.
    pub cpu: NanoCpus,
    /// Memory.
    pub memory: Bytes,
}
