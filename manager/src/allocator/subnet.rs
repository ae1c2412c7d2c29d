//! Which subnet a network gets, and which it may not have.
//!
//! In: what is taken, the cluster's pools. Out: the first free subnet, or why the asked one cannot be.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use racimo_common::net::Subnet;

use super::ranges::Ranges;
use crate::store::{MESH_SUBNET_DEFAULT, NetworkSpec};

/// Length of the mask of a node's part of the mesh.
pub const MESH_PART_PREFIX: u8 = 24;
/// The largest and the smallest subnet of a network, as masks' lengths: the smallest has five addresses to give.
const PREFIXES: std::ops::RangeInclusive<u8> = 8..=29;
/// The smallest mesh: one board.
const MESH_PREFIX_MAX: u8 = MESH_PART_PREFIX;
/// Addresses that mean something else everywhere.
const SPECIAL: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// Why a network cannot have the subnet, or what it asks for within it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSubnet {
    /// The mask is too long or too short.
    #[error("subnet {0}: the length of the mask must be from {1} to {2}")]
    Size(Subnet, u8, u8),
    /// It is no network's.
    #[error("subnet {0}: these addresses are reserved for special uses")]
    Special(Subnet),
    /// Something is not within it (SwarmKit's words).
    #[error("ipam configuration: subnet {0} does not contain {1} {2}")]
    Outside(Subnet, &'static str, String),
    /// An address of it that no one can have.
    #[error("ipam configuration: {1} {2} is the first or last address of subnet {0}")]
    Edge(Subnet, &'static str, Ipv4Addr),
    /// The mesh is divided between the nodes.
    #[error("an ingress network cannot have {0}: every node has a part of its subnet")]
    Mesh(&'static str),
    /// The mesh cannot be that.
    #[error("ingress network cannot be {0}")]
    Ingress(&'static str),
}

/// Checks what a network asks for. Its gateway, once it has this subnet.
///
/// # Errors
/// What of it cannot be.
pub fn check_subnet(spec: &NetworkSpec, subnet: Subnet) -> Result<Ipv4Addr, BadSubnet> {
    let (least, most) = (*PREFIXES.start(), if spec.ingress { MESH_PREFIX_MAX } else { *PREFIXES.end() });
    if !(least..=most).contains(&subnet.prefix()) {
        return Err(BadSubnet::Size(subnet, least, most));
    }
    if SPECIAL.iter().any(|(address, prefix)| Subnet::of(*address, *prefix).overlaps(subnet)) {
        return Err(BadSubnet::Special(subnet));
    }
    if spec.ingress {
        let flags = [(spec.internal, "internal"), (spec.encrypted, "encrypted")];
        if let Some((_, what)) = flags.into_iter().find(|(is, _)| *is) {
            return Err(BadSubnet::Ingress(what));
        }
        let asked = [(spec.range.is_some(), "an address range"), (!spec.reserved.is_empty(), "reserved addresses")];
        if let Some((_, what)) = asked.into_iter().find(|(is, _)| *is) {
            return Err(BadSubnet::Mesh(what));
        }
    }
    if let Some(range) = spec.range.filter(|range| !subnet.covers(*range)) {
        return Err(BadSubnet::Outside(subnet, "range", range.to_string()));
    }
    let within = |what, address: Ipv4Addr| {
        if !subnet.contains(address) {
            return Err(BadSubnet::Outside(subnet, what, address.to_string()));
        }
        if [subnet.address(), subnet.broadcast()].contains(&address) {
            return Err(BadSubnet::Edge(subnet, what, address));
        }
        Ok(())
    };
    spec.reserved.values().try_for_each(|address| within("reserved address", *address))?;
    let gateway = spec.gateway.or_else(|| subnet.nth(1)).unwrap_or(subnet.address());
    within("gateway", gateway)?;
    Ok(gateway)
}

/// The first subnet of this mask in the pools that has none of the taken addresses.
pub fn first_free(pools: &[Subnet], mask: u8, taken: &Ranges) -> Option<Subnet> {
    pools.iter().find_map(|pool| {
        let mut place = 0;
        loop {
            let part = pool.part(mask, place)?;
            let Some(end) = taken.blocker(part.address().into(), part.broadcast().into()) else { return Some(part) };
            // Behind what is in the way: it may be larger than a part.
            let behind = end.checked_add(1)?;
            let first = u32::from(pool.address());
            place = u64::from(behind.checked_sub(first)?).div_ceil(part.size()).max(place + 1);
        }
    })
}

/// The mesh's subnet if nobody asked for one: the default, or the next free one like it. It leaves small pools alone.
pub fn mesh(pools: &[Subnet], taken: &Ranges) -> Option<Subnet> {
    let (address, prefix) = MESH_SUBNET_DEFAULT;
    let default = Subnet::of(address, prefix);
    let size = u64::from(u32::from(default.address()) % (1 << 24)) / default.size();
    let around = Subnet::of(address, 8);
    let places = (size..256).chain(1..size);
    places.filter_map(|place| around.part(prefix, place)).find(|part| {
        taken.blocker(part.address().into(), part.broadcast().into()).is_none()
            && !pools.iter().any(|pool| part.covers(*pool))
    })
}

/// The IPv4 address in `1.2.3.4` or `1.2.3.4:5`.
pub fn address_of(text: &str) -> Option<Ipv4Addr> {
    let address = text.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip())).ok()?;
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(address) => address.to_ipv4_mapped(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().expect("a subnet")
    }

    fn taken(subnets: &[&str]) -> Ranges {
        let mut ranges = Ranges::default();
        for text in subnets {
            let subnet = subnet(text);
            ranges.insert_span(subnet.address().into(), subnet.broadcast().into());
        }
        ranges
    }

    #[track_caller]
    fn check_free(pools: &[&str], mask: u8, in_use: &[&str], want: Option<&str>) {
        let pools: Vec<Subnet> = pools.iter().map(|text| subnet(text)).collect();
        assert_eq!(first_free(&pools, mask, &taken(in_use)), want.map(subnet), "{pools:?}/{mask} {in_use:?}");
    }

    #[test]
    fn the_first_free_subnet() {
        check_free(&["10.0.0.0/8"], 24, &[], Some("10.0.0.0/24"));
        check_free(&["10.0.0.0/8"], 24, &["10.0.0.0/24", "10.0.1.17/32"], Some("10.0.2.0/24"));
        check_free(&["10.0.0.0/8"], 24, &["10.0.0.0/15", "10.2.0.255/32"], Some("10.2.1.0/24"));
        check_free(&["10.0.0.0/8"], 24, &["8.0.0.0/6"], None);
        check_free(&["10.0.0.0/23"], 24, &["10.0.0.0/25", "10.0.1.128/25"], None);
        check_free(&["10.0.0.0/23", "10.9.0.0/24"], 24, &["10.0.0.0/23"], Some("10.9.0.0/24"));
        check_free(&["10.0.0.0/24"], 29, &["10.0.0.0/29", "10.0.0.16/28"], Some("10.0.0.8/29"));
        check_free(&["255.255.255.0/24"], 29, &["255.255.255.0/24"], None);
        check_free(&["10.0.0.0/24"], 16, &[], None);
        check_free(&[], 24, &[], None);
    }

    #[test]
    fn the_mesh_goes_out_of_the_way() {
        let pick = |pools: &[&str], in_use: &[&str]| {
            let pools: Vec<Subnet> = pools.iter().map(|text| subnet(text)).collect();
            mesh(&pools, &taken(in_use)).map(|found| found.to_string()).unwrap_or_default()
        };
        assert_eq!(pick(&["10.0.0.0/8"], &[]), "10.200.0.0/16");
        assert_eq!(pick(&["10.200.4.0/22"], &["10.201.0.9/32"]), "10.202.0.0/16");
        assert_eq!(pick(&[], &["10.128.0.0/9"]), "10.1.0.0/16");
        assert_eq!(pick(&[], &["10.0.0.0/8"]), "");
    }

    #[track_caller]
    fn check(spec: NetworkSpec, text: &str, want: Result<&str, &str>) {
        let found = check_subnet(&spec, subnet(text)).map(|gateway| gateway.to_string());
        assert_eq!(found.map_err(|error| error.to_string()), want.map(str::to_owned).map_err(str::to_owned));
    }

    #[test]
    fn what_a_network_may_ask_for() {
        let plain = NetworkSpec::default;
        let ip = |text: &str| -> Ipv4Addr { text.parse().expect("an address") };
        check(plain(), "10.0.9.0/24", Ok("10.0.9.1"));
        check(plain(), "10.0.9.0/29", Ok("10.0.9.1"));
        check(NetworkSpec { gateway: Some(ip("10.0.9.9")), ..plain() }, "10.0.9.0/24", Ok("10.0.9.9"));
        check(plain(), "10.0.9.0/30", Err("subnet 10.0.9.0/30: the length of the mask must be from 8 to 29"));
        check(plain(), "10.0.0.0/7", Err("subnet 10.0.0.0/7: the length of the mask must be from 8 to 29"));
        check(plain(), "127.1.0.0/16", Err("subnet 127.1.0.0/16: these addresses are reserved for special uses"));
        check(plain(), "240.0.0.0/8", Err("subnet 240.0.0.0/8: these addresses are reserved for special uses"));
        let text = "ipam configuration: subnet 10.0.9.0/24 does not contain gateway 10.0.8.1";
        check(NetworkSpec { gateway: Some(ip("10.0.8.1")), ..plain() }, "10.0.9.0/24", Err(text));
        let text = "ipam configuration: gateway 10.0.9.255 is the first or last address of subnet 10.0.9.0/24";
        check(NetworkSpec { gateway: Some(ip("10.0.9.255")), ..plain() }, "10.0.9.0/24", Err(text));
        let text = "ipam configuration: subnet 10.0.9.0/24 does not contain range 10.0.8.0/23";
        check(NetworkSpec { range: Some(subnet("10.0.8.0/23")), ..plain() }, "10.0.9.0/24", Err(text));
        let text = "ipam configuration: subnet 10.0.9.0/24 does not contain reserved address 10.0.8.7";
        let reserved = [("a".to_owned(), ip("10.0.8.7"))].into();
        check(NetworkSpec { reserved, ..plain() }, "10.0.9.0/24", Err(text));
        let mesh = || NetworkSpec { ingress: true, ..plain() };
        check(mesh(), "10.9.0.0/24", Ok("10.9.0.1"));
        check(mesh(), "10.9.0.0/25", Err("subnet 10.9.0.0/25: the length of the mask must be from 8 to 24"));
        check(NetworkSpec { internal: true, ..mesh() }, "10.9.0.0/16", Err("ingress network cannot be internal"));
        check(NetworkSpec { encrypted: true, ..mesh() }, "10.9.0.0/16", Err("ingress network cannot be encrypted"));
        let text = "an ingress network cannot have an address range: every node has a part of its subnet";
        check(NetworkSpec { range: Some(subnet("10.9.4.0/24")), ..mesh() }, "10.9.0.0/16", Err(text));
    }

    #[test]
    fn addresses_in_texts() {
        for (text, want) in [
            ("192.0.2.7", Some("192.0.2.7")),
            ("192.0.2.7:2377", Some("192.0.2.7")),
            ("[::ffff:192.0.2.7]:1", Some("192.0.2.7")),
            ("::1", None),
            ("pi:2377", None),
        ] {
            assert_eq!(address_of(text), want.map(|text| text.parse().expect("an address")), "{text}");
        }
    }
}
