//! A real manager whose disks outlive it, for tests: its store in memory, its own files in a folder.

use std::path::Path;

use racimo_common::object::Availability;
use racimo_common::time::Clock;
use ring::rand::SystemRandom;

use super::control::Manager;
use super::keep;
use crate::api::control::{Control, ControlError, InitRequest};
use crate::config::Config;
use crate::store::log::fake::Disk;
use crate::store::{Change, ClusterNet, ClusterSpec, Sealed, Store};
use crate::vault::Vault;
use crate::vault::unlock::{KeyFile, UnlockKey};

/// A manager's disks, which outlive it.
pub(super) struct Bench {
    pub(super) disk: Disk,
    pub(super) data: tempfile::TempDir,
}

/// What a key file is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum File {
    Plain,
    Wrapped,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self { disk: Disk::new(1), data: tempfile::tempdir().expect("a directory") }
    }

    pub(super) fn start(&self) -> Manager {
        let config = Config::bare(self.data.path());
        let store = Store::open(self.disk.clone(), 1).expect("a store");
        Manager::new(store, Clock::start(), Vault::default(), &config)
    }

    /// Only looks: the running manager may be writing it.
    fn key_file(&self) -> KeyFile {
        KeyFile::read(&std::fs::read(keep::vault_path(self.data.path())).expect("it is read")).expect("a key file")
    }

    pub(super) fn file(&self) -> File {
        match self.key_file() {
            KeyFile::Plain(_) => File::Plain,
            KeyFile::Wrapped(_) => File::Wrapped,
        }
    }

    /// Whether a thief of the disk needs this key, or any.
    pub(super) fn is_unlocked_by(&self, key: &UnlockKey) -> bool {
        match self.key_file() {
            KeyFile::Plain(_) => false,
            KeyFile::Wrapped(wrapped) => wrapped.open(key).is_some(),
        }
    }
}

pub(super) fn request(autolock: bool) -> InitRequest {
    InitRequest {
        listen: "127.0.0.1:0".to_owned(),
        advertise: None,
        availability: Availability::Active,
        spec: ClusterSpec { autolock, ..ClusterSpec::default() },
        net: ClusterNet::default(),
    }
}

/// What the API commits; the file is another step.
pub(super) async fn commit(manager: &Manager, unlock: Option<&UnlockKey>) {
    let sealed = unlock.map(|key| key.seal(manager.vault()).expect("sealed"));
    let change = sealed.map_or(Change::UnlockKey(None), Change::UnlockKeyDrawn);
    manager.store().commit(manager.now().wall, vec![change]).await.expect("stored");
}

/// As `commit`, when the power goes before the file is written.
pub(super) async fn commit_and_cut(manager: Manager, unlock: Option<&UnlockKey>) {
    manager.clone().stop_for_test().await;
    commit(&manager, unlock).await;
}

/// What the store has of the unlock key.
pub(super) fn sealed(manager: &Manager) -> Sealed {
    let view = manager.store().view();
    view.state.cluster().and_then(|cluster| cluster.trust.unlock.clone()).expect("a key")
}

/// The unlock key is shown; what became of it.
pub(super) async fn show(manager: &Manager) -> Result<(), ControlError> {
    Control::unlock_key_shown(manager, sealed(manager)).await
}

pub(super) fn stored(manager: &Manager) -> Option<UnlockKey> {
    let view = manager.store().view();
    UnlockKey::open(manager.vault(), view.state.cluster().expect("a cluster")).expect("it opens")
}

pub(super) fn draw() -> UnlockKey {
    UnlockKey::draw(&SystemRandom::new()).expect("a key")
}

/// Everything in a folder, as one.
pub(super) fn files(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        all.extend(if path.is_dir() { files(&path) } else { std::fs::read(&path).expect("a file") });
    }
    all
}
