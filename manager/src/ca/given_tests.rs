//! Roots made by `openssl`, good and bad, against what we say to them. Skipped where the program is missing.

use std::path::Path;
use std::process::Command;

use racimo_common::id::{ClusterId, NodeId, RandomId};
use racimo_common::object::Role;
use racimo_common::time::{Clock, Wall};
use racimo_common::tls;
use ring::rand::SystemRandom;
use tempfile::TempDir;

use super::given::{ROOT_LEFT_MIN, check};
use super::root::{BACKDATE, NODE_VALIDITY_MIN};
use super::{Ca, Peer};

const P256: &str = "EC -pkeyopt ec_paramgen_curve:P-256";

fn now() -> Wall {
    Clock::start().now().wall.max(tls::BUILT)
}

/// Runs it in `dir`; its arguments are separated by spaces, `~` in one stands for a space.
fn openssl(dir: &Path, line: &str) {
    let arguments = line.split(' ').map(|argument| argument.replace('~', " "));
    let output = Command::new("openssl").current_dir(dir).args(arguments).output().unwrap();
    assert!(output.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&output.stderr));
}

fn is_missing() -> bool {
    let missing = Command::new("openssl").arg("version").output().is_err();
    if missing {
        println!("skipped: no openssl program");
    }
    missing
}

fn read(dir: &TempDir, name: &str) -> String {
    std::fs::read_to_string(dir.path().join(name)).unwrap()
}

/// A key in `key`, of this algorithm, and a root in `root` made with these options.
fn made(algorithm: &str, options: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    openssl(dir.path(), &format!("genpkey -algorithm {algorithm} -out key"));
    openssl(dir.path(), &format!("req -x509 -key key -out root {options}"));
    dir
}

fn given(certificate: &str, key: &str) -> Result<Ca, String> {
    let ca = check(ClusterId::from_bits(7), certificate, key, now(), &SystemRandom::new());
    ca.map_err(|error| error.to_string())
}

#[track_caller]
fn refused(certificate: &str, key: &str, words: &str) {
    let error = given(certificate, key).map(|_| ()).expect_err(words);
    assert!(error.contains(words), "{error}, not {words}");
    // Not a line of a key is told.
    assert!(!key.lines().any(|line| line.len() > 30 && error.contains(line)), "{error}");
}

/// It is taken, is loaded again as it is stored, and boards and `openssl` trust what it signs, also through a root
/// before it; what comes after it is trusted through it.
#[track_caller]
fn taken(certificate: &str, key: &str) {
    let rng = SystemRandom::new();
    let ca = given(certificate, key).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(*ca.root(), tls::certificate_from_pem(certificate).unwrap());
    let again = Ca::load(ca.cluster(), &ca.root_pem(), &ca.key_pem()).unwrap();
    let before = Ca::create(ca.cluster(), now() - BACKDATE, &rng).unwrap();
    let after = again.successor(now(), &rng).unwrap();
    let crosses = [before.cross_sign(&ca, &rng).unwrap(), again.cross_sign(&after, &rng).unwrap()];
    let crosses: String = crosses.iter().map(tls::certificate_to_pem).collect();
    let dir = tempfile::tempdir().unwrap();
    let leaf = after.issue_manager(NodeId::from_bits(5), now(), NODE_VALIDITY_MIN, &rng).unwrap();
    let shown = tls::certificate_from_pem(&leaf.certificates).unwrap();
    let peer = Peer::of(&shown, &[before.root().clone(), again.root().clone(), after.root().clone()]).unwrap();
    assert_eq!((peer.role, peer.shown.issuer), (Role::Manager, Some(after.root_digest())));
    for (name, text) in [("root", &before.root_pem()), ("crosses", &crosses), ("leaf", &leaf.certificates)] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    openssl(dir.path(), "verify -x509_strict -purpose sslserver -CAfile root -untrusted crosses leaf");
}

#[test]
fn roots_of_every_kind_that_is_used() {
    if is_missing() {
        return;
    }
    for algorithm in [
        P256,
        "EC -pkeyopt ec_paramgen_curve:P-384",
        "ED25519",
        "RSA -pkeyopt rsa_keygen_bits:2048",
        "RSA -pkeyopt rsa_keygen_bits:4096",
    ] {
        let dir = made(algorithm, "-subj /C=DE/O=My~home/CN=Grüße -utf8 -days 4000");
        taken(&read(&dir, "root"), &read(&dir, "key"));
    }
}

#[test]
fn keys_in_older_formats() {
    if is_missing() {
        return;
    }
    let dir = made(P256, "-subj /CN=root -days 4000");
    // As `openssl ecparam -genkey` writes it: with the curve before it.
    openssl(dir.path(), "ec -in key -out old");
    openssl(dir.path(), "ecparam -name prime256v1 -out curve");
    taken(&read(&dir, "root"), &(read(&dir, "curve") + &read(&dir, "old")));
    let rsa = made("RSA -pkeyopt rsa_keygen_bits:2048", "-subj /CN=root -days 4000 -sha512");
    openssl(rsa.path(), "rsa -traditional -in key -out old");
    assert!(read(&rsa, "old").contains("BEGIN RSA PRIVATE KEY"));
    taken(&read(&rsa, "root"), &read(&rsa, "old"));
    refused(&read(&dir, "root"), &read(&rsa, "old"), "an RSA key (PKCS#1), not ECDSA on P-256");
    refused(&read(&rsa, "root"), &read(&dir, "old"), "an elliptic curve's (SEC1), not RSA");
    openssl(dir.path(), "ec -in key -no_public -out bare");
    refused(&read(&dir, "root"), &read(&dir, "bare"), "lacks its public part");
}

#[test]
fn roots_with_what_people_add() {
    if is_missing() {
        return;
    }
    for options in [
        "-addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature",
        "-addext basicConstraints=critical,CA:TRUE,pathlen:6",
        "-addext extendedKeyUsage=serverAuth,clientAuth",
        "-addext extendedKeyUsage=anyExtendedKeyUsage",
        "-addext subjectAltName=DNS:home.local -text",
        "-addext subjectKeyIdentifier=none",
    ] {
        let dir = made(P256, &format!("-subj /CN=root -days 4000 {options}"));
        taken(&read(&dir, "root"), &read(&dir, "key"));
    }
}

#[test]
fn wrong_kinds_of_keys() {
    if is_missing() {
        return;
    }
    for (algorithm, words) in [
        ("EC -pkeyopt ec_paramgen_curve:P-521", "the CA key is ECDSA on another curve (OID 1.3.132.0.35)"),
        ("EC -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit", "a curve without a name"),
        ("ED448", "the CA key is of another kind (OID 1.3.101.113)"),
        ("RSA -pkeyopt rsa_keygen_bits:1024", "RSA of 1024 bits: expected ECDSA on P-256 or P-384"),
        ("RSA -pkeyopt rsa_keygen_bits:4352", "RSA of 4352 bits"),
        ("RSA-PSS -pkeyopt rsa_keygen_bits:2048", "of another kind (OID 1.2.840.113549.1.1.10)"),
    ] {
        let dir = made(algorithm, "-subj /CN=root -days 4000");
        refused(&read(&dir, "root"), &read(&dir, "key"), words);
    }
}

#[test]
fn wrong_certificates() {
    if is_missing() {
        return;
    }
    for (options, words) in [
        ("-subj /CN=root -days 4000 -addext basicConstraints=CA:FALSE", "is no authority's"),
        ("-subj /CN=root -days 4000 -addext basicConstraints=CA:TRUE,pathlen:5", "(pathlen:5)"),
        ("-subj /CN=root -days 4000 -addext keyUsage=digitalSignature", "may not sign certificates"),
        ("-subj /CN=root -days 4000 -addext extendedKeyUsage=serverAuth", "not for TLS servers and clients"),
        ("-subj /CN=root -days 4000 -addext nameConstraints=permitted;DNS:example.org", "has name constraints"),
        ("-subj /CN=root -days 4000 -sha1", "in a way that is not supported"),
        ("-subj /CN=root -days 4000 -sha3-256", "in a way that is not supported"),
        ("-subj / -days 4000", "has no subject"),
        ("-subj /OU=a/OU=b/CN=root -days 4000", "two parts of one kind (OID 2.5.4.11)"),
        ("-subj /CN=root+OU=a -days 4000 -multivalue-rdn", "several values in one part"),
        ("-subj /CN=root -days 364", "expires too soon"),
        (
            "-subj /CN=root -days 4000 -addext 1.2.3.4=critical,DER:0500",
            "a critical extension that is not known (OID 1.2.3.4)",
        ),
    ] {
        let dir = made(P256, options);
        refused(&read(&dir, "root"), &read(&dir, "key"), words);
    }
    let rsa = made("RSA -pkeyopt rsa_keygen_bits:2048", "-subj /CN=root -days 4000 -sha1");
    refused(&read(&rsa, "root"), &read(&rsa, "key"), "signed with SHA-1");
}

#[test]
fn wrong_files() {
    if is_missing() {
        return;
    }
    let dir = made(P256, "-subj /CN=root -days 4000");
    let (root, key) = (read(&dir, "root"), read(&dir, "key"));
    refused("", &key, "no PEM certificate: it is empty");
    // A line that is no section of PEM may be anything: nothing of it is said again.
    refused("-----BEGIN c2VjcmV0", &key, "it is no PEM");
    refused("hello", &key, "no PEM certificate");
    refused(&key, &root, "no PEM certificate, but a key: were the two swapped?");
    refused(&root, &root, "no PEM private key, but a certificate: were the two swapped?");
    refused(&root, "", "no PEM private key: it is empty");
    refused(&root, "hello", "no PEM private key");
    refused(&format!("{root}{root}"), &key, "is 2 certificates: expected the root alone");
    refused(&"x".repeat(40_000), &key, "more than 32768 bytes");
    refused(&root, &"x".repeat(40_000), "the CA key has more than");
    openssl(dir.path(), "pkey -in key -aes128 -passout pass:secret -out locked");
    refused(&root, &read(&dir, "locked"), "encrypted with a passphrase");
    openssl(dir.path(), "ec -in key -aes128 -passout pass:secret -out locked-old");
    refused(&root, &read(&dir, "locked-old"), "encrypted with a passphrase");
    openssl(dir.path(), "pkey -in key -pubout -out public");
    refused(&root, &read(&dir, "public"), "but a public one");
    let other = made(P256, "-subj /CN=root -days 4000");
    refused(&root, &read(&other, "key"), "the CA key is not the CA certificate's");
    let damaged = root.replace("-----BEGIN CERTIFICATE-----\nM", "-----BEGIN CERTIFICATE-----\nA");
    refused(&damaged, &key, "cannot be read");
    let long = made(P256, &format!("-subj /CN=root -days 4000 -addext nsComment={}", "x".repeat(4096)));
    refused(&read(&long, "root"), &read(&long, "key"), "boards take 4096 at most");

    // Signed by another root.
    openssl(dir.path(), "req -new -key key -subj /CN=below -out request");
    std::fs::write(dir.path().join("ca"), "basicConstraints=CA:TRUE\n").unwrap();
    for (name, text) in [("up", read(&other, "root")), ("up.key", read(&other, "key"))] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    openssl(dir.path(), "x509 -req -in request -CA up -CAkey up.key -days 4000 -extfile ca -out below");
    refused(&read(&dir, "below"), &key, "is not self-signed");
    // A certificate of the first version says nothing of what it is for.
    openssl(dir.path(), "x509 -req -in request -key key -days 4000 -out plain");
    refused(&read(&dir, "plain"), &key, "is no authority's");
}

#[test]
fn times_of_roots() {
    let rng = SystemRandom::new();
    let ca = Ca::create(ClusterId::from_bits(7), now(), &rng).unwrap();
    let at =
        |time| check(ca.cluster(), &ca.root_pem(), &ca.key_pem(), time, &rng).map(|_| ()).map_err(|e| e.to_string());
    let end = now() + super::ROOT_VALIDITY;
    let minute = std::time::Duration::from_secs(60);
    assert_eq!(at(now()), Ok(()));
    assert_eq!(at(end - ROOT_LEFT_MIN - minute), Ok(()));
    for (time, words) in [
        (now() - BACKDATE - minute, "is the manager's clock right?"),
        (end - ROOT_LEFT_MIN + minute, "expires too soon"),
        (end + minute, "has expired"),
    ] {
        let error = at(time).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_refused(certificate in "\\PC{0,200}", key in "\\PC{0,200}", bytes: Vec<u8>) {
        proptest::prop_assert!(given(&certificate, &key).is_err());
        let wrapped = tls::certificate_to_pem(&bytes.into());
        proptest::prop_assert!(given(&wrapped, &key).is_err());
    }

    #[test]
    fn a_changed_root_is_refused(at in 0usize..400, bit in 0u8..8) {
        let ca = Ca::create(ClusterId::from_bits(7), now(), &SystemRandom::new()).unwrap();
        let mut der = ca.root().to_vec();
        let at = at % der.len();
        der[at] ^= 1 << bit;
        proptest::prop_assert!(given(&tls::certificate_to_pem(&der.into()), &ca.key_pem()).is_err());
    }
}
