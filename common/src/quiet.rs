//! Log lines that others cause: one per cause and minute, so that nobody fills the log by talking to us.
//!
//! In: a key (who and why), the time. Out: whether to say it, and how often it was left out before. Keeps at most as
//! many keys as it was told.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Mono;

/// How long a cause is not told again.
pub const QUIET_FOR: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub struct Quiet<K> {
    keys_max: usize,
    keys: BTreeMap<K, Said>,
}

#[derive(Debug)]
struct Said {
    at: Mono,
    /// How often since.
    left_out: u64,
}

impl<K: Ord> Quiet<K> {
    /// Nothing was said yet.
    pub const fn new(keys_max: usize) -> Self {
        Self { keys_max, keys: BTreeMap::new() }
    }

    /// Whether to say it now: how often it was left out since it was said last. `None`: it is left out.
    pub fn judge(&mut self, key: K, now: Mono) -> Option<u64> {
        if let Some(said) = self.keys.get_mut(&key) {
            if now.since(said.at) < QUIET_FOR {
                said.left_out += 1;
                return None;
            }
            said.at = now;
            return Some(std::mem::take(&mut said.left_out));
        }
        if self.keys.len() >= self.keys_max {
            self.keys.retain(|_, said| now.since(said.at) < QUIET_FOR);
        }
        if self.keys.len() >= self.keys_max {
            return None;
        }
        self.keys.insert(key, Said { at: now, left_out: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono::default() + Duration::from_secs(seconds)
    }

    #[test]
    fn one_a_minute_and_cause() {
        let mut quiet = Quiet::new(2);
        assert_eq!(quiet.judge("a", at(1)), Some(0));
        for second in 1..61 {
            assert_eq!(quiet.judge("a", at(second)), None);
        }
        assert_eq!(quiet.judge("b", at(2)), Some(0));
        assert_eq!(quiet.judge("c", at(3)), None, "there is no room");
        assert_eq!(quiet.judge("a", at(61)), Some(60));
        assert_eq!(quiet.judge("c", at(62)), Some(0), "the second was forgotten");
        assert_eq!(quiet.judge("a", at(121)), Some(0));
        assert_eq!(quiet.keys.len(), 2);
    }
}
