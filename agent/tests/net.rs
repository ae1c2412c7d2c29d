//! Three boards, each in a network namespace of its own, whose network is driven without a manager: who reaches whom.
//!
//! Needs root: `cargo test -p racimo-agent --test net -- --ignored --test-threads 1`.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../src/net/testing.rs"]
mod testing;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use racimo_agent::net::kernel::namespace;
use racimo_agent::net::netlink::nft::{Base, FILTER, Hook, NEW, Nft, Transaction};
use racimo_agent::net::ns::Namespace;
use racimo_agent::net::plan::Attached;
use racimo_agent::net::{Network, NoNetwork};
use racimo_common::id::{NetworkId, RandomId, ServiceId, TaskId};
use racimo_common::net::{VXLAN_PORT, mac};
use racimo_common::object::{HostPort, Protocol};
use racimo_common::wire::{Ip, Net, NetAttachment, NetEndpoint, NetOwn, NetPeer, NetPort, NetService, TaskNet};
use smol::LocalExecutor;
use testing::{network, node, own, peer};

const PORT: u16 = 8080;
const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 200);
const DEADLINE: Duration = Duration::from_secs(10);

fn run(command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    assert!(output.status.success(), "{command}: {}", text(output.stderr));
    text(output.stdout)
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !is() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What a board is told to do; the answer says that it is done.
enum Order {
    Take(Net),
    Attach(TaskId, Attached, Sender<Result<Vec<HostPort>, NoNetwork>>),
    Detach(TaskId, Sender<()>),
    Degraded(Sender<Vec<String>>),
    Look(Sender<bool>),
    With(Box<dyn FnOnce(Network) -> LocalBoxed + Send>, Sender<()>),
}

type LocalBoxed = Pin<Box<dyn Future<Output = ()>>>;

/// Moves the calling thread into a network namespace.
#[expect(unsafe_code, reason = "no safe library of ours wraps setns(2)")]
fn enter(netns: &Path) {
    let file = std::fs::File::open(netns).unwrap();
    // SAFETY: the file is open, and the call has no memory effects.
    assert_eq!(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
}

/// An agent's network, on a thread that is inside the board.
struct Agent {
    orders: Sender<Order>,
    thread: JoinHandle<()>,
}

impl Agent {
    fn start(netns: PathBuf, run: PathBuf, look_every: Duration) -> Self {
        let (orders, inbox) = async_channel::bounded(16);
        let thread = std::thread::spawn(move || {
            enter(&netns);
            let executor = Rc::new(LocalExecutor::new());
            smol::block_on(executor.clone().run(serve(executor, run, look_every, inbox)));
        });
        Self { orders, thread }
    }

    /// As a crash: what it has not done is not done.
    fn stop(self) {
        drop(self.orders);
        self.thread.join().unwrap();
    }

    fn take(&self, net: Net) {
        self.orders.send_blocking(Order::Take(net)).unwrap();
    }

    fn ask<T>(&self, order: impl FnOnce(Sender<T>) -> Order) -> T {
        let (sender, receiver) = async_channel::bounded(1);
        self.orders.send_blocking(order(sender)).unwrap();
        receiver.recv_blocking().unwrap()
    }

    fn attach(&self, task: TaskId, net: TaskNet) -> Result<Vec<HostPort>, NoNetwork> {
        let attached = Attached { net, hostname: "task".into(), slot_name: "web.1".into(), ..Attached::default() };
        self.ask(|done| Order::Attach(task, attached, done))
    }

    fn detach(&self, task: TaskId) {
        self.ask(|done| Order::Detach(task, done));
    }

    fn degraded(&self) -> Vec<String> {
        self.ask(Order::Degraded)
    }

    /// Looks whether something was removed.
    fn look(&self) -> bool {
        self.ask(Order::Look)
    }

    /// Does something with the network, on its thread.
    fn with<F: Future<Output = ()> + 'static>(&self, work: impl FnOnce(Network) -> F + Send + 'static) {
        self.ask(|done| Order::With(Box::new(|network| Box::pin(work(network))), done));
    }

    fn ports(&self, task: TaskId) -> Vec<u16> {
        let (sender, receiver) = async_channel::bounded(1);
        self.with(move |network| async move {
            let _ = sender.send(network.ports(task).iter().map(|port| port.published).collect()).await;
        });
        receiver.recv_blocking().unwrap()
    }
}

async fn serve(executor: Rc<LocalExecutor<'static>>, run: PathBuf, look_every: Duration, inbox: Receiver<Order>) {
    let network = Network::open(executor.clone(), &run, PathBuf::from("/etc/resolv.conf")).unwrap();
    let drive = executor.spawn(network.clone().drive(look_every));
    while let Ok(order) = inbox.recv().await {
        match order {
            Order::Take(net) => network.take(net),
            Order::Attach(task, attached, done) => drop(done.send(network.attach(task, attached).await).await),
            Order::Detach(task, done) => {
                network.detach(task).await;
                let _ = done.send(()).await;
            }
            Order::Degraded(done) => drop(done.send(network.degraded()).await),
            Order::Look(done) => drop(done.send(network.look().await).await),
            Order::With(work, done) => {
                work(network.clone()).await;
                let _ = done.send(()).await;
            }
        }
    }
    network.write();
    // Its sockets are closed with it, as when the process ends.
    drive.cancel().await;
    drop(network);
    for _ in 0..100 {
        smol::future::yield_now().await;
    }
}

/// A LAN with three boards and a client; all of it goes with this.
struct Lan {
    prefix: String,
    dir: tempfile::TempDir,
    agents: BTreeMap<u8, Agent>,
    services: Vec<NetService>,
    /// How often agents look whether something was removed, other than when told to.
    look_every: Duration,
}

impl Drop for Lan {
    fn drop(&mut self) {
        for (_, agent) in std::mem::take(&mut self.agents) {
            agent.orders.close();
            let _ = agent.thread.join();
        }
        for number in 1..=3 {
            for name in ["netns"] {
                let dir = self.run(number).join(name);
                for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                    let _ = Command::new("umount").arg("-l").arg(entry.path()).output();
                }
            }
        }
        for host in ["lan", "1", "2", "3", "100"] {
            let _ = Command::new("ip").args(["netns", "del", &format!("{}{host}", self.prefix)]).output();
        }
    }
}

fn lan_address(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, host)
}

impl Lan {
    fn new() -> Self {
        let prefix = format!("rnt{}-", std::process::id());
        let lan = Self {
            prefix: prefix.clone(),
            dir: tempfile::tempdir().unwrap(),
            agents: BTreeMap::new(),
            services: Vec::new(),
            look_every: Duration::from_secs(3600),
        };
        run(&format!("ip netns add {prefix}lan"));
        run(&format!("ip -n {prefix}lan link add br0 type bridge"));
        run(&format!("ip -n {prefix}lan link set br0 up"));
        for host in [1, 2, 3, 100] {
            let name = format!("{prefix}{host}");
            run(&format!("ip netns add {name}"));
            run(&format!("ip -n {name} link set lo up"));
            run(&format!("ip -n {prefix}lan link add p{host} type veth peer name eth0 netns {name}"));
            run(&format!("ip -n {prefix}lan link set p{host} master br0 up"));
            run(&format!("ip -n {name} addr add {}/24 dev eth0", lan_address(host)));
            run(&format!("ip -n {name} link set eth0 up"));
        }
        lan
    }

    fn netns(&self, host: u8) -> PathBuf {
        Path::new("/run/netns").join(format!("{}{host}", self.prefix))
    }

    fn run(&self, board: u8) -> PathBuf {
        self.dir.path().join(board.to_string())
    }

    fn start(&mut self, board: u8) {
        self.agents.insert(board, Agent::start(self.netns(board), self.run(board), self.look_every));
    }

    /// Starts three boards, tells them of each other.
    fn boards() -> Self {
        let mut lan = Self::new();
        for board in 1..=3 {
            lan.start(board);
            lan.agents[&board].take(lan.whole(board));
        }
        lan
    }

    fn whole(&self, board: u8) -> Net {
        let peers = (1..=3).filter(|peer| *peer != board).map(peer);
        Net {
            complete: true,
            last: true,
            own: Some(own(board)),
            peers: peers.collect(),
            networks: vec![network(1), network(2)],
            services: self.services.clone(),
            ..Net::default()
        }
    }

    fn agent(&self, board: u8) -> &Agent {
        &self.agents[&board]
    }

    /// All boards are told of a service.
    fn service(&mut self, service: NetService) {
        self.services.retain(|known| known.id != service.id);
        self.services.push(service.clone());
        for agent in self.agents.values() {
            agent.take(Net { services: vec![service.clone()], ..Net::default() });
        }
    }

    fn inside(&self, place: Place) -> Namespace {
        match place {
            Place::Host(host) => Namespace::at(&self.netns(host)).unwrap(),
            Place::Task(number) => Namespace::at(&namespace(&self.run(number / 10), task(number))).unwrap(),
        }
    }

    /// A server that answers with its name and who asks; in a task, or on a host. It can be reached then: the kernel
    /// finishes putting a new link to work in the background, and drops what comes before.
    fn listen(&self, place: Place, port: u16) {
        let listener = self.inside(place).run(|| TcpListener::bind(("0.0.0.0", port))).unwrap().unwrap();
        let name = match place {
            Place::Host(host) => format!("host{host}"),
            Place::Task(number) => number.to_string(),
        };
        // It ends with the test.
        std::thread::spawn(move || {
            while let Ok((mut stream, from)) = listener.accept() {
                let _ = stream.write_all(format!("{name} {}", from.ip()).as_bytes());
            }
        });
        if let Place::Task(number) = place {
            until("the task is reached", || self.ask(Place::Host(number / 10), mesh(number), port).is_some());
        }
    }

    /// Which server answers, and the client's address there; none: nobody.
    fn ask(&self, from: Place, to: Ipv4Addr, port: u16) -> Option<(String, Ipv4Addr)> {
        self.try_ask(from, to, port).ok()
    }

    fn try_ask(&self, from: Place, to: Ipv4Addr, port: u16) -> std::io::Result<(String, Ipv4Addr)> {
        let ask = || -> std::io::Result<String> {
            let address = SocketAddr::V4(SocketAddrV4::new(to, port));
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(700))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        let text = self.inside(from).run(ask).unwrap()?;
        let (name, address) = text.split_once(' ').ok_or(std::io::ErrorKind::UnexpectedEof)?;
        Ok((name.to_owned(), address.parse().unwrap()))
    }

    /// All servers that answer, of many requests.
    fn answers(&self, from: Place, to: Ipv4Addr, port: u16) -> BTreeSet<String> {
        let answer = || self.try_ask(from, to, port).map_or_else(|error| error.to_string(), |(name, _)| name);
        (0..24).map(|_| answer()).collect()
    }
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Host(u8),
    Task(u8),
}

use Place::{Host, Task};

/// The client beside the boards.
const CLIENT: Place = Host(100);

fn task(number: u8) -> TaskId {
    TaskId::from_bits(u128::from(number) << 100)
}

fn mesh(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 200, number / 10, number)
}

fn overlay(network: u8, number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, network, number)
}

/// Task N is on board N / 10, and on network 1.
fn place(number: u8) -> TaskNet {
    let networks = vec![(NetworkId::from_bits(1), Ip(overlay(1, number)))];
    TaskNet { mesh: Some(Ip(mesh(number))), networks, ..TaskNet::default() }
}

/// A service with one task, which publishes nothing: that others can answer it, they must know where it is.
fn other() -> NetService {
    let web = web(&[12]);
    let network = web.networks[0].network;
    let networks = vec![NetAttachment { network, vip: None, aliases: Vec::new() }];
    NetService { id: ServiceId::from_bits(2), name: "other".into(), ports: Vec::new(), networks, ..web }
}

fn web(tasks: &[u8]) -> NetService {
    let endpoint = |&number: &u8| NetEndpoint {
        targets: Box::default(),
        task: task(number),
        slot: None,
        hostname: None,
        node: node(number / 10),
        mesh: Some(Ip(mesh(number))),
        addresses: vec![Ip(overlay(1, number))],
        active: true,
        unsure: false,
    };
    let network = NetworkId::from_bits(1);
    NetService {
        id: ServiceId::from_bits(1),
        name: "web".into(),
        ports: vec![NetPort { protocol: Protocol::Tcp, published: 80, target: PORT }],
        keep_source: false,
        networks: vec![NetAttachment { network, vip: Some(Ip(VIP)), aliases: Vec::new() }],
        endpoints: tasks.iter().map(endpoint).collect(),
    }
}

fn names(tasks: &[&str]) -> BTreeSet<String> {
    tasks.iter().map(|name| (*name).to_owned()).collect()
}

/// Three tasks of `web`, one a board, and one of another service on board 1.
fn with_web() -> Lan {
    let mut lan = Lan::boards();
    lan.service(web(&[11, 21, 31]));
    lan.service(other());
    for number in [11, 21, 31, 12] {
        lan.agent(number / 10).attach(task(number), place(number)).unwrap();
    }
    for number in [11, 21, 31] {
        lan.listen(Task(number), PORT);
    }
    lan
}

#[test]
#[ignore = "needs root"]
fn who_reaches_whom() {
    let lan = with_web();
    let all = names(&["11", "21", "31"]);
    // Published ports: every board answers, whoever asks.
    for board in 1..=3 {
        assert_eq!(lan.answers(CLIENT, lan_address(board), 80), all, "client to board {board}");
        assert_eq!(lan.answers(Host(board), Ipv4Addr::LOCALHOST, 80), all, "board {board} to itself");
        assert_eq!(lan.answers(Host(board), lan_address(board), 80), all, "board {board} to its address");
        assert_eq!(lan.answers(Task(12), lan_address(board), 80), all, "a task to board {board}");
        assert_eq!(lan.answers(Task(11), lan_address(board), 80), all, "a task of the service to board {board}");
    }
    assert_eq!(lan.answers(Host(1), lan_address(2), 80), all, "board to board");
    // Virtual addresses: also to itself, with the asker's own address.
    for number in [11, 12, 21, 31] {
        assert_eq!(lan.answers(Task(number), VIP, PORT), all, "task {number} to the virtual address");
    }
    let (_, from) = lan.ask(Task(12), overlay(1, 21), PORT).unwrap();
    assert_eq!(from, overlay(1, 12));
    // Out, with the board's address.
    lan.listen(CLIENT, 9000);
    assert_eq!(lan.ask(Task(12), lan_address(100), 9000), Some(("host100".into(), lan_address(1))));

    // Not: another task's address in the mesh, from inside or outside; a virtual address of a network it is not on.
    assert_eq!(lan.ask(Task(12), mesh(11), PORT), None);
    assert_eq!(lan.ask(Task(12), mesh(21), PORT), None);
    run(&format!("ip -n {}100 route add 10.200.0.0/16 via {}", lan.prefix, lan_address(1)));
    assert_eq!(lan.ask(CLIENT, mesh(11), PORT), None);
    assert_eq!(lan.ask(CLIENT, mesh(21), PORT), None);
    let stranger = TaskNet {
        mesh: Some(Ip(mesh(13))),
        networks: vec![(NetworkId::from_bits(2), Ip(overlay(2, 13)))],
        ..TaskNet::default()
    };
    lan.agent(1).attach(task(13), stranger).unwrap();
    assert_eq!(lan.ask(Task(13), overlay(1, 11), PORT), None);
    assert_eq!(lan.ask(Task(13), VIP, PORT), None);
    assert_eq!(lan.answers(Task(13), lan_address(3), 80), all);
    for board in 1..=3 {
        assert_eq!(lan.agent(board).degraded(), [""; 0], "board {board}");
        assert_eq!(run(&format!("ip -n {}{board} -6 addr show dev rc-mesh", lan.prefix)), "", "board {board}");
    }
}

/// A VXLAN packet's content: a datagram with this text, from one address of a network to another.
fn wrapped(vni: u32, from: Ipv4Addr, to: Ipv4Addr, port: u16, text: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = vni.to_be_bytes();
    let mut packet = vec![8, 0, 0, 0, a, b, c, 0];
    packet.extend(mac(to).into_iter().chain(mac(from)).chain([8, 0]));
    let length = |header: usize| u16::try_from(header + text.len()).unwrap().to_be_bytes();
    let [high, low] = length(28);
    let mut header = vec![0x45, 0, high, low, 0, 0, 0, 0, 64, 17, 0, 0];
    header.extend(from.octets().into_iter().chain(to.octets()));
    let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    header[10..12].copy_from_slice(&(!sum).to_be_bytes());
    packet.extend(header);
    packet.extend(port.to_be_bytes().into_iter().chain(port.to_be_bytes()).chain(length(8)).chain([0, 0]));
    packet.extend(text);
    packet
}

/// A task's packets leave with the board's address, which other boards take VXLAN packets from.
#[test]
#[ignore = "needs root"]
fn a_task_is_not_taken_for_its_board() {
    let lan = with_web();
    let open = |place: Place, port: u16| {
        let socket = lan.inside(place).run(|| UdpSocket::bind(("0.0.0.0", port))).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        socket
    };
    let take = |socket: &UdpSocket| {
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    let board = lan_address(2);
    let victim = open(Task(21), 9000);
    let frame = |text: &[u8]| wrapped(4097, overlay(1, 11), overlay(1, 21), 9000, text);
    // The board itself can.
    open(Host(1), 0).send_to(&frame(b"board"), (board, VXLAN_PORT)).unwrap();
    assert_eq!(take(&victim).as_deref(), Some("board"));
    // Its tasks cannot.
    open(Task(12), 0).send_to(&frame(b"task"), (board, VXLAN_PORT)).unwrap();
    assert_eq!(take(&victim), None);
    // Nor with an address that is not theirs: that of another board inside the encryption.
    run(&format!("nsenter --net={} ip addr add 10.200.3.0/32 dev eth0", namespace(&lan.run(1), task(12)).display()));
    let false_one = lan.inside(Task(12)).run(|| UdpSocket::bind("10.200.3.0:0")).unwrap().unwrap();
    false_one.send_to(&frame(b"false"), (board, VXLAN_PORT)).unwrap();
    assert_eq!(take(&victim), None);
    let outside = open(CLIENT, 9001);
    false_one.send_to(b"false", (lan_address(100), 9001)).unwrap();
    assert_eq!(take(&outside), None);
    open(Task(12), 0).send_to(b"true", (lan_address(100), 9001)).unwrap();
    assert_eq!(take(&outside).as_deref(), Some("true"));

    // What other boards send to this one it cannot draw to itself by having the same port outside.
    let thief = open(Task(12), VXLAN_PORT);
    thief.send_to(b"mine", (board, 40_000)).unwrap();
    let own = open(Task(11), 9000);
    let frame = wrapped(4097, overlay(1, 21), overlay(1, 11), 9000, b"yours");
    open(Host(2), 40_000).send_to(&frame, (lan_address(1), VXLAN_PORT)).unwrap();
    assert_eq!(take(&own).as_deref(), Some("yours"));
    assert_eq!(take(&thief), None);
}

#[test]
#[ignore = "needs root"]
fn strict_reverse_path_filters_are_no_hindrance() {
    let lan = with_web();
    let strict = || {
        for entry in std::fs::read_dir("/proc/sys/net/ipv4/conf").unwrap().flatten() {
            std::fs::write(entry.path().join("rp_filter"), "1").unwrap();
        }
    };
    for place in [Host(1), Host(2), Host(3), Task(11), Task(12), Task(21), Task(31)] {
        lan.inside(place).run(strict).unwrap();
    }
    let all = names(&["11", "21", "31"]);
    assert_eq!(lan.answers(CLIENT, lan_address(2), 80), all);
    assert_eq!(lan.answers(Host(1), Ipv4Addr::LOCALHOST, 80), all);
    assert_eq!(lan.answers(Task(11), lan_address(1), 80), all);
    assert_eq!(lan.answers(Task(12), VIP, PORT), all);
}

#[test]
#[ignore = "needs root"]
fn changes_take_effect_and_nothing_is_left() {
    let mut lan = with_web();
    let mut without = web(&[11, 21, 31]);
    without.endpoints[0].active = false;
    lan.service(without.clone());
    until("board 2 leaves task 11 alone", || lan.answers(CLIENT, lan_address(2), 80) == names(&["21", "31"]));
    until("task 12 leaves task 11 alone", || lan.answers(Task(12), VIP, PORT) == names(&["21", "31"]));
    // Its address still answers: connections that it has go on.
    assert!(lan.ask(Task(12), overlay(1, 11), PORT).is_some());
    without.endpoints.iter_mut().for_each(|endpoint| endpoint.active = false);
    lan.service(without);
    let refused = |from: Place, to: Ipv4Addr, port: u16| {
        let ask = || TcpStream::connect_timeout(&(to, port).into(), Duration::from_secs(2)).map_err(|e| e.kind());
        lan.inside(from).run(ask).unwrap().err() == Some(std::io::ErrorKind::ConnectionRefused)
    };
    until("nobody takes connections", || refused(CLIENT, lan_address(3), 80) && refused(Task(12), VIP, PORT));
    assert!(refused(Host(1), Ipv4Addr::LOCALHOST, 80));

    for number in [11, 12, 21, 31] {
        lan.agent(number / 10).detach(task(number));
    }
    lan.services.clear();
    for board in 1..=3 {
        lan.agent(board).take(lan.whole(board));
    }
    let links = |board: u8| run(&format!("ip -n {}{board} -o link", lan.prefix));
    until("the port is not published", || {
        !run(&format!("ip netns exec {}2 nft list table ip racimo", lan.prefix)).contains("p_tcp_80")
    });
    for board in 1..=3 {
        let links = links(board);
        assert!(links.contains("rc-mesh") && !links.contains("rg-") && !links.contains("rcv"), "{links}");
        let left: Vec<_> = std::fs::read_dir(lan.run(board).join("netns")).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
    // The board is no member any more.
    for board in 1..=3 {
        lan.agent(board).take(Net { complete: true, last: true, ..Net::default() });
        until("the mesh is gone", || !links(board).contains("rc-mesh"));
        until("the rules are gone", || {
            run(&format!("ip netns exec {}{board} nft list ruleset", lan.prefix)).is_empty()
        });
        let routes = run(&format!("ip -n {}{board} route", lan.prefix));
        assert!(!routes.contains("10.200"), "{routes}");
    }
}

/// A restarted agent goes on where the last one stopped; what it left half done, and what went meanwhile, is removed.
#[test]
#[ignore = "needs root"]
fn a_restart_leaves_traffic_flowing_and_nothing_stale() {
    let mut lan = with_web();
    let all = names(&["11", "21", "31"]);
    let inside = lan.inside(Task(12));
    let mut open = inside.run(|| TcpStream::connect((VIP, PORT))).unwrap().unwrap();
    lan.agents.remove(&1).unwrap().stop();
    assert_eq!(lan.answers(CLIENT, lan_address(1), 80), all);
    assert_eq!(lan.answers(Task(12), VIP, PORT), all);
    // What nobody wants.
    let prefix = lan.prefix.clone();
    run(&format!("ip -n {prefix}1 link add rg-stale0000000 type veth peer name other"));
    // Somebody else's.
    run(&format!("ip -n {prefix}1 link add rg-users type bridge"));
    run(&format!("ip -n {prefix}1 link add rg-users0000000 type bridge"));
    run(&format!("ip -n {prefix}1 neigh add 10.200.9.1 lladdr 02:42:0a:c8:09:01 dev rc-mesh nud permanent"));
    run(&format!("ip -n {prefix}1 link add rcv9999 type vxlan id 9999 dstport 4789"));
    run(&format!("ip netns exec {prefix}1 nft add chain ip racimo p_tcp_99"));
    let run_directory = lan.run(1);
    std::fs::write(run_directory.join("netns").join(task(19).to_string()), "").unwrap();
    lan.start(1);
    let is_clean = || {
        let links = run(&format!("ip -n {prefix}1 -o link"));
        let neighbours = run(&format!("ip -n {prefix}1 neigh show nud permanent"));
        let rules = run(&format!("ip netns exec {prefix}1 nft list table ip racimo"));
        let stale = run_directory.join("netns").join(task(19).to_string()).exists();
        assert!(links.contains("rg-users:") && links.contains("rg-users0000000"), "{links}");
        !links.contains("stale")
            && !links.contains("rcv9999")
            && !neighbours.contains("10.200.9.1")
            && !rules.contains("p_tcp_99")
            && !stale
    };
    until("what nobody wants is gone", is_clean);
    assert_eq!(lan.answers(CLIENT, lan_address(1), 80), all);
    assert_eq!(lan.answers(Task(12), VIP, PORT), all);
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert!(text.ends_with(&overlay(1, 12).to_string()), "{text}");
    // It knows its tasks: one of them leaves, and the other one stays.
    lan.agent(1).detach(task(12));
    assert!(!namespace(&lan.run(1), task(12)).exists());
    assert_eq!(lan.answers(Task(11), VIP, PORT), all);
    assert_eq!(lan.agent(1).degraded(), [""; 0]);
}

/// Packet filters that are loaded anew, network managers, users.
#[test]
#[ignore = "needs root"]
fn what_other_programs_remove_comes_back() {
    let mut lan = with_web();
    let all = names(&["11", "21", "31"]);
    let whole = |lan: &Lan| {
        lan.answers(CLIENT, lan_address(1), 80) == all
            && lan.answers(Host(1), Ipv4Addr::LOCALHOST, 80) == all
            && lan.answers(Task(12), VIP, PORT) == all
    };
    until("all is told", || whole(&lan));
    let (begin, looks) = (Instant::now(), 20);
    for _ in 0..looks {
        assert!(!lan.agent(1).look(), "nothing is missing");
    }
    eprintln!("a look with nothing missing: {:?}", begin.elapsed() / looks);
    let leg = |number: u8| format!("rg-{}", &task(number).to_string()[..12]);
    let on_board = |command: &str| format!("ip netns exec {}1 {command}", lan.prefix);
    let overlays = |command: &str| format!("nsenter --net={} {command}", lan.run(1).join("netns/racimo").display());
    for command in [
        on_board("nft flush ruleset"),
        on_board("nft flush table ip racimo"),
        on_board("nft flush map ip racimo pub"),
        on_board("ip link del rc-mesh"),
        on_board("ip link set rc-mesh down"),
        on_board("ip addr flush dev rc-mesh"),
        on_board("ip route flush root 10.200.0.0/16"),
        on_board("ip neigh flush dev rc-mesh nud permanent"),
        on_board(&format!("ip link del {}", leg(11))),
        on_board("sysctl -q net.ipv4.ip_forward=0"),
        overlays("ip link del rcv4097"),
        overlays("ip link del rcb4097"),
        overlays("ip link set rcb4097 down"),
    ] {
        run(&command);
        assert!(lan.agent(1).look(), "not seen: {command}");
        until(&command, || whole(&lan) && !lan.agent(1).look());
        assert_eq!(lan.agent(1).degraded(), [""; 0], "{command}");
    }
    // It looks by itself, too.
    lan.agents.remove(&1).unwrap().stop();
    lan.look_every = Duration::from_millis(200);
    lan.start(1);
    until("it is there again", || whole(&lan));
    run(&format!("ip netns exec {}1 nft flush ruleset", lan.prefix));
    until("the rules are there again", || whole(&lan));
}

#[test]
#[ignore = "needs root"]
fn a_board_moves_and_is_reached_again() {
    let mut lan = with_web();
    let all = names(&["11", "21", "31"]);
    let to = Ipv4Addr::new(10, 77, 0, 33);
    run(&format!("ip -n {}3 addr del {}/24 dev eth0", lan.prefix, lan_address(3)));
    run(&format!("ip -n {}3 addr add {to}/24 dev eth0", lan.prefix));
    let moved = NetPeer { address: Ip(to), ..peer(3) };
    lan.agents[&3].take(Net { own: Some(NetOwn { address: Ip(to), ..own(3) }), ..Net::default() });
    for board in [1, 2] {
        lan.agents[&board].take(Net { peers: vec![moved.clone()], ..Net::default() });
    }
    until("board 1 reaches it", || lan.answers(CLIENT, lan_address(1), 80) == all);
    until("tasks reach it", || lan.answers(Task(12), VIP, PORT) == all);
    assert_eq!(lan.answers(CLIENT, to, 80), all);
    assert_eq!(lan.answers(Task(31), VIP, PORT), all);
    // Whoever gets its old address is no board.
    let peers = run(&format!("ip netns exec {}3 nft list set ip racimo peers", lan.prefix));
    assert!(peers.contains(&to.to_string()) && !peers.contains(&format!("{} ", lan_address(3))), "{peers}");
    assert!(!peers.contains(&format!("{},", lan_address(3))), "{peers}");
    lan.services.clear();
}

#[test]
#[ignore = "needs root"]
fn clients_addresses_can_be_kept() {
    let mut lan = with_web();
    let seen = |lan: &Lan, from: Place, to: Ipv4Addr| -> BTreeSet<Ipv4Addr> {
        (0..20).filter_map(|_| lan.ask(from, to, 80)).map(|(_, address)| address).collect()
    };
    let client = lan_address(100);
    assert!(seen(&lan, CLIENT, lan_address(1)).len() > 1);
    lan.service(NetService { keep_source: true, ..web(&[11, 21, 31]) });
    // Strict filters, too, but on the mesh's device.
    for board in 1..=3 {
        until("every task sees the client", || {
            lan.answers(CLIENT, lan_address(board), 80) == names(&["11", "21", "31"])
                && seen(&lan, CLIENT, lan_address(board)) == BTreeSet::from([client])
        });
    }
    // From inside it is as always.
    let all = names(&["11", "21", "31"]);
    assert_eq!(lan.answers(Host(1), Ipv4Addr::LOCALHOST, 80), all);
    assert_eq!(lan.answers(Host(1), lan_address(1), 80), all);
    assert_eq!(lan.answers(Host(1), lan_address(2), 80), all);
    assert_eq!(lan.answers(Task(11), lan_address(1), 80), all);
    assert_eq!(lan.answers(Task(12), lan_address(2), 80), all);
    lan.service(web(&[11, 21, 31]));
    until("it is as before", || seen(&lan, CLIENT, lan_address(1)).len() > 1);
    assert_eq!(lan.answers(CLIENT, lan_address(2), 80), all);
    let rules = run(&format!("ip -n {}1 rule", lan.prefix));
    assert!(!rules.contains("0x52"), "{rules}");
}

#[test]
#[ignore = "needs root"]
fn ports_of_single_tasks() {
    let lan = Lan::boards();
    let port = |published| HostPort { protocol: Protocol::Tcp, published, target: PORT };
    let net = |number, published| TaskNet {
        mesh: Some(Ip(mesh(number))),
        ports: vec![port(published)],
        ..TaskNet::default()
    };
    assert_eq!(lan.agent(1).attach(task(11), net(11, 8081)), Ok(vec![port(8081)]));
    lan.listen(Task(11), PORT);
    assert_eq!(lan.answers(CLIENT, lan_address(1), 8081), names(&["11"]));
    assert_eq!(lan.answers(Host(1), Ipv4Addr::LOCALHOST, 8081), names(&["11"]));
    assert_eq!(lan.answers(Task(11), lan_address(1), 8081), names(&["11"]));
    assert_eq!(lan.ask(CLIENT, lan_address(2), 8081), None);
    let taken = lan.agent(1).attach(task(12), net(12, 8081));
    assert!(matches!(&taken, Err(NoNetwork::Never(why)) if why.contains("8081")), "{taken:?}");
    // A program of the board has it.
    lan.listen(Host(1), 8082);
    let taken = lan.agent(1).attach(task(12), net(12, 8082));
    assert!(matches!(&taken, Err(NoNetwork::Never(why)) if why.contains("8082")), "{taken:?}");
    assert_eq!(lan.answers(CLIENT, lan_address(1), 8082), names(&["host1"]));
    // Any port.
    let chosen = lan.agent(1).attach(task(12), net(12, 0)).unwrap();
    lan.listen(Task(12), PORT);
    assert_eq!(lan.answers(CLIENT, lan_address(1), chosen[0].published), names(&["12"]));
    // It is free again when the task is gone.
    lan.agent(1).detach(task(11));
    assert_eq!(lan.ask(CLIENT, lan_address(1), 8081), None);
    assert_eq!(lan.agent(1).attach(task(13), net(13, 8081)), Ok(vec![port(8081)]));
    lan.listen(Task(13), PORT);
    assert_eq!(lan.answers(CLIENT, lan_address(1), 8081), names(&["13"]));
}

/// As an upgrade may find it. What nobody changed is published again, too.
#[test]
#[ignore = "needs root"]
fn a_table_of_another_kind_is_made_anew() {
    let mut lan = with_web();
    let all = names(&["11", "21", "31"]);
    let ports = vec![NetPort { protocol: Protocol::Tcp, published: 81, target: PORT }];
    lan.service(NetService { id: ServiceId::from_bits(3), networks: Vec::new(), ports, ..web(&[11, 21, 31]) });
    until("another service answers", || lan.answers(CLIENT, lan_address(2), 81) == all);
    let nft = |command: &str| run(&format!("ip netns exec {}2 nft {command}", lan.prefix));
    nft("flush chain ip racimo forward");
    nft("delete chain ip racimo forward");
    nft("add chain ip racimo forward { type filter hook input priority 5 ; }");
    lan.service(NetService { keep_source: true, ..web(&[11, 21, 31]) });
    let is_right = || {
        let chain = run(&format!("ip netns exec {}2 nft list chain ip racimo forward", lan.prefix));
        chain.contains("hook forward") && lan.answers(CLIENT, lan_address(2), 81) == all
    };
    until("the table is as it shall be", is_right);
    until("nothing is wrong", || lan.agent(2).degraded().is_empty());
    assert_eq!(lan.answers(CLIENT, lan_address(2), 80), all);
}

/// Datagrams do not end: without help they would go to where they went before.
#[test]
#[ignore = "needs root"]
fn datagrams_follow_at_once() {
    let mut lan = Lan::boards();
    let service = |active: u8| {
        let mut service = web(&[11, 21]);
        service.ports[0].protocol = Protocol::Udp;
        service.endpoints.iter_mut().for_each(|endpoint| endpoint.active = endpoint.task == task(active));
        service
    };
    lan.service(service(11));
    lan.service(other());
    for number in [11, 21, 12] {
        lan.agent(number / 10).attach(task(number), place(number)).unwrap();
    }
    for number in [11, 21] {
        let socket = lan.inside(Task(number)).run(|| UdpSocket::bind(("0.0.0.0", PORT))).unwrap().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 16];
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(number.to_string().as_bytes(), from);
            }
        });
    }
    let client = |place: Place| {
        let socket = lan.inside(place).run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        socket
    };
    let ask = |socket: &UdpSocket, to: IpAddr, port: u16| {
        let mut buffer = [0; 16];
        let _ = socket.send_to(b"?", (to, port));
        let length = socket.recv(&mut buffer).unwrap_or(0);
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let (outside, inside) = (client(CLIENT), client(Task(12)));
    until("task 11 answers", || ask(&outside, lan_address(2).into(), 80) == "11");
    until("task 11 answers inside", || ask(&inside, VIP.into(), PORT) == "11");
    for agent in lan.agents.values() {
        agent.take(Net { services: vec![service(21)], ..Net::default() });
    }
    until("task 21 answers", || ask(&outside, lan_address(2).into(), 80) == "21");
    until("task 21 answers inside", || ask(&inside, VIP.into(), PORT) == "21");
}

/// What a client has asked a task that leaves the balance is answered by it; if it is not, another one is asked.
#[test]
#[ignore = "needs root"]
fn connections_that_are_being_made_when_their_task_leaves() {
    let mut lan = Lan::boards();
    let service = |active: u8| {
        let mut service = web(&[11, 21]);
        service.endpoints.iter_mut().for_each(|endpoint| endpoint.active = endpoint.task == task(active));
        service
    };
    lan.service(service(21));
    for number in [11, 21] {
        lan.agent(number / 10).attach(task(number), place(number)).unwrap();
        lan.listen(Task(number), PORT);
    }
    until("task 21 answers", || lan.ask(CLIENT, lan_address(3), 80).is_some_and(|(name, _)| name == "21"));
    // It does not hear of connections for a while.
    let mut nft = Nft::open_in(&lan.inside(Task(21))).unwrap();
    let mut deaf = |is_deaf: bool| {
        let mut t = Transaction::new("test");
        t.add_table();
        t.add_base_chain("input", Base { nat: false, hook: Hook::Input, priority: FILTER });
        t.flush_chain("input");
        if is_deaf {
            t.rule("input", |r| {
                r.protocol(Protocol::Tcp).ct_state(NEW).drop();
            });
        }
        nft.run(t).unwrap();
    };
    for (hears_again, answers) in [(true, "21"), (false, "11")] {
        deaf(true);
        let client = lan.inside(CLIENT);
        let asked = std::thread::spawn(move || {
            let ask = || -> std::io::Result<String> {
                let mut stream = TcpStream::connect((lan_address(3), 80))?;
                stream.set_read_timeout(Some(DEADLINE))?;
                let mut text = String::new();
                stream.read_to_string(&mut text).map(|_| text)
            };
            client.run(ask).unwrap()
        });
        // It asks again 1 s after the first time, and 2 s after the second.
        std::thread::sleep(Duration::from_millis(600));
        lan.service(service(11));
        deaf(!hears_again);
        let answer = asked.join().unwrap().unwrap();
        assert_eq!(answer.split(' ').next(), Some(answers), "{answer}");
        deaf(false);
        lan.service(service(21));
        until("task 21 answers again", || lan.ask(CLIENT, lan_address(3), 80).is_some_and(|(name, _)| name == "21"));
    }
}

/// Without what the manager told, an agent that starts leaves the kernel alone until it is told all of it.
#[test]
#[ignore = "needs root"]
fn a_restart_without_a_table_waits_for_the_manager() {
    let mut lan = Lan::boards();
    lan.agent(1).attach(task(12), place(12)).unwrap();
    let file = lan.run(1).join("net/table");
    assert!(file.exists(), "there is a table as soon as there is a task");
    lan.service(web(&[21]));
    lan.service(other());
    lan.agent(2).attach(task(21), place(21)).unwrap();
    lan.listen(Task(21), PORT);
    let all = names(&["21"]);
    until("board 1 answers", || lan.answers(CLIENT, lan_address(1), 80) == all);
    lan.agents.remove(&1).unwrap().stop();
    std::fs::remove_file(&file).unwrap();
    let prefix = lan.prefix.clone();
    let device = || run(&format!("ip -n {prefix}1 -o link show rc-mesh"));
    let before = device();
    lan.start(1);
    let unknown = |agent: &Agent| {
        for _ in 0..10 {
            assert_eq!(agent.degraded(), [""; 0]);
            std::thread::sleep(Duration::from_millis(10));
        }
        let refused = agent.attach(task(11), place(11));
        assert!(matches!(&refused, Err(NoNetwork::Again(why)) if why.contains("has not told")), "{refused:?}");
        assert_eq!(device(), before);
        assert_eq!(lan.answers(CLIENT, lan_address(1), 80), all);
        assert_eq!(lan.answers(Task(12), VIP, PORT), all);
    };
    unknown(lan.agent(1));
    // A part of it is not enough.
    lan.agent(1).take(Net { own: Some(own(1)), complete: true, ..Net::default() });
    unknown(lan.agent(1));
    lan.agent(1).take(lan.whole(1));
    lan.agent(1).attach(task(11), place(11)).unwrap();
    assert_eq!(device(), before);
    assert_eq!(lan.answers(CLIENT, lan_address(1), 80), all);
    assert_eq!(lan.answers(Task(12), VIP, PORT), all);
    until("nothing is wrong", || lan.agent(1).degraded().is_empty());
}

/// As when there are too many open files.
#[test]
#[ignore = "needs root"]
fn a_task_whose_namespace_cannot_be_opened_is_not_given_up() {
    let mut lan = with_web();
    let all = names(&["11", "21", "31"]);
    lan.agents.remove(&1).unwrap().stop();
    let (dir, aside) = (lan.run(1).join("netns"), lan.run(1).join("aside"));
    std::fs::rename(&dir, &aside).unwrap();
    std::os::unix::fs::symlink("netns", &dir).unwrap();
    lan.start(1);
    let told = |lan: &Lan| lan.agent(1).degraded().iter().any(|why| why.contains("the task's namespace"));
    until("it is told", || told(&lan));
    std::fs::remove_file(&dir).unwrap();
    std::fs::rename(&aside, &dir).unwrap();
    until("all is well", || lan.agent(1).degraded().is_empty());
    lan.service(web(&[11, 21]));
    until("it hears of changes", || lan.answers(Task(12), VIP, PORT) == names(&["11", "21"]));
    lan.service(web(&[11, 21, 31]));
    until("board 1 answers", || lan.answers(CLIENT, lan_address(1), 80) == all);
    lan.agent(1).detach(task(12));
    assert!(!namespace(&lan.run(1), task(12)).exists());
}

fn with_ports(number: u8, published: &[u16]) -> TaskNet {
    let port = |&published: &u16| HostPort { protocol: Protocol::Tcp, published, target: PORT };
    TaskNet { mesh: Some(Ip(mesh(number))), ports: published.iter().map(port).collect(), ..TaskNet::default() }
}

#[test]
#[ignore = "needs root"]
fn a_port_that_was_lost_while_there_was_no_agent_is_told_of() {
    let mut lan = Lan::boards();
    lan.agent(1).attach(task(11), with_ports(11, &[8081, 8082])).unwrap();
    lan.listen(Task(11), PORT);
    assert_eq!(lan.agent(1).ports(task(11)), [8081, 8082]);
    lan.agents.remove(&1).unwrap().stop();
    let program = lan.inside(Host(1)).run(|| TcpListener::bind(("0.0.0.0", 8081))).unwrap().unwrap();
    lan.start(1);
    assert_eq!(lan.agent(1).ports(task(11)), [8082]);
    let told = |lan: &Lan| lan.agent(1).degraded().iter().any(|why| why.contains("port 8081/tcp of task"));
    until("it is told", || told(&lan));
    assert_eq!(lan.answers(CLIENT, lan_address(1), 8082), names(&["11"]));
    drop(program);
    until("it is the task's again", || lan.agent(1).ports(task(11)) == [8081, 8082]);
    until("nothing is wrong", || lan.agent(1).degraded().is_empty());
    assert_eq!(lan.answers(CLIENT, lan_address(1), 8081), names(&["11"]));
    // What belonged to a task whose namespace somebody removed is free.
    run(&format!("umount -l {}", namespace(&lan.run(1), task(11)).display()));
    lan.agent(1).take(Net { own: Some(NetOwn { mtu: 1400, ..own(1) }), ..Net::default() });
    until("it is found", || lan.agent(1).ports(task(11)).is_empty());
    lan.agent(1).attach(task(12), with_ports(12, &[8081, 8082])).unwrap();
}

#[test]
#[ignore = "needs root"]
fn tasks_come_while_others_go() {
    let lan = with_web();
    let attached = |number, net| (task(number), Attached { net, hostname: "task".into(), ..Attached::default() });
    let (first, again) = (attached(13, place(13)), attached(12, place(12)));
    let (waits, wants) = (attached(14, with_ports(14, &[8083])), attached(15, with_ports(15, &[8083])));
    lan.agent(1).with(move |network| async move {
        let here = BTreeSet::from([task(13)]);
        // The first one is at work while the others wait: both tasks of before are gone, but one comes again.
        let busy = smol::future::zip(network.attach(first.0, first.1), network.keep(&here));
        let give_up = smol::future::poll_once(network.attach(waits.0, waits.1));
        let coming = smol::future::zip(network.attach(again.0, again.1), give_up);
        let ((first, ()), (again, given_up)) = smol::future::zip(busy, coming).await;
        assert!(first.is_ok() && again.is_ok() && given_up.is_none());
        assert!(!network.has(task(14)));
        network.attach(wants.0, wants.1).await.unwrap();
    });
    assert!(!namespace(&lan.run(1), task(11)).exists());
    assert_eq!(lan.ask(Task(12), overlay(1, 21), PORT).map(|(name, _)| name).as_deref(), Some("21"));
    assert_eq!(lan.agent(1).degraded(), [""; 0]);
}

#[test]
#[ignore = "needs root"]
fn a_task_that_was_given_up_midway_leaves_nothing_untold() {
    let mut lan = Lan::boards();
    lan.service(web(&[21]));
    lan.agent(2).attach(task(21), place(21)).unwrap();
    lan.listen(Task(21), PORT);
    lan.agent(3).with(|network| async move {
        let attached = Attached { net: place(31), hostname: "task".into(), ..Attached::default() };
        let midway = smol::future::poll_once(network.attach(task(31), attached)).await;
        assert!(midway.is_none() && network.has(task(31)));
    });
    lan.agent(3).attach(task(32), place(32)).unwrap();
    lan.agent(3).detach(task(31));
    lan.service(NetService { endpoints: web(&[21, 32]).endpoints, ..other() });
    until("it reaches the other board", || lan.answers(Task(32), VIP, PORT) == names(&["21"]));
    assert_eq!(lan.agent(3).degraded(), [""; 0]);
}
