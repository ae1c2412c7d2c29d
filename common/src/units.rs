//! Units with their own types: bytes and billionths of a CPU.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAmount {
    /// Not a size.
    #[error("invalid size {0:?}: expected a number and a unit, such as 256M or 1.5GiB")]
    Bytes(String),
    /// Not a number of CPUs.
    #[error("invalid number of CPUs {0:?}: expected a number with at most 9 decimals, such as 0.5")]
    Cpus(String),
}

macro_rules! amount {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Nothing.
            pub const ZERO: Self = Self(0);
            /// This amount in the type's unit.
            pub const fn new(amount: u64) -> Self { Self(amount) }
            /// The amount in the type's unit.
            pub const fn get(self) -> u64 { self.0 }
            /// As the Docker API writes it; saturates at `i64::MAX`.
            pub fn to_i64(self) -> i64 { i64::try_from(self.0).unwrap_or(i64::MAX) }
            /// `self - other`, or zero.
            pub fn saturating_sub(self, other: Self) -> Self { Self(self.0.saturating_sub(other.0)) }
            /// Whether this is nothing.
            pub fn is_zero(self) -> bool { self.0 == 0 }
        }
        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self { Self(self.0.saturating_add(other.0)) }
        }
        impl Sub for $name {
            type Output = Self;
            fn sub(self, other: Self) -> Self { self.saturating_sub(other) }
        }
        impl std::iter::Sum for $name {
            fn sum<I: Iterator<Item = Self>>(items: I) -> Self { items.fold(Self::ZERO, Add::add) }
        }
    };
}

amount! {
    /// Bytes of memory or disk. Written and read with binary units as Docker does: `256M` is 256 MiB.
    Bytes
}
amount! {
    /// Billionths of a CPU: one core is 1,000,000,000.
    NanoCpus
}

const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

impl Bytes {
    /// This many MiB.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }
}

impl fmt::Display for Bytes {
    /// At most four significant digits and a binary unit: `256MiB`, `23.54GiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut unit = 0;
        while unit + 1 < UNITS.len() && self.0 >> (10 * (unit + 1)) > 0 {
            unit += 1;
        }
        let hundredths = (u128::from(self.0) * 100) >> (10 * unit);
        let (whole, rest) = (hundredths / 100, hundredths % 100);
        match (rest, rest % 10) {
            (0, _) => write!(f, "{whole}{}", UNITS[unit]),
            (_, 0) => write!(f, "{whole}.{}{}", rest / 10, UNITS[unit]),
            _ => write!(f, "{whole}.{rest:02}{}", UNITS[unit]),
        }
    }
}

impl FromStr for Bytes {
    type Err = BadAmount;
    fn from_str(text: &str) -> Result<Self, BadAmount> {
        let bad = || BadAmount::Bytes(text.to_owned());
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let shift = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(bad()),
        };
        let (value, scale) = decimal(number).ok_or_else(bad)?;
        let bytes = value.checked_shl(shift).filter(|b| b >> shift == value).ok_or_else(bad)? / scale;
        u64::try_from(bytes).map(Self).map_err(|_| bad())
    }
}

impl fmt::Display for NanoCpus {
    /// CPUs, without trailing zeros: `0.5`, `4`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        let digits = format!("{rest:09}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

impl FromStr for NanoCpus {
    type Err = BadAmount;
    fn from_str(text: &str) -> Result<Self, BadAmount> {
        let bad = || BadAmount::Cpus(text.to_owned());
        let (value, scale) = decimal(text).ok_or_else(bad)?;
        let nanos = value.checked_mul(1_000_000_000).filter(|n| n % scale == 0).ok_or_else(bad)? / scale;
        u64::try_from(nanos).map(Self).map_err(|_| bad())
    }
}

/// `12.34` as (1234, 100).
fn decimal(text: &str) -> Option<(u128, u128)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let all_digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) || text.len() > 24 {
        return None;
    }
    let value = format!("{whole}{fraction}").parse().ok()?;
    Some((value, 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_bytes(text: &str, want: Option<u64>) {
        assert_eq!(text.parse::<Bytes>().ok().map(Bytes::get), want, "{text}");
    }

    #[test]
    fn sizes() {
        check_bytes("256M", Some(256 << 20));
        check_bytes("256MiB", Some(256 << 20));
        check_bytes("1.5g", Some(3 << 29));
        check_bytes("1024", Some(1024));
        check_bytes("0", Some(0));
        check_bytes("", None);
        check_bytes(".", None);
        check_bytes("-1", None);
        check_bytes("5x", None);
        check_bytes("99999999999999999999T", None);
        check_bytes("M", None);
        assert_eq!(Bytes::mib(256).to_string(), "256MiB");
        assert_eq!(Bytes::new(25_276_510_208).to_string(), "23.54GiB");
        assert_eq!(Bytes::new(1).to_string(), "1B");
        assert_eq!(Bytes::new(1536).to_string(), "1.5KiB");
    }

    #[test]
    fn cpus() {
        for (text, nanos) in [("0.5", 500_000_000), ("4", 4_000_000_000), (".25", 250_000_000), ("0.001", 1_000_000)] {
            assert_eq!(text.parse::<NanoCpus>().map(NanoCpus::get), Ok(nanos));
        }
        for text in ["", "x", "-1", "1.2.3", "0.0000000001"] {
            assert!(text.parse::<NanoCpus>().is_err(), "{text}");
        }
        assert_eq!(NanoCpus::new(1_500_000_000).to_string(), "1.5");
        assert_eq!(NanoCpus::new(2_000_000_000).to_string(), "2");
    }
}
