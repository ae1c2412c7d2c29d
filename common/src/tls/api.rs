//! TLS of the manager's remote API: a client must show a certificate of the cluster, and looks at the server's name.

use std::sync::Arc;

use futures_rustls::rustls::client::WebPkiServerVerifier;
use futures_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use futures_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use futures_rustls::rustls::server::NoServerSessionStorage;
use futures_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use futures_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme, version,
};

use super::verify::{MemberVerifier, judge, store};
use super::{BUILT, Credentials, CredentialsError, TrustClock, client, provider};

/// For the API's server: shows `own`, accepts what one of `roots` signed, whenever it begins and ends, and nobody without
/// a certificate. What they may do is the caller's to decide.
///
/// # Errors
/// A root or `own` cannot be used.
pub fn api_server(roots: &[CertificateDer<'_>], own: &Credentials) -> Result<Arc<ServerConfig>, CredentialsError> {
    let verifier = HolderVerifier { chain: MemberVerifier::new(roots, &provider())? };
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
    Ok(Arc::new(config))
}

/// For a client of the API: shows `own`, accepts a server under one of `roots` that has the name or address that was
/// dialled.
///
/// # Errors
/// A root or `own` cannot be used.
pub fn api_client(
    roots: &[CertificateDer<'_>],
    own: &Credentials,
    clock: TrustClock,
) -> Result<Arc<ClientConfig>, CredentialsError> {
    let roots = store(roots).map_err(|e| CredentialsError::Root(e.to_string()))?;
    let chain = WebPkiServerVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|e| CredentialsError::Root(e.to_string()))?;
    let mut config = client(clock)
        .with_custom_certificate_verifier(Arc::new(ServerVerifier { chain }))
        .with_client_auth_cert(own.chain.clone(), own.key.clone_key())
        .map_err(|e| CredentialsError::Pair(e.to_string()))?;
    config.resumption = futures_rustls::rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// Accepts what the cluster's roots have signed, and nobody who shows nothing.
#[derive(Debug)]
struct HolderVerifier {
    chain: MemberVerifier,
}

impl ClientCertVerifier for HolderVerifier {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Clients shall show what they have: one of an old root is good, too.
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.chain.verify_client_cert(leaf, others, now)
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

/// Accepts a server as any client does, but for a clock that is behind (see [`judge`]).
#[derive(Debug)]
struct ServerVerifier {
    chain: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        dialled: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        judge(now, |now| self.chain.verify_server_cert(leaf, others, dialled, ocsp, now))
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
