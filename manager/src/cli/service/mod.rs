//! `pi-mgr service …`.

mod change;
pub(crate) mod list;
mod logs;
mod pretty;
mod references;
pub(crate) mod resolve;

pub(crate) use change::warn;
use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::Value;

use self::logs::LogsArgs;
use super::args::{InspectFlags, ListFlags, WaitFlags};
use super::client::Client;
use super::console::Console;
use super::error::CliError;
use super::inspect;
use super::json::Peek;
use super::parse;
use super::spec::create::CreateFlags;
use super::spec::update::UpdateFlags;
use super::tasks;
use super::url::{Filters, Url};

/// Commands on services.
#[derive(Subcommand, Debug)]
pub(crate) enum ServiceCommand {
    /// Create a service
    #[command(after_help = "Examples:
  pi-mgr service create --name web --replicas 3 --publish 80:80 registry.local:5000/web:1
  pi-mgr service create --name probe --mode global --constraint node.labels.zone==attic \\
      --mount type=bind,source=/sys,target=/host/sys,readonly busybox sleep infinity
  pi-mgr service create --name api --limit-memory 64m --reserve-memory 32m -e LEVEL=info api:2 --port 80
  pi-mgr service create --name db --secret source=db-key,target=key,mode=0400 --config source=db.conf,target=/etc/db.conf \\
      --health-cmd 'db-ping' --update-order stop-first --update-failure-action rollback db:1
  pi-mgr service create --name dns --mode global --network front --publish published=53,target=5353,protocol=udp,mode=host dns:1
  pi-mgr service create --name backup --mode replicated-job --replicas 5 --max-concurrent 2 --restart-condition on-failure backup:1")]
    Create(Box<CreateArgs>),
    /// List services
    #[command(
        visible_alias = "list",
        after_help = "Examples:
  pi-mgr service ls
  pi-mgr service ls --filter name=web --format '{{.Name}}: {{.Replicas}}'"
    )]
    Ls(ListFlags),
    /// Show what the tasks of a service say, or one task
    #[command(after_help = "Examples:
  pi-mgr service logs --tail 20 web
  pi-mgr service logs -f --since 10m --timestamps web
  pi-mgr service logs --raw 0yu5ebhgggy7")]
    Logs(LogsArgs),
    /// List the tasks of services
    #[command(after_help = "Examples:
  pi-mgr service ps web
  pi-mgr service ps --no-trunc --filter desired-state=running web api")]
    Ps(PsArgs),
    /// Show everything about services
    #[command(after_help = "Examples:
  pi-mgr service inspect --pretty web
  pi-mgr service inspect --format '{{.Spec.TaskTemplate.ContainerSpec.Image}}' web")]
    Inspect(InspectArgs),
    /// Change the number of tasks of services
    #[command(after_help = "Examples:
  pi-mgr service scale web=5
  pi-mgr service scale --detach web=5 api=0 job=10")]
    Scale(ScaleArgs),
    /// Change a service
    #[command(after_help = "Examples:
  pi-mgr service update --image registry.local:5000/web:2 web
  pi-mgr service update --limit-memory 128m --env-add LEVEL=debug --constraint-add node.role==worker web
  pi-mgr service update --image web:3 --update-parallelism 2 --update-order start-first \\
      --update-failure-action rollback web
  pi-mgr service update --health-cmd 'wget -qO- localhost:8080' --health-interval 10s web
  pi-mgr service update --secret-rm key1 --secret-add source=key2,target=key web
  pi-mgr service update --publish-rm 80 --publish-add 8080:80 --network-add name=back,alias=www web
  pi-mgr service update --force web
  pi-mgr service update --rollback web")]
    Update(Box<UpdateArgs>),
    /// Remove services and wait until their tasks are gone
    #[command(
        visible_alias = "remove",
        after_help = "Examples:
  pi-mgr service rm web
  pi-mgr service rm --detach web api"
    )]
    Rm(RmArgs),
    /// Go back to a service's previous specification
    #[command(after_help = "Examples:
  pi-mgr service rollback web
  pi-mgr service rollback --detach web")]
    Rollback(RollbackArgs),
}

/// `service create`.
#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    registry: RegistryFlags,
    #[command(flatten)]
    wait: WaitFlags,
    #[command(flatten)]
    flags: CreateFlags,
}

/// How the image's registry is used.
#[derive(Args, Debug, Default, PartialEq)]
struct RegistryFlags {
    /// Don't ask the registry for the image's digest and platforms
    #[arg(long)]
    no_resolve_image: bool,
    /// Send the stored registry login along to the boards
    #[arg(long)]
    with_registry_auth: bool,
}

/// `service ps`.
#[derive(Args, Debug)]
pub(crate) struct PsArgs {
    #[command(flatten)]
    list: ListFlags,
    /// Show ids instead of names
    #[arg(long)]
    no_resolve: bool,
    /// Services
    #[arg(required = true, value_name = "SERVICE", value_parser = parse::name)]
    services: Vec<String>,
}

/// `service inspect`.
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    flags: InspectFlags,
    /// Services
    #[arg(required = true, value_name = "SERVICE", value_parser = parse::name)]
    services: Vec<String>,
}

/// `service scale`.
#[derive(Args, Debug)]
pub(crate) struct ScaleArgs {
    #[command(flatten)]
    wait: WaitFlags,
    /// Services with their new number of tasks
    #[arg(required = true, value_name = "SERVICE=REPLICAS", value_parser = replicas)]
    targets: Vec<(String, u64)>,
}

/// `service update`.
#[derive(Args, Debug)]
pub(crate) struct UpdateArgs {
    /// Go back to the previous specification; with no other change
    #[arg(long)]
    rollback: bool,
    #[command(flatten)]
    registry: RegistryFlags,
    #[command(flatten)]
    wait: WaitFlags,
    #[command(flatten)]
    flags: UpdateFlags,
    /// Service
    #[arg(value_parser = parse::name)]
    service: String,
}

/// `service rm`.
#[derive(Args, Debug)]
pub(crate) struct RmArgs {
    #[command(flatten)]
    wait: WaitFlags,
    /// Services
    #[arg(required = true, value_name = "SERVICE", value_parser = parse::name)]
    services: Vec<String>,
}

/// `service rollback`.
#[derive(Args, Debug)]
pub(crate) struct RollbackArgs {
    #[command(flatten)]
    wait: WaitFlags,
    /// Service
    #[arg(value_parser = parse::name)]
    service: String,
}

fn replicas(text: &str) -> Result<(String, u64), String> {
    let expected = || format!("\"{text}\" is not SERVICE=REPLICAS with a whole number");
    let (service, count) = text.rsplit_once('=').ok_or_else(expected)?;
    let count = count.parse().map_err(|_| expected())?;
    Ok((parse::name(service)?, count))
}

/// Runs one command.
pub(crate) async fn run(command: ServiceCommand, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    match command {
        ServiceCommand::Create(args) => change::create(*args, client, console).await,
        ServiceCommand::Ls(flags) => list::run(&flags, client, console).await,
        ServiceCommand::Logs(args) => logs::run(&args, client, console).await,
        ServiceCommand::Ps(args) => ps(&args, client, console).await,
        ServiceCommand::Inspect(args) => {
            let mut found = Vec::new();
            for service in &args.services {
                let url = Url::new(&["services", service]).query("insertDefaults", "true");
                found.push(client.get(&url).await);
            }
            let networks = if args.flags.pretty { network_names(client, &found).await? } else { BTreeMap::new() };
            let name = |id: &str| networks.get(id).map_or(id, String::as_str).to_owned();
            inspect::print(found, &args.flags, |service, console| pretty::text(service, &name, console.now()), console)
        }
        ServiceCommand::Scale(args) => change::scale(&args, client, console).await,
        ServiceCommand::Update(args) => change::update(*args, client, console).await,
        ServiceCommand::Rm(args) => change::remove(&args, client, console).await,
        ServiceCommand::Rollback(args) => change::rollback(&args, client, console).await,
    }
}

/// The names of the networks that services use; what is gone keeps its id as its name.
async fn network_names(
    client: &mut Client,
    services: &[Result<Value, CliError>],
) -> Result<BTreeMap<String, String>, CliError> {
    let mut names = BTreeMap::new();
    for network in services.iter().flatten().flat_map(|service| service.list("/Spec/TaskTemplate/Networks")) {
        let id = network.text("/Target");
        if id.is_empty() || names.contains_key(id) {
            continue;
        }
        match client.get(&Url::new(&["networks", id]).query("scope", "swarm")).await {
            Ok(found) if !found.text("/Name").is_empty() => {
                names.insert(id.to_owned(), found.text("/Name").to_owned());
            }
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(names)
}

async fn ps(args: &PsArgs, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let mut filters = args.list.filters();
    super::node::resolve_self(&mut filters, client).await?;
    let (mut found, mut errors) = (false, Vec::new());
    for name in &args.services {
        match find(client, name).await? {
            Some(id) => {
                filters = filters.with("service", &id);
                found = true;
            }
            None => errors.push(CliError::Refused(format!("no such service: {name}"))),
        }
    }
    if found {
        tasks::list(client, console, &filters, &args.list, !args.no_resolve).await?;
    }
    CliError::collect(errors)
}

/// The service's id, from an id, a name or the beginning of an id.
async fn find(client: &mut Client, name: &str) -> Result<Option<String>, CliError> {
    let mut candidates = Vec::new();
    for key in ["id", "name"] {
        let url = Url::new(&["services"]).filters(&Filters::default().with(key, name));
        let services = client.get(&url).await?;
        let matches = services.list("").iter().filter(|service| {
            // The manager's filters match beginnings; a name must be the whole one.
            key == "id" && service.text("/ID").starts_with(name) || service.text("/Spec/Name") == name
        });
        candidates.extend(matches.map(|s| (s.text("/ID").to_owned(), s.text("/Spec/Name").to_owned())));
    }
    candidates.sort();
    candidates.dedup();
    let exact = candidates.iter().find(|(id, _)| id == name).or(candidates.iter().find(|(_, n)| n == name));
    match (exact, candidates.as_slice()) {
        (Some((id, _)), _) | (None, [(id, _)]) => Ok(Some(id.clone())),
        (None, []) => Ok(None),
        (None, many) => {
            Err(CliError::Refused(format!("{name} is ambiguous: {} services have an id that begins so", many.len())))
        }
    }
}
