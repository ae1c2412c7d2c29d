//! Spans of time as people write them to Docker's programs: `1m30s`, `300ms`, `1.5h`. Pure.

/// `1m30s`, `300ms`, `1.5h`, `0` → nanoseconds.
///
/// # Errors
/// In words: negative ones, too.
pub(crate) fn parse(text: &str) -> Result<i64, String> {
    check_sign(text)?;
    let expected = || format!("\"{text}\" is not a duration; expected for example 10s, 1m30s or 300ms");
    if text == "0" {
        return Ok(0);
    }
    let mut total: u128 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let split = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(expected)?;
        let (number, tail) = rest.split_at(split);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let scale = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(expected()),
        };
        total = decimal(number, scale).and_then(|part| total.checked_add(part)).ok_or_else(expected)?;
        rest = tail;
    }
    if text.is_empty() {
        return Err(expected());
    }
    i64::try_from(total).map_err(|_| format!("\"{text}\" is too long"))
}

/// Refuses a number below zero by Docker's words.
///
/// # Errors
/// In words.
pub(crate) fn check_sign(text: &str) -> Result<(), String> {
    let number = text.strip_prefix('-').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit() || c == '.'));
    if number.is_some() { Err(format!("\"{text}\": a duration cannot be negative")) } else { Ok(()) }
}

/// `digits[.digits]` times `scale`, rounded down; `None` when it is not a number or overflows.
fn decimal(text: &str, scale: u64) -> Option<u128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 18 {
        return None;
    }
    let digits = |text: &str| -> Option<u128> {
        if text.is_empty() {
            return Some(0);
        }
        text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
    };
    let places = u32::try_from(fraction.len()).ok()?;
    let part = digits(fraction)? * u128::from(scale) / 10u128.pow(places);
    digits(whole)?.checked_mul(u128::from(scale))?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_ones_are_told_so() {
        for text in ["-5s", "-5", "-1.5h", "-.5s"] {
            assert_eq!(parse(text), Err(format!("\"{text}\": a duration cannot be negative")));
        }
        for text in ["-", "--5s", "-x", "--name"] {
            assert!(parse(text).is_err_and(|why| why.contains("is not a duration")), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, want) in [
            ("10s", Some(10_000_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("300ms", Some(300_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            ("5us", Some(5_000)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("10", None),
            ("", None),
            ("s", None),
            ("-5s", None),
            ("1d", None),
            ("99999999999h", None),
        ] {
            assert_eq!(parse(text).ok(), want, "{text}");
        }
    }
}
