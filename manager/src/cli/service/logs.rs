//! `service logs`: what a service's tasks say, or what one task says.

use std::collections::BTreeMap;
use std::io::Write;

use clap::Args;

use super::super::client::{Client, Frames};
use super::super::console::Console;
use super::super::error::CliError;
use super::super::format::human;
use super::super::json::Peek;
use super::super::parse;
use super::super::system::events::moment;
use super::super::url::Url;

/// `service logs`.
#[derive(Args, Debug)]
pub(crate) struct LogsArgs {
    /// Show extra details of each line
    #[arg(long)]
    details: bool,
    /// Go on with what is said later
    #[arg(short, long)]
    follow: bool,
    /// Show ids instead of names
    #[arg(long)]
    no_resolve: bool,
    /// Leave out the ids of tasks
    #[arg(long)]
    no_task_ids: bool,
    /// Show ids of tasks in full length
    #[arg(long)]
    no_trunc: bool,
    /// Show only what was said, not by whom
    #[arg(long)]
    raw: bool,
    /// Only lines since then: 10m, 1700000000 or 2026-11-20T11:00:00Z
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Only so many of the last lines of each task
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all", value_parser = lines)]
    tail: String,
    /// Show when each line was said
    #[arg(short, long)]
    timestamps: bool,
    /// Service or task
    #[arg(value_name = "SERVICE|TASK", value_parser = parse::name)]
    name: String,
}

fn lines(text: &str) -> Result<String, String> {
    match text.parse::<u64>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) if text == "all" => Ok(text.to_owned()),
        Err(_) => Err(format!("\"{text}\" is neither \"all\" nor a number of lines")),
    }
}

/// Prints lines until the stream ends.
pub(super) async fn run(args: &LogsArgs, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let (kind, id, tty, digits) = find(args, client).await?;
    if tty && !args.raw {
        return Err(CliError::Refused("tty service logs only supported with --raw".to_owned()));
    }
    let mut url = Url::new(&[kind, &id, "logs"]).query("stdout", "1").query("stderr", "1").query("tail", &args.tail);
    for (key, on) in [("follow", args.follow), ("timestamps", args.timestamps), ("details", !args.raw || args.details)]
    {
        if on {
            url = url.query(key, "1");
        }
    }
    if let Some(since) = &args.since {
        let time = moment(since, console.now()).map_err(|e| CliError::Usage(format!("--since: {e}")))?;
        url = url.query("since", &time);
    }
    let mut frames = client.frames(&url, tty).await?;
    // The connection is taken by the stream: names are asked for on another.
    let mut names = Names { client: client.another(), known: BTreeMap::new(), digits };
    loop {
        let (stream, bytes) = match next(&mut frames, console).await {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(error @ CliError::Transport { .. }) => return Err(client.why_broken(error).await),
            Err(error) => return Err(error),
        };
        let line = if args.raw || stream == 3 { bytes } else { names.line(args, &bytes).await? };
        match stream {
            2 => console.err.write_all(&line)?,
            3 => console.warn(fault(&line))?,
            _ => console.out.write_all(&line)?,
        }
    }
    console.out.flush()?;
    // Lines that are followed may come to an end; an access that was revoked, or a manager that is gone, is a failure.
    if args.follow { client.why_ended().await } else { Ok(()) }
}

/// The next frame; what was written so far is shown before it is waited for.
async fn next(frames: &mut Frames, console: &mut Console) -> Result<Option<(u8, Vec<u8>)>, CliError> {
    if frames.is_drained() {
        console.out.flush()?;
    }
    frames.next().await
}

/// What is missing, without the layers it came through.
fn fault(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let text = text.trim();
    let inner = text.strip_prefix("Error grabbing logs: rpc error: code = Unknown desc = ");
    inner.unwrap_or(text).to_owned()
}

/// What the name means: `services` or `tasks`, its id, whether it has a terminal, and the width of its slots' numbers.
async fn find(args: &LogsArgs, client: &mut Client) -> Result<(&'static str, String, bool, usize), CliError> {
    match client.get(&Url::new(&["services", &args.name])).await {
        Ok(service) => {
            let tty = service.has("/Spec/TaskTemplate/ContainerSpec/TTY")
                && service["Spec"]["TaskTemplate"]["ContainerSpec"]["TTY"] == true;
            let replicas = service.int("/Spec/Mode/Replicated/Replicas").unwrap_or(1);
            return Ok(("services", service.text("/ID").to_owned(), tty, digits(replicas)));
        }
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    match client.get(&Url::new(&["tasks", &args.name])).await {
        Ok(task) => {
            let tty = task["Spec"]["ContainerSpec"]["TTY"] == true;
            Ok(("tasks", task.text("/ID").to_owned(), tty, digits(task.int("/Slot").unwrap_or(0))))
        }
        Err(error) if error.is_not_found() => Err(CliError::Refused(format!("no such task or service: {}", args.name))),
        Err(error) => Err(error),
    }
}

fn digits(number: i64) -> usize {
    number.to_string().len()
}

/// Who says what, in words.
struct Names {
    client: Client,
    /// By the details of a line: what is written before it.
    known: BTreeMap<String, String>,
    /// Width of the largest slot's number.
    digits: usize,
}

impl Names {
    /// `TIME web.1.TASK@NODE    | DETAILS line`, from `TIME DETAILS line`.
    async fn line(&mut self, args: &LogsArgs, bytes: &[u8]) -> Result<Vec<u8>, CliError> {
        let count = if args.timestamps { 3 } else { 2 };
        let parts: Vec<&[u8]> = bytes.splitn(count, |byte| *byte == b' ').collect();
        let broken = || CliError::Answer {
            request: "GET logs".to_owned(),
            reason: format!("a line without details: {:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(100)])),
        };
        let (Some(line), true) = (parts.last(), parts.len() == count) else { return Err(broken()) };
        let details = std::str::from_utf8(parts[count - 2]).map_err(|_| broken())?.to_owned();
        let mut out = Vec::with_capacity(bytes.len());
        if args.timestamps {
            out.extend_from_slice(parts[0]);
            out.push(b' ');
        }
        if !self.known.contains_key(&details) {
            let who = self.who(args, &details).await?;
            self.known.insert(details.clone(), who);
        }
        out.extend_from_slice(self.known[&details].as_bytes());
        out.extend_from_slice(line);
        Ok(out)
    }

    async fn who(&mut self, args: &LogsArgs, details: &str) -> Result<String, CliError> {
        let pairs: BTreeMap<&str, &str> = details.split(',').filter_map(|pair| pair.split_once('=')).collect();
        let id =
            |kind: &str| pairs.get(&*format!("com.docker.swarm.{kind}.id")).copied().unwrap_or_default().to_owned();
        let (task, service, node) = (id("task"), id("service"), id("node"));
        let slot = match self.client.get(&Url::new(&["tasks", &task])).await {
            Ok(task) => task.int("/Slot").unwrap_or(0),
            // It was removed while we read.
            Err(error) if error.is_not_found() => 0,
            Err(error) => return Err(error),
        };
        let (service, node) = if args.no_resolve {
            (service, node)
        } else {
            (self.name("services", &service).await?, self.name("nodes", &node).await?)
        };
        let mut who = format!("{service}.{slot}");
        if !args.no_task_ids {
            who.push('.');
            who.push_str(&if args.no_trunc { task.clone() } else { human::short_id(&task) });
        }
        let padding = self.digits.saturating_sub(digits(slot));
        let extra: Vec<String> = pairs
            .iter()
            .filter(|(key, _)| !key.starts_with("com.docker.swarm."))
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let extra = if args.details { format!("{} ", extra.join(",")) } else { String::new() };
        Ok(format!("{who}@{node}{:padding$}    | {extra}", ""))
    }

    /// What is gone keeps its id as its name.
    async fn name(&mut self, kind: &str, id: &str) -> Result<String, CliError> {
        match self.client.get(&Url::new(&[kind, id])).await {
            Ok(object) => {
                let names = [object.text("/Spec/Name"), object.text("/Description/Hostname"), id];
                Ok(names.into_iter().find(|name| !name.is_empty()).unwrap_or(id).to_owned())
            }
            Err(error) if error.is_not_found() => Ok(id.to_owned()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_lines() {
        assert_eq!((lines("all"), lines("0"), lines("12")), (Ok("all".into()), Ok("0".into()), Ok("12".into())));
        assert!(lines("-1").is_err() && lines("x").is_err() && lines("").is_err());
    }

    #[test]
    fn faults_in_words() {
        let text = b"Error grabbing logs: rpc error: code = Unknown desc = warning: incomplete log stream. x\n";
        assert_eq!(fault(text), "warning: incomplete log stream. x");
        assert_eq!(fault(b"other\n"), "other");
    }
}
