//! States of a task.
//!
//! ```text
//! manager: New ─▶ Pending ─▶ Assigned
//! agent:   Accepted ─▶ Preparing ─▶ Ready ─▶ Starting ─▶ Running ─▶ Complete | Shutdown | Failed
//!             └─ an error before Starting ─▶ Rejected
//! manager: Orphaned (its node is lost)
//! ```
//! Observed state never decreases (SwarmKit's task model).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::network::HostPort;
use crate::id::TaskId;
use crate::time::Wall;

macro_rules! states {
    ($($(#[$doc:meta])* $name:ident $text:literal)*) => {
        /// Observed state of a task, in the order of a task's life.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum TaskState {
            $($(#[$doc])* $name,)*
        }
        impl TaskState {
            /// Every state, in order.
            pub const ALL: &'static [TaskState] = &[$(TaskState::$name),*];
            /// The state's name in Docker's API.
            pub const fn name(self) -> &'static str {
                match self { $(TaskState::$name => $text,)* }
            }
        }
    };
}

states! {
    /// Created by an orchestrator.
    #[default] New "new"
    /// Its resources are allocated; it waits for a node.
    Pending "pending"
    /// A node was chosen.
    Assigned "assigned"
    /// The agent has it.
    Accepted "accepted"
    /// The image is being pulled.
    Preparing "preparing"
    /// The container is made and may be started.
    Ready "ready"
    /// The container is being started.
    Starting "starting"
    /// The container runs.
    Running "running"
    /// It ended by itself with exit code 0.
    Complete "complete"
    /// It was stopped on request.
    Shutdown "shutdown"
    /// It ended with an error at or after `Starting`.
    Failed "failed"
    /// An error before `Starting`, or evicted from its node.
    Rejected "rejected"
    /// Its node is lost or was removed.
    Orphaned "orphaned"
}

impl TaskState {
    /// Whether the task has ended and will never run again.
    pub fn is_terminal(self) -> bool {
        self > TaskState::Running
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What is wanted of a task. Written by the manager only; it only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Desired {
    /// Prepare, but do not start yet.
    Ready,
    /// Run.
    Running,
    /// Stop.
    Shutdown,
    /// Stop, and forget it then.
    Remove,
}

impl Desired {
    /// The state's name in Docker's API.
    pub const fn name(self) -> &'static str {
        match self {
            Desired::Ready => "ready",
            Desired::Running => "running",
            Desired::Shutdown => "shutdown",
            Desired::Remove => "remove",
        }
    }
}

impl fmt::Display for Desired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What an agent says about one task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReport {
    /// The task.
    pub task: TaskId,
    /// The state it is in.
    pub state: TaskState,
    /// Since when, by the board's clock.
    pub at: Wall,
    /// What is going on, in a word or two (`started`).
    pub message: String,
    /// What went wrong.
    pub err: Option<String>,
    /// Its container, once there is one.
    pub container: Option<ContainerStatus>,
    /// The ports of its board that it has, while it has them.
    #[serde(default)]
    pub ports: Vec<HostPort>,
    /// Its health check has failed for good: it runs, but is about to be stopped, and takes no new connections.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unhealthy: bool,
    /// How often its board has started it again while it heard no manager.
    #[serde(default, skip_serializing_if = "is_none")]
    pub restarts: u32,
}

fn is_none(count: &u32) -> bool {
    *count == 0
}

/// The container of a task as the agent sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerStatus {
    /// Its id in containerd.
    pub id: String,
    /// Its first process while it runs; 0 otherwise.
    pub pid: u32,
    /// Exit code, once it ended.
    pub exit_code: Option<i32>,
}
