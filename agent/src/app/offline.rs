//! The main loop's part of the journal: when it is written, and when the board goes by it.
//!
//! ```text
//! tasks or network changed ─ some time ─▶ Journal::save ─ Kept ─▶ again later if it could not be
//! start ─ no session that brings a set for so long, containers are known ─▶ Journal::recall ─ Recalled ─▶ Board::recall
//! ```

use std::time::Duration;

use racimo_common::id::{NodeId, RandomId};
use racimo_common::time::Mono;
use racimo_common::wire::BoardId;
use ring::digest::{Context, SHA256};

use super::{App, Input};
use crate::config::Config;
use crate::identity::Identity;
use crate::journal::slot::Digest;
use crate::journal::{Journal, Tasks};
use crate::limits;

/// When something is to be done with the journal.
#[derive(Default)]
pub(super) struct Offline {
    /// When the board goes by it, unless a session brings a set before; none: it never does.
    after: Option<Mono>,
    /// The same, while there is no session.
    recall_at: Option<Mono>,
    /// It is being read.
    recalling: Option<smol::Task<()>>,
    /// Whether the board's tasks are known: from a manager, or from it.
    is_known: bool,
    /// The tasks at the last look.
    mark: u128,
    /// When it is to be written.
    save_at: Option<Mono>,
    /// It is being written.
    saving: Option<smol::Task<()>>,
    /// When it was written last, and how long the next time waits for what ends and begins by itself.
    saved: (Mono, Duration),
}

impl Offline {
    /// Goes by the journal so long after the start; none: never.
    pub(super) fn new(after: Option<Duration>) -> Self {
        let after = after.map(|after| Mono::default() + after);
        Self { after, recall_at: after, ..Self::default() }
    }

    /// A session opened: what the manager says counts, once it has said it.
    fn opened(&mut self) {
        (self.recall_at, self.recalling) = (None, None);
    }

    /// The session ended. One that brought no set was as good as none.
    pub(super) fn closed(&mut self, has_set: bool) {
        if !has_set && !self.is_known {
            self.recall_at = self.after;
        }
    }

    /// The directory changed: other boards' tasks are not worth a write each, but its own shall be reached.
    pub(super) fn net_changed(&mut self, now: Mono, is_ours: bool) {
        if self.mark != 0 {
            if is_ours { self.changed(now) } else { self.saves(now + limits::JOURNAL_NET_AFTER) }
        }
    }

    /// What it says changed: a task that ends and begins for ever is not written each time.
    fn changed(&mut self, now: Mono) {
        let (at, pause) = self.saved;
        self.saves((now + limits::JOURNAL_AFTER).max(at + pause));
    }

    /// It is written now.
    fn begins_to_save(&mut self, now: Mono) {
        let (at, pause) = self.saved;
        let is_often = now.since(at) <= limits::JOURNAL_PAUSE_MAX * 2;
        let pause = if is_often { (pause * 2).min(limits::JOURNAL_PAUSE_MAX) } else { Duration::ZERO };
        self.saved = (now, pause.max(limits::JOURNAL_AFTER));
    }

    /// Writes it then, or before.
    fn saves(&mut self, at: Mono) {
        self.save_at = Some(self.save_at.map_or(at, |known| known.min(at)));
    }
}

/// Whose journal it is: a card in another board, or in another cluster, has nothing to go by.
pub(crate) fn owner(identity: Option<&Identity>, board: BoardId) -> Digest {
    let mut context = Context::new(&SHA256);
    let bits = identity.map_or([0; 2], |identity| [identity.cluster.bits(), identity.node.bits()]);
    bits.iter().for_each(|bits| context.update(&bits.to_be_bytes()));
    [board.serial, board.machine].into_iter().for_each(|id| context.update(&id.unwrap_or_default()));
    let mut owner = [0; 32];
    owner.copy_from_slice(context.finish().as_ref());
    owner
}

/// The journal as it is on the disk.
pub(super) async fn journal(config: &Config, identity: Option<&Identity>, board: BoardId) -> Journal {
    let (owner, data) = (owner(identity, board), config.data.clone());
    let found = smol::unblock(move || Journal::look(&data, &owner)).await;
    Journal::new(&config.data, owner, identity.map(Identity::sealer), found)
}

impl App {
    /// Tasks with a lease run on, as the manager was there.
    pub(super) fn hears(&mut self) {
        if self.has_set && self.out.is_some() {
            self.board.heard(self.heard.get());
        }
    }

    /// A session opened: what the manager says counts, once it has said it.
    pub(super) fn is_heard(&mut self) {
        self.offline.opened();
        self.tools.is_alone.set(false);
    }

    /// When something is to be done.
    pub(super) fn journal_at(&self) -> Option<Mono> {
        let Offline { recall_at, save_at, saving, .. } = &self.offline;
        let recall = recall_at.filter(|_| self.board.is_listed());
        [recall, save_at.filter(|_| saving.is_none())].into_iter().flatten().min()
    }

    pub(super) fn look_at_journal(&mut self) {
        let now = self.clock.now().mono;
        if self.board.is_listed() && self.offline.recall_at.take_if(|at| *at <= now).is_some() {
            self.recall();
        }
        if self.has_set && !std::mem::replace(&mut self.offline.is_known, true) {
            // What it says may be of before.
            self.offline.save_at = Some(now + limits::JOURNAL_AFTER);
        }
        let is_dropped = self.board.takes_dropped();
        if !self.offline.is_known || self.is_removed || self.departure.is_some() {
            // Nothing wakes the loop for what is not to be written.
            self.offline.save_at = None;
            return;
        }
        let mark = self.board.mark();
        if std::mem::replace(&mut self.offline.mark, mark) != mark {
            self.offline.changed(now);
        }
        if is_dropped {
            // What the manager takes away shall not begin again.
            self.offline.saves(now + limits::JOURNAL_AFTER);
        }
        if self.offline.saving.is_none() && self.offline.save_at.take_if(|at| *at <= now).is_some() {
            self.offline.begins_to_save(now);
            let (tools, inputs, tasks) = (self.tools.clone(), self.inputs.clone(), self.board.kept());
            let Some(node) = *tools.node.borrow() else { return };
            self.offline.saving = Some(self.executor.spawn(async move {
                let bodies = tools.runtime.bodies();
                let kept = Box::pin(tools.journal.save(node.bits(), tasks, &tools.network, bodies)).await;
                // The loop may be gone.
                let _ = inputs.send(Input::Kept(kept)).await;
            }));
        }
    }

    /// The journal was written, or could not be.
    pub(super) fn kept(&mut self, kept: bool) {
        self.offline.saving = None;
        if !kept {
            self.offline.save_at.get_or_insert(self.clock.now().mono + limits::JOURNAL_RETRY);
        }
    }

    fn recall(&mut self) {
        let (tools, inputs) = (self.tools.clone(), self.inputs.clone());
        self.offline.recalling = Some(self.executor.spawn(async move {
            let tasks = Box::pin(tools.journal.recall(&tools.network, tools.runtime.bodies())).await;
            let tasks = tasks.unwrap_or_else(|error| {
                log::warn!("no manager is heard, and the journal cannot be read: {error}");
                Vec::new()
            });
            // The loop may be gone.
            let _ = inputs.send(Input::Recalled(tasks)).await;
        }));
    }

    /// The board goes by what it was told last.
    pub(super) fn recalled(&mut self, tasks: Tasks) {
        if self.offline.recalling.take().is_none() {
            return;
        }
        let node = self.tools.journal.last().map(|header| NodeId::from_bits(header.node));
        let known = self.tools.node.take().or(node);
        self.tools.node.replace(known);
        self.tools.host.take(&self.tools.network.table().borrow());
        self.tools.is_alone.set(true);
        self.offline.is_known = true;
        let begun = self.board.recall(tasks, self.clock.now());
        log::warn!("no manager is heard: this board goes by what it was told last, and starts {begun} tasks by itself");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Mono {
        Mono::from_nanos(second * 1_000_000_000)
    }

    #[test]
    fn a_session_that_brings_no_set_does_not_stop_the_board_from_going_by_its_journal() {
        let after = Duration::from_secs(15);
        let mut offline = Offline::new(Some(after));
        assert_eq!(offline.recall_at, Some(at(15)));
        offline.opened();
        assert_eq!(offline.recall_at, None);
        offline.closed(false);
        assert_eq!(offline.recall_at, Some(at(15)));
        offline.opened();
        offline.closed(true);
        assert_eq!(offline.recall_at, None);
        // It went by it already, or never shall.
        let mut known = Offline { is_known: true, recall_at: None, ..Offline::new(Some(after)) };
        known.closed(false);
        let mut never = Offline::new(None);
        never.closed(false);
        assert_eq!((known.recall_at, never.recall_at), (None, None));
    }

    #[test]
    fn what_changes_for_ever_is_written_less_and_less_often() {
        let (mut offline, mut written) = (Offline::default(), Vec::new());
        for second in 0..600 {
            if offline.save_at.take_if(|due| *due <= at(second)).is_some() {
                offline.begins_to_save(at(second));
                written.push(second);
            }
            offline.changed(at(second));
        }
        assert_eq!(written, [1, 2, 4, 8, 16, 32, 64, 124, 184, 244, 304, 364, 424, 484, 544]);
        // What the manager takes away does not wait, and after a quiet time nothing does.
        offline.saves(at(601));
        assert_eq!(offline.save_at, Some(at(601)));
        offline.save_at = None;
        offline.begins_to_save(at(601));
        offline.changed(at(900));
        assert_eq!(offline.save_at, Some(at(901)));
        offline.save_at = None;
        offline.begins_to_save(at(901));
        offline.changed(at(901));
        assert_eq!(offline.save_at, Some(at(902)));
    }
}
