//! Other firewalls on the board: Docker's, ufw's, firewalld's, or rules of the user's own. What they forbid stays
//! forbidden whatever our own rules say, so they are asked to let tasks' packets through.
//!
//! In: the chains of the kernel's packet filter that are not ours. Out: rules with our mark in theirs, put in by their
//! own program, so that it can read them; and in words what cannot be done. Looked at again every so often, as they
//! start and load their rules when they like. What the user's own rules forbid to tasks stays forbidden; and what lets
//! packets through to tasks opens nothing: our own chains judge them.
//!
//! ```text
//! look (netlink) ─▶ found ─▶ plan (pure) ─▶ iptables -A …, firewall-cmd …
//!                               └▶ words for the user
//! ```

mod look;
mod plan;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

pub use plan::Wanted;
use plan::{FIREWALL_CMD, Found, Plan, Ports, Step};

/// The file in the agent's run directory that names the ports which firewalld opened for us: like firewalld's own
/// memory of it, it need not survive a restart of the board.
const FILE: &str = "firewalld";

/// What the board's other firewalls were asked for.
#[derive(Debug)]
pub struct Firewall {
    /// What they do not let through, and how to mend it.
    told: Vec<String>,
    /// What was logged last.
    failed: Option<String>,
    ports: Ports,
    /// Where the ports are kept.
    file: PathBuf,
}

/// Starts a program and waits for it; an error is what it says.
type Run<'a> = &'a mut dyn FnMut(&str, &[String]) -> Result<(), String>;

impl Firewall {
    /// Knows what an earlier agent asked for. `run`: the agent's run directory.
    pub fn new(run: &Path) -> Self {
        let file = run.join(FILE);
        let text = fs::read_to_string(&file).unwrap_or_default();
        let added = text.split_whitespace().filter_map(|port| port.parse().ok()).collect();
        let ports = Ports { added, open: BTreeSet::new() };
        Self { told: Vec::new(), failed: None, ports, file }
    }

    /// Looks, and asks for what is wanted and not there; none: takes back everything. True: what is told changed.
    /// It may start other programs and wait for them: not on the executor's thread.
    pub fn keep(&mut self, wanted: Option<&Wanted>) -> bool {
        let (told, failed) = match look::look() {
            Ok(found) => self.ask(&found, wanted, &mut run),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        if failed != self.failed {
            if let Some(failed) = &failed {
                log::warn!("another firewall of this board may stop tasks' packets: {failed}");
            }
            self.failed = failed;
        }
        let changed = told != self.told;
        self.told = told;
        changed
    }

    /// One sentence each.
    pub fn degraded(&self) -> &[String] {
        &self.told
    }

    /// What is to be told, and what failed.
    fn ask(&mut self, found: &Found, wanted: Option<&Wanted>, run: Run<'_>) -> (Vec<String>, Option<String>) {
        let mut failed = None;
        if !found.firewalld_knows() && self.ports != Ports::default() {
            // It has loaded its rules anew, or is not there any more.
            failed = self.remember(Ports::default()).err().map(|error| error.to_string());
        }
        let Plan { steps, mut told } = plan::plan(found, wanted, &self.ports);
        for step in steps {
            match self.perform(&step, run) {
                Ok(()) => log::info!("{step}"),
                Err(why) => {
                    told.push(format!("a firewall of this board may stop tasks' packets: `{step}` failed: {why}"));
                    failed = Some(format!("{step}: {why}"));
                }
            }
        }
        told.sort();
        told.dedup();
        (told, failed)
    }

    fn perform(&mut self, step: &Step, run: Run<'_>) -> Result<(), String> {
        let kept = |error: io::Error| format!("which ports are ours is not kept: {error}");
        let before = self.ports.clone();
        let mut after = before.clone();
        match step {
            Step::Port { number, add: true } => {
                after.open.insert(*number);
                if run(FIREWALL_CMD, &["-q".to_owned(), format!("--query-port={number}/udp")]).is_ok() {
                    // Whoever opened it.
                    return self.remember(after).map_err(kept);
                }
                // Before it is: one that is not known to be ours would stay open.
                after.added.insert(*number);
                self.remember(after.clone()).map_err(kept)?;
            }
            Step::Port { number, add: false } => {
                after.added.remove(number);
                after.open.remove(number);
            }
            Step::Rule { .. } | Step::Link { .. } => {}
        }
        let (program, arguments) = step.command();
        let done = run(program, &arguments);
        self.remember(if done.is_ok() { after } else { before }).map_err(kept)?;
        done
    }

    /// Keeps which ports are ours.
    fn remember(&mut self, ports: Ports) -> io::Result<()> {
        if ports.added != self.ports.added {
            let text: Vec<String> = ports.added.iter().map(u16::to_string).collect();
            fs::write(&self.file, text.join("\n"))?;
        }
        self.ports = ports;
        Ok(())
    }
}

fn run(program: &str, arguments: &[String]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    let line = error.lines().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
    Err(line.chars().take(crate::limits::FIREWALL_WORDS_MAX).collect())
}

#[cfg(test)]
mod tests;
