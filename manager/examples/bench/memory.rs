//! Memory of agent and manager beside their budgets.

use anyhow::{Context as _, Result};

use super::lab::Lab;
use super::process::{Memory, Parts, memory, threads};
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
