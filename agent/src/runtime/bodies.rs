//! Contents of secrets and configs, in memory only: a file system of our own that is never written to a disk.
//!
//! ```text
//! <run>/secrets/                 tmpfs, 0700, noswap where the kernel can
//!   body/<id>[-<task>]           a content as the manager sent it, for as long as a task names it
//!   task/<task>/<n>              a task's copy, with its owner and mode; bound read-only into its container
//! ```
//! Parts are written as they come, so that no content is ever whole on the agent's small heap. A content that is sent
//! again replaces the old one when it is whole. The copies outlive the agent, like the containers they belong to.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use racimo_common::id::TaskId;
use racimo_common::limits::BODY_BYTES_MAX;
use racimo_common::object::Propagation;
use racimo_common::wire::{BodyKey, BodyPart, File as WireFile};
use rustix::mount::{MountFlags, mount};

use super::mount::{Bound, Source, clean};
use crate::limits::{BODIES_BYTES_MAX, BODIES_FILES_MAX, BODIES_MAX};

/// What statfs(2) says of a tmpfs.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// The contents this board has.
#[derive(Debug)]
pub struct Bodies {
    dir: PathBuf,
    /// Whether the file system was seen to be there.
    ready: Cell<bool>,
    have: RefCell<BTreeMap<BodyKey, Have>>,
    /// Whether contents were not kept since the last new one that was: there were too many.
    full: Cell<bool>,
}

/// How far a content is.
#[derive(Debug, Default)]
struct Have {
    whole: bool,
    /// Bytes in all and so far of the one that is coming.
    coming: Option<(u32, u32)>,
    /// Why it could not be kept.
    lost: Option<String>,
}

/// A part that makes no sense: the session is opened anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPart {
    /// More than any secret or config has.
    #[error("a content of {0} bytes is too large")]
    Large(u32),
    /// It does not follow the part before it.
    #[error("a part of a content is missing")]
    Gap,
}

/// Why a task's files cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum NoFile {
    /// Its content is not here.
    #[error("the content of {0} did not come with the task")]
    Missing(String),
    /// Its content was not kept.
    #[error("the content of {target} could not be kept in memory: {reason}")]
    Lost {
        /// The file.
        target: String,
        /// Why.
        reason: String,
    },
    /// It cannot be there.
    #[error("{0} is no place for a file")]
    Place(String),
    /// It cannot be written.
    #[error("make {target} in memory")]
    Io {
        /// The file.
        target: String,
        /// Why.
        source: io::Error,
    },
}

impl Bodies {
    /// Below the agent's run directory. Nothing is made before the first content comes.
    pub fn new(run: &Path) -> Self {
        Self { dir: run.join("secrets"), ready: Cell::new(false), have: RefCell::default(), full: Cell::new(false) }
    }

    /// In a plain directory.
    #[cfg(test)]
    pub(crate) fn plain(dir: &Path) -> Self {
        let bodies =
            Self { dir: dir.to_owned(), ready: Cell::new(true), have: RefCell::default(), full: Cell::new(false) };
        fs::create_dir_all(dir.join("body")).expect("a directory");
        fs::create_dir_all(dir.join("task")).expect("a directory");
        bodies
    }

    /// Whether a whole content is here.
    pub fn has(&self, key: BodyKey) -> bool {
        self.have.borrow().get(&key).is_some_and(|have| have.whole)
    }

    /// The file that a whole content is in.
    pub fn place_of(&self, key: BodyKey) -> PathBuf {
        self.body(key)
    }

    fn body(&self, key: BodyKey) -> PathBuf {
        let task = key.task.map(|task| format!("-{task}")).unwrap_or_default();
        self.dir.join("body").join(format!("{}{task}", key.id))
    }

    fn task(&self, task: TaskId) -> PathBuf {
        self.dir.join("task").join(task.to_string())
    }

    /// Takes a part of a content. One that cannot be kept hurts only the tasks that need it.
    ///
    /// # Errors
    /// The manager does not keep to the protocol.
    pub fn take(&self, part: &BodyPart) -> Result<(), BadPart> {
        let length = u32::try_from(part.bytes.len()).unwrap_or(u32::MAX);
        let end = part.offset.saturating_add(length);
        if usize::try_from(part.total).unwrap_or(usize::MAX) > BODY_BYTES_MAX || end > part.total {
            return Err(BadPart::Large(part.total.max(end)));
        }
        let mut have = self.have.borrow_mut();
        if have.len() >= BODIES_MAX && !have.contains_key(&part.key) {
            if !self.full.replace(true) {
                log::warn!("there are {BODIES_MAX} secrets and configs: further ones are not kept");
            }
            return Ok(());
        }
        let entry = have.entry(part.key).or_default();
        if part.offset == 0 {
            (entry.coming, entry.lost) = (Some((part.total, 0)), None);
        }
        let follows = entry.coming.is_some_and(|(total, got)| total == part.total && got == part.offset);
        if !follows {
            return Err(BadPart::Gap);
        }
        entry.coming = Some((part.total, end));
        self.full.set(self.full.get() && entry.whole);
        if entry.lost.is_none() {
            if let Err(error) = self.write(part, end == part.total) {
                log::warn!("a content could not be kept in memory: {error}");
                // What came of it is room for others.
                remove(&self.body(part.key).with_extension("new"));
                entry.lost = Some(error.to_string());
            }
        }
        if end == part.total {
            entry.coming = None;
            // One that came again and found no room: the old one is the same, a key's content never changes.
            entry.whole |= entry.lost.is_none();
        }
        Ok(())
    }

    fn write(&self, part: &BodyPart, last: bool) -> io::Result<()> {
        self.ensure()?;
        let path = self.body(part.key);
        let new = path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(part.offset == 0).mode(0o600).open(&new)?;
        file.seek(SeekFrom::Start(part.offset.into()))?;
        file.write_all(&part.bytes)?;
        if last { fs::rename(new, path) } else { Ok(()) }
    }

    /// Makes sure of the file system. An earlier agent may have left it.
    fn ensure(&self) -> io::Result<()> {
        if self.ready.get() {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        if !is_tmpfs(&self.dir)? {
            let size = format!("mode=0700,size={BODIES_BYTES_MAX},nr_inodes={BODIES_FILES_MAX}");
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            let with = |options: String| {
                let options = CString::new(options)?;
                mount("racimo", &self.dir, "tmpfs", flags, options.as_c_str()).map_err(io::Error::from)
            };
            // Kernels before 6.4 do not know it.
            if with(format!("{size},noswap")).is_err() {
                with(size)?;
                log::info!("this kernel may swap secrets out: it is older than 6.4");
            }
        }
        for name in ["body", "task"] {
            DirBuilder::new().recursive(true).mode(0o700).create(self.dir.join(name))?;
        }
        self.ready.set(true);
        Ok(())
    }

    /// Forgets every content that is not named.
    pub fn keep(&self, named: &BTreeSet<BodyKey>) {
        self.have.borrow_mut().retain(|key, _| {
            let stays = named.contains(key);
            if !stays {
                remove(&self.body(*key));
                remove(&self.body(*key).with_extension("new"));
            }
            stays
        });
    }

    /// Makes a task's files from the contents; the mounts that bring them into its container. May be repeated.
    ///
    /// # Errors
    /// Not all are here; the container must not start.
    pub fn place(&self, task: TaskId, files: &[WireFile]) -> Result<Vec<Bound>, NoFile> {
        let mut bound = Vec::with_capacity(files.len());
        for (number, file) in files.iter().enumerate() {
            let target = clean(&file.target).ok_or_else(|| NoFile::Place(file.target.clone()))?;
            match self.have.borrow().get(&file.body) {
                Some(have) if have.whole => {}
                Some(Have { lost: Some(reason), .. }) => {
                    return Err(NoFile::Lost { target, reason: reason.clone() });
                }
                None if self.full.get() => {
                    let reason = format!("there are {BODIES_MAX} secrets and configs already");
                    return Err(NoFile::Lost { target, reason });
                }
                Some(_) | None => return Err(NoFile::Missing(target)),
            }
            let path = self.task(task).join(number.to_string());
            self.copy(task, file, &path).map_err(|source| NoFile::Io { target: target.clone(), source })?;
            let source = Source::Bind { path, propagation: Propagation::Rprivate, non_recursive: false };
            bound.push(Bound { target, source, read_only: true });
        }
        Ok(bound)
    }

    fn copy(&self, task: TaskId, file: &WireFile, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(self.task(task))?;
        remove(path);
        let mut from = File::open(self.body(file.body))?;
        let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        io::copy(&mut from, &mut to)?;
        chown(path, Some(file.uid), Some(file.gid))?;
        // After the owner, which takes the set-user-id bits away.
        fs::set_permissions(path, Permissions::from_mode(file.mode & 0o7777))
    }

    /// Removes a task's files.
    pub fn remove(&self, task: TaskId) {
        match fs::remove_dir_all(self.task(task)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                log::warn!("task {task}: remove its secrets: {error}");
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// Removes what an earlier agent left and nobody needs: contents, and files of tasks that are not `there`.
    pub fn clean(&self, there: &BTreeSet<TaskId>) {
        if !is_tmpfs(&self.dir).unwrap_or(false) {
            return;
        }
        let names = |what: &str| {
            let entries = fs::read_dir(self.dir.join(what)).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let have: BTreeSet<PathBuf> = self.have.borrow().keys().map(|key| self.body(*key)).collect();
        for path in names("body") {
            if !have.contains(&path.with_extension("")) {
                remove(&path);
            }
        }
        let task = |path: &Path| path.file_name()?.to_str()?.parse::<TaskId>().ok();
        for task in names("task").iter().filter_map(|path| task(path)).filter(|task| !there.contains(task)) {
            self.remove(task);
        }
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => log::warn!("remove a content: {error}"),
        Ok(()) | Err(_) => {}
    }
}

/// Whether a tmpfs of its own is mounted there.
fn is_tmpfs(dir: &Path) -> io::Result<bool> {
    let Some(parent) = dir.parent() else { return Ok(false) };
    let own = fs::metadata(dir)?.dev() != fs::metadata(parent)?.dev();
    #[allow(clippy::useless_conversion, reason = "the kernel's word is shorter on 32-bit boards")]
    Ok(own && i64::from(rustix::fs::statfs(dir)?.f_type) == TMPFS_MAGIC)
}

#[cfg(test)]
mod tests {
    use racimo_common::id::{DependencyId, RandomId};

    use super::*;

    fn bodies(dir: &Path) -> Bodies {
        Bodies::plain(dir)
    }

    fn key(number: u128) -> BodyKey {
        BodyKey { id: DependencyId::from_bits(number), task: None }
    }

    fn part(number: u128, total: u32, offset: u32, bytes: &[u8]) -> BodyPart {
        BodyPart { key: key(number), total, offset, bytes: bytes.to_vec() }
    }

    fn file(number: u128, target: &str) -> WireFile {
        WireFile { body: key(number), target: target.into(), uid: 1, gid: 2, mode: 0o440 }
    }

    fn task(number: u128) -> TaskId {
        TaskId::from_bits(number)
    }

    fn read(bound: &Bound) -> String {
        let Source::Bind { path, .. } = &bound.source else { panic!("{bound:?}") };
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn contents_come_in_parts_and_go_when_nobody_names_them() {
        let dir = tempfile::tempdir().unwrap();
        let bodies = bodies(dir.path());
        bodies.take(&part(1, 5, 0, b"abc")).unwrap();
        let missing = bodies.place(task(7), &[file(1, "/run/secrets/a")]).unwrap_err();
        assert_eq!(missing.to_string(), "the content of /run/secrets/a did not come with the task");
        bodies.take(&part(1, 5, 3, b"de")).unwrap();
        bodies.take(&part(2, 0, 0, b"")).unwrap();
        let bound = bodies.place(task(7), &[file(1, "/run/secrets/a"), file(2, "/etc//b")]).unwrap();
        assert_eq!((read(&bound[0]), read(&bound[1])), ("abcde".into(), String::new()));
        assert_eq!((bound[1].target.as_str(), bound[1].read_only), ("/etc/b", true));
        let meta = fs::metadata(dir.path().join(format!("task/{}/0", task(7)))).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o440, 1, 2));
        // The same again: the old one serves until the new one is whole.
        bodies.take(&part(1, 5, 0, b"xyz")).unwrap();
        assert_eq!(read(&bodies.place(task(7), &[file(1, "/a")]).unwrap()[0]), "abcde");
        bodies.take(&part(1, 5, 3, b"!!")).unwrap();
        assert_eq!(read(&bodies.place(task(7), &[file(1, "/a")]).unwrap()[0]), "xyz!!");
        bodies.keep(&[key(2)].into());
        assert!(bodies.place(task(7), &[file(1, "/a")]).is_err());
        assert_eq!(fs::read_dir(dir.path().join("body")).unwrap().count(), 1);
        bodies.remove(task(7));
        bodies.remove(task(7));
        assert_eq!(fs::read_dir(dir.path().join("task")).unwrap().count(), 0);
    }

    #[test]
    fn parts_that_make_no_sense_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let bodies = bodies(dir.path());
        let large = u32::try_from(BODY_BYTES_MAX).unwrap() + 1;
        assert_eq!(bodies.take(&part(1, large, 0, b"a")), Err(BadPart::Large(large)));
        assert_eq!(bodies.take(&part(1, 2, 0, b"abc")), Err(BadPart::Large(3)));
        assert_eq!(bodies.take(&part(1, 5, u32::MAX, b"abc")), Err(BadPart::Large(u32::MAX)));
        assert_eq!(bodies.take(&part(1, 5, 3, b"a")), Err(BadPart::Gap));
        bodies.take(&part(1, 5, 0, b"a")).unwrap();
        assert_eq!(bodies.take(&part(1, 6, 1, b"a")), Err(BadPart::Gap));
        assert_eq!(bodies.take(&part(1, 5, 2, b"a")), Err(BadPart::Gap));
        bodies.take(&part(2, 0, 0, b"")).unwrap();
        let outside = bodies.place(task(1), &[file(2, "/run/../etc")]).unwrap_err();
        assert_eq!(outside.to_string(), "/run/../etc is no place for a file");
    }

    #[test]
    fn one_too_many_hurts_only_the_task_that_needs_it() {
        let dir = tempfile::tempdir().unwrap();
        let bodies = bodies(dir.path());
        for number in 1..=BODIES_MAX {
            bodies.take(&part(u128::try_from(number).unwrap(), 1, 0, b"x")).unwrap();
        }
        // In parts: none of them ends the session.
        bodies.take(&part(9999, 2, 0, b"a")).unwrap();
        bodies.take(&part(9999, 2, 1, b"b")).unwrap();
        let lost = bodies.place(task(1), &[file(9999, "/a")]).unwrap_err().to_string();
        let want = format!(
            "the content of /a could not be kept in memory: there are {BODIES_MAX} secrets and configs already"
        );
        assert_eq!(lost, want);
        assert_eq!(read(&bodies.place(task(2), &[file(1, "/a")]).unwrap()[0]), "x");
        // One that is there is brought up to date; and when others went, it is taken.
        bodies.take(&part(1, 1, 0, b"y")).unwrap();
        bodies.keep(&[key(1)].into());
        bodies.take(&part(9999, 1, 0, b"z")).unwrap();
        let bound = bodies.place(task(1), &[file(9999, "/a"), file(1, "/b")]).unwrap();
        assert_eq!((read(&bound[0]), read(&bound[1])), ("z".into(), "y".into()));
        let missing = bodies.place(task(1), &[file(8, "/a")]).unwrap_err().to_string();
        assert_eq!(missing, "the content of /a did not come with the task");
    }

    #[test]
    fn what_cannot_be_kept_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let bodies = bodies(dir.path());
        fs::remove_dir_all(dir.path().join("body")).unwrap();
        bodies.take(&part(1, 3, 0, b"abc")).unwrap();
        let lost = bodies.place(task(1), &[file(1, "/a")]).unwrap_err().to_string();
        assert!(lost.starts_with("the content of /a could not be kept in memory: No such file"), "{lost}");
        // One that is here stays, although it could not be written again.
        fs::create_dir(dir.path().join("body")).unwrap();
        bodies.take(&part(1, 3, 0, b"abc")).unwrap();
        let blocked = dir.path().join("body").join(key(1).id.to_string()).with_extension("new");
        fs::create_dir(&blocked).unwrap();
        bodies.take(&part(1, 3, 0, b"abc")).unwrap();
        assert_eq!(read(&bodies.place(task(1), &[file(1, "/a")]).unwrap()[0]), "abc");
    }

    /// As root: the real file system, and an agent that comes after another.
    #[test]
    fn a_file_system_in_memory_of_our_own() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let run = tempfile::tempdir().unwrap();
        let first = Bodies::new(run.path());
        first.take(&part(1, 1, 0, b"a")).unwrap();
        first.place(task(1), &[file(1, "/a")]).unwrap();
        first.place(task(2), &[file(1, "/a")]).unwrap();
        let dir = run.path().join("secrets");
        assert!(is_tmpfs(&dir).unwrap());
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o7777, 0o700);
        let second = Bodies::new(run.path());
        second.take(&part(2, 1, 0, b"b")).unwrap();
        second.clean(&[task(2)].into());
        let count = |what: &str| fs::read_dir(dir.join(what)).unwrap().count();
        assert_eq!((count("body"), count("task")), (1, 1));
        assert_eq!(read(&second.place(task(3), &[file(2, "/b")]).unwrap()[0]), "b");
        // When it is full, only the tasks that need more are hurt; what came in part takes no room.
        let chunk = vec![b'x'; 1 << 19];
        for number in 10..45 {
            second.take(&part(number, 1 << 20, 0, &chunk)).unwrap();
            second.take(&part(number, 1 << 20, 1 << 19, &chunk)).unwrap();
        }
        let full = second.place(task(4), &[file(44, "/x")]).unwrap_err().to_string();
        assert!(full.starts_with("the content of /x could not be kept in memory: No space left"), "{full}");
        let full = second.place(task(4), &[file(10, "/x")]).unwrap_err().to_string();
        assert_eq!(full, "make /x in memory");
        second.remove(task(4));
        assert!(fs::read_dir(dir.join("body")).unwrap().flatten().all(|entry| entry.path().extension().is_none()));
        assert_eq!(read(&second.place(task(5), &[file(2, "/b")]).unwrap()[0]), "b");
        rustix::mount::unmount(&dir, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}
