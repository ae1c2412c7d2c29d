//! Health checks on a real containerd: what they see, how they end, and that nothing of them is left.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::time::{Duration, Instant};

use racimo_agent::health::Watch;
use racimo_agent::runtime::{Job, Phase, Probed, Runtime};
use racimo_common::id::{IdSource, TaskId};
use racimo_common::object::{ContainerSpec, HealthConfig, LogConfig, Resources};
use racimo_common::wire::Work;
use support::{Board, on_a_board, until};

/// Another one for each test: all share the machine's cgroups.
fn task() -> TaskId {
    IdSource::seeded(fastrand::u64(..)).draw()
}

fn work(test: &[&str], timeout: Duration) -> Work {
    let health = HealthConfig {
        test: test.iter().map(|&word| word.to_owned()).collect(),
        timeout: Some(timeout),
        ..HealthConfig::default()
    };
    Work {
        net: None,
        service: IdSource::seeded(99).draw(),
        service_name: "web".into(),
        slot_name: "web.1".into(),
        container: ContainerSpec {
            image: support::IMAGE.into(),
            health: Some(health),
            user: Some("www".into()),
            env: vec!["COLOUR=red".into()],
            dir: Some("/srv/owned".into()),
            ..ContainerSpec::default()
        },
        resources: Resources::default(),
        log: LogConfig::default(),
        files: Vec::new(),
        credentials: None,
        fault: None,
        offline: racimo_common::wire::Offline::default(),
    }
}

/// A running container with a health check.
async fn run(runtime: &Runtime, board: &Board, test: &[&str], timeout: Duration) -> (TaskId, u32) {
    let task = task();
    let node = IdSource::seeded(77).draw();
    let work = work(test, timeout);
    let job = Job { task, work: &work, image: &board.image, node, hostname: "berry" };
    let check = runtime.create(&job).await.unwrap_or_else(|error| panic!("create: {}", error.reason()));
    assert_eq!(check.map(|check| check.timeout), Some(timeout));
    (task, runtime.start(task).await.unwrap_or_else(|error| panic!("start: {}", error.reason())))
}

async fn probe(runtime: &Runtime, task: TaskId) -> Probed {
    runtime.probe(task).await.unwrap_or_else(|error| panic!("probe: {}", error.reason()))
}

/// How many processes run in the container's pid namespace. Its first one, `sleep`, takes no notice of the others'
/// ends, so that the dead stay in the list.
fn processes(pid: u32) -> usize {
    let own = fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
    let runs = |entry: &fs::DirEntry| {
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let inside = fs::read_link(entry.path().join("ns/pid")).is_ok_and(|other| other == own);
        inside && !status.contains("State:\tZ")
    };
    fs::read_dir("/proc").unwrap().flatten().filter(runs).count()
}

const LONG: Duration = Duration::from_secs(30);

#[test]
fn a_check_runs_as_the_containers_own_process() {
    on_a_board(async |board, executor| {
        let runtime = board.runtime(executor);
        // In its namespaces, with its user, environment, directory and no more capabilities.
        let script = r#"[ "$COLOUR $PWD $(id -u):$(id -g) $(cat /proc/1/comm)" = "red /srv/owned 33:34 sleep" ] || exit 1
            grep() { while read -r name value; do [ "$name" != "$1" ] || echo "$value"; done; }
            [ "$(grep CapEff: < /proc/self/status)" = "$(grep CapEff: < /proc/1/status)" ] || exit 2
            [ "$(cat /proc/self/cgroup)" = "$(cat /proc/1/cgroup)" ] || exit 3
            [ -e /tmp/well ] || { echo not well; exit 4; }"#;
        let (task, pid) = run(&runtime, board, &["CMD-SHELL", script], LONG).await;
        let health = async || runtime.list().await.unwrap()[0].health;
        let not_yet = health().await.unwrap();
        assert!(!not_yet.was_healthy);
        let failed = Probed::Failed("health check exited with 4".to_owned());
        assert_eq!(probe(&runtime, task).await, failed);
        assert_eq!(health().await, Some(not_yet));
        fs::write(format!("/proc/{pid}/root/tmp/well"), "").unwrap();
        assert_eq!(probe(&runtime, task).await, Probed::Passed);
        // An agent that starts now knows that it was healthy, and how to check it.
        let after = board.runtime(executor);
        assert_eq!(after.sweep().await.unwrap(), 0);
        assert_eq!(after.list().await.unwrap()[0].health, Some(Watch { was_healthy: true, ..not_yet }));
        assert_eq!(probe(&after, task).await, Probed::Passed);
        assert_eq!(processes(pid), 1);
        assert_eq!(runtime.inspect(task).await.unwrap(), Some(Phase::Running { pid }));
        after.delete(task).await.unwrap();
    });
}

#[test]
fn a_check_that_hangs_is_killed_with_what_it_started() {
    on_a_board(async |board, executor| {
        let runtime = board.runtime(executor);
        let timeout = Duration::from_millis(700);
        let script = "echo going; sleep 1000 & sleep 1000; true";
        let (hangs, pid) = run(&runtime, board, &["CMD-SHELL", script], timeout).await;
        let (other, _) = run(&runtime, board, &["CMD", "true"], LONG).await;
        for _ in 0..2 {
            let began = Instant::now();
            let both = async {
                assert_eq!(probe(&runtime, other).await, Probed::Passed);
                began.elapsed()
            };
            let (one, two) = futures_lite::future::zip(probe(&runtime, hangs), both).await;
            assert_eq!(one, Probed::Failed("health check exceeded timeout (700ms)".to_owned()));
            assert!(began.elapsed() >= timeout && two < began.elapsed(), "the other one waited {two:?}");
            // The kernel may need a moment for the killed.
            until("the killed to be gone", async || match processes(pid) {
                1 => Ok(()),
                count => Err(format!("{count} processes")),
            })
            .await;
        }
        for task in [hangs, other] {
            runtime.delete(task).await.unwrap();
        }
    });
}

#[test]
fn what_a_check_says_is_read_and_dropped() {
    on_a_board(async |board, executor| {
        let runtime = board.runtime(executor);
        // More than a pipe holds, then an end with 0.
        let much = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done";
        let (task, _) = run(&runtime, board, &["CMD-SHELL", much], LONG).await;
        assert_eq!(probe(&runtime, task).await, Probed::Passed);
        runtime.delete(task).await.unwrap();
        let endless = "while :; do echo it never ends; done";
        let (task, _) = run(&runtime, board, &["CMD-SHELL", endless], Duration::from_secs(1)).await;
        let Probed::Failed(why) = probe(&runtime, task).await else { panic!("it ended") };
        assert_eq!(why, "health check exceeded timeout (1s)");
        runtime.delete(task).await.unwrap();
        // One that leaves a process behind which holds its output open.
        let leaves = "sleep 1000 & echo left; exit 3";
        let (task, _) = run(&runtime, board, &["CMD-SHELL", leaves], LONG).await;
        for _ in 0..2 {
            let failed = Probed::Failed("health check exited with 3".to_owned());
            assert_eq!(probe(&runtime, task).await, failed);
        }
        runtime.delete(task).await.unwrap();
    });
}

#[test]
fn a_check_that_cannot_run_has_failed() {
    on_a_board(async |board, executor| {
        let runtime = board.runtime(executor);
        let (task, pid) = run(&runtime, board, &["CMD", "/no/such/program"], LONG).await;
        for _ in 0..2 {
            let Probed::Failed(why) = probe(&runtime, task).await else { panic!("it ran") };
            assert!(why.contains("no such file"), "{why}");
        }
        assert_eq!(processes(pid), 1);
        runtime.kill(task, 9).await.unwrap();
        until("its end", async || match runtime.inspect(task).await.unwrap() {
            Some(Phase::Ended { .. }) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        assert!(matches!(probe(&runtime, task).await, Probed::Failed(_)));
        runtime.delete(task).await.unwrap();
        let error = runtime.probe(task).await.unwrap_err();
        assert!(!error.is_lost(), "{}", error.reason());
    });
}

/// Waits until the check that hangs once does.
async fn hangs(pid: u32) {
    until("the check to hang", async || {
        let once = fs::exists(format!("/proc/{pid}/root/tmp/once")).unwrap();
        if once { Ok(()) } else { Err("it has not begun".to_owned()) }
    })
    .await;
}

#[test]
fn what_an_agent_left_of_a_check_is_ended() {
    on_a_board(async |board, executor| {
        // The first check hangs, the others do not.
        let script = "[ -e /tmp/once ] && exit 0; touch /tmp/once; sleep 1000; true";
        let (task, pid) = {
            let before = board.runtime(executor);
            let (task, pid) = run(&before, board, &["CMD-SHELL", script], LONG).await;
            let under_way = hangs(pid);
            let dies = async {
                probe(&before, task).await;
            };
            smol::future::or(dies, under_way).await;
            (task, pid)
        };
        assert!(processes(pid) > 1, "the check goes on without the agent");
        let after = board.runtime(executor);
        assert_eq!(probe(&after, task).await, Probed::Passed);
        // containerd goes in the middle of one, and comes again: nothing is held against the container.
        fs::remove_file(format!("/proc/{pid}/root/tmp/once")).unwrap();
        let mut checks = Box::pin(after.probe(task));
        let over = smol::future::or(
            async {
                hangs(pid).await;
                None
            },
            async { Some((&mut checks).await) },
        );
        assert!(over.await.is_none(), "it does not hang");
        board.kill_containerd();
        let error = checks.await.unwrap_err();
        assert!(error.is_lost(), "{}", error.reason());
        board.start_containerd();
        let probed = until("containerd", async || match after.probe(task).await {
            Ok(probed) => Ok(probed),
            Err(error) => Err(error.reason()),
        });
        assert_eq!(probed.await, Probed::Passed);
        assert_eq!(after.inspect(task).await.unwrap(), Some(Phase::Running { pid }));
        after.delete(task).await.unwrap();
    });
}
