//! TLS of the manager's remote API: a client must show a certificate of the cluster, and looks at the server's name.

use std::sync::Arc;

use futures_rustls::rustls::client::WebPkiServerVerifier;
use futures_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use futures_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use futures_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme};

use super::verify::{MemberVerifier, judge, store};
use super::{Credentials, CredentialsError, TrustClock, client, provider, server};

/// For the API's server: shows `own`, accepts what one of `roots` signed, whenever it begins and ends, and nobody without
/// a certificate. What they may do is the caller's to decide.
///
/// # Errors
/// A root or `own` cannot be used.
pub fn api_server(roots: &[CertificateDer<'_>], own: &Credentials) -> Result<Arc<ServerConfig>, CredentialsError> {
    server(MemberVerifier::holders(roots, &provider())?, own).map(Arc::new)
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
