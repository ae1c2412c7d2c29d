//! IPv6: connections that come to a published TCP port are taken here, and their bytes go on to a task over IPv4.
//!
//! The kernel moves the bytes between the two sockets by a pipe: none of them are in our memory. Each direction ends
//! on its own; an error on one side is one on the other.

use std::cell::Cell;
use std::io;
use std::net::{Shutdown, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use racimo_common::object::Protocol;
use racimo_common::quiet::Quiet;
use racimo_common::time::Mono;
use rustix::event::epoll;
use rustix::net::sockopt;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use smol::lock::{Semaphore, SemaphoreGuardArc};
use smol::{Async, LocalExecutor, Timer};

use super::Ports;
use crate::limits;
use crate::within::within;

/// A connection under way.
struct Relay {
    /// When bytes last came, from either side.
    active: Rc<Cell<Instant>>,
    work: smol::Task<()>,
}

/// Takes connections until dropped, which ends all of them.
pub async fn serve(ports: Ports, executor: Rc<LocalExecutor<'static>>) {
    let listeners = match ports.listeners.try_clone().and_then(Async::new) {
        Ok(listeners) => listeners,
        Err(error) => return log::warn!("published ports do not answer on IPv6: {error}"),
    };
    let room = std::sync::Arc::new(Semaphore::new(limits::RELAYS_MAX));
    let mut relays: Vec<Relay> = Vec::new();
    // Whoever connects may cause such a line.
    let (began, mut quiet) = (Instant::now(), Quiet::new(limits::RELAY_NOTES_MAX));
    loop {
        let waiting = listeners.read_with(first).await;
        let Ok(port) = waiting else {
            Timer::after(limits::RELAY_PAUSE).await;
            continue;
        };
        relays.retain(|relay| !relay.work.is_finished());
        let guard = place(&room, &mut relays).await;
        match accept(&ports, port) {
            Ok(Some((client, to))) => {
                let active = Rc::new(Cell::new(Instant::now()));
                let work = executor.spawn(relay(client, to, active.clone(), guard));
                relays.push(Relay { active, work });
            }
            // It went away, or the port was let go.
            Ok(None) => {}
            Err(error) => {
                if quiet.judge(port, Mono::default() + began.elapsed()).is_some() {
                    log::warn!("a connection to port {port}/tcp is not taken: {error}");
                }
                Timer::after(limits::RELAY_PAUSE).await;
            }
        }
    }
}

/// A port with a connection that waits.
fn first(listeners: &OwnedFd) -> io::Result<u16> {
    let mut events = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    match epoll::wait(listeners, &mut events, Some(&now))? {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(u16::try_from(events[0].data.u64()).unwrap_or_default()),
    }
}

/// Waits for room. Who has been silent for long makes it.
async fn place(room: &std::sync::Arc<Semaphore>, relays: &mut Vec<Relay>) -> SemaphoreGuardArc {
    loop {
        if let Some(guard) = room.try_acquire_arc() {
            return guard;
        }
        let silent = relays.iter().enumerate().min_by_key(|(_, relay)| relay.active.get());
        match silent.filter(|(_, relay)| relay.active.get().elapsed() >= limits::RELAY_SILENT_MIN) {
            Some((place, _)) => drop(relays.swap_remove(place)),
            None => {
                let later = async {
                    Timer::after(limits::RELAY_LOOK_EVERY).await;
                    None
                };
                let freed = async { Some(room.acquire_arc().await) };
                if let Some(guard) = smol::future::or(freed, later).await {
                    return guard;
                }
            }
        }
    }
}

/// Takes the connection, and where it may go.
fn accept(ports: &Ports, port: u16) -> io::Result<Option<(TcpStream, Vec<SocketAddrV4>)>> {
    let book = ports.book.borrow();
    let Some((socket, to)) = book.find((Protocol::Tcp, port)) else { return Ok(None) };
    let Some(fd) = socket.fd() else { return Ok(None) };
    match rustix::net::accept_with(fd, rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK) {
        Ok(client) => {
            let mut to = to.to_vec();
            fastrand::shuffle(&mut to);
            to.truncate(limits::RELAY_TRIES);
            Ok(Some((client.into(), to)))
        }
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::CONNABORTED | rustix::io::Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// One connection, from its beginning to its end.
async fn relay(client: TcpStream, to: Vec<SocketAddrV4>, active: Rc<Cell<Instant>>, _room: SemaphoreGuardArc) {
    let reset = client.try_clone();
    let done = async {
        let client = Async::new(client)?;
        let task = connect(&to).await?;
        for side in [&client, &task] {
            sockopt::set_tcp_nodelay(side, true)?;
            sockopt::set_socket_keepalive(side, true)?;
            sockopt::set_tcp_keepidle(side, limits::RELAY_SILENT_MIN)?;
        }
        let ended = smol::future::try_zip(pump(&client, &task, &active), pump(&task, &client, &active)).await;
        if ended.is_err() {
            abort(&task);
        }
        ended.map(drop)
    };
    let done: io::Result<()> = done.await;
    if let (Err(error), Ok(client)) = (done, reset) {
        log::debug!("a connection over IPv6 ended: {error}");
        abort(&client);
    }
}

/// Closing it will tell the other end that something was lost.
fn abort(stream: impl AsFd) {
    // What cannot be told so is told by an end.
    let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

/// Connects to the first task that answers.
async fn connect(to: &[SocketAddrV4]) -> io::Result<Async<TcpStream>> {
    let mut failed = io::Error::other("no task takes connections");
    for address in to {
        match within(limits::RELAY_CONNECT_MAX, Async::<TcpStream>::connect(*address)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Moves bytes one way until there are no more; then says so to the other end.
async fn pump(from: &Async<TcpStream>, to: &Async<TcpStream>, active: &Cell<Instant>) -> io::Result<()> {
    let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    loop {
        let read = |from: &TcpStream| Ok(splice(from, None, &into, None, limits::RELAY_BYTES, flags)?);
        let mut left = from.read_with(read).await?;
        if left == 0 {
            return to.get_ref().shutdown(Shutdown::Write);
        }
        active.set(Instant::now());
        while left > 0 {
            let write = |to: &TcpStream| Ok(splice(&out, None, to, None, left, flags)?);
            left -= to.write_with(write).await?;
            active.set(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
    use std::thread;

    use super::*;
    use crate::net::ports::Key;

    const BIG: usize = 3 << 20;

    /// Runs a relay until the client is done: one port that stands for what `to` says.
    fn through_a_relay(to: &[SocketAddrV4], client: impl FnOnce(u16) + Send + 'static) {
        let executor = Rc::new(LocalExecutor::new());
        let ports = Ports::new().expect("epoll");
        let port = free();
        ports.publish(BTreeMap::from([((Protocol::Tcp, port), to.to_vec())]));
        assert!(ports.is_held((Protocol::Tcp, port)) && ports.degraded().is_empty());
        let work = executor.spawn(serve(ports.clone(), executor.clone()));
        smol::block_on(executor.run(smol::unblock(move || client(port))));
        drop(work);
        ports.publish(BTreeMap::<Key, _>::new());
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).expect("free again");
    }

    fn free() -> u16 {
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).and_then(|free| free.local_addr()).expect("a free port").port()
    }

    fn task() -> (TcpListener, SocketAddrV4) {
        let task = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a task");
        let port = task.local_addr().expect("an address").port();
        (task, SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
    }

    #[test]
    fn bytes_and_ends_of_both_directions_arrive() {
        let (listener, address) = task();
        let serves = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut all = Vec::new();
            // The client's end is seen here while the other direction is open.
            stream.read_to_end(&mut all).expect("the request");
            stream.write_all(&all).and_then(|()| stream.write_all(b"end")).expect("the answer");
        });
        // The first task is gone: the next one takes it.
        let (gone, nobody) = task();
        drop(gone);
        through_a_relay(&[nobody, address], |port| {
            let mut client = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).expect("the port");
            let body: Vec<u8> = (0..BIG).map(|place| u8::try_from(place % 251).unwrap_or_default()).collect();
            client.write_all(&body).expect("the request");
            client.shutdown(Shutdown::Write).expect("its end");
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).expect("the answer");
            assert!(answer.strip_suffix(b"end").is_some_and(|echo| echo == body));
        });
        serves.join().expect("the task");
    }

    #[test]
    fn a_reset_is_one_on_the_other_side() {
        let (listener, address) = task();
        let serves = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            stream.write_all(b"half").expect("half an answer");
            let mut one = [0];
            stream.read_exact(&mut one).expect("a byte");
            abort(&stream);
        });
        through_a_relay(&[address], |port| {
            let mut client = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).expect("the port");
            let mut half = [0; 4];
            client.read_exact(&mut half).expect("half an answer");
            client.write_all(b"x").expect("a byte");
            let error = client.read_to_end(&mut Vec::new()).expect_err("no whole answer");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        });
        serves.join().expect("the task");
    }

    #[test]
    fn without_a_task_connections_are_reset() {
        through_a_relay(&[], |port| {
            let mut client = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).expect("the port");
            let error = client.read_to_end(&mut Vec::new()).expect_err("nothing to read");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        });
    }

    #[test]
    fn there_is_room_for_so_many() {
        let (listener, address) = task();
        let serves = thread::spawn(move || {
            let mut held = Vec::new();
            for _ in 0..=limits::RELAYS_MAX {
                held.push(listener.accept().expect("a connection"));
            }
        });
        through_a_relay(&[address], move |port| {
            let connect = || TcpStream::connect((Ipv6Addr::LOCALHOST, port)).expect("the port");
            let mut held: Vec<_> = (0..limits::RELAYS_MAX).map(|_| connect()).collect();
            // One more waits; when one ends, it is taken.
            held.push(connect());
            thread::sleep(Duration::from_millis(50));
            assert!(!serves.is_finished());
            // Gone in both directions.
            abort(held.swap_remove(0));
            serves.join().expect("all were taken");
        });
    }
}
