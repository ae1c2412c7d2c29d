//! Image registries: names, platforms, manifests and the HTTP client.
//!
//! ```text
//! "nginx" ─▶ Reference ─▶ Registry::resolve    ─▶ digest, platforms      (manager)
//!                     └─▶ Registry::repository ─▶ manifest, blob stream  (agent)
//! ```
//!
//! [`mod@reference`], [`digest`], [`platform`], [`media`] and [`auth`] decide and
//! parse; [`client`], `http` and `roots` do the IO. Nothing is spawned: a
//! connection is driven by whoever polls the request or the body, so that the
//! futures work on any executor and end when they are dropped.

pub mod auth;
pub mod client;
pub mod digest;
pub mod endpoint;
pub mod error;
pub(crate) mod http;
pub mod limits;
pub mod media;
pub mod platform;
pub mod reference;
pub(crate) mod resolve;
pub(crate) mod roots;

pub use auth::Credentials;
pub use client::{Blob, Fetched, Head, Registry, Repository};
pub use digest::{Digest, Hasher};
pub use endpoint::{Config, HostPort, Url};
pub use error::RegistryError;
pub use platform::Platform;
pub use reference::{Reference, ReferenceError};
pub use resolve::Resolved;
