//! An immutable picture of what is decided and what is observed.

use racimo_common::id::{NodeId, TaskId};
use racimo_common::object::{ContainerStatus, TaskState};

use super::object::{Node, Task};
use super::seen::{Seen, TaskStatus};
use super::state::State;

/// State and observations at one moment; a clone costs a few counters.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// What is decided.
    pub state: State,
    /// What is observed.
    pub seen: Seen,
}

/// Whether a node works, as Docker's API names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeStatus {
    /// Not heard of since the manager started.
    Unknown,
    /// Written off; its tasks were replaced.
    Down,
    /// In session.
    Ready,
}

impl NodeStatus {
    /// The name in Docker's API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Down => "down",
            Self::Ready => "ready",
        }
    }
}

impl View {
    /// The store index the view is at.
    pub fn version(&self) -> u64 {
        self.state.index()
    }

    /// Whether the node works.
    pub fn node_status(&self, node: &Node) -> NodeStatus {
        if node.written_off.is_some() {
            NodeStatus::Down
        } else if self.seen.node(node.id).is_some_and(|seen| seen.ready) {
            NodeStatus::Ready
        } else {
            NodeStatus::Unknown
        }
    }

    /// Whether the node is there and works.
    pub fn is_ready(&self, node: NodeId) -> bool {
        self.state.node(node).is_some_and(|node| self.node_status(node) == NodeStatus::Ready)
    }

    /// The task's observed state.
    pub fn task_state(&self, task: &Task) -> TaskState {
        match &task.ended {
            Some(ended) => ended.state,
            None => {
                let floor = if task.node.is_some() { TaskState::Assigned } else { TaskState::Pending };
                self.seen.task(task.id).map_or(floor, |status| status.state.max(floor))
            }
        }
    }

    /// Everything known about the task's state.
    pub fn task_status(&self, task: &Task) -> TaskStatus {
        if let Some(ended) = &task.ended {
            return TaskStatus {
                state: ended.state,
                at: ended.at,
                message: ended.message.clone(),
                err: ended.err.clone(),
                container: ended.container.clone().map(|id| ContainerStatus { id, pid: 0, exit_code: ended.exit_code }),
                ..TaskStatus::default()
            };
        }
        let state = self.task_state(task);
        match self.seen.task(task.id) {
            Some(status) if status.state == state => status.clone(),
            _ if task.node.is_some() => TaskStatus {
                state,
                at: task.meta.updated,
                message: "scheduler assigned task to node".to_owned(),
                ..TaskStatus::default()
            },
            _ => TaskStatus {
                state,
                at: task.meta.created,
                message: "pending task scheduling".to_owned(),
                ..TaskStatus::default()
            },
        }
    }

    /// The observed state of a task by its id; `None` if it is forgotten.
    pub fn state_of(&self, task: TaskId) -> Option<TaskState> {
        self.state.task(task).map(|task| self.task_state(task))
    }
}
