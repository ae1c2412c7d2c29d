//! Boards and their agents: the real `Board` core under a shell that does what `app.rs` and `link/` do.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use racimo_agent::board::{Board as Core, Order};
use racimo_agent::net::table::Table;
use racimo_agent::task::{Done, Found, Op, Task};
use racimo_agent::{limits, report};
use racimo_common::id::{NodeId, TaskId};
use racimo_common::object::{NodeDescription, TaskState};
use racimo_common::time::{Mono, Now};
use racimo_common::wire::{
    Assign, BoardId, Hello, RefusedCode, ToAgent, ToManager, Trusts, VERSION, VERSION_MIN, Work,
};

use crate::net::ConnId;
use crate::runtime::{Effect, Runtime};
use crate::sim::{Bug, Happening, Sim};

/// How often agents send a heartbeat: the manager's default.
const HEARTBEAT: Duration = Duration::from_secs(1);

type Listing = Vec<(TaskId, Found, Option<Duration>)>;

/// What the agent's main loop waits for.
#[derive(Debug)]
pub(crate) enum Input {
    /// containerd is there (again).
    Connected,
    Exited {
        task: TaskId,
        status: u32,
        oom: bool,
    },
    Done {
        task: TaskId,
        token: u64,
        done: Done,
    },
    Listed {
        before: Vec<TaskId>,
        containers: Listing,
    },
    /// The board's timer; void if another was set.
    Tick(Mono),
}

/// What the agent's link does next.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LinkStep {
    Dial,
    /// The way to the manager was found; or not.
    Connect(bool),
    /// Send a heartbeat, look whether the manager is silent.
    Beat,
}

/// A physical board.
#[derive(Debug)]
pub(crate) struct Board {
    pub(crate) index: usize,
    /// Its identity on disk; none: it is no member.
    pub(crate) node: Option<NodeId>,
    pub(crate) description: Arc<NodeDescription>,
    pub(crate) powered: bool,
    pub(crate) runtime: Runtime,
    pub(crate) agent: Option<Agent>,
    /// Its agent's lives.
    pub(crate) boot: u64,
    /// How wrong its clock is, seconds.
    pub(crate) clock_off: i64,
    /// Its journal, on the disk.
    pub(crate) journal: Vec<(TaskId, Rc<Work>)>,
}

#[derive(Debug)]
pub(crate) struct Agent {
    core: Core,
    /// What it was told about the network.
    pub(crate) table: Table,
    /// The operation in flight of each task.
    ops: BTreeMap<TaskId, u64>,
    next_token: u64,
    link: Link,
    /// Where reports go.
    out: Option<ConnId>,
    is_reported: bool,
    has_set: bool,
    is_removed: bool,
    timer: Option<Mono>,
    /// When it goes by the journal, unless a session brings a set before; and the same while there is no session.
    recall_after: Option<Mono>,
    recall_at: Option<Mono>,
    /// Whether its tasks are known, and those at the last look.
    known: Option<u128>,
    /// When the journal is to be written.
    save_at: Option<Mono>,
    /// It went by the journal, and has had no set since.
    pub(crate) is_on_its_own: bool,
}

#[derive(Debug)]
struct Link {
    conn: Option<ConnId>,
    /// Welcome came.
    open: bool,
    heard: Mono,
    pause: Duration,
    /// Steps of earlier turns are void.
    turn: u64,
    /// When something was said that the manager answered.
    answered: Mono,
    /// When Hello was said.
    hello: Mono,
}

impl Board {
    pub(crate) fn new(index: usize, description: NodeDescription) -> Self {
        Self {
            index,
            node: None,
            description: Arc::new(description),
            powered: true,
            runtime: Runtime::default(),
            agent: None,
            boot: 0,
            clock_off: 0,
            journal: Vec::new(),
        }
    }

    fn clock(&self, sim: &Sim) -> Now {
        sim.clock(self.clock_off)
    }

    /// The agent's process is gone; containers stay.
    pub(crate) fn kill_agent(&mut self, sim: &mut Sim) {
        let Some(agent) = self.agent.take() else { return };
        self.boot += 1;
        sim.note(format_args!("board {}: its agent dies", self.index));
        if let Some(conn) = agent.link.conn {
            sim.send_up(conn, None);
        }
    }

    pub(crate) fn start_agent(&mut self, sim: &mut Sim) {
        if !self.powered || self.agent.is_some() {
            return;
        }
        self.boot += 1;
        sim.note(format_args!("board {}: its agent starts, {} containers", self.index, self.runtime.containers.len()));
        let link = Link {
            conn: None,
            open: false,
            heard: sim.now,
            pause: limits::DIAL_PAUSE.0,
            turn: 0,
            answered: sim.now,
            hello: sim.now,
        };
        let recall_at = Some(sim.now + limits::OFFLINE_AFTER).filter(|_| !self.journal.is_empty());
        self.agent = Some(Agent {
            core: Core::new(limits::TASKS_MAX),
            table: Table::default(),
            ops: BTreeMap::new(),
            next_token: 0,
            link,
            out: None,
            is_reported: false,
            has_set: false,
            is_removed: false,
            timer: None,
            recall_after: recall_at,
            recall_at,
            known: None,
            save_at: None,
            is_on_its_own: false,
        });
        if !self.runtime.away {
            self.connected(sim);
        }
        self.link_after(sim, Duration::ZERO, LinkStep::Dial);
    }

    /// containerd answers the agent.
    pub(crate) fn connected(&mut self, sim: &mut Sim) {
        let what = Happening::Agent { board: self.index, boot: self.boot, input: Input::Connected };
        sim.within(1..100, what);
    }

    // ---- the link

    fn link_after(&mut self, sim: &mut Sim, span: Duration, step: LinkStep) {
        let Some(agent) = &mut self.agent else { return };
        agent.link.turn += 1;
        let turn = agent.link.turn;
        sim.after(span, Happening::Link { board: self.index, boot: self.boot, turn, step });
    }

    pub(crate) fn link(&mut self, sim: &mut Sim, boot: u64, turn: u64, step: LinkStep, manager: bool) {
        let Some(agent) = self.agent.as_mut().filter(|agent| boot == self.boot && agent.link.turn == turn) else {
            return;
        };
        match step {
            LinkStep::Dial => {
                if self.node.is_none() {
                    return self.link_after(sim, limits::IDENTITY_EVERY, LinkStep::Dial);
                }
                let reaches = sim.net.reaches(self.index);
                let span = if reaches { sim.latency() * 3 } else { limits::DIAL_MAX };
                self.link_after(sim, span, LinkStep::Connect(reaches));
            }
            LinkStep::Connect(reached) => {
                if !(reached && manager && sim.net.reaches(self.index)) {
                    return self.dial_again(sim, None);
                }
                let conn = sim.net.connect(self.index, self.node);
                (agent.link.conn, agent.link.open, agent.link.heard) = (Some(conn), false, sim.now);
                let description = (*self.description).clone();
                let (versions, boot) = ((VERSION_MIN, VERSION), self.boot);
                let hello = Hello { versions, boot, description, trusts: Trusts::default(), board: BoardId::default() };
                agent.link.hello = sim.now;
                sim.send_up(conn, Some(ToManager::Hello(hello)));
                self.link_after(sim, HEARTBEAT, LinkStep::Beat);
            }
            LinkStep::Beat => {
                let Some(conn) = agent.link.conn else { return };
                if sim.now.since(agent.link.heard) >= limits::MANAGER_SILENCE_MAX {
                    sim.note(format_args!("board {}: the manager is silent", self.index));
                    return self.hang_up(sim, None);
                }
                if agent.link.open {
                    sim.send_up(conn, Some(ToManager::Heartbeat(sim.now.nanos())));
                }
                self.link_after(sim, HEARTBEAT, LinkStep::Beat);
            }
        }
    }

    /// The session is over: say so to the board, dial again.
    fn hang_up(&mut self, sim: &mut Sim, wait: Option<Duration>) {
        let Some(agent) = &mut self.agent else { return };
        if let Some(conn) = agent.link.conn.take() {
            sim.send_up(conn, None);
        }
        if std::mem::take(&mut agent.link.open) {
            agent.link.pause = limits::DIAL_PAUSE.0;
            agent.hears();
            agent.out = None;
            agent.core.closed();
            // One that brought no set was as good as none.
            if !agent.has_set && agent.known.is_none() {
                agent.recall_at = agent.recall_after;
            }
        }
        self.dial_again(sim, wait);
        self.turn(sim);
    }

    fn dial_again(&mut self, sim: &mut Sim, wait: Option<Duration>) {
        let Some(agent) = &mut self.agent else { return };
        let jitter = 0.5 + sim.rng.f64() / 2.0;
        let pause = wait.unwrap_or(agent.link.pause).mul_f64(jitter);
        agent.link.pause = (agent.link.pause * 2).min(limits::DIAL_PAUSE.1);
        self.link_after(sim, pause, LinkStep::Dial);
    }

    /// Something came down a connection; `None` is its end.
    pub(crate) fn receive(&mut self, sim: &mut Sim, conn: ConnId, message: Option<ToAgent>) {
        let Some(agent) = &mut self.agent else { return };
        if agent.link.conn != Some(conn) {
            if let (Some(ToAgent::Assign(part)), true) = (message, sim.has(Bug::StaleSession)) {
                let part = Assign { from: agent.core.index(), ..part };
                self.assign(sim, part);
            }
            return;
        }
        agent.link.heard = sim.now;
        match message {
            None => self.hang_up(sim, None),
            Some(ToAgent::Pong(said)) => agent.link.answered = Mono::from_nanos(said),
            Some(
                ToAgent::LogsOpen(_)
                | ToAgent::LogsMore { .. }
                | ToAgent::LogsClose { .. }
                | ToAgent::Renew
                | ToAgent::Certified(_)
                | ToAgent::Roots(_)
                | ToAgent::Managers(_),
            ) => {}
            Some(ToAgent::Welcome(_)) => {
                agent.link.open = true;
                agent.link.answered = agent.link.hello;
                agent.recall_at = None;
                agent.core.session();
                agent.table.session();
                let reported = sim.has(Bug::ReportDropped) && agent.is_reported;
                (agent.is_reported, agent.has_set, agent.is_removed) = (reported, false, false);
                agent.out = Some(conn);
                self.turn(sim);
            }
            Some(ToAgent::Net(net)) => agent.table.take(net),
            Some(ToAgent::Assign(part)) => self.assign(sim, part),
            Some(ToAgent::Refused(refused)) => {
                sim.note(format_args!("board {}: refused: {}", self.index, refused.reason));
                let wait = match refused.code {
                    RefusedCode::NotMember => {
                        agent.is_removed = true;
                        agent.core.forget_all();
                        (agent.recall_after, agent.recall_at, agent.known, agent.save_at) = (None, None, None, None);
                        self.journal.clear();
                        Some(limits::REMOVED_PAUSE)
                    }
                    RefusedCode::Replaced => Some(limits::DIAL_PAUSE.1),
                    RefusedCode::Clone => return sim.fail(format_args!("board {} is refused as a clone", self.index)),
                    RefusedCode::Busy
                    | RefusedCode::Protocol
                    | RefusedCode::Token
                    | RefusedCode::Version
                    | RefusedCode::Expired => None,
                };
                self.hang_up(sim, wait);
                self.turn(sim);
            }
            Some(ToAgent::Joined(_)) => sim.fail(format_args!("Joined inside a session")),
        }
    }

    // ---- the main loop

    fn assign(&mut self, sim: &mut Sim, part: Assign) {
        let now = self.clock(sim);
        let Some(agent) = &mut self.agent else { return };
        let before = agent.core.index();
        sim.note(format_args!(
            "board {}: assign {}..{} {:?} -{:?}",
            self.index,
            part.from,
            part.to,
            part.tasks.iter().map(|a| (a.task, a.desired)).collect::<Vec<_>>(),
            part.removed
        ));
        match agent.core.assign(part, now) {
            Ok(whole) => {
                agent.has_set |= whole;
                agent.is_on_its_own &= !whole;
            }
            Err(gap) => {
                sim.note(format_args!("board {}: {gap}", self.index));
                self.hang_up(sim, None);
            }
        }
        let after = self.agent.as_ref().map_or(before, |agent| agent.core.index());
        if after < before {
            sim.fail(format_args!("board {} goes back from index {before} to {after}", self.index));
        }
        self.turn(sim);
    }

    pub(crate) fn input(&mut self, sim: &mut Sim, boot: u64, input: Input) {
        let now = self.clock(sim);
        let Some(agent) = self.agent.as_mut().filter(|_| boot == self.boot) else { return };
        match input {
            Input::Connected => {
                if self.runtime.away {
                    return;
                }
                let (before, containers) = (agent.core.running(), self.runtime.listing());
                let input = Input::Listed { before, containers };
                return sim.within(1..150, Happening::Agent { board: self.index, boot, input });
            }
            Input::Exited { task, status, oom } => {
                sim.note(format_args!("board {}: {task} exited with {status}", self.index));
                agent.core.exited(task, status, oom, now);
            }
            Input::Done { task, token, done } => {
                if agent.ops.get(&task) != Some(&token) {
                    return;
                }
                agent.ops.remove(&task);
                sim.note(format_args!("board {}: {task} {done:?}", self.index));
                agent.core.done(task, done, now);
            }
            Input::Listed { before, containers } if agent.core.is_listed() => {
                agent.core.listed(&before, &containers, now);
            }
            Input::Listed { containers, .. } => {
                for task in agent.core.adopt(&containers, now) {
                    sim.fail(format_args!("board {}: no room for {task}", self.index));
                }
            }
            Input::Tick(at) => {
                if agent.timer != Some(at) {
                    return;
                }
                agent.timer = None;
            }
        }
        self.turn(sim);
    }

    /// One turn of the loop: start what is due, report what is new, set the timer.
    fn turn(&mut self, sim: &mut Sim) {
        let now = self.clock(sim);
        let Some(agent) = &mut self.agent else { return };
        if !sim.has(Bug::NoLease) {
            agent.hears();
        } else {
            agent.core.heard(sim.now);
        }
        let mut lists = false;
        for order in agent.core.orders(now) {
            match order {
                Order::Begin(task, op) => {
                    let held = agent.core.task(task);
                    lists |= held.is_some_and(Task::is_stuck);
                    let work = held.and_then(|task| task.work().cloned());
                    begin(sim, &self.runtime, (self.index, self.boot), agent, (task, op, work));
                }
                Order::Cancel(task) => {
                    if agent.ops.remove(&task).is_some() {
                        agent.core.done(task, Done::Cancelled, now);
                    }
                }
                // Not by containerd.
                Order::Kill(task) => self.runtime.kill(sim, self.index, task),
            }
        }
        if lists {
            sim.within(1..100, Happening::Agent { board: self.index, boot: self.boot, input: Input::Connected });
        }
        let journal_at = agent.look_at_journal(sim, self.index, now, &mut self.journal);
        let wake = [agent.core.wake_at(), journal_at].into_iter().flatten().min().map(|at| at.max(now.mono));
        if let Some(at) = wake.filter(|_| wake != agent.timer) {
            sim.at(at, Happening::Agent { board: self.index, boot: self.boot, input: Input::Tick(at) });
        }
        agent.timer = wake;
        self.flush(sim);
    }

    fn flush(&mut self, sim: &mut Sim) {
        let Some(agent) = &mut self.agent else { return };
        let Some(out) = agent.out.filter(|_| agent.has_set && agent.core.is_listed()) else { return };
        let complete = !agent.is_reported;
        if complete && agent.core.has_strays() {
            return;
        }
        let tasks = if complete { agent.core.full_report() } else { agent.core.reports() };
        // With the bug, the first report of a session pretends to be complete.
        if tasks.is_empty() && !complete {
            return;
        }
        agent.is_reported = true;
        let complete = complete || sim.has(Bug::ReportDropped);
        let states: Vec<_> = tasks.iter().map(|report| (report.task, report.state)).collect();
        sim.note(format_args!("board {}: reports {states:?}", self.index));
        for (task, state) in states {
            if state == TaskState::Running && self.runtime.is_unproven(task) {
                sim.fail(format_args!("board {} says that {task} runs before it is healthy", self.index));
            }
        }
        for status in report::messages(tasks, complete, agent.core.index()) {
            sim.send_up(out, Some(ToManager::Status(status)));
        }
    }

    /// An operation takes effect. A pull dies with the agent or when it is given up; what was asked of containerd may
    /// still be done when the agent is dead.
    pub(crate) fn effect(&mut self, sim: &mut Sim, boot: u64, effect: &Effect) {
        let live =
            boot == self.boot && self.agent.as_ref().is_some_and(|a| a.ops.get(&effect.task) == Some(&effect.token));
        if !self.powered || !live && (effect.op == Op::Prepare || self.agent.is_some()) {
            return;
        }
        let ran = self.runtime.runs(effect.task);
        let done = self.runtime.perform(sim, self.index, effect);
        if self.runtime.runs(effect.task) && !ran {
            let (task, node, board) = (effect.task, self.node, self.index);
            sim.note(format_args!("board {board}: {task} runs"));
            if let Some(wrong) = sim.model.starts(task, node) {
                sim.fail(format_args!("board {board} starts {task}: {wrong}"));
            }
        }
        let input = Input::Done { task: effect.task, token: effect.token, done };
        sim.within(0..20, Happening::Agent { board: self.index, boot, input });
    }

    pub(crate) fn exit(&mut self, sim: &mut Sim, task: TaskId, pid: u32, status: u32, own: bool) {
        let input = self.runtime.exit(task, pid, status, own, sim.calm);
        if let Some(input) = input.filter(|_| self.agent.is_some()) {
            sim.within(1..60, Happening::Agent { board: self.index, boot: self.boot, input });
        }
    }
}

impl Agent {
    /// Tasks with a lease run on, as the manager was there.
    fn hears(&mut self) {
        if self.has_set && self.out.is_some() {
            self.core.heard(self.link.answered);
        }
    }

    /// As in `app/offline.rs`: writes the journal, or goes by it; when to look again.
    fn look_at_journal(
        &mut self,
        sim: &mut Sim,
        board: usize,
        now: Now,
        journal: &mut Vec<(TaskId, Rc<Work>)>,
    ) -> Option<Mono> {
        if self.core.is_listed() && self.recall_at.take_if(|at| *at <= now.mono).is_some() {
            let begun = self.core.recall(journal.clone(), now);
            sim.note(format_args!("board {board}: goes by its journal, begins {begun} tasks"));
            sim.model.recalls += 1;
            (self.known, self.is_on_its_own) = (Some(self.core.mark()), true);
            // What it begins is begun in the next turn.
            return Some(now.mono);
        }
        if self.has_set && self.known.is_none() {
            (self.known, self.save_at) = (Some(0), Some(now.mono + limits::JOURNAL_AFTER));
        }
        if let Some(known) = self.known.filter(|_| !self.is_removed) {
            let mark = self.core.mark();
            if mark != known {
                let at = now.mono + limits::JOURNAL_AFTER;
                self.save_at = Some(self.save_at.map_or(at, |known| known.min(at)));
            }
            self.known = Some(mark);
            if self.save_at.take_if(|at| *at <= now.mono).is_some() {
                *journal = self.core.kept();
            }
        } else {
            self.save_at = None;
        }
        let recall_at = self.recall_at.filter(|_| self.core.is_listed());
        [recall_at, self.save_at].into_iter().flatten().min()
    }
}

fn begin(
    sim: &mut Sim,
    runtime: &Runtime,
    (board, boot): (usize, u64),
    agent: &mut Agent,
    (task, op, work): (TaskId, Op, Option<Rc<Work>>),
) {
    agent.next_token += 1;
    let token = agent.next_token;
    agent.ops.insert(task, token);
    let span = runtime.takes(sim, op, work.as_deref());
    sim.after(span, Happening::Effect { board, boot, effect: Effect { task, op, token, work } });
}
