//! The machine the manager runs on, for `docker info` and `docker version`. Read once.

use std::fs;

/// What is known about the machine; empty or 0 where it could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// Host name.
    pub name: String,
    /// Kernel release.
    pub kernel: String,
    /// Operating system, in words.
    pub os: String,
    /// CPUs.
    pub cpus: u64,
    /// Memory, bytes.
    pub memory: u64,
}

impl Host {
    /// Reads `/proc` and `/etc/os-release`.
    pub fn read() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            name: read("/proc/sys/kernel/hostname").trim().to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            os: os_name(&read("/etc/os-release")),
            cpus: std::thread::available_parallelism().map_or(0, |n| n.get() as u64),
            memory: memory(&read("/proc/meminfo")),
        }
    }
}

/// `PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"`.
fn os_name(os_release: &str) -> String {
    let line = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.unwrap_or("Linux").trim_matches('"').to_owned()
}

/// `MemTotal:       24684092 kB`.
fn memory(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().map_or(0, |kib| kib.saturating_mul(1024))
}

/// The architecture in Go's spelling, as Docker's version names it.
pub fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsing() {
        assert_eq!(os_name("ID=x\nPRETTY_NAME=\"Debian 12\"\n"), "Debian 12");
        assert_eq!(os_name(""), "Linux");
        assert_eq!(memory("MemTotal:       24684092 kB\nMemFree: 1 kB\n"), 24_684_092 * 1024);
        assert_eq!(memory("?"), 0);
    }
}
