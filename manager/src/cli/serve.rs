//! Flags of `pi-mgr serve`, as the user wrote them; the daemon judges them.

use std::path::PathBuf;

use clap::Args;

/// How to run the manager. A flag beats its environment variable, which beats the configuration
/// file.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// Directory of the manager's data
    #[arg(long, value_name = "DIR", env = "RACIMO_DATA_DIR", default_value = "/var/lib/racimo/manager")]
    pub data_dir: PathBuf,
    /// Where to serve the API: unix://PATH or tcp://ADDRESS:PORT (repeatable)
    #[arg(long, value_name = "URL")]
    pub api: Vec<String>,
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/racimo/manager.toml")]
    pub config: PathBuf,
    /// Group that may use the API's unix socket
    #[arg(long, value_name = "GROUP", default_value = "racimo")]
    pub socket_group: String,
    /// Registry to talk to without certificate checks (repeatable)
    #[arg(long, value_name = "HOST[:PORT]")]
    pub insecure_registry: Vec<String>,
    /// Mirror to ask before Docker Hub (repeatable)
    #[arg(long, value_name = "URL")]
    pub registry_mirror: Vec<String>,
    /// What to log: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: String,
}
