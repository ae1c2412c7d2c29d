//! How a container is confined and set up: every option given to both clients and looked for in the container.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::cluster::{SOON, wait};
use crate::lab::Lab;
use crate::lab::guard::Guard;
use crate::support::{Inside, Said, busybox, docker, has, inspect, pi_mgr, reached, remove};

/// What a task tells of itself, piece by piece.
const LOOK: &str = "{ cat /proc/self/status; echo limits $(ulimit -n) $(ulimit -Hn); cat /proc/self/oom_score_adj; \
    cat /proc/sys/kernel/shm_rmid_forced /etc/resolv.conf /etc/hosts /etc/hostname; echo args $(tr '\\0' ' ' </proc/1/cmdline | cut -c 1-32); \
    touch /x || echo no root to write; echo x >>/etc/hosts || echo no hosts to write; \
    mount -t tmpfs x /tmp || echo no mount; unshare -U true || echo no unshare; \
    [ -t 0 ] && echo a terminal; } >/out/new 2>&1; mv /out/new /out/seen; echo said; exec sleep 100000";
/// Every option, as both clients have it.
const OPTIONS: &str = "--init --tty --read-only --cap-add NET_ADMIN --cap-add CAP_SYS_TIME --cap-drop MKNOD \
    --cap-drop CAP_KILL --ulimit nofile=111:222 --sysctl kernel.shm_rmid_forced=1 --group 77 --group nobody \
    --dns 10.1.1.1 --dns-search lan --dns-option ndots:2 --host db:10.9.8.7 --hostname kitchen --oom-score-adj 321 \
    --isolation default --stop-signal SIGINT --stop-grace-period 3s";

#[test]
#[ignore = "needs root"]
fn containers_are_confined_and_set_up_as_asked_for() -> Result<()> {
    let lab = Guard::cluster(1)?;
    fs::create_dir(lab.directory.join("out"))?;
    plain(&lab)?;
    everything(&lab, "docker", docker)?;
    everything(&lab, "pi-mgr", pi_mgr)?;
    refusals(&lab, docker)?;
    refusals(&lab, pi_mgr)?;
    a_board_without_what_is_needed(&lab)
}

/// `service create`, with a directory where the task leaves what it sees.
fn create(
    lab: &Lab,
    client: fn(&Lab, &[&str]) -> Result<Said>,
    name: &str,
    options: &str,
    script: &str,
) -> Result<Said> {
    let mount = format!("--mount=type=bind,source={},target=/out", lab.directory.join("out").display());
    let image = busybox(lab);
    let fixed = ["service", "create", "-d", "-q", "--name", name, &mount];
    let options: Vec<&str> = options.split_whitespace().collect();
    client(lab, &[&fixed[..], &options, &[&image, "sh", "-c", script]].concat())
}

/// What the task left, which is gone then.
#[track_caller]
fn seen(lab: &Lab) -> Result<String> {
    let path = lab.directory.join("out/seen");
    let text = wait(lab, "the task to look around", SOON, || Ok(fs::read_to_string(&path).ok()));
    fs::remove_file(path)?;
    Ok(text)
}

fn all(text: &str, wanted: &[&str]) {
    wanted.iter().for_each(|part| has(text, part));
}

/// A service that asks for nothing gets what Docker gives.
fn plain(lab: &Lab) -> Result<()> {
    create(lab, docker, "plain", "", LOOK)?.good()?;
    let text = seen(lab)?;
    all(&text, &["CapEff:\t00000000a80425fb", "NoNewPrivs:\t0", "Seccomp:\t2", "no mount", "no unshare"]);
    all(&text, &["args sh -c", "\n200\n0\n", "127.0.0.1\tlocalhost"]);
    for absent in ["no root to write", "no hosts to write", "a terminal"] {
        assert!(!text.contains(absent), "{absent:?} is in:\n{text}");
    }
    remove(lab, &["plain"])
}

fn everything(lab: &Lab, name: &str, client: fn(&Lab, &[&str]) -> Result<Said>) -> Result<()> {
    create(lab, client, name, OPTIONS, LOOK)?.good()?;
    let text = seen(lab)?;
    // NET_ADMIN and SYS_TIME are bits 12 and 25, MKNOD and KILL 27 and 5.
    let capabilities = 0xa804_25fb_u64 | 1 << 12 | 1 << 25;
    let capabilities = capabilities & !(1 << 27) & !(1 << 5);
    all(&text, &[&format!("CapEff:\t{capabilities:016x}"), "Seccomp:\t2", "Groups:\t0 "]);
    all(&text, &["limits 111 222\n321\n1\nnameserver 127.0.0.11\nsearch lan\noptions ndots:2\n127.0.0.1\tlocalhost\n"]);
    all(&text, &["\n10.9.8.7\tdb\n10.200.1.", "\tkitchen\nkitchen\nargs /sbin/docker-init -- sh -c"]);
    all(&text, &["no root to write", "no hosts to write", "no mount", "no unshare", "a terminal"]);
    let groups = text.lines().find(|line| line.starts_with("Groups:")).context("no groups")?;
    all(groups, &["77", "65534"]);

    // From outside, and in what the API shows.
    let inside = Inside::of(lab, name)?;
    assert_eq!(inside.process("cmdline")?.lines().next(), Some("/sbin/docker-init"));
    has(&inside.mount("/sbin/docker-init")?, " ro,");
    has(&inside.mount("/")?, " ro,");
    let spec = &inspect(lab, name)?["Spec"]["TaskTemplate"]["ContainerSpec"];
    assert_eq!((&spec["Init"], &spec["TTY"], &spec["ReadOnly"]), (&json!(true), &json!(true), &json!(true)));
    assert_eq!(spec["Sysctls"], json!({"kernel.shm_rmid_forced": "1"}));
    assert_eq!(spec["Hosts"], json!(["10.9.8.7 db"]));

    // What it says on its terminal is in its log.
    let logs = ["service", "logs", "--raw", name];
    wait(lab, "the terminal's line in the log", SOON, || {
        Ok(docker(lab, &logs)?.good()?.contains("said").then_some(()))
    });

    // The stop signal reaches the program through its init process, which then ends as the program did.
    remove(lab, &[name])?;
    let log = lab.board(inside.board)?.agent_log();
    let ended = format!("task {}: exited with 130", inside.task);
    wait(lab, "the task to end by SIGINT", SOON, || Ok(fs::read_to_string(&log)?.contains(&ended).then_some(())));
    Ok(())
}

/// What cannot be is refused before anything is made.
fn refusals(lab: &Lab, client: fn(&Lab, &[&str]) -> Result<Said>) -> Result<()> {
    for (options, why) in [
        ("--isolation hyperv", "solation"),
        ("--sysctl vm.swappiness=1", "vm.swappiness"),
        ("--sysctl net.core.somaxconn=1 --network host", "net.core.somaxconn"),
        ("--cap-add FLY", "FLY"),
        ("--ulimit files=1", "files"),
        ("--ulimit nofile=5:4", "hard limit"),
        ("--oom-score-adj 1001", "1001"),
        ("--dns dns.lan", "dns.lan"),
    ] {
        let (_, said) = create(lab, client, "refused", options, "true")?.bad()?;
        has(&said, why);
    }
    assert!(docker(lab, &["service", "inspect", "refused"])?.bad()?.1.contains("no such service"));
    Ok(())
}

/// What only the board knows: it says so, and others could have the task.
fn a_board_without_what_is_needed(lab: &Lab) -> Result<()> {
    create(lab, docker, "lost-group", "--group dialout --restart-condition none", LOOK)?.good()?;
    has(&reached(lab, "lost-group", &["rejected"]).err, "unable to find group dialout");
    remove(lab, &["lost-group"])
}
