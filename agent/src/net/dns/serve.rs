//! Serves tasks: their sockets, how much each may ask, and whom to ask on their behalf.
//!
//! A container may send whatever it likes as fast as it can. What it can take of the agent is bounded: answers of a
//! second (the rest is left to the kernel, which drops it), queries under way, connections, bytes of a query.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use smol::lock::{Semaphore, SemaphoreGuardArc};
use smol::{Async, LocalExecutor, Timer, future};

use super::forward::{self, Inside, Way};
use super::message::{self, Code, Query, Records};
use super::upstream::{self, Upstream};
use super::zone::{self, Found, Own};
use super::{PORT, SERVER, TTL};
use crate::limits;
use crate::net::ns::Namespace;
use crate::net::table::Table;
use crate::within::within;

/// Queries that are answered in a row before others get their turn.
const BATCH: usize = 16;
/// Pause of a task's server that answered as much as it may, or whose socket is broken.
const PAUSE: Duration = Duration::from_millis(20);

/// What all tasks' servers share.
pub(super) struct Board {
    executor: Rc<LocalExecutor<'static>>,
    table: Rc<RefCell<Table>>,
    upstream: Upstream,
    rng: RefCell<fastrand::Rng>,
    forwards: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    /// For one packet at a time; never borrowed over a wait.
    pub(super) buffer: RefCell<Box<[u8]>>,
}

impl Board {
    pub(super) fn new(
        executor: Rc<LocalExecutor<'static>>,
        table: Rc<RefCell<Table>>,
        resolv_conf: PathBuf,
        rng: fastrand::Rng,
    ) -> Self {
        Self {
            executor,
            table,
            upstream: Upstream::new(resolv_conf),
            rng: RefCell::new(rng),
            forwards: Arc::new(Semaphore::new(limits::FORWARDS_MAX)),
            connections: Arc::new(Semaphore::new(limits::NAME_CONNECTIONS_MAX)),
            buffer: RefCell::new(vec![0; limits::NAME_PACKET_BYTES_MAX].into()),
        }
    }

    pub(super) fn random_id(&self) -> u16 {
        self.rng.borrow_mut().u16(..)
    }

    fn spawn(&self, future: impl Future<Output = ()> + 'static) -> smol::Task<()> {
        self.executor.spawn(future)
    }
}

/// A task's servers. Dropped with the sockets and everything under way.
pub(super) struct Served {
    _udp: smol::Task<()>,
    _tcp: smol::Task<()>,
}

struct Seat {
    own: Own,
    /// The service's own servers.
    servers: Vec<SocketAddr>,
    /// Where they are asked from.
    inside: Option<Rc<Inside>>,
    allowance: Allowance,
}

/// Opens a task's sockets inside its network namespace and serves them.
pub(super) fn open(board: &Rc<Board>, own: Own, netns: &Path, servers: &[IpAddr]) -> io::Result<Served> {
    let netns = Namespace::at(netns)?;
    let address = SocketAddr::from((SERVER, PORT));
    let open = || io::Result::Ok((UdpSocket::bind(address)?, TcpListener::bind(address)?));
    let (udp_socket, listener) = netns.run(open)?.map_err(|error| {
        if error.kind() == io::ErrorKind::AddrInUse {
            io::Error::new(error.kind(), format!("the container has {address} itself"))
        } else {
            error
        }
    })?;
    let (udp_socket, listener) = (Async::new(udp_socket)?, Async::new(listener)?);
    let servers = upstream::of_service(servers);
    let inside = (!servers.is_empty()).then(|| Rc::new(Inside::new(netns)));
    let seat = Rc::new(Seat { own, servers, inside, allowance: Allowance::new(Instant::now()) });
    Ok(Served {
        _udp: board.spawn(udp(board.clone(), seat.clone(), Rc::new(udp_socket))),
        _tcp: board.spawn(tcp(board.clone(), seat, listener)),
    })
}

/// What becomes of a packet.
enum Reply {
    Send(Vec<u8>),
    Forward,
    Nothing,
}

/// Answers a packet from what is known. `limit`: bytes of an answer; none: what the query says.
fn reply(board: &Board, seat: &Seat, packet: &[u8], limit: Option<usize>) -> Reply {
    let query = match Query::parse(packet) {
        Ok(query) => query,
        Err(unfit) => return message::refusal(packet, unfit).map_or(Reply::Nothing, Reply::Send),
    };
    let limit = limit.unwrap_or_else(|| query.udp_limit());
    let found = if matches!(query.class, message::IN) {
        zone::find(&board.table.borrow(), &seat.own, &query.name, query.labels(), query.kind)
    } else {
        Found::Elsewhere
    };
    Reply::Send(match found {
        Found::Addresses(mut addresses) => {
            board.rng.borrow_mut().shuffle(&mut addresses);
            query.answer(Code::Fine, Records::Addresses(&addresses), TTL, limit)
        }
        Found::Name(name) => query.answer(Code::Fine, Records::Name(&name), TTL, limit),
        Found::Empty => query.answer(Code::Fine, Records::None, TTL, limit),
        Found::Unknown => query.answer(Code::NoName, Records::None, TTL, limit),
        Found::Elsewhere => return Reply::Forward,
    })
}

/// Whom to ask on a task's behalf.
fn way(board: &Board, seat: &Seat) -> Way {
    let servers = match (&*seat.servers, seat.own.net.mesh) {
        // What it asks must not leave its internal networks: names can carry anything.
        ([], None) => Vec::new(),
        ([], Some(_)) => board.upstream.servers(),
        (own, _) => own.to_vec(),
    };
    Way { servers, inside: seat.inside.clone() }
}

async fn udp(board: Rc<Board>, seat: Rc<Seat>, socket: Rc<Async<UdpSocket>>) {
    let mut forwards: Vec<smol::Task<()>> = Vec::new();
    loop {
        let mut is_idle = socket.readable().await.is_err();
        for _ in 0..BATCH {
            if !seat.allowance.take(Instant::now()) {
                is_idle = true;
                break;
            }
            let mut buffer = board.buffer.borrow_mut();
            let (packet, asker) = match socket.get_ref().recv_from(&mut buffer[..limits::QUERY_BYTES_MAX]) {
                Ok((length, asker)) => (&buffer[..length], asker),
                Err(error) => {
                    seat.allowance.give_back();
                    is_idle |= error.kind() != io::ErrorKind::WouldBlock;
                    break;
                }
            };
            match reply(&board, &seat, packet, None) {
                // An asker that is gone, or whose buffer is full, asks again.
                Reply::Send(answer) => drop(socket.get_ref().send_to(&answer, asker)),
                Reply::Forward => {
                    forwards.retain(|forward| !forward.is_finished());
                    let turn = board.forwards.try_acquire_arc();
                    // Beyond that it asks again.
                    if let Some(turn) = turn.filter(|_| forwards.len() < limits::FORWARDS_PER_TASK_MAX) {
                        let (board_, seat, socket) = (board.clone(), seat.clone(), socket.clone());
                        let forward = forward_udp(board_, seat, socket, asker, packet.into(), turn);
                        forwards.push(board.spawn(forward));
                    }
                }
                Reply::Nothing => {}
            }
        }
        if is_idle {
            Timer::after(PAUSE).await;
        } else {
            future::yield_now().await;
        }
    }
}

async fn forward_udp(
    board: Rc<Board>,
    seat: Rc<Seat>,
    socket: Rc<Async<UdpSocket>>,
    asker: SocketAddr,
    packet: Box<[u8]>,
    _turn: SemaphoreGuardArc,
) {
    let Ok(query) = Query::parse(&packet) else { return };
    let answer = forward::udp(&board, &way(&board, &seat), &query).await;
    // As above.
    let _ = socket.get_ref().send_to(&answer, asker);
}

async fn tcp(board: Rc<Board>, seat: Rc<Seat>, listener: Async<TcpListener>) {
    let mut connections: Vec<smol::Task<()>> = Vec::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            Timer::after(PAUSE).await;
            continue;
        };
        connections.retain(|connection| !connection.is_finished());
        if connections.len() >= limits::NAME_CONNECTIONS_PER_TASK_MAX {
            // The oldest goes.
            drop(connections.remove(0));
        }
        let turn = board.connections.acquire_arc().await;
        let (board_, seat) = (board.clone(), seat.clone());
        connections.push(board.spawn(async move {
            // However it ends, there is nobody to tell.
            let _ = connection(&board_, &seat, &stream).await;
            drop(turn);
        }));
    }
}

async fn connection(board: &Board, seat: &Seat, mut stream: &Async<TcpStream>) -> io::Result<()> {
    loop {
        let asked = async {
            let mut length = [0; 2];
            stream.read_exact(&mut length).await?;
            let length = usize::from(u16::from_be_bytes(length));
            if length > limits::QUERY_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut packet = vec![0; length];
            stream.read_exact(&mut packet).await?;
            Ok(packet)
        };
        let packet = within(limits::NAME_TCP_MAX, asked).await?;
        while !seat.allowance.take(Instant::now()) {
            Timer::after(PAUSE).await;
        }
        match reply(board, seat, &packet, Some(message::TCP_BYTES_MAX)) {
            Reply::Send(answer) => within(limits::NAME_TCP_MAX, write(stream, &answer)).await?,
            Reply::Forward => {
                let Ok(query) = Query::parse(&packet) else { return Ok(()) };
                forward::tcp(board, &way(board, seat), &query, stream).await?;
            }
            Reply::Nothing => return Ok(()),
        }
    }
}

/// Writes a message with its length before it, in one piece: some servers want it so.
pub(super) async fn write(mut stream: &Async<TcpStream>, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut out = Vec::with_capacity(2 + message.len());
    out.extend(length.to_be_bytes());
    out.extend(message);
    stream.write_all(&out).await
}

/// How many queries a task may ask: so many in a second, and as many at once.
struct Allowance {
    left: Cell<u32>,
    since: Cell<Instant>,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { left: Cell::new(limits::QUERIES_PER_SECOND_MAX), since: Cell::new(now) }
    }

    /// Takes one; false: there is none left.
    fn take(&self, now: Instant) -> bool {
        if self.left.get() == 0 {
            let passed = now.saturating_duration_since(self.since.get()).min(Duration::from_secs(1));
            let part = u128::from(limits::QUERIES_PER_SECOND_MAX) * passed.as_millis() / 1000;
            if part > 0 {
                self.left.set(u32::try_from(part).unwrap_or(limits::QUERIES_PER_SECOND_MAX));
                self.since.set(now);
            }
        }
        let left = self.left.get().checked_sub(1);
        left.inspect(|left| self.left.set(*left)).is_some()
    }

    fn give_back(&self) {
        self.left.set(self.left.get().saturating_add(1));
    }
}
