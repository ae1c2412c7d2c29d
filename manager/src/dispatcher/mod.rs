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
//! Cores: [`liveness`], [`assign`], [`work`], [`report`], [`directory`], [`net`]. Shells: [`serve`], [`watch`],
//! `session`, `join`, `hub`.

pub mod assign;
pub mod broker;
pub mod directory;
mod hub;
mod join;
pub mod liveness;
pub mod merge;
pub mod net;
pub mod report;
pub mod serve;
mod session;
pub mod tail;
#[cfg(test)]
mod tests;
pub mod watch;
pub mod work;

use std::sync::Arc;

use racimo_common::time::Clock;

use crate::ca::Authority;
use crate::store::Store;
use crate::vault::Vault;

pub use hub::Hub;

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
}
