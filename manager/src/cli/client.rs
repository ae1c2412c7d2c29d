//! The HTTP client: Docker's JSON API over a unix socket, TCP or TLS.
//!
//! One connection, opened at the first request and kept for the next ones. Every request has a
//! time limit, every body a size limit.

use std::fs;
use std::future::poll_fn;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::FutureExt;
use futures_rustls::TlsConnector;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, Response};
use racimo_common::tls::{ClientConfig, ServerName, TlsFault};
use serde_json::Value;
use smol::Timer;
use smol_hyper::rt::FuturesIo;

use super::error::CliError;
use super::limits;
use super::ours::ours;
use super::target::Target;
use super::url::Url;
use crate::api::listen::groups;

/// Extra headers of one request.
pub(crate) type Headers<'a> = &'a [(&'static str, &'a str)];

/// A client of one manager.
pub(crate) struct Client {
    target: Target,
    tls: Option<Arc<ClientConfig>>,
    answer_time_max: Duration,
    link: Option<Link>,
}

struct Link {
    sender: SendRequest<String>,
    /// Drives the connection; ends when it is dropped.
    _driver: smol::Task<()>,
}

impl Client {
    /// A client that has not connected yet.
    pub(crate) fn new(target: Target) -> Client {
        Client { target, tls: None, answer_time_max: limits::ANSWER_TIME_MAX, link: None }
    }

    /// Shows a certificate, and looks at the manager's.
    pub(crate) fn with_tls(mut self, tls: Arc<ClientConfig>) -> Client {
        self.tls = Some(tls);
        self
    }

    /// Waits no longer than this for each answer.
    #[cfg(test)]
    pub(crate) fn with_answer_time_max(mut self, time: Duration) -> Client {
        self.answer_time_max = time;
        self
    }

    /// Another client of the same manager, which has not connected yet.
    pub(crate) fn another(&self) -> Client {
        Client { target: self.target.clone(), tls: self.tls.clone(), answer_time_max: self.answer_time_max, link: None }
    }

    /// Why an answer ended that was to go on: an access that was revoked, a manager that is gone. `Ok`: neither.
    pub(crate) async fn why_ended(&mut self) -> Result<(), CliError> {
        self.get(&Url::new(&["version"])).await.map(drop)
    }

    /// Why an answer broke off, if the manager says more of it than the connection did.
    pub(crate) async fn why_broken(&mut self, error: CliError) -> CliError {
        // The link may not know yet that it is broken.
        self.link = None;
        match self.why_ended().await {
            Err(said @ CliError::Api { .. }) => said,
            Ok(()) | Err(_) => error,
        }
    }

    /// Where this client talks to.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// `GET`; the parsed body.
    pub(crate) async fn get(&mut self, url: &Url) -> Result<Value, CliError> {
        self.call(Method::GET, url, None, &[]).await
    }

    /// `GET` with headers of its own.
    pub(crate) async fn get_with(&mut self, url: &Url, headers: Headers<'_>) -> Result<Value, CliError> {
        self.call(Method::GET, url, None, headers).await
    }

    /// `POST` of a JSON body (none for `Null`); the parsed answer, `Null` when it is empty.
    pub(crate) async fn post(&mut self, url: &Url, body: &Value, headers: Headers<'_>) -> Result<Value, CliError> {
        self.call(Method::POST, url, Some(body).filter(|body| !body.is_null()), headers).await
    }

    /// `DELETE`.
    pub(crate) async fn delete(&mut self, url: &Url) -> Result<(), CliError> {
        self.call(Method::DELETE, url, None, &[]).await.map(|_| ())
    }

    /// `GET` of an endless answer, read line by line. Only the headers must come in time.
    pub(crate) async fn lines(&mut self, url: &Url) -> Result<Lines, CliError> {
        let limit = self.answer_time_max;
        let response = self.within(limit, url, Method::GET, None, &[]).await?;
        if !response.status().is_success() {
            let name = format!("GET {}", url.as_str());
            let status = response.status().as_u16();
            let body = self.body(response, limit, &name).await?;
            return Err(refusal(status, &body));
        }
        Ok(Lines { body: response.into_body(), buffer: Vec::new(), target: self.target.to_string() })
    }

    /// `GET` of a file, of so many bytes at most. Each piece must come in time; all of it may take longer.
    pub(crate) async fn download(&mut self, url: &Url, bytes_max: usize) -> Result<Vec<u8>, CliError> {
        let (limit, name) = (self.answer_time_max, format!("GET {}", url.as_str()));
        let Lines { mut body, .. } = self.lines(url).await?;
        let mut bytes = Vec::new();
        loop {
            let late = async {
                Timer::after(limit).await;
                Err(self.timeout(limit))
            };
            let piece = async { Ok(chunk(&mut body).await) }.or(late).await?;
            match piece {
                None => return Ok(bytes),
                Some(Ok(piece)) if bytes.len() + piece.len() <= bytes_max => bytes.extend_from_slice(&piece),
                Some(Ok(_)) => {
                    let reason = format!("it is larger than {} MiB", bytes_max >> 20);
                    return Err(CliError::Answer { request: name, reason });
                }
                Some(Err(e)) => {
                    return Err(CliError::Transport { target: self.target.to_string(), reason: e.to_string() });
                }
            }
        }
    }

    /// `GET` of logs, frame by frame, or (`raw`) in the pieces in which they come. Only the headers must come in time.
    pub(crate) async fn frames(&mut self, url: &Url, raw: bool) -> Result<Frames, CliError> {
        let lines = self.lines(url).await?;
        Ok(Frames { body: lines.body, buffer: lines.buffer, at: 0, target: lines.target, raw })
    }

    async fn call(
        &mut self,
        method: Method,
        url: &Url,
        body: Option<&Value>,
        headers: Headers<'_>,
    ) -> Result<Value, CliError> {
        let name = format!("{method} {}", url.as_str());
        let limit = self.answer_time_max;
        let response = self.within(limit, url, method, body, headers).await?;
        let status = response.status();
        let bytes = self.body(response, limit, &name).await?;
        if !status.is_success() {
            return Err(refusal(status.as_u16(), &bytes));
        }
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|e| CliError::Answer { request: name, reason: e.to_string() })
    }

    async fn within(
        &mut self,
        limit: Duration,
        url: &Url,
        method: Method,
        body: Option<&Value>,
        headers: Headers<'_>,
    ) -> Result<Response<Incoming>, CliError> {
        let timeout = self.timeout(limit);
        let send = self.send(method, url, body, headers);
        send.or(async {
            Timer::after(limit).await;
            Err(timeout)
        })
        .await
    }

    async fn body(&self, response: Response<Incoming>, limit: Duration, name: &str) -> Result<Vec<u8>, CliError> {
        let timeout = self.timeout(limit);
        let read = read_all(response.into_body(), &self.target, name);
        read.or(async {
            Timer::after(limit).await;
            Err(timeout)
        })
        .await
    }

    async fn send(
        &mut self,
        method: Method,
        url: &Url,
        body: Option<&Value>,
        headers: Headers<'_>,
    ) -> Result<Response<Incoming>, CliError> {
        let is_plain = self.tls.is_none();
        let broken = |target: &Target, e: hyper::Error| match refused(&e) {
            None if is_plain && e.is_parse() && matches!(target, Target::Tcp(..)) => {
                CliError::NeedsTls { target: target.to_string() }
            }
            // With TLS 1.3 a client learns only afterwards that its certificate was refused.
            Some(fault) => no_tls(target, &fault),
            None => CliError::Transport { target: target.to_string(), reason: e.to_string() },
        };
        let mut request = Request::builder()
            .method(method)
            .uri(url.as_str())
            .header(HOST, self.target.authority())
            .header(USER_AGENT, concat!("pi-mgr/", env!("CARGO_PKG_VERSION")));
        for (key, value) in headers {
            request = request.header(*key, *value);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(body.map(Value::to_string).unwrap_or_default())
            .map_err(|e| CliError::Refused(format!("cannot form the request {}: {e}", url.as_str())))?;
        let mut link = match self.link.take() {
            Some(link) if !link.sender.is_closed() => link,
            _ => connect(&self.target, self.tls.as_ref()).await?,
        };
        link.sender.ready().await.map_err(|e| broken(&self.target, e))?;
        let response = link.sender.send_request(request).await.map_err(|e| broken(&self.target, e))?;
        self.link = Some(link);
        Ok(response)
    }

    fn timeout(&self, limit: Duration) -> CliError {
        CliError::Timeout { target: self.target.to_string(), seconds: limit.as_secs() }
    }
}

/// Lines of a streamed answer.
pub(crate) struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
    target: String,
}

impl Lines {
    /// The next non-empty line, `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<String>, CliError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                match String::from_utf8_lossy(&line).trim() {
                    "" => continue,
                    line => return Ok(Some(line.to_owned())),
                }
            }
            if self.buffer.len() > limits::LINE_BYTES_MAX {
                let reason = format!("a line is longer than {} bytes", limits::LINE_BYTES_MAX);
                return Err(CliError::Transport { target: self.target.clone(), reason });
            }
            match chunk(&mut self.body).await {
                Some(Ok(data)) => self.buffer.extend_from_slice(&data),
                Some(Err(e)) => {
                    return Err(CliError::Transport { target: self.target.clone(), reason: e.to_string() });
                }
                None if self.buffer.is_empty() => return Ok(None),
                None => self.buffer.push(b'\n'),
            }
        }
    }
}

/// Frames of a log: a stream's number (1 output, 2 errors, 3 faults) and bytes.
pub(crate) struct Frames {
    body: Incoming,
    buffer: Vec<u8>,
    /// Where in the buffer the next frame begins.
    at: usize,
    target: String,
    raw: bool,
}

impl Frames {
    /// Whether the next frame must be waited for.
    pub(crate) fn is_drained(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next frame, `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<(u8, Vec<u8>)>, CliError> {
        let broken = |target: &str, reason: String| CliError::Transport { target: target.to_owned(), reason };
        loop {
            if self.raw && !self.buffer.is_empty() {
                return Ok(Some((1, std::mem::take(&mut self.buffer))));
            }
            if let Some((head, rest)) = self.buffer[self.at..].split_first_chunk::<8>() {
                let [stream, _, _, _, length @ ..] = *head;
                let length = u32::from_be_bytes(length) as usize;
                if length > limits::LINE_BYTES_MAX {
                    return Err(broken(&self.target, format!("a frame of {length} bytes is too long")));
                }
                if rest.len() >= length {
                    let bytes = rest[..length].to_vec();
                    self.at += 8 + length;
                    if self.at == self.buffer.len() {
                        (self.at, self.buffer) = (0, Vec::new());
                    }
                    return Ok(Some((stream, bytes)));
                }
            }
            // What is left is less than a frame.
            self.buffer.drain(..std::mem::take(&mut self.at));
            match chunk(&mut self.body).await {
                Some(Ok(data)) => self.buffer.extend_from_slice(&data),
                Some(Err(e)) => return Err(broken(&self.target, e.to_string())),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(broken(&self.target, "the stream ended inside a frame".to_owned())),
            }
        }
    }
}

async fn connect(target: &Target, tls: Option<&Arc<ClientConfig>>) -> Result<Link, CliError> {
    let failed = |source| CliError::Connect { target: target.to_string(), source };
    let handshake = |e: hyper::Error| CliError::Transport { target: target.to_string(), reason: e.to_string() };
    match target {
        Target::Unix(path) => {
            let stream = limited(smol::net::unix::UnixStream::connect(path)).await;
            let stream = stream.map_err(|source| {
                let is_denied = source.kind() == io::ErrorKind::PermissionDenied;
                let denied = || CliError::Denied { target: target.to_string(), group: group(path) };
                if is_denied { denied() } else { failed(source) }
            })?;
            let (sender, driver) = http1::handshake(FuturesIo::new(stream)).await.map_err(handshake)?;
            Ok(link(sender, driver))
        }
        Target::Tcp(host, port) => {
            let address = (host.as_str(), *port);
            let stream = limited(smol::net::TcpStream::connect(address)).await.map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            if let Some(tls) = tls {
                let name = ServerName::try_from(host.clone()).map_err(|_| {
                    CliError::Usage(format!("{target}: neither an address nor a name that a certificate can have"))
                })?;
                let shaken = limited(TlsConnector::from(tls.clone()).connect(name, stream)).await;
                let stream = shaken.map_err(|error| match TlsFault::of(&error) {
                    Some(fault) => no_tls(target, &fault),
                    None => {
                        let reason =
                            format!("{error}; has the manager a cluster? its log says why it closes connections");
                        CliError::Tls { target: target.to_string(), reason }
                    }
                })?;
                let (sender, driver) = http1::handshake(FuturesIo::new(stream)).await.map_err(handshake)?;
                return Ok(link(sender, driver));
            }
            let (sender, driver) = http1::handshake(FuturesIo::new(stream)).await.map_err(handshake)?;
            Ok(link(sender, driver))
        }
    }
}

/// Who beside root may open a socket, in words.
fn group(path: &Path) -> String {
    let id = fs::metadata(path).map(|it| it.gid()).ok().filter(|id| *id != 0);
    let text = fs::read_to_string("/etc/group").unwrap_or_default();
    match groups(&text).find(|(_, number)| Some(*number) == id) {
        Some((name, _)) => format!("the group {name} (`sudo usermod -aG {name} $USER`, then log in again)"),
        None => "the manager's `socket-group`, by default racimo, if there is one".to_owned(),
    }
}

/// The fault of TLS behind an error of HTTP.
fn refused(error: &hyper::Error) -> Option<TlsFault> {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(fault) = cause.downcast_ref::<io::Error>().and_then(TlsFault::of) {
            return Some(fault);
        }
        source = cause.source();
    }
    None
}

fn no_tls(target: &Target, fault: &TlsFault) -> CliError {
    let reason = match fault {
        TlsFault::RefusedUs(why) => format!("it refused the certificate of this context: {why}"),
        TlsFault::Foreign => {
            "its certificate is not of the cluster of this context: it is another cluster's, or somebody is in between"
                .to_owned()
        }
        TlsFault::NotTls => "it does not speak TLS there".to_owned(),
        TlsFault::WrongRoot
        | TlsFault::NotManager
        | TlsFault::Expired
        | TlsFault::BadCertificate(_)
        | TlsFault::Other(_) => fault.to_string(),
    };
    CliError::Tls { target: target.to_string(), reason }
}

async fn limited<T>(connect: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    connect
        .or(async {
            Timer::after(limits::CONNECT_TIME_MAX).await;
            Err(io::ErrorKind::TimedOut.into())
        })
        .await
}

fn link(sender: SendRequest<String>, driver: impl Future<Output = hyper::Result<()>> + Send + 'static) -> Link {
    // A broken connection shows as the error of the request that uses it.
    Link { sender, _driver: smol::spawn(async move { drop(driver.await) }) }
}

async fn read_all(mut body: Incoming, target: &Target, name: &str) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    while let Some(data) = chunk(&mut body).await {
        let data = data.map_err(|e| CliError::Transport { target: target.to_string(), reason: e.to_string() })?;
        if bytes.len() + data.len() > limits::ANSWER_BYTES_MAX {
            let reason = format!("the body is larger than {} MiB", limits::ANSWER_BYTES_MAX >> 20);
            return Err(CliError::Answer { request: name.to_owned(), reason });
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

async fn chunk(body: &mut Incoming) -> Option<hyper::Result<hyper::body::Bytes>> {
    loop {
        match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await? {
            Ok(frame) => {
                if let Ok(data) = frame.into_data() {
                    return Some(Ok(data));
                }
            }
            Err(e) => return Some(Err(e)),
        }
    }
}

/// The manager's `{"message": …}`, or what it said instead.
fn refusal(status: u16, body: &[u8]) -> CliError {
    let message = serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|v| v.get("message")?.as_str().map(str::to_owned))
        .unwrap_or_else(|| match String::from_utf8_lossy(body).trim() {
            "" => format!("the manager answered with status {status}"),
            text => text.chars().take(1000).collect(),
        });
    CliError::Api { status, message: ours(&message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the TLS port answers what is no TLS.
    #[test]
    fn a_port_that_speaks_tls_is_told_of() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            use std::io::{Read, Write};
            let (mut stream, _) = listener.accept().expect("a client");
            let _ = stream.read(&mut [0; 64]);
            // An alert: fatal, decode error.
            let _ = stream.write_all(&[0x15, 3, 3, 0, 2, 2, 50]);
        });
        let mut client = Client::new(Target::Tcp("127.0.0.1".to_owned(), port));
        let error = smol::block_on(client.get(&Url::new(&["info"]))).expect_err("no HTTP");
        assert!(matches!(error, CliError::NeedsTls { .. }) && error.to_string().contains("--context NAME"), "{error}");
    }
}
