//! What is to be done with a board, or why it cannot be a node.
//!
//! In: the board's [`Facts`], and what is [`Wanted`]. Out: a [`Plan`], or every reason against it. A board on which
//! nothing is to be done gets an empty plan: a second run changes nothing.

use super::facts::{Facts, Identity, Root};

/// Room for packages when containerd is not there yet, in KiB: it and what it needs take 250 MiB while they are installed.
const DISK_FRESH_KIB: u64 = 400 << 10;
/// Room for a new agent, in KiB.
const DISK_AGENT_KIB: u64 = 32 << 10;
/// Debian's first release whose containerd the agent can use.
const DEBIAN_MIN: u32 = 12;

/// What a board needs; of several one is enough, and the first is installed. The same list as that of images.
const PACKAGES: [&[&str]; 5] =
    [&["containerd", "containerd.io"], &["runc", "containerd.io"], &["crun"], &["nftables"], &["tini"]];

/// What the board shall be, and what the manager knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// The cluster's id.
    pub(super) cluster: String,
    /// Ids of the nodes that it has.
    pub(super) nodes: Vec<String>,
    /// Packages of ours, if a directory with some was named.
    pub(super) packages: Option<Vec<Package>>,
    /// Whether the board gets settings: a name, labels.
    pub(super) settings: bool,
}

/// One package `pi-agent` of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    /// Its version.
    pub(super) version: String,
    /// Its architecture.
    pub(super) arch: String,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Install these by the board's apt.
    Packages(Vec<String>),
    /// Bring and install this package.
    Agent(Package),
    /// Join, with the settings.
    Join,
    /// Give the settings to a board that has joined.
    Settings,
}

/// What to do, in order; and what a person should know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Steps.
    pub(super) steps: Vec<Step>,
    /// Things that are not as they should be, with what to do about them.
    pub(super) warnings: Vec<String>,
}

/// Plans, or says all that is in the way.
pub(super) fn plan(facts: &Facts, wanted: &Wanted) -> Result<Plan, Vec<String>> {
    let mut faults = Vec::new();
    faults.extend(root(facts));
    faults.extend(system(facts));
    faults.extend(membership(facts, wanted));
    let mut missing = missing(facts);
    let agent = agent(facts, wanted).unwrap_or_else(|fault| {
        // A board that is none of ours needs no advice about packages.
        faults.extend(faults.is_empty().then_some(fault));
        None
    });
    let mut steps = Vec::new();
    let brings = match agent {
        Some(Source::Apt) => {
            missing.push("pi-agent".to_owned());
            None
        }
        Some(Source::Ours(package)) => Some(package),
        None => None,
    };
    faults.extend(room(facts, !missing.is_empty(), brings.is_some()));
    if !missing.is_empty() || facts.half_installed {
        steps.push(Step::Packages(missing));
    }
    steps.extend(brings.map(Step::Agent));
    match facts.identity {
        Identity::None => steps.push(Step::Join),
        Identity::Member(_) if wanted.settings => steps.push(Step::Settings),
        Identity::Member(_) | Identity::Damaged => {}
    }
    if faults.is_empty() { Ok(Plan { steps, warnings: warnings(facts) }) } else { Err(faults) }
}

fn root(facts: &Facts) -> Option<String> {
    match facts.root {
        Root::Yes => None,
        Root::Password => Some(
            "sudo asks for a password there. Allow this user sudo without one (on the board, as root: \
             `echo \"USER ALL=(ALL) NOPASSWD: ALL\" >/etc/sudoers.d/USER`), or log in as root"
                .to_owned(),
        ),
        Root::NoSudo => Some("this user is not root, and there is no sudo: log in as root, or install sudo".to_owned()),
    }
}

/// The operating system and the processor.
fn system(facts: &Facts) -> Option<String> {
    let name = if facts.os_name.is_empty() { "an unknown system" } else { &facts.os_name };
    let expected = "expected Debian 12 (bookworm) or newer, or Raspberry Pi OS of it";
    if !matches!(&*facts.os, "debian" | "raspbian") {
        return Some(format!("it runs {name}; {expected}"));
    }
    // Debian's unstable has no number.
    if facts.os_version.parse::<u32>().is_ok_and(|version| version < DEBIAN_MIN) {
        return Some(format!("it runs {name}, whose containerd is too old; {expected}"));
    }
    if !matches!(&*facts.arch, "armhf" | "arm64" | "amd64") {
        return Some(format!("its packages are of the architecture {:?}; expected armhf, arm64 or amd64", facts.arch));
    }
    if facts.arch == "armhf" && matches!(&*facts.machine, "armv6l" | "armv5tel") {
        return Some(format!(
            "its processor is {}, and the package is for ARMv7: use the tarball of arm-unknown-linux-musleabihf \
             (make dist), and `pi-agent join` on the board",
            facts.machine
        ));
    }
    (!facts.systemd).then(|| "systemd does not run there, which starts containerd and the agent".to_owned())
}

/// Whether it is a node of somebody else's, or one that was removed.
fn membership(facts: &Facts, wanted: &Wanted) -> Option<String> {
    if facts.own_manager {
        return Some("its own manager runs on this board: the agent there needs no joining".to_owned());
    }
    if let Some(why) = &facts.data_dir_unknown {
        return Some(format!(
            "it cannot be told whether it is in a cluster: {why}. Name the directory on the board by one line in \
             /etc/racimo/agent.toml: data-dir = \"/DIRECTORY\""
        ));
    }
    let member = match &facts.identity {
        Identity::None => return None,
        Identity::Member(member) => member,
        Identity::Damaged => {
            return Some(
                "the agent there has an identity that cannot be read. To erase it, on the board: \
                 `sudo systemctl stop pi-agent; sudo pi-agent reset-identity`"
                    .to_owned(),
            );
        }
    };
    if member.cluster != wanted.cluster {
        return Some(format!(
            "it is in another cluster ({}), as node {}. To take it out of that one: `sudo pi-agent leave` on the board; \
             if that cluster is gone: `sudo systemctl stop pi-agent; sudo pi-agent reset-identity`",
            member.cluster, member.node
        ));
    }
    (!wanted.nodes.contains(&member.node)).then(|| {
        format!(
            "it was node {} of this cluster, which was removed. To join it anew, on the board: \
             `sudo systemctl stop pi-agent; sudo pi-agent reset-identity`",
            member.node
        )
    })
}

/// Where a new agent comes from.
enum Source {
    Ours(Package),
    Apt,
}

/// The agent to install, if what is there is older or nothing.
fn agent(facts: &Facts, wanted: &Wanted) -> Result<Option<Source>, String> {
    let is_wanted = |version: &str| facts.agent().is_none() || facts.newer.contains(version);
    let Some(packages) = &wanted.packages else {
        return match &facts.candidate {
            Some(version) => Ok(is_wanted(version).then_some(Source::Apt)),
            None if facts.agent().is_some() => Ok(None),
            None => Err("pi-agent is not installed there, and its apt does not know it: name the directory with our \
                         packages (`make dist` writes target/dist) with --debs DIR"
                .to_owned()),
        };
    };
    let Some(package) = packages.iter().find(|package| package.arch == facts.arch) else {
        let has = packages.iter().map(|package| &*package.arch).collect::<Vec<_>>().join(", ");
        return Err(format!("the directory of --debs has no pi-agent for {}; it has one for {has}", facts.arch));
    };
    Ok(is_wanted(&package.version).then(|| Source::Ours(package.clone())))
}

/// Packages that the board needs and has none of.
fn missing(facts: &Facts) -> Vec<String> {
    let lacks = |names: &&&[&str]| !names.iter().any(|name| facts.installed.contains_key(*name));
    PACKAGES.iter().filter(lacks).filter_map(|names| names.first()).map(|name| (*name).to_owned()).collect()
}

fn room(facts: &Facts, packages: bool, agent: bool) -> Option<String> {
    let needed = match (packages, agent) {
        (true, _) => DISK_FRESH_KIB,
        (false, true) => DISK_AGENT_KIB,
        (false, false) => return None,
    };
    let free = facts.disk_kib.filter(|free| *free < needed)?;
    Some(format!("{} MiB are free at /var there, and {} MiB are needed", free >> 10, needed >> 10))
}

fn warnings(facts: &Facts) -> Vec<String> {
    let mut warnings = Vec::new();
    if !facts.memory {
        let how = if facts.cmdline.is_empty() {
            "add cgroup_enable=memory to the kernel's command line, and restart the board".to_owned()
        } else {
            format!("add cgroup_enable=memory to the line in {}, and restart the board", facts.cmdline)
        };
        warnings
            .push(format!("its kernel's memory controller is off: tasks with memory limits keep off the board; {how}"));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::super::facts::Member;
    use super::*;

    /// A new board with Raspberry Pi OS.
    fn fresh() -> Facts {
        Facts {
            root: Root::Yes,
            os: "debian".to_owned(),
            os_version: "12".to_owned(),
            os_name: "Debian GNU/Linux 12 (bookworm)".to_owned(),
            machine: "aarch64".to_owned(),
            arch: "arm64".to_owned(),
            hostname: "kitchen".to_owned(),
            systemd: true,
            memory: true,
            disk_kib: Some(5 << 20),
            ..Facts::default()
        }
    }

    fn installed(packages: &[&str]) -> Facts {
        let installed = packages.iter().map(|name| ((*name).to_owned(), "1".to_owned())).collect();
        Facts { installed, ..fresh() }
    }

    /// A node of this cluster with everything.
    fn node() -> Facts {
        let identity = Identity::Member(Member { cluster: "c1".to_owned(), node: "n1".to_owned() });
        Facts { identity, ..installed(&["containerd", "runc", "crun", "nftables", "tini", "pi-agent"]) }
    }

    fn wanted() -> Wanted {
        let package = |arch: &str| Package { version: "0.2".to_owned(), arch: arch.to_owned() };
        Wanted {
            cluster: "c1".to_owned(),
            nodes: vec!["n1".to_owned()],
            packages: Some(vec![package("arm64"), package("armhf")]),
            settings: false,
        }
    }

    /// Steps in short.
    fn steps(facts: &Facts, wanted: &Wanted) -> String {
        match plan(facts, wanted) {
            Ok(plan) => plan.steps.iter().map(short).collect::<Vec<_>>().join("; "),
            Err(faults) => format!("refused: {}", faults.join("; ")),
        }
    }

    fn short(step: &Step) -> String {
        match step {
            Step::Packages(names) => format!("apt {}", names.join(" ")),
            Step::Agent(package) => format!("agent {} {}", package.version, package.arch),
            Step::Join => "join".to_owned(),
            Step::Settings => "settings".to_owned(),
        }
    }

    #[track_caller]
    fn check(facts: &Facts, wanted: &Wanted, want: &str) {
        assert_eq!(steps(facts, wanted), want);
    }

    #[track_caller]
    fn refused(facts: &Facts, wanted: &Wanted, words: &str) {
        let said = steps(facts, wanted);
        assert!(said.starts_with("refused: ") && said.contains(words), "{said}");
    }

    #[test]
    fn what_is_missing_is_done() {
        check(&fresh(), &wanted(), "apt containerd runc crun nftables tini; agent 0.2 arm64; join");
        check(&installed(&["containerd.io", "crun", "nftables"]), &wanted(), "apt tini; agent 0.2 arm64; join");
        check(&Facts { arch: "armhf".to_owned(), ..node() }, &wanted(), "");
        check(&Facts { half_installed: true, ..node() }, &wanted(), "apt ");
    }

    #[test]
    fn a_second_time_changes_nothing() {
        check(&node(), &wanted(), "");
        check(&node(), &Wanted { settings: true, ..wanted() }, "settings");
        check(&Facts { identity: Identity::None, ..node() }, &Wanted { settings: true, ..wanted() }, "join");
    }

    #[test]
    fn only_what_is_older_is_replaced() {
        let older = Facts { newer: ["0.2".to_owned()].into(), ..node() };
        check(&older, &wanted(), "agent 0.2 arm64");
        // Newer than the board's, but not what we have.
        check(&Facts { newer: ["0.3".to_owned()].into(), ..node() }, &wanted(), "");
    }

    #[test]
    fn without_packages_the_boards_apt_is_asked() {
        let none = Wanted { packages: None, ..wanted() };
        check(&node(), &none, "");
        refused(&fresh(), &none, "--debs DIR");
        let knows = |facts: Facts| Facts { candidate: Some("0.2".to_owned()), ..facts };
        check(&knows(fresh()), &none, "apt containerd runc crun nftables tini pi-agent; join");
        check(&knows(node()), &none, "");
        check(&Facts { newer: ["0.2".to_owned()].into(), ..knows(node()) }, &none, "apt pi-agent");
        // A directory that was named comes before it.
        check(&knows(node()), &wanted(), "");
        refused(
            &Facts { arch: "amd64".to_owned(), ..fresh() },
            &wanted(),
            "no pi-agent for amd64; it has one for arm64, armhf",
        );
    }

    #[test]
    fn other_boards_are_refused() {
        refused(&Facts { root: Root::Password, ..fresh() }, &wanted(), "sudo asks for a password");
        refused(&Facts { root: Root::NoSudo, ..fresh() }, &wanted(), "there is no sudo");
        let os = |id: &str, version: &str| Facts { os: id.to_owned(), os_version: version.to_owned(), ..fresh() };
        refused(&os("alpine", "3.20"), &wanted(), "expected Debian 12");
        refused(&os("ubuntu", "24.04"), &wanted(), "expected Debian 12");
        refused(&os("raspbian", "11"), &wanted(), "too old");
        check(&os("debian", ""), &wanted(), "apt containerd runc crun nftables tini; agent 0.2 arm64; join");
        refused(&Facts { arch: "riscv64".to_owned(), ..fresh() }, &wanted(), "expected armhf, arm64 or amd64");
        let zero = Facts { arch: "armhf".to_owned(), machine: "armv6l".to_owned(), ..fresh() };
        refused(&zero, &wanted(), "arm-unknown-linux-musleabihf");
        refused(&Facts { systemd: false, ..fresh() }, &wanted(), "systemd does not run");
        refused(
            &Facts { disk_kib: Some(300 << 10), ..fresh() },
            &wanted(),
            "300 MiB are free at /var there, and 400 MiB",
        );
        check(&Facts { disk_kib: Some(300 << 10), identity: Identity::None, ..node() }, &wanted(), "join");
        refused(&Facts { own_manager: true, ..node() }, &wanted(), "its own manager");
    }

    #[test]
    fn boards_of_other_clusters_are_refused() {
        refused(&node(), &Wanted { cluster: "c2".to_owned(), ..wanted() }, "another cluster (c1), as node n1");
        refused(&node(), &Wanted { nodes: Vec::new(), ..wanted() }, "which was removed");
        refused(&Facts { identity: Identity::Damaged, ..node() }, &wanted(), "pi-agent reset-identity");
        let unknown = Facts { data_dir_unknown: Some("odd".to_owned()), identity: Identity::None, ..node() };
        refused(&unknown, &wanted(), "whether it is in a cluster: odd. Name the directory");
    }

    #[test]
    fn all_reasons_are_given_at_once() {
        let facts = Facts { root: Root::Password, os: "alpine".to_owned(), ..fresh() };
        assert_eq!(plan(&facts, &wanted()).expect_err("two reasons").len(), 2);
    }

    #[test]
    fn a_missing_memory_controller_is_a_warning() {
        let facts = Facts { memory: false, cmdline: "/boot/firmware/cmdline.txt".to_owned(), ..node() };
        let warnings = plan(&facts, &wanted()).expect("a plan").warnings;
        assert!(
            warnings[0].contains("add cgroup_enable=memory to the line in /boot/firmware/cmdline.txt"),
            "{warnings:?}"
        );
        assert!(plan(&node(), &wanted()).expect("a plan").warnings.is_empty());
    }
}
