//! The certificate authority as it is at present: what signs, what the manager shows, whom it believes.
//!
//! In: the roots of the store, the key that signs, the manager's node. Out: a [`Present`], which [`Authority`] holds for
//! everybody: connections take the one that is there when they begin. Who makes a new one (a root is on its way, the
//! manager's own certificate is half over) puts it in the old one's place.
//!
//! ```text
//! certificate  ◀─ shown to boards, in this order ─
//!   its cross certificates, the newest first: its key signed by the root before, that one's by the one before it, …
//!   the present root, the one on its way
//! ```
//! A board verifies it by whichever of the roots it knows. The order matters: roots may have one name, and a verifier
//! that goes by names finds its way at once only if each certificate's issuer comes after it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use racimo_common::id::NodeId;
use racimo_common::time::{Clock, Wall};
use racimo_common::tls::{self, BUILT, CertificateDer, CredentialsError, ServerConfig};
use racimo_common::token::DIGEST_BYTES;
use ring::rand::SecureRandom;
use serde_bytes::ByteBuf;

use super::peer::wall;
use super::renewal::Wanted;
use super::{Ca, CaError, Peer, Shown};
use crate::limits::ROOT_ENDS_SOON;
use crate::store::{Change, Cluster, CommitError, Refusal, Store};

/// How much later than the last time that the store knows of something may be signed without the store being told.
const SIGNED_STEP: Duration = Duration::from_secs(600);

/// The root certificates of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// The one that join tokens name.
    pub present: CertificateDer<'static>,
    /// The one that replaces it, with the certificate of its key signed by the present one.
    pub coming: Option<(CertificateDer<'static>, CertificateDer<'static>)>,
    /// Those before, the oldest first; each with the certificate of the next one's key signed by it.
    pub retired: Vec<(CertificateDer<'static>, CertificateDer<'static>)>,
}

impl Roots {
    /// What the store says.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn of(cluster: &Cluster) -> Result<Self, CredentialsError> {
        let pair = |root: &str, cross: &str| Ok((tls::certificate_from_pem(root)?, tls::certificate_from_pem(cross)?));
        let trust = &cluster.trust;
        Ok(Self {
            present: tls::certificate_from_pem(&cluster.root_pem)?,
            coming: trust.rotation.as_ref().map(|it| pair(&it.root_pem, &it.cross_pem)).transpose()?,
            retired: trust.retired.iter().map(|it| pair(&it.root_pem, &it.cross_pem)).collect::<Result<_, _>>()?,
        })
    }

    /// One root that never had another beside it.
    pub fn only(root: CertificateDer<'static>) -> Self {
        Self { present: root, coming: None, retired: Vec::new() }
    }

    /// The one whose key signs new certificates.
    pub fn issuer(&self) -> &CertificateDer<'static> {
        self.coming.as_ref().map_or(&self.present, |(root, _)| root)
    }

    /// Those that boards shall trust.
    pub fn trusted(&self) -> Vec<CertificateDer<'static>> {
        let coming = self.coming.iter().map(|(root, _)| root);
        std::iter::once(&self.present).chain(coming).cloned().collect()
    }

    /// Those by which the manager knows its boards.
    pub fn known(&self) -> Vec<CertificateDer<'static>> {
        self.trusted().into_iter().chain(self.retired.iter().map(|(root, _)| root.clone())).collect()
    }

    /// What the manager shows after its own certificate.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        let crosses = self.coming.iter().chain(self.retired.iter().rev()).map(|(_, cross)| cross.clone());
        crosses.chain(self.trusted()).collect()
    }
}

/// The authority at one time.
#[derive(Debug)]
pub struct Present {
    /// Signs new certificates.
    pub ca: Ca,
    /// The cluster's roots.
    pub roots: Roots,
    /// The manager's side of TLS with boards.
    pub tls: Arc<ServerConfig>,
    /// The certificate that the manager shows.
    pub shown: Shown,
}

impl Present {
    /// An authority whose manager gets a new key and certificate. `ca` must have the key of [`Roots::issuer`].
    ///
    /// # Errors
    /// As [`Ca::issue_manager`]; or a root is of no use.
    pub fn make(
        ca: Ca,
        roots: Roots,
        own: NodeId,
        at: Wall,
        validity: Duration,
        rng: &dyn SecureRandom,
    ) -> Result<Self, CaError> {
        let unusable = |error: CredentialsError| CaError::Stored(error.to_string());
        if ca.root() != roots.issuer() {
            return Err(CaError::Stored("the key is not that of the root that signs".into()));
        }
        let issued = ca.issue_manager(own, at, validity, rng)?;
        let credentials = issued.credentials_with(&roots.chain()).map_err(unusable)?;
        let tls = tls::manager_server(&roots.known(), &credentials).map_err(unusable)?;
        let root = std::slice::from_ref(ca.root());
        let shown = Peer::of(credentials.certificate(), root).map_err(|e| CaError::Stored(e.to_string()))?.shown;
        Ok(Self { ca, roots, tls, shown })
    }

    /// As [`time()`], by the root that signs.
    pub fn time(&self, cluster: &Cluster, system: Wall) -> Wall {
        time(cluster, self.ca.ends(), system)
    }

    /// As [`time_to_sign`], by the root that signs.
    ///
    /// # Errors
    /// The same.
    pub async fn time_to_sign(&self, store: &Store, clock: Clock) -> Result<Wall, CommitError> {
        time_to_sign(store, clock, self.ca.ends()).await
    }

    /// The roots that boards shall trust, as they are told.
    pub fn trusted(&self) -> Vec<ByteBuf> {
        self.roots.trusted().iter().map(|root| ByteBuf::from(root.to_vec())).collect()
    }

    /// What boards shall show and trust.
    pub fn wanted(&self, validity: Duration) -> Wanted {
        let roots = self.roots.trusted().iter().map(|root| tls::digest(root)).collect();
        Wanted { issuer: self.issuer(), roots, validity }
    }

    /// SHA-256 of the root certificate whose key signs.
    pub fn issuer(&self) -> [u8; DIGEST_BYTES] {
        self.ca.root_digest()
    }

    /// SHA-256 of the root certificate that join tokens name.
    pub fn token_root(&self) -> [u8; DIGEST_BYTES] {
        tls::digest(&self.roots.present)
    }
}

/// The authority as it is now: a handle, cheap to clone.
#[derive(Debug, Clone)]
pub struct Authority(Arc<Mutex<Arc<Present>>>);

impl Authority {
    /// Begins with this one.
    pub fn new(present: Present) -> Self {
        Self(Arc::new(Mutex::new(Arc::new(present))))
    }

    /// The one at present. It stays as it is however long it is held.
    pub fn now(&self) -> Arc<Present> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another one in its place: connections from now on take that.
    pub fn replace(&self, present: Present) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(present);
    }
}

/// The last time at which the cluster is known to have signed a certificate.
pub fn last_signed(cluster: &Cluster) -> Wall {
    cluster.trust.signed.max(BUILT)
}

/// The time by which certificates are signed and judged: the system clock's, but never one before something was signed:
/// a clock that went back must not sign what boards take for over. A clock that shows a time after the root's end is
/// as wrong.
pub fn time(cluster: &Cluster, root_ends: Wall, system: Wall) -> Wall {
    let signed = last_signed(cluster);
    if system < root_ends { system.max(signed) } else { signed }
}

/// The time for what clients of the API judge, who have clocks: the API's certificate, and accesses. The system clock's if
/// it can be right, else the last time at which something was signed: a clock that was once far ahead leaves nothing
/// behind here.
pub fn client_time(cluster: &Cluster, root_ends: Wall, system: Wall) -> Wall {
    if system >= BUILT && system < root_ends { system } else { last_signed(cluster) }
}

/// What a person should know about the end of the root that signs, if it is near.
pub fn root_ending(cluster: &Cluster, system: Wall) -> Option<String> {
    let pem = cluster.trust.rotation.as_ref().map_or(&cluster.root_pem, |rotation| &rotation.root_pem);
    let root = tls::certificate_from_pem(pem).ok()?;
    let (_, root) = x509_parser::parse_x509_certificate(&root).ok()?;
    let ends = wall(root.validity().not_after);
    let stamp = ends.rfc3339();
    let day = String::from_utf8_lossy(&stamp).chars().take(10).collect::<String>();
    let to_do = "replace it with pi-mgr ca --rotate (docker swarm ca --rotate)";
    if system >= ends {
        let why = "or this machine's clock is wrong; if it is right, nobody is let in who checks the time";
        return Some(format!("the cluster's root certificate ended on {day}, {why}: {to_do}"));
    }
    (time(cluster, ends, system) + ROOT_ENDS_SOON >= ends).then(|| {
        let why = "and with it every certificate of the cluster";
        format!("the cluster's root certificate ends on {day}, {why}: {to_do} while all boards are on")
    })
}

/// The [`time()`] to sign at, which the store knows of afterwards.
///
/// # Errors
/// The store has stopped, or has no cluster.
pub async fn time_to_sign(store: &Store, clock: Clock, root_ends: Wall) -> Result<Wall, CommitError> {
    let system = clock.now().wall;
    let view = store.view();
    let cluster = view.state.cluster().ok_or(CommitError::Refused(Refusal::NoCluster))?;
    let at = time(cluster, root_ends, system);
    if at > cluster.trust.signed + SIGNED_STEP {
        match store.commit(system, vec![Change::Signed(at)]).await {
            Ok(_) => {}
            // Only to a clock that goes back could it make a difference.
            Err(error @ (CommitError::Full | CommitError::TooLarge)) => {
                log::warn!("when certificates were signed could not be stored: {error}");
            }
            Err(error @ (CommitError::Refused(_) | CommitError::Stopped)) => return Err(error),
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use racimo_common::id::{ClusterId, NetworkId, RandomId};

    use super::*;
    use crate::ca::ROOT_VALIDITY;
    use crate::store::{Change, Command, NewCluster, State};

    #[test]
    fn the_root_s_end_is_announced() {
        let (day, id) = (Duration::from_secs(24 * 3600), ClusterId::from_bits(1));
        let ca = Ca::create(id, BUILT, &ring::rand::SystemRandom::new()).expect("a root");
        let new = NewCluster { root_pem: ca.root_pem(), ..NewCluster::bare(id, NetworkId::from_bits(2)) };
        let changes = vec![Change::ClusterCreate(Box::new(new))];
        let (state, _) = State::default().apply(1, &Command { at: BUILT, changes }).expect("a cluster");
        let said = |at: Wall| root_ending(state.cluster().expect("a cluster"), at).unwrap_or_default();
        let ends = BUILT + ROOT_VALIDITY;
        assert_eq!(said(BUILT), "");
        assert_eq!(said(ends - ROOT_ENDS_SOON - day), "");
        let text = said(ends - ROOT_ENDS_SOON + day);
        let date = String::from_utf8_lossy(&ends.rfc3339())[..10].to_owned();
        assert!(text.contains(&format!("ends on {date}")) && text.contains("pi-mgr ca --rotate"), "{text}");
        assert!(said(ends + day).contains("or this machine's clock is wrong"));
        // Another root is on its way.
        let next = ca.successor(ends - day, &ring::rand::SystemRandom::new()).expect("a root");
        let key = crate::ca::kept::seal_key(&crate::vault::testing(), &next).expect("sealed");
        let rotation = ca.rotation(&next, key, BUILT, &ring::rand::SystemRandom::new()).expect("a rotation");
        let change = Change::RotationBegin(Box::new(rotation));
        let (state, _) = state.apply(2, &Command { at: BUILT, changes: vec![change] }).expect("it is taken");
        assert_eq!(root_ending(state.cluster().expect("a cluster"), ends - day), None);
    }

    #[test]
    fn clients_are_judged_by_a_clock_that_can_be_right() {
        let day = Duration::from_secs(24 * 3600);
        let (ahead, ends) = (BUILT + day * 4000, BUILT + day * 7000);
        let new = NewCluster::bare(ClusterId::from_bits(1), NetworkId::from_bits(2));
        let changes = vec![Change::ClusterCreate(Box::new(new)), Change::Signed(ahead)];
        let made = State::default().apply(1, &Command { at: BUILT, changes });
        let state = made.map(|(state, _)| state).expect("a cluster");
        let cluster = state.cluster().expect("a cluster");
        for (system, boards, clients) in [
            (BUILT + day, ahead, BUILT + day),
            (Wall::default(), ahead, ahead),
            (ahead + day, ahead + day, ahead + day),
            (ends + day, ahead, ahead),
        ] {
            assert_eq!((time(cluster, ends, system), client_time(cluster, ends, system)), (boards, clients));
        }
    }
}
