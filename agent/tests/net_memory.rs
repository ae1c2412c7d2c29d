//! What the network takes of an agent's heap: 25 tasks on 3 networks, 100 services; and far more services.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../src/net/testing.rs"]
mod testing;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use racimo_agent::net::plan::{Attached, Op, Plan, View};
use racimo_agent::net::table::Table;
use racimo_agent::{alloc, limits};
use racimo_common::id::{NetworkId, NodeId, RandomId, ServiceId, TaskId};
use racimo_common::object::Protocol;
use racimo_common::wire::{Ip, Net, NetAttachment, NetEndpoint, NetNetwork, NetPort, NetService, TaskNet};

#[global_allocator]
static HEAP: alloc::Counting = alloc::Counting;

const ENDPOINTS: u8 = 10;

fn address(network: u32, number: u32) -> Ip {
    Ip(Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + (network << 16) + number))
}

fn network(number: u32) -> NetworkId {
    NetworkId::from_bits(number.into())
}

fn service(number: u32, active: bool) -> NetService {
    let endpoint = |place: u32| {
        let at = number * 32 + place + 2;
        NetEndpoint {
            targets: Box::default(),
            task: TaskId::from_bits(u128::from(at) << 64),
            slot: Some(place),
            hostname: None,
            node: NodeId::from_bits(u128::from(place)),
            mesh: Some(address(200, at)),
            addresses: (1..=3).map(|network| address(network, at)).collect(),
            active,
            unsure: false,
        }
    };
    let attachment =
        |id| NetAttachment { network: network(id), vip: Some(address(id, number * 32 + 1)), aliases: vec!["x".into()] };
    NetService {
        id: ServiceId::from_bits(number.into()),
        name: format!("stack_service{number}"),
        ports: vec![NetPort { protocol: Protocol::Tcp, published: 8000 + u16::try_from(number).unwrap(), target: 80 }],
        keep_source: false,
        networks: (1..=3).map(attachment).collect(),
        endpoints: (0..ENDPOINTS.into()).map(endpoint).collect(),
    }
}

fn told(services: u32) -> impl Iterator<Item = Net> {
    let network =
        |number: u8| NetNetwork { subnet: format!("10.{number}.0.0/16").parse().unwrap(), ..testing::network(number) };
    let first = Net {
        own: Some(testing::own(99)),
        peers: (0..ENDPOINTS).map(testing::peer).collect(),
        networks: (1..=3).map(network).collect(),
        ..Net::default()
    };
    let services = (0..services).map(|number| Net { services: vec![service(number, true)], ..Net::default() });
    std::iter::once(first).chain(services)
}

/// Told so many services; answers what is held, and the most that was.
fn measure(services: u32) -> (usize, usize) {
    let before = alloc::used();
    let (mut table, mut plan, mut most) = (Table::default(), Plan::default(), 0);
    let mut tasks: BTreeMap<TaskId, Attached> = BTreeMap::new();
    for number in 0..25 {
        let networks = (1..=3).map(|id| (network(id), address(id, 60_000 + number))).collect();
        let net = TaskNet { mesh: Some(address(200, 60_000 + number)), networks, ..TaskNet::default() };
        tasks.insert(TaskId::from_bits(number.into()), Attached { net, ..Attached::default() });
    }
    for net in told(services) {
        table.take_into(net, &mut plan.changes);
    }
    let mut all = 0;
    let mut drain = |plan: &mut Plan, table: &Table| {
        while let Some(ops) = plan.next(View { table, tasks: &tasks }) {
            all += ops.len();
            most = most.max(alloc::used() - before);
        }
    };
    drain(&mut plan, &table);
    // Every service changes at once.
    for number in 0..services {
        table.take_into(Net { services: vec![service(number, false)], ..Net::default() }, &mut plan.changes);
    }
    drain(&mut plan, &table);
    // All of them left the balance.
    let left = plan.take_left();
    plan.overdue(left);
    drain(&mut plan, &table);
    assert!(all > 100 * services as usize / 2, "{all} operations");
    (alloc::used() - before, most)
}

/// One service with as many ports as it can have, and so many tasks; answers the most that was held.
fn measure_large(ports: u16, endpoints: u32) -> usize {
    let before = alloc::used();
    let (mut table, mut plan, mut most) = (Table::default(), Plan::default(), 0);
    let mut tasks: BTreeMap<TaskId, Attached> = BTreeMap::new();
    for number in 0..25 {
        let networks = vec![(network(1), address(1, 60_000 + number))];
        let net = TaskNet { mesh: Some(address(200, 60_000 + number)), networks, ..TaskNet::default() };
        tasks.insert(TaskId::from_bits(number.into()), Attached { net, ..Attached::default() });
    }
    told(0).for_each(|net| table.take_into(net, &mut plan.changes));
    let large = |active: bool| {
        let mut service = service(1, active);
        let (one, port) = (service.endpoints[0].clone(), service.ports[0]);
        service.endpoints = (0..endpoints)
            .map(|at| NetEndpoint {
                task: TaskId::from_bits(u128::from(at) << 64),
                mesh: Some(address(200, at)),
                addresses: vec![address(1, at)],
                ..one.clone()
            })
            .collect();
        service.networks.truncate(1);
        service.ports = (0..ports).map(|at| NetPort { published: 8000 + at, ..port }).collect();
        service
    };
    let mut published = 0;
    for active in [true, false] {
        table.take_into(Net { services: vec![large(active)], ..Net::default() }, &mut plan.changes);
        while let Some(ops) = plan.next(View { table: &table, tasks: &tasks }) {
            published += ops.iter().filter(|op| matches!(op, Op::Publish { .. })).count();
            most = most.max(alloc::used() - before);
        }
    }
    assert_eq!(published, 2 * usize::from(ports));
    most
}

/// One test, because the heap is the process's.
#[test]
fn a_board_knows_many_services_in_little_memory() {
    let (held, most) = measure(100);
    eprintln!("100 services: {} KiB held, {} KiB at most", held >> 10, most >> 10);
    assert!(held < 256 << 10 && most < 768 << 10, "{held} held, {most} at most");
    let (held, most) = measure(500);
    eprintln!("500 services: {} KiB held, {} KiB at most", held >> 10, most >> 10);
    assert!(held < limits::HEAP_MAX / 4 && most < limits::HEAP_MAX * 3 / 4, "{held} held, {most} at most");
    let most = measure_large(128, 1000);
    eprintln!("128 ports, 1000 tasks: {} KiB at most", most >> 10);
    assert!(most < limits::HEAP_MAX / 4, "{most} at most");
}
