//! The display's states as tables: what a poll saw, what is shown, how it goes on.

use std::time::Duration;

use serde_json::{Value, json};

use super::paint;
use super::state::{Frame, Poll, Progress, Verdict};

fn service(mode: Value, update: Value) -> Value {
    json!({"ID": "sid", "Spec": {"Name": "web", "Mode": mode, "UpdateConfig": {"Monitor": 1_000_000_000}},
           "UpdateStatus": update})
}

fn task(slot: i64, state: &str) -> Value {
    json!({"Slot": slot, "NodeID": format!("node{slot}"), "DesiredState": "running", "Status": {"State": state}})
}

fn with(mut task: Value, pointer: &str, value: &str) -> Value {
    *task.pointer_mut(pointer).expect("a field of the task") = value.into();
    task
}

fn text(frame: &Frame) -> String {
    paint::lines(frame, false).join("|")
}

#[track_caller]
fn check(state: &mut Progress, service: &Value, tasks: &[Value], ms: u64, want: (&str, Verdict)) {
    let nodes =
        [json!({"ID": "node9", "Status": {"State": "down"}}), json!({"ID": "node1", "Status": {"State": "ready"}})];
    let (frame, verdict) = state.step(&Poll { service, tasks, nodes: &nodes, now: Duration::from_millis(ms) });
    assert_eq!((text(&frame).as_str(), verdict), (want.0, want.1));
}

#[test]
fn replicas_come_up_and_are_verified() {
    let web = service(json!({"Replicated": {"Replicas": 2}}), Value::Null);
    let p = &mut Progress::default();
    let waiting = Verdict::Wait;
    check(p, &web, &[], 0, ("overall progress: 0 out of 2 tasks|1/2: |2/2: ", waiting.clone()));
    let tasks = [task(2, "preparing"), task(1, "running")];
    check(p, &web, &tasks, 200, ("overall progress: 1 out of 2 tasks|1/2: running|2/2: preparing", waiting.clone()));
    let tasks = [task(2, "running"), task(1, "running")];
    let verify = "overall progress: 2 out of 2 tasks|1/2: running|2/2: running|verify: ";
    check(
        p,
        &web,
        &tasks,
        400,
        (&format!("{verify}Waiting 1 seconds to verify that tasks are stable..."), waiting.clone()),
    );
    let one = [task(1, "running"), with(task(2, "failed"), "/DesiredState", "shutdown")];
    check(
        p,
        &web,
        &one,
        800,
        ("overall progress: 1 out of 2 tasks|1/2: running|2/2: |verify: Detected task failure", waiting),
    );
    check(
        p,
        &web,
        &tasks,
        1000,
        (&format!("{verify}Waiting 1 seconds to verify that tasks are stable..."), Verdict::Wait),
    );
    check(p, &web, &tasks, 2000, (&format!("{verify}Service web converged"), Verdict::Converged));
}

#[test]
fn of_equal_tasks_the_newer_one_counts() {
    let web = service(json!({"Replicated": {"Replicas": 1}}), Value::Null);
    let want = "overall progress: 0 out of 1 tasks|1/1: starting";
    for tasks in [[task(1, "running"), task(1, "starting")], [task(1, "starting"), task(1, "running")]] {
        check(&mut Progress::default(), &web, &tasks, 0, (want, Verdict::Wait));
    }
}

#[test]
fn the_wanted_task_of_a_slot_counts() {
    let web = service(json!({"Replicated": {"Replicas": 1}}), Value::Null);
    let old = with(task(1, "running"), "/DesiredState", "shutdown");
    let lost = with(task(1, "running"), "/NodeID", "node9");
    for tasks in [[old.clone(), lost.clone(), task(1, "starting")], [task(1, "starting"), lost, old]] {
        check(
            &mut Progress::default(),
            &web,
            &tasks,
            0,
            ("overall progress: 0 out of 1 tasks|1/1: starting", Verdict::Wait),
        );
    }
}

#[test]
fn an_unplaceable_task_says_why() {
    let web = service(json!({"Replicated": {"Replicas": 1}}), Value::Null);
    let mut stuck = task(1, "pending");
    stuck["Status"]["Err"] = "no suitable node\n(make one with `docker network create x`)".into();
    let want = "overall progress: 0 out of 1 tasks|1/1: no suitable node (make one with `pi-mgr network create x`)";
    check(&mut Progress::default(), &web, &[stuck], 0, (want, Verdict::Wait));
}

#[test]
fn many_replicas_show_only_the_sum() {
    let web = service(json!({"Replicated": {"Replicas": 21}}), Value::Null);
    check(
        &mut Progress::default(),
        &web,
        &[task(1, "running")],
        0,
        ("overall progress: 1 out of 21 tasks", Verdict::Wait),
    );
    let none = service(json!({"Replicated": {"Replicas": 0}}), Value::Null);
    let want = "overall progress: 0 out of 0 tasks|verify: Waiting 1 seconds to verify that tasks are stable...";
    check(&mut Progress::default(), &none, &[], 0, (want, Verdict::Wait));
}

#[test]
fn a_slot_beyond_the_replicas_finds_a_free_line() {
    let web = service(json!({"Replicated": {"Replicas": 2}}), Value::Null);
    let p = &mut Progress::default();
    check(
        p,
        &web,
        &[task(7, "running"), task(3, "new")],
        0,
        ("overall progress: 1 out of 2 tasks|1/2: new|2/2: running", Verdict::Wait),
    );
    check(
        p,
        &web,
        &[task(7, "running"), task(1, "new")],
        0,
        ("overall progress: 1 out of 2 tasks|1/2: new|2/2: running", Verdict::Wait),
    );
}

#[test]
fn global_services_have_a_line_per_node() {
    let all = service(json!({"Global": {}}), Value::Null);
    let p = &mut Progress::default();
    check(p, &all, &[], 0, ("overall progress: waiting for new tasks", Verdict::Wait));
    check(
        p,
        &all,
        &[task(1, "running"), task(2, "ready")],
        0,
        ("overall progress: 1 out of 2 tasks|node1: running|node2: ready", Verdict::Wait),
    );
}

#[test]
fn the_updater_has_the_last_word() {
    let mode = json!({"Replicated": {"Replicas": 1}});
    let state = |state: &str| service(mode.clone(), json!({"State": state, "Message": "because"}));
    let p = &mut Progress::default();
    check(p, &state("paused"), &[], 0, ("", Verdict::Failed("service update paused: because".to_owned())));
    check(p, &state("rollback_paused"), &[], 0, ("", Verdict::Failed("service rollback paused: because".to_owned())));
    let back = "rollback: because|overall progress: rolling back update: 0 out of 1 tasks|1/1: ";
    check(p, &state("rollback_started"), &[], 0, (back, Verdict::Wait));
    check(
        p,
        &state("rollback_completed"),
        &[],
        0,
        ("rollback: because|overall progress: 0 out of 1 tasks|1/1: ", Verdict::Wait),
    );
    check(p, &state("completed"), &[], 0, ("", Verdict::Converged));
    let unknown = service(json!({"Sometimes": {}}), Value::Null);
    let text = "this service mode has no progress display; use --detach".to_owned();
    check(p, &unknown, &[], 0, ("", Verdict::Failed(text)));
}

#[test]
fn a_rollback_that_comes_to_its_end_converges() {
    let state = |state: &str| {
        service(json!({"Replicated": {"Replicas": 1}}), json!({"State": state, "Message": "task t1 failed"}))
    };
    let p = &mut Progress::default();
    let updating = "overall progress: 0 out of 1 tasks|1/1: starting";
    check(p, &state("updating"), &[task(1, "starting")], 0, (updating, Verdict::Wait));
    let back = "rollback: task t1 failed|overall progress: rolling back update: 1 out of 1 tasks|1/1: running|verify: ";
    let waiting = format!("{back}Waiting 1 seconds to verify that tasks are stable...");
    check(p, &state("rollback_started"), &[task(1, "running")], 200, (&waiting, Verdict::Wait));
    assert!(p.is_verifying());
    let done = back.replace("rolling back update: ", "") + "Service web converged";
    check(p, &state("rollback_completed"), &[task(1, "running")], 1200, (&done, Verdict::Converged));
}

#[test]
fn an_update_that_ends_is_verified_from_then_on() {
    let state =
        |state: &str| service(json!({"Replicated": {"Replicas": 1}}), json!({"State": state, "Message": "update"}));
    let p = &mut Progress::default();
    let line = "overall progress: 1 out of 1 tasks|1/1: running|verify: ";
    let waiting = format!("{line}Waiting 1 seconds to verify that tasks are stable...");
    check(p, &state("updating"), &[task(1, "running")], 0, (&waiting, Verdict::Wait));
    check(p, &state("completed"), &[task(1, "running")], 500, (&waiting, Verdict::Wait));
    let done = format!("{line}Service web converged");
    check(p, &state("completed"), &[task(1, "running")], 1000, (&done, Verdict::Converged));
}

fn job(mode: Value, iteration: i64) -> Value {
    let mut job = service(mode, Value::Null);
    job["JobStatus"] = json!({"JobIteration": {"Index": iteration}});
    job
}

/// A task of a job's iteration 5.
fn job_task(slot: i64, state: &str) -> Value {
    let mut task = task(slot, state);
    task["JobIteration"] = json!({"Index": 5});
    task["DesiredState"] = "complete".into();
    task
}

#[test]
fn a_replicated_job_counts_what_has_completed() {
    let three = job(json!({"ReplicatedJob": {"TotalCompletions": 3, "MaxConcurrent": 2}}), 5);
    let p = &mut Progress::default();
    let nothing = "job progress: 0 out of 3 complete|active tasks: 0 out of 2 tasks|1/3: |2/3: |3/3: ";
    check(p, &three, &[], 0, (nothing, Verdict::Wait));
    let mut old = job_task(0, "complete");
    old["JobIteration"] = json!({"Index": 4});
    let tasks = [old, job_task(0, "running"), job_task(1, "complete")];
    let some = "job progress: 1 out of 3 complete|active tasks: 1 out of 2 tasks|1/3: running|2/3: complete|3/3: ";
    check(p, &three, &tasks, 1, (some, Verdict::Wait));
    // A failed task and what replaces it.
    let tasks = [job_task(0, "complete"), job_task(1, "complete"), job_task(2, "failed"), job_task(2, "starting")];
    let more =
        "job progress: 2 out of 3 complete|active tasks: 1 out of 1 tasks|1/3: complete|2/3: complete|3/3: starting";
    check(p, &three, &tasks, 2, (more, Verdict::Wait));
    let tasks = [job_task(0, "complete"), job_task(1, "complete"), job_task(2, "complete"), job_task(2, "failed")];
    let all = "job progress: 3 out of 3 complete|active tasks: 0 out of 0 tasks|\
               1/3: complete|2/3: complete|3/3: complete|job complete";
    check(p, &three, &tasks, 3, (all, Verdict::Converged));
    let none = job(json!({"ReplicatedJob": {"TotalCompletions": 0, "MaxConcurrent": 0}}), 5);
    let done = "job progress: 0 out of 0 complete|active tasks: 0 out of 0 tasks|job complete";
    check(&mut Progress::default(), &none, &[], 0, (done, Verdict::Converged));
}

#[test]
fn a_failing_job_says_why() {
    let one = job(json!({"ReplicatedJob": {"TotalCompletions": 1, "MaxConcurrent": 1}}), 5);
    let mut failed = job_task(0, "failed");
    failed["Status"]["Err"] = "task: non-zero exit (1)".into();
    let want = "job progress: 0 out of 1 complete|active tasks: 0 out of 1 tasks|1/1: task: non-zero exit (1)";
    check(&mut Progress::default(), &one, &[failed], 0, (want, Verdict::Wait));
}

#[test]
fn a_large_job_shows_only_the_sums() {
    let many = job(json!({"ReplicatedJob": {"TotalCompletions": 100, "MaxConcurrent": 10}}), 5);
    let want = "job progress:   1 out of 100 complete|active tasks:  1 out of 10 tasks";
    let tasks = [job_task(0, "complete"), job_task(1, "running")];
    check(&mut Progress::default(), &many, &tasks, 0, (want, Verdict::Wait));
}

#[test]
fn a_global_job_is_over_on_the_boards_that_it_began_on() {
    let all = job(json!({"GlobalJob": {}}), 5);
    let p = &mut Progress::default();
    check(p, &all, &[], 0, ("job progress: waiting for tasks", Verdict::Wait));
    let tasks = [job_task(1, "complete"), job_task(2, "running")];
    let some = "job progress: 1 out of 2 complete|node1: complete|node2: running";
    check(p, &all, &tasks, 1, (some, Verdict::Wait));
    let tasks = [job_task(1, "complete"), job_task(2, "complete"), job_task(3, "new")];
    let done = "job progress: 2 out of 2 complete|node1: complete|node2: complete|job complete";
    check(p, &all, &tasks, 2, (done, Verdict::Converged));
}
