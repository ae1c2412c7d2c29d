//! How a board is, in words and as engine labels. Pure.

use racimo_common::object::{BoardHealth, NodeDescription};
use racimo_common::units::Bytes;

use crate::limits;

/// What the label says of a board that is down, has not said how it is, or is too old to say it.
const UNKNOWN: &str = "unknown";

/// The engine labels of a board that says this of itself. `health`: how it is, if it has said so; of one that is away
/// what it said last says nothing.
pub(super) fn labels(
    board: &NodeDescription,
    is_there: bool,
    health: Option<&BoardHealth>,
) -> Vec<(&'static str, String)> {
    if !is_there {
        return vec![("io.racimo.health", UNKNOWN.to_owned())];
    }
    let mut labels = vec![("io.racimo.health", in_short(board, health))];
    let Some(health) = health else { return labels };
    let mut fact = |label, value: Option<String>| labels.extend(value.map(|value| (label, value)));
    let bytes = |bytes: Option<Bytes>| bytes.map(|bytes| bytes.to_i64().to_string());
    let bits = |now: u32| health.throttled.map(|bits| since(bits, now).to_owned());
    let percent = |share: Option<u8>| share.map(|share| share.to_string());
    fact("io.racimo.temperature", health.temperature.map(|degrees| degrees.to_string()));
    fact("io.racimo.undervoltage", bits(BoardHealth::UNDERVOLTAGE));
    fact("io.racimo.throttled", bits(SLOWED));
    fact("io.racimo.pressure-cpu", percent(health.pressure_cpu));
    fact("io.racimo.pressure-memory", percent(health.pressure_memory));
    fact("io.racimo.pressure-io", percent(health.pressure_io));
    fact("io.racimo.memory-available", bytes(health.memory_available));
    fact("io.racimo.disk-free", bytes(health.disk_free));
    fact("io.racimo.disk-size", bytes(health.disk_size));
    fact("io.racimo.storage-worn", percent(health.storage_worn));
    let spare = |spare| match spare {
        1 => Some("normal"),
        2 => Some("warning"),
        3 => Some("urgent"),
        _ => None,
    };
    fact("io.racimo.storage-spare", health.storage_spare.and_then(spare).map(str::to_owned));
    fact("io.racimo.wifi-signal", health.wifi_signal.map(|signal| signal.to_string()));
    labels
}

/// The processor is held down, whatever the reason.
const SLOWED: u32 = BoardHealth::CAPPED | BoardHealth::THROTTLED | BoardHealth::SOFT_LIMIT;

fn since(bits: u32, now: u32) -> &'static str {
    match (bits & now != 0, bits & now << BoardHealth::SINCE != 0) {
        (true, _) => "now",
        (false, true) => "since boot",
        (false, false) => "no",
    }
}

/// `ok`, or what is wrong, the worst first.
fn in_short(board: &NodeDescription, health: Option<&BoardHealth>) -> String {
    let lacks =
        [&board.no_network, &board.no_encryption, &board.no_memory_limits, &board.no_cpu_limits, &board.no_pids_limits];
    let degraded = !board.degraded.is_empty() || lacks.iter().any(|why| why.is_some());
    let Some(health) = health else {
        return if degraded { "degraded" } else { UNKNOWN }.to_owned();
    };
    let bits = health.throttled.unwrap_or_default();
    let was = |bit: u32| bits & bit << BoardHealth::SINCE != 0;
    let below = |part: Option<Bytes>, whole: Option<Bytes>, percent: u64| {
        let (part, whole) = (part?, whole?);
        Some(u128::from(part.get()) * 100 < u128::from(whole.get()) * u128::from(percent))
    };
    let memory = Some(board.memory).filter(|memory| !memory.is_zero());
    let slowed = BoardHealth::CAPPED | BoardHealth::THROTTLED;
    let undervoltage = bits & BoardHealth::UNDERVOLTAGE != 0;
    let throttled = bits & slowed != 0;
    let words = [
        (
            "disk full",
            below(health.disk_free, health.disk_size, limits::BOARD_DISK_PERCENT_MIN) == Some(true)
                || health.disk_free.is_some_and(|free| free.get() < limits::BOARD_DISK_BYTES_MIN),
        ),
        ("undervoltage", undervoltage),
        ("degraded", degraded),
        ("throttled", throttled),
        (
            "hot",
            bits & BoardHealth::SOFT_LIMIT != 0
                || health.temperature.is_some_and(|degrees| degrees >= limits::BOARD_HOT_CELSIUS),
        ),
        (
            "low memory",
            below(health.memory_available, memory, limits::BOARD_MEMORY_PERCENT_MIN) == Some(true)
                || health.pressure_memory.is_some_and(|share| share >= limits::BOARD_PRESSURE_PERCENT_MAX),
        ),
        (
            "worn storage",
            health.storage_worn.is_some_and(|worn| worn >= limits::BOARD_WORN_PERCENT)
                || health.storage_spare.is_some_and(|spare| spare > 1),
        ),
        ("weak signal", health.wifi_signal.is_some_and(|signal| signal < limits::BOARD_SIGNAL_DBM_MIN)),
        ("had undervoltage", !undervoltage && was(BoardHealth::UNDERVOLTAGE)),
        ("was throttled", !throttled && was(slowed)),
    ];
    let words: Vec<&str> = words.iter().filter(|(_, is)| *is).map(|(word, _)| *word).collect();
    if words.is_empty() { "ok".to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(change: fn(&mut NodeDescription, &mut BoardHealth), want: &str) {
        let mut board = NodeDescription { memory: Bytes::mib(1000), ..NodeDescription::default() };
        let mut health = BoardHealth {
            temperature: Some(50),
            throttled: Some(0),
            memory_available: Some(Bytes::mib(500)),
            disk_free: Some(Bytes::mib(10_000)),
            disk_size: Some(Bytes::mib(30_000)),
            ..BoardHealth::default()
        };
        change(&mut board, &mut health);
        assert_eq!(in_short(&board, Some(&health)), want, "{health:?}");
    }

    #[test]
    fn health_in_short() {
        check(|_, _| {}, "ok");
        check(|_, h| *h = BoardHealth::default(), "ok");
        check(|_, h| h.temperature = Some(79), "ok");
        check(|_, h| h.temperature = Some(80), "hot");
        check(|_, h| h.throttled = Some(0x8_0008), "hot");
        check(|_, h| h.throttled = Some(0x5_0005), "undervoltage, throttled");
        check(|_, h| h.throttled = Some(0x2_0002), "throttled");
        check(|_, h| h.throttled = Some(0x5_0000), "had undervoltage, was throttled");
        check(|_, h| h.memory_available = Some(Bytes::mib(79)), "low memory");
        check(|_, h| h.memory_available = Some(Bytes::mib(80)), "ok");
        check(|_, h| h.pressure_memory = Some(20), "low memory");
        // Nothing is known of the whole.
        check(|b, h| (b.memory, h.memory_available) = (Bytes::new(0), Some(Bytes::new(1))), "ok");
        check(|_, h| h.disk_free = Some(Bytes::mib(1499)), "disk full");
        check(|_, h| (h.disk_free, h.disk_size) = (Some(Bytes::mib(199)), Some(Bytes::mib(1000))), "disk full");
        check(|_, h| h.disk_free = Some(Bytes::mib(1500)), "ok");
        check(|_, h| h.storage_worn = Some(90), "worn storage");
        check(|_, h| h.storage_spare = Some(2), "worn storage");
        check(|_, h| (h.storage_worn, h.storage_spare) = (Some(80), Some(1)), "ok");
        check(|_, h| h.wifi_signal = Some(-81), "weak signal");
        check(|_, h| h.wifi_signal = Some(-80), "ok");
        check(|b, _| b.degraded.push("no seccomp".to_owned()), "degraded");
        check(|b, h| (b.no_memory_limits, h.temperature) = (Some("off".to_owned()), Some(90)), "degraded, hot");
        check(|b, _| b.no_encryption = Some("no wireguard".to_owned()), "degraded");
        let all = |board: &mut NodeDescription, health: &mut BoardHealth| {
            board.no_network = Some("no vxlan".to_owned());
            *health = BoardHealth {
                temperature: Some(90),
                throttled: Some(u32::MAX),
                memory_available: Some(Bytes::new(0)),
                disk_free: Some(Bytes::new(0)),
                wifi_signal: Some(-99),
                storage_worn: Some(110),
                ..BoardHealth::default()
            };
        };
        check(all, "disk full, undervoltage, degraded, throttled, hot, low memory, worn storage, weak signal");
    }

    #[test]
    fn a_board_that_has_not_said_how_it_is() {
        let mut board = NodeDescription::default();
        assert_eq!(labels(&board, true, None), [("io.racimo.health", "unknown".to_owned())]);
        board.degraded.push("no seccomp".to_owned());
        assert_eq!(labels(&board, true, None), [("io.racimo.health", "degraded".to_owned())]);
        // It is away.
        let away = labels(&board, false, Some(&BoardHealth::default()));
        assert_eq!(away, [("io.racimo.health", "unknown".to_owned())]);
    }

    #[test]
    fn facts_as_labels() {
        let health = BoardHealth {
            temperature: Some(-5),
            throttled: Some(0x1_0004),
            pressure_cpu: Some(1),
            pressure_memory: Some(2),
            pressure_io: Some(3),
            memory_available: Some(Bytes::mib(1)),
            disk_free: Some(Bytes::mib(1000)),
            disk_size: Some(Bytes::mib(2000)),
            wifi_signal: Some(-61),
            storage_worn: Some(20),
            storage_spare: Some(3),
        };
        let labels = labels(&NodeDescription::default(), true, Some(&health));
        let text: Vec<String> =
            labels.iter().map(|(key, value)| format!("{}={value}", key.trim_start_matches("io.racimo."))).collect();
        let want = "health=throttled, worn storage, had undervoltage;temperature=-5;undervoltage=since boot;\
                    throttled=now;pressure-cpu=1;pressure-memory=2;pressure-io=3;memory-available=1048576;\
                    disk-free=1048576000;disk-size=2097152000;storage-worn=20;storage-spare=urgent;wifi-signal=-61";
        assert_eq!(text.join(";"), want);
        let hostile = BoardHealth { storage_spare: Some(77), ..BoardHealth::default() };
        assert_eq!(super::labels(&NodeDescription::default(), true, Some(&hostile)).len(), 1);
    }
}
