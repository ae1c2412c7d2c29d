//! What `dispatcher/hub.rs` does: links, write-offs, the end of sessions.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use racimo_common::id::NodeId;
use racimo_common::time::Mono;
use racimo_common::wire::{BoardId, Refused, RefusedCode};
use racimo_manager::dispatcher::clones::{self, Asker, Record, Standing};
use racimo_manager::dispatcher::liveness::{Cause, Link, Verdict};
use racimo_manager::limits::HELLO_HELD_WITHIN;
use racimo_manager::store::{Change, ClusterSpec, CommitError, Event, NodeLink, Observation, SeenNode, WrittenOff};

use crate::manager::{Manager, Stage, Waiter, Watcher};
use crate::sim::{Happening, Sim};

/// How often agents send a heartbeat: the manager's default.
const PERIOD: Duration = Duration::from_secs(1);

/// A sign of a node's life.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sign {
    Opened(Asker),
    Welcomed,
    Heard,
    Ready,
    Closed,
}

struct Entry {
    link: Link,
    session: Option<u64>,
    written_off: bool,
    agents: Record,
    /// A session that another agent waits for, and until when it may.
    waiting: Option<(u64, Asker, Mono)>,
}

impl Entry {
    fn standing(&self) -> Standing {
        match self.session {
            Some(_) => Standing::Open,
            None if self.written_off => Standing::Down,
            None if self.link.was_open() => Standing::Closed,
            None => Standing::Expected,
        }
    }
}

/// A write-off under way: the hub waits for the store.
struct Writing {
    node: NodeId,
    next: Option<Mono>,
}

#[derive(Default)]
pub(crate) struct Hub {
    nodes: BTreeMap<NodeId, Entry>,
    inbox: VecDeque<(NodeId, u64, Sign)>,
    writing: Option<Writing>,
    /// Something happened that may bring a deadline forward.
    look: bool,
    pub(crate) timer: Option<Mono>,
}

impl Manager {
    pub(crate) fn hub_starts(&mut self, sim: &mut Sim) {
        self.hub_follows(sim);
        for node in self.hub.nodes.keys().copied().collect::<Vec<_>>() {
            self.link(sim, node, NodeLink::Lost(sim.now));
        }
        self.hub.look = true;
        self.hub_drive(sim);
    }

    /// A session tells the hub something.
    pub(crate) fn sign(&mut self, sim: &mut Sim, node: NodeId, session: u64, sign: Sign) {
        self.hub.inbox.push_back((node, session, sign));
        sim.within(0..2, Happening::Feed { epoch: self.epoch, to: Watcher::Hub });
    }

    fn link(&mut self, sim: &mut Sim, node: NodeId, link: NodeLink) {
        self.observe(sim, vec![Observation::Link { node, link }]);
    }

    fn end(&mut self, sim: &mut Sim, node: NodeId, code: RefusedCode, reason: &str) {
        let Some(session) = self.hub.nodes.get_mut(&node).and_then(|entry| entry.session.take()) else { return };
        self.refuse(sim, session, code, reason);
    }

    fn refuse(&mut self, sim: &mut Sim, session: u64, code: RefusedCode, reason: &str) {
        let refused = Refused { code, reason: reason.to_owned() };
        sim.within(0..2, Happening::End { epoch: self.epoch, session, refused });
    }

    fn hub_follows(&mut self, sim: &mut Sim) {
        let gone: Vec<NodeId> =
            self.hub.nodes.keys().filter(|id| self.view.state.node(**id).is_none()).copied().collect();
        for node in gone {
            self.end(sim, node, RefusedCode::NotMember, "this node was removed from the cluster");
            let waiting = self.hub.nodes.remove(&node).and_then(|entry| entry.waiting);
            if let Some((session, ..)) = waiting {
                self.refuse(sim, session, RefusedCode::NotMember, "this node was removed from the cluster");
            }
        }
        for node in self.view.state.nodes() {
            let written_off = node.written_off.is_some();
            let new = || Entry {
                link: Link::expected(sim.now),
                session: None,
                written_off,
                agents: Record::default(),
                waiting: None,
            };
            self.hub.nodes.entry(node.id).or_insert_with(new).written_off = written_off;
        }
    }

    /// Goes on until there is nothing to do, or the store has to answer first.
    pub(crate) fn hub_drive(&mut self, sim: &mut Sim) {
        loop {
            if self.hub.writing.is_some() {
                return;
            }
            if std::mem::take(&mut self.hub.look) {
                let Some(next) = self.judge(sim, None, None) else { return };
                self.hub_waits(sim, next);
            }
            if let Some((node, session, sign)) = self.hub.inbox.pop_front() {
                self.hub.look |= !matches!(sign, Sign::Heard | Sign::Welcomed);
                self.take(sim, node, session, sign);
            } else if let Some(batch) = self.drain(sim.now, Watcher::Hub) {
                let nodes = |event: &Event| matches!(event, Event::Node { .. } | Event::Cluster);
                if batch.resync || batch.events.iter().any(nodes) {
                    self.hub_follows(sim);
                    self.hub.look = true;
                }
            } else {
                return;
            }
        }
    }

    /// Its timer is due.
    pub(crate) fn hub_looks(&mut self, sim: &mut Sim) {
        self.hub.look = true;
        self.hub_drive(sim);
    }

    fn hub_waits(&mut self, sim: &mut Sim, next: Option<Mono>) {
        if let Some(at) = next.filter(|_| next != self.hub.timer) {
            sim.at(at, Happening::Stage { epoch: self.epoch, stage: Stage::Hub });
        }
        self.hub.timer = next;
    }

    fn take(&mut self, sim: &mut Sim, node: NodeId, session: u64, sign: Sign) {
        let now = self.clock(sim);
        match sign {
            Sign::Opened(asker) => {
                if !self.hub.nodes.contains_key(&node) {
                    self.hub_follows(sim);
                }
                let known = self.known(node);
                let Some(entry) = self.hub.nodes.get_mut(&node) else {
                    let reason = "this node is not a member of the cluster";
                    return self.refuse(sim, session, RefusedCode::NotMember, reason);
                };
                if entry.waiting.is_some_and(|(_, waits, _)| entry.agents.prefers(waits, asker, known)) {
                    let standing = entry.standing();
                    if entry.agents.judge(asker, known, standing, PERIOD, now.mono) == clones::Verdict::Clone {
                        sim.fail(format_args!("node {node} is taken for a clone"));
                    }
                    return self.refuse(sim, session, RefusedCode::Busy, "another agent of this node asks");
                }
                let until = now.mono + HELLO_HELD_WITHIN;
                if let Some((other, ..)) = entry.waiting.replace((session, asker, until)) {
                    self.refuse(sim, other, RefusedCode::Busy, "another agent of this node asks");
                }
                self.consider(sim, node);
            }
            Sign::Welcomed | Sign::Heard | Sign::Ready | Sign::Closed => {
                if let (Sign::Closed, Some(entry)) = (sign, self.hub.nodes.get_mut(&node)) {
                    entry.waiting.take_if(|(waiting, ..)| *waiting == session);
                }
                let Some(entry) = self.hub.nodes.get_mut(&node).filter(|entry| entry.session == Some(session)) else {
                    return;
                };
                match sign {
                    Sign::Welcomed => entry.link.welcomed(now.mono),
                    Sign::Heard => {
                        let is_sooner = entry.link.heard(now.mono);
                        let is_first = entry.agents.heard(PERIOD, now.mono);
                        self.hub.look |= is_sooner || entry.waiting.is_some() && is_first;
                    }
                    Sign::Ready => {
                        entry.written_off = false;
                        let seen = SeenNode { ready: true, at: now.wall };
                        self.observe(sim, vec![Observation::Node { node, seen }]);
                    }
                    Sign::Closed => {
                        entry.link.closed(now.mono);
                        entry.session = None;
                        self.link(sim, node, NodeLink::Lost(now.mono));
                        self.consider(sim, node);
                    }
                    Sign::Opened(_) => {}
                }
            }
        }
    }

    fn known(&self, node: NodeId) -> Option<BoardId> {
        self.view.state.node(node).and_then(|node| node.board)
    }

    /// Answers the agent that waits for this node's session, if its time has come. No board here is a clone.
    fn consider(&mut self, sim: &mut Sim, node: NodeId) -> Option<Mono> {
        let known = self.known(node);
        let entry = self.hub.nodes.get_mut(&node)?;
        let (session, asker, until) = entry.waiting?;
        match entry.agents.judge(asker, known, entry.standing(), PERIOD, sim.now) {
            clones::Verdict::Enter => {
                self.enter(sim, node);
                return None;
            }
            clones::Verdict::Wait(due) if sim.now < until => return Some(due.map_or(until, |due| due.min(until))),
            clones::Verdict::Wait(_) => self.refuse(sim, session, RefusedCode::Busy, "another agent may be there"),
            clones::Verdict::Later => self.refuse(sim, session, RefusedCode::Busy, "another board may come back"),
            clones::Verdict::Clone => sim.fail(format_args!("node {node} is taken for a clone")),
        }
        self.hub.nodes.get_mut(&node)?.waiting = None;
        None
    }

    fn enter(&mut self, sim: &mut Sim, node: NodeId) {
        let Some((session, asker, _)) = self.hub.nodes.get_mut(&node).and_then(|entry| entry.waiting.take()) else {
            return;
        };
        if !self.sessions.contains_key(&session) {
            return;
        }
        sim.within(0..2, Happening::Enter { epoch: self.epoch, session });
        self.link(sim, node, NodeLink::Open);
        // What it holds is not known before its full report.
        if self.view.seen.node(node).is_some_and(|seen| seen.ready) {
            let seen = SeenNode { ready: false, at: self.clock(sim).wall };
            self.observe(sim, vec![Observation::Node { node, seen }]);
        }
        self.end(sim, node, RefusedCode::Replaced, "a newer session of this node took over");
        if let Some(entry) = self.hub.nodes.get_mut(&node) {
            entry.link.opens();
            entry.agents.opened(asker.boot, sim.now);
            entry.session = Some(session);
        }
    }

    /// Judges every node after `after`; when to look again, or `None`: a write-off is under way.
    fn judge(&mut self, sim: &mut Sim, after: Option<NodeId>, next: Option<Mono>) -> Option<Option<Mono>> {
        let now = self.clock(sim);
        let period = self.view.state.cluster().map_or(ClusterSpec::default().heartbeat(), |c| c.spec.heartbeat());
        let mut next = next;
        for node in self.hub.nodes.keys().copied().collect::<Vec<_>>() {
            let entry = &self.hub.nodes[&node];
            let verdict = entry.link.judge(period, now.mono);
            let known = self.known(node);
            let follows = entry.waiting.is_some_and(|(_, asker, _)| !entry.agents.is_kept_out(asker, known, now.mono));
            if follows && entry.session.is_some() && verdict == Verdict::Down(Cause::Heartbeat) {
                self.enter(sim, node);
            }
            next = [next, self.consider(sim, node)].into_iter().flatten().min();
        }
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut silent = Vec::new();
        let mut down = None;
        for (&node, entry) in self.hub.nodes.range((from, Bound::Unbounded)) {
            if entry.written_off && entry.session.is_none() {
                continue;
            }
            match entry.link.judge(period, now.mono) {
                Verdict::Alive(until) | Verdict::Suspect(until) => {
                    next = Some(next.map_or(until, |at| at.min(until)));
                }
                // It opened a session and fell silent before its report.
                Verdict::Down(_) if entry.written_off => silent.push(node),
                Verdict::Down(cause) => {
                    down = Some((node, cause));
                    break;
                }
            }
        }
        for node in silent {
            self.link(sim, node, NodeLink::Lost(now.mono));
            self.end(sim, node, RefusedCode::Busy, "the manager had not heard from this node for too long");
        }
        let Some((node, cause)) = down else { return Some(next) };
        sim.note(format_args!("node {node} is down: {}", cause.text()));
        if self.view.seen.link(node) == Some(NodeLink::Open) {
            self.link(sim, node, NodeLink::Lost(now.mono));
        }
        self.end(sim, node, RefusedCode::Busy, "the manager had not heard from this node for too long");
        let written_off = WrittenOff { at: now.wall, reason: cause.text().to_owned() };
        self.commit(sim, vec![Change::NodeWriteOff { node, written_off }], Waiter::Hub);
        self.hub.writing = Some(Writing { node, next });
        None
    }

    pub(crate) fn hub_committed(&mut self, sim: &mut Sim, result: Result<u64, CommitError>) {
        let Some(Writing { node, mut next }) = self.hub.writing.take() else { return };
        match result {
            Ok(_) => {
                if let Some(entry) = self.hub.nodes.get_mut(&node) {
                    entry.written_off = true;
                }
            }
            Err(_) => {
                let again = sim.now + Duration::from_secs(1);
                next = Some(next.map_or(again, |at| at.min(again)));
            }
        }
        let seen = SeenNode { ready: false, at: self.clock(sim).wall };
        self.observe(sim, vec![Observation::Node { node, seen }]);
        if let Some(next) = self.judge(sim, Some(node), next) {
            self.hub_waits(sim, next);
            self.hub_drive(sim);
        }
    }
}
