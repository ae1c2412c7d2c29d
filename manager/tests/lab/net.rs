//! The lab's network: a bridge in a namespace of its own, a cable from it to
//! every board, to the manager and to this machine.
//!
//! ```text
//! this machine ─ rl-LAB ─┐ bridge (namespace racimo-LAB-net; registry at .1)
//! manager  eth0 ── mgr ──┤
//! board 1  eth0 ── b1 ───┤      a cut pulls b1: the board loses its carrier
//! board 2  eth0 ── b2 ───┘
//! ```
//!
//! The bridge is not in this machine's own namespace, so that no firewall or
//! Docker daemon here has a say in what boards tell each other.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, bail};

use super::names::{Name, Subnet};
use super::process::run;

const BRIDGE: &str = "bridge";

/// Runs `ip`, with its arguments in one line.
fn ip(line: &str) -> Result<String> {
    let argv: Vec<&str> = std::iter::once("ip").chain(line.split(' ')).collect();
    run(&argv)
}

/// Makes the bridge with its namespace and this machine's cable to it.
pub(crate) fn make_bridge(name: &Name, subnet: Subnet) -> Result<()> {
    let netns = name.netns_bridge();
    let link = name.host_link();
    make_netns(&netns)?;
    ip(&format!("-n {netns} link add {BRIDGE} address {} type bridge", mac(subnet.registry())))?;
    ip(&format!("-n {netns} addr add {}/24 dev {BRIDGE}", subnet.registry()))?;
    ip(&format!("-n {netns} link set {BRIDGE} up"))?;
    ip(&format!("link add {link} type veth peer name host netns {netns}"))?;
    ip(&format!("-n {netns} link set host master {BRIDGE} up"))?;
    ip(&format!("addr add {}/24 dev {link}", subnet.machine()))?;
    ip(&format!("link set {link} up"))?;
    Ok(())
}

/// Makes a namespace with `eth0` plugged into the bridge at `port`.
pub(crate) fn make_node(name: &Name, netns: &str, port: &str, address: Ipv4Addr) -> Result<()> {
    let bridge = name.netns_bridge();
    make_netns(netns)?;
    ip(&format!("-n {bridge} link add {port} type veth peer name eth0 address {} netns {netns}", mac(address)))?;
    ip(&format!("-n {bridge} link set {port} master {BRIDGE} up"))?;
    ip(&format!("-n {netns} addr add {address}/24 dev eth0"))?;
    ip(&format!("-n {netns} link set eth0 up"))?;
    Ok(())
}

/// A hardware address that follows from the IP address, as a board keeps its
/// own over a reboot. Left to the kernel, the bridge's would change with every
/// port, and neighbours would talk to the old one for half a minute.
fn mac(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

fn make_netns(netns: &str) -> Result<()> {
    ip(&format!("netns add {netns}"))?;
    ip(&format!("-n {netns} link set lo up"))?;
    Ok(())
}

/// Removes a node's namespace and its cable; the port goes at once, so that a
/// new one can be made under the same name.
pub(crate) fn remove_node(name: &Name, netns: &str, port: &str) -> Result<()> {
    let _ = ip(&format!("-n {} link del {port}", name.netns_bridge()));
    ip(&format!("netns del {netns}"))?;
    Ok(())
}

/// Plugs a port's cable in or out.
pub(crate) fn plug(name: &Name, port: &str, plugged: bool) -> Result<()> {
    let state = if plugged { "up" } else { "down" };
    ip(&format!("-n {} link set {port} {state}", name.netns_bridge()))?;
    Ok(())
}

/// Is a port's cable plugged in?
pub(crate) fn plugged(name: &Name, port: &str) -> Result<bool> {
    let shown = ip(&format!("-n {} -o link show dev {port}", name.netns_bridge()))?;
    // "7: b1@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> …"
    let flags = shown.split(['<', '>']).nth(1).context("ip link shows no flags")?;
    Ok(flags.split(',').any(|flag| flag == "UP"))
}

/// Delays what a port sends to its board; 0 ends the delay.
///
/// # Errors
/// When this kernel has no netem.
pub(crate) fn delay(name: &Name, port: &str, delay_ms: u32) -> Result<()> {
    let netns = name.netns_bridge();
    if delay_ms == 0 {
        let _ = run(&["tc", "-n", &netns, "qdisc", "del", "dev", port, "root"]);
        return Ok(());
    }
    let delay = format!("{delay_ms}ms");
    let set = run(&["tc", "-n", &netns, "qdisc", "replace", "dev", port, "root", "netem", "delay", &delay]);
    match set {
        Err(e) if e.to_string().contains("qdisc kind is unknown") => {
            bail!("this machine's kernel has no netem (module sch_netem), so links cannot be delayed")
        }
        other => other.map(drop),
    }
}

/// Does this machine already have a route into the subnet?
pub(crate) fn subnet_taken(subnet: Subnet) -> Result<bool> {
    let prefix = format!("10.213.{}.", subnet.0);
    Ok(ip("-4 route show table all")?.contains(&prefix))
}

/// The lab's namespaces, whoever made them.
pub(crate) fn namespaces(name: &Name) -> Vec<String> {
    let prefix = name.netns_prefix();
    std::fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|netns| netns.starts_with(&prefix))
        .collect()
}

/// Is the lab's link on this machine there?
pub(crate) fn host_link_exists(name: &Name) -> bool {
    std::path::Path::new("/sys/class/net").join(name.host_link()).exists()
}

/// Removes everything; returns what could not be removed.
pub(crate) fn remove_all(name: &Name) -> Vec<anyhow::Error> {
    let mut errors = Vec::new();
    if host_link_exists(name) {
        errors.extend(ip(&format!("link del {}", name.host_link())).err());
    }
    for netns in namespaces(name) {
        errors.extend(ip(&format!("netns del {netns}")).err());
    }
    errors
}
