//! Lists of a container that `create` fills and `update` changes entry by entry: groups, name service, hosts,
//! kernel settings, limits of processes. Pure.

use std::net::IpAddr;

use clap::Args;
use racimo_common::object;
use serde_json::{Value, json};

use super::super::json::{Peek, array, object, place, unset};
use super::super::parse;
use super::shared::put_list;

/// Longest name of a domain, as in RFC 1035.
const DOMAIN_CHARS_MAX: usize = 254;

/// A limit of the processes in a container; -1 is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ulimit {
    name: String,
    soft: i64,
    hard: i64,
}

/// A host by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    name: String,
    address: Option<String>,
}

/// Flags of `service create`.
#[derive(Args, Debug, Default)]
pub(crate) struct NewLists {
    /// Further group of the container's user
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Vec<String>,
    /// Name server
    #[arg(long, value_name = "ADDRESS", value_parser = nameserver)]
    pub(crate) dns: Vec<String>,
    /// Domain that short names are looked up in
    #[arg(long, value_name = "DOMAIN", value_parser = domain)]
    pub(crate) dns_search: Vec<String>,
    /// Option of resolv.conf (for example ndots:2)
    #[arg(long, value_name = "OPTION")]
    pub(crate) dns_option: Vec<String>,
    /// Entry of /etc/hosts (HOST:ADDRESS)
    #[arg(long, value_name = "HOST", value_parser = host)]
    pub(crate) host: Vec<Host>,
    /// Kernel setting of the container (for example net.core.somaxconn=1024)
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::label)]
    pub(crate) sysctl: Vec<(String, String)>,
    /// Limit of its processes: TYPE=SOFT[:HARD], -1 for none (for example nofile=1024:2048)
    #[arg(long, value_name = "ULIMIT", value_parser = ulimit, allow_hyphen_values = true)]
    pub(crate) ulimit: Vec<Ulimit>,
}

/// Flags of `service update`.
#[derive(Args, Debug, Default, PartialEq)]
pub(crate) struct ListChanges {
    /// Add a group of the container's user
    #[arg(long, value_name = "GROUP")]
    pub(crate) group_add: Vec<String>,
    /// Remove a group of the container's user
    #[arg(long, value_name = "GROUP")]
    pub(crate) group_rm: Vec<String>,
    /// Add a name server
    #[arg(long, value_name = "ADDRESS", value_parser = nameserver)]
    pub(crate) dns_add: Vec<String>,
    /// Remove a name server
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) dns_rm: Vec<String>,
    /// Add a search domain
    #[arg(long, value_name = "DOMAIN", value_parser = domain)]
    pub(crate) dns_search_add: Vec<String>,
    /// Remove a search domain
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) dns_search_rm: Vec<String>,
    /// Add an option of resolv.conf
    #[arg(long, value_name = "OPTION")]
    pub(crate) dns_option_add: Vec<String>,
    /// Remove an option of resolv.conf
    #[arg(long, value_name = "OPTION")]
    pub(crate) dns_option_rm: Vec<String>,
    /// Add an entry of /etc/hosts (HOST:ADDRESS)
    #[arg(long, value_name = "HOST", value_parser = host)]
    pub(crate) host_add: Vec<Host>,
    /// Remove entries of /etc/hosts (HOST or HOST:ADDRESS)
    #[arg(long, value_name = "HOST", value_parser = host_or_name)]
    pub(crate) host_rm: Vec<Host>,
    /// Add or change a kernel setting of the container
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::label)]
    pub(crate) sysctl_add: Vec<(String, String)>,
    /// Remove a kernel setting of the container
    #[arg(long, value_name = "KEY")]
    pub(crate) sysctl_rm: Vec<String>,
    /// Add or change a limit of its processes: TYPE=SOFT[:HARD], -1 for none
    #[arg(long, value_name = "ULIMIT", value_parser = ulimit, allow_hyphen_values = true)]
    pub(crate) ulimit_add: Vec<Ulimit>,
    /// Remove a limit of its processes
    #[arg(long, value_name = "TYPE")]
    pub(crate) ulimit_rm: Vec<String>,
}

impl NewLists {
    /// Fills the lists of a new container.
    pub(super) fn apply(&self, container: &mut Value) {
        put_list(container, "Groups", self.group.clone());
        let dns = place(container, &["DNSConfig"]);
        put_list(dns, "Nameservers", self.dns.clone());
        put_list(dns, "Search", self.dns_search.clone());
        put_list(dns, "Options", self.dns_option.clone());
        put_list(container, "Hosts", self.host.iter().map(Host::line).collect());
        change_sysctls(container, &self.sysctl, &[]);
        change_ulimits(container, &self.ulimit, &[]);
    }
}

impl ListChanges {
    /// Changes the lists of a container.
    pub(super) fn apply(&self, container: &mut Value) {
        change_sorted(container, "Groups", &self.group_add, &self.group_rm, false);
        for (key, add, remove) in [
            ("Nameservers", &self.dns_add, &self.dns_rm),
            ("Search", &self.dns_search_add, &self.dns_search_rm),
            ("Options", &self.dns_option_add, &self.dns_option_rm),
        ] {
            if !add.is_empty() || !remove.is_empty() {
                change_sorted(place(container, &["DNSConfig"]), key, add, remove, true);
            }
        }
        self.change_hosts(container);
        change_sysctls(container, &self.sysctl_add, &self.sysctl_rm);
        change_ulimits(container, &self.ulimit_add, &self.ulimit_rm);
    }

    /// A line of the API is an address with one name or more; a name is taken out of its line.
    fn change_hosts(&self, container: &mut Value) {
        if self.host_add.is_empty() && self.host_rm.is_empty() {
            return;
        }
        let mut lines: Vec<String> = Vec::new();
        for line in texts(container.list("/Hosts")) {
            let mut words = line.split_whitespace();
            let address = words.next().unwrap_or("");
            let gone = |name: &&str| {
                let names = |rm: &&Host| rm.name == *name && rm.address.as_deref().is_none_or(|a| a == address);
                self.host_rm.iter().any(|rm| names(&rm))
            };
            let names: Vec<&str> = words.filter(|name| !gone(name)).collect();
            if !names.is_empty() {
                lines.push(format!("{address} {}", names.join(" ")));
            }
        }
        for line in self.host_add.iter().map(Host::line) {
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        put_list(container, "Hosts", lines);
    }
}

impl Host {
    fn line(&self) -> String {
        format!("{} {}", self.address.as_deref().unwrap_or(""), self.name)
    }
}

/// Adds, then removes, and sorts, so that the same set always is the same list.
fn change_sorted(root: &mut Value, key: &str, add: &[String], remove: &[String], once: bool) {
    if add.is_empty() && remove.is_empty() {
        return;
    }
    let mut list = texts(root.list(&format!("/{key}")));
    list.extend(add.iter().cloned());
    list.retain(|entry| !remove.contains(entry));
    list.sort();
    if once {
        list.dedup();
    }
    put_list(root, key, list);
}

fn change_sysctls(container: &mut Value, add: &[(String, String)], remove: &[String]) {
    if add.is_empty() && remove.is_empty() {
        return;
    }
    let map = object(container, &["Sysctls"]);
    for entry in remove {
        map.shift_remove(entry.split_once('=').map_or(entry.as_str(), |(key, _)| key));
    }
    for (key, value) in add {
        map.insert(key.clone(), value.as_str().into());
    }
    if map.is_empty() {
        unset(container, &["Sysctls"]);
    }
}

fn change_ulimits(container: &mut Value, add: &[Ulimit], remove: &[String]) {
    if add.is_empty() && remove.is_empty() {
        return;
    }
    let list = array(container, &["Ulimits"]);
    list.retain(|old| !remove.iter().any(|name| old.text("/Name") == name));
    for Ulimit { name, soft, hard } in add {
        list.retain(|old| old.text("/Name") != name);
        list.push(json!({"Name": name, "Hard": hard, "Soft": soft}));
    }
    list.sort_by(|a, b| a.text("/Name").cmp(b.text("/Name")));
    if list.is_empty() {
        unset(container, &["Ulimits"]);
    }
}

/// The strings of a JSON list.
pub(super) fn texts(list: &[Value]) -> Vec<String> {
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn nameserver(text: &str) -> Result<String, String> {
    let address: Result<IpAddr, _> = text.trim().parse();
    address.map(|address| address.to_string()).map_err(|_| format!("\"{text}\" is not an IP address"))
}

/// `HOST:ADDRESS` or `HOST=ADDRESS`; an IPv6 address may stand in brackets.
fn host(text: &str) -> Result<Host, String> {
    let expected = || format!("\"{text}\" is not a host; expected HOST:ADDRESS, for example db:10.0.0.5");
    let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(expected)?;
    if name.is_empty() || name.contains(':') {
        return Err(expected());
    }
    let bare = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address);
    if bare != "host-gateway" && bare.parse::<IpAddr>().is_err() {
        return Err(format!("\"{bare}\" is not an IP address"));
    }
    Ok(Host { name: name.to_owned(), address: Some(bare.to_owned()) })
}

fn host_or_name(text: &str) -> Result<Host, String> {
    if text.contains([':', '=']) { host(text) } else { Ok(Host { name: text.to_owned(), address: None }) }
}

fn domain(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text == "." {
        return Ok(text.to_owned());
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric();
        label.starts_with(plain) && label.ends_with(plain) && label.chars().all(|c| plain(c) || c == '-')
    };
    let letters = name.chars().any(|c| c.is_ascii_alphabetic());
    if letters && name.len() <= DOMAIN_CHARS_MAX && name.split('.').all(label) {
        Ok(name.to_owned())
    } else {
        Err(format!("\"{text}\" is not a valid domain"))
    }
}

fn ulimit(text: &str) -> Result<Ulimit, String> {
    let expected = || format!("\"{text}\" is not a limit; expected TYPE=SOFT[:HARD], for example nofile=1024:2048");
    let (name, limits) = text.split_once('=').ok_or_else(expected)?;
    if !object::Ulimit::NAMES.contains(&name) {
        return Err(format!("\"{name}\" is no kind of limit; expected one of {}", object::Ulimit::NAMES.join(", ")));
    }
    let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number >= -1).ok_or_else(expected);
    let (soft, hard) = match limits.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(limits)?, number(limits)?),
    };
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(format!("the soft limit {soft} is above the hard limit {hard}"));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(nameserver("0:0:0:0:0:0:0:1").as_deref(), Ok("::1"));
        nameserver("dns.example").expect_err("a name");
        for (text, want) in [
            ("a:1.2.3.4", Some("1.2.3.4 a")),
            ("a=::1", Some("::1 a")),
            ("a:[::1]", Some("::1 a")),
            ("a:::1", Some("::1 a")),
            ("a:host-gateway", Some("host-gateway a")),
            ("a", None),
            (":1.2.3.4", None),
            ("a:b", None),
            ("[::1]:a", None),
        ] {
            assert_eq!(host(text).ok().map(|host| host.line()).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn domains() {
        for good in ["example.com", "a-b.c", ".", "x."] {
            domain(good).expect(good);
        }
        for bad in ["", "-a", "a-", "1.2", "a b", "a..b", "..", &"a".repeat(300)] {
            domain(bad).expect_err(bad);
        }
    }

    #[test]
    fn ulimits() {
        let limit = |name: &str, soft, hard| Ok(Ulimit { name: name.to_owned(), soft, hard });
        assert_eq!(ulimit("nofile=5"), limit("nofile", 5, 5));
        assert_eq!(ulimit("nofile=5:-1"), limit("nofile", 5, -1));
        for bad in ["nofile", "files=1", "nofile=2:1", "nofile=-1:1", "nofile=1:2:3", "nofile=x", "nofile=-2"] {
            ulimit(bad).expect_err(bad);
        }
    }
}
