//! What a session tells its board: the network, and what it shall run.

use std::time::Duration;

use async_channel::Sender;
use futures_lite::future::or;
use racimo_common::id::NodeId;
use racimo_common::wire::{Assign, ToAgent};
use smol::lock::SemaphoreGuardArc;

use super::session::End;
use super::watch::{Alarm, Look};
use super::{Context, assign, net};
use crate::limits;

/// How long a board is told nothing after it was told something: a change goes at once, and what follows it within this
/// time goes together. Short beside what a board needs to act on it.
const ASSIGN_PAUSE: Duration = Duration::from_millis(10);

/// Tells the board what it needs of the network, and what it shall run. Both come from one look, the network first:
/// so a task's networks are there before it, and one that shall stop has left the balance when its board hears of it.
pub(super) struct Assigner<'a> {
    context: &'a Context,
    node: NodeId,
    alarm: Alarm,
    out: Sender<ToAgent>,
    /// Where it was told to dial.
    managers: Vec<String>,
    told: net::Told,
    sent: assign::Sent,
    /// Whether the board's tasks may have changed since they were last looked at.
    is_touched: bool,
}

impl<'a> Assigner<'a> {
    /// For a session whose board was told that managers are at `managers`, and nothing else.
    pub(super) fn new(
        context: &'a Context,
        node: NodeId,
        alarm: Alarm,
        managers: Vec<String>,
        out: Sender<ToAgent>,
    ) -> Self {
        let (told, sent) = (net::Told::default(), assign::Sent::default());
        Self { context, node, alarm, out, managers, told, sent, is_touched: false }
    }

    /// Runs as long as the session.
    pub(super) async fn run(mut self) -> End {
        let end = self.serve().await;
        end.err().unwrap_or(End::Stopped)
    }

    async fn serve(&mut self) -> Result<(), End> {
        let vault = &self.context.vault;
        // The set is to be at least as new as the session.
        let mut look = self.context.watch.latest().await.ok_or(End::Stopped)?;
        let (parts, told) = net::complete(&look.directory, &look.view, self.node);
        self.told = told;
        self.send_net(parts).await?;
        let turn = self.turn(&mut look).await?;
        let (parts, sent) = assign::complete(&look.view, vault, self.node);
        self.sent = sent;
        let mut at = look.view.version();
        self.send_in_turn(parts, turn).await?;
        loop {
            self.wake().await?;
            look = self.context.watch.look();
            let mut news = self.tell(&look).await?;
            if std::mem::take(&mut self.is_touched) {
                let turn = self.turn(&mut look).await?;
                self.is_touched = false;
                let parts = assign::delta(&look.view, vault, self.node, &mut self.sent, at);
                if !parts.is_empty() {
                    (at, news) = (look.view.version(), true);
                }
                self.send_in_turn(parts, turn).await?;
            }
            if news {
                smol::Timer::after(ASSIGN_PAUSE).await;
            }
        }
    }

    async fn wake(&self) -> Result<(), End> {
        if self.alarm.wait().await { Ok(()) } else { Err(End::Stopped) }
    }

    /// Sends what was opened in a turn, within a time that goes by its size: others wait for theirs.
    async fn send_in_turn(&self, parts: Vec<Assign>, turn: Option<SemaphoreGuardArc>) -> Result<(), End> {
        let Some(turn) = turn else { return self.send(parts).await };
        let bytes: usize = parts.iter().flat_map(|part| &part.bodies).map(|body| body.bytes.len()).sum();
        let seconds = u64::try_from(bytes).unwrap_or(u64::MAX) / u64::from(limits::SET_BYTES_PER_SECOND_MIN);
        let within = limits::MESSAGE_TAKEN_WITHIN + Duration::from_secs(seconds);
        let late = async {
            smol::Timer::after(within).await;
            Err(End::Stuck(within))
        };
        let sent = or(self.send(parts), late).await;
        drop(turn);
        sent
    }

    async fn send(&self, parts: Vec<Assign>) -> Result<(), End> {
        for part in parts {
            self.out.send(ToAgent::Assign(part)).await.map_err(|_| End::Stopped)?;
        }
        Ok(())
    }

    /// Whether there were any.
    async fn send_net(&self, parts: net::Parts) -> Result<bool, End> {
        let mut any = false;
        for part in parts {
            any = true;
            self.out.send(ToAgent::Net(part)).await.map_err(|_| End::Stopped)?;
        }
        Ok(any)
    }

    /// Whether there was anything to tell.
    async fn tell(&mut self, look: &Look) -> Result<bool, End> {
        let (parts, touched) = net::delta(&look.directory, &look.view, self.node, &mut self.told);
        self.is_touched |= touched;
        self.tell_managers(look).await?;
        self.send_net(parts).await
    }

    async fn tell_managers(&mut self, look: &Look) -> Result<(), End> {
        let now = look.view.state.cluster().map(|cluster| &cluster.managers);
        if let Some(managers) = now.filter(|managers| **managers != self.managers) {
            self.managers.clone_from(managers);
            self.out.send(ToAgent::Managers(managers.clone())).await.map_err(|_| End::Stopped)?;
        }
        Ok(())
    }

    /// Waits until contents may be opened, if there are any to send. The network's news are told meanwhile: other
    /// boards' contents must not hold up what leaves or enters the balance.
    async fn turn(&mut self, look: &mut Look) -> Result<Option<SemaphoreGuardArc>, End> {
        if !assign::opens(&look.view, self.node, &self.sent) {
            return Ok(None);
        }
        let mut turn = Box::pin(self.context.sets.acquire_arc());
        loop {
            let mine = async { Some((&mut turn).await) };
            let news = async { self.wake().await.map(|()| None) };
            let turn = or(async { Ok(mine.await) }, news).await?;
            *look = self.context.watch.look();
            self.tell(look).await?;
            if turn.is_some() {
                return Ok(turn);
            }
        }
    }
}
