//! TLS: whose certificates are trusted.
//!
//! The system's list has some 150 authorities. Loading all of them takes about
//! 300 KB, which a board's agent does not have; so the list is read anew at
//! each handshake, a few at a time, until one vouches for the registry. The
//! group that did is kept and asked first the next time.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use futures_rustls::rustls::client::{Resumption, WebPkiServerVerifier};
use futures_rustls::rustls::crypto::{self, CryptoProvider};
use futures_rustls::rustls::pki_types::pem::PemObject;
use futures_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use futures_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

/// Authorities held in memory at a time; about 1 KB each.
const GROUP: usize = 16;

/// Where Debian, Fedora, openSUSE and Alpine keep the list.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// TLS settings for a registry: checked against the system's authorities and
/// those in `extra_ca`, or not checked at all.
pub(super) fn client_config(check: bool, extra_ca: Option<&Path>) -> Arc<ClientConfig> {
    let provider = Arc::new(crypto::ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = if check {
        Arc::new(FileRoots {
            extra: extra_ca.map(Path::to_owned),
            provider: Arc::clone(&provider),
            recent: Mutex::new(None),
        })
    } else {
        Arc::new(Unchecked(Arc::clone(&provider)))
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has suites for every version")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

#[derive(Debug)]
struct FileRoots {
    extra: Option<PathBuf>,
    provider: Arc<CryptoProvider>,
    recent: Mutex<Option<Arc<WebPkiServerVerifier>>>,
}

impl FileRoots {
    /// The files to read, or what is wrong with them.
    fn files(&self) -> Result<Vec<PathBuf>, Error> {
        let mut files: Vec<PathBuf> = self.extra.iter().cloned().collect();
        let system = match std::env::var_os("SSL_CERT_FILE") {
            Some(file) => Some(PathBuf::from(file)),
            None => SYSTEM.iter().map(PathBuf::from).find(|file| file.exists()),
        };
        files.extend(system);
        if files.is_empty() {
            return Err(Error::General(
                "this machine has no list of certificate authorities: install ca-certificates".into(),
            ));
        }
        Ok(files)
    }

    fn verifier(&self, group: RootCertStore) -> Option<Arc<WebPkiServerVerifier>> {
        let provider = Arc::clone(&self.provider);
        WebPkiServerVerifier::builder_with_provider(Arc::new(group), provider).build().ok()
    }

    /// Tries the authorities group by group until `attempt` succeeds.
    fn search(
        &self,
        attempt: &dyn Fn(&WebPkiServerVerifier) -> Result<ServerCertVerified, Error>,
    ) -> Result<ServerCertVerified, Error> {
        let mut failure = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let mut tried = |verifier: &Arc<WebPkiServerVerifier>| {
            let result = attempt(verifier);
            if let Err(error) = &result {
                // "expired" from the group that knows the issuer says more
                // than "unknown issuer" from the others.
                if !matches!(error, Error::InvalidCertificate(CertificateError::UnknownIssuer)) {
                    failure = error.clone();
                }
            }
            result.ok()
        };
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(verified) = recent.as_ref().and_then(&mut tried) {
            return Ok(verified);
        }
        for path in self.files()? {
            let unreadable = |error: &dyn std::fmt::Display| {
                Error::General(format!("cannot read certificate authorities in {}: {error}", path.display()))
            };
            let file = File::open(&path).map_err(|error| unreadable(&error))?;
            let mut certificates = CertificateDer::pem_reader_iter(BufReader::new(file)).peekable();
            while certificates.peek().is_some() {
                let mut group = RootCertStore::empty();
                for certificate in certificates.by_ref().take(GROUP) {
                    // A list may have entries that rustls does not read.
                    let _ = group.add(certificate.map_err(|error| unreadable(&error))?);
                }
                let Some(verifier) = self.verifier(group) else { continue };
                if let Some(verified) = tried(&verifier) {
                    *self.recent.lock().unwrap_or_else(PoisonError::into_inner) = Some(verifier);
                    return Ok(verified);
                }
            }
        }
        Err(failure)
    }
}

impl ServerCertVerifier for FileRoots {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.search(&|verifier| verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        tls12_signature(&self.provider, message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        tls13_signature(&self.provider, message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// For registries that the configuration names as insecure.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        tls12_signature(&self.0, message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        tls13_signature(&self.0, message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn tls12_signature(
    provider: &CryptoProvider,
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithms = &provider.signature_verification_algorithms;
    crypto::verify_tls12_signature(message, certificate, signature, algorithms)
}

fn tls13_signature(
    provider: &CryptoProvider,
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithms = &provider.signature_verification_algorithms;
    crypto::verify_tls13_signature(message, certificate, signature, algorithms)
}
