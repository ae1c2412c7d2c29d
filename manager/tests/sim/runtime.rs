//! A fake containerd: small, complete, with faults.
//!
//! An operation takes effect at one moment between its begin and its answer, so that an agent may die in between.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use racimo_agent::health::{self, Check, Watch};
use racimo_agent::task::{Done, Found, Op};
use racimo_common::id::TaskId;
use racimo_common::object::Reservations;
use racimo_common::wire::Work;

use crate::agent::Input;
use crate::sim::{Happening, Sim};

/// What runs in a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Process {
    /// Nothing: never started.
    None,
    /// Nothing: the board lost power.
    Lost,
    Running {
        pid: u32,
    },
    Ended {
        status: u32,
        oom: bool,
    },
}

#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) process: Process,
    image: String,
    grace: Duration,
    pub(crate) reserves: Reservations,
    check: Option<Check>,
    was_healthy: bool,
    /// How long it runs on without a manager.
    pub(crate) lease: Option<Duration>,
}

/// A board's containers.
#[derive(Debug, Default)]
pub(crate) struct Runtime {
    /// Nobody answers.
    pub(crate) away: bool,
    pub(crate) containers: BTreeMap<TaskId, Container>,
    images: BTreeSet<String>,
    next_pid: u32,
}

/// An operation under way.
#[derive(Debug)]
pub(crate) struct Effect {
    pub(crate) task: TaskId,
    pub(crate) op: Op,
    pub(crate) token: u64,
    pub(crate) work: Option<Rc<Work>>,
}

impl Runtime {
    /// The power goes: processes are gone, containers stay.
    pub(crate) fn power_cut(&mut self) {
        for container in self.containers.values_mut() {
            container.process = Process::Lost;
        }
    }

    pub(crate) fn listing(&self) -> Vec<(TaskId, Found, Option<Duration>)> {
        let found = |process, health, lease| match process {
            Process::None => Found::Made,
            Process::Lost => Found::Lost,
            Process::Running { pid } => Found::Running { pid, health, lease },
            Process::Ended { status, oom } => Found::Ended { status, oom },
        };
        let watch = |c: &Container| c.check.map(|check| Watch { check, was_healthy: c.was_healthy });
        self.containers.iter().map(|(id, c)| (*id, found(c.process, watch(c), c.lease), Some(c.grace))).collect()
    }

    /// Whether its container has a health check and none has passed yet.
    pub(crate) fn is_unproven(&self, task: TaskId) -> bool {
        self.containers.get(&task).is_some_and(|c| c.check.is_some() && !c.was_healthy)
    }

    pub(crate) fn pid(&self, task: TaskId) -> Option<u32> {
        match self.containers.get(&task)?.process {
            Process::Running { pid } => Some(pid),
            Process::None | Process::Lost | Process::Ended { .. } => None,
        }
    }

    pub(crate) fn runs(&self, task: TaskId) -> bool {
        self.containers.get(&task).is_some_and(|c| matches!(c.process, Process::Running { .. }))
    }

    /// Until the operation takes effect.
    pub(crate) fn takes(&self, sim: &mut Sim, op: Op, work: Option<&Work>) -> Duration {
        match (op, work) {
            (Op::Prepare, Some(work)) if !self.images.contains(&work.container.image) => {
                if sim.chance(20) && !sim.calm { sim.span(2000..30_000) } else { sim.span(50..1500) }
            }
            // One that hangs takes its whole time.
            (Op::Probe, _) if !sim.calm && sim.chance(5) => Duration::from_secs(30),
            (Op::Prepare | Op::Start | Op::Probe | Op::Signal(_) | Op::Delete, _) => sim.span(1..200),
        }
    }

    /// The operation takes effect now.
    pub(crate) fn perform(&mut self, sim: &mut Sim, board: usize, effect: &Effect) -> Done {
        // A fenced task is killed without containerd.
        let kills = matches!(effect.op, Op::Signal(Some(_)));
        let is_fenced = self.containers.get(&effect.task).is_some_and(|c| c.lease.is_some());
        if self.away && !(kills && is_fenced) {
            return Done::Again("containerd is away".to_owned());
        }
        let troubled = !sim.calm && sim.chance(2);
        let task = effect.task;
        match effect.op {
            Op::Prepare => {
                let Some(work) = &effect.work else { return Done::Failed("nothing to run".to_owned()) };
                if troubled || work.container.image.starts_with("bad") {
                    return Done::Failed("the registry has no such image".to_owned());
                }
                self.images.insert(work.container.image.clone());
                let check = health::probe(work.container.health.as_ref(), None, &[]).map(|probe| probe.check);
                self.containers.entry(task).or_insert_with(|| Container {
                    process: Process::None,
                    image: work.container.image.clone(),
                    grace: work.container.stop_grace(),
                    reserves: work.resources.reservations,
                    check,
                    was_healthy: false,
                    lease: work.offline.lease(),
                });
                check.map_or(Done::Ok(None), Done::Made)
            }
            Op::Probe => {
                let Some(container) = self.containers.get_mut(&task) else {
                    return Done::Failed("no such container".to_owned());
                };
                if !matches!(container.process, Process::Running { .. }) || !sim.calm && sim.chance(15) {
                    return Done::Failed("health check exited with 1".to_owned());
                }
                container.was_healthy = true;
                Done::Ok(None)
            }
            Op::Start => {
                if troubled {
                    return Done::Failed("no such program".to_owned());
                }
                let Some(container) = self.containers.get_mut(&task) else {
                    return Done::Failed("no such container".to_owned());
                };
                match container.process {
                    Process::Running { pid } => Done::Ok(Some(pid)),
                    Process::Ended { .. } | Process::Lost => Done::Failed("it has run already".to_owned()),
                    Process::None => {
                        self.next_pid += 1;
                        let pid = self.next_pid;
                        container.process = Process::Running { pid };
                        fate(sim, board, task, pid, &container.image);
                        Done::Ok(Some(pid))
                    }
                }
            }
            Op::Signal(signal) => {
                let Some(Container { process: Process::Running { pid }, .. }) = self.containers.get(&task) else {
                    return Done::Ok(None);
                };
                let pid = *pid;
                let killed = signal.is_some();
                if troubled && !(killed && is_fenced) {
                    return Done::Failed("operation not permitted".to_owned());
                }
                let span = match (killed, sim.calm) {
                    // What the kernel cannot end cannot be fenced either.
                    (true, false) if sim.chance(3) && !is_fenced => sim.span(5000..20_000),
                    (true, _) => sim.span(1..100),
                    (false, false) if sim.chance(20) => return Done::Ok(None),
                    (false, _) => sim.span(1..700),
                };
                let status = if killed { 137 } else { 0 };
                sim.after(span, Happening::Exit { board, task, pid, status, own: false });
                Done::Ok(None)
            }
            Op::Delete => {
                if troubled {
                    return Done::Failed("device or resource busy".to_owned());
                }
                self.containers.remove(&task);
                Done::Ok(None)
            }
        }
    }

    /// The agent kills what runs of it by itself.
    pub(crate) fn kill(&self, sim: &mut Sim, board: usize, task: TaskId) {
        if let Some(pid) = self.pid(task) {
            let span = sim.span(1..100);
            sim.after(span, Happening::Exit { board, task, pid, status: 137, own: false });
        }
    }

    /// The process ends, if it is still that one. The agent may hear of it.
    pub(crate) fn exit(&mut self, task: TaskId, pid: u32, status: u32, own: bool, calm: bool) -> Option<Input> {
        let container = self.containers.get_mut(&task)?;
        if container.process != (Process::Running { pid }) || own && calm {
            return None;
        }
        let oom = own && status == 137;
        container.process = Process::Ended { status, oom };
        (!self.away).then_some(Input::Exited { task, status, oom })
    }
}

/// When the process will end by itself.
fn fate(sim: &mut Sim, board: usize, task: TaskId, pid: u32, image: &str) {
    // The only one that also ends by itself, and well, once everything is mended.
    if image.starts_with("batch") {
        let status = i32::from(!sim.calm && sim.chance(30)).unsigned_abs();
        return sim.within(20..8000, Happening::Exit { board, task, pid, status, own: false });
    }
    if sim.calm {
        return;
    }
    let (percent, status, ms) = match image.split(':').next() {
        Some("flaky") => (70, 1, 20..15_000),
        Some("job") => (90, 0, 20..8000),
        Some(_) | None => (8, 137, 20..60_000),
    };
    if sim.chance(percent) {
        sim.within(ms, Happening::Exit { board, task, pid, status, own: true });
    }
}
