//! The audit file: who changed what, one line each.
//!
//! `<data>/manager/audit.log`, 0600, tab between the fields: time, who, method, path, status, name of the object. No
//! bodies, no query. When it is full it becomes `audit.log.1` and a new one begins. A disk that takes nothing loses
//! lines (a later line says how many), never a request.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use racimo_common::time::Wall;

use crate::limits::{AUDIT_FILE_BYTES_MAX, AUDIT_NAME_CHARS_MAX, AUDIT_PATH_CHARS_MAX, AUDIT_REFUSED_MAX};

const FILE: &str = "audit.log";
const FILE_BEFORE: &str = "audit.log.1";
/// Over how long refusals are counted.
const REFUSED_PER: Duration = Duration::from_secs(60);

/// One request, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When it was answered.
    pub at: Wall,
    /// Who asked.
    pub who: String,
    /// Its method.
    pub method: String,
    /// Its path, without the query.
    pub path: String,
    /// What it was answered with.
    pub status: u16,
    /// What it was about, if it says so.
    pub name: String,
    /// Whether the role was not enough for it.
    pub refused: bool,
}

impl Entry {
    fn line(&self) -> String {
        let who = plain(&self.who, AUDIT_NAME_CHARS_MAX);
        let path = plain(&self.path, AUDIT_PATH_CHARS_MAX);
        let name = if self.name.is_empty() { "-" } else { &self.name };
        let name = plain(name, AUDIT_NAME_CHARS_MAX);
        format!("{}\t{who}\t{}\t{path}\t{}\t{name}\n", stamp(self.at), plain(&self.method, 16), self.status)
    }
}

fn stamp(at: Wall) -> String {
    String::from_utf8_lossy(&at.rfc3339()).into_owned()
}

/// On one line, with nothing that a terminal obeys, and not longer than this.
fn plain(text: &str, chars_max: usize) -> String {
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == chars_max {
            out.push('…');
            break;
        }
        match c {
            '"' | '\'' => out.push(c),
            c => out.extend(c.escape_debug()),
        }
    }
    out
}

/// The file; clones share it.
#[derive(Clone)]
pub struct Audit(Arc<Mutex<Book>>);

struct Book {
    /// None: nothing is kept.
    directory: Option<PathBuf>,
    file: Option<(File, u64)>,
    /// Lines that were lost since the last one that was written.
    lost: u64,
    /// Refusals since when, how many, and how many of them were not written.
    refused: (Wall, u32, u64),
}

impl Audit {
    /// Keeps nothing.
    pub fn off() -> Self {
        Self::of(None)
    }

    /// Keeps lines in that directory, which is made if it is not there.
    pub fn open(directory: PathBuf) -> Self {
        Self::of(Some(directory))
    }

    fn of(directory: Option<PathBuf>) -> Self {
        Self(Arc::new(Mutex::new(Book { directory, file: None, lost: 0, refused: (Wall::default(), 0, 0) })))
    }

    /// Keeps an entry. Not on the caller's thread: disks may be slow.
    pub async fn keep(&self, entry: Entry) {
        let book = self.0.clone();
        smol::unblock(move || book.lock().unwrap_or_else(PoisonError::into_inner).keep(&entry)).await;
    }

    /// The last lines, the oldest first.
    ///
    /// # Errors
    /// The files cannot be read.
    pub async fn last(&self, lines: usize) -> io::Result<String> {
        let book = self.0.clone();
        smol::unblock(move || book.lock().unwrap_or_else(PoisonError::into_inner).last(lines)).await
    }
}

impl Book {
    fn keep(&mut self, entry: &Entry) {
        if self.directory.is_none() {
            return;
        }
        let mut text = String::new();
        let note = |text: &mut String, what: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}\tracimo\t-\t-\t-\t{what}", stamp(entry.at));
        };
        let (since, count, unwritten) = self.refused;
        let is_over = entry.at.since(since) >= REFUSED_PER || since > entry.at;
        if is_over && count > 0 {
            if unwritten > 0 {
                note(&mut text, format!("{unwritten} more requests were refused"));
            }
            self.refused = (entry.at, 0, 0);
        }
        let mut is_kept = true;
        if entry.refused {
            // Who may do nothing shall not push out what others did.
            let (since, count, unwritten) = self.refused;
            let since = if count == 0 { entry.at } else { since };
            is_kept = count < AUDIT_REFUSED_MAX;
            self.refused = (since, count.saturating_add(1), unwritten + u64::from(!is_kept));
        }
        if is_kept {
            text += &entry.line();
        }
        if text.is_empty() {
            return;
        }
        if self.lost > 0 {
            let mut before = String::new();
            note(&mut before, format!("{} lines are missing here: they could not be written", self.lost));
            text.insert_str(0, &before);
        }
        match self.write(&text) {
            Ok(()) if self.lost > 0 => {
                log::info!("the audit file is written again; {} lines are missing", self.lost);
                self.lost = 0;
            }
            Ok(()) => {}
            Err(error) => {
                if self.lost == 0 {
                    log::error!("the audit file cannot be written, requests are served all the same: {error}");
                }
                self.lost += 1;
            }
        }
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let (mut file, mut bytes) = match self.file.take() {
            Some(open) => open,
            None => open(directory)?,
        };
        if bytes > 0 && bytes + text.len() as u64 > AUDIT_FILE_BYTES_MAX {
            drop(file);
            fs::rename(directory.join(FILE), directory.join(FILE_BEFORE))?;
            (file, bytes) = open(directory)?;
        }
        if let Err(error) = file.write_all(text.as_bytes()) {
            // Without half a line at its end. The next try opens it anew.
            let _ = file.set_len(bytes);
            return Err(error);
        }
        self.file = Some((file, bytes + text.len() as u64));
        Ok(())
    }

    fn last(&self, lines: usize) -> io::Result<String> {
        let Some(directory) = &self.directory else { return Ok(String::new()) };
        let mut text = String::new();
        for name in [FILE_BEFORE, FILE] {
            match fs::read(directory.join(name)) {
                Ok(bytes) => text += &String::from_utf8_lossy(&bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let from = text.trim_end_matches('\n').rmatch_indices('\n').nth(lines.saturating_sub(1));
        match from {
            _ if lines == 0 => Ok(String::new()),
            Some((at, _)) => Ok(text.split_off(at + 1)),
            None => Ok(text),
        }
    }
}

fn open(directory: &Path) -> io::Result<(File, u64)> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(directory.join(FILE))?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use smol::block_on;

    use super::*;

    fn entry(second: i64, name: &str, refused: bool) -> Entry {
        Entry {
            at: Wall::from_nanos(second * 1_000_000_000),
            who: "access ann@192.168.1.7".to_owned(),
            method: "POST".to_owned(),
            path: "/services/create".to_owned(),
            status: if refused { 403 } else { 201 },
            name: name.to_owned(),
            refused,
        }
    }

    #[test]
    fn lines() {
        let line = entry(1, "web", false).line();
        let want = "1970-01-01T00:00:01.000000000Z\taccess ann@192.168.1.7\tPOST\t/services/create\t201\tweb\n";
        assert_eq!(line, want);
        let nasty =
            Entry { path: format!("/x\n\x1b[2J\u{202e}\t{}", "y".repeat(5000)), ..entry(1, "a'\n\u{9b}", true) };
        let line = nasty.line();
        assert!(line.len() < 1000 && line.matches('\n').count() == 1 && line.matches('\t').count() == 5, "{line:?}");
        assert!(line.contains(r"/x\n\u{1b}[2J\u{202e}\ty") && line.ends_with("\ta'\\n\\u{9b}\n"), "{line:?}");
    }

    #[test]
    fn two_files_and_no_more() {
        let dir = tempfile::tempdir().expect("a directory");
        let (audit, at) = (Audit::open(dir.path().join("manager")), |name: &str| dir.path().join("manager").join(name));
        let rounds = AUDIT_FILE_BYTES_MAX / entry(1, "n1234567", false).line().len() as u64 * 3;
        for round in 0..rounds {
            audit.0.lock().expect("lock").keep(&entry(1, &format!("n{round:07}"), false));
        }
        let sizes = [FILE, FILE_BEFORE].map(|name| fs::metadata(at(name)).expect("there"));
        assert!(
            sizes.iter().all(|file| file.len() <= AUDIT_FILE_BYTES_MAX && file.permissions().mode() & 0o777 == 0o600)
        );
        assert_eq!(fs::read_dir(dir.path().join("manager")).expect("there").count(), 2);
        let last = block_on(audit.last(3)).expect("it is read");
        let names: Vec<&str> = last.lines().filter_map(|line| line.rsplit('\t').next()).collect();
        assert_eq!(names, (rounds - 3..rounds).map(|round| format!("n{round:07}")).collect::<Vec<_>>());
        assert!(block_on(audit.last(usize::MAX)).expect("it is read").len() as u64 > AUDIT_FILE_BYTES_MAX);
        assert_eq!(block_on(audit.last(0)).expect("nothing"), "");
        // A new process goes on where the old one stopped.
        drop(audit);
        let audit = Audit::open(dir.path().join("manager"));
        block_on(audit.keep(entry(2, "later", false)));
        assert!(block_on(audit.last(2)).expect("read").contains(&format!("n{:07}\n", rounds - 1)));
    }

    #[test]
    fn refusals_push_nothing_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let audit = Audit::open(dir.path().to_owned());
        block_on(async {
            for _ in 0..AUDIT_REFUSED_MAX + 5 {
                audit.keep(entry(100, "x", true)).await;
            }
            audit.keep(entry(101, "web", false)).await;
            let text = audit.last(usize::MAX).await.expect("read");
            assert_eq!(text.lines().count(), AUDIT_REFUSED_MAX as usize + 1);
            audit.keep(entry(200, "y", true)).await;
            let text = audit.last(2).await.expect("read");
            assert!(
                text.contains("\tracimo\t-\t-\t-\t5 more requests were refused\n") && text.ends_with("403\ty\n"),
                "{text}"
            );
        });
    }

    #[test]
    fn a_disk_that_takes_nothing_loses_lines_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = dir.path().join("manager");
        // Something else is where the directory should be.
        fs::write(&place, "").expect("written");
        let audit = Audit::open(place.clone());
        block_on(async {
            audit.keep(entry(1, "lost", false)).await;
            audit.keep(entry(2, "lost too", false)).await;
            fs::remove_file(&place).expect("removed");
            audit.keep(entry(3, "web", false)).await;
            let text = audit.last(9).await.expect("read");
            assert!(text.contains("2 lines are missing here") && text.ends_with("201\tweb\n"), "{text}");
            assert_eq!(text.lines().count(), 2);
        });
        // A disk that is full: nothing of a line stays.
        let full = Audit::of(Some(place));
        full.0.lock().expect("lock").file = Some((File::options().append(true).open("/dev/full").expect("there"), 0));
        block_on(async {
            full.keep(entry(4, "full", false)).await;
            full.keep(entry(5, "room", false)).await;
            let text = full.last(9).await.expect("read");
            assert!(text.contains("1 lines are missing here") && text.ends_with("201\troom\n"), "{text}");
        });
    }
}
