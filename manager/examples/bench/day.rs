//! What a day costs the card: twenty deploys and two hundred restarts, one after the other instead of over a day. The
//! rest of a day costs nothing: see [`super::idle`].

use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use super::client;
use super::disk;
use super::lab::Lab;
use super::lab::process::signal;
use super::process::counters;
use super::table::{Amount, Table};

const DEPLOYS: usize = 20;
const RESTARTS: usize = 200;
/// Tasks of the service; so many are restarted at once.
const TASKS: usize = 10;
/// What is written once a second, or a moment after the last change, is written by then.
const SETTLE: Duration = Duration::from_secs(10);

/// Adds what manager, agents and the lab's disk wrote meanwhile.
pub(crate) fn measure(lab: &Lab, device: &str, table: &mut Table) -> Result<()> {
    let replicas = TASKS.to_string();
    let flags = ["--replicas", &replicas, "--update-parallelism", "5", "--update-delay", "0s"];
    client::create(lab, "day", &[&flags[..], &["--update-monitor", "100ms"]].concat())?;
    client::wait_running(lab, "day", TASKS, |_| true)?;
    std::thread::sleep(SETTLE);

    let pids = || -> Result<Vec<u32>> {
        let manager = lab.manager().process().context("no manager runs")?.pid;
        Ok([manager].into_iter().chain(lab.boards().iter().filter_map(|board| Some(board.agent()?.pid))).collect())
    };
    let written = |pids: &[u32]| pids.iter().map(|pid| Ok(counters(*pid)?.write_bytes)).collect::<Result<Vec<u64>>>();
    let processes = pids()?;
    let (before, disk_before) = (written(&processes)?, disk::written(device)?);
    for number in 0..DEPLOYS {
        let version = format!("VERSION={number}");
        lab.manager().pi_mgr(&["service", "update", "--detach", "--env-add", &version, "day"])?;
        client::wait_updated(lab, "day")?;
    }
    for _ in 0..RESTARTS / TASKS {
        client::wait_running(lab, "day", TASKS, |_| true)?;
        let victims = client::running(lab, "day")?;
        victims.iter().try_for_each(|task| signal(task.pid, Signal::KILL))?;
        client::wait_running(lab, "day", TASKS, |task| victims.iter().all(|victim| victim.id != task.id))?;
    }
    std::thread::sleep(SETTLE);
    let since: Vec<u64> = written(&processes)?.iter().zip(&before).map(|(after, before)| after - before).collect();
    let disk_bytes = disk::written(device)? - disk_before;
    client::remove(lab, &["day"])?;

    let day = format!(
        "{DEPLOYS} deploys of {TASKS} tasks on three boards and {RESTARTS} restarts without a pause; `write_bytes` of \
         `/proc/PID/io`"
    );
    table.add("day: written by the manager", Amount::bytes(since.first().copied().unwrap_or(0)).to_string(), &day);
    let busiest = since.iter().skip(1).max().copied().unwrap_or(0);
    let with_run = format!("{day}. Its run directory, which a board has in memory, and its log included");
    table.add("day: written by an agent (the busiest of three)", Amount::bytes(busiest).to_string(), &with_run);
    table.add(
        "day: arrived on the lab's disk",
        Amount::bytes(disk_bytes).to_string(),
        "the same; sectors written, `/sys/block/loopN/stat`: manager, three agents, containerds and shims, ext4's journal",
    );
    Ok(())
}
