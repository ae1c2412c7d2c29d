//! Power cuts at any step of what the agent writes to its disk: what was done is there, what was being done is there or
//! is not, and nothing is half there.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;

use fastrand::Rng;
use racimo_common::durable::cuts::{Disk, Recording};
use racimo_common::id::{ClusterId, NodeId, RandomId, TaskId};
use racimo_common::wire::{BoardId, BodyPart};
use ring::rand::SystemRandom;
use serde_bytes::ByteBuf;
use smol::LocalExecutor;
use tempfile::TempDir;

use crate::app::{erase, owner};
use crate::identity::tests::identity;
use crate::identity::{Identity, Own, Turn};
use crate::journal::tests::{key, work};
use crate::journal::{Journal, Tasks};
use crate::link::join;
use crate::link::places::Places;
use crate::net::Network;
use crate::net::wireguard;
use crate::runtime::bodies::Bodies;

/// Every one from another disk, and many in the middle of what follows an earlier one.
const CUTS: u64 = 10_000;
/// Lives of a board that start with an empty disk.
const LIVES: u64 = 50;
/// Cuts of one recording, each on a disk of its own.
const EACH: u64 = 5;

/// All that the agent may leave in its directory.
const NAMES: [&str; 12] = [
    "identity",
    "identity.new",
    "identity.old",
    "places.json",
    "places.json.new",
    "wireguard.key",
    "wireguard.key.new",
    "wireguard.key.old",
    "journal.0",
    "journal.1",
    "contents",
    "agent.lock",
];

/// What is on a disk, as an agent that starts finds it.
#[derive(Debug, Clone, Default, PartialEq)]
struct Known {
    /// Node, and what counts of its identity.
    identity: Option<(NodeId, String)>,
    places: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
    /// Whose journal it is, and its tasks.
    journal: Option<(NodeId, BTreeSet<u128>)>,
    /// Whether the board left, and nothing was done since.
    has_left: bool,
}

/// A board's agent that runs.
struct Agent {
    root: TempDir,
    run: TempDir,
    network: Network,
    own: Option<Own>,
    journal: Option<Journal>,
    identities: Rc<Vec<Identity>>,
    /// Contents that are not of the same boot are in different folders.
    boots: u32,
    nodes: u128,
}

fn memory() -> TempDir {
    // A real disk would wait for each sync.
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() }.expect("a folder")
}

fn text(identity: &Identity) -> String {
    format!("{} {:?} {:?} {:?}", identity.cluster, identity.managers, identity.roots, identity.certificate)
}

impl Agent {
    fn new(identities: &Rc<Vec<Identity>>) -> Self {
        let (root, run) = (memory(), memory());
        let executor = Rc::new(LocalExecutor::new());
        let network = Network::open(executor, run.path(), "/etc/resolv.conf".into()).expect("a network");
        let identities = identities.clone();
        Self { root, run, network, own: None, journal: None, identities, boots: 0, nodes: 0 }
    }

    fn data(&self) -> std::path::PathBuf {
        self.root.path().join("data")
    }

    fn bodies(&mut self) -> Bodies {
        self.boots += 1;
        Bodies::plain(&self.run.path().join(self.boots.to_string()))
    }

    /// As the agent starts; what it finds.
    fn boot(&mut self) -> Known {
        let data = self.data();
        let names = fs::read_dir(&data).into_iter().flatten().flatten();
        let names: Vec<_> = names.map(|entry| entry.file_name().into_string().expect("a name")).collect();
        assert!(names.iter().all(|name| NAMES.contains(&&**name)), "{names:?}");
        let turn = Turn::take(&data).expect("nobody else");
        let identity = turn.load().expect("it is whole, or not there");
        if identity.is_some() {
            wireguard::key::erase_old(&data).expect("erased");
        }
        drop(turn);
        let own_journal = owner(identity.as_ref(), BoardId::default());
        let found = Journal::look(&data, &own_journal);
        let journal = Journal::new(&data, own_journal, identity.as_ref().map(Identity::sealer), found);
        let bodies = self.bodies();
        let tasks = smol::block_on(journal.recall(&self.network, &bodies)).expect("it can be read");
        let tasks: BTreeSet<u128> = tasks.into_iter().map(|(task, _)| task.bits()).collect();
        let known = Known {
            identity: identity.as_ref().map(|identity| (identity.node, text(identity))),
            places: fs::read(data.join("places.json")).ok(),
            key: fs::read(data.join("wireguard.key")).ok(),
            journal: identity.as_ref().filter(|_| !tasks.is_empty()).map(|identity| (identity.node, tasks)),
            has_left: false,
        };
        self.own = identity.map(|identity| Own::new(identity, &data));
        self.journal = Some(journal);
        known
    }

    /// Does something; what there is then.
    fn act(&mut self, known: &Known, chance: &mut Rng) -> Known {
        let data = self.data();
        let mut after = Known { has_left: false, ..known.clone() };
        let Some(own) = self.own.as_ref().filter(|_| chance.u8(..12) > 0) else {
            self.nodes += 1;
            let pool = &self.identities[chance.usize(..self.identities.len())];
            let (cluster, node) = (ClusterId::from_bits(chance.u128(1..4)), NodeId::from_bits(self.nodes));
            let new = Identity { cluster, node, ..pool.clone() };
            join::keep(&data, &new, "pi.local").expect("joined");
            self.own = Some(Own::new(new, &data));
            let own = self.own.as_ref().map(Own::identity);
            let own_journal = owner(own.as_deref(), BoardId::default());
            let found = Journal::look(&data, &own_journal);
            assert!(found.last.is_none() && found.fault.is_none(), "a journal of another membership");
            self.journal = Some(Journal::new(&data, own_journal, own.as_ref().map(|own| own.sealer()), found));
            after.identity = own.map(|own| (own.node, text(&own)));
            (after.key, after.journal) = (None, None);
            after.places = fs::read(data.join("places.json")).ok();
            return after;
        };
        let identity = own.identity();
        let journal = self.journal.as_ref().expect("it was looked for");
        match chance.u8(..8) {
            0 => {
                erase(&data, Some(identity.node)).expect("erased");
                journal.erase();
                self.own = None;
                return Known { has_left: true, ..Known::default() };
            }
            1 => {
                let roots = self.identities.iter().take(chance.usize(1..=2)).map(|pool| pool.roots[0].to_vec());
                smol::block_on(own.trust(roots.map(ByteBuf::from).collect())).expect("trusted");
            }
            2 => {
                let managers = (0..chance.u8(1..4)).map(|_| format!("10.0.0.{}:2377", chance.u8(1..9)));
                let managers: Vec<String> = managers.collect();
                smol::block_on(own.set_managers(managers.clone())).expect("kept");
                assert!(turn_of(&data).is_some_and(|(_, text)| text.contains(&format!("{managers:?}"))));
            }
            3 => {
                let mut places = Places::load(&data, identity.cluster, &identity.managers);
                let address = SocketAddr::from(([10, 0, 0, chance.u8(1..9)], 2377));
                places.worked(address, &data, identity.cluster).expect("kept");
                after.places = fs::read(data.join("places.json")).ok();
            }
            4 => {
                let epoch = known.key.as_ref().map_or(0, |bytes| u32::from(bytes[11]) + 1);
                wireguard::key::Key::load(&data, epoch, &SystemRandom::new()).expect("a key");
                after.key = fs::read(data.join("wireguard.key")).ok();
            }
            _ => {
                let bodies = Bodies::plain(&self.run.path().join(format!("{}", self.boots)));
                let mut tasks: Tasks = Vec::new();
                for _ in 0..chance.u8(..4) {
                    let number = chance.u128(1..6);
                    let contents: Vec<u128> = if chance.bool() { vec![number] } else { Vec::new() };
                    for content in &contents {
                        let bytes = vec![7; 100 * chance.usize(1..20)];
                        let total = u32::try_from(bytes.len()).expect("small");
                        let part = BodyPart { key: key(*content), total, offset: 0, bytes };
                        bodies.take(&part).expect("room");
                    }
                    let work = work(&"x".repeat(chance.usize(1..2000)), &contents);
                    tasks.push((TaskId::from_bits(chance.u128(1..1000)), Rc::new(work)));
                }
                tasks.sort_unstable_by_key(|(id, _)| *id);
                tasks.dedup_by_key(|(id, _)| *id);
                let ids: BTreeSet<u128> = tasks.iter().map(|(id, _)| id.bits()).collect();
                let kept = journal.save(identity.node.bits(), tasks, &self.network, &bodies);
                assert!(smol::block_on(kept), "{:?}", journal.fault());
                after.journal = Some((identity.node, ids)).filter(|(_, ids)| !ids.is_empty());
            }
        }
        after.identity = turn_of(&data);
        after
    }
}

/// What is on the disk, while nothing breaks.
fn turn_of(data: &Path) -> Option<(NodeId, String)> {
    let identity = Turn::take(data).expect("nobody else").load().expect("whole")?;
    Some((identity.node, text(&identity)))
}

/// Whether this may be found when the power went while `before` became `after`.
fn check(found: &Known, before: &Known, after: &Known) -> Result<(), String> {
    let fail = |what: &str| Err(format!("{what}\nfound {found:?}\nof {before:?}\nand {after:?}"));
    if found.identity != before.identity && found.identity != after.identity {
        return fail("the identity");
    }
    if found.places != before.places && found.places != after.places {
        return fail("where managers are");
    }
    if found.key != before.key && found.key != after.key {
        return fail("the key for encrypted networks");
    }
    let node = |known: &Known| known.identity.as_ref().map(|(node, _)| *node);
    // A key goes with the node it was made for.
    if found.key.is_some() && found.key == before.key && node(found).is_some() && node(found) != node(before) {
        return fail("the key of another node");
    }
    let counts = |known: &Known| known.journal.clone().filter(|(owner, _)| Some(*owner) == node(found));
    if found.journal != counts(before) && found.journal != counts(after) {
        return fail("the journal");
    }
    Ok(())
}

fn life(seed: u64, cuts: u64, identities: &Rc<Vec<Identity>>) -> Result<(), String> {
    let mut chance = Rng::with_seed(seed);
    let mut agent = Agent::new(identities);
    let root = agent.root.path().to_owned();
    let mut known = None;
    for round in 0..cuts / EACH {
        let disk = Disk::read(&root).expect("a disk");
        let recording = Recording::of(&root);
        let found = agent.boot();
        if let Some((before, after)) = known.replace((found.clone(), found.clone())) {
            check(&found, &before, &after).map_err(|what| format!("seed {seed}, round {round}: {what}"))?;
        }
        // Where each state is reached; what is found at the start was there before.
        let mut states = vec![(0, found)];
        for _ in 0..chance.u8(1..4) {
            let last = states.last().expect("one").1.clone();
            let after = agent.act(&last, &mut chance);
            states.push((recording.count(), after));
        }
        let steps = recording.steps();
        drop(recording);
        for cut in 0..EACH {
            let at = chance.usize(..=steps.len());
            let done = states.partition_point(|(end, _)| *end <= at) - 1;
            let (before, after) = (&states[done].1, states.get(done + 1).map_or(&states[done].1, |(_, after)| after));
            let mut disk = disk.clone();
            steps[..at].iter().for_each(|step| disk.apply(step));
            disk.cut(&mut chance);
            disk.write(&root).expect("a disk");
            if before.has_left && before == after {
                let left: Vec<_> = fs::read_dir(root.join("data")).expect("there").flatten().collect();
                let left: Vec<_> =
                    left.iter().map(fs::DirEntry::file_name).filter(|name| name != "agent.lock").collect();
                if !left.is_empty() {
                    return Err(format!("seed {seed}, round {round}: the board left, and {left:?} is there"));
                }
            }
            if cut + 1 == EACH {
                // The next round starts with it: also what the agent's start does may be cut off.
                known = Some((before.clone(), after.clone()));
            } else {
                let found = agent.boot();
                check(&found, before, after).map_err(|what| {
                    format!("seed {seed}, round {round}, cut at {at} of {}: {what}\n{steps:?}", steps.len())
                })?;
            }
        }
    }
    Ok(())
}

#[test]
fn nothing_that_was_done_is_lost_and_nothing_is_half_there() {
    std::thread::scope(|threads| {
        let lives = (0..2).map(|thread| {
            threads.spawn(move || {
                let identities = Rc::new((1..4).map(identity).collect());
                (0..LIVES / 2).try_for_each(|life| self::life(2 * life + thread, CUTS / LIVES, &identities))
            })
        });
        for life in lives.collect::<Vec<_>>() {
            life.join().expect("no panic").unwrap_or_else(|what| panic!("{what}"));
        }
    });
}
