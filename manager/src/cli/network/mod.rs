//! `pi-mgr network …`.

mod create;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use time::OffsetDateTime;

use self::create::CreateArgs;
use super::args::{InspectFlags, ListFlags};
use super::client::Client;
use super::console::Console;
use super::error::CliError;
use super::format::human;
use super::format::sort::natural;
use super::format::table::{Column, Table, column, hidden};
use super::inspect;
use super::json::Peek;
use super::node::pretty::moment;
use super::parse;
use super::url::{Filters, Url};

const INGRESS_QUESTION: &str = "WARNING! Without the routing mesh published ports answer nowhere, and tasks have no way \
                                out.\nAre you sure you want to continue?";
const PRUNE_QUESTION: &str =
    "WARNING! This will remove all networks that no service uses.\nAre you sure you want to continue?";

const COLUMNS: &[Column] = &[
    column("ID", "NETWORK ID"),
    column("Name", "NAME"),
    column("Driver", "DRIVER"),
    column("Scope", "SCOPE"),
    hidden("IPv4", "IPV4"),
    hidden("IPv6", "IPV6"),
    hidden("Internal", "INTERNAL"),
    hidden("Labels", "LABELS"),
    hidden("CreatedAt", "CREATED AT"),
];

/// Commands on networks.
#[derive(Subcommand, Debug)]
pub(crate) enum NetworkCommand {
    /// Create an overlay network
    #[command(after_help = "Examples:
  pi-mgr network create front
  pi-mgr network create --internal --label tier=back back
  pi-mgr network create --subnet 10.9.0.0/24 --gateway 10.9.0.254 --ip-range 10.9.0.128/25 --opt encrypted vault
  pi-mgr network create --ingress --subnet 10.210.0.0/16 mesh")]
    Create(Box<CreateArgs>),
    /// List networks
    #[command(
        visible_alias = "list",
        after_help = "Examples:
  pi-mgr network ls
  pi-mgr network ls --filter label=tier=front --quiet
  pi-mgr network ls --filter driver=overlay --format '{{.Name}}'"
    )]
    Ls(ListFlags),
    /// Show everything about networks
    #[command(after_help = "Examples:
  pi-mgr network inspect front
  pi-mgr network inspect --verbose --format '{{.Id}}' front")]
    Inspect(InspectArgs),
    /// Remove networks
    #[command(
        visible_alias = "remove",
        after_help = "Examples:
  pi-mgr network rm front back"
    )]
    Rm(RmArgs),
    /// Remove all networks that nothing is attached to
    #[command(after_help = "Examples:
  pi-mgr network prune
  pi-mgr network prune --force --filter label=tier=front")]
    Prune(PruneArgs),
}

/// `network inspect`.
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// Go template for each object, or json
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show the services and tasks too
    #[arg(short, long)]
    verbose: bool,
    /// Networks
    #[arg(required = true, value_name = "NETWORK", value_parser = parse::name)]
    networks: Vec<String>,
}

/// `network rm`.
#[derive(Args, Debug)]
pub(crate) struct RmArgs {
    /// Don't complain about networks that are not there
    #[arg(short, long)]
    force: bool,
    /// Networks
    #[arg(required = true, value_name = "NETWORK", value_parser = parse::name)]
    networks: Vec<String>,
}

/// `network prune`.
#[derive(Args, Debug)]
pub(crate) struct PruneArgs {
    /// Remove only what matches (label=KEY=VALUE, label!=KEY; repeatable)
    #[arg(long, value_name = "FILTER", value_parser = parse::filter)]
    filter: Vec<(String, String)>,
    /// Don't ask
    #[arg(short, long)]
    force: bool,
}

/// Runs one command.
pub(crate) async fn run(command: NetworkCommand, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    match command {
        NetworkCommand::Create(args) => create(&args, client, console).await,
        NetworkCommand::Ls(flags) => list(&flags, client, console).await,
        NetworkCommand::Inspect(args) => {
            let mut found = Vec::new();
            for network in &args.networks {
                let mut url = Url::new(&["networks", network]);
                if args.verbose {
                    url = url.query("verbose", "true");
                }
                found.push(client.get(&url).await);
            }
            let flags = InspectFlags { format: args.format, pretty: false };
            inspect::print(found, &flags, |_, _| String::new(), console)
        }
        NetworkCommand::Rm(args) => remove(&args, client, console).await,
        NetworkCommand::Prune(args) => prune(&args, client, console).await,
    }
}

async fn create(args: &CreateArgs, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let answer = client.post(&Url::new(&["networks", "create"]), &args.body()?, &[]).await?;
    if !answer.text("/Warning").is_empty() {
        console.warn(answer.text("/Warning"))?;
    }
    Ok(console.say(answer.text("/Id"))?)
}

async fn list(flags: &ListFlags, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let networks = client.get(&Url::new(&["networks"]).filters(&flags.filters())).await?;
    let mut networks: Vec<&Value> = networks.list("").iter().collect();
    networks.sort_by(|a, b| natural(a.text("/Name"), b.text("/Name")));
    let full = flags.no_trunc;
    let rows = networks.into_iter().map(|network| {
        let id = network.text("/Id");
        let label = |(key, value): (&String, &Value)| format!("{key}={}", value.as_str().unwrap_or(""));
        let mut labels: Vec<String> = network.entries("/Labels").map(label).collect();
        labels.sort();
        json!({
            "ID": if full { id.to_owned() } else { human::short_id(id) },
            "Name": network.text("/Name"),
            "Driver": network.text("/Driver"),
            "Scope": network.text("/Scope"),
            "IPv4": (network["EnableIPv4"] != false).to_string(),
            "IPv6": (network["EnableIPv6"] == true).to_string(),
            "Internal": (network["Internal"] == true).to_string(),
            "Labels": labels.join(","),
            "CreatedAt": network.time("/Created").map(created).unwrap_or_default(),
        })
    });
    let rows = rows.collect();
    Table { columns: COLUMNS, rows, cell: |_, _| None }.print(&flags.format(), !full, console)
}

/// As Docker writes times in lists of networks.
fn created(time: OffsetDateTime) -> String {
    moment(time).replace("utc", "UTC")
}

async fn remove(args: &RmArgs, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let mut errors = Vec::new();
    for network in &args.networks {
        let url = Url::new(&["networks", network]);
        let there = client.get(&url).await;
        if there.is_ok_and(|there| there["Ingress"] == true) && !console.confirm(INGRESS_QUESTION)? {
            continue;
        }
        match client.delete(&url).await {
            Ok(()) => console.say(network)?,
            Err(error) if args.force && error.is_not_found() => {}
            Err(error) => errors.push(error),
        }
    }
    CliError::collect(errors)
}

async fn prune(args: &PruneArgs, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    if !args.force && !console.confirm(PRUNE_QUESTION)? {
        return Ok(());
    }
    let url = Url::new(&["networks", "prune"]).filters(&Filters::new(&args.filter));
    let gone = client.post(&url, &Value::Null, &[]).await?;
    let names: Vec<&str> = gone.list("/NetworksDeleted").iter().filter_map(Value::as_str).collect();
    if !names.is_empty() {
        console.say("Deleted Networks:")?;
        for name in names {
            console.say(name)?;
        }
        console.say("")?;
    }
    Ok(())
}

/// The id of a network that a flag names.
pub(crate) async fn id(client: &mut Client, name: &str) -> Result<String, CliError> {
    let network = client.get(&Url::new(&["networks", name]).query("scope", "swarm")).await?;
    Ok(network.text("/Id").to_owned())
}
