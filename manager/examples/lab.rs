//! The lab as a tool: `make lab`, `make lab-board N=2 DO=cut`, …

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, Subcommand};

#[path = "../tests/lab/mod.rs"]
mod lab;

use lab::board::{Board, Verb as BoardVerb};
use lab::manager::Verb as ManagerVerb;
use lab::names::Name;
use lab::{Config, Lab, down, http, leftovers, state, sweep};

/// Boards, a manager and a registry on this machine, to try Racimo with.
#[derive(Parser)]
#[command(name = "lab")]
struct Arguments {
    /// The lab's name: a lower-case letter, then letters and digits, at most 8.
    #[arg(long, global = true, default_value = "lab", env = "LAB")]
    lab: Name,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a lab and leave it running.
    Up {
        /// How many boards.
        #[arg(long, default_value_t = 3)]
        boards: u8,
        /// Containerd and registry only: no manager, no agents.
        #[arg(long)]
        bare: bool,
        /// An agent on the manager's own board too (board 0).
        #[arg(long)]
        manager_agent: bool,
    },
    /// Print shell exports: eval "$(lab env)".
    Env,
    /// Show what runs.
    Status,
    /// Act on a board.
    Board {
        /// Which one, from 1.
        number: String,
        /// cut, heal, kill-agent, start-agent, power-off, power-on, freeze,
        /// thaw, or delay with milliseconds.
        verb: Vec<String>,
    },
    /// Run a command on a board's network, as a process of this machine otherwise.
    Exec {
        /// Which board, from 1.
        number: String,
        /// The command: ip addr, nft list ruleset, curl http://127.0.0.1/, …
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Fetch a page from a board over HTTP.
    Curl {
        /// Which board, from 1.
        number: String,
        /// The port, and the path if it is not /: 80, 8080/index.html.
        page: String,
        /// Ask from this board instead of from this machine; from itself: on 127.0.0.1.
        #[arg(long)]
        from: Option<String>,
    },
    /// What curl does once it is in the board's network.
    #[command(hide = true)]
    Fetch { address: SocketAddr, path: String },
    /// Act on the manager.
    Manager {
        /// kill or start.
        verb: Option<String>,
    },
    /// Act on the registry.
    Registry {
        /// kill or start.
        verb: Option<String>,
    },
    /// End the lab and remove all of it.
    Down,
    /// List what is there of the lab on this machine; fails if anything is.
    Leftovers,
    /// End labs of tests that died.
    Sweep,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("lab: {cause:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(Arguments { lab: name, command }: Arguments) -> Result<()> {
    match command {
        Command::Up { boards, bare, manager_agent } => up(name, boards, !bare, manager_agent),
        Command::Env => {
            for (key, value) in Lab::open(name)?.env() {
                println!("export {key}='{value}'");
            }
            println!("export PATH=\"$LAB_BIN_DIR:$PATH\"");
            Ok(())
        }
        Command::Status => status(&Lab::open(name)?),
        Command::Board { number, verb } => {
            let verb = board_verb(&verb)?;
            let lab = Lab::open(name)?;
            board(&lab, &number)?.act(verb)
        }
        Command::Exec { number, command } => {
            let lab = Lab::open(name)?;
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            Err(become_command(&board(&lab, &number)?.on_its_network(&command)))
        }
        Command::Curl { number, page, from } => {
            let lab = Lab::open(name)?;
            let board = board(&lab, &number)?;
            let (port, path) = page.split_once('/').unwrap_or((&page, ""));
            let port: u16 = port.parse().with_context(|| format!("{page:?}: expected PORT or PORT/PATH"))?;
            let from = from.map(|from| self::board(&lab, &from)).transpose()?;
            let itself = from.is_some_and(|from| from.number == board.number);
            let address = if itself { Ipv4Addr::LOCALHOST } else { board.address() };
            let address = SocketAddr::from((address, port));
            let Some(from) = from else { return fetch(address, path) };
            // In that board's network: once more this program.
            let program = std::env::current_exe()?.to_string_lossy().into_owned();
            let again = [&program, "fetch", &address.to_string(), path];
            Err(become_command(&from.on_its_network(&again)))
        }
        Command::Fetch { address, path } => fetch(address, &path),
        Command::Manager { verb } => {
            let manager_verb = match verb.as_deref() {
                Some("kill") => ManagerVerb::Kill,
                Some("start") => ManagerVerb::Start,
                other => bail!("manager: expected kill or start, not {:?}", other.unwrap_or("")),
            };
            Lab::open(name)?.manager().act(manager_verb)
        }
        Command::Registry { verb } => match verb.as_deref() {
            Some("kill") => Lab::open(name)?.registry().kill(),
            Some("start") => Lab::open(name)?.start_registry(),
            other => bail!("registry: expected kill or start, not {:?}", other.unwrap_or("")),
        },
        Command::Down => {
            let was_there = down(&name)?;
            leftovers::expect_none(&name)?;
            println!("lab {name} {}", if was_there { "is gone" } else { "was not there" });
            Ok(())
        }
        Command::Leftovers => {
            let found = leftovers::find(&name)?;
            found.iter().for_each(|thing| println!("{thing}"));
            if found.is_empty() { Ok(()) } else { bail!("{} things of lab {name} are there", found.len()) }
        }
        Command::Sweep => sweep(),
    }
}

fn board<'a>(lab: &'a Lab, number: &str) -> Result<Board<'a>> {
    let number =
        number.parse().with_context(|| format!("board {number:?}: expected its number (make lab-board N=2 DO=cut)"))?;
    lab.board(number)
}

/// Prints a page; fails as `curl -f` does.
fn fetch(address: SocketAddr, path: &str) -> Result<()> {
    let answer = http::request(&http::Target::Tcp(address), "GET", &format!("/{path}"), "", b"")?;
    ensure!(answer.status < 400, "http://{address}/{path}: status {}", answer.status);
    Ok(std::io::stdout().write_all(&answer.body)?)
}

/// Turns this process into another command; comes back with the error.
fn become_command(argv: &[String]) -> anyhow::Error {
    let error = std::process::Command::new(&argv[0]).args(&argv[1..]).exec();
    anyhow::Error::new(error).context(format!("cannot run {}", argv[0]))
}

fn board_verb(words: &[String]) -> Result<BoardVerb> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Ok(match words.as_slice() {
        ["cut"] => BoardVerb::Cut,
        ["heal"] => BoardVerb::Heal,
        ["kill-agent"] => BoardVerb::KillAgent,
        ["start-agent"] => BoardVerb::StartAgent,
        ["power-off"] => BoardVerb::PowerOff,
        ["power-on"] => BoardVerb::PowerOn,
        ["freeze"] => BoardVerb::Freeze,
        ["thaw"] => BoardVerb::Thaw,
        ["delay", ms] => BoardVerb::Delay(ms.parse().with_context(|| format!("delay {ms:?}: expected milliseconds"))?),
        other => bail!(
            "board: expected cut, heal, kill-agent, start-agent, power-off, power-on, freeze, thaw \
             or delay MS, not {:?}",
            other.join(" ")
        ),
    })
}

fn up(name: Name, boards: u8, cluster: bool, manager_agent: bool) -> Result<()> {
    let lab = Lab::up(Config { name, boards, cluster, manager_agent, owner: None })?;
    let name = &lab.name;
    println!("lab {name}: {boards} boards, registry {}, in {}", lab.registry().host(), lab.directory.display());
    println!("  eval \"$(make -s lab-env LAB={name})\"      then: pi-mgr node ls, docker node ls");
    println!("  make lab-board LAB={name} N=1 DO=power-off");
    println!("  make lab-down LAB={name}");
    Ok(())
}

fn status(lab: &Lab) -> Result<()> {
    let process = |found: Option<lab::process::Process>| {
        found.map_or_else(|| "not running".to_owned(), |process| format!("pid {}", process.pid))
    };
    println!("lab {} in {}, of {} on this machine", lab.name, lab.directory.display(), state::labs().len());
    println!("registry  {}", lab.registry().host());
    println!("manager   {}", process(lab.manager().process()));
    for board in lab.boards() {
        let power = if board.is_on() { "on" } else { "off" };
        let cable = if board.number == 0 || board.is_plugged()? { "plugged in" } else { "cut" };
        println!(
            "{:9} {} power {power}, cable {cable}, containerd {}, agent {}, {} processes",
            board.hostname(),
            board.address(),
            process(board.containerd_process()),
            process(board.agent()),
            board.processes().len()
        );
    }
    Ok(())
}
