//! nf_tables: the recipe's rules as bytes (golden), and what `nft` says that the kernel made of these bytes.
//!
//! `RACIMO_UPDATE_GOLDEN=1` writes the golden files anew; as root with `--include-ignored` also what `nft` says.

use std::fmt::Write;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use racimo_agent::limits::NETLINK_PART;
use racimo_agent::net::netlink::message::Messages;
use racimo_agent::net::netlink::nft::{
    Base, DSTNAT, ESTABLISHED, FILTER, Hook, Key, MANGLE, NEW, Nft, RAW, RELATED, Rule, SRCNAT, SetKind, Transaction,
    Value,
};
use racimo_agent::net::ns::Namespace;
use racimo_common::net::{Subnet, VXLAN_PORT, mac};
use racimo_common::object::Protocol::{Sctp, Tcp, Udp};

use crate::support::Lab;

const TABLE: &str = "racimo";

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn net(text: &str) -> Subnet {
    text.parse().unwrap()
}

fn base(nat: bool, hook: Hook, priority: i32) -> Base {
    Base { nat, hook, priority }
}

fn endpoints(count: u32, port: Option<u16>) -> Vec<(Ipv4Addr, Option<u16>)> {
    (0..count).map(|at| (Ipv4Addr::from(0x0ac8_0102 + at), port)).collect()
}

/// The second part of the recipe, and its "keep client addresses".
fn board() -> Transaction<'static> {
    let gateway = ip("10.200.1.1");
    let (own, mesh, loopback) = (net("10.200.1.0/24"), net("10.200.0.0/16"), net("127.0.0.0/8"));
    let (legs, wire) = ("rg-*", "rc-mesh");
    let mut t = Transaction::new(TABLE);
    t.add_table();
    t.delete_table();
    t.add_table();
    t.add_set("peers", SetKind::Addresses);
    t.add_elements(
        "peers",
        ["10.77.0.1", "10.77.0.2", "10.77.0.3"].map(|peer| (Key::Address(ip(peer)), Value::Present)),
    );
    t.add_set("pub", SetKind::PortVerdicts);
    t.add_set("origin", SetKind::MacMarks);
    t.add_elements("origin", [(Key::Mac(mac(ip("10.200.2.1"))), Value::Mark(0x5202))]);

    t.add_base_chain("guard", base(false, Hook::Prerouting, RAW));
    for device in [legs, wire] {
        t.rule("guard", |r| {
            r.iifname(device, true).daddr(loopback, true).drop();
        });
    }
    t.rule("guard", |r| {
        r.dport(Udp, VXLAN_PORT).daddr_is_local().saddr_in("peers", false).drop();
    });
    t.rule("guard", |r| {
        r.dport(Udp, VXLAN_PORT).daddr_is_local().untrack();
    });
    for (chain, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        t.add_base_chain(chain, base(true, hook, DSTNAT));
        t.rule(chain, |r| {
            r.daddr_is_local().port_verdict("pub");
        });
    }
    t.add_base_chain("postrouting", base(true, Hook::Postrouting, SRCNAT));
    t.rule("postrouting", |r| {
        r.oifname(wire, true).ct_is_dnat().ct_mark(0x5300, false).snat(gateway);
    });
    t.rule("postrouting", |r| {
        r.oifname(wire, true).ct_is_dnat().saddr_in("peers", true).snat(gateway);
    });
    for inside in [loopback, own] {
        t.rule("postrouting", |r| {
            r.oifname(legs, true).ct_is_dnat().saddr(inside, true).snat(gateway);
        });
    }
    t.rule("postrouting", |r| {
        r.saddr(own, true).oifname(legs, false).oifname(wire, false).masquerade();
    });

    t.add_base_chain("forward", base(false, Hook::Forward, FILTER));
    t.rule("forward", |r| {
        r.iifname(legs, false).iifname(wire, false).oifname(legs, false).oifname(wire, false).accept();
    });
    t.rule("forward", |r| {
        r.ct_state(ESTABLISHED | RELATED).accept();
    });
    t.rule("forward", |r| {
        r.ct_is_dnat().accept();
    });
    t.rule("forward", |r| {
        r.iifname(wire, true).oifname(legs, true).saddr(mesh, true).accept();
    });
    t.rule("forward", |r| {
        r.iifname(legs, true).oifname(legs, false).oifname(wire, false).accept();
    });
    t.rule("forward", |r| {
        r.drop();
    });

    t.add_base_chain("origin", base(false, Hook::Prerouting, MANGLE));
    t.rule("origin", |r| {
        r.iifname(wire, true).ct_state(NEW).saddr(mesh, false).set_ct_mark_by_mac("origin");
    });
    t.rule("origin", |r| {
        r.iifname(legs, true).ct_is_reply().ct_mark(0, false).set_mark_of_ct();
    });
    t.add_base_chain("unmark", base(false, Hook::Postrouting, MANGLE));
    t.rule("unmark", |r| {
        r.oifname(wire, true).set_mark(0);
    });

    t.add_chain("p_tcp_80");
    t.balance("p_tcp_80", &endpoints(3, Some(8080)), |r| {
        r.protocol(Tcp);
    });
    t.add_chain("p_udp_53");
    t.rule("p_udp_53", |r| {
        r.set_ct_mark(0x5300);
    });
    t.balance("p_udp_53", &endpoints(1, Some(53)), |r| {
        r.protocol(Udp);
    });
    t.add_chain("p_sctp_9");
    t.rule("p_sctp_9", |r| {
        r.reject_port_unreachable();
    });
    t.add_chain("p_tcp_81");
    t.rule("p_tcp_81", |r| {
        r.protocol(Tcp).reject_with_reset();
    });
    t.add_chain("p_tcp_82");
    t.balance("p_tcp_82", &endpoints(17, Some(8082)), |r| {
        r.protocol(Tcp);
    });
    let ports = [(Tcp, 80), (Udp, 53), (Sctp, 9), (Tcp, 81), (Tcp, 82)];
    let names = ports.map(|(protocol, port)| format!("p_{protocol}_{port}"));
    let elements = ports.iter().zip(&names).map(|(&(protocol, port), to)| (Key::port(protocol, port), Value::Goto(to)));
    t.add_elements("pub", elements);
    t
}

/// The third part: what is in a task's own namespace.
fn task() -> Transaction<'static> {
    let resolver = ip("127.0.0.11");
    let mut t = Transaction::new(TABLE);
    t.add_table();
    t.add_set("vips", SetKind::AddressVerdicts);
    t.add_base_chain("output", base(true, Hook::Output, DSTNAT));
    t.rule("output", |r| {
        r.daddr_verdict("vips");
    });
    for protocol in [Udp, Tcp] {
        t.rule("output", |r| {
            r.daddr(Subnet::of(resolver, 32), true).dport(protocol, 53).dnat(resolver, Some(10053));
        });
    }
    t.add_base_chain("prerouting", base(true, Hook::Prerouting, DSTNAT));
    t.rule("prerouting", |r| {
        r.daddr_verdict("vips");
    });
    for (chain, count) in [("v_10.0.1.2", 2), ("v_10.0.1.3", 20)] {
        t.add_chain(chain);
        t.balance(chain, &endpoints(count, None), |_| {});
    }
    t.add_chain("v_10.0.1.4");
    t.rule("v_10.0.1.4", |r| {
        r.protocol(Tcp).reject_with_reset();
    });
    t.rule("v_10.0.1.4", |r| {
        r.reject_port_unreachable();
    });
    let vips = ["10.0.1.2", "10.0.1.3", "10.0.1.4"].map(|vip| (Key::Address(ip(vip)), format!("v_{vip}")));
    t.add_elements("vips", vips.iter().map(|(key, to)| (*key, Value::Goto(to))));
    t
}

/// Shapes that the recipe has no example of.
fn others() -> Transaction<'static> {
    let mut t = Transaction::new("racimo-test");
    t.add_table();
    t.add_base_chain("input", base(false, Hook::Input, FILTER));
    for (text, equal) in
        [("10.0.1.64/26", true), ("10.0.1.64/26", false), ("172.16.0.0/12", false), ("0.0.0.0/0", true)]
    {
        t.rule("input", |r| {
            r.saddr(net(text), equal).daddr(net(text), equal).accept();
        });
    }
    t.rule("input", |r| {
        r.iifname("eth0", false).ct_mark(0x5202, true).accept();
    });
    t.add_chain("one");
    t.rule("one", |r| {
        r.oifname("a-name-of-15-by", true).protocol(Sctp).drop();
    });
    t.add_chain("old");
    t.rule("old", |r| {
        r.accept();
    });
    t.flush_chain("old");
    t.delete_chain("old");
    t
}

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/nft").join(name)
}

#[track_caller]
fn check(name: &str, is: &str) {
    let path = golden(name);
    if std::env::var_os("RACIMO_UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, is).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(is, golden, "{name} differs");
}

/// A line for each message: its kind, flags and number, then its body.
fn hex(transaction: Transaction<'_>) -> String {
    let (batch, last) = transaction.finish();
    assert!(batch.is_whole() && last + 1 == batch.count());
    let mut text = String::new();
    for message in Messages(batch.bytes()) {
        write!(text, "{:04x} {:04x} {:3} ", message.kind, message.flags, message.sequence).unwrap();
        message.body.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
        text.push('\n');
    }
    text
}

#[test]
fn transactions_are_these_bytes() {
    check("board.hex", &hex(board()));
    check("task.hex", &hex(task()));
    check("others.hex", &hex(others()));
}

#[test]
#[ignore = "needs root"]
fn nft_reads_what_the_recipe_says() {
    let lab = Lab::new();
    for (name, transaction) in [("board", board()), ("task", task()), ("others", others())] {
        let mut nft = Nft::open_in(&lab.make(name)).unwrap();
        nft.run(transaction).unwrap();
        check(&format!("{name}.nft"), &lab.inside(name, "nft list ruleset"));
    }
}

#[test]
#[ignore = "needs root"]
fn a_service_changes_in_one_step_and_goes() {
    let lab = Lab::new();
    let inside = lab.make("t1");
    let mut nft = Nft::open_in(&inside).unwrap();
    assert_eq!(nft.tables().unwrap(), []);
    assert_eq!(nft.chains(TABLE).unwrap(), []);
    assert_eq!(nft.elements(TABLE, "pub", SetKind::PortVerdicts).unwrap(), []);
    // Twice, as after a restart.
    for _ in 0..2 {
        nft.run(board()).unwrap();
    }
    assert_eq!(nft.tables().unwrap(), [TABLE.into()]);
    let chains = nft.chains(TABLE).unwrap();
    assert_eq!(chains.len(), 12, "{chains:?}");
    assert!(chains.contains(&"guard".into()) && chains.contains(&"p_tcp_80".into()));
    let mut ports = nft.elements(TABLE, "pub", SetKind::PortVerdicts).unwrap();
    ports.sort();
    assert_eq!(ports, [(Tcp, 80), (Tcp, 81), (Tcp, 82), (Udp, 53), (Sctp, 9)].map(|(p, n)| Key::port(p, n)));
    let peers = nft.elements(TABLE, "peers", SetKind::Addresses).unwrap();
    assert!(peers.len() == 3 && peers.contains(&Key::Address(ip("10.77.0.2"))));
    let origins = nft.elements(TABLE, "origin", SetKind::MacMarks).unwrap();
    assert_eq!(origins, [Key::Mac(mac(ip("10.200.2.1")))]);

    for count in [1, 16, 17, 300, 2] {
        let mut t = Transaction::new(TABLE);
        t.add_chain("p_tcp_80");
        t.flush_chain("p_tcp_80");
        t.balance("p_tcp_80", &endpoints(count, Some(80)), |r: &mut Rule<'_>| {
            r.protocol(Tcp);
        });
        t.add_elements("pub", [(Key::port(Tcp, 80), Value::Goto("p_tcp_80"))]);
        nft.run(t).unwrap();
        let rules = lab.inside("t1", "nft list chain ip racimo p_tcp_80");
        let expected = if count > 16 { 2 } else { count as usize };
        assert_eq!(rules.matches("dnat ").count(), expected, "{rules}");
    }
    let mut t = Transaction::new(TABLE);
    t.delete_elements("pub", [Key::port(Tcp, 80), Key::port(Tcp, 82)]);
    for chain in ["p_tcp_80", "p_tcp_82"] {
        t.flush_chain(chain);
        t.delete_chain(chain);
    }
    nft.run(t).unwrap();
    assert_eq!(nft.chains(TABLE).unwrap().len(), 10);
    assert!(!lab.inside("t1", "nft list ruleset").contains("__map"));
    let mut t = Transaction::new(TABLE);
    t.flush_set("pub");
    nft.run(t).unwrap();
    assert_eq!(nft.elements(TABLE, "pub", SetKind::PortVerdicts).unwrap(), []);
    let mut t = Transaction::new(TABLE);
    t.delete_table();
    nft.run(t).unwrap();
    assert_eq!(nft.tables().unwrap(), []);
    nft.run(Transaction::new(TABLE)).unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_transaction_is_all_or_nothing_and_says_why_not() {
    let lab = Lab::new();
    let inside = lab.make("t1");
    let mut nft = Nft::open_in(&inside).unwrap();
    nft.run(task()).unwrap();
    let before = lab.inside("t1", "nft list ruleset");
    let mut t = Transaction::new(TABLE);
    t.flush_chain("output");
    t.rule("output", |r| {
        r.daddr_verdict("no-such-map");
    });
    let error = nft.run(t).unwrap_err();
    assert_eq!(error.to_string(), "add a rule (message 3): No such file or directory (os error 2)");
    // A failure that shows only when all is put together, and many at once.
    let mut t = Transaction::new(TABLE);
    t.add_chain("a");
    t.rule("a", |r| {
        r.daddr_verdict("vips");
    });
    t.add_elements("vips", [(Key::Address(ip("10.0.1.5")), Value::Goto("a"))]);
    let error = nft.run(t).unwrap_err();
    assert_eq!(error.errno(), Some(libc::EMLINK), "{error}");
    let mut t = Transaction::new(TABLE);
    for _ in 0..4000 {
        t.delete_chain("no-such-chain");
    }
    let error = nft.run(t).unwrap_err();
    assert_eq!(error.errno(), Some(libc::ENOENT), "{error}");
    assert_eq!(lab.inside("t1", "nft list ruleset"), before);
    let mut t = Transaction::new(TABLE);
    for _ in 0..50_000 {
        t.flush_chain("output");
    }
    assert!(nft.run(t).unwrap_err().to_string().contains("more in one batch"));
    // The socket is as good as before.
    nft.run(task()).unwrap();
    assert_eq!(nft.tables().unwrap(), [TABLE.into()]);
}

/// Four thousand elements: listed whole, through many answers.
#[test]
#[ignore = "needs root"]
fn large_sets() {
    let lab = Lab::new();
    let inside: Namespace = lab.make("t1");
    let mut nft = Nft::open_in(&inside).unwrap();
    let mut t = Transaction::new(TABLE);
    t.add_table();
    t.add_set("pub", SetKind::PortVerdicts);
    t.add_chain("a-chain-with-a-long-name-for-an-element");
    let keys = || (1..=4000).map(|port| Key::port(Udp, port));
    t.add_elements("pub", keys().map(|key| (key, Value::Goto("a-chain-with-a-long-name-for-an-element"))));
    nft.run(t).unwrap();
    let mut found = nft.elements(TABLE, "pub", SetKind::PortVerdicts).unwrap();
    found.sort();
    assert!(found.iter().copied().eq(keys()));
    let mut t = Transaction::new(TABLE);
    t.delete_elements("pub", keys().skip(1));
    nft.run(t).unwrap();
    assert_eq!(nft.elements(TABLE, "pub", SetKind::PortVerdicts).unwrap(), [Key::port(Udp, 1)]);
}

fn publish(t: &mut Transaction<'_>, port: u16, count: u32) {
    let chain = format!("p_tcp_{port}");
    t.add_chain(&chain);
    t.flush_chain(&chain);
    t.balance(&chain, &endpoints(count, Some(8080)), |r| {
        r.protocol(Tcp);
    });
    t.add_elements("pub", [(Key::port(Tcp, port), Value::Goto(&chain))]);
}

/// All that a large cluster has, in parts that fit a small heap; then one change, and all of it again.
#[test]
#[ignore = "needs root"]
fn five_hundred_services_with_ten_endpoints_each() {
    let lab = Lab::new();
    let inside = lab.make("t1");
    let mut nft = Nft::open_in(&inside).unwrap();
    nft.run(board()).unwrap();
    for round in ["the whole", "the whole again"] {
        let start = Instant::now();
        let (mut parts, mut largest, mut kernel) = (0, 0, Duration::ZERO);
        let mut t = Transaction::new(TABLE);
        for port in 20_000..20_500 {
            publish(&mut t, port, 10);
            if t.len() >= NETLINK_PART {
                let full = std::mem::replace(&mut t, Transaction::new(TABLE));
                largest = largest.max(full.len());
                let sent = Instant::now();
                nft.run(full).unwrap();
                kernel += sent.elapsed();
                parts += 1;
            }
        }
        nft.run(t).unwrap();
        let all = start.elapsed();
        eprintln!("{round}: {all:?}, of it {kernel:?} in the kernel; {} parts of up to {largest} bytes", parts + 1);
        assert!(largest < NETLINK_PART + 8192, "{largest}");
    }
    let mut times: Vec<Duration> = (0..20)
        .map(|at| {
            let start = Instant::now();
            let mut t = Transaction::new(TABLE);
            publish(&mut t, 20_000 + at, 9);
            nft.run(t).unwrap();
            start.elapsed()
        })
        .collect();
    times.sort();
    eprintln!("one service: median {:?}, worst {:?}", times[10], times[19]);
    assert_eq!(nft.elements(TABLE, "pub", SetKind::PortVerdicts).unwrap().len(), 505);
    let rules = lab.inside("t1", "nft list ruleset").matches(" numgen random mod 10 0 ").count();
    assert_eq!(rules, 480);
}

/// What is to be deleted may not be there: so it is added first, in the same step.
#[test]
#[ignore = "needs root"]
fn what_may_not_be_there_is_deleted() {
    let lab = Lab::new();
    let inside = lab.make("t1");
    let mut nft = Nft::open_in(&inside).unwrap();
    nft.run(board()).unwrap();
    let before = lab.inside("t1", "nft list ruleset");
    for there in [false, true, false] {
        if there {
            let mut t = Transaction::new(TABLE);
            publish(&mut t, 99, 3);
            nft.run(t).unwrap();
        }
        let mut t = Transaction::new(TABLE);
        t.add_chain("p_tcp_99");
        t.flush_chain("p_tcp_99");
        t.add_elements("pub", [(Key::port(Tcp, 99), Value::Goto("p_tcp_99"))]);
        t.delete_elements("pub", [Key::port(Tcp, 99)]);
        t.delete_chain("p_tcp_99");
        nft.run(t).unwrap();
        assert_eq!(lab.inside("t1", "nft list ruleset"), before);
    }
}
