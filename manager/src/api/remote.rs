//! The server's side of TLS for clients with certificates: which certificate it shows, and which ones it takes.
//!
//! In: the store (the roots), the vault (the root's key), this machine's names and addresses, the time. Out: a TLS
//! configuration, made when a client comes and kept until one of these changes, or a part of its life has passed. So it
//! is there as soon as there is a cluster, and gone while there is none or the vault is locked.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use racimo_common::id::ClusterId;
use racimo_common::net::is_real_link;
use racimo_common::time::{Mono, Now, Wall};
use racimo_common::tls::{self, CredentialsError, ServerConfig};
use ring::rand::{SecureRandom, SystemRandom};

use super::Context;
use super::host::Host;
use crate::announce::Service;
use crate::ca::{self, Names, Roots};
use crate::limits::API_LOOK_EVERY;
use crate::store::Cluster;
use crate::vault::Vault;

/// Why nobody is let in.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotServed {
    #[error("there is no cluster yet: run pi-mgr init first")]
    NoCluster,
    #[error("the cluster's root cannot be used")]
    Root(#[source] ca::kept::KeptError),
    #[error("no certificate for the API")]
    Issue(#[source] ca::CaError),
    #[error("the certificate for the API cannot be used")]
    Use(#[source] CredentialsError),
}

/// See the module.
#[derive(Default)]
pub(super) struct ServerTls {
    made: Mutex<Option<Made>>,
}

struct Made {
    basis: Basis,
    looked: Mono,
    from: Wall,
    renew: Wall,
    /// When the root that signed it ends.
    ends: Wall,
    config: Arc<ServerConfig>,
}

/// What a configuration is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Basis {
    cluster: ClusterId,
    roots: Roots,
    names: Names,
}

impl ServerTls {
    /// What a client that comes now is shown.
    pub(super) fn config(&self, context: &Context) -> Result<Arc<ServerConfig>, NotServed> {
        let view = context.store.view();
        let names = |cluster: &Cluster| {
            // What cannot be listed is not shown; the names are left.
            let links = if_addrs::get_if_addrs().unwrap_or_default();
            let links = links.into_iter().map(|link| (link.ip(), link.name));
            names(cluster, links, &Host::read().name, context.remote.iter().map(|address| address.ip()))
        };
        self.at(view.state.cluster().map(AsRef::as_ref), &context.vault, context.clock.now(), names)
    }

    /// What a client that comes at this time is shown.
    fn at(
        &self,
        cluster: Option<&Cluster>,
        vault: &Vault,
        now: Now,
        names: impl FnOnce(&Cluster) -> Names,
    ) -> Result<Arc<ServerConfig>, NotServed> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(cluster) = cluster else {
            *made = None;
            return Err(NotServed::NoCluster);
        };
        let ends = made.as_ref().map_or(Wall::from_nanos(i64::MAX), |made| made.ends);
        let time = ca::client_time(cluster, ends, now.wall);
        let looked = made.as_ref().filter(|made| now.mono < made.looked + API_LOOK_EVERY);
        let (names, looked) = match looked {
            Some(made) => (made.basis.names.clone(), made.looked),
            None => (names(cluster), now.mono),
        };
        let roots = Roots::of(cluster).map_err(NotServed::Use)?;
        let basis = Basis { cluster: cluster.id, roots, names };
        let is_due = |made: &Made| made.basis != basis || time >= made.renew || time < made.from;
        if let Some(made) = made.as_mut().filter(|made| !is_due(made)) {
            made.looked = looked;
            return Ok(made.config.clone());
        }
        *made = None;
        let fresh = make(vault, cluster, now, basis)?;
        let config = fresh.config.clone();
        *made = Some(fresh);
        Ok(config)
    }
}

/// What clients may call this machine. Addresses of containers and their bridges are nobody's business, and come and go.
fn names(
    cluster: &Cluster,
    links: impl Iterator<Item = (IpAddr, String)>,
    host: &str,
    listened: impl Iterator<Item = IpAddr>,
) -> Names {
    // What the manager itself answers for on the local network; its port plays no part.
    let announced = Service::new(host, cluster.id, 0).host().to_owned();
    let called: Vec<String> = cluster.managers.iter().cloned().chain([announced]).collect();
    let mine = links.filter(|(ip, name)| ip.is_loopback() || is_real_link(name)).map(|(ip, _)| ip);
    Names::of(&called, host, listened.chain(mine))
}

fn make(vault: &Vault, cluster: &Cluster, now: Now, basis: Basis) -> Result<Made, NotServed> {
    let ca = ca::issuer(vault, cluster).map_err(NotServed::Root)?;
    let (rng, validity) = (SystemRandom::new(), cluster.spec.cert_expiry());
    let from = ca::client_time(cluster, ca.ends(), now.wall);
    let issued = ca.issue_server(&basis.names, from, validity, &rng).map_err(NotServed::Issue)?;
    let own = issued.credentials_with(&basis.roots.chain()).map_err(NotServed::Use)?;
    let config = tls::api_server(&basis.roots.known(), &own).map_err(NotServed::Use)?;
    let mut chance = [0];
    rng.fill(&mut chance).map_err(|_| NotServed::Issue(ca::CaError::Random))?;
    let renew = from + part(issued.expires.since(from), chance[0]);
    log::info!("the API shows a new certificate to clients");
    Ok(Made { basis, looked: now.mono, from, renew, ends: ca.ends(), config })
}

/// 50 to 80 % of a life.
fn part(life: Duration, chance: u8) -> Duration {
    life / 1000 * (500 + 300 * u32::from(chance) / 255)
}

#[cfg(test)]
mod tests {
    use racimo_common::id::{NetworkId, RandomId};
    use racimo_common::tls::BUILT;

    use super::*;
    use crate::ca::{Ca, kept};
    use crate::store::{Change, Command, NewCluster, State};

    const DAY: Duration = Duration::from_secs(24 * 3600);
    /// When the cluster was made.
    const MADE: Wall = Wall::from_nanos(BUILT.nanos() + 1_000_000_000_000_000);

    fn cluster(managers: &[&str], signed: Option<Wall>) -> State {
        let (id, vault) = (ClusterId::from_bits(1), crate::vault::testing());
        let ca = Ca::create(id, MADE, &SystemRandom::new()).expect("a root");
        let key = Some(kept::seal_key(&vault, &ca).expect("sealed"));
        let managers = managers.iter().map(ToString::to_string).collect();
        let new =
            NewCluster { root_pem: ca.root_pem(), key, managers, ..NewCluster::bare(id, NetworkId::from_bits(2)) };
        let changes = [Change::ClusterCreate(Box::new(new))].into_iter().chain(signed.map(Change::Signed)).collect();
        State::default().apply(1, &Command { at: MADE, changes }).expect("a cluster").0
    }

    /// A server that is asked for its certificate from time to time, by a machine with these addresses.
    struct Watched {
        state: State,
        tls: ServerTls,
        links: Vec<(IpAddr, String)>,
        mono: Mono,
        last: Option<Arc<ServerConfig>>,
    }

    impl Watched {
        fn new(state: State) -> Self {
            Self { state, tls: ServerTls::default(), links: Vec::new(), mono: Mono::default(), last: None }
        }

        /// Whether it shows another certificate at this time than before.
        #[track_caller]
        fn is_new(&mut self, wall: Wall) -> bool {
            self.mono = self.mono + API_LOOK_EVERY;
            let names = |cluster: &Cluster| names(cluster, self.links.iter().cloned(), "pi", std::iter::empty());
            let cluster = self.state.cluster().expect("a cluster");
            let now = Now { wall, mono: self.mono };
            let config = self.tls.at(Some(cluster), &crate::vault::testing(), now, names).expect("it is served");
            let same = self.last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &config));
            self.last = Some(config);
            !same
        }

        /// How many days it is until the next one, looking at it so often.
        #[track_caller]
        fn days(&mut self, from: Wall) -> u32 {
            (1..1000).find(|days| self.is_new(from + DAY * *days)).expect("it is renewed")
        }
    }

    #[test]
    fn the_certificate_is_renewed_in_time_whatever_the_clock_showed() {
        let mut server = Watched::new(cluster(&[], None));
        assert!(server.is_new(MADE) && !server.is_new(MADE));
        let days = server.days(MADE);
        assert!((45..=72).contains(&days), "of 90: {days}");
        // After the root's end, and before the program's build: not believed, and nothing is left of it.
        for wrong in [MADE + ca::ROOT_VALIDITY + DAY * 365, Wall::default()] {
            let mut server = Watched::new(cluster(&[], Some(MADE + DAY)));
            assert!(server.is_new(wrong) && !server.is_new(wrong + DAY));
            assert!(!server.is_new(MADE + DAY * 2), "it is valid");
            let days = server.days(MADE + DAY);
            assert!((45..=72).contains(&days), "of 90: {days}");
        }
        // Years ahead, but possible: what was made then begins too late.
        let mut server = Watched::new(cluster(&[], Some(MADE)));
        assert!(server.is_new(MADE + DAY * 4000) && server.is_new(MADE + DAY));
        assert!((45..=72).contains(&server.days(MADE + DAY)));
    }

    #[test]
    fn containers_that_come_and_go_change_nothing() {
        let mut server = Watched::new(cluster(&["192.168.1.5:2377"], None));
        let link = |name: &str, ip: &str| (ip.parse::<IpAddr>().expect("an address"), name.to_owned());
        server.links = vec![link("lo", "127.0.0.1"), link("eth0", "192.168.1.5"), link("docker0", "172.17.0.1")];
        assert!(server.is_new(MADE));
        server.links.push(link("veth12ab", "fe80::1"));
        server.links.push(link("br-0123456789ab", "172.18.0.1"));
        server.links.push(link("rc-mesh", "10.200.1.1"));
        assert!(!server.is_new(MADE));
        server.links.push(link("wlan0", "192.168.2.5"));
        assert!(server.is_new(MADE));
    }

    #[test]
    fn what_the_certificate_names_first_is_what_people_were_told() {
        let state = cluster(&["10.9.9.9:2377", "pi.lan:2377"], None);
        let many = (0..=255).map(|last| (IpAddr::from([10, 0, 0, last]), "eth0".to_owned()));
        let cluster = state.cluster().expect("a cluster");
        let listened = IpAddr::from([172, 17, 0, 1]);
        let has = format!("{:?}", names(cluster, many, "pi", [listened].into_iter()));
        for wanted in ["10.9.9.9", "172.17.0.1", "\"pi.lan\"", "\"pi.local\"", "10.0.0.0"] {
            assert!(has.contains(wanted), "{wanted}: {has}");
        }
        assert!(!has.contains("10.0.0.255"), "{has}");
    }

    #[test]
    fn renewal_has_its_time() {
        let day = DAY;
        assert_eq!(part(day * 100, 0), day * 50);
        assert_eq!(part(day * 100, 255), day * 80);
    }
}
