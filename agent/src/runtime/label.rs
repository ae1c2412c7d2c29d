//! Container labels: what tools look for, and what the agent needs to find its tasks again.
//!
//! The `com.docker.swarm.*` names are the ones Docker sets, so that log shippers and proxies work.

use std::{collections::HashMap, time::Duration};

use racimo_common::{
    id::{NodeId, TaskId},
    object::LogConfig,
    units::Bytes,
    wire::Work,
};

use super::streams::Streams;

/// Prefix of the labels that are the agent's own; a service's labels cannot set them.
pub const PREFIX: &str = "io.racimo.";
const GROUP: &str = "io.racimo.group";
const STOP_SIGNAL: &str = "io.racimo.stop-signal";
const STOP_GRACE_MS: &str = "io.racimo.stop-grace-ms";
/// How long it runs on without a manager; absent: for ever.
const LEASE_MS: &str = "io.racimo.lease-ms";
/// The boot of the board in which the container was made.
const BOOT: &str = "io.racimo.boot";
/// `none`, or bytes of a file and number of files: `5242880,2`.
const LOG: &str = "io.racimo.log";
/// See [`Streams::name`].
const STREAMS: &str = "io.racimo.streams";

/// Whether the container was made in this boot of the board (empty: nobody knows).
pub fn is_of_boot(labels: &HashMap<String, String>, boot: &str) -> bool {
    !boot.is_empty() && labels.get(BOOT).is_some_and(|made| made == boot)
}

/// What the agent keeps on a container, to stop it properly even without its assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Number of the shim group.
    pub group: u8,
    /// The signal that asks it to stop.
    pub stop_signal: u32,
    /// How long it may take to stop.
    pub stop_grace: Duration,
    /// How long it runs on without a manager; none: for ever.
    pub lease: Option<Duration>,
}

/// The labels of a task's container.
pub fn write(work: &Work, task: TaskId, node: NodeId, boot: &str, kept: &Kept) -> HashMap<String, String> {
    let mut labels: HashMap<String, String> = work
        .container
        .labels
        .iter()
        .filter(|(key, _)| !key.starts_with(PREFIX))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let own = [
        ("com.docker.swarm.node.id", node.to_string()),
        ("com.docker.swarm.service.id", work.service.to_string()),
        ("com.docker.swarm.service.name", work.service_name.clone()),
        ("com.docker.swarm.task", String::new()),
        ("com.docker.swarm.task.id", task.to_string()),
        ("com.docker.swarm.task.name", format!("{}.{task}", work.slot_name)),
        (BOOT, boot.to_owned()),
        (GROUP, kept.group.to_string()),
        (STOP_SIGNAL, kept.stop_signal.to_string()),
        (STOP_GRACE_MS, kept.stop_grace.as_millis().to_string()),
        (LOG, log_text(work.log)),
        (STREAMS, Streams::of(&work.container).name().to_owned()),
    ];
    labels.extend(own.map(|(key, value)| (key.to_owned(), value)));
    labels.extend(kept.lease.map(|lease| (LEASE_MS.to_owned(), lease.as_millis().to_string())));
    labels
}

/// Reads back what [`write()`] kept; none if this is not a container of ours.
pub fn read(labels: &HashMap<String, String>) -> Option<Kept> {
    Some(Kept {
        group: labels.get(GROUP)?.parse().ok()?,
        stop_signal: labels.get(STOP_SIGNAL)?.parse().ok()?,
        stop_grace: Duration::from_millis(labels.get(STOP_GRACE_MS)?.parse().ok()?),
        lease: labels.get(LEASE_MS).and_then(|ms| ms.parse().ok()).map(Duration::from_millis),
    })
}

fn log_text(log: LogConfig) -> String {
    match log {
        LogConfig::None => "none".to_owned(),
        LogConfig::Files { size_max, files_max } => format!("{},{files_max}", size_max.get()),
    }
}

/// Where the container's output goes, as [`write()`] kept it; the default if it did not.
pub fn read_log(labels: &HashMap<String, String>) -> LogConfig {
    let Some(text) = labels.get(LOG) else { return LogConfig::default() };
    if text == "none" {
        return LogConfig::None;
    }
    let files = text.split_once(',').and_then(|(size, files)| Some((size.parse().ok()?, files.parse().ok()?)));
    files
        .map_or_else(LogConfig::default, |(size, files_max)| LogConfig::Files { size_max: Bytes::new(size), files_max })
}

/// How its streams are connected, as [`write()`] kept it; the default if it did not.
pub fn read_streams(labels: &HashMap<String, String>) -> Streams {
    labels.get(STREAMS).and_then(|name| Streams::parse(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use racimo_common::{
        id::IdSource,
        object::{ContainerSpec, Resources},
        registry::Credentials,
    };

    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_cannot_be_forged() {
        let mut ids = IdSource::seeded(1);
        let (task, node) = (ids.draw(), ids.draw());
        let mut container = ContainerSpec::default();
        container.labels.insert("io.racimo.stop-signal".into(), "9".into());
        container.labels.insert("app".into(), "web".into());
        container.tty = true;
        let work = Work {
            net: None,
            service: ids.draw(),
            service_name: "web".into(),
            slot_name: "web.1".into(),
            container,
            resources: Resources::default(),
            log: racimo_common::object::LogConfig::default(),
            files: Vec::new(),
            credentials: Some(Credentials::IdentityToken("hunter2".into())),
            fault: None,
            offline: racimo_common::wire::Offline::default(),
        };
        let kept = Kept {
            group: 3,
            stop_signal: 15,
            stop_grace: Duration::from_millis(1500),
            lease: Some(Duration::from_secs(30)),
        };
        let labels = write(&work, task, node, "boot-1", &kept);
        assert_eq!(read(&labels), Some(kept));
        assert_eq!(labels["app"], "web");
        assert!(is_of_boot(&labels, "boot-1") && !is_of_boot(&labels, "boot-2") && !is_of_boot(&labels, ""));
        assert!(!is_of_boot(&write(&work, task, node, "", &read(&labels).unwrap()), ""));
        assert_eq!(labels["com.docker.swarm.task.name"], format!("web.1.{task}"));
        assert_eq!(read_streams(&labels), Streams::Terminal);
        assert!(!format!("{labels:?}{work:?}").contains("hunter2"));
        assert_eq!((read(&HashMap::new()), read_streams(&HashMap::new())), (None, Streams::Plain));
    }

    #[test]
    fn where_the_output_goes_comes_back() {
        for log in
            [LogConfig::None, LogConfig::default(), LogConfig::Files { size_max: Bytes::new(16384), files_max: 9 }]
        {
            assert_eq!(read_log(&[(LOG.to_owned(), log_text(log))].into()), log);
        }
        for other in ["", "x", "1", "1,x", "-1,2"] {
            assert_eq!(read_log(&[(LOG.to_owned(), other.to_owned())].into()), LogConfig::default());
        }
        assert_eq!(read_log(&HashMap::new()), LogConfig::default());
    }
}
