//! A manager for tests: the real store on a disk in memory, a control that makes a cluster without certificates.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hyper::Method;
use racimo_common::id::{ClusterId, IdSource, NetworkId, NodeId, RandomId};
use racimo_common::object::{
    Availability, ContainerStatus, HostPort, NodeDescription, PortMode, Role, TaskReport, TaskState,
};
use racimo_common::registry::{Config, Platform, Registry};
use racimo_common::time::{Clock, Wall};
use racimo_common::units::{Bytes as Memory, NanoCpus};
use ring::rand::SystemRandom;
use serde_json::Value;
use zeroize::Zeroizing;

use super::answer::CutOff;
use super::control::{Control, ControlError, ControlStatus, InitRequest, MadeBackup, Reply};
use super::host::Host;
use super::who::Who;
use super::{Context, guard};
use crate::ca::{Ca, kept};
use crate::store::log::fake;
use crate::store::{
    Change, Ended, NewCluster, NewNode, NewTask, NodeSpec, Observation, Sealed, SeenNode, Service, Slot, Store, Task,
};
use crate::vault::unlock::UnlockKey;

/// From recording 010.
pub(super) const ROOT: &str = "-----BEGIN CERTIFICATE-----\nMIIBaTCCARCgAwIBAgIUFPazd6S+dWGiRUH4K8xEP6hwjMEwCgYIKoZIzj0EAwIw\nEzERMA8GA1UEAxMIc3dhcm0tY2EwHhcNMjYxMTIwMTEwOTAwWhcNNDYxMTE1MTEw\nOTAwWjATMREwDwYDVQQDEwhzd2FybS1jYTBZMBMGByqGSM49AgEGCCqGSM49AwEH\nA0IABM/GzEsu/aaEucx7MgGmF8ndmuJCApJQtBBfZ60FqxkE0PNspkmgcnco3inK\nT5rnjLFtdGLJyI9/hiC+1uXdnbmjQjBAMA4GA1UdDwEB/wQEAwIBBjAPBgNVHRMB\nAf8EBTADAQH/MB0GA1UdDgQWBBRUT4EV336l2xo3ryI2cqDJsu8RejAKBggqhkjO\nPQQDAgNHADBEAiA474Jj08w8T6WW5ZEJCMA0JnYXQFuBPDT3Oz+eKjbYEwIgA/Wo\nyjcOdsJxjnP1fa5FkERGlg8ZdliJVrHG6bRMr1k=\n-----END CERTIFICATE-----\n";

/// A control that keeps its cluster in the store.
pub(super) struct FakeControl {
    store: Store,
    status: Arc<Mutex<ControlStatus>>,
    root: (String, Option<Sealed>),
    relocked: Arc<AtomicUsize>,
    meanwhile: Arc<Mutex<Vec<Change>>>,
}

/// Opens a control that is locked.
pub(super) const GOOD_KEY: &str = "SWMKEY-1-W9Kqj0GqPF9YCLtl4NbMhhwvl3RM4A/o8we31P26bhs";
/// Tried too often.
pub(super) const TIRED_KEY: &str = "SWMKEY-1-BdvnZIQom5+oOhyYefVq7LHX4kD+gpu8sniZOVC4bQM";

impl Control for FakeControl {
    fn status(&self) -> ControlStatus {
        self.status.lock().expect("lock").clone()
    }

    fn init(&self, request: InitRequest) -> Reply<Result<NodeId, ControlError>> {
        let (store, status, (root_pem, key)) = (self.store.clone(), self.status.clone(), self.root.clone());
        Box::pin(async move {
            let mut ids = IdSource::seeded(99);
            let node = ids.draw();
            let addr = request.advertise.unwrap_or_else(|| "127.0.0.1".into());
            let autolock = request.spec.autolock;
            let cluster = NewCluster {
                net: request.net,
                id: ids.draw(),
                ingress: ids.draw(),
                spec: request.spec,
                root_pem,
                worker_secret: [1; 16].into(),
                manager_secret: [2; 16].into(),
                key,
                managers: vec![format!("{addr}:2377")],
            };
            let new = new_node(node, "node0", Role::Manager, &addr, request.availability);
            let mut changes = vec![Change::ClusterCreate(Box::new(cluster)), Change::NodeCreate(Box::new(new))];
            if autolock {
                let key = UnlockKey::parse(GOOD_KEY).expect("a key").seal(&crate::vault::testing());
                changes.push(Change::UnlockKeyDrawn(key.expect("sealed")));
            }
            store.commit(Clock::start().now().wall, changes).await.map_err(|e| ControlError::Failed(e.to_string()))?;
            *status.lock().expect("lock") = ControlStatus::Active { node, addr };
            Ok(node)
        })
    }

    fn unlock(&self, key: Zeroizing<String>) -> Reply<Result<(), ControlError>> {
        let status = self.status.clone();
        Box::pin(async move {
            let mut status = status.lock().expect("lock");
            let ControlStatus::Locked { addr } = status.clone() else { return Err(ControlError::NotLocked) };
            let key = UnlockKey::parse(&key).map_err(|error| ControlError::Invalid(error.to_string()))?;
            match key.text().as_str() {
                GOOD_KEY => {
                    *status = ControlStatus::Active { node: NodeId::from_bits(1), addr };
                    Ok(())
                }
                TIRED_KEY => Err(ControlError::TooManyTries(std::time::Duration::from_millis(1500))),
                _ => Err(ControlError::WrongKey),
            }
        })
    }

    fn relock(&self) -> Reply<Result<(), ControlError>> {
        self.relocked.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(()) })
    }

    fn unlock_key_shown(&self, key: Sealed) -> Reply<Result<(), ControlError>> {
        let (store, meanwhile) = (self.store.clone(), self.meanwhile.clone());
        Box::pin(async move {
            let meanwhile = std::mem::take(&mut *meanwhile.lock().expect("lock"));
            store.commit(Clock::start().now().wall, meanwhile).await.expect("stored");
            let shown = store.commit(Clock::start().now().wall, vec![Change::UnlockKeyShown(key)]).await;
            shown.map(drop).map_err(|e| ControlError::Failed(e.to_string()))
        })
    }

    fn backup(&self) -> Reply<Result<MadeBackup, ControlError>> {
        Box::pin(async { Ok(MadeBackup { bytes: vec![b'b'; 100_000], turn: None }) })
    }

    fn leave(&self) -> Reply<Result<(), ControlError>> {
        *self.status.lock().expect("lock") = ControlStatus::Inactive;
        let store = self.store.clone();
        Box::pin(async move {
            let left = store.commit(Clock::start().now().wall, vec![Change::ClusterLeave]).await;
            left.map(drop).map_err(|e| ControlError::Failed(e.to_string()))
        })
    }
}

fn new_node(id: NodeId, name: &str, role: Role, addr: &str, availability: Availability) -> NewNode {
    NewNode {
        id,
        role,
        spec: NodeSpec { availability, ..NodeSpec::default() },
        description: Arc::new(NodeDescription {
            hostname: name.into(),
            platforms: vec![Platform::new("linux", "arm64", "")],
            machine: "aarch64".into(),
            cpus: NanoCpus::new(4_000_000_000),
            memory: Memory::mib(2048),
            kernel: "6.12".into(),
            os: "Racimo OS".into(),
            agent_version: "0.1.0".into(),
            containerd_version: "1.7".into(),
            ..NodeDescription::default()
        }),
        addr: format!("{addr}:50000"),
        key_digest: None,
    }
}

/// A manager and what it answers.
pub(super) struct Lab {
    pub(super) context: Arc<Context>,
    pub(super) store: Store,
    pub(super) status: Arc<Mutex<ControlStatus>>,
    /// How often the key file was asked to follow the store.
    pub(super) relocked: Arc<AtomicUsize>,
    /// What somebody else changes while the unlock key is asked for.
    pub(super) meanwhile: Arc<Mutex<Vec<Change>>>,
}

impl Lab {
    /// In no cluster.
    pub(super) fn new() -> Self {
        Self::with(|context| context)
    }

    /// In no cluster, with more in its context.
    fn with(more: impl FnOnce(Context) -> Context) -> Self {
        Self::with_root((ROOT.into(), None), more)
    }

    fn with_root(root: (String, Option<Sealed>), more: impl FnOnce(Context) -> Context) -> Self {
        let store = Store::open(fake::Disk::new(1), 1).expect("opens");
        let status = Arc::new(Mutex::new(ControlStatus::Inactive));
        let relocked = Arc::new(AtomicUsize::new(0));
        let meanwhile = Arc::<Mutex<Vec<Change>>>::default();
        let control = FakeControl {
            store: store.clone(),
            status: status.clone(),
            root,
            relocked: relocked.clone(),
            meanwhile: meanwhile.clone(),
        };
        let control = Arc::new(control);
        let host = Host { name: "node0".into(), kernel: "6.12".into(), os: "Debian".into(), cpus: 2, memory: 1 << 30 };
        let registry = Registry::new(Config::default());
        let vault = crate::vault::testing();
        let context = Context::new(store.clone(), control, registry, host, Clock::start(), IdSource::seeded(5), vault);
        Self { context: Arc::new(more(context)), store, status, relocked, meanwhile }
    }

    /// In a cluster, with its own node ready.
    pub(super) fn active() -> Self {
        Self::active_with(|context| context)
    }

    /// In a cluster, with more in its context.
    pub(super) fn active_with(more: impl FnOnce(Context) -> Context) -> Self {
        Self::with(more).into_cluster()
    }

    /// In a cluster whose root's key is known.
    pub(super) fn rooted() -> Self {
        let cluster = IdSource::seeded(8).draw();
        let root = Ca::create(cluster, Clock::start().now().wall, &SystemRandom::new()).expect("a root");
        let key = kept::seal_key(&crate::vault::testing(), &root).expect("sealed");
        Self::with_root((root.root_pem(), Some(key)), |context| context).into_cluster()
    }

    fn into_cluster(self) -> Self {
        let lab = self;
        let (status, node) = lab.post("/swarm/init", r#"{"ListenAddr":"0.0.0.0:2377","AdvertiseAddr":"127.0.0.1"}"#);
        assert_eq!(status, 200, "{node}");
        lab.see_node(node.as_str().expect("id").parse().expect("id"), true);
        lab
    }

    /// In a cluster with a real root.
    pub(super) fn certified() -> Self {
        let (lab, id) = (Self::new(), ClusterId::from_bits(3));
        let ca = Ca::create(id, lab.now(), &SystemRandom::new()).expect("a root");
        let key = Some(kept::seal_key(&lab.context.vault, &ca).expect("sealed"));
        let new = NewCluster { root_pem: ca.root_pem(), key, ..NewCluster::bare(id, NetworkId::from_bits(7)) };
        lab.commit(Change::ClusterCreate(Box::new(new)));
        lab
    }

    /// Asks without a network; the status and the JSON (or text) of the answer.
    pub(super) fn ask(&self, method: &str, target: &str, body: &str) -> (u16, Value) {
        self.ask_with(method, target, body, None)
    }

    /// Asks with registry credentials.
    pub(super) fn ask_with(&self, method: &str, target: &str, body: &str, auth: Option<&str>) -> (u16, Value) {
        self.ask_as(&Who::Unix { uid: Some(0) }, method, target, body, auth)
    }

    /// Asks as somebody.
    pub(super) fn ask_as(&self, who: &Who, method: &str, target: &str, body: &str, auth: Option<&str>) -> (u16, Value) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let method: Method = method.parse().expect("method");
        let mut headers = hyper::HeaderMap::new();
        auth.map(|auth| headers.insert("x-registry-auth", auth.parse().expect("a header")));
        let (path, query, body) = (path.to_owned(), query.to_owned(), body.into());
        let asked = guard::Asked { method, path, query, headers, body };
        let answer = smol::block_on(guard::answer(&self.context, who, asked));
        let response = answer.unwrap_or_else(Into::into).into_response();
        let status = response.status().as_u16();
        let bytes = smol::block_on(read(response.into_body()));
        let text = String::from_utf8(bytes).expect("UTF-8");
        let value =
            if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap_or(Value::String(text)) };
        (status, value)
    }

    pub(super) fn get(&self, target: &str) -> (u16, Value) {
        self.ask("GET", target, "")
    }

    pub(super) fn post(&self, target: &str, body: &str) -> (u16, Value) {
        self.ask("POST", target, body)
    }

    fn now(&self) -> Wall {
        Clock::start().now().wall
    }

    /// A board joins.
    pub(super) fn join(&self, number: u64, name: &str) -> NodeId {
        let id = IdSource::seeded(number).draw();
        let node = new_node(id, name, Role::Worker, "10.0.0.9", Availability::Active);
        smol::block_on(self.store.commit(self.now(), vec![Change::NodeCreate(Box::new(node))])).expect("joins");
        self.see_node(id, true);
        id
    }

    pub(super) fn see_node(&self, node: NodeId, ready: bool) {
        let seen = SeenNode { ready, at: self.now() };
        self.observe(Observation::Node { node, seen });
    }

    /// Publishes, and waits until it is in the view.
    /// Changes the store behind the API's back.
    pub(super) fn commit(&self, change: Change) {
        smol::block_on(self.store.commit(self.now(), vec![change])).expect("it is allowed");
    }

    pub(super) fn observe(&self, observation: Observation) {
        let (_, mut feed) = self.store.watch();
        smol::block_on(async {
            self.store.observe(vec![observation]).await;
            feed.next().await
        });
    }

    /// Makes the tasks that a service lacks, and lets all of its tasks run: a very small orchestrator.
    pub(super) fn run_tasks(&self, ids: &mut IdSource) {
        let view = self.store.view();
        let node = view.state.nodes().next().expect("a node").id;
        for service in view.state.services() {
            let wanted = match service.spec.mode {
                crate::store::Mode::Replicated { replicas } => replicas,
                crate::store::Mode::ReplicatedJob { concurrent_max, .. } => concurrent_max,
                crate::store::Mode::Global | crate::store::Mode::GlobalJob => 1,
            };
            let tasks: Vec<Arc<Task>> = view.state.tasks_of_service(service.id).cloned().collect();
            for number in tasks.len() as u64 + 1..=wanted {
                let id = ids.draw();
                let slot = match service.spec.mode {
                    crate::store::Mode::Replicated { .. } | crate::store::Mode::ReplicatedJob { .. } => {
                        Slot::Replica(u32::try_from(number).expect("small"))
                    }
                    crate::store::Mode::Global | crate::store::Mode::GlobalJob => Slot::Node(node),
                };
                let new = NewTask {
                    id,
                    service: service.id,
                    revision: service.revision,
                    slot,
                    desired: racimo_common::object::Desired::Running,
                    gate: None,
                    restart_of: None,
                    node: None,
                };
                let changes = vec![
                    Change::TaskCreate(Box::new(new)),
                    Change::TaskAssign { task: id, node, generic: Default::default() },
                ];
                smol::block_on(self.store.commit(self.now(), changes)).expect("a task");
                let container = Some(ContainerStatus { id: format!("c-{id}"), pid: 7, exit_code: None });
                let report = TaskReport {
                    unhealthy: false,
                    restarts: 0,
                    ports: host_ports(service),
                    task: id,
                    state: TaskState::Running,
                    at: self.now(),
                    message: "started".into(),
                    err: None,
                    container,
                };
                self.observe(Observation::Task { node, report });
            }
        }
    }

    /// A task ends by itself, with exit code 0.
    pub(super) fn end_task(&self, id: &str) {
        let ended = Ended {
            state: TaskState::Complete,
            at: self.now(),
            message: "finished".into(),
            err: None,
            container: None,
            exit_code: Some(0),
        };
        let change = Change::TaskEnd { task: id.parse().expect("an id"), ended };
        smol::block_on(self.store.commit(self.now(), vec![change])).expect("ends");
    }

    /// The first service gets a task that waits.
    pub(super) fn waiting_task(&self, why: &str) {
        let view = self.store.view();
        let service = view.state.services().next().expect("a service");
        let id = IdSource::seeded(8).draw();
        let new = NewTask {
            id,
            service: service.id,
            revision: service.revision,
            slot: Slot::Replica(1),
            desired: racimo_common::object::Desired::Running,
            gate: None,
            restart_of: None,
            node: None,
        };
        smol::block_on(self.store.commit(self.now(), vec![Change::TaskCreate(Box::new(new))])).expect("a task");
        self.observe(Observation::Waits { task: id, at: self.now(), reason: Some(why.into()) });
    }
}

/// What a board that has all of them free reports.
fn host_ports(service: &Service) -> Vec<HostPort> {
    let ports = service.endpoint.ports.iter().filter(|port| port.mode == PortMode::Host);
    ports.map(|port| HostPort { protocol: port.protocol, published: port.published, target: port.target }).collect()
}

/// All of a body.
pub(super) async fn read(body: super::answer::Content) -> Vec<u8> {
    let (all, end) = read_on(body).await;
    end.expect("it is not cut off");
    all
}

/// What comes, and how it ends.
pub(super) async fn read_on(mut body: super::answer::Content) -> (Vec<u8>, Result<(), CutOff>) {
    use hyper::body::Body;
    let mut all = Vec::new();
    while let Some(frame) = futures_lite::future::poll_fn(|cx| std::pin::pin!(&mut body).poll_frame(cx)).await {
        match frame {
            Ok(frame) => all.extend_from_slice(&frame.into_data().expect("data")),
            Err(cut) => return (all, Err(cut)),
        }
    }
    (all, Ok(()))
}
