//! The other process of a measurement: answers connections, or makes them. It runs on a board's or a task's network.
//!
//! A connection begins with a byte: `c` is answered with a byte and closed; `b` gets bytes until the client closes.
//! iperf3 and wrk would need to be installed, and wrk speaks HTTP only.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use clap::Subcommand;

/// What the other process does.
#[derive(Subcommand)]
pub(crate) enum Sender {
    /// Answer connections to so many ports from this one on, for ever.
    #[command(hide = true)]
    Answer { port: u16, count: u16 },
    /// Count new connections.
    #[command(hide = true)]
    Connect { to: SocketAddrV4, milliseconds: u64 },
    /// Tell the kernel of 500 services, as an agent does.
    #[command(hide = true)]
    Apply,
    /// Count bytes that arrive on one connection.
    #[command(hide = true)]
    Fetch { to: SocketAddrV4, milliseconds: u64 },
}

/// Connections that are made or answered at once.
const AT_ONCE: usize = 4;
/// Longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

impl Sender {
    /// Runs it; it prints what it counted, per second.
    pub(crate) fn run(&self) -> Result<()> {
        match self {
            Self::Answer { port, count } => answer(*port, *count),
            Self::Apply => super::apply::run(),
            Self::Connect { to, milliseconds } => connect(*to, Duration::from_millis(*milliseconds)),
            Self::Fetch { to, milliseconds } => fetch(*to, Duration::from_millis(*milliseconds)),
        }
    }
}

fn answer(first: u16, count: u16) -> Result<()> {
    let listen = |port| TcpListener::bind(("0.0.0.0", port)).with_context(|| format!("listen on port {port}"));
    let listeners: Vec<TcpListener> = (first..first + count).map(listen).collect::<Result<_>>()?;
    std::thread::scope(|scope| {
        for listener in listeners.iter().flat_map(|listener| std::iter::repeat_n(listener, 2 * AT_ONCE)) {
            scope.spawn(|| {
                // Whoever hangs up early ends its own connection only.
                listener.incoming().flatten().for_each(|stream| drop(one(stream)));
            });
        }
    });
    Ok(())
}

fn one(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_nodelay(true)?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    if kind == *b"c" {
        return stream.write_all(b"c");
    }
    let bytes = [0x5a; 64 << 10];
    loop {
        stream.write_all(&bytes)?;
    }
}

fn open(to: SocketAddrV4, kind: u8) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&to.into(), ANSWER_MAX).with_context(|| format!("connect to {to}"))?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_nodelay(true)?;
    stream.write_all(&[kind])?;
    Ok(stream)
}

fn per_second(count: u64, begin: Instant) {
    println!("{}", super::table::as_f64(count) / begin.elapsed().as_secs_f64());
}

fn connect(to: SocketAddrV4, span: Duration) -> Result<()> {
    let begin = Instant::now();
    let count = || -> Result<u64> {
        let mut count = 0;
        while begin.elapsed() < span {
            let mut stream = open(to, b'c')?;
            // To the end: the other side closes first, so that this one's ports are free again.
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).with_context(|| format!("read from {to}"))?;
            anyhow::ensure!(answer == b"c", "{to} answered {answer:?}");
            count += 1;
        }
        Ok(count)
    };
    let total = std::thread::scope(|scope| -> Result<u64> {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(count)).collect();
        let counts = threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("panicked"))?);
        counts.sum()
    })?;
    per_second(total, begin);
    Ok(())
}

fn fetch(to: SocketAddrV4, span: Duration) -> Result<()> {
    let mut stream = open(to, b'b')?;
    let mut buffer = vec![0; 256 << 10];
    let (begin, mut total) = (Instant::now(), 0);
    while begin.elapsed() < span {
        let count = stream.read(&mut buffer).with_context(|| format!("read from {to}"))?;
        anyhow::ensure!(count > 0, "{to} closed");
        total += u64::try_from(count)?;
    }
    per_second(total, begin);
    Ok(())
}
