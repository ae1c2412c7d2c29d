//! Locking and unlocking the real manager, on a disk in memory and a folder of its own.

use futures_lite::future::{block_on, poll_once};
use racimo_common::id::{ClusterId, RandomId};

use super::super::testing::{Bench, File, commit, commit_and_cut, draw, files, request, sealed, show, stored};
use super::*;
use crate::api::control::{Control, ControlStatus};

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

fn is_locked(manager: &Manager) -> bool {
    matches!(manager.status(), ControlStatus::Locked { .. })
}

fn is_active(manager: &Manager) -> bool {
    matches!(manager.status(), ControlStatus::Active { .. })
}

async fn unlock(manager: &Manager, key: Zeroizing<String>) -> Result<(), ControlError> {
    Control::unlock(manager, key).await
}

#[test]
fn a_cluster_made_with_autolock_is_locked_after_each_start() {
    let bench = Bench::new();
    block_on(async {
        let manager = bench.start();
        Control::init(&manager, request(true)).await.expect("a cluster");
        let is_warned = || manager.warnings().iter().any(|text| text.contains("nobody has seen the unlock key yet"));
        assert!(is_active(&manager) && bench.file() == File::Plain && is_warned());
        show(&manager).await.expect("it is locked");
        assert!(bench.file() == File::Wrapped && !is_warned());
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
        show(&manager).await.expect("it is locked");
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
        show(&manager).await.expect("it is locked");
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

/// The power goes after the cluster was left and before its keys are erased. Keys that nobody said were to be erased may
/// be those of a store that was moved away.
#[test]
fn keys_of_a_cluster_that_was_left_are_erased_at_the_next_start() {
    let bench = Bench::new();
    let place = |name: &str| bench.data.path().join("manager").join(name);
    block_on(async {
        // A store that had no cluster: its key may be of another store.
        let manager = bench.start();
        std::fs::create_dir(place("")).expect("made");
        std::fs::write(place("vault.key"), [1; 32]).expect("written");
        let say_left = |cluster| keep::store_left(bench.data.path(), cluster).expect("kept");
        manager.erase_left();
        say_left(ClusterId::from_bits(1));
        manager.erase_left();
        assert!(place("vault.key").exists());
        Control::init(&manager, request(false)).await.expect("a cluster");
        let own = manager.store().view().state.cluster().expect("a cluster").id;
        let are_there = || place("vault.key").exists() && place("self.json").exists();
        // The power went before it was left.
        say_left(own);
        manager.erase_left();
        assert!(are_there() && !place("left").exists());
        manager.clone().stop_for_test().await;
        manager.store().commit(manager.now().wall, vec![Change::ClusterLeave]).await.expect("left");
        drop(manager);
        let manager = bench.start();
        assert!(manager.resume().await && manager.status() == ControlStatus::Inactive);
        manager.erase_left();
        say_left(ClusterId::from_bits(1));
        manager.erase_left();
        assert!(are_there());
        say_left(own);
        manager.erase_left();
        assert!(!place("vault.key").exists() && !place("self.json").exists() && !place("left").exists());
        // It went while they were erased: which node it was goes last.
        std::fs::write(place("ca.key"), b"x").expect("written");
        say_left(own);
        manager.erase_left();
        assert!(!place("ca.key").exists() && !place("left").exists());
        // As `leave` does it.
        Control::init(&manager, request(false)).await.expect("a cluster");
        Control::leave(&manager).await.expect("it leaves");
        assert!(!place("vault.key").exists() && !place("self.json").exists() && !place("left").exists());
    });
}

/// The power goes after the commit and before the file is written, at each kind of change.
#[test]
fn a_power_cut_between_commit_and_file_leaves_a_manager_that_opens() {
    let bench = Bench::new();
    let (first, second) = (draw(), draw());
    let show_and_cut = async |manager: Manager| {
        manager.clone().stop_for_test().await;
        let shown = vec![Change::UnlockKeyShown(sealed(&manager))];
        manager.store().commit(manager.now().wall, shown).await.expect("stored");
    };
    block_on(async {
        let manager = bench.start();
        Control::init(&manager, request(false)).await.expect("a cluster");
        assert_eq!(bench.file(), File::Plain);
        commit_and_cut(manager, Some(&first)).await;

        // On: it opens without a key, which nobody has seen. Nor has anybody when the power goes before the answer.
        for _ in 0..3 {
            let manager = bench.start();
            assert!(manager.resume().await && bench.file() == File::Plain);
            let warnings = manager.warnings();
            assert!(warnings.iter().any(|text| text.contains("nobody has seen the unlock key yet")), "{warnings:?}");
            show_and_cut(manager).await;
        }
        let manager = bench.start();
        assert!(manager.resume().await);
        show(&manager).await.expect("it is locked");
        assert!(bench.is_unlocked_by(&first) && manager.warnings().is_empty());
        manager.stop_for_test().await;

        // Another key: it opens with the one before, also when the file has both.
        let manager = bench.start();
        assert!(!manager.resume().await);
        assert_eq!(unlock(&manager, first.text()).await, Ok(()));
        commit_and_cut(manager.clone(), Some(&second)).await;
        show_and_cut(manager).await;
        assert!(bench.is_unlocked_by(&first) && !bench.is_unlocked_by(&second));
        for _ in 0..2 {
            let manager = bench.start();
            assert!(!manager.resume().await);
            assert_eq!(unlock(&manager, first.text()).await, Ok(()));
            assert!(bench.is_unlocked_by(&second) && bench.is_unlocked_by(&first));
            let warnings = manager.warnings();
            assert!(warnings.iter().any(|text| text.contains("the one before opens the manager, too")), "{warnings:?}");
            assert_eq!(stored(&manager).expect("a key").text(), second.text());
            show_and_cut(manager).await;
        }
        // Whoever brings the new one has it.
        let manager = bench.start();
        assert!(!manager.resume().await);
        assert_eq!(unlock(&manager, second.text()).await, Ok(()));
        assert!(bench.is_unlocked_by(&second) && !bench.is_unlocked_by(&first) && manager.warnings().is_empty());

        // Off: it wants the key once more.
        commit_and_cut(manager, None).await;
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

/// The power goes after the file of another key was written, and before anybody has seen that key; and after.
#[test]
fn a_key_that_nobody_has_seen_locks_nobody_out() {
    let bench = Bench::new();
    let (first, second, third) = (draw(), draw(), draw());
    block_on(async {
        let manager = bench.start();
        Control::init(&manager, request(false)).await.expect("a cluster");
        commit(&manager, Some(&first)).await;
        Control::relock(&manager).await.expect("nothing is to be written");
        assert_eq!(bench.file(), File::Plain);
        show(&manager).await.expect("it is locked");
        // Twice, and the second has never been seen.
        for key in [&second, &third] {
            commit(&manager, Some(key)).await;
            Control::relock(&manager).await.expect("it is written");
            assert!(bench.is_unlocked_by(&first) && bench.is_unlocked_by(key));
        }
        assert!(!bench.is_unlocked_by(&second));
        manager.stop_for_test().await;
        let manager = bench.start();
        assert!(!manager.resume().await);
        assert_eq!(unlock(&manager, second.text()).await, Err(ControlError::WrongKey));
        assert_eq!(unlock(&manager, first.text()).await, Ok(()));
        show(&manager).await.expect("it is written");
        assert!(bench.is_unlocked_by(&third) && !bench.is_unlocked_by(&first) && !bench.is_unlocked_by(&second));
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
        show(&manager).await.expect("it is written");
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

/// Waits for what the running manager does by itself.
#[track_caller]
fn wait(what: &str, is_so: impl Fn() -> bool) {
    let until = std::time::Instant::now() + 3 * TRUST_LOOK_EVERY;
    while !is_so() {
        assert!(std::time::Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_file_that_cannot_be_written_is_said_and_written_by_the_running_manager() {
    let bench = Bench::new();
    let (first, second) = (draw(), draw());
    let place = |name: &str| bench.data.path().join("manager").join(name);
    block_on(async {
        let manager = bench.start();
        Control::init(&manager, request(false)).await.expect("a cluster");
        commit(&manager, Some(&first)).await;
        // Something is in the way of the file that is written first.
        std::fs::create_dir(place("vault.key.new")).expect("made");
        assert!(show(&manager).await.is_err() && bench.file() == File::Plain);
        let is_told = || manager.warnings().iter().any(|text| text.contains("is not as autolock wants it"));
        assert!(is_told());
        commit(&manager, Some(&second)).await;
        let said = Control::relock(&manager).await.expect_err("it fails").to_string();
        assert!(said.contains("the manager starts as before") && !said.contains("SWMKEY"), "{said}");
        std::fs::remove_dir(place("vault.key.new")).expect("removed");
        // Without a start, or anybody who asks.
        wait("the file is not mended", || bench.is_unlocked_by(&first) && bench.is_unlocked_by(&second) && !is_told());
        let written = std::fs::metadata(place("vault.key")).and_then(|meta| meta.modified()).expect("a time");
        // What others did to it is mended as well; and when nothing differs nothing is written.
        commit(&manager, Some(&draw())).await;
        wait("the file is not written anew", || !bench.is_unlocked_by(&second));
        let is_new = std::fs::metadata(place("vault.key")).and_then(|meta| meta.modified()).expect("a time") > written;
        assert!(is_new && manager.keep_key_file() == Ok(false));
        manager.stop_for_test().await;
    });
}
