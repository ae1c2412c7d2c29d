//! One agent's session, from `Hello` to the end of its connection.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_channel::{Receiver, RecvError, Sender};
use futures_lite::future::{or, try_zip};
use futures_lite::{AsyncRead, AsyncWrite, AsyncWriteExt, io::split};
use log::Level;
use racimo_common::id::NodeId;
use racimo_common::limits::{FRAME_FROM_AGENT_MAX, FRAME_TO_AGENT_MAX, ROOTS_MAX};
use racimo_common::object::NodeDescription;
use racimo_common::time::Mono;
use racimo_common::wire::frame::{self, FrameError};
use racimo_common::wire::{
    Assign, Hello, Refused, RefusedCode, Status, ToAgent, ToManager, Trusts, VERSION, VERSION_MIN, Welcome,
};
use smol::lock::SemaphoreGuardArc;

use super::broker::Attached;
use super::certify::{self, Renewer, Word};
use super::clones::Asker;
use super::hub::{SessionId, Sign};
use super::pace::Pace;
use super::watch::{Alarm, Look};
use super::{Context, assign, net, opening, report};
use crate::ca::{self, Peer, Shown, renewal};
use crate::limits;
use crate::store::{Change, CommitError};

/// Messages that wait to be written; the parts of a set wait for each other.
const OUT_QUEUE: usize = 8;
/// How long a board is told nothing after it was told something: a change goes at once, and what follows it within this
/// time goes together. Short beside what a board needs to act on it.
const ASSIGN_PAUSE: Duration = Duration::from_millis(10);
/// Messages of an agent that wait for the store; then its heartbeats wait with them.
const NEWS_QUEUE: usize = 16;
/// How often a node that is not clean yet is looked at again.
const CLEAN_AGAIN: Duration = Duration::from_secs(1);
/// How often a commit that met a newer state is tried again.
const RETRIES: usize = 3;

static NEXT_SESSION: AtomicU64 = AtomicU64::new(1);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// The agent closed the connection.
    #[error("the agent closed the connection")]
    Closed,
    /// The agent said that it restarts, or (`leaving`) that the board leaves.
    #[error("the agent said goodbye")]
    Bye { leaving: bool },
    /// The agent broke the protocol, or the hub ended the session.
    #[error("{}", .0.reason)]
    Refused(Refused),
    /// A frame could not be read or written.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Nothing came for too long.
    #[error("nothing came within {0:?}")]
    Timeout(Duration),
    /// The agent did not take what it was sent.
    #[error("it did not take what it was sent within {0:?}")]
    Stuck(Duration),
    /// The agent came for a new certificate only, and has it.
    #[error("it has a new certificate")]
    Renewed,
    /// The manager stops.
    #[error("the manager stops")]
    Stopped,
}

impl End {
    /// What it is counted as.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Bye { .. } => "goodbye",
            Self::Refused(Refused { code, .. }) => match code {
                RefusedCode::Protocol => "broken protocol",
                RefusedCode::NotMember => "no member",
                RefusedCode::Replaced => "replaced session",
                RefusedCode::Token | RefusedCode::Version | RefusedCode::Busy => "session refused",
                RefusedCode::Expired => "expired certificate",
                RefusedCode::Clone => "clone",
            },
            Self::Frame(FrameError::Io(_) | FrameError::Cut) => "connection lost",
            Self::Frame(_) => "bad frame",
            Self::Timeout(_) => "silent connection",
            Self::Stuck(_) => "stuck connection",
            Self::Renewed => "certificate renewed",
            Self::Stopped => "manager stops",
        }
    }
}

pub(super) fn protocol(reason: &str) -> End {
    End::Refused(Refused { code: RefusedCode::Protocol, reason: reason.to_owned() })
}

/// The newest protocol version both speak.
pub(super) fn negotiate((oldest, newest): (u16, u16)) -> Result<u16, Refused> {
    let common = newest.min(VERSION);
    if oldest <= common && common >= VERSION_MIN {
        return Ok(common);
    }
    let reason = format!(
        "no common protocol version: the agent speaks {oldest} to {newest}, the manager {VERSION_MIN} to {VERSION}; \
         upgrade the older one"
    );
    Err(Refused { code: RefusedCode::Version, reason })
}

/// Waits for one message.
pub(super) async fn receive_within(
    stream: &mut (impl AsyncRead + Unpin),
    max: usize,
    within: Duration,
) -> Result<ToManager, End> {
    let message = async { frame::receive(stream, max).await.map_err(End::Frame) };
    let late = async {
        smol::Timer::after(within).await;
        Err(End::Timeout(within))
    };
    or(message, late).await?.ok_or(End::Closed)
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(super) enum Other {
    /// Somebody whose certificate a root of the cluster signed.
    Certified(Peer),
    /// The manager board's own agent, which needs no certificate.
    Own(NodeId),
}

/// Runs a session on a connection.
pub(super) async fn run<S>(context: &Context, mut stream: S, other: Other, addr: String) -> End
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let node = match &other {
        Other::Certified(peer) => peer.node,
        Other::Own(node) => *node,
    };
    let session = NEXT_SESSION.fetch_add(1, Ordering::Relaxed);
    let end = match open(context, &mut stream, &other, &addr, session).await {
        Ok(opened) => drive(context, &mut stream, opened, &addr).await,
        Err(end) => end,
    };
    let sign = match &end {
        End::Bye { leaving: true } => Sign::Left { node, session },
        End::Bye { leaving: false }
        | End::Closed
        | End::Refused(_)
        | End::Frame(_)
        | End::Timeout(_)
        | End::Stuck(_)
        | End::Renewed
        | End::Stopped => Sign::Closed { node, session },
    };
    context.hub.tell(sign).await;
    match &end {
        End::Refused(refused) => last_word(&mut stream, refused).await,
        // A board that leaves waits for this: its goodbye was taken in.
        End::Bye { .. } => {
            let close = async {
                let _ = stream.close().await;
            };
            let late = async {
                smol::Timer::after(limits::LAST_WORD_WITHIN).await;
            };
            or(close, late).await;
        }
        End::Closed | End::Frame(_) | End::Timeout(_) | End::Stuck(_) | End::Renewed | End::Stopped => {}
    }
    end
}

/// Tells the peer why its connection is closed; it may be gone already.
pub(super) async fn last_word(stream: &mut (impl AsyncWrite + Unpin), refused: &Refused) {
    let refused = ToAgent::Refused(refused.clone());
    let _ = send_within(stream, &refused, limits::LAST_WORD_WITHIN).await;
}

/// Sends one message that the peer must take in time.
async fn send_within(stream: &mut (impl AsyncWrite + Unpin), message: &ToAgent, within: Duration) -> Result<(), End> {
    let send = async { frame::send(stream, message, FRAME_TO_AGENT_MAX).await.map_err(End::Frame) };
    let late = async {
        smol::Timer::after(within).await;
        Err(End::Stuck(within))
    };
    or(send, late).await
}

/// A session that was opened.
struct Opened {
    node: NodeId,
    session: SessionId,
    /// Where the hub ends it.
    stopped: Receiver<Refused>,
    /// What the agent was told.
    managers: Vec<String>,
    /// What the board shows and trusts; none: it needs no certificate.
    shows: Option<(Shown, Trusts)>,
}

/// `Hello` and `Welcome`; or `Renew` and `Certified`, which is the end.
async fn open<S>(
    context: &Context,
    stream: &mut S,
    other: &Other,
    addr: &str,
    session: SessionId,
) -> Result<Opened, End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (node, peer) = match other {
        Other::Certified(peer) => (peer.node, Some(peer)),
        Other::Own(node) => (*node, None),
    };
    let first = receive_within(stream, FRAME_FROM_AGENT_MAX, limits::HELLO_WITHIN).await?;
    let view = context.store.view();
    let (Some(cluster), Some(member)) = (view.state.cluster(), view.state.node(node)) else {
        let reason = "this node is not a member of the cluster (was it removed?): join it again".to_owned();
        return Err(End::Refused(Refused { code: RefusedCode::NotMember, reason }));
    };
    if let Some(peer) = peer {
        certify::is_node(peer, member).map_err(End::Refused)?;
    }
    let Hello { versions, boot, description, trusts, board } = match (first, peer) {
        (ToManager::Hello(hello), _) => hello,
        (ToManager::Renew(renew), Some(_)) => {
            let (certified, _) = certify::certify(context, member, &renew).await?;
            send_within(stream, &ToAgent::Certified(certified), limits::HELLO_WITHIN).await?;
            let _ = futures_lite::AsyncWriteExt::close(stream).await;
            return Err(End::Renewed);
        }
        (_, Some(_) | None) => return Err(protocol("a session starts with Hello")),
    };
    let version = negotiate(versions).map_err(End::Refused)?;
    if trusts.roots.len() > ROOTS_MAX {
        return Err(protocol("more roots than there can be"));
    }
    if let Some(peer) = peer {
        let present = context.authority.now();
        let now = present.time(cluster, context.clock.now().wall);
        if let Some(reason) = renewal::over(&peer.shown, &present, now) {
            return Err(End::Refused(Refused { code: RefusedCode::Expired, reason: reason.to_owned() }));
        }
    }
    let heartbeat = cluster.spec.heartbeat();
    let stopped = opening::enter(context, node, session, Asker { boot, board }, heartbeat, addr).await?;
    if let Described::Later(_, wait) = describe(context, node, description, addr).await? {
        let reason = format!("this board says something else of itself too often: again in {} s", wait.as_secs() + 1);
        return Err(End::Refused(Refused { code: RefusedCode::Busy, reason }));
    }
    opening::know_board(context, node, board, addr).await?;
    let welcome = Welcome {
        version,
        heartbeat_ms: u32::try_from(heartbeat.as_millis()).unwrap_or(u32::MAX),
        managers: cluster.managers.clone(),
        node,
        time: ca::last_signed(cluster),
    };
    send_within(stream, &ToAgent::Welcome(welcome), limits::HELLO_WITHIN).await?;
    let shows = peer.map(|peer| (peer.shown.clone(), trusts));
    Ok(Opened { node, session, stopped, managers: cluster.managers.clone(), shows })
}

/// What became of a description.
enum Described {
    /// The store has it, or cannot take it.
    Done,
    /// The board has used up its writes: to be stored after this pause.
    Later(Box<NodeDescription>, Duration),
}

/// Stores the board's description if it differs. `addr`: where it comes from; empty: as before.
async fn describe(context: &Context, node: NodeId, description: NodeDescription, addr: &str) -> Result<Described, End> {
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

async fn drive<S>(context: &Context, stream: &mut S, opened: Opened, addr: &str) -> End
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Opened { node, session, stopped, managers, shows } = opened;
    let (logs, asks) = context.logs.attach(node, session);
    let (from, to) = split(stream);
    let (out, queue) = async_channel::bounded(OUT_QUEUE);
    let alarm = context.watch.attach(node, session);
    let (news, unrecorded) = async_channel::bounded(NEWS_QUEUE);
    let (words, said) = async_channel::bounded(NEWS_QUEUE);
    let renewer = shows.map(|(shown, trusts)| Renewer::new(context, node, shown, trusts, out.clone()));
    // A board without a certificate has none to renew.
    let words = renewer.is_some().then_some(words);
    let renew = async {
        match renewer {
            Some(renewer) => renewer.run(said).await,
            None => std::future::pending().await,
        }
    };
    let reader = Reader { context, node, session, news, words, logs, out: out.clone() };
    let forward = forward(asks, out.clone());
    let standing = Standing::Unheard { at: context.store.view().version() };
    let recorder = Recorder { context, node, session, addr, standing, held: None };
    let (told, sent) = (net::Told::default(), assign::Sent::default());
    let assigner = Assigner { context, node, alarm, out: out.clone(), managers, told, sent, is_touched: false };
    let ended = async {
        match stopped.recv().await {
            Ok(refused) => End::Refused(refused),
            Err(_) => End::Stopped,
        }
    };
    let listen = async {
        let read = async { Ok(reader.run(from).await) };
        // What was said before the end counts.
        match try_zip(read, recorder.run(unrecorded)).await {
            Ok((end, ())) | Err(end) => end,
        }
    };
    // Once the hub has ended the session, nothing that still comes in may count.
    let work = or(ended, or(listen, or(assigner.run(), or(renew, or(forward, write_all(to, queue))))));
    work.await
}

async fn write_all(mut to: impl AsyncWrite + Unpin, queue: Receiver<ToAgent>) -> End {
    while let Ok(message) = queue.recv().await {
        if let Err(end) = send_within(&mut to, &message, limits::MESSAGE_TAKEN_WITHIN).await {
            return end;
        }
    }
    End::Stopped
}

/// What readers of logs ask of the board.
async fn forward(asks: Receiver<ToAgent>, out: Sender<ToAgent>) -> End {
    while let Ok(ask) = asks.recv().await {
        if out.send(ask).await.is_err() {
            return End::Stopped;
        }
    }
    // A newer session of the board took over; the hub ends this one.
    std::future::pending().await
}

/// Tells the board what it needs of the network, and what it shall run. Both come from one look, the network first:
/// so a task's networks are there before it, and one that shall stop has left the balance when its board hears of it.
struct Assigner<'a> {
    context: &'a Context,
    node: NodeId,
    alarm: Alarm,
    out: Sender<ToAgent>,
    /// Where it was told to dial.
    managers: Vec<String>,
    told: net::Told,
    sent: assign::Sent,
    /// Whether the board's tasks may have changed since they were last looked at.
    is_touched: bool,
}

impl Assigner<'_> {
    async fn run(mut self) -> End {
        let end = self.serve().await;
        end.err().unwrap_or(End::Stopped)
    }

    async fn serve(&mut self) -> Result<(), End> {
        let vault = &self.context.vault;
        // The set is to be at least as new as the session.
        let mut look = self.context.watch.latest().await.ok_or(End::Stopped)?;
        let (parts, told) = net::complete(&look.directory, &look.view, self.node);
        self.told = told;
        self.send_net(parts).await?;
        let turn = self.turn(&mut look).await?;
        let (parts, sent) = assign::complete(&look.view, vault, self.node);
        self.sent = sent;
        let mut at = look.view.version();
        self.send_in_turn(parts, turn).await?;
        loop {
            self.wake().await?;
            look = self.context.watch.look();
            let mut news = self.tell(&look).await?;
            if std::mem::take(&mut self.is_touched) {
                let turn = self.turn(&mut look).await?;
                self.is_touched = false;
                let parts = assign::delta(&look.view, vault, self.node, &mut self.sent, at);
                if !parts.is_empty() {
                    (at, news) = (look.view.version(), true);
                }
                self.send_in_turn(parts, turn).await?;
            }
            if news {
                smol::Timer::after(ASSIGN_PAUSE).await;
            }
        }
    }

    async fn wake(&self) -> Result<(), End> {
        if self.alarm.wait().await { Ok(()) } else { Err(End::Stopped) }
    }

    /// Sends what was opened in a turn, within a time that goes by its size: others wait for theirs.
    async fn send_in_turn(&self, parts: Vec<Assign>, turn: Option<SemaphoreGuardArc>) -> Result<(), End> {
        let Some(turn) = turn else { return self.send(parts).await };
        let bytes: usize = parts.iter().flat_map(|part| &part.bodies).map(|body| body.bytes.len()).sum();
        let seconds = u64::try_from(bytes).unwrap_or(u64::MAX) / u64::from(limits::SET_BYTES_PER_SECOND_MIN);
        let within = limits::MESSAGE_TAKEN_WITHIN + Duration::from_secs(seconds);
        let late = async {
            smol::Timer::after(within).await;
            Err(End::Stuck(within))
        };
        let sent = or(self.send(parts), late).await;
        drop(turn);
        sent
    }

    async fn send(&self, parts: Vec<Assign>) -> Result<(), End> {
        for part in parts {
            self.out.send(ToAgent::Assign(part)).await.map_err(|_| End::Stopped)?;
        }
        Ok(())
    }

    /// Whether there were any.
    async fn send_net(&self, parts: net::Parts) -> Result<bool, End> {
        let mut any = false;
        for part in parts {
            any = true;
            self.out.send(ToAgent::Net(part)).await.map_err(|_| End::Stopped)?;
        }
        Ok(any)
    }

    /// Whether there was anything to tell.
    async fn tell(&mut self, look: &Look) -> Result<bool, End> {
        let (parts, touched) = net::delta(&look.directory, &look.view, self.node, &mut self.told);
        self.is_touched |= touched;
        self.tell_managers(look).await?;
        self.send_net(parts).await
    }

    async fn tell_managers(&mut self, look: &Look) -> Result<(), End> {
        let now = look.view.state.cluster().map(|cluster| &cluster.managers);
        if let Some(managers) = now.filter(|managers| **managers != self.managers) {
            self.managers.clone_from(managers);
            self.out.send(ToAgent::Managers(managers.clone())).await.map_err(|_| End::Stopped)?;
        }
        Ok(())
    }

    /// Waits until contents may be opened, if there are any to send. The network's news are told meanwhile: other
    /// boards' contents must not hold up what leaves or enters the balance.
    async fn turn(&mut self, look: &mut Look) -> Result<Option<SemaphoreGuardArc>, End> {
        if !assign::opens(&look.view, self.node, &self.sent) {
            return Ok(None);
        }
        let mut turn = Box::pin(self.context.sets.acquire_arc());
        loop {
            let mine = async { Some((&mut turn).await) };
            let news = async { self.wake().await.map(|()| None) };
            let turn = or(async { Ok(mine.await) }, news).await?;
            *look = self.context.watch.look();
            self.tell(look).await?;
            if turn.is_some() {
                return Ok(turn);
            }
        }
    }
}

/// What the store is to know.
enum News {
    Status(Status),
    Description(Box<NodeDescription>),
}

/// Hears the agent. It never waits for the store, whose disk may stall for seconds: heartbeats count all the same.
struct Reader<'a> {
    context: &'a Context,
    node: NodeId,
    session: SessionId,
    news: Sender<News>,
    /// None: the board has no certificate.
    words: Option<Sender<Word>>,
    logs: Attached,
    out: Sender<ToAgent>,
}

impl Reader<'_> {
    async fn run(self, mut from: impl AsyncRead + Unpin) -> End {
        let mut pace = Pace::default();
        loop {
            let body = match frame::read(&mut from, FRAME_FROM_AGENT_MAX).await {
                Ok(Some(body)) => body,
                Ok(None) => return End::Closed,
                Err(error) => return error.into(),
            };
            let bytes = body.len();
            let message = match frame::decode(&body) {
                Ok(message) => message,
                Err(error) => return error.into(),
            };
            drop(body);
            // A log's reader sets the pace of its parts.
            let is_asked = matches!(&message, ToManager::Logs(part) if self.logs.expects(part.reading));
            if let Err(end) = self.take(message).await {
                return end;
            }
            if is_asked {
                continue;
            }
            let wait = pace.judge(bytes, self.context.clock.now().mono);
            if wait > Duration::ZERO {
                self.context.notes.say(
                    Level::Warn,
                    self.node,
                    "talks too much",
                    format_args!("node {} talks too much: it is slowed down", self.node),
                );
                smol::Timer::after(wait).await;
            }
        }
    }

    async fn take(&self, message: ToManager) -> Result<(), End> {
        let news = match message {
            ToManager::Heartbeat(number) => {
                self.heard().await?;
                if let Some(words) = &self.words {
                    // Busy already: the next one will do.
                    let _ = words.try_send(Word::Beat);
                }
                return self.out.send(ToAgent::Pong(number)).await.map_err(|_| End::Stopped);
            }
            ToManager::Status(status) => News::Status(status),
            ToManager::Describe(description) => News::Description(Box::new(description)),
            ToManager::Logs(part) => {
                self.heard().await?;
                return self.logs.part(part).map_err(protocol);
            }
            ToManager::Bye { leaving } => return Err(End::Bye { leaving }),
            ToManager::Renew(renew) => return self.word(Word::Renew(renew)).await,
            ToManager::Trusts(trusts) => return self.word(Word::Trusts(trusts)).await,
            ToManager::Join(_) | ToManager::Hello(_) => {
                return Err(protocol("Join and Hello have no place inside a session"));
            }
        };
        self.heard().await?;
        self.news.send(news).await.map_err(|_| End::Stopped)
    }

    async fn word(&self, word: Word) -> Result<(), End> {
        self.heard().await?;
        let words = self.words.as_ref().ok_or_else(|| protocol("this board has no certificate"))?;
        words.send(word).await.map_err(|_| End::Stopped)
    }

    async fn heard(&self) -> Result<(), End> {
        let sign = Sign::Heard { node: self.node, session: self.session };
        if self.context.hub.tell(sign).await { Ok(()) } else { Err(End::Stopped) }
    }
}

/// Brings what the agent says into the store.
struct Recorder<'a> {
    context: &'a Context,
    node: NodeId,
    session: SessionId,
    addr: &'a str,
    standing: Standing,
    /// The board's last description, and when it may be stored.
    held: Option<(NodeDescription, Mono)>,
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

impl Recorder<'_> {
    async fn run(mut self, news: Receiver<News>) -> Result<(), End> {
        loop {
            match self.next(&news).await {
                Some(Ok(News::Status(status))) => self.status(status).await?,
                Some(Ok(News::Description(description))) => self.describe(*description).await?,
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
