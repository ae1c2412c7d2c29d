//! Who is on a network ─▶ Docker's JSON.

use std::net::Ipv4Addr;
use std::sync::Arc;

use racimo_common::id::NodeId;
use racimo_common::object::{PortMode, TaskState};
use serde_json::{Map, Value, json};

use super::node::host;
use crate::store::{Network, Node, Service, State, Task, View};

/// The boards that a network is on: those with a task there; of the mesh, all that have a part of it.
pub fn peers(state: &State, network: &Network) -> Vec<Value> {
    let is_on = |node: &&Arc<Node>| match network.spec.ingress {
        true => node.mesh.is_some(),
        false => state.tasks_on_node(node.id).any(|task| task.ended.is_none() && address(network, task).is_some()),
    };
    let peer = |node: &Arc<Node>| json!({ "Name": node.description.hostname, "IP": address_of(node) });
    state.nodes().filter(is_on).map(peer).collect()
}

/// The services on a network and their tasks that run there, as `verbose` shows them. On the mesh are those that
/// publish ports on every board.
pub fn services(view: &View, network: &Network) -> Value {
    let on = view.state.services().filter(|service| is_on(network, service));
    let shown: Map<String, Value> = on.map(|s| (s.spec.name.clone(), service(view, network, s))).collect();
    shown.into()
}

fn is_on(network: &Network, service: &Service) -> bool {
    let task = &service.spec.task;
    if network.spec.ingress {
        return task.endpoint.ports.iter().any(|port| port.mode == PortMode::Ingress);
    }
    task.networks.iter().any(|attachment| attachment.network == network.id)
}

fn service(view: &View, network: &Network, service: &Service) -> Value {
    let vip = service.endpoint.vips.iter().find(|(on, _)| *on == network.id).map(|(_, vip)| vip.to_string());
    let published = service.endpoint.ports.iter().filter(|port| network.spec.ingress && port.mode == PortMode::Ingress);
    let ports: Vec<String> =
        published.map(|port| format!("Target: {}, Publish: {}", port.target, port.published)).collect();
    let runs = |task: &&Arc<Task>| view.task_state(task) == TaskState::Running;
    let tasks = view.state.tasks_of_service(service.id).filter(runs).filter_map(|task| {
        Some(json!({
            "Name": task.name(),
            // An endpoint has no id of its own here: it is the task's.
            "EndpointID": task.id.to_string(),
            "EndpointIP": address(network, task)?.to_string(),
            "Info": { "Host IP": task.node.and_then(|node| board(&view.state, node)) },
        }))
    });
    json!({
        "VIP": vip.unwrap_or_default(),
        "Ports": ports,
        // An index in IPVS, which is not used here.
        "LocalLBIndex": 0,
        "Tasks": tasks.collect::<Vec<Value>>(),
    })
}

/// The address that a task has on a network.
fn address(network: &Network, task: &Task) -> Option<Ipv4Addr> {
    if network.spec.ingress {
        return task.addresses.mesh;
    }
    task.addresses.networks.iter().find(|(on, _)| *on == network.id).map(|(_, address)| *address)
}

fn board(state: &State, id: NodeId) -> Option<String> {
    state.node(id).map(|node| address_of(node))
}

/// The address of a board among the boards.
fn address_of(node: &Node) -> String {
    node.data_address().map_or_else(|| host(&node.addr).to_owned(), |address| address.to_string())
}
