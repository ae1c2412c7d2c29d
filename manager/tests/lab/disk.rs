//! What a loss of power takes from a board: mounts, sockets, cgroups, runtime
//! state. What is on its disk stays.
//!
//! The boards share one kernel, so what a reboot would wipe is wiped here by
//! hand. Pages that were never synced survive, unlike on a real board: a torn
//! disk is the simulation's business, not the lab's.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::mount::{UnmountFlags, unmount};

/// Where containerd's shim keeps runc's state, whatever containerd's own state
/// directory is.
const RUNC_STATE: &str = "/run/containerd/runc";
const CGROUPS: &str = "/sys/fs/cgroup";

/// Mount points at or below a directory, innermost last.
pub(crate) fn mounts_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("read the mount table")?;
    Ok(parse_mounts(&table).filter(|point| point.starts_with(directory)).collect())
}

fn parse_mounts(table: &str) -> impl Iterator<Item = PathBuf> {
    table.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| PathBuf::from(unescape(point)))
}

/// `\040` and its like, as the kernel writes them.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|code| u8::from_str_radix(code, 8).ok());
        match (code, part.get(3..)) {
            (Some(code), Some(rest)) => {
                plain.push(char::from(code));
                plain.push_str(rest);
            }
            _ => plain.push_str(part),
        }
    }
    plain
}

/// Unmounts everything at or below a directory, innermost first.
pub(crate) fn unmount_below(directory: &Path) -> Result<()> {
    for point in mounts_below(directory)?.into_iter().rev() {
        unmount(&point, UnmountFlags::DETACH).with_context(|| format!("unmount {}", point.display()))?;
    }
    Ok(())
}

/// Removes what tasks of a containerd left outside its directories: shim
/// sockets, runc's state and their cgroups. Its processes must be dead.
pub(crate) fn forget_tasks(containerd_state: &Path) -> Result<()> {
    let bundles = containerd_state.join("io.containerd.runtime.v2.task");
    for namespace in directories(&bundles) {
        for bundle in directories(&namespace) {
            forget_task(&namespace, &bundle)?;
        }
    }
    Ok(())
}

fn forget_task(namespace: &Path, bundle: &Path) -> Result<()> {
    if let Ok(address) = fs::read_to_string(bundle.join("address")) {
        if let Some(socket) = address.trim().strip_prefix("unix://") {
            let _ = fs::remove_file(socket);
        }
    }
    if let (Some(namespace), Some(id)) = (namespace.file_name(), bundle.file_name()) {
        let state = Path::new(RUNC_STATE).join(namespace).join(id);
        if state.is_dir() {
            fs::remove_dir_all(&state).with_context(|| format!("remove {}", state.display()))?;
        }
    }
    let config = fs::read(bundle.join("config.json")).unwrap_or_default();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap_or_default();
    if let Some(cgroup) = config.pointer("/linux/cgroupsPath").and_then(|path| path.as_str()) {
        remove_cgroup(cgroup);
    }
    Ok(())
}

/// Removes a cgroup in every hierarchy; its processes are dead, and a group
/// that cannot go yet is harmless. The common parent stays: somebody else may
/// be making a group in it right now.
fn remove_cgroup(cgroup: &str) {
    let relative = cgroup.trim_start_matches('/');
    if relative.is_empty() || relative.split('/').any(|part| part == "..") {
        return;
    }
    for root in directories(Path::new(CGROUPS)).chain([PathBuf::from(CGROUPS)]) {
        remove_tree(&root.join(relative));
    }
}

/// Removes directories only: a cgroup's files go with it.
fn remove_tree(directory: &Path) {
    directories(directory).for_each(|inner| remove_tree(&inner));
    let _ = fs::remove_dir(directory);
}

fn directories(directory: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: &[&str]) {
        let points: Vec<PathBuf> = parse_mounts(line).collect();
        let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
        assert_eq!(points, expected);
    }

    #[test]
    fn mount_tables() {
        check("36 35 0:3 / /a/b rw - ext4 /dev/x rw", &["/a/b"]);
        check("36 35 0:3 / /with\\040space rw - tmpfs t rw", &["/with space"]);
        check("36 35 0:3 / /odd\\x rw - tmpfs t rw", &["/oddx"]);
        check("short line", &[]);
    }
}
