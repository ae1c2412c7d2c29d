//! One of the journal's two files.
//!
//! ```text
//! magic 8 · sequence 8 · length 8 · node 16 · digest 32 · check 8     big-endian; `check` is of what stands before it
//! then `length` bytes of items: kind 1 · length 4 · MessagePack
//! ```
//! `digest` is the SHA-256 of the owner, the node and the items: a set that is told again has the same. A file is written
//! while the other one holds the set before, and its header last; so whatever a power cut leaves of it is not valid,
//! and the other one is. What follows the items is left from a longer set.

use std::io::{self, Read};

use ring::digest::{Context, SHA256};

use crate::limits::{JOURNAL_BYTES_MAX, JOURNAL_ITEM_BYTES_MAX};

const MAGIC: [u8; 8] = *b"RCMJRNL1";
/// Bytes before the items.
pub const HEADER_BYTES: usize = 80;
const CHECK: usize = HEADER_BYTES - 8;

/// What a digest has of bytes.
pub type Digest = [u8; 32];

/// The beginning of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The newer of two valid slots has the larger one.
    pub sequence: u64,
    /// Bytes of items.
    pub length: u64,
    /// The board's node, as bits.
    pub node: u128,
    /// Of what it says.
    pub digest: Digest,
}

impl Header {
    /// Its bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.length.to_be_bytes());
        bytes[24..40].copy_from_slice(&self.node.to_be_bytes());
        bytes[40..CHECK].copy_from_slice(&self.digest);
        let check = ring::digest::digest(&SHA256, &bytes[..CHECK]);
        bytes[CHECK..].copy_from_slice(&check.as_ref()[..8]);
        bytes
    }

    /// The header in these bytes; none: they are no whole header.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let number = |at: usize| bytes[at..at + 8].try_into().map_or(0, u64::from_be_bytes);
        let check = ring::digest::digest(&SHA256, &bytes[..CHECK]);
        let is_whole = bytes[..8] == MAGIC && bytes[CHECK..] == check.as_ref()[..8];
        let header = Self {
            sequence: number(8),
            length: number(16),
            node: u128::from(number(24)) << 64 | u128::from(number(32)),
            digest: bytes[40..CHECK].try_into().ok()?,
        };
        (is_whole && header.length <= JOURNAL_BYTES_MAX).then_some(header)
    }
}

/// The digest of a set, item by item.
pub struct Sum(Context, u64);

impl Sum {
    /// Of a set without items. `owner`: whoever else finds it on a disk has no use for it.
    pub fn new(owner: &Digest, node: u128) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(owner);
        context.update(&node.to_be_bytes());
        Self(context, 0)
    }

    /// Adds bytes of items.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
        self.1 = self.1.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    }

    /// Bytes so far.
    pub fn length(&self) -> u64 {
        self.1
    }

    /// The digest.
    pub fn finish(self) -> Digest {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.0.finish().as_ref());
        digest
    }
}

/// Reads a slot to its end; its header if it is whole and `owner`'s.
///
/// # Errors
/// The disk's.
pub fn check(file: &mut dyn Read, owner: &Digest) -> io::Result<Option<Header>> {
    let mut bytes = [0; HEADER_BYTES];
    if !fill(file, &mut bytes)? {
        return Ok(None);
    }
    let Some(header) = Header::decode(&bytes) else { return Ok(None) };
    let mut sum = Sum::new(owner, header.node);
    let mut buffer = [0; 4096];
    while sum.length() < header.length {
        let left = usize::try_from(header.length - sum.length()).unwrap_or(usize::MAX).min(buffer.len());
        if !fill(file, &mut buffer[..left])? {
            return Ok(None);
        }
        sum.add(&buffer[..left]);
    }
    Ok((sum.finish() == header.digest).then_some(header))
}

/// Which of the two slots counts, if any.
pub fn newest(found: &[Option<Header>; 2]) -> Option<usize> {
    (0..2).filter(|slot| found[*slot].is_some()).max_by_key(|slot| found[*slot].map(|header| header.sequence))
}

/// An item as it is written.
pub fn item(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(5 + body.len());
    bytes.push(kind);
    bytes.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(body);
    bytes
}

/// Reads the next item of at most `left` bytes; none: there is no more, or it is damaged.
///
/// # Errors
/// The disk's.
pub fn next(file: &mut dyn Read, left: &mut u64) -> io::Result<Option<(u8, Vec<u8>)>> {
    let mut head = [0; 5];
    if *left < 5 || !fill(file, &mut head)? {
        return Ok(None);
    }
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    let size = usize::try_from(length).unwrap_or(usize::MAX);
    if u64::from(length) > *left - 5 || size > JOURNAL_ITEM_BYTES_MAX {
        return Ok(None);
    }
    *left -= 5 + u64::from(length);
    let mut body = vec![0; size];
    Ok(fill(file, &mut body)?.then_some((head[0], body)))
}

/// Whether there was so much.
fn fill(file: &mut dyn Read, bytes: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OWNER: Digest = [7; 32];

    /// A slot with these items.
    fn slot(sequence: u64, items: &[Vec<u8>]) -> Vec<u8> {
        let mut sum = Sum::new(&OWNER, 5);
        let body: Vec<u8> = items.iter().flat_map(|body| item(1, body)).collect();
        sum.add(&body);
        let length = sum.length();
        let header = Header { sequence, length, node: 5, digest: sum.finish() };
        [header.encode().to_vec(), body].concat()
    }

    fn checked(bytes: &[u8]) -> Option<Header> {
        check(&mut &*bytes, &OWNER).expect("memory can be read")
    }

    /// What is read of two slots: as an agent that boots does it.
    fn read(slots: [&[u8]; 2]) -> Option<Vec<Vec<u8>>> {
        let found = slots.map(checked);
        let at = newest(&found)?;
        let mut file = &slots[at][HEADER_BYTES..];
        let mut left = found[at]?.length;
        let mut items = Vec::new();
        while let Some((_, body)) = next(&mut file, &mut left).expect("memory can be read") {
            items.push(body);
        }
        assert_eq!(left, 0, "a valid slot is read to its end");
        Some(items)
    }

    #[test]
    fn what_is_no_slot() {
        assert_eq!(checked(b""), None);
        assert_eq!(checked(&[0; 4096]), None);
        let good = slot(1, &[b"abc".to_vec()]);
        assert_eq!(checked(&good).map(|header| (header.sequence, header.length)), Some((1, 8)));
        assert_eq!(check(&mut &*good, &[8; 32]).expect("read"), None, "another owner's");
        let long = Header { sequence: 1, length: JOURNAL_BYTES_MAX + 1, node: 5, digest: [0; 32] };
        assert_eq!(Header::decode(&long.encode()), None);
        // A length that goes beyond its item's slot, and one that is too long.
        let mut left = 9;
        assert_eq!(next(&mut &*item(1, b"abcde"), &mut left).expect("read"), None);
        let mut left = u64::MAX;
        assert_eq!(next(&mut &[1, 255, 255, 255, 255][..], &mut left).expect("read"), None);
    }

    fn items() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..6)
    }

    proptest! {
        /// The power may go after any byte of a write over an older set, header last: the old or the new set is there.
        #[test]
        fn a_power_cut_leaves_the_old_set_or_the_new(older in items(), old in items(), new in items()) {
            let (stale, kept, next) = (slot(1, &older), slot(2, &old), slot(3, &new));
            for cut in 0..=next.len() {
                let mut disk = stale.clone();
                disk.resize(disk.len().max(next.len()), 0);
                // The body first, then the header.
                let body = cut.min(next.len() - HEADER_BYTES);
                disk[HEADER_BYTES..HEADER_BYTES + body].copy_from_slice(&next[HEADER_BYTES..HEADER_BYTES + body]);
                disk[..cut - body].copy_from_slice(&next[..cut - body]);
                let found = read([&disk, &kept]).expect("one is valid");
                prop_assert!(found == old || found == new);
                prop_assert!(cut < next.len() || found == new);
            }
        }

        /// The disk may write sectors in any order, or some not at all.
        #[test]
        fn any_mixture_leaves_the_old_set_or_the_new(
            older in items(), old in items(), new in items(), taken in prop::collection::vec(any::<bool>(), 64),
        ) {
            let (stale, kept, next) = (slot(1, &older), slot(2, &old), slot(3, &new));
            let mut disk = stale.clone();
            disk.resize(disk.len().max(next.len()), 0);
            for (sector, bytes) in next.chunks(32).enumerate() {
                if taken[sector % taken.len()] {
                    disk[sector * 32..sector * 32 + bytes.len()].copy_from_slice(bytes);
                }
            }
            let found = read([&disk, &kept]).expect("one is valid");
            prop_assert!(found == old || found == new);
        }

        /// A bit that flips makes the slot invalid, unless it is behind the items.
        #[test]
        fn a_flipped_bit_is_found(old in items(), new in items(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let (kept, mut damaged) = (slot(2, &old), slot(3, &new));
            let at = at.index(damaged.len());
            damaged[at] ^= 1 << bit;
            prop_assert_eq!(read([&kept, &damaged]), Some(old));
        }

        /// Whatever is on the disk: nothing panics, and no more is read than there is.
        #[test]
        fn random_bytes_are_no_slot(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert_eq!(read([&bytes, &bytes]), None);
            let mut left = 300;
            let mut file = &*bytes;
            while let Ok(Some(_)) = super::next(&mut file, &mut left) {}
        }
    }
}
