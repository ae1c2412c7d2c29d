//! The way to a manager.

pub mod dial;
pub mod join;
pub mod session;
