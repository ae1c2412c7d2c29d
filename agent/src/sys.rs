//! System calls that need `unsafe`, each behind a safe function.

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
