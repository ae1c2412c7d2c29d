//! Moments as clients name them. Pure.

use racimo_common::time::Wall;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// `1795173221` or `1795173221.25`: seconds since 1970.
pub(super) fn seconds(text: &str) -> Option<Wall> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = seconds.parse().ok()?;
    let nanos: i64 = format!("{fraction:0<9}").parse().ok()?;
    Some(Wall::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos)))
}

/// `24h` (before now), `2026-11-21T15:04:05Z`, or seconds since 1970.
pub(super) fn past(text: &str, now: Wall) -> Option<Wall> {
    if let Ok(nanos) = crate::duration::parse(text) {
        return Some(Wall::from_nanos(now.nanos().saturating_sub(nanos)));
    }
    let date = || i64::try_from(OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos()).ok();
    date().map(Wall::from_nanos).or_else(|| seconds(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let now = Wall::from_nanos(7_200_000_000_000);
        for (text, want) in [
            ("1h30m", Some(1_800_000_000_000)),
            ("3h", Some(-3_600_000_000_000)),
            ("1970-01-01T01:00:00.5+01:00", Some(500_000_000)),
            ("12.000000005", Some(12_000_000_005)),
            ("12", Some(12_000_000_000)),
            ("yesterday", None),
            ("", None),
            ("1.0000000001", None),
            ("9999-12-31T23:59:59Z", None),
        ] {
            assert_eq!(past(text, now).map(Wall::nanos), want, "{text}");
        }
    }
}
