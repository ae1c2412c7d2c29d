//! Why an image could not be made ready.

use std::io;

use racimo_common::registry::{Digest, RegistryError};
use tonic::{Code, Status};

use crate::runtime::ctrd::{CtrdError, NO_SPACE};
use crate::runtime::is_full;

/// What the call does that reads a layer's bytes.
pub(super) const UNPACK: &str = "unpack a layer";

/// An image could not be pulled or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry, or what it sent.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// containerd.
    #[error(transparent)]
    Containerd(#[from] CtrdError),
    /// A layer's bytes are not those of its digest, also when fetched from the start.
    #[error("layer {layer} arrived damaged: its bytes do not match the digest; the registry's copy may be broken")]
    DamagedLayer {
        /// The layer's digest.
        layer: Digest,
    },
    /// A layer unpacks to something else than the image says.
    #[error("layer {layer} unpacks to {actual}, but the image says {expected}: the image is broken, build it again")]
    WrongLayer {
        /// The layer's digest.
        layer: Digest,
        /// The configuration's diff id.
        expected: Digest,
        /// What it unpacked to.
        actual: String,
    },
    /// No room on the disk. What was fetched of this image has been given up.
    #[error("{NO_SPACE}: cannot {what}")]
    DiskFull {
        /// The action.
        what: &'static str,
    },
    /// The disk did not take what was unpacked.
    #[error("cannot write the image to the disk")]
    Unwritten {
        /// Why.
        source: io::Error,
    },
    /// Documents or layers disappeared from containerd while we used them.
    #[error("parts of the image disappeared from containerd while it was pulled; try again")]
    Vanished,
}

impl PullError {
    /// For `map_err`: names the action that failed, and knows a full disk.
    pub(super) fn call(what: &'static str) -> impl Fn(Status) -> Self {
        move |status| {
            // containerd hands the file system's error on as text only.
            if status.message().contains(NO_SPACE) {
                return Self::DiskFull { what };
            }
            CtrdError::call(what)(status).into()
        }
    }

    /// The disk did not take what was unpacked.
    pub(super) fn unwritten(source: io::Error) -> Self {
        if is_full(&source) { Self::DiskFull { what: "write a layer" } } else { Self::Unwritten { source } }
    }

    /// Whether bytes on the disk that are not those of their digest look like this, among others.
    pub(super) fn may_be_damage(&self) -> bool {
        match self {
            Self::Containerd(CtrdError::Call { what, source }) => *what == UNPACK && !source.lost,
            Self::WrongLayer { .. } => true,
            Self::Registry(_)
            | Self::Containerd(_)
            | Self::DamagedLayer { .. }
            | Self::DiskFull { .. }
            | Self::Unwritten { .. }
            | Self::Vanished => false,
        }
    }

    /// Whether layers that are in containerd's database and not on the disk may be the reason. What containerd says of
    /// it looks the same as what a broken image brings about, so the disk must be asked.
    pub(super) fn may_be_gone(&self) -> bool {
        matches!(self, Self::Containerd(error) if !error.is_lost())
    }

    /// Whether layers cannot be removed since others stand on them.
    pub(super) fn is_stuck(&self) -> bool {
        let Self::Containerd(CtrdError::Call { what, source }) = self else { return false };
        *what != UNPACK && source.code == Code::FailedPrecondition
    }

    /// Is it worth keeping what has been fetched so far?
    pub(super) fn is_resumable(&self) -> bool {
        match self {
            Self::Registry(error) => error.is_transient(),
            Self::Containerd(_) | Self::Vanished => true,
            Self::DamagedLayer { .. } | Self::WrongLayer { .. } | Self::DiskFull { .. } | Self::Unwritten { .. } => {
                false
            }
        }
    }
}
