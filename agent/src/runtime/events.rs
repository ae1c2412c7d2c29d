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
    events::{TaskExit, TaskOom},
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
    container::wall,
    ctrd::{Ctrd, CtrdError, request, within},
};
use crate::limits;

const EXIT: &str = "/tasks/exit";
const OOM: &str = "/tasks/oom";
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
                follow(stream, &events).await
            }
            Err(error) => error.reason(),
        };
        if !told {
            log::warn!("no events from containerd: {reason}");
            told = events.send(Event::Lost { reason }).await.is_ok();
        }
        Timer::after(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

async fn subscribe(runtime: &Runtime) -> Result<Streaming<Envelope>, RuntimeError> {
    let ctrd = runtime.connect().await?;
    let filters = [EXIT, OOM, POKE].map(|topic| format!("namespace=={NAMESPACE},topic=={topic:?}"));
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
async fn follow(mut stream: Streaming<Envelope>, events: &Sender<Event>) -> String {
    let mut ooms = Ooms::default();
    loop {
        match stream.message().await {
            Ok(Some(envelope)) => {
                if let Some(exited) = ooms.read(&envelope)
                    && events.send(Event::Exited(exited)).await.is_err()
                {
                    return "nobody listens any more".into();
                }
            }
            Ok(None) => return "containerd ended the stream".into(),
            Err(status) => return status.message().to_owned(),
        }
    }
}

/// Tasks in which the kernel killed a process for memory, oldest first. That event comes before
/// the container's end, and need not lead to it.
#[derive(Default)]
struct Ooms(heapless::Vec<TaskId, { limits::OOMS_MAX }>);

impl Ooms {
    /// The end of a container, if that is what `envelope` tells.
    fn read(&mut self, envelope: &Envelope) -> Option<Exited> {
        let bytes = envelope.event.as_ref().map_or(&[][..], |event| &event.value);
        match envelope.topic.as_str() {
            OOM => {
                let task = TaskOom::decode(bytes).ok()?.container_id.parse().ok()?;
                self.add(task);
                None
            }
            EXIT => {
                let exit = TaskExit::decode(bytes).ok()?;
                // A process that was started later in a container ends under its own id.
                if exit.id != exit.container_id {
                    return None;
                }
                let task = exit.container_id.parse().ok()?;
                let at = exit.exited_at.map_or(Wall::default(), wall);
                Some(Exited { task, status: exit.exit_status, at, oom: self.take(task) })
            }
            _ => None,
        }
    }

    fn add(&mut self, task: TaskId) {
        self.take(task);
        if self.0.is_full() {
            self.0.remove(0);
        }
        self.0.push(task).expect("one place was made free");
    }

    fn take(&mut self, task: TaskId) -> bool {
        let place = self.0.iter().position(|known| *known == task);
        place.map(|place| self.0.remove(place)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use racimo_common::id::IdSource;

    use super::*;

    fn envelope(topic: &str, message: &impl Message) -> Envelope {
        let event = prost_types::Any { type_url: String::new(), value: message.encode_to_vec() };
        Envelope { topic: topic.into(), event: Some(event), ..Envelope::default() }
    }

    fn exit(container: &str, id: &str) -> Envelope {
        let exited_at = Some(prost_types::Timestamp { seconds: 1, nanos: 5 });
        let message = TaskExit {
            container_id: container.into(),
            id: id.into(),
            exit_status: 137,
            exited_at,
            ..TaskExit::default()
        };
        envelope(EXIT, &message)
    }

    fn oom(task: TaskId) -> Envelope {
        envelope(OOM, &TaskOom { container_id: task.to_string() })
    }

    #[test]
    fn only_a_containers_own_end_counts() {
        let task: TaskId = IdSource::seeded(1).draw();
        let id = task.to_string();
        let mut ooms = Ooms::default();
        assert_eq!(ooms.read(&exit(&id, "exec-1")), None);
        assert_eq!(ooms.read(&exit("not-ours", "not-ours")), None);
        let broken = prost_types::Any { type_url: String::new(), value: vec![0xff; 3] };
        assert_eq!(ooms.read(&Envelope { topic: EXIT.into(), event: Some(broken), ..Envelope::default() }), None);
        assert_eq!(ooms.read(&Envelope { topic: POKE.into(), ..Envelope::default() }), None);
        let want = Exited { task, status: 137, at: Wall::from_nanos(1_000_000_005), oom: false };
        assert_eq!(ooms.read(&exit(&id, &id)), Some(want.clone()));
        assert_eq!(ooms.read(&oom(task)), None);
        assert_eq!(ooms.read(&exit(&id, &id)), Some(Exited { oom: true, ..want.clone() }));
        assert_eq!(ooms.read(&exit(&id, &id)), Some(want));
    }

    #[test]
    fn the_oldest_gives_way() {
        let mut ids = IdSource::seeded(1);
        let tasks: Vec<TaskId> = (0..=limits::OOMS_MAX).map(|_| ids.draw()).collect();
        let mut ooms = Ooms::default();
        for task in &tasks {
            ooms.read(&oom(*task));
        }
        assert!(!ooms.take(tasks[0]));
        assert!(ooms.take(tasks[1]));
    }
}
