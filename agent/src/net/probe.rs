//! What this kernel can: tried for real, in a network namespace that is gone a moment later.
//!
//! In: the kernel. Out: why tasks cannot have a network here, or why networks cannot be encrypted, with the missing
//! module and the way to mend it. What is a module is loaded by being used.

use std::fmt;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::thread;

use racimo_common::net::{MESH_VNI, MTU, VXLAN_PORT};

use super::netlink::Error;
use super::netlink::message::{Batch, DUMP, Tolerate};
use super::netlink::nft::{self, Base, Hook, Nft, Rule, SetKind, Transaction};
use super::netlink::route::{NewKind, NewLink, Route, Vxlan};
use super::netlink::socket::{Protocol, Socket};
use crate::limits;
use crate::sys::net::new_network;

/// What a board cannot do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Why it cannot give tasks a network; none: it can.
    pub no_network: Option<String>,
    /// Why it cannot encrypt networks; none: it can.
    pub no_encryption: Option<String>,
}

/// A part of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Feature {
    Vxlan,
    Veth,
    Bridge,
    Tables,
    Nat,
    Chance,
    AddressType,
    Masquerade,
    Reject,
    States,
    Connections,
    Wireguard,
}

impl Feature {
    /// Its module, and what it is called where a kernel is configured.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Vxlan => ("vxlan", "VXLAN"),
            Self::Veth => ("veth", "VETH"),
            Self::Bridge => ("bridge", "BRIDGE"),
            Self::Tables => ("nf_tables", "NF_TABLES"),
            Self::Nat => ("nft_chain_nat", "NFT_NAT"),
            Self::Chance => ("nft_numgen", "NFT_NUMGEN"),
            Self::AddressType => ("nft_fib_ipv4", "NFT_FIB_IPV4"),
            Self::Masquerade => ("nft_masq", "NFT_MASQ"),
            Self::Reject => ("nft_reject_ipv4", "NFT_REJECT_IPV4"),
            Self::States => ("nft_ct", "NFT_CT"),
            Self::Connections => ("nf_conntrack_netlink", "NF_CT_NETLINK"),
            Self::Wireguard => ("wireguard", "WIREGUARD"),
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (module, option) = self.names();
        write!(f, "{module} (CONFIG_{option})")
    }
}

/// What was found out.
#[derive(Debug, Default)]
struct Tried {
    /// Why nothing could be tried.
    refused: Option<String>,
    /// What does not work.
    missing: Vec<Feature>,
    /// The kernel's own words about the first of them.
    words: Option<String>,
}

/// Tries everything; takes some milliseconds.
pub fn probe() -> Found {
    let tried = thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(limits::NAMESPACE_STACK).spawn_scoped(scope, try_all);
        thread.and_then(|thread| thread.join().map_err(|_| io::Error::other("the probe failed")))
    });
    judge(&tried.unwrap_or_else(|error| Tried { refused: Some(error.to_string()), ..Tried::default() }))
}

/// Joins it into sentences.
fn judge(tried: &Tried) -> Found {
    if let Some(why) = &tried.refused {
        let why = format!("tasks' networks cannot be tried: {why}; run the agent as root, outside of a container");
        return Found { no_network: Some(why.clone()), no_encryption: Some(why) };
    }
    let (encryption, network): (Vec<Feature>, Vec<Feature>) =
        tried.missing.iter().partition(|feature| **feature == Feature::Wireguard);
    let sentence = |missing: &[Feature]| {
        let names: Vec<String> = missing.iter().map(Feature::to_string).collect();
        let words = tried.words.as_deref().map(|words| format!(": {words}")).unwrap_or_default();
        (!missing.is_empty()).then(|| {
            format!(
                "the kernel has no {}{words}; restart the board if its kernel was updated, else install its modules or \
                 a kernel with them",
                names.join(", ")
            )
        })
    };
    let no_network = sentence(&network);
    let no_encryption = sentence(&encryption).or_else(|| no_network.clone());
    Found { no_network, no_encryption }
}

/// On a thread that ends with its namespace.
fn try_all() -> Tried {
    let mut tried = Tried::default();
    if let Err(error) = new_network().and_then(|()| fs::write("/proc/sys/net/ipv4/ip_forward", "1")) {
        tried.refused = Some(error.to_string());
        return tried;
    }
    match Route::open() {
        Ok(mut route) => links(&mut route, &mut tried),
        Err(error) => tried.refused = Some(error.to_string()),
    }
    match Nft::open() {
        Ok(mut nft) => tables(&mut nft, &mut tried),
        Err(error) => tried.note(Feature::Tables, &error),
    }
    if let Err(error) = connections() {
        tried.note(Feature::Connections, &error);
    }
    tried
}

impl Tried {
    fn note(&mut self, feature: Feature, error: &Error) {
        self.missing.push(feature);
        // That it is not there is what is said already.
        let plain = matches!(error.errno(), Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT));
        if !plain && self.words.is_none() {
            self.words = Some(error.to_string());
        }
    }
}

fn links(route: &mut Route, tried: &mut Tried) {
    let vxlan = Vxlan { vni: MESH_VNI, port: VXLAN_PORT, local: Ipv4Addr::LOCALHOST, proxy: true };
    for (feature, name, kind) in [
        (Feature::Vxlan, "vxlan", NewKind::Vxlan(vxlan)),
        (Feature::Veth, "veth", NewKind::Veth { peer: "peer", mac: None, namespace: None }),
        (Feature::Bridge, "bridge", NewKind::Bridge),
        (Feature::Wireguard, "wireguard", NewKind::Wireguard),
    ] {
        route.add_link(&NewLink { name, mac: None, mtu: u32::from(MTU), up: None, master: None, kind });
        if let Err(error) = route.run() {
            tried.note(feature, &error);
        }
    }
}

/// Writes a rule.
type Write = fn(&mut Rule<'_>);

/// Each feature is a transaction, and has a table.
fn tables(nft: &mut Nft, tried: &mut Tried) {
    const PROBE: &str = "probe";
    let mut attempt = |feature: Feature, base: Option<Base>, fill: &dyn Fn(&mut Transaction<'_>)| {
        let mut transaction = Transaction::new(feature.names().0);
        transaction.add_table();
        if let Some(base) = base {
            transaction.add_base_chain(PROBE, base);
        }
        fill(&mut transaction);
        match nft.run(transaction) {
            Ok(()) => true,
            Err(error) => {
                tried.note(feature, &error);
                false
            }
        }
    };
    let rule = |write: Write| move |transaction: &mut Transaction<'_>| transaction.rule(PROBE, write);
    let filter = Some(Base { nat: false, hook: Hook::Prerouting, priority: nft::RAW });
    let nat = |hook| Some(Base { nat: true, hook, priority: nft::DSTNAT });
    let sets = |transaction: &mut Transaction<'_>| transaction.add_set("ports", SetKind::PortVerdicts);
    if !attempt(Feature::Tables, filter, &sets) {
        return;
    }
    let gateway = |rule: &mut Rule<'_>| {
        rule.dnat(Ipv4Addr::LOCALHOST, Some(1));
    };
    if attempt(Feature::Nat, nat(Hook::Output), &rule(gateway)) {
        let masquerade = |rule: &mut Rule<'_>| {
            rule.masquerade();
        };
        attempt(Feature::Masquerade, nat(Hook::Postrouting), &rule(masquerade));
    }
    let conditions: [(Feature, Write); 3] = [
        (Feature::Chance, |rule| {
            rule.one_in(2);
        }),
        (Feature::AddressType, |rule| {
            rule.daddr_is_local();
        }),
        (Feature::States, |rule| {
            rule.ct_state(nft::ESTABLISHED);
        }),
    ];
    for (feature, condition) in conditions {
        attempt(feature, filter, &rule(condition));
    }
    let input = Some(Base { nat: false, hook: Hook::Input, priority: nft::FILTER });
    let reject = |rule: &mut Rule<'_>| {
        rule.reject_port_unreachable();
    };
    attempt(Feature::Reject, input, &rule(reject));
}

/// Lists connections; there are none.
fn connections() -> Result<(), Error> {
    const LIST: u16 = 0x101;
    let mut request = Batch::new();
    request.begin(LIST, DUMP, Tolerate::Nothing, &[2, 0, 0, 0]);
    Socket::open(Protocol::Netfilter)?.list(&request, |_| None::<()>).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(tried: Tried, no_network: Option<&str>, no_encryption: Option<&str>) {
        let found = judge(&tried);
        assert_eq!((found.no_network.as_deref(), found.no_encryption.as_deref()), (no_network, no_encryption));
    }

    #[test]
    fn what_is_missing_is_named_with_the_way_to_mend_it() {
        check(Tried::default(), None, None);
        let wireguard = "the kernel has no wireguard (CONFIG_WIREGUARD); restart the board if its kernel was updated, \
                         else install its modules or a kernel with them";
        check(Tried { missing: vec![Feature::Wireguard], ..Tried::default() }, None, Some(wireguard));
        let vxlan = "the kernel has no vxlan (CONFIG_VXLAN), nft_numgen (CONFIG_NFT_NUMGEN): no memory; restart the \
                     board if its kernel was updated, else install its modules or a kernel with them";
        let missing = vec![Feature::Vxlan, Feature::Chance];
        check(Tried { missing, words: Some("no memory".into()), refused: None }, Some(vxlan), Some(vxlan));
        let refused = "tasks' networks cannot be tried: Operation not permitted; run the agent as root, outside of a \
                       container";
        let tried = Tried { refused: Some("Operation not permitted".into()), ..Tried::default() };
        check(tried, Some(refused), Some(refused));
    }
}
