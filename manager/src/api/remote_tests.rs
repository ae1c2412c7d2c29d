//! The remote API over real TLS: who gets in, and as what.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt};
use futures_rustls::TlsConnector;
use racimo_common::id::{ClusterId, NodeId, RandomId};
use racimo_common::object::Role;
use racimo_common::tls::{self, BUILT, CertificateDer, ClientConfig, Credentials, ServerName, TlsFault, TrustClock};
use rcgen::{CertificateParams, KeyPair};
use ring::rand::SystemRandom;
use serde_json::json;

use super::listen::Listener;
use super::serve::serve;
use super::testing::Lab;
use crate::ca::{self, Ca, CertRequest, JoinTokens, NODE_VALIDITY, kept};
use crate::store::{AccessRole, Change};

struct Served {
    lab: Lab,
    at: SocketAddr,
    stop: async_channel::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    fn new(lab: Lab) -> Self {
        let listener = Listener::open(&"tls://127.0.0.1:0".parse().expect("an address"), None).expect("it listens");
        let at = listener.remote_address().expect("TLS");
        let (stop, stopped) = async_channel::bounded::<()>(1);
        let context = lab.context.clone();
        let thread = std::thread::spawn(move || {
            smol::block_on(serve(context, vec![listener], async move {
                let _ = stopped.recv().await;
            }));
        });
        Self { lab, at, stop, thread: Some(thread) }
    }

    fn root(&self) -> CertificateDer<'static> {
        let view = self.lab.store.view();
        tls::certificate_from_pem(&view.state.cluster().expect("a cluster").root_pem).expect("a root")
    }

    /// Asks once; the status and body, or why TLS did not come about.
    fn ask(&self, config: Arc<ClientConfig>, name: &str, request: &str) -> Result<String, String> {
        let why = |error: std::io::Error| TlsFault::of(&error).map_or(error.to_string(), |fault| fault.to_string());
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        smol::block_on(
            async {
                let stream = smol::net::TcpStream::connect(self.at).await.map_err(why)?;
                let mut stream = TlsConnector::from(config).connect(name, stream).await.map_err(why)?;
                let text = format!("{request} HTTP/1.1\r\nHost: pi\r\nConnection: close\r\n\r\n");
                stream.write_all(text.as_bytes()).await.map_err(why)?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.map_err(why)?;
                Ok(answer)
            }
            .or(async {
                smol::Timer::after(Duration::from_secs(20)).await;
                Err("no answer".to_owned())
            }),
        )
    }

    /// Asks for a path with a certificate, and looks for words in the answer or the failure.
    #[track_caller]
    fn check(&self, own: &Credentials, request: &str, want: Result<&str, &str>) {
        let config = tls::api_client(&[self.root()], own, TrustClock::system(BUILT)).expect("a client");
        let got = self.ask(config, "127.0.0.1", request);
        match (&got, want) {
            (Ok(got), Ok(want)) | (Err(got), Err(want)) => assert!(got.contains(want), "{request}: {got}"),
            (got, want) => panic!("{request}: {got:?} instead of {want:?}"),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.close();
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))));
    }
}

fn request(key: &KeyPair) -> rcgen::CertificateSigningRequest {
    CertificateParams::default().serialize_request(key).expect("a request")
}

fn access(lab: &Lab, name: &str, role: &str) -> Credentials {
    let key = KeyPair::generate().expect("a key");
    let csr = request(&key).pem().expect("PEM");
    let (status, made) = lab.post("/racimo/access", &json!({ "Name": name, "Role": role, "CSR": csr }).to_string());
    assert_eq!(status, 201, "{made}");
    Credentials::from_pem(made["Certificate"].as_str().expect("PEM"), &key.serialize_pem()).expect("they fit")
}

fn own_ca(lab: &Lab) -> Ca {
    let view = lab.store.view();
    ca::issuer(&lab.context.vault, view.state.cluster().expect("a cluster")).expect("a root")
}

#[test]
fn only_holders_get_in_and_only_as_what_they_are() {
    let served = Served::new(Lab::certified());
    let lab = &served.lab;
    let (ann, bob) = (access(lab, "ann", "admin"), access(lab, "bob", "read-only"));
    served.check(&ann, "GET /_ping", Ok("200 OK"));
    served.check(&ann, "GET /swarm", Ok("SWMTKN-1-"));
    served.check(&bob, "GET /services", Ok("200 OK"));
    served.check(&bob, "POST /services/create", Ok("access bob is read-only"));
    served.check(&bob, "GET /racimo/audit", Ok("403 Forbidden"));

    // A node's certificate, one for the same name that nobody recorded, and those of another root.
    let (rng, now) = (SystemRandom::new(), lab.context.now());
    let (key, ca, node) = (KeyPair::generate().expect("a key"), own_ca(lab), NodeId::from_bits(1));
    let csr = CertRequest::parse(request(&key).der()).expect("usable");
    let pair = |der: CertificateDer<'static>| {
        Credentials::from_pem(&tls::certificate_to_pem(&der), &key.serialize_pem()).expect("they fit")
    };
    let worker = ca.issue(&csr, node, Role::Worker, now, NODE_VALIDITY, &rng).expect("signed").der;
    served.check(&pair(worker), "GET /services", Ok("this certificate is a node's"));
    let forged = ca.issue_access(&csr, "ann", AccessRole::Admin, now, NODE_VALIDITY, &rng).expect("signed").der;
    served.check(&pair(forged), "GET /services", Ok("there is a newer one"));
    let other = Ca::create(ClusterId::from_bits(3), now, &rng).expect("a root");
    let foreign = other.issue_access(&csr, "ann", AccessRole::Admin, now, NODE_VALIDITY, &rng).expect("signed").der;
    served.check(&pair(foreign), "GET /services", Err("not signed by that cluster's root"));

    // The client looks at the root and at the name.
    let client =
        |roots: &[CertificateDer<'_>]| tls::api_client(roots, &ann, TrustClock::system(BUILT)).expect("a client");
    let wrong = served.ask(client(&[other.root().clone()]), "127.0.0.1", "GET /_ping");
    assert!(wrong.as_ref().is_err_and(|why| why.contains("was not signed by this cluster's root")), "{wrong:?}");
    let wrong = served.ask(client(&[served.root()]), "other.example", "GET /_ping");
    assert!(wrong.as_ref().is_err_and(|why| why.contains("not valid for name")), "{wrong:?}");
    assert!(served.ask(client(&[served.root()]), "localhost", "GET /_ping").is_ok());
    let host = super::host::Host::read().name;
    let announced = crate::announce::Service::new(&host, ca.cluster(), 0);
    assert!(served.ask(client(&[served.root()]), announced.host(), "GET /_ping").is_ok());

    // Who was revoked gets nothing, nor does anybody once the cluster is gone.
    assert_eq!(lab.ask("DELETE", "/racimo/access/ann", "").0, 204);
    served.check(&ann, "GET /_ping", Ok("access ann was revoked"));
    served.check(&bob, "GET /_ping", Ok("200 OK"));
    lab.commit(Change::ClusterLeave);
    let config = tls::api_client(&[ca.root().clone()], &bob, TrustClock::system(BUILT)).expect("a client");
    assert!(served.ask(config, "127.0.0.1", "GET /_ping").is_err());
}

/// Clients that know the old root alone find their way to the new one by what the server shows, and accesses go on.
#[test]
fn accesses_outlive_their_root() {
    let served = Served::new(Lab::certified());
    let lab = &served.lab;
    let (ann, old) = (access(lab, "ann", "admin"), served.root());
    let ask = || {
        let config = tls::api_client(std::slice::from_ref(&old), &ann, TrustClock::system(BUILT)).expect("a client");
        served.ask(config, "127.0.0.1", "GET /_ping").map(|answer| answer.contains("200 OK"))
    };
    assert_eq!(ask(), Ok(true));
    let (rng, now, vault) = (SystemRandom::new(), lab.context.now(), &lab.context.vault);
    for round in 0..2 {
        let ca = own_ca(lab);
        let next = ca.successor(now, &rng).expect("a root");
        let key = kept::seal_key(vault, &next).expect("sealed");
        let rotation = ca.rotation(&next, key, now, &rng).expect("a rotation");
        let tokens = JoinTokens::draw(next.root_digest(), &rng).expect("tokens").seal(vault).expect("sealed");
        let steps = [Change::RotationBegin(Box::new(rotation)), Change::RotationFinish { tokens }];
        for (number, step) in steps.into_iter().enumerate() {
            lab.commit(step);
            assert_eq!(ask(), Ok(true), "{round} {number}");
            let new = access(lab, &format!("new{round}{number}"), "admin");
            served.check(&new, "GET /_ping", Ok("200 OK"));
        }
    }
    assert_ne!(served.root(), old);
}
