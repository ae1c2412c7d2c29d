//! Mutated inputs without coverage: small, fast, the same for the same seed.

use fastrand::Rng;

/// Bytes that formats give a meaning to.
const TELLING: &[u8] = b"\x00\x01\x7f\x80\x90\xc0\xc1\xc4\xd9\xdc\xde\xdf\xff\n /:@.-_\"{}[],0159az";

/// How many inputs, from `RACIMO_FUZZ_CASES`.
pub(crate) fn cases(default: u64) -> u64 {
    std::env::var("RACIMO_FUZZ_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Calls `check` with inputs made from `corpus`, all of it first. `RACIMO_FUZZ_SEED` makes others; a failure
/// prints the seed and the input.
pub(crate) fn run(corpus: &[Vec<u8>], cases: u64, check: impl Fn(&[u8])) {
    let seed = std::env::var("RACIMO_FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut rng = Rng::with_seed(seed);
    for entry in corpus {
        told(seed, entry, &check);
    }
    for _ in 0..cases {
        told(seed, &input(&mut rng, corpus), &check);
    }
}

fn told(seed: u64, input: &[u8], check: &impl Fn(&[u8])) {
    /// Speaks when a check panics.
    struct Teller<'a>(u64, &'a [u8]);
    impl Drop for Teller<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("RACIMO_FUZZ_SEED={}: failed with the input b\"{}\"", self.0, self.1.escape_ascii());
            }
        }
    }
    let _teller = Teller(seed, input);
    check(input);
}

/// One input: a few mutations of an entry.
pub(crate) fn input(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = rng.choice(corpus).cloned().unwrap_or_default();
    for _ in 0..=rng.u8(0..4) {
        mutate(rng, &mut bytes, corpus);
    }
    bytes
}

fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let at = rng.usize(0..=bytes.len());
    let end = (at + rng.usize(0..32)).min(bytes.len());
    let telling = *rng.choice(TELLING).expect("it is not empty");
    match rng.u8(0..8) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(0..8),
        1 if at < bytes.len() => bytes[at] = telling,
        2 => bytes.insert(at, telling),
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(at..end)),
        5 => {
            let part = bytes[at..end].to_vec();
            bytes.splice(at..at, part);
        }
        6 => {
            let other = rng.choice(corpus).map_or(&[][..], Vec::as_slice);
            let from = rng.usize(0..=other.len());
            bytes.splice(at..end, other[from..].iter().copied().take(64));
        }
        _ => {
            let count = rng.usize(0..8);
            bytes.splice(at..end, (0..count).map(|_| rng.u8(..)).collect::<Vec<_>>());
        }
    }
}
