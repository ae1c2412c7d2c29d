//! A look into a container's root file system without mounting it.
//!
//! In: the overlay mount that containerd prepared. The layers are searched from the top; a symbolic
//! link on the way ends the search, because it would be followed on the board, not in the image.

use std::{
    collections::BTreeSet,
    fs::{self, File, Metadata, Permissions},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink},
    path::{Path, PathBuf},
};

use containerd_client::types::Mount;

use crate::{limits, sys};

/// The directories that `mounts` lays over each other, the topmost first.
pub(super) fn layers(mounts: &[Mount]) -> Vec<PathBuf> {
    let Some(mount) = mounts.first() else { return Vec::new() };
    if mount.r#type == "bind" {
        return vec![PathBuf::from(&mount.source)];
    }
    let option = |name: &str| mount.options.iter().find_map(|option| option.strip_prefix(name));
    let upper = option("upperdir=").into_iter();
    let lower = option("lowerdir=").into_iter().flat_map(|lower| lower.split(':'));
    upper.chain(lower).map(PathBuf::from).collect()
}

/// Finds `path` (absolute inside the image) in the topmost layer that has it.
pub(super) fn find(layers: &[PathBuf], path: &str) -> Option<(PathBuf, Metadata)> {
    layers.iter().find_map(|layer| look(layer, path)).and_then(Result::ok)
}

/// `None`: this layer says nothing about the path. `Some(Err)`: it says that it is not there.
fn look(layer: &Path, path: &str) -> Option<Result<(PathBuf, Metadata), ()>> {
    let mut place = layer.to_path_buf();
    let mut found = None;
    for part in path.split('/').filter(|part| !part.is_empty()) {
        place.push(part);
        let Ok(metadata) = fs::symlink_metadata(&place) else {
            // A directory on the way may hide what is below it in lower layers.
            let parent = place.parent().filter(|_| found.is_some());
            return parent.is_some_and(sys::is_opaque).then_some(Err(()));
        };
        if is_whiteout(&metadata) || metadata.is_symlink() {
            return Some(Err(()));
        }
        found = Some(metadata);
    }
    found.map(|metadata| Ok((place, metadata)))
}

/// The mark by which a layer deletes what a lower one has.
fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

/// Copies what the image has in the directory `path` to the new directory `to`, with owners and
/// permissions. Devices, sockets and pipes are left out.
pub(super) fn copy(layers: &[PathBuf], path: &str, to: &Path) -> io::Result<()> {
    let mut dirs = Vec::new();
    for layer in layers {
        match look(layer, path) {
            None => {}
            Some(Ok((dir, metadata))) if metadata.is_dir() => {
                let hides = sys::is_opaque(&dir);
                dirs.push(dir);
                if hides {
                    break;
                }
            }
            Some(Ok(_) | Err(())) => break,
        }
    }
    merge(&dirs, to, &mut 0)
}

/// Copies what `dirs` show when they lie over each other, the topmost first. `held` counts the
/// names that this and the outer calls have in memory.
fn merge(dirs: &[PathBuf], to: &Path, held: &mut usize) -> io::Result<()> {
    fs::create_dir_all(to)?;
    let Some(top) = dirs.first() else { return Ok(()) };
    let mut names = BTreeSet::new();
    for dir in dirs {
        for entry in fs::read_dir(dir)? {
            names.insert(entry?.file_name());
            if *held + names.len() > limits::FILL_NAMES_MAX {
                return Err(io::Error::other("the image has too many files there to fill a volume: use volume-nocopy"));
            }
        }
    }
    let count = names.len();
    *held += count;
    for name in names {
        let target = to.join(&name);
        let mut below = Vec::new();
        for place in dirs.iter().map(|dir| dir.join(&name)) {
            let Ok(metadata) = fs::symlink_metadata(&place) else { continue };
            if metadata.is_dir() {
                let hides = sys::is_opaque(&place);
                below.push(place);
                if hides {
                    break;
                }
                continue;
            }
            if below.is_empty() {
                copy_one(&place, &metadata, &target)?;
            }
            break;
        }
        if !below.is_empty() {
            merge(&below, &target, held)?;
        }
    }
    *held -= count;
    // Last, because a directory may forbid even its owner to write to it.
    own(to, &fs::symlink_metadata(top)?)
}

fn copy_one(from: &Path, metadata: &Metadata, to: &Path) -> io::Result<()> {
    if metadata.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
        lchown(to, Some(metadata.uid()), Some(metadata.gid()))
    } else if metadata.is_file() {
        let mut copy = File::create_new(to)?;
        io::copy(&mut File::open(from)?, &mut copy)?;
        own(to, metadata)?;
        // A volume must not be half there after a power cut: it is never filled again.
        copy.sync_all()
    } else {
        Ok(())
    }
}

fn own(path: &Path, like: &Metadata) -> io::Result<()> {
    lchown(path, Some(like.uid()), Some(like.gid()))?;
    // After the owner: changing that clears the set-user-id bit.
    fs::set_permissions(path, Permissions::from_mode(like.mode() & 0o7777))
}

/// The text of an image's file; empty if there is none.
pub(super) fn read(layers: &[PathBuf], path: &str) -> io::Result<String> {
    let Some((place, metadata)) = find(layers, path) else { return Ok(String::new()) };
    if !metadata.is_file() || metadata.len() > limits::IMAGE_FILE_MAX {
        let limit = limits::IMAGE_FILE_MAX;
        return Err(io::Error::other(format!("expected a file of at most {limit} bytes")));
    }
    let mut bytes = Vec::new();
    File::open(place)?.take(limits::IMAGE_FILE_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(options: &[&str]) -> Vec<Mount> {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        vec![Mount { r#type: "overlay".into(), source: "overlay".into(), options, ..Mount::default() }]
    }

    #[test]
    fn layers_come_topmost_first() {
        let found = layers(&overlay(&["index=off", "workdir=/w", "upperdir=/u", "lowerdir=/b:/a"]));
        assert_eq!(found, ["/u", "/b", "/a"].map(PathBuf::from));
        let bind = Mount { r#type: "bind".into(), source: "/s".into(), ..Mount::default() };
        assert_eq!(layers(&[bind]), [PathBuf::from("/s")]);
        assert!(layers(&[]).is_empty());
    }

    #[test]
    fn the_topmost_file_wins_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (top, bottom) = (dir.path().join("top"), dir.path().join("bottom"));
        for layer in [&top, &bottom] {
            fs::create_dir_all(layer.join("etc")).unwrap();
        }
        fs::write(bottom.join("etc/passwd"), "old").unwrap();
        fs::write(bottom.join("etc/group"), "group").unwrap();
        fs::write(top.join("etc/passwd"), "new").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", top.join("etc/shadow")).unwrap();
        let layers = [top, bottom];
        assert_eq!(read(&layers, "/etc/passwd").unwrap(), "new");
        assert_eq!(read(&layers, "/etc/group").unwrap(), "group");
        assert_eq!(read(&layers, "/etc/shadow").unwrap(), "");
        assert_eq!(read(&layers, "/etc/none").unwrap(), "");
        assert!(read(&layers, "/etc").is_err());
    }

    #[test]
    fn a_copy_shows_what_the_container_would_see() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let layer = |name: &str| dir.path().join(name);
        let file = |path: PathBuf, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for (place, text) in [
            ("c/db/low", "c"),
            ("c/db/both", "c"),
            ("c/db/sub/old", "c"),
            ("c/db/kind", "c"),
            ("b/db/sub/deep/new", "b"),
            ("a/db/both", "a"),
            ("a/db/kind/inside", "a"),
            ("a/elsewhere", "a"),
        ] {
            file(layer(place), text);
        }
        symlink("/etc/shadow", layer("b/db/link")).unwrap();
        fs::set_permissions(layer("a/db"), Permissions::from_mode(0o500)).unwrap();
        let layers = ["a", "b", "c"].map(layer);
        let list = |to: &Path| -> Vec<String> {
            let found =
                std::process::Command::new("find").args([".", "-mindepth", "1"]).current_dir(to).output().unwrap();
            let mut found: Vec<_> =
                String::from_utf8(found.stdout).unwrap().lines().map(|line| line[2..].to_owned()).collect();
            found.sort();
            found
        };
        copy(&layers, "/db", &layer("all")).unwrap();
        assert_eq!(
            list(&layer("all")),
            ["both", "kind", "kind/inside", "link", "low", "sub", "sub/deep", "sub/deep/new", "sub/old"]
        );
        assert_eq!(fs::read_to_string(layer("all/both")).unwrap(), "a");
        assert_eq!(fs::read_link(layer("all/link")).unwrap(), Path::new("/etc/shadow"));
        assert_eq!(fs::metadata(layer("all")).unwrap().mode() & 0o777, 0o500);
        copy(&layers, "/none", &layer("nothing")).unwrap();
        assert!(list(&layer("nothing")).is_empty());

        // Marks that only root can make.
        let whiteout = std::process::Command::new("mknod").arg(layer("a/db/low")).args(["c", "0", "0"]).output();
        if whiteout.is_ok_and(|output| output.status.success()) && sys::make_opaque(&layer("b/db/sub")) {
            copy(&layers, "/db", &layer("marked")).unwrap();
            assert_eq!(
                list(&layer("marked")),
                ["both", "kind", "kind/inside", "link", "sub", "sub/deep", "sub/deep/new"]
            );
            assert!(find(&layers, "/db/sub/old").is_none());
            assert!(find(&layers, "/db/low").is_none());
        }
    }
}
