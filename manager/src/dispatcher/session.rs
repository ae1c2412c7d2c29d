//! One agent's session, from `Hello` to the end of its connection.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_channel::{Receiver, Sender};
use futures_lite::future::{or, try_zip};
use futures_lite::{AsyncRead, AsyncWrite, AsyncWriteExt, io::split};
use log::Level;
use racimo_common::id::NodeId;
use racimo_common::limits::{FRAME_FROM_AGENT_MAX, FRAME_TO_AGENT_MAX, ROOTS_MAX};
use racimo_common::wire::frame::{self, FrameError};
use racimo_common::wire::{
    Hello, Refused, RefusedCode, ToAgent, ToManager, Trusts, VERSION, VERSION_HEALTH, VERSION_MIN, Welcome,
};

use super::assigner::Assigner;
use super::broker::Attached;
use super::certify::{self, Renewer, Word};
use super::clones::Asker;
use super::hub::{SessionId, Sign};
use super::pace::Pace;
use super::recorder::{Described, News, Recorder, describe};
use super::{Context, opening};
use crate::ca::{self, Peer, Shown, renewal};
use crate::limits;
use crate::store::Observation;

/// Messages that wait to be written; the parts of a set wait for each other.
const OUT_QUEUE: usize = 8;
/// Messages of an agent that wait for the store; then its heartbeats wait with them.
const NEWS_QUEUE: usize = 16;

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
    /// The protocol's.
    version: u16,
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
    // What another session said of it says nothing about now.
    if view.seen.health(node).is_some() {
        context.store.observe(vec![Observation::Health { node, health: None }]).await;
    }
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
    if !context.hub.tell(Sign::Welcomed { node, session }).await {
        return Err(End::Stopped);
    }
    let shows = peer.map(|peer| (peer.shown.clone(), trusts));
    Ok(Opened { node, session, stopped, version, managers: cluster.managers.clone(), shows })
}

async fn drive<S>(context: &Context, stream: &mut S, opened: Opened, addr: &str) -> End
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Opened { node, session, stopped, version, managers, shows } = opened;
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
    let reader = Reader { context, node, session, version, news, words, logs, out: out.clone() };
    let forward = forward(asks, out.clone());
    let recorder = Recorder::new(context, node, session, addr);
    let assigner = Assigner::new(context, node, alarm, managers, out.clone());
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

/// Hears the agent. It never waits for the store, whose disk may stall for seconds: heartbeats count all the same.
struct Reader<'a> {
    context: &'a Context,
    node: NodeId,
    session: SessionId,
    version: u16,
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
            ToManager::Health(health) if self.version >= VERSION_HEALTH => News::Health(Box::new(health)),
            ToManager::Health(_) => return Err(protocol("Health has no place in a session of version 1")),
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
