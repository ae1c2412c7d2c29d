//! Who gets which generic resources. Pure.
//!
//! In: what a node has, what its tasks hold, what a task asks for. Out: what is free, and what it is granted: the
//! first names in order, so that the same view always grants the same.

use std::collections::{BTreeMap, BTreeSet};

use racimo_common::object::{Generic, Generics};

/// What a task asks for, by kind.
pub type Ask = BTreeMap<String, u64>;

/// What is left of what a node has when the grants in `held` are taken away.
pub fn free<'a>(has: &Generics, held: impl IntoIterator<Item = &'a Generics>) -> Generics {
    let mut free = has.clone();
    for grant in held {
        take(&mut free, grant);
    }
    free
}

/// Takes a grant away. False: not all of it was there (the node has less than it once had).
pub fn take(free: &mut Generics, grant: &Generics) -> bool {
    let mut whole = true;
    for (kind, taken) in grant {
        whole &= match (free.get_mut(kind), taken) {
            (Some(Generic::Count(left)), Generic::Count(count)) => {
                let enough = *left >= *count;
                *left = left.saturating_sub(*count);
                enough
            }
            // Each is taken, although one may be missing.
            (Some(Generic::Named(left)), Generic::Named(names)) => {
                names.iter().filter(|name| !left.remove(*name)).count() == 0
            }
            (Some(Generic::Count(_)), Generic::Named(_)) | (Some(Generic::Named(_)), Generic::Count(_)) | (None, _) => {
                false
            }
        };
    }
    whole
}

/// How many of a kind there are.
pub fn count(generics: &Generics, kind: &str) -> u64 {
    match generics.get(kind) {
        None => 0,
        Some(Generic::Count(count)) => *count,
        Some(Generic::Named(names)) => names.len() as u64,
    }
}

/// Grants what is asked for, and takes it away; none, and nothing taken, if there is not enough.
pub fn grant(free: &mut Generics, ask: &Ask) -> Option<Generics> {
    if ask.iter().any(|(kind, &want)| count(free, kind) < want) {
        return None;
    }
    let mut granted = Generics::new();
    for (kind, &want) in ask.iter().filter(|(_, want)| **want > 0) {
        let part = match free.get_mut(kind)? {
            Generic::Count(left) => {
                *left -= want;
                Generic::Count(want)
            }
            Generic::Named(left) => {
                let names: BTreeSet<String> =
                    left.iter().take(usize::try_from(want).unwrap_or(usize::MAX)).cloned().collect();
                left.retain(|name| !names.contains(name));
                Generic::Named(names)
            }
        };
        granted.insert(kind.clone(), part);
    }
    Some(granted)
}

/// Whether a grant is what was asked for: no more, no less.
pub fn answers(granted: &Generics, ask: &Ask) -> bool {
    let asked = ask.iter().filter(|(_, want)| **want > 0);
    granted.len() == asked.clone().count() && asked.into_iter().all(|(kind, want)| count(granted, kind) == *want)
}

#[cfg(test)]
mod tests {
    use racimo_common::object::{generic_variables, parse_generics};

    use super::*;

    fn generics(text: &str) -> Generics {
        parse_generics(text.split_whitespace()).expect("terms")
    }

    fn ask(text: &str) -> Ask {
        generics(text).keys().map(|kind| (kind.clone(), count(&generics(text), kind))).collect()
    }

    /// What a node has, what tasks hold, what another asks for; what it gets, and what is left then.
    #[track_caller]
    fn check(has: &str, held: &[&str], asked: &str, want: Option<(&str, &str)>) {
        let held: Vec<Generics> = held.iter().map(|text| generics(text)).collect();
        let mut left = free(&generics(has), &held);
        let before = left.clone();
        let granted = grant(&mut left, &ask(asked));
        match (&granted, want) {
            (Some(granted), Some((grant, rest))) => {
                assert_eq!((granted, &left), (&generics(grant), &generics(rest)));
                assert!(answers(granted, &ask(asked)));
                assert!(take(&mut before.clone(), granted));
            }
            (None, None) => assert_eq!(left, before, "nothing is taken"),
            (got, want) => panic!("{:?}, expected {want:?}", got.as_ref().map(generic_variables)),
        }
    }

    #[test]
    fn grants() {
        check("gpio=3", &[], "gpio=2", Some(("gpio=2", "gpio=1")));
        check("gpio=3", &["gpio=2"], "gpio=2", None);
        check("gpio=3", &["gpio=2", "gpio=1"], "gpio=0", Some(("", "gpio=0")));
        // The first names in order.
        let modems = "modem=c modem=a modem=b";
        check(modems, &["modem=a"], "modem=1", Some(("modem=b", "modem=c")));
        check(modems, &["modem=b"], "modem=3", None);
        check(modems, &[], "gpio=1", None);
        check("gpio=4 modem=a modem=b", &[], "gpio=4 modem=1", Some(("gpio=4 modem=a", "gpio=0 modem=b")));
        // All or nothing.
        check("gpio=4 modem=a modem=b", &[], "gpio=1 modem=3", None);
    }

    #[test]
    fn a_node_may_have_less_than_it_had() {
        // What it no longer has is not free, and takes nothing else away.
        let mut left = generics("gpio=1 modem=a modem=b");
        assert!(!take(&mut left, &generics("gpio=2")));
        assert!(!take(&mut left, &generics("modem=z modem=a")));
        assert_eq!(left, generics("gpio=0 modem=b"));
        // Numbers became names.
        assert!(!take(&mut left, &generics("modem=1")));
        assert!(!take(&mut left, &generics("disk=1")));
        assert_eq!(left, generics("gpio=0 modem=b"));
    }

    #[test]
    fn a_grant_is_what_was_asked_for() {
        let asked = ask("gpio=2 modem=1 pin=0");
        assert!(answers(&generics("gpio=2 modem=a"), &asked));
        for wrong in
            ["", "gpio=2", "gpio=1 modem=a", "gpio=3 modem=a", "gpio=2 modem=a modem=b", "gpio=2 modem=a pin=p"]
        {
            assert!(!answers(&generics(wrong), &asked), "{wrong}");
        }
    }
}
