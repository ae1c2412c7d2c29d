//! Descriptions of tasks that are larger than the heap an agent has.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use racimo_agent::board::Board;
use racimo_agent::{alloc, limits, weight};
use racimo_common::id::{IdSource, TaskId};
use racimo_common::object::{ContainerSpec, Desired, LogConfig, Resources, TaskState};
use racimo_common::registry::Credentials;
use racimo_common::time::Now;
use racimo_common::wire::{Assign, Assignment, ToAgent, Work, frame};

#[global_allocator]
static HEAP: alloc::Counting = alloc::Counting;

/// What the rest of an agent does not need.
const BUDGET: usize = limits::HEAP_MAX * 3 / 4;

fn work(env: Vec<String>) -> Work {
    let mut ids = IdSource::seeded(1);
    Work {
        net: None,
        service: ids.draw(),
        service_name: "web".into(),
        slot_name: "web.1".into(),
        container: ContainerSpec { env, stop_grace: Some(Duration::from_secs(1)), ..ContainerSpec::default() },
        resources: Resources::default(),
        log: LogConfig::default(),
        files: Vec::new(),
        credentials: None,
        fault: None,
        offline: racimo_common::wire::Offline::default(),
    }
}

/// One test, because the heap is the process's.
#[test]
fn descriptions_are_weighed_and_held_within_the_heap() {
    for (count, length) in [(1, 50_000), (40, 30), (5000, 3), (0, 0)] {
        let env: Vec<String> = (0..count).map(|_| "x".repeat(length)).collect();
        let bytes = encode(&Assign { tasks: vec![assignment(1, work(env))], ..Assign::default() });
        let before = alloc::used();
        let set = decode(&bytes);
        let (takes, says) = (alloc::used() - before, weight::of(set.tasks[0].work.as_deref().unwrap()));
        assert!(takes <= says + 1024 && says < 3 * takes + 4096, "{count} x {length}: takes {takes}, {says}");
    }

    let secret = || "x".repeat(16_000);
    let password = Credentials::Password { username: secret(), password: secret() };
    for login in [password, Credentials::IdentityToken(secret())] {
        let plain = work(Vec::new());
        let bytes = weight::of(&Work { credentials: Some(login), ..plain.clone() }) - weight::of(&plain);
        assert!(bytes >= 16_000, "{bytes}");
    }

    // Beyond it the test aborts, as an agent would.
    let env =
        |number: usize| -> Vec<String> { (0..60).map(|at| format!("V{number}_{at}={}", "x".repeat(1000))).collect() };
    let count = limits::TASKS_MAX;
    let parts: Vec<Vec<u8>> = (0..count)
        .map(|number| {
            let tasks = vec![assignment(number, work(env(number)))];
            encode(&Assign { complete: true, to: 7, last: number + 1 == count, tasks, ..Assign::default() })
        })
        .collect();
    let mut board = Board::new(count);
    board.adopt(&[], Now::default());
    alloc::set_limit(alloc::used() + BUDGET);
    for session in 0..3 {
        board.session();
        for part in &parts {
            board.assign(decode(part), Now::default()).unwrap();
        }
        let reports = board.full_report();
        let rejected = reports.iter().filter(|report| report.state == TaskState::Rejected).count();
        let held = board.tasks().count();
        assert_eq!((held + rejected, reports.len()), (count, count), "session {session}");
        assert!(held > 10 && rejected > 80, "{held} held, {rejected} rejected");
    }
    alloc::set_limit(usize::MAX);
}

fn assignment(number: usize, work: Work) -> Assignment {
    let task: TaskId = IdSource::seeded(1000 + number as u64).draw();
    Assignment { task, desired: Desired::Running, work: Some(Box::new(work)) }
}

fn encode(set: &Assign) -> Vec<u8> {
    frame::encode(&ToAgent::Assign(set.clone()), racimo_common::limits::FRAME_TO_AGENT_MAX).unwrap()
}

fn decode(bytes: &[u8]) -> Assign {
    let ToAgent::Assign(set) = frame::decode(bytes).unwrap() else { panic!("not what was encoded") };
    set
}
