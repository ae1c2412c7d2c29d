//! Addresses: where to listen for agents, and what to tell them to dial.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use racimo_common::wire::PORT;

/// `ADDRESS[:PORT]`, `:PORT` or an interface's name, as where to listen.
pub(super) fn listen(text: &str, interfaces: &[(String, IpAddr)]) -> Result<SocketAddr, String> {
    let (host, port) = split(text)?;
    let address = match host {
        "" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        host => parse(host, interfaces)?,
    };
    Ok(SocketAddr::new(address, port))
}

/// What agents shall dial: what the user says, else the address that is listened on, else the only one there is.
pub(super) fn advertise(
    given: Option<&str>,
    listen: SocketAddr,
    interfaces: &[(String, IpAddr)],
) -> Result<SocketAddr, String> {
    if let Some(text) = given.filter(|text| !text.is_empty()) {
        let with_port =
            text.parse::<SocketAddr>().is_ok() || text.rsplit_once(':').is_some_and(|(h, _)| !h.contains(':'));
        let (host, port) = if with_port { split(text)? } else { (text.trim_matches(['[', ']']), listen.port()) };
        let address = parse(host, interfaces)?;
        if address.is_unspecified() {
            return Err(
                "advertise address must be a non-zero IP address or network interface (with optional port number)"
                    .to_owned(),
            );
        }
        return Ok(SocketAddr::new(address, port));
    }
    if !listen.ip().is_unspecified() {
        return Ok(listen);
    }
    let mut found: Vec<&(String, IpAddr)> = interfaces
        .iter()
        .filter(|(name, ip)| {
            ip.is_ipv4() && !ip.is_loopback() && !name.starts_with("docker") && !name.starts_with("rc-")
        })
        .collect();
    found.dedup_by_key(|(_, ip)| *ip);
    match found.as_slice() {
        [] => Err("could not choose an IP address to advertise: this board has no address but loopback; \
                   specify one with --advertise-addr"
            .to_owned()),
        [(_, ip)] => Ok(SocketAddr::new(*ip, listen.port())),
        many => {
            let list: Vec<String> = many.iter().map(|(name, ip)| format!("{ip} on {name}")).collect();
            Err(format!(
                "could not choose an IP address to advertise since this system has multiple addresses ({}) - \
                 specify one with --advertise-addr",
                list.join(" and ")
            ))
        }
    }
}

fn split(text: &str) -> Result<(&str, u16), String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        let _ = address;
        return Ok((text, PORT));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| format!("invalid port in {text:?}"))?),
        None => (text, PORT),
    };
    Ok((host.trim_start_matches('[').trim_end_matches(']'), port))
}

fn parse(host: &str, interfaces: &[(String, IpAddr)]) -> Result<IpAddr, String> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let mut of_name = interfaces.iter().filter(|(name, _)| name == host).map(|(_, ip)| *ip);
    of_name
        .clone()
        .find(IpAddr::is_ipv4)
        .or_else(|| of_name.next())
        .ok_or_else(|| format!("{host:?} is neither an IP address nor a network interface with one"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interfaces(list: &[(&str, &str)]) -> Vec<(String, IpAddr)> {
        list.iter().map(|(name, ip)| ((*name).to_owned(), ip.parse().expect("an address"))).collect()
    }

    #[track_caller]
    fn check(given: Option<&str>, listens: &str, has: &[(&str, &str)], want: Result<&str, &str>) {
        let has = interfaces(has);
        let got = listen(listens, &has).and_then(|listens| advertise(given, listens, &has));
        match (got, want) {
            (Ok(got), Ok(want)) => assert_eq!(got.to_string(), want),
            (Err(got), Err(word)) => assert!(got.contains(word), "{got}"),
            (got, want) => panic!("{got:?}, not {want:?}"),
        }
    }

    #[test]
    fn what_agents_dial() {
        let one = [("lo", "127.0.0.1"), ("eth0", "192.168.1.5")];
        let two = [("eth0", "192.168.1.5"), ("wlan0", "192.168.2.5")];
        check(None, "0.0.0.0:2377", &one, Ok("192.168.1.5:2377"));
        check(None, "0.0.0.0:2377", &two, Err("multiple addresses (192.168.1.5 on eth0 and 192.168.2.5 on wlan0)"));
        check(None, "0.0.0.0:2377", &[("lo", "127.0.0.1")], Err("--advertise-addr"));
        check(Some("10.0.0.1"), "0.0.0.0:2377", &two, Ok("10.0.0.1:2377"));
        check(Some("10.0.0.1:99"), "0.0.0.0:2377", &two, Ok("10.0.0.1:99"));
        check(Some("wlan0"), "0.0.0.0", &two, Ok("192.168.2.5:2377"));
        check(Some("wlan0:99"), "0.0.0.0", &two, Ok("192.168.2.5:99"));
        check(Some("nope"), "0.0.0.0", &two, Err("neither an IP address nor"));
        check(Some("0.0.0.0"), "0.0.0.0", &two, Err("non-zero"));
        check(None, "eth0:5", &two, Ok("192.168.1.5:5"));
        check(None, ":5", &one, Ok("192.168.1.5:5"));
        check(None, "1.2.3.4:x", &one, Err("invalid port"));
        check(Some("fe80::1"), "[::]:2377", &one, Ok("[fe80::1]:2377"));
    }
}
