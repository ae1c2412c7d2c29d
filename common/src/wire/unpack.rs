//! Reading MessagePack, as far as messages are made of it.
//!
//! In: bytes as rmp-serde writes them with named fields. Out: what serde makes of them. A structure is a map from
//! names, a variant is its name or a map from it to its value, and every type says what it expects. rmp-serde's own
//! reader takes whatever comes, for every type anew: that was a sixth of the agent's file.

use std::fmt;

use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use crate::limits::MESSAGE_DEPTH_MAX;

const NIL: u8 = 0xc0;
const FALSE: u8 = 0xc2;
const TRUE: u8 = 0xc3;
const NO_ITEMS: u8 = 0x90;

/// Why bytes are not what was expected.
#[derive(Debug)]
pub(super) struct Error(Box<str>);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(why: T) -> Self {
        Self(why.to_string().into())
    }
}

fn unexpected(head: u8, expected: &str) -> Error {
    Error(format!("invalid type: byte {head:#04x}, expected {expected}").into())
}

/// The value that `bytes` begin with, and how many bytes follow it.
pub(super) fn read<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<(T, usize), Error> {
    let mut reader = Reader { rest: bytes, depth: MESSAGE_DEPTH_MAX };
    Ok((T::deserialize(&mut reader)?, reader.rest.len()))
}

/// Of no use after an error.
struct Reader<'de> {
    rest: &'de [u8],
    /// How many levels more there may be.
    depth: usize,
}

enum Number {
    Unsigned(u64),
    Negative(i64),
}

impl<'de> Reader<'de> {
    fn take(&mut self, count: usize) -> Result<&'de [u8], Error> {
        let parts = self.rest.split_at_checked(count);
        let (part, rest) = parts.ok_or_else(|| Error("the message ends too early".into()))?;
        self.rest = rest;
        Ok(part)
    }

    fn byte(&mut self) -> Result<u8, Error> {
        Ok(self.take(1)?[0])
    }

    /// A number of so many bytes.
    fn unsigned(&mut self, bytes: usize) -> Result<u64, Error> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn length(&mut self, bytes: usize) -> Result<usize, Error> {
        Ok(usize::try_from(self.unsigned(bytes)?).unwrap_or(usize::MAX))
    }

    fn number(&mut self) -> Result<Number, Error> {
        let head = self.byte()?;
        Ok(match head {
            0..=0x7f => Number::Unsigned(head.into()),
            0xcc..=0xcf => Number::Unsigned(self.unsigned(1 << (head - 0xcc))?),
            0xe0..=0xff => Number::Negative(i8::from_be_bytes([head]).into()),
            0xd0..=0xd3 => {
                let bytes = 1 << (head - 0xd0);
                // The sign is the uppermost bit.
                let unused = 64 - 8 * bytes;
                let number = i64::from_ne_bytes((self.unsigned(bytes)? << unused).to_ne_bytes()) >> unused;
                u64::try_from(number).map_or(Number::Negative(number), Number::Unsigned)
            }
            _ => return Err(unexpected(head, "a number")),
        })
    }

    fn text(&mut self) -> Result<&'de str, Error> {
        let head = self.byte()?;
        let length = match head {
            0xa0..=0xbf => usize::from(head & 0x1f),
            0xd9..=0xdb => self.length(1 << (head - 0xd9))?,
            _ => return Err(unexpected(head, "a text")),
        };
        std::str::from_utf8(self.take(length)?).map_err(|error| Error(error.to_string().into()))
    }

    fn bytes(&mut self) -> Result<&'de [u8], Error> {
        let head = self.byte()?;
        let length = match head {
            0xc4..=0xc6 => self.length(1 << (head - 0xc4))?,
            _ => return Err(unexpected(head, "bytes")),
        };
        self.take(length)
    }

    /// How many items a list has.
    fn list(&mut self) -> Result<usize, Error> {
        let head = self.byte()?;
        let count = match head {
            0x90..=0x9f => usize::from(head & 0xf),
            0xdc | 0xdd => self.length(2 << (head - 0xdc))?,
            _ => return Err(unexpected(head, "a list")),
        };
        self.enter(count)
    }

    /// How many entries a map has.
    fn map(&mut self) -> Result<usize, Error> {
        let head = self.byte()?;
        let count = match head {
            0x80..=0x8f => usize::from(head & 0xf),
            0xde | 0xdf => self.length(2 << (head - 0xde))?,
            _ => return Err(unexpected(head, "a map")),
        };
        self.enter(count)
    }

    fn enter(&mut self, count: usize) -> Result<usize, Error> {
        self.depth = self.depth.checked_sub(1).ok_or_else(|| Error("over the limit of depth".into()))?;
        Ok(count)
    }

    fn leave(&mut self, left: usize) -> Result<(), Error> {
        self.depth += 1;
        if left == 0 { Ok(()) } else { Err(Error(format!("{left} items more than expected").into())) }
    }

    fn nothing(&mut self) -> Result<(), Error> {
        match self.byte()? {
            NIL | NO_ITEMS => Ok(()),
            head => Err(unexpected(head, "nothing")),
        }
    }

    /// Whether a variant has a value; its name comes next.
    fn variant(&mut self) -> Result<bool, Error> {
        if !matches!(self.rest.first(), Some(0x80..=0x8f | 0xde | 0xdf)) {
            return Ok(false);
        }
        match self.map()? {
            1 => Ok(true),
            count => Err(Error(format!("{count} variants at once").into())),
        }
    }

    /// Reads over a value, however deep it is.
    fn skip(&mut self) -> Result<(), Error> {
        let mut left = 1_u64;
        while left > 0 {
            left -= 1;
            let head = self.byte()?;
            let (bytes, values) = match head {
                0..=0x7f | NIL..=TRUE | 0xe0..=0xff => (0, 0),
                0x80..=0x8f => (0, 2 * u64::from(head & 0xf)),
                0x90..=0x9f => (0, u64::from(head & 0xf)),
                0xa0..=0xbf => (usize::from(head & 0x1f), 0),
                0xc4..=0xc6 => (self.length(1 << (head - 0xc4))?, 0),
                0xc7..=0xc9 => (self.length(1 << (head - 0xc7))?.saturating_add(1), 0),
                0xca | 0xcb => (4 << (head - 0xca), 0),
                0xcc..=0xcf => (1 << (head - 0xcc), 0),
                0xd0..=0xd3 => (1 << (head - 0xd0), 0),
                0xd4..=0xd8 => ((1 << (head - 0xd4)) + 1, 0),
                0xd9..=0xdb => (self.length(1 << (head - 0xd9))?, 0),
                0xdc | 0xdd => (0, self.unsigned(2 << (head - 0xdc))?),
                0xde | 0xdf => (0, 2 * self.unsigned(2 << (head - 0xde))?),
            };
            self.take(bytes)?;
            left = left.saturating_add(values);
        }
        Ok(())
    }

    fn visit_number<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        match self.number()? {
            Number::Unsigned(number) => visitor.visit_u64(number),
            Number::Negative(number) => visitor.visit_i64(number),
        }
    }

    fn visit_float<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        match *self.rest {
            [0xca, a, b, c, d, ref rest @ ..] => {
                self.rest = rest;
                visitor.visit_f32(f32::from_be_bytes([a, b, c, d]))
            }
            [0xcb, a, b, c, d, e, f, g, h, ref rest @ ..] => {
                self.rest = rest;
                visitor.visit_f64(f64::from_be_bytes([a, b, c, d, e, f, g, h]))
            }
            _ => self.visit_number(visitor),
        }
    }

    fn visit_list<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        let mut items = Items { left: self.list()?, reader: self };
        let value = visitor.visit_seq(&mut items)?;
        items.reader.leave(items.left)?;
        Ok(value)
    }

    fn visit_map<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        let mut items = Items { left: self.map()?, reader: self };
        let value = visitor.visit_map(&mut items)?;
        items.reader.leave(items.left)?;
        Ok(value)
    }
}

macro_rules! visit {
    ($($read:ident: $($method:ident)*;)*) => {$($(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.$read(visitor)
        }
    )*)*};
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Error;

    visit! {
        visit_number: deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64;
        visit_number: deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64;
        visit_float: deserialize_f32 deserialize_f64;
        visit_list: deserialize_seq;
        visit_map: deserialize_map;
        deserialize_str: deserialize_char deserialize_string deserialize_identifier;
        deserialize_bytes: deserialize_byte_buf;
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error("nothing of a message is without a type".into()))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.skip()?;
        visitor.visit_unit()
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.byte()? {
            FALSE => visitor.visit_bool(false),
            TRUE => visitor.visit_bool(true),
            head => Err(unexpected(head, "true or false")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.text()?)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_bytes(self.bytes()?)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.rest {
            [NIL, rest @ ..] => {
                self.rest = rest;
                visitor.visit_none()
            }
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.nothing()?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.visit_list(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.visit_list(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.visit_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let has_value = self.variant()?;
        let value = visitor.visit_enum(Variant { reader: self, has_value })?;
        if has_value {
            self.leave(0)?;
        }
        Ok(value)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// What is left of a list or a map.
struct Items<'a, 'de> {
    reader: &'a mut Reader<'de>,
    left: usize,
}

impl Items<'_, '_> {
    fn next(&mut self) -> bool {
        let is_some = self.left > 0;
        self.left -= usize::from(is_some);
        is_some
    }
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if self.next() { seed.deserialize(&mut *self.reader).map(Some) } else { Ok(None) }
    }

    /// No more than there can be in what is left of the message.
    fn size_hint(&self) -> Option<usize> {
        Some(self.left.min(self.reader.rest.len()))
    }
}

impl<'de> MapAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(&mut *self.reader)
    }
}

struct Variant<'a, 'de> {
    reader: &'a mut Reader<'de>,
    has_value: bool,
}

impl<'a, 'de> Variant<'a, 'de> {
    fn value(self) -> Result<&'a mut Reader<'de>, Error> {
        if self.has_value { Ok(self.reader) } else { Err(Error("a variant without its value".into())) }
    }
}

impl<'de> EnumAccess<'de> for Variant<'_, 'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        Ok((seed.deserialize(&mut *self.reader)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, 'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        if self.has_value { self.reader.nothing() } else { Ok(()) }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.value()?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.value()?.visit_list(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.value()?.visit_map(visitor)
    }
}

#[cfg(test)]
mod tests;
