//! The scheduler's shell: waits until changes come to rest, then places what waits.

use std::time::Duration;

use racimo_common::time::{Clock, Mono};

use super::{Waiting, awaits_nodes, step};
use crate::store::{CommitError, Store, Wake};

/// Rest after the last change before tasks are placed (reference §6).
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Longest wait after the first change.
const DEBOUNCE_MAX: Duration = Duration::from_secs(1);
/// How long to wait after the store refused a plan for a reason that time may mend.
const RETRY: Duration = Duration::from_secs(1);
/// How long after a start tasks wait for known nodes to come back. Without it the first node to come back gets
/// every task that waits; a node that stays away longer must not hold up the others.
const START_HOLD_MAX: Duration = Duration::from_secs(3);

/// Runs until the store stops.
pub async fn run(store: Store, clock: Clock) {
    let (mut view, mut feed) = store.watch();
    let mut waiting = Waiting::all(&view);
    let mut committed = 0;
    let hold_until = clock.now().mono + START_HOLD_MAX;
    // First and last change since tasks were placed.
    let mut changed = Some((clock.now().mono, clock.now().mono));
    loop {
        let due = changed.filter(|_| !waiting.is_empty() && view.version() >= committed).map(due);
        let due = due.map(|due| if awaits_nodes(&view) { due.max(hold_until) } else { due });
        match feed.next_until(&clock, due).await {
            Wake::Batch(batch) => {
                view = batch.view;
                let mut news = batch.resync;
                if batch.resync {
                    waiting = Waiting::all(&view);
                }
                for event in &batch.events {
                    news |= waiting.take(event);
                }
                if news {
                    let now = clock.now().mono;
                    changed = Some((changed.map_or(now, |(first, _)| first), now));
                }
                continue;
            }
            Wake::Time => {}
            Wake::Stopped => return,
        }
        let now = clock.now();
        let plan = step(&view, &waiting, now);
        changed = plan.more.then_some((now.mono, now.mono));
        if !plan.waits.is_empty() {
            store.observe(plan.waits).await;
        }
        if plan.assigns.is_empty() {
            continue;
        }
        match store.commit(now.wall, plan.assigns).await {
            Ok(index) => committed = index,
            // The world moved: place again with what the next batch brings.
            Err(CommitError::Refused(refusal)) => {
                log::debug!("the scheduler decides again: {refusal}");
                changed = Some((now.mono, now.mono));
            }
            Err(error @ (CommitError::Full | CommitError::TooLarge)) => {
                log::warn!("the scheduler cannot write, it tries again: {error}");
                changed = Some((now.mono + RETRY, now.mono + RETRY));
            }
            Err(CommitError::Stopped) => return,
        }
    }
}

fn due((first, last): (Mono, Mono)) -> Mono {
    (last + DEBOUNCE).min(first + DEBOUNCE_MAX)
}
