//! Why an image could not be made ready.

use racimo_common::registry::{Digest, RegistryError};
use tonic::Status;

use crate::runtime::ctrd::CtrdError;

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
    #[error("no space left on this board's disk ({what}): remove unused images or volumes")]
    DiskFull {
        /// The action.
        what: &'static str,
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
            if status.message().contains("no space left on device") {
                return Self::DiskFull { what };
            }
            CtrdError::call(what)(status).into()
        }
    }

    /// Is it worth keeping what has been fetched so far?
    pub(super) fn is_resumable(&self) -> bool {
        match self {
            Self::Registry(error) => error.is_transient(),
            Self::Containerd(_) | Self::Vanished => true,
            Self::DamagedLayer { .. } | Self::WrongLayer { .. } | Self::DiskFull { .. } => false,
        }
    }
}
