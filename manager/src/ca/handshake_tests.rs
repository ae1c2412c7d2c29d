//! The whole way over a loopback connection: the agent's side against the manager's, friendly and not.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use futures_rustls::{TlsAcceptor, TlsConnector};
use racimo_agent::identity::Identity;
use racimo_agent::link::dial::{DialError, dial};
use racimo_agent::link::join::{JoinError, join};
use racimo_common::id::{ClusterId, NodeId, RandomId};
use racimo_common::limits::{FRAME_JOIN_MAX, FRAME_TO_AGENT_MAX};
use racimo_common::object::Role;
use racimo_common::time::{Clock, Wall};
use racimo_common::tls::{self, CertificateDer, ClientConfig, Credentials, ServerConfig, TlsFault, TrustClock};
use racimo_common::token::JoinToken;
use racimo_common::wire::frame::{self, FrameError};
use racimo_common::wire::{RefusedCode, ToAgent, ToManager};
use ring::rand::SystemRandom;
use smol::net::{TcpListener, TcpStream};
use smol::{LocalExecutor, Timer};

use super::{Ca, JoinTokens, NODE_VALIDITY, Peer, Present, Roots, admit};

const PATIENCE: Duration = Duration::from_secs(20);

fn now() -> Wall {
    Clock::start().now().wall
}

fn clock() -> TrustClock {
    TrustClock::standing(Wall::default())
}

/// A cluster with one manager, as far as trust goes.
struct Cluster {
    authority: Present,
    tokens: JoinTokens,
    server: Arc<ServerConfig>,
    rng: SystemRandom,
    /// Why connections failed, as the manager saw it.
    faults: RefCell<Vec<TlsFault>>,
    /// Who came with a certificate.
    peers: RefCell<Vec<Peer>>,
    /// The keys that asked to join.
    asked: RefCell<Vec<[u8; 32]>>,
    /// How many of the first answers get lost.
    answers_lost: usize,
}

impl Cluster {
    fn new() -> Self {
        Self::signed_at(now())
    }

    fn signed_at(at: Wall) -> Self {
        let rng = SystemRandom::new();
        let ca = Ca::create(ClusterId::from_bits(9), at, &rng).unwrap();
        let tokens = JoinTokens::draw(ca.root_digest(), &rng).unwrap();
        let roots = Roots::only(ca.root().clone());
        let authority = Present::make(ca, roots, NodeId::from_bits(1), at, NODE_VALIDITY, &rng).unwrap();
        let (faults, peers, asked) = Default::default();
        Self { tokens, server: authority.tls.clone(), authority, rng, faults, peers, asked, answers_lost: 0 }
    }

    /// A member's key and certificate.
    fn member(&self, role: Role, at: Wall) -> Credentials {
        let pair = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&pair).unwrap();
        let request = super::CertRequest::parse(csr.der()).unwrap();
        let signed =
            self.authority.ca.issue(&request, NodeId::from_bits(2), role, at, NODE_VALIDITY, &self.rng).unwrap();
        let root = self.authority.ca.root().clone();
        Credentials::new(vec![signed.der, root], tls::key_from_pem(&pair.serialize_pem()).unwrap()).unwrap()
    }

    fn session(&self, own: &Credentials) -> Arc<ClientConfig> {
        tls::session_client(std::slice::from_ref(self.authority.ca.root()), own, clock()).unwrap()
    }

    /// Serves connections one after another, until dropped.
    async fn serve(&self, listener: &TcpListener, config: Arc<ServerConfig>) {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let result = self.serve_one(tcp, Arc::clone(&config)).await;
            if let Err(FrameError::Io(e)) = result {
                self.faults.borrow_mut().extend(TlsFault::of(&e));
            }
        }
    }

    /// Answers a Join; says `Pong(7)` to members.
    async fn serve_one(&self, tcp: TcpStream, config: Arc<ServerConfig>) -> Result<(), FrameError> {
        let mut stream = TlsAcceptor::from(config).accept(tcp).await.map_err(FrameError::Io)?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first().cloned());
        if let Some(certificate) = certificate {
            self.peers
                .borrow_mut()
                .push(Peer::of(&certificate, std::slice::from_ref(self.authority.ca.root())).unwrap());
            return frame::send(&mut stream, &ToAgent::Pong(7), FRAME_TO_AGENT_MAX).await;
        }
        let Some(ToManager::Join(ask)) = frame::receive(&mut stream, FRAME_JOIN_MAX).await? else {
            return Ok(());
        };
        let answer = match admit::judge(&self.tokens, &ask) {
            Err(refused) => ToAgent::Refused(refused),
            Ok(admission) => {
                self.asked.borrow_mut().push(admission.request.key_digest());
                if self.asked.borrow().len() <= self.answers_lost {
                    return Ok(());
                }
                let managers = ["m:2377".to_owned()];
                let joined =
                    admission.grant(&self.authority, NodeId::from_bits(5), &managers, now(), NODE_VALIDITY, &self.rng);
                ToAgent::Joined(joined.unwrap())
            }
        };
        frame::send(&mut stream, &answer, FRAME_TO_AGENT_MAX).await?;
        stream.close().await.map_err(FrameError::Io)
    }
}

/// Runs `client` with the address of a server that does what `server` says, and no longer than [`PATIENCE`].
fn against<T>(server: impl AsyncFn(&TcpListener), client: impl AsyncFnOnce(String) -> T) -> T {
    let work = async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let serving = async {
            server(&listener).await;
            future::pending().await
        };
        future::or(client(address), serving).await
    };
    let late = async {
        Timer::after(PATIENCE).await;
        panic!("it hangs");
    };
    smol::block_on(LocalExecutor::new().run(future::or(work, late)))
}

fn join_as(cluster: &Cluster, token: &JoinToken) -> Result<Identity, JoinError> {
    let data = tempfile::tempdir().unwrap();
    against(
        async |listener| cluster.serve(listener, Arc::clone(&cluster.server)).await,
        async |address| {
            let joined = join(data.path(), &address, token, "board", &SystemRandom::new()).await?;
            let kept = Identity::load(data.path()).unwrap().expect("kept");
            assert_eq!(kept.node, joined.node);
            assert_eq!(
                talk(&address, tls::session_client(&kept.roots, &kept.credentials()?, clock())?).await.ok(),
                Some(7)
            );
            Ok(joined)
        },
    )
}

/// A member's first exchange: the number in the Pong.
async fn talk(address: &str, config: Arc<ClientConfig>) -> Result<u64, DialError> {
    let mut stream = dial(address, config).await?;
    match frame::receive(&mut stream, FRAME_TO_AGENT_MAX).await {
        Ok(Some(ToAgent::Pong(number))) => Ok(number),
        Err(FrameError::Io(e)) => Err(DialError::of(address, e)),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn check_talk(cluster: &Cluster, server: &Arc<ServerConfig>, client: Arc<ClientConfig>, want: Result<u64, TlsFault>) {
    let got = against(
        async |listener| cluster.serve(listener, Arc::clone(server)).await,
        async |address| talk(&address, client).await,
    );
    match (got, want) {
        (Ok(number), Ok(want)) => assert_eq!(number, want),
        (Err(DialError::Tls { fault, .. }), Err(want)) => assert_eq!(fault, want),
        (got, want) => panic!("{got:?}, not {want:?}"),
    }
}

#[track_caller]
fn check_refused(result: Result<Identity, JoinError>, want: RefusedCode, words: &str) {
    match result {
        Err(JoinError::Refused(refused)) if refused.code == want => {
            assert!(refused.reason.contains(words), "{}", refused.reason);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_right_token_makes_a_member() {
    for role in [Role::Worker, Role::Manager] {
        let cluster = Cluster::new();
        let identity = join_as(&cluster, cluster.tokens.of(role)).unwrap();
        assert_eq!((identity.cluster, identity.role), (cluster.authority.ca.cluster(), role));
        assert_eq!(identity.managers, ["m:2377"]);
        assert_eq!(identity.roots, [cluster.authority.ca.root().clone()]);
        let peers = cluster.peers.borrow();
        assert_eq!((peers[0].node, peers[0].role), (identity.node, role));
        assert!(cluster.faults.borrow().is_empty());
    }
}

#[test]
fn a_lost_answer_is_asked_for_again_with_the_same_key() {
    let cluster = Cluster { answers_lost: 1, ..Cluster::new() };
    join_as(&cluster, &cluster.tokens.worker).unwrap();
    let asked = cluster.asked.borrow();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0], asked[1]);
    assert_eq!(cluster.peers.borrow()[0].key_digest, asked[0]);
}

#[test]
fn wrong_tokens_are_refused() {
    let cluster = Cluster::new();
    let wrong_secret = JoinToken::new(cluster.authority.ca.root_digest(), [1; 16]);
    check_refused(join_as(&cluster, &wrong_secret), RefusedCode::Token, "valid join token is necessary");

    let wrong_root = JoinToken::new([3; 32], *cluster.tokens.worker.secret());
    let data = tempfile::tempdir().unwrap();
    let error = against(
        async |listener| cluster.serve(listener, Arc::clone(&cluster.server)).await,
        async |address| {
            let error = join(data.path(), &address, &wrong_root, "board", &SystemRandom::new()).await.unwrap_err();
            // The manager learns it too, and can log it.
            while cluster.faults.borrow().is_empty() {
                Timer::after(Duration::from_millis(2)).await;
            }
            error
        },
    );
    assert!(matches!(&error, JoinError::Dial(DialError::Tls { fault: TlsFault::WrongRoot, .. })), "{error:?}");
    assert!(error.to_string().contains("not the one the join token names"), "{error}");
    assert_eq!(*cluster.faults.borrow(), [TlsFault::RefusedUs("it is not the one expected")]);
    assert_eq!(std::fs::read_dir(data.path()).unwrap().count(), 0, "nothing was kept");
}

#[test]
fn members_and_managers_know_each_other() {
    let (cluster, foreign) = (Cluster::new(), Cluster::new());
    let worker = cluster.member(Role::Worker, now());
    check_talk(&cluster, &cluster.server, cluster.session(&worker), Ok(7));

    // A foreign manager, seen by our worker.
    check_talk(&foreign, &foreign.server, cluster.session(&worker), Err(TlsFault::Foreign));

    // A foreign worker, seen by our manager.
    let stranger = tls::session_client(
        std::slice::from_ref(cluster.authority.ca.root()),
        &foreign.member(Role::Worker, now()),
        clock(),
    )
    .unwrap();
    let refused = TlsFault::RefusedUs("it was not signed by that cluster's root");
    check_talk(&cluster, &cluster.server, stranger, Err(refused));
    assert_eq!(*cluster.faults.borrow(), [TlsFault::Foreign]);

    // A worker that plays manager, to a member and to a joining board.
    let posing = tls::manager_server(&cluster.authority.roots.known(), &cluster.member(Role::Worker, now())).unwrap();
    check_talk(&cluster, &posing, cluster.session(&worker), Err(TlsFault::NotManager));
    let (joining, seen) = tls::join_client(cluster.authority.ca.root_digest(), clock());
    check_talk(&cluster, &posing, joining, Err(TlsFault::NotManager));
    assert!(seen.certificate().is_none());

    // A manager's own agent may come as a manager.
    check_talk(&cluster, &cluster.server, cluster.session(&cluster.member(Role::Manager, now())), Ok(7));
}

#[test]
fn time_that_is_over_counts_and_time_to_come_does_not() {
    let day = Duration::from_secs(86_400);
    let cluster = Cluster::signed_at(now() - day * 200);
    let fresh = cluster.member(Role::Worker, now());
    let old = cluster.member(Role::Worker, now() - day * 100);
    // The manager's own certificate has ended.
    check_talk(&cluster, &cluster.server, cluster.session(&fresh), Err(TlsFault::Expired));
    let own = cluster.authority.ca.issue_manager(NodeId::from_bits(1), now(), NODE_VALIDITY, &cluster.rng).unwrap();
    let server = tls::manager_server(&cluster.authority.roots.known(), &own.credentials().unwrap()).unwrap();
    check_talk(&cluster, &server, cluster.session(&fresh), Ok(7));
    // One that is over is let through: the manager decides by the peer that it is.
    check_talk(&cluster, &server, cluster.session(&old), Ok(7));
    let ends = |peer: &Peer| peer.shown.ends <= now();
    assert_eq!(cluster.peers.borrow().iter().map(ends).collect::<Vec<_>>(), [false, true]);

    // Signed in what is the future by this board's floor.
    let later = now() + day * 1000;
    let ahead = Cluster::signed_at(later);
    check_talk(&ahead, &ahead.server, ahead.session(&ahead.member(Role::Worker, later)), Ok(7));
    assert!(join_as(&ahead, &ahead.tokens.worker).is_ok());
    // Such a certificate still needs the right root.
    let foreign = Cluster::signed_at(later);
    let client = tls::session_client(std::slice::from_ref(cluster.authority.ca.root()), &fresh, clock()).unwrap();
    check_talk(&foreign, &foreign.server, client, Err(TlsFault::Foreign));
}

#[test]
fn garbage_ends_a_connection() {
    let cluster = Cluster::new();
    let worker = cluster.member(Role::Worker, now());
    // From the server.
    let garbage = async |listener: &TcpListener| {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").await.unwrap();
        tcp.close().await.unwrap();
        future::pending().await
    };
    let error = against(garbage, async |address| talk(&address, cluster.session(&worker)).await).unwrap_err();
    assert!(matches!(&error, DialError::Tls { fault: TlsFault::NotTls, .. }), "{error:?}");
    // From the client.
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[0x16, 3, 1, 0, 4, 1, 0, 0, 0], &[0x16]] {
        against(
            async |listener| cluster.serve(listener, Arc::clone(&cluster.server)).await,
            async |address| {
                let mut tcp = TcpStream::connect(address).await.unwrap();
                tcp.write_all(bytes).await.unwrap();
                tcp.shutdown(std::net::Shutdown::Write).unwrap();
                // An alert, or nothing; the end either way.
                match tcp.read_to_end(&mut Vec::new()).await {
                    Ok(_) => {}
                    Err(e) => assert_eq!(e.kind(), io::ErrorKind::ConnectionReset),
                }
            },
        );
    }
    assert!(cluster.peers.borrow().is_empty());
    assert!(cluster.faults.borrow().contains(&TlsFault::NotTls));
}

#[test]
fn without_a_certificate_there_is_only_joining() {
    let cluster = Cluster::new();
    let (config, _) = tls::join_client(cluster.authority.ca.root_digest(), clock());
    let answer = against(
        async |listener| cluster.serve(listener, Arc::clone(&cluster.server)).await,
        async |address| {
            let tcp = TcpStream::connect(address).await.unwrap();
            let mut stream = TlsConnector::from(config).connect(tls::manager_name(), tcp).await.unwrap();
            frame::send(&mut stream, &ToManager::Heartbeat(1), FRAME_JOIN_MAX).await.unwrap();
            frame::receive::<ToAgent>(&mut stream, FRAME_TO_AGENT_MAX).await
        },
    );
    assert!(matches!(answer, Ok(None) | Err(FrameError::Cut)), "{answer:?}");
    assert!(cluster.peers.borrow().is_empty());
}

/// A root, and a manager's and a worker's certificate under it, all made by the `openssl` program.
struct OpenSsl {
    root: CertificateDer<'static>,
    manager: Credentials,
    worker: Credentials,
}

fn made_by_openssl() -> OpenSsl {
    let dir = tempfile::tempdir().unwrap();
    let run = |line: &str| {
        let mut openssl = std::process::Command::new("openssl");
        let done = openssl.args(line.split(' ')).current_dir(dir.path()).output().expect("the openssl program");
        assert!(done.status.success(), "openssl {line}: {done:?}");
    };
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj";
    run(&format!("req -x509 {new} /CN=swarm-ca -days 30 -keyout root.key -out root.pem"));
    let root = std::fs::read_to_string(dir.path().join("root.pem")).unwrap();
    let member = |unit: &str, extensions: &str| {
        let subject = format!("/O={}/OU={unit}/CN={}", ClusterId::from_bits(9), NodeId::from_bits(2));
        run(&format!("req {new} {subject} -keyout own.key -out own.csr {extensions}"));
        run(
            "x509 -req -in own.csr -CA root.pem -CAkey root.key -CAcreateserial -days 10 -copy_extensions copy -out own.pem",
        );
        let read = |name| std::fs::read_to_string(dir.path().join(name)).unwrap();
        Credentials::from_pem(&(read("own.pem") + &root), &read("own.key")).unwrap()
    };
    OpenSsl {
        manager: member(
            "swarm-manager",
            "-addext subjectAltName=DNS:swarm-manager -addext extendedKeyUsage=serverAuth",
        ),
        worker: member("swarm-worker", "-addext extendedKeyUsage=clientAuth"),
        root: tls::certificate_from_pem(&root).unwrap(),
    }
}

#[test]
fn certificates_of_another_implementation_are_judged_the_same() {
    let (ours, theirs, other) = (Cluster::new(), made_by_openssl(), made_by_openssl());
    let day = Duration::from_secs(86_400);
    let (begins, ends) = tls::validity(theirs.worker.certificate()).expect("readable");
    assert_eq!(ends.since(begins), day * 10);
    let roots = [other.root.clone(), theirs.root.clone()];
    let peer = Peer::of(theirs.worker.certificate(), &roots).unwrap();
    // Both roots have one name: only the signature tells.
    assert_eq!(peer.shown.issuer, Some(tls::digest(&theirs.root)));
    assert_eq!((peer.shown.begins, peer.shown.ends, peer.role), (begins, ends, Role::Worker));
    assert_eq!(Peer::of(theirs.worker.certificate(), std::slice::from_ref(&other.root)).unwrap().shown.issuer, None);

    let client = |trusted: &[CertificateDer<'static>], floor| {
        tls::session_client(trusted, &theirs.worker, TrustClock::standing(floor)).unwrap()
    };
    let server = |known: &[CertificateDer<'static>]| tls::manager_server(known, &theirs.manager).unwrap();
    let root = std::slice::from_ref(&theirs.root);
    check_talk(&ours, &server(root), client(root, Wall::default()), Ok(7));
    // One of several roots is enough, on both sides.
    check_talk(&ours, &server(&roots), client(&roots, Wall::default()), Ok(7));
    // A manager's certificate counts up to its end by the board's floor, whatever this machine's clock shows.
    let (_, ends) = tls::validity(theirs.manager.certificate()).expect("readable");
    check_talk(&ours, &server(root), client(root, ends), Ok(7));
    check_talk(&ours, &server(root), client(root, ends + Duration::from_secs(1)), Err(TlsFault::Expired));
    // The same name, another root.
    let foreign = std::slice::from_ref(&other.root);
    check_talk(&ours, &server(root), client(foreign, Wall::default()), Err(TlsFault::Foreign));
    let refused = TlsFault::RefusedUs("it was not signed by that cluster's root");
    check_talk(&ours, &server(foreign), client(root, Wall::default()), Err(refused));
    // A worker that plays manager.
    let posing = tls::manager_server(root, &theirs.worker).unwrap();
    check_talk(&ours, &posing, client(root, Wall::default()), Err(TlsFault::NotManager));
}
