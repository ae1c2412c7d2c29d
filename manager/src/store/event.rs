//! What changed. Events say where to look; the view says what is true.

use std::sync::Arc;

use racimo_common::id::{DependencyId, NetworkId, NodeId, ServiceId, TaskId};

use super::object::{Dependency, Network, Node, Service, Task};

/// One object changed: `old: None` is a creation, `new: None` a removal.
#[derive(Debug, Clone)]
pub enum Event {
    /// The cluster's settings.
    Cluster,
    /// A node.
    Node {
        /// Its id.
        id: NodeId,
        /// Before.
        old: Option<Arc<Node>>,
        /// After.
        new: Option<Arc<Node>>,
    },
    /// A service.
    Service {
        /// Its id.
        id: ServiceId,
        /// Before.
        old: Option<Arc<Service>>,
        /// After.
        new: Option<Arc<Service>>,
    },
    /// A network.
    Network {
        /// Its id.
        id: NetworkId,
        /// Before.
        old: Option<Arc<Network>>,
        /// After.
        new: Option<Arc<Network>>,
    },
    /// A task.
    Task {
        /// Its id.
        id: TaskId,
        /// Before.
        old: Option<Arc<Task>>,
        /// After.
        new: Option<Arc<Task>>,
    },
    /// A secret or config.
    Dependency {
        /// Its id.
        id: DependencyId,
        /// Before.
        old: Option<Arc<Dependency>>,
        /// After.
        new: Option<Arc<Dependency>>,
    },
    /// A node's session or liveness was observed to change.
    NodeSeen(NodeId),
    /// A task's observed state changed.
    TaskSeen {
        /// The task.
        id: TaskId,
        /// Its service.
        service: ServiceId,
        /// Its node, if it has one.
        node: Option<NodeId>,
    },
}
