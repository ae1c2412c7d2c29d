//! `pi-mgr secret …` and `pi-mgr config …`: the same commands on two kinds of objects.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::args::{InspectFlags, ListFlags};
use super::client::Client;
use super::console::Console;
use super::error::CliError;
use super::format::human;
use super::format::sort::natural;
use super::format::table::{Column, Table, column, hidden};
use super::inspect;
use super::json::Peek;
use super::node::pretty::{entries, moment};
use super::parse;
use super::url::Url;
use crate::limits::{CONFIG_BYTES_MAX, SECRET_BYTES_MAX};
use crate::store::DependencyKind;

/// Commands on secrets or configs.
#[derive(Subcommand, Debug)]
pub(crate) enum DependencyCommand {
    /// Make one from a file or from stdin
    #[command(after_help = "Examples:
  pi-mgr secret create db-password password.txt
  pi-mgr secret create --label app=shop db-password -
  pi-mgr config create --template-driver golang site.conf site.conf.tmpl")]
    Create(CreateArgs),
    /// List them
    #[command(
        visible_alias = "list",
        after_help = "Examples:
  pi-mgr secret ls --filter label=app=shop
  pi-mgr config ls --format '{{.Name}} {{.CreatedAt}}'"
    )]
    Ls(ListFlags),
    /// Show everything about them; the content of secrets is never shown
    #[command(after_help = "Examples:
  pi-mgr secret inspect db-password
  pi-mgr config inspect --pretty site.conf")]
    Inspect(InspectArgs),
    /// Remove them
    #[command(
        visible_alias = "remove",
        after_help = "Examples:
  pi-mgr secret rm db-password
  pi-mgr config rm site.conf"
    )]
    Rm(NamesArgs),
}

/// What fills in the content for each task.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum TemplateDriver {
    /// Go's templates, as in Swarm
    Golang,
}

/// `create`.
#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    /// Label
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = parse::label)]
    label: Vec<(String, String)>,
    /// Fill the content in for each task
    #[arg(long, value_name = "DRIVER")]
    template_driver: Option<TemplateDriver>,
    /// Its name
    #[arg(value_parser = parse::name)]
    name: String,
    /// The content: a file, or - for stdin
    #[arg(value_name = "FILE|-")]
    file: String,
}

/// `inspect`.
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    flags: InspectFlags,
    /// Names or ids
    #[arg(required = true, value_name = "NAME", value_parser = parse::name)]
    names: Vec<String>,
}

/// Names alone.
#[derive(Args, Debug)]
pub(crate) struct NamesArgs {
    /// Names or ids
    #[arg(required = true, value_name = "NAME", value_parser = parse::name)]
    names: Vec<String>,
}

fn path(kind: DependencyKind) -> &'static str {
    match kind {
        DependencyKind::Secret => "secrets",
        DependencyKind::Config => "configs",
    }
}

/// Runs one command.
pub(crate) async fn run(
    kind: DependencyKind,
    command: DependencyCommand,
    client: &mut Client,
    console: &mut Console,
) -> Result<(), CliError> {
    match command {
        DependencyCommand::Create(args) => {
            let data = content(kind, &args.file)?;
            let labels: Map<String, Value> = args.label.into_iter().map(|(key, value)| (key, value.into())).collect();
            let mut body = json!({ "Name": args.name, "Labels": labels, "Data": STANDARD.encode(&*data) });
            if let Some(TemplateDriver::Golang) = args.template_driver {
                body["Templating"] = json!({ "Name": "golang" });
            }
            let made = client.post(&Url::new(&[path(kind), "create"]), &body, &[]).await?;
            Ok(console.say(made.text("/ID"))?)
        }
        DependencyCommand::Ls(flags) => list(kind, &flags, client, console).await,
        DependencyCommand::Inspect(args) => {
            let mut found = Vec::new();
            for name in &args.names {
                found.push(client.get(&Url::new(&[path(kind), name])).await);
            }
            inspect::print(found, &args.flags, |object, _| pretty(kind, object), console)
        }
        DependencyCommand::Rm(args) => {
            let mut errors = Vec::new();
            for name in &args.names {
                match client.delete(&Url::new(&[path(kind), name])).await {
                    Ok(()) => console.say(name)?,
                    Err(error) => errors.push(error),
                }
            }
            CliError::collect(errors)
        }
    }
}

fn content(kind: DependencyKind, file: &str) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let read = match file {
        "-" => bounded(kind, io::stdin().lock()),
        file => File::open(file).and_then(|file| bounded(kind, file)),
    };
    let place = if file == "-" { "stdin" } else { file };
    read.map_err(|error| CliError::Refused(format!("cannot read {} content from {place}: {error}", kind.name())))
}

/// All of it, and never much more than may be: a wrong file may be gigabytes.
fn bounded(kind: DependencyKind, from: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let most = match kind {
        DependencyKind::Secret => SECRET_BYTES_MAX,
        DependencyKind::Config => CONFIG_BYTES_MAX,
    };
    // Its full size at once: a buffer that grows would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(most + 1));
    from.take(most as u64 + 1).read_to_end(&mut bytes)?;
    if (1..=most).contains(&bytes.len()) {
        return Ok(bytes);
    }
    let (kind, end) = (kind.name(), most + 1);
    Err(io::Error::other(format!("{kind} data must be larger than 0 and less than {end} bytes")))
}

const SECRET_COLUMNS: &[Column] = &[
    column("ID", "ID"),
    column("Name", "NAME"),
    column("Driver", "DRIVER"),
    column("CreatedAt", "CREATED"),
    column("UpdatedAt", "UPDATED"),
    hidden("Labels", "LABELS"),
];
const CONFIG_COLUMNS: &[Column] = &[
    column("ID", "ID"),
    column("Name", "NAME"),
    column("CreatedAt", "CREATED"),
    column("UpdatedAt", "UPDATED"),
    hidden("Labels", "LABELS"),
];

async fn list(
    kind: DependencyKind,
    flags: &ListFlags,
    client: &mut Client,
    console: &mut Console,
) -> Result<(), CliError> {
    let found = client.get(&Url::new(&[path(kind)]).filters(&flags.filters())).await?;
    let mut found: Vec<&Value> = found.list("").iter().collect();
    found.sort_by(|a, b| natural(a.text("/Spec/Name"), b.text("/Spec/Name")));
    let now = console.now();
    let ago = |object: &Value, pointer: &str| {
        let past = object.time(pointer).map(|then| now - then);
        past.map(|past| human::title(&human::ago(past))).unwrap_or_default()
    };
    let row = |object: &Value| {
        let mut labels: Vec<String> = object
            .entries("/Spec/Labels")
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
            .collect();
        labels.sort();
        let mut row = json!({
            "ID": object.text("/ID"),
            "Name": object.text("/Spec/Name"),
            "CreatedAt": ago(object, "/CreatedAt"),
            "UpdatedAt": ago(object, "/UpdatedAt"),
            "Labels": labels.join(","),
        });
        if kind == DependencyKind::Secret {
            row["Driver"] = object.text("/Spec/Driver/Name").into();
        }
        row
    };
    let rows = found.into_iter().map(row).collect();
    let columns = match kind {
        DependencyKind::Secret => SECRET_COLUMNS,
        DependencyKind::Config => CONFIG_COLUMNS,
    };
    Table { columns, rows, cell: |_, _| None }.print(&flags.format(), !flags.no_trunc, console)
}

/// For people, in Docker's layout.
fn pretty(kind: DependencyKind, object: &Value) -> String {
    let mut page = String::new();
    fill(&mut page, kind, object).expect("writing to a String cannot fail");
    page
}

fn fill(page: &mut String, kind: DependencyKind, object: &Value) -> std::fmt::Result {
    let gap = match kind {
        DependencyKind::Secret => "              ",
        DependencyKind::Config => "\t\t\t",
    };
    let time = |pointer: &str| object.time(pointer).map_or(String::new(), moment);
    writeln!(page, "ID:{gap}{}", object.text("/ID"))?;
    writeln!(page, "Name:{gap}{}", object.text("/Spec/Name"))?;
    entries(page, "Labels:", &object["Spec"])?;
    match kind {
        DependencyKind::Secret => {
            writeln!(page, "Driver:            {}", object.text("/Spec/Driver/Name"))?;
            writeln!(page, "Created at:        {}", time("/CreatedAt"))?;
            writeln!(page, "Updated at:        {}", time("/UpdatedAt"))
        }
        DependencyKind::Config => {
            writeln!(page, "Created at:            \t{}", time("/CreatedAt"))?;
            writeln!(page, "Updated at:            \t{}", time("/UpdatedAt"))?;
            let data = STANDARD.decode(object.text("/Spec/Data")).unwrap_or_default();
            writeln!(page, "Data:\n{}", String::from_utf8_lossy(&data))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_read_up_to_their_limit() {
        struct Endless(usize);
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 += buffer.len();
                assert!(self.0 < 3 << 20, "it reads on and on");
                Ok(buffer.len())
            }
        }
        for (kind, most) in [(DependencyKind::Secret, SECRET_BYTES_MAX), (DependencyKind::Config, CONFIG_BYTES_MAX)] {
            assert_eq!(bounded(kind, &vec![7; most][..]).expect("it fits").len(), most);
            assert!(bounded(kind, &b""[..]).is_err());
            let error = bounded(kind, Endless(0)).expect_err("too large").to_string();
            assert_eq!(error, format!("{} data must be larger than 0 and less than {} bytes", kind.name(), most + 1));
        }
    }
}
