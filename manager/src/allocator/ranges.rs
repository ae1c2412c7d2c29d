//! A set of numbers as the ranges they form: long runs cost one entry, and every question O(log ranges).

use imbl::OrdMap;

/// A persistent set of numbers. Equal sets are equal values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges {
    /// First and last number of each range; ranges neither overlap nor touch.
    spans: OrdMap<u32, u32>,
    len: u64,
}

impl Ranges {
    /// How many numbers are in it.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn span(&self, number: u32) -> Option<(u32, u32)> {
        let (first, last) = self.spans.get_prev(&number)?;
        (*last >= number).then_some((*first, *last))
    }

    /// Whether the number is in it.
    pub fn contains(&self, number: u32) -> bool {
        self.span(number).is_some()
    }

    /// The first number from here on that is not in it.
    pub fn next_free(&self, from: u32) -> Option<u32> {
        match self.span(from) {
            None => Some(from),
            Some((_, last)) => last.checked_add(1),
        }
    }

    /// The last number of the first range that has one of these; none: all are free.
    pub fn blocker(&self, first: u32, last: u32) -> Option<u32> {
        if let Some((_, end)) = self.span(first) {
            return Some(end);
        }
        self.spans.get_next(&first).filter(|(start, _)| **start <= last).map(|(_, end)| *end)
    }

    /// Adds a number; whether it was not in it.
    pub fn insert(&mut self, number: u32) -> bool {
        if self.contains(number) {
            return false;
        }
        self.join(number, number);
        true
    }

    /// Adds all numbers from `first` to `last`.
    pub fn insert_span(&mut self, first: u32, last: u32) {
        let mut from = first;
        while let Some(free) = self.next_free(from).filter(|free| *free <= last) {
            let next = self.spans.get_next(&free).map(|(start, _)| *start).filter(|start| *start <= last);
            let end = next.map_or(last, |start| start - 1);
            self.join(free, end);
            if end == last {
                return;
            }
            from = end;
        }
    }

    /// Adds numbers none of which is in it.
    fn join(&mut self, first: u32, last: u32) {
        self.len += u64::from(last - first) + 1;
        let before = first.checked_sub(1).and_then(|number| self.span(number));
        let after = last.checked_add(1).and_then(|number| self.span(number));
        if let Some((start, _)) = after {
            self.spans.remove(&start);
        }
        let start = before.map_or(first, |(start, _)| start);
        self.spans.insert(start, after.map_or(last, |(_, end)| end));
    }

    /// Takes a number out; whether it was in it.
    pub fn remove(&mut self, number: u32) -> bool {
        let Some((first, last)) = self.span(number) else { return false };
        self.len -= 1;
        if first == number {
            self.spans.remove(&first);
        } else {
            self.spans.insert(first, number - 1);
        }
        if number < last {
            self.spans.insert(number + 1, last);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn list(ranges: &Ranges) -> Vec<(u32, u32)> {
        ranges.spans.iter().map(|(first, last)| (*first, *last)).collect()
    }

    #[test]
    fn bounds() {
        let mut all = Ranges::default();
        all.insert_span(1, u32::MAX);
        assert_eq!((all.next_free(0), all.next_free(1), all.len()), (Some(0), None, u64::from(u32::MAX)));
        assert!(all.insert(0) && !all.insert(u32::MAX));
        assert_eq!((list(&all), all.next_free(0)), (vec![(0, u32::MAX)], None));
        assert!(all.remove(u32::MAX) && all.remove(0));
        assert_eq!(all.next_free(5), Some(u32::MAX));
    }

    #[test]
    fn blockers() {
        let mut taken = Ranges::default();
        taken.insert_span(10, 19);
        taken.insert_span(30, 39);
        taken.insert_span(15, 32);
        assert_eq!(list(&taken), [(10, 39)]);
        taken.insert_span(50, 59);
        for (span, want) in
            [((0, 9), None), ((0, 10), Some(39)), ((39, 60), Some(39)), ((40, 49), None), ((45, 50), Some(59))]
        {
            assert_eq!(taken.blocker(span.0, span.1), want, "{span:?}");
        }
    }

    proptest! {
        #[test]
        fn it_is_a_set(moves in proptest::collection::vec((0..3u8, 0..40u32, 0..8u32), 0..80)) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for (what, number, more) in moves {
                match what {
                    0 => assert_eq!(ranges.insert(number), model.insert(number)),
                    1 => assert_eq!(ranges.remove(number), model.remove(&number)),
                    _ => {
                        ranges.insert_span(number, number + more);
                        model.extend(number..=number + more);
                    }
                }
                assert_eq!(ranges.len(), model.len() as u64);
                for number in 0..50 {
                    assert_eq!(ranges.contains(number), model.contains(&number));
                    assert_eq!(ranges.next_free(number), (number..).find(|n| !model.contains(n)));
                }
                let mut again = Ranges::default();
                model.iter().for_each(|number| assert!(again.insert(*number)));
                assert_eq!(&again, &ranges);
            }
        }
    }
}
