//! Settings of the cluster: stored, shown, and followed by managers and boards.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::cluster::{SOON, get, settle, sleeper, tasks, wait, wait_log};
use crate::lab::Lab;
use crate::lab::guard::Guard;
use crate::lab::process::run;
use crate::support::{create, docker, pi_mgr, remove};
use crate::trust::join;

#[test]
#[ignore = "needs root"]
fn settings_of_the_cluster_are_followed() -> Result<()> {
    let lab = Guard::cluster(2)?;
    shown(&lab)?;
    heartbeat(&lab)?;
    certificates(&lab)?;
    history(&lab)?;
    Ok(())
}

fn shown(lab: &Lab) -> Result<()> {
    let line = "swarm update --task-history-limit 2 --dispatcher-heartbeat 3s --cert-expiry 48h";
    let said = docker(lab, &line.split(' ').collect::<Vec<_>>())?.good()?;
    ensure!(said.trim() == "Swarm updated.", "{said}");
    let spec = get(lab, "/swarm")?["Spec"].clone();
    assert_eq!(spec["Orchestration"]["TaskHistoryRetentionLimit"], 2);
    assert_eq!(spec["Dispatcher"]["HeartbeatPeriod"], 3_000_000_000_i64);
    assert_eq!(spec["CAConfig"]["NodeCertExpiry"], 48 * 3600 * 1_000_000_000_i64);
    let info = get(lab, "/info")?;
    assert_eq!(info["Swarm"]["Cluster"]["Spec"], spec, "docker info shows the same");
    Ok(())
}

/// Boards are told at once, in both directions, and nothing happens to their tasks.
fn heartbeat(lab: &Lab) -> Result<()> {
    crate::cluster::create(lab, &sleeper(lab, "calm", 4))?;
    let before = settle(lab, &[("calm", 4)]);
    for (client, period, ms) in [("docker", "10s", 10_000), ("pi-mgr", "300ms", 300), ("docker", "1500ms", 1500)] {
        let said = match client {
            "docker" => docker(lab, &["swarm", "update", "--dispatcher-heartbeat", period])?,
            _ => pi_mgr(lab, &["update", "--dispatcher-heartbeat", period])?,
        };
        said.good()?;
        for board in lab.boards() {
            wait_log(lab, &board.agent_log(), &format!("heartbeat every {ms} ms"));
        }
    }
    assert_eq!(before, settle(lab, &[("calm", 4)]), "the tasks did not notice");
    let log = fs::read_to_string(lab.manager().log())?;
    assert!(!log.contains(" is down: "), "no board was written off:\n{log}");
    remove(lab, &["calm"])
}

/// Who joins now gets a certificate for two days.
fn certificates(lab: &Lab) -> Result<()> {
    let data = lab.directory.join("newcomer");
    let (joined, said) = join(lab, &lab.manager().worker_token()?, &data)?;
    ensure!(joined, "{said}");
    let certificate = data.join("identity/cert.pem");
    let certificate = certificate.to_str().context("a path")?;
    let lasts = |hours: u64| {
        let end = (hours * 3600).to_string();
        run(&["openssl", "x509", "-in", certificate, "-noout", "-checkend", &end]).is_ok()
    };
    assert!(lasts(47) && !lasts(50), "it is valid for 48 hours: {}", fs::read_to_string(certificate)?);
    Ok(())
}

/// Of a slot that fails again and again two tasks are kept, the live one included.
fn history(lab: &Lab) -> Result<()> {
    create(lab, "restless", &["--restart-delay", "100ms"], &["false"])?;
    let mut seen = BTreeSet::new();
    wait(lab, "six tasks to have failed", SOON, || {
        seen.extend(tasks(lab, "restless")?.into_iter().map(|row| row.id));
        Ok((seen.len() >= 6).then_some(()))
    });
    wait(lab, "two tasks at most to be kept", SOON, || Ok((tasks(lab, "restless")?.len() <= 2).then_some(())));
    remove(lab, &["restless"])
}
