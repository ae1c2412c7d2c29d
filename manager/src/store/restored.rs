//! What a backup holds of the state, and the state as the first one of a restored store.
//!
//! A backup is older than what its cluster went through. So a restored store is [ahead](AHEAD) of everything that the
//! manager before can have used, and the indexes that boards, clients and objects name never come to mean something
//! else: not the versions of objects that somebody read before, not the indexes of assignments. What the network gives out
//! goes on half of the way around, for boards may still be stopping what the lost manager had given meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;

use racimo_common::id::NodeId;
use serde::{Deserialize, Serialize};

use super::log::{Machine, RestoreError};
use super::state::State;

/// How far a restored store is ahead of its backup, at least. A manager that committed 1,000 times a second would need 34
/// years for it. The same again is drawn by chance, so that two stores restored from one backup do not meet. JSON's
/// whole numbers (2^53) are enough for 4,096 restores, each from a backup of the one before.
pub const AHEAD: u64 = 1 << 40;
/// How far the count of key rotations is ahead: 89 years of them. Boards keep a key whose count is not behind, so without
/// this they would turn theirs only when the count has come to where it was.
const KEYS_AHEAD: u32 = 1 << 16;

/// How many of each there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Counts {
    /// Nodes, the manager among them.
    pub nodes: usize,
    /// Networks, the mesh among them.
    pub networks: usize,
    /// Services.
    pub services: usize,
    /// Tasks, those in the history too.
    pub tasks: usize,
    /// Secrets and configs.
    pub dependencies: usize,
    /// Who may use the API from afar.
    pub accesses: usize,
}

impl State {
    /// How much it holds.
    pub fn counts(&self) -> Counts {
        Counts {
            nodes: self.nodes.len(),
            networks: self.networks.len(),
            services: self.services.len(),
            tasks: self.tasks.len(),
            dependencies: self.dependencies.len(),
            accesses: self.accesses.len(),
        }
    }

    /// As bytes, for a backup: what a snapshot holds.
    pub fn to_bytes(&self) -> Vec<u8> {
        Machine::snapshot(self)
    }

    /// From [`State::to_bytes`]. What is rebuilt, and not stored, is rebuilt.
    ///
    /// # Errors
    /// These are not such bytes, or they contradict themselves.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RestoreError> {
        let mut state = Self::default();
        state.restore(bytes)?;
        state.check().map_err(RestoreError)?;
        Ok(state)
    }

    /// Whether its parts fit together.
    fn check(&self) -> Result<(), String> {
        let index = self.index;
        let metas = (self.cluster.iter().map(|c| ("the cluster".to_owned(), c.meta.version)))
            .chain(self.nodes.values().map(|n| (format!("node {}", n.id), n.meta.version)))
            .chain(self.networks.values().map(|n| (format!("network {}", n.id), n.meta.version)))
            .chain(self.services.values().map(|s| (format!("service {}", s.id), s.meta.version)))
            .chain(self.tasks.values().map(|t| (format!("task {}", t.id), t.meta.version)))
            .chain(self.dependencies.values().map(|d| (format!("secret or config {}", d.id), d.meta.version)));
        if let Some((name, version)) = metas.into_iter().find(|(_, version)| *version > index) {
            return Err(format!("{name} has version {version}, the state has come to {index}"));
        }
        if self.by_name.len() != self.services.len() || self.dependency_names.len() != self.dependencies.len() {
            return Err("two objects have one name".to_owned());
        }
        // Every task that has an address has one of its own.
        let mut given = BTreeSet::new();
        for task in self.tasks.values().filter(|task| task.ended.is_none()) {
            for (network, address) in &task.addresses.networks {
                if !given.insert((*network, *address)) {
                    return Err(format!("address {address} is given twice on network {network}"));
                }
            }
        }
        Ok(())
    }

    /// As the first state of a restored store. `chance` is any number.
    #[must_use]
    pub fn restored(&self, chance: u64) -> Self {
        let mut state = self.clone();
        state.ledger.leap();
        state.index = self.index.saturating_add(AHEAD + chance % AHEAD);
        if let Some(cluster) = &mut state.cluster {
            let cluster = Arc::make_mut(cluster);
            cluster.key_epoch = cluster.key_epoch.saturating_add(KEYS_AHEAD);
        }
        state
    }

    /// With what boards shall dial, and the address of the manager's own node.
    #[must_use]
    pub fn moved(mut self, managers: Vec<String>, own: NodeId, address: String) -> Self {
        if let Some(cluster) = &mut self.cluster {
            Arc::make_mut(cluster).managers = managers;
        }
        if let Some(node) = self.nodes.get_mut(&own) {
            Arc::make_mut(node).addr = address;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::log::{Log, fake};
    use crate::store::testing::{applied, base, new_service, spec};

    /// A state with something of everything that is counted or given out.
    fn full() -> State {
        applied(&base(), vec![new_service(5, spec("api", "a", 40))])
    }

    #[test]
    fn bytes_give_the_state_back() {
        let state = full();
        let again = State::from_bytes(&state.to_bytes()).expect("its own bytes");
        assert_eq!((&again, again.counts()), (&state, state.counts()));
        assert!(State::from_bytes(b"").is_err() && State::from_bytes(&state.to_bytes()[1..]).is_err());
        // Older than what it holds: it was put together from two.
        let torn = State { index: 0, ..state };
        let error = State::from_bytes(&torn.to_bytes()).expect_err("refused").to_string();
        assert!(error.contains("the state has come to 0"), "{error}");
    }

    #[test]
    fn a_restored_state_is_far_ahead_and_a_log_goes_on_from_there() {
        let state = full();
        let (restored, other) = (state.restored(7), state.restored(u64::MAX));
        assert_eq!(restored.index(), state.index() + AHEAD + 7);
        assert!(other.index() > restored.index() && other.index() < state.index() + 2 * AHEAD);
        let epoch = |state: &State| state.cluster().map(|cluster| cluster.key_epoch);
        assert!(epoch(&restored) > epoch(&state));

        let disk = fake::Disk::new(1);
        let log = Log::begin(disk.clone(), restored.clone(), restored.index(), 1).expect("a log");
        assert_eq!(log.machine(), &restored);
        assert!(log.index() > restored.index());
        drop(log);
        assert!(Log::begin(disk.clone(), restored.clone(), 9, 1).is_err(), "there is one");
        let mut log = Log::open(disk.clone(), State::default(), 2).expect("it is whole");
        assert_eq!(log.machine(), &restored);
        let command =
            crate::store::Command { at: Default::default(), changes: vec![new_service(6, spec("db", "b", 40))] };
        let index = log.commit(&[rmp_serde::to_vec_named(&command).expect("bytes")]).expect("it goes on")[0];
        assert!(index > restored.index() && log.machine().counts().services == 3);
        drop(log);
        let log = Log::open(disk, State::default(), 3).expect("it is whole");
        assert_eq!((log.machine().index(), log.machine().unread()), (index, None));
    }

    #[test]
    fn what_the_network_gives_goes_on_elsewhere() {
        let state = full();
        let vni = |state: State| {
            let changes = vec![crate::store::testing::new_network(5, "n")];
            let command = crate::store::Command { at: Default::default(), changes };
            let (state, _) = state.apply(state.index() + 1, &command).expect("it is allowed");
            state.network_named("n").map(|network| network.vni)
        };
        assert_ne!(vni(state.clone()), vni(state.restored(1)));
    }
}
