//! Containers: everything that is done through containerd.
//!
//! ```text
//! task ─▶ container (create · start · kill · delete · list) ─▶ ctrd ─▶ containerd
//!          └─ spec (pure: what the container may see and use)
//! containerd ─▶ events ─▶ Exited ─▶ task
//! ```

pub mod bodies;
pub mod capability;
pub mod cgroup;
pub mod confine;
pub mod container;
pub mod ctrd;
pub mod events;
mod files;
pub mod image;
pub mod init;
pub mod kernel;
pub mod label;
pub mod mount;
pub mod probe;
pub mod process;
pub mod pull;
pub mod resolver;
mod rootfs;
mod seccomp;
pub mod spec;
mod stop;
pub mod streams;
pub mod user;

use std::{
    cell::RefCell,
    io,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use racimo_common::error::chain;
use racimo_common::id::TaskId;
use racimo_common::object::{LogConfig, NetworkMode};
use racimo_common::wire::Work;
use smol::lock::{Mutex, MutexGuard, MutexGuardArc, Semaphore, SemaphoreGuard};

use bodies::Bodies;
use cgroup::{Cgroups, Version};
use confine::Confinement;
use ctrd::{Ctrd, CtrdError, Executor};
use streams::Streams;

use crate::net::plan::Attached;
use crate::{limits, logs};

pub use container::{Found, Job};
pub use events::{Event, Exited};
pub use image::{Image, RunConfig};
pub use probe::Probed;
pub use process::Phase;

/// containerd namespace that holds all of ours; nothing outside it is ever touched.
pub const NAMESPACE: &str = "racimo";
/// The snapshotter that unpacks images and makes root file systems.
pub const SNAPSHOTTER: &str = "overlayfs";
/// Where Debian's containerd listens.
pub const SOCKET: &str = "/run/containerd/containerd.sock";

/// The kernel draws it when it starts.
const BOOT_ID: &str = "proc/sys/kernel/random/boot_id";
/// Where Debian puts the two runtimes, and Docker's packages the second.
const CRUN: &str = "usr/bin/crun";
const RUNC: [&str; 2] = ["usr/sbin/runc", "usr/bin/runc"];

/// How containers are run on this board.
#[derive(Debug, Clone)]
pub struct Config {
    /// containerd's socket.
    pub socket: PathBuf,
    /// Directory of the agent's own: volumes, and files of tasks.
    pub data: PathBuf,
    /// Directory for files that need not survive a reboot.
    pub run: PathBuf,
    /// The board's root directory: `/`, or a fixture.
    pub root: PathBuf,
    /// The OCI runtime to use; none: see [`choose_binary`].
    pub binary: Option<PathBuf>,
    /// Number of shim groups. One costs the least memory; with more, a shim that dies takes
    /// fewer containers along.
    pub groups: u8,
    /// This program: containerd's shim starts its log mode for each container.
    pub logger: PathBuf,
    /// The init program for services that ask for one; none: where distributions put it.
    pub init: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            socket: SOCKET.into(),
            data: "/var/lib/racimo/agent".into(),
            run: "/run/racimo".into(),
            root: "/".into(),
            binary: None,
            groups: 4,
            logger: "/usr/bin/pi-agent".into(),
            init: None,
        }
    }
}

/// Why something could not be done with a container.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// containerd refused, or is away.
    #[error(transparent)]
    Ctrd(#[from] CtrdError),
    /// A mount makes no sense here.
    #[error(transparent)]
    Mount(#[from] mount::BadMount),
    /// A secret or config is not here.
    #[error(transparent)]
    File(#[from] bodies::NoFile),
    /// The user does not exist in the image.
    #[error(transparent)]
    User(#[from] user::BadUser),
    /// The stop signal does not exist.
    #[error(transparent)]
    Signal(#[from] racimo_common::signal::BadSignal),
    /// What to run, or its limits, are not possible.
    #[error(transparent)]
    Spec(#[from] spec::BadSpec),
    /// Names are not to be resolved as asked for.
    #[error(transparent)]
    Resolver(#[from] resolver::BadResolver),
    /// The task has run already, and a task runs once.
    #[error("task {task} has already run")]
    Ended {
        /// The task.
        task: TaskId,
    },
    /// Its process runs, but containerd did not find it.
    #[error("containerd does not find the process of task {task}, which runs")]
    NotSignalled {
        /// The task.
        task: TaskId,
    },
    /// A layer of the image is not on the disk, though containerd has it in its database.
    #[error("the image is damaged: {} is not there", path.display())]
    Damaged {
        /// The layer's directory, or its name.
        path: PathBuf,
    },
    /// The board's own files.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// The action, as in "write the task's files in".
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Whether a disk is full.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl RuntimeError {
    fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.into(), source }
    }

    /// True if containerd is gone, or confused, rather than unwilling: the task is not at fault, try again.
    pub fn is_lost(&self) -> bool {
        match self {
            Self::Ctrd(error) => error.is_lost(),
            Self::NotSignalled { .. } => true,
            Self::Mount(_)
            | Self::File(_)
            | Self::User(_)
            | Self::Signal(_)
            | Self::Spec(_)
            | Self::Resolver(_)
            | Self::Ended { .. }
            | Self::Damaged { .. }
            | Self::Io { .. } => false,
        }
    }

    /// True if a disk is full.
    pub fn is_disk_full(&self) -> bool {
        if let Self::Ctrd(CtrdError::Call { source, .. }) = self {
            return source.message.contains(ctrd::NO_SPACE);
        }
        matches!(self, Self::Io { source, .. } if is_full(source))
    }

    /// Which of the board's own files it is about.
    pub fn path(&self) -> Option<&Path> {
        if let Self::Io { path, .. } = self { Some(path) } else { None }
    }

    /// The whole story in one sentence, for a task's report.
    pub fn reason(&self) -> String {
        chain(self)
    }
}

/// The way to this board's containers. Clones share one connection, made when it is needed.
#[derive(Clone)]
pub struct Runtime(Rc<Inner>);

struct Inner {
    executor: Executor,
    config: Config,
    binary: PathBuf,
    cgroups: Cgroups,
    confine: Confinement,
    /// Names the board's boot; empty if the kernel does not.
    boot: String,
    ctrd: RefCell<Option<Ctrd>>,
    /// One connection is made at a time: when containerd comes back, every task wants one at once.
    connect_turn: Mutex<()>,
    /// Containers that are made at once: each has its specification in memory several times.
    make_turns: Semaphore,
    /// Health checks under way.
    probe_turns: Semaphore,
    /// Health checks that are being started.
    probe_starts: Semaphore,
    /// One container with a large description is made at a time.
    heavy_turn: Mutex<()>,
    /// One turn per shim group: a shim must not be left and entered at the same time.
    turns: Vec<Mutex<()>>,
    /// One volume is made at a time: two tasks may want the same.
    volume_turn: Mutex<()>,
    /// One look at what is bound at a time; the thread that looks holds it.
    source_turn: Arc<Mutex<()>>,
    bodies: Bodies,
}

impl Runtime {
    /// Connects to nothing yet. Fails if the board's cgroups cannot be read.
    pub fn new(executor: Executor, config: Config) -> Result<Self, RuntimeError> {
        let cgroups = Cgroups::read(&config.root).map_err(RuntimeError::io("read cgroups below", &config.root))?;
        let crun = config.root.join(CRUN);
        let crun = crun.exists().then_some(crun);
        let runc = RUNC.map(|place| config.root.join(place));
        let runc = runc.iter().find(|path| path.exists()).unwrap_or(&runc[0]);
        let binary = choose_binary(config.binary.clone(), crun, runc.clone(), cgroups.version);
        let boot = std::fs::read_to_string(config.root.join(BOOT_ID)).unwrap_or_default().trim().to_owned();
        let confine = Confinement::read(&config.root, &binary);
        let turns = (0..config.groups.max(1)).map(|_| Mutex::new(())).collect();
        let bodies = Bodies::new(&config.run);
        Ok(Self(Rc::new(Inner {
            executor,
            config,
            binary,
            cgroups,
            confine,
            boot,
            ctrd: RefCell::new(None),
            connect_turn: Mutex::new(()),
            make_turns: Semaphore::new(limits::MAKES_MAX),
            heavy_turn: Mutex::new(()),
            probe_turns: Semaphore::new(limits::PROBES_MAX),
            probe_starts: Semaphore::new(limits::PROBE_STARTS_MAX),
            turns,
            volume_turn: Mutex::new(()),
            source_turn: Arc::default(),
            bodies,
        })))
    }

    /// The shared connection to containerd; a new one if the last has ended.
    pub async fn connect(&self) -> Result<Ctrd, CtrdError> {
        let open = || self.0.ctrd.borrow().as_ref().filter(|ctrd| !ctrd.is_closed()).cloned();
        if let Some(ctrd) = open() {
            return Ok(ctrd);
        }
        let _turn = self.0.connect_turn.lock().await;
        if let Some(ctrd) = open() {
            return Ok(ctrd);
        }
        let ctrd = Ctrd::connect(&self.0.executor, &self.0.config.socket).await?;
        *self.0.ctrd.borrow_mut() = Some(ctrd.clone());
        Ok(ctrd)
    }

    /// Contents of secrets and configs.
    pub fn bodies(&self) -> &Bodies {
        &self.0.bodies
    }

    /// What this board can enforce.
    pub fn cgroups(&self) -> &Cgroups {
        &self.0.cgroups
    }

    /// What this board can confine containers with.
    pub fn confine(&self) -> &Confinement {
        &self.0.confine
    }

    /// Everything that this board cannot do, for its description and its log.
    pub fn degraded(&self) -> Vec<String> {
        let limits = self.cgroups().degraded().into_iter().map(|fault| fault.to_string());
        let confine = self.confine();
        let no_runtime = confine.no_runtime.iter().map(ToString::to_string);
        no_runtime.chain(limits).chain(confine.no_seccomp.iter().map(ToString::to_string)).collect()
    }

    /// The OCI runtime in use.
    pub fn binary(&self) -> &Path {
        &self.0.binary
    }

    /// What the kernel is called until it boots again.
    pub fn boot(&self) -> &str {
        &self.0.boot
    }

    /// The agent's own directory.
    pub fn data(&self) -> &Path {
        &self.0.config.data
    }

    fn root(&self) -> &Path {
        &self.0.config.root
    }

    fn run(&self) -> &Path {
        &self.0.config.run
    }

    /// Where containerd sends a container's output; empty: nowhere. The shim reads a terminal's only if it has
    /// a place to write it to.
    fn output(&self, task: TaskId, log: LogConfig, streams: Streams) -> String {
        match log {
            LogConfig::None => match streams {
                Streams::Terminal => "/dev/null".to_owned(),
                Streams::Plain | Streams::OpenInput => String::new(),
            },
            LogConfig::Files { size_max, files_max } => {
                let dir = logs::dir(self.data(), task);
                let order = logs::process::Order { dir, size_max: size_max.get(), files_max };
                logs::address(&self.0.config.logger, &order)
            }
        }
    }

    /// The board's init program.
    fn init(&self) -> Result<PathBuf, init::NoInit> {
        init::find(self.0.config.init.as_deref(), self.root())
    }

    /// A task's shim group. It may change with the configuration: the specification names the
    /// shim; this only decides who waits for whom.
    fn group(&self, task: TaskId) -> u8 {
        let group = task.bits() % u128::from(self.0.config.groups.max(1));
        u8::try_from(group).expect("below a number of type u8")
    }

    async fn make_turn(&self) -> SemaphoreGuard<'_> {
        self.0.make_turns.acquire().await
    }

    /// The turn to make a container from a description of so many bytes; light ones need none.
    async fn heavy_turn(&self, weight: usize) -> Option<MutexGuard<'_, ()>> {
        if weight < limits::HEAVY_BYTES_MIN {
            return None;
        }
        Some(self.0.heavy_turn.lock().await)
    }

    async fn volume_turn(&self) -> MutexGuard<'_, ()> {
        self.0.volume_turn.lock().await
    }

    async fn source_turn(&self) -> MutexGuardArc<()> {
        self.0.source_turn.lock_arc().await
    }

    async fn turn(&self, task: TaskId) -> MutexGuard<'_, ()> {
        self.0.turns[usize::from(self.group(task))].lock().await
    }
}

/// What a task gets of the network; none: it is on the board's, or has only a loopback device.
pub fn network_of(work: &Work, task: TaskId, board: &str) -> Option<Attached> {
    let container = &work.container;
    let net = match container.network {
        NetworkMode::Unset | NetworkMode::Bridge => work.net.clone()?,
        NetworkMode::Host | NetworkMode::None => return None,
    };
    Some(Attached {
        net,
        hostname: spec::hostname(container, task, board),
        slot_name: work.slot_name.clone(),
        // Those that are none make the container's creation fail, with the reason.
        servers: container.dns.servers.iter().filter_map(|server| server.parse().ok()).collect(),
        ..Attached::default()
    })
}

/// The runtime to use: what is configured; else crun, which is quicker and takes a third of the
/// memory while it starts a container, but does not start on hybrid cgroups; else runc.
pub fn choose_binary(configured: Option<PathBuf>, crun: Option<PathBuf>, runc: PathBuf, version: Version) -> PathBuf {
    let crun = match version {
        Version::V1 | Version::V2 => crun,
        Version::Hybrid | Version::None => None,
    };
    configured.or(crun).unwrap_or(runc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(configured: Option<&str>, crun: Option<&str>, version: Version, want: &str) {
        let found = choose_binary(configured.map(Into::into), crun.map(Into::into), "runc".into(), version);
        assert_eq!(found, Path::new(want));
    }

    #[test]
    fn binaries() {
        check(None, Some("crun"), Version::V2, "crun");
        check(None, Some("crun"), Version::Hybrid, "runc");
        check(None, None, Version::V2, "runc");
        check(Some("mine"), Some("crun"), Version::V1, "mine");
    }
}
