//! The hub: keeps every node's link, writes off those that are silent, ends sessions that must end.

use std::collections::BTreeMap;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use racimo_common::id::NodeId;
use racimo_common::time::{Clock, Mono};
use racimo_common::wire::{BoardId, Refused, RefusedCode};

use super::clones::{self, Asker, Record, Standing};
use super::liveness::{Cause, Link, Verdict};
use crate::limits;
use crate::store::{Batch, Change, ClusterSpec, Event, Feed, NodeLink, Observation, SeenNode, Store, View, WrittenOff};

/// A timer this late means that the manager itself stood still (frozen, swapping, starved of CPU).
const STALL: Duration = Duration::from_millis(500);
/// What nodes get beyond the stall: what they said meanwhile is yet to be read.
const STALL_GRACE: Duration = Duration::from_secs(1);

/// A session's number: a node's newer session ends its older one.
pub(super) type SessionId = u64;

/// Where sessions say that a node is there.
#[derive(Clone)]
pub struct Hub(Sender<Sign>);

/// A sign of a node's life.
pub(super) enum Sign {
    /// An agent wants a session. It may have it once `enter` says so.
    Opened { node: NodeId, session: SessionId, opening: Opening },
    /// Its agent was told so.
    Welcomed { node: NodeId, session: SessionId },
    /// Something came from it.
    Heard { node: NodeId, session: SessionId },
    /// It made its full report.
    Ready { node: NodeId, session: SessionId },
    /// It closed without a word.
    Closed { node: NodeId, session: SessionId },
    /// The board leaves the cluster.
    Left { node: NodeId, session: SessionId },
    /// The manager's address is another one: boards may have lost it without knowing.
    Moved,
}

/// A session that is about to open.
pub(super) struct Opening {
    /// Who wants it.
    pub(super) asker: Asker,
    /// How often its agent will be told to send a heartbeat.
    pub(super) heartbeat: Duration,
    /// Lets it in.
    pub(super) enter: Sender<()>,
    /// Ends it, with a word to the agent, whether it was let in or not.
    pub(super) end: Sender<Refused>,
}

impl Hub {
    /// A hub and the inbox that [`run`] reads.
    pub(super) fn new() -> (Self, Receiver<Sign>) {
        let (signs, inbox) = async_channel::bounded(limits::SIGNS_QUEUE_MAX);
        (Self(signs), inbox)
    }

    /// Waits for room; false if the hub has ended.
    pub(super) async fn tell(&self, sign: Sign) -> bool {
        self.0.send(sign).await.is_ok()
    }
}

struct Entry {
    link: Link,
    session: Option<(SessionId, Sender<Refused>)>,
    /// The heartbeat its agent was told.
    heartbeat: Duration,
    /// The write-off was committed; nothing to judge while there is no session.
    written_off: bool,
    /// Its agents.
    agents: Record,
    /// Another agent that waits for the session, and until when it may.
    waiting: Option<(SessionId, Opening, Mono)>,
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

/// Runs until the store stops. `own`: the manager's own node, which is never judged while it has no agent.
pub(super) async fn run(store: Store, clock: Clock, inbox: Receiver<Sign>, own: NodeId) {
    let (view, feed) = store.watch();
    let mut hub = Running { store, clock, own, nodes: BTreeMap::new(), look: true };
    hub.follow_all(&view);
    // Whom the manager before this one heard last, and when, is not known: it was before now.
    let nodes: Vec<NodeId> = hub.nodes.keys().copied().collect();
    for node in nodes {
        link(&hub.store, node, NodeLink::Lost(clock.now().mono)).await;
    }
    hub.drive(inbox, feed).await;
}

enum Wake {
    Sign(Option<Sign>),
    Changed(Option<Box<Batch>>),
    Timer,
}

struct Running {
    store: Store,
    clock: Clock,
    own: NodeId,
    nodes: BTreeMap<NodeId, Entry>,
    /// Whether something happened that may bring a deadline forward.
    look: bool,
}

impl Running {
    async fn drive(&mut self, inbox: Receiver<Sign>, mut feed: Feed) {
        let mut timer = smol::Timer::never();
        let mut due = None;
        loop {
            if std::mem::take(&mut self.look) {
                // Also when it was this loop itself that waited for the disk: signs that are yet to be read are nobody's
                // silence.
                self.forgive_stall(due);
                due = self.judge_all().await;
                timer = due.map_or_else(smol::Timer::never, |at| smol::Timer::at(self.clock.instant(at)));
            }
            let sign = async { Wake::Sign(inbox.recv().await.ok()) };
            let changed = async {
                let Some(batch) = feed.next().await else { return Wake::Changed(None) };
                Wake::Changed(Some(Box::new(batch)))
            };
            let tick = async {
                (&mut timer).await;
                Wake::Timer
            };
            match smol::future::or(sign, smol::future::or(changed, tick)).await {
                Wake::Sign(Some(sign)) => {
                    // Who is there is judged later than before: the deadline that is set already comes first.
                    self.look = !matches!(sign, Sign::Heard { .. } | Sign::Welcomed { .. });
                    self.sign(sign).await;
                }
                Wake::Changed(Some(batch)) => self.look = self.nodes_changed(&batch),
                Wake::Sign(None) | Wake::Changed(None) => return,
                Wake::Timer => self.look = true,
            }
        }
    }

    /// Nobody is judged by silence while the manager could not hear.
    fn forgive_stall(&mut self, due: Option<Mono>) {
        let now = self.clock.now().mono;
        let late = due.map_or(Duration::ZERO, |due| now.since(due));
        if late >= STALL {
            log::warn!("the manager stood still for {late:.1?} or more: its nodes get that much longer to be heard");
            for entry in self.nodes.values_mut() {
                entry.link.forgive(late + STALL_GRACE, now);
                entry.agents.forgive(now);
            }
        }
    }

    fn follow_all(&mut self, view: &View) {
        let now = self.clock.now().mono;
        self.nodes.retain(|id, entry| {
            let there = view.state.node(*id).is_some();
            if !there {
                end(entry, RefusedCode::NotMember, REMOVED);
                if let Some((_, opening, _)) = entry.waiting.take() {
                    refuse(&opening, RefusedCode::NotMember, REMOVED);
                }
            }
            there
        });
        for node in view.state.nodes() {
            let written_off = node.written_off.is_some();
            let entry = self.nodes.entry(node.id).or_insert_with(|| Entry {
                link: Link::expected(now),
                session: None,
                heartbeat: heartbeat(view),
                written_off,
                agents: Record::default(),
                waiting: None,
            });
            entry.written_off = written_off;
        }
    }

    /// Whether nodes or the cluster's settings changed.
    fn nodes_changed(&mut self, batch: &Batch) -> bool {
        let concerns = |event: &Event| matches!(event, Event::Node { .. } | Event::Cluster);
        let changed = batch.resync || batch.events.iter().any(concerns);
        if changed {
            self.follow_all(&batch.view);
        }
        changed
    }

    async fn sign(&mut self, sign: Sign) {
        let now = self.clock.now();
        match sign {
            Sign::Opened { node, session, opening } => {
                // It may have joined a moment ago, and its event still be on its way.
                if !self.nodes.contains_key(&node) {
                    self.follow_all(&self.store.view());
                }
                let known = self.known(node);
                let Some(entry) = self.nodes.get_mut(&node) else {
                    refuse(&opening, RefusedCode::NotMember, NO_MEMBER);
                    return;
                };
                if let Some((_, other, _)) = &entry.waiting
                    && entry.agents.prefers(other.asker, opening.asker, known)
                {
                    let standing = entry.standing();
                    let verdict = entry.agents.judge(opening.asker, known, standing, entry.heartbeat, now.mono);
                    let is_clone = verdict == clones::Verdict::Clone;
                    let (code, reason) = if is_clone { (RefusedCode::Clone, CLONE) } else { (RefusedCode::Busy, TWO) };
                    refuse(&opening, code, reason);
                    return;
                }
                let until = now.mono + limits::HELLO_HELD_WITHIN;
                if let Some((_, other, _)) = entry.waiting.replace((session, opening, until)) {
                    refuse(&other, RefusedCode::Busy, TWO);
                }
                self.consider(node).await;
            }
            Sign::Welcomed { node, session } => {
                if let Some(entry) = self.current(node, session) {
                    entry.link.welcomed(now.mono);
                }
            }
            Sign::Heard { node, session } => {
                let Some(entry) = self.current(node, session) else { return };
                let is_sooner = entry.link.heard(now.mono);
                let is_first = entry.agents.heard(entry.heartbeat, now.mono);
                // Another agent's time changes with the first word only; then all are looked at.
                self.look |= is_sooner || entry.waiting.is_some() && is_first;
            }
            Sign::Ready { node, session } => {
                if let Some(entry) = self.current(node, session) {
                    // No sign of now: it comes by way of the store.
                    entry.written_off = false;
                    see(&self.store, node, SeenNode { ready: true, at: now.wall }).await;
                }
            }
            Sign::Closed { node, session } => {
                if let Some(entry) = self.current(node, session) {
                    entry.link.closed(now.mono);
                    entry.session = None;
                    link(&self.store, node, NodeLink::Lost(now.mono)).await;
                }
                if let Some(entry) = self.nodes.get_mut(&node) {
                    entry.waiting.take_if(|(waiting, ..)| *waiting == session);
                }
                self.consider(node).await;
            }
            Sign::Moved => {
                let own = self.own;
                self.nodes.iter_mut().filter(|(id, _)| **id != own).for_each(|(_, entry)| entry.link.lost(now.mono));
            }
            Sign::Left { node, session } => {
                if let Some(entry) = self.current(node, session) {
                    entry.link.left();
                    entry.session = None;
                    link(&self.store, node, NodeLink::Lost(now.mono)).await;
                }
            }
        }
    }

    /// The board that a node was on. The manager's own agent shows no key that could be on a copied card: it is where
    /// the manager is, which may be another board than before.
    fn known(&self, node: NodeId) -> Option<BoardId> {
        let view = self.store.view();
        view.state.node(node).filter(|_| node != self.own).and_then(|node| node.board)
    }

    /// Answers the agent that waits for this node's session, if there is one and its time has come.
    async fn consider(&mut self, node: NodeId) -> Option<Mono> {
        let now = self.clock.now().mono;
        let known = self.known(node);
        let entry = self.nodes.get_mut(&node)?;
        let (_, opening, until) = entry.waiting.as_ref()?;
        let standing = entry.standing();
        let refused = match entry.agents.judge(opening.asker, known, standing, entry.heartbeat, now) {
            clones::Verdict::Enter => {
                self.enter(node).await;
                return None;
            }
            clones::Verdict::Wait(due) if now < *until => return Some(due.map_or(*until, |due| due.min(*until))),
            clones::Verdict::Wait(_) => (RefusedCode::Busy, "another agent of this node may still be there: try again"),
            clones::Verdict::Later => {
                (RefusedCode::Busy, "the board that was this node may come back first: try again")
            }
            clones::Verdict::Clone => (RefusedCode::Clone, CLONE),
        };
        refuse(opening, refused.0, refused.1);
        entry.waiting = None;
        None
    }

    /// Opens the session of the agent that waits for it.
    async fn enter(&mut self, node: NodeId) {
        let now = self.clock.now();
        let Some(entry) = self.nodes.get_mut(&node) else { return };
        let Some((session, opening, _)) = entry.waiting.take() else { return };
        let Opening { asker, heartbeat, enter, end: stop } = opening;
        if enter.try_send(()).is_err() {
            // It has gone meanwhile.
            return;
        }
        end(entry, RefusedCode::Replaced, "a newer session of this node took over");
        entry.link.opens();
        entry.agents.opened(asker.boot, now.mono);
        entry.session = Some((session, stop));
        entry.heartbeat = heartbeat;
        // What it holds is not known before its full report: no new tasks until then.
        link(&self.store, node, NodeLink::Open).await;
        let was_ready = self.store.view().seen.node(node).is_some_and(|seen| seen.ready);
        if was_ready {
            see(&self.store, node, SeenNode { ready: false, at: now.wall }).await;
        }
    }

    fn current(&mut self, node: NodeId, session: SessionId) -> Option<&mut Entry> {
        self.nodes.get_mut(&node).filter(|entry| entry.session.as_ref().is_some_and(|(id, _)| *id == session))
    }

    /// Nodes whose session has fallen silent for good while another of their agents waits that may be their board: that
    /// one takes over, and there is nobody to write off.
    fn succeeded(&self, now: Mono) -> Vec<NodeId> {
        let is_silent = |entry: &Entry| {
            let verdict = entry.link.judge(entry.heartbeat, now);
            entry.session.is_some() && verdict == Verdict::Down(Cause::Heartbeat)
        };
        let follows = |node: NodeId, entry: &Entry| {
            let asker = entry.waiting.as_ref().map(|(_, opening, _)| opening.asker);
            asker.is_some_and(|asker| !entry.agents.is_kept_out(asker, self.known(node), now))
        };
        let succeeded = self.nodes.iter().filter(|(node, entry)| is_silent(entry) && follows(**node, entry));
        succeeded.map(|(node, _)| *node).collect()
    }

    /// Writes off who is gone; when to look again.
    async fn judge_all(&mut self) -> Option<Mono> {
        let now = self.clock.now();
        let view = self.store.view();
        let period = heartbeat(&view);
        let mut next: Option<Mono> = None;
        for node in self.succeeded(now.mono) {
            self.enter(node).await;
        }
        let waiting: Vec<NodeId> =
            self.nodes.iter().filter(|(_, entry)| entry.waiting.is_some()).map(|(node, _)| *node).collect();
        for node in waiting {
            next = [next, self.consider(node).await].into_iter().flatten().min();
        }
        for (&node, entry) in &mut self.nodes {
            let without_agent = node == self.own && !entry.link.was_open();
            if without_agent || entry.written_off && entry.session.is_none() {
                continue;
            }
            // A session that began under another period keeps to it: a new one tells the agent.
            if entry.session.is_some() && entry.heartbeat != period {
                end(entry, RefusedCode::Busy, "the cluster's heartbeat period changed: open a new session");
                // If its board was not let in yet it will not be: it has as long as one that was.
                entry.link.welcomed(now.mono);
            }
            match entry.link.judge(entry.heartbeat, now.mono) {
                Verdict::Alive(until) | Verdict::Suspect(until) => {
                    next = Some(next.map_or(until, |at| at.min(until)));
                }
                Verdict::Down(cause) => {
                    if view.seen.link(node) == Some(NodeLink::Open) {
                        link(&self.store, node, NodeLink::Lost(now.mono)).await;
                    }
                    end(entry, RefusedCode::Busy, "the manager had not heard from this node for too long");
                    entry.session = None;
                    if entry.written_off {
                        // It opened a session and fell silent before its report.
                        continue;
                    }
                    let written_off = WrittenOff { at: now.wall, reason: cause.text().to_owned() };
                    log::warn!("node {node} is down: {}", cause.text());
                    match self.store.commit(now.wall, vec![Change::NodeWriteOff { node, written_off }]).await {
                        Ok(_) => entry.written_off = true,
                        Err(error) => {
                            log::warn!("node {node} could not be written off yet: {error}");
                            let again = now.mono + Duration::from_secs(1);
                            next = Some(next.map_or(again, |at| at.min(again)));
                        }
                    }
                    see(&self.store, node, SeenNode { ready: false, at: now.wall }).await;
                }
            }
        }
        next
    }
}

/// What a removed node is told.
const REMOVED: &str = "this node was removed from the cluster: join it again";
const NO_MEMBER: &str = "this node is not a member of the cluster: join it again";
/// What the less likely of two agents is told.
const TWO: &str = "another agent of this node asks, too: try again";
/// What the second of two boards with one key is told.
const CLONE: &str = "another board with the same key is in the cluster: this one's card is a copy. To give this board an \
                     identity of its own, stop its agent, run `pi-agent reset-identity`, then `pi-agent join`";

/// Tasks with a lease are replaced by it.
async fn link(store: &Store, node: NodeId, link: NodeLink) {
    store.observe(vec![Observation::Link { node, link }]).await;
}

async fn see(store: &Store, node: NodeId, seen: SeenNode) {
    store.observe(vec![Observation::Node { node, seen }]).await;
}

/// How often agents are to send a heartbeat.
pub(super) fn heartbeat(view: &View) -> Duration {
    view.state.cluster().map_or_else(|| ClusterSpec::default().heartbeat(), |cluster| cluster.spec.heartbeat())
}

fn refuse(opening: &Opening, code: RefusedCode, reason: &str) {
    // It may have gone meanwhile.
    let _ = opening.end.try_send(Refused { code, reason: reason.to_owned() });
}

fn end(entry: &mut Entry, code: RefusedCode, reason: &str) {
    if let Some((_, stop)) = entry.session.take() {
        let _ = stop.try_send(Refused { code, reason: reason.to_owned() });
    }
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
