//! Limits of the manager: unit, reason, and what happens when they are reached.

/// Restart times kept per slot whose policy has a window (8 KiB). The API refuses a window with more attempts.
pub const RESTART_TIMES_MAX: usize = 1000;
/// Failure times kept per service and node; the scheduler asks for five.
pub const FAILURE_TIMES_MAX: usize = 8;
/// Batches of events a watcher may be behind; then it gets one `resync` instead.
pub const FEED_BATCHES_MAX: usize = 256;
/// Requests that wait for the store; further writers wait their turn.
pub const STORE_QUEUE_MAX: usize = 256;
/// Requests that are committed with one fsync.
pub const GROUP_COMMIT_MAX: usize = 128;
