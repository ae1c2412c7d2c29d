//! The directory's shell: one follower of the store for all sessions.
//!
//! ```text
//! store ─ events ─▶ run ─ view and directory of the same moment ─▶ Watch ─ wakes ─▶ sessions
//! ```
//! A session sees both together, so what a task needs of the network is never newer or older than the task. A change of
//! one board's tasks wakes that board's sessions only; one of the managers'
//! addresses, the mesh, a node, a network or a service wakes all, and each
//! finds out what of it concerns its board.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_channel::{Receiver, Sender};
use futures_lite::future::{or, poll_once};
use racimo_common::id::{NodeId, ServiceId};

use super::directory::{Directory, Entry, Key};
use super::hub::SessionId;
use crate::limits::NET_ASKS_MAX;
use crate::store::{Batch, Feed, Store, View};

/// Where sessions look; clones are the same.
#[derive(Clone)]
pub struct Watch {
    shared: Arc<Mutex<Shared>>,
    asks: Sender<Sender<()>>,
}

/// One moment.
#[derive(Debug, Clone)]
pub struct Look {
    /// The store's view.
    pub view: View,
    /// What boards are told, made from it.
    pub directory: Directory,
}

struct Shared {
    look: Look,
    sessions: BTreeMap<SessionId, (NodeId, Sender<()>)>,
}

/// A session's alarm, until it is dropped.
pub(super) struct Alarm {
    watch: Watch,
    session: SessionId,
    wakes: Receiver<()>,
}

impl Watch {
    /// A watch on the store, and the work that keeps it going until the store stops.
    pub fn new(store: &Store) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (view, feed) = store.watch();
        let look = Look { directory: Directory::new(&view), view };
        let shared = Arc::new(Mutex::new(Shared { look, sessions: BTreeMap::new() }));
        let (asks, inbox) = async_channel::bounded(NET_ASKS_MAX);
        (Self { shared: shared.clone(), asks }, run(store.clone(), feed, shared, inbox))
    }

    /// What there was at the last change.
    pub(super) fn look(&self) -> Look {
        lock(&self.shared).look.clone()
    }

    /// Waits until [`look`](Self::look) is as new as the store is now. None: the store has stopped.
    pub(super) async fn latest(&self) -> Option<Look> {
        let (done, wait) = async_channel::bounded(1);
        self.asks.send(done).await.ok()?;
        wait.recv().await.ok()?;
        Some(self.look())
    }

    /// Wakes a session of this node.
    pub(super) fn attach(&self, node: NodeId, session: SessionId) -> Alarm {
        let (alarm, wakes) = async_channel::bounded(1);
        lock(&self.shared).sessions.insert(session, (node, alarm));
        Alarm { watch: self.clone(), session, wakes }
    }
}

impl Alarm {
    /// Waits for a change that may concern the board: see the module. False: the store has stopped.
    pub(super) async fn wait(&self) -> bool {
        self.wakes.recv().await.is_ok()
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        lock(&self.watch.shared).sessions.remove(&self.session);
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn run(store: Store, mut feed: Feed, shared: Arc<Mutex<Shared>>, asks: Receiver<Sender<()>>) {
    loop {
        let changed = async { feed.next().await.map(|batch| (Some(batch), None)) };
        let asked = async { asks.recv().await.ok().map(|ask| (None, Some(ask))) };
        let Some((mut batch, first)) = or(changed, asked).await else { break };
        // Before the feed is emptied: so every event up to this view is there.
        let view = store.view();
        let waiting: Vec<Sender<()>> = first.into_iter().chain(std::iter::from_fn(|| asks.try_recv().ok())).collect();
        while let Some(Some(more)) = poll_once(feed.next()).await {
            batch = Some(match batch {
                Some(batch) => join(batch, more),
                None => more,
            });
        }
        let batch = batch.unwrap_or_else(|| Batch { view: view.clone(), events: Vec::new(), resync: false });
        let view = if batch.view.version() < view.version() { view } else { batch.view };
        // A clone, so that nobody waits for the lock while items are made.
        let mut directory = lock(&shared).look.directory.clone();
        let concerned = match batch.resync {
            true => {
                directory.look_at_all(&view);
                None
            }
            false => directory.follow(&view, &batch.events),
        };
        let mut shared = lock(&shared);
        warn_of_full(&shared.look.directory, &directory);
        let concerned = concerned.filter(|_| managers(&shared.look.view) == managers(&view));
        shared.look = Look { view, directory };
        for (node, alarm) in shared.sessions.values() {
            if concerned.as_ref().is_none_or(|nodes| nodes.contains(node)) {
                // One that is awake already looks anyway.
                let _ = alarm.try_send(());
            }
        }
        drop(shared);
        // Who gave up waiting is no fault.
        for ask in waiting {
            let _ = ask.try_send(());
        }
    }
    // Their alarms end.
    lock(&shared).sessions.clear();
}

/// Where all boards dial.
fn managers(view: &View) -> Option<&Vec<String>> {
    view.state.cluster().map(|cluster| &cluster.managers)
}

fn join(mut batch: Batch, more: Batch) -> Batch {
    batch.view = more.view;
    batch.events.extend(more.events);
    batch.resync |= more.resync;
    batch
}

fn warn_of_full(old: &Directory, new: &Directory) {
    let warn = |id: &ServiceId, entry: &Entry| {
        let before = old.services().get(id).map_or((0, 0), |entry| (entry.left_out, entry.networks_left_out));
        let name = &entry.whole.name;
        if let Some(left_out @ 1..) = (before.0 == 0).then_some(entry.left_out) {
            log::warn!("service {name} has more tasks than boards can be told: {left_out} get no connections");
        }
        if let Some(left_out @ 1..) = (before.1 == 0).then_some(entry.networks_left_out) {
            log::warn!("tasks of service {name} are on more networks than boards can be told: {left_out} are left out");
        }
    };
    match new.since(old.count()) {
        Some(news) => news.for_each(|key| {
            if let Key::Service(id) = key {
                new.services().get(&id).into_iter().for_each(|entry| warn(&id, entry));
            }
        }),
        None => new.services().iter().for_each(|(id, entry)| warn(id, entry)),
    }
}
