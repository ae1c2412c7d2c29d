//! The server's side of TLS for clients with certificates: which certificate it shows, and which ones it takes.
//!
//! In: the store (the roots), the vault (the root's key), this machine's names and addresses, the time. Out: a TLS
//! configuration, made when a client comes and kept until one of these changes, or a part of its life has passed. So it
//! is there as soon as there is a cluster, and gone while there is none or the vault is locked.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use racimo_common::id::ClusterId;
use racimo_common::time::Wall;
use racimo_common::tls::{self, CredentialsError, ServerConfig};
use ring::rand::{SecureRandom, SystemRandom};

use super::Context;
use super::host::Host;
use crate::announce::Service;
use crate::ca::{self, Names, Roots};
use crate::limits::API_LOOK_EVERY;
use crate::store::Cluster;

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
    looked: Instant,
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
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let view = context.store.view();
        let Some(cluster) = view.state.cluster() else {
            *made = None;
            return Err(NotServed::NoCluster);
        };
        let ends = made.as_ref().map_or(Wall::from_nanos(i64::MAX), |made| made.ends);
        let now = ca::client_time(cluster, ends, context.now());
        let looked = made.as_ref().filter(|made| made.looked.elapsed() < API_LOOK_EVERY);
        let (names, looked) = match looked {
            Some(made) => (made.basis.names.clone(), made.looked),
            None => (names(cluster), Instant::now()),
        };
        let roots = Roots::of(cluster).map_err(NotServed::Use)?;
        let basis = Basis { cluster: cluster.id, roots, names };
        let is_due = |made: &Made| made.basis != basis || now >= made.renew || now < made.from;
        if let Some(made) = made.as_mut().filter(|made| !is_due(made)) {
            made.looked = looked;
            return Ok(made.config.clone());
        }
        *made = None;
        let fresh = make(context, cluster, basis)?;
        let config = fresh.config.clone();
        *made = Some(fresh);
        Ok(config)
    }
}

fn names(cluster: &Cluster) -> Names {
    // What cannot be listed is not shown; the names are left.
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let addresses = interfaces.iter().map(|interface| interface.ip());
    let host = Host::read().name;
    // What the manager itself answers for on the local network; its port plays no part.
    let announced = Service::new(&host, cluster.id, 0).host().to_owned();
    let called: Vec<String> = cluster.managers.iter().cloned().chain([announced]).collect();
    Names::of(addresses, &host, &called)
}

fn make(context: &Context, cluster: &Cluster, basis: Basis) -> Result<Made, NotServed> {
    let ca = ca::issuer(&context.vault, cluster).map_err(NotServed::Root)?;
    let (rng, validity) = (SystemRandom::new(), cluster.spec.cert_expiry());
    let from = ca::client_time(cluster, ca.ends(), context.now());
    let issued = ca.issue_server(&basis.names, from, validity, &rng).map_err(NotServed::Issue)?;
    let own = issued.credentials_with(&basis.roots.chain()).map_err(NotServed::Use)?;
    let config = tls::api_server(&basis.roots.known(), &own).map_err(NotServed::Use)?;
    let mut chance = [0];
    rng.fill(&mut chance).map_err(|_| NotServed::Issue(ca::CaError::Random))?;
    let renew = from + part(issued.expires.since(from), chance[0]);
    log::info!("the API shows a new certificate to clients");
    Ok(Made { basis, looked: Instant::now(), from, renew, ends: ca.ends(), config })
}

/// 50 to 80 % of a life.
fn part(life: Duration, chance: u8) -> Duration {
    life / 1000 * (500 + 300 * u32::from(chance) / 255)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_has_its_time() {
        let day = Duration::from_secs(24 * 3600);
        assert_eq!(part(day * 100, 0), day * 50);
        assert_eq!(part(day * 100, 255), day * 80);
    }
}
