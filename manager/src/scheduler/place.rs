//! A group of equal tasks onto the nodes that fit: spread over labels first, then by rank.
//!
//! ```text
//! node.labels.zone:  east (4 tasks)            west (3 tasks)  ◀ fewest tasks of the service: next
//! then …rack:        r1 (2)  r2 (2)            r1 (1)  r2 (2)
//! leaf:              nodes by Rank             ◀ r1's first node
//! ```
//! A branch without room drops out, and the others take its share.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::constraint::Spread;
use super::filter::Room;
use super::rank::Rank;

/// Where the next task of a group goes. Every level is a heap, so that placing one costs O(log nodes).
pub(super) struct Tree {
    root: Branch,
}

enum Branch {
    Inner {
        children: Vec<Branch>,
        /// Tasks of the service below a child, and the child's place: ties go by the label's value.
        order: BinaryHeap<Reverse<(u64, usize)>>,
    },
    Leaf {
        /// Rank and index of the room: ties go by node id.
        order: BinaryHeap<Reverse<(Rank, usize)>>,
    },
}

impl Tree {
    /// The tree of a group. `counts`: wanted tasks of the service per room, in rooms without space too;
    /// `open`: the room's rank if a task fits in now.
    pub(super) fn new(
        rooms: &[Room],
        preferences: &[String],
        counts: &[u32],
        open: impl Fn(usize) -> Option<Rank>,
    ) -> Self {
        let spreads: Vec<Spread> = preferences.iter().map(|preference| Spread::of(preference)).collect();
        let all = (0..rooms.len()).collect();
        Self { root: grow(rooms, &spreads, counts, &open, all).0 }
    }

    /// Takes the best room that `accept` accepts; rooms that it refuses are not asked again.
    pub(super) fn place(&mut self, mut accept: impl FnMut(usize) -> bool) -> Option<usize> {
        self.root.place(&mut accept)
    }
}

/// The branch over `members`, and how many tasks of the service are below it.
fn grow(
    rooms: &[Room],
    spreads: &[Spread],
    counts: &[u32],
    open: &impl Fn(usize) -> Option<Rank>,
    members: Vec<usize>,
) -> (Branch, u64) {
    let Some((spread, deeper)) = spreads.split_first() else {
        let tasks = members.iter().map(|&index| u64::from(counts[index])).sum();
        let order = members.into_iter().filter_map(|index| Some(Reverse((open(index)?, index)))).collect();
        return (Branch::Leaf { order }, tasks);
    };
    let mut values: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for index in members {
        values.entry(spread.value(&rooms[index].node)).or_default().push(index);
    }
    let (mut children, mut order, mut sum) = (Vec::new(), Vec::new(), 0);
    for members in values.into_values() {
        let (child, tasks) = grow(rooms, deeper, counts, open, members);
        order.push(Reverse((tasks, children.len())));
        children.push(child);
        sum += tasks;
    }
    (Branch::Inner { children, order: order.into() }, sum)
}

impl Branch {
    fn place(&mut self, accept: &mut impl FnMut(usize) -> bool) -> Option<usize> {
        match self {
            Self::Inner { children, order } => {
                while let Some(mut first) = order.peek_mut() {
                    let Reverse((tasks, child)) = &mut *first;
                    if let Some(index) = children[*child].place(accept) {
                        *tasks += 1;
                        return Some(index);
                    }
                    std::collections::binary_heap::PeekMut::pop(first);
                }
                None
            }
            Self::Leaf { order } => {
                while let Some(mut first) = order.peek_mut() {
                    let Reverse((rank, index)) = &mut *first;
                    if accept(*index) {
                        let index = *index;
                        rank.service += 1;
                        rank.total += 1;
                        return Some(index);
                    }
                    std::collections::binary_heap::PeekMut::pop(first);
                }
                None
            }
        }
    }
}
