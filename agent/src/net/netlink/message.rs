//! Netlink messages as bytes: a bounded builder, and readers that take any bytes.
//!
//! A message is a header of 16 bytes (length, kind, flags, number, port), a header of its protocol, and attributes:
//! length, kind, value, each padded to 4 bytes. Numbers are in the machine's byte order unless the protocol says
//! otherwise.

use std::fmt;
use std::net::Ipv4Addr;

use crate::limits::NETLINK_BATCH_MAX;

/// Bytes of a message's header.
const HEADER: usize = 16;
/// The bit of an attribute's kind that says it holds attributes.
const NESTED: u16 = 0x8000;
const KIND_MASK: u16 = 0x3fff;

/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `NLM_F_ACK`: the kernel answers also if all went well.
pub(super) const ACK: u16 = 4;
/// `NLM_F_DUMP`: list all.
pub const DUMP: u16 = 0x300;
/// `NLM_F_CREATE`.
pub(super) const CREATE: u16 = 0x400;
/// `NLM_F_EXCL`: refuse what is there already.
pub(super) const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_REPLACE`.
pub(super) const REPLACE: u16 = 0x100;
/// `NLM_F_APPEND`.
pub(super) const APPEND: u16 = 0x800;

/// Which refusal of a message is as good as success. It travels in the message's number, so that an answer says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tolerate {
    /// None.
    Nothing,
    /// That it is there already.
    Existing,
    /// That it is not there.
    Missing,
}

const TOLERATE_SHIFT: u32 = 28;
const NUMBER_MASK: u32 = (1 << TOLERATE_SHIFT) - 1;

impl Tolerate {
    /// Whether this message may fail so.
    pub(super) fn allows(sequence: u32, errno: i32) -> bool {
        match sequence >> TOLERATE_SHIFT {
            1 => errno == libc::EEXIST,
            2 => matches!(errno, libc::ENOENT | libc::ENODEV | libc::ESRCH | libc::ENXIO | libc::EADDRNOTAVAIL),
            _ => false,
        }
    }
}

/// The number of a message in its batch, from its sequence number.
pub(super) fn number(sequence: u32) -> u32 {
    sequence & NUMBER_MASK
}

/// Messages to be sent together. Beyond its limit it takes nothing more and is refused whole when it is sent.
#[derive(Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where the last message starts.
    start: usize,
    count: u32,
    full: bool,
}

impl fmt::Debug for Batch {
    /// Without its contents: there may be keys in them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} messages, {} bytes)", self.count, self.bytes.len())
    }
}

impl Batch {
    /// An empty one.
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), start: 0, count: 0, full: false }
    }

    /// How many messages there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether it took all that was put in.
    pub fn is_whole(&self) -> bool {
        !self.full
    }

    /// The bytes of all messages.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Forgets all messages; keeps at most a little memory for the next ones.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(4096);
        (self.start, self.count, self.full) = (0, 0, false);
    }

    /// Overwrites the contents before they are given back: they held a key.
    pub fn wipe(&mut self) {
        self.bytes.fill(0);
        std::hint::black_box(&mut self.bytes);
        self.clear();
    }

    /// Begins a message with its protocol's header; attributes that follow belong to it.
    pub fn begin(&mut self, kind: u16, flags: u16, tolerate: Tolerate, header: &[u8]) -> &mut Self {
        self.count += 1;
        let sequence = (self.count & NUMBER_MASK) | (tolerate as u32) << TOLERATE_SHIFT;
        self.start = self.bytes.len();
        if self.room(HEADER + header.len() + 4) {
            self.bytes.extend_from_slice(&0_u32.to_ne_bytes());
            self.bytes.extend_from_slice(&kind.to_ne_bytes());
            self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
            self.bytes.extend_from_slice(&sequence.to_ne_bytes());
            self.bytes.extend_from_slice(&0_u32.to_ne_bytes());
        }
        self.raw(header)
    }

    /// Sets a flag of the last message.
    pub(super) fn flag_last(&mut self, flag: u16) {
        if let Some(low) = self.bytes.get_mut(self.start + 6..self.start + 8) {
            let flags = u16::from_ne_bytes([low[0], low[1]]) | flag;
            low.copy_from_slice(&flags.to_ne_bytes());
        }
    }

    /// Appends bytes as they are, padded.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        if self.room(bytes.len() + 4) {
            self.bytes.extend_from_slice(bytes);
            self.finish();
        }
        self
    }

    /// Appends an attribute.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let Ok(length) = u16::try_from(value.len() + 4) else {
            self.full = true;
            return self;
        };
        if self.room(value.len() + 8) {
            self.bytes.extend_from_slice(&length.to_ne_bytes());
            self.bytes.extend_from_slice(&kind.to_ne_bytes());
            self.bytes.extend_from_slice(value);
            self.finish();
        }
        self
    }

    /// Appends a text that ends with a NUL. What follows a NUL in it is cut.
    pub fn text(&mut self, kind: u16, text: &str) -> &mut Self {
        let text = text.split('\0').next().unwrap_or_default();
        let Ok(length) = u16::try_from(text.len() + 5) else {
            self.full = true;
            return self;
        };
        if self.room(text.len() + 9) {
            self.bytes.extend_from_slice(&length.to_ne_bytes());
            self.bytes.extend_from_slice(&kind.to_ne_bytes());
            self.bytes.extend_from_slice(text.as_bytes());
            self.bytes.push(0);
            self.finish();
        }
        self
    }

    /// Appends a byte.
    pub fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.attribute(kind, &[value])
    }

    /// Appends a number in the machine's byte order.
    pub fn u16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Appends a number in the machine's byte order.
    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Appends a number in the network's byte order.
    pub fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Appends an IPv4 address.
    pub fn ip(&mut self, kind: u16, address: Ipv4Addr) -> &mut Self {
        self.attribute(kind, &address.octets())
    }

    /// Appends an attribute that holds what `fill` appends.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.open(kind);
        fill(self);
        self.close(start)
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.attribute(kind | NESTED, &[]);
        start
    }

    fn close(&mut self, start: usize) -> &mut Self {
        match (u16::try_from(self.bytes.len() - start), self.bytes.get_mut(start..start + 2)) {
            (Ok(length), Some(place)) if !self.full => place.copy_from_slice(&length.to_ne_bytes()),
            _ => self.full = true,
        }
        self
    }

    /// Whether so many bytes go in; if not, nothing does any more.
    fn room(&mut self, bytes: usize) -> bool {
        self.full |= self.bytes.len() + bytes > NETLINK_BATCH_MAX;
        !self.full
    }

    /// Pads, and tells the message its length.
    fn finish(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let length = u32::try_from(self.bytes.len() - self.start).unwrap_or(u32::MAX);
        if let Some(place) = self.bytes.get_mut(self.start..self.start + 4) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
    }
}

/// A message that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its kind.
    pub kind: u16,
    /// Its flags.
    pub flags: u16,
    /// The number of the message that it answers.
    pub sequence: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The attributes behind a protocol's header of so many bytes; none if it is shorter.
    pub fn attributes(&self, header: usize) -> Attributes<'a> {
        Attributes(self.body.get(header..).unwrap_or_default())
    }
}

/// The messages in what was received; ends at the first that is not one.
#[derive(Debug, Clone)]
pub struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = usize::try_from(u32_at(self.0, 0)?).ok()?;
        let message = self.0.get(..length).filter(|_| length >= HEADER)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: u16_at(message, 4)?,
            flags: u16_at(message, 6)?,
            sequence: u32_at(message, 8)?,
            body: &message[HEADER..],
        })
    }
}

/// An attribute that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its kind, without flags.
    pub kind: u16,
    /// Its value.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The attributes inside.
    pub fn nested(&self) -> Attributes<'a> {
        Attributes(self.value)
    }

    /// A number in the machine's byte order; none: too short.
    pub fn u16(&self) -> Option<u16> {
        u16_at(self.value, 0)
    }

    /// A number in the machine's byte order; none: too short.
    pub fn u32(&self) -> Option<u32> {
        u32_at(self.value, 0)
    }

    /// A number in the network's byte order; none: too short.
    pub fn be32(&self) -> Option<u32> {
        u32_at(self.value, 0).map(u32::from_be)
    }

    /// An IPv4 address; none: of another length.
    pub fn ip(&self) -> Option<Ipv4Addr> {
        <[u8; 4]>::try_from(self.value).ok().map(Ipv4Addr::from)
    }

    /// A hardware address; none: of another length.
    pub fn mac(&self) -> Option<[u8; 6]> {
        self.value.try_into().ok()
    }

    /// A text, up to its NUL; empty if it is not one.
    pub fn text(&self) -> &'a str {
        let end = self.value.iter().position(|byte| *byte == 0).unwrap_or(self.value.len());
        std::str::from_utf8(&self.value[..end]).unwrap_or_default()
    }
}

/// The attributes in some bytes; ends at the first that is not one.
#[derive(Debug, Clone)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// The first attribute of this kind.
    pub fn get(&self, kind: u16) -> Option<Attribute<'a>> {
        self.clone().find(|attribute| attribute.kind == kind)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let length = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & KIND_MASK;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Attribute { kind, value })
    }
}

/// The number at this place; none: outside.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*bytes))
}

/// The number at this place; none: outside.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_read() {
        let mut batch = Batch::new();
        batch.begin(16, CREATE, Tolerate::Existing, &[1, 2, 3, 4, 5]).text(3, "rc-mesh\0x").u8(4, 7).nest(18, |b| {
            b.text(1, "vxlan").nest(2, |b| {
                b.u32(1, 4096).u16(9, 1).be32(2, 1).ip(4, Ipv4Addr::LOCALHOST);
            });
        });
        batch.begin(17, ACK, Tolerate::Nothing, &[]);
        let messages: Vec<Message> = Messages(batch.bytes()).collect();
        let [first, second] = messages[..] else { panic!("{messages:?}") };
        assert_eq!((first.kind, first.flags, number(first.sequence)), (16, CREATE | REQUEST, 1));
        assert!(Tolerate::allows(first.sequence, libc::EEXIST) && !Tolerate::allows(first.sequence, libc::ENOENT));
        assert_eq!((second.kind, second.flags, second.sequence), (17, ACK | REQUEST, 2));
        assert!(second.body.is_empty() && !Tolerate::allows(second.sequence, libc::EEXIST));
        let all: Vec<Attribute> = first.attributes(8).collect();
        assert_eq!(all.iter().map(|a| a.kind).collect::<Vec<_>>(), [3, 4, 18]);
        assert_eq!((all[0].text(), all[1].value), ("rc-mesh", &[7][..]));
        let data = first.attributes(8).get(18).unwrap().nested().get(2).unwrap().nested();
        assert_eq!(data.get(1).unwrap().u32(), Some(4096));
        assert_eq!(data.get(9).unwrap().u16(), Some(1));
        assert_eq!(data.get(2).unwrap().be32(), Some(1));
        assert_eq!(data.get(4).unwrap().ip(), Some(Ipv4Addr::LOCALHOST));
        assert_eq!(data.get(5), None);
    }

    /// Every start of good bytes, and every byte of them changed: read to an end, never out of bounds.
    #[test]
    fn fuzz_damaged_bytes_are_read_to_an_end() {
        let mut batch = Batch::new();
        for kind in 0..3 {
            batch.begin(kind, 0, Tolerate::Nothing, &[2, 0, 0, 0]).text(1, "lo").nest(2, |b| {
                b.u32(1, 1).nest(2, |b| {
                    b.u16(1, 1);
                });
            });
        }
        let good = batch.bytes();
        for end in 0..=good.len() {
            walk(&good[..end]);
        }
        for at in 0..good.len() {
            for value in [0, 1, 3, 4, 5, 0x10, 0x7f, 0x80, 0xff] {
                let mut bad = good.to_vec();
                bad[at] = value;
                walk(&bad);
            }
        }
        let mut random = fastrand::Rng::with_seed(4);
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..random.usize(..96)).map(|_| random.u8(..)).collect();
            walk(&bytes);
        }
    }

    fn walk(bytes: &[u8]) {
        let mut read = 0;
        for message in Messages(bytes) {
            read += HEADER + message.body.len();
            for header in [0, 4, 16] {
                attributes(message.attributes(header), 4);
            }
        }
        assert!(read <= bytes.len());
        attributes(Attributes(bytes), 4);
    }

    fn attributes(all: Attributes<'_>, depth: u32) {
        let whole = all.0.len();
        let mut read = 0;
        for attribute in all {
            read += 4 + attribute.value.len();
            let _ = (attribute.u16(), attribute.u32(), attribute.be32(), attribute.ip(), attribute.mac());
            assert!(attribute.text().len() <= attribute.value.len());
            if depth > 0 {
                attributes(attribute.nested(), depth - 1);
            }
        }
        assert!(read <= whole);
    }

    #[test]
    fn beyond_its_limits_it_takes_nothing() {
        let mut batch = Batch::new();
        batch.begin(1, 0, Tolerate::Nothing, &[]).attribute(1, &[0; 65532]);
        assert!(!batch.is_whole() && batch.len() == HEADER);
        batch.clear();
        batch.begin(1, 0, Tolerate::Nothing, &[]).nest(1, |b| {
            for _ in 0..3 {
                b.attribute(1, &[0; 30_000]);
            }
        });
        assert!(!batch.is_whole(), "the nest is longer than its length can say");
        batch.clear();
        while batch.is_whole() {
            batch.begin(1, 0, Tolerate::Nothing, &[0; 4]).attribute(1, &[1; 60_000]);
        }
        assert!(batch.len() <= NETLINK_BATCH_MAX);
        let before = batch.len();
        batch.begin(1, 0, Tolerate::Nothing, &[0; 4]).text(1, "x").u8(1, 1);
        assert_eq!(batch.len(), before);
        batch.clear();
        assert!(batch.is_whole() && batch.is_empty());
    }

    #[test]
    fn contents_are_not_shown() {
        let mut batch = Batch::new();
        batch.begin(1, 0, Tolerate::Nothing, &[]).attribute(3, &[0xab; 32]);
        assert_eq!(format!("{batch:?}"), "Batch(1 messages, 52 bytes)");
        batch.wipe();
        assert!(batch.is_empty());
    }
}
