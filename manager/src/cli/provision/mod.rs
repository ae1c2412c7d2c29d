//! `pi-mgr provision [USER@]BOARD`: makes a node of a machine with Debian or Raspberry Pi OS, over the system's `ssh`.
//!
//! ```text
//! ask the manager ─▶ connect ─▶ look (probe.sh ─▶ facts) ─▶ plan ─┬─▶ reasons against it: the end
//!                                                                 ▼
//!       ready at the manager ◀─ start.sh ◀─ availability ◀─ packages.sh, agent.sh, apply.sh as planned
//! ```
//!
//! What a board is told, and how it joins, is the same as for images: the programs of `images/files/usr/lib/racimo` are
//! sent there and run with a `racimo.toml`, kept in memory, that has the token.

mod debs;
mod facts;
mod plan;
mod said;
mod settings;
mod ssh;

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use smol::Timer;
use zeroize::Zeroizing;

use self::debs::Debs;
use self::facts::{Facts, Identity, Root};
use self::plan::{Package, Plan, Step, Wanted, plan};
use self::said::{Stage, failed};
pub(super) use self::settings::Settings;
use self::ssh::{Destination, Remote, SshError};
use super::client::Client;
use super::console::Console;
use super::error::CliError;
use super::format::template::Template;
use super::json::Peek;
use super::limits::{PROVISION_POLL, PROVISION_READY_MAX};
use super::node::{self, Availability};
use super::swarm;
use super::url::Url;

/// What images run on a board, and where they read its settings.
const PROGRAMS: [(&str, &str); 5] = [
    ("board.sh", include_str!("../../../../images/files/usr/lib/racimo/board.sh")),
    ("import", include_str!("../../../../images/files/usr/lib/racimo/import")),
    ("join", include_str!("../../../../images/files/usr/lib/racimo/join")),
    ("join-file", include_str!("../../../../images/files/usr/lib/racimo/join-file")),
    ("90-racimo.conf", include_str!("../../../../images/files/etc/systemd/system/pi-agent.service.d/90-racimo.conf")),
];

/// How a board is looked at.
const PROBE: &str = concat!(include_str!("locks.sh"), include_str!("probe.sh"));
/// How packages of its own apt are installed.
const PACKAGES: &str = concat!(include_str!("locks.sh"), include_str!("apt.sh"), include_str!("packages.sh"));
/// How ours is.
const AGENT: &str = concat!(include_str!("locks.sh"), include_str!("apt.sh"), include_str!("agent.sh"));

/// How what shall run is started.
const START: &str = include_str!("start.sh");

/// `provision`.
#[derive(Args, Debug)]
pub(crate) struct ProvisionArgs {
    /// Private key for ssh
    #[arg(short, long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Port of the board's ssh
    #[arg(short, long, value_name = "PORT")]
    port: Option<u16>,
    /// Configuration file of ssh [default: ssh's own]
    #[arg(short = 'F', long, value_name = "FILE")]
    ssh_config: Option<PathBuf>,
    /// Directory with our packages, as `make dist` writes them [default: what the board has, or its apt]
    #[arg(long, value_name = "DIR")]
    debs: Option<PathBuf>,
    /// Address at which the board reaches the manager: HOST[:PORT] [default: what the manager says]
    #[arg(long, value_name = "ADDR", value_parser = settings::manager)]
    manager: Option<String>,
    /// The board's host name [default: as it is]
    #[arg(long, value_name = "NAME", value_parser = settings::hostname)]
    hostname: Option<String>,
    /// Engine label of the board; all of them replace those that it was given before (KEY=VALUE; repeatable)
    #[arg(long, value_name = "LABEL", value_parser = settings::label)]
    label: Vec<(String, String)>,
    /// Whether the node takes tasks [default: as it is; active for a new one]
    #[arg(long)]
    availability: Option<Availability>,
    /// Only show the node's id
    #[arg(short, long, conflicts_with = "format")]
    quiet: bool,
    /// The result as json, or by a Go template such as '{{.ID}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// The board, as ssh takes it: [USER@]HOST
    #[arg(value_name = "BOARD", value_parser = board)]
    board: String,
}

/// A word that ssh does not take for a flag.
fn board(text: &str) -> Result<String, String> {
    let is_fit = !text.is_empty() && !text.starts_with('-') && !text.chars().any(|c| c.is_control() || c == ' ');
    if is_fit { Ok(text.to_owned()) } else { Err("expected [USER@]HOST".to_owned()) }
}

/// What the manager says about the cluster that the board shall join.
struct Cluster {
    id: String,
    nodes: Vec<String>,
    token: Zeroizing<String>,
    manager: String,
}

/// One board's way into the cluster.
struct Work<'a> {
    board: &'a str,
    remote: Remote,
    settings: Settings,
    debs: Option<Debs>,
    cluster: Cluster,
}

/// Makes a node of a board.
pub(crate) async fn run(args: &ProvisionArgs, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let format = args.format.as_deref().filter(|text| *text != "json").map(Template::parse).transpose()?;
    let debs = args.debs.as_deref().map(Debs::open).transpose()?;
    let settings = Settings::new(args.hostname.clone(), args.label.clone()).map_err(CliError::Usage)?;
    let cluster = ask(args.manager.as_deref(), client).await?;
    settings.check_size(&cluster.manager, &cluster.token).map_err(CliError::Usage)?;
    let destination = Destination {
        name: args.board.clone(),
        identity: args.identity.clone(),
        port: args.port,
        config: args.ssh_config.clone(),
    };
    let remote =
        Remote::connect(destination).map_err(|error| failed(&args.board, Stage::Connect, &error.to_string()))?;
    let mut work = Work { board: &args.board, remote, settings, debs, cluster };
    let facts = work.look()?;
    work.remote.by_sudo(facts.root == Root::Yes && !facts.is_root);
    let plan = plan(&facts, &work.wanted()).map_err(|faults| refused(&args.board, faults))?;
    // What it does goes beside its result, which may be read by a program.
    let mut say = |text: String| if args.quiet { Ok(()) } else { console.warn(text) };
    say(format!("{}: {}", args.board, facts.summary()))?;
    let by_apt = |step: &Step| matches!(step, Step::Packages(_) | Step::Agent(_));
    if let Some(holder) = facts.lock_holder.filter(|_| plan.steps.iter().any(by_apt)) {
        say(format!("Its own apt is at work ({holder}): it is waited for, 5 minutes at most"))?;
    }
    work.carry_out(&plan, &mut say)?;
    let facts = work.look()?;
    let Identity::Member(member) = facts.identity else {
        return Err(failed(&args.board, Stage::Join, "it has no identity after joining"));
    };
    let is_moved = match args.availability {
        Some(availability) => node::set_availability(client, &member.node, availability).await?,
        None => false,
    };
    let started = work.start()?;
    if !started.is_empty() {
        say(format!("Started {}", started.join(", ")))?;
    }
    let is_changed = is_moved || !plan.steps.is_empty() || !started.is_empty();
    if is_changed {
        say("Waiting until it is ready".to_owned())?;
    }
    for warning in &plan.warnings {
        console.warn(format!("Warning: {}: {warning}", args.board))?;
    }
    let seen = work.wait(&member.node, client).await?;
    let (name, node) = (facts.hostname, member.node);
    if args.quiet {
        return Ok(console.say(node)?);
    }
    let availability = seen.text("/Spec/Availability");
    if args.format.is_some() {
        let result = json!({
            "ID": node,
            "Hostname": name,
            "Status": seen.text("/Status/State"),
            "Availability": availability,
            "Changed": is_changed,
        });
        return Ok(console.say(match format {
            Some(template) => template.value(&result)?,
            None => result.to_string(),
        })?);
    }
    let how = if availability == "active" { String::new() } else { format!(", its availability {availability}") };
    Ok(console.say(if is_changed {
        format!("{name} is node {node}. It is ready{how}.")
    } else {
        format!("{name} is already in the cluster, as node {node}; nothing was changed. It is ready{how}.")
    })?)
}

/// Every reason against it, a line each.
fn refused(board: &str, faults: Vec<String>) -> CliError {
    let faults: Vec<CliError> = faults.iter().map(|fault| CliError::Board(format!("{board}: {fault}"))).collect();
    CliError::collect(faults).err().unwrap_or_else(|| CliError::Board(format!("{board}: refused")))
}

async fn ask(manager: Option<&str>, client: &mut Client) -> Result<Cluster, CliError> {
    let swarm = client.get(&Url::new(&["swarm"])).await?;
    let nodes = client.get(&Url::new(&["nodes"])).await?;
    let token = Zeroizing::new(swarm.text("/JoinTokens/Worker").to_owned());
    if token.is_empty() {
        return Err(CliError::Refused("this access is read-only: it does not see join tokens".to_owned()));
    }
    let manager = match manager {
        Some(manager) => manager.to_owned(),
        None => {
            let info = client.get(&Url::new(&["info"])).await?;
            swarm::manager_address(client, info.text("/Swarm/NodeID")).await?
        }
    };
    if !settings::is_reachable(&manager) {
        let text = format!(
            "no board can dial {manager:?}, which is what the manager says of itself: give --manager HOST[:PORT]"
        );
        return Err(CliError::Refused(text));
    }
    let nodes = nodes.list("").iter().map(|node| node.text("/ID").to_owned()).collect();
    Ok(Cluster { id: swarm.text("/ID").to_owned(), nodes, token, manager })
}

impl Work<'_> {
    fn wanted(&self) -> Wanted {
        Wanted {
            cluster: self.cluster.id.clone(),
            nodes: self.cluster.nodes.clone(),
            packages: self.debs.as_ref().map(|debs| debs.packages.clone()),
            settings: !self.settings.is_empty(),
        }
    }

    fn look(&self) -> Result<Facts, CliError> {
        let packages = self.debs.iter().flat_map(|debs| &debs.packages);
        let versions: Vec<&str> = packages.map(|package| &*package.version).collect();
        let said = self.remote.look(PROBE, &versions).map_err(|error| self.failed(Stage::Look, &error))?;
        Facts::parse(&said).ok_or_else(|| failed(self.board, Stage::Look, "its answer is not what a Debian says"))
    }

    fn carry_out(&self, plan: &Plan, say: &mut impl FnMut(String) -> std::io::Result<()>) -> Result<(), CliError> {
        for step in &plan.steps {
            match step {
                Step::Packages(names) if names.is_empty() => say("Finishing what dpkg had begun".to_owned())?,
                Step::Packages(names) => say(format!("Installing {}", names.join(", ")))?,
                Step::Agent(package) => say(format!("Installing pi-agent {}", package.version))?,
                Step::Join => say(format!("Joining the cluster at {}", self.cluster.manager))?,
                Step::Settings => say("Giving it its settings".to_owned())?,
            }
            self.step(step)?;
        }
        Ok(())
    }

    /// Makes sure that what shall run there runs; what did not.
    fn start(&self) -> Result<Vec<String>, CliError> {
        let said = self.remote.act(START, &[], Zeroizing::default());
        said.map(|said| started(&said)).map_err(|error| self.failed(Stage::Start, &error))
    }

    fn step(&self, step: &Step) -> Result<(), CliError> {
        let (stage, done) = match step {
            Step::Packages(names) => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                (Stage::Packages, self.remote.act(PACKAGES, &names, Zeroizing::default()))
            }
            Step::Agent(package) => (Stage::Agent, self.agent(package)?),
            Step::Join => {
                let file = self.settings.file(Some((&self.cluster.manager, &self.cluster.token)));
                (Stage::Join, self.apply("join", &file))
            }
            Step::Settings => (Stage::Settings, self.apply("settings", &self.settings.file(None))),
        };
        done.map(drop).map_err(|error| self.failed(stage, &error))
    }

    fn agent(&self, package: &Package) -> Result<Result<String, SshError>, CliError> {
        let Some(debs) = &self.debs else { return Ok(Ok(String::new())) };
        let bytes = debs.read(package)?;
        let sum: String = digest(&SHA256, &bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let arguments = [&*sum, "pi-agent", &package.version, &package.arch];
        Ok(self.remote.act(AGENT, &arguments, Zeroizing::new(bytes)))
    }

    /// Runs the images' programs with this `racimo.toml`.
    fn apply(&self, what: &str, file: &str) -> Result<String, SshError> {
        self.remote.act(include_str!("apply.sh"), &[what], frames(file))
    }

    /// Waits until the manager calls the node ready; what it says of it then.
    async fn wait(&self, node: &str, client: &mut Client) -> Result<Value, CliError> {
        let begin = Instant::now();
        loop {
            let seen = client.get(&Url::new(&["nodes", node])).await?;
            let state = seen.text("/Status/State");
            if state == "ready" {
                return Ok(seen);
            }
            if begin.elapsed() > PROVISION_READY_MAX {
                let text = format!(
                    "it joined as node {node}, but after {} s the manager calls it {state}",
                    PROVISION_READY_MAX.as_secs()
                );
                return Err(failed(self.board, Stage::Ready, &text));
            }
            Timer::after(PROVISION_POLL).await;
        }
    }

    fn failed(&self, stage: Stage, error: &SshError) -> CliError {
        // No program there says it; a person shall not see it whatever happens.
        failed(self.board, stage, &error.to_string().replace(&**self.cluster.token, "SWMTKN-…"))
    }
}

/// What `start.sh` says that it started.
fn started(said: &str) -> Vec<String> {
    said.lines().filter_map(|line| line.strip_prefix("started ")).map(str::to_owned).collect()
}

/// The files for `apply.sh`, each after a line with its size and name.
fn frames(file: &str) -> Zeroizing<Vec<u8>> {
    let size = PROGRAMS.iter().map(|(name, text)| name.len() + text.len() + 32).sum::<usize>() + file.len() + 64;
    let mut bytes = Zeroizing::new(Vec::with_capacity(size));
    for (name, text) in PROGRAMS {
        bytes.extend_from_slice(format!("{} lib/{name}\n{text}", text.len()).as_bytes());
    }
    bytes.extend_from_slice(format!("{} racimo.toml\n", file.len()).as_bytes());
    bytes.extend_from_slice(file.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_board_is_never_a_flag_of_ssh() {
        for bad in ["", "-oProxyCommand=x", "a b", "a\nb"] {
            assert!(board(bad).is_err(), "{bad}");
        }
        for good in ["pi@192.168.1.21", "kitchen", "ssh://pi@[fd00::1]:22"] {
            assert_eq!(board(good).as_deref(), Ok(good));
        }
    }

    #[test]
    fn only_what_did_not_run_is_started() {
        const SYSTEMD: &str = "
            sleep() { :; }
            systemctl() {
              case $* in
                *is-active*pi-agent*) test -e pi-agent ;;
                'start pi-agent.service') touch pi-agent; echo 'a warning of it' >&2 ;;
                show*) echo MainPID=7 ;;
              esac
            }
        ";
        let board = tempfile::tempdir().expect("a directory");
        let run = || {
            let mut shell = std::process::Command::new("sh");
            let output = shell.args(["-c", &format!("{SYSTEMD}{START}")]).current_dir(board.path()).output();
            let output = output.expect("a shell");
            assert!(output.status.success(), "{output:?}");
            started(&String::from_utf8_lossy(&output.stdout))
        };
        assert_eq!(run(), ["pi-agent"]);
        assert_eq!(run(), Vec::<String>::new());
    }

    #[test]
    fn frames_have_every_program_and_the_file() {
        let bytes = frames("hostname = \"ä\"\n");
        let mut rest = &bytes[..];
        let mut names = Vec::new();
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b'\n').expect("a line");
            let line = std::str::from_utf8(&rest[..end]).expect("text");
            let (size, name) = line.split_once(' ').expect("a size and a name");
            names.push(name.to_owned());
            rest = &rest[end + 1 + size.parse::<usize>().expect("a size")..];
        }
        let want = ["lib/board.sh", "lib/import", "lib/join", "lib/join-file", "lib/90-racimo.conf", "racimo.toml"];
        assert_eq!(names, want);
        assert!(bytes.ends_with("racimo.toml\nhostname = \"ä\"\n".as_bytes()));
    }
}
