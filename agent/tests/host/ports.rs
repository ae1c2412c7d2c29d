//! Published ports among programs of the board, and over IPv6.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use racimo_agent::net::ns::Namespace;
use racimo_agent::net::ports::{Key, Ports, relay};
use racimo_common::object::Protocol;
use smol::LocalExecutor;

use crate::support::Lab;

const WEB: Key = (Protocol::Tcp, 80);
const DNS: Key = (Protocol::Udp, 53);
const BOARD: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 1);
const PATIENCE: Duration = Duration::from_secs(5);

/// A board with the mesh's device, and a client.
fn board() -> (Lab, Namespace, Namespace) {
    let lab = Lab::new();
    let (board, client) = (lab.make("board"), lab.make("client"));
    lab.inside(
        "board",
        &format!(
            "ip link set lo up && ip link add rc-mesh type veth peer name other && ip link set rc-mesh up
             ip link add lan0 type veth peer name eth0 netns {} && ip link set lan0 up
             ip addr add 10.77.0.1/24 dev lan0 && ip addr add {BOARD}/64 dev lan0 nodad",
            lab.path("client").display()
        ),
    );
    lab.inside(
        "client",
        "ip link set lo up && ip link set eth0 up
         ip addr add 10.77.0.2/24 dev eth0 && ip addr add fd00:77::2/64 dev eth0 nodad",
    );
    (lab, board, client)
}

fn wanted(keys: &[(Key, Vec<SocketAddrV4>)]) -> BTreeMap<Key, Vec<SocketAddrV4>> {
    keys.iter().cloned().collect()
}

#[test]
#[ignore = "needs root"]
fn programs_and_published_ports_see_each_other() {
    let (_lab, board, _) = board();
    board
        .run(|| {
            let all = wanted(&[(WEB, vec![]), (DNS, vec![]), ((Protocol::Sctp, 80), vec![])]);
            let ports = Ports::new().unwrap();
            // Programs on IPv4 only, on IPv6 only, on one address; they allow others beside them as most do.
            for address in ["0.0.0.0", "127.0.0.1", "::", "::1", "10.77.0.1"] {
                let address: std::net::IpAddr = address.parse().unwrap();
                let (web, dns) = (TcpListener::bind((address, 80)).unwrap(), UdpSocket::bind((address, 53)).unwrap());
                ports.publish(all.clone());
                assert_eq!(ports.degraded().len(), 2, "{address}: {:?}", ports.degraded());
                assert!(!ports.is_held(WEB) && !ports.is_held(DNS) && ports.is_held((Protocol::Sctp, 80)));
                assert!(ports.degraded()[0].starts_with("port 80/tcp is taken on this board by"));
                drop((web, dns));
                assert!(ports.retry() && !ports.is_short() && ports.degraded().is_empty(), "{address}");
                // Now it is the program that sees it.
                assert_eq!(TcpListener::bind((address, 80)).unwrap_err().kind(), ErrorKind::AddrInUse);
                assert_eq!(UdpSocket::bind((address, 53)).unwrap_err().kind(), ErrorKind::AddrInUse);
                ports.publish(BTreeMap::new());
            }
        })
        .unwrap();
}

#[test]
#[ignore = "needs root"]
fn datagrams_are_not_swallowed() {
    let (_lab, board, client) = board();
    board
        .run(|| {
            let ports = Ports::new().unwrap();
            ports.publish(wanted(&[(DNS, vec![])]));
            assert!(ports.is_held(DNS));
            // Sent to nobody, and told so, by the board itself and by others.
            for to in [SocketAddr::from((Ipv4Addr::LOCALHOST, 53)), SocketAddr::from((Ipv6Addr::LOCALHOST, 53))] {
                assert_refused(to);
            }
            let outside = [SocketAddr::from(([10, 77, 0, 1], 53)), SocketAddr::from((BOARD, 53))];
            client.run(|| outside.map(assert_refused)).unwrap();
        })
        .unwrap();
}

fn assert_refused(to: SocketAddr) {
    let any: SocketAddr =
        if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(to).unwrap();
    socket.send(b"x").unwrap();
    assert_eq!(socket.recv(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{to}");
}

#[test]
#[ignore = "needs root"]
fn published_ports_answer_on_ipv6_also_after_a_restart() {
    let (_lab, board, client) = board();
    thread::scope(|scope| {
        scope.spawn(|| board.run(serve).unwrap());
        for address in [Ipv6Addr::LOCALHOST, BOARD] {
            let at = if address == BOARD { &client } else { &board };
            // The second agent has the port at once, though the first one's connections linger.
            for _ in 0..2 {
                let (stop, stopped) = async_channel::bounded::<()>(1);
                let agent = scope.spawn(|| board.run(|| relay_until(stopped)).unwrap());
                let answer = at.run(|| ask(address)).unwrap();
                assert_eq!(answer, "hello from a task");
                stop.send_blocking(()).unwrap();
                agent.join().unwrap();
            }
        }
    });
}

/// A task with as many connections as the test makes.
fn serve() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 8080)).unwrap();
    for _ in 0..4 {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
        stream.write_all(b"hello from a task").unwrap();
    }
}

fn relay_until(stopped: async_channel::Receiver<()>) {
    let executor = Rc::new(LocalExecutor::new());
    let ports = Ports::new().unwrap();
    ports.publish(wanted(&[(WEB, vec![SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080)])]));
    assert!(ports.is_held(WEB), "{:?}", ports.degraded());
    let work = executor.spawn(relay::serve(ports, executor.clone()));
    smol::block_on(executor.run(async {
        stopped.recv().await.unwrap();
        work.cancel().await;
    }));
}

fn ask(address: Ipv6Addr) -> String {
    let deadline = std::time::Instant::now() + PATIENCE;
    let mut stream = loop {
        match TcpStream::connect((address, 80)) {
            Ok(stream) => break stream,
            Err(error) if std::time::Instant::now() > deadline => panic!("{address}: {error}"),
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"hello").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
