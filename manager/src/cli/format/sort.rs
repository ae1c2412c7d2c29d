//! The order in which people expect names: `web2` before `web10`.

use std::cmp::Ordering;

/// Compares names so that runs of digits count as numbers.
pub(crate) fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let (l, r) = (digits(left), digits(right));
        if l > 0 && r > 0 {
            let (x, y) = (left[..l].trim_start_matches('0'), right[..r].trim_start_matches('0'));
            match x.len().cmp(&y.len()).then_with(|| x.cmp(y)) {
                Ordering::Equal => (left, right) = (&left[l..], &right[r..]),
                decided @ (Ordering::Less | Ordering::Greater) => return decided,
            }
            continue;
        }
        match (left.chars().next(), right.chars().next()) {
            (Some(x), Some(y)) if x == y => {
                (left, right) = (&left[x.len_utf8()..], &right[y.len_utf8()..]);
            }
            // Ties such as `a01` and `a1` are broken by the plain order.
            (None, None) => return a.cmp(b),
            (x, y) => return x.cmp(&y),
        }
    }
}

fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_inside_names() {
        let mut names = ["web10", "web2", "web", "db1", "web02", "web2a", "ä1"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["db1", "web", "web02", "web2", "web2a", "web10", "ä1"]);
    }
}
