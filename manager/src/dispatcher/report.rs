//! What an agent's report means for the store.
//!
//! In: the view, the reporting node, its `Status`. Out: ends to commit and observations to publish.
//! A report about a task that is not on the node, has ended already or is not known is dropped: the board
//! will be told to forget it.

use std::collections::BTreeSet;

use racimo_common::id::NodeId;
use racimo_common::object::{Desired, HostPort, Port, PortMode, TaskReport, TaskState};
use racimo_common::time::Wall;

use crate::limits::REPORT_TEXT_BYTES_MAX;
use crate::store::{Change, Ended, Observation, Task, View};

/// What a report means.
#[derive(Debug, Default, PartialEq)]
pub struct Meaning {
    /// Ends, to be committed.
    pub changes: Vec<Change>,
    /// Running states, to be published.
    pub observations: Vec<Observation>,
    /// How many reports were about other nodes' tasks.
    pub foreign: u32,
}

/// Reads one report.
pub fn read(view: &View, node: NodeId, reports: Vec<TaskReport>, now: Wall) -> Meaning {
    let mut meaning = Meaning::default();
    let mut over = BTreeSet::new();
    for mut report in reports.into_iter().map(cut).map(with_restarts) {
        let Some(task) = view.state.task(report.task) else { continue };
        own_ports(&mut report.ports, task);
        if task.node != Some(node) {
            meaning.foreign += 1;
        } else if task.ended.is_some() {
            continue;
        } else if report.state.is_terminal() {
            // A second end would be refused, and the first with it.
            if !over.insert(task.id) {
                continue;
            }
            meaning.changes.push(Change::TaskEnd { task: task.id, ended: ended(report, task.desired, now) });
        } else {
            meaning.observations.push(Observation::Task { node, report });
        }
    }
    meaning
}

/// Whether the board has stopped every task that is not wanted on it any more.
///
/// Tasks of a node that was written off have been replaced: as long as one of them runs there, two of a slot would run
/// on nodes that count. So a node comes back only after this.
pub fn is_clean(view: &View, node: NodeId) -> bool {
    view.state.tasks_on_node(node).all(|task| task.ended.is_some() || task.desired <= Desired::Running)
}

/// The report with texts of a length that may be stored.
fn cut(mut report: TaskReport) -> TaskReport {
    let container = report.container.as_mut().map(|container| &mut container.id);
    for text in [Some(&mut report.message), report.err.as_mut(), container].into_iter().flatten() {
        let end = (0..=REPORT_TEXT_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or_default());
    }
    report
}

/// What the board did meanwhile, in its words: a task keeps its id when its own board starts it again.
fn with_restarts(mut report: TaskReport) -> TaskReport {
    let times = match report.restarts {
        0 => return report,
        1 => "once".to_owned(),
        count => format!("{count} times"),
    };
    if !report.state.is_terminal() {
        report.message += &format!(" (restarted {times} while the manager was away)");
    }
    report
}

/// Only ports that the task publishes on its board, and no more of them.
fn own_ports(ports: &mut Vec<HostPort>, task: &Task) {
    let asked = || task.spec.endpoint.ports.iter().filter(|port| port.mode == PortMode::Host);
    let is_it = |had: &HostPort, port: &Port| {
        (port.protocol, port.target) == (had.protocol, had.target) && [0, had.published].contains(&port.published)
    };
    ports.retain(|had| asked().any(|port| is_it(had, port)));
    ports.truncate(asked().count());
}

/// A task that was asked to stop and did is shut down, whatever its exit code was.
fn ended(report: TaskReport, desired: Desired, now: Wall) -> Ended {
    let stopped = desired >= Desired::Shutdown && report.state == TaskState::Failed;
    let exit_code = report.container.as_ref().and_then(|c| c.exit_code);
    Ended {
        state: if stopped { TaskState::Shutdown } else { report.state },
        at: now,
        message: if stopped { "shutdown".to_owned() } else { report.message },
        err: if stopped { None } else { report.err },
        container: report.container.map(|c| c.id).filter(|id| !id.is_empty()),
        exit_code,
    }
}
