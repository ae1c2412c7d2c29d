//! Agents' sessions: who is there, what each shall run, what it says of it.
//!
//! ```text
//! serve ─ TLS ─┬─ no certificate ─▶ join ─▶ store (a node), a certificate
//!              └─ a member's ─────▶ session ─ assign ─▶ agent
//!                                      │  ◀─ report ──┘
//!                                      ▼ opened, heard, closed
//!                                     hub ─ liveness ─▶ store (written off)
//! ```
//! What all boards are told about the network is made once, as the store changes:
//!
//! ```text
//! store ─ events ─▶ watch: directory ─ wakes ─▶ sessions ─ net, assign ─▶ boards
//! ```
//! Who may connect is decided by [`gate`](crate::gate), how fast they may talk by `pace` and [`writes`].
//!
//! Cores: [`liveness`], [`clones`], [`assign`], [`work`], [`report`], [`directory`], [`net`]. Shells: [`serve`], [`watch`],
//! `session` (`assigner`, `recorder`), `opening`, `certify`, `join`, `hub`.

pub mod assign;
mod assigner;
pub mod broker;
mod certify;
pub mod clones;
pub mod directory;
mod hub;
mod join;
mod known;
pub mod liveness;
pub mod merge;
pub mod net;
mod opening;
mod pace;
mod recorder;
pub mod report;
pub mod serve;
mod session;
pub mod tail;
#[cfg(test)]
mod tests;
pub mod watch;
pub mod work;
pub mod writes;

use std::sync::Arc;

use racimo_common::id::NodeId;
use racimo_common::time::Clock;

use crate::ca::Authority;
use crate::gate::door::Door;
use crate::gate::notes::Notes;
use crate::store::Store;
use crate::vault::Vault;

pub use hub::Hub;
pub use known::Known;

/// What every part of the dispatcher needs.
#[derive(Clone)]
pub struct Context {
    /// Where everything meets.
    pub store: Store,
    /// The machine's clocks.
    pub clock: Clock,
    /// Signs the certificates of boards.
    pub authority: Authority,
    /// Opens what boards need of secrets, configs and credentials.
    pub vault: Vault,
    /// Where sessions say that a node is there.
    pub hub: Hub,
    /// The state, and what boards are told about the network, as sessions see them.
    pub watch: watch::Watch,
    /// Where sessions meet readers of logs.
    pub logs: broker::Broker,
    /// Sessions that may hold opened contents of secrets and configs: [`SETS_OPEN_MAX`](crate::limits::SETS_OPEN_MAX).
    pub sets: Arc<smol::lock::Semaphore>,
    /// Who may connect.
    pub door: Door<NodeId>,
    /// Where members were last seen.
    pub known: Known,
    /// What members may still make the store write.
    pub writes: writes::Writes,
    /// Log lines that peers cause.
    pub notes: Notes,
}
