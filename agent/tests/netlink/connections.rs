//! Connections that are forgotten: real ones, through a real translation of addresses.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use racimo_agent::net::netlink::conntrack::{Conntrack, Which};
use racimo_agent::net::netlink::nft::{Base, DSTNAT, FILTER, Hook, NEW, Nft, Transaction};
use racimo_agent::net::netlink::route::{Address, Change, LOOPBACK, Route};
use racimo_agent::net::ns::Namespace;
use racimo_common::net::Subnet;
use racimo_common::object::Protocol::{Tcp, Udp};

use crate::support::Lab;

const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
const PORT: u16 = 7000;

fn task(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, 10 + number)
}

/// A namespace with the addresses of both tasks and the virtual one.
fn with_two_tasks(lab: &Lab) -> (Namespace, Nft, Conntrack) {
    let inside = lab.make("t1");
    let mut route = Route::open_in(&inside).unwrap();
    route.change_link(LOOPBACK, &Change::UP);
    for address in [task(1), task(2), VIP] {
        route.replace_address(Address { link: LOOPBACK, address, prefix: 32 });
    }
    route.run().unwrap();
    let (nft, conntrack) = (Nft::open_in(&inside).unwrap(), Conntrack::open_in(&inside).unwrap());
    (inside, nft, conntrack)
}

/// All connections to the virtual address go to this task.
fn lead_to(nft: &mut Nft, task: Ipv4Addr) {
    let mut t = Transaction::new("racimo");
    t.add_table();
    t.add_base_chain("output", Base { nat: true, hook: Hook::Output, priority: DSTNAT });
    t.flush_chain("output");
    for protocol in [Tcp, Udp] {
        t.rule("output", |r| {
            r.daddr(Subnet::of(VIP, 32), true).dport(protocol, PORT).dnat(task, None);
        });
    }
    nft.run(t).unwrap();
}

fn answer(socket: &UdpSocket) -> Ipv4Addr {
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut buffer = [0; 16];
    let (count, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"ping");
    match from {
        SocketAddr::V4(from) => *from.ip(),
        SocketAddr::V6(_) => panic!("{from}"),
    }
}

#[test]
#[ignore = "needs root"]
fn only_connections_to_that_task_are_forgotten() {
    let lab = Lab::new();
    let (inside, mut nft, mut conntrack) = with_two_tasks(&lab);
    inside
        .run(|| {
            let listeners = [1, 2].map(|number| TcpListener::bind((task(number), PORT)).unwrap());
            let sockets = [1, 2].map(|number| UdpSocket::bind((task(number), PORT)).unwrap());
            let clients = [1, 2].map(|number| {
                lead_to(&mut nft, task(number));
                let stream = TcpStream::connect((VIP, PORT)).unwrap();
                let (peer, _) = listeners[usize::from(number) - 1].accept().unwrap();
                let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                datagrams.send_to(b"ping", (VIP, PORT)).unwrap();
                answer(&sockets[usize::from(number) - 1]);
                (stream, peer, datagrams)
            });
            // It sticks, although new ones go to the other task by now.
            clients[0].2.send_to(b"ping", (VIP, PORT)).unwrap();
            answer(&sockets[0]);

            let gone = BTreeSet::from([task(1)]);
            assert_eq!(conntrack.forget(&BTreeSet::new(), Which::All).unwrap(), 0);
            assert_eq!(conntrack.forget(&BTreeSet::from([task(9)]), Which::All).unwrap(), 0);
            assert_eq!(conntrack.forget(&gone, Which::Datagrams).unwrap(), 1);
            clients[0].2.send_to(b"ping", (VIP, PORT)).unwrap();
            answer(&sockets[1]);
            // Its streams go on.
            let [(first, first_peer, _), (second, second_peer, _)] = clients;
            for (mut stream, mut peer) in [(&first, &first_peer), (&second, &second_peer)] {
                stream.write_all(b"x").unwrap();
                peer.read_exact(&mut [0]).unwrap();
            }
            assert_eq!(conntrack.forget(&gone, Which::All).unwrap(), 1);
            assert_eq!(conntrack.forget(&gone, Which::All).unwrap(), 0);
            // The other task knows nothing of it, and says so.
            first.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let _ = (&first).write_all(b"x");
            let error = (&first).read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            (&second).write_all(b"y").unwrap();
            (&second_peer).read_exact(&mut [0]).unwrap();
            // Several addresses at once: what is left of both.
            let left = conntrack.forget(&BTreeSet::from([task(1), task(2)]), Which::All).unwrap();
            assert!(left >= 2, "{left}");
        })
        .unwrap();
}

/// A client that comes round to the port of a connection to a dead task is not led there again.
#[test]
#[ignore = "needs root"]
fn connections_that_nobody_answered_are_forgotten_apart() {
    let lab = Lab::new();
    let (inside, mut nft, mut conntrack) = with_two_tasks(&lab);
    inside
        .run(|| {
            lead_to(&mut nft, task(1));
            let listener = TcpListener::bind((task(1), PORT)).unwrap();
            let mut answered = TcpStream::connect((VIP, PORT)).unwrap();
            let (mut peer, _) = listener.accept().unwrap();
            let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            datagrams.send_to(b"ping", (VIP, PORT)).unwrap();
            // From now on new ones are not answered.
            let mut t = Transaction::new("racimo");
            t.add_base_chain("input", Base { nat: false, hook: Hook::Input, priority: FILTER });
            t.rule("input", |r| {
                r.protocol(Tcp).ct_state(NEW).drop();
            });
            nft.run(t).unwrap();
            let error = TcpStream::connect_timeout(&(VIP, PORT).into(), Duration::from_millis(50)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);

            let gone = BTreeSet::from([task(1)]);
            assert_eq!(conntrack.forget(&gone, Which::Datagrams).unwrap(), 1);
            assert_eq!(conntrack.forget(&gone, Which::Unanswered).unwrap(), 1);
            assert_eq!(conntrack.forget(&gone, Which::Unanswered).unwrap(), 0);
            answered.write_all(b"x").unwrap();
            peer.read_exact(&mut [0]).unwrap();
            assert_eq!(conntrack.forget(&gone, Which::All).unwrap(), 1);
        })
        .unwrap();
}

/// More than go into one answer or one batch.
#[test]
#[ignore = "needs root"]
fn thousands_are_forgotten() {
    let lab = Lab::new();
    let (inside, mut nft, mut conntrack) = with_two_tasks(&lab);
    let gone = BTreeSet::from([task(1)]);
    let forgotten = inside.run(|| {
        for (to, ports) in [(1, 20_000..23_000), (2, 30_000..30_500)] {
            lead_to(&mut nft, task(to));
            let receiver = UdpSocket::bind((task(to), PORT)).unwrap();
            for port in ports {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
                socket.send_to(b"ping", (VIP, PORT)).unwrap();
            }
            drop(receiver);
        }
        let forgotten = conntrack.forget(&gone, Which::Datagrams).unwrap();
        assert_eq!(conntrack.forget(&gone, Which::All).unwrap(), 0);
        let left = conntrack.forget(&BTreeSet::from([task(1), task(2)]), Which::All).unwrap();
        (forgotten, left)
    });
    assert_eq!(forgotten.unwrap(), (3000, 500));
}
