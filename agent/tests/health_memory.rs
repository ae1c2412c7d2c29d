//! What health checks cost an agent's heap: at rest, and when every one of them hangs at once.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::rc::Rc;
use std::time::Duration;

use racimo_agent::alloc;
use racimo_agent::runtime::{Job, Probed, Runtime};
use racimo_common::id::{IdSource, TaskId};
use racimo_common::object::{ContainerSpec, HealthConfig, LogConfig, Resources};
use racimo_common::wire::Work;
use support::{Board, on_a_board};

#[global_allocator]
static HEAP: alloc::Counting = alloc::Counting;

const TASKS: usize = 25;
/// What `limits::PROBES_MAX` says of one that is under way, and some for this machine's wider words.
const EACH_MAX: usize = 20 << 10;

async fn run(runtime: &Runtime, board: &Board, task: TaskId, script: &str) {
    let health = HealthConfig {
        test: vec!["CMD-SHELL".into(), script.into()],
        timeout: Some(Duration::from_secs(5)),
        ..HealthConfig::default()
    };
    let work = Work {
        net: None,
        service: IdSource::seeded(99).draw(),
        service_name: "web".into(),
        slot_name: "web.1".into(),
        container: ContainerSpec { image: support::IMAGE.into(), health: Some(health), ..ContainerSpec::default() },
        resources: Resources::default(),
        log: LogConfig::default(),
        files: Vec::new(),
        credentials: None,
        fault: None,
        offline: racimo_common::wire::Offline::default(),
    };
    let node = IdSource::seeded(77).draw();
    runtime.create(&Job { task, work: &work, image: &board.image, node, hostname: "berry" }).await.unwrap();
    runtime.start(task).await.unwrap();
}

/// Checks all at once; the most heap that took.
async fn peak(runtime: &Runtime, tasks: &[TaskId], passes: bool) -> usize {
    let before = alloc::used();
    // The peak is of the process's life: what was freed before must not hide it.
    let executor = Rc::new(smol::LocalExecutor::new());
    let checks: Vec<_> = tasks
        .iter()
        .map(|&task| {
            let runtime = runtime.clone();
            executor.spawn(async move { runtime.probe(task).await.unwrap() })
        })
        .collect();
    let mut most = 0;
    let watch = async {
        loop {
            most = most.max(alloc::used().saturating_sub(before));
            smol::Timer::after(Duration::from_millis(1)).await;
        }
    };
    let all = async {
        for check in checks {
            let probed = check.await;
            assert_eq!(matches!(probed, Probed::Passed), passes, "{probed:?}");
        }
    };
    smol::future::or(executor.run(all), watch).await;
    most
}

#[test]
fn checks_take_little_heap() {
    on_a_board(async |board, executor| {
        let runtime = board.runtime(executor);
        let mut ids = IdSource::seeded(fastrand::u64(..));
        for (script, passes) in [("true", true), ("while :; do echo $$; sleep 1; done", false)] {
            let tasks: Vec<TaskId> = (0..TASKS).map(|_| ids.draw()).collect();
            for task in &tasks {
                run(&runtime, board, *task, script).await;
            }
            // The first ones open the connection and fill its tables.
            peak(&runtime, &tasks[..1], passes).await;
            let rest = alloc::used();
            let most = peak(&runtime, &tasks, passes).await;
            let left = alloc::used().saturating_sub(rest);
            eprintln!("{script:?}: {} KiB at most for {TASKS} checks, {} KiB afterwards", most >> 10, left >> 10);
            assert!(most < TASKS * EACH_MAX, "{most} bytes");
            assert!(left < 32 << 10, "{left} bytes stay");
            for task in tasks {
                runtime.delete(task).await.unwrap();
            }
        }
    });
}
