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
    /// Why there is no key, or no device.
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
    /// Tries what the kernel can, which takes some milliseconds. `data`: where the key is kept.
    pub fn new(data: PathBuf) -> Self {
        let found = probe();
        for fault in [&found.no_network, &found.no_encryption].into_iter().flatten() {
            log::warn!("{fault}");
        }
        let state = RefCell::new(State { found, ..State::default() });
        let host =
            Self(Rc::new(Inner { data, state, told: async_channel::bounded(1), changed: async_channel::bounded(1) }));
        host.make_key();
        host
    }

    /// Takes what concerns it of what the manager told. Of a whole, only the end counts.
    pub fn take(&self, table: &Table) {
        if !table.is_whole() {
            return;
        }
        {
            let mut state = self.0.state.borrow_mut();
            state.own.clone_from(&table.own);
            state.peers = wireguard::peers(table.peers.values());
            state.encrypts = table.networks.values().any(|network| network.encrypted);
            state.knows = true;
        }
        // One that waits already is as good.
        let _ = self.0.told.0.try_send(());
    }

    /// Adds what the board says of itself.
    pub fn describe(&self, description: &mut NodeDescription) {
        let state = self.0.state.borrow();
        description.no_network.clone_from(&state.found.no_network);
        description.no_encryption.clone_from(&state.found.no_encryption);
        if let Some(key) = state.key.as_ref().filter(|_| state.found.no_encryption.is_none()) {
            (description.wireguard_key, description.key_epoch) = (Some(key.public), key.epoch);
        }
        description.degraded.extend(state.fault.iter().chain(&state.firewalls).cloned());
    }

    /// Why a task cannot have its network on this board, whatever is tried; none: it can.
    pub fn refuses(&self, net: &TaskNet, table: &Table) -> Option<String> {
        let found = &self.0.state.borrow().found;
        if let Some(why) = &found.no_network {
            return Some(format!("this board cannot give tasks a network: {why}"));
        }
        let why = found.no_encryption.as_ref()?;
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
        let mut firewall = Firewall::default();
        loop {
            let mut changed = self.look_again() | self.make_key();
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
            };
            let told = async {
                let _ = self.0.told.1.recv().await;
            };
            smol::future::or(told, later).await;
        }
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

    /// Makes sure of a key of the cluster's rotation.
    fn make_key(&self) -> bool {
        let mut state = self.0.state.borrow_mut();
        let epoch = state.own.as_ref().map_or(0, |own| own.key_epoch);
        if state.found.no_encryption.is_some() || state.key.as_ref().is_some_and(|key| key.epoch >= epoch) {
            return false;
        }
        match Key::load(&self.0.data, epoch, &ring::rand::SystemRandom::new()) {
            Ok(key) => state.key = Some(key),
            Err(error) => state.fault = Some(format!("encrypted networks cannot be reached: no key: {error}")),
        }
        true
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

#[cfg(test)]
mod tests {
    use racimo_common::id::IdSource;
    use racimo_common::wire::NetNetwork;

    use super::*;

    #[test]
    fn a_board_without_wireguard_says_so_and_has_no_key() {
        let data = tempfile::tempdir().unwrap();
        let state = |found| RefCell::new(State { found, ..State::default() });
        let host = |found| {
            Host(Rc::new(Inner {
                data: data.path().to_owned(),
                state: state(found),
                told: async_channel::bounded(1),
                changed: async_channel::bounded(1),
            }))
        };
        let mut said = NodeDescription::default();
        let lacks = host(Found { no_network: None, no_encryption: Some("no wireguard".into()) });
        assert!(!lacks.make_key());
        lacks.describe(&mut said);
        assert_eq!((said.no_encryption.as_deref(), said.wireguard_key), (Some("no wireguard"), None));
        assert_eq!(std::fs::read_dir(data.path()).unwrap().count(), 0);

        // Its tasks may have networks, but no encrypted ones.
        let id = IdSource::seeded(1).draw();
        let network = |encrypted| NetNetwork {
            id,
            name: "backend".into(),
            vni: 4097,
            subnet: "10.0.1.0/24".parse().unwrap(),
            internal: false,
            encrypted,
            mtu: 1450,
        };
        let net = TaskNet { networks: vec![(id, std::net::Ipv4Addr::new(10, 0, 1, 2).into())], ..TaskNet::default() };
        let mut table = Table::default();
        table.networks.insert(id, network(false));
        assert_eq!(lacks.refuses(&net, &table), None);
        table.networks.insert(id, network(true));
        assert_eq!(
            lacks.refuses(&net, &table).as_deref(),
            Some("this board cannot encrypt network backend: no wireguard")
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
        let own = NetOwn {
            mesh: "10.200.0.0/16".parse().unwrap(),
            subnet: "10.200.1.0/24".parse().unwrap(),
            address: std::net::Ipv4Addr::new(10, 77, 0, 1).into(),
            vxlan_port: 4789,
            mtu: 1450,
            key_epoch: 3,
        };
        let mut table = Table::default();
        table.own = Some(own);
        able.take(&table);
        assert!(able.make_key());
        able.describe(&mut said);
        assert!(said.key_epoch == 3 && said.wireguard_key.is_some() && said.wireguard_key != first);
    }
}
