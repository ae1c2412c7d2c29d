//! The kernel's side: makes what a plan says so, in the board's namespace, in that of its networks, in its tasks'.
//!
//! Everything can be done twice. Nothing is remembered but open sockets: what is there is listed.
//!
//! ```text
//! host      the board's namespace: rc-mesh, rg-…, routes, table ip racimo
//! overlays  <run>/netns/racimo: rcb<VNI> and rcv<VNI> of each network with a task here
//! inside    <run>/netns/<task>: eth0, eth1…, table ip racimo
//! ```

mod host;
mod inside;
mod look;
mod overlays;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use racimo_common::error::chain;
use racimo_common::id::TaskId;

use self::host::Host;
use self::inside::Inside;
use self::overlays::Overlays;
use super::netlink;
use super::netlink::conntrack::{Conntrack, Which};
use super::ns::Namespaces;
use super::plan::coming::Wanted;
use super::plan::rule::Backends;
use super::plan::task::{self, Attach};
use super::plan::{Op, Place, Published};

/// Why the kernel is not as it shall be.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The kernel refused.
    #[error("{0}")]
    Kernel(&'static str, #[source] netlink::Error),
    /// A file or a namespace.
    #[error("{0}")]
    Io(&'static str, #[source] io::Error),
    /// Somebody else removed what was there.
    #[error("{0} is gone")]
    Gone(String),
}

impl Fault {
    fn gone(what: &str) -> Self {
        Self::Gone(what.to_owned())
    }

    /// The whole story in one sentence.
    pub fn reason(&self) -> String {
        chain(self)
    }
}

/// What a failure is made a [`Fault`] from.
trait Failure {
    fn fault(self, what: &'static str) -> Fault;
}

impl Failure for netlink::Error {
    fn fault(self, what: &'static str) -> Fault {
        Fault::Kernel(what, self)
    }
}

impl Failure for io::Error {
    fn fault(self, what: &'static str) -> Fault {
        Fault::Io(what, self)
    }
}

fn doing<E: Failure>(what: &'static str) -> impl FnOnce(E) -> Fault {
    move |error| error.fault(what)
}

/// The board's kernel, as far as it is about the network.
pub struct Kernel {
    namespaces: Namespaces,
    host: Host,
    overlays: Option<Overlays>,
    tasks: BTreeMap<TaskId, Inside>,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kernel({} tasks)", self.tasks.len())
    }
}

/// Where the namespaces of a board with this `run` directory are.
pub fn namespaces(run: &Path) -> PathBuf {
    run.join("netns")
}

/// Where a task's namespace is.
pub fn namespace(run: &Path, task: TaskId) -> PathBuf {
    namespaces(run).join(task.to_string())
}

impl Kernel {
    /// The kernel of the calling thread's namespace.
    ///
    /// # Errors
    /// It has no netlink, or we have no right to use it.
    pub fn open(run: &Path) -> Result<Self, Fault> {
        let namespaces = Namespaces::new(namespaces(run));
        Ok(Self { namespaces, host: Host::open()?, overlays: None, tasks: BTreeMap::new() })
    }

    /// Does it all, in order. What fails is told and does not keep the rest from being done.
    pub fn apply(&mut self, ops: Vec<Op>) -> Vec<(Op, Fault)> {
        let mut failed = Vec::new();
        let mut ops = ops.into_iter().peekable();
        while let Some(op) = ops.next() {
            // What goes into one transaction.
            let mut group = vec![op];
            while let Some(next) = ops.next_if(|next| is_alike(&group[0], next)) {
                group.push(next);
            }
            match self.group(&group) {
                Ok(()) => {}
                Err(fault) if group.len() == 1 => failed.extend(group.pop().map(|op| (op, fault))),
                // One of them: the others are not at fault.
                Err(_) => {
                    for op in group {
                        if let Err(fault) = self.group(std::slice::from_ref(&op)) {
                            failed.push((op, fault));
                        }
                    }
                }
            }
        }
        failed
    }

    /// All are of the same kind.
    fn group(&mut self, ops: &[Op]) -> Result<(), Fault> {
        match &ops[0] {
            Op::Board(board) => self.host.board(board.as_ref()),
            Op::Left(address) => rules::left(&mut self.host.nft, *address),
            Op::Peer { peer, keeps_source } => self.host.peer(peer, *keeps_source),
            Op::PeerGone { peer, address } => self.host.peer_gone(peer, *address),
            Op::Overlay(overlay) => {
                let overlays = match &mut self.overlays {
                    Some(overlays) => overlays,
                    none => none.insert(Overlays::open(&self.namespaces)?),
                };
                overlays.overlay(overlay, &mut self.host.route)
            }
            Op::OverlayGone(vni) => {
                let Some(overlays) = &mut self.overlays else { return Ok(()) };
                if overlays.overlay_gone(*vni)? {
                    self.no_overlays()?;
                }
                Ok(())
            }
            Op::Remote { .. } => {
                let Some(overlays) = &mut self.overlays else { return Ok(()) };
                let remotes: Vec<_> = ops.iter().filter_map(remote).collect();
                overlays.remotes(&remotes)
            }
            Op::Publish { .. } => {
                let ports: Vec<_> = ops.iter().filter_map(publish).collect();
                self.host.publish(&ports)
            }
            Op::Virtual { task, .. } => {
                // One that is not there (yet) is told everything when it comes.
                let Some(inside) = self.tasks.get_mut(task) else { return Ok(()) };
                inside.virtuals(ops.iter().filter_map(virtual_address))
            }
            Op::Forget { place, addresses, which } => match place {
                Place::Board => forget(&mut self.host.conntrack, addresses, *which),
                Place::Task(task) => {
                    let namespace = self.namespaces.open(&task.to_string()).map_err(doing(FORGET))?;
                    let Some(namespace) = namespace else { return Ok(()) };
                    // Opened when it is needed: it would take two files for each task.
                    let mut conntrack = Conntrack::open_in(&namespace).map_err(doing(FORGET))?;
                    forget(&mut conntrack, addresses, *which)
                }
            },
        }
    }

    /// The namespace of networks is removed when there are none.
    fn no_overlays(&mut self) -> Result<(), Fault> {
        self.overlays = None;
        self.namespaces.remove(overlays::NAME).map_err(doing("remove the namespace of networks"))
    }

    /// Whether the board's table had to be made anew: published ports are to be told again. Asked once.
    pub fn take_emptied(&mut self) -> bool {
        std::mem::take(&mut self.host.emptied)
    }

    /// Whether a task's namespace is there.
    ///
    /// # Errors
    /// It cannot be said: there is no room for another open file, or no memory.
    pub fn has(&self, task: TaskId) -> Result<bool, Fault> {
        let found = self.namespaces.open(&task.to_string()).map_err(doing("open the task's namespace"))?;
        Ok(found.is_some())
    }

    /// Makes sure of a task's namespace with its links, addresses and rules; its networks are there. `virtuals`: all
    /// that it can use.
    ///
    /// # Errors
    /// What is there stays: [`Kernel::detach`] it.
    pub fn attach(&mut self, attach: &Attach) -> Result<(), Fault> {
        let task = attach.task;
        let what = "make the task's namespace";
        let namespace = self.namespaces.make(&task.to_string()).map_err(doing(what))?;
        inside::prepare(&namespace)?;
        if let Some(leg) = &attach.leg {
            self.host.leg(&task::link(task, 0), leg, &namespace)?;
        }
        for (place, (overlay, address)) in attach.networks.iter().enumerate() {
            let overlays = self.overlays.as_mut().ok_or_else(|| Fault::gone("the namespace of networks"))?;
            let (name, end) = (task::link(task, place + 1), inside::end(place + 1));
            overlays.join(&name, overlay, *address, &end, &namespace)?;
        }
        inside::links(&namespace, attach)?;
        let mut inside = Inside::open(&namespace)?;
        inside.chains(attach)?;
        self.tasks.insert(task, inside);
        Ok(())
    }

    /// Gives a task's namespace what virtual addresses stand for.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn virtuals(&mut self, task: TaskId, virtuals: &[(Ipv4Addr, Rc<Backends>)]) -> Result<(), Fault> {
        let Some(inside) = self.tasks.get_mut(&task) else { return Ok(()) };
        inside.virtuals(virtuals.iter().map(|(address, to)| (*address, Some(&**to))))
    }

    /// Removes what is in a task's namespace beside these virtual addresses.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn sweep_virtuals(&mut self, task: TaskId, wanted: &BTreeSet<Ipv4Addr>) -> Result<(), Fault> {
        let Some(inside) = self.tasks.get_mut(&task) else { return Ok(()) };
        rules::sweep_task(&mut inside.nft, wanted)
    }

    /// Removes a task's namespace with everything that belongs to it. `address`: its own in the mesh. All is tried.
    ///
    /// # Errors
    /// The first failure.
    pub fn detach(&mut self, task: TaskId, address: Option<Ipv4Addr>, networks: usize) -> Result<(), Fault> {
        self.tasks.remove(&task);
        let names: Vec<String> = (1..=networks).map(|place| task::link(task, place)).collect();
        let left = match &mut self.overlays {
            Some(overlays) if networks > 0 => overlays.leave(&names),
            _ => Ok(()),
        };
        let leg = self.host.leg_gone(&task::link(task, 0));
        let removed = self.namespaces.remove(&task.to_string()).map_err(doing("remove the task's namespace"));
        let addresses: Vec<Ipv4Addr> = address.into_iter().collect();
        let forgotten = forget(&mut self.host.conntrack, &addresses, Which::All);
        left.and(leg).and(removed).and(forgotten)
    }

    /// Removes everything that nothing wants any more; all else has been told before. All is tried.
    pub fn sweep(&mut self, wanted: &Wanted) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut links: BTreeSet<String> =
            wanted.networks.keys().flat_map(|vni| [task::bridge(*vni), task::vxlan(*vni)]).collect();
        let mut legs = BTreeSet::new();
        for (id, (has_leg, networks)) in &wanted.tasks {
            links.extend((1..=*networks).map(|place| task::link(*id, place)));
            legs.extend(has_leg.then(|| task::link(*id, 0)));
        }
        let overlays = match &mut self.overlays {
            _ if wanted.networks.is_empty() => self.no_overlays(),
            Some(overlays) => overlays.sweep(&links, &wanted.networks),
            None => Ok(()),
        };
        faults.extend(overlays.err());
        if let Some(board) = &wanted.board {
            faults.extend(self.host.sweep(board, &legs, &wanted.peers, &wanted.published).err());
        }
        self.tasks.retain(|task, _| wanted.tasks.contains_key(task));
        let names = self.namespaces.list().map_err(doing("list namespaces"));
        for name in names.map_err(|fault| faults.push(fault)).unwrap_or_default() {
            let Ok(task) = name.parse::<TaskId>() else { continue };
            if !wanted.tasks.contains_key(&task) {
                let removed = self.namespaces.remove(&name).map_err(doing("remove a namespace that is left"));
                faults.extend(removed.err());
            }
        }
        faults
    }
}

const FORGET: &str = "forget connections";

fn forget(conntrack: &mut Conntrack, addresses: &[Ipv4Addr], which: Which) -> Result<(), Fault> {
    let addresses: BTreeSet<Ipv4Addr> = addresses.iter().copied().collect();
    conntrack.forget(&addresses, which).map(drop).map_err(doing(FORGET))
}

/// Whether two go into one transaction.
fn is_alike(one: &Op, other: &Op) -> bool {
    match (one, other) {
        (Op::Publish { .. }, Op::Publish { .. }) | (Op::Remote { .. }, Op::Remote { .. }) => true,
        (Op::Virtual { task, .. }, Op::Virtual { task: other, .. }) => task == other,
        _ => false,
    }
}

fn remote(op: &Op) -> Option<(u32, Ipv4Addr, Option<Ipv4Addr>)> {
    let Op::Remote { vni, address, board } = op else { return None };
    Some((*vni, *address, *board))
}

fn publish(op: &Op) -> Option<(Published, Option<Backends>)> {
    let Op::Publish { port, to } = op else { return None };
    Some((*port, to.clone()))
}

fn virtual_address(op: &Op) -> Option<(Ipv4Addr, Option<&Backends>)> {
    let Op::Virtual { address, to, .. } = op else { return None };
    Some((*address, to.as_deref()))
}
