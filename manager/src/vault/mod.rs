//! The vault: seals what must not be read from the manager's disk, and opens it again.
//!
//! In: bytes and what they belong to. Out: [`Sealed`] bytes for the store, and back. ChaCha20-Poly1305 with a random
//! nonce; what the bytes belong to is authenticated with them, so that no body can be put in another's place.
//!
//! ```text
//! locked ─ unlock(key) ─▶ open ─ lock ─▶ locked      sealed: version 1 · nonce 12 · ciphertext · tag 16
//! ```
//! The key is a file of its own, beside the store and never in it. With autolock that file is wrapped ([`unlock`]), and
//! the vault stays locked after a start until somebody brings the unlock key.

pub mod unlock;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use racimo_common::id::{DependencyId, ServiceId};
use racimo_common::object::Role;
use racimo_common::token::DIGEST_BYTES;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde_bytes::ByteBuf;
use zeroize::{Zeroize, Zeroizing};

use self::unlock::{KeyFile, Locks};

use crate::ca::kept::root_digest;
use crate::store::{DependencyKind, Sealed, State, TokenSecret, UnlockBefore};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// What sealing adds to the bytes.
pub const OVERHEAD_BYTES: usize = 1 + NONCE_LEN + 16;
const VERSION: u8 = 1;

/// What sealed bytes belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The body of a secret or config.
    Dependency(DependencyKind, DependencyId),
    /// How the boards of a service log in at a registry.
    Credentials(ServiceId),
    /// The private key of the root certificate with this SHA-256.
    RootKey([u8; DIGEST_BYTES]),
    /// The secret of the join token that makes nodes of this role.
    Token(Role),
    /// The key that unlocks the manager after a start.
    Unlock,
}

impl Owner {
    /// What is authenticated with the bytes.
    fn name(self) -> String {
        match self {
            Self::Dependency(kind, id) => format!("racimo {} {id}", kind.name()),
            Self::Credentials(service) => format!("racimo credentials {service}"),
            Self::RootKey(digest) => {
                let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("racimo root-key {digest}")
            }
            Self::Token(role) => format!("racimo token {role}"),
            Self::Unlock => "racimo unlock-key".to_owned(),
        }
    }
}

/// A key as it is kept. Never printed, and overwritten when it is let go.
pub struct Key([u8; KEY_BYTES]);

impl Key {
    /// A new key.
    ///
    /// # Errors
    /// The random source fails.
    pub fn draw(rng: &dyn SecureRandom) -> Result<Self, VaultError> {
        let mut key = Self([0; KEY_BYTES]);
        rng.fill(&mut key.0).map_err(|_| VaultError::Random)?;
        Ok(key)
    }

    /// A key that was kept; none: these are not its bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Its bytes, to keep them.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(secret)")
    }
}

/// Opened bytes. Never printed, and overwritten when they are let go.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Plain(Vec<u8>);

impl Plain {
    /// Takes bytes into care.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl std::ops::Deref for Plain {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plain({} bytes)", self.0.len())
    }
}

/// Why something cannot be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// There is no key.
    #[error("the vault is locked: its key is not loaded")]
    Locked,
    /// The key is another one, or the bytes were changed or belong to something else.
    #[error("the vault's key does not open it: the key is of another cluster, or the data is damaged")]
    Unopened,
    /// The random source failed.
    #[error("the system's random source does not work")]
    Random,
}

/// The vault; clones share the one key.
#[derive(Clone, Default)]
pub struct Vault(Arc<Mutex<Option<Arc<Open>>>>);

/// A vault that is open.
struct Open {
    cipher: LessSafeKey,
    /// To keep it anew, when autolock is switched.
    key: Key,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_open() { "Vault(open)" } else { "Vault(locked)" })
    }
}

impl Vault {
    /// Opens it with its key.
    ///
    /// # Errors
    /// [`VaultError::Unopened`]: not a key.
    pub fn unlock(&self, key: &Key) -> Result<(), VaultError> {
        let cipher = UnboundKey::new(&CHACHA20_POLY1305, key.bytes()).map_err(|_| VaultError::Unopened)?;
        let open = Open { cipher: LessSafeKey::new(cipher), key: Key(key.0) };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(open));
        Ok(())
    }

    /// Forgets the key.
    pub fn lock(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Its key file's bytes, as these locks want it.
    ///
    /// # Errors
    /// [`VaultError::Locked`], [`VaultError::Random`].
    pub fn key_file(&self, locks: &Locks) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        KeyFile::write(&self.key()?.key, locks)
    }

    /// Whether it has its key.
    pub fn is_open(&self) -> bool {
        self.key().is_ok()
    }

    /// Whether this key is the one that it is open with.
    pub fn is_open_with(&self, key: &Key) -> bool {
        self.key().is_ok_and(|open| open.key.0 == key.0)
    }

    fn key(&self) -> Result<Arc<Open>, VaultError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(VaultError::Locked)
    }

    /// Seals bytes for their owner.
    ///
    /// # Errors
    /// [`VaultError::Locked`], [`VaultError::Random`].
    pub fn seal(&self, owner: Owner, plain: &[u8]) -> Result<Sealed, VaultError> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| VaultError::Random)?;
        seal(&self.key()?.cipher, nonce, owner, plain)
    }

    /// Opens what was sealed for this owner.
    ///
    /// # Errors
    /// [`VaultError::Locked`], [`VaultError::Unopened`].
    pub fn open(&self, owner: Owner, sealed: &Sealed) -> Result<Plain, VaultError> {
        open(&self.key()?.cipher, owner, &sealed.0)
    }

    /// Whether the key is the one that sealed what the store holds.
    ///
    /// # Errors
    /// As [`Vault::open`].
    pub fn check(&self, state: &State) -> Result<(), VaultError> {
        first_sealed(state).map_or(Ok(()), |(owner, sealed)| self.open(owner, sealed).map(drop))
    }

    /// Whether it opens all that is sealed.
    ///
    /// # Errors
    /// As [`Vault::open`].
    pub fn check_all(&self, state: &State) -> Result<(), VaultError> {
        all_sealed(state).try_for_each(|(owner, sealed)| self.open(owner, sealed).map(drop))
    }
}

/// Something of the store that is sealed, if anything is.
pub fn first_sealed(state: &State) -> Option<(Owner, &Sealed)> {
    all_sealed(state).next()
}

/// All of the store that is sealed.
fn all_sealed(state: &State) -> impl Iterator<Item = (Owner, &Sealed)> {
    let bodies = state.dependencies().map(|d| (Owner::Dependency(d.kind, d.id), &d.body));
    let logins = state.services().flat_map(|service| {
        // A rollback needs those of the spec before.
        let specs = [Some(&service.spec), service.previous.as_ref()].into_iter().flatten();
        let sealed = specs.filter_map(|spec| spec.credentials.as_ref());
        sealed.map(|sealed| (Owner::Credentials(service.id), sealed))
    });
    kept(state).chain(bodies).chain(logins)
}

/// What is sealed of the cluster itself.
fn kept(state: &State) -> impl Iterator<Item = (Owner, &Sealed)> {
    let cluster = state.cluster();
    let secrets =
        cluster.map(|cluster| [(Role::Worker, &cluster.worker_secret), (Role::Manager, &cluster.manager_secret)]);
    let tokens = secrets.into_iter().flatten().filter_map(|(role, secret)| match secret {
        TokenSecret::Sealed(sealed) => Some((Owner::Token(role), sealed)),
        TokenSecret::Plain(_) => None,
    });
    let unlock = cluster.and_then(|cluster| Some((Owner::Unlock, cluster.trust.unlock.as_ref()?)));
    let before = cluster.and_then(|cluster| match cluster.trust.unlock_before.as_ref()? {
        UnlockBefore::Key(sealed) => Some((Owner::Unlock, sealed)),
        UnlockBefore::Nothing => None,
    });
    let key = cluster
        .and_then(|cluster| Some((Owner::RootKey(root_digest(&cluster.root_pem)?), cluster.trust.key.as_ref()?)));
    let next = cluster.and_then(|cluster| cluster.trust.rotation.as_ref());
    let next = next.and_then(|next| Some((Owner::RootKey(root_digest(&next.root_pem)?), &next.key)));
    key.into_iter().chain(next).chain(tokens).chain(unlock).chain(before)
}

fn seal(key: &LessSafeKey, nonce: [u8; NONCE_LEN], owner: Owner, plain: &[u8]) -> Result<Sealed, VaultError> {
    let mut bytes = Vec::with_capacity(plain.len() + OVERHEAD_BYTES);
    bytes.push(VERSION);
    bytes.extend_from_slice(&nonce);
    bytes.extend_from_slice(plain);
    let nonce = Nonce::assume_unique_for_key(nonce);
    let aad = Aad::from(owner.name());
    // It only fails for more bytes than fit into memory.
    let tag = key.seal_in_place_separate_tag(nonce, aad, &mut bytes[1 + NONCE_LEN..]);
    bytes.extend_from_slice(tag.map_err(|_| VaultError::Unopened)?.as_ref());
    Ok(Sealed(Arc::new(ByteBuf::from(bytes))))
}

fn open(key: &LessSafeKey, owner: Owner, sealed: &[u8]) -> Result<Plain, VaultError> {
    let rest = sealed.strip_prefix(&[VERSION]).ok_or(VaultError::Unopened)?;
    let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(VaultError::Unopened)?;
    let mut plain = Plain(body.to_vec());
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let aad = Aad::from(owner.name());
    let length = key.open_in_place(nonce, aad, &mut plain.0).map_err(|_| VaultError::Unopened)?.len();
    plain.0.truncate(length);
    Ok(plain)
}

/// An open vault, for tests.
#[cfg(test)]
pub(crate) fn testing() -> Vault {
    let vault = Vault::default();
    vault.unlock(&Key([7; KEY_BYTES])).expect("a key");
    vault
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use racimo_common::id::RandomId;

    use super::*;
    use crate::store::testing::{applied, base, dependency, new_service, service, spec};
    use crate::store::{Change, NewDependency, ServiceSpec};

    fn secret(number: u128) -> Owner {
        Owner::Dependency(DependencyKind::Secret, dependency(number))
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_for_its_owner_alone(plain in proptest::collection::vec(any::<u8>(), 0..2000),
                                                    flip in any::<prop::sample::Index>()) {
            let vault = testing();
            let sealed = vault.seal(secret(1), &plain).unwrap();
            prop_assert_eq!(sealed.0.len(), plain.len() + OVERHEAD_BYTES);
            prop_assert_eq!(&*vault.open(secret(1), &sealed).unwrap(), &plain[..]);
            if plain.len() > 8 {
                prop_assert!(!sealed.0.windows(plain.len()).any(|part| part == plain));
            }
            for other in [secret(2), Owner::Dependency(DependencyKind::Config, dependency(1)), Owner::Credentials(service(1))] {
                prop_assert_eq!(vault.open(other, &sealed), Err(VaultError::Unopened));
            }
            // Any bit that changes is noticed.
            let mut damaged = sealed.0.to_vec();
            let at = flip.index(damaged.len());
            damaged[at] ^= 1;
            let damaged = Sealed(Arc::new(ByteBuf::from(damaged)));
            prop_assert_eq!(vault.open(secret(1), &damaged), Err(VaultError::Unopened));
        }

        #[test]
        fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let sealed = Sealed(Arc::new(ByteBuf::from(bytes)));
            prop_assert_eq!(testing().open(secret(1), &sealed), Err(VaultError::Unopened));
        }
    }

    #[test]
    fn the_same_bytes_are_never_sealed_alike() {
        let vault = testing();
        let twice = [vault.seal(secret(1), b"a").unwrap(), vault.seal(secret(1), b"a").unwrap()];
        assert_ne!(twice[0], twice[1]);
    }

    #[test]
    fn a_locked_vault_and_a_wrong_key() {
        let vault = testing();
        let body = vault.seal(secret(1), b"a").unwrap();
        let (kind, name) = (DependencyKind::Secret, "a".to_owned());
        let new = NewDependency { id: dependency(1), kind, name, labels: Default::default(), template: false, body };
        let state = applied(&base(), vec![Change::DependencyCreate(Box::new(new))]);
        assert_eq!(vault.check(&state), Ok(()));
        vault.unlock(&Key([8; KEY_BYTES])).unwrap();
        assert_eq!(vault.check(&state), Err(VaultError::Unopened));
        assert_eq!(vault.check(&base()), Ok(()));
        vault.clone().lock();
        assert_eq!(vault.check(&state), Err(VaultError::Locked));
        assert_eq!(vault.seal(secret(1), b"a"), Err(VaultError::Locked));
    }

    #[test]
    fn a_wrong_key_is_noticed_by_the_credentials_of_the_spec_before() {
        let vault = testing();
        let spec = |image| ServiceSpec::clone(&spec("db", image, 40));
        let sealed = vault.seal(Owner::Credentials(service(2)), b"a").unwrap();
        let with = ServiceSpec { credentials: Some(sealed), ..spec("pg") };
        let state = applied(&base(), vec![new_service(2, Arc::new(with))]);
        let version = state.service(service(2)).unwrap().meta.version;
        let update = Change::ServiceUpdate { service: service(2), version, spec: Arc::new(spec("pg:2")) };
        let state = applied(&state, vec![update]);
        assert!(state.service(service(2)).unwrap().spec.credentials.is_none());
        assert_eq!(vault.check(&state), Ok(()));
        vault.unlock(&Key([8; KEY_BYTES])).unwrap();
        assert_eq!(vault.check(&state), Err(VaultError::Unopened));
    }

    #[test]
    fn nothing_is_printed() {
        let key = Key([65; KEY_BYTES]);
        let text = format!("{key:?} {:?} {:?}", Plain::new(b"AAAA".to_vec()), testing());
        assert!(!text.contains("AAAA") && !text.contains("65"), "{text}");
        assert!(Key::from_bytes(&[0; 31]).is_none() && Key::from_bytes(&[0; 33]).is_none());
        let _ = DependencyId::from_bits(1);
    }
}
