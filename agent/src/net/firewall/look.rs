//! What other programs have in the kernel's packet filter.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use super::plan::{Accept, Chain, FIREWALLD, Found, Hook, Legacy, TABLE, Way};
use crate::net::netlink::Error;
use crate::net::netlink::message::{Attributes, Batch, Message, Tolerate};
use crate::net::netlink::socket::{Protocol, Socket};

/// `NLM_F_DUMP`.
const DUMP: u16 = 0x300;
const GET_CHAIN: u16 = 0xa04;
const GET_RULE: u16 = 0xa07;
/// Families of addresses, as nf_tables numbers them.
const INET: u8 = 1;
const IPV4: u8 = 2;

/// Looks.
pub(super) fn look() -> Result<Found, Error> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let mut request = Batch::new();
    request.begin(GET_CHAIN, DUMP, Tolerate::Nothing, &[0; 4]);
    let mut chains = socket.list(&request, chain)?;
    for chain in &mut chains {
        let mut request = Batch::new();
        request.begin(GET_RULE, DUMP, Tolerate::Nothing, &[chain.family, 0, 0, 0]);
        request.text(1, &chain.table).text(2, &chain.name);
        let (mut ours, mut names_ours) = (BTreeSet::new(), false);
        socket.list(&request, |message| {
            ours.extend(Accept::find(message.body));
            names_ours |= message.body.windows(3).any(|window| window == b"rg-");
            None::<()>
        })?;
        (chain.ours, chain.names_ours) = (ours, names_ours);
    }
    Ok(Found { chains, legacy: legacy() })
}

/// The chains that matter: those that judge what comes in and goes through, and Docker's for users.
fn chain(message: &Message<'_>) -> Option<Chain> {
    const DROP: u32 = 0;
    let family = *message.body.first().filter(|family| matches!(**family, INET | IPV4))?;
    let attributes = message.attributes(4);
    let (table, name) = (attributes.get(1)?.text(), attributes.get(3)?.text());
    if table == TABLE {
        return None;
    }
    let hook = attributes.get(4).and_then(|hook| hook_of(hook.nested()));
    let is_dockers = family == IPV4 && (table, name) == ("filter", "DOCKER-USER");
    if hook.is_none() && !is_dockers && table != FIREWALLD {
        return None;
    }
    let drops = attributes.get(5).and_then(|policy| policy.be32()) == Some(DROP);
    let (table, name) = (table.to_owned(), name.to_owned());
    Some(Chain { family, table, name, hook, drops, ours: BTreeSet::new(), names_ours: false })
}

fn hook_of(hook: Attributes<'_>) -> Option<Hook> {
    match hook.get(1)?.be32()? {
        1 => Some(Hook::Input),
        2 => Some(Hook::Forward),
        _ => None,
    }
}

/// What the older packet filter has: only its program can tell. None if it is not used.
fn legacy() -> Option<Legacy> {
    let names = fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
    if !names.lines().any(|name| name == "filter") {
        return None;
    }
    let list = |chain: &str| {
        let mut command = Command::new(Way::Legacy.program());
        let output = command.args(["-w", "5", "-S", chain]).stderr(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let ours = |text: String| text.lines().flat_map(|line| Accept::find(line.as_bytes())).collect();
    let user = list("DOCKER-USER").map(ours);
    let (forward, input) = (list("FORWARD").unwrap_or_default(), list("INPUT").unwrap_or_default());
    Some(Legacy { user, forward: ours(forward), input: ours(input) })
}
