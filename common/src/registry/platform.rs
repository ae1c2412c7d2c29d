//! Platforms images are made for.

use serde::{Deserialize, Serialize};

/// `os/architecture[/variant]` in Go's spelling: `linux/arm/v7`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, `arm`, …
    pub architecture: String,
    /// `v8`, `v7`, …; empty if the architecture has none.
    pub variant: String,
}
