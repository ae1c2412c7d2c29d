//! The API's shell: accepts connections, reads requests, writes answers. hyper on smol.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_channel::Receiver;
use futures_lite::{AsyncRead, AsyncWrite, FutureExt, future};
use futures_rustls::TlsAcceptor;
use hyper::body::{Body, Incoming};
use hyper::header::{HOST, HeaderMap, ORIGIN};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use log::Level;
use racimo_common::error::chain;
use racimo_common::time::Clock;
use rustix::net::sockopt::socket_peercred;
use smol::lock::Semaphore;
use smol::{Async, Executor, Timer};
use smol_hyper::rt::{FuturesIo, SmolTimer};

use super::answer::{Answer, Content};
use super::error::ApiError;
use super::guard::Asked;
use super::listen::Listener;
use super::patient::Patient;
use super::remote::ServerTls;
use super::who::Who;
use super::{Context, guard};
use crate::ca::Holder;
use crate::gate::door::{Door, Guest};
use crate::gate::notes::Cause;
use crate::gate::{Limits, Source};
use crate::limits::{
    API_BODY_BYTES_MAX, API_BODY_WITHIN, API_CONNECTIONS_MAX, API_HEADERS_BYTES_MAX, API_HEADERS_MAX,
    API_HEADERS_WITHIN, API_LOCAL_CONNECTIONS_MAX, API_LOOK_BODY_BYTES_MAX, API_REMOTE_CONNECTIONS_MAX,
    API_STOP_WITHIN, API_WRITE_WITHIN, HANDSHAKE_WITHIN,
};
use crate::store::AccessRole;

/// Serves until `stop` is done, then lets what is under way finish for a moment.
pub async fn serve(context: Arc<Context>, listeners: Vec<Listener>, stop: impl Future<Output = ()>) {
    let executor = Arc::new(Executor::new());
    let (permits, remote) = (Arc::new(Semaphore::new(API_CONNECTIONS_MAX)), Arc::new(Remote::new(context.clock)));
    let local = Arc::new(Semaphore::new(API_LOCAL_CONNECTIONS_MAX));
    let (stopping, stopped) = async_channel::bounded::<()>(1);
    let accepting: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            let (weak, context, stopped) = (Arc::downgrade(&executor), context.clone(), stopped.clone());
            match listener {
                Listener::Tls(listener) => {
                    executor.spawn(accept_remote(listener, context, weak, remote.clone(), stopped))
                }
                listener @ Listener::Unix(..) => {
                    executor.spawn(accept(listener, context, weak, permits.clone(), stopped))
                }
                // Programs that may only use TCP do not take the places of who administers this board.
                listener @ Listener::Tcp(_) => executor.spawn(accept(listener, context, weak, local.clone(), stopped)),
            }
        })
        .collect();
    let (view, feed) = context.store.watch();
    let following = {
        let context = context.clone();
        executor.spawn(async move { context.hub.follow(view, feed, || context.now()).await })
    };
    executor.run(stop).await;
    for task in accepting {
        executor.run(task.cancel()).await;
    }
    stopping.close();
    context.hub.close();
    let late = async {
        Timer::after(API_STOP_WITHIN).await;
    };
    let back = async {
        permits_back(&permits, API_CONNECTIONS_MAX).await;
        permits_back(&local, API_LOCAL_CONNECTIONS_MAX).await;
        permits_back(&remote.open, API_REMOTE_CONNECTIONS_MAX).await;
    };
    executor.run(back.or(late)).await;
    executor.run(following.cancel()).await;
}

/// Waits until every connection has given its permit back.
async fn permits_back(permits: &Semaphore, count: usize) {
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        held.push(permits.acquire().await);
    }
}

async fn accept(
    listener: Listener,
    context: Arc<Context>,
    executor: std::sync::Weak<Executor<'static>>,
    permits: Arc<Semaphore>,
    stopped: Receiver<()>,
) {
    loop {
        // Without a permit further clients wait in the kernel's queue.
        let permit = permits.acquire_arc().await;
        let accepted = match &listener {
            Listener::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
            Listener::Tcp(listener) | Listener::Tls(listener) => {
                listener.accept().await.map(|(stream, from)| Stream::Tcp(stream, from))
            }
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                cannot_accept(&context, &error).await;
                continue;
            }
        };
        let Some(executor) = executor.upgrade() else { return };
        let (context, stopped) = (context.clone(), stopped.clone());
        executor
            .spawn(async move {
                match stream {
                    Stream::Unix(stream) => {
                        let uid = socket_peercred(stream.get_ref()).ok().map(|peer| peer.uid.as_raw());
                        connection(stream, context, Who::Unix { uid }, stopped).await;
                    }
                    Stream::Tcp(stream, from) => {
                        // An answer goes out in one write: nothing is gained by waiting for more.
                        let _ = stream.get_ref().set_nodelay(true);
                        connection(stream, context, Who::Local(from.ip().to_canonical()), stopped).await;
                    }
                }
                drop(permit);
            })
            // Owned by the executor, which `serve` owns.
            .detach();
    }
}

/// Most likely no file descriptors: others must close some first.
async fn cannot_accept(context: &Context, error: &std::io::Error) {
    let text = format!("api: cannot accept a connection: {error}");
    context.notes.say(Level::Warn, Cause::All, "API: connections not accepted", text);
    Timer::after(Duration::from_millis(100)).await;
}

/// What connections of clients with certificates share. They have places of their own, so that nobody from outside
/// takes those of the manager's own board.
struct Remote {
    tls: ServerTls,
    /// Who may come: strangers of one address leave room for others, and so does each access.
    guests: Door<String>,
    /// Those who have shown a certificate.
    open: Arc<Semaphore>,
}

impl Remote {
    fn new(clock: Clock) -> Self {
        Self {
            tls: ServerTls::default(),
            guests: Door::new(Limits::api(), clock),
            open: Arc::new(Semaphore::new(API_REMOTE_CONNECTIONS_MAX)),
        }
    }
}

async fn accept_remote(
    listener: Async<TcpListener>,
    context: Arc<Context>,
    executor: std::sync::Weak<Executor<'static>>,
    remote: Arc<Remote>,
    stopped: Receiver<()>,
) {
    loop {
        let (stream, from) = match listener.accept().await {
            Ok((stream, from)) => (stream, from.ip().to_canonical()),
            Err(error) => {
                cannot_accept(&context, &error).await;
                continue;
            }
        };
        // Nobody waits in the kernel's queue: strangers would keep others out.
        let guest = match remote.guests.knock(from, false) {
            Ok(guest) => guest,
            Err(turned) => {
                complain(&context, from, "API: turned away", &turned);
                continue;
            }
        };
        let tls = match remote.tls.config(&context) {
            Ok(config) => TlsAcceptor::from(config),
            Err(reason) => {
                complain(&context, from, "API: not served", &chain(&reason));
                continue;
            }
        };
        let Some(executor) = executor.upgrade() else { return };
        let (context, stopped, open) = (context.clone(), stopped.clone(), remote.open.clone());
        executor
            .spawn(async move {
                let served = remote_client(&context, stream, from, tls, &guest, open, stopped);
                let out = async { complain(&context, from, "API: turned out", &guest.turned_out().await) };
                served.or(out).await;
            })
            // Owned by the executor, which `serve` owns.
            .detach();
    }
}

/// One client with a certificate. Whoever has none that counts keeps a stranger's place, and not for long.
async fn remote_client(
    context: &Arc<Context>,
    stream: Async<std::net::TcpStream>,
    from: IpAddr,
    tls: TlsAcceptor,
    guest: &Guest<String>,
    open: Arc<Semaphore>,
    stopped: Receiver<()>,
) {
    let _ = stream.get_ref().set_nodelay(true);
    let shaken = tls.accept(stream).or(async {
        Timer::after(HANDSHAKE_WITHIN).await;
        Err(std::io::ErrorKind::TimedOut.into())
    });
    let stream = match shaken.await {
        Ok(stream) => stream,
        Err(error) => return complain(context, from, "API: TLS handshake", &format_args!("TLS handshake: {error}")),
    };
    let Some(_open) = open.try_acquire_arc() else {
        return complain(context, from, "API: full", &"too many clients with certificates");
    };
    let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let holder = leaf.and_then(|leaf| Holder::of(leaf).ok());
    let name = holder.as_ref().map(|holder| holder.name.clone()).unwrap_or_default();
    let who = Who::Remote { holder, from };
    match guard::role(context, &who) {
        Ok(_) => match guest.member(name) {
            Ok(()) => connection(stream, context.clone(), who, stopped).await,
            Err(turned) => complain(context, from, "API: turned away", &turned),
        },
        Err(refusal) => {
            // Every request is answered so.
            complain(context, from, "API: no access", &refusal);
            let late = async {
                Timer::after(HANDSHAKE_WITHIN).await;
            };
            connection(stream, context.clone(), who, stopped).or(late).await;
        }
    }
}

/// A line about a client that was turned away.
fn complain(context: &Context, from: IpAddr, reason: &'static str, why: &dyn std::fmt::Display) {
    let text = format_args!("api: a client at {from} was turned away: {why}");
    context.notes.say(Level::Warn, Source::of(from), reason, text);
}

enum Stream {
    Unix(smol::Async<std::os::unix::net::UnixStream>),
    Tcp(smol::Async<std::net::TcpStream>, SocketAddr),
}

async fn connection<S>(stream: S, context: Arc<Context>, who: Who, stopped: Receiver<()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let who = Arc::new(who);
    let service = service_fn(|request| {
        let (context, who) = (context.clone(), who.clone());
        async move { Ok::<_, Infallible>(respond(context, who, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(SmolTimer::new())
        .header_read_timeout(API_HEADERS_WITHIN)
        .max_headers(API_HEADERS_MAX)
        .max_buf_size(API_HEADERS_BYTES_MAX)
        .serve_connection(FuturesIo::new(Patient::new(stream, API_WRITE_WITHIN)), service);
    let mut connection = pin!(connection);
    let ended = async { Some(connection.as_mut().await) }
        .or(async {
            let _ = stopped.recv().await;
            None
        })
        .await;
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // A client that goes away, or no HTTP: its own business.
        log::debug!("api: connection: {error}");
    }
}

async fn respond(context: Arc<Context>, who: Arc<Who>, request: hyper::Request<Incoming>) -> Response<Content> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let answer = match handle(context, who, request).await {
        Ok(answer) => answer,
        Err(error) => {
            log::debug!("api: {method} {path}: {}: {error}", error.status.as_u16());
            Answer::from(error)
        }
    };
    answer.into_response()
}

async fn handle(context: Arc<Context>, who: Arc<Who>, request: hyper::Request<Incoming>) -> Result<Answer, ApiError> {
    let (head, body) = request.into_parts();
    match *who {
        Who::Unix { .. } => {}
        Who::Local(_) => refuse_browsers(&head.headers, true)?,
        Who::Remote { .. } => refuse_browsers(&head.headers, false)?,
    }
    // Nobody who may do nothing shall cost memory.
    let role = guard::role(&context, &who)?;
    // hyper leaves the body out of the answer to a HEAD.
    let method = if head.method == Method::HEAD { Method::GET } else { head.method };
    // Before anything is refused: a client that still writes when we answer sees a broken pipe, not the answer.
    let most = match role {
        AccessRole::Admin => API_BODY_BYTES_MAX,
        AccessRole::ReadOnly => API_LOOK_BODY_BYTES_MAX,
    };
    let body = read_body(body, most).await?;
    let (path, query) = (head.uri.path().to_owned(), head.uri.query().unwrap_or_default().to_owned());
    let asked = Asked { method, path, query, headers: head.headers, body };
    let work = async move { guard::answer(&context, &who, asked).await };
    to_the_end(work).await.unwrap_or_else(|| Err(ApiError::unavailable("the manager stops")))
}

/// Carries something out to its end, even if its client goes away meanwhile: half of a change, or one without its line
/// in the audit file, would be worse than either. None: the program ends.
async fn to_the_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Option<T> {
    let (done, outcome) = async_channel::bounded(1);
    let carrying = async move {
        // Nobody may wait for it any more.
        let _ = done.send(work.await).await;
    };
    smol::spawn(carrying).detach();
    outcome.recv().await.ok()
}

/// A web page that is open in a browser on this machine can reach a TCP port of it, or use a certificate that the
/// browser has. It cannot hide where it comes from, and on a `local` port, after a trick with names (DNS rebinding), it
/// still names its own host.
fn refuse_browsers(headers: &HeaderMap, local: bool) -> Result<(), ApiError> {
    let text = |name| headers.get(name).map(|value: &hyper::header::HeaderValue| value.to_str().unwrap_or("?"));
    let host = super::convert::node::host(text(HOST).unwrap_or_default());
    let is_local =
        host == "localhost" || host.is_empty() || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    if (is_local || !local) && text(ORIGIN).is_none() {
        return Ok(());
    }
    Err(ApiError::new(StatusCode::FORBIDDEN, "requests of web pages and for other hosts' names are refused"))
}

async fn read_body(mut body: Incoming, most: usize) -> Result<Vec<u8>, ApiError> {
    let too_large = || {
        let message = format!("the request's body is larger than {most} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    if body.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    let reading = async {
        let mut bytes = Vec::new();
        while let Some(frame) = future::poll_fn(|cx| pin!(&mut body).poll_frame(cx)).await {
            let frame = frame.map_err(|e| ApiError::bad_request(format!("the request's body broke off: {e}")))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > most {
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes)
    };
    let late = async {
        Timer::after(API_BODY_WITHIN).await;
        let message = format!("the request's body did not arrive within {API_BODY_WITHIN:?}");
        Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, message))
    };
    reading.or(late).await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn what_was_begun_is_carried_out_without_its_client() {
        smol::block_on(async {
            let (is_done, (go, going)) = (Arc::new(AtomicBool::new(false)), async_channel::bounded::<()>(1));
            let done = is_done.clone();
            let work = to_the_end(async move {
                let _ = going.recv().await;
                done.store(true, Ordering::Relaxed);
            });
            // The client goes away while it waits.
            assert!(future::poll_once(work).await.is_none());
            assert!(!is_done.load(Ordering::Relaxed));
            go.send(()).await.expect("it goes on");
            let until = std::time::Instant::now() + Duration::from_secs(30);
            while !is_done.load(Ordering::Relaxed) {
                assert!(std::time::Instant::now() < until, "it was given up");
                Timer::after(Duration::from_millis(5)).await;
            }
            assert_eq!(to_the_end(async { 7 }).await, Some(7));
        });
    }
    use hyper::header::HeaderValue;

    #[track_caller]
    fn check(host: Option<&str>, origin: Option<&str>, want: bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in [(HOST, host), (ORIGIN, origin)] {
            value.map(|value| headers.insert(name, HeaderValue::from_str(value).expect("valid")));
        }
        assert_eq!(refuse_browsers(&headers, true).is_ok(), want, "{host:?} {origin:?}");
        assert_eq!(refuse_browsers(&headers, false).is_ok(), origin.is_none(), "{host:?} {origin:?}");
    }

    #[test]
    fn web_pages_are_refused() {
        check(Some("127.0.0.1:2375"), None, true);
        check(Some("localhost:2375"), None, true);
        check(Some("[::1]:2375"), None, true);
        check(None, None, true);
        check(Some("evil.example:2375"), None, false);
        check(Some("127.0.0.1:2375"), Some("http://evil.example"), false);
        check(Some("127.0.0.1:2375"), Some("null"), false);
    }
}
