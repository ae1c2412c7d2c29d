//! Small objects with small ids, for tests.

use std::sync::Arc;

use racimo_common::id::{ClusterId, DependencyId, NetworkId, NodeId, RandomId, ServiceId, TaskId};
use racimo_common::object::{
    ContainerSpec, Desired, FileRef, NodeDescription, Reservations, Resources, Role, TaskState,
};
use racimo_common::time::Wall;
use racimo_common::units::{Bytes, NanoCpus};

use super::{
    Attachment, Change, ClusterSpec, Command, DependencyKind, Ended, Event, Mode, NewCluster, NewDependency, NewNode,
    NewTask, NodeSpec, Refusal, Sealed, ServiceSpec, Slot, State, TaskSpec, WrittenOff,
};

pub(crate) fn node(number: u128) -> NodeId {
    NodeId::from_bits(number)
}

/// The number of the network `ingress`.
pub(crate) const INGRESS: u128 = 1 << 100;

pub(crate) fn network(number: u128) -> NetworkId {
    NetworkId::from_bits(number)
}

pub(crate) fn service(number: u128) -> ServiceId {
    ServiceId::from_bits(number)
}

pub(crate) fn task(number: u128) -> TaskId {
    TaskId::from_bits(number)
}

pub(crate) fn dependency(number: u128) -> DependencyId {
    DependencyId::from_bits(number)
}

/// A secret or config whose sealed body is its name.
pub(crate) fn new_dependency(number: u128, kind: DependencyKind, name: &str) -> Change {
    Change::DependencyCreate(Box::new(NewDependency {
        id: dependency(number),
        kind,
        name: name.to_owned(),
        labels: Default::default(),
        template: false,
        body: Sealed(Arc::new(serde_bytes::ByteBuf::from(name.as_bytes()))),
    }))
}

/// The spec with these secrets, each as a file of its name.
pub(crate) fn with_secrets(spec: &ServiceSpec, secrets: &[(u128, &str)]) -> Arc<ServiceSpec> {
    let mut task = (*spec.task).clone();
    let file = |(number, name): &(u128, &str)| FileRef {
        id: dependency(*number),
        name: (*name).to_owned(),
        target: (*name).to_owned(),
        uid: 0,
        gid: 0,
        mode: 0o444,
    };
    task.container.secrets = secrets.iter().map(file).collect();
    Arc::new(ServiceSpec { task: Arc::new(task), ..spec.clone() })
}

/// Seconds after 1970.
pub(crate) fn at(seconds: i64) -> Wall {
    Wall::from_nanos(seconds * 1_000_000_000)
}

pub(crate) fn new_cluster() -> Change {
    Change::ClusterCreate(Box::new(NewCluster {
        net: crate::store::ClusterNet::default(),
        ingress: network(INGRESS),
        id: ClusterId::from_bits(9),
        spec: ClusterSpec::default(),
        root_pem: "root".to_owned(),
        worker_secret: [1; 16].into(),
        manager_secret: [2; 16].into(),
        key: None,
        managers: vec!["m:2377".to_owned()],
    }))
}

/// A board with one core and 164 MiB, of which 100 may be reserved.
pub(crate) fn new_node(number: u128) -> Change {
    let description = NodeDescription {
        hostname: format!("board{number}"),
        cpus: NanoCpus::new(1_000_000_000),
        memory: Bytes::mib(164),
        ..NodeDescription::default()
    };
    Change::NodeCreate(Box::new(NewNode {
        id: node(number),
        role: Role::Worker,
        spec: NodeSpec::default(),
        description: description.into(),
        addr: "192.0.2.1".to_owned(),
        key_digest: Some([u8::try_from(number).unwrap(); 32]),
    }))
}

/// A replicated service called `name`, each of whose tasks reserves `mib`.
pub(crate) fn spec(name: &str, image: &str, mib: u64) -> Arc<ServiceSpec> {
    let reservations = Reservations { cpu: NanoCpus::ZERO, memory: Bytes::mib(mib) };
    let task = TaskSpec {
        container: ContainerSpec { image: image.to_owned(), ..ContainerSpec::default() },
        resources: Resources { reservations, ..Resources::default() },
        ..TaskSpec::default()
    };
    Arc::new(ServiceSpec {
        name: name.to_owned(),
        labels: [("made".to_owned(), "here".to_owned())].into(),
        task: task.into(),
        mode: Mode::Replicated { replicas: 2 },
        update: None,
        rollback: None,
        credentials: None,
    })
}

pub(crate) fn new_network(number: u128, name: &str) -> Change {
    let spec = super::NetworkSpec { name: name.to_owned(), ..super::NetworkSpec::default() };
    Change::NetworkCreate { network: network(number), spec }
}

/// `spec` with its tasks attached to these networks.
pub(crate) fn attached(spec: &ServiceSpec, networks: &[u128]) -> Arc<ServiceSpec> {
    let networks = networks.iter().map(|n| Attachment { network: network(*n), aliases: Vec::new() }).collect();
    let task = TaskSpec { networks, ..(*spec.task).clone() };
    Arc::new(ServiceSpec { task: task.into(), ..spec.clone() })
}

pub(crate) fn new_service(number: u128, spec: Arc<ServiceSpec>) -> Change {
    Change::ServiceCreate { service: service(number), spec }
}

/// A task that shall run, of a service that is at `revision`.
pub(crate) fn new_task(number: u128, of: u128, revision: u64) -> NewTask {
    NewTask {
        id: task(number),
        service: service(of),
        revision,
        slot: Slot::Replica(u32::try_from(number).unwrap()),
        desired: Desired::Running,
        gate: None,
        restart_of: None,
        node: None,
    }
}

pub(crate) fn create(new: NewTask) -> Change {
    Change::TaskCreate(Box::new(new))
}

pub(crate) fn assign(number: u128, to: u128) -> Change {
    Change::TaskAssign { task: task(number), node: node(to), generic: std::collections::BTreeMap::new() }
}

pub(crate) fn desire(number: u128, desired: Desired) -> Change {
    Change::TaskDesire { task: task(number), desired }
}

pub(crate) fn end(number: u128, state: TaskState) -> Change {
    let ended = Ended { state, at: at(0), message: "over".to_owned(), err: None, container: None, exit_code: Some(3) };
    Change::TaskEnd { task: task(number), ended }
}

pub(crate) fn write_off(number: u128) -> Change {
    let written_off = WrittenOff { at: at(0), reason: "heartbeat failure".to_owned() };
    Change::NodeWriteOff { node: node(number), written_off }
}

/// Applies one command, stamped as many seconds after 1970 as its index.
pub(crate) fn apply(state: &State, changes: Vec<Change>) -> Result<(State, Vec<Event>), Refusal> {
    let index = state.index() + 1;
    state.apply(index, &Command { at: at(i64::try_from(index).unwrap()), changes })
}

/// Applies commands of one change each.
#[track_caller]
pub(crate) fn applied(state: &State, changes: Vec<Change>) -> State {
    changes.into_iter().fold(state.clone(), |state, change| apply(&state, vec![change]).expect("it is allowed").0)
}

/// A cluster (1), nodes 1 and 2 (2, 3), service 1 `web` at revision 4 whose tasks reserve 40 MiB, and its tasks:
/// 1 waits (5), 2 is on node 1 (6, 7), 3 failed on node 1 (8, 9, 10).
pub(crate) fn base() -> State {
    let changes = vec![
        new_cluster(),
        new_node(1),
        new_node(2),
        new_service(1, spec("web", "nginx", 40)),
        create(new_task(1, 1, 4)),
        create(new_task(2, 1, 4)),
        assign(2, 1),
        create(new_task(3, 1, 4)),
        assign(3, 1),
        end(3, TaskState::Failed),
    ];
    applied(&State::default(), changes)
}

/// The state with something in it edited, as no command would.
pub(crate) fn edit_task(state: &mut State, number: u128, edit: impl FnOnce(&mut super::Task)) {
    let mut object = (**state.tasks.get(&task(number)).expect("a task")).clone();
    edit(&mut object);
    state.tasks.insert(task(number), Arc::new(object));
}

/// The same for a node.
pub(crate) fn edit_node(state: &mut State, number: u128, edit: impl FnOnce(&mut super::Node)) {
    let mut object = (**state.nodes.get(&node(number)).expect("a node")).clone();
    edit(&mut object);
    state.nodes.insert(node(number), Arc::new(object));
}

/// The same for a service.
pub(crate) fn edit_service(state: &mut State, number: u128, edit: impl FnOnce(&mut super::Service)) {
    let mut object = (**state.services.get(&service(number)).expect("a service")).clone();
    edit(&mut object);
    state.services.insert(service(number), Arc::new(object));
}

/// The same for a network.
pub(crate) fn edit_network(state: &mut State, number: u128, edit: impl FnOnce(&mut super::Network)) {
    let mut object = (**state.networks.get(&network(number)).expect("a network")).clone();
    edit(&mut object);
    state.networks.insert(network(number), Arc::new(object));
}
