//! The way to a manager.

pub mod dial;
pub mod discover;
pub mod hints;
pub mod join;
pub mod places;
pub mod session;
