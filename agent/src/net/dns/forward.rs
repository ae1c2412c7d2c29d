//! Asks other name servers.
//!
//! In: a query, servers in order, where to ask from. Out: the first answer that is one. Each query has a socket of its
//! own, and so a port that nobody can guess, and an id of its own.

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use smol::Async;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::message::{Code, HEADER, Query};
use super::serve::Board;
use crate::limits;
use crate::net::ns::Namespace;
use crate::within::within;

/// Bytes of an answer that are held while it goes from one TCP connection to another.
const PIECE: usize = 512;

/// Whom to ask, and from where.
pub(super) struct Way {
    pub(super) servers: Vec<SocketAddr>,
    /// Where to ask from; none: the agent's own network namespace.
    pub(super) inside: Option<Rc<Inside>>,
}

/// A task's network namespace, and sockets that are open there already: each way in costs a thread.
pub(super) struct Inside {
    netns: Namespace,
    ahead: RefCell<Vec<OwnedFd>>,
}

impl Inside {
    pub(super) fn new(netns: Namespace) -> Self {
        Self { netns, ahead: RefCell::default() }
    }

    fn socket(&self, family: AddressFamily, kind: SocketType) -> io::Result<OwnedFd> {
        // The others are rare.
        if (family, kind) != (AddressFamily::INET, SocketType::DGRAM) {
            return self.netns.run(|| open(family, kind))?;
        }
        if let Some(socket) = self.ahead.borrow_mut().pop() {
            return Ok(socket);
        }
        let mut sockets = self.netns.run(|| {
            let first = open(family, kind)?;
            let others = (1..limits::FORWARD_SOCKETS_AHEAD).map_while(|_| open(family, kind).ok());
            io::Result::Ok(std::iter::once(first).chain(others).collect::<Vec<_>>())
        })??;
        let socket = sockets.pop().ok_or(io::ErrorKind::Other)?;
        *self.ahead.borrow_mut() = sockets;
        Ok(socket)
    }
}

/// Asks over UDP.
pub(super) async fn udp(board: &Board, way: &Way, query: &Query<'_>) -> Vec<u8> {
    for server in &way.servers {
        let asked = within(limits::FORWARD_MAX, ask(board, way, query, *server));
        // Whatever is wrong with one: the next.
        if let Ok(Some(answer)) = asked.await {
            return answer;
        }
    }
    query.fail(Code::Failed)
}

/// Asks one server over UDP; none: it will not tell.
async fn ask(board: &Board, way: &Way, query: &Query<'_>, server: SocketAddr) -> io::Result<Option<Vec<u8>>> {
    let socket = Async::new(UdpSocket::from(socket(way, server, SocketType::DGRAM)?))?;
    // What others send to this port is dropped by the kernel.
    rustix::net::connect(socket.as_fd(), &server)?;
    let id = board.random_id();
    socket.send(&query.with_id(id)).await?;
    loop {
        socket.readable().await?;
        let mut buffer = board.buffer.borrow_mut();
        let length = match socket.get_ref().recv(&mut buffer[..]) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let answer = &mut buffer[..length];
        if let Some(code) = query.adopt(id, answer) {
            return Ok(tells(code).then(|| query.fit(answer.to_vec())));
        }
    }
}

/// Asks over TCP, and hands the answer on to the asker piece by piece.
///
/// # Errors
/// The asker's connection is of no use any more.
pub(super) async fn tcp(board: &Board, way: &Way, query: &Query<'_>, mut asker: &Async<TcpStream>) -> io::Result<()> {
    for server in &way.servers {
        let begun = within(limits::FORWARD_MAX, begin(board, way, query, *server));
        let Ok(Some((mut stream, head, mut left))) = begun.await else { continue };
        let copied = async {
            asker.write_all(&head).await?;
            let mut piece = [0; PIECE];
            while left > 0 {
                let length = left.min(PIECE);
                stream.read_exact(&mut piece[..length]).await?;
                asker.write_all(&piece[..length]).await?;
                left -= length;
            }
            Ok(())
        };
        return within(limits::NAME_TCP_MAX, copied).await;
    }
    let answer = query.fail(Code::Failed);
    within(limits::NAME_TCP_MAX, super::serve::write(asker, &answer)).await
}

/// The connection, the beginning of the answer with its length before it, and how many bytes follow.
type Begun = (Async<TcpStream>, Vec<u8>, usize);

/// Asks one server over TCP; none: it will not tell.
async fn begin(board: &Board, way: &Way, query: &Query<'_>, server: SocketAddr) -> io::Result<Option<Begun>> {
    let mut stream = Async::new(TcpStream::from(socket(way, server, SocketType::STREAM)?))?;
    match rustix::net::connect(stream.as_fd(), &server) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    stream.writable().await?;
    if let Some(error) = stream.get_ref().take_error()? {
        return Err(error);
    }
    let id = board.random_id();
    super::serve::write(&stream, &query.with_id(id)).await?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let whole = usize::from(u16::from_be_bytes(length));
    let mut head = length.to_vec();
    head.resize(length.len() + whole.min(PIECE), 0);
    stream.read_exact(&mut head[length.len()..]).await?;
    let code = query.adopt(id, &mut head[length.len()..]);
    let left = whole.saturating_sub(PIECE);
    Ok(code.is_some_and(tells).then_some((stream, head, left)))
}

/// Whether an answer with this code is one: not that the server failed or refused.
fn tells(code: u8) -> bool {
    !matches!(code, 2 | 5)
}

fn socket(way: &Way, server: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    match &way.inside {
        None => open(family, kind),
        Some(inside) => inside.socket(family, kind),
    }
}

fn open(family: AddressFamily, kind: SocketType) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(family, kind, flags, None)?)
}

const _: () = assert!(PIECE >= HEADER + 255 + 4, "the question is in the first piece");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs root"]
    fn sockets_inside_a_task_are_opened_ahead_and_each_is_used_once() {
        let inside = Inside::new(Namespace::own().unwrap());
        let mut all = Vec::new();
        for at in 0..2 * limits::FORWARD_SOCKETS_AHEAD {
            let socket = inside.socket(AddressFamily::INET, SocketType::DGRAM).unwrap();
            let left = limits::FORWARD_SOCKETS_AHEAD - 1 - at % limits::FORWARD_SOCKETS_AHEAD;
            assert_eq!(inside.ahead.borrow().len(), left);
            // Each has a port of its own.
            rustix::net::connect(&socket, &SocketAddr::from(([127, 0, 0, 1], 53))).unwrap();
            all.push(UdpSocket::from(socket));
        }
        let ports: std::collections::BTreeSet<u16> = all.iter().map(|one| one.local_addr().unwrap().port()).collect();
        assert_eq!(ports.len(), all.len());
        inside.socket(AddressFamily::INET, SocketType::STREAM).unwrap();
        assert_eq!(inside.ahead.borrow().len(), 0);
    }
}
