//! Generic resources: what a board offers beside CPU and memory, by kind, as a number or by name.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::limits::{GENERIC_KINDS_MAX, GENERIC_NAME_BYTES_MAX, GENERIC_NAMES_MAX};

/// Generic resources of one kind: what a board has, or what a task was granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Generic {
    /// So many, all alike.
    Count(u64),
    /// Each with a name: `/dev/ttyUSB0`.
    Named(BTreeSet<String>),
}

/// Generic resources by kind (`gpio`, `modem`).
pub type Generics = BTreeMap<String, Generic>;

/// Why a list of generic resources makes no sense. Docker's words where it has some.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadGeneric {
    /// No `KIND=VALUE`.
    #[error("could not parse GenericResource: incorrect term {0}, missing '=' or malformed expression")]
    Term(String),
    /// Several values of one kind, and one is a number.
    #[error("could not parse GenericResource: mixed discrete and named resources in expression '{kind}=[{values}]'")]
    Mixed {
        /// The kind.
        kind: String,
        /// Its values.
        values: String,
    },
    /// Fewer than none.
    #[error("could not parse GenericResource: cannot ask for negative resource {0}")]
    Negative(String),
    /// Not the name of a kind.
    #[error(
        "{0:?} is not a kind of generic resources: expected letters, digits, '_', '.' and '-', beginning with a \
         letter or digit, at most {GENERIC_NAME_BYTES_MAX}"
    )]
    Kind(String),
    /// Not a name: tasks get several of them joined by commas.
    #[error(
        "{name:?} is not the name of a generic resource ({kind}): expected 1 to {GENERIC_NAME_BYTES_MAX} bytes \
         without blanks, commas and '='"
    )]
    Name {
        /// Its kind.
        kind: String,
        /// The name.
        name: String,
    },
    /// The same name again.
    #[error("the generic resource {kind}={name} is there twice")]
    Twice {
        /// Its kind.
        kind: String,
        /// The name.
        name: String,
    },
    /// Too many of them.
    #[error("more than {GENERIC_KINDS_MAX} kinds of generic resources, or {GENERIC_NAMES_MAX} named ones")]
    Many,
}

/// Reads `KIND=VALUE` terms as Docker does: one number is a count, anything else are names, which are no numbers.
///
/// # Errors
/// The first term that makes no sense.
pub fn parse_generics<'a>(terms: impl IntoIterator<Item = &'a str>) -> Result<Generics, BadGeneric> {
    let mut values: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for term in terms {
        let pair = term.split_once('=').filter(|(_, value)| !value.contains('='));
        let (kind, value) = pair.ok_or_else(|| BadGeneric::Term(term.to_owned()))?;
        values.entry(kind.trim()).or_default().push(value.trim());
    }
    let mut generics = Generics::new();
    let mut names_left = GENERIC_NAMES_MAX;
    for (kind, values) in values {
        check_kind(kind)?;
        let generic = match values[..] {
            [one] if one.parse::<u64>().is_ok() => Generic::Count(one.parse().unwrap_or_default()),
            [one] if one.parse::<i64>().is_ok() => return Err(BadGeneric::Negative(kind.to_owned())),
            _ if values.iter().any(|value| value.parse::<i64>().is_ok()) => {
                return Err(BadGeneric::Mixed { kind: kind.to_owned(), values: values.join(" ") });
            }
            _ => Generic::Named(names(kind, &values)?),
        };
        if let Generic::Named(names) = &generic {
            names_left = names_left.checked_sub(names.len()).ok_or(BadGeneric::Many)?;
        }
        generics.insert(kind.to_owned(), generic);
    }
    if generics.len() > GENERIC_KINDS_MAX { Err(BadGeneric::Many) } else { Ok(generics) }
}

/// Whether this can be the name of a kind: it becomes part of a variable's.
///
/// # Errors
/// It cannot.
pub fn check_kind(kind: &str) -> Result<(), BadGeneric> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let begins = kind.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let is_kind = begins && kind.bytes().all(fine) && kind.len() <= GENERIC_NAME_BYTES_MAX;
    if is_kind { Ok(()) } else { Err(BadGeneric::Kind(kind.to_owned())) }
}

fn names(kind: &str, values: &[&str]) -> Result<BTreeSet<String>, BadGeneric> {
    let mut names = BTreeSet::new();
    for &name in values {
        let bad = |c: char| c.is_whitespace() || c.is_control() || c == ',';
        let (kind, name) = (kind.to_owned(), name.to_owned());
        if name.is_empty() || name.len() > GENERIC_NAME_BYTES_MAX || name.contains(bad) {
            return Err(BadGeneric::Name { kind, name });
        }
        if !names.insert(name.clone()) {
            return Err(BadGeneric::Twice { kind, name });
        }
    }
    Ok(names)
}

/// The variables by which a container knows what it was granted: `DOCKER_RESOURCE_GPIO=2`,
/// `DOCKER_RESOURCE_MODEM=/dev/ttyUSB0,/dev/ttyUSB1`.
pub fn generic_variables(granted: &Generics) -> Vec<String> {
    let variable = |(kind, generic): (&String, &Generic)| {
        let value = match generic {
            Generic::Count(count) => count.to_string(),
            Generic::Named(names) => names.iter().map(String::as_str).collect::<Vec<_>>().join(","),
        };
        format!("DOCKER_RESOURCE_{}={value}", kind.to_uppercase())
    };
    granted.iter().map(variable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(terms: &[&str], want: Result<&[&str], &str>) {
        let got = parse_generics(terms.iter().copied()).map(|generics| generic_variables(&generics));
        match (got, want) {
            (Ok(got), Ok(want)) => assert_eq!(got, want),
            (Err(got), Err(want)) => assert!(got.to_string().contains(want), "{got}"),
            (got, want) => panic!("{got:?}, expected {want:?}"),
        }
    }

    #[test]
    fn counts_and_names() {
        check(&[], Ok(&[]));
        check(&["gpio=2", "modem=/dev/ttyUSB0"], Ok(&["DOCKER_RESOURCE_GPIO=2", "DOCKER_RESOURCE_MODEM=/dev/ttyUSB0"]));
        check(&[" pin = b", "pin=a "], Ok(&["DOCKER_RESOURCE_PIN=a,b"]));
        check(&["pin=17", "pin=27"], Err("mixed discrete and named resources in expression 'pin=[17 27]'"));
        check(&["pin=a", "pin=2"], Err("mixed discrete and named"));
        check(&["NVIDIA-GPU=0"], Ok(&["DOCKER_RESOURCE_NVIDIA-GPU=0"]));
        check(&["gpio"], Err("incorrect term gpio, missing '=' or malformed expression"));
        check(&["gpio=a=b"], Err("incorrect term gpio=a=b"));
        check(&["gpio=-1"], Err("cannot ask for negative resource gpio"));
        check(&["=1"], Err("is not a kind"));
        check(&["a b=1"], Err("is not a kind"));
        check(&["gpio="], Err("is not the name of a generic resource (gpio)"));
        check(&["gpio=a,b"], Err("without blanks, commas"));
        check(&["gpio=a", "gpio=a"], Err("gpio=a is there twice"));
        check(&[&format!("gpio={}", "x".repeat(GENERIC_NAME_BYTES_MAX + 1))], Err("1 to 128 bytes"));
        let many: Vec<String> = (0..=GENERIC_NAMES_MAX).map(|number| format!("pin=p{number}")).collect();
        check(&many.iter().map(String::as_str).collect::<Vec<_>>(), Err("more than"));
        let many: Vec<String> = (0..=GENERIC_KINDS_MAX).map(|number| format!("k{number}=1")).collect();
        check(&many.iter().map(String::as_str).collect::<Vec<_>>(), Err("more than"));
    }
}
