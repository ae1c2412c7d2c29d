//! System calls that need `unsafe`, each behind a safe function.

pub(crate) mod net;

use std::{
    ffi::CString,
    fs::File,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, RawFd},
    os::unix::ffi::OsStrExt,
    path::Path,
    ptr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// Whether a 64-bit ARM kernel on this CPU runs 32-bit programs. Only the kernel knows: some cores
/// cannot (Cortex-A720), some kernels are built without it.
#[cfg(target_arch = "aarch64")]
#[expect(unsafe_code, reason = "no safe library of ours wraps personality(2)")]
pub(crate) fn runs_32_bit() -> bool {
    const PER_LINUX32: libc::c_ulong = 8;
    const ASK: libc::c_ulong = 0xffff_ffff;
    // SAFETY: personality has no memory effects. It changes what a program started by this thread
    // would see; none is started before the old value is back.
    unsafe {
        let before = libc::personality(ASK);
        let Ok(old) = libc::c_ulong::try_from(before) else { return false };
        // The kernel refuses this one exactly if it cannot run 32-bit programs.
        let can = libc::personality(PER_LINUX32) >= 0;
        libc::personality(old);
        can
    }
}

/// See above: on other architectures there is nothing to ask.
#[cfg(not(target_arch = "aarch64"))]
pub(crate) fn runs_32_bit() -> bool {
    false
}

/// Bytes of the kernel's memory pages: 4, 16 or 64 KiB.
#[expect(unsafe_code, reason = "no safe library of ours wraps sysconf(3)")]
pub(crate) fn page_size() -> u64 {
    // SAFETY: sysconf has no memory effects, and knows the page size on every system.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or_default()
}

/// Whether `dir` of an overlay's layer hides what lower layers have in the same place.
#[expect(unsafe_code, reason = "no safe library of ours wraps lgetxattr(2)")]
pub(crate) fn is_opaque(dir: &Path) -> bool {
    let Ok(dir) = CString::new(dir.as_os_str().as_bytes()) else { return false };
    let mut value = [0_u8; 1];
    // SAFETY: both strings end with a NUL, and the kernel writes at most `value.len()` bytes.
    let length = unsafe {
        libc::lgetxattr(dir.as_ptr(), c"trusted.overlay.opaque".as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    length == 1 && value == *b"y"
}

/// Gives `dir` the mark that [`is_opaque`] sees; false if the file system has no place for it.
#[cfg(test)]
#[expect(unsafe_code, reason = "no safe library of ours wraps lsetxattr(2)")]
pub(crate) fn make_opaque(dir: &Path) -> bool {
    let dir = CString::new(dir.as_os_str().as_bytes()).expect("a test's path has no NUL");
    // SAFETY: both strings end with a NUL, and the value has one byte.
    let set = unsafe { libc::lsetxattr(dir.as_ptr(), c"trusted.overlay.opaque".as_ptr(), b"y".as_ptr().cast(), 1, 0) };
    set == 0
}

/// Keeps the pool for blocking work (name resolution) at two threads instead of hundreds. Call it first in `main`.
#[expect(unsafe_code, reason = "the environment is process-wide")]
pub fn limit_threads() {
    // SAFETY: called before any other thread is started, so nobody reads the environment meanwhile.
    unsafe { std::env::set_var("BLOCKING_MAX_THREADS", "2") };
}

/// Makes a socket take only what comes in by this link.
#[expect(unsafe_code, reason = "no safe library of ours wraps SO_BINDTODEVICE")]
pub(crate) fn bind_to_link(socket: BorrowedFd<'_>, link: &str) -> io::Result<()> {
    let length = libc::socklen_t::try_from(link.len()).unwrap_or_default();
    // SAFETY: the descriptor is open, as it is borrowed; the kernel reads `length` bytes of the name.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_BINDTODEVICE, link.as_ptr().cast(), length)
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A descriptor that whoever started this program left open for it; none if it did not. Ask once for each.
#[expect(unsafe_code, reason = "a number from outside becomes a descriptor")]
pub(crate) fn inherited(number: RawFd) -> Option<File> {
    // SAFETY: fcntl(F_GETFD) has no memory effects. The descriptor is open, and nothing else in this program owns it:
    // it was open before `main`, and each is asked for once.
    unsafe { (libc::fcntl(number, libc::F_GETFD) >= 0).then(|| File::from_raw_fd(number)) }
}

static TERMINATED: AtomicBool = AtomicBool::new(false);

extern "C" fn terminated(_: libc::c_int) {
    TERMINATED.store(true, Ordering::Relaxed);
}

/// From now on SIGTERM only wakes [`wait_readable`].
#[expect(unsafe_code, reason = "no library of ours wraps sigaction(2) without a thread")]
pub(crate) fn catch_termination() {
    let handler: extern "C" fn(libc::c_int) = terminated;
    // SAFETY: all structures are local and live through the calls; the handler only stores to an atomic. The signal is
    // blocked but while `wait_readable` waits, so it is never lost between a look and a wait.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        libc::sigaction(libc::SIGTERM, &raw const action, ptr::null_mut());
        let mut blocked: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut blocked);
        libc::sigaddset(&raw mut blocked, libc::SIGTERM);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const blocked, ptr::null_mut());
    }
}

/// Why a wait ended.
pub(crate) struct Woken {
    /// Of each file, in order: whether a read would not wait.
    pub(crate) readable: Vec<bool>,
    /// Whether SIGTERM came, now or earlier.
    pub(crate) terminated: bool,
}

/// Waits until one of the files can be read, a signal comes or the time is over; none: for ever.
#[expect(unsafe_code, reason = "no library of ours wraps ppoll(2)")]
pub(crate) fn wait_readable(files: &[&File], within: Option<Duration>) -> Woken {
    let mut polled: Vec<libc::pollfd> =
        files.iter().map(|file| libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect();
    // SAFETY: the descriptors are open, as their files are borrowed; the kernel writes to `polled` only, within its
    // length; all other structures are local and live through the call.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        let mut limit: libc::timespec = std::mem::zeroed();
        let limit = within.map_or(ptr::null(), |within| {
            limit.tv_sec = within.as_secs().try_into().unwrap_or(i32::MAX.into());
            limit.tv_nsec = within.subsec_nanos() as libc::c_long;
            &raw const limit
        });
        let count = libc::nfds_t::try_from(polled.len()).unwrap_or(0);
        if libc::ppoll(polled.as_mut_ptr(), count, limit, &raw const none) < 0 {
            // Interrupted: what the kernel left there means nothing.
            polled.iter_mut().for_each(|polled| polled.revents = 0);
        }
    }
    let readable = polled.iter().map(|polled| polled.revents != 0).collect();
    Woken { readable, terminated: TERMINATED.load(Ordering::Relaxed) }
}
