//! Our services ─▶ Docker's JSON.

use std::collections::HashMap;
use std::sync::Arc;

use bollard_stubs::models::{
    Limit, NetworkAttachmentConfig, Platform as PlatformModel, ResourceObject, Service as ServiceModel,
    ServiceJobStatus, ServiceServiceStatus, ServiceSpec as SpecModel, ServiceSpecMode, ServiceSpecModeReplicated,
    ServiceSpecModeReplicatedJob, ServiceUpdateStatus, ServiceUpdateStatusStateEnum, TaskSpec as TaskModel,
    TaskSpecContainerSpec, TaskSpecContainerSpecIsolationEnum, TaskSpecPlacement, TaskSpecPlacementPreferences,
    TaskSpecPlacementSpread, TaskSpecResources, TaskSpecRestartPolicy,
    TaskSpecRestartPolicyConditionEnum as ConditionModel,
};
use racimo_common::object::{ContainerSpec, Desired, Reservations, Resources, TaskState};
use racimo_common::units::{Bytes, NanoCpus};
use serde_json::Value;

use super::{
    container, dependency, endpoint, generic, json, map, mount, nanos, some, some_map, time, update_config, version,
};
use crate::api::network::Predefined;
use crate::store::{
    Mode, Placement, RestartCondition, RestartPolicy, Service, ServiceSpec, Task, TaskSpec, UpdateConfig, UpdateState,
    UpdateStatus, View,
};

/// What to show of a service beside what is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Show {
    /// Fill in what the spec leaves to defaults.
    pub defaults: bool,
    /// Count its tasks.
    pub status: bool,
}

/// A service as `GET /services/{id}` shows it.
pub fn service(view: &View, service: &Service, show: Show) -> Value {
    let model = ServiceModel {
        id: Some(service.id.to_string()),
        version: version(service.meta.version),
        created_at: Some(time(service.meta.created)),
        updated_at: Some(time(service.meta.updated)),
        spec: Some(spec(&service.spec, show.defaults)),
        endpoint: Some(endpoint::of_service(&view.state, service)),
        update_status: service.update.as_ref().map(update),
        service_status: show.status.then(|| status(view, service)),
        job_status: service.job.map(|job| ServiceJobStatus {
            job_iteration: version(job.iteration),
            last_execution: Some(time(job.started)),
        }),
    };
    let mut value = json(&model);
    put_generic(&mut value, "/Spec/TaskTemplate", &service.spec.task);
    // The models have no such field.
    if let (Some(previous), Value::Object(fields)) = (&service.previous, &mut value) {
        fields.insert("PreviousSpec".to_owned(), json(&spec(previous, show.defaults)));
        put_generic(&mut value, "/PreviousSpec/TaskTemplate", &previous.task);
    }
    value
}

/// Puts the generic resources that a task asks for into its JSON at `pointer`.
pub fn put_generic(root: &mut Value, pointer: &str, task: &TaskSpec) {
    generic::put(root, &format!("{pointer}/Resources/Reservations"), generic::asked(&task.resources.generic));
}

/// Counts as SwarmKit does: running is what was observed, whatever is wanted; of a job, only this iteration counts.
fn status(view: &View, service: &Service) -> ServiceServiceStatus {
    let iteration = service.job.map_or(0, |job| job.iteration);
    let is_counted = |task: &&Arc<Task>| !service.spec.mode.is_job() || task.iteration == iteration;
    let tasks = || view.state.tasks_of_service(service.id).filter(is_counted);
    let count = |state| Some(tasks().filter(|task| view.task_state(task) == state).count() as u64);
    let desired = match service.spec.mode {
        Mode::Replicated { replicas } => replicas,
        Mode::ReplicatedJob { concurrent_max, .. } => concurrent_max,
        Mode::Global | Mode::GlobalJob => {
            tasks().filter(|task| task.ended.is_none() && task.desired <= Desired::Running).count() as u64
        }
    };
    ServiceServiceStatus {
        running_tasks: count(TaskState::Running),
        desired_tasks: Some(desired),
        completed_tasks: if service.spec.mode.is_job() { count(TaskState::Complete) } else { Some(0) },
    }
}

fn update(status: &UpdateStatus) -> ServiceUpdateStatus {
    ServiceUpdateStatus {
        state: Some(match status.state {
            UpdateState::Updating => ServiceUpdateStatusStateEnum::UPDATING,
            UpdateState::Paused => ServiceUpdateStatusStateEnum::PAUSED,
            UpdateState::Completed => ServiceUpdateStatusStateEnum::COMPLETED,
            UpdateState::RollbackStarted => ServiceUpdateStatusStateEnum::ROLLBACK_STARTED,
            UpdateState::RollbackPaused => ServiceUpdateStatusStateEnum::ROLLBACK_PAUSED,
            UpdateState::RollbackCompleted => ServiceUpdateStatusStateEnum::ROLLBACK_COMPLETED,
        }),
        started_at: Some(time(status.started)),
        completed_at: status.completed.map(time),
        message: Some(status.message.clone()),
    }
}

fn spec(spec: &ServiceSpec, defaults: bool) -> SpecModel {
    // A job has no update config, and may not be given one.
    let config = |config: Option<UpdateConfig>| match config {
        None if defaults && !spec.mode.is_job() => Some(UpdateConfig::default()),
        config => config,
    };
    SpecModel {
        name: Some(spec.name.clone()),
        labels: map(&spec.labels),
        task_template: Some(TaskModel { runtime: Some("container".to_owned()), ..task(&spec.task, defaults) }),
        mode: Some(mode(spec.mode)),
        update_config: config(spec.update).map(|config| update_config::update_model(&config, defaults)),
        rollback_config: config(spec.rollback).map(|config| update_config::rollback_model(&config, defaults)),
        networks: None,
        endpoint_spec: Some(endpoint::spec_model(&spec.task.endpoint)),
    }
}

fn mode(mode: Mode) -> ServiceSpecMode {
    match mode {
        Mode::Replicated { replicas } => ServiceSpecMode {
            replicated: Some(ServiceSpecModeReplicated { replicas: Some(i64::try_from(replicas).unwrap_or(i64::MAX)) }),
            ..ServiceSpecMode::default()
        },
        Mode::Global => ServiceSpecMode { global: Some(HashMap::new()), ..ServiceSpecMode::default() },
        Mode::ReplicatedJob { concurrent_max, completions } => ServiceSpecMode {
            replicated_job: Some(ServiceSpecModeReplicatedJob {
                max_concurrent: Some(i64::try_from(concurrent_max).unwrap_or(i64::MAX)),
                total_completions: Some(i64::try_from(completions).unwrap_or(i64::MAX)),
            }),
            ..ServiceSpecMode::default()
        },
        Mode::GlobalJob => ServiceSpecMode { global_job: Some(HashMap::new()), ..ServiceSpecMode::default() },
    }
}

/// A task's specification; `TaskTemplate` in a service, `Spec` in a task.
pub fn task(spec: &TaskSpec, defaults: bool) -> TaskModel {
    TaskModel {
        container_spec: Some(container_spec(&spec.container, defaults)),
        resources: Some(resources(&spec.resources)),
        restart_policy: restart(&spec.restart, defaults),
        placement: Some(placement(&spec.placement)),
        networks: networks(spec),
        log_driver: spec.log.as_ref().map(container::log_driver_model),
        force_update: Some(i64::try_from(spec.force_update).unwrap_or(i64::MAX)),
        ..TaskModel::default()
    }
}

fn networks(spec: &TaskSpec) -> Option<Vec<NetworkAttachmentConfig>> {
    let predefined = Predefined::of(spec.container.network).map(|network| NetworkAttachmentConfig {
        target: Some(network.id().to_owned()),
        ..NetworkAttachmentConfig::default()
    });
    let overlays = spec.networks.iter().map(|attachment| NetworkAttachmentConfig {
        target: Some(attachment.network.to_string()),
        aliases: some(&attachment.aliases),
        ..NetworkAttachmentConfig::default()
    });
    Some(predefined.into_iter().chain(overlays).collect()).filter(|all: &Vec<_>| !all.is_empty())
}

fn container_spec(spec: &ContainerSpec, defaults: bool) -> TaskSpecContainerSpec {
    let grace = if defaults { Some(spec.stop_grace()) } else { spec.stop_grace };
    TaskSpecContainerSpec {
        image: Some(spec.image.clone()),
        labels: some_map(&spec.labels),
        command: some(&spec.command),
        args: some(&spec.args),
        hostname: spec.hostname.clone(),
        env: some(&spec.env),
        dir: spec.dir.clone(),
        user: spec.user.clone(),
        mounts: (!spec.mounts.is_empty()).then(|| spec.mounts.iter().map(mount::model).collect()),
        stop_signal: spec.stop_signal.clone(),
        stop_grace_period: grace.map(nanos),
        secrets: dependency::secrets(&spec.secrets),
        configs: dependency::configs(&spec.configs),
        health_check: spec.health.as_ref().map(container::health_model),
        init: spec.init,
        tty: spec.tty.then_some(true),
        open_stdin: spec.open_stdin.then_some(true),
        read_only: spec.read_only.then_some(true),
        groups: some(&spec.groups),
        capability_add: some(&spec.cap_add),
        capability_drop: some(&spec.cap_drop),
        ulimits: container::ulimit_models(&spec.ulimits),
        sysctls: some_map(&spec.sysctls),
        dns_config: Some(container::dns_model(&spec.dns)),
        hosts: some(&spec.hosts),
        oom_score_adj: spec.oom_score_adj.map(i64::from),
        privileges: container::privileges_model(spec.privileges),
        // Nothing else can be asked for.
        isolation: Some(TaskSpecContainerSpecIsolationEnum::DEFAULT),
    }
}

fn resources(resources: &Resources) -> TaskSpecResources {
    let Resources { limits, reservations: Reservations { cpu, memory }, generic: _ } = resources;
    TaskSpecResources {
        limits: Some(Limit {
            nano_cpus: limits.cpu.map(NanoCpus::to_i64),
            memory_bytes: limits.memory.map(Bytes::to_i64),
            pids: limits.pids.map(|n| i64::try_from(n).unwrap_or(i64::MAX)),
        }),
        reservations: Some(ResourceObject {
            nano_cpus: (!cpu.is_zero()).then(|| cpu.to_i64()),
            memory_bytes: (!memory.is_zero()).then(|| memory.to_i64()),
            generic_resources: None,
        }),
    }
}

fn restart(policy: &RestartPolicy, defaults: bool) -> Option<TaskSpecRestartPolicy> {
    let policy = if defaults {
        &RestartPolicy {
            condition: Some(policy.condition()),
            delay: Some(policy.delay()),
            attempts_max: Some(policy.attempts_max.unwrap_or(0)),
            window: policy.window,
        }
    } else {
        policy
    };
    (*policy != RestartPolicy::default()).then(|| TaskSpecRestartPolicy {
        condition: policy.condition.map(|condition| match condition {
            RestartCondition::None => ConditionModel::NONE,
            RestartCondition::OnFailure => ConditionModel::ON_FAILURE,
            RestartCondition::Any => ConditionModel::ANY,
        }),
        delay: policy.delay.map(nanos),
        max_attempts: policy.attempts_max.map(|n| i64::try_from(n).unwrap_or(i64::MAX)),
        window: policy.window.map(nanos),
    })
}

fn placement(placement: &Placement) -> TaskSpecPlacement {
    let preference = |label: &String| TaskSpecPlacementPreferences {
        spread: Some(TaskSpecPlacementSpread { spread_descriptor: Some(label.clone()) }),
    };
    let platform = |platform: &racimo_common::registry::Platform| PlatformModel {
        architecture: (!platform.architecture.is_empty()).then(|| platform.architecture.clone()),
        os: (!platform.os.is_empty()).then(|| platform.os.clone()),
    };
    TaskSpecPlacement {
        constraints: some(&placement.constraints),
        preferences: (!placement.preferences.is_empty())
            .then(|| placement.preferences.iter().map(preference).collect()),
        max_replicas: (placement.replicas_max > 0).then(|| i64::try_from(placement.replicas_max).unwrap_or(i64::MAX)),
        platforms: (!placement.platforms.is_empty()).then(|| placement.platforms.iter().map(platform).collect()),
    }
}
