//! The real docker CLI's commands, as people use them.

use anyhow::{Context as _, Result};

use crate::cluster::{SOON, get, live, tasks, wait, wait_board};
use crate::lab::Lab;
use crate::lab::board::Verb;
use crate::lab::guard::Guard;
use crate::support::{Inside, all, busybox, create, docker, has, inspect, reached, remove, running};

#[test]
#[ignore = "needs root"]
fn the_docker_cli_runs_a_cluster() -> Result<()> {
    let lab = Guard::cluster(3)?;
    all(
        &lab,
        &[
            ("a service's life", life),
            ("updates", updates),
            ("rolling update", rolling),
            ("failing update", failing),
            ("global", global),
            ("reading", reading),
        ],
    );
    nodes(&lab)?;
    swarm(&lab)
}

fn say(lab: &Lab, line: &str) -> Result<String> {
    docker(lab, &line.split(' ').collect::<Vec<_>>())?.good().with_context(|| format!("docker {line}"))
}

fn life(lab: &Lab) -> Result<()> {
    let image = busybox(lab);
    let said = say(lab, &format!("service create --name life --replicas 3 {image} sleep 100000"))?;
    has(&said, "3 out of 3 tasks");
    has(&said, "converged");
    has(
        &say(lab, "service ls --filter name=life --format {{.Name}}:{{.Mode}}:{{.Replicas}}:{{.Image}}")?,
        &format!("life:replicated:3/3:{image}"),
    );
    let listed = say(lab, "service ps life --format {{.Name}}:{{.DesiredState}}:{{.CurrentState}}")?;
    for slot in 1..=3 {
        has(&listed, &format!("life.{slot}:Running:Running"));
    }
    has(&say(lab, "service inspect --pretty life")?, " Replicas:\t3");
    has(&say(lab, "service scale life=5")?, "converged");
    assert_eq!(live(lab, "life")?.len(), 5);
    say(lab, "service scale -d life=1")?;
    running(lab, "life", 1);
    assert_eq!(say(lab, "service rm life")?.trim(), "life");
    assert!(docker(lab, &["service", "inspect", "life"])?.bad()?.1.contains("no such service"));
    // Without a name it gets one.
    let id = say(lab, &format!("service create -d --replicas 0 {image}"))?;
    let name = say(lab, &format!("service inspect --format {{{{.Spec.Name}}}} {}", id.trim()))?;
    assert!(name.trim().len() > 3, "{name}");
    remove(lab, &[name.trim()])
}

fn updates(lab: &Lab) -> Result<()> {
    create(lab, "quiet", &["--replicas", "2"], &["sleep", "100000"])?;
    let before = running(lab, "quiet", 2);
    say(lab, "service update -q --label-add a=b quiet")?;
    say(lab, "service update -d --replicas 3 quiet")?;
    let after = running(lab, "quiet", 3);
    assert!(before.iter().all(|row| after.contains(row)), "labels and replicas restart nothing");
    assert!(inspect(lab, "quiet")?["UpdateStatus"].is_null(), "and are no rolling update");
    assert_eq!(inspect(lab, "quiet")?["Spec"]["Labels"]["a"], "b");
    say(lab, "service update -d --label-rm a quiet")?;
    assert!(inspect(lab, "quiet")?["Spec"]["Labels"]["a"].is_null());
    remove(lab, &["quiet"])
}

fn rolling(lab: &Lab) -> Result<()> {
    create(lab, "roll", &["--replicas", "2", "--stop-grace-period", "1s", "--env", "A=1"], &["sleep", "100000"])?;
    let before = running(lab, "roll", 2);
    let line = format!(
        "service update --env-add A=2 --limit-memory 20M --constraint-add node.hostname!=board1 --image {}/web:latest \
         --args 100008 --entrypoint sleep roll",
        lab.registry().host()
    );
    has(&say(lab, &line)?, "converged");
    let after = live(lab, "roll")?;
    assert_eq!(after.len(), 2);
    assert!(after.iter().all(|row| before.iter().all(|old| old.id != row.id)), "every task is new");
    assert!(after.iter().all(|row| row.board != 1), "the constraint holds: {after:?}");
    assert_eq!(inspect(lab, "roll")?["UpdateStatus"]["State"], "completed");
    assert_eq!(tasks(lab, "roll")?.iter().filter(|row| row.state == "shutdown").count(), 2);
    say(lab, "service scale -d roll=1")?;
    let inside = Inside::of(lab, "roll")?;
    assert_eq!(inside.process("cmdline")?, "sleep\n100008\n");
    has(&inside.process("environ")?, "A=2");
    assert_eq!(inside.cgroup("memory", "memory.limit_in_bytes", "memory.max")?, (20 << 20).to_string());
    remove(lab, &["roll"])
}

fn failing(lab: &Lab) -> Result<()> {
    create(lab, "fails", &["--replicas", "2", "--stop-grace-period", "1s"], &["sleep", "100000"])?;
    running(lab, "fails", 2);
    let line =
        ["service", "update", "--no-resolve-image", "--image", &format!("{}/nosuch:1", lab.registry().host()), "fails"];
    let (_, said) = docker(lab, &line)?.bad()?;
    has(&said, "update paused due to failure or early termination of task");
    assert_eq!(inspect(lab, "fails")?["UpdateStatus"]["State"], "paused");
    assert_eq!(live(lab, "fails")?.len(), 1, "the second task was left alone");
    has(&reached(lab, "fails", &["rejected"]).err, "not found");
    remove(lab, &["fails"])
}

fn global(lab: &Lab) -> Result<()> {
    let image = busybox(lab);
    let said = say(lab, &format!("service create --name world --mode global {image} sleep 100000"))?;
    has(&said, "converged");
    assert_eq!(live(lab, "world")?.len(), 3);
    has(&say(lab, "service ls --filter mode=global --format {{.Name}}:{{.Replicas}}")?, "world:3/3");
    remove(lab, &["world"])
}

fn reading(lab: &Lab) -> Result<()> {
    has(&say(lab, "version")?, "1.47");
    let info = say(lab, "info")?;
    has(&info, "Swarm: active");
    has(&info, "Nodes: 4");
    let nodes = say(lab, "node ls --format {{.Hostname}}:{{.Status}}:{{.Availability}}:{{.ManagerStatus}}")?;
    for board in 1..=3 {
        has(&nodes, &format!("board{board}:Ready:"));
    }
    has(&nodes, ":Active:Leader");
    has(&say(lab, "node inspect --pretty board1")?, "Hostname:");
    // Its `until` is in whole seconds.
    wait(lab, "the events up to now", SOON, || {
        let events = say(lab, "events --since 10m --until 0s --filter type=node")?;
        Ok(events.contains("node create").then_some(()))
    });
    for line in ["ps", "images", "volume ls", "network ls", "secret ls", "config ls", "stack ls", "plugin ls"] {
        say(lab, line)?;
    }
    Ok(())
}

fn nodes(lab: &Lab) -> Result<()> {
    say(lab, "node update --label-add a=1 --label-add b=2 board3")?;
    say(lab, "node update --label-rm a board3")?;
    assert_eq!(say(lab, "node inspect board3 --format {{.Spec.Labels}}")?.trim(), "map[b:2]");

    create(lab, "stay", &["--replicas", "6", "--stop-grace-period", "1s"], &["sleep", "100000"])?;
    assert!(running(lab, "stay", 6).iter().any(|row| row.board == 3));
    say(lab, "node update --availability drain board3")?;
    has(&say(lab, "node ls --filter name=board3 --format {{.Availability}}")?, "Drain");
    wait(lab, "board 3 to be empty", SOON, || {
        let rows = live(lab, "stay")?;
        let left = tasks(lab, "stay")?.iter().filter(|row| row.board == 3 && row.state == "running").count();
        Ok((rows.len() == 6 && left == 0).then_some(()))
    });
    say(lab, "node update --availability pause board2")?;
    say(lab, "node update --availability active board3")?;
    let before = live(lab, "stay")?;
    say(lab, "service scale -d stay=9")?;
    let new: Vec<_> = running(lab, "stay", 9).into_iter().filter(|row| !before.contains(row)).collect();
    assert!(new.iter().all(|row| row.board != 2), "a paused board gets nothing: {new:?}");
    assert!(live(lab, "stay")?.iter().any(|row| row.board == 2), "and keeps what it has");
    say(lab, "node update --availability active board2")?;
    has(&say(lab, "node ps board2 --format {{.Name}}:{{.CurrentState}}")?, ":Running");
    remove(lab, &["stay"])?;

    lab.board(3)?.act(Verb::PowerOff)?;
    wait_board(lab, 3, "down", SOON);
    say(lab, "node rm board3")?;
    assert!(docker(lab, &["node", "inspect", "board3"])?.bad()?.1.contains("node board3 not found"));
    Ok(())
}

fn swarm(lab: &Lab) -> Result<()> {
    let token = |role: &str| say(lab, &format!("swarm join-token -q {role}")).map(|text| text.trim().to_owned());
    let (worker, manager) = (token("worker")?, token("manager")?);
    assert!(worker.starts_with("SWMTKN-1-") && manager.starts_with("SWMTKN-1-") && worker != manager);
    let rotated = say(lab, "swarm join-token --rotate -q worker")?.trim().to_owned();
    assert_ne!(rotated, worker);
    assert_eq!((token("worker")?, token("manager")?), (rotated, manager));
    say(lab, "swarm update --task-history-limit 2 --cert-expiry 100h")?;
    let spec = get(lab, "/swarm")?["Spec"].clone();
    assert_eq!(spec["Orchestration"]["TaskHistoryRetentionLimit"], 2);
    assert_eq!(spec["CAConfig"]["NodeCertExpiry"], 360_000_000_000_000_u64);

    let cluster = get(lab, "/swarm")?["ID"].clone();
    say(lab, "swarm leave --force")?;
    has(&say(lab, "info")?, "Swarm: inactive");
    assert!(docker(lab, &["node", "ls"])?.bad()?.1.contains("This node is not a swarm manager"));
    assert!(docker(lab, &["service", "ls"])?.bad()?.1.contains("This node is not a swarm manager"));
    let said = docker(lab, &["swarm", "init", "--advertise-addr", "127.0.0.1"])?.good()?;
    has(&said, "docker swarm join --token SWMTKN-1-");
    assert_ne!(get(lab, "/swarm")?["ID"], cluster, "a new cluster");
    assert_eq!(get(lab, "/nodes")?.as_array().map(Vec::len), Some(1));
    assert_eq!(get(lab, "/services")?.as_array().map(Vec::len), Some(0));
    Ok(())
}
