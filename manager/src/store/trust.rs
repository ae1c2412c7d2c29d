//! What the store holds about trust: root keys and their rotation, who may use the API from afar, autolock.
//!
//! ```text
//! root ── RotationBegin ─▶ root + rotation (new certificates are the new root's) ── RotationFinish ─▶ new root,
//!                          ◀───────────────────────────────────────────────────                      old one retired
//! root + rotation ── RotationReplace ─▶ root + another rotation, the root that was on its way retired
//! ```

use std::fmt;
use std::sync::Arc;

use racimo_common::time::Wall;
use racimo_common::token::{DIGEST_BYTES, SECRET_BYTES};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::ByteBuf;

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
    /// What opened the manager before `unlock` and does so, too, until that was shown to somebody. None: it was.
    pub unlock_before: Option<UnlockBefore>,
    /// The last time at which a certificate was signed, to about ten minutes: none is signed at an earlier one.
    pub signed: Wall,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("asked", &self.asked).finish_non_exhaustive()
    }
}

/// What opens the manager until its new unlock key was shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnlockBefore {
    /// It starts by itself: there was no autolock.
    Nothing,
    /// The unlock key that was shown last, as text, sealed by the vault.
    Key(Sealed),
}

/// The secret part of a join token. Stored as bytes; an array of numbers is a plain one of an older version.
#[derive(Clone, PartialEq, Eq)]
pub enum TokenSecret {
    /// Sealed by the vault.
    Sealed(Sealed),
    /// As older versions stored it: it is sealed at the manager's next start.
    Plain([u8; SECRET_BYTES]),
}

impl TokenSecret {
    /// Whether the disk tells it.
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }
}

impl From<Sealed> for TokenSecret {
    fn from(sealed: Sealed) -> Self {
        Self::Sealed(sealed)
    }
}

impl From<[u8; SECRET_BYTES]> for TokenSecret {
    fn from(plain: [u8; SECRET_BYTES]) -> Self {
        Self::Plain(plain)
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(…)")
    }
}

impl Serialize for TokenSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Sealed(sealed) => sealed.serialize(serializer),
            Self::Plain(plain) => plain.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for TokenSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TokenSecretVisitor)
    }
}

struct TokenSecretVisitor;

impl<'de> Visitor<'de> for TokenSecretVisitor {
    type Value = TokenSecret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sealed bytes, or {SECRET_BYTES} numbers")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<TokenSecret, E> {
        self.visit_byte_buf(bytes.to_vec())
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<TokenSecret, E> {
        Ok(Sealed(Arc::new(ByteBuf::from(bytes))).into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<TokenSecret, A::Error> {
        let mut plain = [0; SECRET_BYTES];
        for (at, byte) in plain.iter_mut().enumerate() {
            *byte = numbers.next_element()?.ok_or_else(|| A::Error::invalid_length(at, &self))?;
        }
        match numbers.next_element::<u8>()? {
            None => Ok(plain.into()),
            Some(_) => Err(A::Error::invalid_length(SECRET_BYTES + 1, &self)),
        }
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
    /// SHA-256 of the root certificate it was made under; none: by a version that did not keep it.
    #[serde(default)]
    pub issuer: Option<[u8; DIGEST_BYTES]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As an older version wrote it: an array of numbers.
    #[derive(Serialize)]
    struct Older {
        secret: [u8; SECRET_BYTES],
        changed: Option<[u8; SECRET_BYTES]>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Newer {
        secret: TokenSecret,
        changed: Option<TokenSecret>,
    }

    #[test]
    fn token_secrets_of_older_versions_are_read() {
        let numbers = [0, 1, 127, 128, 255, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 200];
        for changed in [None, Some(numbers)] {
            let bytes = rmp_serde::to_vec_named(&Older { secret: numbers, changed }).expect("encodes");
            let read: Newer = rmp_serde::from_slice(&bytes).expect("it is read");
            assert_eq!(read, Newer { secret: numbers.into(), changed: changed.map(Into::into) });
            assert_eq!(rmp_serde::to_vec_named(&read).expect("encodes"), bytes, "and written alike");
        }
        let sealed = TokenSecret::Sealed(Sealed(Arc::new(ByteBuf::from(vec![1; 45]))));
        let newer = Newer { secret: sealed.clone(), changed: Some(sealed) };
        let bytes = rmp_serde::to_vec_named(&newer).expect("encodes");
        assert_eq!(rmp_serde::from_slice::<Newer>(&bytes).expect("it is read"), newer);
        for length in [0, 15, 17] {
            let bytes = rmp_serde::to_vec(&vec![1_u8; length]).expect("encodes");
            assert!(rmp_serde::from_slice::<TokenSecret>(&bytes).is_err(), "{length}");
        }
        assert!(rmp_serde::from_slice::<TokenSecret>(&[0xc0]).is_err());
        assert!(!format!("{:?}", TokenSecret::Plain([65; 16])).contains("65"));
    }
}
