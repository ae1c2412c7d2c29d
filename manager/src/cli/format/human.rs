//! Times, sizes and names as people read them. Pure; the wording is Docker's.

use time::Duration;

/// "45 seconds", "About a minute", "3 weeks".
pub(crate) fn span(span: Duration) -> String {
    let seconds = span.whole_seconds().max(0);
    let minutes = seconds / 60;
    // Hours are rounded, all else is cut.
    let hours = (seconds + 1800) / 3600;
    let days = hours / 24;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if days < 14 => format!("{days} days"),
        () if days < 60 => format!("{} weeks", days / 7),
        () if days < 730 => format!("{} months", days / 30),
        () => format!("{} years", days / 365),
    }
}

/// "45 seconds ago", in small letters.
pub(crate) fn ago(past: Duration) -> String {
    format!("{} ago", span(past).to_lowercase())
}

/// "23.54GiB": four digits, powers of 1024.
pub(crate) fn bytes(count: i64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    #[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
    let mut size = count as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    let whole_digits = if size >= 1000.0 {
        4
    } else if size >= 100.0 {
        3
    } else if size >= 10.0 {
        2
    } else {
        1
    };
    format!("{}{}", trim_zeros(&format!("{size:.*}", 4 - whole_digits)), UNITS[unit])
}

/// A count of billionths as a plain decimal: 500,000,000 → "0.5".
pub(crate) fn billionths(count: i64) -> String {
    let text = format!("{}.{:09}", count / 1_000_000_000, (count % 1_000_000_000).abs());
    trim_zeros(&text).to_owned()
}

fn trim_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// Nanoseconds as "1m30s", "300ms", "2160h0m0s".
pub(crate) fn nanos(nanos: i64) -> String {
    if nanos < 0 {
        return format!("-{}", self::nanos(nanos.saturating_neg()));
    }
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", scaled(nanos, 1_000, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", scaled(nanos, 1_000_000, 6)),
        _ => {
            let minutes = nanos / 60_000_000_000;
            let seconds = billionths(nanos % 60_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

fn scaled(value: i64, unit: i64, places: usize) -> String {
    trim_zeros(&format!("{}.{:0places$}", value / unit, value % unit)).to_owned()
}

/// First letter large: "running" → "Running".
pub(crate) fn title(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

/// At most `width` characters, the last one "…" when something was cut.
pub(crate) fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// The first 12 characters of an id.
pub(crate) fn short_id(id: &str) -> String {
    id.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        for (seconds, want) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (45, "45 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (2 * 3600, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (13 * 86400, "13 days"),
            (14 * 86400, "2 weeks"),
            (60 * 86400, "2 months"),
            (730 * 86400, "2 years"),
            (-5, "Less than a second"),
        ] {
            assert_eq!(span(Duration::seconds(seconds)), want, "{seconds} s");
        }
        assert_eq!(ago(Duration::seconds(60)), "about a minute ago");
    }

    #[test]
    fn sizes() {
        for (count, want) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1KiB"),
            (16 << 20, "16MiB"),
            (25_276_510_208, "23.54GiB"),
            (1 << 60, "1024PiB"),
        ] {
            assert_eq!(bytes(count), want);
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(billionths(500_000_000), "0.5");
        assert_eq!(billionths(2_000_000_000), "2");
        for (count, want) in [
            (0, "0s"),
            (500, "500ns"),
            (1_500, "1.5µs"),
            (300_000_000, "300ms"),
            (2_000_000_000, "2s"),
            (90_000_000_000, "1m30s"),
            (7_776_000_000_000_000, "2160h0m0s"),
            (3_661_500_000_000, "1h1m1.5s"),
        ] {
            assert_eq!(nanos(count), want);
        }
    }

    #[test]
    fn texts() {
        assert_eq!(ellipsis("starting container failed: failed to", 30), "starting container failed: fa…");
        assert_eq!(ellipsis("short", 30), "short");
        assert_eq!((title("running").as_str(), title("").as_str()), ("Running", ""));
    }
}
