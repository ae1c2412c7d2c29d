//! Every phase meets every event: scripts of steps, and what the task says and does after each.

use std::rc::Rc;
use std::time::Duration;

use racimo_common::id::{RandomId, ServiceId, TaskId};
use racimo_common::object::{ContainerSpec, Desired, Resources, TaskState};
use racimo_common::time::{Mono, Now, Wall};
use racimo_common::wire::Work;

use crate::health::{Check, Watch};
use crate::limits::{self, REASON_BYTES_MAX};
use crate::task::{Done, Found, Op, Task};

/// What happens to a task.
#[derive(Debug, Clone, Copy)]
enum Step {
    Wait,
    Want(Desired),
    Unwant,
    Ok,
    Again,
    Failed,
    Cancelled,
    Exit(u32),
    Oom,
    Adopt(Found),
    Vanish,
    /// The container is made; its health is checked every second, two failures are too many.
    Checked,
}

use Desired::{Ready, Remove, Running, Shutdown};
use Step::*;

const CHECK: Check = Check {
    interval: Duration::from_secs(1),
    timeout: Duration::from_secs(1),
    start_period: Duration::ZERO,
    start_interval: Duration::from_secs(1),
    retries: 2,
};

fn now(ms: u64) -> Now {
    Now { mono: Mono::default() + Duration::from_millis(ms), wall: Wall::default() + Duration::from_millis(ms) }
}

pub(crate) fn work(grace: Duration) -> Work {
    Work {
        net: None,
        service: ServiceId::from_bits(1),
        service_name: "web".to_owned(),
        slot_name: "web.1".to_owned(),
        container: ContainerSpec { stop_grace: Some(grace), ..ContainerSpec::default() },
        resources: Resources::default(),
        log: racimo_common::object::LogConfig::default(),
        files: Vec::new(),
        credentials: None,
        fault: None,
        offline: racimo_common::wire::Offline::default(),
    }
}

fn assigned(desired: Desired) -> Task {
    Task::assigned(TaskId::from_bits(1), desired, Rc::new(work(Duration::from_secs(2))), now(0))
}

fn found(found: Found) -> Task {
    Task::found(TaskId::from_bits(1), found, Some(Duration::from_secs(2)), None, now(0))
}

fn go(task: &mut Task, ms: u64, step: Step) {
    let done = |task: &mut Task, done| task.done(done, now(ms));
    match step {
        Wait => {}
        Want(desired) => task.want(desired, None, Mono::default()),
        Unwant => task.unwant(),
        Ok => done(task, Done::Ok(Some(7))),
        Again => done(task, Done::Again("containerd is away".to_owned())),
        Failed => done(task, Done::Failed("no".to_owned())),
        Cancelled => done(task, Done::Cancelled),
        Exit(status) => task.exited(status, false, now(ms).wall),
        Oom => task.exited(137, true, now(ms).wall),
        Adopt(found) => task.adopt(found, None, now(ms)),
        Vanish => task.vanished(now(ms).wall),
        Checked => done(task, Done::Made(CHECK)),
    }
}

/// Steps at these milliseconds; after each the state, the operation that begins, and whether one is to be given up.
#[track_caller]
fn check(mut task: Task, steps: &[(u64, Step, &str)]) -> Task {
    for (number, &(ms, step, want)) in steps.iter().enumerate() {
        go(&mut task, ms, step);
        let op = match task.next(now(ms)) {
            None if task.cancels() => "cancel",
            None => "-",
            Some(Op::Prepare) => "prepare",
            Some(Op::Start) => "start",
            Some(Op::Signal(None)) => "stop",
            Some(Op::Signal(Some(_))) => "kill",
            Some(Op::Delete) => "delete",
            Some(Op::Probe) => "probe",
        };
        let gone = if task.is_gone() { " gone" } else { "" };
        assert_eq!(format!("{} {op}{gone}", task.report().state), want, "step {number}: {step:?}\n{task:?}");
    }
    task
}

const START: [(u64, Step, &str); 3] = [(0, Wait, "preparing prepare"), (1, Ok, "starting start"), (2, Ok, "running -")];

/// A task that runs, then these steps.
#[track_caller]
fn check_running(steps: &[(u64, Step, &str)]) -> Task {
    check(check(assigned(Running), &START), steps)
}

#[test]
fn a_life() {
    let ends = [(9, Exit(0), "complete -"), (10, Want(Remove), "complete -"), (11, Unwant, "complete delete")];
    let task = check_running(&ends);
    assert_eq!(task.report().message, "finished");
    check(task, &[(12, Ok, "complete - gone")]);
    let task = check_running(&[(9, Exit(3), "failed -"), (10, Exit(0), "failed -"), (11, Vanish, "failed -")]);
    assert_eq!(task.report().err.as_deref(), Some("task: non-zero exit (3)"));
    assert_eq!(task.report().container.as_ref().and_then(|c| c.exit_code), Some(3));
    let task = check_running(&[(9, Oom, "failed -")]);
    assert!(task.report().err.as_deref().is_some_and(|e| e.contains("memory limit")));
    check_running(&[(9, Vanish, "failed -")]);
    // Ready is prepared, but not started before it shall run.
    check(
        assigned(Ready),
        &[
            (0, Wait, "preparing prepare"),
            (1, Ok, "ready -"),
            (2, Want(Running), "starting start"),
            (3, Ok, "running -"),
        ],
    );
}

#[test]
fn a_stop_in_every_phase() {
    // Before anything was done.
    check(assigned(Shutdown), &[(0, Wait, "shutdown -"), (1, Unwant, "shutdown - gone")]);
    check(assigned(Remove), &[(0, Wait, "shutdown -")]);
    check(assigned(Running), &[(0, Unwant, "shutdown - gone")]);
    // While the image is pulled: the pull is given up.
    let pulling = [(0, Wait, "preparing prepare"), (1, Want(Shutdown), "preparing cancel")];
    check(check(assigned(Running), &pulling), &[(2, Cancelled, "shutdown -"), (3, Unwant, "shutdown delete")]);
    // The answer was under way already.
    check(check(assigned(Running), &pulling), &[(2, Ok, "shutdown -"), (3, Unwant, "shutdown delete")]);
    check(check(assigned(Running), &pulling), &[(2, Failed, "rejected -"), (3, Unwant, "rejected delete")]);
    check(check(assigned(Running), &pulling), &[(2, Again, "preparing -"), (1100, Wait, "shutdown -")]);
    // Prepared.
    check(assigned(Ready), &[(0, Wait, "preparing prepare"), (1, Ok, "ready -"), (2, Want(Shutdown), "shutdown -")]);
    // While it starts: first the start, then the stop.
    let starting = [(0, Wait, "preparing prepare"), (1, Ok, "starting start"), (2, Want(Shutdown), "starting -")];
    check(
        check(assigned(Running), &starting),
        &[(3, Ok, "running stop"), (4, Ok, "running -"), (5, Exit(143), "shutdown -")],
    );
    check(check(assigned(Running), &starting), &[(3, Failed, "failed -"), (4, Unwant, "failed delete")]);
    check(check(assigned(Running), &starting), &[(3, Again, "starting -"), (1100, Wait, "shutdown -")]);
    // Running; what it exits with does not matter.
    check_running(&[(3, Want(Shutdown), "running stop"), (4, Ok, "running -"), (5, Exit(0), "shutdown -")]);
    check_running(&[
        (3, Unwant, "running stop"),
        (4, Exit(9), "shutdown -"),
        (5, Ok, "shutdown delete"),
        (6, Ok, "shutdown - gone"),
    ]);
    check_running(&[(3, Want(Shutdown), "running stop"), (4, Vanish, "shutdown -")]);
}

#[test]
fn the_deadline_kills_and_kills_again_less_often() {
    let task = check_running(&[
        (3, Want(Shutdown), "running stop"),
        (4, Ok, "running -"),
        (2003, Wait, "running -"),
        (2004, Wait, "running kill"),
        (2005, Ok, "running -"),
        (12_003, Wait, "running -"),
        (12_004, Wait, "running kill"),
        (12_005, Ok, "running -"),
        (32_003, Wait, "running -"),
        (32_004, Wait, "running kill"),
        (32_005, Ok, "running -"),
    ]);
    check(task, &[(33_000, Exit(137), "shutdown -")]);
    // Without grace it is killed at once, and once.
    let task = Task::assigned(TaskId::from_bits(1), Running, Rc::new(work(Duration::ZERO)), now(0));
    let steps = [
        (3, Want(Shutdown), "running kill"),
        (4, Ok, "running -"),
        (5, Wait, "running -"),
        (10_003, Wait, "running kill"),
    ];
    check(check(task, &START), &steps);
}

#[test]
fn a_signal_that_did_not_get_through_is_sent_again() {
    // The polite one comes first, whenever containerd is back; the grace counts from there.
    check_running(&[
        (3, Want(Shutdown), "running stop"),
        (5, Again, "running -"),
        (1004, Wait, "running -"),
        (1005, Wait, "running stop"),
        (9000, Again, "running -"),
        (10_000, Wait, "running stop"),
        (10_001, Ok, "running -"),
        (12_000, Wait, "running -"),
        (12_001, Wait, "running kill"),
        (12_002, Again, "running -"),
        (13_002, Wait, "running kill"),
        (13_003, Again, "running -"),
        (14_003, Wait, "running kill"),
        (14_004, Ok, "running -"),
        (24_002, Wait, "running -"),
        (24_003, Wait, "running kill"),
    ]);
    // One that the process does not take: its deadline comes.
    check_running(&[(3, Want(Shutdown), "running stop"), (5, Failed, "running -"), (2003, Wait, "running kill")]);
}

#[test]
fn operations_that_fail() {
    let task = check(assigned(Running), &[(0, Wait, "preparing prepare"), (1, Failed, "rejected -")]);
    assert_eq!(task.report().err.as_deref(), Some("no"));
    let task =
        check(assigned(Running), &[(0, Wait, "preparing prepare"), (1, Ok, "starting start"), (2, Failed, "failed -")]);
    assert_eq!(task.report().err.as_deref(), Some("starting container failed: no"));
    // The board's fault: again, a second later, and the reason is told once.
    let mut task = check(assigned(Running), &[(0, Wait, "preparing prepare")]);
    task.take_report().expect("news");
    let mut task = check(task, &[(1, Again, "preparing -")]);
    assert_eq!(task.take_report().and_then(|r| r.err).as_deref(), Some("containerd is away"));
    let mut task =
        check(task, &[(1000, Wait, "preparing -"), (1001, Wait, "preparing prepare"), (1002, Again, "preparing -")]);
    assert_eq!(task.take_report(), None, "nothing is new");
    let mut task = check(task, &[(3000, Wait, "preparing prepare"), (3001, Ok, "starting start")]);
    assert_eq!(task.take_report().and_then(|r| r.err), None);
    check(task, &[(3002, Again, "starting -"), (4002, Wait, "starting start"), (4003, Ok, "running -")]);
    // A removal is tried until it works.
    let task =
        check_running(&[(9, Exit(0), "complete -"), (10, Unwant, "complete delete"), (11, Failed, "complete -")]);
    check(
        task,
        &[
            (10_010, Wait, "complete -"),
            (10_011, Wait, "complete delete"),
            (10_012, Again, "complete -"),
            (11_012, Wait, "complete delete"),
            (11_013, Ok, "complete - gone"),
        ],
    );
}

#[test]
fn reasons_are_cut() {
    for done in [Done::Again("ä".repeat(2000)), Done::Failed("ä".repeat(2000))] {
        let mut task = check(assigned(Running), &[(0, Wait, "preparing prepare")]);
        task.done(done, now(1));
        let length = task.report().err.as_ref().expect("a reason").len();
        assert_eq!(length, REASON_BYTES_MAX);
    }
}

#[test]
fn an_exit_before_the_start_is_answered() {
    let starting = || check(assigned(Running), &[(0, Wait, "preparing prepare"), (1, Ok, "starting start")]);
    check(starting(), &[(2, Exit(0), "complete -"), (3, Ok, "complete -")]);
    check(starting(), &[(2, Exit(1), "failed -"), (3, Ok, "failed -"), (4, Unwant, "failed delete")]);
    // The first end is the one that counts.
    let task = check(starting(), &[(2, Exit(0), "complete -"), (3, Failed, "complete -")]);
    assert_eq!(task.report().err, None);
    check(starting(), &[(2, Exit(0), "complete -"), (3, Again, "complete -")]);
    // The rest of an earlier try that is swept away.
    check(
        assigned(Running),
        &[(0, Wait, "preparing prepare"), (1, Exit(137), "preparing -"), (2, Ok, "starting start")],
    );
}

#[test]
fn after_the_agent_was_restarted() {
    let running = Found::Running { pid: 9, health: None, lease: None };
    // Adopted before or after its assignment.
    let mut task =
        check(found(running), &[(0, Wait, "running -"), (1, Want(Running), "running -"), (2, Exit(0), "complete -")]);
    assert_eq!(task.take_report().and_then(|r| r.container).and_then(|c| c.exit_code), Some(0));
    let task =
        check(found(running), &[(0, Unwant, "running stop"), (1, Ok, "running -"), (2, Exit(0), "shutdown delete")]);
    check(task, &[(3, Ok, "shutdown - gone")]);
    let mut task = assigned(Running);
    task.adopt(running, None, now(0));
    assert_eq!(task.report().container.as_ref().map(|c| c.pid), Some(9));
    check(task, &[(0, Wait, "running -"), (1, Adopt(Found::Ended { status: 1, oom: false }), "running -")]);
    let mut task = assigned(Shutdown);
    task.adopt(running, None, now(0));
    check(task, &[(0, Wait, "running stop"), (1, Ok, "running -"), (2001, Wait, "running kill")]);
    // It ended meanwhile.
    check(found(Found::Ended { status: 0, oom: false }), &[(0, Wait, "complete -"), (1, Unwant, "complete delete")]);
    let task = check(found(Found::Ended { status: 137, oom: true }), &[(0, Wait, "failed -")]);
    assert!(task.report().err.as_deref().is_some_and(|e| e.contains("memory limit")));
    check(found(Found::Ended { status: 1, oom: false }), &[(0, Unwant, "failed delete")]);
}

#[test]
fn an_agent_that_died_before_the_start_is_made_up_for() {
    let starts = [(1, Wait, "preparing prepare"), (2, Ok, "starting start"), (3, Ok, "running -")];
    let mut task = assigned(Running);
    task.adopt(Found::Made, None, now(0));
    check(task, &starts);
    // Without its assignment nothing is known of it but that it is there.
    let waits = || check(found(Found::Made), &[(0, Wait, "accepted -"), (1, Want(Running), "accepted -")]);
    assert_eq!(waits().wake_at(), None);
    let mut task = waits();
    task.want(Running, Some(Rc::new(work(Duration::from_secs(2)))), Mono::default());
    check(task, &starts);
    let mut task = found(Found::Made);
    task.want(Ready, Some(Rc::new(work(Duration::from_secs(2)))), Mono::default());
    check(task, &[(1, Wait, "preparing prepare"), (2, Ok, "ready -"), (3, Want(Running), "starting start")]);
    // It is not to start yet, or not any more, or nobody knows it.
    let mut task = assigned(Ready);
    task.adopt(Found::Made, None, now(0));
    check(task, &[(1, Wait, "preparing prepare"), (2, Ok, "ready -")]);
    check(waits(), &[(2, Want(Shutdown), "shutdown -"), (3, Unwant, "shutdown delete"), (4, Ok, "shutdown - gone")]);
    check(waits(), &[(2, Unwant, "shutdown delete"), (3, Ok, "shutdown - gone")]);
}

#[test]
fn after_the_board_was_restarted() {
    let task = check(
        found(Found::Lost),
        &[(0, Wait, "failed -"), (1, Want(Running), "failed -"), (2, Unwant, "failed delete")],
    );
    assert!(task.report().err.as_deref().is_some_and(|e| e.contains("restarted")));
    let mut task = assigned(Running);
    task.adopt(Found::Lost, None, now(0));
    check(task, &[(0, Wait, "failed -")]);
}

#[test]
fn the_board_wakes_up_when_something_is_due() {
    let wake = |task: &Task| task.wake_at().map(|at| at.since(Mono::default()).as_millis());
    let task = check_running(&[]);
    assert_eq!(wake(&task), None);
    let task = check(task, &[(3, Want(Shutdown), "running stop")]);
    assert_eq!(wake(&task), None, "an operation is in flight");
    let task = check(task, &[(4, Ok, "running -")]);
    assert_eq!(wake(&task), Some(2004));
    let task = check(task, &[(2500, Wait, "running kill"), (2600, Again, "running -")]);
    assert_eq!(wake(&task), Some(3600));
    let task = check(assigned(Running), &[(0, Wait, "preparing prepare"), (1, Again, "preparing -")]);
    assert_eq!(wake(&task), Some(1001));
    let task = check(assigned(Running), &[(0, Wait, "preparing prepare"), (1, Want(Shutdown), "preparing cancel")]);
    assert_eq!(wake(&task), None, "the pull is being given up");
    let mut task = task;
    task.done(Done::Cancelled, now(2));
    assert_eq!(wake(&task), Some(0), "what the cancelled pull leaves is dealt with at once");
}

/// A task with a health check that has been started.
const CHECKED: [(u64, Step, &str); 3] =
    [(0, Wait, "preparing prepare"), (1, Checked, "starting start"), (2, Ok, "starting -")];

#[track_caller]
fn check_checked(steps: &[(u64, Step, &str)]) -> Task {
    check(check(assigned(Running), &CHECKED), steps)
}

#[test]
fn it_runs_once_it_is_healthy() {
    let passes = [(1001, Wait, "starting -"), (1002, Wait, "starting probe"), (1100, Ok, "running -")];
    let task = check_checked(&passes);
    assert_eq!((&*task.report().message, task.report().container.as_ref().map(|c| c.pid)), ("started", Some(7)));
    // One failure is forgiven, and never told: it still runs.
    let mut task =
        check(task, &[(2100, Wait, "running probe"), (2101, Failed, "running -"), (3101, Wait, "running probe")]);
    task.take_report().expect("that it runs");
    let mut task = check(task, &[(3102, Ok, "running -")]);
    assert_eq!(task.take_report(), None, "nothing is new");
    // It ends by itself meanwhile.
    check(task, &[(4102, Wait, "running probe"), (4103, Exit(0), "complete cancel"), (4104, Cancelled, "complete -")]);
    let task = check_checked(&[(500, Exit(3), "failed -")]);
    assert_eq!((&*task.report().message, task.report().err.as_deref()), ("starting", Some("task: non-zero exit (3)")));
}

#[test]
fn what_is_unhealthy_fails() {
    let failing = [
        (1002, Wait, "starting probe"),
        (1100, Failed, "starting -"),
        (2100, Wait, "starting probe"),
        (2200, Failed, "starting stop"),
    ];
    let stopping = || check(check_checked(&failing), &[(2201, Ok, "starting -")]);
    let task = check(stopping(), &[(2300, Exit(143), "failed -"), (2301, Unwant, "failed delete")]);
    assert_eq!(task.report().err.as_deref(), Some("task: non-zero exit (143): unhealthy container: no"));
    assert_eq!(task.report().message, "starting");
    // Whatever it exits with, and even if it is to stop anyway by then.
    let task = check(stopping(), &[(2300, Exit(0), "failed -")]);
    assert_eq!(task.report().err.as_deref(), Some("task: unhealthy container: no"));
    check(stopping(), &[(2300, Want(Shutdown), "starting -"), (2301, Exit(143), "failed -")]);
    check(stopping(), &[(2300, Vanish, "failed -")]);
    // It is not checked while it stops; its deadline kills it.
    check(stopping(), &[(4200, Wait, "starting -"), (4201, Wait, "starting kill"), (4202, Ok, "starting -")]);
    // The signal did not get through.
    check(check_checked(&failing), &[(2201, Again, "starting -"), (3201, Wait, "starting stop")]);
    let was_running = [(1002, Wait, "starting probe"), (1003, Ok, "running -"), (2003, Wait, "running probe")];
    let steps = [(2004, Failed, "running -"), (3004, Wait, "running probe"), (3005, Failed, "running stop")];
    let task = check(check(check_checked(&was_running), &steps), &[(3006, Exit(137), "failed -")]);
    assert_eq!(task.report().message, "started");
}

#[test]
fn a_check_holds_nothing_up() {
    let hangs = || check_checked(&[(1002, Wait, "starting probe"), (9000, Wait, "starting -")]);
    check(hangs(), &[(9001, Want(Shutdown), "starting cancel"), (9001, Cancelled, "starting stop")]);
    check(hangs(), &[(9001, Unwant, "starting cancel"), (9001, Cancelled, "starting stop")]);
    check(
        hangs(),
        &[(9001, Exit(1), "failed cancel"), (9002, Unwant, "failed cancel"), (9003, Cancelled, "failed delete")],
    );
    // Its answer was under way already.
    check(hangs(), &[(9001, Exit(1), "failed cancel"), (9002, Failed, "failed -")]);
    check(hangs(), &[(9001, Want(Shutdown), "starting cancel"), (9002, Ok, "running stop")]);
}

#[test]
fn without_containerd_nothing_is_held_against_it() {
    let away = [
        (1002, Wait, "starting probe"),
        (1003, Again, "starting -"),
        (2002, Wait, "starting -"),
        (2003, Wait, "starting probe"),
        (2004, Again, "starting -"),
        (3004, Wait, "starting probe"),
        (3005, Failed, "starting -"),
        (4005, Wait, "starting probe"),
        (4006, Ok, "running -"),
    ];
    let task = check_checked(&away);
    assert_eq!(task.report().err, None);
}

#[test]
fn a_restarted_agent_checks_on() {
    let found_with = |was_healthy| {
        let health = Some(Watch { check: CHECK, was_healthy });
        found(Found::Running { pid: 9, health, lease: None })
    };
    // What ran does not go back, and is checked anew.
    let steps =
        [(0, Wait, "running -"), (999, Wait, "running -"), (1000, Wait, "running probe"), (1001, Failed, "running -")];
    check(check(found_with(true), &steps), &[(2001, Wait, "running probe"), (2002, Failed, "running stop")]);
    check(found_with(false), &[(0, Wait, "starting -"), (1000, Wait, "starting probe"), (1001, Ok, "running -")]);
    let mut task = assigned(Running);
    task.adopt(
        Found::Running { pid: 9, health: Some(Watch { check: CHECK, was_healthy: false }), lease: None },
        None,
        now(0),
    );
    check(task, &[(1000, Wait, "starting probe")]);
}

#[test]
fn the_board_wakes_up_for_a_check() {
    let wake = |task: &Task| task.wake_at().map(|at| at.since(Mono::default()).as_millis());
    let task = check_checked(&[]);
    assert_eq!(wake(&task), Some(1002));
    let task = check(task, &[(1002, Wait, "starting probe")]);
    assert_eq!(wake(&task), None, "its end wakes");
    let task = check(task, &[(1005, Again, "starting -")]);
    assert_eq!(wake(&task), Some(2005));
}

#[test]
fn a_task_that_is_not_healthy_leaves_the_balance_before_it_is_stopped() {
    let net = racimo_common::wire::TaskNet { balanced: true, ..Default::default() };
    let work = Work { net: Some(net), ..work(Duration::from_secs(600)) };
    let task = Task::assigned(TaskId::from_bits(1), Desired::Running, Rc::new(work), now(0));
    let healthy = [(1002, Wait, "starting probe"), (1003, Ok, "running -")];
    let mut task = check(check(task, &CHECKED), &healthy);
    let once = [(2003, Wait, "running probe"), (2004, Failed, "running -"), (3004, Wait, "running probe")];
    task = check(task, &once);
    assert!(task.take_report().is_some_and(|report| !report.unhealthy));
    // The manager hears it at once, long before the task ends.
    task = check(task, &[(3005, Failed, "running -")]);
    assert!(task.take_report().is_some_and(|report| report.unhealthy && report.state == TaskState::Running));
    let told = 3005 + u64::try_from(limits::LEAVE_BALANCE.as_millis()).unwrap();
    let task = check(task, &[(told - 1, Wait, "running -"), (told, Wait, "running stop"), (told + 1, Ok, "running -")]);
    assert_eq!(task.wake_at(), Some(now(told + 1 + 600_000).mono));
    let task = check(task, &[(told + 2, Exit(143), "failed -")]);
    assert_eq!(task.report().err.as_deref(), Some("task: non-zero exit (143): unhealthy container: no"));
}

#[test]
fn a_task_leaves_the_balance_before_it_is_told_to_stop() {
    let running = |balanced| {
        let net = racimo_common::wire::TaskNet { balanced, ..Default::default() };
        let work = Work { net: Some(net), ..work(Duration::from_secs(3)) };
        let mut task = Task::assigned(TaskId::from_bits(1), Desired::Running, Rc::new(work), now(0));
        assert_eq!(task.next(now(0)), Some(Op::Prepare));
        task.done(Done::Ok(None), now(1));
        assert_eq!(task.next(now(1)), Some(Op::Start));
        task.done(Done::Ok(Some(7)), now(2));
        task.want(Desired::Shutdown, None, Mono::default());
        task
    };
    let told = 10 + u64::try_from(limits::LEAVE_BALANCE.as_millis()).unwrap();
    let mut task = running(true);
    assert_eq!(task.next(now(10)), None);
    assert_eq!(task.wake_at(), Some(now(told).mono));
    assert_eq!(task.next(now(told - 1)), None);
    assert_eq!(task.next(now(told)), Some(Op::Signal(None)));
    // A signal that did not get through is sent again at once: it has left.
    task.done(Done::Again("containerd is away".into()), now(told));
    let retry = told + u64::try_from(limits::RETRY_AFTER.as_millis()).unwrap();
    assert_eq!(task.next(now(retry)), Some(Op::Signal(None)));
    // Its grace counts from when it has the signal, however long that takes.
    task.done(Done::Ok(None), now(retry + 5000));
    assert_eq!(task.next(now(retry + 5000)), None);
    assert_eq!(task.wake_at(), Some(now(retry + 8000).mono));
    assert_eq!(task.next(now(retry + 8000)), Some(Op::Signal(Some(racimo_common::signal::SIGKILL))));

    let mut task = running(true);
    assert_eq!(task.next(now(10)), None);
    task.exited(0, false, now(11).wall);
    assert_eq!((task.report().state, task.next(now(told))), (TaskState::Shutdown, None));

    assert_eq!(running(false).next(now(10)), Some(Op::Signal(None)));
    // Nobody's balance has one that the manager has forgotten.
    let mut task = running(true);
    task.unwant();
    assert_eq!(task.next(now(10)), Some(Op::Signal(None)));
}
