//! Multicast DNS messages (RFC 1035, 6762): reads questions and records, writes them.
//!
//! In: bytes of a packet, which may be anything. Out: a [`Message`] of bounded size, or nothing. A packet is taken whole
//! or not at all; records of other types than these are left out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::limits::{MDNS_QUESTIONS_MAX, MDNS_RECORDS_MAX, MDNS_TEXTS_MAX};

/// The type of an IPv4 address.
pub const A: u16 = 1;
/// The type of a pointer to another name.
pub const PTR: u16 = 12;
/// The type of texts.
pub const TXT: u16 = 16;
/// The type of an IPv6 address.
pub const AAAA: u16 = 28;
/// The type of a service's place.
pub const SRV: u16 = 33;
/// The question for all types.
pub const ANY: u16 = 255;

const IN: u16 = 1;
/// In a question: an answer by unicast is welcome. In a record: there are no others of this name and type.
const TOP: u16 = 0x8000;
const HEADER: usize = 12;
const ANSWER: u8 = 0x80;
const AUTHORITATIVE: u8 = 0x04;
const OPCODE: u8 = 0x78;
/// Bytes of a name in a packet, with its lengths (RFC 1035).
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of one label of a name (RFC 1035).
pub const LABEL_BYTES_MAX: u8 = 63;
/// Stands for a byte that no name of ours has: also for a dot inside a label.
const STRANGE: char = '\u{1}';

/// What a packet is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Somebody asks.
    Query {
        /// Comes back in an answer by unicast.
        id: u16,
        /// What for; what the asker knows already is not read.
        questions: Vec<Question>,
    },
    /// Somebody answers, or announces.
    Answer {
        /// The question's, if the answer came by unicast.
        id: u16,
        /// All records, wherever in the packet they stand.
        records: Vec<Record>,
    },
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The name in lower case, labels with dots between them.
    pub name: String,
    /// The type of the records asked for.
    pub kind: u16,
    /// Whether an answer by unicast is welcome.
    pub unicast: bool,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// As [`Question::name`].
    pub name: String,
    /// Seconds that it may be kept; 0: it is no longer true.
    pub ttl: u32,
    /// Whether there are no others of this name and type: caches drop what they have (the cache-flush bit).
    pub unique: bool,
    /// What it says.
    pub data: Data,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// An address of a host.
    Address(IpAddr),
    /// Another name.
    Pointer(String),
    /// Where a service is.
    Service {
        /// Its port.
        port: u16,
        /// Its host.
        host: String,
    },
    /// `key=value`, each.
    Texts(Vec<String>),
}

impl Data {
    /// The type of the record.
    pub fn kind(&self) -> u16 {
        match self {
            Self::Address(IpAddr::V4(_)) => A,
            Self::Address(IpAddr::V6(_)) => AAAA,
            Self::Pointer(_) => PTR,
            Self::Service { .. } => SRV,
            Self::Texts(_) => TXT,
        }
    }
}

/// Reads a packet. None: it is damaged, or something else.
pub fn read(packet: &[u8]) -> Option<Message> {
    let flags = *packet.get(2)?;
    let code = *packet.get(3)? & 0x0f;
    if flags & OPCODE != 0 || code != 0 {
        return None;
    }
    let id = short(packet, 0)?;
    let count = |place: usize| short(packet, place).map(usize::from);
    let (asked, records) = (count(4)?, [count(6)?, count(8)?, count(10)?].iter().sum::<usize>());
    if asked > MDNS_QUESTIONS_MAX || records > MDNS_RECORDS_MAX {
        return None;
    }
    let mut place = HEADER;
    let mut questions = Vec::new();
    for _ in 0..asked {
        let (name, after) = name(packet, place)?;
        let (kind, class) = (short(packet, after)?, short(packet, after + 2)?);
        place = after + 4;
        if class & !TOP == IN {
            questions.push(Question { name, kind, unicast: class & TOP != 0 });
        }
    }
    if flags & ANSWER == 0 {
        return Some(Message::Query { id, questions });
    }
    let mut found = Vec::new();
    for _ in 0..records {
        let (record, after) = record(packet, place)?;
        place = after;
        found.extend(record);
    }
    Some(Message::Answer { id, records: found })
}

/// A query.
pub fn query(id: u16, questions: &[Question]) -> Vec<u8> {
    let mut out = Writer::new(id, 0);
    questions.iter().for_each(|question| out.question(question));
    out.finish()
}

/// An answer; `questions` are repeated for those that ask as in plain DNS. `further` are records nobody asked for.
pub fn answer(id: u16, questions: &[Question], answers: &[Record], further: &[Record]) -> Vec<u8> {
    let mut out = Writer::new(id, ANSWER | AUTHORITATIVE);
    questions.iter().for_each(|question| out.question(question));
    answers.iter().for_each(|record| out.record(6, record));
    further.iter().for_each(|record| out.record(10, record));
    out.finish()
}

fn short(bytes: &[u8], place: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(place..place.checked_add(2)?)?.try_into().ok()?))
}

/// A name and the place behind it. Pointers only lead back, so that reading ends.
fn name(packet: &[u8], at: usize) -> Option<(String, usize)> {
    let (mut name, mut place, mut after) = (String::new(), at, None);
    let mut before = at;
    loop {
        match *packet.get(place)? {
            0 => return Some((name, after.unwrap_or(place + 1))),
            length @ 1..=LABEL_BYTES_MAX => {
                let label = packet.get(place + 1..place + 1 + usize::from(length))?;
                if !name.is_empty() {
                    name.push('.');
                }
                let plain =
                    |byte: &u8| if byte.is_ascii_graphic() && *byte != b'.' { char::from(*byte) } else { STRANGE };
                name.extend(label.iter().map(plain).map(|c| c.to_ascii_lowercase()));
                if name.len() > NAME_BYTES_MAX {
                    return None;
                }
                place += 1 + label.len();
            }
            0xc0.. => {
                let to = usize::from(short(packet, place)? & 0x3fff);
                after = after.or(Some(place + 2));
                if to >= before || to < HEADER {
                    return None;
                }
                (before, place) = (to, to);
            }
            _ => return None,
        }
    }
}

/// The record at this place, if it is of a type we know, and the place behind it.
fn record(packet: &[u8], at: usize) -> Option<(Option<Record>, usize)> {
    let (owner, place) = name(packet, at)?;
    let (kind, class) = (short(packet, place)?, short(packet, place + 2)?);
    let ttl = u32::from(short(packet, place + 4)?) << 16 | u32::from(short(packet, place + 6)?);
    let begin = place + 10;
    let end = begin + usize::from(short(packet, place + 8)?);
    let bytes = packet.get(begin..end)?;
    if class & !TOP != IN {
        return Some((None, end));
    }
    let data = match kind {
        A => Some(Data::Address(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into())),
        AAAA => Some(Data::Address(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into())),
        PTR => Some(Data::Pointer(name(packet, begin).filter(|(_, after)| *after == end)?.0)),
        SRV => {
            let (host, _) = name(packet, begin + 6).filter(|(_, after)| *after == end)?;
            Some(Data::Service { port: short(bytes, 4)?, host })
        }
        TXT => Some(Data::Texts(texts(bytes)?)),
        _ => None,
    };
    let data = data.map(|data| Record { name: owner, ttl, unique: class & TOP != 0, data });
    Some((data, end))
}

fn texts(mut bytes: &[u8]) -> Option<Vec<String>> {
    let mut texts = Vec::new();
    while let Some((&length, rest)) = bytes.split_first() {
        let text = rest.get(..usize::from(length))?;
        bytes = &rest[text.len()..];
        if texts.len() < MDNS_TEXTS_MAX {
            texts.push(String::from_utf8_lossy(text).into_owned());
        }
    }
    Some(texts)
}

/// Writes without pointers: our messages have a few short names.
struct Writer(Vec<u8>);

impl Writer {
    fn new(id: u16, flags: u8) -> Self {
        let mut out = vec![0; HEADER];
        out[..2].copy_from_slice(&id.to_be_bytes());
        out[2] = flags;
        Self(out)
    }

    fn count(&mut self, place: usize) {
        let count = short(&self.0, place).unwrap_or(0).saturating_add(1);
        self.0[place..place + 2].copy_from_slice(&count.to_be_bytes());
    }

    fn question(&mut self, question: &Question) {
        let Some(name) = encode(&question.name) else { return };
        self.0.extend(name);
        self.0.extend(question.kind.to_be_bytes());
        self.0.extend((IN | if question.unicast { TOP } else { 0 }).to_be_bytes());
        self.count(4);
    }

    /// `place`: of the section's count.
    fn record(&mut self, place: usize, record: &Record) {
        let data = match &record.data {
            Data::Address(IpAddr::V4(address)) => Some(address.octets().to_vec()),
            Data::Address(IpAddr::V6(address)) => Some(address.octets().to_vec()),
            Data::Pointer(name) => encode(name),
            Data::Service { port, host } => encode(host).map(|host| {
                // Priority and weight: there is one.
                let mut data = vec![0; 4];
                data.extend(port.to_be_bytes());
                data.extend(host);
                data
            }),
            Data::Texts(texts) => {
                let mut data = Vec::new();
                for text in texts {
                    let text = &text.as_bytes()[..text.len().min(usize::from(u8::MAX))];
                    data.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
                    data.extend(text);
                }
                Some(data)
            }
        };
        let (Some(name), Some(data)) = (encode(&record.name), data) else { return };
        let Ok(length) = u16::try_from(data.len()) else { return };
        self.0.extend(name);
        self.0.extend(record.data.kind().to_be_bytes());
        self.0.extend((IN | if record.unique { TOP } else { 0 }).to_be_bytes());
        self.0.extend(record.ttl.to_be_bytes());
        self.0.extend(length.to_be_bytes());
        self.0.extend(data);
        self.count(place);
    }

    fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// A name as in a packet; none: no such name can be.
pub fn encode(name: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=LABEL_BYTES_MAX).contains(length))?;
        out.push(length);
        out.extend(label.as_bytes());
    }
    out.push(0);
    (out.len() <= NAME_BYTES_MAX).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Record> {
        let record = |data| Record { name: "pi-1.local".to_owned(), ttl: 120, unique: true, data };
        vec![
            record(Data::Address("192.168.1.5".parse().expect("an address"))),
            record(Data::Address("fd00::5".parse().expect("an address"))),
            record(Data::Pointer("x._racimo._tcp.local".to_owned())),
            record(Data::Service { port: 2377, host: "pi-1.local".to_owned() }),
            record(Data::Texts(vec!["v=1".to_owned(), "cluster=ab".to_owned()])),
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        let question = |unicast| Question { name: "_racimo._tcp.local".to_owned(), kind: PTR, unicast };
        let questions = vec![question(true), question(false)];
        let asked = query(7, &questions);
        assert_eq!(read(&asked), Some(Message::Query { id: 7, questions: questions.clone() }));
        let (one, others) = (records()[..1].to_vec(), records()[1..].to_vec());
        let said = answer(9, &questions, &one, &others);
        assert_eq!(read(&said), Some(Message::Answer { id: 9, records: records() }));
        for cut in 0..said.len() {
            assert_eq!(read(&said[..cut]), None, "cut at {cut}");
        }
        // Names that cannot be are left out.
        let bad = Record { name: "a..b".to_owned(), ..records()[0].clone() };
        assert_eq!(read(&answer(0, &[], &[bad], &[])), Some(Message::Answer { id: 0, records: Vec::new() }));
    }

    /// As avahi answers: names are pointers.
    #[test]
    fn pointers_lead_back() {
        let mut packet = query(0, &[Question { name: "pi.local".to_owned(), kind: A, unicast: false }]);
        packet[2] = ANSWER;
        packet[7] = 1;
        packet.extend([0xc0, 12, 0, 1, 0x80, 1, 0, 0, 0, 120, 0, 4, 10, 0, 0, 1]);
        let Some(Message::Answer { records, .. }) = read(&packet) else { panic!("{packet:?}") };
        assert_eq!((records[0].name.as_str(), &records[0].data), ("pi.local", &Data::Address([10, 0, 0, 1].into())));
        // To itself, forward, into the header, and a loop of two.
        let at = packet.len() - 16;
        for to in [u8::try_from(at).expect("short"), u8::try_from(at + 1).expect("short"), 11] {
            packet[at + 1] = to;
            assert_eq!(read(&packet), None, "{to}");
        }
    }

    #[test]
    fn counts_are_bounded() {
        let question = Question { name: "a".to_owned(), kind: A, unicast: false };
        let fits = query(0, &vec![question.clone(); MDNS_QUESTIONS_MAX]);
        assert!(read(&fits).is_some());
        assert_eq!(read(&query(0, &vec![question; MDNS_QUESTIONS_MAX + 1])), None);
        let record = records()[0].clone();
        assert!(read(&answer(0, &[], &vec![record.clone(); MDNS_RECORDS_MAX], &[])).is_some());
        assert_eq!(read(&answer(0, &[], &vec![record; MDNS_RECORDS_MAX + 1], &[])), None);
    }
}
