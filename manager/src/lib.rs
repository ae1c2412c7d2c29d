//! Racimo's manager: the daemon that holds the desired state, decides and dispatches, and the command line.

pub mod allocator;
pub mod announce;
pub mod api;
pub mod app;
pub mod backup;
pub mod ca;
#[allow(rustdoc::broken_intra_doc_links, reason = "a flag's comment is its help: what may be left out is in []")]
pub mod cli;
pub mod config;
pub mod dispatcher;
mod duration;
pub mod gate;
pub mod limits;
pub mod log_driver;
pub mod orchestrator;
pub mod scheduler;
pub mod store;
mod tcp;
pub mod template;
pub mod vault;
