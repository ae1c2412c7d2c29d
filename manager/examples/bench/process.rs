//! What the kernel says about a process.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Memory of a process in KiB.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// `VmRSS`.
    pub(crate) rss: u64,
    /// `VmHWM`: the highest `VmRSS` ever.
    pub(crate) peak: u64,
    /// `RssAnon`.
    pub(crate) anon: u64,
    /// `Private_Dirty` of `smaps_rollup`.
    pub(crate) private_dirty: u64,
    /// Resident parts, by mapping.
    pub(crate) parts: Parts,
}

/// `Rss` of `smaps`, in KiB.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Parts {
    /// Code and constants of the program itself (file pages, which the kernel can drop and share).
    pub(crate) program: u64,
    /// The same of its libraries.
    pub(crate) libraries: u64,
    /// `[heap]`.
    pub(crate) heap: u64,
    /// Other anonymous memory: large allocations, threads' stacks and arenas, relocated and written data.
    pub(crate) other: u64,
}

/// Counters that only grow.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counters {
    /// Time on a CPU, all threads.
    pub(crate) cpu: Duration,
    /// Times a thread slept and was woken (voluntary context switches).
    pub(crate) wakes: u64,
    /// `write_bytes` of `/proc/PID/io`: pages it made dirty and left to be written.
    pub(crate) write_bytes: u64,
}

impl Counters {
    /// What was added since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            wakes: self.wakes.saturating_sub(earlier.wakes),
            write_bytes: self.write_bytes.saturating_sub(earlier.write_bytes),
        }
    }
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = PathBuf::from(format!("/proc/{pid}/{file}"));
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

/// The number after `key:` in lines of `key: number [unit]`.
fn field(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// A process's memory now.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let status = read(pid, "status")?;
    Ok(Memory {
        rss: field(&status, "VmRSS"),
        peak: field(&status, "VmHWM"),
        anon: field(&status, "RssAnon"),
        private_dirty: field(&read(pid, "smaps_rollup")?, "Private_Dirty"),
        parts: parts(&read(pid, "smaps")?),
    })
}

fn parts(smaps: &str) -> Parts {
    let mut parts = Parts::default();
    let mut name = "";
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let first = words.next().unwrap_or("");
        let size = || line.split_ascii_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
        if !first.ends_with(':') {
            // address permissions offset device inode name
            name = words.nth(4).unwrap_or("");
        } else if first == "Rss:" {
            match name {
                "[heap]" => parts.heap += size(),
                name if name.ends_with("/pi-agent") || name.ends_with("/pi-mgr") => parts.program += size(),
                name if name.starts_with('/') => parts.libraries += size(),
                _ => parts.other += size(),
            }
        } else if first == "Anonymous:" && name.starts_with('/') {
            // Written pages of a file's mapping are the process's own.
            let own = size();
            parts.other += own;
            if name.ends_with("/pi-agent") || name.ends_with("/pi-mgr") {
                parts.program -= own;
            } else {
                parts.libraries -= own;
            }
        }
    }
    parts
}

/// A process's counters now.
pub(crate) fn counters(pid: u32) -> Result<Counters> {
    let mut counters = Counters { write_bytes: field(&read(pid, "io")?, "write_bytes"), ..Counters::default() };
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?.path();
        // A thread may have ended since it was listed.
        let schedstat = fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
        let nanos = schedstat.split_ascii_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0);
        counters.cpu += Duration::from_nanos(nanos);
        let status = fs::read_to_string(thread.join("status")).unwrap_or_default();
        counters.wakes += field(&status, "voluntary_ctxt_switches");
    }
    Ok(counters)
}

/// What a process has for itself and its part of what it shares, in KiB.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Shares {
    /// `Rss`.
    pub(crate) rss: u64,
    /// `Pss`.
    pub(crate) pss: u64,
    /// `Private_Clean` and `Private_Dirty`.
    pub(crate) private: u64,
}

/// A process's shares now.
pub(crate) fn shared(pid: u32) -> Result<Shares> {
    let text = read(pid, "smaps_rollup")?;
    let private = field(&text, "Private_Clean") + field(&text, "Private_Dirty");
    Ok(Shares { rss: field(&text, "Rss"), pss: field(&text, "Pss"), private })
}

/// How many threads a process has.
pub(crate) fn threads(pid: u32) -> Result<u64> {
    Ok(field(&read(pid, "status")?, "Threads"))
}
