//! Who is at the other end, by a client certificate that TLS has verified.

use racimo_common::id::{ClusterId, NodeId};
use racimo_common::object::Role;
use racimo_common::time::Wall;
use racimo_common::tls::{self, CertificateDer};
use racimo_common::token::DIGEST_BYTES;
use x509_parser::der_parser::Oid;
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME, OID_X509_ORGANIZATIONAL_UNIT};
use x509_parser::prelude::{AttributeTypeAndValue, X509Certificate, X509Name};
use x509_parser::time::ASN1Time;

use super::unit;

/// A member of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its node id: the certificate's CN.
    pub node: NodeId,
    /// What it may do: the OU.
    pub role: Role,
    /// The cluster it belongs to: the O. The caller compares it with its own.
    pub cluster: ClusterId,
    /// SHA-256 of its public key (SubjectPublicKeyInfo): it stays when the certificate is renewed.
    pub key_digest: [u8; DIGEST_BYTES],
    /// The certificate.
    pub shown: Shown,
}

/// What a board shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// SHA-256 of the certificate.
    pub digest: [u8; DIGEST_BYTES],
    /// SHA-256 of the root certificate whose key signed it; none: it is none of those asked for.
    pub issuer: Option<[u8; DIGEST_BYTES]>,
    /// When it begins: an hour before it was signed.
    pub begins: Wall,
    /// When it ends.
    pub ends: Wall,
}

/// Why a certificate names no member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It is no X.509 certificate.
    #[error("the client's certificate cannot be read")]
    Encoding,
    /// A part of its subject is missing, doubled or not what we write there.
    #[error("the client's certificate has no usable {field} (expected {expected})")]
    Field {
        /// `CN`, `OU` or `O`.
        field: &'static str,
        /// What should be there.
        expected: &'static str,
    },
}

impl Peer {
    /// Reads a certificate that TLS has verified: it says nothing about trust itself. `roots`: those that may have
    /// signed it.
    ///
    /// # Errors
    /// It is not of the form that our authority issues.
    pub fn of(certificate_der: &[u8], roots: &[CertificateDer<'_>]) -> Result<Self, PeerError> {
        let (rest, certificate) =
            x509_parser::parse_x509_certificate(certificate_der).map_err(|_| PeerError::Encoding)?;
        if !rest.is_empty() {
            return Err(PeerError::Encoding);
        }
        let subject = certificate.subject();
        let cn = PeerError::Field { field: "CN", expected: "a node id" };
        let ou = PeerError::Field { field: "OU", expected: "swarm-worker or swarm-manager" };
        let o = PeerError::Field { field: "O", expected: "a cluster id" };
        Ok(Self {
            node: only(subject, &OID_X509_COMMON_NAME).and_then(|text| text.parse().ok()).ok_or(cn)?,
            role: only(subject, &OID_X509_ORGANIZATIONAL_UNIT).and_then(role).ok_or(ou)?,
            cluster: only(subject, &OID_X509_ORGANIZATION_NAME).and_then(|text| text.parse().ok()).ok_or(o)?,
            key_digest: tls::digest(certificate.public_key().raw),
            shown: Shown {
                digest: tls::digest(certificate_der),
                issuer: roots.iter().find(|root| signed(&certificate, root)).map(|root| tls::digest(root)),
                begins: wall(certificate.validity().not_before),
                ends: wall(certificate.validity().not_after),
            },
        })
    }
}

/// Whether the key of `root` signed a certificate. Names say nothing: every root of a cluster may have the same.
fn signed(certificate: &X509Certificate<'_>, root: &CertificateDer<'_>) -> bool {
    let Ok((_, root)) = x509_parser::parse_x509_certificate(root) else { return false };
    certificate.verify_signature(Some(root.public_key())).is_ok()
}

/// A certificate's time.
pub(super) fn wall(at: ASN1Time) -> Wall {
    Wall::from_nanos(at.timestamp().saturating_mul(1_000_000_000))
}

/// The one value of a part of a subject; none if there are several.
pub(super) fn only<'a>(subject: &'a X509Name<'_>, part: &'a Oid<'a>) -> Option<&'a str> {
    let mut values = subject.iter_by_oid(part).map(AttributeTypeAndValue::as_str);
    match (values.next(), values.next()) {
        (Some(Ok(value)), None) => Some(value),
        (None | Some(_), _) => None,
    }
}

fn role(text: &str) -> Option<Role> {
    [Role::Worker, Role::Manager].into_iter().find(|role| unit(*role) == text)
}
