//! The runtime on a real containerd: the life of containers, limits, restarts, and that nothing
//! is left behind.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{fs, path::Path, time::Duration};

use async_channel::Receiver;
use racimo_agent::runtime::{
    Config, Event, Exited, Job, Phase, Runtime, RuntimeError,
    ctrd::{Ctrd, Executor},
    events,
    kernel::OOM_SCORE_ADJ_DEFAULT,
};
use racimo_common::{
    id::{IdSource, TaskId},
    object::{
        ContainerSpec, ISOLATE_SHIM_LABEL, Limits, LogConfig, Mount, MountKind, NetworkMode, Resources, TmpfsOptions,
        VolumeOptions,
    },
    units::{Bytes, NanoCpus},
    wire::Work,
};
use support::{Board, on_a_board, until};

const SIGTERM: u32 = 15;

/// A task's id, the same for the same number on this thread, and no other test's: all share the
/// machine's cgroups.
fn task(number: u64) -> TaskId {
    thread_local!(static SEED: u64 = fastrand::u64(..));
    IdSource::seeded(SEED.with(|seed| seed.wrapping_add(number))).draw()
}

fn work(script: &str) -> Work {
    let command = if script.is_empty() { vec![] } else { vec!["sh".into(), "-c".into(), script.into()] };
    Work {
        net: None,
        service: IdSource::seeded(99).draw(),
        service_name: "web".into(),
        slot_name: "web.1".into(),
        container: ContainerSpec { image: support::IMAGE.into(), command, ..ContainerSpec::default() },
        resources: Resources::default(),
        log: LogConfig::default(),
        files: Vec::new(),
        credentials: None,
        fault: None,
        offline: racimo_common::wire::Offline::default(),
    }
}

async fn create(runtime: &Runtime, board: &Board, task: TaskId, work: &Work) -> Result<(), RuntimeError> {
    let node = IdSource::seeded(77).draw();
    runtime.create(&Job { task, work, image: &board.image, node, hostname: "berry" }).await.map(drop)
}

async fn run(runtime: &Runtime, board: &Board, task: TaskId, work: &Work) -> u32 {
    create(runtime, board, task, work).await.unwrap_or_else(|error| panic!("create: {}", error.reason()));
    runtime.start(task).await.unwrap_or_else(|error| panic!("start: {}", error.reason()))
}

fn watch(runtime: &Runtime, executor: &Executor) -> Receiver<Event> {
    let (sender, receiver) = async_channel::bounded(4);
    executor.0.spawn(events::watch(runtime.clone(), sender)).detach(); // ends with the receiver
    receiver
}

async fn next(events: &Receiver<Event>) -> Event {
    let late = async {
        smol::Timer::after(support::DEADLINE).await;
        panic!("no event came")
    };
    smol::future::or(async { events.recv().await.unwrap() }, late).await
}

async fn exited(events: &Receiver<Event>) -> Exited {
    match next(events).await {
        Event::Exited(exited) => exited,
        other @ (Event::Connected | Event::Lost { .. }) => panic!("not an end: {other:?}"),
    }
}

#[test]
fn a_containers_life() {
    on_a_board(async |board, executor| {
        let runtime = board.runtime(executor);
        assert!(!runtime.connect().await.unwrap().version().await.unwrap().is_empty());
        let events = watch(&runtime, executor);
        assert_eq!(next(&events).await, Event::Connected);
        let (one, work) = (task(1), work("trap 'exit 3' TERM; while :; do sleep 0.1; done"));
        assert_eq!(runtime.inspect(one).await.unwrap(), None);
        for _ in 0..2 {
            create(&runtime, board, one, &work).await.unwrap();
            assert_eq!(runtime.inspect(one).await.unwrap(), Some(Phase::Made));
        }
        let pid = runtime.start(one).await.unwrap();
        assert_eq!(runtime.start(one).await.unwrap(), pid);
        assert!(Path::new(&format!("/proc/{pid}")).exists());
        let found = runtime.list().await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].task, found[0].phase), (one, Phase::Running { pid }));
        assert_eq!(found[0].kept.as_ref().unwrap().stop_signal, SIGTERM);

        // The shell needs a moment to set its trap.
        until("the trap", async || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let caught = status.lines().find(|line| line.starts_with("SigCgt:")).unwrap().to_owned();
            // Bit 14 of the mask is signal 15.
            let mask = u64::from_str_radix(caught.trim_start_matches("SigCgt:").trim(), 16).unwrap();
            if mask & (1 << 14) != 0 { Ok(()) } else { Err(caught) }
        })
        .await;
        runtime.kill(one, SIGTERM).await.unwrap();
        let end = exited(&events).await;
        assert_eq!((end.task, end.status, end.oom), (one, 3, false));
        assert_eq!(runtime.inspect(one).await.unwrap(), Some(Phase::Ended { status: 3, at: end.at, oom: false }));
        assert!(matches!(runtime.start(one).await, Err(RuntimeError::Ended { .. })));
        runtime.kill(one, SIGTERM).await.unwrap();
        for _ in 0..2 {
            runtime.delete(one).await.unwrap();
            assert_eq!(runtime.inspect(one).await.unwrap(), None);
        }
        assert!(runtime.list().await.unwrap().is_empty());
    });
}

#[test]
fn limits_hold() {
    on_a_board(async |board, executor| {
        let runtime = board.runtime(executor);
        let events = watch(&runtime, executor);
        assert_eq!(next(&events).await, Event::Connected);
        let mut limited = work("sleep 1000");
        limited.resources.limits =
            Limits { cpu: Some(NanoCpus::new(500_000_000)), memory: Some(Bytes::mib(16)), pids: Some(20) };
        let one = task(1);
        run(&runtime, board, one, &limited).await;
        let value = |v1: &str, v2: &str| {
            let (controller, file) = v1.split_once('/').unwrap();
            let v1 = format!("/sys/fs/cgroup/{controller}/racimo/{one}/{file}");
            let v2 = format!("/sys/fs/cgroup/racimo/{one}/{v2}");
            fs::read_to_string(v1).or_else(|_| fs::read_to_string(v2)).unwrap().trim().to_owned()
        };
        assert_eq!(value("memory/memory.limit_in_bytes", "memory.max"), "16777216");
        assert_eq!(value("pids/pids.max", "pids.max"), "20");
        let quota = value("cpu/cpu.cfs_quota_us", "cpu.max");
        assert!(["50000", "50000 100000"].contains(&quota.as_str()), "{quota}");
        runtime.delete(one).await.unwrap();
        assert_eq!(exited(&events).await.status, 137);

        let two = task(2);
        let mut greedy = limited.clone();
        greedy.container.command[2] = "exec dd if=/dev/zero of=/dev/shm/x bs=1M count=60".into();
        run(&runtime, board, two, &greedy).await;
        let end = exited(&events).await;
        assert_eq!((end.task, end.status, end.oom), (two, 137, true));
        runtime.delete(two).await.unwrap();
    });
}

#[test]
fn what_a_container_sees() {
    on_a_board(async |board, executor| {
        let runtime = board.runtime(executor);
        let events = watch(&runtime, executor);
        assert_eq!(next(&events).await, Event::Connected);
        let mount = |target: &str, kind| Mount { target: target.into(), read_only: false, kind };
        let volume = MountKind::Volume { source: Some("out".into()), options: VolumeOptions::default() };
        let memory = MountKind::Tmpfs { options: TmpfsOptions { size: Some(Bytes::mib(1)), mode: None } };
        let mut seen = work(
            "{ cat seed; id; hostname; cat /etc/hostname /etc/hosts; env; pwd; cat /proc/net/dev; } > out 2>&1; touch /tmp/x || exit 9",
        );
        seen.container.mounts = vec![mount("/srv/owned", volume), mount("/tmp", memory)];
        seen.container.user = Some("www".into());
        seen.container.dir = Some("/srv/owned".into());
        seen.container.env = vec!["COLOUR=red".into()];
        seen.container.hostname = Some("grape".into());
        run(&runtime, board, task(1), &seen).await;
        let end = exited(&events).await;
        let out = fs::read_to_string(board.path("data/volumes/out/_data/out")).unwrap();
        assert_eq!(end.status, 0, "{out}");
        for part in [
            "from the image",
            "uid=33(www) gid=34(www) groups=34(www),44(video)",
            "grape\ngrape\n127.0.0.1\tlocalhost",
            "COLOUR=red",
            "HOSTNAME=grape",
            "/srv/owned",
            "lo:",
        ] {
            assert!(out.contains(part), "{part:?} is not in:\n{out}");
        }
        assert!(!out.contains("eth0:"), "{out}");
        runtime.delete(task(1)).await.unwrap();
        // A named volume outlives its tasks; the next one sees what the first wrote.
        seen.container.command[2] = "cat out > again".into();
        seen.container.network = NetworkMode::Host;
        run(&runtime, board, task(2), &seen).await;
        assert_eq!(exited(&events).await.status, 0);
        assert_eq!(fs::read_to_string(board.path("data/volumes/out/_data/again")).unwrap(), out);
        runtime.delete(task(2)).await.unwrap();
    });
}

#[test]
fn refusals_say_why_and_leave_nothing() {
    on_a_board(async |board, executor| {
        let runtime = board.runtime(executor);
        let refused = async |change: &dyn Fn(&mut Work), want: &str| {
            let mut bad = work("true");
            change(&mut bad);
            let one = task(1);
            let result = match create(&runtime, board, one, &bad).await {
                Ok(()) => runtime.start(one).await.map(drop),
                Err(error) => Err(error),
            };
            let reason = result.expect_err(want).reason();
            assert!(reason.contains(want), "{reason}");
            runtime.delete(one).await.unwrap();
        };
        refused(&|bad| bad.container.user = Some("nobody".into()), "unable to find user nobody").await;
        refused(&|bad| bad.container.stop_signal = Some("SIGFOO".into()), "SIGFOO").await;
        refused(&|bad| bad.container.command = vec!["/no/such".into()], "no such file").await;
        let bind = || MountKind::Bind { source: "/no/such".into(), options: Default::default() };
        let mount = |target: &str| Mount { target: target.into(), read_only: false, kind: bind() };
        refused(&|bad| bad.container.mounts = vec![mount("/srv")], "does not exist on this board: /no/such").await;
        refused(&|bad| bad.container.mounts = vec![mount("srv")], "invalid mount target").await;
        let unknown = board.unknown_image();
        let node = IdSource::seeded(77).draw();
        let (one, work) = (task(1), work("true"));
        let job = Job { task: one, work: &work, image: &unknown, node, hostname: "berry" };
        let reason = runtime.create(&job).await.unwrap_err().reason();
        assert!(reason.contains("the image is damaged: sha256:0000"), "{reason}");
        board.check_clean();
    });
}

#[test]
fn a_restarted_agent_finds_its_containers() {
    on_a_board(async |board, executor| {
        let (runs, ended, made) = (task(1), task(2), task(3));
        let pid = {
            let before = board.runtime(executor);
            let pid = run(&before, board, runs, &work("")).await;
            run(&before, board, ended, &work("exit 7")).await;
            create(&before, board, made, &work("")).await.unwrap();
            pid
        };
        let after = board.runtime(executor);
        until("the end", async || match after.inspect(ended).await.unwrap() {
            Some(Phase::Ended { status: 7, .. }) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        let found = after.list().await.unwrap();
        assert_eq!(found.len(), 3);
        for container in found {
            assert!(container.kept.is_some());
            let right = match container.phase {
                Phase::Running { pid: seen } => container.task == runs && seen == pid,
                Phase::Ended { status, .. } => container.task == ended && status == 7,
                Phase::Made => container.task == made,
                Phase::Lost => false,
                Phase::Unknown => false,
            };
            assert!(right, "{container:?}");
        }
        for task in [runs, ended, made] {
            after.delete(task).await.unwrap();
        }
    });
}

#[test]
fn a_container_that_was_never_started_starts_after_all() {
    on_a_board(async |board, executor| {
        let (one, two, three) = (task(1), task(2), task(3));
        for number in [one, two, three] {
            create(&board.runtime(executor), board, number, &work("")).await.unwrap();
        }
        // One runs, one was about to be started when the agent died.
        let mark = |task: TaskId| board.path(&format!("data/tasks/{task}/started"));
        board.ctr(&format!("tasks start -d {two}"));
        fs::write(mark(three), "").unwrap();
        let after = board.runtime(executor);
        let phases: Vec<Phase> = after.list().await.unwrap().into_iter().map(|found| found.phase).collect();
        assert_eq!(phases.iter().filter(|phase| **phase == Phase::Made).count(), 1, "{phases:?}");
        assert_eq!(after.inspect(one).await.unwrap(), Some(Phase::Made));
        assert_eq!(after.inspect(three).await.unwrap(), Some(Phase::Lost));
        // The task is prepared again, and nothing is made twice.
        create(&after, board, one, &work("")).await.unwrap();
        let pid = after.start(one).await.unwrap();
        assert_eq!(after.inspect(one).await.unwrap(), Some(Phase::Running { pid }));
        assert!(Path::new(&mark(one)).exists());
        assert!(matches!(after.start(three).await, Err(RuntimeError::Ended { .. })));
        // Made before the board was started again.
        board.ctr(&format!("containers label {three} io.racimo.boot=another"));
        fs::remove_file(mark(three)).unwrap();
        assert_eq!(after.inspect(three).await.unwrap(), Some(Phase::Lost));
        for task in [one, two, three] {
            after.delete(task).await.unwrap();
        }
    });
}

#[test]
fn a_creation_that_was_cut_off_leaves_nothing() {
    on_a_board(async |board, executor| {
        let work = work("");
        for cut_ms in [1, 2, 3, 4, 5, 6, 8, 10, 14, 20, 40] {
            let one = task(cut_ms);
            let before = board.runtime(executor);
            let whole = async { drop(create(&before, board, one, &work).await) };
            let cut = async {
                smol::Timer::after(Duration::from_millis(cut_ms)).await;
            };
            smol::future::or(whole, cut).await;
        }
        // What was on its way to containerd may still arrive.
        smol::Timer::after(Duration::from_millis(300)).await;
        let after = board.runtime(executor);
        let swept = after.sweep().await.unwrap();
        let whole = after.list().await.unwrap();
        eprintln!("{swept} half made, {} made", whole.len());
        for container in whole {
            after.delete(container.task).await.unwrap();
        }
        assert_eq!(after.sweep().await.unwrap(), 0);
    });
}

#[test]
fn containers_outlive_containerd_and_return_without_their_shim() {
    on_a_board(async |board, executor| {
        let runtime = board.runtime(executor);
        let events = watch(&runtime, executor);
        assert_eq!(next(&events).await, Event::Connected);
        let one = task(1);
        let pid = run(&runtime, board, one, &work("")).await;
        board.kill_containerd();
        assert!(matches!(next(&events).await, Event::Lost { .. }));
        let error = runtime.list().await.unwrap_err();
        assert!(error.is_lost(), "{error}");
        assert!(Path::new(&format!("/proc/{pid}")).exists());
        board.start_containerd();
        assert_eq!(next(&events).await, Event::Connected);
        assert_eq!(runtime.inspect(one).await.unwrap(), Some(Phase::Running { pid }));

        for shim in board.shims() {
            support::command("kill", ["-9", &shim.to_string()]);
        }
        assert_eq!(exited(&events).await.task, one);
        until("the task to vanish", async || match runtime.inspect(one).await.unwrap() {
            Some(Phase::Lost) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        // A task runs once.
        assert!(matches!(runtime.start(one).await, Err(RuntimeError::Ended { .. })));
        assert_eq!(runtime.list().await.unwrap()[0].phase, Phase::Lost);
        runtime.delete(one).await.unwrap();
    });
}

#[test]
fn many_at_once_share_few_shims() {
    on_a_board(async |board, executor| {
        let runtime = board.runtime(executor);
        let (runtime, board) = (&runtime, &*board);
        let live = async |number: u64| {
            run(runtime, board, task(number), &work("")).await;
            runtime.delete(task(number)).await.unwrap_or_else(|error| panic!("delete: {}", error.reason()));
        };
        for round in 0..3 {
            // Each group's last container leaves while another comes.
            join((0..6).map(|number| live(100 * round + number)).collect()).await;
        }
        join((0..10).map(|number| async move { run(runtime, board, task(number), &work("")).await }).collect()).await;
        until("the shims of the rounds before to leave", async || match board.shims().len() {
            1..=4 => Ok(()),
            many => Err(format!("{many} shims for 4 groups")),
        })
        .await;
        join((0..10).map(|number| async move { runtime.delete(task(number)).await.unwrap() }).collect()).await;
    });
}

/// A line of `/proc/PID/FILE`, without `start`.
fn proc(pid: u32, file: &str, start: &str) -> i32 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    text.lines().find_map(|line| line.strip_prefix(start)).unwrap().trim().parse().unwrap()
}

fn shim_of(pid: u32) -> u32 {
    u32::try_from(proc(pid, "status", "PPid:")).unwrap()
}

fn isolated() -> Work {
    let mut work = work("");
    work.container.labels.insert(ISOLATE_SHIM_LABEL.into(), "true".into());
    work
}

#[test]
fn the_kernel_ends_tasks_before_what_they_need() {
    on_a_board(async |board, executor| {
        let runtime = board.runtime(executor);
        let pid = run(&runtime, board, task(1), &work("")).await;
        assert_eq!(proc(pid, "oom_score_adj", ""), OOM_SCORE_ADJ_DEFAULT);
        // containerd's, one less urgent: packages and images give it -999.
        let (shim, of_shims) = (shim_of(pid), proc(board.containerd_pid(), "oom_score_adj", "") + 1);
        assert_eq!(proc(shim, "oom_score_adj", ""), of_shims);
        // Each of its threads has children of its own.
        let threads = fs::read_dir(format!("/proc/{shim}/task")).unwrap().flatten();
        let children: String =
            threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default()).collect();
        let logger: Vec<u32> =
            children.split_whitespace().map(|pid| pid.parse().unwrap()).filter(|&child| child != pid).collect();
        assert_eq!(logger.iter().map(|&pid| proc(pid, "oom_score_adj", "")).collect::<Vec<_>>(), [of_shims]);
        runtime.delete(task(1)).await.unwrap();
    });
}

#[test]
fn a_task_with_a_shim_of_its_own_neither_takes_others_along_nor_goes_with_them() {
    on_a_board(async |board, executor| {
        let config = Config { groups: 1, ..board.config() };
        let runtime = Runtime::new(executor.clone(), config).unwrap();
        let mut pids = Vec::new();
        for (number, work) in [isolated(), isolated(), work(""), work("")].iter().enumerate() {
            pids.push(run(&runtime, board, task(number as u64), work).await);
        }
        let shims: Vec<u32> = pids.iter().map(|&pid| shim_of(pid)).collect();
        assert_eq!(board.shims().len(), 3);
        assert!(shims[2] == shims[3] && shims[0] != shims[1] && !shims[..2].contains(&shims[2]), "{shims:?}");
        let vanishes = async |number| {
            until("the task to vanish", async || match runtime.inspect(task(number)).await.unwrap() {
                Some(Phase::Lost) => Ok(()),
                other => Err(format!("{other:?}")),
            })
            .await;
        };
        support::command("kill", ["-9", &shims[0].to_string()]);
        vanishes(0).await;
        support::command("kill", ["-9", &shims[2].to_string()]);
        vanishes(2).await;
        vanishes(3).await;
        assert_eq!(runtime.inspect(task(1)).await.unwrap(), Some(Phase::Running { pid: pids[1] }));
        for number in 0..4 {
            runtime.delete(task(number)).await.unwrap();
        }
    });
}

#[test]
fn a_board_without_the_configured_runtime_says_so() {
    on_a_board(async |board, executor| {
        let config = Config { binary: Some("/no/such/crun".into()), ..board.config() };
        let runtime = Runtime::new(executor.clone(), config).unwrap();
        let want = "the OCI runtime /no/such/crun is not installed, so no container can be started on this board: \
                    install it, or change `runtime` in agent.toml, and restart pi-agent";
        assert!(runtime.degraded().iter().any(|fault| fault == want), "{:?}", runtime.degraded());
        let refused = create(&runtime, board, task(1), &work("")).await.unwrap_err();
        assert_eq!((refused.reason().as_str(), refused.is_lost()), (want, false));
    });
}

/// Polls all of `futures` together.
async fn join<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, slot) in futures.iter_mut().zip(&mut done) {
            if slot.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(cx)
            {
                *slot = Some(value);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[test]
fn a_dead_containerd_is_noticed() {
    on_a_board(async |board, executor| {
        let ctrd = Ctrd::connect(executor, Path::new(&board.socket())).await.unwrap();
        assert!(!ctrd.is_closed());
        board.kill_containerd();
        ctrd.closed().await;
        assert!(ctrd.is_closed());
        board.start_containerd();
    });
}
