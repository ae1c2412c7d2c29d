//! What can this board confine containers with?
//!
//! In: the kernel's files, what the OCI runtime says of itself. Out: [`Confinement`]. A board without seccomp still runs
//! containers, as Docker does, but says so.

use std::{path::Path, process::Command};

use super::capability;

/// What this board can confine containers with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    /// Why system calls are not filtered; none: they are.
    pub no_seccomp: Option<NoSeccomp>,
    /// The capabilities there are, a bit for each.
    pub capabilities: u64,
    /// The OCI runtime, if it is not there.
    pub no_runtime: Option<NoRuntime>,
}

/// The OCI runtime that is configured, or where it is looked for, is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the OCI runtime {0} is not installed, so no container can be started on this board: install it, or change \
     `runtime` in agent.toml, and restart pi-agent"
)]
pub struct NoRuntime(String);

/// Why system calls are not filtered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSeccomp {
    /// The kernel was built without.
    #[error(
        "the kernel has no seccomp filters (CONFIG_SECCOMP_FILTER): \
         containers on this board may make every system call their capabilities allow"
    )]
    Kernel,
    /// The runtime was built without.
    #[error(
        "{0} was built without seccomp: \
         containers on this board may make every system call their capabilities allow"
    )]
    Runtime(String),
}

impl Confinement {
    /// Looks below `root` (`/`, or a fixture), and asks the OCI runtime.
    pub fn read(root: &Path, binary: &Path) -> Self {
        let status = std::fs::read_to_string(root.join("proc/self/status")).unwrap_or_default();
        let filters = root.join("proc/sys/kernel/seccomp/actions_avail").exists();
        let version = Command::new(binary).arg("--version").output();
        let is_missing = version.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
        let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        Self {
            no_seccomp: no_seccomp(filters, &version, binary),
            capabilities: capability::bounding(&status),
            no_runtime: is_missing.then(|| NoRuntime(binary.display().to_string())),
        }
    }
}

/// Judges what `--version` printed: runc tells the library it was built with, crun its features.
fn no_seccomp(filters: bool, version: &str, binary: &Path) -> Option<NoSeccomp> {
    let is_without = match version.split_whitespace().next() {
        Some("runc") => !version.contains("libseccomp:"),
        Some("crun") => !version.contains("+SECCOMP"),
        // Not one that we know: it says when it cannot do it.
        Some(_) | None => false,
    };
    match (filters, is_without) {
        (false, _) => Some(NoSeccomp::Kernel),
        (true, true) => Some(NoSeccomp::Runtime(binary.display().to_string())),
        (true, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(filters: bool, version: &str, want: Option<NoSeccomp>) {
        assert_eq!(no_seccomp(filters, version, Path::new("/bin/x")), want);
    }

    #[test]
    fn boards_with_and_without_seccomp() {
        let built_without = || Some(NoSeccomp::Runtime("/bin/x".into()));
        check(true, "runc version 1.1.5\nspec: 1.0.2-dev\ngo: go1.19.8\nlibseccomp: 2.5.4\n", None);
        check(true, "runc version 1.1.5\nspec: 1.0.2-dev\ngo: go1.19.8\n", built_without());
        check(true, "crun version 1.8.1\nspec: 1.0.0\n+SYSTEMD +SELINUX +APPARMOR +CAP +SECCOMP +EBPF +YAJL\n", None);
        check(true, "crun version 1.8.1\nspec: 1.0.0\n+SYSTEMD +CAP +YAJL\n", built_without());
        check(true, "", None);
        check(false, "runc version 1.1.5\nlibseccomp: 2.5.4\n", Some(NoSeccomp::Kernel));
    }

    #[test]
    fn a_fixture_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let no_runtime = Some(NoRuntime("/no/such/runc".into()));
        let bare =
            Confinement { no_seccomp: Some(NoSeccomp::Kernel), capabilities: u64::MAX, no_runtime: no_runtime.clone() };
        assert_eq!(Confinement::read(dir.path(), Path::new("/no/such/runc")), bare);
        std::fs::create_dir_all(dir.path().join("proc/sys/kernel/seccomp")).unwrap();
        std::fs::write(dir.path().join("proc/sys/kernel/seccomp/actions_avail"), "errno allow\n").unwrap();
        std::fs::create_dir_all(dir.path().join("proc/self")).unwrap();
        std::fs::write(dir.path().join("proc/self/status"), "CapBnd:\t0000000000000003\n").unwrap();
        let found = Confinement::read(dir.path(), Path::new("/no/such/runc"));
        assert_eq!(found, Confinement { no_seccomp: None, capabilities: 3, no_runtime });
        assert_eq!(Confinement::read(dir.path(), Path::new("/bin/true")).no_runtime, None);
        // By its name alone, as agent.toml may have it.
        assert_eq!(Confinement::read(dir.path(), Path::new("true")).no_runtime, None);
    }
}
