//! Nodes, both ways.

use std::collections::BTreeMap;

use bollard_stubs::models::{
    EngineDescription, EngineDescriptionPlugins, ManagerStatus, Node as NodeModel, NodeDescription as DescriptionModel,
    NodeSpec as SpecModel, NodeSpecAvailabilityEnum, NodeSpecRoleEnum, NodeState, NodeStatus as StatusModel,
    Platform as PlatformModel, Reachability, ResourceObject, TlsInfo,
};
use racimo_common::id::NodeId;
use racimo_common::object::{Availability, NodeDescription, Role};
use racimo_common::registry::platform;
use serde_json::Value;

use super::{board, generic, json, map, some_map, time, tls, version};
use crate::allocator::{NO_DATA_ADDRESS, NO_PART};
use crate::api::error::{ApiError, Code};
use crate::api::fields::Fields;
use crate::store::{Node, NodeSpec, NodeStatus, View};

/// What every node of one answer shares.
pub struct Shared {
    roots: Option<tls::Roots>,
    manager_addr: Option<String>,
    leader: Option<NodeId>,
}

impl Shared {
    /// `leader` is this manager's own node, if it is in the cluster.
    pub fn of(view: &View, leader: Option<NodeId>) -> Self {
        let cluster = view.state.cluster();
        Self {
            roots: cluster.map(|cluster| tls::Roots::of(cluster)),
            manager_addr: cluster.and_then(|c| c.managers.first().cloned()),
            leader,
        }
    }

    /// A node as `GET /nodes/{id}` shows it.
    pub fn node(&self, view: &View, node: &Node) -> Value {
        let status = view.node_status(node);
        let health = view.seen.health(node.id);
        let mut labels = engine_labels(&node.description);
        let is_there = status == NodeStatus::Ready;
        labels.extend(
            board::labels(&node.description, is_there, health).into_iter().map(|(key, value)| (key.to_owned(), value)),
        );
        let model = NodeModel {
            id: Some(node.id.to_string()),
            version: version(node.meta.version),
            created_at: Some(time(node.meta.created)),
            updated_at: Some(time(node.meta.updated)),
            spec: Some(SpecModel {
                name: node.spec.name.clone(),
                labels: map(&node.spec.labels),
                role: Some(match node.role {
                    Role::Worker => NodeSpecRoleEnum::WORKER,
                    Role::Manager => NodeSpecRoleEnum::MANAGER,
                }),
                availability: Some(match node.spec.availability {
                    Availability::Active => NodeSpecAvailabilityEnum::ACTIVE,
                    Availability::Pause => NodeSpecAvailabilityEnum::PAUSE,
                    Availability::Drain => NodeSpecAvailabilityEnum::DRAIN,
                }),
            }),
            description: Some(description(&node.description, &labels, self.tls(node))),
            status: Some(StatusModel {
                state: Some(match status {
                    NodeStatus::Unknown => NodeState::UNKNOWN,
                    NodeStatus::Down => NodeState::DOWN,
                    NodeStatus::Ready => NodeState::READY,
                }),
                message: message(view, node),
                addr: Some(host(&node.addr).to_owned()),
            }),
            manager_status: match node.role {
                Role::Worker => None,
                Role::Manager => Some(self.manager(node)),
            },
        };
        let mut value = json(&model);
        generic::put(&mut value, "/Description/Resources", generic::list(&node.description.generic));
        value
    }

    fn manager(&self, node: &Node) -> ManagerStatus {
        if Some(node.id) == self.leader {
            return ManagerStatus {
                leader: Some(true),
                reachability: Some(Reachability::REACHABLE),
                addr: self.manager_addr.clone(),
            };
        }
        ManagerStatus { leader: None, reachability: Some(Reachability::UNKNOWN), addr: Some(node.addr.clone()) }
    }

    fn tls(&self, node: &Node) -> Option<TlsInfo> {
        self.roots.as_ref()?.node(node.trust.as_ref())
    }
}

fn description(
    board: &NodeDescription,
    labels: &BTreeMap<String, String>,
    tls_info: Option<TlsInfo>,
) -> DescriptionModel {
    let plugin =
        |typ: &str, name: &str| EngineDescriptionPlugins { typ: Some(typ.to_owned()), name: Some(name.to_owned()) };
    let network = |name: &str| plugin("Network", name);
    let networks = ["bridge", "host", "null", "overlay"].into_iter();
    let networks = networks.filter(|name| board.no_network.is_none() || ["host", "null"].contains(name));
    DescriptionModel {
        hostname: Some(board.hostname.clone()),
        platform: Some(PlatformModel { architecture: Some(board.machine.clone()), os: Some("linux".to_owned()) }),
        resources: Some(ResourceObject {
            nano_cpus: Some(board.cpus.to_i64()),
            memory_bytes: Some(board.memory.to_i64()),
            generic_resources: None,
        }),
        engine: Some(EngineDescription {
            engine_version: Some(board.agent_version.clone()),
            labels: some_map(labels),
            plugins: Some(networks.map(network).chain([plugin("Volume", "local")]).collect()),
        }),
        tls_info,
    }
}

/// The board's labels, and what Docker's API has no place for.
fn engine_labels(board: &NodeDescription) -> BTreeMap<String, String> {
    let mut labels = board.labels.clone();
    let platforms = if board.platforms.is_empty() { String::new() } else { platform::list(&board.platforms) };
    let tasks_max = if board.tasks_max == 0 { String::new() } else { board.tasks_max.to_string() };
    let extras = [
        ("io.racimo.platforms", platforms),
        ("io.racimo.kernel", board.kernel.clone()),
        ("io.racimo.os", board.os.clone()),
        ("io.racimo.containerd", board.containerd_version.clone()),
        ("io.racimo.tasks-max", tasks_max),
        ("io.racimo.degraded", board.degraded.join("; ")),
        ("io.racimo.no-network", board.no_network.clone().unwrap_or_default()),
        ("io.racimo.no-encryption", board.no_encryption.clone().unwrap_or_default()),
        ("io.racimo.no-memory-limits", board.no_memory_limits.clone().unwrap_or_default()),
        ("io.racimo.no-cpu-limits", board.no_cpu_limits.clone().unwrap_or_default()),
        ("io.racimo.no-pids-limits", board.no_pids_limits.clone().unwrap_or_default()),
    ];
    for (key, value) in extras {
        if !value.is_empty() {
            labels.entry(key.to_owned()).or_insert(value);
        }
    }
    labels
}

/// The host of `host:port`, without the brackets of an IPv6 address.
pub fn host(addr: &str) -> &str {
    let host = match addr.rsplit_once(':') {
        Some((host, port))
            if port.bytes().all(|b| b.is_ascii_digit()) && (!host.contains(':') || host.ends_with(']')) =>
        {
            host
        }
        Some(_) | None => addr,
    };
    host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
}

/// Reads a node's new settings.
///
/// # Errors
/// 400 that names the field; a role that is not the node's.
pub fn spec(body: &Value, node: &Node) -> Result<NodeSpec, ApiError> {
    let mut fields = Fields::of("", body)?;
    let role = match fields.text("Role")?.as_deref() {
        Some("worker") => Role::Worker,
        Some("manager") => Role::Manager,
        None => return Err(ApiError::bad_request("invalid Role: expected worker or manager")),
        Some(other) => return Err(ApiError::bad_request(format!("invalid Role: {other:?}"))),
    };
    let availability = match fields.text("Availability")?.as_deref() {
        Some(text) => availability(text)?,
        None => return Err(ApiError::bad_request("invalid Availability: expected active, pause or drain")),
    };
    let spec = NodeSpec { name: fields.text("Name")?, labels: fields.labels("Labels")?, availability };
    fields.done()?;
    match (node.role, role) {
        (Role::Manager, Role::Worker) => {
            Err(ApiError::rpc(Code::FailedPrecondition, "attempting to demote the last manager of the swarm"))
        }
        (Role::Worker, Role::Manager) => Err(ApiError::bad_request(
            "invalid argument: Role: promoting a node is not supported yet: a cluster has one manager",
        )),
        (Role::Worker, Role::Worker) | (Role::Manager, Role::Manager) => Ok(spec),
    }
}

/// Reads an availability.
pub fn availability(text: &str) -> Result<Availability, ApiError> {
    match text {
        "active" => Ok(Availability::Active),
        "pause" => Ok(Availability::Pause),
        "drain" => Ok(Availability::Drain),
        other => {
            Err(ApiError::bad_request(format!("invalid Availability: {other:?}: expected active, pause or drain")))
        }
    }
}

/// Why it is down, why it gets no tasks with a network, or what is wrong with those that it has.
fn message(view: &View, node: &Node) -> Option<String> {
    let down = node.written_off.as_ref().map(|w| w.reason.clone()).filter(|reason| !reason.is_empty());
    let network = || {
        let reason = if node.mesh.is_none() {
            Some(NO_PART.to_owned())
        } else if node.data_address().is_none() {
            Some(NO_DATA_ADDRESS.to_owned())
        } else {
            view.state.hidden_by(node)
        };
        reason.filter(|_| view.state.ingress().is_some() && node.has_agent())
    };
    down.or_else(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (addr, want) in [
            ("10.0.0.1:2377", "10.0.0.1"),
            ("[::1]:80", "::1"),
            ("::1", "::1"),
            ("a", "a"),
            ("", ""),
            ("fe80::1:2", "fe80::1:2"),
        ] {
            assert_eq!(host(addr), want);
        }
    }
}
