//! `pi-mgr access …`: who may use the API over the network.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::client::Client;
use super::console::Console;
use super::context::{self, CA, CERTIFICATE, HOST, KEY};
use super::error::CliError;
use super::format::human;
use super::format::table::{Column, Format, Table, column};
use super::json::Peek;
use super::parse::{self, Nanos};
use super::target::{PORT_TLS, Target};
use super::url::Url;

/// Commands on accesses.
#[derive(Subcommand, Debug)]
pub(crate) enum AccessCommand {
    /// Let somebody use the API over the network: writes a directory with their key and certificates
    #[command(after_help = "Examples:
  pi-mgr access create ann
  pi-mgr access create --read-only --expires 90d --out ./wallboard wallboard
  pi-mgr access create --host cluster.example:2376 --quiet ci")]
    Create(CreateArgs),
    /// List who may
    #[command(
        visible_alias = "list",
        after_help = "Examples:
  pi-mgr access ls
  pi-mgr access ls --format '{{.Name}} {{.Role}}'"
    )]
    Ls(LsArgs),
    /// Let them no longer: their certificates open nothing any more, and open streams end
    #[command(
        visible_alias = "rm",
        after_help = "Examples:
  pi-mgr access revoke ann"
    )]
    Revoke(RevokeArgs),
    /// Show who changed what: the last lines of the manager's audit file
    #[command(after_help = "Examples:
  pi-mgr access log
  pi-mgr access log --tail 1000")]
    Log(LogArgs),
}

/// `create`.
#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    /// They may look, but change nothing, and not see what lets somebody in
    #[arg(long)]
    read_only: bool,
    /// How long it is good for, such as 90d or 12h [default: 365d]
    #[arg(long, value_name = "DURATION", value_parser = days)]
    expires: Option<Nanos>,
    /// Directory to write, which must not be there [default: ~/.config/racimo/contexts/NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where clients reach the manager [default: what it is advertised as]
    #[arg(long, value_name = "HOST[:PORT]")]
    host: Option<String>,
    /// Only show the directory
    #[arg(short, long)]
    quiet: bool,
    /// Name: of a person or program
    name: String,
}

/// `ls`.
#[derive(Args, Debug)]
pub(crate) struct LsArgs {
    /// Format of the output: table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Only show names
    #[arg(short, long)]
    quiet: bool,
}

/// `revoke`.
#[derive(Args, Debug)]
pub(crate) struct RevokeArgs {
    /// Names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// `log`.
#[derive(Args, Debug)]
pub(crate) struct LogArgs {
    /// How many lines
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 50)]
    tail: u32,
}

/// `90d`, or a duration as everywhere.
fn days(text: &str) -> Result<Nanos, String> {
    const DAY: i64 = 24 * 60 * 60 * 1_000_000_000;
    let Some(days) = text.strip_suffix('d') else {
        return parse::duration(text)
            .map_err(|_| format!("\"{text}\" is not a duration; expected for example 90d or 12h"));
    };
    let nanos = days.parse::<u32>().ok().and_then(|days| i64::from(days).checked_mul(DAY)).filter(|nanos| *nanos > 0);
    nanos.map(Nanos).ok_or_else(|| format!("\"{text}\" is not a number of days"))
}

/// Runs one command.
pub(crate) async fn run(command: AccessCommand, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    match command {
        AccessCommand::Create(args) => create(&args, client, console).await,
        AccessCommand::Ls(args) => list(&args, client, console).await,
        AccessCommand::Revoke(args) => {
            let mut errors = Vec::new();
            for name in &args.names {
                match client.delete(&Url::new(&["racimo", "access", name])).await {
                    Ok(()) => console.say(name)?,
                    Err(error) => errors.push(error),
                }
            }
            CliError::collect(errors)
        }
        AccessCommand::Log(args) => {
            let url = Url::new(&["racimo", "audit"]).query("lines", &args.tail.to_string());
            let mut lines = client.lines(&url).await?;
            while let Some(line) = lines.next().await? {
                console.say(line)?;
            }
            Ok(())
        }
    }
}

async fn create(args: &CreateArgs, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    // It becomes a folder's name; the manager looks at the rest.
    if args.name.contains('/') || args.name.starts_with('.') || args.name.is_empty() {
        return Err(CliError::Usage(format!("{:?} is no name for an access", args.name)));
    }
    let given = args.host.as_deref().map(host).transpose()?;
    let directory = match &args.out {
        Some(out) => out.clone(),
        None => context::directory(&args.name, console.env)?,
    };
    let directory = std::path::absolute(&directory).map_err(|source| file(&directory, source))?;
    let made = Directory::make(directory)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| unmade(&error))?;
    let csr = CertificateParams::default().serialize_request(&key).and_then(|csr| csr.pem());
    let csr = csr.map_err(|error| unmade(&error))?;
    made.write(KEY, &Zeroizing::new(key.serialize_pem()))?;
    let role = if args.read_only { "read-only" } else { "admin" };
    let validity = args.expires.map_or(0, |Nanos(nanos)| nanos);
    let body = json!({ "Name": args.name, "Role": role, "CSR": csr, "Validity": validity });
    let info = client.get(&Url::new(&["info"])).await?;
    let advertised = self::host(info.text("/Swarm/NodeAddr")).unwrap_or_default();
    let access = client.post(&Url::new(&["racimo", "access"]), &body, &[]).await?;
    let served = access.list("/Hosts").first().and_then(Value::as_str).map(str::to_owned);
    let host = given.or_else(|| served.clone()).unwrap_or(advertised);
    let written = made
        .write(CERTIFICATE, access.text("/Certificate"))
        .and_then(|()| made.write(CA, access.text("/CA")))
        .and_then(|()| made.write(HOST, &format!("{host}\n")));
    if let Err(error) = written {
        // Nobody has what lets them in: it shall not stay.
        client.delete(&Url::new(&["racimo", "access", &args.name])).await?;
        return Err(error);
    }
    let directory = made.keep();
    if args.quiet {
        console.say(&directory)?;
    } else {
        let context = if args.out.is_some() { &directory } else { &args.name };
        console.say(page(&args.name, &access, &directory, context, &host))?;
    }
    if served.is_none() {
        console.warn(NOT_SERVED)?;
    }
    Ok(())
}

const NOT_SERVED: &str = "WARNING: the manager does not serve its API over the network yet. Add to its command line

    --api unix:///run/racimo/pi-mgr.sock --api tcp://0.0.0.0:2376

or to /etc/racimo/manager.toml

    api = [\"unix:///run/racimo/pi-mgr.sock\", \"tcp://0.0.0.0:2376\"]

and restart it.";

/// What to do with it.
fn page(name: &str, access: &Value, directory: &str, context: &str, host: &str) -> String {
    let (role, until) = (access.text("/Role"), access.text("/ExpiresAt"));
    let shell = quoted(directory);
    format!(
        "Access {name} ({role}) is good until {until}.
Its key and certificates are in {directory}: copy that directory to where it is used.

pi-mgr:

    pi-mgr --context {} node ls

docker, with variables or with a context:

    export DOCKER_HOST={host} DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH={shell}

    docker context create {name} --docker {}
",
        quoted(context),
        quoted(&format!("host={host},ca={directory}/{CA},cert={directory}/{CERTIFICATE},key={directory}/{KEY}")),
    )
}

/// As a shell takes it for one word.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_./-:=,@".contains(c);
    if text.chars().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// `cluster.example`, `10.0.0.1:2376`, `tcp://…` as `tcp://HOST:PORT`.
fn host(text: &str) -> Result<String, CliError> {
    let is_bare_v6 = text.parse::<std::net::Ipv6Addr>().is_ok();
    let url = match text.contains("://") {
        true => text.to_owned(),
        false if is_bare_v6 => format!("tcp://[{text}]"),
        false => format!("tcp://{text}"),
    };
    match Target::parse_with(&url, PORT_TLS).map_err(CliError::Usage)? {
        target @ Target::Tcp(..) => Ok(target.to_string()),
        Target::Unix(_) => Err(CliError::Usage(format!("--host {text}: expected HOST[:PORT]"))),
    }
}

fn unmade(error: &dyn std::fmt::Display) -> CliError {
    CliError::Usage(format!("cannot make a key: {error}"))
}

fn file(path: &Path, source: io::Error) -> CliError {
    CliError::Write { path: path.display().to_string(), source }
}

/// A new directory, 0700; removed again unless it is kept.
struct Directory {
    path: PathBuf,
    is_kept: bool,
}

impl Directory {
    fn make(path: PathBuf) -> Result<Self, CliError> {
        let build = |recursive, path: &Path| DirBuilder::new().recursive(recursive).mode(0o700).create(path);
        if let Some(parent) = path.parent() {
            build(true, parent).map_err(|source| file(parent, source))?;
        }
        // Never one that is there: what is in it may be in use.
        build(false, &path).map_err(|source| file(&path, source))?;
        Ok(Self { path, is_kept: false })
    }

    fn write(&self, name: &str, text: &str) -> Result<(), CliError> {
        let path = self.path.join(name);
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        opened.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|source| file(&path, source))
    }

    fn keep(mut self) -> String {
        self.is_kept = true;
        self.path.display().to_string()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.is_kept {
            // What cannot be removed opens nothing.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

const COLUMNS: &[Column] =
    &[column("Name", "NAME"), column("Role", "ROLE"), column("CreatedAt", "CREATED"), column("ExpiresAt", "EXPIRES")];

async fn list(args: &LsArgs, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let found = client.get(&Url::new(&["racimo", "access"])).await?;
    let now = console.now();
    let row = |access: &Value| {
        let created = access.time("/CreatedAt").map(|then| human::title(&human::ago(now - then))).unwrap_or_default();
        let expires = match access.time("/ExpiresAt") {
            Some(then) if then <= now => "Expired".to_owned(),
            Some(then) => format!("in {}", human::span(then - now)),
            None => String::new(),
        };
        json!({ "Name": access.text("/Name"), "Role": access.text("/Role"), "CreatedAt": created, "ExpiresAt": expires })
    };
    let rows = found.list("").iter().map(row).collect();
    let format = match args.quiet && args.format.is_none() {
        true => Format::Template("{{.Name}}".to_owned()),
        false => Format::parse(args.format.as_deref()),
    };
    Table { columns: COLUMNS, rows, cell: |_, _| None }.print(&format, true, console)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        const HOUR: i64 = 3_600_000_000_000;
        for (text, want) in
            [("90d", Some(90 * 24 * HOUR)), ("12h", Some(12 * HOUR)), ("0d", None), ("d", None), ("x", None)]
        {
            assert_eq!(days(text).ok(), want.map(Nanos), "{text}");
        }
        assert!(days("4294967295d").is_err() && days("-1d").is_err());
    }

    #[test]
    fn hosts() {
        for (text, want) in [
            ("pi", Some("tcp://pi:2376")),
            ("10.0.0.1:99", Some("tcp://10.0.0.1:99")),
            ("fd00::1", Some("tcp://[fd00::1]:2376")),
            ("tcp://pi:1", Some("tcp://pi:1")),
            ("unix:///x", None),
            ("", None),
        ] {
            assert_eq!(host(text).ok().as_deref(), want, "{text}");
        }
        assert_eq!(quoted("/a/b-c"), "/a/b-c");
        assert_eq!(quoted("/a b'c"), r"'/a b'\''c'");
    }
}
