//! The small program that runs as a container's first process if its service wants one: it reaps orphans and passes
//! signals on.
//!
//! In: the configured path, else the places where distributions put it. Out: a file of the board's, or the line that
//! gets one. It must be linked statically, because it runs with the image's files.

use std::path::{Path, PathBuf};

/// Where it is inside the container, as in Docker.
pub(super) const TARGET: &str = "/sbin/docker-init";
/// Debian's package tini, then Docker's own packages.
const PLACES: [&str; 4] =
    ["usr/bin/tini-static", "usr/bin/docker-init", "usr/sbin/docker-init", "usr/libexec/docker/docker-init"];

/// A board without the program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoInit {
    /// None of the usual ones is there.
    #[error("the service asks for an init process, but this board has no /usr/bin/tini-static: `apt install tini`")]
    Missing,
    /// The configured one is not there.
    #[error("the service asks for an init process, but there is no {} (init-path in the agent's configuration)", .0.display())]
    Configured(PathBuf),
}

/// Finds the program below `root` (`/`, or a fixture).
pub(super) fn find(configured: Option<&Path>, root: &Path) -> Result<PathBuf, NoInit> {
    match configured {
        Some(path) if path.is_file() => Ok(path.to_owned()),
        Some(path) => Err(NoInit::Configured(path.to_owned())),
        None => PLACES.iter().map(|place| root.join(place)).find(|path| path.is_file()).ok_or(NoInit::Missing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert_eq!(find(None, root), Err(NoInit::Missing));
        for place in ["usr/libexec/docker/docker-init", "usr/bin/tini-static"] {
            let path = root.join(place);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            assert_eq!(find(None, root), Ok(path));
        }
        let own = root.join("own-init");
        assert_eq!(find(Some(&own), root), Err(NoInit::Configured(own.clone())));
        std::fs::write(&own, "").unwrap();
        assert_eq!(find(Some(&own), root), Ok(own));
    }
}
