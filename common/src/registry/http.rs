//! One HTTP request over one connection.
//!
//! The connection has no task of its own: [`Conn`] polls it together with
//! whatever waits for it, so nothing outlives the request or its body.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite, FutureExt};
use futures_rustls::TlsConnector;
use futures_rustls::rustls::pki_types::ServerName;
use futures_rustls::rustls::{CertificateError, ClientConfig, Error as TlsError};
use hyper::body::{Body as _, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use smol::Timer;
use smol::net::TcpStream;
use smol_hyper::rt::FuturesIo;

use super::endpoint::Url;
use super::error::RegistryError;
use super::limits::{
    ADDRESSES_MAX, CONNECT_TIMEOUT, CONNECTION_BUFFER_BYTES, HANDSHAKE_TIMEOUT, HEADERS_TIMEOUT, STALL_TIMEOUT,
};
use super::roots;

const USER_AGENT: &str = concat!("racimo/", env!("CARGO_PKG_VERSION"));

/// TLS settings, made when first needed.
#[derive(Default)]
pub(super) struct Tls {
    extra_ca: Option<std::path::PathBuf>,
    checked: OnceLock<Arc<ClientConfig>>,
    unchecked: OnceLock<Arc<ClientConfig>>,
}

impl Tls {
    pub(super) fn new(extra_ca: Option<std::path::PathBuf>) -> Self {
        Self { extra_ca, ..Self::default() }
    }

    fn connector(&self, check: bool) -> TlsConnector {
        let cell = if check { &self.checked } else { &self.unchecked };
        let config = cell.get_or_init(|| roots::client_config(check, self.extra_ca.as_deref()));
        TlsConnector::from(Arc::clone(config))
    }
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A connection that has not been used yet.
pub(super) struct Connected(Box<dyn Io>);

/// Why there is no connection.
pub(super) enum ConnectError {
    /// Name look-up or TCP.
    Network(String),
    /// The other side does not speak TLS, or not so that we trust it.
    Tls(String),
}

impl ConnectError {
    pub(super) fn at(self, url: &Url) -> RegistryError {
        let (Self::Network(why) | Self::Tls(why)) = self;
        RegistryError::Unreachable { host: url.authority().to_string(), why }
    }
}

/// Connects to `url`'s host; `check` says whether a certificate must be valid.
pub(super) async fn connect(url: &Url, tls: &Tls, check: bool) -> Result<Connected, ConnectError> {
    let stream = connect_tcp(url).await.map_err(ConnectError::Network)?;
    if !url.is_tls() {
        return Ok(Connected(Box::new(stream)));
    }
    let name = ServerName::try_from(url.host().to_owned())
        .map_err(|_| ConnectError::Tls(format!("{} cannot be in a certificate", url.host())))?;
    let handshake = tls.connector(check).connect(name, stream);
    match within(HANDSHAKE_TIMEOUT, handshake).await {
        Some(Ok(stream)) => Ok(Connected(Box::new(stream))),
        Some(Err(error)) => Err(ConnectError::Tls(tls_message(&error))),
        None => Err(ConnectError::Tls(format!("no TLS handshake within {HANDSHAKE_TIMEOUT:?}"))),
    }
}

async fn connect_tcp(url: &Url) -> Result<TcpStream, String> {
    let look_up = smol::net::resolve((url.host(), url.port()));
    let addresses = match within(CONNECT_TIMEOUT, look_up).await {
        Some(Ok(addresses)) => addresses,
        Some(Err(error)) => return Err(format!("name look-up failed: {error}")),
        None => return Err(format!("no answer to the name look-up within {CONNECT_TIMEOUT:?}")),
    };
    let mut failure = "the name has no address".to_owned();
    for address in addresses.into_iter().take(ADDRESSES_MAX) {
        match within(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Some(Ok(stream)) => {
                // Only a matter of speed.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Some(Err(error)) => failure = error.to_string(),
            None => failure = format!("no answer from {address} within {CONNECT_TIMEOUT:?}"),
        }
    }
    Err(failure)
}

fn tls_message(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    match inner {
        Some(TlsError::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "its certificate is signed by an authority that this machine does not know \
             (add the authority, or list the registry as insecure)"
                .into()
        }
        Some(TlsError::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        )) => "its certificate is not valid yet; is this machine's clock right?".into(),
        _ => error.to_string(),
    }
}

/// What to send.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) url: &'a Url,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Form data; empty for none.
    pub(super) body: String,
}

/// Sends `request` over `connected` and waits for the head of the response.
pub(super) async fn send(connected: Connected, request: Request<'_>) -> Result<Response, RegistryError> {
    let host = request.url.authority().to_string();
    let broken = |why: String| RegistryError::Transfer { host: host.clone(), why };
    let handshake = hyper::client::conn::http1::Builder::new()
        .max_buf_size(CONNECTION_BUFFER_BYTES)
        .handshake::<_, Payload>(FuturesIo::new(connected.0));
    let (mut sender, connection) = handshake.await.map_err(|error| broken(message(&error)))?;
    let mut conn = Conn(Some(Box::pin(connection)));

    let mut head = hyper::Request::builder()
        .method(request.method)
        .uri(request.url.path())
        .header(header::HOST, &host)
        .header(header::USER_AGENT, USER_AGENT);
    for (name, value) in request.headers {
        head = head.header(name, value);
    }
    let payload = Payload(Some(Bytes::from(request.body)).filter(|body| !body.is_empty()));
    let request = head.body(payload).map_err(|error| broken(error.to_string()))?;
    let response = within(HEADERS_TIMEOUT, conn.drive(sender.send_request(request))).await;
    match response {
        Some(Ok(response)) => {
            let (parts, body) = response.into_parts();
            let body = Body { incoming: body, conn, host };
            Ok(Response { status: parts.status, headers: parts.headers, body })
        }
        Some(Err(error)) => Err(broken(message(&error))),
        None => Err(broken(format!("no answer within {HEADERS_TIMEOUT:?}"))),
    }
}

/// hyper's message with its cause.
fn message(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Head and body of a response.
pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
}

impl Response {
    /// A header as text; none if it is not there or not ASCII.
    pub(super) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The body of a response, piece by piece.
pub(super) struct Body {
    incoming: Incoming,
    conn: Conn,
    host: String,
}

impl Body {
    /// The next bytes; none at the end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let broken = |why| RegistryError::Transfer { host: self.host.clone(), why };
        loop {
            let incoming = &mut self.incoming;
            let frame = self.conn.drive(poll_fn(|cx| Pin::new(&mut *incoming).poll_frame(cx)));
            match within(STALL_TIMEOUT, frame).await {
                None => return Err(broken(format!("nothing came for {STALL_TIMEOUT:?}"))),
                Some(None) => return Ok(None),
                Some(Some(Err(error))) => return Err(broken(message(&error))),
                Some(Some(Ok(frame))) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// The whole body, at most `limit` bytes.
    pub(super) async fn read(mut self, what: &'static str, limit: usize) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if bytes.len() + chunk.len() > limit {
                return Err(RegistryError::TooLarge { what, limit });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// At most `limit` bytes of the body; for messages, so errors end it.
    pub(super) async fn read_some(mut self, limit: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Ok(Some(chunk)) = self.chunk().await {
            bytes.extend_from_slice(&chunk);
            if bytes.len() >= limit {
                bytes.truncate(limit);
                break;
            }
        }
        bytes
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }
}

/// hyper's connection, until it has ended.
struct Conn(Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>);

impl Conn {
    /// Runs `future` to its end with the connection beside it. What the
    /// connection fails with, the future fails with too.
    async fn drive<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        poll_fn(|cx| {
            if self.0.as_mut().is_some_and(|conn| conn.as_mut().poll(cx).is_ready()) {
                self.0 = None;
            }
            future.as_mut().poll(cx)
        })
        .await
    }
}

/// `future`'s result, or none if it takes longer than `limit`.
pub(super) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let late = async {
        Timer::after(limit).await;
        None
    };
    async { Some(future.await) }.or(late).await
}

/// A request's body: nothing, or one piece.
struct Payload(Option<Bytes>);

impl hyper::body::Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
