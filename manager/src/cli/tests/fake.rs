//! A manager made of a closure, on a unix socket; and a console made of buffers.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use serde_json::Value;
use time::OffsetDateTime;

use super::super::client::Client;
use super::super::console::Console;
use super::super::error::CliError;
use super::super::target::Target;
use super::super::{Cli, Command, run};

/// What the client sent.
pub(super) struct Request {
    /// "GET /nodes".
    pub(super) line: String,
    /// Decoded query, `filters` as JSON.
    pub(super) query: Value,
    /// JSON body, or null.
    pub(super) body: Value,
}

/// Status and body; `None` never answers.
pub(super) type Reply = Option<(u16, String)>;

/// What a command did.
pub(super) struct Outcome {
    pub(super) stdout: String,
    pub(super) stderr: String,
    pub(super) result: Result<(), CliError>,
}

/// Runs `pi-mgr ARGS` against a manager that answers with `reply`.
pub(super) fn pi_mgr(args: &[&str], now_ms: i64, reply: impl FnMut(Request) -> Reply + Send + 'static) -> Outcome {
    pi_mgr_typing("", args, now_ms, reply)
}

/// Runs `pi-mgr ARGS` and types this into it.
pub(super) fn pi_mgr_typing(
    typed: &str,
    args: &[&str],
    now_ms: i64,
    reply: impl FnMut(Request) -> Reply + Send + 'static,
) -> Outcome {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).expect("a socket");
    std::thread::spawn(move || serve(&listener, reply));
    let client = Client::new(Target::Unix(path)).with_answer_time_max(Duration::from_secs(2));
    typing(typed, args, now_ms, client)
}

/// Runs `pi-mgr ARGS` with that client.
pub(super) fn with_client(args: &[&str], now_ms: i64, client: Client) -> Outcome {
    typing("", args, now_ms, client)
}

fn typing(typed: &str, args: &[&str], now_ms: i64, mut client: Client) -> Outcome {
    let (out, err) = (Buffer::default(), Buffer::default());
    let mut console = Console {
        input: Box::new(std::io::Cursor::new(typed.to_owned())),
        is_typed: false,
        out: Box::new(out.clone()),
        is_shown: false,
        err: Box::new(err.clone()),
        columns: None,
        clock: Box::new(move || OffsetDateTime::UNIX_EPOCH + time::Duration::milliseconds(now_ms)),
        env: |_| None,
    };
    let cli = Cli::try_parse_from(std::iter::once("pi-mgr").chain(args.iter().copied()))
        .unwrap_or_else(|e| panic!("{args:?}: {e}"));
    let Command::Client(command) = cli.command else { panic!("{args:?} talks to no manager") };
    let result = smol::block_on(run(command, &mut client, &mut console));
    Outcome { stdout: out.text(), stderr: err.text(), result }
}

#[derive(Clone, Default)]
struct Buffer(Rc<RefCell<Vec<u8>>>);

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).expect("UTF-8")
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn serve(listener: &UnixListener, mut reply: impl FnMut(Request) -> Reply) {
    while let Ok((mut stream, _)) = listener.accept() {
        while let Some(request) = read(&mut stream) {
            match reply(request) {
                Some((status, body)) => {
                    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                    if stream.write_all(head.as_bytes()).is_err() {
                        break;
                    }
                }
                None => std::thread::sleep(Duration::from_secs(60)),
            }
        }
    }
}

fn read(stream: &mut UnixStream) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("an ASCII head");
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    let mut words = head.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let decoded = pairs.map(|(key, value)| {
        let value = decode(value);
        let value: Value = if key == "filters" { serde_json::from_str(&value).expect("JSON") } else { value.into() };
        (key.to_owned(), value)
    });
    Some(Request {
        line: format!("{method} {}", decode(path)),
        query: decoded.collect(),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    })
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let hex = std::str::from_utf8(&tail[..2]).expect("two digits");
            bytes.push(u8::from_str_radix(hex, 16).expect("two hex digits"));
            rest = &tail[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}
