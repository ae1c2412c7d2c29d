//! What kind of board is this?
//!
//! In: the kernel's and the system's files below a root directory, and what the agent knows of
//! itself. Out: a [`NodeDescription`]. What cannot be read is left empty: a board is never kept
//! out of a cluster by a missing file.

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path};

use racimo_common::{
    object::{Generics, NodeDescription},
    registry::Platform,
    units::NanoCpus,
    wire::BoardId,
};

use crate::hardware::{Files, parse, parse::field};
use crate::sys;

/// Label with the board's model, as `Raspberry Pi 4 Model B Rev 1.4`.
pub const MODEL_LABEL: &str = "io.racimo.model";
/// Label with the SHA-256 of the board's serial number, in hexadecimal: it tells boards apart
/// without telling the number.
pub const SERIAL_LABEL: &str = "io.racimo.serial";
/// Label with the size of the kernel's memory pages in bytes, as `16384`.
pub const PAGE_SIZE_LABEL: &str = "io.racimo.page-size";

/// What the agent knows of itself, for its board's description.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Own {
    /// Labels from the configuration; those of the board itself win over them.
    pub labels: BTreeMap<String, String>,
    /// containerd's version; empty while it is away.
    pub containerd_version: String,
    /// Most tasks the agent holds.
    pub tasks_max: u32,
    /// Generic resources from the configuration.
    pub generic: Generics,
    /// The address by which other boards reach it, from the configuration.
    pub data_address: Option<Ipv4Addr>,
}

/// Describes the board whose files are below `root` (`/`, or a fixture), and what it cannot do.
pub fn describe(root: &Path, own: Own, degraded: Vec<String>) -> NodeDescription {
    let files = Files(root.to_path_buf());
    let cpuinfo = files.text("proc/cpuinfo");
    let mut labels = own.labels;
    let page_size = Some(sys::page_size().to_string());
    for (label, value) in [(MODEL_LABEL, model(&files)), (SERIAL_LABEL, serial(&files)), (PAGE_SIZE_LABEL, page_size)] {
        labels.extend(value.map(|value| (label.to_owned(), value)));
    }
    NodeDescription {
        hostname: files.text("proc/sys/kernel/hostname"),
        platforms: platforms(std::env::consts::ARCH, &cpuinfo, sys::runs_32_bit()),
        machine: machine(&files.text("proc/sys/kernel/arch"), std::env::consts::ARCH, &cpuinfo),
        cpus: NanoCpus::new(cpus(&files.text("sys/devices/system/cpu/online")).saturating_mul(1_000_000_000)),
        // The total leaves out what the firmware and the GPU keep.
        memory: parse::kib(&files.text("proc/meminfo"), "MemTotal").unwrap_or_default(),
        kernel: files.text("proc/sys/kernel/osrelease"),
        os: system_name(&files.first(&["etc/os-release", "usr/lib/os-release"])),
        agent_version: env!("CARGO_PKG_VERSION").into(),
        containerd_version: own.containerd_version,
        labels,
        tasks_max: own.tasks_max,
        generic: own.generic,
        data_address: own.data_address,
        degraded,
        ..NodeDescription::default()
    }
}

/// Which board this is, as far as its files below `root` tell. A serial number comes with the board, a machine-id with
/// its card.
pub fn board(root: &Path) -> BoardId {
    let files = Files(root.to_path_buf());
    let digest = |kind: &str, text: String| {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        [BOARD_PREFIX, kind, "\0", &text].iter().for_each(|part| context.update(part.as_bytes()));
        context.finish().as_ref().try_into().ok()
    };
    let serials = [
        "proc/device-tree/serial-number",
        "sys/firmware/devicetree/base/serial-number",
        "sys/class/dmi/id/product_uuid",
    ];
    let serial = serials.iter().map(|path| files.text(path).to_lowercase()).find(|text| is_serial(text));
    let machine = Some(files.text("etc/machine-id")).filter(|text| is_serial(text) && text != "uninitialized");
    BoardId {
        serial: serial.and_then(|text| digest("serial", text)),
        machine: machine.and_then(|text| digest("machine", text)),
    }
}

/// What goes before everything that is hashed for a [`BoardId`]: so its digests are of no use elsewhere.
const BOARD_PREFIX: &str = "racimo board ";

/// Boards without a serial number have one of zeros, and PCs without one of zeros or fs.
fn is_serial(text: &str) -> bool {
    let mut digits = text.chars().filter(|c| c.is_alphanumeric());
    digits.next().is_some_and(|first| digits.any(|digit| digit != first))
}

fn model(files: &Files) -> Option<String> {
    Some(files.text("proc/device-tree/model")).filter(|model| !model.is_empty())
}

fn serial(files: &Files) -> Option<String> {
    let serial = files.text("proc/device-tree/serial-number");
    if serial.is_empty() {
        return None;
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, serial.as_bytes());
    Some(digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What the userland can run, best first. The agent's own architecture is the proof of the
/// userland's: a 32-bit system on a 64-bit kernel gets the 32-bit agent.
fn platforms(architecture: &str, cpuinfo: &str, runs_32_bit: bool) -> Vec<Platform> {
    let variant = if architecture == "arm" { arm_variant(cpuinfo) } else { "" };
    let mut platforms = Platform::new("linux", architecture, variant).runnable();
    if runs_32_bit {
        platforms.extend(Platform::new("linux", "arm", "v7").runnable());
    }
    platforms
}

/// v6 or v7, for a 32-bit agent. The line `CPU architecture` is no help: a Pi Zero's ARM1176 says
/// 7 there. On a 64-bit kernel v7 is what a 32-bit userland is built for at best.
fn arm_variant(cpuinfo: &str) -> &'static str {
    let old = field(cpuinfo, "CPU part") == "0xb76" || field(cpuinfo, "model name").starts_with("ARMv6");
    if old { "v6" } else { "v7" }
}

/// The kernel's machine name. Linux tells it in a file since 6.1; before that, the agent's
/// architecture has to do.
fn machine(kernel: &str, architecture: &str, cpuinfo: &str) -> String {
    match (kernel, architecture) {
        ("", "arm") => format!("arm{}l", arm_variant(cpuinfo)),
        ("arm", _) => format!("arm{}l", arm_variant(cpuinfo)),
        ("", other) => other.to_owned(),
        (kernel, _) => kernel.to_owned(),
    }
}

/// CPUs in a list as `0-3,8`; one if the list makes no sense, because something runs us.
fn cpus(online: &str) -> u64 {
    let count = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.trim().parse::<u64>().ok()?, last.trim().parse::<u64>().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    let counts: Option<Vec<u64>> = online.split(',').map(count).collect();
    counts.unwrap_or_default().into_iter().fold(0, u64::saturating_add).max(1)
}

/// The system's name for people, from `os-release`.
fn system_name(release: &str) -> String {
    let value = |key: &str| release.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='));
    let quoted = value("PRETTY_NAME").or_else(|| value("NAME")).unwrap_or("Linux").trim();
    let inner = quoted.trim_matches(|c| c == '"' || c == '\'');
    inner.replace('\\', "")
}

#[cfg(test)]
mod tests {
    use racimo_common::units::Bytes;

    use super::*;

    const ZERO: &str = "processor\t: 0\nmodel name\t: ARMv6-compatible processor rev 7 (v6l)\n\
        CPU architecture: 7\nCPU part\t: 0xb76\nHardware\t: BCM2835\n";
    const PI2: &str =
        "processor\t: 0\nmodel name\t: ARMv7 Processor rev 5 (v7l)\nCPU architecture: 7\nCPU part\t: 0xc07\n";

    /// A Pi 4 with a 64-bit kernel, as a 32-bit program sees it; Raspberry Pi OS armhf boots so.
    const PI4_32: &str = "processor\t: 0\nmodel name\t: ARMv8 Processor rev 3 (v8l)\nFeatures\t: half thumb neon vfpv4 \
        lpae aes crc32\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd08\n";
    /// The same, as a 64-bit program sees it: that has no model name.
    const PI4_64: &str = "processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\n\
        CPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd08\n";

    #[track_caller]
    fn check_platforms(architecture: &str, cpuinfo: &str, runs_32_bit: bool, want: &[&str]) {
        let want: Vec<Platform> = want.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(platforms(architecture, cpuinfo, runs_32_bit), want);
    }

    #[test]
    fn platforms_best_first() {
        let arm32 = ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"];
        check_platforms("x86_64", "", false, &["linux/amd64"]);
        check_platforms("aarch64", "", false, &["linux/arm64"]);
        check_platforms("aarch64", "", true, &["linux/arm64", arm32[0], arm32[1], arm32[2]]);
        check_platforms("arm", PI2, false, &arm32);
        // A 32-bit userland on a 64-bit kernel: what the kernel is does not count, nor which of our 32-bit agents runs.
        check_platforms("arm", PI4_32, false, &arm32);
        check_platforms("arm", PI4_64, false, &arm32);
        check_platforms("aarch64", PI4_64, true, &["linux/arm64", arm32[0], arm32[1], arm32[2]]);
        check_platforms("arm", ZERO, false, &arm32[1..]);
    }

    #[test]
    fn machines() {
        assert_eq!(machine("aarch64", "arm", PI2), "aarch64");
        assert_eq!(machine("aarch64", "arm", PI4_32), "aarch64");
        assert_eq!(machine("", "arm", PI4_32), "armv7l");
        assert_eq!(machine("", "arm", ZERO), "armv6l");
        assert_eq!(machine("arm", "arm", PI2), "armv7l");
        assert_eq!(machine("", "x86_64", ""), "x86_64");
    }

    #[track_caller]
    fn check_cpus(online: &str, want: u64) {
        assert_eq!(cpus(online), want, "{online}");
    }

    #[test]
    fn cpus_that_are_online() {
        check_cpus("0-3", 4);
        check_cpus("0", 1);
        check_cpus("0-1,4,6-7", 5);
        for nonsense in ["", "x", "3-0", "0-", "0-18446744073709551615"] {
            check_cpus(nonsense, 1);
        }
    }

    #[test]
    fn names_of_systems() {
        assert_eq!(
            system_name("ID=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
            "Debian GNU/Linux 12 (bookworm)"
        );
        assert_eq!(system_name("NAME='Alpine'"), "Alpine");
        assert_eq!(system_name("PRETTY_NAME_X=no"), "Linux");
        assert_eq!(system_name(""), "Linux");
    }

    #[test]
    fn which_board_it_is() {
        let check = |files: &[(&str, &str)], serial: bool, machine: bool| {
            let dir = tempfile::tempdir().unwrap();
            for (path, text) in files {
                let path = dir.path().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            let found = board(dir.path());
            assert_eq!((found.serial.is_some(), found.machine.is_some()), (serial, machine), "{files:?}");
            found
        };
        let (tree, sys) = ("proc/device-tree/serial-number", "sys/firmware/devicetree/base/serial-number");
        let (uuid, machine) = ("sys/class/dmi/id/product_uuid", "etc/machine-id");
        let (number, id) = ("10000000abcdef01\0", "6a9f0c1b2d3e4f5061728394a5b6c7d8\n");
        let one = check(&[(tree, number), (machine, id)], true, true);
        assert_eq!(check(&[(sys, number), (machine, id)], true, true), one);
        assert_eq!(check(&[(tree, number)], true, false).serial, one.serial);
        assert_ne!(check(&[(tree, "10000000abcdef02\0")], true, false).serial, one.serial);
        assert_ne!(one.serial, one.machine);
        // The same text in two places means two things.
        let both = check(&[(tree, "77aa"), (machine, "77aa")], true, true);
        assert_ne!(both.serial, both.machine);
        // No number, or none yet.
        check(&[(tree, "0000000000000000\0"), (machine, "uninitialized\n")], false, false);
        check(&[(tree, "\0"), (machine, "\n")], false, false);
        check(&[(uuid, "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF\n")], false, false);
        let pc = check(&[(tree, "0000\0"), (uuid, "4C4C4544-0042-4410-8053-B7C04F4D3732\n")], true, false);
        assert_eq!(check(&[(uuid, "4c4c4544-0042-4410-8053-b7c04f4d3732\n")], true, false), pc);
        check(&[], false, false);
    }

    #[test]
    fn a_board_from_its_files() {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("proc/sys/kernel/hostname", "berry\n"),
            ("proc/sys/kernel/osrelease", "6.12.47+rpt-rpi-v8\n"),
            ("proc/sys/kernel/arch", "aarch64\n"),
            ("proc/meminfo", "MemTotal:        3885396 kB\nMemFree: 1 kB\n"),
            ("proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0"),
            ("proc/device-tree/serial-number", "10000000abcdef01\0"),
            ("sys/devices/system/cpu/online", "0-3\n"),
            ("usr/lib/os-release", "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n"),
        ] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let labels =
            BTreeMap::from([("disk".to_owned(), "ssd".to_owned()), (MODEL_LABEL.to_owned(), "forged".to_owned())]);
        let data_address = Some(Ipv4Addr::new(10, 1, 2, 3));
        let own = Own { labels, containerd_version: "1.7.24".into(), tasks_max: 64, data_address, ..Own::default() };
        let found = describe(dir.path(), own, vec!["no memory limits".into()]);
        assert_eq!((found.hostname.as_str(), found.machine.as_str()), ("berry", "aarch64"));
        assert_eq!((found.cpus.to_string(), found.memory), ("4".into(), Bytes::new(3_885_396 << 10)));
        assert_eq!((found.kernel.as_str(), found.os.as_str()), ("6.12.47+rpt-rpi-v8", "Debian GNU/Linux 13 (trixie)"));
        assert_eq!((found.containerd_version.as_str(), found.tasks_max), ("1.7.24", 64));
        assert_eq!(found.data_address, data_address);
        assert_eq!(found.labels["disk"], "ssd");
        assert_eq!(found.labels[MODEL_LABEL], "Raspberry Pi 4 Model B Rev 1.4");
        assert_eq!(found.labels[SERIAL_LABEL].len(), 64);
        assert!(!found.labels[SERIAL_LABEL].contains("abcdef01"));
        assert_eq!(found.degraded, ["no memory limits"]);

        let bare = describe(Path::new("/no/such"), Own::default(), Vec::new());
        assert_eq!((bare.hostname.as_str(), bare.os.as_str(), bare.memory), ("", "Linux", Bytes::new(0)));
        assert_eq!(bare.labels.keys().collect::<Vec<_>>(), [PAGE_SIZE_LABEL]);
        let size: usize = bare.labels[PAGE_SIZE_LABEL].parse().unwrap();
        assert!(size.is_power_of_two() && size >= 4096, "{size}");
    }
}
