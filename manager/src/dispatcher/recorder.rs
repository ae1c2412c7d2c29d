//! What a session's board says, on its way into the store.

use std::time::Duration;

use async_channel::{Receiver, RecvError};
use futures_lite::future::or;
use log::Level;
use racimo_common::id::NodeId;
use racimo_common::object::{BoardHealth, NodeDescription};
use racimo_common::time::Mono;
use racimo_common::wire::{Refused, RefusedCode, Status};

use super::hub::{SessionId, Sign};
use super::session::End;
use super::{Context, report};
use crate::limits;
use crate::store::{Change, CommitError, Observation};

/// How often a node that is not clean yet is looked at again.
const CLEAN_AGAIN: Duration = Duration::from_secs(1);
/// How often a commit that met a newer state is tried again.
const RETRIES: usize = 3;

/// What the store is to know.
pub(super) enum News {
    Status(Status),
    Description(Box<NodeDescription>),
    Health(Box<BoardHealth>),
}

/// Brings what the agent says into the store.
pub(super) struct Recorder<'a> {
    context: &'a Context,
    node: NodeId,
    session: SessionId,
    addr: &'a str,
    standing: Standing,
    /// The board's last description, and when it may be stored.
    held: Option<(NodeDescription, Mono)>,
    /// From when on it may say again how it is.
    health_from: Option<Mono>,
}

/// How far the session has made its node ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Its complete report, made at this index or later, is still to come.
    Unheard { at: u64 },
    /// It was written off, and has not yet stopped what was replaced meanwhile.
    Unclean,
    /// It counts.
    Ready,
}

impl<'a> Recorder<'a> {
    /// For a session that begins now.
    pub(super) fn new(context: &'a Context, node: NodeId, session: SessionId, addr: &'a str) -> Self {
        let standing = Standing::Unheard { at: context.store.view().version() };
        Self { context, node, session, addr, standing, held: None, health_from: None }
    }

    /// Runs as long as the session.
    pub(super) async fn run(mut self, news: Receiver<News>) -> Result<(), End> {
        loop {
            match self.next(&news).await {
                Some(Ok(News::Status(status))) => self.status(status).await?,
                Some(Ok(News::Description(description))) => self.describe(*description).await?,
                Some(Ok(News::Health(health))) => self.health(*health).await,
                Some(Err(_)) => return Ok(()),
                None => self.look_again().await?,
            }
        }
    }

    /// The next news; `None`: it is time to look whether the node is clean, as its last unwanted task may have been
    /// given up without a report, or to store what was held back.
    async fn next(&self, news: &Receiver<News>) -> Option<Result<News, RecvError>> {
        let look = async {
            match self.standing {
                Standing::Unclean => smol::Timer::after(CLEAN_AGAIN).await,
                Standing::Unheard { .. } | Standing::Ready => std::future::pending().await,
            };
            None
        };
        let store = async {
            match &self.held {
                Some((_, at)) => smol::Timer::at(self.context.clock.instant(*at)).await,
                None => std::future::pending().await,
            };
            None
        };
        or(async { Some(news.recv().await) }, or(look, store)).await
    }

    async fn look_again(&mut self) -> Result<(), End> {
        let now = self.context.clock.now().mono;
        if let Some((description, _)) = self.held.take_if(|(_, at)| *at <= now) {
            self.describe(description).await?;
        }
        match self.standing {
            Standing::Unclean => self.admit().await,
            Standing::Unheard { .. } | Standing::Ready => Ok(()),
        }
    }

    /// Stores a description, or holds it until the board may cause a write again; a newer one takes its place.
    async fn describe(&mut self, description: NodeDescription) -> Result<(), End> {
        self.held = match describe(self.context, self.node, description, self.addr).await? {
            Described::Done => None,
            Described::Later(description, wait) => Some((*description, self.context.clock.now().mono + wait)),
        };
        Ok(())
    }

    /// Keeps it in memory, in place of what the board said before; one that comes too soon is passed over.
    async fn health(&mut self, health: BoardHealth) {
        let now = self.context.clock.now().mono;
        if self.health_from.is_none_or(|from| from <= now) {
            self.health_from = Some(now + limits::HEALTH_PAUSE_MIN);
            let health = Some(health.into());
            self.context.store.observe(vec![Observation::Health { node: self.node, health }]).await;
        }
    }

    async fn status(&mut self, status: Status) -> Result<(), End> {
        let Status { complete, last, index, tasks } = status;
        self.commit_ends(tasks).await?;
        match self.standing {
            Standing::Unheard { at } if complete && last && index >= at => self.admit().await,
            Standing::Unclean => self.admit().await,
            Standing::Unheard { .. } | Standing::Ready => Ok(()),
        }
    }

    /// The node has reported everything: it counts, once it is clean if it was written off.
    async fn admit(&mut self) -> Result<(), End> {
        let view = self.context.store.view();
        if view.state.node(self.node).is_some_and(|node| node.written_off.is_some()) {
            if !report::is_clean(&view, self.node) {
                self.standing = Standing::Unclean;
                return Ok(());
            }
            if self.context.writes.take(self.node, self.context.clock.now().mono).is_err() {
                self.context.notes.say(
                    Level::Warn,
                    self.node,
                    "comes back too often",
                    format_args!("node {} goes and comes too often: it stays down for a while", self.node),
                );
                self.standing = Standing::Unclean;
                return Ok(());
            }
            let change = Change::NodeReadmit { node: self.node };
            match self.context.store.commit(self.context.clock.now().wall, vec![change]).await {
                Ok(_) => {
                    self.context.notes.say(
                        Level::Info,
                        self.node,
                        "node is back",
                        format_args!("node {} is back", self.node),
                    );
                }
                Err(CommitError::Stopped) => return Err(End::Stopped),
                Err(error) => {
                    log::warn!("node {} could not be readmitted: {error}", self.node);
                    let reason = error.to_string();
                    return Err(End::Refused(Refused { code: RefusedCode::Busy, reason }));
                }
            }
        }
        self.standing = Standing::Ready;
        let sign = Sign::Ready { node: self.node, session: self.session };
        if self.context.hub.tell(sign).await { Ok(()) } else { Err(End::Stopped) }
    }

    /// Publishes what is observed and commits what ended; a change that met a newer state is judged again.
    async fn commit_ends(&self, mut reports: Vec<racimo_common::object::TaskReport>) -> Result<(), End> {
        for _ in 0..RETRIES {
            let now = self.context.clock.now().wall;
            let again = reports.clone();
            let meaning = report::read(&self.context.store.view(), self.node, reports, now);
            if meaning.foreign > 0 {
                let text =
                    format_args!("node {} reported {} tasks of other nodes: dropped", self.node, meaning.foreign);
                self.context.notes.say(Level::Warn, self.node, "foreign tasks", text);
            }
            if !meaning.observations.is_empty() {
                self.context.store.observe(meaning.observations).await;
            }
            if meaning.changes.is_empty() {
                return Ok(());
            }
            match self.context.store.commit(now, meaning.changes).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Refused(_)) => reports = again,
                Err(CommitError::Stopped) => return Err(End::Stopped),
                Err(error @ (CommitError::Full | CommitError::TooLarge)) => {
                    // The agent keeps what is not acknowledged by its removal from the set, and reports it again.
                    let reason = error.to_string();
                    return Err(End::Refused(Refused { code: RefusedCode::Busy, reason }));
                }
            }
        }
        self.context.notes.say(
            Level::Warn,
            self.node,
            "ends met a newer state",
            format_args!("ends reported by node {} met a newer state {RETRIES} times", self.node),
        );
        Err(End::Refused(Refused { code: RefusedCode::Busy, reason: "the store is busy".to_owned() }))
    }
}

/// What became of a description.
pub(super) enum Described {
    /// The store has it, or cannot take it.
    Done,
    /// The board has used up its writes: to be stored after this pause.
    Later(Box<NodeDescription>, Duration),
}

/// Stores the board's description if it differs. `addr`: where it comes from; empty: as before.
pub(super) async fn describe(
    context: &Context,
    node: NodeId,
    description: NodeDescription,
    addr: &str,
) -> Result<Described, End> {
    let view = context.store.view();
    let Some(known) = view.state.node(node) else { return Ok(Described::Done) };
    let addr = if addr.is_empty() { &known.addr } else { addr };
    if *known.description == description && known.addr == addr {
        return Ok(Described::Done);
    }
    if let Err(wait) = context.writes.take(node, context.clock.now().mono) {
        context.notes.say(
            Level::Warn,
            node,
            "too many descriptions",
            format_args!("node {node} says something else of itself too often: stored later"),
        );
        return Ok(Described::Later(Box::new(description), wait));
    }
    let change = Change::NodeDescribe { node, description: description.into(), addr: addr.to_owned() };
    match context.store.commit(context.clock.now().wall, vec![change]).await {
        Ok(_) => {
            let state = &context.store.view().state;
            if let Some(hidden) = state.node(node).and_then(|node| state.hidden_by(node)) {
                context.notes.say(
                    Level::Warn,
                    node,
                    "hidden address",
                    format_args!("node {node}: {hidden}: remove the network, or give the board another address"),
                );
            }
            Ok(Described::Done)
        }
        Err(CommitError::Refused(_)) => Ok(Described::Done),
        Err(CommitError::Stopped) => Err(End::Stopped),
        Err(error @ (CommitError::Full | CommitError::TooLarge)) => {
            context.notes.say(
                Level::Warn,
                node,
                "description not stored",
                format_args!("the description of node {node} was not stored: {error}"),
            );
            Ok(Described::Done)
        }
    }
}
