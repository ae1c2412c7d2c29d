//! A cluster of real parts, end to end: real agents and manager, containerd, registry and docker CLI (root;
//! `make test-root`).

#[path = "../lab/mod.rs"]
mod lab;

mod cluster;
mod failures;
mod trust;
