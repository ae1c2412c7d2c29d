//! Making a cluster, leaving it, and resuming it after a start.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use racimo_common::error::chain;
use racimo_common::id::{ClusterId, NetworkId, NodeId, RandomId};
use racimo_common::object::{NodeDescription, Role};
use racimo_common::time::{Clock, Now};
use racimo_common::tls;
use racimo_common::units::{Bytes, NanoCpus};
use ring::rand::{SecureRandom, SystemRandom};
use smol::Async;
use smol::lock::{Semaphore, SemaphoreGuardArc};
use zeroize::Zeroizing;

use super::address::{self, Machine, Told};
use super::keep::{self, Own};
use super::lock::Lock;
use super::moves::{self, Moves, Shown};
use super::trust;
use crate::announce::{self, Service};
use crate::api::control::{Control, ControlError, ControlStatus, InitRequest, MadeBackup, Reply};
use crate::api::host::Host;
use crate::ca::{Ca, JoinTokens, kept};
use crate::config::Config;
use crate::dispatcher::broker::Broker;
use crate::dispatcher::serve::{Dispatcher, Parts};
use crate::gate::notes::Notes;
use crate::limits;
use crate::store::{
    Change, Cluster, CommitError, NewCluster, NewNode, NodeSpec, Observation, Refusal, SeenNode, State, Store,
};
use crate::vault::Vault;
use crate::vault::unlock::UnlockKey;

/// How long to wait before a cluster that could not be resumed is tried again.
const RESUME_AGAIN: Duration = Duration::from_secs(5);

/// How long the last words on the local network may take.
const FAREWELL_WITHIN: Duration = Duration::from_secs(1);

/// The manager around the store: a handle, cheap to clone.
#[derive(Clone)]
pub(super) struct Manager(Arc<Inner>);

struct Inner {
    store: Store,
    clock: Clock,
    data: PathBuf,
    agent_socket: Option<PathBuf>,
    /// What boards shall dial, by the configuration.
    advertise: Option<String>,
    announce: bool,
    vault: Vault,
    logs: Broker,
    notes: Notes,
    lock: Lock,
    running: Mutex<Option<Running>>,
    /// One `init` or `leave` at a time.
    turn: smol::lock::Mutex<()>,
    /// How many backups may be made or sent.
    backups: Arc<Semaphore>,
}

/// What runs while there is a cluster.
struct Running {
    node: NodeId,
    shown: Shown,
    dispatcher: Dispatcher,
    moves: smol::Task<()>,
    announcing: Option<smol::Task<()>>,
    /// Renews the manager's certificate.
    _keeping: smol::Task<()>,
}

impl Running {
    /// When it returns, nothing listens any more.
    async fn stop(self) {
        let announcing = Self::fall_silent(self.moves, self.announcing);
        announcing.await;
        self.dispatcher.stop().await;
    }

    /// Says on the local network that the manager is gone.
    async fn fall_silent(moves: smol::Task<()>, announcing: Option<smol::Task<()>>) {
        // With it goes what keeps the announcements going.
        moves.cancel().await;
        let said = async {
            if let Some(announcing) = announcing {
                announcing.await;
            }
        };
        let late = async {
            smol::Timer::after(FAREWELL_WITHIN).await;
        };
        smol::future::or(said, late).await;
    }
}

pub(super) fn failed(what: &str, error: &dyn std::error::Error) -> ControlError {
    ControlError::Failed(format!("{what}: {}", chain(error)))
}

impl Manager {
    pub(super) fn new(store: Store, clock: Clock, vault: Vault, config: &Config) -> Self {
        Self(Arc::new(Inner {
            store,
            clock,
            data: config.data.clone(),
            agent_socket: config.agent_socket.clone(),
            advertise: config.advertise.clone(),
            announce: config.announce,
            logs: Broker::default(),
            notes: Notes::new(clock),
            vault,
            lock: Lock::default(),
            running: Mutex::new(None),
            turn: smol::lock::Mutex::new(()),
            backups: Arc::new(Semaphore::new(limits::BACKUPS_MAX)),
        }))
    }

    /// The right to make a backup, if it is free.
    pub(super) fn backup_turn(&self) -> Option<SemaphoreGuardArc> {
        self.0.backups.try_acquire_arc()
    }

    /// Where the boards' sessions meet readers of logs.
    pub(super) fn logs(&self) -> Broker {
        self.0.logs.clone()
    }

    /// Log lines that peers cause.
    pub(super) fn notes(&self) -> Notes {
        self.0.notes.clone()
    }

    pub(super) fn store(&self) -> &Store {
        &self.0.store
    }

    pub(super) fn vault(&self) -> &Vault {
        &self.0.vault
    }

    pub(super) fn data(&self) -> &Path {
        &self.0.data
    }

    pub(super) fn lock(&self) -> &Lock {
        &self.0.lock
    }

    pub(super) fn now(&self) -> Now {
        self.0.clock.now()
    }

    /// The right to make, leave, take up or lock a cluster.
    pub(super) async fn turn(&self) -> smol::lock::MutexGuard<'_, ()> {
        self.0.turn.lock().await
    }

    /// Does `work` once the manager is not locked.
    pub(super) fn unlocked(&self, work: impl Future<Output = ()> + Send + 'static) -> smol::Task<()> {
        let manager = self.clone();
        smol::spawn(async move {
            manager.lock().opened().await;
            work.await;
        })
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up the cluster that the store holds, if it holds one. What is wrong is logged; whether all is well.
    pub(super) async fn resume(&self) -> bool {
        let _turn = self.0.turn.lock().await;
        let view = self.0.store.view();
        let Some(cluster) = view.state.cluster().filter(|_| self.running().is_none()) else { return true };
        match self.take_up(&view.state, cluster).await {
            Ok(true) => log::info!("resumed cluster {}", cluster.id),
            // It was said when it was found.
            Ok(false) => {}
            Err(error) => log::error!(
                "the cluster cannot be resumed, agents are not served: {error}; next try in {RESUME_AGAIN:?}"
            ),
        }
        self.running().is_some()
    }

    /// Opens what is sealed and serves agents. False: the manager is locked.
    pub(super) async fn take_up(&self, state: &State, cluster: &Arc<Cluster>) -> Result<bool, ControlError> {
        let own = keep::load_own(&self.0.data).map_err(|error| failed("read the manager's own files", &error))?;
        if own.cluster != cluster.id {
            let text = format!("the manager's own files are of cluster {}, the store of {}", own.cluster, cluster.id);
            return Err(ControlError::Failed(text));
        }
        if !self.open_vault(state)? {
            return Ok(false);
        }
        self.bring_over(cluster).await?;
        self.catch_up_key_file();
        let listen = address::listen(&own.listen, &machine()?).map_err(ControlError::Invalid)?;
        let listener = bind(listen)?;
        let shown = state.node(own.node).map(|node| node.addr.clone()).unwrap_or_default();
        self.start(&own, listener, listen, shown).await.map(|()| true)
    }

    /// Brings what older versions kept elsewhere, or as it is, sealed into the store.
    async fn bring_over(&self, cluster: &Arc<Cluster>) -> Result<(), ControlError> {
        let vault = &self.0.vault;
        let mut changes = Vec::new();
        if cluster.worker_secret.is_plain() || cluster.manager_secret.is_plain() {
            // The root's digest is no part of what is stored.
            let tokens = JoinTokens::open(vault, Default::default(), cluster).and_then(|tokens| tokens.seal(vault));
            let [worker, manager] = tokens.map_err(|error| failed("seal the join tokens", &error))?;
            changes.push(Change::ClusterUpdate {
                version: cluster.meta.version,
                spec: cluster.spec.clone(),
                worker_secret: Some(worker),
                manager_secret: Some(manager),
            });
        }
        if cluster.trust.key.is_none() {
            let read = keep::load_old_key(&self.0.data).map_err(|error| failed("read the root's key", &error))?;
            let key = read.ok_or_else(|| {
                let path = keep::old_key_path(&self.0.data);
                ControlError::Failed(format!("the root's key is neither in the store nor in {}", path.display()))
            })?;
            let ca = Ca::load(cluster.id, &cluster.root_pem, &key).map_err(|error| failed("load the root", &error))?;
            let sealed = kept::seal_key(vault, &ca).map_err(|error| failed("seal the root's key", &error))?;
            changes.push(Change::RootKey(sealed));
        }
        let brought = !changes.is_empty();
        let stored = self.0.store.commit(self.0.clock.now().wall, changes).await;
        stored.map_err(|error| failed("bring the root's key and the join tokens into the store", &error))?;
        // Also when the power went between the two.
        let erased = keep::erase_old_key(&self.0.data).map_err(|error| failed("erase the root's key", &error))?;
        if brought || erased {
            log::info!("the root's key and the join tokens are sealed in the store now");
        }
        Ok(())
    }

    /// Goes on trying: when a board boots, its address may come later than its manager. The API serves on meanwhile.
    pub(super) async fn resume_later(self) {
        loop {
            self.lock().opened().await;
            smol::Timer::after(RESUME_AGAIN).await;
            if self.resume().await {
                return;
            }
        }
    }

    async fn start(
        &self,
        own: &Own,
        listener: Async<TcpListener>,
        listens: SocketAddr,
        shown: String,
    ) -> Result<(), ControlError> {
        let now = self.0.clock.now().wall;
        let view = self.0.store.view();
        let (store, clock, vault) = (self.0.store.clone(), self.0.clock, self.0.vault.clone());
        let authority = trust::first(&vault, &store, clock, own.node).await?;
        let keeper = trust::Keeper { store, clock, vault, own: own.node, authority: authority.clone() };
        // Without an agent the manager is a node that works but takes no tasks.
        if view.state.node(own.node).is_some_and(|node| node.description.tasks_max == 0) {
            let seen = SeenNode { ready: true, at: now };
            self.0.store.observe(vec![Observation::Node { node: own.node, seen }]).await;
        }
        let local = match &self.0.agent_socket {
            Some(path) => Some(local_socket(path).map_err(|error| failed("listen for this board's agent", &error))?),
            None => None,
        };
        let parts = Parts {
            store: self.0.store.clone(),
            clock: self.0.clock,
            authority,
            vault: self.0.vault.clone(),
            own: own.node,
            logs: self.0.logs.clone(),
            notes: self.0.notes.clone(),
        };
        let port = listener.get_ref().local_addr().map_or(listens.port(), |address| address.port());
        let dispatcher = Dispatcher::start(parts, listener, local);
        log::info!("agents are served on {listens}");
        let announcing = self.0.announce.then(|| {
            let service = Service::new(&Host::read().name, own.cluster, port);
            log::info!("announced on the local network as {}", service.host());
            announce::serve::start(service)
        });
        let (announce, announcing) = announcing.unzip();
        let shown = Shown::new(shown);
        let moves = Moves {
            store: self.0.store.clone(),
            clock: self.0.clock,
            data: self.0.data.clone(),
            own: own.clone(),
            said: self.0.advertise.clone().or_else(|| own.advertise.clone()),
            listens,
            listening: dispatcher.listening(),
            announcing: announce,
            shown: shown.clone(),
        };
        let moves = smol::spawn(moves.run());
        let keeping = smol::spawn(keeper.run());
        *self.running() = Some(Running { node: own.node, shown, dispatcher, moves, announcing, _keeping: keeping });
        Ok(())
    }

    /// Without the port.
    fn advertised(&self) -> String {
        let view = self.0.store.view();
        let first = view.state.cluster().and_then(|cluster| cluster.managers.first().cloned()).unwrap_or_default();
        first.parse::<SocketAddr>().map_or(first, |address| address.ip().to_string())
    }

    async fn init(self, request: InitRequest) -> Result<NodeId, ControlError> {
        let _turn = self.0.turn.lock().await;
        if self.0.store.view().state.cluster().is_some() {
            return Err(ControlError::AlreadyIn);
        }
        let machine = machine()?;
        let listen = address::listen(&request.listen, &machine).map_err(ControlError::Invalid)?;
        let said = request.advertise.unwrap_or_default();
        let advertise = self.advertise(&said, listen, &machine).await?;
        let listener = bind(listen)?;
        let now = self.0.clock.now().wall;
        let rng = SystemRandom::new();
        let (cluster, node) = (ClusterId::from_bits(bits(&rng)?), NodeId::from_bits(bits(&rng)?));
        let ca = Ca::create(cluster, now.max(tls::BUILT), &rng).map_err(|error| failed("make the root", &error))?;
        let tokens = JoinTokens::draw(ca.root_digest(), &rng).map_err(|_| no_random())?;
        let here = address::is_here(&advertise, &machine);
        let own = Own { cluster, node, listen: request.listen, advertise: Some(said), here };
        keep::store_own(&self.0.data, &own).map_err(|error| failed("keep which node this is", &error))?;
        let vault_key = self.make_vault_key()?;
        self.0.vault.unlock(&vault_key).map_err(|error| failed("use the vault's key", &error))?;
        let vault = &self.0.vault;
        let [worker_secret, manager_secret] =
            tokens.seal(vault).map_err(|error| failed("seal the join tokens", &error))?;
        let root_key = kept::seal_key(vault, &ca).map_err(|error| failed("seal the root's key", &error))?;
        let autolock = request.spec.autolock;
        let new_cluster = NewCluster {
            id: cluster,
            spec: request.spec,
            root_pem: ca.root_pem(),
            worker_secret,
            manager_secret,
            managers: advertise.managers,
            net: request.net,
            key: Some(root_key),
            ingress: NetworkId::from_bits(bits(&rng)?),
        };
        let new_node = NewNode {
            id: node,
            role: Role::Manager,
            spec: NodeSpec { availability: request.availability, ..NodeSpec::default() },
            description: Arc::new(own_description()),
            addr: advertise.ip.to_string(),
            key_digest: None,
        };
        let mut changes = vec![Change::ClusterCreate(Box::new(new_cluster)), Change::NodeCreate(Box::new(new_node))];
        if autolock {
            let unlock = UnlockKey::draw(&rng).and_then(|key| key.seal(vault));
            changes.push(Change::UnlockKey(Some(unlock.map_err(|error| failed("seal the unlock key", &error))?)));
        }
        self.0.store.commit(now, changes).await.map_err(|error| match error {
            CommitError::Refused(Refusal::ClusterExists) => ControlError::AlreadyIn,
            other @ (CommitError::Refused(_) | CommitError::Full | CommitError::TooLarge | CommitError::Stopped) => {
                failed("store the cluster", &other)
            }
        })?;
        let started = match self.keep_key_file() {
            Ok(_) => self.start(&own, listener, listen, advertise.ip.to_string()).await,
            Err(error) => Err(error),
        };
        if let Err(error) = started {
            // A cluster that serves nobody is none: the next `init` shall find none.
            self.0.vault.lock();
            if let Err(undo) = self.0.store.commit(now, vec![Change::ClusterLeave]).await {
                log::error!("undo the cluster that could not start: {undo}");
            } else if let Err(undo) = keep::erase(&self.0.data) {
                log::error!("erase the keys of the cluster that could not start: {undo}");
            }
            return Err(error);
        }
        log::info!("made cluster {cluster}; this manager is node {node}");
        Ok(node)
    }

    /// What agents shall dial in a new cluster.
    async fn advertise(&self, said: &str, listen: SocketAddr, machine: &Machine) -> Result<Told, ControlError> {
        let given = match &self.0.advertise {
            Some(config) if !said.is_empty() && said != config => {
                let text = format!(
                    "pi-mgr serve was started with --advertise-addr {config}: leave it out here, or restart without it"
                );
                return Err(ControlError::Invalid(text));
            }
            Some(config) => config,
            None => said,
        };
        let resolved = match address::name(given, listen, machine) {
            Some(host) => moves::resolve(host, machine).await,
            None => Vec::new(),
        };
        address::advertise(given, listen, machine, &resolved).map_err(ControlError::Invalid)
    }

    /// Says on the local network that the manager stops, and ends its sessions.
    pub(super) async fn farewell(&self) {
        let running = self.running().take();
        if let Some(running) = running {
            Running::fall_silent(running.moves, running.announcing).await;
        }
    }

    async fn leave(self) -> Result<(), ControlError> {
        let _turn = self.0.turn.lock().await;
        if self.0.store.view().state.cluster().is_none() {
            return Err(ControlError::NotIn);
        }
        let now = self.0.clock.now().wall;
        let left = self.0.store.commit(now, vec![Change::ClusterLeave]).await;
        left.map_err(|error| failed("leave the cluster", &error))?;
        let running = self.running().take();
        if let Some(running) = running {
            // A new cluster may want the port at once.
            running.stop().await;
        }
        if let Some(path) = &self.0.agent_socket {
            // Nobody listens there any more.
            let _ = std::fs::remove_file(path);
        }
        self.0.vault.lock();
        self.lock().open();
        keep::erase(&self.0.data).map_err(|error| failed("erase the cluster's keys", &error))?;
        log::warn!("left the cluster and erased its state");
        Ok(())
    }
}

#[cfg(test)]
impl Manager {
    /// As the end of the process would.
    pub(super) async fn stop_for_test(self) {
        let running = self.running().take();
        if let Some(running) = running {
            running.stop().await;
        }
    }
}

impl Control for Manager {
    fn status(&self) -> ControlStatus {
        match &*self.running() {
            Some(Running { node, shown, .. }) => ControlStatus::Active { node: *node, addr: shown.address() },
            None if self.lock().is_shut() => ControlStatus::Locked { addr: self.advertised() },
            None => ControlStatus::Inactive,
        }
    }

    fn warnings(&self) -> Vec<String> {
        self.running().as_ref().map(|running| running.shown.warnings()).unwrap_or_default()
    }

    fn init(&self, request: InitRequest) -> Reply<Result<NodeId, ControlError>> {
        Box::pin(self.clone().init(request))
    }

    fn leave(&self) -> Reply<Result<(), ControlError>> {
        Box::pin(self.clone().leave())
    }

    fn unlock(&self, key: Zeroizing<String>) -> Reply<Result<(), ControlError>> {
        Box::pin(self.clone().unlock(key))
    }

    fn relock(&self) -> Reply<Result<(), ControlError>> {
        Box::pin(self.clone().relock())
    }

    fn backup(&self) -> Reply<Result<MadeBackup, ControlError>> {
        Box::pin(self.clone().backup())
    }
}

fn bits(rng: &SystemRandom) -> Result<u128, ControlError> {
    let mut bytes = [0; 16];
    rng.fill(&mut bytes).map_err(|_| no_random())?;
    Ok(u128::from_be_bytes(bytes))
}

pub(super) fn no_random() -> ControlError {
    ControlError::Failed("the system's random source does not work".to_owned())
}

fn machine() -> Result<Machine, ControlError> {
    moves::machine().map_err(|error| failed("list network interfaces", &error))
}

fn bind(address: SocketAddr) -> Result<Async<TcpListener>, ControlError> {
    Async::<TcpListener>::bind(address).map_err(|error| ControlError::Invalid(format!("listen on {address}: {error}")))
}

/// A socket that only root may use: its permissions stand for a certificate.
fn local_socket(path: &std::path::Path) -> std::io::Result<Async<UnixListener>> {
    // After a reboot `/run` is empty.
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Async::new(listener)
}

/// The manager's machine, as a node without an agent: it holds no tasks.
fn own_description() -> NodeDescription {
    let host = Host::read();
    NodeDescription {
        hostname: host.name,
        machine: std::env::consts::ARCH.to_owned(),
        cpus: NanoCpus::new(host.cpus.saturating_mul(1_000_000_000)),
        memory: Bytes::new(host.memory),
        kernel: host.kernel,
        os: host.os,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        tasks_max: 0,
        ..NodeDescription::default()
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;
    use racimo_common::object::Availability;
    use racimo_common::time::Wall;

    use super::*;
    use crate::store::log::fake::Disk;
    use crate::store::{ClusterNet, ClusterSpec, DependencyKind, NewDependency};
    use crate::vault::{self, KEY_BYTES};

    #[test]
    fn the_vault_s_key_is_kept_apart_and_looked_after() {
        let (disk, data) = (Disk::new(1), tempfile::tempdir().expect("a directory"));
        let config = Config::bare(data.path());
        let key = data.path().join("manager/vault.key");
        let start = |disk: &Disk| {
            let (store, vault) = (Store::open(disk.clone(), 1).expect("a store"), Vault::default());
            (Manager::new(store.clone(), Clock::start(), vault.clone(), &config), store, vault)
        };
        block_on(async {
            let (manager, store, vault) = start(&disk);
            manager.clone().init(request("127.0.0.1:0")).await.expect("a cluster");
            let mode = std::fs::metadata(&key).expect("a key").permissions().mode() & 0o777;
            assert_eq!((mode, std::fs::read(&key).expect("a key").len()), (0o600, KEY_BYTES));
            let id = racimo_common::id::DependencyId::from_bits(1);
            let owner = vault::Owner::Dependency(DependencyKind::Secret, id);
            let body = vault.seal(owner, b"plain").expect("sealed");
            let (kind, name, labels) = (DependencyKind::Secret, "s".to_owned(), Default::default());
            let new = NewDependency { id, kind, name, labels, template: false, body: body.clone() };
            let change = Change::DependencyCreate(Box::new(new));
            store.commit(Wall::default(), vec![change]).await.expect("stored");
            let running = manager.running().take().expect("it runs");
            running.stop().await;
            drop((manager, store));

            let kept = std::fs::read(&key).expect("a key");
            let open = |vault: &Vault| vault.open(owner, &body).map(|plain| plain.to_vec());
            for (bytes, works) in
                [(None, false), (Some(vec![0; 5]), false), (Some(vec![1; 32]), false), (Some(kept), true)]
            {
                let _ = std::fs::remove_file(&key);
                if let Some(bytes) = bytes {
                    std::fs::write(&key, bytes).expect("written");
                }
                let (manager, _, vault) = start(&disk);
                assert_eq!(manager.resume().await, works);
                assert_eq!(open(&vault).ok(), works.then(|| b"plain".to_vec()));
                if works {
                    manager.clone().leave().await.expect("it leaves");
                    assert!(!key.exists() && open(&vault).is_err());
                }
                let running = manager.running().take();
                if let Some(running) = running {
                    running.stop().await;
                }
            }
        });
    }

    /// A cluster of an older version: the tokens are plain, the root's key is a file, and there may be no vault's key.
    async fn older(store: &Store, data: &std::path::Path) -> (Ca, JoinTokens) {
        let (rng, now) = (SystemRandom::new(), Clock::start().now().wall);
        let (cluster, node) = (ClusterId::from_bits(5), NodeId::from_bits(6));
        let ca = Ca::create(cluster, now, &rng).expect("a root");
        let tokens = JoinTokens::draw(ca.root_digest(), &rng).expect("tokens");
        keep::store_own(data, &Own { cluster, node, listen: "127.0.0.1:0".to_owned(), advertise: None, here: false })
            .expect("kept");
        std::fs::write(keep::old_key_path(data), ca.key_pem().as_bytes()).expect("written");
        let new = NewCluster {
            root_pem: ca.root_pem(),
            worker_secret: (*tokens.worker.secret()).into(),
            manager_secret: (*tokens.manager.secret()).into(),
            ..NewCluster::bare(cluster, NetworkId::from_bits(7))
        };
        store.commit(now, vec![Change::ClusterCreate(Box::new(new))]).await.expect("stored");
        (ca, tokens)
    }

    #[test]
    fn what_older_versions_kept_is_brought_into_the_store_and_erased() {
        let (disk, data) = (Disk::new(1), tempfile::tempdir().expect("a directory"));
        let old = keep::old_key_path(data.path());
        let start = || {
            let (store, vault) = (Store::open(disk.clone(), 1).expect("a store"), Vault::default());
            (Manager::new(store.clone(), Clock::start(), vault.clone(), &Config::bare(data.path())), store, vault)
        };
        block_on(async {
            let (manager, store, _) = start();
            let (ca, tokens) = older(&store, data.path()).await;
            let key = std::fs::read(&old).expect("a key");
            std::fs::remove_file(&old).expect("removed");
            assert!(!manager.resume().await, "there is no root key anywhere");
            std::fs::write(&old, &key).expect("written");
            drop((manager, store));
            // The second time the power went before the file was erased; the third time all is as it should be.
            for round in 0..3 {
                let (manager, store, vault) = start();
                let version = store.view().version();
                assert!(manager.resume().await, "{round}");
                assert_eq!((store.view().version() == version, old.exists()), (round > 0, false), "{round}");
                let view = store.view();
                let cluster = view.state.cluster().expect("a cluster");
                assert!(!cluster.worker_secret.is_plain() && !cluster.manager_secret.is_plain());
                let kept = JoinTokens::open(&vault, ca.root_digest(), cluster).expect("they open");
                assert!(kept.worker.matches(&tokens.worker) && kept.manager.matches(&tokens.manager));
                let opened = kept::open(&vault, cluster).expect("it opens");
                assert_eq!(opened.key_pem(), ca.key_pem());
                let running = manager.running().take().expect("it runs");
                running.dispatcher.stop().await;
                if round == 0 {
                    std::fs::write(&old, &key).expect("written");
                }
            }
        });
    }

    fn request(listen: &str) -> InitRequest {
        let (availability, spec) = (Availability::Active, ClusterSpec::default());
        InitRequest { listen: listen.to_owned(), advertise: None, availability, spec, net: ClusterNet::default() }
    }

    #[test]
    fn a_cluster_is_resumed_once_its_address_is_there() {
        let (disk, data) = (Disk::new(1), tempfile::tempdir().expect("a directory"));
        let config = Config::bare(data.path());
        let start = || {
            let store = Store::open(disk.clone(), 1).expect("a store");
            Manager::new(store, Clock::start(), Vault::default(), &config)
        };
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let listen = free.local_addr().expect("an address");
        drop(free);
        block_on(async {
            let manager = start();
            assert!(manager.resume().await, "there is nothing to resume");
            manager.clone().init(request(&listen.to_string())).await.expect("a cluster");
            let running = manager.running().take().expect("it runs");
            running.stop().await;
            drop(manager);

            let other = TcpListener::bind(listen).expect("the port is free");
            let manager = start();
            assert!(!manager.resume().await && manager.status() == ControlStatus::Inactive);
            drop(other);
            assert!(manager.resume().await && manager.status() != ControlStatus::Inactive);
            manager.clone().leave().await.expect("it leaves");
            TcpListener::bind(listen).expect("the port is free again");
            assert!(manager.resume().await, "there is nothing to resume any more");
        });
    }
}
