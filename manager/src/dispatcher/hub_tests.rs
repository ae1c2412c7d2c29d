use futures_lite::future::block_on;

use super::*;
use crate::store::log::fake::Disk;
use crate::store::testing::{at, new_cluster, new_node, node};

#[test]
fn a_new_period_waits_not_for_ever_for_a_session_that_was_about_to_open() {
    let store = Store::open(Disk::new(1), 1).expect("a store");
    for change in [new_cluster(), new_node(1)] {
        block_on(store.commit(at(1), vec![change])).expect("committed");
    }
    let clock = Clock::start();
    let mut hub = Running { store: store.clone(), clock, own: node(77), nodes: BTreeMap::new(), look: true };
    hub.follow_all(&store.view());
    let (stop, stopped) = async_channel::bounded(1);
    let entry = hub.nodes.get_mut(&node(1)).expect("a node");
    entry.link.opens();
    (entry.session, entry.heartbeat) = (Some((1, stop)), Duration::from_secs(30));
    block_on(hub.judge_all());
    assert_eq!(stopped.try_recv().expect("it ends").code, RefusedCode::Busy);
    let entry = &hub.nodes[&node(1)];
    assert!(!entry.written_off);
    let later = clock.now().mono + Duration::from_secs(181);
    assert_eq!(entry.link.judge(entry.heartbeat, later), Verdict::Down(Cause::Heartbeat));
}
