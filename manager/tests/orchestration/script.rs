//! The scenarios' little language.
//!
//! ```text
//! node NAME [generic= mem= cpus= arch= os= avail= role= addr= data= places= no-network= no-encryption=
//!         no-memory-limits= no-cpu-limits= label.K=V engine.K=V]
//! set NAME KEY=VALUE…               the same keys, later
//! down|up|forget|remove|freeze|thaw NODE
//! service NAME replicas=N|global|job=TOTAL[/AT-ONCE]|global-job [image= reserve-memory= reserve-cpu= limit-memory= limit-cpu= constraint=
//!         network= publish=PORT[@host] generic= spread= per-node= platform= restart= delay= attempts= window= lease= label= container-label= force=]
//! update NAME KEY=VALUE…            constraint=- drops all constraints, publish=- all ports
//! network NAME [subnet= internal encrypted ingress] | network-rm NAME
//! rollback NAME | service-line NAME | delete NAME | history N
//! config|rollback-config [parallelism= delay= monitor= action= ratio= order=]
//! task NAME fails|completes|rejected
//! settle | wait 5s | clock -1h | restart-manager | tasks | all-tasks
//! ```
//! Images: `crash` fails when started, `reject` before, `done` completes and `fail` fails once it runs, `stuck` never
//! runs, all others run.

use std::time::Duration;

use racimo_common::id::{NetworkId, RandomId};
use racimo_common::object::{Availability, NodeDescription, Port, PortMode, Role, TaskState, parse_generics};
use racimo_common::registry::Platform;
use racimo_common::time::Now;
use racimo_common::units::Bytes;
use racimo_manager::store::{
    Attachment, Change, ClusterSpec, FailureAction, Mode, NetworkSpec, NodeSpec, Order, Ratio, RestartCondition,
    ServiceSpec, TaskSpec, UpdateConfig,
};

use super::world::World;

/// Runs one line; what it says.
pub(crate) fn run(world: &mut World, line: &str) -> Vec<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (verb, rest) = words.split_first().expect("a verb");
    let node = |world: &World| world.nodes[rest[0]];
    match *verb {
        "node" => add_node(world, rest[0], &rest[1..]),
        "set" => set_node(world, rest[0], &rest[1..]),
        "down" => world.down(node(world)),
        "up" => world.up(node(world)),
        "forget" => world.ready(node(world), false),
        "remove" => world.apply(vec![Change::NodeRemove { node: node(world) }]),
        "freeze" => drop(world.frozen.insert(node(world))),
        "thaw" => drop(world.frozen.remove(&node(world))),
        "service" => add_service(world, rest[0], &rest[1..]),
        "update" => world.edit_service(rest[0], |spec| rest[1..].iter().for_each(|word| service_word(spec, word))),
        // `network NAME [subnet=S] [internal] [encrypted] [ingress]`, `network-rm NAME`
        "network" => add_network(world, rest[0], &rest[1..]),
        "network-rm" => {
            let network = world.view.state.network_named(rest[0]).unwrap().id;
            world.apply(vec![Change::NetworkRemove { network }]);
        }
        "delete" => {
            let service = world.view.state.service_named(rest[0]).unwrap().id;
            world.apply(vec![Change::ServiceRemove { service }]);
        }
        "history" => history(world, rest[0].parse().unwrap()),
        "rollback" => world.roll_back(rest[0]).into_iter().for_each(|refusal| world.trace.push(refusal)),
        "service-line" => return vec![world.service_line(rest[0])],
        "rollback-config" => rest.iter().for_each(|word| config_word(&mut world.rollback, word)),
        "config" => rest.iter().for_each(|word| config_word(&mut world.config, word)),
        "task" => end_task(world, rest[0], rest[1]),
        "settle" => world.settle(),
        "wait" => world.wait(duration(rest[0])),
        "clock" => {
            let back = duration(rest[0].strip_prefix('-').expect("backwards"));
            world.now = Now { wall: world.now.wall - back, ..world.now };
        }
        "restart-manager" => world.restart_manager(),
        "tasks" => return world.table(false),
        "all-tasks" => return world.table(true),
        other => panic!("{other}: no such verb"),
    }
    std::mem::take(&mut world.trace)
}

fn duration(text: &str) -> Duration {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).expect("a unit");
    let count: u64 = text[..split].parse().unwrap();
    match &text[split..] {
        "ms" => Duration::from_millis(count),
        "s" => Duration::from_secs(count),
        "m" => Duration::from_secs(count * 60),
        "h" => Duration::from_secs(count * 3600),
        unit => panic!("{unit}: no such unit"),
    }
}

fn platform(text: &str) -> Platform {
    let mut parts = text.split('/').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    Platform { os: next(), architecture: next(), variant: next() }
}

struct Board {
    spec: NodeSpec,
    role: Role,
    about: NodeDescription,
    addr: String,
}

fn board_word(board: &mut Board, word: &str) {
    let (key, value) = word.split_once('=').expect("key=value");
    match key {
        "mem" => board.about.memory = value.parse().unwrap(),
        "cpus" => board.about.cpus = value.parse().unwrap(),
        "arch" => board.about.platforms = value.split(',').map(platform).collect(),
        // `generic=gpio=2,modem=a,modem=b`; none: `generic=`.
        "generic" => {
            board.about.generic = parse_generics(value.split(',').filter(|term| !term.is_empty())).unwrap();
        }
        "places" => board.about.tasks_max = value.parse().unwrap(),
        "no-network" => board.about.no_network = Some(value.to_owned()),
        "no-memory-limits" => board.about.no_memory_limits = Some(value.to_owned()),
        "no-cpu-limits" => board.about.no_cpu_limits = Some(value.to_owned()),
        "no-encryption" => board.about.no_encryption = Some(value.to_owned()),
        "avail" => board.spec.availability = availability(value),
        "role" => board.role = if value == "manager" { Role::Manager } else { Role::Worker },
        "addr" => value.clone_into(&mut board.addr),
        "data" => board.about.data_address = Some(value.parse().unwrap()),
        _ => match key.split_once('.') {
            Some(("label", label)) => drop(board.spec.labels.insert(label.to_owned(), value.to_owned())),
            Some(("engine", label)) => drop(board.about.labels.insert(label.to_owned(), value.to_owned())),
            _ => panic!("{key}: no such key"),
        },
    }
}

fn availability(text: &str) -> Availability {
    match text {
        "active" => Availability::Active,
        "pause" => Availability::Pause,
        "drain" => Availability::Drain,
        other => panic!("{other}: no such availability"),
    }
}

fn add_node(world: &mut World, name: &str, words: &[&str]) {
    let about = NodeDescription {
        hostname: name.to_owned(),
        cpus: "4".parse().unwrap(),
        memory: Bytes::mib(1024),
        platforms: vec![platform("linux/arm64/v8")],
        ..NodeDescription::default()
    };
    let mut board = Board { spec: NodeSpec::default(), role: Role::Worker, about, addr: "10.0.0.1:1".to_owned() };
    words.iter().for_each(|word| board_word(&mut board, word));
    world.add_node(name, board.spec, board.role, board.about, &board.addr);
}

fn set_node(world: &mut World, name: &str, words: &[&str]) {
    let id = world.nodes[name];
    let node = world.view.state.node(id).unwrap().clone();
    let about = (*node.description).clone();
    let mut board = Board { spec: node.spec.clone(), role: node.role, about, addr: node.addr.clone() };
    words.iter().for_each(|word| board_word(&mut board, word));
    if board.spec != node.spec {
        world.edit_node(id, |spec| *spec = board.spec);
    }
    if board.about != *node.description {
        let description = std::sync::Arc::new(board.about);
        world.apply(vec![Change::NodeDescribe { node: id, description, addr: board.addr }]);
    }
}

fn add_service(world: &mut World, name: &str, words: &[&str]) {
    let mut spec = ServiceSpec {
        name: name.to_owned(),
        labels: std::collections::BTreeMap::new(),
        task: std::sync::Arc::new(TaskSpec::default()),
        mode: Mode::Replicated { replicas: 1 },
        update: None,
        rollback: None,
        credentials: None,
    };
    words.iter().for_each(|word| service_word(&mut spec, word));
    world.add_service(spec);
}

pub(crate) fn service_word(spec: &mut ServiceSpec, word: &str) {
    if word == "global" {
        spec.mode = Mode::Global;
        return;
    }
    if word == "global-job" {
        spec.mode = Mode::GlobalJob;
        return;
    }
    let (key, value) = word.split_once('=').expect("key=value");
    let mut task = (*spec.task).clone();
    let (place, restart, resources) = (&mut task.placement, &mut task.restart, &mut task.resources);
    match key {
        "replicas" if spec.mode == Mode::Global || spec.mode.is_job() => {}
        "job" => {
            let (total, most) = value.split_once('/').unwrap_or((value, value));
            spec.mode =
                Mode::ReplicatedJob { concurrent_max: most.parse().unwrap(), completions: total.parse().unwrap() };
        }
        "replicas" => spec.mode = Mode::Replicated { replicas: value.parse().unwrap() },
        "label" => drop(spec.labels.insert("x".to_owned(), value.to_owned())),
        "container-label" => drop(task.container.labels.insert("x".to_owned(), value.to_owned())),
        "image" => value.clone_into(&mut task.container.image),
        "force" => task.force_update = value.parse().unwrap(),
        "reserve-memory" => resources.reservations.memory = value.parse().unwrap(),
        "reserve-cpu" => resources.reservations.cpu = value.parse().unwrap(),
        "generic" => {
            let (kind, count) = value.split_once('=').expect("KIND=COUNT");
            resources.generic.insert(kind.to_owned(), count.parse().unwrap());
        }
        "network" => task.networks.push(Attachment { network: network_id(value), aliases: Vec::new() }),
        "publish" if value == "-" => task.endpoint.ports.clear(),
        // `PORT@host` or `PORT`.
        "publish" => {
            let (number, mode) = value.split_once('@').map_or((value, PortMode::Ingress), |(n, _)| (n, PortMode::Host));
            let published = number.parse().unwrap();
            task.endpoint.ports.push(Port { published, target: published, mode, ..Port::default() });
        }
        "limit-memory" => resources.limits.memory = Some(value.parse().unwrap()),
        "limit-cpu" => resources.limits.cpu = Some(value.parse().unwrap()),
        "constraint" if value == "-" => place.constraints.clear(),
        "constraint" => place.constraints.push(value.to_owned()),
        "spread" => place.preferences.push(value.to_owned()),
        "per-node" => place.replicas_max = value.parse().unwrap(),
        "platform" => place.platforms = value.split(',').map(platform).collect(),
        "restart" => {
            restart.condition = Some(match value {
                "any" => RestartCondition::Any,
                "on-failure" => RestartCondition::OnFailure,
                "none" => RestartCondition::None,
                other => panic!("{other}: no such condition"),
            });
        }
        "delay" => restart.delay = Some(duration(value)),
        "attempts" => restart.attempts_max = Some(value.parse().unwrap()),
        "window" => restart.window = Some(duration(value)),
        "lease" => task.offline.lease = Some(duration(value)),
        other => panic!("{other}: no such key"),
    }
    spec.task = std::sync::Arc::new(task);
}

fn config_word(config: &mut UpdateConfig, word: &str) {
    let (key, value) = word.split_once('=').expect("key=value");
    match key {
        "parallelism" => config.parallelism = Some(value.parse().unwrap()),
        "delay" => config.delay = Some(duration(value)),
        "monitor" => config.monitor = Some(duration(value)),
        "ratio" => config.failure_ratio = Ratio::new(value.parse().unwrap()),
        "action" if value == "continue" => config.failure_action = Some(FailureAction::Continue),
        "action" if value == "rollback" => config.failure_action = Some(FailureAction::Rollback),
        "action" if value == "pause" => config.failure_action = Some(FailureAction::Pause),
        "order" if value == "start-first" => config.order = Some(Order::StartFirst),
        _ => panic!("{word}: no such setting"),
    }
}

/// Services name networks by it before the world is asked.
fn network_id(name: &str) -> NetworkId {
    NetworkId::from_bits(name.bytes().fold(1, |bits, byte| bits << 8 | u128::from(byte)))
}

fn add_network(world: &mut World, name: &str, words: &[&str]) {
    let mut spec = NetworkSpec { name: name.to_owned(), ..NetworkSpec::default() };
    for word in words {
        match word.split_once('=') {
            None if *word == "internal" => spec.internal = true,
            None if *word == "encrypted" => spec.encrypted = true,
            None if *word == "ingress" => spec.ingress = true,
            Some(("subnet", subnet)) => spec.subnet = Some(subnet.parse().unwrap()),
            _ => panic!("{word}: no such word"),
        }
    }
    world.apply(vec![Change::NetworkCreate { network: network_id(name), spec }]);
}

fn history(world: &mut World, keep: i64) {
    let spec = ClusterSpec { task_history: Some(keep), ..ClusterSpec::default() };
    let cluster = world.view.state.cluster().expect("a world has one");
    let version = cluster.meta.version;
    let change = Change::ClusterUpdate { version, spec, worker_secret: None, manager_secret: None };
    world.apply(vec![change]);
}

fn end_task(world: &mut World, name: &str, how: &str) {
    let found = world.view.state.tasks().find(|task| world.name(task.id) == name);
    let task = found.unwrap_or_else(|| panic!("{name}: no such task")).id;
    let (state, code) = match how {
        "fails" => (TaskState::Failed, Some(1)),
        "completes" => (TaskState::Complete, Some(0)),
        "rejected" => (TaskState::Rejected, None),
        other => panic!("{other}: no such end"),
    };
    world.end(task, state, code);
}
