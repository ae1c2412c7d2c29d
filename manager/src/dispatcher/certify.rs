//! Renews boards' certificates: inside their sessions, and for boards that only come for that.
//!
//! ```text
//! heartbeat ─▶ judge (renewal) ─ due ─▶ ToAgent::Renew ─▶ board: Renew{csr} ─▶ Certified ─▶ board: Trusts ─▶ store
//!                              └ roots ▶ ToAgent::Roots ──────────────────────────────────▶ board: Trusts ─▶ store
//! ```
//! A board that did not keep what it got (its disk is full) says no `Trusts`, and is asked again. An agent of before
//! renewal says in its `Hello` nothing of what it trusts, and is asked nothing: it could not read it.

use async_channel::{Receiver, Sender};
use log::Level;
use racimo_common::id::NodeId;
use racimo_common::limits::ROOTS_MAX;
use racimo_common::time::Mono;
use racimo_common::wire::{Certified, Refused, RefusedCode, Renew, ToAgent, Trusts};
use ring::rand::SystemRandom;

use super::Context;
use super::session::{End, protocol};
use crate::ca::renewal::{self, Ask};
use crate::ca::{CaError, CertRequest, Peer, Shown};
use crate::gate::{Bucket, Rate};
use crate::limits::{RENEW_AGAIN_AFTER, RENEWALS_BURST};
use crate::store::{Change, CommitError, Node, NodeTrust};

/// What a session tells of its board.
pub(super) enum Word {
    /// It was heard: a moment to look whether it has to be told something.
    Beat,
    /// It asks for a certificate.
    Renew(Renew),
    /// It says what it shows and trusts.
    Trusts(Trusts),
}

fn refused(code: RefusedCode, reason: impl Into<String>) -> End {
    End::Refused(Refused { code, reason: reason.into() })
}

/// Whether the one at the other end is the node that its certificate names: a node is its key.
pub(super) fn is_node(peer: &Peer, node: &Node) -> Result<(), Refused> {
    if node.key_digest == Some(peer.key_digest) {
        return Ok(());
    }
    let reason = "this node joined with another key than the one that is shown: join it again".to_owned();
    Err(Refused { code: RefusedCode::NotMember, reason })
}

/// Signs the certificate that a board asks for; and what it will show then.
pub(super) async fn certify(context: &Context, node: &Node, renew: &Renew) -> Result<(Certified, Shown), End> {
    let request = CertRequest::parse(&renew.csr).map_err(|error| protocol(&error.to_string()))?;
    if node.key_digest != Some(request.key_digest()) {
        return Err(protocol("the certificate request is for another key than this node's"));
    }
    let busy = |error: CaError| refused(RefusedCode::Busy, error.to_string());
    let present = context.authority.now();
    let at = match present.time_to_sign(&context.store, context.clock).await {
        Ok(at) => at,
        Err(CommitError::Stopped) => return Err(End::Stopped),
        Err(error) => return Err(refused(RefusedCode::Busy, error.to_string())),
    };
    let view = context.store.view();
    let validity = view.state.cluster().map_or(crate::ca::NODE_VALIDITY, |cluster| cluster.spec.cert_expiry());
    let signed = present.ca.issue(&request, node.id, node.role, at, validity, &SystemRandom::new()).map_err(busy)?;
    let peer = Peer::of(&signed.der, std::slice::from_ref(present.ca.root()));
    let shown = peer.map_err(|error| refused(RefusedCode::Busy, error.to_string()))?.shown;
    Ok((Certified { certificate: signed.der.to_vec(), roots: present.trusted() }, shown))
}

/// How often a board is asked to renew in one session.
const RENEWALS: Rate = Rate { burst: RENEWALS_BURST, every: RENEW_AGAIN_AFTER };

/// One session's part in it.
pub(super) struct Renewer<'a> {
    context: &'a Context,
    node: NodeId,
    /// What the board shows; and what it has on its disk, as far as it is known.
    shown: Shown,
    trusts: Trusts,
    /// Whether its agent knows what renewal is.
    can_renew: bool,
    /// What it was sent and has not yet said that it keeps.
    sent: Option<Shown>,
    /// Whether it was asked to renew, and has not answered.
    is_asked: bool,
    /// Nothing is asked again before.
    quiet_until: Mono,
    /// How often it may be asked to renew, whatever it says it keeps: each time is a signature.
    renewals: Bucket,
    out: Sender<ToAgent>,
}

impl<'a> Renewer<'a> {
    /// For a board that shows `shown` and said in its `Hello` what it trusts.
    pub(super) fn new(context: &'a Context, node: NodeId, shown: Shown, trusts: Trusts, out: Sender<ToAgent>) -> Self {
        let quiet_until = Mono::default();
        let can_renew = trusts.certificate != Trusts::default().certificate;
        Self {
            context,
            node,
            shown,
            trusts,
            can_renew,
            sent: None,
            is_asked: false,
            quiet_until,
            renewals: Bucket::default(),
            out,
        }
    }

    /// Runs as long as the session.
    pub(super) async fn run(mut self, words: Receiver<Word>) -> End {
        let mut done = self.store().await;
        loop {
            if let Err(end) = done {
                return end;
            }
            done = match words.recv().await {
                Ok(Word::Beat) => self.look().await,
                Ok(Word::Renew(renew)) => self.renew(&renew).await,
                Ok(Word::Trusts(trusts)) => self.keeps(trusts).await,
                // What the session's end is, its reader says.
                Err(_) => std::future::pending().await,
            };
        }
    }

    async fn look(&mut self) -> Result<(), End> {
        self.store().await?;
        let now = self.context.clock.now();
        if now.mono < self.quiet_until {
            return Ok(());
        }
        let view = self.context.store.view();
        let Some(cluster) = view.state.cluster() else { return Ok(()) };
        let present = self.context.authority.now();
        let wanted = present.wanted(cluster.spec.cert_expiry());
        // What it shows and has not kept would be lost with its next start.
        let is_kept = !self.can_renew || self.trusts.certificate == self.shown.digest;
        let ask = renewal::judge(&self.shown, &self.trusts.roots, &wanted, present.time(cluster, now.wall));
        let message = match ask {
            Some(Ask::Renew) => ToAgent::Renew,
            None if !is_kept => ToAgent::Renew,
            Some(Ask::Roots) => ToAgent::Roots(present.trusted()),
            None => return Ok(()),
        };
        if !self.can_renew {
            let text = format_args!(
                "node {}: its agent cannot renew its certificate or take other roots: upgrade it",
                self.node
            );
            self.context.notes.say(Level::Warn, self.node, "cannot renew", text);
            self.quiet_until = now.mono + RENEW_AGAIN_AFTER;
            return Ok(());
        }
        let is_renewal = message == ToAgent::Renew;
        if is_renewal && self.renewals.take(RENEWALS, 1, now.mono).is_err() {
            return Ok(());
        }
        self.is_asked |= is_renewal;
        self.quiet_until = now.mono + RENEW_AGAIN_AFTER;
        self.out.send(message).await.map_err(|_| End::Stopped)
    }

    async fn renew(&mut self, renew: &Renew) -> Result<(), End> {
        if !std::mem::take(&mut self.is_asked) {
            // It was asked twice, and this is the second answer: one is enough.
            let text = format_args!("node {}: a certificate request that nobody waits for: dropped", self.node);
            self.context.notes.say(Level::Info, self.node, "unasked renewal", text);
            return Ok(());
        }
        let view = self.context.store.view();
        let Some(node) = view.state.node(self.node) else { return Ok(()) };
        let (certified, shown) = certify(self.context, node, renew).await?;
        self.sent = Some(shown);
        self.out.send(ToAgent::Certified(certified)).await.map_err(|_| End::Stopped)
    }

    async fn keeps(&mut self, trusts: Trusts) -> Result<(), End> {
        if trusts.roots.len() > ROOTS_MAX {
            return Err(protocol("more roots than there can be"));
        }
        self.trusts = trusts;
        if let Some(sent) = self.sent.take_if(|sent| sent.digest == self.trusts.certificate) {
            let text = format_args!("node {} has a new certificate", self.node);
            self.context.notes.say(Level::Info, self.node, "new certificate", text);
            self.shown = sent;
        }
        // There may be more to say, as when a root came meanwhile.
        self.quiet_until = Mono::default();
        self.look().await
    }

    /// Brings what the board shows and trusts into the store, if it is on its disk and something else than before.
    async fn store(&self) -> Result<(), End> {
        let Some(issuer) = self.shown.issuer.filter(|_| self.trusts.certificate == self.shown.digest) else {
            return Ok(());
        };
        let trust = NodeTrust { issuer, roots: self.trusts.roots.clone(), expires: self.shown.ends };
        let view = self.context.store.view();
        if view.state.node(self.node).is_none_or(|node| node.trust.as_ref() == Some(&trust)) {
            return Ok(());
        }
        // Too much was written for it lately: it is tried again.
        let now = self.context.clock.now();
        if self.context.writes.take(self.node, now.mono).is_err() {
            return Ok(());
        }
        let change = Change::NodeTrust { node: self.node, trust };
        match self.context.store.commit(now.wall, vec![change]).await {
            Err(CommitError::Stopped) => Err(End::Stopped),
            Ok(_) | Err(CommitError::Refused(_)) => Ok(()),
            Err(error @ (CommitError::Full | CommitError::TooLarge)) => {
                log::warn!("what node {} trusts was not stored: {error}", self.node);
                Ok(())
            }
        }
    }
}
