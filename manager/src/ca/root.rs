//! The root key: making it, loading it, signing with it.

use std::fmt;
use std::time::Duration;

use racimo_common::id::{ClusterId, NodeId};
use racimo_common::object::Role;
use racimo_common::time::Wall;
use racimo_common::tls::{self, CertificateDer, Credentials, CredentialsError, MANAGER_NAME, PrivateKeyDer};
use racimo_common::token::DIGEST_BYTES;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKey, PublicKeyData,
    SanType, SerialNumber,
};
use ring::rand::SecureRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::peer::wall;
use super::unit;

/// How long a root certificate is valid.
pub const ROOT_VALIDITY: Duration = Duration::from_secs(20 * 365 * DAY);
/// How long a node's certificate is valid if nothing else was asked for.
pub const NODE_VALIDITY: Duration = Duration::from_secs(90 * DAY);
/// The shortest validity of a node's certificate, as in SwarmKit.
pub const NODE_VALIDITY_MIN: Duration = Duration::from_secs(60 * 60);
/// How much earlier than now a certificate begins, so that a node whose clock is slow may use it at once.
pub const BACKDATE: Duration = Duration::from_secs(60 * 60);

/// The CN of roots that a manager makes.
pub(super) const ROOT_NAME: &str = "swarm-ca";
const DAY: u64 = 24 * 60 * 60;
/// Nanoseconds in one.
const SECOND: i64 = 1_000_000_000;
const SERIAL_BYTES: usize = 16;

/// A cluster's root key and certificate. `Debug` shows neither.
pub struct Ca {
    pub(super) cluster: ClusterId,
    pub(super) issuer: Issuer<'static, KeyPair>,
    pub(super) certificate: CertificateDer<'static>,
    ends: Wall,
}

/// A certificate request whose signature is by its own key. Only the key counts: what else it asks for is ignored.
#[derive(Debug)]
pub struct CertRequest {
    key: PublicKey,
}

/// A certificate that was just signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The certificate.
    pub der: CertificateDer<'static>,
    /// When it ends.
    pub expires: Wall,
}

/// A certificate and the key made for it. `Debug` hides the key.
pub struct Issued {
    /// The certificate and the root, PEM.
    pub certificates: String,
    /// The private key, PEM: keep it secret.
    pub key: Zeroizing<String>,
    /// When the certificate ends.
    pub expires: Wall,
}

/// Why the certificate authority could not do it.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The certificate request cannot be read, or its signature is not by its key.
    #[error("the certificate request is not usable: {0}")]
    Request(String),
    /// The request's key is not on the curve P-256.
    #[error("the certificate request's key is not an ECDSA P-256 key")]
    KeyKind,
    /// The validity asked for is too short.
    #[error("a certificate must be valid for at least 1h, not {0:?}")]
    Validity(Duration),
    /// The root certificate has ended, or the clock is far off.
    #[error("the root certificate is not valid at this time: is the clock right?")]
    RootExpired,
    /// The stored root key or certificate cannot be used.
    #[error("the stored root is not usable: {0}")]
    Stored(String),
    /// The random source failed.
    #[error("the random source failed")]
    Random,
    /// The time cannot be written into a certificate.
    #[error("the time is out of range for a certificate")]
    Time,
    /// Signing failed.
    #[error("signing a certificate failed")]
    Sign(#[source] rcgen::Error),
}

impl Ca {
    /// A new root for a new cluster.
    ///
    /// # Errors
    /// [`CaError::Random`], [`CaError::Time`], [`CaError::Sign`].
    pub fn create(cluster: ClusterId, now: Wall, rng: &dyn SecureRandom) -> Result<Self, CaError> {
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, ROOT_NAME);
        Self::named(cluster, name, now, rng)
    }

    /// A new root with this subject.
    pub(super) fn named(
        cluster: ClusterId,
        name: DistinguishedName,
        now: Wall,
        rng: &dyn SecureRandom,
    ) -> Result<Self, CaError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(serial(rng)?);
        params.not_before = seconds(now - BACKDATE)?;
        params.not_after = seconds(now + ROOT_VALIDITY)?;
        let key = key(rng)?;
        let certificate = params.self_signed(&key).map_err(CaError::Sign)?.der().clone();
        let ends = whole_seconds(now + ROOT_VALIDITY);
        Ok(Self { cluster, issuer: Issuer::new(params, key), certificate, ends })
    }

    /// The root that [`Ca::root_pem`] and [`Ca::key_pem`] once gave.
    ///
    /// # Errors
    /// [`CaError::Stored`]: they are damaged or do not belong together.
    pub fn load(cluster: ClusterId, root_pem: &str, key_pem: &str) -> Result<Self, CaError> {
        let stored = |e: rcgen::Error| CaError::Stored(e.to_string());
        let key = KeyPair::from_pem(key_pem).map_err(|_| CaError::Stored("root key: not a PEM private key".into()))?;
        let der = tls::certificate_from_pem(root_pem).map_err(|e| CaError::Stored(format!("root certificate: {e}")))?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&der).map_err(|e| CaError::Stored(format!("root certificate: {e}")))?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(CaError::Stored("the key is not the certificate's".into()));
        }
        if !parsed.is_ca() {
            return Err(CaError::Stored("the certificate is no authority's".into()));
        }
        let ends = wall(parsed.validity().not_after);
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(stored)?;
        Ok(Self { cluster, issuer, certificate: der, ends })
    }

    /// The cluster it speaks for.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The root certificate.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The root certificate, PEM.
    pub fn root_pem(&self) -> String {
        tls::certificate_to_pem(&self.certificate)
    }

    /// The root's private key, PEM: keep it secret.
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }

    /// When the root certificate ends.
    pub fn ends(&self) -> Wall {
        self.ends
    }

    /// SHA-256 of the root certificate's DER, as join tokens carry it.
    pub fn root_digest(&self) -> [u8; DIGEST_BYTES] {
        tls::digest(&self.certificate)
    }

    /// Signs a node's certificate for the key of a request. It ends no later than the root does.
    ///
    /// # Errors
    /// Everything but [`CaError::Request`], [`CaError::KeyKind`] and [`CaError::Stored`].
    pub fn issue(
        &self,
        request: &CertRequest,
        node: NodeId,
        role: Role,
        now: Wall,
        validity: Duration,
        rng: &dyn SecureRandom,
    ) -> Result<Signed, CaError> {
        self.sign(&request.key, node, role, now, validity, rng)
    }

    /// A new key and certificate for a manager: what it shows to agents.
    ///
    /// # Errors
    /// As [`Ca::issue`].
    pub fn issue_manager(
        &self,
        node: NodeId,
        now: Wall,
        validity: Duration,
        rng: &dyn SecureRandom,
    ) -> Result<Issued, CaError> {
        let key = key(rng)?;
        let signed = self.sign(&key, node, Role::Manager, now, validity, rng)?;
        let certificates = tls::certificate_to_pem(&signed.der) + &self.root_pem();
        Ok(Issued { certificates, key: Zeroizing::new(key.serialize_pem()), expires: signed.expires })
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        node: NodeId,
        role: Role,
        now: Wall,
        validity: Duration,
        rng: &dyn SecureRandom,
    ) -> Result<Signed, CaError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, self.cluster.to_string());
        params.distinguished_name.push(DnType::OrganizationalUnitName, unit(role));
        params.distinguished_name.push(DnType::CommonName, node.to_string());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        match role {
            Role::Worker => {}
            Role::Manager => {
                params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
                let name = MANAGER_NAME.try_into().map_err(CaError::Sign)?;
                params.subject_alt_names = vec![SanType::DnsName(name)];
            }
        }
        self.certify(params, key, now, validity, rng)
    }

    /// Signs the certificate of a key that is no authority's, and sets its time and number.
    pub(super) fn certify(
        &self,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
        now: Wall,
        validity: Duration,
        rng: &dyn SecureRandom,
    ) -> Result<Signed, CaError> {
        if validity < NODE_VALIDITY_MIN {
            return Err(CaError::Validity(validity));
        }
        let expires = whole_seconds(now + validity).min(self.ends);
        if expires <= now {
            return Err(CaError::RootExpired);
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial(rng)?);
        params.not_before = seconds(now - BACKDATE)?;
        params.not_after = seconds(expires)?;
        let certificate = params.signed_by(key, &self.issuer).map_err(CaError::Sign)?;
        Ok(Signed { der: certificate.der().clone(), expires })
    }
}

impl CertRequest {
    /// Reads a PKCS#10 request.
    ///
    /// # Errors
    /// [`CaError::Request`], [`CaError::KeyKind`]: the asker's fault.
    pub fn parse(der: &[u8]) -> Result<Self, CaError> {
        let request =
            CertificateSigningRequestParams::from_der(&der.into()).map_err(|e| CaError::Request(e.to_string()))?;
        if *request.public_key.algorithm() != PKCS_ECDSA_P256_SHA256 {
            return Err(CaError::KeyKind);
        }
        Ok(Self { key: request.public_key })
    }

    pub(super) fn key(&self) -> &PublicKey {
        &self.key
    }

    /// SHA-256 of the public key, as in [`Peer`](super::Peer): an agent that did not get our answer asks again with
    /// the same key, and is the same node.
    pub fn key_digest(&self) -> [u8; DIGEST_BYTES] {
        tls::digest(&self.key.subject_public_key_info())
    }
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Issued {
    /// The two, ready to be shown.
    ///
    /// # Errors
    /// They were changed since they were issued.
    pub fn credentials(&self) -> Result<Credentials, CredentialsError> {
        Credentials::from_pem(&self.certificates, &self.key)
    }

    /// The certificate with others after it in place of the root, and the key, ready to be shown.
    ///
    /// # Errors
    /// They were changed since they were issued.
    pub fn credentials_with(&self, chain: &[CertificateDer<'static>]) -> Result<Credentials, CredentialsError> {
        let own = tls::certificate_from_pem(&self.certificates)?;
        let shown = std::iter::once(own).chain(chain.iter().cloned()).collect();
        Credentials::new(shown, tls::key_from_pem(&self.key)?)
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("expires", &self.expires).finish_non_exhaustive()
    }
}

pub(super) fn key(rng: &dyn SecureRandom) -> Result<KeyPair, CaError> {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, rng).map_err(|_| CaError::Random)?;
    let der = PrivateKeyDer::Pkcs8(pkcs8.as_ref().to_vec().into());
    KeyPair::from_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256).map_err(CaError::Sign)
}

pub(super) fn serial(rng: &dyn SecureRandom) -> Result<SerialNumber, CaError> {
    let mut bytes = [0; SERIAL_BYTES];
    rng.fill(&mut bytes).map_err(|_| CaError::Random)?;
    // A serial number is positive, and its first byte not zero.
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Certificates count whole seconds.
fn whole_seconds(at: Wall) -> Wall {
    Wall::from_nanos(at.nanos() - at.nanos().rem_euclid(SECOND))
}

pub(super) fn seconds(at: Wall) -> Result<OffsetDateTime, CaError> {
    OffsetDateTime::from_unix_timestamp(at.nanos().div_euclid(SECOND)).map_err(|_| CaError::Time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::{Peer, PeerError};
    use racimo_common::id::RandomId;
    use ring::rand::SystemRandom;
    use std::process::Command;

    const NOW: Wall = Wall::from_nanos(1_790_000_000 * SECOND + 5);

    fn ids() -> (ClusterId, NodeId) {
        (ClusterId::from_bits(77), NodeId::from_bits(u128::MAX))
    }

    fn ca() -> Ca {
        Ca::create(ids().0, NOW, &SystemRandom::new()).unwrap()
    }

    fn request_der(key: &KeyPair) -> Vec<u8> {
        let mut params = CertificateParams::new(vec![MANAGER_NAME.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "somebody else");
        params.distinguished_name.push(DnType::OrganizationalUnitName, "swarm-manager");
        params.serialize_request(key).unwrap().der().to_vec()
    }

    #[track_caller]
    fn refused<T: fmt::Debug>(result: Result<T, CaError>, want: &str) {
        let text = result.unwrap_err().to_string();
        assert!(text.contains(want), "{text}");
    }

    #[test]
    fn a_request_decides_nothing_but_the_key() {
        let (cluster, node) = ids();
        let (ca, rng) = (ca(), SystemRandom::new());
        let key = KeyPair::generate().unwrap();
        let request = CertRequest::parse(&request_der(&key)).unwrap();
        let signed = ca.issue(&request, node, Role::Worker, NOW, NODE_VALIDITY, &rng).unwrap();
        assert_eq!(signed.expires, whole_seconds(NOW + NODE_VALIDITY));
        let peer = Peer::of(&signed.der, &[]).unwrap();
        assert_eq!((peer.cluster, peer.node, peer.role), (cluster, node, Role::Worker));
        assert_eq!(peer.key_digest, tls::digest(&key.subject_public_key_info()));
        assert_eq!(peer.key_digest, request.key_digest());
        let (_, parsed) = x509_parser::parse_x509_certificate(&signed.der).unwrap();
        assert!(parsed.subject_alternative_name().unwrap().is_none());
        let eku = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(eku.client_auth && !eku.server_auth);
    }

    #[test]
    fn bad_requests_are_refused() {
        let good = request_der(&KeyPair::generate().unwrap());
        refused(CertRequest::parse(b""), "certificate request is not usable");
        refused(CertRequest::parse(&good[..good.len() - 1]), "certificate request is not usable");
        let mut forged = good.clone();
        let last = forged.len() - 1;
        forged[last] ^= 1;
        refused(CertRequest::parse(&forged), "certificate request is not usable");
        let other = request_der(&KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap());
        refused(CertRequest::parse(&other), "certificate request");
        let other = request_der(&KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap());
        refused(CertRequest::parse(&other), "not an ECDSA P-256 key");
        let good = CertRequest::parse(&good).unwrap();
        let short = Duration::from_secs(60);
        refused(ca().issue(&good, ids().1, Role::Worker, NOW, short, &SystemRandom::new()), "at least 1h");
    }

    #[test]
    fn no_certificate_outlives_the_root() {
        let (ca, rng, node) = (ca(), SystemRandom::new(), ids().1);
        let late = NOW + ROOT_VALIDITY - Duration::from_secs(DAY);
        let issued = ca.issue_manager(node, late, NODE_VALIDITY, &rng).unwrap();
        assert_eq!(issued.expires, whole_seconds(NOW + ROOT_VALIDITY));
        let after = ca.issue_manager(node, NOW + ROOT_VALIDITY, NODE_VALIDITY, &rng);
        assert!(matches!(after, Err(CaError::RootExpired)));
    }

    #[test]
    fn a_stored_root_is_the_same_root() {
        let (cluster, node) = ids();
        let (ca, other, rng) = (ca(), ca(), SystemRandom::new());
        let again = Ca::load(cluster, &ca.root_pem(), &ca.key_pem()).unwrap();
        assert_eq!(again.root_digest(), ca.root_digest());
        assert_ne!(other.root_digest(), ca.root_digest());
        let issued = again.issue_manager(node, NOW, NODE_VALIDITY, &rng).unwrap();
        openssl_verifies(&ca.root_pem(), &issued.certificates, true);
        openssl_verifies(&other.root_pem(), &issued.certificates, false);

        for (root, key, want) in [
            (ca.root_pem(), other.key_pem(), "the key is not the certificate's"),
            (ca.root_pem(), ca.root_pem().into(), "root key: not a PEM private key"),
            (ca.key_pem().to_string(), ca.key_pem(), "root certificate"),
            (issued.certificates.clone(), issued.key.clone(), "no authority's"),
        ] {
            let text = Ca::load(cluster, &root, &key).unwrap_err().to_string();
            assert!(text.contains(want), "{text}");
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        let ca = ca();
        let issued = ca.issue_manager(ids().1, NOW, NODE_VALIDITY, &SystemRandom::new()).unwrap();
        let text = format!("{ca:?} {issued:?} {:?}", issued.credentials().unwrap());
        assert!(!text.contains("KEY") && text.len() < 200, "{text}");
    }

    #[test]
    fn foreign_subjects_are_no_peers() {
        assert!(matches!(Peer::of(ca().root(), &[]), Err(PeerError::Field { .. })));
        assert!(matches!(Peer::of(b"garbage", &[]), Err(PeerError::Encoding)));
    }

    /// Another implementation must agree; skipped where the `openssl` program is missing.
    #[track_caller]
    fn openssl_verifies(root: &str, chain: &str, want: bool) {
        let dir = tempfile::tempdir().unwrap();
        let (root_at, leaf_at) = (dir.path().join("root.pem"), dir.path().join("leaf.pem"));
        std::fs::write(&root_at, root).unwrap();
        std::fs::write(&leaf_at, chain).unwrap();
        let at = (NOW.nanos() / SECOND).to_string();
        let verify = Command::new("openssl")
            .args(["verify", "-x509_strict", "-purpose", "sslserver", "-attime", &at, "-CAfile"])
            .args([&root_at, &leaf_at])
            .output();
        let Ok(verify) = verify else {
            println!("skipped: no openssl program");
            return;
        };
        assert_eq!(verify.status.success(), want, "{verify:?}");
        let text = Command::new("openssl").args(["x509", "-noout", "-text", "-in"]).arg(&leaf_at).output().unwrap();
        let text = String::from_utf8(text.stdout).unwrap();
        for part in
            ["prime256v1", "OU = swarm-manager", "DNS:swarm-manager", "TLS Web Server Authentication", "CA:FALSE"]
        {
            assert!(text.contains(part), "{part} not in {text}");
        }
    }
}
