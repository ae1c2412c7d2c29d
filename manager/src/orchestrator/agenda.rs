//! Where the orchestrator has to look, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use racimo_common::id::{NodeId, ServiceId, TaskId};
use racimo_common::object::Desired;
use racimo_common::time::{Mono, Now};

use crate::store::{Event, Mode, Task, View};

/// What is to be looked at: marked by events, and by time. Losing it costs a look at everything, never a decision.
#[derive(Debug, Clone, Default)]
pub struct Agenda {
    services: BTreeSet<ServiceId>,
    nodes: BTreeSet<NodeId>,
    due_services: BTreeMap<ServiceId, Mono>,
    due_nodes: BTreeMap<NodeId, Mono>,
    /// What was seen of tasks of services under update.
    watched: BTreeMap<TaskId, Watched>,
}

/// What was seen of a task while its service is updated. An observation: a new manager begins anew.
#[derive(Debug, Clone, Copy)]
enum Watched {
    /// It has not run yet.
    Comes,
    /// It runs since then; it did so for `before` when a new manager found it.
    Runs { since: Mono, before: Duration },
}

impl Agenda {
    /// Everything: at the start, and when events were lost.
    pub fn all(view: &View) -> Self {
        let mut agenda = Self::default();
        agenda.mark_all(view);
        agenda
    }

    /// Marks everything.
    pub fn mark_all(&mut self, view: &View) {
        self.services.extend(view.state.services().map(|service| service.id));
        self.services.extend(view.state.tasks().map(|task| task.service));
        self.nodes.extend(view.state.nodes().map(|node| node.id));
        self.watched.retain(|task, _| view.state.task(*task).is_some_and(|task| task.desired <= Desired::Running));
    }

    /// Marks what an event touches; `view` is the one after it.
    pub fn take(&mut self, event: &Event, view: &View) {
        match event {
            Event::Cluster => self.mark_all(view),
            Event::Node { id, .. } => {
                self.nodes.insert(*id);
                self.services.extend(view.state.tasks_on_node(*id).map(|task| task.service));
                let global = view.state.services().filter(|service| match service.spec.mode {
                    Mode::Global | Mode::GlobalJob => true,
                    Mode::Replicated { .. } | Mode::ReplicatedJob { .. } => false,
                });
                self.services.extend(global.map(|service| service.id));
            }
            Event::Service { id, .. } => {
                self.services.insert(*id);
            }
            Event::Task { id, old, new } => {
                self.services.extend([old, new].into_iter().flatten().map(|task| task.service));
                let wanted = |task: &&Arc<Task>| task.desired <= Desired::Running;
                match new.as_ref().filter(wanted) {
                    None => drop(self.watched.remove(id)),
                    Some(task) if old.is_none() && is_updated(view, task.service) => {
                        self.watched.insert(*id, Watched::Comes);
                    }
                    Some(_) => {}
                }
            }
            // Only the updater cares since when a task runs.
            Event::TaskSeen { service, .. } => {
                if is_updated(view, *service) {
                    self.services.insert(*service);
                }
            }
            // Whom it does not hear may have stopped what it had a lease for.
            Event::NodeSeen(id) => {
                let leased = view.state.tasks_on_node(*id).filter(|task| task.spec.offline.lease.is_some());
                self.services.extend(leased.map(|task| task.service));
            }
            Event::Network { .. } | Event::Dependency { .. } => {}
        }
    }

    /// Whether nothing is marked.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.nodes.is_empty()
    }

    /// The plan of the last [`super::step`] is committed (or was empty): its marks go.
    pub fn done(&mut self) {
        self.services.clear();
        self.nodes.clear();
    }

    /// When something is to be looked at next if nothing happens first.
    pub fn next_due(&self) -> Option<Mono> {
        self.due_services.values().chain(self.due_nodes.values()).min().copied()
    }

    /// Marks what is due; the step sets the next time.
    pub(super) fn begin(&mut self, now: Now) {
        self.services.extend(self.due_services.iter().filter(|(_, at)| **at <= now.mono).map(|(id, _)| *id));
        self.nodes.extend(self.due_nodes.iter().filter(|(_, at)| **at <= now.mono).map(|(id, _)| *id));
    }

    pub(super) fn marked(&self) -> (Vec<NodeId>, Vec<ServiceId>) {
        (self.nodes.iter().copied().collect(), self.services.iter().copied().collect())
    }

    pub(super) fn set_service(&mut self, id: ServiceId, at: Option<Mono>) {
        set(&mut self.due_services, id, at);
    }

    pub(super) fn set_node(&mut self, id: NodeId, at: Option<Mono>) {
        set(&mut self.due_nodes, id, at);
    }

    /// The task is not seen running.
    pub(super) fn comes(&mut self, task: TaskId) {
        self.watched.entry(task).or_insert(Watched::Comes);
    }

    /// The task is seen running now; `before` says for how long, if this manager has not seen it begin.
    pub(super) fn runs(&mut self, task: TaskId, now: Now, before: Duration) {
        let since = now.mono;
        match self.watched.get_mut(&task) {
            Some(Watched::Runs { .. }) => {}
            Some(watched) => *watched = Watched::Runs { since, before: Duration::ZERO },
            None => drop(self.watched.insert(task, Watched::Runs { since, before })),
        }
    }

    /// For how long the task ran; `Some(None)`: it was seen, but not running; `None`: it was not seen.
    pub(super) fn ran(&self, task: TaskId, now: Now) -> Option<Option<Duration>> {
        self.watched.get(&task).map(|watched| match watched {
            Watched::Comes => None,
            Watched::Runs { since, before } => Some(now.mono.since(*since) + *before),
        })
    }
}

fn is_updated(view: &View, service: ServiceId) -> bool {
    view.state.service(service).is_some_and(|service| service.update.is_some())
}

fn set<K: Ord>(due: &mut BTreeMap<K, Mono>, id: K, at: Option<Mono>) {
    match at {
        Some(at) => due.insert(id, at),
        None => due.remove(&id),
    };
}
