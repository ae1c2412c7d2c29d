//! Log processes under a real containerd: what is kept, and that no container waits or dies for its log.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use racimo_agent::runtime::{Job, Phase, Runtime};
use racimo_common::id::{IdSource, TaskId};
use racimo_common::object::{ContainerSpec, LogConfig, Resources};
use racimo_common::units::Bytes;
use racimo_common::wire::Work;
use support::{Board, on_a_board, until};

fn task(number: u64) -> TaskId {
    thread_local!(static SEED: u64 = fastrand::u64(..));
    IdSource::seeded(SEED.with(|seed| seed.wrapping_add(number))).draw()
}

async fn run(runtime: &Runtime, board: &Board, task: TaskId, script: &str, log: LogConfig) -> u32 {
    let command = vec!["sh".into(), "-c".into(), script.into()];
    let work = Work {
        net: None,
        service: IdSource::seeded(99).draw(),
        service_name: "web".into(),
        slot_name: "web.1".into(),
        container: ContainerSpec { image: support::IMAGE.into(), command, ..ContainerSpec::default() },
        resources: Resources::default(),
        log,
        files: Vec::new(),
        credentials: None,
        fault: None,
        offline: racimo_common::wire::Offline::default(),
    };
    let node = IdSource::seeded(77).draw();
    let job = Job { task, work: &work, image: &board.image, node, hostname: "berry" };
    runtime.create(&job).await.unwrap_or_else(|error| panic!("create: {}", error.reason()));
    runtime.start(task).await.unwrap_or_else(|error| panic!("start: {}", error.reason()))
}

async fn ended(runtime: &Runtime, task: TaskId) -> u32 {
    until("the end", async || match runtime.inspect(task).await.unwrap() {
        Some(Phase::Ended { status, .. }) => Ok(status),
        other => Err(format!("{other:?}")),
    })
    .await
}

fn dir(board: &Board, task: TaskId) -> PathBuf {
    PathBuf::from(board.path("data/logs")).join(task.to_string())
}

/// Everything in a task's log, without the times.
fn said(board: &Board, task: TaskId) -> Vec<String> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir(board, task)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let text: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    // The last line may be half there while the disk is full.
    text.lines().filter_map(|line| line.get(30..)).map(str::to_owned).collect()
}

/// The log process of a task.
fn logger(board: &Board, task: TaskId) -> Option<u32> {
    let wanted = dir(board, task).display().to_string();
    fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let is_it = line.split('\0').nth(1) == Some("log") && line.contains(&wanted);
        is_it.then(|| entry.file_name().to_str()?.parse().ok())?
    })
}

fn kill(pid: u32, signal: &str) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

#[test]
fn lines_are_kept_and_the_process_goes_with_the_container() {
    on_a_board(async |board, executor| {
        let runtime = board.runtime(executor);
        let one = task(1);
        run(&runtime, board, one, "echo out; echo err >&2; printf 'no newline'; exit 3", LogConfig::default()).await;
        assert_eq!(ended(&runtime, one).await, 3);
        // The shim keeps the pipes open until the container's process is deleted.
        until("the lines", async || {
            let said = said(board, one);
            if said.len() >= 2 { Ok(()) } else { Err(format!("{said:?}")) }
        })
        .await;
        assert!(logger(board, one).is_some());
        runtime.delete(one).await.unwrap();
        assert_eq!(logger(board, one), None);
        let mut said = said(board, one);
        said.sort();
        assert_eq!(said, [" e  err", " o  out", " o+ no newline"]);

        let two = task(2);
        run(&runtime, board, two, "echo out", LogConfig::None).await;
        assert_eq!(ended(&runtime, two).await, 0);
        assert!(logger(board, two).is_none() && !dir(board, two).exists());
        runtime.delete(two).await.unwrap();
    });
}

#[test]
fn a_log_keeps_its_size() {
    on_a_board(async |board, executor| {
        let runtime = board.runtime(executor);
        let one = task(1);
        let log = LogConfig::Files { size_max: Bytes::new(64 << 10), files_max: 3 };
        let script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo last";
        run(&runtime, board, one, script, log).await;
        assert_eq!(ended(&runtime, one).await, 0);
        runtime.delete(one).await.unwrap();
        let files: Vec<u64> =
            fs::read_dir(dir(board, one)).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
        assert!(files.len() == 3 && files.iter().all(|size| *size <= 64 << 10), "{files:?}");
        let said = said(board, one);
        assert_eq!(said.last().map(String::as_str), Some(" o  last"));
        let numbers: Vec<u64> = said.iter().filter_map(|line| line.strip_prefix(" o  line ")?.parse().ok()).collect();
        assert!(numbers.len() > 1000 && numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "no line is missing");
        assert_eq!(numbers.last(), Some(&19999));
    });
}

/// containerd's shim closes its end of the pipes, so a container whose log process was killed gets an error when it
/// writes, and does not wait.
#[test]
fn a_killed_log_process_holds_up_nobody() {
    on_a_board(async |board, executor| {
        let runtime = board.runtime(executor);
        let one = task(1);
        let script = "trap '' PIPE; i=0; while [ ! -e /go ]; do sleep 0.1; done; \
                      while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done 2>/dev/null; exit 7";
        let pid = run(&runtime, board, one, script, LogConfig::default()).await;
        kill(logger(board, one).unwrap(), "-9");
        fs::write(format!("/proc/{pid}/root/go"), "").unwrap();
        assert_eq!(ended(&runtime, one).await, 7);
        runtime.delete(one).await.unwrap();
    });
}

#[test]
fn a_full_disk_holds_up_nobody_and_is_told() {
    on_a_board(async |board, executor| {
        let runtime = board.runtime(executor);
        let (one, logs) = (task(1), board.path("data/logs"));
        fs::create_dir_all(&logs).unwrap();
        support::command("mount", ["-t", "tmpfs", "-o", "size=256k", "tmpfs", &logs]);
        fs::write(format!("{logs}/hog"), vec![0; 128 << 10]).unwrap();
        let script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; touch /looped; \
                      while [ ! -e /go ]; do sleep 0.1; done; sleep 2; echo again; exit 0";
        let pid = run(&runtime, board, one, script, LogConfig::default()).await;
        // Until then there must be no room: all of it would take more than there is.
        let looped = format!("/proc/{pid}/root/looped");
        until("a full disk", async || match said(board, one).len() {
            few @ ..2000 => Err(format!("{few} lines")),
            _ if !fs::exists(&looped).unwrap() => Err("the container still talks".to_owned()),
            _ => Ok(()),
        })
        .await;
        fs::remove_file(format!("{logs}/hog")).unwrap();
        fs::write(format!("/proc/{pid}/root/go"), "").unwrap();
        assert_eq!(ended(&runtime, one).await, 0);
        runtime.delete(one).await.unwrap();
        let said = said(board, one);
        support::command("umount", [&logs]);
        let kept = said.iter().filter(|line| line.starts_with(" o  line ")).count();
        let lost = said.iter().filter_map(|line| line.strip_prefix(" e  [racimo: ")?.split(' ').next());
        let lost: usize = lost.map(|count| count.parse::<usize>().unwrap()).sum();
        assert!(lost > 0 && said.contains(&" o  again".to_owned()), "{:?}", said.last());
        assert_eq!(kept + lost, 20_000);
    });
}
