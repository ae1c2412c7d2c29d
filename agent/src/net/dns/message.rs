//! DNS messages (RFC 1035, 6891): reads queries, writes answers.
//!
//! In: bytes of a packet, which may be anything. Out: a [`Query`], or how to turn it down; bytes of an answer that
//! never exceed what the asker takes.

use std::net::Ipv4Addr;

use racimo_common::mdns::message::{LABEL_BYTES_MAX, NAME_BYTES_MAX, encode};

/// Bytes of a message's header.
pub const HEADER: usize = 12;
/// Bytes of an answer over UDP to somebody who does not say that it takes more.
pub const UDP_BYTES_MIN: usize = 512;
/// Bytes of an answer over UDP at most: it fits a packet on any path.
pub const UDP_BYTES_MAX: usize = UDP_BYTES_SAID as usize;
const UDP_BYTES_SAID: u16 = 1232;
/// Bytes of an answer over TCP at most.
pub const TCP_BYTES_MAX: usize = u16::MAX as usize;

/// Bytes of a record beside its data: a pointer to its name, type, class, time, length.
const RECORD: usize = 12;
const ADDITIONAL_MAX: u16 = 4;
const OPT: u16 = 41;
const TRUNCATED: u8 = 0x02;
/// Stands for a byte that no name of ours has: also for a dot inside a label.
const STRANGE: char = '\u{1}';

/// The type of an address record.
pub const A: u16 = 1;
/// The type of a record that names the servers of a zone.
pub const NS: u16 = 2;
/// The type of the record that begins a zone.
pub const SOA: u16 = 6;
/// The type of the name of an address.
pub const PTR: u16 = 12;
/// The type of a signed delegation.
pub const DS: u16 = 43;
/// The type of a zone's keys.
pub const DNSKEY: u16 = 48;
/// The question for all types.
pub const ANY: u16 = 255;
/// The class of the internet.
pub const IN: u16 = 1;

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The name is there.
    Fine = 0,
    /// The query makes no sense.
    Format = 1,
    /// Nobody could tell.
    Failed = 2,
    /// There is no such name.
    NoName = 3,
    /// Only questions are answered.
    NotImplemented = 4,
    /// The version of the OPT record is not ours.
    Version = 16,
}

/// A question that makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query<'a> {
    packet: &'a [u8],
    /// Where the question ends.
    end: usize,
    /// The name in lower case, labels with dots between them; empty: the root.
    pub name: String,
    /// The type of the records asked for.
    pub kind: u16,
    /// Their class.
    pub class: u16,
    /// Bytes of an answer over UDP, if the query says so.
    udp_bytes: Option<u16>,
}

/// Why a packet is not a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// Not a query at all: an answer to it might be answered again.
    Silent,
    /// Turned down with this code.
    Refused(Code),
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Records<'a> {
    /// No record.
    None,
    /// An address record for each.
    Addresses(&'a [Ipv4Addr]),
    /// The name of an address.
    Name(&'a str),
}

impl<'a> Query<'a> {
    /// Reads a packet.
    ///
    /// # Errors
    /// It is no question; [`refusal`] answers it.
    pub fn parse(packet: &'a [u8]) -> Result<Self, Unfit> {
        let format = Unfit::Refused(Code::Format);
        let is_query = packet.get(2).is_some_and(|flags| flags & 0x80 == 0);
        if packet.len() < HEADER || !is_query {
            return Err(Unfit::Silent);
        }
        if packet[2] & 0x78 != 0 {
            return Err(Unfit::Refused(Code::NotImplemented));
        }
        let count = |place: usize| short(packet, place).unwrap_or(0);
        if count(4) != 1 || count(6) != 0 || count(8) != 0 || count(10) > ADDITIONAL_MAX {
            return Err(format);
        }
        let (name, after) = question_name(packet).ok_or(format)?;
        let kind = short(packet, after).ok_or(format)?;
        let class = short(packet, after + 2).ok_or(format)?;
        let end = after + 4;
        let (mut udp_bytes, mut place) = (None, end);
        for _ in 0..count(10) {
            let (opt, next) = additional(packet, place).ok_or(format)?;
            if let Some(opt) = opt {
                if udp_bytes.is_some() {
                    return Err(format);
                }
                if opt.version != 0 {
                    return Err(Unfit::Refused(Code::Version));
                }
                udp_bytes = Some(opt.udp_bytes);
            }
            place = next;
        }
        Ok(Self { packet, end, name, kind, class, udp_bytes })
    }

    /// How many labels the name has.
    pub fn labels(&self) -> usize {
        if self.name.is_empty() { 0 } else { self.name.split('.').count() }
    }

    /// Bytes of an answer over UDP at most.
    pub fn udp_limit(&self) -> usize {
        self.udp_bytes.map_or(UDP_BYTES_MIN, |bytes| usize::from(bytes).clamp(UDP_BYTES_MIN, UDP_BYTES_MAX))
    }

    /// The answer, of at most `limit` bytes; what does not fit is left out, and said to be.
    pub fn answer(&self, code: Code, records: Records<'_>, ttl: u32, limit: usize) -> Vec<u8> {
        let opt = if self.udp_bytes.is_some() { opt_record(code) } else { Vec::new() };
        let mut out = head(self.packet, self.end, code);
        // Authoritative: these are our own names.
        out[2] |= 0x04;
        let mut count: u16 = 0;
        let mut put = |out: &mut Vec<u8>, kind: u16, data: &[u8]| {
            let size = u16::try_from(data.len()).unwrap_or(0);
            if out.len() + RECORD + data.len() + opt.len() > limit || count == u16::MAX {
                out[2] |= TRUNCATED;
                return false;
            }
            // The name of the question, which begins behind the header.
            out.extend([0xc0, 12]);
            out.extend(kind.to_be_bytes());
            out.extend(IN.to_be_bytes());
            out.extend(ttl.to_be_bytes());
            out.extend(size.to_be_bytes());
            out.extend(data);
            count += 1;
            true
        };
        match records {
            Records::None => {}
            Records::Addresses(addresses) => {
                addresses.iter().all(|address| put(&mut out, A, &address.octets()));
            }
            Records::Name(name) => match encode(name) {
                Some(name) => drop(put(&mut out, PTR, &name)),
                None => out[2] |= TRUNCATED,
            },
        }
        out[6..8].copy_from_slice(&count.to_be_bytes());
        if !opt.is_empty() {
            out[11] = 1;
            out.extend(opt);
        }
        out
    }

    /// An answer without records.
    pub fn fail(&self, code: Code) -> Vec<u8> {
        let mut out = self.answer(code, Records::None, 0, UDP_BYTES_MIN);
        out[2] &= !0x04;
        out
    }

    /// The same query with another id, for somebody else.
    pub fn with_id(&self, id: u16) -> Vec<u8> {
        let mut out = self.packet.to_vec();
        out[..2].copy_from_slice(&id.to_be_bytes());
        out
    }

    /// Gives an answer from somebody else this query's id; answers whether it was one to this query sent as `id`, and
    /// with which code. `answer` may be its beginning only.
    pub fn adopt(&self, id: u16, answer: &mut [u8]) -> Option<u8> {
        if short(answer, 0) != Some(id) || answer.get(2)? & 0x80 == 0 {
            return None;
        }
        let code = answer.get(3)? & 0x0f;
        // Some leave the question out when they fail.
        let is_same = match short(answer, 4)? {
            0 => code != 0,
            _ => answer.get(HEADER..self.end)?.eq_ignore_ascii_case(&self.packet[HEADER..self.end]),
        };
        if !is_same {
            return None;
        }
        answer[..2].copy_from_slice(&self.packet[..2]);
        Some(code)
    }

    /// Somebody else's answer made to fit: one that is too long says so and has no records.
    pub fn fit(&self, mut answer: Vec<u8>) -> Vec<u8> {
        // Who says so takes more from a server of its own choice.
        let limit = self.udp_bytes.map_or(UDP_BYTES_MIN, |bytes| usize::from(bytes).max(UDP_BYTES_MIN));
        if answer.len() > limit {
            answer.truncate(self.end);
            answer[2] |= TRUNCATED;
            answer[6..HEADER].fill(0);
        }
        answer
    }
}

/// What answers a packet that is no question; none: nothing does.
pub fn refusal(packet: &[u8], unfit: Unfit) -> Option<Vec<u8>> {
    let Unfit::Refused(code) = unfit else { return None };
    let mut out = head(packet, HEADER, code);
    out[4..6].fill(0);
    if code == Code::Version {
        out[11] = 1;
        out.extend(opt_record(code));
    }
    Some(out)
}

/// The header of an answer, with the packet's bytes up to `end`.
fn head(packet: &[u8], end: usize, code: Code) -> Vec<u8> {
    let mut out = packet[..end].to_vec();
    // An answer; what kind of query it was and whether recursion was wished is copied.
    out[2] = 0x80 | (packet[2] & 0x79);
    // Recursion is there.
    out[3] = 0x80 | (code as u8 & 0x0f);
    out[6..HEADER].fill(0);
    out
}

fn opt_record(code: Code) -> Vec<u8> {
    let [_, kind] = OPT.to_be_bytes();
    let [high, low] = UDP_BYTES_SAID.to_be_bytes();
    vec![0, 0, kind, high, low, code as u8 >> 4, 0, 0, 0, 0, 0]
}

fn short(bytes: &[u8], place: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(place..place.checked_add(2)?)?.try_into().ok()?))
}

/// The name of the question and the place behind it. It has no pointers: there is nothing before it.
fn question_name(packet: &[u8]) -> Option<(String, usize)> {
    let (mut name, mut place) = (String::new(), HEADER);
    loop {
        let length = *packet.get(place)?;
        place += 1;
        if length == 0 {
            return Some((name, place));
        }
        let label = packet.get(place..place + usize::from(length))?;
        if length > LABEL_BYTES_MAX || place + label.len() >= HEADER + NAME_BYTES_MAX {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        let plain = |byte: &u8| if byte.is_ascii_graphic() && *byte != b'.' { char::from(*byte) } else { STRANGE };
        name.extend(label.iter().map(plain).map(|c| c.to_ascii_lowercase()));
        place += label.len();
    }
}

struct Opt {
    udp_bytes: u16,
    version: u8,
}

/// Reads the additional record at this place: what it says if it is an OPT record, and the place behind it.
fn additional(packet: &[u8], mut place: usize) -> Option<(Option<Opt>, usize)> {
    let first = place;
    loop {
        match *packet.get(place)? {
            0 => break place += 1,
            length @ 1..=LABEL_BYTES_MAX => place += 1 + usize::from(length),
            // A pointer ends a name.
            0xc0.. => break place += 2,
            _ => return None,
        }
        if place - first > NAME_BYTES_MAX {
            return None;
        }
    }
    let is_root = place == first + 1;
    let kind = short(packet, place)?;
    let udp_bytes = short(packet, place + 2)?;
    let version = *packet.get(place + 5)?;
    let next = place + 10 + usize::from(short(packet, place + 8)?);
    let opt = (is_root && kind == OPT).then_some(Opt { udp_bytes, version });
    (next <= packet.len()).then_some((opt, next))
}

/// The address that a name below `in-addr.arpa` asks for.
pub fn reverse(name: &str) -> Option<Ipv4Addr> {
    let address: Ipv4Addr = name.strip_suffix(".in-addr.arpa")?.parse().ok()?;
    let [a, b, c, d] = address.octets();
    Some([d, c, b, a].into())
}
