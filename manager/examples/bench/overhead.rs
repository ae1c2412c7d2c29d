//! What a board pays beside its tasks: agent, containerd, shims, log processes.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::Result;

use super::cluster::SETTLE;
use super::lab::Lab;
use super::process::{Shares, shared};
use super::table::Table;
use super::{client, floor};

/// Processes of one kind.
#[derive(Default)]
struct Kind {
    count: u64,
    shares: Shares,
}

impl Kind {
    fn add(&mut self, shares: Shares) {
        self.count += 1;
        self.shares.pss += shares.pss;
        self.shares.private += shares.private;
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB ({} KiB private, {} of them)", self.shares.pss, self.shares.private, self.count)
    }
}

/// Adds the figures of one board without tasks, with 10 and with 50.
pub(crate) fn figures(lab: &Lab, table: &mut Table) -> Result<()> {
    // Image and programs have been used once, as on any board that has run for a while.
    floor::pull(lab)?;
    client::create(lab, "warm", &["--replicas", "4"])?;
    client::wait_running(lab, "warm", 4, |_| true)?;
    client::remove(lab, &["warm"])?;
    for count in [0_usize, 10, 50] {
        if count > 0 {
            client::create(lab, "many", &["--replicas", &count.to_string()])?;
            client::wait_running(lab, "many", count, |_| true)?;
        }
        std::thread::sleep(SETTLE);
        measured(lab, count, table)?;
        if count > 0 {
            client::remove(lab, &["many"])?;
        }
    }
    Ok(())
}

fn measured(lab: &Lab, tasks: usize, table: &mut Table) -> Result<()> {
    let [mut agent, mut containerd, mut shims, mut loggers] = <[Kind; 4]>::default();
    for pid in lab.board(1)?.processes() {
        // It may have ended since it was listed.
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split('\0');
        let name = words.next().and_then(|path| Path::new(path).file_name()?.to_str()).unwrap_or_default();
        let kind = match (name, words.next()) {
            ("pi-agent", Some("log")) => &mut loggers,
            ("pi-agent", _) => &mut agent,
            ("containerd", _) => &mut containerd,
            ("containerd-shim-runc-v2", _) => &mut shims,
            // Tasks.
            _ => continue,
        };
        kind.add(shared(pid)?);
    }
    let kinds = [&agent, &containerd, &shims, &loggers];
    let sum = |part: fn(&Shares) -> u64| kinds.iter().map(|kind| part(&kind.shares)).sum::<u64>();
    let way = "PSS of `smaps_rollup`, sums, on a board of its own";
    table.add(
        format!("whole overhead of a board, {tasks} tasks: PSS"),
        format!("{} KiB ({} KiB private)", sum(|shares| shares.pss), sum(|shares| shares.private)),
        way,
    );
    for (what, kind) in [("agent", agent), ("containerd", containerd), ("shims", shims), ("log processes", loggers)] {
        table.add(format!("{what} of a board, {tasks} tasks: PSS"), kind.to_string(), way);
    }
    Ok(())
}
