//! The board's network: what the manager tells about it, and what the kernel is made to do.
//!
//! ```text
//! Net ─▶ table ─┐
//! Work.net ─────┴▶ plan (pure) ─▶ kernel (netlink: links, routes, nf_tables, conntrack)
//!               └▶ dns (names of a task's networks)
//! ```

pub mod dns;
pub mod firewall;
pub mod host;
pub mod netlink;
pub mod ns;
pub mod plan;
pub mod ports;
pub mod probe;
pub mod table;
pub mod wireguard;
