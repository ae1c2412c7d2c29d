//! Locking and unlocking the real manager, on a disk in memory and a folder of its own.

use std::path::Path;

use futures_lite::future::{block_on, poll_once};
use racimo_common::object::Availability;
use racimo_common::time::Clock;

use super::*;
use crate::api::control::{Control, ControlStatus, InitRequest};
use crate::config::Config;
use crate::store::log::fake::Disk;
use crate::store::{Change, ClusterNet, ClusterSpec, Store};
use crate::vault::Vault;

#[test]
fn tries_run_out_and_come_back() {
    let (mut tries, start) = (Tries::default(), Mono::default());
    let second = Duration::from_secs(1);
    for _ in 0..UNLOCK_TRIES_MAX {
        assert_eq!(tries.take(start + second), Ok(()));
    }
    assert_eq!(tries.take(start + second), Err(UNLOCK_TRIES_WITHIN));
    assert_eq!(tries.take(start + UNLOCK_TRIES_WITHIN), Err(second));
    for _ in 0..UNLOCK_TRIES_MAX {
        assert_eq!(tries.take(start + second + UNLOCK_TRIES_WITHIN), Ok(()));
    }
    assert!(tries.take(start + second + UNLOCK_TRIES_WITHIN).is_err());
}

#[test]
fn who_waits_is_woken() {
    let lock = Lock::default();
    block_on(lock.opened());
    assert!(!lock.is_shut() && lock.shut() && !lock.shut() && lock.is_shut());
    let mut waiting = std::pin::pin!(lock.opened());
    block_on(async {
        assert!(poll_once(&mut waiting).await.is_none());
        lock.open();
        waiting.await;
    });
    assert!(!lock.is_shut());
}

/// A manager's disks, which outlive it.
struct Bench {
    disk: Disk,
    data: tempfile::TempDir,
}

/// What a key file is.
#[derive(Debug, PartialEq, Eq)]
enum File {
    Plain,
    Wrapped,
}

impl Bench {
    fn new() -> Self {
        Self { disk: Disk::new(1), data: tempfile::tempdir().expect("a directory") }
    }

    fn start(&self) -> Manager {
        let config = Config::bare(self.data.path());
        let store = Store::open(self.disk.clone(), 1).expect("a store");
        Manager::new(store, Clock::start(), Vault::default(), &config)
    }

    fn file(&self) -> File {
        match keep::load_vault(self.data.path()).expect("it is read").expect("there is one") {
            KeyFile::Plain(_) => File::Plain,
            KeyFile::Wrapped(_) => File::Wrapped,
        }
    }

    fn is_unlocked_by(&self, key: &UnlockKey) -> bool {
        match keep::load_vault(self.data.path()).expect("it is read").expect("there is one") {
            KeyFile::Plain(_) => false,
            KeyFile::Wrapped(wrapped) => wrapped.open(key).is_some(),
        }
    }
}

fn request(autolock: bool) -> InitRequest {
    InitRequest {
        listen: "127.0.0.1:0".to_owned(),
        advertise: None,
        availability: Availability::Active,
        spec: ClusterSpec { autolock, ..ClusterSpec::default() },
        net: ClusterNet::default(),
    }
}

/// What the API commits; the file is another step.
async fn commit(manager: &Manager, unlock: Option<&UnlockKey>) {
    let sealed = unlock.map(|key| key.seal(manager.vault()).expect("sealed"));
    manager.store().commit(manager.now().wall, vec![Change::UnlockKey(sealed)]).await.expect("stored");
}

fn stored(manager: &Manager) -> Option<UnlockKey> {
    let view = manager.store().view();
    UnlockKey::open(manager.vault(), view.state.cluster().expect("a cluster")).expect("it opens")
}

fn is_locked(manager: &Manager) -> bool {
    matches!(manager.status(), ControlStatus::Locked { .. })
}

fn is_active(manager: &Manager) -> bool {
    matches!(manager.status(), ControlStatus::Active { .. })
}

async fn unlock(manager: &Manager, key: Zeroizing<String>) -> Result<(), ControlError> {
    Control::unlock(manager, key).await
}

fn draw() -> UnlockKey {
    UnlockKey::draw(&SystemRandom::new()).expect("a key")
}

#[test]
fn a_cluster_made_with_autolock_is_locked_after_each_start() {
    let bench = Bench::new();
    block_on(async {
        let manager = bench.start();
        Control::init(&manager, request(true)).await.expect("a cluster");
        assert!(is_active(&manager) && bench.file() == File::Wrapped);
        let key = stored(&manager).expect("a key").text();
        assert_eq!(unlock(&manager, key.clone()).await, Err(ControlError::NotLocked));
        manager.stop_for_test().await;

        for round in 0..2 {
            let manager = bench.start();
            assert!(!manager.resume().await && is_locked(&manager), "{round}");
            let mut waiting = manager.unlocked(async {});
            assert!(poll_once(&mut waiting).await.is_none(), "nothing is decided");
            assert!(!manager.resume().await && is_locked(&manager) && !manager.vault().is_open());
            let none = Zeroizing::new("SWMKEY-2-x".to_owned());
            assert_eq!(unlock(&manager, none).await, Err(ControlError::Invalid("invalid key string".to_owned())));
            assert_eq!(unlock(&manager, draw().text()).await, Err(ControlError::WrongKey));
            assert!(is_locked(&manager) && !manager.vault().is_open());
            assert_eq!(unlock(&manager, key.clone()).await, Ok(()));
            assert!(is_active(&manager) && bench.file() == File::Wrapped);
            waiting.await;
            assert!(manager.resume().await);
            manager.stop_for_test().await;
        }
    });
}

#[test]
fn wrong_keys_are_tried_no_more_often_than_that() {
    let bench = Bench::new();
    block_on(async {
        let manager = bench.start();
        Control::init(&manager, request(true)).await.expect("a cluster");
        let key = stored(&manager).expect("a key").text();
        manager.stop_for_test().await;
        let manager = bench.start();
        assert!(!manager.resume().await);
        for _ in 0..UNLOCK_TRIES_MAX {
            assert_eq!(unlock(&manager, draw().text()).await, Err(ControlError::WrongKey));
        }
        let tired = unlock(&manager, key).await;
        assert!(matches!(tired, Err(ControlError::TooManyTries(wait)) if wait <= UNLOCK_TRIES_WITHIN), "{tired:?}");
        assert!(is_locked(&manager));
    });
}

#[test]
fn a_locked_cluster_can_be_left() {
    let bench = Bench::new();
    block_on(async {
        let manager = bench.start();
        Control::init(&manager, request(true)).await.expect("a cluster");
        manager.stop_for_test().await;
        let manager = bench.start();
        assert!(!manager.resume().await && is_locked(&manager));
        let waiting = manager.unlocked(async {});
        Control::leave(&manager).await.expect("it leaves");
        waiting.await;
        assert_eq!(manager.status(), ControlStatus::Inactive);
        assert!(keep::load_vault(bench.data.path()).expect("it is read").is_none());
        assert_eq!(unlock(&manager, draw().text()).await, Err(ControlError::NotIn));
        Control::init(&manager, request(false)).await.expect("another cluster");
        assert!(is_active(&manager) && bench.file() == File::Plain);
        manager.stop_for_test().await;
    });
}

/// The power goes after the commit and before the file is written, at each kind of change.
#[test]
fn a_power_cut_between_commit_and_file_leaves_a_manager_that_opens() {
    let bench = Bench::new();
    let (first, second) = (draw(), draw());
    block_on(async {
        let manager = bench.start();
        Control::init(&manager, request(false)).await.expect("a cluster");
        assert_eq!(bench.file(), File::Plain);
        commit(&manager, Some(&first)).await;
        manager.stop_for_test().await;

        // On: it opens without a key, and the file follows.
        let manager = bench.start();
        assert!(manager.resume().await && bench.is_unlocked_by(&first));
        manager.stop_for_test().await;

        // Another key: it opens with the one before.
        let manager = bench.start();
        assert!(!manager.resume().await);
        assert_eq!(unlock(&manager, first.text()).await, Ok(()));
        commit(&manager, Some(&second)).await;
        assert!(bench.is_unlocked_by(&first));
        manager.stop_for_test().await;
        let manager = bench.start();
        assert!(!manager.resume().await);
        assert_eq!(unlock(&manager, second.text()).await, Err(ControlError::WrongKey));
        assert_eq!(unlock(&manager, first.text()).await, Ok(()));
        assert!(bench.is_unlocked_by(&second) && !bench.is_unlocked_by(&first));
        assert_eq!(stored(&manager).expect("a key").text(), second.text());

        // Off: it wants the key once more.
        commit(&manager, None).await;
        manager.stop_for_test().await;
        let manager = bench.start();
        assert!(!manager.resume().await && is_locked(&manager));
        assert_eq!(unlock(&manager, second.text()).await, Ok(()));
        assert_eq!(bench.file(), File::Plain);
        manager.stop_for_test().await;
        let manager = bench.start();
        assert!(manager.resume().await && is_active(&manager));
        manager.stop_for_test().await;
    });
}

#[test]
fn the_file_follows_the_store_and_nothing_plain_is_left_beside_it() {
    let bench = Bench::new();
    let key = draw();
    let leftover = bench.data.path().join("manager/vault.key.new");
    block_on(async {
        let manager = bench.start();
        Control::init(&manager, request(false)).await.expect("a cluster");
        let plain = std::fs::read(bench.data.path().join("manager/vault.key")).expect("a key");
        assert_eq!(manager.keep_key_file(), Ok(false));
        commit(&manager, Some(&key)).await;
        Control::relock(&manager).await.expect("it is written");
        assert!(bench.is_unlocked_by(&key) && manager.keep_key_file() == Ok(false));
        let all = files(bench.data.path());
        assert!(!all.windows(plain.len()).any(|part| part == plain), "the vault's key is on the disk");
        manager.stop_for_test().await;
        // A switch to off was cut before the rename.
        std::fs::write(&leftover, &plain).expect("written");
        let manager = bench.start();
        assert!(!manager.resume().await && !leftover.exists());
        assert_eq!(unlock(&manager, key.text()).await, Ok(()));
        manager.stop_for_test().await;
    });
}

#[test]
fn a_file_that_cannot_be_written_is_said_and_written_later() {
    let bench = Bench::new();
    let key = draw();
    block_on(async {
        let manager = bench.start();
        Control::init(&manager, request(false)).await.expect("a cluster");
        commit(&manager, Some(&key)).await;
        // Something is in the way of the file that is written first.
        let beside = bench.data.path().join("manager/vault.key.new");
        std::fs::create_dir(&beside).expect("made");
        let said = Control::relock(&manager).await.expect_err("it fails").to_string();
        assert!(said.contains("the manager starts as before") && !said.contains("SWMKEY"), "{said}");
        manager.stop_for_test().await;
        std::fs::remove_dir(&beside).expect("removed");
        assert_eq!(bench.file(), File::Plain);
        let manager = bench.start();
        assert!(manager.resume().await && bench.is_unlocked_by(&key));
        manager.stop_for_test().await;
    });
}

/// Everything in a folder, as one.
fn files(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        all.extend(if path.is_dir() { files(&path) } else { std::fs::read(&path).expect("a file") });
    }
    all
}
