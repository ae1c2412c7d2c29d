//! A bound socket: `[::]`, which is every address of the board.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use racimo_common::object::Protocol;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use crate::{limits, sys};

/// The link that only the mesh's own packets come in by.
const NOWHERE: [&str; 2] = ["rc-mesh", "lo"];

/// A port that is ours.
#[derive(Debug)]
pub(super) struct Socket {
    /// None: the kernel does not know the protocol, so that no program has the port.
    fd: Option<OwnedFd>,
}

impl Socket {
    /// Takes a port on all addresses, of IPv6 as well where the board has it; 0: any free one.
    pub(super) fn bind(protocol: Protocol, port: u16) -> io::Result<Self> {
        match bind(AddressFamily::INET6, protocol, port) {
            Ok(fd) => Ok(Self { fd: Some(fd) }),
            Err(Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT) if port != 0 => Ok(Self { fd: None }),
            // No IPv6, neither in the kernel nor on this board.
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => {
                Ok(Self { fd: Some(bind(AddressFamily::INET, protocol, port)?) })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Its port; none: the kernel does not know the protocol.
    pub(super) fn port(&self) -> Option<u16> {
        let address = net::getsockname(self.fd.as_ref()?).ok()?;
        SocketAddr::try_from(address).ok().map(|address| address.port())
    }

    /// Its descriptor.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }
}

fn bind(family: AddressFamily, protocol: Protocol, port: u16) -> Result<OwnedFd, Errno> {
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, net::ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, net::ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, net::ipproto::SCTP),
    };
    let fd = net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, Some(number))?;
    let address = if family == AddressFamily::INET6 {
        sockopt::set_ipv6_v6only(&fd, false)?;
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
    } else {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
    };
    match protocol {
        Protocol::Tcp => {
            // Connections of an agent that ended are no conflict. A program that listens is one, whatever it allows.
            sockopt::set_socket_reuseaddr(&fd, true)?;
            net::bind(&fd, &address)?;
            net::listen(&fd, limits::RELAYS_WAITING_MAX)?;
        }
        Protocol::Udp | Protocol::Sctp => {
            // It conflicts with every program's socket all the same, but gets no datagrams: whoever sends one that
            // is for no task is told that nobody is there.
            let _ = NOWHERE.iter().find(|link| sys::bind_to_link(fd.as_fd(), link).is_ok());
            net::bind(&fd, &address)?;
        }
    }
    Ok(fd)
}
