//! Commands on the cluster as a whole: `init`, `join-token`, `leave`, `update`.

use clap::{Args, ValueEnum};
use racimo_common::net::{BadSubnet, Subnet};
use serde_json::{Value, json};

use super::client::Client;
use super::console::Console;
use super::error::CliError;
use super::json::{Peek, set};
use super::lock;
use super::node::Availability;
use super::parse::{self, Nanos};
use super::provision::Settings;
use super::spec::refused::{RefusedCluster, RefusedInit};
use super::system;
use super::url::Url;

/// Settings of the cluster.
#[derive(Args, Debug, Default)]
pub(crate) struct ClusterFlags {
    /// Old tasks to remember per slot
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(0..))]
    task_history_limit: Option<i64>,
    /// How often boards report that they are alive: 100ms to 60s
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = parse::heartbeat)]
    dispatcher_heartbeat: Option<Nanos>,
    /// Validity of node certificates, such as 90d: 1h or more
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = parse::cert_expiry)]
    cert_expiry: Option<Nanos>,
    /// Lock the manager at each start until `pi-mgr unlock`
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    autolock: Option<bool>,
}

impl ClusterFlags {
    fn apply(&self, spec: &mut Value) {
        if let Some(limit) = self.task_history_limit {
            set(spec, &["Orchestration", "TaskHistoryRetentionLimit"], limit);
        }
        if let Some(Nanos(period)) = self.dispatcher_heartbeat {
            set(spec, &["Dispatcher", "HeartbeatPeriod"], period);
        }
        if let Some(Nanos(expiry)) = self.cert_expiry {
            set(spec, &["CAConfig", "NodeCertExpiry"], expiry);
        }
        if let Some(on) = self.autolock {
            set(spec, &["EncryptionConfig", "AutoLockManagers"], on);
        }
    }

    fn is_empty(&self) -> bool {
        self.task_history_limit.is_none()
            && self.dispatcher_heartbeat.is_none()
            && self.cert_expiry.is_none()
            && self.autolock.is_none()
    }
}

/// `init`.
#[derive(Args, Debug)]
pub(crate) struct InitArgs {
    /// What boards dial to reach this manager: an address, a network interface or a name, [:PORT]
    #[arg(long, value_name = "ADDR", default_value = "")]
    advertise_addr: String,
    /// Where to listen for boards: an address or a network interface, [:PORT]
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:2377")]
    listen_addr: String,
    /// Whether this node takes tasks
    #[arg(long)]
    availability: Option<Availability>,
    /// Addresses that networks get their subnets of (repeatable) [default: 10.0.0.0/8]
    #[arg(long, value_name = "SUBNET", value_delimiter = ',', value_parser = pool)]
    default_addr_pool: Vec<Subnet>,
    /// Length of the mask of these subnets
    #[arg(long, value_name = "BITS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(8..=29))]
    default_addr_pool_mask_length: u32,
    /// UDP port of the traffic between boards (1024 to 49151; 0: 4789)
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true, value_parser = data_path_port)]
    data_path_port: u16,
    #[command(flatten)]
    cluster: ClusterFlags,
    #[command(flatten)]
    refused_init: RefusedInit,
    #[command(flatten)]
    refused: RefusedCluster,
}

fn pool(text: &str) -> Result<Subnet, String> {
    text.parse().map_err(|error: BadSubnet| error.to_string())
}

fn data_path_port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|port| *port == 0 || (1024..=49151).contains(port));
    port.ok_or_else(|| format!("{text:?} is not a port from 1024 to 49151"))
}

/// `join-token`.
#[derive(Args, Debug)]
pub(crate) struct JoinTokenArgs {
    /// Only show the token
    #[arg(short, long)]
    quiet: bool,
    /// Replace the token; the old one stops working
    #[arg(long)]
    rotate: bool,
    /// Print a racimo.toml for the boot partition of a board's card
    #[arg(long, conflicts_with = "quiet")]
    toml: bool,
    /// What joins
    role: JoinRole,
}

/// Whose token.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum JoinRole {
    /// A board
    Worker,
    /// Another manager
    Manager,
}

/// `leave`.
#[derive(Args, Debug)]
pub(crate) struct LeaveArgs {
    /// Leave even if that ends the cluster
    #[arg(short, long)]
    force: bool,
}

/// `update`.
#[derive(Args, Debug)]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    cluster: ClusterFlags,
    #[command(flatten)]
    refused: RefusedCluster,
}

/// Makes this manager the first of a new cluster.
pub(crate) async fn init(args: &InitArgs, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let pools: Vec<String> = args.default_addr_pool.iter().map(ToString::to_string).collect();
    let mut request = json!({
        "ListenAddr": args.listen_addr,
        "AdvertiseAddr": args.advertise_addr,
        "DataPathAddr": "",
        "DataPathPort": args.data_path_port,
        "ForceNewCluster": false,
        "Spec": {
            "Labels": null, "Orchestration": {}, "Raft": {"ElectionTick": 0, "HeartbeatTick": 0}, "Dispatcher": {},
            "CAConfig": {}, "TaskDefaults": {}, "EncryptionConfig": {"AutoLockManagers": false},
        },
        "AutoLockManagers": args.cluster.autolock.unwrap_or(false),
        "Availability": args.availability.map_or("", Availability::name),
        "DefaultAddrPool": pools,
        "SubnetSize": args.default_addr_pool_mask_length,
    });
    args.cluster.apply(&mut request["Spec"]);
    let id = client.post(&Url::new(&["swarm", "init"]), &request, &[]).await?;
    let id = id.as_str().unwrap_or_default();
    console.say(format!("Cluster initialized: current node ({id}) is now a manager.\n"))?;
    let cluster = client.get(&Url::new(&["swarm"])).await?;
    let address = manager_address(client, id).await?;
    console.say(join_text(cluster.text("/JoinTokens/Worker"), &address))?;
    console.say("To see this again, run `pi-mgr join-token worker`.")?;
    if args.cluster.autolock.unwrap_or(false) {
        console.say("")?;
        lock::show(client, console).await?;
    }
    // Such as an address for boards that is not the manager's.
    let info = client.get(&Url::new(&["info"])).await?;
    Ok(system::warnings(&info, console)?)
}

/// Shows, or replaces, a join token.
pub(crate) async fn join_token(
    args: &JoinTokenArgs,
    client: &mut Client,
    console: &mut Console,
) -> Result<(), CliError> {
    if args.toml && matches!(args.role, JoinRole::Manager) {
        return Err(CliError::Usage("--toml is for boards: join-token --toml worker".to_owned()));
    }
    let (name, key, rotation) = match args.role {
        JoinRole::Worker => ("worker", "/JoinTokens/Worker", "rotateWorkerToken"),
        JoinRole::Manager => ("manager", "/JoinTokens/Manager", "rotateManagerToken"),
    };
    let mut cluster = client.get(&Url::new(&["swarm"])).await?;
    if args.rotate {
        update_cluster(client, &cluster, &cluster["Spec"], Some(rotation)).await?;
        if args.toml {
            console.warn(format!("Successfully rotated {name} join token."))?;
        } else if !args.quiet {
            console.say(format!("Successfully rotated {name} join token.\n"))?;
        }
        cluster = client.get(&Url::new(&["swarm"])).await?;
    }
    let token = cluster.text(key);
    if token.is_empty() {
        return Err(CliError::Refused("this access is read-only: it does not see join tokens".to_owned()));
    }
    if args.quiet {
        return Ok(console.say(token)?);
    }
    match args.role {
        JoinRole::Worker => {
            let info = client.get(&Url::new(&["info"])).await?;
            let address = manager_address(client, info.text("/Swarm/NodeID")).await?;
            console.say(if args.toml { join_file(token, &address) } else { join_text(token, &address) })?;
        }
        JoinRole::Manager => console.say(format!("The token for further managers is:\n\n    {token}\n"))?,
    }
    Ok(())
}

/// Takes this manager out of its cluster.
pub(crate) async fn leave(args: &LeaveArgs, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let mut url = Url::new(&["swarm", "leave"]);
    if args.force {
        url = url.query("force", "1");
    }
    client.post(&url, &Value::Null, &[]).await?;
    Ok(console.say("Node left the cluster.")?)
}

/// Changes the cluster's settings.
pub(crate) async fn update(args: &UpdateArgs, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    if args.cluster.is_empty() {
        return Err(CliError::Usage("nothing to change; see `pi-mgr update --help`".to_owned()));
    }
    let cluster = client.get(&Url::new(&["swarm"])).await?;
    let mut spec = cluster["Spec"].clone();
    args.cluster.apply(&mut spec);
    update_cluster(client, &cluster, &spec, None).await?;
    console.say("Cluster updated.")?;
    if lock::is_on(&spec) && !lock::is_on(&cluster["Spec"]) {
        lock::show(client, console).await?;
    }
    Ok(())
}

pub(crate) async fn update_cluster(
    client: &mut Client,
    cluster: &Value,
    spec: &Value,
    rotation: Option<&str>,
) -> Result<(), CliError> {
    let version = cluster.int("/Version/Index").unwrap_or(0).to_string();
    let mut url = Url::new(&["swarm", "update"]).query("version", &version);
    for key in ["rotateWorkerToken", "rotateManagerToken", "rotateManagerUnlockKey"] {
        url = url.query(key, if rotation == Some(key) { "true" } else { "false" });
    }
    client.post(&url, spec, &[]).await.map(|_| ())
}

/// What boards dial to reach the manager that is this node.
pub(crate) async fn manager_address(client: &mut Client, node: &str) -> Result<String, CliError> {
    let node = client.get(&Url::new(&["nodes", node])).await?;
    Ok(node.text("/ManagerStatus/Addr").to_owned())
}

/// What a board's image reads: `images/files/usr/lib/racimo/join-file`.
fn join_file(token: &str, address: &str) -> String {
    format!(
        "# The racimo.toml of a board's boot partition. The board wipes it when it has joined.\n{}\n\
         #hostname = \"kitchen\"\n\n#[labels]\n#room = \"kitchen\"",
        *Settings::default().file(Some((address, token)))
    )
}

fn join_text(token: &str, address: &str) -> String {
    format!(
        "To add a board to this cluster, run the following command on it:\n\n    \
         pi-agent join --token {token} {address}\n"
    )
}
