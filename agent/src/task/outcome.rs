//! What becomes of a task: how its operations went, and how its process ended.

use racimo_common::object::{ContainerStatus, TaskState};
use racimo_common::time::{Mono, Now, Wall};

use super::{Done, Op, Phase, Task};
use crate::health::{Health, State};
use crate::limits;

impl Task {
    /// The operation in flight is over.
    pub fn done(&mut self, done: Done, now: Now) {
        let Some(op) = self.busy.take() else { return };
        match (op, done) {
            (Op::Probe, done) => self.probed(done, now),
            (op, Done::Again(reason)) => {
                self.not_before = now.mono + limits::RETRY_AFTER;
                if let Op::Signal(signal) = op {
                    self.not_signalled(signal, now.mono);
                }
                let reason = cut(reason);
                if self.report.err.as_ref() != Some(&reason) && self.phase != Phase::Ended {
                    self.report.err = Some(reason);
                    self.dirty = true;
                }
            }
            (Op::Prepare, done @ (Done::Ok(_) | Done::Made(_))) => {
                self.check = if let Done::Made(check) = done { Some(check) } else { None };
                self.phase = Phase::Made;
                self.says(TaskState::Ready, "prepared", now.wall);
            }
            (Op::Prepare, Done::Cancelled) => {}
            (Op::Prepare, Done::Failed(reason)) => self.ends(TaskState::Rejected, "rejected", Some(reason), now.wall),
            (Op::Start, Done::Ok(pid)) => {
                // It may have exited before the answer came.
                if self.phase == Phase::Made {
                    self.runs(pid.unwrap_or(0), false, now);
                }
            }
            (Op::Start, Done::Failed(reason)) => {
                // Its end, if that came first, is the truth.
                if self.phase == Phase::Made {
                    let reason = format!("starting container failed: {reason}");
                    self.ends(TaskState::Failed, "failed", Some(reason), now.wall);
                }
            }
            (Op::Signal(_), Done::Failed(reason)) => {
                log::warn!("task {}: signal it: {reason}", self.id);
                self.not_before = now.mono + limits::RETRY_AFTER;
            }
            (Op::Delete, Done::Ok(_)) => self.container = false,
            (Op::Delete, Done::Failed(reason)) => {
                log::warn!("task {}: remove its container: {reason}", self.id);
                self.not_before = now.mono + limits::DELETE_RETRY_AFTER;
            }
            (Op::Signal(None), Done::Ok(_)) => self.was_told(now.mono),
            (Op::Signal(_), Done::Ok(_) | Done::Made(_) | Done::Cancelled)
            | (Op::Start | Op::Delete, Done::Made(_) | Done::Cancelled) => {}
        }
    }

    /// A health check is over.
    fn probed(&mut self, done: Done, now: Now) {
        let (Phase::Running { .. }, Some(health)) = (&self.phase, &mut self.health) else { return };
        let before = health.state();
        match done {
            Done::Ok(_) => {
                health.checked(true, now.mono);
                if before == State::Starting {
                    self.says(TaskState::Running, "started", now.wall);
                }
            }
            Done::Failed(reason) => {
                health.checked(false, now.mono);
                // The reason is told once it matters.
                log::info!("task {}: a health check failed", self.id);
                if health.state() == State::Unhealthy {
                    self.sick = Some(format!("unhealthy container: {reason}"));
                    self.report.unhealthy = true;
                    self.dirty = true;
                }
            }
            Done::Again(reason) => {
                log::debug!("task {}: check its health: {reason}", self.id);
                health.undone(now.mono);
                self.not_before = now.mono + limits::RETRY_AFTER;
            }
            Done::Cancelled | Done::Made(_) => health.undone(now.mono),
        }
    }

    /// Its container's first process ended.
    pub fn exited(&mut self, status: u32, oom: bool, at: Wall) {
        // What ends while the container is made is the rest of an earlier try.
        if matches!(self.phase, Phase::Ended | Phase::Again) || self.busy == Some(Op::Prepare) {
            return;
        }
        let stopping = matches!(self.phase, Phase::Leaving { .. } | Phase::Stopping { .. }) || self.stops();
        // As in Docker: one that was never healthy has not got further than this.
        let starts = self.health.is_some() && self.report.state == TaskState::Starting;
        let message = if starts { "starting" } else { "started" };
        let code = i32::try_from(status).unwrap_or(i32::MAX);
        self.report.container = Some(ContainerStatus { id: self.id.to_string(), pid: 0, exit_code: Some(code) });
        if let Some(why) = self.sick.take() {
            // Whatever it exits with: it did not end by itself.
            let err =
                if status == 0 { format!("task: {why}") } else { format!("task: non-zero exit ({status}): {why}") };
            self.ends(TaskState::Failed, message, Some(err), at);
        } else if stopping {
            self.ends(TaskState::Shutdown, "shutdown", None, at);
        } else if status == 0 {
            self.ends(TaskState::Complete, "finished", None, at);
        } else {
            let why = if oom { ": the memory limit was reached" } else { "" };
            self.ends(TaskState::Failed, message, Some(format!("task: non-zero exit ({status}){why}")), at);
        }
    }

    /// A listing shows no process of a task that should have one.
    pub fn vanished(&mut self, at: Wall) {
        match self.phase {
            Phase::Running { .. } | Phase::Leaving { .. } | Phase::Stopping { .. } => {
                if let Some(why) = self.sick.take() {
                    self.ends(TaskState::Failed, "failed", Some(format!("task: {why}")), at);
                } else if self.stops() {
                    self.ends(TaskState::Shutdown, "shutdown", None, at);
                } else {
                    let err = "the container was lost: its process is gone from containerd".to_owned();
                    self.ends(TaskState::Failed, "failed", Some(err), at);
                }
            }
            Phase::New | Phase::Made | Phase::Ended | Phase::Again => {}
        }
    }

    pub(super) fn runs(&mut self, pid: u32, was_healthy: bool, now: Now) {
        self.phase = Phase::Running { pid };
        self.report.restarts += u32::from(std::mem::take(&mut self.is_again));
        self.health = self.check.map(|check| Health::begin(check, was_healthy, now.mono));
        self.report.container = Some(ContainerStatus { id: self.id.to_string(), pid, exit_code: None });
        if self.health.is_none() || was_healthy {
            self.says(TaskState::Running, "started", now.wall);
        } else {
            self.says(TaskState::Starting, "starting", now.wall);
        }
    }

    pub(super) fn ends(&mut self, state: TaskState, message: &str, err: Option<String>, at: Wall) {
        self.phase = Phase::Ended;
        self.says(state, message, at);
        self.report.err = err.map(cut);
    }

    /// The signal that asks it to stop has reached it. On a busy board that takes seconds, which are not its own.
    fn was_told(&mut self, now: Mono) {
        if let Phase::Stopping { kill_at, kills: 0, .. } = &mut self.phase {
            *kill_at = now + self.grace;
            self.fence(now);
        }
    }

    /// The signal did not reach the process: the next try counts as the first.
    fn not_signalled(&mut self, signal: Option<u32>, now: Mono) {
        if let Phase::Stopping { pid, kills, .. } = self.phase {
            self.phase = match signal {
                // Its lease does not wait for containerd.
                None if self.is_cut => return,
                // It has left the balance.
                None => Phase::Leaving { pid, until: now },
                Some(_) => Phase::Stopping { pid, kill_at: now, kills: kills.saturating_sub(1) },
            };
        }
    }
}

fn cut(mut text: String) -> String {
    let most = (0..=limits::REASON_BYTES_MAX.min(text.len())).rev().find(|&i| text.is_char_boundary(i));
    text.truncate(most.unwrap_or(0));
    text
}
