//! Orchestrator and scheduler together, with obedient agents: golden scenarios and the laws of their cores.
//!
//! `UPDATE_GOLDEN=1 cargo test -p racimo-manager --test orchestration` rewrites the expected lines.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod golden;
mod limits;
mod prop;
mod script;
mod shell;
mod world;
