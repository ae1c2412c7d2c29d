//! A cluster of real parts, end to end: real agents and manager, containerd, registry and docker CLI (root;
//! `make test-root`).

#[path = "../lab/mod.rs"]
mod lab;

mod access;
mod addresses;
mod autolock;
mod backup;
mod boards;
mod certificates;
mod cli;
mod cluster;
mod container_options;
mod failures;
mod followed;
mod generic;
mod health;
mod host_ports;
mod hostile;
mod identity;
mod images;
mod kills;
mod logs;
mod memory;
mod mesh;
mod names;
mod networks;
mod no_secrets;
mod offline;
mod options;
mod pi_mgr;
mod ports_cli;
mod provision;
mod refusals;
mod rehome;
mod rotation;
mod secrets;
mod service_flags;
mod settings;
mod stacks;
mod support;
mod trust;
mod updates;
