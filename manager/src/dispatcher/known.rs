//! The addresses at which members were last seen.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use racimo_common::time::Mono;

use crate::gate::Source;
use crate::store::Store;

/// How often they are read anew while the store changes: a cluster of 10,000 takes some milliseconds.
const EVERY: Duration = Duration::from_secs(1);

/// See the module; clones are the same.
#[derive(Clone)]
pub struct Known(Arc<Inner>);

struct Inner {
    store: Store,
    read: Mutex<Option<Read>>,
}

struct Read {
    at: Mono,
    version: u64,
    sources: BTreeSet<Source>,
}

impl Known {
    /// Those of the store's members.
    pub fn new(store: Store) -> Self {
        Self(Arc::new(Inner { store, read: Mutex::new(None) }))
    }

    /// Whether a member was last seen at the source of `address`.
    pub fn has(&self, address: IpAddr, now: Mono) -> bool {
        let mut read = self.0.read.lock().unwrap_or_else(PoisonError::into_inner);
        let view = self.0.store.view();
        let is_fresh = |read: &Read| read.version == view.version() || now.since(read.at) < EVERY;
        if !read.as_ref().is_some_and(is_fresh) {
            let addresses = view.state.nodes().filter_map(|node| node.addr.parse().ok());
            let sources = addresses.map(Source::of).collect();
            *read = Some(Read { at: now, version: view.version(), sources });
        }
        read.as_ref().is_some_and(|read| read.sources.contains(&Source::of(address)))
    }
}
