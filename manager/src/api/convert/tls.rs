//! What the API tells about root certificates: the cluster's, and those of its nodes.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bollard_stubs::models::TlsInfo;
use racimo_common::token::DIGEST_BYTES;
use ring::digest;
use x509_parser::pem::parse_x509_pem;

use crate::store::{Cluster, NodeTrust};

/// The cluster's root, and who signs its certificates: the root that is on its way, if there is one. As in SwarmKit,
/// so that clients see which nodes have a certificate of the new root yet.
pub fn cluster(cluster: &Cluster) -> TlsInfo {
    let issuer = cluster.trust.rotation.as_ref().map_or(&cluster.root_pem, |rotation| &rotation.root_pem);
    info(&cluster.root_pem, issuer)
}

/// Trusted roots (PEM), and the subject and public key (DER, base 64) of the one that signs. A text that is no
/// certificate shows as it is.
fn info(trusted: &str, issuer: &str) -> TlsInfo {
    let mut info = TlsInfo { trust_root: Some(trusted.to_owned()), ..TlsInfo::default() };
    let Ok((_, pem)) = parse_x509_pem(issuer.as_bytes()) else { return info };
    let Ok(root) = pem.parse_x509() else { return info };
    info.cert_issuer_subject = Some(STANDARD.encode(root.subject().as_raw()));
    info.cert_issuer_public_key = Some(STANDARD.encode(root.public_key().raw));
    info
}

/// What nodes may show and trust: every root that the cluster remembers.
pub struct Roots {
    /// By the SHA-256 of each.
    known: BTreeMap<[u8; DIGEST_BYTES], TlsInfo>,
    /// The one root that there ever was.
    only: Option<TlsInfo>,
}

impl Roots {
    /// The cluster's.
    pub fn of(cluster: &Cluster) -> Self {
        let trust = &cluster.trust;
        let coming = trust.rotation.iter().map(|rotation| &rotation.root_pem);
        let retired = trust.retired.iter().map(|retired| &retired.root_pem);
        let all = std::iter::once(&cluster.root_pem).chain(coming).chain(retired);
        let known = all.filter_map(|pem| Some((root_digest(pem)?, info(pem, pem)))).collect();
        let is_only = trust.rotation.is_none() && trust.retired.is_empty();
        Self { known, only: is_only.then(|| self::cluster(cluster)) }
    }

    /// What a node shows and trusts. None: it is not known.
    pub fn node(&self, trust: Option<&NodeTrust>) -> Option<TlsInfo> {
        // A node that has not said so has what all have, if there never was anything else.
        let Some(trust) = trust else { return self.only.clone() };
        let issuer = self.known.get(&trust.issuer);
        let roots: String = trust.roots.iter().filter_map(|root| self.known.get(root)?.trust_root.as_deref()).collect();
        (issuer.is_some() || !roots.is_empty()).then(|| TlsInfo {
            trust_root: Some(roots),
            cert_issuer_subject: issuer.and_then(|issuer| issuer.cert_issuer_subject.clone()),
            cert_issuer_public_key: issuer.and_then(|issuer| issuer.cert_issuer_public_key.clone()),
        })
    }
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
        let info = info(ROOT, ROOT);
        assert_eq!(info.cert_issuer_subject.as_deref(), Some("MBMxETAPBgNVBAMTCHN3YXJtLWNh"));
        let key = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEz8bMSy79poS5zHsyAaYXyd2a4kICklC0EF9nrQWrGQTQ82ymSaBydyjeKcpPmueMsW10YsnIj3+GIL7W5d2duQ==";
        assert_eq!(info.cert_issuer_public_key.as_deref(), Some(key));
        assert!(root_digest(ROOT).is_some());
    }

    #[test]
    fn what_is_no_certificate_is_shown() {
        assert_eq!(info("x", "x").trust_root.as_deref(), Some("x"));
        assert_eq!(info("x", "x").cert_issuer_subject, None);
        assert_eq!(root_digest("x"), None);
    }
}
