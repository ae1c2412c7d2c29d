//! Boards that are hot, badly fed, and whose kernel has no memory controller, as the manager and its clients see them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::{SOON, get, live, node_id, tasks, wait, wait_board};
use crate::lab::Lab;
use crate::lab::board::{Board, Verb};
use crate::lab::guard::Guard;
use crate::support::{create, docker, has, pi_mgr};

/// Time for a change to be told: boards are looked at every 10 s.
const TOLD: Duration = Duration::from_secs(30);

const SLEEP: [&str; 2] = ["sleep", "1000000"];

/// The agent sees these files where the board has its own, and no memory controller.
fn view(files: &Path) -> String {
    let files = files.display();
    format!(
        "set -e\n\
         mount --bind {files}/class /sys/class\n\
         mount --bind {files}/platform /sys/devices/platform\n\
         if [ -e /sys/fs/cgroup/cgroup.controllers ]; then\n\
         mount --bind {files}/controllers /sys/fs/cgroup/cgroup.controllers\n\
         else\n\
         umount /sys/fs/cgroup/memory\n\
         fi\n\
         exec \"$@\"\n"
    )
}

fn write(files: &Path, temperature: &str, voltage_alarm: &str) -> Result<()> {
    for (path, text) in [
        ("class/thermal/thermal_zone0/type", "cpu-thermal\n"),
        ("class/thermal/thermal_zone0/temp", temperature),
        ("class/hwmon/hwmon0/name", "rpi_volt\n"),
        ("class/hwmon/hwmon0/in0_lcrit_alarm", voltage_alarm),
        ("platform/soc/soc:firmware/get_throttled", "0\n"),
        ("controllers", "cpuset cpu io pids\n"),
    ] {
        let path = files.join(path);
        fs::create_dir_all(path.parent().context("a directory")?)?;
        fs::write(path, text)?;
    }
    Ok(())
}

fn labels(lab: &Lab, board: u8) -> Result<Value> {
    let mut node = get(lab, &format!("/nodes/{}", node_id(lab, board)?))?;
    Ok(node["Description"]["Engine"]["Labels"].take())
}

/// Waits until its health is these words; others, of this machine, may stand between and behind them.
#[track_caller]
fn wait_health(lab: &Lab, board: u8, words: &[&str], not: &str) {
    wait(lab, &format!("board {board} to be {words:?}"), TOLD, || {
        let labels = labels(lab, board)?;
        let health = labels["io.racimo.health"].as_str().unwrap_or_default().to_owned();
        let said: Vec<&str> = health.split(", ").collect();
        Ok((words.iter().all(|word| said.contains(word)) && !said.contains(&not)).then_some(()))
    });
}

#[test]
#[ignore = "needs root"]
fn boards_say_how_they_are_and_get_no_limits_that_they_cannot_enforce() -> Result<()> {
    let lab = Guard::cluster(2)?;
    let first = lab.board(1)?;
    let files = first.directory().join("hardware");
    write(&files, "84250\n", "1\n")?;
    fs::write(first.agent_view(), view(&files))?;
    first.act(Verb::KillAgent)?;
    first.act(Verb::StartAgent)?;
    wait_board(&lab, 1, "ready", TOLD);
    its_health_is_shown(&lab, &files)?;
    limits_keep_off(&lab, &first)
}

fn its_health_is_shown(lab: &Lab, files: &Path) -> Result<()> {
    wait_health(lab, 1, &["undervoltage", "degraded", "hot"], "had undervoltage");
    let told = labels(lab, 1)?;
    for (label, want) in [("temperature", "84"), ("undervoltage", "now"), ("throttled", "no")] {
        assert_eq!(told[format!("io.racimo.{label}")], want, "{told}");
    }
    assert!(told["io.racimo.memory-available"].is_string() && told["io.racimo.disk-free"].is_string(), "{told}");
    let table = pi_mgr(lab, &["node", "ls"])?.good()?;
    ensure!(table.lines().next().is_some_and(|heading| heading.ends_with("HEALTH")), "{table}");
    let row = table.lines().find(|line| line.contains("board1")).context("no line for board 1")?;
    ensure!(row.contains("undervoltage, degraded, "), "{table}");
    let page = pi_mgr(lab, &["node", "inspect", "--pretty", "board1"])?.good()?;
    has(&page, " Temperature:          84 °C");
    has(&page, "cgroup_enable=memory");
    has(&docker(lab, &["node", "ls"])?.good()?, "board1");
    has(&docker(lab, &["node", "inspect", "--pretty", "board1"])?.good()?, "io.racimo.temperature=84");

    write(files, "51000\n", "0\n")?;
    wait_health(lab, 1, &["degraded", "had undervoltage"], "hot");
    assert_eq!(labels(lab, 1)?["io.racimo.undervoltage"], "since boot");
    Ok(())
}

fn limits_keep_off(lab: &Lab, first: &Board<'_>) -> Result<()> {
    let here = "node.hostname==board1";
    create(lab, "bound", &["--network", "host", "--limit-memory", "32M", "--replicas", "2"], &SLEEP)?;
    create(lab, "free", &["--network", "host", "--constraint", here], &SLEEP)?;
    create(lab, "stuck", &["--network", "host", "--limit-memory", "32M", "--constraint", here], &SLEEP)?;
    let boards = wait(lab, "the bound tasks to run", SOON, || {
        let rows = live(lab, "bound")?;
        Ok((rows.len() == 2).then(|| rows.iter().map(|row| row.board).collect::<Vec<_>>()))
    });
    assert_eq!(boards, [2, 2]);
    wait(lab, "the free task to run", SOON, || Ok(live(lab, "free")?.first().map(|row| assert_eq!(row.board, 1))));
    let why = wait(lab, "the stuck task to say why", SOON, || {
        Ok(tasks(lab, "stuck")?.first().map(|row| row.err.clone()).filter(|why| !why.is_empty()))
    });
    has(&why, "limits not available on 1 node: the kernel's memory controller is off");
    has(&why, "add cgroup_enable=memory to the line in /boot/firmware/cmdline.txt");
    assert_eq!(tasks(lab, "stuck")?[0].state, "pending");

    // The same board with its controller: what waited comes.
    fs::remove_file(first.agent_view())?;
    first.act(Verb::KillAgent)?;
    first.act(Verb::StartAgent)?;
    wait(lab, "the stuck task to run", TOLD, || Ok(live(lab, "stuck")?.first().map(|row| assert_eq!(row.board, 1))));
    Ok(())
}
