//! Figures of a running cluster: three boards, real containerd, on a disk of their own.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use super::lab::board::Verb;
use super::lab::names::Name;
use super::lab::process::{Process, log_tail, signal};
use super::lab::{Config, Lab, down};
use super::table::{Table, as_f64};
use super::{client, disk, floor, idle, memory};

/// Long enough for the last start's work to end.
pub(crate) const SETTLE: Duration = Duration::from_secs(10);

/// How long an updated task is watched: short, since it is waited for.
const MONITOR: &str = "100ms";

/// The lab's name: one bench at a time, since two would disturb each other.
const NAME: &str = "bench";

/// Adds the figures of a lab of so many boards that is made for them. What was measured before a failure is kept.
pub(crate) fn measure(
    boards: u8,
    table: &mut Table,
    figures: impl FnOnce(&Lab, &mut Table) -> Result<()>,
) -> Result<()> {
    let name: Name = NAME.parse().map_err(anyhow::Error::msg)?;
    // Whatever an earlier run left that was killed.
    down(&name)?;
    let owner = Process::current().map(|process| process.to_string());
    let lab = Lab::up(Config { name: name.clone(), boards, cluster: true, manager_agent: false, owner })?;
    let measured = figures(&lab, table);
    if measured.is_err() {
        eprintln!("{}", client::tasks(&lab).unwrap_or_else(|cause| format!("{cause:#}")));
        eprintln!("{}", log_tail(&lab.manager().log()));
        lab.boards().iter().for_each(|board| eprintln!("{}", log_tail(&board.agent_log())));
    }
    if let Err(cause) = down(&name) {
        eprintln!("bench: {cause:#}");
    }
    measured
}

/// Memory, idling and latencies.
pub(crate) fn figures(lab: &Lab, device: &str, table: &mut Table) -> Result<()> {
    std::thread::sleep(SETTLE);
    memory::empty(lab, table)?;

    // The image is on every board and every program has run once.
    floor::pull(lab)?;
    client::create(lab, "warm", &["--mode", "global"])?;
    client::wait_running(lab, "warm", 3, |_| true)?;
    client::remove(lab, &["warm"])?;
    floor::time(lab, 3)?;

    starts(lab, 10, 3, table)?;
    starts(lab, 50, 2, table)?;
    scale(lab, table)?;
    rolling(lab, 1, 2, table)?;
    rolling(lab, 10, 2, table)?;
    removed(lab, table)?;
    replaced(lab, table)?;
    writes(lab, device, table)?;
    resting(lab, device, table)?;
    power_off(lab, table)
}

/// A latency, its floor, and how many times the floor it is: medians.
fn beside(table: &mut Table, figure: &str, mut took: Vec<Duration>, mut floors: Vec<Duration>, way: &str) {
    let median = |spans: &mut Vec<Duration>| {
        spans.sort();
        spans.get(spans.len() / 2).copied().unwrap_or_default().as_secs_f64()
    };
    let (took, floor) = (median(&mut took), median(&mut floors));
    let ratio = took / floor.max(0.000_001);
    table.add(figure, format!("{took:.2} s, floor {floor:.2} s: {ratio:.2} x"), way);
}

fn starts(lab: &Lab, count: usize, rounds: usize, table: &mut Table) -> Result<()> {
    let (mut took, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        floors.push(floor::time(lab, count)?);
        let replicas = count.to_string();
        took.push(client::time_until(lab, "web", count, || client::create(lab, "web", &["--replicas", &replicas]))?);
        client::remove(lab, &["web"])?;
    }
    let way = format!(
        "`pi-mgr service create --detach --replicas {count}` until the API shows all running, image present; \
         floor: {count} `ctr run -d`, boards in parallel; median of {rounds}"
    );
    beside(table, &format!("create {count} replicas"), took, floors, &way);
    Ok(())
}

fn scale(lab: &Lab, table: &mut Table) -> Result<()> {
    client::create(lab, "web", &["--replicas", "10"])?;
    client::wait_running(lab, "web", 10, |_| true)?;
    let floor = floor::time(lab, 40)?;
    let scale = || lab.manager().pi_mgr(&["service", "scale", "--detach", "web=50"]).map(drop);
    let took = client::time_until(lab, "web", 50, scale)?;
    client::remove(lab, &["web"])?;
    beside(
        table,
        "scale 10 to 50",
        vec![took],
        vec![floor],
        "`pi-mgr service scale --detach web=50`; floor: 40 `ctr run -d`; once",
    );
    Ok(())
}

/// A forced update of ten containers, so many at a time, until the manager says that it is completed.
fn rolling(lab: &Lab, parallelism: usize, rounds: usize, table: &mut Table) -> Result<()> {
    let at_once = parallelism.to_string();
    let flags = ["--replicas", "10", "--update-parallelism", &at_once, "--update-delay", "0s"];
    client::create(lab, "web", &[&flags[..], &["--update-monitor", MONITOR]].concat())?;
    client::wait_running(lab, "web", 10, |_| true)?;
    let (mut took, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        floors.push(floor::time(lab, 10)?);
        let before = client::running(lab, "web")?;
        let begin = Instant::now();
        lab.manager().pi_mgr(&["service", "update", "--detach", "--force", "web"])?;
        client::wait_updated(lab, "web")?;
        took.push(begin.elapsed());
        let kept = client::running(lab, "web")?.into_iter().filter(|task| before.iter().any(|old| old.id == task.id));
        ensure!(kept.count() == 0, "an update that is completed left old tasks");
    }
    client::remove(lab, &["web"])?;
    let way = format!(
        "`pi-mgr service update --detach --force`, stop-first, delay 0, monitor {MONITOR} (included once), until the \
         API says completed; floor: 10 `ctr run -d`, boards in parallel; median of {rounds}"
    );
    beside(table, &format!("rolling update of 10, parallelism {parallelism}"), took, floors, &way);
    Ok(())
}

/// A service's containers until the last one is gone from its board.
fn removed(lab: &Lab, table: &mut Table) -> Result<()> {
    client::create(lab, "web", &["--replicas", "50"])?;
    client::wait_running(lab, "web", 50, |_| true)?;
    let floor = floor::time(lab, 50)?;
    let begin = Instant::now();
    client::remove(lab, &["web"])?;
    beside(
        table,
        "service rm of 50 until gone",
        vec![begin.elapsed()],
        vec![floor],
        "`pi-mgr service rm` until `ctr containers ls` is empty on every board, stop signal SIGKILL; floor: 50 \
         `ctr run -d`; once",
    );
    Ok(())
}

fn replaced(lab: &Lab, table: &mut Table) -> Result<()> {
    const ROUNDS: usize = 5;
    client::create(lab, "web", &["--replicas", "3"])?;
    client::wait_running(lab, "web", 3, |_| true)?;
    let (mut took, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        floors.push(floor::time(lab, 1)?);
        let victim = client::running(lab, "web")?.into_iter().next().context("no task runs")?;
        let begin = Instant::now();
        signal(victim.pid, Signal::KILL)?;
        client::wait_running(lab, "web", 3, |task| task.id != victim.id)?;
        took.push(begin.elapsed());
    }
    client::remove(lab, &["web"])?;
    beside(
        table,
        "killed container until replaced",
        took,
        floors,
        "SIGKILL to its first process, restart delay 0; floor: one `ctr run -d`; median of 5",
    );
    Ok(())
}

/// What one command writes on the manager's disk: a service without tasks.
fn writes(lab: &Lab, device: &str, table: &mut Table) -> Result<()> {
    const COUNT: u64 = 20;
    let before = disk::written(device)?;
    for number in 0..COUNT {
        client::create(lab, &format!("none{number}"), &["--replicas", "0"])?;
    }
    let bytes = disk::written(device)? - before;
    for number in 0..COUNT {
        lab.manager().pi_mgr(&["service", "rm", "--detach", &format!("none{number}")])?;
    }
    table.add(
        "written per service create (no tasks)",
        format!("{:.1} KiB", as_f64(bytes) / as_f64(COUNT) / 1024.0),
        "sectors on the lab's disk for 20 of them, `sync` included; `/sys/block/loopN/stat`",
    );
    Ok(())
}

/// 25 tasks on board 1 and 5 elsewhere; then a minute of rest.
fn resting(lab: &Lab, device: &str, table: &mut Table) -> Result<()> {
    client::create(lab, "many", &["--replicas", "25", "--constraint", "node.hostname == board1"])?;
    client::create(lab, "few", &["--replicas", "5", "--constraint", "node.hostname != board1"])?;
    client::wait_running(lab, "many", 25, |_| true)?;
    client::wait_running(lab, "few", 5, |_| true)?;
    std::thread::sleep(SETTLE);
    memory::loaded(lab, table)?;
    memory::loggers(lab, table)?;
    idle::measure(lab, device, table)?;
    client::remove(lab, &["many", "few"])
}

/// The last one: a board stays off.
fn power_off(lab: &Lab, table: &mut Table) -> Result<()> {
    client::create(lab, "web", &["--replicas", "6"])?;
    client::wait_running(lab, "web", 6, |_| true)?;
    let floor = floor::time(lab, 2)?;
    let board = lab.board(3)?;
    let node = {
        let nodes = lab.manager().api("GET", "/nodes", None)?.json()?;
        let ours = nodes.as_array().into_iter().flatten().find(|node| {
            node.pointer("/Description/Hostname").and_then(|name| name.as_str()) == Some(&board.hostname())
        });
        ours.and_then(|node| node.get("ID")?.as_str()).context("board 3 is no node")?.to_owned()
    };
    let begin = Instant::now();
    board.act(Verb::PowerOff)?;
    client::wait_running(lab, "web", 6, |task| task.node != node)?;
    beside(
        table,
        "board without power until its 2 tasks run elsewhere",
        vec![begin.elapsed()],
        vec![floor],
        "lab's power-off of board 3; includes at least 3 s of silence, by design; floor: 2 `ctr run -d`; once",
    );
    Ok(())
}
