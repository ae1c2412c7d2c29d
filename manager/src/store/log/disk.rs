//! What the log asks of a disk: one flat directory of files that can be made durable.
//!
//! Nothing is durable before [`File::sync`] (contents) and [`Disk::sync_dir`] (names) have
//! returned; [`super::fake`] takes that literally.

use std::fs;
use std::io;
use std::path::PathBuf;

use racimo_common::durable;

/// One open file of a [`Disk`].
pub trait File: Send {
    /// Size in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Fills `into` from byte `offset`; an error if the file ends before.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` at byte `offset`, growing the file if needed.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes all earlier writes of this file durable.
    ///
    /// After an error nobody knows what is durable, and a second try may lie: the kernel has
    /// forgotten what it could not write.
    fn sync(&mut self) -> io::Result<()>;
}

/// One flat directory.
pub trait Disk: Send {
    /// A file of this disk.
    type File: File;
    /// Opens `name` for reading and writing, creating it if it is missing.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Names of all files, sorted.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Renames `from` to `to`, replacing `to`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes `name`.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// Where `name` is, for messages to people.
    fn locate(&self, name: &str) -> String;
}

/// Whether `error` only says that there is no room left.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A directory of the operating system, locked for this process.
pub struct RealDisk {
    dir: PathBuf,
    /// It carries the lock, which ends with the process.
    _locked: fs::File,
}

impl RealDisk {
    /// Opens `dir`, creating it (mode 0700) if it is missing, and locks it.
    ///
    /// # Errors
    /// `WouldBlock` if another process has it open as a `RealDisk`; else what the system said.
    pub fn new(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        durable::make_dir(&dir)?;
        // A new directory must itself survive a power loss.
        if let Some(parent) = dir.parent().filter(|parent| *parent != "") {
            durable::sync_dir(parent)?;
        }
        let handle = fs::File::open(&dir)?;
        let lock = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        rustix::fs::flock(&handle, lock).map_err(|error| match io::Error::from(error) {
            error if error.kind() == io::ErrorKind::WouldBlock => {
                let text = format!("{} is in use by another process", dir.display());
                io::Error::new(error.kind(), text)
            }
            error => error,
        })?;
        Ok(RealDisk { dir, _locked: handle })
    }
}

impl Disk for RealDisk {
    type File = RealFile;

    fn open(&self, name: &str) -> io::Result<RealFile> {
        durable::File::open(&self.dir.join(name)).map(RealFile)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            // A name that is not UTF-8 is not ours.
            names.extend(entry?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        durable::rename(&self.dir.join(from), &self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match durable::remove(&self.dir.join(name))? {
            true => Ok(()),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn sync_dir(&self) -> io::Result<()> {
        durable::sync_dir(&self.dir)
    }

    fn locate(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }
}

/// A file of a [`RealDisk`].
pub struct RealFile(durable::File);

impl File for RealFile {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, into)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_and_directory_are_private_and_the_directory_has_one_owner() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("a/log");
        let disk = RealDisk::new(&dir).unwrap();
        disk.open("x").unwrap().write_at(0, b"1").unwrap();
        let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&dir.join("x")), 0o600);

        let second = RealDisk::new(&dir).err().unwrap();
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
        drop(disk);
        assert_eq!(RealDisk::new(&dir).unwrap().list().unwrap(), ["x"]);
    }
}
