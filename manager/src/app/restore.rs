//! Restores a backup on a machine whose manager does not run.
//!
//! In: a [`Backup`], where to put it, where to listen. Out: a data directory from which the same cluster goes on.
//!
//! ```text
//! check all of it ─▶ lock the data directory, no cluster there ─▶ new store beside (store.restore), durable
//!                    ─▶ vault.key, self.json, durable ─▶ store.restore becomes store
//! ```
//! Until the last step there is no cluster: a power cut leaves a manager in none, and the restore can be done again. A
//! cluster that is there is never touched; there is no flag for it.

#[cfg(test)]
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use racimo_common::durable;
use racimo_common::error::chain;
use racimo_common::id::ClusterId;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::keep::{self, Own};
use super::{address, moves};
use crate::backup::{Backup, BackupError, Header};
use crate::ca::kept;
use crate::store::State;
use crate::store::log::{Log, OpenError, RealDisk};
use crate::vault::Vault;
use crate::vault::unlock::{KeyFile, Locks};

const STORE: &str = "store";
/// The store that is being made.
const BESIDE: &str = "store.restore";
/// The store of a manager that was in no cluster, on its way out.
const EMPTY: &str = "store.empty";

/// Why nothing was restored. The data directory is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The file is of no use.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// It is whole, and yet its contents do not go together.
    #[error("the backup is not what it should be: {0}")]
    Content(String),
    /// Where to listen, or what to tell boards.
    #[error("{0}")]
    Address(String),
    /// The manager runs.
    #[error("{0} is in use: stop the manager first (systemctl stop pi-mgr)")]
    Running(PathBuf),
    /// It would be lost.
    #[error(
        "there is a cluster in {path} already ({cluster}): nothing was changed. If it is to be replaced, stop the manager \
         and move the whole directory away: mv {path} {path}.old"
    )]
    There {
        /// The data directory.
        path: String,
        /// Its cluster.
        cluster: ClusterId,
    },
    /// The key of a store that was moved away.
    #[error(
        "{0} is the key of another cluster: nothing was changed. Without it that cluster cannot be opened: move it away \
         together with its store"
    )]
    OtherKey(PathBuf),
    /// The store that is there cannot be looked into.
    #[error(
        "look into the store that is there, to be sure that no cluster is lost; move {path} away if it is of no use"
    )]
    Store {
        /// The data directory.
        path: String,
        /// Why.
        source: OpenError,
    },
    /// The new store cannot be made.
    #[error("make the store")]
    Make(#[source] OpenError),
    /// The disk.
    #[error("{what}")]
    Disk {
        /// What was tried.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// The random source failed.
    #[error("the system's random source does not work")]
    Random,
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Where it will listen for agents.
    pub listen: String,
    /// What boards are told to dial.
    pub managers: Vec<String>,
    /// What they were told before.
    pub managers_before: Vec<String>,
    /// Whether the unlock key is needed after the start.
    pub is_locked: bool,
}

/// A backup that was checked.
pub struct Checked {
    state: State,
    own: Own,
    key: Zeroizing<Vec<u8>>,
    managers: Vec<String>,
    is_locked: bool,
}

fn disk(what: impl Into<String>) -> impl FnOnce(io::Error) -> RestoreError {
    let what = what.into();
    move |source| RestoreError::Disk { what, source }
}

/// Opens a backup and checks that its contents go together. Takes seconds on a slow board if it is sealed.
///
/// # Errors
/// [`RestoreError`]; nothing was touched.
pub fn check(backup: &Backup, passphrase: Option<&str>) -> Result<Checked, RestoreError> {
    let contents = backup.open(passphrase)?;
    let wrong = |what: String| RestoreError::Content(what);
    let header: &Header = backup.header();
    let state = State::from_bytes(&contents.state).map_err(|error| wrong(format!("the state: {}", chain(&error))))?;
    let own: Own =
        serde_json::from_slice(&contents.own).map_err(|error| wrong(format!("which node it is: {error}")))?;
    let cluster = state.cluster().cloned().ok_or_else(|| wrong("it has no cluster".to_owned()))?;
    if cluster.id != header.cluster || own.cluster != header.cluster || state.counts() != header.counts {
        return Err(wrong("its parts are not of one cluster".to_owned()));
    }
    if state.node(own.node).is_none() {
        return Err(wrong("the manager's own node is missing".to_owned()));
    }
    match (KeyFile::read(&contents.key), header.autolock) {
        (Some(KeyFile::Plain(key)), false) => {
            let vault = Vault::default();
            let opened = vault.unlock(&key).and_then(|()| vault.check_all(&state));
            let opened = opened.and_then(|()| Locks::of(&vault, &cluster));
            opened.map_err(|error| wrong(format!("the vault's key: {error}")))?;
            kept::open(&vault, &cluster).map_err(|error| wrong(format!("the root's key: {}", chain(&error))))?;
        }
        // Nobody here has the unlock key. Whoever made the backup had, and tried it.
        (Some(KeyFile::Wrapped(_)), true) => {}
        (Some(KeyFile::Plain(_) | KeyFile::Wrapped(_)), _) => {
            return Err(wrong("its vault's key is not as locked as its header says".to_owned()));
        }
        (None, _) => return Err(wrong("this is no vault's key".to_owned())),
    }
    let managers = cluster.managers.clone();
    Ok(Checked { state, own, key: contents.key, managers, is_locked: header.autolock })
}

/// Holds the data directory against a manager that starts.
enum Held {
    Fresh { _disk: RealDisk },
    Empty { _log: Box<Log<RealDisk, State>> },
}

impl Checked {
    /// Writes it into a data directory.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub fn restore(self, data: &Path, listen: Option<&str>, advertise: Option<&str>) -> Result<Restored, RestoreError> {
        let (own, managers, address) = self.addresses(listen, advertise)?;
        let mut chance = [0; 8];
        SystemRandom::new().fill(&mut chance).map_err(|_| RestoreError::Random)?;
        let chance = u64::from_be_bytes(chance);
        let held = self.hold(data, chance)?;
        let restored = Restored {
            listen: own.listen.clone(),
            managers: managers.clone(),
            managers_before: self.managers,
            is_locked: self.is_locked,
        };
        let state = self.state.restored(chance).moved(managers, own.node, address);
        let beside = data.join(BESIDE);
        remove(&beside)?;
        let log = RealDisk::new(&beside)
            .map_err(disk(format!("make {}", beside.display())))
            .and_then(|on| Log::begin(on, state.clone(), state.index(), chance).map_err(RestoreError::Make));
        let log = log.inspect_err(|_| {
            // What is left is removed by the next try.
            let _ = durable::remove_dir(&beside);
        })?;
        keep::store_restored(data, &own, &self.key).map_err(disk("keep the vault's key and which node this is"))?;
        let (store, empty) = (data.join(STORE), data.join(EMPTY));
        remove(&empty)?;
        durable::rename(&store, &empty).map_err(disk(format!("move the empty {} away", store.display())))?;
        durable::rename(&beside, &store).map_err(disk(format!("put the store to {}", store.display())))?;
        sync(data)?;
        remove(&empty)?;
        drop((log, held));
        Ok(restored)
    }

    /// Where to listen, what to tell boards, and the own node's address.
    fn addresses(
        &self,
        listen: Option<&str>,
        advertise: Option<&str>,
    ) -> Result<(Own, Vec<String>, String), RestoreError> {
        let machine = moves::machine().map_err(disk("list network interfaces"))?;
        let has = |ip: IpAddr| machine.addresses.iter().any(|one| one.ip == ip);
        let own = Own { listen: listen.unwrap_or(&self.own.listen).to_owned(), ..self.own.clone() };
        let listens = address::listen(&own.listen, &machine).map_err(RestoreError::Address)?;
        let ip = listens.ip();
        if !ip.is_unspecified() && !ip.is_loopback() && !has(ip) {
            let text = format!("{ip} is not an address of this machine: say where to listen with --listen-addr");
            return Err(RestoreError::Address(text));
        }
        let node = self.state.node(own.node).map(|node| node.addr.clone()).unwrap_or_default();
        let is_here = node.parse().is_ok_and(has);
        let said = match (advertise, &own.advertise) {
            (Some(said), _) => said.to_owned(),
            (None, _) if is_here => return Ok((own, self.managers.clone(), node)),
            // An address of the machine before; else a link or a name, which mean something here too.
            (None, Some(said)) if said.parse::<IpAddr>().is_err() && said.parse::<SocketAddr>().is_err() => {
                said.clone()
            }
            (None, _) => String::new(),
        };
        let resolved = match address::name(&said, listens, &machine) {
            Some(host) => smol::block_on(moves::resolve(host, &machine)),
            None => Vec::new(),
        };
        let told = address::advertise(&said, listens, &machine, &resolved).map_err(RestoreError::Address)?;
        let here = address::is_here(&told, &machine);
        Ok((Own { advertise: Some(said), here, restored: true, ..own }, told.managers, told.ip.to_string()))
    }

    /// Locks the data directory, and makes sure that nothing is lost.
    fn hold(&self, data: &Path, seed: u64) -> Result<Held, RestoreError> {
        durable::make_dir(data).map_err(disk(format!("make {}", data.display())))?;
        let file = keep::key_file_bytes(data).map_err(disk("read the vault's key that is there"))?;
        let store = data.join(STORE);
        let on = RealDisk::new(&store).map_err(|source| {
            if source.kind() == io::ErrorKind::WouldBlock {
                return RestoreError::Running(data.to_owned());
            }
            RestoreError::Disk { what: format!("open {}", store.display()), source }
        })?;
        let is_there = Log::<_, State>::exists(&on).map_err(disk(format!("read {}", store.display())))?;
        let held = if is_there {
            let log = Log::open(on, State::default(), seed)
                .map_err(|source| RestoreError::Store { path: data.display().to_string(), source })?;
            if let Some(cluster) = log.machine().cluster() {
                return Err(RestoreError::There { path: data.display().to_string(), cluster: cluster.id });
            }
            Held::Empty { _log: Box::new(log) }
        } else {
            Held::Fresh { _disk: on }
        };
        // The one of a restore that was cut short is the same.
        if file.is_some_and(|file| *file != *self.key) {
            return Err(RestoreError::OtherKey(keep::vault_path(data)));
        }
        Ok(held)
    }
}

/// Removes a directory; none is fine.
fn remove(path: &Path) -> Result<(), RestoreError> {
    durable::remove_dir(path).map(drop).map_err(disk(format!("remove {}", path.display())))
}

fn sync(directory: &Path) -> Result<(), RestoreError> {
    durable::sync_dir(directory).map_err(disk(format!("make {} durable", directory.display())))
}

#[cfg(test)]
#[path = "restore_tests.rs"]
mod tests;
