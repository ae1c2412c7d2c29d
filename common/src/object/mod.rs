//! Domain objects that manager and agent share.
//!
//! Docker's JSON, these types, and what goes over the wire are three families; this is the middle one.
//! `None` always means "not given": the defaults are in methods, so that a spec can be shown as it was written.

mod board;
mod container;
mod generic;
mod log;
mod network;
mod node;
mod resources;
mod task;

pub use board::BoardHealth;
pub use container::{
    BindOptions, ContainerSpec, DnsConfig, FileRef, HealthConfig, ISOLATE_SHIM_LABEL, Mount, MountKind, NetworkMode,
    Privileges, Propagation, STOP_GRACE_DEFAULT, TmpfsOptions, Ulimit, VolumeOptions,
};
pub use generic::{BadGeneric, Generic, Generics, check_kind, generic_variables, parse_generics};
pub use log::{LogAsk, LogConfig, LogEntry, LogStream};
pub use network::{BadProtocol, EndpointMode, EndpointSpec, HostPort, Port, PortMode, Protocol, WireguardKey};
pub use node::{Availability, NodeDescription, Role};
pub use resources::{Limits, Reservations, Resources};
pub use task::{ContainerStatus, Desired, TaskReport, TaskState};
