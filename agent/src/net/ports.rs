//! Ports of the board: one socket is bound for each that is published, so that a program of the board that has it
//! already is seen, and none takes it later.
//!
//! In: the ports of the mesh with their active tasks, and those of this board's own tasks. Out: which of them are
//! ours, and in words which are not. IPv4 never reaches the sockets: nf_tables has sent it elsewhere before. A TCP
//! connection over IPv6 does, and is [relayed](relay) to a task.
//!
//! ```text
//! wanted ─▶ bound ─▶ let go        a task's port that is taken rejects the task
//!    └▶ taken ─ tried again ─▶ bound       one of the mesh is told of until it is free
//! ```

mod book;
pub mod relay;
mod socket;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use racimo_common::id::TaskId;
use racimo_common::object::{HostPort, Protocol};
use rustix::event::epoll;

use book::Book;
use socket::Socket;

/// A port and whose it is: TCP's 80 has nothing to do with UDP's.
pub type Key = (Protocol, u16);

/// The board's published ports. Clones are the same.
#[derive(Clone)]
pub struct Ports {
    book: Rc<RefCell<Book<Socket>>>,
    /// Tells which TCP sockets have connections waiting.
    listeners: Rc<OwnedFd>,
}

impl Ports {
    /// None yet.
    ///
    /// # Errors
    /// The kernel has no room for one more file.
    pub fn new() -> io::Result<Self> {
        let listeners = Rc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        Ok(Self { book: Rc::default(), listeners })
    }

    /// Ports of the mesh, all of them, each with the addresses of its active tasks. New ones are bound, and those
    /// that were taken are tried again; the rest is let go.
    pub fn publish(&self, wanted: BTreeMap<Key, Vec<SocketAddrV4>>) {
        self.book.borrow_mut().publish(wanted, |key| self.bind(key));
    }

    /// Ports of a task, all or none: for 0 the kernel chooses a free one. Those that the task has already stay as
    /// they are, so that it may be asked again, and after a restart with what it was given before.
    ///
    /// # Errors
    /// One is taken, in words for the user.
    pub fn reserve(&self, task: TaskId, mesh: Ipv4Addr, ports: &[HostPort]) -> Result<Vec<HostPort>, String> {
        self.book.borrow_mut().reserve(task, mesh, ports, |key| self.bind(key))
    }

    /// A task's ports are free again; a port of the mesh that waited for one of them is bound.
    pub fn release(&self, task: TaskId) {
        self.book.borrow_mut().release(task);
        self.retry();
    }

    /// Tries ports of the mesh again that were taken. True: at least one is ours now.
    pub fn retry(&self) -> bool {
        self.book.borrow_mut().retry(|key| self.bind(key))
    }

    /// Whether the port is ours: only then traffic to it may be sent elsewhere.
    pub fn is_held(&self, key: Key) -> bool {
        self.book.borrow().is_held(key)
    }

    /// Whether the port is this task's.
    pub fn has(&self, task: TaskId, key: Key) -> bool {
        self.book.borrow().has(task, key)
    }

    /// Whether a port of the mesh is taken: [`retry`](Self::retry) it.
    pub fn is_short(&self) -> bool {
        self.book.borrow().is_short()
    }

    /// What is wrong, one sentence each.
    pub fn degraded(&self) -> Vec<String> {
        self.book.borrow().degraded()
    }

    fn bind(&self, (protocol, port): Key) -> io::Result<(u16, Socket)> {
        let socket = Socket::bind(protocol, port)?;
        let port = socket.port().unwrap_or(port);
        if let (Protocol::Tcp, Some(fd)) = (protocol, socket.fd()) {
            epoll::add(&*self.listeners, fd, epoll::EventData::new_u64(port.into()), epoll::EventFlags::IN)?;
        }
        Ok((port, socket))
    }
}
