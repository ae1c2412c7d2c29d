//! The store's shell: one thread owns the log and the state; everybody else has a [`Store`] handle.
//!
//! Writers wait for the fsync; readers take the last published [`View`] without waiting; watchers get every
//! batch of events, or one `resync` if they fall behind.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_channel::{Receiver, Sender, TrySendError};
use racimo_common::time::Wall;

use super::change::{Change, Command, Refusal};
use super::event::Event;
use super::log::{self, Disk, Log};
use super::seen::{Observation, Seen};
use super::state::State;
use super::view::View;
use crate::limits;

/// A handle on the store; cheap to clone.
#[derive(Clone)]
pub struct Store {
    requests: Sender<Request>,
    shared: Arc<Shared>,
}

/// Why a commit did nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The state does not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The disk is full.
    #[error("the manager's disk is full: nothing was changed; free some space in its data directory")]
    Full,
    /// One command is over the log's limit.
    #[error("the change is too large for the store")]
    TooLarge,
    /// The manager is stopping, or its disk failed.
    #[error("the manager's store has stopped")]
    Stopped,
}

enum Request {
    Commit { command: Command, reply: Sender<Result<u64, CommitError>> },
    Observe(Vec<Observation>),
}

struct Shared {
    published: Mutex<Published>,
    /// Closed when the owner ends.
    stopped: Receiver<()>,
}

struct Published {
    view: View,
    feeds: Vec<FeedSender>,
    /// The owner has ended: there will be no further batch.
    ended: bool,
}

struct FeedSender {
    batches: Sender<Batch>,
    lagged: Arc<AtomicBool>,
}

/// What changed since the last batch.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The state after it.
    pub view: View,
    /// In order. Empty with `resync`.
    pub events: Vec<Event>,
    /// The watcher fell behind: events were lost, look at everything.
    pub resync: bool,
}

/// A watcher's stream of batches.
pub struct Feed {
    batches: Receiver<Batch>,
    lagged: Arc<AtomicBool>,
    shared: Arc<Shared>,
}

impl Shared {
    /// The lock is held for a clone of a few counters, never across a wait.
    fn lock(&self) -> MutexGuard<'_, Published> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, view: View, events: Vec<Event>) {
        let mut published = self.lock();
        published.view = view.clone();
        if events.is_empty() {
            return;
        }
        let batch = Batch { view, events, resync: false };
        published.feeds.retain(|feed| match feed.batches.try_send(batch.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                feed.lagged.store(true, Ordering::Relaxed);
                true
            }
            Err(TrySendError::Closed(_)) => false,
        });
    }
}

impl Store {
    /// Opens the log on `disk` and starts the owner thread. `seed` feeds the consensus library's timeouts.
    ///
    /// # Errors
    /// What is wrong with the disk or the log on it.
    pub fn open<D: Disk + 'static>(disk: D, seed: u64) -> Result<Self, log::OpenError> {
        let log = Log::open(disk, State::default(), seed)?;
        if let Some((index, reason)) = log.machine().unread() {
            // Going on without it would forget a decision.
            return Err(log::OpenError::Restore {
                file: format!("entry {index} of the log"),
                source: log::RestoreError(format!("{reason} (was the manager replaced by an older version?)")),
            });
        }
        let view = View { state: log.machine().clone(), seen: Seen::default() };
        let (requests, inbox) = async_channel::bounded(limits::STORE_QUEUE_MAX);
        let (running, stopped) = async_channel::bounded(1);
        let shared =
            Arc::new(Shared { published: Mutex::new(Published { view, feeds: Vec::new(), ended: false }), stopped });
        let owner = Owner { log, shared: shared.clone(), inbox };
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                owner.run();
                drop(running);
            })
            .map_err(|source| log::OpenError::Io { file: "the store's thread".to_owned(), source })?;
        Ok(Self { requests, shared })
    }

    /// The last published view.
    pub fn view(&self) -> View {
        self.shared.lock().view.clone()
    }

    /// A view, and every change after it: no gap, no repeat.
    pub fn watch(&self) -> (View, Feed) {
        let (batches, inbox) = async_channel::bounded(limits::FEED_BATCHES_MAX);
        let lagged = Arc::new(AtomicBool::new(false));
        let mut published = self.shared.lock();
        if !published.ended {
            published.feeds.push(FeedSender { batches, lagged: lagged.clone() });
        }
        let view = published.view.clone();
        (view, Feed { batches: inbox, lagged, shared: self.shared.clone() })
    }

    /// Commits `changes` as one transaction, stamped `at`; returns its index once it is on disk and published.
    /// Without changes nothing is written.
    ///
    /// # Errors
    /// [`CommitError`]; nothing was changed then.
    pub async fn commit(&self, at: Wall, changes: Vec<Change>) -> Result<u64, CommitError> {
        if changes.is_empty() {
            return Ok(self.view().version());
        }
        let (reply, answer) = async_channel::bounded(1);
        let command = Command { at, changes };
        self.requests.send(Request::Commit { command, reply }).await.map_err(|_| CommitError::Stopped)?;
        answer.recv().await.map_err(|_| CommitError::Stopped)?
    }

    /// Publishes what was observed; those that contradict the state are dropped.
    pub async fn observe(&self, observations: Vec<Observation>) {
        // A stopped store is noticed by whoever commits.
        let _ = self.requests.send(Request::Observe(observations)).await;
    }

    /// Waits until the store has stopped: its disk failed (the process must end).
    pub async fn stopped(&self) {
        let _ = self.shared.stopped.recv().await;
    }
}

impl Feed {
    /// Waits for the next batch; several that wait already come as one. `None` once the store has stopped.
    pub async fn next(&mut self) -> Option<Batch> {
        let mut batch = self.batches.recv().await.ok()?;
        // With the lock the owner is never between finding the queue full and saying so.
        let published = self.shared.lock();
        while let Ok(more) = self.batches.try_recv() {
            batch.view = more.view;
            batch.events.extend(more.events);
        }
        if self.lagged.swap(false, Ordering::Relaxed) {
            return Some(Batch { view: published.view.clone(), events: Vec::new(), resync: true });
        }
        Some(batch)
    }
}

struct Owner<D: Disk> {
    log: Log<D, State>,
    shared: Arc<Shared>,
    inbox: Receiver<Request>,
}

/// What one round of requests does, until it is on disk.
#[derive(Default)]
struct Round {
    commands: Vec<Vec<u8>>,
    replies: Vec<Sender<Result<u64, CommitError>>>,
    /// Answered when the round is published: whoever is refused and looks again must see what stood in the way.
    refused: Vec<(Sender<Result<u64, CommitError>>, Refusal)>,
    effects: VecDeque<Effect>,
}

impl Round {
    /// Whether the largest command would still fit into the log's batch.
    fn has_room(&self) -> bool {
        let overhead = limits::LOG_COMMAND_OVERHEAD_BYTES;
        let bytes: u64 = self.commands.iter().map(|command| command.len() as u64 + overhead).sum();
        let largest = limits::COMMAND_BYTES_MAX as u64 + overhead;
        // Observations count too: a stream of them must not hold up the writers of the round.
        self.effects.len() + self.refused.len() < limits::GROUP_COMMIT_MAX
            && bytes + largest <= limits::LOG_BATCH_BYTES_MAX
    }
}

impl<D: Disk> Drop for Owner<D> {
    /// Whoever waits for an answer or a batch learns that none will come.
    fn drop(&mut self) {
        self.inbox.close();
        while self.inbox.try_recv().is_ok() {}
        let mut published = self.shared.lock();
        published.ended = true;
        published.feeds.clear();
    }
}

enum Effect {
    Decided(Vec<Event>, Box<State>),
    Observed(Vec<Observation>),
}

impl<D: Disk> Owner<D> {
    fn run(mut self) {
        let mut view = self.shared.lock().view.clone();
        while let Ok(first) = self.inbox.recv_blocking() {
            let mut round = Round::default();
            let mut state = view.state.clone();
            let mut next = Some(first);
            while let Some(request) = next {
                self.take(request, &mut state, &mut round);
                next = if round.has_room() { self.inbox.try_recv().ok() } else { None };
            }
            if !self.finish(round, &mut view) {
                return;
            }
        }
    }

    /// Validates against the state the log will have by then, so that only commands that take effect are logged.
    fn take(&self, request: Request, state: &mut State, round: &mut Round) {
        match request {
            Request::Observe(observations) => round.effects.push_back(Effect::Observed(observations)),
            Request::Commit { command, reply } => {
                let index = self.log.index() + 1 + round.commands.len() as u64;
                let bytes = match rmp_serde::to_vec_named(&command) {
                    Ok(bytes) if bytes.len() <= limits::COMMAND_BYTES_MAX => bytes,
                    Ok(_) | Err(_) => return drop(reply.try_send(Err(CommitError::TooLarge))),
                };
                match state.apply(index, &command) {
                    Ok((next, events)) => {
                        *state = next.clone();
                        round.effects.push_back(Effect::Decided(events, Box::new(next)));
                        round.commands.push(bytes);
                        round.replies.push(reply);
                    }
                    Err(refusal) => round.refused.push((reply, refusal)),
                }
            }
        }
    }

    /// Writes the round's commands and publishes its effects. False: the disk failed.
    fn finish(&mut self, round: Round, view: &mut View) -> bool {
        let Round { commands, replies, refused, mut effects } = round;
        let committed = if commands.is_empty() { Ok(Vec::new()) } else { self.log.commit(&commands) };
        let answers: Vec<Result<u64, CommitError>> = match committed {
            Ok(indexes) => indexes.into_iter().map(Ok).collect(),
            Err(error) => {
                let answer = match error {
                    log::CommitError::Full => CommitError::Full,
                    log::CommitError::TooLarge { .. } | log::CommitError::Empty { .. } => CommitError::TooLarge,
                    log::CommitError::Broken { .. } | log::CommitError::NotLeader => {
                        ::log::error!("the store's disk failed, the manager must stop: {error}");
                        answer(replies, std::iter::repeat(Err(CommitError::Stopped)));
                        return false;
                    }
                };
                ::log::warn!("the store refused a write: {error}");
                // What was observed beside it is true all the same.
                effects.retain(|effect| matches!(effect, Effect::Observed(_)));
                vec![Err(answer); replies.len()]
            }
        };
        let mut events = Vec::new();
        for effect in effects {
            match effect {
                Effect::Decided(happened, state) => {
                    view.state = *state;
                    view.seen.follow(&happened);
                    events.extend(happened);
                }
                Effect::Observed(observations) => {
                    let seen = observations.into_iter().filter_map(|o| view.seen.observe(&view.state, o));
                    events.extend(seen);
                }
            }
        }
        // The same state as the log's, so that it is in memory once.
        view.state = self.log.machine().clone();
        self.shared.publish(view.clone(), events);
        answer(replies, answers);
        let (replies, refusals): (Vec<_>, Vec<_>) = refused.into_iter().unzip();
        answer(replies, refusals.into_iter().map(|refusal| Err(refusal.into())));
        true
    }
}

/// A writer that no longer waits is no fault.
fn answer(replies: Vec<Sender<Result<u64, CommitError>>>, answers: impl IntoIterator<Item = Result<u64, CommitError>>) {
    for (reply, answer) in replies.into_iter().zip(answers) {
        let _ = reply.try_send(answer);
    }
}

impl log::Machine for State {
    /// A command that cannot be read or is refused changes nothing, everywhere alike. The owner logs none such; if
    /// one is met all the same, the start is refused ([`Store::open`]).
    fn apply(&mut self, index: u64, command: &[u8]) {
        let applied = rmp_serde::from_slice::<Command>(command)
            .map_err(|error| error.to_string())
            .and_then(|command| State::apply(self, index, &command).map_err(|refusal| refusal.to_string()));
        match applied {
            Ok((next, _)) => *self = next,
            Err(reason) => {
                self.index = index;
                self.unread.get_or_insert((index, reason));
            }
        }
    }

    fn snapshot(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(&self.to_stored()).expect("the state is plain data")
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), log::RestoreError> {
        let stored = rmp_serde::from_slice(bytes).map_err(|error| log::RestoreError(error.to_string()))?;
        *self = State::from_stored(stored)
            .ok_or_else(|| log::RestoreError("a task names a spec that is not there".to_owned()))?;
        Ok(())
    }
}
