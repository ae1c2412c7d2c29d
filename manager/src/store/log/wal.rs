//! The write-ahead log: segments of records ([`super::record`]) and one snapshot file.
//!
//! ```text
//! snapshot      the state up to some index            replaced whole: tmp, sync, rename, sync
//! segment.N     free ─ header written ─▶ current ─ end record ─▶ sealed ─ retired ─▶ free
//! ```
//!
//! - Segments are filled with zeros and made durable before use, and used again: a commit
//!   changes no file size, so it costs one data block and one sync, and needs no new room.
//! - A new segment's header is durable before its predecessor's end record is written, and the
//!   end record before the first batch behind it. So a sealed segment has a successor, and an
//!   unsealed one at most an empty one.
//! - Every segment begins with term and vote, so that older ones can go.
//! - After an error that leaves in doubt what is durable, the owner must end the process.

use std::collections::BTreeMap;
use std::io;

use prost_raft::Message as _;
use raft::eraftpb::{Entry, HardState, Snapshot};

use super::Sizes;
use super::disk::{Disk, File, is_full};
use super::error::{OpenError, WalError};
use super::fault::{Fault, Rules};
use super::record::{Batch, HEADER, Header, Kind, MARK, RECORD, SEAL};
use super::recover::{self, Recovered};
use crate::limits;

pub(super) const SNAPSHOT: &str = "snapshot";
pub(super) const SNAPSHOT_NEW: &str = "snapshot.new";
pub(super) const SNAPSHOT_MAGIC: [u8; 4] = *b"RCS1";
/// Bytes of a snapshot file before its body: magic, raft id, length, checksum.
pub(super) const SNAPSHOT_HEAD: usize = 24;

/// Bytes of a batch beside its entries, at most: mark, term and vote.
const BATCH_OVERHEAD: usize = MARK + RECORD + 33;

/// Written at a time when a new segment is filled.
const ZEROS: [u8; 16 << 10] = [0; 16 << 10];

/// The open log on its disk.
pub(super) struct Wal<D: Disk> {
    pub(super) disk: D,
    pub(super) sizes: Sizes,
    pub(super) rules: Rules,
    pub(super) slots: BTreeMap<u64, Slot<D::File>>,
    pub(super) current: Option<Current>,
    pub(super) next_id: u64,
    /// Index after the last entry.
    pub(super) next_index: u64,
    salts: fastrand::Rng,
}

/// One segment file, by the number in its name.
pub(super) struct Slot<F> {
    pub(super) file: F,
    pub(super) size: usize,
    /// `None`: free.
    pub(super) used: Option<Used>,
}

/// What a segment in use holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used {
    pub(super) id: u64,
    /// Highest entry in it; 0 if none.
    pub(super) index_max: u64,
}

/// The segment being written.
pub(super) struct Current {
    pub(super) slot: u64,
    pub(super) header: Header,
    /// Where the next batch goes.
    pub(super) offset: usize,
    /// Checksum of the last record.
    pub(super) crc: u32,
}

/// Who may use the last bytes of a segment when there is no room for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Commands leave the reserve alone.
    Commands,
    /// A new term must always be possible.
    Term,
}

impl<D: Disk> Wal<D> {
    /// Opens what is on `disk`; changes nothing if it is damaged.
    pub(super) fn open(disk: D, sizes: Sizes, seed: u64, rules: Rules) -> Result<(Self, Recovered), OpenError> {
        let mut wal = Wal {
            disk,
            sizes,
            rules,
            slots: BTreeMap::new(),
            current: None,
            next_id: 1,
            next_index: 1,
            salts: fastrand::Rng::with_seed(seed),
        };
        let recovered = recover::recover(&mut wal)?;
        Ok((wal, recovered))
    }

    /// Makes sure that a batch whose entries take `bytes` fits, if need be in a new segment.
    pub(super) fn reserve(&mut self, bytes: usize, purpose: Purpose) -> Result<(), WalError> {
        let margin = match purpose {
            Purpose::Commands => self.sizes.reserve,
            Purpose::Term => 0,
        };
        let needed = BATCH_OVERHEAD + bytes + SEAL + margin;
        if self.room().is_none_or(|room| room < needed) {
            self.rotate()?;
        }
        Ok(())
    }

    /// Makes a batch durable: `entries`, and term and vote if they are new (`state_changed`)
    /// or the segment is. Returns the bytes it took.
    pub(super) fn append(
        &mut self,
        state: &HardState,
        state_changed: bool,
        entries: &[Entry],
    ) -> Result<u64, WalError> {
        let encoded: Vec<Vec<u8>> = entries.iter().map(|entry| entry.encode_to_vec()).collect();
        let bytes = encoded.iter().map(|entry| RECORD + entry.len()).sum();
        self.reserve(bytes, Purpose::Term)?;
        let rules = self.rules;
        let current = self.current.as_ref().expect("reserve leaves a segment");

        let mut batch = Batch::new(&current.header, current.offset, current.crc, rules);
        let is_first = current.offset == HEADER;
        if (state_changed && !rules.broken(Fault::VoteNotSaved)) || (is_first && !rules.broken(Fault::VoteNotRepeated))
        {
            batch.push(Kind::HardState, &state.encode_to_vec());
        }
        for entry in &encoded {
            batch.push(Kind::Entry, entry);
        }
        let written = self.write(batch, !rules.broken(Fault::AckBeforeSync))?;
        if let Some(entry) = entries.last() {
            self.next_index = entry.index + 1;
            self.note_index(entry.index);
        }
        Ok(written)
    }

    /// Replaces the snapshot, then frees the segments that it makes needless.
    ///
    /// # Errors
    /// `Full`: nothing has changed.
    pub(super) fn save_snapshot(&mut self, me: u64, snapshot: &Snapshot) -> Result<(), WalError> {
        let body = snapshot.encode_to_vec();
        let mut bytes = Vec::with_capacity(SNAPSHOT_HEAD + body.len());
        bytes.extend_from_slice(&SNAPSHOT_MAGIC);
        bytes.extend_from_slice(&me.to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
        let crc = snapshot_crc(&bytes, &body);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&body);

        let rules = self.rules;
        self.create(SNAPSHOT_NEW, |file| {
            file.write_at(0, &bytes)?;
            if rules.broken(Fault::SnapshotRenamedBeforeSync) {
                return Ok(());
            }
            sync(file, rules)
        })?;
        let renamed = self.disk.rename(SNAPSHOT_NEW, SNAPSHOT);
        renamed.map_err(|source| self.broken(SNAPSHOT, source))?;
        if !rules.broken(Fault::SnapshotNameNotSynced) {
            self.sync_dir()?;
        }
        let index = snapshot.metadata.as_ref().map_or(0, |meta| meta.index);
        self.next_index = self.next_index.max(index + 1);
        self.retire(index)
    }

    /// Makes a free segment if the current one is more than half full, so that the next commits
    /// need no room. A full disk is no error here.
    pub(super) fn prepare_spare(&mut self) -> Result<(), WalError> {
        let room = self.room().unwrap_or(0);
        if room > self.sizes.segment / 2 || self.free().next().is_some() {
            return Ok(());
        }
        match self.create_segment() {
            Ok(_) | Err(WalError::Full { .. }) => Ok(()),
            Err(broken @ WalError::Broken { .. }) => Err(broken),
        }
    }

    /// Makes the header of a segment say "free".
    pub(super) fn clear(&mut self, slot: u64) -> Result<(), WalError> {
        self.write_at(slot, 0, &[0; HEADER])?;
        self.sync(slot)?;
        if let Some(slot) = self.slots.get_mut(&slot) {
            slot.used = None;
        }
        Ok(())
    }

    /// Writes bytes that are there already, and makes sure of them.
    pub(super) fn rewrite(&mut self, slot: u64, at: usize, bytes: &[u8]) -> Result<(), WalError> {
        self.write_at(slot, at, bytes)?;
        self.sync(slot)
    }

    pub(super) fn sync_dir(&self) -> Result<(), WalError> {
        let done = match self.disk.sync_dir() {
            Err(_) if self.rules.broken(Fault::SyncRetried) => self.disk.sync_dir(),
            done => done,
        };
        done.map_err(|source| self.broken(".", source))
    }

    pub(super) fn broken(&self, name: &str, source: io::Error) -> WalError {
        let file = self.disk.locate(name);
        WalError::Broken { file, source }
    }

    /// Bytes left in the current segment.
    fn room(&self) -> Option<usize> {
        let current = self.current.as_ref()?;
        let slot = self.slots.get(&current.slot)?;
        Some(slot.size.saturating_sub(current.offset))
    }

    fn free(&self) -> impl Iterator<Item = u64> + '_ {
        let free = self.slots.iter().filter(|(_, slot)| slot.used.is_none());
        free.map(|(number, _)| *number)
    }

    fn note_index(&mut self, index: u64) {
        let current = self.current.as_ref().map(|current| current.slot);
        let slot = current.and_then(|slot| self.slots.get_mut(&slot));
        if let Some(used) = slot.and_then(|slot| slot.used.as_mut()) {
            used.index_max = used.index_max.max(index);
        }
    }

    /// Seals the current segment and goes on in a free one.
    fn rotate(&mut self) -> Result<(), WalError> {
        let spare = self.free().next();
        let slot = match spare {
            Some(slot) => slot,
            None => self.create_segment()?,
        };
        let header = Header { id: self.next_id, next_index: self.next_index, salt: self.salts.u32(..) };
        self.write_at(slot, 0, &header.encode())?;
        self.sync(slot)?;
        if let Some(slot) = self.slots.get_mut(&slot) {
            slot.used = Some(Used { id: header.id, index_max: 0 });
        }
        self.next_id += 1;

        if let Some(current) = &self.current {
            let mut batch = Batch::new(&current.header, current.offset, current.crc, self.rules);
            batch.push(Kind::End, &[]);
            self.write(batch, true)?;
        }
        self.current = Some(Current { slot, header, offset: HEADER, crc: header.seed(self.rules) });
        Ok(())
    }

    fn write(&mut self, batch: Batch, durable: bool) -> Result<u64, WalError> {
        let current = self.current.as_ref().expect("batches belong to a segment");
        let (slot, offset) = (current.slot, current.offset);
        let (bytes, crc) = batch.finish();
        self.write_at(slot, offset, &bytes)?;
        if durable {
            self.sync(slot)?;
        }
        if let Some(current) = &mut self.current {
            current.offset += bytes.len();
            current.crc = crc;
        }
        Ok(bytes.len() as u64)
    }

    /// Adds a free segment: zeros, durable, with a durable name.
    fn create_segment(&mut self) -> Result<u64, WalError> {
        let number =
            (1..).find(|number| !self.slots.contains_key(number)).expect("there are fewer segments than numbers");
        let size = self.sizes.segment;
        let rules = self.rules;
        let file = self.create(&segment_name(number), |file| {
            for start in (0..size).step_by(ZEROS.len()) {
                let chunk = ZEROS.len().min(size - start);
                file.write_at(start as u64, &ZEROS[..chunk])?;
            }
            sync(file, rules)
        })?;
        if !rules.broken(Fault::SegmentNameNotSynced) {
            self.sync_dir()?;
        }
        let slot = Slot { file, size, used: None };
        self.slots.insert(number, slot);
        Ok(number)
    }

    /// A new file filled by `fill`; if there is no room for it, there is no file.
    fn create(&self, name: &str, fill: impl FnOnce(&mut D::File) -> io::Result<()>) -> Result<D::File, WalError> {
        let made = self.disk.open(name).and_then(|mut file| {
            fill(&mut file)?;
            Ok(file)
        });
        made.map_err(|source| {
            if !is_full(&source) {
                return self.broken(name, source);
            }
            match self.disk.remove(name) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => self.broken(name, source),
                _ => WalError::Full { file: self.disk.locate(name) },
            }
        })
    }

    /// Frees segments, oldest first, that hold nothing beyond `index`; drops surplus ones.
    fn retire(&mut self, index: u64) -> Result<(), WalError> {
        let current = self.current.as_ref().map(|current| current.slot);
        let mut used: Vec<(u64, u64, u64)> = self
            .slots
            .iter()
            .filter(|(number, _)| Some(**number) != current)
            .filter_map(|(number, slot)| slot.used.map(|used| (used.id, used.index_max, *number)))
            .collect();
        used.sort_unstable();
        for (_, index_max, slot) in used {
            if index_max > index {
                break;
            }
            self.clear(slot)?;
        }
        let surplus: Vec<u64> = self.free().skip(limits::LOG_SPARES_MAX).collect();
        for number in surplus {
            self.slots.remove(&number);
            let name = segment_name(number);
            let removed = self.disk.remove(&name);
            removed.map_err(|source| self.broken(&name, source))?;
        }
        Ok(())
    }

    fn write_at(&mut self, slot: u64, at: usize, bytes: &[u8]) -> Result<(), WalError> {
        let file = &mut self.slots.get_mut(&slot).expect("slots stay").file;
        let written = file.write_at(at as u64, bytes);
        // These blocks were allocated long ago: even "full" is a broken promise here.
        written.map_err(|source| self.broken(&segment_name(slot), source))
    }

    fn sync(&mut self, slot: u64) -> Result<(), WalError> {
        let rules = self.rules;
        let file = &mut self.slots.get_mut(&slot).expect("slots stay").file;
        let synced = sync(file, rules);
        synced.map_err(|source| self.broken(&segment_name(slot), source))
    }
}

/// The name of segment file `number`.
pub(super) fn segment_name(number: u64) -> String {
    format!("segment.{number}")
}

/// Checksum of a snapshot file: of the head before the checksum, and of the body.
pub(super) fn snapshot_crc(head: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(body);
    hasher.finalize()
}

fn sync<F: File>(file: &mut F, rules: Rules) -> io::Result<()> {
    match file.sync() {
        Err(_) if rules.broken(Fault::SyncRetried) => file.sync(),
        done => done,
    }
}
