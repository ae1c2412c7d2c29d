//! Tasks, networks and services that come and go, two hundred tasks in all, leave nothing behind: no link, namespace, mount,
//! route, neighbour, rule, open file, thread or memory.
//!
//! A board in a network namespace of its own, without a manager. Needs root: `make test-root`.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../src/net/testing.rs"]
mod testing;

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use racimo_agent::alloc;
use racimo_agent::net::Network;
use racimo_agent::net::ns::{Namespace, Namespaces};
use racimo_agent::net::plan::Attached;
use racimo_common::id::{NetworkId, RandomId, TaskId};
use racimo_common::object::{HostPort, Protocol};
use racimo_common::wire::{Ip, Net, NetAttachment, NetEndpoint, NetPort, NetService, TaskNet};
use smol::{LocalExecutor, Timer};
use testing::{network, node, own, peer};

#[global_allocator]
static HEAP: alloc::Counting = alloc::Counting;

const ROUNDS: u32 = 70;
const DEADLINE: Duration = Duration::from_secs(20);
/// What tables that grew may keep.
const HEAP_SLACK: usize = 32 << 10;

/// The board's namespace and directories; they go with the test, also when it fails.
struct Place {
    board: Namespaces,
    dir: tempfile::TempDir,
}

impl Drop for Place {
    fn drop(&mut self) {
        for all in [&self.board, &Namespaces::new(self.run().join("netns"))] {
            for name in all.list().unwrap_or_default() {
                let _ = all.remove(&name);
            }
        }
    }
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("racimo-leaks-").tempdir_in("/run").unwrap();
        Self { board: Namespaces::new(dir.path().join("board")), dir }
    }

    fn run(&self) -> PathBuf {
        self.dir.path().join("run")
    }
}

fn id<T: RandomId>(number: u32) -> T {
    T::from_bits(u128::from(number) << 96 | 1)
}

/// A task of this board on both networks; the second one of each round has its own port, and no way out is the third's.
fn attached(round: u32, which: u8) -> Attached {
    let networks: Vec<(NetworkId, Ip)> =
        (1..=2).map(|net| (network(net).id, Ip(Ipv4Addr::new(10, 0, net, 10 + which)))).collect();
    let mesh = (which < 3).then_some(Ip(Ipv4Addr::new(10, 200, 1, 10 + which)));
    let published = u16::try_from(20_000 + round % 7).unwrap();
    let port = HostPort { protocol: Protocol::Tcp, published, target: 80 };
    let ports = if which == 2 { vec![port] } else { Vec::new() };
    Attached { net: TaskNet { mesh, networks, ports, balanced: true }, ..Attached::default() }
}

/// A service with tasks here and on the other boards, twenty of them in every other round.
fn service(round: u32) -> NetService {
    let endpoint = |number: u8| NetEndpoint {
        targets: Box::default(),
        task: id(round * 64 + u32::from(number)),
        slot: Some(number.into()),
        hostname: None,
        node: node(number % 3 + 1),
        mesh: Some(Ip(Ipv4Addr::new(10, 200, number % 3 + 1, 100 + number))),
        addresses: (1..=2).map(|net| Ip(Ipv4Addr::new(10, 0, net, 100 + number))).collect(),
        active: true,
        unsure: false,
    };
    let published = |protocol| NetPort { protocol, published: u16::try_from(8000 + round % 11).unwrap(), target: 80 };
    let attachment = |net: u8| NetAttachment {
        network: network(net).id,
        vip: Some(Ip(Ipv4Addr::new(10, 0, net, 2))),
        aliases: vec!["alias".into()],
    };
    NetService {
        id: id(round),
        name: format!("web{round}"),
        ports: Protocol::ALL.map(published).into(),
        keep_source: round % 3 == 0,
        networks: vec![attachment(1), attachment(2)],
        endpoints: (1..if round % 2 == 0 { 21 } else { 4 }).map(endpoint).collect(),
    }
}

/// Everything that could be left, as text.
fn snapshot(run: &Path) -> String {
    let mut text = String::new();
    for command in [
        "ip -o link | sed 's/^[0-9]*: //' | sort",
        "ip addr | grep inet",
        "ip route show table all type unicast; ip route show type blackhole",
        "ip rule",
        "ip neigh show nud permanent",
        "bridge fdb",
        "ip nexthop",
        "nft list ruleset",
    ] {
        let output = Command::new("sh").args(["-c", command]).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        write!(text, "$ {command}\n{}", String::from_utf8_lossy(&output.stdout)).unwrap();
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for line in mounts.lines().filter(|line| line.contains(run.to_str().unwrap())) {
        writeln!(text, "mount {}", line.split(' ').nth(4).unwrap_or_default()).unwrap();
    }
    let mut dirs = vec![run.to_owned()];
    while let Some(dir) = dirs.pop() {
        let mut paths: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            writeln!(text, "file {}", path.display()).unwrap();
            if path.is_dir() {
                dirs.push(path);
            }
        }
    }
    for (what, dir) in [("open files", "/proc/self/fd"), ("threads", "/proc/self/task")] {
        writeln!(text, "{what} {}", fs::read_dir(dir).unwrap().count()).unwrap();
    }
    text
}

async fn until(what: &str, mut state: impl FnMut() -> Result<(), String>) {
    let end = Instant::now() + DEADLINE;
    while let Err(state) = state() {
        assert!(Instant::now() < end, "never: {what}\n{state}");
        Timer::after(Duration::from_millis(20)).await;
    }
}

fn same(is: &str, wanted: &str) -> Result<(), String> {
    let differences = |one: &str, other: &str, sign: char| -> String {
        let known: Vec<&str> = other.lines().collect();
        one.lines().filter(|line| !known.contains(line)).map(|line| format!("{sign} {line}\n")).collect()
    };
    let found = differences(is, wanted, '+') + &differences(wanted, is, '-');
    if found.is_empty() { Ok(()) } else { Err(found) }
}

/// A round: tasks come, a service comes and changes, all of it goes, in another order every time.
async fn round(network: &Network, number: u32) {
    let tasks: Vec<(TaskId, Attached)> =
        (1..=3_u8).map(|which| (id(number * 64 + u32::from(which)), attached(number, which))).collect();
    let tell = |service: NetService| network.take(Net { services: vec![service], ..Net::default() });
    if number % 2 == 0 {
        tell(service(number));
    }
    for (task, attached) in &tasks {
        network.attach(*task, attached.clone()).await.unwrap();
    }
    tell(service(number));
    let mut less = service(number);
    less.endpoints.truncate(2);
    less.endpoints[1].active = false;
    tell(less);
    if number % 5 == 0 {
        // Another board comes and goes, too.
        network.take(Net { peers: vec![peer(9)], ..Net::default() });
        Timer::after(Duration::from_millis(5)).await;
        network.take(Net { peers_gone: vec![peer(9).node], ..Net::default() });
    }
    let gone = || network.take(Net { services_gone: vec![service(number).id], ..Net::default() });
    if number % 4 < 2 {
        gone();
    }
    for (task, _) in &tasks {
        network.detach(*task).await;
    }
    gone();
}

async fn test(executor: Rc<LocalExecutor<'static>>, run: PathBuf) {
    let network = Network::open(executor.clone(), &run, PathBuf::from("/etc/resolv.conf")).unwrap();
    let _drive = executor.spawn(network.clone().drive(Duration::from_millis(50)));
    network.take(Net {
        complete: true,
        last: true,
        own: Some(own(1)),
        peers: vec![peer(2), peer(3)],
        networks: vec![testing::network(1), testing::network(2)],
        ..Net::default()
    });
    let settled = |wanted: Option<&str>| -> Result<(), String> {
        let is = snapshot(&run);
        let busy = is.contains("p_tcp") || is.contains("\nrg-") || !is.contains("rc-mesh");
        let busy = if busy { Err(is.clone()) } else { Ok(()) };
        busy.and_then(|()| wanted.map_or(Ok(()), |wanted| same(&is, wanted)))
    };
    // What is made once, and stays.
    for number in 1..=10 {
        round(&network, number).await;
    }
    until("the first rounds are over", || settled(None)).await;
    Timer::after(Duration::from_millis(200)).await;
    let (before, heap) = (snapshot(&run), alloc::used());
    let start = Instant::now();
    for number in 1..=ROUNDS {
        round(&network, number).await;
    }
    eprintln!("{ROUNDS} rounds of three tasks: {:?}", start.elapsed());
    until("all is as it was", || settled(Some(&before))).await;
    let now = alloc::used();
    assert!(now <= heap + HEAP_SLACK, "{heap} bytes of heap before, {now} after");
    assert_eq!(network.degraded(), [""; 0]);
    // The last of it goes when the board is no member any more.
    network.forget_all();
    let empty = || {
        let rules = Command::new("nft").args(["list", "ruleset"]).output().unwrap().stdout;
        let links = Command::new("ip").args(["-o", "link"]).output().unwrap().stdout;
        let text = String::from_utf8_lossy(&rules).into_owned() + &String::from_utf8_lossy(&links);
        if text.contains("racimo") || text.contains("rc-mesh") { Err(text) } else { Ok(()) }
    };
    until("nothing is left", empty).await;
}

#[test]
#[ignore = "needs root"]
fn nothing_is_left_after_two_hundred_tasks() {
    let place = Place::new();
    let board: Namespace = place.board.make("board").unwrap();
    let run = place.run();
    fs::create_dir_all(&run).unwrap();
    // All of it on a thread that is inside the board, with `ip` and `nft` as its children.
    board
        .run(|| {
            let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
            assert!(up.success());
            let executor = Rc::new(LocalExecutor::new());
            smol::block_on(executor.clone().run(test(executor.clone(), run)));
        })
        .unwrap();
}
