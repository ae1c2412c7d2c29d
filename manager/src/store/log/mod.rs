//! The durable, replicated log of commands: raft as a group of one on our own write-ahead log.
//!
//! In: batches of commands. Out: the [`Machine`] that has applied them, once they are durable.
//! Synchronous; its owner runs it where blocking is allowed.
//!
//! ```text
//! commit ─▶ wal: room? ─▶ raft: propose ─▶ wal: one write, one sync ─▶ raft: committed ─▶ apply
//!                                                    └─ log grown enough ─▶ snapshot, retire
//! ```
//!
//! - Acknowledged means durable. A batch that was under way when the power went may be there
//!   from its first command up to some other, in order.
//! - A torn tail is cut. Anything else that is not as it was written stops the start.
//! - An idle log writes nothing.
//! - A full disk refuses commands before anything is touched: the room they need was taken
//!   when the segment was made, or else they are refused.

mod disk;
mod error;
pub mod fake;
mod fault;
#[cfg(test)]
mod group;
mod memory;
mod raft;
mod record;
mod recover;
#[cfg(test)]
mod sim;
mod wal;

use std::io;

pub use self::disk::{Disk, File, RealDisk, RealFile};
use self::error::WalError;
pub use self::error::{CommitError, OpenError, RestoreError};
use self::fault::Rules;
use self::raft::first_snapshot_at;
pub use self::raft::{Core, CoreError, Machine, Stored, Work, first_snapshot};
use self::wal::{Purpose, SNAPSHOT, Wal};
use crate::limits;

/// Raft id of the member that starts a group.
const FIRST_MEMBER: u64 = 1;

/// Sizes of a log in bytes; [`Sizes::default`] is what `limits.rs` says. Tests use small ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// `limits::LOG_SEGMENT_BYTES`.
    pub segment: usize,
    /// `limits::LOG_BATCH_BYTES_MAX`.
    pub batch_max: usize,
    /// `limits::LOG_RESERVE_BYTES`.
    pub reserve: usize,
    /// `limits::LOG_SNAPSHOT_AFTER_BYTES`.
    pub snapshot_after: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        let bytes = |limit| usize::try_from(limit).expect("limits fit into 32 bits");
        Sizes {
            segment: bytes(limits::LOG_SEGMENT_BYTES),
            batch_max: bytes(limits::LOG_BATCH_BYTES_MAX),
            reserve: bytes(limits::LOG_RESERVE_BYTES),
            snapshot_after: limits::LOG_SNAPSHOT_AFTER_BYTES,
        }
    }
}

/// The log and the state made from it.
pub struct Log<D: Disk, M: Machine> {
    wal: Wal<D>,
    core: Core<M>,
    me: u64,
    /// Bytes of log since the last snapshot.
    grown: u64,
    /// Make a snapshot when `grown` reaches this.
    snapshot_at: u64,
    /// Set once it is unknown what is durable.
    is_broken: bool,
}

impl<D: Disk, M: Machine> Log<D, M> {
    /// Whether `disk` holds a log, so that [`Log::open`] would not begin a new one.
    ///
    /// # Errors
    /// What the disk says.
    pub fn exists(disk: &D) -> io::Result<bool> {
        let names = disk.list()?;
        Ok(names.iter().any(|name| name == SNAPSHOT))
    }

    /// Opens the log on `disk`, or begins one with `machine` as it is. When this returns,
    /// `machine` has applied everything that was ever acknowledged, and an entry of the new
    /// term. `seed` is chance.
    ///
    /// A disk without a log begins a new group: whoever was a member of one must not come
    /// back this way after losing its disk, but join under a new id.
    ///
    /// # Errors
    /// See [`OpenError`]; if the log is damaged, nothing was changed.
    pub fn open(disk: D, machine: M, seed: u64) -> Result<Self, OpenError> {
        Self::open_with(disk, machine, seed, Sizes::default())
    }

    /// [`Log::open`] with other sizes, for tests. A batch and the reserve, with 256 bytes to
    /// spare, must fit into a segment.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_with(disk: D, machine: M, seed: u64, sizes: Sizes) -> Result<Self, OpenError> {
        Self::open_by(disk, machine, seed, sizes, Rules::default())
    }

    fn open_by(disk: D, machine: M, seed: u64, sizes: Sizes, rules: Rules) -> Result<Self, OpenError> {
        let (mut wal, recovered) = Wal::open(disk, sizes, seed, rules)?;
        let (me, snapshot) = match recovered.snapshot {
            Some(found) => found,
            None => {
                let snapshot = first_snapshot(vec![FIRST_MEMBER], &machine);
                wal.save_snapshot(FIRST_MEMBER, &snapshot)?;
                (FIRST_MEMBER, snapshot)
            }
        };
        let stored = Stored { snapshot, hard_state: recovered.hard_state, entries: recovered.entries };
        Self::lead(wal, me, stored, machine, seed)
    }

    /// Begins a log that has come to `index` with `machine` as it is, on a disk that holds none: what was there before
    /// went another way.
    ///
    /// # Errors
    /// There is a log already; else as [`Log::open`].
    pub fn begin(disk: D, machine: M, index: u64, seed: u64) -> Result<Self, OpenError> {
        let (mut wal, recovered) = Wal::open(disk, Sizes::default(), seed, Rules::default())?;
        if recovered.snapshot.is_some() {
            let source = io::Error::new(io::ErrorKind::AlreadyExists, "there is a log already");
            return Err(OpenError::Io { file: wal.disk.locate(SNAPSHOT), source });
        }
        let snapshot = first_snapshot_at(index, vec![FIRST_MEMBER], &machine);
        wal.save_snapshot(FIRST_MEMBER, &snapshot)?;
        let stored = Stored { snapshot, hard_state: Default::default(), entries: Vec::new() };
        Self::lead(wal, FIRST_MEMBER, stored, machine, seed)
    }

    /// Takes up the group that is stored, and leads it.
    fn lead(wal: Wal<D>, me: u64, stored: Stored, machine: M, seed: u64) -> Result<Self, OpenError> {
        let grown = stored.entries.iter().map(entry_bytes).sum();
        let snapshot_at = wal.sizes.snapshot_after.max(2 * stored.snapshot.data.len() as u64);
        let file = wal.disk.locate(SNAPSHOT);
        let voters = voters(&stored);
        if voters != [me] {
            return Err(OpenError::NotSole { file, me, voters });
        }
        let core = Core::new(me, stored, machine, seed);
        let core = core.map_err(|error| OpenError::from_core(error, file.clone()))?;
        let mut log = Log { wal, core, me, grown, snapshot_at, is_broken: false };
        // First what is known to be committed: raft does not stand for election while a
        // change of members among it is not applied.
        log.drive()?;
        let elected = log.core.campaign();
        elected.map_err(|error| OpenError::from_core(error, file))?;
        log.drive()?;
        assert!(log.core.leads(), "a sole voter elects itself");
        Ok(log)
    }

    /// The state after the last commit.
    pub fn machine(&self) -> &M {
        self.core.machine()
    }

    /// The state, to take out what [`Machine::apply`] left beside it (events, say). What
    /// [`Machine::snapshot`] returns must not change by that.
    pub fn machine_mut(&mut self) -> &mut M {
        self.core.machine_mut()
    }

    /// Index of the last applied entry. Not every index is a command's.
    pub fn index(&self) -> u64 {
        self.core.applied()
    }

    /// Current term; it rises with every start.
    pub fn term(&self) -> u64 {
        self.core.term()
    }

    /// Makes all of `commands` durable with one sync and applies them in order. Returns the
    /// index of each.
    ///
    /// # Errors
    /// `Broken`: the process must end, and some of the commands may be there after a restart.
    /// After any other error nothing was written or applied.
    pub fn commit(&mut self, commands: &[Vec<u8>]) -> Result<Vec<u64>, CommitError> {
        if self.is_broken {
            return Err(CommitError::Broken {
                file: self.wal.disk.locate("."),
                source: io::Error::other("an earlier write failed"),
            });
        }
        let bytes = self.check(commands)?;
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        if !self.core.leads() {
            return Err(CommitError::NotLeader);
        }
        let result = self.commit_checked(commands, bytes);
        self.is_broken = matches!(result, Err(WalError::Broken { .. }));
        Ok(result?)
    }

    fn check(&self, commands: &[Vec<u8>]) -> Result<usize, CommitError> {
        // Raft's own entries are empty ones.
        if let Some(position) = commands.iter().position(Vec::is_empty) {
            return Err(CommitError::Empty { position });
        }
        let overhead = usize::try_from(limits::LOG_COMMAND_OVERHEAD_BYTES).unwrap_or(usize::MAX);
        let sizes = commands.iter().map(|command| command.len() + overhead);
        let bytes = sizes.sum();
        if bytes > self.wal.sizes.batch_max {
            return Err(CommitError::TooLarge { bytes: bytes as u64, bytes_max: self.wal.sizes.batch_max as u64 });
        }
        Ok(bytes)
    }

    fn commit_checked(&mut self, commands: &[Vec<u8>], bytes: usize) -> Result<Vec<u64>, WalError> {
        self.wal.reserve(bytes, Purpose::Commands)?;
        let mut indexes = Vec::with_capacity(commands.len());
        for command in commands {
            let proposed = self.core.propose(command.clone());
            indexes.push(proposed.expect("an idle sole leader takes every proposal"));
        }
        self.drive()?;
        let last = indexes.last().copied().unwrap_or(0);
        assert!(self.core.applied() >= last, "a sole voter commits at once");
        // What follows is care for later commits: these are safe.
        self.wal.prepare_spare()?;
        self.snapshot_if_due()?;
        Ok(indexes)
    }

    /// Does raft's work until there is none.
    fn drive(&mut self) -> Result<(), WalError> {
        while let Some(work) = self.core.poll() {
            assert!(work.snapshot.is_none() && work.messages.is_empty(), "a group of one has nobody to talk to");
            // Otherwise only the commit index has changed, and that can be found out again.
            if work.must_sync {
                let state = self.core.hard_state();
                self.grown += self.wal.append(&state, work.state_changed, &work.entries)?;
            }
            let done = self.core.persisted(work);
            done.expect("only another member's snapshot can fail to be restored");
        }
        Ok(())
    }

    fn snapshot_if_due(&mut self) -> Result<(), WalError> {
        if self.grown < self.snapshot_at {
            return Ok(());
        }
        let snapshot = self.core.snapshot();
        let bytes = snapshot.data.len() as u64;
        // Room for the metadata beside the state.
        let fits = bytes + 4096 <= limits::LOG_SNAPSHOT_BYTES_MAX;
        let saved = if fits {
            self.wal.save_snapshot(self.me, &snapshot)
        } else {
            let file = self.wal.disk.locate(SNAPSHOT);
            Err(WalError::Full { file })
        };
        match saved {
            Ok(()) => {
                let compacted = self.core.compact();
                compacted.expect("no work is under way between commits");
                self.grown = 0;
                self.snapshot_at = self.wal.sizes.snapshot_after.max(2 * bytes);
                Ok(())
            }
            // The log has all of it; tried again when as much has come as makes one due.
            Err(full @ WalError::Full { .. }) => {
                ::log::warn!("no snapshot of {bytes} bytes, the log goes on growing: {full}");
                self.snapshot_at = self.grown + self.wal.sizes.snapshot_after;
                Ok(())
            }
            Err(broken @ WalError::Broken { .. }) => Err(broken),
        }
    }
}

impl OpenError {
    fn from_core(error: CoreError, file: String) -> Self {
        match error {
            CoreError::Restore(source) => OpenError::Restore { file, source },
            other @ (CoreError::Busy | CoreError::NotLeader | CoreError::NotMember | CoreError::Raft(_)) => {
                OpenError::Io { file, source: io::Error::other(other) }
            }
        }
    }
}

fn voters(stored: &Stored) -> Vec<u64> {
    let metadata = stored.snapshot.metadata.as_ref();
    let members = metadata.and_then(|metadata| metadata.conf_state.as_ref());
    let mut voters = members.map_or_else(Vec::new, |members| members.voters.clone());
    if let Some(members) = members {
        // A learner or a change under way makes it a group too.
        voters.extend(members.learners.iter().chain(&members.voters_outgoing));
    }
    voters
}

fn entry_bytes(entry: &::raft::eraftpb::Entry) -> u64 {
    prost_raft::Message::encoded_len(entry) as u64
}
