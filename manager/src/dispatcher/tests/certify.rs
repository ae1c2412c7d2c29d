//! Certificates that are renewed inside of sessions.

use std::time::Duration;

use racimo_common::object::Role;
use racimo_common::time::{Clock, Wall};
use racimo_common::tls::{self, CertificateDer};
use racimo_common::wire::{Certified, RefusedCode, Renew, ToAgent, ToManager, Trusts};
use ring::rand::SystemRandom;

use super::board::{Board, hello_with};
use super::{Manager, with_key};
use crate::ca::{Ca, CertRequest, NODE_VALIDITY, Peer, Present, Roots};
use crate::dispatcher::session::Other;
use crate::limits::RENEWALS_BURST;
use crate::store::NodeTrust;
use crate::store::testing::*;

const HOUR: Duration = Duration::from_secs(3600);

/// A board's key: its request for a certificate.
pub(super) struct Key(pub(super) Vec<u8>);

impl Key {
    pub(super) fn draw() -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        Self(rcgen::CertificateParams::default().serialize_request(&key).expect("a request").der().to_vec())
    }

    pub(super) fn renew(&self) -> ToManager {
        ToManager::Renew(Renew { csr: self.0.clone() })
    }
}

pub(super) fn now() -> Wall {
    Clock::start().now().wall
}

/// A certificate for node 1, signed at that time for an hour.
pub(super) fn certificate(ca: &Ca, key: &Key, at: Wall) -> CertificateDer<'static> {
    let request = CertRequest::parse(&key.0).expect("a request");
    ca.issue(&request, node(1), Role::Worker, at, HOUR, &SystemRandom::new()).expect("signed").der
}

pub(super) fn trusts(certificate: &[u8], roots: &[&[u8]]) -> Trusts {
    Trusts { certificate: tls::digest(certificate), roots: roots.iter().map(|root| tls::digest(root)).collect() }
}

/// A session of node 1 with this certificate, and what it says that it has on its disk.
#[track_caller]
fn open(manager: &Manager, certificate: &[u8], kept: Trusts) -> Board {
    let known = manager.context.authority.now().roots.known();
    let peer = Peer::of(certificate, &known).expect("a member's");
    let mut board = Board::connect_as(manager, Other::Certified(peer));
    board.say(&hello_with(kept));
    assert!(matches!(board.hear(), ToAgent::Welcome(_)));
    board.hear_net();
    board.hear_assign();
    board
}

/// What the manager asks after this heartbeat. What it was moved to by the first one it says before it answers the
/// second.
#[track_caller]
fn asked(board: &mut Board, number: u64) -> Option<ToAgent> {
    let mut asked = None;
    for number in [number, number + 1] {
        board.say(&ToManager::Heartbeat(number));
        loop {
            let heard = board.hear();
            if heard == ToAgent::Pong(number) {
                break;
            }
            assert_eq!(asked.replace(heard), None, "it asks once");
        }
    }
    asked
}

/// What the manager asks, sooner or later: it may have something to store first.
#[track_caller]
fn hear_asked(board: &mut Board, number: u64) -> ToAgent {
    let mut numbers = (number..number + 1000).step_by(2);
    let asked = numbers.find_map(|number| {
        let asked = asked(board, number);
        if asked.is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        asked
    });
    asked.expect("the manager asks")
}

fn trust(manager: &Manager) -> Option<NodeTrust> {
    manager.view().state.node(node(1)).and_then(|node| node.trust.clone())
}

#[track_caller]
fn certified(board: &mut Board) -> Certified {
    let heard = board.hear();
    let ToAgent::Certified(certified) = heard else { panic!("{heard:?}") };
    certified
}

#[test]
fn a_certificate_is_renewed_and_the_session_goes_on() {
    let key = Key::draw();
    let manager = Manager::new(vec![with_key(new_node(1), &key.0)]);
    let present = manager.context.authority.now();
    let root = present.ca.root().to_vec();
    let fresh = certificate(&present.ca, &key, now());
    let mut board = open(&manager, &fresh, trusts(&fresh, &[&root]));
    assert_eq!(asked(&mut board, 1), None, "it is good for long");
    let expires = |certificate: &[u8]| tls::validity(&certificate.to_vec().into()).expect("readable").1;
    let known = |certificate: &[u8], roots: &[&[u8]]| NodeTrust {
        issuer: tls::digest(&root),
        roots: roots.iter().map(|root| tls::digest(root)).collect(),
        expires: expires(certificate),
    };
    manager.until(|_| trust(&manager) == Some(known(&fresh, &[&root])));
    // Nobody asked: it may have been long on its way. It gets no certificate.
    board.say(&key.renew());
    assert_eq!(asked(&mut board, 5), None);

    let old = certificate(&present.ca, &key, now() - HOUR * 9 / 10);
    let mut board = open(&manager, &old, trusts(&old, &[&root]));
    assert_eq!(hear_asked(&mut board, 1000), ToAgent::Renew);
    assert_eq!(asked(&mut board, 3), None, "it has been asked");
    board.say(&key.renew());
    let new = certified(&mut board);
    assert_eq!(new.roots, std::slice::from_ref(&root));
    let peer = Peer::of(&new.certificate, &present.roots.known()).expect("a member's");
    assert_eq!((peer.node, peer.role), (node(1), Role::Worker));
    manager.until(|_| trust(&manager) == Some(known(&old, &[&root])));
    assert_eq!(asked(&mut board, 5), None, "it has been asked");
    assert_eq!(trust(&manager), Some(known(&old, &[&root])), "it has not said that it keeps it");
    board.say(&ToManager::Trusts(trusts(&new.certificate, &[&root])));
    manager.until(|_| trust(&manager) == Some(known(&new.certificate, &[&root])));
    assert_eq!(asked(&mut board, 7), None);
}

#[test]
fn another_root_is_brought_to_a_board() {
    let key = Key::draw();
    let manager = Manager::new(vec![with_key(new_node(1), &key.0)]);
    let authority = manager.context.authority.clone();
    let before = authority.now();
    let (old_root, old) = (before.ca.root().clone(), certificate(&before.ca, &key, now()));
    let mut board = open(&manager, &old, trusts(&old, &[&old_root]));
    assert_eq!(asked(&mut board, 1), None);
    // A root is on its way. (What signs its key across plays no part here.)
    let rng = SystemRandom::new();
    let coming = || Ca::create(before.ca.cluster(), now(), &SystemRandom::new()).expect("a root");
    let next = coming();
    let next_pem = (next.root_pem(), next.key_pem());
    let again = || Ca::load(before.ca.cluster(), &next_pem.0, &next_pem.1).expect("a root");
    let new_root = next.root().clone();
    let roots = Roots { coming: Some((new_root.clone(), new_root.clone())), ..before.roots.clone() };
    authority.replace(Present::make(next, roots, node(77), now(), NODE_VALIDITY, &rng).expect("usable"));
    assert_eq!(hear_asked(&mut board, 3000), ToAgent::Renew);
    board.say(&key.renew());
    let new = certified(&mut board);
    assert_eq!(new.roots, [old_root.to_vec(), new_root.to_vec()]);
    board.say(&ToManager::Trusts(trusts(&new.certificate, &[&old_root, &new_root])));
    manager.until(|_| trust(&manager).is_some_and(|trust| trust.issuer == tls::digest(&new_root)));
    // It has come: the old one counts no more.
    let roots = Roots { retired: vec![(old_root.clone(), new_root.clone())], ..Roots::only(new_root.clone()) };
    authority.replace(Present::make(again(), roots, node(77), now(), NODE_VALIDITY, &rng).expect("usable"));
    assert_eq!(hear_asked(&mut board, 5000), ToAgent::Roots(vec![new_root.to_vec().into()]));
    board.say(&ToManager::Trusts(trusts(&new.certificate, &[&new_root])));
    manager.until(|_| trust(&manager).is_some_and(|trust| trust.roots == [tls::digest(&new_root)]));
    assert_eq!(asked(&mut board, 7), None);

    // A board that was off all the while may only renew.
    let peer = Peer::of(&old, &authority.now().roots.known()).expect("a member's");
    let mut late = Board::connect_as(&manager, Other::Certified(peer.clone()));
    late.say(&hello_with(trusts(&old, &[&old_root])));
    assert_eq!(late.hear_refusal().0, RefusedCode::Expired);
    let mut late = Board::connect_as(&manager, Other::Certified(peer));
    late.say(&key.renew());
    assert_eq!(certified(&mut late).roots, [new_root.to_vec()]);
    assert!(late.hear_any().is_none(), "the connection is closed");
}

#[test]
fn what_a_board_shows_and_did_not_keep_is_renewed_again() {
    let key = Key::draw();
    let manager = Manager::new(vec![with_key(new_node(1), &key.0)]);
    let present = manager.context.authority.now();
    let (root, new) = (present.ca.root().to_vec(), certificate(&present.ca, &key, now()));
    let old = certificate(&present.ca, &key, now() - HOUR);
    let mut board = open(&manager, &new, trusts(&old, &[&root]));
    assert_eq!(hear_asked(&mut board, 1000), ToAgent::Renew);
    assert_eq!(trust(&manager), None, "it would be lost with the board's next start");
    board.say(&key.renew());
    let kept = certified(&mut board);
    board.say(&ToManager::Trusts(trusts(&kept.certificate, &[&root])));
    manager.until(|_| trust(&manager).is_some());
    assert_eq!(asked(&mut board, 3), None);
    let many = Trusts { roots: vec![[1; 32]; 5], ..Trusts::default() };
    board.say(&ToManager::Trusts(many));
    assert_eq!(board.hear_refusal().0, RefusedCode::Protocol);
}

/// It would take what it cannot read for a broken protocol.
#[test]
fn an_agent_of_before_renewal_is_asked_nothing() {
    let key = Key::draw();
    let manager = Manager::new(vec![with_key(new_node(1), &key.0)]);
    let present = manager.context.authority.now();
    let due = certificate(&present.ca, &key, now() - HOUR * 9 / 10);
    let mut board = open(&manager, &due, Trusts::default());
    for number in 0..5 {
        assert_eq!(asked(&mut board, 2 * number), None);
    }
}

/// Each time is a signature.
#[test]
fn a_board_that_never_keeps_what_it_gets_is_signed_for_a_few_times() {
    let key = Key::draw();
    let manager = Manager::new(vec![with_key(new_node(1), &key.0)]);
    let present = manager.context.authority.now();
    let root = present.ca.root().to_vec();
    let old = certificate(&present.ca, &key, now() - HOUR * 9 / 10);
    let mut board = open(&manager, &old, trusts(&old, &[&root]));
    let mut signed = 0;
    for number in 1..=3 * u64::from(RENEWALS_BURST) {
        if asked(&mut board, 2 * number) == Some(ToAgent::Renew) {
            board.say(&key.renew());
            certified(&mut board);
            signed += 1;
        }
        board.say(&ToManager::Trusts(Trusts { certificate: [7; 32], roots: vec![tls::digest(&root)] }));
    }
    assert_eq!(signed, RENEWALS_BURST);
}
