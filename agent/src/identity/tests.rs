//! Identities on disk, cut and damaged.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use racimo_common::id::RandomId;
use racimo_common::wire::Certified;
use ring::rand::SystemRandom;
use serde_bytes::ByteBuf;

use super::*;

/// A node's identity, by itself.
pub(crate) fn identity(bits: u128) -> Identity {
    let key = NodeKey::generate(&SystemRandom::new()).unwrap();
    let pair = KeyPair::from_pkcs8_der_and_sign_algo(&key.0.as_slice().into(), &PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate = CertificateParams::default().self_signed(&pair).unwrap().der().clone();
    Identity {
        cluster: ClusterId::from_bits(1),
        node: NodeId::from_bits(bits),
        role: Role::Worker,
        managers: vec!["10.0.0.1:2377".into()],
        roots: vec![certificate.clone()],
        certificate,
        key,
    }
}

#[track_caller]
fn check_node(data: &Path, want: Option<u128>) {
    let got = Identity::load(data).unwrap();
    assert_eq!(got.map(|it| it.node), want.map(NodeId::from_bits));
}

fn stored(bits: u128) -> (tempfile::TempDir, PathBuf) {
    let data = tempfile::tempdir().unwrap();
    identity(bits).store(data.path()).unwrap();
    let dir = data.path().join("identity");
    (data, dir)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_is_stored_is_loaded() {
    let data = tempfile::tempdir().unwrap();
    check_node(data.path(), None);
    let first = identity(1);
    first.store(data.path()).unwrap();
    let again = Identity::load(data.path()).unwrap().unwrap();
    assert_eq!(again.key.0, first.key.0);
    assert_eq!(again.certificate, first.certificate);
    assert_eq!(again.managers, first.managers);
    Turn::take(data.path()).unwrap().set_managers(first, vec!["a:1".into(), "b:2".into()]).unwrap();
    assert_eq!(Identity::load(data.path()).unwrap().unwrap().managers, ["a:1", "b:2"]);
    identity(2).store(data.path()).unwrap();
    check_node(data.path(), Some(2));
    assert_eq!(fs::read_dir(data.path()).unwrap().count(), 1);
    Identity::erase(data.path()).unwrap();
    check_node(data.path(), None);
}

#[test]
fn several_roots_are_kept_and_old_files_have_one() {
    let data = tempfile::tempdir().unwrap();
    let (first, other) = (identity(1), identity(2));
    let roots = vec![first.certificate.clone(), other.certificate];
    Identity { roots: roots.clone(), ..first.clone() }.store(data.path()).unwrap();
    let again = Identity::load(data.path()).unwrap().unwrap();
    assert_eq!((again.roots.clone(), again.trusts().roots.len()), (roots, 2));
    assert_ne!(again.trusts(), first.trusts());
    // As it was written before there could be more than one: the same bytes.
    first.store(data.path()).unwrap();
    let one = fs::read_to_string(data.path().join("identity/root.pem")).unwrap();
    assert_eq!(one, racimo_common::tls::certificate_to_pem(&first.certificate));
    assert_eq!(Identity::load(data.path()).unwrap().unwrap().trusts(), first.trusts());
}

/// A certificate for the key of `identity`, of another number.
fn renewed(identity: &Identity, serial: u64) -> Certified {
    let pair =
        KeyPair::from_pkcs8_der_and_sign_algo(&identity.key.0.as_slice().into(), &PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = CertificateParams::default();
    params.serial_number = Some(serial.into());
    let certificate = params.self_signed(&pair).unwrap().der().to_vec();
    let roots = vec![ByteBuf::from(certificate.clone()), ByteBuf::from(identity.certificate.to_vec())];
    Certified { certificate, roots }
}

#[test]
fn what_is_renewed_is_used_and_kept() {
    let data = tempfile::tempdir().unwrap();
    let first = identity(1);
    first.store(data.path()).unwrap();
    let own = Own::new(first.clone(), data.path());
    smol::block_on(async {
        let new = renewed(&first, 7);
        own.renew(new.clone()).await.unwrap();
        let loaded = Identity::load(data.path()).unwrap().unwrap();
        assert_eq!((&loaded.certificate[..], loaded.roots.len()), (&new.certificate[..], 2));
        assert_eq!((own.trusts(), own.identity().trusts()), (loaded.trusts(), loaded.trusts()));
        assert_eq!(loaded.key.0, first.key.0);
        own.set_managers(vec!["other:1".into()]).await.unwrap();
        own.trust(vec![new.roots[0].clone()]).await.unwrap();
        let loaded = Identity::load(data.path()).unwrap().unwrap();
        assert_eq!((loaded.roots.len(), &loaded.managers[..]), (1, &["other:1".to_owned()][..]));

        // What makes no sense changes nothing.
        let before = own.identity().trusts();
        let foreign = Certified { certificate: identity(2).certificate.to_vec(), ..new.clone() };
        assert!(matches!(own.renew(foreign).await, Err(OwnError::Unusable(_))));
        assert!(matches!(own.trust(Vec::new()).await, Err(OwnError::Roots(0))));
        assert!(matches!(own.trust(vec![ByteBuf::from(vec![1])]).await, Err(OwnError::Unusable(_))));
        assert_eq!((own.identity().trusts(), own.trusts()), (before.clone(), before));

        // The board joined again meanwhile: nothing is put in the new identity's place.
        assert!(!own.is_another());
        identity(3).store(data.path()).unwrap();
        assert!(own.is_another());
        own.renew(renewed(&first, 8)).await.unwrap();
        check_node(data.path(), Some(3));
    });
}

#[test]
fn a_disk_that_takes_nothing_keeps_the_old_one() {
    let data = tempfile::tempdir().unwrap();
    let first = identity(1);
    first.store(data.path()).unwrap();
    let own = Own::new(first.clone(), data.path());
    // Nobody can make a folder of this name.
    fs::write(data.path().join("identity.new"), "in the way").unwrap();
    smol::block_on(async {
        let error = own.renew(renewed(&first, 7)).await.unwrap_err();
        assert!(matches!(error, OwnError::Disk(_)), "{error}");
        assert_eq!(Identity::load(data.path()).unwrap().unwrap().trusts(), first.trusts());
        // It is used all the same, and not said to be kept.
        assert_eq!(own.trusts(), first.trusts());
        assert_ne!(own.identity().trusts(), first.trusts());
        fs::remove_file(data.path().join("identity.new")).unwrap();
        own.renew(renewed(&first, 8)).await.unwrap();
        assert_eq!(Identity::load(data.path()).unwrap().unwrap().trusts(), own.trusts());
    });
}

/// The agent, `pi-agent join` and `pi-agent leave` are processes of their own.
#[test]
fn who_touches_the_identity_waits_for_its_turn() {
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::time::Duration;

    type Work = fn(&Path);
    let works: [(Work, Option<u128>); 4] = [
        (|data| identity(2).store(data).unwrap(), Some(2)),
        (|data| Identity::erase(data).unwrap(), None),
        // It ends after the board has left, and brings nothing back.
        (
            |data| {
                let before = identity(1);
                let own = Own::new(before.clone(), data);
                smol::block_on(own.renew(renewed(&before, 7))).unwrap();
            },
            None,
        ),
        (|data| drop(Identity::load(data).unwrap()), None),
    ];
    for (work, want) in works {
        let (data, dir) = stored(1);
        // Somebody else has it, between two renames.
        let other = Turn::take(data.path()).unwrap();
        let old = data.path().join("identity.old");
        fs::rename(&dir, &old).unwrap();
        assert!(Turn::try_take(data.path()).is_none());
        let (done, ends) = channel();
        let path = data.path().to_owned();
        let worker = std::thread::spawn(move || {
            work(&path);
            done.send(()).unwrap();
        });
        assert_eq!(ends.recv_timeout(Duration::from_millis(200)), Err(RecvTimeoutError::Timeout), "it did not wait");
        assert!(old.exists() && !dir.exists(), "it was touched");
        fs::remove_dir_all(&old).unwrap();
        drop(other);
        worker.join().unwrap();
        check_node(data.path(), want);
        assert!(Turn::try_take(data.path()).is_some());
    }
}

#[test]
fn only_the_owner_may_look() {
    let (_data, dir) = stored(1);
    assert_eq!(mode(&dir), 0o700);
    for entry in fs::read_dir(&dir).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    let printed = format!("{:?}", identity(1));
    assert!(printed.contains("NodeKey(…)"), "{printed}");
}

#[test]
fn damage_is_found_and_named() {
    for name in ["key.pem", "cert.pem", "root.pem", "cluster.json"] {
        let (data, dir) = stored(1);
        let path = dir.join(name);
        let good = fs::read(&path).unwrap();
        let mut changed = good.clone();
        changed[good.len() / 2] ^= 1;
        for bad in [&good[..good.len() / 2], &[], &changed, &[0; 100], &[b'x'; 20_000]] {
            fs::write(&path, bad).unwrap();
            let text = Identity::load(data.path()).unwrap_err().to_string();
            assert!(text.contains(name) && text.contains("damaged"), "{text}");
        }
        fs::remove_file(&path).unwrap();
        let text = Identity::load(data.path()).unwrap_err().to_string();
        assert!(text.contains(name) && text.contains("missing"), "{text}");
        fs::write(&path, &good).unwrap();
        check_node(data.path(), Some(1));
    }
}

#[test]
fn every_bit_of_the_record_counts() {
    let (data, dir) = stored(1);
    let path = dir.join("cluster.json");
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 4;
        fs::write(&path, &bad).unwrap();
        let loaded = Identity::load(data.path());
        assert!(loaded.is_err(), "a flipped bit in byte {at} went unnoticed");
    }
}

#[test]
fn a_power_cut_leaves_the_old_or_the_new() {
    // Before the first rename: half of a new one lies about.
    let (data, dir) = stored(1);
    fs::create_dir(data.path().join("identity.new")).unwrap();
    fs::write(data.path().join("identity.new/key.pem"), "half").unwrap();
    check_node(data.path(), Some(1));
    // Between the renames.
    fs::rename(&dir, data.path().join("identity.old")).unwrap();
    check_node(data.path(), Some(1));
    // After both.
    let (other, other_dir) = stored(2);
    fs::rename(&other_dir, data.path().join("identity.old")).unwrap();
    check_node(data.path(), Some(1));
    assert!(!data.path().join("identity.old").exists());
    drop(other);
    // A new list of managers, half written.
    fs::write(dir.join("cluster.json.new"), "{").unwrap();
    check_node(data.path(), Some(1));
    identity(3).store(data.path()).unwrap();
    check_node(data.path(), Some(3));
}
