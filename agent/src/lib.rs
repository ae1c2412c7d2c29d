//! Racimo's agent.

pub mod alloc;
pub mod identity;
pub mod limits;
pub mod link;
pub mod runtime;
