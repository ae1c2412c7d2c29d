//! Cuts what a program writes into lines, with bounded memory. Pure.

use crate::limits::LOG_PIECE_BYTES_MAX;

/// One output of a container.
#[derive(Debug, Default)]
pub struct Lines {
    /// A line that has not ended yet: at most [`LOG_PIECE_BYTES_MAX`].
    held: Vec<u8>,
}

impl Lines {
    /// Takes what was read; calls `emit` for each line, without its newline and with `true`, and for each piece of
    /// one that is too long, with `false`.
    pub fn take(&mut self, mut bytes: &[u8], mut emit: impl FnMut(&[u8], bool)) {
        while !bytes.is_empty() {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let mut part = &bytes[..end.unwrap_or(bytes.len())];
            while self.held.len() + part.len() > LOG_PIECE_BYTES_MAX {
                let (now, later) = part.split_at(LOG_PIECE_BYTES_MAX - self.held.len());
                self.give(now, false, &mut emit);
                part = later;
            }
            match end {
                Some(end) => {
                    self.give(part, true, &mut emit);
                    bytes = &bytes[end + 1..];
                }
                None => {
                    self.held.extend_from_slice(part);
                    return;
                }
            }
        }
    }

    /// The program has closed it: what it did not end is a piece.
    pub fn end(&mut self, mut emit: impl FnMut(&[u8], bool)) {
        if !self.held.is_empty() {
            self.give(&[], false, &mut emit);
        }
    }

    fn give(&mut self, part: &[u8], ends: bool, emit: &mut impl FnMut(&[u8], bool)) {
        if self.held.is_empty() {
            return emit(part, ends);
        }
        self.held.extend_from_slice(part);
        emit(&self.held, ends);
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(reads: &[&[u8]]) -> Vec<(Vec<u8>, bool)> {
        let (mut lines, mut got) = (Lines::default(), Vec::new());
        for read in reads {
            lines.take(read, |said, ends| got.push((said.to_vec(), ends)));
            assert!(lines.held.len() <= LOG_PIECE_BYTES_MAX);
        }
        lines.end(|said, ends| got.push((said.to_vec(), ends)));
        got
    }

    #[track_caller]
    fn check(reads: &[&[u8]], want: &[(&[u8], bool)]) {
        let want: Vec<_> = want.iter().map(|(said, ends)| (said.to_vec(), *ends)).collect();
        assert_eq!(cut(reads), want);
    }

    #[test]
    fn lines_and_pieces() {
        check(&[b""], &[]);
        check(&[b"a\nb\n"], &[(b"a", true), (b"b", true)]);
        check(&[b"a", b"b\n\nc"], &[(b"ab", true), (b"", true), (b"c", false)]);
        check(&[b"a\r\n"], &[(b"a\r", true)]);
        let long = vec![b'x'; LOG_PIECE_BYTES_MAX];
        check(&[&long, b"\n"], &[(&long, true)]);
        check(&[&long, b"yz\n"], &[(&long, false), (b"yz", true)]);
        check(&[&long, &long, &long], &[(&long, false), (&long, false), (&long, false)]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost(reads in proptest::collection::vec(
            (proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..40), 0..9000_usize), 0..8
        )) {
            let reads: Vec<Vec<u8>> = reads.into_iter().map(|(mut bytes, longer)| {
                bytes.extend(std::iter::repeat_n(b'x', longer));
                bytes
            }).collect();
            let all: Vec<u8> = reads.concat();
            let got = cut(&reads.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let again: Vec<u8> = got.iter().flat_map(|(said, ends)| {
                let mut said = said.clone();
                said.extend(ends.then_some(b'\n'));
                said
            }).collect();
            prop_assert_eq!(again, all);
            prop_assert!(got.iter().all(|(said, _)| said.len() <= LOG_PIECE_BYTES_MAX && !said.contains(&b'\n')));
        }
    }
}
