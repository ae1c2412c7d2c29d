//! What can be done to the state. A [`Command`] is a list of changes that take effect together or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use racimo_common::id::{ClusterId, DependencyId, NetworkId, NodeId, ServiceId, TaskId};
use racimo_common::net::Subnet;
use racimo_common::object::{Desired, Generics, NodeDescription, PortMode, Role};
use racimo_common::time::Wall;
use racimo_common::wire::BoardId;
use serde::{Deserialize, Serialize};

use super::object::{
    ClusterNet, ClusterSpec, DependencyKind, Ended, Gate, NetworkSpec, NodeSpec, Sealed, ServiceSpec, Slot,
    UpdateStatus, WrittenOff,
};
use super::trust::{Access, NodeTrust, Rotation, TokenSecret};
use crate::allocator::{BadPorts, BadSubnet, Usage};
use crate::limits::{ACCESSES_MAX, DEPENDENCIES_BYTES_MAX, DEPENDENCIES_MAX, NETWORKS_MAX};

/// One transaction, as it is logged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// The leader's clock.
    pub at: Wall,
    /// In order.
    pub changes: Vec<Change>,
}

/// A new cluster.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct NewCluster {
    /// Its id.
    pub id: ClusterId,
    /// Its settings.
    pub spec: ClusterSpec,
    /// The root certificate, PEM.
    pub root_pem: String,
    /// Secret part of the worker token.
    pub worker_secret: TokenSecret,
    /// Secret part of the manager token.
    pub manager_secret: TokenSecret,
    /// Addresses agents may dial.
    pub managers: Vec<String>,
    /// Where subnets and ports of networks come from.
    #[serde(default)]
    pub net: ClusterNet,
    /// The root's private key, PEM, sealed by the vault.
    #[serde(default)]
    pub key: Option<Sealed>,
    /// Id of the mesh between the boards, the network `ingress`, which is made with it.
    pub ingress: NetworkId,
}

impl NewCluster {
    /// One without secrets, that no agent can join.
    pub fn bare(id: ClusterId, ingress: NetworkId) -> Self {
        Self {
            id,
            spec: ClusterSpec::default(),
            root_pem: String::new(),
            worker_secret: [0; 16].into(),
            manager_secret: [0; 16].into(),
            managers: Vec::new(),
            net: ClusterNet::default(),
            key: None,
            ingress,
        }
    }
}

impl std::fmt::Debug for NewCluster {
    /// Without the token secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewCluster").field("id", &self.id).field("spec", &self.spec).finish_non_exhaustive()
    }
}

/// A new member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewNode {
    /// Its id.
    pub id: NodeId,
    /// What its certificate says.
    pub role: Role,
    /// What users may change.
    pub spec: NodeSpec,
    /// The board, as far as it is known.
    pub description: Arc<NodeDescription>,
    /// Where it joined from.
    pub addr: String,
    /// SHA-256 of its public key.
    pub key_digest: Option<[u8; 32]>,
}

/// A new task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewTask {
    /// Its id.
    pub id: TaskId,
    /// Its service; must exist.
    pub service: ServiceId,
    /// The revision it is made for; must be the service's current one.
    pub revision: u64,
    /// The place it fills.
    pub slot: Slot,
    /// `Ready` or `Running`.
    pub desired: Desired,
    /// What holds it at `Ready`.
    pub gate: Option<Gate>,
    /// The task it replaces after an end that the restart policy judged: counted in the slot's history.
    pub restart_of: Option<TaskId>,
    /// Its node, for global services.
    pub node: Option<NodeId>,
}

/// Who wants a service rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RollbackBy {
    /// A user, if the service's version is current. Spec and previous spec change places: doing it twice toggles.
    User {
        /// The version the request is based on.
        version: u64,
    },
    /// The updater, if the service's revision is current. There is no previous spec after it.
    Updater {
        /// The revision that failed.
        revision: u64,
        /// The task whose failure was one too many.
        task: TaskId,
    },
}

/// A new secret or config.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewDependency {
    /// Its id; its body is sealed for it.
    pub id: DependencyId,
    /// Which of the two.
    pub kind: DependencyKind,
    /// Unique among its kind.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whether its content is a template.
    pub template: bool,
    /// Its content.
    pub body: Sealed,
}

/// One change. Every variant is validated against the state it meets; a stale one is refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// Makes the cluster; there must be none.
    ClusterCreate(Box<NewCluster>),
    /// New settings, if `version` is current.
    ClusterUpdate {
        /// The version the update is based on.
        version: u64,
        /// The new settings.
        spec: ClusterSpec,
        /// New secret of the worker token, if it is rotated.
        worker_secret: Option<TokenSecret>,
        /// New secret of the manager token, if it is rotated.
        manager_secret: Option<TokenSecret>,
    },
    /// New addresses agents may dial.
    ClusterManagers(Vec<String>),
    /// The keys of encrypted networks are turned, for the `epoch`th time; it must be the next one.
    KeysTurn {
        /// Counts the rotations.
        epoch: u32,
    },
    /// The root's private key, which was in a file of its own.
    RootKey(Sealed),
    /// A certificate is signed at this time. It is no news to anybody: the cluster's version stays.
    Signed(Wall),
    /// Another root shall replace the present one; there must be none on its way.
    RotationBegin(Box<Rotation>),
    /// Another root shall replace the present one, in place of the one that is on its way: some boards have certificates
    /// of that already, so it is remembered as if it had been the root.
    RotationReplace {
        /// Its rotation.
        rotation: Box<Rotation>,
        /// Its key, signed by the root that was on its way, PEM.
        cross_pem: String,
    },
    /// The root that is on its way takes the present one's place.
    RotationFinish {
        /// New secrets of the worker and the manager token: those before name the old root.
        tokens: [TokenSecret; 2],
    },
    /// The key that unlocks the manager after a start, at once; none: it needs none. Logs of older versions have keys.
    UnlockKey(Option<Sealed>),
    /// A new unlock key, which nobody has seen: what opened the manager before does so until it was shown.
    UnlockKeyDrawn(Sealed),
    /// This unlock key was shown, so it alone counts; nothing happens if another one was drawn meanwhile.
    UnlockKeyShown(Sealed),
    /// Somebody may use the API from afar; the name must be free.
    AccessCreate(Box<Access>),
    /// Somebody may not any more.
    AccessRemove {
        /// Whose.
        name: String,
    },
    /// The cluster is left: everything is forgotten.
    ClusterLeave,
    /// A member joined.
    NodeCreate(Box<NewNode>),
    /// New settings of a node, if `version` is current.
    NodeUpdate {
        /// The node.
        node: NodeId,
        /// The version the update is based on.
        version: u64,
        /// The new settings.
        spec: NodeSpec,
    },
    /// The board describes itself anew.
    NodeDescribe {
        /// The node.
        node: NodeId,
        /// The board.
        description: Arc<NodeDescription>,
        /// Where its session comes from.
        addr: String,
    },
    /// The node counts as down: its tasks are replaced.
    NodeWriteOff {
        /// The node.
        node: NodeId,
        /// When and why.
        written_off: WrittenOff,
    },
    /// The node made a clean report and counts again.
    NodeReadmit {
        /// The node.
        node: NodeId,
    },
    /// What the node shows and trusts is something else now.
    NodeTrust {
        /// The node.
        node: NodeId,
        /// What.
        trust: NodeTrust,
    },
    /// The node's key is on this board.
    NodeBoard {
        /// The node.
        node: NodeId,
        /// Which.
        board: BoardId,
    },
    /// The node is no longer a member; its tasks are orphaned.
    NodeRemove {
        /// The node.
        node: NodeId,
    },
    /// A new overlay network; its name must be free, and its subnet if it names one.
    NetworkCreate {
        /// Its id.
        network: NetworkId,
        /// What users want.
        spec: NetworkSpec,
    },
    /// The network is gone. Refused while a service, or a task that shall run, is attached to it.
    NetworkRemove {
        /// The network.
        network: NetworkId,
    },
    /// A new service; its name must be free.
    ServiceCreate {
        /// Its id.
        service: ServiceId,
        /// What users want.
        spec: Arc<ServiceSpec>,
    },
    /// A new spec, if `version` is current. Name and mode stay.
    ServiceUpdate {
        /// The service.
        service: ServiceId,
        /// The version the update is based on.
        version: u64,
        /// The new spec.
        spec: Arc<ServiceSpec>,
    },
    /// Back to the previous spec, which is a new update (of a job: a new iteration).
    ServiceRollback {
        /// The service.
        service: ServiceId,
        /// On whose behalf, and what it is based on.
        by: RollbackBy,
    },
    /// Progress of an update.
    ServiceProgress {
        /// The service.
        service: ServiceId,
        /// The revision the progress belongs to; must be current.
        revision: u64,
        /// The progress.
        update: UpdateStatus,
    },
    /// The last spec leaves nothing to update, so that nothing will go back by itself: what is held for it comes back.
    ServiceSettle {
        /// The service.
        service: ServiceId,
        /// Its revision; must be current.
        revision: u64,
    },
    /// The service is gone at once; its tasks get desired `Remove`.
    ServiceRemove {
        /// The service.
        service: ServiceId,
    },
    /// A new secret or config; its name must be free.
    DependencyCreate(Box<NewDependency>),
    /// New labels of a secret or config, if `version` is current. Nothing else of it ever changes.
    DependencyLabel {
        /// The secret or config.
        dependency: DependencyId,
        /// The version the update is based on.
        version: u64,
        /// The new labels.
        labels: BTreeMap<String, String>,
    },
    /// The secret or config is gone. Refused while a service's spec names it.
    DependencyRemove {
        /// The secret or config.
        dependency: DependencyId,
    },
    /// A new task.
    TaskCreate(Box<NewTask>),
    /// Something else is wanted; `desired` only grows. A `Ready` task that becomes `Running` loses its gate. One
    /// without a node ends with `Shutdown` and is forgotten with `Remove`.
    TaskDesire {
        /// The task.
        task: TaskId,
        /// What is wanted.
        desired: Desired,
    },
    /// The gate of a `Ready` task is set anew (a stamp from the future).
    TaskGate {
        /// The task.
        task: TaskId,
        /// The new gate.
        gate: Gate,
    },
    /// A node was chosen. Refused if the node is gone, not active, written off or full, the grant is not free there, or
    /// the task moved on.
    TaskAssign {
        /// The task.
        task: TaskId,
        /// The node.
        node: NodeId,
        /// The generic resources it is granted there: exactly those it asks for, and nobody else's.
        #[serde(default)]
        generic: Generics,
    },
    /// The task ended. A task with desired `Remove` is forgotten with it.
    TaskEnd {
        /// The task.
        task: TaskId,
        /// How.
        ended: Ended,
    },
    /// The task is forgotten; it must have ended, or be unassigned and unwanted.
    TaskRemove {
        /// The task.
        task: TaskId,
    },
}

/// Why a command was refused. The text is for users (Docker's words where it has them).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The object is not there (any more).
    #[error("{kind} {id} not found")]
    NotFound {
        /// `node`, `service`, `task`, `network`.
        kind: &'static str,
        /// Its id.
        id: String,
    },
    /// A version or revision is not current.
    #[error("update out of sequence")]
    OutOfSequence,
    /// The name is taken.
    #[error("name conflicts with an existing object: {kind} {name} already exists")]
    NameTaken {
        /// `service`, …
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// A network's name is taken. Docker has its own words for it.
    #[error("network with name {0} already exists")]
    NetworkTaken(String),
    /// There are as many networks as there may be.
    #[error("there are {NETWORKS_MAX} networks already: remove one that is not used (docker network prune)")]
    NetworksMax,
    /// The network is attached to something.
    #[error("network {network} is in use by {kind} {by}")]
    NetworkInUse {
        /// The network.
        network: NetworkId,
        /// `service` or `task`.
        kind: &'static str,
        /// Its id.
        by: String,
    },
    /// What a network asks for cannot be.
    #[error("{0}")]
    BadSubnet(BadSubnet),
    /// The subnet has addresses that others have. Docker's words, and who has them.
    #[error("invalid pool request: Pool overlaps with other one on this address space: {subnet} and {with}")]
    SubnetTaken {
        /// The subnet.
        subnet: Subnet,
        /// A network or a node.
        with: String,
    },
    /// All subnets of the pools are taken.
    #[error(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"
    )]
    PoolsExhausted,
    /// There is an ingress network already.
    #[error("ingress network ({0}) is already present")]
    IngressPresent(NetworkId),
    /// A service publishes ports in the ingress network.
    #[error("ingress network cannot be removed because service {0} depends on it")]
    IngressInUse(ServiceId),
    /// A service names the ingress network, which every service that needs it has.
    #[error("Service cannot be explicitly attached to the ingress network {0:?}")]
    IngressAttached(String),
    /// What a service publishes cannot be.
    #[error("{0}")]
    BadPorts(BadPorts),
    /// Another service has the port.
    #[error("port '{port}' is already in use by service '{name}' ({by}) as {}", crate::allocator::how(*mode))]
    PortTaken {
        /// The port.
        port: u16,
        /// The service's name.
        name: String,
        /// The service.
        by: ServiceId,
        /// What it has it as.
        mode: PortMode,
    },
    /// All addresses of a network are given.
    #[error("network {name} ({subnet}) has no free address: {} of {} are in use", usage.used, usage.all)]
    NoAddress {
        /// The network's name.
        name: String,
        /// Its subnet.
        subnet: Subnet,
        /// How many.
        usage: Usage,
    },
    /// A secret's or config's name is taken.
    #[error("{} {name} already exists", kind.name())]
    Exists {
        /// Which of the two.
        kind: DependencyKind,
        /// The name.
        name: String,
    },
    /// There are as many secrets and configs as there may be.
    #[error("there are {DEPENDENCIES_MAX} secrets and configs already: remove one that no service uses")]
    DependenciesMax,
    /// The secrets and configs together would take more than they may.
    #[error(
        "all secrets and configs together may take {} MiB: remove one that no service uses",
        DEPENDENCIES_BYTES_MAX >> 20
    )]
    DependenciesBytesMax,
    /// Services name the secret or config.
    #[error("{} '{name}' is in use by the following service{}: {}", kind.name(), plural(services), services.join(", "))]
    InUse {
        /// Which of the two.
        kind: DependencyKind,
        /// Its name.
        name: String,
        /// The services' names.
        services: Vec<String>,
    },
    /// A service names secrets or configs that are not there, or not under these names.
    #[error("{}{} not found: {}", kind.name(), plural(names), names.join(", "))]
    Unknown {
        /// Which of the two.
        kind: DependencyKind,
        /// The names.
        names: Vec<String>,
    },
    /// There is a cluster already.
    #[error("this manager is already part of a cluster")]
    ClusterExists,
    /// There is no cluster.
    #[error("this manager is not part of a cluster")]
    NoCluster,
    /// A root is on its way already.
    #[error("a root rotation is under way already")]
    RotationUnderWay,
    /// No root is on its way.
    #[error("no root rotation is under way")]
    NoRotation,
    /// There are as many accesses as there may be.
    #[error("there are {ACCESSES_MAX} accesses already: revoke one that is not used (pi-mgr access revoke)")]
    AccessesMax,
    /// There is nothing to roll back to.
    #[error("service {0} does not have a previous spec")]
    NoPrevious(ServiceId),
    /// The update would change what cannot be changed.
    #[error("{0}")]
    Immutable(&'static str),
    /// The task's state does not allow it (it ended, it is assigned, the state would go back).
    #[error("task {0}: {1}")]
    TaskMoved(TaskId, &'static str),
    /// The node may not get the task.
    #[error("node {0}: {1}")]
    NodeUnfit(NodeId, &'static str),
}

fn plural(list: &[String]) -> &'static str {
    if list.len() == 1 { "" } else { "s" }
}
