//! Tasks: what they run and where, the place they fill, and how they end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use racimo_common::id::{NodeId, ServiceId, TaskId};
use racimo_common::object::{ContainerSpec, Desired, EndpointSpec, Generics, Resources, TaskState};
use racimo_common::registry::Platform;
use racimo_common::time::Wall;
use serde::{Deserialize, Serialize};

use super::{Addresses, Attachment, Meta};

/// What a task runs, where it may run and when it is restarted. Immutable inside a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskSpec {
    /// The container.
    pub container: ContainerSpec,
    /// Limits and reservations.
    pub resources: Resources,
    /// When it is restarted.
    pub restart: RestartPolicy,
    /// Where it may run.
    pub placement: Placement,
    /// Where its output goes; none: the default driver.
    pub log: Option<LogDriver>,
    /// Overlay networks it is attached to; `container.network` names the predefined ones.
    pub networks: Vec<Attachment>,
    /// How it is reached.
    pub endpoint: EndpointSpec,
    /// Counts `--force` updates; a new value replaces every task.
    pub force_update: u64,
    /// What boards do with it while they hear no manager: from the service's labels.
    pub offline: OfflineSpec,
}

/// What boards do with a task while they hear no manager, beside restarting it by its policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OfflineSpec {
    /// Whether the contents of its secrets and configs are never on a board's disk.
    pub lacks_secrets: bool,
    /// The board stops it when it has heard no manager for so long, and no other runs in its slot before; none: it runs
    /// on.
    pub lease: Option<Duration>,
}

/// Where a task's output goes, as Docker's clients say it; [`crate::api`] checks it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogDriver {
    /// `json-file` and `local` (both: files on the board) or `none`.
    pub name: String,
    /// `max-size`, `max-file`.
    pub options: BTreeMap<String, String>,
}

/// When a task that ended is replaced. `None`: the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestartPolicy {
    /// After what ends.
    pub condition: Option<RestartCondition>,
    /// How long to wait first.
    pub delay: Option<Duration>,
    /// How many times per slot; none or 0: without limit.
    pub attempts_max: Option<u64>,
    /// Only restarts within this window count; none or zero: all.
    pub window: Option<Duration>,
}

impl RestartPolicy {
    /// After what ends a task is replaced.
    pub fn condition(&self) -> RestartCondition {
        self.condition.unwrap_or(RestartCondition::Any)
    }
    /// How long to wait before a replacement starts (5 s).
    pub fn delay(&self) -> Duration {
        self.delay.unwrap_or(Duration::from_secs(5))
    }
    /// How many restarts a slot gets; none: without limit.
    pub fn attempts_max(&self) -> Option<u64> {
        self.attempts_max.filter(|&n| n > 0)
    }
    /// The window in which restarts count; none: for ever.
    pub fn window(&self) -> Option<Duration> {
        self.window.filter(|w| !w.is_zero())
    }
}

/// After what ends a task is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartCondition {
    /// Never.
    None,
    /// After anything but exit code 0.
    OnFailure,
    /// Always.
    Any,
}

/// Where tasks may run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Placement {
    /// `key==value` or `key!=value`, as written; checked by the API.
    pub constraints: Vec<String>,
    /// Spread over the values of these labels (`node.labels.zone`), outermost first.
    pub preferences: Vec<String>,
    /// Most tasks of the service on one node; 0: without limit.
    pub replicas_max: u64,
    /// Platforms the image is made for; empty: unknown, any will do.
    pub platforms: Vec<Platform>,
}

/// Which place of its service a task fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Slot {
    /// Slot 1..N of a replicated service, 0..N-1 of a replicated job.
    Replica(u32),
    /// The one task of a global service or job on this node.
    Node(NodeId),
}

/// One task: one attempt to run a slot's container. What agents observe is in [`crate::store::Seen`], not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its id; also its container's.
    pub id: TaskId,
    /// Times and version.
    pub meta: Meta,
    /// Its service (which may be gone).
    pub service: ServiceId,
    /// The service's name when the task was made.
    pub service_name: Arc<str>,
    /// The place it fills.
    pub slot: Slot,
    /// What it runs. Many tasks share one; a snapshot stores it once ([`crate::store::State`]).
    #[serde(skip)]
    pub spec: Arc<TaskSpec>,
    /// The service's revision it was made for.
    pub revision: u64,
    /// The job iteration it was made for; 0 if its service is no job.
    #[serde(default)]
    pub iteration: u64,
    /// Generic resources it holds on its node. Written with `node`.
    #[serde(default)]
    pub generic: Generics,
    /// What is wanted. Written by the orchestrator. `Running` of a job's task means: until it completes.
    pub desired: Desired,
    /// When a task with desired `Ready` may go on to `Running`. Written by the orchestrator.
    pub gate: Option<Gate>,
    /// Its node. Written by the scheduler (by the orchestrator for global services); never changes once set.
    pub node: Option<NodeId>,
    /// Its addresses, which it holds until it ended. Written with `node`.
    #[serde(default)]
    pub addresses: Addresses,
    /// How it ended. Written by the dispatcher or an enforcer, once.
    pub ended: Option<Ended>,
}

impl Task {
    /// `web.1`, or `web.<node id>` for a global service.
    pub fn slot_name(&self) -> String {
        match self.slot {
            Slot::Replica(number) => format!("{}.{number}", self.service_name),
            Slot::Node(node) => format!("{}.{node}", self.service_name),
        }
    }

    /// Its container's name: the slot's and the task's id.
    pub fn name(&self) -> String {
        format!("{}.{}", self.slot_name(), self.id)
    }
}

/// What holds a task at desired `Ready`: a restart delay, an old task that must stop first, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// Not before this time.
    pub not_before: Wall,
    /// Not before this task ended (or its node is down, or a minute has passed).
    pub after: Option<TaskId>,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// A terminal state.
    pub state: TaskState,
    /// When the manager learnt of it.
    pub at: Wall,
    /// In a word or two (`finished`).
    pub message: String,
    /// What went wrong.
    pub err: Option<String>,
    /// Its container, if it had one.
    pub container: Option<String>,
    /// The container's exit code, if it ran.
    pub exit_code: Option<i32>,
}

/// Restarts of a slot under one revision, for `attempts_max`. Written by the store with each replacement.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotHistory {
    /// The revision the restarts belong to; a new one starts over.
    pub revision: u64,
    /// How many.
    pub restarts: u64,
    /// When, newest last: as many as `attempts_max` needs if there is a window, else only the last.
    pub times: Vec<Wall>,
}

/// Failures of one revision of a service on one node, newest last; the scheduler avoids such nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFailures {
    /// The revision that failed.
    pub revision: u64,
    /// The last few times.
    pub times: Vec<Wall>,
}
