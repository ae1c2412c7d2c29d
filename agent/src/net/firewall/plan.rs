//! What other firewalls are to be asked for. Pure.
//!
//! | firewall | how it is known | what it is asked |
//! |---|---|---|
//! | Docker, ufw, or iptables by hand | chain `FORWARD` or `INPUT` of iptables | rules at the end of the first, the beginning of the second |
//! | firewalld | table `firewalld` of nf_tables | our links trusted, the mesh's ports open |
//! | others | a chain that drops what it does not know | nothing: the user is told |
//!
//! What goes through is let through at the end, where it would be dropped otherwise: the user's rules, also those in
//! `DOCKER-USER`, and Docker's own have judged before. Old Dockers leave it to the chain's policy that nobody reaches
//! ports of containers which are not published; so what is for their bridges is left to it, too.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use racimo_common::net::{VXLAN_ENCRYPTED_PORT, WIREGUARD_PORT};

/// Our own table: it is left out.
pub(super) const TABLE: &str = "racimo";

/// firewalld's.
pub(super) const FIREWALLD: &str = "firewalld";

/// What the board's network needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// UDP port of the VXLANs.
    pub vxlan_port: u16,
    /// Whether networks are encrypted.
    pub encrypts: bool,
}

/// Where in a packet's way a chain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    /// It is for the board.
    Input,
    /// It goes through.
    Forward,
}

/// A chain of another program's in nf_tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    /// Of addresses, as nf_tables numbers it.
    pub(super) family: u8,
    pub(super) table: String,
    pub(super) name: String,
    /// None: other chains call it.
    pub(super) hook: Option<Hook>,
    /// Whether it drops what its rules do not decide.
    pub(super) drops: bool,
    /// Our rules in it.
    pub(super) ours: BTreeSet<Accept>,
    /// Whether a rule names tasks' links, whoever put it there.
    pub(super) names_ours: bool,
    /// The number of its last rule, counted from 1, if that drops all that comes to it.
    pub(super) ends: Option<usize>,
}

/// What the older packet filter has of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Legacy {
    pub(super) forward: BTreeSet<Accept>,
    pub(super) input: BTreeSet<Accept>,
    /// As in [`Chain::ends`], of `FORWARD`.
    pub(super) ends: Option<usize>,
}

/// What there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) chains: Vec<Chain>,
    /// None: it is not used.
    pub(super) legacy: Option<Legacy>,
    /// Docker's bridges.
    pub(super) bridges: BTreeSet<String>,
}

/// Whether a bridge is one that Docker makes, by its name.
pub(super) fn is_dockers(name: &str) -> bool {
    let is_id = |id: &str| id.len() == 12 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    matches!(name, "docker0" | "docker_gwbridge") || name.strip_prefix("br-").is_some_and(is_id)
}

/// One kind of packets that is let through.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Accept {
    /// Not: new ones from tasks to a bridge of Docker's, which are left to what comes after all rules. Before
    /// [`FromTasks`](Self::FromTasks).
    NotTo(String),
    /// From tasks.
    FromTasks,
    /// To tasks.
    ToTasks,
    /// From other boards.
    FromMesh,
    /// To other boards.
    ToMesh,
    /// What the mesh is made of.
    Vxlan(u16),
    /// What the encryption is made of.
    Wireguard,
    /// What encrypted networks are made of.
    Encrypted,
}

impl Accept {
    const THROUGH: [Self; 4] = [Self::FromTasks, Self::ToTasks, Self::FromMesh, Self::ToMesh];
    const MESH: &str = "racimo: mesh ";
    const NOT_TO: &str = "racimo: not to ";

    /// The comment by which we know it again.
    fn mark(&self) -> String {
        match self {
            Self::NotTo(bridge) => format!("{}{bridge}", Self::NOT_TO),
            Self::FromTasks => "racimo: from tasks".to_owned(),
            Self::ToTasks => "racimo: to tasks".to_owned(),
            Self::FromMesh => "racimo: from boards".to_owned(),
            Self::ToMesh => "racimo: to boards".to_owned(),
            Self::Vxlan(port) => format!("{}{port}", Self::MESH),
            Self::Wireguard => "racimo: encryption".to_owned(),
            Self::Encrypted => "racimo: encrypted".to_owned(),
        }
    }

    /// Those whose marks are in what was found.
    pub(super) fn find(bytes: &[u8]) -> BTreeSet<Self> {
        let at = |part: &[u8]| bytes.windows(part.len()).position(|window| window == part).map(|at| at + part.len());
        let fixed = Self::THROUGH.into_iter().chain([Self::Wireguard, Self::Encrypted]);
        let mut found: BTreeSet<Self> = fixed.filter(|accept| at(accept.mark().as_bytes()).is_some()).collect();
        if let Some(at) = at(Self::MESH.as_bytes()) {
            let digits = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit());
            let port: String = digits.map(|digit| char::from(*digit)).collect();
            found.extend(port.parse().ok().map(Self::Vxlan));
        }
        if let Some(at) = at(Self::NOT_TO.as_bytes()) {
            let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            let name: String = bytes[at..].iter().take_while(is_part).map(|byte| char::from(*byte)).collect();
            found.extend(is_dockers(&name).then_some(Self::NotTo(name)));
        }
        found
    }

    /// In iptables' language.
    fn arguments(&self) -> Vec<String> {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect();
        match self {
            Self::NotTo(bridge) => words(&format!("-i rg-+ -o {bridge} -m conntrack --ctstate NEW")),
            Self::FromTasks => words("-i rg-+"),
            Self::ToTasks => words("-o rg-+"),
            Self::FromMesh => words("-i rc-mesh"),
            Self::ToMesh => words("-o rc-mesh"),
            Self::Vxlan(port) => words(&format!("-p udp --dport {port}")),
            Self::Wireguard => words(&format!("-p udp --dport {WIREGUARD_PORT}")),
            Self::Encrypted => words(&format!("-i rc-wg -p udp --dport {VXLAN_ENCRYPTED_PORT}")),
        }
    }

    /// What becomes of them. A chain that the kernel calls returns to its policy.
    fn target(&self) -> &'static str {
        if matches!(self, Self::NotTo(_)) { "RETURN" } else { "ACCEPT" }
    }
}

/// Which program a chain belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// iptables on nf_tables.
    Tables,
    /// iptables as it was before.
    Legacy,
}

impl Way {
    /// Its program: the variant's own, as a board may have both, else the one that there is.
    pub(super) fn program(self) -> &'static str {
        let own = match self {
            Self::Tables => "iptables-nft",
            Self::Legacy => "iptables-legacy",
        };
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let is_there = std::env::split_paths(&paths).any(|path| Path::new(&path).join(own).exists());
        if is_there { own } else { "iptables" }
    }
}

/// What becomes of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It is put at the chain's beginning.
    First,
    /// Before the rule of this number.
    Before(usize),
    /// At its end.
    Last,
    /// The first that is so is taken out.
    Out,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Change a chain.
    Rule { way: Way, change: Change, chain: &'static str, accept: Accept },
    /// Ask firewalld for a link in its zone *trusted*, or take it out: until it loads its rules anew.
    Link { name: &'static str, add: bool },
    /// Ask firewalld to open a UDP port, or to close it. As above.
    Port { number: u16, add: bool },
}

/// firewalld's program.
pub(super) const FIREWALL_CMD: &str = "firewall-cmd";

impl Step {
    /// The command that does it.
    pub(super) fn command(&self) -> (&'static str, Vec<String>) {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let verb = |add| if add { "add" } else { "remove" };
        match self {
            Self::Rule { way, change, chain, accept } => {
                let mut arguments = match change {
                    Change::First => words(&format!("-w 5 -I {chain}")),
                    Change::Before(number) => words(&format!("-w 5 -I {chain} {number}")),
                    Change::Last => words(&format!("-w 5 -A {chain}")),
                    Change::Out => words(&format!("-w 5 -D {chain}")),
                };
                arguments.extend(accept.arguments());
                let mark = accept.mark();
                arguments.extend(["-m", "comment", "--comment", &mark, "-j", accept.target()].map(str::to_owned));
                (way.program(), arguments)
            }
            Self::Link { name, add } => {
                (FIREWALL_CMD, words(&format!("-q --zone=trusted --{}-interface={name}", verb(*add))))
            }
            Self::Port { number, add } => (FIREWALL_CMD, words(&format!("-q --{}-port={number}/udp", verb(*add)))),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (program, arguments) = self.command();
        f.write_str(program)?;
        for argument in &arguments {
            if argument.contains(' ') { write!(f, " {argument:?}")? } else { write!(f, " {argument}")? }
        }
        Ok(())
    }
}

/// What is to be done, and what the user has to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) told: Vec<String>,
}

/// What is known of firewalld's ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ports {
    /// Those that were closed before we asked.
    pub(super) added: BTreeSet<u16>,
    /// Those that are open, ours or the user's.
    pub(super) open: BTreeSet<u16>,
}

/// What makes others let through what is wanted; none: what takes back all that they were asked for.
pub(super) fn plan(found: &Found, wanted: Option<&Wanted>, ports: &Ports) -> Plan {
    let mut plan = Plan::default();
    let find = |name: &str| {
        found
            .chains
            .iter()
            .find(|chain| (chain.family, chain.table.as_str(), chain.name.as_str()) == (2, "filter", name))
    };
    if let Some(forward) = find("FORWARD") {
        plan.forward(Way::Tables, &forward.ours, forward.ends, &found.bridges, wanted);
    }
    if let Some(input) = find("INPUT") {
        plan.input(Way::Tables, &input.ours, wanted);
    }
    if let Some(legacy) = &found.legacy {
        plan.forward(Way::Legacy, &legacy.forward, legacy.ends, &found.bridges, wanted);
        plan.input(Way::Legacy, &legacy.input, wanted);
    }
    if found.chains.iter().any(|chain| chain.table == FIREWALLD) {
        plan.firewalld(found.firewalld_knows(), wanted, ports);
    }
    if wanted.is_some() {
        plan.others(found);
    }
    plan
}

impl Found {
    /// Whether firewalld was asked since it loaded its rules.
    pub(super) fn firewalld_knows(&self) -> bool {
        self.chains.iter().any(|chain| chain.table == FIREWALLD && chain.names_ours)
    }
}

impl Plan {
    fn forward(
        &mut self,
        way: Way,
        have: &BTreeSet<Accept>,
        ends: Option<usize>,
        bridges: &BTreeSet<String>,
        wanted: Option<&Wanted>,
    ) {
        let want: Vec<Accept> = match wanted {
            Some(_) => bridges.iter().cloned().map(Accept::NotTo).chain(Accept::THROUGH).collect(),
            None => Vec::new(),
        };
        let mut new: Vec<&Accept> = want.iter().filter(|accept| !have.contains(accept)).collect();
        let mut old: Vec<&Accept> = have.iter().filter(|accept| !want.contains(accept)).collect();
        // An exception must be before what it is one of: that moves behind it.
        let moves = have.contains(&Accept::FromTasks) && new.iter().any(|accept| matches!(accept, Accept::NotTo(_)));
        if moves {
            new.push(&Accept::FromTasks);
            old.push(&Accept::FromTasks);
        }
        for (place, accept) in new.into_iter().enumerate() {
            let change = ends.map_or(Change::Last, |ends| Change::Before(ends + place));
            self.rule(way, change, "FORWARD", accept);
        }
        old.into_iter().for_each(|accept| self.rule(way, Change::Out, "FORWARD", accept));
    }

    fn input(&mut self, way: Way, have: &BTreeSet<Accept>, wanted: Option<&Wanted>) {
        let mut want = Vec::new();
        if let Some(wanted) = wanted {
            want.push(Accept::Vxlan(wanted.vxlan_port));
            if wanted.encrypts {
                want.extend([Accept::Wireguard, Accept::Encrypted]);
            }
        }
        let new = want.iter().filter(|accept| !have.contains(accept));
        new.for_each(|accept| self.rule(way, Change::First, "INPUT", accept));
        let old = have.iter().filter(|accept| !want.contains(accept));
        old.for_each(|accept| self.rule(way, Change::Out, "INPUT", accept));
    }

    fn rule(&mut self, way: Way, change: Change, chain: &'static str, accept: &Accept) {
        self.steps.push(Step::Rule { way, change, chain, accept: accept.clone() });
    }

    fn firewalld(&mut self, knows: bool, wanted: Option<&Wanted>, ports: &Ports) {
        let mut want = BTreeSet::new();
        if let Some(wanted) = wanted {
            want.insert(wanted.vxlan_port);
            want.extend(wanted.encrypts.then_some(WIREGUARD_PORT));
        }
        let port = |add| move |number: &u16| Step::Port { number: *number, add };
        self.steps.extend(want.difference(&ports.open).map(port(true)));
        self.steps.extend(ports.added.difference(&want).map(port(false)));
        let add = wanted.is_some();
        if knows != add {
            self.steps.extend(["rc-mesh", "rc-wg", "rg-+"].map(|name| Step::Link { name, add }));
        }
    }

    /// Rules of the user's own.
    fn others(&mut self, found: &Found) {
        for chain in &found.chains {
            let is_known = chain.family == 2 && chain.table == "filter" || chain.table == FIREWALLD;
            if is_known || !chain.drops || chain.names_ours || chain.hook != Some(Hook::Forward) {
                continue;
            }
            let family = if chain.family == 2 { "ip" } else { "inet" };
            let Chain { table, name, .. } = chain;
            self.told.push(format!(
                "nftables' chain {family} {table} {name} drops tasks' packets: let those through whose iifname or oifname \
                 is \"rg-*\" or \"rc-mesh\": `nft insert rule {family} {table} {name} iifname \"rg-*\" accept`, and so on"
            ));
        }
    }
}

#[cfg(test)]
mod tests;
