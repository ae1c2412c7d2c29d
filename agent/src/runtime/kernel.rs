//! What a container sets of the kernel: resource limits, sysctls, the bias of the out-of-memory killer.
//!
//! In: the service's wishes and its network. Out: OCI JSON, or why not. What would change the board and not only the
//! container is refused.

use std::collections::{BTreeMap, BTreeSet};

use racimo_common::object::{NetworkMode, Ulimit};
use serde_json::{Map, Value, json};

/// Settings of a container's own IPC namespace; `fs.mqueue.` and `net.` are prefixes.
const IPC: [&str; 8] = ["msgmax", "msgmnb", "msgmni", "sem", "shm_rmid_forced", "shmall", "shmmax", "shmmni"];
/// Docker's defaults for a network of one's own: low ports and ping need no privilege.
const NETWORK_DEFAULTS: [(&str, &str); 2] =
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];
/// Thousandths of the board's memory by which a task seems larger than it is when the kernel looks for whom to end: tasks
/// go before the agent, which has 100 in its unit and at most 62 of its own, and the agent before a shell, which has 0.
pub const OOM_SCORE_ADJ_DEFAULT: i32 = 200;
/// The kernel's range.
const OOM_SCORE_ADJ: std::ops::RangeInclusive<i32> = -1000..=1000;

/// Why the kernel cannot be set like this for a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSetting {
    /// There is no such limit.
    #[error("invalid ulimit type: {0:?}")]
    NoLimit(String),
    /// The same limit twice.
    #[error("duplicate ulimit {0:?}")]
    TwoLimits(String),
    /// A number that is no limit.
    #[error("ulimit {0}: expected a number from 0, or -1 for no limit")]
    Negative(String),
    /// The soft limit is above the hard one.
    #[error("ulimit {name}: soft limit must be less than or equal to hard limit: {soft} > {hard}")]
    Order {
        /// The limit.
        name: String,
        /// The soft one.
        soft: i64,
        /// The hard one.
        hard: i64,
    },
    /// A setting of the whole board.
    #[error("sysctl {0:?} is not in a separate kernel namespace: it would change the board, not only the container")]
    Board(String),
    /// A setting of the board's network.
    #[error("sysctl {0:?} is not allowed with the board's own network")]
    BoardNetwork(String),
    /// Not a value.
    #[error("sysctl {0:?}: its value has a control character")]
    Value(String),
    /// A bias that the kernel does not know.
    #[error("invalid oom score adjustment {0}: expected a number from -1000 to 1000")]
    OomScoreAdj(i32),
}

/// `process.rlimits`.
pub(super) fn limits(ulimits: &[Ulimit]) -> Result<Vec<Value>, BadSetting> {
    let mut seen = BTreeSet::new();
    let mut limits = Vec::with_capacity(ulimits.len());
    for Ulimit { name, soft, hard } in ulimits {
        if !Ulimit::NAMES.contains(&name.as_str()) {
            return Err(BadSetting::NoLimit(name.clone()));
        }
        if !seen.insert(name) {
            return Err(BadSetting::TwoLimits(name.clone()));
        }
        let number = |limit: i64| match limit {
            -1 => Ok(u64::MAX),
            limit => u64::try_from(limit).map_err(|_| BadSetting::Negative(name.clone())),
        };
        let (low, high) = (number(*soft)?, number(*hard)?);
        if low > high {
            return Err(BadSetting::Order { name: name.clone(), soft: *soft, hard: *hard });
        }
        let kind = format!("RLIMIT_{}", name.to_ascii_uppercase());
        limits.push(json!({"type": kind, "soft": low, "hard": high}));
    }
    Ok(limits)
}

/// `linux.sysctl`: Docker's defaults and the service's.
pub(super) fn sysctls(
    wanted: &BTreeMap<String, String>,
    network: NetworkMode,
) -> Result<Map<String, Value>, BadSetting> {
    let own_network = match network {
        NetworkMode::Host => false,
        NetworkMode::None | NetworkMode::Unset | NetworkMode::Bridge => true,
    };
    let defaults = NETWORK_DEFAULTS.iter().filter(|_| own_network);
    let mut all: Map<String, Value> = defaults.map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
    for (name, value) in wanted {
        check_sysctl(name, own_network)?;
        if value.chars().any(char::is_control) {
            return Err(BadSetting::Value(name.clone()));
        }
        all.insert(name.clone(), value.as_str().into());
    }
    Ok(all)
}

fn check_sysctl(name: &str, own_network: bool) -> Result<(), BadSetting> {
    // It becomes a path below /proc/sys.
    let is_part =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let (space, rest) = name.split_once('.').unwrap_or((name, ""));
    let is_own = name.split('.').all(is_part)
        && match space {
            "kernel" => IPC.contains(&rest) || rest == "domainname",
            "fs" => rest.starts_with("mqueue."),
            "net" => !rest.is_empty(),
            _ => false,
        };
    match (is_own, space == "net" && !own_network) {
        (true, false) => Ok(()),
        (true, true) => Err(BadSetting::BoardNetwork(name.to_owned())),
        (false, _) => Err(BadSetting::Board(name.to_owned())),
    }
}

/// `process.oomScoreAdj`; 0, too, asks for nothing.
pub(super) fn oom_score_adj(wanted: Option<i32>) -> Result<i32, BadSetting> {
    let bias = wanted.filter(|bias| *bias != 0).unwrap_or(OOM_SCORE_ADJ_DEFAULT);
    if OOM_SCORE_ADJ.contains(&bias) { Ok(bias) } else { Err(BadSetting::OomScoreAdj(bias)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_limits(wanted: &[(&str, i64, i64)], want: Result<Value, &str>) {
        let wanted: Vec<Ulimit> =
            wanted.iter().map(|&(name, soft, hard)| Ulimit { name: name.into(), soft, hard }).collect();
        let found = limits(&wanted).map(Value::Array).map_err(|error| error.to_string());
        assert_eq!(found, want.map_err(str::to_owned));
    }

    #[test]
    fn resource_limits() {
        check_limits(&[], Ok(json!([])));
        check_limits(
            &[("nofile", 1024, 2048), ("core", 0, -1)],
            Ok(json!([
                {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 2048},
                {"type": "RLIMIT_CORE", "soft": 0, "hard": u64::MAX},
            ])),
        );
        check_limits(&[("nofiles", 1, 1)], Err("invalid ulimit type: \"nofiles\""));
        check_limits(&[("NOFILE", 1, 1)], Err("invalid ulimit type: \"NOFILE\""));
        check_limits(&[("core", 1, 1), ("core", 1, 1)], Err("duplicate ulimit \"core\""));
        let order = "ulimit cpu: soft limit must be less than or equal to hard limit: -1 > 5";
        check_limits(&[("cpu", -1, 5)], Err(order));
        check_limits(&[("cpu", -2, 5)], Err("ulimit cpu: expected a number from 0, or -1 for no limit"));
    }

    #[track_caller]
    fn check_sysctls(name: &str, network: NetworkMode, want: Result<(), &str>) {
        let wanted = BTreeMap::from([(name.to_owned(), "7".to_owned())]);
        match (sysctls(&wanted, network), want) {
            (Ok(found), Ok(())) => assert_eq!(found[name], "7"),
            (Err(error), Err(word)) => assert!(error.to_string().contains(word), "{name}: {error}"),
            (found, _) => panic!("{name}: {found:?}"),
        }
    }

    #[test]
    fn sysctls_of_own_namespaces_only() {
        let own = NetworkMode::Unset;
        for name in ["kernel.shmmax", "kernel.sem", "kernel.domainname", "fs.mqueue.msg_max", "net.core.somaxconn"] {
            check_sysctls(name, own, Ok(()));
        }
        check_sysctls("net.ipv4.ip_unprivileged_port_start", NetworkMode::None, Ok(()));
        for name in
            ["kernel.panic", "kernel", "kernel.hostname", "vm.swappiness", "fs.file-max", "fs.mqueue", "net", ""]
        {
            check_sysctls(name, own, Err("would change the board"));
        }
        for name in ["net.", "net..x", "net/../kernel/panic", "net.x/../../kernel/panic", "net.\u{e4}", "net.a b"] {
            check_sysctls(name, own, Err("would change the board"));
        }
        check_sysctls("net.core.somaxconn", NetworkMode::Host, Err("the board's own network"));
        check_sysctls("kernel.shmmax", NetworkMode::Host, Ok(()));
        let broken = BTreeMap::from([("kernel.sem".to_owned(), "1\n2".to_owned())]);
        assert_eq!(sysctls(&broken, own), Err(BadSetting::Value("kernel.sem".into())));
        assert_eq!(sysctls(&BTreeMap::new(), NetworkMode::Host), Ok(Map::new()));
        assert_eq!(sysctls(&BTreeMap::new(), own).map(|all| all.len()), Ok(NETWORK_DEFAULTS.len()));
    }

    #[test]
    fn out_of_memory_bias() {
        assert_eq!([None, Some(0), Some(1)].map(oom_score_adj), [Ok(200), Ok(200), Ok(1)]);
        assert_eq!(oom_score_adj(Some(-1000)), Ok(-1000));
        assert_eq!(oom_score_adj(Some(1001)), Err(BadSetting::OomScoreAdj(1001)));
    }
}
