//! How many answers that go on (`events`, `logs`, backups) each access has open: places for all are few, and one access must not
//! take them from the others.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::API_ACCESS_STREAMS_MAX;

/// See the module; clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Streams(Arc<Mutex<BTreeMap<String, usize>>>);

/// An answer that goes on; it has ended when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    streams: Streams,
    access: String,
}

impl Streams {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for another one of this access; none: it has [`API_ACCESS_STREAMS_MAX`].
    pub(super) fn take(&self, access: &str) -> Option<Place> {
        let mut open = self.lock();
        let count = open.entry(access.to_owned()).or_default();
        if *count >= API_ACCESS_STREAMS_MAX {
            return None;
        }
        *count += 1;
        Some(Place { streams: self.clone(), access: access.to_owned() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.streams.lock().entry(std::mem::take(&mut self.access)) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_access_has_its_own_places() {
        let streams = Streams::default();
        let mut held: Vec<Place> = (0..API_ACCESS_STREAMS_MAX).map(|_| streams.take("bob").expect("room")).collect();
        assert!(streams.take("bob").is_none() && streams.take("ann").is_some());
        held.pop();
        let again = streams.take("bob");
        assert!(again.is_some() && streams.take("bob").is_none());
        drop((held, again));
        assert!(streams.lock().is_empty(), "nothing is left of them");
    }
}
