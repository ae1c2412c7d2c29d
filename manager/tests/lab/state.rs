//! Where a lab keeps its things, and what it remembers between two calls.
//!
//! ```text
//! /var/lib/racimo-lab/NAME/          (RACIMO_LAB_DIR overrides the parent)
//!   lab.json                         State, written before anything is made
//!   cgroup/                          mount point of its cgroup hierarchy
//!   pid/                             PID START of every program it started
//!   run/pi-mgr.sock                  the manager's API
//!   manager/  registry/              data and logs
//!   bN/disk/  bN/run/  bN/log/       what power-off spares, wipes, and spares
//! ```

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::names::{Name, SLOTS_MAX, Subnet};
use super::net;

/// Taken while labs are made or swept.
const LOCK: &str = ".lock";

/// What a lab remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Which /24 it has.
    pub(crate) slot: u8,
    /// How many boards.
    pub(crate) boards: u8,
    /// With manager and agents, not only containerd?
    pub(crate) cluster: bool,
    /// An agent on the manager's own board too?
    pub(crate) manager_agent: bool,
    /// Where `pi-mgr` and `pi-agent` are.
    pub(crate) bin_dir: PathBuf,
    /// `PID START` of the test that owns it; it is swept once that ended.
    pub(crate) owner: Option<String>,
}

/// The directory of all labs.
pub(crate) fn root() -> PathBuf {
    std::env::var_os("RACIMO_LAB_DIR").map_or_else(|| PathBuf::from("/var/lib/racimo-lab"), PathBuf::from)
}

/// A lab's directory.
pub(crate) fn directory(name: &Name) -> PathBuf {
    root().join(name.to_string())
}

fn file(directory: &Path) -> PathBuf {
    directory.join("lab.json")
}

/// Names of the labs that have a directory.
pub(crate) fn labs() -> Vec<Name> {
    fs::read_dir(root())
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok()?.parse().ok())
        .collect()
}

/// Reads a lab's state; `None` when it was never begun.
pub(crate) fn load(name: &Name) -> Result<Option<State>> {
    let file = file(&directory(name));
    if !file.exists() {
        return Ok(None);
    }
    let text = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
    serde_json::from_slice(&text).map(Some).with_context(|| format!("{} is damaged", file.display()))
}

/// Claims a name and a free slot: afterwards the lab's directory and state are
/// there. One claim at a time on this machine.
pub(crate) fn claim(name: &Name, wanted: impl FnOnce(u8) -> State) -> Result<State> {
    let _lock = lock()?;
    let directory = directory(name);
    ensure!(!directory.exists(), "lab {name} is already up, or was left half up: `make lab-down LAB={name}` ends it");
    if !net::namespaces(name).is_empty() || net::host_link_exists(name) {
        bail!("network names of a lab {name} exist without its directory: `make lab-down LAB={name}` removes them");
    }
    let state = wanted(free_slot(name)?);
    fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
    // Renamed into place: a reader sees all of it or nothing.
    let new = directory.join("lab.json.new");
    fs::write(&new, serde_json::to_vec_pretty(&state)?)
        .and_then(|()| fs::rename(&new, file(&directory)))
        .with_context(|| format!("write {}", file(&directory).display()))?;
    Ok(state)
}

/// Keeps other processes from making or sweeping labs until it is dropped.
pub(crate) fn lock() -> Result<fs::File> {
    loop {
        fs::create_dir_all(root()).with_context(|| format!("make {}", root().display()))?;
        let path = root().join(LOCK);
        let lock = fs::File::create(&path).with_context(|| format!("open {}", path.display()))?;
        flock(&lock, FlockOperation::LockExclusive).context("lock the lab directory")?;
        // Whoever held it may have removed the file meanwhile.
        let current = fs::metadata(&path).is_ok_and(|now| lock.metadata().is_ok_and(|ours| now.ino() == ours.ino()));
        if current {
            return Ok(lock);
        }
    }
}

/// Removes the directory of labs once it holds none.
pub(crate) fn remove_root() -> Result<()> {
    let _lock = lock()?;
    if labs().is_empty() {
        let _ = fs::remove_file(root().join(LOCK));
        let _ = fs::remove_dir(root());
    }
    Ok(())
}

fn free_slot(name: &Name) -> Result<u8> {
    let mut used = Vec::new();
    for other in labs() {
        used.extend(load(&other)?.map(|state| state.slot));
    }
    let preferred = name.slot_preferred();
    for slot in (preferred..=SLOTS_MAX).chain(1..preferred) {
        if !used.contains(&slot) && !net::subnet_taken(Subnet(slot))? {
            return Ok(slot);
        }
    }
    bail!("all {SLOTS_MAX} subnets of 10.213.0.0/16 are in use: end another lab first")
}
