//! A registry that misbehaves on demand: one thread per connection, one request each.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use futures_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};
use racimo_common::registry::Digest;
use racimo_common::registry::media::{OCI_INDEX, OCI_MANIFEST};

use crate::image::TestImage;

/// A request as it came; header names are in lower case.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value)
    }

    /// The first byte of the `Range` asked for.
    pub(crate) fn offset(&self) -> usize {
        let range = self.header("range").strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
        range.map_or(0, |from| from.parse().unwrap())
    }
}

/// What to answer.
#[derive(Default)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// Bytes of the body that are sent before the connection is cut.
    pub(crate) cut_after: Option<usize>,
}

impl Response {
    pub(crate) fn ok(content_type: &str, body: &[u8]) -> Self {
        Self { status: 200, headers: vec![("Content-Type", content_type.into())], body: body.into(), cut_after: None }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A running server; it ends with the process.
pub(crate) struct Fake {
    /// `127.0.0.1:port`.
    pub(crate) address: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Fake {
    pub(crate) fn plain(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        Self::start("127.0.0.1", None, answer)
    }

    /// With TLS, on a host that is not exempt from checks: Linux takes 0.0.0.0 as itself.
    pub(crate) fn tls(
        config: Arc<ServerConfig>,
        answer: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> Self {
        Self::start("0.0.0.0", Some(config), answer)
    }

    fn start(
        host: &str,
        tls: Option<Arc<ServerConfig>>,
        answer: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((host, 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, answer, tls) = (Arc::clone(&log), Arc::clone(&answer), tls.clone());
                std::thread::spawn(move || match tls {
                    None => serve(stream.unwrap(), &log, &*answer),
                    Some(config) => {
                        let connection = ServerConnection::new(config).unwrap();
                        serve(StreamOwned::new(connection, stream.unwrap()), &log, &*answer);
                    }
                });
            }
        });
        Self { address, seen }
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

/// Errors are the client's doing (it hung up, it does not like us): the connection just ends.
fn serve(stream: impl Read + Write, log: &Mutex<Vec<Request>>, answer: &(impl Fn(&Request) -> Response + ?Sized)) {
    let mut stream = BufReader::new(stream);
    let Some(request) = read(&mut stream) else { return };
    log.lock().unwrap().push(request.clone());
    let response = answer(&request);
    let mut head = format!("HTTP/1.1 {} X\r\nContent-Length: {}\r\n", response.status, response.body.len());
    for (name, value) in &response.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "Connection: close\r\n\r\n";
    let stream = stream.get_mut();
    let sent = if request.method == "HEAD" { 0 } else { response.cut_after.unwrap_or(response.body.len()) };
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&response.body[..sent]);
    let _ = stream.flush();
}

fn read(stream: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers, body: String::from_utf8(body).ok()? })
}

/// Answers like a registry that holds `image` as `single` and `multi`, in any repository.
pub(crate) fn serve_image(image: &TestImage, request: &Request) -> Response {
    let name = request.path.rsplit('/').next().unwrap();
    let documents = [(OCI_MANIFEST, &image.manifest, "single"), (OCI_INDEX, &image.index, "multi")];
    if request.path.contains("/manifests/") {
        for (media_type, bytes, tag) in documents {
            let digest = Digest::of(bytes).to_string();
            if name == tag || name == digest {
                return Response::ok(media_type, bytes).with("Docker-Content-Digest", digest);
            }
        }
        return Response {
            body: br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#.to_vec(),
            ..Response::status(404)
        };
    }
    let Some(blob) = image.blobs().find(|blob| Digest::of(blob).to_string() == name) else {
        return Response::status(404);
    };
    match request.offset() {
        0 => Response::ok("application/octet-stream", blob),
        from => Response { status: 206, ..Response::ok("application/octet-stream", &blob[from..]) }
            .with("Content-Range", format!("bytes {from}-{}/{}", blob.len() - 1, blob.len())),
    }
}
