//! The identity's files, and whose turn it is to touch them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use racimo_common::durable;
use racimo_common::id::{ClusterId, NodeId};
use racimo_common::object::Role;
use racimo_common::tls::{
    self, certificate_from_pem, certificate_to_pem, certificates_from_pem, key_from_pem, key_to_pem,
};
use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;
use serde::{Deserialize, Serialize};

use super::{Identity, NodeKey};
use crate::limits::IDENTITY_FILE_MAX;

const DIR: &str = "identity";
/// A whole identity on its way in.
const DIR_NEW: &str = "identity.new";
/// The one before, on its way out.
const DIR_OLD: &str = "identity.old";

const KEY: &str = "key.pem";
const CERTIFICATE: &str = "cert.pem";
const ROOT: &str = "root.pem";
const RECORD: &str = "cluster.json";

/// Why an identity could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The disk or its permissions.
    #[error("{doing} {path}")]
    Io {
        /// What we were doing.
        doing: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is half there, changed or missing.
    #[error("{path} is damaged: {why}; remove the folder and join again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// `cluster.json`.
#[derive(Serialize, Deserialize)]
struct Record {
    cluster: ClusterId,
    node: NodeId,
    role: Role,
    managers: Vec<String>,
    key_sha256: String,
    cert_sha256: String,
    root_sha256: String,
    /// Of this record with this field empty.
    own_sha256: String,
}

/// The right to touch the identity under a directory: one in this process and all others (`pi-agent join` beside the
/// agent) has it at a time, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    data: PathBuf,
    /// The directory, locked.
    _locked: File,
}

impl Turn {
    /// Waits for it.
    ///
    /// # Errors
    /// [`IdentityError::Io`]: `data` cannot be made, opened or locked.
    pub fn take(data: &Path) -> Result<Self, IdentityError> {
        durable::make_dir(data).map_err(failed("create", data))?;
        let dir = File::open(data).map_err(failed("open", data))?;
        let locked = retry_on_intr(|| flock(&dir, FlockOperation::LockExclusive));
        locked.map_err(|error| failed("lock", data)(error.into()))?;
        Ok(Self { data: data.to_owned(), _locked: dir })
    }

    /// `None`: somebody else has it, or it cannot be had.
    pub fn try_take(data: &Path) -> Option<Self> {
        let dir = File::open(data).ok()?;
        flock(&dir, FlockOperation::NonBlockingLockExclusive).ok()?;
        Some(Self { data: data.to_owned(), _locked: dir })
    }

    /// The identity that is there; `None` if the board never joined.
    ///
    /// # Errors
    /// A file is missing, damaged or not readable: it is named.
    pub fn load(&self) -> Result<Option<Identity>, IdentityError> {
        let data = &self.data;
        finish_store(data)?;
        let dir = data.join(DIR);
        if !exists(&dir)? {
            return Ok(None);
        }
        let at = dir.join(RECORD);
        let text = read(&at)?;
        let record: Record = serde_json::from_str(&text).map_err(|e| damaged(&at, e.to_string()))?;
        if record.seal()? != record.own_sha256 {
            return Err(damaged(&at, "its checksum is wrong"));
        }
        let key = read_checked(&dir.join(KEY), &record.key_sha256)?;
        let certificate = read_checked(&dir.join(CERTIFICATE), &record.cert_sha256)?;
        let root = read_checked(&dir.join(ROOT), &record.root_sha256)?;
        let unusable = |file: &str, e: tls::CredentialsError| damaged(&dir.join(file), e.to_string());
        let identity = Identity {
            cluster: record.cluster,
            node: record.node,
            role: record.role,
            managers: record.managers,
            roots: certificates_from_pem(&root).map_err(|e| unusable(ROOT, e))?,
            certificate: certificate_from_pem(&certificate).map_err(|e| unusable(CERTIFICATE, e))?,
            key: NodeKey(key_from_pem(&key).map_err(|e| unusable(KEY, e))?.secret_der().to_vec()),
        };
        identity.credentials().map_err(|e| unusable(KEY, e))?;
        Ok(Some(identity))
    }

    /// Keeps this identity in place of any other. When it returns it survives a power cut.
    ///
    /// # Errors
    /// [`IdentityError::Io`]; the old identity is still there.
    pub fn store(&self, identity: &Identity) -> Result<(), IdentityError> {
        let data = &self.data;
        finish_store(data)?;
        let (dir, new, old) = (data.join(DIR), data.join(DIR_NEW), data.join(DIR_OLD));
        remove_dir(&new)?;
        if let Err(error) = write_all(&new, identity) {
            // Half of one must not take up room on a disk that is full; the next try removes it otherwise.
            let _ = durable::remove_dir(&new);
            return Err(error);
        }
        // From the first rename on, `finish_store` completes what a power cut interrupts.
        if exists(&dir)? {
            rename(&dir, &old)?;
        }
        rename(&new, &dir)?;
        sync_dir(data)?;
        remove_dir(&old)
    }

    /// Forgets the identity: the board left its cluster.
    ///
    /// # Errors
    /// [`IdentityError::Io`].
    pub fn erase(&self) -> Result<(), IdentityError> {
        let data = &self.data;
        let (dir, new, old) = (data.join(DIR), data.join(DIR_NEW), data.join(DIR_OLD));
        // Never in its place: a power cut would leave a part of it there. And there must be no old one to go back.
        remove_dir(&new)?;
        remove_dir(&old)?;
        sync_dir(data)?;
        if exists(&dir)? {
            rename(&dir, &new)?;
            sync_dir(data)?;
            remove_dir(&new)?;
        }
        sync_dir(data)
    }

    /// Takes over a new list of managers and keeps it; writes nothing if it is the same.
    ///
    /// # Errors
    /// As [`Turn::store`].
    pub(super) fn set_managers(&self, mut identity: Identity, managers: Vec<String>) -> Result<(), IdentityError> {
        if identity.managers == managers {
            return Ok(());
        }
        identity.managers = managers;
        store_record(&self.data, &identity)
    }
}

fn write_all(dir: &Path, identity: &Identity) -> Result<(), IdentityError> {
    durable::make_dir(dir).map_err(failed("create", dir))?;
    let [key, certificate, root] = texts(identity);
    write(&dir.join(KEY), &key)?;
    write(&dir.join(CERTIFICATE), &certificate)?;
    write(&dir.join(ROOT), &root)?;
    write(&dir.join(RECORD), &Record::of(identity)?.text()?)?;
    sync_dir(dir)
}

fn store_record(data: &Path, identity: &Identity) -> Result<(), IdentityError> {
    let record = data.join(DIR).join(RECORD);
    durable::replace(&record, Record::of(identity)?.text()?.as_bytes()).map_err(failed("replace", &record))
}

/// Brings order into what a power cut left of a [`Turn::store`]. While `identity` is missing and `identity.old` is there,
/// the cut came between the two renames: the old one goes back.
fn finish_store(data: &Path) -> Result<(), IdentityError> {
    let (dir, old) = (data.join(DIR), data.join(DIR_OLD));
    match (exists(&dir)?, exists(&old)?) {
        (false, true) => {
            rename(&old, &dir)?;
            sync_dir(data)
        }
        (true, true) => remove_dir(&old),
        (true | false, false) => Ok(()),
    }
}

impl Record {
    fn of(identity: &Identity) -> Result<Self, IdentityError> {
        let [key, certificate, root] = texts(identity);
        let mut record = Self {
            cluster: identity.cluster,
            node: identity.node,
            role: identity.role,
            managers: identity.managers.clone(),
            key_sha256: sha256(&key),
            cert_sha256: sha256(&certificate),
            root_sha256: sha256(&root),
            own_sha256: String::new(),
        };
        record.own_sha256 = record.seal()?;
        Ok(record)
    }

    /// The digest that `own_sha256` must have.
    fn seal(&self) -> Result<String, IdentityError> {
        let unsealed = Self {
            managers: self.managers.clone(),
            key_sha256: self.key_sha256.clone(),
            cert_sha256: self.cert_sha256.clone(),
            root_sha256: self.root_sha256.clone(),
            own_sha256: String::new(),
            ..*self
        };
        Ok(sha256(&unsealed.text()?))
    }

    fn text(&self) -> Result<String, IdentityError> {
        serde_json::to_string_pretty(self).map_err(|e| damaged(Path::new(RECORD), e.to_string()))
    }
}

fn texts(identity: &Identity) -> [String; 3] {
    let roots = identity.roots.iter().map(certificate_to_pem).collect();
    [key_to_pem(&identity.key.0), certificate_to_pem(&identity.certificate), roots]
}

fn sha256(text: &str) -> String {
    tls::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_checked(path: &Path, sha256_wanted: &str) -> Result<String, IdentityError> {
    let text = read(path)?;
    if sha256(&text) == sha256_wanted { Ok(text) } else { Err(damaged(path, "it is not what was written")) }
}

fn read(path: &Path) -> Result<String, IdentityError> {
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(damaged(path, "it is missing")),
        other => other.map_err(failed("open", path))?,
    };
    let mut bytes = Vec::new();
    file.take(IDENTITY_FILE_MAX + 1).read_to_end(&mut bytes).map_err(failed("read", path))?;
    if bytes.len() as u64 > IDENTITY_FILE_MAX {
        return Err(damaged(path, format!("it has more than {IDENTITY_FILE_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| damaged(path, "it is not text"))
}

fn write(path: &Path, text: &str) -> Result<(), IdentityError> {
    durable::write(path, text.as_bytes()).map_err(failed("write", path))
}

fn rename(from: &Path, to: &Path) -> Result<(), IdentityError> {
    durable::rename(from, to).map_err(failed("rename", from))
}

fn sync_dir(path: &Path) -> Result<(), IdentityError> {
    durable::sync_dir(path).map_err(failed("sync", path))
}

fn remove_dir(path: &Path) -> Result<(), IdentityError> {
    durable::remove_dir(path).map(drop).map_err(failed("remove", path))
}

fn exists(path: &Path) -> Result<bool, IdentityError> {
    path.try_exists().map_err(failed("look for", path))
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    move |source| IdentityError::Io { doing, path: path.to_owned(), source }
}

fn damaged(path: &Path, why: impl Into<String>) -> IdentityError {
    IdentityError::Damaged { path: path.to_owned(), why: why.into() }
}
