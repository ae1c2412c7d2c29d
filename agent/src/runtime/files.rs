//! Files and directories of the board that containers see: `hostname`, `hosts`, `resolv.conf`,
//! and volumes.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use racimo_common::object::{DnsConfig, NetworkMode};

use super::{
    mount::{BadMount, Bound, Source},
    resolver::{self, Asks, BadResolver},
    rootfs,
};
use crate::limits;

/// Why a task's files cannot be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error(transparent)]
    Resolver(#[from] BadResolver),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Checks that what is bound is there. Touches nothing.
pub(super) fn check_sources(mounts: &[Bound]) -> Result<(), BadMount> {
    for mount in mounts {
        match &mount.source {
            Source::Bind { path, .. } if !path.exists() => {
                return Err(BadMount::NoSource(path.display().to_string()));
            }
            Source::Bind { .. } | Source::Volume { .. } | Source::Tmpfs { .. } => {}
        }
    }
    Ok(())
}

/// A task's three files: its host name, and text for the others.
#[derive(Debug)]
pub(super) struct Names<'a> {
    pub(super) hostname: &'a str,
    /// Lines for `hosts`.
    pub(super) hosts: String,
    pub(super) dns: &'a DnsConfig,
    /// Whether the agent answers it inside its network.
    pub(super) asks_agent: bool,
}

/// Writes a task's `hostname`, `hosts` and `resolv.conf` below `dir`. On the board's network `hosts` begins with the
/// board's, below `root`: a container may write to its own, never to the board's.
pub(super) fn write_files(dir: &Path, names: &Names<'_>, network: NetworkMode, root: &Path) -> Result<(), FileError> {
    let etc = root.join("etc");
    let own_network = match network {
        NetworkMode::Host => false,
        NetworkMode::None | NetworkMode::Unset | NetworkMode::Bridge => true,
    };
    let board = read_some(&etc.join("resolv.conf"))?;
    let asks = match (own_network, names.asks_agent) {
        (false, _) => Asks::Board,
        (true, false) => Asks::Network,
        (true, true) => Asks::Agent,
    };
    let resolv_conf = resolver::resolv_conf(&board, names.dns, asks)?;
    fs::create_dir_all(dir)?;
    fs::write(dir.join("hostname"), format!("{}\n", names.hostname))?;
    fs::write(dir.join("resolv.conf"), resolv_conf)?;
    let to = dir.join("hosts");
    fs::write(&to, if own_network { resolver::HOSTS } else { "" })?;
    let mut hosts = File::options().append(true).open(to)?;
    if !own_network {
        // It may be large: lists of unwanted names are kept there.
        match File::open(etc.join("hosts")) {
            Ok(mut from) => {
                io::copy(&mut from, &mut hosts)?;
                // Its last line may have no end.
                hosts.write_all(b"\n")?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    hosts.write_all(names.hosts.as_bytes())?;
    // Whatever the agent's umask is: a container's user must be able to read them.
    for name in ["hostname", "hosts", "resolv.conf"] {
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

/// The start of a small text file; empty if there is none.
fn read_some(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => drop(file.take(limits::BOARD_FILE_MAX).read_to_end(&mut bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The volumes that do not exist yet: directory, target in the image, and whether to fill it.
pub(super) fn missing_volumes(mounts: &[Bound]) -> Vec<(PathBuf, String, bool)> {
    let missing = |mount: &Bound| match &mount.source {
        Source::Volume { path, fill } if !path.exists() => Some((path.clone(), mount.target.clone(), *fill)),
        Source::Bind { .. } | Source::Volume { .. } | Source::Tmpfs { .. } => None,
    };
    mounts.iter().filter_map(missing).collect()
}

/// Makes a volume at `path`, whole or not at all. It belongs to whom the image's directory at
/// `target` belongs, so that a program without privileges can write to it.
pub(super) fn make_volume(path: &Path, target: &str, fill: bool, layers: &[PathBuf]) -> io::Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent)?;
    let new = parent.join(".new");
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    if fill {
        rootfs::copy(layers, target, &new)?;
    } else {
        fs::create_dir(&new)?;
    }
    let like = rootfs::find(layers, target).map(|(_, metadata)| metadata).filter(fs::Metadata::is_dir);
    if let Some(like) = &like {
        chown(&new, Some(like.uid()), Some(like.gid()))?;
    }
    let mode = like.map_or(0o755, |like| like.mode() & 0o7777);
    fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
    match fs::rename(&new, path) {
        // Another task of this board made it in the meantime.
        Err(_) if path.exists() => fs::remove_dir_all(&new),
        renamed => renamed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(network: NetworkMode, asks_agent: bool, hosts: &str, resolv: &str) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let files = dir.path().join("task");
        let dns = DnsConfig { search: vec!["lan".into()], ..DnsConfig::default() };
        let names = Names { hostname: "web", hosts: "10.0.0.9\tdb\n".into(), dns: &dns, asks_agent };
        write_files(&files, &names, network, &root).unwrap();
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/hosts"), "10.0.0.1 berry").unwrap();
        fs::write(root.join("etc/resolv.conf"), "nameserver 127.0.0.1\nsearch home\n").unwrap();
        write_files(&files, &names, network, &root).unwrap();
        let read = |name: &str| fs::read_to_string(files.join(name)).unwrap();
        assert_eq!(
            (read("hostname"), read("hosts"), read("resolv.conf")),
            ("web\n".into(), hosts.into(), resolv.into())
        );
    }

    #[test]
    fn a_task_gets_its_own_files() {
        check(NetworkMode::Host, false, "10.0.0.1 berry\n10.0.0.9\tdb\n", "nameserver 127.0.0.1\nsearch lan\n");
        let own = format!("{}10.0.0.9\tdb\n", resolver::HOSTS);
        check(NetworkMode::None, false, &own, "search lan\n");
        check(NetworkMode::Unset, false, &own, "search lan\n");
        check(NetworkMode::Unset, true, &own, "nameserver 127.0.0.11\nsearch lan\noptions ndots:0\n");
    }

    #[test]
    fn a_volume_is_made_like_the_images_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (layer, path) = (dir.path().join("layer"), dir.path().join("volumes/db/_data"));
        fs::create_dir_all(layer.join("srv")).unwrap();
        fs::write(layer.join("srv/index"), "hello").unwrap();
        fs::set_permissions(layer.join("srv"), fs::Permissions::from_mode(0o2750)).unwrap();
        let source = Source::Volume { path: path.clone(), fill: true };
        let mounts = [Bound { target: "/srv".into(), source, read_only: false }];
        assert_eq!(missing_volumes(&mounts), [(path.clone(), "/srv".to_owned(), true)]);
        let layers = [layer];
        fs::create_dir_all(dir.path().join("volumes/db/.new/half")).unwrap();
        make_volume(&path, "/srv", true, &layers).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o2750);
        assert_eq!(fs::read_to_string(path.join("index")).unwrap(), "hello");
        assert!(!path.join("half").exists());
        assert!(missing_volumes(&mounts).is_empty());
        // Whoever comes second keeps what the first wrote.
        fs::write(path.join("index"), "mine").unwrap();
        make_volume(&path, "/srv", true, &layers).unwrap();
        assert_eq!(fs::read_to_string(path.join("index")).unwrap(), "mine");
        let empty = dir.path().join("volumes/no/_data");
        make_volume(&empty, "/srv", false, &layers).unwrap();
        assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
    }

    #[test]
    fn a_bind_source_must_exist() {
        let propagation = racimo_common::object::Propagation::Rprivate;
        let source = |path: &str| Source::Bind { path: path.into(), propagation, non_recursive: false };
        let bound = |path: &str| [Bound { target: "/x".into(), source: source(path), read_only: true }];
        assert_eq!(check_sources(&bound("/")), Ok(()));
        assert_eq!(check_sources(&bound("/no/such")), Err(BadMount::NoSource("/no/such".into())));
    }
}
