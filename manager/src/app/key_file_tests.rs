//! The key file against the store and the vault that is open: what is mended, and what goes into no backup.

use futures_lite::future::block_on;

use super::super::control::Manager;
use super::super::testing::{Bench, commit, draw, request, show};
use super::*;
use crate::api::control::Control;
use crate::backup::Backup;
use crate::vault::{KEY_BYTES, Key};

/// A manager whose key file nobody mends.
async fn halted(bench: &Bench) -> Manager {
    let manager = bench.start();
    Control::init(&manager, request(false)).await.expect("a cluster");
    manager.clone().stop_for_test().await;
    manager
}

async fn backup(manager: &Manager) -> Result<Backup, String> {
    let made = Control::backup(manager).await.map_err(|error| error.to_string())?;
    Ok(Backup::read(Zeroizing::new(made.bytes)).expect("whole"))
}

/// With these bytes as the key file there is no backup, and the reason says so; with the good ones there is.
async fn refused(manager: &Manager, bytes: Option<&[u8]>, why: &str) {
    let path = keep::vault_path(manager.data());
    let good = std::fs::read(&path).expect("a key file");
    std::fs::remove_file(&path).expect("removed");
    if let Some(bytes) = bytes {
        std::fs::write(&path, bytes).expect("written");
    }
    let said = backup(manager).await.map(drop).expect_err("it is refused");
    assert!(said.contains("no backup was made") && said.contains(why) && !said.contains("SWMKEY"), "{why}: {said}");
    std::fs::write(&path, &good).expect("written");
    assert!(backup(manager).await.is_ok(), "{why}");
}

#[test]
fn a_key_file_that_would_bring_nothing_back_is_in_no_backup() {
    let bench = Bench::new();
    let other = Key::from_bytes(&[9; KEY_BYTES]).expect("a key");
    block_on(async {
        let manager = halted(&bench).await;
        let path = keep::vault_path(manager.data());
        let plain = std::fs::read(&path).expect("a key file");
        assert!(!backup(&manager).await.expect("made").header().autolock);
        refused(&manager, None, "it is missing").await;
        refused(&manager, Some(&plain[1..]), "it is damaged").await;
        refused(&manager, Some(other.bytes()), "not the one that the manager runs with").await;

        commit(&manager, Some(&draw())).await;
        // Nobody has seen the key: the file is plain, and so is the backup.
        assert!(!backup(&manager).await.expect("made").header().autolock);
        show(&manager).await.expect("it is locked");
        let locked = std::fs::read(&path).expect("a key file");
        assert!(backup(&manager).await.expect("made").header().autolock);
        refused(&manager, Some(&plain), "it is not locked").await;
        let mut rotten = locked.clone();
        *rotten.last_mut().expect("bytes") ^= 1;
        refused(&manager, Some(&rotten), "the unlock key of now does not open it").await;
        let view = manager.store().view();
        let now = Locks::of(manager.vault(), view.state.cluster().expect("a cluster")).expect("open");
        let foreign = KeyFile::write(&other, &now).expect("written");
        refused(&manager, Some(&foreign), "not the one that the manager runs with").await;

        // The store has another key, and the file was not written: the one that is stored would not open the backup.
        commit(&manager, Some(&draw())).await;
        let said = backup(&manager).await.map(drop).expect_err("it is refused");
        assert!(said.contains("the unlock key of now does not open it"), "{said}");
        Control::relock(&manager).await.expect("it is written");
        assert!(backup(&manager).await.expect("made").header().autolock);
        refused(&manager, Some(&locked), "the unlock key of now does not open it").await;
        show(&manager).await.expect("it is written");
        refused(&manager, Some(&locked), "the unlock key of now does not open it").await;
        let last = std::fs::read(&path).expect("a key file");

        commit(&manager, None).await;
        Control::relock(&manager).await.expect("it is written");
        refused(&manager, Some(&last), "it is locked, although").await;
    });
}

#[test]
fn a_file_that_differs_is_written_anew_and_no_other() {
    let bench = Bench::new();
    block_on(async {
        let manager = halted(&bench).await;
        commit(&manager, Some(&draw())).await;
        show(&manager).await.expect("it is locked");
        let path = keep::vault_path(manager.data());
        let view = manager.store().view();
        let cluster = view.state.cluster().expect("a cluster");
        let locks = Locks::of(manager.vault(), cluster).expect("they open");
        for bytes in [None, Some(vec![]), Some(vec![3; KEY_BYTES]), Some(b"racimo vault key, locked 1\nx".to_vec())] {
            match &bytes {
                None => std::fs::remove_file(&path).expect("removed"),
                Some(bytes) => std::fs::write(&path, bytes).expect("written"),
            }
            assert_eq!(keep(cluster, manager.vault(), manager.data()), Ok(true), "{bytes:?}");
            let written = std::fs::read(&path).expect("there");
            let key = KeyFile::read(&written).and_then(|file| file.key(&locks)).expect("it opens");
            assert!(manager.vault().is_open_with(&key));
            assert_eq!(keep(cluster, manager.vault(), manager.data()), Ok(false));
            assert_eq!(std::fs::read(&path).expect("there"), written, "nothing was written");
        }
    });
}
