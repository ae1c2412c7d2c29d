//! Waiting for a service to come up, or to go away, and showing how far it is.
//!
//! `state` and `job` judge what the manager says (pure), `paint` turns a frame into text (pure), `run` polls. So does
//! `root` for the boards' certificates while the cluster's root is rotated.

mod job;
pub(crate) mod paint;
pub(crate) mod root;
pub(crate) mod run;
pub(crate) mod state;
#[cfg(test)]
mod tests;
