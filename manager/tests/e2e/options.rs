//! Every option of a service, given to the real docker CLI and looked for in the container.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::cluster::{Row, SOON, live, tasks, wait};
use crate::lab::Lab;
use crate::lab::guard::Guard;
use crate::lab::image::{Image, Platform};
use crate::support::{Inside, all, busybox, create, docker, has, inspect, reached, remove, running};

const SLEEP: [&str; 2] = ["sleep", "100000"];

#[test]
#[ignore = "needs root"]
fn options_take_effect_in_the_container() -> Result<()> {
    let lab = Guard::cluster(3)?;
    docker(&lab, &["node", "update", "--label-add", "zone=a", "board2"])?.good()?;
    all(
        &lab,
        &[
            ("process", process),
            ("entrypoint", entrypoint),
            ("mounts", mounts),
            ("limits", limits),
            ("memory limit", memory_limit),
            ("networks", networks),
            ("constraints", constraints),
            ("unplaceable", unplaceable),
            ("spreading", spreading),
            ("restarts", restarts),
            ("stopping", stopping),
            ("images", images),
            ("images that cannot be had", images_that_cannot_be_had),
            ("what the board refuses", what_the_board_refuses),
        ],
    );
    Ok(())
}

fn process(lab: &Lab) -> Result<()> {
    let options = "--hostname kitchen --user 1000:1001 --workdir /tmp --env A=1 --env PATH=/bin --label on=service \
                   --container-label on=container";
    let options: Vec<&str> = options.split_whitespace().chain(["--env", "B=two words"]).collect();
    create(lab, "process", &options, &["sleep", "100001"])?;
    let inside = Inside::of(lab, "process")?;
    assert_eq!(inside.process("cmdline")?, "sleep\n100001\n");
    let environment = inside.process("environ")?;
    for line in ["A=1", "B=two words", "PATH=/bin", "HOSTNAME=kitchen"] {
        assert!(environment.lines().any(|found| found == line), "no {line} in {environment}");
    }
    let status = inside.process("status")?;
    has(&status, "Uid:\t1000\t1000\t1000\t1000");
    has(&status, "Gid:\t1001\t1001\t1001\t1001");
    assert_eq!(inside.cwd()?, "/tmp");
    assert_eq!(inside.enter(&["-u"], &["hostname"])?.trim(), "kitchen");
    assert_eq!(inside.process("root/etc/hostname")?.trim(), "kitchen");
    let container = lab.board(inside.board)?.ctr(&["containers", "info", &inside.task])?;
    has(&container, r#""on": "container""#);
    assert_eq!(inspect(lab, "process")?["Spec"]["Labels"]["on"], "service");
    remove(lab, &["process"])
}

fn entrypoint(lab: &Lab) -> Result<()> {
    create(lab, "entry", &["--entrypoint", "/bin/sleep"], &["100002"])?;
    create(lab, "shell", &["--entrypoint", "sh -c 'exec sleep 100003'"], &[])?;
    assert_eq!(Inside::of(lab, "entry")?.process("cmdline")?, "/bin/sleep\n100002\n");
    assert_eq!(Inside::of(lab, "shell")?.process("cmdline")?, "sleep\n100003\n");
    remove(lab, &["entry", "shell"])
}

fn mounts(lab: &Lab) -> Result<()> {
    let shared = lab.directory.join("shared");
    fs::create_dir(&shared)?;
    fs::write(shared.join("from-board"), "hello")?;
    let bind = |rest: &str| format!("type=bind,source={},{rest}", shared.display());
    let writer = [
        "--constraint=node.hostname==board2",
        "--mount=type=volume,source=data,target=/data",
        "--mount=type=volume,source=applets,target=/bin",
        "--mount=type=tmpfs,target=/scratch,tmpfs-size=1048576,tmpfs-mode=1770",
        &format!("--mount={}", bind("target=/rw")),
    ];
    create(
        lab,
        "writer",
        &writer,
        &["sh", "-c", "echo kept > /data/file; cp /rw/from-board /rw/from-task; sleep 100000"],
    )?;
    let inside = Inside::of(lab, "writer")?;
    let scratch = inside.mount("/scratch")?;
    has(&scratch, "tmpfs");
    has(&scratch, "size=1024k,mode=1770");
    wait(lab, "the task to write", SOON, || {
        Ok(fs::read_to_string(shared.join("from-task")).ok().filter(|t| t == "hello"))
    });
    let volumes = lab.board(2)?.data().join("volumes");
    assert!(volumes.join("applets/_data/busybox").exists(), "an empty volume gets what the image has there");
    remove(lab, &["writer"])?;

    let reader = [
        "--constraint=node.hostname==board2",
        "--mount=type=volume,source=data,target=/data,readonly",
        &format!("--mount={}", bind("target=/ro,readonly")),
    ];
    let script = "cat /data/file; touch /data/no 2>/dev/null || touch /ro/no 2>/dev/null || exec sleep 100000";
    create(lab, "reader", &reader, &["sh", "-c", script])?;
    let inside = Inside::of(lab, "reader")?;
    assert_eq!(inside.process("root/data/file")?, "kept\n", "the volume outlived its first task");
    has(&inside.mount("/data")?, " ro,");
    has(&inside.mount("/ro")?, " ro,");
    assert!(!shared.join("no").exists(), "the bind is read-only");
    remove(lab, &["reader"])
}

fn limits(lab: &Lab) -> Result<()> {
    let options = "--limit-cpu 0.5 --limit-memory 32M --limit-pids 20 --reserve-cpu 0.1 --reserve-memory 16M";
    create(lab, "limits", &options.split(' ').collect::<Vec<_>>(), &SLEEP)?;
    let inside = Inside::of(lab, "limits")?;
    assert_eq!(inside.cgroup("memory", "memory.limit_in_bytes", "memory.max")?, (32 << 20).to_string());
    assert_eq!(inside.cgroup("pids", "pids.max", "pids.max")?, "20");
    let quota = inside.cgroup("cpu", "cpu.cfs_quota_us", "cpu.max")?;
    assert!(["50000", "50000 100000"].contains(&quota.as_str()), "half a CPU is {quota}");
    remove(lab, &["limits"])
}

fn memory_limit(lab: &Lab) -> Result<()> {
    let options = ["--limit-memory", "8M", "--restart-condition", "none"];
    create(lab, "greedy", &options, &["sh", "-c", "a=aaaaaaaaaaaaaaaa; while true; do a=$a$a; done"])?;
    has(&reached(lab, "greedy", &["failed"]).err, "the memory limit was reached");
    remove(lab, &["greedy"])
}

fn networks(lab: &Lab) -> Result<()> {
    create(lab, "hostnet", &["--network", "host"], &SLEEP)?;
    create(lab, "nonet", &["--network", "none"], &SLEEP)?;
    let addresses = |inside: &Inside| inside.enter(&["-n"], &["ip", "-o", "-4", "address"]);
    let host = Inside::of(lab, "hostnet")?;
    has(&addresses(&host)?, &format!("inet {}/24", lab.board(host.board)?.address()));
    let none = addresses(&Inside::of(lab, "nonet")?)?;
    has(&none, "127.0.0.1/8");
    assert_eq!(none.lines().count(), 1, "only the loopback: {none}");
    remove(lab, &["hostnet", "nonet"])
}

fn constraints(lab: &Lab) -> Result<()> {
    let id = docker(lab, &["node", "inspect", "board2", "--format", "{{.ID}}"])?.good()?;
    let (is_id, is_ip) = (format!("node.id=={}", id.trim()), format!("node.ip=={}", lab.board(3)?.address()));
    let cases: [(&[&str], &[u8]); 12] = [
        (&["node.hostname==board1"], &[1]),
        (&["node.hostname==BOARD1"], &[1]),
        (&["node.hostname!=board1", "node.hostname != board2"], &[3]),
        (&[&is_id], &[2]),
        (&[&is_ip], &[3]),
        (&["node.ip==10.0.0.0/8"], &[1, 2, 3]),
        (&["node.role==worker", "node.platform.os==linux"], &[1, 2, 3]),
        (
            &["node.platform.arch==x86_64", "node.hostname==board2"],
            if cfg!(target_arch = "x86_64") { &[2] } else { &[] },
        ),
        (
            &["node.platform.arch==amd64", "node.hostname==board2"],
            if cfg!(target_arch = "x86_64") { &[2] } else { &[] },
        ),
        (&["node.labels.zone==a"], &[2]),
        (&["node.labels.zone!=a", "node.hostname!=board1"], &[3]),
        (&["engine.labels.board==1"], &[1]),
    ];
    let names: Vec<String> = (0..cases.len()).map(|number| format!("where{number}")).collect();
    for (name, (constraints, _)) in names.iter().zip(&cases) {
        let options: Vec<&str> = constraints.iter().flat_map(|constraint| ["--constraint", constraint]).collect();
        create(lab, name, &options, &SLEEP)?;
    }
    for (name, (constraints, boards)) in names.iter().zip(&cases) {
        if boards.is_empty() {
            continue;
        }
        let board = running(lab, name, 1)[0].board;
        ensure!(boards.contains(&board), "{constraints:?} put a task on board {board}");
    }
    remove(lab, &names.iter().map(String::as_str).collect::<Vec<_>>())
}

fn unplaceable(lab: &Lab) -> Result<()> {
    let cases = [
        (
            "nowhere0",
            "--constraint=node.labels.zone==nowhere",
            "scheduling constraints not satisfied on 3 nodes: node.labels.zone==nowhere",
        ),
        (
            "nowhere1",
            "--constraint=node.role==manager",
            "1 node not available for new tasks: a manager without an agent",
        ),
        ("nowhere2", "--constraint=node.nonsense==x", "node.nonsense==x"),
        ("nowhere3", "--reserve-memory=900G", "insufficient resources on 3 nodes: memory short by"),
        ("nowhere4", "--reserve-cpu=1000", "insufficient resources on 3 nodes: CPU short by"),
        ("nowhere5", "--limit-memory=900G", "memory limit above the"),
    ];
    for (name, option, _) in cases {
        create(lab, name, &[option], &SLEEP)?;
    }
    for (name, option, why) in cases {
        wait(lab, &format!("service ps to say why of {option}"), SOON, || {
            let said = docker(lab, &["service", "ps", "--no-trunc", "--format", "{{.CurrentState}} {{.Error}}", name])?
                .good()?;
            Ok((said.starts_with("Pending") && said.contains(why)).then_some(()))
        });
    }
    // It is placed as soon as it can be.
    docker(lab, &["service", "update", "-d", "--constraint-rm", "node.labels.zone==nowhere", "nowhere0"])?.good()?;
    running(lab, "nowhere0", 1);
    remove(lab, &cases.map(|(name, _, _)| name))
}

fn boards(rows: &[Row]) -> Vec<u8> {
    let mut boards: Vec<u8> = rows.iter().map(|row| row.board).collect();
    boards.sort_unstable();
    boards
}

fn spreading(lab: &Lab) -> Result<()> {
    create(lab, "each", &["--mode", "global"], &SLEEP)?;
    create(lab, "some", &["--mode", "global", "--constraint", "node.labels.zone==a"], &SLEEP)?;
    create(lab, "most", &["--replicas", "4", "--replicas-max-per-node", "1"], &SLEEP)?;
    create(lab, "spread", &["--replicas", "4", "--placement-pref", "spread=node.labels.zone"], &SLEEP)?;
    assert_eq!(boards(&running(lab, "each", 3)), [1, 2, 3]);
    assert_eq!(boards(&running(lab, "some", 1)), [2]);
    assert_eq!(boards(&running(lab, "most", 3)), [1, 2, 3]);
    let waiting = reached(lab, "most", &["pending"]);
    has(&waiting.err, "max replicas per node limit exceed");
    assert_eq!(boards(&running(lab, "spread", 4)), [1, 2, 2, 3], "as many with the label as without");
    remove(lab, &["each", "some", "most", "spread"])
}

fn restarts(lab: &Lab) -> Result<()> {
    let cases: [(&str, &str, &str); 5] = [
        ("never", "--restart-condition none", "exit 3"),
        ("fine", "--restart-condition on-failure", "exit 0"),
        ("twice", "--restart-condition on-failure --restart-delay 100ms --restart-max-attempts 2", "exit 3"),
        ("always", "--restart-condition any --restart-delay 300ms", "exit 0"),
        ("window", "--restart-delay 100ms --restart-max-attempts 1 --restart-window 1s", "sleep 2; exit 9"),
    ];
    for (name, options, script) in cases {
        create(lab, name, &options.split(' ').collect::<Vec<_>>(), &["sh", "-c", script])?;
    }
    let ended = |name: &str| -> Result<usize> {
        Ok(tasks(lab, name)?.iter().filter(|row| ["failed", "complete"].contains(&row.state.as_str())).count())
    };
    for (name, count) in [("never", 1), ("fine", 1), ("twice", 3), ("always", 4)] {
        wait(lab, &format!("{count} tasks of {name} to end"), SOON, || Ok((ended(name)? >= count).then_some(())));
    }
    // One attempt within a second, but it fails every two: it goes on. Its history is one attempt long.
    let mut seen = BTreeSet::new();
    wait(lab, "window's third task", SOON, || {
        seen.extend(tasks(lab, "window")?.into_iter().map(|row| row.id));
        Ok((seen.len() > 2).then_some(()))
    });
    // The others have had the time that it took.
    for (name, count) in [("never", 1), ("fine", 1), ("twice", 3)] {
        assert_eq!(tasks(lab, name)?.len(), count, "{name} gave up");
    }
    has(&tasks(lab, "never")?[0].err, "task: non-zero exit (3)");
    remove(lab, &cases.map(|(name, _, _)| name))
}

fn stopping(lab: &Lab) -> Result<()> {
    let volume = "--mount=type=volume,source=signals,target=/signals";
    let script = "trap 'echo usr1 > /signals/got; exit 0' USR1; trap '' TERM; while true; do sleep 0.1; done";
    let polite = [volume, "--stop-signal=SIGUSR1", "--stop-grace-period=1m"];
    create(lab, "polite", &polite, &["sh", "-c", script])?;
    create(lab, "stubborn", &["--stop-grace-period=2s"], &["sh", "-c", "trap '' TERM; while true; do sleep 1; done"])?;
    create(lab, "graceless", &["--stop-grace-period=0s"], &["sh", "-c", "trap '' TERM; while true; do sleep 1; done"])?;
    let (polite, stubborn, graceless) =
        (Inside::of(lab, "polite")?, Inside::of(lab, "stubborn")?, Inside::of(lab, "graceless")?);
    // The shell has set its trap when it has a child.
    wait(lab, "the shell to set its trap", SOON, || {
        let children = polite.process(&format!("task/{}/children", polite.pid))?;
        Ok((!children.trim().is_empty()).then_some(()))
    });
    let begin = Instant::now();
    remove(lab, &["polite", "stubborn", "graceless"])?;
    let gone = |inside: &Inside| {
        wait(lab, &format!("{inside:?} to end"), SOON, || Ok(inside.process("status").is_err().then_some(())));
        begin.elapsed()
    };
    let (polite_took, graceless_took) = (gone(&polite), gone(&graceless));
    let stubborn_took = gone(&stubborn);
    let got = lab.board(polite.board)?.data().join("volumes/signals/_data/got");
    assert_eq!(fs::read_to_string(&got).with_context(|| got.display().to_string())?, "usr1\n");
    assert!(polite_took < Duration::from_secs(40), "it went at its signal, not after its grace: {polite_took:?}");
    assert!(graceless_took < Duration::from_secs(40), "killed at once: {graceless_took:?}");
    assert!(stubborn_took >= Duration::from_secs(2), "it has its grace: {stubborn_took:?}");
    // Boards that stopped them are still there.
    wait(lab, "no board to hold them any more", SOON, || {
        let held = [&polite, &stubborn, &graceless].iter().try_fold(0, |sum, inside| {
            let listed = lab.board(inside.board)?.ctr(&["containers", "ls", "-q"])?;
            anyhow::Ok(sum + usize::from(listed.lines().any(|line| line == inside.task)))
        })?;
        Ok((held == 0).then_some(()))
    });
    Ok(())
}

fn images(lab: &Lab) -> Result<()> {
    let registry = lab.registry();
    let host = registry.host();
    let own = Image::busybox(&["sleep", "100004"])?;
    registry.push_index("multi", "1", &[Image::busybox_for(Platform::foreign(), &["false"])?, own])?;
    let digest = registry.push("pinned", "1", &Image::busybox(&["sleep", "100005"])?)?;
    registry.push("pinned", "1", &Image::busybox(&["sleep", "100006"])?)?;

    let make = |name: &str, image: &str, options: &[&str]| {
        docker(lab, &[&["service", "create", "-d", "--name", name], options, &[image]].concat())?.good()
    };
    make("multi", &format!("{host}/multi:1"), &[])?;
    make("pinned", &format!("{host}/pinned:1@{digest}"), &[])?;
    make("tagged", &format!("{host}/pinned:1"), &[])?;
    // An image that no registry has, but every board.
    for board in lab.boards() {
        board.ctr(&["images", "pull", "--plain-http", &busybox(lab)])?;
        board.ctr(&["images", "tag", &busybox(lab), "boards.only/own:1"])?;
    }
    let image =
        ["service", "create", "-d", "--no-resolve-image", "--name", "own", "boards.only/own:1", "sleep", "100007"];
    docker(lab, &image)?.good()?;

    for (name, command) in [("multi", "100004"), ("pinned", "100005"), ("tagged", "100006"), ("own", "100007")] {
        assert_eq!(Inside::of(lab, name)?.process("cmdline")?, format!("sleep\n{command}\n"), "{name}");
    }
    let image = inspect(lab, "tagged")?["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"].clone();
    has(image.as_str().unwrap_or_default(), "/pinned:1@sha256:");
    remove(lab, &["multi", "pinned", "tagged", "own"])
}

fn images_that_cannot_be_had(lab: &Lab) -> Result<()> {
    let (registry, host) = (lab.registry(), lab.registry().host());
    registry.push("foreign", "1", &Image::busybox_for(Platform::foreign(), &["false"])?)?;
    let zeros = "0".repeat(64);
    let cases = [
        ("gone0", format!("{host}/nosuch:1"), "not found"),
        ("gone1", format!("{host}/busybox:nosuch"), "not found"),
        ("gone2", format!("{host}/busybox@sha256:{zeros}"), "not found"),
        ("gone3", "127.0.0.1:9/busybox:1".to_owned(), "cannot reach registry 127.0.0.1:9"),
        ("gone4", format!("{host}/foreign:1"), "linux/s390x"),
    ];
    for (name, image, _) in &cases {
        let line =
            ["service", "create", "-d", "--no-resolve-image", "--restart-condition", "none", "--name", name, image];
        docker(lab, &line)?.good()?;
    }
    for (name, image, why) in &cases {
        let row = reached(lab, name, &["rejected"]);
        assert!(row.err.contains(why), "{image}: expected {why:?}, not {:?}", row.err);
    }
    remove(lab, &["gone0", "gone1", "gone2", "gone3", "gone4"])
}

fn what_the_board_refuses(lab: &Lab) -> Result<()> {
    let cases: [(&str, &str, &[&str], &str, &str); 5] = [
        ("odd0", "--user=nobodyx", &["true"], "rejected", "unable to find user nobodyx"),
        ("odd1", "--user=0:nogroupx", &["true"], "rejected", "unable to find group nogroupx"),
        (
            "odd2",
            "--mount=type=bind,source=/nonexistent,target=/x",
            &["true"],
            "rejected",
            "bind source path does not exist on this board: /nonexistent",
        ),
        ("odd3", "--workdir=/bin/busybox", &["true"], "failed", "not a directory"),
        ("odd4", "--hostname=x", &["nosuchprogram"], "failed", "executable file not found"),
    ];
    for (name, option, command, _, _) in cases {
        create(lab, name, &["--restart-condition=none", option], command)?;
    }
    for (name, option, _, state, why) in cases {
        let row = reached(lab, name, &[state]);
        assert!(row.err.contains(why), "{option}: expected {why:?}, not {:?}", row.err);
        assert!(live(lab, name)?.is_empty());
    }
    remove(lab, &cases.map(|(name, ..)| name))
}
