//! What tests ask a cluster, through its API and its boards.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::lab::Lab;
use crate::lab::process::{log_tail, wait_for};

/// How long anything may take on a busy machine, unless a test is about time.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// A task as `service ps` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) slot: u64,
    /// The board's number; 0: on none.
    pub(crate) board: u8,
    pub(crate) desired: String,
    pub(crate) state: String,
    pub(crate) err: String,
}

/// Containers that run: their task, their board, their process.
pub(crate) type Running = BTreeMap<String, (u8, u32)>;

/// A service of busybox.
pub(crate) fn busybox(lab: &Lab, name: &str, replicas: u64, command: &[&str]) -> Value {
    json!({
        "Name": name,
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": format!("{}/busybox:latest", lab.registry().host()),
                "Command": command,
                "StopGracePeriod": 1_000_000_000_u64,
            },
            "RestartPolicy": {"Condition": "any", "Delay": 0},
        },
        "Mode": {"Replicated": {"Replicas": replicas}},
    })
}

/// A service that sleeps.
pub(crate) fn sleeper(lab: &Lab, name: &str, replicas: u64) -> Value {
    busybox(lab, name, replicas, &["sleep", "1000000"])
}

/// Creates a service; its id.
pub(crate) fn create(lab: &Lab, spec: &Value) -> Result<String> {
    let answer = lab.manager().api("POST", "/services/create", Some(spec))?;
    ensure!(answer.status == 201, "create: status {}: {}", answer.status, answer.text());
    Ok(answer.json()?["ID"].as_str().context("no ID")?.to_owned())
}

/// Changes a service's spec.
pub(crate) fn update(lab: &Lab, name: &str, change: impl Fn(&mut Value)) -> Result<()> {
    let mut service = get(lab, &format!("/services/{name}"))?;
    change(&mut service["Spec"]);
    let path = format!("/services/{name}/update?version={}", service["Version"]["Index"]);
    let answer = lab.manager().api("POST", &path, Some(&service["Spec"]))?;
    ensure!(answer.status == 200, "update: status {}: {}", answer.status, answer.text());
    Ok(())
}

/// Sets the number of replicas.
pub(crate) fn scale(lab: &Lab, name: &str, replicas: u64) -> Result<()> {
    update(lab, name, |spec| spec["Mode"]["Replicated"]["Replicas"] = json!(replicas))
}

/// Removes a service.
pub(crate) fn remove(lab: &Lab, name: &str) -> Result<()> {
    let answer = lab.manager().api("DELETE", &format!("/services/{name}"), None)?;
    ensure!(answer.status == 200, "remove: status {}: {}", answer.status, answer.text());
    Ok(())
}

/// What the API says about `path`.
pub(crate) fn get(lab: &Lab, path: &str) -> Result<Value> {
    let answer = lab.manager().api("GET", path, None)?;
    ensure!(answer.status == 200, "GET {path}: status {}: {}", answer.status, answer.text());
    answer.json()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Every task of a service, by slot, newest first.
pub(crate) fn tasks(lab: &Lab, service: &str) -> Result<Vec<Row>> {
    let nodes = get(lab, "/nodes")?;
    let nodes = nodes.as_array().context("nodes: expected a list")?;
    let board = |id: &Value| {
        let node = nodes.iter().find(|node| node["ID"] == *id);
        let hostname = node.and_then(|node| node["Description"]["Hostname"].as_str()).unwrap_or_default();
        hostname.strip_prefix("board").and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    let tasks = get(lab, &format!("/tasks?filters=%7B%22service%22%3A%5B%22{service}%22%5D%7D"))?;
    let mut tasks = tasks.as_array().context("tasks: expected a list")?.clone();
    tasks.sort_by_key(|task| (task["Slot"].as_u64(), std::cmp::Reverse(text(&task["CreatedAt"]))));
    let rows = tasks.iter().map(|task| Row {
        id: text(&task["ID"]),
        slot: task["Slot"].as_u64().unwrap_or(0),
        board: board(&task["NodeID"]),
        desired: text(&task["DesiredState"]),
        state: text(&task["Status"]["State"]),
        err: text(&task["Status"]["Err"]),
    });
    Ok(rows.collect())
}

/// The tasks of a service that are wanted and run.
pub(crate) fn live(lab: &Lab, service: &str) -> Result<Vec<Row>> {
    let mut rows = tasks(lab, service)?;
    rows.retain(|row| row.desired == "running" && row.state == "running");
    Ok(rows)
}

/// A board's state in the manager's eyes: `ready`, `down`, `unknown`; empty: it does not know the board.
pub(crate) fn board_state(lab: &Lab, board: u8) -> Result<String> {
    let nodes = get(lab, "/nodes")?;
    let hostname = format!("board{board}");
    let mut nodes = nodes.as_array().into_iter().flatten();
    let node = nodes.find(|node| node["Description"]["Hostname"] == hostname.as_str());
    Ok(node.map(|node| text(&node["Status"]["State"])).unwrap_or_default())
}

/// How many sessions a board's agent has opened.
pub(crate) fn sessions(lab: &Lab, board: u8) -> Result<usize> {
    let log = std::fs::read(lab.board(board)?.agent_log())?;
    Ok(String::from_utf8_lossy(&log).matches("session open as node").count())
}

/// A board's node id.
pub(crate) fn node_id(lab: &Lab, board: u8) -> Result<String> {
    let nodes = get(lab, "/nodes")?;
    let hostname = format!("board{board}");
    let mut nodes = nodes.as_array().into_iter().flatten();
    let node = nodes.find(|node| node["Description"]["Hostname"] == hostname.as_str());
    node.map(|node| text(&node["ID"])).with_context(|| format!("no node {hostname}"))
}

/// Sets a board's availability.
pub(crate) fn availability(lab: &Lab, board: u8, availability: &str) -> Result<()> {
    let id = node_id(lab, board)?;
    let mut node = get(lab, &format!("/nodes/{id}"))?;
    node["Spec"]["Availability"] = json!(availability);
    let path = format!("/nodes/{id}/update?version={}", node["Version"]["Index"]);
    let answer = lab.manager().api("POST", &path, Some(&node["Spec"]))?;
    ensure!(answer.status == 200, "node update: status {}: {}", answer.status, answer.text());
    Ok(())
}

/// The containers that really run on boards which have power.
pub(crate) fn running(lab: &Lab) -> Result<Running> {
    let mut found = Running::new();
    for board in lab.boards().iter().filter(|board| board.containerd_process().is_some()) {
        for line in board.ctr(&["tasks", "ls"])?.lines().skip(1) {
            let mut words = line.split_whitespace();
            if let (Some(task), Some(pid), Some("RUNNING")) = (words.next(), words.next(), words.next()) {
                found.insert(task.to_owned(), (board.number, pid.parse().context("pid")?));
            }
        }
    }
    Ok(found)
}

/// Waits for a condition; says what the cluster looked like if it does not come.
#[track_caller]
pub(crate) fn wait<T>(lab: &Lab, what: &str, limit: Duration, mut ready: impl FnMut() -> Result<Option<T>>) -> T {
    let found = wait_for(what, limit, || {
        let found = ready()?;
        if found.is_none() {
            std::thread::sleep(Duration::from_millis(80));
        }
        Ok(found)
    });
    match found {
        Ok(found) => found,
        Err(error) => panic!("{error:#}\n{}", picture(lab)),
    }
}

/// Nodes, services, tasks, containers and the ends of the logs.
pub(crate) fn picture(lab: &Lab) -> String {
    let manager = lab.manager();
    let mut lines = vec![
        manager.pi_mgr(&["node", "ls"]).unwrap_or_else(|error| format!("{error:#}")),
        manager.pi_mgr(&["service", "ls"]).unwrap_or_else(|error| format!("{error:#}")),
    ];
    let services = get(lab, "/services").ok().and_then(|list| list.as_array().cloned()).unwrap_or_default();
    for service in services.iter().take(5) {
        let name = text(&service["Spec"]["Name"]);
        lines.push(manager.pi_mgr(&["service", "ps", "--no-trunc", &name]).unwrap_or_default());
    }
    lines.push(format!("running: {:?}", running(lab)));
    lines.push(log_tail(&manager.log()));
    lines.extend(lab.boards().iter().map(|board| log_tail(&board.agent_log())));
    lines.join("\n")
}

/// Waits until these services run as many tasks as they want, and the boards nothing else.
#[track_caller]
pub(crate) fn settle(lab: &Lab, services: &[(&str, usize)]) -> Running {
    wait(lab, &format!("{services:?} to run, and nothing else"), SOON, || {
        let mut wanted = Vec::new();
        for &(name, count) in services {
            let rows = live(lab, name)?;
            let mut slots: Vec<u64> = rows.iter().map(|row| row.slot).collect();
            slots.dedup();
            if rows.len() != count || slots.len() != count {
                return Ok(None);
            }
            wanted.extend(rows.into_iter().map(|row| (row.id, row.board)));
        }
        let running = running(lab)?;
        let as_wanted = running.len() == wanted.len()
            && wanted.iter().all(|(id, board)| running.get(id).is_some_and(|(where_, _)| where_ == board));
        Ok(as_wanted.then_some(running))
    })
}

/// Waits for a board's state.
#[track_caller]
pub(crate) fn wait_board(lab: &Lab, board: u8, state: &str, limit: Duration) {
    wait(lab, &format!("board {board} to be {state}"), limit, || Ok((board_state(lab, board)? == state).then_some(())));
}

/// Waits until a log says something.
#[track_caller]
pub(crate) fn wait_log(lab: &Lab, log: &std::path::Path, words: &str) {
    wait(lab, &format!("{} to say {words:?}", log.display()), SOON, || {
        let text = std::fs::read(log)?;
        Ok(String::from_utf8_lossy(&text).contains(words).then_some(()))
    });
}
