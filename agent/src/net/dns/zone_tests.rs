//! What names stand for.

use std::net::Ipv4Addr;

use racimo_common::id::{NetworkId, NodeId, RandomId, ServiceId, TaskId};
use racimo_common::wire::{Ip, Net, NetAttachment, NetEndpoint, NetNetwork, NetService, TaskNet};

use super::message::{A, ANY, DS, PTR};
use super::zone::{Found, Own, find};
use crate::net::table::Table;
use crate::net::testing;

const AAAA: u16 = 28;

fn ip(text: &str) -> Ip {
    Ip(text.parse().unwrap())
}

fn network(bits: u128, name: &str, subnet: &str) -> NetNetwork {
    NetNetwork {
        id: NetworkId::from_bits(bits),
        name: name.into(),
        vni: 4097,
        subnet: subnet.parse().unwrap(),
        internal: false,
        encrypted: false,
        mtu: 1450,
    }
}

fn service(bits: u128, name: &str, networks: &[(u128, Option<&str>, &[&str])]) -> NetService {
    let attachment = |(network, vip, aliases): &(u128, Option<&str>, &[&str])| NetAttachment {
        network: NetworkId::from_bits(*network),
        vip: vip.map(ip),
        aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
    };
    NetService {
        id: ServiceId::from_bits(bits),
        name: name.into(),
        ports: Vec::new(),
        keep_source: false,
        networks: networks.iter().map(attachment).collect(),
        endpoints: Vec::new(),
    }
}

fn task(bits: u128) -> TaskId {
    TaskId::from_bits(bits << 120)
}

fn endpoint(bits: u128, slot: Option<u32>, addresses: &[&str], active: bool) -> NetEndpoint {
    NetEndpoint {
        targets: Box::default(),
        task: task(bits),
        hostname: None,
        slot,
        node: NodeId::from_bits(7),
        mesh: None,
        addresses: addresses.iter().map(|text| ip(text)).collect(),
        active,
        unsure: false,
    }
}

/// Networks 1 `front`, 2 `back.end`, 3 `other`; this task is on 1 and 2.
fn table() -> Table {
    let mut web = service(1, "st_Web", &[(1, Some("10.0.1.2"), &["web", "www"]), (2, Some("10.0.2.2"), &["web"])]);
    web.endpoints = vec![
        endpoint(11, Some(1), &["10.0.1.11", "10.0.2.11"], true),
        endpoint(12, Some(2), &["10.0.1.12", "0.0.0.0"], true),
        endpoint(13, Some(3), &["10.0.1.13", "10.0.2.13"], false),
    ];
    let mut db = service(2, "db", &[(2, None, &["store"])]);
    db.endpoints = vec![
        endpoint(21, Some(1), &["10.0.2.21"], true),
        endpoint(22, Some(2), &["10.0.2.22"], true),
        endpoint(23, Some(3), &["10.0.2.23"], false),
    ];
    db.endpoints[0].hostname = Some("Primary".into());
    db.endpoints[2].hostname = Some("primary".into());
    db.endpoints[1].hostname = Some("web".into());
    let mut idle = service(3, "idle", &[(1, None, &[])]);
    idle.endpoints = vec![endpoint(31, None, &["10.0.1.31"], false)];
    let empty = service(4, "empty", &[(1, Some("10.0.1.4"), &["www"])]);
    let mut hidden = service(5, "hidden", &[(3, Some("10.0.3.2"), &["web"])]);
    hidden.endpoints = vec![endpoint(51, Some(1), &["10.0.3.51"], true)];
    let networks = vec![
        network(1, "Front", "10.0.1.0/24"),
        network(2, "back.end", "10.0.2.0/24"),
        network(3, "other", "10.0.3.0/24"),
    ];
    let mut removed = service(6, "", &[(1, None, &[])]);
    removed.endpoints = vec![endpoint(61, Some(1), &["10.0.1.61"], true)];
    let services = vec![web, db, idle, empty, hidden, removed];
    let mut table = Table::default();
    table.take(Net { own: Some(testing::own(1)), networks, services, ..Net::default() });
    table
}

fn own() -> Own {
    Own {
        task: task(99),
        net: TaskNet {
            mesh: Some(ip("10.200.1.9")),
            networks: vec![(NetworkId::from_bits(1), ip("10.0.1.99")), (NetworkId::from_bits(2), ip("10.0.2.99"))],
            ..TaskNet::default()
        },
        hostname: "me".into(),
        slot_name: "app.4".into(),
    }
}

fn ask(name: &str, kind: u16) -> Found {
    let name = name.to_ascii_lowercase();
    find(&table(), &own(), &name, name.split('.').count(), kind)
}

#[track_caller]
fn check(name: &str, want: &[&str]) {
    let want: Vec<Ipv4Addr> = want.iter().map(|text| text.parse().unwrap()).collect();
    assert_eq!(ask(name, A), Found::Addresses(want.clone()), "{name}");
    assert_eq!(ask(name, ANY), Found::Addresses(want), "{name}");
    assert_eq!(ask(name, AAAA), Found::Empty, "{name}");
}

#[test]
fn services() {
    check("st_web", &["10.0.1.2"]);
    check("ST_WEB", &["10.0.1.2"]);
    check("web", &["10.0.1.2"]);
    // Two services with the same alias.
    check("www", &["10.0.1.2", "10.0.1.4"]);
    check("db", &["10.0.2.21", "10.0.2.22"]);
    check("store", &["10.0.2.21", "10.0.2.22"]);
    check("tasks.st_web", &["10.0.1.11", "10.0.1.12"]);
    check("tasks.web", &["10.0.1.11", "10.0.1.12"]);
    check("tasks.db", &["10.0.2.21", "10.0.2.22"]);
    // Without a task: its virtual address stays.
    check("empty", &["10.0.1.4"]);
}

#[test]
fn a_service_without_active_tasks_is_known() {
    for name in ["idle", "tasks.idle", "tasks.empty", "idle.front", "tasks.empty.front"] {
        assert_eq!((ask(name, A), ask(name, AAAA)), (Found::Empty, Found::Empty), "{name}");
    }
}

#[test]
fn names_on_a_network() {
    check("web.front", &["10.0.1.2"]);
    check("web.FRONT", &["10.0.1.2"]);
    check("web.back.end", &["10.0.2.2"]);
    check("tasks.web.back.end", &["10.0.2.11"]);
    check("db.back.end", &["10.0.2.21", "10.0.2.22"]);
    for elsewhere in ["db.front", "web.other", "hidden.other", "web.end", "front", "back.end"] {
        let want = if elsewhere == "front" { Found::Unknown } else { Found::Elsewhere };
        assert_eq!(ask(elsewhere, A), want, "{elsewhere}");
    }
}

#[test]
fn tasks() {
    let id = |bits: u128| task(bits).to_string();
    check("st_web.2", &["10.0.1.12"]);
    check(&format!("st_web.2.{}", id(12)), &["10.0.1.12"]);
    check(&format!("st_web.1.{}.back.end", id(11)), &["10.0.2.11"]);
    check(&id(11), &["10.0.1.11"]);
    check(&id(21)[..12], &["10.0.2.21"]);
    check(&format!("idle.{}", NodeId::from_bits(7)), &["10.0.1.31"]);
    check(&format!("idle.{}.{}", NodeId::from_bits(7), id(31)), &["10.0.1.31"]);
    // The one that is active, not the one that it replaced.
    check("primary", &["10.0.2.21"]);
    check("db.3", &["10.0.2.23"]);
    for elsewhere in ["st_web.12".to_owned(), format!("st_web.1.{}", id(12)), "web.1".to_owned(), "st_web.".to_owned()]
    {
        assert_eq!(ask(&elsewhere, A), Found::Elsewhere, "{elsewhere}");
    }
    // Its service was removed.
    check(&id(61), &["10.0.1.61"]);
    assert_eq!(ask(".1", A), Found::Elsewhere);
    assert_eq!(ask(&id(51), A), Found::Unknown);
    assert_eq!(ask(&id(11)[..11], A), Found::Unknown);
}

#[test]
fn itself() {
    let id = task(99).to_string();
    for name in ["me", "ME", "app.4", &format!("app.4.{id}"), &id, &id[..12], "me.front"] {
        check(name, &["10.0.1.99"]);
    }
    check("me.back.end", &["10.0.2.99"]);
    let mut alone = own();
    alone.net.networks.clear();
    let mesh = Found::Addresses(vec![Ipv4Addr::new(10, 200, 1, 9)]);
    assert_eq!(find(&table(), &alone, "me", 1, A), mesh);
    assert_eq!(find(&table(), &alone, "web", 1, A), Found::Unknown);
    assert_eq!(find(&table(), &alone, "web.front", 2, A), Found::Elsewhere);
}

#[test]
fn others() {
    for unknown in ["nobody", "hidden", "tasks"] {
        assert_eq!((ask(unknown, A), ask(unknown, AAAA)), (Found::Unknown, Found::Unknown), "{unknown}");
    }
    assert_eq!(ask("com", DS), Found::Elsewhere);
    assert_eq!(ask("nobody.lan", A), Found::Elsewhere);
    assert_eq!(find(&table(), &own(), "", 0, 2), Found::Elsewhere);
}

#[test]
fn names_of_addresses() {
    let reverse = |address: &str| {
        let [a, b, c, d] = address.parse::<Ipv4Addr>().unwrap().octets();
        format!("{d}.{c}.{b}.{a}.in-addr.arpa")
    };
    let named = |address: &str| ask(&reverse(address), PTR);
    assert_eq!(named("10.0.1.2"), Found::Name("st_Web.Front".into()));
    assert_eq!(named("10.0.2.11"), Found::Name(format!("st_Web.1.{}.back.end", task(11))));
    assert_eq!(named("10.0.1.31"), Found::Name(format!("idle.{}.{}.Front", NodeId::from_bits(7), task(31))));
    assert_eq!(named("10.0.1.99"), Found::Name(format!("app.4.{}.Front", task(99))));
    assert_eq!(named("10.200.1.9"), Found::Name(format!("app.4.{}", task(99))));
    assert_eq!(named("10.0.1.61"), Found::Name(format!("{}.Front", task(61))));
    // Ours, but nobody's, or none of its business.
    assert_eq!(named("10.0.1.77"), Found::Unknown);
    assert_eq!(named("10.200.2.2"), Found::Unknown);
    assert_eq!(named("10.0.3.51"), Found::Elsewhere);
    assert_eq!(named("10.77.0.1"), Found::Elsewhere);
    assert_eq!(ask(&reverse("10.0.1.2"), A), Found::Empty);
}
