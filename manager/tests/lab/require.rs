//! What a lab needs of this machine, checked before anything is touched.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use super::names::{BOARDS_MAX, Name};
use super::state;

/// Programs and the Debian packages they come in.
const PROGRAMS: [(&str, &str); 7] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("docker-registry", "docker-registry"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("setsid", "util-linux"),
];
/// Longest path of a unix socket.
const SOCKET_BYTES_MAX: usize = 107;
/// `f_type` of overlayfs, which cannot hold another overlay's upper directory.
const OVERLAYFS: u64 = 0x794c_7630;

/// Refuses to go on without root.
pub(crate) fn root() -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "a lab needs root: it makes network namespaces and runs containerd");
    Ok(())
}

/// Where this build's programs are.
pub(crate) fn bin_dir() -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os("RACIMO_BIN_DIR") {
        return Ok(PathBuf::from(directory));
    }
    // target/debug/examples/lab and target/debug/deps/e2e-… alike.
    let program = std::env::current_exe().context("where am I?")?;
    let directory = program.ancestors().nth(2).context("no directory of programs")?;
    Ok(directory.to_owned())
}

/// Everything a new lab needs; all that is missing is named at once.
pub(crate) fn all(name: &Name, bin_dir: Option<&PathBuf>) -> Result<()> {
    root()?;
    let mut missing: Vec<String> = PROGRAMS
        .iter()
        .filter(|(program, _)| !on_path(program))
        .map(|(program, package)| format!("{program} (package {package})"))
        .collect();
    if !Path::new("/bin/busybox").exists() {
        missing.push("/bin/busybox (package busybox-static)".to_owned());
    }
    for program in ["pi-mgr", "pi-agent"] {
        if let Some(path) = bin_dir.map(|directory| directory.join(program)) {
            if !path.is_file() {
                missing.push(format!("{} (`make build`)", path.display()));
            }
        }
    }
    if !missing.is_empty() {
        bail!("missing: {}. `make deps build` gets them", missing.join(", "));
    }
    directory(name)
}

fn directory(name: &Name) -> Result<()> {
    let directory = state::directory(name);
    ensure!(directory.is_absolute(), "RACIMO_LAB_DIR: expected an absolute path");
    let longest = directory.join(format!("b{BOARDS_MAX}/run/containerd.sock.ttrpc"));
    ensure!(
        longest.as_os_str().len() <= SOCKET_BYTES_MAX,
        "RACIMO_LAB_DIR: {} is too long for the sockets in it",
        directory.display()
    );
    std::fs::create_dir_all(state::root()).with_context(|| format!("make {}", state::root().display()))?;
    let kind = rustix::fs::statfs(state::root()).context("which file system?")?.f_type;
    ensure!(
        u64::try_from(kind).ok() != Some(OVERLAYFS),
        "{} is on overlayfs, where containers cannot have their own overlays: \
         set RACIMO_LAB_DIR to a directory on a real disk",
        state::root().display()
    );
    Ok(())
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .any(|directory| directory.join(program).is_file())
}
