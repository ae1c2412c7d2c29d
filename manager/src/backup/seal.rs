//! A passphrase on a backup: PBKDF2-HMAC-SHA256 makes a key of it, ChaCha20-Poly1305 seals the contents.
//!
//! The salt is random, so every backup has a key of its own, and its nonce can be zero. How often the passphrase is
//! stretched is in the header, so that later versions can choose more.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::pbkdf2;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::BackupError;
use crate::limits::BACKUP_ITERATIONS_MAX;

/// How often a passphrase is stretched: OWASP's figure of 2023 for PBKDF2 with SHA-256.
pub const ITERATIONS: NonZeroU32 = NonZeroU32::new(600_000).unwrap();
/// Bytes that sealing adds.
pub(super) const TAG: usize = 16;
const SALT_BYTES: usize = 32;

/// How a backup is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Sealing {
    /// How often the passphrase is stretched.
    pub iterations: NonZeroU32,
    /// Random.
    salt: Salt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Salt([u8; SALT_BYTES]);

impl Serialize for Salt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Salt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| serde::de::Error::custom("not a salt"))
    }
}

impl Sealing {
    pub(super) fn draw(iterations: NonZeroU32) -> Result<Self, BackupError> {
        let mut salt = [0; SALT_BYTES];
        SystemRandom::new().fill(&mut salt).map_err(|_| BackupError::Random)?;
        Ok(Self { iterations, salt: Salt(salt) })
    }

    fn key(&self, passphrase: &str) -> Result<LessSafeKey, BackupError> {
        if self.iterations.get() > BACKUP_ITERATIONS_MAX {
            return Err(BackupError::Content("its passphrase would take too long".to_owned()));
        }
        let mut key = Zeroizing::new([0; 32]);
        let stretch = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(stretch, self.iterations, &self.salt.0, passphrase.as_bytes(), &mut *key);
        UnboundKey::new(&CHACHA20_POLY1305, &*key).map(LessSafeKey::new).map_err(|_| BackupError::Passphrase)
    }

    /// Adds the sealed contents behind what is there already, which is authenticated with them.
    pub(super) fn seal(&self, passphrase: &str, plain: &[u8], into: &mut Vec<u8>) -> Result<(), BackupError> {
        let before = into.len();
        into.extend_from_slice(plain);
        let (head, body) = into.split_at_mut(before);
        let tag = self.key(passphrase)?.seal_in_place_separate_tag(nonce(), Aad::from(&*head), body);
        // It only fails for more bytes than fit into memory.
        let tag = tag.map_err(|_| BackupError::TooLarge { bytes: plain.len() as u64 })?;
        into.extend_from_slice(tag.as_ref());
        Ok(())
    }

    pub(super) fn open(&self, passphrase: &str, head: &[u8], body: &[u8]) -> Result<Zeroizing<Vec<u8>>, BackupError> {
        let mut plain = Zeroizing::new(body.to_vec());
        let opened = self.key(passphrase)?.open_in_place(nonce(), Aad::from(head), &mut plain);
        let length = opened.map_err(|_| BackupError::Passphrase)?.len();
        plain.truncate(length);
        Ok(plain)
    }
}

/// Each key seals once.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}
