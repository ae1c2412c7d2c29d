//! What [`super::apply`] gives of the network: ports and virtual addresses to services, addresses to tasks, parts of
//! the mesh to nodes.
//!
//! ```text
//! ServiceUpdate ─▶ endpoint: the new spec's · held: what the spec before had, if the update may go back by itself
//!   ├─ Completed, Paused, ServiceSettle (it never began) ─▶ held: none
//!   └─ ServiceRollback   ─▶ endpoint: what was held · held: none
//! ```

use std::net::Ipv4Addr;
use std::sync::Arc;

use racimo_common::id::{NetworkId, NodeId, ServiceId, TaskId};
use racimo_common::object::{Desired, EndpointMode, HostPort};

use super::apply::{Step, not_found};
use super::change::Refusal;
use super::object::{Addresses, Endpoint, FailureAction, Node, Service, ServiceSpec, Task, TaskSpec};
use crate::allocator::{BadPorts, Holder, Usage, host_ports};

impl Step {
    /// Gives a service what this spec needs; what it had `earlier` comes back, and is given again first. `hold` is
    /// kept beside.
    pub(super) fn give_endpoint(
        &mut self,
        id: ServiceId,
        spec: &TaskSpec,
        earlier: &[Option<&Endpoint>],
        hold: Option<&Endpoint>,
    ) -> Result<Endpoint, Refusal> {
        let earlier: Vec<&Endpoint> = earlier.iter().flatten().copied().collect();
        let ledger = &mut self.state.ledger;
        earlier.iter().for_each(|endpoint| ledger.give_back_endpoint(id, endpoint));
        hold.into_iter().for_each(|endpoint| ledger.note_endpoint(id, endpoint));
        let had: Vec<_> = earlier.iter().map(|endpoint| &*endpoint.ports).collect();
        let ports = ledger.ports.give(id, &spec.endpoint, &had).map_err(|bad| self.bad_ports(bad))?;
        let mut vips: Vec<(NetworkId, Ipv4Addr)> = Vec::new();
        if spec.endpoint.mode == EndpointMode::Vip {
            for network in spec.networks.iter().map(|attachment| attachment.network) {
                let had =
                    |endpoint: &&Endpoint| endpoint.vips.iter().find(|(of, _)| *of == network).map(|(_, vip)| *vip);
                let vip = match earlier.iter().find_map(had) {
                    Some(vip) => vip,
                    None => self.take_address(network)?,
                };
                self.state.ledger.note(Holder::Network(network), vip);
                vips.push((network, vip));
            }
        }
        Ok(Endpoint { ports, vips })
    }

    /// With the name of the service that is in the way.
    fn bad_ports(&self, bad: BadPorts) -> Refusal {
        match bad {
            BadPorts::Taken { port, by, mode } => {
                let name = self.state.services.get(&by).map(|service| service.spec.name.clone()).unwrap_or_default();
                Refusal::PortTaken { port, name, by, mode }
            }
            BadPorts::Twice | BadPorts::Dnsrr | BadPorts::Exhausted => Refusal::BadPorts(bad),
        }
    }

    /// Whether the updater may go back to the service's present spec: it has tasks of it to replace.
    pub(super) fn may_go_back(&self, service: &Service, new: &ServiceSpec) -> bool {
        let rolls_back = new.update.unwrap_or_default().failure_action() == FailureAction::Rollback;
        let wanted = |task: &Arc<Task>| task.ended.is_none() && task.desired <= Desired::Running;
        rolls_back
            && !new.mode.is_job()
            && new.task != service.spec.task
            && self.state.tasks_of_service(service.id).any(wanted)
    }

    /// An update that does not go on will not go back by itself: what was held for that comes back.
    pub(super) fn settle(&mut self, service: Service) -> Service {
        if let Some(held) = &service.held {
            self.state.ledger.give_back_endpoint(service.id, held);
            self.state.ledger.note_endpoint(service.id, &service.endpoint);
        }
        Service { held: None, ..service }
    }

    /// The addresses of a task with this spec on this node.
    pub(super) fn give_addresses(&mut self, id: TaskId, spec: &TaskSpec, node: &Node) -> Result<Addresses, Refusal> {
        let needs_mesh = self.state.needs_mesh(spec);
        let part = if needs_mesh || !spec.networks.is_empty() {
            if node.description.no_network.is_some() {
                return Err(Refusal::NodeUnfit(node.id, "it cannot give tasks a network"));
            }
            // Overlay networks go between the boards as the mesh does.
            let mesh = self.state.ingress().ok_or(Refusal::TaskMoved(id, "there is no ingress network"))?;
            let part = node.mesh.ok_or(Refusal::NodeUnfit(node.id, "it has no part of the mesh"))?;
            if node.data_address().is_none() {
                return Err(Refusal::NodeUnfit(node.id, "it has no IPv4 address among the boards"));
            }
            needs_mesh.then(|| (mesh.spec.name.clone(), part))
        } else {
            None
        };
        let wanted: Vec<HostPort> = host_ports(spec).collect();
        if !wanted.is_empty() && self.state.tasks_on_node(node.id).any(|task| task.id != id && clashes(&wanted, task)) {
            return Err(Refusal::NodeUnfit(node.id, "its ports are taken"));
        }
        let mut addresses = Addresses::default();
        if let Some((name, subnet)) = part {
            let address = self.state.ledger.take(Holder::Node(node.id));
            addresses.mesh = Some(address.ok_or_else(|| {
                let usage = self.state.ledger.usage(Holder::Node(node.id)).unwrap_or(Usage { used: 0, all: 0 });
                Refusal::NoAddress { name, subnet, usage }
            })?);
        }
        for network in spec.networks.iter().map(|attachment| attachment.network) {
            let encrypted = self.state.network(network).is_some_and(|network| network.spec.encrypted);
            if encrypted && node.description.no_encryption.is_some() {
                return Err(Refusal::NodeUnfit(node.id, "it cannot encrypt networks"));
            }
            addresses.networks.push((network, self.take_address(network)?));
        }
        Ok(addresses)
    }

    fn take_address(&mut self, id: NetworkId) -> Result<Ipv4Addr, Refusal> {
        let address = self.state.ledger.take(Holder::Network(id));
        address.ok_or_else(|| match (self.state.networks.get(&id), self.state.ledger.usage(Holder::Network(id))) {
            (Some(network), Some(usage)) => {
                Refusal::NoAddress { name: network.spec.name.clone(), subnet: network.subnet, usage }
            }
            (Some(_), None) | (None, _) => not_found("network", id),
        })
    }

    /// Gives parts of the mesh to the nodes that have none, as far as there are any.
    pub(super) fn give_parts(&mut self) {
        let without: Vec<NodeId> =
            self.state.nodes.values().filter(|node| node.mesh.is_none()).map(|node| node.id).collect();
        for id in without {
            let Some(node) = self.state.nodes.get(&id).cloned() else { continue };
            let Some(part) = self.state.ledger.take_part(id) else { return };
            self.put_node(Node { mesh: Some(part), ..Arc::unwrap_or_clone(node) });
        }
    }

    /// Takes every node's part of the mesh away.
    pub(super) fn take_parts(&mut self) {
        let with: Vec<Arc<Node>> = self.state.nodes.values().filter(|node| node.mesh.is_some()).cloned().collect();
        for node in with {
            if let Some(part) = node.mesh {
                self.state.ledger.close_part(node.id, part);
            }
            self.put_node(Node { mesh: None, ..Arc::unwrap_or_clone(node) });
        }
    }
}

/// Whether the task, which has not ended, has one of the ports.
fn clashes(wanted: &[HostPort], task: &Task) -> bool {
    let is_wanted = |port: HostPort| {
        wanted.iter().any(|other| (port.protocol, port.published) == (other.protocol, other.published))
    };
    task.ended.is_none() && host_ports(&task.spec).any(is_wanted)
}
