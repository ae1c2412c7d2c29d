//! `pi-mgr`'s client commands, with Docker's names, columns and exit codes.

use anyhow::{Context as _, Result};

use crate::cluster::{SOON, live, wait};
use crate::lab::Lab;
use crate::lab::guard::Guard;
use crate::support::{all, busybox, docker, has, pi_mgr, running};

#[test]
#[ignore = "needs root"]
fn pi_mgr_runs_a_cluster() -> Result<()> {
    let lab = Guard::cluster(2)?;
    all(&lab, &[("services", services), ("tables", tables), ("nodes", nodes), ("mistakes", mistakes)]);
    Ok(())
}

fn say(lab: &Lab, line: &str) -> Result<String> {
    pi_mgr(lab, &line.split(' ').collect::<Vec<_>>())?.good().with_context(|| format!("pi-mgr {line}"))
}

fn services(lab: &Lab) -> Result<()> {
    let image = busybox(lab);
    let said =
        say(lab, &format!("service create --name one --replicas 2 --limit-memory 16M --env A=1 {image} sleep 100000"))?;
    has(&said, "2 out of 2 tasks");
    has(&said, "Service one converged");
    assert_eq!(live(lab, "one")?.len(), 2);
    has(&say(lab, "service scale one=3")?, "one scaled to 3");
    assert_eq!(live(lab, "one")?.len(), 3);
    say(lab, "service update -d --label-add q=r one")?;
    assert_eq!(say(lab, "service inspect one --format {{.Spec.Labels.q}}")?.trim(), "r");
    has(&say(lab, "service inspect --pretty one")?, " Replicas:\t3");
    has(&say(lab, "service update --env-add B=1 --stop-grace-period 1s one")?, "converged");
    let said = say(lab, "service rm one")?;
    has(&said, "one: all tasks are gone");
    Ok(())
}

/// Tables that both tools print.
fn tables(lab: &Lab) -> Result<()> {
    let image = busybox(lab);
    say(lab, &format!("service create -d --name two --replicas 2 {image} sleep 100000"))?;
    running(lab, "two", 2);
    // Ours has a column more: how the boards are.
    let ours = say(lab, "node ls")?;
    let health = ours.find("HEALTH").with_context(|| format!("no HEALTH in: {ours}"))?;
    let known: Vec<_> = ours.lines().map(|line| line.get(..health).unwrap_or(line).trim_end()).collect();
    let theirs = docker(lab, &["node", "ls"])?.good()?;
    assert_eq!(known, theirs.lines().map(str::trim_end).collect::<Vec<_>>(), "node ls");
    for line in [
        "service ls --filter name=two",
        "service ls -q --filter name=two",
        "service ls --filter name=two --format {{.Name}}:{{.Mode}}:{{.Replicas}}",
        "service ps -q two",
        "service ps two --format {{.ID}}:{{.Name}}:{{.Node}}:{{.DesiredState}}",
        "service ps two --no-trunc --filter node=board1 --format {{.Image}}",
        "node ls --format {{.Hostname}}|{{.Status}}|{{.ManagerStatus}} --filter role=worker",
        "service inspect two --format {{.Spec.Mode.Replicated.Replicas}}:{{.Spec.Name}}",
    ] {
        let theirs = docker(lab, &line.split(' ').collect::<Vec<_>>())?.good()?;
        assert_eq!(say(lab, line)?, theirs, "{line}");
    }
    say(lab, "service rm -d two").map(drop)
}

fn nodes(lab: &Lab) -> Result<()> {
    say(lab, "node update --label-add a=b board2")?;
    assert_eq!(say(lab, "node inspect board2 --format {{.Spec.Labels.a}}")?.trim(), "b");
    has(&say(lab, "join-token worker")?, "pi-agent join --token SWMTKN-1-");
    has(&say(lab, "join-token -q manager")?, "SWMTKN-1-");
    has(&say(lab, "info")?, "Swarm: active");
    has(&say(lab, "completion bash")?, "complete");
    // Its `until` is in whole seconds.
    wait(lab, "the events up to now", SOON, || {
        Ok(say(lab, "events --since 10m --until 0s")?.contains("node create").then_some(()))
    });
    Ok(())
}

fn mistakes(lab: &Lab) -> Result<()> {
    for (line, code, wanted) in [
        ("service create", 2, "<IMAGE>"),
        ("service create --publish 99999:80 busybox", 2, "--publish"),
        ("service create --limit-memory zz busybox", 2, "--limit-memory"),
        ("service create -d --constraint x busybox", 1, "Placement.Constraints"),
        ("service scale nosuch", 2, "SERVICE=REPLICAS"),
        ("service scale nosuch=1", 1, "service nosuch not found"),
        ("service rm nosuch", 1, "service nosuch not found"),
        ("service inspect nosuch", 1, "nosuch"),
        ("node inspect nosuch", 1, "node nosuch not found"),
        ("node rm board1", 1, "is not down"),
        ("node ls --filter bogus=1", 1, "Invalid filter 'bogus'"),
        ("node ls --format {{.Bogus}}", 1, "no field .Bogus"),
        ("leave", 1, "--force"),
        ("init", 1, "already part of a swarm"),
        ("--host unix:///nonexistent node ls", 1, "cannot connect to the manager at unix:///nonexistent"),
    ] {
        let (got, said) = pi_mgr(lab, &line.split(' ').collect::<Vec<_>>())?.bad()?;
        assert!(said.contains(wanted), "pi-mgr {line}: expected {wanted:?}, not {said:?}");
        assert_eq!(got, code, "pi-mgr {line}: {said}");
    }
    Ok(())
}
