//! A disk in memory that does everything a real one is allowed to do.
//!
//! - A 512-byte sector that was not synced survives [`Disk::power_loss`] or not, by chance;
//!   so do creations, renames and removals without [`disk::Disk::sync_dir`], each on its own.
//! - [`Disk::cut_after`] takes the power away after any number of operations.
//! - [`Disk::set_capacity`] makes it fill up; a write that does not fit is half done.
//! - [`Disk::fail_sync_after`] makes a sync fail the way Linux does: what could not be written
//!   is forgotten, reads still show it, and the next sync succeeds.
//! - [`Disk::flip_bit`] rots.
//!
//! Clones share one disk. Everything is a function of the seed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk;

const SECTOR: usize = 512;

/// The disk; see the module.
#[derive(Clone)]
pub struct Disk(Arc<Mutex<State>>);

/// An open file of a [`Disk`]; dead after a power loss.
pub struct File {
    disk: Disk,
    inode: u64,
    boot: u64,
}

struct State {
    chance: fastrand::Rng,
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<String, u64>,
    names_durable: BTreeMap<String, u64>,
    /// Changes of `names` since the last `sync_dir`, in order.
    name_changes: Vec<NameChange>,
    boot: u64,
    next_inode: u64,
    /// Operations until the power goes.
    operations_left: Option<u64>,
    syncs_left: Option<u64>,
    capacity: Option<u64>,
    stall: std::time::Duration,
    totals: Totals,
}

#[derive(Default)]
struct Inode {
    cached: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

enum NameChange {
    Put { name: String, inode: u64 },
    Gone { name: String },
    Moved { from: String, to: String, inode: u64 },
}

/// What a [`Disk`] has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Everything that changes the disk or makes a change durable.
    pub operations: u64,
    /// Syncs of files and of the directory.
    pub syncs: u64,
    /// Bytes written to files.
    pub bytes_written: u64,
}

impl Disk {
    /// An empty disk whose accidents follow `seed`.
    pub fn new(seed: u64) -> Self {
        Disk(Arc::new(Mutex::new(State {
            chance: fastrand::Rng::with_seed(seed),
            inodes: BTreeMap::new(),
            names: BTreeMap::new(),
            names_durable: BTreeMap::new(),
            name_changes: Vec::new(),
            boot: 0,
            next_inode: 1,
            operations_left: None,
            syncs_left: None,
            capacity: None,
            stall: std::time::Duration::ZERO,
            totals: Totals::default(),
        })))
    }

    /// `operations` more operations work; then every one fails until [`Disk::power_loss`].
    pub fn cut_after(&self, operations: u64) {
        self.state().operations_left = Some(operations);
    }

    /// Power goes and comes back: keeps what was synced and a random part of the rest.
    /// Open files are dead; a pending cut or failing sync is forgotten, the capacity stays.
    pub fn power_loss(&self) {
        self.state().power_loss();
    }

    /// Sets the room for file contents in bytes; `None` for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Bytes that files take now.
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// After `syncs` good ones, one sync fails.
    pub fn fail_sync_after(&self, syncs: u64) {
        self.state().syncs_left = Some(syncs);
    }

    /// Every sync of a file takes this long, as on an SD card that tidies up.
    pub fn stall_syncs(&self, each: std::time::Duration) {
        self.state().stall = each;
    }

    /// Flips one bit of `name`, durably. Returns `false` if there is no such bit.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) -> bool {
        let mut state = self.state();
        let Some(inode) = state.names.get(name).copied() else {
            return false;
        };
        let (Some(inode), Ok(offset)) = (state.inodes.get_mut(&inode), usize::try_from(offset)) else {
            return false;
        };
        let mask = 1 << (bit % 8);
        if let Some(byte) = inode.durable.get_mut(offset) {
            *byte ^= mask;
        }
        match inode.cached.get_mut(offset) {
            Some(byte) => *byte ^= mask,
            None => return false,
        }
        true
    }

    /// What was done so far.
    pub fn totals(&self) -> Totals {
        self.state().totals
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked elsewhere leaves consistent state behind.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl disk::Disk for Disk {
    type File = File;

    fn open(&self, name: &str) -> io::Result<File> {
        let mut state = self.state();
        let inode = match state.names.get(name) {
            Some(inode) => *inode,
            None => {
                state.operation()?;
                let inode = state.next_inode;
                state.next_inode += 1;
                state.inodes.insert(inode, Inode::default());
                state.names.insert(name.to_owned(), inode);
                state.name_changes.push(NameChange::Put { name: name.to_owned(), inode });
                inode
            }
        };
        Ok(File { disk: self.clone(), inode, boot: state.boot })
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), inode);
        state.name_changes.push(NameChange::Moved { from: from.to_owned(), to: to.to_owned(), inode });
        state.collect();
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        let name = name.to_owned();
        state.name_changes.push(NameChange::Gone { name });
        state.collect();
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        let good = state.sync_allowed();
        state.name_changes.clear();
        if good {
            state.names_durable = state.names.clone();
        }
        state.collect();
        outcome(good)
    }

    fn locate(&self, name: &str) -> String {
        format!("fake:{name}")
    }
}

impl disk::File for File {
    fn size(&self) -> io::Result<u64> {
        self.with(|_, inode| Ok(inode.cached.len() as u64))
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.with(|_, inode| {
            let offset = usize::try_from(offset).map_err(io::Error::other)?;
            let bytes = inode.cached.get(offset..offset + into.len());
            into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(|state, inode| {
            state.operation()?;
            let start = usize::try_from(offset).map_err(io::Error::other)?;
            let room = match state.capacity {
                Some(capacity) => {
                    let others = state.used();
                    usize::try_from(capacity.saturating_sub(others)).map_err(io::Error::other)?
                }
                None => usize::MAX,
            };
            let end = (start + bytes.len()).min(room.max(inode.cached.len()));
            let fits = end.saturating_sub(start);
            if fits > 0 {
                let size = inode.cached.len().max(end);
                inode.cached.resize(size, 0);
                inode.cached[start..end].copy_from_slice(&bytes[..fits]);
                inode.dirty.extend(start / SECTOR..=(end - 1) / SECTOR);
                state.totals.bytes_written += fits as u64;
            }
            if fits < bytes.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        let stall = self.disk.state().stall;
        std::thread::sleep(stall);
        self.with(|state, inode| {
            state.operation()?;
            let good = state.sync_allowed();
            if good {
                inode.durable.resize(inode.cached.len(), 0);
                for sector in std::mem::take(&mut inode.dirty) {
                    inode.settle(sector);
                }
            } else {
                inode.settle_some(&mut state.chance);
            }
            outcome(good)
        })
    }
}

impl File {
    fn with<T>(&self, act: impl FnOnce(&mut State, &mut Inode) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state();
        if state.boot != self.boot {
            return Err(power_is_off());
        }
        // Taken out, so that the rest of the state can be changed beside it.
        let mut inode = state.inodes.remove(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        let result = act(&mut state, &mut inode);
        state.inodes.insert(self.inode, inode);
        result
    }
}

impl State {
    fn operation(&mut self) -> io::Result<()> {
        match &mut self.operations_left {
            Some(0) => return Err(power_is_off()),
            Some(left) => *left -= 1,
            None => {}
        }
        self.totals.operations += 1;
        Ok(())
    }

    fn sync_allowed(&mut self) -> bool {
        self.totals.syncs += 1;
        match &mut self.syncs_left {
            Some(0) => {
                self.syncs_left = None;
                false
            }
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }

    fn used(&self) -> u64 {
        let sizes = self.inodes.values().map(|inode| inode.cached.len() as u64);
        sizes.sum()
    }

    /// Frees what no name, durable or not, leads to.
    fn collect(&mut self) {
        let State { inodes, names, names_durable, name_changes, .. } = self;
        inodes.retain(|inode, _| {
            names.values().any(|named| named == inode)
                || names_durable.values().any(|named| named == inode)
                || name_changes.iter().any(|change| match change {
                    NameChange::Put { inode: changed, .. } | NameChange::Moved { inode: changed, .. } => {
                        changed == inode
                    }
                    NameChange::Gone { .. } => false,
                })
        });
    }

    fn power_loss(&mut self) {
        let mut names = std::mem::take(&mut self.names_durable);
        for change in std::mem::take(&mut self.name_changes) {
            if self.chance.bool() {
                continue;
            }
            match change {
                NameChange::Put { name, inode } => {
                    names.insert(name, inode);
                }
                NameChange::Gone { name } => {
                    names.remove(&name);
                }
                NameChange::Moved { from, to, inode } => {
                    if names.get(&from) == Some(&inode) {
                        names.remove(&from);
                    }
                    names.insert(to, inode);
                }
            }
        }
        self.names_durable = names.clone();
        self.names = names;
        for inode in self.inodes.values_mut() {
            inode.settle_some(&mut self.chance);
            inode.cached = inode.durable.clone();
        }
        self.boot += 1;
        self.operations_left = None;
        self.syncs_left = None;
        self.collect();
    }
}

impl Inode {
    /// Moves one sector to the durable side, as far as the durable size goes.
    fn settle(&mut self, sector: usize) {
        let start = sector * SECTOR;
        let end = (start + SECTOR).min(self.cached.len()).min(self.durable.len());
        if start < end {
            self.durable[start..end].copy_from_slice(&self.cached[start..end]);
        }
    }

    fn settle_some(&mut self, chance: &mut fastrand::Rng) {
        if self.durable.len() != self.cached.len() && chance.bool() {
            self.durable.resize(self.cached.len(), 0);
        }
        for sector in std::mem::take(&mut self.dirty) {
            if chance.bool() {
                self.settle(sector);
            }
        }
    }
}

fn outcome(good: bool) -> io::Result<()> {
    if good { Ok(()) } else { Err(io::Error::other("the disk could not write (planted)")) }
}

fn power_is_off() -> io::Error {
    io::Error::other("the power is off (planted)")
}

#[cfg(test)]
mod tests {
    use super::disk::{Disk as _, File as _};
    use super::*;

    fn written(seed: u64, sync: bool, sync_dir: bool) -> Disk {
        let disk = Disk::new(seed);
        let mut file = disk.open("a").unwrap();
        file.write_at(0, &[7; 4 * SECTOR]).unwrap();
        if sync {
            file.sync().unwrap();
        }
        if sync_dir {
            disk.sync_dir().unwrap();
        }
        disk.power_loss();
        assert!(file.size().is_err(), "an open file outlived the power loss");
        disk
    }

    #[test]
    fn power_loss_keeps_only_what_was_synced_for_sure() {
        let mut kinds = BTreeSet::new();
        for seed in 0..200 {
            assert_eq!(written(seed, true, true).used(), 4 * SECTOR as u64);
            let disk = written(seed, false, true);
            let file = disk.open("a").unwrap();
            let mut bytes = vec![0; usize::try_from(file.size().unwrap()).unwrap()];
            file.read_at(0, &mut bytes).unwrap();
            kinds.insert(bytes.iter().filter(|byte| **byte == 7).count() / SECTOR);
        }
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        let kept = (0..200).filter(|seed| !written(*seed, true, false).list().unwrap().is_empty());
        assert!((50..150).contains(&kept.count()));
    }

    #[test]
    fn cut_full_and_failing_sync() {
        let disk = Disk::new(1);
        let mut file = disk.open("a").unwrap();
        disk.set_capacity(Some(1000));
        let full = file.write_at(0, &[1; 1200]).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert_eq!(disk.used(), 1000);
        file.write_at(0, &[2; 1000]).unwrap();
        disk.set_capacity(None);

        disk.fail_sync_after(1);
        file.sync().unwrap();
        file.sync().unwrap_err();
        file.sync().unwrap();

        disk.cut_after(1);
        file.sync().unwrap();
        file.write_at(0, &[1]).unwrap_err();
        disk.power_loss();
        assert!(!disk.flip_bit("a", 1000, 0));
    }
}
