//! The daemon's configuration: flags over environment over `/etc/racimo/manager.toml`, read once.
//!
//! All faults are reported together.

use std::path::PathBuf;

use racimo_common::{config_file, registry};
use serde::Deserialize;

use crate::api::listen::Address;
use crate::cli::ServeArgs;

/// Where the configuration file is if nobody says otherwise.
pub const FILE: &str = "/etc/racimo/manager.toml";
/// Where the data is if nobody says otherwise.
const DATA: &str = "/var/lib/racimo/manager";
/// Where the API is served if nobody says otherwise.
pub const API: &str = "unix:///run/racimo/pi-mgr.sock";
/// The directory of that: the only one that is made for a socket.
pub const RUN: &str = "/run/racimo";
/// The local agent's socket, beside the API's.
const AGENT_SOCKET: &str = "agent.sock";

/// How to run the manager.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directory of the manager's data.
    pub data: PathBuf,
    /// Where the API is served.
    pub api: Vec<Address>,
    /// Group that may use the API's unix sockets.
    pub socket_group: String,
    /// Where this board's own agent connects; none: without a unix socket for the API there is no place for it.
    pub agent_socket: Option<PathBuf>,
    /// What boards shall dial, in place of what `init` was told.
    pub advertise: Option<String>,
    /// Whether the manager is announced on the local network.
    pub announce: bool,
    /// Where digests of images are looked up.
    pub registry: registry::Config,
    /// What is logged.
    pub log_level: log::LevelFilter,
}

#[cfg(test)]
impl Config {
    /// For a manager in a test: its data is there, it serves no API and is not announced.
    pub(crate) fn bare(data: &std::path::Path) -> Self {
        Self {
            data: data.to_owned(),
            api: Vec::new(),
            socket_group: String::new(),
            agent_socket: None,
            advertise: None,
            announce: false,
            registry: registry::Config { insecure: Vec::new(), mirrors: Vec::new(), extra_ca: None },
            log_level: log::LevelFilter::Off,
        }
    }
}

/// The file's keys; the same names as the flags.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    data_dir: Option<PathBuf>,
    api: Vec<String>,
    socket_group: Option<String>,
    advertise_addr: Option<String>,
    announce: Option<bool>,
    insecure_registries: Vec<String>,
    registry_mirrors: Vec<String>,
    registry_ca: Option<PathBuf>,
    log_level: Option<String>,
}

impl Config {
    /// Where the manager's data is, as [`Config::resolve`] would say.
    ///
    /// # Errors
    /// Every fault, one a line.
    pub fn data_dir(flag: Option<PathBuf>, file: Option<&std::path::Path>) -> Result<PathBuf, String> {
        let file: File = config_file::read(file, FILE)?;
        absolute(flag.or(file.data_dir))
    }

    /// Reads the file and checks everything.
    ///
    /// # Errors
    /// Every fault, one a line.
    pub fn resolve(args: ServeArgs) -> Result<Self, String> {
        let mut faults = Vec::new();
        let file = config_file::read(args.config.as_deref(), FILE).unwrap_or_else(|fault| {
            faults.push(fault);
            File::default()
        });
        let data = absolute(args.data_dir.or(file.data_dir)).unwrap_or_else(|fault| {
            faults.push(fault);
            PathBuf::new()
        });
        let mut urls = if args.api.is_empty() { file.api } else { args.api };
        if urls.is_empty() {
            urls.push(API.to_owned());
        }
        let api: Vec<Address> = parse_all("api", urls, &mut faults);
        let insecure =
            parse_all("insecure-registry", [file.insecure_registries, args.insecure_registry].concat(), &mut faults);
        let mirrors = parse_all("registry-mirror", [file.registry_mirrors, args.registry_mirror].concat(), &mut faults);
        let level = args.log_level.or(file.log_level).unwrap_or_else(|| "info".to_owned());
        let log_level = level.parse().unwrap_or_else(|_| {
            faults.push(format!("log-level {level:?}: expected error, warn, info, debug or trace"));
            log::LevelFilter::Info
        });
        let socket = api.iter().find_map(|address| match address {
            Address::Unix(path) => path.parent(),
            Address::Tcp(_) | Address::Tls(_) => None,
        });
        let agent_socket = socket.map(|directory| directory.join(AGENT_SOCKET));
        let config = Self {
            data,
            api,
            socket_group: args.socket_group.or(file.socket_group).unwrap_or_else(|| "racimo".to_owned()),
            agent_socket,
            advertise: args.advertise_addr.or(file.advertise_addr).filter(|text| !text.is_empty()),
            announce: args.announce.or(file.announce).unwrap_or(true),
            registry: registry::Config { insecure, mirrors, extra_ca: file.registry_ca },
            log_level,
        };
        if faults.is_empty() { Ok(config) } else { Err(faults.join("\n")) }
    }
}

fn absolute(data: Option<PathBuf>) -> Result<PathBuf, String> {
    let data = data.unwrap_or_else(|| DATA.into());
    if data.is_absolute() { Ok(data) } else { Err(format!("data-dir {:?}: expected an absolute path", data.display())) }
}

fn parse_all<T>(name: &str, texts: Vec<String>, faults: &mut Vec<String>) -> Vec<T>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let mut values = Vec::new();
    for text in texts {
        match text.parse() {
            Ok(value) => values.push(value),
            Err(error) => faults.push(format!("{name} {text:?}: {error}")),
        }
    }
    values
}
