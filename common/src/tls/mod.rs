//! TLS between agents and managers: TLS 1.3 only, every trust decision in one place.
//!
//! A node is its key and its certificate, never its address: every manager's certificate carries the name
//! [`MANAGER_NAME`], no worker's does, and nobody looks at host names.
//!
//! | configuration      | shows                  | accepts                                              |
//! |--------------------|------------------------|------------------------------------------------------|
//! | [`join_client`]    | nothing                | a manager under the root whose digest is in the token |
//! | [`session_client`] | the node's certificate | a manager under one of the known roots, judged at a floor of time |
//! | [`manager_server`] | the manager's and a chain | what any given root signed, over or not; or no certificate (to join) |
//! | [`api_server`]     | the API's              | any holder of a certificate of the cluster            |
//! | [`api_client`]     | an access's certificate | a server under the known root, by the name that was dialled |

mod api;
mod clock;
mod fault;
mod pem;
mod verify;

use std::fmt;
use std::sync::Arc;

pub use api::{api_client, api_server};
pub use clock::{BUILT, TrustClock};
pub use fault::TlsFault;
use futures_rustls::rustls::client::Resumption;
use futures_rustls::rustls::crypto::{CryptoProvider, ring};
pub use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use futures_rustls::rustls::server::NoServerSessionStorage;
use futures_rustls::rustls::sign::CertifiedKey;
use futures_rustls::rustls::{self, version};
pub use futures_rustls::rustls::{ClientConfig, ServerConfig};
pub use pem::{certificate_from_pem, certificate_to_pem, certificates_from_pem, key_from_pem, key_to_pem};
use verify::{ManagerVerifier, MemberVerifier, Trust};
pub use verify::{SeenRoot, validity};

use crate::token::DIGEST_BYTES;

/// The name in every manager's certificate, and in no other.
pub const MANAGER_NAME: &str = "swarm-manager";

/// Bytes in one TLS record we send, at most, so that the other side's buffers stay small; more is split.
const RECORD_MAX: usize = 4096;

/// A node's private key and the certificates it shows: its own first.
pub struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Why a key and a certificate cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// No PEM certificate where one is expected.
    #[error("the certificate is no PEM certificate: {0}")]
    Certificate(String),
    /// No PEM key where one is expected.
    #[error("the key is no PEM private key")]
    Key,
    /// The two do not belong together, or the key is of a kind we don't use.
    #[error("the key does not fit the certificate: {0}")]
    Pair(String),
    /// The root certificate cannot be used to judge others.
    #[error("the root certificate is not usable: {0}")]
    Root(String),
}

impl Credentials {
    /// A key with its certificate and those to send after it (a manager sends the root, for joining agents).
    ///
    /// # Errors
    /// The certificate does not belong to the key.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, CredentialsError> {
        let it = Self { chain, key };
        it.certified().map(|_| it)
    }

    /// The same from PEM; `certificates` may hold several.
    ///
    /// # Errors
    /// What is wrong with which of the two.
    pub fn from_pem(certificates: &str, key: &str) -> Result<Self, CredentialsError> {
        Self::new(certificates_from_pem(certificates)?, key_from_pem(key)?)
    }

    /// Its own certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }

    fn certified(&self) -> Result<CertifiedKey, CredentialsError> {
        CertifiedKey::from_der(self.chain.clone(), self.key.clone_key(), &provider())
            .map_err(|e| CredentialsError::Pair(e.to_string()))
    }
}

impl fmt::Debug for Credentials {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

/// What a client calls the server it dials.
pub fn manager_name() -> ServerName<'static> {
    ServerName::try_from(MANAGER_NAME).expect("a valid DNS name")
}

/// SHA-256 of a certificate's DER, as join tokens carry it.
pub fn digest(certificate: &[u8]) -> [u8; DIGEST_BYTES] {
    let mut digest = [0; DIGEST_BYTES];
    digest.copy_from_slice(::ring::digest::digest(&::ring::digest::SHA256, certificate).as_ref());
    digest
}

/// For an agent that only has a token: accepts a manager whose chain holds the root with this digest, and keeps
/// that root in the [`SeenRoot`]. Shows no certificate.
pub fn join_client(root_digest: [u8; DIGEST_BYTES], clock: TrustClock) -> (Arc<ClientConfig>, SeenRoot) {
    let seen = SeenRoot::default();
    let trust = Trust::Digest { digest: root_digest, seen: seen.clone() };
    let config = client(clock).with_custom_certificate_verifier(Arc::new(ManagerVerifier::new(trust)));
    (Arc::new(sparing_client(config.with_no_client_auth())), seen)
}

/// For a member: accepts a manager under one of `roots`, shows `own`.
///
/// # Errors
/// A root or `own` cannot be used.
pub fn session_client(
    roots: &[CertificateDer<'_>],
    own: &Credentials,
    clock: TrustClock,
) -> Result<Arc<ClientConfig>, CredentialsError> {
    let verifier = ManagerVerifier::new(Trust::roots(roots)?);
    let config = client(clock)
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(own.chain.clone(), own.key.clone_key())
        .map_err(|e| CredentialsError::Pair(e.to_string()))?;
    Ok(Arc::new(sparing_client(config)))
}

/// For a manager: shows `own` (whose chain must hold the root that join tokens name), accepts certificates that one of
/// `roots` signed, whenever they begin and end, and peers that show none, which may only ask to join. Who may do what
/// is the caller's to decide by `peer_certificates()`. Neither handshakes nor idle connections time out here; the
/// caller sees to it.
///
/// # Errors
/// A root or `own` cannot be used.
pub fn manager_server(roots: &[CertificateDer<'_>], own: &Credentials) -> Result<Arc<ServerConfig>, CredentialsError> {
    let mut config = server(MemberVerifier::anybody(roots, &provider())?, own)?;
    config.max_fragment_size = Some(RECORD_MAX);
    Ok(Arc::new(config))
}

/// A server that shows `own` and keeps nothing of its clients' sessions.
fn server(verifier: MemberVerifier, own: &Credentials) -> Result<ServerConfig, CredentialsError> {
    // Which time it is plays no part.
    let clock = TrustClock::standing(BUILT);
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(clock))
        .with_protocol_versions(&[&version::TLS13])
        .expect("the provider has TLS 1.3 cipher suites")
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(own.chain.clone(), own.key.clone_key())
        .map_err(|e| CredentialsError::Pair(e.to_string()))?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client(clock: TrustClock) -> rustls::client::danger::DangerousClientConfigBuilder {
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(clock))
        .with_protocol_versions(&[&version::TLS13])
        .expect("the provider has TLS 1.3 cipher suites");
    builder.dangerous()
}

fn sparing_client(mut config: ClientConfig) -> ClientConfig {
    config.resumption = Resumption::disabled();
    config.max_fragment_size = Some(RECORD_MAX);
    config
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
