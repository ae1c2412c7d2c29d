//! Services: what users want, and how far an update of it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use racimo_common::id::ServiceId;
use racimo_common::time::Wall;
use serde::{Deserialize, Serialize};

use super::{Endpoint, Meta, Sealed, TaskSpec};

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
