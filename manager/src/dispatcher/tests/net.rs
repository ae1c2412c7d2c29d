//! What boards are told about the network.

use std::net::Ipv4Addr;

use racimo_agent::net::table::Table;
use racimo_common::limits::FRAME_TO_AGENT_MAX;
use racimo_common::net::Subnet;
use racimo_common::object::{Desired, EndpointMode, EndpointSpec, HostPort, NetworkMode, Port, PortMode, TaskState};
use racimo_common::time::Wall;
use racimo_common::wire::{Net, NetService, ToAgent, frame};

use super::board::report;
use crate::dispatcher::directory::{Directory, Key};
use crate::dispatcher::net::{complete, delta};
use crate::dispatcher::work;
use crate::limits::{ENDPOINTS_MAX, NET_NEWS_MAX, TOLD_NETWORKS_MAX};
use crate::store::testing::*;
use crate::store::{
    Addresses, Attachment, Event, KEEP_SOURCE_LABEL, Observation, Seen, SeenNode, ServiceSpec, Slot, State, Task,
    TaskSpec, View,
};
use crate::vault;

fn ip(text: &str) -> Ipv4Addr {
    text.parse().expect("an address")
}

fn subnet(text: &str) -> Subnet {
    text.parse().expect("a subnet")
}

fn port(mode: PortMode, published: u16, target: u16) -> Port {
    Port { mode, published, target, ..Port::default() }
}

/// Nodes 1 to 3 in the mesh; network 1 `front`, 2 `back`; service 1 `web` publishes 80 and is on `front` with a
/// virtual address, 2 `db` is on `back` by its tasks' addresses. Task 1 of `web` runs on node 1, task 2 on node 2; task
/// 3 of `db` runs on node 2.
fn world() -> View {
    let (web, db) = (attached(&spec("web", "nginx", 0), &[1]), attached(&spec("db", "pg", 0), &[2]));
    let mut changes = vec![new_cluster(), new_node(1), new_node(2), new_node(3)];
    changes.extend([new_network(1, "front"), new_network(2, "back")]);
    changes.extend([new_service(1, web), new_service(2, db)]);
    let state = applied(&State::default(), changes);
    let revision = |number| state.service(service(number)).expect("a service").revision;
    let tasks = [(1, 1, 1), (2, 1, 2), (3, 2, 2)];
    let changes =
        tasks.into_iter().flat_map(|(task, of, on)| [create(new_task(task, of, revision(of))), assign(task, on)]);
    let mut state = applied(&state, changes.collect());
    for (number, part) in [(1, "10.200.0.0/24"), (2, "10.200.1.0/24"), (3, "10.200.2.0/24")] {
        edit_node(&mut state, number, |node| {
            node.addr = format!("192.0.2.{number}");
            node.mesh = Some(subnet(part));
        });
    }
    edit_service(&mut state, 1, |service| {
        let ports = vec![port(PortMode::Ingress, 80, 8080), port(PortMode::Host, 81, 81)];
        let task = TaskSpec {
            endpoint: EndpointSpec { ports: ports.clone(), ..EndpointSpec::default() },
            ..(*service.spec.task).clone()
        };
        let mut spec = (*service.spec).clone();
        spec.labels.insert(KEEP_SOURCE_LABEL.to_owned(), "true".to_owned());
        (spec.task, service.endpoint.ports) = (task.into(), ports);
        service.spec = spec.into();
        service.endpoint.vips = vec![(network(1), ip("10.0.1.2"))];
    });
    edit_service(&mut state, 2, |service| service.endpoint.vips.clear());
    let web = state.service(service(1)).expect("web").spec.task.clone();
    for (number, mesh, on, address) in
        [(1, "10.200.0.2", 1, "10.0.1.3"), (2, "10.200.1.2", 1, "10.0.1.4"), (3, "10.200.1.3", 2, "10.0.2.3")]
    {
        edit_task(&mut state, number, |task| {
            task.addresses = Addresses { mesh: Some(ip(mesh)), networks: vec![(network(on), ip(address))] };
            if on == 1 {
                task.spec = web.clone();
            }
        });
    }
    let mut view = View { state, seen: Seen::default() };
    for number in 1..4 {
        see(&mut view, ready(number));
    }
    for (number, on) in [(1, 1), (2, 2), (3, 2)] {
        see(&mut view, runs(number, on));
    }
    view
}

fn ready(number: u128) -> Observation {
    Observation::Node { node: node(number), seen: SeenNode { ready: true, at: Wall::default() } }
}

fn runs(number: u128, on: u128) -> Observation {
    Observation::Task { node: node(on), report: report(number, TaskState::Running) }
}

fn see(view: &mut View, observation: Observation) -> Option<Event> {
    view.seen.observe(&view.state, observation)
}

/// A service in a line: name, ports, networks with virtual addresses, and each task with its addresses and whether it
/// takes connections; after `~` its own ports, by the places of those it differs from.
fn line(service: &NetService) -> String {
    let mut line = service.name.clone();
    service.ports.iter().for_each(|port| line += &format!(" {}>{}", port.published, port.target));
    for at in &service.networks {
        let vip = at.vip.map(|vip| format!("={}", vip.0)).unwrap_or_default();
        line += &format!(" n{}{vip}", at.network.bits());
    }
    for end in &service.endpoints {
        let mesh = end.mesh.map(|ip| ip.0.to_string()).unwrap_or_default();
        let addresses: Vec<String> = end.addresses.iter().map(|ip| ip.0.to_string()).collect();
        let active = if end.unsure { "?" } else { ["", "!"][usize::from(end.active)] };
        line += &format!(" {}@{}{active} {mesh}/{}", end.task.bits(), end.node.bits(), addresses.join(","));
        end.targets.iter().for_each(|(place, own)| line += &format!("~{place}={own}"));
    }
    line
}

fn table(view: &View, number: u128) -> Table {
    let mut table = Table::default();
    complete(&Directory::new(view), view, node(number)).0.for_each(|part| table.take(part));
    table
}

fn lines(view: &View, number: u128) -> Vec<String> {
    table(view, number).services.values().map(line).collect()
}

const WEB_BARE: &str = "web 80>8080 1@1! 10.200.0.2/ 2@2! 10.200.1.2/";
const WEB: &str = "web 80>8080 n1=10.0.1.2 1@1! 10.200.0.2/10.0.1.3 2@2! 10.200.1.2/10.0.1.4";
const DB: &str = "db n2 3@2! /10.0.2.3";

#[test]
fn each_board_hears_what_concerns_it() {
    let view = world();
    assert_eq!(lines(&view, 1), [WEB]);
    assert_eq!(lines(&view, 2), [WEB, DB]);
    assert_eq!(lines(&view, 3), [WEB_BARE]);
    let table = table(&view, 2);
    let own = table.own.expect("a place");
    assert_eq!(
        (own.mesh, own.subnet, own.address.0),
        (subnet("10.200.0.0/16"), subnet("10.200.1.0/24"), ip("192.0.2.2"))
    );
    assert_eq!((own.vxlan_port, own.mtu, own.gateway()), (4789, 1450, ip("10.200.1.1")));
    let peers: Vec<_> = table.peers.values().map(|peer| (peer.node, peer.subnet, peer.address.0)).collect();
    assert_eq!(
        peers,
        [(node(1), subnet("10.200.0.0/24"), ip("192.0.2.1")), (node(3), subnet("10.200.2.0/24"), ip("192.0.2.3"))]
    );
    assert_eq!(table.networks.keys().collect::<Vec<_>>(), [&network(1), &network(2)]);
    assert!(table.services[&service(1)].keep_source && !table.services[&service(2)].keep_source);
}

/// What node 3 and node 2 hear of `web` after an edit.
#[track_caller]
fn check_web(edit: impl FnOnce(&mut View), bare: Option<&str>, whole: Option<&str>) {
    let mut view = world();
    edit(&mut view);
    let of = |number| table(&view, number).services.get(&service(1)).map(line);
    assert_eq!((of(3).as_deref(), of(2).as_deref()), (bare, whole));
}

#[test]
fn who_takes_connections() {
    let idle = |bare: &'static str, whole: &'static str| (Some(bare), Some(whole));
    let (bare, whole) = idle(
        "web 80>8080 1@1 10.200.0.2/ 2@2! 10.200.1.2/",
        "web 80>8080 n1=10.0.1.2 1@1 10.200.0.2/10.0.1.3 2@2! 10.200.1.2/10.0.1.4",
    );
    check_web(|_| {}, Some(WEB_BARE), Some(WEB));
    // It shall stop: out of the balance, but connections to it go on.
    check_web(|view| edit_task(&mut view.state, 1, |task| task.desired = Desired::Shutdown), bare, whole);
    check_web(|view| edit_task(&mut view.state, 1, |task| task.desired = Desired::Remove), bare, whole);
    // It is not healthy, and has not ended yet.
    let sick = racimo_common::object::TaskReport { unhealthy: true, ..report(1, TaskState::Running) };
    let sick = Observation::Task { node: node(1), report: sick };
    check_web(|view| assert!(see(view, sick).is_some()), bare, whole);
    // Its board was written off.
    check_web(|view| view.state = applied(&view.state, vec![write_off(1)]), bare, whole);
    let written_off_and_back = |view: &mut View| {
        view.state = applied(&view.state, vec![write_off(1), crate::store::Change::NodeReadmit { node: node(1) }]);
    };
    check_web(written_off_and_back, Some(WEB_BARE), Some(WEB));
    // Its board is away for a moment: it stays.
    let away = Observation::Node { node: node(1), seen: SeenNode { ready: false, at: Wall::default() } };
    check_web(|view| drop(see(view, away)), Some(WEB_BARE), Some(WEB));
    // It has ended.
    let (bare, whole) = idle("web 80>8080 2@2! 10.200.1.2/", "web 80>8080 n1=10.0.1.2 2@2! 10.200.1.2/10.0.1.4");
    check_web(|view| view.state = applied(&view.state, vec![end(1, TaskState::Failed)]), bare, whole);
    // It has not run yet, or waits to be let go: boards without its network need not know.
    let whole = Some("web 80>8080 n1=10.0.1.2 1@1 10.200.0.2/10.0.1.3 2@2! 10.200.1.2/10.0.1.4");
    let starts = |state: TaskState, desired: Desired| {
        move |view: &mut View| {
            edit_task(&mut view.state, 1, |task| task.desired = desired);
            let before = std::mem::take(&mut view.seen);
            for number in 1..4 {
                see(view, ready(number));
            }
            see(view, runs(2, 2));
            see(view, Observation::Task { node: node(1), report: report(1, state) });
            assert!(before.task(task(1)).is_some());
        }
    };
    check_web(starts(TaskState::Starting, Desired::Running), bare, whole);
    check_web(starts(TaskState::Ready, Desired::Ready), bare, whole);
}

#[test]
fn a_manager_that_has_just_started_guesses() {
    let guess = "web 80>8080 1@1? 10.200.0.2/ 2@2? 10.200.1.2/";
    check_web(
        |view| view.seen = Seen::default(),
        Some(guess),
        Some("web 80>8080 n1=10.0.1.2 1@1? 10.200.0.2/10.0.1.3 2@2? 10.200.1.2/10.0.1.4"),
    );
    // Once the board has reported, what it did not report does not run.
    let reported = |view: &mut View| {
        view.seen = Seen::default();
        see(view, ready(1));
    };
    let whole = "web 80>8080 n1=10.0.1.2 1@1 10.200.0.2/10.0.1.3 2@2? 10.200.1.2/10.0.1.4";
    check_web(reported, Some("web 80>8080 2@2? 10.200.1.2/"), Some(whole));
    // The first report of a board is news about its tasks.
    let mut view = world();
    view.seen = Seen::default();
    let mut directory = Directory::new(&view);
    let event = see(&mut view, ready(1)).expect("an event");
    assert_eq!(directory.follow(&view, &[event]), None);
    assert!(!directory.services()[&service(1)].whole.endpoints[0].unsure);
}

#[test]
fn services_come_change_and_go() {
    // Removed: no name, no ports, no virtual address, but its last tasks have connections on every board.
    let removed = |view: &mut View| {
        view.state = applied(&view.state, vec![crate::store::Change::ServiceRemove { service: service(1) }]);
    };
    check_web(
        removed,
        Some(" 1@1 10.200.0.2/ 2@2 10.200.1.2/"),
        Some(" n1 1@1 10.200.0.2/10.0.1.3 2@2 10.200.1.2/10.0.1.4"),
    );
    let and_ended = |view: &mut View| {
        removed(view);
        view.state = applied(&view.state, vec![end(1, TaskState::Shutdown), end(2, TaskState::Shutdown)]);
    };
    check_web(and_ended, None, None);
    // Its new specification publishes nothing and is on another network; older tasks still are as they were.
    let moved = |view: &mut View| {
        edit_service(&mut view.state, 1, |service| {
            let mut spec = (*service.spec).clone();
            let attachment = Attachment { network: network(2), aliases: vec!["www".to_owned()] };
            spec.task = TaskSpec { networks: vec![attachment], ..TaskSpec::default() }.into();
            service.spec = spec.into();
            service.endpoint.ports.clear();
            service.endpoint.vips = vec![(network(2), ip("10.0.2.9"))];
        });
    };
    let whole = "web n2=10.0.2.9 n1 1@1! 10.200.0.2/0.0.0.0,10.0.1.3 2@2! 10.200.1.2/0.0.0.0,10.0.1.4";
    check_web(moved, Some("web 1@1! 10.200.0.2/ 2@2! 10.200.1.2/"), Some(whole));
    // A board on one of its networks only hears nothing of the other.
    let mut view = world();
    moved(&mut view);
    assert_eq!(lines(&view, 1), ["web n1 1@1! 10.200.0.2/10.0.1.3 2@2! 10.200.1.2/10.0.1.4"]);
    // A service without ports and networks concerns nobody.
    let bare = new_service(3, spec("bare", "x", 0));
    assert_eq!(lines(&View { state: applied(&world().state, vec![bare]), ..world() }, 3), [WEB_BARE]);
}

#[test]
fn an_update_of_ports_reaches_older_tasks_last() {
    let ports = || {
        let mut ports = [(80, 9090), (82, 8080), (83, 83), (84, 81), (85, 8080)]
            .map(|(published, target)| port(PortMode::Ingress, published, target));
        ports[4].protocol = racimo_common::object::Protocol::Udp;
        ports.to_vec()
    };
    // Task 2 is a new one, task 1 has 8080 as 80, and 81 for its board.
    let updated = |view: &mut View| {
        edit_service(&mut view.state, 1, |service| service.endpoint.ports = ports());
        edit_task(&mut view.state, 2, |task| {
            let mut spec = (*task.spec).clone();
            spec.endpoint.ports = ports();
            task.spec = spec.into();
        });
    };
    check_web(
        updated,
        Some("web 80>9090 82>8080 83>83 84>81 85>8080 1@1! 10.200.0.2/~0=8080~2=0~4=0 2@2! 10.200.1.2/"),
        Some(
            "web 80>9090 82>8080 83>83 84>81 85>8080 n1=10.0.1.2 \
             1@1! 10.200.0.2/10.0.1.3~0=8080~2=0~4=0 2@2! 10.200.1.2/10.0.1.4",
        ),
    );
    // A port that the manager chose is no other one.
    let chosen = |view: &mut View| {
        edit_task(&mut view.state, 1, |task| {
            let mut spec = (*task.spec).clone();
            spec.endpoint.ports = vec![port(PortMode::Ingress, 0, 8080)];
            task.spec = spec.into();
        });
    };
    check_web(chosen, Some(WEB_BARE), Some(WEB));
}

#[test]
fn boards_without_a_place() {
    let mut view = world();
    edit_node(&mut view.state, 3, |node| node.addr = "2001:db8::3".to_owned());
    assert_eq!(table(&view, 3).own, None);
    assert_eq!(table(&view, 1).peers.keys().collect::<Vec<_>>(), [&node(2)]);
    // The address it was told counts.
    edit_node(&mut view.state, 3, |node| {
        let mut description = (*node.description).clone();
        description.data_address = Some(ip("198.51.100.3"));
        node.description = description.into();
    });
    assert_eq!(table(&view, 1).peers[&node(3)].address.0, ip("198.51.100.3"));
    assert_eq!(table(&view, 3).own.map(|own| own.address.0), Some(ip("198.51.100.3")));
    // Without a mesh nobody has one, and a board that had one is told.
    let directory = Directory::new(&view);
    let (parts, mut told) = complete(&directory, &view, node(1));
    let mut table = Table::default();
    parts.for_each(|part| table.take(part));
    assert!(table.own.is_some());
    edit_network(&mut view.state, INGRESS, |network| network.spec.ingress = false);
    let mut after = directory.clone();
    after.follow(&view, &[Event::Network { id: network(INGRESS), old: None, new: None }]);
    delta(&after, &view, node(1), &mut told).0.for_each(|part| table.take(part));
    assert_eq!(table.own, None);
    assert_eq!(table.services.len(), 1);
}

#[test]
fn a_task_s_own_place() {
    let view = world();
    let net = |edit: &dyn Fn(&mut Task)| {
        let mut task = (**view.state.task(task(1)).expect("a task")).clone();
        edit(&mut task);
        work::work(&view, &vault::testing(), &task).net
    };
    let place = net(&|_| {}).expect("a place");
    assert_eq!((place.mesh.map(|ip| ip.0), place.balanced), (Some(ip("10.200.0.2")), true));
    assert_eq!(place.networks, [(network(1), ip("10.0.1.3").into())]);
    assert_eq!(place.ports, [HostPort { protocol: Default::default(), published: 81, target: 81 }]);
    let with_mode = |mode| {
        move |task: &mut Task| {
            let mut spec = (*task.spec).clone();
            spec.container.network = mode;
            task.spec = spec.into();
        }
    };
    assert_eq!((net(&with_mode(NetworkMode::None)), net(&with_mode(NetworkMode::Host))), (None, None));
    assert!(net(&with_mode(NetworkMode::Bridge)).is_some());
    assert_eq!(net(&|task| task.addresses = Addresses::default()), None);
    // By its tasks' addresses, and nothing published: nothing to leave.
    let dnsrr = |task: &mut Task| {
        let mut spec = (*task.spec).clone();
        spec.endpoint = EndpointSpec { mode: EndpointMode::Dnsrr, ports: Vec::new() };
        task.spec = spec.into();
    };
    assert_eq!(net(&dnsrr).map(|place| place.balanced), Some(false));
}

#[test]
fn host_names_are_filled_in_once() {
    let mut view = world();
    edit_task(&mut view.state, 1, |task| {
        let mut spec = (*task.spec).clone();
        spec.container.hostname = Some("{{.Node.Hostname}}-{{.Task.Slot}}".to_owned());
        task.spec = spec.into();
    });
    let mut directory = Directory::new(&view);
    let hostname = |directory: &Directory| directory.services()[&service(1)].whole.endpoints[0].hostname.clone();
    assert_eq!(hostname(&directory).as_deref(), Some("board1-1"));
    edit_node(&mut view.state, 1, |node| {
        let mut description = (*node.description).clone();
        description.hostname = "renamed".to_owned();
        node.description = description.into();
    });
    directory.follow(&view, &[Event::TaskSeen { id: task(1), service: service(1), node: None }]);
    assert_eq!(hostname(&directory).as_deref(), Some("board1-1"));
}

#[test]
fn news_are_about_what_changed() {
    let mut view = world();
    let mut directory = Directory::new(&view);
    let before = directory.clone();
    let since = |directory: &Directory| directory.since(before.count()).map(Iterator::collect::<Vec<_>>);
    assert_eq!(since(&directory), Some(vec![]));
    // Nothing of this concerns anybody.
    let quiet =
        [Event::Cluster, Event::NodeSeen(node(1)), Event::TaskSeen { id: task(1), service: service(1), node: None }];
    assert_eq!(directory.follow(&view, &quiet), Some([].into()));
    let (state, events) = apply(&view.state, vec![desire(1, Desired::Shutdown)]).expect("allowed");
    view.state = state;
    assert_eq!(directory.follow(&view, &events), None);
    assert_eq!(since(&directory), Some(vec![Key::Service(service(1)), Key::Board(node(1))]));
    // What did not change is the same.
    let same = |number| {
        let of = |directory: &Directory| directory.services()[&service(number)].clone();
        std::sync::Arc::ptr_eq(&of(&before).whole, &of(&directory).whole)
    };
    assert!(!same(1) && same(2));
    // A task without addresses concerns its board only.
    edit_task(&mut view.state, 3, |task| task.addresses = Addresses::default());
    directory.look_at_all(&view);
    assert_eq!(since(&directory), None);
    let (state, events) = apply(&view.state, vec![desire(3, Desired::Shutdown)]).expect("allowed");
    view.state = state;
    assert_eq!(directory.follow(&view, &events), Some([node(2)].into()));
    // Too many to tell.
    let count = directory.count();
    for number in 0..=NET_NEWS_MAX {
        edit_node(&mut view.state, 1, |node| node.addr = format!("192.0.{}.{}", number / 250, number % 250 + 1));
        directory.follow(&view, &[Event::Node { id: node(1), old: None, new: None }]);
    }
    assert!(directory.since(count).is_none() && directory.since(count + 1).is_some());
}

#[test]
fn a_service_with_very_many_tasks_fits_a_frame() {
    let mut view = world();
    // Without a network the store gives its tasks no addresses; here there are more than fit anywhere.
    let mut many_spec = (*spec("many", "x", 0)).clone();
    let mut bare = TaskSpec::default();
    bare.container.image = "x".to_owned();
    bare.container.network = NetworkMode::None;
    many_spec.task = bare.into();
    view.state = applied(&view.state, vec![new_service(5, many_spec.into())]);
    let revision = view.state.service(service(5)).expect("a service").revision;
    let many = ENDPOINTS_MAX + 700;
    let numbers = || (1000..).take(many);
    let changes = numbers().map(|number| create(new_task(number, 5, revision)));
    view.state = apply(&view.state, changes.collect()).expect("allowed").0;
    view.state = apply(&view.state, numbers().map(|number| assign(number, 1)).collect()).expect("allowed").0;
    edit_service(&mut view.state, 5, |service| service.endpoint.ports = vec![port(PortMode::Ingress, 90, 90)]);
    for number in numbers() {
        edit_task(&mut view.state, number, |task| {
            task.slot = Slot::Replica(u32::MAX);
            task.addresses = Addresses { mesh: Some(ip("10.200.0.9")), networks: vec![(network(1), ip("10.0.1.9"))] };
        });
        // The first ones do not run.
        if number >= 1500 {
            see(&mut view, runs(number, 1));
        }
    }
    let directory = Directory::new(&view);
    let entry = &directory.services()[&service(5)];
    assert!(entry.left_out >= 700, "{}", entry.left_out);
    for number in 1..4 {
        let (parts, _) = complete(&directory, &view, node(number));
        let largest =
            parts.map(|part| frame::encode(&ToAgent::Net(part), FRAME_TO_AGENT_MAX).expect("it fits").len()).max();
        // Bounds are not far off.
        assert!(largest.is_some_and(|bytes| bytes > FRAME_TO_AGENT_MAX / 3), "{largest:?}");
    }
    // Those that run come first.
    let active = entry.whole.endpoints.iter().filter(|end| end.active).count();
    assert_eq!(active, entry.whole.endpoints.len().min(many - 500));
    assert!(entry.whole.endpoints.is_sorted_by_key(|end| end.task));
}

#[test]
fn no_more_networks_of_a_service_are_told_than_there_is_room_for() {
    let told = |older: usize| {
        let mut view = world();
        let networks: Vec<_> = (100..).take(older).map(|number| (network(number), ip("10.0.9.9"))).collect();
        edit_task(&mut view.state, 1, |task| task.addresses.networks.extend(networks.clone()));
        let directory = Directory::new(&view);
        let entry = &directory.services()[&service(1)];
        // Its own comes first.
        assert_eq!(entry.whole.networks[0].network, network(1));
        // All at once are the places of a board with all of them but one.
        edit_task(&mut view.state, 3, |task| task.addresses.networks = networks[1..].to_vec());
        let some = &table(&view, 2).services[&service(1)];
        assert!(some.endpoints.iter().all(|end| end.addresses.len() == some.networks.len()));
        (entry.whole.networks.len(), some.networks.len(), entry.networks_left_out)
    };
    let room = TOLD_NETWORKS_MAX;
    assert_eq!(told(room - 1), (room, room - 1, 0));
    assert_eq!(told(room + 2), (room, room - 1, 3));
}

#[test]
fn parts_are_small() {
    let mut view = world();
    let by_tasks = |name: &str| {
        let spec = attached(&spec(name, "x", 0), &[1]);
        let mut task = (*spec.task).clone();
        task.endpoint.mode = EndpointMode::Dnsrr;
        ServiceSpec { task: task.into(), ..(*spec).clone() }.into()
    };
    let changes = (10..90).map(new_node);
    view.state = applied(&view.state, changes.collect());
    for place in 10..90 {
        edit_node(&mut view.state, place.into(), |node| node.mesh = subnet("10.200.0.0/16").part(24, place));
    }
    let changes = (10..900).map(|number| new_service(number, by_tasks(&format!("s{number}"))));
    view.state = applied(&view.state, changes.collect());
    let parts: Vec<Net> = complete(&Directory::new(&view), &view, node(1)).0.collect();
    assert!(parts.len() > 2 && parts[0].own.is_some());
    for (number, part) in parts.iter().enumerate() {
        assert_eq!((part.complete, part.last), (true, number + 1 == parts.len()));
        assert!(frame::encode(&ToAgent::Net(part.clone()), 40 << 10).is_ok());
    }
    assert_eq!(parts.iter().map(|part| part.services.len()).sum::<usize>(), 891);
}
