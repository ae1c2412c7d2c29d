//! Platforms: what an image was built for and what a board can run.
//!
//! A [`Platform`] holds what somebody wrote; two are the same if they are equal
//! once [`normalised`](Platform::normalised): `aarch64` and `arm64/v8` are
//! `arm64`, and `arm` alone is `arm/v7`, as in containerd.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::media::Descriptor;

const PART_BYTES_MAX: usize = 32;

/// `os/architecture[/variant]` in Go's spelling: `linux/arm/v7`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, `arm`, …
    pub architecture: String,
    /// `v8`, `v7`, …; empty if the architecture has none.
    pub variant: String,
}

/// A text is not `os/architecture[/variant]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a platform: write it like linux/arm64 or linux/arm/v7")]
pub struct PlatformError(String);

impl Platform {
    /// Normalises the three parts; an empty variant is the architecture's usual one.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.to_ascii_lowercase();
        let (architecture, variant) = match (&*architecture, &*variant) {
            ("x86_64" | "x86-64" | "amd64", "" | "v1") => ("amd64", ""),
            ("x86_64" | "x86-64", other) => ("amd64", other),
            ("i386" | "i486" | "i586" | "i686" | "386", _) => ("386", ""),
            ("aarch64" | "arm64", "" | "8" | "v8") => ("arm64", ""),
            ("aarch64", other) => ("arm64", other),
            ("armhf" | "armv7l" | "armv7", _) => ("arm", "v7"),
            ("armel" | "armv6l" | "armv6", _) => ("arm", "v6"),
            ("armv5l" | "armv5tel" | "armv5tejl", _) => ("arm", "v5"),
            // What a 64-bit kernel says to a 32-bit process.
            ("armv8l", _) | ("arm", "8" | "v8") => ("arm", "v8"),
            ("arm", "" | "7" | "v7") => ("arm", "v7"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            (other, variant) => (other, variant),
        };
        Self { os: os.to_ascii_lowercase(), architecture: architecture.into(), variant: variant.into() }
    }

    /// The same platform in the one spelling that can be compared.
    pub fn normalised(&self) -> Self {
        Self::new(&self.os, &self.architecture, &self.variant)
    }

    /// The Linux platform of `uname`'s machine name, such as `armv7l`.
    /// Mind that a board's userland may be narrower than its kernel.
    pub fn from_uname(machine: &str) -> Self {
        Self::new("linux", machine, "")
    }

    /// Everything that a userland of this platform runs, best first: newer
    /// 32-bit ARM runs the older ones too. Whether a 64-bit board also runs
    /// 32-bit programs is for the caller to find out and to append.
    pub fn runnable(&self) -> Vec<Platform> {
        const ARM: [&str; 4] = ["v8", "v7", "v6", "v5"];
        let platform = self.normalised();
        let first = ARM.iter().position(|variant| *variant == platform.variant);
        match first.filter(|_| platform.architecture == "arm") {
            Some(first) => ARM[first..].iter().map(|variant| Self::new(&platform.os, "arm", variant)).collect(),
            None => vec![platform],
        }
    }
}

/// The entry of an image index to use on a board that runs `platforms`, best
/// first. The board's order wins over the index's. Entries without a platform
/// and attestations (`unknown/unknown`) are never chosen, except that an index
/// with a single entry (as tools that export images write it) may leave it out.
pub fn choose(entries: &[Descriptor], platforms: &[Platform]) -> Option<usize> {
    if let [Descriptor { platform: None, .. }] = entries {
        return Some(0);
    }
    let offered: Vec<_> = entries.iter().map(Descriptor::runs_on).collect();
    platforms.iter().find_map(|wanted| {
        let wanted = Some(wanted.normalised());
        offered.iter().position(|offered| *offered == wanted)
    })
}

/// May an image whose only manifest is built for `image` run on a board with
/// `platforms`? Many older ARM images name no variant, and some no platform at
/// all: such an image is given a chance on every board it could be meant for.
pub fn accepts(image: &Platform, platforms: &[Platform]) -> bool {
    if image.architecture.is_empty() {
        return true;
    }
    let exact = image.normalised();
    platforms.iter().map(Platform::normalised).any(|wanted| {
        let same_kind = wanted.os == exact.os && wanted.architecture == exact.architecture;
        wanted == exact || (image.variant.is_empty() && same_kind)
    })
}

/// `linux/amd64, linux/arm/v7` for messages.
pub fn list(platforms: &[Platform]) -> String {
    let names: Vec<String> = platforms.iter().map(Platform::to_string).collect();
    if names.is_empty() { "no known platform".into() } else { names.join(", ") }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let is_part = |part: &&str| {
            (1..=PART_BYTES_MAX).contains(&part.len())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        let parts: Vec<&str> = text.splitn(4, '/').filter(is_part).collect();
        match (&*parts, text.matches('/').count()) {
            ([os, architecture], 1) => Ok(Self::new(os, architecture, "")),
            ([os, architecture, variant], 2) => Ok(Self::new(os, architecture, variant)),
            _ => Err(PlatformError(text.chars().take(80).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(text.parse::<Platform>().map(|p| p.to_string()), Ok(expected.into()));
    }

    #[test]
    fn parse() {
        check("linux/amd64", "linux/amd64");
        check("Linux/X86_64", "linux/amd64");
        check("linux/amd64/v3", "linux/amd64/v3");
        check("linux/aarch64", "linux/arm64");
        check("linux/arm64/v8", "linux/arm64");
        check("linux/arm64/v9", "linux/arm64/v9");
        check("linux/arm", "linux/arm/v7");
        check("linux/arm/7", "linux/arm/v7");
        check("linux/arm/v6", "linux/arm/v6");
        check("linux/armhf", "linux/arm/v7");
        check("linux/i686", "linux/386");
        check("linux/riscv64", "linux/riscv64");
        for bad in ["", "linux", "linux/", "/arm", "linux/arm/", "a/b/c/d", "linux/a m", "linux//v7"] {
            assert_eq!(bad.parse::<Platform>(), Err(PlatformError(bad.into())));
        }
    }

    #[track_caller]
    fn check_uname(machine: &str, expected: &str) {
        assert_eq!(list(&Platform::from_uname(machine).runnable()), expected);
    }

    #[test]
    fn uname() {
        check_uname("x86_64", "linux/amd64");
        check_uname("aarch64", "linux/arm64");
        check_uname("armv8l", "linux/arm/v8, linux/arm/v7, linux/arm/v6, linux/arm/v5");
        check_uname("armv7l", "linux/arm/v7, linux/arm/v6, linux/arm/v5");
        check_uname("armv6l", "linux/arm/v6, linux/arm/v5");
        check_uname("riscv64", "linux/riscv64");
    }

    fn raw(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Platform { os: next(), architecture: next(), variant: next() }
    }

    /// `index` and `board` are lists with spaces; `-` is an entry without a platform.
    #[track_caller]
    fn check_choice(index: &str, board: &str, expected: Option<usize>) {
        let entry = |text: &str| Descriptor { platform: (text != "-").then(|| raw(text)), ..Descriptor::of(b"", "") };
        let entries: Vec<_> = index.split(' ').map(entry).collect();
        let board: Vec<_> = board.split(' ').map(|p| p.parse().expect("valid")).collect();
        assert_eq!(choose(&entries, &board), expected);
    }

    #[test]
    fn choice() {
        let v7 = "linux/arm/v7 linux/arm/v6 linux/arm/v5";
        check_choice("linux/amd64 linux/arm64/v8", "linux/arm64", Some(1));
        check_choice("linux/arm64", "linux/arm64/v8", Some(0));
        check_choice("linux/arm/v5 linux/arm/v6 linux/arm/v7", v7, Some(2));
        check_choice("linux/arm/v5 linux/arm/v6", v7, Some(1));
        check_choice("linux/arm", v7, Some(0));
        check_choice("linux/arm", "linux/arm/v6", None);
        check_choice("linux/amd64/v3 linux/amd64", "linux/amd64", Some(1));
        check_choice("linux/arm/v7 linux/arm64", "linux/arm64 linux/arm/v7", Some(1));
        check_choice("windows/amd64 unknown/unknown -", "linux/amd64", None);
        check_choice("unknown/unknown", "unknown/unknown", None);
        check_choice("-", "linux/arm64", Some(0));
        check_choice("- -", "linux/arm64", None);
    }

    #[track_caller]
    fn check_single(image: &str, board: &str, expected: bool) {
        assert_eq!(accepts(&raw(image), &[board.parse().expect("valid")]), expected);
    }

    #[test]
    fn single() {
        check_single("linux/arm", "linux/arm/v6", true);
        check_single("linux/arm/v7", "linux/arm/v6", false);
        check_single("linux/amd64", "linux/arm64", false);
        check_single("linux/arm64", "linux/arm64", true);
        check_single("", "linux/arm64", true);
    }
}
