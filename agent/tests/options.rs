//! Every option of a container, looked for from inside on a real containerd and runc.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use racimo_agent::runtime::kernel::OOM_SCORE_ADJ_DEFAULT;
use racimo_agent::runtime::{Config, Job, Phase, Runtime};
use racimo_common::id::{IdSource, TaskId};
use racimo_common::object::{
    BindOptions, ContainerSpec, DnsConfig, LogConfig, Mount, MountKind, NetworkMode, Resources, Ulimit,
};
use racimo_common::wire::Work;
use support::{Board, on_a_board, until};

/// Ids of this test's own: all share the machine's cgroups.
fn task() -> TaskId {
    IdSource::seeded(fastrand::u64(..)).draw()
}

/// A container whose output is kept in `/out`, a directory of the board's that anybody may write to.
fn work(board: &Board, script: &str) -> Work {
    let out = board.path("out");
    fs::create_dir_all(&out).unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o777)).unwrap();
    let _ = fs::remove_file(board.path("out/out"));
    let kind = MountKind::Bind { source: out, options: BindOptions::default() };
    let container = ContainerSpec {
        image: support::IMAGE.into(),
        command: ["sh", "-c", &format!("exec >/out/out 2>&1; {script}")].map(Into::into).into(),
        mounts: vec![Mount { target: "/out".into(), read_only: false, kind }],
        ..ContainerSpec::default()
    };
    Work {
        net: None,
        service: IdSource::seeded(99).draw(),
        service_name: "web".into(),
        slot_name: "web.1".into(),
        container,
        resources: Resources::default(),
        log: LogConfig::default(),
        files: Vec::new(),
        credentials: None,
        fault: None,
        offline: racimo_common::wire::Offline::default(),
    }
}

/// What the last container said so far.
fn said(board: &Board) -> String {
    fs::read_to_string(board.path("out/out")).unwrap_or_default()
}

/// Makes and starts it; why not, if it cannot be.
async fn start(runtime: &Runtime, board: &Board, task: TaskId, work: &Work) -> Result<u32, String> {
    let node = IdSource::seeded(77).draw();
    let job = Job { task, work, image: &board.image, node, hostname: "berry" };
    runtime.create(&job).await.map_err(|error| error.reason())?;
    runtime.start(task).await.map_err(|error| error.reason())
}

/// What a container says that runs this script, until it ends.
async fn says(runtime: &Runtime, board: &Board, script: &str, change: impl FnOnce(&mut ContainerSpec)) -> String {
    let mut work = work(board, script);
    change(&mut work.container);
    let task = task();
    start(runtime, board, task, &work).await.unwrap_or_else(|why| panic!("{script}: {why}"));
    until(script, async || match runtime.inspect(task).await.unwrap() {
        Some(Phase::Ended { .. }) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    runtime.delete(task).await.unwrap_or_else(|error| panic!("{}", error.reason()));
    said(board)
}

fn texts(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Fails unless all of these are there.
#[track_caller]
fn has(text: &str, wanted: &[&str]) {
    for part in wanted {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

const STATUS: &str = "cat /proc/self/status;";
/// Makes a user namespace, which anybody may on this kernel; and a filter that says 1 is not the same as none.
const UNSHARE: &str = "busybox unshare -U echo unshared || echo refused;";

#[test]
fn defaults_are_dockers() {
    on_a_board(async |board, executor| {
        let runtime = board.runtime(executor);
        assert_eq!(runtime.confine().no_seccomp, None);
        let look = format!(
            "{STATUS} {UNSHARE} busybox mount -t tmpfs x /tmp || echo no mount; busybox wc -c </proc/interrupts; \
             busybox ls /sys/firmware; echo 1 >/proc/sys/kernel/panic; cat /proc/self/oom_score_adj"
        );
        let seen = says(&runtime, board, &look, |_| {}).await;
        has(&seen, &["CapEff:\t00000000a80425fb", "CapBnd:\t00000000a80425fb", "NoNewPrivs:\t0", "Seccomp:\t2"]);
        has(&seen, &["unshare(0x10000000): Operation not permitted\nrefused\n", "no mount\n0\n"]);
        has(
            &seen,
            &[&format!("can't create /proc/sys/kernel/panic: Read-only file system\n{OOM_SCORE_ADJ_DEFAULT}\n")],
        );
        // Without the policy: what the capabilities allow.
        let seen = says(&runtime, board, &format!("{STATUS} {UNSHARE}"), |container| {
            container.privileges.seccomp_unconfined = true;
            container.privileges.no_new_privileges = true;
        })
        .await;
        has(&seen, &["NoNewPrivs:\t1", "Seccomp:\t0", "unshared\n"]);
        // Who is not root has no capability, and none left to gain.
        let seen = says(&runtime, board, STATUS, |container| container.user = Some("33:34".into())).await;
        has(
            &seen,
            &["CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "CapBnd:\t00000000a80425fb", "Seccomp:\t2"],
        );
    });
}

#[test]
fn capabilities_and_their_calls() {
    on_a_board(async |board, executor| {
        let runtime = board.runtime(executor);
        let mount = format!("{STATUS} busybox mount -t tmpfs x /tmp && echo mounted");
        let seen = says(&runtime, board, &mount, |container| {
            container.cap_drop = texts("ALL");
            container.cap_add = texts("SYS_ADMIN cap_chown");
        })
        .await;
        has(&seen, &["CapEff:\t0000000000200001", "Seccomp:\t2", "mounted\n"]);
        let seen = says(&runtime, board, STATUS, |container| container.cap_drop = texts("ALL")).await;
        has(&seen, &["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"]);
        let all = runtime.confine().capabilities;
        let seen = says(&runtime, board, &mount, |container| container.cap_add = texts("all")).await;
        has(&seen, &[&format!("CapEff:\t{all:016x}"), "Seccomp:\t2", "mounted\n"]);
    });
}

#[test]
fn settings_of_the_kernel() {
    on_a_board(async |board, executor| {
        let runtime = board.runtime(executor);
        let look = "ulimit -n; ulimit -Hn; ulimit -c; cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_forward \
                    /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/self/oom_score_adj";
        let limit = |name: &str, soft, hard| Ulimit { name: name.into(), soft, hard };
        let seen = says(&runtime, board, look, |container| {
            container.ulimits = vec![limit("nofile", 111, 222), limit("core", 0, 0)];
            let sysctls = [("kernel.shm_rmid_forced", "1"), ("net.ipv4.ip_forward", "1")];
            container.sysctls = sysctls.map(|(name, value)| (name.into(), value.into())).into();
            container.oom_score_adj = Some(321);
        })
        .await;
        assert_eq!(seen, "111\n222\n0\n1\n1\n0\n321\n");
        assert_ne!(fs::read_to_string("/proc/sys/kernel/shm_rmid_forced").unwrap(), "1\n", "the board's own");
    });
}

#[test]
fn files_and_groups() {
    on_a_board(async |board, executor| {
        let runtime = board.runtime(executor);
        let look = "touch /tmp/x || touch /etc/x || echo >>/etc/hosts || echo read-only; touch /dev/shm/x && echo memory; \
                    cat /etc/resolv.conf /etc/hosts; busybox id";
        let change = |container: &mut ContainerSpec| {
            container.read_only = true;
            container.groups = texts("video 77");
            container.user = Some("www".into());
            container.hosts = vec!["10.9.8.7 db db.lan".into()];
            container.dns =
                DnsConfig { servers: texts("10.1.1.1 ::5"), search: texts("lan home"), options: texts("ndots:2") };
        };
        let seen = says(&runtime, board, look, change).await;
        has(&seen, &["/tmp/x: Read-only file system", "/etc/x: Read-only file system", "read-only\nmemory\n"]);
        has(&seen, &["nameserver 10.1.1.1\nnameserver ::5\nsearch lan home\noptions ndots:2\n127.0.0.1\tlocalhost\n"]);
        has(&seen, &["ff02::2\tip6-allrouters\n10.9.8.7\tdb\n10.9.8.7\tdb.lan\n"]);
        has(&seen, &["uid=33(www) gid=34(www) groups=34(www),44(video),77\n"]);
        // On the board's network the files begin as the board's.
        let look = "cat /etc/hosts /etc/resolv.conf";
        let seen = says(&runtime, board, look, |container| {
            container.network = NetworkMode::Host;
            container.hosts = vec!["10.9.8.7 db".into()];
        })
        .await;
        let own = |name: &str| fs::read_to_string(name).unwrap_or_default();
        assert_eq!(seen, format!("{}\n10.9.8.7\tdb\n{}", own("/etc/hosts"), own("/etc/resolv.conf")));
    });
}

#[test]
fn an_init_process() {
    on_a_board(async |board, executor| {
        let runtime = board.runtime(executor);
        let look = "cat /proc/1/cmdline | busybox tr '\\0' ' '; echo; busybox grep docker-init /proc/self/mountinfo; \
                    echo $$; ( ( sleep 0.2; exit 0 ) & ) ; sleep 0.5; busybox ps";
        let seen = says(&runtime, board, look, |container| container.init = Some(true)).await;
        has(&seen, &["/sbin/docker-init -- sh -c ", " /sbin/docker-init ro,"]);
        assert!(!seen.contains("[sleep]"), "nothing reaped the orphan: {seen}");
        // It passes signals on.
        let mut work = work(board, "trap 'echo stopped; exit 7' TERM; echo ready; while :; do sleep 0.1; done");
        work.container.init = Some(true);
        let task = task();
        start(&runtime, board, task, &work).await.unwrap();
        until("the trap", async || if said(board) == "ready\n" { Ok(()) } else { Err(said(board)) }).await;
        runtime.stop(task).await.unwrap();
        until("the end", async || match runtime.inspect(task).await.unwrap() {
            Some(Phase::Ended { status: 7, .. }) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        assert_eq!(said(board), "ready\nstopped\n");
        runtime.delete(task).await.unwrap();
    });
}

#[test]
fn refusals_say_why() {
    on_a_board(async |board, executor| {
        let runtime = board.runtime(executor);
        let refused = async |change: &dyn Fn(&mut ContainerSpec), want: &str| {
            let mut bad = work(board, "true");
            change(&mut bad.container);
            let task = task();
            let reason = start(&runtime, board, task, &bad).await.unwrap_err();
            assert!(reason.contains(want), "{reason}");
            assert_eq!(runtime.inspect(task).await.unwrap(), None, "{want}: nothing is left");
        };
        refused(&|bad| bad.cap_add = texts("SYS_FOO"), "unknown capability: \"SYS_FOO\"").await;
        let swappiness = || [("vm.swappiness".to_owned(), "1".to_owned())].into();
        refused(&|bad| bad.sysctls = swappiness(), "would change the board").await;
        let limit = Ulimit { name: "files".into(), soft: 1, hard: 1 };
        refused(&|bad| bad.ulimits = vec![limit.clone()], "invalid ulimit type: \"files\"").await;
        refused(&|bad| bad.groups = texts("dialout"), "unable to find group dialout").await;
        refused(&|bad| bad.hosts = vec!["db".into()], "invalid host entry").await;
        refused(&|bad| bad.dns.servers = texts("dns.lan"), "invalid DNS server").await;
        refused(&|bad| bad.oom_score_adj = Some(2000), "-1000 to 1000").await;
        // A board without an init program.
        let config = Config {
            socket: board.socket().into(),
            data: board.path("data").into(),
            logger: env!("CARGO_BIN_EXE_pi-agent").into(),
            init: Some("/no/such/tini".into()),
            ..Config::default()
        };
        let runtime = Runtime::new(executor.clone(), config).unwrap();
        let mut wants = work(board, "true");
        wants.container.init = Some(true);
        let reason = start(&runtime, board, task(), &wants).await.unwrap_err();
        assert_eq!(
            reason,
            "the service asks for an init process, but there is no /no/such/tini (init-path in the agent's configuration)"
        );
        board.check_clean();
    });
}

/// What the log has, without times and streams.
fn logged(board: &Board, task: TaskId) -> String {
    let dir = board.path(&format!("data/logs/{task}"));
    let mut files: Vec<_> = fs::read_dir(dir).map_or(Vec::new(), |dir| dir.flatten().map(|file| file.path()).collect());
    files.sort();
    files.iter().map(|file| fs::read_to_string(file).unwrap_or_default()).collect()
}

#[test]
fn a_terminal() {
    on_a_board(async |board, executor| {
        let runtime = board.runtime(executor);
        // Where the shell's own output goes: not away to a file.
        let terminal = |script: &str| {
            let mut work = work(board, "");
            work.container.command = ["sh", "-c", script].map(Into::into).into();
            work.container.tty = true;
            work
        };
        let script = "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo a $TERM && echo seen >/dev/console; echo err >&2; cat";
        let waits = task();
        start(&runtime, board, waits, &terminal(script)).await.unwrap();
        until("the log", async || {
            let log = logged(board, waits);
            if ["a xterm", "seen", "err"].iter().all(|part| log.contains(part)) { Ok(()) } else { Err(log) }
        })
        .await;
        assert!(!logged(board, waits).contains(" e "), "a terminal has one output: {}", logged(board, waits));
        // Nobody types, and it does not end.
        let phase = runtime.inspect(waits).await.unwrap();
        assert!(matches!(phase, Some(Phase::Running { .. })), "{phase:?}");
        runtime.delete(waits).await.unwrap();

        // Without a log it can say what it likes.
        let mut silent =
            terminal("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo done >/out/out");
        silent.log = LogConfig::None;
        let quiet = task();
        start(&runtime, board, quiet, &silent).await.unwrap();
        until("the end", async || match runtime.inspect(quiet).await.unwrap() {
            Some(Phase::Ended { status: 0, .. }) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        assert_eq!(said(board), "done\n");
        runtime.delete(quiet).await.unwrap();
    });
}

#[test]
fn an_input_that_stays_open() {
    on_a_board(async |board, executor| {
        let runtime = board.runtime(executor);
        // Without it there is nothing to read.
        assert_eq!(says(&runtime, board, "cat; echo ended", |_| {}).await, "ended\n");
        let mut open = work(board, "");
        open.container.command =
            ["sh", "-c", "echo reading; busybox head -n 1; echo ended; exec cat"].map(Into::into).into();
        open.container.open_stdin = true;
        open.container.user = Some("www".into());
        let task = task();
        let pid = start(&runtime, board, task, &open).await.unwrap();
        let logs = async |want: &str| {
            until(want, async || {
                let log = logged(board, task);
                if log.contains(want) { Ok(()) } else { Err(log) }
            })
            .await;
        };
        logs("reading").await;
        assert!(!logged(board, task).contains("ended"));
        let input = fs::read_link(format!("/proc/{pid}/fd/0")).unwrap();
        assert_eq!(input.display().to_string(), board.path(&format!("data/tasks/{task}/stdin")));
        // It would hear what is written; and waits on without the writer.
        fs::write(input, "one line\n").unwrap();
        logs("one line").await;
        logs("ended").await;
        let again = board.runtime(executor);
        assert_eq!(again.inspect(task).await.unwrap(), Some(Phase::Running { pid }));
        again.stop(task).await.unwrap();
        again.delete(task).await.unwrap();
    });
}
