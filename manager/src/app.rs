//! The daemon: everything behind `pi-mgr serve`.

use crate::cli::ServeArgs;

/// Why the manager did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// This build has no daemon.
    #[error("the manager daemon is not built yet (data directory {0})")]
    NotBuilt(String),
}

/// Runs the manager until it is told to stop.
///
/// # Errors
/// Always, in this build: the daemon does not exist yet.
pub fn serve(args: ServeArgs) -> Result<(), ServeError> {
    Err(ServeError::NotBuilt(args.data_dir.display().to_string()))
}
