//! May a task run on a node? If not, why (reference §6).
//!
//! The first filter that fails is charged, in the order ready, resources, limits, network, constraints, platform, ports
//! of the board, replicas per node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use racimo_common::object::{Availability, Generics, Limits, Protocol, Reservations};
use racimo_common::registry::Platform;
use racimo_common::units::{Bytes, NanoCpus};

use super::counts_as_active;
use crate::allocator::{Holder, NO_DATA_ADDRESS, NO_PART, Usage, host_ports};
use crate::store::generic;
use crate::store::{Attachment, Node, NodeStatus, State, TaskSpec, View};

/// A node and what is free on it.
pub(super) struct Room {
    pub(super) node: Arc<Node>,
    status: NodeStatus,
    free: Reservations,
    generic: Generics,
    /// Free addresses in its part of the mesh; none: it has no part.
    mesh: Option<u64>,
    /// Ports of the board that its tasks publish on it.
    ports: BTreeSet<(Protocol, u16)>,
    /// Tasks that have not ended: what its task table holds.
    held: u32,
    /// Of these, the wanted ones.
    pub(super) active: u32,
}

/// What a group of tasks asks of a node.
pub(super) struct Ask<'a> {
    limits: Limits,
    reservations: Reservations,
    generic: &'a generic::Ask,
    platforms: &'a [Platform],
    /// Whether it has an address in the board's part of the mesh.
    pub(super) mesh: bool,
    /// Its overlay networks.
    pub(super) networks: &'a [Attachment],
    /// Whether one of them is encrypted.
    encrypted: bool,
    ports: Vec<(Protocol, u16)>,
    pub(super) replicas_max: u64,
}

/// Why a node may not have a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Refusal {
    /// Down, unknown, paused or drained.
    Unavailable(&'static str),
    /// CPU time is short by this much.
    Cpu(NanoCpus),
    /// Memory is short by this much.
    Memory(Bytes),
    /// Generic resources are short: the place of their kind in what is asked for, and by how many.
    Generic(usize, u64),
    /// The CPU limit is more than the node has.
    CpuLimit(NanoCpus),
    /// The memory limit is more than the node has.
    MemoryLimit(Bytes),
    /// Its task table is full.
    Full(u32),
    /// It cannot enforce a limit of the task's.
    Unlimited(Limit),
    /// It cannot give the task its networks.
    Network(NoNetwork),
    /// A constraint is not satisfied.
    Constraint,
    /// It cannot run the image.
    Platform,
    /// Another task publishes the port on it.
    Port,
    /// It has its share of the service.
    Replicas,
}

/// A limit that a node's kernel has to enforce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Limit {
    Memory,
    Cpu,
    Pids,
}

/// Why a node cannot give a task its networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum NoNetwork {
    /// It cannot give any: it says why.
    Any,
    /// It cannot encrypt: it says why.
    Encryption,
    /// It has no part of the mesh.
    Part,
    /// No other board can reach it over IPv4.
    DataAddress,
    /// All addresses of its part are given.
    Addresses,
}

impl Room {
    pub(super) fn new(view: &View, node: &Arc<Node>) -> Self {
        let (mut used, mut held, mut active) = (Reservations::default(), 0, 0);
        let mut ports = BTreeSet::new();
        for task in view.state.tasks_on_node(node.id).filter(|task| task.ended.is_none()) {
            let more = task.spec.resources.reservations;
            used = Reservations { cpu: used.cpu + more.cpu, memory: used.memory + more.memory };
            held += 1;
            active += u32::from(counts_as_active(task));
            ports.extend(numbers(&task.spec));
        }
        let has = node.capacity();
        let free = Reservations { cpu: has.cpu - used.cpu, memory: has.memory - used.memory };
        let generic = view.state.free_generic(node);
        let mesh = view.state.addresses(Holder::Node(node.id)).map(Usage::free);
        Self { node: node.clone(), status: view.node_status(node), free, generic, mesh, ports, held, active }
    }

    /// Takes one task in that was judged to fit; what it is granted.
    pub(super) fn take(&mut self, ask: &Ask<'_>) -> Generics {
        let free = self.free;
        self.free =
            Reservations { cpu: free.cpu - ask.reservations.cpu, memory: free.memory - ask.reservations.memory };
        self.mesh = self.mesh.map(|free| free.saturating_sub(u64::from(ask.mesh)));
        self.ports.extend(&ask.ports);
        self.held += 1;
        self.active += 1;
        generic::grant(&mut self.generic, ask.generic).unwrap_or_default()
    }
}

impl<'a> Ask<'a> {
    pub(super) fn of(state: &State, spec: &'a TaskSpec) -> Self {
        let encrypts =
            |attachment: &Attachment| state.network(attachment.network).is_some_and(|network| network.spec.encrypted);
        Self {
            limits: spec.resources.limits.clone(),
            reservations: spec.resources.reservations,
            generic: &spec.resources.generic,
            platforms: &spec.placement.platforms,
            mesh: state.needs_mesh(spec),
            networks: &spec.networks,
            encrypted: spec.networks.iter().any(encrypts),
            ports: numbers(spec).collect(),
            replicas_max: spec.placement.replicas_max,
        }
    }

    /// Judges one node; `fits`: it satisfies the constraints; `here`: wanted tasks of the service on it.
    pub(super) fn judge(&self, room: &Room, fits: bool, here: u32) -> Result<(), Refusal> {
        self.ready(room)?;
        self.resources(room)?;
        self.enforced(room).map_err(Refusal::Unlimited)?;
        self.network(room).map_err(Refusal::Network)?;
        if !fits {
            return Err(Refusal::Constraint);
        }
        if !platform_fits(self.platforms, &room.node.description.platforms) {
            return Err(Refusal::Platform);
        }
        if self.ports.iter().any(|port| room.ports.contains(port)) {
            return Err(Refusal::Port);
        }
        if self.replicas_max > 0 && u64::from(here) >= self.replicas_max {
            return Err(Refusal::Replicas);
        }
        Ok(())
    }

    /// Whether its tasks have addresses.
    pub(super) fn any_network(&self) -> bool {
        self.mesh || !self.networks.is_empty()
    }

    fn network(&self, room: &Room) -> Result<(), NoNetwork> {
        if !self.any_network() {
            return Ok(());
        }
        let about = &room.node.description;
        if about.no_network.is_some() {
            return Err(NoNetwork::Any);
        }
        if self.encrypted && about.no_encryption.is_some() {
            return Err(NoNetwork::Encryption);
        }
        // Its agent needs both for overlay networks, too.
        let Some(free) = room.mesh else { return Err(NoNetwork::Part) };
        if room.node.data_address().is_none() {
            return Err(NoNetwork::DataAddress);
        }
        if self.mesh && free == 0 { Err(NoNetwork::Addresses) } else { Ok(()) }
    }

    /// Whether the board's kernel can enforce the task's limits. A limit of zero is none.
    fn enforced(&self, room: &Room) -> Result<(), Limit> {
        let Limits { memory, cpu, pids } = &self.limits;
        let asked = [
            (Limit::Memory, memory.is_some_and(|limit| !limit.is_zero())),
            (Limit::Cpu, cpu.is_some_and(|limit| !limit.is_zero())),
            (Limit::Pids, pids.is_some_and(|limit| limit > 0)),
        ];
        let broken = asked.iter().find(|(limit, asked)| *asked && no_limit(*limit, &room.node).is_some());
        broken.map_or(Ok(()), |(limit, _)| Err(*limit))
    }

    fn ready(&self, room: &Room) -> Result<(), Refusal> {
        let status = match room.status {
            NodeStatus::Ready => Ok(()),
            NodeStatus::Down => Err(Refusal::Unavailable("down")),
            NodeStatus::Unknown => Err(Refusal::Unavailable("not heard of yet")),
        };
        if !room.node.has_agent() {
            return Err(Refusal::Unavailable("a manager without an agent"));
        }
        match room.node.spec.availability {
            Availability::Active => status,
            Availability::Pause => status.and(Err(Refusal::Unavailable("paused"))),
            Availability::Drain => status.and(Err(Refusal::Unavailable("drained"))),
        }
    }

    fn resources(&self, room: &Room) -> Result<(), Refusal> {
        let about = &room.node.description;
        let (want, free) = (self.reservations, room.free);
        if want.cpu > free.cpu {
            return Err(Refusal::Cpu(want.cpu - free.cpu));
        }
        if want.memory > free.memory {
            return Err(Refusal::Memory(want.memory - free.memory));
        }
        for (place, (kind, &want)) in self.generic.iter().enumerate() {
            let free = generic::count(&room.generic, kind);
            if want > free {
                return Err(Refusal::Generic(place, want - free));
            }
        }
        if self.limits.cpu.is_some_and(|limit| limit > about.cpus) {
            return Err(Refusal::CpuLimit(about.cpus));
        }
        if self.limits.memory.is_some_and(|limit| limit > about.memory) {
            return Err(Refusal::MemoryLimit(about.memory));
        }
        // A board that does not say how many tasks it holds has no limit.
        if about.tasks_max > 0 && room.held >= about.tasks_max {
            return Err(Refusal::Full(about.tasks_max));
        }
        Ok(())
    }
}

/// The ports that a task with this spec publishes on its board.
fn numbers(spec: &TaskSpec) -> impl Iterator<Item = (Protocol, u16)> {
    host_ports(spec).map(|port| (port.protocol, port.published))
}

/// Whether the node's userland runs one of the image's platforms. Nothing known on either side: it does.
fn platform_fits(image: &[Platform], node: &[Platform]) -> bool {
    let pairs = |a: &Platform| node.iter().any(|b| runs(a, b));
    image.is_empty() || node.is_empty() || image.iter().any(pairs)
}

/// Whether a node's platform runs an image's. An empty field of the image is any.
fn runs(image: &Platform, node: &Platform) -> bool {
    let same = |want: &str, have: &str| want.is_empty() || want.eq_ignore_ascii_case(have);
    let architecture = go_spelling(&image.architecture);
    // A missing variant of the node means the architecture's first.
    let first = match architecture {
        "arm64" => "v8",
        "amd64" => "v1",
        _ => "",
    };
    let have = if node.variant.is_empty() { first } else { &node.variant };
    same(&image.os, &node.os) && same(architecture, go_spelling(&node.architecture)) && same(&image.variant, have)
}

fn go_spelling(architecture: &str) -> &str {
    match architecture {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Refusals of many nodes, for one sentence.
#[derive(Default)]
pub(super) struct Refusals {
    /// Phrase of Docker's, and how many nodes.
    parts: BTreeMap<Phrase, (u32, Vec<Refusal>)>,
    /// Why nodes cannot give a task its networks, and how many.
    networks: BTreeMap<String, u32>,
    /// Why nodes cannot enforce a task's limits, and how many.
    limits: BTreeMap<String, u32>,
}

/// The filters as Docker names their refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phrase {
    Unavailable,
    Resources,
    Limits,
    Network,
    Constraint,
    Platform,
    Port,
    Replicas,
}

impl Refusals {
    pub(super) fn add(&mut self, refusal: Refusal, node: &Node) {
        if let Refusal::Network(why) = refusal {
            *self.networks.entry(no_network(why, node)).or_default() += 1;
        }
        if let Refusal::Unlimited(limit) = refusal {
            *self.limits.entry(no_limit(limit, node).cloned().unwrap_or_default()).or_default() += 1;
        }
        let phrase = match refusal {
            Refusal::Unavailable(_) => Phrase::Unavailable,
            Refusal::Cpu(_)
            | Refusal::Memory(_)
            | Refusal::Generic(..)
            | Refusal::CpuLimit(_)
            | Refusal::MemoryLimit(_)
            | Refusal::Full(_) => Phrase::Resources,
            Refusal::Unlimited(_) => Phrase::Limits,
            Refusal::Network(_) => Phrase::Network,
            Refusal::Constraint => Phrase::Constraint,
            Refusal::Platform => Phrase::Platform,
            Refusal::Port => Phrase::Port,
            Refusal::Replicas => Phrase::Replicas,
        };
        let (count, all) = self.parts.entry(phrase).or_default();
        *count += 1;
        all.push(refusal);
    }

    /// Docker's phrases, most nodes first, each with what we know beyond it.
    pub(super) fn text(&self, spec: &TaskSpec) -> String {
        let mut parts: Vec<_> = self.parts.iter().collect();
        parts.sort_by_key(|(phrase, (count, _))| (std::cmp::Reverse(*count), **phrase));
        let texts = parts.into_iter().map(|(phrase, (count, all))| {
            let nodes = if *count == 1 { "1 node".to_owned() } else { format!("{count} nodes") };
            match phrase {
                Phrase::Unavailable => format!("{nodes} not available for new tasks: {}", unavailable(all)),
                Phrase::Resources => {
                    format!("insufficient resources on {nodes}: {}", shortage(all, &spec.resources.generic))
                }
                Phrase::Limits => format!("limits not available on {nodes}: {}", counted(&self.limits)),
                Phrase::Network => format!("networks not available on {nodes}: {}", counted(&self.networks)),
                Phrase::Constraint => {
                    format!(
                        "scheduling constraints not satisfied on {nodes}: {}",
                        spec.placement.constraints.join(", ")
                    )
                }
                Phrase::Platform => format!("unsupported platform on {nodes}"),
                Phrase::Port => format!("host-mode port already in use on {nodes}"),
                Phrase::Replicas => "max replicas per node limit exceed".to_owned(),
            }
        });
        texts.collect::<Vec<_>>().join("; ")
    }
}

/// `1 down, 2 drained`; without the number if there is but one node.
fn unavailable(all: &[Refusal]) -> String {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for refusal in all {
        if let Refusal::Unavailable(why) = refusal {
            *counts.entry(why).or_default() += 1;
        }
    }
    counted(&counts)
}

fn counted<T: std::fmt::Display>(counts: &BTreeMap<T, u32>) -> String {
    let one = counts.values().sum::<u32>() == 1;
    let texts = counts.iter().map(|(why, count)| if one { why.to_string() } else { format!("{count} {why}") });
    texts.collect::<Vec<_>>().join(", ")
}

/// Why the node cannot enforce it; none: it can.
fn no_limit(limit: Limit, node: &Node) -> Option<&String> {
    let about = &node.description;
    match limit {
        Limit::Memory => about.no_memory_limits.as_ref(),
        Limit::Cpu => about.no_cpu_limits.as_ref(),
        Limit::Pids => about.no_pids_limits.as_ref(),
    }
}

fn no_network(why: NoNetwork, node: &Node) -> String {
    let about = &node.description;
    let said = |text: &Option<String>| text.clone().unwrap_or_default();
    match why {
        NoNetwork::Any => said(&about.no_network),
        NoNetwork::Encryption => format!("it cannot encrypt: {}", said(&about.no_encryption)),
        NoNetwork::Part => NO_PART.to_owned(),
        NoNetwork::DataAddress => NO_DATA_ADDRESS.to_owned(),
        NoNetwork::Addresses => "all addresses of its part of the mesh are in use".to_owned(),
    }
}

/// The smallest shortage of each kind: what would have to be freed.
fn shortage(all: &[Refusal], asked: &generic::Ask) -> String {
    let least = |pick: fn(&Refusal) -> Option<String>| {
        let mut sorted = all.to_vec();
        sorted.sort_unstable();
        sorted.iter().find_map(pick)
    };
    let most = |pick: fn(&Refusal) -> Option<String>| {
        let mut sorted = all.to_vec();
        sorted.sort_unstable();
        sorted.iter().rev().find_map(pick)
    };
    let texts = [
        least(|r| if let Refusal::Cpu(by) = r { Some(format!("CPU short by {by}")) } else { None }),
        least(|r| if let Refusal::Memory(by) = r { Some(format!("memory short by {by}")) } else { None }),
        most(|r| if let Refusal::CpuLimit(has) = r { Some(format!("CPU limit above the {has} it has")) } else { None }),
        most(|r| {
            if let Refusal::MemoryLimit(has) = r { Some(format!("memory limit above the {has} it has")) } else { None }
        }),
        most(|r| if let Refusal::Full(max) = r { Some(format!("its {max} places are taken")) } else { None }),
    ];
    let generic = asked.keys().enumerate().filter_map(|(place, kind)| {
        let by = |refusal: &Refusal| {
            if let Refusal::Generic(other, by) = refusal { Some(*by).filter(|_| *other == place) } else { None }
        };
        all.iter().filter_map(by).min().map(|by| format!("{kind} short by {by}"))
    });
    texts.into_iter().flatten().chain(generic).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use racimo_common::object::NodeDescription;

    use super::*;
    use crate::store::testing::{applied, new_node, node};

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Platform { os: next(), architecture: next(), variant: next() }
    }

    #[track_caller]
    fn check_platform(image: &[&str], node: &[&str], want: bool) {
        let read = |texts: &[&str]| texts.iter().map(|t| platform(t)).collect::<Vec<_>>();
        assert_eq!(platform_fits(&read(image), &read(node)), want, "{image:?} on {node:?}");
    }

    #[test]
    fn platforms() {
        let pi = &["linux/arm64/v8", "linux/arm/v7", "linux/arm/v6"];
        check_platform(&[], pi, true);
        check_platform(&["linux/amd64"], &[], true);
        check_platform(&["linux/amd64"], pi, false);
        check_platform(&["linux/arm64"], pi, true);
        check_platform(&["linux/aarch64"], pi, true);
        check_platform(&["linux/arm64/v8"], &["linux/arm64"], true);
        check_platform(&["linux/arm64/v9"], &["linux/arm64"], false);
        check_platform(&["linux/arm/v6"], pi, true);
        check_platform(&["linux/arm/v5"], pi, false);
        check_platform(&["linux/arm"], &["linux/arm/v7"], true);
        check_platform(&["windows/amd64", "linux/amd64"], &["linux/amd64"], true);
        check_platform(&["linux/"], &["linux/riscv64"], true);
        check_platform(&["linux/x86_64"], &["linux/amd64"], true);
        check_platform(&["linux/arm/v7"], &["linux/arm/v6"], false);
    }

    #[track_caller]
    fn check_text(refusals: &[Refusal], want: &str) {
        let mut all = Refusals::default();
        let about = NodeDescription {
            no_network: Some("no vxlan".to_owned()),
            no_memory_limits: Some("the controller is off".to_owned()),
            ..NodeDescription::default()
        };
        let node = Node {
            description: about.into(),
            ..applied(&State::default(), vec![new_node(1)]).node(node(1)).expect("a node").as_ref().clone()
        };
        refusals.iter().for_each(|refusal| all.add(*refusal, &node));
        let mut spec = TaskSpec::default();
        spec.placement.constraints = vec!["node.labels.zone == a".to_owned()];
        spec.resources.generic = [("gpio".to_owned(), 3), ("modem".to_owned(), 1)].into();
        assert_eq!(all.text(&spec), want);
    }

    #[test]
    fn reasons() {
        use Refusal::{Constraint, Cpu, CpuLimit, Full, Memory, MemoryLimit, Replicas, Unavailable};
        check_text(&[], "");
        check_text(
            &[Memory(Bytes::mib(90)), Unavailable("down"), Memory(Bytes::mib(40))],
            "insufficient resources on 2 nodes: memory short by 40MiB; 1 node not available for new tasks: down",
        );
        check_text(
            &[Unavailable("down"), Unavailable("drained"), Unavailable("down"), Constraint],
            "3 nodes not available for new tasks: 2 down, 1 drained; \
             scheduling constraints not satisfied on 1 node: node.labels.zone == a",
        );
        check_text(
            &[Cpu(NanoCpus::new(500_000_000)), Full(16), CpuLimit(NanoCpus::new(1_000_000_000))],
            "insufficient resources on 3 nodes: CPU short by 0.5, CPU limit above the 1 it has, its 16 places are taken",
        );
        check_text(
            &[MemoryLimit(Bytes::mib(512)), Refusal::Platform, Refusal::Platform],
            "unsupported platform on 2 nodes; \
             insufficient resources on 1 node: memory limit above the 512MiB it has",
        );
        check_text(
            &[Refusal::Generic(0, 2), Refusal::Generic(1, 1), Refusal::Generic(0, 3)],
            "insufficient resources on 3 nodes: gpio short by 2, modem short by 1",
        );
        check_text(&[Replicas, Replicas], "max replicas per node limit exceed");
        check_text(&[Refusal::Port, Refusal::Port], "host-mode port already in use on 2 nodes");
        let memory = Refusal::Unlimited(Limit::Memory);
        check_text(&[memory], "limits not available on 1 node: the controller is off");
        check_text(&[memory, memory], "limits not available on 2 nodes: 2 the controller is off");
        check_text(&[Refusal::Network(NoNetwork::Any)], "networks not available on 1 node: no vxlan");
        let (part, any) = (Refusal::Network(NoNetwork::Part), Refusal::Network(NoNetwork::Any));
        check_text(
            &[part, part, any, Refusal::Port],
            "networks not available on 3 nodes: 1 no vxlan, 2 the mesh has no part left for it; \
             host-mode port already in use on 1 node",
        );
    }
}
