//! Waiting for a service to come up, or to go away, and showing how far it is.
//!
//! `state` and `job` judge what the manager says (pure), `paint` turns a frame into text (pure), `run` polls.

mod job;
pub(crate) mod paint;
pub(crate) mod run;
pub(crate) mod state;
#[cfg(test)]
mod tests;
