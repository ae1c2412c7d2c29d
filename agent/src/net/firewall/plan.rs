//! What other firewalls are to be asked for. Pure.
//!
//! | firewall | how it is known | what it is asked |
//! |---|---|---|
//! | Docker | chain `DOCKER-USER` of iptables | rules there, before Docker's own |
//! | ufw, or iptables by hand | chain `FORWARD` or `INPUT` of iptables | rules at their beginning |
//! | firewalld | table `firewalld` of nf_tables | our links trusted, the mesh's ports open |
//! | others | a chain that drops what it does not know | nothing: the user is told |

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
}

/// What the older packet filter has of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Legacy {
    /// Docker's chain for users, if there is one.
    pub(super) user: Option<BTreeSet<Accept>>,
    pub(super) forward: BTreeSet<Accept>,
    pub(super) input: BTreeSet<Accept>,
}

/// What there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) chains: Vec<Chain>,
    /// None: it is not used.
    pub(super) legacy: Option<Legacy>,
}

/// One kind of packets that is let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Accept {
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

    /// The comment by which we know it again.
    fn mark(self) -> String {
        match self {
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
        found
    }

    /// In iptables' language.
    fn arguments(self) -> Vec<String> {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect();
        match self {
            Self::FromTasks => words("-i rg-+"),
            Self::ToTasks => words("-o rg-+"),
            Self::FromMesh => words("-i rc-mesh"),
            Self::ToMesh => words("-o rc-mesh"),
            Self::Vxlan(port) => words(&format!("-p udp --dport {port}")),
            Self::Wireguard => words(&format!("-p udp --dport {WIREGUARD_PORT}")),
            Self::Encrypted => words(&format!("-i rc-wg -p udp --dport {VXLAN_ENCRYPTED_PORT}")),
        }
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

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Put a rule at a chain's beginning, or take it out.
    Rule { way: Way, insert: bool, chain: &'static str, accept: Accept },
    /// Ask firewalld for something in one of its zones: until it loads its rules anew.
    Firewalld {
        /// None: the one that links are in by default.
        zone: Option<&'static str>,
        what: String,
    },
}

impl Step {
    /// The command that does it.
    pub(super) fn command(&self) -> (&'static str, Vec<String>) {
        match self {
            Self::Rule { way, insert, chain, accept } => {
                let verb = if *insert { "-I" } else { "-D" };
                let mut arguments: Vec<String> = ["-w", "5", verb, chain].map(str::to_owned).into();
                arguments.extend(accept.arguments());
                arguments.extend(["-m", "comment", "--comment", &accept.mark(), "-j", "ACCEPT"].map(str::to_owned));
                (way.program(), arguments)
            }
            Self::Firewalld { zone, what } => {
                let zone = zone.map(|zone| format!("--zone={zone}"));
                ("firewall-cmd", ["-q".to_owned()].into_iter().chain(zone).chain([what.clone()]).collect())
            }
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

/// What makes others let through what is wanted; none: what takes back all that they were asked for.
pub(super) fn plan(found: &Found, wanted: Option<&Wanted>) -> Plan {
    let mut plan = Plan::default();
    let find = |name: &str| {
        found
            .chains
            .iter()
            .find(|chain| (chain.family, chain.table.as_str(), chain.name.as_str()) == (2, "filter", name))
    };
    let (user, forward, input) = (find("DOCKER-USER"), find("FORWARD"), find("INPUT"));
    let of = |chain: Option<&Chain>| chain.map(|chain| chain.ours.clone());
    plan.iptables(Way::Tables, &of(user), &of(forward), &of(input), wanted);
    if let Some(legacy) = &found.legacy {
        plan.iptables(Way::Legacy, &legacy.user, &Some(legacy.forward.clone()), &Some(legacy.input.clone()), wanted);
    }
    let firewalld: Vec<&Chain> = found.chains.iter().filter(|chain| chain.table == FIREWALLD).collect();
    if !firewalld.is_empty() {
        plan.firewalld(firewalld.iter().any(|chain| chain.names_ours), wanted);
    }
    if wanted.is_some() {
        plan.others(found);
    }
    plan
}

impl Plan {
    fn iptables(
        &mut self,
        way: Way,
        user: &Option<BTreeSet<Accept>>,
        forward: &Option<BTreeSet<Accept>>,
        input: &Option<BTreeSet<Accept>>,
        wanted: Option<&Wanted>,
    ) {
        let through = wanted.map(|_| Accept::THROUGH.to_vec()).unwrap_or_default();
        // Docker keeps what users put there, and nothing comes before it.
        let (for_user, for_forward) = if user.is_some() { (through, Vec::new()) } else { (Vec::new(), through) };
        let mut inside = Vec::new();
        if let Some(wanted) = wanted {
            inside.push(Accept::Vxlan(wanted.vxlan_port));
            if wanted.encrypts {
                inside.extend([Accept::Wireguard, Accept::Encrypted]);
            }
        }
        for (name, have, want) in
            [("DOCKER-USER", user, for_user), ("FORWARD", forward, for_forward), ("INPUT", input, inside)]
        {
            let Some(have) = have else { continue };
            let new = want.iter().filter(|accept| !have.contains(accept));
            self.steps.extend(new.map(|accept| Step::Rule { way, insert: true, chain: name, accept: *accept }));
            let old = have.iter().filter(|accept| !want.contains(accept));
            self.steps.extend(old.map(|accept| Step::Rule { way, insert: false, chain: name, accept: *accept }));
        }
    }

    fn firewalld(&mut self, is_asked: bool, wanted: Option<&Wanted>) {
        let verb = if wanted.is_some() { "add" } else { "remove" };
        if is_asked == wanted.is_some() {
            return;
        }
        let mut ask = |zone, what: String| self.steps.push(Step::Firewalld { zone, what });
        if let Some(wanted) = wanted {
            ask(None, format!("--add-port={}/udp", wanted.vxlan_port));
        }
        ask(None, format!("--{verb}-port={WIREGUARD_PORT}/udp"));
        for link in ["rc-mesh", "rc-wg", "rg-+"] {
            ask(Some("trusted"), format!("--{verb}-interface={link}"));
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
