//! How a container finds addresses by name: the text of its `/etc/hosts` and `/etc/resolv.conf`.
//!
//! In: the service's wishes, the board's own `resolv.conf`, the task's addresses. Out: text, or why not.

use std::net::IpAddr;

use racimo_common::object::DnsConfig;
use racimo_common::wire::TaskNet;

use crate::net::dns;

/// What every `/etc/hosts` of Docker's begins with.
pub(super) const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// Why a container's names cannot be resolved as asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadResolver {
    /// Not a line of hosts(5).
    #[error("invalid host entry {0:?}: expected an IP address and names")]
    Host(String),
    /// Not an address.
    #[error("invalid DNS server {0:?}: expected an IP address")]
    Server(String),
    /// Not a word of resolv.conf(5).
    #[error("invalid DNS search domain or option {0:?}")]
    Word(String),
}

/// The service's lines for `/etc/hosts`, each name on a line of its own as Docker writes them.
pub(super) fn hosts(lines: &[String]) -> Result<String, BadResolver> {
    let mut text = String::new();
    for line in lines {
        let bad = || BadResolver::Host(line.clone());
        let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
        let address: IpAddr = words.next().unwrap_or_default().parse().map_err(|_| bad())?;
        let mut is_named = false;
        for name in words {
            if !is_word(name) {
                return Err(bad());
            }
            is_named = true;
            text.push_str(&format!("{address}\t{name}\n"));
        }
        if !is_named {
            return Err(bad());
        }
    }
    Ok(text)
}

/// A task's own lines for `/etc/hosts`, after all others as in Docker: one for each overlay network that it is on, else
/// its address in the mesh.
pub(super) fn own_hosts(net: &TaskNet, hostname: &str) -> String {
    let mut addresses: Vec<_> = net.networks.iter().map(|(_, address)| address.0).collect();
    if addresses.is_empty() {
        addresses.extend(net.mesh.map(|mesh| mesh.0));
    }
    addresses.iter().map(|address| format!("{address}\t{hostname}\n")).collect()
}

/// Whom a container asks for names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    /// As the board does: it is on its network.
    Board,
    /// Nobody it does not name itself: the board's loopback device is out of its reach.
    Network,
    /// The agent, inside the task's network: it asks the others.
    Agent,
}

/// Checks a service's wishes.
pub(super) fn check(lines: &[String], dns: &DnsConfig) -> Result<(), BadResolver> {
    hosts(lines)?;
    resolv_conf("", dns, Asks::Network).map(drop)
}

/// The text of `/etc/resolv.conf`: what the service says, for the rest the `board`'s. A server on the board's loopback
/// device is out of reach of a network of one's own and left out there.
pub(super) fn resolv_conf(board: &str, dns: &DnsConfig, asks: Asks) -> Result<String, BadResolver> {
    for server in &dns.servers {
        server.parse::<IpAddr>().map_err(|_| BadResolver::Server(server.clone()))?;
    }
    if let Some(word) = dns.search.iter().chain(&dns.options).find(|word| !is_word(word)) {
        return Err(BadResolver::Word(word.clone()));
    }
    if asks == Asks::Board && *dns == DnsConfig::default() {
        return Ok(board.to_owned());
    }
    let agent = dns::SERVER.to_string();
    let reachable =
        |server: &&str| asks == Asks::Board || !server.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let servers = match (asks, dns.servers.as_slice()) {
        (Asks::Agent, _) => vec![agent.as_str()],
        (Asks::Board | Asks::Network, []) => values(board, "nameserver").filter(reachable).collect(),
        (Asks::Board | Asks::Network, given) => words(given),
    };
    let search = match dns.search.as_slice() {
        // The last line counts.
        [] => values(board, "search").next_back().map_or(Vec::new(), |line| line.split_whitespace().collect()),
        // As in Docker: one dot means none.
        [dot] if dot == "." => Vec::new(),
        given => words(given),
    };
    let mut options = match dns.options.as_slice() {
        [] => values(board, "options").flat_map(str::split_whitespace).collect(),
        given => words(given),
    };
    // As in Docker: a name is asked for as it is before it is searched for, so that `web.network` is found.
    if asks == Asks::Agent && !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0");
    }
    let mut text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    for (key, words) in [("search", search), ("options", options)] {
        if !words.is_empty() {
            text.push_str(&format!("{key} {}\n", words.join(" ")));
        }
    }
    Ok(text)
}

/// What stands behind `key` in each line that begins with it.
fn values<'a>(text: &'a str, key: &'static str) -> impl DoubleEndedIterator<Item = &'a str> {
    let line = move |line: &'a str| line.trim().strip_prefix(key)?.strip_prefix([' ', '\t']).map(str::trim);
    text.lines().filter_map(line).filter(|value| !value.is_empty())
}

fn words(given: &[String]) -> Vec<&str> {
    given.iter().map(String::as_str).collect()
}

/// Something that cannot begin another word, line or comment.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| !c.is_control() && !c.is_whitespace() && c != '#' && c != ';')
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOARD: &str = "# by hand\nsearch old\nsearch lan home\nnameserver 127.0.0.53\nnameserver\t192.168.1.1\n\
        nameserver \noptions edns0 trust-ad\noptions timeout:1\nnameservers 9.9.9.9\n";

    fn texts(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[track_caller]
    fn check(servers: &str, search: &str, options: &str, asks: Asks, want: &str) {
        let dns = DnsConfig { servers: texts(servers), search: texts(search), options: texts(options) };
        assert_eq!(resolv_conf(BOARD, &dns, asks).as_deref(), Ok(want));
    }

    #[test]
    fn what_the_service_leaves_out_is_the_boards() {
        let rest = "search lan home\noptions edns0 trust-ad timeout:1\n";
        check("", "", "", Asks::Network, &format!("nameserver 192.168.1.1\n{rest}"));
        check("", "", "", Asks::Board, BOARD);
        check(
            "",
            ".",
            "",
            Asks::Board,
            "nameserver 127.0.0.53\nnameserver 192.168.1.1\noptions edns0 trust-ad timeout:1\n",
        );
        check("::1 8.8.8.8", "", "", Asks::Network, &format!("nameserver ::1\nnameserver 8.8.8.8\n{rest}"));
        check("1.1.1.1", "a.b c", "ndots:2", Asks::Network, "nameserver 1.1.1.1\nsearch a.b c\noptions ndots:2\n");
        check("1.1.1.1", ".", "ndots:2", Asks::Network, "nameserver 1.1.1.1\noptions ndots:2\n");
        assert_eq!(resolv_conf("", &DnsConfig::default(), Asks::Network).as_deref(), Ok(""));
    }

    #[test]
    fn a_task_with_addresses_asks_the_agent() {
        let own = "nameserver 127.0.0.11\n";
        let check = |servers, search, options, want: &str| {
            check(servers, search, options, Asks::Agent, &format!("{own}{want}"));
        };
        check("", "", "", "search lan home\noptions edns0 trust-ad timeout:1 ndots:0\n");
        // The service's servers are asked by the agent.
        check("8.8.8.8", ".", "ndots:2", "options ndots:2\n");
        check("", "a.b", "rotate", "search a.b\noptions rotate ndots:0\n");
        let none = resolv_conf("", &DnsConfig::default(), Asks::Agent);
        assert_eq!(none.as_deref(), Ok("nameserver 127.0.0.11\noptions ndots:0\n"));
    }

    #[test]
    fn a_task_knows_its_own_name() {
        use racimo_common::id::{NetworkId, RandomId};
        let ip = |text: &str| racimo_common::wire::Ip(text.parse().unwrap());
        let mut net = TaskNet { mesh: Some(ip("10.200.1.2")), ..TaskNet::default() };
        assert_eq!(own_hosts(&net, "me"), "10.200.1.2\tme\n");
        net.networks = vec![(NetworkId::from_bits(1), ip("10.0.1.2")), (NetworkId::from_bits(2), ip("10.0.2.2"))];
        assert_eq!(own_hosts(&net, "me"), "10.0.1.2\tme\n10.0.2.2\tme\n");
        assert_eq!(own_hosts(&TaskNet::default(), "me"), "");
    }

    #[test]
    fn nothing_can_be_smuggled_in() {
        let bad = |servers: &[&str], search: &[&str]| {
            let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
            let dns = DnsConfig { servers: owned(servers), search: owned(search), options: Vec::new() };
            resolv_conf(BOARD, &dns, Asks::Network).unwrap_err().to_string()
        };
        assert_eq!(bad(&["dns.lan"], &[]), "invalid DNS server \"dns.lan\": expected an IP address");
        for word in ["a\nnameserver 6.6.6.6", "a b", "", "a#b"] {
            assert_eq!(bad(&[], &[word]), format!("invalid DNS search domain or option {word:?}"));
        }
        for line in ["10.0.0.1", "", "db 10.0.0.1", "10.0.0.1 db\n6.6.6.6 bank", "10.0.0.1 # db", "host-gateway db"] {
            assert_eq!(hosts(&[line.to_owned()]), Err(BadResolver::Host(line.to_owned())));
        }
        let lines = ["10.0.0.1 db db.lan".to_owned(), " ::2\tsix ".to_owned()];
        assert_eq!(hosts(&lines).as_deref(), Ok("10.0.0.1\tdb\n10.0.0.1\tdb.lan\n::2\tsix\n"));
    }
}
