//! Asks the local network where managers and hosts are.
//!
//! In: a cluster, or a host's name. Out: addresses that somebody announced. Anybody may have: they are dialled, and TLS
//! decides.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use racimo_common::id::ClusterId;
use racimo_common::mdns::{self, ask::ask};
use racimo_common::net::is_real_link;
use rustix::net::netdevice::name_to_index;
use rustix::net::sockopt::set_ip_multicast_if_with_ifindex;

use crate::limits::{ASK_HOST_MAX, ASK_MANAGERS_MAX, HINTS_FOUND_MAX, LINKS_ASKED_MAX};

/// Where managers of this cluster say they are.
pub async fn managers(cluster: ClusterId) -> Vec<SocketAddr> {
    let hint = mdns::hint(cluster);
    let mut found: Vec<SocketAddr> = Vec::new();
    let take = |records: &[mdns::message::Record]| {
        for address in mdns::managers(records, &hint) {
            if found.len() < HINTS_FOUND_MAX && !found.contains(&address) {
                found.push(address);
            }
        }
        None::<()>
    };
    ask(sockets(), fastrand::u16(..), mdns::managers_question(), ASK_MANAGERS_MAX, take).await;
    found
}

/// The addresses of a host whose name ends in `.local`.
pub async fn host(name: &str) -> Vec<IpAddr> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let take = |records: &[mdns::message::Record]| {
        Some(mdns::addresses(records, name)).filter(|addresses| !addresses.is_empty())
    };
    let found = ask(sockets(), fastrand::u16(..), mdns::host_question(name), ASK_HOST_MAX, take).await;
    found.unwrap_or_default()
}

/// One for each link that leads to other machines.
fn sockets() -> Vec<UdpSocket> {
    // Of this thread's network namespace, unlike `/sys/class/net`.
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    let names = text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim())).filter(|name| is_real_link(name));
    let open = |name| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        let index = name_to_index(&socket, name).ok()?;
        set_ip_multicast_if_with_ifindex(&socket, mdns::GROUP.ip(), &Ipv4Addr::UNSPECIFIED, index).ok()?;
        Some(socket)
    };
    names.filter_map(open).take(LINKS_ASKED_MAX).collect()
}
