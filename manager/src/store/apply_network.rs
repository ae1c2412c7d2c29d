//! What [`super::apply`] does to networks.

use std::net::Ipv4Addr;
use std::sync::Arc;

use racimo_common::id::NetworkId;
use racimo_common::net::Subnet;
use racimo_common::object::Desired;

use super::apply::{Step, not_found};
use super::change::Refusal;
use super::event::Event;
use super::object::{Attachment, Network, NetworkSpec, Service, UpdateState};
use crate::limits::NETWORKS_MAX;

impl Step {
    pub(super) fn network_create(&mut self, id: NetworkId, spec: &NetworkSpec) -> Result<(), Refusal> {
        if self.state.networks.contains_key(&id) || self.state.network_named(&spec.name).is_some() {
            return Err(Refusal::NetworkTaken(spec.name.clone()));
        }
        if self.state.networks.len() >= NETWORKS_MAX {
            return Err(Refusal::NetworksMax);
        }
        let network = Arc::new(Network {
            id,
            meta: self.new_meta(),
            spec: spec.clone(),
            vni: 0,
            subnet: Subnet::of(Ipv4Addr::UNSPECIFIED, 32),
            gateway: Ipv4Addr::UNSPECIFIED,
        });
        self.state.networks.insert(id, network.clone());
        self.events.push(Event::Network { id, old: None, new: Some(network) });
        Ok(())
    }

    /// Tasks that are stopping hold nothing: `docker stack rm` removes networks right after their services.
    pub(super) fn network_remove(&mut self, id: NetworkId) -> Result<(), Refusal> {
        let network = self.state.networks.get(&id).cloned().ok_or_else(|| not_found("network", id))?;
        let uses = |networks: &[Attachment]| networks.iter().any(|attachment| attachment.network == id);
        let in_use = |kind, by: String| Err(Refusal::NetworkInUse { network: id, kind, by });
        // An update that runs may have to go back.
        let back = |service: &Service| {
            let runs = service.update.as_ref().is_some_and(|update| update.state == UpdateState::Updating);
            service.previous.as_ref().is_some_and(|spec| runs && uses(&spec.task.networks))
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
        self.state.networks.remove(&id);
        self.events.push(Event::Network { id, old: Some(network), new: None });
        Ok(())
    }

    /// Refuses attachments to networks that are not there (any more).
    pub(super) fn networks_exist(&self, attachments: &[Attachment]) -> Result<(), Refusal> {
        match attachments.iter().find(|attachment| !self.state.networks.contains_key(&attachment.network)) {
            Some(attachment) => Err(not_found("network", attachment.network)),
            None => Ok(()),
        }
    }
}
