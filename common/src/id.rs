//! Identifiers: 128 random bits, shown as 25 characters of base 36 (the form Docker users know).
//!
//! In JSON and text an id is its 25 characters; in MessagePack it is 16 bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Characters in a written id: `u128::MAX` needs 25 digits in base 36.
pub const ID_CHARS: usize = 25;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id: expected {ID_CHARS} characters of a-z and 0-9")]
pub struct BadId;

fn write_base36(mut value: u128) -> [u8; ID_CHARS] {
    let mut text = [b'0'; ID_CHARS];
    for place in text.iter_mut().rev() {
        let digit = u8::try_from(value % 36).unwrap_or(0);
        *place = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
        value /= 36;
    }
    text
}

fn read_base36(text: &str) -> Result<u128, BadId> {
    if text.len() != ID_CHARS {
        return Err(BadId);
    }
    text.bytes().try_fold(0u128, |value, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'z' => byte - b'a' + 10,
            _ => return Err(BadId),
        };
        value.checked_mul(36).and_then(|v| v.checked_add(u128::from(digit))).ok_or(BadId)
    })
}

/// An id that can be drawn from an [`IdSource`].
pub trait RandomId {
    /// The id with these bits.
    fn from_bits(bits: u128) -> Self;
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// The id's 128 bits.
            pub fn bits(self) -> u128 { self.0 }
        }
        impl RandomId for $name {
            fn from_bits(bits: u128) -> Self { Self(bits) }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let text = write_base36(self.0);
                f.pad(std::str::from_utf8(&text).unwrap_or_default())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> { read_base36(text).map(Self) }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if s.is_human_readable() { s.collect_str(self) } else { s.serialize_bytes(&self.0.to_be_bytes()) }
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let bits = if d.is_human_readable() {
                    read_base36(&String::deserialize(d)?).map_err(de::Error::custom)?
                } else {
                    d.deserialize_bytes(BitsVisitor)?
                };
                Ok(Self(bits))
            }
        }
    )*};
}

struct BitsVisitor;

impl<'de> de::Visitor<'de> for BitsVisitor {
    type Value = u128;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("16 bytes")
    }
    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<u128, E> {
        bytes.try_into().map(u128::from_be_bytes).map_err(|_| E::invalid_length(bytes.len(), &self))
    }
}

ids! {
    /// A board (or manager host) that is a member of the cluster.
    NodeId
    /// A service.
    ServiceId
    /// One task: one attempt to run one container.
    TaskId
    /// The cluster; the organisation name in its certificates.
    ClusterId
    /// A secret or a config: what tasks depend on beside their image.
    DependencyId
    /// A network.
    NetworkId
}

/// Draws ids; seeded, so that a run can be repeated.
#[derive(Debug, Clone)]
pub struct IdSource(fastrand::Rng);

impl IdSource {
    /// A source that always draws the same ids for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// The next id.
    pub fn draw<T: RandomId>(&mut self) -> T {
        T::from_bits(self.0.u128(..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_round_trip() {
        let mut ids = IdSource::seeded(7);
        for bits in [0, 1, 35, 36, u128::MAX].map(NodeId).into_iter().chain((0..100).map(|_| ids.draw())) {
            assert_eq!(bits.to_string().len(), ID_CHARS);
            assert_eq!(bits.to_string().parse(), Ok(bits));
            let packed = rmp_serde::to_vec(&bits).expect("packs");
            assert_eq!(packed.len(), 18);
            assert_eq!(rmp_serde::from_slice::<NodeId>(&packed).expect("unpacks"), bits);
            let json = serde_json::to_string(&bits).expect("json");
            assert_eq!(serde_json::from_str::<NodeId>(&json).expect("json"), bits);
        }
    }

    #[test]
    fn bad_texts_are_refused() {
        for text in ["", "web", "zzzzzzzzzzzzzzzzzzzzzzzzz", "0000000000000000000000000 ", "A000000000000000000000000"]
        {
            assert_eq!(text.parse::<TaskId>(), Err(BadId), "{text}");
        }
    }
}
