//! The whole: a manager, its disk, the boards; one event after the other.

use std::time::Duration;

use racimo_common::id::{ClusterId, IdSource};
use racimo_manager::store::log::fake;
use racimo_manager::store::{Change, ClusterSpec, NewCluster};

use crate::agent::Board;
use crate::faults::{self, Fault};
use crate::manager::{Crash, Manager, Waiter};
use crate::sim::{Bug, Happening, Sim};
use crate::{settle, user};

/// Within this time after everything is mended it has to be as wanted.
const SETTLE: Duration = Duration::from_secs(400);
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How long it then has to stay so.
const STAY: Duration = Duration::from_secs(15);

pub(crate) struct World {
    pub(crate) sim: Sim,
    pub(crate) disk: fake::Disk,
    pub(crate) manager: Option<Manager>,
    /// The manager's lives.
    epoch: u64,
    clock_off: i64,
    pub(crate) boards: Vec<Board>,
    /// Ids that users' requests bring.
    pub(crate) ids: IdSource,
}

/// What a run says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Of the whole trace.
    pub(crate) hash: u64,
    pub(crate) starts: u64,
    pub(crate) recoveries: u64,
    /// Boards that went by their journals.
    pub(crate) recalls: u64,
    pub(crate) rollbacks: u64,
    pub(crate) completions: u64,
    pub(crate) seconds: u64,
}

/// Runs one seed to its end.
pub(crate) fn run(seed: u64, bug: Option<Bug>) -> Result<Summary, String> {
    let boards = 2 + usize::try_from(seed % 4).unwrap_or(0);
    let mut world = World::new(seed, bug, boards);
    world.go();
    match world.sim.failure.take() {
        Some(failure) => Err(format!("{}{failure}", world.sim.tail())),
        None => Ok(Summary {
            hash: world.sim.hash(),
            starts: world.sim.model.starts,
            recoveries: world.sim.model.recoveries,
            recalls: world.sim.model.recalls,
            rollbacks: world.sim.model.rollbacks,
            completions: world.sim.model.completions,
            seconds: world.sim.now.nanos() / 1_000_000_000,
        }),
    }
}

impl World {
    pub(crate) fn new(seed: u64, bug: Option<Bug>, boards: usize) -> Self {
        let mut sim = Sim::new(seed, bug, boards);
        let disk = fake::Disk::new(sim.rng.u64(..));
        let ids = IdSource::seeded(sim.rng.u64(..));
        let boards = (0..boards).map(|index| Board::new(index, user::describe(&mut sim, index))).collect();
        Self { sim, disk, manager: None, epoch: 0, clock_off: 0, boards, ids }
    }

    fn go(&mut self) {
        self.start_manager();
        self.found();
        faults::begin(&mut self.sim);
        user::begin(&mut self.sim);
        self.until(self.sim.knobs.trouble);
        self.heal();
        let mut left = SETTLE;
        let mut settled = Duration::ZERO;
        while settled < STAY && self.sim.failure.is_none() {
            self.user_heals();
            self.until(LOOK);
            left = left.saturating_sub(LOOK);
            match settle::misses(self) {
                None => settled += LOOK,
                Some(missing) if left.is_zero() => {
                    self.sim.fail(format_args!("it has not settled: {missing}"));
                }
                // It counts from the start again: a task that waited found room, say.
                Some(_) => settled = Duration::ZERO,
            }
        }
    }

    /// The first commands: a cluster and its boards.
    pub(crate) fn found(&mut self) {
        let Some(manager) = &mut self.manager else { return };
        let cluster = NewCluster {
            net: racimo_manager::store::ClusterNet::default(),
            id: self.ids.draw::<ClusterId>(),
            ingress: self.ids.draw(),
            spec: ClusterSpec::default(),
            root_pem: String::new(),
            worker_secret: [0; 16].into(),
            manager_secret: [0; 16].into(),
            key: None,
            managers: Vec::new(),
        };
        manager.commit(&mut self.sim, vec![Change::ClusterCreate(Box::new(cluster))], Waiter::User);
        for board in &mut self.boards {
            let new = user::new_node(&mut self.sim, &mut self.ids, &board.description);
            let to = Waiter::Join(board.index, new.id);
            manager.commit(&mut self.sim, vec![Change::NodeCreate(Box::new(new))], to);
            board.clock_off = if self.sim.chance(20) { -3600 } else { 0 };
        }
    }

    pub(crate) fn until(&mut self, span: Duration) {
        let end = self.sim.now + span;
        while self.sim.failure.is_none() {
            let Some(what) = self.sim.next(end) else { return };
            let changes = matches!(what, Happening::Effect { .. } | Happening::Store { .. } | Happening::Fault(_));
            self.happen(what);
            // Processes start and decisions change only then.
            if changes && let Some(wrong) = self.sim.model.running(&self.boards, self.sim.now) {
                self.sim.fail(format_args!("{wrong}"));
            }
        }
    }

    fn happen(&mut self, what: Happening) {
        let sim = &mut self.sim;
        let (life, manager) = (self.epoch, self.manager.as_mut());
        match (what, manager) {
            (Happening::Store { epoch }, Some(manager)) if epoch == life => {
                if let Err(Crash) = manager.store(sim) {
                    self.crashed();
                }
            }
            (Happening::Reply { epoch, to, result }, Some(manager)) if epoch == life => manager.reply(sim, to, result),
            (Happening::Feed { epoch, to }, Some(manager)) if epoch == life => manager.feed(sim, to),
            (Happening::Stage { epoch, stage }, Some(manager)) if epoch == life => manager.stage(sim, stage),
            (Happening::Assigner { epoch, session }, Some(manager)) if epoch == life => manager.assigner(sim, session),
            (Happening::Enter { epoch, session }, Some(manager)) if epoch == life => {
                manager.session_enters(sim, session);
            }
            (Happening::End { epoch, session, refused }, Some(manager)) if epoch == life => {
                manager.session_ends(sim, session, Some(refused));
            }
            (Happening::Up(conn), Some(manager)) => {
                let node = sim.net.node_of(conn);
                if let Some(message) = sim.arrived_up(conn) {
                    manager.receive(sim, conn, node, message);
                }
            }
            (Happening::Down(conn), _) => {
                if let Some((board, message)) = sim.net.board_of(conn).zip(sim.arrived_down(conn)) {
                    self.boards[board].receive(sim, conn, message);
                }
            }
            (Happening::Link { board, boot, turn, step }, manager) => {
                self.boards[board].link(sim, boot, turn, step, manager.is_some());
            }
            (Happening::Agent { board, boot, input }, _) => self.boards[board].input(sim, boot, input),
            (Happening::Effect { board, boot, effect }, _) => self.boards[board].effect(sim, boot, &effect),
            (Happening::Exit { board, task, pid, status, own }, _) => {
                self.boards[board].exit(sim, task, pid, status, own);
            }
            (Happening::Fault(fault), _) => self.fault(fault),
            (Happening::User, _) => self.user(),
            (Happening::Rejoin { board, node }, _) => self.rejoin(board, node),
            // Of a manager that is gone.
            (
                Happening::Store { .. }
                | Happening::Reply { .. }
                | Happening::Feed { .. }
                | Happening::Stage { .. }
                | Happening::Assigner { .. }
                | Happening::Enter { .. }
                | Happening::End { .. }
                | Happening::Up(_),
                _,
            ) => {}
        }
    }

    pub(crate) fn start_manager(&mut self) {
        if self.manager.is_some() {
            return;
        }
        self.epoch += 1;
        if self.sim.knobs.clock_jumps && !self.sim.calm {
            self.clock_off = [0, -86_400, 3600][self.sim.rng.usize(..3)];
        }
        match Manager::start(&mut self.sim, &self.disk, self.epoch, self.clock_off) {
            Ok(manager) => self.manager = Some(manager),
            Err(Crash) => self.crashed(),
        }
    }

    /// The manager dies; its disk keeps what was synced, and some of the rest.
    pub(crate) fn kill_manager(&mut self, silent: bool) {
        if self.manager.take().is_some() {
            self.sim.manager_gone(silent);
        }
        self.disk.power_loss();
    }

    /// Its disk failed; it is started again after a while.
    fn crashed(&mut self) {
        self.sim.note(format_args!("the manager's disk fails"));
        self.kill_manager(false);
        let ms = if self.sim.calm { 100..1000 } else { 200..8000 };
        self.sim.within(ms, Happening::Fault(Fault::StartManager));
    }
}
