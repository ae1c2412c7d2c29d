//! `pi-mgr`: one binary, daemon and client.
//!
//! Every command but `serve`, `restore` and `completion` speaks Docker's Engine API to a manager. The
//! commands are thin shells over pure parts: `spec` (flags → specification), `progress::state`
//! (answers → verdict), `format` (answers → text).

mod access;
mod args;
mod backup;
mod ca;
mod client;
mod console;
mod context;
mod dependency;
mod error;
mod format;
mod inspect;
mod json;
mod limits;
mod lock;
mod network;
mod node;
mod ours;
mod parse;
mod progress;
mod provision;
mod registry_auth;
mod serve;
mod service;
mod spec;
mod stack;
mod swarm;
mod system;
mod target;
mod tasks;
#[cfg(test)]
mod tests;
mod url;

use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use racimo_common::error::chain;

pub use serve::ServeArgs;

use client::Client;
use console::Console;
use error::CliError;
use target::Target;

use crate::store::DependencyKind;

/// Racimo's manager and its command line
#[derive(Parser, Debug)]
#[command(
    name = "pi-mgr",
    version,
    propagate_version = false,
    after_help = "Examples:
  pi-mgr serve
  pi-mgr init --advertise-addr 192.168.1.10
  pi-mgr --context ann node ls
  pi-mgr service create --name web --replicas 3 registry.local:5000/web:1"
)]
struct Cli {
    /// Manager to talk to: unix:///PATH or tcp://HOST:PORT [env: RACIMO_HOST; PI_MGR_SOCKET is the
    /// path of a socket] [default: unix:///run/racimo/pi-mgr.sock]
    #[arg(short = 'H', long, value_name = "URL")]
    host: Option<String>,
    /// Reach a manager over the network, with what `access create` wrote: the name of a context, or a
    /// directory [env: RACIMO_CONTEXT]
    #[arg(long, value_name = "NAME|DIR")]
    context: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the manager
    #[command(after_help = "Examples:
  pi-mgr serve
  pi-mgr serve --data-dir /srv/racimo --api unix:///run/racimo/pi-mgr.sock --api tcp://0.0.0.0:2376")]
    Serve(ServeArgs),
    /// Bring a cluster back from a backup, on a machine whose manager does not run
    #[command(after_help = "Examples:
  pi-mgr restore cluster.backup
  pi-mgr restore --passphrase-file /root/passphrase --advertise-addr 192.168.1.11 cluster.backup")]
    Restore(backup::RestoreArgs),
    #[command(flatten)]
    Client(ClientCommand),
    /// Print a completion script for a shell
    #[command(after_help = "Examples:
  pi-mgr completion bash > /etc/bash_completion.d/pi-mgr
  pi-mgr completion fish > ~/.config/fish/completions/pi-mgr.fish")]
    Completion(CompletionArgs),
}

/// Commands that talk to a manager.
#[derive(Subcommand, Debug)]
enum ClientCommand {
    /// Make this manager the first of a new cluster
    #[command(after_help = "Examples:
  pi-mgr init
  pi-mgr init --advertise-addr 192.168.1.10 --task-history-limit 3
  pi-mgr init --autolock
  pi-mgr init --default-addr-pool 10.20.0.0/16 --default-addr-pool-mask-length 26 --data-path-port 5000")]
    Init(swarm::InitArgs),
    /// Show what a board needs to join, or replace it
    #[command(after_help = "Examples:
  pi-mgr join-token worker
  pi-mgr join-token --rotate --quiet worker")]
    JoinToken(swarm::JoinTokenArgs),
    /// Show the cluster's root certificate, or replace it and every certificate of its boards
    #[command(after_help = "Examples:
  pi-mgr ca
  pi-mgr ca --rotate
  pi-mgr ca --rotate --cert-expiry 720h --detach
  pi-mgr ca --rotate --ca-cert root.pem --ca-key root.key")]
    Ca(ca::CaArgs),
    /// Take this manager out of its cluster
    #[command(after_help = "Examples:
  pi-mgr leave --force")]
    Leave(swarm::LeaveArgs),
    /// Change settings of the cluster
    #[command(after_help = "Examples:
  pi-mgr update --task-history-limit 3
  pi-mgr update --dispatcher-heartbeat 2s --cert-expiry 2160h
  pi-mgr update --autolock
  pi-mgr update --autolock=false")]
    Update(swarm::UpdateArgs),
    /// Bring a locked manager its unlock key
    ///
    /// The key is read from the terminal, which does not show it, or from standard input.
    #[command(after_help = "Examples:
  pi-mgr unlock")]
    Unlock,
    /// Show the key that a locked manager needs, or replace it
    #[command(after_help = "Examples:
  pi-mgr unlock-key
  pi-mgr unlock-key --rotate --quiet")]
    UnlockKey(lock::UnlockKeyArgs),
    /// Write all that brings this manager back into a file
    #[command(after_help = "Examples:
  pi-mgr backup --encrypt cluster.backup
  pi-mgr backup --quiet --force --passphrase-file /root/passphrase /mnt/usb/cluster.backup
  pi-mgr backup - > cluster.backup")]
    Backup(backup::BackupArgs),
    /// Make a node of a board with Debian or Raspberry Pi OS, over ssh
    ///
    /// Installs containerd, a runtime and the agent, joins, and waits until the node is ready. A second run brings newer
    /// packages and new settings, and changes nothing else. The user is root, or has sudo without a password.
    #[command(after_help = "Examples:
  pi-mgr provision --debs target/dist pi@192.168.1.21
  pi-mgr provision --debs target/dist --hostname kitchen --label room=kitchen --identity ~/.ssh/boards pi@192.168.1.21
  pi-mgr provision --availability drain --format json pi@192.168.1.21")]
    Provision(Box<provision::ProvisionArgs>),
    /// Manage nodes
    #[command(
        subcommand,
        after_help = "Examples:
  pi-mgr node ls"
    )]
    Node(node::NodeCommand),
    /// Manage services
    #[command(
        subcommand,
        after_help = "Examples:
  pi-mgr service ls"
    )]
    Service(Box<service::ServiceCommand>),
    /// Manage secrets
    #[command(
        subcommand,
        after_help = "Examples:
  pi-mgr secret ls"
    )]
    Secret(dependency::DependencyCommand),
    /// Manage configs
    #[command(
        subcommand,
        after_help = "Examples:
  pi-mgr config ls"
    )]
    Config(dependency::DependencyCommand),
    /// Manage networks
    #[command(
        subcommand,
        after_help = "Examples:
  pi-mgr network ls"
    )]
    Network(network::NetworkCommand),
    /// Manage stacks: services, networks, secrets and configs that a compose file describes
    #[command(
        subcommand,
        after_help = "Examples:
  pi-mgr stack ls"
    )]
    Stack(stack::StackCommand),
    /// Manage who may use the API over the network
    #[command(
        subcommand,
        after_help = "Examples:
  pi-mgr access ls"
    )]
    Access(access::AccessCommand),
    /// Show what the manager knows about itself and its cluster
    #[command(after_help = "Examples:
  pi-mgr info
  pi-mgr info --format '{{.Swarm.Nodes}}'")]
    Info(system::InfoArgs),
    /// Show the versions of this program and of the manager
    #[command(after_help = "Examples:
  pi-mgr version
  pi-mgr version --format '{{.Server.ApiVersion}}'")]
    Version(system::VersionArgs),
    /// Show what happens in the cluster, as it happens
    #[command(after_help = "Examples:
  pi-mgr events --since 10m --filter type=service
  pi-mgr events --format json")]
    Events(system::EventsArgs),
}

#[derive(Args, Debug)]
struct CompletionArgs {
    /// Shell
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
    Elvish,
}

/// The command line's definition: for manual pages and completions.
pub fn definition() -> clap::Command {
    Cli::command()
}

/// Runs the command line that this process was started with.
///
/// Exit codes: 0 done, 1 the command failed (the reason is on stderr), 2 the command line is wrong.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut console = Console::system();
    let result = match cli.command {
        Command::Serve(args) => {
            return match crate::app::serve(args) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("Error: {}", chain(&error));
                    ExitCode::FAILURE
                }
            };
        }
        Command::Completion(args) => completion(args.shell, &mut console),
        Command::Restore(args) => backup::restore(args, &mut console),
        Command::Client(command) => match client(cli.host.as_deref(), cli.context, console.env) {
            Ok(mut client) => smol::block_on(run(command, &mut client, &mut console)),
            Err(error) => Err(error),
        },
    };
    finish(result.and_then(|()| Ok(console.out.flush()?)), &mut console)
}

/// A client of the manager that flags and environment name. A context has its host; `-H` comes before that.
fn client(host: Option<&str>, context: Option<String>, env: fn(&str) -> Option<String>) -> Result<Client, CliError> {
    let given = |key| env(key).filter(|text: &String| !text.is_empty());
    let env_host = given("RACIMO_HOST");
    let without = host.is_some() || env_host.is_some();
    let context = context.or_else(|| given("RACIMO_CONTEXT").filter(|_| !without));
    if let Some(context) = context {
        let (target, tls) = context::open(&context::directory(&context, env)?, host)?;
        return Ok(Client::new(target).with_tls(tls));
    }
    let target = Target::choose(host, env_host.as_deref(), given("PI_MGR_SOCKET").as_deref());
    target.map(Client::new).map_err(CliError::Usage)
}

async fn run(command: ClientCommand, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    match command {
        ClientCommand::Init(args) => swarm::init(&args, client, console).await,
        ClientCommand::JoinToken(args) => swarm::join_token(&args, client, console).await,
        ClientCommand::Ca(args) => ca::run(&args, client, console).await,
        ClientCommand::Leave(args) => swarm::leave(&args, client, console).await,
        ClientCommand::Update(args) => swarm::update(&args, client, console).await,
        ClientCommand::Unlock => lock::unlock(client, console).await,
        ClientCommand::UnlockKey(args) => lock::unlock_key(&args, client, console).await,
        ClientCommand::Backup(args) => backup::backup(&args, client, console).await,
        ClientCommand::Provision(args) => provision::run(&args, client, console).await,
        ClientCommand::Node(command) => node::run(command, client, console).await,
        ClientCommand::Service(command) => service::run(*command, client, console).await,
        ClientCommand::Secret(command) => dependency::run(DependencyKind::Secret, command, client, console).await,
        ClientCommand::Config(command) => dependency::run(DependencyKind::Config, command, client, console).await,
        ClientCommand::Network(command) => network::run(command, client, console).await,
        ClientCommand::Stack(command) => stack::run(command, client, console).await,
        ClientCommand::Access(command) => access::run(command, client, console).await,
        ClientCommand::Info(args) => system::info(&args, client, console).await,
        ClientCommand::Version(args) => system::version(&args, client, console).await,
        ClientCommand::Events(args) => system::events(&args, client, console).await,
    }
}

fn completion(shell: Shell, console: &mut Console) -> Result<(), CliError> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
        Shell::Elvish => clap_complete::Shell::Elvish,
    };
    // Into memory first: the generator panics when a write fails.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pi-mgr", &mut script);
    Ok(console.out.write_all(&script)?)
}

/// Reports the failure, if any. A closed pipe is the reader's way to say "enough".
fn finish(result: Result<(), CliError>, console: &mut Console) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            for line in error.lines() {
                // Nothing is left to tell about a stderr that cannot be written.
                if console.warn(format!("Error: {line}")).is_err() {
                    break;
                }
            }
            ExitCode::from(error.exit_code())
        }
    }
}
