//! Which limits can this board enforce?
//!
//! In: the text of `/proc/mounts` and `cgroup.controllers`. Out: [`Cgroups`]. Raspberry Pi
//! kernels start with the memory controller off, so a memory limit must be refused in words
//! rather than ignored.

use std::{io, path::Path};

use racimo_common::object::NodeDescription;

/// How the kernel's control groups are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Nothing is mounted: no limits, and most runtimes do not start.
    None,
    /// One hierarchy per controller.
    V1,
    /// Version 1 with an empty version 2 hierarchy beside it; crun 1.8 does not start on it.
    Hybrid,
    /// The single unified hierarchy.
    V2,
}

/// What the kernel's control groups can do here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups {
    /// How they are mounted.
    pub version: Version,
    /// Memory limits and reservations work.
    pub memory: bool,
    /// The swap a container may use can be limited too.
    pub swap: bool,
    /// CPU limits and shares work.
    pub cpu: bool,
    /// Limits on the number of processes work.
    pub pids: bool,
}

/// A limit that this board cannot enforce, and what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Degraded {
    /// No control groups at all.
    #[error("the kernel's cgroups are not mounted: no limit can be enforced on this board")]
    NoCgroups,
    /// The memory controller is off, as on a stock Raspberry Pi.
    #[error(
        "the kernel's memory controller is off, so memory limits cannot be enforced: \
         add cgroup_enable=memory to the line in /boot/firmware/cmdline.txt and reboot"
    )]
    NoMemory,
    /// The CPU controller or its bandwidth part is missing.
    #[error("the kernel's cpu controller is missing, so CPU limits cannot be enforced")]
    NoCpu,
    /// The pids controller is missing.
    #[error("the kernel's pids controller is missing, so limits on processes cannot be enforced")]
    NoPids,
}

/// Which kinds of limit a task asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// It has a memory limit.
    pub memory: bool,
    /// It has a CPU limit.
    pub cpu: bool,
    /// It has a limit on processes.
    pub pids: bool,
}

impl Cgroups {
    /// Reads the kernel's files below `root` (`/`, or a fixture).
    pub fn read(root: &Path) -> io::Result<Self> {
        let mounts = std::fs::read_to_string(root.join("proc/mounts"))?;
        let tree = root.join("sys/fs/cgroup");
        let controllers = std::fs::read_to_string(tree.join("cgroup.controllers"));
        let swap = swap_limit_exists(&tree);
        Ok(Self::parse(&mounts, &controllers.unwrap_or_default(), swap))
    }

    /// Judges `/proc/mounts`, the root's `cgroup.controllers` (empty on version 1), and whether
    /// a swap limit file was seen.
    pub fn parse(mounts: &str, controllers: &str, swap: bool) -> Self {
        // Fields: source, target, type, options, two numbers.
        let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let (mut unified, mut beside, mut v1) = (false, false, Vec::new());
        for field in fields {
            match field.as_slice() {
                [_, "/sys/fs/cgroup", "cgroup2", ..] => unified = true,
                [_, _, "cgroup2", ..] => beside = true,
                [_, _, "cgroup", options, ..] => v1.extend(options.split(',')),
                _ => {}
            }
        }
        let version = match (unified, beside, v1.is_empty()) {
            (true, _, _) => Version::V2,
            (false, true, _) => Version::Hybrid,
            (false, false, false) => Version::V1,
            (false, false, true) => Version::None,
        };
        let has = |name: &str| match version {
            Version::V2 => controllers.split_whitespace().any(|controller| controller == name),
            Version::V1 | Version::Hybrid => v1.contains(&name),
            Version::None => false,
        };
        Self { version, memory: has("memory"), swap: swap && has("memory"), cpu: has("cpu"), pids: has("pids") }
    }

    /// Everything this board cannot enforce, for its description and its log.
    pub fn degraded(&self) -> Vec<Degraded> {
        if self.version == Version::None {
            return vec![Degraded::NoCgroups];
        }
        let missing = |have: bool, reason| (!have).then_some(reason);
        [
            missing(self.memory, Degraded::NoMemory),
            missing(self.cpu, Degraded::NoCpu),
            missing(self.pids, Degraded::NoPids),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Adds what no task can be limited by to what the board says of itself.
    pub fn describe(&self, description: &mut NodeDescription) {
        let NodeDescription { no_memory_limits: memory, no_cpu_limits: cpu, no_pids_limits: pids, .. } = description;
        for fault in self.degraded() {
            let missing: &mut [&mut Option<String>] = match fault {
                Degraded::NoCgroups => &mut [&mut *memory, &mut *cpu, &mut *pids],
                Degraded::NoMemory => &mut [&mut *memory],
                Degraded::NoCpu => &mut [&mut *cpu],
                Degraded::NoPids => &mut [&mut *pids],
            };
            missing.iter_mut().for_each(|why| **why = Some(fault.to_string()));
        }
    }

    /// Refuses a task whose limits would silently not hold.
    pub fn check(&self, asked: Asked) -> Result<(), Degraded> {
        let matters = |reason: &Degraded| match reason {
            Degraded::NoCgroups => asked != Asked::default(),
            Degraded::NoMemory => asked.memory,
            Degraded::NoCpu => asked.cpu,
            Degraded::NoPids => asked.pids,
        };
        self.degraded().into_iter().find(matters).map_or(Ok(()), Err)
    }
}

/// Whether the kernel has killed a process of the container for memory. The answer is in its
/// cgroup, which stays until the container is deleted; containerd's own event for it may be
/// missed, and version 1.6 does not send it when some hierarchy is not mounted.
pub fn oom_killed(root: &Path, name: &str) -> bool {
    let tree = root.join("sys/fs/cgroup");
    let v2 = tree.join("racimo").join(name).join("memory.events");
    let v1 = tree.join("memory/racimo").join(name).join("memory.oom_control");
    let counts = std::fs::read_to_string(v2).or_else(|_| std::fs::read_to_string(v1));
    counts.is_ok_and(|counts| has_kills(&counts))
}

/// Both versions have a line `oom_kill` and a count.
fn has_kills(counts: &str) -> bool {
    counts.lines().filter_map(|line| line.strip_prefix("oom_kill ")).any(|count| count.trim() != "0")
}

/// The file exists only if the kernel accounts for swap; version 2 has it only below the root.
fn swap_limit_exists(tree: &Path) -> bool {
    if tree.join("memory/memory.memsw.limit_in_bytes").exists() {
        return true;
    }
    let Ok(groups) = std::fs::read_dir(tree) else { return false };
    groups.flatten().any(|group| group.path().join("memory.swap.max").exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PI_V2: &str = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
    const HYBRID: &str = "tmpfs /sys/fs/cgroup tmpfs ro 0 0\n\
        cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
        cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0\n\
        cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
        cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n";

    #[track_caller]
    fn check(mounts: &str, controllers: &str, version: Version, degraded: &[Degraded]) {
        let found = Cgroups::parse(mounts, controllers, false);
        assert_eq!((found.version, found.degraded().as_slice()), (version, degraded));
    }

    #[test]
    fn kernels() {
        check(PI_V2, "cpuset cpu io memory pids\n", Version::V2, &[]);
        check(PI_V2, "cpuset cpu io pids\n", Version::V2, &[Degraded::NoMemory]);
        check(PI_V2, "", Version::V2, &[Degraded::NoMemory, Degraded::NoCpu, Degraded::NoPids]);
        check(HYBRID, "", Version::Hybrid, &[]);
        check(&HYBRID.replace("cgroup2", "tmpfs"), "", Version::V1, &[]);
        let no_memory = HYBRID.replace("memory cgroup rw,memory", "memory cgroup rw,devices");
        check(&no_memory, "", Version::Hybrid, &[Degraded::NoMemory]);
        check("proc /proc proc rw 0 0\n", "", Version::None, &[Degraded::NoCgroups]);
        check("garbage\n\n", "", Version::None, &[Degraded::NoCgroups]);
    }

    #[test]
    fn the_manager_is_told_which_limits_do_not_hold() {
        let told = |mounts: &str, controllers: &str| {
            let mut said = NodeDescription::default();
            Cgroups::parse(mounts, controllers, false).describe(&mut said);
            [said.no_memory_limits, said.no_cpu_limits, said.no_pids_limits]
        };
        assert_eq!(told(PI_V2, "cpu memory pids"), [None, None, None]);
        let [Some(why), None, None] = told(PI_V2, "cpuset cpu io pids") else { panic!("memory alone is missing") };
        assert!(why.contains("cgroup_enable=memory") && why.contains("/boot/firmware/cmdline.txt"), "{why}");
        assert_eq!(told(PI_V2, "cpu memory")[2], Some(Degraded::NoPids.to_string()));
        assert_eq!(told(PI_V2, "pids memory")[1], Some(Degraded::NoCpu.to_string()));
        let none = Some(Degraded::NoCgroups.to_string());
        assert_eq!(told("", ""), [none.clone(), none.clone(), none]);
    }

    #[test]
    fn kills_are_counted() {
        assert!(has_kills("low 0\nmax 7\noom 1\noom_kill 1\noom_group_kill 0\n"));
        assert!(!has_kills("low 0\nmax 7\noom 1\noom_kill 0\noom_group_kill 0\n"));
        assert!(has_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 12\n"));
        assert!(!has_kills("oom_kill_disable 0\nunder_oom 1\noom_kill 0\n"));
        assert!(!has_kills(""));
    }

    #[test]
    fn only_asked_limits_are_refused() {
        let pi = Cgroups::parse(PI_V2, "cpu pids", true);
        assert!(!pi.swap);
        assert_eq!(pi.check(Asked { cpu: true, pids: true, memory: false }), Ok(()));
        let refused = pi.check(Asked { memory: true, ..Asked::default() }).unwrap_err();
        assert!(refused.to_string().contains("cgroup_enable=memory"), "{refused}");
        let none = Cgroups::parse("", "", false);
        assert_eq!(none.check(Asked::default()), Ok(()));
        assert_eq!(none.check(Asked { cpu: true, ..Asked::default() }), Err(Degraded::NoCgroups));
    }
}
