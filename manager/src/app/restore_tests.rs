//! Test: backups of a real manager, restored and refused.

use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt;

use futures_lite::future::block_on;
use racimo_common::id::{DependencyId, RandomId};
use racimo_common::time::{Clock, Wall};

use super::*;
use crate::api::control::{Control, ControlStatus};
use crate::app::control::Manager;
use crate::app::testing::request;
use crate::backup::Contents;
use crate::config::Config;
use crate::store::restored::AHEAD;
use crate::store::{Change, DependencyKind, NewDependency, Store};
use crate::vault::{KEY_BYTES, Owner};

const SECRET: &[u8] = b"swordfish-4711";

fn start(data: &Path) -> (Manager, Store, Vault) {
    let disk = RealDisk::new(data.join(STORE)).expect("a disk");
    let (store, vault) = (Store::open(disk, 1).expect("a store"), Vault::default());
    (Manager::new(store.clone(), Clock::start(), vault.clone(), &Config::bare(data)), store, vault)
}

fn secret() -> DependencyId {
    DependencyId::from_bits(1)
}

/// A manager with a cluster and a secret; its backup, and the index of its store then.
fn backed_up(data: &Path) -> (Zeroizing<Vec<u8>>, u64) {
    let (manager, store, vault) = start(data);
    block_on(async {
        Control::init(&manager, request(false)).await.expect("a cluster");
        let owner = Owner::Dependency(DependencyKind::Secret, secret());
        let body = vault.seal(owner, SECRET).expect("sealed");
        let (id, kind, name, labels) = (secret(), DependencyKind::Secret, "s".to_owned(), Default::default());
        let new = NewDependency { id, kind, name, labels, template: false, body };
        store.commit(Wall::default(), vec![Change::DependencyCreate(Box::new(new))]).await.expect("stored");
        let made = Control::backup(&manager).await.expect("a backup");
        assert!(Control::backup(&manager).await.is_err(), "one at a time");
        (Zeroizing::new(made.bytes), store.view().version())
    })
}

fn restore(bytes: &[u8], passphrase: Option<&str>, data: &Path) -> Result<Restored, RestoreError> {
    let backup = Backup::read(Zeroizing::new(bytes.to_vec()))?;
    check(&backup, passphrase)?.restore(data, Some("127.0.0.1:0"), Some("127.0.0.1"))
}

/// Everything below a directory, with modes and contents.
fn everything(path: &Path) -> Vec<(PathBuf, u32, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry.expect("an entry").path();
        let mode = fs::metadata(&path).expect("there").permissions().mode() & 0o777;
        if path.is_dir() {
            all.push((path.clone(), mode, Vec::new()));
            all.extend(everything(&path));
        } else {
            all.push((path.clone(), mode, fs::read(&path).expect("a file")));
        }
    }
    all
}

/// A refusal that touches nothing.
#[track_caller]
fn refused(bytes: &[u8], passphrase: Option<&str>, data: &Path, want: &str) {
    let before = everything(data);
    let error = chain(&restore(bytes, passphrase, data).expect_err("refused")).to_string();
    assert!(error.contains(want), "expected {want:?}: {error}");
    assert!(everything(data) == before, "something was written: {want}");
}

#[test]
fn the_same_cluster_goes_on() {
    let (old, new) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let (bytes, index) = backed_up(old.path());
    let data = new.path().join("data");
    let few = NonZeroU32::new(10).expect("not zero");
    let sealed = Backup::read(bytes.clone()).expect("whole").seal("correct horse", few).expect("sealed");
    // A restore that was cut short before its last step, and a manager that was started in no cluster meanwhile.
    restore(sealed.bytes(), Some("correct horse"), &data).expect("restored");
    fs::remove_dir_all(data.join(STORE)).expect("removed");
    fs::create_dir(data.join(BESIDE)).expect("made");
    drop(Store::open(RealDisk::new(data.join(STORE)).expect("a disk"), 1).expect("a store"));
    let restored = loop {
        match restore(&bytes, None, &data) {
            // The store's thread may not have ended yet.
            Err(RestoreError::Running(_)) => std::thread::sleep(std::time::Duration::from_millis(10)),
            other => break other.expect("restored again"),
        }
    };
    assert_eq!((restored.managers.len(), restored.is_locked), (1, false));
    for (path, mode, _) in everything(&data) {
        assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
        assert!(!path.ends_with(BESIDE) && !path.ends_with(EMPTY), "{}", path.display());
    }
    // It is a cluster now, and stays.
    let runs = start(old.path());
    refused(&bytes, None, old.path(), "is in use: stop the manager");
    drop(runs);
    let (manager, store, vault) = start(&data);
    block_on(async {
        assert!(manager.resume().await && matches!(manager.status(), ControlStatus::Active { .. }));
        let state = store.view().state;
        assert!(state.index() >= index + AHEAD && state.index() < index + 2 * AHEAD + 100);
        let body = &state.dependency(secret()).expect("the secret").body;
        let owner = Owner::Dependency(DependencyKind::Secret, secret());
        assert_eq!(&*vault.open(owner, body).expect("it opens"), SECRET);
        Control::leave(&manager).await.expect("it leaves");
    });
}

#[test]
fn a_cluster_that_is_there_is_never_lost() {
    let (old, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let (bytes, _) = backed_up(old.path());
    restore(&bytes, None, other.path()).expect("restored");
    let error = restore(&bytes, None, other.path()).expect_err("refused").to_string();
    assert!(error.contains("there is a cluster") && error.contains("mv "), "{error}");
    assert!(start(other.path()).1.view().state.cluster().is_some(), "it is whole");
    // A store was moved away, its key was not.
    let third = tempfile::tempdir().expect("a directory");
    fs::create_dir(third.path().join("manager")).expect("made");
    fs::write(third.path().join("manager/vault.key"), [9; KEY_BYTES]).expect("written");
    let error = restore(&bytes, None, third.path()).expect_err("refused").to_string();
    assert!(error.contains("is the key of another cluster"), "{error}");
    assert_eq!(fs::read(third.path().join("manager/vault.key")).expect("there"), [9; KEY_BYTES]);
}

#[test]
fn what_is_damaged_or_does_not_go_together_is_refused_whole() {
    let (old, new) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let (bytes, _) = backed_up(old.path());
    let data = new.path();
    let backup = Backup::read(bytes.clone()).expect("whole");
    let few = NonZeroU32::new(10).expect("not zero");
    let sealed = backup.seal("correct horse", few).expect("sealed").into_bytes();
    for good in [&bytes[..], &sealed] {
        for end in (1..good.len()).step_by(97) {
            refused(&good[..end], Some("correct horse"), data, "cut off");
        }
        for at in (0..good.len()).step_by(101) {
            let mut flipped = good.to_vec();
            flipped[at] ^= 0x10;
            assert!(restore(&flipped, Some("correct horse"), data).is_err(), "byte {at}");
        }
    }
    refused(&sealed, Some("wrong horse"), data, "not the passphrase");
    refused(&sealed, None, data, "needs its passphrase");
    refused(&bytes, Some("correct horse"), data, "not encrypted");
    // Whole files with contents that are not.
    let altered = |edit: &dyn Fn(&mut Header, &mut Contents)| {
        let (mut header, mut contents) = (backup.header().clone(), backup.open(None).expect("open"));
        edit(&mut header, &mut contents);
        Backup::new(header, &contents).expect("it fits").into_bytes()
    };
    refused(&altered(&|_, contents| contents.key[0] ^= 1), None, data, "the vault's key");
    refused(&altered(&|_, contents| contents.key.truncate(31)), None, data, "no vault's key");
    refused(&altered(&|_, contents| contents.state.truncate(90)), None, data, "the state");
    refused(&altered(&|_, contents| contents.own = b"{}".to_vec()), None, data, "which node it is");
    refused(&altered(&|header, _| header.autolock = true), None, data, "not as locked as its header says");
    refused(&altered(&|header, _| header.counts.tasks += 1), None, data, "not of one cluster");
    refused(&altered(&|header, _| header.cluster = ClusterId::from_bits(1)), None, data, "not of one cluster");
    assert!(everything(data).is_empty());
}
