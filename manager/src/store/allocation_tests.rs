//! What the network gives out, under random commands: nothing twice, nothing lost, and the same again from the log or
//! a snapshot. Then the rules one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use proptest::prelude::*;
use racimo_common::id::NetworkId;
use racimo_common::net::{MESH_VNI, Subnet};
use racimo_common::object::{Desired, EndpointMode, EndpointSpec, NetworkMode, Port, PortMode, Protocol, TaskState};

use super::log::Machine;
use super::testing::{INGRESS as MESH, *};
use super::*;
use crate::allocator::Holder;

fn subnet(text: &str) -> Subnet {
    text.parse().expect("a subnet")
}

/// Few small pools, so that they run out.
fn small_cluster() -> Change {
    let Change::ClusterCreate(mut new) = new_cluster() else { panic!("a cluster") };
    new.net = ClusterNet { pools: vec![subnet("10.0.0.0/27")], mask: 29, ..ClusterNet::default() };
    Change::ClusterCreate(new)
}

/// Everything that is given out, from those who have it; panics if something is given twice or out of its place.
pub(super) fn check_given(state: &State) {
    let networks: Vec<&Arc<Network>> = state.networks().collect();
    for (place, network) in networks.iter().enumerate() {
        for other in &networks[..place] {
            assert!(!network.subnet.overlaps(other.subnet), "{network:?} {other:?}");
            assert_ne!(network.vni, other.vni);
        }
        assert_eq!(network.spec.ingress, network.vni == MESH_VNI);
        assert!(network.subnet.contains(network.gateway));
    }
    let mut given: BTreeMap<(NetworkId, Ipv4Addr), String> = BTreeMap::new();
    let mut give = |network: NetworkId, address: Ipv4Addr, to: String| {
        let Some(about) = state.network(network) else { return };
        let edges = [about.subnet.address(), about.subnet.broadcast(), about.gateway];
        assert!(about.subnet.contains(address) && !edges.contains(&address), "{address} to {to}: {about:?}");
        assert!(!about.spec.reserved.values().any(|kept| *kept == address), "{address} to {to}");
        assert!(about.spec.range.is_none_or(|range| range.contains(address)), "{address} to {to}: {about:?}");
        if let Some(other) = given.insert((network, address), to.clone()) {
            assert_eq!(other, to, "{address} twice");
        }
    };
    let mut ports: BTreeMap<(Protocol, u16), BTreeSet<(_, PortMode)>> = BTreeMap::new();
    for service in state.services() {
        for endpoint in [Some(&service.endpoint), service.held.as_ref()].into_iter().flatten() {
            for (network, vip) in &endpoint.vips {
                give(*network, *vip, format!("service {} on {network}", service.id));
            }
            for port in endpoint.ports.iter().filter(|port| port.published > 0) {
                ports.entry((port.protocol, port.published)).or_default().insert((service.id, port.mode));
            }
        }
        let (spec, endpoint) = (&service.spec.task, &service.endpoint);
        assert_eq!(endpoint.ports.len(), spec.endpoint.ports.len());
        for (asked, has) in spec.endpoint.ports.iter().zip(&endpoint.ports) {
            assert!(asked.published == 0 || asked.published == has.published, "{service:?}");
            assert_eq!(has.published == 0, asked.published == 0 && asked.mode == PortMode::Host, "{service:?}");
        }
        let vips = if spec.endpoint.mode == EndpointMode::Vip { spec.networks.len() } else { 0 };
        assert_eq!(endpoint.vips.len(), vips, "{service:?}");
    }
    for (port, users) in &ports {
        let services: BTreeSet<_> = users.iter().map(|(service, _)| service).collect();
        let ingress = users.iter().any(|(_, mode)| *mode == PortMode::Ingress);
        assert!(services.len() == 1 || !ingress, "{port:?} {users:?}");
    }
    let mut parts: Vec<Subnet> = state.nodes().filter_map(|node| node.mesh).collect();
    parts.sort_unstable();
    assert!(parts.windows(2).all(|pair| !pair[0].overlaps(pair[1])), "{parts:?}");
    let mesh = state.ingress().map(|network| network.subnet);
    assert!(parts.iter().all(|part| mesh.is_some_and(|mesh| mesh.covers(*part))), "{parts:?} {mesh:?}");
    for task in state.tasks().filter(|task| task.ended.is_none()) {
        let Some(on) = task.node.and_then(|node| state.node(node)) else {
            assert_eq!(task.addresses, Addresses::default());
            continue;
        };
        assert_eq!(task.addresses.networks.len(), task.spec.networks.len(), "{task:?}");
        if let Some(address) = task.addresses.mesh {
            let part = on.mesh.expect("a part");
            assert!(part.contains(address) && Some(address) != part.nth(1), "{task:?}");
            give(state.ingress().expect("a mesh").id, address, format!("task {}", task.id));
        }
        for (network, address) in &task.addresses.networks {
            give(*network, *address, format!("task {} on {network}", task.id));
        }
    }
    // The books agree: a network's use is what its services and tasks have.
    for network in networks.iter().filter(|network| !network.spec.ingress) {
        let used = given.keys().filter(|(of, _)| *of == network.id).count() as u64;
        assert_eq!(state.addresses(Holder::Network(network.id)).map(|usage| usage.used), Some(used));
    }
}

/// Draws changes about networks, services and tasks, mostly such as may be done.
struct Chance {
    rng: fastrand::Rng,
    /// Ids are never drawn twice.
    networks: u128,
    /// How often what happened.
    seen: BTreeMap<&'static str, u32>,
}

impl Chance {
    fn few(&mut self) -> u128 {
        u128::from(self.rng.u64(1..5))
    }

    fn network_spec(&mut self) -> NetworkSpec {
        let mut spec =
            NetworkSpec { name: ["a", "b", "c", "d"][self.rng.usize(..4)].to_owned(), ..NetworkSpec::default() };
        if self.rng.u8(..4) == 0 {
            spec.ingress = true;
            spec.subnet = self.rng.bool().then(|| subnet(["10.77.0.0/23", "10.0.0.0/16"][self.rng.usize(..2)]));
            return spec;
        }
        if self.rng.bool() {
            let texts = ["10.0.0.0/28", "10.0.0.8/29", "10.9.0.0/28", "10.200.4.0/24", "192.0.2.0/29"];
            let asked = subnet(texts[self.rng.usize(..texts.len())]);
            spec.subnet = Some(asked);
            spec.gateway = self.rng.bool().then(|| asked.nth(self.rng.u64(..6))).flatten();
            spec.range = self.rng.bool().then(|| asked.part(29, self.rng.u64(..2))).flatten();
            spec.reserved = asked.nth(self.rng.u64(2..9)).map(|kept| ("kept".to_owned(), kept)).into_iter().collect();
        }
        (spec.internal, spec.encrypted) = (self.rng.bool(), self.rng.bool());
        spec
    }

    fn service_spec(&mut self, state: &State, number: u128) -> Arc<ServiceSpec> {
        let mut all = (*spec(&format!("s{number}"), "nginx", 1)).clone();
        let mut task = (*all.task).clone();
        let mut networks: Vec<NetworkId> =
            state.networks().filter(|network| !network.spec.ingress).map(|network| network.id).collect();
        self.rng.shuffle(&mut networks);
        networks.truncate(self.rng.usize(..3));
        task.networks = networks.into_iter().map(|network| Attachment { network, aliases: Vec::new() }).collect();
        let port = |chance: &mut Self| Port {
            name: None,
            protocol: Protocol::ALL[chance.rng.usize(..2)],
            target: chance.rng.u16(80..83),
            published: if chance.rng.bool() { 0 } else { chance.rng.u16(1..4) },
            mode: if chance.rng.u8(..3) == 0 { PortMode::Host } else { PortMode::Ingress },
        };
        let mode = if self.rng.u8(..4) == 0 { EndpointMode::Dnsrr } else { EndpointMode::Vip };
        task.endpoint = EndpointSpec { mode, ports: (0..self.rng.usize(..3)).map(|_| port(self)).collect() };
        let modes = [NetworkMode::Unset, NetworkMode::Host, NetworkMode::None];
        if task.networks.is_empty() {
            task.container.network = modes[self.rng.usize(..3)];
        }
        all.task = task.into();
        let failure_action = if self.rng.bool() { FailureAction::Rollback } else { FailureAction::Pause };
        all.update = Some(UpdateConfig { failure_action: Some(failure_action), ..UpdateConfig::default() });
        all.into()
    }

    fn change(&mut self, state: &State) -> Change {
        let (s, t, n) = (self.few(), u128::from(self.rng.u64(1..30)), self.few());
        let of = state.service(service(s));
        let (version, revision) = of.map_or((0, 0), |service| (service.meta.version, service.revision));
        match self.rng.u8(..29) {
            0..=2 => {
                self.networks += 1;
                Change::NetworkCreate { network: network(self.networks), spec: self.network_spec() }
            }
            3 => {
                let all: Vec<NetworkId> = state.networks().map(|network| network.id).collect();
                let any = self.rng.usize(..all.len() + 1);
                Change::NetworkRemove { network: all.get(any).copied().unwrap_or(network(0)) }
            }
            4..=6 => new_node(n),
            7 => Change::NodeRemove { node: node(n) },
            8 | 9 => new_service(s, self.service_spec(state, s)),
            10..=12 => Change::ServiceUpdate { service: service(s), version, spec: self.service_spec(state, s) },
            13 => Change::ServiceRollback { service: service(s), by: RollbackBy::User { version } },
            14 => {
                let by = RollbackBy::Updater { revision, task: task(t) };
                Change::ServiceRollback { service: service(s), by }
            }
            15 | 16 => {
                let state = [UpdateState::Updating, UpdateState::Completed, UpdateState::Paused][self.rng.usize(..3)];
                let update =
                    UpdateStatus { state, started: at(0), completed: None, message: String::new(), failures: 0 };
                Change::ServiceProgress { service: service(s), revision, update }
            }
            17 => Change::ServiceRemove { service: service(s) },
            18..=20 => {
                let on = (self.rng.u8(..4) == 0).then(|| node(n));
                create(NewTask { node: on, ..new_task(t, s, revision) })
            }
            21..=24 => assign(t, n),
            25 | 26 => end(t, TaskState::Failed),
            27 => Change::ServiceSettle { service: service(s), revision },
            _ => desire(t, if self.rng.bool() { Desired::Shutdown } else { Desired::Remove }),
        }
    }

    fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn refused(&mut self, refusal: &Refusal) {
        self.saw(match refusal {
            Refusal::NoAddress { .. } => "no address",
            Refusal::PortTaken { .. } => "port taken",
            Refusal::PoolsExhausted => "pools exhausted",
            Refusal::SubnetTaken { .. } => "subnet taken",
            Refusal::BadPorts(_) => "bad ports",
            Refusal::BadSubnet(_) => "bad subnet",
            Refusal::IngressPresent(_) => "ingress present",
            Refusal::IngressInUse(_) => "ingress in use",
            Refusal::NetworkInUse { .. } => "network in use",
            Refusal::NodeUnfit(_, "it has no part of the mesh") => "no part",
            Refusal::NodeUnfit(_, "its ports are taken") => "ports of a node",
            Refusal::TaskMoved(_, "there is no ingress network") => "no mesh",
            Refusal::NotFound { .. }
            | Refusal::OutOfSequence
            | Refusal::NameTaken { .. }
            | Refusal::NetworkTaken(_)
            | Refusal::NetworksMax
            | Refusal::IngressAttached(_)
            | Refusal::Exists { .. }
            | Refusal::DependenciesMax
            | Refusal::DependenciesBytesMax
            | Refusal::InUse { .. }
            | Refusal::Unknown { .. }
            | Refusal::ClusterExists
            | Refusal::RotationUnderWay
            | Refusal::NoRotation
            | Refusal::AccessesMax
            | Refusal::NoCluster
            | Refusal::NoPrevious(_)
            | Refusal::Immutable(_)
            | Refusal::TaskMoved(..)
            | Refusal::NodeUnfit(..) => "refused otherwise",
        });
    }
}

fn run(seed: u64) -> BTreeMap<&'static str, u32> {
    let mut chance = Chance { rng: fastrand::Rng::with_seed(seed), networks: 0, seen: BTreeMap::new() };
    let mut log = vec![vec![small_cluster()]];
    let mut state = apply(&State::default(), log[0].clone()).expect("a cluster").0;
    for step in 0..200 {
        let changes: Vec<Change> = (0..chance.rng.usize(1..3)).map(|_| chance.change(&state)).collect();
        match apply(&state, changes.clone()) {
            Ok((next, _)) => {
                state = next;
                log.push(changes);
            }
            Err(refusal) => {
                chance.refused(&refusal);
                continue;
            }
        }
        check_given(&state);
        if state.services().any(|service| service.held.is_some()) {
            chance.saw("held");
        }
        if state.nodes().any(|node| node.mesh.is_none()) {
            chance.saw("a node without a part");
        }
        if step % 10 == 0 {
            // Equality includes the books, which are rebuilt, and where their searches go on.
            let mut restored = State::default();
            restored.restore(&state.snapshot()).expect("whole");
            assert_eq!(restored, state);
            state = restored;
        }
    }
    let mut replayed = State::default();
    for changes in &log {
        replayed = apply(&replayed, changes.clone()).expect("as before").0;
    }
    assert_eq!(replayed, state, "the log gives another state");
    everything_comes_back(state);
    chance.seen
}

fn everything_comes_back(mut state: State) {
    for service in state.clone().services() {
        state = applied(&state, vec![Change::ServiceRemove { service: service.id }]);
    }
    for task in state.clone().tasks() {
        let ended = Ended {
            state: TaskState::Shutdown,
            at: at(0),
            message: String::new(),
            err: None,
            container: None,
            exit_code: None,
        };
        state = applied(&state, vec![Change::TaskEnd { task: task.id, ended }]);
    }
    assert!(state.ledger.ports.is_empty());
    for network in state.clone().networks() {
        let used = state.addresses(Holder::Network(network.id)).map_or(0, |usage| usage.used);
        assert_eq!(used, 0, "{network:?}");
        state = applied(&state, vec![Change::NetworkRemove { network: network.id }]);
    }
    assert!(state.nodes().all(|node| node.mesh.is_none()));
    let mut empty = crate::allocator::Ledger::default();
    empty.resume(&state.ledger.cursors());
    assert_eq!(state.ledger, empty);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn nothing_is_given_twice_or_lost(seed in any::<u64>()) {
        run(seed);
    }
}

#[test]
fn the_random_commands_meet_every_rule() {
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..100 {
        run(seed).into_iter().for_each(|(what, count)| *seen.entry(what).or_default() += count);
    }
    for what in [
        "no address",
        "port taken",
        "pools exhausted",
        "subnet taken",
        "bad ports",
        "bad subnet",
        "ingress present",
        "ingress in use",
        "network in use",
        "no part",
        "ports of a node",
        "no mesh",
        "held",
        "a node without a part",
    ] {
        assert!(seen.contains_key(what), "{what} never happened: {seen:?}");
    }
}

#[track_caller]
fn refused(state: &State, change: Change, words: &str) {
    let refusal = apply(state, vec![change]).expect_err("it is refused");
    assert_eq!(refusal.to_string(), words);
}

fn of_network(state: &State, number: u128) -> (String, u32, String) {
    let network = state.network(network(number)).expect("a network");
    (network.subnet.to_string(), network.vni, network.gateway.to_string())
}

fn with_subnet(number: u128, name: &str, text: &str) -> Change {
    let spec = NetworkSpec { name: name.to_owned(), subnet: Some(subnet(text)), ..NetworkSpec::default() };
    Change::NetworkCreate { network: network(number), spec }
}

fn mesh(number: u128, text: Option<&str>) -> Change {
    let spec =
        NetworkSpec { name: "mesh".to_owned(), ingress: true, subnet: text.map(subnet), ..NetworkSpec::default() };
    Change::NetworkCreate { network: network(number), spec }
}

fn remove_network(number: u128) -> Change {
    Change::NetworkRemove { network: network(number) }
}

#[test]
fn subnets_come_from_the_pools_and_never_overlap() {
    let state = applied(&State::default(), vec![new_cluster(), new_network(1, "a"), new_network(2, "b")]);
    assert_eq!(of_network(&state, MESH), ("10.200.0.0/16".to_owned(), 4096, "10.200.0.1".to_owned()));
    assert_eq!(of_network(&state, 1), ("10.0.0.0/24".to_owned(), 4097, "10.0.0.1".to_owned()));
    assert_eq!(of_network(&state, 2), ("10.0.1.0/24".to_owned(), 4098, "10.0.1.1".to_owned()));
    // A subnet is the first free one, a VNI the next one: boards may still have the old one.
    let state = applied(&state, vec![remove_network(1), new_network(3, "c")]);
    assert_eq!(of_network(&state, 3), ("10.0.0.0/24".to_owned(), 4099, "10.0.0.1".to_owned()));
    // A board's address is nobody else's.
    let Change::NodeCreate(mut board) = new_node(1) else { panic!("a node") };
    board.addr = "10.0.2.7:4000".to_owned();
    let state = applied(&state, vec![Change::NodeCreate(board), new_network(4, "d")]);
    assert_eq!(of_network(&state, 4).0, "10.0.3.0/24");
    let overlap = "invalid pool request: Pool overlaps with other one on this address space";
    let text = format!("{overlap}: 10.0.2.0/24 and node board1 (10.0.2.7)");
    refused(&state, with_subnet(5, "e", "10.0.2.0/24"), &text);
    let text = format!("{overlap}: 10.0.1.128/25 and network b (10.0.1.0/24)");
    refused(&state, with_subnet(5, "e", "10.0.1.128/25"), &text);
    let text = format!("{overlap}: 10.200.7.0/24 and network ingress (10.200.0.0/16)");
    refused(&state, with_subnet(5, "e", "10.200.7.0/24"), &text);
    refused(&state, mesh(5, None), &format!("ingress network ({}) is already present", network(MESH)));
    let mut state = applied(&State::default(), vec![small_cluster()]);
    for number in 1..=4 {
        state = applied(&state, vec![new_network(number, &format!("n{number}"))]);
    }
    let text =
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network";
    refused(&state, new_network(5, "n5"), text);
    let state = applied(&state, vec![remove_network(2), new_network(5, "n5")]);
    assert_eq!(of_network(&state, 5).0, "10.0.0.8/29");
}

#[test]
fn every_node_has_a_part_of_the_mesh() {
    let part = |state: &State, number| state.node(node(number)).expect("a node").mesh.map(|part| part.to_string());
    let state = applied(&State::default(), vec![new_cluster(), new_node(1), new_node(2)]);
    assert_eq!(part(&state, 2).as_deref(), Some("10.200.1.0/24"));
    // A new mesh gives new parts; a small one has none left for the third node, until one comes back.
    let state = applied(&state, vec![remove_network(MESH)]);
    assert_eq!((part(&state, 1), state.ingress()), (None, None));
    let state = applied(&state, vec![mesh(7, Some("10.9.8.0/23")), new_node(3)]);
    let parts = [part(&state, 1), part(&state, 2), part(&state, 3)];
    assert_eq!(parts, [Some("10.9.8.0/24".to_owned()), Some("10.9.9.0/24".to_owned()), None]);
    let waits = applied(&state, vec![new_service(1, spec("web", "nginx", 1))]);
    let waits = applied(&waits, vec![create(new_task(1, 1, waits.index()))]);
    refused(&waits, assign(1, 3), &format!("node {}: it has no part of the mesh", node(3)));
    let state = applied(&state, vec![Change::NodeRemove { node: node(1) }]);
    assert_eq!(part(&state, 3).as_deref(), Some("10.9.8.0/24"));
    // It stays while a task has an address there.
    let on = applied(&waits, vec![assign(1, 1)]);
    let address = on.task(task(1)).and_then(|task| task.addresses.mesh).map(|address| address.to_string());
    assert_eq!(address.as_deref(), Some("10.9.8.2"));
    refused(&on, remove_network(7), &format!("network {} is in use by task {}", network(7), task(1)));
    let gone = applied(&on, vec![end(1, TaskState::Failed), remove_network(7)]);
    assert_eq!(part(&gone, 1), None);
}

#[test]
fn tasks_of_internal_networks_need_a_part_of_the_mesh_too() {
    let internal = NetworkSpec { name: "in".to_owned(), internal: true, ..NetworkSpec::default() };
    let internal = Change::NetworkCreate { network: network(1), spec: internal };
    let small = vec![new_cluster(), remove_network(MESH), mesh(7, Some("10.9.8.0/24")), internal];
    let state = applied(&State::default(), small);
    let state = applied(&state, vec![new_node(1), new_node(2), new_service(1, publishing("web", &[], &[1]))]);
    let revision = state.index();
    let state = applied(&state, vec![create(new_task(1, 1, revision)), create(new_task(2, 1, revision))]);
    refused(&state, assign(1, 2), &format!("node {}: it has no part of the mesh", node(2)));
    let about = |addr: &str| {
        let description = state.node(node(1)).expect("a node").description.clone();
        Change::NodeDescribe { node: node(1), description, addr: addr.to_owned() }
    };
    let far = applied(&state, vec![about("fd00::1")]);
    refused(&far, assign(1, 1), &format!("node {}: it has no IPv4 address among the boards", node(1)));
    let near = applied(&far, vec![about("[::ffff:192.0.2.1]:4000"), assign(1, 1)]);
    // Without the mesh its board would cut it off: it has no address there, but its way to the others is.
    assert_eq!(near.task(task(1)).expect("a task").addresses.mesh, None);
    refused(&near, remove_network(7), &format!("network {} is in use by task {}", network(7), task(1)));
    let gone = applied(&near, vec![end(1, TaskState::Failed), remove_network(7)]);
    refused(&gone, assign(2, 1), &format!("task {}: there is no ingress network", task(2)));
}

/// A service with these ports (published, target, mode) on these networks, that rolls back by itself.
fn publishing(name: &str, ports: &[(u16, u16, PortMode)], networks: &[u128]) -> Arc<ServiceSpec> {
    let mut all = (*attached(&spec(name, "nginx", 1), networks)).clone();
    let mut task = (*all.task).clone();
    let port = |(published, target, mode): &(u16, u16, PortMode)| Port {
        published: *published,
        target: *target,
        mode: *mode,
        ..Port::default()
    };
    task.endpoint.ports = ports.iter().map(port).collect();
    all.task = task.into();
    let failure_action = Some(FailureAction::Rollback);
    all.update = Some(UpdateConfig { failure_action, ..UpdateConfig::default() });
    all.into()
}

fn update(state: &State, number: u128, spec: Arc<ServiceSpec>) -> Change {
    let version = state.service(service(number)).expect("a service").meta.version;
    Change::ServiceUpdate { service: service(number), version, spec }
}

/// Published ports, virtual addresses.
fn endpoint(state: &State, number: u128) -> (Vec<u16>, Vec<String>) {
    let endpoint = &state.service(service(number)).expect("a service").endpoint;
    let vips = endpoint.vips.iter().map(|(_, vip)| vip.to_string()).collect();
    (endpoint.ports.iter().map(|port| port.published).collect(), vips)
}

const DYNAMIC: (u16, u16, PortMode) = (0, 80, PortMode::Ingress);
const CHOSEN: (u16, u16, PortMode) = (9999, 81, PortMode::Ingress);

/// Networks 1 and 2, and service 1 with a port that nobody chose, one that was, and both networks. It has a task.
fn served() -> State {
    let web = publishing("web", &[DYNAMIC, CHOSEN], &[1, 2]);
    let changes = vec![new_cluster(), new_node(1), new_network(1, "a"), new_network(2, "b"), new_service(1, web)];
    let state = applied(&State::default(), changes);
    applied(&state, vec![create(new_task(1, 1, state.index())), assign(1, 1)])
}

#[test]
fn services_keep_what_they_were_given() {
    let state = served();
    let had = (vec![30_000, 9999], vec!["10.0.0.2".to_owned(), "10.0.1.2".to_owned()]);
    assert_eq!(endpoint(&state, 1), had);
    let by = "port '9999' is already in use by service 'web' (0000000000000000000000001) as an ingress port";
    let other = |mode| publishing("other", &[(9999, 1, mode)], &[]);
    refused(&state, new_service(2, other(PortMode::Ingress)), by);
    refused(&state, new_service(2, other(PortMode::Host)), by);
    // Another order, a new image, another port: what stays keeps its number and its address.
    let mut moved = (*publishing("web", &[CHOSEN, (0, 90, PortMode::Ingress), DYNAMIC], &[2, 1])).clone();
    moved.update = None;
    let state = applied(&state, vec![update(&state, 1, moved.into())]);
    let moved = (vec![9999, 30_001, 30_000], vec!["10.0.1.2".to_owned(), "10.0.0.2".to_owned()]);
    assert_eq!(endpoint(&state, 1), moved);
    // What is dropped is free at once, since this service does not go back by itself.
    let mut bare = (*publishing("web", &[DYNAMIC], &[])).clone();
    bare.update = None;
    let state = applied(&state, vec![update(&state, 1, bare.into()), new_service(2, other(PortMode::Ingress))]);
    assert_eq!((endpoint(&state, 1), endpoint(&state, 2)), ((vec![30_000], vec![]), (vec![9999], vec![])));
    refused(
        &state,
        remove_network(MESH),
        "ingress network cannot be removed because service 0000000000000000000000001 depends on it",
    );
    let on_mesh = attached(&spec("x", "nginx", 1), &[MESH]);
    let text = "Service cannot be explicitly attached to the ingress network \"ingress\"";
    refused(&state, new_service(3, on_mesh), text);
    // Host ports of two services may be the same; the scheduler keeps them apart.
    let host = |name| publishing(name, &[(7000, 1, PortMode::Host)], &[]);
    let state = applied(&state, vec![new_service(4, host("h4")), new_service(5, host("h5"))]);
    let tasks = vec![
        create(new_task(4, 4, state.service(service(4)).expect("h4").revision)),
        create(new_task(5, 5, state.service(service(5)).expect("h5").revision)),
        assign(4, 1),
    ];
    let state = applied(&state, tasks);
    refused(&state, assign(5, 1), "node 0000000000000000000000001: its ports are taken");
    applied(&state, vec![end(4, TaskState::Failed), assign(5, 1)]);
}

#[test]
fn an_update_that_may_go_back_holds_what_the_spec_before_had() {
    let before = served();
    let state = applied(&before, vec![update(&before, 1, publishing("web", &[(0, 90, PortMode::Ingress)], &[2]))]);
    assert_eq!(endpoint(&state, 1), (vec![30_001], vec!["10.0.1.2".to_owned()]));
    let revision = state.service(service(1)).expect("web").revision;
    let progress = |state| {
        let update = UpdateStatus { state, started: at(0), completed: None, message: String::new(), failures: 0 };
        Change::ServiceProgress { service: service(1), revision, update }
    };
    let other = || new_service(2, publishing("other", &[(9999, 1, PortMode::Ingress)], &[1]));
    let runs = applied(&state, vec![progress(UpdateState::Updating)]);
    for state in [&state, &runs] {
        assert!(apply(state, vec![other()]).is_err(), "the port is held");
        refused(state, remove_network(1), &format!("network {} is in use by service {}", network(1), service(1)));
        let next = applied(state, vec![new_service(2, publishing("other", &[DYNAMIC], &[1]))]);
        assert_eq!(endpoint(&next, 2), (vec![30_002], vec!["10.0.0.4".to_owned()]), "the addresses are held");
        let by = RollbackBy::Updater { revision, task: task(1) };
        let back = applied(&next, vec![Change::ServiceRollback { service: service(1), by }]);
        assert_eq!(endpoint(&back, 1), endpoint(&before, 1));
        assert_eq!(back.service(service(1)).expect("web").held, None);
        check_given(&back);
    }
    for over in [UpdateState::Completed, UpdateState::Paused] {
        let done = applied(&runs, vec![progress(over), other()]);
        assert_eq!(endpoint(&done, 2), (vec![9999], vec!["10.0.0.4".to_owned()]));
        // By hand it goes back if it can.
        let version = done.service(service(1)).expect("web").meta.version;
        let back = Change::ServiceRollback { service: service(1), by: RollbackBy::User { version } };
        let by = "port '9999' is already in use by service 'other' (0000000000000000000000002) as an ingress port";
        refused(&done, back.clone(), by);
        let back = applied(&done, vec![Change::ServiceRemove { service: service(2) }, back]);
        assert_eq!(endpoint(&back, 1).0[1], 9999);
    }
    // Or the orchestrator finds nothing to update.
    let settle = |revision| Change::ServiceSettle { service: service(1), revision };
    assert_eq!(apply(&state, vec![settle(revision - 1)]).expect_err("an old one"), Refusal::OutOfSequence);
    let done = applied(&state, vec![settle(revision), other()]);
    assert_eq!(done.service(service(1)).expect("web").held, None);
    assert_eq!(endpoint(&done, 2), (vec![9999], vec!["10.0.0.4".to_owned()]));
    check_given(&done);
    // Without a task there is nothing to go back to.
    let idle = applied(&before, vec![end(1, TaskState::Failed)]);
    let idle = applied(&idle, vec![update(&idle, 1, publishing("web", &[], &[])), other()]);
    assert_eq!(endpoint(&idle, 2).0, [9999]);
}

#[test]
fn an_exhausted_subnet_says_so_and_recovers() {
    let state = applied(&State::default(), vec![new_cluster(), new_node(1), with_subnet(1, "db", "10.0.9.0/29")]);
    let mut state = applied(&state, vec![new_service(1, publishing("web", &[], &[1]))]);
    let revision = state.index();
    for number in 1..=5 {
        state = applied(&state, vec![create(new_task(number, 1, revision))]);
    }
    let address = |state: &State, number| {
        let addresses = &state.task(task(number)).expect("a task").addresses;
        addresses.networks.iter().map(|(_, address)| address.to_string()).collect::<Vec<_>>()
    };
    let state = applied(&state, (1..=4).map(|number| assign(number, 1)).collect());
    assert_eq!([address(&state, 1), address(&state, 4)], [["10.0.9.3"], ["10.0.9.6"]]);
    let full = "network db (10.0.9.0/29) has no free address: 5 of 5 are in use";
    refused(&state, assign(5, 1), full);
    refused(&state, new_service(2, publishing("other", &[], &[1])), full);
    let state = applied(&state, vec![end(2, TaskState::Failed), assign(5, 1)]);
    assert_eq!(address(&state, 5), ["10.0.9.4"]);
    assert_eq!(address(&state, 2), ["10.0.9.4"], "what ended says where it was");
    // The last one given moves on, also over a restart of the manager.
    let state = applied(&state, vec![end(5, TaskState::Failed), end(4, TaskState::Failed)]);
    let mut restored = State::default();
    restored.restore(&state.snapshot()).expect("whole");
    for state in [state, restored] {
        let again = applied(&state, vec![create(new_task(6, 1, revision)), assign(6, 1)]);
        assert_eq!(address(&again, 6), ["10.0.9.6"]);
    }
}

#[test]
fn only_tasks_that_reach_the_outside_have_an_address_in_the_mesh() {
    let internal = NetworkSpec { name: "in".to_owned(), internal: true, ..NetworkSpec::default() };
    let state = applied(
        &State::default(),
        vec![new_cluster(), new_network(1, "a"), Change::NetworkCreate { network: network(2), spec: internal }],
    );
    let check = |mode, networks: &[u128], ports: &[(u16, u16, PortMode)], want| {
        let mut task = (*publishing("x", ports, networks).task).clone();
        task.container.network = mode;
        assert_eq!(state.needs_mesh(&task), want, "{mode:?} {networks:?} {ports:?}");
    };
    check(NetworkMode::Unset, &[], &[], true);
    check(NetworkMode::Bridge, &[], &[], true);
    check(NetworkMode::Host, &[], &[], false);
    check(NetworkMode::None, &[], &[], false);
    check(NetworkMode::Unset, &[1], &[], true);
    check(NetworkMode::Unset, &[2], &[], false);
    check(NetworkMode::Unset, &[2, 1], &[], true);
    check(NetworkMode::Unset, &[2], &[DYNAMIC], true);
    check(NetworkMode::Unset, &[2], &[(80, 80, PortMode::Host)], true);
}
