//! Docker's flags that Racimo does not have: named, so that the refusal can say why.

use std::convert::Infallible;

use clap::Args;

/// Flags of `service create`.
#[derive(Args, Debug, Default)]
pub(crate) struct RefusedCreate {
    /// Refused
    #[arg(long, hide = true, value_name = "SPEC", value_parser = credential_spec)]
    credential_spec: Option<Infallible>,
}

/// Flags of `service update`.
#[derive(Args, Debug, Default, PartialEq)]
pub(crate) struct RefusedUpdate {
    /// Refused
    #[arg(long, hide = true, value_name = "SPEC", value_parser = credential_spec)]
    credential_spec: Option<Infallible>,
}

/// Flags of docker's `swarm update`.
#[derive(Args, Debug, Default)]
pub(crate) struct RefusedCluster {
    /// Refused
    #[arg(long, hide = true, value_name = "SPEC", value_parser = external_ca)]
    external_ca: Option<Infallible>,
    /// Refused
    #[arg(long, hide = true, value_name = "NUMBER", value_parser = snapshots)]
    max_snapshots: Option<Infallible>,
    /// Refused
    #[arg(long, hide = true, value_name = "NUMBER", value_parser = snapshots)]
    snapshot_interval: Option<Infallible>,
}

/// Flags of docker's `swarm ca`.
#[derive(Args, Debug, Default)]
pub(crate) struct RefusedCa {
    /// Refused
    #[arg(long, hide = true, value_name = "SPEC", value_parser = external_ca)]
    external_ca: Option<Infallible>,
}

/// Flags of docker's `swarm init` alone.
#[derive(Args, Debug, Default)]
pub(crate) struct RefusedInit {
    /// Refused
    #[arg(long, hide = true, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = force_new_cluster)]
    force_new_cluster: Option<Infallible>,
    /// Refused
    #[arg(long, hide = true, value_name = "ADDR", value_parser = data_path_addr)]
    data_path_addr: Option<Infallible>,
}

/// Flags of `network create`.
#[derive(Args, Debug, Default)]
pub(crate) struct RefusedNetwork {
    /// Refused
    #[arg(long, hide = true, value_name = "NETWORK", value_parser = configuration)]
    config_from: Option<Infallible>,
    /// Refused
    #[arg(long, hide = true, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = configuration)]
    config_only: Option<Infallible>,
    /// Refused
    #[arg(long, hide = true, value_name = "KEY=VALUE", value_parser = ipam_opt)]
    ipam_opt: Option<Infallible>,
    /// Refused
    #[arg(long, hide = true, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = family)]
    ipv4: Option<Infallible>,
    /// Refused
    #[arg(long, hide = true, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = family)]
    ipv6: Option<Infallible>,
}

fn external_ca(_: &str) -> Result<Infallible, String> {
    Err("the manager signs the certificates of its boards itself, by its own root or by yours: \
         pi-mgr ca --rotate --ca-cert FILE --ca-key FILE"
        .to_owned())
}

fn snapshots(_: &str) -> Result<Infallible, String> {
    Err("the manager keeps one snapshot, and writes it when its log has grown".to_owned())
}

fn credential_spec(_: &str) -> Result<Infallible, String> {
    Err("credential specs are for Windows; boards run Linux".to_owned())
}

fn force_new_cluster(_: &str) -> Result<Infallible, String> {
    Err("there is one manager, so that there is no quorum to lose; start it on its data directory".to_owned())
}

fn data_path_addr(_: &str) -> Result<Infallible, String> {
    Err("each board has its own: pi-agent run --data-path-addr".to_owned())
}

fn configuration(_: &str) -> Result<Infallible, String> {
    Err("networks are made as a whole; there are none that only hold settings".to_owned())
}

fn ipam_opt(_: &str) -> Result<Infallible, String> {
    Err("the manager hands addresses out itself, and has no options for it".to_owned())
}

fn family(_: &str) -> Result<Infallible, String> {
    Err("overlay networks carry IPv4; published ports answer on IPv6 too".to_owned())
}
