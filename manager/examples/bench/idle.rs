//! A minute in which nothing happens: processor time, wake-ups, and bytes written.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::disk;
use super::lab::Lab;
use super::process::{Counters, counters};
use super::table::{Amount, Table, as_f64};

const IDLE: Duration = Duration::from_secs(60);
/// The agent's share of one core.
const AGENT_CPU_PERCENT_MAX: f64 = 0.1;

/// Adds what manager, agents and the lab's disk did meanwhile.
pub(crate) fn measure(lab: &Lab, device: &str, table: &mut Table) -> Result<()> {
    let manager = lab.manager().process().context("no manager runs")?.pid;
    let agents: Vec<u32> = lab.boards().iter().filter_map(|board| Some(board.agent()?.pid)).collect();
    let disk_before = disk::written(device)?;
    let before = of_all(manager, &agents)?;
    std::thread::sleep(IDLE);
    let after = of_all(manager, &agents)?;
    let disk_bytes = disk::written(device)? - disk_before;

    let secs = IDLE.as_secs_f64();
    let percent = |counters: &Counters| 100.0 * counters.cpu.as_secs_f64() / secs;
    let since: Vec<Counters> = after.iter().zip(&before).map(|(after, before)| after.since(*before)).collect();
    let way = "60 s, 30 tasks, heartbeats every second; `/proc/PID/task/*/schedstat`";
    let busiest = since.iter().skip(1).map(percent).fold(0.0, f64::max);
    table.add_at_most(
        "agent, idle: CPU (the busiest of three)",
        Amount::percent(busiest),
        Amount::percent(AGENT_CPU_PERCENT_MAX),
        way,
    );
    table.add(
        "manager, idle: CPU",
        since.first().map(|c| Amount::percent(percent(c)).to_string()).unwrap_or_default(),
        way,
    );
    let wakes = |counters: &Counters| format!("{:.1}/s", as_f64(counters.wakes) / secs);
    let all: Vec<String> = since.iter().map(wakes).collect();
    table.add(
        "idle wake-ups: manager, agents",
        all.join(", "),
        "voluntary context switches of all threads, `/proc/PID/task/*/status`",
    );
    let own: u64 = since.iter().map(|counters| counters.write_bytes).sum();
    table.add_at_most(
        "idle: written by manager and agents in 60 s",
        Amount::bytes(own),
        Amount::bytes(0),
        "`write_bytes` of `/proc/PID/io`, manager and three agents",
    );
    table.add_at_most(
        "idle: arrived on the lab's disk in 60 s",
        Amount::bytes(disk_bytes),
        Amount::bytes(0),
        "sectors written, `/sys/block/loopN/stat` between two `sync`s: manager, agents, containerds, registry and ext4 together",
    );
    Ok(())
}

/// Of the manager first, then of the agents.
fn of_all(manager: u32, agents: &[u32]) -> Result<Vec<Counters>> {
    [manager].iter().chain(agents).map(|pid| counters(*pid)).collect()
}
