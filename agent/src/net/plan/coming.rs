//! A task comes or goes; and everything that shall be there, for finding what shall not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use racimo_common::id::TaskId;

use super::board::Board;
use super::task::Overlay;
use super::{Attached, Op, Peer, Published, View};

/// Everything that nothing else is wanted beside.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The board's own part.
    pub board: Option<Board>,
    /// Tasks, with whether they have a leg and how many networks.
    pub tasks: BTreeMap<TaskId, (bool, usize)>,
    /// Other boards.
    pub peers: Vec<Peer>,
    /// Published ports.
    pub published: BTreeSet<Published>,
    /// Networks, with the addresses of tasks on other boards.
    pub networks: BTreeMap<u32, BTreeSet<Ipv4Addr>>,
}

impl View<'_> {
    /// What a task's coming changes beside its own namespace. It is among the others already.
    pub fn arrival(self, attached: &Attached) -> Vec<Op> {
        let mut ops = Vec::new();
        let Some(own) = &self.table.own else { return ops };
        for (id, _) in &attached.net.networks {
            let Some(network) = self.table.networks.get(id) else { continue };
            ops.push(Op::Overlay(Overlay::new(network, own)));
            // Whether another task is on it says nothing: that one may be on its way, too.
            let vni = network.vni;
            let remotes = self.remotes(network);
            ops.extend(remotes.map(|(address, board)| Op::Remote { vni, address, board: Some(board) }));
        }
        ops.extend(self.ports(attached));
        ops
    }

    /// What the leaving of a task, which is not among the others any more, changes.
    pub fn departure(self, attached: &Attached) -> Vec<Op> {
        let mut ops: Vec<Op> = self.ports(attached).collect();
        let used = |vni: &u32| self.tasks.values().any(|task| task.vnis.contains(vni));
        let left: BTreeSet<u32> = attached.vnis.iter().filter(|vni| !used(vni)).copied().collect();
        ops.extend(left.into_iter().map(Op::OverlayGone));
        ops
    }

    fn ports(self, attached: &Attached) -> impl Iterator<Item = Op> {
        attached.ports.iter().map(move |port| {
            let port = (port.protocol, port.published);
            Op::Publish { port, to: self.published(port) }
        })
    }

    /// Everything that shall be there.
    pub fn wanted(self) -> Wanted {
        let legs = |attached: &Attached| (attached.net.mesh.is_some(), attached.net.networks.len());
        let own = self.table.own.as_ref();
        let peers = own.map(|own| self.table.peers.values().map(|peer| Peer::new(peer, own)).collect());
        let remotes = |network| self.remotes(network).map(|(address, _)| address).collect();
        Wanted {
            board: self.board(),
            tasks: self.tasks.iter().map(|(task, attached)| (*task, legs(attached))).collect(),
            peers: peers.unwrap_or_default(),
            published: self.all_published(),
            networks: self.local_networks().map(|network| (network.vni, remotes(network))).collect(),
        }
    }
}
