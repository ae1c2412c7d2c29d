//! A service's tasks, slot by slot.

use std::collections::BTreeMap;
use std::sync::Arc;

use racimo_common::id::ServiceId;
use racimo_common::object::Desired;
use racimo_common::time::Now;

use super::{restart, update};
use crate::store::{Service, Slot, Task, View};

/// All tasks of a slot.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// Wanted ones (desired `Ready` or `Running`), by id.
    pub(super) live: Vec<Arc<Task>>,
    /// The others, oldest first.
    pub(super) retired: Vec<Arc<Task>>,
}

/// A slot that counts as filled.
#[derive(Debug)]
pub(super) struct Filled {
    pub(super) slot: Slot,
    /// The wanted tasks, or the last one if it stopped and may not be restarted.
    pub(super) tasks: Vec<Arc<Task>>,
    /// Whether the updater has or had work here ([`Place::was_dirty`]).
    pub(super) older: bool,
    /// Whether the current revision had its task here, which stopped and may not be restarted: with start-first the
    /// old task serves on, and the updater must not try for ever.
    pub(super) spent: bool,
}

/// A service's tasks by slot.
pub(super) fn places(view: &View, service: ServiceId) -> BTreeMap<Slot, Place> {
    let mut places: BTreeMap<Slot, Place> = BTreeMap::new();
    for task in view.state.tasks_of_service(service) {
        let place = places.entry(task.slot).or_default();
        if task.desired <= Desired::Running { place.live.push(task.clone()) } else { place.retired.push(task.clone()) }
    }
    for place in places.values_mut() {
        place.retired.sort_by_key(|task| (task.revision, task.meta.created, task.meta.version, task.id));
    }
    places
}

impl Place {
    /// Whether and by what the slot is filled. One whose last task may be restarted, or is being removed, is not.
    pub(super) fn filled(&self, view: &View, slot: Slot, service: &Service, now: Now) -> Option<Filled> {
        let tasks = if self.live.is_empty() {
            let last = self.retired.iter().rev().find(|task| task.desired != Desired::Remove)?;
            if restart::may_restart(view, last, now) {
                return None;
            }
            vec![last.clone()]
        } else {
            self.live.clone()
        };
        let current = self.retired.iter().rev().find(|task| task.revision == service.revision);
        let spent = current.is_some_and(|task| task.ended.is_some() && !restart::may_restart(view, task, now));
        Some(Filled { slot, tasks, older: self.was_dirty(view, service), spent })
    }

    /// Whether the slot was dirty when the service got its current revision: the newest task from before it does not
    /// run what is wanted now. After a rollback slots that the update had not reached are not.
    pub(super) fn was_dirty(&self, view: &View, service: &Service) -> bool {
        let older = self.live.iter().chain(&self.retired).filter(|task| task.revision < service.revision);
        let newest = older.max_by_key(|task| (task.revision, task.meta.created, task.id));
        newest.is_some_and(|task| update::is_dirty(view, service, task))
    }
}
