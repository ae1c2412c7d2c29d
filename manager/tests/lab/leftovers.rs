//! What is there of a lab: the proof that nothing stayed behind.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::names::Name;
use super::process::wait_for;
use super::{disk, hierarchy, net, state, tear_down};

/// Programs of a lab; anything else that names its directory is a reader.
const PROGRAMS: [&str; 5] = ["containerd", "containerd-shim", "docker-registry", "pi-agent", "pi-mgr"];

/// Everything on this machine that belongs to a lab of this name, in words.
pub(crate) fn find(name: &Name) -> Result<Vec<String>> {
    let directory = state::directory(name);
    let mut found = Vec::new();
    found.extend(hierarchy(name).members().iter().map(|pid| format!("process {pid}")));
    found.extend(programs(&directory));
    found.extend(disk::mounts_below(&directory)?.iter().map(|point| format!("mount {}", point.display())));
    found.extend(net::namespaces(name).iter().map(|netns| format!("network namespace {netns}")));
    if net::host_link_exists(name) {
        found.push(format!("link {}", name.host_link()));
    }
    if hierarchy(name).exists() && !hierarchy(name).held_elsewhere() {
        found.push(of_hierarchy(name));
    }
    if directory.exists() {
        found.push(format!("directory {}", directory.display()));
    }
    Ok(found)
}

fn of_hierarchy(name: &Name) -> String {
    format!("cgroup hierarchy {}", name.hierarchy())
}

/// Fails with a list when anything of the lab is left.
pub(crate) fn expect_none(name: &Name) -> Result<()> {
    let mut left = Vec::new();
    // A killed process needs a moment to vanish from the process table, and on a busy machine the kernel needs seconds
    // for a hierarchy of groups that was unmounted.
    wait_for("the lab to be gone", Duration::from_secs(30), || {
        left = find(name)?;
        // Another program's mount namespace may have had it when the lab ended. When that goes, nobody asks the kernel.
        if left == [of_hierarchy(name)] {
            tear_down(name)?;
        }
        Ok(left.is_empty().then_some(()))
    })
    .map_err(|cause| cause.context(format!("left of lab {name}: {}", left.join(", "))))
}

fn programs(directory: &Path) -> Vec<String> {
    let prefix = format!("{}/", directory.display());
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let command = fs::read(entry.path().join("cmdline")).ok()?;
            let command = String::from_utf8_lossy(&command).into_owned();
            let program = Path::new(command.split('\0').next()?).file_name()?.to_str()?.to_owned();
            let ours = PROGRAMS.iter().any(|name| program.starts_with(name)) && command.contains(&prefix);
            ours.then(|| format!("process {pid} ({program})"))
        })
        .collect()
}
