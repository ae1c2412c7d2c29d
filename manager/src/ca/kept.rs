//! What the authority keeps in the store: the root's private key and the secrets of the join tokens, sealed.
//!
//! In: the vault, the stored [`Cluster`]. Out: the [`Ca`], the [`JoinTokens`]; and back, sealed, to be stored.

use racimo_common::id::ClusterId;
use racimo_common::object::Role;
use racimo_common::tls;
use racimo_common::token::{DIGEST_BYTES, JoinToken, SECRET_BYTES};
use zeroize::Zeroizing;

use super::{Ca, CaError, JoinTokens};
use crate::store::{Cluster, Sealed, TokenSecret};
use crate::vault::{Owner, Vault, VaultError};

/// Why what is stored cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// There is no root key in the store.
    #[error("the root's key is not in the store")]
    NoKey,
    /// The vault does not open it.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// It is not what was stored.
    #[error(transparent)]
    Ca(#[from] CaError),
}

/// SHA-256 of a root certificate, PEM: what its sealed key belongs to. None: the text is no certificate.
pub fn root_digest(root_pem: &str) -> Option<[u8; DIGEST_BYTES]> {
    tls::certificate_from_pem(root_pem).ok().map(|der| tls::digest(&der))
}

/// Seals a root's private key for the store.
///
/// # Errors
/// The vault is locked, or there is no chance.
pub fn seal_key(vault: &Vault, ca: &Ca) -> Result<Sealed, VaultError> {
    vault.seal(Owner::RootKey(ca.root_digest()), ca.key_pem().as_bytes())
}

/// The authority of a root certificate and its sealed key: the present root, or one that is on its way.
///
/// # Errors
/// [`KeptError`].
pub fn open_key(vault: &Vault, cluster: ClusterId, root_pem: &str, key: &Sealed) -> Result<Ca, KeptError> {
    let digest = root_digest(root_pem).ok_or_else(|| CaError::Stored("root certificate: not a PEM one".into()))?;
    let plain = vault.open(Owner::RootKey(digest), key)?;
    let text = std::str::from_utf8(&plain).map_err(|_| CaError::Stored("root key: not a PEM private key".into()))?;
    Ok(Ca::load(cluster, root_pem, text)?)
}

/// The cluster's present authority.
///
/// # Errors
/// [`KeptError`].
pub fn open(vault: &Vault, cluster: &Cluster) -> Result<Ca, KeptError> {
    let key = cluster.trust.key.as_ref().ok_or(KeptError::NoKey)?;
    open_key(vault, cluster.id, &cluster.root_pem, key)
}

/// Seals the secret of the token that makes nodes of this role.
///
/// # Errors
/// The vault is locked, or there is no chance.
pub fn seal_token(vault: &Vault, role: Role, secret: &[u8; SECRET_BYTES]) -> Result<TokenSecret, VaultError> {
    Ok(vault.seal(Owner::Token(role), secret)?.into())
}

fn open_token(vault: &Vault, role: Role, secret: &TokenSecret) -> Result<Zeroizing<[u8; SECRET_BYTES]>, VaultError> {
    match secret {
        TokenSecret::Plain(plain) => Ok(Zeroizing::new(*plain)),
        TokenSecret::Sealed(sealed) => {
            let plain = vault.open(Owner::Token(role), sealed)?;
            Ok(Zeroizing::new(<[u8; SECRET_BYTES]>::try_from(&*plain).map_err(|_| VaultError::Unopened)?))
        }
    }
}

impl JoinTokens {
    /// The cluster's tokens, which name this root.
    ///
    /// # Errors
    /// [`VaultError`].
    pub fn open(vault: &Vault, root_digest: [u8; DIGEST_BYTES], cluster: &Cluster) -> Result<Self, VaultError> {
        let token = |role, secret| Ok(JoinToken::new(root_digest, *open_token(vault, role, secret)?));
        Ok(Self {
            worker: token(Role::Worker, &cluster.worker_secret)?,
            manager: token(Role::Manager, &cluster.manager_secret)?,
        })
    }

    /// Their secrets for the store: the worker's and the manager's.
    ///
    /// # Errors
    /// The vault is locked, or there is no chance.
    pub fn seal(&self, vault: &Vault) -> Result<[TokenSecret; 2], VaultError> {
        let sealed = |role| seal_token(vault, role, self.of(role).secret());
        Ok([sealed(Role::Worker)?, sealed(Role::Manager)?])
    }
}

#[cfg(test)]
mod tests {
    use racimo_common::id::RandomId;
    use racimo_common::time::Wall;
    use ring::rand::SystemRandom;

    use super::*;
    use crate::store::testing::base;
    use crate::vault::testing;

    fn kept(ca: &Ca, tokens: &JoinTokens) -> Cluster {
        let mut cluster = Cluster::clone(base().cluster().expect("a cluster"));
        cluster.id = ca.cluster();
        cluster.root_pem = ca.root_pem();
        cluster.trust.key = Some(seal_key(&testing(), ca).expect("sealed"));
        [cluster.worker_secret, cluster.manager_secret] = tokens.seal(&testing()).expect("sealed");
        cluster
    }

    #[test]
    fn what_is_kept_comes_back_and_is_not_to_be_read() {
        let rng = SystemRandom::new();
        let now = Wall::from_nanos(1_790_000_000_000_000_000);
        let ca = Ca::create(ClusterId::from_bits(3), now, &rng).expect("a root");
        let tokens = JoinTokens::draw(ca.root_digest(), &rng).expect("tokens");
        let cluster = kept(&ca, &tokens);
        let again = open(&testing(), &cluster).expect("it opens");
        assert_eq!((again.root_pem(), again.key_pem()), (ca.root_pem(), ca.key_pem()));
        let opened = JoinTokens::open(&testing(), ca.root_digest(), &cluster).expect("they open");
        assert!(opened.worker.matches(&tokens.worker) && opened.manager.matches(&tokens.manager));

        let stored = rmp_serde::to_vec_named(&cluster).expect("encodes");
        let has = |bytes: &[u8]| stored.windows(bytes.len()).any(|part| part == bytes);
        assert!(has(ca.root_pem().as_bytes()), "the test sees what is there");
        assert!(!has(tokens.worker.secret()) && !has(tokens.manager.secret()));
        assert!(!has(b"PRIVATE KEY") && !has(&ca.key_pem().as_bytes()[40..80]));
        let text = format!("{cluster:?} {again:?} {opened:?}");
        assert!(!text.contains("PRIVATE") && !text.contains(&tokens.worker.to_string()), "{text}");
    }

    #[test]
    fn one_is_not_taken_for_another() {
        let rng = SystemRandom::new();
        let now = Wall::from_nanos(1_790_000_000_000_000_000);
        let ca = |id| Ca::create(ClusterId::from_bits(id), now, &rng).expect("a root");
        let (one, other) = (ca(3), ca(3));
        let tokens = JoinTokens::draw(one.root_digest(), &rng).expect("tokens");
        let cluster = kept(&one, &tokens);
        let key = cluster.trust.key.clone().expect("a key");
        let swapped = open_key(&testing(), one.cluster(), &other.root_pem(), &key).map(drop);
        assert!(matches!(swapped, Err(KeptError::Vault(VaultError::Unopened))), "{swapped:?}");
        let (worker_secret, manager_secret) = (cluster.manager_secret.clone(), cluster.worker_secret.clone());
        let changed = Cluster { worker_secret, manager_secret, ..cluster.clone() };
        assert_eq!(JoinTokens::open(&testing(), [1; 32], &changed).map(drop), Err(VaultError::Unopened));
        assert_eq!(JoinTokens::open(&Vault::default(), [1; 32], &cluster).map(drop), Err(VaultError::Locked));
        assert!(matches!(open(&Vault::default(), &cluster), Err(KeptError::Vault(VaultError::Locked))));
        assert!(matches!(open(&testing(), base().cluster().expect("a cluster")), Err(KeptError::NoKey)));
    }

    #[test]
    fn tokens_of_older_versions_open_without_a_key() {
        let cluster = base().cluster().expect("a cluster").clone();
        assert!(cluster.worker_secret.is_plain());
        let tokens = JoinTokens::open(&Vault::default(), [1; 32], &cluster).expect("they are plain");
        assert_eq!((tokens.worker.secret(), tokens.manager.secret()), (&[1; 16], &[2; 16]));
    }
}
