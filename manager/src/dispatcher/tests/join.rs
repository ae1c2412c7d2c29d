use futures_lite::future::zip;
use racimo_common::id::NodeId;
use racimo_common::object::Role;
use racimo_common::token::JoinToken;
use racimo_common::wire::{Join, Joined, RefusedCode, Renew, ToAgent, ToManager, Trusts};

use super::board::{Board, hello_with};
use super::{Manager, within};
use crate::ca::Peer;
use crate::dispatcher::join::answer;
use crate::dispatcher::session::Other;
use crate::gate::door::Guest;
use crate::store::testing::*;
use crate::store::{Change, ClusterSpec};

fn request() -> Vec<u8> {
    let key = rcgen::KeyPair::generate().expect("a key");
    rcgen::CertificateParams::default().serialize_request(&key).expect("a request").der().to_vec()
}

/// A request with the secret of [`new_cluster`]'s worker (1) or manager (2) token, or another.
fn join(manager: &Manager, secret: u8, csr: &[u8]) -> Join {
    let token = JoinToken::new(manager.context.authority.now().token_root(), [secret; 16]).to_string();
    Join { versions: (1, 1), token, csr: csr.to_vec(), hostname: "bo\u{7}ard".to_owned() }
}

fn guest(manager: &Manager) -> Guest<NodeId> {
    manager.context.door.knock([192, 0, 2, 7].into(), false).expect("it comes in")
}

fn ask(manager: &Manager, join: Join) -> Result<Joined, (RefusedCode, String)> {
    match within(answer(&manager.context, join, "192.0.2.7", &guest(manager))) {
        ToAgent::Joined(joined) => Ok(joined),
        ToAgent::Refused(refused) => Err((refused.code, refused.reason)),
        other @ (ToAgent::Welcome(_)
        | ToAgent::Net(_)
        | ToAgent::Assign(_)
        | ToAgent::Pong(_)
        | ToAgent::Renew
        | ToAgent::Certified(_)
        | ToAgent::Roots(_)
        | ToAgent::Managers(_)
        | ToAgent::LogsOpen(_)
        | ToAgent::LogsMore { .. }
        | ToAgent::LogsClose { .. }) => panic!("{other:?}"),
    }
}

#[test]
fn a_board_joins_once_however_often_it_asks() {
    let manager = Manager::new(Vec::new());
    let csr = request();
    let joined = ask(&manager, join(&manager, 1, &csr)).expect("it joins");
    assert_eq!((joined.role, &joined.managers[..]), (Role::Worker, &["m:2377".to_owned()][..]));
    let peer = Peer::of(&joined.certificate, &[]).expect("a member");
    assert_eq!((peer.node, peer.cluster), (joined.node, joined.cluster));
    let state = manager.view().state;
    let node = state.node(joined.node).expect("it is stored");
    assert_eq!((node.description.hostname.as_str(), node.addr.as_str()), ("board", "192.0.2.7"));
    assert_eq!(node.key_digest, Some(peer.key_digest));
    let again = ask(&manager, join(&manager, 1, &csr)).expect("it joins again");
    assert_eq!(again.node, joined.node);
    let other = ask(&manager, join(&manager, 1, &request())).expect("another joins");
    assert_ne!(other.node, joined.node);
    assert_eq!(manager.view().state.nodes().count(), 2);
}

#[test]
fn two_requests_at_once_with_one_key_are_one_node() {
    let manager = Manager::new(Vec::new());
    for _ in 0..30 {
        let csr = request();
        let guest = guest(&manager);
        let ask = || answer(&manager.context, join(&manager, 1, &csr), "192.0.2.7", &guest);
        let (ToAgent::Joined(one), ToAgent::Joined(two)) = within(zip(ask(), ask())) else { panic!("refused") };
        assert_eq!(one.node, two.node);
    }
    assert_eq!(manager.view().state.nodes().count(), 30);
}

#[track_caller]
fn check_refused(edit: fn(&Manager, &mut Join), want: RefusedCode, words: &str) {
    let manager = Manager::new(Vec::new());
    let mut join = join(&manager, 1, &request());
    edit(&manager, &mut join);
    let (code, reason) = ask(&manager, join).expect_err("refused");
    assert_eq!(code, want);
    assert!(reason.contains(words), "{reason}");
    assert_eq!(manager.view().state.nodes().count(), 0);
}

#[test]
fn refusals() {
    use RefusedCode::*;
    check_refused(|m, j| j.token = join(m, 5, &[]).token, Token, "valid join token");
    check_refused(|m, j| j.token = join(m, 2, &[]).token, Token, "use the worker token");
    check_refused(|_, j| j.token = JoinToken::new([3; 32], [1; 16]).to_string(), Token, "another cluster");
    check_refused(|_, j| j.token = "SWMTKN-1-x".to_owned(), Token, "");
    check_refused(|_, j| j.csr.truncate(20), Protocol, "certificate request");
    check_refused(|_, j| j.versions = (8, 9), Version, "upgrade");
}

#[test]
fn a_rotated_token_lets_nobody_in() {
    let manager = Manager::new(Vec::new());
    let version = manager.view().state.cluster().expect("a cluster").meta.version;
    let (spec, worker_secret) = (ClusterSpec::default(), Some([6; 16].into()));
    manager.commit(Change::ClusterUpdate { version, spec, worker_secret, manager_secret: None });
    ask(&manager, join(&manager, 1, &request())).expect_err("the old token");
    ask(&manager, join(&manager, 6, &request())).expect("the new token");
}

#[test]
fn a_removed_board_joins_as_a_new_node_and_its_old_certificate_is_of_no_use() {
    let manager = Manager::new(vec![new_node(1)]);
    let csr = request();
    let joined = ask(&manager, join(&manager, 1, &csr)).expect("it joins");
    let says = |joined: &Joined, first: &ToManager| {
        let known = manager.context.authority.now().roots.known();
        let peer = Peer::of(&joined.certificate, &known).expect("a member's");
        let mut board = Board::connect_as(&manager, Other::Certified(peer));
        board.say(first);
        board.hear()
    };
    let hello = || hello_with(Trusts::default());
    assert!(matches!(says(&joined, &hello()), ToAgent::Welcome(_)));
    manager.commit(Change::NodeRemove { node: joined.node });
    // The same key again: another node.
    let again = ask(&manager, join(&manager, 1, &csr)).expect("it joins again");
    assert_ne!(again.node, joined.node);
    for first in [hello(), ToManager::Renew(Renew { csr: csr.clone() })] {
        let ToAgent::Refused(refused) = says(&joined, &first) else { panic!("the old certificate works") };
        assert_eq!(refused.code, RefusedCode::NotMember, "{}", refused.reason);
    }
    assert!(matches!(says(&again, &hello()), ToAgent::Welcome(_)));
}
