//! Flags of `service create` and `service update` → Docker's service specification.
//!
//! Pure: flags and the current specification in, the new specification out. What the two commands
//! share is `SharedFlags`; it is applied to a fresh specification by `create` and to the stored one
//! by `update`. The bodies are those that Docker's command line sends for the same flags, so that
//! changing clients never restarts a task.

mod capability;
pub(crate) mod create;
pub(crate) mod env;
pub(crate) mod generic;
pub(crate) mod health;
pub(crate) mod lists;
pub(crate) mod mode;
pub(crate) mod mount;
pub(crate) mod network;
pub(crate) mod port;
pub(crate) mod reference;
pub(crate) mod refused;
pub(crate) mod rollout;
pub(crate) mod runtime;
pub(crate) mod shared;
pub(crate) mod update;

#[cfg(test)]
mod tests;
