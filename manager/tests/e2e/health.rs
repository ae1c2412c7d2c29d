//! Health checks, from the docker CLI's flags or the image to the container, and back as a task's state.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::cluster::{self, Row, SOON, get, tasks, wait};
use crate::failures::restart_agent;
use crate::lab::Lab;
use crate::lab::guard::Guard;
use crate::lab::image::{Image, Layer, Platform};
use crate::support::{all, busybox, create, docker, has, inspect, reached, remove, running};

const SLEEP: [&str; 2] = ["sleep", "100000"];
/// Passes once somebody makes the file.
const WELL: &str = "[ -e /tmp/well ] || { echo not well; exit 7; }";

#[test]
#[ignore = "needs root"]
fn health_checks_decide_whether_a_task_runs() -> Result<()> {
    let lab = Guard::cluster(2)?;
    // A healthy image, one that is never, both with an entrypoint that sleeps.
    for (name, test) in [("checked", WELL), ("sick", "exit 1")] {
        let check = json!({"Test": ["CMD-SHELL", test], "Interval": 300_000_000, "Retries": 2});
        let run = json!({"Cmd": SLEEP, "Env": ["PATH=/bin"], "Healthcheck": check});
        lab.registry().push(name, "1", &Image::new(Platform::host(), &[Layer::busybox()?], &run)?)?;
    }
    all(
        &lab,
        &[
            ("image", image),
            ("flags", flags),
            ("no healthcheck", no_healthcheck),
            ("partly the image's", partly_the_images),
            ("hanging", hanging),
            ("update", update),
            ("start-first", start_first),
        ],
    );
    // Last, because it is everybody's agent.
    an_agent_that_is_restarted(&lab)
}

/// The file that makes a task's container healthy, as seen from outside.
#[track_caller]
fn well(lab: &Lab, task: &str) -> Result<PathBuf> {
    // A task starts before its container runs.
    let pid = wait(lab, "the container to run", SOON, || Ok(cluster::running(lab)?.get(task).map(|(_, pid)| *pid)));
    Ok(PathBuf::from(format!("/proc/{pid}/root/tmp/well")))
}

fn create_image(lab: &Lab, name: &str, image: &str, options: &[&str]) -> Result<()> {
    let image = format!("{}/{image}:1", lab.registry().host());
    docker(lab, &[&["service", "create", "-d", "-q", "--name", name], options, &[&image]].concat())?.good().map(drop)
}

/// A task that is none of these, in this state.
#[track_caller]
fn another(lab: &Lab, service: &str, known: &[&Row], state: &str) -> Row {
    wait(lab, &format!("another task of {service} to be {state}"), SOON, || {
        let rows = tasks(lab, service)?;
        Ok(rows.into_iter().find(|row| row.state == state && known.iter().all(|known| known.id != row.id)))
    })
}

fn image(lab: &Lab) -> Result<()> {
    create_image(lab, "image", "checked", &["--restart-delay", "100ms", "--stop-grace-period", "300ms"])?;
    let starting = reached(lab, "image", &["starting"]);
    // Two failures in a row, and it never ran.
    let failed = wait(lab, "the task to fail", SOON, || {
        Ok(tasks(lab, "image")?.into_iter().find(|row| row.id == starting.id && row.state == "failed"))
    });
    let why = "unhealthy container: health check exited with 7";
    has(&failed.err, why);
    has(&failed.err, "task: non-zero exit (137): ");
    assert_eq!(get(lab, &format!("/tasks/{}", failed.id))?["Status"]["Message"], "starting");
    // One of those that follow is made well before it has failed, too.
    let row = wait(lab, "a task to run", SOON, || {
        for (task, (_, pid)) in cluster::running(lab)? {
            let ours = tasks(lab, "image")?.into_iter().any(|row| row.id == task);
            let _ = ours.then(|| fs::write(format!("/proc/{pid}/root/tmp/well"), ""));
        }
        Ok(tasks(lab, "image")?.into_iter().find(|row| row.state == "running"))
    });
    fs::remove_file(well(lab, &row.id)?)?;
    let failed = wait(lab, "the task to fail", SOON, || {
        Ok(tasks(lab, "image")?.into_iter().find(|task| task.id == row.id && task.state == "failed"))
    });
    has(&failed.err, why);
    assert_eq!(get(lab, &format!("/tasks/{}", failed.id))?["Status"]["Message"], "started");
    another(lab, "image", &[&failed], "starting");
    remove(lab, &["image"])
}

fn flags(lab: &Lab) -> Result<()> {
    let options = "--health-interval 1h --health-timeout 5s --health-retries 1 --health-start-period 1h \
                   --health-start-interval 200ms";
    let options: Vec<&str> = options.split_whitespace().chain(["--health-cmd", WELL]).collect();
    create(lab, "flags", &options, &SLEEP)?;
    let health = &inspect(lab, "flags")?["Spec"]["TaskTemplate"]["ContainerSpec"]["Healthcheck"];
    assert_eq!(health["Test"], json!(["CMD-SHELL", WELL]));
    let row = reached(lab, "flags", &["starting"]);
    // Many checks fail in the start period; they do not count.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(live_states(lab, "flags")?, [(row.id.clone(), "starting".to_owned())]);
    fs::write(well(lab, &row.id)?, "")?;
    assert_eq!(running(lab, "flags", 1)[0].id, row.id);
    remove(lab, &["flags"])
}

/// Tasks that are wanted, and their states.
fn live_states(lab: &Lab, service: &str) -> Result<Vec<(String, String)>> {
    let rows = tasks(lab, service)?.into_iter().filter(|row| row.desired == "running");
    Ok(rows.map(|row| (row.id, row.state)).collect())
}

fn no_healthcheck(lab: &Lab) -> Result<()> {
    create_image(lab, "unchecked", "sick", &["--no-healthcheck"])?;
    let row = running(lab, "unchecked", 1).remove(0);
    // Its check would have failed it by now.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(running(lab, "unchecked", 1)[0].id, row.id);
    // Switched on again by an update: the image's.
    let off = json!({"Test": ["NONE"]});
    assert_eq!(inspect(lab, "unchecked")?["Spec"]["TaskTemplate"]["ContainerSpec"]["Healthcheck"], off);
    remove(lab, &["unchecked"])
}

/// The image's check with the service's patience.
fn partly_the_images(lab: &Lab) -> Result<()> {
    create_image(lab, "patient", "sick", &["--health-retries", "100000"])?;
    let row = reached(lab, "patient", &["starting"]);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(live_states(lab, "patient")?, [(row.id, "starting".to_owned())]);
    remove(lab, &["patient"])
}

fn hanging(lab: &Lab) -> Result<()> {
    let options = "--health-interval 200ms --health-timeout 400ms --health-retries 2 --restart-condition none";
    let hangs = ["--health-cmd", "echo stuck; sleep 1000; true"];
    create(lab, "hanging", &[&options.split_whitespace().collect::<Vec<_>>()[..], &hangs].concat(), &SLEEP)?;
    let failed = reached(lab, "hanging", &["failed"]);
    has(&failed.err, "unhealthy container: health check exceeded timeout (400ms)");
    // One that hangs for long holds up neither another one's checks nor its own end.
    let options =
        "--health-interval 100ms --health-timeout 1h --stop-grace-period 1s --constraint node.hostname==board1";
    create(lab, "forever", &[&options.split_whitespace().collect::<Vec<_>>()[..], &hangs].concat(), &SLEEP)?;
    let row = reached(lab, "forever", &["starting"]);
    std::thread::sleep(Duration::from_secs(1));
    let options = ["--health-interval", "100ms", "--health-cmd", "true", "--constraint", "node.hostname==board1"];
    create(lab, "beside", &options, &SLEEP)?;
    running(lab, "beside", 1);
    let began = Instant::now();
    remove(lab, &["forever", "hanging", "beside"])?;
    wait(lab, "the container to go", SOON, || Ok((!cluster::running(lab)?.contains_key(&row.id)).then_some(())));
    assert!(began.elapsed() < Duration::from_secs(20), "it took {:?}", began.elapsed());
    Ok(())
}

fn update(lab: &Lab) -> Result<()> {
    let healthy =
        ["--replicas", "2", "--stop-grace-period", "1s", "--health-interval", "200ms", "--health-cmd", "true"];
    create(lab, "update", &healthy, &SLEEP)?;
    let old = running(lab, "update", 2);
    let line = ["service", "update", "-d", "-q", "--health-cmd", WELL, "--health-retries", "100000", "update"];
    docker(lab, &line)?.good()?;
    let known: Vec<&Row> = old.iter().collect();
    let first = another(lab, "update", &known, "starting");
    // It goes no further before that one is healthy.
    std::thread::sleep(Duration::from_secs(2));
    let states = live_states(lab, "update")?;
    let kept = old.iter().find(|row| row.slot != first.slot).context("two slots")?;
    assert!(states.contains(&(kept.id.clone(), "running".to_owned())) && states.len() == 2, "{states:?}");
    fs::write(well(lab, &first.id)?, "")?;
    let second = another(lab, "update", &[&known[..], &[&first]].concat(), "starting");
    fs::write(well(lab, &second.id)?, "")?;
    let done = running(lab, "update", 2);
    assert!(done.iter().all(|row| [&first.id, &second.id].contains(&&row.id)), "{done:?}");
    remove(lab, &["update"])
}

fn start_first(lab: &Lab) -> Result<()> {
    let options = ["--update-order", "start-first", "--stop-grace-period", "1s", "--health-interval", "200ms"];
    create(lab, "first", &[&options[..], &["--health-cmd", "true"]].concat(), &SLEEP)?;
    let old = running(lab, "first", 1).remove(0);
    let line = ["service", "update", "-d", "-q", "--health-cmd", WELL, "--health-retries", "100000", "first"];
    docker(lab, &line)?.good()?;
    let new = another(lab, "first", &[&old], "starting");
    let file = well(lab, &new.id)?;
    std::thread::sleep(Duration::from_secs(2));
    let both = cluster::running(lab)?;
    assert!(both.contains_key(&old.id) && both.contains_key(&new.id), "the old one waits for the new one: {both:?}");
    fs::write(file, "")?;
    wait(lab, "the new one to be alone", SOON, || {
        let found = cluster::running(lab)?;
        Ok((!found.contains_key(&old.id) && found.contains_key(&new.id)).then_some(()))
    });
    assert_eq!(running(lab, "first", 1)[0].id, new.id);
    remove(lab, &["first"])
}

fn an_agent_that_is_restarted(lab: &Lab) -> Result<()> {
    let image = busybox(lab);
    let options = ["--health-interval", "300ms", "--health-retries", "1", "--restart-condition", "none"];
    let start = ["service", "create", "-d", "-q", "--name", "again", "--health-cmd", WELL];
    // Long enough to be made well by hand.
    let patient = ["--health-start-period", "1h", "--health-start-interval", "200ms"];
    docker(lab, &[&start[..], &options, &patient, &[&image], &SLEEP].concat())?.good()?;
    let row = reached(lab, "again", &["starting"]);
    fs::write(well(lab, &row.id)?, "")?;
    assert_eq!(running(lab, "again", 1)[0].id, row.id);
    let board = lab.board(row.board)?;
    restart_agent(&board)?;
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        assert_eq!(live_states(lab, "again")?, [(row.id.clone(), "running".to_owned())], "it goes back");
        std::thread::sleep(Duration::from_millis(50));
    }
    // The new agent knows how to check it, and that its start is over.
    fs::remove_file(well(lab, &row.id)?)?;
    has(&reached(lab, "again", &["failed"]).err, "unhealthy container");
    remove(lab, &["again"])
}
