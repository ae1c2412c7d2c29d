//! `/tasks`.

use std::collections::BTreeSet;
use std::sync::Arc;

use racimo_common::id::{NodeId, ServiceId};
use serde_json::Value;

use super::answer::Answer;
use super::convert::task as convert;
use super::error::ApiError;
use super::filter::Filters;
use super::request::Request;
use super::{Context, find};
use crate::orchestrator::is_dirty;
use crate::store::{Task, View};

const FILTERS: &[&str] = &["_up-to-date", "desired-state", "id", "label", "name", "node", "runtime", "service"];
/// Every state's name is understood, as in Docker, though few can be desired.
const STATES: &[&str] = &[
    "new",
    "allocated",
    "pending",
    "assigned",
    "accepted",
    "preparing",
    "ready",
    "starting",
    "running",
    "complete",
    "shutdown",
    "failed",
    "rejected",
    "remove",
    "orphaned",
];

/// `GET /tasks`.
pub(super) async fn list(context: &Context, request: &Request) -> Result<Answer, ApiError> {
    let view = context.cluster_view()?;
    let filters = request.filters(FILTERS)?;
    filters
        .check("desired-state", |state| state.is_empty() || STATES.contains(&state.to_ascii_lowercase().as_str()))?;
    let wanted = Wanted::of(&view, &filters)?;
    // A progress bar asks for one service's tasks five times a second: don't walk through all of them.
    let candidates: Vec<&Arc<Task>> = match &wanted.services {
        Some(services) => services.iter().flat_map(|id| view.state.tasks_of_service(*id)).collect(),
        None => view.state.tasks().collect(),
    };
    let now = context.clock.now();
    let tasks = candidates.into_iter().filter(|task| wanted.matches(&view, &filters, task));
    Ok(Answer::ok(&Value::Array(tasks.map(|task| convert::task(&view, task, now)).collect())))
}

/// The filters that name other objects.
struct Wanted {
    services: Option<BTreeSet<ServiceId>>,
    nodes: Option<BTreeSet<NodeId>>,
}

impl Wanted {
    /// A name that is not found is an error, as in Docker; an id is not: its object may be gone.
    fn of(view: &View, filters: &Filters) -> Result<Self, ApiError> {
        let service = |name: &str| match name.parse() {
            Ok(id) => Ok(id),
            Err(_) => find::service(&view.state, name).map(|service| service.id),
        };
        let node = |name: &str| match name.parse() {
            Ok(id) => Ok(id),
            Err(_) => find::node(&view.state, name).map(|node| node.id),
        };
        Ok(Self {
            services: filters.values("service").map(|names| names.map(service).collect()).transpose()?,
            nodes: filters.values("node").map(|names| names.map(node).collect()).transpose()?,
        })
    }

    fn matches(&self, view: &View, filters: &Filters, task: &Task) -> bool {
        let has_labels = || {
            // Labels of the service, as `docker stack ps` wants it.
            filters.values("label").is_none()
                || view.state.service(task.service).is_some_and(|s| filters.labels("label", &s.spec.labels))
        };
        self.services.as_ref().is_none_or(|services| services.contains(&task.service))
            && self.nodes.as_ref().is_none_or(|nodes| task.node.is_some_and(|node| nodes.contains(&node)))
            && filters.begins("id", &task.id.to_string())
            && filters.begins("name", &task.name())
            && filters.any("desired-state", |state| {
                state.is_empty() || state.eq_ignore_ascii_case(convert::desired_name(task))
            })
            && filters.is("runtime", "container")
            && filters.any("_up-to-date", |value| is_true(value) == is_up_to_date(view, task))
            && has_labels()
    }
}

fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "1" | "t" | "true")
}

/// Whether the task runs what its service wants now. Progress bars count only such tasks.
fn is_up_to_date(view: &View, task: &Task) -> bool {
    view.state.service(task.service).is_some_and(|service| match service.job {
        Some(job) => task.iteration == job.iteration,
        None => !is_dirty(view, service, task),
    })
}

/// `GET /tasks/{name}`.
pub(super) async fn inspect(context: &Context, request: &Request) -> Result<Answer, ApiError> {
    let view = context.cluster_view()?;
    let task = find::task(&view.state, &request.name)?;
    Ok(Answer::ok(&convert::task(&view, task, context.clock.now())))
}
