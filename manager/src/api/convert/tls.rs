//! What the API tells about the cluster's root certificate.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bollard_stubs::models::TlsInfo;
use racimo_common::token::DIGEST_BYTES;
use ring::digest;
use x509_parser::pem::parse_x509_pem;

/// Root certificate (PEM), its subject and its public key (DER, base 64). A text that is no certificate shows as it is.
pub fn info(root_pem: &str) -> TlsInfo {
    let mut info = TlsInfo { trust_root: Some(root_pem.to_owned()), ..TlsInfo::default() };
    let Ok((_, pem)) = parse_x509_pem(root_pem.as_bytes()) else { return info };
    let Ok(root) = pem.parse_x509() else { return info };
    info.cert_issuer_subject = Some(STANDARD.encode(root.subject().as_raw()));
    info.cert_issuer_public_key = Some(STANDARD.encode(root.public_key().raw));
    info
}

/// SHA-256 of the certificate's DER, for join tokens. `None`: the text is no certificate.
pub fn root_digest(root_pem: &str) -> Option<[u8; DIGEST_BYTES]> {
    let (_, pem) = parse_x509_pem(root_pem.as_bytes()).ok()?;
    digest::digest(&digest::SHA256, &pem.contents).as_ref().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From recording 010.
    const ROOT: &str = "-----BEGIN CERTIFICATE-----\nMIIBaTCCARCgAwIBAgIUFPazd6S+dWGiRUH4K8xEP6hwjMEwCgYIKoZIzj0EAwIw\nEzERMA8GA1UEAxMIc3dhcm0tY2EwHhcNMjYxMTIwMTEwOTAwWhcNNDYxMTE1MTEw\nOTAwWjATMREwDwYDVQQDEwhzd2FybS1jYTBZMBMGByqGSM49AgEGCCqGSM49AwEH\nA0IABM/GzEsu/aaEucx7MgGmF8ndmuJCApJQtBBfZ60FqxkE0PNspkmgcnco3inK\nT5rnjLFtdGLJyI9/hiC+1uXdnbmjQjBAMA4GA1UdDwEB/wQEAwIBBjAPBgNVHRMB\nAf8EBTADAQH/MB0GA1UdDgQWBBRUT4EV336l2xo3ryI2cqDJsu8RejAKBggqhkjO\nPQQDAgNHADBEAiA474Jj08w8T6WW5ZEJCMA0JnYXQFuBPDT3Oz+eKjbYEwIgA/Wo\nyjcOdsJxjnP1fa5FkERGlg8ZdliJVrHG6bRMr1k=\n-----END CERTIFICATE-----\n";

    #[test]
    fn as_docker_shows_it() {
        let info = info(ROOT);
        assert_eq!(info.cert_issuer_subject.as_deref(), Some("MBMxETAPBgNVBAMTCHN3YXJtLWNh"));
        let key = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEz8bMSy79poS5zHsyAaYXyd2a4kICklC0EF9nrQWrGQTQ82ymSaBydyjeKcpPmueMsW10YsnIj3+GIL7W5d2duQ==";
        assert_eq!(info.cert_issuer_public_key.as_deref(), Some(key));
        assert!(root_digest(ROOT).is_some());
    }

    #[test]
    fn what_is_no_certificate_is_shown() {
        assert_eq!(info("x").trust_root.as_deref(), Some("x"));
        assert_eq!(info("x").cert_issuer_subject, None);
        assert_eq!(root_digest("x"), None);
    }
}
