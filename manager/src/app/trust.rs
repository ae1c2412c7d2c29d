//! Keeps the authority as it has to be: the root that signs, the roots that count, the manager's own certificate; and
//! has the file of the vault's key looked after.
//!
//! In: the store's roots, the key of the root that signs, the time. Out: a new [`Present`] in the [`Authority`] whenever
//! the roots changed or the manager's certificate is due, and what the manager's node shows and trusts in the store.
//!
//! ```text
//! store ─ roots changed ─┐
//!         every 10 s ────┴─▶ is it due? ─ yes ─▶ new key and certificate ─▶ authority ─▶ connections from then on
//! ```
//! The manager's key is in memory only, and another one each time.

use racimo_common::error::chain;
use racimo_common::id::NodeId;
use racimo_common::time::{Clock, Mono, Wall};
use ring::rand::SystemRandom;

use super::key_file;
use crate::api::control::ControlError;
use crate::ca::{self, Authority, Present, Roots, renewal};
use crate::limits::{ROOT_ENDS_EVERY, TRUST_LOOK_EVERY};
use crate::store::{Change, Cluster, CommitError, Event, Feed, NodeTrust, Store};
use crate::vault::Vault;

/// The authority of a cluster that is taken up now.
///
/// # Errors
/// A root or its key is of no use, or nothing can be signed.
pub(super) async fn first(vault: &Vault, store: &Store, clock: Clock, own: NodeId) -> Result<Authority, ControlError> {
    make(vault, store, clock, own).await.map(Authority::new)
}

async fn make(vault: &Vault, store: &Store, clock: Clock, own: NodeId) -> Result<Present, ControlError> {
    let view = store.view();
    let cluster = view.state.cluster().ok_or(ControlError::NotIn)?;
    let signer = ca::issuer(vault, cluster)
        .map_err(|error| ControlError::Failed(format!("load the root: {}", chain(&error))))?;
    let failed = |error: &dyn std::error::Error| {
        ControlError::Failed(format!("issue the manager's certificate: {}", chain(error)))
    };
    let at = ca::time_to_sign(store, clock, signer.ends()).await.map_err(|error| failed(&error))?;
    let roots = Roots::of(cluster).map_err(|error| failed(&error))?;
    let validity = cluster.spec.cert_expiry();
    Present::make(signer, roots, own, at, validity, &SystemRandom::new()).map_err(|error| failed(&error))
}

/// Keeps an authority as it has to be.
pub(super) struct Keeper {
    /// Its roots.
    pub(super) store: Store,
    /// The machine's clocks.
    pub(super) clock: Clock,
    /// Opens the root's key.
    pub(super) vault: Vault,
    /// The manager's own node.
    pub(super) own: NodeId,
    /// What is kept.
    pub(super) authority: Authority,
    /// Looks after the file of the key that opens the root's.
    pub(super) key_file: key_file::Guard,
}

impl Keeper {
    /// Runs until the store stops.
    pub(super) async fn run(mut self) {
        let (_, mut feed) = self.store.watch();
        let (mut told, mut remind) = (None, None);
        loop {
            self.remind(&mut remind);
            let fault = self.look().await.err().map(|error| error.to_string());
            if let (Some(fault), true) = (&fault, fault != told) {
                log::error!("the manager's certificate cannot be renewed: {fault}; it is tried again");
            }
            told = fault;
            self.key_file.look().await;
            if !wake(&mut feed).await {
                return;
            }
        }
    }

    /// Says from time to time that the root ends soon.
    fn remind(&self, due: &mut Option<Mono>) {
        let (now, view) = (self.clock.now(), self.store.view());
        let ending = view.state.cluster().and_then(|cluster| ca::root_ending(cluster, now.wall));
        if let Some(text) = ending.filter(|_| due.is_none_or(|due| due <= now.mono)) {
            log::warn!("{text}");
            *due = Some(now.mono + ROOT_ENDS_EVERY);
        }
    }

    /// Makes a new certificate if one is due, and lets the store know what the manager shows.
    async fn look(&self) -> Result<(), ControlError> {
        let view = self.store.view();
        let (Some(cluster), Some(node)) = (view.state.cluster(), view.state.node(self.own)) else { return Ok(()) };
        if is_due(&self.authority.now(), cluster, self.clock.now().wall) {
            self.authority.replace(make(&self.vault, &self.store, self.clock, self.own).await?);
            log::info!("the manager has a new certificate");
        }
        let present = self.authority.now();
        let wanted = present.wanted(cluster.spec.cert_expiry());
        let expires = present.shown.ends;
        let trust = NodeTrust { issuer: wanted.issuer, roots: wanted.roots, expires };
        if node.trust.as_ref() == Some(&trust) {
            return Ok(());
        }
        let change = Change::NodeTrust { node: self.own, trust };
        match self.store.commit(self.clock.now().wall, vec![change]).await {
            Ok(_) | Err(CommitError::Stopped) => {}
            Err(error @ (CommitError::Refused(_) | CommitError::Full | CommitError::TooLarge)) => {
                log::warn!("what the manager's certificate is could not be stored: {error}");
            }
        }
        Ok(())
    }
}

/// Whether another authority is needed: the store's roots are others, or the manager's certificate is due.
fn is_due(present: &Present, cluster: &Cluster, system: Wall) -> bool {
    let now = present.time(cluster, system);
    // Roots that cannot be read are found when the next certificate is due, and said then.
    Roots::of(cluster).is_ok_and(|roots| roots != present.roots)
        || renewal::due(&present.shown, cluster.spec.cert_expiry()) <= now
}

/// Waits until the cluster changed, or for [`TRUST_LOOK_EVERY`]: the clock may have been set meanwhile. False: the store
/// has stopped.
async fn wake(feed: &mut Feed) -> bool {
    let changed = async {
        while let Some(batch) = feed.next().await {
            if batch.resync || batch.events.iter().any(|event| matches!(event, Event::Cluster)) {
                return true;
            }
        }
        false
    };
    let later = async {
        smol::Timer::after(TRUST_LOOK_EVERY).await;
        true
    };
    smol::future::or(changed, later).await
}
