//! TCP sockets that are listened on, also at addresses that come later: when a board boots, its manager may be there
//! before the Wi-Fi and DHCP.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen as begin, socket_with, sockopt};
use smol::Async;

/// The kernel cuts it to what it allows (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// Listens at an address, whether this machine has it yet or not: connections come once it is there.
///
/// # Errors
/// Somebody else listens there, or the system's.
pub(crate) fn listen(address: SocketAddr) -> io::Result<Async<TcpListener>> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    match address.ip() {
        IpAddr::V4(_) => sockopt::set_ip_freebind(&socket, true)?,
        IpAddr::V6(_) => sockopt::set_ipv6_freebind(&socket, true)?,
    }
    bind(&socket, &address)?;
    begin(&socket, BACKLOG)?;
    Async::new(socket.into())
}

/// Whether this machine has no such address at present.
pub(crate) fn is_absent(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_need_not_be_there_yet() {
        for (ip, absent) in
            [("127.0.0.1", false), ("0.0.0.0", false), ("192.0.2.77", true), ("::1", false), ("2001:db8::77", true)]
        {
            let ip: IpAddr = ip.parse().expect("an address");
            if ip.is_ipv6() && UdpSocket::bind("[::1]:0").is_err() {
                continue;
            }
            assert_eq!(is_absent(ip), absent, "{ip}");
            let listener = listen((ip, 0).into()).expect("it listens");
            let at = listener.get_ref().local_addr().expect("an address");
            assert_eq!(at.ip(), ip);
            // Nobody else does, there or not.
            assert_eq!(listen(at).map(drop).map_err(|error| error.kind()), Err(io::ErrorKind::AddrInUse));
        }
    }

    #[test]
    fn connections_come_in() {
        let listener = listen(([127, 0, 0, 1], 0).into()).expect("it listens");
        let at = listener.get_ref().local_addr().expect("an address");
        let client = std::net::TcpStream::connect(at).expect("it connects");
        let (_, from) = smol::block_on(listener.accept()).expect("it comes in");
        assert_eq!(client.local_addr().expect("an address"), from);
    }
}
