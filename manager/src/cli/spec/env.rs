//! Environment of a container: `KEY=VALUE` lists and files. Pure.

use super::super::error::CliError;

/// Looks a variable of the caller's own environment up.
pub(crate) type Lookup = fn(&str) -> Option<String>;

/// Files first, then flags; a later value replaces an earlier one in its place.
///
/// A flag without `=` takes the caller's value, or stays a bare name; a line of a file without `=`
/// is dropped when the caller has no such variable.
pub(crate) fn merge(files: &[(String, String)], flags: &[String], lookup: Lookup) -> Result<Vec<String>, CliError> {
    let mut list = Vec::new();
    for (path, text) in files {
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let name = key(line);
            if name.is_empty() || name.contains(char::is_whitespace) {
                let (number, word) = (number + 1, first_word(name));
                return Err(CliError::Refused(format!(
                    "{path}, line {number}: \"{word} …\" is not KEY=VALUE (a key has no blanks)"
                )));
            }
            if line.contains('=') {
                put(&mut list, line.to_owned());
            } else if let Some(value) = lookup(name) {
                put(&mut list, format!("{name}={value}"));
            }
        }
    }
    for flag in flags {
        put(&mut list, resolve(flag, lookup)?);
    }
    Ok(list)
}

/// One `--env` value, its bare name completed from the caller's environment.
pub(crate) fn resolve(flag: &str, lookup: Lookup) -> Result<String, CliError> {
    if key(flag).is_empty() {
        return Err(CliError::Usage(format!("invalid environment variable: \"{flag}\" has no name")));
    }
    if flag.contains('=') {
        return Ok(flag.to_owned());
    }
    Ok(lookup(flag).map_or_else(|| flag.to_owned(), |value| format!("{flag}={value}")))
}

/// Replaces the entry of the same name, or appends.
pub(crate) fn put(list: &mut Vec<String>, entry: String) {
    match list.iter_mut().find(|old| key(old) == key(&entry)) {
        Some(old) => *old = entry,
        None => list.push(entry),
    }
}

/// What may be shown of a line that is no variable: the rest may be a secret.
pub(crate) fn first_word(name: &str) -> &str {
    name.split_whitespace().next().unwrap_or_default()
}

/// The name in `NAME=VALUE`.
pub(crate) fn key(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(key, _)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        (name == "HOME").then(|| "/root".to_owned())
    }

    #[track_caller]
    fn check(file: &str, flags: &[&str], want: Result<&[&str], &str>) {
        let flags: Vec<String> = flags.iter().map(|s| (*s).to_owned()).collect();
        match (merge(&[("f".to_owned(), file.to_owned())], &flags, lookup), want) {
            (Ok(got), Ok(want)) => assert_eq!(got, want),
            (Err(got), Err(want)) => assert!(got.to_string().contains(want), "{got}"),
            (got, want) => panic!("{got:?} instead of {want:?}"),
        }
    }

    #[test]
    fn files_and_flags() {
        check("", &["A=1", "B=x=y", "A=2"], Ok(&["A=2", "B=x=y"]));
        check("# c\n\n  A=1 \nHOME\nNONE\n", &["B=2", "A=3"], Ok(&["A=3", "HOME=/root", "B=2"]));
        check("\u{feff}A=1\r\n", &["HOME", "NONE"], Ok(&["A=1", "HOME=/root", "NONE"]));
        check("A B=1", &[], Err("f, line 1"));
        check("=1", &[], Err("f, line 1"));
        check("export PASSWORD=hunter2", &[], Err("f, line 1: \"export …\" is not KEY=VALUE"));
        check("PASSWORD: hunter2", &[], Err("f, line 1: \"PASSWORD: …\" is not KEY=VALUE"));
        check("", &["=1"], Err("has no name"));
    }
}
