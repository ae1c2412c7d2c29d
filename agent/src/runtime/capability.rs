//! Which capabilities does a container have?
//!
//! In: what its service adds and drops, and what this board can give. Out: names, as Docker decides them.

use racimo_common::capability::NAMES;

/// Those of a container that asks for nothing: Docker's.
const DEFAULT: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Why a container cannot have the capabilities it asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCapability {
    /// There is none of this name.
    #[error("unknown capability: {0:?}")]
    Unknown(String),
    /// This board's kernel does not have it, or the agent was started without it.
    #[error("capability not supported by this board's kernel or not available to its agent: {0}")]
    Unavailable(&'static str),
}

/// A name in a list of those to add or drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    All,
    One(usize),
}

/// `NET_ADMIN`, `cap_net_admin` and `CAP_NET_ADMIN` are the same.
fn parse(text: &str) -> Result<Named, BadCapability> {
    let upper = text.to_ascii_uppercase();
    if upper == "ALL" {
        return Ok(Named::All);
    }
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let found = NAMES.iter().position(|name| name.strip_prefix("CAP_") == Some(bare));
    found.map(Named::One).ok_or_else(|| BadCapability::Unknown(text.to_owned()))
}

/// The capabilities of a container, in order and each once. `available`: a bit for each that this board has.
///
/// With `ALL` added it is all of the board's but those dropped; with `ALL` dropped only those added; else the default
/// ones, without those dropped, with those added.
pub(super) fn decide(add: &[String], drop: &[String], available: u64) -> Result<Vec<&'static str>, BadCapability> {
    let parse_all = |list: &[String]| list.iter().map(|text| parse(text)).collect::<Result<Vec<_>, _>>();
    let (add, drop) = (parse_all(add)?, parse_all(drop)?);
    let is_available = |number: usize| available >> number & 1 == 1;
    for named in &add {
        match named {
            Named::One(number) if !is_available(*number) => return Err(BadCapability::Unavailable(NAMES[*number])),
            Named::One(_) | Named::All => {}
        }
    }
    let (all, none) = (add.contains(&Named::All), drop.contains(&Named::All));
    let has = |&(number, name): &(usize, &'static str)| {
        let (added, dropped) = (add.contains(&Named::One(number)), drop.contains(&Named::One(number)));
        match (all, none) {
            (true, _) => is_available(number) && !dropped,
            (false, true) => added,
            // Adding comes after dropping.
            (false, false) => added || (DEFAULT.contains(&name) && !dropped),
        }
    };
    Ok(NAMES.iter().copied().enumerate().filter(has).map(|(_, name)| name).collect())
}

/// The capabilities that a process may hand on, in the text of its `/proc/…/status`; all of them if it does not say.
pub(super) fn bounding(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = (1 << NAMES.len()) - 1;

    fn texts(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// What is there beyond the default ones (`+`), and which of those are not (`-`).
    #[track_caller]
    fn check(add: &str, drop: &str, available: u64, want: &str) {
        let found = match decide(&texts(add), &texts(drop), available) {
            Ok(found) => found,
            Err(error) => return assert_eq!(error.to_string(), want),
        };
        let more = found.iter().filter(|name| !DEFAULT.contains(name)).map(|name| format!("+{name}"));
        let less = DEFAULT.iter().filter(|name| !found.contains(name)).map(|name| format!("-{name}"));
        let difference: Vec<String> = more.chain(less).collect();
        assert_eq!(difference.join(" "), want);
    }

    #[test]
    fn adding_and_dropping() {
        check("", "", ALL, "");
        check("NET_ADMIN cap_sys_time", "CAP_KILL net_raw", ALL, "+CAP_NET_ADMIN +CAP_SYS_TIME -CAP_KILL -CAP_NET_RAW");
        check("CHOWN CHOWN", "SYS_ADMIN", ALL, "");
        check("CHOWN", "CHOWN", ALL, "");
        check("", "CHOWN", ALL, "-CAP_CHOWN");
        assert_eq!(decide(&texts("CHOWN kill"), &texts("all"), ALL), Ok(vec!["CAP_CHOWN", "CAP_KILL"]));
        assert_eq!(decide(&[], &texts("ALL"), ALL), Ok(vec![]));
        assert_eq!(decide(&texts("ALL"), &[], ALL), Ok(NAMES.to_vec()));
        let but = decide(&texts("ALL"), &texts("SYS_ADMIN"), ALL).unwrap();
        assert_eq!((but.len(), but.contains(&"CAP_SYS_ADMIN")), (40, false));
        // A kernel of 2019.
        assert_eq!(decide(&texts("ALL"), &[], (1 << 38) - 1).unwrap().len(), 38);
        check("SYS_ADMINS", "", ALL, "unknown capability: \"SYS_ADMINS\"");
        check("", "CAP_", ALL, "unknown capability: \"CAP_\"");
        check("", "CAP_CAP_CHOWN", ALL, "unknown capability: \"CAP_CAP_CHOWN\"");
        let unavailable = "capability not supported by this board's kernel or not available to its agent: CAP_BPF";
        check("BPF", "", ALL ^ 1 << 39, unavailable);
    }

    #[test]
    fn what_the_kernel_says() {
        assert_eq!(bounding("Name:\tx\nCapEff:\t0\nCapBnd:\t000001ffffffffff\nNoNewPrivs:\t0\n"), ALL);
        assert_eq!(bounding("Name:\tx\n"), u64::MAX);
    }
}
