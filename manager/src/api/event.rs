//! `/events`: what happens to services, nodes, secrets and configs, as Docker tells it.
//!
//! ```text
//! store's events ─▶ messages (pure) ─▶ Hub: the last 256, and every reader's queue ─▶ /events
//! ```
//! A reader that falls behind is cut off: a stream with a hole would be worse than one that ends.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_channel::{Receiver, Sender};
use bollard_stubs::models::{EventActor, EventMessage, EventMessageScopeEnum, EventMessageTypeEnum};
use futures_lite::{FutureExt, StreamExt, stream};
use hyper::body::Bytes;
use racimo_common::id::NodeId;
use racimo_common::time::Wall;

use super::answer::{Answer, CutOff};
use super::error::ApiError;
use super::filter::Filters;
use super::request::Request;
use super::{Context, convert, moment};
use crate::limits::{EVENTS_BEHIND_MAX, EVENTS_KEPT_MAX, EVENTS_READERS_MAX};
use crate::store::{Batch, DependencyKind, Event, Feed, Mode, Network, Node, NodeStatus, Service, UpdateState, View};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it happened to.
    pub kind: Kind,
    /// `create`, `update` or `remove`.
    pub action: &'static str,
    /// The object.
    pub id: String,
    /// Its name, and what changed about it.
    pub attributes: BTreeMap<String, String>,
    /// When.
    pub at: Wall,
}

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A node.
    Node,
    /// A service.
    Service,
    /// An overlay network.
    Network,
    /// A secret.
    Secret,
    /// A config.
    Config,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Service => "service",
            Self::Network => "network",
            Self::Secret => "secret",
            Self::Config => "config",
        }
    }
}

impl Message {
    /// As one line of JSON.
    fn line(&self) -> Bytes {
        let model = EventMessage {
            typ: Some(match self.kind {
                Kind::Node => EventMessageTypeEnum::NODE,
                Kind::Service => EventMessageTypeEnum::SERVICE,
                Kind::Network => EventMessageTypeEnum::NETWORK,
                Kind::Secret => EventMessageTypeEnum::SECRET,
                Kind::Config => EventMessageTypeEnum::CONFIG,
            }),
            action: Some(self.action.to_owned()),
            actor: Some(EventActor {
                id: Some(self.id.clone()),
                attributes: Some(self.attributes.clone().into_iter().collect()),
            }),
            scope: Some(EventMessageScopeEnum::SWARM),
            time: Some(self.at.nanos().div_euclid(1_000_000_000)),
            time_nano: Some(self.at.nanos()),
        };
        format!("{}\n", convert::json(&model)).into()
    }
}

/// Turns the store's events into messages. Remembers nodes' states to tell how they change.
#[derive(Debug, Default)]
pub struct Teller {
    statuses: BTreeMap<NodeId, NodeStatus>,
}

impl Teller {
    /// Begins with what is known.
    pub fn new(view: &View) -> Self {
        Self { statuses: view.state.nodes().map(|node| (node.id, view.node_status(node))).collect() }
    }

    /// The messages of one batch, in order. `now` stamps what has no stamp of its own.
    pub fn tell(&mut self, batch: &Batch, now: Wall) -> Vec<Message> {
        if batch.resync {
            *self = Self::new(&batch.view);
        }
        batch.events.iter().filter_map(|event| self.one(&batch.view, event, now)).collect()
    }

    fn one(&mut self, view: &View, event: &Event, now: Wall) -> Option<Message> {
        match event {
            Event::Service { id, old, new } => service(id.to_string(), old.as_deref(), new.as_deref(), now),
            Event::Node { id, old, new } => {
                let mut message = node(id.to_string(), old.as_deref(), new.as_deref(), now)?;
                match new {
                    Some(new) => self.follow(view, new, &mut message.attributes),
                    None => drop(self.statuses.remove(id)),
                }
                Some(message)
            }
            Event::Network { id, old, new } => network(id.to_string(), old.as_deref(), new.as_deref(), now),
            Event::NodeSeen(id) => {
                let new = view.state.node(*id)?;
                let mut message = node(id.to_string(), Some(new), Some(new), now)?;
                let before = message.attributes.len();
                self.follow(view, new, &mut message.attributes);
                message.at = now;
                (message.attributes.len() > before).then_some(message)
            }
            Event::Dependency { id, old, new } => {
                let (action, shown) = action(old.as_deref(), new.as_deref())?;
                let kind = match shown.kind {
                    DependencyKind::Secret => Kind::Secret,
                    DependencyKind::Config => Kind::Config,
                };
                let attributes = BTreeMap::from([("name".to_owned(), shown.name.clone())]);
                let at = new.as_ref().map_or(now, |new| new.meta.updated);
                Some(Message { kind, action, id: id.to_string(), attributes, at })
            }
            // Docker tells nothing about tasks and the cluster's settings.
            Event::Cluster | Event::Task { .. } | Event::TaskSeen { .. } => None,
        }
    }

    fn follow(&mut self, view: &View, node: &Node, attributes: &mut BTreeMap<String, String>) {
        let status = view.node_status(node);
        if let Some(old) = self.statuses.insert(node.id, status).filter(|old| *old != status) {
            changed(attributes, "state", old.name(), status.name());
        }
    }
}

fn changed(attributes: &mut BTreeMap<String, String>, what: &str, old: impl ToString, new: impl ToString) {
    attributes.insert(format!("{what}.old"), old.to_string());
    attributes.insert(format!("{what}.new"), new.to_string());
}

fn service(id: String, old: Option<&Service>, new: Option<&Service>, now: Wall) -> Option<Message> {
    let (action, shown) = action(old, new)?;
    let mut attributes = BTreeMap::from([("name".to_owned(), shown.spec.name.clone())]);
    if let (Some(old), Some(new)) = (old, new) {
        if let (Mode::Replicated { replicas: before }, Mode::Replicated { replicas: after }) =
            (old.spec.mode, new.spec.mode)
        {
            if before != after {
                changed(&mut attributes, "replicas", before, after);
            }
        }
        let state = |service: &Service| service.update.as_ref().map(|update| update_name(update.state));
        if let (before, Some(after)) = (state(old), state(new)) {
            if before != Some(after) {
                if let Some(before) = before {
                    attributes.insert("updatestate.old".to_owned(), before.to_owned());
                }
                attributes.insert("updatestate.new".to_owned(), after.to_owned());
            }
        }
    }
    let at = new.map_or(now, |new| new.meta.updated);
    Some(Message { kind: Kind::Service, action, id, attributes, at })
}

fn update_name(state: UpdateState) -> &'static str {
    match state {
        UpdateState::Updating => "updating",
        UpdateState::Paused => "paused",
        UpdateState::Completed => "completed",
        UpdateState::RollbackStarted => "rollback_started",
        UpdateState::RollbackPaused => "rollback_paused",
        UpdateState::RollbackCompleted => "rollback_completed",
    }
}

fn node(id: String, old: Option<&Node>, new: Option<&Node>, now: Wall) -> Option<Message> {
    let (action, shown) = action(old, new)?;
    let name = shown.name();
    let mut attributes = BTreeMap::from([("name".to_owned(), name.to_owned())]);
    if let (Some(old), Some(new)) = (old, new) {
        if old.spec.availability != new.spec.availability {
            changed(&mut attributes, "availability", old.spec.availability, new.spec.availability);
        }
        if old.role != new.role {
            changed(&mut attributes, "role", old.role, new.role);
        }
    }
    let at = new.map_or(now, |new| new.meta.updated);
    Some(Message { kind: Kind::Node, action, id, attributes, at })
}

fn network(id: String, old: Option<&Network>, new: Option<&Network>, now: Wall) -> Option<Message> {
    let (action, shown) = action(old, new)?;
    let attributes = BTreeMap::from([("name".to_owned(), shown.spec.name.clone())]);
    let at = new.map_or(now, |new| new.meta.updated);
    Some(Message { kind: Kind::Network, action, id, attributes, at })
}

/// What was done, and the object to show.
fn action<'a, T>(old: Option<&'a T>, new: Option<&'a T>) -> Option<(&'static str, &'a T)> {
    match (old, new) {
        (None, Some(new)) => Some(("create", new)),
        (Some(_), Some(new)) => Some(("update", new)),
        (Some(old), None) => Some(("remove", old)),
        (None, None) => None,
    }
}

/// The last messages, and who reads on.
#[derive(Default)]
pub struct Hub {
    inner: Mutex<Inner>,
}

struct Inner {
    kept: VecDeque<Arc<Message>>,
    /// Dropped when the manager stops.
    running: Option<Sender<()>>,
    stopped: Receiver<()>,
    readers: Vec<Sender<Arc<Message>>>,
    closed: bool,
}

impl Default for Inner {
    fn default() -> Self {
        let (running, stopped) = async_channel::bounded(1);
        Self { kept: VecDeque::new(), running: Some(running), stopped, readers: Vec::new(), closed: false }
    }
}

impl Hub {
    /// Ends when the manager stops; nothing ever comes.
    pub(super) fn stopped(&self) -> Receiver<()> {
        self.lock().stopped.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many read.
    pub fn readers(&self) -> usize {
        let mut inner = self.lock();
        inner.readers.retain(|reader| !reader.is_closed());
        inner.readers.len()
    }

    /// Keeps messages and hands them to every reader.
    pub fn publish(&self, messages: Vec<Message>) {
        let mut inner = self.lock();
        for message in messages.into_iter().map(Arc::new) {
            inner.readers.retain(|reader| match reader.try_send(message.clone()) {
                Ok(()) => true,
                Err(error) => {
                    if error.is_full() {
                        log::warn!("a reader of events fell {EVENTS_BEHIND_MAX} behind and was cut off");
                    }
                    false
                }
            });
            while inner.kept.len() >= EVENTS_KEPT_MAX {
                inner.kept.pop_front();
            }
            inner.kept.push_back(message);
        }
    }

    /// What is kept, and what comes after: no gap, no repeat.
    pub(super) fn subscribe(&self) -> (Vec<Arc<Message>>, Receiver<Arc<Message>>) {
        let (sender, receiver) = async_channel::bounded(EVENTS_BEHIND_MAX);
        let mut inner = self.lock();
        inner.readers.retain(|reader| !reader.is_closed());
        if !inner.closed {
            inner.readers.push(sender);
        }
        (inner.kept.iter().cloned().collect(), receiver)
    }

    /// Ends every reader's stream, and those of readers to come.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.running = None;
        inner.readers.clear();
    }

    /// Follows the store until it stops.
    pub async fn follow(&self, view: View, mut feed: Feed, now: impl Fn() -> Wall) {
        let mut teller = Teller::new(&view);
        while let Some(batch) = feed.next().await {
            let messages = teller.tell(&batch, now());
            if !messages.is_empty() {
                self.publish(messages);
            }
        }
    }
}

pub(super) const FILTERS: &[&str] = &[
    "action",
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

pub(super) fn matches(filters: &Filters, message: &Message) -> bool {
    let names = |key: &str, kind: Kind| {
        filters.any(key, |value| {
            message.kind == kind
                && (message.id.starts_with(value) || message.attributes.get("name").is_some_and(|n| n == value))
        })
    };
    // Messages about anything else don't happen here.
    let others = ["container", "daemon", "image", "plugin", "volume"];
    filters.is("scope", "swarm")
        && filters.is("type", message.kind.name())
        && filters.is("event", message.action)
        && filters.is("action", message.action)
        && filters.labels("label", &message.attributes)
        && names("node", Kind::Node)
        && names("service", Kind::Service)
        && names("network", Kind::Network)
        && names("secret", Kind::Secret)
        && names("config", Kind::Config)
        && others.iter().all(|key| filters.values(key).is_none())
}

/// A parameter that is a moment: seconds since 1970.
pub(super) fn moment(request: &Request, key: &str) -> Result<Option<Wall>, ApiError> {
    let Some(text) = request.param(key).filter(|text| !text.is_empty()) else { return Ok(None) };
    let bad =
        || ApiError::bad_request(format!("invalid {key} {text:?}: expected seconds since 1970, such as 1795173221.25"));
    moment::seconds(text).map(Some).ok_or_else(bad)
}

/// `GET /events`.
pub(super) async fn stream(context: &Context, request: &Request) -> Result<Answer, ApiError> {
    let filters = request.filters(FILTERS)?;
    let (since, until) = (moment(request, "since")?, moment(request, "until")?);
    if context.hub.readers() >= EVENTS_READERS_MAX {
        return Err(ApiError::unavailable("too many clients read events at once: close some and try again"));
    }
    let (kept, live) = context.hub.subscribe();
    let past: Vec<Result<Bytes, CutOff>> = kept
        .iter()
        .filter(|_| since.is_some() || until.is_some())
        .filter(|m| since.is_none_or(|since| m.at >= since) && until.is_none_or(|until| m.at <= until))
        .filter(|m| matches(&filters, m))
        .map(|m| Ok(m.line()))
        .collect();
    let past = stream::iter(past);
    let left = until.map(|until| until.since(context.now()));
    if left == Some(Duration::ZERO) {
        return Ok(Answer::stream(past.boxed()));
    }
    let end = Box::pin(async move {
        match left {
            Some(left) => drop(smol::Timer::after(left).await),
            None => std::future::pending().await,
        }
    });
    let live = stream::unfold(Some((live, end)), move |state| async move {
        let (live, mut end) = state?;
        let over = async {
            (&mut end).await;
            Ok(None)
        };
        match async { live.recv().await.map(Some) }.or(over).await {
            Ok(Some(message)) => Some((Ok(message), Some((live, end)))),
            Ok(None) => None,
            // The manager stops, or this reader fell behind. That is an end like any other, unless one was asked for.
            Err(_) => {
                left?;
                // hyper sends what it has when it must wait, and drops it at an error.
                futures_lite::future::yield_now().await;
                Some((Err(CutOff), None))
            }
        }
    });
    let live = live.filter_map(move |message| match message {
        Ok(message) => matches(&filters, &message).then(|| Ok(message.line())),
        Err(cut) => Some(Err(cut)),
    });
    Ok(Answer::stream(past.chain(live).boxed()))
}
