//! Updates that succeed, fail, pause and are rolled back; jobs; a manager that dies in the middle of them.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cluster::{Row, SOON, availability, live, tasks, wait};
use crate::lab::Lab;
use crate::lab::guard::Guard;
use crate::lab::manager::Verb;
use crate::support::{all, busybox, create, docker, has, inspect, pi_mgr, remove, running};

/// What busybox does for a long time.
const SLEEP: [&str; 2] = ["sleep", "1000000"];
/// What is the same for every service here.
const QUICK: [&str; 4] = ["--stop-grace-period", "1s", "--restart-delay", "1s"];

#[test]
#[ignore = "needs root"]
fn services_are_updated_and_rolled_back() -> Result<()> {
    let lab = Guard::cluster(2)?;
    all(
        &lab,
        &[
            ("a failing update is rolled back", rolled_back),
            ("an image that is not there is rolled back", no_such_image),
            ("a failing update pauses, the next write goes on", paused),
            ("a rollback by hand toggles", toggled),
            ("start-first leaves no gap", start_first),
            ("all at once", all_at_once),
            ("only the scale", only_the_scale),
        ],
    );
    Ok(())
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

/// State and message of a service's update.
fn status(lab: &Lab, service: &str) -> Result<(String, String)> {
    let update = inspect(lab, service)?["UpdateStatus"].clone();
    let text = |key: &str| update[key].as_str().unwrap_or_default().to_owned();
    Ok((text("State"), text("Message")))
}

#[track_caller]
fn wait_status(lab: &Lab, service: &str, state: &str) -> String {
    wait(lab, &format!("the update of {service} to be {state}"), SOON, || {
        Ok(Some(status(lab, service)?).filter(|(is, _)| is == state).map(|(_, message)| message))
    })
}

fn args(service: &Value) -> &Value {
    &service["Spec"]["TaskTemplate"]["ContainerSpec"]["Args"]
}

fn env(service: &Value) -> &Value {
    &service["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"]
}

fn ids(rows: &[Row]) -> BTreeSet<String> {
    rows.iter().map(|row| row.id.clone()).collect()
}

const FAILED: &str = "due to failure or early termination of task";

fn rolled_back(lab: &Lab) -> Result<()> {
    let options = words(
        "--replicas 3 --update-failure-action rollback --update-delay 2s --update-monitor 3s --rollback-monitor 1s",
    );
    create(lab, "auto", &[&options[..], &QUICK].concat(), &SLEEP)?;
    let before = ids(&running(lab, "auto", 3));
    let said = docker(lab, &["service", "update", "--args", "false", "auto"])?.good()?;
    has(&said, &format!("rollback: update rolled back {FAILED}"));
    has(&said, "converged");
    has(&wait_status(lab, "auto", "rollback_completed"), "rollback completed");
    let service = inspect(lab, "auto")?;
    assert_eq!(args(&service), &serde_json::json!(SLEEP), "{service:#}");
    ensure!(service["PreviousSpec"].is_null(), "there is no way back: {service:#}");
    let after = ids(&running(lab, "auto", 3));
    assert_eq!(before.intersection(&after).count(), 2, "the slots that the update had not reached are untouched");
    let said = docker(lab, &["service", "rollback", "auto"])?.bad()?.1;
    has(&said, "does not have a previous spec");
    remove(lab, &["auto"])
}

fn no_such_image(lab: &Lab) -> Result<()> {
    let image = busybox(lab);
    let nowhere = image.replace("busybox", "nosuch");
    let line = format!(
        "service create --name gone --replicas 2 --update-failure-action rollback --update-monitor 1s \
         --rollback-monitor 1s --rollback-parallelism 2 --restart-delay 1s {image} sleep 1000000"
    );
    pi_mgr(lab, &words(&line))?.good()?;
    let said = pi_mgr(lab, &["service", "update", "--image", &nowhere, "gone"])?.good()?;
    has(&said, &format!("update rolled back {FAILED}"));
    wait_status(lab, "gone", "rollback_completed");
    running(lab, "gone", 2);
    let rejected = tasks(lab, "gone")?.into_iter().find(|row| row.state == "rejected");
    has(&rejected.context("a rejected task")?.err, "nosuch");
    remove(lab, &["gone"])
}

fn paused(lab: &Lab) -> Result<()> {
    create(lab, "held", &[&words("--replicas 3 --update-delay 2s --update-monitor 3s")[..], &QUICK].concat(), &SLEEP)?;
    let before = ids(&running(lab, "held", 3));
    let (code, said) = docker(lab, &["service", "update", "--args", "false", "held"])?.bad()?;
    has(&said, &format!("service update paused: update paused {FAILED}"));
    assert_eq!(code, 1);
    let first = wait_status(lab, "held", "paused");
    assert_eq!(before.intersection(&ids(&live(lab, "held")?)).count(), 2, "the others run on");
    // Any write goes on with it; it fails in the next slot.
    docker(lab, &["service", "update", "-d", "--label-add", "a=b", "held"])?.good()?;
    wait(lab, "the update to go on and pause again", SOON, || {
        let (state, message) = status(lab, "held")?;
        Ok((state == "paused" && message != first).then_some(()))
    });
    let said = docker(lab, &["service", "update", "--args", "sleep 999999", "held"])?.good()?;
    has(&said, "converged");
    assert_eq!(wait_status(lab, "held", "completed"), "update completed");
    let after = ids(&running(lab, "held", 3));
    assert_eq!(before.intersection(&after).count(), 0);
    remove(lab, &["held"])
}

fn toggled(lab: &Lab) -> Result<()> {
    let options = words("--replicas 2 --update-monitor 1s --rollback-monitor 1s --rollback-parallelism 0");
    create(lab, "twice", &[&options[..], &QUICK].concat(), &SLEEP)?;
    running(lab, "twice", 2);
    let (_, said) = pi_mgr(lab, &["service", "rollback", "twice"])?.bad()?;
    has(&said, "does not have a previous spec");
    docker(lab, &["service", "update", "--env-add", "A=1", "twice"])?.good()?;
    let said = docker(lab, &["service", "rollback", "twice"])?.good()?;
    has(&said, "manually requested rollback");
    wait_status(lab, "twice", "rollback_completed");
    ensure!(env(&inspect(lab, "twice")?).is_null());
    has(&pi_mgr(lab, &["service", "rollback", "twice"])?.good()?, "converged");
    wait_status(lab, "twice", "rollback_completed");
    assert_eq!(env(&inspect(lab, "twice")?), &serde_json::json!(["A=1"]));
    docker(lab, &["service", "update", "--rollback", "-d", "twice"])?.good()?;
    wait_status(lab, "twice", "rollback_completed");
    ensure!(env(&inspect(lab, "twice")?).is_null());
    remove(lab, &["twice"])
}

fn start_first(lab: &Lab) -> Result<()> {
    let options = words("--update-order start-first --update-monitor 1s");
    create(lab, "gapless", &[&options[..], &QUICK].concat(), &SLEEP)?;
    let old = running(lab, "gapless", 1)[0].id.clone();
    docker(lab, &["service", "update", "-d", "--env-add", "A=1", "gapless"])?.good()?;
    let mut both = false;
    wait(lab, "the update of gapless", SOON, || {
        let rows = tasks(lab, "gapless")?;
        let runs: Vec<&Row> = rows.iter().filter(|row| row.state == "running").collect();
        ensure!(!runs.is_empty(), "nothing runs: {rows:?}");
        both |= runs.len() == 2;
        Ok((status(lab, "gapless")?.0 == "completed").then_some(()))
    });
    ensure!(both, "the new one ran beside the old one");
    ensure!(running(lab, "gapless", 1)[0].id != old);
    remove(lab, &["gapless"])
}

fn all_at_once(lab: &Lab) -> Result<()> {
    let options = words("--replicas 4 --update-parallelism 0 --update-monitor 1s");
    create(lab, "flash", &[&options[..], &QUICK].concat(), &SLEEP)?;
    let before = ids(&running(lab, "flash", 4));
    docker(lab, &["service", "update", "--force", "-d", "flash"])?.good()?;
    wait(lab, "all of them to stop at once", SOON, || {
        let rows = tasks(lab, "flash")?;
        Ok(rows.iter().filter(|row| before.contains(&row.id)).all(|row| row.desired == "shutdown").then_some(()))
    });
    wait_status(lab, "flash", "completed");
    remove(lab, &["flash"])
}

fn only_the_scale(lab: &Lab) -> Result<()> {
    create(lab, "wide", &[&words("--replicas 1")[..], &QUICK].concat(), &SLEEP)?;
    let before = ids(&running(lab, "wide", 1));
    docker(lab, &["service", "update", "--replicas", "2", "--label-add", "a=b", "wide"])?.good()?;
    let service = inspect(lab, "wide")?;
    ensure!(service["UpdateStatus"].is_null() || service["UpdateStatus"] == serde_json::json!({}), "{service:#}");
    assert_eq!(service["PreviousSpec"]["Mode"]["Replicated"]["Replicas"], 1);
    ensure!(before.is_subset(&ids(&running(lab, "wide", 2))), "nothing restarted");
    docker(lab, &["service", "rollback", "-d", "wide"])?.good()?;
    ensure!(running(lab, "wide", 1).len() == 1);
    remove(lab, &["wide"])
}

#[test]
#[ignore = "needs root"]
fn jobs_run_to_completion() -> Result<()> {
    let lab = Guard::cluster(2)?;
    replicated_job(&lab)?;
    failing_job(&lab)?;
    global_job(&lab)
}

/// The states of a service's tasks.
fn states(lab: &Lab, service: &str) -> Result<Vec<String>> {
    Ok(tasks(lab, service)?.into_iter().map(|row| row.state).collect())
}

#[track_caller]
fn wait_completed(lab: &Lab, service: &str, count: usize) {
    wait(lab, &format!("{count} tasks of {service} to complete, and no other"), SOON, || {
        let states = states(lab, service)?;
        ensure!(states.len() <= count, "more than {count}: {states:?}");
        Ok((states.len() == count && states.iter().all(|state| state == "complete")).then_some(()))
    });
}

fn replicated_job(lab: &Lab) -> Result<()> {
    let image = busybox(lab);
    let line = format!(
        "service create --name sum --mode replicated-job --replicas 5 --max-concurrent 2 --restart-condition \
         on-failure {image} sleep 1"
    );
    let said = docker(lab, &words(&line))?.good()?;
    has(&said, "job complete");
    wait_completed(lab, "sum", 5);
    let shown = docker(lab, &words("service ls --filter name=sum --format {{.Mode}}={{.Replicas}}"))?.good()?;
    assert_eq!(shown.trim(), "replicated job=0/2 (5/5 completed)");
    assert_eq!(pi_mgr(lab, &words("service ls --filter name=sum --format {{.Mode}}={{.Replicas}}"))?.good()?, shown);
    // A new iteration beside the record of the old one.
    let first = inspect(lab, "sum")?["JobStatus"]["JobIteration"]["Index"].clone();
    pi_mgr(lab, &words("service update -d --force sum"))?.good()?;
    wait_completed(lab, "sum", 10);
    ensure!(inspect(lab, "sum")?["JobStatus"]["JobIteration"]["Index"] != first);
    remove(lab, &["sum"])
}

fn failing_job(lab: &Lab) -> Result<()> {
    let options = words("--mode replicated-job --replicas 2 --restart-max-attempts 1 --restart-delay 100ms");
    create(lab, "bad", &options, &["sh", "-c", "exit 3"])?;
    wait(lab, "both slots to be given up", SOON, || {
        let states = states(lab, "bad")?;
        Ok((states.len() == 4 && states.iter().all(|state| state == "failed")).then_some(()))
    });
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(states(lab, "bad")?.len(), 4, "it stays so");
    remove(lab, &["bad"])
}

fn global_job(lab: &Lab) -> Result<()> {
    availability(lab, 2, "drain")?;
    let image = busybox(lab);
    let line = format!("service create --name scan --mode global-job --restart-delay 1s {image} true");
    pi_mgr(lab, &words(&line))?.good()?;
    wait_completed(lab, "scan", 1);
    assert_eq!(tasks(lab, "scan")?[0].board, 1);
    // A board that comes later gets its task.
    availability(lab, 2, "active")?;
    wait_completed(lab, "scan", 2);
    let boards: BTreeSet<u8> = tasks(lab, "scan")?.iter().map(|row| row.board).collect();
    assert_eq!(boards, [1, 2].into());
    remove(lab, &["scan"])
}

#[test]
#[ignore = "needs root"]
fn a_killed_manager_goes_on_with_updates_and_jobs() -> Result<()> {
    let lab = Guard::cluster(2)?;
    let options = words("--replicas 4 --update-delay 2s --update-monitor 1s --update-failure-action rollback");
    create(&lab, "web", &[&options[..], &QUICK].concat(), &SLEEP)?;
    let before = ids(&running(&lab, "web", 4));
    let job = words("--mode replicated-job --replicas 4 --max-concurrent 1");
    create(&lab, "sum", &job, &["sleep", "2"])?;
    docker(&lab, &["service", "update", "-d", "--env-add", "A=1", "web"])?.good()?;
    let updated = |lab: &Lab| -> Result<BTreeSet<String>> { Ok(&ids(&live(lab, "web")?) - &before) };
    let mut kept = BTreeSet::new();
    for count in [1, 2] {
        wait(&lab, "the next slot", SOON, || Ok((updated(&lab)?.len() >= count).then_some(())));
        kept.extend(updated(&lab)?);
        restart_manager(&lab)?;
    }
    assert_eq!(wait_status(&lab, "web", "completed"), "update completed");
    let after = ids(&running(&lab, "web", 4));
    assert_eq!(before.intersection(&after).count(), 0, "every slot is updated");
    ensure!(kept.is_subset(&after), "what was updated before is not updated again: {kept:?} {after:?}");
    wait_completed(&lab, "sum", 4);

    // A rollback goes on, too: the second slot fails after the first was updated.
    docker(
        &lab,
        &["service", "update", "-d", "--args", "sh -c \"sleep 3; exit 1\"", "--update-monitor", "20s", "web"],
    )?
    .good()?;
    wait_status(&lab, "web", "rollback_started");
    restart_manager(&lab)?;
    wait_status(&lab, "web", "rollback_completed");
    running(&lab, "web", 4);
    assert_eq!(args(&inspect(&lab, "web")?), &serde_json::json!(SLEEP));
    Ok(())
}

fn restart_manager(lab: &Lab) -> Result<()> {
    lab.manager().act(Verb::Kill)?;
    lab.manager().act(Verb::Start)?;
    wait(lab, "the manager to answer", SOON, || {
        Ok(lab.manager().api("GET", "/nodes", None).ok().filter(|answer| answer.status == 200).map(drop))
    });
    Ok(())
}
