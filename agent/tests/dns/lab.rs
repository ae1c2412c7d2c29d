//! A board in a network namespace of its own, with tasks in others, and other name servers that misbehave by name.

use std::cell::RefCell;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use racimo_agent::alloc;
use racimo_agent::net::dns::message::{Code, Query, Records, TCP_BYTES_MAX};
use racimo_agent::net::dns::{Dns, Own};
use racimo_agent::net::ns::{Namespace, Namespaces};
use racimo_agent::net::table::Table;
use racimo_common::id::TaskId;
use racimo_common::wire::Net;
use smol::LocalExecutor;
use smol::channel::{Receiver, Sender};
use tempfile::TempDir;

/// As the agent's: what follows it is in the tests of the packet filter.
const RULES: &str = "table ip racimo {
  chain output { type nat hook output priority -100; policy accept;
    ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:10053
    ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:10053
  }
}";

/// What the test asks of the board's thread.
enum Do {
    Take(Net),
    Open(Own, PathBuf, Vec<IpAddr>),
    Close(TaskId),
    /// Bytes of heap: now, and the most since the start.
    Heap,
}

/// A board that serves names.
pub(crate) struct Lab {
    pub(crate) dir: TempDir,
    namespaces: Namespaces,
    orders: Sender<Do>,
    answers: Receiver<(usize, usize)>,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let namespaces = Namespaces::new(dir.path().join("netns"));
        let board = namespaces.make("board").unwrap();
        sh(&format!(
            "ip -n {0} link set lo up 2>/dev/null || nsenter --net={0} ip link set lo up",
            path(&namespaces, "board")
        ));
        let upstream = dir.path().join("upstream.conf");
        fs::write(&upstream, "nameserver 127.0.0.1\nnameserver 127.0.0.2\n").unwrap();
        let (orders, inbox) = smol::channel::bounded(1);
        let (outbox, answers) = smol::channel::bounded(1);
        // Its own thread, which stays inside: what others ask for is asked from there.
        within(&board, move || serve(&inbox, &outbox, upstream));
        // Nothing ever comes from here but lies.
        let liar = Arc::new(board.run(|| UdpSocket::bind("127.0.0.9:53")).unwrap().unwrap());
        for (last, is_first) in [(1, true), (2, false)] {
            let address = SocketAddr::from(([127, 0, 0, last], 53));
            let (socket, liar) = (board.run(|| UdpSocket::bind(address)).unwrap().unwrap(), liar.clone());
            let listener = board.run(|| TcpListener::bind(address)).unwrap().unwrap();
            thread::spawn(move || udp_server(&socket, &liar, is_first));
            thread::spawn(move || tcp_server(&listener, is_first));
        }
        let lab = Self { dir, namespaces, orders, answers };
        lab.compile("resolve-glibc", "cc");
        lab.compile("resolve-musl", "musl-gcc");
        lab
    }

    fn compile(&self, name: &str, compiler: &str) {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dns/resolve.c");
        sh(&format!("{compiler} -o {} {}", self.dir.path().join(name).display(), source.display()));
    }

    /// Makes a task's namespace and opens its server.
    pub(crate) fn task(&self, name: &str, own: Own, servers: &[&str]) {
        self.namespaces.make(name).unwrap();
        let place = path(&self.namespaces, name);
        sh(&format!("nsenter --net={place} ip link set lo up; echo '{RULES}' | nsenter --net={place} nft -f -"));
        fs::write(self.resolv_conf(name), "nameserver 127.0.0.11\nsearch lan.example\noptions ndots:0\n").unwrap();
        self.open(name, own, servers);
    }

    /// Opens its server again, as after a restart.
    pub(crate) fn open(&self, name: &str, own: Own, servers: &[&str]) {
        let servers = servers.iter().map(|server| server.parse().unwrap()).collect();
        self.order(Do::Open(own, self.namespaces.path(name), servers));
    }

    pub(crate) fn close(&self, task: TaskId) {
        self.order(Do::Close(task));
    }

    pub(crate) fn take(&self, net: Net) {
        self.order(Do::Take(net));
    }

    pub(crate) fn heap(&self) -> (usize, usize) {
        self.order(Do::Heap)
    }

    fn order(&self, order: Do) -> (usize, usize) {
        self.orders.send_blocking(order).unwrap();
        self.answers.recv_blocking().unwrap()
    }

    pub(crate) fn resolv_conf(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.conf"))
    }

    pub(crate) fn namespace(&self, name: &str) -> Namespace {
        self.namespaces.open(name).unwrap().unwrap()
    }

    /// What a command says inside a task, with the task's resolv.conf.
    pub(crate) fn inside(&self, name: &str, command: &str) -> String {
        let (conf, place) = (self.resolv_conf(name), path(&self.namespaces, name));
        // resolv.conf is a link on some machines.
        let script = format!(
            "mount --bind {} \"$(readlink -f /etc/resolv.conf)\" && cd {} && exec nsenter --net={place} {command}",
            conf.display(),
            self.dir.path().display()
        );
        output(Command::new("timeout").args(["30", "unshare", "--mount", "sh", "-c", &script]))
    }

    /// The addresses that a resolver finds, sorted; or its error.
    pub(crate) fn resolve(&self, name: &str, libc: &str, query: &str) -> String {
        let said = self.inside(name, &format!("./resolve-{libc} {query}"));
        let mut lines: Vec<&str> = said.lines().collect();
        lines.sort_unstable();
        lines.join(" ")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in self.namespaces.list().unwrap() {
            self.namespaces.remove(&name).unwrap();
        }
    }
}

fn path(namespaces: &Namespaces, name: &str) -> String {
    namespaces.path(name).display().to_string()
}

fn sh(script: &str) {
    let said = Command::new("sh").args(["-c", script]).output().unwrap();
    assert!(said.status.success(), "{script}: {}", String::from_utf8_lossy(&said.stderr));
}

fn output(command: &mut Command) -> String {
    let said = command.stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr)
}

/// Starts a thread that stays in a namespace.
pub(crate) fn within(namespace: &Namespace, work: impl FnOnce() + Send + 'static) {
    // A thread inherits its parent's.
    namespace.run(|| drop(thread::spawn(work))).unwrap();
}

fn serve(inbox: &Receiver<Do>, outbox: &Sender<(usize, usize)>, upstream: PathBuf) {
    let executor = Rc::new(LocalExecutor::new());
    let table = Rc::new(RefCell::new(Table::default()));
    let dns = Dns::new(executor.clone(), table.clone(), upstream, fastrand::Rng::with_seed(1));
    smol::block_on(executor.run(async {
        while let Ok(order) = inbox.recv().await {
            match order {
                Do::Take(net) => table.borrow_mut().take(net),
                Do::Open(own, place, servers) => dns.open(own, &place, &servers).unwrap(),
                Do::Close(task) => dns.close(task),
                Do::Heap => {}
            }
            outbox.send((alloc::used(), alloc::peak())).await.unwrap();
        }
    }));
}

/// What another server does with a query.
enum Does {
    Answers(Vec<u8>),
    AnswersAfterALie(Vec<u8>),
    IsSilent,
}

fn judge(query: &Query<'_>, is_first: bool, is_tcp: bool) -> Does {
    let limit = if is_tcp { TCP_BYTES_MAX } else { query.udp_limit() };
    let last = if is_first { 1 } else { 2 };
    let many: Vec<Ipv4Addr> = (0..200).map(|i| Ipv4Addr::new(192, 0, 2, i)).collect();
    let one = [Ipv4Addr::new(192, 0, 2, last)];
    let known = query.answer(Code::Fine, Records::Addresses(if query.kind == 1 { &one } else { &[] }), 60, limit);
    match query.name.as_str() {
        "good.example" | "nas.lan.example" => Does::Answers(known),
        "refused.example" if is_first => Does::Answers(query.fail(Code::Failed)),
        "silent.example" if is_first => Does::IsSilent,
        "refused.example" | "silent.example" => Does::Answers(known),
        "dead.example" => Does::IsSilent,
        "forged.example" => Does::AnswersAfterALie(known),
        "big.example" => {
            let records = if query.kind == 1 { &many[..] } else { &[] };
            Does::Answers(query.answer(Code::Fine, Records::Addresses(records), 60, limit))
        }
        _ => Does::Answers(query.answer(Code::NoName, Records::None, 60, limit)),
    }
}

fn udp_server(socket: &UdpSocket, liar: &UdpSocket, is_first: bool) {
    let mut packet = [0; 2048];
    while let Ok((length, from)) = socket.recv_from(&mut packet) {
        let query = Query::parse(&packet[..length]).unwrap();
        match judge(&query, is_first, false) {
            Does::Answers(answer) => drop(socket.send_to(&answer, from)),
            Does::AnswersAfterALie(answer) => {
                // Another id, another question, another sender: none of them is believed.
                let lie = query.answer(Code::Fine, Records::Addresses(&[Ipv4Addr::new(6, 6, 6, 6)]), 60, 512);
                let (mut id, mut question) = (lie.clone(), lie.clone());
                id[0] ^= 1;
                question[13] ^= 1;
                liar.send_to(&lie, from).unwrap();
                for lie in [id, question] {
                    socket.send_to(&lie, from).unwrap();
                }
                socket.send_to(&answer, from).unwrap();
            }
            Does::IsSilent => {}
        }
    }
}

fn tcp_server(listener: &TcpListener, is_first: bool) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut length = [0; 2];
        if stream.read_exact(&mut length).is_err() {
            continue;
        }
        let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut packet).unwrap();
        let query = Query::parse(&packet).unwrap();
        if let Does::Answers(answer) | Does::AnswersAfterALie(answer) = judge(&query, is_first, true) {
            let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
            stream.write_all(&[&length[..], &answer].concat()).unwrap();
        }
    }
}
