//! Other firewalls on the board: Docker's, ufw's, firewalld's, or rules of the user's own. What they forbid stays
//! forbidden whatever our own rules say, so they are asked to let tasks' packets through.
//!
//! In: the chains of the kernel's packet filter that are not ours. Out: rules with our mark in theirs, put in by their
//! own program, so that it can read them; and in words what cannot be done. Looked at again every so often, as they
//! start and load their rules when they like. What lets packets through here opens nothing: our own chains judge them.
//!
//! ```text
//! look (netlink) ─▶ found ─▶ plan (pure) ─▶ iptables -I …, firewall-cmd …
//!                               └▶ words for the user
//! ```

mod look;
mod plan;

use std::process::Command;

pub use plan::Wanted;
use plan::{Plan, Step};

/// What the board's other firewalls were asked for.
#[derive(Debug, Default)]
pub struct Firewall {
    /// What they do not let through, and how to mend it.
    told: Vec<String>,
    /// What was logged last.
    failed: Option<String>,
}

impl Firewall {
    /// Looks, and asks for what is wanted and not there; none: takes back everything. True: what is told changed.
    /// It may start other programs and wait for them: not on the executor's thread.
    pub fn keep(&mut self, wanted: Option<&Wanted>) -> bool {
        let (told, failed) = keep(wanted);
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
}

/// What is to be told, and what failed.
fn keep(wanted: Option<&Wanted>) -> (Vec<String>, Option<String>) {
    let found = match look::look() {
        Ok(found) => found,
        Err(error) => return (Vec::new(), Some(error.to_string())),
    };
    let Plan { steps, mut told } = plan::plan(&found, wanted);
    let mut failed = None;
    for step in steps {
        match run(&step) {
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

fn run(step: &Step) -> Result<(), String> {
    let (program, arguments) = step.command();
    let output = Command::new(program).args(&arguments).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    let line = error.lines().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
    Err(line.chars().take(crate::limits::FIREWALL_WORDS_MAX).collect())
}
