//! Images on a board: those that nobody needs go, the previous version stays, damaged ones are pulled again; and a
//! cluster in which nothing happens writes nothing.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::cluster::{SOON, create, remove, scale, settle, sleeper, tasks, update, wait, wait_log};
use crate::failures::restart_agent;
use crate::lab::Lab;
use crate::lab::board::Board;
use crate::lab::guard::Guard;
use crate::lab::image::Image;

/// The image that is damaged.
const MENDED: usize = 5;
/// How long nothing may be written.
const IDLE: Duration = Duration::from_secs(20);

#[test]
#[ignore = "needs root"]
fn images_come_go_and_are_mended() -> Result<()> {
    let lab = Guard::cluster(1)?;
    let board = lab.board(1)?;
    create(&lab, &sleeper(&lab, "first", 1))?;
    settle(&lab, &[("first", 1)]);
    nothing_is_written_while_idle(&lab, &board)?;
    the_version_before_the_previous_goes(&lab, &board)?;
    damaged_ones_are_pulled_again(&lab, &board)
}

/// A name that boards pull from.
fn name(lab: &Lab, image: &str) -> String {
    format!("{}/{image}", lab.registry().host())
}

/// Bytes of the layer that only the image with this number has.
fn size(number: usize) -> usize {
    (1 << 18) + number
}

/// Each number is another image, with a layer of its own.
fn push(lab: &Lab, repository: &str, tag: &str, number: usize) -> Result<String> {
    lab.registry().push(repository, tag, &Image::big(size(number))?)
}

fn run_version(lab: &Lab, tag: &str) -> Result<()> {
    update(lab, "app", |spec| spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!(name(lab, &format!("app:{tag}"))))
}

/// Waits until the board has these images of `app`, and no others.
#[track_caller]
fn wait_versions(lab: &Lab, board: &Board<'_>, tags: &[&str]) {
    wait(lab, &format!("the versions {tags:?} to be on the board"), SOON, || {
        let all = board.ctr(&["images", "ls", "-q"])?;
        let found: Vec<&str> = all.lines().filter_map(|line| line.split_once("/app:").map(|(_, tag)| tag)).collect();
        Ok((found == tags).then_some(()))
    });
}

fn the_version_before_the_previous_goes(lab: &Lab, board: &Board<'_>) -> Result<()> {
    // The disk is always fuller than that: every pull is followed by a look.
    fs::write(board.agent_config(), "disk-high-percent = 1\n")?;
    restart_agent(board)?;
    lab.manager().pi_mgr(&["update", "--task-history-limit", "1"])?;
    for (tag, number) in [("1", 1), ("2", 2), ("3", 3)] {
        push(lab, "app", tag, number)?;
    }
    let mut app = sleeper(lab, "app", 1);
    app["TaskTemplate"]["ContainerSpec"]["Image"] = json!(name(lab, "app:1"));
    create(lab, &app)?;
    settle(lab, &[("first", 1), ("app", 1)]);
    for tag in ["2", "3"] {
        run_version(lab, tag)?;
        wait(lab, "the new version", SOON, || {
            Ok(board.ctr(&["containers", "ls"])?.contains(&format!("app:{tag} ")).then_some(()))
        });
        settle(lab, &[("first", 1), ("app", 1)]);
    }
    // Its container goes with the history; then something is pulled.
    wait(lab, "the first version's container to go", SOON, || {
        Ok((!board.ctr(&["containers", "ls"])?.contains("app:1 ")).then_some(()))
    });
    push(lab, "other", "1", 4)?;
    let mut other = sleeper(lab, "other", 1);
    other["TaskTemplate"]["ContainerSpec"]["Image"] = json!(name(lab, "other:1"));
    create(lab, &other)?;
    wait_versions(lab, board, &["2", "3"]);
    wait_log(lab, &board.agent_log(), &format!("image {} removed, as the disk is", name(lab, "app:1")));
    settle(lab, &[("first", 1), ("app", 1), ("other", 1)]);

    // Back without a registry.
    lab.registry().kill()?;
    run_version(lab, "2")?;
    wait(lab, "the version before", SOON, || {
        Ok(crate::cluster::running(lab)?.len().eq(&3).then_some(()).filter(|()| {
            let containers = board.ctr(&["containers", "ls"]).unwrap_or_default();
            containers.matches("app:2 ").count() == 2 || !containers.contains("app:3 ")
        }))
    });
    settle(lab, &[("first", 1), ("app", 1), ("other", 1)]);
    wait_versions(lab, board, &["2", "3"]);
    lab.start_registry()?;
    for service in ["app", "other"] {
        remove(lab, service)?;
    }
    settle(lab, &[("first", 1)]);
    Ok(())
}

/// What a power cut or a worn card may do to an image that was here.
fn damaged_ones_are_pulled_again(lab: &Lab, board: &Board<'_>) -> Result<()> {
    fs::remove_file(board.agent_config())?;
    restart_agent(board)?;
    let digest = push(lab, "mended", "1", MENDED)?;
    let mut service = sleeper(lab, "mended", 1);
    // By digest it is never asked for again, if it is here.
    service["TaskTemplate"]["ContainerSpec"]["Image"] = json!(format!("{}@{digest}", name(lab, "mended:1")));
    create(lab, &service)?;
    settle(lab, &[("first", 1), ("mended", 1)]);
    for what in ["torn document", "missing layers"] {
        scale(lab, "mended", 0)?;
        settle(lab, &[("first", 1)]);
        let containerd = board.directory().join("disk/containerd");
        if what == "torn document" {
            let hex = digest.strip_prefix("sha256:").context("a digest")?;
            let blob = containerd.join("io.containerd.content.v1.content/blobs/sha256").join(hex);
            let length = fs::metadata(&blob).with_context(|| format!("find {}", blob.display()))?.len();
            // containerd makes them read-only, and so are they in fact only for others than root.
            fs::File::options().write(true).open(&blob)?.set_len(length / 2)?;
        } else {
            // The image's own layer: the one with its noise.
            let snapshots = containerd.join("io.containerd.snapshotter.v1.overlayfs/snapshots");
            let is_its = |noise: fs::Metadata| noise.len() == size(MENDED) as u64;
            for snapshot in fs::read_dir(&snapshots)? {
                let snapshot = snapshot?.path();
                if fs::metadata(snapshot.join("fs/noise")).is_ok_and(is_its) {
                    fs::remove_dir_all(snapshot)?;
                }
            }
        }
        scale(lab, "mended", 1)?;
        wait(lab, &format!("the image to be mended: {what}"), SOON, || {
            let rows = tasks(lab, "mended")?;
            let first = rows.iter().find(|row| !row.err.is_empty() && row.desired == "running");
            ensure!(first.is_none(), "it was not mended at once: {first:?}");
            Ok(rows.iter().any(|row| row.desired == "running" && row.state == "running").then_some(()))
        });
    }
    wait_log(lab, &board.agent_log(), "is damaged on this board's disk, as by a power cut");
    wait_log(lab, &board.agent_log(), "is not on the disk, pulling it again");
    Ok(())
}

/// `write_bytes` of `/proc/PID/io`: what a process gave the kernel to be written to a disk.
fn written(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).with_context(|| format!("no write_bytes in {text}"))
}

fn nothing_is_written_while_idle(lab: &Lab, board: &Board<'_>) -> Result<()> {
    let manager = lab.manager().process().context("no manager")?.pid;
    let agent = board.agent().context("no agent")?.pid;
    let now = || -> Result<[u64; 2]> { Ok([written(manager)?, written(agent)?]) };
    ensure!(now()?.iter().all(|bytes| *bytes > 0), "they wrote something when the service came: {:?}", now()?);
    // What came with the service is still being written down.
    let mut before = now()?;
    wait(lab, "writes to end", SOON, || {
        std::thread::sleep(Duration::from_secs(3));
        let last = std::mem::replace(&mut before, now()?);
        Ok((last == before).then_some(()))
    });
    std::thread::sleep(IDLE);
    assert_eq!(now()?, before, "bytes written by manager and agent, then {IDLE:?} later");
    Ok(())
}
