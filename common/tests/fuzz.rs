//! Random bytes and text never harm what reads them. See `fuzz/` for the coverage-guided form of this.

#[path = "../fuzz/checks.rs"]
mod checks;
#[path = "../fuzz/mutate.rs"]
mod mutate;

use racimo_common::id::{ClusterId, NetworkId, NodeId, RandomId, ServiceId, TaskId};
use racimo_common::mdns;
use racimo_common::mdns::message::{self, Data, Record};
use racimo_common::net::Subnet;
use racimo_common::object::{
    BoardHealth, ContainerSpec, ContainerStatus, Desired, LogConfig, Mount, MountKind, NodeDescription, Protocol,
    Resources, Role, TaskReport, TaskState, TmpfsOptions, WireguardKey,
};
use racimo_common::time::Wall;
use racimo_common::token::JoinToken;
use racimo_common::wire::{
    Assign, Assignment, BoardId, Certified, Hello, Ip, Join, Joined, Net, NetAttachment, NetEndpoint, NetPeer, NetPort,
    NetService, Refused, RefusedCode, Renew, Status, TaskNet, ToAgent, ToManager, Trusts, Welcome, Work, frame,
};
use serde::Serialize;
use serde_bytes::ByteBuf;

fn to_manager() -> Vec<ToManager> {
    let description = NodeDescription {
        hostname: "board".to_owned(),
        platforms: vec!["linux/arm/v7".parse().expect("a platform")],
        labels: [("io.racimo.model".to_owned(), "Pi".to_owned())].into(),
        degraded: vec!["no cgroup".to_owned()],
        ..NodeDescription::default()
    };
    let report = TaskReport {
        unhealthy: true,
        restarts: 0,
        ports: Vec::new(),
        task: TaskId::from_bits(5),
        state: TaskState::Failed,
        at: Wall::from_nanos(-1),
        message: "started".to_owned(),
        err: Some("task: non-zero exit (1)".to_owned()),
        container: Some(ContainerStatus { id: "c".to_owned(), pid: 7, exit_code: Some(1) }),
    };
    vec![
        ToManager::Join(Join { versions: (1, 1), token: "t".into(), csr: vec![1, 2], hostname: "h".into() }),
        ToManager::Hello(Hello {
            versions: (1, 2),
            boot: u64::MAX,
            description: description.clone(),
            trusts: Trusts { certificate: [1; 32], roots: vec![[2; 32]] },
            board: BoardId { serial: Some([3; 32]), machine: None },
        }),
        ToManager::Renew(Renew { csr: vec![1, 2] }),
        ToManager::Describe(description),
        ToManager::Status(Status { complete: true, last: true, index: 9, tasks: vec![report] }),
        ToManager::Heartbeat(1),
        ToManager::Health(BoardHealth { temperature: Some(61), throttled: Some(0x5_0005), ..BoardHealth::default() }),
        ToManager::Bye { leaving: true },
    ]
}

fn ip(bits: u32) -> Ip {
    Ip(bits.into())
}

fn net() -> Net {
    let subnet = Subnet::of([10, 200, 1, 0].into(), 24);
    let endpoint = NetEndpoint {
        targets: [(0, 81)].into(),
        task: TaskId::from_bits(5),
        hostname: Some("h".into()),
        slot: Some(1),
        node: NodeId::from_bits(2),
        mesh: Some(ip(7)),
        addresses: vec![ip(8)],
        active: true,
        unsure: true,
    };
    let service = NetService {
        id: ServiceId::from_bits(3),
        name: "web".to_owned(),
        ports: vec![NetPort { protocol: Protocol::Sctp, published: 80, target: 8080 }],
        keep_source: true,
        networks: vec![NetAttachment { network: NetworkId::from_bits(7), vip: Some(ip(6)), aliases: vec!["w".into()] }],
        endpoints: vec![endpoint],
    };
    let key = Some(WireguardKey::new([7; 32]));
    Net {
        complete: true,
        peers: vec![NetPeer { node: NodeId::from_bits(1), subnet, address: ip(5), key }],
        services: vec![service],
        networks_gone: vec![NetworkId::from_bits(4)],
        ..Net::default()
    }
}

fn to_agent() -> Vec<ToAgent> {
    let mount = Mount {
        target: "/data".to_owned(),
        read_only: true,
        kind: MountKind::Tmpfs { options: TmpfsOptions::default() },
    };
    let work = Work {
        net: Some(TaskNet { networks: vec![(NetworkId::from_bits(7), ip(9))], balanced: true, ..TaskNet::default() }),
        service: ServiceId::from_bits(3),
        service_name: "web".to_owned(),
        slot_name: "web.1".to_owned(),
        container: ContainerSpec { env: vec!["A=b".to_owned()], mounts: vec![mount], ..ContainerSpec::default() },
        resources: Resources::default(),
        log: LogConfig::None,
        files: Vec::new(),
        credentials: None,
        fault: None,
        offline: racimo_common::wire::Offline::default(),
    };
    let assignment = Assignment { task: TaskId::from_bits(5), desired: Desired::Running, work: Some(Box::new(work)) };
    let managers = vec!["m:2377".to_owned()];
    let (cluster, node) = (ClusterId::from_bits(1), NodeId::from_bits(2));
    vec![
        ToAgent::Joined(Joined {
            cluster,
            node,
            role: Role::Worker,
            certificate: vec![3],
            managers: managers.clone(),
            roots: Vec::new(),
        }),
        ToAgent::Welcome(Welcome {
            version: 1,
            heartbeat_ms: 1000,
            managers: managers.clone(),
            node,
            time: Wall::default(),
        }),
        ToAgent::Certified(Certified { certificate: vec![1], roots: vec![ByteBuf::from(vec![2])] }),
        ToAgent::Managers(managers),
        ToAgent::Refused(Refused { code: RefusedCode::Busy, reason: "later".to_owned() }),
        ToAgent::Assign(Assign { complete: true, to: 7, last: true, tasks: vec![assignment], ..Assign::default() }),
        ToAgent::Net(net()),
        ToAgent::Pong(1),
    ]
}

fn body(message: &impl Serialize) -> Vec<u8> {
    frame::encode(message, usize::MAX).expect("encodes")
}

#[test]
fn fuzz_wire() {
    let mut corpus: Vec<Vec<u8>> = to_manager().iter().map(body).chain(to_agent().iter().map(body)).collect();
    let framed = |body: &Vec<u8>| [&u32::try_from(body.len()).expect("fits").to_be_bytes()[..], body].concat();
    corpus.push(corpus.iter().flat_map(framed).collect());
    mutate::run(&corpus, mutate::cases(20_000), checks::wire);
}

#[test]
fn fuzz_mdns() {
    let question = mdns::managers_question();
    let record = |data| Record { name: "pi._racimo._tcp.local".to_owned(), ttl: 120, unique: true, data };
    let host = || "pi.local".to_owned();
    let records = [
        record(Data::Pointer(host())),
        record(Data::Service { port: 2377, host: host() }),
        record(Data::Texts(vec!["v=1".to_owned(), "cluster=00".to_owned()])),
        Record { name: host(), ..record(Data::Address([10, 0, 0, 1].into())) },
    ];
    let mut pointed = message::answer(1, std::slice::from_ref(&question), &records, &[]);
    pointed[7] += 1;
    pointed.extend([0xc0, 12, 0, 12, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 12]);
    let corpus = vec![
        message::query(7, std::slice::from_ref(&question)),
        message::answer(0, &[question], &records, &records),
        pointed,
    ];
    mutate::run(&corpus, mutate::cases(4096), checks::mdns);
}

#[test]
fn fuzz_text() {
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let corpus = [
        JoinToken::new([7; 32], [9; 16]).to_string(),
        "nginx".to_owned(),
        "docker.io/library/nginx:1.27-alpine".to_owned(),
        format!("registry.example:5000/a/b__c-d.e:T_a.g-1@{digest}"),
        "localhost/x".to_owned(),
        "[2001:db8::1]:5000/x:y".to_owned(),
        digest,
        "linux/arm/v7".to_owned(),
        NodeId::from_bits(u128::MAX).to_string(),
        "1.5GiB".to_owned(),
        "0.25".to_owned(),
    ];
    let corpus: Vec<Vec<u8>> = corpus.into_iter().map(String::into_bytes).collect();
    mutate::run(&corpus, mutate::cases(20_000), checks::text);
}
