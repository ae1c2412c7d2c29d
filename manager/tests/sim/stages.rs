//! What `orchestrator/run.rs` and `scheduler/run.rs` do: events in, plans out.

use std::time::Duration;

use racimo_common::time::Mono;
use racimo_manager::orchestrator::{self, Agenda};
use racimo_manager::scheduler::{self, Waiting};
use racimo_manager::store::{CommitError, View};

use crate::manager::{Manager, Stage, Waiter, Watcher};
use crate::model;
use crate::sim::{Bug, Happening, Sim};

/// As in the shells.
const RETRY: Duration = Duration::from_secs(1);
const DEBOUNCE: Duration = Duration::from_millis(50);
const DEBOUNCE_MAX: Duration = Duration::from_secs(1);
const START_HOLD_MAX: Duration = Duration::from_secs(3);

pub(crate) struct Orchestrator {
    view: View,
    agenda: Agenda,
    committed: u64,
    in_flight: bool,
    pub(crate) timer: Option<Mono>,
}

pub(crate) struct Scheduler {
    view: View,
    waiting: Waiting,
    committed: u64,
    in_flight: bool,
    changed: Option<(Mono, Mono)>,
    hold_until: Mono,
    pub(crate) timer: Option<Mono>,
}

impl Orchestrator {
    pub(crate) fn new(view: &View) -> Self {
        Self { view: view.clone(), agenda: Agenda::all(view), committed: 0, in_flight: false, timer: None }
    }
}

impl Scheduler {
    pub(crate) fn new(view: &View, now: Mono) -> Self {
        Self {
            view: view.clone(),
            waiting: Waiting::all(view),
            committed: 0,
            in_flight: false,
            changed: Some((now, now)),
            hold_until: now + START_HOLD_MAX,
            timer: None,
        }
    }
}

impl Manager {
    fn set_timer(&self, sim: &mut Sim, at: Mono, stage: Stage) -> Option<Mono> {
        let at = at.max(sim.now);
        sim.at(at, Happening::Stage { epoch: self.epoch, stage });
        Some(at)
    }

    // ---- the orchestrator's loop

    pub(crate) fn orchestrator_wakes(&mut self, sim: &mut Sim) {
        if self.orchestrator.in_flight {
            return;
        }
        let Some(batch) = self.drain(sim.now, Watcher::Orchestrator) else { return };
        let mine = &mut self.orchestrator;
        mine.view = batch.view;
        if batch.resync {
            mine.agenda.mark_all(&mine.view);
        }
        batch.events.iter().for_each(|event| mine.agenda.take(event, &mine.view));
        self.orchestrate(sim);
    }

    pub(crate) fn orchestrate(&mut self, sim: &mut Sim) {
        let now = self.clock(sim);
        let mine = &mut self.orchestrator;
        if mine.view.version() >= mine.committed || sim.has(Bug::OldView) {
            let plan = orchestrator::step(&mine.view, &mut mine.agenda, now, &mut self.ids);
            if !plan.observations.is_empty() {
                self.observe(sim, plan.observations);
            }
            if plan.changes.is_empty() {
                self.orchestrator.agenda.done();
            } else {
                (self.orchestrator.in_flight, self.orchestrator.timer) = (true, None);
                return self.commit(sim, plan.changes, Waiter::Orchestrator);
            }
        }
        self.orchestrator_rests(sim, None);
    }

    pub(crate) fn orchestrator_committed(&mut self, sim: &mut Sim, result: Result<u64, CommitError>) {
        self.orchestrator.in_flight = false;
        let retry = match result {
            Ok(index) => {
                self.orchestrator.committed = index;
                self.orchestrator.agenda.done();
                None
            }
            Err(_) if sim.has(Bug::DoneTooEarly) => {
                self.orchestrator.agenda.done();
                None
            }
            Err(_) => Some(sim.now + RETRY),
        };
        self.orchestrator_rests(sim, retry);
        self.orchestrator_wakes(sim);
    }

    fn orchestrator_rests(&mut self, sim: &mut Sim, retry: Option<Mono>) {
        let mine = &self.orchestrator;
        let idle = mine.agenda.is_empty() && mine.view.version() >= mine.committed;
        let due = if idle { mine.agenda.next_due() } else { retry };
        self.orchestrator.timer = due.and_then(|at| self.set_timer(sim, at, Stage::Orchestrator));
    }

    // ---- the scheduler's loop

    pub(crate) fn scheduler_wakes(&mut self, sim: &mut Sim) {
        if self.scheduler.in_flight {
            return;
        }
        if let Some(batch) = self.drain(sim.now, Watcher::Scheduler) {
            let mine = &mut self.scheduler;
            mine.view = batch.view;
            let mut news = batch.resync;
            if batch.resync {
                mine.waiting = Waiting::all(&mine.view);
            }
            for event in &batch.events {
                news |= mine.waiting.take(event);
            }
            if news {
                mine.changed = Some((mine.changed.map_or(sim.now, |(first, _)| first), sim.now));
            }
        }
        self.schedule(sim);
    }

    pub(crate) fn schedule(&mut self, sim: &mut Sim) {
        let mine = &self.scheduler;
        let ready = !mine.waiting.is_empty() && mine.view.version() >= mine.committed;
        let due = mine.changed.filter(|_| ready).map(|(first, last)| (last + DEBOUNCE).min(first + DEBOUNCE_MAX));
        let due = due.map(|due| if scheduler::awaits_nodes(&mine.view) { due.max(mine.hold_until) } else { due });
        self.scheduler.timer = due.and_then(|at| self.set_timer(sim, at, Stage::Scheduler));
    }

    pub(crate) fn schedule_now(&mut self, sim: &mut Sim) {
        let now = self.clock(sim);
        let mine = &mut self.scheduler;
        let plan = scheduler::step(&mine.view, &mine.waiting, now);
        mine.changed = plan.more.then_some((now.mono, now.mono));
        if let Some(wrong) = model::plan_is_wrong(&mine.view, &plan.assigns) {
            sim.fail(format_args!("the scheduler: {wrong}"));
        }
        if !plan.waits.is_empty() {
            self.observe(sim, plan.waits);
        }
        if plan.assigns.is_empty() {
            return self.schedule(sim);
        }
        self.scheduler.in_flight = true;
        self.commit(sim, plan.assigns, Waiter::Scheduler);
    }

    pub(crate) fn scheduler_committed(&mut self, sim: &mut Sim, result: Result<u64, CommitError>) {
        self.scheduler.in_flight = false;
        match result {
            Ok(index) => self.scheduler.committed = index,
            Err(_) => self.scheduler.changed = Some((sim.now, sim.now)),
        }
        self.scheduler_wakes(sim);
    }
}
