//! Published ports beside the board's own programs, over IPv6, and what is left when their services are gone.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{SOON, busybox, create, get, live, node_id, remove, settle, tasks, wait};
use crate::lab::Lab;
use crate::lab::board::Board;
use crate::lab::guard::Guard;
use crate::lab::process::run;

/// Time for a taken port to be told, or tried again: twice as often as that is done.
const TOLD: Duration = Duration::from_secs(50);

/// A web server of the board's own. Its page is `mine`.
struct Program(Child);

impl Program {
    fn start(lab: &Lab, board: &Board<'_>, port: u16) -> Result<Self> {
        let page = board.directory().join("page");
        fs::create_dir_all(&page)?;
        fs::write(page.join("index.html"), "mine")?;
        let argv =
            board.on_its_network(&["busybox", "httpd", "-f", "-p", &port.to_string(), "-h", &page.to_string_lossy()]);
        let child = Command::new(&argv[0]).args(&argv[1..]).stdin(Stdio::null()).spawn()?;
        let program = Self(child);
        wait(lab, "the board's own program to answer", SOON, || {
            Ok(ask(board, "127.0.0.1", port).filter(|page| page.contains("mine")))
        });
        Ok(program)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What answers at an address of the board's network; none: nothing.
fn ask(board: &Board<'_>, address: &str, port: u16) -> Option<String> {
    let script = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 3 busybox nc {address} {port}");
    let argv = board.on_its_network(&["sh", "-c", &script]);
    let output = Command::new(&argv[0]).args(&argv[1..]).stderr(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned()).filter(|text| text.starts_with("HTTP/1."))
}

fn degraded(lab: &Lab, board: u8) -> Result<String> {
    let node = get(lab, &format!("/nodes/{}", node_id(lab, board)?))?;
    Ok(node["Description"]["Engine"]["Labels"]["io.racimo.degraded"].as_str().unwrap_or_default().to_owned())
}

/// A service whose task answers on port 80 that there is no such page.
fn web(lab: &Lab, name: &str, published: u16, mode: &str) -> Value {
    let mut spec = busybox(lab, name, 1, &["httpd", "-f", "-p", "80"]);
    spec["EndpointSpec"] =
        json!({"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": published, "PublishMode": mode}]});
    spec
}

#[track_caller]
fn wait_answers(lab: &Lab, board: u8, address: &str, port: u16) {
    wait(lab, &format!("[{address}]:{port} of board {board} to answer"), SOON, || {
        Ok(ask(&lab.board(board)?, address, port).filter(|page| page.contains("404")))
    });
}

#[test]
#[ignore = "needs root"]
fn a_boards_programs_keep_their_ports_and_published_ones_answer_on_ipv6() -> Result<()> {
    let lab = Guard::cluster(2)?;
    a_port_of_the_mesh_waits(&lab)?;
    a_port_of_a_task_rejects_it(&lab)?;
    nothing_is_left(&lab)
}

fn a_port_of_the_mesh_waits(lab: &Lab) -> Result<()> {
    let (first, second) = (lab.board(1)?, lab.board(2)?);
    let program = Program::start(lab, &second, 8080)?;
    create(lab, &web(lab, "web", 8080, "ingress"))?;
    settle(lab, &[("web", 1)]);
    for address in ["127.0.0.1", "::1", &first.address().to_string()] {
        wait_answers(lab, 1, address, 8080);
    }
    let told = "port 8080/tcp is taken on this board by another program";
    wait(lab, "board 2 to tell of the taken port", TOLD, || Ok(degraded(lab, 2)?.contains(told).then_some(())));
    assert_eq!(degraded(lab, 1)?, "");
    let kept = ask(&second, "127.0.0.1", 8080).context("the program does not answer")?;
    ensure!(kept.contains("mine"), "the program lost its port: {kept}");

    drop(program);
    for address in ["127.0.0.1", "::1", &second.address().to_string()] {
        wait_answers(lab, 2, address, 8080);
    }
    wait(lab, "board 2 to tell that all is well", TOLD, || Ok(degraded(lab, 2)?.is_empty().then_some(())));
    remove(lab, "web")?;
    settle(lab, &[]);
    wait(lab, "the port to be closed", SOON, || Ok(ask(&first, "::1", 8080).is_none().then_some(())));
    Ok(())
}

fn a_port_of_a_task_rejects_it(lab: &Lab) -> Result<()> {
    let first = lab.board(1)?;
    let program = Program::start(lab, &first, 8081)?;
    let mut spec = web(lab, "single", 8081, "host");
    spec["TaskTemplate"]["Placement"] = json!({"Constraints": ["node.hostname==board1"]});
    create(lab, &spec)?;
    let told = "port 8081/tcp is taken on this board by another program";
    wait(lab, "a task to be rejected", SOON, || {
        let rows = tasks(lab, "single")?;
        Ok(rows.iter().any(|row| row.state == "rejected" && row.err.contains(told)).then_some(()))
    });
    drop(program);
    wait(lab, "a task to run", SOON, || Ok((live(lab, "single")?.len() == 1).then_some(())));
    for address in ["127.0.0.1", "::1"] {
        wait_answers(lab, 1, address, 8081);
    }
    // It is that board's port, and no other's.
    ensure!(ask(&lab.board(2)?, "127.0.0.1", 8081).is_none(), "board 2 answers");
    remove(lab, "single")?;
    settle(lab, &[]);
    Ok(())
}

/// All that networks make on a board, by name.
fn things(board: &Board<'_>) -> Result<Vec<String>> {
    let inside = |command: &[&str]| -> Result<String> {
        let argv = board.on_its_network(command);
        run(&argv.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let names = |text: String| -> Vec<String> {
        // Without indexes and counters.
        let mut names: Vec<String> = text
            .lines()
            .filter_map(|line| Some(line.split_whitespace().next()?.split('@').next()?.to_owned()))
            .collect();
        names.sort();
        names
    };
    let mut all = names(inside(&["ip", "-br", "link"])?);
    all.extend(inside(&["nft", "list", "table", "ip", "racimo"])?.lines().map(|line| line.trim().to_owned()));
    all.extend(inside(&["ip", "route", "show", "table", "all"])?.lines().map(|line| line.trim().to_owned()));
    let directory = board.directory().to_string_lossy().into_owned();
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|path| path.starts_with(&directory));
    all.extend(mounts.filter(|path| path.contains("/netns/")).map(str::to_owned));
    all.extend(run(&["find", &directory, "-path", "*/netns/*"])?.lines().map(str::to_owned));
    let listening = inside(&["cat", "/proc/net/tcp", "/proc/net/tcp6", "/proc/net/udp", "/proc/net/udp6"])?;
    let port = |line: &str| Some(line.split_whitespace().nth(1)?.split(':').nth(1)?.to_owned());
    let ours = |port: &String| matches!(u16::from_str_radix(port, 16), Ok(9000..=9099));
    all.extend(listening.lines().filter_map(port).filter(ours));
    all.sort();
    Ok(all)
}

fn nothing_is_left(lab: &Lab) -> Result<()> {
    let boards = [lab.board(1)?, lab.board(2)?];
    // What the first network of all makes stays.
    let before = boards.each_ref().map(|board| things(board));
    let before: Vec<Vec<String>> = before.into_iter().collect::<Result<_>>()?;
    for round in 0..3_u16 {
        let names: Vec<String> = (0..4).map(|number| format!("s{round}{number}")).collect();
        for (number, name) in (0_u16..).zip(&names) {
            let mode = if number == 3 { "host" } else { "ingress" };
            create(lab, &web(lab, name, 9000 + 4 * round + number, mode))?;
        }
        let wanted: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 1)).collect();
        settle(lab, &wanted);
        wait_answers(lab, 2, "::1", 9000 + 4 * round);
        for name in &names {
            remove(lab, name)?;
        }
        settle(lab, &[]);
    }
    for (board, before) in boards.iter().zip(&before) {
        wait(lab, &format!("nothing to be left on board {}", board.number), SOON, || {
            let now = things(board)?;
            if now != *before {
                let new: Vec<&String> = now.iter().filter(|thing| !before.contains(thing)).collect();
                eprintln!("board {}: {new:?}", board.number);
            }
            Ok((now == *before).then_some(()))
        });
    }
    Ok(())
}
