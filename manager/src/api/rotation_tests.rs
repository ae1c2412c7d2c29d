//! The root through the API, as `docker swarm ca` drives it.

use futures_lite::FutureExt;
use racimo_common::id::{ClusterId, NetworkId, RandomId};
use racimo_common::time::{Clock, Wall};
use racimo_common::tls;
use racimo_common::token::DIGEST_BYTES;
use ring::rand::SystemRandom;
use serde_json::{Value, json};

use super::testing::Lab;
use crate::ca::{self, Ca};
use crate::dispatcher::liveness::Cause;
use crate::limits::ROOTS_RETIRED_MAX;
use crate::store::{Access, AccessRole, Change, NewCluster, NodeTrust, WrittenOff};

fn swarm(lab: &Lab) -> Value {
    let (status, cluster) = lab.get("/swarm");
    assert_eq!(status, 200, "{cluster}");
    cluster
}

/// Sends the settings that are shown back with something else in `CAConfig`.
fn update(lab: &Lab, ca: Value) -> (u16, Value) {
    let cluster = swarm(lab);
    let mut spec = cluster["Spec"].clone();
    for (key, value) in ca.as_object().expect("an object") {
        spec["CAConfig"][key] = value.clone();
    }
    lab.post(&format!("/swarm/update?version={}", cluster["Version"]["Index"]), &spec.to_string())
}

#[track_caller]
fn taken(lab: &Lab, ca: Value) {
    let (status, answer) = update(lab, ca);
    assert_eq!(status, 200, "{answer}");
}

#[track_caller]
fn refused(lab: &Lab, ca: Value, words: &str) {
    let (before, (status, answer)) = (swarm(lab), update(lab, ca));
    let text = answer["message"].as_str().unwrap_or_default();
    assert!(status == 400 && text.contains(words), "{status}: {text}, not {words}");
    assert_eq!(swarm(lab), before);
}

/// What docker's progress display counts: nodes with the right issuer, nodes with the right root; and whether it ends.
fn progress(lab: &Lab) -> (usize, usize, bool) {
    let cluster = swarm(lab);
    let nodes = lab.get("/nodes").1;
    let nodes = nodes.as_array().expect("a list");
    let count = |keys: &[&str]| {
        let same =
            |node: &&Value| keys.iter().all(|key| node["Description"]["TLSInfo"][key] == cluster["TLSInfo"][key]);
        nodes.iter().filter(same).count()
    };
    let (issuers, roots) = (count(&["CertIssuerPublicKey", "CertIssuerSubject"]), count(&["TrustRoot"]));
    let under_way = cluster["RootRotationInProgress"].as_bool().expect("a flag");
    (issuers, roots, issuers == nodes.len() && roots == nodes.len() && !under_way)
}

/// All nodes show a certificate of the issuer and trust these.
fn nodes_have(lab: &Lab, issuer: [u8; DIGEST_BYTES], roots: &[[u8; DIGEST_BYTES]]) {
    let nodes: Vec<_> = lab.store.view().state.nodes().map(|node| node.id).collect();
    for node in nodes {
        let trust = NodeTrust { issuer, roots: roots.to_vec(), expires: Wall::default() };
        lab.commit(Change::NodeTrust { node, trust });
    }
}

fn digest(pem: &str) -> [u8; DIGEST_BYTES] {
    tls::digest(&tls::certificate_from_pem(pem).expect("a certificate"))
}

/// Lets the rotation end, if it may.
fn settle(lab: &Lab) {
    let run = ca::run::run(lab.store.clone(), Clock::start(), crate::vault::testing());
    let done = async {
        let (mut view, mut feed) = lab.store.watch();
        while view.state.cluster().is_some_and(|cluster| cluster.trust.rotation.is_some()) {
            view = feed.next().await.expect("the store runs").view;
        }
    };
    smol::block_on(run.or(done));
}

#[test]
fn docker_rotates_the_root() {
    let lab = Lab::rooted();
    lab.join(1, "board1");
    let before = swarm(&lab);
    assert_eq!(progress(&lab), (2, 2, true), "what there is only one of needs not be said");
    assert!(before["Spec"]["CAConfig"].get("ForceRotate").is_none());
    taken(&lab, json!({"ForceRotate": 1, "NodeCertExpiry": 3_600_000_000_000_u64}));

    let during = swarm(&lab);
    assert_eq!(during["RootRotationInProgress"], true);
    assert_eq!(during["TLSInfo"]["TrustRoot"], before["TLSInfo"]["TrustRoot"]);
    assert_ne!(during["TLSInfo"]["CertIssuerPublicKey"], before["TLSInfo"]["CertIssuerPublicKey"]);
    assert_eq!(during["JoinTokens"], before["JoinTokens"]);
    assert_eq!(during["Spec"]["CAConfig"], json!({"NodeCertExpiry": 3_600_000_000_000_u64, "ForceRotate": 1}));
    assert_eq!(lab.get("/info").1["Swarm"]["Cluster"]["RootRotationInProgress"], true);
    let (issuers, _, done) = progress(&lab);
    assert_eq!((issuers, done), (0, false));
    // Whatever else is changed meanwhile, the settings go forth and back.
    taken(&lab, json!({}));
    taken(&lab, json!({"ForceRotate": 0}));
    assert_eq!(swarm(&lab)["TLSInfo"], during["TLSInfo"]);

    let view = lab.store.view();
    let rotation = view.state.cluster().and_then(|cluster| cluster.trust.rotation.clone()).expect("a rotation");
    let old = digest(before["TLSInfo"]["TrustRoot"].as_str().expect("a text"));
    let new = digest(&rotation.root_pem);
    nodes_have(&lab, old, &[old]);
    assert_eq!(progress(&lab), (0, 2, false));
    nodes_have(&lab, new, &[old, new]);
    assert_eq!(progress(&lab), (2, 0, false));
    let (_, nodes) = lab.get("/nodes");
    let both = nodes[0]["Description"]["TLSInfo"]["TrustRoot"].as_str().expect("a text");
    assert_eq!(tls_roots(both), [old, new]);

    settle(&lab);
    let after = swarm(&lab);
    assert_eq!(after["TLSInfo"]["TrustRoot"], rotation.root_pem);
    assert_eq!(after["TLSInfo"]["CertIssuerPublicKey"], during["TLSInfo"]["CertIssuerPublicKey"]);
    assert_eq!(after["RootRotationInProgress"], false);
    for role in ["Worker", "Manager"] {
        let token = |cluster: &Value| cluster["JoinTokens"][role].as_str().expect("a token").to_owned();
        let (was, is) = (token(&before), token(&after));
        assert!(was.split('-').zip(is.split('-')).skip(2).all(|(was, is)| was != is), "{was} {is}");
    }
    assert_eq!(progress(&lab), (2, 0, false));
    nodes_have(&lab, new, &[new]);
    assert_eq!(progress(&lab), (2, 2, true));
    // The next one, and a client that says too much.
    refused(&lab, json!({"ForceRotate": 3}), "CAConfig.ForceRotate is 1, and 2 asks for a rotation, not 3");
    taken(&lab, json!({"ForceRotate": 2}));
    assert_eq!(swarm(&lab)["RootRotationInProgress"], true);
}

fn tls_roots(pem: &str) -> Vec<[u8; DIGEST_BYTES]> {
    let parts = pem.split_inclusive("-----END CERTIFICATE-----\n");
    parts.map(digest).collect()
}

/// As with Docker: the last one that is asked for is the one that counts.
#[test]
fn a_rotation_that_cannot_end_is_replaced() {
    let lab = Lab::rooted();
    lab.join(1, "board1");
    let cluster = || lab.store.view().state.cluster().expect("a cluster").clone();
    let coming = || cluster().trust.rotation.clone().expect("a rotation").root_pem;
    taken(&lab, json!({"ForceRotate": 1}));
    let (old, first) = (cluster().root_pem.clone(), coming());
    let (now, rng) = (Clock::start().now().wall, SystemRandom::new());
    nodes_have(&lab, digest(&first), &[digest(&old), digest(&first)]);
    taken(&lab, json!({"ForceRotate": 2}));
    let second = coming();
    assert!(second != first && cluster().root_pem == old);
    assert_eq!(progress(&lab), (0, 0, false), "certificates of the root that was on its way do not count any more");
    let own = Ca::create(ClusterId::from_bits(1), now, &rng).expect("a root");
    let ask = |ca: &Ca| json!({"SigningCACert": ca.root_pem(), "SigningCAKey": &*ca.key_pem()});
    taken(&lab, ask(&own));
    refused(&lab, ask(&own), "is that of the root rotation that is under way");
    // Who has a certificate of a root that was on its way is known by it, and finds the way from there.
    let roots = ca::Roots::of(&cluster()).expect("roots");
    let known: Vec<_> = roots.known().iter().map(|root| tls::digest(root)).collect();
    assert_eq!(known, [digest(&old), own.root_digest(), digest(&first), digest(&second)]);
    let follows = |from: &str, to: &str, cross: &str| {
        let der = [from, to, cross].map(|pem| tls::certificate_from_pem(pem).expect("a certificate"));
        let parsed = der.each_ref().map(|der| x509_parser::parse_x509_certificate(der).expect("a certificate").1);
        let [from, to, cross] = &parsed;
        cross.verify_signature(Some(from.public_key())).is_ok() && cross.public_key().raw == to.public_key().raw
    };
    let trust = cluster().trust.clone();
    assert!(follows(&first, &second, &trust.retired[0].cross_pem));
    assert!(follows(&second, &own.root_pem(), &trust.retired[1].cross_pem));
    assert!(follows(&old, &own.root_pem(), &trust.rotation.expect("a rotation").cross_pem));

    nodes_have(&lab, own.root_digest(), &[digest(&old), own.root_digest()]);
    settle(&lab);
    assert_eq!(swarm(&lab)["TLSInfo"]["TrustRoot"], own.root_pem());
    assert_eq!(cluster().trust.retired.len(), 3);
}

#[test]
fn no_rotation_forgets_a_root_that_a_board_needs() {
    let lab = Lab::rooted();
    let board = lab.join(1, "board1");
    let coming = || {
        let view = lab.store.view();
        view.state.cluster().and_then(|cluster| cluster.trust.rotation.clone()).expect("a rotation").root_pem
    };
    taken(&lab, json!({"ForceRotate": 1}));
    nodes_have(&lab, digest(&coming()), &[]);
    let last = ROOTS_RETIRED_MAX;
    for asked in 2..=last {
        taken(&lab, json!({ "ForceRotate": asked }));
    }
    refused(&lab, json!({"ForceRotate": last + 1}), "board1 are of, and they could not come back");
    nodes_have(&lab, digest(&coming()), &[]);
    taken(&lab, json!({"ForceRotate": last + 1}));
    // One that begins ends with one root more, too.
    let retired = || lab.store.view().state.cluster().expect("a cluster").trust.retired.clone();
    nodes_have(&lab, digest(&coming()), &[]);
    settle(&lab);
    assert_eq!(retired().len(), ROOTS_RETIRED_MAX);
    nodes_have(&lab, digest(&retired()[0].root_pem), &[]);
    refused(&lab, json!({"ForceRotate": last + 2}), "board1 are of, and they could not come back");
    // Two of one name are told apart; one that left does not come back.
    nodes_have(&lab, digest(&retired()[1].root_pem), &[]);
    let trust = NodeTrust { issuer: digest(&retired()[0].root_pem), ..NodeTrust::default() };
    lab.commit(Change::NodeTrust { node: board, trust });
    let twin = lab.join(2, "board1");
    refused(&lab, json!({"ForceRotate": last + 2}), &format!("board1 ({board}) are of"));
    let written_off = WrittenOff { at: Wall::default(), reason: Cause::Left.text().to_owned() };
    for node in [board, twin] {
        lab.commit(Change::NodeWriteOff { node, written_off: written_off.clone() });
    }
    taken(&lab, json!({"ForceRotate": last + 2}));
}

#[test]
fn no_rotation_forgets_a_root_that_an_access_needs() {
    let lab = Lab::rooted();
    let csr = || {
        let key = rcgen::KeyPair::generate().expect("a key");
        rcgen::CertificateParams::default().serialize_request(&key).expect("a request").pem().expect("PEM")
    };
    let create = |name: &str| {
        let (status, answer) = lab.post("/racimo/access", &json!({"Name": name, "CSR": csr()}).to_string());
        assert_eq!(status, 201, "{answer}");
    };
    let rotate = |asked: usize| {
        taken(&lab, json!({ "ForceRotate": asked }));
        let view = lab.store.view();
        let coming = view.state.cluster().and_then(|cluster| cluster.trust.rotation.clone()).expect("a rotation");
        nodes_have(&lab, digest(&coming.root_pem), &[]);
        settle(&lab);
    };
    create("bob");
    // One that is over keeps nothing from happening.
    let over = Access {
        name: "over".to_owned(),
        role: AccessRole::Admin,
        key_digest: [1; 32],
        created: Wall::default(),
        expires: Wall::default(),
        issuer: None,
    };
    lab.commit(Change::AccessCreate(Box::new(over.clone())));
    for asked in 1..=ROOTS_RETIRED_MAX {
        rotate(asked);
    }
    create("eve");
    let next = ROOTS_RETIRED_MAX + 1;
    refused(&lab, json!({ "ForceRotate": next }), "any more: bob; revoke each (pi-mgr access revoke NAME)");
    assert_eq!(lab.ask("DELETE", "/racimo/access/bob", "").0, 204);
    // As an older version stored it: it may be of any root.
    let older = Access { name: "older".to_owned(), expires: Wall::from_nanos(i64::MAX), ..over };
    lab.commit(Change::AccessCreate(Box::new(older)));
    refused(&lab, json!({ "ForceRotate": next }), "any more: older; revoke");
    assert_eq!(lab.ask("DELETE", "/racimo/access/older", "").0, 204);
    create("bob");
    rotate(next);
    assert_eq!(lab.get("/racimo/access").1.as_array().map(Vec::len), Some(3));
}

#[test]
fn a_root_of_the_user_s_own() {
    let lab = Lab::rooted();
    let (now, rng) = (Clock::start().now().wall, SystemRandom::new());
    let other = Ca::create(ClusterId::from_bits(1), now, &rng).expect("a root");
    let ask = |certificate: &str, key: &str| json!({"SigningCACert": certificate, "SigningCAKey": key});
    refused(&lab, ask(&other.root_pem(), ""), "needs its signing CA key (--ca-key)");
    refused(&lab, ask("", &other.key_pem()), "the signing CA cert must also be provided");
    refused(&lab, ask(&other.key_pem(), &other.root_pem()), "were the two swapped?");
    let view = lab.store.view();
    let present = ca::kept::open(&crate::vault::testing(), view.state.cluster().expect("a cluster")).expect("it opens");
    refused(&lab, ask(&present.root_pem(), &present.key_pem()), "is the cluster's root certificate already");
    refused(&lab, json!({"ExternalCAs": [{"Protocol": "cfssl", "URL": "https://x"}]}), "are not supported");

    taken(&lab, ask(&other.root_pem(), &other.key_pem()));
    let new = other.root_digest();
    nodes_have(&lab, new, &[new]);
    settle(&lab);
    let shown = swarm(&lab);
    assert_eq!(shown["TLSInfo"]["TrustRoot"], other.root_pem());
    assert_eq!(progress(&lab), (1, 1, true));
    // What is shown can be sent back, and tells no key.
    taken(&lab, json!({}));
    assert_eq!(swarm(&lab)["RootRotationInProgress"], false);
    let secret = other.key_pem().lines().nth(1).expect("a line").to_owned();
    for target in ["/swarm", "/info", "/nodes"] {
        let text = lab.get(target).1.to_string();
        assert!(!text.contains("PRIVATE") && !text.contains("Signing") && !text.contains(&secret), "{target}: {text}");
    }
    // Back to a root that there was: its key signed other certificates.
    refused(&lab, ask(&present.root_pem(), &present.key_pem()), "the key of a root that the cluster has or had");
    taken(&lab, json!({"ForceRotate": 2}));
}

#[test]
fn nothing_is_rotated_without_the_key() {
    let lab = Lab::active();
    let (status, answer) = update(&lab, json!({"ForceRotate": 1}));
    assert_eq!(
        (status, &answer["message"]),
        (503, &json!("the root's key is not in the store yet: see the manager's log"))
    );
}

#[test]
fn a_root_that_ends_soon_is_told_of() {
    let lab = Lab::new();
    let warnings = || lab.get("/info").1["Warnings"].to_string();
    assert_eq!(warnings(), "[]");
    let (id, now) = (ClusterId::from_bits(3), Clock::start().now().wall);
    let made = now - (ca::ROOT_VALIDITY - crate::limits::ROOT_ENDS_SOON / 2);
    let ca = Ca::create(id, made, &SystemRandom::new()).expect("a root");
    let key = Some(ca::kept::seal_key(&crate::vault::testing(), &ca).expect("sealed"));
    let new = NewCluster { root_pem: ca.root_pem(), key, ..NewCluster::bare(id, NetworkId::from_bits(7)) };
    lab.commit(Change::ClusterCreate(Box::new(new)));
    assert!(warnings().contains("WARNING: the cluster's root certificate ends on 20"), "{}", warnings());
    taken(&lab, json!({"ForceRotate": 1}));
    assert_eq!(warnings(), "[]", "it is on its way");
}
