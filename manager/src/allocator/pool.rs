//! Numbers that are given out one after the other, and may come back.

use super::ranges::Ranges;

/// Numbers from `first` to `last`. The next one given is the first free one behind the last one given, so that a
/// number that came back is not given again at once: others may remember who had it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    first: u32,
    last: u32,
    cursor: u32,
    used: Ranges,
    /// How many of the used ones were set aside and are never given.
    aside: u64,
}

/// How much of a pool is given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// So many are.
    pub used: u64,
    /// Of so many.
    pub all: u64,
}

impl Usage {
    /// How many are left.
    pub fn free(self) -> u64 {
        self.all - self.used
    }
}

impl Pool {
    /// All numbers from `first` to `last`; none if `last` is before `first`.
    pub fn new(first: u32, last: u32) -> Self {
        Self { first, last, cursor: first, used: Ranges::default(), aside: 0 }
    }

    fn holds(&self, number: u32) -> bool {
        (self.first..=self.last).contains(&number)
    }

    /// Sets a number aside: it is never given. Others than the pool's do not matter.
    pub fn set_aside(&mut self, number: u32) {
        if self.holds(number) && self.used.insert(number) {
            self.aside += 1;
        }
    }

    /// The next free number; none: all are given.
    pub fn take(&mut self) -> Option<u32> {
        let within = |number: &u32| *number <= self.last;
        let ahead = self.used.next_free(self.cursor).filter(within);
        let number = ahead.or_else(|| self.used.next_free(self.first).filter(within))?;
        self.used.insert(number);
        self.cursor = number.checked_add(1).filter(within).unwrap_or(self.first);
        Some(number)
    }

    /// Notes that a number is given; the search for the next one does not move.
    pub fn note(&mut self, number: u32) {
        if self.holds(number) {
            self.used.insert(number);
        }
    }

    /// A number comes back.
    pub fn give_back(&mut self, number: u32) {
        self.used.remove(number);
    }

    /// Whether the number is given or set aside.
    pub fn is_used(&self, number: u32) -> bool {
        self.used.contains(number)
    }

    /// How much of it is given, without what was set aside.
    pub fn usage(&self) -> Usage {
        let all = if self.first > self.last { 0 } else { u64::from(self.last - self.first) + 1 };
        Usage { used: self.used.len() - self.aside, all: all - self.aside }
    }

    /// Where the search for the next one begins.
    pub fn cursor(&self) -> u32 {
        self.cursor
    }

    /// Goes on where a stored state left off. Outside of the pool: from its first.
    pub fn resume(&mut self, cursor: u32) {
        self.cursor = if self.holds(cursor) { cursor } else { self.first };
    }

    /// Goes on half of the way around: what somebody else gave meanwhile, from where this one was, is not given soon.
    pub fn leap(&mut self) {
        if self.first > self.last {
            return;
        }
        let size = u64::from(self.last - self.first) + 1;
        let place = (u64::from(self.cursor - self.first) + size / 2) % size;
        self.cursor = u32::try_from(place).map_or(self.first, |place| self.first + place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_came_back_is_the_last_to_be_given_again() {
        let mut pool = Pool::new(2, 6);
        pool.set_aside(4);
        pool.set_aside(9);
        assert_eq!(pool.usage(), Usage { used: 0, all: 4 });
        assert_eq!([pool.take(), pool.take(), pool.take()], [Some(2), Some(3), Some(5)]);
        pool.give_back(3);
        assert_eq!(pool.take(), Some(6));
        assert_eq!(pool.take(), Some(3));
        assert_eq!((pool.take(), pool.usage()), (None, Usage { used: 4, all: 4 }));
        pool.give_back(5);
        assert_eq!((pool.take(), pool.take()), (Some(5), None));
    }

    #[test]
    fn an_empty_pool_gives_nothing() {
        let mut pool = Pool::new(1, 0);
        assert_eq!((pool.take(), pool.usage()), (None, Usage { used: 0, all: 0 }));
        let mut last = Pool::new(u32::MAX, u32::MAX);
        assert_eq!((last.take(), last.take()), (Some(u32::MAX), None));
    }
}
