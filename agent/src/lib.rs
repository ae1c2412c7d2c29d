//! Racimo's agent.

pub mod alloc;
pub mod board;
pub mod describe;
pub mod identity;
pub mod limits;
pub mod link;
pub mod runtime;
mod sys;
pub mod task;
