//! The way of an encrypted network's packets, with WireGuard outside of the kernel: this shows that keys, addresses,
//! ports and sizes fit together on every kernel.

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use racimo_common::id::{IdSource, NodeId};
use racimo_common::net::{MTU_ENCRYPTED, VXLAN_ENCRYPTED_PORT};
use ring::rand::SystemRandom;

use super::*;
use crate::net::ns::{Namespace, Namespaces};
use crate::net::testing::own;

const PATIENCE: Duration = Duration::from_secs(10);

struct Board {
    path: PathBuf,
    namespace: Namespace,
    own: NetOwn,
    key: Key,
    program: Option<Child>,
}

impl Drop for Board {
    fn drop(&mut self) {
        if let Some(program) = &mut self.program {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

impl Board {
    fn new(all: &Namespaces, data: &Path, number: u8) -> Self {
        let name = format!("board{number}");
        let data = data.join(&name);
        std::fs::create_dir(&data).unwrap();
        Self {
            namespace: all.make(&name).unwrap(),
            path: all.path(&name),
            own: own(number),
            key: Key::load(&data, 0, &SystemRandom::new()).unwrap(),
            program: None,
        }
    }

    /// As the manager tells others of it.
    fn as_peer(&self) -> NetPeer {
        let node = IdSource::seeded(1).draw::<NodeId>();
        NetPeer { node, subnet: self.own.subnet, address: self.own.address, key: Some(self.key.public) }
    }

    fn inside(&self, script: &str) -> String {
        let net = format!("--net={}", self.path.display());
        let output = Command::new("nsenter").args([&net, "sh", "-ec", script]).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts the program, and gives it what the kernel would be given.
    fn encrypt(&mut self, peers: &Peers) {
        let script = "mkdir -p /run/wireguard && mount -t tmpfs none /run/wireguard && exec wireguard-go -f rc-wg";
        let program = Command::new("nsenter")
            .args([&format!("--net={}", self.path.display()), "unshare", "-m", "sh", "-ec", script])
            .env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1")
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let socket = format!("/proc/{}/root/run/wireguard/{LINK}.sock", program.id());
        self.program = Some(program);
        let deadline = Instant::now() + PATIENCE;
        let mut stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "{socket}: {error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let mut text = format!("set=1\nprivate_key={}\nlisten_port={WIREGUARD_PORT}\n", hex(self.key.private()));
        for (key, peer) in peers {
            text += &format!("public_key={}\nendpoint={}\n", hex(key), peer.endpoint);
            text += &format!("replace_allowed_ips=true\nallowed_ip={}/32\n", peer.inside);
        }
        stream.write_all(format!("{text}\n").as_bytes()).unwrap();
        let mut answer = [0; 64];
        let count = stream.read(&mut answer).unwrap();
        assert!(answer[..count].starts_with(b"errno=0"), "{}", String::from_utf8_lossy(&answer[..count]));
    }

    /// The device's address and routes.
    fn route(&self, other: &Board) {
        let (local, remote) = (inside(&self.own), inside(&other.own));
        self.inside(&format!(
            "ip addr add {local}/32 dev {LINK}; ip link set {LINK} mtu 1420 up
             ip route add {remote}/32 dev {LINK} src {local}"
        ));
    }

    /// One encrypted network.
    fn network(&self, other: &Board, own: &str) {
        let (local, remote) = (inside(&self.own), inside(&other.own));
        self.inside(&format!(
            "ip link add rcv5000 mtu {MTU_ENCRYPTED} type vxlan id 5000 dstport {VXLAN_ENCRYPTED_PORT} local {local} remote {remote}
             ip addr add {own}/24 dev rcv5000; ip link set rcv5000 up"
        ));
    }
}

#[test]
#[ignore = "needs root"]
fn an_encrypted_networks_packets_reach_the_other_board_and_nobody_reads_them() {
    if Command::new("wireguard-go").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return eprintln!("NOT RUN: wireguard-go is not installed (apt-get install wireguard-go)");
    }
    let dir = tempfile::Builder::new().prefix("racimo-wg-").tempdir_in("/run").unwrap();
    let all = Namespaces::new(dir.path().join("netns"));
    let (mut a, mut b) = (Board::new(&all, dir.path(), 1), Board::new(&all, dir.path(), 2));
    a.inside(&format!("ip link add eth0 type veth peer name eth0 netns {}", b.path.display()));
    for board in [&a, &b] {
        board.inside(&format!(
            "ip link set lo up; ip addr add {}/24 dev eth0; ip link set eth0 up",
            board.own.address.0
        ));
        board.inside(
            "nft add table ip watch
             nft 'add chain ip watch in { type filter hook input priority 0; }'
             nft add rule ip watch in iifname eth0 udp dport 51820 counter
             nft add rule ip watch in iifname eth0 udp dport != 51820 counter",
        );
    }
    let (to_a, to_b) = (peers([&b.as_peer()]), peers([&a.as_peer()]));
    a.encrypt(&to_a);
    b.encrypt(&to_b);
    a.route(&b);
    b.route(&a);
    a.network(&b, "10.0.9.1");
    b.network(&a, "10.0.9.2");

    let receiver = b.namespace.run(|| UdpSocket::bind("10.0.9.2:7000").unwrap()).unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let sender = a.namespace.run(|| UdpSocket::bind("10.0.9.1:7000").unwrap()).unwrap();
    // The largest that fits, whole.
    let packet = vec![0x5a; usize::from(MTU_ENCRYPTED) - 28];
    let mut got = vec![0; 2000];
    let deadline = Instant::now() + PATIENCE;
    let count = loop {
        sender.send_to(&packet, "10.0.9.2:7000").unwrap();
        match receiver.recv_from(&mut got) {
            Ok((count, from)) => {
                assert_eq!(from, "10.0.9.1:7000".parse().unwrap());
                break count;
            }
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    assert_eq!(got[..count], packet);
    let counters: Vec<bool> = b
        .inside("nft list chain ip watch in")
        .lines()
        .filter_map(|line| line.split("packets ").nth(1)?.split(' ').next().map(|count| count != "0"))
        .collect();
    assert_eq!(counters, [true, false], "only WireGuard is on the wire");

    // Without the board's key nothing goes: as after a rotation that the other board has not heard of.
    drop(b.program.take().map(|mut program| (program.kill(), program.wait())));
    b.key = Key::load(&dir.path().join("board2"), 1, &SystemRandom::new()).unwrap();
    b.encrypt(&to_b);
    b.route(&a);
    while receiver.recv_from(&mut got).is_ok() {}
    sender.send_to(&packet, "10.0.9.2:7000").unwrap();
    assert!(receiver.recv_from(&mut got).is_err(), "an old key is good for nothing");
    for name in all.list().unwrap() {
        all.remove(&name).unwrap();
    }
}
