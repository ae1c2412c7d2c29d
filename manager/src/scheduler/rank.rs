//! Which of the nodes that fit comes first (reference §6).

use racimo_common::id::NodeId;
use racimo_common::time::Now;

use crate::store::{Slot, Task, View};

/// A node with this many recent failures of the task's revision is avoided.
const FAILURES_MANY: usize = 5;
/// How long a failure counts.
const FAILURES_WINDOW: std::time::Duration = std::time::Duration::from_secs(300);

/// A node's place in the order: the smallest is taken first; ties go by node id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Recent failures of the service's revision here; 0 if they are few.
    pub(super) failures: usize,
    /// Wanted tasks of the service here.
    pub(super) service: u32,
    /// Wanted tasks here.
    pub(super) total: u32,
}

/// Recent failures of the task's revision per room, 0 where they are few.
pub(super) fn failures(
    view: &View,
    task: &Task,
    now: Now,
    rooms: usize,
    index: impl Fn(NodeId) -> Option<usize>,
) -> Vec<usize> {
    let mut counts = vec![0; rooms];
    if matches!(task.slot, Slot::Node(_)) {
        return counts;
    }
    for (node, failures) in view.state.failures_of_service(task.service) {
        if failures.revision != task.revision {
            continue;
        }
        // A stamp from the future is from a wrong clock and would never expire: it does not count.
        let recent = |at| at <= now.wall && now.wall.since(at) <= FAILURES_WINDOW;
        let count = failures.times.iter().filter(|at| recent(**at)).count();
        if let Some(index) = index(node).filter(|_| count >= FAILURES_MANY) {
            counts[index] = count;
        }
    }
    counts
}
