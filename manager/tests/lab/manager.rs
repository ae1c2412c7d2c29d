//! The lab's manager.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Lab;
use super::http::{Response, Target, request};
use super::process::{Process, Start, log_tail, run, start, wait_for};

/// How long the manager may take to answer.
const READY_MAX: Duration = Duration::from_secs(30);

/// What a person or a test can do to the manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// SIGKILL.
    Kill,
    /// Start again from its disk.
    Start,
}

/// The manager of a lab.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manager<'a> {
    pub(super) lab: &'a Lab,
}

impl Manager<'_> {
    /// The socket of its API.
    pub(crate) fn socket(&self) -> PathBuf {
        self.lab.directory.join("run/pi-mgr.sock")
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.lab.directory.join("manager/data")
    }

    /// Its log.
    pub(crate) fn log(&self) -> PathBuf {
        self.lab.directory.join("manager/manager.log")
    }

    /// Its configuration file; read at its start if it is there.
    pub(crate) fn config(&self) -> PathBuf {
        self.lab.directory.join("manager/manager.toml")
    }

    fn pid_file(&self) -> PathBuf {
        self.lab.pid_file("manager")
    }

    /// Its process, if it runs.
    pub(crate) fn process(&self) -> Option<Process> {
        Process::from_file(&self.pid_file())
    }

    /// Does one thing to it.
    pub(crate) fn act(&self, verb: Verb) -> Result<()> {
        match verb {
            Verb::Kill => self.process().context("the manager is not running")?.kill(),
            Verb::Start => self.start(),
        }
    }

    /// Starts it and waits until its API answers.
    pub(super) fn start(&self) -> Result<()> {
        ensure!(self.lab.state.cluster, "lab {} was started with --bare: it has no manager", self.lab.name);
        ensure!(self.process().is_none(), "the manager is running already");
        let mut argv = self.lab.clock_environment("manager")?;
        argv.extend([
            self.lab.program("pi-mgr").display().to_string(),
            "serve".to_owned(),
            "--data-dir".to_owned(),
            self.data().display().to_string(),
            "--api".to_owned(),
            format!("unix://{}", self.socket().display()),
            "--api".to_owned(),
            "tcp://0.0.0.0:2376".to_owned(),
            "--insecure-registry".to_owned(),
            self.lab.registry().host(),
        ]);
        if self.config().exists() {
            argv.extend(["--config".to_owned(), self.config().display().to_string()]);
        }
        let process = start(&Start {
            group: self.lab.group_of("manager")?.path(),
            netns: &self.lab.name.netns_manager(),
            pid_file: &self.pid_file(),
            log: &self.log(),
            argv: &argv,
        })?;
        wait_for("the manager's API to answer", READY_MAX, || {
            ensure!(process.alive(), "the manager ended\n{}", log_tail(&self.log()));
            let answer = self.api("GET", "/_ping", None);
            Ok(answer.is_ok_and(|answer| answer.status == 200).then_some(()))
        })
        .map_err(|cause| cause.context(log_tail(&self.log())))
    }

    /// Sends one request to its API.
    pub(crate) fn api(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Response> {
        let target = Target::Unix(self.socket());
        let (content_type, bytes) = match body {
            Some(body) => ("application/json", serde_json::to_vec(body)?),
            None => ("", Vec::new()),
        };
        request(&target, method, path, content_type, &bytes)
    }

    /// Runs `pi-mgr` against it; returns what it printed.
    pub(crate) fn pi_mgr(&self, arguments: &[&str]) -> Result<String> {
        let program = self.lab.program("pi-mgr");
        let program = program.to_string_lossy();
        let host = format!("unix://{}", self.socket().display());
        run(&[&["timeout", "300", &program, "--host", &host], arguments].concat())
    }

    pub(super) fn init(&self) -> Result<()> {
        let address = self.lab.subnet().manager().to_string();
        self.pi_mgr(&["init", "--advertise-addr", &address]).map(drop)
    }

    /// The token with which boards join.
    pub(crate) fn worker_token(&self) -> Result<String> {
        let token = self.pi_mgr(&["join-token", "-q", "worker"])?;
        Ok(token.trim().to_owned())
    }

    /// How many of these host names belong to nodes that are ready.
    pub(super) fn nodes_ready(&self, hostnames: &[String]) -> Result<usize> {
        let nodes = self.api("GET", "/nodes", None)?.json()?;
        let nodes = nodes.as_array().context("GET /nodes: expected a list")?;
        let text = |node: &Value, pointer: &str| node.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let ready = nodes.iter().filter(|node| {
            let hostname = text(node, "/Description/Hostname");
            text(node, "/Status/State").as_deref() == Some("ready")
                && hostname.is_some_and(|name| hostnames.contains(&name))
        });
        Ok(ready.count())
    }
}
