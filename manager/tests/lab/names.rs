//! Names and addresses of a lab, all derived from its name and its slot.
//!
//! In: a lab's name and slot. Out: names of namespaces and links, addresses.
//! Keeps nothing.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Boards of one lab at most: their addresses are `.11` to `.74`.
pub(crate) const BOARDS_MAX: u8 = 64;
/// Labs on one machine at most: one /24 of 10.213.0.0/16 each.
pub(crate) const SLOTS_MAX: u8 = 250;
/// Longest lab name, so that link names stay within the kernel's 15 bytes.
const NAME_BYTES_MAX: usize = 8;
/// Where agents reach the manager.
pub(crate) const MANAGER_PORT: u16 = 2377;
/// Where the registry listens.
pub(crate) const REGISTRY_PORT: u16 = 5000;

/// A lab's name: a lower-case letter, then letters and digits, at most 8.
///
/// No dash, so that no lab's names can be a prefix of another's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name(String);

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = text.bytes();
        let good = bytes.next().is_some_and(|b| b.is_ascii_lowercase())
            && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            && text.len() <= NAME_BYTES_MAX;
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "lab name {text:?}: expected a lower-case letter, then letters or digits, at most {NAME_BYTES_MAX} in all"
            ))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Name {
    /// Every network namespace of the lab begins with this.
    pub(crate) fn netns_prefix(&self) -> String {
        format!("racimo-{self}-")
    }

    /// The namespace that holds the bridge and the registry.
    pub(crate) fn netns_bridge(&self) -> String {
        format!("{}net", self.netns_prefix())
    }

    /// The manager's namespace.
    pub(crate) fn netns_manager(&self) -> String {
        format!("{}mgr", self.netns_prefix())
    }

    /// A board's namespace.
    pub(crate) fn netns_board(&self, board: u8) -> String {
        format!("{}b{board}", self.netns_prefix())
    }

    /// The only link the lab has in this machine's own namespace.
    pub(crate) fn host_link(&self) -> String {
        format!("rl-{self}")
    }

    /// The lab's own cgroup hierarchy.
    pub(crate) fn hierarchy(&self) -> String {
        format!("rl-{self}")
    }

    /// The slot tried first; the same name prefers the same addresses.
    pub(crate) fn slot_preferred(&self) -> u8 {
        let sum = self.0.bytes().fold(7_u32, |sum, b| sum.wrapping_mul(31).wrapping_add(b.into()));
        u8::try_from(sum % u32::from(SLOTS_MAX)).map_or(1, |n| n + 1)
    }
}

/// The /24 of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet(pub(crate) u8);

impl Subnet {
    fn host(self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.0, last)
    }

    /// The registry, in the bridge's namespace.
    pub(crate) fn registry(self) -> Ipv4Addr {
        self.host(1)
    }

    /// The manager.
    pub(crate) fn manager(self) -> Ipv4Addr {
        self.host(2)
    }

    /// A board, counted from 1.
    pub(crate) fn board(self, board: u8) -> Ipv4Addr {
        self.host(10 + board)
    }

    /// This machine's own end.
    pub(crate) fn machine(self) -> Ipv4Addr {
        self.host(254)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, good: bool) {
        assert_eq!(text.parse::<Name>().is_ok(), good, "{text:?}");
    }

    #[test]
    fn names() {
        check("lab", true);
        check("e2e12345", true);
        check("e2e123456", false);
        check("", false);
        check("1lab", false);
        check("Lab", false);
        check("a-b", false);
        check("../x", false);
    }

    #[test]
    fn links_fit_the_kernel() {
        let name: Name = "abcdefgh".parse().expect("a good name");
        assert!(name.host_link().len() <= 15);
        assert!((1..=SLOTS_MAX).contains(&name.slot_preferred()));
    }

    #[test]
    fn addresses_do_not_meet() {
        let subnet = Subnet(9);
        let last = subnet.board(BOARDS_MAX);
        assert!(subnet.manager() < subnet.board(1) && last < subnet.machine());
    }
}
