//! A lab for one test: it ends with the test, however that ends.

use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;

use super::process::{Process, log_tail};
use super::{Config, Lab, down, leftovers, sweep};

/// Ends its lab when dropped.
pub(crate) struct Guard(Lab);

impl Guard {
    /// A cluster of `boards` boards, under a name of its own.
    pub(crate) fn cluster(boards: u8) -> Result<Self> {
        Self::up(boards, true, false)
    }

    /// The same with an agent on the manager's own board.
    pub(crate) fn with_own_board(boards: u8) -> Result<Self> {
        Self::up(boards, true, true)
    }

    /// Boards with containerd only, and a registry.
    pub(crate) fn bare(boards: u8) -> Result<Self> {
        Self::up(boards, false, false)
    }

    fn up(boards: u8, cluster: bool, manager_agent: bool) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        sweep()?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // Processes test at the same time, so the pid is part of the name.
        let name = format!("t{}{}", base36(std::process::id()), base36(count % 36));
        let config = Config {
            name: name.parse().map_err(anyhow::Error::msg)?,
            boards,
            cluster,
            manager_agent,
            owner: Process::current().map(|process| process.to_string()),
        };
        Lab::up(config).map(Self)
    }
}

impl Deref for Guard {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.0
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let failing = std::thread::panicking();
        if failing && self.0.state.cluster {
            eprintln!("{}", log_tail(&self.0.manager().log()));
            for board in self.0.boards() {
                eprintln!("{}", log_tail(&board.agent_log()));
            }
        }
        let ended = down(&self.0.name).and_then(|_| leftovers::expect_none(&self.0.name));
        match ended {
            Err(cause) if failing => eprintln!("{cause:#}"),
            ended => ended.expect("a lab ends without a trace"),
        }
    }
}

fn base36(mut number: u32) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from_digit(number % 36, 36).unwrap_or('0'));
        number /= 36;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}
