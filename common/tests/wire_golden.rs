//! The bytes of every message of the protocol's versions. A released version's bytes are never edited: a new field adds
//! a message to the list, and the old one must still be read.
//!
//! `RACIMO_UPDATE_GOLDEN=1 cargo test -p racimo-common --test wire_golden` writes the file anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;

use racimo_common::id::{ClusterId, DependencyId, NetworkId, NodeId, RandomId, ServiceId, TaskId};
use racimo_common::net::Subnet;
use racimo_common::object::{
    BindOptions, BoardHealth, ContainerSpec, ContainerStatus, Desired, DnsConfig, Generic, HealthConfig, HostPort,
    Limits, LogAsk, LogConfig, LogEntry, LogStream, Mount, MountKind, NetworkMode, NodeDescription, Privileges,
    Propagation, Protocol, Reservations, Resources, Role, TaskReport, TaskState, TmpfsOptions, Ulimit, VolumeOptions,
    WireguardKey,
};
use racimo_common::registry::{Credentials, Platform};
use racimo_common::time::Wall;
use racimo_common::units::{Bytes, NanoCpus};
use racimo_common::wire::{
    Assign, Assignment, BoardId, BodyKey, BodyPart, Certified, File, Hello, Ip, Join, Joined, LogsEnd, LogsOpen,
    LogsPart, Net, NetAttachment, NetEndpoint, NetNetwork, NetOwn, NetPeer, NetPort, NetService, Refused, RefusedCode,
    Renew, Status, TaskNet, ToAgent, ToManager, Trusts, Welcome, Work, frame,
};

use serde_bytes::ByteBuf;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/wire-1.txt");
const FILE_2: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/wire-2.txt");
const MAX: usize = 1 << 20;

fn labels(key: &str) -> BTreeMap<String, String> {
    [(key.to_owned(), "value".to_owned())].into()
}

fn description() -> NodeDescription {
    NodeDescription {
        data_address: None,
        wireguard_key: None,
        key_epoch: 0,
        no_network: None,
        no_encryption: None,
        no_memory_limits: None,
        no_cpu_limits: None,
        no_pids_limits: None,
        hostname: "board1".into(),
        platforms: vec![Platform::new("linux", "arm64", "v8"), Platform::new("linux", "arm", "v7")],
        machine: "aarch64".into(),
        cpus: NanoCpus::new(4_000_000_000),
        memory: Bytes::mib(512),
        kernel: "6.12.47".into(),
        os: "Debian GNU/Linux 13 (trixie)".into(),
        agent_version: "0.1.0".into(),
        containerd_version: "1.7.24".into(),
        labels: labels("io.racimo.model"),
        tasks_max: 128,
        generic: [
            ("gpio".to_owned(), Generic::Count(2)),
            ("modem".to_owned(), Generic::Named(["/dev/ttyUSB0".to_owned()].into())),
        ]
        .into(),
        degraded: vec!["no memory limits".into()],
    }
}

fn container() -> ContainerSpec {
    let mount = |target: &str, kind| Mount { target: target.into(), read_only: true, kind };
    ContainerSpec {
        image: "registry:5000/web:latest".into(),
        command: vec!["httpd".into()],
        args: vec!["-f".into()],
        env: vec!["A=1".into()],
        labels: labels("tier"),
        hostname: Some("web".into()),
        user: Some("1000:1000".into()),
        dir: Some("/srv".into()),
        mounts: vec![
            mount(
                "/a",
                MountKind::Bind {
                    source: "/b".into(),
                    options: BindOptions { propagation: Some(Propagation::Rslave), non_recursive: true },
                },
            ),
            mount(
                "/v",
                MountKind::Volume {
                    source: Some("data".into()),
                    options: VolumeOptions { no_copy: true, labels: labels("keep") },
                },
            ),
            mount("/t", MountKind::Tmpfs { options: TmpfsOptions { size: Some(Bytes::mib(1)), mode: Some(0o1777) } }),
        ],
        stop_signal: Some("SIGINT".into()),
        stop_grace: Some(Duration::from_secs(3)),
        network: NetworkMode::Host,
        health: Some(HealthConfig {
            test: vec!["CMD-SHELL".into(), "true".into()],
            interval: Some(Duration::from_secs(1)),
            timeout: Some(Duration::from_secs(2)),
            start_period: Some(Duration::from_secs(3)),
            start_interval: Some(Duration::from_secs(4)),
            retries: Some(5),
        }),
        init: Some(true),
        tty: true,
        open_stdin: true,
        read_only: true,
        groups: vec!["dialout".into()],
        cap_add: vec!["CAP_NET_ADMIN".into()],
        cap_drop: vec!["CAP_CHOWN".into()],
        ulimits: vec![Ulimit { name: "nofile".into(), soft: 1, hard: -1 }],
        sysctls: labels("net.core.somaxconn"),
        dns: DnsConfig {
            servers: vec!["192.0.2.1".into()],
            search: vec!["lan".into()],
            options: vec!["ndots:2".into()],
        },
        hosts: vec!["192.0.2.2 db".into()],
        oom_score_adj: Some(-5),
        privileges: Privileges { no_new_privileges: true, seccomp_unconfined: true },
        secrets: Vec::new(),
        configs: Vec::new(),
    }
}

fn assign() -> Assign {
    let key = BodyKey { id: DependencyId::from_bits(6), task: Some(TaskId::from_bits(4)) };
    let work = Work {
        net: None,
        service: ServiceId::from_bits(3),
        service_name: "web".into(),
        slot_name: "web.1".into(),
        container: container(),
        resources: Resources {
            limits: Limits { cpu: Some(NanoCpus::new(500_000_000)), memory: Some(Bytes::mib(64)), pids: Some(32) },
            reservations: Reservations { cpu: NanoCpus::new(1), memory: Bytes::new(2) },
            generic: [("gpio".to_owned(), 1)].into(),
        },
        log: LogConfig::Files { size_max: Bytes::mib(1), files_max: 3 },
        files: vec![File { body: key, target: "/run/secrets/s".into(), uid: 1, gid: 2, mode: 0o400 }],
        credentials: Some(Credentials::Password { username: "u".into(), password: "p".into() }),
        fault: Some("secret 's' was removed".into()),
        offline: racimo_common::wire::Offline::default(),
    };
    Assign {
        complete: true,
        from: 0,
        to: 9,
        last: true,
        bodies: vec![BodyPart { key, total: 3, offset: 1, bytes: vec![7, 8] }],
        tasks: vec![
            Assignment { task: TaskId::from_bits(4), desired: Desired::Running, work: Some(Box::new(work)) },
            Assignment { task: TaskId::from_bits(5), desired: Desired::Shutdown, work: None },
        ],
        removed: vec![TaskId::from_bits(u128::MAX)],
        logs: Some(vec![TaskId::from_bits(8)]),
    }
}

fn report() -> TaskReport {
    TaskReport {
        unhealthy: false,
        restarts: 0,
        ports: Vec::new(),
        task: TaskId::from_bits(4),
        state: TaskState::Failed,
        at: Wall::from_nanos(1_700_000_000_000_000_000),
        message: "started".into(),
        err: Some("task: non-zero exit (1)".into()),
        container: Some(ContainerStatus { id: "4".into(), pid: 0, exit_code: Some(1) }),
    }
}

/// A task with a place in the network.
fn assign_net() -> Assign {
    let mut assign = assign();
    let task = TaskNet {
        mesh: Some(Ip(Ipv4Addr::new(10, 200, 1, 2))),
        networks: vec![(NetworkId::from_bits(10), Ip(Ipv4Addr::new(10, 0, 1, 3)))],
        ports: vec![HostPort { protocol: Protocol::Udp, published: 0, target: 53 }],
        balanced: true,
    };
    assign.tasks.iter_mut().filter_map(|task| task.work.as_mut()).for_each(|work| work.net = Some(task.clone()));
    assign
}

fn net() -> Net {
    let subnet = |text: &str| text.parse::<Subnet>().expect("a subnet");
    let ip = |bits: u32| Ip(bits.into());
    let endpoint = |task: u128, sure: bool| NetEndpoint {
        targets: if sure { Box::default() } else { [(0, 8081), (1, 0)].into() },
        task: TaskId::from_bits(task),
        hostname: (!sure).then(|| "web-1".into()),
        slot: sure.then_some(1),
        node: NodeId::from_bits(2),
        mesh: Some(ip(0x0ac8_0102)),
        addresses: vec![ip(0x0a00_0103), ip(0)],
        active: true,
        unsure: !sure,
    };
    let service = NetService {
        id: ServiceId::from_bits(3),
        name: "web".into(),
        ports: vec![NetPort { protocol: Protocol::Tcp, published: 80, target: 8080 }],
        keep_source: true,
        networks: vec![
            NetAttachment {
                network: NetworkId::from_bits(10),
                vip: Some(ip(0x0a00_0102)),
                aliases: vec!["www".into()],
            },
            NetAttachment { network: NetworkId::from_bits(11), vip: None, aliases: Vec::new() },
        ],
        endpoints: vec![endpoint(4, true), endpoint(5, false)],
    };
    Net {
        complete: true,
        last: true,
        own: Some(NetOwn {
            mesh: subnet("10.200.0.0/16"),
            subnet: subnet("10.200.1.0/24"),
            address: ip(0xc000_0201),
            vxlan_port: 4789,
            mtu: 1450,
            key_epoch: 2,
        }),
        peers: vec![NetPeer {
            node: NodeId::from_bits(6),
            subnet: subnet("10.200.2.0/24"),
            address: ip(0xc000_0202),
            key: Some(WireguardKey::new([7; 32])),
        }],
        peers_gone: vec![NodeId::from_bits(7)],
        networks: vec![NetNetwork {
            id: NetworkId::from_bits(10),
            name: "front".into(),
            vni: 4097,
            subnet: subnet("10.0.1.0/24"),
            internal: true,
            encrypted: true,
            mtu: 1370,
        }],
        networks_gone: vec![NetworkId::from_bits(12)],
        services: vec![service],
        services_gone: vec![ServiceId::from_bits(8)],
    }
}

fn to_manager() -> Vec<(&'static str, ToManager)> {
    let entry = LogEntry { at: Wall::from_nanos(1), stream: LogStream::Stderr, line: b"no\n".to_vec() };
    let logs = LogsPart { reading: 3, entries: vec![entry], end: Some(LogsEnd::Failed("gone".into())) };
    let described = NodeDescription {
        data_address: Some(Ipv4Addr::new(192, 0, 2, 1)),
        wireguard_key: Some(WireguardKey::new([7; 32])),
        key_epoch: 2,
        no_network: Some("no vxlan".into()),
        no_encryption: Some("no wireguard".into()),
        ..description()
    };
    let unlimited = NodeDescription {
        no_memory_limits: Some("off".into()),
        no_cpu_limits: Some("missing".into()),
        no_pids_limits: Some("missing".into()),
        ..description()
    };
    let port = HostPort { protocol: Protocol::Sctp, published: 9000, target: 90 };
    let with_port = TaskReport { state: TaskState::Running, ports: vec![port], ..report() };
    let unhealthy = TaskReport { state: TaskState::Running, unhealthy: true, ..report() };
    let trusts = Trusts { certificate: [1; 32], roots: vec![[2; 32]] };
    let board = BoardId { serial: Some([3; 32]), machine: None };
    let hello = Hello { versions: (1, 1), boot: 7, description: description(), trusts: trusts.clone(), board };
    vec![
        (
            "join",
            ToManager::Join(Join { versions: (1, 1), token: "t".into(), csr: vec![1, 2], hostname: "board1".into() }),
        ),
        ("hello", ToManager::Hello(hello)),
        ("describe", ToManager::Describe(description())),
        ("status", ToManager::Status(Status { complete: true, last: true, index: 9, tasks: vec![report()] })),
        ("heartbeat", ToManager::Heartbeat(1)),
        ("bye", ToManager::Bye { leaving: true }),
        ("renew", ToManager::Renew(Renew { csr: vec![1, 2] })),
        ("trusts", ToManager::Trusts(trusts)),
        ("logs", ToManager::Logs(logs)),
        ("describe-net", ToManager::Describe(described)),
        ("status-ports", ToManager::Status(Status { tasks: vec![with_port], ..Status::default() })),
        ("describe-limits", ToManager::Describe(unlimited)),
        ("status-unhealthy", ToManager::Status(Status { tasks: vec![unhealthy], ..Status::default() })),
    ]
}

fn to_agent() -> Vec<(&'static str, ToAgent)> {
    let joined = Joined {
        cluster: ClusterId::from_bits(1),
        node: NodeId::from_bits(2),
        role: Role::Worker,
        certificate: vec![3, 4],
        managers: vec!["10.0.0.1:2377".into()],
        roots: vec![ByteBuf::from(vec![5])],
    };
    let welcome = Welcome {
        version: 1,
        heartbeat_ms: 1000,
        managers: vec!["10.0.0.1:2377".into()],
        node: NodeId::from_bits(2),
        time: Wall::from_nanos(7),
    };
    let certified = Certified { certificate: vec![1], roots: vec![ByteBuf::from(vec![2]), ByteBuf::from(vec![3])] };
    let ask = LogAsk {
        follow: true,
        tail: Some(10),
        since: Some(Wall::from_nanos(1)),
        until: Some(Wall::from_nanos(2)),
        stdout: true,
        stderr: false,
    };
    let refused = Refused { code: RefusedCode::NotMember, reason: "removed".into() };
    vec![
        ("joined", ToAgent::Joined(joined)),
        ("welcome", ToAgent::Welcome(welcome)),
        ("refused", ToAgent::Refused(refused)),
        ("assign", ToAgent::Assign(assign())),
        ("pong", ToAgent::Pong(1)),
        ("renew-now", ToAgent::Renew),
        ("certified", ToAgent::Certified(certified)),
        ("roots", ToAgent::Roots(vec![ByteBuf::from(vec![2])])),
        ("managers", ToAgent::Managers(vec!["10.0.0.1:2377".into()])),
        ("logs-open", ToAgent::LogsOpen(LogsOpen { reading: 3, task: TaskId::from_bits(4), ask, parts: 8 })),
        ("logs-more", ToAgent::LogsMore { reading: 3, parts: 2 }),
        ("logs-close", ToAgent::LogsClose { reading: 3 }),
        ("assign-net", ToAgent::Assign(assign_net())),
        ("net", ToAgent::Net(net())),
    ]
}

/// What came with version 2.
fn version_2() -> Vec<(&'static str, ToManager)> {
    let health = BoardHealth {
        temperature: Some(-3),
        throttled: Some(0x0005_0005),
        pressure_cpu: Some(1),
        pressure_memory: Some(2),
        pressure_io: Some(100),
        memory_available: Some(Bytes::mib(100)),
        wifi_signal: Some(-61),
        disk_free: Some(Bytes::mib(1000)),
        disk_size: Some(Bytes::mib(30_000)),
        storage_worn: Some(10),
        storage_spare: Some(1),
    };
    vec![("health", ToManager::Health(health)), ("health-unknown", ToManager::Health(BoardHealth::default()))]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes text");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).expect("hexadecimal")).collect()
}

#[test]
fn the_bytes_of_version_1_stay() {
    let mut lines = Vec::new();
    for (name, message) in to_manager() {
        lines.push(format!("{name} {}", hex(&frame::encode(&message, MAX).expect("it fits"))));
    }
    for (name, message) in to_agent() {
        lines.push(format!("{name} {}", hex(&frame::encode(&message, MAX).expect("it fits"))));
    }
    let golden = golden(FILE, &lines);
    for (name, message) in to_manager() {
        assert_eq!(frame::decode::<ToManager>(&line(&golden, name)).expect(name), message);
    }
    for (name, message) in to_agent() {
        assert_eq!(frame::decode::<ToAgent>(&line(&golden, name)).expect(name), message);
    }
}

#[test]
fn the_bytes_of_version_2_stay() {
    let bytes = |message| hex(&frame::encode(&message, MAX).expect("it fits"));
    let lines: Vec<String> =
        version_2().into_iter().map(|(name, message)| format!("{name} {}", bytes(message))).collect();
    let golden = golden(FILE_2, &lines);
    for (name, message) in version_2() {
        assert_eq!(frame::decode::<ToManager>(&line(&golden, name)).expect(name), message);
    }
}

/// What the file says, which is what these lines say.
#[track_caller]
fn golden(file: &str, lines: &[String]) -> String {
    let text = lines.join("\n") + "\n";
    if std::env::var_os("RACIMO_UPDATE_GOLDEN").is_some() {
        std::fs::write(file, &text).expect("write the golden file");
    }
    let golden = std::fs::read_to_string(file).expect("read the golden file");
    assert_eq!(text, golden, "the bytes of a message changed: older boards would not understand it");
    golden
}

fn line(golden: &str, name: &str) -> Vec<u8> {
    let line = golden.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    unhex(line.expect("a line for each message"))
}

/// A board that is newer than its manager, or older: unknown fields are passed over, missing ones have defaults.
#[test]
fn fields_may_come_and_go() {
    #[derive(serde::Serialize)]
    struct NewerStatus {
        complete: bool,
        index: u64,
        temperature: u8,
    }
    #[derive(serde::Serialize)]
    enum Newer {
        Status(NewerStatus),
    }
    let newer = Newer::Status(NewerStatus { complete: true, index: 3, temperature: 70 });
    let bytes = frame::encode(&newer, MAX).expect("it fits");
    let want = ToManager::Status(Status { complete: true, index: 3, ..Status::default() });
    assert_eq!(frame::decode::<ToManager>(&bytes).expect("it is read"), want);
}

/// Messages as they were before fields were added to them: boards that send or keep them are still understood.
#[test]
fn the_first_bytes_of_version_1_are_still_read() {
    let golden = include_str!("golden/wire-1-first.txt");
    let line = |name: &str| line(golden, name);
    let hello: ToManager = frame::decode(&line("hello")).expect("it is read");
    let without = NodeDescription { generic: Default::default(), ..description() };
    let (trusts, board) = (Trusts::default(), BoardId::default());
    assert_eq!(hello, ToManager::Hello(Hello { versions: (1, 1), boot: 7, description: without, trusts, board }));
    let ToAgent::Assign(assign) = frame::decode(&line("assign")).expect("it is read") else { panic!("an assignment") };
    let work = assign.tasks.first().and_then(|task| task.work.as_deref()).expect("work");
    assert_eq!((work.log, work.files.len(), work.container.health.is_none()), (LogConfig::default(), 0, true));
}
