//! Names: a small DNS server for each task, on [`SERVER`] inside the task's network namespace.
//!
//! In: queries of containers (anything may come), the [`Table`], what each task is. Out: answers; queries for others'
//! names go on to the board's name servers, or to the service's own.
//!
//! ```text
//! socket in the task's namespace ─ message ─▶ Query ─ zone ─▶ ours ───────▶ answer
//!                                                      └────▶ elsewhere ─ forward ─▶ server ─▶ answer
//! ```
//!
//! The socket tells which task asks, so no address is looked at. Nothing of this is kept: after a restart of the agent
//! the sockets are opened again.

mod forward;
pub mod message;
#[cfg(test)]
mod message_tests;
mod serve;
mod upstream;
pub mod zone;
#[cfg(test)]
mod zone_tests;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use racimo_common::id::TaskId;
use smol::LocalExecutor;

use self::serve::{Board, Served};
pub use self::zone::Own;
use super::table::Table;

/// Where containers ask, as in Docker, on port 53 of UDP and TCP.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// Where the server really listens: the task's packet filter redirects port 53 of [`SERVER`] to it, so that port 53
/// stays free for the container.
pub const PORT: u16 = 10053;
/// Seconds that an answer may be kept: tasks come and go.
pub const TTL: u32 = 5;

/// The name servers of a board's tasks.
pub struct Dns {
    board: Rc<Board>,
    served: RefCell<BTreeMap<TaskId, Served>>,
}

impl Dns {
    /// Serves nobody yet. `resolv_conf` names the board's servers, and is read again when it changes. Queries are
    /// forwarded from the network namespace of the executor's thread.
    pub fn new(
        executor: Rc<LocalExecutor<'static>>,
        table: Rc<RefCell<Table>>,
        resolv_conf: PathBuf,
        rng: fastrand::Rng,
    ) -> Self {
        Self { board: Rc::new(Board::new(executor, table, resolv_conf, rng)), served: RefCell::default() }
    }

    /// Opens a task's server, unless it is open. The loopback device of its namespace must be up. `servers` are those
    /// of its service, asked from inside the task's namespace; none: the board's, asked from outside of it – unless
    /// the task has nothing but internal networks: what it asks must not leave them either.
    ///
    /// # Errors
    /// The namespace is not there, or its port is taken.
    pub fn open(&self, own: Own, netns: &Path, servers: &[IpAddr]) -> io::Result<()> {
        let task = own.task;
        if !self.is_open(task) {
            let served = serve::open(&self.board, own, netns, servers)?;
            self.served.borrow_mut().insert(task, served);
        }
        Ok(())
    }

    /// Closes a task's server, whose sockets would keep the namespace alive; they go in the executor's next turns.
    pub fn close(&self, task: TaskId) {
        self.served.borrow_mut().remove(&task);
    }

    /// Whether a task is served.
    pub fn is_open(&self, task: TaskId) -> bool {
        self.served.borrow().contains_key(&task)
    }
}
