//! What members make the store write: each has so much of it, over all its sessions, so that none wears out the
//! manager's card.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use racimo_common::id::NodeId;
use racimo_common::time::Mono;

use crate::gate::{Bucket, Rate};
use crate::limits::{NODE_WRITES_BURST, NODE_WRITES_EVERY};

const WRITES: Rate = Rate { burst: NODE_WRITES_BURST, every: NODE_WRITES_EVERY };
/// Nodes from which on those are looked for whose share is whole again.
const TIDY_FROM: usize = 64;

/// See the module; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Writes(Arc<Mutex<BTreeMap<NodeId, Bucket>>>);

impl Writes {
    /// Whether this member may cause a write now.
    ///
    /// # Errors
    /// How long until it may.
    pub fn take(&self, node: NodeId, now: Mono) -> Result<(), Duration> {
        let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if nodes.len() >= TIDY_FROM && !nodes.contains_key(&node) {
            nodes.retain(|_, bucket| !bucket.is_full(now));
        }
        nodes.entry(node).or_default().take(WRITES, 1, now)
    }
}

#[cfg(test)]
mod tests {
    use racimo_common::id::RandomId;

    use super::*;

    #[test]
    fn each_has_its_share() {
        let writes = Writes::default();
        let (one, other) = (NodeId::from_bits(1), NodeId::from_bits(2));
        let mut now = Mono::default();
        for _ in 0..NODE_WRITES_BURST {
            assert_eq!(writes.take(one, now), Ok(()));
        }
        assert_eq!(writes.take(one, now), Err(NODE_WRITES_EVERY));
        assert_eq!(writes.take(other, now), Ok(()));
        now = now + NODE_WRITES_EVERY;
        assert_eq!(writes.take(one, now), Ok(()));
        assert!(writes.take(one, now).is_err());
        // Those whose share is whole are forgotten.
        for number in 0..10_000 {
            now = now + Duration::from_secs(1);
            assert_eq!(writes.take(NodeId::from_bits(100 + number), now), Ok(()));
        }
        let kept = writes.0.lock().map(|nodes| nodes.len()).unwrap_or_default();
        assert!(kept <= TIDY_FROM + 61, "{kept}");
    }
}
