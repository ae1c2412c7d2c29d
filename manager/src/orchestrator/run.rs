//! The orchestrator's shell: events in, plans out.

use std::time::Duration;

use racimo_common::id::IdSource;
use racimo_common::time::Clock;

use super::{Agenda, step};
use crate::store::{CommitError, Store, Wake};

/// How long to wait after the store refused a plan for a reason that time may mend.
const RETRY: Duration = Duration::from_secs(1);

/// Runs until the store stops.
pub async fn run(store: Store, clock: Clock, mut ids: IdSource) {
    let (mut view, mut feed) = store.watch();
    let mut agenda = Agenda::all(&view);
    let mut committed = 0;
    loop {
        let mut retry = None;
        // Never decide on a view older than the last write of our own.
        if view.version() >= committed {
            let now = clock.now();
            let plan = step(&view, &mut agenda, now, &mut ids);
            if !plan.observations.is_empty() {
                store.observe(plan.observations).await;
            }
            let result = match plan.changes.is_empty() {
                true => Ok(committed),
                false => store.commit(now.wall, plan.changes).await,
            };
            match result {
                Ok(index) => {
                    committed = index;
                    // Only now: what is not committed is still to be done.
                    agenda.done();
                }
                // The world moved; the next batch is there already. If it is not, look again soon.
                Err(CommitError::Refused(refusal)) => {
                    log::debug!("the orchestrator decides again: {refusal}");
                    retry = Some(now.mono + RETRY);
                }
                Err(error @ (CommitError::Full | CommitError::TooLarge)) => {
                    log::warn!("the orchestrator cannot write, it tries again: {error}");
                    retry = Some(now.mono + RETRY);
                }
                Err(CommitError::Stopped) => return,
            }
        }
        let due = if agenda.is_empty() && view.version() >= committed { agenda.next_due() } else { retry };
        match feed.next_until(&clock, due).await {
            Wake::Batch(batch) => {
                view = batch.view;
                if batch.resync {
                    agenda.mark_all(&view);
                }
                batch.events.iter().for_each(|event| agenda.take(event, &view));
            }
            Wake::Time => {}
            Wake::Stopped => return,
        }
    }
}
