//! Sizes of the files that were built.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::lab;
use super::table::{Amount, Table};

/// The agent's place on a board's disk.
const AGENT_FILE_MAX: u64 = 2 << 20;

/// Files below the target directory, and whether the agent's budget is meant for them.
const FILES: [(&str, &str, &str, bool); 3] = [
    (
        "agent file, armv7 static",
        "cross/armv7-unknown-linux-musleabihf/release/pi-agent",
        "`make agent-armv7`, `stat -c %s`",
        true,
    ),
    ("agent file, this machine", "release/pi-agent", "`make agent-size`", false),
    ("manager file, this machine", "release/pi-mgr", "`cargo build --release`", false),
];

/// Adds the files' sizes.
pub(crate) fn measure(table: &mut Table) -> Result<()> {
    // RACIMO_BIN_DIR is below the target directory.
    let programs = lab::require::bin_dir()?;
    let target = programs.parent().context("no directory above the programs")?;
    for (figure, file, way, is_limited) in FILES {
        let size = size(&target.join(file));
        match size {
            None => table.add(figure, "not built", way),
            Some(size) if is_limited => {
                table.add_at_most(figure, Amount::bytes(size), Amount::bytes(AGENT_FILE_MAX), way);
            }
            Some(size) => table.add(figure, Amount::bytes(size).to_string(), way),
        }
    }
    Ok(())
}

fn size(file: &Path) -> Option<u64> {
    file.metadata().ok().map(|metadata| metadata.len())
}
