//! Addresses: where to listen for agents, and what to tell them to dial.
//!
//! In: what the user said, the machine's addresses, what a name stands for. Out: an address to listen on; what agents are
//! [`Told`], and what is wrong with it. Keeps nothing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use racimo_common::net::is_real_link;
use racimo_common::wire::PORT;

use crate::ca::host_of;
use crate::limits::TOLD_ADDRESSES_MAX;

/// An address of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    /// The link's name.
    pub(super) name: String,
    /// The link's number.
    pub(super) index: u32,
    /// The address.
    pub(super) ip: IpAddr,
    /// Bits of it that its network has in common.
    pub(super) prefix: u8,
}

/// What there is to choose from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Machine {
    /// Its addresses.
    pub(super) addresses: Vec<Interface>,
    /// Its links, those without addresses too.
    pub(super) links: Vec<String>,
}

/// What agents are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    /// `host:port`, the one that is shown first.
    pub(super) managers: Vec<String>,
    /// The manager's own node's address.
    pub(super) ip: IpAddr,
}

/// What the user said about it.
enum Said<'a> {
    /// Nothing.
    Choose,
    /// This address.
    Address(SocketAddr),
    /// The addresses of a link.
    Link(&'a str, u16),
    /// What a name stands for.
    Name(&'a str, u16),
}

impl Told {
    fn ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let parsed = self.managers.iter().filter_map(|text| text.parse::<SocketAddr>().ok());
        parsed.map(|address| address.ip()).chain([self.ip])
    }
}

impl Machine {
    fn has(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|one| one.ip == ip)
    }

    fn of_link<'a>(&'a self, name: &'a str) -> impl Iterator<Item = IpAddr> + Clone + 'a {
        self.addresses.iter().filter(move |one| one.name == name).map(|one| one.ip)
    }

    /// What can change a decision: links to other machines, and what the user named; not what containers bring along, that
    /// comes and goes. `named`: `HOST[:PORT]`.
    pub(super) fn relevant(&self, named: &[&str]) -> Self {
        let hosts: Vec<&str> = named.iter().map(|text| host_of(text)).collect();
        let matters = |link: &str| is_real_link(link) || hosts.contains(&link);
        let addresses = self.addresses.iter();
        let is_named = |one: &Interface| hosts.iter().any(|host| host.parse() == Ok(one.ip));
        Self {
            addresses: addresses.filter(|one| matters(&one.name) || is_named(one)).cloned().collect(),
            links: self.links.iter().filter(|link| matters(link)).cloned().collect(),
        }
    }

    /// Addresses by which others may reach what listens there, IPv4 first.
    pub(super) fn reachable(&self, listen: SocketAddr) -> Vec<&Interface> {
        let listens = |ip: IpAddr| match listen.ip() {
            all if all.is_unspecified() => all.is_ipv6() || ip.is_ipv4(),
            one => one == ip,
        };
        let mut found: Vec<&Interface> = self
            .addresses
            .iter()
            .filter(|one| is_real_link(&one.name) && is_global(one.ip) && listens(one.ip))
            .collect();
        found.sort_by_key(|one| one.ip.is_ipv6());
        found
    }

    /// For messages.
    fn list(&self, listen: SocketAddr) -> String {
        let list: Vec<String> =
            self.reachable(listen).iter().map(|one| format!("{} on {}", one.ip, one.name)).collect();
        if list.is_empty() { "it has none".to_owned() } else { format!("it has {}", list.join(" and ")) }
    }
}

/// Whether it means something beyond its link.
pub(super) fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => !(v4.is_loopback() || v4.is_link_local() || v4.is_unspecified()),
        IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified()),
    }
}

/// `ADDRESS[:PORT]`, `:PORT` or an interface's name, as where to listen.
pub(super) fn listen(text: &str, machine: &Machine) -> Result<SocketAddr, String> {
    let (host, port) = split(text)?;
    let address = match host {
        "" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        host => match host.parse() {
            Ok(address) => address,
            Err(_) => of_link(host, machine)
                .ok_or_else(|| format!("{host:?} is neither an IP address nor a network interface with one"))?,
        },
    };
    Ok(SocketAddr::new(address, port))
}

/// The name to look up for this advertise address, if it is one.
pub(super) fn name<'a>(given: &'a str, listen: SocketAddr, machine: &Machine) -> Option<&'a str> {
    match said(given, listen, machine) {
        Ok(Said::Name(host, _)) => Some(host),
        Ok(Said::Choose | Said::Address(_) | Said::Link(..)) | Err(_) => None,
    }
}

/// What agents shall dial in a new cluster: what the user says, else the address that is listened on, else the only one
/// there is. `resolved`: what [`name`] stands for.
pub(super) fn advertise(
    given: &str,
    listen: SocketAddr,
    machine: &Machine,
    resolved: &[IpAddr],
) -> Result<Told, String> {
    match said(given, listen, machine)? {
        Said::Address(address) if address.ip().is_unspecified() => {
            Err("advertise address must be a non-zero IP address or network interface (with optional port number)"
                .to_owned())
        }
        Said::Address(address) => Ok(told([address].into(), address.ip())),
        Said::Link(name, port) => {
            let ip = of_link(name, machine).ok_or_else(|| format!("the network interface {name} has no address"))?;
            Ok(told([SocketAddr::new(ip, port)].into(), ip))
        }
        Said::Name(host, port) => {
            let Some(ip) = resolved.first() else {
                return Err(format!(
                    "{host:?} is neither an IP address nor a network interface, and no host has this name"
                ));
            };
            Ok(Told { managers: of_name(host, port, resolved), ip: *ip })
        }
        Said::Choose if !listen.ip().is_unspecified() => Ok(told([listen].into(), listen.ip())),
        Said::Choose => {
            let found = machine.reachable(listen);
            match found.as_slice() {
                [] => Err("could not choose an IP address to advertise: this board has no address but loopback; \
                           specify one with --advertise-addr"
                    .to_owned()),
                [one] => Ok(told([SocketAddr::new(one.ip, listen.port())].into(), one.ip)),
                many => {
                    let list: Vec<String> = many.iter().map(|one| format!("{} on {}", one.ip, one.name)).collect();
                    Err(format!(
                        "could not choose an IP address to advertise since this system has multiple addresses ({}) - \
                         specify one with --advertise-addr",
                        list.join(" and ")
                    ))
                }
            }
        }
    }
}

/// What agents shall dial now that the machine's addresses may be others, and what a person should know about it. `now`:
/// what they were told; `was_here`: whether that was an address of this machine once (with a router in between it need
/// never be).
pub(super) fn follow(
    given: &str,
    listen: SocketAddr,
    machine: &Machine,
    resolved: &[IpAddr],
    now: &Told,
    was_here: bool,
) -> (Told, Option<String>) {
    let of = |ips: Vec<IpAddr>, port: u16| {
        // The one that is known goes first while it is there: nobody has to change anything.
        let mut ips = ips;
        ips.sort_by_key(|ip| *ip != now.ip);
        let addresses = ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
        ips.first().map(|ip| told(addresses, *ip))
    };
    let everything = || machine.reachable(listen).iter().map(|one| one.ip).collect::<Vec<_>>();
    let said = match said(given, listen, machine) {
        Ok(said) => said,
        Err(fault) => return (now.clone(), Some(fault)),
    };
    match said {
        Said::Choose if !listen.ip().is_unspecified() => {
            // Whether it is there, `absent` says.
            (told([listen].into(), listen.ip()), None)
        }
        Said::Choose => match of(everything(), listen.port()) {
            Some(told) => (told, None),
            None => (now.clone(), Some("this machine has no address by which boards can reach it".to_owned())),
        },
        Said::Link(name, port) => {
            let ips: Vec<IpAddr> = machine.of_link(name).filter(|ip| is_global(*ip)).collect();
            let v4 = ips.iter().any(IpAddr::is_ipv4);
            match of(ips.into_iter().filter(|ip| ip.is_ipv4() == v4).collect(), port) {
                Some(told) => (told, None),
                None => (
                    now.clone(),
                    Some(format!("the network interface {name} has no address: boards are told the last one")),
                ),
            }
        }
        Said::Address(address) => {
            if machine.has(address.ip()) || !was_here {
                return (told([address].into(), address.ip()), None);
            }
            // Boards that can still hear it are told where else it is.
            let others = everything();
            let ip = others.first().copied().unwrap_or(address.ip());
            let all = std::iter::once(address).chain(others.into_iter().map(|ip| SocketAddr::new(ip, listen.port())));
            // When it is served there and nowhere else, `absent` says so.
            let warning = (address.ip() != listen.ip()).then(|| gone(&address.to_string(), listen, machine));
            (told(all.collect(), ip), warning)
        }
        Said::Name(host, port) => {
            if resolved.is_empty() {
                let warning = format!("the name {host}, which boards are told to dial, cannot be looked up here");
                return (now.clone(), Some(warning));
            }
            let ip = resolved.iter().copied().find(|ip| machine.has(*ip)).unwrap_or(resolved[0]);
            let mut managers = of_name(host, port, resolved);
            if machine.has(ip) || !was_here {
                return (Told { managers, ip }, None);
            }
            let others = everything();
            let ip = others.first().copied().unwrap_or(ip);
            managers.extend(others.iter().map(|ip| SocketAddr::new(*ip, listen.port()).to_string()));
            managers.truncate(TOLD_ADDRESSES_MAX);
            let warning = format!(
                "the name {host}, which boards are told to dial, does not lead to this machine any more ({}): change it \
                 where names are kept, or start pi-mgr serve with another --advertise-addr",
                machine.list(listen)
            );
            (Told { managers, ip }, Some(warning))
        }
    }
}

/// What a person should know about an address to listen on.
pub(super) fn absent(listen: SocketAddr, machine: &Machine) -> Option<String> {
    (!listen.ip().is_unspecified() && !machine.has(listen.ip())).then(|| {
        let all = machine.list(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), listen.port()));
        format!(
            "boards are to be served on {listen}, which is not an address of this machine ({all}): they can connect once it \
             is there"
        )
    })
}

/// What a person should know about what agents shall dial in a new cluster. Docker takes every address; one that is not
/// this machine's is right behind a router, and a slip elsewhere.
pub(super) fn foreign(told: &Told, listen: SocketAddr, machine: &Machine) -> Option<String> {
    let address = told.managers.first().filter(|_| !is_here(told, machine))?;
    Some(format!(
        "boards are told to dial {address}, which is not an address of this machine ({}): they reach it only if a router \
         forwards that to here. If none does, start pi-mgr serve with another --advertise-addr",
        machine.list(listen)
    ))
}

/// Whether any of what agents are told is an address of this machine.
pub(super) fn is_here(told: &Told, machine: &Machine) -> bool {
    told.ips().any(|ip| machine.has(ip))
}

/// Whether agents were told an address that this machine had and has no more.
pub(super) fn is_lost(told: &Told, before: &Machine, machine: &Machine) -> bool {
    told.ips().any(|ip| before.has(ip) && !machine.has(ip))
}

fn gone(address: &str, listen: SocketAddr, machine: &Machine) -> String {
    format!(
        "boards and people are told to dial {address}, which is not an address of this machine any more ({}): start \
         pi-mgr serve with --advertise-addr and an address, a network interface or a name",
        machine.list(listen)
    )
}

fn told(addresses: Vec<SocketAddr>, ip: IpAddr) -> Told {
    let mut managers: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    managers.truncate(TOLD_ADDRESSES_MAX);
    Told { managers, ip }
}

fn of_name(host: &str, port: u16, resolved: &[IpAddr]) -> Vec<String> {
    let addresses = resolved.iter().map(|ip| SocketAddr::new(*ip, port).to_string());
    std::iter::once(format!("{host}:{port}")).chain(addresses).take(TOLD_ADDRESSES_MAX).collect()
}

fn said<'a>(given: &'a str, listen: SocketAddr, machine: &Machine) -> Result<Said<'a>, String> {
    if given.is_empty() {
        return Ok(Said::Choose);
    }
    let with_port =
        given.parse::<SocketAddr>().is_ok() || given.rsplit_once(':').is_some_and(|(h, _)| !h.contains(':'));
    let (host, port) = if with_port { split(given)? } else { (given.trim_matches(['[', ']']), listen.port()) };
    if let Ok(ip) = host.parse() {
        return Ok(Said::Address(SocketAddr::new(ip, port)));
    }
    if machine.links.iter().any(|link| link == host) || machine.of_link(host).next().is_some() {
        return Ok(Said::Link(host, port));
    }
    let is_name = host.len() <= 253
        && host.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        });
    if is_name {
        Ok(Said::Name(host, port))
    } else {
        Err(format!("{host:?} is neither an IP address, a network interface nor a host name"))
    }
}

fn split(text: &str) -> Result<(&str, u16), String> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok((text, PORT));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| format!("invalid port in {text:?}"))?),
        None => (text, PORT),
    };
    Ok((host.trim_start_matches('[').trim_end_matches(']'), port))
}

/// A link's address, the first IPv4 one if there is any.
fn of_link(name: &str, machine: &Machine) -> Option<IpAddr> {
    let mut all = machine.of_link(name).filter(|ip| is_global(*ip) || ip.is_loopback());
    all.clone().find(IpAddr::is_ipv4).or_else(|| all.next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(list: &[(&str, &str)]) -> Machine {
        let address = |(index, (name, ip)): (u32, &(&str, &str))| Interface {
            name: (*name).to_owned(),
            index,
            ip: ip.parse().expect("an address"),
            prefix: 24,
        };
        Machine {
            addresses: (1..).zip(list).map(address).collect(),
            links: ["lo", "eth0", "wlan0"].map(str::to_owned).into(),
        }
    }

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().expect("an address")).collect()
    }

    #[track_caller]
    fn check(given: &str, listens: &str, has: &[(&str, &str)], want: Result<&str, &str>) {
        let has = machine(has);
        let resolved = if given.starts_with("pi.") { ips(&["192.168.1.5"]) } else { Vec::new() };
        let got = listen(listens, &has).and_then(|listens| advertise(given, listens, &has, &resolved));
        match (got, want) {
            (Ok(got), Ok(want)) => assert_eq!(got.managers.join(" "), want),
            (Err(got), Err(word)) => assert!(got.contains(word), "{got}"),
            (got, want) => panic!("{got:?}, not {want:?}"),
        }
    }

    #[test]
    fn what_agents_dial() {
        let one = [("lo", "127.0.0.1"), ("eth0", "192.168.1.5")];
        let two = [("eth0", "192.168.1.5"), ("wlan0", "192.168.2.5")];
        check("", "0.0.0.0:2377", &one, Ok("192.168.1.5:2377"));
        check("", "0.0.0.0:2377", &two, Err("multiple addresses (192.168.1.5 on eth0 and 192.168.2.5 on wlan0)"));
        check("", "0.0.0.0:2377", &[("lo", "127.0.0.1")], Err("--advertise-addr"));
        // Neither ours, nor Docker's, nor what has no meaning beyond the link.
        let ours =
            [("rc-mesh", "10.200.1.1"), ("rg-vpn", "10.9.9.9"), ("docker0", "172.17.0.1"), ("eth0", "169.254.1.1")];
        check("", "0.0.0.0:2377", &ours, Err("no address but loopback"));
        check("", "0.0.0.0:2377", &[&ours[..], &one[..]].concat(), Ok("192.168.1.5:2377"));
        check("10.0.0.1", "0.0.0.0:2377", &two, Ok("10.0.0.1:2377"));
        check("10.0.0.1:99", "0.0.0.0:2377", &two, Ok("10.0.0.1:99"));
        check("wlan0", "0.0.0.0", &two, Ok("192.168.2.5:2377"));
        check("wlan0:99", "0.0.0.0", &two, Ok("192.168.2.5:99"));
        check("wlan0", "0.0.0.0", &one, Err("wlan0 has no address"));
        check("nope", "0.0.0.0", &two, Err("no host has this name"));
        check("pi.lan", "0.0.0.0:5", &two, Ok("pi.lan:5 192.168.1.5:5"));
        check("pi.local:99", "0.0.0.0", &two, Ok("pi.local:99 192.168.1.5:99"));
        check("a b", "0.0.0.0", &two, Err("nor a host name"));
        check("0.0.0.0", "0.0.0.0", &two, Err("non-zero"));
        check("", "eth0:5", &two, Ok("192.168.1.5:5"));
        check("", ":5", &one, Ok("192.168.1.5:5"));
        check("", "1.2.3.4:x", &one, Err("invalid port"));
        check("", "eth9", &one, Err("neither an IP address nor"));
        check("fe80::1", "[::]:2377", &one, Ok("[fe80::1]:2377"));
    }

    /// `now` was told first; then the machine has other addresses.
    #[track_caller]
    fn moves(given: &str, has: &[(&str, &str)], resolved: &[&str], was_here: bool, want: &str, warns: Option<&str>) {
        let (listen, ip) = (SocketAddr::from(([0, 0, 0, 0], 2377)), [192, 168, 1, 5].into());
        let now = told([SocketAddr::new(ip, 2377)].into(), ip);
        let (got, warning) = follow(given, listen, &machine(has), &ips(resolved), &now, was_here);
        assert_eq!(got.managers.join(" "), want);
        match (warning, warns) {
            (None, None) => {}
            (Some(got), Some(word)) => assert!(got.contains(word), "{got}"),
            (got, want) => panic!("{got:?}, not {want:?}"),
        }
    }

    #[test]
    fn what_agents_dial_from_now_on() {
        let (old, new) = (("eth0", "192.168.1.5"), ("eth0", "192.168.1.9"));
        let wlan = ("wlan0", "192.168.2.5");
        // Nothing was said: whatever there is, and what is known goes first.
        moves("", &[old], &[], true, "192.168.1.5:2377", None);
        moves("", &[new, old], &[], true, "192.168.1.5:2377 192.168.1.9:2377", None);
        moves("", &[new], &[], true, "192.168.1.9:2377", None);
        moves("", &[("lo", "127.0.0.1")], &[], true, "192.168.1.5:2377", Some("no address by which boards"));
        // A link's.
        moves("eth0", &[new, wlan], &[], true, "192.168.1.9:2377", None);
        moves("eth0:99", &[new, old], &[], true, "192.168.1.5:99 192.168.1.9:99", None);
        moves("eth0", &[wlan], &[], true, "192.168.1.5:2377", Some("eth0 has no address"));
        // An address stays what it is; but boards that hear it are told where else it is.
        moves("192.168.1.5:2377", &[old, wlan], &[], true, "192.168.1.5:2377", None);
        moves("192.168.1.5", &[wlan], &[], false, "192.168.1.5:2377", None);
        let said = "192.168.1.5:2377, which is not an address of this machine any more (it has 192.168.1.9 on eth0)";
        moves("192.168.1.5", &[new], &[], true, "192.168.1.5:2377 192.168.1.9:2377", Some(said));
        // A name.
        moves("pi.lan", &[new], &["192.168.1.9"], true, "pi.lan:2377 192.168.1.9:2377", None);
        moves("pi.lan", &[new], &["8.8.8.8"], false, "pi.lan:2377 8.8.8.8:2377", None);
        moves(
            "pi.lan",
            &[new],
            &["192.168.1.5"],
            true,
            "pi.lan:2377 192.168.1.5:2377 192.168.1.9:2377",
            Some("does not lead"),
        );
        moves("pi.lan", &[new], &[], true, "192.168.1.5:2377", Some("cannot be looked up"));
    }

    #[test]
    fn what_was_never_here_is_warned_of() {
        let listen = SocketAddr::from(([0, 0, 0, 0], 2377));
        let has = machine(&[("lo", "127.0.0.1"), ("eth0", "192.168.1.5")]);
        let about = |given: &str, resolved: &[&str]| {
            let told = advertise(given, listen, &has, &ips(resolved)).expect("it is taken");
            foreign(&told, listen, &has)
        };
        for (given, resolved) in [("", &[][..]), ("192.168.1.5:99", &[]), ("eth0", &[]), ("pi.lan", &["192.168.1.5"])] {
            assert_eq!(about(given, resolved), None, "{given}");
        }
        assert_eq!(about("127.0.0.1", &[]), None);
        let want = "boards are told to dial 203.0.113.9:2377, which is not an address of this machine (it has 192.168.1.5 on \
                    eth0): they reach it only if a router forwards that to here. If none does, start pi-mgr serve with \
                    another --advertise-addr";
        assert_eq!(about("203.0.113.9", &[]).as_deref(), Some(want));
        assert!(about("pi.lan", &["203.0.113.9"]).is_some_and(|text| text.contains("to dial pi.lan:2377, which")));
    }

    #[test]
    fn what_is_here_and_what_is_lost() {
        let ip = |last| IpAddr::from([192, 168, 1, last]);
        let both = told(vec![(ip(5), 2377).into(), (ip(9), 2377).into()], ip(5));
        let (old, new) = (machine(&[("eth0", "192.168.1.5")]), machine(&[("eth0", "192.168.1.9")]));
        let all = machine(&[("eth0", "192.168.1.5"), ("eth0", "192.168.1.9")]);
        assert!(is_here(&both, &old) && is_here(&both, &new) && !is_here(&both, &machine(&[])));
        assert!(is_lost(&both, &all, &new) && is_lost(&both, &old, &new));
        assert!(!is_lost(&both, &old, &all) && !is_lost(&both, &machine(&[]), &new));
    }
}
