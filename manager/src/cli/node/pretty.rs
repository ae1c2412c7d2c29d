//! `node inspect --pretty`: a node for people, in Docker's layout.

use std::fmt::Write;

use serde_json::Value;
use time::{OffsetDateTime, UtcOffset};

use super::super::format::human;
use super::super::json::Peek;
use super::super::spec::generic;

/// The whole text, an empty line at its end.
pub(super) fn text(node: &Value) -> String {
    let mut page = String::new();
    fill(&mut page, node).expect("writing to a String cannot fail");
    page
}

fn fill(page: &mut String, node: &Value) -> std::fmt::Result {
    writeln!(page, "ID:\t\t\t{}", node.text("/ID"))?;
    if !node.text("/Spec/Name").is_empty() {
        writeln!(page, "Name:\t\t\t{}", node.text("/Spec/Name"))?;
    }
    entries(page, "Labels:", &node["Spec"])?;
    writeln!(page, "Hostname:              \t{}", node.text("/Description/Hostname"))?;
    writeln!(page, "Joined at:             \t{}", node.time("/CreatedAt").map_or(String::new(), moment))?;
    writeln!(page, "Status:")?;
    writeln!(page, " State:\t\t\t{}", human::title(node.text("/Status/State")))?;
    if !node.text("/Status/Message").is_empty() {
        writeln!(page, " Message:\t\t{}", human::title(node.text("/Status/Message")))?;
    }
    writeln!(page, " Availability:         \t{}", human::title(node.text("/Spec/Availability")))?;
    if !node.text("/Status/Addr").is_empty() {
        writeln!(page, " Address:\t\t{}", node.text("/Status/Addr"))?;
    }
    if node.has("/ManagerStatus") {
        let leader = node.pointer("/ManagerStatus/Leader") == Some(&Value::Bool(true));
        writeln!(page, "Manager Status:")?;
        writeln!(page, " Address:\t\t{}", node.text("/ManagerStatus/Addr"))?;
        writeln!(page, " Raft Status:\t\t{}", human::title(node.text("/ManagerStatus/Reachability")))?;
        writeln!(page, " Leader:\t\t{}", if leader { "Yes" } else { "No" })?;
    }
    writeln!(page, "Platform:")?;
    writeln!(page, " Operating System:\t{}", node.text("/Description/Platform/OS"))?;
    writeln!(page, " Architecture:\t\t{}", node.text("/Description/Platform/Architecture"))?;
    writeln!(page, "Resources:")?;
    let cpus = node.int("/Description/Resources/NanoCPUs").unwrap_or(0);
    writeln!(page, " CPUs:\t\t\t{}", human::billionths(cpus))?;
    writeln!(page, " Memory:\t\t{}", human::bytes(node.int("/Description/Resources/MemoryBytes").unwrap_or(0)))?;
    // Docker leaves them out.
    let generic = generic::text(&node["Description"]["Resources"]);
    if !generic.is_empty() {
        writeln!(page, " Generic:\t\t{generic}")?;
    }
    plugins(page, node.list("/Description/Engine/Plugins"))?;
    writeln!(page, "Engine Version:\t\t{}", node.text("/Description/Engine/EngineVersion"))?;
    let mut engine = node["Description"]["Engine"].clone();
    board(page, &mut engine["Labels"])?;
    entries(page, "Engine Labels:", &engine)?;
    if !node.text("/Description/TLSInfo/TrustRoot").is_empty() {
        writeln!(page, "TLS Info:")?;
        writeln!(page, " TrustRoot:\n{}", node.text("/Description/TLSInfo/TrustRoot"))?;
        writeln!(page, " Issuer Subject:\t{}", node.text("/Description/TLSInfo/CertIssuerSubject"))?;
        writeln!(page, " Issuer Public Key:\t{}", node.text("/Description/TLSInfo/CertIssuerPublicKey"))?;
    }
    Ok(())
}

/// What a board says of itself: the label behind `io.racimo.`, what it is called here, and its unit.
const FACTS: &[(&str, &str, Unit)] = &[
    ("health", "Health", Unit::None),
    ("degraded", "Degraded", Unit::None),
    ("no-network", "No networks", Unit::None),
    ("no-encryption", "No encryption", Unit::None),
    ("no-memory-limits", "No memory limits", Unit::None),
    ("no-cpu-limits", "No CPU limits", Unit::None),
    ("no-pids-limits", "No process limits", Unit::None),
    ("model", "Model", Unit::None),
    ("os", "System", Unit::None),
    ("kernel", "Kernel", Unit::None),
    ("page-size", "Page size", Unit::Bytes),
    ("platforms", "Platforms", Unit::None),
    ("temperature", "Temperature", Unit::Of(" °C")),
    ("undervoltage", "Undervoltage", Unit::None),
    ("throttled", "Throttled", Unit::None),
    ("pressure-cpu", "Waiting for CPU", Unit::Of("% of the last minute")),
    ("pressure-memory", "Waiting for memory", Unit::Of("% of the last minute")),
    ("pressure-io", "Waiting for disks", Unit::Of("% of the last minute")),
    ("memory-available", "Memory available", Unit::Bytes),
    ("disk-free", "Disk free", Unit::Bytes),
    ("disk-size", "Disk size", Unit::Bytes),
    ("storage-worn", "Storage worn", Unit::Of("%")),
    ("storage-spare", "Storage spare", Unit::None),
    ("wifi-signal", "Wi-Fi signal", Unit::Of(" dBm")),
];

enum Unit {
    None,
    Bytes,
    Of(&'static str),
}

/// What Docker has no field for, taken out of the labels; nothing for Docker's own nodes.
fn board(page: &mut String, labels: &mut Value) -> std::fmt::Result {
    let Some(labels) = labels.as_object_mut().filter(|all| all.contains_key("io.racimo.health")) else {
        return Ok(());
    };
    writeln!(page, "Board:")?;
    for (name, title, unit) in FACTS {
        let Some(Value::String(value)) = labels.remove(&format!("io.racimo.{name}")) else { continue };
        let value = match unit {
            Unit::None => value,
            Unit::Bytes => value.parse().map_or(value, human::bytes),
            Unit::Of(unit) => format!("{value}{unit}"),
        };
        writeln!(page, " {:<22}{value}", format!("{title}:"))?;
    }
    Ok(())
}

/// `2026-11-20 11:13:57.005210136 +0000 utc`.
pub(in super::super) fn moment(time: OffsetDateTime) -> String {
    let time = time.to_offset(UtcOffset::UTC);
    let (date, month) = (time.date(), u8::from(time.month()));
    let (hour, minute, second) = time.to_hms();
    let fraction = format!(".{:09}", time.nanosecond());
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    let (year, day) = (date.year(), date.day());
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}{fraction} +0000 utc")
}

pub(in super::super) fn entries(page: &mut String, heading: &str, root: &Value) -> std::fmt::Result {
    let mut labels: Vec<_> = root.entries("/Labels").collect();
    labels.sort_by_key(|(key, _)| *key);
    if !labels.is_empty() {
        writeln!(page, "{heading}")?;
    }
    for (key, value) in labels {
        writeln!(page, " - {key}={}", value.as_str().unwrap_or(""))?;
    }
    Ok(())
}

fn plugins(page: &mut String, plugins: &[Value]) -> std::fmt::Result {
    let names = |kind: &str| -> Vec<&str> {
        plugins.iter().filter(|plugin| plugin.text("/Type") == kind).map(|plugin| plugin.text("/Name")).collect()
    };
    if !plugins.is_empty() {
        writeln!(page, "Plugins:")?;
    }
    for kind in ["Log", "Network", "Volume"] {
        if !names(kind).is_empty() {
            writeln!(page, " {kind}:\t\t{}", names(kind).join(", "))?;
        }
    }
    Ok(())
}
