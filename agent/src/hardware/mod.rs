//! How the board's hardware is while it runs: heat, voltage, pressure, signal, room.
//!
//! In: the kernel's files below a root directory. Out: a [`BoardHealth`] when it differs enough from the last one.
//! Reading is done on another thread, since a firmware or a bus may take its time; while one read is stuck there is no
//! other, and the board's health stays as it was told.

pub(crate) mod parse;

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use async_channel::Sender;
use racimo_common::object::BoardHealth;
use racimo_common::units::Bytes;
use racimo_common::wire::ToManager;
use smol::Timer;

use crate::limits;

/// The kernel's small text files below a directory.
pub(crate) struct Files(pub(crate) PathBuf);

impl Files {
    /// The file's text without what surrounds it (device trees end theirs with a NUL); empty if
    /// it cannot be read.
    pub(crate) fn text(&self, path: &str) -> String {
        let mut bytes = Vec::new();
        let read = File::open(self.0.join(path))
            .and_then(|file| file.take(limits::BOARD_FILE_MAX).read_to_end(&mut bytes).map(drop));
        if let Err(error) = read {
            log::debug!("cannot read /{path}: {error}");
        }
        String::from_utf8_lossy(&bytes).trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned()
    }

    /// The first of `paths` that has a text.
    pub(crate) fn first(&self, paths: &[&str]) -> String {
        paths.iter().map(|path| self.text(path)).find(|text| !text.is_empty()).unwrap_or_default()
    }

    /// What is in the directory `path` and begins with `prefix`, in order.
    fn list(&self, path: &str, prefix: &str) -> Vec<String> {
        let entries = fs::read_dir(self.0.join(path)).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut found: Vec<String> =
            names.filter(|name| name.starts_with(prefix)).map(|name| format!("{path}/{name}")).collect();
        found.sort_unstable();
        found.truncate(limits::HARDWARE_FILES_MAX);
        found
    }
}

/// Reads the health of a board.
#[derive(Debug, Default)]
pub struct Hardware {
    /// `/`, or a fixture.
    root: PathBuf,
    /// The agent's data directory.
    data: PathBuf,
    /// Whether a read is under way.
    is_reading: AtomicBool,
    /// Which of the firmware's bits were ever seen set.
    past: AtomicU32,
}

impl Hardware {
    /// Of the board whose files are below `root`; `data`: the agent's directory.
    pub fn new(root: &Path, data: &Path) -> Arc<Self> {
        Arc::new(Self { root: root.to_owned(), data: data.to_owned(), ..Self::default() })
    }

    /// Tells of it as long as there is somebody to tell.
    pub(crate) async fn tell(self: Arc<Self>, out: Sender<ToManager>) {
        let mut told: Option<BoardHealth> = None;
        loop {
            let this = self.clone();
            let read = smol::unblock(move || this.read_alone()).await;
            if let Some(health) = read.filter(|health| told.as_ref().is_none_or(|told| differs(told, health))) {
                if out.send(ToManager::Health(health.clone())).await.is_err() {
                    return;
                }
                told = Some(health);
            }
            Timer::after(limits::HARDWARE_EVERY).await;
        }
    }

    /// None: another read is still under way.
    fn read_alone(&self) -> Option<BoardHealth> {
        if self.is_reading.swap(true, Ordering::Acquire) {
            return None;
        }
        let health = self.read();
        self.is_reading.store(false, Ordering::Release);
        Some(health)
    }

    /// Reads it now.
    pub fn read(&self) -> BoardHealth {
        let files = Files(self.root.clone());
        let pressure = |of: &str| parse::pressure(&files.text(&format!("proc/pressure/{of}")));
        let meminfo = files.text("proc/meminfo");
        let (storage_worn, storage_spare) = storage(&files);
        let room = rustix::fs::statvfs(&self.data).ok();
        let room = room.as_ref();
        let bytes = |blocks: u64, size: u64| Bytes::new(blocks.saturating_mul(size));
        BoardHealth {
            temperature: temperature(&files),
            throttled: throttled(&files).map(|now| now | self.past.fetch_or(seen(now), Ordering::Relaxed) | seen(now)),
            pressure_cpu: pressure("cpu"),
            pressure_memory: pressure("memory"),
            pressure_io: pressure("io"),
            memory_available: parse::kib(&meminfo, "MemAvailable"),
            wifi_signal: parse::signal(&files.text("proc/net/wireless")),
            disk_free: room.map(|room| bytes(room.f_bavail, room.f_frsize)),
            disk_size: room.map(|room| bytes(room.f_blocks, room.f_frsize)),
            storage_worn,
            storage_spare,
        }
    }
}

/// The bits for what is now, with those for what was once.
fn seen(bits: u32) -> u32 {
    let now = bits & ((1 << BoardHealth::SINCE) - 1);
    bits & !now | now << BoardHealth::SINCE
}

/// The hottest processor's; of a board that does not say which zone is one, the first zone's.
fn temperature(files: &Files) -> Option<i16> {
    let mut zones = files.list("sys/class/thermal", "thermal_zone");
    let is_processor = |zone: &String| parse::is_processor(&files.text(&format!("{zone}/type")));
    if zones.iter().any(is_processor) {
        zones.retain(is_processor);
    } else {
        zones.truncate(1);
    }
    zones.iter().filter_map(|zone| parse::temperature(&files.text(&format!("{zone}/temp")))).max()
}

/// The firmware's own bits, the alarm of Raspberry Pi's voltage driver, and whether the kernel holds the frequency down.
fn throttled(files: &Files) -> Option<u32> {
    let platform = files.list("sys/devices/platform", "soc");
    let below = platform.iter().flat_map(|soc| files.list(soc, "soc"));
    let firmware = below.filter(|path| path.ends_with(":firmware"));
    let bits = firmware.filter_map(|path| parse::hex(&files.text(&format!("{path}/get_throttled"))));
    let voltage = files.list("sys/class/hwmon", "hwmon").into_iter();
    let voltage = voltage.filter(|device| files.text(&format!("{device}/name")) == "rpi_volt");
    let set = |path: String, bit: u32| match files.text(&path).parse::<u32>() {
        Ok(0) => Some(0),
        Ok(_) => Some(bit),
        Err(_) => None,
    };
    let alarms = voltage.filter_map(|device| set(format!("{device}/in0_lcrit_alarm"), BoardHealth::UNDERVOLTAGE));
    let cooling = files.list("sys/class/thermal", "cooling_device").into_iter();
    let cooling = cooling.filter(|device| files.text(&format!("{device}/type")).contains("cpufreq"));
    let capped = cooling.filter_map(|device| set(format!("{device}/cur_state"), BoardHealth::CAPPED));
    bits.chain(alarms).chain(capped).reduce(|a, b| a | b)
}

/// How worn the built-in storage (eMMC) is, and what it says of its spare blocks; cards do not tell.
fn storage(files: &Files) -> (Option<u8>, Option<u8>) {
    let disks = files.list("sys/block", "mmcblk");
    let text = |disk: &String, file: &str| files.text(&format!("{disk}/device/{file}"));
    let worn = disks.iter().filter_map(|disk| parse::worn(&text(disk, "life_time"))).max();
    (worn, disks.iter().filter_map(|disk| parse::spare(&text(disk, "pre_eol_info"))).max())
}

/// Whether the difference is worth a message.
fn differs(old: &BoardHealth, new: &BoardHealth) -> bool {
    fn far<T: Into<i64>>(old: Option<T>, new: Option<T>, step: i64) -> bool {
        match (old.map(Into::into), new.map(Into::into)) {
            (Some(old), Some(new)) => (old - new).abs() >= step,
            (old, new) => old != new,
        }
    }
    let percent = |old: Option<u8>, new: Option<u8>| far(old, new, 10);
    // The less there is left, the more each byte counts.
    let left = |old: Option<Bytes>, new: Option<Bytes>| {
        let step = old.map_or(0, |old| old.to_i64() / 8).max(1 << 20);
        far(old.map(|bytes| bytes.to_i64()), new.map(|bytes| bytes.to_i64()), step)
    };
    let exact = |health: &BoardHealth| (health.throttled, health.disk_size, health.storage_worn, health.storage_spare);
    exact(old) != exact(new)
        || far(old.temperature, new.temperature, 3)
        || far(old.wifi_signal, new.wifi_signal, 5)
        || percent(old.pressure_cpu, new.pressure_cpu)
        || percent(old.pressure_memory, new.pressure_memory)
        || percent(old.pressure_io, new.pressure_io)
        || left(old.memory_available, new.memory_available)
        || left(old.disk_free, new.disk_free)
}

#[cfg(test)]
mod tests;
