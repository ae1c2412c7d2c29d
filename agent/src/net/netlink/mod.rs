//! Our own small netlink: what the recipe for a board's network needs, and nothing more.
//!
//! ```text
//! route     ─┐                              links, addresses, routes, neighbours, rules
//! nft        ├▶ Batch ─▶ Socket ─▶ kernel   tables, chains, sets, rules: one transaction, all or nothing
//! conntrack  │  Attributes ◀─┘              connections to a task that is gone
//! WireGuard ─┘                              in `net/wireguard`
//! ```
//!
//! Sockets block, but the kernel does the work inside `send`, so that an answer is there when `send` returns: on the
//! executor's thread this is like a file. A socket stays in the network namespace where it was opened.

pub mod conntrack;
pub mod message;
pub mod nft;
pub mod route;
pub mod socket;

use std::io;

pub use message::Batch;
pub use socket::Socket;

/// Why the kernel did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It refused one message. Of a transaction, nothing was done; otherwise all others were.
    #[error("{doing} (message {number}): {}{}", error_text(*errno), explained(explanation))]
    Refused {
        /// What the message asks for.
        doing: &'static str,
        /// Which message of the batch it is, from 1.
        number: u32,
        /// The kernel's error number, as in `libc::EEXIST`.
        errno: i32,
        /// What the kernel says about it; often empty.
        explanation: Box<str>,
    },
    /// The socket does not work.
    #[error("netlink socket")]
    Socket(#[from] io::Error),
    /// No answer in time: a bug of the kernel, or a driver that hangs. Whether it was done is not known.
    #[error("netlink: the kernel does not answer")]
    Silent,
    /// Answers were lost, so whether all was done is not known: look, and do it again.
    #[error("netlink: answers of the kernel were lost")]
    Overrun,
    /// What is there changed all the while it was listed.
    #[error("netlink: what is listed changes faster than it is read")]
    Unsteady,
    /// The batch or a message in it is larger than the kernel or we take; nothing was sent.
    #[error("netlink: more in one batch than goes into it")]
    TooLarge,
    /// There is more than we hold in memory.
    #[error("netlink: more entries than {}", crate::limits::NETLINK_LIST_MAX)]
    TooMany,
    /// An answer is not what it should be.
    #[error("netlink: the kernel's answer cannot be read")]
    Malformed,
    /// The kernel does not have this protocol: a module is missing.
    #[error("netlink: this kernel has no {0:?}")]
    NoFamily(&'static str),
}

impl Error {
    /// The kernel's error number, if it refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Refused { errno, .. } => Some(*errno),
            Error::Socket(error) => error.raw_os_error(),
            Error::NoFamily(_) => Some(libc::ENOENT),
            Error::Silent | Error::Overrun | Error::Unsteady | Error::TooLarge | Error::TooMany | Error::Malformed => {
                None
            }
        }
    }
}

fn error_text(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

fn explained(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}
