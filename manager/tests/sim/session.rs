//! What `dispatcher/session.rs` does: one agent's session on the manager's side.

use std::collections::{BTreeSet, VecDeque};

use racimo_common::id::{NodeId, TaskId};
use racimo_common::object::{Desired, TaskReport, TaskState};
use racimo_common::time::Wall;
use racimo_common::wire::{Hello, Refused, RefusedCode, Status, ToAgent, ToManager, VERSION, Welcome};
use racimo_manager::dispatcher::clones::Asker;
use racimo_manager::dispatcher::{assign, net, report};
use racimo_manager::store::{Batch, Change, CommitError, Ended};
use racimo_manager::vault::Vault;

use crate::hub::Sign;
use crate::manager::{Manager, Waiter, Watcher};
use crate::net::ConnId;
use crate::sim::{Bug, Happening, Sim};

/// As in the session's shell.
const PAUSE_MS: u64 = 10;
const RETRIES: usize = 3;

/// What the recorder waits for.
enum Recorder {
    /// The next status.
    Free,
    /// The hub's word; then the description is stored.
    Entering(Box<Hello>),
    /// The description is being stored; then the session opens.
    Describing,
    /// Ends are being committed.
    Ends { again: Vec<TaskReport>, tries: usize, complete: bool },
    /// The node is being readmitted.
    Readmitting,
}

pub(crate) struct Session {
    conn: ConnId,
    node: NodeId,
    inbox: VecDeque<Status>,
    recorder: Recorder,
    /// The connection has ended.
    closing: bool,
    /// The index at which a complete report counts; `None` once one came.
    ready_at: Option<u64>,
    /// A complete report came, but the node has tasks to stop first.
    unclean: bool,
    told: net::Told,
    sent: assign::Sent,
    at: u64,
    assigner: Assigner,
}

/// What the assigner does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Assigner {
    /// It has not begun.
    Closed,
    /// It waits for its alarm.
    Waits,
    /// Its alarm rang.
    Rung,
    /// It has just told its board something.
    Pauses,
    /// The same, and its alarm rang.
    PausesRung,
}

fn busy(reason: impl ToString) -> Refused {
    Refused { code: RefusedCode::Busy, reason: reason.to_string() }
}

impl Manager {
    pub(crate) fn session_of(&self, conn: ConnId) -> Option<u64> {
        self.sessions.iter().find(|(_, session)| session.conn == conn).map(|(id, _)| *id)
    }

    /// Something came up a connection; `None` is its end. `node`: whose certificate was shown.
    pub(crate) fn receive(&mut self, sim: &mut Sim, conn: ConnId, node: Option<NodeId>, message: Option<ToManager>) {
        match (self.session_of(conn), message) {
            (None, Some(ToManager::Hello(hello))) => {
                let Some(node) = node.filter(|node| self.view.state.node(*node).is_some()) else {
                    let reason = "this node is not a member of the cluster".to_owned();
                    let refused = Refused { code: RefusedCode::NotMember, reason };
                    sim.send_down(conn, Some(ToAgent::Refused(refused)));
                    return sim.send_down(conn, None);
                };
                let asker = Asker { boot: hello.boot, board: hello.board };
                let id = self.next_session;
                self.next_session += 1;
                let session = Session {
                    conn,
                    node,
                    inbox: VecDeque::new(),
                    recorder: Recorder::Entering(Box::new(hello)),
                    closing: false,
                    ready_at: None,
                    unclean: false,
                    told: net::Told::default(),
                    sent: assign::Sent::default(),
                    at: 0,
                    assigner: Assigner::Closed,
                };
                self.sessions.insert(id, session);
                self.sign(sim, node, id, Sign::Opened(asker));
            }
            (None, Some(_)) => sim.send_down(conn, None),
            (None, None) => {}
            (Some(id), message) => self.hear(sim, id, message),
        }
    }

    /// The reader: heartbeats count at once, the rest waits for the recorder.
    fn hear(&mut self, sim: &mut Sim, id: u64, message: Option<ToManager>) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let (node, conn) = (session.node, session.conn);
        match message {
            Some(ToManager::Heartbeat(number)) => {
                sim.send_down(conn, Some(ToAgent::Pong(number)));
                self.sign(sim, node, id, Sign::Heard);
                if self.sessions.get(&id).is_some_and(|s| s.unclean && matches!(s.recorder, Recorder::Free)) {
                    self.reported(sim, id, false);
                }
            }
            Some(ToManager::Status(status)) => {
                session.inbox.push_back(status);
                self.sign(sim, node, id, Sign::Heard);
                self.record(sim, id);
            }
            // What was said before the end counts.
            None => {
                session.closing = true;
                self.record(sim, id);
            }
            Some(
                ToManager::Bye { .. }
                | ToManager::Describe(_)
                | ToManager::Health(_)
                | ToManager::Join(_)
                | ToManager::Hello(_)
                | ToManager::Logs(_)
                | ToManager::Renew(_)
                | ToManager::Trusts(_),
            ) => sim.fail(format_args!("the simulated agent does not send this")),
        }
    }

    pub(crate) fn session_ends(&mut self, sim: &mut Sim, id: u64, refused: Option<Refused>) {
        let Some(session) = self.sessions.remove(&id) else { return };
        if let Some(refused) = refused {
            sim.note(format_args!("session {id} of {} ends: {}", session.node, refused.reason));
            sim.send_down(session.conn, Some(ToAgent::Refused(refused)));
        }
        sim.send_down(session.conn, None);
        self.sign(sim, session.node, id, Sign::Closed);
    }

    /// The hub lets it in.
    pub(crate) fn session_enters(&mut self, sim: &mut Sim, id: u64) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let node = session.node;
        let Recorder::Entering(hello) = std::mem::replace(&mut session.recorder, Recorder::Describing) else {
            return sim.fail(format_args!("session {id} is let in twice"));
        };
        let known = self.view.state.node(node).is_some_and(|known| *known.description == hello.description);
        if known {
            return self.session_opens(sim, id);
        }
        let addr = "board".to_owned();
        let change = Change::NodeDescribe { node, description: hello.description.into(), addr };
        self.commit(sim, vec![change], Waiter::Session(id));
    }

    fn session_opens(&mut self, sim: &mut Sim, id: u64) {
        self.directory_catches_up(sim);
        let (view, directory) = self.look.clone();
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let (node, conn) = (session.node, session.conn);
        let (nets, told) = net::complete(&directory, &view, node);
        (session.told, session.assigner) = (told, Assigner::Waits);
        let (first, sent) = assign::complete(&view, &Vault::default(), node);
        session.recorder = Recorder::Free;
        session.ready_at = Some(view.version());
        (session.sent, session.at) = (sent, view.version());
        sim.note(format_args!("session {id} of {node} opens at {}", view.version()));
        let time = Wall::default();
        let welcome = Welcome { version: VERSION, heartbeat_ms: 1000, managers: Vec::new(), node, time };
        sim.send_down(conn, Some(ToAgent::Welcome(welcome)));
        self.sign(sim, node, id, Sign::Welcomed);
        for part in nets {
            sim.send_down(conn, Some(ToAgent::Net(part)));
        }
        for part in first {
            sim.send_down(conn, Some(ToAgent::Assign(part)));
        }
        if sim.has(Bug::ReadmitAtHello) && view.state.node(node).is_some_and(|node| node.written_off.is_some()) {
            self.commit(sim, vec![Change::NodeReadmit { node }], Waiter::Nobody);
        }
        self.record(sim, id);
    }

    // ---- the assigner

    /// The directory's feed has news.
    pub(crate) fn directory_wakes(&mut self, sim: &mut Sim) {
        let Some(batch) = self.drain(sim.now, Watcher::Directory) else { return };
        self.directory_takes(sim, batch);
    }

    /// A session asks for all that is published, also what is still on its way to the directory.
    fn directory_catches_up(&mut self, sim: &mut Sim) {
        let waiting = self.feeds.get_mut(&Watcher::Directory).map(std::mem::take).unwrap_or_default();
        let resync = waiting.iter().any(|(_, batch)| batch.resync);
        let events = waiting.into_iter().flat_map(|(_, batch)| batch.events).collect();
        self.directory_takes(sim, Batch { view: self.view.clone(), events, resync });
    }

    fn directory_takes(&mut self, sim: &mut Sim, batch: Batch) {
        let (view, directory) = &mut self.look;
        *view = batch.view;
        let concerned = match batch.resync {
            true => {
                directory.look_at_all(view);
                None
            }
            false => directory.follow(view, &batch.events),
        };
        for (id, session) in &mut self.sessions {
            if concerned.as_ref().is_some_and(|nodes| !nodes.contains(&session.node)) {
                continue;
            }
            session.assigner = match session.assigner {
                Assigner::Waits => {
                    sim.within(0..2, Happening::Assigner { epoch: self.epoch, session: *id });
                    Assigner::Rung
                }
                Assigner::Pauses => Assigner::PausesRung,
                same @ (Assigner::Closed | Assigner::Rung | Assigner::PausesRung) => same,
            };
        }
    }

    /// The assigner's alarm rang, or its pause is over.
    pub(crate) fn assigner(&mut self, sim: &mut Sim, id: u64) {
        let (view, directory) = self.look.clone();
        let Some(session) = self.sessions.get_mut(&id) else { return };
        match std::mem::replace(&mut session.assigner, Assigner::Waits) {
            Assigner::Rung | Assigner::PausesRung => {}
            Assigner::Closed | Assigner::Waits | Assigner::Pauses => return,
        }
        let (node, conn) = (session.node, session.conn);
        let (nets, touched) = net::delta(&directory, &view, node, &mut session.told);
        let mut news = false;
        for part in nets {
            news = true;
            if !sim.has(Bug::NetUntold) || sim.chance(70) {
                sim.send_down(conn, Some(ToAgent::Net(part)));
            }
        }
        let stopped: BTreeSet<TaskId> = session.sent.tasks().map(|(task, _)| task).collect();
        let parts = match touched {
            true => assign::delta(&view, &Vault::default(), node, &mut session.sent, session.at),
            false => Vec::new(),
        };
        if news || !parts.is_empty() {
            session.assigner = Assigner::Pauses;
            sim.within(PAUSE_MS..PAUSE_MS + 2, Happening::Assigner { epoch: self.epoch, session: id });
        }
        if !parts.is_empty() {
            session.at = view.version();
        }
        for mut part in parts {
            if sim.has(Bug::NoRemoved) {
                part.removed.clear();
            }
            if sim.has(Bug::EndWhenTold) {
                let told = part.tasks.iter().filter(|a| a.desired >= Desired::Shutdown && stopped.contains(&a.task));
                let changes = told.map(|a| end_now(a.task)).collect::<Vec<_>>();
                if !changes.is_empty() {
                    self.commit(sim, changes, Waiter::Nobody);
                }
            }
            sim.send_down(conn, Some(ToAgent::Assign(part)));
        }
    }

    // ---- the recorder

    fn record(&mut self, sim: &mut Sim, id: u64) {
        while let Some(session) = self.sessions.get_mut(&id) {
            let Recorder::Free = session.recorder else { return };
            let Some(Status { complete, last, index, tasks }) = session.inbox.pop_front() else {
                if session.closing {
                    self.session_ends(sim, id, None);
                }
                return;
            };
            if session.ready_at.is_some() {
                sim.model.hears_anew(&self.view, session.node);
            }
            let complete = complete && last && session.ready_at.is_some_and(|at| index >= at);
            self.commit_ends(sim, id, tasks, 0, complete);
        }
    }

    fn commit_ends(&mut self, sim: &mut Sim, id: u64, reports: Vec<TaskReport>, tries: usize, complete: bool) {
        let now = self.clock(sim).wall;
        let Some(node) = self.sessions.get(&id).map(|session| session.node) else { return };
        let again = reports.clone();
        let meaning = report::read(&self.view, node, reports, now);
        if meaning.foreign > 0 {
            sim.fail(format_args!("node {node} reports tasks of other nodes"));
        }
        if !meaning.observations.is_empty() {
            self.observe(sim, meaning.observations);
        }
        if meaning.changes.is_empty() {
            return self.reported(sim, id, complete);
        }
        if let Some(session) = self.sessions.get_mut(&id) {
            session.recorder = Recorder::Ends { again, tries, complete };
        }
        self.commit(sim, meaning.changes, Waiter::Session(id));
    }

    /// A report is worked in: is the node ready now?
    fn reported(&mut self, sim: &mut Sim, id: u64, complete: bool) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.recorder = Recorder::Free;
        if complete {
            session.ready_at = None;
        }
        if !complete && !session.unclean {
            return;
        }
        let node = session.node;
        if self.view.state.node(node).is_some_and(|node| node.written_off.is_some()) {
            session.unclean = !report::is_clean(&self.view, node);
            if session.unclean {
                return;
            }
            session.recorder = Recorder::Readmitting;
            return self.commit(sim, vec![Change::NodeReadmit { node }], Waiter::Session(id));
        }
        session.unclean = false;
        self.sign(sim, node, id, Sign::Ready);
    }

    pub(crate) fn session_committed(&mut self, sim: &mut Sim, id: u64, result: Result<u64, CommitError>) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let node = session.node;
        match (std::mem::replace(&mut session.recorder, Recorder::Free), result) {
            (Recorder::Free | Recorder::Entering(_), _) => sim.fail(format_args!("session {id} waited for nothing")),
            (Recorder::Describing, _) => self.session_opens(sim, id),
            (Recorder::Ends { complete, .. }, Ok(_)) => self.reported(sim, id, complete),
            (Recorder::Ends { again, tries, complete }, Err(CommitError::Refused(_))) if tries + 1 < RETRIES => {
                self.commit_ends(sim, id, again, tries + 1, complete);
            }
            (Recorder::Ends { .. }, Err(_)) => self.session_ends(sim, id, Some(busy("the store is busy"))),
            (Recorder::Readmitting, Ok(_)) => {
                sim.note(format_args!("node {node} is back"));
                session.unclean = false;
                self.sign(sim, node, id, Sign::Ready);
            }
            (Recorder::Readmitting, Err(error)) => self.session_ends(sim, id, Some(busy(error))),
        }
        self.record(sim, id);
    }
}

/// What [`Bug::EndWhenTold`] commits.
fn end_now(task: TaskId) -> Change {
    let ended = Ended {
        state: TaskState::Shutdown,
        at: racimo_common::time::Wall::default(),
        message: "shutdown".to_owned(),
        err: None,
        container: None,
        exit_code: None,
    };
    Change::TaskEnd { task, ended }
}
