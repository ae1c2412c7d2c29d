//! Waiting for changes or a time, whichever is first: the one wait in every stage's loop.

use racimo_common::time::{Clock, Mono};

use super::owner::{Batch, Feed};

/// Why a wait ended.
#[derive(Debug)]
pub enum Wake {
    /// Something changed.
    Batch(Box<Batch>),
    /// The time has come.
    Time,
    /// The store has stopped: the stage ends.
    Stopped,
}

impl Feed {
    /// Waits for the next batch, but not beyond `due`.
    pub async fn next_until(&mut self, clock: &Clock, due: Option<Mono>) -> Wake {
        let batch = async { self.next().await.map_or(Wake::Stopped, |batch| Wake::Batch(Box::new(batch))) };
        let time = async {
            due.map_or_else(smol::Timer::never, |at| smol::Timer::at(clock.instant(at))).await;
            Wake::Time
        };
        smol::future::or(batch, time).await
    }
}
