//! What breaks, and what the cluster makes of it: containers, agents, containerd, boards, the manager, disks.
//!
//! Each test has a lab of its own, since it breaks it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cluster::{
    Running, SOON, availability, board_state, busybox, create, get, live, node_id, picture, remove, running, scale,
    settle, sleeper, tasks, wait, wait_board, wait_log,
};
use crate::lab::Lab;
use crate::lab::board::{Board, Verb};
use crate::lab::guard::Guard;
use crate::lab::image::Image;
use crate::lab::manager;
use crate::lab::process::{run, signal};

/// Longest silence after which a board counts as down, with room for a busy machine.
const DOWN_MAX: Duration = Duration::from_secs(25);

/// Kills a container from outside, and waits until the manager has heard of it.
fn kill_container(lab: &Lab, running: &Running, task: &str) -> Result<()> {
    signal(running[task].1, Signal::KILL)?;
    wait(lab, &format!("the end of {task} to be seen"), SOON, || {
        let state = get(lab, &format!("/tasks/{task}"))?["Status"]["State"].clone();
        Ok((state == "failed").then_some(()))
    });
    Ok(())
}

pub(crate) fn restart_agent(board: &Board<'_>) -> Result<()> {
    board.act(Verb::KillAgent)?;
    board.act(Verb::StartAgent)
}

/// Waits until a board keeps so many containers, whether they run or not: nothing half-made, nothing forgotten.
#[track_caller]
fn wait_containers(lab: &Lab, board: &Board<'_>, count: usize) {
    wait(lab, &format!("board {} to keep {count} containers", board.number), SOON, || {
        let kept = board.ctr(&["containers", "ls", "-q"])?;
        Ok((kept.lines().count() == count).then_some(()))
    });
}

/// The same containers with the same processes.
#[track_caller]
fn expect_untouched(lab: &Lab, before: &Running, after: &Running) {
    assert_eq!(before, after, "the same processes run on\n{}", picture(lab));
}

#[test]
#[ignore = "needs root"]
fn containers_that_end_are_replaced_as_their_policy_says() -> Result<()> {
    let lab = Guard::cluster(1)?;
    killed_ones_come_back_after_their_delay(&lab)?;
    policies_of_restart(&lab)?;
    a_crash_loop_keeps_five(&lab)
}

fn killed_ones_come_back_after_their_delay(lab: &Lab) -> Result<()> {
    create(lab, &sleeper(lab, "now", 1))?;
    let mut later = sleeper(lab, "later", 1);
    later["TaskTemplate"]["RestartPolicy"]["Delay"] = json!(5_000_000_000_u64);
    create(lab, &later)?;
    let before = settle(lab, &[("now", 1), ("later", 1)]);

    let killed_at = Instant::now();
    before.keys().try_for_each(|task| kill_container(lab, &before, task))?;
    wait(lab, "the undelayed one to be replaced", SOON, || Ok((live(lab, "now")?.len() == 1).then_some(())));
    let now_took = killed_at.elapsed();
    wait(lab, "the delayed one to be replaced", SOON, || Ok((live(lab, "later")?.len() == 1).then_some(())));
    let later_took = killed_at.elapsed();
    assert!(now_took < Duration::from_millis(4500), "without a delay it took {now_took:?}");
    assert!(later_took >= Duration::from_millis(4900), "with a delay of 5 s it took {later_took:?}");

    let rows = tasks(lab, "now")?;
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert_eq!((rows[1].state.as_str(), rows[1].err.as_str()), ("failed", "task: non-zero exit (137)"), "{rows:?}");
    remove(lab, "now")?;
    remove(lab, "later")?;
    settle(lab, &[]);
    Ok(())
}

fn policies_of_restart(lab: &Lab) -> Result<()> {
    /// Name, command, condition, most attempts; the states of the slot's tasks at the end, and the newest error.
    type Case = (&'static str, &'static [&'static str], &'static str, u64, &'static [&'static str], &'static str);
    const CASES: [Case; 7] = [
        ("any0", &["true"], "any", 2, &["complete", "complete", "complete"], ""),
        ("any1", &["false"], "any", 1, &["failed", "failed"], "task: non-zero exit (1)"),
        ("fail0", &["true"], "on-failure", 2, &["complete"], ""),
        ("fail1", &["false"], "on-failure", 2, &["failed", "failed", "failed"], "task: non-zero exit (1)"),
        ("none0", &["true"], "none", 0, &["complete"], ""),
        ("none1", &["sh", "-c", "exit 7"], "none", 0, &["failed"], "task: non-zero exit (7)"),
        (
            "oom",
            &["sh", "-c", "x=a; while true; do x=$x$x; done"],
            "none",
            0,
            &["failed"],
            "task: non-zero exit (137): the memory limit was reached",
        ),
    ];
    for (name, command, condition, attempts, ..) in CASES {
        let mut spec = busybox(lab, name, 1, command);
        spec["TaskTemplate"]["RestartPolicy"] = json!({"Condition": condition, "Delay": 0, "MaxAttempts": attempts});
        spec["TaskTemplate"]["Resources"] = json!({"Limits": {"MemoryBytes": 16 << 20}});
        create(lab, &spec)?;
    }
    let states = |name: &str| -> Result<Vec<String>> { Ok(tasks(lab, name)?.into_iter().map(|r| r.state).collect()) };
    for (name, _, _, _, want, err) in CASES {
        wait(lab, &format!("{name}: {want:?}"), SOON, || Ok((states(name)? == want).then_some(())));
        assert_eq!(tasks(lab, name)?[0].err, err, "{name}");
    }
    // What was given up stays given up.
    sleep(Duration::from_secs(1));
    for (name, _, _, _, want, _) in CASES {
        assert_eq!(states(name)?, want, "{name}");
        remove(lab, name)?;
    }
    settle(lab, &[]);
    Ok(())
}

fn a_crash_loop_keeps_five(lab: &Lab) -> Result<()> {
    create(lab, &busybox(lab, "crash", 1, &["sh", "-c", "exit 3"]))?;
    let mut seen = BTreeMap::new();
    wait(lab, "a dozen crashes", SOON, || {
        seen.extend(tasks(lab, "crash")?.into_iter().map(|row| (row.id, ())));
        Ok((seen.len() >= 12).then_some(()))
    });
    wait(lab, "five tasks at most", SOON, || Ok((tasks(lab, "crash")?.len() <= 5).then_some(())));
    remove(lab, "crash")?;
    settle(lab, &[]);
    wait_containers(lab, &lab.board(1)?, 0);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn agents_and_containerd_die_and_containers_run_on() -> Result<()> {
    let lab = Guard::cluster(2)?;
    let (one, two) = (lab.board(1)?, lab.board(2)?);
    create(&lab, &sleeper(&lab, "web", 4))?;
    let before = settle(&lab, &[("web", 4)]);

    restart_agent(&one)?;
    wait_log(&lab, &one.agent_log(), "containers found on this board");
    sleep(Duration::from_secs(3));
    expect_untouched(&lab, &before, &settle(&lab, &[("web", 4)]));
    assert!(tasks(&lab, "web")?.iter().all(|row| row.state == "running"), "nothing was replaced");

    // One that ends while nobody looks.
    let victim = live(&lab, "web")?.into_iter().find(|row| row.board == 1).expect("a task on board 1");
    one.act(Verb::KillAgent)?;
    signal(before[&victim.id].1, Signal::KILL)?;
    one.act(Verb::StartAgent)?;
    wait(&lab, "the end to be seen", SOON, || {
        let rows = tasks(&lab, "web")?;
        Ok(rows.iter().any(|row| row.id == victim.id && row.state == "failed").then_some(()))
    });
    settle(&lab, &[("web", 4)]);

    agent_killed_at_work(&lab, &two)?;
    containerd_killed(&lab, &one)?;
    containerd_missing(&lab, &one)
}

/// During a pull, a creation, a stop.
fn agent_killed_at_work(lab: &Lab, board: &Board<'_>) -> Result<()> {
    lab.registry().push("big", "latest", &Image::big(48 << 20)?)?;
    let mut big = sleeper(lab, "big", 1);
    big["TaskTemplate"]["ContainerSpec"]["Image"] = json!(format!("{}/big:latest", lab.registry().host()));
    big["TaskTemplate"]["Placement"] = json!({"Constraints": [format!("node.hostname == board{}", board.number)]});
    create(lab, &big)?;
    wait(lab, "the pull to begin", SOON, || {
        Ok(tasks(lab, "big")?.iter().any(|row| row.state == "preparing").then_some(()))
    });
    restart_agent(board)?;
    settle(lab, &[("web", 4), ("big", 1)]);

    // Creations, killed at several moments.
    for pause in [20, 90, 200, 400] {
        let mut spec = sleeper(lab, "made", 6);
        spec["TaskTemplate"]["Placement"] = big["TaskTemplate"]["Placement"].clone();
        create(lab, &spec)?;
        sleep(Duration::from_millis(pause));
        restart_agent(board)?;
        settle(lab, &[("web", 4), ("big", 1), ("made", 6)]);
        remove(lab, "made")?;
        sleep(Duration::from_millis(pause));
        // They do not heed SIGTERM: the agent dies while it waits for them.
        restart_agent(board)?;
        settle(lab, &[("web", 4), ("big", 1)]);
    }
    remove(lab, "big")?;
    settle(lab, &[("web", 4)]);
    let here = live(lab, "web")?.iter().filter(|row| row.board == board.number).count();
    wait_containers(lab, board, here);
    Ok(())
}

fn containerd_killed(lab: &Lab, board: &Board<'_>) -> Result<()> {
    let before = settle(lab, &[("web", 4)]);
    board.containerd_process().expect("it runs").kill()?;
    wait_log(lab, &board.agent_log(), "containerd is away, containers run on");
    for (_, pid) in before.values() {
        assert!(Path::new(&format!("/proc/{pid}")).exists(), "containers run on");
    }
    assert_eq!(board_state(lab, board.number)?, "ready");
    board.start_containerd()?;
    expect_untouched(lab, &before, &settle(lab, &[("web", 4)]));
    // Its events are heard again.
    let victim = live(lab, "web")?.into_iter().find(|row| row.board == board.number).expect("a task here");
    kill_container(lab, &before, &victim.id)?;
    settle(lab, &[("web", 4)]);
    Ok(())
}

fn containerd_missing(lab: &Lab, board: &Board<'_>) -> Result<()> {
    remove(lab, "web")?;
    settle(lab, &[]);
    board.act(Verb::KillAgent)?;
    board.containerd_process().expect("it runs").kill()?;
    fs::remove_file(board.containerd())?;
    fs::write(board.agent_log(), "")?;
    // Nothing runs on it now, so that the lab takes it for a board without power.
    board.start_agent()?;
    wait_log(lab, &board.agent_log(), &board.containerd().display().to_string());
    wait(lab, "the node to say what is missing", SOON, || {
        let node = get(lab, &format!("/nodes/{}", node_id(lab, board.number)?))?;
        let degraded = node["Description"]["Engine"]["Labels"]["io.racimo.degraded"].as_str().unwrap_or_default();
        Ok(degraded.contains("containerd does not answer").then_some(()))
    });
    let mut spec = sleeper(lab, "late", 1);
    spec["TaskTemplate"]["Placement"] = json!({"Constraints": [format!("node.hostname == board{}", board.number)]});
    create(lab, &spec)?;
    board.start_containerd()?;
    settle(lab, &[("late", 1)]);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn boards_that_vanish_and_return() -> Result<()> {
    let lab = Guard::cluster(3)?;
    create(&lab, &sleeper(&lab, "web", 6))?;
    let mut before = settle(&lab, &[("web", 6)]);
    let three = lab.board(3)?;

    // Shorter than the limit: nothing moves.
    for (begin, end) in [(Verb::Cut, Verb::Heal), (Verb::Freeze, Verb::Thaw)] {
        three.act(begin)?;
        sleep(Duration::from_millis(1200));
        three.act(end)?;
        sleep(Duration::from_secs(3));
        expect_untouched(&lab, &before, &settle(&lab, &[("web", 6)]));
    }
    for (begin, end) in [(Verb::Cut, Verb::Heal), (Verb::PowerOff, Verb::PowerOn), (Verb::Freeze, Verb::Thaw)] {
        before = away_and_back(&lab, &before, begin, end)?;
    }
    quick_power_cycle(&lab, &before)
}

/// Takes away the board with the most tasks until they run elsewhere, and gives it back.
fn away_and_back(lab: &Lab, before: &Running, begin: Verb, end: Verb) -> Result<Running> {
    let count = |number: u8| before.values().filter(|(board, _)| *board == number).count();
    let number = (1..=3).max_by_key(|number| count(*number)).expect("three boards");
    let board = lab.board(number)?;
    assert!(count(number) > 0, "{begin:?}: a board with tasks");
    let others: Running = before.iter().filter(|(_, (b, _))| *b != number).map(|(k, v)| (k.clone(), *v)).collect();

    board.act(begin)?;
    let away = Instant::now();
    wait_board(lab, number, "down", DOWN_MAX);
    let took = away.elapsed();
    assert!(took >= Duration::from_millis(1900), "{begin:?}: down after {took:?} already");
    wait(lab, &format!("{begin:?}: all tasks to run elsewhere"), SOON, || {
        let rows = live(lab, "web")?;
        Ok((rows.iter().filter(|row| row.board != number).count() == 6).then_some(()))
    });
    let moved = live(lab, "web")?;

    board.act(end)?;
    wait_board(lab, number, "ready", SOON);
    let after = settle(lab, &[("web", 6)]);
    for (task, place) in &others {
        assert_eq!(after.get(task), Some(place), "{begin:?}: others are untouched\n{}", picture(lab));
    }
    for row in moved.iter().filter(|row| row.board != number) {
        assert!(after.contains_key(&row.id), "{begin:?}: what was replaced stays replaced\n{}", picture(lab));
    }
    assert!(after.values().all(|(b, _)| *b != number), "{begin:?}: nothing is rebalanced\n{}", picture(lab));
    // Give the next case something to take.
    scale(lab, "web", 9)?;
    settle(lab, &[("web", 9)]);
    scale(lab, "web", 6)?;
    Ok(settle(lab, &[("web", 6)]))
}

/// Off and on before anybody has noticed: the containers are lost all the same.
fn quick_power_cycle(lab: &Lab, before: &Running) -> Result<()> {
    let number = before.values().next().expect("a task").0;
    let lost: Vec<&String> = before.iter().filter(|(_, (b, _))| *b == number).map(|(task, _)| task).collect();
    let board = lab.board(number)?;
    board.act(Verb::PowerOff)?;
    board.act(Verb::PowerOn)?;
    wait(lab, "the lost ones to be replaced", SOON, || {
        Ok(live(lab, "web")?.iter().all(|row| !lost.contains(&&row.id)).then_some(()))
    });
    let after = settle(lab, &[("web", 6)]);
    assert!(lost.iter().all(|task| !after.contains_key(*task)));
    wait_board(lab, number, "ready", SOON);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn drained_paused_and_removed_boards() -> Result<()> {
    let lab = Guard::cluster(3)?;
    let mut spec = sleeper(&lab, "web", 6);
    // Far longer than this test: only a drain skips it.
    spec["TaskTemplate"]["RestartPolicy"]["Delay"] = json!(3_600_000_000_000_u64);
    create(&lab, &spec)?;
    settle(&lab, &[("web", 6)]);

    availability(&lab, 1, "drain")?;
    wait(&lab, "the drained board to be empty", SOON, || {
        Ok(tasks(&lab, "web")?.iter().all(|row| row.board != 1 || row.desired != "running").then_some(()))
    });
    let after = settle(&lab, &[("web", 6)]);
    assert!(after.values().all(|(board, _)| *board != 1), "a drained board is empty: {after:?}");
    availability(&lab, 1, "pause")?;
    availability(&lab, 2, "pause")?;
    scale(&lab, "web", 9)?;
    let paused = settle(&lab, &[("web", 9)]);
    assert!(after.iter().all(|(task, place)| paused.get(task) == Some(place)), "a pause disturbs nothing");
    let new: Vec<u8> = paused.iter().filter(|(task, _)| !after.contains_key(*task)).map(|(_, (b, _))| *b).collect();
    assert_eq!(new, [3, 3, 3], "paused boards get nothing new");
    availability(&lab, 3, "pause")?;
    scale(&lab, "web", 10)?;
    wait(&lab, "the reason in words", SOON, || {
        Ok(tasks(&lab, "web")?.iter().any(|row| row.err.contains("3 paused")).then_some(()))
    });
    availability(&lab, 1, "active")?;
    settle(&lab, &[("web", 10)]);
    availability(&lab, 2, "active")?;
    availability(&lab, 3, "active")?;
    remove(&lab, "web")?;
    settle(&lab, &[]);
    create(&lab, &sleeper(&lab, "web", 10))?;
    settle(&lab, &[("web", 10)]);
    removed_boards(&lab)
}

fn removed_boards(lab: &Lab) -> Result<()> {
    let three = lab.board(3)?;
    let id = node_id(lab, 3)?;
    let refused = lab.manager().api("DELETE", &format!("/nodes/{id}"), None)?;
    assert!(refused.status >= 400 && refused.text().contains("not down"), "{}", refused.text());
    let removed = lab.manager().api("DELETE", &format!("/nodes/{id}?force=true"), None)?;
    assert_eq!(removed.status, 200, "{}", removed.text());
    wait_log(lab, &three.agent_log(), "join it again with `pi-agent join`");
    let after = settle(lab, &[("web", 10)]);
    assert!(after.values().all(|(board, _)| *board != 3), "its tasks are stopped: {after:?}");

    let token = lab.manager().worker_token()?;
    three.join(&token)?;
    wait_board(lab, 3, "ready", SOON);
    assert_ne!(node_id(lab, 3)?, id, "it is another node now");
    scale(lab, "web", 15)?;
    let after = settle(lab, &[("web", 15)]);
    assert!(after.values().any(|(board, _)| *board == 3), "it works again");

    // While it is without power: it learns of it when it comes back.
    three.act(Verb::PowerOff)?;
    wait_board(lab, 3, "down", DOWN_MAX);
    let id = node_id(lab, 3)?;
    let removed = lab.manager().api("DELETE", &format!("/nodes/{id}"), None)?;
    assert_eq!(removed.status, 200, "{}", removed.text());
    fs::write(three.agent_log(), "")?;
    three.act(Verb::PowerOn)?;
    wait_log(lab, &three.agent_log(), "join it again with `pi-agent join`");
    let after = settle(lab, &[("web", 15)]);
    assert!(after.values().all(|(board, _)| *board != 3), "{after:?}");
    assert_eq!(board_state(lab, 3)?, "");
    wait_containers(lab, &three, 0);
    three.join(&token)?;
    wait_board(lab, 3, "ready", SOON);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn the_manager_dies_at_any_moment() -> Result<()> {
    let lab = Guard::cluster(3)?;
    create(&lab, &sleeper(&lab, "calm", 6))?;
    let calm = settle(&lab, &[("calm", 6)]);
    let seed: u64 = std::env::var("RACIMO_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    eprintln!("RACIMO_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    // Acknowledged: name, id, replicas that may hold (two while a change was not answered).
    let mut known: BTreeMap<String, (String, Vec<u64>)> = BTreeMap::new();
    for round in 0..8 {
        let killer = {
            let (process, pause) = (lab.manager().process(), Duration::from_millis(rng.u64(0..700)));
            std::thread::spawn(move || {
                sleep(pause);
                process.map_or(Ok(()), |process| process.kill())
            })
        };
        write_until_it_dies(&lab, round, &mut known, &mut rng);
        killer.join().expect("does not panic")?;
        lab.manager().act(manager::Verb::Start)?;
        let services = get(&lab, "/services")?;
        for (name, (id, replicas)) in &mut known {
            let found = services.as_array().into_iter().flatten().find(|service| service["ID"] == id.as_str());
            let found = found.unwrap_or_else(|| panic!("round {round}: {name} ({id}) is lost\n{}", picture(&lab)));
            let now = found["Spec"]["Mode"]["Replicated"]["Replicas"].as_u64().unwrap_or(u64::MAX);
            assert!(replicas.contains(&now), "round {round}: {name} has {now} replicas, acknowledged: {replicas:?}");
            *replicas = vec![now];
        }
    }
    let names: Vec<(String, usize)> = get(&lab, "/services")?.as_array().into_iter().flatten().map(counted).collect();
    let wanted: Vec<(&str, usize)> = names.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    let after = settle(&lab, &wanted);
    for (task, place) in &calm {
        assert_eq!(after.get(task), Some(place), "running containers are untouched\n{}", picture(&lab));
    }
    for (name, _) in names.iter().filter(|(name, _)| name != "calm") {
        remove(&lab, name)?;
    }
    expect_untouched(&lab, &calm, &settle(&lab, &[("calm", 6)]));
    a_restart_with_thirty_tasks(&lab)
}

fn counted(service: &Value) -> (String, usize) {
    let replicas = service["Spec"]["Mode"]["Replicated"]["Replicas"].as_u64().unwrap_or(0);
    (service["Spec"]["Name"].as_str().unwrap_or_default().to_owned(), usize::try_from(replicas).unwrap_or(0))
}

fn write_until_it_dies(
    lab: &Lab,
    round: u32,
    known: &mut BTreeMap<String, (String, Vec<u64>)>,
    rng: &mut fastrand::Rng,
) {
    for number in 0.. {
        let names: Vec<String> = known.keys().cloned().collect();
        if names.len() < 6 || rng.u8(0..4) == 0 && names.len() < 12 {
            let name = format!("r{round}-{number}");
            match create(lab, &sleeper(lab, &name, 1)) {
                Ok(id) => drop(known.insert(name, (id, vec![1]))),
                Err(_) => return,
            }
        } else {
            let name = &names[rng.usize(0..names.len())];
            let replicas = rng.u64(0..4);
            let entry = known.get_mut(name).expect("known");
            entry.1.push(replicas);
            match scale(lab, name, replicas) {
                Ok(()) => entry.1 = vec![replicas],
                Err(_) if lab.manager().process().is_none() => return,
                // Another write came first (the update's progress): judged like one that was cut off.
                Err(_) => {}
            }
        }
    }
}

/// Nothing restarts, and what is placed right after does not pile up on the first board that is back.
fn a_restart_with_thirty_tasks(lab: &Lab) -> Result<()> {
    scale(lab, "calm", 30)?;
    let before = settle(lab, &[("calm", 30)]);
    lab.manager().act(manager::Verb::Kill)?;
    sleep(Duration::from_millis(1500));
    lab.manager().act(manager::Verb::Start)?;
    scale(lab, "calm", 36)?;
    let after = settle(lab, &[("calm", 36)]);
    for (task, place) in &before {
        assert_eq!(after.get(task), Some(place), "nothing restarts\n{}", picture(lab));
    }
    for number in 1..=3 {
        let count = after.values().filter(|(board, _)| *board == number).count();
        assert_eq!(count, 12, "board {number}: new tasks are spread\n{}", picture(lab));
    }
    assert_eq!(tasks(lab, "calm")?.iter().filter(|row| row.desired == "running").count(), 36);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_registry_that_is_down_and_disks_that_are_full() -> Result<()> {
    let lab = Guard::cluster(1)?;
    let board = lab.board(1)?;
    create(&lab, &sleeper(&lab, "first", 1))?;
    settle(&lab, &[("first", 1)]);

    lab.registry().kill()?;
    // The image is on the board.
    create(&lab, &sleeper(&lab, "local", 2))?;
    settle(&lab, &[("first", 1), ("local", 2)]);
    let mut web = sleeper(&lab, "web", 1);
    web["TaskTemplate"]["ContainerSpec"]["Image"] = json!(format!("{}/web:latest", lab.registry().host()));
    web["TaskTemplate"]["RestartPolicy"]["Delay"] = json!(1_000_000_000_u64);
    create(&lab, &web)?;
    wait(&lab, "the registry's fault to be told", SOON, || {
        let rows = tasks(&lab, "web")?;
        Ok(rows.iter().any(|row| row.err.contains(&lab.registry().host())).then_some(()))
    });
    lab.start_registry()?;
    settle(&lab, &[("first", 1), ("local", 2), ("web", 1)]);
    for name in ["local", "web", "first"] {
        remove(&lab, name)?;
    }
    settle(&lab, &[]);
    full_board(&lab, &board)?;
    full_manager(&lab)
}

/// Mounts a small file system over a directory, with what was in it.
fn shrink(directory: &Path, mib: u32) -> Result<()> {
    let path = directory.display().to_string();
    let kept = format!("{path}.kept");
    run(&["cp", "-a", &path, &kept])?;
    run(&["mount", "-t", "tmpfs", "-o", &format!("size={mib}m,mode=0700"), "tmpfs", &path])?;
    run(&["sh", "-c", &format!("cp -a '{kept}/.' '{path}/' && rm -rf '{kept}'")])?;
    Ok(())
}

fn full_board(lab: &Lab, board: &Board<'_>) -> Result<()> {
    board.act(Verb::KillAgent)?;
    board.containerd_process().expect("it runs").kill()?;
    let disk = board.directory().join("disk/containerd");
    shrink(&disk, 24)?;
    let data = board.data();
    shrink(&data, 4)?;
    let ballast = data.join("ballast");
    let fill = || {
        let fill = "exec dd if=/dev/zero bs=4k oflag=append conv=notrunc of=\"$0\"";
        Command::new("sh").args(["-c", fill]).arg(&ballast).output()
    };
    fill()?;
    board.start_containerd()?;
    board.act(Verb::StartAgent)?;
    wait_board(lab, board.number, "ready", SOON);
    // What its journal had for tasks that are gone is room again.
    wait(lab, "the agent to need nothing any more", SOON, || {
        std::thread::sleep(Duration::from_secs(2));
        let before = fs::metadata(&ballast)?.len();
        fill()?;
        Ok((fs::metadata(&ballast)?.len() == before).then_some(()))
    });
    // The agent cannot write a byte.
    let mut later = sleeper(lab, "later", 1);
    later["TaskTemplate"]["RestartPolicy"]["Delay"] = json!(1_000_000_000_u64);
    create(lab, &later)?;
    // What could be written of the task's files is gone again when it is measured.
    let told = format!("no space left on {}: ", data.display());
    wait(lab, "the agent's full disk to be told", SOON, || {
        let is_told = |err: &str| err.starts_with(&told) && err.contains(" free of 4MiB; remove images or volumes");
        Ok(tasks(lab, "later")?.iter().any(|row| is_told(&row.err)).then_some(()))
    });
    assert_eq!(board_state(lab, board.number)?, "ready");
    fs::remove_file(&ballast)?;
    settle(lab, &[("later", 1)]);
    remove(lab, "later")?;
    settle(lab, &[]);
    wait_containers(lab, board, 0);
    // Each takes most of the room, and the first is not needed when the second comes.
    for (name, bytes) in [("old", 8 << 20), ("new", (8 << 20) + 1)] {
        lab.registry().push(name, "latest", &Image::big(bytes)?)?;
        let mut service = sleeper(lab, name, 1);
        service["TaskTemplate"]["ContainerSpec"]["Image"] = json!(format!("{}/{name}:latest", lab.registry().host()));
        service["TaskTemplate"]["RestartPolicy"]["Condition"] = json!("none");
        create(lab, &service)?;
        settle(lab, &[(name, 1)]);
        remove(lab, name)?;
        settle(lab, &[]);
        wait_containers(lab, board, 0);
    }
    wait_log(lab, &board.agent_log(), "/old:latest removed, as there is no room for another");
    lab.registry().push("big", "latest", &Image::big(40 << 20)?)?;
    let mut big = sleeper(lab, "big", 1);
    big["TaskTemplate"]["ContainerSpec"]["Image"] = json!(format!("{}/big:latest", lab.registry().host()));
    big["TaskTemplate"]["RestartPolicy"]["Delay"] = json!(1_000_000_000_u64);
    create(lab, &big)?;
    wait(lab, "the full disk to be told", SOON, || {
        let told = format!("no space left on {}", disk.display());
        let is_told = |err: &str| err.starts_with(&told) && err.contains(" free of 24MiB; remove images or volumes");
        Ok(tasks(lab, "big")?.iter().any(|row| is_told(&row.err)).then_some(()))
    });
    assert_eq!(board_state(lab, board.number)?, "ready");
    run(&["mount", "-o", "remount,size=300m", &disk.display().to_string()])?;
    settle(lab, &[("big", 1)]);
    Ok(())
}

fn full_manager(lab: &Lab) -> Result<()> {
    let before = settle(lab, &[("big", 1)]);
    let data = lab.manager().data();
    lab.manager().act(manager::Verb::Kill)?;
    shrink(&data, 16)?;
    lab.manager().act(manager::Verb::Start)?;
    wait_board(lab, 1, "ready", SOON);
    let ballast = data.join("ballast");
    // Fills it: the last block is cut short.
    let _ = Command::new("dd").args(["if=/dev/zero", "bs=64k", &format!("of={}", ballast.display())]).output()?;

    let mut acknowledged = Vec::new();
    let refusal = loop {
        let name = format!("fat{}", acknowledged.len());
        let mut spec = sleeper(lab, &name, 0);
        spec["Labels"] = json!({"fat": "x".repeat(400_000)});
        let answer = lab.manager().api("POST", "/services/create", Some(&spec))?;
        if answer.status != 201 {
            break answer;
        }
        acknowledged.push(name);
        ensure!(acknowledged.len() < 60, "the disk is never full");
    };
    assert_eq!(refusal.status, 507, "{}", refusal.text());
    assert!(refusal.text().contains("disk is full"), "{}", refusal.text());
    sleep(Duration::from_secs(5));
    assert_eq!(board_state(lab, 1)?, "ready", "a full disk harms nothing\n{}", picture(lab));
    expect_untouched(lab, &before, &running(lab)?);
    // An end cannot be written down now; it is when there is room.
    signal(before.values().next().expect("big").1, Signal::KILL)?;
    sleep(Duration::from_secs(3));
    assert!(get(lab, "/services").is_ok(), "reading works");

    fs::remove_file(&ballast)?;
    settle(lab, &[("big", 1)]);
    create(lab, &sleeper(lab, "after", 1))?;
    settle(lab, &[("big", 1), ("after", 1)]);
    lab.manager().act(manager::Verb::Kill)?;
    lab.manager().act(manager::Verb::Start)?;
    for name in &acknowledged {
        get(lab, &format!("/services/{name}"))?;
    }
    Ok(())
}
