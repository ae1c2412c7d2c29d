//! What a board is like, as `probe.sh` says it.
//!
//! In: its output. Out: [`Facts`]. Lines that nobody knows here are left out, so that the two may differ by a version.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::json::Peek;

/// Whether commands can be run as root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Root {
    /// As root, or by sudo.
    Yes,
    /// sudo asks for a password.
    Password,
    /// There is no sudo.
    #[default]
    NoSudo,
}

/// Which node of which cluster a board is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// The cluster's id.
    pub(super) cluster: String,
    /// The node's id.
    pub(super) node: String,
}

/// What the agent on the board has of an identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Identity {
    /// It never joined, or has left.
    #[default]
    None,
    /// It is a node.
    Member(Member),
    /// The file is not readable as one.
    Damaged,
}

/// What a board is like. What it does not say is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Whether commands can be run as root.
    pub(super) root: Root,
    /// Whether the user who logs in is root.
    pub(super) is_root: bool,
    /// `ID` of os-release.
    pub(super) os: String,
    /// `VERSION_ID` of os-release.
    pub(super) os_version: String,
    /// `PRETTY_NAME` of os-release.
    pub(super) os_name: String,
    /// What the kernel calls the processor.
    pub(super) machine: String,
    /// The architecture of its packages, as Debian calls it.
    pub(super) arch: String,
    /// Its host name.
    pub(super) hostname: String,
    /// What the device tree calls the board.
    pub(super) model: String,
    /// Whether systemd runs.
    pub(super) systemd: bool,
    /// Whether the kernel's memory controller is on.
    pub(super) memory: bool,
    /// Where the kernel's command line is, on a Raspberry Pi.
    pub(super) cmdline: String,
    /// Room for packages, in KiB.
    pub(super) disk_kib: Option<u64>,
    /// Of the packages that matter, those that are installed, and their versions.
    pub(super) installed: BTreeMap<String, String>,
    /// Which program uses apt or dpkg there now.
    pub(super) lock_holder: Option<String>,
    /// Whether dpkg has to finish something.
    pub(super) half_installed: bool,
    /// The version of pi-agent that the board's own apt has.
    pub(super) candidate: Option<String>,
    /// Versions of pi-agent that are newer than what is installed.
    pub(super) newer: BTreeSet<String>,
    /// Which node it is.
    pub(super) identity: Identity,
    /// Why it is not known where its agent keeps that.
    pub(super) data_dir_unknown: Option<String>,
    /// Whether its agent belongs to a manager on the same board.
    pub(super) own_manager: bool,
}

impl Facts {
    /// Reads them. `None`: this is not the whole answer of a board.
    pub(super) fn parse(text: &str) -> Option<Facts> {
        let mut facts = Facts::default();
        let mut is_whole = false;
        for (key, value) in text.lines().filter_map(|line| line.split_once('\t')) {
            let owned = || value.to_owned();
            match key {
                "root" => facts.root = root(value),
                "is-root" => facts.is_root = true,
                "os" => facts.os = owned(),
                "os-version" => facts.os_version = owned(),
                "os-name" => facts.os_name = owned(),
                "machine" => facts.machine = owned(),
                "arch" => facts.arch = owned(),
                "hostname" => facts.hostname = owned(),
                "model" => facts.model = owned(),
                "systemd" => facts.systemd = true,
                "memory" => facts.memory = true,
                "cmdline" => facts.cmdline = owned(),
                "disk" => facts.disk_kib = value.parse().ok(),
                "package" => facts.installed.extend(package(value)),
                "lock-holder" => facts.lock_holder = Some(owned()),
                "half-installed" => facts.half_installed = true,
                "candidate" => facts.candidate = Some(owned()),
                "older-than" => drop(facts.newer.insert(owned())),
                "identity" => facts.identity = identity(value),
                "data-dir-unknown" => facts.data_dir_unknown = Some(owned()),
                "own-manager" => facts.own_manager = true,
                "end" => is_whole = true,
                _ => {}
            }
        }
        is_whole.then_some(facts)
    }

    /// The version of the agent that is installed.
    pub(super) fn agent(&self) -> Option<&str> {
        self.installed.get("pi-agent").map(String::as_str)
    }

    /// What to call the board when it is shown: its name, model and system.
    pub(super) fn summary(&self) -> String {
        let parts = [&self.hostname, &self.model, &self.os_name, &self.arch];
        parts.map(String::as_str).into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
    }
}

fn root(text: &str) -> Root {
    match text {
        "yes" => Root::Yes,
        "password" => Root::Password,
        _ => Root::NoSudo,
    }
}

/// `NAME=VERSION=STATUS` of a package that is installed.
fn package(text: &str) -> Option<(String, String)> {
    let (rest, status) = text.rsplit_once('=')?;
    let (name, version) = rest.split_once('=')?;
    (status == "installed").then(|| (name.to_owned(), version.to_owned()))
}

/// The agent's `cluster.json`.
fn identity(text: &str) -> Identity {
    let json: Value = serde_json::from_str(text).unwrap_or_default();
    let (cluster, node) = (json.text("/cluster").to_owned(), json.text("/node").to_owned());
    if cluster.is_empty() || node.is_empty() { Identity::Damaged } else { Identity::Member(Member { cluster, node }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOARD: &str = "root\tyes\nos\tdebian\nos-version\t12\nos-name\tDebian GNU/Linux 12 (bookworm)\nmachine\taarch64\n\
        arch\tarm64\nhostname\tkitchen\nmodel\tRaspberry Pi 4 Model B Rev 1.4\nsystemd\tyes\nmemory\tyes\ndisk\t12345\n\
        package\tcontainerd=1.6.20~ds1-1+b1=installed\npackage\trunc=1.1=config-files\ncandidate\t0.2.0\n\
        older-than\t0.2.0\nidentity\t{  \"cluster\": \"c1\",  \"node\": \"n1\"}\nnews\tof tomorrow\nend\tyes\n";

    #[test]
    fn a_board_is_read() {
        let facts = Facts::parse(BOARD).expect("a whole answer");
        assert_eq!(facts.summary(), "kitchen, Raspberry Pi 4 Model B Rev 1.4, Debian GNU/Linux 12 (bookworm), arm64");
        assert_eq!((facts.root, facts.disk_kib, facts.memory), (Root::Yes, Some(12345), true));
        let installed: Vec<_> = facts.installed.iter().map(|(name, version)| format!("{name} {version}")).collect();
        assert_eq!(installed, ["containerd 1.6.20~ds1-1+b1"]);
        assert_eq!(facts.identity, Identity::Member(Member { cluster: "c1".to_owned(), node: "n1".to_owned() }));
        assert!(facts.newer.contains("0.2.0") && facts.agent().is_none());
    }

    #[test]
    fn what_is_not_whole_is_no_board() {
        assert_eq!(Facts::parse(""), None);
        assert_eq!(Facts::parse("Welcome to the coffee machine\nroot\tyes\n"), None);
        assert_eq!(Facts::parse(BOARD.strip_suffix("end\tyes\n").expect("its end")), None);
    }

    #[test]
    fn identities() {
        for text in ["", "{}", "{\"cluster\":\"c1\"}", "[]", "{\"cluster\":1,\"node\":2}"] {
            assert_eq!(identity(text), Identity::Damaged, "{text}");
        }
        let facts = Facts::parse("end\tyes").expect("a whole answer");
        assert_eq!((facts.identity, facts.root), (Identity::None, Root::NoSudo));
        let facts = Facts::parse("data-dir-unknown\todd\nend\tyes").expect("a whole answer");
        assert_eq!(facts.data_dir_unknown.as_deref(), Some("odd"));
    }
}
