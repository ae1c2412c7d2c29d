//! Rules of a plan as nf_tables has them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use racimo_common::net::mac;
use racimo_common::object::Protocol;

use super::{Fault, doing};
use crate::net::netlink;
use crate::net::netlink::nft::{self, Base, ESTABLISHED, Hook, Key, NEW, Nft, RELATED, Rule, SetKind, Value};
use crate::net::plan::board::{self, Board};
use crate::net::plan::missing::Found;
use crate::net::plan::rule::{self, At, Backends, Device, Step};
use crate::net::plan::task::Attach;
use crate::net::plan::{Peer, Published, TABLE};

/// Addresses of boards.
const PEERS: &str = "peers";
/// Published ports.
const PUBLISHED: &str = "pub";
/// Virtual addresses.
const VIRTUAL: &str = "vips";
/// Marks of boards, by the hardware addresses of their gateways.
const ORIGIN: &str = "origin";
/// How the names of published ports' chains begin.
const PORT_CHAIN: &str = "p_";
/// How the names of virtual addresses' chains begin.
const VIRTUAL_CHAIN: &str = "v_";

fn port_chain((protocol, port): Published) -> String {
    format!("{PORT_CHAIN}{protocol}_{port}")
}

fn virtual_chain(address: Ipv4Addr) -> String {
    format!("{VIRTUAL_CHAIN}{address}")
}

/// Changes of ports or virtual addresses that are done together.
pub(super) struct Transaction(nft::Transaction<'static>);

impl Transaction {
    pub(super) fn new() -> Self {
        Self(nft::Transaction::new(TABLE))
    }

    pub(super) fn publish(&mut self, port: Published, to: Option<&Backends>) {
        let (protocol, number) = port;
        self.balance(PUBLISHED, Key::port(protocol, number), &port_chain(port), to);
    }

    pub(super) fn virtual_address(&mut self, address: Ipv4Addr, to: Option<&Backends>) {
        self.balance(VIRTUAL, Key::Address(address), &virtual_chain(address), to);
    }

    fn balance(&mut self, map: &str, key: Key, chain: &str, to: Option<&Backends>) {
        self.0.add_chain(chain);
        self.0.flush_chain(chain);
        // Also before it is deleted: only what is there can be.
        self.0.add_elements(map, [(key, Value::Goto(chain))]);
        match to {
            Some(to) if to.to.len() > crate::limits::NFT_LISTED_ENDPOINTS => {
                if to.keeps_source {
                    self.rule(chain, &[Step::Mark(rule::KEPT_MARK)]);
                }
                self.0.balance(chain, &to.to, |rule| {
                    if let Some(protocol) = to.protocol {
                        rule.protocol(protocol);
                    }
                });
            }
            Some(to) => {
                for rule in to.rules() {
                    self.rule(chain, &rule);
                }
            }
            None => {
                self.0.delete_elements(map, [key]);
                self.0.delete_chain(chain);
            }
        }
    }

    fn rule(&mut self, chain: &str, steps: &[Step]) {
        self.0.rule(chain, |rule| steps.iter().for_each(|step| write(rule, *step)));
    }

    pub(super) fn run(self, nft: &mut Nft) -> Result<(), Fault> {
        nft.run(self.0).map_err(doing("change the rules of published ports"))
    }
}

fn write(rule: &mut Rule<'_>, step: Step) {
    let name = |device: Device| format!("{}{}", device.name(), if device.is_prefix() { "*" } else { "" });
    match step {
        Step::In(device) => rule.iifname(&name(device), true),
        Step::NotIn(device) => rule.iifname(&name(device), false),
        Step::Out(device) => rule.oifname(&name(device), true),
        Step::NotOut(device) => rule.oifname(&name(device), false),
        Step::From(subnet) => rule.saddr(subnet, true),
        Step::NotFrom(subnet) => rule.saddr(subnet, false),
        Step::To(subnet) => rule.daddr(subnet, true),
        Step::FromPeer => rule.saddr_in(PEERS, true),
        Step::NotFromPeer => rule.saddr_in(PEERS, false),
        Step::Local => rule.daddr_is_local(),
        Step::Protocol(protocol) => rule.protocol(protocol),
        Step::Port(protocol, port) => rule.dport(protocol, port),
        Step::Dnatted => rule.ct_is_dnat(),
        Step::Established => rule.ct_state(ESTABLISHED | RELATED),
        Step::New => rule.ct_state(NEW),
        Step::Reply => rule.ct_is_reply(),
        Step::Marked(mark, equal) => rule.ct_mark(mark, equal),
        Step::OneIn(count) => rule.one_in(count),
        Step::Published => rule.port_verdict(PUBLISHED),
        Step::Virtual => rule.daddr_verdict(VIRTUAL),
        Step::Dnat(address, port) => rule.dnat(address, port),
        Step::Snat(address) => rule.snat(address),
        Step::Masquerade => rule.masquerade(),
        Step::Mark(mark) => rule.set_ct_mark(mark),
        Step::MarkOrigin => rule.set_ct_mark_by_mac(ORIGIN),
        Step::Restore => rule.set_mark_of_ct(),
        Step::Unmark => rule.set_mark(0),
        Step::Untrack => rule.untrack(),
        Step::Accept => rule.accept(),
        Step::Drop => rule.drop(),
        Step::Reset => rule.reject_with_reset(),
        Step::Unreachable => rule.reject_port_unreachable(),
    };
}

/// Makes chains that the kernel calls what they shall be.
fn base_chains(transaction: &mut Transaction, chains: &[rule::Base]) {
    for chain in chains {
        let hook = match chain.hook.hook {
            At::Prerouting => Hook::Prerouting,
            At::Forward => Hook::Forward,
            At::Output => Hook::Output,
            At::Postrouting => Hook::Postrouting,
        };
        let base = Base { nat: chain.hook.kind == "nat", hook, priority: chain.hook.priority };
        transaction.0.add_base_chain(chain.name, base);
        transaction.0.flush_chain(chain.name);
        for rule in &chain.rules {
            transaction.rule(chain.name, rule);
        }
    }
}

/// The board's own chains. What the table held before an upgrade may be of another kind: then it is made anew, and the
/// answer is true.
pub(super) fn board(nft: &mut Nft, board: &Board) -> Result<bool, Fault> {
    let chains = board.chains();
    let write = |anew: bool| {
        let mut transaction = Transaction::new();
        transaction.0.add_table();
        if anew {
            transaction.0.delete_table();
            transaction.0.add_table();
        }
        transaction.0.add_set(PEERS, SetKind::Addresses);
        transaction.0.add_set(PUBLISHED, SetKind::PortVerdicts);
        transaction.0.add_set(ORIGIN, SetKind::MacMarks);
        transaction.0.add_elements(PEERS, [(Key::Address(board.own.address.0), Value::Present)]);
        base_chains(&mut transaction, &chains);
        transaction
    };
    let what = "make the board's rules";
    let is_there = |name: &str| chains.iter().any(|chain| chain.name == name);
    match nft.run(write(false).0) {
        Ok(()) => {
            // Those of what is not wanted any more.
            let found = nft.chains(TABLE).map_err(doing(what))?;
            let mut transaction = Transaction::new();
            for name in board::CHAINS {
                if !is_there(name) && found.iter().any(|found| **found == *name) {
                    transaction.0.flush_chain(name);
                    transaction.0.delete_chain(name);
                }
            }
            nft.run(transaction.0).map_err(doing(what))?;
            Ok(false)
        }
        Err(error @ netlink::Error::Refused { .. }) => {
            log::warn!("the table {TABLE} is made anew: {error}");
            nft.run(write(true).0).map_err(doing(what))?;
            // With the old one went what is published.
            Ok(true)
        }
        Err(error) => Err(doing(what)(error)),
    }
}

/// The rules of a task's own namespace.
pub(super) fn task(nft: &mut Nft, attach: &Attach) -> Result<(), Fault> {
    let mut transaction = Transaction::new();
    transaction.0.add_table();
    if !attach.networks.is_empty() {
        transaction.0.add_set(VIRTUAL, SetKind::AddressVerdicts);
    }
    base_chains(&mut transaction, &attach.chains());
    nft.run(transaction.0).map_err(doing("make the task's rules"))
}

/// Removes the board's table.
pub(super) fn clear(nft: &mut Nft) -> Result<(), Fault> {
    // A kernel without tables has none of ours.
    if !nft.tables().is_ok_and(|tables| tables.iter().any(|table| **table == *TABLE)) {
        return Ok(());
    }
    let mut transaction = Transaction::new();
    transaction.0.add_table();
    transaction.0.delete_table();
    nft.run(transaction.0).map_err(doing("remove the board's rules"))
}

/// The board itself has this address no more.
pub(super) fn left(nft: &mut Nft, address: Ipv4Addr) -> Result<(), Fault> {
    let mut transaction = Transaction::new();
    transaction.0.add_elements(PEERS, [(Key::Address(address), Value::Present)]);
    transaction.0.delete_elements(PEERS, [Key::Address(address)]);
    nft.run(transaction.0).map_err(doing("keep packets from the board's last address out"))
}

pub(super) fn peer(nft: &mut Nft, peer: &Peer, keeps_source: bool) -> Result<(), Fault> {
    let mut transaction = Transaction::new();
    transaction.0.add_elements(PEERS, peer_keys(peer, true).map(|key| (key, Value::Present)));
    if keeps_source {
        transaction.0.add_elements(ORIGIN, [origin(peer)]);
    }
    nft.run(transaction.0).map_err(doing("let a board's packets in"))
}

/// Its address, and that inside the encryption.
fn peer_keys(peer: &Peer, address: bool) -> impl Iterator<Item = Key> {
    let own = address.then_some(peer.address);
    own.into_iter().chain([racimo_common::wire::encryption_address(peer.subnet)]).map(Key::Address)
}

fn origin(peer: &Peer) -> (Key, Value<'static>) {
    (Key::Mac(mac(peer.gateway())), Value::Mark(peer.origin))
}

pub(super) fn peer_gone(nft: &mut Nft, peer: &Peer, address: bool) -> Result<(), Fault> {
    let mut transaction = Transaction::new();
    let keys: Vec<Key> = peer_keys(peer, address).collect();
    transaction.0.add_elements(PEERS, keys.iter().map(|key| (*key, Value::Present)));
    transaction.0.delete_elements(PEERS, keys);
    transaction.0.add_elements(ORIGIN, [origin(peer)]);
    transaction.0.delete_elements(ORIGIN, [origin(peer).0]);
    nft.run(transaction.0).map_err(doing("keep a board's packets out"))
}

/// Removes what is in the board's table beside this.
pub(super) fn sweep_board(
    nft: &mut Nft,
    board: &Board,
    peers: &[Peer],
    published: &BTreeSet<Published>,
) -> Result<(), Fault> {
    let what = "remove rules that are not wanted any more";
    let mut transaction = Transaction::new();
    transaction.0.flush_set(PEERS);
    let addresses: BTreeSet<Key> = peers.iter().flat_map(|peer| peer_keys(peer, true)).collect();
    let own = [Key::Address(board.own.address.0)];
    let all: BTreeSet<Key> = addresses.into_iter().chain(own).collect();
    transaction.0.add_elements(PEERS, all.into_iter().map(|key| (key, Value::Present)));
    transaction.0.flush_set(ORIGIN);
    if board.keeps_source {
        transaction.0.add_elements(ORIGIN, peers.iter().map(origin));
    }
    let wanted: BTreeSet<String> = published.iter().map(|port| port_chain(*port)).collect();
    for chain in nft.chains(TABLE).map_err(doing(what))? {
        if !wanted.contains(&*chain) {
            if let Some(port) = port_of(&chain) {
                transaction.publish(port, None);
            }
        }
    }
    nft.run(transaction.0).map_err(doing(what))
}

/// Removes what is in a task's table beside these virtual addresses.
pub(super) fn sweep_task(nft: &mut Nft, wanted: &BTreeSet<Ipv4Addr>) -> Result<(), Fault> {
    let what = "remove virtual addresses that are not wanted any more";
    let mut transaction = Transaction::new();
    for chain in nft.chains(TABLE).map_err(doing(what))? {
        let address = chain.strip_prefix(VIRTUAL_CHAIN).and_then(|address| address.parse().ok());
        if let Some(address) = address.filter(|address| !wanted.contains(address)) {
            transaction.virtual_address(address, None);
        }
    }
    nft.run(transaction.0).map_err(doing(what))
}

/// Adds what the board's table has. A published port's chain is used by its rules, and by the map that leads to it.
pub(super) fn look(nft: &mut Nft, found: &mut Found) -> Result<(), Fault> {
    let what = "list rules";
    let keys = nft.elements(TABLE, PUBLISHED, SetKind::PortVerdicts).map_err(doing(what))?;
    let keys: BTreeSet<Key> = keys.into_iter().collect();
    let listed = nft.used_chains(TABLE, |name, uses| {
        if let Some(port) = port_of(name) {
            if uses >= 2 && keys.contains(&Key::port(port.0, port.1)) {
                found.published.insert(port);
            }
        } else {
            found.chains.insert(name.into(), uses);
        }
        None::<()>
    });
    listed.map(drop).map_err(doing(what))
}

/// The port that a chain is for.
fn port_of(chain: &str) -> Option<Published> {
    let (protocol, port) = chain.strip_prefix(PORT_CHAIN)?.split_once('_')?;
    Some((Protocol::named(protocol)?, port.parse().ok()?))
}
