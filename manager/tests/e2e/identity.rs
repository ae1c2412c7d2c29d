//! Who is whom: boards that are removed, that leave, and that are copies of others.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::cluster::{SOON, board_state, create, get, node_id, picture, settle, sleeper, wait, wait_board, wait_log};
use crate::lab::Lab;
use crate::lab::board::{Board, Verb};
use crate::lab::guard::Guard;
use crate::lab::manager;
use crate::lab::process::run;
use crate::support::{docker, has};

/// Runs `pi-agent` on a board; whether it went well, and what it said.
fn agent(lab: &Lab, board: Board, command: &str) -> Result<(bool, String)> {
    let env = lab.env();
    let programs = env.into_iter().find(|(key, _)| key == "LAB_BIN_DIR").context("LAB_BIN_DIR")?.1;
    let program = PathBuf::from(programs).join("pi-agent").display().to_string();
    let (data, run) = (board.data().display().to_string(), board.directory().join("run/agent").display().to_string());
    let containerd = board.containerd().display().to_string();
    let words = [program.as_str(), command, "--data-dir", &data, "--run-dir", &run, "--containerd", &containerd];
    let line = board.on_its_network(&words);
    let output = Command::new(&line[0]).args(&line[1..]).output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

/// What a board's agent has logged from here on.
fn since(board: Board, mark: usize) -> Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(board.agent_log())?[mark..]).into_owned())
}

fn mark(board: Board) -> Result<usize> {
    Ok(fs::read(board.agent_log())?.len())
}

#[track_caller]
fn wait_since(lab: &Lab, board: Board, mark: usize, words: &str) {
    let what = format!("board {} to say {words:?}", board.number);
    wait(lab, &what, SOON, || Ok(since(board, mark)?.contains(words).then_some(())));
}

fn restart(lab: &Lab, board: Board) -> Result<usize> {
    board.act(Verb::KillAgent)?;
    wait(lab, "the agent to end", SOON, || Ok(board.agent().is_none().then_some(())));
    let mark = mark(board)?;
    board.act(Verb::StartAgent)?;
    Ok(mark)
}

fn names(board: Board) -> Result<String> {
    board.ctr(&["containers", "ls", "-q"])
}

#[test]
#[ignore = "needs root"]
fn boards_are_removed_leave_and_are_told_apart() -> Result<()> {
    let lab = Guard::cluster(2)?;
    create(&lab, &sleeper(&lab, "web", 2))?;
    settle(&lab, &[("web", 2)]);
    removed(&lab)?;
    leaves(&lab)?;
    leaves_without_an_agent(&lab)?;
    copied(&lab)
}

/// As in Docker: other boards go on.
#[test]
#[ignore = "needs root"]
fn the_end_of_the_cluster_is_that_of_the_managers_own_tasks() -> Result<()> {
    let lab = Guard::with_own_board(1)?;
    let (own, other) = (lab.board(0)?, lab.board(1)?);
    let everywhere = || -> Result<()> {
        let options = ["--mode", "global", "--stop-grace-period", "300ms"];
        crate::support::create(&lab, "all", &options, &["sleep", "100000"])?;
        wait(&lab, "the journal to have it", SOON, || Ok((!names(own)?.is_empty() && journals(own) > 0).then_some(())));
        Ok(())
    };
    let gone = || {
        wait(&lab, "its containers to go", SOON, || Ok(names(own)?.is_empty().then_some(())));
        wait(&lab, "the journal to go", SOON, || Ok((journals(own) == 0).then_some(())));
    };
    everywhere()?;
    let before = wait(&lab, "both boards to run it", SOON, || {
        Ok(Some(crate::cluster::running(&lab)?).filter(|running| running.len() == 2))
    });
    let from = (mark(own)?, mark(other)?);
    docker(&lab, &["swarm", "leave", "--force"])?.good()?;
    wait_since(&lab, own, from.0, "this board's manager has left its cluster");
    gone();
    let there = before.into_iter().filter(|(_, (board, _))| *board == 1).collect();
    assert_eq!(crate::cluster::running(&lab)?, there);
    assert!(!since(other, from.1)?.contains("tasks are stopped"));

    // Its agent is soon in the next cluster, and hears of that one's end also if it was not there.
    docker(&lab, &["swarm", "init", "--advertise-addr", "127.0.0.1"])?.good()?;
    everywhere()?;
    own.act(Verb::KillAgent)?;
    wait(&lab, "the agent to end", SOON, || Ok(own.agent().is_none().then_some(())));
    docker(&lab, &["swarm", "leave", "--force"])?.good()?;
    assert!(!names(own)?.is_empty());
    own.act(Verb::StartAgent)?;
    gone();
    Ok(())
}

/// How many slots of its journal a board has.
fn journals(board: Board) -> usize {
    ["journal.0", "journal.1"].into_iter().filter(|slot| board.data().join(slot).exists()).count()
}

/// `node rm` locks a board out at once and for good; a token lets it in as another node.
fn removed(lab: &Lab) -> Result<()> {
    let (board, id) = (lab.board(1)?, node_id(lab, 1)?);
    let (_, said) = docker(lab, &["node", "rm", &id])?.bad()?;
    has(&said, &format!("node {id} is not down and can't be removed"));
    let from = mark(board)?;
    docker(lab, &["node", "rm", "--force", &id])?.good()?;
    wait_since(lab, board, from, "join it again with `pi-agent join`; this board's tasks are stopped");
    settle(lab, &[("web", 2)]);
    assert_eq!(board_state(lab, 1)?, "", "{}", picture(lab));
    wait(lab, "its containers to go", SOON, || Ok(names(board)?.is_empty().then_some(())));
    // It stays so: when its agent starts again, and when the manager has.
    let from = restart(lab, board)?;
    wait_since(lab, board, from, "is not a member of the cluster (was it removed?)");
    lab.manager().act(manager::Verb::Kill)?;
    lab.manager().act(manager::Verb::Start)?;
    let from = restart(lab, board)?;
    wait_since(lab, board, from, "is not a member of the cluster (was it removed?)");
    wait_board(lab, 2, "ready", SOON);
    assert_eq!(board_state(lab, 1)?, "");
    // The running agent takes it up.
    board.join(&lab.manager().worker_token()?)?;
    wait_board(lab, 1, "ready", SOON);
    assert_ne!(node_id(lab, 1)?, id);
    Ok(())
}

/// The manager knows at once, and nothing of the cluster stays on the board.
fn leaves(lab: &Lab) -> Result<()> {
    let (board, id) = (lab.board(1)?, node_id(lab, 1)?);
    // A member is not joined again: its node would be left behind with its tasks.
    let refused = board.join(&lab.manager().worker_token()?).expect_err("it is a member").to_string();
    has(&refused, &format!("already part of a cluster, as node {id}: `pi-agent leave` first"));
    // It gets a task again.
    crate::cluster::scale(lab, "web", 3)?;
    settle(lab, &[("web", 3)]);
    assert!(!names(board)?.is_empty());
    let begun = Instant::now();
    let leaving = std::thread::scope(|scope| {
        let leaving = scope.spawn(|| agent(lab, board, "leave"));
        wait_board(lab, 1, "down", SOON);
        let down = begun.elapsed();
        assert!(down < Duration::from_secs(2), "it is down after {down:?}");
        leaving.join().expect("it ends")
    });
    assert_eq!(leaving?, (true, "Node left the swarm.\n".to_owned()));
    assert_eq!(names(board)?, "", "{}", picture(lab));
    assert!(!board.data().join("identity").exists());
    has(&get(lab, &format!("/nodes/{id}"))?["Status"]["Message"].to_string(), "left");
    settle(lab, &[("web", 3)]);
    // It is in no cluster, and the manager may forget it without force.
    let (done, said) = agent(lab, board, "leave")?;
    assert!(!done && said.contains("This node is not part of a swarm"), "{said}");
    docker(lab, &["node", "rm", &id])?.good()?;
    board.join(&lab.manager().worker_token()?)?;
    wait_board(lab, 1, "ready", SOON);
    assert_ne!(node_id(lab, 1)?, id);
    Ok(())
}

fn leaves_without_an_agent(lab: &Lab) -> Result<()> {
    let (board, id) = (lab.board(1)?, node_id(lab, 1)?);
    crate::cluster::scale(lab, "web", 4)?;
    settle(lab, &[("web", 4)]);
    board.act(Verb::KillAgent)?;
    board.act(Verb::Cut)?;
    let (done, said) = agent(lab, board, "leave")?;
    assert!(done, "{said}");
    has(&said, "Node left the swarm.\nThe manager does not know: no manager was reached within 20 s.");
    has(&said, &format!("pi-mgr node rm {id}"));
    assert_eq!(names(board)?, "", "containers that ran on are gone");
    board.act(Verb::Heal)?;
    wait_board(lab, 1, "down", SOON);
    docker(lab, &["node", "rm", &id])?.good()?;
    Ok(())
}

/// The second of two boards with one key is refused and told what to do; the first does not notice.
fn copied(lab: &Lab) -> Result<()> {
    let (copy, first) = (lab.board(1)?, lab.board(2)?);
    let (before, id, from_first) = (settle(lab, &[("web", 4)]), node_id(lab, 2)?, mark(first)?);
    fs::remove_dir_all(copy.data())?;
    run(&["cp", "-a", &first.data().display().to_string(), &copy.data().display().to_string()])?;
    let from = mark(copy)?;
    copy.act(Verb::StartAgent)?;
    wait_since(lab, copy, from, "run `pi-agent reset-identity`, then `pi-agent join`");
    wait_log(lab, &lab.manager().log(), &format!("node {id}: a second board with its key"));
    assert_eq!(board_state(lab, 2)?, "ready");
    assert_eq!(get(lab, &format!("/nodes/{id}"))?["Status"]["Addr"], first.address().to_string().as_str());
    assert_eq!(settle(lab, &[("web", 4)]), before, "the first's tasks run on");
    assert_eq!(since(first, from_first)?, "", "the first has nothing to say");

    let (done, said) = agent(lab, copy, "reset-identity")?;
    assert!(!done && said.contains("stop it first"), "{said}");
    copy.act(Verb::KillAgent)?;
    let (done, said) = agent(lab, copy, "reset-identity")?;
    assert!(done && said.contains("identity is erased") && said.contains("pi-agent join --token"), "{said}");
    assert!(!copy.data().join("identity").exists() && !copy.data().join("wireguard.key").exists());
    copy.join(&lab.manager().worker_token()?)?;
    copy.act(Verb::StartAgent)?;
    wait_board(lab, 1, "ready", SOON);
    assert_ne!(node_id(lab, 1)?, id);
    assert_eq!((node_id(lab, 2)?, settle(lab, &[("web", 4)])), (id, before));
    Ok(())
}
