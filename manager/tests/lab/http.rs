//! A small blocking HTTP/1.1 client: for the registry, for the manager's API
//! on its socket, and for looking at a task's page.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

/// One request takes no longer than this between two bytes.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Largest response kept.
const RESPONSE_BYTES_MAX: u64 = 64 << 20;

/// Whom to ask.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Response {
    /// The status code.
    pub(crate) status: u16,
    head: String,
    /// The body, without its transfer coding.
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// A header's value; names in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("status {}, body is no JSON: {}", self.status, self.text()))
    }
}

/// Sends one request on its own connection and reads the whole answer.
pub(crate) fn request(target: &Target, method: &str, path: &str, content_type: &str, body: &[u8]) -> Result<Response> {
    let context = || format!("{method} {path} at {target:?}");
    match target {
        Target::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, Duration::from_secs(5)).with_context(context)?;
            stream.set_read_timeout(Some(SILENCE_MAX))?;
            exchange(stream, &address.to_string(), method, path, content_type, body)
        }
        Target::Unix(socket) => {
            let stream = UnixStream::connect(socket).with_context(context)?;
            stream.set_read_timeout(Some(SILENCE_MAX))?;
            exchange(stream, "racimo", method, path, content_type, body)
        }
    }
    .with_context(context)
}

fn exchange(
    mut stream: impl Read + Write,
    host: &str,
    method: &str,
    path: &str,
    content_type: &str,
    body: &[u8],
) -> Result<Response> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    if !content_type.is_empty() {
        head.push_str(&format!("Content-Type: {content_type}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    stream.flush()?;
    let mut raw = Vec::new();
    stream.take(RESPONSE_BYTES_MAX).read_to_end(&mut raw)?;
    parse(&raw, method == "HEAD")
}

fn parse(raw: &[u8], headless: bool) -> Result<Response> {
    const BLANK: &[u8] = b"\r\n\r\n";
    let end = raw.windows(BLANK.len()).position(|window| window == BLANK);
    let (head, body) = raw.split_at(end.context("no complete head in the answer")?);
    let body = body.get(BLANK.len()..).unwrap_or_default();
    let head = String::from_utf8_lossy(head).into_owned();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status in the answer")?;
    let mut response = Response { status, head, body: Vec::new() };
    let chunked = response.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
    let length: Option<usize> = response.header("content-length").and_then(|n| n.parse().ok());
    response.body = if headless {
        Vec::new()
    } else if chunked {
        dechunk(body)?
    } else {
        let length = length.unwrap_or(body.len());
        body.get(..length).context("the answer is cut short")?.to_vec()
    };
    Ok(response)
}

fn dechunk(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|w| w == b"\r\n") else {
            bail!("the chunked answer is cut short");
        };
        let (line, after) = rest.split_at(end);
        let size = std::str::from_utf8(line)
            .ok()
            .and_then(|line| usize::from_str_radix(line.split(';').next()?.trim(), 16).ok());
        let size = size.context("a chunk without a size")?;
        if size == 0 {
            return Ok(body);
        }
        let after = after.get(2..).unwrap_or_default();
        ensure!(after.len() > size.saturating_add(1), "the chunked answer is cut short");
        let (chunk, next) = after.split_at(size);
        body.extend_from_slice(chunk);
        rest = next.get(2..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(raw: &str, expected: Option<(u16, &str)>) {
        let found = parse(raw.as_bytes(), false).ok().map(|r| (r.status, r.text()));
        assert_eq!(found, expected.map(|(status, body)| (status, body.to_owned())), "{raw:?}");
    }

    #[test]
    fn answers() {
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Some((200, "ok")));
        check("HTTP/1.1 204 No Content\r\n\r\n", Some((204, "")));
        check("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", None);
        check(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n",
            Some((200, "abc")),
        );
        check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", None);
        check("HTTP/1.1 200 OK\r\n", None);
        check("", None);
    }
}
