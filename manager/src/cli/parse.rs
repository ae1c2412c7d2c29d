//! Values of flags: sizes, CPUs, durations, words, comma lists.
//!
//! Pure; each function takes the text and says in words what it expected. The spellings are those
//! that Docker's command line takes.

use racimo_common::units::{BadAmount, Bytes, NanoCpus};

use crate::api::convert::nanos;
use crate::ca::NODE_VALIDITY_MIN;
use crate::limits::{HEARTBEAT_MAX, HEARTBEAT_MIN};

/// A duration in nanoseconds, as the API carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nanos(pub(crate) i64);

/// `256m`, `1.5GiB`, `64` → bytes.
pub(crate) fn bytes(text: &str) -> Result<i64, String> {
    let bytes: Bytes = text.parse().map_err(|e: BadAmount| e.to_string())?;
    i64::try_from(bytes.get()).map_err(|_| format!("\"{text}\" is too large"))
}

/// `0.5` → 500,000,000 billionths of a CPU.
pub(crate) fn nano_cpus(text: &str) -> Result<i64, String> {
    let cpus: NanoCpus = text.parse().map_err(|e: BadAmount| e.to_string())?;
    i64::try_from(cpus.get()).map_err(|_| format!("\"{text}\" is too large"))
}

/// `1m30s`, `300ms`, `1.5h`, `0` → nanoseconds. Negative durations are refused.
pub(crate) fn duration(text: &str) -> Result<Nanos, String> {
    crate::duration::parse(text).map(Nanos)
}

/// `90d`, or a duration as everywhere.
pub(crate) fn days(text: &str) -> Result<Nanos, String> {
    const DAY: i64 = 24 * 60 * 60 * 1_000_000_000;
    crate::duration::check_sign(text)?;
    let Some(days) = text.strip_suffix('d') else {
        return duration(text).map_err(|_| format!("\"{text}\" is not a duration; expected for example 90d or 12h"));
    };
    let nanos = days.parse::<u32>().ok().and_then(|days| i64::from(days).checked_mul(DAY)).filter(|nanos| *nanos > 0);
    nanos.map(Nanos).ok_or_else(|| format!("\"{text}\" is not a number of days"))
}

/// How long certificates last. The API takes 0 for the default, and so do not we: it would not be what was asked for.
pub(crate) fn cert_expiry(text: &str) -> Result<Nanos, String> {
    let is_short = |expiry: &Nanos| expiry.0 < nanos(NODE_VALIDITY_MIN);
    days(text).and_then(|expiry| if is_short(&expiry) { Err("it must be at least 1h".to_owned()) } else { Ok(expiry) })
}

/// How often boards report. The API takes 0 for the default.
pub(crate) fn heartbeat(text: &str) -> Result<Nanos, String> {
    let period = duration(text)?;
    if (nanos(HEARTBEAT_MIN)..=nanos(HEARTBEAT_MAX)).contains(&period.0) {
        return Ok(period);
    }
    Err(format!("it must be from {HEARTBEAT_MIN:?} to {HEARTBEAT_MAX:?}"))
}

/// A name or id of something that may be there: anything but nothing, in one word.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let name = node(text)?;
    if name.contains(char::is_whitespace) { Err("no name has blanks in it".to_owned()) } else { Ok(name) }
}

/// The same of a node: what boards call themselves may have blanks.
pub(crate) fn node(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("a name is expected, and this is empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// A whole number: `10`, `0x10`, `0o440` or `0440` (octal), `0b1`.
pub(crate) fn uint(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let (digits, radix) = match lower.get(..2) {
        Some("0x") => (&lower[2..], 16),
        Some("0o") => (&lower[2..], 8),
        Some("0b") => (&lower[2..], 2),
        Some(_) if lower.starts_with('0') => (&lower[1..], 8),
        _ => (lower.as_str(), 10),
    };
    let number = Some(digits).filter(|digits| !digits.starts_with(['+', '-']));
    let number = number.and_then(|digits| u64::from_str_radix(digits, radix).ok());
    number.ok_or_else(|| format!("\"{text}\" is not a whole number"))
}

/// Splits a command line as a POSIX shell would: blanks separate, quotes and backslashes protect.
pub(crate) fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err(format!("a ' is never closed in: {text}")),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                            Some(c) => word.extend(['\\', c]),
                            None => return Err(format!("a \" is never closed in: {text}")),
                        },
                        Some(c) => word.push(c),
                        None => return Err(format!("a \" is never closed in: {text}")),
                    }
                }
            }
            '\\' => match chars.next() {
                Some(c) => word.get_or_insert_default().push(c),
                None => return Err(format!("nothing follows the last backslash in: {text}")),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Splits one line of comma-separated fields; a field in double quotes may hold commas.
pub(crate) fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let field = fields.last_mut().expect("starts with one field and only grows");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            '"' => return Err(format!("a quote stands in the middle of a field in: {text}")),
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    if quoted { Err(format!("a quote is never closed in: {text}")) } else { Ok(fields) }
}

/// `key=value`; a bare `key` has the empty value.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.trim().is_empty() {
        return Err(format!("\"{text}\" has no key; expected KEY=VALUE"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// `key=value` of a `--filter`; both parts are needed.
pub(crate) fn filter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_lowercase(), value.trim().to_owned())),
        _ => Err(format!("\"{text}\" is not a filter; expected KEY=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<T: PartialEq + std::fmt::Debug>(got: Result<T, String>, want: Option<T>) {
        assert_eq!(got.ok(), want);
    }

    #[test]
    fn spans() {
        const HOUR: i64 = 3_600_000_000_000;
        for (text, want) in
            [("90d", Some(90 * 24 * HOUR)), ("12h", Some(12 * HOUR)), ("0d", None), ("d", None), ("x", None)]
        {
            assert_eq!(days(text).ok(), want.map(Nanos), "{text}");
        }
        assert!(days("4294967295d").is_err() && days("-1d").is_err());
        for negative in ["-1d", "-5s"] {
            assert!(days(negative).is_err_and(|why| why.contains("cannot be negative")), "{negative}");
        }
    }

    #[test]
    fn settings_that_the_api_would_take_for_the_default() {
        const HOUR: i64 = 3_600_000_000_000;
        for (text, want) in
            [("0", None), ("0s", None), ("59m", None), ("1h", Some(HOUR)), ("90d", Some(2160 * HOUR)), ("x", None)]
        {
            assert_eq!(cert_expiry(text).ok(), want.map(Nanos), "{text}");
        }
        for (text, want) in [("0s", None), ("99ms", None), ("100ms", Some(100_000_000)), ("61s", None)] {
            assert_eq!(heartbeat(text).ok(), want.map(Nanos), "{text}");
        }
        assert!(heartbeat("0").is_err_and(|why| why == "it must be from 100ms to 60s"));
    }

    #[test]
    fn names() {
        assert_eq!(node("living room"), Ok("living room".to_owned()));
        assert!(node(" \t").is_err());
        for (text, want) in [
            ("a", Ok("a")),
            ("9f.x-_", Ok("9f.x-_")),
            ("", Err("empty")),
            (" \t", Err("empty")),
            ("a b", Err("blanks")),
            ("a\n", Err("blanks")),
        ] {
            match (name(text), want) {
                (Ok(got), Ok(want)) => assert_eq!(got, want),
                (Err(got), Err(want)) => assert!(got.contains(want), "{got}"),
                (got, want) => panic!("{text:?}: {got:?}, not {want:?}"),
            }
        }
    }

    #[test]
    fn amounts() {
        check(bytes("1.5GiB"), Some(3 << 29));
        check(bytes("9000000T"), None);
        check(bytes("-1"), None);
        check(nano_cpus("0.5"), Some(500_000_000));
        check(nano_cpus("99999999999"), None);
        check(nano_cpus("half"), None);
    }

    #[test]
    fn whole_numbers() {
        for (text, want) in [("10", 10), ("0", 0), ("0440", 0o440), ("0o17", 15), ("0X1f", 31), ("0b101", 5)] {
            check(uint(text), Some(want));
        }
        for text in ["", "-1", "+1", "x", "08", "0x", "0x-1", "1.5", "99999999999999999999"] {
            check(uint(text), None);
        }
    }

    #[test]
    fn shell_words() {
        let list = |items: &[&str]| Some(items.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        check(words("sleep 2000"), list(&["sleep", "2000"]));
        check(words("  sh -c 'echo \"a b\"'  x\\ y"), list(&["sh", "-c", "echo \"a b\"", "x y"]));
        check(words("a\"b c\\\"d\"e ''"), list(&["ab c\"de", ""]));
        check(words(""), list(&[]));
        check(words("it's"), None);
        check(words("\"open"), None);
        check(words("end\\"), None);
    }

    #[test]
    fn comma_fields() {
        let list = |items: &[&str]| Some(items.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        check(fields("type=bind,source=/a"), list(&["type=bind", "source=/a"]));
        check(fields("\"volume-opt=o=a,b\",x"), list(&["volume-opt=o=a,b", "x"]));
        check(fields("\"a\"\"b\""), list(&["a\"b"]));
        check(fields("\"a"), None);
        check(fields("a\"b"), None);
    }

    #[test]
    fn pairs() {
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        check(label("a=b=c"), pair("a", "b=c"));
        check(label("a"), pair("a", ""));
        check(label("=x"), None);
        check(filter("Name=web"), pair("name", "web"));
        check(filter("name"), None);
    }
}
