//! The way to a manager.

mod certificate;
pub mod dial;
pub mod discover;
pub mod hints;
pub mod join;
pub mod places;
mod rounds;
pub mod session;
