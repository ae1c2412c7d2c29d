//! The dispatcher with a real store (on a disk in memory) and agents moved by hand.

mod assign;
mod board;
mod certify;
mod clones;
mod hostile;
mod join;
mod logs;
mod net;
mod net_random;
mod net_session;
mod report;
mod serve;
mod session;
mod states;

use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::{block_on, or};
use racimo_common::id::{ClusterId, NodeId, RandomId};
use racimo_common::time::Clock;
use ring::rand::SystemRandom;

use super::broker::Broker;
use super::watch::Watch;
use super::writes::Writes;
use super::{Context, Known, hub};
use crate::ca::{Authority, Ca, CertRequest, NODE_VALIDITY, Present, Roots};
use crate::gate::Limits;
use crate::gate::door::Door;
use crate::gate::notes::Notes;
use crate::store::log::fake::Disk;
use crate::store::testing::{at, new_cluster, node};
use crate::store::{Change, Store, View};

/// The manager's own node: it has no agent here.
const OWN: u128 = 77;

/// A manager without a listener.
struct Manager {
    context: Context,
    disk: Disk,
    _running: Vec<smol::Task<()>>,
}

impl Manager {
    /// A cluster, and these changes one by one.
    fn new(changes: Vec<Change>) -> Self {
        let manager = Self::on(Disk::new(1));
        manager.commit(new_cluster());
        for change in changes {
            manager.commit(change);
        }
        manager
    }

    /// One that starts with what is on the disk.
    fn on(disk: Disk) -> Self {
        let store = Store::open(disk.clone(), 1).expect("a store");
        let clock = Clock::start();
        let ca = Ca::create(ClusterId::from_bits(9), clock.now().wall, &SystemRandom::new()).expect("a root");
        let (hub, signs) = hub::Hub::new();
        let running = smol::spawn(hub::run(store.clone(), clock, signs, node(OWN)));
        let vault = crate::vault::testing();
        let sets = Arc::new(smol::lock::Semaphore::new(crate::limits::SETS_OPEN_MAX));
        let (watch, watching) = Watch::new(&store);
        let running = vec![running, smol::spawn(watching)];
        let (door, known) = (Door::new(Limits::agents(usize::MAX), clock), Known::new(store.clone()));
        let (writes, notes) = (Writes::default(), Notes::new(clock));
        let (authority, logs) = (authority(&ca), Broker::default());
        let context = Context { store, clock, authority, vault, hub, watch, logs, sets, door, known, writes, notes };
        Self { context, disk, _running: running }
    }

    #[track_caller]
    fn commit(&self, change: Change) -> u64 {
        within(self.context.store.commit(at(1), vec![change])).expect("committed")
    }

    fn view(&self) -> View {
        self.context.store.view()
    }

    /// Waits until `holds` does.
    #[track_caller]
    fn until(&self, holds: impl Fn(&View) -> bool) {
        let (mut view, mut feed) = self.context.store.watch();
        within(async {
            while !holds(&view) {
                view = feed.next().await.expect("the store runs").view;
            }
        });
    }

    fn is_down(&self, node: NodeId) -> bool {
        self.view().state.node(node).is_some_and(|node| node.written_off.is_some())
    }
}

/// A new node, known by the key of this request.
fn with_key(node: Change, csr: &[u8]) -> Change {
    let Change::NodeCreate(mut new) = node else { panic!("{node:?} makes no node") };
    new.key_digest = Some(CertRequest::parse(csr).expect("a request").key_digest());
    Change::NodeCreate(new)
}

/// The authority with this root.
fn authority(ca: &Ca) -> Authority {
    let again = Ca::load(ca.cluster(), &ca.root_pem(), &ca.key_pem()).expect("a root");
    let (roots, now) = (Roots::only(ca.root().clone()), Clock::start().now().wall);
    Authority::new(Present::make(again, roots, node(OWN), now, NODE_VALIDITY, &SystemRandom::new()).expect("usable"))
}

/// Runs `work`, and not for ever.
#[track_caller]
fn within<T>(work: impl Future<Output = T>) -> T {
    let done = async { Some(work.await) };
    let late = async {
        smol::Timer::after(Duration::from_secs(15)).await;
        None
    };
    block_on(or(done, late)).expect("it hangs")
}
