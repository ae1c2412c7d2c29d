//! One board: a namespace, a containerd, an agent, and the verbs that act on
//! them.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::group::Group;
use super::names::MANAGER_PORT;
use super::process::{Process, Start, log_tail, run, start, wait_for};
use super::{Lab, disk, net};

/// How long containerd may take to answer.
const CONTAINERD_READY_MAX: Duration = Duration::from_secs(30);

/// What a person or a test can do to a board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Pull the network cable.
    Cut,
    /// Plug the network cable in.
    Heal,
    /// SIGKILL the agent.
    KillAgent,
    /// Start the agent again.
    StartAgent,
    /// SIGKILL every process of the board at once, its cable pulled.
    PowerOff,
    /// Boot from what is on its disk.
    PowerOn,
    /// Stop every process of the board without ending it.
    Freeze,
    /// Let a frozen board go on.
    Thaw,
    /// Delay what reaches the board by this many milliseconds; 0 ends it.
    Delay(u32),
}

/// A board of a lab. Number 0 is the manager's own board, where it has an
/// agent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Board<'a> {
    pub(super) lab: &'a Lab,
    /// From 1.
    pub(crate) number: u8,
}

impl Board<'_> {
    /// Its address.
    pub(crate) fn address(&self) -> Ipv4Addr {
        match self.number {
            0 => self.lab.subnet().manager(),
            n => self.lab.subnet().board(n),
        }
    }

    /// Its network namespace, as `ip netns` names it.
    pub(crate) fn netns(&self) -> String {
        match self.number {
            0 => self.lab.name.netns_manager(),
            n => self.lab.name.netns_board(n),
        }
    }

    /// Its name: the host name its agent reports.
    pub(crate) fn hostname(&self) -> String {
        match self.number {
            0 => "manager".to_owned(),
            n => format!("board{n}"),
        }
    }

    fn port(&self) -> String {
        format!("b{}", self.number)
    }

    /// Everything it has: `disk/`, `run/`, `log/`.
    pub(crate) fn directory(&self) -> PathBuf {
        self.lab.directory.join(format!("b{}", self.number))
    }

    fn run_dir(&self) -> PathBuf {
        self.directory().join("run")
    }

    fn log(&self, program: &str) -> PathBuf {
        self.directory().join("log").join(format!("{program}.log"))
    }

    /// Its containerd's socket.
    pub(crate) fn containerd(&self) -> PathBuf {
        self.run_dir().join("containerd.sock")
    }

    /// Its agent's data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.directory().join("disk/agent")
    }

    /// Its agent's configuration file; read at the agent's start if it is there.
    pub(crate) fn agent_config(&self) -> PathBuf {
        self.directory().join("agent.toml")
    }

    /// A shell script, if it is there, that its agent is started by, in a mount namespace of its own: it changes what
    /// the agent sees of the board, and ends with `exec "$@"`. Mounts that the agent makes then are seen by nobody else,
    /// so such a board has tasks of the network `host` only.
    pub(crate) fn agent_view(&self) -> PathBuf {
        self.directory().join("view.sh")
    }

    /// Its agent's log.
    pub(crate) fn agent_log(&self) -> PathBuf {
        self.log("agent")
    }

    fn pid_file(&self, program: &str) -> PathBuf {
        self.lab.pid_file(&format!("b{}-{program}", self.number))
    }

    /// Its agent's process, if it runs.
    pub(crate) fn agent(&self) -> Option<Process> {
        Process::from_file(&self.pid_file("agent"))
    }

    /// Its containerd's process, if it runs.
    pub(crate) fn containerd_process(&self) -> Option<Process> {
        Process::from_file(&self.pid_file("containerd"))
    }

    fn group(&self) -> Result<Group> {
        self.lab.hierarchy().group(&format!("b{}", self.number))
    }

    /// Pids of all its processes, containers included.
    pub(crate) fn processes(&self) -> Vec<u32> {
        self.group().map(|group| group.members()).unwrap_or_default()
    }

    /// Does anything run on it?
    pub(crate) fn is_on(&self) -> bool {
        !self.processes().is_empty()
    }

    /// Is its cable plugged in?
    pub(crate) fn is_plugged(&self) -> Result<bool> {
        net::plugged(&self.lab.name, &self.port())
    }

    /// The command line that runs a command on its network.
    pub(crate) fn on_its_network(&self, command: &[&str]) -> Vec<String> {
        let netns = format!("--net=/run/netns/{}", self.netns());
        ["nsenter", &netns, "--"].iter().chain(command).map(|&word| word.to_owned()).collect()
    }

    /// Runs `ctr` against its containerd, in the namespace agents use.
    pub(crate) fn ctr(&self, arguments: &[&str]) -> Result<String> {
        let socket = self.containerd();
        let socket = socket.to_string_lossy();
        let netns = format!("--net=/run/netns/{}", self.netns());
        let fixed = ["timeout", "120", "nsenter", &netns, "--", "ctr", "--address", &socket, "--namespace", "racimo"];
        run(&[&fixed[..], arguments].concat())
    }

    /// Does one thing to it.
    ///
    /// # Errors
    /// Also when the verb makes no sense now: the board is off, its agent runs
    /// already, and the like.
    pub(crate) fn act(&self, verb: Verb) -> Result<()> {
        if self.number == 0 && !matches!(verb, Verb::KillAgent | Verb::StartAgent) {
            bail!("board 0 is the manager's own: it knows kill-agent and start-agent only");
        }
        match verb {
            Verb::PowerOn => return self.power_on(),
            Verb::PowerOff => return self.power_off(),
            Verb::Cut
            | Verb::Heal
            | Verb::KillAgent
            | Verb::StartAgent
            | Verb::Freeze
            | Verb::Thaw
            | Verb::Delay(_) => {}
        }
        ensure!(self.is_on(), "board {} is without power: power-on first", self.number);
        match verb {
            Verb::Cut => net::plug(&self.lab.name, &self.port(), false),
            Verb::Heal => net::plug(&self.lab.name, &self.port(), true),
            Verb::KillAgent => {
                self.agent().with_context(|| format!("board {}'s agent is not running", self.number))?.kill()
            }
            Verb::StartAgent => self.start_agent(),
            Verb::Freeze => self.group()?.freeze(),
            Verb::Thaw => self.group()?.thaw(),
            Verb::Delay(ms) => net::delay(&self.lab.name, &self.port(), ms),
            Verb::PowerOn | Verb::PowerOff => Ok(()),
        }
    }

    /// Plugs it in for the first time: cable and containerd, no agent yet.
    pub(super) fn install(&self) -> Result<()> {
        for directory in ["disk/containerd", "disk/agent", "log", "run"] {
            fs::create_dir_all(self.directory().join(directory))?;
        }
        if self.number != 0 {
            net::make_node(&self.lab.name, &self.netns(), &self.port(), self.address())?;
        }
        self.start_containerd()
    }

    fn power_off(&self) -> Result<()> {
        ensure!(self.is_on(), "board {} is without power already", self.number);
        // The cable first, so that no dying process can tell anybody.
        net::plug(&self.lab.name, &self.port(), false)?;
        self.group()?.kill()?;
        self.wipe()
    }

    /// Takes what a loss of power takes; its processes are dead.
    pub(super) fn wipe(&self) -> Result<()> {
        let run = self.run_dir();
        disk::unmount_below(&self.directory())?;
        disk::forget_tasks(&run.join("containerd"))?;
        if run.exists() {
            fs::remove_dir_all(&run).with_context(|| format!("wipe {}", run.display()))?;
        }
        Ok(())
    }

    fn power_on(&self) -> Result<()> {
        ensure!(!self.is_on(), "board {} has power already", self.number);
        // Whatever the last boot left, for instance after a crash of the lab.
        self.wipe()?;
        // A kernel that boots knows no links, routes or rules of its last life.
        net::remove_node(&self.lab.name, &self.netns(), &self.port())?;
        net::make_node(&self.lab.name, &self.netns(), &self.port(), self.address())?;
        fs::create_dir_all(self.run_dir())?;
        self.start_containerd()?;
        if self.lab.state.cluster { self.start_agent() } else { Ok(()) }
    }

    /// Starts a program on it, that ends when the board does.
    pub(crate) fn start(&self, program: &str, argv: &[String]) -> Result<Process> {
        start(&Start {
            group: self.group()?.path(),
            netns: &self.netns(),
            pid_file: &self.pid_file(program),
            log: &self.log(program),
            argv,
        })
    }

    /// Starts containerd and waits until it answers.
    pub(crate) fn start_containerd(&self) -> Result<()> {
        let config = self.directory().join("disk/containerd.toml");
        fs::write(&config, self.containerd_config()).with_context(|| format!("write {}", config.display()))?;
        // As images/files/etc/systemd/system/containerd.service.d/90-racimo.conf has it.
        let argv = ["GOGC=40", "containerd", "--config", &config.display().to_string()].map(str::to_owned);
        let process = self.start("containerd", &argv)?;
        wait_for("containerd to answer", CONTAINERD_READY_MAX, || {
            ensure!(process.alive(), "containerd ended\n{}", log_tail(&self.log("containerd")));
            Ok(self.ctr(&["version"]).is_ok().then_some(()))
        })
    }

    fn containerd_config(&self) -> String {
        // A board's own. Among its plugins are those that would touch the machine beyond this board's directory.
        const OF_IMAGES: &str = include_str!("../../../images/files/etc/containerd/config.toml");
        let disabled = OF_IMAGES.find("disabled_plugins = [").map(|at| &OF_IMAGES[at..]).unwrap_or_default();
        format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n{disabled}\n[grpc]\naddress = {:?}\n",
            self.directory().join("disk/containerd"),
            self.run_dir().join("containerd"),
            self.containerd(),
        )
    }

    /// Gets the agent its identity. It need not run. The manager's own board needs none: it has the manager's socket.
    pub(crate) fn join(&self, token: &str) -> Result<()> {
        if self.number == 0 {
            return Ok(());
        }
        let netns = format!("--net=/run/netns/{}", self.netns());
        let agent = self.lab.program("pi-agent");
        let data = self.data();
        let (agent, data) = (agent.to_string_lossy(), data.to_string_lossy());
        let manager = format!("{}:{MANAGER_PORT}", self.lab.subnet().manager());
        let clock = self.lab.clock_environment(&format!("board{}", self.number))?;
        let clock: Vec<&str> = clock.iter().map(String::as_str).collect();
        let before = ["timeout", "60", "nsenter", &netns, "--", "env"];
        let join = [&*agent, "join", "--token", token, "--data-dir", &data, &manager];
        run(&[&before[..], &clock, &join].concat()).map(drop)
    }

    /// Starts the agent.
    pub(crate) fn start_agent(&self) -> Result<()> {
        ensure!(self.lab.state.cluster, "lab {} was started with --bare: it has no agents", self.lab.name);
        ensure!(self.agent().is_none(), "board {}'s agent is running already", self.number);
        let mut argv = self.lab.clock_environment(&format!("board{}", self.number))?;
        let view = self.agent_view();
        if view.exists() {
            argv.extend(["unshare", "--mount", "sh"].map(str::to_owned));
            argv.push(view.display().to_string());
        }
        argv.extend([
            self.lab.program("pi-agent").display().to_string(),
            "run".to_owned(),
            "--data-dir".to_owned(),
            self.data().display().to_string(),
            "--run-dir".to_owned(),
            self.run_dir().join("agent").display().to_string(),
            "--containerd".to_owned(),
            self.containerd().display().to_string(),
            "--hostname".to_owned(),
            self.hostname(),
            "--label".to_owned(),
            format!("board={}", self.number),
            "--insecure-registry".to_owned(),
            self.lab.registry().host(),
        ]);
        let config = self.agent_config();
        if config.exists() {
            argv.extend(["--config".to_owned(), config.display().to_string()]);
        }
        if self.number == 0 {
            let socket = self.lab.manager().socket().with_file_name("agent.sock");
            argv.extend(["--manager-socket".to_owned(), socket.display().to_string()]);
        }
        self.start("agent", &argv).map(drop)
    }
}
