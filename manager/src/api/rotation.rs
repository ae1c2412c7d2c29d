//! Another root: what `POST /swarm/update` asks of it becomes a `Rotation` to store.

use std::sync::Arc;

use hyper::StatusCode;
use racimo_common::time::Wall;
use racimo_common::tls;
use racimo_common::token::DIGEST_BYTES;
use ring::rand::SystemRandom;

use super::Context;
use super::convert::swarm::RootAsk;
use super::error::ApiError;
use crate::ca::given::{self, GivenError};
use crate::ca::kept::{self, KeptError};
use crate::ca::{self, Ca, CaError, rotation};
use crate::dispatcher::liveness::Cause;
use crate::limits::ROOTS_RETIRED_MAX;
use crate::store::{Access, Change, Cluster, Node, View};

impl From<KeptError> for ApiError {
    fn from(error: KeptError) -> Self {
        match error {
            KeptError::NoKey => Self::unavailable("the root's key is not in the store yet: see the manager's log"),
            KeptError::Vault(error) => error.into(),
            KeptError::Ca(error) => error.into(),
        }
    }
}

impl From<CaError> for ApiError {
    fn from(error: CaError) -> Self {
        let status = match &error {
            CaError::Request(_) | CaError::KeyKind | CaError::Validity(_) => StatusCode::BAD_REQUEST,
            CaError::RootExpired | CaError::Stored(_) | CaError::Random | CaError::Time | CaError::Sign(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self::new(status, error.to_string())
    }
}

impl From<GivenError> for ApiError {
    fn from(error: GivenError) -> Self {
        if let GivenError::Ca(error) = error { error.into() } else { Self::invalid(error) }
    }
}

/// The rotation that is asked for, if one is. One that is under way is replaced, as by Docker.
///
/// # Errors
/// It cannot be done: the reason.
pub(super) fn begin(context: &Context, view: &View, ask: &RootAsk) -> Result<Option<Change>, ApiError> {
    let Some(cluster) = view.state.cluster() else { return Ok(None) };
    let asked = cluster.trust.asked;
    // Clients send back what they were shown; those that know nothing of it send nothing.
    let is_forced = match ask.force {
        0 => false,
        force if force == asked => false,
        force if force == asked + 1 => true,
        force => {
            let text = format!("CAConfig.ForceRotate is {asked}, and {} asks for a rotation, not {force}", asked + 1);
            return Err(ApiError::invalid(text));
        }
    };
    if !is_forced && ask.given.is_none() {
        return Ok(None);
    }
    let lost = forgotten(cluster);
    strands(view, &lost)?;
    strands_accesses(view, &lost, context.now())?;
    let present = kept::open(&context.vault, cluster)?;
    let (now, rng) = (ca::time(cluster, present.ends(), context.now()), SystemRandom::new());
    let next = match &ask.given {
        None => present.successor(now, &rng)?,
        Some((certificate, key)) => {
            let next = given::check(cluster.id, certificate, key, now, &rng)?;
            is_new(cluster, &next)?;
            next
        }
    };
    let key = kept::seal_key(&context.vault, &next)?;
    let rotation = Box::new(present.rotation(&next, key, now, &rng)?);
    if cluster.trust.rotation.is_none() {
        return Ok(Some(Change::RotationBegin(rotation)));
    }
    let replaced = ca::issuer(&context.vault, cluster)?;
    log::info!("the root rotation that is under way is replaced by another one");
    let cross_pem = tls::certificate_to_pem(&replaced.cross_sign(&next, &rng)?);
    Ok(Some(Change::RotationReplace { rotation, cross_pem }))
}

/// The roots that a further rotation forgets: the oldest.
fn forgotten(cluster: &Cluster) -> Vec<[u8; DIGEST_BYTES]> {
    let trust = &cluster.trust;
    // The present root, and the one whose rotation is replaced.
    let more = 1 + usize::from(trust.rotation.is_some());
    let surplus = (trust.retired.len() + more).saturating_sub(ROOTS_RETIRED_MAX);
    trust.retired.iter().take(surplus).filter_map(|root| kept::root_digest(&root.root_pem)).collect()
}

/// Boards whose certificate is of a root that is forgotten could not come back. One that left has no key any more.
fn strands(view: &View, lost: &[[u8; DIGEST_BYTES]]) -> Result<(), ApiError> {
    let has_left = |node: &Node| node.written_off.as_ref().is_some_and(|why| why.reason == Cause::Left.text());
    let is_lost = |node: &Node| node.trust.as_ref().is_some_and(|it| lost.contains(&it.issuer));
    let stranded = view.state.nodes().filter(|node| is_lost(node) && !has_left(node));
    let names = rotation::names_of(view, stranded);
    if names.is_empty() {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "another root rotation would forget the root that the certificates of {} are of, and they could not come \
         back: let them renew first, or remove them (pi-mgr node rm --force)",
        rotation::named(&names)
    )))
}

/// Accesses that were made under a root that is forgotten would open nothing any more, and their holders would not know
/// the manager. Those of a version that did not keep the root may be of any.
fn strands_accesses(view: &View, lost: &[[u8; DIGEST_BYTES]], now: Wall) -> Result<(), ApiError> {
    if lost.is_empty() {
        return Ok(());
    }
    let is_lost =
        |access: &&Arc<Access>| access.expires > now && access.issuer.is_none_or(|issuer| lost.contains(&issuer));
    let names: Vec<_> = view.state.accesses().filter(is_lost).map(|access| &*access.name).collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "another root rotation would forget the root that these accesses were made under, and they would open nothing \
         any more: {}; revoke each (pi-mgr access revoke NAME), and make those that are still needed anew (pi-mgr \
         access create NAME)",
        rotation::named(&names)
    )))
}

/// By its key a root is known: two roots of one key could not be told apart by what they signed.
fn is_new(cluster: &Cluster, next: &Ca) -> Result<(), ApiError> {
    if next.root_pem() == cluster.root_pem {
        return Err(ApiError::invalid("the CA certificate is the cluster's root certificate already"));
    }
    let coming = cluster.trust.rotation.as_ref().map(|rotation| &rotation.root_pem);
    if coming == Some(&next.root_pem()) {
        return Err(ApiError::invalid("the CA certificate is that of the root rotation that is under way"));
    }
    let before = cluster.trust.retired.iter().map(|retired| &retired.root_pem).chain(coming);
    for pem in std::iter::once(&cluster.root_pem).chain(before) {
        if tls::certificate_from_pem(pem).is_ok_and(|der| next.has_key_of(&der)) {
            return Err(ApiError::invalid(
                "the CA key is the key of a root that the cluster has or had: make a new one",
            ));
        }
    }
    Ok(())
}
