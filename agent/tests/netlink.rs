//! Netlink against the real kernel, in network namespaces of these tests' own. They need root: `make test-root`.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "netlink/support.rs"]
mod support;

#[path = "netlink/connections.rs"]
mod connections;
#[path = "netlink/namespaces.rs"]
mod namespaces;
#[path = "netlink/routes.rs"]
mod routes;
#[path = "netlink/rules.rs"]
mod rules;
