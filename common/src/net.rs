//! IPv4 subnets, and what follows from an address.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The VXLAN network identifier of the mesh between boards; overlays have those above it.
pub const MESH_VNI: u32 = 4096;
/// The largest VXLAN network identifier.
pub const VNI_MAX: u32 = (1 << 24) - 1;
/// The UDP port that VXLAN uses, if the cluster has no other.
pub const VXLAN_PORT: u16 = 4789;
/// The UDP port of the VXLAN of encrypted networks: it is never taken from outside the encryption.
pub const VXLAN_ENCRYPTED_PORT: u16 = 4790;
/// The UDP port of the encryption between boards.
pub const WIREGUARD_PORT: u16 = 51820;
/// Bytes of a packet inside a VXLAN on a link of 1500 bytes.
pub const MTU: u16 = 1450;
/// Bytes of a packet inside a VXLAN inside WireGuard on a link of 1500 bytes.
pub const MTU_ENCRYPTED: u16 = 1370;

/// Whether a link leads to other machines as far as its name tells: it is none of ours, of Docker's, of a container's,
/// and not the loopback device. Addresses of others are never announced.
pub fn is_real_link(name: &str) -> bool {
    let of_bridge = |rest: &str| rest.len() == 12 && rest.bytes().all(|byte| byte.is_ascii_hexdigit());
    !(name == "lo"
        || ["rc-", "rg-", "docker", "veth", "cni", "virbr"].iter().any(|prefix| name.starts_with(prefix))
        || name.strip_prefix("br-").is_some_and(of_bridge))
}

/// Why a text is not a subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSubnet {
    /// Not an address, a slash and a number up to 32.
    #[error("invalid subnet {0:?}: expected an IPv4 address, / and the length of the mask, for example 10.0.9.0/24")]
    Form(String),
    /// There are bits of a host in it.
    #[error("invalid subnet {0}: it should be {1}")]
    HostBits(String, Subnet),
}

/// An IPv4 subnet: an address without bits of a host, and the length of its mask.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    first: u32,
    prefix: u8,
}

impl Subnet {
    /// The subnet of this length that has this address. `prefix` above 32 counts as 32.
    pub fn of(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        Self { first: u32::from(address) & mask(prefix), prefix }
    }

    /// Its first address.
    pub fn address(self) -> Ipv4Addr {
        self.first.into()
    }

    /// The length of its mask, bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Its last address.
    pub fn broadcast(self) -> Ipv4Addr {
        (self.first | !mask(self.prefix)).into()
    }

    /// How many addresses it has.
    pub fn size(self) -> u64 {
        1 << (32 - self.prefix)
    }

    /// The address at this place, 0 being the subnet's own; none: outside.
    pub fn nth(self, place: u64) -> Option<Ipv4Addr> {
        let place = u32::try_from(place).ok().filter(|_| place < self.size())?;
        Some((self.first + place).into())
    }

    /// Whether the address is in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == self.first
    }

    /// Whether all of the other subnet is in it.
    pub fn covers(self, other: Subnet) -> bool {
        self.prefix <= other.prefix && self.contains(other.address())
    }

    /// Whether they have addresses in common.
    pub fn overlaps(self, other: Subnet) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The part of this length at this place; none: outside, or it would be larger than the whole.
    pub fn part(self, prefix: u8, place: u64) -> Option<Subnet> {
        if prefix < self.prefix || prefix > 32 {
            return None;
        }
        let first = self.nth(place.checked_shl(u32::from(32 - prefix))?)?;
        Some(Self::of(first, prefix))
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(u32::from(32 - prefix)).unwrap_or(0)
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(), self.prefix)
    }
}

impl fmt::Debug for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Subnet {
    type Err = BadSubnet;
    fn from_str(text: &str) -> Result<Self, BadSubnet> {
        let bad = || BadSubnet::Form(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().ok().filter(|prefix| *prefix <= 32).ok_or_else(bad)?;
        let subnet = Self::of(address, prefix);
        if subnet.address() == address { Ok(subnet) } else { Err(BadSubnet::HostBits(text.to_owned(), subnet)) }
    }
}

impl Serialize for Subnet {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.collect_str(self) } else { (self.first, self.prefix).serialize(s) }
    }
}

impl<'de> Deserialize<'de> for Subnet {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if d.is_human_readable() {
            return String::deserialize(d)?.parse().map_err(de::Error::custom);
        }
        let (first, prefix) = <(u32, u8)>::deserialize(d)?;
        let subnet = Self::of(first.into(), prefix);
        if subnet.first == first && prefix <= 32 {
            Ok(subnet)
        } else {
            Err(de::Error::custom("not a subnet: bits of a host"))
        }
    }
}

/// The MAC address of the interface that has this address: it follows from it, so that boards need not tell it.
pub fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().expect("a subnet")
    }

    #[test]
    fn texts() {
        for good in ["10.0.9.0/24", "0.0.0.0/0", "1.2.3.4/32", "10.200.0.0/16"] {
            assert_eq!(subnet(good).to_string(), good);
        }
        for bad in ["", "10.0.9.0", "10.0.9.0/33", "10.0.9/24", "fd00::/8", "10.0.9.0/-1", "10.0.9.0/024x"] {
            assert_eq!(bad.parse::<Subnet>(), Err(BadSubnet::Form(bad.to_owned())), "{bad}");
        }
        let error = "10.0.9.7/24".parse::<Subnet>().unwrap_err();
        assert_eq!(error.to_string(), "invalid subnet 10.0.9.7/24: it should be 10.0.9.0/24");
    }

    #[test]
    fn bounds() {
        let all = subnet("0.0.0.0/0");
        assert_eq!((all.size(), all.broadcast()), (1 << 32, Ipv4Addr::BROADCAST));
        assert_eq!(all.nth(u64::from(u32::MAX)), Some(Ipv4Addr::BROADCAST));
        assert_eq!(all.nth(1 << 32), None);
        let one = subnet("1.2.3.4/32");
        assert_eq!((one.size(), one.nth(0), one.nth(1)), (1, Some(Ipv4Addr::new(1, 2, 3, 4)), None));
        let net = subnet("10.0.9.0/24");
        assert_eq!(net.broadcast(), Ipv4Addr::new(10, 0, 9, 255));
        assert!(net.contains(Ipv4Addr::new(10, 0, 9, 255)) && !net.contains(Ipv4Addr::new(10, 0, 10, 0)));
        assert!(all.overlaps(net) && net.overlaps(all) && !net.overlaps(subnet("10.0.8.0/24")));
        assert!(!net.covers(subnet("10.0.8.0/23")) && net.covers(net));
    }

    #[test]
    fn links_to_others() {
        for name in ["eth0", "wlan0", "end0", "wg0", "br-lan", "br0", "rcx", "enx0242ac110002"] {
            assert!(is_real_link(name), "{name}");
        }
        for name in ["lo", "docker0", "docker_gwbridge", "br-0123456789ab", "rc-mesh", "rg-0123456789ab", "veth12ab"] {
            assert!(!is_real_link(name), "{name}");
        }
    }

    #[test]
    fn parts() {
        let pool = subnet("10.200.0.0/16");
        assert_eq!(pool.part(24, 0), Some(subnet("10.200.0.0/24")));
        assert_eq!(pool.part(24, 255), Some(subnet("10.200.255.0/24")));
        assert_eq!((pool.part(24, 256), pool.part(15, 0), pool.part(33, 0)), (None, None, None));
        assert_eq!(subnet("0.0.0.0/0").part(24, u64::MAX), None);
    }

    #[test]
    fn macs() {
        assert_eq!(mac(Ipv4Addr::new(10, 0, 1, 255)), [2, 0x42, 10, 0, 1, 255]);
    }
}
