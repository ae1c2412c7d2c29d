//! System calls that need `unsafe`, each behind a safe function.

use std::{ffi::CString, os::unix::ffi::OsStrExt, path::Path};

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
