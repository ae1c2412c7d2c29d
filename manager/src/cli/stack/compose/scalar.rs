//! What a plain scalar means: YAML 1.2's core schema, with the older spellings that Docker's reader takes too
//! (`0440` is octal, `1_000` a number; `yes` and `on` are strings).

use super::node::Data;

/// The value of an unquoted scalar.
pub(super) fn resolve(text: &str) -> Data {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Data::Null,
        "true" | "True" | "TRUE" => return Data::Bool(true),
        "false" | "False" | "FALSE" => return Data::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Data::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Data::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Data::Float(f64::NEG_INFINITY),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Data::Text { text: text.to_owned(), filled: false };
    }
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    if let Some(number) = int(&plain) {
        return Data::Int(number);
    }
    // Rust reads `inf` and `nan` as numbers too; YAML does not.
    let is_number = plain.chars().all(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E'));
    match plain.parse() {
        Ok(number) if is_number => Data::Float(number),
        _ => Data::Text { text: text.to_owned(), filled: false },
    }
}

fn int(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x', ..] => (16, &digits[2..]),
        [b'0', b'o', ..] => (8, &digits[2..]),
        [b'0', b'b', ..] => (2, &digits[2..]),
        [b'0', _, ..] if digits.bytes().all(|b| (b'0'..=b'7').contains(&b)) => (8, &digits[1..]),
        _ => (10, digits),
    };
    let fits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_alphanumeric());
    fits.then(|| i64::from_str_radix(&format!("{sign}{digits}"), radix).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars() {
        let text = |text: &str| Data::Text { text: text.to_owned(), filled: false };
        for (plain, want) in [
            ("", Data::Null),
            ("~", Data::Null),
            ("true", Data::Bool(true)),
            ("FALSE", Data::Bool(false)),
            ("yes", text("yes")),
            ("on", text("on")),
            ("0", Data::Int(0)),
            ("12", Data::Int(12)),
            ("-12", Data::Int(-12)),
            ("+1", Data::Int(1)),
            ("0440", Data::Int(0o440)),
            ("0o440", Data::Int(0o440)),
            ("0x1F", Data::Int(31)),
            ("0b11", Data::Int(3)),
            ("1_000", Data::Int(1000)),
            ("089", Data::Int(89)),
            ("1.5", Data::Float(1.5)),
            (".5", Data::Float(0.5)),
            ("1e6", Data::Float(1e6)),
            ("12:30", text("12:30")),
            ("1.2.3.4", text("1.2.3.4")),
            ("2024-01-01", text("2024-01-01")),
            ("-", text("-")),
            ("0x", text("0x")),
            ("0x-1", text("0x-1")),
            ("infinity", text("infinity")),
            ("9223372036854775808", Data::Float(9_223_372_036_854_775_808.0)),
        ] {
            assert_eq!(resolve(plain), want, "{plain}");
        }
        assert!(matches!(resolve(".nan"), Data::Float(n) if n.is_nan()));
    }
}
