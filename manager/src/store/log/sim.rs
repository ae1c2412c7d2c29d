//! Simulation: a log on a disk that is cut, full, failing or rotten, again and again.
//!
//! After every start: what was acknowledged is there, in order; of the batch under way a
//! prefix; nothing else, ever. The planted bugs of [`super::fault`] prove that this notices.

use std::error::Error;

use super::fault::{Fault, Rules};
use super::{CommitError, Log, Machine, OpenError, RestoreError, Sizes, fake};

const SIZES: Sizes = Sizes { segment: 6144, batch_max: 4096, reserve: 256, snapshot_after: 5000 };

/// Commands in one batch.
const BATCH_MAX: u64 = 26;

/// Remembers the numbers of the commands it got.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Toy {
    applied: Vec<u64>,
    index: u64,
    garbage: bool,
}

/// Command `number`: mostly small, so that stale records often line up, and some large.
fn command(number: u64) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    let mut filler = fastrand::Rng::with_seed(number);
    let size = match number % 8 {
        0 => filler.usize(0..600),
        _ => filler.usize(0..3),
    };
    bytes.extend(std::iter::repeat_with(|| filler.u8(..)).take(size));
    bytes
}

impl Machine for Toy {
    fn apply(&mut self, index: u64, bytes: &[u8]) {
        let number = bytes.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
        self.garbage |= command(number) != bytes || index <= self.index;
        self.applied.push(number);
        self.index = index;
    }

    fn snapshot(&self) -> Vec<u8> {
        let numbers = [self.index].into_iter().chain(self.applied.iter().copied());
        numbers.flat_map(u64::to_le_bytes).collect()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let chunks = bytes.chunks_exact(8);
        if !chunks.remainder().is_empty() || bytes.is_empty() {
            return Err(RestoreError("not a toy".into()));
        }
        let mut numbers = chunks.map(|b| u64::from_le_bytes(b.try_into().unwrap()));
        self.index = numbers.next().unwrap();
        self.applied = numbers.collect();
        Ok(())
    }
}

type ToyLog = Log<fake::Disk, Toy>;

/// One disk's life, and what is known about it from outside.
struct World {
    disk: fake::Disk,
    chance: fastrand::Rng,
    rules: Rules,
    acknowledged: Vec<u64>,
    /// The batch whose commit did not return.
    under_way: Vec<u64>,
    next: u64,
    term: u64,
}

impl World {
    fn new(seed: u64, rules: Rules) -> Self {
        World {
            disk: fake::Disk::new(seed),
            chance: fastrand::Rng::with_seed(seed),
            rules,
            acknowledged: Vec::new(),
            under_way: Vec::new(),
            next: 1,
            term: 0,
        }
    }

    /// Starts the log. `None` if a planted accident stopped that.
    fn open(&mut self) -> Result<Option<ToyLog>, String> {
        let (seed, rules) = (self.chance.u64(..), self.rules);
        match Log::open_by(self.disk.clone(), Toy::default(), seed, SIZES, rules) {
            Ok(log) => self.check(&log).map(|()| Some(log)),
            Err(error) if is_planted(&error) => Ok(None),
            Err(error) => Err(format!("start refused: {}", with_source(&error))),
        }
    }

    fn check(&mut self, log: &ToyLog) -> Result<(), String> {
        let machine = log.machine();
        if machine.garbage {
            return Err("garbage was applied".into());
        }
        let (known, more) =
            machine.applied.split_at_checked(self.acknowledged.len()).ok_or("acknowledged commands are lost")?;
        if known != self.acknowledged {
            return Err("acknowledged commands have changed".into());
        }
        if !self.under_way.starts_with(more) {
            return Err(format!("{more:?} came from nowhere"));
        }
        if log.term() <= self.term {
            return Err(format!("term {} after {}", log.term(), self.term));
        }
        self.acknowledged = machine.applied.clone();
        self.under_way.clear();
        self.term = log.term();
        Ok(())
    }

    /// Commits one batch. `false` if a planted accident stopped that.
    fn commit(&mut self, log: &mut ToyLog) -> Result<bool, String> {
        let size = match self.chance.u8(0..8) {
            0 => self.chance.u64(10..=BATCH_MAX),
            _ => self.chance.u64(1..=3),
        };
        self.commit_batch(log, size)
    }

    fn commit_batch(&mut self, log: &mut ToyLog, size: u64) -> Result<bool, String> {
        let batch: Vec<u64> = (self.next..self.next + size).collect();
        let commands: Vec<Vec<u8>> = batch.iter().map(|number| command(*number)).collect();
        if commands.iter().map(|c| c.len() + 64).sum::<usize>() > SIZES.batch_max {
            self.next += 1;
            return Ok(true);
        }
        self.next += size;
        match log.commit(&commands) {
            Ok(indexes) => {
                if indexes.last() != Some(&log.index()) || indexes.len() != batch.len() {
                    return Err(format!("{indexes:?} at index {}", log.index()));
                }
                self.acknowledged.extend(batch);
                if log.machine().applied != self.acknowledged {
                    return Err("acknowledged is not what is applied".into());
                }
                Ok(true)
            }
            Err(error @ CommitError::Broken { .. }) if is_planted(&error) => {
                self.under_way = batch;
                match log.commit(&[command(1)]) {
                    Err(CommitError::Broken { .. }) => Ok(false),
                    other => Err(format!("a broken log went on: {other:?}")),
                }
            }
            Err(error) => Err(with_source(&error)),
        }
    }

    /// Starts, commits at most `batches`, and ends with the power going.
    fn life(&mut self, batches: u64) -> Result<(), String> {
        if let Some(mut log) = self.open()? {
            for _ in 0..batches {
                if !self.commit(&mut log)? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The power goes while a large batch is written; then small ones go over its remains.
    fn tear(&mut self) -> Result<(), String> {
        if let Some(mut log) = self.open()? {
            self.disk.cut_after(1);
            self.commit_batch(&mut log, BATCH_MAX)?;
            self.disk.power_loss();
        }
        if let Some(mut log) = self.open()? {
            for _ in 0..self.chance.u8(0..8) {
                self.commit_batch(&mut log, 1)?;
            }
        }
        Ok(())
    }

    /// `lives` starts and accidents, then a start in peace. Returns how often power was cut.
    fn run(mut self, lives: u64) -> Result<u64, String> {
        let mut cuts = 0;
        for _ in 0..lives {
            match self.chance.u8(0..10) {
                // Only the process ends: the disk keeps what was written.
                0 => self.life(5)?,
                // A sync fails, the process ends, and the kernel goes on for a while.
                1 | 2 => {
                    let syncs = self.chance.u64(0..20);
                    self.disk.fail_sync_after(syncs);
                    self.life(20)?;
                    if self.chance.bool() {
                        self.life(2)?;
                    }
                }
                3 | 4 => self.tear()?,
                _ => {
                    let operations = self.chance.u64(0..60);
                    self.disk.cut_after(operations);
                    self.life(40)?;
                }
            }
            self.disk.power_loss();
            cuts += 1;
        }
        self.open()?.ok_or("an accident without a cause")?;
        Ok(cuts)
    }
}

fn is_planted(error: &(dyn Error + 'static)) -> bool {
    with_source(error).contains("(planted)")
}

fn with_source(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn fill(disk: &fake::Disk, batches: u64) -> World {
    let mut world = World::new(7, Rules::default());
    world.disk = disk.clone();
    world.life(batches).unwrap();
    world
}

#[test]
fn no_cut_loses_anything() {
    let mut cuts = 0;
    for seed in 0..1000 {
        let result = World::new(seed, Rules::default()).run(10);
        cuts += result.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    assert!(cuts >= 10_000, "{cuts}");
}

#[test]
fn every_single_operation_can_be_the_last() {
    for operations in 0.. {
        let mut world = World::new(3, Rules::default());
        world.disk.cut_after(operations);
        world.life(120).unwrap();
        let done = world.disk.totals().operations < operations;
        world.disk.power_loss();
        let log = world.open().unwrap_or_else(|e| panic!("{operations}: {e}"));
        assert!(log.is_some(), "{operations}");
        if done {
            assert!(operations > 200, "{operations} operations in all");
            return;
        }
    }
}

#[test]
fn every_planted_bug_is_found() {
    for fault in Fault::ALL {
        let mut seeds = 0..400;
        let run = |seed| World::new(seed, Rules::without(fault)).run(10);
        let found = seeds.find_map(|seed| run(seed).err().map(|error| (seed, error)));
        println!("{fault:?}: {found:?}");
        assert!(found.is_some(), "{fault:?} goes unnoticed");
    }
}

#[test]
fn full_disk_refuses_and_harms_nothing() {
    let mut refused = 0;
    for capacity in (0..60_000).step_by(611) {
        let disk = fake::Disk::new(capacity);
        disk.set_capacity(Some(capacity));
        let opened = Log::open_with(disk.clone(), Toy::default(), 1, SIZES);
        let mut log = match opened {
            Ok(log) => log,
            Err(OpenError::Full { .. }) => {
                assert!(capacity < 7000, "{capacity} is enough to start");
                disk.set_capacity(None);
                ToyLog::open_with(disk, Toy::default(), 1, SIZES).unwrap();
                continue;
            }
            Err(error) => panic!("{capacity}: {error}"),
        };
        let mut number = 0;
        while number < 2000 {
            let before = (log.machine().clone(), log.index());
            match log.commit(&[command(number)]) {
                Ok(_) => number += 1,
                Err(CommitError::Full) => {
                    assert_eq!(before, (log.machine().clone(), log.index()));
                    break;
                }
                Err(error) => panic!("{capacity}: {error}"),
            }
        }
        let is_refused = number < 2000;
        refused += u32::from(is_refused);
        // It still starts on the full disk, a few times, with all there was.
        let expected = log.machine().clone();
        for _ in 0..3 {
            drop(log);
            disk.power_loss();
            log = Log::open_with(disk.clone(), Toy::default(), 1, SIZES).unwrap();
            assert_eq!(log.machine().applied, expected.applied, "{capacity}");
        }
        disk.set_capacity(None);
        log.commit(&[command(number)]).unwrap();
    }
    assert!(refused > 5, "{refused} disks were ever full");
}

#[test]
fn a_flipped_bit_is_refused_or_costs_at_most_the_last_batch() {
    let mut refused = 0;
    for seed in 0..1500 {
        let disk = fake::Disk::new(1);
        let world = fill(&disk, 30 + seed % 25);
        let mut chance = fastrand::Rng::with_seed(seed);
        let names = super::Disk::list(&disk).unwrap();
        let name = chance.choice(names).unwrap();
        let offset = chance.u64(0..6144);
        if !disk.flip_bit(&name, offset, chance.u8(0..8)) {
            continue;
        }
        let operations = disk.totals();
        match Log::open_with(disk.clone(), Toy::default(), 1, SIZES) {
            Ok(log) => {
                let found = &log.machine().applied;
                assert!(!log.machine().garbage && world.acknowledged.starts_with(found));
                let batch = usize::try_from(BATCH_MAX).unwrap();
                let least = world.acknowledged.len() - batch;
                assert!(found.len() >= least, "{name} {offset}");
            }
            Err(OpenError::Damaged { file, .. }) => {
                assert_eq!(file, format!("fake:{name}"), "{offset}");
                assert_eq!(operations, disk.totals(), "a damaged log was changed");
                refused += 1;
            }
            Err(error) => panic!("{name} {offset}: {}", with_source(&error)),
        }
    }
    assert!(refused > 300, "{refused} refused");
}

#[test]
fn a_missing_file_is_refused() {
    let disk = fake::Disk::new(1);
    fill(&disk, 40);
    for name in super::Disk::list(&disk).unwrap() {
        let disk = fake::Disk::new(1);
        fill(&disk, 40);
        let mut start = [0];
        let file = super::Disk::open(&disk, &name).unwrap();
        super::File::read_at(&file, 0, &mut start).unwrap();
        if start == [0] {
            continue; // a spare
        }
        super::Disk::remove(&disk, &name).unwrap();
        match Log::open_with(disk, Toy::default(), 1, SIZES) {
            Err(OpenError::Damaged { .. }) => {}
            Ok(_) => panic!("{name} was not missed"),
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

#[test]
fn an_idle_log_writes_nothing() {
    let disk = fake::Disk::new(1);
    let mut log = ToyLog::open_with(disk.clone(), Toy::default(), 1, SIZES).unwrap();
    log.commit(&[command(1)]).unwrap();
    let before = disk.totals();
    assert_eq!(log.commit(&[]).unwrap(), [0; 0]);
    for _ in 0..100 {
        log.core.tick().unwrap();
        log.drive().unwrap();
    }
    assert_eq!(disk.totals(), before);
}

#[test]
fn a_log_can_move_to_another_thread() {
    fn check<T: Send + 'static>() {}
    check::<Log<super::RealDisk, Toy>>();
}

#[test]
fn one_batch_costs_one_write_and_one_sync() {
    let disk = fake::Disk::new(1);
    let mut log = ToyLog::open(disk.clone(), Toy::default(), 1).unwrap();
    let before = disk.totals();
    let commands: Vec<_> = (1..50).map(command).collect();
    let size: usize = commands.iter().map(Vec::len).sum();
    log.commit(&commands).unwrap();
    let after = disk.totals();
    assert_eq!(after.operations - before.operations, 2);
    assert_eq!(after.syncs - before.syncs, 1);
    let overhead = after.bytes_written - before.bytes_written - size as u64;
    assert!(overhead < 49 * 20 + 20, "{overhead} bytes beside the commands");
}

#[test]
fn what_does_not_fit_is_refused() {
    let disk = fake::Disk::new(1);
    let mut log = ToyLog::open_with(disk.clone(), Toy::default(), 1, SIZES).unwrap();
    let before = disk.totals();
    let large = log.commit(&[vec![1; SIZES.batch_max]]).unwrap_err();
    assert!(matches!(large, CommitError::TooLarge { bytes_max: 4096, .. }));
    let empty = log.commit(&[vec![1], vec![]]).unwrap_err();
    assert!(matches!(empty, CommitError::Empty { position: 1 }));
    assert_eq!(disk.totals(), before);

    let mut log = ToyLog::open(fake::Disk::new(1), Toy::default(), 1).unwrap();
    let largest = crate::limits::LOG_BATCH_BYTES_MAX - crate::limits::LOG_COMMAND_OVERHEAD_BYTES;
    let largest = usize::try_from(largest).unwrap();
    for _ in 0..3 {
        log.commit(&[vec![1; largest]]).unwrap();
    }
    log.commit(&[vec![1; largest + 1]]).unwrap_err();
}

/// Counts commands: its snapshot does not grow.
#[derive(Default)]
struct Count(u64);

impl Machine for Count {
    fn apply(&mut self, _: u64, _: &[u8]) {
        self.0 += 1;
    }

    fn snapshot(&self) -> Vec<u8> {
        self.0.to_le_bytes().to_vec()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let bytes = bytes.try_into().map_err(|_| RestoreError("not a count".into()))?;
        self.0 = u64::from_le_bytes(bytes);
        Ok(())
    }
}

#[test]
fn segments_are_recycled() {
    let disk = fake::Disk::new(1);
    let mut log = Log::open_with(disk.clone(), Count(0), 1, SIZES).unwrap();
    for _ in 0..2000 {
        log.commit(&[command(8)]).unwrap();
    }
    let names = super::Disk::list(&disk).unwrap();
    assert!(names.len() <= 4, "{names:?}");
    disk.power_loss();
    let log = Log::open_with(disk, Count(0), 1, SIZES).unwrap();
    assert_eq!(log.machine().0, 2000);
}

#[test]
fn a_group_is_not_opened_as_a_group_of_one() {
    let disk = fake::Disk::new(1);
    let snapshot = super::first_snapshot(vec![1, 2, 3], &Toy::default());
    let (mut wal, _) = super::Wal::open(disk.clone(), SIZES, 1, Rules::default()).expect("an empty disk");
    wal.save_snapshot(1, &snapshot).unwrap();
    let refused = Log::open_with(disk, Toy::default(), 1, SIZES).err().unwrap();
    assert!(matches!(refused, OpenError::NotSole { me: 1, voters, .. } if voters == [1, 2, 3]));
}
