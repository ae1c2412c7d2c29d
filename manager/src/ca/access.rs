//! Certificates of the remote API: those of the people and programs that may use it, and the server's own.
//!
//! A client's says: CN = name of the access, OU = `racimo-admin` or `racimo-read-only`, O = cluster id. The store has the
//! last word on what it may do. The server's carries the addresses and names of its machine, and never
//! [`MANAGER_NAME`]: it is no manager's to boards.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use racimo_common::id::ClusterId;
use racimo_common::time::Wall;
use racimo_common::tls::{self, MANAGER_NAME};
use racimo_common::token::DIGEST_BYTES;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, SanType};
use ring::rand::SecureRandom;
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME, OID_X509_ORGANIZATIONAL_UNIT};
use zeroize::Zeroizing;

use super::kept::{self, KeptError};
use super::peer::only;
use super::root::key;
use super::{Ca, CaError, CertRequest, Issued, PeerError, Signed};
use crate::limits::API_NAMES_MAX;
use crate::store::{AccessRole, Cluster};
use crate::vault::Vault;

/// The OU of the server's certificate.
const SERVER_UNIT: &str = "racimo-api";

fn unit(role: AccessRole) -> &'static str {
    match role {
        AccessRole::Admin => "racimo-admin",
        AccessRole::ReadOnly => "racimo-read-only",
    }
}

/// Whose certificate a client of the API shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The name of the access: the CN.
    pub name: String,
    /// The cluster it belongs to: the O.
    pub cluster: ClusterId,
    /// SHA-256 of its public key (SubjectPublicKeyInfo).
    pub key_digest: [u8; DIGEST_BYTES],
}

impl Holder {
    /// Reads a certificate that TLS has verified: it says nothing about trust itself.
    ///
    /// # Errors
    /// It is not an access's.
    pub fn of(certificate_der: &[u8]) -> Result<Self, PeerError> {
        let (_, certificate) = x509_parser::parse_x509_certificate(certificate_der).map_err(|_| PeerError::Encoding)?;
        let subject = certificate.subject();
        let of = |role| only(subject, &OID_X509_ORGANIZATIONAL_UNIT) == Some(unit(role));
        if ![AccessRole::Admin, AccessRole::ReadOnly].into_iter().any(of) {
            return Err(PeerError::Field { field: "OU", expected: "racimo-admin or racimo-read-only" });
        }
        let cn = PeerError::Field { field: "CN", expected: "the name of an access" };
        let o = PeerError::Field { field: "O", expected: "a cluster id" };
        Ok(Self {
            name: only(subject, &OID_X509_COMMON_NAME).ok_or(cn)?.to_owned(),
            cluster: only(subject, &OID_X509_ORGANIZATION_NAME).and_then(|text| text.parse().ok()).ok_or(o)?,
            key_digest: tls::digest(certificate.public_key().raw),
        })
    }
}

/// What clients may call a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    addresses: BTreeSet<IpAddr>,
    names: BTreeSet<String>,
}

impl Names {
    /// Those of a machine: what it is advertised as (`ADDRESS[:PORT]`), `localhost`, its host name (with `.local` too, as
    /// mDNS has it), and its addresses, in this order: what is too many is left out, as is what no certificate can hold.
    pub fn of(advertised: &[String], host: &str, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut all = Self::default();
        for text in advertised {
            let host = host_of(text);
            match host.parse() {
                Ok(address) => all.add_address(address),
                Err(_) => all.add_name(host),
            }
        }
        all.add_name("localhost");
        all.add_name(host);
        if !host.contains('.') {
            all.add_name(&format!("{host}.local"));
        }
        for address in addresses {
            all.add_address(address);
        }
        all
    }

    fn add_address(&mut self, address: IpAddr) {
        if !address.is_unspecified() && self.addresses.len() < API_NAMES_MAX {
            self.addresses.insert(address.to_canonical());
        }
    }

    fn add_name(&mut self, name: &str) {
        let name = name.to_ascii_lowercase();
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        // Boards know managers by that one.
        if name != MANAGER_NAME
            && name.len() <= 253
            && name.split('.').all(is_label)
            && self.names.len() < API_NAMES_MAX
        {
            self.names.insert(name);
        }
    }
}

/// `10.0.0.1:2377`, `[::1]:2377`, `::1`, `pi:2377`: without the port.
pub fn host_of(text: &str) -> &str {
    if let Some((host, _)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return host;
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => host,
        Some(_) | None => text,
    }
}

/// The authority that signs now: of the root that is on its way, if there is one.
///
/// # Errors
/// [`KeptError`].
pub fn issuer(vault: &Vault, cluster: &Cluster) -> Result<Ca, KeptError> {
    match &cluster.trust.rotation {
        Some(rotation) => kept::open_key(vault, cluster.id, &rotation.root_pem, &rotation.key),
        None => kept::open(vault, cluster),
    }
}

impl Ca {
    /// Signs the certificate of an access for the key of a request. It ends no later than the root does.
    ///
    /// # Errors
    /// As [`Ca::issue`].
    pub fn issue_access(
        &self,
        request: &CertRequest,
        name: &str,
        role: AccessRole,
        now: Wall,
        validity: Duration,
        rng: &dyn SecureRandom,
    ) -> Result<Signed, CaError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(self.cluster(), unit(role), name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.certify(params, request.key(), now, validity, rng)
    }

    /// A new key and certificate for the API's own server.
    ///
    /// # Errors
    /// As [`Ca::issue`].
    pub fn issue_server(
        &self,
        names: &Names,
        now: Wall,
        validity: Duration,
        rng: &dyn SecureRandom,
    ) -> Result<Issued, CaError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(self.cluster(), SERVER_UNIT, SERVER_UNIT);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = names.addresses.iter().map(|address| SanType::IpAddress(*address)).collect();
        for name in &names.names {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into().map_err(CaError::Sign)?));
        }
        let key = key(rng)?;
        let signed = self.certify(params, &key, now, validity, rng)?;
        let certificates = tls::certificate_to_pem(&signed.der) + &self.root_pem();
        Ok(Issued { certificates, key: Zeroizing::new(key.serialize_pem()), expires: signed.expires })
    }
}

fn subject(cluster: ClusterId, unit: &str, name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, cluster.to_string());
    subject.push(DnType::OrganizationalUnitName, unit);
    subject.push(DnType::CommonName, name);
    subject
}

#[cfg(test)]
mod tests {
    use racimo_common::id::{NodeId, RandomId};
    use racimo_common::object::Role;
    use rcgen::KeyPair;
    use ring::rand::SystemRandom;

    use super::*;
    use crate::ca::{NODE_VALIDITY, Peer};

    const NOW: Wall = Wall::from_nanos(1_790_000_000_000_000_000);

    fn ca() -> Ca {
        Ca::create(ClusterId::from_bits(7), NOW, &SystemRandom::new()).expect("a root")
    }

    fn request() -> CertRequest {
        let key = KeyPair::generate().expect("a key");
        let request = CertificateParams::default().serialize_request(&key).expect("a request");
        CertRequest::parse(request.der()).expect("it is usable")
    }

    #[test]
    fn an_access_is_no_node_and_a_node_no_access() {
        let (ca, rng, request) = (ca(), SystemRandom::new(), request());
        let signed = ca.issue_access(&request, "ann", AccessRole::ReadOnly, NOW, NODE_VALIDITY, &rng).expect("signed");
        let holder = Holder::of(&signed.der).expect("a holder");
        let want = Holder { name: "ann".into(), cluster: ca.cluster(), key_digest: request.key_digest() };
        assert_eq!(holder, want);
        assert!(Peer::of(&signed.der, &[]).is_err());
        let (_, parsed) = x509_parser::parse_x509_certificate(&signed.der).expect("a certificate");
        let eku = parsed.extended_key_usage().expect("read").expect("there").value;
        assert!(eku.client_auth && !eku.server_auth && !parsed.is_ca());
        let node = ca.issue(&request, NodeId::from_bits(1), Role::Worker, NOW, NODE_VALIDITY, &rng).expect("signed");
        assert!(Holder::of(&node.der).is_err() && Holder::of(b"garbage").is_err());
    }

    #[track_caller]
    fn check(addresses: &[&str], host: &str, advertised: &[&str], want: &str) {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().expect("an address")).collect();
        let advertised: Vec<String> = advertised.iter().map(|text| (*text).to_owned()).collect();
        let names = Names::of(&advertised, host, addresses);
        let all = names.addresses.iter().map(ToString::to_string).chain(names.names.iter().cloned());
        assert_eq!(all.collect::<Vec<_>>().join(" "), want);
    }

    #[test]
    fn names_of_a_server() {
        check(&["192.168.1.5", "127.0.0.1"], "Pi4", &[], "127.0.0.1 192.168.1.5 localhost pi4 pi4.local");
        check(&["::1"], "pi.lan", &["10.0.0.1:2377", "[fd00::1]:2377"], "10.0.0.1 ::1 fd00::1 localhost pi.lan");
        check(&["0.0.0.0"], "", &["gate.example:2377", "fd00::2"], "fd00::2 gate.example localhost");
        check(&[], "swarm-manager", &["swarm-manager:1", "bad_name", "ä"], "localhost swarm-manager.local");
        let many: Vec<String> = (0..=255).map(|n| format!("10.0.0.{n}")).collect();
        let names = Names::of(&[], "x", many.iter().filter_map(|text| text.parse().ok()));
        assert_eq!(names.addresses.len(), API_NAMES_MAX);
    }

    #[test]
    fn a_server_is_no_manager() {
        let ca = ca();
        let names = Names::of(&[], "pi", ["10.0.0.1".parse().expect("an address")]);
        let issued = ca.issue_server(&names, NOW, NODE_VALIDITY, &SystemRandom::new()).expect("issued");
        let leaf = tls::certificate_from_pem(&issued.certificates).expect("PEM");
        assert!(Peer::of(&leaf, &[]).is_err() && Holder::of(&leaf).is_err());
        let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).expect("a certificate");
        let eku = parsed.extended_key_usage().expect("read").expect("there").value;
        assert!(eku.server_auth && !eku.client_auth);
        let san = &parsed.subject_alternative_name().expect("read").expect("there").value.general_names;
        let text = format!("{san:?}");
        assert!(text.contains("pi.local") && !text.contains(MANAGER_NAME) && san.len() == 4, "{text}");
    }
}
