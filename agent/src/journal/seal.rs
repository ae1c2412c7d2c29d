//! Contents of secrets and configs on the disk, sealed with a key that is made from the board's own.
//!
//! ```text
//! magic 8 · salt 16 · parts of 32 KiB, each AES-256-GCM with a tag of 16; the last may be shorter or empty
//! key of a file: HMAC-SHA256(HMAC-SHA256(board's key, purpose), salt and name)
//! nonce of a part: whether it is the last, and its number
//! ```
//! So no part can be left out, moved, or taken from another file; and without the board's key there is nothing to read.

use std::io::{self, Read, Write};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac::{self, HMAC_SHA256};
use ring::rand::{SecureRandom, SystemRandom};

const MAGIC: [u8; 8] = *b"RCMSEAL1";
const SALT: usize = 16;
const HEAD: usize = MAGIC.len() + SALT;
const TAG: usize = 16;
/// Bytes of a content that are in memory at once.
const PART: usize = racimo_common::limits::BODY_PART_BYTES_MAX;
const PURPOSE: &[u8] = b"racimo: contents of secrets and configs on the disk";

/// Seals and opens; it has the key. Without `Debug`.
#[derive(Clone)]
pub struct Sealer(hmac::Key);

impl Sealer {
    /// With a key made from the board's own.
    pub fn new(key: &[u8]) -> Self {
        let derived = hmac::sign(&hmac::Key::new(HMAC_SHA256, key), PURPOSE);
        Self(hmac::Key::new(HMAC_SHA256, derived.as_ref()))
    }

    fn key(&self, salt: &[u8], name: &str) -> io::Result<LessSafeKey> {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(salt);
        context.update(name.as_bytes());
        let key = UnboundKey::new(&AES_256_GCM, context.sign().as_ref()).map_err(|_| io::Error::other("no key"))?;
        Ok(LessSafeKey::new(key))
    }

    /// Writes what `from` has, sealed.
    ///
    /// # Errors
    /// The disk's, or the random source fails.
    pub fn seal(&self, name: &str, from: &mut dyn Read, to: &mut dyn Write) -> io::Result<()> {
        let mut salt = [0; SALT];
        SystemRandom::new().fill(&mut salt).map_err(|_| io::Error::other("the random source does not work"))?;
        to.write_all(&MAGIC)?;
        to.write_all(&salt)?;
        let key = self.key(&salt, name)?;
        let mut part = Vec::with_capacity(PART + TAG);
        let mut ahead = read(from, PART)?;
        for number in 0.. {
            std::mem::swap(&mut part, &mut ahead);
            ahead = if part.len() == PART { read(from, PART)? } else { Vec::new() };
            let last = ahead.is_empty();
            let sealed = key.seal_in_place_append_tag(nonce(number, last), Aad::empty(), &mut part);
            sealed.map_err(|_| io::Error::other("seal a part"))?;
            to.write_all(&part)?;
            if last {
                break;
            }
        }
        Ok(())
    }

    /// Gives out what was sealed, part by part.
    ///
    /// # Errors
    /// The disk's; or it was not sealed by this board under this name, or is damaged: then what was given out so far is
    /// of no use.
    pub fn open(&self, name: &str, from: &mut dyn Read, take: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it is damaged, or not of this board");
        let head = read(from, HEAD)?;
        let salt = head.strip_prefix(&MAGIC).filter(|salt| salt.len() == SALT).ok_or_else(damaged)?;
        let key = self.key(salt, name)?;
        let mut ahead = read(from, PART + TAG)?;
        for number in 0.. {
            let mut part = std::mem::take(&mut ahead);
            if part.len() == PART + TAG {
                ahead = read(from, PART + TAG)?;
            }
            let last = ahead.is_empty();
            let plain = key.open_in_place(nonce(number, last), Aad::empty(), &mut part).map_err(|_| damaged())?;
            take(plain);
            if last {
                break;
            }
        }
        Ok(())
    }
}

/// Bytes of the content in a file of so many.
pub fn plain_bytes(sealed: u64) -> u32 {
    let number = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
    let body = sealed.saturating_sub(number(HEAD));
    u32::try_from(body.saturating_sub(body.div_ceil(number(PART + TAG)) * number(TAG))).unwrap_or(u32::MAX)
}

fn nonce(number: u32, last: bool) -> Nonce {
    let mut bytes = [0; 12];
    bytes[0] = u8::from(last);
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// So many bytes, or what there is.
fn read(from: &mut dyn Read, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(most + TAG);
    from.take(u64::try_from(most).unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(content: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        Sealer::new(b"key").seal("a", &mut &*content, &mut file).expect("memory");
        file
    }

    fn opened(key: &[u8], name: &str, file: &[u8]) -> Option<Vec<u8>> {
        let mut content = Vec::new();
        Sealer::new(key).open(name, &mut &*file, &mut |part| content.extend_from_slice(part)).ok()?;
        Some(content)
    }

    #[test]
    fn what_was_sealed_is_opened_by_its_board_only() {
        for length in [0, 1, PART - 1, PART, PART + 1, 3 * PART] {
            let content: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).expect("small")).collect();
            let file = sealed(&content);
            assert_eq!(opened(b"key", "a", &file), Some(content.clone()), "{length} bytes");
            assert_eq!(usize::try_from(plain_bytes(file.len() as u64)), Ok(length));
            assert_eq!(opened(b"other", "a", &file), None);
            assert_eq!(opened(b"key", "b", &file), None);
            assert!(length < 32 || !file.windows(32).any(|bytes| bytes == &content[..32]));
            // Every length but the whole one; for long ones, around the ends of parts.
            let cuts = (0..file.len()).filter(|cut| length < 2 || cut % (PART + TAG) < 60 || cut + 60 > file.len());
            for cut in cuts {
                assert_eq!(opened(b"key", "a", &file[..cut]), None, "{cut} of {} bytes", file.len());
            }
        }
        assert_ne!(sealed(b"twice"), sealed(b"twice"));
    }

    #[test]
    fn a_flipped_bit_or_a_moved_part_is_found() {
        let file = sealed(b"secret");
        for bit in 0..file.len() * 8 {
            let mut file = file.clone();
            file[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(opened(b"key", "a", &file), None);
        }
        let mut file = sealed(&[1; 3 * PART]);
        let (first, second) = (HEAD..HEAD + PART + TAG, HEAD + PART + TAG..HEAD + 2 * (PART + TAG));
        let moved = [&file[..HEAD], &file[second.clone()], &file[first], &file[second.end..]].concat();
        assert_eq!(opened(b"key", "a", &moved), None);
        file.drain(second);
        assert_eq!(opened(b"key", "a", &file), None);
        assert_eq!(opened(b"key", "a", b""), None);
    }
}
