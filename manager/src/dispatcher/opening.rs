//! What comes between an agent's `Hello` and its `Welcome`: the hub lets it in, and it is known which board it is on.

use std::time::Duration;

use async_channel::Receiver;
use log::Level;
use racimo_common::id::NodeId;
use racimo_common::wire::{BoardId, Refused, RefusedCode};

use super::Context;
use super::clones::{self, Asker};
use super::hub::{Opening, SessionId, Sign};
use super::session::End;
use crate::store::{Change, CommitError};

/// Waits for the hub to let the agent in; where the hub ends the session.
pub(super) async fn enter(
    context: &Context,
    node: NodeId,
    session: SessionId,
    asker: Asker,
    heartbeat: Duration,
    addr: &str,
) -> Result<Receiver<Refused>, End> {
    let (enter, entered) = async_channel::bounded(1);
    let (end, stopped) = async_channel::bounded(1);
    let opening = Opening { asker, heartbeat, enter, end };
    if !context.hub.tell(Sign::Opened { node, session, opening }).await {
        return Err(End::Stopped);
    }
    if entered.recv().await.is_ok() {
        return Ok(stopped);
    }
    // The hub says why before it lets go.
    let end = stopped.try_recv().map_or(End::Stopped, End::Refused);
    if let End::Refused(Refused { code: RefusedCode::Clone, .. }) = &end {
        context.notes.say(
            Level::Warn,
            node,
            "clone",
            format_args!("node {node}: a second board with its key, at {addr}, was refused: its card is a copy"),
        );
    }
    Err(end)
}

/// Stores which board the node's key is on, if it is another one than before.
pub(super) async fn know_board(context: &Context, node: NodeId, board: BoardId, addr: &str) -> Result<(), End> {
    let known = context.store.view().state.node(node).and_then(|node| node.board);
    if known.unwrap_or_default() == board || board == BoardId::default() {
        return Ok(());
    }
    if let Err(wait) = context.writes.take(node, context.clock.now().mono) {
        let reason = format!("this board is another one too often: again in {} s", wait.as_secs() + 1);
        return Err(End::Refused(Refused { code: RefusedCode::Busy, reason }));
    }
    if clones::is_other(known, board) {
        log::warn!("node {node} is on another board now, at {addr}: its card was moved, or copied");
    }
    match context.store.commit(context.clock.now().wall, vec![Change::NodeBoard { node, board }]).await {
        Ok(_) | Err(CommitError::Refused(_)) => Ok(()),
        Err(CommitError::Stopped) => Err(End::Stopped),
        Err(error @ (CommitError::Full | CommitError::TooLarge)) => {
            log::warn!("the board of node {node} was not stored: {error}");
            Ok(())
        }
    }
}
