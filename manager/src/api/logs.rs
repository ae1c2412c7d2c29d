//! `GET /services/{name}/logs` and `GET /tasks/{name}/logs`: what tasks say, from all their boards, as one stream.
//!
//! Without a terminal each line is a frame: stream (1 standard output, 2 standard error, 3 a fault of the daemon),
//! three zeros, length as `u32` big-endian, then time, details and line as asked for. With one: the bytes.

use futures_lite::{StreamExt, stream};
use hyper::body::Bytes;
use racimo_common::object::{LogAsk, LogEntry, LogStream};

use super::answer::Answer;
use super::error::ApiError;
use super::event::moment;
use super::request::Request;
use super::{Context, find};
use crate::dispatcher::merge::{Merge, Source, Subject};
use crate::dispatcher::tail::{Tail, Told};

/// The first version whose answers say what they are made of.
const TYPED_SINCE: (u32, u32) = (1, 42);
const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";
const RAW: &str = "application/vnd.docker.raw-stream";

/// `GET /services/{name}/logs`.
pub(super) async fn service(context: &Context, request: &Request) -> Result<Answer, ApiError> {
    let view = context.cluster_view()?;
    let service = find::service(&view.state, &request.name)?;
    answer(context, request, Subject::Service(service.id), service.spec.task.container.tty)
}

/// `GET /tasks/{name}/logs`.
pub(super) async fn task(context: &Context, request: &Request) -> Result<Answer, ApiError> {
    let view = context.cluster_view()?;
    let task = find::task(&view.state, &request.name)?;
    answer(context, request, Subject::Task(task.id), task.spec.container.tty)
}

fn answer(context: &Context, request: &Request, subject: Subject, tty: bool) -> Result<Answer, ApiError> {
    let mut ask = ask(request)?;
    if ask.until.is_some_and(|until| until <= context.now()) {
        // Nothing that comes later can be meant.
        ask.follow = false;
    }
    let format = Format { tty, details: request.flag("details"), timestamps: request.flag("timestamps") };
    let Some(reader) = context.logs.reader() else {
        return Err(ApiError::unavailable("too many clients read logs at once: close some and try again"));
    };
    let merge = Merge::new(subject, ask);
    let tail = Tail::new(context.logs.clone(), context.store.clone(), context.clock, merge, reader);
    let stopped = context.hub.stopped();
    let chunks = stream::unfold((tail, stopped), move |(mut tail, stopped)| async move {
        let next = futures_lite::future::or(tail.next(), async {
            // Nobody sends: it closes when the manager stops.
            let _ = stopped.recv().await;
            None
        });
        let told = next.await?;
        Some((Ok(format.chunk(told)), (tail, stopped)))
    });
    let content_type = if tty { RAW } else { MULTIPLEXED };
    let content_type = (request.api_version >= TYPED_SINCE).then_some(content_type);
    Ok(Answer::chunks(content_type, chunks.boxed()))
}

/// What is asked for.
fn ask(request: &Request) -> Result<LogAsk, ApiError> {
    let (stdout, stderr) = (request.flag("stdout"), request.flag("stderr"));
    if !stdout && !stderr {
        return Err(ApiError::bad_request("Bad parameters: you must choose at least one stream"));
    }
    let tail = match request.param("tail").unwrap_or_default() {
        "" | "all" => None,
        text => Some(text.parse().map_err(|_| {
            ApiError::bad_request(format!("tail value must be a positive integer or \"all\", not {text:?}"))
        })?),
    };
    // Clients write 0 for "from the beginning".
    let since = moment(request, "since")?.filter(|since| since.nanos() != 0);
    let until = moment(request, "until")?.filter(|until| until.nanos() != 0);
    Ok(LogAsk { follow: request.flag("follow"), tail, since, until, stdout, stderr })
}

/// How lines are written.
#[derive(Debug, Clone, Copy)]
struct Format {
    tty: bool,
    details: bool,
    timestamps: bool,
}

impl Format {
    fn chunk(self, told: Told) -> Bytes {
        let mut out = Vec::new();
        match told {
            Told::Lines(source, lines) => {
                let details = if self.details { details(&source) } else { String::new() };
                for line in lines {
                    self.line(&mut out, &details, &line);
                }
            }
            Told::Missing(reasons) => {
                // As SwarmKit says it and Docker passes it on: clients show it as an error of the stream.
                let text = format!(
                    "Error grabbing logs: rpc error: code = Unknown desc = warning: incomplete log stream. \
                     some logs could not be retrieved for the following reasons: {}\n",
                    reasons.join(", ")
                );
                self.frame(&mut out, 3, &[text.as_bytes()]);
            }
        }
        out.into()
    }

    fn line(self, out: &mut Vec<u8>, details: &str, entry: &LogEntry) {
        let stamp = entry.at.rfc3339();
        let stamp: &[u8] = if self.timestamps { &stamp } else { b"" };
        let blank: &[u8] = if self.timestamps { b" " } else { b"" };
        let stream = match entry.stream {
            LogStream::Stdout => 1,
            LogStream::Stderr => 2,
        };
        self.frame(out, stream, &[stamp, blank, details.as_bytes(), &entry.line]);
    }

    fn frame(self, out: &mut Vec<u8>, stream: u8, parts: &[&[u8]]) {
        if !self.tty {
            let length: usize = parts.iter().map(|part| part.len()).sum();
            out.extend_from_slice(&[stream, 0, 0, 0]);
            // Lines are bounded far below.
            out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        }
        parts.iter().for_each(|part| out.extend_from_slice(part));
    }
}

/// Where a line comes from, in Docker's words: the CLI takes names and ids from there.
fn details(source: &Source) -> String {
    format!(
        "com.docker.swarm.node.id={},com.docker.swarm.service.id={},com.docker.swarm.task.id={} ",
        source.node, source.service, source.task
    )
}

#[cfg(test)]
mod tests {
    use racimo_common::id::{NodeId, RandomId, ServiceId, TaskId};
    use racimo_common::time::Wall;
    use serde_json::Value;

    use super::*;
    use crate::api::request::tests::get;

    #[track_caller]
    fn check(query: &str, want: Result<LogAsk, &str>) {
        let got = ask(&get(query)).map_err(|error| (error.status.as_u16(), error.message));
        match (got, want) {
            (Ok(got), Ok(want)) => assert_eq!(got, want),
            (Err((400, got)), Err(want)) => assert!(got.contains(want), "{got}"),
            (got, want) => panic!("{query}: {got:?} instead of {want:?}"),
        }
    }

    #[test]
    fn what_is_asked_for() {
        let all = LogAsk { follow: false, tail: None, since: None, until: None, stdout: true, stderr: true };
        let at = |nanos| Some(Wall::from_nanos(nanos));
        check("stdout=1&stderr=1", Ok(all));
        check("stdout=1&stderr=1&tail=all&since=0&until=0", Ok(all));
        check("stdout=1&stderr=0&follow=1&tail=3", Ok(LogAsk { stderr: false, follow: true, tail: Some(3), ..all }));
        // docker-py writes True.
        check("stdout=True&stderr=True&since=7", Ok(LogAsk { since: at(7_000_000_000), ..all }));
        check("stdout=1&stderr=1&until=1.000000005", Ok(LogAsk { until: at(1_000_000_005), ..all }));
        check("", Err("Bad parameters: you must choose at least one stream"));
        check("stdout=0&stderr=false", Err("at least one stream"));
        check("stdout=1&tail=-1", Err("tail value must be"));
        check("stdout=1&tail=x", Err("tail value must be"));
        check("stdout=1&since=yesterday", Err("invalid since"));
    }

    /// What Docker 20.10 answered, made again from its parts.
    #[test]
    fn frames_are_dockers() {
        let text = include_str!("../../tests/golden/api/logs-140.json");
        let frames: Value = serde_json::from_str(text).expect("JSON");
        let frames = frames.as_array().expect("a list");
        assert_eq!(frames.len(), 4);
        for frame in frames {
            let data = frame["data"].as_str().expect("text");
            let (stamp, rest) = data.split_once(' ').expect("a time");
            let (details, line) = rest.split_once(' ').expect("details");
            // Docker's ids have more bits than ours.
            let ids: Vec<&str> = details.split(',').filter_map(|part| Some(part.split_once('=')?.1)).collect();
            let source =
                Source { task: TaskId::from_bits(1), node: NodeId::from_bits(2), service: ServiceId::from_bits(3) };
            let data = data.replace(ids[0], &source.node.to_string());
            let data = data.replace(ids[1], &source.service.to_string()).replace(ids[2], &source.task.to_string());
            let stream = if frame["stream"] == 1 { LogStream::Stdout } else { LogStream::Stderr };
            let at = Wall::from_rfc3339(stamp.as_bytes()).expect("a time");
            let entry = LogEntry { at, stream, line: line.into() };
            let format = Format { tty: false, details: true, timestamps: true };
            let mut want =
                vec![u8::try_from(frame["stream"].as_u64().expect("1 or 2")).expect("small"), 0, 0, 0, 0, 0, 0];
            want.push(u8::try_from(frame["len"].as_u64().expect("a length")).expect("small"));
            want.extend_from_slice(data.as_bytes());
            assert_eq!(format.chunk(Told::Lines(source, vec![entry.clone()])), want);
            let plain = Format { tty: true, details: false, timestamps: false };
            assert_eq!(plain.chunk(Told::Lines(source, vec![entry])), line.as_bytes());
        }
    }

    #[test]
    fn what_is_missing_is_the_last_frame() {
        let format = Format { tty: false, details: true, timestamps: false };
        let bytes = format.chunk(Told::Missing(vec!["node a is not available".into(), "b".into()]));
        assert_eq!(bytes[..4], [3, 0, 0, 0]);
        let text = String::from_utf8_lossy(&bytes[8..]).into_owned();
        assert!(text.starts_with("Error grabbing logs: ") && text.ends_with("reasons: node a is not available, b\n"));
    }
}
