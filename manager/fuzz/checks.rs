//! What must hold of any bytes; `manager/tests/fuzz.rs` and the coverage-guided targets beside this file call it.

use std::net::Ipv4Addr;
use std::sync::LazyLock;

use racimo_common::id::{NetworkId, NodeId, RandomId, ServiceId};
use racimo_common::net::Subnet;
use racimo_common::object::Role;
use racimo_common::time::Wall;
use racimo_manager::api::convert::{network, node, service_in, service_out, swarm};
use racimo_manager::api::fields::{self, Fields};
use racimo_manager::scheduler::constraint;
use racimo_manager::store::log::fake::Disk;
use racimo_manager::store::log::{Disk as _, File as _, Log, Machine, Sizes};
use racimo_manager::store::{
    Change, Command, Endpoint, Meta, Network, NetworkSpec, Node, NodeSpec, Service, State, View,
};
use serde_json::Value;

/// Small files, so that damage meets something.
const SIZES: Sizes = Sizes { segment: 8192, batch_max: 4096, reserve: 512, snapshot_after: 6000 };

/// The files of a log that holds a few commands.
static FILES: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let disk = Disk::new(1);
    let mut log = Log::open_with(disk.clone(), State::default(), 1, SIZES).expect("a new log");
    for number in 0..40 {
        log.commit(&[entry(number)]).expect("committed");
    }
    drop(log);
    let names = disk.list().expect("names");
    names.into_iter().map(|name| (name.clone(), content(&disk, &name))).collect()
});

/// A command as it is logged.
pub(crate) fn entry(number: u8) -> Vec<u8> {
    let changes = vec![Change::ClusterManagers(vec!["m".repeat(usize::from(number))])];
    rmp_serde::to_vec_named(&Command { at: Wall::from_nanos(5), changes }).expect("encodes")
}

fn content(disk: &Disk, name: &str) -> Vec<u8> {
    let file = disk.open(name).expect("a file");
    let mut bytes = vec![0; usize::try_from(file.size().expect("a size")).expect("fits")];
    file.read_at(0, &mut bytes).expect("read");
    bytes
}

/// A damaged log: the first byte names a file, two more a place; the rest is written there, or replaces all of it.
/// It is refused, or opens to a state that stays the same, and takes commands.
pub(crate) fn log(bytes: &[u8]) {
    let [which, high, low, rest @ ..] = bytes else { return };
    let disk = Disk::new(1);
    for (number, (name, content)) in FILES.iter().enumerate() {
        let mut content = content.clone();
        if number == usize::from(*which) % FILES.len() {
            let at = usize::from(u16::from_be_bytes([*high, *low])) % (content.len() + 1);
            if *which >= 128 {
                content = rest.to_vec();
            } else {
                content.truncate(content.len().max(at + rest.len()));
                content.resize(content.len().max(at + rest.len()), 0);
                content[at..at + rest.len()].copy_from_slice(rest);
            }
        }
        let mut file = disk.open(name).expect("a file");
        file.write_at(0, &content).expect("written");
        file.sync().expect("synced");
    }
    disk.sync_dir().expect("synced");
    let Ok(mut log) = Log::open_with(disk.clone(), State::default(), 1, SIZES) else { return };
    let before = log.machine().clone();
    log.commit(&[entry(3)]).expect("it takes commands");
    let after = log.machine().clone();
    assert!(after.index() > before.index());
    drop(log);
    let again = Log::open_with(disk, State::default(), 1, SIZES).expect("what opened once opens again");
    assert_eq!(again.machine(), &after);
}

/// Entries and snapshots that passed their checksum but are not what they should be.
pub(crate) fn state(bytes: &[u8]) {
    let mut state = State::default();
    Machine::apply(&mut state, 1, bytes);
    let mut restored = State::default();
    if restored.restore(bytes).is_ok() {
        Machine::apply(&mut restored, u64::MAX, bytes);
    }
    let mut again = State::default();
    again.restore(&state.snapshot()).expect("a snapshot of ours");
    assert_eq!(again.snapshot(), state.snapshot());
}

/// Bodies of API requests: refused with a reason, or understood so that showing them and reading that is the same.
pub(crate) fn api(bytes: &[u8]) {
    let body = match fields::parse(bytes) {
        Ok(body) => body,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    body_is_read(&body);
}

/// As [`api`], for a body that is JSON.
pub(crate) fn body_is_read(body: &Value) {
    let _ = swarm::init(body);
    if let Ok(fields) = Fields::of("", body) {
        let _ = swarm::spec(fields);
    }
    let _ = node::spec(body, &a_node());
    network_is_read(body);
    match service_in::service(&State::default(), body, unnamed) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(spec) => {
            let _ = constraint::parse_all(&spec.task.placement.constraints);
            let packed = rmp_serde::to_vec_named(&spec).expect("it can be stored");
            assert_eq!(rmp_serde::from_slice::<racimo_manager::store::ServiceSpec>(&packed).expect("and read"), spec);
            let service = Service {
                endpoint: Endpoint { ports: spec.task.endpoint.ports.clone(), vips: Vec::new() },
                held: None,
                id: ServiceId::from_bits(1),
                meta: Meta::default(),
                spec: spec.clone().into(),
                previous: None,
                revision: 1,
                update: None,
                job: None,
            };
            let shown = service_out::service(&View::default(), &service, service_out::Show::default());
            let again =
                service_in::service(&State::default(), &shown["Spec"], unnamed).expect("what is shown is taken");
            assert_eq!(again, spec);
            if !spec.task.endpoint.ports.is_empty() {
                assert_eq!(shown["Endpoint"]["Spec"], shown["Spec"]["EndpointSpec"]);
            }
        }
    }
}

/// A network is refused with a reason, or can be stored, and what is shown of it asks for the same network.
fn network_is_read(body: &Value) {
    let spec = match network::spec(body) {
        Ok(spec) => spec,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let packed = rmp_serde::to_vec_named(&spec).expect("it can be stored");
    assert_eq!(rmp_serde::from_slice::<NetworkSpec>(&packed).expect("and read"), spec);
    let subnet = spec.subnet.unwrap_or(Subnet::of(Ipv4Addr::new(10, 9, 0, 0), 24));
    let gateway = spec.gateway.or_else(|| subnet.nth(1)).unwrap_or(subnet.address());
    let made =
        Network { id: NetworkId::from_bits(1), meta: Meta::default(), spec: spec.clone(), vni: 4097, subnet, gateway };
    let mut shown = network::network(&made);
    assert_eq!(shown["Options"]["com.docker.network.driver.overlay.vxlanid_list"], "4097");
    for (object, given) in [("", "Id"), ("", "Created"), ("/Options", "com.docker.network.driver.overlay.vxlanid_list")]
    {
        let fields = shown.pointer_mut(object).and_then(Value::as_object_mut).expect("an object");
        fields.remove(given).expect("it is told");
    }
    let again = network::spec(&shown).expect("what is shown is taken");
    assert_eq!(again, NetworkSpec { subnet: Some(subnet), gateway: Some(gateway), ..spec });
    assert_eq!(network::object(&made)["Spec"]["Name"], made.spec.name.as_str());
}

fn a_node() -> Node {
    Node {
        mesh: None,
        id: NodeId::from_bits(1),
        meta: Meta::default(),
        spec: NodeSpec::default(),
        role: Role::Worker,
        key_digest: None,
        description: Default::default(),
        addr: String::new(),
        written_off: None,
        trust: None,
        board: None,
    }
}

fn unnamed() -> String {
    "unnamed".to_owned()
}
