//! The agent's shell: one loop that owns the [`Board`], and everything that feeds it.
//!
//! ```text
//! link ─ Told ─┐                 ┌─▶ operations (one future each) ─ Done ─┐
//! events ──────┼─▶ main loop ────┤                                        │
//! timers ──────┘   (Board)       └─▶ reports ─▶ link                      │
//!      ▲──────────────────────────────────────────────────────────────────┘
//! ```

mod departure;
mod feeders;
mod images;
mod kill;
mod memory;
mod offline;
mod operations;
mod told;
mod upkeep;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use async_channel::{Receiver, Sender};
use racimo_common::id::{NodeId, TaskId};
use racimo_common::object::NodeDescription;
use racimo_common::registry::Registry;
use racimo_common::time::{Clock, Mono};
use racimo_common::wire::{ToManager, Work};
use ring::rand::{SecureRandom, SystemRandom};
use smol::{LocalExecutor, Timer};

use self::departure::Answer;
#[cfg(test)]
pub(crate) use self::departure::erase;
use self::images::Images;
use self::memory::Memory;
use self::offline::Offline;
#[cfg(test)]
pub(crate) use self::offline::owner;
use self::operations::{Containers, Tools};
use crate::board::{Board, Order};
use crate::config::Config;
use crate::describe;
use crate::hardware::Hardware;
use crate::identity::{self, Identity};
use crate::journal;
use crate::leave::{Ask, Leaving};
use crate::link::places::Places;
use crate::link::session::{Link, Told};
use crate::net::Network;
use crate::net::host::Host;
use crate::runtime::ctrd::Executor;
use crate::runtime::{self, Event, Runtime};
use crate::task::{Done, Op, Task};
use crate::{alloc, limits, logs, report};

/// Why the agent stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It was asked to.
    Asked,
    /// The board joined (another cluster, or again) meanwhile: start over with its new identity.
    Rejoined,
    /// The board left its cluster: it has no identity any more.
    Left,
}

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The board's cgroups cannot be read.
    #[error(transparent)]
    Runtime(#[from] runtime::RuntimeError),
    /// A directory of the agent's own cannot be made.
    #[error("make {path}")]
    Directory {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// The board's own name servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Where the kernel's control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// What the main loop waits for.
enum Input {
    Link(Told),
    Container(Event),
    Done(TaskId, Done),
    Listed {
        before: Vec<TaskId>,
        containers: Containers,
    },
    Described(Box<NodeDescription>),
    /// The tasks that have logs on this board.
    Logs(Vec<TaskId>),
    /// The journal was read: what the board was told last.
    Recalled(journal::Tasks),
    /// The journal was written; whether it could be.
    Kept(bool),
    /// The board shall leave its cluster.
    Leave(Ask),
    Stop,
    Tick,
}

/// Runs until asked to stop. `identity`: none on the manager's own board.
///
/// # Errors
/// The board cannot be used at all.
pub async fn run(
    executor: Rc<LocalExecutor<'static>>,
    config: Config,
    identity: Option<Identity>,
    stop: Receiver<()>,
    asks: Receiver<Ask>,
) -> Result<Stop, AppError> {
    for path in [&config.data, &config.run] {
        make(path)?;
    }
    let runtime = Runtime::new(
        Executor(executor.clone()),
        runtime::Config {
            socket: config.containerd.clone(),
            data: config.data.clone(),
            run: config.run.clone(),
            root: "/".into(),
            binary: config.runtime.clone(),
            groups: config.groups,
            init: config.init.clone(),
            logger: config.program.clone(),
        },
    )?;
    for fault in runtime.degraded() {
        log::warn!("{fault}");
    }
    let network = Network::open(executor.clone(), &config.run, RESOLV_CONF.into())
        .map_err(|source| AppError::Directory { path: config.run.display().to_string(), source })?;
    let host = Host::new(config.data.clone(), config.run.clone());
    if network.table().borrow().own.is_some() {
        host.take(&network.table().borrow());
    }
    let asked = async {
        // Only a stop is ever sent; an end would be one too.
        let _ = stop.recv().await;
        None
    };
    let (clock, board) = (Clock::start(), describe::board(Path::new("/")));
    let memory = Memory::read(&config.run, runtime.boot(), memory::start(clock.now().mono));
    let journal = offline::journal(&config, identity.as_ref(), board).await;
    // A containerd that hangs must not hold up the end.
    let described =
        smol::future::or(async { Some(feeders::describe(&config, &runtime, &network, &host, &journal).await) }, asked)
            .await;
    let Some(described) = described else { return Ok(Stop::Asked) };
    let description = Rc::new(RefCell::new(described));
    let identity = identity.map(|identity| Rc::new(identity::Own::new(identity, &config.data)));
    let tools = Rc::new(Tools {
        runtime,
        registry: Registry::new(config.registry.clone()),
        network,
        host,
        journal,
        is_alone: Cell::new(false),
        description: description.clone(),
        images: Images::new(config.images),
        node: RefCell::new(identity.as_ref().map(|own| own.identity().node)),
    });
    let places = match (&config.manager_socket, &identity) {
        (Some(socket), _) => Places::fixed(vec![format!("unix://{}", socket.display())]),
        (None, Some(own)) => {
            let identity = own.identity();
            Places::load(&config.data, identity.cluster, &identity.managers)
        }
        (None, None) => Places::default(),
    };
    let (places, discover) = (Rc::new(RefCell::new(places)), config.discover);
    let boot = draw();
    let data = config.data.clone();
    let (rng, leaves, heard) = (fastrand::Rng::with_seed(boot), Cell::default(), Rc::default());
    let hardware = Hardware::new(Path::new("/"), &data);
    let link = Link {
        identity: identity.clone(),
        places,
        discover,
        description,
        data,
        boot,
        board,
        hardware,
        rng,
        leaves,
        clock,
        heard: Rc::clone(&heard),
    };
    let (inputs, inbox) = async_channel::bounded(limits::INPUTS_MAX);
    let feeders = feeders::feeders(&executor, &config, &tools, link, &inputs, stop, asks);
    let mut held = Board::new(config.tasks_max);
    held.remembers(memory.before());
    let app = App {
        board: held,
        memory,
        offline: Offline::new(config.offline_after.filter(|_| tools.journal.last().is_some())),
        heard,
        clock,
        config,
        tools,
        executor,
        inputs,
        identity,
        operations: BTreeMap::new(),
        ending: BTreeMap::new(),
        tidying: None,
        out: None,
        is_reported: false,
        has_set: false,
        is_removed: false,
        looks: false,
        listing: None,
        looks_at_logs: false,
        logs: None,
        stop_by: None,
        erased: Ok(()),
        departure: None,
    };
    let tools = app.tools.clone();
    let (stop, left) = app.drive(inbox).await;
    drop(feeders);
    tools.network.write();
    if let Some(left) = left {
        tools.clear().await;
        left();
    }
    Ok(stop)
}

/// A number that no other agent has, also not one on a board that was copied and switched on with this one.
fn draw() -> u64 {
    let mut bytes = [0; 8];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => u64::from_be_bytes(bytes),
        Err(_) => fastrand::u64(..),
    }
}

fn make(path: &Path) -> Result<(), AppError> {
    std::fs::create_dir_all(path).map_err(|source| AppError::Directory { path: path.display().to_string(), source })
}

struct App {
    board: Board,
    clock: Clock,
    /// When the manager was there for certain.
    heard: Rc<Cell<Mono>>,
    /// The same for the agent after this one.
    memory: Memory,
    offline: Offline,
    config: Config,
    tools: Rc<Tools>,
    executor: Rc<LocalExecutor<'static>>,
    inputs: Sender<Input>,
    identity: Option<Rc<identity::Own>>,
    /// One per task at most; dropping one gives it up.
    operations: BTreeMap<TaskId, smol::Task<()>>,
    /// Tasks that ended and are being removed from the network.
    ending: BTreeMap<TaskId, smol::Task<()>>,
    /// The removal from the network of tasks that are not here any more.
    tidying: Option<smol::Task<()>>,
    out: Option<Sender<ToManager>>,
    /// Whether the session got its full report.
    is_reported: bool,
    /// Whether the session brought its whole set.
    has_set: bool,
    /// Whether nothing is wanted on this board: it is no member, or another board is this node, or it leaves.
    is_removed: bool,
    /// Whether to look for a new identity.
    looks: bool,
    /// The listing under way, if any; a newer one replaces it.
    listing: Option<smol::Task<()>>,
    /// Whether logs may have become superfluous.
    looks_at_logs: bool,
    /// The look at logs under way, or the removal of some.
    logs: Option<smol::Task<()>>,
    /// When to stop even if the manager has not heard the goodbye; none: nobody asked to stop.
    stop_by: Option<Mono>,
    /// Why the identity of a board that leaves is still there.
    erased: Result<(), String>,
    /// The board leaves its cluster.
    departure: Option<Leaving>,
}

impl App {
    async fn drive(mut self, inbox: Receiver<Input>) -> (Stop, Option<Answer>) {
        loop {
            let backlog = !self.flush();
            if self.stop_by.is_some_and(|by| self.out.is_none() || by <= self.clock.now().mono) {
                return (Stop::Asked, None);
            }
            if let Some(answer) = self.has_left().await {
                return (Stop::Left, Some(answer));
            }
            if std::mem::take(&mut self.looks) && self.rejoined() {
                self.stays();
                return (Stop::Rejoined, None);
            }
            let wake = self.wake_at(backlog);
            let tick = async {
                match wake {
                    Some(at) => Timer::at(self.clock.instant(at)).await,
                    None => smol::future::pending().await,
                };
                Some(Input::Tick)
            };
            let next = smol::future::or(async { inbox.recv().await.ok() }, tick).await;
            let Some(input) = next else { return (Stop::Asked, None) };
            self.take(input).await;
            while let Ok(input) = inbox.try_recv() {
                self.take(input).await;
            }
            self.act();
            self.look_at_logs();
            self.look_at_journal();
            // A time to wake that has passed would be ready at once: others get their turn.
            smol::future::yield_now().await;
        }
    }

    fn wake_at(&self, backlog: bool) -> Option<Mono> {
        let now = self.clock.now().mono;
        let flush = backlog.then(|| now + limits::FLUSH_AGAIN_AFTER);
        let look = self.is_removed.then(|| now + limits::IDENTITY_EVERY);
        let leave = self.departure.as_ref().map(|leaving| leaving.wake_at(now));
        [self.board.wake_at(), flush, look, leave, self.stop_by, self.journal_at()].into_iter().flatten().min()
    }

    async fn take(&mut self, input: Input) {
        let now = self.clock.now();
        match input {
            Input::Link(told) => self.told(told).await,
            Input::Container(Event::Connected) => self.list(),
            Input::Container(Event::Exited(exited)) => {
                log::info!("task {}: exited with {}", exited.task, exited.status);
                self.board.exited(exited.task, exited.status, exited.oom, now);
            }
            Input::Container(Event::Lost { reason }) => {
                self.listing = None;
                log::warn!("containerd is away, containers run on: {reason}");
            }
            Input::Done(task, done) => {
                self.looks_at_logs |= self.board.task(task).is_some_and(Task::is_unwanted);
                self.operations.remove(&task);
                self.board.done(task, done, now);
                self.has_ports(task);
            }
            Input::Listed { before, containers } if self.board.is_listed() => {
                self.board.listed(&before, &containers, now);
            }
            Input::Listed { containers, .. } => {
                if !containers.is_empty() {
                    log::info!("{} containers found on this board", containers.len());
                }
                for task in self.board.adopt(&containers, now) {
                    log::warn!("task {task} found no room: its container is removed");
                    self.begin(task, Op::Delete, None);
                }
                if self.is_removed {
                    self.board.forget_all();
                }
                self.tidy_network(&containers);
            }
            Input::Described(description) => {
                self.looks = true;
                self.described(*description);
                if self.tools.network.has_room_again(alloc::used(), now.mono) {
                    log::info!("there is room for services that were left out: the session is opened anew");
                    self.close();
                }
                // One that was lost may be its task's again.
                let tasks: Vec<TaskId> = self.board.tasks().map(|task| task.id).collect();
                tasks.into_iter().for_each(|task| self.has_ports(task));
            }
            Input::Logs(found) => {
                let (data, doomed) = (self.config.data.clone(), self.board.doomed_logs(found));
                self.logs = (!doomed.is_empty()).then(|| self.executor.spawn(logs::keep::remove(data, doomed)));
            }
            Input::Stop => {
                self.stop_by = Some(now.mono + limits::BYE_MAX);
                if let Some(out) = &self.out {
                    let _ = out.try_send(ToManager::Bye { leaving: false });
                    out.close();
                }
            }
            Input::Recalled(tasks) => self.recalled(tasks),
            Input::Kept(kept) => self.kept(kept),
            Input::Leave(ask) => self.leave(ask).await,
            Input::Tick => self.looks |= self.is_removed,
        }
    }

    /// The node that this board is; none on the manager's own.
    fn node(&self) -> Option<NodeId> {
        self.identity.as_ref().map(|own| own.identity().node)
    }

    /// Whether somebody joined the board again, to this cluster or another.
    fn rejoined(&self) -> bool {
        self.identity.as_ref().is_some_and(|own| own.is_another())
    }

    /// Starts and gives up operations.
    fn act(&mut self) {
        self.leave_network();
        self.hears();
        let now = self.clock.now();
        for order in self.board.orders(now) {
            match order {
                Order::Begin(task, op) => {
                    let held = self.board.task(task);
                    let is_stuck = held.is_some_and(Task::is_stuck);
                    let work = held.and_then(|task| task.work().cloned());
                    self.begin(task, op, work);
                    // It may be gone long since, and its end was missed.
                    if is_stuck && self.listing.as_ref().is_none_or(smol::Task::is_finished) {
                        self.list();
                    }
                }
                Order::Cancel(task) => {
                    if self.operations.remove(&task).is_some() {
                        self.board.done(task, Done::Cancelled, now);
                    }
                }
                Order::Kill(task) => {
                    let pid = self.pid(task);
                    if kill::first_process(task, pid) || kill::group(Path::new(CGROUPS), task) {
                        log::warn!("task {task}: its lease is over: killed");
                    }
                }
            }
        }
        if let Some(heard) = self.board.heard_for_fenced() {
            self.memory.keep(heard, now.mono);
        }
    }

    /// The task's first process; 0: it is not known.
    fn pid(&self, task: TaskId) -> u32 {
        self.board.task(task).and_then(|task| task.report().container.as_ref()).map_or(0, |it| it.pid)
    }

    fn begin(&mut self, task: TaskId, op: Op, work: Option<Rc<Work>>) {
        let (tools, inputs) = (self.tools.clone(), self.inputs.clone());
        let pid = self.pid(task);
        let operation = async move {
            let done = tools.perform(task, op, work, pid).await;
            // The loop may be gone.
            let _ = inputs.send(Input::Done(task, done)).await;
        };
        self.operations.insert(task, self.executor.spawn(operation));
    }

    /// Sends what is new. False: something waits for room in the queue.
    fn flush(&mut self) -> bool {
        let Some(out) = self.out.clone().filter(|out| !out.is_closed()) else { return true };
        if !self.has_set || !self.board.is_listed() || self.stop_by.is_some() {
            return true;
        }
        if out.len() > limits::OUT_QUEUE_MAX / 4 {
            return false;
        }
        let complete = !self.is_reported;
        if complete && self.board.has_strays() {
            return true;
        }
        let reports = if complete { self.board.full_report() } else { self.board.reports() };
        if reports.is_empty() && !complete {
            return true;
        }
        self.is_reported = true;
        let index = self.board.index();
        for status in report::messages(reports, complete, index) {
            if out.try_send(ToManager::Status(status)).is_err() {
                // Cannot be full: `limits` relate the sizes. A new session reports everything.
                self.close();
                return true;
            }
        }
        true
    }
}
