//! What raft reads back while it runs: the entries since the snapshot, in memory.
//!
//! Snapshots are made when a member needs one, and not kept longer than the next compaction.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

/// Raft's view of its log.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) hard_state: HardState,
    pub(super) members: ConfState,
    entries: VecDeque<Entry>,
    /// Index and term of the last entry before `entries`.
    base: (u64, u64),
    /// Made to be sent to a member that is far behind.
    pub(super) snapshot: Option<Snapshot>,
    snapshot_wanted: AtomicBool,
}

impl Memory {
    /// Starts over from a snapshot. Returns its index and term.
    pub(super) fn reset(&mut self, metadata: SnapshotMetadata) -> (u64, u64) {
        self.base = (metadata.index, metadata.term);
        self.members = metadata.conf_state.unwrap_or_default();
        self.entries.clear();
        self.snapshot = None;
        self.base
    }

    /// Adds entries; those from the first one's index on are replaced.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        if let Some(first) = entries.first() {
            let kept = first.index.checked_sub(self.first());
            let kept = kept.and_then(|kept| usize::try_from(kept).ok());
            let kept = kept.filter(|kept| *kept <= self.entries.len());
            self.entries.truncate(kept.expect("raft appends without gaps, behind the snapshot"));
            self.entries.extend(entries.iter().cloned());
        }
    }

    /// Forgets entries up to this index of this term.
    pub(super) fn compact(&mut self, base: (u64, u64)) {
        let covered = |entry: &Entry| entry.index <= base.0;
        while self.entries.front().is_some_and(covered) {
            self.entries.pop_front();
        }
        self.base = base;
        self.snapshot = None;
    }

    /// Whether raft asked for a snapshot newer than `snapshot` since the last call.
    pub(super) fn take_snapshot_wanted(&mut self) -> bool {
        std::mem::take(self.snapshot_wanted.get_mut())
    }

    /// Index of the last entry.
    pub(super) fn last(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    fn first(&self) -> u64 {
        self.base.0 + 1
    }

    fn place(&self, index: u64) -> raft::Result<usize> {
        let place = index.checked_sub(self.first());
        let place = place.ok_or(StorageError::Compacted)?;
        Ok(usize::try_from(place).map_err(|_| StorageError::Unavailable)?)
    }
}

impl Storage for Memory {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.members.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        bytes_max: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let range = self.place(low)?..self.place(high)?;
        if range.end > self.entries.len() {
            return Err(StorageError::Unavailable.into());
        }
        let mut entries: Vec<Entry> = self.entries.range(range).cloned().collect();
        raft::util::limit_size(&mut entries, bytes_max.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.base.0 {
            return Ok(self.base.1);
        }
        let entry = self.entries.get(self.place(index)?);
        Ok(entry.ok_or(StorageError::Unavailable)?.term)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// A member ignores a snapshot that does not name it (raft-rs #472) and would wait for
    /// ever, so for a new member only one made after it was added will do.
    fn snapshot(&self, index_min: u64, to: u64) -> raft::Result<Snapshot> {
        let good = self.snapshot.as_ref().filter(|snapshot| {
            snapshot.metadata.as_ref().is_some_and(|metadata| {
                let members = metadata.conf_state.as_ref();
                metadata.index >= index_min && members.is_some_and(|members| names(members, to))
            })
        });
        match good {
            Some(snapshot) => Ok(snapshot.clone()),
            None => {
                self.snapshot_wanted.store(true, Ordering::Relaxed);
                Err(StorageError::SnapshotTemporarilyUnavailable.into())
            }
        }
    }
}

/// Whether `members` has `id` in any part.
pub(super) fn names(members: &ConfState, id: u64) -> bool {
    [&members.voters, &members.learners, &members.voters_outgoing, &members.learners_next]
        .into_iter()
        .any(|part| part.contains(&id))
}
