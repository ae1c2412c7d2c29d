//! The board leaves its cluster: the main loop's part of it. [`Leaving`] decides.

use std::path::Path;

use async_channel::Sender;
use racimo_common::error::chain;
use racimo_common::id::NodeId;
use racimo_common::wire::ToManager;
use smol::Timer;

use super::App;
use super::operations::Tools;
use crate::identity::{Turn, removed};
use crate::leave::{Ask, Leaving, MANAGERS_OWN};
use crate::limits;
use crate::link::places::Places;
use crate::net::wireguard;

/// Answers those who wanted the board to leave.
pub(super) type Answer = Box<dyn FnOnce()>;

impl App {
    pub(super) async fn leave(&mut self, mut ask: Ask) {
        let Some(node) = self.node() else {
            // Who asked may have gone.
            let _ = ask.answer.try_send(Err(MANAGERS_OWN.to_owned()));
            return;
        };
        if let Some(leaving) = &mut self.departure {
            return leaving.join(ask);
        }
        log::info!("this board leaves the cluster");
        // The manager knows already, and has no session for it.
        ask.tells &= !removed::is_noted(&self.config.data, node);
        let leaving = Leaving::new(node, ask, self.clock.now().mono);
        let is_telling = leaving.is_telling();
        self.departure = Some(leaving);
        match self.out.take() {
            Some(out) if is_telling => self.say_goodbye(out),
            _ if is_telling => {}
            _ => self.let_go().await,
        }
    }

    /// The session's last word; nothing else follows it.
    pub(super) fn say_goodbye(&mut self, out: Sender<ToManager>) {
        // A full queue: the session is closed, and the next one carries it.
        let _ = out.try_send(ToManager::Bye { leaving: true });
        out.close();
        self.out = Some(out);
    }

    pub(super) async fn said_goodbye(&mut self, told: Result<(), String>) {
        let now = self.clock.now().mono;
        if self.departure.as_mut().is_some_and(|leaving| leaving.told(told, now)) {
            self.let_go().await;
        }
    }

    /// The board is no member from now on; then its tasks stop.
    async fn let_go(&mut self) {
        let (node, data) = (self.node(), self.config.data.clone());
        // Somebody else may have the identity's turn: not the agent's one thread waits for it.
        self.erased = smol::unblock(move || erase(&data, node)).await;
        self.forget_all();
    }

    /// The board was joined again: it stays.
    pub(super) fn stays(&mut self) {
        if let Some(leaving) = self.departure.take() {
            leaving.give_up("this board was joined again meanwhile");
        }
    }

    /// Whether the board has left, and nothing is to be waited for.
    pub(super) async fn has_left(&mut self) -> Option<Answer> {
        let now = self.clock.now().mono;
        if self.departure.as_mut()?.tick(now) {
            self.let_go().await;
        }
        let busy = self.ending.values().chain(self.operations.values()).filter(|task| !task.is_finished()).count();
        let left = self.board.is_listed().then(|| self.board.tasks().count().max(busy.min(1)));
        let leaving = self.departure.take_if(|leaving| leaving.is_over(left, now))?;
        let erased = std::mem::replace(&mut self.erased, Ok(()));
        Some(Box::new(move || leaving.answer(left, erased)))
    }
}

/// Erases who this board is, if it still is that node, in the identity's turn: what is being stored is erased too, and
/// what comes later finds nothing.
pub(crate) fn erase(data: &Path, node: Option<NodeId>) -> Result<(), String> {
    let turn = Turn::take(data).map_err(|error| chain(&error))?;
    if matches!(turn.load(), Ok(Some(there)) if Some(there.node) != node) {
        // It was joined again meanwhile.
        return Ok(());
    }
    let key = wireguard::key::erase(data).map_err(|error| error.to_string());
    let places = Places::erase(data).map_err(|error| error.to_string());
    let noted = removed::forget(data).map_err(|error| error.to_string());
    turn.erase().map_err(|error| chain(&error)).and(key).and(places).and(noted)
}

impl Tools {
    /// The kernel's part of the network goes, for a board that has left.
    pub(super) async fn clear(&self) {
        let clear = async {
            self.network.forget_all();
            self.network.clear().await;
            self.host.clear().await;
        };
        let late = async {
            Timer::after(limits::LEAVE_NETWORK_WITHIN).await;
            log::warn!("what this board had of the network is not all gone; a restart of the board removes it");
        };
        smol::future::or(clear, late).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::identity;

    #[test]
    fn what_a_board_leaves_is_its_own_identity() {
        let data = tempfile::tempdir().expect("a directory");
        let there = || Turn::try_take(data.path()).expect("nobody has it").load().expect("readable");
        let (before, after) = (identity(1), identity(2));
        after.store(data.path()).expect("stored");
        erase(data.path(), Some(before.node)).expect("nothing to do");
        assert_eq!(there().map(|identity| identity.node), Some(after.node), "it joined again meanwhile");
        erase(data.path(), Some(after.node)).expect("erased");
        assert!(there().is_none());
        // One that is damaged is nobody's.
        before.store(data.path()).expect("stored");
        std::fs::write(data.path().join("identity/key.pem"), "?").expect("written");
        erase(data.path(), Some(after.node)).expect("erased");
        assert!(there().is_none());
    }
}
