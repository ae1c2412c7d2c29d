//! How a service is reached: its networks with their aliases, its ports, and whose addresses its tasks see.

use std::collections::BTreeSet;

use racimo_common::limits::SERVICE_PORTS_MAX;
use racimo_common::object::{EndpointMode, EndpointSpec, NetworkMode, PortMode};

use super::Invalid;
use crate::limits;
use crate::store::{Attachment, TaskSpec};

/// What a name may have in DNS.
pub(super) const ALIAS_CHARS_MAX: usize = 253;

pub(super) fn networks(networks: &[Attachment]) -> Result<(), Invalid> {
    if networks.len() > limits::SERVICE_NETWORKS_MAX {
        return Err(Invalid::NetworksMax(networks.len()));
    }
    let bytes: usize = networks.iter().flat_map(|attachment| &attachment.aliases).map(String::len).sum();
    if bytes > limits::ALIASES_BYTES_MAX {
        return Err(Invalid::AliasesBytes(bytes));
    }
    for Attachment { aliases, .. } in networks {
        if aliases.len() > limits::ALIASES_MAX {
            return Err(Invalid::AliasesMax(aliases.len()));
        }
        let fits =
            |alias: &str| (1..=ALIAS_CHARS_MAX).contains(&alias.len()) && alias.bytes().all(|b| b.is_ascii_graphic());
        if let Some(bad) = aliases.iter().find(|alias| !fits(alias)) {
            return Err(Invalid::Alias(bad.clone()));
        }
    }
    Ok(())
}

/// SwarmKit's rules and words first.
pub(super) fn endpoint(task: &TaskSpec) -> Result<(), Invalid> {
    let EndpointSpec { mode, ports } = &task.endpoint;
    if ports.len() > SERVICE_PORTS_MAX {
        return Err(Invalid::PortsMax(ports.len()));
    }
    let mut published = BTreeSet::new();
    for port in ports {
        if (*mode, port.mode) == (EndpointMode::Dnsrr, PortMode::Ingress) {
            return Err(Invalid::PortDnsrr);
        }
        if port.published > 0 && !published.insert((port.published, port.protocol)) {
            return Err(Invalid::PortTwice);
        }
        if port.target == 0 {
            return Err(Invalid::PortTarget);
        }
    }
    match task.container.network {
        NetworkMode::Host if !ports.is_empty() => {
            Err(Invalid::PortNetwork("host", "its ports are the board's already"))
        }
        NetworkMode::None if !ports.is_empty() => Err(Invalid::PortNetwork("none", "nothing reaches its ports")),
        NetworkMode::Unset | NetworkMode::Bridge | NetworkMode::Host | NetworkMode::None => Ok(()),
    }
}
