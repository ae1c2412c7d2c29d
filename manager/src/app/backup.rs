//! Makes a backup of the running manager: one moment of the store, the vault's key file, and which node it is.

use std::path::Path;

use racimo_common::time::Wall;

use super::control::{Manager, failed};
use super::{keep, key_file};
use crate::api::control::{ControlError, MadeBackup};
use crate::backup::{Backup, BackupError, Contents, Header};
use crate::store::State;
use crate::vault::Vault;

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
    let (key, autolock) = key_file::tried(state, cluster, vault, data)?;
    let own = serde_json::to_vec(&own).map_err(|error| ControlError::Failed(error.to_string()))?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let header = Header { cluster: cluster.id, made: now, version, counts: state.counts(), autolock, sealing: None };
    let contents = Contents { own, key, state: state.to_bytes() };
    Backup::new(header, &contents).map_err(|error: BackupError| ControlError::Failed(error.to_string()))
}
