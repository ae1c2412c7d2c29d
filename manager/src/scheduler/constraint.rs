//! Placement constraints: `key == value` or `key != value`.
//!
//! In: a text of the user, a [`Node`]. Out: a [`Constraint`] or why it is none; whether a node satisfies it.
//! Grammar and meaning are SwarmKit's (reference `swarm-behaviour.md` §7), except that `node.platform.arch`
//! takes the kernel's spelling (`aarch64`) and Go's (`arm64`).

use std::net::{IpAddr, SocketAddr};

use crate::store::Node;

/// One parsed constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    key: Key,
    equal: bool,
    value: String,
}

/// What of a node is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    Id,
    Hostname,
    Role,
    Ip(Option<Network>),
    Os,
    Arch,
    NodeLabel(String),
    EngineLabel(String),
    /// No node satisfies it: the task waits, and an operator sees why.
    Unknown,
}

/// An address, or a range of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    addr: IpAddr,
    prefix: u32,
}

/// Why a text is not a constraint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadConstraint {
    /// Neither `==` nor `!=`.
    #[error("constraint expected one operator from ==, !=: {0:?}")]
    NoOperator(String),
    /// The part before the operator.
    #[error(
        "key '{0}' is invalid: expected a letter or '_', then letters, digits, '-', '_' or '.', at least 2 characters"
    )]
    Key(String),
    /// The part behind the operator.
    #[error("value '{0}' is invalid: expected letters, digits, spaces and : - _ . * ( ) ? + [ ] \\ ^ $ | /")]
    Value(String),
}

/// Reads one constraint.
pub fn parse(text: &str) -> Result<Constraint, BadConstraint> {
    let (equal, (key, value)) = match (text.split_once("=="), text.split_once("!=")) {
        (Some(parts), _) => (true, parts),
        (None, Some(parts)) => (false, parts),
        (None, None) => return Err(BadConstraint::NoOperator(text.to_owned())),
    };
    let (key, value) = (key.trim(), value.trim());
    if !is_key(key) {
        return Err(BadConstraint::Key(key.to_owned()));
    }
    if !is_value(value) {
        return Err(BadConstraint::Value(value.to_owned()));
    }
    Ok(Constraint { key: Key::of(key, value), equal, value: value.to_owned() })
}

/// Reads all constraints of a placement; the first bad one is the error.
pub fn parse_all(texts: &[String]) -> Result<Vec<Constraint>, BadConstraint> {
    texts.iter().map(|text| parse(text)).collect()
}

/// Whether the node satisfies the constraint.
pub fn matches(constraint: &Constraint, node: &Node) -> bool {
    let Constraint { key, equal, value } = constraint;
    let same = |have: &str| have.eq_ignore_ascii_case(value);
    let about = &node.description;
    let found = match key {
        Key::Id => same(&node.id.to_string()),
        Key::Hostname => same(&about.hostname),
        Key::Role => same(&node.role.to_string()),
        Key::Ip(None) | Key::Unknown => return false,
        Key::Ip(Some(network)) => address(&node.addr).is_some_and(|addr| network.holds(addr)),
        Key::Os => same(about.platforms.first().map_or("", |platform| &platform.os)),
        Key::Arch => {
            let userland = about.platforms.first().map_or("", |platform| &platform.architecture);
            same(&about.machine) || same(userland) || same(kernel_spelling(userland))
        }
        Key::NodeLabel(label) => same(node.spec.labels.get(label).map_or("", String::as_str)),
        Key::EngineLabel(label) => same(about.labels.get(label).map_or("", String::as_str)),
    };
    found == *equal
}

/// Whether the node satisfies all of them.
pub fn matches_all(constraints: &[Constraint], node: &Node) -> bool {
    constraints.iter().all(|constraint| matches(constraint, node))
}

/// A spread preference (`node.labels.zone`), read once per group of tasks.
pub(super) struct Spread(Key);

impl Spread {
    pub(super) fn of(descriptor: &str) -> Self {
        Self(Key::of(descriptor.trim(), ""))
    }

    /// What it divides nodes by. A missing label is a value of its own; a descriptor that we don't know divides nothing.
    pub(super) fn value<'a>(&self, node: &'a Node) -> &'a str {
        let label = match &self.0 {
            Key::NodeLabel(label) => node.spec.labels.get(label),
            Key::EngineLabel(label) => node.description.labels.get(label),
            Key::Id | Key::Hostname | Key::Role | Key::Ip(_) | Key::Os | Key::Arch | Key::Unknown => None,
        };
        label.map_or("", String::as_str)
    }
}

fn is_key(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && text.len() >= 2
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

fn is_value(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b.is_ascii_whitespace() || b":-_.*()?+[]\\^$|/".contains(&b))
}

fn kernel_spelling(architecture: &str) -> &str {
    match architecture {
        "arm64" => "aarch64",
        "amd64" => "x86_64",
        other => other,
    }
}

/// The address in `1.2.3.4`, `1.2.3.4:5` or `[::1]:5`.
fn address(text: &str) -> Option<IpAddr> {
    let addr = text.parse().or_else(|_| text.parse::<SocketAddr>().map(|addr| addr.ip()));
    addr.ok().map(|addr| addr.to_canonical())
}

impl Key {
    fn of(text: &str, value: &str) -> Self {
        let rest = |prefix: &str| {
            let (head, tail) = text.split_at_checked(prefix.len())?;
            (head.eq_ignore_ascii_case(prefix) && !tail.is_empty()).then(|| tail.to_owned())
        };
        if let Some(label) = rest("node.labels.") {
            return Self::NodeLabel(label);
        }
        if let Some(label) = rest("engine.labels.") {
            return Self::EngineLabel(label);
        }
        match text.to_ascii_lowercase().as_str() {
            "node.id" => Self::Id,
            "node.hostname" => Self::Hostname,
            "node.role" => Self::Role,
            "node.ip" => Self::Ip(Network::parse(value)),
            "node.platform.os" => Self::Os,
            "node.platform.arch" => Self::Arch,
            _ => Self::Unknown,
        }
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        if let Ok(addr) = text.parse::<IpAddr>() {
            return Some(Self { addr: addr.to_canonical(), prefix: 128 });
        }
        let (addr, prefix) = text.split_once('/')?;
        let addr: IpAddr = addr.parse().ok()?;
        let prefix: u32 = prefix.parse().ok()?;
        (prefix <= if addr.is_ipv4() { 32 } else { 128 }).then_some(Self { addr, prefix })
    }

    fn holds(self, addr: IpAddr) -> bool {
        match (self.addr, addr) {
            (IpAddr::V4(net), IpAddr::V4(addr)) => {
                let shift = 32 - self.prefix.min(32);
                (u64::from(net.to_bits()) >> shift) == (u64::from(addr.to_bits()) >> shift)
            }
            (IpAddr::V6(net), IpAddr::V6(addr)) => {
                let differ = net.to_bits() ^ addr.to_bits();
                differ.checked_shr(128 - self.prefix).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use racimo_common::id::{NodeId, RandomId};
    use racimo_common::object::{NodeDescription, Role};
    use racimo_common::registry::Platform;

    use super::*;
    use crate::store::{Meta, NodeSpec};

    fn node() -> Node {
        let platform = |architecture: &str, variant: &str| Platform {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: variant.into(),
        };
        Node {
            mesh: None,
            id: NodeId::from_bits(36),
            meta: Meta::default(),
            spec: NodeSpec { labels: [("zone".to_owned(), "East 1".to_owned())].into(), ..NodeSpec::default() },
            role: Role::Worker,
            key_digest: None,
            description: Arc::new(NodeDescription {
                hostname: "pi-1".into(),
                platforms: vec![platform("arm64", "v8"), platform("arm", "v7")],
                machine: "aarch64".into(),
                labels: [("disk".to_owned(), "ssd".to_owned())].into(),
                ..NodeDescription::default()
            }),
            addr: "192.168.1.17:40312".into(),
            written_off: None,
            trust: None,
            board: None,
        }
    }

    #[track_caller]
    fn check(text: &str, want: bool) {
        let constraint = parse(text).expect("parses");
        assert_eq!(matches(&constraint, &node()), want, "{text}");
    }

    #[test]
    fn nodes_match() {
        check("node.id == 0000000000000000000000010", true);
        check("node.hostname==PI-1", true);
        check("node.hostname==pi", false);
        check("node.hostname==pi-.*", false);
        check("NODE.Hostname != pi-1", false);
        check("node.role==Worker", true);
        check("node.role!=manager", true);
        check("node.platform.os==linux", true);
        check("node.platform.arch==aarch64", true);
        check("node.platform.arch==arm64", true);
        check("node.platform.arch!=arm64", false);
        check("node.platform.arch==arm", false);
        check("node.labels.zone == east 1", true);
        check("node.labels.Zone == east 1", false);
        check("node.labels.Zone != east 1", true);
        check("engine.labels.disk==ssd", true);
        check("engine.labels.disk!=ssd", false);
        check("node.labels.gone==x", false);
        check("node.labels.gone!=x", true);
        check("node.magic==x", false);
        check("node.magic!=x", false);
        check("node.labels.==x", false);
        check("node.labels.!=x", false);
    }

    #[test]
    fn addresses_match() {
        check("node.ip==192.168.1.17", true);
        check("node.ip!=192.168.1.17", false);
        check("node.ip==192.168.1.18", false);
        check("node.ip==192.168.0.0/16", true);
        check("node.ip==0.0.0.0/0", true);
        check("node.ip!=10.0.0.0/8", true);
        check("node.ip==10.0.0.0/8", false);
        check("node.ip==fd00::/8", false);
        check("node.ip!=fd00::1", true);
        for malformed in ["192.168.1", "192.168.0.0/33", "x"] {
            check(&format!("node.ip=={malformed}"), false);
            check(&format!("node.ip!={malformed}"), false);
        }
        let v6 = Network::parse("fd00::/8").expect("a network");
        assert!(v6.holds("fdff::1".parse().expect("v6")) && !v6.holds("fe80::1".parse().expect("v6")));
    }

    #[track_caller]
    fn check_bad(text: &str, want: &BadConstraint) {
        assert_eq!(parse(text).as_ref(), Err(want), "{text}");
    }

    #[test]
    fn bad_texts_are_refused() {
        let (key, value) = (|t: &str| BadConstraint::Key(t.into()), |t: &str| BadConstraint::Value(t.into()));
        check_bad("", &BadConstraint::NoOperator(String::new()));
        check_bad("node.id=1", &BadConstraint::NoOperator("node.id=1".into()));
        check_bad("a==b", &key("a"));
        check_bad("1a==b", &key("1a"));
        check_bad("no de==b", &key("no de"));
        check_bad("ab!=c==d", &key("ab!=c"));
        check_bad(" == b", &key(""));
        check_bad("ab== ", &value(""));
        check_bad("ab==c,d", &value("c,d"));
        check_bad("ab==c==d", &value("c==d"));
        check_bad("ab!=\u{e9}", &value("\u{e9}"));
        assert!(parse("_a == (x|y)*[z]\\^$?+:-/.").is_ok());
    }
}
