//! Chains over many rotations, and who is waited for.

use futures_rustls::rustls::client::verify_server_cert_signed_by_trust_anchor;
use futures_rustls::rustls::crypto::ring::default_provider;
use futures_rustls::rustls::pki_types::UnixTime;
use futures_rustls::rustls::server::ParsedCertificate;
use futures_rustls::rustls::{self, RootCertStore};
use racimo_common::id::{ClusterId, NodeId, RandomId};
use racimo_common::object::Role;
use racimo_common::time::Wall;
use racimo_common::tls::{self, CertificateDer};
use ring::rand::SystemRandom;

use super::Ca;
use super::root::NODE_VALIDITY_MIN;
use super::rotation::{Verdict, judge};
use crate::limits::ROOTS_RETIRED_MAX;
use crate::store::testing::{applied, at, base, edit_node, node, write_off};
use crate::store::{Change, NodeTrust, Sealed, Seen, State, View};

const NOW: Wall = Wall::from_nanos(1_790_000_000_000_000_000);

fn first() -> Ca {
    Ca::create(ClusterId::from_bits(77), NOW, &SystemRandom::new()).unwrap()
}

/// Whether somebody who trusts `root` only accepts what `last` signed, if he is shown `crosses`.
fn accepts(root: &Ca, last: &Ca, crosses: &[CertificateDer<'static>]) -> Result<(), rustls::Error> {
    let issued = last.issue_manager(NodeId::from_bits(5), NOW, NODE_VALIDITY_MIN, &SystemRandom::new()).unwrap();
    let leaf = tls::certificate_from_pem(&issued.certificates).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(root.root().clone()).unwrap();
    let at = UnixTime::since_unix_epoch(NOW.since(Wall::default()));
    let algorithms = default_provider().signature_verification_algorithms.all;
    let leaf = ParsedCertificate::try_from(&leaf).unwrap();
    verify_server_cert_signed_by_trust_anchor(&leaf, &roots, crosses, at, algorithms)
}

/// Roots one after another, and the certificates that lead from each to the next.
fn line(count: usize, next: impl Fn(&Ca) -> Ca) -> (Vec<Ca>, Vec<CertificateDer<'static>>) {
    let (mut roots, mut crosses) = (vec![first()], Vec::new());
    for _ in 0..count {
        let last = roots.last().unwrap();
        let next = next(last);
        // A manager shows the newest first.
        crosses.insert(0, last.cross_sign(&next, &SystemRandom::new()).unwrap());
        roots.push(next);
    }
    (roots, crosses)
}

#[test]
fn boards_follow_as_many_roots_as_are_remembered() {
    let successor = |last: &Ca| last.successor(NOW, &SystemRandom::new()).unwrap();
    // As many as were replaced and are remembered, and the one on its way.
    let (roots, crosses) = line(ROOTS_RETIRED_MAX + 2, successor);
    let last = roots.last().unwrap();
    for known in &roots[1..] {
        accepts(known, last, &crosses).unwrap();
    }
    accepts(&roots[0], last, &crosses).unwrap_err();
    // Each is needed.
    for at in 0..=ROOTS_RETIRED_MAX {
        let mut less = crosses.clone();
        less.remove(at);
        accepts(&roots[1], last, &less).unwrap_err();
    }
    // Whose root has the same name is nobody's.
    accepts(&first(), last, &crosses).unwrap_err();
    accepts(&roots[1], &first(), &crosses).unwrap_err();
}

#[test]
fn roots_of_one_name_are_followed_too() {
    let (roots, crosses) = line(ROOTS_RETIRED_MAX + 1, |_| first());
    for known in &roots {
        accepts(known, roots.last().unwrap(), &crosses).unwrap();
    }
}

#[test]
fn successors_have_names_of_their_own() {
    let rng = SystemRandom::new();
    let roots = [first(), first().successor(NOW, &rng).unwrap(), first().successor(NOW, &rng).unwrap()];
    let name = |ca: &Ca| x509_parser::parse_x509_certificate(ca.root()).unwrap().1.subject().to_string();
    let names: Vec<String> = roots.iter().map(name).collect();
    assert_eq!(names[0], "CN=swarm-ca");
    assert!(names[1] != names[2] && names[1..].iter().all(|name| name.contains("CN=swarm-ca")), "{names:?}");
}

#[test]
fn a_cross_certificate_is_the_next_root_by_the_one_before() {
    let (root, rng) = (first(), SystemRandom::new());
    let next = root.successor(NOW, &rng).unwrap();
    let cross = root.cross_sign(&next, &rng).unwrap();
    let (_, cross) = x509_parser::parse_x509_certificate(&cross).unwrap();
    let parse = |der| x509_parser::parse_x509_certificate(der).unwrap().1;
    let (old, new) = (parse(root.root()), parse(next.root()));
    assert_eq!(cross.subject().as_raw(), new.subject().as_raw());
    assert_eq!(cross.public_key().raw, new.public_key().raw);
    assert_eq!(cross.issuer().as_raw(), old.subject().as_raw());
    assert_eq!(cross.validity(), new.validity());
    assert!(cross.is_ca());
    cross.verify_signature(Some(old.public_key())).unwrap();
    cross.verify_signature(None).unwrap_err();
}

/// A rotation to `next` is under way, and these boards have these certificates.
fn turning(next: &Ca, has: &[(u128, &Ca)]) -> State {
    let sealed = Sealed(std::sync::Arc::new(serde_bytes::ByteBuf::from(vec![1])));
    let rotation = first().rotation(next, sealed, NOW, &SystemRandom::new()).unwrap();
    let state = applied(&base(), vec![Change::RotationBegin(Box::new(rotation))]);
    let trust = |ca: &Ca| NodeTrust { issuer: ca.root_digest(), roots: vec![ca.root_digest()], expires: at(9) };
    applied(&state, has.iter().map(|(id, ca)| Change::NodeTrust { node: node(*id), trust: trust(ca) }).collect())
}

#[track_caller]
fn check(state: State, want: Verdict) {
    assert_eq!(judge(&View { state, seen: Seen::default() }), want);
}

#[test]
fn who_is_waited_for() {
    let (next, wait) = (first(), |ids: &[u128]| Verdict::Wait(ids.iter().copied().map(node).collect()));
    check(base(), Verdict::Rest);
    check(State::default(), Verdict::Rest);
    check(turning(&next, &[]), wait(&[1, 2]));
    check(turning(&next, &[(1, &next)]), wait(&[2]));
    check(turning(&next, &[(1, &next), (2, &first())]), wait(&[2]));
    check(turning(&next, &[(1, &next), (2, &next)]), Verdict::Finish);
    let down = applied(&turning(&next, &[(1, &next)]), vec![write_off(2)]);
    check(down.clone(), Verdict::Finish);
    let removed = applied(&turning(&next, &[(2, &next)]), vec![Change::NodeRemove { node: node(1) }]);
    check(removed, Verdict::Finish);
    // The manager has to have one of its own, whatever is thought of it.
    let mut manager = down;
    edit_node(&mut manager, 2, |node| node.role = Role::Manager);
    check(manager, wait(&[2]));
}
