//! Makes a backup of the running manager: one moment of the store, the vault's key file, and which node it is.

use std::path::Path;

use racimo_common::time::Wall;

use super::control::{Manager, failed};
use super::keep;
use crate::api::control::{ControlError, MadeBackup};
use crate::backup::{Backup, BackupError, Contents, Header};
use crate::store::State;
use crate::vault::unlock::KeyFile;
use crate::vault::{Vault, VaultError};

impl Manager {
    /// All that brings it back.
    pub(super) async fn backup(self) -> Result<MadeBackup, ControlError> {
        let turn = self.backup_turn().ok_or(ControlError::Busy("a backup is under way: try again when it is done"))?;
        // No cluster is made or left, and no key file changes, while it is read.
        let _turn = self.turn().await;
        let (state, vault, data) = (self.store().view().state, self.vault().clone(), self.data().to_owned());
        let now = self.now().wall;
        let made = smol::unblock(move || make(&state, &vault, &data, now)).await?;
        log::info!("a backup of {} bytes was made", made.bytes().len());
        Ok(MadeBackup { bytes: made.into_bytes(), turn: Some(turn) })
    }
}

/// What is made of these must bring the manager back: it is tried here, not when the manager is lost.
fn make(state: &State, vault: &Vault, data: &Path, now: Wall) -> Result<Backup, ControlError> {
    let cluster = state.cluster().ok_or(ControlError::NotIn)?;
    let own = keep::load_own(data).map_err(|error| failed("read the manager's own files", &error))?;
    let read = keep::key_file_bytes(data).map_err(|error| failed("read the vault's key", &error))?;
    let key = read.ok_or_else(|| ControlError::Failed("the vault's key file is missing".to_owned()))?;
    let file = KeyFile::read(&key).ok_or_else(|| ControlError::Failed("the vault's key file is damaged".to_owned()))?;
    let autolock = matches!(file, KeyFile::Wrapped(_));
    check_key(&file, vault, state).map_err(|error| failed("open what is sealed with the vault's key", &error))?;
    let own = serde_json::to_vec(&own).map_err(|error| ControlError::Failed(error.to_string()))?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let header = Header { cluster: cluster.id, made: now, version, counts: state.counts(), autolock, sealing: None };
    let contents = Contents { own, key, state: state.to_bytes() };
    Backup::new(header, &contents).map_err(|error: BackupError| ControlError::Failed(error.to_string()))
}

/// A plain key file is tried itself; a wrapped one holds the key that the vault is open with.
fn check_key(file: &KeyFile, vault: &Vault, state: &State) -> Result<(), VaultError> {
    match file {
        KeyFile::Plain(key) => {
            let own = Vault::default();
            own.unlock(key)?;
            own.check_all(state)
        }
        KeyFile::Wrapped(_) => vault.check_all(state),
    }
}
