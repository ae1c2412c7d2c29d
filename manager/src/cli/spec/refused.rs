//! Docker's flags that Racimo does not have: named, so that the refusal can say why.

use std::convert::Infallible;

use clap::Args;

/// Flags of `service create`.
#[derive(Args, Debug, Default)]
pub(crate) struct RefusedCreate {
    /// Refused
    #[arg(long, hide = true, value_name = "SPEC", value_parser = credential_spec)]
    credential_spec: Option<Infallible>,
    /// Refused
    #[arg(short, long, hide = true, value_name = "PORT", value_parser = publish)]
    publish: Option<Infallible>,
}

/// Flags of `service update`.
#[derive(Args, Debug, Default, PartialEq)]
pub(crate) struct RefusedUpdate {
    /// Refused
    #[arg(long, hide = true, value_name = "SPEC", value_parser = credential_spec)]
    credential_spec: Option<Infallible>,
    /// Refused
    #[arg(long, hide = true, value_name = "PORT", value_parser = publish)]
    publish_add: Option<Infallible>,
    /// Refused
    #[arg(long, hide = true, value_name = "PORT", value_parser = publish)]
    publish_rm: Option<Infallible>,
}

/// Flags of docker's `swarm update`.
#[derive(Args, Debug, Default)]
pub(crate) struct RefusedCluster {
    /// Refused
    #[arg(long, hide = true, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = autolock)]
    autolock: Option<Infallible>,
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

fn autolock(_: &str) -> Result<Infallible, String> {
    Err("managers are not locked; the mode of the data directory protects their keys".to_owned())
}

fn external_ca(_: &str) -> Result<Infallible, String> {
    Err("the manager signs the certificates of its boards itself".to_owned())
}

fn snapshots(_: &str) -> Result<Infallible, String> {
    Err("the manager keeps one snapshot, and writes it when its log has grown".to_owned())
}

fn credential_spec(_: &str) -> Result<Infallible, String> {
    Err("credential specs are for Windows; boards run Linux".to_owned())
}

fn publish(_: &str) -> Result<Infallible, String> {
    Err("published ports are not supported yet; --network host gives tasks the board's own ports".to_owned())
}
