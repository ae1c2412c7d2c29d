//! How many files the process may have open: each connection is one.

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::limits::{
    API_CONNECTIONS_MAX, API_HANDSHAKES_MAX, API_LOCAL_CONNECTIONS_MAX, API_REMOTE_CONNECTIONS_MAX, CONNECTIONS_MAX,
    FILES_RESERVE,
};

/// What the API's connections take together.
pub(super) const API_FILES: usize =
    API_CONNECTIONS_MAX + API_LOCAL_CONNECTIONS_MAX + API_REMOTE_CONNECTIONS_MAX + API_HANDSHAKES_MAX;

/// Raises the number of files to what all connections need, as far as the system lets it. Call it once, at the start.
pub fn allow() {
    let wanted = (CONNECTIONS_MAX + API_FILES + FILES_RESERVE) as u64;
    let mut files = getrlimit(Resource::Nofile);
    let wanted = files.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if files.current.is_some_and(|current| current < wanted) {
        files.current = Some(wanted);
        if let Err(error) = setrlimit(Resource::Nofile, files) {
            log::warn!("cannot have more files open at once: {error}");
        }
    }
}

/// How many there may be.
pub fn allowed() -> usize {
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}
