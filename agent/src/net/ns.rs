//! Network namespaces with names: each is a file that the kernel's namespace is mounted on.
//!
//! In: a directory of the agent's `run`. A namespace stays until it is removed here, also without a process in it and
//! without the agent. A file on which nothing is mounted is what a crash, or a restart of the board, left behind: it
//! counts as not there, and making or removing it puts that right.
//!
//! A thread that enters a namespace never leaves it but by ending, so work inside is done on a thread of its own, and
//! the executor's never moves.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::mount::{UnmountFlags, mount_bind, unmount};

use crate::limits::{NAMESPACE_MOUNTS_MAX, NAMESPACE_STACK};
use crate::sys::net::{enter_network, is_namespace, new_network};

/// An open network namespace: it exists as long as this does, removed or not.
#[derive(Debug)]
pub struct Namespace(OwnedFd);

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Namespace {
    /// That of the calling thread.
    pub fn own() -> io::Result<Self> {
        Self::at(Path::new("/proc/thread-self/ns/net"))
    }

    /// That of a process, or any other that has a path.
    pub fn at(path: &Path) -> io::Result<Self> {
        if !is_mounted(path)? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is no namespace", path.display())));
        }
        Ok(Self(File::open(path)?.into()))
    }

    /// Does something inside, on a thread of its own, and waits for it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_a_thread(|| {
            enter_network(self.as_fd())?;
            Ok(work())
        })
    }

    /// Sets kernel parameters inside, in order; the path is that below `/proc/sys`. One that this kernel does not have
    /// is skipped if it may be missing. All are tried; the first failure is the result.
    pub fn set(&self, parameters: &[Parameter<'_>]) -> io::Result<()> {
        self.run(|| parameters.iter().map(Parameter::write).fold(Ok(()), Result::and))?
    }
}

/// A kernel parameter and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// Such as `net/ipv4/ip_forward`.
    pub path: &'a str,
    /// What it shall be.
    pub value: &'a str,
    /// Whether a kernel without it is fine: the feature is not built, or not loaded.
    pub optional: bool,
}

impl Parameter<'_> {
    /// Writes it in the namespace of the calling thread, unless it is so already: a write is told to others.
    fn write(&self) -> io::Result<()> {
        let path = Path::new("/proc/sys").join(self.path);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        match fs::read(&path) {
            Ok(now) if now.trim_ascii() == self.value.as_bytes() => return Ok(()),
            Err(error) if self.optional && error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(named(error)),
        }
        fs::write(&path, self.value).map_err(named)
    }
}

/// The namespaces in one directory.
#[derive(Debug, Clone)]
pub struct Namespaces {
    dir: PathBuf,
}

impl Namespaces {
    /// Those in this directory, which is made when the first one is.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Where the one of this name is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The one of this name; it is made if it is not there.
    pub fn make(&self, name: &str) -> io::Result<Namespace> {
        let path = self.checked(name)?;
        if let Some(present) = self.open(name)? {
            return Ok(present);
        }
        fs::create_dir_all(&self.dir)?;
        // One that a crash left is as good as a new one.
        File::options().write(true).create(true).truncate(false).open(&path)?;
        on_a_thread(|| {
            new_network()?;
            mount_bind("/proc/thread-self/ns/net", &path)?;
            Namespace::own()
        })
    }

    /// The one of this name, if it is there.
    pub fn open(&self, name: &str) -> io::Result<Option<Namespace>> {
        let path = self.checked(name)?;
        match is_mounted(&path) {
            Ok(true) => Namespace::at(&path).map(Some),
            Ok(false) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The names of all, with those of files that a crash left, so that they can be removed.
    pub fn list(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.extend(entry?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Removes the one of this name, if it is there. What is in it goes as soon as no process is inside and nobody has
    /// it open; the kernel does that in the background.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.checked(name)?;
        // Mounted more than once if two made it at the same time.
        for _ in 0..NAMESPACE_MOUNTS_MAX {
            match is_mounted(&path) {
                Ok(true) => unmount(&path, UnmountFlags::DETACH)?,
                Ok(false) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Its path, if the name stays in the directory.
    fn checked(&self, name: &str) -> io::Result<PathBuf> {
        if name.is_empty() || name.starts_with('.') || name.contains('/') || name.contains('\0') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no name of a namespace")));
        }
        Ok(self.path(name))
    }
}

fn is_mounted(path: &Path) -> io::Result<bool> {
    is_namespace(&CString::new(path.as_os_str().as_bytes())?)
}

/// Does something on a thread that ends with it.
fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(NAMESPACE_STACK).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let all = Namespaces::new(dir.path().join("netns"));
        for bad in ["", ".", "..", "../x", "a/b", ".x", "a\0"] {
            assert_eq!(all.make(bad).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{bad:?}");
            assert_eq!(all.remove(bad).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{bad:?}");
        }
        assert!(all.list().unwrap().is_empty() && all.open("x").unwrap().is_none());
        all.remove("x").unwrap();
    }

    #[test]
    fn what_a_crash_left_is_not_there_and_can_be_removed() {
        let dir = tempfile::tempdir().unwrap();
        let all = Namespaces::new(dir.path().to_owned());
        fs::write(all.path("stale"), "").unwrap();
        assert!(all.open("stale").unwrap().is_none());
        assert_eq!(all.list().unwrap(), ["stale"]);
        all.remove("stale").unwrap();
        assert!(all.list().unwrap().is_empty());
        assert!(Namespace::at(dir.path()).is_err());
    }
}
