//! The rounds of dialling, until a session is open and after it has ended.
//!
//! ```text
//! known addresses ─▶ names ─▶ what the local network announces ─▶ pause ─┐
//!        ▲───────────────────────────────────────────────────────────────┘
//! ```

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_channel::Sender;
use racimo_common::error::chain;
use racimo_common::wire::{Refused, RefusedCode};
use smol::Timer;

use super::certificate::Certificate;
use super::dial::{DialError, Patience};
use super::discover;
use super::hints::Hints;
use super::session::{End, Link, Told};
use crate::limits;

/// What the rounds of dialling remember of each other.
struct Rounds {
    pause: Duration,
    wait: Option<Duration>,
    /// Whether the last attempt ends the round: it became a session, or the answer is the same at every address.
    is_over: bool,
    /// Since when there has been no session.
    lost: Instant,
    /// Of each manager of the last round.
    reasons: BTreeMap<String, String>,
    hints: Hints,
    certificate: Certificate,
    /// Whether this board was refused as a copy of another since its last session.
    copied: bool,
}

/// There is nothing more to do.
struct Over;

impl Link {
    /// Keeps a session open until the main loop is gone.
    pub async fn run(mut self, told: Sender<Told>) {
        let pause = limits::DIAL_PAUSE.0;
        let (reasons, hints) = (BTreeMap::new(), Hints::default());
        let certificate = Certificate::new(self.identity.as_deref());
        let lost = Instant::now();
        let mut rounds = Rounds { pause, wait: None, is_over: false, lost, reasons, hints, certificate, copied: false };
        while !told.is_closed() {
            rounds.wait = None;
            if self.round(&told, &mut rounds).await.is_err() {
                return;
            }
            // Jitter, so that a thousand boards do not come back in the same instant.
            Timer::after(rounds.wait.unwrap_or(rounds.pause).mul_f64(0.5 + self.rng.f64() / 2.0)).await;
            rounds.pause = (rounds.pause * 2).min(limits::DIAL_PAUSE.1);
        }
    }

    async fn round(&mut self, told: &Sender<Told>, rounds: &mut Rounds) -> Result<(), Over> {
        let known = self.places.borrow().round();
        rounds.reasons.retain(|address, _| known.contains(address));
        for address in &known {
            let patience = if known.len() > 1 { Patience::ONE_OF_SEVERAL } else { Patience::KNOWN };
            let end = self.attempt(address, patience, told, rounds).await?;
            let reason = chain(&end);
            // One line per reason, not per try.
            if !matches!(end, End::Renewed) && rounds.reasons.get(address) != Some(&reason) {
                log::warn!("no session with {address}: {reason}");
                rounds.reasons.insert(address.clone(), reason);
            }
            // Where to dial may have changed meanwhile.
            if rounds.is_over {
                return Ok(());
            }
        }
        let Some(cluster) = self.identity.as_ref().map(|own| own.identity().cluster).filter(|_| self.discover) else {
            return Ok(());
        };
        if rounds.wait.is_some() || rounds.lost.elapsed() < limits::DISCOVER_AFTER {
            return Ok(());
        }
        let found = discover::managers(cluster).await;
        for hint in rounds.hints.pick(found, &known, Instant::now(), &mut self.rng) {
            let end = self.attempt(&hint.to_string(), Patience::HINT, told, rounds).await?;
            let passing = !matches!(end, End::Dial(DialError::Tls { .. }));
            if rounds.hints.failed(hint, passing, Instant::now()) {
                log::warn!("no session with {hint}, which was announced on the local network: {}", chain(&end));
            }
            if rounds.is_over {
                return Ok(());
            }
        }
        Ok(())
    }

    /// One session, if there comes one; why it ended.
    async fn attempt(
        &mut self,
        address: &str,
        patience: Patience,
        told: &Sender<Told>,
        rounds: &mut Rounds,
    ) -> Result<End, Over> {
        let mut opened = false;
        let began = Instant::now();
        let end = match self.session(address, patience, &mut rounds.certificate, told, &mut opened).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        rounds.is_over = opened;
        rounds.copied &= !opened;
        if opened {
            // Sessions that end at once must not become a flood of dials and lines; but a manager that lets us in is
            // up, and its boards are missed.
            let steady = began.elapsed() > limits::SESSION_STEADY_AFTER;
            let pause = rounds.pause.min(limits::REOPEN_PAUSE_MAX);
            rounds.pause = if steady { limits::DIAL_PAUSE.0 } else { pause };
            rounds.reasons.clear();
            rounds.lost = Instant::now();
            rounds.certificate.renewals = 0;
            told.send(Told::Closed).await.map_err(|_| Over)?;
        }
        if self.leaves.get() {
            let left = if matches!(end, End::Closed) { Ok(()) } else { Err(chain(&end)) };
            // The main loop may be gone.
            let _ = told.send(Told::Left(left)).await;
            return Err(Over);
        }
        match &end {
            End::Stopped => return Err(Over),
            End::Refused(Refused { code: RefusedCode::Clone, reason }) => {
                // Whose key is on another board is so for every address of the manager.
                rounds.is_over = true;
                let (first, later) = limits::CLONE_PAUSE;
                let again = std::mem::replace(&mut rounds.copied, true);
                rounds.wait = Some(if again { later } else { first });
                told.send(Told::Copied { reason: reason.clone(), again }).await.map_err(|_| Over)?;
            }
            End::Refused(Refused { code: RefusedCode::NotMember, reason }) => {
                // The manager on this board may make another cluster at any time.
                rounds.wait = self.identity.as_ref().map(|_| limits::REMOVED_PAUSE);
                told.send(Told::Removed(reason.clone())).await.map_err(|_| Over)?;
            }
            End::Refused(Refused { code: RefusedCode::Expired, .. }) => {
                rounds.certificate.comes_first = true;
                // After some tries that came to nothing the pauses grow as for everything else.
                if rounds.certificate.is_hopeful() {
                    rounds.wait = Some(limits::DIAL_PAUSE.0);
                }
            }
            End::Renewed => rounds.wait = Some(limits::DIAL_PAUSE.0),
            End::Refused(Refused { code: RefusedCode::Replaced, .. }) => rounds.wait = Some(limits::DIAL_PAUSE.1),
            End::Refused(_)
            | End::Dial(_)
            | End::Frame(_)
            | End::Closed
            | End::Silent(_)
            | End::Protocol(_)
            | End::Identity(_)
            | End::Random
            | End::Local { .. }
            | End::Unheard(_)
            | End::Reopened => {}
        }
        Ok(end)
    }
}
