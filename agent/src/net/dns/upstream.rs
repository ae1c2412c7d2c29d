//! The name servers that know others' names.
//!
//! In: the board's `resolv.conf`, read again when it changes. Out: addresses.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::SERVER;
use crate::limits;

const PORT: u16 = 53;

/// The board's servers.
pub(super) struct Upstream {
    path: PathBuf,
    seen: RefCell<(Option<Version>, Vec<SocketAddr>)>,
}

/// Device, number, length and time of a file: another one has others.
type Version = (u64, u64, u64, i64, i64);

impl Upstream {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, seen: RefCell::default() }
    }

    /// The servers as they are now.
    pub(super) fn servers(&self) -> Vec<SocketAddr> {
        let version = fs::metadata(&self.path)
            .ok()
            .map(|file| (file.dev(), file.ino(), file.len(), file.mtime(), file.mtime_nsec()));
        let mut seen = self.seen.borrow_mut();
        if version != seen.0 {
            *seen = (version, read(&self.path).map(|text| parse(&text, interface)).unwrap_or_default());
        }
        seen.1.clone()
    }
}

/// The servers that a service names: what asks them is inside the task, where [`SERVER`] is we.
pub(super) fn of_service(servers: &[IpAddr]) -> Vec<SocketAddr> {
    let others = servers.iter().filter(|server| **server != IpAddr::V4(SERVER));
    others.map(|server| SocketAddr::new(*server, PORT)).take(limits::NAME_SERVERS_MAX).collect()
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limits::BOARD_FILE_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The first servers of a resolv.conf(5). `interface` knows interfaces by name: `fe80::1%eth0`.
fn parse(text: &str, interface: impl Fn(&str) -> Option<u32>) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        if let Ok(address) = address.parse::<IpAddr>() {
            // As in libc: none in particular is the board itself.
            let address = match address {
                IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                IpAddr::V4(_) | IpAddr::V6(_) => address,
            };
            return Some(SocketAddr::new(address, PORT));
        }
        let (address, scope) = address.split_once('%')?;
        let scope = scope.parse().ok().or_else(|| interface(scope))?;
        Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, scope).into())
    };
    text.lines().filter_map(server).take(limits::NAME_SERVERS_MAX).collect()
}

fn interface(name: &str) -> Option<u32> {
    if name.contains('/') {
        return None;
    }
    fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_libc_reads_it() {
        let text = "# nameserver 9.9.9.9\nnameserver 192.168.1.1\nnameservers 1.2.3.4\nnameserver\nnameserver x\n\
            \tnameserver fe80::1%eth0\nnameserver fe80::2%gone\nnameserver 0.0.0.0\nnameserver 8.8.8.8\n";
        let found = parse(text, |name| (name == "eth0").then_some(7));
        let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["192.168.1.1:53", "[fe80::1%7]:53", "127.0.0.1:53"]);
    }

    #[test]
    fn a_file_that_changes_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let upstream = Upstream::new(path.clone());
        assert!(upstream.servers().is_empty());
        for (server, want) in [("10.0.0.1", "10.0.0.1:53"), ("10.0.0.2", "10.0.0.2:53")] {
            // As a DHCP client does it.
            let new = dir.path().join("new");
            fs::write(&new, format!("nameserver {server}\n")).unwrap();
            fs::rename(&new, &path).unwrap();
            assert_eq!(upstream.servers(), [want.parse().unwrap()]);
        }
        fs::remove_file(&path).unwrap();
        assert!(upstream.servers().is_empty());
    }

    #[test]
    fn a_service_never_names_us() {
        let servers = ["127.0.0.11", "10.0.0.1", "::1"].map(|server| server.parse().unwrap());
        assert_eq!(of_service(&servers), ["10.0.0.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
    }
}
