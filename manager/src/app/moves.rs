//! Follows the machine's addresses while the manager runs: a board's address changes when it likes (DHCP, a new router).
//!
//! ```text
//! every 2 s: addresses ─ others? ─▶ listen anew · what boards are told ─▶ store ─▶ sessions
//!                          └──────▶ announcements · warnings · patience with boards that lost their manager
//! ```
//! What names stand for is looked up again once a minute, and whenever addresses change.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_channel::Sender;
use futures_lite::future::or;
use racimo_common::error::chain;
use racimo_common::mdns;
use racimo_common::net::{Subnet, is_real_link};
use racimo_common::time::Clock;
use smol::Timer;

use super::address::{self, Interface, Machine, Told};
use super::keep::{self, Own};
use crate::announce::serve::Link;
use crate::dispatcher::serve::Listening;
use crate::limits::{ADDRESSES_LOOK_EVERY, MOVED_GRACE, NAME_LOOK_EVERY, NAME_WITHIN, TOLD_ADDRESSES_MAX};
use crate::store::{Change, Store};
use crate::tcp;

/// What the API shows of it; clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Shown(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// The manager's own address.
    address: String,
    /// About what it was told to say at `init`; gone when that is true, and at the next start.
    notice: Option<String>,
    warnings: Vec<String>,
}

/// What the addresses are followed with.
pub(super) struct Moves {
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) data: PathBuf,
    pub(super) own: Own,
    /// What the user said: of the configuration, else at `init`; none: an older version did not write it down.
    pub(super) said: Option<String>,
    /// Where agents are served now.
    pub(super) listens: SocketAddr,
    pub(super) listening: Listening,
    pub(super) announcing: Option<Sender<Vec<Link>>>,
    pub(super) shown: Shown,
}

/// When what failed is tried again: with growing pauses, so that a port that somebody else has costs nothing.
#[derive(Debug, Default)]
struct Again {
    at: Option<Instant>,
    pause: Duration,
}

impl Again {
    fn is_due(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| at <= now)
    }

    /// How the last try went, and whether it was the first after a change.
    fn was(&mut self, is_done: bool, is_first: bool, now: Instant) {
        self.pause =
            if is_first { ADDRESSES_LOOK_EVERY } else { (self.pause * 2).clamp(ADDRESSES_LOOK_EVERY, NAME_LOOK_EVERY) };
        self.at = (!is_done).then(|| now + self.pause);
    }
}

impl Shown {
    /// The manager's own address; and what to say of it until it is one of this machine.
    pub(super) fn new(address: String, notice: Option<String>) -> Self {
        if let Some(notice) = &notice {
            log::warn!("{notice}");
        }
        Self(Arc::new(Mutex::new(Known { address, notice, warnings: Vec::new() })))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The manager's own address.
    pub(super) fn address(&self) -> String {
        self.lock().address.clone()
    }

    /// What a person should know.
    pub(super) fn warnings(&self) -> Vec<String> {
        let shown = self.lock();
        shown.notice.iter().chain(&shown.warnings).cloned().collect()
    }

    fn set(&self, address: String, warnings: Vec<String>, is_here: bool) {
        let mut shown = self.lock();
        for warning in warnings.iter().filter(|warning| !shown.warnings.contains(warning)) {
            log::warn!("{warning}");
        }
        let notice = shown.notice.take().filter(|_| !is_here);
        *shown = Known { address, notice, warnings };
    }
}

impl Moves {
    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let mut last: Option<Machine> = None;
        let mut named = Instant::now();
        let mut again = Again::default();
        let started = Instant::now();
        loop {
            if self.own.restored && started.elapsed() >= MOVED_GRACE {
                self.own.restored = false;
                self.keep("boards had the time to find this manager");
            }
            match machine() {
                Ok(machine) => {
                    let said = self.said().unwrap_or_default();
                    let is_named = address::name(&said, self.listens, &machine).is_some();
                    let is_due = is_named && named.elapsed() >= NAME_LOOK_EVERY;
                    let words = [said.as_str(), &self.own.listen];
                    let is_other = last.as_ref().is_none_or(|last| last.relevant(&words) != machine.relevant(&words));
                    if is_other || is_due || again.is_due(Instant::now()) {
                        named = Instant::now();
                        let is_done = self.look(&machine, last.as_ref()).await;
                        again.was(is_done, is_other, Instant::now());
                        last = Some(machine);
                    }
                }
                Err(error) => log::debug!("list network interfaces: {error}"),
            }
            Timer::after(ADDRESSES_LOOK_EVERY).await;
        }
    }

    fn keep(&self, what: &str) {
        if let Err(error) = keep::store_own(&self.data, &self.own) {
            log::warn!("keep that {what}: {error}");
        }
    }

    /// None: the cluster is gone.
    fn said(&self) -> Option<String> {
        match &self.said {
            Some(said) => Some(said.clone()),
            None => self.store.view().state.cluster()?.managers.first().cloned(),
        }
    }

    /// Whether that was all there is to do, until something changes.
    async fn look(&mut self, machine: &Machine, last: Option<&Machine>) -> bool {
        let mut warnings = Vec::new();
        let mut is_done = self.listen(machine, &mut warnings).await;
        // First of all: what boards are told may be the name that is announced.
        if let Some(announcing) = &self.announcing {
            // It takes every list, and is gone only when the cluster is.
            let _ = announcing.send(links(machine, self.listens)).await;
        }
        let Some(said) = self.said() else { return true };
        let resolved = match address::name(&said, self.listens, machine) {
            Some(host) => resolve(host, machine).await,
            None => Vec::new(),
        };
        let view = self.store.view();
        let (Some(cluster), Some(node)) = (view.state.cluster(), view.state.node(self.own.node)) else {
            return true;
        };
        let first = || cluster.managers.first().and_then(|text| text.parse::<SocketAddr>().ok()).map(|a| a.ip());
        let Some(ip) = node.addr.parse().ok().or_else(first) else { return true };
        let now = Told { managers: cluster.managers.clone(), ip };
        let (told, warning) = address::follow(&said, self.listens, machine, &resolved, &now, self.own.here);
        warnings.extend(warning);
        let is_lost = match last {
            Some(last) => address::is_lost(&now, last, machine),
            None => self.own.restored || self.own.here && !address::is_here(&now, machine),
        };
        if is_lost {
            // Boards that dialled it cannot know yet; they look for the new one.
            self.listening.moved().await;
        }
        let is_here = address::is_here(&told, machine);
        if is_here && !self.own.here {
            self.own.here = true;
            self.keep(&format!("{} is an address of this machine", told.ip));
        }
        let mut changes = Vec::new();
        if told.managers != now.managers {
            log::warn!(
                "boards are told to dial {} from now on, not {}",
                told.managers.join(", "),
                now.managers.join(", ")
            );
            changes.push(Change::ClusterManagers(told.managers.clone()));
        }
        if node.addr != told.ip.to_string() {
            let (description, addr) = (node.description.clone(), told.ip.to_string());
            changes.push(Change::NodeDescribe { node: node.id, description, addr });
        }
        if !changes.is_empty()
            && let Err(error) = self.store.commit(self.clock.now().wall, changes).await
        {
            warnings.push(format!("this manager's new address was not stored: {}", chain(&error)));
            is_done = false;
        }
        self.shown.set(told.ip.to_string(), warnings, is_here);
        is_done
    }

    /// Listens elsewhere, if the interface that was named has another address now. False: it must be tried again.
    async fn listen(&mut self, machine: &Machine, warnings: &mut Vec<String>) -> bool {
        match address::listen(&self.own.listen, machine) {
            Ok(listen) if listen == self.listens => warnings.extend(address::absent(listen, machine)),
            Ok(listen) => match tcp::listen(listen) {
                Ok(listener) => {
                    log::warn!("agents are served on {listen} from now on, not {}", self.listens);
                    self.listens = listen;
                    self.listening.listen(listener).await;
                }
                Err(error) => {
                    warnings.push(format!("agents cannot be served on {listen}: {error}"));
                    return false;
                }
            },
            Err(fault) => warnings.push(format!("agents are served on {} as before: {fault}", self.listens)),
        }
        true
    }
}

/// The machine's addresses and links.
pub(super) fn machine() -> std::io::Result<Machine> {
    let all = if_addrs::get_if_addrs()?;
    let addresses = all.into_iter().map(|one| Interface {
        ip: one.ip(),
        prefix: match &one.addr {
            if_addrs::IfAddr::V4(v4) => v4.prefixlen,
            if_addrs::IfAddr::V6(v6) => v6.prefixlen,
        },
        index: one.index.unwrap_or(0),
        name: one.name,
    });
    let links = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let links = links.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect();
    Ok(Machine { addresses: addresses.collect(), links })
}

/// What a host name stands for now. The local network is asked for `.local` names: not every libc can.
pub(super) async fn resolve(host: &str, machine: &Machine) -> Vec<IpAddr> {
    if mdns::is_local(host) {
        let real = machine.addresses.iter().filter(|one| is_real_link(&one.name) && one.ip.is_ipv4());
        // What is bound to an address asks through its link.
        let sockets = real.filter_map(|one| UdpSocket::bind((one.ip, 0)).ok()).take(TOLD_ADDRESSES_MAX).collect();
        let name = host.strip_suffix('.').unwrap_or(host);
        let take = |records: &[mdns::message::Record]| {
            Some(mdns::addresses(records, name)).filter(|addresses| !addresses.is_empty())
        };
        let found = mdns::ask::ask(sockets, fastrand::u16(..), mdns::host_question(name), NAME_WITHIN / 4, take).await;
        if let Some(found) = found {
            return to_tell(found);
        }
    }
    let looked_up = async { smol::net::resolve((host, 0)).await.unwrap_or_default() };
    let late = async {
        Timer::after(NAME_WITHIN).await;
        Vec::new()
    };
    to_tell(or(looked_up, late).await.into_iter().map(|address| address.ip()).collect())
}

/// What boards can be told of a name's addresses: none that leads a board to itself (Debian's `/etc/hosts` has
/// `127.0.1.1` for the machine's own name), and in one order, though servers turn theirs.
fn to_tell(mut found: Vec<IpAddr>) -> Vec<IpAddr> {
    found.retain(|address| address::is_global(*address));
    found.sort_by_key(|address| (address.is_ipv6(), *address));
    found.dedup();
    found
}

/// Where the manager is announced, and as what.
fn links(machine: &Machine, listens: SocketAddr) -> Vec<Link> {
    let mut links: Vec<Link> = Vec::new();
    for one in machine.reachable(listens) {
        let subnet = match one.ip {
            IpAddr::V4(v4) => Some(Subnet::of(v4, one.prefix)),
            IpAddr::V6(_) => None,
        };
        let place = links.iter().position(|link| link.index == one.index).unwrap_or_else(|| {
            links.push(Link { index: one.index, subnets: Vec::new(), addresses: Vec::new() });
            links.len() - 1
        });
        let link = &mut links[place];
        link.subnets.extend(subnet);
        if link.addresses.len() < TOLD_ADDRESSES_MAX {
            link.addresses.push(one.ip);
        }
    }
    // Multicast over IPv6 is not spoken.
    links.retain(|link| !link.subnets.is_empty());
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_again_ever_more_seldom() {
        let (mut again, start) = (Again::default(), Instant::now());
        assert!(!again.is_due(start));
        let mut pauses = Vec::new();
        for round in 0..8 {
            again.was(false, round == 0, start);
            let at = again.at.expect("it is tried again");
            assert!(!again.is_due(start) && again.is_due(at));
            pauses.push((at - start).as_secs());
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60]);
        again.was(false, true, start);
        assert_eq!(again.at, Some(start + ADDRESSES_LOOK_EVERY), "another address is another try");
        again.was(true, false, start);
        assert_eq!(again.at, None);
    }

    #[test]
    fn what_containers_bring_along_is_no_news() {
        let machine = |links: &[(&str, &str)]| Machine {
            addresses: (links.iter())
                .map(|(name, ip)| {
                    let ip = ip.parse().expect("an address");
                    Interface { name: (*name).to_owned(), index: 1, ip, prefix: 24 }
                })
                .collect(),
            links: links.iter().map(|(name, _)| (*name).to_owned()).collect(),
        };
        let before = machine(&[("lo", "127.0.0.1"), ("eth0", "10.0.0.5"), ("docker0", "172.17.0.1")]);
        let more = [("veth1", "fe80::1"), ("br-0123456789ab", "172.18.0.1"), ("rg-x", "10.200.0.1")];
        let after = machine(&[&[("lo", "127.0.0.1"), ("eth0", "10.0.0.5")], &more[..]].concat());
        let same = |named: &[&str]| before.relevant(named) == after.relevant(named);
        assert!(same(&["", "0.0.0.0:2377"]) && same(&["pi.lan", "eth0:2377"]));
        // Somebody said so.
        assert!(!same(&["docker0", "0.0.0.0:2377"]) && !same(&["", "172.18.0.1:2377"]) && !same(&["[fe80::1]:5", ""]));
        let moved = machine(&[("lo", "127.0.0.1"), ("eth0", "10.0.0.6"), ("docker0", "172.17.0.1")]);
        assert_ne!(before.relevant(&[]), moved.relevant(&[]));
    }

    #[test]
    fn what_a_name_stands_for_leads_boards_elsewhere_and_has_an_order() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect::<Vec<_>>();
        let want = addresses(&["10.0.0.1", "10.0.0.2", "fd00::5"]);
        assert_eq!(to_tell(addresses(&["127.0.1.1", "10.0.0.2", "fd00::5", "10.0.0.1", "fe80::5", "::1"])), want);
        assert_eq!(to_tell(addresses(&["fd00::5", "10.0.0.1", "10.0.0.2", "10.0.0.1"])), want);
        assert_eq!(to_tell(addresses(&["127.0.1.1"])), addresses(&[]));
    }

    #[test]
    fn announced_is_what_can_be_dialled() {
        let one = |name: &str, index, ip: &str| Interface {
            name: name.to_owned(),
            index,
            ip: ip.parse().expect("an address"),
            prefix: 24,
        };
        let addresses = vec![
            one("lo", 1, "127.0.0.1"),
            one("eth0", 2, "192.168.1.5"),
            one("eth0", 2, "fd00::5"),
            one("eth0", 2, "fe80::5"),
            one("rc-mesh", 3, "10.200.1.1"),
            one("wlan0", 4, "192.168.2.5"),
        ];
        let machine = Machine { addresses, links: Vec::new() };
        let shown = |listen: &str| -> Vec<(u32, Vec<String>)> {
            let links = links(&machine, listen.parse().expect("an address"));
            links.iter().map(|link| (link.index, link.addresses.iter().map(ToString::to_string).collect())).collect()
        };
        let (wired, wireless) = (vec!["192.168.1.5".to_owned()], vec!["192.168.2.5".to_owned()]);
        let both = vec!["192.168.1.5".to_owned(), "fd00::5".to_owned()];
        assert_eq!(shown("0.0.0.0:2377"), [(2, wired), (4, wireless.clone())]);
        assert_eq!(shown("[::]:2377"), [(2, both), (4, wireless.clone())]);
        assert_eq!(shown("192.168.2.5:2377"), [(4, wireless)]);
        assert_eq!(shown("127.0.0.1:2377"), []);
    }
}
