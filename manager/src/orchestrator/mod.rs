//! The orchestrator: keeps every service's tasks as its spec wants them.
//!
//! ```text
//! events ─▶ Agenda ─▶ per node:    enforce (constraints, reservations, long lost nodes)
//!                     per service: restart ─▶ replicated | global ─▶ update ─▶ reap ─▶ Plan
//!                                          └▶ job ─────────────────────────▶ reap ─▶ Plan
//! ```
//! [`step`] is pure; [`run()`] is its shell. Each core adds to a `draft::Draft`, whose view already shows what the
//! cores before it decided, so that a plan never contradicts itself. Everything that steers a decision is in the
//! store; the agenda only remembers where to look, and since when an updated task runs (an observation).

mod agenda;
mod draft;
mod enforce;
mod fence;
mod global;
mod job;
mod place;
mod reap;
mod replicated;
mod restart;
mod run;
mod update;

use std::sync::Arc;

use racimo_common::id::{IdSource, ServiceId};
use racimo_common::time::{Mono, Now};

use crate::store::{Change, Mode, Observation, Service, View};

pub use agenda::Agenda;
pub use fence::{keeps_node, reason as held_by_fence};
pub use run::run;
pub use update::is_dirty;

use draft::Draft;

/// What the orchestrator wants done.
#[derive(Debug, Default)]
pub struct Plan {
    /// Committed in one transaction, in order.
    pub changes: Vec<Change>,
    /// Published beside it.
    pub observations: Vec<Observation>,
    /// When to step again if nothing happens first.
    pub wake_at: Option<Mono>,
}

/// One service is looked at again until nothing more follows; a few rounds do, more would be a bug.
const ROUNDS_MAX: usize = 16;

/// Next moves for what is on the agenda. Same inputs, same plan. Call [`Agenda::done`] once it is committed.
pub fn step(view: &View, agenda: &mut Agenda, now: Now, ids: &mut IdSource) -> Plan {
    agenda.begin(now);
    let (nodes, services) = agenda.marked();
    let mut draft = Draft::new(view, now, ids, agenda);
    for node in nodes {
        enforce::step(&mut draft, node);
        draft.end_node(node);
    }
    for id in services {
        for _ in 0..ROUNDS_MAX {
            let before = draft.len();
            match draft.view.state.service(id).cloned() {
                Some(service) => look(&mut draft, &service),
                None => reap::gone(&mut draft, id),
            }
            if draft.len() == before {
                break;
            }
        }
        draft.end_service(id);
    }
    let (changes, observations) = draft.finish();
    Plan { changes, observations, wake_at: agenda.next_due() }
}

fn look(draft: &mut Draft<'_>, service: &Arc<Service>) {
    let slots = match service.spec.mode {
        Mode::ReplicatedJob { .. } | Mode::GlobalJob => {
            job::step(draft, service);
            reap::prune(draft, service);
            return;
        }
        Mode::Replicated { .. } => {
            update::note_running(draft, service);
            restart::release(draft, service);
            replicated::step(draft, service)
        }
        Mode::Global => {
            update::note_running(draft, service);
            restart::release(draft, service);
            global::step(draft, service)
        }
    };
    if let Some(service) = fresh(draft, service.id) {
        update::step(draft, &service, &slots);
        reap::prune(draft, &service);
    }
}

/// The service as the draft has it by now.
fn fresh(draft: &Draft<'_>, id: ServiceId) -> Option<Arc<Service>> {
    draft.view.state.service(id).cloned()
}
