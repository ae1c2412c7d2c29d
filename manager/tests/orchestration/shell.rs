//! The two loops on a real store: what is created is placed, what ends is replaced, a deleted service leaves nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use racimo_common::id::{IdSource, NodeId, RandomId, ServiceId};
use racimo_common::object::{Desired, NetworkMode, NodeDescription, Role, TaskState};
use racimo_common::time::{Clock, Wall};
use racimo_common::units::{Bytes, NanoCpus};
use racimo_manager::store::log::RealDisk;
use racimo_manager::store::{
    Change, Ended, Mode, NewNode, NodeSpec, Observation, SeenNode, ServiceSpec, Store, TaskSpec, View,
};
use racimo_manager::{orchestrator, scheduler};

const NODE: u128 = 1;

fn service(replicas: u64) -> ServiceSpec {
    let mut task = TaskSpec::default();
    task.restart.delay = Some(Duration::ZERO);
    // There is no mesh, and a board would have 253 addresses there.
    task.container.network = NetworkMode::None;
    let (name, labels) = ("web".to_owned(), std::collections::BTreeMap::new());
    ServiceSpec {
        name,
        labels,
        task: Arc::new(task),
        mode: Mode::Replicated { replicas },
        update: None,
        rollback: None,
        credentials: None,
    }
}

async fn until(store: &Store, what: &str, holds: impl Fn(&View) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds(&store.view()) {
        assert!(Instant::now() < deadline, "{what}: {:?}", store.view().state.tasks().collect::<Vec<_>>());
        smol::Timer::after(Duration::from_millis(5)).await;
    }
}

fn placed(view: &View) -> usize {
    let wanted = |task: &&Arc<_>| {
        let task: &racimo_manager::store::Task = task;
        task.node.is_some() && task.ended.is_none() && task.desired == Desired::Running
    };
    view.state.tasks().filter(wanted).count()
}

#[test]
fn loops_serve_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(RealDisk::new(dir.path()).unwrap(), 1).unwrap();
    let clock = Clock::start();
    let executor = smol::LocalExecutor::new();
    let _orchestrator = executor.spawn(orchestrator::run(store.clone(), clock, IdSource::seeded(7)));
    let _scheduler = executor.spawn(scheduler::run(store.clone(), clock));
    smol::block_on(executor.run(scenario(&store, &clock)));
}

async fn scenario(store: &Store, clock: &Clock) {
    let (id, description) = (NodeId::from_bits(NODE), NodeDescription { memory: Bytes::mib(512), ..about() });
    let (role, spec, addr) = (Role::Worker, NodeSpec::default(), "192.0.2.1".to_owned());
    let new = NewNode { id, role, key_digest: None, spec, description: Arc::new(description), addr };
    let at = || clock.now().wall;
    store.commit(at(), vec![Change::NodeCreate(Box::new(new))]).await.unwrap();
    let web = ServiceId::from_bits(9);
    let create = Change::ServiceCreate { service: web, spec: Arc::new(service(3)) };
    store.commit(at(), vec![create]).await.unwrap();
    // The node has no session yet: the tasks wait and say why.
    until(store, "a reason", |view| {
        let says = |task: &Arc<racimo_manager::store::Task>| view.task_status(task).err.is_some();
        view.state.task_count() == 3 && view.state.tasks().all(says)
    })
    .await;
    let seen = SeenNode { ready: true, at: Wall::default() };
    store.observe(vec![Observation::Node { node: id, seen }]).await;
    until(store, "placed", |view| placed(view) == 3).await;
    let first = store.view().state.tasks().next().unwrap().id;
    let ended = Ended {
        state: TaskState::Failed,
        at: at(),
        message: String::new(),
        err: None,
        container: None,
        exit_code: Some(1),
    };
    store.commit(at(), vec![Change::TaskEnd { task: first, ended }]).await.unwrap();
    until(store, "replaced", |view| placed(view) == 3 && view.state.task_count() == 4).await;
    let version = store.view().state.service(web).unwrap().meta.version;
    let update = Change::ServiceUpdate { service: web, version, spec: Arc::new(service(1200)) };
    store.commit(at(), vec![update]).await.unwrap();
    until(store, "more than one plan holds", |view| placed(view) == 1200).await;
    store.commit(at(), vec![Change::ServiceRemove { service: web }]).await.unwrap();
    until(store, "removed", |view| view.state.tasks().all(|task| task.desired == Desired::Remove)).await;
}

fn about() -> NodeDescription {
    NodeDescription { cpus: NanoCpus::new(4_000_000_000), ..NodeDescription::default() }
}
