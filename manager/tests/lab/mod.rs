//! The lab: boards, a manager and a registry on one machine.
//!
//! Each board is a network namespace on a bridge with its own containerd and
//! agent, which it can lose, get back, or be cut off from. `make lab`, the
//! demo, the benchmarks and the tests with real parts all stand on it.
//!
//! Nothing is kept in memory: everything is found again from the lab's name,
//! so that a crash of the tool leaves nothing that `down` does not find.

#![allow(dead_code, reason = "each program that includes the lab uses a part of it")]

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};

pub(crate) mod board;
mod clock;
pub(crate) mod disk;
mod group;
pub(crate) mod guard;
pub(crate) mod http;
pub(crate) mod image;
pub(crate) mod leftovers;
pub(crate) mod manager;
pub(crate) mod names;
mod net;
pub(crate) mod process;
pub(crate) mod registry;
pub(crate) mod require;
pub(crate) mod state;

use board::Board;
use group::{Group, Hierarchy};
use image::Image;
use manager::Manager;
use names::{BOARDS_MAX, Name, REGISTRY_PORT, Subnet};
use process::{Process, wait_for};
use registry::Registry;
use state::State;

/// How long new boards may take to be ready in the manager's eyes.
const NODES_READY_MAX: Duration = Duration::from_secs(60);

/// What a new lab shall be.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Its name.
    pub(crate) name: Name,
    /// How many boards, from 1 to [`BOARDS_MAX`].
    pub(crate) boards: u8,
    /// With manager and agents; otherwise containerd and registry only.
    pub(crate) cluster: bool,
    /// An agent on the manager's own board too.
    pub(crate) manager_agent: bool,
    /// `PID START` of the test that owns it.
    pub(crate) owner: Option<String>,
}

/// A lab that is up.
#[derive(Debug)]
pub(crate) struct Lab {
    /// Its name.
    pub(crate) name: Name,
    /// Its directory.
    pub(crate) directory: PathBuf,
    state: State,
}

impl Lab {
    /// Makes a lab. When that fails, nothing stays behind.
    pub(crate) fn up(config: Config) -> Result<Self> {
        let Config { name, boards, cluster, manager_agent, owner } = config;
        ensure!((1..=BOARDS_MAX).contains(&boards), "boards: expected 1 to {BOARDS_MAX}, not {boards}");
        ensure!(cluster || !manager_agent, "a lab without a manager has no manager's agent");
        let bin_dir = require::bin_dir()?;
        require::all(&name, cluster.then_some(&bin_dir))?;
        let state = state::claim(&name, |slot| State { slot, boards, cluster, manager_agent, bin_dir, owner })?;
        let lab = Self { directory: state::directory(&name), name, state };
        match lab.build() {
            Ok(()) => Ok(lab),
            Err(cause) => {
                let cause = cause.context(format!("lab {} did not come up", lab.name));
                match down(&lab.name) {
                    Ok(_) => Err(cause),
                    Err(also) => Err(cause.context(format!("cleaning up failed too: {also:#}"))),
                }
            }
        }
    }

    /// The lab of that name.
    pub(crate) fn open(name: Name) -> Result<Self> {
        require::root()?;
        let state =
            state::load(&name)?.with_context(|| format!("there is no lab {name}: `make lab LAB={name}` starts it"))?;
        Ok(Self { directory: state::directory(&name), name, state })
    }

    fn build(&self) -> Result<()> {
        for directory in ["pid", "run", "manager", "registry"] {
            fs::create_dir(self.directory.join(directory))?;
        }
        self.hierarchy().mount()?;
        net::make_bridge(&self.name, self.subnet())?;
        net::make_node(&self.name, &self.name.netns_manager(), "mgr", self.subnet().manager())?;
        self.registry().start(&self.group_of("registry")?)?;
        self.push_images()?;

        let boards = self.boards();
        std::thread::scope(|scope| {
            let installs: Vec<_> = boards.iter().map(|board| scope.spawn(|| board.install())).collect();
            installs.into_iter().zip(&boards).try_for_each(|(install, board)| {
                let installed = install.join().map_err(|_| anyhow!("panicked"));
                installed.and_then(|result| result).with_context(|| format!("board {}", board.number))
            })
        })?;
        if self.state.cluster { self.form_cluster(&boards) } else { Ok(()) }
    }

    fn form_cluster(&self, boards: &[Board<'_>]) -> Result<()> {
        let manager = self.manager();
        manager.start()?;
        manager.init()?;
        let token = manager.worker_token()?;
        for board in boards {
            board.join(&token).with_context(|| format!("board {}", board.number))?;
            board.start_agent()?;
        }
        let hostnames: Vec<String> = boards.iter().map(Board::hostname).collect();
        let what = format!("{} to be ready", hostnames.join(", "));
        let waited =
            wait_for(
                &what,
                NODES_READY_MAX,
                || Ok((manager.nodes_ready(&hostnames)? >= hostnames.len()).then_some(())),
            );
        waited.map_err(|cause| {
            let logs = boards.iter().map(Board::agent_log).chain([manager.log()]);
            let tails: Vec<String> = logs.map(|log| process::log_tail(&log)).collect();
            cause.context(tails.join("\n"))
        })
    }

    fn push_images(&self) -> Result<()> {
        let registry = self.registry();
        registry.push("busybox", "latest", &Image::busybox(&["sh"])?)?;
        registry.push("web", "latest", &Image::web()?)?;
        Ok(())
    }

    /// Its boards, the manager's own (number 0) first if it has an agent.
    pub(crate) fn boards(&self) -> Vec<Board<'_>> {
        let first = u8::from(!self.state.manager_agent);
        (first..=self.state.boards).map(|number| Board { lab: self, number }).collect()
    }

    /// One board.
    pub(crate) fn board(&self, number: u8) -> Result<Board<'_>> {
        self.boards()
            .into_iter()
            .find(|board| board.number == number)
            .with_context(|| format!("lab {} has boards 1 to {}, no board {number}", self.name, self.state.boards))
    }

    /// The manager.
    pub(crate) fn manager(&self) -> Manager<'_> {
        Manager { lab: self }
    }

    /// The registry.
    pub(crate) fn registry(&self) -> Registry {
        Registry {
            address: SocketAddr::from((self.subnet().registry(), REGISTRY_PORT)),
            directory: self.directory.join("registry"),
            netns: self.name.netns_bridge(),
            pid_file: self.pid_file("registry"),
        }
    }

    /// Starts a killed registry again.
    pub(crate) fn start_registry(&self) -> Result<()> {
        self.registry().start(&self.group_of("registry")?)
    }

    /// Shell variables that tell a person or a script where everything is.
    pub(crate) fn env(&self) -> Vec<(String, String)> {
        let socket = self.manager().socket().display().to_string();
        let mut env = vec![
            ("LAB".to_owned(), self.name.to_string()),
            ("LAB_REGISTRY".to_owned(), self.registry().host()),
            ("LAB_BOARDS".to_owned(), self.state.boards.to_string()),
            ("LAB_BIN_DIR".to_owned(), self.state.bin_dir.display().to_string()),
        ];
        if self.state.cluster {
            env.push(("DOCKER_HOST".to_owned(), format!("unix://{socket}")));
            env.push(("RACIMO_HOST".to_owned(), format!("unix://{socket}")));
            env.push(("PI_MGR_SOCKET".to_owned(), socket));
            env.push(("LAB_MANAGER_IP".to_owned(), self.subnet().manager().to_string()));
            env.push(("LAB_MANAGER_NETNS".to_owned(), self.name.netns_manager()));
            env.push(("LAB_MANAGER_DATA".to_owned(), self.manager().data().display().to_string()));
        }
        for board in self.boards() {
            let prefix = format!("LAB_BOARD_{}", board.number);
            env.push((format!("{prefix}_IP"), board.address().to_string()));
            env.push((format!("{prefix}_NETNS"), board.netns()));
            env.push((format!("{prefix}_CONTAINERD"), board.containerd().display().to_string()));
            env.push((format!("{prefix}_DATA"), board.data().display().to_string()));
        }
        env
    }

    pub(crate) fn subnet(&self) -> Subnet {
        Subnet(self.state.slot)
    }

    fn hierarchy(&self) -> Hierarchy {
        hierarchy(&self.name)
    }

    fn group_of(&self, part: &str) -> Result<Group> {
        self.hierarchy().group(part)
    }

    fn pid_file(&self, program: &str) -> PathBuf {
        self.directory.join("pid").join(program)
    }

    fn program(&self, name: &str) -> PathBuf {
        self.state.bin_dir.join(name)
    }
}

fn hierarchy(name: &Name) -> Hierarchy {
    Hierarchy::new(name.hierarchy(), state::directory(name).join("cgroup"))
}

/// Ends a lab, whole or half made, and removes all of it. `false` when there
/// was nothing.
///
/// # Errors
/// All that could not be removed, after everything was tried.
pub(crate) fn down(name: &Name) -> Result<bool> {
    let was_there = tear_down(name)?;
    state::remove_root()?;
    Ok(was_there)
}

/// Ends the labs of tests that died without ending them.
pub(crate) fn sweep() -> Result<()> {
    let lock = state::lock()?;
    for name in state::labs() {
        let owner = state::load(&name)?.and_then(|state| state.owner);
        if owner.is_some_and(|owner| Process::parse(&owner).is_none()) {
            tear_down(&name)?;
        }
    }
    drop(lock);
    state::remove_root()
}

fn tear_down(name: &Name) -> Result<bool> {
    require::root()?;
    if leftovers::find(name)?.is_empty() {
        return Ok(false);
    }
    let directory = state::directory(name);
    let mut errors = Vec::new();
    errors.extend(hierarchy(name).destroy().err());
    for board in fs::read_dir(&directory).into_iter().flatten().flatten() {
        errors.extend(disk::forget_tasks(&board.path().join("run/containerd")).err());
    }
    errors.extend(disk::unmount_below(&directory).err());
    errors.extend(net::remove_all(name));
    // Never delete through a mount that would not go.
    if errors.is_empty() && directory.exists() {
        let removed = fs::remove_dir_all(&directory).with_context(|| format!("remove {}", directory.display()));
        errors.extend(removed.err());
    }
    if errors.is_empty() {
        return Ok(true);
    }
    let all: Vec<String> = errors.iter().map(|error| format!("{error:#}")).collect();
    bail!("lab {name} is not fully gone: {}", all.join("; "))
}
