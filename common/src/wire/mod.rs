//! The protocol between agents and the manager.
//!
//! TCP, TLS 1.3; a frame is a `u32` big-endian length and a MessagePack map ([`frame`]). One enum each way.
//! Fields are named and have defaults, so that a field can be added without breaking an older board;
//! a removed or re-purposed field needs a new [`VERSION`].
//!
//! ```text
//! agent                                manager
//!   ── Join{token, csr} ──────────────▶        without a client certificate: only this
//!   ◀── Joined{certificate} | Refused ─
//!   ── Hello{description} ────────────▶        with one
//!   ◀── Welcome{heartbeat} | Refused ──
//!   ◀── Net{complete} ─────────────────        parts until `last`; changes at any time
//!   ◀── Assign{complete} ──────────────        parts until `last`
//!   ── Status{complete} ──────────────▶        every task it holds, once; then only changes
//!   ◀── LogsOpen, LogsMore, LogsClose ─        a reader of a log, at any time
//!   ── Logs ──────────────────────────▶        never more parts than the reader has room for
//!   ◀── Renew ─────────────────────────        its certificate is half over, or the root changes
//!   ── Renew{csr} ────────────────────▶        also as the only message of a connection
//!   ◀── Certified | Roots ─────────────
//!   ── Trusts ────────────────────────▶        kept
//!   ◀── Managers ──────────────────────        where to dial from now on
//!   ── Health ────────────────────────▶        in sessions of version 2
//!   ── Heartbeat ─────────────────────▶
//!   ◀── Pong ──────────────────────────
//!   ── Bye ───────────────────────────▶
//! ```

pub mod frame;
mod net;
mod offline;
mod trust;
mod unpack;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::id::{ClusterId, DependencyId, NodeId, ServiceId, TaskId};
use crate::object::{
    BoardHealth, ContainerSpec, Desired, LogAsk, LogConfig, LogEntry, NodeDescription, Resources, Role, TaskReport,
};
use crate::registry::Credentials;
use crate::time::Wall;

pub use net::{
    Ip, Net, NetAttachment, NetEndpoint, NetNetwork, NetOwn, NetPeer, NetPort, NetService, TaskNet, encryption_address,
    gateway,
};

pub use offline::{Offline, Restart};

pub use trust::{BoardId, Certified, Renew, Trusts};

/// The TCP port that managers listen on for agents.
pub const PORT: u16 = 2377;
/// The newest version of the protocol this code speaks.
pub const VERSION: u16 = 2;
/// The first version with [`ToManager::Health`].
pub const VERSION_HEALTH: u16 = 2;
/// The oldest version of the protocol this code speaks.
pub const VERSION_MIN: u16 = 1;

/// What an agent says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToManager {
    /// Let me in: a token and a certificate request.
    Join(Join),
    /// A session starts.
    Hello(Hello),
    /// The board changed (containerd came, a label, a degradation).
    Describe(NodeDescription),
    /// States of tasks.
    Status(Status),
    /// I am here; the number comes back in `Pong`.
    Heartbeat(u64),
    /// A part of a log that was asked for.
    Logs(LogsPart),
    /// I need a new certificate.
    Renew(Renew),
    /// What I show and trust changed, and is on my disk.
    Trusts(Trusts),
    /// How the board is: only in sessions of [`VERSION_HEALTH`] or newer.
    Health(BoardHealth),
    /// I close the connection on purpose.
    Bye {
        /// Whether the board leaves the cluster for good (else the agent only restarts).
        leaving: bool,
    },
}

/// What the manager says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToAgent {
    /// Welcome to the cluster.
    Joined(Joined),
    /// The session is open.
    Welcome(Welcome),
    /// No, and why; the connection is closed after it.
    Refused(Refused),
    /// What the board shall know about the network: before the tasks that need it.
    Net(Net),
    /// What the board shall run.
    Assign(Assign),
    /// Answers a heartbeat.
    Pong(u64),
    /// Ask for a new certificate now.
    Renew,
    /// A new certificate.
    Certified(Certified),
    /// The root certificates to trust from now on, DER: in place of all others.
    Roots(Vec<ByteBuf>),
    /// Addresses (`host:port`) of managers to dial from now on.
    Managers(Vec<String>),
    /// A reader wants a task's log.
    LogsOpen(LogsOpen),
    /// The reader has room for more.
    LogsMore {
        /// The reading.
        reading: u64,
        /// How many more parts the board may send.
        parts: u32,
    },
    /// The reader went away.
    LogsClose {
        /// The reading.
        reading: u64,
    },
}

/// A reader wants a task's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsOpen {
    /// Names the reading in this session.
    pub reading: u64,
    /// The task.
    pub task: TaskId,
    /// What of its log.
    pub ask: LogAsk,
    /// How many parts the board may send before it is told that there is room for more.
    pub parts: u32,
}

/// A part of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsPart {
    /// The reading it belongs to.
    pub reading: u64,
    /// What was said, in order.
    pub entries: Vec<LogEntry>,
    /// Set in the last part: nothing more follows, and why if something went wrong.
    pub end: Option<LogsEnd>,
}

/// Why a reading ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogsEnd {
    /// Everything was sent.
    Complete,
    /// What is missing and why, for a person.
    Failed(String),
}

/// A request to become a member.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// Protocol versions the agent speaks, oldest and newest.
    pub versions: (u16, u16),
    /// The token's text; it decides the role.
    pub token: String,
    /// PKCS#10 request, DER; its subject is ignored.
    #[serde(with = "serde_bytes")]
    pub csr: Vec<u8>,
    /// The board's host name, for the log.
    pub hostname: String,
}

impl std::fmt::Debug for Join {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Join")
            .field("versions", &self.versions)
            .field("hostname", &self.hostname)
            .finish_non_exhaustive()
    }
}

/// Membership granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// The cluster.
    pub cluster: ClusterId,
    /// The new member's id: the CN of its certificate.
    pub node: NodeId,
    /// What it may do.
    pub role: Role,
    /// Its certificate, DER.
    #[serde(with = "serde_bytes")]
    pub certificate: Vec<u8>,
    /// Addresses (`host:port`) of managers it may dial.
    pub managers: Vec<String>,
    /// Root certificates to trust, DER, while there is more than the one that the token names: else empty.
    #[serde(default)]
    pub roots: Vec<ByteBuf>,
}

/// Why the manager closes the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What the agent can do about it.
    pub code: RefusedCode,
    /// The reason, for a person.
    pub reason: String,
}

/// What an agent can do about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusedCode {
    /// The token is not (or no longer) valid: get a new one.
    Token,
    /// The request was malformed or out of order: a bug or an attack.
    Protocol,
    /// No common protocol version: upgrade the older side.
    Version,
    /// The node is not a member: it was removed; stop its tasks and join again.
    NotMember,
    /// The manager cannot serve it now: try again later.
    Busy,
    /// A newer session of the same node took over.
    Replaced,
    /// The certificate is over, or of a root that is none any more: ask for a new one first ([`ToManager::Renew`]).
    Expired,
    /// Another board with the same key is in the cluster: the card was copied. The board needs an identity of its own.
    Clone,
}

/// The first message of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Protocol versions the agent speaks, oldest and newest.
    pub versions: (u16, u16),
    /// Drawn when the agent started; tells a reconnect from a restart.
    pub boot: u64,
    /// The board.
    pub description: NodeDescription,
    /// What it shows and trusts.
    #[serde(default)]
    pub trusts: Trusts,
    /// Which board it is.
    #[serde(default)]
    pub board: BoardId,
}

/// The session is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Protocol version of this session.
    pub version: u16,
    /// How often to send a heartbeat, in milliseconds.
    pub heartbeat_ms: u32,
    /// Addresses (`host:port`) of managers it may dial.
    pub managers: Vec<String>,
    /// The node's id, so that templates and labels can name it.
    pub node: NodeId,
    /// The last time at which the manager is known to have signed something: boards, which have no clock, judge
    /// certificates by it, and never by an earlier one.
    #[serde(default)]
    pub time: Wall,
}

/// What the board shall run: the whole set, or what changed in it. Large sets come in parts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Assign {
    /// Whether this is the whole set: what it does not name shall be removed. Otherwise it is a change.
    pub complete: bool,
    /// The store index the change applies to; 0 for a whole set. If it is not the last `to`, reopen the session.
    pub from: u64,
    /// The store index the set is at afterwards. It never goes back.
    pub to: u64,
    /// Whether this is the last part; the parts take effect together.
    pub last: bool,
    /// Bodies of secrets and configs that tasks of this set name. A board keeps them in memory only, and forgets one
    /// that no task names any more.
    pub bodies: Vec<BodyPart>,
    /// Tasks to hold, new or with a new desired state.
    pub tasks: Vec<Assignment>,
    /// Tasks to forget: they ended and the manager knows it.
    pub removed: Vec<TaskId>,
    /// All the ended tasks of the board whose logs it keeps for readers; none: as before. Logs of other tasks that it
    /// does not hold are removed.
    pub logs: Option<Vec<TaskId>>,
}

/// Names the content of a secret or config on a board: a template's content differs from task to task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BodyKey {
    /// The secret or config.
    pub id: DependencyId,
    /// The task it was filled in for, if it is a template.
    pub task: Option<TaskId>,
}

/// Bytes of a secret's or config's content, in order.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyPart {
    /// Whose content.
    pub key: BodyKey,
    /// Bytes of the whole content.
    pub total: u32,
    /// Where these bytes begin; the part at 0 starts over.
    pub offset: u32,
    /// The bytes.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for BodyPart {
    /// Without the bytes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodyPart").field("key", &self.key).field("total", &self.total).finish_non_exhaustive()
    }
}

/// A secret or config that a task's container can read as a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its content.
    pub body: BodyKey,
    /// Absolute path inside the container.
    pub target: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// One task on a board.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The task.
    pub task: TaskId,
    /// What is wanted of it.
    pub desired: Desired,
    /// What to run; absent in a change that only moves `desired`.
    pub work: Option<Box<Work>>,
}

/// What a task runs. Immutable for a task's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Its service.
    pub service: ServiceId,
    /// The service's name.
    pub service_name: String,
    /// `web.1`, or `web.<node id>` for a global service; with `.` and the task's id it names the container.
    pub slot_name: String,
    /// The container, templates filled in, granted generic resources in its environment.
    pub container: ContainerSpec,
    /// Its limits and reservations.
    pub resources: Resources,
    /// Where its output goes.
    #[serde(default)]
    pub log: LogConfig,
    /// Its addresses; none: it is on the board's network, or has only a loopback device.
    #[serde(default)]
    pub net: Option<TaskNet>,
    /// Secrets and configs as files; `container.secrets` and `container.configs` are empty on the wire.
    #[serde(default)]
    pub files: Vec<File>,
    /// How to log in at the image's registry.
    #[serde(default)]
    pub credentials: Option<Credentials>,
    /// Why the manager could not make this ready (a template that cannot be filled in, a secret that is gone): a board
    /// that has not begun with the task rejects it with this reason.
    #[serde(default)]
    pub fault: Option<String>,
    /// What the board does for it while it hears no manager.
    #[serde(default)]
    pub offline: Offline,
}

/// States of tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Whether this names every task the board holds; the first of a session does, once the whole set arrived.
    pub complete: bool,
    /// Whether this is the last part of a complete report.
    pub last: bool,
    /// The store index of the last assignment that took effect.
    pub index: u64,
    /// One entry a task.
    pub tasks: Vec<TaskReport>,
}
