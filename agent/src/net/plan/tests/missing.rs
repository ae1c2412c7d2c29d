//! What other programs removed.

use super::super::missing::{Found, summary};
use super::*;

/// A task on network 1 with a way out, a published port, two other boards; and a kernel in which all of it is there.
fn board() -> (Bench, Found) {
    let mut bench = Bench::new();
    bench.tasks.get_mut(&task(11)).unwrap().vnis = vec![4097];
    bench.service(service(1, &[(80, 8080)], &[(11, true), (21, true)]));
    let names = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
    let (leg, port) = (task::link(task(11), 0), task::link(task(11), 1));
    let found = Found {
        forwards: true,
        links: names(&["rc-mesh", &leg]),
        overlays: names(&["lo", "rcb4097", "rcv4097", &port]),
        addresses: [ip("10.200.1.1").0].into(),
        routes: ["10.200.1.0/24", "10.200.2.0/24", "10.200.3.0/24", "10.200.1.11/32"]
            .map(|to| to.parse().unwrap())
            .into(),
        neighbours: [ip("10.200.2.1").0, ip("10.200.3.1").0].into(),
        origins: BTreeSet::new(),
        chains: [("guard", 6), ("prerouting", 1), ("output", 1), ("postrouting", 4), ("forward", 6)]
            .map(|(name, rules)| (name.into(), rules))
            .into(),
        published: [(Protocol::Tcp, 80)].into(),
    };
    (bench, found)
}

fn missing(bench: &Bench, found: &Found) -> String {
    let view = View { table: &bench.table, tasks: &bench.tasks };
    summary(&view.missing(found, |_| true, |_| true)).replace(&task(11).to_string()[..11], "11")
}

#[test]
fn what_is_missing_is_named() {
    let (bench, found) = board();
    assert_eq!(missing(&bench, &found), "");
    type Remove = fn(&mut Found);
    let cases: [(Remove, &str); 13] = [
        (|found| found.forwards = false, "net.ipv4.ip_forward"),
        (
            |found| {
                found.links.remove("rc-mesh");
            },
            "rc-mesh",
        ),
        (|found| found.addresses.clear(), "the address of rc-mesh"),
        (
            |found| found.routes.retain(|to| to.prefix() != 24),
            "the route of 10.200.1.0/24, the way to 10.200.2.0/24, the way to 10.200.3.0/24",
        ),
        (
            |found| {
                found.neighbours.pop_last();
            },
            "the way to 10.200.3.0/24",
        ),
        (|found| found.links.retain(|link| !link.starts_with("rg-")), "rg-11d"),
        (|found| found.routes.retain(|to| to.prefix() != 32), "rg-11d"),
        (|found| found.overlays.retain(|link| !link.starts_with('v')), "v01-11"),
        (
            |found| {
                found.overlays.remove("rcv4097");
            },
            "rcv4097",
        ),
        (|found| found.chains.clear(), "table ip racimo"),
        (
            |found| {
                found.chains.insert("guard".into(), 2);
            },
            "rules of table ip racimo, chain guard",
        ),
        (
            |found| {
                found.chains.remove("output");
            },
            "rules of table ip racimo, chain output",
        ),
        (|found| found.published.clear(), "rules of port 80/tcp"),
    ];
    for (number, (remove, wanted)) in cases.into_iter().enumerate() {
        let mut less = found.clone();
        remove(&mut less);
        assert_eq!(missing(&bench, &less), wanted, "case {number}");
    }
    let all = "net.ipv4.ip_forward, rc-mesh, the route of 10.200.1.0/24, the way to 10.200.2.0/24 and 6 more";
    assert_eq!(missing(&bench, &Found::default()), all);
}

#[test]
fn what_was_not_told_is_not_missing() {
    let (mut bench, found) = board();
    let mut less = found.clone();
    // A task that comes just now, and a port that another program has.
    less.links.retain(|link| !link.starts_with("rg-"));
    less.overlays.clear();
    less.published.clear();
    let view = View { table: &bench.table, tasks: &bench.tasks };
    assert_eq!(view.missing(&less, |_| false, |_| false), [""; 0]);
    // A board without a part in a mesh has nothing.
    bench.take(Net { complete: true, last: true, ..Net::default() });
    assert_eq!(missing(&bench, &Found::default()), "");
}

#[test]
fn ways_back_are_there_while_clients_addresses_are_kept() {
    let (mut bench, mut found) = board();
    let keeping = NetService { keep_source: true, ..service(1, &[(80, 8080)], &[(11, true), (21, true)]) };
    bench.service(keeping);
    found.chains = View { table: &bench.table, tasks: &bench.tasks }
        .board()
        .unwrap()
        .chains()
        .iter()
        .map(|chain| (chain.name.into(), u32::try_from(chain.rules.len()).unwrap()))
        .collect();
    assert_eq!(missing(&bench, &found), "the way to 10.200.2.0/24, the way to 10.200.3.0/24");
    found.origins = [0x5200_0002, 0x5200_0003].into();
    assert_eq!(missing(&bench, &found), "");
    found.chains.remove("unmark");
    assert_eq!(missing(&bench, &found), "rules of table ip racimo, chain unmark");
}
