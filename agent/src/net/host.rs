//! The board around the network: what its kernel can, its key, and its other firewalls.
//!
//! In: what the manager told. Out: what the board says of itself, and the device of the encryption. One loop looks every
//! so often, and when something was told.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

use async_channel::{Receiver, Sender};
use racimo_common::object::NodeDescription;
use racimo_common::wire::{NetOwn, TaskNet};
use smol::Timer;

use super::firewall::{Firewall, Wanted};
use super::probe::{Found, probe};
use super::table::Table;
use super::wireguard::{self, Key, Peers};
use crate::limits;

/// Clones are the same.
#[derive(Clone)]
pub struct Host(Rc<Inner>);

struct Inner {
    data: PathBuf,
    run: PathBuf,
    state: RefCell<State>,
    /// Something was told.
    told: (Sender<()>, Receiver<()>),
    /// The description is another one.
    changed: (Sender<()>, Receiver<()>),
}

#[derive(Default)]
struct State {
    found: Found,
    key: Option<Key>,
    /// Why there is no key, or none of the cluster's rotation.
    no_key: Option<String>,
    /// Why there is no device.
    fault: Option<String>,
    /// What other firewalls do not let through.
    firewalls: Vec<String>,
    /// The board's place in the mesh; none: it has none, or was not told yet.
    own: Option<NetOwn>,
    /// The boards that can encrypt.
    peers: Peers,
    /// Whether a network of this board is encrypted.
    encrypts: bool,
    /// Whether the manager has told the whole since the agent started.
    knows: bool,
}

impl Host {
    /// Tries what the kernel can, which takes some milliseconds. `data`: where the key is kept; `run`: where is kept
    /// what other firewalls were asked for.
    pub fn new(data: PathBuf, run: PathBuf) -> Self {
        let found = probe();
        for fault in [&found.no_network, &found.no_encryption].into_iter().flatten() {
            log::warn!("{fault}");
        }
        let host = Self::of(data, run, found);
        host.make_key();
        host
    }

    fn of(data: PathBuf, run: PathBuf, found: Found) -> Self {
        let state = RefCell::new(State { found, ..State::default() });
        let (told, changed) = (async_channel::bounded(1), async_channel::bounded(1));
        Self(Rc::new(Inner { data, run, state, told, changed }))
    }

    /// Takes what concerns it of what the manager told. Of a whole, only the end counts.
    pub fn take(&self, table: &Table) {
        if !table.is_whole() {
            return;
        }
        {
            let mut state = self.0.state.borrow_mut();
            let peers = wireguard::peers(table.peers.values());
            let encrypts = table.networks.values().any(|network| network.encrypted);
            if state.knows && (&state.own, &state.peers, state.encrypts) == (&table.own, &peers, encrypts) {
                return;
            }
            state.own.clone_from(&table.own);
            (state.peers, state.encrypts, state.knows) = (peers, encrypts, true);
        }
        // One that waits already is as good.
        let _ = self.0.told.0.try_send(());
    }

    /// Adds what the board says of itself.
    pub fn describe(&self, description: &mut NodeDescription) {
        let state = self.0.state.borrow();
        description.no_network.clone_from(&state.found.no_network);
        description.no_encryption = state.no_encryption();
        if let Some(key) = state.key.as_ref().filter(|_| description.no_encryption.is_none()) {
            (description.wireguard_key, description.key_epoch) = (Some(key.public), key.epoch);
            description.degraded.extend(state.no_key.clone());
        }
        description.degraded.extend(state.fault.iter().chain(&state.firewalls).cloned());
    }

    /// Why a task cannot have its network on this board, whatever is tried; none: it can.
    pub fn refuses(&self, net: &TaskNet, table: &Table) -> Option<String> {
        let state = self.0.state.borrow();
        if let Some(why) = &state.found.no_network {
            return Some(format!("this board cannot give tasks a network: {why}"));
        }
        let why = state.no_encryption()?;
        let mut networks = net.networks.iter().filter_map(|(id, _)| table.networks.get(id));
        let encrypted = networks.find(|network| network.encrypted)?;
        Some(format!("this board cannot encrypt network {}: {why}", encrypted.name))
    }

    /// Waits until [`describe`](Self::describe) says something else.
    pub async fn changed(&self) {
        // The sender lives as long as this.
        let _ = self.0.changed.1.recv().await;
    }

    /// Looks, until dropped.
    pub async fn drive(self) {
        let mut firewall = Firewall::new(&self.0.run);
        let mut is_late = false;
        loop {
            let mut changed = is_late && self.look_again();
            changed |= self.make_key();
            changed |= self.encrypt();
            let wanted = {
                let state = self.0.state.borrow();
                // Nothing is taken back before it is known that nothing is wanted.
                let wanted = |own: &NetOwn| Wanted { vxlan_port: own.vxlan_port, encrypts: state.encrypts };
                state.knows.then(|| state.own.as_ref().map(wanted))
            };
            if let Some(wanted) = wanted {
                let told;
                (firewall, told) = smol::unblock(move || {
                    let told = firewall.keep(wanted.as_ref());
                    (firewall, told)
                })
                .await;
                if told {
                    self.0.state.borrow_mut().firewalls = firewall.degraded().to_vec();
                    changed = true;
                }
            }
            if changed {
                // One that waits already is as good.
                let _ = self.0.changed.0.try_send(());
            }
            let later = async {
                Timer::after(limits::FIREWALL_EVERY).await;
                true
            };
            let told = async {
                let _ = self.0.told.1.recv().await;
                false
            };
            is_late = smol::future::or(told, later).await;
        }
    }

    /// Takes back what other firewalls were asked for, and the device of the encryption. For an agent that stops.
    pub async fn clear(&self) {
        self.take(&Table::default());
        self.encrypt();
        let mut firewall = Firewall::new(&self.0.run);
        smol::unblock(move || firewall.keep(None)).await;
    }

    /// Tries what the kernel cannot, again: somebody may have mended it.
    fn look_again(&self) -> bool {
        if self.0.state.borrow().found.no_network.is_none() {
            return false;
        }
        let found = probe();
        let mut state = self.0.state.borrow_mut();
        let changed = found != state.found;
        state.found = found;
        changed
    }

    /// Makes sure of a key of the cluster's rotation. True: what is said of it changed.
    fn make_key(&self) -> bool {
        let mut state = self.0.state.borrow_mut();
        let epoch = state.own.as_ref().map_or(0, |own| own.key_epoch);
        if state.found.no_encryption.is_some() || state.key.as_ref().is_some_and(|key| key.epoch >= epoch) {
            return false;
        }
        match Key::load(&self.0.data, epoch, &ring::rand::SystemRandom::new()) {
            Ok(key) => {
                (state.key, state.no_key) = (Some(key), None);
                true
            }
            Err(error) => {
                let why = Some(format!("no new key for encrypted networks can be made: {error}"));
                if state.no_key != why {
                    log::warn!("{}", why.as_deref().unwrap_or_default());
                }
                why != std::mem::replace(&mut state.no_key, why.clone())
            }
        }
    }

    /// Makes sure of the device, if a network needs it; else that there is none. True: what is said of it changed.
    fn encrypt(&self) -> bool {
        let mut state = self.0.state.borrow_mut();
        if !state.knows || state.found.no_encryption.is_some() {
            return false;
        }
        let done = match (&state.own, &state.key) {
            (Some(own), Some(key)) if state.encrypts => wireguard::ensure(own, key, &state.peers),
            (Some(_), None) if state.encrypts => return false,
            _ => wireguard::remove(),
        };
        let fault = done.err().map(|error| format!("encrypted networks cannot be reached: {error}"));
        if fault == state.fault {
            return false;
        }
        if let Some(fault) = &fault {
            log::warn!("{fault}");
        }
        state.fault = fault;
        true
    }
}

impl State {
    /// Why the board cannot encrypt; none: it can, perhaps with a key of an older rotation.
    fn no_encryption(&self) -> Option<String> {
        self.found.no_encryption.clone().or_else(|| self.no_key.clone().filter(|_| self.key.is_none()))
    }
}

#[cfg(test)]
mod tests {
    use racimo_common::object::WireguardKey;
    use racimo_common::wire::{NetNetwork, NetPeer};

    use super::*;
    use crate::net::testing::{network, own, peer};

    #[test]
    fn a_board_without_wireguard_says_so_and_has_no_key() {
        let data = tempfile::tempdir().unwrap();
        let host = |found| Host::of(data.path().to_owned(), data.path().to_owned(), found);
        let mut said = NodeDescription::default();
        let lacks = host(Found { no_network: None, no_encryption: Some("no wireguard".into()) });
        assert!(!lacks.make_key());
        lacks.describe(&mut said);
        assert_eq!((said.no_encryption.as_deref(), said.wireguard_key), (Some("no wireguard"), None));
        assert_eq!(std::fs::read_dir(data.path()).unwrap().count(), 0);

        // Its tasks may have networks, but no encrypted ones.
        let net = TaskNet {
            networks: vec![(network(1).id, std::net::Ipv4Addr::new(10, 0, 1, 2).into())],
            ..TaskNet::default()
        };
        let mut table = Table::default();
        tell_network(&mut table, false);
        assert_eq!(lacks.refuses(&net, &table), None);
        tell_network(&mut table, true);
        assert_eq!(
            lacks.refuses(&net, &table).as_deref(),
            Some("this board cannot encrypt network net1: no wireguard")
        );
        let none = host(Found { no_network: Some("no vxlan".into()), no_encryption: None });
        let refused = none.refuses(&TaskNet::default(), &Table::default());
        assert_eq!(refused.as_deref(), Some("this board cannot give tasks a network: no vxlan"));

        let able = host(Found::default());
        assert_eq!(able.refuses(&net, &table), None);
        assert!(able.make_key() && !able.make_key());
        able.describe(&mut said);
        let first = said.wireguard_key.take();
        assert!(said.no_encryption.is_none() && first.is_some() && said.key_epoch == 0);
        // The cluster rotates.
        able.take(&table_of(3));
        assert!(able.make_key());
        able.describe(&mut said);
        assert!(said.key_epoch == 3 && said.wireguard_key.is_some() && said.wireguard_key != first);
    }

    fn tell_network(table: &mut Table, encrypted: bool) {
        let network = NetNetwork { encrypted, ..network(1) };
        table.networks.insert(network.id, network);
    }

    fn table_of(key_epoch: u32) -> Table {
        let mut table = Table::default();
        table.own = Some(NetOwn { key_epoch, ..own(1) });
        table
    }

    #[test]
    fn what_does_not_concern_it_does_not_wake_it() {
        let data = tempfile::tempdir().unwrap();
        let host = Host::of(data.path().to_owned(), data.path().to_owned(), Found::default());
        let wakes = |table: &Table| {
            host.take(table);
            host.0.told.1.try_recv().is_ok()
        };
        // Also that there is nothing is told once.
        assert!(wakes(&Table::default()) && !wakes(&Table::default()));
        let mut table = table_of(0);
        assert!(wakes(&table) && !wakes(&table));
        tell_network(&mut table, false);
        assert!(!wakes(&table));
        tell_network(&mut table, true);
        assert!(wakes(&table) && !wakes(&table));
        let peer = peer(2);
        let node = peer.node;
        // One without a key is none of the encryption's.
        table.peers.insert(node, peer.clone());
        assert!(!wakes(&table));
        table.peers.insert(node, NetPeer { key: Some(WireguardKey::new([7; 32])), ..peer });
        assert!(wakes(&table) && !wakes(&table));
    }

    #[test]
    fn a_board_that_can_keep_no_key_cannot_encrypt() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join("data");
        let host = Host::of(path.clone(), path.clone(), Found::default());
        let said = || {
            let mut said = NodeDescription::default();
            host.describe(&mut said);
            (said.no_encryption, said.wireguard_key.map(|_| said.key_epoch), said.degraded)
        };
        assert!(host.make_key() && !host.make_key(), "what stays is told once");
        let why = "no new key for encrypted networks can be made: No such file or directory (os error 2)".to_owned();
        assert_eq!(said(), (Some(why.clone()), None, Vec::new()));
        std::fs::create_dir(&path).unwrap();
        assert!(host.make_key() && !host.make_key());
        assert_eq!(said(), (None, Some(0), Vec::new()));
        // With the key of an older rotation it can, still.
        std::fs::remove_dir_all(&path).unwrap();
        host.take(&table_of(2));
        assert!(host.make_key() && !host.make_key());
        assert_eq!(said(), (None, Some(0), vec![why]));
        std::fs::create_dir(&path).unwrap();
        assert!(host.make_key() && !host.make_key());
        assert_eq!(said(), (None, Some(2), Vec::new()));
    }
}
