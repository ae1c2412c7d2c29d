//! The cgroups that hold a lab's processes, so that all of one board can be
//! found and killed whatever they forked.
//!
//! Each lab has a cgroup hierarchy of its own: version 1, named, without
//! controllers, mounted in the lab's directory. Container runtimes move
//! containers around in the hierarchies they know but never touch this one, so
//! containers stay in their board's group too. It works beside version 2 as
//! well as on hybrid hosts.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::Signal;

use super::process::{signal, wait_for};

/// How often to ask the kernel to drop a hierarchy.
const UNMOUNTS_MAX: u32 = 10;
/// How much longer to wait each time: it takes a few RCU periods.
const VANISH_STEP: Duration = Duration::from_millis(200);

/// A lab's hierarchy.
#[derive(Debug, Clone)]
pub(crate) struct Hierarchy {
    name: String,
    mount_point: PathBuf,
}

impl Hierarchy {
    /// The hierarchy called `name`, to be mounted at `mount_point`.
    pub(crate) fn new(name: String, mount_point: PathBuf) -> Self {
        Self { name, mount_point }
    }

    fn mounted(&self) -> bool {
        self.mount_point.join("cgroup.procs").exists()
    }

    /// Does the kernel know it, mounted or not?
    pub(crate) fn exists(&self) -> bool {
        let needle = format!(":name={}:", self.name);
        fs::read_to_string("/proc/self/cgroup").is_ok_and(|text| text.contains(&needle))
    }

    /// Mounts it.
    pub(crate) fn mount(&self) -> Result<()> {
        if self.mounted() {
            return Ok(());
        }
        fs::create_dir_all(&self.mount_point)?;
        let options = format!("none,name={}", self.name);
        let options = std::ffi::CString::new(options).context("a NUL in the lab's name")?;
        mount(
            "none",
            &self.mount_point,
            "cgroup",
            MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
            options.as_c_str(),
        )
        .with_context(|| {
            format!(
                "mount a named cgroup hierarchy on {} (the kernel needs cgroup version 1 support)",
                self.mount_point.display()
            )
        })
    }

    /// One group of it, made if missing.
    pub(crate) fn group(&self, name: &str) -> Result<Group> {
        let group = Group(self.mount_point.join(name));
        if !group.0.is_dir() {
            fs::create_dir(&group.0).with_context(|| format!("make cgroup {}", group.0.display()))?;
        }
        Ok(group)
    }

    /// Is it mounted in a container of another lab? A runtime mounts every hierarchy it finds into its containers,
    /// so that one outlives its lab, empty, until the last such container ends.
    pub(crate) fn held_elsewhere(&self) -> bool {
        let needle = format!("name={}", self.name);
        let tables = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path().join("mountinfo"));
        let mut tables = tables.filter_map(|path| fs::read_to_string(path).ok());
        !self.mounted() && tables.any(|table| table.lines().any(|line| line.ends_with(&needle)))
    }

    fn groups(&self) -> Vec<Group> {
        fs::read_dir(&self.mount_point)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .map(|entry| Group(entry.path()))
            .collect()
    }

    /// Kills every process in it and removes it. Fine when there is none.
    pub(crate) fn destroy(&self) -> Result<()> {
        if self.exists() {
            self.mount()?;
        }
        if !self.mounted() {
            return Ok(());
        }
        for group in self.groups() {
            group.kill()?;
            fs::remove_dir(&group.0).with_context(|| format!("remove {}", group.0.display()))?;
        }
        // The kernel drops a hierarchy after its last mount, but only if it has
        // let go of the groups by then. Where it has not, a mount and another
        // unmount ask again; not at once, for they would bring it back to life.
        for attempt in 1..=UNMOUNTS_MAX {
            self.mount()?;
            unmount(&self.mount_point, UnmountFlags::empty())
                .with_context(|| format!("unmount {}", self.mount_point.display()))?;
            let limit = VANISH_STEP * attempt;
            let gone = wait_for("the cgroup hierarchy to go", limit, || Ok((!self.exists()).then_some(())));
            if gone.is_ok() || self.held_elsewhere() {
                return Ok(());
            }
        }
        bail!("the kernel keeps the cgroup hierarchy {} (see /proc/self/cgroup)", self.name)
    }

    /// Pids of every process in it, whichever group.
    pub(crate) fn members(&self) -> Vec<u32> {
        self.groups().iter().flat_map(Group::members).collect()
    }
}

/// A group of processes: one board's, the manager's, or the registry's.
#[derive(Debug, Clone)]
pub(crate) struct Group(PathBuf);

impl Group {
    /// Its directory.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Pids of its processes.
    pub(crate) fn members(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// SIGKILL to all until none is left, forks included.
    pub(crate) fn kill(&self) -> Result<()> {
        let what = format!("the processes of {} to end", self.0.display());
        wait_for(&what, Duration::from_secs(20), || {
            let members = self.members();
            for &pid in &members {
                signal(pid, Signal::KILL)?;
            }
            Ok(members.is_empty().then_some(()))
        })
    }

    /// SIGSTOP to all, twice, so that what was forked meanwhile stops too.
    pub(crate) fn freeze(&self) -> Result<()> {
        for _ in 0..2 {
            for pid in self.members() {
                signal(pid, Signal::STOP)?;
            }
        }
        Ok(())
    }

    /// SIGCONT to all.
    pub(crate) fn thaw(&self) -> Result<()> {
        self.members().into_iter().try_for_each(|pid| signal(pid, Signal::CONT))
    }
}
