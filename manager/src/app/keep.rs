//! What the manager keeps beside its store: the vault's key, and which node it is itself.
//!
//! ```text
//! <data>/manager/vault.key    the vault's key, 32 bytes, 0600
//! <data>/manager/self.json    own node id, where to listen, what boards shall dial
//! <data>/manager/ca.key       of older versions: the root's private key, PEM, 0600. It is in the store now, sealed
//! <data>/manager/audit.log    who changed what; it stays when the cluster is left
//! ```
//! Written beside and renamed, so that a power cut leaves the old or the new file.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use racimo_common::id::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::vault::{KEY_BYTES, Key};

const KEY: &str = "ca.key";
const VAULT: &str = "vault.key";
const OWN: &str = "self.json";

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
}

/// Makes a directory that only we may enter; one that is there is fine.
pub(super) fn directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The folder of what is kept.
pub(super) fn place(data: &Path) -> PathBuf {
    data.join("manager")
}

/// Keeps which node it is, durably.
pub(super) fn store_own(data: &Path, own: &Own) -> io::Result<()> {
    let directory = place(data);
    self::directory(&directory)?;
    write(&directory, OWN, serde_json::to_string_pretty(own)?.as_bytes())
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
    match fs::remove_file(old_key_path(data)) {
        Ok(()) => File::open(place(data))?.sync_all().map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Keeps the vault's key, durably.
pub(super) fn store_vault(data: &Path, key: &Key) -> io::Result<()> {
    let directory = place(data);
    self::directory(&directory)?;
    write(&directory, VAULT, key.bytes())
}

/// Reads the vault's key; none: there is no such file.
pub(super) fn load_vault(data: &Path) -> io::Result<Option<Key>> {
    let path = place(data).join(VAULT);
    let bytes = match fs::read(&path) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
    };
    let bad = || io::Error::new(io::ErrorKind::InvalidData, format!("{}: not {KEY_BYTES} bytes", path.display()));
    Key::from_bytes(&bytes).map(Some).ok_or_else(bad)
}

/// Where the vault's key is, for messages.
pub(super) fn vault_path(data: &Path) -> PathBuf {
    place(data).join(VAULT)
}

/// Forgets all of it.
pub(super) fn erase(data: &Path) -> io::Result<()> {
    for name in [OWN, VAULT, KEY] {
        match fs::remove_file(place(data).join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn write(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let beside = directory.join(format!("{name}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, directory.join(name))?;
    File::open(directory)?.sync_all()
}
