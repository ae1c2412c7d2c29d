//! How the board's certificate fares: renewed in a session, or as the only message of a connection.

use std::convert::Infallible;

use async_channel::Sender;
use futures_lite::{AsyncRead, AsyncWrite};
use racimo_common::error::chain;
use racimo_common::limits::FRAME_FROM_AGENT_MAX;
use racimo_common::tls::{self, TrustClock};
use racimo_common::wire::{Certified, Renew, ToAgent, ToManager, frame};
use serde_bytes::ByteBuf;

use super::session::{End, receive_within};
use crate::identity::{Own, OwnError};
use crate::limits;

/// What the rounds of dialling remember of it.
pub(super) struct Certificate {
    /// By which managers are judged.
    pub(super) clock: TrustClock,
    /// Whether the manager wants nothing but a request for a new one.
    pub(super) comes_first: bool,
    /// How many there were since the last session.
    pub(super) renewals: u32,
}

impl Certificate {
    pub(super) fn new(own: Option<&Own>) -> Self {
        let clock = own.map_or_else(|| TrustClock::standing(tls::BUILT), Own::clock);
        Self { clock, comes_first: false, renewals: 0 }
    }

    /// Whether it makes sense to ask for another one at once.
    pub(super) fn is_hopeful(&self) -> bool {
        self.renewals < limits::RENEWALS_MAX
    }

    /// Asks for a new certificate as the only message of a connection.
    pub(super) async fn renew<S>(&mut self, own: &Own, mut stream: S) -> Result<Infallible, End>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // Whatever comes of it, the next try is a session again.
        (self.comes_first, self.renewals) = (false, self.renewals.saturating_add(1));
        frame::send(&mut stream, &request(own)?, FRAME_FROM_AGENT_MAX).await?;
        match receive_within(&mut stream, limits::MANAGER_SILENCE_MAX).await? {
            ToAgent::Certified(certified) => {
                keep(own.renew(certified).await, "its new certificate")?;
                Err(End::Renewed)
            }
            ToAgent::Refused(refused) => Err(End::Refused(refused)),
            ToAgent::Welcome(_)
            | ToAgent::Joined(_)
            | ToAgent::Net(_)
            | ToAgent::Assign(_)
            | ToAgent::Pong(_)
            | ToAgent::Renew
            | ToAgent::Roots(_)
            | ToAgent::Managers(_)
            | ToAgent::LogsOpen(_)
            | ToAgent::LogsMore { .. }
            | ToAgent::LogsClose { .. } => Err(End::Protocol("Renew is answered with Certified")),
        }
    }
}

fn request(own: &Own) -> Result<ToManager, End> {
    let csr = own.identity().key.request().map_err(|_| End::Random)?;
    Ok(ToManager::Renew(Renew { csr }))
}

/// Whether what the manager gave is on the disk; one that makes no sense ends the connection.
fn keep(taken: Result<(), OwnError>, what: &str) -> Result<bool, End> {
    match taken {
        Ok(()) => {
            log::info!("this board has {what}");
            Ok(true)
        }
        Err(OwnError::Disk(error)) => {
            log::error!("this board uses {what}, but could not keep it; it is tried again: {}", chain(&error));
            Ok(false)
        }
        Err(error @ (OwnError::Roots(_) | OwnError::Unusable(_))) => {
            log::error!("{what} is of no use: {}", chain(&error));
            Err(End::Protocol("what it gave this board to show or trust is of no use"))
        }
    }
}

/// A session's part in it.
pub(super) struct Renewal<'a> {
    pub(super) own: Option<&'a Own>,
    /// What is to be answered at once.
    pub(super) says: Sender<ToManager>,
}

impl Renewal<'_> {
    /// The manager wants a request.
    pub(super) async fn asked(&self) -> Result<(), End> {
        self.say(request(self.own()?)?).await
    }

    /// The manager answered one.
    pub(super) async fn certified(&self, certified: Certified) -> Result<(), End> {
        let own = self.own()?;
        self.kept(own, own.renew(certified).await, "its new certificate").await
    }

    /// The manager says which roots count.
    pub(super) async fn roots(&self, roots: Vec<ByteBuf>) -> Result<(), End> {
        let own = self.own()?;
        self.kept(own, own.trust(roots).await, "other roots to trust").await
    }

    fn own(&self) -> Result<&Own, End> {
        self.own.ok_or(End::Protocol("this board has no certificate"))
    }

    async fn kept(&self, own: &Own, taken: Result<(), OwnError>, what: &str) -> Result<(), End> {
        if keep(taken, what)? { self.say(ToManager::Trusts(own.trusts())).await } else { Ok(()) }
    }

    async fn say(&self, message: ToManager) -> Result<(), End> {
        self.says.send(message).await.map_err(|_| End::Stopped)
    }
}
