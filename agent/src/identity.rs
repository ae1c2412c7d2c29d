//! Who this board is: its key, its certificate and its cluster, as kept on disk.
//!
//! ```text
//! <data>/identity/        0700; all four files change together
//!   key.pem               the private key, 0600 as are the others
//!   cert.pem              the node's certificate
//!   root.pem              the cluster's root certificate; two while one replaces the other
//!   cluster.json          ids, role, managers, and digests of all four
//! ```
//!
//! A new identity is written whole beside the old one (`identity.new`) and put in its place by renaming, so that a
//! power cut leaves the old or the new one, never a mixture. Damage is found by the digests and named. The agent and
//! the commands beside it take turns ([`Turn`]).

mod files;
mod own;
pub(crate) mod removed;

use std::path::Path;

use racimo_common::id::{ClusterId, NodeId};
use racimo_common::object::Role;
use racimo_common::tls::{self, CertificateDer, Credentials, PrivateKeyDer};
use racimo_common::wire::Trusts;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use ring::rand::SecureRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};

use crate::journal::seal::Sealer;

pub use files::{IdentityError, Turn};
pub use own::{Own, OwnError};

/// A member's identity. Nothing in it is secret but the key, which only [`Identity::credentials`] gives out.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node's id.
    pub node: NodeId,
    /// What it may do.
    pub role: Role,
    /// Managers it may dial, `host:port`.
    pub managers: Vec<String>,
    /// The cluster's root certificates: at least one.
    pub roots: Vec<CertificateDer<'static>>,
    /// The node's certificate.
    pub certificate: CertificateDer<'static>,
    /// Its private key.
    pub key: NodeKey,
}

/// A P-256 private key, PKCS#8. `Debug` hides it.
#[derive(Clone)]
pub struct NodeKey(Vec<u8>);

/// The random source failed, or the key was refused by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("making a key or a signature failed: the random source does not work")]
pub struct KeyError;

impl Identity {
    /// As [`Turn::load`], when it is this process's turn.
    ///
    /// # Errors
    /// As [`Turn::load`].
    pub fn load(data: &Path) -> Result<Option<Self>, IdentityError> {
        Turn::take(data)?.load()
    }

    /// As [`Turn::erase`].
    ///
    /// # Errors
    /// As [`Turn::erase`].
    pub fn erase(data: &Path) -> Result<(), IdentityError> {
        Turn::take(data)?.erase()
    }

    #[cfg(test)]
    pub(crate) fn store(&self, data: &Path) -> Result<(), IdentityError> {
        Turn::take(data)?.store(self)
    }

    /// What it shows and trusts, as the manager is told.
    pub fn trusts(&self) -> Trusts {
        let roots = self.roots.iter().map(|root| tls::digest(root)).collect();
        Trusts { certificate: tls::digest(&self.certificate), roots }
    }

    /// What seals this board's contents: it needs the board's key.
    pub fn sealer(&self) -> Sealer {
        Sealer::new(&self.key.0)
    }

    /// What it shows to a manager.
    ///
    /// # Errors
    /// The certificate does not belong to the key.
    pub fn credentials(&self) -> Result<Credentials, racimo_common::tls::CredentialsError> {
        Credentials::new(vec![self.certificate.clone()], PrivateKeyDer::Pkcs8(self.key.0.clone().into()))
    }
}

impl NodeKey {
    /// A new key.
    ///
    /// # Errors
    /// The random source fails.
    pub fn generate(rng: &dyn SecureRandom) -> Result<Self, KeyError> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, rng).map_err(|_| KeyError)?;
        Ok(Self(pkcs8.as_ref().to_vec()))
    }

    /// A certificate request (PKCS#10, DER) for this key, with an empty subject: the manager decides what the
    /// certificate says.
    ///
    /// # Errors
    /// The random source fails.
    pub fn request(&self) -> Result<Vec<u8>, KeyError> {
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&self.0.as_slice().into(), &PKCS_ECDSA_P256_SHA256)
            .map_err(|_| KeyError)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&pair).map_err(|_| KeyError)?.der().to_vec())
    }
}

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeKey(…)")
    }
}

#[cfg(test)]
pub(crate) mod tests;
