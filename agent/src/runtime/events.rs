//! containers' ends, as containerd tells them, over one stream for all.
//!
//! ```text
//! connect ─▶ subscribe ─▶ poke until something arrives ─▶ Connected ─▶ Exited, Exited, …
//!    ▲                                                                       │
//!    └──────────────── back off ◀── Lost ◀── stream or containerd ended ─────┘
//! ```
//!
//! After `Connected` nothing is missed, so that the receiver lists what there is and has no gap.

use std::time::Duration;

use async_channel::Sender;
use containerd_client::{
    events::TaskExit,
    services::v1::{PublishRequest, SubscribeRequest, events_client::EventsClient},
    types::Envelope,
};
use futures_lite::FutureExt as _;
use prost::Message;
use racimo_common::{id::TaskId, time::Wall};
use smol::Timer;
use tonic::{Status, Streaming};

use super::{
    NAMESPACE, Runtime, RuntimeError,
    ctrd::{Ctrd, CtrdError, request, within},
    process::wall,
};
use crate::limits;

const EXIT: &str = "/tasks/exit";
const POKE: &str = "/racimo/hello";
/// A stream shows no sign of life before its first event, so we make one until it arrives.
const POKE_EVERY: Duration = Duration::from_millis(50);
/// First and longest pause between connections. Without jitter: the server is on this board and
/// we are its only client that does this.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// What the stream tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// From now on every end is told: list the containers.
    Connected,
    /// A container ended.
    Exited(Exited),
    /// containerd went away or does not answer; containers run on. Told once until `Connected`.
    Lost {
        /// For a person.
        reason: String,
    },
}

/// The end of a container's first process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exited {
    /// Its task.
    pub task: TaskId,
    /// Exit code; 128 and the signal's number if a signal ended it.
    pub status: u32,
    /// By the board's clock.
    pub at: Wall,
    /// Whether it hit its memory limit and the kernel killed a process in it.
    pub oom: bool,
}

/// Tells `events` about every container's end until the receiver is gone. A full channel makes
/// containerd wait, and loses nothing.
pub async fn watch(runtime: Runtime, events: Sender<Event>) {
    let mut pause = BACKOFF.0;
    let mut told = false;
    while !events.is_closed() {
        let connected = subscribe(&runtime).await;
        let reason = match connected {
            Ok(stream) => {
                (pause, told) = (BACKOFF.0, false);
                if events.send(Event::Connected).await.is_err() {
                    return;
                }
                follow(&runtime, stream, &events).await
            }
            Err(error) => error.reason(),
        };
        if !told {
            told = events.send(Event::Lost { reason }).await.is_ok();
        }
        Timer::after(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

async fn subscribe(runtime: &Runtime) -> Result<Streaming<Envelope>, RuntimeError> {
    let ctrd = runtime.connect().await?;
    let filters = [EXIT, POKE].map(|topic| format!("namespace=={NAMESPACE},topic=={topic:?}"));
    let message = SubscribeRequest { filters: filters.into() };
    let mut client = EventsClient::new(ctrd.clone());
    let answered = within(limits::CTRD_CALL_MAX, client.subscribe(request(message, None)));
    let stream = answered.or(poke(&ctrd)).await.map_err(CtrdError::call("subscribe to events"))?;
    Ok(stream.into_inner())
}

/// Publishes an event of our own again and again; returns only if that fails.
async fn poke<T>(ctrd: &Ctrd) -> Result<T, Status> {
    let event = prost_types::Any { type_url: "google.protobuf.Empty".into(), value: Vec::new() };
    let message = PublishRequest { topic: POKE.into(), event: Some(event) };
    let mut client = EventsClient::new(ctrd.clone());
    loop {
        Timer::after(POKE_EVERY).await;
        within(limits::CTRD_CALL_MAX, client.publish(request(message.clone(), None))).await?;
    }
}

/// Passes events on until the stream ends; says why it did.
async fn follow(runtime: &Runtime, mut stream: Streaming<Envelope>, events: &Sender<Event>) -> String {
    loop {
        match stream.message().await {
            Ok(Some(envelope)) => {
                if let Some(mut exited) = read(&envelope) {
                    exited.oom = runtime.oom_killed(exited.task);
                    if events.send(Event::Exited(exited)).await.is_err() {
                        return "nobody listens any more".into();
                    }
                }
            }
            Ok(None) => return "containerd ended the stream".into(),
            Err(status) => return status.message().to_owned(),
        }
    }
}

/// The end of a container, if that is what `envelope` tells. Whether it was killed for memory is
/// not in it.
fn read(envelope: &Envelope) -> Option<Exited> {
    if envelope.topic != EXIT {
        return None;
    }
    let exit = TaskExit::decode(envelope.event.as_ref()?.value.as_slice()).ok()?;
    // A process that was started later in a container ends under its own id.
    if exit.id != exit.container_id {
        return None;
    }
    let task = exit.container_id.parse().ok()?;
    Some(Exited { task, status: exit.exit_status, at: exit.exited_at.map_or(Wall::default(), wall), oom: false })
}

#[cfg(test)]
mod tests {
    use racimo_common::id::IdSource;

    use super::*;

    fn exit(container: &str, id: &str) -> Envelope {
        let message = TaskExit {
            container_id: container.into(),
            id: id.into(),
            exit_status: 137,
            exited_at: Some(prost_types::Timestamp { seconds: 1, nanos: 5 }),
            ..TaskExit::default()
        };
        let event = prost_types::Any { type_url: String::new(), value: message.encode_to_vec() };
        Envelope { topic: EXIT.into(), event: Some(event), ..Envelope::default() }
    }

    #[test]
    fn only_a_containers_own_end_counts() {
        let task: TaskId = IdSource::seeded(1).draw();
        let id = task.to_string();
        assert_eq!(read(&exit(&id, "exec-1")), None);
        assert_eq!(read(&exit("not-ours", "not-ours")), None);
        let broken = prost_types::Any { type_url: String::new(), value: vec![0xff; 3] };
        assert_eq!(read(&Envelope { topic: EXIT.into(), event: Some(broken), ..Envelope::default() }), None);
        assert_eq!(read(&Envelope { topic: EXIT.into(), ..Envelope::default() }), None);
        assert_eq!(read(&Envelope { topic: POKE.into(), ..exit(&id, &id) }), None);
        let at = Wall::from_nanos(1_000_000_005);
        assert_eq!(read(&exit(&id, &id)), Some(Exited { task, status: 137, at, oom: false }));
    }
}
