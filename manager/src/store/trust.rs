//! What the store holds about trust: root keys and their rotation, who may use the API from afar, autolock.
//!
//! ```text
//! root ── RotationBegin ─▶ root + rotation (new certificates are the new root's) ── RotationFinish ─▶ new root,
//!                          ◀───────────────────────────────────────────────────                      old one retired
//! ```

use std::fmt;

use racimo_common::time::Wall;
use racimo_common::token::DIGEST_BYTES;
use serde::{Deserialize, Serialize};

use super::object::Sealed;

/// How the cluster's certificates are signed, beside the root certificate that join tokens name.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trust {
    /// The root's private key, PEM, sealed by the vault. None: it is still in a file of its own (a cluster of an
    /// older version), and is brought here at the next start.
    pub key: Option<Sealed>,
    /// The root that is on its way.
    pub rotation: Option<Rotation>,
    /// How many rotations users asked for: `ForceRotate` of Docker's API.
    pub asked: u64,
    /// Roots before, the oldest first, at most [`ROOTS_RETIRED_MAX`](crate::limits::ROOTS_RETIRED_MAX).
    pub retired: Vec<Retired>,
    /// The key that unlocks the manager after a start, as text, sealed by the vault. None: no autolock.
    pub unlock: Option<Sealed>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("asked", &self.asked).finish_non_exhaustive()
    }
}

/// A root that replaces the present one, while boards get certificates of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Its certificate, PEM.
    pub root_pem: String,
    /// Its private key, PEM, sealed by the vault.
    pub key: Sealed,
    /// The same key signed by the present root, PEM: who knows only that one trusts what the new one signs.
    pub cross_pem: String,
    /// When it began. Written by the store.
    pub started: Wall,
}

/// A root that was replaced. Boards that were off all the while still show its certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// Its certificate, PEM.
    pub root_pem: String,
    /// The key of the root after it, signed by this one, PEM.
    pub cross_pem: String,
}

/// What a node is known to show and to trust.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeTrust {
    /// SHA-256 of the root certificate whose key signed its certificate.
    pub issuer: [u8; DIGEST_BYTES],
    /// SHA-256 of each root certificate it trusts.
    pub roots: Vec<[u8; DIGEST_BYTES]>,
    /// When its certificate ends.
    pub expires: Wall,
}

/// What a holder of an access may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AccessRole {
    /// Everything.
    Admin,
    /// Look, but not change, and not see what lets somebody in.
    ReadOnly,
}

impl AccessRole {
    /// As users see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::ReadOnly => "read-only",
        }
    }
}

/// Somebody who may use the API over the network, with a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Its unique name: the CN of its certificate.
    pub name: String,
    /// What it may do.
    pub role: AccessRole,
    /// SHA-256 of its public key: a certificate of this name for another key is refused.
    pub key_digest: [u8; DIGEST_BYTES],
    /// When it was made. Written by the store.
    pub created: Wall,
    /// When its certificate ends.
    pub expires: Wall,
}
