//! A root that a user brings (`docker swarm ca --rotate --ca-cert FILE --ca-key FILE`): can a cluster live on it?
//!
//! In: two PEM texts and the time. Out: a [`Ca`], or the reason why not. Keeps nothing.
//!
//! Taken: one self-signed certificate of an authority, that lasts for a year at least, with its key: ECDSA on P-256 or
//! P-384, Ed25519, or RSA of 2048 to 4096 bits; the key as PKCS#8, SEC1 or PKCS#1, without a passphrase. What SwarmKit
//! asks of a root (`validateCAConfig`), and what boards need to follow one root to the next.

use std::time::Duration;

use futures_rustls::rustls::client::verify_server_cert_signed_by_trust_anchor;
use futures_rustls::rustls::crypto::ring::default_provider;
use futures_rustls::rustls::pki_types::UnixTime;
use futures_rustls::rustls::pki_types::pem::PemObject;
use futures_rustls::rustls::server::ParsedCertificate;
use futures_rustls::rustls::{self, RootCertStore};
use racimo_common::id::{ClusterId, NodeId, RandomId};
use racimo_common::time::Wall;
use racimo_common::tls::{self, CertificateDer, PrivateKeyDer};
use rcgen::{DistinguishedName, DnType, DnValue, KeyPair, PublicKeyData};
use ring::rand::SecureRandom;
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::asn1_rs::Tag;
use x509_parser::error::X509Error;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519, Oid,
};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::X509Name;
use zeroize::Zeroizing;

use super::root::{Ca, CaError, NODE_VALIDITY_MIN};
use crate::limits::{ROOT_BYTES_MAX, ROOT_PEM_BYTES_MAX, ROOTS_RETIRED_MAX};

/// How long a root must last when it is brought: SwarmKit's `minRootExpiration`.
pub const ROOT_LEFT_MIN: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Roots that follow it, one after another, while it is remembered, and the one that is on its way then.
const UNDER_IT: usize = ROOTS_RETIRED_MAX + 1;
/// RSA keys, in bits: what boards check, and what our library signs with.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// Why a root that a user brought is not taken. Never says anything of the key itself.
#[derive(Debug, thiserror::Error)]
pub enum GivenError {
    /// More than any certificate or key has.
    #[error("the CA {0} has more than {ROOT_PEM_BYTES_MAX} bytes: is it the right file?")]
    TooLong(&'static str),
    /// The text is no PEM certificate.
    #[error("the CA certificate is no PEM certificate{0}")]
    NoCertificate(&'static str),
    /// A bundle.
    #[error("the CA certificate is {0} certificates: expected the root alone")]
    Several(usize),
    /// Not a certificate in itself.
    #[error("the CA certificate cannot be read: {0}")]
    Encoding(String),
    /// The certificate is not what a cluster needs; the reason.
    #[error("the CA certificate {0}")]
    Unfit(String),
    /// Its time has not begun.
    #[error("the CA certificate begins at {0}: is the manager's clock right?")]
    NotYet(String),
    /// Its time is over.
    #[error("the CA certificate has expired at {0}")]
    Expired(String),
    /// Its time is nearly over.
    #[error("the CA certificate expires too soon, at {0}: it must be valid for another year at least")]
    TooSoon(String),
    /// The key is of a kind that is not used.
    #[error("the CA key is {0}: expected ECDSA on P-256 or P-384, Ed25519, or RSA of 2048 to 4096 bits")]
    KeyKind(String),
    /// The text is no PEM key.
    #[error("the CA key is no PEM private key{0}")]
    NoKey(&'static str),
    /// A passphrase would be needed.
    #[error("the CA key is encrypted with a passphrase: remove it (openssl pkey -in FILE -out FILE.plain)")]
    Encrypted,
    /// The key cannot be used.
    #[error("the CA key cannot be used: {0}")]
    Key(String),
    /// The two files do not belong together.
    #[error("the CA key is not the CA certificate's")]
    Pair,
    /// Everything looks well, but what it signs is not trusted.
    #[error("what the CA certificate signs does not verify: {0}")]
    Unverified(String),
    /// The manager itself failed.
    #[error(transparent)]
    Ca(#[from] CaError),
}

/// Checks a root that a user brought.
///
/// # Errors
/// What is wrong with which of the two texts.
pub fn check(
    cluster: ClusterId,
    certificate_pem: &str,
    key_pem: &str,
    now: Wall,
    rng: &dyn SecureRandom,
) -> Result<Ca, GivenError> {
    for (text, what) in [(certificate_pem, "certificate"), (key_pem, "key")] {
        if text.len() > ROOT_PEM_BYTES_MAX {
            return Err(GivenError::TooLong(what));
        }
    }
    let der = only_certificate(certificate_pem)?;
    let (rest, certificate) =
        x509_parser::parse_x509_certificate(&der).map_err(|error| GivenError::Encoding(error.to_string()))?;
    if !rest.is_empty() {
        return Err(GivenError::Encoding("there are bytes after it".into()));
    }
    purposes(&certificate)?;
    let kind = Kind::of(&certificate)?;
    subject(certificate.subject()).map_err(GivenError::Unfit)?;
    self_signed(&certificate)?;
    times(&certificate, now)?;
    let pkcs8 = private_key(key_pem, kind)?;
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8[..].into(), kind.algorithm())
        .map_err(|_| GivenError::Key(format!("it is damaged, lacks its public part, or is not {}", kind.name())))?;
    if key.subject_public_key_info() != certificate.public_key().raw {
        return Err(GivenError::Pair);
    }
    // As it will be loaded at every start.
    let key_pem = Zeroizing::new(key.serialize_pem());
    let ca = Ca::load(cluster, &tls::certificate_to_pem(&der), &key_pem)?;
    proof(&ca, now, rng)?;
    Ok(ca)
}

fn only_certificate(pem: &str) -> Result<CertificateDer<'static>, GivenError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    // What the reader says may quote the text, which is a private key if the two files were swapped.
    let mut all = all.map_err(|_| GivenError::Encoding("it is no PEM".into()))?;
    match all.len() {
        0 if pem.contains("PRIVATE KEY-----") => Err(GivenError::NoCertificate(", but a key: were the two swapped?")),
        0 if pem.trim().is_empty() => Err(GivenError::NoCertificate(": it is empty")),
        0 => Err(GivenError::NoCertificate("")),
        1 => {
            let der = all.swap_remove(0);
            if der.len() > ROOT_BYTES_MAX {
                let text = format!("has {} bytes: boards take {ROOT_BYTES_MAX} at most", der.len());
                return Err(GivenError::Unfit(text));
            }
            Ok(der)
        }
        several => Err(GivenError::Several(several)),
    }
}

/// What it may be used for.
fn purposes(certificate: &X509Certificate<'_>) -> Result<(), GivenError> {
    let unfit = |text: &str| Err(GivenError::Unfit(text.to_owned()));
    let damaged = |error: X509Error| GivenError::Encoding(error.to_string());
    let constraints = certificate.basic_constraints().map_err(damaged)?.map(|found| found.value);
    let Some(constraints) = constraints.filter(|constraints| constraints.ca) else {
        return unfit("is no authority's: its basic constraints do not say CA:TRUE");
    };
    if let Some(length) = constraints.path_len_constraint
        && usize::try_from(length).is_ok_and(|length| length < UNDER_IT)
    {
        let text = format!(
            "allows {length} authorities in a row under it (pathlen:{length}): the roots after it are trusted \
             through it, so expected no such limit, or one of at least {UNDER_IT}"
        );
        return Err(GivenError::Unfit(text));
    }
    if certificate.key_usage().map_err(damaged)?.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return unfit("may not sign certificates: its key usage does not say so");
    }
    let purpose = certificate.extended_key_usage().map_err(damaged)?.map(|found| found.value);
    if purpose.is_some_and(|purpose| !(purpose.any || purpose.server_auth && purpose.client_auth)) {
        return unfit("is not for TLS servers and clients: its extended key usage says other things");
    }
    if certificate.name_constraints().map_err(damaged)?.is_some() {
        return unfit("has name constraints, which do not fit the names of boards");
    }
    let unknown = certificate.extensions().iter().find(|extension| {
        extension.critical && matches!(extension.parsed_extension(), ParsedExtension::UnsupportedExtension { .. })
    });
    if let Some(extension) = unknown {
        return Err(GivenError::Unfit(format!("has a critical extension that is not known (OID {})", extension.oid)));
    }
    Ok(())
}

fn self_signed(certificate: &X509Certificate<'_>) -> Result<(), GivenError> {
    if certificate.issuer().as_raw() != certificate.subject().as_raw() {
        return Err(GivenError::Unfit("is not self-signed: expected the root itself, not one that it signed".into()));
    }
    // The other signatures that our library knows are by SHA-2.
    let is_sha1 = certificate.signature_algorithm.algorithm.to_id_string();
    if ["1.2.840.113549.1.1.5", "1.3.14.3.2.29"].contains(&is_sha1.as_str()) {
        return Err(GivenError::Unfit("is signed with SHA-1".into()));
    }
    match certificate.verify_signature(None) {
        Ok(()) => Ok(()),
        Err(X509Error::SignatureUnsupportedAlgorithm) => {
            let text = format!("is signed in a way that is not supported (OID {is_sha1}): expected SHA-256 or SHA-384");
            Err(GivenError::Unfit(text))
        }
        Err(_) => Err(GivenError::Unfit("is damaged: its own signature does not fit".into())),
    }
}

fn times(certificate: &X509Certificate<'_>, now: Wall) -> Result<(), GivenError> {
    let at = |time: x509_parser::time::ASN1Time| Wall::from_nanos(time.timestamp().saturating_mul(1_000_000_000));
    let (begin, end) = (certificate.validity().not_before, certificate.validity().not_after);
    match () {
        () if at(begin) > now => Err(GivenError::NotYet(begin.to_string())),
        () if at(end) <= now => Err(GivenError::Expired(end.to_string())),
        () if at(end) < now + ROOT_LEFT_MIN => Err(GivenError::TooSoon(end.to_string())),
        () => Ok(()),
    }
}

/// A kind of key that roots may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    P256,
    P384,
    Ed25519,
    Rsa,
}

impl Kind {
    /// The certificate's.
    fn of(certificate: &X509Certificate<'_>) -> Result<Self, GivenError> {
        let key = certificate.public_key();
        let refuse = |what: String| Err(GivenError::KeyKind(what));
        let algorithm = &key.algorithm.algorithm;
        if *algorithm == OID_SIG_ED25519 {
            return Ok(Self::Ed25519);
        }
        if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
            // Parameters may also write the whole curve out.
            let named = key.algorithm.parameters.as_ref().filter(|any| any.header.tag() == Tag::Oid);
            let curve: Option<Oid<'_>> = named.and_then(|any| any.as_oid().ok());
            return match curve {
                Some(curve) if curve == OID_EC_P256 => Ok(Self::P256),
                Some(curve) if curve == OID_NIST_EC_P384 => Ok(Self::P384),
                Some(curve) => refuse(format!("ECDSA on another curve (OID {curve})")),
                None => refuse("ECDSA on a curve without a name".into()),
            };
        }
        if *algorithm == OID_PKCS1_RSAENCRYPTION {
            let bits = match key.parsed() {
                Ok(PublicKey::RSA(rsa)) => rsa.key_size(),
                Ok(_) | Err(_) => 0,
            };
            return if RSA_BITS.contains(&bits) { Ok(Self::Rsa) } else { refuse(format!("RSA of {bits} bits")) };
        }
        refuse(format!("of another kind (OID {algorithm})"))
    }

    fn name(self) -> &'static str {
        match self {
            Self::P256 => "ECDSA on P-256, as the certificate's",
            Self::P384 => "ECDSA on P-384, as the certificate's",
            Self::Ed25519 => "Ed25519, as the certificate's",
            Self::Rsa => "RSA, as the certificate's",
        }
    }

    fn algorithm(self) -> &'static rcgen::SignatureAlgorithm {
        match self {
            Self::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Self::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Self::Ed25519 => &rcgen::PKCS_ED25519,
            Self::Rsa => &rcgen::PKCS_RSA_SHA256,
        }
    }

    /// DER of its AlgorithmIdentifier, as in PKCS#8 (RFC 5480, RFC 8410, RFC 8017).
    fn identifier(self) -> &'static [u8] {
        match self {
            Self::P256 => b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07",
            Self::P384 => b"\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22",
            Self::Ed25519 => b"\x30\x05\x06\x03\x2b\x65\x70",
            Self::Rsa => b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00",
        }
    }
}

/// The key as PKCS#8.
fn private_key(pem: &str, kind: Kind) -> Result<Zeroizing<Vec<u8>>, GivenError> {
    if pem.contains("ENCRYPTED") {
        return Err(GivenError::Encrypted);
    }
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| match pem.trim() {
        "" => GivenError::NoKey(": it is empty"),
        text if text.contains("BEGIN CERTIFICATE") => GivenError::NoKey(", but a certificate: were the two swapped?"),
        text if text.contains("PUBLIC KEY") => GivenError::NoKey(", but a public one"),
        _ => GivenError::NoKey(""),
    })?;
    let foreign = |what: &str| Err(GivenError::Key(format!("it is {what}, not {}", kind.name())));
    match &key {
        PrivateKeyDer::Pkcs8(key) => Ok(Zeroizing::new(key.secret_pkcs8_der().to_vec())),
        PrivateKeyDer::Sec1(key) => match kind {
            Kind::P256 | Kind::P384 => Ok(wrapped(kind, key.secret_sec1_der())),
            Kind::Ed25519 | Kind::Rsa => foreign("an elliptic curve's (SEC1)"),
        },
        PrivateKeyDer::Pkcs1(key) => match kind {
            Kind::Rsa => Ok(wrapped(kind, key.secret_pkcs1_der())),
            Kind::P256 | Kind::P384 | Kind::Ed25519 => foreign("an RSA key (PKCS#1)"),
        },
        _ => Err(GivenError::NoKey("")),
    }
}

/// PKCS#8 around the key of an older format (RFC 5208).
fn wrapped(kind: Kind, inner: &[u8]) -> Zeroizing<Vec<u8>> {
    let octets = tagged(4, inner);
    let mut body = Zeroizing::new(vec![2, 1, 0]);
    body.extend_from_slice(kind.identifier());
    body.extend_from_slice(&octets);
    tagged(0x30, &body)
}

/// A DER value; `inner` has less than 64 KiB.
fn tagged(tag: u8, inner: &[u8]) -> Zeroizing<Vec<u8>> {
    let length = inner.len().to_be_bytes();
    let used = &length[length.iter().take_while(|byte| **byte == 0).count().min(length.len() - 1)..];
    let mut out = Zeroizing::new(Vec::with_capacity(inner.len() + 6));
    out.push(tag);
    match used {
        [short] if *short < 0x80 => out.push(*short),
        long => {
            out.push(0x80 | u8::try_from(long.len()).unwrap_or(u8::MAX));
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(inner);
    out
}

/// A certificate's subject in the form in which it is written into those that it signs.
///
/// # Errors
/// It cannot be written again byte by byte: the reason, after "the certificate".
pub(super) fn subject(name: &X509Name<'_>) -> Result<DistinguishedName, String> {
    let mut subject = DistinguishedName::new();
    for part in name.iter() {
        let mut attributes = part.iter();
        let (Some(attribute), None) = (attributes.next(), attributes.next()) else {
            return Err("has a subject with several values in one part: expected plain ones, as /O=…/CN=…".into());
        };
        let oid = attribute.attr_type().iter().map(Iterator::collect::<Vec<u64>>);
        let kind = DnType::from_oid(&oid.ok_or("has a subject that cannot be read")?);
        if subject.get(&kind).is_some() {
            let text = format!("has a subject with two parts of one kind (OID {})", attribute.attr_type());
            return Err(text + ": expected each once, as /O=…/CN=…");
        }
        let value = || attribute.as_str().map_err(|_| "has a subject that is no text".to_owned());
        let refused = |error: rcgen::Error| format!("has a subject that cannot be written: {error}");
        let text = match attribute.attr_value().header.tag() {
            Tag::Utf8String => DnValue::Utf8String(value()?.to_owned()),
            Tag::PrintableString => DnValue::PrintableString(value()?.try_into().map_err(refused)?),
            Tag::Ia5String => DnValue::Ia5String(value()?.try_into().map_err(refused)?),
            _ => return Err("has a subject in an old encoding: expected UTF-8".into()),
        };
        subject.push(kind, text);
    }
    if subject.iter().next().is_none() {
        return Err("has no subject: give it a name, as /CN=…".into());
    }
    Ok(subject)
}

/// Signs something, and judges it as boards would.
fn proof(ca: &Ca, now: Wall, rng: &dyn SecureRandom) -> Result<(), GivenError> {
    let unverified = |error: rustls::Error| GivenError::Unverified(error.to_string());
    let issued = ca.issue_manager(NodeId::from_bits(0), now, NODE_VALIDITY_MIN, rng)?;
    let leaf =
        tls::certificate_from_pem(&issued.certificates).map_err(|error| GivenError::Unverified(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    roots.add(ca.root().clone()).map_err(unverified)?;
    let leaf = ParsedCertificate::try_from(&leaf).map_err(unverified)?;
    let at = UnixTime::since_unix_epoch(now.since(Wall::default()));
    let algorithms = default_provider().signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&leaf, &roots, &[], at, algorithms).map_err(unverified)
}
