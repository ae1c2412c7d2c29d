//! The rules that keep the log safe, each of which a test can break on purpose: the simulation
//! must notice, else it proves nothing. In a normal build none can be broken.

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Acknowledge a batch before its sync.
    AckBeforeSync,
    /// Take a failed sync for a good one on the second try.
    SyncRetried,
    /// Don't write term and vote.
    VoteNotSaved,
    /// Don't repeat term and vote in a new segment.
    VoteNotRepeated,
    /// Give the snapshot its name before its contents are durable.
    SnapshotRenamedBeforeSync,
    /// Retire segments before the snapshot's name is durable.
    SnapshotNameNotSynced,
    /// Don't make a new segment's name durable.
    SegmentNameNotSynced,
    /// Check each record on its own.
    CrcUnchained,
    /// Check a segment's records without its id.
    CrcUnseeded,
    /// Don't rewrite the last batch at start, which may be in the cache alone.
    TailNotRewritten,
}

impl Fault {
    /// Every planted bug.
    #[cfg(test)]
    pub(super) const ALL: [Fault; 10] = [
        Fault::AckBeforeSync,
        Fault::SyncRetried,
        Fault::VoteNotSaved,
        Fault::VoteNotRepeated,
        Fault::SnapshotRenamedBeforeSync,
        Fault::SnapshotNameNotSynced,
        Fault::SegmentNameNotSynced,
        Fault::CrcUnchained,
        Fault::CrcUnseeded,
        Fault::TailNotRewritten,
    ];
}

/// Which rule is broken; none outside tests.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rules {
    #[cfg(test)]
    broken: Option<Fault>,
}

impl Rules {
    /// All rules but one.
    #[cfg(test)]
    pub(super) fn without(broken: Fault) -> Self {
        Rules { broken: Some(broken) }
    }

    #[cfg(test)]
    pub(super) fn broken(self, fault: Fault) -> bool {
        self.broken == Some(fault)
    }

    /// Whether a test broke this rule.
    #[cfg(not(test))]
    #[inline]
    pub(super) fn broken(self, _: Fault) -> bool {
        false
    }
}
