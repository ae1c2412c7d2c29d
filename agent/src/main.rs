//! The agent daemon: `pi-agent run`, and `pi-agent join` which gets it into a cluster.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;

use anyhow::{Context as _, Result, anyhow, bail};
use async_channel::Receiver;
use futures_lite::StreamExt;
use lexopt::{Arg, Parser};
use racimo_agent::app::{self, Stop};
use racimo_agent::config::{Config, Given};
use racimo_agent::identity::{Identity, IdentityError, Turn};
use racimo_agent::leave::{Ask, LEFT, MANAGERS_OWN, NOT_IN};
use racimo_agent::link::join;
use racimo_agent::link::places::Places;
use racimo_agent::net::wireguard;
use racimo_agent::{alloc, control, limits, logs, usage};
use racimo_common::logger;
use racimo_common::token::JoinToken;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit, setrlimit};
use smol::{LocalExecutor, Timer};

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

fn main() -> ExitCode {
    // First of all: there is one such process per container, and it shall be small.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|mode| mode == "log") {
        return match logs::process::run(arguments.next().as_deref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("pi-agent: {why}");
                ExitCode::from(2)
            }
        };
    }
    alloc::set_limit(limits::HEAP_MAX);
    match command() {
        Ok(code) => code,
        // The command line is wrong. Without its causes: a text of ours would be its own.
        Err(error) if error.is::<lexopt::Error>() => {
            eprintln!("pi-agent: {error}; see pi-agent help");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("pi-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command() -> Result<ExitCode> {
    let mut parser = Parser::from_env();
    let command = match parser.next()? {
        Some(Arg::Value(command)) => command,
        None | Some(Arg::Long("help") | Arg::Short('h')) => return Ok(help()),
        Some(other) => bail!(other.unexpected()),
    };
    match command.to_str() {
        Some("run") => run(parser),
        Some("join") => join_cluster(parser),
        Some("leave") => leave(parser, true),
        Some("reset-identity") => leave(parser, false),
        Some("version") => {
            println!("pi-agent {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
        Some("help") => Ok(help()),
        Some(_) | None => bail!(lexopt::Error::from(format!("unknown command {command:?}"))),
    }
}

fn help() -> ExitCode {
    print!("{}", usage::text());
    ExitCode::SUCCESS
}

/// Flags, environment and file; what is no flag of the configuration goes to `other`.
fn configure(
    mut parser: Parser,
    other: &mut dyn FnMut(&str, &mut Parser) -> Result<bool>,
) -> Result<(Config, Vec<OsString>)> {
    let mut given = Given::default();
    let mut values = Vec::new();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("help") | Arg::Short('h') => {
                help();
                std::process::exit(0);
            }
            Arg::Long(name) => {
                let name = name.to_owned();
                if !other(&name, &mut parser)? {
                    given.flag(&name, || parser.value())?;
                }
            }
            short @ Arg::Short(_) => bail!(short.unexpected()),
            Arg::Value(value) => values.push(value),
        }
    }
    given.environment(|name| std::env::var(name).ok());
    let config = given.resolve().map_err(|faults| anyhow!("{faults}"))?;
    Ok((config, values))
}

/// The same for a command that takes nothing else.
fn configured(parser: Parser) -> Result<Config> {
    let (config, values) = configure(parser, &mut |_, _| Ok(false))?;
    match values.into_iter().next() {
        Some(value) => bail!(lexopt::Error::UnexpectedArgument(value)),
        None => Ok(config),
    }
}

fn join_cluster(parser: Parser) -> Result<ExitCode> {
    let (mut token, mut is_again) = (None, false);
    let (config, values) = configure(parser, &mut |name, parser| {
        match name {
            "token" => token = Some(parser.value()?),
            "again" => is_again = true,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    logger::start(config.log_level);
    if config.manager_socket.is_some() {
        bail!(
            "this board's manager runs here (manager-socket), and is whom its agent asks: a board of another cluster has none"
        );
    }
    // The environment keeps the token out of `ps`.
    let token = token.or_else(|| std::env::var_os("RACIMO_TOKEN"));
    let needed = || lexopt::Error::from("a join token is needed: pi-agent join --token TOKEN HOST[:PORT]");
    let token = token.ok_or_else(needed)?;
    let token = JoinToken::parse(token.to_str().unwrap_or_default())?;
    let [address] = values.as_slice() else {
        bail!(lexopt::Error::from("expected one manager address: pi-agent join --token TOKEN HOST[:PORT]"));
    };
    let address = address.to_str().context("the manager's address: expected UTF-8 text")?;
    let hostname = match &config.hostname {
        Some(name) => name.clone(),
        None => std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned(),
    };
    if !is_again {
        join::refuse_member(&config.data)?;
    }
    let rng = ring::rand::SystemRandom::new();
    let joined = smol::block_on(join::join(&config.data, address, &token, &hostname, &rng))?;
    println!("This board joined the cluster as node {}. It runs tasks as soon as `pi-agent run` does.", joined.node);
    Ok(ExitCode::SUCCESS)
}

/// Takes this board out of its cluster; `tells`: the manager hears of it. A running agent does it, or this process with
/// what an agent has.
fn leave(parser: Parser, tells: bool) -> Result<ExitCode> {
    let config = configured(parser)?;
    logger::start(config.log_level.min(log::LevelFilter::Warn));
    if config.manager_socket.is_some() {
        bail!(MANAGERS_OWN);
    }
    let Some(_lock) = try_lock(&config.data)? else {
        if !tells {
            bail!("pi-agent runs with {}: stop it first", config.data.display());
        }
        let path = control::path(&config.run);
        let unreached = || {
            let (data, path) = (config.data.display(), path.display());
            format!(
                "pi-agent runs with {data}, but does not answer at {path}; give its --run-dir, or stop it and try again"
            )
        };
        return match smol::block_on(control::leave(&config.run)).with_context(unreached)? {
            Ok(said) => {
                println!("{said}");
                Ok(ExitCode::SUCCESS)
            }
            Err(why) => bail!("{why}"),
        };
    };
    let said = match Identity::load(&config.data) {
        Ok(None) if tells => bail!("{NOT_IN}"),
        Ok(None) => "This board has no identity: there is nothing to erase.".to_owned(),
        Ok(Some(mut identity)) => {
            let mut config = config;
            if !tells {
                // Nobody is dialled.
                Places::erase(&config.data).context("erase where managers are")?;
                identity.managers.clear();
                config.discover = false;
            }
            let said = leave_here(&config, identity, tells)?;
            if tells { said } else { "This board's identity is erased.".to_owned() + said.trim_start_matches(LEFT) }
        }
        // Then there is nothing that a manager would believe.
        Err(IdentityError::Damaged { .. }) if !tells => {
            Identity::erase(&config.data)?;
            wireguard::key::erase(&config.data).context("erase the key for encrypted networks")?;
            "This board's identity, which was damaged, is erased.".to_owned()
        }
        Err(error) => return Err(error.into()),
    };
    println!("{said}");
    if !tells {
        println!("To make it a node of its own: pi-agent join --token TOKEN HOST[:PORT], and start pi-agent.");
    }
    Ok(ExitCode::SUCCESS)
}

/// Leaves without a running agent; what was done.
fn leave_here(config: &Config, identity: Identity, tells: bool) -> Result<String> {
    racimo_agent::limit_threads();
    allow_files();
    let executor = Rc::new(LocalExecutor::new());
    let (ask, asks) = async_channel::bounded(1);
    let (answer, answered) = async_channel::bounded(1);
    // Kept open: a closed channel would read as a stop.
    let (_stop, stopped) = async_channel::bounded(1);
    ask.try_send(Ask { tells, answer })?;
    let work = app::run(executor.clone(), config.clone(), Some(identity), stopped, asks);
    smol::block_on(executor.run(work))?;
    answered.try_recv().context("nothing was done")?.map_err(|why| anyhow!(why))
}

fn run(parser: Parser) -> Result<ExitCode> {
    let config = configured(parser)?;
    logger::start(config.log_level);
    let _lock = lock(&config.data)?;
    // Name resolution and file reads need no more; each idle thread costs memory.
    racimo_agent::limit_threads();
    allow_files();
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.clone().run(serve(executor.clone(), config)))
}

/// Raises the number of files the agent may have open, as far as it may: tasks have several each. No container inherits
/// it: containerd starts them.
fn allow_files() {
    let wanted = limits::FILES_MAX as u64;
    let mut files = getrlimit(Resource::Nofile);
    let wanted = files.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if files.current.is_some_and(|current| current < wanted) {
        files.current = Some(wanted);
        if let Err(error) = setrlimit(Resource::Nofile, files) {
            log::warn!("cannot have more files open at once: {error}");
        }
    }
}

/// Makes sure that no other agent works on `data`; the answer must be kept.
fn lock(data: &Path) -> Result<File> {
    let locked = try_lock(data)?;
    locked.with_context(|| {
        format!("another pi-agent runs with {}; stop it, or give this one a --data-dir of its own", data.display())
    })
}

/// None: another agent works on `data`. The kernel lets go of it however we end.
fn try_lock(data: &Path) -> Result<Option<File>> {
    racimo_common::durable::make_dir(data).with_context(|| format!("make {}", data.display()))?;
    let path = data.join("agent.lock");
    let file = File::create(&path).with_context(|| format!("open {}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}

async fn serve(executor: Rc<LocalExecutor<'static>>, config: Config) -> Result<ExitCode> {
    let mut signals = async_signal::Signals::new([async_signal::Signal::Term, async_signal::Signal::Int])?;
    let (stop, stopped) = async_channel::bounded(1);
    let waiting = executor.spawn(async move {
        if signals.next().await.is_some() {
            let _ = stop.send(()).await;
        }
        // Kept open: a closed channel would read as a stop.
        smol::future::pending::<()>().await;
    });
    let (asks, asked) = async_channel::bounded(1);
    let commands = match control::listen(&config.run) {
        Ok(listener) => Some(executor.spawn(control::serve(listener, asks))),
        Err(error) => {
            let path = control::path(&config.run);
            log::warn!("commands like `pi-agent leave` will not reach this agent: {}: {error}", path.display());
            None
        }
    };
    loop {
        let identity = if config.manager_socket.is_some() {
            None
        } else {
            match identity(&config.data, &stopped, &asked).await? {
                Some(identity) => Some(identity),
                None => return Ok(ExitCode::SUCCESS),
            }
        };
        match app::run(executor.clone(), config.clone(), identity, stopped.clone(), asked.clone()).await? {
            Stop::Asked => break,
            Stop::Rejoined => log::info!("this board joined again"),
            Stop::Left => log::warn!("this board left its cluster"),
        }
    }
    drop((waiting, commands));
    Ok(ExitCode::SUCCESS)
}

/// Waits until the board has an identity; `None` if the agent is asked to stop first.
async fn identity(data: &Path, stopped: &Receiver<()>, asked: &Receiver<Ask>) -> Result<Option<Identity>> {
    let mut told = false;
    loop {
        // This thread waits for nobody: who has the turn now is done the next time.
        let turn = Turn::try_take(data);
        if let Some(turn) = &turn
            && let Some(identity) = turn.load()?
        {
            log::info!("this board is node {} of cluster {}", identity.node, identity.cluster);
            if let Err(error) = wireguard::key::erase_old(data) {
                log::warn!("the key for encrypted networks of the node that this board was is still there: {error}");
            }
            return Ok(Some(identity));
        }
        if turn.is_some() && !told {
            log::warn!("this board is in no cluster yet: run `pi-agent join --token TOKEN HOST[:PORT]`");
            told = true;
        }
        drop(turn);
        let stops = async { stopped.recv().await.is_ok() };
        let later = async {
            Timer::after(limits::IDENTITY_EVERY).await;
            false
        };
        let refuse = async {
            while let Ok(Ask { answer, .. }) = asked.recv().await {
                // Who asked may have gone.
                let _ = answer.try_send(Err(NOT_IN.to_owned()));
            }
            smol::future::pending().await
        };
        if smol::future::or(stops, smol::future::or(later, refuse)).await {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_has_one_agent() {
        let directory = tempfile::tempdir().expect("a directory");
        let data = directory.path().join("agent");
        let first = lock(&data).expect("nobody else");
        let refused = lock(&data).expect_err("somebody else");
        assert!(refused.to_string().contains("another pi-agent"), "{refused}");
        drop(first);
        lock(&data).expect("nobody else");
    }

    #[test]
    fn who_holds_the_identity_does_not_hold_up_the_agent() {
        let directory = tempfile::tempdir().expect("a directory");
        let _turn = Turn::take(directory.path()).expect("nobody else");
        let (stop, stopped) = async_channel::bounded(1);
        let (_ask, asked) = async_channel::bounded(1);
        stop.try_send(()).expect("room");
        let found = smol::block_on(identity(directory.path(), &stopped, &asked)).expect("no fault");
        assert!(found.is_none());
    }
}
