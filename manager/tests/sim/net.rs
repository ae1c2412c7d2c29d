//! Connections between boards and the manager.
//!
//! As TCP does it: inside a connection messages keep their order and none is lost alone; what cannot travel is held
//! back. A connection can die at any time, with what is under way; one side may not hear of it. What an agent sent
//! before it gave up a connection may still arrive, after messages of its next one.

use std::collections::{BTreeMap, VecDeque};

use racimo_common::id::NodeId;
use racimo_common::time::Mono;
use racimo_common::wire::{ToAgent, ToManager};

use crate::sim::{Happening, Sim};

pub(crate) type ConnId = u64;

/// One direction of a connection; `None` is its end.
#[derive(Debug)]
struct Pipe<T> {
    under_way: VecDeque<(Mono, Option<T>)>,
    last: Mono,
    /// Nothing more goes in.
    shut: bool,
}

#[derive(Debug)]
struct Conn {
    board: usize,
    /// Whose certificate the agent showed.
    node: Option<NodeId>,
    up: Pipe<ToManager>,
    down: Pipe<ToAgent>,
    /// Its board lost its power: what is held up on the way is never sent again.
    is_dark: bool,
}

/// Which ways between a board and the manager are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ways {
    pub(crate) up: bool,
    pub(crate) down: bool,
}

#[derive(Debug)]
pub(crate) struct Net {
    conns: BTreeMap<ConnId, Conn>,
    next: ConnId,
    ways: Vec<Ways>,
}

impl<T> Pipe<T> {
    fn new() -> Self {
        Self { under_way: VecDeque::new(), last: Mono::default(), shut: false }
    }

    fn push(&mut self, at: Mono, item: Option<T>) -> Option<Mono> {
        if self.shut {
            return None;
        }
        self.shut = item.is_none();
        self.last = self.last.max(at);
        self.under_way.push_back((self.last, item));
        Some(self.last)
    }

    fn pop(&mut self, now: Mono) -> Option<Option<T>> {
        self.under_way.front().filter(|(at, _)| *at <= now)?;
        self.under_way.pop_front().map(|(_, item)| item)
    }
}

impl Net {
    pub(crate) fn new(boards: usize) -> Self {
        Self { conns: BTreeMap::new(), next: 1, ways: vec![Ways { up: true, down: true }; boards] }
    }

    /// Whether a new connection can be made.
    pub(crate) fn reaches(&self, board: usize) -> bool {
        self.ways[board] == Ways { up: true, down: true }
    }

    pub(crate) fn board_of(&self, conn: ConnId) -> Option<usize> {
        self.conns.get(&conn).map(|conn| conn.board)
    }

    pub(crate) fn node_of(&self, conn: ConnId) -> Option<NodeId> {
        self.conns.get(&conn)?.node
    }

    pub(crate) fn connect(&mut self, board: usize, node: Option<NodeId>) -> ConnId {
        let id = self.next;
        self.next += 1;
        self.conns.insert(id, Conn { board, node, up: Pipe::new(), down: Pipe::new(), is_dark: false });
        id
    }

    fn of_board(&self, board: usize) -> Vec<ConnId> {
        self.conns.iter().filter(|(_, conn)| conn.board == board).map(|(id, _)| *id).collect()
    }
}

impl Sim {
    /// An agent sends; `None` ends its direction.
    pub(crate) fn send_up(&mut self, id: ConnId, message: Option<ToManager>) {
        let at = self.now + self.latency();
        if let Some(at) = self.net.conns.get_mut(&id).and_then(|conn| conn.up.push(at, message)) {
            self.at(at, Happening::Up(id));
        }
    }

    /// The manager sends; `None` ends its direction.
    pub(crate) fn send_down(&mut self, id: ConnId, message: Option<ToAgent>) {
        let at = self.now + self.latency();
        if let Some(at) = self.net.conns.get_mut(&id).and_then(|conn| conn.down.push(at, message)) {
            self.at(at, Happening::Down(id));
        }
    }

    /// The next message that has arrived at the manager; `Some(None)`: the connection's end.
    pub(crate) fn arrived_up(&mut self, id: ConnId) -> Option<Option<ToManager>> {
        let (now, conn) = (self.now, self.net.conns.get_mut(&id)?);
        if self.net.ways[conn.board].up { conn.up.pop(now) } else { None }
    }

    /// The next message that has arrived at the agent; `Some(None)`: the connection's end.
    pub(crate) fn arrived_down(&mut self, id: ConnId) -> Option<Option<ToAgent>> {
        let (now, conn) = (self.now, self.net.conns.get_mut(&id)?);
        if self.net.ways[conn.board].down { conn.down.pop(now) } else { None }
    }

    /// The connection dies on the way: some of what is under way is lost, both sides hear of it.
    pub(crate) fn break_conn(&mut self, id: ConnId) {
        let Some(conn) = self.net.conns.get_mut(&id) else { return };
        let (ups, downs) = (conn.up.under_way.len(), conn.down.under_way.len());
        conn.up.under_way.truncate(self.rng.usize(..=ups));
        conn.down.under_way.truncate(self.rng.usize(..=downs));
        self.send_up(id, None);
        self.send_down(id, None);
    }

    pub(crate) fn break_conns(&mut self, board: usize) {
        for id in self.net.of_board(board) {
            self.break_conn(id);
        }
    }

    /// The board is without power: nothing more goes out, nobody hears. What is on the wire arrives; what the board
    /// still had to send again, and whatever comes after that, is lost with its memory.
    pub(crate) fn board_dark(&mut self, board: usize) {
        for id in self.net.of_board(board) {
            if let Some(conn) = self.net.conns.get_mut(&id) {
                (conn.is_dark, conn.up.shut) = (true, true);
                let held = conn.up.under_way.front().is_some_and(|(at, _)| *at <= self.now);
                if held || !self.net.ways[board].up {
                    conn.up.under_way.clear();
                }
                conn.down.under_way.clear();
                conn.down.shut = true;
            }
        }
    }

    /// The manager's process is gone. `silent`: so is its machine, and nobody says so to the agents.
    pub(crate) fn manager_gone(&mut self, silent: bool) {
        let all: Vec<ConnId> = self.net.conns.keys().copied().collect();
        for id in all {
            if !silent {
                self.send_down(id, None);
            }
            if let Some(conn) = self.net.conns.get_mut(&id) {
                conn.up.under_way.clear();
                conn.up.shut = true;
                conn.down.shut = true;
            }
        }
    }

    /// Opens and closes ways; what was held back travels on.
    pub(crate) fn set_ways(&mut self, board: usize, ways: Ways) {
        self.net.ways[board] = ways;
        for conn in self.net.conns.values_mut().filter(|conn| conn.board == board && conn.is_dark && !ways.up) {
            conn.up.under_way.clear();
        }
        let mut held = Vec::new();
        for (id, conn) in self.net.conns.iter().filter(|(_, conn)| conn.board == board) {
            held.extend(conn.up.under_way.iter().map(|_| Happening::Up(*id)));
            held.extend(conn.down.under_way.iter().map(|_| Happening::Down(*id)));
        }
        // A sender tries again less and less often while nothing gets through: new connections may be faster.
        let late = !self.calm && self.chance(50);
        let span = if late { self.span(0..10_000) } else { self.latency() };
        for what in held {
            self.after(span, what);
        }
        // Connections that both sides have left and that carry nothing are forgotten.
        let over = |conn: &Conn| {
            conn.up.shut && conn.down.shut && conn.up.under_way.is_empty() && conn.down.under_way.is_empty()
        };
        self.net.conns.retain(|_, conn| !over(conn));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// How many of a board's messages arrive that were said before its way was closed, and while it was.
    #[track_caller]
    fn check(closed: bool, dark: bool, want: usize) {
        let mut sim = Sim::new(1, None, 1);
        let conn = sim.net.connect(0, None);
        sim.send_up(conn, Some(ToManager::Heartbeat(1)));
        if closed {
            sim.set_ways(0, Ways { up: false, down: false });
            sim.now = sim.now + Duration::from_secs(9);
        }
        sim.send_up(conn, Some(ToManager::Heartbeat(2)));
        if dark {
            sim.board_dark(0);
        }
        sim.set_ways(0, crate::faults::OPEN);
        sim.now = sim.now + Duration::from_secs(20);
        let arrived = std::iter::from_fn(|| sim.arrived_up(conn)).count();
        assert_eq!(arrived, want, "closed: {closed}, dark: {dark}");
    }

    #[test]
    fn what_a_board_had_to_send_again_is_lost_with_its_power() {
        check(false, false, 2);
        check(true, false, 2);
        // What is on the wire arrives.
        check(false, true, 2);
        check(true, true, 0);
    }
}
