//! The cluster's settings, both ways.

use std::fmt;
use std::time::Duration;

use bollard_stubs::models::{
    ClusterInfo, JoinTokens, SwarmSpec, SwarmSpecCaConfig, SwarmSpecDispatcher, SwarmSpecEncryptionConfig,
    SwarmSpecOrchestration, SwarmSpecRaft, SwarmSpecTaskDefaults,
};
use racimo_common::net::{Subnet, VXLAN_ENCRYPTED_PORT};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{json as to_json, map, nanos, time, tls, version};
use crate::allocator::check_subnet;
use crate::api::control::InitRequest;
use crate::api::convert::node::availability;
use crate::api::error::ApiError;
use crate::api::fields::Fields;
use crate::ca::{self, NODE_VALIDITY_MIN};
use crate::store::{Cluster, ClusterNet, ClusterSpec, NetworkSpec};
use crate::vault::{Vault, VaultError};

/// UDP ports that VXLANs may have: those that IANA registers.
const DATA_PATH_PORTS: std::ops::RangeInclusive<u16> = 1024..=49_151;
/// The longest mask of networks' subnets: with eight addresses, five of which can be given.
const SUBNET_SIZE_MAX: u8 = 29;
/// Where agents are listened for if the request does not say.
const LISTEN_DEFAULT: &str = "0.0.0.0:2377";

/// The cluster as `GET /info` shows it.
pub fn info(cluster: &Cluster) -> ClusterInfo {
    ClusterInfo {
        id: Some(cluster.id.to_string()),
        version: version(cluster.meta.version),
        created_at: Some(time(cluster.meta.created)),
        updated_at: Some(time(cluster.meta.updated)),
        spec: Some(spec_model(cluster)),
        tls_info: Some(tls::cluster(cluster)),
        root_rotation_in_progress: Some(cluster.trust.rotation.is_some()),
        data_path_port: Some(cluster.net.vxlan_port.into()),
        default_addr_pool: pools(&cluster.net),
        subnet_size: Some(cluster.net.mask.into()),
    }
}

/// The cluster as `GET /swarm` shows it: with its join tokens.
///
/// # Errors
/// The vault does not open the tokens.
pub fn cluster(cluster: &Cluster, vault: &Vault) -> Result<Value, VaultError> {
    let mut value = without_tokens(cluster);
    if let Value::Object(fields) = &mut value {
        fields.insert("JoinTokens".to_owned(), to_json(&tokens(cluster, vault)?));
    }
    Ok(value)
}

/// The same for those who may only look.
pub fn without_tokens(cluster: &Cluster) -> Value {
    let mut value = to_json(&info(cluster));
    if let Value::Object(fields) = &mut value {
        // Clients tell "no pool was given" by null.
        fields.insert("DefaultAddrPool".to_owned(), json!(pools(&cluster.net)));
    }
    value
}

/// None: the default ones.
fn pools(net: &ClusterNet) -> Option<Vec<String>> {
    let given = net.pools != ClusterNet::default().pools;
    given.then(|| net.pools.iter().map(ToString::to_string).collect())
}

fn tokens(cluster: &Cluster, vault: &Vault) -> Result<JoinTokens, VaultError> {
    let Some(root) = tls::root_digest(&cluster.root_pem) else { return Ok(JoinTokens::default()) };
    let tokens = ca::JoinTokens::open(vault, root, cluster)?;
    let (worker, manager) = (tokens.worker.to_string(), tokens.manager.to_string());
    Ok(JoinTokens { worker: Some(worker), manager: Some(manager) })
}

fn spec_model(cluster: &Cluster) -> SwarmSpec {
    let spec = &cluster.spec;
    SwarmSpec {
        name: Some("default".to_owned()),
        labels: map(&spec.labels),
        orchestration: Some(SwarmSpecOrchestration { task_history_retention_limit: Some(spec.task_history()) }),
        raft: Some(SwarmSpecRaft {
            snapshot_interval: Some(10_000),
            keep_old_snapshots: Some(0),
            log_entries_for_slow_followers: Some(500),
            election_tick: Some(10),
            heartbeat_tick: Some(1),
        }),
        dispatcher: Some(SwarmSpecDispatcher { heartbeat_period: Some(nanos(spec.heartbeat())) }),
        ca_config: Some(SwarmSpecCaConfig {
            node_cert_expiry: Some(nanos(spec.cert_expiry())),
            force_rotate: Some(cluster.trust.asked).filter(|asked| *asked > 0),
            ..SwarmSpecCaConfig::default()
        }),
        encryption_config: Some(SwarmSpecEncryptionConfig { auto_lock_managers: Some(spec.autolock) }),
        task_defaults: Some(SwarmSpecTaskDefaults::default()),
    }
}

/// What a request asks of the cluster's root. `Debug` hides the key.
#[derive(Default)]
pub struct RootAsk {
    /// `ForceRotate`: one more than what is shown asks for a rotation.
    pub force: u64,
    /// A root to rotate to: its certificate and its key, PEM.
    pub given: Option<(String, Zeroizing<String>)>,
}

impl fmt::Debug for RootAsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootAsk").field("force", &self.force).field("given", &self.given.is_some()).finish()
    }
}

/// Reads what is asked of the root.
fn root(ca: &mut Fields<'_>) -> Result<RootAsk, ApiError> {
    if ca.is_set("ExternalCAs") {
        let path = ca.path("ExternalCAs");
        return Err(ApiError::bad_request(format!(
            "invalid argument: {path}: external certificate authorities are not supported: the manager signs its \
             boards' certificates itself, by a root of its own or of yours (docker swarm ca --rotate --ca-cert FILE \
             --ca-key FILE)"
        )));
    }
    let force = ca.count("ForceRotate")?.unwrap_or(0);
    let (certificate, key) = (ca.text("SigningCACert")?, ca.text("SigningCAKey")?.map(Zeroizing::new));
    let given = match (certificate, key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, Some(_)) => {
            let text = "if a signing CA key is provided, the signing CA cert must also be provided";
            return Err(ApiError::invalid(text));
        }
        (Some(_), None) => {
            let text = "a signing CA cert needs its signing CA key (--ca-key): without it an external certificate \
                        authority would have to sign, which is not supported";
            return Err(ApiError::invalid(text));
        }
    };
    Ok(RootAsk { force, given })
}

/// Reads the cluster's settings, and what is asked of its root.
///
/// # Errors
/// 400 that names the field.
pub fn spec(mut fields: Fields<'_>) -> Result<(ClusterSpec, RootAsk), ApiError> {
    if fields.text("Name")?.is_some_and(|name| name != "default") {
        return Err(ApiError::invalid("Cluster: the name must be \"default\""));
    }
    let labels = fields.labels("Labels")?;
    let mut orchestration = fields.object("Orchestration")?;
    let task_history = orchestration.int("TaskHistoryRetentionLimit")?;
    orchestration.done()?;
    let mut raft = fields.object("Raft")?;
    // Sent back as they were read; nothing of it can be set.
    let raft_settings =
        [("SnapshotInterval", 10_000), ("LogEntriesForSlowFollowers", 500), ("ElectionTick", 10), ("HeartbeatTick", 1)];
    for (key, value) in raft_settings {
        raft.only(key, &[json!(value)])?;
    }
    raft.done()?;
    let mut dispatcher = fields.object("Dispatcher")?;
    let heartbeat = dispatcher.count("HeartbeatPeriod")?.filter(|n| *n > 0).map(Duration::from_nanos);
    dispatcher.done()?;
    let mut ca = fields.object("CAConfig")?;
    let cert_expiry = ca.count("NodeCertExpiry")?.filter(|n| *n > 0).map(Duration::from_nanos);
    let root = root(&mut ca)?;
    ca.done()?;
    fields.object("TaskDefaults")?.done()?;
    let mut encryption = fields.object("EncryptionConfig")?;
    let autolock = encryption.flag("AutoLockManagers")?;
    encryption.done()?;
    fields.done()?;
    if cert_expiry.is_some_and(|expiry| expiry < NODE_VALIDITY_MIN) {
        return Err(ApiError::invalid("minimum certificate expiry time is: 1h0m0s"));
    }
    let (least, most) = (crate::limits::HEARTBEAT_MIN, crate::limits::HEARTBEAT_MAX);
    if heartbeat.is_some_and(|h| h < least || h > most) {
        return Err(ApiError::invalid(format_args!("the heartbeat period must be from {least:?} to {most:?}")));
    }
    Ok((ClusterSpec { labels, task_history, heartbeat, cert_expiry, autolock }, root))
}

/// Reads a request to make a cluster.
///
/// # Errors
/// 400 that names the field.
pub fn init(body: &Value) -> Result<InitRequest, ApiError> {
    let mut fields = Fields::of("", body)?;
    let (spec, root) = spec(fields.object("Spec")?)?;
    if root.force > 0 || root.given.is_some() {
        return Err(ApiError::bad_request(
            "invalid argument: Spec.CAConfig: a cluster begins with a root of its own; rotate to another one \
             afterwards (docker swarm ca --rotate)",
        ));
    }
    let request = InitRequest {
        listen: fields.text("ListenAddr")?.unwrap_or_else(|| LISTEN_DEFAULT.to_owned()),
        advertise: fields.text("AdvertiseAddr")?,
        availability: fields.text("Availability")?.as_deref().map(availability).transpose()?.unwrap_or_default(),
        // Docker's client says it twice; other clients say it here or there.
        spec: ClusterSpec { autolock: fields.flag("AutoLockManagers")? || spec.autolock, ..spec },
        net: net(&mut fields)?,
    };
    fields.done()?;
    Ok(request)
}

/// Reads where subnets and ports of networks come from. The words are Docker's.
fn net(fields: &mut Fields<'_>) -> Result<ClusterNet, ApiError> {
    let default = ClusterNet::default();
    let refuse = |text: String| Err(ApiError::bad_request(text));
    let vxlan_port = match fields.count("DataPathPort")?.unwrap_or(0) {
        0 => default.vxlan_port,
        port => match u16::try_from(port).ok().filter(|port| DATA_PATH_PORTS.contains(port)) {
            None => return refuse("Datapath port number is not in valid range (1024-49151)".to_owned()),
            Some(VXLAN_ENCRYPTED_PORT) => {
                return refuse(format!("Datapath port number {port} is the one of encrypted networks"));
            }
            Some(port) => port,
        },
    };
    let mask = match fields.count("SubnetSize")?.unwrap_or(0) {
        0 => default.mask,
        size => match u8::try_from(size).ok().filter(|size| *size <= SUBNET_SIZE_MAX) {
            None => return refuse(format!("subnet size is out of range: {size}")),
            Some(size) => size,
        },
    };
    let asked = fields.texts("DefaultAddrPool")?;
    let mut pools: Vec<Subnet> = Vec::new();
    for text in &asked {
        let pool: Subnet = match text.parse() {
            Ok(pool) => pool,
            Err(error) => return refuse(format!("invalid base pool {text}: {error}")),
        };
        if mask < pool.prefix() {
            return refuse(format!("invalid CIDR: {text:?}. Subnet size is too small for pool: {mask}"));
        }
        if let Err(error) = check_subnet(&NetworkSpec::default(), Subnet::of(pool.address(), mask)) {
            return refuse(format!("invalid base pool {text}: {error}"));
        }
        if let Some(other) = pools.iter().find(|other| other.overlaps(pool)) {
            return refuse(format!("invalid base pool {text}: it overlaps {other}"));
        }
        pools.push(pool);
    }
    if asked.is_empty() {
        pools = default.pools;
        if let Some(pool) = pools.iter().find(|pool| mask < pool.prefix()) {
            let text = pool.to_string();
            return refuse(format!("invalid CIDR: {text:?}. Subnet size is too small for pool: {mask}"));
        }
    }
    Ok(ClusterNet { pools, mask, vxlan_port })
}
