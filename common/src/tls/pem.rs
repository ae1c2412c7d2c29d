//! Certificates and keys as text.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_rustls::rustls::pki_types::pem::PemObject;

use super::{CertificateDer, CredentialsError, PrivateKeyDer};

const LINE_CHARS: usize = 64;

/// A certificate as PEM.
pub fn certificate_to_pem(der: &CertificateDer<'_>) -> String {
    encode("CERTIFICATE", der)
}

/// A PKCS#8 private key as PEM: keep it secret.
pub fn key_to_pem(pkcs8: &[u8]) -> String {
    encode("PRIVATE KEY", pkcs8)
}

/// The first certificate in a PEM text.
///
/// # Errors
/// There is none.
pub fn certificate_from_pem(text: &str) -> Result<CertificateDer<'static>, CredentialsError> {
    Ok(certificates_from_pem(text)?.swap_remove(0))
}

/// The first private key in a PEM text.
///
/// # Errors
/// There is none.
pub fn key_from_pem(text: &str) -> Result<PrivateKeyDer<'static>, CredentialsError> {
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| CredentialsError::Key)
}

/// Every certificate in a PEM text, in order.
///
/// # Errors
/// There is none, or one of them is damaged.
pub fn certificates_from_pem(text: &str) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let found = CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| CredentialsError::Certificate(e.to_string()))?;
    if found.is_empty() {
        return Err(CredentialsError::Certificate("none found".into()));
    }
    Ok(found)
}

fn encode(label: &str, der: &[u8]) -> String {
    let base64 = BASE64_STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE_CHARS));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text + "-----END " + label + "-----\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_round_trips() {
        for len in [1, 47, 48, 49, 300] {
            let der = CertificateDer::from(vec![7; len]);
            let text = certificate_to_pem(&der);
            assert!(text.lines().all(|line| line.len() <= LINE_CHARS));
            assert_eq!(certificate_from_pem(&text), Ok(der));
            let key = key_from_pem(&key_to_pem(&vec![7; len])).unwrap();
            assert_eq!(key.secret_der(), vec![7; len]);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let key = key_to_pem(&[1]);
        assert_eq!(certificate_from_pem(""), Err(CredentialsError::Certificate("none found".into())));
        assert_eq!(certificate_from_pem(&key), Err(CredentialsError::Certificate("none found".into())));
        assert!(certificate_from_pem("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n").is_err());
        assert_eq!(key_from_pem("hello").err(), Some(CredentialsError::Key));
    }
}
