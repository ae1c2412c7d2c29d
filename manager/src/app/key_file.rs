//! The vault's key file: it follows the store, and is tried before it goes into a backup.
//!
//! In: the store's cluster, the vault that is open, the file. Out: a file that is what the store says; whether it is.
//!
//! The store is always the first: a commit and this file cannot be written in one step. If the power goes in between, the
//! manager opens as before (without a key, or with the one before), and then this makes the file follow.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use racimo_common::error::chain;
use smol::lock::Mutex;
use zeroize::Zeroizing;

use super::control::failed;
use super::fault::Fault;
use super::keep;
use crate::api::control::ControlError;
use crate::limits::TRUST_LOOK_EVERY;
use crate::store::{Cluster, Sealed, State, Store, UnlockBefore};
use crate::vault::unlock::{KeyFile, Locks};
use crate::vault::{Vault, VaultError};

/// Makes the key file what the store says: plain, or wrapped with the unlock keys that count. Whether it was not so.
///
/// # Errors
/// The vault is locked, or the disk takes nothing.
pub(super) fn keep(cluster: &Cluster, vault: &Vault, data: &Path) -> Result<bool, ControlError> {
    let locks = locks(cluster, vault)?;
    // A file that cannot be read is replaced: the key is at hand.
    let file = keep::load_vault(data).ok().flatten();
    if file.is_some_and(|file| file.key(&locks).is_some_and(|key| vault.is_open_with(&key))) {
        return Ok(false);
    }
    let bytes = vault.key_file(&locks).map_err(|error| failed("lock the vault's key", &error))?;
    keep::store_vault(data, &bytes).map_err(|error| failed("keep the vault's key", &error))?;
    Ok(true)
}

fn locks(cluster: &Cluster, vault: &Vault) -> Result<Locks, ControlError> {
    Locks::of(vault, cluster).map_err(|error| failed("open the unlock key", &error))
}

/// Why a key file would bring nothing back.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("it is missing")]
    Missing,
    #[error("it is damaged")]
    Damaged,
    #[error("it is not locked, although the manager is told to ask for an unlock key after a start")]
    NotLocked,
    #[error("the unlock key of now does not open it: it is damaged, or locked with another key")]
    OtherUnlockKey,
    #[error("it is locked, although the manager is told to start without an unlock key")]
    NotPlain,
    #[error("the key in it is not the one that the manager runs with")]
    OtherKey,
    #[error("what is sealed in the store does not open")]
    Sealed(#[source] VaultError),
}

/// The key file's bytes for a backup, and whether they are wrapped: they open with what the store says, to the key that
/// the vault is open with, and that opens all that is sealed.
///
/// # Errors
/// They do not: in a backup they would be of no use.
pub(super) fn tried(
    state: &State,
    cluster: &Cluster,
    vault: &Vault,
    data: &Path,
) -> Result<(Zeroizing<Vec<u8>>, bool), ControlError> {
    let bytes = keep::key_file_bytes(data).map_err(|error| failed("read the vault's key", &error))?;
    let locks = locks(cluster, vault)?;
    let fit = bytes.ok_or(Unfit::Missing).and_then(|bytes| {
        let file = try_out(&bytes, &locks, vault, state)?;
        Ok((bytes, matches!(file, KeyFile::Wrapped(_))))
    });
    fit.map_err(|why| {
        ControlError::Failed(format!(
            "no backup was made, because nobody could restore it: the vault's key file {} is not what it should be: {}; \
             the manager replaces it within {TRUST_LOOK_EVERY:?}, or says in its log why it cannot: try again then",
            keep::vault_path(data).display(),
            chain(&why)
        ))
    })
}

fn try_out(bytes: &[u8], locks: &Locks, vault: &Vault, state: &State) -> Result<KeyFile, Unfit> {
    let file = KeyFile::read(bytes).ok_or(Unfit::Damaged)?;
    let key = file.key(locks).ok_or(match (&file, locks.is_empty()) {
        (KeyFile::Plain(_), _) => Unfit::NotLocked,
        (KeyFile::Wrapped(_), true) => Unfit::NotPlain,
        (KeyFile::Wrapped(_), false) => Unfit::OtherUnlockKey,
    })?;
    if !vault.is_open_with(&key) {
        return Err(Unfit::OtherKey);
    }
    vault.check_all(state).map_err(Unfit::Sealed)?;
    Ok(file)
}

/// Keeps how writing the key file went; what is new is logged.
pub(super) fn tell(fault: &Fault, kept: &Result<bool, ControlError>) {
    let why = kept.as_ref().err().map(|error| {
        format!(
            "the vault's key file is not as autolock wants it, and the manager starts as before: {error}; it is tried \
             again every {TRUST_LOOK_EVERY:?}"
        )
    });
    if fault.set(why.clone()) {
        log::error!("{}", why.unwrap_or_default());
    }
}

/// Looks after the key file while there is a cluster: what a full or failing disk did not take is written later.
pub(super) struct Guard {
    /// What it shall be.
    pub(super) store: Store,
    /// Open.
    pub(super) vault: Vault,
    /// Where it is.
    pub(super) data: PathBuf,
    /// Nobody else writes it, or leaves the cluster, meanwhile.
    pub(super) turn: Arc<Mutex<()>>,
    /// Why it could not be written.
    pub(super) fault: Fault,
    /// What happened before.
    pub(super) last: Last,
}

/// What a look found.
#[derive(Default)]
pub(super) struct Last {
    /// What the store said of the unlock key.
    said: Option<(Option<Sealed>, Option<UnlockBefore>)>,
    /// Whether the file had to be written.
    was_mended: bool,
}

impl Guard {
    /// Writes the file if it is not as the store says, and has been saying since the last look: whoever changes that
    /// writes the file as well, and may be about to.
    pub(super) async fn look(&mut self) {
        let _turn = self.turn.lock().await;
        let view = self.store.view();
        let Some(cluster) = view.state.cluster() else { return };
        let said = Some((cluster.trust.unlock.clone(), cluster.trust.unlock_before.clone()));
        if self.last.said != said {
            self.last.said = said;
            return;
        }
        let kept = keep(cluster, &self.vault, &self.data);
        tell(&self.fault, &kept);
        let is_mended = kept == Ok(true);
        // What happens again and again is said once.
        if is_mended && !self.last.was_mended {
            log::warn!("the vault's key file was not as the store says: it was written anew");
        }
        self.last.was_mended = is_mended;
    }
}

#[cfg(test)]
#[path = "key_file_tests.rs"]
mod tests;
