//! The unlock key, and the vault's key file as it is kept on the disk.
//!
//! With autolock the file holds the vault's key wrapped by the unlock key; the unlock key itself is in the store, sealed
//! by the vault, so that who has the store and the file has neither.
//!
//! ```text
//! plain: 32 bytes     wrapped: "racimo vault key, locked 1\n" · once or twice: nonce 12 · ciphertext 32 · tag 16
//! ```
//! Twice: by the present unlock key and by the one before it, until the present one was shown. ChaCha20-Poly1305; the
//! words before it are authenticated. The unlock key is 256 random bits, so there is nothing to stretch. Its text is
//! Docker's: `SWMKEY-1-` and base 64 without padding.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::{Zeroize, Zeroizing};

use super::{KEY_BYTES, Key, Owner, Vault, VaultError};
use crate::store::{Cluster, Sealed, UnlockBefore};

const PREFIX: &str = "SWMKEY-1-";
const WRAPPED: &[u8] = b"racimo vault key, locked 1\n";
/// Bytes of a key that was wrapped once.
const BODY_BYTES: usize = NONCE_LEN + KEY_BYTES + 16;
/// Unlock keys that may open one file.
const LOCKS_MAX: usize = 2;

/// What opens a locked manager. `Debug` hides it.
#[derive(PartialEq, Eq)]
pub struct UnlockKey([u8; KEY_BYTES]);

/// A text is no unlock key. The words are Docker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid key string")]
pub struct BadUnlockKey;

impl UnlockKey {
    /// A new one.
    ///
    /// # Errors
    /// The random source fails.
    pub fn draw(rng: &dyn SecureRandom) -> Result<Self, VaultError> {
        let mut key = Self([0; KEY_BYTES]);
        rng.fill(&mut key.0).map_err(|_| VaultError::Random)?;
        Ok(key)
    }

    /// Reads one; white space around it is ignored.
    ///
    /// # Errors
    /// [`BadUnlockKey`].
    pub fn parse(text: &str) -> Result<Self, BadUnlockKey> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(BadUnlockKey)?;
        let bytes = Zeroizing::new(STANDARD_NO_PAD.decode(encoded).map_err(|_| BadUnlockKey)?);
        <[u8; KEY_BYTES]>::try_from(&**bytes).map(Self).map_err(|_| BadUnlockKey)
    }

    /// As users keep it.
    pub fn text(&self) -> Zeroizing<String> {
        let encoded = Zeroizing::new(STANDARD_NO_PAD.encode(self.0));
        Zeroizing::new(format!("{PREFIX}{}", *encoded))
    }

    /// Seals it for the store.
    ///
    /// # Errors
    /// The vault is locked, or there is no chance.
    pub fn seal(&self, vault: &Vault) -> Result<Sealed, VaultError> {
        vault.seal(Owner::Unlock, self.text().as_bytes())
    }

    /// The cluster's; none: autolock is off.
    ///
    /// # Errors
    /// The vault does not open it.
    pub fn open(vault: &Vault, cluster: &Cluster) -> Result<Option<Self>, VaultError> {
        cluster.trust.unlock.as_ref().map(|sealed| Self::unseal(vault, sealed)).transpose()
    }

    fn unseal(vault: &Vault, sealed: &Sealed) -> Result<Self, VaultError> {
        let plain = vault.open(Owner::Unlock, sealed)?;
        let text = std::str::from_utf8(&plain).map_err(|_| VaultError::Unopened)?;
        Self::parse(text).map_err(|_| VaultError::Unopened)
    }

    fn cipher(&self) -> Result<LessSafeKey, VaultError> {
        UnboundKey::new(&CHACHA20_POLY1305, &self.0).map(LessSafeKey::new).map_err(|_| VaultError::Unopened)
    }
}

impl Drop for UnlockKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnlockKey(secret)")
    }
}

/// The unlock keys that shall open the key file, the present one first; none: the file is plain.
#[derive(Debug, Default)]
pub struct Locks(Vec<UnlockKey>);

impl Locks {
    /// As the store says.
    ///
    /// # Errors
    /// The vault does not open them.
    pub fn of(vault: &Vault, cluster: &Cluster) -> Result<Self, VaultError> {
        let Some(present) = UnlockKey::open(vault, cluster)? else { return Ok(Self(Vec::new())) };
        Ok(Self(match &cluster.trust.unlock_before {
            None => vec![present],
            Some(UnlockBefore::Nothing) => Vec::new(),
            Some(UnlockBefore::Key(before)) => vec![present, UnlockKey::unseal(vault, before)?],
        }))
    }

    /// Whether the file is plain.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this opens the file; none: nothing has to be brought.
    pub fn has(&self, brought: Option<&UnlockKey>) -> bool {
        brought.map_or(self.is_empty(), |brought| self.0.contains(brought))
    }
}

/// The vault's key file, as it was read.
#[derive(Debug)]
pub enum KeyFile {
    /// Anybody who reads it has the key.
    Plain(Key),
    /// Who reads it needs the unlock key.
    Wrapped(Wrapped),
}

/// A key, wrapped by one unlock key or by each of two.
#[derive(Debug)]
pub struct Wrapped(Vec<u8>);

impl KeyFile {
    /// Reads the file's bytes; none: it is not what we wrote.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        match bytes.strip_prefix(WRAPPED) {
            Some(rest) => {
                let is_whole = rest.len() % BODY_BYTES == 0 && (1..=LOCKS_MAX).contains(&(rest.len() / BODY_BYTES));
                is_whole.then(|| Self::Wrapped(Wrapped(rest.to_vec())))
            }
            None => Key::from_bytes(bytes).map(Self::Plain),
        }
    }

    /// The file's bytes for this key, as these locks want it.
    ///
    /// # Errors
    /// The random source fails.
    pub fn write(key: &Key, locks: &Locks) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        if locks.is_empty() {
            return Ok(Zeroizing::new(key.bytes().to_vec()));
        }
        // Room for all of it, so that no copy of the key is left behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(WRAPPED.len() + LOCKS_MAX * BODY_BYTES));
        bytes.extend_from_slice(WRAPPED);
        for unlock in &locks.0 {
            let mut nonce = [0; NONCE_LEN];
            SystemRandom::new().fill(&mut nonce).map_err(|_| VaultError::Random)?;
            bytes.extend_from_slice(&nonce);
            let body = bytes.len();
            bytes.extend_from_slice(key.bytes());
            let nonce = Nonce::assume_unique_for_key(nonce);
            let tag = unlock.cipher()?.seal_in_place_separate_tag(nonce, Aad::from(WRAPPED), &mut bytes[body..]);
            bytes.extend_from_slice(tag.map_err(|_| VaultError::Unopened)?.as_ref());
        }
        Ok(bytes)
    }

    /// The key, if exactly these open the file, and each the same key.
    pub fn key(&self, locks: &Locks) -> Option<Key> {
        match self {
            Self::Plain(key) => locks.is_empty().then(|| Key(key.0)),
            Self::Wrapped(wrapped) => {
                let bodies = wrapped.0.chunks_exact(BODY_BYTES);
                let keys = locks.0.iter().zip(bodies.clone()).map(|(unlock, body)| unwrap(body, unlock));
                let keys = keys.collect::<Option<Vec<_>>>().filter(|_| locks.0.len() == bodies.len())?;
                let is_one = keys.windows(2).all(|pair| pair[0].0 == pair[1].0);
                keys.into_iter().next().filter(|_| is_one)
            }
        }
    }
}

/// What was wrapped by this unlock key; none: it was not, or is damaged.
fn unwrap(body: &[u8], unlock: &UnlockKey) -> Option<Key> {
    let (nonce, body) = body.split_first_chunk::<NONCE_LEN>()?;
    let mut bytes = Zeroizing::new(body.to_vec());
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let plain = unlock.cipher().ok()?.open_in_place(nonce, Aad::from(WRAPPED), &mut bytes).ok()?;
    Key::from_bytes(plain)
}

impl Wrapped {
    /// The key; none: this is no unlock key it was wrapped with, or the file is damaged.
    pub fn open(&self, unlock: &UnlockKey) -> Option<Key> {
        self.0.chunks_exact(BODY_BYTES).find_map(|body| unwrap(body, unlock))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::testing::base;
    use crate::vault::testing;

    fn unlock(byte: u8) -> UnlockKey {
        UnlockKey([byte; KEY_BYTES])
    }

    #[test]
    fn keys_look_like_docker_s() {
        // From recording 021.
        let text = "SWMKEY-1-W9Kqj0GqPF9YCLtl4NbMhhwvl3RM4A/o8we31P26bhs";
        assert_eq!(*UnlockKey::parse(&format!(" {text}\n")).expect("a key").text(), text);
        let drawn = UnlockKey::draw(&SystemRandom::new()).expect("chance");
        assert_eq!(drawn.text().len(), text.len());
        assert_eq!(UnlockKey::parse(&drawn.text()).expect("a key").0, drawn.0);
        for bad in
            ["", "SWMKEY-1-", "SWMKEY-1-foo", &text[1..], &text[..51], &format!("{text}A"), &format!("{text}="), "é"]
        {
            assert_eq!(UnlockKey::parse(bad).err(), Some(BadUnlockKey), "{bad}");
        }
        assert_eq!(UnlockKey::parse(&text.replace("-1-", "-2-")).err(), Some(BadUnlockKey));
    }

    #[test]
    fn the_store_holds_it_sealed() {
        let vault = testing();
        let mut cluster = Cluster::clone(base().cluster().expect("a cluster"));
        assert!(UnlockKey::open(&vault, &cluster).expect("none").is_none());
        let sealed = unlock(5).seal(&vault).expect("sealed");
        assert!(!sealed.0.windows(9).any(|part| part == PREFIX.as_bytes()));
        cluster.trust.unlock = Some(sealed);
        assert_eq!(UnlockKey::open(&vault, &cluster).expect("it opens").expect("a key").0, [5; KEY_BYTES]);
        assert_eq!(UnlockKey::open(&Vault::default(), &cluster).err(), Some(VaultError::Locked));
    }

    #[test]
    fn nothing_is_printed() {
        let key = Key([65; KEY_BYTES]);
        let file = |locks| KeyFile::read(&KeyFile::write(&key, &locks).expect("written")).expect("read");
        let (wrapped, plain) = (file(Locks(vec![unlock(66)])), file(Locks(Vec::new())));
        let text = format!("{:?} {plain:?} {BadUnlockKey}", unlock(66));
        assert!(!text.contains("65") && !text.contains("66") && !text.contains("AAAA"), "{text}");
        // What is wrapped may be seen, its key not.
        let KeyFile::Wrapped(wrapped) = wrapped else { panic!("it is wrapped") };
        assert!(!wrapped.0.windows(8).any(|part| part == [65; 8]));
    }

    #[test]
    fn a_file_opens_by_each_of_its_keys_and_is_what_the_store_says_or_not() {
        let key = Key([7; KEY_BYTES]);
        let locks = |keys: &[u8]| Locks(keys.iter().map(|key| unlock(*key)).collect());
        let sets: [&[u8]; 5] = [&[], &[1], &[2], &[1, 2], &[2, 1]];
        for own in sets {
            let bytes = KeyFile::write(&key, &locks(own)).expect("written");
            let file = KeyFile::read(&bytes).expect("read");
            for wanted in sets {
                let opened = file.key(&locks(wanted)).map(|key| key.0);
                assert_eq!(opened, (own == wanted).then_some(key.0), "{own:?}, wanted {wanted:?}");
            }
            if let KeyFile::Wrapped(wrapped) = &file {
                for tried in 1..=3 {
                    assert_eq!(wrapped.open(&unlock(tried)).is_some(), own.contains(&tried), "{own:?}, {tried}");
                }
            }
            for length in 0..bytes.len() {
                assert!(
                    own.len() == 2 && length == WRAPPED.len() + BODY_BYTES
                        || KeyFile::read(&bytes[..length]).is_none_or(|file| file.key(&locks(own)).is_none()),
                    "{length}"
                );
            }
        }
        // Two halves of two files: each opens, but not the same key.
        let mut mixed = KeyFile::write(&key, &locks(&[1])).expect("written").to_vec();
        let other = KeyFile::write(&Key([8; KEY_BYTES]), &locks(&[2])).expect("written");
        mixed.extend_from_slice(&other[WRAPPED.len()..]);
        assert!(KeyFile::read(&mixed).expect("read").key(&locks(&[1, 2])).is_none());
        mixed.extend_from_slice(&other[WRAPPED.len()..]);
        assert!(KeyFile::read(&mixed).is_none(), "three");
    }

    #[test]
    fn which_keys_count_is_in_the_store() {
        let vault = testing();
        let mut cluster = Cluster::clone(base().cluster().expect("a cluster"));
        let mut check = |present: Option<u8>, before, want: &[u8]| {
            let sealed = |byte| unlock(byte).seal(&vault).expect("sealed");
            cluster.trust.unlock = present.map(sealed);
            cluster.trust.unlock_before = before;
            let locks = Locks::of(&vault, &cluster).expect("they open");
            assert_eq!(locks.0.iter().map(|key| key.0[0]).collect::<Vec<_>>(), want);
            assert_eq!(locks.has(None), want.is_empty());
            (1..=3).for_each(|byte| assert_eq!(locks.has(Some(&unlock(byte))), want.contains(&byte), "{byte}"));
        };
        check(None, None, &[]);
        check(Some(1), None, &[1]);
        check(Some(1), Some(UnlockBefore::Nothing), &[]);
        check(Some(1), Some(UnlockBefore::Key(unlock(2).seal(&vault).expect("sealed"))), &[1, 2]);
    }

    proptest! {
        #[test]
        fn only_the_unlock_key_opens_the_file(key: [u8; KEY_BYTES], own: [u8; KEY_BYTES], other: [u8; KEY_BYTES],
                                              flip in any::<prop::sample::Index>(), bit in 0..8) {
            let bytes = KeyFile::write(&Key(key), &Locks(vec![UnlockKey(own)])).unwrap();
            prop_assert!(!bytes.windows(8).any(|part| key.windows(8).any(|k| k == part)));
            let Some(KeyFile::Wrapped(wrapped)) = KeyFile::read(&bytes) else { panic!("it is wrapped") };
            let opened = wrapped.open(&UnlockKey(own)).unwrap();
            prop_assert_eq!(opened.bytes(), &key);
            prop_assert!(own == other || wrapped.open(&UnlockKey(other)).is_none());
            let mut damaged = bytes.to_vec();
            damaged[flip.index(bytes.len())] ^= 1_u8 << bit;
            let opened = match KeyFile::read(&damaged) {
                Some(KeyFile::Wrapped(wrapped)) => wrapped.open(&UnlockKey(own)).is_some(),
                Some(KeyFile::Plain(_)) => true,
                None => false,
            };
            prop_assert!(!opened);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            match KeyFile::read(&bytes) {
                Some(KeyFile::Plain(key)) => prop_assert_eq!(key.bytes(), &bytes[..]),
                Some(KeyFile::Wrapped(wrapped)) => prop_assert!(wrapped.open(&unlock(1)).is_none()),
                None => {}
            }
        }
    }
}
