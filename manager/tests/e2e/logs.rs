//! What containers say, from their boards to the command line.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::json;

use crate::cluster::{self, SOON, get, tasks, wait};
use crate::lab::Lab;
use crate::lab::board::Verb;
use crate::lab::guard::Guard;
use crate::lab::manager;
use crate::lab::process::{run, signal};
use crate::support::{all, create, docker, has, pi_mgr, reached, remove, running};

#[test]
#[ignore = "needs root"]
fn what_tasks_say_is_shown() -> Result<()> {
    let lab = Guard::cluster(3)?;
    all(
        &lab,
        &[
            ("merged", merged),
            ("flags", flags),
            ("followed", followed),
            ("ended", ended),
            ("drivers", drivers),
            ("stalled", stalled),
            ("mistakes", mistakes),
        ],
    );
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn logs_outlive_what_breaks() -> Result<()> {
    let lab = Guard::cluster(2)?;
    agent_killed(&lab).context("agent_killed")?;
    manager_restarted(&lab).context("manager_restarted")?;
    disk_full(&lab).context("disk_full")?;
    board_away(&lab).context("board_away")
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// Logs once, by `pi-mgr`.
fn logs(lab: &Lab, line: &str) -> Result<String> {
    pi_mgr(lab, &[&["service", "logs"], words(line).as_slice()].concat())?.good()
}

/// Waits until a service's log has so many lines.
#[track_caller]
fn said(lab: &Lab, service: &str, count: usize) -> String {
    wait(lab, &format!("{count} lines of {service}"), SOON, || {
        let text = logs(lab, &format!("--raw {service}"))?;
        Ok((text.lines().count() >= count).then_some(text))
    })
}

/// A client that follows logs into a file; killed when dropped.
struct Follower {
    child: Child,
    path: PathBuf,
}

impl Follower {
    fn start(lab: &Lab, program: &str, line: &str) -> Result<Self> {
        let program_path = match program {
            "docker" => PathBuf::from("docker"),
            other => crate::lab::require::bin_dir()?.join(other),
        };
        let socket = format!("unix://{}", lab.manager().socket().display());
        let path = lab.directory.join(format!("follow-{program}-{}", line.replace([' ', '/'], "-")));
        let out = fs::File::create(&path)?;
        let child = Command::new(program_path)
            .args(["service", "logs", "-f"])
            .args(words(line))
            .env("DOCKER_HOST", &socket)
            .env("RACIMO_HOST", &socket)
            .stdin(Stdio::null())
            .stderr(out.try_clone()?)
            .stdout(out)
            .spawn()?;
        Ok(Self { child, path })
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.path).unwrap_or_default()
    }

    #[track_caller]
    fn wait(&self, lab: &Lab, what: &str, is_there: impl Fn(&str) -> bool) -> String {
        wait(lab, what, SOON, || Ok(Some(self.text()).filter(|text| is_there(text))))
    }

    fn signal(&self, name: Signal) -> Result<()> {
        signal(self.child.id(), name)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Three boards as one stream, as docker and as we show it.
fn merged(lab: &Lab) -> Result<()> {
    let script = "for i in 1 2 3; do echo out$i; echo err$i >&2; done; sleep 100000";
    create(lab, "merged", &["--replicas", "3"], &["sh", "-c", script])?;
    let rows = running(lab, "merged", 3);
    let boards: BTreeSet<u8> = rows.iter().map(|row| row.board).collect();
    ensure!(boards.len() == 3, "on three boards: {rows:?}");
    let all = wait(lab, "18 lines", SOON, || {
        let said = docker(lab, &["service", "logs", "merged"])?;
        let enough = said.out.lines().count() == 9 && said.err.lines().count() == 9;
        Ok(enough.then_some(said))
    });
    for row in &rows {
        let prefix = format!("merged.{}.{}@board{}    | ", row.slot, &row.id[..12], row.board);
        for (text, word) in [(&all.out, "out"), (&all.err, "err")] {
            let own: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(&prefix)).collect();
            assert_eq!(own, [1, 2, 3].map(|number| format!("{word}{number}")), "{prefix} in order");
        }
    }
    let ours = pi_mgr(lab, &["service", "logs", "merged"])?;
    ensure!(ours.code == Some(0), "{ours:?}");
    assert_eq!((sorted(&ours.out), sorted(&ours.err)), (sorted(&all.out), sorted(&all.err)));
    remove(lab, &["merged"])
}

/// Every flag, by both clients.
fn flags(lab: &Lab) -> Result<()> {
    create(lab, "flags", &["--replicas", "2"], &["sh", "-c", "for i in 1 2 3 4; do echo $i; done; sleep 100000"])?;
    let rows = running(lab, "flags", 2);
    said(lab, "flags", 8);
    let task = &*rows[0].id;
    for (line, count) in [
        ("flags", 8),
        ("--tail 1 flags", 2),
        ("-n 3 flags", 6),
        ("--tail 0 flags", 0),
        ("--timestamps flags", 8),
        ("--details flags", 8),
        ("--timestamps --details --tail 2 flags", 4),
        ("--raw flags", 8),
        ("--raw --timestamps flags", 8),
        ("--no-resolve flags", 8),
        ("--no-trunc flags", 8),
        ("--no-task-ids flags", 8),
        ("--since 1h flags", 8),
        ("--since 2100-01-01T00:00:00Z flags", 0),
    ] {
        let arguments = [&["service", "logs"], words(line).as_slice()].concat();
        let (theirs, ours) = (docker(lab, &arguments)?.good()?, pi_mgr(lab, &arguments)?.good()?);
        assert_eq!(sorted(&ours), sorted(&theirs), "{line}");
        assert_eq!(ours.lines().count(), count, "{line}: {ours}");
    }
    let arguments = ["service", "logs", "--tail", "1", task];
    let (theirs, ours) = (docker(lab, &arguments)?.good()?, pi_mgr(lab, &arguments)?.good()?);
    assert_eq!((&*ours, ours.lines().count()), (&*theirs, 1));
    has(&ours, "    | 4");
    // Since the third line of a task: a time with all its digits.
    let stamped = logs(lab, &format!("--raw --timestamps {task}"))?;
    let third = stamped.lines().nth(2).and_then(|line| line.split_once(' ')).context("a third line")?.0;
    ensure!(third.len() == 30, "{third}");
    assert_eq!(logs(lab, &format!("--raw --since {third} {task}"))?, "3\n4\n");
    remove(lab, &["flags"])
}

/// Tasks that come while somebody follows are followed too.
fn followed(lab: &Lab) -> Result<()> {
    let script = "i=0; while true; do echo tick $i; i=$((i+1)); sleep 0.3; done";
    create(lab, "followed", &[], &["sh", "-c", script])?;
    running(lab, "followed", 1);
    let clients = [Follower::start(lab, "docker", "followed")?, Follower::start(lab, "pi-mgr", "--tail 1 followed")?];
    let new = lab.manager().process().context("a manager")?;
    for client in &clients {
        client.wait(lab, "the first task's lines", |text| text.lines().count() > 3);
    }
    cluster::scale(lab, "followed", 3)?;
    for client in &clients {
        let text = client.wait(lab, "all tasks' lines", |text| {
            (1..=3).all(|slot| text.lines().filter(|line| line.starts_with(&format!("followed.{slot}."))).count() > 3)
        });
        for slot in 1..=3 {
            let own = text.lines().filter(|line| line.starts_with(&format!("followed.{slot}.")));
            let ticks: Vec<u64> = own.filter_map(|line| line.rsplit_once(' ')?.1.parse().ok()).collect();
            ensure!(ticks.windows(2).all(|pair| pair[0] + 1 == pair[1]), "each line once, in order: {text}");
        }
    }
    drop(clients);
    ensure!(new.alive(), "the manager runs on");
    remove(lab, &["followed"])
}

/// What ended can be read until it is forgotten.
fn ended(lab: &Lab) -> Result<()> {
    let script = "echo why it failed >&2; printf unended; exit 3";
    create(lab, "ended", &["--restart-condition", "none"], &["sh", "-c", script])?;
    let row = reached(lab, "ended", &["failed"]);
    let text = wait(lab, "its last words", SOON, || {
        let said = pi_mgr(lab, &["service", "logs", "--raw", "ended"])?;
        Ok((said.err.lines().count() == 1 && said.out == "unended").then_some(said.err))
    });
    assert_eq!(text, "why it failed\n");
    // Following what has ended ends.
    assert_eq!(logs(lab, &format!("--raw -f {}", row.id))?, "unended");
    let board = lab.board(row.board)?;
    let dir = board.data().join("logs").join(&row.id);
    wait(lab, "the container to be gone", SOON, || {
        Ok((!board.ctr(&["containers", "ls", "-q"])?.contains(&row.id)).then_some(()))
    });
    ensure!(dir.exists(), "{} is still there", dir.display());
    remove(lab, &["ended"])?;
    wait(lab, "the log to be removed", SOON, || Ok((!dir.exists()).then_some(())));
    Ok(())
}

fn bytes_of(dir: &Path) -> Result<Vec<u64>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.metadata()?.len())).collect()
}

/// Limits of the files, and no files at all.
fn drivers(lab: &Lab) -> Result<()> {
    let script = "i=0; while [ $i -lt 30000 ]; do echo line $i; i=$((i+1)); done; sleep 100000";
    let options = ["--log-driver", "json-file", "--log-opt", "max-size=64k", "--log-opt", "max-file=3"];
    create(lab, "bounded", &options, &["sh", "-c", script])?;
    create(lab, "silent", &["--log-driver", "none"], &["sh", "-c", script])?;
    let row = running(lab, "bounded", 1).remove(0);
    wait(lab, "the last line", SOON, || {
        Ok(logs(lab, "--raw --tail 1 bounded")?.starts_with("line 29999").then_some(()))
    });
    let sizes = bytes_of(&lab.board(row.board)?.data().join("logs").join(&row.id))?;
    ensure!(sizes.len() == 3 && sizes.iter().all(|size| *size <= 64 << 10), "{sizes:?}");
    let kept = logs(lab, "--raw bounded")?;
    ensure!(kept.lines().count() > 1000 && kept.lines().count() < 10_000, "{} lines", kept.lines().count());
    let row = running(lab, "silent", 1).remove(0);
    ensure!(!lab.board(row.board)?.data().join("logs").join(&row.id).exists());
    let said = pi_mgr(lab, &["service", "logs", "silent"])?;
    has(&said.err, "is none: its output is not kept");
    let (_, why) = docker(lab, &["service", "logs", "silent"])?.bad()?;
    has(&why, "incomplete log stream");
    remove(lab, &["bounded", "silent"])
}

/// A reader that stands still holds up nobody, and misses nothing.
fn stalled(lab: &Lab) -> Result<()> {
    const LINES: usize = 100_000;
    let script = format!("sleep 3; yes {} | head -n {LINES}; echo last; sleep 100000", "x".repeat(99));
    create(lab, "stalled", &["--log-opt", "max-size=20m", "--log-driver", "local"], &["sh", "-c", &script])?;
    running(lab, "stalled", 1);
    let follower = Follower::start(lab, "pi-mgr", "--raw stalled")?;
    follower.signal(Signal::STOP)?;
    // Another reader gets everything meanwhile.
    wait(lab, "the last line", SOON, || Ok((logs(lab, "--raw --tail 1 stalled")? == "last\n").then_some(())));
    let all = logs(lab, "--raw stalled")?;
    assert_eq!(all.lines().count(), LINES + 1);
    let nodes = get(lab, "/nodes")?;
    for node in nodes.as_array().context("a list")? {
        ensure!(node["Status"]["State"] == "ready", "{node}");
    }
    ensure!(follower.text().len() < 1 << 20, "it stands still");
    follower.signal(Signal::CONT)?;
    let text = follower.wait(lab, "everything", |text| text.ends_with("last\n"));
    assert_eq!(text.lines().count(), LINES + 1);
    remove(lab, &["stalled"])
}

fn mistakes(lab: &Lab) -> Result<()> {
    for (line, wanted) in [
        ("service logs nosuch", "no such task or service: nosuch"),
        ("service logs --tail x nosuch", "neither \"all\" nor a number"),
        ("service logs --since never nosuch", "no such task or service"),
    ] {
        let (_, said) = pi_mgr(lab, &words(line))?.bad()?;
        has(&said, wanted);
    }
    for (options, wanted) in [
        (vec!["--log-driver", "syslog"], "log driver \"syslog\" is not supported"),
        (vec!["--log-driver", "json-file", "--log-opt", "max-size=1"], "max-size \"1\""),
        (vec!["--log-driver", "json-file", "--log-opt", "max-file=0"], "max-file \"0\""),
        (vec!["--log-driver", "json-file", "--log-opt", "labels=a"], "\"labels\" is not supported"),
        (vec!["--log-driver", "none", "--log-opt", "max-file=2"], "takes no options"),
    ] {
        let arguments = [&["service", "create", "-d", "--no-resolve-image"], options.as_slice(), &["busybox"]].concat();
        let (_, said) = docker(lab, &arguments)?.bad()?;
        has(&said, wanted);
    }
    let answer = lab.manager().api("GET", "/services/nosuch/logs?stdout=1", None)?;
    ensure!(answer.status == 404, "{}", answer.status);
    create(lab, "typed", &[], &["sleep", "100000"])?;
    let answer = lab.manager().api("GET", "/services/typed/logs", None)?;
    ensure!(answer.status == 400, "{}", answer.status);
    has(&answer.text(), "Bad parameters: you must choose at least one stream");
    let answer = lab.manager().api("GET", "/v1.42/services/typed/logs?stderr=1", None)?;
    assert_eq!(answer.header("content-type"), Some("application/vnd.docker.multiplexed-stream"));
    let answer = lab.manager().api("GET", "/v1.41/services/typed/logs?stderr=1", None)?;
    assert_eq!(answer.header("content-type"), None);
    remove(lab, &["typed"])
}

fn ticks(text: &str) -> Vec<u64> {
    text.lines().filter_map(|line| line.strip_prefix("tick ")?.parse().ok()).collect()
}

fn ticker(lab: &Lab, name: &str, options: &[&str]) -> Result<()> {
    create(lab, name, options, &["sh", "-c", "i=0; while true; do echo tick $i; i=$((i+1)); sleep 0.05; done"])
}

/// The agent dies and comes back: nothing is lost, and who follows sees each line once.
fn agent_killed(lab: &Lab) -> Result<()> {
    ticker(lab, "ticker", &[])?;
    let row = running(lab, "ticker", 1).remove(0);
    let board = lab.board(row.board)?;
    let follower = Follower::start(lab, "pi-mgr", "--raw ticker")?;
    follower.wait(lab, "the first lines", |text| ticks(text).len() > 10);
    board.act(Verb::KillAgent)?;
    follower.wait(lab, "a warning", |text| text.contains("warning: incomplete log stream: node board"));
    let before = ticks(&follower.text()).len();
    board.act(Verb::StartAgent)?;
    let text = follower.wait(lab, "more lines", |text| ticks(text).len() > before + 40);
    let numbers = ticks(&text);
    ensure!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "each line once, in order: {numbers:?}");
    let numbers = ticks(&logs(lab, "--raw ticker")?);
    ensure!(numbers.first() == Some(&0) && numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
    Ok(())
}

fn manager_restarted(lab: &Lab) -> Result<()> {
    let follower = Follower::start(lab, "pi-mgr", "--raw --tail 5 ticker")?;
    follower.wait(lab, "lines", |text| ticks(text).len() > 5);
    lab.manager().act(manager::Verb::Kill)?;
    follower.wait(lab, "the end of the stream", |text| text.contains("lost the connection to the manager"));
    lab.manager().act(manager::Verb::Start)?;
    let numbers = wait(lab, "the log after the restart", SOON, || {
        let said = pi_mgr(lab, &["service", "logs", "--raw", "ticker"])?;
        Ok((said.code == Some(0) && said.err.is_empty()).then(|| ticks(&said.out)).filter(|numbers| numbers.len() > 50))
    });
    ensure!(numbers.first() == Some(&0) && numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
    remove(lab, &["ticker"])
}

/// The board's disk for logs is full: the container runs on, and the log says what is missing.
fn disk_full(lab: &Lab) -> Result<()> {
    let board = lab.board(1)?;
    let logs_dir = board.data().join("logs");
    fs::create_dir_all(&logs_dir)?;
    let at = logs_dir.display().to_string();
    run(&["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", &at])?;
    let outcome = (|| {
        let hog = logs_dir.join("hog");
        fs::write(&hog, vec![0; 400 << 10])?;
        let script =
            "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; while true; do echo alive; sleep 1; done";
        create(lab, "full", &["--constraint", "node.hostname==board1"], &["sh", "-c", script])?;
        running(lab, "full", 1);
        wait(lab, "a full disk", SOON, || {
            Ok(logs(lab, "--raw full").is_ok_and(|text| text.lines().count() > 500).then_some(()))
        });
        fs::remove_file(&hog)?;
        let missing = wait(lab, "a word about what is missing", SOON, || {
            let said = pi_mgr(lab, &["service", "logs", "--raw", "full"])?;
            let alive = said.out.lines().filter(|line| *line == "alive").count() > 2;
            Ok(Some(said.err).filter(|err| alive && err.contains("are missing here: No space left on device")))
        });
        ensure!(missing.contains("[racimo: "), "{missing}");
        // It never stopped.
        let rows = tasks(lab, "full")?;
        ensure!(rows.len() == 1 && rows[0].state == "running", "{rows:?}");
        remove(lab, &["full"])?;
        wait(lab, "its log to be gone", SOON, || Ok((bytes_of(&logs_dir)?.is_empty()).then_some(())));
        Ok(())
    })();
    run(&["umount", "-l", &at])?;
    outcome
}

/// A board that is away is a warning; the other one's lines are there.
fn board_away(lab: &Lab) -> Result<()> {
    create(lab, "away", &["--replicas", "2"], &["sh", "-c", "echo here; sleep 100000"])?;
    let rows = running(lab, "away", 2);
    ensure!(rows[0].board != rows[1].board, "{rows:?}");
    said(lab, "away", 2);
    lab.board(2)?.act(Verb::Cut)?;
    // Until the manager has noticed, the question waits for an answer.
    let theirs = docker(lab, &["service", "logs", "away"])?;
    ensure!(theirs.code == Some(1) && theirs.out.lines().count() >= 1, "{theirs:?}");
    has(&theirs.err, "warning: incomplete log stream. some logs could not be retrieved");
    has(&theirs.err, "node board2 is not available");
    let ours = pi_mgr(lab, &["service", "logs", "away"])?;
    ensure!(ours.code == Some(0) && ours.out.contains("@board1"), "{ours:?}");
    has(
        &ours.err,
        "warning: incomplete log stream. some logs could not be retrieved for the following reasons: node board2 is not available",
    );
    // Somebody who follows is told, and hears the rest when it is back.
    let follower = Follower::start(lab, "docker", "away")?;
    follower
        .wait(lab, "a warning", |text| text.contains("warning: incomplete log stream: node board2 is not available"));
    lab.board(2)?.act(Verb::Heal)?;
    follower.wait(lab, "both boards' lines", |text| {
        ["@board1 ", "@board2 "]
            .iter()
            .all(|board| text.lines().any(|line| line.contains(board) && line.ends_with("| here")))
    });
    let spec = get(lab, "/services/away")?;
    ensure!(spec["Spec"]["Name"] == json!("away"));
    remove(lab, &["away"])
}
