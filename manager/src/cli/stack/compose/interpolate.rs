//! Variables in the values of a compose file. Pure: the environment is an argument.
//!
//! `$VAR`, `${VAR}`, `${VAR:-default}`, `${VAR-default}`, `${VAR:?error}`, `${VAR?error}`, `${VAR:+other}`,
//! `${VAR+other}`, `$$`. What stands after the operator may have variables of its own.

use super::super::super::limits::COMPOSE_TEXT_MAX;
use super::node::{Data, Fault, Node, join};

/// Looks a variable up.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Levels of `${A:-${B:-…}}`.
const NESTED_MAX: usize = 16;

/// Fills in the variables of every text below `node`.
///
/// # Errors
/// A text that is no template, or a variable that must be set.
pub(crate) fn fill(node: &mut Node, path: &str, lookup: Lookup<'_>) -> Result<(), Fault> {
    match &mut node.data {
        Data::Null | Data::Bool(_) | Data::Int(_) | Data::Float(_) => Ok(()),
        Data::List(items) => {
            items.iter_mut().enumerate().try_for_each(|(index, item)| fill(item, &format!("{path}[{index}]"), lookup))
        }
        Data::Map(entries) => {
            entries.iter_mut().try_for_each(|entry| fill(&mut entry.value, &join(path, &entry.key), lookup))
        }
        Data::Text { text, filled } => {
            if !text.contains('$') {
                return Ok(());
            }
            match substitute(text, lookup, 0) {
                Ok(new) => {
                    *filled = new != *text;
                    *text = new;
                    Ok(())
                }
                Err(what) => Err(node.fault(path, what)),
            }
        }
    }
}

/// A text with its variables filled in.
fn substitute(text: &str, lookup: Lookup<'_>, level: usize) -> Result<String, String> {
    if level > NESTED_MAX {
        return Err(format!("more than {NESTED_MAX} variables inside of each other"));
    }
    let invalid = || format!("invalid template: {text:?} (a dollar sign is written $$)");
    let mut out = String::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(tail) = rest.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix('{') {
            let end = closing(tail).ok_or_else(invalid)?;
            let name = name_of(tail).ok_or_else(invalid)?;
            let operator = &tail[name.len()..end];
            out.push_str(&braced(name, operator, lookup, level)?.ok_or_else(invalid)?);
            rest = &tail[end + 1..];
        } else {
            let name = name_of(rest).ok_or_else(invalid)?;
            out.push_str(&lookup(name).unwrap_or_default());
            rest = &rest[name.len()..];
        }
        if out.len() > COMPOSE_TEXT_MAX {
            return Err(format!("with its variables it is longer than {COMPOSE_TEXT_MAX} bytes"));
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// What `${name operator}` stands for; `None`: there is no such operator.
fn braced(name: &str, operator: &str, lookup: Lookup<'_>, level: usize) -> Result<Option<String>, String> {
    let value = lookup(name);
    let (rest, empty_counts) = match operator.strip_prefix(':') {
        Some(rest) => (rest, false),
        None => (operator, true),
    };
    let is_set = value.as_ref().is_some_and(|value| empty_counts || !value.is_empty());
    let deeper = |text: &str| substitute(text, lookup, level + 1);
    match rest.chars().next() {
        None if empty_counts => Ok(Some(value.unwrap_or_default())),
        Some('-') if is_set => Ok(value),
        Some('-') => deeper(&rest[1..]).map(Some),
        Some('+') if is_set => deeper(&rest[1..]).map(Some),
        Some('+') => Ok(Some(String::new())),
        Some('?') if is_set => Ok(value),
        Some('?') => Err(format!("required variable {name} is missing a value: {}", deeper(&rest[1..])?)),
        None | Some(_) => Ok(None),
    }
}

/// The name a text begins with.
fn name_of(text: &str) -> Option<&str> {
    let fits = |(index, c): (usize, char)| c == '_' || c.is_ascii_alphabetic() || index > 0 && c.is_ascii_digit();
    let end = text.char_indices().find(|next| !fits(*next)).map_or(text.len(), |(index, _)| index);
    (end > 0).then(|| &text[..end])
}

/// Where the brace that belongs to an open one stands.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    let mut chars = text.char_indices().peekable();
    while let Some((index, c)) = chars.next() {
        match c {
            '$' => match chars.peek() {
                Some((_, '{')) => {
                    open += 1;
                    chars.next();
                }
                Some((_, '$')) => {
                    chars.next();
                }
                _ => {}
            },
            '}' if open == 0 => return Some(index),
            '}' => open -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "FOO" => Some("first".to_owned()),
            "EMPTY" => Some(String::new()),
            "_a1" => Some("under".to_owned()),
            _ => None,
        }
    }

    #[track_caller]
    fn check(text: &str, want: Result<&str, &str>) {
        assert_eq!(substitute(text, &lookup, 0).as_deref().map_err(String::as_str), want, "{text}");
    }

    #[test]
    fn substitution() {
        for (text, want) in [
            ("no variable", "no variable"),
            ("$FOO", "first"),
            ("${FOO}", "first"),
            ("a-$FOO-b", "a-first-b"),
            ("$FOO:1", "first:1"),
            ("$_a1.x", "under.x"),
            ("$BAR", ""),
            ("${BAR}", ""),
            ("$$FOO", "$FOO"),
            ("$${FOO}", "${FOO}"),
            ("$$$FOO", "$first"),
            ("${BAR:-d}", "d"),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY-d}", ""),
            ("${BAR-d}", "d"),
            ("${FOO:-d}", "first"),
            ("${BAR:-}", ""),
            ("${BAR:-a b:/c}", "a b:/c"),
            ("${BAR:-${FOO}}", "first"),
            ("${BAR:-${BAZ:-x$$}}y", "x$y"),
            ("${FOO:+x}", "x"),
            ("${EMPTY:+x}", ""),
            ("${EMPTY+x}", "x"),
            ("${BAR+x}", ""),
            ("${FOO:?e}", "first"),
            ("${EMPTY?e}", ""),
        ] {
            check(text, Ok(want));
        }
    }

    #[test]
    fn refused() {
        check("${BAR:?who?}", Err("required variable BAR is missing a value: who?"));
        check("${EMPTY:?x}", Err("required variable EMPTY is missing a value: x"));
        check("${BAR?no $FOO}", Err("required variable BAR is missing a value: no first"));
        for text in ["$", "${", "${}", "${FOO", "$1", "${1}", "${FOO!}", "${FOO:}", "${ FOO}", "$ä", "${FOO:-${X}"] {
            let got = substitute(text, &lookup, 0).expect_err(text);
            assert!(got.starts_with("invalid template"), "{got}");
        }
        let deep = "${A:-".repeat(20) + &"}".repeat(20);
        assert!(substitute(&deep, &lookup, 0).expect_err("deep").contains("inside of each other"));
        let large = |name: &str| (name == "A").then(|| "x".repeat(COMPOSE_TEXT_MAX));
        assert!(substitute("$A$A", &large, 0).expect_err("large").contains("is longer than"));
    }
}
