//! Leases: what keeps a half-pulled image from containerd's garbage collector.

use std::collections::BTreeSet;

use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::{AddResourceRequest, CreateRequest, Lease as LeaseInfo, ListRequest, Resource};
use racimo_common::registry::Digest;
use tonic::Code;

use super::error::PullError;
use crate::limits::{CTRD_CALL_MAX, PULL_UNFINISHED};
use crate::runtime::SNAPSHOTTER;
use crate::runtime::ctrd::{Ctrd, Kind, request, within};

const PREFIX: &str = "racimo-pull-";
/// Holds nothing: that it goes makes the garbage collector run.
const COLLECT: &str = "racimo-collect";

/// A lease with an id that follows from the image's name, so that the next try finds it. It has
/// no expiry, because boards start with wrong clocks; instead, few are kept.
pub(super) struct Lease {
    id: String,
}

impl Lease {
    /// Takes the lease of `image`, and drops the oldest of other images beyond the limit.
    pub(super) async fn take(ctrd: &Ctrd, image: &str) -> Result<Self, PullError> {
        let lease = Self { id: id(image) };
        create(ctrd, &lease.id).await?;
        for id in surplus(list(ctrd).await?, &lease.id) {
            delete(ctrd, id).await;
        }
        Ok(lease)
    }

    /// Drops those of all images but `wanted`, with what they hold. Nobody may be pulling.
    pub(super) async fn forget(ctrd: &Ctrd, wanted: &BTreeSet<String>) -> Result<(), PullError> {
        let wanted: Vec<String> = wanted.iter().map(|image| id(image)).collect();
        for lease in list(ctrd).await?.into_iter().filter(|lease| !wanted.contains(&lease.id)) {
            log::info!("what was fetched of an image that nobody needs is given up, as the disk is full");
            delete(ctrd, lease.id).await;
        }
        Ok(())
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Holds the snapshot `chain` and those below it.
    pub(super) async fn hold_snapshot(&self, ctrd: &Ctrd, chain: Digest) -> Result<(), PullError> {
        let resource = Resource { id: chain.to_string(), r#type: format!("snapshots/{SNAPSHOTTER}") };
        let add = AddResourceRequest { id: self.id.clone(), resource: Some(resource) };
        let mut client = LeasesClient::new(ctrd.clone());
        let added = within(CTRD_CALL_MAX, client.add_resource(request(add, None))).await;
        added.map(drop).map_err(PullError::call("hold a layer"))
    }

    /// Lets go. Waits for the garbage collector, so that the space is there for the next pull.
    pub(super) async fn release(self, ctrd: &Ctrd) {
        delete(ctrd, self.id).await;
    }
}

/// Lets containerd's garbage collector run, and waits for it.
pub(super) async fn collect(ctrd: &Ctrd) -> Result<(), PullError> {
    create(ctrd, COLLECT).await?;
    delete(ctrd, COLLECT.to_owned()).await;
    Ok(())
}

fn id(image: &str) -> String {
    format!("{PREFIX}{}", &Digest::of(image.as_bytes()).hex()[..16])
}

async fn list(ctrd: &Ctrd) -> Result<Vec<LeaseInfo>, PullError> {
    let mut client = LeasesClient::new(ctrd.clone());
    let list = ListRequest { filters: vec![format!("id~=^{PREFIX}")] };
    let leases = within(CTRD_CALL_MAX, client.list(request(list, None))).await;
    Ok(leases.map_err(PullError::call("list leases"))?.into_inner().leases)
}

async fn create(ctrd: &Ctrd, id: &str) -> Result<(), PullError> {
    let create = CreateRequest { id: id.to_owned(), ..Default::default() };
    match within(CTRD_CALL_MAX, LeasesClient::new(ctrd.clone()).create(request(create, None))).await {
        Err(status) if status.code() != Code::AlreadyExists => Err(PullError::call("reserve space")(status)),
        Ok(_) | Err(_) => Ok(()),
    }
}

async fn delete(ctrd: &Ctrd, id: String) {
    if let Err(status) = ctrd.delete(Kind::Lease, id, true).await {
        if status.code() != Code::NotFound {
            // It keeps some space; a later pull deletes it as one of the oldest.
            log::warn!("containerd keeps the lease of a pull: {}", status.message());
        }
    }
}

/// The oldest leases but `own` that exceed [`PULL_UNFINISHED`].
fn surplus(mut leases: Vec<LeaseInfo>, own: &str) -> Vec<String> {
    leases.retain(|lease| lease.id != own);
    leases.sort_by_key(|lease| {
        let created = lease.created_at.unwrap_or_default();
        std::cmp::Reverse((created.seconds, created.nanos))
    });
    leases.into_iter().skip(PULL_UNFINISHED).map(|lease| lease.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(leases: &[(&str, i64)], expected: &[&str]) {
        let leases = leases.iter().map(|(id, seconds)| LeaseInfo {
            id: (*id).into(),
            created_at: Some(prost_types::Timestamp { seconds: *seconds, nanos: 0 }),
            ..Default::default()
        });
        assert_eq!(surplus(leases.collect(), "own"), expected);
    }

    #[test]
    fn the_oldest_go() {
        check(&[], &[]);
        check(&[("own", 0), ("a", 1), ("b", 2), ("c", 3)], &[]);
        check(&[("a", 1), ("e", 5), ("c", 3), ("own", 0), ("b", 2), ("d", 4)], &["b", "a"]);
    }
}
