//! What the network has to give: subnets, addresses, ports, parts of the mesh.
//!
//! Pure functions and persistent collections; [`crate::store`] asks them while it applies a command, so that the same
//! log gives the same addresses everywhere and nothing is given twice. What is given out is never stored by itself:
//! the [`Ledger`] is rebuilt from the objects that hold it, and only where each search goes on ([`Cursors`]) is kept.
//!
//! ```text
//! pools ─▶ a network's subnet ─▶ virtual addresses of services, addresses of tasks
//! mesh  ─▶ a node's part      ─▶ addresses of the node's tasks
//! 30000-32767                 ─▶ published ports that nobody chose
//! ```
//! [`keys`] has the one loop: it turns the keys of encrypted networks.

pub mod keys;
mod ledger;
mod pool;
mod port;
mod ranges;
mod subnet;

pub use ledger::{Cursors, Holder, Ledger};
pub use pool::{Pool, Usage};
pub(crate) use port::how;
pub use port::{BadPorts, Ports};
pub use ranges::Ranges;
pub use subnet::{BadSubnet, MESH_PART_PREFIX, address_of, check_subnet, first_free, mesh};

use racimo_common::id::NetworkId;
use racimo_common::object::{HostPort, NetworkMode, PortMode};

use crate::store::TaskSpec;

/// What is wrong with a node that joined when all parts of the mesh were taken.
pub const NO_PART: &str = "the mesh has no part left for it";
/// What is wrong with a node that other boards cannot reach over IPv4: it joined over IPv6.
pub const NO_DATA_ADDRESS: &str = "no IPv4 address among the boards (`pi-agent run --data-path-addr` gives one)";

/// Whether a task with this spec has an address in its board's part of the mesh: it reaches what is outside its
/// networks, or is reached through published ports.
pub fn needs_mesh(spec: &TaskSpec, is_internal: impl Fn(NetworkId) -> bool) -> bool {
    match spec.container.network {
        NetworkMode::Host | NetworkMode::None => false,
        NetworkMode::Bridge => true,
        NetworkMode::Unset => {
            spec.networks.is_empty()
                || !spec.endpoint.ports.is_empty()
                || spec.networks.iter().any(|attachment| !is_internal(attachment.network))
        }
    }
}

/// The ports of its board that a task with this spec takes; those that each board chooses are not among them.
pub fn host_ports(spec: &TaskSpec) -> impl Iterator<Item = HostPort> {
    let ports = spec.endpoint.ports.iter().filter(|port| port.mode == PortMode::Host && port.published > 0);
    ports.map(|port| HostPort { protocol: port.protocol, published: port.published, target: port.target })
}
