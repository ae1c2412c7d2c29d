//! Mounts: from what a service asks for to what the container's spec says.
//!
//! In: the service's mounts, the agent's data directory, the task. Out: [`Bound`]s, sorted so
//! that an outer directory is mounted before one inside it. Touches nothing; the shell makes the
//! volumes and looks whether bind sources exist.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use racimo_common::{
    id::TaskId,
    object::{Mount, MountKind, Propagation},
};
use serde_json::{Value, json};

/// A mount whose source is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Absolute path inside the container, without `.` and `..`.
    pub target: String,
    /// Where it comes from.
    pub source: Source,
    /// Whether the container may not write to it.
    pub read_only: bool,
}

/// Where a mount comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A path of the board that must exist.
    Bind {
        /// The path.
        path: PathBuf,
        /// How later mounts spread.
        propagation: Propagation,
        /// Whether mounts below it are left out.
        non_recursive: bool,
    },
    /// A directory that the agent makes when it is missing.
    Volume {
        /// The directory.
        path: PathBuf,
        /// Whether a new volume is filled from the image.
        fill: bool,
    },
    /// Memory, with its mount options.
    Tmpfs {
        /// Such as `size=1024`.
        options: Vec<String>,
    },
}

/// Why a mount cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMount {
    /// The target is not a place a mount can go.
    #[error("invalid mount target {0:?}: expected an absolute path other than / without \"..\"")]
    Target(String),
    /// Two mounts in one place.
    #[error("duplicate mount target {0:?}")]
    Duplicate(String),
    /// The source is not absolute.
    #[error("invalid bind source {0:?}: expected an absolute path")]
    Source(String),
    /// The source does not exist on this board.
    #[error("invalid mount config for type \"bind\": bind source path does not exist on this board: {0}")]
    NoSource(String),
    /// Not a volume name.
    #[error(
        "invalid volume name {0:?}: expected a letter or digit, then at least one letter, digit, \
         '_', '.' or '-', at most {VOLUME_NAME_MAX} in all"
    )]
    Volume(String),
    /// A network disk that does not answer, most likely.
    #[error("no answer from the disk of a bind mount's source: is it a network disk that is away?")]
    SilentSource,
}

/// Longest volume name, in bytes: it is a directory's name.
const VOLUME_NAME_MAX: usize = 255;

/// Where the volume called `name` keeps its files.
pub fn volume_dir(data: &Path, name: &str) -> PathBuf {
    data.join("volumes").join(name).join("_data")
}

/// Where everything is kept that goes with a task: its files and anonymous volumes.
pub fn task_dir(data: &Path, task: TaskId) -> PathBuf {
    data.join("tasks").join(task.to_string())
}

/// Checks all of a service's mounts and finds their sources.
pub fn plan(mounts: &[Mount], data: &Path, task: TaskId) -> Result<Vec<Bound>, BadMount> {
    let mut targets = BTreeSet::new();
    let mut bound = Vec::with_capacity(mounts.len());
    for (index, mount) in mounts.iter().enumerate() {
        let target = clean(&mount.target).ok_or_else(|| BadMount::Target(mount.target.clone()))?;
        if !targets.insert(target.clone()) {
            return Err(BadMount::Duplicate(target));
        }
        let source = source(&mount.kind, data, task, index)?;
        bound.push(Bound { target, source, read_only: mount.read_only });
    }
    sort(&mut bound);
    Ok(bound)
}

/// Adds the task's secrets and configs, which have targets of their own.
pub fn with_files(mut bound: Vec<Bound>, files: Vec<Bound>) -> Result<Vec<Bound>, BadMount> {
    for file in files {
        if bound.iter().any(|mount| mount.target == file.target) {
            return Err(BadMount::Duplicate(file.target));
        }
        bound.push(file);
    }
    sort(&mut bound);
    Ok(bound)
}

/// Outer directories come before what is inside them.
fn sort(bound: &mut [Bound]) {
    bound.sort_by_cached_key(|mount| (mount.target.matches('/').count(), mount.target.clone()));
}

fn source(kind: &MountKind, data: &Path, task: TaskId, index: usize) -> Result<Source, BadMount> {
    Ok(match kind {
        MountKind::Bind { source, options } => {
            if !source.starts_with('/') {
                return Err(BadMount::Source(source.clone()));
            }
            Source::Bind {
                path: source.into(),
                propagation: options.propagation.unwrap_or(Propagation::Rprivate),
                non_recursive: options.non_recursive,
            }
        }
        MountKind::Volume { source: Some(name), options } => {
            if !is_volume_name(name) {
                return Err(BadMount::Volume(name.clone()));
            }
            Source::Volume { path: volume_dir(data, name), fill: !options.no_copy }
        }
        MountKind::Volume { source: None, options } => {
            let path = task_dir(data, task).join("volumes").join(index.to_string());
            Source::Volume { path, fill: !options.no_copy }
        }
        MountKind::Tmpfs { options } => {
            let mut flags = vec![format!("mode={:o}", options.mode.unwrap_or(0o1777))];
            flags.extend(options.size.map(|size| format!("size={}", size.get())));
            Source::Tmpfs { options: flags }
        }
    })
}

/// The path without empty parts and `.`; none if it is relative, `/`, or has a `..`.
pub(super) fn clean(path: &str) -> Option<String> {
    let rest = path.strip_prefix('/')?;
    let mut cleaned = String::with_capacity(path.len());
    for part in rest.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." || part.contains('\0') {
            return None;
        }
        cleaned.push('/');
        cleaned.push_str(part);
    }
    (!cleaned.is_empty()).then_some(cleaned)
}

fn is_volume_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && (2..=VOLUME_NAME_MAX).contains(&name.len())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

impl Bound {
    /// Whether a directory or file of the board's is bound.
    pub(super) fn is_bind(&self) -> bool {
        match self.source {
            Source::Bind { .. } => true,
            Source::Volume { .. } | Source::Tmpfs { .. } => false,
        }
    }

    /// This mount in the OCI runtime specification's form.
    pub fn to_oci(&self) -> Value {
        let access = if self.read_only { "ro" } else { "rw" };
        match &self.source {
            Source::Bind { path, propagation, non_recursive } => {
                let bind = if *non_recursive { "bind" } else { "rbind" };
                bind_mount(&self.target, path, &[bind, propagation_flag(*propagation), access])
            }
            Source::Volume { path, fill: _ } => bind_mount(&self.target, path, &["rbind", "rprivate", access]),
            Source::Tmpfs { options } => {
                let mut all = vec!["noexec".to_owned(), "nosuid".to_owned(), "nodev".to_owned(), access.to_owned()];
                all.extend_from_slice(options);
                json!({"destination": self.target, "type": "tmpfs", "source": "tmpfs", "options": all})
            }
        }
    }
}

/// A bind mount of `source` at `target`.
pub fn bind_mount(target: &str, source: &Path, options: &[&str]) -> Value {
    json!({"destination": target, "type": "bind", "source": source.to_string_lossy(), "options": options})
}

fn propagation_flag(propagation: Propagation) -> &'static str {
    match propagation {
        Propagation::Private => "private",
        Propagation::Rprivate => "rprivate",
        Propagation::Shared => "shared",
        Propagation::Rshared => "rshared",
        Propagation::Slave => "slave",
        Propagation::Rslave => "rslave",
    }
}

/// The propagation the container's root must have for `mounts` to work; none: the runtime's own.
pub fn root_propagation(mounts: &[Bound]) -> Option<&'static str> {
    mounts
        .iter()
        .filter_map(|mount| match &mount.source {
            Source::Bind { propagation, .. } => Some(*propagation),
            Source::Volume { .. } | Source::Tmpfs { .. } => None,
        })
        .filter_map(|propagation| match propagation {
            Propagation::Shared | Propagation::Rshared => Some("shared"),
            Propagation::Slave | Propagation::Rslave => Some("rslave"),
            Propagation::Private | Propagation::Rprivate => None,
        })
        .max() // "shared" also lets through what "rslave" would
}

#[cfg(test)]
mod tests {
    use racimo_common::{
        id::IdSource,
        object::{BindOptions, TmpfsOptions, VolumeOptions},
        units::Bytes,
    };

    use super::*;

    fn bind(source: &str, target: &str) -> Mount {
        let kind = MountKind::Bind { source: source.into(), options: BindOptions::default() };
        Mount { target: target.into(), read_only: true, kind }
    }

    fn volume(name: Option<&str>, target: &str) -> Mount {
        let kind = MountKind::Volume { source: name.map(Into::into), options: VolumeOptions::default() };
        Mount { target: target.into(), read_only: false, kind }
    }

    fn task() -> TaskId {
        IdSource::seeded(1).draw()
    }

    #[track_caller]
    fn refused(mount: Mount, want: BadMount) {
        assert_eq!(plan(&[mount], Path::new("/data"), task()), Err(want));
    }

    #[test]
    fn bad_mounts_are_refused() {
        for target in ["", "/", "srv", "/srv/../etc", "//./"] {
            refused(bind("/srv", target), BadMount::Target(target.into()));
        }
        refused(bind("srv", "/srv"), BadMount::Source("srv".into()));
        for name in ["", "a", "../x", ".ab", "a/b", "a b"] {
            refused(volume(Some(name), "/srv"), BadMount::Volume(name.into()));
        }
        let twice = [bind("/a", "/srv"), bind("/b", "//srv/")];
        assert_eq!(plan(&twice, Path::new("/data"), task()), Err(BadMount::Duplicate("/srv".into())));
    }

    #[test]
    fn outer_mounts_come_first_and_sources_are_found() {
        let memory = TmpfsOptions { size: Some(Bytes::mib(1)), mode: None };
        let tmpfs = Mount { target: "/tmp".into(), read_only: false, kind: MountKind::Tmpfs { options: memory } };
        let mounts = [volume(None, "/a/b/c"), volume(Some("db"), "/a/b"), bind("/etc/ssl", "/z"), tmpfs];
        let planned: Vec<Value> =
            plan(&mounts, Path::new("/data"), task()).unwrap().iter().map(Bound::to_oci).collect();
        let anonymous = format!("/data/tasks/{}/volumes/0", task());
        assert_eq!(
            planned,
            [
                json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
                       "options": ["noexec", "nosuid", "nodev", "rw", "mode=1777", "size=1048576"]}),
                json!({"destination": "/z", "type": "bind", "source": "/etc/ssl", "options": ["rbind", "rprivate", "ro"]}),
                json!({"destination": "/a/b", "type": "bind", "source": "/data/volumes/db/_data",
                       "options": ["rbind", "rprivate", "rw"]}),
                json!({"destination": "/a/b/c", "type": "bind", "source": anonymous,
                       "options": ["rbind", "rprivate", "rw"]}),
            ]
        );
    }

    #[test]
    fn the_root_lets_shared_mounts_through() {
        let with = |propagation| Bound {
            target: "/m".into(),
            source: Source::Bind { path: "/m".into(), propagation, non_recursive: false },
            read_only: false,
        };
        assert_eq!(root_propagation(&[with(Propagation::Rprivate)]), None);
        assert_eq!(root_propagation(&[with(Propagation::Rslave)]), Some("rslave"));
        assert_eq!(root_propagation(&[with(Propagation::Rslave), with(Propagation::Shared)]), Some("shared"));
    }
}
