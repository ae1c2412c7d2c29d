//! Racimo's agent.

pub mod alloc;
pub mod limits;
pub mod runtime;
