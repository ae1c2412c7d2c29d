//! What managers announce on the local network, and how boards find it: DNS-based service discovery (RFC 6763) over
//! multicast DNS (RFC 6762).
//!
//! ```text
//! _racimo._tcp.local            PTR ─▶ HOST-HINT._racimo._tcp.local
//! HOST-HINT._racimo._tcp.local  SRV ─▶ port, HOST-HINT.local;  TXT: v=1, cluster=HINT
//! HOST-HINT.local               A, AAAA ─▶ the interface's addresses
//! ```
//!
//! An announcement is a hint where to dial and nothing more: anybody on the network can make one. Who answers there is
//! judged by TLS. All names have the hint in them, so that two clusters' managers never claim the same one.
//!
//! Cores: [`message`], and the functions here. Shell: [`ask`].

pub mod ask;
pub mod message;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use self::message::{A, Data, PTR, Question, Record};
use crate::id::ClusterId;
use crate::limits::MDNS_FOUND_MAX;
use crate::tls;

/// The service's name.
pub const SERVICE: &str = "_racimo._tcp.local";
/// The port of multicast DNS.
pub const PORT: u16 = 5353;
/// The group that everybody on a link listens to.
pub const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 251), PORT);

/// Tells clusters apart on one network; nothing can be learnt from it.
pub fn hint(cluster: ClusterId) -> String {
    let digest = tls::digest(format!("racimo mdns {cluster}").as_bytes());
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// Asks for managers.
pub fn managers_question() -> Question {
    Question { name: SERVICE.to_owned(), kind: PTR, unicast: true }
}

/// Asks for a host's IPv4 addresses.
pub fn host_question(host: &str) -> Question {
    Question { name: host.to_ascii_lowercase(), kind: A, unicast: true }
}

/// Whether multicast DNS is where to ask for this host.
pub fn is_local(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    name.len() > 6 && name.as_bytes()[name.len() - 6..].eq_ignore_ascii_case(b".local")
}

/// Where the managers of the cluster with this hint say they are. The records are one packet's: everything stands in it.
pub fn managers(records: &[Record], hint: &str) -> Vec<SocketAddr> {
    let mark = format!("cluster={hint}");
    let mut found = Vec::new();
    for place in records {
        let Data::Service { port, host } = &place.data else { continue };
        let is_ours = place.ttl > 0
            && *port != 0
            && place.name.strip_suffix(SERVICE).is_some_and(|instance| instance.len() > 1 && instance.ends_with('.'))
            && records.iter().any(|record| {
                record.name == place.name && matches!(&record.data, Data::Texts(texts) if texts.contains(&mark))
            });
        if !is_ours {
            continue;
        }
        for address in addresses(records, host) {
            let address = SocketAddr::new(address, *port);
            if found.len() < MDNS_FOUND_MAX && !found.contains(&address) {
                found.push(address);
            }
        }
    }
    found
}

/// The addresses of a host that another machine can dial.
pub fn addresses(records: &[Record], host: &str) -> Vec<IpAddr> {
    let of = |record: &Record| match &record.data {
        Data::Address(address) if record.ttl > 0 && record.name.eq_ignore_ascii_case(host) => Some(*address),
        Data::Address(_) | Data::Pointer(_) | Data::Service { .. } | Data::Texts(_) => None,
    };
    records.iter().filter_map(of).filter(is_dialled).take(MDNS_FOUND_MAX).collect()
}

fn is_dialled(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !(v4.is_broadcast() || v4.is_unspecified() || v4.is_loopback() || v4.is_multicast()),
        // A link-local one says nothing without its link.
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_loopback() || v6.is_multicast() || v6.is_unicast_link_local()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RandomId;

    fn record(name: &str, data: Data) -> Record {
        Record { name: name.to_owned(), ttl: 120, unique: true, data }
    }

    fn announced(instance: &str, hint: &str, addresses: &[&str]) -> Vec<Record> {
        let host = "pi.local".to_owned();
        let mut records = vec![
            record(instance, Data::Service { port: 2377, host: host.clone() }),
            record(instance, Data::Texts(vec!["v=1".to_owned(), format!("cluster={hint}")])),
        ];
        let address = |text: &&str| record(&host, Data::Address(text.parse().expect("an address")));
        records.extend(addresses.iter().map(address));
        records
    }

    #[track_caller]
    fn check(records: &[Record], want: &[&str]) {
        let found: Vec<String> = managers(records, "0a0b").iter().map(ToString::to_string).collect();
        assert_eq!(found, want);
    }

    #[test]
    fn managers_of_this_cluster() {
        let ours = "pi-0a0b._racimo._tcp.local";
        check(&announced(ours, "0a0b", &["10.0.0.1", "fd00::1"]), &["10.0.0.1:2377", "[fd00::1]:2377"]);
        check(&announced(ours, "ffff", &["10.0.0.1"]), &[]);
        check(&announced("pi._other._tcp.local", "0a0b", &["10.0.0.1"]), &[]);
        check(&announced(SERVICE, "0a0b", &["10.0.0.1"]), &[]);
        check(&announced("x_racimo._tcp.local", "0a0b", &["10.0.0.1"]), &[]);
        check(&announced(ours, "0a0b", &["127.0.0.1", "0.0.0.0", "224.0.0.1", "::1", "fe80::1"]), &[]);
        let mut gone = announced(ours, "0a0b", &["10.0.0.1"]);
        gone.iter_mut().for_each(|record| record.ttl = 0);
        check(&gone, &[]);
        let many: Vec<String> = (1..200).map(|n| format!("10.0.0.{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(managers(&announced(ours, "0a0b", &many), "0a0b").len(), MDNS_FOUND_MAX);
    }

    #[test]
    fn names() {
        assert!(is_local("pi.local") && is_local("PI.Local.") && !is_local(".local") && !is_local("pi.localx"));
        assert!(!is_local("local") && !is_local("é.loca"));
        let (one, other) = (hint(ClusterId::from_bits(1)), hint(ClusterId::from_bits(2)));
        assert!(one != other && one.len() == 8, "{one} {other}");
    }
}
