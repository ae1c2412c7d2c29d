//! Containers: everything that is done through containerd.
//!
//! ```text
//! task ─▶ container (create · start · kill · delete · list) ─▶ ctrd ─▶ containerd
//!          └─ spec (pure: what the container may see and use)
//! containerd ─▶ events ─▶ Exited ─▶ task
//! ```

pub mod cgroup;
pub mod ctrd;
pub mod image;
pub mod mount;
pub mod signal;
pub mod spec;
pub mod user;

pub use image::{Image, RunConfig};

/// containerd namespace that holds all of ours; nothing outside it is ever touched.
pub const NAMESPACE: &str = "racimo";
/// The snapshotter that unpacks images and makes root file systems.
pub const SNAPSHOTTER: &str = "overlayfs";
/// Where Debian's containerd listens.
pub const SOCKET: &str = "/run/containerd/containerd.sock";
