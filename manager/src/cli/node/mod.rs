//! `pi-mgr node …`.

pub(super) mod pretty;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::args::{InspectFlags, ListFlags};
use super::client::Client;
use super::console::Console;
use super::error::CliError;
use super::format::human;
use super::format::sort::natural;
use super::format::table::{Column, Table, column, hidden};
use super::inspect;
use super::json::{Peek, object, set};
use super::limits::OVERTAKEN_MAX;
use super::parse;
use super::tasks;
use super::url::{Filters, Url};

/// Commands on nodes.
#[derive(Subcommand, Debug)]
pub(crate) enum NodeCommand {
    /// List the nodes of the cluster
    #[command(
        visible_alias = "list",
        after_help = "Examples:
  pi-mgr node ls
  pi-mgr node ls --filter role=worker --format '{{.Hostname}}: {{.Status}}'"
    )]
    Ls(ListFlags),
    /// Show everything about nodes
    #[command(after_help = "Examples:
  pi-mgr node inspect --pretty self
  pi-mgr node inspect --format '{{.Status.Addr}}' attic")]
    Inspect(InspectArgs),
    /// List the tasks of nodes
    #[command(after_help = "Examples:
  pi-mgr node ps attic
  pi-mgr node ps --filter desired-state=running attic cellar")]
    Ps(PsArgs),
    /// Change a node
    #[command(after_help = "Examples:
  pi-mgr node update --availability drain attic
  pi-mgr node update --label-add zone=attic --label-rm old attic")]
    Update(UpdateArgs),
    /// Remove nodes from the cluster
    #[command(
        visible_alias = "remove",
        after_help = "Examples:
  pi-mgr node rm attic
  pi-mgr node rm --force attic"
    )]
    Rm(RmArgs),
    /// Make nodes managers
    #[command(after_help = "Examples:
  pi-mgr node promote attic")]
    Promote(NodesArgs),
    /// Make managers workers
    #[command(after_help = "Examples:
  pi-mgr node demote attic")]
    Demote(NodesArgs),
}

/// `node inspect`.
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    flags: InspectFlags,
    /// Nodes, or self
    #[arg(required = true, value_name = "NODE", value_parser = parse::node)]
    nodes: Vec<String>,
}

/// `node ps`.
#[derive(Args, Debug)]
pub(crate) struct PsArgs {
    #[command(flatten)]
    list: ListFlags,
    /// Show ids instead of names
    #[arg(long)]
    no_resolve: bool,
    /// Nodes; self when none is given
    #[arg(value_name = "NODE", default_value = "self", value_parser = parse::node)]
    nodes: Vec<String>,
}

/// Whether a node takes tasks.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Availability {
    /// Takes tasks
    Active,
    /// Keeps its tasks but takes no new ones
    Pause,
    /// Gives its tasks away
    Drain,
}

impl Availability {
    /// The API's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Availability::Active => "active",
            Availability::Pause => "pause",
            Availability::Drain => "drain",
        }
    }
}

/// What a node is in the cluster.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    Worker,
    Manager,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Worker => "worker",
            Role::Manager => "manager",
        }
    }
}

/// `node update`.
#[derive(Args, Debug)]
pub(crate) struct UpdateArgs {
    /// Whether the node takes tasks
    #[arg(long)]
    availability: Option<Availability>,
    /// Role of the node
    #[arg(long)]
    role: Option<Role>,
    /// Add or change a node label
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::label)]
    label_add: Vec<(String, String)>,
    /// Remove a node label
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    /// Node, or self
    #[arg(value_parser = parse::node)]
    node: String,
}

/// `node rm`.
#[derive(Args, Debug)]
pub(crate) struct RmArgs {
    /// Remove nodes that still answer
    #[arg(short, long)]
    force: bool,
    /// Nodes
    #[arg(required = true, value_name = "NODE", value_parser = parse::node)]
    nodes: Vec<String>,
}

/// Nodes alone.
#[derive(Args, Debug)]
pub(crate) struct NodesArgs {
    /// Nodes
    #[arg(required = true, value_name = "NODE", value_parser = parse::node)]
    nodes: Vec<String>,
}

/// Runs one command.
pub(crate) async fn run(command: NodeCommand, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    match command {
        NodeCommand::Ls(flags) => list(&flags, client, console).await,
        NodeCommand::Inspect(args) => {
            let mut found = Vec::new();
            for node in &args.nodes {
                found.push(fetch(client, node).await);
            }
            inspect::print(found, &args.flags, |node, _| pretty::text(node), console)
        }
        NodeCommand::Ps(args) => ps(&args, client, console).await,
        NodeCommand::Update(args) => {
            change(client, &args.node, |spec| args.apply(spec)).await?;
            Ok(console.say(&args.node)?)
        }
        NodeCommand::Rm(args) => {
            let mut errors = Vec::new();
            for name in &args.nodes {
                let mut url = Url::new(&["nodes", name]);
                if args.force {
                    url = url.query("force", "1");
                }
                match client.delete(&url).await {
                    Ok(()) => console.say(name)?,
                    Err(error) => errors.push(error),
                }
            }
            CliError::collect(errors)
        }
        NodeCommand::Promote(args) => set_role(&args.nodes, Role::Manager, client, console).await,
        NodeCommand::Demote(args) => set_role(&args.nodes, Role::Worker, client, console).await,
    }
}

const COLUMNS: &[Column] = &[
    column("ID", "ID"),
    column("Hostname", "HOSTNAME"),
    column("Status", "STATUS"),
    column("Availability", "AVAILABILITY"),
    column("ManagerStatus", "MANAGER STATUS"),
    column("EngineVersion", "ENGINE VERSION"),
    hidden("TLSStatus", "TLS STATUS"),
    hidden("Self", "SELF"),
    column("Health", "HEALTH"),
];

async fn list(flags: &ListFlags, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let nodes = client.get(&Url::new(&["nodes"]).filters(&flags.filters())).await?;
    let info = if flags.quiet { Value::Null } else { client.get(&Url::new(&["info"])).await? };
    let mut nodes: Vec<&Value> = nodes.list("").iter().collect();
    nodes.sort_by(|a, b| natural(a.text("/Description/Hostname"), b.text("/Description/Hostname")));
    let rows: Vec<Value> = nodes.into_iter().map(|node| row(node, &info)).collect();
    let cell = |row: &Value, key: &str| {
        (key == "ID").then(|| format!("{} {}", row.text("/ID"), if row["Self"] == true { "*" } else { " " }))
    };
    // Docker's nodes do not say how they are.
    let columns = if nodes_say(&rows) { COLUMNS } else { &COLUMNS[..COLUMNS.len() - 1] };
    Table { columns, rows, cell }.print(&flags.format(), !flags.no_trunc, console)
}

/// Whether one of them says how it is.
fn nodes_say(rows: &[Value]) -> bool {
    rows.iter().any(|row| row["Health"] != "")
}

fn row(node: &Value, info: &Value) -> Value {
    let manager = match node.text("/ManagerStatus/Reachability") {
        "" => String::new(),
        _ if node.pointer("/ManagerStatus/Leader") == Some(&Value::Bool(true)) => "Leader".to_owned(),
        reachability => human::title(reachability),
    };
    let (theirs, ours) = (&node["Description"]["TLSInfo"], &info["Swarm"]["Cluster"]["TLSInfo"]);
    let tls = match theirs.text("/TrustRoot") {
        "" => "Unknown",
        _ if theirs == ours => "Ready",
        _ => "Needs Rotation",
    };
    let health = match node["Description"]["Engine"]["Labels"]["io.racimo.health"].as_str() {
        Some("unknown") => "-",
        other => other.unwrap_or_default(),
    };
    json!({
        "ID": node.text("/ID"),
        "Health": health,
        "Self": node.text("/ID") == info.text("/Swarm/NodeID"),
        "Hostname": node.text("/Description/Hostname"),
        "Status": human::title(node.text("/Status/State")),
        "Availability": human::title(node.text("/Spec/Availability")),
        "ManagerStatus": manager,
        "EngineVersion": node.text("/Description/Engine/EngineVersion"),
        "TLSStatus": tls,
    })
}

async fn ps(args: &PsArgs, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let mut filters = args.list.filters();
    let (mut found, mut errors) = (false, Vec::new());
    for name in &args.nodes {
        match fetch(client, name).await {
            Ok(node) => {
                filters = filters.with("node", node.text("/ID"));
                found = true;
            }
            Err(error) => errors.push(error),
        }
    }
    if found {
        tasks::list(client, console, &filters, &args.list, !args.no_resolve).await?;
    }
    CliError::collect(errors)
}

impl UpdateArgs {
    fn apply(&self, spec: &mut Value) -> Result<(), CliError> {
        if let Some(availability) = self.availability {
            set(spec, &["Availability"], availability.name());
        }
        if let Some(role) = self.role {
            set(spec, &["Role"], role.name());
        }
        let labels = object(spec, &["Labels"]);
        for (key, value) in &self.label_add {
            labels.insert(key.clone(), value.as_str().into());
        }
        for key in &self.label_rm {
            if labels.shift_remove(key).is_none() {
                return Err(CliError::Refused(format!("key {key} doesn't exist in node's labels")));
            }
        }
        Ok(())
    }
}

async fn set_role(nodes: &[String], role: Role, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let mut errors = Vec::new();
    for name in nodes {
        let result = match fetch(client, name).await {
            Ok(node) if node.text("/Spec/Role") == role.name() => {
                Ok(format!("Node {name} is already a {}.", role.name()))
            }
            Ok(node) => {
                let change = |spec: &mut Value| {
                    set(spec, &["Role"], role.name());
                    Ok(())
                };
                store(client, &node, change).await.map(|()| match role {
                    Role::Manager => format!("Node {name} promoted to a manager in the swarm."),
                    Role::Worker => format!("Manager {name} demoted in the swarm."),
                })
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(text) => console.say(text)?,
            Err(error) => errors.push(error),
        }
    }
    CliError::collect(errors)
}

async fn change(
    client: &mut Client,
    name: &str,
    edit: impl FnOnce(&mut Value) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let node = fetch(client, name).await?;
    store(client, &node, edit).await
}

/// Whether it was another one before.
pub(crate) async fn set_availability(
    client: &mut Client,
    name: &str,
    availability: Availability,
) -> Result<bool, CliError> {
    let edit = |spec: &mut Value| {
        set(spec, &["Availability"], availability.name());
        Ok(())
    };
    let mut left = OVERTAKEN_MAX;
    loop {
        let node = fetch(client, name).await?;
        if node.text("/Spec/Availability") == availability.name() {
            return Ok(false);
        }
        left -= 1;
        match store(client, &node, edit).await {
            // Its agent describes it just now: a node that is new changes by itself.
            Err(error) if left > 0 && error.is_overtaken() => {}
            other => return other.map(|()| true),
        }
    }
}

async fn store(
    client: &mut Client,
    node: &Value,
    edit: impl FnOnce(&mut Value) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let mut spec = node["Spec"].clone();
    edit(&mut spec)?;
    let version = node.int("/Version/Index").unwrap_or(0).to_string();
    let url = Url::new(&["nodes", node.text("/ID"), "update"]).query("version", &version);
    client.post(&url, &spec, &[]).await.map(|_| ())
}

/// A node by id, hostname, or `self`.
async fn fetch(client: &mut Client, name: &str) -> Result<Value, CliError> {
    let id = if name == "self" { own_id(client).await? } else { name.to_owned() };
    client.get(&Url::new(&["nodes", &id])).await
}

/// The id of the node we talk to.
async fn own_id(client: &mut Client) -> Result<String, CliError> {
    let info = client.get(&Url::new(&["info"])).await?;
    match info.text("/Swarm/NodeID") {
        "" => Err(CliError::Refused("this manager is in no cluster yet; run `pi-mgr init` first".to_owned())),
        id => Ok(id.to_owned()),
    }
}

/// Lets `--filter node=self` mean the node we talk to.
pub(crate) async fn resolve_self(filters: &mut Filters, client: &mut Client) -> Result<(), CliError> {
    if filters.values("node").any(|node| node == "self") {
        let id = own_id(client).await?;
        filters.replace("node", "self", &id);
    }
    Ok(())
}
