//! Boards on their own: the manager is away, the power goes and comes; and fenced services on boards that are cut off.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::cluster::{SOON, get, picture, running, tasks, wait};
use crate::lab::Lab;
use crate::lab::board::{Board, Verb};
use crate::lab::guard::Guard;
use crate::lab::manager;
use crate::lab::process::{run, signal};
use crate::names::resolver;
use crate::support::{Inside, create, docker, docker_typing};

/// Contents that are nowhere on a disk.
const MARK: &str = "sealed-to-the-board-it-is-on";
/// Serves what is in its secret.
const SERVE: [&str; 3] = ["sh", "-c", "mkdir /www; cp /run/secrets/key /www/key; exec httpd -f -p 8080 -h /www"];

/// The containers that run on a board: task and process.
fn on(lab: &Lab, board: &Board<'_>) -> Result<Vec<(String, u32)>> {
    let running = running(lab)?.into_iter().filter(|(_, (number, _))| *number == board.number);
    Ok(running.map(|(task, (_, pid))| (task, pid)).collect())
}

/// Waits until a task runs on a board in another process than before.
#[track_caller]
fn runs(lab: &Lab, board: &Board<'_>, task: &str, before: u32) -> u32 {
    wait(lab, &format!("{task} to run on board {}", board.number), SOON, || {
        Ok(on(lab, board)?.into_iter().find(|(id, pid)| id == task && *pid != before).map(|(_, pid)| pid))
    })
}

#[test]
#[ignore = "needs root"]
fn a_board_that_boots_without_its_manager_goes_on() -> Result<()> {
    let lab = Guard::cluster(2)?;
    let board = lab.board(1)?;
    docker_typing(&lab, MARK, &["secret", "create", "key", "-"])?.good()?;
    docker(&lab, &["network", "create", "-d", "overlay", "net"])?.good()?;
    let here = ["--constraint", "engine.labels.board==1", "--restart-delay", "1s"];
    let options = [&here[..], &["--secret", "key", "--network", "net", "--publish", "8081:8080"]].concat();
    create(&lab, "web", &options, &SERVE)?;
    create(
        &lab,
        "batch",
        &["--mode", "replicated-job", "--constraint", "engine.labels.board==1"],
        &["sleep", "1000000"],
    )?;
    let opted_out = [&here[..], &["--secret", "key", "--label", "io.racimo.offline-secrets=false"]].concat();
    create(&lab, "shy", &opted_out, &["sleep", "1000000"])?;
    let id = |service: &str| -> Result<String> {
        Ok(wait(&lab, &format!("{service} to run"), SOON, || {
            Ok(tasks(&lab, service)?.into_iter().find(|row| row.state == "running").map(|row| row.id))
        }))
    };
    let (web, batch, shy) = (id("web")?, id("batch")?, id("shy")?);
    let published = board.on_its_network(&["curl", "-sf", "-m", "3", "--noproxy", "*", "http://127.0.0.1:8081/key"]);
    let published: Vec<&str> = published.iter().map(String::as_str).collect();
    let serves =
        || wait(&lab, "what the service serves", SOON, || Ok(run(&published).ok().filter(|said| said == MARK)));
    serves();
    wait(&lab, "the journal to have it", SOON, || {
        let found =
            fs::read(board.data().join("journal.0")).into_iter().chain(fs::read(board.data().join("journal.1")));
        let has = found.into_iter().any(|bytes| bytes.windows(10).any(|word| word == b"/run/secre"));
        let contents = fs::read_dir(board.data().join("contents")).into_iter().flatten().count();
        // What was told is written within a second.
        let times =
            ["journal.0", "journal.1"].map(|slot| fs::metadata(board.data().join(slot)).and_then(|it| it.modified()));
        let is_quiet = times.into_iter().flatten().all(|at| at.elapsed().is_ok_and(|age| age > Duration::from_secs(3)));
        Ok((has && contents == 1 && is_quiet).then_some(()))
    });
    fs::write(board.agent_config(), "offline-after = 4\n")?;

    // Manager and board lose their power; the board comes back alone.
    lab.manager().act(manager::Verb::Kill)?;
    board.act(Verb::PowerOff)?;
    board.act(Verb::PowerOn)?;
    let pid = runs(&lab, &board, &web, 0);
    serves();
    // With the task's resolver; busybox cannot be asked, since Debian's static one dies of it.
    let by_name = |pid: u32| {
        let inside = Inside { board: 1, task: web.clone(), pid: pid.into() };
        for name in ["web", "tasks.web"] {
            let asks = format!("curl -sf -m 3 --noproxy '*' http://{name}:8080/key");
            wait(&lab, "what the service serves by name", SOON, || {
                Ok(resolver(&lab, &inside, &asks).ok().filter(|said| said == MARK))
            });
        }
    };
    by_name(pid);
    // One that crashes is started again, under the same id.
    signal(pid, Signal::KILL)?;
    let pid = runs(&lab, &board, &web, pid);
    by_name(pid);
    let others: Vec<_> = on(&lab, &board)?.into_iter().filter(|(task, _)| *task != web).collect();
    assert!(others.is_empty(), "jobs and what may not be on the disk wait for the manager: {others:?}");

    // The manager adopts what runs, and decides about the rest.
    lab.manager().act(manager::Verb::Start)?;
    wait(&lab, "the manager to find it", SOON, || {
        let status = get(&lab, &format!("/tasks/{web}"))?["Status"].clone();
        let message = "started (restarted 2 times while the manager was away)";
        Ok((status["State"] == "running" && status["Message"] == message).then_some(()))
    });
    for (service, old) in [("batch", &batch), ("shy", &shy)] {
        assert_ne!(&id(service)?, old, "what was lost and not started is replaced\n{}", picture(&lab));
    }
    let rows = tasks(&lab, "web")?;
    assert_eq!(rows.len(), 1, "nothing was replaced\n{}", picture(&lab));
    assert_eq!((rows[0].id.as_str(), rows[0].state.as_str(), rows[0].err.as_str()), (web.as_str(), "running", ""));
    assert_eq!(runs(&lab, &board, &web, 0), pid, "the same process");
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_fenced_task_stops_before_another_one_starts() -> Result<()> {
    let lab = Guard::cluster(2)?;
    let lease = Duration::from_secs(10);
    let labels = ["--label", "io.racimo.on-partition=stop", "--label", "io.racimo.lease=10s"];
    create(
        &lab,
        "one",
        &[&labels[..], &["--restart-delay", "0s", "--stop-grace-period", "1s"]].concat(),
        &["sleep", "1000000"],
    )?;
    let first =
        wait(&lab, "the task to run", SOON, || Ok(tasks(&lab, "one")?.into_iter().find(|row| row.state == "running")));
    let (cut, other) = (lab.board(first.board)?, lab.board(3 - first.board)?);
    let began = Instant::now();
    cut.act(Verb::Cut)?;
    let (mut stopped, mut said) = (None, false);
    let started = wait(&lab, "another task to start", SOON, || {
        let (old, new) = (on(&lab, &cut)?, on(&lab, &other)?);
        ensure!(old.is_empty() || new.is_empty(), "two tasks of a fenced slot run: {old:?} and {new:?}");
        if old.is_empty() {
            stopped.get_or_insert(began.elapsed());
        }
        said |= tasks(&lab, "one")?.iter().any(|row| row.err.contains("has surely stopped: node board"));
        Ok((!new.is_empty()).then(|| began.elapsed()))
    });
    let stopped = stopped.context("it stopped")?;
    assert!(stopped < lease + Duration::from_secs(4), "it stopped after {stopped:?}");
    assert!(started > lease * 2, "the next one started after {started:?}");
    assert!(said, "`service ps` says what is waited for");
    // The board comes back, and has nothing to run.
    cut.act(Verb::Heal)?;
    wait(&lab, "one task to run, and no more", SOON, || {
        let rows = tasks(&lab, "one")?;
        let running = rows.iter().filter(|row| row.state == "running").count();
        Ok((running == 1 && rows.iter().any(|row| row.id == first.id && row.desired == "shutdown")).then_some(()))
    });
    assert!(on(&lab, &cut)?.is_empty());
    let refused = ["service", "create", "-d", "--name", "bad", "--label", "io.racimo.lease=1s"];
    let image = crate::support::busybox(&lab);
    let (_, why) =
        docker(&lab, &[&refused[..], &["--label", "io.racimo.on-partition=stop", &image]].concat())?.bad()?;
    assert!(why.contains("label io.racimo.lease: \"1s\" is not a time from 10s to 3600 s"), "{why}");
    Ok(())
}
