//! Published ports: who has which, and the numbers of those that nobody chose.
//!
//! In: what a service asks for and had before. Out: its ports in the order of its spec, or why it cannot have them
//! (reference `swarm-behaviour.md` §13, "Ports").

use imbl::OrdSet;
use racimo_common::id::{RandomId, ServiceId};
use racimo_common::object::{EndpointMode, EndpointSpec, Port, PortMode, Protocol};

/// Where ports come from that nobody chose (Docker's).
const DYNAMIC: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// Why a service cannot have the ports it asks for. SwarmKit's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPorts {
    /// One port of one protocol twice.
    #[error("EndpointSpec: duplicate published ports provided")]
    Twice,
    /// Nothing stands for its tasks that a port could lead to.
    #[error("EndpointSpec: port published with ingress mode can't be used with dnsrr mode")]
    Dnsrr,
    /// Another service has it.
    #[error("port '{port}' is already in use by service {by} as {}", how(*mode))]
    Taken {
        /// The port.
        port: u16,
        /// The service.
        by: ServiceId,
        /// What it has it as.
        mode: PortMode,
    },
    /// All of 30000-32767 are taken.
    #[error("dynamic port space is exhausted")]
    Exhausted,
}

pub(crate) fn how(mode: PortMode) -> &'static str {
    match mode {
        PortMode::Ingress => "an ingress port",
        PortMode::Host => "a host-published port",
    }
}

/// All published ports of all services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    taken: OrdSet<(Protocol, u16, PortMode, ServiceId)>,
    cursor: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { taken: OrdSet::new(), cursor: *DYNAMIC.start() }
    }
}

impl Ports {
    /// Whether no port is published.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// Notes that the service has these.
    pub fn note(&mut self, service: ServiceId, ports: &[Port]) {
        for port in ports.iter().filter(|port| port.published > 0) {
            self.taken.insert((port.protocol, port.published, port.mode, service));
        }
    }

    /// The service has these no more.
    pub fn give_back(&mut self, service: ServiceId, ports: &[Port]) {
        for port in ports {
            self.taken.remove(&(port.protocol, port.published, port.mode, service));
        }
    }

    /// Gives a service the ports it asks for; it must have given back its earlier ones. A number that nobody chose is
    /// the one of the first of the `earlier` ports with the same name, target and protocol.
    ///
    /// # Errors
    /// Why it cannot have them; then nothing was given.
    pub fn give(
        &mut self,
        service: ServiceId,
        spec: &EndpointSpec,
        earlier: &[&[Port]],
    ) -> Result<Vec<Port>, BadPorts> {
        let mut ports = spec.ports.clone();
        let chosen = |port: &Port| port.published > 0;
        for (place, port) in ports.iter().enumerate().filter(|(_, port)| chosen(port)) {
            if ports[..place].iter().any(|other| same_number(other, port)) {
                return Err(BadPorts::Twice);
            }
            self.free_for(service, port)?;
        }
        if spec.mode == EndpointMode::Dnsrr && ports.iter().any(|port| port.mode == PortMode::Ingress) {
            return Err(BadPorts::Dnsrr);
        }
        let mut cursor = self.cursor;
        for place in 0..ports.len() {
            // A host's port that nobody chose is each board's to choose.
            if chosen(&ports[place]) || ports[place].mode == PortMode::Host {
                continue;
            }
            let mut before = earlier.iter().flat_map(|list| list.iter()).filter(|old| {
                let same = old.name == ports[place].name && old.target == ports[place].target;
                same && old.protocol == ports[place].protocol && old.mode == PortMode::Ingress && chosen(old)
            });
            let usable = |number: u16| {
                let port = Port { published: number, ..ports[place].clone() };
                self.free_for(service, &port).is_ok() && !ports.iter().any(|other| same_number(other, &port))
            };
            let kept = before.find(|old| usable(old.published)).map(|old| old.published);
            let is_new = |number: &u16| usable(*number) && !self.is_taken(ports[place].protocol, *number);
            let fresh = || (cursor..=*DYNAMIC.end()).chain(*DYNAMIC.start()..cursor).find(is_new);
            let number = match kept {
                Some(number) => number,
                None => {
                    let number = fresh().ok_or(BadPorts::Exhausted)?;
                    cursor = if number == *DYNAMIC.end() { *DYNAMIC.start() } else { number + 1 };
                    number
                }
            };
            ports[place].published = number;
        }
        self.cursor = cursor;
        self.note(service, &ports);
        Ok(ports)
    }

    fn of_number(
        &self,
        protocol: Protocol,
        number: u16,
    ) -> impl Iterator<Item = &(Protocol, u16, PortMode, ServiceId)> {
        let first = (protocol, number, PortMode::Ingress, ServiceId::from_bits(0));
        self.taken.range(first..=(protocol, number, PortMode::Host, ServiceId::from_bits(u128::MAX)))
    }

    fn is_taken(&self, protocol: Protocol, number: u16) -> bool {
        self.of_number(protocol, number).next().is_some()
    }

    /// Whether no other service stands in the way: in the mesh a port is one service's, on boards the scheduler
    /// keeps them apart.
    fn free_for(&self, service: ServiceId, port: &Port) -> Result<(), BadPorts> {
        let clashes = |mode| port.mode == PortMode::Ingress || mode == PortMode::Ingress;
        match self.of_number(port.protocol, port.published).find(|(_, _, mode, by)| *by != service && clashes(*mode)) {
            Some((_, number, mode, by)) => Err(BadPorts::Taken { port: *number, by: *by, mode: *mode }),
            None => Ok(()),
        }
    }

    /// Where the search for the next one begins.
    pub fn cursor(&self) -> u16 {
        self.cursor
    }

    /// Goes on where a stored state left off.
    pub fn resume(&mut self, cursor: u16) {
        if DYNAMIC.contains(&cursor) {
            self.cursor = cursor;
        }
    }

    /// Goes on half of the way around.
    pub fn leap(&mut self) {
        let size = *DYNAMIC.end() - *DYNAMIC.start() + 1;
        self.cursor = DYNAMIC.start() + (self.cursor - DYNAMIC.start() + size / 2) % size;
    }
}

fn same_number(one: &Port, other: &Port) -> bool {
    one.published == other.published && one.protocol == other.protocol
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(number: u128) -> ServiceId {
        ServiceId::from_bits(number)
    }

    /// `80:8080/udp@host`; `:8080` is a port that nobody chose.
    fn port(text: &str) -> Port {
        let (text, mode) = match text.strip_suffix("@host") {
            Some(text) => (text, PortMode::Host),
            None => (text, PortMode::Ingress),
        };
        let (text, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (published, target) = text.split_once(':').expect("a colon");
        let protocol = Protocol::named(protocol).expect("a protocol");
        let published = if published.is_empty() { 0 } else { published.parse().expect("a port") };
        Port { name: None, protocol, target: target.parse().expect("a port"), published, mode }
    }

    fn ports(texts: &[&str]) -> EndpointSpec {
        EndpointSpec { mode: EndpointMode::Vip, ports: texts.iter().map(|text| port(text)).collect() }
    }

    fn numbers(given: &Result<Vec<Port>, BadPorts>) -> Vec<u16> {
        given.as_ref().expect("given").iter().map(|port| port.published).collect()
    }

    #[test]
    fn ports_that_nobody_chose() {
        let mut all = Ports::default();
        let first = all.give(service(1), &ports(&[":80", "30001:81", ":82", ":83@host"]), &[]);
        assert_eq!(numbers(&first), [30_000, 30_001, 30_002, 0]);
        let second = all.give(service(2), &ports(&[":80", "30003:9"]), &[]);
        assert_eq!(numbers(&second), [30_004, 30_003]);
        // Sticky, in another place; a new one does not get what just came back.
        let had = first.expect("given");
        all.give_back(service(1), &had);
        let moved = all.give(service(1), &ports(&[":84", ":82", ":80"]), &[&had]);
        assert_eq!(numbers(&moved), [30_005, 30_002, 30_000]);
        // Two alike keep one number each.
        let twins = ports(&[":80", ":80"]);
        let had = all.give(service(3), &twins, &[]).expect("given");
        all.give_back(service(3), &had);
        assert_eq!(all.give(service(3), &twins, &[&had]), Ok(had));
    }

    #[test]
    fn the_numbers_run_out_and_come_back() {
        let mut all = Ports::default();
        let many = EndpointSpec { ports: vec![port(":80"); DYNAMIC.len()], ..EndpointSpec::default() };
        let given = all.give(service(1), &many, &[]).expect("given");
        assert_eq!(all.give(service(2), &ports(&[":80"]), &[]), Err(BadPorts::Exhausted));
        assert_eq!(numbers(&all.give(service(2), &ports(&[":80/udp"]), &[])), [30_000]);
        all.give_back(service(1), &given[7..8]);
        assert_eq!(numbers(&all.give(service(3), &ports(&[":80"]), &[])), [30_007]);
    }

    #[track_caller]
    fn check(have: &[&str], want: &[&str], error: Option<&str>) {
        let mut all = Ports::default();
        all.give(service(1), &ports(have), &[]).expect("given");
        let found = all.give(service(2), &ports(want), &[]);
        assert_eq!(found.err().map(|error| error.to_string()).as_deref(), error, "{have:?} {want:?}");
    }

    #[test]
    fn conflicts() {
        let ingress = "port '80' is already in use by service 0000000000000000000000001 as an ingress port";
        let host = "port '80' is already in use by service 0000000000000000000000001 as a host-published port";
        check(&["80:1"], &["80:2"], Some(ingress));
        check(&["80:1"], &["80:2@host"], Some(ingress));
        check(&["80:1@host"], &["80:2"], Some(host));
        check(&["80:1@host"], &["80:1@host"], None);
        check(&["80:1"], &["80:2/udp", "81:2"], None);
        check(&[], &["80:1", "80:2@host"], Some("EndpointSpec: duplicate published ports provided"));
        check(&[], &["80:1", "80:1/udp", "80:1/sctp", ":1", ":1"], None);
        let round_robin = EndpointSpec { mode: EndpointMode::Dnsrr, ..ports(&["80:1"]) };
        assert_eq!(Ports::default().give(service(1), &round_robin, &[]), Err(BadPorts::Dnsrr));
        let round_robin = EndpointSpec { mode: EndpointMode::Dnsrr, ..ports(&["80:1@host"]) };
        assert!(Ports::default().give(service(1), &round_robin, &[]).is_ok());
    }
}
