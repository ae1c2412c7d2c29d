//! `pi-mgr service …` beside the docker CLI: the same flags leave the same service behind, and progress
//! displays end as docker's do.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cluster::{SOON, get, wait};
use crate::lab::Lab;
use crate::lab::guard::Guard;
use crate::support::{all, busybox, docker, has, inspect, pi_mgr, remove, running};

/// Every option of a container and of updates, once.
const CREATE: &str = "--replicas 1 --init --tty --read-only --cap-add NET_ADMIN --cap-drop MKNOD \
    --ulimit nofile=512:1024 --sysctl net.core.somaxconn=99 --group 1000 --dns 10.0.0.1 --dns-search lan \
    --dns-option ndots:2 --host db:10.0.0.9 --oom-score-adj 100 --log-driver json-file --log-opt max-size=1m \
    --health-cmd true --health-interval 1s --health-timeout 2s --health-retries 2 --health-start-period 1s \
    --health-start-interval 500ms --update-parallelism 2 --update-delay 1s --update-monitor 1s \
    --update-failure-action rollback --update-max-failure-ratio 0.2 --update-order start-first --rollback-monitor 1s \
    --rollback-order start-first --rollback-failure-action continue --config source=fcfg,target=/etc/fcfg,mode=0400 \
    --secret source=fsec,target=key,uid=1,gid=2 --stop-grace-period 1s --stop-signal SIGINT --limit-pids 20 \
    --restart-delay 1s --env A=1 --label l=1 --container-label c=2 --entrypoint sleep --isolation default";

/// Changes of all of them.
const UPDATE: &str = "--replicas 2 --init=false --tty=false --read-only=false --cap-add MKNOD --cap-drop SYS_TIME \
    --ulimit-add core=0 --ulimit-rm nofile --sysctl-add kernel.msgmax=9000 --sysctl-rm net.core.somaxconn \
    --group-add 5 --group-rm 1000 --dns-add 10.0.0.2 --dns-rm 10.0.0.1 --dns-search-add a.lan --dns-option-add timeout:1 \
    --host-add x:10.0.0.8 --host-rm db --oom-score-adj 0 --log-driver none --health-interval 5s --health-retries 0 \
    --update-parallelism 0 --update-order stop-first --rollback-parallelism 3 --config-rm fcfg \
    --config-add source=fcfg,target=/other --secret-rm fsec --label-add l=2 --label-rm l --container-label-rm c \
    --env-add B=2 --env-rm A --limit-pids 0 --stop-signal SIGTERM --force --args 200000";

#[test]
#[ignore = "needs root"]
fn flags_of_services() -> Result<()> {
    let lab = Guard::cluster(2)?;
    all(
        &lab,
        &[
            ("the same flags, the same service", same_service),
            ("updates are shown to their end", updates),
            ("jobs are shown to their end", jobs),
            ("Ctrl-C leaves the service", interrupted),
            ("settings of the cluster", settings),
            ("mistakes", mistakes),
        ],
    );
    Ok(())
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

fn say(lab: &Lab, line: &str) -> Result<String> {
    pi_mgr(lab, &words(line))?.good().with_context(|| format!("pi-mgr {line}"))
}

fn docker_says(lab: &Lab, line: &str) -> Result<String> {
    docker(lab, &words(line))?.good().with_context(|| format!("docker {line}"))
}

/// A service's specification but for its name.
fn spec(lab: &Lab, service: &str) -> Result<Value> {
    let mut spec = inspect(lab, service)?["Spec"].take();
    spec["Name"].take();
    Ok(spec)
}

fn same(lab: &Lab, after: &str) -> Result<()> {
    let (ours, theirs) = (spec(lab, "ours")?, spec(lab, "theirs")?);
    ensure!(ours == theirs, "after {after}:\nours   {ours:#}\ntheirs {theirs:#}");
    Ok(())
}

fn same_service(lab: &Lab) -> Result<()> {
    let file = lab.directory.join("fcfg");
    std::fs::write(&file, "some text").context("write a config")?;
    docker_says(lab, &format!("config create fcfg {}", file.display()))?;
    docker_says(lab, &format!("secret create fsec {}", file.display()))?;
    let image = busybox(lab);
    say(lab, &format!("service create -d --name ours {CREATE} {image} 100000"))?;
    docker_says(lab, &format!("service create -d --name theirs {CREATE} {image} 100000"))?;
    same(lab, "create")?;
    let container = spec(lab, "ours")?["TaskTemplate"]["ContainerSpec"].take();
    assert_eq!(container["Secrets"][0]["File"]["Name"], "key", "{container:#}");
    assert_eq!(container["CapabilityAdd"][0], "CAP_NET_ADMIN", "{container:#}");
    pretty(lab)?;
    say(lab, &format!("service update -d {UPDATE} ours"))?;
    docker_says(lab, &format!("service update -d {UPDATE} theirs"))?;
    same(lab, "update")?;
    let container = spec(lab, "ours")?["TaskTemplate"]["ContainerSpec"].take();
    ensure!(container["Secrets"].is_null() && container["Args"][0] == "200000", "{container:#}");
    for line in ["--no-healthcheck", "--health-cmd false", "--health-cmd true --health-interval 1s"] {
        say(lab, &format!("service update -d {line} ours"))?;
        docker_says(lab, &format!("service update -d {line} theirs"))?;
        same(lab, line)?;
    }
    say(lab, "service update -d --rollback ours")?;
    docker_says(lab, "service update -d --rollback theirs")?;
    same(lab, "a rollback")?;
    remove(lab, &["ours", "theirs"])
}

/// Docker's lines all are in ours, in their order.
fn pretty(lab: &Lab) -> Result<()> {
    let (theirs, ours) =
        (docker_says(lab, "service inspect --pretty theirs")?, say(lab, "service inspect --pretty theirs")?);
    let mut lines = ours.lines();
    for line in theirs.lines() {
        ensure!(lines.any(|ours| ours == line), "no {line:?}, or not in its place, in:\n{ours}\ndocker:\n{theirs}");
    }
    has(&ours, " Hosts:\t\t10.0.0.9 db");
    Ok(())
}

fn updates(lab: &Lab) -> Result<()> {
    let image = busybox(lab);
    let quick = "--stop-grace-period 1s --restart-delay 1s --update-monitor 2s --rollback-monitor 1s";
    say(lab, &format!("service create -q --name up --replicas 2 {quick} {image} sleep 100000"))?;
    let said = say(lab, "service update --env-add A=1 --update-parallelism 0 up")?;
    has(&said, "overall progress: 2 out of 2 tasks");
    has(&said, "Service up converged");
    has(&say(lab, "service inspect --pretty up")?, " State:\t\tcompleted");
    let said = say(lab, "service rollback up")?;
    has(&said, "rollback: manually requested rollback");
    has(&said, "converged");
    let (code, said) = pi_mgr(lab, &words("service update --args false up"))?.bad()?;
    has(&said, "Error: service update paused: update paused due to failure or early termination of task");
    assert_eq!(code, 1);
    has(&say(lab, "service inspect --pretty up")?, " State:\t\tpaused");
    // What would be gone back to fails as well.
    let (code, said) =
        pi_mgr(lab, &words("service update --update-failure-action rollback --args nosuchcommand up"))?.bad()?;
    // Both may fail between two looks at the service, so the first message need not be seen here.
    has(&said, "Error: service rollback paused: rollback paused due to failure or early termination of task");
    assert_eq!(code, 1);
    let good = ["service", "update", "--update-failure-action", "rollback", "--args", "sleep 200000", "up"];
    has(&pi_mgr(lab, &good)?.good()?, "Service up converged");
    let said = say(lab, "service update --args nosuchcommand up")?;
    has(&said, "rollback: update rolled back due to failure or early termination of task");
    has(&said, "overall progress: rolling back update: 2 out of 2 tasks");
    has(&said, "Service up converged");
    say(lab, "service rm -d up").map(drop)
}

fn jobs(lab: &Lab) -> Result<()> {
    let image = busybox(lab);
    let said = say(
        lab,
        &format!("service create --name sums --mode replicated-job --replicas 3 --max-concurrent 2 {image} sleep 1"),
    )?;
    has(&said, "job progress: 3 out of 3 complete");
    assert!(said.ends_with("job complete\n"), "{said}");
    let said = say(lab, &format!("service create --name sweep --mode global-job {image} true"))?;
    has(&said, "job progress: 2 out of 2 complete");
    for line in [
        "service ls --filter mode=replicated-job",
        "service ls --filter mode=global-job",
        "service ps sweep --format {{.Name}}:{{.DesiredState}}",
    ] {
        assert_eq!(say(lab, line)?, docker_says(lab, line)?, "{line}");
    }
    // Docker names the first task by its node, which moves it to the end.
    let line = "service ps sums --format {{.ID}}:{{.Node}}:{{.DesiredState}}";
    let (ours, theirs) = (say(lab, line)?, docker_says(lab, line)?);
    let sorted = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(sorted(&ours), sorted(&theirs));
    has(&say(lab, "service ps sums")?, "sums.0 ");
    has(&say(lab, "service ls --filter name=sums")?, "(3/3 completed)");
    has(&say(lab, "service ps sums")?, "Complete");
    has(
        &say(lab, "service inspect --pretty sums")?,
        "Service Mode:\tReplicated Job\n Completions:\t3\n Concurrent:\t2",
    );
    let said = say(lab, "service scale sums=2")?;
    has(&said, "sums scaled to 2");
    has(&said, "job progress: 2 out of 2 complete");
    has(&say(lab, "service update --max-concurrent 1 --force sums")?, "job complete");
    assert_eq!(inspect(lab, "sums")?["Spec"]["Mode"]["ReplicatedJob"]["MaxConcurrent"], 1);
    let theirs = docker(lab, &words("service scale sweep=2"))?.bad()?.1;
    let ours = pi_mgr(lab, &words("service scale sweep=2"))?.bad()?.1;
    assert_eq!(ours.trim_start_matches("Error: "), theirs);
    remove(lab, &["sums", "sweep"])
}

/// `pi-mgr` in the foreground, interrupted after two seconds.
fn interrupted(lab: &Lab) -> Result<()> {
    let program = crate::support::pi_mgr_path()?;
    let image = busybox(lab);
    let line = format!("service create --name stuck --constraint node.labels.none==x {image} sleep 1");
    let output = Command::new("timeout")
        .args(["--preserve-status", "--kill-after", "30", "--signal", "INT", "2"])
        .arg(program)
        .args(words(&line))
        .env("RACIMO_HOST", format!("unix://{}", lab.manager().socket().display()))
        .stdin(Stdio::null())
        .output()
        .context("run pi-mgr")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.code() == Some(0), "{output:?}");
    has(&said, "1/1: no suitable node");
    has(&said, "Operation continuing in background.\nUse `pi-mgr service ps ");
    assert_eq!(inspect(lab, "stuck")?["Spec"]["Name"], "stuck");
    remove(lab, &["stuck"])
}

/// How many old tasks of a slot are kept.
fn history(lab: &Lab) -> Result<Value> {
    Ok(get(lab, "/swarm")?["Spec"]["Orchestration"]["TaskHistoryRetentionLimit"].take())
}

fn settings(lab: &Lab) -> Result<()> {
    has(&say(lab, "update --task-history-limit 2 --cert-expiry 2000h --dispatcher-heartbeat 3s")?, "Cluster updated.");
    wait(lab, "the settings", SOON, || Ok(Some(history(lab)?).filter(|limit| *limit == 2)));
    let spec = get(lab, "/swarm")?["Spec"].take();
    assert_eq!(spec["CAConfig"]["NodeCertExpiry"], 7_200_000_000_000_000_i64, "{spec:#}");
    assert_eq!(spec["Dispatcher"]["HeartbeatPeriod"], 3_000_000_000_i64, "{spec:#}");
    docker_says(lab, "swarm update --task-history-limit 5 --dispatcher-heartbeat 5s")?;
    assert_eq!(history(lab)?, 5);
    Ok(())
}

fn mistakes(lab: &Lab) -> Result<()> {
    let image = busybox(lab);
    say(lab, &format!("service create -d --name calm --stop-grace-period 1s {image} sleep 100000"))?;
    running(lab, "calm", 1);
    let before = inspect(lab, "calm")?;
    for (line, code, wanted) in [
        ("service create --mode global-job --replicas 2 b", 2, "replicated or replicated-job mode"),
        ("service create --mode replicated-job --update-delay 1s b", 2, "not supported for jobs"),
        ("service create --secret nosuch b", 1, "secret not found: nosuch"),
        ("service create --config source=nosuch b", 1, "config not found: nosuch"),
        ("service create --secret source=a,mode=rw b", 2, "not a file mode"),
        ("service create --env-file /nonexistent b", 1, "cannot read /nonexistent"),
        ("service create --publish 127.0.0.1:80:80 b", 2, "hostip is not supported"),
        ("service create --isolation hyperv b", 2, "boards run Linux"),
        ("service update --cap-add NONSENSE calm", 1, "NONSENSE"),
        ("service update --sysctl-add kernel.hostname=x calm", 1, "sysctl 'kernel.hostname' is not allowed"),
        ("service update --ulimit-add nofile=2:1 calm", 2, "above the hard limit"),
        ("service update --log-driver syslog calm", 1, "syslog"),
        ("service update --log-opt max-size=1m calm", 2, "--log-opt needs --log-driver"),
        ("service update --update-failure-action explode calm", 2, "possible values: pause, continue, rollback"),
        ("service update --update-max-failure-ratio 1.5 calm", 2, "between 0 and 1"),
        ("service update --health-interval 1us calm", 1, "Interval"),
        ("service update --no-healthcheck --health-cmd true calm", 2, "conflicts with --health-*"),
        ("service update --rollback --force calm", 2, "other flags may not be combined"),
        ("service update --rollback calm", 1, "does not have a previous spec"),
        ("service update --max-concurrent 2 calm", 2, "replicated-job mode"),
        ("service update --endpoint-mode sideways calm", 2, "possible values: vip, dnsrr"),
        ("service rollback nosuch", 1, "service nosuch not found"),
        ("unlock", 1, "the manager is not locked"),
        ("unlock-key", 1, "no unlock key is set"),
        ("unlock-key --rotate", 1, "autolock is not turned on"),
        ("update --max-snapshots 3", 2, "one snapshot"),
        ("update --cert-expiry 1s", 2, "it must be at least 1h"),
        ("update", 2, "nothing to change"),
    ] {
        let (got, said) = pi_mgr(lab, &words(line))?.bad()?;
        assert!(said.contains(wanted), "pi-mgr {line}: expected {wanted:?}, not {said:?}");
        assert_eq!(got, code, "pi-mgr {line}: {said}");
    }
    assert_eq!(inspect(lab, "calm")?["Version"], before["Version"], "a refused update changed something");
    remove(lab, &["calm"])
}
