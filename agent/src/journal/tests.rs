use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use racimo_common::durable::cuts::{Recording, Step};
use racimo_common::id::{DependencyId, RandomId, ServiceId};
use racimo_common::object::{ContainerSpec, LogConfig, Resources};
use racimo_common::registry::Credentials;
use racimo_common::wire::{File as WireFile, NetService, Offline, Restart};
use smol::LocalExecutor;
use tempfile::TempDir;

use super::*;
use crate::net::testing::own;

const OWNER: Digest = [3; 32];
const NODE: u128 = 77;

/// A board's disk, and what is in its memory.
struct Board {
    data: TempDir,
    run: TempDir,
    journal: Journal,
    network: Network,
    bodies: Bodies,
}

impl Board {
    fn new() -> Self {
        Self::on(tempfile::tempdir().unwrap())
    }

    /// Boots from this disk.
    fn on(data: TempDir) -> Self {
        let run = tempfile::tempdir().unwrap();
        let found = Journal::look(data.path(), &OWNER);
        let journal = Journal::new(data.path(), OWNER, Some(Sealer::new(b"the board's key")), found);
        let executor = Rc::new(LocalExecutor::new());
        let network = Network::open(executor, run.path(), "/etc/resolv.conf".into()).unwrap();
        let bodies = Bodies::plain(run.path());
        Self { data, run, journal, network, bodies }
    }

    /// The power goes and comes again.
    fn boot(self) -> Self {
        drop(self.run);
        Self::on(self.data)
    }

    fn save(&self, tasks: &[Work]) -> bool {
        let tasks: Tasks = (1..).map(TaskId::from_bits).zip(tasks.iter().cloned().map(Rc::new)).collect();
        smol::block_on(self.journal.save(NODE, tasks, &self.network, &self.bodies))
    }

    fn recall(&self) -> Vec<Work> {
        let tasks = smol::block_on(self.journal.recall(&self.network, &self.bodies)).unwrap();
        tasks.into_iter().map(|(_, work)| Work::clone(&work)).collect()
    }

    fn content(&self, number: u128, bytes: &[u8]) {
        let total = u32::try_from(bytes.len()).unwrap();
        self.bodies.take(&BodyPart { key: key(number), total, offset: 0, bytes: bytes.to_vec() }).unwrap();
    }

    /// What has been written: of each slot, its bytes and when it changed.
    fn written(&self) -> Vec<(Vec<u8>, (i64, i64))> {
        let slots = (0..2).filter_map(|slot| fs::read(path(self.data.path(), slot)).ok().map(|bytes| (slot, bytes)));
        let stamp = |slot| fs::metadata(path(self.data.path(), slot)).map(|meta| (meta.mtime(), meta.mtime_nsec()));
        slots.map(|(slot, bytes)| (bytes, stamp(slot).unwrap())).collect()
    }
}

pub(crate) fn key(number: u128) -> BodyKey {
    BodyKey { id: DependencyId::from_bits(number), task: None }
}

pub(crate) fn work(name: &str, contents: &[u128]) -> Work {
    let file =
        |number: &u128| WireFile { body: key(*number), target: format!("/{number}"), uid: 0, gid: 0, mode: 0o400 };
    Work {
        service: ServiceId::from_bits(1),
        service_name: name.into(),
        slot_name: format!("{name}.1"),
        container: ContainerSpec { image: "busybox".into(), env: vec!["A=b".into()], ..ContainerSpec::default() },
        resources: Resources::default(),
        log: LogConfig::default(),
        net: None,
        files: contents.iter().map(file).collect(),
        credentials: None,
        fault: None,
        offline: Offline { restart: Some(Restart::default()), secrets: true, lease_ms: None },
    }
}

fn service(number: u128) -> NetService {
    NetService {
        id: ServiceId::from_bits(number),
        name: format!("s{number}"),
        ports: Vec::new(),
        keep_source: false,
        networks: Vec::new(),
        endpoints: Vec::new(),
    }
}

#[test]
fn a_set_comes_back_with_its_contents_and_its_network() {
    let board = Board::new();
    assert_eq!(board.journal.last(), None);
    board.network.take(Net {
        complete: true,
        last: true,
        own: Some(own(1)),
        services: vec![service(1), service(2)],
        ..Net::default()
    });
    board.content(5, &vec![9; 70_000]);
    board.content(6, b"");
    let mut login = work("private", &[]);
    login.credentials = Some(Credentials::IdentityToken("hunter2".into()));
    assert!(board.save(&[work("web", &[5, 6]), login]));
    assert!(board.written().iter().all(|(bytes, _)| !bytes.windows(7).any(|w| w == b"hunter2")));
    assert_eq!(board.journal.fault(), None);
    let mode = |name: &str| fs::metadata(board.data.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("journal.0"), mode("contents")), (0o600, 0o700));

    let board = board.boot();
    assert_eq!(board.journal.last().map(|header| header.node), Some(NODE));
    assert_eq!(board.recall(), [work("web", &[5, 6]), work("private", &[])]);
    assert!(board.network.is_known());
    assert_eq!(board.network.table().borrow().services.len(), 2);
    assert_eq!(fs::read(board.bodies.place_of(key(5))).unwrap(), vec![9; 70_000]);
    assert!(board.bodies.has(key(6)));
}

#[test]
fn nothing_is_written_unless_something_changed() {
    let board = Board::new();
    assert!(board.save(&[]) && board.written().is_empty(), "nothing to keep, and nothing was kept");
    board.save(&[work("web", &[])]);
    let written = board.written();
    assert_eq!(written.len(), 1);
    board.save(&[work("web", &[])]);
    assert_eq!(board.written(), written);
    // Also by the next agent.
    let board = board.boot();
    board.save(&[work("web", &[])]);
    assert_eq!(board.written(), written);
    // A change goes to the other slot, the next one to the first again.
    board.save(&[work("db", &[])]);
    assert_eq!((board.written().len(), &board.written()[0]), (2, &written[0]));
    board.save(&[]);
    assert_ne!(board.written()[0], written[0]);
    let board = board.boot();
    assert_eq!((board.recall(), board.journal.last().map(|header| header.sequence)), (Vec::new(), Some(3)));
}

#[test]
fn a_damaged_slot_leaves_the_one_before() {
    let board = Board::new();
    board.save(&[work("old", &[])]);
    board.save(&[work("new", &[])]);
    let file = path(board.data.path(), 1);
    let good = fs::read(&file).unwrap();
    fs::write(&file, &good[..good.len() - 1]).unwrap();
    let board = board.boot();
    assert_eq!(board.recall(), [work("old", &[])]);
    // It is written over, not the good one.
    board.save(&[work("newer", &[])]);
    let board = board.boot();
    assert_eq!(board.recall(), [work("newer", &[])]);
    // Another board's, or another cluster's, is none.
    assert_eq!(Journal::look(board.data.path(), &[4; 32]).last, None);
}

#[test]
fn a_slot_that_cannot_be_read_leaves_the_other_one() {
    let board = Board::new();
    board.save(&[work("old", &[])]);
    board.save(&[work("new", &[])]);
    let place = |slot| path(board.data.path(), slot);
    let good = fs::read(place(1)).unwrap();
    // Reading it is an error, as on a worn card.
    fs::remove_file(place(1)).unwrap();
    fs::create_dir(place(1)).unwrap();
    let board = board.boot();
    assert!(board.journal.fault().unwrap().starts_with("journal.1 cannot be read"));
    assert_eq!(board.recall(), [work("old", &[])]);
    // Neither could be, and one of them can be again later: what was said since counts.
    let place = |slot| path(board.data.path(), slot);
    fs::remove_file(place(0)).unwrap();
    let board = board.boot();
    assert_eq!((board.recall(), board.journal.last()), (Vec::new(), None));
    fs::remove_dir(path(board.data.path(), 1)).unwrap();
    fs::write(path(board.data.path(), 1), good).unwrap();
    assert!(board.save(&[work("newer", &[])]));
    assert_eq!(board.boot().recall(), [work("newer", &[])]);
}

#[test]
fn contents_are_sealed_once_while_no_set_can_be_kept() {
    let board = Board::new();
    board.content(5, b"a secret");
    let contents = board.data.path().join(CONTENTS);
    let place = contents.join(name(key(5)));
    fs::create_dir(path(board.data.path(), 0)).unwrap();
    // What is there of before goes.
    fs::create_dir(&contents).unwrap();
    fs::write(&place, b"another node's").unwrap();
    assert!(!board.save(&[work("web", &[5])]));
    assert_ne!(fs::read(&place).unwrap(), b"another node's");
    // Sealed again it would say something else.
    fs::write(&place, b"as it is").unwrap();
    assert!(!board.save(&[work("web", &[5])]));
    fs::remove_dir(path(board.data.path(), 0)).unwrap();
    assert!(board.save(&[work("web", &[5])]));
    assert_eq!(fs::read(&place).unwrap(), b"as it is");
    // Those of a set that is too large are not sealed at all.
    let large = Board::new();
    large.content(5, b"a secret");
    let mut work = work("large", &[5]);
    work.container.env = vec!["x".repeat(200_000)];
    assert!(!large.save(&vec![work; 22]));
    assert!(!large.data.path().join(CONTENTS).exists());
}

#[test]
fn contents_are_sealed_or_not_kept() {
    let board = Board::new();
    board.content(5, b"a secret that is long enough");
    let mut without = work("without", &[5]);
    without.offline.secrets = false;
    // A content that two tasks have, of which one does not allow it.
    board.save(&[work("with", &[5]), without.clone()]);
    let contents = board.data.path().join(CONTENTS);
    let files = || fs::read_dir(&contents).unwrap().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    assert_eq!(files().len(), 1);
    let sealed = fs::read(&files()[0]).unwrap();
    assert!(!sealed.windows(8).any(|bytes| bytes == b"a secret"));
    let board = board.boot();
    assert_eq!(board.recall(), [work("with", &[5])]);
    // Sealed once: its content never changes.
    let inode = fs::metadata(&files()[0]).unwrap().ino();
    board.save(&[work("with", &[5]), work("more", &[])]);
    assert_eq!(fs::metadata(&files()[0]).unwrap().ino(), inode);
    // A damaged one: its task waits, the others start.
    fs::write(&files()[0], b"x").unwrap();
    let board = board.boot();
    assert_eq!(board.recall(), [work("more", &[])]);
    // It is sealed again once it has come again.
    board.content(5, b"a secret");
    board.save(&[work("with", &[5]), work("more", &[])]);
    let board = board.boot();
    assert_eq!(board.recall(), [work("with", &[5]), work("more", &[])]);
    // Nobody needs it any more.
    board.save(&[without]);
    assert!(files().is_empty());
    // A board without a key keeps none.
    let mut board = board.boot();
    board.journal.sealer = None;
    board.content(5, b"x");
    board.save(&[work("with", &[5])]);
    assert!(files().is_empty() && board.boot().recall().is_empty());
}

#[test]
fn a_disk_that_cannot_be_written_is_told_and_tried_again() {
    let board = Board::new();
    fs::create_dir(path(board.data.path(), 0)).unwrap();
    let set = [work("web", &[])];
    assert!(!board.save(&set));
    let fault = board.journal.fault().unwrap();
    assert!(fault.starts_with("this board cannot keep what it is told (Is a directory"), "{fault}");
    fs::remove_dir(path(board.data.path(), 0)).unwrap();
    assert!(board.save(&set) && board.journal.fault().is_none());
    // More than a board may keep.
    let mut large = work("large", &[]);
    large.container.env = vec!["x".repeat(200_000)];
    assert!(!board.save(&vec![large; 22]));
    assert!(board.journal.fault().unwrap().contains("at most 4096"));
    let board = board.boot();
    assert_eq!(board.recall(), set);
}

#[test]
fn it_is_erased() {
    let board = Board::new();
    board.content(5, b"abc");
    board.save(&[work("web", &[5])]);
    board.save(&[work("db", &[5])]);
    let recording = Recording::of(board.data.path());
    board.journal.erase();
    assert_eq!(fs::read_dir(board.data.path()).unwrap().count(), 0);
    // It is so for good; then there is nothing to write.
    assert_eq!(recording.steps().last(), Some(&(PathBuf::new(), Step::Sync)));
    let written = recording.count();
    board.journal.erase();
    assert_eq!(recording.count(), written);
    assert!(board.journal.last().is_none() && board.boot().recall().is_empty());
}

/// A cut at any moment of a save: what is on the disk then is the old or the new set.
#[test]
fn a_save_that_is_given_up_leaves_the_set_before() {
    let board = Board::new();
    let long = |name: &str| vec![work(name, &[]); 100];
    assert!(board.save(&long("old")));
    for polls in 0.. {
        let tasks: Tasks = (1..).map(TaskId::from_bits).zip(long("new").into_iter().map(Rc::new)).collect();
        let save = async {
            board.journal.save(NODE, tasks, &board.network, &board.bodies).await;
            true
        };
        let cut = async {
            for _ in 0..polls {
                yield_now().await;
                smol::Timer::after(Duration::from_micros(200)).await;
            }
            false
        };
        let whole = smol::block_on(smol::future::or(cut, save));
        let found = Journal::look(board.data.path(), &OWNER).last.unwrap().1;
        assert!(found.sequence == 2 || !whole, "it ended after {polls} polls and is not there");
        if whole {
            return;
        }
    }
}
