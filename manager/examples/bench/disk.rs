//! A disk of the lab's own, so that its writes can be counted where they arrive.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};

use super::lab::process::run;
use super::lab::state;

/// Sparse; images and containers take a small part of it.
const DISK_BYTES: u64 = 4 << 30;
/// Sectors in `/sys/block/*/stat` have this size whatever the device's is.
const SECTOR_BYTES: u64 = 512;

/// An ext4 file system in a file, mounted through a loop device. Gone when dropped.
pub(crate) struct LoopDisk {
    file: PathBuf,
    mount: PathBuf,
    /// `/dev/loopN`.
    device: String,
}

impl LoopDisk {
    /// Makes and mounts it.
    pub(crate) fn make() -> Result<Self> {
        let file = PathBuf::from(format!("/var/tmp/racimo-bench-{}.img", std::process::id()));
        let mount = file.with_extension("");
        let (file_text, mount_text) = (file.to_string_lossy(), mount.to_string_lossy());
        let mut disk = Self { file: file.clone(), mount: mount.clone(), device: String::new() };
        let image = fs::File::create(&file).with_context(|| format!("make {}", file.display()))?;
        image.set_len(DISK_BYTES)?;
        // Nothing is left for the kernel to do later: it would count as ours.
        run(&["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", &file_text])
            .context("package e2fsprogs")?;
        run(&["losetup", "--find", "--show", &file_text])?.trim().clone_into(&mut disk.device);
        fs::create_dir(&mount)?;
        run(&["mount", "-o", "noatime", &disk.device, &mount_text])?;
        Ok(disk)
    }

    /// Runs this program again with the lab on this disk.
    pub(crate) fn run_again(self) -> Result<ExitCode> {
        let status = Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .args(["--device", &self.device])
            .env("RACIMO_LAB_DIR", self.mount.join("lab"))
            .status()?;
        Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let undo = |argv: &[&str]| {
            if let Err(cause) = run(argv) {
                eprintln!("bench: {cause:#}");
            }
        };
        if self.mount.is_dir() {
            undo(&["umount", &self.mount.to_string_lossy()]);
            let _ = fs::remove_dir(&self.mount);
        }
        if !self.device.is_empty() {
            undo(&["losetup", "--detach", &self.device]);
        }
        let _ = fs::remove_file(&self.file);
    }
}

/// Bytes that were written to `device` so far, once everything under way has arrived.
pub(crate) fn written(device: &str) -> Result<u64> {
    // Only this disk: others on the machine may be busy.
    run(&["sync", "-f", &state::root().to_string_lossy()])?;
    let name = Path::new(device).file_name().context("a device has a name")?;
    let file = Path::new("/sys/block").join(name).join("stat");
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    // Field 7: sectors written.
    let sectors = text.split_ascii_whitespace().nth(6).and_then(|field| field.parse::<u64>().ok());
    ensure!(sectors.is_some(), "{}: no count of sectors written in {text:?}", file.display());
    Ok(sectors.unwrap_or(0) * SECTOR_BYTES)
}
