//! What a board does for a task while it hears no manager.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a board does for a task while it hears no manager. The default: it lets it run, and does nothing else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Offline {
    /// When it starts the task again, also after the board was restarted; none: never (jobs, fenced tasks).
    pub restart: Option<Restart>,
    /// Whether it may keep the contents of the task's secrets and configs on its disk, sealed.
    pub secrets: bool,
    /// It stops the task when it has not heard a manager for so long, in milliseconds; none: it never does.
    pub lease_ms: Option<u32>,
}

/// When a board starts a task again by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Restart {
    /// Also after it ended with exit code 0.
    pub completed: bool,
    /// How long it waits first, in milliseconds.
    pub delay_ms: u32,
    /// How many times; none: without limit. Restarts by the manager are taken off already.
    pub attempts: Option<u32>,
    /// Only restarts within this time count, in milliseconds; none: all.
    pub window_ms: Option<u32>,
}

impl Offline {
    /// The lease, if there is one.
    pub fn lease(&self) -> Option<Duration> {
        self.lease_ms.map(|ms| Duration::from_millis(ms.into()))
    }
}
