//! What a board is told to run: templates filled in, secrets and configs as files, credentials.
//!
//! In: the view, the vault, a task. Out: its [`Work`] and the contents of its files. What cannot be made ready is said
//! in [`Work::fault`]: the board rejects that task with the reason, and nothing else is hurt.

use std::collections::BTreeMap;
use std::time::Duration;

use racimo_common::id::TaskId;
use racimo_common::limits::{ENDED_LOGS_MAX, FRAME_TO_AGENT_MAX};
use racimo_common::object::{
    ContainerSpec, EndpointMode, FileRef, HostPort, ISOLATE_SHIM_LABEL, NetworkMode, Port, PortMode, generic_variables,
};
use racimo_common::registry::Credentials;
use racimo_common::wire::{Assignment, BodyKey, File, Offline, Restart, TaskNet, Work, frame};

use super::directory;
use crate::api::validate;
use crate::log_driver;
use crate::store::{Dependency, DependencyKind, RestartCondition, Slot, Task, View};
use crate::template::{self, Facts, Kind, Lookup, Template};
use crate::vault::{Owner, Plain, Vault};

/// Room kept in a frame for the message around the assignments, bytes.
pub(crate) const MARGIN: usize = 1024 + ENDED_LOGS_MAX * 20;

/// What the task runs. Bodies are opened later, by `body`.
pub fn work(view: &View, vault: &Vault, task: &Task) -> Work {
    let is_template = |file: &FileRef| view.state.dependency(file.id).is_some_and(|found| found.template);
    let mut container = task.spec.container.clone();
    let files = files(&container, task.id, is_template);
    (container.secrets, container.configs) = (Vec::new(), Vec::new());
    let filled = fill(&mut container, &facts(view, task));
    // Last, so that nothing the service says takes their place.
    container.env.extend(generic_variables(&task.generic));
    if is_isolated(view, task) {
        container.labels.entry(ISOLATE_SHIM_LABEL.to_owned()).or_insert_with(|| "true".to_owned());
    }
    let credentials = credentials(view, vault, task);
    let mut work = Work {
        service: task.service,
        service_name: task.service_name.to_string(),
        slot_name: task.slot_name(),
        container,
        resources: task.spec.resources.clone(),
        // Checked when the service was stored.
        log: log_driver::config(task.spec.log.as_ref()).unwrap_or_default(),
        net: net(task),
        files,
        credentials: None,
        fault: None,
        offline: offline(view, task),
    };
    match filled.and(credentials) {
        Ok(credentials) => work.credentials = credentials,
        Err(reason) => refuse(&mut work, reason),
    }
    work
}

/// Whether its service says that its tasks have a shim each; their containers' own label goes first.
fn is_isolated(view: &View, task: &Task) -> bool {
    let service = view.state.service(task.service);
    service.and_then(|service| service.spec.labels.get(ISOLATE_SHIM_LABEL)).is_some_and(|value| value == "true")
}

/// What its board does with it while it hears no manager. Jobs and fenced tasks are never started again by a board.
fn offline(view: &View, task: &Task) -> Offline {
    let (spec, policy) = (&task.spec.offline, &task.spec.restart);
    let ms = |span: Duration| u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
    let history = view.state.slot_history(task.service, task.slot).filter(|slot| slot.revision == task.revision);
    let used = history.filter(|_| policy.window().is_none()).map_or(0, |history| history.restarts);
    let left = policy.attempts_max().map(|most| u32::try_from(most.saturating_sub(used)).unwrap_or(u32::MAX));
    let restarts = match policy.condition() {
        RestartCondition::None => false,
        RestartCondition::OnFailure | RestartCondition::Any => task.iteration == 0 && spec.lease.is_none(),
    };
    let restart = Restart {
        completed: policy.condition() == RestartCondition::Any,
        delay_ms: ms(policy.delay()),
        attempts: left,
        window_ms: policy.window().map(ms),
    };
    Offline {
        restart: (restarts && left != Some(0)).then_some(restart),
        secrets: !spec.lacks_secrets,
        lease_ms: spec.lease.map(ms),
    }
}

/// The task's place in the network; none: it uses its board's, or only has a loopback device.
fn net(task: &Task) -> Option<TaskNet> {
    let (endpoint, addresses) = (&task.spec.endpoint, &task.addresses);
    let has_own = match task.spec.container.network {
        NetworkMode::Unset | NetworkMode::Bridge => addresses.mesh.is_some() || !addresses.networks.is_empty(),
        NetworkMode::None | NetworkMode::Host => false,
    };
    let of_board = endpoint.ports.iter().filter(|port| port.mode == PortMode::Host);
    let port = |port: &Port| HostPort { protocol: port.protocol, published: port.published, target: port.target };
    let has_vip = endpoint.mode == EndpointMode::Vip && !addresses.networks.is_empty();
    has_own.then(|| TaskNet {
        mesh: addresses.mesh.map(Into::into),
        networks: addresses.networks.iter().map(|(network, address)| (*network, (*address).into())).collect(),
        ports: of_board.map(port).collect(),
        balanced: has_vip || directory::publishes(task),
    })
}

/// The host name that the task's service gives it; none: it gives none, or one that cannot be filled in, for which the
/// task is rejected.
pub(super) fn hostname(view: &View, task: &Task) -> Option<String> {
    let hostname = task.spec.container.hostname.clone()?;
    if !template::is_template(&hostname) {
        return Some(hostname);
    }
    let mut container = ContainerSpec { hostname: Some(hostname), ..ContainerSpec::default() };
    fill(&mut container, &facts(view, task)).ok()?;
    container.hostname
}

/// The work cannot be made ready: only what is needed to reject it is left.
pub(super) fn refuse(work: &mut Work, reason: String) {
    let old = std::mem::take(&mut work.container);
    let (image, stop_signal, stop_grace) = (old.image, old.stop_signal, old.stop_grace);
    work.container = ContainerSpec { image, stop_signal, stop_grace, ..ContainerSpec::default() };
    (work.files, work.credentials, work.fault) = (Vec::new(), None, Some(reason));
}

/// Refuses an assignment that fits no frame: filled in, a template may be longer than what the API checked.
pub(super) fn bounded(assignment: &mut Assignment) {
    let Some(work) = &mut assignment.work else { return };
    // The text around it takes far less than the margin, and so does the id.
    if frame::encode(work, FRAME_TO_AGENT_MAX - 2 * MARGIN).is_err() {
        let reason =
            format!("with its templates filled in the task takes more than {FRAME_TO_AGENT_MAX} bytes to send");
        refuse(work, reason);
    }
}

/// The container's secrets and configs as files.
pub fn files(container: &ContainerSpec, task: TaskId, is_template: impl Fn(&FileRef) -> bool) -> Vec<File> {
    let file = |(kind, file): (DependencyKind, &FileRef)| File {
        body: BodyKey { id: file.id, task: is_template(file).then_some(task) },
        // Checked when the service was stored.
        target: kind.place(&file.target).unwrap_or_default(),
        uid: file.uid,
        gid: file.gid,
        mode: file.mode,
    };
    references(container).map(file).collect()
}

/// All references to secrets and configs, in the order of [`files`].
pub(super) fn references(container: &ContainerSpec) -> impl Iterator<Item = (DependencyKind, &FileRef)> {
    DependencyKind::ALL.into_iter().flat_map(|kind| kind.of(container).iter().map(move |file| (kind, file)))
}

/// The content of one of the task's files, filled in if it is a template. `env`: as the container will have it.
pub(super) fn body(
    view: &View,
    vault: &Vault,
    task: &Task,
    (kind, file): (DependencyKind, &FileRef),
    env: &[String],
) -> Result<Plain, String> {
    let (found, plain) = open(view, vault, kind, file)?;
    if !found.template {
        return Ok(plain);
    }
    let failed = |reason: String| format!("expanding {} '{}' failed: {reason}", kind.name(), file.name);
    let text = std::str::from_utf8(&plain).map_err(|_| failed("it is not UTF-8 text".to_owned()))?;
    let lookup = Files { view, vault, container: &task.spec.container, env };
    let filled =
        Template::parse(text, Kind::Body).and_then(|t| t.run(&facts(view, task), Some(&lookup), kind.bytes_max()));
    filled.map(|text| Plain::new(text.into_bytes())).map_err(|error| failed(error.to_string()))
}

fn open<'a>(
    view: &'a View,
    vault: &Vault,
    kind: DependencyKind,
    file: &FileRef,
) -> Result<(&'a Dependency, Plain), String> {
    let word = kind.name();
    let found = view.state.dependency(file.id).filter(|found| found.kind == kind);
    let found = found.ok_or_else(|| format!("{word} '{}' was removed", file.name))?;
    let plain = vault.open(Owner::Dependency(kind, file.id), &found.body);
    plain.map(|plain| (&**found, plain)).map_err(|error| format!("{word} '{}': {error}", file.name))
}

/// What the templates of bodies may look at: only what the task has itself.
struct Files<'a> {
    view: &'a View,
    vault: &'a Vault,
    container: &'a ContainerSpec,
    env: &'a [String],
}

impl Files<'_> {
    fn find(&self, kind: DependencyKind, target: &str) -> Result<String, String> {
        let file = kind.of(self.container).iter().find(|file| file.target == target);
        // The target is not repeated: a template can make it of a secret.
        let file = file.ok_or_else(|| format!("the service has no {} with the target it asks for", kind.name()))?;
        // As it is: a template in a template is not filled in, so none can go round in circles.
        let (_, plain) = open(self.view, self.vault, kind, file)?;
        let text = std::str::from_utf8(&plain).map(str::to_owned);
        text.map_err(|_| format!("{} '{}' is not UTF-8 text", kind.name(), file.name))
    }
}

impl Lookup for Files<'_> {
    fn secret(&self, target: &str) -> Result<String, String> {
        self.find(DependencyKind::Secret, target)
    }
    fn config(&self, target: &str) -> Result<String, String> {
        self.find(DependencyKind::Config, target)
    }
    fn env(&self, name: &str) -> String {
        let found = self.env.iter().filter_map(|entry| entry.split_once('=')).find(|(known, _)| *known == name);
        found.map(|(_, value)| value.to_owned()).unwrap_or_default()
    }
}

fn credentials(view: &View, vault: &Vault, task: &Task) -> Result<Option<Credentials>, String> {
    let service = view.state.service(task.service);
    let Some(sealed) = service.and_then(|service| service.spec.credentials.as_ref()) else { return Ok(None) };
    let plain = vault.open(Owner::Credentials(task.service), sealed);
    let plain = plain.map_err(|error| format!("the registry credentials of the service: {error}"))?;
    let read = rmp_serde::from_slice(&plain);
    read.map(Some).map_err(|_| "the registry credentials of the service cannot be read".to_owned())
}

fn fill(container: &mut ContainerSpec, facts: &Facts) -> Result<(), String> {
    let templated = container.hostname.as_ref().is_some_and(|hostname| template::is_template(hostname));
    template::container(container, facts)?;
    match container.hostname.as_ref().filter(|hostname| templated && !validate::is_hostname(hostname)) {
        Some(hostname) => Err(format!("expanding hostname failed: {hostname:?} is not a host name")),
        None => Ok(()),
    }
}

fn facts(view: &View, task: &Task) -> Facts {
    let board = task.node.and_then(|node| view.state.node(node)).map(|node| &node.description);
    let service = view.state.service(task.service);
    let node_id = task.node.map(|node| node.to_string()).unwrap_or_default();
    Facts {
        service_id: task.service.to_string(),
        service_name: task.service_name.to_string(),
        service_labels: service.map_or_else(BTreeMap::new, |service| service.spec.labels.clone()),
        node_hostname: board.map(|board| board.hostname.clone()).unwrap_or_default(),
        architecture: board.map(|board| board.machine.clone()).unwrap_or_default(),
        os: "linux".to_owned(),
        task_id: task.id.to_string(),
        task_name: task.name(),
        task_slot: match task.slot {
            Slot::Replica(number) => number.to_string(),
            Slot::Node(_) => node_id.clone(),
        },
        node_id,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::testing::{base, edit_task, task};
    use crate::store::{RestartPolicy, Seen, TaskSpec};

    /// What is said of task 2 with this specification.
    fn told(edit: impl FnOnce(&mut Task, &mut TaskSpec)) -> Offline {
        let mut state = base();
        edit_task(&mut state, 2, |task| {
            let mut spec = (*task.spec).clone();
            edit(task, &mut spec);
            task.spec = Arc::new(spec);
        });
        let view = View { state, seen: Seen::default() };
        offline(&view, view.state.task(task(2)).expect("a task"))
    }

    #[test]
    fn what_a_board_does_by_itself() {
        let usual = Restart { completed: true, delay_ms: 5000, attempts: None, window_ms: None };
        let with = |restart| Offline { restart, secrets: true, lease_ms: None };
        assert_eq!(told(|_, _| {}), with(Some(usual)));
        let policy = |condition| RestartPolicy { condition: Some(condition), ..RestartPolicy::default() };
        assert_eq!(told(|_, spec| spec.restart = policy(RestartCondition::None)), with(None));
        let on_failure = Restart { completed: false, ..usual };
        assert_eq!(told(|_, spec| spec.restart = policy(RestartCondition::OnFailure)), with(Some(on_failure)));
        let few = told(|_, spec| {
            spec.restart.attempts_max = Some(3);
            spec.restart.window = Some(Duration::from_secs(60));
        });
        assert_eq!(few, with(Some(Restart { attempts: Some(3), window_ms: Some(60_000), ..usual })));
        // Jobs, and what is fenced.
        assert_eq!(told(|task, _| task.iteration = 1), with(None));
        let fenced = told(|_, spec| spec.offline.lease = Some(Duration::from_secs(30)));
        assert_eq!(fenced, Offline { lease_ms: Some(30_000), ..with(None) });
        assert!(!told(|_, spec| spec.offline.lacks_secrets = true).secrets);
    }
}
