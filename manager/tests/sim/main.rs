//! The cluster in one thread: the manager's cores, its log on a fake disk, and the cores of several agents, under
//! virtual time and one seed.
//!
//! ```text
//! seed ─▶ trouble: users, faults ─ invariants after every event ─▶ everything mended ─▶ it settles, and stays so
//! ```
//! `RACIMO_SIM_SEEDS=n`: how many seeds; `RACIMO_SIM_SEED=s`: only that one, with its trace if `RACIMO_SIM_TRACE` is
//! set. [`model`] holds the invariants, [`settle`] what has to be true in the end, [`sim::Bug`] what is planted to
//! prove that it would be found.

mod agent;
mod alone;
mod faults;
mod hub;
mod manager;
mod model;
mod net;
mod runtime;
mod session;
mod settle;
mod sim;
mod stages;
mod user;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use sim::Bug;
use world::Summary;

/// Seeds in a usual test run.
const SEEDS: u64 = 200;
/// Every so many seeds one runs twice.
const TWICE: u64 = 10;
/// Within so many seeds a planted bug has to be found.
const FINDS: u64 = 60;
/// The same for those that rarely do harm; they are only looked for when there is time (`make sim`).
const FINDS_RARE: u64 = 2000;

/// A run; a panic in a core is a failure like others.
fn run(seed: u64, bug: Option<Bug>) -> Result<Summary, String> {
    catch_unwind(AssertUnwindSafe(|| world::run(seed, bug))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[track_caller]
fn check(seed: u64) -> Summary {
    match run(seed, None) {
        Ok(summary) => summary,
        Err(failure) => {
            panic!("{failure}\nreplay: RACIMO_SIM_SEED={seed} cargo test -p racimo-manager --test sim seeds")
        }
    }
}

#[test]
fn seeds() {
    if let Some(seed) = number("RACIMO_SIM_SEED") {
        let summary = check(seed);
        println!("seed {seed}: {summary:?}");
        return;
    }
    let count = number("RACIMO_SIM_SEEDS").unwrap_or(SEEDS);
    let (mut starts, mut recoveries, mut seconds) = (0, 0, 0);
    let (mut rollbacks, mut completions, mut recalls) = (0, 0, 0);
    for seed in 0..count {
        let summary = check(seed);
        if seed % TWICE == 0 {
            assert_eq!(check(seed), summary, "seed {seed} does not replay");
        }
        starts += summary.starts;
        recoveries += summary.recoveries;
        rollbacks += summary.rollbacks;
        completions += summary.completions;
        recalls += summary.recalls;
        seconds += summary.seconds;
    }
    println!("{count} seeds: {seconds} s, {starts} containers started, the manager started {recoveries} times");
    println!("{recalls} boards went by their journals");
    println!("{rollbacks} updates rolled back, {completions} tasks of jobs completed");
    // What is not reached is not tested.
    assert!(count < SEEDS || rollbacks > 0 && completions > 0 && recalls > 0, "no rollback, job or journal");
}

#[test]
fn without_a_manager_boards_go_on_and_it_adopts_what_runs() {
    for seed in 0..number("RACIMO_SIM_SEEDS").unwrap_or(SEEDS) / 4 {
        let told = catch_unwind(AssertUnwindSafe(|| alone::run(seed)));
        if let Err(failure) = told.unwrap_or_else(|_| Err("a panic, see above".to_owned())) {
            panic!("{failure}\nseed {seed}");
        }
    }
}

#[test]
fn planted_bugs_are_found() {
    if number("RACIMO_SIM_SEED").is_some() {
        return;
    }
    for seed in 0..FINDS {
        alone::cut_off(seed, None).unwrap_or_else(|failure| panic!("{failure}\nseed {seed}"));
        assert!(alone::cut_off(seed, Some(Bug::NoLease)).is_err(), "{:?} was not found: seed {seed}", Bug::NoLease);
    }
    let rare = number("RACIMO_SIM_SEEDS").is_some_and(|seeds| seeds > SEEDS);
    let common = Bug::COMMON.iter().map(|bug| (*bug, FINDS));
    for (bug, seeds) in common.chain(Bug::RARE.iter().filter(|_| rare).map(|bug| (*bug, FINDS_RARE))) {
        let found = (0..seeds).find_map(|seed| Some((seed, run(seed, Some(bug)).err()?)));
        let Some((seed, failure)) = found else { panic!("{bug:?} was not found in {seeds} seeds") };
        println!("{bug:?}: seed {seed}: {}", failure.lines().last().unwrap_or_default());
    }
}
