//! What the manager keeps beside its store: the vault's key, and which node it is itself.
//!
//! ```text
//! <data>/manager/vault.key    the vault's key, wrapped if autolock is on, 0600
//! <data>/manager/self.json    own node id, where to listen, what boards shall dial
//! <data>/manager/ca.key       of older versions: the root's private key, PEM, 0600. It is in the store now, sealed
//! <data>/manager/left         the cluster that is being left: its keys are to be erased, also after a power cut
//! <data>/manager/audit.log    who changed what; it stays when the cluster is left
//! ```
//! Written beside and renamed, so that a power cut leaves the old or the new file.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use racimo_common::durable::{self, beside};
use racimo_common::id::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::vault::unlock::KeyFile;

const KEY: &str = "ca.key";
const VAULT: &str = "vault.key";
const OWN: &str = "self.json";
const LEFT: &str = "left";

/// Which node this manager is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Own {
    /// The cluster it belongs to: a leftover of another one is ignored.
    pub(super) cluster: ClusterId,
    /// Its own node.
    pub(super) node: NodeId,
    /// Where it listens for agents, as the user said it: `address:port`, or an interface instead of the address.
    pub(super) listen: String,
    /// What boards shall dial, as the user said it; empty: choose. None: an older version did not write it down.
    #[serde(default)]
    pub(super) advertise: Option<String>,
    /// Whether what boards are told was an address of this machine once.
    #[serde(default)]
    pub(super) here: bool,
    /// Whether it comes from a backup, and boards may still look for it.
    #[serde(default)]
    pub(super) restored: bool,
}

/// Takes keys and store away from everybody else, if a copy or a backup came back with other modes; what was open.
pub(super) fn close(data: &Path) -> io::Result<Vec<PathBuf>> {
    let mut opened = Vec::new();
    for folder in [place(data), data.join("store")] {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let files = entries.map(|entry| Ok((entry?.path(), 0o600))).collect::<io::Result<Vec<_>>>()?;
        for (path, mode) in std::iter::once((folder, 0o700)).chain(files) {
            let meta = fs::symlink_metadata(&path)?;
            if !meta.is_symlink() && meta.permissions().mode() & 0o077 != 0 {
                fs::set_permissions(&path, Permissions::from_mode(mode))?;
                opened.push(path);
            }
        }
    }
    Ok(opened)
}

/// The folder of what is kept.
pub(super) fn place(data: &Path) -> PathBuf {
    data.join("manager")
}

/// Keeps which node it is, durably.
pub(super) fn store_own(data: &Path, own: &Own) -> io::Result<()> {
    let directory = place(data);
    durable::make_dir(&directory)?;
    durable::replace(&directory.join(OWN), serde_json::to_string_pretty(own)?.as_bytes())
}

/// Reads which node it is.
pub(super) fn load_own(data: &Path) -> io::Result<Own> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{OWN}: {error}"));
    let own = fs::read(place(data).join(OWN)).map_err(named)?;
    serde_json::from_slice(&own).map_err(|error| named(error.into()))
}

/// The root's key as older versions kept it; none: there is no such file.
pub(super) fn load_old_key(data: &Path) -> io::Result<Option<Zeroizing<String>>> {
    let path = old_key_path(data);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(Zeroizing::new(text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
    }
}

/// Where older versions kept the root's key.
pub(super) fn old_key_path(data: &Path) -> PathBuf {
    place(data).join(KEY)
}

/// Erases the root's key as older versions kept it, durably; whether it was there.
pub(super) fn erase_old_key(data: &Path) -> io::Result<bool> {
    match durable::remove(&old_key_path(data))? {
        true => durable::sync_dir(&place(data)).map(|()| true),
        false => Ok(false),
    }
}

/// Keeps the bytes of the vault's key file, durably.
pub(super) fn store_vault(data: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = place(data);
    durable::make_dir(&directory)?;
    durable::replace(&directory.join(VAULT), bytes)
}

/// Reads the vault's key file; none: there is no such file.
pub(super) fn load_vault(data: &Path) -> io::Result<Option<KeyFile>> {
    // Left behind by a power cut, and perhaps plain where the file is not.
    durable::remove(&beside(&place(data).join(VAULT)))?;
    let path = place(data).join(VAULT);
    let bytes = match fs::read(&path) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
    };
    let bad = || io::Error::new(io::ErrorKind::InvalidData, format!("{}: not a vault's key", path.display()));
    KeyFile::read(&bytes).map(Some).ok_or_else(bad)
}

/// The bytes of the vault's key file; none: there is no such file.
pub(super) fn key_file_bytes(data: &Path) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    match fs::read(vault_path(data)) {
        Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", vault_path(data).display()))),
    }
}

/// Keeps the bytes of a vault's key file, and then which node it is, durably.
pub(super) fn store_restored(data: &Path, own: &Own, key: &[u8]) -> io::Result<()> {
    let directory = place(data);
    durable::make_dir(&directory)?;
    durable::replace(&directory.join(VAULT), key)?;
    store_own(data, own)
}

/// Where the vault's key is, for messages.
pub(super) fn vault_path(data: &Path) -> PathBuf {
    place(data).join(VAULT)
}

/// Says durably that this cluster is being left.
pub(super) fn store_left(data: &Path, cluster: ClusterId) -> io::Result<()> {
    let directory = place(data);
    durable::make_dir(&directory)?;
    durable::replace(&directory.join(LEFT), cluster.to_string().as_bytes())
}

/// Nobody leaves: the cluster is still there.
pub(super) fn forget_left(data: &Path) -> io::Result<()> {
    match durable::remove(&place(data).join(LEFT))? {
        true => durable::sync_dir(&place(data)),
        false => Ok(()),
    }
}

/// Whether what is kept is of a cluster that was left, and is to be erased.
pub(super) fn is_left(data: &Path) -> io::Result<bool> {
    let left = match fs::read_to_string(place(data).join(LEFT)) {
        Ok(left) => left,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match load_own(data) {
        Ok(own) => Ok(own.cluster.to_string() == left),
        // It is erased last.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Forgets all of it, durably, and then that a cluster was left; whether there was any.
pub(super) fn erase(data: &Path) -> io::Result<bool> {
    let directory = place(data);
    let mut was_there = false;
    for name in [VAULT, KEY, OWN] {
        was_there |= durable::remove(&directory.join(name))?;
        was_there |= durable::remove(&beside(&directory.join(name)))?;
    }
    // Also when there was none: somebody before us may not have come so far.
    match durable::is_there(durable::sync_dir(&directory))? {
        true => {}
        false => return Ok(was_there),
    }
    durable::remove(&beside(&directory.join(LEFT)))?;
    forget_left(data).map(|()| was_there)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_it_is_erased_and_nothing_else() {
        let data = tempfile::tempdir().expect("a directory");
        assert!(!erase(data.path()).expect("nothing is there"));
        store_vault(data.path(), &[1; 32]).expect("kept");
        let all = ["self.json", "self.json.new", "vault.key.new", "ca.key", "ca.key.new", "left", "audit.log"];
        all.iter().for_each(|name| fs::write(place(data.path()).join(name), b"x").expect("written"));
        assert!(erase(data.path()).expect("erased"));
        let left = fs::read_dir(place(data.path())).expect("a folder").map(|entry| entry.expect("one").file_name());
        assert_eq!(left.collect::<Vec<_>>(), ["audit.log"]);
        assert!(!erase(data.path()).expect("erased before"));
    }

    #[test]
    fn what_others_may_read_is_closed() {
        let data = tempfile::tempdir().expect("a directory");
        assert_eq!(close(data.path()).expect("nothing is there"), Vec::<PathBuf>::new());
        store_vault(data.path(), &[1; 32]).expect("kept");
        fs::create_dir(data.path().join("store")).expect("made");
        fs::write(data.path().join("store/snapshot"), b"x").expect("written");
        let mode = |name: &str| fs::metadata(data.path().join(name)).expect(name).permissions().mode() & 0o777;
        let open = |name: &str, mode| fs::set_permissions(data.path().join(name), Permissions::from_mode(mode));
        open("manager", 0o755).and(open("manager/vault.key", 0o644)).and(open("store", 0o770)).expect("opened");
        open("store/snapshot", 0o640).expect("opened");
        assert_eq!(close(data.path()).expect("closed").len(), 4);
        let modes = ["manager", "manager/vault.key", "store", "store/snapshot"].map(mode);
        assert_eq!(modes, [0o700, 0o600, 0o700, 0o600]);
        assert_eq!(close(data.path()).expect("closed"), Vec::<PathBuf>::new());
    }
}
