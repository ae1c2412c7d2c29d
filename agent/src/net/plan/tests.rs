//! Plans as text.

use racimo_common::id::{RandomId, ServiceId};
use racimo_common::net::MTU;
use racimo_common::wire::{Ip, Net, NetAttachment, NetEndpoint, NetPort, NetService};

use super::task::Attach;
use super::*;
use crate::net::testing::{self, network, node};

mod missing;

fn ip(text: &str) -> Ip {
    Ip(text.parse().unwrap())
}

fn own(address: &str) -> NetOwn {
    NetOwn { address: ip(address), ..testing::own(1) }
}

fn peer(number: u8, address: &str) -> NetPeer {
    NetPeer { address: ip(address), ..testing::peer(number) }
}

fn task(number: u8) -> TaskId {
    TaskId::from_bits(u128::from(number) << 120)
}

/// A service on network 1; its task N is on board N / 10 and has N as the last part of its addresses.
fn service(number: u8, ports: &[(u16, u16)], tasks: &[(u8, bool)]) -> NetService {
    let endpoint = |&(number, active): &(u8, bool)| NetEndpoint {
        targets: Box::default(),
        task: task(number),
        slot: None,
        hostname: None,
        unsure: false,
        node: node(number / 10),
        mesh: Some(ip(&format!("10.200.{}.{number}", number / 10))),
        addresses: vec![ip(&format!("10.0.1.{number}"))],
        active,
    };
    let port = |&(published, target): &(u16, u16)| NetPort { protocol: Protocol::Tcp, published, target };
    NetService {
        id: ServiceId::from_bits(number.into()),
        name: format!("service{number}"),
        ports: ports.iter().map(port).collect(),
        keep_source: false,
        networks: vec![NetAttachment {
            network: NetworkId::from_bits(1),
            vip: Some(ip(&format!("10.0.1.{}", 200 + number))),
            aliases: Vec::new(),
        }],
        endpoints: tasks.iter().map(endpoint).collect(),
    }
}

/// A board with the number 1: what it was told, and what its kernel was.
#[derive(Default)]
struct Bench {
    table: Table,
    tasks: BTreeMap<TaskId, Attached>,
    plan: Plan,
}

impl Bench {
    /// With two others, a network that its task 11 is on, and nothing left to do.
    fn new() -> Self {
        let mut bench = Self::default();
        let net = TaskNet {
            mesh: Some(ip("10.200.1.11")),
            networks: vec![(NetworkId::from_bits(1), ip("10.0.1.11"))],
            ..TaskNet::default()
        };
        bench.tasks.insert(task(11), Attached { net, ..Attached::default() });
        bench.take(Net {
            own: Some(own("192.168.1.1")),
            peers: vec![peer(2, "192.168.1.2"), peer(3, "192.168.1.3")],
            networks: vec![network(1)],
            ..Net::default()
        });
        bench
    }

    fn take(&mut self, net: Net) -> String {
        self.table.take_into(net, &mut self.plan.changes);
        self.ops()
    }

    fn service(&mut self, service: NetService) -> String {
        self.take(Net { services: vec![service], ..Net::default() })
    }

    fn ops(&mut self) -> String {
        let mut text = String::new();
        while let Some(ops) = self.plan.next(View { table: &self.table, tasks: &self.tasks }) {
            assert!(!ops.is_empty(), "a portion of nothing");
            for op in ops {
                text += &format!("{op}\n");
            }
        }
        text.replace(&task(11).to_string(), "11")
    }
}

#[track_caller]
fn check(found: &str, want: &str) {
    let want: String = want.lines().map(|line| line.trim().to_owned() + "\n").collect();
    assert_eq!(found.trim(), want.trim(), "\n{found}");
}

/// `RACIMO_UPDATE_GOLDEN=1` writes what was found.
#[track_caller]
fn golden(name: &str, found: &str) {
    let path = format!("{}/src/net/plan/golden/{name}.nft", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("RACIMO_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    assert_eq!(found, std::fs::read_to_string(&path).unwrap(), "{path}");
}

#[test]
fn a_board_a_service_and_its_end() {
    let mut bench = Bench::new();
    bench.plan.forget(&bench.table);
    check(
        &bench.ops(),
        "board 10.200.1.0/24 at 192.168.1.1:4789 mtu 1450
         overlay 4097 10.0.1.0/24 at 192.168.1.1:4789 mtu 1450
         peer 10.200.2.0/24 at 192.168.1.2
         peer 10.200.3.0/24 at 192.168.1.3
         overlay 4097 10.0.1.0/24 at 192.168.1.1:4789 mtu 1450",
    );
    check(
        &bench.service(service(1, &[(80, 8080)], &[(11, true), (21, false), (31, true)])),
        "publish tcp 80: 10.200.1.11:8080 10.200.3.31:8080
         task 11: 10.0.1.201: 10.0.1.11 10.0.1.31
         overlay 4097: 10.0.1.21 at 192.168.1.2
         overlay 4097: 10.0.1.31 at 192.168.1.3",
    );
    // One is healthy now: nothing is forgotten.
    check(
        &bench.service(service(1, &[(80, 8080)], &[(11, true), (21, true), (31, true)])),
        "publish tcp 80: 10.200.1.11:8080 10.200.2.21:8080 10.200.3.31:8080
         task 11: 10.0.1.201: 10.0.1.11 10.0.1.21 10.0.1.31",
    );
    // One leaves the balance, another one is gone.
    check(
        &bench.service(service(1, &[(80, 8080)], &[(11, true), (21, false)])),
        "publish tcp 80: 10.200.1.11:8080
         task 11: 10.0.1.201: 10.0.1.11
         overlay 4097: no 10.0.1.31
         forget connections to 10.200.3.31
         forget datagrams to 10.200.2.21
         forget connections to 10.0.1.31 in task 11
         forget datagrams to 10.0.1.21 in task 11",
    );
    // Another name is none of the kernel's business.
    let renamed = NetService { name: "x".into(), ..service(1, &[(80, 8080)], &[(11, true), (21, false)]) };
    check(&bench.service(renamed), "");
    check(
        &bench.service(service(1, &[(81, 8080)], &[(11, false), (21, false)])),
        "no publish tcp 80
         publish tcp 81: refuse
         task 11: 10.0.1.201: refuse
         forget datagrams to 10.200.1.11
         forget datagrams to 10.0.1.11 in task 11",
    );
    check(
        &bench.take(Net { services_gone: vec![ServiceId::from_bits(1)], ..Net::default() }),
        "no publish tcp 81
         task 11: no 10.0.1.201
         overlay 4097: no 10.0.1.11
         overlay 4097: no 10.0.1.21
         forget connections to 10.200.1.11 10.200.2.21
         forget connections to 10.0.1.11 10.0.1.21 in task 11",
    );
}

/// What is on its way to a task that leaves is answered by it.
#[test]
fn connections_that_nobody_answered_are_forgotten_a_while_later() {
    let mut bench = Bench::new();
    bench.service(service(1, &[(80, 8080)], &[(11, true), (21, true), (22, true), (31, true), (32, false)]));
    assert_eq!(bench.plan.take_left(), []);
    let left = service(1, &[(80, 8080)], &[(11, true), (21, false), (22, false), (31, false), (32, false)]);
    assert!(!bench.service(left).contains("unanswered"));
    let id = ServiceId::from_bits(1);
    let left = bench.plan.take_left();
    assert_eq!(left, [(id, task(21)), (id, task(22)), (id, task(31))]);
    assert_eq!(bench.plan.take_left(), []);
    // Meanwhile one is back, and one is gone.
    bench.service(service(1, &[(80, 8080)], &[(11, true), (21, false), (22, true), (32, false)]));
    assert_eq!(bench.plan.take_left(), []);
    bench.plan.overdue(left.clone());
    check(
        &bench.ops(),
        "forget unanswered connections to 10.200.2.21
         forget unanswered connections to 10.0.1.21 in task 11",
    );
    check(&bench.ops(), "");
    bench.take(Net { services_gone: vec![id], ..Net::default() });
    bench.plan.overdue(left);
    check(&bench.ops(), "");
}

/// An update that changes a port or adds one: older tasks have what they had.
#[test]
fn older_tasks_get_no_connections_on_ports_they_do_not_have() {
    let mut bench = Bench::new();
    bench.service(service(1, &[(80, 8080)], &[(11, true), (21, true)]));
    let mut updated = service(1, &[(80, 9090), (81, 81)], &[(11, true), (21, true)]);
    updated.endpoints[0].targets = [(0, 8080), (1, 0)].into();
    check(
        &bench.service(updated.clone()),
        "publish tcp 80: 10.200.1.11:8080 10.200.2.21:9090
         publish tcp 81: 10.200.2.21:81",
    );
    updated.endpoints[1].targets = [(1, 0)].into();
    check(&bench.service(updated), "publish tcp 81: refuse");
}

/// Whichever comes first: what the port stands for is what all items say.
#[test]
fn a_port_goes_to_another_service() {
    let mut bench = Bench::new();
    bench.service(service(2, &[(80, 8080)], &[]));
    let net = Net {
        services: vec![service(1, &[(80, 9090)], &[(11, true)])],
        services_gone: vec![ServiceId::from_bits(2)],
        ..Net::default()
    };
    let found = bench.take(net);
    let publish: Vec<&str> = found.lines().filter(|line| line.contains("publish")).collect();
    assert_eq!(publish, ["publish tcp 80: 10.200.1.11:9090"; 2], "{found}");
}

#[test]
fn boards_move_come_and_go() {
    let mut bench = Bench::new();
    let tasks = [(11, true), (21, true), (31, true), (41, true)];
    bench.service(service(1, &[], &tasks));
    check(
        &bench.take(Net { peers: vec![peer(2, "192.168.1.22"), peer(4, "192.168.1.4")], ..Net::default() }),
        "no peer 10.200.2.0/24 at 192.168.1.2
         peer 10.200.2.0/24 at 192.168.1.22
         overlay 4097: 10.0.1.21 at 192.168.1.22
         peer 10.200.4.0/24 at 192.168.1.4
         overlay 4097: 10.0.1.41 at 192.168.1.4",
    );
    check(
        &bench.take(Net { peers_gone: vec![node(3)], ..Net::default() }),
        "no peer 10.200.3.0/24 at 192.168.1.3
         overlay 4097: no 10.0.1.31",
    );
    // A new peer has the address of one that is not gone yet.
    check(
        &bench.take(Net { peers: vec![peer(2, "192.168.1.4"), peer(4, "192.168.1.5")], ..Net::default() }),
        "no peer 10.200.2.0/24 at 192.168.1.22
         peer 10.200.2.0/24 at 192.168.1.4
         overlay 4097: 10.0.1.21 at 192.168.1.4
         no peer 10.200.4.0/24 at 192.168.1.4, which another one has
         peer 10.200.4.0/24 at 192.168.1.5
         overlay 4097: 10.0.1.41 at 192.168.1.5",
    );
    // The board itself moves: no task notices.
    check(
        &bench.take(Net { own: Some(own("192.168.1.9")), ..Net::default() }),
        "board 10.200.1.0/24 at 192.168.1.9:4789 mtu 1450
         no board at 192.168.1.1
         overlay 4097 10.0.1.0/24 at 192.168.1.9:4789 mtu 1450",
    );
    check(&bench.take(Net { complete: true, last: true, ..Net::default() }), "no board");
    check(&bench.ops(), "");
}

/// Whichever is told first: what another board or service has now stays.
#[test]
fn what_goes_takes_nothing_from_its_heir() {
    let mut bench = Bench::new();
    let heir = NetPeer { node: node(2), ..peer(3, "192.168.1.2") };
    check(
        &bench.take(Net { peers: vec![heir], peers_gone: vec![node(3)], ..Net::default() }),
        "no peer 10.200.2.0/24 at 192.168.1.2, which another one has
         peer 10.200.3.0/24 at 192.168.1.2
         no peer 10.200.3.0/24 at 192.168.1.3
         peer 10.200.3.0/24 at 192.168.1.2",
    );
    bench.service(service(2, &[], &[(21, false)]));
    let services = vec![service(1, &[], &[(21, false)])];
    let found = bench.take(Net { services, services_gone: vec![ServiceId::from_bits(2)], ..Net::default() });
    let remotes: Vec<&str> = found.lines().filter(|line| line.starts_with("overlay")).collect();
    assert_eq!(remotes, ["overlay 4097: 10.0.1.21 at 192.168.1.2"; 2], "{found}");
    // An address that the board had, and another board has now.
    let net = Net { own: Some(own("192.168.1.9")), peers: vec![peer(4, "192.168.1.1")], ..Net::default() };
    assert!(!bench.take(net).contains("no board"));
}

#[test]
fn each_task_that_comes_is_told_where_others_are() {
    let mut bench = Bench::new();
    bench.service(service(1, &[], &[(21, true)]));
    let attached = bench.tasks[&task(11)].clone();
    // It may have come at the same time, and be behind.
    bench.tasks.insert(task(12), attached.clone());
    let ops = View { table: &bench.table, tasks: &bench.tasks }.arrival(&attached);
    let found: Vec<String> = ops.iter().map(ToString::to_string).collect();
    assert!(found.contains(&"overlay 4097: 10.0.1.21 at 192.168.1.2".to_owned()), "{found:?}");
}

#[test]
fn a_task_has_its_port_for_itself() {
    let mut bench = Bench::new();
    let ports = vec![HostPort { protocol: Protocol::Tcp, published: 30_000, target: 81 }];
    bench.tasks.get_mut(&task(11)).unwrap().ports = ports;
    let found = bench.service(service(1, &[(30_000, 80)], &[(21, true)]));
    assert!(found.starts_with("publish tcp 30000: 10.200.1.11:81\n"), "{found}");
}

/// One transaction for each task, not one for each address.
#[test]
fn what_tasks_are_told_together_is_together() {
    let mut bench = Bench::new();
    bench.tasks.insert(task(12), bench.tasks[&task(11)].clone());
    let found = bench.take(Net { services: (1..=3).map(|n| service(n, &[], &[])).collect(), ..Net::default() });
    let tasks: Vec<&str> = found.lines().filter_map(|line| line.strip_prefix("task ")?.get(..2)).collect();
    assert_eq!(tasks.len(), 6, "{found}");
    assert!(tasks.windows(2).filter(|pair| pair[0] != pair[1]).count() == 1, "{found}");
}

/// Nor if all is told anew before it was told.
#[test]
fn connections_of_tasks_that_went_are_always_forgotten() {
    let mut bench = Bench::new();
    bench.service(service(1, &[(80, 80)], &[(21, true), (31, true)]));
    bench.service(service(2, &[(81, 80)], &[(22, true)]));
    let net = Net {
        services: vec![service(1, &[(80, 80)], &[(21, true)])],
        services_gone: vec![ServiceId::from_bits(2)],
        ..Net::default()
    };
    bench.table.take_into(net, &mut bench.plan.changes);
    bench.plan.forget(&bench.table);
    let found = bench.ops();
    for wanted in [
        "publish tcp 80: 10.200.2.21:80",
        "no publish tcp 81",
        "overlay 4097: 10.0.1.21 at 192.168.1.2",
        "task 11: 10.0.1.201: 10.0.1.21",
        "forget connections to 10.200.3.31",
        "forget connections to 10.200.2.22",
    ] {
        assert!(found.lines().any(|line| line == wanted), "{wanted}: {found}");
    }
}

#[test]
fn clients_addresses_are_kept_while_a_service_asks_for_it() {
    let mut bench = Bench::new();
    let kept = NetService { keep_source: true, ..service(1, &[(80, 80)], &[(21, true)]) };
    let found = bench.service(kept);
    check(
        &found,
        "board 10.200.1.0/24 at 192.168.1.1:4789 mtu 1450 keeps sources
         peer 10.200.2.0/24 at 192.168.1.2 mark 0x52000002
         peer 10.200.3.0/24 at 192.168.1.3 mark 0x52000003
         overlay 4097 10.0.1.0/24 at 192.168.1.1:4789 mtu 1450
         publish tcp 80: 10.200.2.21:80 keeps sources
         task 11: 10.0.1.201: 10.0.1.21
         overlay 4097: 10.0.1.21 at 192.168.1.2",
    );
    let found = bench.service(service(1, &[(80, 80)], &[(21, true)]));
    check(
        &found,
        "board 10.200.1.0/24 at 192.168.1.1:4789 mtu 1450
         peer 10.200.2.0/24 at 192.168.1.2
         peer 10.200.3.0/24 at 192.168.1.3
         overlay 4097 10.0.1.0/24 at 192.168.1.1:4789 mtu 1450
         publish tcp 80: 10.200.2.21:80",
    );
}

#[test]
fn encrypted_networks_travel_inside_the_encryption() {
    let mut bench = Bench::new();
    let secret = NetNetwork { encrypted: true, ..network(1) };
    bench.service(service(1, &[], &[(21, true), (31, true)]));
    let with_key = NetPeer { key: Some(Default::default()), ..peer(2, "192.168.1.2") };
    let found = bench.take(Net { networks: vec![secret], peers: vec![with_key], ..Net::default() });
    check(
        &found,
        "board 10.200.1.0/24 at 192.168.1.1:4789 mtu 1450 encrypts
         overlay 4097 10.0.1.0/24 at 10.200.1.0:4790 mtu 1450
         overlay 4097: 10.0.1.21 at 10.200.2.0
         overlay 4097 10.0.1.0/24 at 10.200.1.0:4790 mtu 1450",
    );
}

#[test]
fn a_change_of_one_service_is_small_and_many_are_cut() {
    let mut bench = Bench::new();
    let many = |active: bool| -> Vec<NetService> {
        (1..=40).map(|n| service(n, &[(8000 + u16::from(n), 80)], &[(11, active), (21, true)])).collect()
    };
    bench.table.take_into(Net { services: many(true), ..Net::default() }, &mut bench.plan.changes);
    let view = View { table: &bench.table, tasks: &bench.tasks };
    let first = bench.plan.next(view).unwrap();
    assert!(first.len() <= 3 * limits::NET_PORTION, "{}", first.len());
    assert!(bench.plan.next(view).is_some());
    bench.ops();
    let one = bench.service(service(7, &[(8007, 80)], &[(11, false), (21, true)]));
    assert_eq!(one.lines().filter(|line| !line.starts_with("forget")).count(), 2, "{one}");
}

#[test]
fn nothing_is_left_to_do_after_it_was_done() {
    let mut bench = Bench::new();
    let same = || Net {
        complete: true,
        last: true,
        own: Some(own("192.168.1.1")),
        peers: vec![peer(2, "192.168.1.2"), peer(3, "192.168.1.3")],
        networks: vec![network(1)],
        services: vec![service(1, &[(80, 80)], &[(11, true), (21, true)])],
        ..Net::default()
    };
    assert!(!bench.take(same()).is_empty());
    check(&bench.take(same()), "");
    bench.plan.forget(&bench.table);
    assert!(bench.ops().contains("publish tcp 80: 10.200.1.11:80 10.200.2.21:80"));
    check(&bench.ops(), "");
}

#[test]
fn the_rules_of_a_board() {
    let chains = |keeps_source, encrypts| -> String {
        let board = Board { own: own("192.168.1.1"), keeps_source, encrypts };
        board.chains().iter().map(ToString::to_string).collect()
    };
    golden("board", &chains(false, false));
    golden("board-keeps-source", &chains(true, true));
}

#[test]
fn the_rules_of_a_port() {
    let rules = |backends: &Backends| -> String { backends.rules().iter().map(|r| rule::text(r) + "\n").collect() };
    let mut backends = Backends { protocol: Some(Protocol::Tcp), ..Backends::default() };
    check(&rules(&backends), "meta l4proto tcp reject with tcp reset");
    backends.to = ["10.200.1.3", "10.200.2.4", "10.200.3.5"].map(|a| (a.parse().unwrap(), Some(8080))).into();
    check(
        &rules(&backends),
        "meta l4proto tcp numgen random mod 3 0 dnat to 10.200.1.3:8080
         meta l4proto tcp numgen random mod 2 0 dnat to 10.200.2.4:8080
         meta l4proto tcp dnat to 10.200.3.5:8080",
    );
    backends.keeps_source = true;
    backends.to.truncate(1);
    check(&rules(&backends), "ct mark set 0x53000000\nmeta l4proto tcp dnat to 10.200.1.3:8080");
    check(
        &rules(&Backends::default()),
        "meta l4proto tcp reject with tcp reset
         reject with icmp type port-unreachable",
    );
    let udp = Backends { protocol: Some(Protocol::Udp), ..Backends::default() };
    check(&rules(&udp), "reject with icmp type port-unreachable");
}

#[test]
fn what_a_task_gets() {
    let bench = Bench::new();
    let view = View { table: &bench.table, tasks: &bench.tasks };
    let mut net = bench.tasks[&task(11)].net.clone();
    let attach = Attach::new(view, task(11), &net).unwrap();
    let leg = attach.leg.unwrap();
    assert_eq!((leg.gateway.to_string(), leg.mtu), ("10.200.1.1".to_owned(), MTU));
    assert_eq!(attach.networks.len(), 1);
    let text: String = attach.chains().iter().map(ToString::to_string).collect();
    golden("task", &text);
    // Without a network there are no virtual addresses.
    net.networks.clear();
    let outside = Attach::new(view, task(11), &net).unwrap();
    let text: String = outside.chains().iter().map(ToString::to_string).collect();
    assert!(text.contains("10053") && !text.contains("vips") && !text.contains("prerouting"), "{text}");
    net.networks.push((NetworkId::from_bits(9), ip("10.0.9.2")));
    assert_eq!(Attach::new(view, task(11), &net), Err(task::NotYet::Network(NetworkId::from_bits(9))));
    for place in [0, 1, 12] {
        let name = task::link(task(11), place);
        assert!(name.len() <= 15 && task::is_leg(&name) == (place == 0), "{name}");
    }
    assert!(!task::is_leg("rg-vpn") && !task::is_leg("rg-My-bridge-01"));
}
