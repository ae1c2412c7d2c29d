use std::time::Duration;

use futures_lite::future::{block_on, or, poll_once, zip};
use racimo_common::object::Desired;
use smol::{LocalExecutor, Timer};

use super::log::Log;
use super::log::fake::Disk;
use super::testing::*;
use super::*;

/// Runs `work`, and not for ever.
#[track_caller]
fn within<T>(work: impl Future<Output = T>) -> T {
    let done = async { Some(work.await) };
    let late = async {
        Timer::after(Duration::from_secs(20)).await;
        None
    };
    block_on(or(done, late)).expect("it hangs")
}

fn open(disk: &Disk) -> Store {
    Store::open(disk.clone(), 1).expect("a store")
}

#[track_caller]
fn commit(store: &Store, changes: Vec<Change>) -> Result<u64, CommitError> {
    within(store.commit(at(5), changes))
}

fn ready(number: u128, since: i64) -> Observation {
    Observation::Node { node: node(number), seen: SeenNode { ready: true, at: at(since) } }
}

/// A service whose spec takes about this many bytes.
fn heavy(number: u128, bytes: usize) -> Change {
    let mut spec = (*spec(&format!("s{number}"), "nginx", 0)).clone();
    spec.labels.insert("ballast".to_owned(), "x".repeat(bytes));
    new_service(number, spec.into())
}

#[test]
fn what_is_committed_is_seen_and_survives() {
    let disk = Disk::new(1);
    let store = open(&disk);
    let first = commit(&store, vec![new_cluster(), new_node(1)]).expect("committed");
    assert_eq!(store.view().version(), first);
    let refused = commit(&store, vec![new_node(2), new_cluster()]);
    assert_eq!(refused, Err(CommitError::Refused(Refusal::ClusterExists)));
    let second = commit(&store, vec![new_service(1, spec("web", "nginx", 1))]).expect("committed");
    let third = commit(&store, vec![create(new_task(1, 1, second)), assign(1, 1)]).expect("committed");
    assert!(first < second && second < third);
    let before = store.view();
    drop(store);
    disk.power_loss();
    let after = open(&disk).view();
    assert_eq!(before.state, after.state);
    assert_eq!(after.state.nodes().count(), 1);
}

#[test]
fn a_snapshot_and_the_log_after_it_give_the_state_back() {
    let disk = Disk::new(1);
    let store = open(&disk);
    for number in 1..=20 {
        commit(&store, vec![heavy(number, 200_000)]).expect("committed");
    }
    for number in 1..=15 {
        commit(&store, vec![Change::ServiceRemove { service: service(number) }]).expect("committed");
    }
    let before = store.view().state;
    drop(store);
    disk.power_loss();
    assert_eq!(open(&disk).view().state, before);
}

#[test]
fn an_idle_store_writes_nothing() {
    let disk = Disk::new(1);
    let store = open(&disk);
    let version = commit(&store, vec![new_cluster(), new_node(1)]).expect("committed");
    let idle = disk.totals();
    let (_, mut feed) = store.watch();
    for second in 0..50 {
        within(store.observe(vec![ready(1, second)]));
        within(feed.next()).expect("news");
    }
    assert_eq!(commit(&store, Vec::new()), Ok(version));
    commit(&store, vec![new_cluster()]).expect_err("refused");
    assert_eq!(disk.totals(), idle);
}

#[test]
fn a_watcher_misses_nothing_and_sees_nothing_twice() {
    let store = open(&Disk::new(1));
    commit(&store, vec![new_cluster(), new_node(1), new_service(1, spec("web", "nginx", 0))]).expect("committed");
    let revision = store.view().version();
    let writer = store.clone();
    // From another thread, so that `watch` meets commits in every phase.
    let writing = std::thread::spawn(move || {
        for number in 1..200 {
            let changes = vec![create(new_task(number, 1, revision)), assign(number, 1)];
            commit(&writer, changes).expect("committed");
            block_on(writer.observe(vec![ready(1, i64::try_from(number).unwrap())]));
        }
    });
    let mut watchers = Vec::new();
    while !writing.is_finished() {
        watchers.push(store.watch());
        std::thread::sleep(Duration::from_micros(300));
    }
    writing.join().expect("writes");
    commit(&store, vec![desire(1, Desired::Shutdown)]).expect("committed");
    assert!(watchers.len() > 3);
    for (view, mut feed) in watchers {
        let mut known: std::collections::BTreeMap<_, _> = view.state.tasks().map(|t| (t.id, t.clone())).collect();
        let mut version = view.version();
        while version < store.view().version() {
            let batch = within(feed.next()).expect("a batch");
            assert!(batch.view.version() >= version, "the view went back");
            version = batch.view.version();
            for event in batch.events {
                if let Event::Task { id, old, new } = event {
                    assert_eq!(known.get(&id), old.as_ref(), "a gap or a repeat");
                    known.insert(id, new.expect("none is removed"));
                }
            }
            if batch.resync {
                known = batch.view.state.tasks().map(|t| (t.id, t.clone())).collect();
            }
        }
        assert!(known.values().eq(store.view().state.tasks()));
    }
}

#[test]
fn a_watcher_that_lags_gets_one_resync() {
    let store = open(&Disk::new(1));
    commit(&store, vec![new_cluster(), new_node(1)]).expect("committed");
    let (_, mut feed) = store.watch();
    for second in 0..300 {
        within(store.observe(vec![ready(1, second)]));
        while store.view().seen.node(node(1)).is_none_or(|n| n.at != at(second)) {
            std::thread::yield_now();
        }
    }
    commit(&store, vec![new_node(2)]).expect("committed");
    let batch = within(feed.next()).expect("a batch");
    assert!(batch.resync && batch.events.is_empty());
    assert_eq!(batch.view.version(), store.view().version());
    assert!(block_on(poll_once(feed.next())).is_none(), "old batches came after the resync");
    commit(&store, vec![new_node(3)]).expect("committed");
    let batch = within(feed.next()).expect("a batch");
    assert!(!batch.resync && batch.events.len() == 1);
}

#[test]
fn a_full_disk_refuses_and_changes_nothing() {
    let disk = Disk::new(1);
    let store = open(&disk);
    commit(&store, vec![new_cluster(), new_node(1)]).expect("committed");
    disk.set_capacity(Some(disk.used()));
    let full = (1..100).find(|&number| commit(&store, vec![heavy(number, 500_000)]) == Err(CommitError::Full));
    let full = full.expect("the disk is full at last");
    let before = store.view().state;
    for second in 1..100 {
        // Side by side, so that often the two are handled together.
        let refused = zip(store.observe(vec![ready(1, second)]), store.commit(at(5), vec![heavy(full, 500_000)]));
        assert_eq!(within(refused).1, Err(CommitError::Full));
        assert_eq!(store.view().seen.node(node(1)).map(|n| n.at), Some(at(second)), "an observation was lost");
    }
    assert_eq!(store.view().state, before);
    disk.set_capacity(None);
    commit(&store, vec![heavy(full, 500_000)]).expect("there is room again");
    let before = store.view().state;
    drop(store);
    disk.power_loss();
    assert_eq!(open(&disk).view().state, before);
}

#[test]
fn whoever_is_refused_sees_what_stood_in_the_way() {
    let disk = Disk::new(1);
    let store = open(&disk);
    commit(&store, vec![new_cluster()]).expect("committed");
    disk.stall_syncs(Duration::from_millis(20));
    for number in 1..20 {
        // The first keeps the store busy, so that the other two are handled together.
        let busy = store.commit(at(5), vec![new_node(100 + number)]);
        let refused = async {
            let refused = store.commit(at(5), vec![new_node(number)]).await;
            assert!(matches!(refused, Err(CommitError::Refused(_))), "{refused:?}");
            assert!(store.view().state.node(node(number)).is_some(), "the view is older than the refusal");
        };
        let first = store.commit(at(5), vec![new_node(number)]);
        let ((busy, first), ()) = within(zip(zip(busy, first), refused));
        assert!(busy.is_ok() && first.is_ok());
    }
}

#[test]
fn a_change_over_the_limit_is_refused() {
    let store = open(&Disk::new(1));
    let refused = commit(&store, vec![heavy(1, crate::limits::COMMAND_BYTES_MAX)]);
    assert_eq!(refused, Err(CommitError::TooLarge));
    commit(&store, vec![heavy(1, crate::limits::COMMAND_BYTES_MAX - 2000)]).expect("it fits");
}

#[test]
fn a_failed_fsync_stops_the_store_and_everybody_learns_it() {
    let disk = Disk::new(1);
    let store = open(&disk);
    commit(&store, vec![new_cluster()]).expect("committed");
    let (_, mut feed) = store.watch();
    let before = store.view().state;
    disk.fail_sync_after(0);
    let writers = LocalExecutor::new();
    let tasks: Vec<_> = (1..100)
        .map(|number| {
            let store = store.clone();
            writers.spawn(async move { store.commit(at(5), vec![new_node(number)]).await })
        })
        .collect();
    within(writers.run(async {
        for task in tasks {
            assert_eq!(task.await, Err(CommitError::Stopped));
        }
        store.stopped().await;
        assert!(feed.next().await.is_none(), "the watcher is not told");
        assert!(store.watch().1.next().await.is_none(), "a new watcher is not told");
    }));
    assert_eq!(commit(&store, vec![new_node(100)]), Err(CommitError::Stopped));
    assert_eq!(store.view().state, before, "what is not on disk was published");
}

#[test]
fn many_writers_share_syncs() {
    let disk = Disk::new(1);
    let store = open(&disk);
    let version = commit(&store, vec![new_cluster()]).expect("committed");
    let before = disk.totals();
    let writers = LocalExecutor::new();
    let tasks: Vec<_> = (1..=200)
        .map(|number| {
            let store = store.clone();
            writers.spawn(async move { store.commit(at(5), vec![new_node(number)]).await })
        })
        .collect();
    let mut indexes = within(writers.run(async {
        let mut indexes = Vec::new();
        for task in tasks {
            indexes.push(task.await.expect("committed"));
        }
        indexes
    }));
    indexes.sort_unstable();
    assert!(indexes.iter().copied().eq(version + 1..=version + 200));
    let syncs = disk.totals().syncs - before.syncs;
    assert!(syncs < 150, "{syncs} syncs");
    let state = store.view().state;
    drop(store);
    disk.power_loss();
    assert_eq!(open(&disk).view().state, state);
}

#[test]
fn an_entry_that_this_version_cannot_read_stops_the_start() {
    let disk = Disk::new(1);
    let mut log = Log::open(disk.clone(), State::default(), 1).expect("a log");
    log.commit(&[b"from the future".to_vec()]).expect("it is logged");
    drop(log);
    let refused = Store::open(disk, 1).err().expect("a decision would be forgotten");
    let text = racimo_common::error::chain(&refused);
    assert!(text.contains("of the log") && text.contains("older version"), "{text}");
}
