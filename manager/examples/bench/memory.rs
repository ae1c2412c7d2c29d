//! Memory of agent and manager beside their budgets.

use anyhow::{Context as _, Result, ensure};

use super::lab::Lab;
use super::process::{Memory, Parts, Shares, memory, shared, threads};
use super::table::{Amount, Table};

/// Of an agent with 25 tasks.
const AGENT_RSS_KIB_MAX: u64 = 3 << 10;
/// Of a manager with 3 nodes and 30 tasks.
const MANAGER_RSS_KIB_MAX: u64 = 10 << 10;

fn agent(lab: &Lab) -> Result<u32> {
    Ok(lab.board(1)?.agent().context("board 1 has no agent")?.pid)
}

fn manager(lab: &Lab) -> Result<u32> {
    Ok(lab.manager().process().context("no manager runs")?.pid)
}

fn detail(what: &str, pid: u32, memory: Memory, table: &mut Table) -> Result<()> {
    let Memory { rss: _, peak, anon, private_dirty, parts: Parts { program, libraries, heap, other } } = memory;
    table.add(
        format!("{what}: RssAnon, Private_Dirty, VmHWM"),
        format!("{anon}, {private_dirty}, {peak} KiB"),
        "`/proc/PID/status`, `smaps_rollup`",
    );
    table.add(
        format!("{what}: where it is"),
        format!("program {program}, libraries {libraries}, heap {heap}, other {other} KiB; {} threads", threads(pid)?),
        "`Rss` in `/proc/PID/smaps`",
    );
    Ok(())
}

/// Before there is any task.
pub(crate) fn empty(lab: &Lab, table: &mut Table) -> Result<()> {
    for (what, pid) in [("agent, no tasks", agent(lab)?), ("manager, 3 nodes, no tasks", manager(lab)?)] {
        let memory = memory(pid)?;
        table.add(format!("{what}: VmRSS"), Amount::kib(memory.rss).to_string(), "`/proc/PID/status`");
        detail(what, pid, memory, table)?;
    }
    Ok(())
}

/// With 25 tasks on board 1 and 30 in all.
pub(crate) fn loaded(lab: &Lab, table: &mut Table) -> Result<()> {
    let budgets = [
        ("agent, 25 tasks", agent(lab)?, AGENT_RSS_KIB_MAX),
        ("manager, 3 nodes, 30 tasks", manager(lab)?, MANAGER_RSS_KIB_MAX),
    ];
    for (what, pid, most) in budgets {
        let memory = memory(pid)?;
        table.add_at_most(format!("{what}: VmRSS"), Amount::kib(memory.rss), Amount::kib(most), "`/proc/PID/status`");
        detail(what, pid, memory, table)?;
    }
    Ok(())
}

/// With 25 tasks on three networks that 100 services are on.
pub(crate) fn networked(lab: &Lab, table: &mut Table) -> Result<()> {
    let (what, pid) = ("agent, 25 tasks on 3 networks, 100 services", agent(lab)?);
    let memory = memory(pid)?;
    let way = "`/proc/PID/status`; each of the other 99 services has a task on another board";
    table.add_at_most(format!("{what}: VmRSS"), Amount::kib(memory.rss), Amount::kib(AGENT_RSS_KIB_MAX), way);
    detail(what, pid, memory, table)
}

/// The log processes of board 1's 25 tasks: they have one page cache, so what counts is what each has for itself.
pub(crate) fn loggers(lab: &Lab, table: &mut Table) -> Result<()> {
    // On x86-64 with glibc some 150 KiB, and the program's relocated constants. A board's static agent has neither.
    const EACH_KIB_MAX: u64 = 256;
    let directory = lab.board(1)?.data().join("logs").display().to_string();
    let (mut count, mut rss, mut shares) = (0, 0, Shares::default());
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may have ended since it was listed.
        let line = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        if line.split('\0').nth(1) != Some("log") || !line.contains(&directory) {
            continue;
        }
        let own = shared(pid)?;
        count += 1;
        rss += own.rss;
        shares.pss += own.pss;
        shares.private += own.private;
    }
    ensure!(count == 25, "25 log processes, not {count}");
    table.add_at_most(
        "log process, of 25: private memory".to_owned(),
        Amount::kib(shares.private / count),
        Amount::kib(EACH_KIB_MAX),
        "`Private_*` of `smaps_rollup`, mean",
    );
    table.add(
        "log processes of 25 tasks: PSS, private, RSS",
        format!("{} KiB, {} KiB, {} KiB each", shares.pss, shares.private, rss / count),
        "`smaps_rollup`; sums, but the last: mean",
    );
    Ok(())
}
