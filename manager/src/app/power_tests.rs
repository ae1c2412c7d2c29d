//! Power cuts at any step of what the real manager writes: its store, and its own files beside that.
//!
//! The store by itself, with many more cuts: `store/log/sim.rs`.

use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;

use fastrand::Rng;
use futures_lite::future::block_on;
use racimo_common::durable::cuts::{Disk, Recording};
use racimo_common::id::{ClusterId, DependencyId, RandomId};
use racimo_common::time::Clock;
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::control::Manager;
use super::keep;
use super::restore;
use super::testing::{commit, draw, request, show, stored};
use crate::api::control::{Control, ControlStatus};
use crate::backup::Backup;
use crate::config::Config;
use crate::store::log::{Log, RealDisk};
use crate::store::{Change, DependencyKind, NewDependency, State, Store};
use crate::vault::unlock::{KeyFile, UnlockKey};
use crate::vault::{Owner, Vault};

/// Of each recording, one from the disk as it was before.
const CUTS: usize = 100;
/// After so many of them the real manager starts.
const STARTS: usize = 25;
const BODY: &[u8] = b"swordfish";

/// What was acknowledged.
#[derive(Debug, Clone, Default)]
struct Known {
    cluster: Option<ClusterId>,
    secrets: BTreeSet<DependencyId>,
    /// The unlock key, if somebody has seen it.
    unlock: Option<Rc<UnlockKey>>,
}

fn memory() -> TempDir {
    // A real disk would wait for each sync.
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() }.expect("a folder")
}

/// The disk, once nobody else has it: a store's thread ends a little later than its manager.
fn disk(data: &Path) -> RealDisk {
    loop {
        match RealDisk::new(data.join("store")) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            other => return other.expect("a disk"),
        }
    }
}

fn start(data: &Path) -> Manager {
    let store = Store::open(disk(data), 1).expect("a store");
    Manager::new(store, Clock::start(), Vault::default(), &Config::bare(data))
}

fn owner(id: DependencyId) -> Owner {
    Owner::Dependency(DependencyKind::Secret, id)
}

async fn add(manager: &Manager, number: u128) -> DependencyId {
    let id = DependencyId::from_bits(number);
    let body = manager.vault().seal(owner(id), BODY).expect("sealed");
    let (kind, labels) = (DependencyKind::Secret, Default::default());
    let new = NewDependency { id, kind, name: format!("s{number}"), labels, template: false, body };
    let changes = vec![Change::DependencyCreate(Box::new(new))];
    manager.store().commit(manager.now().wall, changes).await.expect("stored");
    id
}

/// Does something with the manager; what is acknowledged then.
async fn act(manager: &Manager, known: &Known, chance: &mut Rng, number: u128) -> Known {
    let mut after = known.clone();
    if known.cluster.is_none() {
        Control::init(manager, request(false)).await.expect("a cluster");
        after.cluster = manager.store().view().state.cluster().map(|cluster| cluster.id);
        return after;
    }
    match chance.u8(..8) {
        0 => {
            Control::leave(manager).await.expect("it leaves");
            after = Known::default();
        }
        1 => {
            let key = draw();
            commit(manager, Some(&key)).await;
            show(manager).await.expect("it is shown");
            after.unlock = stored(manager).map(Rc::new);
        }
        2 if known.unlock.is_some() => {
            commit(manager, None).await;
            Control::relock(manager).await.expect("the file is plain");
            after.unlock = None;
        }
        _ => {
            after.secrets.insert(add(manager, number).await);
        }
    }
    after
}

/// Whether this may be on the disk when the power went while `before` became `after`; what is there.
fn check(data: &Path, before: &Known, after: &Known) -> Result<Known, String> {
    let log = Log::open(disk(data), State::default(), 1).map_err(|error| format!("the store: {error:?}"))?;
    let state = log.machine();
    let cluster = state.cluster().map(|cluster| cluster.id);
    let secrets: BTreeSet<_> = state.dependencies().map(|one| one.id).collect();
    let fail = |what: &str| Err(format!("{what}\nfound {cluster:?} {secrets:?}\nof {before:?}\nand {after:?}"));
    let Some(found) = [before, after].into_iter().find(|known| known.cluster == cluster && known.secrets == secrets)
    else {
        return fail("the store");
    };
    let file = keep::load_vault(data).map_err(|error| format!("the vault's key: {error}"))?;
    let Some(cluster) = cluster else {
        // What is left of a cluster that was left is erased by the next start.
        let is_left = before.cluster.is_none() && after.cluster.is_none();
        return if is_left && file.is_some() { fail("a key that was erased") } else { Ok(found.clone()) };
    };
    let own = keep::load_own(data).map_err(|error| format!("which node it is: {error}"))?;
    if own.cluster != cluster || state.node(own.node).is_none() {
        return fail("another cluster's node");
    }
    let may_be_plain = before.unlock.is_none() || after.unlock.is_none();
    let (key, unlock) = match file {
        None => return fail("no key"),
        Some(KeyFile::Plain(key)) if may_be_plain => (key, None),
        Some(KeyFile::Plain(_)) => return fail("the key is not wrapped"),
        Some(KeyFile::Wrapped(wrapped)) => {
            let mut keys = [before, after].into_iter().filter_map(|known| known.unlock.as_ref());
            let opened = keys.find_map(|unlock| Some((wrapped.open(unlock)?, Some(unlock.clone()))));
            let Some(opened) = opened else { return fail("nobody has the unlock key") };
            opened
        }
    };
    let vault = Vault::default();
    vault.unlock(&key).and_then(|()| vault.check_all(state)).map_err(|error| format!("the vault's key: {error}"))?;
    for secret in state.dependencies() {
        let body = vault.open(owner(secret.id), &secret.body).map_err(|error| format!("a secret: {error}"))?;
        if &*body != BODY {
            return fail("a secret");
        }
    }
    Ok(Known { unlock, ..found.clone() })
}

/// The manager starts, serves what it served, and can go on.
fn starts(data: &Path, found: &Known) {
    let manager = start(data);
    manager.erase_left();
    block_on(async {
        let is_resumed = manager.resume().await;
        let Some(cluster) = found.cluster else {
            assert!(matches!(manager.status(), ControlStatus::Inactive), "{found:?}");
            Control::init(&manager, request(false)).await.expect("a new cluster");
            return manager.stop_for_test().await;
        };
        assert_eq!(manager.store().view().state.cluster().map(|cluster| cluster.id), Some(cluster));
        if let (ControlStatus::Locked { .. }, Some(key)) = (manager.status(), &found.unlock) {
            Control::unlock(&manager, key.text()).await.expect("unlocked");
        } else {
            assert!(is_resumed, "{found:?}");
        }
        assert!(matches!(manager.status(), ControlStatus::Active { .. }), "{found:?}");
        add(&manager, 1 << 100).await;
        manager.stop_for_test().await;
    });
}

/// Cuts the power at a random one of the steps, each time from the same disk.
fn cut(root: &Path, data: &Path, before: &Disk, recording: Recording, states: &[(usize, Known)], chance: &mut Rng) {
    let steps = recording.steps();
    drop(recording);
    for cut in 0..CUTS {
        let at = chance.usize(states[0].0..=steps.len());
        let done = states.partition_point(|(end, _)| *end <= at) - 1;
        let (old, new) = (&states[done].1, &states.get(done + 1).unwrap_or(&states[done]).1);
        let mut disk = before.clone();
        steps[..at].iter().for_each(|step| disk.apply(step));
        disk.cut(chance);
        disk.write(root).expect("a disk");
        let found = check(data, old, new).unwrap_or_else(|what| panic!("cut {cut} at {at} of {}: {what}", steps.len()));
        if cut % STARTS == 0 {
            starts(data, &found);
        }
    }
}

#[test]
fn what_was_acknowledged_is_there_and_goes_together() {
    for seed in 0..3 {
        let mut chance = Rng::with_seed(seed);
        let root = memory();
        let (root, data) = (root.path(), root.path().join("data"));
        let before = Disk::read(root).expect("a disk");
        let recording = Recording::of(root);
        let manager = start(&data);
        let mut states = vec![(0, Known::default())];
        block_on(async {
            for number in 0..12 {
                let after = act(&manager, &states[states.len() - 1].1, &mut chance, number).await;
                states.push((recording.count(), after));
            }
            manager.stop_for_test().await;
        });
        // Its thread has ended once nobody holds the disk.
        drop(disk(&data));
        cut(root, &data, &before, recording, &states, &mut chance);
    }
}

#[test]
fn a_restore_is_done_or_can_be_done_again() {
    let mut chance = Rng::with_seed(1);
    let old = memory();
    let manager = start(old.path());
    let (bytes, known) = block_on(async {
        let first = act(&manager, &Known::default(), &mut chance, 0).await;
        let secrets = BTreeSet::from([add(&manager, 1).await]);
        let made = Control::backup(&manager).await.expect("a backup");
        manager.stop_for_test().await;
        (made.bytes, Known { secrets, ..first })
    });
    let again = |data: &Path| {
        let backup = Backup::read(Zeroizing::new(bytes.to_vec())).expect("whole");
        let checked = restore::check(&backup, None).expect("it goes together");
        checked.restore(data, Some("127.0.0.1:0"), Some("127.0.0.1")).map(drop)
    };
    let root = memory();
    let (root, data) = (root.path(), root.path().join("data"));
    // In a manager's place that was started in no cluster.
    drop(start(&data));
    drop(disk(&data));
    let before = Disk::read(root).expect("a disk");
    let recording = Recording::of(root);
    again(&data).expect("restored");
    let (count, steps) = (recording.count(), recording.steps());
    drop(recording);
    for cut in 0..CUTS {
        let at = chance.usize(..=count);
        let mut disk = before.clone();
        steps[..at].iter().for_each(|step| disk.apply(step));
        disk.cut(&mut chance);
        disk.write(root).expect("a disk");
        let is_there =
            Log::open(self::disk(&data), State::default(), 1).expect("a store").machine().cluster().is_some();
        if !is_there {
            assert!(at < count, "it was done");
            again(&data).unwrap_or_else(|error| panic!("cut {cut} at {at} of {count}: {error:?}"));
        }
        check(&data, &known, &known).unwrap_or_else(|what| panic!("cut {cut} at {at} of {count}: {what}"));
        if cut % STARTS == 0 {
            starts(&data, &known);
        }
    }
}
