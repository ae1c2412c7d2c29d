//! Limits of the protocol: unit, reason, and what happens when they are reached.

/// Largest frame an agent may send, bytes. Larger: the connection is closed.
pub const FRAME_FROM_AGENT_MAX: usize = 64 * 1024;
/// Largest frame an agent accepts, bytes. Larger sets are split; a larger single task is refused by the manager.
pub const FRAME_TO_AGENT_MAX: usize = 256 * 1024;
