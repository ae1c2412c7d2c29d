//! Looks what is there of what was told. Only listings, no changes: a few requests.

use std::collections::BTreeSet;
use std::fs;

use racimo_common::id::TaskId;

use super::host::Host;
use super::overlays::Overlays;
use super::rules;
use super::{Fault, Kernel, doing};
use crate::net::netlink::route::{MAIN, OURS, RouteEntry};
use crate::net::plan::missing::Found;
use crate::net::plan::{LEG_PREFIX, MESH_LINK};

/// In the namespace of the calling thread, which is the board's.
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

impl Kernel {
    /// What there is of ours.
    ///
    /// # Errors
    /// A listing failed.
    pub fn look(&mut self) -> Result<Found, Fault> {
        let mut found = self.host.look()?;
        if let Some(overlays) = &mut self.overlays {
            found.overlays = overlays.look()?;
        }
        Ok(found)
    }

    /// Whether a task was told of.
    pub fn is_made(&self, task: TaskId) -> bool {
        self.tasks.contains_key(&task)
    }
}

impl Host {
    fn look(&mut self) -> Result<Found, Fault> {
        let mut found = Found {
            // A kernel where it cannot be read was told of as a failure.
            forwards: !fs::read(FORWARD).is_ok_and(|value| value.trim_ascii() == b"0"),
            ..Found::default()
        };
        let mesh = self.mesh;
        for link in self.route.links().map_err(doing("list links"))? {
            let is_ours = link.name.starts_with(LEG_PREFIX) || (&*link.name == MESH_LINK && Some(link.index) == mesh);
            if is_ours && link.up {
                found.links.insert(link.name);
            }
        }
        let addresses = self.route.addresses().map_err(doing("list addresses"))?;
        found.addresses =
            addresses.iter().filter(|entry| Some(entry.link) == mesh).map(|entry| entry.address).collect();
        let ours = |route: &RouteEntry| route.protocol == OURS;
        let routes = self.route.routes(ours).map_err(doing("list routes"))?;
        found.routes = routes.iter().filter(|route| route.table == MAIN).map(|route| route.to).collect();
        let tables: BTreeSet<u32> = routes.iter().map(|route| route.table).collect();
        let rules = self.our_rules()?.into_iter().filter(|rule| tables.contains(&rule.table));
        found.origins = rules.map(|rule| rule.mark).collect();
        if mesh.is_some() {
            let neighbours = self.route.neighbours(mesh).map_err(doing("list neighbours"))?;
            found.neighbours = neighbours.iter().map(|entry| entry.address).collect();
        }
        rules::look(&mut self.nft, &mut found)?;
        Ok(found)
    }
}

impl Overlays {
    fn look(&mut self) -> Result<BTreeSet<Box<str>>, Fault> {
        let links = self.route.links().map_err(doing("list links"))?;
        Ok(links.into_iter().filter(|link| link.up).map(|link| link.name).collect())
    }
}
