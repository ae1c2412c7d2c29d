//! `kill -9` at any moment, of any part, and power cuts: while images are pulled, tasks replaced and files written.
//! What was acknowledged holds, nothing is left half, and nobody joins twice.
//!
//! A few rounds here; hundreds by `make test-kills KILLS=300`.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::cluster::{SOON, busybox, create, get, node_id, picture, running, settle, update, wait};
use crate::lab::Lab;
use crate::lab::board::Verb;
use crate::lab::guard::Guard;
use crate::lab::image::{Image, noise};
use crate::lab::manager;

/// Rounds unless `RACIMO_KILLS` says otherwise; each kills one part.
const ROUNDS: u32 = 6;
const BOARDS: u8 = 2;
const REPLICAS: usize = 4;
/// Bytes of the layer that only one round's image has: its pull takes a while.
const LAYER: usize = 8 << 20;
/// Until the kill, ms: from before a pull begins until the last task has started.
const MOMENT: std::ops::Range<u64> = 0..3000;

/// How often a change is tried that another one may overtake.
const TRIES: u32 = 20;

/// Who dies.
#[derive(Debug, Clone, Copy)]
enum Victim {
    Manager,
    Agent(u8),
    Containerd(u8),
    /// Everything on the board; what is not on its disk is lost.
    Power(u8),
}

impl Victim {
    fn draw(rng: &mut fastrand::Rng) -> Self {
        let board = rng.u8(1..=BOARDS);
        match rng.u8(0..4) {
            0 => Self::Manager,
            1 => Self::Agent(board),
            2 => Self::Containerd(board),
            _ => Self::Power(board),
        }
    }

    fn kill(self, lab: &Lab) -> Result<()> {
        match self {
            Self::Manager => lab.manager().act(manager::Verb::Kill),
            Self::Agent(board) => lab.board(board)?.act(Verb::KillAgent),
            Self::Containerd(board) => lab.board(board)?.containerd_process().context("no containerd")?.kill(),
            Self::Power(board) => lab.board(board)?.act(Verb::PowerOff),
        }
    }

    fn start(self, lab: &Lab) -> Result<()> {
        match self {
            Self::Manager => lab.manager().act(manager::Verb::Start),
            Self::Agent(board) => lab.board(board)?.act(Verb::StartAgent),
            Self::Containerd(board) => lab.board(board)?.start_containerd(),
            Self::Power(board) => lab.board(board)?.act(Verb::PowerOn),
        }
    }
}

/// What a client was told: configs by name with the id it got; and the image of `web`, or what it may be.
#[derive(Debug, Default)]
struct Told {
    configs: BTreeMap<String, String>,
    /// Asked for and not answered.
    asked: Vec<String>,
    images: Vec<String>,
}

fn config(lab: &Lab, name: &str) -> Result<String> {
    let spec = json!({"Name": name, "Data": "YWxsIG9mIGl0"});
    let answer = lab.manager().api("POST", "/configs/create", Some(&spec))?;
    ensure!(answer.status == 201, "config: status {}: {}", answer.status, answer.text());
    Ok(answer.json()?["ID"].as_str().context("no ID")?.to_owned())
}

/// Changes one thing after the other until it is told to end; only a manager that dies may refuse anything.
fn ask(lab: &Lab, round: u32, image: &str, told: &mut Told, end: &AtomicBool, dies: bool) -> Result<()> {
    told.images.push(image.to_owned());
    // The end of the update before may be written meanwhile, and counts as another's change.
    let mut tries =
        (0..TRIES).map(|_| update(lab, "web", |spec| spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!(image)));
    match tries.find(|taken| taken.is_ok() || dies && lab.manager().process().is_none()) {
        Some(Ok(())) => told.images = vec![image.to_owned()],
        Some(Err(_)) => return Ok(()),
        None => bail!("the update to {image} was refused {TRIES} times"),
    }
    for number in 0.. {
        if end.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("r{round}-{number}");
        match config(lab, &name) {
            Ok(id) => drop(told.configs.insert(name, id)),
            Err(_) if dies => {
                told.asked.push(name);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Everything that was told is there, whole; and nothing that nobody asked for.
fn judge(lab: &Lab, told: &mut Told) -> Result<()> {
    let configs = get(lab, "/configs")?;
    let mut found = BTreeMap::new();
    for config in configs.as_array().context("configs: expected a list")? {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        ensure!(config["Spec"]["Data"] == "YWxsIG9mIGl0", "half of a config: {config}");
        found.insert(text(&config["Spec"]["Name"]), text(&config["ID"]));
    }
    for (name, id) in &told.configs {
        ensure!(found.get(name) == Some(id), "{name} ({id}) was acknowledged and is lost");
    }
    for name in found.keys() {
        ensure!(told.configs.contains_key(name) || told.asked.contains(name), "nobody asked for {name}");
    }
    let service = get(lab, "/services/web")?;
    let image = service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"].as_str().unwrap_or_default();
    ensure!(told.images.iter().any(|told| image.starts_with(told)), "{image}, told: {:?}", told.images);
    told.images = vec![image.to_owned()];
    // So that the store does not grow with the rounds; what is acknowledged here must be gone in the next.
    for (name, id) in &found {
        let answer = lab.manager().api("DELETE", &format!("/configs/{id}"), None)?;
        ensure!(answer.status == 204, "remove {name}: status {}: {}", answer.status, answer.text());
    }
    told.configs.clear();
    told.asked.clear();
    Ok(())
}

/// Boards run the tasks that they shall, of whole images, and keep nothing of those before.
fn expect_whole(lab: &Lab, image: &str) -> Result<()> {
    let running = settle(lab, &[("web", REPLICAS)]);
    for board in lab.boards() {
        let mine = running.values().filter(|(number, _)| *number == board.number);
        let count = mine.clone().count();
        wait(lab, "nothing to be left of ended tasks", SOON, || {
            Ok((board.ctr(&["containers", "ls", "-q"])?.lines().count() == count).then_some(()))
        });
        let listed = board.ctr(&["containers", "ls"])?;
        ensure!(listed.lines().skip(1).all(|line| line.contains(image)), "another image than {image}:\n{listed}");
        if image.contains("/busybox:") {
            // The first round's manager died before it had taken another one.
            continue;
        }
        let round = image.rsplit_once("/kills:").and_then(|(_, tag)| tag.parse().ok()).context("an image of ours")?;
        for (_, pid) in mine {
            let found = fs::read(format!("/proc/{pid}/root/noise")).context("read the image's file")?;
            ensure!(found == noise(size(round)), "half an image runs as process {pid}: {} bytes", found.len());
        }
    }
    Ok(())
}

/// Bytes of the layer that this round's image has.
fn size(round: u32) -> usize {
    LAYER + round as usize
}

#[test]
#[ignore = "needs root"]
fn parts_die_at_any_moment() -> Result<()> {
    let number = |name: &str, otherwise: u32| -> Result<u32> {
        std::env::var(name).map_or(Ok(otherwise), |text| text.parse().with_context(|| format!("{name}={text}")))
    };
    let (rounds, seed) = (number("RACIMO_KILLS", ROUNDS)?, number("RACIMO_SEED", 11)?);
    ensure!(rounds > 0, "RACIMO_KILLS=0 proves nothing");
    eprintln!("RACIMO_SEED={seed} RACIMO_KILLS={rounds}");
    let mut rng = fastrand::Rng::with_seed(seed.into());

    let lab = Guard::cluster(BOARDS)?;
    let nodes: Vec<String> = (1..=BOARDS).map(|board| node_id(&lab, board)).collect::<Result<_>>()?;
    let mut web = busybox(&lab, "web", REPLICAS as u64, &["sleep", "1000000"]);
    web["UpdateConfig"] = json!({"Parallelism": 0, "FailureAction": "continue"});
    create(&lab, &web)?;
    settle(&lab, &[("web", REPLICAS)]);
    let mut told = Told::default();
    for round in 1..=rounds {
        let tag = format!("kills:{round}");
        lab.registry().push("kills", &round.to_string(), &Image::big(size(round))?)?;
        let image = format!("{}/{tag}", lab.registry().host());
        let (victim, moment) = (Victim::draw(&mut rng), Duration::from_millis(rng.u64(MOMENT)));
        let end = AtomicBool::new(false);
        let dies = matches!(victim, Victim::Manager);
        std::thread::scope(|scope| -> Result<()> {
            let asks = scope.spawn(|| ask(&lab, round, &image, &mut told, &end, dies));
            sleep(moment);
            let killed = victim.kill(&lab);
            end.store(true, Ordering::Relaxed);
            asks.join().expect("does not panic")?;
            killed
        })?;
        victim.start(&lab)?;
        let whole = judge(&lab, &mut told).and_then(|()| expect_whole(&lab, &told.images[0]));
        whole.with_context(|| format!("round {round}, {victim:?} after {moment:?}\n{}", picture(&lab)))?;
        for (board, id) in (1..).zip(&nodes) {
            assert_eq!(
                &node_id(&lab, board)?,
                id,
                "round {round}, {victim:?} after {moment:?}: board {board} is another node"
            );
        }
        if round % 10 == 0 || round == rounds {
            eprintln!("round {round} of {rounds}: {} containers run", running(&lab)?.len());
        }
    }
    let nodes = get(&lab, "/nodes")?.as_array().map_or(0, Vec::len);
    assert_eq!(nodes, usize::from(BOARDS) + 1, "boards and manager; nobody joined twice\n{}", picture(&lab));
    Ok(())
}
