//! What a power cut may leave of what was written: for tests, not in release builds.
//!
//! ```text
//! Recording::of(folder) ─ the code under test writes there ─▶ steps
//! Disk::read(folder as it was before) ─ apply some of the steps ─ cut ─▶ Disk::write(folder): as after the power cut
//! ```
//! A sector of 512 bytes that was not synced is there or not, by chance; so is a file's new size, and each name that was
//! made, moved or removed without a sync of its folder, whatever the order was.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fastrand::Rng;

const SECTOR: usize = 512;

/// Something that was done to a file or folder.
#[derive(Clone, PartialEq, Eq)]
pub enum Step {
    /// A folder was made, or was there.
    MakeDir,
    /// A file was made or opened.
    Open {
        /// Whether it was empty then.
        truncated: bool,
    },
    /// Bytes were written.
    Write {
        /// Where.
        offset: u64,
        /// Which.
        bytes: Vec<u8>,
    },
    /// It was synced: bytes of a file, names of a folder.
    Sync,
    /// It got another name in its folder.
    Rename {
        /// Which.
        to: OsString,
    },
    /// It was removed.
    Remove,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MakeDir => f.write_str("make"),
            Self::Open { truncated: true } => f.write_str("create"),
            Self::Open { truncated: false } => f.write_str("open"),
            Self::Write { offset, bytes } => write!(f, "write {} at {offset}", bytes.len()),
            Self::Sync => f.write_str("sync"),
            Self::Rename { to } => write!(f, "rename to {to:?}"),
            Self::Remove => f.write_str("remove"),
        }
    }
}

/// A step, and what it was done to.
pub type Done = (PathBuf, Step);

static RECORDINGS: Mutex<BTreeMap<PathBuf, Vec<Done>>> = Mutex::new(BTreeMap::new());

fn recordings() -> MutexGuard<'static, BTreeMap<PathBuf, Vec<Done>>> {
    // A test that panicked elsewhere leaves whole steps behind.
    RECORDINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Records a step, if somebody wants to know.
pub(super) fn done(path: &Path, step: impl FnOnce() -> Step) {
    let mut recordings = recordings();
    if let Some((root, steps)) = recordings.iter_mut().find(|(root, _)| path.starts_with(root)) {
        let below = path.strip_prefix(root).unwrap_or(path).to_owned();
        steps.push((below, step()));
    }
}

/// Records the removal of all that is in a folder, and of itself.
pub(super) fn remove_all(path: &Path) {
    if !recordings().keys().any(|root| path.starts_with(root)) {
        return;
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        match entry.path() {
            folder if folder.is_dir() => remove_all(&folder),
            file => done(&file, || Step::Remove),
        }
    }
    if path.exists() {
        done(path, || Step::Remove);
    }
}

/// Records what is done in a folder until it is dropped.
#[derive(Debug)]
pub struct Recording(PathBuf);

impl Recording {
    /// From now on.
    pub fn of(root: &Path) -> Self {
        recordings().insert(root.to_owned(), Vec::new());
        Self(root.to_owned())
    }

    /// How much was done so far.
    pub fn count(&self) -> usize {
        recordings().get(&self.0).map_or(0, Vec::len)
    }

    /// What was done so far.
    pub fn steps(&self) -> Vec<Done> {
        recordings().get(&self.0).cloned().unwrap_or_default()
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        recordings().remove(&self.0);
    }
}

/// A disk with one folder on it.
#[derive(Debug, Clone)]
pub struct Disk {
    nodes: BTreeMap<u64, Node>,
    next: u64,
}

#[derive(Debug, Clone)]
enum Node {
    File { cached: Vec<u8>, durable: Vec<u8>, dirty: BTreeSet<usize> },
    Folder { names: BTreeMap<OsString, u64>, durable: BTreeMap<OsString, u64>, changes: Vec<Change> },
}

#[derive(Debug, Clone)]
enum Change {
    Put(OsString, u64),
    Gone(OsString),
    Moved(OsString, OsString, u64),
}

const ROOT: u64 = 0;

impl Disk {
    /// A disk that durably has what is in `root`.
    ///
    /// # Errors
    /// The system's.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut disk = Self { nodes: BTreeMap::new(), next: 0 };
        disk.read_node(root)?;
        Ok(disk)
    }

    fn read_node(&mut self, path: &Path) -> io::Result<u64> {
        let id = self.next;
        self.next += 1;
        if !path.is_dir() {
            let durable = fs::read(path)?;
            self.nodes.insert(id, Node::File { cached: durable.clone(), durable, dirty: BTreeSet::new() });
            return Ok(id);
        }
        let mut names = BTreeMap::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            names.insert(entry.file_name(), self.read_node(&entry.path())?);
        }
        self.nodes.insert(id, Node::Folder { durable: names.clone(), names, changes: Vec::new() });
        Ok(id)
    }

    /// Does what was done.
    ///
    /// # Panics
    /// It was done to something that is not there.
    pub fn apply(&mut self, (path, step): &Done) {
        let Some(name) = path.file_name().map(OsString::from) else {
            return self.sync(ROOT);
        };
        let folder = self.find(path.parent().unwrap_or(Path::new(""))).expect("its folder is there");
        let known = self.find(path);
        match step {
            Step::MakeDir | Step::Open { .. } if known.is_none() => {
                let node = if matches!(step, Step::MakeDir) {
                    Node::folder()
                } else {
                    Node::File { cached: Vec::new(), durable: Vec::new(), dirty: BTreeSet::new() }
                };
                let id = self.next;
                self.next += 1;
                self.nodes.insert(id, node);
                self.change(folder, Change::Put(name, id));
            }
            Step::Open { truncated: true } => {
                if let Some(Node::File { cached, dirty, .. }) = known.and_then(|id| self.nodes.get_mut(&id)) {
                    cached.clear();
                    dirty.clear();
                }
            }
            Step::MakeDir | Step::Open { .. } => {}
            Step::Write { offset, bytes } => {
                let node = known.and_then(|id| self.nodes.get_mut(&id)).expect("it is there");
                node.write(usize::try_from(*offset).expect("a small file"), bytes);
            }
            Step::Sync => self.sync(known.expect("it is there")),
            Step::Rename { to } => self.change(folder, Change::Moved(name, to.clone(), known.expect("it is there"))),
            Step::Remove => self.change(folder, Change::Gone(name)),
        }
    }

    fn change(&mut self, folder: u64, change: Change) {
        if let Some(Node::Folder { names, changes, .. }) = self.nodes.get_mut(&folder) {
            change.apply(names);
            changes.push(change);
        }
    }

    fn find(&self, path: &Path) -> Option<u64> {
        path.iter().try_fold(ROOT, |at, name| match self.nodes.get(&at)? {
            Node::Folder { names, .. } => names.get(name).copied(),
            Node::File { .. } => None,
        })
    }

    fn sync(&mut self, id: u64) {
        match self.nodes.get_mut(&id) {
            Some(Node::File { cached, durable, dirty }) => {
                durable.clone_from(cached);
                dirty.clear();
            }
            Some(Node::Folder { names, durable, changes }) => {
                durable.clone_from(names);
                changes.clear();
            }
            None => {}
        }
    }

    /// The power goes and comes back: keeps what was synced, and a part of the rest.
    pub fn cut(&mut self, chance: &mut Rng) {
        // Now and then all of it, or nothing: plain mistakes are found soonest by these.
        let kept = [0, 10, 50, 90, 100][chance.usize(..5)];
        let mut keeps = || chance.u32(..100) < kept;
        for node in self.nodes.values_mut() {
            match node {
                Node::File { cached, durable, dirty } => {
                    if cached.len() != durable.len() && keeps() {
                        durable.resize(cached.len(), 0);
                    }
                    for sector in std::mem::take(dirty) {
                        let start = sector * SECTOR;
                        let end = (start + SECTOR).min(cached.len()).min(durable.len());
                        if start < end && keeps() {
                            durable[start..end].copy_from_slice(&cached[start..end]);
                        }
                    }
                    cached.clone_from(durable);
                }
                Node::Folder { names, durable, changes } => {
                    for change in changes.drain(..) {
                        if keeps() {
                            change.apply(durable);
                        }
                    }
                    names.clone_from(durable);
                }
            }
        }
    }

    /// Puts what is on the disk in the place of what is in `root`.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, root: &Path) -> io::Result<()> {
        for entry in fs::read_dir(root)? {
            match entry?.path() {
                folder if folder.is_dir() => fs::remove_dir_all(folder)?,
                file => fs::remove_file(file)?,
            }
        }
        self.write_names(ROOT, root)
    }

    fn write_names(&self, id: u64, path: &Path) -> io::Result<()> {
        let Some(Node::Folder { names, .. }) = self.nodes.get(&id) else { return Ok(()) };
        for (name, id) in names {
            let path = path.join(name);
            match self.nodes.get(id) {
                Some(Node::File { cached, .. }) => fs::write(path, cached)?,
                Some(Node::Folder { .. }) => {
                    fs::create_dir(&path)?;
                    self.write_names(*id, &path)?;
                }
                None => {}
            }
        }
        Ok(())
    }
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<OsString, u64>) {
        match self {
            Self::Put(name, id) => {
                names.insert(name.clone(), *id);
            }
            Self::Gone(name) => {
                names.remove(name);
            }
            Self::Moved(from, to, id) => {
                if names.get(from) == Some(id) {
                    names.remove(from);
                }
                names.insert(to.clone(), *id);
            }
        }
    }
}

impl Node {
    fn folder() -> Self {
        Self::Folder { names: BTreeMap::new(), durable: BTreeMap::new(), changes: Vec::new() }
    }

    fn write(&mut self, start: usize, bytes: &[u8]) {
        let Self::File { cached, dirty, .. } = self else { return };
        let end = start + bytes.len();
        cached.resize(cached.len().max(end), 0);
        cached[start..end].copy_from_slice(bytes);
        if !bytes.is_empty() {
            dirty.extend(start / SECTOR..=(end - 1) / SECTOR);
        }
    }
}
