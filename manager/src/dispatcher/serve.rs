//! Listens for agents: TLS, then a join or a session.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use futures_lite::future::or;
use futures_rustls::{TlsAcceptor, rustls};
use log::Level;
use racimo_common::error::chain;
use racimo_common::id::NodeId;
use racimo_common::limits::{FRAME_FROM_AGENT_MAX, FRAME_JOIN_MAX, FRAME_TO_AGENT_MAX};
use racimo_common::wire::{Refused, RefusedCode, ToAgent, ToManager, frame};
use smol::Async;

use super::session::{self, End, Other};
use super::watch::Watch;
use super::writes::Writes;
use super::{Context, Known, certify, hub, join};
use crate::ca::Peer;
use crate::gate::door::{Door, Guest};
use crate::gate::notes::{Cause, Notes};
use crate::gate::{Limits, Source, Turned, files};
use crate::limits;

/// A dispatcher that listens; dropping it ends its sessions.
pub struct Dispatcher {
    tasks: Vec<smol::Task<()>>,
    listening: Listening,
}

/// Where a dispatcher is told that the machine's addresses changed.
#[derive(Clone)]
pub struct Listening {
    listeners: Sender<Async<TcpListener>>,
    hub: hub::Hub,
}

impl Listening {
    /// Listens there from now on; sessions that are open go on.
    pub async fn listen(&self, listener: Async<TcpListener>) {
        // The dispatcher may have stopped.
        let _ = self.listeners.send(listener).await;
    }

    /// The address that agents dialled is gone: they get time to find the new one.
    pub async fn moved(&self) {
        self.hub.tell(hub::Sign::Moved).await;
    }
}

/// What a dispatcher is made of.
pub struct Parts {
    /// Everything its sessions need, but the hub.
    pub store: crate::store::Store,
    /// The machine's clocks.
    pub clock: racimo_common::time::Clock,
    /// Signs certificates, and has the manager's side of TLS.
    pub authority: crate::ca::Authority,
    /// Opens secrets.
    pub vault: crate::vault::Vault,
    /// The manager's own node.
    pub own: NodeId,
    /// Where readers of logs are.
    pub logs: super::broker::Broker,
    /// Log lines that peers cause.
    pub notes: Notes,
}

impl Dispatcher {
    /// Serves agents on `tcp`, and the manager board's own agent on `local`.
    pub fn start(parts: Parts, tcp: Async<TcpListener>, local: Option<Async<UnixListener>>) -> Self {
        let (hub, signs) = hub::Hub::new();
        let own = parts.own;
        let Parts { store, clock, authority, vault, own: _, logs, notes } = parts;
        let sets = Arc::new(smol::lock::Semaphore::new(limits::SETS_OPEN_MAX));
        let (watch, watching) = Watch::new(&store);
        let mut tasks = vec![smol::spawn(hub::run(store.clone(), clock, signs, own)), smol::spawn(watching)];
        let (door, known) = (Door::new(Limits::agents(files::allowed()), clock), Known::new(store.clone()));
        let writes = Writes::default();
        let context = Context { store, clock, authority, vault, hub, watch, logs, sets, door, known, writes, notes };
        let (listeners, later) = async_channel::bounded(1);
        let listening = Listening { listeners, hub: context.hub.clone() };
        tasks.push(smol::spawn(accept_tcp(context.clone(), tcp, later)));
        if let Some(local) = local {
            tasks.push(smol::spawn(accept_local(context, local, own)));
        }
        Self { tasks, listening }
    }

    /// Where to tell that the machine's addresses changed.
    pub fn listening(&self) -> Listening {
        self.listening.clone()
    }

    /// Ends its sessions; when it returns, nothing listens any more.
    pub async fn stop(self) {
        for task in self.tasks {
            task.cancel().await;
        }
    }
}

async fn accept_tcp(context: Context, mut listener: Async<TcpListener>, later: Receiver<Async<TcpListener>>) {
    let executor = Arc::new(smol::Executor::new());
    let accept = async {
        loop {
            let accepted = async { Ok(listener.accept().await) };
            let moved = async {
                match later.recv().await {
                    Ok(listener) => Err(listener),
                    // The dispatcher's end is this task's, too.
                    Err(_) => std::future::pending().await,
                }
            };
            let accepted = match or(moved, accepted).await {
                Ok(accepted) => accepted,
                Err(other) => {
                    listener = other;
                    continue;
                }
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: others must close first.
                    let text = format!("accept an agent's connection: {error}");
                    context.notes.say(Level::Warn, Cause::All, "connections not accepted", text);
                    smol::Timer::after(Duration::from_millis(200)).await;
                    continue;
                }
            };
            let is_known = context.known.has(peer.ip(), context.clock.now().mono);
            let guest = match context.door.knock(peer.ip(), is_known) {
                Ok(guest) => guest,
                Err(turned) => {
                    context.notes.say(
                        Level::Warn,
                        Source::of(peer.ip()),
                        "turned away",
                        format_args!("{peer} was turned away: {turned}"),
                    );
                    continue;
                }
            };
            let context = context.clone();
            let serve = async move {
                let work = connection(&context, stream, peer, &guest);
                let out = async { (None, ConnectionEnd::Turned(guest.turned_out().await)) };
                let (node, end) = smol::future::or(work, out).await;
                let cause = node.map_or(Cause::Source(guest.source()), Cause::Node);
                context.notes.say(
                    Level::Info,
                    cause,
                    end.kind(),
                    format_args!("connection from {peer} ended: {}", chain(&end)),
                );
            };
            executor.spawn(serve).detach();
        }
    };
    executor.run(accept).await
}

#[derive(Debug, thiserror::Error)]
enum ConnectionEnd {
    #[error("TLS handshake")]
    Handshake(#[source] io::Error),
    #[error("no TLS handshake within {0:?}")]
    Slow(Duration),
    #[error("{0}")]
    Peer(String),
    #[error("{0}")]
    Turned(Turned),
    #[error("{0}")]
    Session(End),
    #[error("its request to join was answered")]
    Joined,
}

impl ConnectionEnd {
    /// What it is counted as.
    fn kind(&self) -> &'static str {
        match self {
            Self::Handshake(error) => match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
                Some(rustls::Error::AlertReceived(_)) => "handshake ended by the peer",
                Some(rustls::Error::InvalidCertificate(_)) => "bad certificate",
                Some(_) => "no TLS",
                None => "handshake broke off",
            },
            Self::Slow(_) => "slow handshake",
            Self::Peer(_) => "certificate of no member",
            Self::Turned(_) => "turned out",
            Self::Session(end) => end.kind(),
            Self::Joined => "join answered",
        }
    }
}

/// Serves a connection; whose it was, if it has shown that, and why it ended.
async fn connection(
    context: &Context,
    stream: Async<std::net::TcpStream>,
    peer: SocketAddr,
    guest: &Guest<NodeId>,
) -> (Option<NodeId>, ConnectionEnd) {
    if let Err(error) = stream.get_ref().set_nodelay(true) {
        return (None, ConnectionEnd::Handshake(error));
    }
    let authority = context.authority.now();
    let acceptor = TlsAcceptor::from(authority.tls.clone());
    let handshake = async { acceptor.accept(stream).await.map_err(ConnectionEnd::Handshake) };
    let late = async {
        smol::Timer::after(limits::HANDSHAKE_WITHIN).await;
        Err(ConnectionEnd::Slow(limits::HANDSHAKE_WITHIN))
    };
    let mut tls = match smol::future::or(handshake, late).await {
        Ok(tls) => tls,
        Err(end) => return (None, end),
    };
    let addr = peer.ip().to_canonical().to_string();
    let certificate = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
    let Some(certificate) = certificate else {
        return (None, newcomer(context, &mut tls, &addr, guest).await);
    };
    let member = match Peer::of(&certificate, &authority.roots.known()) {
        Ok(member) => member,
        Err(error) => return (None, ConnectionEnd::Peer(error.to_string())),
    };
    let view = context.store.view();
    if view.state.cluster().is_none_or(|cluster| cluster.id != member.cluster) {
        let reason = format!("its certificate is of another cluster ({})", member.cluster);
        return (None, ConnectionEnd::Peer(reason));
    }
    let node = member.node;
    // Whoever is no member (any more) hears so, but keeps the place of a stranger.
    let is_member = view.state.node(node).is_some_and(|node| certify::is_node(&member, node).is_ok());
    drop(view);
    if is_member {
        if let Err(turned) = guest.member(node) {
            let refused = Refused { code: RefusedCode::Busy, reason: turned.to_string() };
            session::last_word(&mut tls, &refused).await;
            return (Some(node), ConnectionEnd::Turned(turned));
        }
    }
    let end = session::run(context, tls, Other::Certified(member), addr).await;
    (is_member.then_some(node), ConnectionEnd::Session(end))
}

async fn newcomer<S>(context: &Context, stream: &mut S, addr: &str, guest: &Guest<NodeId>) -> ConnectionEnd
where
    S: futures_lite::AsyncRead + futures_lite::AsyncWrite + Unpin,
{
    let answer = match session::receive_within(stream, FRAME_JOIN_MAX, limits::HELLO_WITHIN).await {
        Ok(ToManager::Join(request)) => join::answer(context, request, addr, guest).await,
        Ok(
            ToManager::Hello(_)
            | ToManager::Describe(_)
            | ToManager::Status(_)
            | ToManager::Heartbeat(_)
            | ToManager::Logs(_)
            | ToManager::Renew(_)
            | ToManager::Trusts(_)
            | ToManager::Health(_)
            | ToManager::Bye { .. },
        ) => {
            context.notes.say(
                Level::Warn,
                guest.source(),
                "session without certificate",
                format_args!("{addr} has no certificate but wanted a session: refused"),
            );
            let reason = "without a certificate only Join is allowed".to_owned();
            ToAgent::Refused(Refused { code: RefusedCode::Protocol, reason })
        }
        Err(end) => return ConnectionEnd::Session(end),
    };
    let answered = async {
        frame::send(stream, &answer, FRAME_TO_AGENT_MAX).await?;
        let _ = futures_lite::AsyncWriteExt::close(stream).await;
        Ok(ConnectionEnd::Joined)
    };
    let late = async {
        smol::Timer::after(limits::HELLO_WITHIN).await;
        Ok(ConnectionEnd::Session(End::Timeout(limits::HELLO_WITHIN)))
    };
    let end: Result<_, frame::FrameError> = smol::future::or(answered, late).await;
    end.unwrap_or_else(|error| ConnectionEnd::Session(error.into()))
}

/// The manager board's own agent: the socket's permissions are its certificate.
async fn accept_local(context: Context, listener: Async<UnixListener>, own: NodeId) {
    loop {
        let stream = next_local(&listener, &context.notes).await;
        // It has no address of its own: the node keeps the advertised one.
        let end = session::run(&context, stream, Other::Own(own), String::new()).await;
        context.notes.say(
            Level::Info,
            own,
            end.kind(),
            format_args!("the session of this board's own agent ended: {}", chain(&end)),
        );
    }
}

/// Tells the board's own agent, whenever it asks, that its manager has left the cluster: its tasks stop, and it forgets
/// them. It has no other way to know.
pub async fn dismiss(listener: Async<UnixListener>, notes: Notes) {
    loop {
        let mut stream = next_local(&listener, &notes).await;
        let hello = session::receive_within(&mut stream, FRAME_FROM_AGENT_MAX, limits::HELLO_WITHIN).await;
        if hello.is_ok() {
            let refused = Refused { code: RefusedCode::NotMember, reason: LEFT.to_owned() };
            session::last_word(&mut stream, &refused).await;
        }
    }
}

/// What the agent of a board whose manager left the cluster is told; it adds how it joins another one.
const LEFT: &str = "this board's manager has left its cluster: make another one with `pi-mgr init`, or take manager-socket out of its configuration and join one";

async fn next_local(listener: &Async<UnixListener>, notes: &Notes) -> Async<UnixStream> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                notes.say(
                    Level::Warn,
                    Cause::All,
                    "local connections not accepted",
                    format_args!("accept the local agent's connection: {error}"),
                );
                smol::Timer::after(Duration::from_millis(200)).await;
            }
        }
    }
}
