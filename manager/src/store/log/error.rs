//! What can go wrong with the log, by what the caller can do about it.

use std::io;

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk failed.
    #[error("read or write {file}")]
    Io {
        /// Where.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// Something that was durable is no longer what it was. Nothing was changed.
    #[error(
        "{file} is damaged at byte {offset}: {what}; \
         restore the manager's data directory from a backup"
    )]
    Damaged {
        /// Where.
        file: String,
        /// First byte that is wrong.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// No room for what a start must write (less than 2.1 MiB).
    #[error("the disk is full: make room for {file}")]
    Full {
        /// What could not be written.
        file: String,
    },
    /// The snapshot is whole, but the state machine does not take it.
    #[error("restore the state from {file}")]
    Restore {
        /// The snapshot.
        file: String,
        /// What the state machine said.
        source: RestoreError,
    },
    /// The snapshot names other members: this log belongs to a group, or to one that this
    /// manager has left.
    #[error("{file} is of member {me} of a group with the voters {voters:?}, not of a group of one")]
    NotSole {
        /// The snapshot.
        file: String,
        /// Our raft id.
        me: u64,
        /// The group's voters.
        voters: Vec<u64>,
    },
}

/// Why a commit was refused.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A command without bytes; nothing was done.
    #[error("command {position} of the batch is empty")]
    Empty {
        /// Which one, from 0.
        position: usize,
    },
    /// More than `limits::LOG_BATCH_BYTES_MAX`; nothing was done.
    #[error("the change takes {bytes} bytes of log; at most {bytes_max} are allowed")]
    TooLarge {
        /// What the batch takes.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// Another member must be asked; nothing was done.
    #[error("this manager is not the leader")]
    NotLeader,
    /// Nothing was written and nothing was applied; later commits may succeed.
    #[error("the manager's disk is full")]
    Full,
    /// It is unknown what is durable: the process must end. A restart finds out.
    #[error("the log is broken: write {file}")]
    Broken {
        /// Where it failed.
        file: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A state machine's refusal of a snapshot.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RestoreError(pub String);

/// Why something was not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WalError {
    /// No room, noticed before anything that matters was touched.
    #[error("no room for {file}")]
    Full { file: String },
    /// Unknown what is durable.
    #[error("write {file}")]
    Broken { file: String, source: io::Error },
}

impl From<WalError> for OpenError {
    fn from(error: WalError) -> Self {
        match error {
            WalError::Full { file } => OpenError::Full { file },
            WalError::Broken { file, source } => OpenError::Io { file, source },
        }
    }
}

impl From<WalError> for CommitError {
    fn from(error: WalError) -> Self {
        match error {
            WalError::Full { .. } => CommitError::Full,
            WalError::Broken { file, source } => CommitError::Broken { file, source },
        }
    }
}
