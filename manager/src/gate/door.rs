//! The shell around a [`Gate`]: counts connections as they come and go, and tells those that must go.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_channel::{Receiver, Sender};
use racimo_common::time::Clock;

use super::{Gate, Id, Limits, Source, Turned, Verdict};

/// See the module; clones are the same.
#[derive(Debug)]
pub struct Door<M: Ord + Clone>(Arc<Mutex<Inner<M>>>);

impl<M: Ord + Clone> Clone for Door<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[derive(Debug)]
struct Inner<M> {
    gate: Gate<M>,
    clock: Clock,
    /// Dropped: the guest must go.
    stays: BTreeMap<Id, Sender<Infallible>>,
}

/// A connection that came in; dropping it says that it has ended.
#[derive(Debug)]
pub struct Guest<M: Ord + Clone> {
    door: Door<M>,
    id: Id,
    source: Source,
    stay: Receiver<Infallible>,
}

impl<M: Ord + Clone> Door<M> {
    /// Nobody is there.
    pub fn new(limits: Limits, clock: Clock) -> Self {
        Self(Arc::new(Mutex::new(Inner { gate: Gate::new(limits), clock, stays: BTreeMap::new() })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner<M>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection came.
    ///
    /// # Errors
    /// It is to be closed at once.
    pub fn knock(&self, address: IpAddr, is_known: bool) -> Verdict<Guest<M>> {
        let source = Source::of(address);
        let mut inner = self.lock();
        let now = inner.clock.now().mono;
        let entered = inner.gate.knock(source, is_known, now)?;
        if let Some(out) = entered.out {
            inner.stays.remove(&out);
        }
        let (sender, stay) = async_channel::bounded(1);
        inner.stays.insert(entered.id, sender);
        drop(inner);
        Ok(Guest { door: self.clone(), id: entered.id, source, stay })
    }

    /// How many connections there are, and how many of them are half-open.
    pub fn count(&self) -> (usize, usize) {
        self.lock().gate.count()
    }
}

impl<M: Ord + Clone> Guest<M> {
    /// Where it comes from.
    pub fn source(&self) -> Source {
        self.source
    }

    /// It has shown that it is a member's.
    ///
    /// # Errors
    /// It is to be closed all the same.
    pub fn member(&self, member: M) -> Verdict<()> {
        let mut inner = self.door.lock();
        let now = inner.clock.now().mono;
        inner.gate.member(self.id, member, now)
    }

    /// What it asked was granted.
    pub fn joined(&self) {
        self.door.lock().gate.joined(self.id);
    }

    /// It showed a token that is none.
    pub fn failed(&self) {
        let mut inner = self.door.lock();
        let now = inner.clock.now().mono;
        inner.gate.failed(self.id, now);
    }

    /// Waits until others need its place. A member keeps it.
    pub async fn turned_out(&self) -> Turned {
        // Nothing is ever sent.
        let _ = self.stay.recv().await;
        Turned::Out
    }
}

impl<M: Ord + Clone> Drop for Guest<M> {
    fn drop(&mut self) {
        let mut inner = self.door.lock();
        let now = inner.clock.now().mono;
        inner.stays.remove(&self.id);
        inner.gate.left(self.id, now);
    }
}
