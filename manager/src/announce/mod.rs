//! The manager's announcement on the local network: a small multicast DNS responder (RFC 6762, 6763). Boards that cannot
//! reach the addresses they know ask for it; see [`racimo_common::mdns`] for what is announced.
//!
//! In: questions of anybody on a link. Out: the [`Service`]'s records. Core: this file. Shell: [`serve`].

pub mod serve;

use std::net::IpAddr;

use racimo_common::id::ClusterId;
use racimo_common::mdns::message::{A, AAAA, ANY, Data, PTR, Question, Record, SRV, TXT};
use racimo_common::mdns::{SERVICE, hint};

/// Asks which services there are (RFC 6763, 9).
const SERVICES: &str = "_services._dns-sd._udp.local";
/// Seconds that what names a host may be kept: RFC 6762's.
const HOST_TTL: u32 = 120;
/// Seconds that the rest may be kept: RFC 6762's.
const OTHER_TTL: u32 = 4500;
/// The same for askers that do not hear when something changes.
const LEGACY_TTL: u32 = 10;
/// Characters of a host name that go into ours, so that the hint fits the label too.
const HOST_CHARS_MAX: usize = 50;

/// What is announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    instance: String,
    host: String,
    mark: String,
    port: u16,
}

/// Who hears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// Everybody on the link.
    All,
    /// Everybody on the link: it is over.
    Goodbye,
    /// One that asks as in plain DNS.
    Legacy,
}

/// Records that answer, and further ones that will be asked for next.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// What was asked for.
    pub answers: Vec<Record>,
    /// What goes with it.
    pub further: Vec<Record>,
}

impl Service {
    /// The service of this cluster's manager on a machine of this name.
    pub fn new(hostname: &str, cluster: ClusterId, port: u16) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let own: String =
            hostname.split('.').next().unwrap_or_default().chars().map(plain).take(HOST_CHARS_MAX).collect();
        let hint = hint(cluster);
        let own = own.trim_matches('-');
        let label = if own.is_empty() { format!("racimo-{hint}") } else { format!("{own}-{hint}") };
        Self {
            instance: format!("{label}.{SERVICE}"),
            host: format!("{label}.local"),
            mark: format!("cluster={hint}"),
            port,
        }
    }

    /// The host name it goes by.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Everything there is to say on a link where the machine has these addresses.
    pub fn all(&self, addresses: &[IpAddr], to: To) -> Vec<Record> {
        let mut all = vec![self.pointer(to)];
        all.extend(self.place(to));
        all.extend(self.addresses(addresses, to));
        all
    }

    /// The answer to these questions on a link where the machine has these addresses; none: they are not about us.
    pub fn answer(&self, questions: &[Question], addresses: &[IpAddr], to: To) -> Option<Answer> {
        let mut answer = Answer::default();
        for question in questions {
            let wants = |kind: u16| question.kind == kind || question.kind == ANY;
            if question.name == SERVICE && wants(PTR) {
                add(&mut answer.answers, [self.pointer(to)]);
                add(&mut answer.further, self.place(to));
                add(&mut answer.further, self.addresses(addresses, to));
            } else if question.name == SERVICES && wants(PTR) {
                let data = Data::Pointer(SERVICE.to_owned());
                add(&mut answer.answers, [record(SERVICES, OTHER_TTL, false, data, to)]);
            } else if question.name == self.instance && (wants(SRV) || wants(TXT)) {
                add(&mut answer.answers, self.place(to).into_iter().filter(|record| wants(record.data.kind())));
                add(&mut answer.further, self.addresses(addresses, to));
            } else if question.name == self.host && (wants(A) || wants(AAAA)) {
                let mut own = self.addresses(addresses, to);
                own.retain(|record| wants(record.data.kind()));
                add(&mut answer.answers, own);
            }
        }
        answer.further.retain(|record| !answer.answers.contains(record));
        (!answer.answers.is_empty()).then_some(answer)
    }

    fn pointer(&self, to: To) -> Record {
        // Other managers have the same name.
        record(SERVICE, OTHER_TTL, false, Data::Pointer(self.instance.clone()), to)
    }

    fn place(&self, to: To) -> [Record; 2] {
        let service = Data::Service { port: self.port, host: self.host.clone() };
        let texts = Data::Texts(vec!["v=1".to_owned(), self.mark.clone()]);
        [record(&self.instance, HOST_TTL, true, service, to), record(&self.instance, OTHER_TTL, true, texts, to)]
    }

    fn addresses(&self, addresses: &[IpAddr], to: To) -> Vec<Record> {
        addresses.iter().map(|ip| record(&self.host, HOST_TTL, true, Data::Address(*ip), to)).collect()
    }
}

fn add(to: &mut Vec<Record>, records: impl IntoIterator<Item = Record>) {
    for record in records {
        if !to.contains(&record) {
            to.push(record);
        }
    }
}

fn record(name: &str, ttl: u32, unique: bool, data: Data, to: To) -> Record {
    let (ttl, unique) = match to {
        To::All => (ttl, unique),
        To::Goodbye => (0, unique),
        // Plain DNS knows no such bit.
        To::Legacy => (ttl.min(LEGACY_TTL), false),
    };
    Record { name: name.to_owned(), ttl, unique, data }
}

#[cfg(test)]
mod tests {
    use racimo_common::id::RandomId;
    use racimo_common::mdns;

    use super::*;

    fn service() -> Service {
        Service::new("Pi_1.lan", ClusterId::from_bits(1), 2377)
    }

    #[track_caller]
    fn check(name: &str, kind: u16, answers: usize, further: usize) {
        let question = Question { name: name.to_owned(), kind, unicast: false };
        let addresses = ["10.0.0.1", "fd00::1"].map(|ip| ip.parse().expect("an address"));
        let answer = service().answer(&[question.clone(), question], &addresses, To::All).unwrap_or_default();
        assert_eq!((answer.answers.len(), answer.further.len()), (answers, further), "{answer:?}");
    }

    #[test]
    fn who_asks_is_answered() {
        let hint = hint(ClusterId::from_bits(1));
        let (host, instance) = (format!("pi-1-{hint}.local"), format!("pi-1-{hint}._racimo._tcp.local"));
        assert_eq!((service().host(), service().instance.as_str()), (host.as_str(), instance.as_str()));
        check(SERVICE, PTR, 1, 4);
        check(SERVICE, ANY, 1, 4);
        check(SERVICE, A, 0, 0);
        check(SERVICES, PTR, 1, 0);
        check(&instance, SRV, 1, 2);
        check(&instance, TXT, 1, 2);
        check(&instance, ANY, 2, 2);
        check(&instance, A, 0, 0);
        check(&host, A, 1, 0);
        check(&host, AAAA, 1, 0);
        check(&host, ANY, 2, 0);
        check("pi-1.local", A, 0, 0);
        check("", PTR, 0, 0);
    }

    #[test]
    fn boards_understand_it() {
        let addresses = ["10.0.0.1".parse().expect("an address")];
        let question = mdns::managers_question();
        let hint = hint(ClusterId::from_bits(1));
        let answer = service().answer(&[question], &addresses, To::Legacy).expect("it is about us");
        assert!(answer.answers.iter().chain(&answer.further).all(|record| !record.unique && record.ttl <= LEGACY_TTL));
        let found = |records: &[Record]| mdns::managers(records, &hint);
        let manager = ["10.0.0.1:2377".parse().expect("an address")];
        assert_eq!(found(&[answer.answers, answer.further].concat()), manager);
        assert_eq!(found(&service().all(&addresses, To::All)), manager);
        assert_eq!(found(&service().all(&addresses, To::Goodbye)), []);
        let odd = Service::new(&"é".repeat(300), ClusterId::from_bits(1), 1);
        assert_eq!(odd.host(), format!("racimo-{hint}.local"));
        assert!(Service::new(&"x".repeat(300), ClusterId::from_bits(1), 1).host().len() < 64 + 6);
    }
}
