//! What the store holds: cluster, nodes, services, tasks.
//!
//! Each field's doc names its writer where it is not the user. Stored times are stamped by the leader.

mod network;

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use racimo_common::id::{ClusterId, DependencyId, NodeId, ServiceId, TaskId};
use racimo_common::net::Subnet;
use racimo_common::object::{
    Availability, ContainerSpec, Desired, EndpointSpec, Generics, NodeDescription, Reservations, Resources, Role,
    TaskState,
};
use racimo_common::registry::Platform;
use racimo_common::time::Wall;
use racimo_common::units::Bytes;
use racimo_common::wire::BoardId;
use serde::{Deserialize, Serialize};

pub use self::network::{
    ADDRESS_POOL_DEFAULT, Addresses, Attachment, ClusterNet, Endpoint, INGRESS, KEEP_SOURCE_LABEL, MESH_SUBNET_DEFAULT,
    Network, NetworkSpec,
};
use super::trust::{NodeTrust, TokenSecret, Trust};
use crate::allocator::address_of;
use crate::limits;

/// When an object was made and last changed, and its version for optimistic updates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Store index of the last change; the `Version.Index` of Docker's API.
    pub version: u64,
    /// When it was made.
    pub created: Wall,
    /// When it was last changed.
    pub updated: Wall,
}

/// The cluster: there is one, or none before `init`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its id; the organisation in its certificates.
    pub id: ClusterId,
    /// Times and version.
    pub meta: Meta,
    /// What users may change.
    pub spec: ClusterSpec,
    /// The root certificate, PEM.
    pub root_pem: String,
    /// Secret part of the worker token.
    pub worker_secret: TokenSecret,
    /// Secret part of the manager token.
    pub manager_secret: TokenSecret,
    /// Addresses (`host:port`) agents may dial; the first is the advertised one.
    pub managers: Vec<String>,
    /// Where subnets and ports of networks come from. Written at `init`.
    #[serde(default)]
    pub net: ClusterNet,
    /// Counts the rotations of the keys of encrypted networks. Written by the dispatcher's clock.
    #[serde(default)]
    pub key_epoch: u32,
    /// When the keys were last rotated.
    #[serde(default)]
    pub keys_rotated: Wall,
    /// How its certificates are signed. Written by the certificate authority.
    #[serde(default)]
    pub trust: Trust,
}

impl fmt::Debug for Cluster {
    /// Without the token secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("id", &self.id).field("spec", &self.spec).finish_non_exhaustive()
    }
}

/// Tasks kept per slot, the live one included, if the cluster's spec does not say (SwarmKit's default).
pub const TASK_HISTORY_DEFAULT: i64 = 5;
/// Heartbeat period if the cluster's spec does not say.
pub const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(1);
/// Validity of node certificates if the cluster's spec does not say.
pub const CERT_EXPIRY_DEFAULT: Duration = Duration::from_secs(90 * 24 * 3600);

/// Settings of the cluster. `None`: the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterSpec {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Tasks kept per slot; negative: all.
    pub task_history: Option<i64>,
    /// How often agents send a heartbeat.
    pub heartbeat: Option<Duration>,
    /// Validity of new node certificates.
    pub cert_expiry: Option<Duration>,
    /// Whether the manager asks for the unlock key after a start.
    pub autolock: bool,
}

impl ClusterSpec {
    /// Tasks kept per slot, the live one included; negative: all.
    pub fn task_history(&self) -> i64 {
        self.task_history.unwrap_or(TASK_HISTORY_DEFAULT)
    }
    /// How often agents send a heartbeat.
    pub fn heartbeat(&self) -> Duration {
        self.heartbeat.unwrap_or(HEARTBEAT_DEFAULT)
    }
    /// Validity of new node certificates.
    pub fn cert_expiry(&self) -> Duration {
        self.cert_expiry.unwrap_or(CERT_EXPIRY_DEFAULT)
    }
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its id: the CN of its certificate.
    pub id: NodeId,
    /// Times and version.
    pub meta: Meta,
    /// What users may change.
    pub spec: NodeSpec,
    /// What its certificate says. Written at join.
    pub role: Role,
    /// SHA-256 of its public key: a node is its key, not its address. Written at join; none for the manager's own.
    pub key_digest: Option<[u8; 32]>,
    /// The board's own description. Written by the dispatcher, when it differs.
    pub description: Arc<NodeDescription>,
    /// The address its last session came from. Written by the dispatcher, when it differs.
    pub addr: String,
    /// Its part of the mesh: addresses of its gateway and its tasks. Written by the store while there is a mesh.
    #[serde(default)]
    pub mesh: Option<Subnet>,
    /// Set while the node counts as down: its tasks are replaced. Written by the dispatcher's liveness;
    /// cleared only by a clean report of the node.
    pub written_off: Option<WrittenOff>,
    /// What it shows and trusts; none: it has not said so yet. Written by the dispatcher, when it differs.
    #[serde(default)]
    pub trust: Option<NodeTrust>,
    /// Which board its key is on; none: it has not said so yet. Written by the dispatcher, when it differs.
    #[serde(default)]
    pub board: Option<BoardId>,
}

impl Node {
    /// Whether there is an agent to run tasks: a manager's own board may have none.
    pub fn has_agent(&self) -> bool {
        self.role == Role::Worker || self.description.tasks_max > 0
    }

    /// The IPv4 address by which other boards reach it: the one its agent was told, else the one its session comes
    /// from. None: that is an IPv6 one, so it can have no part of the mesh and no overlay network.
    pub fn data_address(&self) -> Option<Ipv4Addr> {
        let seen = || address_of(&self.addr);
        let address = self.description.data_address.or_else(seen)?;
        (!address.is_unspecified() && !address.is_multicast() && !address.is_broadcast()).then_some(address)
    }

    /// What tasks may reserve: what the kernel has, less the system's reserve.
    pub fn capacity(&self) -> Reservations {
        Reservations {
            cpu: self.description.cpus,
            memory: self.description.memory.saturating_sub(system_reserve(self.description.memory)),
        }
    }
}

/// Memory kept free for the system: the larger of 64 MiB and 10 % (DESIGN §2, "System reserve").
pub fn system_reserve(total: Bytes) -> Bytes {
    Bytes::mib(64).max(Bytes::new(total.get() / 10))
}

/// A node that counts as down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenOff {
    /// Since when.
    pub at: Wall,
    /// Why, for `node inspect` (`heartbeat failure`).
    pub reason: String,
}

/// What users may change about a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    /// A name for it, beside its host name.
    pub name: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it takes tasks.
    pub availability: Availability,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its id.
    pub id: ServiceId,
    /// Times and version.
    pub meta: Meta,
    /// What users want.
    pub spec: Arc<ServiceSpec>,
    /// The spec before the last update; none before the first.
    pub previous: Option<Arc<ServiceSpec>>,
    /// Store index at which `spec.task` last changed (of a job: its iteration): the revision that new tasks carry.
    /// Written by the store.
    pub revision: u64,
    /// Progress of the running or last update. Written by the orchestrator.
    pub update: Option<UpdateStatus>,
    /// Where a job is; none for services that run on. Written by the store with each spec.
    pub job: Option<JobStatus>,
    /// Its ports and virtual addresses. Written by the store with each spec.
    #[serde(default)]
    pub endpoint: Endpoint,
    /// What the spec before had, while an update may go back to it by itself: nobody else gets it meanwhile. Written
    /// by the store.
    #[serde(default)]
    pub held: Option<Endpoint>,
}

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// Store index of the spec that began this iteration: every update runs the job anew.
    pub iteration: u64,
    /// When it began.
    pub started: Wall,
}

/// What users want of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Unique name, compared without case.
    pub name: String,
    /// Labels of the service (not of its containers).
    pub labels: BTreeMap<String, String>,
    /// What its tasks run.
    pub task: Arc<TaskSpec>,
    /// How many tasks.
    pub mode: Mode,
    /// How it is updated; none: the defaults.
    pub update: Option<UpdateConfig>,
    /// How it is rolled back; none: the defaults.
    pub rollback: Option<UpdateConfig>,
    /// How its boards log in at the image's registry, sealed by the vault. It never makes a task dirty.
    pub credentials: Option<Sealed>,
}

/// How many tasks a service has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// This many, anywhere.
    Replicated {
        /// How many.
        replicas: u64,
    },
    /// One on every node that satisfies the constraints.
    Global,
    /// Runs to completion so many times, anywhere.
    ReplicatedJob {
        /// Most at once.
        concurrent_max: u64,
        /// Completions wanted.
        completions: u64,
    },
    /// Runs to completion once on every node that satisfies the constraints.
    GlobalJob,
}

impl Mode {
    /// Whether tasks run to completion.
    pub fn is_job(self) -> bool {
        match self {
            Self::ReplicatedJob { .. } | Self::GlobalJob => true,
            Self::Replicated { .. } | Self::Global => false,
        }
    }
}

/// How a service is updated or rolled back. `None`: Swarm's default (reference §12).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdateConfig {
    /// Slots at a time; 0: all.
    pub parallelism: Option<u64>,
    /// Wait between slots.
    pub delay: Option<Duration>,
    /// How long a new task is watched after it runs.
    pub monitor: Option<Duration>,
    /// What to do about failures.
    pub failure_action: Option<FailureAction>,
    /// Share of slots that may fail.
    pub failure_ratio: Option<Ratio>,
    /// Which goes first.
    pub order: Option<Order>,
}

impl UpdateConfig {
    /// Slots at a time; 0: all.
    pub fn parallelism(&self) -> u64 {
        self.parallelism.unwrap_or(1)
    }
    /// Wait between slots.
    pub fn delay(&self) -> Duration {
        self.delay.unwrap_or_default()
    }
    /// How long a new task is watched after it runs.
    pub fn monitor(&self) -> Duration {
        self.monitor.unwrap_or(Duration::from_secs(5))
    }
    /// What to do about failures.
    pub fn failure_action(&self) -> FailureAction {
        self.failure_action.unwrap_or(FailureAction::Pause)
    }
    /// Share of slots that may fail.
    pub fn failure_ratio(&self) -> Ratio {
        self.failure_ratio.unwrap_or_default()
    }
    /// Which goes first.
    pub fn order(&self) -> Order {
        self.order.unwrap_or(Order::StopFirst)
    }
}

/// What to do when more tasks fail than may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureAction {
    /// Stop until the next spec.
    Pause,
    /// Go on; failures are not even counted.
    Continue,
    /// Back to the spec before. A rollback that fails pauses instead.
    Rollback,
}

/// Which goes first in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// The old task stops, then the new one starts.
    StopFirst,
    /// The new task runs, then the old one stops.
    StartFirst,
}

/// A share between 0 and 1, in millionths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ratio(u32);

impl Ratio {
    const ONE: f64 = 1e6;

    /// The nearest share; none: not between 0 and 1.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be between 0 and 1e6")]
    pub fn new(share: f64) -> Option<Self> {
        (0.0..=1.0).contains(&share).then(|| Self((share * Self::ONE).round() as u32))
    }
    /// As a number between 0 and 1.
    pub fn get(self) -> f64 {
        f64::from(self.0) / Self::ONE
    }
}

/// Bytes that only the vault's key opens. Never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(pub Arc<serde_bytes::ByteBuf>);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

/// A secret or a config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// Its id.
    pub id: DependencyId,
    /// Which of the two.
    pub kind: DependencyKind,
    /// Times and version.
    pub meta: Meta,
    /// Unique among its kind, compared without case.
    pub name: String,
    /// Labels: all that can be changed.
    pub labels: BTreeMap<String, String>,
    /// Whether its content is a template, filled in for each task.
    pub template: bool,
    /// Its content.
    pub body: Sealed,
}

/// What tasks depend on beside their image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DependencyKind {
    /// Content that the API never gives back.
    Secret,
    /// Content that it does.
    Config,
}

impl DependencyKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Secret, Self::Config];

    /// `secret` or `config`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Config => "config",
        }
    }

    /// Bytes that its content may have.
    pub const fn bytes_max(self) -> usize {
        match self {
            Self::Secret => limits::SECRET_BYTES_MAX,
            Self::Config => limits::CONFIG_BYTES_MAX,
        }
    }
}

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

/// Progress of an update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateStatus {
    /// Where it is.
    pub state: UpdateState,
    /// When it began.
    pub started: Wall,
    /// When it ended.
    pub completed: Option<Wall>,
    /// In words, as Docker says it.
    pub message: String,
    /// Tasks of the update that failed so far (or since it began), for the failure ratio.
    pub failures: u32,
}

/// Where an update is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateState {
    /// Running.
    Updating,
    /// Stopped by a failure, until the next spec.
    Paused,
    /// Done.
    Completed,
    /// Back to the spec before: running.
    RollbackStarted,
    /// Back to the spec before: stopped by a failure, until the next spec.
    RollbackPaused,
    /// Back at the spec before.
    RollbackCompleted,
}

/// Which place of its service a task fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Slot {
    /// Slot 1..N of a replicated service, 0..N-1 of a replicated job.
    Replica(u32),
    /// The one task of a global service or job on this node.
    Node(NodeId),
}

/// One task: one attempt to run a slot's container. What agents observe is in [`super::Seen`], not here.
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
    /// What it runs. Many tasks share one; a snapshot stores it once ([`super::state`]).
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
