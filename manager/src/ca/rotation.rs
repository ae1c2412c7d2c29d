//! Root rotation: the root that comes next, trusted through the present one, and when it takes its place.
//!
//! In: the cluster and its root; then what each node is known to show. Out: the [`Rotation`] to store; then a
//! [`Verdict`]. Keeps nothing: a manager that starts in the middle judges the same.
//!
//! ```text
//! begin ─▶ nodes get certificates of the new root ─ Wait(who lacks one) ─▶ Finish
//!          a node that goes down, or is removed, is not waited for
//! ```

use std::fmt::Display;
use std::sync::Arc;

use racimo_common::id::NodeId;
use racimo_common::object::Role;
use racimo_common::time::Wall;
use racimo_common::tls::{self, CertificateDer};
use racimo_common::token::DIGEST_BYTES;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, KeyIdMethod, KeyUsagePurpose,
    PublicKeyData,
};
use ring::rand::SecureRandom;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;

use super::given;
use super::root::{Ca, CaError, ROOT_NAME, serial};
use crate::store::{Node, NodeStatus, Rotation, Sealed, View};

/// X.520's attribute serialNumber: tells a manager's roots apart, whose names are alike otherwise, so that whoever
/// follows a chain of them need not try each.
const NAME_NUMBER: &[u64] = &[2, 5, 4, 5];

/// How many boards, accesses or ids a sentence names.
const NAMES_MAX: usize = 5;

/// The first of these names, and how many more there are.
pub fn named(names: &[impl AsRef<str>]) -> String {
    let named = names.iter().take(NAMES_MAX).map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES_MAX) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// A name for such a sentence: with the id where more than one of `all` has it.
pub fn told_apart<'a>(name: &str, id: impl Display, all: impl Iterator<Item = &'a str>) -> String {
    let is_shared = all.filter(|other| *other == name).nth(1).is_some();
    if is_shared { format!("{name} ({id})") } else { name.to_owned() }
}

/// The names of nodes of the cluster, told apart.
pub fn names_of<'a>(view: &View, nodes: impl Iterator<Item = &'a Arc<Node>>) -> Vec<String> {
    nodes.map(|node| told_apart(node.name(), node.id, view.state.nodes().map(|other| other.name()))).collect()
}

/// What is to be done about a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// None is under way.
    Rest,
    /// These nodes have no certificate of the new root yet.
    Wait(Vec<NodeId>),
    /// All have one.
    Finish,
}

impl Ca {
    /// A root that replaces this one.
    ///
    /// # Errors
    /// As [`Ca::create`].
    pub fn successor(&self, now: Wall, rng: &dyn SecureRandom) -> Result<Self, CaError> {
        let mut number = [0; 10];
        rng.fill(&mut number).map_err(|_| CaError::Random)?;
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, ROOT_NAME);
        let hex: String = number.iter().map(|byte| format!("{byte:02x}")).collect();
        name.push(DnType::from_oid(NAME_NUMBER), DnValue::PrintableString(hex.try_into().map_err(CaError::Sign)?));
        Self::named(self.cluster, name, now, rng)
    }

    /// The key of `next`, certified by this root: who trusts only this one follows it to what `next` signs. It is
    /// valid as long as `next` itself, as SwarmKit's is.
    ///
    /// # Errors
    /// [`CaError::Random`], [`CaError::Sign`]; [`CaError::Stored`]: the certificate of `next` is none.
    pub fn cross_sign(&self, next: &Self, rng: &dyn SecureRandom) -> Result<CertificateDer<'static>, CaError> {
        let unusable = |error: &dyn std::fmt::Display| CaError::Stored(format!("the new root certificate: {error}"));
        let (_, root) = x509_parser::parse_x509_certificate(next.root()).map_err(|error| unusable(&error))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = given::subject(root.subject()).map_err(|error| unusable(&error))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        if let Some(id) = key_id(&root) {
            params.key_identifier_method = KeyIdMethod::PreSpecified(id);
        }
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial(rng)?);
        params.not_before = root.validity().not_before.to_datetime();
        params.not_after = root.validity().not_after.to_datetime();
        let certificate = params.signed_by(next.issuer.key(), &self.issuer).map_err(CaError::Sign)?;
        Ok(certificate.der().clone())
    }

    /// Whether its key is that of this certificate.
    pub fn has_key_of(&self, certificate: &CertificateDer<'_>) -> bool {
        let key = self.issuer.key().subject_public_key_info();
        x509_parser::parse_x509_certificate(certificate).is_ok_and(|(_, other)| other.public_key().raw == key)
    }

    /// What is stored of a rotation from this root to `next`; `key` is the key of `next`, sealed.
    ///
    /// # Errors
    /// As [`Ca::cross_sign`].
    pub fn rotation(&self, next: &Self, key: Sealed, now: Wall, rng: &dyn SecureRandom) -> Result<Rotation, CaError> {
        let cross_pem = tls::certificate_to_pem(&self.cross_sign(next, rng)?);
        Ok(Rotation { root_pem: next.root_pem(), key, cross_pem, started: now })
    }
}

fn key_id(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate.iter_extensions().find_map(|extension| {
        let ParsedExtension::SubjectKeyIdentifier(id) = extension.parsed_extension() else { return None };
        Some(id.0.to_vec())
    })
}

/// What is to be done about the rotation that the store holds.
pub fn judge(view: &View) -> Verdict {
    let rotation = view.state.cluster().and_then(|cluster| cluster.trust.rotation.as_ref());
    let Some(root) = rotation.and_then(|rotation| tls::certificate_from_pem(&rotation.root_pem).ok()) else {
        return Verdict::Rest;
    };
    let issuer = tls::digest(&root);
    let missing: Vec<NodeId> =
        view.state.nodes().filter(|node| holds_up(view, node, issuer)).map(|node| node.id).collect();
    if missing.is_empty() { Verdict::Finish } else { Verdict::Wait(missing) }
}

/// Whether the node has to get a certificate of the new root first. The manager itself has to, also without an agent.
fn holds_up(view: &View, node: &Node, issuer: [u8; DIGEST_BYTES]) -> bool {
    let has = node.trust.as_ref().is_some_and(|trust| trust.issuer == issuer);
    !has && (node.role == Role::Manager || view.node_status(node) != NodeStatus::Down)
}
