//! Whatever happens, boards that are told changes know the same as one that is told everything.

use proptest::prelude::*;
use racimo_agent::net::table::Table;
use racimo_common::object::{Desired, EndpointMode, EndpointSpec, Port, PortMode, TaskState};
use racimo_common::time::Wall;

use super::board::report;
use crate::dispatcher::directory::Directory;
use crate::dispatcher::net::{Told, complete, delta};
use crate::store::testing::*;
use crate::store::{Attachment, Change, Observation, Seen, SeenNode, ServiceSpec, State, TaskSpec, View};

const NODES: u128 = 4;

/// What happens; numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Act {
    Service {
        number: u128,
        networks: Vec<u128>,
        published: bool,
        dnsrr: bool,
    },
    Update {
        number: u128,
        networks: Vec<u128>,
        published: bool,
        labelled: bool,
    },
    ServiceRemove(u128),
    Task {
        number: u128,
        of: u128,
        on: u128,
    },
    Desire(u128, Desired),
    State(u128, TaskState),
    End(u128),
    Remove(u128),
    WriteOff(u128),
    Readmit(u128),
    Address(u128, u8),
    Ingress(bool),
    /// Events are lost.
    Resync,
    /// A board is told.
    Tell(u128),
    /// A board opens a new session.
    Session(u128),
}

fn act() -> impl Strategy<Value = Act> {
    let (service, node, task) = (1_u128..5, 1..=NODES, 1_u128..25);
    let networks = || proptest::collection::vec(1_u128..4, 0..3);
    let state =
        prop_oneof![1 => Just(TaskState::Preparing), 1 => Just(TaskState::Starting), 4 => Just(TaskState::Running)];
    let desired = prop_oneof![Just(Desired::Running), Just(Desired::Shutdown), Just(Desired::Remove)];
    prop_oneof![
        2 => (service.clone(), networks(), any::<bool>(), any::<bool>())
            .prop_map(|(number, networks, published, dnsrr)| Act::Service { number, networks, published, dnsrr }),
        1 => (service.clone(), networks(), any::<bool>(), any::<bool>())
            .prop_map(|(number, networks, published, labelled)| Act::Update { number, networks, published, labelled }),
        1 => service.clone().prop_map(Act::ServiceRemove),
        6 => (task.clone(), service, node.clone()).prop_map(|(number, of, on)| Act::Task { number, of, on }),
        2 => (task.clone(), desired).prop_map(|(task, desired)| Act::Desire(task, desired)),
        6 => (task.clone(), state).prop_map(|(task, state)| Act::State(task, state)),
        2 => task.clone().prop_map(Act::End),
        1 => task.prop_map(Act::Remove),
        1 => node.clone().prop_map(Act::WriteOff),
        1 => node.clone().prop_map(Act::Readmit),
        1 => (node.clone(), 1_u8..5).prop_map(|(node, address)| Act::Address(node, address)),
        1 => any::<bool>().prop_map(Act::Ingress),
        1 => Just(Act::Resync),
        8 => node.clone().prop_map(Act::Tell),
        1 => node.prop_map(Act::Session),
    ]
}

fn task_spec(networks: &[u128], published: bool, dnsrr: bool, number: u128) -> TaskSpec {
    let mut own: Vec<u128> = networks.to_vec();
    own.sort_unstable();
    own.dedup();
    let networks = own.iter().map(|n| Attachment { network: network(*n), aliases: vec![format!("a{n}")] }).collect();
    let target = 8000 + u16::try_from(number).expect("a small number");
    let port = Port { published: target, target, mode: PortMode::Ingress, ..Port::default() };
    let mode = if dnsrr && !published { EndpointMode::Dnsrr } else { EndpointMode::Vip };
    let endpoint = EndpointSpec { mode, ports: published.then_some(port).into_iter().collect() };
    TaskSpec { networks, endpoint, ..(*spec("s", "x", 0).task).clone() }
}

/// What the act asks of the store.
fn changes(act: &Act, view: &View) -> Vec<Change> {
    let state = &view.state;
    match act {
        Act::Service { number, networks, published, dnsrr } => {
            let task = task_spec(networks, *published, *dnsrr, *number);
            let spec = ServiceSpec { task: task.into(), ..(*spec(&format!("s{number}"), "x", 0)).clone() };
            vec![new_service(*number, spec.into())]
        }
        Act::Update { number, networks, published, labelled } => {
            let Some(service) = state.service(service(*number)) else { return Vec::new() };
            let task = task_spec(networks, *published, false, *number);
            let mut spec = ServiceSpec { task: task.into(), ..(*service.spec).clone() };
            let value = labelled.to_string();
            spec.labels.insert(crate::store::KEEP_SOURCE_LABEL.to_owned(), value);
            vec![Change::ServiceUpdate { service: service.id, version: service.meta.version, spec: spec.into() }]
        }
        Act::ServiceRemove(number) => vec![Change::ServiceRemove { service: service(*number) }],
        Act::Task { number, of, on } => {
            let Some(service) = state.service(service(*of)) else { return Vec::new() };
            vec![create(new_task(*number, *of, service.revision)), assign(*number, *on)]
        }
        Act::Desire(number, desired) => vec![desire(*number, *desired)],
        Act::End(number) => vec![end(*number, TaskState::Failed)],
        Act::Remove(number) => vec![Change::TaskRemove { task: task(*number) }],
        Act::WriteOff(number) => vec![write_off(*number)],
        Act::Readmit(number) => vec![Change::NodeReadmit { node: node(*number) }],
        Act::Address(number, address) => {
            let Some(known) = state.node(node(*number)) else { return Vec::new() };
            let addr = if *address == 4 { "2001:db8::1".to_owned() } else { format!("192.0.2.{number}{address}") };
            vec![Change::NodeDescribe { node: known.id, description: known.description.clone(), addr }]
        }
        Act::Ingress(true) => {
            let spec = crate::store::NetworkSpec { name: "ingress".into(), ingress: true, ..Default::default() };
            vec![Change::NetworkCreate { network: network(INGRESS), spec }]
        }
        Act::Ingress(false) => vec![Change::NetworkRemove { network: network(INGRESS) }],
        Act::State(..) | Act::Resync | Act::Tell(_) | Act::Session(_) => Vec::new(),
    }
}

struct Board {
    told: Told,
    table: Table,
}

fn known(table: &Table) -> impl PartialEq + std::fmt::Debug + use<> {
    (table.own.clone(), table.peers.clone(), table.networks.clone(), table.services.clone())
}

fn run(acts: &[Act]) -> usize {
    let mut setup = vec![new_cluster()];
    setup.extend((1..=NODES).map(new_node));
    setup.extend((1..4).map(|number| new_network(number, &format!("n{number}"))));
    for (number, networks, published, dnsrr) in
        [(1, vec![1], true, false), (2, vec![1, 2], false, false), (3, vec![3], false, true)]
    {
        let task = task_spec(&networks, published, dnsrr, number);
        let spec = ServiceSpec { task: task.into(), ..(*spec(&format!("s{number}"), "x", 0)).clone() };
        setup.push(new_service(number, spec.into()));
    }
    let mut view = View { state: applied(&State::default(), setup), seen: Seen::default() };
    for number in 1..=NODES {
        let seen = SeenNode { ready: true, at: Wall::default() };
        view.seen.observe(&view.state, Observation::Node { node: node(number), seen });
    }
    let mut directory = Directory::new(&view);
    let open = |view: &View, directory: &Directory, number, table: Option<Table>| {
        let (parts, told) = complete(directory, view, node(number));
        let mut table = table.unwrap_or_default();
        table.session();
        parts.for_each(|part| table.take(part));
        Board { told, table }
    };
    let mut boards: Vec<Board> = (1..=NODES).map(|number| open(&view, &directory, number, None)).collect();
    let mut active = 0;
    let every = (1..=NODES).map(Act::Tell);
    for act in acts.iter().cloned().chain(every) {
        let changes = changes(&act, &view);
        let mut events = Vec::new();
        if !changes.is_empty() {
            // What the store refuses does not happen.
            let Ok((state, happened)) = apply(&view.state, changes) else { continue };
            view.state = state;
            view.seen.follow(&happened);
            events = happened;
        }
        if let Act::State(number, state) = act {
            let on = view.state.task(task(number)).and_then(|task| task.node);
            let said = on.map(|node| Observation::Task { node, report: report(number, state) });
            events.extend(said.and_then(|said| view.seen.observe(&view.state, said)));
        }
        if matches!(act, Act::Resync) {
            directory.look_at_all(&view);
        } else {
            directory.follow(&view, &events);
        }
        let place = |number: u128| usize::try_from(number - 1).expect("a small number");
        let wanted = |view: &View, number| {
            let mut table = Table::default();
            complete(&Directory::new(view), view, node(number)).0.for_each(|part| table.take(part));
            table
        };
        let told = if let Act::Tell(number) = act {
            let board = &mut boards[place(number)];
            let (parts, _) = delta(&directory, &view, node(number), &mut board.told);
            parts.for_each(|part| board.table.take(part));
            let (mut again, _) = delta(&directory, &view, node(number), &mut board.told);
            assert_eq!(again.next(), None, "it is told twice");
            number
        } else if let Act::Session(number) = act {
            let table = std::mem::take(&mut boards[place(number)].table);
            boards[place(number)] = open(&view, &directory, number, Some(table));
            number
        } else {
            continue;
        };
        let table = &boards[place(told)].table;
        assert_eq!(known(table), known(&wanted(&view, told)), "after {act:?}");
        for end in table.services.values().flat_map(|service| &service.endpoints).filter(|end| end.active) {
            assert_eq!(view.state_of(end.task), Some(TaskState::Running));
            active += 1;
        }
    }
    active
}

proptest! {
    #[test]
    fn changes_lead_to_the_whole(acts in proptest::collection::vec(act(), 1..120)) {
        run(&acts);
    }
}

/// What is not reached is not tested.
#[test]
fn the_acts_reach_tasks_that_take_connections() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let acts = proptest::collection::vec(act(), 100..120);
    let total: usize = (0..20)
        .map(|_| {
            let tree = acts.new_tree(&mut runner).expect("a value");
            run(&proptest::strategy::ValueTree::current(&tree))
        })
        .sum();
    assert!(total > 60, "{total}");
}
