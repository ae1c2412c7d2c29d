//! The floor: the same containers on the same containerds, by `ctr run` alone.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::client;
use super::lab::Lab;
use super::lab::board::Board;

/// A containerd namespace that no agent looks at.
const NAMESPACE: [&str; 2] = ["--namespace", "floor"];

fn ctr(board: &Board<'_>, arguments: &[&str]) -> Result<String> {
    board.ctr(&[&NAMESPACE[..], arguments].concat())
}

/// Gets the image onto every board.
pub(crate) fn pull(lab: &Lab) -> Result<()> {
    let image = client::image(lab);
    lab.boards().iter().try_for_each(|board| ctr(board, &["images", "pull", "--plain-http", &image]).map(drop))
}

/// How long `count` containers take, spread over the boards: one after the other on a board, all boards at once.
/// They are removed again.
pub(crate) fn time(lab: &Lab, count: usize) -> Result<Duration> {
    let boards = lab.boards();
    let image = client::image(lab);
    let of_board = |place: usize| (place..count).step_by(boards.len()).map(|number| format!("floor-{number}"));
    let begin = Instant::now();
    on_every(&boards, |place, board| {
        of_board(place).try_for_each(|id| ctr(board, &["run", "-d", &image, &id, "sleep", "1000000"]).map(drop))
    })?;
    let took = begin.elapsed();
    on_every(&boards, |place, board| {
        of_board(place).try_for_each(|id| {
            ctr(board, &["tasks", "rm", "-f", &id])?;
            ctr(board, &["containers", "rm", &id]).map(drop)
        })
    })?;
    Ok(took)
}

fn on_every(boards: &[Board<'_>], act: impl Fn(usize, &Board<'_>) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let act = &act;
        let threads: Vec<_> =
            boards.iter().enumerate().map(|(place, board)| scope.spawn(move || act(place, board))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("panicked"))?)
    })
}
