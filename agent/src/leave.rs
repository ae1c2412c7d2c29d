//! Leaving the cluster: the manager is told, then everything of it goes from this board.
//!
//! In: how telling the manager went, how many containers are left, `Mono`. Out: whether to stop tasks, whether it is
//! over, and what to answer who asked.
//!
//! ```text
//! Telling ─ the manager knows, refuses, or is not reached in time ─▶ Stopping ─ nothing is left, or time is up ─▶ over
//! ```
//! The identity is erased between the two: a power cut leaves a member or none.

use std::time::Duration;

use async_channel::Sender;
use racimo_common::id::NodeId;
use racimo_common::time::Mono;

use crate::limits::{LEAVE_LISTED_WITHIN, LEAVE_STOPPED_WITHIN, LEAVE_TOLD_WITHIN};

/// Docker's words for who asks a board that is in no cluster.
pub const NOT_IN: &str = "This node is not part of a swarm";

/// Docker's words for who asks one that was.
pub const LEFT: &str = "Node left the swarm.";

/// For who asks the manager's own.
pub const MANAGERS_OWN: &str = "this board's manager runs here, and the board has no identity of its own: `pi-mgr leave \
                                --force` ends the cluster; to have no tasks here, stop pi-agent";

/// Somebody on this board wants it to leave.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Whether the manager is to be told: not if another board goes on as this node.
    pub tells: bool,
    /// Where the answer goes: what was done, or why nothing was.
    pub answer: Sender<Result<String, String>>,
}

/// A board that leaves.
#[derive(Debug)]
pub struct Leaving {
    node: NodeId,
    asks: Vec<Ask>,
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Telling {
        by: Mono,
    },
    Stopping {
        /// When it gives up on a containerd that does not say what there is, and on containers that do not end.
        by: (Mono, Mono),
        told: Result<(), String>,
    },
}

impl Leaving {
    /// Begins.
    pub fn new(node: NodeId, ask: Ask, now: Mono) -> Self {
        let tells = ask.tells;
        let mut leaving = Self { node, asks: vec![ask], phase: Phase::Telling { by: now + LEAVE_TOLD_WITHIN } };
        if !tells {
            leaving.told(Ok(()), now);
        }
        leaving
    }

    /// Somebody else wants it, too.
    pub fn join(&mut self, ask: Ask) {
        self.asks.push(ask);
    }

    /// Whether the manager is still to be told.
    pub fn is_telling(&self) -> bool {
        matches!(self.phase, Phase::Telling { .. })
    }

    /// The manager knows, or why it does not. True: tasks are to be stopped from now on.
    pub fn told(&mut self, told: Result<(), String>, now: Mono) -> bool {
        match &mut self.phase {
            Phase::Telling { .. } => {
                let by = (now + LEAVE_LISTED_WITHIN, now + LEAVE_STOPPED_WITHIN);
                self.phase = Phase::Stopping { by, told };
                true
            }
            // Better late than never.
            Phase::Stopping { told: before, .. } => {
                if told.is_ok() {
                    *before = told;
                }
                false
            }
        }
    }

    /// Gives up on a manager that is not reached. True: tasks are to be stopped from now on.
    pub fn tick(&mut self, now: Mono) -> bool {
        match self.phase {
            Phase::Telling { by } if by <= now => {
                self.told(Err(format!("no manager was reached within {}", seconds(LEAVE_TOLD_WITHIN))), now)
            }
            Phase::Telling { .. } | Phase::Stopping { .. } => false,
        }
    }

    /// When to look again if nothing happens.
    pub fn wake_at(&self, now: Mono) -> Mono {
        match self.phase {
            Phase::Telling { by } => by,
            Phase::Stopping { by: (listed, stopped), .. } => {
                if now < listed {
                    listed
                } else {
                    stopped
                }
            }
        }
    }

    /// Whether it is over. `left`: containers; none: it is not known yet.
    pub fn is_over(&self, left: Option<usize>, now: Mono) -> bool {
        match (&self.phase, left) {
            (Phase::Telling { .. }, _) => false,
            (Phase::Stopping { .. }, Some(0)) => true,
            (Phase::Stopping { by: (listed, _), .. }, None) => *listed <= now,
            (Phase::Stopping { by: (_, stopped), .. }, Some(_)) => *stopped <= now,
        }
    }

    /// Answers everybody; `erased`: why the identity is still there.
    pub fn answer(self, left: Option<usize>, erased: Result<(), String>) {
        let node = self.node;
        let mut words = vec![LEFT.to_owned()];
        if let Phase::Stopping { told: Err(why), .. } = &self.phase {
            words.push(format!(
                "The manager does not know: {why}. Remove the node there: pi-mgr node rm {node} (--force while it is \
                 not down)."
            ));
        }
        let rest = "what is left of them goes when this board joins a cluster again";
        match left {
            Some(0) => {}
            Some(count) => {
                let span = seconds(LEAVE_STOPPED_WITHIN);
                words.push(format!("{count} containers have not ended within {span}: {rest}."));
            }
            None => words.push(format!("containerd did not say which containers there are: {rest}.")),
        }
        let answer = match erased {
            Ok(()) => Ok(words.join("\n")),
            Err(why) => Err(format!("this board's identity is not erased: {why}")),
        };
        self.reply(&answer);
    }

    /// Answers everybody why the board has not left.
    pub fn give_up(self, why: &str) {
        self.reply(&Err(why.to_owned()));
    }

    fn reply(self, answer: &Result<String, String>) {
        for ask in self.asks {
            // Who asked may have gone.
            let _ = ask.answer.try_send(answer.clone());
        }
    }
}

fn seconds(span: Duration) -> String {
    format!("{} s", span.as_secs())
}

#[cfg(test)]
mod tests {
    use async_channel::Receiver;
    use racimo_common::id::RandomId;

    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono::from_nanos(seconds * 1_000_000_000)
    }

    fn leaving(tells: bool) -> (Leaving, Receiver<Result<String, String>>) {
        let (answer, answered) = async_channel::bounded(1);
        (Leaving::new(NodeId::from_bits(1), Ask { tells, answer }, at(0)), answered)
    }

    #[track_caller]
    fn check(leaving: Leaving, left: Option<usize>, answered: &Receiver<Result<String, String>>, words: &[&str]) {
        leaving.answer(left, Ok(()));
        let said = answered.try_recv().expect("an answer").expect("it left");
        assert_eq!(said.lines().count(), words.len(), "{said}");
        for (line, words) in said.lines().zip(words) {
            assert!(line.contains(words), "{said}");
        }
    }

    #[test]
    fn the_manager_is_told_and_then_tasks_stop() {
        let (mut leaving, answered) = leaving(true);
        assert!(leaving.is_telling() && !leaving.tick(at(1)) && !leaving.is_over(Some(0), at(1)));
        assert!(leaving.told(Ok(()), at(1)) && !leaving.is_telling());
        assert!(!leaving.is_over(Some(2), at(5)) && !leaving.is_over(None, at(5)));
        assert!(leaving.is_over(Some(0), at(5)));
        let (answer, also) = async_channel::bounded(1);
        leaving.join(Ask { tells: true, answer });
        check(leaving, Some(0), &answered, &["Node left the swarm."]);
        assert_eq!(also.try_recv().expect("an answer").expect("it left"), "Node left the swarm.");
    }

    #[test]
    fn without_a_manager_it_leaves_all_the_same() {
        let (mut leaving, answered) = leaving(true);
        let late = leaving.wake_at(at(0));
        assert!(leaving.tick(late) && !leaving.tick(late));
        assert!(!leaving.told(Err("once more".to_owned()), late));
        let words = ["Node left", "no manager was reached within 20 s. Remove the node there: pi-mgr node rm "];
        check(leaving, Some(0), &answered, &words);
    }

    #[test]
    fn a_manager_that_comes_late_knows_too() {
        let (mut leaving, answered) = leaving(true);
        assert!(leaving.told(Err("it is away".to_owned()), at(1)));
        assert!(!leaving.told(Ok(()), at(2)) && !leaving.told(Err("away again".to_owned()), at(3)));
        check(leaving, Some(0), &answered, &["Node left"]);
    }

    #[test]
    fn containers_that_stay_are_told() {
        let (mut first, answered) = leaving(false);
        assert!(!first.is_telling() && !first.tick(at(9)));
        let listed = first.wake_at(at(0));
        assert!(first.is_over(None, listed) && !first.is_over(Some(3), listed));
        let stopped = first.wake_at(listed);
        assert!(first.is_over(Some(3), stopped));
        check(first, Some(3), &answered, &["Node left", "3 containers have not ended within 60 s"]);
        let (second, answered) = leaving(false);
        check(second, None, &answered, &["Node left", "containerd did not say"]);
    }

    #[test]
    fn who_asked_hears_that_the_board_stays() {
        let (mut leaving, answered) = leaving(true);
        let (answer, also) = async_channel::bounded(1);
        leaving.join(Ask { tells: true, answer });
        leaving.give_up("joined again");
        for answered in [answered, also] {
            assert_eq!(answered.try_recv().expect("an answer").expect_err("it stays"), "joined again");
        }
    }

    #[test]
    fn an_identity_that_stays_is_a_failure() {
        let (leaving, answered) = leaving(false);
        leaving.answer(Some(0), Err("remove /x: denied".to_owned()));
        let said = answered.try_recv().expect("an answer").expect_err("it is there");
        assert_eq!(said, "this board's identity is not erased: remove /x: denied");
    }
}
