//! Certificates for years: they are renewed while everything runs on, whatever clocks say.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::cluster::{SOON, board_state, create, node_id, sessions, settle, sleeper, wait, wait_board, wait_log};
use crate::lab::Lab;
use crate::lab::board::Verb;
use crate::lab::guard::Guard;
use crate::lab::manager::Verb as ManagerVerb;
use crate::lab::names::MANAGER_PORT;
use crate::lab::process::run;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// When a certificate, PEM, begins and ends, in seconds since 1970.
fn validity(pem: &str) -> Result<(i64, i64)> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("certificate.pem");
    fs::write(&file, pem)?;
    let dates = run(&["openssl", "x509", "-noout", "-dates", "-dateopt", "iso_8601", "-in", &file.to_string_lossy()])?;
    let date = |name: &str| -> Result<i64> {
        let line = dates.lines().find_map(|line| line.strip_prefix(name)).context("a date")?;
        Ok(run(&["date", "-u", "-d", line, "+%s"])?.trim().parse()?)
    };
    Ok((date("notBefore=")?, date("notAfter=")?))
}

/// The certificate on a board's disk.
fn on_disk(lab: &Lab, board: u8) -> Result<(i64, i64)> {
    validity(&fs::read_to_string(lab.board(board)?.data().join("identity/cert.pem"))?)
}

/// The certificate that the manager shows.
fn shown(lab: &Lab) -> Result<(i64, i64)> {
    let address = lab.env().into_iter().find(|(key, _)| key == "LAB_MANAGER_IP").context("an address")?.1;
    let said = Command::new("timeout")
        .args(["20", "openssl", "s_client", "-tls1_3", "-connect", &format!("{address}:{MANAGER_PORT}")])
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&said.stdout);
    let begin = text.find("-----BEGIN CERTIFICATE-----").with_context(|| format!("no certificate in {text}"))?;
    validity(&text[begin..])
}

/// Waits until a board, or the manager, shows a certificate that begins so much later than this one.
fn wait_renewed(lab: &Lab, what: &str, after: i64, read: impl Fn() -> Result<(i64, i64)>) -> (i64, i64) {
    wait(lab, &format!("{what} to have a new certificate"), SOON, || {
        Ok(read().ok().filter(|(begins, _)| *begins > after))
    })
}

/// Waits until a board's agent has opened more sessions than this, and is ready.
#[track_caller]
fn wait_sessions(lab: &Lab, board: u8, before: usize) {
    wait(lab, "a new session", SOON, || Ok((sessions(lab, board)? > before).then_some(())));
    wait_board(lab, board, "ready", SOON);
}

/// Takes a board that runs no tasks out of the cluster, and lets it join with a clock that is so many seconds off.
fn join_anew(lab: &Lab, board: u8, seconds: i64) -> Result<()> {
    let id = node_id(lab, board)?;
    lab.board(board)?.act(Verb::KillAgent)?;
    lab.manager().pi_mgr(&["node", "rm", "--force", &id])?;
    fs::remove_dir_all(lab.board(board)?.data().join("identity"))?;
    lab.set_clock(&format!("board{board}"), seconds)?;
    lab.board(board)?.join(&lab.manager().worker_token()?)?;
    lab.board(board)?.act(Verb::StartAgent)?;
    wait_board(lab, board, "ready", SOON);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn certificates_renew_whatever_clocks_say() -> Result<()> {
    let lab = Guard::cluster(3)?;
    let manager = lab.manager();
    let socket = format!("unix://{}", manager.socket().display());
    // Boards whose clocks are far off join, and stay.
    join_anew(&lab, 2, -20_000 * DAY)?;
    join_anew(&lab, 3, 26_000 * DAY)?;
    run(&["docker", "-H", &socket, "swarm", "update", "--cert-expiry", "1h"])?;
    let refused = run(&["docker", "-H", &socket, "swarm", "update", "--cert-expiry", "59m"]);
    ensure!(refused.is_err(), "59 minutes are too short");
    create(&lab, &sleeper(&lab, "web", 3))?;
    settle(&lab, &[("web", 3)]);
    manager.act(ManagerVerb::Kill)?;
    lab.set_clock("manager", 0)?;
    manager.act(ManagerVerb::Start)?;
    for board in 1..=3 {
        wait_board(&lab, board, "ready", SOON);
    }
    let tasks = settle(&lab, &[("web", 3)]);

    renewed_in_sessions(&lab, 50 * 60)?;
    assert_eq!(settle(&lab, &[("web", 3)]), tasks, "no task was touched");

    // The certificates of boards that are off expire. (They are off for less than it takes to miss them.)
    let opened: Vec<usize> = (1..=3).map(|board| sessions(&lab, board)).collect::<Result<_>>()?;
    for board in [1, 2] {
        lab.board(board)?.act(Verb::KillAgent)?;
    }
    lab.set_clock("manager", 5 * HOUR)?;
    for board in [1, 2] {
        lab.board(board)?.act(Verb::StartAgent)?;
        wait_log(&lab, &lab.board(board)?.agent_log(), "this node's certificate has expired");
        wait_renewed(&lab, &format!("board {board}"), this_clock()? + 3 * HOUR, || on_disk(&lab, board));
        wait_sessions(&lab, board, opened[usize::from(board) - 1]);
    }
    assert_eq!(settle(&lab, &[("web", 3)]), tasks, "their tasks were taken up");

    // A clock that goes back does not sign what is over for those that saw the later time.
    let before = wait_renewed(&lab, "the manager", this_clock()? + 3 * HOUR, || shown(&lab));
    let opened: Vec<usize> = (1..=3).map(|board| sessions(&lab, board)).collect::<Result<_>>()?;
    manager.act(ManagerVerb::Kill)?;
    lab.set_clock("manager", -DAY)?;
    manager.act(ManagerVerb::Start)?;
    for board in 1..=3 {
        wait_sessions(&lab, board, opened[usize::from(board) - 1]);
    }
    ensure!(shown(&lab)?.1 + 1200 > before.1, "it signs at the last time that it signed at");
    assert_eq!(settle(&lab, &[("web", 3)]), tasks, "no task was touched");

    // Nor does one that shows a time at which no root is valid lock anybody out.
    lab.set_clock("manager", 26_000 * DAY)?;
    lab.board(3)?.act(Verb::KillAgent)?;
    let opened = sessions(&lab, 3)?;
    lab.board(3)?.act(Verb::StartAgent)?;
    wait_sessions(&lab, 3, opened);
    assert_eq!(settle(&lab, &[("web", 3)]), tasks, "no task was touched");
    Ok(())
}

/// This machine's clock, in seconds since 1970.
fn this_clock() -> Result<i64> {
    Ok(run(&["date", "+%s"])?.trim().parse()?)
}

/// The manager's clock goes on by so many seconds: it renews its own certificate, and boards theirs in their sessions.
fn renewed_in_sessions(lab: &Lab, seconds: i64) -> Result<()> {
    let opened: Vec<usize> = (1..=3).map(|board| sessions(lab, board)).collect::<Result<_>>()?;
    let before: Vec<_> = (1..=3).map(|board| on_disk(lab, board)).collect::<Result<_>>()?;
    let own = shown(lab)?;
    lab.set_clock("manager", seconds)?;
    wait_renewed(lab, "the manager", own.0 + seconds / 2, || shown(lab));
    for board in 1..=3 {
        let old = before[usize::from(board) - 1];
        let (begins, ends) = wait_renewed(lab, &format!("board {board}"), old.0 + seconds / 2, || on_disk(lab, board));
        // An hour, and the hour that it begins earlier.
        ensure!(ends - begins == 2 * HOUR, "it lasts as long as was asked for: {begins} to {ends}");
        wait_log(lab, &lab.board(board)?.agent_log(), "this board has its new certificate");
        assert_eq!(board_state(lab, board)?, "ready");
    }
    wait_log(lab, &lab.manager().log(), "has a new certificate");
    std::thread::sleep(Duration::from_millis(100));
    let still: Vec<usize> = (1..=3).map(|board| sessions(lab, board)).collect::<Result<_>>()?;
    assert_eq!(still, opened, "no session was opened anew");
    Ok(())
}
