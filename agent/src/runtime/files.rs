//! Files and directories of the board that containers see: `hostname`, `hosts`, `resolv.conf`,
//! and volumes.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use racimo_common::object::NetworkMode;

use super::{
    mount::{BadMount, Bound, Source},
    rootfs,
};

const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

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

/// Writes a task's three files below `dir`. On the board's network they are copies of the
/// board's, below `root`: a container may write to its own, never to the board's.
pub(super) fn write_files(dir: &Path, hostname: &str, network: NetworkMode, root: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::write(dir.join("hostname"), format!("{hostname}\n"))?;
    match network {
        NetworkMode::Host => {
            for name in ["hosts", "resolv.conf"] {
                let (from, to) = (root.join("etc").join(name), dir.join(name));
                match fs::copy(from, &to) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => fs::write(to, "")?,
                    copied => drop(copied?),
                }
            }
        }
        NetworkMode::None | NetworkMode::Unset => {
            fs::write(dir.join("hosts"), HOSTS)?;
            fs::write(dir.join("resolv.conf"), "")?;
        }
    }
    // Whatever the agent's umask is: a container's user must be able to read them.
    for name in ["hostname", "hosts", "resolv.conf"] {
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

/// Makes the volumes that are missing. A new one belongs to whom the image's directory at its
/// target belongs, so that a program without privileges can write to it.
pub(super) fn make_volumes(mounts: &[Bound], layers: &[PathBuf]) -> io::Result<()> {
    for mount in mounts {
        let path = match &mount.source {
            Source::Volume { path, fill: _ } if !path.exists() => path,
            Source::Bind { .. } | Source::Volume { .. } | Source::Tmpfs { .. } => continue,
        };
        fs::create_dir_all(path)?;
        let like = rootfs::find(layers, &mount.target).map(|(_, metadata)| metadata);
        if let Some(like) = like.filter(fs::Metadata::is_dir) {
            chown(path, Some(like.uid()), Some(like.gid()))?;
            fs::set_permissions(path, fs::Permissions::from_mode(like.mode() & 0o7777))?;
        } else {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(network: NetworkMode, hosts: &str, resolv: &str) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/hosts"), "10.0.0.1 berry\n").unwrap();
        let files = dir.path().join("task");
        write_files(&files, "web", network, &root).unwrap();
        write_files(&files, "web", network, &root).unwrap();
        let read = |name: &str| fs::read_to_string(files.join(name)).unwrap();
        assert_eq!(
            (read("hostname"), read("hosts"), read("resolv.conf")),
            ("web\n".into(), hosts.into(), resolv.into())
        );
    }

    #[test]
    fn a_task_gets_its_own_files() {
        check(NetworkMode::Host, "10.0.0.1 berry\n", "");
        check(NetworkMode::None, HOSTS, "");
        check(NetworkMode::Unset, HOSTS, "");
    }

    #[test]
    fn volumes_are_made_once_like_the_images_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (layer, path) = (dir.path().join("layer"), dir.path().join("volumes/db/_data"));
        fs::create_dir_all(layer.join("srv")).unwrap();
        fs::set_permissions(layer.join("srv"), fs::Permissions::from_mode(0o2750)).unwrap();
        let source = Source::Volume { path: path.clone(), fill: true };
        let mounts = [Bound { target: "/srv".into(), source, read_only: false }];
        make_volumes(&mounts, std::slice::from_ref(&layer)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o2750);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        make_volumes(&mounts, &[layer]).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
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
