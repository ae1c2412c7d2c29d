//! Netlink sockets and network namespaces.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
    time::Duration,
};

const SOL_NETLINK: libc::c_int = 270;

/// A netlink socket of this protocol in the thread's network namespace, with room for `send` and `receive` bytes and
/// `answer_max` of patience.
#[expect(unsafe_code, reason = "no safe library of ours opens netlink sockets")]
pub(crate) fn netlink_socket(
    protocol: libc::c_int,
    send: usize,
    receive: usize,
    answer_max: Duration,
) -> io::Result<OwnedFd> {
    // SAFETY: socket has no memory effects; a descriptor that it returns is new and nobody else's.
    let socket = unsafe {
        let number = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol);
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(number)
    };
    let bytes = |count: usize| libc::c_int::try_from(count).unwrap_or(libc::c_int::MAX);
    // Without the rights to force them the usual buffers stay, which are enough for all but the largest batches.
    let _ = set(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &bytes(send));
    let _ = set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &bytes(receive));
    // Refusals are explained, requests not repeated in them; filters of listings are obeyed. All since Linux 4.20.
    for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK, libc::NETLINK_GET_STRICT_CHK] {
        let _ = set(&socket, SOL_NETLINK, option, &1);
    }
    // SAFETY: an all-zero timeval is one.
    let mut patience: libc::timeval = unsafe { std::mem::zeroed() };
    patience.tv_sec = answer_max.as_secs().try_into().unwrap_or(i32::MAX.into());
    patience.tv_usec = i32::try_from(answer_max.subsec_micros()).unwrap_or_default().into();
    // SAFETY: the value lives through the call, and its size is told.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const patience).cast(),
            size::<libc::timeval>(),
        )
    };
    if done == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

#[expect(unsafe_code, reason = "no safe library of ours sets these options")]
fn set(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, value: &libc::c_int) -> io::Result<()> {
    // SAFETY: the value lives through the call, and its size is told.
    let done = unsafe {
        let value: *const libc::c_int = value;
        libc::setsockopt(socket.as_raw_fd(), level, option, value.cast(), size::<libc::c_int>())
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn size<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}

/// Sends the bytes to the kernel as one piece.
#[expect(unsafe_code, reason = "no safe library of ours sends on a netlink socket")]
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    loop {
        // SAFETY: the kernel reads `bytes` within its length.
        let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if sent >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        // Interrupted before the kernel took anything: it takes all or nothing.
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// What one receiving brought.
pub(crate) enum Received {
    /// So many bytes.
    Bytes(usize),
    /// More than fit; the rest is lost.
    Cut,
    /// Nothing: not in time, or, without waiting, not now.
    Nothing,
    /// Messages were lost before this.
    Lost,
}

/// Receives one piece from the kernel, waiting for it or not. Pieces of others than the kernel are skipped.
#[expect(unsafe_code, reason = "no safe library of ours receives on a netlink socket")]
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], wait: bool) -> io::Result<Received> {
    loop {
        let flags = if wait { libc::MSG_TRUNC } else { libc::MSG_TRUNC | libc::MSG_DONTWAIT };
        // SAFETY: the kernel writes to `buffer` and `from` only, within the lengths it is told; all live through the
        // call. An all-zero sockaddr_nl is one.
        let (count, from) = unsafe {
            let mut from: libc::sockaddr_nl = std::mem::zeroed();
            let mut length = size::<libc::sockaddr_nl>();
            let count = libc::recvfrom(
                socket.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                flags,
                (&raw mut from).cast(),
                &raw mut length,
            );
            (count, from.nl_pid)
        };
        match usize::try_from(count) {
            Ok(_) if from != 0 => {}
            Ok(count) if count > buffer.len() => return Ok(Received::Cut),
            Ok(count) => return Ok(Received::Bytes(count)),
            Err(_) => {
                let error = io::Error::last_os_error();
                match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EAGAIN) => return Ok(Received::Nothing),
                    Some(libc::ENOBUFS) => return Ok(Received::Lost),
                    _ => return Err(error),
                }
            }
        }
    }
}

/// Moves the calling thread into a network namespace. Only for threads that end soon.
#[expect(unsafe_code, reason = "no safe library of ours wraps setns(2)")]
pub(crate) fn enter_network(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: setns has no memory effects; the descriptor is open.
    let done = unsafe { libc::setns(namespace.as_fd().as_raw_fd(), libc::CLONE_NEWNET) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Moves the calling thread into a new network namespace. Only for threads that end soon.
#[expect(unsafe_code, reason = "no safe library of ours wraps unshare(2)")]
pub(crate) fn new_network() -> io::Result<()> {
    // SAFETY: unshare of the network namespace has no memory effects.
    let done = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether the path is a mounted namespace, and not just a file.
#[expect(unsafe_code, reason = "no safe library of ours wraps statfs(2)")]
pub(crate) fn is_namespace(path: &std::ffi::CStr) -> io::Result<bool> {
    // The last is NSFS_MAGIC; its type differs between architectures.
    // SAFETY: the path ends with a NUL, and the kernel writes to `about` only. An all-zero statfs is one.
    let (done, is_namespace) = unsafe {
        let mut about: libc::statfs = std::mem::zeroed();
        (libc::statfs(path.as_ptr(), ptr::from_mut(&mut about)), about.f_type == 0x6e73_6673)
    };
    if done == 0 { Ok(is_namespace) } else { Err(io::Error::last_os_error()) }
}
