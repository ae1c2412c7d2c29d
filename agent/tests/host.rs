//! What a board has beside Racimo: programs with ports, other firewalls, IPv6. In network namespaces of these tests'
//! own, which need root: `make test-root`.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "netlink/support.rs"]
mod support;

#[path = "host/firewall.rs"]
mod firewall;
#[path = "host/ports.rs"]
mod ports;
#[path = "host/probe.rs"]
mod probe;
