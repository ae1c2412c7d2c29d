//! Generic resources, from a board's configuration to the environment of the containers that hold them.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{self, SOON, get, live, node_id, scale, tasks, wait};
use crate::failures::restart_agent;
use crate::lab::Lab;
use crate::lab::guard::Guard;
use crate::support::{create, docker, has, inspect, pi_mgr, remove, running};

const SLEEP: [&str; 2] = ["sleep", "100000"];

#[test]
#[ignore = "needs root"]
fn generic_resources_are_granted_to_one_task_each() -> Result<()> {
    let lab = Guard::cluster(2)?;
    configure(&lab, 1, &["gpio=2", "modem=/dev/ttyUSB0", "modem=/dev/ttyUSB1"])?;
    offered(&lab, 1, 3);
    let node = docker(&lab, &["node", "inspect", "board1"])?.good()?;
    let node: Value = serde_json::from_str(&node)?;
    let want = json!([
        {"DiscreteResourceSpec": {"Kind": "gpio", "Value": 2}},
        {"NamedResourceSpec": {"Kind": "modem", "Value": "/dev/ttyUSB0"}},
        {"NamedResourceSpec": {"Kind": "modem", "Value": "/dev/ttyUSB1"}},
    ]);
    assert_eq!(node[0]["Description"]["Resources"]["GenericResources"], want);
    let page = pi_mgr(&lab, &["node", "inspect", "--pretty", "board1"])?.good()?;
    has(&page, "Generic:\t\tgpio=2, modem=/dev/ttyUSB0, modem=/dev/ttyUSB1");

    let asks = ["--generic-resource", "gpio=1", "--generic-resource", "modem=1", "--replicas", "2"];
    create(&lab, "radio", &[&asks[..], &["--stop-grace-period", "300ms"]].concat(), &SLEEP)?;
    let rows = running(&lab, "radio", 2);
    assert!(rows.iter().all(|row| row.board == 1), "only board1 has any: {rows:?}");
    let granted = |id: &str| -> Result<(String, String)> {
        let (_, pid) = cluster::running(&lab)?[id];
        let environment = fs::read_to_string(format!("/proc/{pid}/environ"))?;
        let value = |name: &str| environment.split('\0').find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        Ok((value("DOCKER_RESOURCE_GPIO=").to_owned(), value("DOCKER_RESOURCE_MODEM=").to_owned()))
    };
    let mut modems = BTreeSet::new();
    for row in &rows {
        let (gpio, modem) = granted(&row.id)?;
        assert_eq!(gpio, "1");
        let shown = &get(&lab, &format!("/tasks/{}", row.id))?["GenericResources"];
        assert_eq!(shown[1]["NamedResourceSpec"], json!({"Kind": "modem", "Value": modem}));
        modems.insert(modem);
    }
    assert_eq!(modems, BTreeSet::from(["/dev/ttyUSB0".to_owned(), "/dev/ttyUSB1".to_owned()]));

    // There is no third.
    scale(&lab, "radio", 3)?;
    has(&waits(&lab, "radio"), "insufficient resources on 2 nodes: gpio short by 1");
    scale(&lab, "radio", 2)?;

    unplugged(&lab)?;
    changed_by_clients(&lab)?;
    a_board_says_what_is_wrong(&lab)
}

/// Why a task of a service waits, once it is said.
#[track_caller]
fn waits(lab: &Lab, service: &str) -> String {
    wait(lab, &format!("a task of {service} to wait"), SOON, || {
        let rows = tasks(lab, service)?;
        Ok(rows.into_iter().find(|row| row.state == "pending" && !row.err.is_empty()).map(|row| row.err))
    })
}

/// Writes a board's configuration and starts its agent anew.
fn configure(lab: &Lab, board: u8, terms: &[&str]) -> Result<()> {
    let board = lab.board(board)?;
    fs::write(board.agent_config(), format!("node-generic-resources = {terms:?}\n"))?;
    restart_agent(&board)
}

/// Waits until the cluster knows that a board offers so many entries.
#[track_caller]
fn offered(lab: &Lab, board: u8, count: usize) {
    wait(lab, &format!("board {board} to offer {count}"), SOON, || {
        let node = get(lab, &format!("/nodes/{}", node_id(lab, board)?))?;
        let list = node["Description"]["Resources"]["GenericResources"].as_array().map_or(0, Vec::len);
        Ok((list == count && node["Status"]["State"] == "ready").then_some(()))
    });
}

/// A modem is gone, and another board has one.
fn unplugged(lab: &Lab) -> Result<()> {
    configure(lab, 2, &["gpio=1", "modem=/dev/ttyACM0"])?;
    offered(lab, 2, 2);
    configure(lab, 1, &["gpio=2", "modem=/dev/ttyUSB1"])?;
    wait(lab, "one task to move", SOON, || {
        let rows = live(lab, "radio")?;
        let boards: BTreeSet<u8> = rows.iter().map(|row| row.board).collect();
        Ok((rows.len() == 2 && boards == BTreeSet::from([1, 2])).then_some(()))
    });
    Ok(())
}

/// What services ask for is changed by `docker` and by `pi-mgr`, with the same result.
fn changed_by_clients(lab: &Lab) -> Result<()> {
    let asked = |lab: &Lab| -> Result<Value> {
        let spec = inspect(lab, "radio")?;
        Ok(spec["Spec"]["TaskTemplate"]["Resources"]["Reservations"]["GenericResources"].clone())
    };
    let gpio = json!([{"DiscreteResourceSpec": {"Kind": "gpio", "Value": 1}}]);
    let both = json!([gpio[0], {"DiscreteResourceSpec": {"Kind": "modem", "Value": 1}}]);
    let update = |tool: fn(&Lab, &[&str]) -> Result<_>, flag: &str, value: &str| -> Result<()> {
        tool(lab, &["service", "update", "-d", "-q", flag, value, "radio"])
            .and_then(|said: crate::support::Said| said.good().map(drop))
    };
    assert_eq!(asked(lab)?, both);
    update(docker, "--generic-resource-rm", "modem")?;
    assert_eq!(asked(lab)?, gpio);
    update(pi_mgr, "--generic-resource-add", "modem=1")?;
    assert_eq!(asked(lab)?, both);
    update(pi_mgr, "--generic-resource-rm", "modem")?;
    update(docker, "--generic-resource-add", "modem=1")?;
    assert_eq!(asked(lab)?, both);
    running(lab, "radio", 2);
    let page = pi_mgr(lab, &["service", "inspect", "--pretty", "radio"])?.good()?;
    has(&page, "Generic:\tgpio=1, modem=1");
    remove(lab, &["radio"])?;
    let image = crate::support::busybox(lab);
    let named = ["service", "create", "-d", "--name", "named", "--generic-resource", "gpu=UUID1", &image];
    for tool in [docker, pi_mgr] {
        has(&tool(lab, &named)?.bad()?.1, "Named Generic Resources is not supported for service create or update");
    }
    // A service that asks for what nobody has.
    create(lab, "laser", &["--generic-resource", "laser=1"], &SLEEP)?;
    has(&waits(lab, "laser"), "insufficient resources on 2 nodes: laser short by 1");
    remove(lab, &["laser"])
}

fn a_board_says_what_is_wrong(lab: &Lab) -> Result<()> {
    let program = crate::lab::require::bin_dir()?.join("pi-agent");
    let bad = ["run", "--node-generic-resource", "gpio", "--max-tasks", "0"];
    let data = lab.directory.join("no-agent");
    let output = std::process::Command::new(program)
        .args(bad)
        .args([std::ffi::OsStr::new("--data-dir"), data.as_os_str()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "it started: {said}");
    has(&said, "node-generic-resource: could not parse GenericResource: incorrect term gpio");
    has(&said, "max-tasks: expected a number");
    Ok(())
}
