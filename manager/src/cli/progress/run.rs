//! The poll loops behind a progress display.

use std::time::Instant;

use async_signal::{Signal, Signals};
use futures_lite::{FutureExt, StreamExt};
use serde_json::Value;
use smol::Timer;

use super::super::client::Client;
use super::super::console::Console;
use super::super::error::CliError;
use super::super::json::Peek;
use super::super::limits;
use super::super::url::{Filters, Url};
use super::paint::Painter;
use super::root::Rotation;
use super::state::{Poll, Progress, Verdict};

/// Waits until the service `id` has converged. `quiet` shows nothing.
pub(crate) async fn converge(
    client: &mut Client,
    console: &mut Console,
    id: &str,
    quiet: bool,
) -> Result<(), CliError> {
    let start = Instant::now();
    let mut progress = Progress::default();
    let mut painter = Painter::new(console.columns);
    let mut stop = Stop::new()?;
    loop {
        let service = client.get(&Url::new(&["services", id]).query("insertDefaults", "false")).await?;
        let current = Filters::default().with("service", id).with("_up-to-date", "true");
        let tasks = client.get(&Url::new(&["tasks"]).filters(&current)).await?;
        let nodes = client.get(&Url::new(&["nodes"])).await?;
        let poll = Poll { service: &service, tasks: tasks.list(""), nodes: nodes.list(""), now: start.elapsed() };
        let (frame, verdict) = progress.step(&poll);
        if !quiet {
            show(console, &painter.paint(&frame))?;
        }
        match verdict {
            Verdict::Converged => return Ok(()),
            Verdict::Failed(text) => return Err(CliError::Progress(text)),
            Verdict::Wait => {}
        }
        if stop.pause().await {
            if !quiet && !progress.is_verifying() {
                console.say("Operation continuing in background.")?;
                console.say(format!("Use `pi-mgr service ps {id}` to check progress."))?;
            }
            return Ok(());
        }
    }
}

/// Waits until no task of the removed services is left. `services` are pairs of id and name.
pub(crate) async fn vanish(
    client: &mut Client,
    console: &mut Console,
    services: &[(String, String)],
    quiet: bool,
) -> Result<(), CliError> {
    let mut painter = Painter::new(console.columns);
    let mut stop = Stop::new()?;
    loop {
        let mut left = 0;
        let mut lines = Vec::new();
        for (id, name) in services {
            // The service itself is gone, so that its id can no longer filter: its name still
            // begins the names of its tasks.
            let tasks = client.get(&Url::new(&["tasks"]).filters(&Filters::default().with("name", name))).await?;
            let count = tasks.list("").iter().filter(|task| task.text("/ServiceID") == id && occupies(task)).count();
            left += count;
            lines.push(match count {
                0 => format!("{name}: all tasks are gone"),
                1 => format!("{name}: waiting for 1 task to stop"),
                count => format!("{name}: waiting for {count} tasks to stop"),
            });
        }
        if !quiet {
            show(console, &painter.lines(lines))?;
        }
        if left == 0 {
            return Ok(());
        }
        if stop.pause().await {
            if !quiet {
                console.say("The services are removed; their tasks stop in the background.")?;
            }
            return Ok(());
        }
    }
}

/// Waits until every board that is there has a certificate of the new root and trusts only that. Whether it came so far.
pub(crate) async fn rotate(client: &mut Client, console: &mut Console, quiet: bool) -> Result<bool, CliError> {
    let mut painter = Painter::new(console.columns);
    let mut stop = Stop::new()?;
    loop {
        let cluster = client.get(&Url::new(&["swarm"])).await?;
        let nodes = client.get(&Url::new(&["nodes"])).await?;
        let seen = Rotation::of(&cluster, nodes.list(""));
        if !quiet {
            show(console, &painter.lines(seen.lines(console.columns.is_some())))?;
        }
        if seen.is_done() {
            return Ok(true);
        }
        if stop.pause().await {
            if !quiet {
                console.say("Operation continuing in background.")?;
                console.say("Use `pi-mgr info` to see whether it is still under way.")?;
            }
            return Ok(false);
        }
    }
}

/// Whether something of the task may still run or be started.
fn occupies(task: &Value) -> bool {
    !matches!(task.text("/Status/State"), "complete" | "shutdown" | "failed" | "rejected" | "remove" | "orphaned")
}

fn show(console: &mut Console, text: &str) -> Result<(), CliError> {
    console.out.write_all(text.as_bytes())?;
    Ok(console.out.flush()?)
}

/// Ends a wait at Ctrl-C; what was asked for goes on without us.
struct Stop(Signals);

impl Stop {
    fn new() -> Result<Stop, CliError> {
        Ok(Stop(Signals::new([Signal::Int])?))
    }

    /// Sleeps one interval; true when the user interrupted it.
    async fn pause(&mut self) -> bool {
        let sleep = async {
            Timer::after(limits::POLL_INTERVAL).await;
            false
        };
        let interrupt = async { self.0.next().await.is_some() };
        interrupt.or(sleep).await
    }
}
