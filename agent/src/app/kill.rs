//! Killing a task without containerd: by its first process, or by its control group.

use std::fs;
use std::path::{Path, PathBuf};

use racimo_common::id::TaskId;
use rustix::process::{Pid, Signal, kill_process};

/// Kills the task's first process, and with it all of its container; false: it is not there, or not the task's.
pub(super) fn first_process(task: TaskId, pid: u32) -> bool {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    groups.contains(&task.to_string()) && kill(i32::try_from(pid).ok())
}

/// Kills what is in the task's control groups; `tree`: where they are mounted. False: nothing was there.
pub(super) fn group(tree: &Path, task: TaskId) -> bool {
    let name = format!("racimo/{task}");
    let unified = tree.join(&name);
    // Nobody can make a file in a control group: one that is not there is refused.
    if fs::write(unified.join("cgroup.kill"), "1").is_ok() {
        return true;
    }
    // A kernel before 5.14, or one hierarchy for each controller.
    let each = fs::read_dir(tree).into_iter().flatten().flatten().map(|entry| entry.path().join(&name));
    let groups: Vec<PathBuf> = each.chain([unified]).collect();
    let lists = groups.iter().filter_map(|group| fs::read_to_string(group.join("cgroup.procs")).ok());
    let killed = lists.map(|pids| pids.lines().filter(|pid| kill(pid.parse().ok())).count());
    killed.sum::<usize>() > 0
}

fn kill(pid: Option<i32>) -> bool {
    // 0 is a process that this board does not see.
    pid.filter(|pid| *pid > 0).and_then(Pid::from_raw).is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use racimo_common::id::RandomId;

    use super::*;

    #[test]
    fn a_group_is_killed_without_containerd() {
        let (tree, task) = (tempfile::tempdir().unwrap(), TaskId::from_bits(7));
        assert!(!group(tree.path(), task), "there is none");
        let dir = |controller: &str| tree.path().join(controller).join(format!("racimo/{task}"));
        // One hierarchy for each controller.
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        fs::create_dir_all(dir("pids")).unwrap();
        fs::write(dir("pids").join("cgroup.procs"), format!("0\n{}\n", child.id())).unwrap();
        assert!(group(tree.path(), task));
        assert!(!child.wait().unwrap().success());
        assert!(!first_process(task, std::process::id()), "not the task's");
        // The unified one.
        fs::create_dir_all(dir("")).unwrap();
        fs::write(dir("").join("cgroup.kill"), "").unwrap();
        assert!(group(tree.path(), task));
        assert_eq!(fs::read(dir("").join("cgroup.kill")).unwrap(), b"1");
    }
}
