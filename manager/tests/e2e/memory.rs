//! What a board with 25 tasks takes of its memory, and which containers share a shim.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result};

use crate::cluster::{self, SOON, live, wait};
use crate::lab::Lab;
use crate::lab::guard::Guard;
use crate::support::{busybox, create, docker, has, pi_mgr, remove, running};

const SLEEP: [&str; 2] = ["sleep", "100000"];
const TASKS: usize = 25;
/// What an agent with so many tasks has for itself alone, in KiB: heap, stacks, written data. 2,620 in this test (debug
/// build, glibc), 1,788 in a release build; with room for what is made at once on a busy machine.
const PRIVATE_KIB_MAX: u64 = 3584;
/// How much of it may be the tasks', in KiB: 50 each, where 28 were measured.
const TASKS_KIB_MAX: u64 = 50 * TASKS as u64;
/// Everything resident, in KiB; 21,908 were measured, most of it a debug build's program, which is 7 times as large as a
/// board's: this sees a library more, not a table.
const RSS_KIB_MAX: u64 = 28 << 10;

/// `VmRSS`, and `Private_Dirty`, of board 1's agent.
fn agent(lab: &Lab) -> Result<(u64, u64)> {
    let pid = lab.board(1)?.agent().context("board 1 has no agent")?.pid;
    let field = |file: &str, key: &str| -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        Ok(line.and_then(|rest| rest.split_ascii_whitespace().next()).context("no such line")?.parse()?)
    };
    Ok((field("status", "VmRSS:")?, field("smaps_rollup", "Private_Dirty:")?))
}

/// The shims of a service's tasks.
fn shims(lab: &Lab, service: &str, count: usize) -> Result<BTreeSet<u32>> {
    running(lab, service, count);
    shims_now(lab, service)
}

fn shims_now(lab: &Lab, service: &str) -> Result<BTreeSet<u32>> {
    let processes = cluster::running(lab)?;
    let parent = |id: &str| {
        // It may have ended since it was listed.
        let status = fs::read_to_string(format!("/proc/{}/status", processes.get(id)?.1)).ok()?;
        status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
    };
    Ok(live(lab, service)?.iter().filter_map(|row| parent(&row.id)).collect())
}

#[test]
#[ignore = "needs root"]
fn a_board_with_25_tasks_takes_little_memory() -> Result<()> {
    let lab = Guard::cluster(1)?;
    let before = agent(&lab)?;
    create(&lab, "many", &["--replicas", &TASKS.to_string(), "--stop-signal", "SIGKILL"], &SLEEP)?;
    let shared = shims(&lab, "many", TASKS)?;
    let (rss, private) = agent(&lab)?;
    eprintln!("agent: RSS, private: {before:?} KiB without tasks, {:?} KiB with {TASKS}", (rss, private));
    assert!(rss < RSS_KIB_MAX && private < PRIVATE_KIB_MAX, "RSS {rss} KiB, private {private} KiB");
    assert!(private < before.1 + TASKS_KIB_MAX, "{} KiB without tasks, {private} KiB with {TASKS}", before.1);
    assert_eq!(shared.len(), 4, "as many shims as there are groups");

    // By pi-mgr's flag, and by the service's label.
    let (image, fixed) = (busybox(&lab), ["-d", "--stop-signal", "SIGKILL"]);
    let own = ["service", "create", "--name", "own", "--isolate-shim", "--replicas", "2"];
    pi_mgr(&lab, &[&own[..], &fixed, &[&image], &SLEEP].concat())?.good()?;
    let own = shims(&lab, "own", 2)?;
    assert!(own.len() == 2 && own.is_disjoint(&shared), "{own:?} {shared:?}");
    let label = ["service", "create", "--name", "label", "--label", "io.racimo.isolate-shim=true"];
    docker(&lab, &[&label[..], &fixed, &[&image], &SLEEP].concat())?.good()?;
    let label = shims(&lab, "label", 1)?;
    assert!(label.is_disjoint(&own) && label.is_disjoint(&shared), "{label:?} {own:?} {shared:?}");
    // It is of the task, so that tasks are replaced.
    pi_mgr(&lab, &["service", "update", "-d", "--isolate-shim=false", "own"])?.good()?;
    wait(&lab, "tasks of the service to share shims", SOON, || {
        let now = shims_now(&lab, "own")?;
        Ok((!now.is_empty() && now.is_subset(&shared)).then_some(()))
    });
    let refused = docker(&lab, &["service", "update", "-d", "--label-add", "io.racimo.isolate-shim=yes", "label"])?;
    has(&refused.bad()?.1, "label io.racimo.isolate-shim: \"yes\" is not true or false");
    remove(&lab, &["many", "own", "label"])
}
