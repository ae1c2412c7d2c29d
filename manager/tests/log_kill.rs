//! Kills a process that writes the log with SIGKILL at random moments: what it had
//! acknowledged must be there, and nothing that it never wrote.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use racimo_manager::store::log::{Log, Machine, RealDisk, RestoreError, Sizes};

/// Small, so that segments and snapshots change often.
const SIZES: Sizes = Sizes { segment: 64 << 10, batch_max: 16 << 10, reserve: 1 << 10, snapshot_after: 24 << 10 };
const ROUNDS: u32 = 120;
const DIR: &str = "RACIMO_LOG_KILL_DIR";

/// Accepts command n + 1 after command n only.
#[derive(Default)]
struct Counter(u64);

fn command(number: u64) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    let size = 8 + usize::try_from(number * 37 % 400).expect("below 400");
    bytes.resize(size, number.to_le_bytes()[0]);
    bytes
}

impl Machine for Counter {
    fn apply(&mut self, _: u64, bytes: &[u8]) {
        assert_eq!(bytes, command(self.0 + 1));
        self.0 += 1;
    }

    fn snapshot(&self) -> Vec<u8> {
        // Large enough to be caught half written.
        self.0.to_le_bytes().repeat(1000)
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let first = bytes.first_chunk().ok_or_else(|| RestoreError("too short".into()))?;
        self.0 = u64::from_le_bytes(*first);
        Ok(())
    }
}

fn open(dir: &Path, seed: u64) -> Log<RealDisk, Counter> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let disk = loop {
        match RealDisk::new(dir) {
            Ok(disk) => break disk,
            // The killed process may not be gone yet.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                assert!(Instant::now() < deadline, "{} stays locked", dir.display());
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
    };
    Log::open_with(disk, Counter::default(), seed, SIZES).unwrap_or_else(|error| panic!("{error}"))
}

/// The process that is killed; in a normal run of the tests it does nothing.
#[test]
fn writer() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let mut log = open(Path::new(&dir), 1);
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        let next = log.machine().0 + 1;
        let batch: Vec<_> = (next..next + 1 + next % 5).map(command).collect();
        log.commit(&batch).unwrap();
        println!("acknowledged {}", log.machine().0);
    }
}

#[test]
fn sigkill_loses_nothing_that_was_acknowledged() {
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let dir = temp.path().join("log");
    let mut chance = fastrand::Rng::with_seed(1);
    let (mut acknowledged, mut productive) = (0, 0);
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--nocapture"])
            .env(DIR, &dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reader = std::thread::spawn(move || {
            let numbers = lines.map_while(Result::ok);
            let numbers = numbers.filter_map(|line| line.strip_prefix("acknowledged ")?.parse::<u64>().ok());
            numbers.max().unwrap_or(0)
        });
        std::thread::sleep(Duration::from_micros(chance.u64(2_000..40_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let last = reader.join().unwrap();
        productive += u32::from(last > 0);
        acknowledged = last.max(acknowledged);

        let log = open(&dir, u64::from(round));
        let found = log.machine().0;
        assert!(found >= acknowledged, "round {round}: {acknowledged} acknowledged, {found} found");
        acknowledged = found;
    }
    println!("{ROUNDS} kills, {productive} of them while writing, {acknowledged} commands");
    assert!(productive > ROUNDS / 4, "{productive} rounds wrote anything");
}
