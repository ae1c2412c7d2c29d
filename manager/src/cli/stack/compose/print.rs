//! A compose file in its long form ─▶ YAML, as `stack config` prints it. Pure.

use super::node::{Data, Node, scalar};
use super::scalar::resolve;

/// As YAML. `null` mappings of a service's networks and the like are printed as `null`.
pub(crate) fn yaml(node: &Node) -> String {
    let mut out = String::new();
    value(node, 0, &mut out);
    out
}

fn value(node: &Node, level: usize, out: &mut String) {
    let pad = "  ".repeat(level);
    match &node.data {
        Data::Map(entries) => {
            for entry in entries {
                out.push_str(&format!("{pad}{}:", quoted(&entry.key)));
                below(&entry.value, level, out);
            }
        }
        Data::List(items) => {
            for item in items {
                match &item.data {
                    // The first key stands beside the dash.
                    Data::Map(entries) if !entries.is_empty() => {
                        let mut inner = String::new();
                        value(item, level + 1, &mut inner);
                        out.push_str(&format!("{pad}- {}", inner.trim_start()));
                    }
                    _ => {
                        out.push_str(&format!("{pad}-"));
                        below(item, level, out);
                    }
                }
            }
        }
        _ => out.push_str(&format!("{pad}{}\n", plain(node))),
    }
}

fn below(node: &Node, level: usize, out: &mut String) {
    match &node.data {
        Data::Map(entries) if entries.is_empty() => out.push_str(" {}\n"),
        Data::List(items) if items.is_empty() => out.push_str(" []\n"),
        Data::Map(_) | Data::List(_) => {
            out.push('\n');
            value(node, level + 1, out);
        }
        _ => out.push_str(&format!(" {}\n", plain(node))),
    }
}

fn plain(node: &Node) -> String {
    match &node.data {
        Data::Text { text, .. } => quoted(text),
        data => scalar(data).unwrap_or_else(|| "null".to_owned()),
    }
}

/// In quotes where it would otherwise be something else: for readers of old YAML too (`yes`, `n`).
fn quoted(text: &str) -> String {
    const OLD_FLAGS: [&str; 8] = ["y", "n", "yes", "no", "on", "off", "true", "false"];
    let starts = text.starts_with(|c: char| c.is_whitespace() || "-?:,[]{}#&*!|>'\"%@`=<".contains(c));
    // A dash begins a list only with a blank behind it.
    let option = text.starts_with('-') && !text.starts_with("---") && !text[1..].starts_with(char::is_whitespace);
    let option = option && text.len() > 1;
    let needs = text.is_empty()
        || starts && !option
        || text.ends_with(char::is_whitespace)
        || text.ends_with(':')
        || text.contains(": ")
        || text.contains(" #")
        || text.chars().any(char::is_control)
        || text.contains(['\u{feff}', '\u{2028}', '\u{2029}'])
        || !matches!(resolve(text), Data::Text { .. })
        // Minutes and seconds, in old YAML.
        || text.starts_with(|c: char| c.is_ascii_digit()) && text.contains(':')
        || OLD_FLAGS.contains(&text.to_lowercase().as_str());
    if !needs {
        return text.to_owned();
    }
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}') => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// As Go prints a duration: `1m30s`, `1m0s`, `1.5s`, `300ms`.
pub(crate) fn duration(nanos: i64) -> String {
    let fraction = |nanos: i64, digits: usize, name: &str| {
        let unit = (0..digits).fold(1, |unit, _| unit * 10);
        let rest = format!("{:0digits$}", nanos % unit);
        let rest = rest.trim_end_matches('0');
        let whole = nanos / unit;
        if rest.is_empty() { format!("{whole}{name}") } else { format!("{whole}.{rest}{name}") }
    };
    match nanos {
        0 => "0s".to_owned(),
        n if n < 1_000 => format!("{n}ns"),
        n if n < 1_000_000 => fraction(n, 3, "µs"),
        n if n < 1_000_000_000 => fraction(n, 6, "ms"),
        n => {
            let (minutes, rest) = (n / 60_000_000_000, n % 60_000_000_000);
            let seconds = fraction(rest, 9, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_go_s() {
        for (text, want) in [
            ("0s", "0s"),
            ("1m30s", "1m30s"),
            ("60s", "1m0s"),
            ("1.5s", "1.5s"),
            ("300ms", "300ms"),
            ("90m", "1h30m0s"),
            ("1500us", "1.5ms"),
            ("2us", "2µs"),
            ("7ns", "7ns"),
        ] {
            let nanos = super::super::super::super::parse::duration(text).expect(text).0;
            assert_eq!(duration(nanos), want);
            assert_eq!(super::super::super::super::parse::duration(&duration(nanos)).expect(want).0, nanos);
        }
    }

    #[test]
    fn what_is_printed_reads_the_same() {
        for text in [
            "", "a", "a b", " a", "a ", "yes", "N", "12", "1.5", "null", "~", "a: b", "a #b", "#a", "- a", "-a", "---",
            "a:", "\"q\"", "it's", "a\nb", "\t", "[a]", "{a}", "*a", "&a", "!a", "%a", "@a", "`a", "a,b", "\u{1}", "ä",
            "\u{2028}", "=", "<<", "0x1f", "12:30", "?", "? a", "a\\b", "|", ">", "-", ".inf", "1_0",
        ] {
            let yaml = format!("k: {}\n{}: v\n", quoted(text), quoted(text));
            let node = super::super::yaml::read("f", &yaml).unwrap_or_else(|fault| panic!("{text:?}: {fault}: {yaml}"));
            assert_eq!(node.entries()[0].value.as_text(), Some(text), "{yaml}");
            assert_eq!(node.entries()[1].key, text, "{yaml}");
        }
    }
}
