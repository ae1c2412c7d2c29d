//! What breaks, when, and how it is mended.

use racimo_common::id::NodeId;

use crate::net::Ways;
use crate::sim::{Happening, Sim};
use crate::world::World;

/// Something breaks or is mended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// Chooses the next fault.
    Next,
    Ways {
        board: usize,
        ways: Ways,
    },
    Break {
        board: usize,
    },
    KillAgent {
        board: usize,
    },
    StartAgent {
        board: usize,
    },
    PowerOff {
        board: usize,
    },
    PowerOn {
        board: usize,
    },
    ContainerdAway {
        board: usize,
    },
    ContainerdBack {
        board: usize,
    },
    /// `silent`: its machine goes with it. The disk keeps what was synced.
    KillManager {
        silent: bool,
    },
    /// Its disk fails after this many operations, then it dies.
    CutDisk {
        operations: u64,
    },
    StartManager,
}

/// All ways open.
pub(crate) const OPEN: Ways = Ways { up: true, down: true };

impl World {
    /// Something is broken now, something is due to be mended later.
    fn choose(&mut self) {
        let sim = &mut self.sim;
        let every = sim.knobs.fault_every.clone();
        sim.within(every, Happening::Fault(Fault::Next));
        let board = sim.rng.usize(..self.boards.len());
        let (fault, mend, ms) = match sim.rng.u8(..100) {
            0..25 => {
                let ways = match sim.rng.u8(..4) {
                    0 => Ways { up: false, down: true },
                    1 => Ways { up: true, down: false },
                    _ => Ways { up: false, down: false },
                };
                let ms = if sim.chance(50) { 200..4000 } else { 3000..25_000 };
                (Fault::Ways { board, ways }, Some(Fault::Ways { board, ways: OPEN }), ms)
            }
            25..40 => (Fault::Break { board }, None, 0..1),
            40..55 => (Fault::KillAgent { board }, Some(Fault::StartAgent { board }), 500..8000),
            55..67 => (Fault::PowerOff { board }, Some(Fault::PowerOn { board }), 1000..40_000),
            67..77 => (Fault::ContainerdAway { board }, Some(Fault::ContainerdBack { board }), 300..20_000),
            77..92 => {
                let ms = if sim.chance(15) { 15_000..30_000 } else { 200..8000 };
                (Fault::KillManager { silent: sim.chance(40) }, Some(Fault::StartManager), ms)
            }
            _ => (Fault::CutDisk { operations: sim.rng.u64(..6) }, None, 0..1),
        };
        if let Some(mend) = mend {
            sim.within(ms, Happening::Fault(mend));
        }
        self.fault(fault);
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        if matches!(fault, Fault::Next) {
            if !self.sim.calm {
                self.choose();
            }
            return;
        }
        self.sim.note(format_args!("fault: {fault:?}"));
        let sim = &mut self.sim;
        match fault {
            Fault::Next => {}
            Fault::Ways { board, ways } => sim.set_ways(board, ways),
            Fault::Break { board } => sim.break_conns(board),
            Fault::KillAgent { board } => self.boards[board].kill_agent(sim),
            Fault::StartAgent { board } => self.boards[board].start_agent(sim),
            Fault::PowerOff { board } => {
                let board = &mut self.boards[board];
                sim.board_dark(board.index);
                board.kill_agent(sim);
                board.powered = false;
                board.runtime.power_cut();
            }
            Fault::PowerOn { board } => {
                let board = &mut self.boards[board];
                if !std::mem::replace(&mut board.powered, true) {
                    board.runtime.away = false;
                }
                board.start_agent(sim);
            }
            Fault::ContainerdAway { board } => self.boards[board].runtime.away = true,
            Fault::ContainerdBack { board } => {
                let board = &mut self.boards[board];
                if std::mem::take(&mut board.runtime.away) && board.agent.is_some() {
                    board.connected(sim);
                }
            }
            Fault::KillManager { silent } => self.kill_manager(silent),
            Fault::CutDisk { operations } => self.disk.cut_after(operations),
            Fault::StartManager => self.start_manager(),
        }
    }

    /// Everything is mended, for good.
    pub(crate) fn heal(&mut self) {
        self.sim.calm = true;
        self.sim.note(format_args!("everything is mended"));
        for board in 0..self.boards.len() {
            self.fault(Fault::Ways { board, ways: OPEN });
            self.fault(Fault::PowerOn { board });
            self.fault(Fault::ContainerdBack { board });
        }
        self.fault(Fault::StartManager);
    }

    /// A board's identity on disk is a new one: its agent starts over.
    pub(crate) fn rejoin(&mut self, board: usize, node: NodeId) {
        let board = &mut self.boards[board];
        board.node = Some(node);
        // The journal is another member's.
        board.journal.clear();
        board.kill_agent(&mut self.sim);
        board.start_agent(&mut self.sim);
    }
}

/// When the first fault comes.
pub(crate) fn begin(sim: &mut Sim) {
    let every = sim.knobs.fault_every.clone();
    sim.within(every, Happening::Fault(Fault::Next));
}
