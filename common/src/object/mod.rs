//! Domain objects that manager and agent share.
//!
//! Docker's JSON, these types, and what goes over the wire are three families; this is the middle one.
//! `None` always means "not given": the defaults are in methods, so that a spec can be shown as it was written.

mod container;
mod node;
mod resources;
mod task;

pub use container::{
    BindOptions, ContainerSpec, Mount, MountKind, NetworkMode, Propagation, STOP_GRACE_DEFAULT, TmpfsOptions,
    VolumeOptions,
};
pub use node::{Availability, NodeDescription, Role};
pub use resources::{Limits, Reservations, Resources};
pub use task::{ContainerStatus, Desired, TaskReport, TaskState};
