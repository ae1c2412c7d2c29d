//! A look into a container's root file system without mounting it.
//!
//! In: the overlay mount that containerd prepared. The layers are searched from the top; a symbolic
//! link on the way ends the search, because it would be followed on the board, not in the image.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use containerd_client::types::Mount;

use crate::limits;

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
        let metadata = fs::symlink_metadata(&place).ok()?;
        let kind = metadata.file_type();
        let whiteout = kind.is_char_device() && metadata.rdev() == 0;
        if whiteout || kind.is_symlink() {
            return Some(Err(()));
        }
        found = Some(metadata);
    }
    found.map(|metadata| Ok((place, metadata)))
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
}
