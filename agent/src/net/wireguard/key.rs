//! The board's own key for encrypted networks: made here, kept in one file, told to nobody.
//!
//! The manager counts rotations (epochs). A board whose key belongs to an older one makes a new key; the public half
//! goes to the manager with its epoch, and from there to the other boards.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use racimo_common::durable::{self, is_there};
use racimo_common::object::WireguardKey;
use ring::agreement::{EphemeralPrivateKey, X25519};
use ring::rand::SecureRandom;

/// The file in the agent's data directory.
const FILE: &str = "wireguard.key";
const NEW: &str = "wireguard.key.new";
/// One that was set aside.
const OLD: &str = "wireguard.key.old";
/// What the file begins with.
const MAGIC: &[u8; 8] = b"rc-wg\x001\n";
/// Bytes of it: then the epoch, and the private key.
const LENGTH: usize = MAGIC.len() + 4 + 32;

/// A pair of keys of one rotation.
pub struct Key {
    /// The rotation it belongs to.
    pub epoch: u32,
    /// What other boards know.
    pub public: WireguardKey,
    private: Private,
}

/// 32 bytes that nobody sees, and that do not stay in memory.
struct Private([u8; 32]);

impl Drop for Private {
    fn drop(&mut self) {
        self.0.fill(0);
        std::hint::black_box(&mut self.0);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Key {
    /// The board's key, which is of this rotation at least: the one in its directory, or a new one.
    ///
    /// # Errors
    /// It cannot be read or kept, or the random source fails.
    pub fn load(data: &Path, epoch: u32, random: &dyn SecureRandom) -> io::Result<Self> {
        match read(data) {
            Ok(Some(key)) if key.epoch >= epoch => return Ok(key),
            Ok(_) => {}
            // Nothing is lost with it: other boards are told a new one.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => log::warn!("a new key is made: {error}"),
            Err(error) => return Err(error),
        }
        let mut private = Private([0; 32]);
        random.fill(&mut private.0).map_err(|_| failed())?;
        let key = Self::of(epoch, private)?;
        key.store(data)?;
        log::info!("this board has a new key for encrypted networks, of rotation {epoch}");
        Ok(key)
    }

    fn of(epoch: u32, private: Private) -> io::Result<Self> {
        let public = public(&private)?;
        Ok(Self { epoch, public, private })
    }

    /// The private half: for the kernel only.
    pub(super) fn private(&self) -> &[u8; 32] {
        &self.private.0
    }

    /// Replaces the file; a power cut leaves the old one or the new one.
    fn store(&self, data: &Path) -> io::Result<()> {
        let (path, new) = (data.join(FILE), data.join(NEW));
        durable::remove(&new)?;
        let mut file = durable::File::create(&new)?;
        file.write_all(MAGIC)?;
        file.write_all(&self.epoch.to_be_bytes())?;
        file.write_all(self.private())?;
        file.sync()?;
        durable::rename(&new, &path)?;
        durable::sync_dir(data)
    }
}

/// Removes the board's key: it belonged to a node that this board is no more.
///
/// # Errors
/// The file cannot be removed.
pub fn erase(data: &Path) -> io::Result<()> {
    [FILE, NEW, OLD].into_iter().try_for_each(|name| durable::remove(&data.join(name)).map(drop))?;
    durable::sync_dir(data)
}

/// Sets the board's key aside while the board becomes another node: a power cut leaves no node the key of another.
///
/// # Errors
/// The file cannot be moved.
pub fn set_aside(data: &Path) -> io::Result<()> {
    erase_old(data)?;
    if is_there(durable::rename(&data.join(FILE), &data.join(OLD)))? { durable::sync_dir(data) } else { Ok(()) }
}

/// The board is the node it was: its key is in its place again.
///
/// # Errors
/// The file cannot be moved.
pub fn put_back(data: &Path) -> io::Result<()> {
    is_there(durable::rename(&data.join(OLD), &data.join(FILE))).map(drop)
}

/// Removes the key that was set aside when the power went.
///
/// # Errors
/// The file cannot be removed.
pub fn erase_old(data: &Path) -> io::Result<()> {
    durable::remove(&data.join(OLD)).map(drop)
}

fn read(data: &Path) -> io::Result<Option<Key>> {
    let file = match File::open(data.join(FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = [0; LENGTH + 1];
    let mut filled = 0;
    let mut file = file.take(bytes.len() as u64);
    loop {
        match file.read(&mut bytes[filled..])? {
            0 => break,
            more => filled += more,
        }
    }
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, format!("{FILE} is damaged"));
    let rest = bytes[..filled].strip_prefix(MAGIC).ok_or_else(damaged)?;
    let (epoch, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
    let private = Private(rest.try_into().map_err(|_| damaged())?);
    let key = Key::of(u32::from_be_bytes(*epoch), private).map(Some);
    bytes.fill(0);
    std::hint::black_box(&mut bytes);
    key
}

/// The public half. ring computes it only for keys that it has drawn itself and shows to nobody, and its trait for
/// sources of random bytes is sealed, so that none of ours can be given to it; the one that draws given bytes is in a
/// module that ring calls deprecated. No other code for the curve comes into the agent for it. Should ring take it away,
/// this does not compile; should it draw otherwise, the test with the vectors of RFC 7748 fails.
#[expect(deprecated, reason = "ring has no other way in")]
fn public(private: &Private) -> io::Result<WireguardKey> {
    let drawn = ring::test::rand::FixedSliceRandom { bytes: &private.0 };
    let key = EphemeralPrivateKey::generate(&X25519, &drawn).map_err(|_| failed())?;
    let public = key.compute_public_key().map_err(|_| failed())?;
    <[u8; 32]>::try_from(public.as_ref()).map(WireguardKey::new).map_err(|_| failed())
}

fn failed() -> io::Error {
    io::Error::other("making a key failed: the random source does not work")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use ring::rand::SystemRandom;

    use super::*;

    fn bytes(hex: &str) -> [u8; 32] {
        let all: Vec<u8> = (0..64).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        all.try_into().unwrap()
    }

    #[test]
    fn the_public_half_is_that_of_rfc_7748() {
        // The first is from section 5.2; the others were computed with another implementation.
        for (private, want) in [
            (
                "0900000000000000000000000000000000000000000000000000000000000000",
                "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079",
            ),
            (
                "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
                "8f40c5adb68f25624ae5b214ea767a6ec94d829d3d7b5e1ad1ba6f3e2138285f",
            ),
            (
                "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
                "847c0d2c375234f365e660955187a3735a0f7613d1609d3a6a4d8c53aeaa5a22",
            ),
        ] {
            assert_eq!(*public(&Private(bytes(private))).unwrap(), bytes(want));
        }
    }

    #[test]
    fn a_key_stays_until_a_rotation() {
        let data = tempfile::tempdir().unwrap();
        let random = SystemRandom::new();
        let load = |epoch| Key::load(data.path(), epoch, &random).unwrap();
        let first = load(0);
        assert_eq!((load(0).public, load(0).epoch), (first.public, 0));
        let second = load(2);
        assert_ne!(second.public, first.public);
        // An older word of the manager's changes nothing.
        assert_eq!((load(1).public, load(1).epoch), (second.public, 2));
        let path = data.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(data.path()).unwrap().count(), 1);

        let text = format!("{second:?}");
        assert_eq!(text, "Key { epoch: 2, .. }");
    }

    #[test]
    fn a_key_that_is_set_aside_is_not_used() {
        let data = tempfile::tempdir().unwrap();
        let load = || Key::load(data.path(), 0, &SystemRandom::new()).unwrap().public;
        let first = load();
        set_aside(data.path()).unwrap();
        put_back(data.path()).unwrap();
        assert_eq!(load(), first);
        set_aside(data.path()).unwrap();
        // The power went.
        let second = load();
        assert_ne!(second, first);
        // What is older than the one that is there now never comes back.
        erase(data.path()).unwrap();
        assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0);
        fs::write(data.path().join(OLD), b"old").unwrap();
        set_aside(data.path()).unwrap();
        put_back(data.path()).unwrap();
        assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0);
        fs::write(data.path().join(OLD), b"old").unwrap();
        erase_old(data.path()).unwrap();
        assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_damaged_file_is_a_new_key() {
        let data = tempfile::tempdir().unwrap();
        let random = SystemRandom::new();
        let path = data.path().join(FILE);
        let first = Key::load(data.path(), 7, &random).unwrap();
        let whole = fs::read(&path).unwrap();
        for damaged in [&whole[..20], &[], &[whole.as_slice(), b"x"].concat(), &[b"x", &whole[1..]].concat()] {
            fs::write(&path, damaged).unwrap();
            // What a crash left is in nobody's way.
            fs::write(data.path().join(NEW), b"half").unwrap();
            let key = Key::load(data.path(), 3, &random).unwrap();
            assert_eq!(key.epoch, 3);
            assert_ne!(key.public, first.public);
        }
        fs::write(&path, &whole).unwrap();
        assert_eq!(Key::load(data.path(), 3, &random).unwrap().public, first.public);
    }
}
