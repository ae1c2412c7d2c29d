//! Links, addresses, routes, neighbours and rules: made as in the recipe, listed by us and by `ip`.

use std::net::Ipv4Addr;

use racimo_agent::net::netlink::Error;
use racimo_agent::net::netlink::route::{
    Address, Change, Fdb, LOOPBACK, Link, LinkKind, MAIN, Neighbour, NewKind, NewLink, OURS, Place, PortFlags, Route,
    RouteEntry, Rule, Target, Vxlan,
};
use racimo_common::net::{MESH_VNI, Subnet, VXLAN_PORT, mac};

use crate::support::Lab;

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn net(text: &str) -> Subnet {
    text.parse().unwrap()
}

fn vxlan<'a>(name: &'a str, vni: u32, local: &str, proxy: bool) -> NewLink<'a> {
    let kind = NewKind::Vxlan(Vxlan { vni, port: VXLAN_PORT, local: ip(local), proxy });
    NewLink { name, mac: None, mtu: 1450, up: None, master: None, kind }
}

fn link(route: &mut Route, name: &str) -> Link {
    route.link(name).unwrap().unwrap_or_else(|| panic!("no link {name}"))
}

#[test]
#[ignore = "needs root"]
fn a_board_s_part_of_the_mesh() {
    let lab = Lab::new();
    let board = lab.make("board");
    let mut route = Route::open_in(&board).unwrap();
    assert_eq!(route.link("rc-mesh").unwrap(), None);
    let gateway = ip("10.200.1.1");
    route.add_link(&NewLink {
        mac: Some(mac(gateway)),
        up: Some(true),
        ..vxlan("rc-mesh", MESH_VNI, "10.77.0.1", false)
    });
    route.run().unwrap();
    let mesh = link(&mut route, "rc-mesh");
    assert_eq!((mesh.mac, mesh.mtu, mesh.up, mesh.master), (Some(mac(gateway)), 1450, true, None));
    let kind = Vxlan { vni: MESH_VNI, port: VXLAN_PORT, local: ip("10.77.0.1"), proxy: false };
    assert_eq!(mesh.kind, LinkKind::Vxlan(kind, false));

    let own = Address { link: mesh.index, address: gateway, prefix: 32 };
    let peer = ip("10.200.2.1");
    let hole =
        RouteEntry { table: MAIN, to: net("10.200.1.0/24"), target: Target::Blackhole, source: None, protocol: OURS };
    let onlink = Target::Link { link: mesh.index, via: Some(peer), onlink: true };
    let there = RouteEntry { to: net("10.200.2.0/24"), target: onlink, ..hole };
    let marked = RouteEntry { table: 5202, to: net("0.0.0.0/0"), ..there };
    let neighbour = Neighbour { link: mesh.index, address: peer, mac: mac(peer) };
    let entry = Fdb { link: mesh.index, mac: mac(peer), place: Place::Peer(ip("10.77.0.2")) };
    let rule = Rule { priority: 2002, mark: 0x5202, table: 5202, protocol: OURS };
    // All of it can be done again.
    for _ in 0..2 {
        route.replace_address(own);
        route.replace_route(&hole);
        route.replace_neighbour(neighbour);
        route.replace_route(&there);
        route.replace_route(&marked);
        route.replace_fdb(entry);
        route.add_rule(&rule);
        route.run().unwrap();
    }
    assert_eq!(route.addresses().unwrap(), [own]);
    let mut routes = route.routes(|entry| entry.protocol == OURS).unwrap();
    routes.sort();
    assert_eq!(routes, [hole, there, marked]);
    assert_eq!(route.neighbours(Some(mesh.index)).unwrap(), [neighbour]);
    assert_eq!(route.neighbours(Some(LOOPBACK)).unwrap(), []);
    assert_eq!(route.neighbours(None).unwrap(), [neighbour]);
    assert_eq!(route.fdb(mesh.index).unwrap(), [entry]);
    assert_eq!(route.rules().unwrap(), [rule]);
    let shown =
        lab.inside("board", "ip route show; ip route show table 5202; ip rule show; ip neigh show; bridge fdb show");
    for line in [
        "blackhole 10.200.1.0/24 proto 82 ",
        "10.200.2.0/24 via 10.200.2.1 dev rc-mesh proto 82 onlink ",
        "default via 10.200.2.1 dev rc-mesh proto 82 onlink ",
        "2002:\tfrom all fwmark 0x5202 lookup 5202 proto 82",
        "10.200.2.1 dev rc-mesh lladdr 02:42:0a:c8:02:01 PERMANENT",
        "02:42:0a:c8:02:01 dev rc-mesh dst 10.77.0.2 self permanent",
    ] {
        assert!(shown.contains(line), "{line:?} is not in\n{shown}");
    }

    // The peer moves; then the board itself.
    let moved = Fdb { place: Place::Peer(ip("10.77.0.9")), ..entry };
    route.replace_fdb(moved);
    route.change_link(mesh.index, &Change { vxlan_local: Some(ip("10.77.0.8")), ..Change::default() });
    route.run().unwrap();
    assert_eq!(route.fdb(mesh.index).unwrap(), [moved]);
    let kind = Vxlan { local: ip("10.77.0.8"), ..kind };
    assert_eq!(link(&mut route, "rc-mesh").kind, LinkKind::Vxlan(kind, false));

    // All of it goes, and going again is fine.
    for _ in 0..2 {
        route.delete_rule(&rule);
        route.delete_fdb(entry);
        route.delete_neighbour(mesh.index, peer);
        route.delete_route(&marked);
        route.delete_route(&there);
        route.delete_route(&hole);
        route.delete_address(own);
        route.run().unwrap();
    }
    assert_eq!(route.routes(|entry| entry.protocol == OURS).unwrap(), []);
    assert_eq!((route.rules().unwrap(), route.neighbours(None).unwrap()), (vec![], vec![]));
    assert_eq!((route.addresses().unwrap(), route.fdb(mesh.index).unwrap()), (vec![], vec![]));
    for _ in 0..2 {
        route.delete_link(mesh.index);
        route.delete_link_named("rc-mesh");
        route.run().unwrap();
    }
    assert_eq!(route.link("rc-mesh").unwrap(), None);
}

#[test]
#[ignore = "needs root"]
fn an_overlay_with_a_task() {
    let lab = Lab::new();
    let (board, overlays, task) = (lab.make("board"), lab.make("racimo"), lab.make("task"));
    let mut outside = Route::open_in(&board).unwrap();
    let mut inside = Route::open_in(&overlays).unwrap();
    outside.add_link(&vxlan("rcv4097", 4097, "10.77.0.1", true));
    outside.run().unwrap();
    let index = link(&mut outside, "rcv4097").index;
    outside.change_link(index, &Change { namespace: Some(&overlays), ..Change::default() });
    outside.run().unwrap();
    assert_eq!(outside.link("rcv4097").unwrap(), None);

    let bridge = NewLink { name: "rcb4097", mac: None, mtu: 1450, up: Some(true), master: None, kind: NewKind::Bridge };
    inside.add_link(&bridge);
    inside.run().unwrap();
    let bridge = link(&mut inside, "rcb4097");
    assert_eq!((bridge.kind, bridge.up), (LinkKind::Bridge, true));
    let wire = link(&mut inside, "rcv4097").index;
    inside.change_link(wire, &Change { master: Some(bridge.index), ..Change::UP });
    let wire_flags = PortFlags { learning: false, flood: true, multicast: false, broadcast: true };
    inside.set_port(wire, wire_flags);

    let address = ip("10.0.1.11");
    inside.add_link(&NewLink {
        name: "v4097-1",
        mac: None,
        mtu: 1450,
        up: Some(true),
        master: Some(bridge.index),
        kind: NewKind::Veth { peer: "eth1", mac: Some(mac(address)), namespace: Some(&task) },
    });
    inside.run().unwrap();
    let port = link(&mut inside, "v4097-1");
    let port_flags = PortFlags { learning: false, flood: false, multicast: true, broadcast: true };
    inside.set_port(port.index, port_flags);
    let local = Fdb { link: port.index, mac: mac(address), place: Place::Port };
    let far = ip("10.0.1.12");
    let remote = Fdb { link: wire, mac: mac(far), place: Place::Peer(ip("10.77.0.2")) };
    for _ in 0..2 {
        inside.replace_fdb(local);
        inside.replace_fdb(remote);
        inside.replace_neighbour(Neighbour { link: wire, address: far, mac: mac(far) });
        inside.run().unwrap();
    }
    assert_eq!(inside.fdb(port.index).unwrap(), [local]);
    assert_eq!(inside.fdb(wire).unwrap(), [remote]);
    let port = link(&mut inside, "v4097-1");
    assert_eq!((port.kind, port.master, port.port), (LinkKind::Veth, Some(bridge.index), Some(port_flags)));
    assert_eq!(link(&mut inside, "rcv4097").port, Some(wire_flags));
    assert!(lab.inside("racimo", "ip -d link show rcb4097").contains(" mcast_snooping 0 "));

    let mut own = Route::open_in(&task).unwrap();
    let eth = link(&mut own, "eth1");
    assert_eq!((eth.mac, eth.mtu, eth.up), (Some(mac(address)), 1450, false));
    own.change_link(LOOPBACK, &Change::UP);
    own.replace_address(Address { link: eth.index, address, prefix: 24 });
    own.change_link(eth.index, &Change::UP);
    own.run().unwrap();
    let names: Vec<(Box<str>, bool)> = own.links().unwrap().into_iter().map(|link| (link.name, link.up)).collect();
    assert!(names.contains(&("eth1".into(), true)) && names.contains(&("lo".into(), true)), "{names:?}");

    inside.delete_link(port.index);
    inside.run().unwrap();
    assert_eq!(own.link("eth1").unwrap(), None);
}

#[test]
#[ignore = "needs root"]
fn refusals_say_which_and_why_and_do_not_keep_others_back() {
    let lab = Lab::new();
    let inside = lab.make("t1");
    let mut route = Route::open_in(&inside).unwrap();
    route.change_link(LOOPBACK, &Change::UP);
    let gone = RouteEntry {
        table: MAIN,
        to: net("10.9.0.0/16"),
        target: Target::Link { link: LOOPBACK, via: Some(ip("192.0.2.1")), onlink: false },
        source: None,
        protocol: OURS,
    };
    route.replace_route(&gone);
    route.add_link(&vxlan("rc-mesh", 1, "127.0.0.1", false));
    route.add_link(&vxlan("rc-mesh", 2, "127.0.0.1", false));
    let error = route.run().unwrap_err();
    assert_eq!(error.errno(), Some(libc::ENETUNREACH));
    assert_eq!(
        error.to_string(),
        "add a route (message 2): Network is unreachable (os error 101): Nexthop has invalid gateway"
    );
    assert!(route.link("rc-mesh").unwrap().is_some(), "the others were done");
    route.add_link(&vxlan("rc-mesh", 2, "127.0.0.1", false));
    assert_eq!(route.run().unwrap_err().errno(), Some(libc::EEXIST));
    assert!(route.run().is_ok(), "the queue is empty after a failure");
    let long = "a-name-with-more-than-15";
    route.add_link(&vxlan(long, 3, "127.0.0.1", false));
    assert!(matches!(route.run().unwrap_err(), Error::Refused { number: 1, .. }));
}

/// More than is sent at once, with more failures than answers fit the buffer.
#[test]
#[ignore = "needs root"]
fn thousands_at_once() {
    let lab = Lab::new();
    let inside = lab.make("t1");
    let mut route = Route::open_in(&inside).unwrap();
    route.add_link(&NewLink { up: Some(true), ..vxlan("rcv1", 4097, "127.0.0.1", true) });
    route.run().unwrap();
    let index = link(&mut route, "rcv1").index;
    let all: Vec<Ipv4Addr> = (0..3000).map(|at| Ipv4Addr::from(0x0a00_0100 + at)).collect();
    for address in &all {
        route.replace_neighbour(Neighbour { link: index, address: *address, mac: mac(*address) });
        route.replace_fdb(Fdb { link: index, mac: mac(*address), place: Place::Peer(ip("10.77.0.2")) });
    }
    route.run().unwrap();
    assert_eq!(route.neighbours(Some(index)).unwrap().len(), all.len());
    assert_eq!(route.fdb(index).unwrap().len(), all.len());
    for _ in 0..2 {
        for address in &all {
            route.delete_neighbour(index, *address);
            route.delete_fdb(Fdb { link: index, mac: mac(*address), place: Place::Peer(ip("10.77.0.2")) });
        }
        route.run().unwrap();
    }
    assert_eq!((route.neighbours(None).unwrap(), route.fdb(index).unwrap()), (vec![], vec![]));
    for _ in 0..5000 {
        route.add_link(&vxlan("rcv1", 1, "127.0.0.1", false));
    }
    assert_eq!(route.run().unwrap_err().errno(), Some(libc::EEXIST));
    assert_eq!(route.links().unwrap().len(), 2);
}
