//! What [`super::apply`] does to networks.

use std::net::Ipv4Addr;
use std::sync::Arc;

use racimo_common::id::NetworkId;
use racimo_common::net::{MESH_VNI, Subnet};
use racimo_common::object::{Desired, PortMode};

use super::apply::{Step, not_found};
use super::change::Refusal;
use super::event::Event;
use super::object::{Addresses, Attachment, Endpoint, Network, NetworkSpec, Service, UpdateState};
use crate::allocator::{Ranges, address_of, check_subnet, first_free, mesh};
use crate::limits::NETWORKS_MAX;

impl Step {
    pub(super) fn network_create(&mut self, id: NetworkId, spec: &NetworkSpec) -> Result<(), Refusal> {
        if self.state.networks.contains_key(&id) || self.state.network_named(&spec.name).is_some() {
            return Err(Refusal::NetworkTaken(spec.name.clone()));
        }
        if self.state.networks.len() >= NETWORKS_MAX {
            return Err(Refusal::NetworksMax);
        }
        if let Some(mesh) = self.state.ledger.mesh().filter(|_| spec.ingress) {
            return Err(Refusal::IngressPresent(mesh));
        }
        let subnet = self.choose_subnet(spec)?;
        let gateway = check_subnet(spec, subnet).map_err(Refusal::BadSubnet)?;
        let vni = if spec.ingress { Some(MESH_VNI) } else { self.state.ledger.take_vni() };
        let vni = vni.ok_or(Refusal::NetworksMax)?;
        if spec.encrypted && !self.state.networks.values().any(|network| network.spec.encrypted) {
            // The keys' time begins with their first use.
            let at = self.at;
            self.edit_cluster(|cluster| {
                cluster.keys_rotated = at;
                Ok(())
            })?;
        }
        let network = Arc::new(Network { id, meta: self.new_meta(), spec: spec.clone(), vni, subnet, gateway });
        self.state.ledger.open_network(&network);
        self.state.networks.insert(id, network.clone());
        self.events.push(Event::Network { id, old: None, new: Some(network) });
        if spec.ingress {
            self.give_parts();
        }
        Ok(())
    }

    fn choose_subnet(&self, spec: &NetworkSpec) -> Result<Subnet, Refusal> {
        let cluster = self.state.cluster.as_ref().ok_or(Refusal::NoCluster)?;
        let hosts = self.hosts();
        if let Some(subnet) = spec.subnet {
            let taken = |with: String| Err(Refusal::SubnetTaken { subnet, with });
            if let Some(other) = self.state.networks.values().find(|network| network.subnet.overlaps(subnet)) {
                return taken(format!("network {} ({})", other.spec.name, other.subnet));
            }
            return match hosts.iter().find(|(address, _)| subnet.contains(*address)) {
                Some((address, who)) => taken(format!("{who} ({address})")),
                None => Ok(subnet),
            };
        }
        let mut taken = Ranges::default();
        let networks = self.state.networks.values().map(|network| network.subnet);
        for subnet in networks.chain(hosts.iter().map(|(address, _)| Subnet::of(*address, 32))) {
            taken.insert_span(subnet.address().into(), subnet.broadcast().into());
        }
        let pools = &cluster.net.pools;
        let subnet = if spec.ingress { mesh(pools, &taken) } else { first_free(pools, cluster.net.mask, &taken) };
        subnet.ok_or(Refusal::PoolsExhausted)
    }

    /// The addresses of the machines, and whose they are: no network may have them.
    fn hosts(&self) -> Vec<(Ipv4Addr, String)> {
        let mut hosts = Vec::new();
        let managers = self.state.cluster.iter().flat_map(|cluster| &cluster.managers);
        hosts.extend(managers.filter_map(|text| Some((address_of(text)?, "a manager".to_owned()))));
        for node in self.state.nodes.values() {
            let addresses = [address_of(&node.addr), node.description.data_address];
            let who = || format!("node {}", node.description.hostname);
            hosts.extend(addresses.into_iter().flatten().map(|address| (address, who())));
        }
        hosts
    }

    /// Tasks that are stopping hold nothing: `docker stack rm` removes networks right after their services.
    pub(super) fn network_remove(&mut self, id: NetworkId) -> Result<(), Refusal> {
        let network = self.state.networks.get(&id).cloned().ok_or_else(|| not_found("network", id))?;
        if network.spec.ingress {
            self.mesh_is_unused(id)?;
            self.take_parts();
        }
        let uses = |networks: &[Attachment]| networks.iter().any(|attachment| attachment.network == id);
        let in_use = |kind, by: String| Err(Refusal::NetworkInUse { network: id, kind, by });
        // An update that runs, or is about to, may have to go back.
        let back = |service: &Service| {
            let runs = service.update.as_ref().is_some_and(|update| update.state == UpdateState::Updating);
            let may = runs || service.held.is_some();
            service.previous.as_ref().is_some_and(|spec| may && uses(&spec.task.networks))
        };
        let mut services = self.state.services.values();
        if let Some(service) = services.find(|service| uses(&service.spec.task.networks) || back(service)) {
            return in_use("service", service.id.to_string());
        }
        let holds = |desired: Desired| desired <= Desired::Running;
        let mut live = self.state.tasks.values().filter(|task| task.ended.is_none() && holds(task.desired));
        if let Some(task) = live.find(|task| uses(&task.spec.networks)) {
            return in_use("task", task.id.to_string());
        }
        self.state.ledger.close_network(&network);
        self.state.networks.remove(&id);
        self.events.push(Event::Network { id, old: Some(network), new: None });
        Ok(())
    }

    /// Tasks keep their addresses until they ended; those on overlay networks are the mesh's, too: it leads to them.
    fn mesh_is_unused(&self, id: NetworkId) -> Result<(), Refusal> {
        let publishes = |endpoint: &Endpoint| endpoint.ports.iter().any(|port| port.mode == PortMode::Ingress);
        let mut services = self.state.services.values();
        let using =
            services.find(|service| publishes(&service.endpoint) || service.held.as_ref().is_some_and(publishes));
        if let Some(service) = using {
            return Err(Refusal::IngressInUse(service.id));
        }
        let mut live = self.state.tasks.values().filter(|task| task.ended.is_none());
        match live.find(|task| task.addresses != Addresses::default()) {
            Some(task) => Err(Refusal::NetworkInUse { network: id, kind: "task", by: task.id.to_string() }),
            None => Ok(()),
        }
    }

    /// Refuses attachments to networks that are not there (any more), and to the mesh.
    pub(super) fn networks_exist(&self, attachments: &[Attachment]) -> Result<(), Refusal> {
        for attachment in attachments {
            match self.state.networks.get(&attachment.network) {
                None => return Err(not_found("network", attachment.network)),
                Some(network) if network.spec.ingress => {
                    return Err(Refusal::IngressAttached(network.spec.name.clone()));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}
