//! Flags of `pi-mgr serve`, as the user wrote them; the daemon judges them.

use std::path::PathBuf;

use clap::Args;

/// How to run the manager. A flag beats its environment variable, which beats the configuration
/// file.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// Directory of the manager's data
    #[arg(
        long,
        value_name = "DIR",
        env = "RACIMO_DATA_DIR",
        help = "Directory of the manager's data [default: /var/lib/racimo/manager]"
    )]
    pub data_dir: Option<PathBuf>,
    /// Where to serve the API: unix://PATH, or tcp://ADDRESS:PORT, which takes certificates unless the
    /// address is this machine's own; tls://ADDRESS:PORT always takes them (repeatable)
    #[arg(long, value_name = "URL", env = "RACIMO_API", value_delimiter = ',')]
    pub api: Vec<String>,
    /// Configuration file
    #[arg(
        long,
        value_name = "FILE",
        env = "RACIMO_CONFIG",
        help = "Configuration file [default: /etc/racimo/manager.toml]"
    )]
    pub config: Option<PathBuf>,
    /// Group that may use the API's unix socket
    #[arg(
        long,
        value_name = "GROUP",
        env = "RACIMO_SOCKET_GROUP",
        help = "Group that may use the API's unix socket [default: racimo]"
    )]
    pub socket_group: Option<String>,
    /// What boards shall dial, in place of what `init` was told: an address, a network interface or a name, and a port
    #[arg(
        long,
        value_name = "ADDR",
        env = "RACIMO_ADVERTISE_ADDR",
        help = "What boards shall dial, in place of what init was told: an address, a network interface or a name [:PORT]"
    )]
    pub advertise_addr: Option<String>,
    /// Whether to announce the manager on the local network
    #[arg(
        long,
        value_name = "BOOL",
        env = "RACIMO_ANNOUNCE",
        help = "Whether to announce the manager on the local network (multicast DNS) [default: true]"
    )]
    pub announce: Option<bool>,
    /// Registry to talk to without certificate checks (repeatable)
    #[arg(long, value_name = "HOST[:PORT]", env = "RACIMO_INSECURE_REGISTRY", value_delimiter = ',')]
    pub insecure_registry: Vec<String>,
    /// Mirror to ask before Docker Hub (repeatable)
    #[arg(long, value_name = "URL", env = "RACIMO_REGISTRY_MIRROR", value_delimiter = ',')]
    pub registry_mirror: Vec<String>,
    /// What to log: error, warn, info, debug or trace
    #[arg(
        long,
        value_name = "LEVEL",
        env = "RACIMO_LOG_LEVEL",
        help = "What to log: error, warn, info, debug or trace [default: info]"
    )]
    pub log_level: Option<String>,
}
