//! What is observed and never stored: sessions, running states, reasons for waiting.
//!
//! Rebuilt from agents' full reports after a start. Written by the dispatcher and (reasons) the scheduler and
//! the orchestrator.

use std::sync::Arc;

use imbl::OrdMap;
use racimo_common::id::{NodeId, TaskId};
use racimo_common::object::{BoardHealth, ContainerStatus, HostPort, TaskReport, TaskState};
use racimo_common::time::{Mono, Wall};
use serde::{Deserialize, Serialize};

use super::event::Event;
use super::state::State;

/// What the leader observed.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    nodes: OrdMap<NodeId, SeenNode>,
    tasks: OrdMap<TaskId, TaskStatus>,
    health: OrdMap<NodeId, Arc<BoardHealth>>,
    links: OrdMap<NodeId, NodeLink>,
}

/// Whether a node can hear this manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeLink {
    /// It has a session.
    Open,
    /// It has none: nothing of it was heard since then. At the manager's start: since the start.
    Lost(Mono),
}

/// What is observed of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenNode {
    /// Whether it has a session and made its full report.
    pub ready: bool,
    /// Since when.
    pub at: Wall,
}

/// What is observed of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// The state.
    pub state: TaskState,
    /// Since when.
    pub at: Wall,
    /// In a word or two.
    pub message: String,
    /// What went wrong, or why it waits.
    pub err: Option<String>,
    /// Its container.
    pub container: Option<ContainerStatus>,
    /// The ports of its board that it has.
    #[serde(default)]
    pub ports: Vec<HostPort>,
    /// Whether it is about to be stopped because it is not healthy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unhealthy: bool,
}

/// Something observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// A node's session opened with a full report, or is gone.
    Node {
        /// The node.
        node: NodeId,
        /// What is observed.
        seen: SeenNode,
    },
    /// How a board is; none: its new session has not said yet.
    Health {
        /// The node.
        node: NodeId,
        /// What its agent says.
        health: Option<Arc<BoardHealth>>,
    },
    /// An agent's report of a task that has not ended. It counts also if the task is less far than before: its board may
    /// have begun to start it again while it heard no manager.
    Task {
        /// The node that reports; another node's report is dropped.
        node: NodeId,
        /// The report.
        report: TaskReport,
    },
    /// A task is to leave its node: said until the agent's next report. Where the task is stays as it is.
    Evicted {
        /// The task.
        task: TaskId,
        /// Since when.
        at: Wall,
        /// What is done about it.
        message: String,
        /// Why.
        err: String,
    },
    /// A node's session began or ended.
    Link {
        /// The node.
        node: NodeId,
        /// Which.
        link: NodeLink,
    },
    /// Why a task waits for a node.
    Waits {
        /// The task.
        task: TaskId,
        /// Since when.
        at: Wall,
        /// The reason, for `service ps`; none: it has not been tried yet.
        reason: Option<String>,
    },
}

impl Seen {
    /// What is observed of a node.
    pub fn node(&self, id: NodeId) -> Option<&SeenNode> {
        self.nodes.get(&id)
    }

    /// How its board is, as its last session said.
    pub fn health(&self, id: NodeId) -> Option<&BoardHealth> {
        self.health.get(&id).map(|health| &**health)
    }

    /// Whether a node can hear this manager; none: it was not a member when the manager started, and had no session.
    pub fn link(&self, id: NodeId) -> Option<NodeLink> {
        self.links.get(&id).copied()
    }

    /// What is observed of a task.
    pub fn task(&self, id: TaskId) -> Option<&TaskStatus> {
        self.tasks.get(&id)
    }

    /// Takes one observation; the event it causes, or `None` if it changes nothing.
    pub fn observe(&mut self, state: &State, observation: Observation) -> Option<Event> {
        match observation {
            Observation::Node { node, seen } => {
                state.node(node)?;
                if self.nodes.get(&node) == Some(&seen) {
                    return None;
                }
                self.nodes.insert(node, seen);
                Some(Event::NodeSeen(node))
            }
            // Nothing is decided by it, and nobody waits for it.
            Observation::Health { node, health } => {
                match health.filter(|_| state.node(node).is_some()) {
                    Some(health) => self.health.insert(node, health),
                    None => self.health.remove(&node),
                };
                None
            }
            Observation::Link { node, link } => {
                state.node(node)?;
                let old = self.links.insert(node, link);
                (old != Some(link)).then_some(Event::NodeSeen(node))
            }
            Observation::Task { node, report } => {
                let task = state.task(report.task).filter(|t| t.node == Some(node) && t.ended.is_none())?;
                // An end is committed, never only observed.
                if report.state.is_terminal() {
                    return None;
                }
                let status = TaskStatus {
                    state: report.state,
                    at: report.at,
                    message: report.message,
                    err: report.err,
                    container: report.container,
                    ports: report.ports,
                    unhealthy: report.unhealthy,
                };
                if self.tasks.get(&report.task) == Some(&status) {
                    return None;
                }
                self.tasks.insert(report.task, status);
                Some(Event::TaskSeen { id: report.task, service: task.service, node: Some(node) })
            }
            Observation::Evicted { task: id, at, message, err } => {
                let task = state.task(id).filter(|t| t.ended.is_none())?;
                let old = self.tasks.get(&id).cloned().unwrap_or_default();
                // It has a node, whatever was said of it while it waited for one.
                let state = old.state.max(TaskState::Assigned);
                self.tasks.insert(id, TaskStatus { state, at, message, err: Some(err), ..old });
                Some(Event::TaskSeen { id, service: task.service, node: task.node })
            }
            Observation::Waits { task: id, at, reason } => {
                let task = state.task(id).filter(|t| t.ended.is_none())?;
                let status = TaskStatus {
                    state: TaskState::Pending,
                    at,
                    message: "pending task scheduling".to_owned(),
                    err: reason,
                    ..TaskStatus::default()
                };
                if self.tasks.get(&id).is_some_and(|old| old.state > TaskState::Pending || old.err == status.err) {
                    return None;
                }
                self.tasks.insert(id, status);
                Some(Event::TaskSeen { id, service: task.service, node: task.node })
            }
        }
    }

    /// Forgets what is gone or has ended: called with the events of every command.
    pub fn follow(&mut self, events: &[Event]) {
        for event in events {
            match event {
                Event::Node { id, new: None, .. } => {
                    self.nodes.remove(id);
                    self.health.remove(id);
                    self.links.remove(id);
                }
                Event::Task { id, new, .. } => {
                    if new.as_ref().is_none_or(|task| task.ended.is_some()) {
                        self.tasks.remove(id);
                    }
                }
                Event::Cluster
                | Event::Node { .. }
                | Event::Service { .. }
                | Event::Network { .. }
                | Event::Dependency { .. }
                | Event::NodeSeen(_)
                | Event::TaskSeen { .. } => {}
            }
        }
    }
}
