//! What stands in a segment: the byte format, and reading it back with suspicion.
//!
//! ```text
//! header   32 B   "RCW1" id:u64 next_index:u64 salt:u32 crc:u32 0:u32
//! record          len:u32 crc:u32 kind:u8 payload[len]            numbers little-endian
//! batch           Mark record, then what one sync made durable together
//! ```
//!
//! A record's checksum starts from the one before it, and the first from the segment's id and
//! salt: a record counts only as the continuation of exactly what was there when it was
//! written. So bytes of an earlier life of the segment, or of a batch that was torn and
//! overwritten, never come back.
//!
//! A batch is written only after all before it is durable. So where a valid mark stands
//! *behind* a record that does not check, the record was durable once and is damaged; where
//! none does, the write was torn. The salt keeps the contents of a command from looking like
//! a mark.

use std::ops::Range;

use super::fault::{Fault, Rules};

/// Bytes of a segment header.
pub(super) const HEADER: usize = 32;
/// Bytes of a record without its payload.
pub(super) const RECORD: usize = 9;
/// Bytes of a mark.
pub(super) const MARK: usize = RECORD + 4;
/// Bytes that sealing a segment takes.
pub(super) const SEAL: usize = MARK + RECORD;

const MAGIC: [u8; 4] = *b"RCW1";

/// A segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Segments in use are numbered without gaps.
    pub id: u64,
    /// Entries before this index are in earlier segments or in the snapshot.
    pub next_index: u64,
    /// Chance.
    pub salt: u32,
}

/// What the first bytes of a segment file say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Not in use.
    Free,
    /// In use.
    Header(Header),
    /// Neither.
    Damaged,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..12].copy_from_slice(&self.id.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.next_index.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.salt.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..24]);
        bytes[24..28].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER]) -> Found {
        if *bytes == [0; HEADER] {
            return Found::Free;
        }
        let header = Header { id: u64_at(bytes, 4), next_index: u64_at(bytes, 12), salt: u32_at(bytes, 20) };
        if header.encode() == *bytes { Found::Header(header) } else { Found::Damaged }
    }

    /// Where the chain of checksums begins.
    pub(super) fn seed(&self, rules: Rules) -> u32 {
        if rules.broken(Fault::CrcUnseeded) {
            return 0;
        }
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.id.to_le_bytes());
        hasher.update(&self.salt.to_le_bytes());
        hasher.finalize()
    }

    fn mark(&self, offset: usize) -> [u8; 4] {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(b"mark");
        hasher.update(&self.salt.to_le_bytes());
        hasher.update(&self.id.to_le_bytes());
        hasher.update(&(offset as u64).to_le_bytes());
        hasher.finalize().to_le_bytes()
    }
}

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Start of a batch.
    Mark,
    /// Term, vote and commit index.
    HardState,
    /// One raft entry.
    Entry,
    /// The segment is full and continues in the next.
    End,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Mark, Kind::HardState, Kind::Entry, Kind::End];

    fn code(self) -> u8 {
        match self {
            Kind::Mark => 1,
            Kind::HardState => 2,
            Kind::Entry => 3,
            Kind::End => 4,
        }
    }
}

/// Builds one batch.
pub(super) struct Batch {
    bytes: Vec<u8>,
    crc: u32,
    seed: u32,
    rules: Rules,
}

impl Batch {
    /// A batch that will stand at `offset` of the segment, behind a record with checksum `crc`.
    pub(super) fn new(header: &Header, offset: usize, crc: u32, rules: Rules) -> Self {
        let mut batch = Batch { bytes: Vec::new(), crc, seed: header.seed(rules), rules };
        batch.push(Kind::Mark, &header.mark(offset));
        batch
    }

    pub(super) fn push(&mut self, kind: Kind, payload: &[u8]) {
        let len = u32::try_from(payload.len()).expect("limits.rs bounds a command");
        if self.rules.broken(Fault::CrcUnchained) {
            self.crc = self.seed;
        }
        self.crc = checksum(self.crc, len, kind.code(), payload);
        self.bytes.extend_from_slice(&len.to_le_bytes());
        self.bytes.extend_from_slice(&self.crc.to_le_bytes());
        self.bytes.push(kind.code());
        self.bytes.extend_from_slice(payload);
    }

    /// The bytes, and the checksum that the next batch continues.
    pub(super) fn finish(self) -> (Vec<u8>, u32) {
        (self.bytes, self.crc)
    }
}

/// What a segment holds.
#[derive(Debug)]
pub(super) struct Scan {
    /// Records but marks and end, with their payloads' places, in order.
    pub records: Vec<(Kind, Range<usize>)>,
    /// First byte behind the last good record.
    pub end: usize,
    /// Checksum of the last good record.
    pub crc: u32,
    /// Start of the last batch: all before it was durable when it was written.
    pub last_batch: usize,
    /// Whether an end record closes the segment.
    pub sealed: bool,
}

/// Reads the records of a whole segment, header included in `bytes`.
///
/// # Errors
/// The offset of a record that was durable and is damaged. A torn last batch is no error.
pub(super) fn scan(bytes: &[u8], header: &Header, rules: Rules) -> Result<Scan, usize> {
    let seed = header.seed(rules);
    let mut scan = Scan { records: Vec::new(), end: HEADER, crc: seed, last_batch: HEADER, sealed: false };
    while !scan.sealed {
        let previous = if rules.broken(Fault::CrcUnchained) { seed } else { scan.crc };
        let Some((kind, payload, crc)) = record_at(bytes, scan.end, previous) else {
            break;
        };
        match kind {
            Kind::Mark => scan.last_batch = scan.end,
            Kind::HardState | Kind::Entry => scan.records.push((kind, payload.clone())),
            Kind::End => scan.sealed = true,
        }
        scan.end = payload.end;
        scan.crc = crc;
    }
    if !scan.sealed && later_mark(bytes, header, scan.end) {
        return Err(scan.end);
    }
    Ok(scan)
}

fn record_at(bytes: &[u8], at: usize, previous: u32) -> Option<(Kind, Range<usize>, u32)> {
    let head = bytes.get(at..at + RECORD)?;
    let len = u32_at(head, 0);
    let kind = Kind::ALL.into_iter().find(|kind| kind.code() == head[8])?;
    let start = at + RECORD;
    let place = start..start.checked_add(usize::try_from(len).ok()?)?;
    let payload = bytes.get(place.clone())?;
    let crc = checksum(previous, len, kind.code(), payload);
    (crc == u32_at(head, 4)).then_some((kind, place, crc))
}

fn later_mark(bytes: &[u8], header: &Header, bad: usize) -> bool {
    let last = bytes.len().saturating_sub(MARK);
    (bad + 1..=last).any(|at| {
        bytes[at + 8] == Kind::Mark.code() && u32_at(bytes, at) == 4 && bytes[at + RECORD..at + MARK] == header.mark(at)
    })
}

fn checksum(previous: u32, len: u32, kind: u8, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(previous);
    hasher.update(&len.to_le_bytes());
    hasher.update(&[kind]);
    hasher.update(payload);
    hasher.finalize()
}

/// The little-endian number at `at`, which the caller has bounded.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

/// The little-endian number at `at`, which the caller has bounded.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Header = Header { id: 7, next_index: 12, salt: 99 };

    /// A segment of 400 bytes with these batches of entries.
    fn segment(batches: &[&[&str]]) -> Vec<u8> {
        let mut bytes = HEAD.encode().to_vec();
        let mut crc = HEAD.seed(Rules::default());
        for entries in batches {
            let mut batch = Batch::new(&HEAD, bytes.len(), crc, Rules::default());
            for entry in *entries {
                batch.push(Kind::Entry, entry.as_bytes());
            }
            let (more, next) = batch.finish();
            bytes.extend(more);
            crc = next;
        }
        bytes.resize(400, 0);
        bytes
    }

    fn entries(bytes: &[u8]) -> Result<String, usize> {
        let scan = scan(bytes, &HEAD, Rules::default())?;
        let texts = scan.records.into_iter();
        let texts = texts.map(|(_, place)| String::from_utf8_lossy(&bytes[place]).into_owned());
        Ok(texts.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn header_is_free_valid_or_damaged() {
        assert_eq!(Header::decode(&HEAD.encode()), Found::Header(HEAD));
        assert_eq!(Header::decode(&[0; HEADER]), Found::Free);
        for bit in 0..HEADER * 8 {
            let mut bytes = HEAD.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bytes), Found::Damaged, "bit {bit}");
        }
    }

    #[test]
    fn every_cut_of_the_last_batch_leaves_a_prefix() {
        let whole = segment(&[&["one"], &["two", "three"]]);
        let start = segment(&[&["one"]]).iter().rposition(|byte| *byte != 0);
        let start = start.unwrap() + 1;
        for cut in start..400 {
            let mut bytes = whole.clone();
            bytes[cut..].fill(0);
            let found = entries(&bytes).unwrap();
            assert!("one two three".starts_with(&found), "{cut}: {found}");
        }
    }

    #[test]
    fn every_flipped_bit_before_the_last_batch_is_damage() {
        let whole = segment(&[&["one"], &["two", "three"], &["four"]]);
        let last = scan(&whole, &HEAD, Rules::default()).unwrap().last_batch;
        for bit in HEADER * 8..last * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let at = entries(&bytes).unwrap_err();
            assert!(at <= bit / 8, "bit {bit}: damage seen at {at}");
        }
    }

    #[test]
    fn another_segments_bytes_are_nothing() {
        let mut bytes = segment(&[&["one"], &["two"]]);
        let other = Header { id: 8, ..HEAD };
        bytes[..HEADER].copy_from_slice(&other.encode());
        let scan = scan(&bytes, &other, Rules::default()).unwrap();
        assert_eq!((scan.records.len(), scan.end), (0, HEADER));
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut chance = fastrand::Rng::with_seed(1);
        for _ in 0..2000 {
            let mut bytes = segment(&[&["one"], &["two"]]);
            for _ in 0..chance.usize(1..20) {
                let at = chance.usize(HEADER..bytes.len());
                bytes[at] = chance.u8(..);
            }
            bytes.truncate(chance.usize(HEADER..=bytes.len()));
            let _ = entries(&bytes);
        }
    }
}
