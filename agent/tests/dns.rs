//! Names, asked by real resolvers – glibc, musl, busybox, dig – in real network namespaces.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "dns/lab.rs"]
mod lab;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab::{Lab, within};
use racimo_agent::alloc;
use racimo_agent::net::dns::Own;
use racimo_agent::net::dns::message::{Code, Query, Records};
use racimo_common::id::{NetworkId, NodeId, RandomId, ServiceId, TaskId};
use racimo_common::wire::{Ip, Net, NetAttachment, NetEndpoint, NetNetwork, NetService, TaskNet};

#[global_allocator]
static HEAP: alloc::Counting = alloc::Counting;

const NETWORK: u128 = 1;

fn ip(text: &str) -> Ip {
    Ip(text.parse().unwrap())
}

fn task(number: u128) -> TaskId {
    TaskId::from_bits(number << 100)
}

fn network() -> NetNetwork {
    NetNetwork {
        id: NetworkId::from_bits(NETWORK),
        name: "st_default".into(),
        vni: 4097,
        subnet: "10.0.0.0/16".parse().unwrap(),
        internal: false,
        encrypted: false,
        mtu: 1450,
    }
}

fn service(number: u128, name: &str, vip: Option<&str>, aliases: &[&str], tasks: u32) -> NetService {
    let endpoint = |slot: u32| NetEndpoint {
        targets: Box::default(),
        task: task(number * 1000 + u128::from(slot)),
        hostname: None,
        slot: Some(slot),
        node: NodeId::from_bits(1),
        mesh: None,
        addresses: vec![Ip(Ipv4Addr::from(0x0a00_0000 + (u32::try_from(number).unwrap() << 8) + slot))],
        active: true,
        unsure: false,
    };
    NetService {
        id: ServiceId::from_bits(number),
        name: name.into(),
        ports: Vec::new(),
        keep_source: false,
        networks: vec![NetAttachment {
            network: NetworkId::from_bits(NETWORK),
            vip: vip.map(ip),
            aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
        }],
        endpoints: (1..=tasks).map(endpoint).collect(),
    }
}

fn own(number: u128, mesh: Option<&str>) -> Own {
    let networks = vec![(NetworkId::from_bits(NETWORK), ip("10.0.9.9"))];
    let net = TaskNet { mesh: mesh.map(ip), networks, ..TaskNet::default() };
    Own { task: task(number), net, hostname: format!("host{number}"), slot_name: "app.1".into() }
}

#[test]
#[ignore = "needs root"]
fn every_resolver_finds_names() {
    let lab = Lab::new();
    let services = vec![
        service(1, "st_web", Some("10.0.1.200"), &["web"], 2),
        service(2, "st_db", None, &["db"], 3),
        service(3, "many", None, &[], 200),
        service(4, "empty", None, &[], 0),
    ];
    lab.take(Net { networks: vec![network()], services, ..Net::default() });
    lab.task("a", own(1, Some("10.200.1.9")), &[]);

    for libc in ["glibc", "musl"] {
        let check = |query: &str, want: &str| assert_eq!(lab.resolve("a", libc, query), want, "{libc}: {query}");
        // Both families at once: the absence of one must not hide the other.
        check("web", "10.0.1.200");
        check("WEB", "10.0.1.200");
        check("web 4", "10.0.1.200");
        check("st_web", "10.0.1.200");
        check("web.st_default", "10.0.1.200");
        check("tasks.web", "10.0.1.1 10.0.1.2");
        check("db", "10.0.2.1 10.0.2.2 10.0.2.3");
        check("st_web.2", "10.0.1.2");
        check(&format!("st_web.2.{}", task(1002)), "10.0.1.2");
        check(&task(2003).to_string()[..12], "10.0.2.3");
        check("host1", "10.0.9.9");
        check("good.example", "192.0.2.1");
        check("refused.example", "192.0.2.2");
        check("silent.example", "192.0.2.2");
        check("forged.example", "192.0.2.1");
        for none in ["web 6", "nobody", "empty", "nobody.example"] {
            assert!(lab.resolve("a", libc, none).starts_with("error: "), "{libc}: {none}");
        }
    }
    // With the search domain, where musl does not look as `ndots` is 0; so it is with Docker.
    assert_eq!(lab.resolve("a", "glibc", "nas"), "192.0.2.1");
    assert_eq!(lab.resolve("a", "musl", "nas.lan.example"), "192.0.2.1");
    // glibc asks again over TCP; older musl takes what fits.
    assert_eq!(lab.resolve("a", "glibc", "many").split(' ').count(), 200);
    assert_eq!(lab.resolve("a", "glibc", "big.example").split(' ').count(), 200);
    assert!(matches!(lab.resolve("a", "musl", "many").split(' ').count(), 30 | 200));
    let found = lab.inside("a", "busybox nslookup web 127.0.0.11");
    assert!(found.contains("10.0.1.200") && !found.contains("can't"), "{found}");
    let found = lab.inside("a", "busybox nslookup 10.0.1.200 127.0.0.11");
    assert!(found.contains("st_web.st_default"), "{found}");

    for protocol in ["+notcp", "+tcp"] {
        let dig = |query: &str| lab.inside("a", &format!("dig +tries=1 {protocol} {query}"));
        let short =
            |query: &str| -> BTreeSet<String> { dig(&format!("+short {query}")).lines().map(Into::into).collect() };
        assert_eq!(short("web"), BTreeSet::from(["10.0.1.200".into()]), "{protocol}");
        assert_eq!(short("big.example").len(), 200, "{protocol}");
        assert_eq!(short("good.example"), BTreeSet::from(["192.0.2.1".into()]), "{protocol}");
        assert_eq!(short("refused.example"), BTreeSet::from(["192.0.2.2".into()]), "{protocol}");
        assert_eq!(short("-x 10.0.1.1"), BTreeSet::from([format!("st_web.1.{}.st_default.", task(1001))]));
        for (query, status) in [
            ("web AAAA", "NOERROR"),
            ("web MX", "NOERROR"),
            ("empty", "NOERROR"),
            ("nobody", "NXDOMAIN"),
            ("nobody AAAA", "NXDOMAIN"),
        ] {
            let said = dig(query);
            assert!(said.contains(&format!("status: {status}")) && said.contains("ANSWER: 0"), "{query}: {said}");
        }
        let said = dig("web");
        assert!(said.contains("\t5\tIN\tA\t10.0.1.200"), "{said}");
    }
    // Truncated over UDP, and as much as fits.
    let said = lab.inside("a", "dig +ignore +noedns many");
    assert!(said.contains("flags: qr aa tc rd ra") && said.contains("ANSWER: 30,"), "{said}");
    assert_eq!(lab.inside("a", "dig +short +tcp many").lines().count(), 200);
    let orders: BTreeSet<String> = (0..10).map(|_| lab.inside("a", "dig +short db")).collect();
    assert!(orders.len() > 1, "always in the same order");

    // Services come and go; an agent's restart opens the server again.
    let gone = Net { services_gone: vec![ServiceId::from_bits(1)], ..Net::default() };
    lab.take(Net { services: vec![service(5, "new", Some("10.0.5.200"), &[], 1)], ..gone });
    assert!(lab.resolve("a", "glibc", "web").starts_with("error"));
    assert_eq!(lab.resolve("a", "musl", "new"), "10.0.5.200");
    lab.close(task(1));
    let said = lab.inside("a", "dig +tries=1 +time=1 new");
    assert!(said.contains("refused") || said.contains("no servers"), "{said}");
    lab.open("a", own(1, Some("10.200.1.9")), &[]);
    lab.open("a", own(1, Some("10.200.1.9")), &[]);
    assert_eq!(lab.resolve("a", "musl", "new"), "10.0.5.200");
}

#[test]
#[ignore = "needs root"]
fn nothing_leaves_an_internal_network() {
    let lab = Lab::new();
    lab.take(Net { networks: vec![network()], services: vec![service(1, "web", None, &[], 1)], ..Net::default() });
    lab.task("inner", own(1, None), &[]);
    assert_eq!(lab.resolve("inner", "glibc", "web"), "10.0.1.1");
    for protocol in ["+notcp", "+tcp"] {
        let said = lab.inside("inner", &format!("dig {protocol} good.example"));
        assert!(said.contains("status: SERVFAIL"), "{said}");
    }
    // A server of the service's is asked from inside: the board's loopback device is not the task's.
    lab.task("own", own(2, Some("10.200.1.9")), &["127.0.0.1"]);
    let said = lab.inside("own", "dig +tries=1 good.example");
    assert!(said.contains("status: SERVFAIL"), "{said}");
    let socket = lab.namespace("own").run(|| UdpSocket::bind("127.0.0.1:53")).unwrap().unwrap();
    std::thread::spawn(move || {
        let mut packet = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            let query = Query::parse(&packet[..length]).unwrap();
            let address = [Ipv4Addr::new(198, 51, 100, 7)];
            let answer = query.answer(Code::Fine, Records::Addresses(&address), 60, 512);
            socket.send_to(&answer, from).unwrap();
        }
    });
    assert_eq!(lab.resolve("own", "musl", "good.example 4"), "198.51.100.7");
}

#[test]
#[ignore = "needs root"]
fn a_flood_hurts_only_who_sends_it() {
    let lab = Lab::new();
    let services = (1..=100).map(|number| service(number, &format!("service{number}"), None, &["alias"], 10));
    lab.take(Net { networks: vec![network()], services: services.collect(), ..Net::default() });
    let (none, _) = lab.heap();
    lab.task("good", own(1, Some("10.200.1.8")), &[]);
    lab.task("bad", own(2, Some("10.200.1.9")), &[]);
    let (before, _) = lab.heap();
    eprintln!("{} bytes of heap for a task", (before - none) / 2);
    assert!(before - none < 2 * 8192, "{} bytes for two tasks", before - none);
    let socket = lab.namespace("good").run(|| UdpSocket::bind("127.0.0.1:0")).unwrap().unwrap();
    socket.connect("127.0.0.11:10053").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let start = Instant::now();
    for _ in 0..2000 {
        socket.send(b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x09service99\x00\x00\x01\x00\x01").unwrap();
        assert!(socket.recv(&mut [0; 512]).unwrap() > 160);
    }
    let each = start.elapsed() / 2000;
    eprintln!("one after the other: {each:?} each, {:.0} a second", each.as_secs_f64().recip());
    let ends = Arc::new(AtomicBool::new(false));
    for kind in 0..4 {
        let ends = ends.clone();
        within(&lab.namespace("bad"), move || flood(kind, &ends));
    }
    let mut slowest = Duration::ZERO;
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        let start = Instant::now();
        assert_eq!(lab.resolve("good", "musl", "service7.st_default 4").split(' ').count(), 10);
        assert_eq!(lab.resolve("good", "musl", "good.example 4"), "192.0.2.1");
        slowest = slowest.max(start.elapsed());
    }
    let (_, peak) = lab.heap();
    ends.store(true, Ordering::Relaxed);
    eprintln!("flood: {} KiB of heap on top, slowest two look-ups {slowest:?}", (peak - before) >> 10);
    assert!(peak - before < 1 << 20, "{} bytes", peak - before);
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}

/// Sends as fast as it can: garbage, names of ours, names that nobody answers for, TCP connections.
fn flood(kind: u8, ends: &AtomicBool) {
    let mut rng = fastrand::Rng::with_seed(u64::from(kind));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut streams = Vec::new();
    while !ends.load(Ordering::Relaxed) {
        let mut packet = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00".to_vec();
        let name = match kind {
            0 => {
                rng.fill(&mut packet);
                packet.resize(rng.usize(..1500), 0xc0);
                String::new()
            }
            1 => "tasks.service99".into(),
            2 => format!("{}.dead.example", rng.u64(..)),
            _ => {
                streams.extend(TcpStream::connect("127.0.0.11:10053"));
                if let Some(stream) = streams.last_mut() {
                    // Never the whole of a query.
                    let _ = stream.write_all(&[0, 200, 1]);
                }
                if streams.len() > 200 {
                    streams.clear();
                }
                continue;
            }
        };
        for label in name.split('.').filter(|label| !label.is_empty()) {
            packet.push(u8::try_from(label.len()).unwrap());
            packet.extend(label.as_bytes());
        }
        packet.extend([0, 0, 1, 0, 1]);
        let _ = socket.send_to(&packet, "127.0.0.11:10053");
    }
}
