//! Who is trusted: the verifiers behind the configurations.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use futures_rustls::rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use futures_rustls::rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use futures_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use futures_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use futures_rustls::rustls::server::{ClientCertVerifierBuilder, ParsedCertificate, WebPkiClientVerifier};
use futures_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};

use super::{CredentialsError, TlsFault, digest, manager_name, provider};
use crate::time::Wall;
use crate::token::DIGEST_BYTES;

/// How often the time is moved at most (see [`judge`]): once for each certificate of the longest chain there can be, a
/// leaf with the six authorities between it and a root that are looked at.
const MOVES_MAX: usize = 7;

/// The root certificate that a joining agent found in the manager's chain.
#[derive(Debug, Clone, Default)]
pub struct SeenRoot(Arc<OnceLock<CertificateDer<'static>>>);

impl SeenRoot {
    /// The root; `None` before a handshake succeeded.
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.0.get()
    }
}

/// Which root a manager must be under.
#[derive(Debug)]
pub(super) enum Trust {
    /// One of these.
    Roots(Arc<RootCertStore>),
    /// The one with this digest, if the server sends it.
    Digest { digest: [u8; DIGEST_BYTES], seen: SeenRoot },
}

impl Trust {
    pub(super) fn roots(roots: &[CertificateDer<'_>]) -> Result<Self, CredentialsError> {
        store(roots).map(Self::Roots).map_err(|e| CredentialsError::Root(e.to_string()))
    }
}

/// Accepts managers only.
#[derive(Debug)]
pub(super) struct ManagerVerifier {
    trust: Trust,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ManagerVerifier {
    pub(super) fn new(trust: Trust) -> Self {
        Self { trust, algorithms: provider().signature_verification_algorithms }
    }
}

impl ServerCertVerifier for ManagerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _dialled: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (roots, found) = match &self.trust {
            Trust::Roots(roots) => (Arc::clone(roots), None),
            Trust::Digest { digest: wanted, seen } => {
                let root = others.iter().find(|c| digest(c) == *wanted).ok_or(TlsFault::WrongRoot)?;
                (store(std::slice::from_ref(root))?, Some((seen, root)))
            }
        };
        let leaf = ParsedCertificate::try_from(leaf)?;
        judge(now, |now| verify_server_cert_signed_by_trust_anchor(&leaf, &roots, others, now, self.algorithms.all))
            .map_err(|e| if is_purpose(&e) { TlsFault::NotManager.into() } else { e })?;
        verify_server_name(&leaf, &manager_name()).map_err(|_| TlsFault::NotManager)?;
        if let Some((seen, root)) = found {
            seen.0.get_or_init(|| root.clone().into_owned());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Accepts what a root of the cluster has signed, and, if it is for [anybody](Self::anybody), peers that show no
/// certificate.
///
/// The time of a certificate plays no part: one that is over lets a board in to renew it, which the caller sees to by
/// its [`validity`]. Neither does it matter which of the roots signed it: one that was retired is such a case, too.
#[derive(Debug)]
pub(super) struct MemberVerifier {
    chain: Arc<dyn ClientCertVerifier>,
}

impl MemberVerifier {
    /// Lets peers in that show none: they may ask to join.
    pub(super) fn anybody(
        roots: &[CertificateDer<'_>],
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, CredentialsError> {
        Self::new(roots, provider, ClientCertVerifierBuilder::allow_unauthenticated)
    }

    /// Lets nobody in who shows none. Clients shall show what they have: one of an old root is good, too.
    pub(super) fn holders(
        roots: &[CertificateDer<'_>],
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, CredentialsError> {
        Self::new(roots, provider, ClientCertVerifierBuilder::clear_root_hint_subjects)
    }

    fn new(
        roots: &[CertificateDer<'_>],
        provider: &Arc<CryptoProvider>,
        settle: fn(ClientCertVerifierBuilder) -> ClientCertVerifierBuilder,
    ) -> Result<Self, CredentialsError> {
        let roots = store(roots).map_err(|e| CredentialsError::Root(e.to_string()))?;
        let chain = settle(WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider)))
            .build()
            .map_err(|e| CredentialsError::Root(e.to_string()))?;
        Ok(Self { chain })
    }
}

impl ClientCertVerifier for MemberVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // At its own end it is valid still.
        let end = ends(leaf)?;
        judge(end, |now| self.chain.verify_client_cert(leaf, others, now))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Judges a chain at `now`; where a certificate lies in the future, at the moment it begins. Our root signed it, so
/// that moment has passed and it is our clock that is behind: the floor of a board that was off for long, or that was
/// just flashed. Everything else is still checked, at the later time.
pub(super) fn judge<T>(now: UnixTime, check: impl Fn(UnixTime) -> Result<T, Error>) -> Result<T, Error> {
    let mut now = now;
    let mut result = check(now);
    for _ in 0..MOVES_MAX {
        match result {
            Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }))
                if not_before > now =>
            {
                now = not_before;
                result = check(now);
            }
            Ok(_) | Err(_) => break,
        }
    }
    result
}

/// When a certificate begins and ends. None: it is unreadable, or it begins before 1970. It says nothing about trust.
pub fn validity(certificate: &CertificateDer<'_>) -> Option<(Wall, Wall)> {
    let leaf = ParsedCertificate::try_from(certificate).ok()?;
    match check_time(&leaf, UnixTime::since_unix_epoch(Duration::ZERO)) {
        Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
            Some((wall(not_before), wall(ends(certificate).ok()?)))
        }
        Ok(()) | Err(_) => None,
    }
}

fn ends(certificate: &CertificateDer<'_>) -> Result<UnixTime, Error> {
    let leaf = ParsedCertificate::try_from(certificate)?;
    match check_time(&leaf, UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX))) {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => Ok(not_after),
        Ok(()) => Err(CertificateError::BadEncoding.into()),
        Err(error) => Err(error),
    }
}

/// Judges a certificate, its time first, by no root at all: there is no other way to learn its time from the verifier,
/// and a second reader of certificates would have to agree with it.
fn check_time(leaf: &ParsedCertificate<'_>, at: UnixTime) -> Result<(), Error> {
    let algorithms = provider().signature_verification_algorithms;
    verify_server_cert_signed_by_trust_anchor(leaf, &RootCertStore::empty(), &[], at, algorithms.all)
}

fn wall(at: UnixTime) -> Wall {
    Wall::default() + Duration::from_secs(at.as_secs())
}

fn is_purpose(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. })
    )
}

pub(super) fn store(certificates: &[CertificateDer<'_>]) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    for root in certificates {
        roots.add(root.clone().into_owned())?;
    }
    Ok(Arc::new(roots))
}
