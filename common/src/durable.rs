//! Files that are whole after a power cut: how the agent and the manager write what they keep.
//!
//! What was synced is there: of a file its bytes, of a folder its names. Of everything else a power cut leaves any part.
//! So a file is written beside, synced and renamed, and then its folder is synced: before that the old one is there, or
//! none; after it the new one.
//!
//! In builds with debug assertions every step can be recorded, and [`cuts`] makes of it what a power cut may leave.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

#[cfg(debug_assertions)]
pub mod cuts;

#[cfg(debug_assertions)]
use cuts::{Step, done};

/// A file that is being written; only its owner may read it.
#[derive(Debug)]
pub struct File {
    file: fs::File,
    #[cfg(debug_assertions)]
    path: PathBuf,
}

impl File {
    /// Makes a file, or empties it.
    ///
    /// # Errors
    /// The system's.
    pub fn create(path: &Path) -> io::Result<Self> {
        Self::by(OpenOptions::new().truncate(true), path)
    }

    /// Opens a file, with what it has, for reading too, or makes it.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::by(OpenOptions::new().read(true), path)
    }

    fn by(options: &mut OpenOptions, path: &Path) -> io::Result<Self> {
        let file = options.write(true).create(true).mode(0o600).open(path)?;
        #[cfg(debug_assertions)]
        done(path, || Step::Open { truncated: file.metadata().is_ok_and(|about| about.len() == 0) });
        Ok(Self {
            file,
            #[cfg(debug_assertions)]
            path: path.to_owned(),
        })
    }

    /// Goes on reading or writing there.
    ///
    /// # Errors
    /// The system's.
    pub fn seek(&mut self, offset: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(offset)).map(drop)
    }

    /// Writes all of it there.
    ///
    /// # Errors
    /// The system's; a part of it may be written.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)?;
        #[cfg(debug_assertions)]
        done(&self.path, || Step::Write { offset, bytes: bytes.to_vec() });
        Ok(())
    }

    /// Fills `into` from there.
    ///
    /// # Errors
    /// The system's, or it ends before.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    /// Its bytes.
    ///
    /// # Errors
    /// The system's.
    pub fn size(&self) -> io::Result<u64> {
        self.file.metadata().map(|about| about.len())
    }

    /// Waits until the disk has its bytes.
    ///
    /// # Errors
    /// The system's: then nobody knows what the disk has.
    pub fn sync(&self) -> io::Result<()> {
        // Its times need not be there; a changed size is.
        self.file.sync_data()?;
        #[cfg(debug_assertions)]
        done(&self.path, || Step::Sync);
        Ok(())
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        #[cfg(debug_assertions)]
        let offset = self.file.stream_position()?;
        let count = self.file.write(bytes)?;
        #[cfg(debug_assertions)]
        done(&self.path, || Step::Write { offset, bytes: bytes[..count].to_vec() });
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes a folder that only its owner may enter, and those above it; all of them are there for good.
///
/// # Errors
/// The system's.
pub fn make_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = folder(path);
    make_dir(above)?;
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    #[cfg(debug_assertions)]
    done(path, || Step::MakeDir);
    sync_dir(above)
}

/// Writes a file, or another in its place: there is the old one or the new one, and at the end the new one for good.
///
/// # Errors
/// The system's: which of them is there is not known.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = beside(path);
    write(&new, bytes)?;
    rename(&new, path)?;
    sync_dir(folder(path))
}

/// Where [`replace`] writes first; a power cut may leave it there.
pub fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Writes a file whose name and earlier bytes do not matter, and waits until the disk has its bytes.
///
/// # Errors
/// The system's.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync()
}

/// Renames within a folder; for good once that is synced.
///
/// # Errors
/// The system's.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    #[cfg(debug_assertions)]
    done(from, || Step::Rename { to: to.file_name().unwrap_or_default().to_owned() });
    Ok(())
}

/// Removes a file; whether it was there. For good once its folder is synced.
///
/// # Errors
/// The system's.
pub fn remove(path: &Path) -> io::Result<bool> {
    if !is_there(fs::remove_file(path))? {
        return Ok(false);
    }
    #[cfg(debug_assertions)]
    done(path, || Step::Remove);
    Ok(true)
}

/// Removes a folder with all that is in it; whether it was there. A power cut may leave any part of it, so it must not
/// have a name by which it counts.
///
/// # Errors
/// The system's.
pub fn remove_dir(path: &Path) -> io::Result<bool> {
    #[cfg(debug_assertions)]
    cuts::remove_all(path);
    is_there(fs::remove_dir_all(path))
}

/// Waits until the disk has a folder's names.
///
/// # Errors
/// The system's.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()?;
    #[cfg(debug_assertions)]
    done(path, || Step::Sync);
    Ok(())
}

/// Whether there was something to remove or rename.
///
/// # Errors
/// Any other.
pub fn is_there(done: io::Result<()>) -> io::Result<bool> {
    match done {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|above| *above != Path::new("")).unwrap_or(Path::new("."))
}
