//! Racimo's agent.

pub mod alloc;
pub mod app;
pub mod board;
#[cfg(test)]
mod board_tests;
pub mod config;
pub mod control;
pub mod describe;
pub mod hardware;
pub mod health;
pub mod identity;
pub mod images;
pub mod journal;
pub mod leave;
pub mod limits;
pub mod link;
pub mod logs;
pub mod net;
#[cfg(test)]
mod power_tests;
pub mod report;
pub mod runtime;
mod sys;
pub use sys::limit_threads;
pub mod task;
#[cfg(test)]
mod task_tests;
pub mod usage;
pub mod weight;
mod within;
