//! `pi-mgr access …`: who may use the API over the network.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use racimo_common::tls::{self, ServerName};
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
use crate::ca::Holder;

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
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = parse::days)]
    expires: Option<Nanos>,
    /// Directory to write, which must not be there [default: ~/.config/racimo/contexts/NAME; that of an access that was
    /// revoked is replaced]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where clients reach the manager [default: what it is advertised as]
    #[arg(long, value_name = "HOST[:PORT]")]
    host: Option<String>,
    /// Only show the directory
    #[arg(short, long)]
    quiet: bool,
    /// Name: of a person or program
    #[arg(value_parser = parse::name)]
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
    #[arg(required = true, value_name = "NAME", value_parser = parse::name)]
    names: Vec<String>,
}

/// `log`.
#[derive(Args, Debug)]
pub(crate) struct LogArgs {
    /// How many lines
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 50)]
    tail: u32,
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
    if args.name.contains('/') || args.name.starts_with('.') {
        return Err(CliError::Usage(format!("{:?} is no name for an access", args.name)));
    }
    let given = args.host.as_deref().map(host).transpose()?;
    let directory = match &args.out {
        Some(out) => out.clone(),
        None => context::directory(&args.name, console.env)?,
    };
    let directory = std::path::absolute(&directory).map_err(|source| file(&directory, source))?;
    let made = match fs::symlink_metadata(&directory) {
        Err(_) => Directory::make(directory)?,
        Ok(_) if args.out.is_none() && is_over(&args.name, &directory, client).await? => {
            Directory::instead_of(directory)?
        }
        Ok(_) => {
            let path = directory.display();
            let text = format!("{path} is there already: remove it, or name another directory with --out");
            return Err(CliError::Refused(text));
        }
    };
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| unmade(&error))?;
    let csr = CertificateParams::default().serialize_request(&key).and_then(|csr| csr.pem());
    let csr = csr.map_err(|error| unmade(&error))?;
    made.write(KEY, &Zeroizing::new(key.serialize_pem()))?;
    let role = if args.read_only { "read-only" } else { "admin" };
    let validity = args.expires.map_or(0, |Nanos(nanos)| nanos);
    let body = json!({ "Name": args.name, "Role": role, "CSR": csr, "Validity": validity });
    let info = client.get(&Url::new(&["info"])).await?;
    let advertised = self::host(info.text("/Swarm/NodeAddr")).unwrap_or_default();
    let posted = client.post(&Url::new(&["racimo", "access"]), &body, &[]).await;
    let access = posted.map_err(|error| if error.is_conflict() { taken(&args.name) } else { error })?;
    let served = access.list("/Hosts").first().and_then(Value::as_str).map(str::to_owned);
    let host = given.or_else(|| served.clone()).unwrap_or(advertised);
    let written = made
        .write(CERTIFICATE, access.text("/Certificate"))
        .and_then(|()| made.write(CA, access.text("/CA")))
        .and_then(|()| made.write(HOST, &format!("{host}\n")))
        .and_then(|()| made.keep());
    let directory = match written {
        Ok(directory) => directory,
        Err(error) => {
            // Nobody has what lets them in: it shall not stay.
            client.delete(&Url::new(&["racimo", "access", &args.name])).await?;
            return Err(error);
        }
    };
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

/// Whether a directory is what was written for an access of this name and this cluster, which the manager does not have
/// any more.
async fn is_over(name: &str, directory: &Path, client: &mut Client) -> Result<bool, CliError> {
    let accesses = client.get(&Url::new(&["racimo", "access"])).await?;
    if accesses.list("").iter().any(|access| access.text("/Name") == name) {
        return Err(taken(name));
    }
    let Some(holder) = holder(directory).filter(|holder| holder.name == name) else { return Ok(false) };
    let info = client.get(&Url::new(&["info"])).await?;
    Ok(info.text("/Swarm/Cluster/ID") == holder.cluster.to_string())
}

/// Whose a directory is that has what `create` writes, and nothing else.
fn holder(directory: &Path) -> Option<Holder> {
    let is_ours = |name: &std::ffi::OsStr| [CA, CERTIFICATE, KEY, HOST].iter().any(|ours| name == *ours);
    let mut entries = fs::read_dir(directory).ok()?;
    if !entries.all(|entry| entry.is_ok_and(|entry| is_ours(&entry.file_name()))) {
        return None;
    }
    let pem = fs::read_to_string(directory.join(CERTIFICATE)).ok()?;
    Holder::of(&tls::certificate_from_pem(&pem).ok()?).ok()
}

fn taken(name: &str) -> CliError {
    CliError::Refused(format!(
        "access {name} already exists: `pi-mgr access revoke {name}` first, or choose another name"
    ))
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
    let expected = || CliError::Usage(format!("--host {text:?}: expected a DNS name or an address, and perhaps :PORT"));
    match Target::parse_with(&url, PORT_TLS).map_err(CliError::Usage)? {
        Target::Tcp(host, _) if ServerName::try_from(host.as_str()).is_err() => Err(expected()),
        target @ Target::Tcp(..) => Ok(target.to_string()),
        Target::Unix(_) => Err(expected()),
    }
}

fn unmade(error: &dyn std::fmt::Display) -> CliError {
    CliError::Refused(format!("cannot make a key: {error}"))
}

fn file(path: &Path, source: io::Error) -> CliError {
    CliError::Write { path: path.display().to_string(), source }
}

/// A new directory, 0700; removed again unless it is kept.
struct Directory {
    path: PathBuf,
    /// What it takes the place of.
    replaces: Option<PathBuf>,
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
        Ok(Self { path, replaces: None, is_kept: false })
    }

    /// Beside one that it replaces when it is kept.
    fn instead_of(path: PathBuf) -> Result<Self, CliError> {
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(".new");
        let beside = path.with_file_name(name);
        // Of a run that was cut short: no access has such a name.
        match fs::remove_dir_all(&beside) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(file(&beside, source)),
            Ok(()) | Err(_) => {}
        }
        let mut made = Self::make(beside)?;
        made.replaces = Some(path);
        Ok(made)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), CliError> {
        let path = self.path.join(name);
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        opened.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|source| file(&path, source))
    }

    fn keep(mut self) -> Result<String, CliError> {
        if let Some(path) = self.replaces.take() {
            fs::remove_dir_all(&path)
                .and_then(|()| fs::rename(&self.path, &path))
                .map_err(|source| file(&path, source))?;
            self.path = path;
        }
        self.is_kept = true;
        Ok(self.path.display().to_string())
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
    fn a_directory_is_replaced_once_the_new_one_is_whole() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("ann");
        let read = || fs::read_to_string(path.join(HOST)).expect("there");
        let old = Directory::make(path.clone()).expect("made");
        old.write(HOST, "old").expect("written");
        old.keep().expect("kept");
        assert!(Directory::make(path.clone()).is_err());
        let new = Directory::instead_of(path.clone()).expect("made");
        new.write(HOST, "cut short").expect("written");
        std::mem::forget(new);
        let new = Directory::instead_of(path.clone()).expect("made");
        drop(new);
        assert_eq!(read(), "old");
        let new = Directory::instead_of(path.clone()).expect("made");
        new.write(HOST, "new").expect("written");
        assert_eq!(new.keep().ok(), Some(path.display().to_string()));
        assert_eq!(read(), "new");
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 1);
    }

    #[test]
    fn whose_a_directory_is() {
        use racimo_common::id::{ClusterId, RandomId};
        let (now, rng) = (racimo_common::time::Clock::start().now().wall, ring::rand::SystemRandom::new());
        let ca = crate::ca::Ca::create(ClusterId::from_bits(7), now, &rng).expect("a root");
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let csr = CertificateParams::default().serialize_request(&key).expect("a request");
        let csr = crate::ca::CertRequest::parse(csr.der()).expect("a request");
        let role = crate::store::AccessRole::Admin;
        let hour = std::time::Duration::from_secs(3600);
        let signed = ca.issue_access(&csr, "ann", role, now, hour, &rng).expect("signed");
        let folder = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
        let whose = || holder(folder.path()).map(|holder| (holder.name, holder.cluster));
        assert_eq!(whose(), None);
        write(CERTIFICATE, &tls::certificate_to_pem(&signed.der));
        assert_eq!(whose(), Some(("ann".to_owned(), ClusterId::from_bits(7))));
        write("notes", "mine");
        assert_eq!(whose(), None, "somebody keeps something else there");
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
            ("a b", None),
            ("tcp://a b:1", None),
            ("a..b", None),
            ("-a", None),
            ("pi,pj", None),
        ] {
            assert_eq!(host(text).ok().as_deref(), want, "{text}");
        }
        assert_eq!(quoted("/a/b-c"), "/a/b-c");
        assert_eq!(quoted("/a b'c"), r"'/a b'\''c'");
    }
}
