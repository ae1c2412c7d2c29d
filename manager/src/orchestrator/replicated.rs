//! Replicated services: slots 1..N, each with a task (reference §3).
//!
//! Nothing rebalances: a task moves only when its node is down, drained or removed.

use std::collections::BTreeMap;
use std::sync::Arc;

use racimo_common::id::NodeId;
use racimo_common::object::{Availability, Desired, TaskState};

use super::draft::Draft;
use super::place::{Filled, Place, places};
use super::restart;
use crate::store::{Change, Mode, Service, Slot, Task, View};

/// Restarts, then fills or empties slots. Returns the slots that the updater may work on.
pub(super) fn step(draft: &mut Draft<'_>, service: &Arc<Service>) -> Vec<Filled> {
    let service = &restart::sweep(draft, service, lost);
    let Mode::Replicated { replicas } = service.spec.mode else { return Vec::new() };
    let mut dead: BTreeMap<Slot, Place> = BTreeMap::new();
    let mut filled: Vec<Filled> = Vec::new();
    for (slot, place) in places(&draft.view, service.id) {
        match place.filled(&draft.view, slot, service, draft.now) {
            Some(fill) => filled.push(fill),
            None => drop(dead.insert(slot, place)),
        }
    }
    let wanted = usize::try_from(replicas).unwrap_or(usize::MAX);
    if filled.len() < wanted {
        let taken: Vec<Slot> = filled.iter().map(|fill| fill.slot).collect();
        let free = (1..=u32::MAX).map(Slot::Replica).filter(|slot| taken.binary_search(slot).is_err());
        for slot in free.take(wanted - filled.len()) {
            dead.remove(&slot);
            let new = draft.new_task(service, slot, None, None);
            if !draft.push(vec![new]) {
                break;
            }
        }
    } else if filled.len() > wanted {
        let order = scale_down_order(&draft.view, &filled);
        let mut places = places(&draft.view, service.id);
        for slot in order.into_iter().skip(wanted) {
            filled.retain(|fill| fill.slot != slot);
            dead.extend(places.remove(&slot).map(|place| (slot, place)));
        }
    }
    for place in dead.into_values() {
        forget(draft, &place);
    }
    filled
}

/// Whether a replicated task has to leave its node.
pub(super) fn lost(view: &View, task: &Task) -> bool {
    let lost = |node: NodeId| {
        view.state.node(node).is_none_or(|node| {
            node.written_off.is_some()
                || match node.spec.availability {
                    Availability::Active | Availability::Pause => false,
                    Availability::Drain => true,
                }
        })
    };
    task.node.is_some_and(lost)
}

/// The slots, those to keep first: sorted by running before not, lower number before higher, and then by how many
/// earlier slots share the node. A slot without a node or with several tasks goes first of all.
fn scale_down_order(view: &View, filled: &[Filled]) -> Vec<Slot> {
    let runs = |fill: &Filled| fill.tasks.iter().any(|task| view.task_state(task) == TaskState::Running);
    let mut sorted: Vec<&Filled> = filled.iter().collect();
    sorted.sort_by_key(|fill| (!runs(fill), fill.slot));
    let mut crowd: BTreeMap<NodeId, u32> = BTreeMap::new();
    let mut indexed: Vec<(u32, Slot)> = Vec::new();
    for fill in sorted {
        let index = match fill.tasks.as_slice() {
            [task] => task.node.map(|node| {
                let earlier = crowd.entry(node).or_default();
                *earlier += 1;
                *earlier
            }),
            _ => None,
        };
        indexed.push((index.unwrap_or(u32::MAX), fill.slot));
    }
    // Stable: the order from above holds among equals.
    indexed.sort_by_key(|(index, _)| *index);
    indexed.into_iter().map(|(_, slot)| slot).collect()
}

/// Nothing of the slot is wanted: what stopped is forgotten now, the rest when it has.
fn forget(draft: &mut Draft<'_>, place: &Place) {
    // One by one, since a plan may not have room for a long history. The wanted tasks last: until then the slot
    // counts as before, so that no other is chosen in its stead.
    for task in place.retired.iter().chain(&place.live).filter(|task| task.desired < Desired::Remove) {
        draft.push(vec![Change::TaskDesire { task: task.id, desired: Desired::Remove }]);
    }
}
