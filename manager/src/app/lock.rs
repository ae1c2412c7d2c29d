//! The lock: what the manager can do before and after somebody brings the unlock key.
//!
//! In: the vault's key file, the unlock key of the store, texts that claim to be it. Out: a vault that is open or not.
//!
//! ```text
//! start ─ file plain ──▶ open                         new key: commit ─▶ the file opens as before, and with it
//!   └─ file wrapped ───▶ locked ─ its key ─▶ open               └─ shown: commit ─▶ the file opens with it alone
//! ```
//! The store says what the file shall be ([`key_file`]). A start that finds them apart makes the file follow.
//! While it is locked no stage decides anything, and agents are not served.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_channel::{Receiver, Sender};
use racimo_common::time::Mono;
use ring::rand::SystemRandom;
use zeroize::Zeroizing;

use super::control::{Manager, failed, no_random};
use super::{keep, key_file};
use crate::api::control::ControlError;
use crate::limits::{TRUST_LOOK_EVERY, UNLOCK_TRIES_MAX, UNLOCK_TRIES_WITHIN};
use crate::store::{Change, Sealed, State, UnlockBefore};
use crate::vault;
use crate::vault::Key;
use crate::vault::unlock::{KeyFile, Locks, UnlockKey};

/// Whether the manager waits for its unlock key, and how often wrong ones were tried.
#[derive(Default)]
pub(super) struct Lock(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// While it is shut; whoever waits learns that it opens by the sender's end.
    shut: Option<(Sender<()>, Receiver<()>)>,
    tries: Tries,
}

impl Lock {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is shut.
    pub(super) fn is_shut(&self) -> bool {
        self.inner().shut.is_some()
    }

    /// Shuts it; false: it is shut already.
    fn shut(&self) -> bool {
        let shut = &mut self.inner().shut;
        let first = shut.is_none();
        shut.get_or_insert_with(|| async_channel::bounded(1));
        first
    }

    /// Opens it.
    pub(super) fn open(&self) {
        self.inner().shut = None;
    }

    /// Waits until it is open.
    pub(super) async fn opened(&self) {
        let waiting = self.inner().shut.as_ref().map(|(_, opened)| opened.clone());
        if let Some(opened) = waiting {
            let _ = opened.recv().await;
        }
    }
}

/// Counts tries, so that a client that guesses costs nothing but its own time.
#[derive(Debug, Default)]
struct Tries {
    count: usize,
    since: Option<Mono>,
}

impl Tries {
    /// Takes one of the tries that are left.
    ///
    /// # Errors
    /// There are none for so long.
    fn take(&mut self, now: Mono) -> Result<(), Duration> {
        let since = *self.since.get_or_insert(now);
        let ends = since + UNLOCK_TRIES_WITHIN;
        if now >= ends {
            *self = Self { count: 0, since: Some(now) };
        } else if self.count >= UNLOCK_TRIES_MAX {
            return Err(ends.since(now));
        }
        self.count += 1;
        Ok(())
    }
}

impl Manager {
    /// Opens the vault with its key file and makes sure that it is the right key. False: the file is wrapped, and the
    /// manager is locked.
    pub(super) fn open_vault(&self, state: &State) -> Result<bool, ControlError> {
        // After it was unlocked by hand, the start may be tried again.
        if self.vault().is_open() {
            return Ok(true);
        }
        let key = match self.key_file()? {
            Some(KeyFile::Plain(key)) => key,
            Some(KeyFile::Wrapped(_)) => {
                if self.lock().shut() {
                    log::warn!(
                        "the manager is locked: it serves no agents and decides nothing until `pi-mgr unlock`; what \
                         runs on the boards runs on"
                    );
                }
                return Ok(false);
            }
            // A cluster that was made before there were secrets.
            None if vault::first_sealed(state).is_none() => self.make_vault_key()?,
            None => return Err(self.no_key_file()),
        };
        self.use_key(&key, state).map(|()| true)
    }

    fn key_file(&self) -> Result<Option<KeyFile>, ControlError> {
        keep::load_vault(self.data()).map_err(|error| failed("read the vault's key", &error))
    }

    fn no_key_file(&self) -> ControlError {
        ControlError::Failed(format!(
            "the vault's key {} is missing: without it the root's key, join tokens, secrets, configs and registry \
             credentials cannot be opened; put it back",
            keep::vault_path(self.data()).display()
        ))
    }

    fn use_key(&self, key: &Key, state: &State) -> Result<(), ControlError> {
        let opened = self.vault().unlock(key).and_then(|()| self.vault().check(state));
        opened.map_err(|error| {
            self.vault().lock();
            failed(&format!("use the vault's key {}", keep::vault_path(self.data()).display()), &error)
        })
    }

    /// A new key for a new cluster, kept as it is until the store says otherwise.
    pub(super) fn make_vault_key(&self) -> Result<Key, ControlError> {
        let key = Key::draw(&SystemRandom::new()).map_err(|_| no_random())?;
        let bytes = KeyFile::write(&key, &Locks::default()).map_err(|_| no_random())?;
        keep::store_vault(self.data(), &bytes).map_err(|error| failed("keep the vault's key", &error))?;
        Ok(key)
    }

    /// Makes the key file what the store says. Whether it was not so.
    pub(super) fn keep_key_file(&self) -> Result<bool, ControlError> {
        let view = self.store().view();
        let kept = view.state.cluster().map_or(Ok(false), |cluster| key_file::keep(cluster, self.vault(), self.data()));
        key_file::tell(self.key_fault(), &kept);
        kept
    }

    /// After a start: a switch of autolock, or a new unlock key, whose file was not written any more.
    pub(super) async fn catch_up_key_file(&self) -> Result<(), ControlError> {
        if matches!(self.key_file(), Ok(Some(KeyFile::Plain(_)))) {
            self.reopen(None).await?;
        }
        if self.keep_key_file() == Ok(true) {
            log::warn!(
                "the last change of autolock or of the unlock key was cut short; it is complete now: `pi-mgr unlock-key` \
                 shows the key that the next start needs, if it needs one"
            );
        }
        Ok(())
    }

    /// The manager opened as before the unlock key that the store has: the power went before that was surely seen. So it
    /// is to be shown again, and what opened the manager now does so until then. `with`: the key that was brought; none:
    /// the file was plain.
    async fn reopen(&self, with: Option<&UnlockKey>) -> Result<(), ControlError> {
        let view = self.store().view();
        let Some(cluster) = view.state.cluster() else { return Ok(()) };
        let Some(key) = &cluster.trust.unlock else { return Ok(()) };
        let unusable = |error| failed("open the unlock key", &error);
        if Locks::of(self.vault(), cluster).map_err(unusable)?.has(with) {
            return Ok(());
        }
        let before = with.map(|with| with.seal(self.vault())).transpose().map_err(unusable)?;
        let changes = vec![Change::UnlockKey(before), Change::UnlockKeyDrawn(key.clone())];
        let stored = self.store().commit(self.now().wall, changes).await;
        stored.map_err(|error| failed("store what opens the manager", &error))?;
        log::warn!(
            "the manager opened as before its unlock key was shown: that is to be shown again (`pi-mgr unlock-key`), and \
             until then the next start opens as this one did"
        );
        Ok(())
    }

    /// After a commit of the unlock key.
    pub(super) async fn relock(self) -> Result<(), ControlError> {
        let _turn = self.turn().await;
        match self.keep_key_file() {
            Ok(_) => Ok(()),
            Err(error) => Err(ControlError::Failed(format!(
                "the change is stored, but the key file is as before, and the manager starts as before until it can be \
                 written; that is tried every {TRUST_LOOK_EVERY:?}: {error}"
            ))),
        }
    }

    /// Somebody is about to see, or has brought, this unlock key, as the store has it: what opened the manager before
    /// opens it no more.
    pub(super) async fn shown(self, key: Sealed) -> Result<(), ControlError> {
        let _turn = self.turn().await;
        self.shown_in_turn(key).await
    }

    async fn shown_in_turn(&self, key: Sealed) -> Result<(), ControlError> {
        let stored = self.store().commit(self.now().wall, vec![Change::UnlockKeyShown(key)]).await;
        stored.map_err(|error| failed("store that the unlock key was shown", &error))?;
        self.keep_key_file()?;
        log::info!("the unlock key was shown: it alone opens the manager from now on");
        Ok(())
    }

    /// What a person should know about the lock.
    pub(super) fn lock_warnings(&self) -> impl Iterator<Item = String> {
        self.key_fault().now().into_iter().chain(self.unseen_key())
    }

    fn unseen_key(&self) -> Option<String> {
        let view = self.store().view();
        let text = match view.state.cluster()?.trust.unlock_before.as_ref()? {
            UnlockBefore::Nothing => {
                "Autolock is on, but nobody has seen the unlock key yet: until `pi-mgr unlock-key` shows it, the manager \
                 starts without it and its disk is not locked."
            }
            UnlockBefore::Key(_) => {
                "Nobody has seen the new unlock key yet: until `pi-mgr unlock-key` shows it, the one before opens the \
                 manager, too."
            }
        };
        Some(text.to_owned())
    }

    /// Unlocks the manager and takes the cluster up.
    pub(super) async fn unlock(self, text: Zeroizing<String>) -> Result<(), ControlError> {
        let _turn = self.turn().await;
        let view = self.store().view();
        if view.state.cluster().is_none() {
            return Err(ControlError::NotIn);
        }
        if !self.lock().is_shut() {
            return Err(ControlError::NotLocked);
        }
        let unlock = UnlockKey::parse(&text).map_err(|error| ControlError::Invalid(error.to_string()))?;
        let tries = self.lock().inner().tries.take(self.now().mono);
        tries.map_err(ControlError::TooManyTries)?;
        let key = match self.key_file()? {
            Some(KeyFile::Wrapped(wrapped)) => wrapped.open(&unlock).ok_or_else(|| {
                log::warn!("a wrong unlock key was refused");
                ControlError::WrongKey
            })?,
            Some(KeyFile::Plain(_)) => {
                let path = keep::vault_path(self.data());
                let text = format!("{} was replaced and is not locked: restart the manager", path.display());
                return Err(ControlError::Failed(text));
            }
            None => return Err(self.no_key_file()),
        };
        self.use_key(&key, &view.state)?;
        if let Err(error) = self.reopen(Some(&unlock)).await {
            self.vault().lock();
            return Err(error);
        }
        let view = self.store().view();
        let Some(cluster) = view.state.cluster() else { return Err(ControlError::NotIn) };
        let taken = self.take_up(&view.state, cluster).await;
        self.opened_with(&unlock).await;
        // Whatever comes of it: the key was right, and a start that failed is tried again without it.
        self.lock().open();
        log::info!("the manager was unlocked");
        taken.map(drop).map_err(|error| {
            let error = format!("the manager is unlocked, but its start failed and will be tried again: {error}");
            log::error!("{error}");
            ControlError::Failed(error)
        })
    }

    /// Whoever brought the new key has it; with the one before, the new one is still to be shown.
    async fn opened_with(&self, unlock: &UnlockKey) {
        let view = self.store().view();
        let Some((cluster, key)) =
            view.state.cluster().and_then(|cluster| Some((cluster, cluster.trust.unlock.clone()?)))
        else {
            return;
        };
        if cluster.trust.unlock_before.is_none() {
            return;
        }
        let is_new = UnlockKey::open(self.vault(), cluster).is_ok_and(|present| present.as_ref() == Some(unlock));
        if !is_new {
            log::warn!("the manager was opened with the unlock key before; `pi-mgr unlock-key` shows the new one");
        } else if let Err(error) = self.shown_in_turn(key).await {
            log::warn!("the unlock key before still opens the manager: {error}");
        }
    }
}

#[cfg(test)]
#[path = "lock_tests.rs"]
mod tests;
