//! Throughput and new connections of each path, as a part of what two boards do without Racimo.
//!
//! ```text
//! direct        board 1 ─ bridge ─ board 2, no task
//! same board    task on board 1 ─ task on board 1, overlay address
//! across        task on board 1 ─ task on board 2, overlay address
//! VIP           task on board 1 ─ the service's virtual address: one task on board 1, one on board 2
//! mesh          board 1 ─ published port of board 3, which has no task
//! ```
//! The programs that send and answer are this one (`sender`), run on the network of a board or of a task.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::client::{self, Task};
use super::lab::Lab;
use super::lab::process::{run, wait_for};
use super::table::Table;

/// The first port that answers, in a task or on a board. Each path has one of its own: the same two ends would
/// otherwise meet again by another path while the kernel still remembers their last connections.
const PORT: u16 = 9700;
/// How many paths there are.
const PATHS: u16 = 5;
/// How long each figure is counted.
const SPAN: Duration = Duration::from_secs(3);
/// Each figure is the median of as many.
const ROUNDS: usize = 3;
/// How long a path may take to be there.
const READY_MAX: Duration = Duration::from_secs(30);

/// A process that is ended with its owner.
struct Answering(Child);

impl Drop for Answering {
    fn drop(&mut self) {
        // It may have ended itself; there is nobody to tell.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A network that programs run on.
#[derive(Clone)]
struct Place(String);

impl Place {
    fn board(lab: &Lab, number: u8) -> Result<Self> {
        Ok(Self(format!("/run/netns/{}", lab.board(number)?.netns())))
    }

    fn task(task: &Task) -> Result<Self> {
        ensure!(task.pid != 0, "task {} has no process", task.id);
        Ok(Self(format!("/proc/{}/ns/net", task.pid)))
    }

    fn argv(&self, words: &[&str]) -> Result<Vec<String>> {
        let program = std::env::current_exe()?.to_string_lossy().into_owned();
        let net = format!("--net={}", self.0);
        Ok(["nsenter", &net, "--", &program].iter().chain(words).map(|&word| word.to_owned()).collect())
    }

    /// Answers there until the value is dropped.
    fn answer(&self) -> Result<Answering> {
        let argv = self.argv(&["answer", &PORT.to_string(), &PATHS.to_string()])?;
        let child = Command::new(&argv[0]).args(&argv[1..]).stdin(Stdio::null()).spawn()?;
        Ok(Answering(child))
    }

    /// Counts from there; per second.
    fn count(&self, what: &str, to: SocketAddrV4, span: Duration) -> Result<f64> {
        let argv = self.argv(&[what, &to.to_string(), &span.as_millis().to_string()])?;
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        let said = run(&argv)?;
        said.trim().parse().with_context(|| format!("{what} {to} said {said:?}"))
    }

    /// Waits until connections are answered.
    fn wait(&self, to: SocketAddrV4) -> Result<()> {
        wait_for(&format!("an answer from {to}"), READY_MAX, || {
            Ok(self.count("connect", to, Duration::from_millis(1)).ok().map(drop))
        })
    }
}

/// Adds all of them.
pub(crate) fn figures(lab: &Lab, table: &mut Table) -> Result<()> {
    throughput(lab, table)?;
    first_request(lab, table)?;
    networks(lab, table)
}

/// An agent's memory with 25 tasks on three networks that 100 services are on.
fn networks(lab: &Lab, table: &mut Table) -> Result<()> {
    const NETWORKS: [&str; 3] = ["bench1", "bench2", "bench3"];
    for network in NETWORKS {
        lab.manager().pi_mgr(&["network", "create", network])?;
    }
    let elsewhere = ["--constraint", "node.hostname != board1"];
    let others: Vec<String> = (1..100).map(|number| format!("other{number}")).collect();
    for (other, network) in others.iter().zip(NETWORKS.iter().cycle()) {
        client::create(lab, other, &[&["--network", network][..], &elsewhere].concat())?;
    }
    let on_all: Vec<&str> = NETWORKS.iter().flat_map(|network| ["--network", network]).collect();
    let flags = ["--replicas", "25", "--constraint", "node.hostname == board1", "--publish", "9082:9700"];
    client::create(lab, "many", &[&on_all[..], &flags].concat())?;
    client::wait_running(lab, "many", 25, |_| true)?;
    for other in &others {
        client::wait_running(lab, other, 1, |_| true)?;
    }
    std::thread::sleep(super::cluster::SETTLE);
    super::memory::networked(lab, table)?;
    let all: Vec<&str> = others.iter().map(String::as_str).chain(["many"]).collect();
    client::remove(lab, &all)?;
    wait_for("the networks to be removed", READY_MAX, || {
        Ok(lab.manager().pi_mgr(&[&["network", "rm", "--force"][..], &NETWORKS].concat()).ok().map(drop))
    })
}

fn throughput(lab: &Lab, table: &mut Table) -> Result<()> {
    lab.manager().pi_mgr(&["network", "create", "bench"])?;
    let published = format!("published=9080,target={}", PORT + 4);
    let spread = ["--replicas-max-per-node", "1", "--constraint", "node.hostname != board3"];
    let flags = ["--network", "bench", "--publish", &published, "--replicas", "2"];
    client::create(lab, "answers", &[&flags[..], &spread].concat())?;
    let from = ["--network", "bench", "--constraint", "node.hostname == board1"];
    client::create(lab, "asks", &from)?;
    client::wait_running(lab, "answers", 2, |_| true)?;
    client::wait_running(lab, "asks", 1, |_| true)?;
    let measured = paths(lab, table);
    client::remove(lab, &["answers", "asks"])?;
    wait_for("the network to be removed", READY_MAX, || {
        Ok(lab.manager().pi_mgr(&["network", "rm", "bench"]).ok().map(drop))
    })?;
    measured
}

fn paths(lab: &Lab, table: &mut Table) -> Result<()> {
    let board1 = lab.board(1)?;
    let on_board1 = node_id(lab, &board1.hostname())?;
    let tasks = client::running(lab, "answers")?;
    let (near, far): (Vec<&Task>, Vec<&Task>) = tasks.iter().partition(|task| task.node == on_board1);
    let ([near], [far]) = (&near[..], &far[..]) else { bail!("the tasks are not on boards 1 and 2") };
    let asks = client::running(lab, "asks")?.into_iter().next().context("no task asks")?;
    let (client, machine) = (Place::task(&asks)?, Place::board(lab, 1)?);
    let answering = [Place::task(near)?.answer()?, Place::task(far)?.answer()?, Place::board(lab, 2)?.answer()?];
    let at = |address, port| SocketAddrV4::new(address, port);
    let ways = [
        ("direct", &machine, at(lab.board(2)?.address(), PORT)),
        ("same board", &client, at(address(lab, &near.id)?, PORT + 1)),
        ("across boards", &client, at(address(lab, &far.id)?, PORT + 2)),
        ("VIP", &client, at(virtual_address(lab, "answers")?, PORT + 3)),
        ("mesh", &machine, at(lab.board(3)?.address(), 9080)),
    ];
    ways.iter().try_for_each(|(_, place, to)| place.wait(*to))?;
    for (what, unit, scale) in [("fetch", "Gbit/s", 8e-9), ("connect", "/s", 1.0)] {
        let mut floor = 0.0;
        for (name, place, to) in &ways {
            let mut counts: Vec<f64> = (0..ROUNDS).map(|_| place.count(what, *to, SPAN)).collect::<Result<_>>()?;
            counts.sort_by(f64::total_cmp);
            let count = counts[ROUNDS / 2] * scale;
            if *name == "direct" {
                floor = count;
            }
            let figure = if what == "fetch" { "throughput" } else { "new connections" };
            let digits = usize::from(what == "fetch") * 2;
            table.add(
                format!("{figure}, {name}"),
                format!("{count:.digits$} {unit}: {:.2} x direct", count / floor),
                "own sender on the networks of boards and tasks, 3 s, median of 3; one TCP stream, or 4 clients that \
                 connect, send a byte and read one",
            );
        }
    }
    drop(answering);
    Ok(())
}

/// From the moment a task counts as running (its first health check has passed) to the first answer of a board that
/// does not run it.
fn first_request(lab: &Lab, table: &mut Table) -> Result<()> {
    let mut took = Vec::new();
    let to = SocketAddrV4::new(lab.board(3)?.address(), 9081);
    let place = Place::board(lab, 2)?;
    for _ in 0..5 {
        let flags = ["--publish", "published=9081,target=9700", "--constraint", "node.hostname == board1"];
        let check = ["--health-cmd", "true", "--health-interval", "1s"];
        client::create(lab, "first", &[&flags[..], &check].concat())?;
        // The program is there before the task is healthy: it has an address as soon as it has a process.
        let task = wait_for("a process", READY_MAX, || starting(lab))?;
        let answering = Place::task(&task)?.answer()?;
        let begin = Instant::now();
        while place.count("connect", to, Duration::from_millis(1)).is_err() {
            ensure!(begin.elapsed() < READY_MAX, "no answer from {to}");
        }
        let answered = SystemTime::now();
        let stamp = task_field(lab, &task.id, "/Status/Timestamp")?;
        let healthy = stamp.as_str().and_then(|text| text.parse::<Stamp>().ok()).context("no time of health")?;
        took.push(answered.duration_since(healthy.0).unwrap_or_default());
        drop(answering);
        client::remove(lab, &["first"])?;
    }
    took.sort();
    table.add(
        "health to first request through the mesh",
        format!("{:.0} ms", took[took.len() / 2].as_secs_f64() * 1000.0),
        "task's time of `running` to the first answer on a board without it, asked all the time (a process each); \
         median of 5",
    );
    Ok(())
}

/// A time of the API.
struct Stamp(SystemTime);

impl std::str::FromStr for Stamp {
    type Err = time::error::Parse;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339)?;
        Ok(Self(time.into()))
    }
}

fn list(lab: &Lab, url: &str) -> Result<Vec<Value>> {
    let answer = lab.manager().api("GET", url, None)?.json()?;
    answer.as_array().cloned().with_context(|| format!("GET {url}: expected a list, not {answer}"))
}

fn node_id(lab: &Lab, hostname: &str) -> Result<String> {
    let nodes = list(lab, "/nodes")?;
    let is_it = |node: &&Value| node.pointer("/Description/Hostname").and_then(Value::as_str) == Some(hostname);
    let id = nodes.iter().find(is_it).and_then(|node| node["ID"].as_str());
    id.map(str::to_owned).with_context(|| format!("{hostname} is no node"))
}

fn task_field(lab: &Lab, id: &str, pointer: &str) -> Result<Value> {
    let task = lab.manager().api("GET", &format!("/tasks/{id}"), None)?.json()?;
    task.pointer(pointer).cloned().with_context(|| format!("task {id} has no {pointer}"))
}

/// The only task of board 1, once it has a process: containerd knows before it is healthy.
fn starting(lab: &Lab) -> Result<Option<Task>> {
    // TASK PID STATUS
    let tasks = lab.board(1)?.ctr(&["tasks", "ls"])?;
    let words: Vec<&str> = tasks.lines().nth(1).unwrap_or_default().split_ascii_whitespace().collect();
    let [id, pid, "RUNNING"] = words[..] else { return Ok(None) };
    Ok(Some(Task { id: id.to_owned(), node: String::new(), pid: pid.parse()? }))
}

/// A task's address on the network of the bench.
fn address(lab: &Lab, task: &str) -> Result<Ipv4Addr> {
    let attachments = task_field(lab, task, "/NetworksAttachments")?;
    let on_bench = |one: &&Value| one.pointer("/Network/Spec/Name").and_then(Value::as_str) == Some("bench");
    let attachment = attachments.as_array().into_iter().flatten().find(on_bench);
    let address = attachment.and_then(|one| one["Addresses"][0].as_str()).and_then(bare);
    address.with_context(|| format!("task {task} has no address on the network bench: {attachments}"))
}

/// The service's only virtual address.
fn virtual_address(lab: &Lab, service: &str) -> Result<Ipv4Addr> {
    let service = lab.manager().api("GET", &format!("/services/{service}"), None)?.json()?;
    let networks = list(lab, "/networks?filters=%7B%22name%22:%5B%22bench%22%5D%7D")?;
    let id = networks.first().and_then(|network| network["Id"].as_str()).context("no network bench")?;
    let all = service.pointer("/Endpoint/VirtualIPs").and_then(Value::as_array);
    let own = all.into_iter().flatten().find(|one| one["NetworkID"] == id);
    own.and_then(|one| one["Addr"].as_str()).and_then(bare).context("the service has no virtual address")
}

/// `10.0.1.3` of `10.0.1.3/24`.
fn bare(text: &str) -> Option<Ipv4Addr> {
    text.split('/').next()?.parse().ok()
}
