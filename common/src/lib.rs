//! Ids, units, objects and the wire protocol that Racimo's manager and agent share.

pub mod capability;
pub mod config_file;
pub mod durable;
pub mod error;
pub mod id;
pub mod limits;
pub mod logger;
pub mod mdns;
pub mod net;
pub mod object;
pub mod quiet;
pub mod registry;
pub mod signal;
pub mod time;
pub mod tls;
pub mod token;
pub mod units;
pub mod wire;
