//! The lab itself, with real containerds and a real registry (root; `make
//! test-root`).

#[path = "lab/mod.rs"]
mod lab;

use std::time::Duration;

use anyhow::Result;
use lab::board::{Board, Verb};
use lab::guard::Guard;
use lab::http::{Target, request};
use lab::image::{Image, Platform};
use lab::process::wait_for;
use lab::{down, leftovers};

fn run(board: &Board<'_>, image: &str, id: &str) -> Result<()> {
    board.ctr(&["images", "pull", "--plain-http", image])?;
    start(board, image, id)
}

fn start(board: &Board<'_>, image: &str, id: &str) -> Result<()> {
    let cgroup = format!("/racimo/{id}");
    board.ctr(&["run", "-d", "--net-host", "--cgroup", &cgroup, image, id]).map(drop)
}

/// Waits until the web server on a board answers, or does not.
#[track_caller]
fn expect_page(board: &Board<'_>, there: bool) {
    let target = Target::Tcp((board.address(), 8080).into());
    let got = wait_for("the page to come or go", Duration::from_secs(20), || {
        let page = request(&target, "GET", "/", "", &[]);
        let answers = page.is_ok_and(|page| page.status == 200 && page.text().contains("Hello from"));
        Ok((answers == there).then_some(()))
    });
    got.expect("the page is as expected");
}

#[test]
#[ignore = "needs root"]
fn boards_lose_and_regain_cable_and_power() -> Result<()> {
    let lab = Guard::bare(2)?;
    let (one, two) = (lab.board(1)?, lab.board(2)?);
    let web = format!("{}/web:latest", lab.registry().host());
    let id = format!("web-{}", lab.name);
    run(&one, &web, &id)?;
    expect_page(&one, true);

    one.act(Verb::Cut)?;
    expect_page(&one, false);
    one.act(Verb::Heal)?;
    expect_page(&one, true);

    one.act(Verb::PowerOff)?;
    assert!(!one.is_on() && two.is_on(), "only board 1 is off");
    expect_page(&one, false);
    assert!(one.act(Verb::Cut).is_err(), "a board without power has nothing to cut");

    one.act(Verb::PowerOn)?;
    assert!(one.act(Verb::PowerOn).is_err(), "it is on");
    assert_eq!(one.ctr(&["tasks", "ls", "-q"])?.trim(), "", "no container survives");
    assert_eq!(one.ctr(&["containers", "ls", "-q"])?.trim(), id, "the disk survives");
    // The same container from the same disk: nothing of its last life is in the way.
    one.ctr(&["tasks", "start", "--detach", &id])?;
    expect_page(&one, true);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn two_labs_and_a_crashed_one() -> Result<()> {
    let (left, right) = (Guard::bare(1)?, Guard::bare(1)?);
    assert_ne!(left.board(1)?.address(), right.board(1)?.address());
    // A tool that died half way leaves its directory and some of the network.
    let name = right.name.clone();
    std::fs::remove_dir_all(right.directory.join("pid"))?;
    std::fs::remove_file(right.directory.join("lab.json"))?;
    assert!(down(&name)?, "it was there");
    leftovers::expect_none(&name)?;
    assert!(left.board(1)?.is_on(), "the other lab runs on");
    assert!(!down(&name)?, "there is nothing to end");
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn images_of_every_kind_can_be_pushed() -> Result<()> {
    let lab = Guard::bare(1)?;
    let (registry, board) = (lab.registry(), lab.board(1)?);
    let pull = |name: &str| board.ctr(&["images", "pull", "--plain-http", &format!("{}/{name}", registry.host())]);

    registry.push("false", "latest", &Image::busybox(&["false"])?)?;
    pull("false:latest")?;
    let foreign = Image::busybox_for(Platform::foreign(), &["sh"])?;
    registry.push("foreign", "single", &foreign)?;
    registry.push_index("foreign", "latest", std::slice::from_ref(&foreign))?;
    assert!(pull("foreign:latest").is_err(), "no image for this platform");
    let digest = registry.push_index("multi", "1", &[foreign, Image::busybox(&["true"])?])?;
    pull(&format!("multi@{digest}"))?;
    registry.push("big", "latest", &Image::big(4 << 20)?)?;
    pull("big:latest")?;

    registry.kill()?;
    assert!(pull("web:latest").is_err(), "the registry is dead");
    lab.start_registry()?;
    pull("web:latest")?;
    Ok(())
}
