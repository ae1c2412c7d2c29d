//! The identity that a running agent uses, and its one way to the disk.
//!
//! ```text
//! manager ─ Certified ─▶ used at once (from the next dial on) ─ kept on disk ─▶ Trusts
//!                                                             └ disk full ─▶ in memory only; the manager asks again
//! ```

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use racimo_common::limits::ROOTS_MAX;
use racimo_common::time::Wall;
use racimo_common::tls::{self, BUILT, CertificateDer, CredentialsError, TrustClock};
use racimo_common::wire::{Certified, Trusts};
use serde_bytes::ByteBuf;

use super::{Identity, IdentityError, Turn};

/// Why something that the manager gave was not taken.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// It makes no sense.
    #[error("{0} roots, not 1 to {ROOTS_MAX}")]
    Roots(usize),
    /// It does not fit this board's key, or judges nothing.
    #[error(transparent)]
    Unusable(#[from] CredentialsError),
    /// It is used, but not on the disk.
    #[error(transparent)]
    Disk(#[from] IdentityError),
}

/// What is to be done on the disk, with the identity that is there.
type Work = Box<dyn FnOnce(&Turn, Identity) -> Result<(), IdentityError> + Send>;

/// The identity in use.
pub struct Own {
    data: PathBuf,
    used: RefCell<Rc<Identity>>,
    /// What is on the disk.
    kept: RefCell<Trusts>,
    /// One of this agent's changes at a time: held until the disk has it, even if nobody waits for that any more.
    turn: Arc<smol::lock::Mutex<()>>,
}

impl Own {
    /// An identity that was loaded from `data`.
    pub fn new(identity: Identity, data: &Path) -> Self {
        let kept = RefCell::new(identity.trusts());
        Self { data: data.to_owned(), used: RefCell::new(Rc::new(identity)), kept, turn: Arc::default() }
    }

    /// What is used at present.
    pub fn identity(&self) -> Rc<Identity> {
        self.used.borrow().clone()
    }

    /// What is on the disk.
    pub fn trusts(&self) -> Trusts {
        self.kept.borrow().clone()
    }

    /// The clock by which managers are judged.
    pub fn clock(&self) -> TrustClock {
        TrustClock::standing(tls::validity(&self.identity().certificate).map_or(BUILT, |(begins, _)| begins))
    }

    /// Takes a new certificate for its key, and the roots that count from now on.
    ///
    /// # Errors
    /// Unless it is [`OwnError::Disk`] nothing changed.
    pub async fn renew(&self, certified: Certified) -> Result<(), OwnError> {
        self.change(Some(certified.certificate.into()), certified.roots).await
    }

    /// Takes other roots.
    ///
    /// # Errors
    /// As [`Own::renew`].
    pub async fn trust(&self, roots: Vec<ByteBuf>) -> Result<(), OwnError> {
        self.change(None, roots).await
    }

    async fn change(&self, certificate: Option<CertificateDer<'static>>, roots: Vec<ByteBuf>) -> Result<(), OwnError> {
        if roots.is_empty() || roots.len() > ROOTS_MAX {
            return Err(OwnError::Roots(roots.len()));
        }
        let turn = self.turn.lock_arc().await;
        let mut new = (*self.identity()).clone();
        new.roots = roots.into_iter().map(|root| root.into_vec().into()).collect();
        new.certificate = certificate.unwrap_or(new.certificate);
        // What is kept must work later, when nobody is there to help.
        tls::session_client(&new.roots, &new.credentials()?, TrustClock::standing(Wall::default()))?;
        let new = Rc::new(new);
        self.used.replace(new.clone());
        let identity = (*new).clone();
        let keep = move |disk: &Turn, there: Identity| disk.store(&Identity { managers: there.managers, ..identity });
        if self.on_disk(turn, Box::new(keep)).await? {
            self.kept.replace(new.trusts());
        }
        Ok(())
    }

    /// Takes a new list of managers and keeps it; writes nothing if it is the same.
    ///
    /// # Errors
    /// It was not kept.
    pub async fn set_managers(&self, managers: Vec<String>) -> Result<(), IdentityError> {
        let turn = self.turn.lock_arc().await;
        self.on_disk(turn, Box::new(move |disk, there| disk.set_managers(there, managers))).await.map(drop)
    }

    /// Does this with what is on the disk, if that is still the node in use; whether it was. If the board joined again
    /// meanwhile, or left, that counts.
    async fn on_disk(&self, turn: smol::lock::MutexGuardArc<()>, work: Work) -> Result<bool, IdentityError> {
        let (node, data) = (self.identity().node, self.data.clone());
        let done = smol::unblock(move || {
            let _turn = turn;
            let disk = Turn::take(&data)?;
            match disk.load()? {
                Some(there) if there.node == node => work(&disk, there).map(|()| true),
                Some(_) | None => Ok(false),
            }
        });
        done.await
    }

    /// Whether somebody joined the board again, to this cluster or another.
    pub fn is_another(&self) -> bool {
        let Some(disk) = Turn::try_take(&self.data) else { return false };
        let node = self.identity().node;
        matches!(disk.load(), Ok(Some(identity)) if identity.node != node)
    }
}
