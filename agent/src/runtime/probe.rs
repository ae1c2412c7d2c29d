//! One check of a container's health: a process inside it that must end with 0 in time.
//!
//! ```text
//! read what to run ─▶ exec ─▶ start ─▶ wait ─ ends ──────────────▶ delete the exec ─▶ Passed | Failed
//!                      ▲                 └─ too late: kill, wait ─▶ delete the exec ─▶ Failed
//!                      └─ an earlier one is left over: kill, wait, delete it first
//! ```
//! What to run is kept with the container in containerd, so that it outlives the agent. The process gets what the
//! container's first process has: user, environment, directory, capabilities; the runtime puts it into the
//! container's namespaces and cgroups. What it says comes through a FIFO and is dropped: it may be a secret, and a task's
//! report is kept on the manager.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use containerd_client::services::v1::{
    Container, DeleteProcessRequest, ExecProcessRequest, GetContainerRequest, KillRequest, StartRequest, WaitRequest,
    containers_client::ContainersClient, tasks_client::TasksClient,
};
use racimo_common::{id::TaskId, signal::SIGKILL};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, getpgid, kill_process_group};
use serde::Deserialize;
use serde_json::{Map, Value};
use smol::{Async, Timer};
use tonic::{Code, Status};

use super::{
    Runtime, RuntimeError,
    ctrd::{Ctrd, CtrdError, request, unless, within},
};
use crate::health::{Check, Probe, Watch};
use crate::limits;

/// The name of the process in its container: there is one at a time.
const EXEC: &str = "health";
/// Under this name the container keeps what to run.
const EXTENSION: &str = "io.racimo.health";
const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
/// Bytes read from the FIFO at once.
const CHUNK: usize = 1024;
/// How long reading rests after each chunk of an output that is slowed down.
const SLOW_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// How a check went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probed {
    /// It ended with 0 in time.
    Passed,
    /// It did not, and why; never what it said.
    Failed(String),
}

/// What a container keeps, as an entry of its extensions.
pub(super) fn keep(probe: &Probe) -> (String, prost_types::Any) {
    let value = serde_json::to_vec(probe).unwrap_or_default();
    (EXTENSION.to_owned(), prost_types::Any { type_url: EXTENSION.to_owned(), value })
}

/// What a container has kept; none: its health is not checked.
pub(super) fn kept(extensions: &HashMap<String, prost_types::Any>) -> Option<Probe> {
    serde_json::from_slice(&extensions.get(EXTENSION)?.value).ok()
}

/// The part of a container's specification that matters here.
#[derive(Deserialize)]
struct Spec {
    process: Map<String, Value>,
}

/// The process to run: the container's own, with another program.
fn process(container: &Container, args: Vec<String>) -> Result<Vec<u8>, serde_json::Error> {
    let spec = container.spec.as_ref().map_or(&[][..], |spec| &spec.value);
    let Spec { mut process } = serde_json::from_slice(spec)?;
    process.insert("args".to_owned(), args.into());
    process.insert("terminal".to_owned(), false.into());
    process.remove("consoleSize");
    serde_json::to_vec(&process)
}

impl Runtime {
    /// Checks the health of a running container once.
    ///
    /// # Errors
    /// It could not be checked: containerd is away or does not know the container, or the board has no room for what
    /// a check needs. That says nothing about the container.
    pub async fn probe(&self, task: TaskId) -> Result<Probed, RuntimeError> {
        let _turn = self.0.probe_turns.acquire().await;
        let exec = Exec { ctrd: self.connect().await?, id: task.to_string() };
        let fifo = self.health_file(task, "out");
        let mut begun = self.begin_probe(task, &exec, &fifo).await?;
        if let Begun::Left = begun {
            begun = match exec.end_left().await {
                Ok(()) => self.begin_probe(task, &exec, &fifo).await?,
                Err(error) => Begun::Refused(error),
            };
        }
        let probed = match begun {
            Begun::Runs { pid, check, output } => exec.finish(pid, &check, output).await,
            Begun::Refused(error) => Err(error),
            Begun::Left => Ok(Probed::Failed("the last health check is still there".to_owned())),
            Begun::Never(why) => return Ok(Probed::Failed(why)),
        };
        let deleted = match &probed {
            // With containerd away the next check finds it.
            Err(error) if error.is_lost() => Ok(()),
            Ok(_) | Err(_) => exec.delete().await,
        };
        if let Err(error) = deleted {
            log::debug!("task {task}: the health check's process stays for now: {error}");
        }
        let _ = fs::remove_file(&fifo);
        let probed = probed.or_else(|error| judge(error, !exec.ctrd.is_closed()))?;
        if probed == Probed::Passed {
            self.note_healthy(task);
        }
        Ok(probed)
    }

    /// Starts the process of a check. What is read for it is gone when this returns: it may be large.
    async fn begin_probe(&self, task: TaskId, exec: &Exec, fifo: &Path) -> Result<Begun, RuntimeError> {
        let _start = self.0.probe_starts.acquire().await;
        let mut containers = ContainersClient::new(exec.ctrd.clone());
        let message = GetContainerRequest { id: task.to_string() };
        let got = within(limits::CTRD_CALL_MAX, containers.get(request(message, None))).await;
        let container = got.map_err(CtrdError::call("find the container"))?.into_inner().container.unwrap_or_default();
        let size = container.spec.as_ref().map_or(0, |spec| spec.value.len());
        let _heavy = self.heavy_turn(size).await;
        let Some(Probe { args, check }) = kept(&container.extensions) else {
            return Ok(Begun::Never("the container has no health check".to_owned()));
        };
        if args.first().is_none_or(String::is_empty) {
            return Ok(Begun::Never("the health check names no program".to_owned()));
        }
        let process = match process(&container, args) {
            Ok(process) => process,
            Err(error) => return Ok(Begun::Never(format!("read the container's specification: {error}"))),
        };
        drop(container);
        let output = Output::open(fifo).map_err(RuntimeError::io("make", fifo))?;
        Ok(match exec.start(process, fifo).await {
            Ok(Some(pid)) => Begun::Runs { pid, check, output },
            Ok(None) => Begun::Left,
            Err(error) => Begun::Refused(error),
        })
    }

    /// What is known of the health of a container found on the board.
    pub(super) fn watch(&self, task: TaskId, check: Check) -> Watch {
        Watch { check, was_healthy: self.health_file(task, "ok").exists() }
    }

    /// Notes that a container was healthy, for the agent's next life.
    fn note_healthy(&self, task: TaskId) {
        let path = self.health_file(task, "ok");
        if let Err(error) = File::options().create(true).append(true).open(&path) {
            log::debug!("make {}: {error}", path.display());
        }
    }

    /// Forgets what was noted.
    pub(super) fn forget_health(&self, task: TaskId) {
        for kind in ["out", "ok"] {
            let _ = fs::remove_file(self.health_file(task, kind));
        }
    }

    /// The tasks of which something is noted.
    pub(super) fn tasks_with_health(&self) -> BTreeSet<TaskId> {
        let Ok(files) = fs::read_dir(self.health_dir()) else { return BTreeSet::new() };
        let task = |file: fs::DirEntry| file.path().file_stem()?.to_str()?.parse().ok();
        files.flatten().filter_map(task).collect()
    }

    fn health_dir(&self) -> PathBuf {
        self.0.config.run.join("health")
    }

    fn health_file(&self, task: TaskId, kind: &str) -> PathBuf {
        self.health_dir().join(format!("{task}.{kind}"))
    }
}

/// How the start of a check went.
enum Begun {
    /// Its process runs.
    Runs { pid: u32, check: Check, output: Output },
    /// An earlier one is left over: it must be ended first.
    Left,
    /// containerd did not start it.
    Refused(CtrdError),
    /// It makes no sense.
    Never(String),
}

/// What it means for a container that its check met an error of containerd: it has failed, unless containerd is away.
/// With the connection intact (`connected`) nothing came in time because of the container: a process that the kernel
/// does not let go of, or a shim that hangs.
fn judge(error: CtrdError, connected: bool) -> Result<Probed, CtrdError> {
    match error {
        CtrdError::Call { source, .. } if !source.lost || connected && source.code == Code::DeadlineExceeded => {
            Ok(Probed::Failed(format!("health check could not run: {}", source.message)))
        }
        error @ (CtrdError::Call { .. } | CtrdError::Unreachable { .. }) => Err(error),
    }
}

/// The process of a check.
struct Exec {
    ctrd: Ctrd,
    /// The container's.
    id: String,
}

impl Exec {
    /// Starts it; answers its process id. None: one that an earlier check left is in the way.
    async fn start(&self, process: Vec<u8>, fifo: &Path) -> Result<Option<u32>, CtrdError> {
        let spec = prost_types::Any { type_url: PROCESS_TYPE.into(), value: process };
        let fifo = fifo.display().to_string();
        let message = ExecProcessRequest {
            container_id: self.id.clone(),
            exec_id: EXEC.into(),
            stdout: fifo.clone(),
            stderr: fifo,
            spec: Some(spec),
            ..ExecProcessRequest::default()
        };
        let mut tasks = TasksClient::new(self.ctrd.clone());
        match within(limits::CTRD_CALL_MAX, tasks.exec(request(message, None))).await {
            Err(status) if status.code() == Code::AlreadyExists => return Ok(None),
            made => drop(made.map_err(CtrdError::call("run the health check"))?),
        }
        let message = StartRequest { container_id: self.id.clone(), exec_id: EXEC.into() };
        let started = within(limits::CTRD_CALL_MAX, tasks.start(request(message, None))).await;
        Ok(Some(started.map_err(CtrdError::call("run the health check"))?.into_inner().pid))
    }

    /// Ends and removes one that an earlier check left.
    async fn end_left(&self) -> Result<(), CtrdError> {
        self.end(None).await.map_err(CtrdError::call("end the last health check"))?;
        self.delete().await
    }

    /// Waits for its end, and makes sure of it when its time is over.
    async fn finish(&self, pid: u32, check: &Check, mut output: Output) -> Result<Probed, CtrdError> {
        let ended = async { Some(self.ended().await) };
        let late = async {
            Timer::after(check.timeout).await;
            None
        };
        let ended = smol::future::or(smol::future::or(ended, late), output.read()).await;
        let what = match ended.transpose().map_err(CtrdError::call("see the health check end"))? {
            Some(0) => return Ok(Probed::Passed),
            Some(status) => format!("health check exited with {status}"),
            None => {
                if let Err(status) = self.end(Some(pid)).await {
                    let error = CtrdError::call("kill the health check")(status);
                    if error.is_lost() && !self.ctrd.is_closed() {
                        // The kernel does not let go of it: it has failed all the same, and the next one tries again.
                        log::warn!("{}: {error}", self.id);
                    } else {
                        return Err(error);
                    }
                }
                format!("health check exceeded timeout ({:?})", check.timeout)
            }
        };
        Ok(Probed::Failed(what))
    }

    /// Its exit code, once it has ended.
    async fn ended(&self) -> Result<u32, Status> {
        let mut tasks = TasksClient::new(self.ctrd.clone());
        let message = WaitRequest { container_id: self.id.clone(), exec_id: EXEC.into() };
        Ok(tasks.wait(request(message, None)).await?.into_inner().exit_status)
    }

    /// Kills it and waits for its end. With it, if its process id is known, everything it started that did not leave
    /// its process group: a shell's children would stay in the container otherwise.
    async fn end(&self, pid: Option<u32>) -> Result<(), Status> {
        let pid = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|pid| getpgid(Some(*pid)) == Ok(*pid)) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let mut tasks = TasksClient::new(self.ctrd.clone());
        let message = KillRequest {
            container_id: self.id.clone(),
            exec_id: EXEC.into(),
            signal: SIGKILL,
            ..KillRequest::default()
        };
        let killed = within(limits::CTRD_CALL_MAX, tasks.kill(request(message, None))).await;
        match killed {
            // It ended, or it was never started.
            Err(status) if matches!(status.code(), Code::NotFound | Code::FailedPrecondition) => return Ok(()),
            killed => drop(killed?),
        }
        unless(Code::NotFound, within(limits::KILL_WAIT_MAX, self.ended()).await).map(drop)
    }

    /// Removes what containerd has of it.
    async fn delete(&self) -> Result<(), CtrdError> {
        let mut tasks = TasksClient::new(self.ctrd.clone());
        let message = DeleteProcessRequest { container_id: self.id.clone(), exec_id: EXEC.into() };
        let deleted = within(limits::CTRD_CALL_MAX, tasks.delete_process(request(message, None))).await;
        unless(Code::NotFound, deleted).map_err(CtrdError::call("delete the health check's process")).map(drop)
    }
}

/// What a check says: read as it comes, so that it never waits for us, and dropped.
struct Output {
    fifo: Async<File>,
    chunk: Box<[u8; CHUNK]>,
    read: usize,
}

impl Output {
    fn open(path: &Path) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        // Open for writing too: then it never looks ended, before the shim opens it or after.
        let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
        let fifo = File::options().read(true).write(true).custom_flags(flags).open(path)?;
        Ok(Self { fifo: Async::new(fifo)?, chunk: Box::new([0; CHUNK]), read: 0 })
    }

    /// Reads for ever.
    async fn read<T>(&mut self) -> T {
        loop {
            let (fifo, chunk) = (&self.fifo, &mut self.chunk);
            match fifo.read_with(|mut fifo| fifo.read(&mut chunk[..])).await {
                Ok(count) => self.read = self.read.saturating_add(count),
                Err(error) => {
                    log::debug!("read what a health check says: {error}");
                    return smol::future::pending().await;
                }
            }
            if self.read > limits::PROBE_OUTPUT_FAST {
                Timer::after(SLOW_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_check_never_waits_to_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("health/x.out");
        // What an earlier agent left is replaced.
        drop(Output::open(&path).unwrap());
        let mut output = Output::open(&path).unwrap();
        let writer = std::thread::spawn(move || {
            let mut fifo = File::options().write(true).open(path).unwrap();
            for number in 0..5000 {
                writeln!(fifo, "line {number}").unwrap();
            }
            writeln!(fifo, "\tno \u{1b}[31mroute").unwrap();
        });
        smol::block_on(async {
            let late = async {
                while !writer.is_finished() {
                    Timer::after(Duration::from_millis(5)).await;
                }
                Timer::after(Duration::from_millis(50)).await;
            };
            smol::future::or(output.read(), late).await;
        });
        assert!(output.read > 5000 * 6, "{} bytes", output.read);
    }

    #[test]
    fn the_process_is_the_containers_with_another_program() {
        let spec = r#"{"ociVersion":"1","process":{"args":["a"],"terminal":true,"consoleSize":{"height":1,"width":1},
            "user":{"uid":33,"gid":34},"env":["A=b"],"cwd":"/srv"},"root":{"path":"rootfs"}}"#;
        let spec = prost_types::Any { type_url: String::new(), value: spec.into() };
        let container = Container { spec: Some(spec), ..Container::default() };
        let process: Value =
            serde_json::from_slice(&process(&container, vec!["b".into(), "c".into()]).unwrap()).unwrap();
        let want = serde_json::json!({"args":["b","c"],"terminal":false,"user":{"uid":33,"gid":34},"env":["A=b"],"cwd":"/srv"});
        assert_eq!(process, want);
        assert!(super::process(&Container::default(), Vec::new()).is_err());
    }

    #[test]
    fn only_with_containerd_away_an_error_says_nothing() {
        let judged = |status: Status, connected| judge(CtrdError::call("x")(status), connected).ok();
        let failed = |why: &str| Some(Probed::Failed(format!("health check could not run: {why}")));
        // An unkillable one is still there: each further check fails too.
        assert_eq!(judged(Status::deadline_exceeded("no answer"), true), failed("no answer"));
        assert_eq!(judged(Status::deadline_exceeded("no answer"), false), None);
        assert_eq!(judged(Status::unavailable("away"), true), None);
        assert_eq!(judged(Status::not_found("no such file"), true), failed("no such file"));
    }

    #[test]
    fn what_to_run_comes_back() {
        let check = Check {
            interval: Duration::from_millis(1500),
            timeout: Duration::from_secs(1),
            start_period: Duration::ZERO,
            start_interval: Duration::from_secs(5),
            retries: 2,
        };
        let probe = Probe { args: vec!["x".repeat(9000)], check };
        assert_eq!(kept(&HashMap::from([keep(&probe)])), Some(probe));
        assert_eq!(kept(&HashMap::new()), None);
        let broken = prost_types::Any { type_url: String::new(), value: b"{".to_vec() };
        assert_eq!(kept(&HashMap::from([(EXTENSION.to_owned(), broken)])), None);
    }
}
