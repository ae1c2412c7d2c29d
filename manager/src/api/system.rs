//! Ping, version, info, and the parts of Docker's API that there is nothing behind.

use std::env::consts::ARCH;
use std::net::SocketAddr;

use bollard_stubs::models::{LocalNodeState, PeerNode, PluginsInfo, SwarmInfo, SystemInfo, SystemInfoCgroupDriverEnum};
use hyper::header::{CACHE_CONTROL, HeaderName, PRAGMA};
use racimo_common::object::Role;
use serde_json::json;

use super::answer::Answer;
use super::control::ControlStatus;
use super::error::ApiError;
use super::host::go_arch;
use super::request::Request;
use super::{API_VERSION, API_VERSION_MIN, Context, convert};
use crate::{ca, tcp};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `GET /_ping`.
pub(super) async fn ping(context: &Context, _: &Request) -> Result<Answer, ApiError> {
    let swarm = match context.control.status() {
        ControlStatus::Active { .. } => "active/manager",
        ControlStatus::Inactive => "inactive",
        ControlStatus::Failing { .. } => "error",
        ControlStatus::Locked { .. } => "locked",
    };
    Ok(Answer::text("OK")
        .with(HeaderName::from_static("swarm"), swarm)
        .with(CACHE_CONTROL, "no-cache, no-store, must-revalidate")
        .with(PRAGMA, "no-cache"))
}

/// `GET /version`.
pub(super) async fn version(context: &Context, _: &Request) -> Result<Answer, ApiError> {
    let kernel = &context.host.kernel;
    Ok(Answer::ok(&json!({
        "Platform": { "Name": "Racimo" },
        "Components": [{
            "Name": "Engine",
            "Version": VERSION,
            "Details": {
                "ApiVersion": API_VERSION,
                "Arch": go_arch(),
                "BuildTime": "",
                "Experimental": "false",
                "GitCommit": "",
                "GoVersion": "",
                "KernelVersion": kernel,
                "MinAPIVersion": API_VERSION_MIN,
                "Os": "linux",
            },
        }],
        "Version": VERSION,
        "ApiVersion": API_VERSION,
        "MinAPIVersion": API_VERSION_MIN,
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": go_arch(),
        "KernelVersion": kernel,
        "BuildTime": "",
    })))
}

/// `GET /info`.
pub(super) async fn info(context: &Context, _: &Request) -> Result<Answer, ApiError> {
    let host = &context.host;
    let texts = |items: &[&str]| Some(items.iter().map(|&item| item.to_owned()).collect());
    let swarm = swarm_info(context);
    // An engine's id is the same after a restart; without a cluster there is nothing to take it from.
    let id = swarm.node_id.clone().filter(|id| !id.is_empty()).unwrap_or_else(|| host.name.clone());
    Ok(Answer::ok(&convert::json(&SystemInfo {
        id: Some(id),
        containers: Some(0),
        containers_running: Some(0),
        containers_paused: Some(0),
        containers_stopped: Some(0),
        images: Some(0),
        driver: Some(String::new()),
        driver_status: Some(Vec::new()),
        plugins: Some(PluginsInfo {
            volume: texts(&["local"]),
            network: texts(&["bridge", "host", "null", "overlay"]),
            authorization: None,
            log: Some(Vec::new()),
        }),
        // These are about a machine that runs containers; boards say for themselves what they lack.
        memory_limit: Some(true),
        swap_limit: Some(true),
        cpu_cfs_period: Some(true),
        cpu_cfs_quota: Some(true),
        cpu_shares: Some(true),
        cpu_set: Some(true),
        pids_limit: Some(true),
        oom_kill_disable: Some(false),
        ipv4_forwarding: Some(true),
        bridge_nf_iptables: Some(true),
        bridge_nf_ip6tables: Some(true),
        debug: Some(false),
        n_events_listener: Some(i64::try_from(context.hub.readers()).unwrap_or(i64::MAX)),
        system_time: Some(convert::time(context.now())),
        logging_driver: Some(String::new()),
        cgroup_driver: Some(SystemInfoCgroupDriverEnum::NONE),
        kernel_version: Some(host.kernel.clone()),
        operating_system: Some(host.os.clone()),
        os_type: Some("linux".to_owned()),
        architecture: Some(ARCH.to_owned()),
        ncpu: Some(i64::try_from(host.cpus).unwrap_or(i64::MAX)),
        mem_total: Some(i64::try_from(host.memory).unwrap_or(i64::MAX)),
        index_server_address: Some("https://index.docker.io/v1/".to_owned()),
        name: Some(host.name.clone()),
        labels: Some(Vec::new()),
        experimental_build: Some(false),
        server_version: Some(VERSION.to_owned()),
        swarm: Some(swarm),
        live_restore_enabled: Some(true),
        security_options: Some(Vec::new()),
        warnings: Some(warnings(context)),
        ..SystemInfo::default()
    })))
}

/// What a person should know, as Docker's clients show it.
fn warnings(context: &Context) -> Vec<String> {
    let absent = context.remote.iter().filter(|address| tcp::is_absent(address.ip()));
    let absent = absent.map(|address| absent_text(*address));
    let view = context.store.view();
    let ending = view.state.cluster().and_then(|cluster| ca::root_ending(cluster, context.now()));
    absent.chain(ending).chain(context.control.warnings()).map(|text| format!("WARNING: {text}")).collect()
}

/// About an address for clients with certificates that this machine does not have.
pub(crate) fn absent_text(address: SocketAddr) -> String {
    format!(
        "the API is to be served on {address}, which is not an address of this machine: clients can connect once it is there"
    )
}

fn swarm_info(context: &Context) -> SwarmInfo {
    let view = context.store.view();
    let out_of_order = |state, addr, error| SwarmInfo {
        node_id: Some(String::new()),
        node_addr: Some(addr),
        local_node_state: Some(state),
        control_available: Some(false),
        error: Some(error),
        ..SwarmInfo::default()
    };
    let inactive = || out_of_order(LocalNodeState::INACTIVE, String::new(), String::new());
    let (node, addr) = match context.control.status() {
        ControlStatus::Active { node, addr } => (node, addr),
        ControlStatus::Inactive => return inactive(),
        ControlStatus::Failing { addr, why } => return out_of_order(LocalNodeState::ERROR, addr, why),
        ControlStatus::Locked { addr } => {
            return out_of_order(LocalNodeState::LOCKED, addr, super::swarm::LOCKED.to_owned());
        }
    };
    let Some(cluster) = view.state.cluster() else { return inactive() };
    let managers = view.state.nodes().filter(|node| node.role == Role::Manager).count();
    SwarmInfo {
        node_id: Some(node.to_string()),
        node_addr: Some(addr),
        local_node_state: Some(LocalNodeState::ACTIVE),
        control_available: Some(true),
        error: Some(String::new()),
        remote_managers: Some(vec![PeerNode {
            node_id: Some(node.to_string()),
            addr: cluster.managers.first().cloned(),
        }]),
        nodes: Some(i64::try_from(view.state.nodes().count()).unwrap_or(i64::MAX)),
        managers: Some(i64::try_from(managers).unwrap_or(i64::MAX)),
        cluster: Some(convert::swarm::info(cluster)),
    }
}

/// A list of what there is none of: containers and images of an engine, plugins.
pub(super) async fn none(_: &Context, _: &Request) -> Result<Answer, ApiError> {
    Ok(Answer::ok(&json!([])))
}

/// `GET /volumes`.
pub(super) async fn no_volumes(_: &Context, _: &Request) -> Result<Answer, ApiError> {
    Ok(Answer::ok(&json!({ "Volumes": [], "Warnings": null })))
}

/// `GET /containers/{name}/json`.
pub(super) async fn no_container(_: &Context, request: &Request) -> Result<Answer, ApiError> {
    Err(missing(format!("No such container: {}", request.name)))
}

/// `GET /images/{name}/json`.
pub(super) async fn no_image(_: &Context, request: &Request) -> Result<Answer, ApiError> {
    Err(missing(format!("No such image: {}", request.name)))
}

/// `GET /volumes/{name}`.
pub(super) async fn no_volume(_: &Context, request: &Request) -> Result<Answer, ApiError> {
    Err(missing(format!("get {}: no such volume", request.name)))
}

/// `GET /plugins/{name}/json`.
pub(super) async fn no_plugin(_: &Context, request: &Request) -> Result<Answer, ApiError> {
    Err(missing(format!("plugin {:?} not found", request.name)))
}

fn missing(message: String) -> ApiError {
    ApiError::new(hyper::StatusCode::NOT_FOUND, message)
}
