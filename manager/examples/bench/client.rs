//! Services of the lab's cluster, through `pi-mgr` and the API.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::lab::Lab;
use super::lab::process::wait_for;

/// Longest wait for tasks to run or go.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// One task of a service, as the API shows it.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    /// Its id.
    pub(crate) id: String,
    /// Its node's id.
    pub(crate) node: String,
    /// Its container's first process.
    pub(crate) pid: u32,
}

/// The lab's busybox image.
pub(crate) fn image(lab: &Lab) -> String {
    format!("{}/busybox:latest", lab.registry().host())
}

/// `service create --detach` of sleeping containers with these extra flags.
pub(crate) fn create(lab: &Lab, name: &str, flags: &[&str]) -> Result<()> {
    // A sleep as first process ignores SIGTERM.
    let fixed = ["service", "create", "--detach", "--name", name, "--stop-signal", "SIGKILL", "--restart-delay", "0s"];
    let image = image(lab);
    lab.manager().pi_mgr(&[&fixed[..], flags, &[&image, "sleep", "1000000"]].concat()).map(drop)
}

/// Removes all services there are and waits until no container is left.
pub(crate) fn remove(lab: &Lab, names: &[&str]) -> Result<()> {
    lab.manager().pi_mgr(&[&["service", "rm"], names].concat())?;
    wait_for("removed tasks to be gone", WAIT_MAX, || {
        for board in lab.boards().into_iter().filter(|board| board.is_on()) {
            if !board.ctr(&["containers", "ls", "-q"])?.trim().is_empty() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
}

/// All services and their tasks, for a person.
pub(crate) fn tasks(lab: &Lab) -> Result<String> {
    let services = lab.manager().pi_mgr(&["service", "ls", "-q"])?;
    let services: Vec<&str> = services.split_whitespace().collect();
    lab.manager().pi_mgr(&[&["service", "ps", "--no-trunc"], &services[..]].concat())
}

/// The tasks of a service that are wanted and run.
pub(crate) fn running(lab: &Lab, name: &str) -> Result<Vec<Task>> {
    // {"desired-state":["running"],"service":["NAME"]}
    let filters = format!("%7B%22desired-state%22:%5B%22running%22%5D,%22service%22:%5B%22{name}%22%5D%7D");
    let answer = lab.manager().api("GET", &format!("/tasks?filters={filters}"), None)?.json()?;
    let tasks = answer.as_array().with_context(|| format!("GET /tasks: expected a list, not {answer}"))?;
    let text =
        |task: &Value, pointer: &str| task.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let runs = tasks.iter().filter(|task| text(task, "/Status/State") == "running");
    Ok(runs
        .map(|task| Task {
            id: text(task, "/ID"),
            node: text(task, "/NodeID"),
            pid: task
                .pointer("/Status/ContainerStatus/PID")
                .and_then(Value::as_u64)
                .and_then(|pid| u32::try_from(pid).ok())
                .unwrap_or(0),
        })
        .collect())
}

/// Waits until `count` tasks of the service run that `counts` accepts.
pub(crate) fn wait_running(lab: &Lab, name: &str, count: usize, counts: impl Fn(&Task) -> bool) -> Result<()> {
    wait_for(&format!("{count} tasks of {name} to run"), WAIT_MAX, || {
        Ok((running(lab, name)?.iter().filter(|task| counts(task)).count() == count).then_some(()))
    })
}

/// Waits until the service's update is completed.
pub(crate) fn wait_updated(lab: &Lab, name: &str) -> Result<()> {
    wait_for(&format!("the update of {name} to be completed"), WAIT_MAX, || {
        let service = lab.manager().api("GET", &format!("/services/{name}"), None)?.json()?;
        Ok((service.pointer("/UpdateStatus/State").and_then(Value::as_str) == Some("completed")).then_some(()))
    })
}

/// How long `act` takes until `count` tasks of the service run.
pub(crate) fn time_until(lab: &Lab, name: &str, count: usize, act: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let begin = Instant::now();
    act()?;
    wait_running(lab, name, count, |_| true)?;
    Ok(begin.elapsed())
}
