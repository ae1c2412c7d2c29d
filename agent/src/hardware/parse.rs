//! What the kernel's files about hardware say. Pure; what makes no sense is nothing.

use racimo_common::units::Bytes;

/// Value of the first `name : value` line; empty if there is none.
pub(crate) fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let values = text.lines().filter_map(|line| line.split_once(':'));
    values.into_iter().find(|(key, _)| key.trim() == name).map_or("", |(_, value)| value.trim())
}

/// A line of `/proc/meminfo`.
pub(crate) fn kib(meminfo: &str, name: &str) -> Option<Bytes> {
    let kib = field(meminfo, name).trim_end_matches("kB").trim().parse::<u64>().ok()?;
    Some(Bytes::new(kib.saturating_mul(1024)))
}

/// Whether a thermal zone's type is a processor's: `cpu-thermal` (Raspberry Pi), `cpu_thermal`, `soc-thermal`
/// (Rockchip), `x86_pkg_temp`.
pub(super) fn is_processor(kind: &str) -> bool {
    ["cpu", "soc", "x86_pkg"].iter().any(|name| kind.starts_with(name))
}

/// A thermal zone's thousandths of a degree Celsius. Zones without a sensor have temperatures that no board has.
pub(super) fn temperature(text: &str) -> Option<i16> {
    let degrees = text.parse::<i32>().ok()?.div_euclid(1000);
    i16::try_from(degrees).ok().filter(|degrees| (-60..=200).contains(degrees))
}

/// The firmware's bits, as `50005`; eMMC's registers, as `0x0a`.
pub(super) fn hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text.trim_start_matches("0x"), 16).ok()
}

/// The share of the last minute in which something waited, percent.
pub(super) fn pressure(text: &str) -> Option<u8> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let share = some.split(' ').find_map(|word| word.strip_prefix("avg60="))?;
    let percent = share.split_once('.').map_or(share, |(whole, _)| whole);
    percent.parse::<u8>().ok().filter(|percent| *percent <= 100)
}

/// `/proc/net/wireless`: the strongest signal in dBm. Drivers that count in units of their own say nothing below zero.
pub(super) fn signal(text: &str) -> Option<i16> {
    let level = |line: &str| {
        let (_, values) = line.split_once(':')?;
        let level = values.split_whitespace().nth(2)?.trim_end_matches('.').parse::<i16>().ok()?;
        // -256 is how drivers say that they do not know.
        Some(level).filter(|level| (-150..0).contains(level))
    };
    text.lines().filter_map(level).max()
}

/// eMMC's `life_time`, as `0x01 0x02`: tenths of its life that are used, for its two kinds of memory; 0 is unknown,
/// 11 more than was promised.
pub(super) fn worn(text: &str) -> Option<u8> {
    let tenths = text.split_whitespace().filter_map(hex).filter(|tenths| (1..=11).contains(tenths)).max()?;
    u8::try_from(10 * tenths).ok()
}

/// eMMC's `pre_eol_info`, as `0x01`; 0 is unknown.
pub(super) fn spare(text: &str) -> Option<u8> {
    hex(text).and_then(|spare| u8::try_from(spare).ok()).filter(|spare| (1..=3).contains(spare))
}
