//! Racimo's agent.

pub mod limits;
pub mod runtime;
