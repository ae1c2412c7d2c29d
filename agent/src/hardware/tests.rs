//! Files as boards have them.

use super::*;

/// What a Raspberry Pi 4 with Raspberry Pi OS trixie says, on a weak supply and in the sun.
const PI_4: &[(&str, &str)] = &[
    ("proc/meminfo", "MemTotal:        3885396 kB\nMemFree:          103956 kB\nMemAvailable:    2874516 kB\n"),
    (
        "proc/net/wireless",
        "Inter-| sta-|   Quality        |   Discarded packets               | Missed | WE\n \
         face | tus | link level noise |  nwid  crypt   frag  retry   misc | beacon | 22\n \
         wlan0: 0000   49.  -61.  -256        0      0      0      0     12        0\n",
    ),
    (
        "proc/pressure/cpu",
        "some avg10=2.71 avg60=13.99 avg300=0.20 total=183207\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    ),
    ("proc/pressure/memory", "some avg10=0.00 avg60=0.31 avg300=0.00 total=1\nfull avg10=0.00 avg60=9.00 total=0\n"),
    ("proc/pressure/io", "some avg10=99.00 avg60=100.00 avg300=3.00 total=1\n"),
    ("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
    ("sys/class/thermal/thermal_zone0/temp", "82277\n"),
    ("sys/class/thermal/cooling_device0/type", "cpufreq-cpu0\n"),
    ("sys/class/thermal/cooling_device0/cur_state", "0\n"),
    ("sys/class/hwmon/hwmon0/name", "cpu_thermal\n"),
    ("sys/class/hwmon/hwmon1/name", "rpi_volt\n"),
    ("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "0\n"),
    ("sys/devices/platform/soc/soc:firmware/get_throttled", "50004\n"),
    ("sys/block/mmcblk0/device/type", "SD\n"),
];

/// A Raspberry Pi 5: another place for the firmware, no bits of it; a fan that is no brake, PSI that is off.
const PI_5: &[(&str, &str)] = &[
    ("proc/meminfo", "MemTotal:        8256896 kB\nMemAvailable:    7000000 kB\n"),
    ("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
    ("sys/class/thermal/thermal_zone0/temp", "48850\n"),
    ("sys/class/thermal/cooling_device0/type", "pwm-fan\n"),
    ("sys/class/thermal/cooling_device0/cur_state", "2\n"),
    ("sys/class/hwmon/hwmon3/name", "rpi_volt\n"),
    ("sys/class/hwmon/hwmon3/in0_lcrit_alarm", "1\n"),
    ("sys/devices/platform/soc@107c000000/soc@107c000000:firmware/uevent", "OF_NAME=firmware\n"),
];

/// A Rockchip board with eMMC: several zones, the kernel is its own brake.
const ROCK: &[(&str, &str)] = &[
    ("sys/class/thermal/thermal_zone0/type", "gpu-thermal\n"),
    ("sys/class/thermal/thermal_zone0/temp", "95000\n"),
    ("sys/class/thermal/thermal_zone1/type", "soc-thermal\n"),
    ("sys/class/thermal/thermal_zone1/temp", "71500\n"),
    ("sys/class/thermal/thermal_zone2/type", "cpu-b0-thermal\n"),
    ("sys/class/thermal/thermal_zone2/temp", "73000\n"),
    ("sys/class/thermal/cooling_device0/type", "cpufreq-cpu4\n"),
    ("sys/class/thermal/cooling_device0/cur_state", "3\n"),
    ("sys/block/mmcblk1/device/life_time", "0x02 0x0b\n"),
    ("sys/block/mmcblk1/device/pre_eol_info", "0x02\n"),
    ("sys/block/mmcblk1boot0/device/life_time", "0x02 0x0b\n"),
];

fn write(root: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// What a board with these files says, without what this machine's disk adds.
#[track_caller]
fn check(files: &[(&str, &str)], want: BoardHealth) {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), files);
    let found = Hardware::new(dir.path(), Path::new("/no/such")).read();
    assert_eq!(found, want);
}

#[test]
fn boards() {
    let pi_4 = BoardHealth {
        temperature: Some(82),
        throttled: Some(0x5_0004),
        pressure_cpu: Some(13),
        pressure_memory: Some(0),
        pressure_io: Some(100),
        memory_available: Some(Bytes::new(2_874_516 << 10)),
        wifi_signal: Some(-61),
        ..BoardHealth::default()
    };
    check(PI_4, pi_4);
    let pi_5 = BoardHealth {
        temperature: Some(48),
        throttled: Some(0x1_0001),
        memory_available: Some(Bytes::new(7_000_000 << 10)),
        ..BoardHealth::default()
    };
    check(PI_5, pi_5);
    let rock = BoardHealth {
        temperature: Some(73),
        throttled: Some(0x2_0002),
        storage_worn: Some(110),
        storage_spare: Some(2),
        ..BoardHealth::default()
    };
    check(ROCK, rock);
    check(&[], BoardHealth::default());
}

#[test]
fn the_data_directory_has_a_size() {
    let dir = tempfile::tempdir().unwrap();
    let found = Hardware::new(dir.path(), dir.path()).read();
    let (Some(free), Some(size)) = (found.disk_free, found.disk_size) else { panic!("{found:?}") };
    assert!(free <= size && size > Bytes::mib(1), "{free} of {size}");
}

#[test]
fn what_was_once_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let hardware = Hardware::new(dir.path(), dir.path());
    let alarm = "sys/class/hwmon/hwmon0/in0_lcrit_alarm";
    write(dir.path(), &[("sys/class/hwmon/hwmon0/name", "rpi_volt\n"), (alarm, "0\n")]);
    for (alarm_is, want) in [("0\n", 0), ("1\n", 0x1_0001), ("0\n", 0x1_0000)] {
        write(dir.path(), &[(alarm, alarm_is)]);
        assert_eq!(hardware.read().throttled, Some(want), "{alarm_is:?}");
    }
}

/// A file that blocks (here: a pipe that nobody writes to) holds up neither the loop nor, after it, a second read.
#[test]
fn a_file_that_blocks_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let zone = dir.path().join("sys/class/thermal/thermal_zone0");
    fs::create_dir_all(&zone).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(zone.join("temp")).status().unwrap().success());
    let hardware = Hardware::new(dir.path(), dir.path());
    let (out, told) = async_channel::bounded(1);
    smol::block_on(async {
        let stuck = smol::future::or(
            async {
                hardware.clone().tell(out.clone()).await;
                true
            },
            async {
                while !hardware.is_reading.load(Ordering::Acquire) {
                    Timer::after(std::time::Duration::from_millis(1)).await;
                }
                false
            },
        );
        assert!(!stuck.await, "the loop runs on while the read is stuck");
        assert_eq!(hardware.read_alone(), None, "one read at a time");
        // The session is over, the read is not; its thread ends once the file does.
        fs::write(zone.join("temp"), "50000\n").unwrap();
        while hardware.is_reading.load(Ordering::Acquire) {
            Timer::after(std::time::Duration::from_millis(1)).await;
        }
        fs::remove_file(zone.join("temp")).unwrap();
        fs::write(zone.join("temp"), "51000\n").unwrap();
        let first = smol::future::or(async { told.recv().await.ok() }, async {
            hardware.clone().tell(out.clone()).await;
            None
        });
        let Some(ToManager::Health(health)) = first.await else { panic!("nothing was told") };
        assert_eq!(health.temperature, Some(51));
    });
}

#[test]
fn texts_that_make_no_sense() {
    for text in ["", "x", "99999999999", "-300000", "274000"] {
        assert_eq!(parse::temperature(text), None, "{text}");
    }
    assert_eq!(parse::temperature("-1500"), Some(-2));
    for text in ["", "some", "some avg60=", "some avg60=101.00", "some avg10=1.00", "full avg60=1.00"] {
        assert_eq!(parse::pressure(text), None, "{text}");
    }
    // Units of the driver's own; not known; no interface.
    for text in ["wlan0: 0000 70 40 0", "wlan0: 0000 0. -256. -256.", "a: b", " face | tus | link level", ""] {
        assert_eq!(parse::signal(text), None, "{text}");
    }
    assert_eq!(parse::signal("wlan0: 0 5. -80. 0\nwlan1: 0 5. -40. 0\n"), Some(-40));
    for text in ["", "0x00 0x00", "0x0c 0xff", "x"] {
        assert_eq!(parse::worn(text), None, "{text}");
    }
    assert_eq!((parse::worn("0x01 0x00"), parse::spare("0x03"), parse::spare("0x00")), (Some(10), Some(3), None));
    assert_eq!((parse::hex("0x50005"), parse::hex("50005"), parse::hex("")), (Some(0x5_0005), Some(0x5_0005), None));
    assert_eq!(parse::kib("MemAvailable: x kB", "MemAvailable"), None);
}

#[test]
fn only_what_matters_is_told_again() {
    let old = BoardHealth {
        temperature: Some(50),
        throttled: Some(0),
        pressure_io: Some(10),
        memory_available: Some(Bytes::mib(800)),
        disk_free: Some(Bytes::mib(8000)),
        wifi_signal: Some(-60),
        ..BoardHealth::default()
    };
    let check = |change: fn(&mut BoardHealth), want: bool| {
        let mut new = old.clone();
        change(&mut new);
        assert_eq!(differs(&old, &new), want, "{new:?}");
    };
    check(|_| {}, false);
    check(|h| h.temperature = Some(52), false);
    check(|h| h.temperature = Some(47), true);
    check(|h| h.temperature = None, true);
    check(|h| h.throttled = Some(1), true);
    check(|h| h.pressure_io = Some(19), false);
    check(|h| h.pressure_io = Some(20), true);
    check(|h| h.pressure_cpu = Some(0), true);
    check(|h| h.memory_available = Some(Bytes::mib(701)), false);
    check(|h| h.memory_available = Some(Bytes::mib(700)), true);
    check(|h| h.disk_free = Some(Bytes::mib(7500)), false);
    check(|h| h.disk_free = Some(Bytes::mib(100)), true);
    check(|h| h.wifi_signal = Some(-64), false);
    check(|h| h.wifi_signal = Some(-70), true);
    check(|h| h.storage_worn = Some(10), true);
}
