//! `network create`: flags → the body that Docker's command line sends. Pure.

use std::net::Ipv4Addr;

use clap::Args;
use racimo_common::net::Subnet;
use serde_json::{Map, Value, json};

use super::super::error::CliError;
use super::super::json::set;
use super::super::parse;
use super::super::spec::refused::RefusedNetwork;

/// `network create`.
#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    /// Driver: overlay
    #[arg(short, long, default_value = "overlay")]
    driver: String,
    /// Subnet [default: a free one of the cluster's address pools]
    #[arg(long, value_name = "SUBNET", value_delimiter = ',', value_parser = subnet)]
    subnet: Vec<Subnet>,
    /// Gateway of the subnet [default: its first address]
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    gateway: Vec<Ipv4Addr>,
    /// Part of the subnet that tasks and services get addresses of
    #[arg(long, value_name = "SUBNET", value_delimiter = ',', value_parser = subnet)]
    ip_range: Vec<Subnet>,
    /// Address of the subnet that is in use elsewhere: no task gets it
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = aux_address)]
    aux_address: Vec<(String, Ipv4Addr)>,
    /// No way out: tasks reach only each other
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false,
          default_missing_value = "true")]
    internal: bool,
    /// Containers outside of services may join (there are none here; kept and shown)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false,
          default_missing_value = "true")]
    attachable: bool,
    /// This is the routing mesh, which published ports and ways out use
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false,
          default_missing_value = "true")]
    ingress: bool,
    /// Option of the driver: encrypted, com.docker.network.driver.mtu=1400
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = parse::label)]
    opt: Vec<(String, String)>,
    /// Label
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::label)]
    label: Vec<(String, String)>,
    /// Who hands addresses out: default
    #[arg(long, value_name = "DRIVER", default_value = "default", value_parser = ["default"])]
    ipam_driver: String,
    /// Where it exists: swarm
    #[arg(long, value_name = "SCOPE", default_value = "", hide_default_value = true, value_parser = ["swarm", ""])]
    scope: String,
    #[command(flatten)]
    refused: RefusedNetwork,
    /// Network
    #[arg(value_parser = parse::name)]
    network: String,
}

impl CreateArgs {
    /// The body of the request.
    pub(super) fn body(&self) -> Result<Value, CliError> {
        let map = |pairs: &[(String, String)]| -> Map<String, Value> {
            pairs.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect()
        };
        Ok(json!({
            "Name": self.network,
            "Driver": self.driver,
            "Scope": self.scope,
            "IPAM": { "Driver": self.ipam_driver, "Options": {}, "Config": self.pools()? },
            "Internal": self.internal,
            "Attachable": self.attachable,
            "Ingress": self.ingress,
            "ConfigOnly": false,
            "ConfigFrom": null,
            "Options": map(&self.opt),
            "Labels": map(&self.label),
        }))
    }

    /// One entry per subnet, with what lies in it.
    fn pools(&self) -> Result<Vec<Value>, CliError> {
        let usage = |text: String| Err(CliError::Usage(text));
        let overlap = |(i, a): (usize, &Subnet)| self.subnet[i + 1..].iter().any(|b| a.overlaps(*b));
        if self.subnet.iter().enumerate().any(overlap) {
            return usage("multiple overlapping subnet configuration is not supported".to_owned());
        }
        if self.subnet.len() < self.ip_range.len() || self.subnet.len() < self.gateway.len() {
            return usage("every ip-range or gateway must have a corresponding subnet".to_owned());
        }
        let mut pools: Vec<Value> = self.subnet.iter().map(|subnet| json!({ "Subnet": subnet.to_string() })).collect();
        let place = |what: &str, inside: &dyn Fn(&Subnet) -> bool, shown: &dyn std::fmt::Display| {
            let place = self.subnet.iter().position(inside);
            place.ok_or_else(|| CliError::Usage(format!("no matching subnet for {what} {shown}")))
        };
        for range in &self.ip_range {
            let pool = &mut pools[place("range", &|subnet| subnet.covers(*range), range)?];
            if !pool["IPRange"].is_null() {
                return usage("cannot configure multiple ranges on the same subnet".to_owned());
            }
            pool["IPRange"] = range.to_string().into();
        }
        for gateway in &self.gateway {
            let pool = &mut pools[place("gateway", &|subnet| subnet.contains(*gateway), gateway)?];
            if !pool["Gateway"].is_null() {
                return usage("cannot configure multiple gateways for the same subnet".to_owned());
            }
            pool["Gateway"] = gateway.to_string().into();
        }
        for (name, address) in &self.aux_address {
            let pool = &mut pools[place("aux-address", &|subnet| subnet.contains(*address), address)?];
            set(pool, &["AuxiliaryAddresses", name], address.to_string());
        }
        Ok(pools)
    }
}

fn subnet(text: &str) -> Result<Subnet, String> {
    text.parse().map_err(|error: racimo_common::net::BadSubnet| error.to_string())
}

/// `NAME=ADDRESS`.
fn aux_address(text: &str) -> Result<(String, Ipv4Addr), String> {
    let bad = || format!("{text:?} is not NAME=ADDRESS, for example router=10.0.9.5");
    let (name, address) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(bad)?;
    Ok((name.to_owned(), address.parse().map_err(|_| bad())?))
}
