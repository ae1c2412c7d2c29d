//! A backup: one file with all that brings a manager back.
//!
//! In: what the manager keeps. Out: the file's bytes, and back, checked as a whole before anything is believed. Pure.
//!
//! ```text
//!    0  "RACIMOBK"
//!    8  format     u32   1; all numbers are little-endian
//!   12  length     u64   bytes of the whole file
//!   20  header     u32   its bytes
//!   24  header           JSON, readable by anybody: what it is a backup of
//!       contents         three times length (u32) and bytes: the manager's own file, the vault's key file, the state;
//!                        with a passphrase sealed as one (see seal), all before it authenticated
//!  end  SHA-256          of all before it
//! ```
//! Magic, format, length and the checksum at the end stay where they are in every later format.

mod seal;

use racimo_common::id::ClusterId;
use racimo_common::time::Wall;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::limits::BACKUP_BYTES_MAX;
use crate::store::restored::Counts;
pub use seal::{ITERATIONS, Sealing};

const MAGIC: &[u8; 8] = b"RACIMOBK";
/// The format that is written, and the newest that is read.
pub const FORMAT: u32 = 1;
/// Bytes before the header.
const HEAD: usize = 24;
const DIGEST: usize = 32;
/// More than any header has.
const HEADER_BYTES_MAX: usize = 4096;
/// Characters of a version's name, at most.
const VERSION_CHARS_MAX: usize = 64;

/// What it is a backup of. Anybody who has the file can read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Header {
    /// The cluster.
    pub cluster: ClusterId,
    /// When, by the manager's clock.
    pub made: Wall,
    /// By which version of the manager.
    pub version: String,
    /// How much of each there is.
    pub counts: Counts,
    /// Whether the vault's key is wrapped by the unlock key.
    pub autolock: bool,
    /// How it is sealed; none: it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealing: Option<Sealing>,
}

/// What brings the manager back.
pub struct Contents {
    /// The manager's own file: which node it is, where it listens.
    pub own: Vec<u8>,
    /// The vault's key file, as it is on the manager's disk.
    pub key: Zeroizing<Vec<u8>>,
    /// [`State::to_bytes`](crate::store::State::to_bytes).
    pub state: Vec<u8>,
}

/// Why something is no backup, or cannot be made into one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// Something else.
    #[error("this is not a backup of Racimo")]
    Foreign,
    /// The end is missing.
    #[error("the backup is cut off: {have} of {want} bytes are there")]
    Cut {
        /// Bytes that are there.
        have: u64,
        /// Bytes that it says it has.
        want: u64,
    },
    /// It is not as it was written.
    #[error("the backup is damaged: its checksum does not match")]
    Damaged,
    /// A later version wrote it.
    #[error("the backup has format {0}, of a newer version of Racimo: restore it with that version")]
    Newer(u32),
    /// It is whole, and yet not what a backup is.
    #[error("the backup is not what it should be: {0}")]
    Content(String),
    /// It is sealed, and there is no passphrase.
    #[error("the backup is encrypted: it needs its passphrase")]
    Sealed,
    /// There is a passphrase, and it is not sealed.
    #[error("the backup is not encrypted: leave the passphrase away, if it is the right file")]
    NotSealed,
    /// Another passphrase.
    #[error("this is not the passphrase of the backup")]
    Passphrase,
    /// It would be too large.
    #[error("the backup would have {bytes} bytes, {BACKUP_BYTES_MAX} are allowed: remove services, secrets or configs")]
    TooLarge {
        /// So large.
        bytes: u64,
    },
    /// The random source failed.
    #[error("the system's random source does not work")]
    Random,
}

/// A backup whose bytes are whole.
pub struct Backup {
    header: Header,
    bytes: Zeroizing<Vec<u8>>,
    /// Where its contents begin.
    start: usize,
}

impl Backup {
    /// Makes one, not sealed.
    ///
    /// # Errors
    /// [`BackupError::TooLarge`].
    pub fn new(header: Header, contents: &Contents) -> Result<Self, BackupError> {
        let parts: [&[u8]; 3] = [&contents.own, &contents.key, &contents.state];
        let length: usize = parts.iter().map(|part| 4 + part.len()).sum();
        Self::build(header, length, |bytes| {
            for part in parts {
                // `build` has refused what does not fit 32 bits.
                bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
                bytes.extend_from_slice(part);
            }
            Ok(())
        })
    }

    /// Writes all but the contents, which have `length` bytes. Its room is taken at once, so that no copy of a key is
    /// left behind.
    fn build(
        header: Header,
        length: usize,
        contents: impl FnOnce(&mut Vec<u8>) -> Result<(), BackupError>,
    ) -> Result<Self, BackupError> {
        let text = serde_json::to_vec(&header).map_err(|error| BackupError::Content(error.to_string()))?;
        let start = HEAD + text.len();
        let all = start.saturating_add(length).saturating_add(DIGEST);
        if all > BACKUP_BYTES_MAX {
            return Err(BackupError::TooLarge { bytes: all as u64 });
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(all));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&(all as u64).to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&text);
        contents(&mut bytes)?;
        let sum = digest(&SHA256, &bytes);
        bytes.extend_from_slice(sum.as_ref());
        Ok(Self { header, bytes, start })
    }

    /// Reads one, and checks that it is whole.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn read(bytes: Zeroizing<Vec<u8>>) -> Result<Self, BackupError> {
        let have = bytes.len();
        let is_cut = |want: u64| BackupError::Cut { have: have as u64, want };
        if !bytes.starts_with(&MAGIC[..MAGIC.len().min(have)]) || have == 0 {
            return Err(BackupError::Foreign);
        }
        let Some((head, _)) = bytes.split_first_chunk::<HEAD>() else { return Err(is_cut((HEAD + DIGEST) as u64)) };
        let want = u64::from_le_bytes(number(head, 12));
        if (have as u64) < want || have < HEAD + DIGEST {
            return Err(is_cut(want.max((HEAD + DIGEST) as u64)));
        }
        let (body, sum) = bytes.split_at(have - DIGEST);
        if have as u64 != want || digest(&SHA256, body).as_ref() != sum {
            return Err(BackupError::Damaged);
        }
        // Whole: what is strange from here on was written so.
        let format = u32::from_le_bytes(number(head, 8));
        if format > FORMAT {
            return Err(BackupError::Newer(format));
        }
        let wrong = |what: &str| BackupError::Content(what.to_owned());
        let length = u32::from_le_bytes(number(head, 20)) as usize;
        if format == 0 || have > BACKUP_BYTES_MAX || length > HEADER_BYTES_MAX {
            return Err(wrong("its format or size"));
        }
        let header = body.get(HEAD..HEAD + length).ok_or_else(|| wrong("its header is longer than itself"))?;
        let header: Header =
            serde_json::from_slice(header).map_err(|error| BackupError::Content(format!("its header: {error}")))?;
        let is_plain = |text: &str| text.len() <= VERSION_CHARS_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain(&header.version) {
            return Err(wrong("its version"));
        }
        Ok(Self { header, bytes, start: HEAD + length })
    }

    /// What it is a backup of.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The file's bytes, to give them away.
    pub fn into_bytes(mut self) -> Vec<u8> {
        std::mem::take(&mut *self.bytes)
    }

    /// The same, sealed with a passphrase. Takes seconds on a slow board.
    ///
    /// # Errors
    /// [`BackupError::Random`], [`BackupError::TooLarge`].
    pub fn seal(&self, passphrase: &str, iterations: std::num::NonZeroU32) -> Result<Self, BackupError> {
        let sealing = Sealing::draw(iterations)?;
        let header = Header { sealing: Some(sealing), ..self.header.clone() };
        let plain = self.contents();
        Self::build(header, plain.len() + seal::TAG, |bytes| sealing.seal(passphrase, plain, bytes))
    }

    fn contents(&self) -> &[u8] {
        &self.bytes[self.start..self.bytes.len() - DIGEST]
    }

    /// What is in it. Takes seconds on a slow board if it is sealed.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn open(&self, passphrase: Option<&str>) -> Result<Contents, BackupError> {
        match (&self.header.sealing, passphrase) {
            (None, None) => split(self.contents()),
            (None, Some(_)) => Err(BackupError::NotSealed),
            (Some(_), None) => Err(BackupError::Sealed),
            (Some(sealing), Some(passphrase)) => {
                let plain = sealing.open(passphrase, &self.bytes[..self.start], self.contents())?;
                split(&plain)
            }
        }
    }
}

fn number<const N: usize>(head: &[u8; HEAD], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&head[at..at + N]);
    bytes
}

fn split(mut bytes: &[u8]) -> Result<Contents, BackupError> {
    let wrong = || BackupError::Content("its parts are longer than itself".to_owned());
    let mut part = || {
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(wrong)?;
        let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(wrong)?;
        bytes = rest;
        Ok::<_, BackupError>(part.to_vec())
    };
    let contents = Contents { own: part()?, key: Zeroizing::new(part()?), state: part()? };
    if bytes.is_empty() { Ok(contents) } else { Err(BackupError::Content("it has more parts than three".to_owned())) }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;
    use racimo_common::id::RandomId;

    use super::*;

    const FEW: NonZeroU32 = NonZeroU32::new(10).unwrap();

    fn header() -> Header {
        let (cluster, made) = (ClusterId::from_bits(5), Wall::from_nanos(1_795_173_221_000_000_000));
        let counts = Counts { nodes: 3, services: 2, ..Counts::default() };
        Header { cluster, made, version: "0.1.0".into(), counts, autolock: false, sealing: None }
    }

    fn plain() -> Backup {
        let contents = Contents { own: b"{}".to_vec(), key: Zeroizing::new(vec![7; 32]), state: vec![9; 300] };
        Backup::new(header(), &contents).expect("it fits")
    }

    fn read(bytes: &[u8]) -> Result<Backup, BackupError> {
        Backup::read(Zeroizing::new(bytes.to_vec()))
    }

    /// The checksum that goes with changed bytes.
    fn summed(mut bytes: Vec<u8>) -> Vec<u8> {
        let end = bytes.len() - DIGEST;
        let sum = digest(&SHA256, &bytes[..end]);
        bytes[end..].copy_from_slice(sum.as_ref());
        bytes
    }

    #[track_caller]
    fn check(bytes: &[u8], passphrase: Option<&str>, want: BackupError) {
        let got = read(bytes).and_then(|backup| backup.open(passphrase).map(drop));
        assert_eq!(got, Err(want));
    }

    #[test]
    fn what_is_written_is_read() {
        let sealed = plain().seal("correct horse", FEW).expect("sealed");
        for (backup, passphrase) in [(plain(), None), (sealed, Some("correct horse"))] {
            let again = read(backup.bytes()).expect("it is whole");
            assert_eq!(again.header().counts, header().counts);
            let contents = again.open(passphrase).expect("it opens");
            assert_eq!((&*contents.own, &**contents.key, &*contents.state), (&b"{}"[..], &[7; 32][..], &[9; 300][..]));
            assert_eq!(again.header().sealing.is_some(), passphrase.is_some());
        }
    }

    #[test]
    fn only_its_passphrase_opens_it_and_nothing_shows() {
        let sealed = plain().seal("correct horse", FEW).expect("sealed");
        assert!(!sealed.bytes().windows(8).any(|part| part == [7; 8] || part == [9; 8]));
        check(sealed.bytes(), Some("correct horsE"), BackupError::Passphrase);
        check(sealed.bytes(), Some(""), BackupError::Passphrase);
        check(sealed.bytes(), None, BackupError::Sealed);
        check(plain().bytes(), Some("correct horse"), BackupError::NotSealed);
        let other = plain().seal("correct horse", FEW).expect("sealed");
        assert_ne!(other.bytes(), sealed.bytes(), "each has its own salt");
        // A header that somebody changed, with the checksum that goes with it.
        let text = String::from_utf8_lossy(sealed.bytes()).into_owned();
        let at = text.find("0.1.0").expect("the version");
        let mut changed = sealed.bytes().to_vec();
        changed[at] = b'9';
        check(&summed(changed), Some("correct horse"), BackupError::Passphrase);
    }

    #[test]
    fn each_fault_has_its_own_words() {
        let good = plain().into_bytes();
        check(b"", None, BackupError::Foreign);
        check(b"PK\x03\x04", None, BackupError::Foreign);
        check(&good[..3], None, BackupError::Cut { have: 3, want: 56 });
        let mut newer = good.clone();
        newer[8] = 2;
        check(&newer, None, BackupError::Damaged);
        check(&summed(newer), None, BackupError::Newer(2));
        check(&[&good[..], b"x"].concat(), None, BackupError::Damaged);
        let mut strange = good.clone();
        strange[HEAD] = b'x';
        assert!(matches!(read(&summed(strange)), Err(BackupError::Content(_))));
        let mut longer = good.clone();
        longer[20] = 0xff;
        longer[21] = 0xf;
        assert!(matches!(read(&summed(longer)), Err(BackupError::Content(_))));
        let huge = Contents { own: vec![], key: Zeroizing::new(vec![]), state: vec![0; BACKUP_BYTES_MAX] };
        assert!(matches!(Backup::new(header(), &huge), Err(BackupError::TooLarge { .. })));
    }

    #[test]
    fn every_truncation_and_every_changed_byte_is_noticed() {
        for good in [plain().into_bytes(), plain().seal("correct horse", FEW).expect("sealed").into_bytes()] {
            for end in 0..good.len() {
                let error = read(&good[..end]).map(drop).expect_err("cut off");
                assert!(matches!(error, BackupError::Cut { .. }) || end == 0, "{end}: {error}");
            }
            for at in 0..good.len() {
                let mut flipped = good.clone();
                flipped[at] ^= 1 << (at % 8);
                assert!(read(&flipped).is_err(), "byte {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(read(&bytes).is_err());
            // With a good beginning and the checksum that goes with it: no panic, whatever it says.
            let mut like = plain().into_bytes();
            let end = like.len() - DIGEST;
            for (place, byte) in like[20..end].iter_mut().zip(&bytes) {
                *place = *byte;
            }
            let _ = read(&summed(like)).and_then(|backup| backup.open(None).map(drop));
        }
    }
}
