//! Who may not join, who may not talk, and that members do not notice.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::cluster::{SOON, board_state, create, node_id, picture, settle, sleeper, wait_board, wait_log};
use crate::lab::Lab;
use crate::lab::board::Verb;
use crate::lab::guard::Guard;
use crate::lab::names::MANAGER_PORT;
use crate::lab::process::run;

/// More than the manager lets wait at its door.
const FLOOD: usize = 400;

fn env(lab: &Lab, name: &str) -> String {
    lab.env().into_iter().find(|(key, _)| key == name).map(|(_, value)| value).unwrap_or_default()
}

pub(crate) fn door(lab: &Lab) -> Result<SocketAddr> {
    format!("{}:{MANAGER_PORT}", env(lab, "LAB_MANAGER_IP")).parse().context("the manager's address")
}

/// Tries to join from this machine; what the agent said.
pub(crate) fn join(lab: &Lab, token: &str, data: &Path) -> Result<(bool, String)> {
    let agent = PathBuf::from(env(lab, "LAB_BIN_DIR")).join("pi-agent");
    let output = Command::new(agent)
        .args(["join", "--token", token, "--data-dir"])
        .arg(data)
        .arg(door(lab)?.to_string())
        .output()?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

#[test]
#[ignore = "needs root"]
fn strangers_are_refused_and_members_do_not_notice() -> Result<()> {
    let (lab, other) = (Guard::cluster(1)?, Guard::cluster(1)?);
    create(&lab, &sleeper(&lab, "web", 2))?;
    let before = settle(&lab, &[("web", 2)]);
    tokens(&lab, &other)?;
    foreign_certificates(&lab)?;
    noise(&lab)?;
    flood(&lab)?;
    assert_eq!(before, settle(&lab, &[("web", 2)]), "members did not notice");
    Ok(())
}

fn tokens(lab: &Lab, other: &Lab) -> Result<()> {
    let good = lab.manager().worker_token()?;
    let (root, secret) = good.rsplit_once('-').context("a token has parts")?;
    let flipped: String = secret.chars().map(|c| if c == '1' { '2' } else { '1' }).collect();
    let cases = [
        (format!("{root}-{flipped}"), "A valid join token is necessary to join this cluster"),
        (other.manager().worker_token()?, "the token is of another cluster"),
        ("rubbish".to_owned(), "SWMTKN-1-"),
        (format!("SWMTKN-1-{}-{secret}", "z".repeat(50)), "token"),
        (format!("{good}0"), "token"),
        (String::new(), "token"),
    ];
    for (token, want) in cases {
        let data = lab.directory.join("stranger");
        let (joined, said) = join(lab, &token, &data)?;
        assert!(!joined && said.contains(want), "{token:?}: {said}");
        assert!(!data.exists() || fs::read_dir(&data)?.next().is_none(), "{token:?}: nothing is kept");
        assert!(!said.contains(&flipped) && !said.contains(secret), "{token:?}: no secret is shown: {said}");
    }
    wait_log(lab, &lab.manager().log(), "was refused: A valid join token is necessary");
    let log = fs::read_to_string(lab.manager().log())?;
    assert!(!log.contains(secret) && !log.contains(&flipped), "no secret in the log");
    Ok(())
}

/// The name of a real member, signed by somebody else.
fn foreign_certificates(lab: &Lab) -> Result<()> {
    let dir = lab.directory.join("forged");
    fs::create_dir(&dir)?;
    let (key, certificate) = (dir.join("key.pem").display().to_string(), dir.join("cert.pem").display().to_string());
    let cluster = lab.manager().api("GET", "/swarm", None)?.json()?;
    let cluster = cluster["ID"].as_str().context("the cluster's id")?.to_owned();
    let subject = format!("/O={cluster}/OU=swarm-worker/CN={}", node_id(lab, 1)?);
    let curve = "ec_paramgen_curve:P-256";
    run(&[
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        curve,
        "-nodes",
        "-days",
        "9",
        "-subj",
        &subject,
        "-keyout",
        &key,
        "-out",
        &certificate,
    ])?;
    let door = door(lab)?.to_string();
    let said = Command::new("timeout")
        .args([
            "20",
            "openssl",
            "s_client",
            "-tls1_3",
            "-quiet",
            "-connect",
            &door,
            "-cert",
            &certificate,
            "-key",
            &key,
        ])
        .stdin(std::process::Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("alert"), "it is told so: {said}");
    wait_log(lab, &lab.manager().log(), "invalid peer certificate");
    assert_eq!(board_state(lab, 1)?, "ready", "the real one is untouched");
    Ok(())
}

fn noise(lab: &Lab) -> Result<()> {
    let mut rng = fastrand::Rng::with_seed(5);
    let mut random = vec![0; 5000];
    rng.fill(&mut random);
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &random, &[0x16, 3, 1, 0xff, 0xff], b""] {
        let mut stream = TcpStream::connect(door(lab)?)?;
        // It may hang up on us before everything is written.
        let _ = stream.write_all(bytes);
    }
    wait_log(lab, &lab.manager().log(), "TLS handshake");
    Ok(())
}

fn flood(lab: &Lab) -> Result<()> {
    let door = door(lab)?;
    let held: Vec<TcpStream> =
        (0..FLOOD).filter_map(|_| TcpStream::connect_timeout(&door, Duration::from_secs(5)).ok()).collect();
    assert!(held.len() > FLOOD / 2, "only {} connections were made", held.len());
    wait_log(lab, &lab.manager().log(), "was turned away: too many connections");
    for _ in 0..10 {
        sleep(Duration::from_millis(500));
        assert_eq!(board_state(lab, 1)?, "ready", "{}", picture(lab));
    }
    drop(held);
    let board = lab.board(1)?;
    board.act(Verb::KillAgent)?;
    board.act(Verb::StartAgent)?;
    wait_log(lab, &board.agent_log(), "containers found on this board");
    wait_board(lab, 1, "ready", SOON);
    Ok(())
}
