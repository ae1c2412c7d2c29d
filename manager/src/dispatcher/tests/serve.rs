//! Over real TLS on loopback.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_lite::AsyncWriteExt;
use racimo_agent::link::dial::dial;
use racimo_common::id::{ClusterId, RandomId};
use racimo_common::limits::{FRAME_FROM_AGENT_MAX, FRAME_JOIN_MAX, FRAME_TO_AGENT_MAX};
use racimo_common::object::Role;
use racimo_common::time::{Clock, Wall};
use racimo_common::tls::{self, ClientConfig, Credentials, TrustClock};
use racimo_common::token::JoinToken;
use racimo_common::wire::{Join, Refused, RefusedCode, Renew, ToAgent, ToManager, frame};
use ring::rand::SystemRandom;
use smol::Async;

use super::board::hello;
use super::{OWN, authority, with_key, within};
use crate::ca::{Ca, CertRequest, NODE_VALIDITY};
use crate::dispatcher::serve::{Dispatcher, Parts};
use crate::gate::notes::Notes;
use crate::limits;
use crate::store::log::fake::Disk;
use crate::store::testing::*;
use crate::store::{Change, Store};

pub(super) struct Served {
    pub(super) ca: Arc<Ca>,
    pub(super) store: Store,
    address: SocketAddr,
    dispatcher: Dispatcher,
}

impl Served {
    /// A connection, if it is let in.
    pub(super) async fn dial(
        &self,
        client: Arc<ClientConfig>,
    ) -> Option<impl futures_lite::AsyncRead + futures_lite::AsyncWrite + Unpin> {
        dial(&self.address.to_string(), client).await.ok()
    }
}

fn request(pair: &rcgen::KeyPair) -> Vec<u8> {
    rcgen::CertificateParams::default().serialize_request(pair).expect("a request").der().to_vec()
}

/// A manager that listens on loopback; node 1 is a member, and node 2 with another key than [`KEY`].
pub(super) fn serve() -> Served {
    let (clock, rng) = (Clock::start(), SystemRandom::new());
    let now = clock.now().wall;
    let ca = Arc::new(Ca::create(ClusterId::from_bits(9), now, &rng).expect("a root"));
    let store = Store::open(Disk::new(1), 1).expect("a store");
    within(store.commit(at(1), vec![new_cluster(), with_key(new_node(1), &request(&KEY)), new_node(2)]))
        .expect("committed");
    let authority = authority(&ca);
    let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).expect("a port");
    let address = listener.get_ref().local_addr().expect("an address");
    let vault = crate::vault::testing();
    let logs = Default::default();
    let notes = Notes::new(clock);
    let parts = Parts { store: store.clone(), clock, authority, vault, own: node(OWN), logs, notes };
    Served { ca, store, address, dispatcher: Dispatcher::start(parts, listener, None) }
}

/// A client that shows a certificate of `ca` for this node.
fn member(ca: &Ca, number: u128) -> Arc<ClientConfig> {
    member_since(ca, number, Clock::start().now().wall)
}

/// The key of node 1.
static KEY: LazyLock<rcgen::KeyPair> = LazyLock::new(|| rcgen::KeyPair::generate().expect("a key"));

/// The same with a certificate of that time.
fn member_since(ca: &Ca, number: u128, at: Wall) -> Arc<ClientConfig> {
    let pair = &*KEY;
    let request = CertRequest::parse(&request(pair)).expect("a request");
    let signed = ca.issue(&request, node(number), Role::Worker, at, NODE_VALIDITY, &SystemRandom::new());
    let key = tls::key_from_pem(&pair.serialize_pem()).expect("a key");
    let own = Credentials::new(vec![signed.expect("signed").der, ca.root().clone()], key).expect("usable");
    tls::session_client(&[ca.root().clone()], &own, TrustClock::standing(Wall::default())).expect("usable")
}

pub(super) fn nobody(ca: &Ca) -> Arc<ClientConfig> {
    tls::join_client(ca.root_digest(), TrustClock::standing(Wall::default())).0
}

/// The answer to one message; `None` if there is none.
#[track_caller]
fn talk(served: &Served, client: Arc<ClientConfig>, message: &ToManager) -> Option<ToAgent> {
    within(async {
        let mut stream = dial(&served.address.to_string(), client).await.ok()?;
        frame::send(&mut stream, message, FRAME_FROM_AGENT_MAX).await.ok()?;
        frame::receive(&mut stream, FRAME_TO_AGENT_MAX).await.ok()?
    })
}

#[track_caller]
fn check_refused(answer: Option<ToAgent>, want: RefusedCode) {
    match answer {
        Some(ToAgent::Refused(Refused { code, .. })) => assert_eq!(code, want),
        other => panic!("{other:?} is no refusal"),
    }
}

#[test]
fn members_newcomers_and_strangers() {
    let served = serve();
    let welcome = talk(&served, member(&served.ca, 1), &hello((1, 1)));
    assert!(matches!(welcome, Some(ToAgent::Welcome(w)) if w.node == node(1)));
    assert_eq!(served.store.view().state.node(node(1)).map(|n| n.addr.clone()), Some("127.0.0.1".to_owned()));
    check_refused(talk(&served, member(&served.ca, 5), &hello((1, 1))), RefusedCode::NotMember);
    check_refused(talk(&served, member(&served.ca, 2), &hello((1, 1))), RefusedCode::NotMember);
    check_refused(talk(&served, nobody(&served.ca), &hello((1, 1))), RefusedCode::Protocol);
    check_refused(talk(&served, nobody(&served.ca), &ToManager::Bye { leaving: true }), RefusedCode::Protocol);

    // Another root, and a certificate of another cluster under the same root.
    let other = Ca::create(ClusterId::from_bits(9), Clock::start().now().wall, &SystemRandom::new()).expect("a root");
    assert_eq!(talk(&served, member(&other, 1), &hello((1, 1))), None);
    let twin = Ca::load(ClusterId::from_bits(8), &served.ca.root_pem(), &served.ca.key_pem()).expect("a root");
    assert_eq!(talk(&served, member(&twin, 1), &hello((1, 1))), None);
    assert!(!served.store.view().is_ready(node(1)));
}

#[test]
fn a_certificate_that_is_over_is_good_for_another_one() {
    let served = serve();
    let long_ago = Clock::start().now().wall - NODE_VALIDITY * 2;
    // The root is of today; nobody looks at its time.
    let old = member_since(&served.ca, 1, long_ago);
    check_refused(talk(&served, old.clone(), &hello((1, 1))), RefusedCode::Expired);
    let csr = request(&KEY);
    let renew = |csr: &[u8]| ToManager::Renew(Renew { csr: csr.to_vec() });
    let Some(ToAgent::Certified(certified)) = talk(&served, old.clone(), &renew(&csr)) else {
        panic!("no certificate")
    };
    assert_eq!(certified.roots, [served.ca.root().to_vec()]);
    let key = tls::key_from_pem(&KEY.serialize_pem()).expect("a key");
    let own = Credentials::new(vec![certified.certificate.into()], key).expect("it is for this key");
    let roots = [served.ca.root().clone()];
    let new = tls::session_client(&roots, &own, TrustClock::standing(Wall::default())).expect("usable");
    assert!(matches!(talk(&served, new, &hello((1, 1))), Some(ToAgent::Welcome(_))));

    let other = rcgen::KeyPair::generate().expect("a key");
    check_refused(talk(&served, old.clone(), &renew(&request(&other))), RefusedCode::Protocol);
    check_refused(talk(&served, old.clone(), &renew(&csr[..20])), RefusedCode::Protocol);
    check_refused(talk(&served, member_since(&served.ca, 2, long_ago), &renew(&csr)), RefusedCode::NotMember);
    check_refused(talk(&served, nobody(&served.ca), &renew(&csr)), RefusedCode::Protocol);
    within(served.store.commit(at(9), vec![Change::NodeRemove { node: node(1) }])).expect("committed");
    check_refused(talk(&served, old, &renew(&csr)), RefusedCode::NotMember);
}

#[test]
fn a_newcomer_joins_and_opens_a_session() {
    let served = serve();
    let pair = rcgen::KeyPair::generate().expect("a key");
    let csr = rcgen::CertificateParams::default().serialize_request(&pair).expect("a request").der().to_vec();
    let token = |secret| JoinToken::new(served.ca.root_digest(), [secret; 16]).to_string();
    let join = |secret| {
        ToManager::Join(Join { versions: (1, 1), token: token(secret), csr: csr.clone(), hostname: "b".into() })
    };
    check_refused(talk(&served, nobody(&served.ca), &join(7)), RefusedCode::Token);
    // The first answer gets lost.
    let nodes: Vec<_> = (0..2)
        .map(|_| match talk(&served, nobody(&served.ca), &join(1)) {
            Some(ToAgent::Joined(joined)) => joined,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(nodes[0].node, nodes[1].node);
    assert_eq!(served.store.view().state.nodes().count(), 3);
    let certificate = tls::CertificateDer::from(nodes[0].certificate.clone());
    let key = tls::key_from_pem(&pair.serialize_pem()).expect("a key");
    let own = Credentials::new(vec![certificate, served.ca.root().clone()], key).expect("usable");
    let client =
        tls::session_client(&[served.ca.root().clone()], &own, TrustClock::standing(Wall::default())).expect("usable");
    assert!(matches!(talk(&served, client, &hello((1, 1))), Some(ToAgent::Welcome(_))));
}

#[test]
fn a_newcomer_may_not_send_much() {
    let served = serve();
    let answer = within(async {
        let mut stream = dial(&served.address.to_string(), nobody(&served.ca)).await.expect("a connection");
        let header = u32::try_from(FRAME_JOIN_MAX + 1).expect("fits").to_be_bytes();
        stream.write_all(&header).await.expect("sent");
        stream.flush().await.expect("sent");
        frame::receive::<ToAgent>(&mut stream, FRAME_TO_AGENT_MAX).await
    });
    assert!(!matches!(answer, Ok(Some(_))), "{answer:?}");
}

fn connect(served: &Served) -> TcpStream {
    let stream = TcpStream::connect(served.address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    stream
}

#[test]
fn too_many_handshakes_are_turned_away_and_members_come_in() {
    let served = serve();
    // No member was seen at this address yet.
    let mut idle: Vec<TcpStream> =
        (0..limits::HANDSHAKES_MAX - limits::HANDSHAKES_KNOWN_MIN).map(|_| connect(&served)).collect();
    // Closed at once, not when a handshake takes too long.
    assert!(!matches!(connect(&served).read(&mut [0]), Ok(1..)));
    idle[0].set_nonblocking(true).expect("it is open");
    let waits = idle[0].read(&mut [0]).expect_err("it waits");
    assert_eq!(waits.kind(), std::io::ErrorKind::WouldBlock);
    // There is room again once one has gone.
    idle.truncate(100);
    let dial = || {
        (0..50).find_map(|_| {
            std::thread::sleep(Duration::from_millis(100));
            talk(&served, member(&served.ca, 1), &hello((1, 1)))
        })
    };
    assert!(matches!(dial(), Some(ToAgent::Welcome(_))));
    // Now one was: there is more room for those who come from there, and they give way to each other after a while.
    std::thread::sleep(Duration::from_millis(1100));
    let strangers = |number: usize| (0..number).map(|_| connect(&served)).collect::<Vec<_>>();
    let held = strangers(limits::HANDSHAKES_MAX);
    assert!(matches!(dial(), Some(ToAgent::Welcome(_))));
    drop((idle, held));
}

/// What a connection that shows nothing may cost; the rest of a frame is never sent.
#[test]
fn a_slow_newcomer_ends() {
    let served = serve();
    let started = std::time::Instant::now();
    let answer = within(async {
        let mut stream = dial(&served.address.to_string(), nobody(&served.ca)).await.expect("a connection");
        stream.write_all(&100_u32.to_be_bytes()).await.expect("sent");
        stream.flush().await.expect("sent");
        frame::receive::<ToAgent>(&mut stream, FRAME_TO_AGENT_MAX).await
    });
    assert!(!matches!(answer, Ok(Some(_))), "{answer:?}");
    assert!(started.elapsed() >= limits::HELLO_WITHIN / 2, "it had its time");
}

#[test]
fn many_connections_of_one_member_are_busy() {
    let served = serve();
    let client = member(&served.ca, 1);
    let mut open = Vec::new();
    let answer = within(async {
        loop {
            let mut stream = dial(&served.address.to_string(), client.clone()).await.expect("a connection");
            // Beyond the limit it is refused without being asked; below it nothing comes.
            let word = async { frame::receive::<ToAgent>(&mut stream, FRAME_TO_AGENT_MAX).await.ok().flatten() };
            let none = async {
                smol::Timer::after(Duration::from_millis(300)).await;
                None
            };
            match smol::future::or(word, none).await {
                Some(answer) => return answer,
                None => open.push(stream),
            }
        }
    });
    check_refused(Some(answer), RefusedCode::Busy);
    assert_eq!(open.len(), limits::NODE_CONNECTIONS_MAX);
    drop(open);
}

#[test]
fn a_dispatcher_that_stopped_leaves_its_port() {
    let Served { address, dispatcher, .. } = serve();
    within(dispatcher.stop());
    TcpListener::bind(address).expect("the port is free");
}
