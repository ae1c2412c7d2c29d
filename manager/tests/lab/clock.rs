//! Programs whose clocks are wrong: libfaketime shows them another time of day. Their pauses are as long as ever.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::Lab;

impl Lab {
    fn clock_file(&self, program: &str) -> PathBuf {
        self.directory.join("clock").join(program)
    }

    /// Puts the clock of `manager`, or of the agent of `board1`, so many seconds off this machine's. A program that runs
    /// sees it at once, if its clock was set before it was started.
    pub(crate) fn set_clock(&self, program: &str, seconds: i64) -> Result<()> {
        let file = self.clock_file(program);
        let beside = file.with_extension("new");
        fs::create_dir_all(self.directory.join("clock"))?;
        fs::write(&beside, format!("{seconds:+}\n")).with_context(|| format!("write {}", beside.display()))?;
        Ok(fs::rename(beside, file)?)
    }

    /// What `env` is told before a program whose clock was set.
    pub(super) fn clock_environment(&self, program: &str) -> Result<Vec<String>> {
        let file = self.clock_file(program);
        if !file.exists() {
            return Ok(Vec::new());
        }
        let library = library().context("libfaketimeMT.so.1 (package libfaketime: `make deps-test`)")?;
        Ok(vec![
            format!("LD_PRELOAD={}", library.display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", file.display()),
            "FAKETIME_NO_CACHE=1".to_owned(),
            "FAKETIME_DISABLE_SHM=1".to_owned(),
            "DONT_FAKE_MONOTONIC=1".to_owned(),
            "NO_FAKE_STAT=1".to_owned(),
        ])
    }
}

fn library() -> Option<PathBuf> {
    let places = fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    let inside = |place: &Path| place.join("faketime/libfaketimeMT.so.1");
    places.map(|place| inside(&place)).find(|path| path.exists())
}
