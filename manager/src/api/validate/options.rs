//! Options of a container: health check, capabilities, limits, kernel settings, name service, hosts.
//!
//! What Docker's daemons find out only when they start the container is refused here already.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use racimo_common::capability;
use racimo_common::object::{ContainerSpec, DnsConfig, HealthConfig, NetworkMode, Ulimit};

/// Least span of a health check, as in SwarmKit; 0 is "not given".
const HEALTH_SPAN_MIN: Duration = Duration::from_millis(1);
const OOM_SCORES: std::ops::RangeInclusive<i64> = -1000..=1000;
/// Kernel settings that a container has for itself, as in Docker; besides all below [`SYSCTL_PREFIXES`].
const SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];
const SYSCTL_PREFIXES: [&str; 2] = ["net.", "fs.mqueue."];

/// Why an option is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum InvalidOption {
    #[error("ContainerSpec: {0} in HealthConfig cannot be less than 1ms")]
    HealthSpan(&'static str),
    #[error("ContainerSpec: Retries in HealthConfig cannot be negative")]
    HealthRetries,
    #[error("ContainerSpec: Retries in HealthConfig cannot be more than {max}", max = u32::MAX)]
    HealthRetriesMax,
    #[error("ContainerSpec.Healthcheck.Test: unknown health check type {0:?}: expected CMD, CMD-SHELL or NONE")]
    HealthType(String),
    #[error("ContainerSpec.Healthcheck.Test: {0}")]
    HealthTest(&'static str),
    #[error("ContainerSpec.Groups: {0:?} is not the name or number of a group")]
    Group(String),
    #[error("invalid {field}: unknown capability: {name:?}")]
    Capability { field: &'static str, name: String },
    #[error("ContainerSpec.Ulimits: invalid ulimit type: {0}")]
    UlimitName(String),
    #[error("ContainerSpec.Ulimits: {0} is there twice")]
    UlimitTwice(String),
    #[error("ContainerSpec.Ulimits: the limit {1} of {0} is neither -1 (no limit) nor positive")]
    UlimitNegative(String, i64),
    #[error("ContainerSpec.Ulimits: ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")]
    UlimitOrder { soft: i64, hard: i64 },
    #[error(
        "ContainerSpec.Sysctls: sysctl '{0}' is not allowed: a container has only net.*, fs.mqueue.*, \
         kernel.{{msgmax,msgmnb,msgmni,sem,shmall,shmmax,shmmni,shm_rmid_forced}} for itself"
    )]
    Sysctl(String),
    #[error("ContainerSpec.Sysctls: sysctl '{0}' is not allowed in the board's own network (--network host)")]
    SysctlHost(String),
    #[error("ContainerSpec.DNSConfig: {0} is not an ip address")]
    Nameserver(String),
    #[error("ContainerSpec.DNSConfig: {0} is not a valid domain")]
    Search(String),
    #[error("ContainerSpec.DNSConfig: {0:?} is not an option of resolv.conf")]
    DnsOption(String),
    #[error("ContainerSpec.Hosts: {0:?} is not an IP address with one name or more: expected \"10.0.0.1 db db.lan\"")]
    Host(String),
    #[error("ContainerSpec: Invalid value {0}, range for oom score adj is [-1000, 1000]")]
    OomScore(i64),
}

/// A span of a health check; 0 is none.
pub fn health_span(what: &'static str, nanos: i64) -> Result<Option<Duration>, InvalidOption> {
    if nanos == 0 {
        return Ok(None);
    }
    let span = u64::try_from(nanos).ok().map(Duration::from_nanos).filter(|span| *span >= HEALTH_SPAN_MIN);
    span.map(Some).ok_or(InvalidOption::HealthSpan(what))
}

/// Failures that make a container unhealthy; 0 is "not given".
pub fn health_retries(number: i64) -> Result<Option<u32>, InvalidOption> {
    if number < 0 {
        return Err(InvalidOption::HealthRetries);
    }
    let retries = u32::try_from(number).map_err(|_| InvalidOption::HealthRetriesMax)?;
    Ok(Some(retries).filter(|n| *n > 0))
}

/// The kernel's bias; 0 is "not given".
pub fn oom_score(score: i64) -> Result<Option<i32>, InvalidOption> {
    if !OOM_SCORES.contains(&score) {
        return Err(InvalidOption::OomScore(score));
    }
    Ok(i32::try_from(score).ok().filter(|score| *score != 0))
}

/// Checks a container's options.
pub(super) fn container(spec: &ContainerSpec) -> Result<(), InvalidOption> {
    spec.health.as_ref().map_or(Ok(()), health_test)?;
    if let Some(group) = spec.groups.iter().find(|group| !is_group(group)) {
        return Err(InvalidOption::Group(group.clone()));
    }
    for (field, names) in [("CapAdd", &spec.cap_add), ("CapDrop", &spec.cap_drop)] {
        if let Some(name) = names.iter().find(|name| !capability::is_known(name)) {
            return Err(InvalidOption::Capability { field, name: name.clone() });
        }
    }
    ulimits(&spec.ulimits)?;
    spec.sysctls.keys().try_for_each(|name| sysctl(name, spec.network))?;
    dns(&spec.dns)?;
    match spec.hosts.iter().find(|line| !is_host_line(line)) {
        Some(line) => Err(InvalidOption::Host(line.clone())),
        None => Ok(()),
    }
}

fn health_test(health: &HealthConfig) -> Result<(), InvalidOption> {
    let has_nul = health.test.iter().any(|text| text.contains('\0'));
    match health.test.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [..] if has_nul => Err(InvalidOption::HealthTest("it must not contain a NUL character")),
        [] | ["NONE"] | ["CMD-SHELL", _] => Ok(()),
        ["CMD", program, ..] if !program.is_empty() => Ok(()),
        ["NONE", ..] => Err(InvalidOption::HealthTest("NONE takes nothing more")),
        ["CMD-SHELL", ..] => Err(InvalidOption::HealthTest("CMD-SHELL takes one line")),
        ["CMD", ..] => Err(InvalidOption::HealthTest("CMD needs a program")),
        [other, ..] => Err(InvalidOption::HealthType(other.to_owned())),
    }
}

fn is_group(group: &str) -> bool {
    !group.is_empty() && !group.contains(|c: char| c.is_control() || c.is_whitespace() || matches!(c, ':' | ','))
}

fn ulimits(limits: &[Ulimit]) -> Result<(), InvalidOption> {
    let mut names = BTreeSet::new();
    for Ulimit { name, soft, hard } in limits {
        let (soft, hard) = (*soft, *hard);
        if !Ulimit::NAMES.contains(&&**name) {
            return Err(InvalidOption::UlimitName(name.clone()));
        }
        if !names.insert(name) {
            return Err(InvalidOption::UlimitTwice(name.clone()));
        }
        if let Some(limit) = [soft, hard].into_iter().find(|limit| *limit < -1) {
            return Err(InvalidOption::UlimitNegative(name.clone(), limit));
        }
        if hard != -1 && (soft == -1 || soft > hard) {
            return Err(InvalidOption::UlimitOrder { soft, hard });
        }
    }
    Ok(())
}

fn sysctl(name: &str, network: NetworkMode) -> Result<(), InvalidOption> {
    let is_known = SYSCTLS.contains(&name) || SYSCTL_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    // The name becomes a path below /proc/sys.
    let is_path = name.split(['.', '/']).any(str::is_empty) || name.contains(|c: char| c.is_control());
    if !is_known || is_path {
        return Err(InvalidOption::Sysctl(name.to_owned()));
    }
    if name.starts_with("net.") && network == NetworkMode::Host {
        return Err(InvalidOption::SysctlHost(name.to_owned()));
    }
    Ok(())
}

fn dns(dns: &DnsConfig) -> Result<(), InvalidOption> {
    if let Some(server) = dns.servers.iter().find(|server| server.parse::<IpAddr>().is_err()) {
        return Err(InvalidOption::Nameserver(server.clone()));
    }
    let is_word = |text: &str| !text.is_empty() && !text.contains(|c: char| c.is_control() || c.is_whitespace());
    let is_domain = |text: &str| text == "." || (is_word(text) && text.trim_end_matches('.').split('.').all(is_label));
    if let Some(domain) = dns.search.iter().find(|domain| !is_domain(domain)) {
        return Err(InvalidOption::Search(domain.clone()));
    }
    match dns.options.iter().find(|option| !is_word(option)) {
        Some(option) => Err(InvalidOption::DnsOption(option.clone())),
        None => Ok(()),
    }
}

/// Whether a text is one part of a domain's name.
pub(super) fn is_label(label: &str) -> bool {
    !label.is_empty() && label.len() <= 63 && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

/// `10.0.0.1 db db.lan`
fn is_host_line(line: &str) -> bool {
    let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
    let address = words.next().is_some_and(|word| word.parse::<IpAddr>().is_ok());
    let names: Vec<&str> = words.collect();
    let is_name = |name: &&str| !name.contains(|c: char| c.is_control() || c.is_whitespace() || c == '#');
    address && !names.is_empty() && names.iter().all(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(edit: impl FnOnce(&mut ContainerSpec), want: &str) {
        let mut spec = ContainerSpec::default();
        edit(&mut spec);
        let got = container(&spec).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(if want.is_empty() { got.is_empty() } else { got.contains(want) }, "{got:?} instead of {want:?}");
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn health() {
        let test = |words: &[&str]| HealthConfig { test: texts(words), ..HealthConfig::default() };
        for good in [&[][..], &["NONE"], &["CMD", "true"], &["CMD", "a", "b"], &["CMD-SHELL", "exit 0"]] {
            check(|c| c.health = Some(test(good)), "");
        }
        check(|c| c.health = Some(test(&["true"])), "unknown health check type \"true\"");
        check(|c| c.health = Some(test(&[""])), "unknown health check type");
        check(|c| c.health = Some(test(&["CMD"])), "CMD needs a program");
        check(|c| c.health = Some(test(&["CMD-SHELL"])), "CMD-SHELL takes one line");
        check(|c| c.health = Some(test(&["CMD-SHELL", "a", "b"])), "CMD-SHELL takes one line");
        check(|c| c.health = Some(test(&["NONE", "x"])), "NONE takes nothing more");
        check(|c| c.health = Some(test(&["CMD", "a\0"])), "NUL");
        assert_eq!(health_span("Interval", 0), Ok(None));
        assert_eq!(health_span("Interval", 1_000_000), Ok(Some(HEALTH_SPAN_MIN)));
        for bad in [999_999, -1, i64::MIN] {
            let error = health_span("Timeout", bad).expect_err("too short").to_string();
            assert_eq!(error, "ContainerSpec: Timeout in HealthConfig cannot be less than 1ms");
        }
        assert_eq!(health_retries(0), Ok(None));
        assert_eq!(health_retries(3), Ok(Some(3)));
        assert_eq!(health_retries(-1), Err(InvalidOption::HealthRetries));
        assert_eq!(health_retries(i64::MAX), Err(InvalidOption::HealthRetriesMax));
    }

    #[test]
    fn users_and_capabilities() {
        check(|c| c.groups = texts(&["video", "44"]), "");
        for bad in ["", "a b", "a:b", "a\n"] {
            check(|c| c.groups = texts(&[bad]), "is not the name or number of a group");
        }
        check(|c| c.cap_add = texts(&["CAP_NET_ADMIN", "ALL"]), "");
        check(|c| c.cap_add = texts(&["CAP_FLY"]), "invalid CapAdd: unknown capability: \"CAP_FLY\"");
        check(|c| c.cap_drop = texts(&["net_admin"]), "invalid CapDrop: unknown capability: \"net_admin\"");
        assert_eq!(oom_score(0), Ok(None));
        assert_eq!(oom_score(-1000), Ok(Some(-1000)));
        assert_eq!(oom_score(1001), Err(InvalidOption::OomScore(1001)));
    }

    #[test]
    fn kernel_limits_and_settings() {
        let limit = |name: &str, soft, hard| Ulimit { name: name.into(), soft, hard };
        for good in [limit("nofile", 1024, 2048), limit("core", 0, 0), limit("core", -1, -1), limit("core", 5, -1)] {
            check(|c| c.ulimits = vec![good], "");
        }
        check(|c| c.ulimits = vec![limit("files", 1, 1)], "invalid ulimit type: files");
        check(|c| c.ulimits = vec![limit("nofile", 3, 2)], "less than or equal to hard limit: 3 > 2");
        check(|c| c.ulimits = vec![limit("nofile", -1, 2)], "less than or equal to hard limit: -1 > 2");
        check(|c| c.ulimits = vec![limit("nofile", -2, -1)], "the limit -2 of nofile");
        check(|c| c.ulimits = vec![limit("cpu", 1, 1), limit("cpu", 2, 2)], "cpu is there twice");
        let set = |name: &str| [(name.to_owned(), "1".to_owned())].into();
        for good in ["net.core.somaxconn", "net.ipv4.conf.eth0/1.rp_filter", "kernel.shmmax", "fs.mqueue.msg_max"] {
            check(|c| c.sysctls = set(good), "");
        }
        for bad in ["kernel.panic", "vm.swappiness", "net", "net.", "net..x", "net.../x", "", "kernel.hostname"] {
            check(|c| c.sysctls = set(bad), "is not allowed: a container has only");
        }
        check(
            |c| {
                c.network = NetworkMode::Host;
                c.sysctls = set("net.core.somaxconn");
            },
            "not allowed in the board's own network",
        );
    }

    #[test]
    fn names_and_addresses() {
        check(|c| c.dns.servers = texts(&["1.1.1.1", "fe80::1"]), "");
        check(|c| c.dns.servers = texts(&["one"]), "one is not an ip address");
        check(|c| c.dns.search = texts(&["lan", "a.example.", ".", "_tcp.lan"]), "");
        for bad in ["", "a b", "a..b", "x\ny", ".."] {
            check(|c| c.dns.search = texts(&[bad]), "is not a valid domain");
        }
        check(|c| c.dns.options = texts(&["ndots:2", "rotate"]), "");
        check(|c| c.dns.options = texts(&["a\nb"]), "is not an option");
        check(|c| c.hosts = texts(&["1.2.3.4 a", "::1 a b.lan", "1.2.3.4\ta"]), "");
        for bad in ["", "1.2.3.4", "a 1.2.3.4", "1.2.3.4 a\n5.6.7.8 b", "1.2.3.4 #a", "host-gateway a"] {
            check(|c| c.hosts = texts(&[bad]), "is not an IP address with one name or more");
        }
    }
}
