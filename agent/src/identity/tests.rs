//! Identities on disk, cut and damaged.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use racimo_common::id::RandomId;
use ring::rand::SystemRandom;

use super::*;

fn identity(bits: u128) -> Identity {
    let key = NodeKey::generate(&SystemRandom::new()).unwrap();
    let pair = KeyPair::from_pkcs8_der_and_sign_algo(&key.0.as_slice().into(), &PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate = CertificateParams::default().self_signed(&pair).unwrap().der().clone();
    Identity {
        cluster: ClusterId::from_bits(1),
        node: NodeId::from_bits(bits),
        role: Role::Worker,
        managers: vec!["10.0.0.1:2377".into()],
        root: certificate.clone(),
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
    let mut first = identity(1);
    first.store(data.path()).unwrap();
    let again = Identity::load(data.path()).unwrap().unwrap();
    assert_eq!(again.key.0, first.key.0);
    assert_eq!(again.certificate, first.certificate);
    assert_eq!(again.managers, first.managers);
    first.set_managers(data.path(), &["a:1".into(), "b:2".into()]).unwrap();
    assert_eq!(Identity::load(data.path()).unwrap().unwrap().managers, ["a:1", "b:2"]);
    identity(2).store(data.path()).unwrap();
    check_node(data.path(), Some(2));
    assert_eq!(fs::read_dir(data.path()).unwrap().count(), 1);
    Identity::erase(data.path()).unwrap();
    check_node(data.path(), None);
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
