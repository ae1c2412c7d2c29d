//! `pi-mgr stack …`: what a compose file describes, as one thing.
//!
//! ```text
//! files ─ compose ─▶ long form ─ convert ─▶ bodies ─ deploy ─▶ manager
//! ```
//! `compose` and `convert` are pure; this file and its siblings `deploy`, `list`, `remove` do the IO.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a value of another kind than the one asked for is told so, whatever kind it is; YAML gets no new ones"
)]

mod compose;
mod convert;
mod deploy;
mod list;
mod remove;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use super::args::{ListFlags, WaitFlags};
use super::client::Client;
use super::console::Console;
use super::error::CliError;
use super::limits::{COMPOSE_BODY_MAX, COMPOSE_BYTES_MAX};
use super::parse;
use super::url::Filters;
use crate::api::validate::is_name_of;
use compose::node::Node;
use compose::{Source, World};

/// Commands on stacks.
#[derive(Subcommand, Debug)]
pub(crate) enum StackCommand {
    /// Deploy a stack, or bring it to what its compose files say now
    #[command(
        visible_alias = "up",
        after_help = "Examples:
  pi-mgr stack deploy -c stack.yml web
  pi-mgr stack deploy -c stack.yml -c production.yml --prune --with-registry-auth --detach web"
    )]
    Deploy(DeployArgs),
    /// List stacks
    #[command(
        visible_alias = "list",
        after_help = "Examples:
  pi-mgr stack ls
  pi-mgr stack ls --format '{{.Name}}: {{.Services}}'"
    )]
    Ls(LsArgs),
    /// List the tasks of a stack
    #[command(after_help = "Examples:
  pi-mgr stack ps web
  pi-mgr stack ps --filter desired-state=running --no-trunc web")]
    Ps(PsArgs),
    /// List the services of a stack
    #[command(after_help = "Examples:
  pi-mgr stack services web
  pi-mgr stack services --filter name=web_api --quiet web")]
    Services(ServicesArgs),
    /// Remove stacks with their services, networks, secrets and configs
    #[command(
        visible_aliases = ["remove", "down"],
        after_help = "Examples:
  pi-mgr stack rm web
  pi-mgr stack rm --detach web api"
    )]
    Rm(RmArgs),
    /// Print what compose files say together, with variables filled in
    #[command(after_help = "Examples:
  pi-mgr stack config -c stack.yml
  pi-mgr stack config -c stack.yml -c production.yml --skip-interpolation")]
    Config(ConfigArgs),
}

/// `stack deploy`.
#[derive(Args, Debug)]
pub(crate) struct DeployArgs {
    /// Compose file, or - for the standard input; later files add to earlier ones
    #[arg(short, long, value_name = "FILE", required = true)]
    compose_file: Vec<String>,
    /// Remove services that the files don't have any more
    #[arg(long)]
    prune: bool,
    /// When to ask the registry for the digests of images
    #[arg(long, value_enum, default_value_t)]
    resolve_image: ResolveImage,
    /// Send the stored registry login along to the boards
    #[arg(long)]
    with_registry_auth: bool,
    #[command(flatten)]
    wait: WaitFlags,
    /// Stack
    #[arg(value_parser = new_stack_name)]
    stack: String,
}

/// When to ask the registry for the digests of images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ResolveImage {
    /// At every deployment
    #[default]
    Always,
    /// When the file names another image than before
    Changed,
    /// Never
    Never,
}

/// `stack ls`.
#[derive(Args, Debug)]
pub(crate) struct LsArgs {
    /// Format of the output: table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// `stack ps`.
#[derive(Args, Debug)]
pub(crate) struct PsArgs {
    #[command(flatten)]
    list: ListFlags,
    /// Show ids instead of names
    #[arg(long)]
    no_resolve: bool,
    /// Stack
    #[arg(value_parser = stack_name)]
    stack: String,
}

/// `stack services`.
#[derive(Args, Debug)]
pub(crate) struct ServicesArgs {
    #[command(flatten)]
    list: ListFlags,
    /// Stack
    #[arg(value_parser = stack_name)]
    stack: String,
}

/// `stack rm`.
#[derive(Args, Debug)]
pub(crate) struct RmArgs {
    #[command(flatten)]
    wait: WaitFlags,
    /// Stacks
    #[arg(required = true, value_name = "STACK", value_parser = stack_name)]
    stacks: Vec<String>,
}

/// `stack config`.
#[derive(Args, Debug)]
pub(crate) struct ConfigArgs {
    /// Compose file, or - for the standard input; later files add to earlier ones
    #[arg(short, long, value_name = "FILE", required = true)]
    compose_file: Vec<String>,
    /// Leave variables as they are
    #[arg(long)]
    skip_interpolation: bool,
}

/// The name of a stack that may be there.
fn stack_name(text: &str) -> Result<String, String> {
    let bare = text.trim_matches(|c: char| c == '\'' || c == '"' || c.is_whitespace());
    let invalid = |why: String| format!("invalid stack name: {text:?}: {why}");
    parse::name(if bare.is_empty() { bare } else { text }).map_err(invalid)
}

/// The name of a stack that can be made: what it is made of has names that begin with it.
fn new_stack_name(text: &str) -> Result<String, String> {
    let name = stack_name(text)?;
    if is_name_of(&format!("{name}_x"), "-_") {
        return Ok(name);
    }
    Err(format!("invalid stack name: {text:?}: expected a letter or digit, and then letters, digits, - and _"))
}

/// Runs one command.
pub(crate) async fn run(command: StackCommand, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    match command {
        StackCommand::Deploy(args) => deploy::run(&args, client, console).await,
        StackCommand::Ls(args) => list::stacks(&args, client, console).await,
        StackCommand::Ps(args) => list::tasks(&args, client, console).await,
        StackCommand::Services(args) => list::services(&args, client, console).await,
        StackCommand::Rm(args) => remove::run(&args, client, console).await,
        StackCommand::Config(args) => {
            let input = Input::open(&args.compose_file)?;
            let file = input.load(!args.skip_interpolation, console)?;
            Ok(console.out.write_all(compose::print::yaml(&file).as_bytes())?)
        }
    }
}

/// Filters for what belongs to a stack.
fn of_stack(stack: &str) -> Filters {
    Filters::default().with("label", &format!("{}={stack}", convert::NAMESPACE))
}

/// Compose files and what is around them.
struct Input {
    sources: Vec<Source>,
    folder: PathBuf,
}

impl Input {
    /// Reads the files; relative paths in them begin where the first one is.
    fn open(files: &[String]) -> Result<Input, CliError> {
        let mut sources = Vec::new();
        for name in files {
            let bytes = if name == "-" {
                bounded(io::stdin().lock(), COMPOSE_BYTES_MAX)
            } else {
                std::fs::File::open(name).and_then(|file| bounded(file, COMPOSE_BYTES_MAX))
            };
            let text = bytes.and_then(|bytes| {
                String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
            });
            let text = text.map_err(|source| CliError::File { path: name.clone(), source })?;
            sources.push(Source { name: name.clone(), text });
        }
        let first = files.first().filter(|name| *name != "-").map_or("", String::as_str);
        let absolute = std::path::absolute(if first.is_empty() { "." } else { first });
        let absolute = absolute.map_err(|source| CliError::File { path: first.to_owned(), source })?;
        let folder = if first.is_empty() { absolute } else { absolute.parent().unwrap_or(Path::new("/")).to_owned() };
        Ok(Input { sources, folder })
    }

    /// Calls `use_it` with the surroundings of the files.
    fn world<T>(&self, console: &Console, use_it: impl FnOnce(&World<'_>) -> T) -> T {
        let env = console.env;
        let read = |path: &Path| bounded(std::fs::File::open(path)?, COMPOSE_BODY_MAX.max(COMPOSE_BYTES_MAX));
        use_it(&World { folder: &self.folder, env: &|name| env(name), read: &read })
    }

    /// The files' long form; says what is passed over.
    fn load(&self, fill: bool, console: &mut Console) -> Result<Node, CliError> {
        let loaded = self.world(console, |world| compose::load(&self.sources, world, fill));
        let (file, ignored) = loaded.map_err(|fault| CliError::Refused(fault.to_string()))?;
        if !ignored.unsupported.is_empty() {
            console.warn(format!("Ignoring unsupported options: {}\n", ignored.unsupported.join(", ")))?;
        }
        if !ignored.deprecated.is_empty() {
            let lines: Vec<String> = ignored.deprecated.iter().map(|(key, why)| format!("{key}: {why}")).collect();
            console.warn(format!("Ignoring deprecated options:\n\n{}\n", lines.join("\n\n")))?;
        }
        Ok(file)
    }
}

/// All of it, and one byte more than `most` of what is longer: whoever uses it tells.
fn bounded(from: impl Read, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(most as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_stacks() {
        for good in ["web", "a-1_b", "9", "a_"] {
            assert!(stack_name(good).is_ok() && new_stack_name(good).is_ok(), "{good}");
        }
        // What nobody can make, but another tool may have.
        for text in ["a.b", "a/b", "-a", "_a", "ä", "'a'"] {
            assert!(stack_name(text).is_ok() && new_stack_name(text).is_err(), "{text}");
        }
        for (text, why) in
            [("", "this is empty"), (" ", "this is empty"), ("'\" '", "this is empty"), ("a b", "blanks")]
        {
            for check in [stack_name, new_stack_name] {
                let said = check(text).expect_err(text);
                assert!(said.starts_with("invalid stack name: ") && said.contains(why), "{said}");
            }
        }
    }
}
