//! Names and numbers of the signals that ask a container to stop.

/// The signal a container gets if neither its spec nor its image names one.
pub const SIGTERM: u32 = 15;
/// The signal that cannot be ignored.
pub const SIGKILL: u32 = 9;

/// The real-time signals a container's C library leaves to programs.
const RT_MIN: u32 = 34;
const RT_MAX: u32 = 64;

/// Linux numbers, the same on ARM and x86.
const NAMES: [(&str, u32); 33] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", SIGKILL),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", SIGTERM),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// Why a text is not a signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown stop signal {0:?}: expected a name such as SIGTERM or a number from 1 to 64")]
pub struct BadSignal(pub String);

/// The number of a signal given as `SIGINT`, `int`, `2` or `SIGRTMIN+3`.
pub fn parse(text: &str) -> Result<u32, BadSignal> {
    let bad = || BadSignal(text.to_owned());
    if let Ok(number) = text.parse::<u32>() {
        return Some(number).filter(|number| (1..=RT_MAX).contains(number)).ok_or_else(bad);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        offset(rest, '+').map(|by| RT_MIN.saturating_add(by))
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        offset(rest, '-').map(|by| RT_MAX.saturating_sub(by))
    } else {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
    };
    let in_range = |number: &u32| !name.starts_with("RT") || (RT_MIN..=RT_MAX).contains(number);
    number.filter(in_range).ok_or_else(bad)
}

/// `+3` as 3, and nothing as 0.
fn offset(text: &str, sign: char) -> Option<u32> {
    if text.is_empty() { Some(0) } else { text.strip_prefix(sign)?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Option<u32>) {
        assert_eq!(parse(text).ok(), want, "{text}");
    }

    #[test]
    fn signals() {
        check("SIGTERM", Some(15));
        check("int", Some(2));
        check("9", Some(9));
        check("SIGRTMIN", Some(34));
        check("SIGRTMIN+3", Some(37));
        check("RTMAX-1", Some(63));
        check("RTMAX-31", None);
        check("RTMIN+99", None);
        check("0", None);
        check("65", None);
        check("SIGFOO", None);
        check("", None);
        check("-1", None);
    }
}
