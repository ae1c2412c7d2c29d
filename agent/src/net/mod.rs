//! The board's network: what the manager tells about it, and what the kernel is made to do.
//!
//! ```text
//! Net ─▶ table ─┐
//! Work.net ─────┴▶ plan (pure) ─▶ kernel (netlink: links, routes, nf_tables, conntrack)
//!               └▶ dns (names of a task's networks)
//! ```
//!
//! [`Network`] is the shell: one loop that tells the kernel what changed, in portions; and a task's coming and going
//! (`tasks`). Nothing is torn down when the agent starts or stops. When it starts, after a failure, and when something
//! is missing that was told, everything is told anew, and then what nothing wants is removed.

pub mod dns;
pub mod firewall;
pub mod host;
mod keep;
pub mod kernel;
pub mod netlink;
pub mod ns;
pub mod plan;
pub mod ports;
pub mod probe;
pub mod table;
mod tasks;
#[cfg(test)]
pub(crate) mod testing;
mod watch;
pub mod wireguard;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use racimo_common::id::{ServiceId, TaskId};
use racimo_common::time::Mono;
use racimo_common::wire::Net;
use smol::future::yield_now;
use smol::lock::{Mutex, MutexGuard};
use smol::{LocalExecutor, Timer};

use self::dns::Dns;
use self::keep::Files;
use self::kernel::{Fault, Kernel};
use self::plan::board::place;
use self::plan::{Attached, Left, Op, Plan, View, targets};
use self::ports::Ports;
use self::table::Table;
use crate::limits;

/// Why a task does not get its network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoNetwork {
    /// The board's fault, or not yet: try again.
    Again(String),
    /// It cannot be: a port is taken.
    Never(String),
}

/// What is told of services that were left out.
fn no_room(services: usize) -> String {
    format!(
        "network: the agent is short of memory ({} KiB): {services} services cannot be reached from this board",
        limits::HEAP_NET >> 10
    )
}

/// The board's network. Clones are the same.
#[derive(Clone)]
pub struct Network(Rc<Inner>);

struct Inner {
    run: PathBuf,
    files: Files,
    table: Rc<RefCell<Table>>,
    /// Whether the table is what was told, and not only what was told since the agent started.
    known: Cell<bool>,
    /// Whether there is a file with it.
    has_file: Cell<bool>,
    tasks: RefCell<BTreeMap<TaskId, Attached>>,
    plan: RefCell<Plan>,
    /// Tasks of before that are not here and are still to be removed.
    gone: RefCell<BTreeSet<TaskId>>,
    /// Whether a task's coming is under way, or was given up midway.
    unfinished: Cell<bool>,
    /// One at a time tells the kernel something, and has tasks come and go.
    kernel: Mutex<Option<Kernel>>,
    ports: Ports,
    dns: Dns,
    /// Whether everything is to be told anew.
    anew: Cell<bool>,
    /// Whether the published ports may not be ours yet.
    unheld: Cell<bool>,
    /// Whether the table is not written yet.
    unwritten: Cell<bool>,
    /// What failed, and why.
    faults: RefCell<BTreeMap<String, String>>,
    /// Services that were left out for lack of memory.
    left_out: RefCell<BTreeSet<ServiceId>>,
    /// When they were asked for last, and how long to wait until they are again.
    asked: Cell<(Mono, Duration)>,
    /// What other programs had removed when it was last looked.
    missing: RefCell<String>,
    wake: Sender<()>,
    woken: Receiver<()>,
}

impl Network {
    /// Knows what an earlier agent knew; the kernel is not touched before [`Network::drive`].
    ///
    /// # Errors
    /// The kernel has no room for a file more.
    pub fn open(executor: Rc<LocalExecutor<'static>>, run: &Path, resolv_conf: PathBuf) -> std::io::Result<Self> {
        let files = Files::new(run);
        let table = files.read_table().unwrap_or_else(|error| {
            log::warn!("what this board knew of the network is told anew: {error}");
            None
        });
        let (known, has_file) = (Cell::new(table.is_some()), Cell::new(table.is_some()));
        let tasks = RefCell::new(files.read_tasks().into_iter().collect());
        let (wake, woken) = async_channel::bounded(1);
        let table = Rc::new(RefCell::new(table.unwrap_or_default()));
        let network = Self(Rc::new(Inner {
            run: run.to_owned(),
            files,
            dns: Dns::new(executor, table.clone(), resolv_conf, fastrand::Rng::new()),
            table,
            known,
            has_file,
            tasks,
            gone: RefCell::default(),
            unfinished: Cell::new(false),
            plan: RefCell::default(),
            kernel: Mutex::new(None),
            ports: Ports::new()?,
            anew: Cell::new(true),
            unheld: Cell::new(true),
            unwritten: Cell::new(false),
            faults: RefCell::default(),
            left_out: RefCell::default(),
            asked: Cell::new((Mono::default(), limits::LEFT_OUT_PAUSE.0)),
            missing: RefCell::default(),
            wake,
            woken,
        }));
        network.hold_tasks_ports();
        Ok(network)
    }

    /// What the manager told.
    pub fn table(&self) -> &Rc<RefCell<Table>> {
        &self.0.table
    }

    /// The ports that are published on the board.
    pub fn board_ports(&self) -> &Ports {
        &self.0.ports
    }

    /// A session starts.
    pub fn session(&self) {
        self.0.table.borrow_mut().session();
        self.0.left_out.borrow_mut().clear();
    }

    /// Leaves out of what the manager told what there is no room for: the agent uses so many bytes of heap.
    pub fn fit(&self, net: &mut Net, heap: usize) {
        let mut left_out = self.0.left_out.borrow_mut();
        let none_before = left_out.is_empty();
        self.0.table.borrow().fit(net, heap, &mut left_out);
        if none_before && !left_out.is_empty() {
            log::warn!("{}", no_room(left_out.len()));
        }
    }

    /// Takes what the manager told.
    pub fn take(&self, net: Net) {
        let inner = &self.0;
        if net.complete && net.last && !inner.known.replace(true) {
            // What is left of whatever was before can be told now.
            inner.anew.set(true);
        }
        let mut table = inner.table.borrow_mut();
        let before = table.own.as_ref().map(place);
        table.take_into(net, &mut inner.plan.borrow_mut().changes);
        // What hung on the old place must go.
        inner.anew.set(inner.anew.get() || before != table.own.as_ref().map(place));
        inner.unwritten.set(true);
        inner.unheld.set(true);
        self.wake();
    }

    /// The board is no member any more: nothing of it is wanted.
    pub fn forget_all(&self) {
        // What parts of a whole have named so far is not wanted either.
        self.session();
        self.take(Net { complete: true, last: true, ..Net::default() });
    }

    /// Whether services were left out for which there may be room now: a new session brings them. Each time it is true,
    /// it is longer until the next: what is brought may take the room again.
    pub fn has_room_again(&self, heap: usize, now: Mono) -> bool {
        let (since, pause) = self.0.asked.get();
        let is_true = !self.0.left_out.borrow().is_empty() && heap < limits::HEAP_NET && now.since(since) >= pause;
        if is_true {
            self.0.asked.set((now, (pause * 2).min(limits::LEFT_OUT_PAUSE.1)));
        }
        is_true
    }

    /// Waits until the kernel has nothing of it, after [`forget_all`](Self::forget_all); what is left is logged. For an
    /// agent that stops: [`drive`](Self::drive) does not run any more.
    pub async fn clear(&self) {
        self.tell_all().await;
        self.write();
    }

    fn wake(&self) {
        // Full: it is going to wake anyway.
        let _ = self.0.wake.try_send(());
    }

    /// What is wrong, one sentence each.
    pub fn degraded(&self) -> Vec<String> {
        let faults = self.0.faults.borrow();
        let mut told: Vec<String> = faults
            .iter()
            .take(limits::DEGRADED_FAULTS_MAX)
            .map(|(what, why)| format!("network: {what}: {why}; it is tried again"))
            .collect();
        if faults.len() > told.len() {
            told.push(format!("network: {} more failures", faults.len() - told.len()));
        }
        let left_out = self.0.left_out.borrow().len();
        told.extend((left_out > 0).then(|| no_room(left_out)));
        told.extend(self.0.ports.degraded());
        told
    }

    fn fault(&self, what: String, why: &Fault) {
        self.failed(what, why.reason());
    }

    fn failed(&self, what: String, why: String) {
        log::warn!("network: {what}: {why}");
        self.0.faults.borrow_mut().insert(what, why);
    }

    /// Writes what must outlive the agent.
    pub fn write(&self) {
        if self.0.unwritten.replace(false) && self.0.known.get() {
            if let Err(error) = self.write_table() {
                log::warn!("what this board knows of the network is not kept: {error}");
            }
        }
    }

    fn write_table(&self) -> std::io::Result<()> {
        self.0.files.write_table(&self.0.table.borrow())?;
        self.0.has_file.set(true);
        Ok(())
    }

    /// Keeps the kernel as it shall be, and looks every so often whether it is. Runs for ever.
    pub async fn drive(self, look_every: Duration) {
        let inner = &self.0;
        let (mut write_at, mut retry_at, mut ports_at, mut look_at) = (None, None, None, None);
        let mut left: VecDeque<(Instant, Left)> = VecDeque::new();
        let mut pause = limits::NET_RETRY.0;
        loop {
            if inner.anew.replace(false) {
                self.tell_all().await;
            } else {
                self.tell_changes().await;
            }
            let now = Instant::now();
            let leaving = inner.plan.borrow_mut().take_left();
            if !leaving.is_empty() {
                left.push_back((now + limits::FORGET_UNANSWERED_AFTER, leaving));
            }
            let forget_at = left.front().map(|(at, _)| *at);
            let due = |at: &mut Option<Instant>, wanted: bool, after| {
                *at = if wanted { at.or(Some(now + after)) } else { None };
            };
            // Many messages make a whole: it is written once they have come.
            due(&mut write_at, inner.unwritten.get(), limits::NET_WRITE_AFTER);
            due(&mut ports_at, inner.ports.is_short(), limits::PORTS_RETRY_EVERY);
            let failed = !inner.faults.borrow().is_empty();
            due(&mut retry_at, failed, pause);
            pause = if failed { pause } else { limits::NET_RETRY.0 };
            due(&mut look_at, self.is_known(), look_every);
            let woken = async {
                // It is never closed: this holds both ends.
                let _ = inner.woken.recv().await;
            };
            let late = async {
                match [write_at, retry_at, ports_at, look_at, forget_at].into_iter().flatten().min() {
                    Some(at) => drop(Timer::at(at).await),
                    None => smol::future::pending().await,
                }
            };
            smol::future::or(woken, late).await;
            let is_due = |at: &mut Option<Instant>| at.take_if(|at| *at <= Instant::now()).is_some();
            if forget_at.is_some_and(|at| at <= Instant::now()) {
                // Told in the next round.
                let overdue = left.pop_front().map(|(_, overdue)| overdue).unwrap_or_default();
                inner.plan.borrow_mut().overdue(overdue);
            }
            if is_due(&mut write_at) {
                self.write();
            }
            if is_due(&mut ports_at) && inner.ports.retry() {
                self.publish_all();
            }
            if is_due(&mut look_at) {
                self.look().await;
            }
            if is_due(&mut retry_at) {
                inner.anew.set(true);
                pause = (pause * 2).min(limits::NET_RETRY.1);
            }
        }
    }

    /// Every published port is told anew: some were another program's.
    fn publish_all(&self) {
        let table = self.0.table.borrow();
        let services = table.services.values().filter(|service| !service.ports.is_empty());
        let mut plan = self.0.plan.borrow_mut();
        services.for_each(|service| plan.tell_anew(service.id));
    }

    async fn kernel(&self) -> Result<MutexGuard<'_, Option<Kernel>>, Fault> {
        let mut kernel = self.0.kernel.lock().await;
        self.opened(&mut kernel)?;
        Ok(kernel)
    }

    fn opened<'a>(&self, kernel: &'a mut Option<Kernel>) -> Result<&'a mut Kernel, Fault> {
        match kernel {
            Some(kernel) => Ok(kernel),
            none => Ok(none.insert(Kernel::open(&self.0.run)?)),
        }
    }

    async fn tell_changes(&self) {
        if !self.is_known() {
            return;
        }
        match self.kernel().await {
            Ok(mut kernel) => {
                if let Some(kernel) = kernel.as_mut() {
                    self.tell(kernel).await;
                }
            }
            Err(fault) => self.fault("open the kernel's network".to_owned(), &fault),
        }
    }

    /// Whether there is anything to go by: the kernel is left as an earlier agent made it until all has been told.
    pub fn is_known(&self) -> bool {
        self.0.known.get()
    }

    /// Tells the kernel what is to be told, in portions.
    async fn tell(&self, kernel: &mut Kernel) {
        loop {
            let (ops, publishes) = {
                let (table, tasks) = (self.0.table.borrow(), self.0.tasks.borrow());
                let mut plan = self.0.plan.borrow_mut();
                let ops = plan.next(View { table: &table, tasks: &tasks });
                let publishes = ops.iter().flatten().any(|op| matches!(op, Op::Publish { .. }));
                (ops, publishes)
            };
            let Some(mut ops) = ops else { return };
            if publishes {
                if self.0.unheld.replace(false) {
                    self.hold_ports();
                }
                for op in &mut ops {
                    self.leave_taken(op);
                }
            }
            for (op, fault) in kernel.apply(ops) {
                self.fault(op.to_string(), &fault);
            }
            if kernel.take_emptied() {
                self.0.anew.set(true);
                self.wake();
            }
            yield_now().await;
        }
    }

    /// Makes sure that the published ports are ours, as far as they are free.
    fn hold_ports(&self) {
        let table = self.0.table.borrow();
        let mut wanted: BTreeMap<ports::Key, Vec<SocketAddrV4>> = BTreeMap::new();
        for service in table.services.values() {
            for (place, port) in service.ports.iter().enumerate() {
                let to = targets(service, place, port).map(|(address, target)| SocketAddrV4::new(address, target));
                wanted.entry((port.protocol, port.published)).or_insert_with(|| to.collect());
            }
        }
        self.0.ports.publish(wanted);
    }

    /// A port that another program has stays its.
    fn leave_taken(&self, op: &mut Op) {
        if let Op::Publish { port, to } = op {
            to.take_if(|_| !self.0.ports.is_held(*port));
        }
    }

    /// Tells everything, then removes what is not wanted.
    async fn tell_all(&self) {
        self.0.faults.borrow_mut().clear();
        if !self.is_known() {
            return;
        }
        let mut kernel = match self.kernel().await {
            Ok(kernel) => kernel,
            Err(fault) => return self.fault("open the kernel's network".to_owned(), &fault),
        };
        let Some(kernel) = kernel.as_mut() else { return };
        self.forget_gone(kernel);
        self.hold_tasks_ports();
        let tasks: Vec<(TaskId, Attached)> = self.0.tasks.borrow().clone().into_iter().collect();
        self.0.plan.borrow_mut().forget(&self.0.table.borrow());
        self.tell(kernel).await;
        for (task, attached) in &tasks {
            if let Err(why) = self.place(kernel, *task, attached, true).await {
                let (NoNetwork::Again(why) | NoNetwork::Never(why)) = why;
                self.failed(format!("task {task}"), why);
            }
        }
        // What changed meanwhile.
        self.tell(kernel).await;
        let wanted = {
            let (table, tasks) = (self.0.table.borrow(), self.0.tasks.borrow());
            View { table: &table, tasks: &tasks }.wanted()
        };
        for fault in kernel.sweep(&wanted) {
            self.fault("remove what is left".to_owned(), &fault);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::own;

    #[test]
    fn a_board_that_is_no_member_any_more_forgets_what_a_part_of_a_whole_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let executor = Rc::new(LocalExecutor::new());
        let network = Network::open(executor, dir.path(), "/etc/resolv.conf".into()).expect("a network");
        network.take(Net { complete: true, own: Some(own(1)), ..Net::default() });
        assert!(network.table().borrow().own.is_some());
        network.forget_all();
        assert!(network.table().borrow().own.is_none());
    }
}
