//! Our tasks ─▶ Docker's JSON.

use std::collections::HashMap;

use bollard_stubs::models::{ContainerStatus, Task as TaskModel, TaskState as StateModel, TaskStatus as StatusModel};
use racimo_common::object::{Desired, TaskState};
use racimo_common::time::Now;
use serde_json::Value;

use super::service_out;
use super::{endpoint, generic, json, time, version};
use crate::orchestrator;
use crate::store::{Slot, Task, TaskStatus, View};

/// A task as `GET /tasks/{id}` shows it.
pub fn task(view: &View, task: &Task, now: Now) -> Value {
    let mut status = view.task_status(task);
    status.err = status.err.or_else(|| orchestrator::held_by_fence(view, task, now));
    let mut value = json(&TaskModel {
        id: Some(task.id.to_string()),
        version: version(task.meta.version),
        created_at: Some(time(task.meta.created)),
        updated_at: Some(time(task.meta.updated.max(status.at))),
        labels: Some(HashMap::new()),
        spec: Some(service_out::task(&task.spec, false)),
        service_id: Some(task.service.to_string()),
        slot: match task.slot {
            Slot::Replica(number) => Some(i64::from(number)),
            Slot::Node(_) => None,
        },
        node_id: task.node.map(|node| node.to_string()),
        status: Some(status_model(&status)),
        desired_state: Some(desired(task)),
        job_iteration: is_of_job(task).then(|| version(task.iteration)).flatten(),
        ..TaskModel::default()
    });
    service_out::put_generic(&mut value, "/Spec", &task.spec);
    generic::put(&mut value, "", generic::list(&task.generic));
    // The models have no such field.
    let attachments = endpoint::attachments(&view.state, task);
    if let (Value::Object(fields), false) = (&mut value, attachments.is_empty()) {
        fields.insert("NetworksAttachments".to_owned(), attachments.into());
    }
    value
}

fn status_model(status: &TaskStatus) -> StatusModel {
    StatusModel {
        timestamp: Some(time(status.at)),
        state: Some(state(status.state)),
        message: Some(status.message.clone()),
        err: status.err.clone(),
        container_status: status.container.as_ref().map(|container| ContainerStatus {
            container_id: Some(container.id.clone()),
            pid: Some(i64::from(container.pid)),
            exit_code: Some(i64::from(container.exit_code.unwrap_or(0))),
        }),
        port_status: Some(endpoint::of_board(&status.ports)),
    }
}

fn state(state: TaskState) -> StateModel {
    match state {
        TaskState::New => StateModel::NEW,
        TaskState::Pending => StateModel::PENDING,
        TaskState::Assigned => StateModel::ASSIGNED,
        TaskState::Accepted => StateModel::ACCEPTED,
        TaskState::Preparing => StateModel::PREPARING,
        TaskState::Ready => StateModel::READY,
        TaskState::Starting => StateModel::STARTING,
        TaskState::Running => StateModel::RUNNING,
        TaskState::Complete => StateModel::COMPLETE,
        TaskState::Shutdown => StateModel::SHUTDOWN,
        TaskState::Failed => StateModel::FAILED,
        TaskState::Rejected => StateModel::REJECTED,
        TaskState::Orphaned => StateModel::ORPHANED,
    }
}

/// Whether the task runs to completion.
fn is_of_job(task: &Task) -> bool {
    task.iteration > 0
}

/// What is wanted of a task: of a job's, that it completes.
fn desired(task: &Task) -> StateModel {
    match task.desired {
        Desired::Ready => StateModel::READY,
        Desired::Running if is_of_job(task) => StateModel::COMPLETE,
        Desired::Running => StateModel::RUNNING,
        Desired::Shutdown => StateModel::SHUTDOWN,
        Desired::Remove => StateModel::REMOVE,
    }
}

/// The name of what is wanted of a task.
pub fn desired_name(task: &Task) -> &'static str {
    if is_of_job(task) && task.desired == Desired::Running { TaskState::Complete.name() } else { task.desired.name() }
}
