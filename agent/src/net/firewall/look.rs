//! What other programs have in the kernel's packet filter.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use super::plan::{Accept, Chain, FIREWALLD, Found, Hook, Legacy, TABLE, Way, is_dockers};
use crate::net::netlink::Error;
use crate::net::netlink::message::{Attributes, Batch, DUMP, Message, Tolerate};
use crate::net::netlink::route::{LinkKind, Route};
use crate::net::netlink::socket::{Protocol, Socket};

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
        let rules = socket.list(&request, |message| Some(Seen::of(message)))?;
        chain.ends = rules.last().filter(|rule| rule.drops_all).map(|_| rules.len());
        chain.names_ours = rules.iter().any(|rule| rule.names_ours);
        chain.ours = rules.into_iter().flat_map(|rule| rule.ours).collect();
    }
    let links = Route::open()?.links()?;
    let bridges = links.iter().filter(|link| link.kind == LinkKind::Bridge && is_dockers(&link.name));
    Ok(Found { chains, legacy: legacy(), bridges: bridges.map(|link| link.name.to_string()).collect() })
}

/// What matters of a rule.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// What it is, if it is ours.
    ours: BTreeSet<Accept>,
    /// Whether it compares a link's name with that of tasks' links.
    names_ours: bool,
    /// Whether it drops all that comes to it.
    drops_all: bool,
}

impl Seen {
    fn of(message: &Message<'_>) -> Self {
        const EXPRESSIONS: u16 = 4;
        let mut seen = Self { ours: Accept::find(message.body), ..Self::default() };
        let Some(expressions) = message.attributes(4).get(EXPRESSIONS) else { return seen };
        let (mut is_link, mut has_condition) = (false, false);
        for expression in expressions.nested() {
            let (Some(name), data) = (expression.nested().get(1), expression.nested().get(2)) else { continue };
            let inside = data.map_or(Attributes(&[]), |data| data.nested());
            match name.text() {
                "meta" => {
                    // The name of the link that a packet comes from, or goes to.
                    is_link = inside.get(2).and_then(|key| key.be32()).is_some_and(|key| matches!(key, 6 | 7));
                    has_condition = true;
                }
                "cmp" => {
                    let value = inside.get(3).and_then(|data| data.nested().get(1));
                    seen.names_ours |= is_link && value.is_some_and(|value| value.value.starts_with(b"rg-"));
                }
                "immediate" => {
                    let verdict = inside.get(2).and_then(|data| data.nested().get(2));
                    let code = verdict.and_then(|verdict| verdict.nested().get(1)?.be32());
                    seen.drops_all = code == Some(0);
                }
                "reject" => seen.drops_all = true,
                "target" => seen.drops_all = inside.get(1).is_some_and(|name| name.text() == "REJECT"),
                "match" => has_condition |= inside.get(1).is_none_or(|name| name.text() != "comment"),
                "counter" | "log" => {}
                _ => has_condition = true,
            }
        }
        seen.drops_all &= !has_condition;
        seen
    }
}

/// The chains that matter: those that judge what comes in and goes through.
fn chain(message: &Message<'_>) -> Option<Chain> {
    const DROP: u32 = 0;
    let family = *message.body.first().filter(|family| matches!(**family, INET | IPV4))?;
    let attributes = message.attributes(4);
    let (table, name) = (attributes.get(1)?.text(), attributes.get(3)?.text());
    if table == TABLE {
        return None;
    }
    let hook = attributes.get(4).and_then(|hook| hook_of(hook.nested()));
    if hook.is_none() && table != FIREWALLD {
        return None;
    }
    let drops = attributes.get(5).and_then(|policy| policy.be32()) == Some(DROP);
    let (table, name) = (table.to_owned(), name.to_owned());
    Some(Chain { family, table, name, hook, drops, ours: BTreeSet::new(), names_ours: false, ends: None })
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
    let ours = |text: &str| text.lines().flat_map(|line| Accept::find(line.as_bytes())).collect();
    let (forward, input) = (list("FORWARD").unwrap_or_default(), list("INPUT").unwrap_or_default());
    Some(Legacy { forward: ours(&forward), input: ours(&input), ends: end(&forward) })
}

/// The number of the last rule of a chain, as iptables shows it, if it drops all that comes to it.
fn end(text: &str) -> Option<usize> {
    let rules = || text.lines().filter(|line| line.starts_with("-A "));
    let mut words = rules().next_back()?.split(' ').skip(2);
    let drops = words.next() == Some("-j") && matches!(words.next(), Some("DROP" | "REJECT"));
    drops.then(|| rules().count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::netlink::message::Messages;

    /// What a rule of these expressions is seen as.
    fn seen(fill: impl FnOnce(&mut Batch)) -> Seen {
        let mut batch = Batch::new();
        batch.begin(GET_RULE, 0, Tolerate::Nothing, &[INET, 0, 0, 0]).nest(4, fill);
        Seen::of(&Messages(batch.bytes()).next().unwrap())
    }

    fn expression(rule: &mut Batch, name: &str, fill: impl FnOnce(&mut Batch)) {
        rule.nest(1, |element| {
            element.text(1, name).nest(2, fill);
        });
    }

    /// That a kind of data is so.
    fn is(rule: &mut Batch, key: u32, value: &[u8]) {
        expression(rule, "meta", |meta| {
            meta.be32(2, key);
        });
        expression(rule, "cmp", |cmp| {
            cmp.nest(3, |data| {
                data.attribute(1, value);
            });
        });
    }

    fn verdict(rule: &mut Batch, code: u32) {
        expression(rule, "immediate", |immediate| {
            immediate.nest(2, |data| {
                data.nest(2, |verdict| {
                    verdict.be32(1, code);
                });
            });
        });
    }

    #[test]
    fn a_rule_names_tasks_links_only_where_a_links_name_is() {
        for key in [6, 7] {
            assert!(seen(|rule| is(rule, key, b"rg-")).names_ours);
            assert!(seen(|rule| is(rule, key, b"rg-1\0\0\0\0\0\0\0\0\0\0\0\0")).names_ours);
            assert!(!seen(|rule| is(rule, key, b"org-lan\0\0\0\0\0\0\0\0\0")).names_ours);
        }
        // Something else that has these bytes.
        assert!(!seen(|rule| is(rule, 3, b"rg-")).names_ours);
    }

    #[test]
    fn a_chain_ends_with_a_rule_that_drops_all() {
        assert!(seen(|rule| verdict(rule, 0)).drops_all);
        assert!(!seen(|rule| verdict(rule, 1)).drops_all);
        let not_all = |rule: &mut Batch| {
            is(rule, 6, b"eth0\0");
            verdict(rule, 0);
        };
        assert!(!seen(not_all).drops_all);
        for (text, want) in [
            ("-P FORWARD DROP", None),
            ("-P FORWARD ACCEPT\n-A FORWARD -i a -j ACCEPT\n-A FORWARD -j DROP", Some(2)),
            ("-P FORWARD ACCEPT\n-A FORWARD -j REJECT --reject-with icmp-host-prohibited\n", Some(1)),
            ("-P FORWARD ACCEPT\n-A FORWARD -j DROP\n-A FORWARD -j LOG", None),
            ("-P FORWARD ACCEPT\n-A FORWARD -i a -j DROP", None),
        ] {
            assert_eq!(end(text), want, "{text}");
        }
    }
}
