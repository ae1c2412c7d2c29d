//! The figures of docs/performance.md: `make bench` (root, release build).
//!
//! ```text
//! sizes      files that were built
//! scheduler  the pure core, in this process
//! apply      an agent's network among 500 services, in a namespace of its own (root)
//! cluster    a lab of three boards on a disk of its own: memory, idling, latencies beside `ctr run`
//! overhead   a lab of one board: memory of everything that is there beside its tasks
//! day        a lab of three boards: bytes written by twenty deploys and two hundred restarts
//! traffic    a lab of three boards: throughput and new connections of each path; memory with networks
//! ```
//! `--check` fails when a budget is exceeded. Latencies are given with their floor from the same run, because
//! machines differ and are noisy.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};

#[path = "../../tests/lab/mod.rs"]
mod lab;

mod apply;
mod client;
mod cluster;
mod day;
mod disk;
mod floor;
mod idle;
mod memory;
mod overhead;
mod process;
mod scheduler;
mod sender;
mod sizes;
mod table;
mod traffic;

use disk::LoopDisk;
use sender::Sender;
use table::Table;

/// So that memory per task can be told.
#[global_allocator]
static ALLOCATOR: racimo_agent::alloc::Counting = racimo_agent::alloc::Counting;

/// Sizes, memory and latencies of this build.
#[derive(Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Fail if a budget is exceeded.
    #[arg(long)]
    check: bool,
    /// Measure only this (repeatable).
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// The block device below the lab, in the second process.
    #[arg(long, hide = true)]
    device: Option<String>,
    #[command(subcommand)]
    sender: Option<Sender>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Sizes,
    Scheduler,
    Apply,
    Cluster,
    Overhead,
    Day,
    Traffic,
}

const PARTS: [Part; 7] =
    [Part::Sizes, Part::Scheduler, Part::Apply, Part::Cluster, Part::Overhead, Part::Day, Part::Traffic];

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(cause) => {
            eprintln!("bench: {cause:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    if let Some(sender) = &arguments.sender {
        return sender.run().map(|()| ExitCode::SUCCESS);
    }
    let wanted = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    if [Part::Cluster, Part::Overhead, Part::Day, Part::Traffic].into_iter().any(wanted) && arguments.device.is_none() {
        ensure!(rustix::process::geteuid().is_root(), "the cluster's figures need root; others: --only scheduler");
        // The lab's place is set by environment, so it is made in a second process.
        return LoopDisk::make()?.run_again();
    }
    let mut table = Table::default();
    let device = arguments.device.as_deref().unwrap_or_default();
    let measured = PARTS.into_iter().filter(|part| wanted(*part)).try_for_each(|part| match part {
        Part::Sizes => sizes::measure(&mut table),
        Part::Scheduler => scheduler::measure(&mut table),
        Part::Apply => apply::measure(&mut table),
        Part::Cluster => cluster::measure(3, &mut table, |lab, table| cluster::figures(lab, device, table)),
        Part::Overhead => cluster::measure(1, &mut table, overhead::figures),
        Part::Day => cluster::measure(3, &mut table, |lab, table| day::measure(lab, device, table)),
        Part::Traffic => cluster::measure(3, &mut table, traffic::figures),
    });
    print!("{table}");
    measured?;
    let over = table.over();
    if over > 0 {
        eprintln!("bench: {over} figures are over their budget");
    }
    Ok(if arguments.check && over > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
