//! What can go wrong with a registry, and what the user can do about it.

use super::digest::Digest;
use super::platform::{self, Platform};

/// A registry operation failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No connection.
    #[error("cannot reach registry {host}: {why}")]
    Unreachable {
        /// Host and port.
        host: String,
        /// Name look-up, TCP or TLS said this.
        why: String,
    },
    /// The connection broke or stalled in the middle.
    #[error("transfer from {host} broke off: {why}")]
    Transfer {
        /// Host and port.
        host: String,
        /// What happened.
        why: String,
    },
    /// Credentials are missing, wrong or not sufficient.
    #[error(
        "access to {image} denied by {host}: {why}; if the image is private, log in and pass \
         the credentials on (docker login, --with-registry-auth)"
    )]
    Unauthorized {
        /// Host and port.
        host: String,
        /// The image asked for.
        image: String,
        /// The registry's words.
        why: String,
    },
    /// No such repository, tag or digest.
    #[error("{image} not found on {host}: {why}")]
    NotFound {
        /// Host and port.
        host: String,
        /// The image asked for.
        image: String,
        /// The registry's words.
        why: String,
    },
    /// Status 429.
    #[error("{host} allows no more pulls for now: {why}; wait, log in, or use a mirror")]
    TooManyRequests {
        /// Host and port.
        host: String,
        /// The registry's words.
        why: String,
    },
    /// Any other answer than success.
    #[error("{host} answered with status {status}: {why}")]
    Status {
        /// Host and port.
        host: String,
        /// HTTP status.
        status: u16,
        /// The registry's words.
        why: String,
    },
    /// A document is larger than we take.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// Which document.
        what: &'static str,
        /// The most we take.
        limit: usize,
    },
    /// The bytes are not those that were asked for.
    #[error("{what} is damaged: it should be {expected} but is {actual}")]
    DigestMismatch {
        /// What was fetched.
        what: &'static str,
        /// As asked for.
        expected: Digest,
        /// As received.
        actual: Digest,
    },
    /// Not an image that we can run.
    #[error("image format not supported: {media_type}; push the image again with a current tool")]
    Unsupported {
        /// Its media type or name.
        media_type: String,
    },
    /// Not built for this board.
    #[error("image has {}; this board runs {}", platform::list(.image), platform::list(.board))]
    NoPlatform {
        /// Platforms of the image.
        image: Vec<Platform>,
        /// Platforms of the board, best first.
        board: Vec<Platform>,
    },
    /// A document cannot be read.
    #[error("registry sent a broken {what}: {why}")]
    Malformed {
        /// Which document.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

impl RegistryError {
    /// May the same request succeed later without anybody's help?
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Transfer { .. } | Self::TooManyRequests { .. } => true,
            Self::Status { status, .. } => *status >= 500,
            Self::Unauthorized { .. }
            | Self::NotFound { .. }
            | Self::TooLarge { .. }
            | Self::DigestMismatch { .. }
            | Self::Unsupported { .. }
            | Self::NoPlatform { .. }
            | Self::Malformed { .. } => false,
        }
    }
}
