//! A counting allocator: the agent's last line against eating a board's memory.
//!
//! Admission comes first: the fixed tables and bounded channels of [`crate::limits`]. Above the
//! hard limit this returns null, so `try_reserve` gets an error and everything else aborts. Then
//! systemd starts the agent again, and the containers, which live in their shims, never notice.
//! `main.rs` registers [`Counting`]; it stands on the C library's allocator, which is the smallest
//! we measured.

#![expect(unsafe_code, reason = "`GlobalAlloc` is an unsafe trait with unsafe methods")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    ptr,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Counts the bytes that are asked for, not what the allocator below adds to them.
struct Meter {
    used: AtomicUsize,
    peak: AtomicUsize,
    limit: AtomicUsize,
}

impl Meter {
    const fn new() -> Self {
        Self { used: AtomicUsize::new(0), peak: AtomicUsize::new(0), limit: AtomicUsize::new(usize::MAX) }
    }

    /// Books `bytes`; false, and nothing booked, if that would pass the limit.
    fn take(&self, bytes: usize) -> bool {
        let used = self.used.fetch_add(bytes, Relaxed).saturating_add(bytes);
        if used > self.limit.load(Relaxed) {
            self.give(bytes);
            return false;
        }
        self.peak.fetch_max(used, Relaxed);
        true
    }

    fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Relaxed);
    }
}

static METER: Meter = Meter::new();

/// The allocator to register with `#[global_allocator]`.
pub struct Counting;

/// Sets the hard limit in bytes; the default is none.
pub fn set_limit(bytes: usize) {
    METER.limit.store(bytes, Relaxed);
}

/// Bytes in use now; 0 unless [`Counting`] is registered.
pub fn used() -> usize {
    METER.used.load(Relaxed)
}

/// The most bytes that were ever in use at once.
pub fn peak() -> usize {
    METER.peak.load(Relaxed)
}

/// Runs `allocate` for `bytes`, and books them only if both the limit and `System` agree.
fn booked(bytes: usize, allocate: impl FnOnce() -> *mut u8) -> *mut u8 {
    if !METER.take(bytes) {
        return ptr::null_mut();
    }
    let memory = allocate();
    if memory.is_null() {
        METER.give(bytes);
    }
    memory
}

// SAFETY: every block comes from `System` with the caller's own layout and goes back to it;
// the meter only decides whether to ask.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: our caller keeps `GlobalAlloc::alloc`'s contract; it is passed on unchanged.
        booked(layout.size(), || unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`. Not the default method, which would touch every page.
        booked(layout.size(), || unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: `memory` came from `System` with this layout, as our caller promises.
        unsafe { System.dealloc(memory, layout) };
        METER.give(layout.size());
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: `memory` came from `System` with this layout, and `size` is valid for it, as
        // our caller promises.
        let grow = || unsafe { System.realloc(memory, layout, size) };
        if let Some(more) = size.checked_sub(layout.size()) {
            return booked(more, grow);
        }
        let moved = grow();
        if !moved.is_null() {
            METER.give(layout.size() - size);
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_meter_refuses_above_its_limit_and_books_nothing() {
        let meter = Meter::new();
        meter.limit.store(100, Relaxed);
        assert!(meter.take(60));
        assert!(!meter.take(41));
        assert!(meter.take(40));
        meter.give(90);
        assert_eq!((meter.used.load(Relaxed), meter.peak.load(Relaxed)), (10, 100));
    }

    #[test]
    fn blocks_keep_their_bytes_when_they_grow_and_shrink() {
        let layout = Layout::from_size_align(16, 8).unwrap();
        // SAFETY: one block, allocated, grown, shrunk and freed with its own layouts.
        unsafe {
            let block = Counting.alloc_zeroed(layout);
            block.write(7);
            let block = Counting.realloc(block, layout, 64);
            let block = Counting.realloc(block, Layout::from_size_align(64, 8).unwrap(), 8);
            assert_eq!(block.read(), 7);
            Counting.dealloc(block, Layout::from_size_align(8, 8).unwrap());
        }
        assert_eq!(used(), 0);
        assert!(peak() >= 64);
    }
}
