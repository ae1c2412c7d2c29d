//! Listens for agents: TLS, then a join or a session.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_rustls::TlsAcceptor;
use racimo_common::error::chain;
use racimo_common::id::NodeId;
use racimo_common::limits::{FRAME_JOIN_MAX, FRAME_TO_AGENT_MAX};
use racimo_common::wire::{Refused, RefusedCode, ToAgent, ToManager, frame};
use smol::Async;

use super::session::{self, End};
use super::watch::Watch;
use super::{Context, hub, join};
use crate::ca::{Peer, renewal};
use crate::limits;

/// A dispatcher that listens; dropping it ends its sessions.
pub struct Dispatcher {
    tasks: Vec<smol::Task<()>>,
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
}

impl Dispatcher {
    /// Serves agents on `tcp`, and the manager board's own agent on `local`.
    pub fn start(parts: Parts, tcp: Async<TcpListener>, local: Option<Async<UnixListener>>) -> Self {
        let (hub, signs) = hub::Hub::new();
        let own = parts.own;
        let Parts { store, clock, authority, vault, own: _, logs } = parts;
        let sets = Arc::new(smol::lock::Semaphore::new(limits::SETS_OPEN_MAX));
        let (watch, watching) = Watch::new(&store);
        let mut tasks = vec![smol::spawn(hub::run(store.clone(), clock, signs, own)), smol::spawn(watching)];
        let context = Context { store, clock, authority, vault, hub, watch, logs, sets };
        tasks.push(smol::spawn(accept_tcp(context.clone(), tcp)));
        if let Some(local) = local {
            tasks.push(smol::spawn(accept_local(context, local, own)));
        }
        Self { tasks }
    }

    /// Ends its sessions; when it returns, nothing listens any more.
    pub async fn stop(self) {
        for task in self.tasks {
            task.cancel().await;
        }
    }
}

/// Counts a connection for as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let before = count.fetch_add(1, Ordering::Relaxed);
        let counted = Self(count.clone());
        (before < most).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn accept_tcp(context: Context, listener: Async<TcpListener>) {
    let open = Arc::new(AtomicUsize::new(0));
    let greeting = Arc::new(AtomicUsize::new(0));
    let executor = Arc::new(smol::Executor::new());
    let accept = async {
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: others must close first.
                    log::warn!("accept an agent's connection: {error}");
                    smol::Timer::after(Duration::from_millis(200)).await;
                    continue;
                }
            };
            let (Some(open), Some(greeting)) =
                (Counted::new(&open, limits::CONNECTIONS_MAX), Counted::new(&greeting, limits::HANDSHAKES_MAX))
            else {
                log::warn!("{peer} was turned away: too many connections");
                continue;
            };
            let context = context.clone();
            let serve = async move {
                let end = connection(&context, stream, peer, greeting).await;
                log::info!("connection from {peer} ended: {}", chain(&end));
                drop(open);
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
    Session(End),
    #[error("its request to join was answered")]
    Joined,
}

async fn connection(
    context: &Context,
    stream: Async<std::net::TcpStream>,
    peer: SocketAddr,
    greeting: Counted,
) -> ConnectionEnd {
    if let Err(error) = stream.get_ref().set_nodelay(true) {
        return ConnectionEnd::Handshake(error);
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
        Err(end) => return end,
    };
    let addr = peer.ip().to_canonical().to_string();
    let certificate = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
    let Some(certificate) = certificate else {
        let end = newcomer(context, &mut tls, &addr).await;
        drop(greeting);
        return end;
    };
    drop(greeting);
    let member = match Peer::of(&certificate, &authority.roots.known()) {
        Ok(member) => member,
        Err(error) => return ConnectionEnd::Peer(error.to_string()),
    };
    let view = context.store.view();
    let Some(cluster) = view.state.cluster().filter(|cluster| cluster.id == member.cluster) else {
        return ConnectionEnd::Peer(format!("its certificate is of another cluster ({})", member.cluster));
    };
    let now = authority.time(cluster, context.clock.now().wall);
    if let Some(reason) = renewal::over(&member.shown, &authority, now) {
        return ConnectionEnd::Peer(reason.to_owned());
    }
    ConnectionEnd::Session(session::run(context, tls, member.node, addr).await)
}

async fn newcomer<S>(context: &Context, stream: &mut S, addr: &str) -> ConnectionEnd
where
    S: futures_lite::AsyncRead + futures_lite::AsyncWrite + Unpin,
{
    let answer = match session::receive_within(stream, FRAME_JOIN_MAX, limits::HELLO_WITHIN).await {
        Ok(ToManager::Join(request)) => join::answer(context, request, addr).await,
        Ok(
            ToManager::Hello(_)
            | ToManager::Describe(_)
            | ToManager::Status(_)
            | ToManager::Heartbeat(_)
            | ToManager::Logs(_)
            | ToManager::Renew(_)
            | ToManager::Trusts(_)
            | ToManager::Bye { .. },
        ) => {
            log::warn!("{addr} has no certificate but wanted a session: refused");
            let reason = "without a certificate only Join is allowed".to_owned();
            ToAgent::Refused(Refused { code: RefusedCode::Protocol, reason })
        }
        Err(end) => return ConnectionEnd::Session(end),
    };
    match frame::send(stream, &answer, FRAME_TO_AGENT_MAX).await {
        Ok(()) => {
            let _ = futures_lite::AsyncWriteExt::close(stream).await;
            ConnectionEnd::Joined
        }
        Err(error) => ConnectionEnd::Session(error.into()),
    }
}

/// The manager board's own agent: the socket's permissions are its certificate.
async fn accept_local(context: Context, listener: Async<UnixListener>, own: NodeId) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // It has no address of its own: the node keeps the advertised one.
                let addr = context.store.view().state.node(own).map(|node| node.addr.clone()).unwrap_or_default();
                let end = session::run(&context, stream, own, addr).await;
                log::info!("the session of this board's own agent ended: {}", chain(&end));
            }
            Err(error) => {
                log::warn!("accept the local agent's connection: {error}");
                smol::Timer::after(Duration::from_millis(200)).await;
            }
        }
    }
}
